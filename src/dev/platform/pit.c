/* SPDX-License-Identifier: Apache-2.0 */
/*
 * 8254 programmable interval timer at 40h-43h and NMI status/control port 61h.
 *
 * Everything is a function of absolute clock ticks (io_now() * 1.193182 MHz): a channel remembers the tick at which its
 * counting element was loaded, and the count and the OUT pin follow from the distance to it. Nothing runs between
 * accesses except one host timer for the transitions of OUT0.
 *
 *        mode  OUT as a function of e = ticks since loading, N = count
 *        0     low until e >= N, then high                    (interrupt on terminal count)
 *        1     high; low for e < N after a gate edge          (retriggerable one-shot)
 *        2     low while e mod N == N-1                       (rate generator)
 *        3     high for the first (N+1)/2 ticks of each N     (square wave)
 *        4     low while e == N, once                         (software strobe)
 *        5     as 4, started by a gate edge                   (hardware strobe)
 *
 * Invariant: the timer is armed for the next transition of OUT0 that matters; the irq line equals OUT0 (the one-tick
 * low strobes of modes 2, 4 and 5 become a low-high pulse at their end).
 * Locking: io->lock. Spec: Intel 82C54 data sheet (231244); 82371SB (PIIX3) 2.5.6.1 for port 61h.
 */
#include "dev/platform/pit.h"

#include <errno.h>
#include <stdlib.h>

#include "dev/device.h"

enum { PIT_RW_LATCH = 0, PIT_RW_LSB = 1, PIT_RW_MSB = 2, PIT_RW_WORD = 3 };
enum { PIT_READ_BACK = 3, PIT_CONTROL = 3 };
enum { RB_NO_STATUS = 0x10, RB_NO_COUNT = 0x20 };
enum { STATUS_OUT = 0x80, STATUS_NULL = 0x40 };
enum { SPK_GATE = 0x01, SPK_DATA = 0x02, SPK_WRITABLE = 0x0f, SPK_REFRESH = 0x10, SPK_OUT = 0x20 };
#define REFRESH_NS 15085 /* one DRAM refresh request, 18 ticks */
#define NO_TICK UINT64_MAX
/* OUT0 is followed at most this often (about 20 us); faster programming coalesces edges and spares the host. */
#define MIN_TICKS 24

struct pit_channel {
	uint8_t mode, rw, bcd;
	bool gate;
	bool loaded;         /* a count has reached the counting element */
	bool triggered;      /* modes 1 and 5: a gate edge started it */
	bool frozen;         /* gate low in modes 0, 2, 3, 4: counting stopped at frozen_at ticks after start */
	uint64_t frozen_at;
	uint64_t start;      /* absolute tick of loading */
	uint32_t count;      /* N of the running period, 1..65536 */
	uint32_t next;       /* N written but not loaded yet; 0 = none (NULL COUNT) */
	uint64_t next_at;    /* modes 2, 3: absolute tick at which `next` is loaded */
	uint8_t write_lsb;
	bool write_msb_next, read_msb_next;
	bool count_latched, status_latched;
	bool latch_msb_next;
	uint16_t latch;
	uint8_t status;
};

struct pit {
	struct io *io;
	struct pit_config cfg;
	struct io_timer timer;
	uint64_t armed_tick; /* absolute tick of the transition the timer is armed for, or NO_TICK */
	struct pit_channel ch[3];
	uint8_t speaker;
};

static uint64_t pit_tick(struct pit *d)
{
	return dev_scale(io_now(d->io), PIT_HZ, NS_PER_SEC);
}

static bool pit_periodic(const struct pit_channel *c)
{
	return c->mode == 2 || c->mode == 3;
}

/* Loads a new count whose moment has come. */
static void pit_settle(struct pit_channel *c, uint64_t tick)
{
	if (!c->next || !c->loaded || !pit_periodic(c) || c->frozen || tick < c->next_at)
		return;
	c->start = c->next_at;
	c->count = c->next;
	c->next = 0;
}

