/* SPDX-License-Identifier: Apache-2.0 */
/*
 * PCI configuration mechanism #1, host bridge, reset control.
 *
 *   CF8h dword only: 31 enable | 23-16 bus | 15-11 device | 10-8 function | 7-2 register     CFCh-CFFh: data, any width
 *   CF9h byte only: reset control: 2 reset CPU (acts on 0 -> 1) | 1 hard
 *
 * The host bridge claims no existing chipset: a guest would expect its registers (memory remapping, SMRAM) to work.
 * Locking: io->lock. Spec: PCI Local Bus 3.0, 3.2.2.3.2 and 6.1; 82371SB (PIIX3) 2.5.8 for CF9h.
 */
#include "dev/platform/pci.h"

#include <errno.h>
#include <stdlib.h>

#include "dev/board.h"
#include "dev/device.h"

enum { OFF_ADDRESS = 0, OFF_RESET = 1, OFF_DATA = 4 };
enum { RESET_CPU = 0x04, RESET_HARD = 0x02 };
#define ADDRESS_ENABLE BIT(31)
#define ADDRESS_KEPT 0x80fffffcu

struct pci {
	struct io *io;
	uint32_t address;
	uint8_t reset_control;
	uint8_t nfunctions;
	uint16_t bridge_command;
	uint64_t next_place;      /* in the memory window */
	uint8_t gsi[8], isa[2];   /* functions that hold each interrupt line up */
	struct pci_function function[PCI_MAX_FUNCTIONS];
};

/* Configuration header of the host bridge, type 0, no BARs (6.1): vendor 8086h, device 0D57h, class 06 00 00. */
static uint32_t bridge_dword(const struct pci *d, unsigned reg)
{
	switch (reg) {
	case 0x00:
		return 0x0d578086;
	case 0x04:
		return d->bridge_command;
	case 0x08:
		return 0x06000000;
	default:
		return 0;
	}
}

static uint32_t bridge_read(void *opaque, unsigned reg, unsigned size)
{
	(void)size;
	return bridge_dword(opaque, reg & ~3u) >> ((reg & 3) * 8);
}

static void bridge_write(void *opaque, unsigned reg, unsigned size, uint32_t val)
{
	struct pci *d = opaque;

	/* Memory, I/O and bus master enables can be set and do nothing. */
	if (reg == 0x04)
		d->bridge_command = (size == 1 ? d->bridge_command & 0xff00 : 0) | (val & 0x0007);
}

static struct pci_function *pci_find(struct pci *d, uint8_t devfn)
{
	for (unsigned i = 0; i < d->nfunctions; i++)
		if (d->function[i].devfn == devfn)
			return &d->function[i];
	return NULL;
}

int pci_add_function(void *dev, const struct pci_function *fn)
{
	struct pci *d = dev;

	if (pci_find(d, fn->devfn))
		return -EEXIST;
	if (d->nfunctions == PCI_MAX_FUNCTIONS)
		return -ENOSPC;
	d->function[d->nfunctions++] = *fn;
	return 0;
}

void pci_remove_function(void *dev, uint8_t devfn)
{
	struct pci *d = dev;
	struct pci_function *fn = pci_find(d, devfn);

	if (fn)
		*fn = d->function[--d->nfunctions];
}

int pci_free_slot(void *dev)
{
	for (unsigned slot = 1; slot < 32; slot++)
		if (!pci_find(dev, slot << 3))
			return (int)slot;
	return -ENOSPC;
}

uint64_t pci_place(void *dev, uint64_t size)
{
	struct pci *d = dev;
	uint64_t at = (d->next_place + size - 1) & ~(size - 1);

	if (at + size > BOARD_PCI_END)
		return 0;
	d->next_place = at + size;
	return at;
}

