/* SPDX-License-Identifier: Apache-2.0 */
/* The PCI transport: a virtio device as a PCI function. virtio_pci_class takes a struct virtio_pci_config. */
#ifndef DEV_VIRTIO_PCI_H
#define DEV_VIRTIO_PCI_H

#include "dev/virtio/virtio.h"

struct virtio_pci_config {
	struct virtio_dev *dev;   /* belongs to the transport once create has succeeded */
	void *bus;                /* the board's "pci" */
};

extern const struct device_class virtio_pci_class;

#endif
