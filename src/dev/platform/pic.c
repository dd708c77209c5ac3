/* SPDX-License-Identifier: Apache-2.0 */
/*
 * 8259A pair: master at 20h, slave at A0h cascaded on the master's input 2; ELCR at 4D0h.
 *
 * An input in edge mode must stay high until it is acknowledged (8259A data sheet, "Interrupt sequence"); otherwise the
 * acknowledge cycle finds nothing and yields the spurious vector of level 7. IRR therefore is `latched edge && line`
 * for edge inputs and `line` for level inputs.
 *
 * Reset leaves what firmware hands over to an operating system: bases 08h and 70h, everything masked.
 * Invariant: `intr` is the master's INTR output as last reported to cfg.intr (the local APICs' LINT0).
 * Locking: io->lock. Spec: Intel 8259A data sheet (231468); 82371SB (PIIX3) 2.5.5 for ELCR.
 */
#include "dev/platform/pic.h"

#include <errno.h>
#include <stdlib.h>

#include "dev/device.h"

enum { ICW1_ICW4 = 0x01, ICW1_SINGLE = 0x02, ICW1_LTIM = 0x08, ICW1_SELECT = 0x10 };
enum { ICW4_AEOI = 0x02, ICW4_SFNM = 0x10 };
enum { OCW3_SELECT = 0x08, OCW3_RIS = 0x01, OCW3_RR = 0x02, OCW3_POLL = 0x04, OCW3_SMM = 0x20, OCW3_ESMM = 0x40 };
/* OCW2 bits 7-5: R, SL, EOI. */
enum { OCW2_ROTATE_AEOI_CLEAR = 0, OCW2_EOI = 1, OCW2_NOP = 2, OCW2_SPECIFIC_EOI = 3, OCW2_ROTATE_AEOI_SET = 4,
       OCW2_ROTATE_EOI = 5, OCW2_SET_PRIORITY = 6, OCW2_ROTATE_SPECIFIC_EOI = 7 };

#define CASCADE 2
/* ELCR bits of IRQ 0, 1, 2, 8 and 13 are fixed to edge. */
#define ELCR_MASTER 0xf8
#define ELCR_SLAVE 0xde

struct pic_chip {
	uint8_t line;     /* input levels */
	uint8_t edge;     /* edges latched and not yet acknowledged */
	uint8_t isr, imr;
	uint8_t elcr;
	uint8_t base;     /* ICW2, bits 7-3 */
	uint8_t lowest;   /* the level of lowest priority: 7 = fixed order */
	uint8_t icw;      /* next initialisation word expected on the data port: 0 = none, 2, 3, 4 */
	uint8_t icw1, icw4;
	bool read_isr, poll, special_mask, rotate_aeoi;
	bool ltim;
};

struct pic {
	struct io *io;
	struct pic_config cfg;
	struct pic_chip chip[2];
	bool intr;
};

static uint8_t chip_irr(const struct pic_chip *c)
{
	uint8_t level = c->ltim ? 0xff : c->elcr;

	return c->line & (level | c->edge);
}

/* Position in the current order of the most urgent bit of `set`: 0 is first, 8 is none. */
static unsigned chip_rank(const struct pic_chip *c, uint8_t set)
{
	for (unsigned i = 0; i < 8; i++)
		if (set & (1u << ((c->lowest + 1 + i) & 7)))
			return i;
	return 8;
}

static unsigned chip_level(const struct pic_chip *c, unsigned rank)
{
	return (c->lowest + 1 + rank) & 7;
}

/* The level this chip would present, or -1. `nested`: the cascade level interrupts itself (SFNM). */
static int chip_pending(const struct pic_chip *c, bool nested)
{
	uint8_t isr = c->isr;
	unsigned want, busy;

	/* Special mask mode: a level that is masked does not block lower ones although it is in service. */
	if (c->special_mask)
		isr &= ~c->imr;
	want = chip_rank(c, chip_irr(c) & ~c->imr);
	busy = chip_rank(c, isr);
	if (want < busy || (nested && want < 8 && want == busy && chip_level(c, want) == CASCADE))
		return chip_level(c, want);
	return -1;
}

