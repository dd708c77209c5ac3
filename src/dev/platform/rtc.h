/* SPDX-License-Identifier: Apache-2.0 */
/* MC146818 real-time clock with 128 bytes of CMOS memory. */
#ifndef DEV_PLATFORM_RTC_H
#define DEV_PLATFORM_RTC_H

#include "io/io.h"

struct rtc_config {
	uint16_t base; /* index and data port */
	uint8_t irq;
	uint64_t ram_below_4g, ram_above_4g; /* bytes, for the memory size registers */
	uint64_t (*wall_ns)(void *vm);       /* UTC, ns since 1970; vm is io->vm. NULL: the host's clock */
};

extern const struct device_class rtc_class;

#endif
