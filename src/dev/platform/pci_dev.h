/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A PCI function with a type 0 header: memory BARs, capabilities, MSI-X, interrupt pin A. Devices embed a struct pci_dev.
 *
 *   00 vendor device | 04 command status | 08 revision class | 10-27 BARs | 2C subsystem | 34 capabilities | 3C line pin
 *   40-FF capabilities
 *
 * Invariant: a BAR's region is registered with io exactly while memory decoding is on, its address lies inside the board's PCI window and
 * nobody else has the addresses (the first to come keeps them; the others are retried when addresses become free). So a guest may write
 * BARs in any order and state; RAM is never covered.
 * Locking: io->lock. Spec: PCI Local Bus 3.0, ch. 6.
 */
#ifndef DEV_PLATFORM_PCI_DEV_H
#define DEV_PLATFORM_PCI_DEV_H

#include "dev/platform/msix.h"

enum { PCI_COMMAND_IO = 1, PCI_COMMAND_MEMORY = 2, PCI_COMMAND_MASTER = 4, PCI_COMMAND_INTX_OFF = 0x400 };
#define PCI_BARS 6

struct pci_bar {
	uint64_t size;          /* 0: not there */
	const struct io_handler *handler;
	void *opaque;
	uint64_t placed;        /* address after reset */
	uint64_t mapped_at;     /* 0: not mapped */
	bool is64;
};

struct pci_dev_setup {
	uint16_t vendor, device, subvendor, subdevice;
	uint32_t class;         /* 24 bits */
	uint8_t revision;
};

/* What a function does beyond the header. Any may be NULL. */
struct pci_dev_ops {
	/* Before a register of a capability is read: may update d->config. */
	void (*before_read)(void *opaque, unsigned reg, unsigned size);
	/* After a register was written (command, capabilities). */
	void (*after_write)(void *opaque, unsigned reg, unsigned size);
};

struct pci_dev {
	struct io *io;
	void *bus;
	uint8_t devfn;
	const struct pci_dev_ops *ops;
	void *opaque;
	uint8_t config[256];
	uint8_t writable[256];  /* bits that a write changes */
	uint8_t initial[256];   /* config after reset */
	struct pci_bar bar[PCI_BARS];
	uint8_t capability, free;   /* last capability, first free byte */
	uint8_t msix_cap;       /* 0: none */
	struct msix msix;
	bool intx;              /* the device wants its line up */
	bool intx_up;           /* it is up */
};

/* Prepares the header; then BARs and capabilities are added, then it is attached. */
void pci_dev_init(struct pci_dev *d, struct io *io, void *bus, const struct pci_dev_setup *setup);
/* Memory BAR `n` of `size` bytes (a power of two, at least a page); a 64-bit one takes n and n + 1. */
void pci_dev_bar(struct pci_dev *d, unsigned n, uint64_t size, bool is64, const struct io_handler *h, void *opaque);
/* Appends a capability of `len` bytes (header included) and returns its offset. */
unsigned pci_dev_capability(struct pci_dev *d, uint8_t id, unsigned len);
/* MSI-X with its own page as BAR `n`. */
void pci_dev_msix(struct pci_dev *d, unsigned n, unsigned vectors);
/* Takes the next free slot, assigns addresses as firmware would, appears on the bus. 0 or -ENOSPC. */
int pci_dev_attach(struct pci_dev *d);
void pci_dev_detach(struct pci_dev *d);
void pci_dev_reset(struct pci_dev *d);
/* Level of the interrupt pin; silent while MSI-X is enabled or the command register says so. */
void pci_dev_set_intx(struct pci_dev *d, bool level);
static inline bool pci_dev_is_master(const struct pci_dev *d) { return d->config[4] & PCI_COMMAND_MASTER; }
void pci_dev_state(struct pci_dev *d, struct io_state *s);

/* Little-endian fields of configuration space. */
static inline void pci_put(uint8_t *at, unsigned size, uint64_t val)
{
	for (unsigned i = 0; i < size; i++)
		at[i] = (uint8_t)(val >> (8 * i));
}

static inline uint64_t pci_get(const uint8_t *at, unsigned size)
{
	uint64_t val = 0;

	for (unsigned i = 0; i < size; i++)
		val |= (uint64_t)at[i] << (8 * i);
	return val;
}

#endif
