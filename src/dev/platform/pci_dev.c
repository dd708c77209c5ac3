/* SPDX-License-Identifier: Apache-2.0 */
/*
 * PCI functions with a type 0 header.
 *
 * Invariant, locking, specification: see pci_dev.h. Configuration space is bytes with a mask of writable bits, so sizing a BAR,
 * read-only fields and wide or narrow accesses need no code of their own; what a write means is worked out afterwards.
 */
#include "dev/platform/pci_dev.h"

#include <errno.h>
#include <string.h>

#include "base/log.h"
#include "dev/board.h"
#include "dev/platform/pci.h"

enum { REG_COMMAND = 0x04, REG_STATUS = 0x06, REG_BARS = 0x10, REG_CAPABILITIES = 0x34, REG_LINE = 0x3c, REG_PIN = 0x3d,
       REG_FIRST_FREE = 0x40 };
enum { STATUS_INTX = 0x08, STATUS_CAPABILITIES = 0x10, CAP_MSIX = 0x11, MSIX_CAP_LEN = 12, MSIX_CONTROL = 2 };
#define COMMAND_WRITABLE (PCI_COMMAND_IO | PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER | 0x140 | PCI_COMMAND_INTX_OFF)
#define MSIX_CONTROL_ENABLE 0x8000
#define MSIX_CONTROL_MASK 0x4000
#define BAR_64BIT 4u

void pci_dev_init(struct pci_dev *d, struct io *io, void *bus, const struct pci_dev_setup *setup)
{
	*d = (struct pci_dev){.io = io, .bus = bus, .free = REG_FIRST_FREE};
	pci_put(d->initial, 2, setup->vendor);
	pci_put(d->initial + 2, 2, setup->device);
	d->initial[8] = setup->revision;
	pci_put(d->initial + 9, 3, setup->class);
	pci_put(d->initial + 0x2c, 2, setup->subvendor);
	pci_put(d->initial + 0x2e, 2, setup->subdevice);
	/* As firmware leaves it: regions decoded, bus mastering for the driver to turn on. */
	d->initial[REG_COMMAND] = PCI_COMMAND_MEMORY;
	d->initial[REG_PIN] = 1;
	pci_put(d->writable + REG_COMMAND, 2, COMMAND_WRITABLE);
	d->writable[REG_LINE] = 0xff;
}

void pci_dev_bar(struct pci_dev *d, unsigned n, uint64_t size, bool is64, const struct io_handler *h, void *opaque)
{
	BUG_ON(n + is64 >= PCI_BARS || size < PAGE_SIZE || (size & (size - 1)) || size >> 31);
	d->bar[n] = (struct pci_bar){.size = size, .handler = h, .opaque = opaque, .is64 = is64};
	d->initial[REG_BARS + 4 * n] = is64 ? BAR_64BIT : 0;
	pci_put(d->writable + REG_BARS + 4 * n, is64 ? 8 : 4, ~(size - 1));
}

unsigned pci_dev_capability(struct pci_dev *d, uint8_t id, unsigned len)
{
	unsigned at = d->free;

	len = (len + 3) & ~3u;
	BUG_ON(at + len > 0x100 - 4);
	d->initial[at] = id;
	d->initial[d->capability ? d->capability + 1 : REG_CAPABILITIES] = (uint8_t)at;
	d->initial[REG_STATUS] |= STATUS_CAPABILITIES;
	d->capability = (uint8_t)at;
	d->free = (uint8_t)(at + len);
	return at;
}

void pci_dev_msix(struct pci_dev *d, unsigned n, unsigned vectors)
{
	unsigned at = pci_dev_capability(d, CAP_MSIX, MSIX_CAP_LEN);

	BUG_ON(!vectors || vectors > MSIX_MAX_VECTORS);
	d->msix = (struct msix){.io = d->io, .vectors = vectors};
	d->msix_cap = (uint8_t)at;
	pci_dev_bar(d, n, MSIX_PAGE, false, &msix_handler, &d->msix);
	pci_put(d->initial + at + MSIX_CONTROL, 2, vectors - 1);
	pci_put(d->initial + at + 4, 4, n);
	pci_put(d->initial + at + 8, 4, MSIX_PBA_OFFSET | n);
	pci_put(d->writable + at + MSIX_CONTROL, 2, MSIX_CONTROL_ENABLE | MSIX_CONTROL_MASK);
}

/* --- regions ------------------------------------------------------------------------------------------------------------- */

/* Where the guest wants the region: 0 for nowhere it can be. */
static uint64_t bar_wanted(const struct pci_dev *d, unsigned n)
{
	const struct pci_bar *b = &d->bar[n];
	uint64_t addr = pci_get(d->config + REG_BARS + 4 * n, b->is64 ? 8 : 4) & ~0xfull;

	if (!(d->config[REG_COMMAND] & PCI_COMMAND_MEMORY) || addr < BOARD_PCI_BASE || addr >= BOARD_PCI_END ||
	    b->size > BOARD_PCI_END - addr)
		return 0;
	return addr;
}

static void bar_unmap(struct pci_dev *d, struct pci_bar *b)
{
	io_unregister(d->io, IO_MMIO, b->mapped_at);
	b->mapped_at = 0;
}