/* Ticks since loading; 0 in the tick between the write and the load. */
static uint64_t pit_elapsed(const struct pit_channel *c, uint64_t tick)
{
	if (c->frozen)
		return c->frozen_at;
	return tick > c->start ? tick - c->start : 0;
}

static bool pit_counting(const struct pit_channel *c)
{
	return c->loaded && ((c->mode != 1 && c->mode != 5) || c->triggered);
}

static bool pit_out(const struct pit_channel *c, uint64_t tick)
{
	uint64_t e = pit_elapsed(c, tick);

	if (!pit_counting(c))
		return c->mode != 0;
	switch (c->mode) {
	case 0:
	case 1:
		return e >= c->count;
	case 2:
		return c->frozen || e % c->count != c->count - 1;
	case 3:
		return c->frozen || e % c->count < (c->count + 1) / 2;
	default:
		return e != c->count;
	}
}

/* The counting element as the guest reads it. */
static uint16_t pit_value(const struct pit_channel *c, uint64_t tick)
{
	uint64_t e = pit_elapsed(c, tick), n = c->count, p, v;
	uint32_t modulo = c->bcd ? 10000 : 65536;

	if (!c->loaded)
		return 0;
	if (c->mode == 2) {
		v = n - e % n;
	} else if (c->mode == 3) {
		/* Counts down by two, twice a period; an odd count starts from N-1 with a longer high half. */
		p = e % n;
		if (p >= (n + 1) / 2)
			p -= (n + 1) / 2;
		v = (n & ~1ull) - 2 * p;
	} else {
		if (!pit_counting(c))
			e = 0;
		v = n + modulo - e % modulo;
	}
	v %= modulo;
	if (c->bcd)
		v = v % 10 | v / 10 % 10 << 4 | v / 100 % 10 << 8 | v / 1000 << 12;
	return v;
}

/* First transition of OUT strictly after `tick` (modes 2, 4, 5: the end of the low strobe). */
static uint64_t pit_next_transition(const struct pit_channel *c, uint64_t tick)
{
	uint64_t e = pit_elapsed(c, tick), n = c->count, half = (n + 1) / 2;
	uint64_t base = tick > c->start ? tick : c->start;

	if (!pit_counting(c) || c->frozen)
		return NO_TICK;
	switch (c->mode) {
	case 0:
	case 1:
		return e < n ? base + (n - e) : NO_TICK;
	case 2:
		return base + (n - e % n);
	case 3:
		return base + (e % n < half ? half - e % n : n - e % n);
	default:
		return e <= n ? base + (n + 1 - e) : NO_TICK;
	}
}

static uint64_t pit_tick_to_ns(uint64_t tick)
{
	return dev_scale_up(tick, NS_PER_SEC, PIT_HZ);
}

static void pit_arm(struct pit *d, uint64_t tick)
{
	struct pit_channel *c = &d->ch[0];

	d->armed_tick = pit_next_transition(c, tick);
	if (pit_periodic(c) && d->armed_tick - tick < MIN_TICKS)
		d->armed_tick = pit_next_transition(c, tick + MIN_TICKS);
	/* A pending count moves the next transition only at its load, which coincides with one. */
	if (d->armed_tick == NO_TICK)
		io_timer_cancel(d->io, &d->timer);
	else
		io_timer_arm(d->io, &d->timer, pit_tick_to_ns(d->armed_tick));
}

/* After channel 0 was programmed: the line follows OUT. */
static void pit_update_irq(struct pit *d, uint64_t tick)
{
	io_irq_set(d->io, d->cfg.irq, pit_out(&d->ch[0], tick));
	pit_arm(d, tick);
}

