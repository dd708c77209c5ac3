/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Local APIC timer: one-shot, periodic and TSC-deadline modes.
 *
 * The bus clock is 1 GHz, so a tick is a nanosecond of machine time times the divider. Periods advance timer_start by
 * whole periods: however late an expiry is served, the schedule does not move. Wrapping arithmetic is deliberate:
 * timer_start may lie before time 0 after a change of the divider.
 *
 * Invariant: the host timer is armed exactly while the guest's timer will fire.
 * Locking: io->lock. Spec: SDM vol. 3A 10.5.4.
 */
#include "dev/platform/lapic_private.h"

/* Shortest period that is served one by one; shorter ones lose interrupts (they would only coalesce in IRR). */
#define MIN_PERIOD_NS 20000ull

static enum lapic_timer_mode timer_mode(const struct lapic_cpu *c)
{
	return c->lvt[LVT_TIMER] >> 17 & 3;
}

/* 10.5.4, figure 10-10: bits 3, 1 and 0; 111 divides by 1. */
static uint64_t timer_divisor(const struct lapic_cpu *c)
{
	return 1ull << ((((c->timer_divide & 3) | (c->timer_divide & 8) >> 1) + 1) & 7);
}

static uint64_t timer_period(const struct lapic_cpu *c)
{
	return c->timer_init * timer_divisor(c);
}

uint32_t lapic_timer_count(const struct lapic_cpu *c)
{
	uint64_t e;

	if (!c->timer_init || timer_mode(c) >= TIMER_DEADLINE)
		return 0;
	e = (io_now(c->l->io) - c->timer_start) / timer_divisor(c);
	if (timer_mode(c) == TIMER_PERIODIC)
		return c->timer_init - e % c->timer_init;
	return e >= c->timer_init ? 0 : c->timer_init - e;
}

static void timer_arm_deadline(struct lapic_cpu *c)
{
	struct io *io = c->l->io;
	uint64_t now = io_now(io), tsc = io->guest_tsc(io->vm, c->index), khz = io->guest_tsc_khz, delta;
	unsigned __int128 ns;

	if (!c->tsc_deadline) {
		io_timer_cancel(io, &c->timer);
		return;
	}
	if (c->tsc_deadline <= tsc) {
		io_timer_arm(io, &c->timer, now);
		return;
	}
	delta = c->tsc_deadline - tsc;
	/* Rounded up: firing early would make the guest arm again for the rest. */
	ns = ((unsigned __int128)delta * 1000000 + (khz ? khz : 1) - 1) / (khz ? khz : 1);
	io_timer_arm(io, &c->timer, ns > INT64_MAX - now ? INT64_MAX : now + (uint64_t)ns);
}

static void timer_arm(struct lapic_cpu *c)
{
	struct io *io = c->l->io;
	uint64_t now = io_now(io), period = timer_period(c), e, next;

	if (timer_mode(c) == TIMER_DEADLINE) {
		timer_arm_deadline(c);
		return;
	}
	if (!period || timer_mode(c) > TIMER_DEADLINE) {
		io_timer_cancel(io, &c->timer);
		return;
	}
	e = now - c->timer_start;
	if (timer_mode(c) == TIMER_ONESHOT) {
		if (e >= period)
			io_timer_cancel(io, &c->timer); /* has fired */
		else
			io_timer_arm(io, &c->timer, c->timer_start + period);
		return;
	}
	next = c->timer_start + (e / period + 1) * period;
	if (next - now < MIN_PERIOD_NS && period < MIN_PERIOD_NS)
		next += (MIN_PERIOD_NS / period) * period;
	io_timer_arm(io, &c->timer, next);
}

static void timer_expire(void *opaque, uint64_t now)
{
	struct lapic_cpu *c = opaque;
	struct io *io = c->l->io;
	uint64_t period = timer_period(c);

	switch (timer_mode(c)) {
	case TIMER_DEADLINE:
		if (!c->tsc_deadline)
			return;
		if (io->guest_tsc(io->vm, c->index) < c->tsc_deadline) {
			timer_arm_deadline(c); /* the two clocks were converted a hair too early */
			return;
		}
		c->tsc_deadline = 0; /* 10.5.4.1: disarmed when it fires */
		io_timer_cancel(io, &c->timer);
		break;
	case TIMER_PERIODIC:
		if (period && now - c->timer_start >= period)
			c->timer_start += (now - c->timer_start) / period * period;
		timer_arm(c);
		break;
	default:
		io_timer_cancel(io, &c->timer);
		break;
	}
	lapic_lvt_fire(c, LVT_TIMER);
}

void lapic_timer_setup(struct lapic_cpu *c)
{
	c->timer = (struct io_timer){.deadline = UINT64_MAX, .expire = timer_expire, .opaque = c, .owner = c->index + 1};
	io_timer_register(c->l->io, &c->timer);
}

void lapic_timer_stop(struct lapic_cpu *c)
{
	c->timer_init = 0;
	c->tsc_deadline = 0;
	io_timer_cancel(c->l->io, &c->timer);
}

void lapic_timer_write_init(struct lapic_cpu *c, uint32_t val)
{
	if (timer_mode(c) == TIMER_DEADLINE)
		return; /* 10.5.4.1: ignored */
	c->timer_init = val;
	c->timer_start = io_now(c->l->io);
	timer_arm(c);
}

void lapic_timer_write_divide(struct lapic_cpu *c, uint32_t val)
{
	uint64_t done = c->timer_init - lapic_timer_count(c);

	c->timer_divide = val & 0xb;
	if (!c->timer_init)
		return;
	/* The current count stays; only its speed changes. */
	c->timer_start = io_now(c->l->io) - done * timer_divisor(c);
	timer_arm(c);
}

void lapic_timer_write_lvt(struct lapic_cpu *c, uint32_t val)
{
	enum lapic_timer_mode old = timer_mode(c);

	c->lvt[LVT_TIMER] = val;
	if (old == timer_mode(c))
		return;
	/* 10.5.4.1: changing between TSC-deadline and the other modes disarms the timer. */
	if (old >= TIMER_DEADLINE || timer_mode(c) >= TIMER_DEADLINE)
		lapic_timer_stop(c);
	else
		timer_arm(c);
}

void lapic_timer_write_deadline(struct lapic_cpu *c, uint64_t tsc)
{
	if (timer_mode(c) != TIMER_DEADLINE)
		return; /* 10.5.4.1: reads zero, writes are ignored */
	c->tsc_deadline = tsc;
	timer_arm(c);
}