void pci_set_intx(void *dev, uint8_t devfn, bool level)
{
	struct pci *d = dev;
	unsigned slot = devfn >> 3;
	uint8_t *gsi = &d->gsi[PCI_GSI(slot) - PCI_GSI(0)], *isa = &d->isa[PCI_ISA_IRQ(slot) - PCI_ISA_IRQ(0)];

	*gsi += level ? 1 : -1;
	*isa += level ? 1 : -1;
	if (*gsi == level)
		io_irq_set(d->io, PCI_GSI(slot), level);
	if (*isa == level)
		io_irq_set(d->io, PCI_ISA_IRQ(slot), level);
}

void pci_remap(void *dev)
{
	struct pci *d = dev;

	for (unsigned i = 0; i < d->nfunctions; i++)
		if (d->function[i].remap)
			d->function[i].remap(d->function[i].opaque);
}

/* The function that the address register selects, if the data window is open. */
static struct pci_function *pci_selected(struct pci *d)
{
	if (!(d->address & ADDRESS_ENABLE) || (d->address >> 16 & 0xff) != 0)
		return NULL;
	return pci_find(d, d->address >> 8);
}

static uint64_t pci_read_data(struct pci *d, unsigned byte, unsigned size)
{
	struct pci_function *fn = pci_selected(d);

	if (!fn || byte + size > 4)
		return UINT64_MAX;
	return fn->config_read(fn->opaque, (d->address & 0xfc) + byte, size);
}

static void pci_write_data(struct pci *d, unsigned byte, unsigned size, uint32_t val)
{
	struct pci_function *fn = pci_selected(d);

	if (fn && byte + size <= 4)
		fn->config_write(fn->opaque, (d->address & 0xfc) + byte, size, val);
}

static uint64_t pci_read(void *opaque, uint64_t off, unsigned size)
{
	struct pci *d = opaque;

	if (off >= OFF_DATA)
		return pci_read_data(d, off - OFF_DATA, size);
	if (off == OFF_ADDRESS && size == 4)
		return d->address;
	if (off == OFF_RESET && size == 1)
		return d->reset_control;
	return UINT64_MAX;
}

static void pci_write(void *opaque, uint64_t off, unsigned size, uint64_t val)
{
	struct pci *d = opaque;
	bool rising;

	if (off >= OFF_DATA) {
		pci_write_data(d, off - OFF_DATA, size, val);
	} else if (off == OFF_ADDRESS && size == 4) {
		d->address = val & ADDRESS_KEPT;
	} else if (off == OFF_RESET && size == 1) {
		rising = (val & RESET_CPU) && !(d->reset_control & RESET_CPU);
		d->reset_control = val & (RESET_CPU | RESET_HARD);
		if (rising)
			d->io->request(d->io->vm, IO_REQ_RESET, 0);
	}
}

static const struct io_handler pci_handler = {.read = pci_read, .write = pci_write};

static void pci_reset(void *dev)
{
	struct pci *d = dev;

	d->address = 0;
	d->reset_control = 0;
	d->bridge_command = 0x0006;
}

static int pci_create(struct io *io, const void *config, void **out)
{
	struct pci *d = calloc(1, sizeof(*d));
	int r;

	(void)config;
	if (!d)
		return -ENOMEM;
	d->io = io;
	d->next_place = BOARD_PCI_BASE;
	r = io_register(io, IO_PIO, PCI_CONFIG_PORT, 8, &pci_handler, d);
	if (r) {
		free(d);
		return r;
	}
	d->function[d->nfunctions++] = (struct pci_function){
		.devfn = 0, .config_read = bridge_read, .config_write = bridge_write, .opaque = d};
	pci_reset(d);
	*out = d;
	return 0;
}

static void pci_state(void *dev, struct io_state *s)
{
	struct pci *d = dev;

	DEV_FIELD(s, d, address);
	DEV_FIELD(s, d, reset_control);
	DEV_FIELD(s, d, bridge_command);
}

static void pci_destroy(void *dev)
{
	struct pci *d = dev;

	io_unregister(d->io, IO_PIO, PCI_CONFIG_PORT);
	free(d);
}

const struct device_class pci_class = {
	.name = "pci",
	.create = pci_create,
	.reset = pci_reset,
	.state = pci_state,
	.destroy = pci_destroy,
};
