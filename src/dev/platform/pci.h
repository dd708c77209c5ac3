/* SPDX-License-Identifier: Apache-2.0 */
/*
 * PCI bus 0 behind configuration mechanism #1 (CF8h/CFCh), with a host bridge at 00:00.0 and the reset control register
 * at CF9h.
 */
#ifndef DEV_PLATFORM_PCI_H
#define DEV_PLATFORM_PCI_H

#include "io/io.h"

#define PCI_CONFIG_PORT 0xcf8
#define PCI_RESET_PORT 0xcf9
#define PCI_RESET_VALUE 0x06
#define PCI_MAX_FUNCTIONS 32

extern const struct device_class pci_class; /* no configuration */

/* A function on bus 0. reg is 0..255, size 1, 2 or 4, never crossing a doubleword. Lock held. */
struct pci_function {
	uint8_t devfn;
	uint32_t (*config_read)(void *opaque, unsigned reg, unsigned size);
	void (*config_write)(void *opaque, unsigned reg, unsigned size, uint32_t val);
	void *opaque;
};

/* -EEXIST if the place is taken, -ENOSPC if the table is full. The function is copied. */
int pci_add_function(void *dev, const struct pci_function *fn);
void pci_remove_function(void *dev, uint8_t devfn);

#endif