/* Gives up what is not wanted any more; true if something was. */
static bool bars_withdraw(struct pci_dev *d)
{
	bool freed = false;

	for (unsigned n = 0; n < PCI_BARS; n++) {
		struct pci_bar *b = &d->bar[n];

		if (b->mapped_at && bar_wanted(d, n) != b->mapped_at) {
			bar_unmap(d, b);
			freed = true;
		}
	}
	return freed;
}

static void bars_claim(void *opaque)
{
	struct pci_dev *d = opaque;

	for (unsigned n = 0; n < PCI_BARS; n++) {
		struct pci_bar *b = &d->bar[n];
		uint64_t at = b->size && !b->mapped_at ? bar_wanted(d, n) : 0;

		/* Taken, or no range left: it stays unmapped and is tried again when that may have changed. */
		if (at && io_register(d->io, IO_MMIO, at, b->size, b->handler, b->opaque) == 0)
			b->mapped_at = at;
	}
}

static void bars_update(struct pci_dev *d)
{
	bool freed = bars_withdraw(d);

	bars_claim(d);
	if (freed)
		pci_remap(d->bus);
}

/* --- interrupts ---------------------------------------------------------------------------------------------------------- */

static void intx_update(struct pci_dev *d)
{
	uint16_t command = (uint16_t)pci_get(d->config + REG_COMMAND, 2);
	bool up = d->intx && !d->msix.enabled && !(command & PCI_COMMAND_INTX_OFF);

	d->config[REG_STATUS] = (uint8_t)((d->config[REG_STATUS] & ~STATUS_INTX) | (d->intx ? STATUS_INTX : 0));
	if (up != d->intx_up) {
		d->intx_up = up;
		pci_set_intx(d->bus, d->devfn, up);
	}
}

void pci_dev_set_intx(struct pci_dev *d, bool level)
{
	d->intx = level;
	intx_update(d);
}

static void interrupts_update(struct pci_dev *d)
{
	uint16_t control = d->msix_cap ? (uint16_t)pci_get(d->config + d->msix_cap + MSIX_CONTROL, 2) : 0;

	msix_control(&d->msix, control & MSIX_CONTROL_ENABLE, control & MSIX_CONTROL_MASK, !pci_dev_is_master(d));
	intx_update(d);
}

/* --- configuration space ------------------------------------------------------------------------------------------------- */

static uint32_t config_read(void *opaque, unsigned reg, unsigned size)
{
	struct pci_dev *d = opaque;

	if (d->ops && d->ops->before_read)
		d->ops->before_read(d->opaque, reg, size);
	return (uint32_t)pci_get(d->config + reg, size);
}

static void config_write(void *opaque, unsigned reg, unsigned size, uint32_t val)
{
	struct pci_dev *d = opaque;

	for (unsigned i = 0; i < size; i++) {
		uint8_t mask = d->writable[reg + i], byte = (uint8_t)(val >> (8 * i));

		d->config[reg + i] = (uint8_t)((d->config[reg + i] & ~mask) | (byte & mask));
	}
	if ((reg & ~3u) == REG_COMMAND || (reg >= REG_BARS && reg < REG_BARS + 4 * PCI_BARS))
		bars_update(d);
	if ((reg & ~3u) == REG_COMMAND || (d->msix_cap && (reg & ~3u) == d->msix_cap))
		interrupts_update(d);
	if (d->ops && d->ops->after_write)
		d->ops->after_write(d->opaque, reg, size);
}

void pci_dev_reset(struct pci_dev *d)
{
	msix_reset(&d->msix);
	memcpy(d->config, d->initial, sizeof(d->config));
	for (unsigned n = 0; n < PCI_BARS; n++)
		if (d->bar[n].size)
			pci_put(d->config + REG_BARS + 4 * n, d->bar[n].is64 ? 8 : 4,
				d->bar[n].placed | d->initial[REG_BARS + 4 * n]);
	d->config[REG_LINE] = PCI_ISA_IRQ(d->devfn >> 3);
	d->intx = false;
	interrupts_update(d);
	bars_update(d);
}

int pci_dev_attach(struct pci_dev *d)
{
	struct pci_function fn = {.config_read = config_read, .config_write = config_write, .remap = bars_claim, .opaque = d};
	int slot = pci_free_slot(d->bus), err;

	if (slot < 0)
		return slot;
	fn.devfn = d->devfn = (uint8_t)(slot << 3);
	for (unsigned n = 0; n < PCI_BARS; n++)
		if (d->bar[n].size && !(d->bar[n].placed = pci_place(d->bus, d->bar[n].size)))
			return -ENOSPC;
	err = pci_add_function(d->bus, &fn);
	if (!err)
		pci_dev_reset(d);
	return err;
}

void pci_dev_detach(struct pci_dev *d)
{
	pci_dev_set_intx(d, false);
	for (unsigned n = 0; n < PCI_BARS; n++)
		if (d->bar[n].mapped_at)
			bar_unmap(d, &d->bar[n]);
	pci_remove_function(d->bus, d->devfn);
}

void pci_dev_state(struct pci_dev *d, struct io_state *s)
{
	DEV_FIELD(s, d, config);
	DEV_BOOL(s, d, intx);
	msix_state(&d->msix, s);
	/* After a load the registers are in place and everything follows from them; after a save this changes nothing. */
	for (unsigned i = 0; i < sizeof(d->config); i++)
		if (!d->writable[i] && i != REG_STATUS)
			d->config[i] = d->initial[i];
	interrupts_update(d);
	bars_update(d);
}
