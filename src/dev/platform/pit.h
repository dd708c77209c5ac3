/* SPDX-License-Identifier: Apache-2.0 */
/* 8254 interval timer (three channels) with port 61h: speaker gate and data, refresh toggle, OUT2. */
#ifndef DEV_PLATFORM_PIT_H
#define DEV_PLATFORM_PIT_H

#include "io/io.h"

struct pit_config {
	uint16_t base;    /* four ports */
	uint16_t speaker; /* port 61h */
	uint8_t irq;      /* of channel 0 */
};

extern const struct device_class pit_class;

#define PIT_HZ 1193182ull

#endif
