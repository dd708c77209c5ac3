/* SPDX-License-Identifier: Apache-2.0 */
/* 8042 keyboard controller without keyboard: reset line, A20 latch; and system control port A (92h). */
#ifndef DEV_PLATFORM_I8042_H
#define DEV_PLATFORM_I8042_H

#include "io/io.h"

struct i8042_config {
	uint16_t data, command; /* 60h, 64h */
	uint16_t port_a;        /* 92h */
};

extern const struct device_class i8042_class;

#endif
