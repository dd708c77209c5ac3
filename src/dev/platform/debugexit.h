/* SPDX-License-Identifier: Apache-2.0 */
/* Exit port of test kernels: a write stops the machine with IO_REQ_DEBUG_EXIT, arg = the value written (32 bits). */
#ifndef DEV_PLATFORM_DEBUGEXIT_H
#define DEV_PLATFORM_DEBUGEXIT_H

#include "io/io.h"

struct debugexit_config {
	uint16_t base; /* four ports */
};

extern const struct device_class debugexit_class;

#endif