static void pit_expire(void *opaque, uint64_t now)
{
	struct pit *d = opaque;
	struct pit_channel *c = &d->ch[0];
	uint64_t tick = dev_scale(now, PIT_HZ, NS_PER_SEC);
	bool strobe = c->mode == 2 || c->mode >= 4, missed;

	if (tick < d->armed_tick) { /* early: nothing happened yet */
		pit_arm(d, tick);
		return;
	}
	/* Served half a period late or more: the edges in between are gone, as behind a mask, but one is still seen. */
	missed = c->mode == 3 && (tick - d->armed_tick >= c->count / 2 || c->count < 2 * MIN_TICKS);
	if (strobe || missed)
		io_irq_set(d->io, d->cfg.irq, false);
	if (missed)
		io_irq_set(d->io, d->cfg.irq, true);
	pit_settle(c, tick);
	io_irq_set(d->io, d->cfg.irq, strobe || pit_out(c, tick));
	pit_arm(d, tick);
}

/* --- programming ------------------------------------------------------------------------------------------------ */

static void pit_start(struct pit_channel *c, uint64_t tick, uint32_t n)
{
	/* The counting element is loaded by the clock pulse after the write. */
	c->start = tick + 1;
	c->count = n;
	c->next = 0;
	c->loaded = true;
	c->frozen = !c->gate && c->mode != 1 && c->mode != 5;
	c->frozen_at = 0;
}

static void pit_load(struct pit_channel *c, uint64_t tick, uint16_t raw)
{
	uint32_t n = raw;
	uint64_t e;

	if (c->bcd)
		n = (raw & 15) % 10 + (raw >> 4 & 15) % 10 * 10 + (raw >> 8 & 15) % 10 * 100 + (raw >> 12) % 10 * 1000;
	if (!n)
		n = c->bcd ? 10000 : 65536;
	if (n == 1 && pit_periodic(c))
		n = 2; /* "a COUNT of 1 is illegal" in modes 2 and 3 */
	pit_settle(c, tick);
	if (c->mode == 1 || c->mode == 5) {
		/* Waits for the gate; a running one-shot is not affected. */
		c->next = n;
		if (!c->loaded) {
			c->count = n;
			c->loaded = true;
			c->triggered = false;
		}
	} else if (pit_periodic(c) && c->loaded && !c->frozen) {
		/* "The new count will be loaded at the end of the current counting cycle" (half cycle in mode 3). */
		e = pit_elapsed(c, tick);
		c->next = n;
		c->next_at = (tick > c->start ? tick : c->start) + (c->count - e % c->count);
	} else {
		pit_start(c, tick, n);
	}
}

static void pit_set_gate(struct pit_channel *c, uint64_t tick, bool gate)
{
	bool rising = gate && !c->gate;

	pit_settle(c, tick);
	if (gate == c->gate)
		return;
	c->gate = gate;
	if (!c->loaded)
		return;
	if (c->mode == 1 || c->mode == 5) {
		if (!rising)
			return;
		if (c->next)
			c->count = c->next;
		c->next = 0;
		c->start = tick + 1;
		c->triggered = true;
	} else if (!gate) {
		c->frozen_at = pit_elapsed(c, tick);
		c->frozen = true;
	} else if (pit_periodic(c)) {
		pit_start(c, tick, c->next ? c->next : c->count); /* a rising gate restarts the cycle */
	} else {
		c->start = tick - c->frozen_at;
		c->frozen = false;
	}
}

static void pit_latch_count(struct pit_channel *c, uint64_t tick)
{
	if (c->count_latched)
		return;
	c->latch = pit_value(c, tick);
	c->count_latched = true;
	c->latch_msb_next = c->rw == PIT_RW_MSB;
}

static void pit_latch_status(struct pit_channel *c, uint64_t tick)
{
	if (c->status_latched)
		return;
	c->status = (pit_out(c, tick) ? STATUS_OUT : 0) | (!c->loaded || c->next || tick < c->start ? STATUS_NULL : 0) |
		    c->rw << 4 | c->mode << 1 | c->bcd;
	c->status_latched = true;
}

