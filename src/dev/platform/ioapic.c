/* SPDX-License-Identifier: Apache-2.0 */
/*
 * 82093AA I/O APIC.
 *
 * Wiring: ISA IRQ 0 arrives at pin 2 (the MADT says so), pin 0 and the cascade IRQ 2 are not connected; every other GSI
 * is the pin of its number. Line levels are logical, so the polarity bit is kept but means nothing.
 *
 * A redirection entry:  63-56 destination | 16 mask | 15 level | 14 remote IRR | 13 polarity | 12 status | 11 logical |
 *                       10-8 delivery mode | 7-0 vector
 *
 * Invariant: a level pin that is high, unmasked and without remote IRR has been delivered (then remote IRR is set).
 * Edges on a masked pin are lost, as the data sheet says (3.2.4, "interrupt mask").
 * Locking: io->lock. Spec: Intel 82093AA data sheet (290566); the EOI register at 40h is that of 82801 (ICH) parts.
 */
#include "dev/platform/ioapic.h"

#include <errno.h>
#include <stdlib.h>

#include "dev/device.h"
#include "dev/platform/lapic.h"

enum { REG_SELECT = 0x00, REG_WINDOW = 0x10, REG_EOI = 0x40 };
enum { INDEX_ID = 0x00, INDEX_VERSION = 0x01, INDEX_ARB = 0x02, INDEX_TABLE = 0x10 };
#define IOAPIC_VERSION (0x20u | (IOAPIC_PINS - 1) << 16)

#define RTE_LOGICAL BIT(11)
#define RTE_STATUS BIT(12)
#define RTE_REMOTE_IRR BIT(14)
#define RTE_LEVEL BIT(15)
#define RTE_MASK BIT(16)
#define RTE_WRITABLE 0xff0000000001afffull

struct ioapic {
	struct io *io;
	struct ioapic_config cfg;
	uint8_t select;
	uint8_t id;
	uint32_t line; /* levels of the pins */
	uint64_t table[IOAPIC_PINS];
};

/* Only fixed and lowest priority can be level-triggered; NMI, SMI, INIT and ExtINT are edges whatever bit 15 says. */
static bool rte_level(uint64_t e)
{
	return (e & RTE_LEVEL) && (e >> 8 & 7) <= 1;
}

static void ioapic_send(struct ioapic *d, uint64_t e)
{
	const struct io_lapic_ops *lapic = d->io->lapic;
	uint64_t addr = LAPIC_DEFAULT_BASE | (e >> 56) << 12 | ((e & RTE_LOGICAL) ? 4 : 0);
	uint32_t data = (e & 0x7ff) | (rte_level(e) ? 0xc000 : 0);

	if (lapic && lapic->msi)
		lapic->msi(d->io->lapic_opaque, addr, data);
}

static void ioapic_service_level(struct ioapic *d, unsigned pin)
{
	uint64_t *e = &d->table[pin];

	if (!rte_level(*e) || !(d->line >> pin & 1) || (*e & (RTE_MASK | RTE_REMOTE_IRR)))
		return;
	*e |= RTE_REMOTE_IRR;
	ioapic_send(d, *e);
}

static void ioapic_set(void *opaque, unsigned gsi, bool level)
{
	struct ioapic *d = opaque;
	unsigned pin = gsi == 0 ? 2 : gsi;
	uint32_t bit;
	bool rising;

	if (gsi == 2 || gsi >= IOAPIC_PINS)
		return;
	bit = 1u << pin;
	rising = level && !(d->line & bit);
	d->line = level ? d->line | bit : d->line & ~bit;
	if (rte_level(d->table[pin]))
		ioapic_service_level(d, pin);
	else if (rising && !(d->table[pin] & RTE_MASK))
		ioapic_send(d, d->table[pin]);
}

void ioapic_eoi(void *dev, uint8_t vector)
{
	struct ioapic *d = dev;

	for (unsigned pin = 0; pin < IOAPIC_PINS; pin++) {
		if ((d->table[pin] & 0xff) != vector || !(d->table[pin] & RTE_REMOTE_IRR))
			continue;
		d->table[pin] &= ~RTE_REMOTE_IRR;
		ioapic_service_level(d, pin);
	}
}

