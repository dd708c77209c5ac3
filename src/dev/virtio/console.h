/* SPDX-License-Identifier: Apache-2.0 */
/*
 * virtio-console with one port, the console (Linux: /dev/hvc0). Locking: io->lock for everything.
 */
#ifndef DEV_VIRTIO_CONSOLE_H
#define DEV_VIRTIO_CONSOLE_H

#include "dev/virtio/virtio.h"

struct virtio_console_options {
	/* Bytes the guest has put out; returns how many of them were taken. If not all, virtio_console_drained() follows some time. */
	size_t (*put)(void *opaque, const uint8_t *buf, size_t n);
	/* After virtio_console_input() took less than it was given: the guest has given room. May be NULL. */
	void (*room)(void *opaque);
	void *opaque;
	uint16_t cols, rows;     /* of the terminal; 0: unknown */
};

/* 0 or -ENOMEM. */
int virtio_console_create(struct io *io, const struct virtio_console_options *opt, struct virtio_dev **out);

/* Bytes for the guest; how many it has room for. */
size_t virtio_console_input(void *dev, const uint8_t *buf, size_t n);
/* put() will take something again. */
void virtio_console_drained(void *dev);
void virtio_console_resize(void *dev, uint16_t cols, uint16_t rows);

#endif
