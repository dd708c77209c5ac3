/* SPDX-License-Identifier: Apache-2.0 */
/* The MMIO transport, for kernels without PCI. virtio_mmio_class takes a struct virtio_mmio_config. */
#ifndef DEV_VIRTIO_MMIO_H
#define DEV_VIRTIO_MMIO_H

#include "dev/virtio/virtio.h"

struct virtio_mmio_config {
	struct virtio_dev *dev;   /* belongs to the transport once create has succeeded */
	void *bus;                /* the board's "pci": its wiring of interrupt lines is used */
	unsigned place;           /* BOARD_VIRTIO_MMIO(place) */
};

extern const struct device_class virtio_mmio_class;

#endif