static int pic_master_pending(const struct pic *d)
{
	return chip_pending(&d->chip[0], d->chip[0].icw4 & ICW4_SFNM);
}

static void chip_set_line(struct pic_chip *c, unsigned n, bool level)
{
	uint8_t bit = 1u << n;

	if (level) {
		if (!(c->line & bit))
			c->edge |= bit;
		c->line |= bit;
	} else {
		c->line &= ~bit;
		c->edge &= ~bit;
	}
}

/* Recomputes the cascade and the INTR output. */
static void pic_update(struct pic *d)
{
	struct pic_chip *master = &d->chip[0], *slave = &d->chip[1];
	bool out;

	chip_set_line(master, CASCADE, chip_pending(slave, false) >= 0);
	out = pic_master_pending(d) >= 0;
	if (out == d->intr)
		return;
	d->intr = out;
	if (d->cfg.intr)
		d->cfg.intr(d->cfg.intr_opaque, out);
	else if (out)
		d->io->kick(d->io->vm, 0);
}

/* INTR goes low during INTA even if the next request is already waiting. */
static void pic_drop_intr(struct pic *d)
{
	if (d->intr && d->cfg.intr)
		d->cfg.intr(d->cfg.intr_opaque, false);
	d->intr = false;
}

static void chip_eoi(struct pic_chip *c, unsigned level, bool rotate)
{
	c->isr &= ~(1u << level);
	if (rotate)
		c->lowest = level;
}

/* The level enters service, or with automatic EOI leaves it at once. */
static void chip_accept(struct pic_chip *c, unsigned level)
{
	c->edge &= ~(1u << level);
	if (!(c->icw4 & ICW4_AEOI))
		c->isr |= 1u << level;
	else if (c->rotate_aeoi)
		c->lowest = level;
}

/* INTA cycle. Nothing pending any more: vector of level 7, without entering service. */
static int pic_ack(void *opaque)
{
	struct pic *d = opaque;
	int level = pic_master_pending(d), vector, slave;

	if (level < 0)
		return d->chip[0].base | 7;
	chip_accept(&d->chip[0], level);
	vector = d->chip[0].base | level;
	if (level == CASCADE) {
		slave = chip_pending(&d->chip[1], false);
		if (slave >= 0)
			chip_accept(&d->chip[1], slave);
		vector = d->chip[1].base | (slave >= 0 ? slave : 7);
		/* The slave's output pulses low during INTA: its next request is a new edge on the master. */
		chip_set_line(&d->chip[0], CASCADE, false);
	}
	pic_drop_intr(d);
	pic_update(d);
	return vector;
}

static bool pic_pending(void *opaque)
{
	return pic_master_pending(opaque) >= 0;
}

static const struct io_pic_ops pic_ops = {.pending = pic_pending, .ack = pic_ack};

static void pic_set(void *opaque, unsigned gsi, bool level)
{
	struct pic *d = opaque;

	if (gsi >= 16 || gsi == CASCADE)
		return;
	chip_set_line(&d->chip[gsi >> 3], gsi & 7, level);
	pic_update(d);
}

static void chip_icw1(struct pic_chip *c, uint8_t val)
{
	/* edge sense cleared, IMR cleared, IR7 lowest, special mask off, reads give IRR. */
	c->edge = 0;
	c->imr = c->isr = 0;
	c->lowest = 7;
	c->special_mask = c->read_isr = c->poll = c->rotate_aeoi = false;
	c->icw1 = val;
	c->icw4 = 0;
	c->ltim = val & ICW1_LTIM;
	c->icw = 2;
}