static void pit_write_control(struct pit *d, uint8_t val, uint64_t tick)
{
	unsigned select = val >> 6, rw = val >> 4 & 3, mode = val >> 1 & 7;
	struct pit_channel *c;

	if (select == PIT_READ_BACK) {
		for (unsigned i = 0; i < 3; i++) {
			if (!(val & 2u << i))
				continue;
			pit_settle(&d->ch[i], tick);
			if (!(val & RB_NO_COUNT))
				pit_latch_count(&d->ch[i], tick);
			if (!(val & RB_NO_STATUS))
				pit_latch_status(&d->ch[i], tick);
		}
		return;
	}
	c = &d->ch[select];
	if (rw == PIT_RW_LATCH) {
		pit_settle(c, tick);
		pit_latch_count(c, tick);
		return;
	}
	*c = (struct pit_channel){
		.gate = c->gate, .rw = rw, .mode = mode > 5 ? mode - 4 : mode, .bcd = val & 1, .count = 1};
	if (select == 0)
		pit_update_irq(d, tick);
}

static void pit_write_count(struct pit *d, unsigned n, uint8_t val, uint64_t tick)
{
	struct pit_channel *c = &d->ch[n];

	switch (c->rw) {
	case PIT_RW_LSB:
		pit_load(c, tick, val);
		break;
	case PIT_RW_MSB:
		pit_load(c, tick, (uint16_t)val << 8);
		break;
	case PIT_RW_WORD:
		c->write_msb_next = !c->write_msb_next;
		if (c->write_msb_next) {
			c->write_lsb = val;
			if (c->mode == 0)
				c->loaded = false; /* the first byte stops counting and sets OUT low */
			break;
		}
		pit_load(c, tick, c->write_lsb | (uint16_t)val << 8);
		break;
	default: /* no control word yet */
		return;
	}
	if (n == 0)
		pit_update_irq(d, tick);
}

static uint8_t pit_read_count(struct pit_channel *c, uint64_t tick)
{
	uint16_t val;
	bool msb;

	if (c->status_latched) {
		c->status_latched = false;
		return c->status;
	}
	if (c->count_latched) {
		msb = c->latch_msb_next;
		if (c->rw == PIT_RW_WORD && !msb)
			c->latch_msb_next = true;
		else
			c->count_latched = false;
		return msb ? c->latch >> 8 : c->latch;
	}
	pit_settle(c, tick);
	val = pit_value(c, tick);
	msb = c->rw == PIT_RW_MSB || (c->rw == PIT_RW_WORD && c->read_msb_next);
	if (c->rw == PIT_RW_WORD)
		c->read_msb_next = !c->read_msb_next;
	return msb ? val >> 8 : val;
}

static uint8_t pit_get(void *opaque, uint64_t off)
{
	struct pit *d = opaque;

	return off < 3 ? pit_read_count(&d->ch[off], pit_tick(d)) : 0xff; /* the control word cannot be read */
}

static void pit_put(void *opaque, uint64_t off, uint8_t val)
{
	struct pit *d = opaque;

	if (off == PIT_CONTROL)
		pit_write_control(d, val, pit_tick(d));
	else if (off < 3)
		pit_write_count(d, off, val, pit_tick(d));
}

static uint8_t pit_get_speaker(void *opaque, uint64_t off)
{
	struct pit *d = opaque;
	uint64_t tick = pit_tick(d);

	(void)off;
	pit_settle(&d->ch[2], tick);
	return d->speaker | ((io_now(d->io) / REFRESH_NS & 1) ? SPK_REFRESH : 0) |
	       (pit_out(&d->ch[2], tick) ? SPK_OUT : 0);
}

static void pit_put_speaker(void *opaque, uint64_t off, uint8_t val)
{
	struct pit *d = opaque;

	(void)off;
	d->speaker = val & SPK_WRITABLE;
	pit_set_gate(&d->ch[2], pit_tick(d), val & SPK_GATE);
}

