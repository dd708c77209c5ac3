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

/*
 * Interrupt pins: pin A of slot s is wired to GSI 16 + s % 8 of the I/O APIC and, for operating systems that use the 8259s, to
 * ISA IRQ 10 or 11 (s % 2). Level-triggered; lines of one number are shared. The DSDT's _PRT says the same.
 */
#define PCI_GSI(slot) (16 + (slot) % 8)
#define PCI_ISA_IRQ(slot) (10 + (slot) % 2)
#define PCI_ISA_IRQS (BIT(10) | BIT(11))

/* A function on bus 0. reg is 0..255, size 1, 2 or 4, never crossing a doubleword. Lock held. */
struct pci_function {
	uint8_t devfn;
	uint32_t (*config_read)(void *opaque, unsigned reg, unsigned size);
	void (*config_write)(void *opaque, unsigned reg, unsigned size, uint32_t val);
	/* Addresses have become free: regions that found theirs taken try again. May be NULL. */
	void (*remap)(void *opaque);
	void *opaque;
};

/* -EEXIST if the place is taken, -ENOSPC if the table is full. The function is copied. */
int pci_add_function(void *dev, const struct pci_function *fn);
void pci_remove_function(void *dev, uint8_t devfn);

/* Lowest slot without function 0, or -ENOSPC. */
int pci_free_slot(void *dev);
/* Room for a region of `size` bytes (a power of two) in the PCI memory window, as firmware would assign it: never given twice. 0 if
 * the window is full. */
uint64_t pci_place(void *dev, uint64_t size);
/* The function's interrupt pin A changes. */
void pci_set_intx(void *dev, uint8_t devfn, bool level);
/* See remap above. */
void pci_remap(void *dev);

#endif