static uint32_t ioapic_read_index(const struct ioapic *d)
{
	unsigned n = d->select - INDEX_TABLE;

	switch (d->select) {
	case INDEX_ID:
	case INDEX_ARB:
		return (uint32_t)d->id << 24;
	case INDEX_VERSION:
		return IOAPIC_VERSION;
	}
	if (d->select < INDEX_TABLE || n / 2 >= IOAPIC_PINS)
		return 0;
	return n & 1 ? d->table[n / 2] >> 32 : d->table[n / 2];
}

static void ioapic_write_entry(struct ioapic *d, unsigned pin, bool high, uint32_t val)
{
	uint64_t old = d->table[pin], e;

	e = high ? (old & 0xffffffff) | (uint64_t)val << 32 : (old & ~0xffffffffull) | val;
	e = (e & RTE_WRITABLE) | (old & RTE_REMOTE_IRR);
	if (!rte_level(e))
		e &= ~RTE_REMOTE_IRR; /* switching to edge forgets the outstanding EOI */
	d->table[pin] = e;
	ioapic_service_level(d, pin);
}

static void ioapic_write_index(struct ioapic *d, uint32_t val)
{
	unsigned n = d->select - INDEX_TABLE;

	if (d->select == INDEX_ID)
		d->id = val >> 24 & 0xf;
	else if (d->select >= INDEX_TABLE && n / 2 < IOAPIC_PINS)
		ioapic_write_entry(d, n / 2, n & 1, val);
}

static uint64_t ioapic_read(void *opaque, uint64_t off, unsigned size)
{
	struct ioapic *d = opaque;
	unsigned shift = (off & 3) * 8;

	(void)size;
	switch (off & ~3ull) {
	case REG_SELECT:
		return (uint32_t)d->select >> shift;
	case REG_WINDOW:
		return ioapic_read_index(d) >> shift;
	default:
		return 0;
	}
}

static void ioapic_write(void *opaque, uint64_t off, unsigned size, uint64_t val)
{
	struct ioapic *d = opaque;

	switch (off) {
	case REG_SELECT:
		d->select = val;
		break;
	case REG_WINDOW:
		if (size >= 4) /* the window is 32 bits, nothing less */
			ioapic_write_index(d, val);
		break;
	case REG_EOI:
		ioapic_eoi(d, val);
		break;
	}
}

static const struct io_handler ioapic_handler = {.read = ioapic_read, .write = ioapic_write};

static void ioapic_reset(void *dev)
{
	struct ioapic *d = dev;

	d->select = 0;
	d->id = 0;
	for (unsigned i = 0; i < IOAPIC_PINS; i++)
		d->table[i] = RTE_MASK;
}

static int ioapic_create(struct io *io, const void *config, void **out)
{
	struct ioapic *d;
	int r;

	if (io->nsinks >= IO_MAX_IRQ_SINKS)
		return -ENOSPC;
	d = calloc(1, sizeof(*d));
	if (!d)
		return -ENOMEM;
	d->io = io;
	d->cfg = *(const struct ioapic_config *)config;
	r = io_register(io, IO_MMIO, d->cfg.base, PAGE_SIZE, &ioapic_handler, d);
	if (r) {
		free(d);
		return r;
	}
	dev_sink_add(io, ioapic_set, d);
	if (d->cfg.lapic)
		lapic_set_eoi_listener(d->cfg.lapic, ioapic_eoi, d);
	ioapic_reset(d);
	*out = d;
	return 0;
}

static void ioapic_state(void *dev, struct io_state *s)
{
	struct ioapic *d = dev;

	DEV_FIELD(s, d, select);
	DEV_FIELD(s, d, id);
	DEV_FIELD(s, d, line);
	DEV_FIELD(s, d, table);
}

static void ioapic_destroy(void *dev)
{
	struct ioapic *d = dev;

	if (d->cfg.lapic)
		lapic_set_eoi_listener(d->cfg.lapic, NULL, NULL);
	dev_sink_remove(d->io, d);
	io_unregister(d->io, IO_MMIO, d->cfg.base);
	free(d);
}

const struct device_class ioapic_class = {
	.name = "ioapic",
	.create = ioapic_create,
	.reset = ioapic_reset,
	.state = ioapic_state,
	.destroy = ioapic_destroy,
};