static uint64_t pit_read(void *o, uint64_t off, unsigned size)
{
	return dev_read_bytes(pit_get, o, off, size);
}

static void pit_write(void *o, uint64_t off, unsigned size, uint64_t val)
{
	dev_write_bytes(pit_put, o, off, size, val);
}

static uint64_t pit_read_speaker(void *o, uint64_t off, unsigned size)
{
	(void)size;
	return pit_get_speaker(o, off);
}

static void pit_write_speaker(void *o, uint64_t off, unsigned size, uint64_t val)
{
	(void)size;
	pit_put_speaker(o, off, val);
}

static const struct io_handler pit_handler = {.read = pit_read, .write = pit_write};
static const struct io_handler pit_speaker_handler = {.read = pit_read_speaker, .write = pit_write_speaker};

static void pit_reset(void *dev)
{
	struct pit *d = dev;

	for (unsigned i = 0; i < 3; i++)
		d->ch[i] = (struct pit_channel){.gate = i != 2, .count = 1, .rw = PIT_RW_WORD, .mode = 2};
	d->speaker = 0;
	d->armed_tick = NO_TICK;
	io_timer_cancel(d->io, &d->timer);
	io_irq_set(d->io, d->cfg.irq, false);
}

static int pit_create(struct io *io, const void *config, void **out)
{
	struct pit *d = calloc(1, sizeof(*d));
	int r;

	if (!d)
		return -ENOMEM;
	d->io = io;
	d->cfg = *(const struct pit_config *)config;
	r = io_register(io, IO_PIO, d->cfg.base, 4, &pit_handler, d);
	if (r)
		goto err_free;
	r = io_register(io, IO_PIO, d->cfg.speaker, 1, &pit_speaker_handler, d);
	if (r)
		goto err_base;
	d->timer = (struct io_timer){.deadline = UINT64_MAX, .expire = pit_expire, .opaque = d};
	io_timer_register(io, &d->timer);
	pit_reset(d);
	*out = d;
	return 0;

err_base:
	io_unregister(io, IO_PIO, d->cfg.base);
err_free:
	free(d);
	return r;
}

static void pit_state(void *dev, struct io_state *s)
{
	struct pit *d = dev;

	for (unsigned i = 0; i < 3; i++) {
		struct pit_channel *c = &d->ch[i];

		DEV_FIELD(s, c, mode);
		DEV_FIELD(s, c, rw);
		DEV_FIELD(s, c, bcd);
		DEV_FIELD(s, c, gate);
		DEV_FIELD(s, c, loaded);
		DEV_FIELD(s, c, triggered);
		DEV_FIELD(s, c, frozen);
		DEV_FIELD(s, c, frozen_at);
		DEV_FIELD(s, c, start);
		DEV_FIELD(s, c, count);
		DEV_FIELD(s, c, next);
		DEV_FIELD(s, c, next_at);
		DEV_FIELD(s, c, write_lsb);
		DEV_FIELD(s, c, write_msb_next);
		DEV_FIELD(s, c, read_msb_next);
		DEV_FIELD(s, c, count_latched);
		DEV_FIELD(s, c, status_latched);
		DEV_FIELD(s, c, latch_msb_next);
		DEV_FIELD(s, c, latch);
		DEV_FIELD(s, c, status);
		if (!c->count)
			c->count = 1;
	}
	DEV_FIELD(s, d, speaker);
	DEV_FIELD(s, d, armed_tick);
	DEV_FIELD(s, d, timer.deadline);
}

static void pit_destroy(void *dev)
{
	struct pit *d = dev;

	io_timer_unregister(d->io, &d->timer);
	io_unregister(d->io, IO_PIO, d->cfg.speaker);
	io_unregister(d->io, IO_PIO, d->cfg.base);
	free(d);
}

const struct device_class pit_class = {
	.name = "pit",
	.create = pit_create,
	.reset = pit_reset,
	.state = pit_state,
	.destroy = pit_destroy,
};
