/* SPDX-License-Identifier: Apache-2.0 */
/*
 * 16550A serial port: configuration, and its host side. All calls with io->lock held.
 */
#ifndef DEV_PLATFORM_SERIAL_H
#define DEV_PLATFORM_SERIAL_H

#include "io/io.h"

/* The host's character device. put: bytes the guest sent (called once a byte; the receiver buffers). room (optional):
 * after serial_input() took less than it was given, the receiver has places again. */
struct chr_ops {
	void (*put)(void *opaque, const uint8_t *buf, size_t n);
	void (*room)(void *opaque);
};

struct serial_config {
	uint16_t base;
	uint8_t irq;
	const struct chr_ops *chr; /* NULL: output is dropped, the line is idle */
	void *chr_opaque;
};

extern const struct device_class serial_class;

/* Bytes from the host; returns how many the receiver took (the rest is offered again after room()). */
size_t serial_input(void *dev, const uint8_t *buf, size_t n);
/* Free places in the receiver. */
size_t serial_room(void *dev);
/* A break condition on the line. */
void serial_break(void *dev);

#endif