static void chip_ocw2(struct pic_chip *c, uint8_t val)
{
	unsigned level = val & 7, rank;

	switch (val >> 5) {
	case OCW2_EOI:
	case OCW2_ROTATE_EOI:
		/* Non-specific EOI skips levels masked under special mask mode. */
		rank = chip_rank(c, c->special_mask ? c->isr & ~c->imr : c->isr);
		if (rank < 8)
			chip_eoi(c, chip_level(c, rank), val >> 5 == OCW2_ROTATE_EOI);
		break;
	case OCW2_SPECIFIC_EOI:
	case OCW2_ROTATE_SPECIFIC_EOI:
		chip_eoi(c, level, val >> 5 == OCW2_ROTATE_SPECIFIC_EOI);
		break;
	case OCW2_SET_PRIORITY:
		c->lowest = level;
		break;
	case OCW2_ROTATE_AEOI_SET:
		c->rotate_aeoi = true;
		break;
	case OCW2_ROTATE_AEOI_CLEAR:
		c->rotate_aeoi = false;
		break;
	case OCW2_NOP:
		break;
	}
}

static void chip_ocw3(struct pic_chip *c, uint8_t val)
{
	if (val & OCW3_POLL)
		c->poll = true;
	else if (val & OCW3_RR)
		c->read_isr = val & OCW3_RIS;
	if (val & OCW3_ESMM)
		c->special_mask = val & OCW3_SMM;
}

static void chip_write_command(struct pic_chip *c, uint8_t val)
{
	if (val & ICW1_SELECT)
		chip_icw1(c, val);
	else if (val & OCW3_SELECT)
		chip_ocw3(c, val);
	else
		chip_ocw2(c, val);
}

static void chip_write_data(struct pic_chip *c, uint8_t val)
{
	switch (c->icw) {
	case 2:
		c->base = val & 0xf8;
		c->icw = !(c->icw1 & ICW1_SINGLE) ? 3 : (c->icw1 & ICW1_ICW4) ? 4 : 0;
		break;
	case 3: /* the cascade is wired; what the guest says about it changes nothing */
		c->icw = (c->icw1 & ICW1_ICW4) ? 4 : 0;
		break;
	case 4:
		c->icw4 = val;
		c->icw = 0;
		break;
	default:
		c->imr = val;
		break;
	}
}

/* OCW3 poll command: the next read is the acknowledge; bit 7 says there was a request. */
static uint8_t pic_poll(struct pic *d, struct pic_chip *c)
{
	int level = c == &d->chip[0] ? pic_master_pending(d) : chip_pending(c, false);

	c->poll = false;
	if (level < 0)
		return 0;
	chip_accept(c, level);
	return 0x80 | level;
}

static uint8_t pic_read_chip(struct pic *d, struct pic_chip *c, bool data)
{
	uint8_t val;

	if (c->poll)
		val = pic_poll(d, c);
	else if (data)
		val = c->imr;
	else
		val = c->read_isr ? c->isr : chip_irr(c);
	pic_update(d);
	return val;
}

static void pic_write_chip(struct pic *d, struct pic_chip *c, bool data, uint8_t val)
{
	if (data)
		chip_write_data(c, val);
	else
		chip_write_command(c, val);
	pic_update(d);
}

static uint8_t pic_get_master(void *opaque, uint64_t off)
{
	struct pic *d = opaque;

	return off < 2 ? pic_read_chip(d, &d->chip[0], off) : 0xff;
}

static uint8_t pic_get_slave(void *opaque, uint64_t off)
{
	struct pic *d = opaque;

	return off < 2 ? pic_read_chip(d, &d->chip[1], off) : 0xff;
}

static uint8_t pic_get_elcr(void *opaque, uint64_t off)
{
	struct pic *d = opaque;

	return off < 2 ? d->chip[off].elcr : 0xff;
}

static void pic_put_master(void *opaque, uint64_t off, uint8_t val)
{
	struct pic *d = opaque;

	if (off < 2)
		pic_write_chip(d, &d->chip[0], off, val);
}

static void pic_put_slave(void *opaque, uint64_t off, uint8_t val)
{
	struct pic *d = opaque;

	if (off < 2)
		pic_write_chip(d, &d->chip[1], off, val);
}

static void pic_put_elcr(void *opaque, uint64_t off, uint8_t val)
{
	struct pic *d = opaque;

	if (off < 2)
		d->chip[off].elcr = val & (off ? ELCR_SLAVE : ELCR_MASTER);
	pic_update(d);
}

