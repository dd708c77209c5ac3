/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The pair of 8259A interrupt controllers of a PC, with the edge/level control registers. Registers itself as an
 * interrupt line sink (GSI 0-15 are its ISA inputs) and as io->pic.
 */
#ifndef DEV_PLATFORM_PIC_H
#define DEV_PLATFORM_PIC_H

#include "io/io.h"

struct pic_config {
	uint16_t master, slave; /* two ports each */
	uint16_t elcr;          /* two ports */
	uint16_t level;         /* lines that are level-triggered from reset, as firmware would set them */
	/* The INTR output, level changes; NULL: io->kick() of CPU 0 when it rises. */
	void (*intr)(void *opaque, bool level);
	void *intr_opaque;
};

extern const struct device_class pic_class;

#endif