#define PIC_HANDLER(part)                                                                                              \
	static uint64_t pic_read_##part(void *o, uint64_t off, unsigned size)                                          \
	{                                                                                                              \
		return dev_read_bytes(pic_get_##part, o, off, size);                                                   \
	}                                                                                                              \
	static void pic_write_##part(void *o, uint64_t off, unsigned size, uint64_t val)                               \
	{                                                                                                              \
		dev_write_bytes(pic_put_##part, o, off, size, val);                                                    \
	}                                                                                                              \
	static const struct io_handler pic_handler_##part = {.read = pic_read_##part, .write = pic_write_##part}

PIC_HANDLER(master);
PIC_HANDLER(slave);
PIC_HANDLER(elcr);

static void pic_reset(void *dev)
{
	struct pic *d = dev;

	for (unsigned i = 0; i < 2; i++) {
		uint8_t line = d->chip[i].line; /* inputs belong to their sources */

		d->chip[i] = (struct pic_chip){
			.line = line, .imr = 0xff, .lowest = 7, .base = i ? 0x70 : 0x08, .icw4 = 0x01,
			.elcr = (d->cfg.level >> (8 * i)) & (i ? ELCR_SLAVE : ELCR_MASTER)};
	}
	d->intr = false;
	pic_update(d);
}

static int pic_create(struct io *io, const void *config, void **out)
{
	struct pic *d;
	int r;

	if (io->nsinks >= IO_MAX_IRQ_SINKS)
		return -ENOSPC;
	d = calloc(1, sizeof(*d));
	if (!d)
		return -ENOMEM;
	d->io = io;
	d->cfg = *(const struct pic_config *)config;
	r = io_register(io, IO_PIO, d->cfg.master, 2, &pic_handler_master, d);
	if (r)
		goto err_free;
	r = io_register(io, IO_PIO, d->cfg.slave, 2, &pic_handler_slave, d);
	if (r)
		goto err_master;
	r = io_register(io, IO_PIO, d->cfg.elcr, 2, &pic_handler_elcr, d);
	if (r)
		goto err_slave;
	dev_sink_add(io, pic_set, d);
	io->pic = &pic_ops;
	io->pic_opaque = d;
	pic_reset(d);
	*out = d;
	return 0;

err_slave:
	io_unregister(io, IO_PIO, d->cfg.slave);
err_master:
	io_unregister(io, IO_PIO, d->cfg.master);
err_free:
	free(d);
	return r;
}

static void pic_state(void *dev, struct io_state *s)
{
	struct pic *d = dev;

	for (unsigned i = 0; i < 2; i++) {
		struct pic_chip *c = &d->chip[i];

		DEV_FIELD(s, c, line);
		DEV_FIELD(s, c, edge);
		DEV_FIELD(s, c, isr);
		DEV_FIELD(s, c, imr);
		DEV_FIELD(s, c, elcr);
		DEV_FIELD(s, c, base);
		DEV_FIELD(s, c, lowest);
		DEV_FIELD(s, c, icw);
		DEV_FIELD(s, c, icw1);
		DEV_FIELD(s, c, icw4);
		DEV_FIELD(s, c, read_isr);
		DEV_FIELD(s, c, poll);
		DEV_FIELD(s, c, special_mask);
		DEV_FIELD(s, c, rotate_aeoi);
		DEV_FIELD(s, c, ltim);
	}
	DEV_FIELD(s, d, intr);
}

static void pic_destroy(void *dev)
{
	struct pic *d = dev;

	d->io->pic = NULL;
	dev_sink_remove(d->io, d);
	io_unregister(d->io, IO_PIO, d->cfg.elcr);
	io_unregister(d->io, IO_PIO, d->cfg.slave);
	io_unregister(d->io, IO_PIO, d->cfg.master);
	free(d);
}

const struct device_class pic_class = {
	.name = "pic",
	.create = pic_create,
	.reset = pic_reset,
	.state = pic_state,
	.destroy = pic_destroy,
};
