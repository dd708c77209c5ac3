/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Local APIC: acceptance and priority of interrupts, end of interrupt, interprocessor messages, LINT pins.
 *
 * Reset leaves the boot processor's APIC in virtual wire mode as firmware would (MP specification 1.4, 3.6.2.2):
 * software enabled, LINT0 = ExtINT, LINT1 = NMI; the others are in the architectural reset state.
 *
 * Invariant: whenever an interrupt of a CPU becomes deliverable (a vector arrives above the processor priority, the
 * priority drops, INTR rises) io->kick() is called for that CPU.
 * Locking: io->lock. Spec: SDM vol. 3A chapter 10.
 */
#include "dev/platform/lapic_private.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* Vector registers are 256-bit maps of 8 words. */
static bool map_test(const uint32_t *map, uint8_t vector)
{
	return map[vector >> 5] >> (vector & 31) & 1;
}

static void map_assign(uint32_t *map, uint8_t vector, bool on)
{
	uint32_t bit = 1u << (vector & 31);

	if (on)
		map[vector >> 5] |= bit;
	else
		map[vector >> 5] &= ~bit;
}

static int map_highest(const uint32_t *map)
{
	for (int i = 7; i >= 0; i--)
		if (map[i])
			return i * 32 + 31 - __builtin_clz(map[i]);
	return -1;
}

/* 10.8.3.1: processor priority. */
uint8_t lapic_ppr(const struct lapic_cpu *c)
{
	int isrv = map_highest(c->isr);
	uint8_t in_service = isrv < 0 ? 0 : isrv & 0xf0;

	return (c->tpr & 0xf0) >= in_service ? c->tpr : in_service;
}

/* The vector that would be dispatched now, or -1. */
static int lapic_deliverable(const struct lapic_cpu *c)
{
	int irrv = map_highest(c->irr);

	return irrv >= 0 && (irrv & 0xf0) > (lapic_ppr(c) & 0xf0) ? irrv : -1;
}

static void lapic_kick(struct lapic_cpu *c)
{
	c->l->io->kick(c->l->io->vm, c->index);
}

void lapic_recheck(struct lapic_cpu *c)
{
	if (lapic_deliverable(c) >= 0)
		lapic_kick(c);
}

/* 10.5.3: errors collect until the guest writes ESR; each new one raises the LVT error interrupt. */
void lapic_error(struct lapic_cpu *c, uint32_t bit)
{
	if (c->esr_pending & bit)
		return;
	c->esr_pending |= bit;
	lapic_lvt_fire(c, LVT_ERROR);
}

/* 10.8.4: a fixed interrupt enters IRR. 10.4.7.2: not while software-disabled. */
void lapic_accept(struct lapic_cpu *c, uint8_t vector, bool level)
{
	if (!(c->svr & SVR_ENABLE))
		return;
	if (vector < 16) {
		lapic_error(c, ESR_RECV_VECTOR);
		return;
	}
	map_assign(c->irr, vector, true);
	map_assign(c->tmr, vector, level);
	lapic_recheck(c);
}

/* 10.8.5 */
void lapic_end_of_interrupt(struct lapic_cpu *c)
{
	int vector = map_highest(c->isr);

	if (vector < 0)
		return;
	map_assign(c->isr, vector, false);
	if (map_test(c->tmr, vector) && c->l->eoi)
		c->l->eoi(c->l->eoi_opaque, vector);
	lapic_recheck(c);
}

/* --- messages --------------------------------------------------------------------------------------------------- */

static void lapic_deliver(struct lapic_cpu *c, enum lapic_dlm dlm, uint8_t vector, bool level)
{
	const struct lapic_cpu_ops *cpus = c->l->cfg.cpus;
	void *vm = c->l->io->vm;

	switch (dlm) {
	case DLM_FIXED:
	case DLM_LOWEST:
		lapic_accept(c, vector, level);
		break;
	case DLM_NMI:
		if (cpus && cpus->nmi)
			cpus->nmi(vm, c->index);
		break;
	case DLM_INIT:
		lapic_cpu_init(c);
		if (cpus && cpus->init)
			cpus->init(vm, c->index);
		break;
	case DLM_SIPI:
		if (cpus && cpus->start)
			cpus->start(vm, c->index, vector);
		break;
	case DLM_EXTINT:
		c->extint = true;
		lapic_kick(c);
		break;
	case DLM_SMI: /* no system management mode */
	case DLM_RESERVED:
		break;
	}
}

/* 10.6.2 and 10.12.10: does a message with this destination concern the CPU? ffffffff is the broadcast in all modes. */
static bool lapic_addressed(const struct lapic_cpu *c, uint32_t dest, bool logical)
{
	uint32_t ldr;

	if (!lapic_enabled(c))
		return false;
	if (dest == UINT32_MAX)
		return true;
	if (lapic_x2(c)) {
		if (!logical)
			return dest == c->index;
		return dest >> 16 == c->index >> 4 && (dest >> (c->index & 15) & 1);
	}
	if (!logical)
		return dest == c->id;
	ldr = c->ldr >> 24;
	if (c->dfr >> 28 == 0xf) /* flat model */
		return dest & ldr;
	return dest >> 4 == ldr >> 4 && (dest & ldr & 0xf); /* cluster model */
}

/* 10.6.2.4: the addressed CPU running at the lowest priority; the first of equals. */
static struct lapic_cpu *lapic_lowest(struct lapic *l, uint32_t dest, bool logical)
{
	struct lapic_cpu *best = NULL;

	for (unsigned i = 0; i < l->cfg.ncpus; i++) {
		struct lapic_cpu *c = &l->cpu[i];

		if (!lapic_addressed(c, dest, logical) || !(c->svr & SVR_ENABLE))
			continue;
		if (!best || lapic_ppr(c) < lapic_ppr(best))
			best = c;
	}
	return best;
}

static void lapic_route(struct lapic *l, uint32_t dest, bool logical, enum lapic_dlm dlm, uint8_t vector, bool level)
{
	struct lapic_cpu *c;

	if (dlm == DLM_LOWEST) {
		c = lapic_lowest(l, dest, logical);
		if (c)
			lapic_deliver(c, dlm, vector, level);
		return;
	}
	for (unsigned i = 0; i < l->cfg.ncpus; i++)
		if (lapic_addressed(&l->cpu[i], dest, logical))
			lapic_deliver(&l->cpu[i], dlm, vector, level);
}

/* 10.6.1. dest: 8 bits in xAPIC mode, 32 in x2APIC mode. */
void lapic_send_ipi(struct lapic_cpu *c, uint32_t icr, uint32_t dest)
{
	enum lapic_dlm dlm = icr >> 8 & 7;
	uint8_t vector = icr;
	bool assert_level = icr & 0x4000, level = icr & 0x8000;
	struct lapic *l = c->l;

	if (dlm == DLM_INIT && level && !assert_level)
		return; /* INIT level de-assert: not supported since the Pentium 4, and no effect there */
	if (dlm == DLM_EXTINT || dlm == DLM_RESERVED)
		return;
	if ((dlm == DLM_FIXED || dlm == DLM_LOWEST) && vector < 16) {
		lapic_error(c, ESR_SEND_VECTOR);
		return;
	}
	if (!lapic_x2(c) && dest == 0xff)
		dest = UINT32_MAX;
	/* Interprocessor interrupts are edge-triggered whatever the ICR says (10.6.1, "trigger mode"). */
	switch (icr >> 18 & 3) {
	case 0:
		lapic_route(l, dest, icr & 0x800, dlm, vector, false);
		return;
	case 1:
		lapic_deliver(c, dlm, vector, false);
		return;
	default:
		for (unsigned i = 0; i < l->cfg.ncpus; i++)
			if ((&l->cpu[i] != c || (icr >> 18 & 3) == 2) && lapic_enabled(&l->cpu[i]))
				lapic_deliver(&l->cpu[i], dlm, vector, false);
	}
}

/* 10.11: message-signalled interrupts, also the I/O APIC's way to talk to us. */
static void lapic_msi(void *opaque, uint64_t addr, uint32_t data)
{
	struct lapic *l = opaque;
	uint32_t dest = addr >> 12 & 0xff;
	bool logical = addr & 4;
	enum lapic_dlm dlm = data >> 8 & 7;

	if (addr >> 20 != LAPIC_DEFAULT_BASE >> 20)
		return;
	if (dest == 0xff)
		dest = UINT32_MAX;
	if ((addr & 8) && dlm == DLM_FIXED)
		dlm = DLM_LOWEST; /* redirection hint: one of the addressed */
	lapic_route(l, dest, logical, dlm, data, (data & 0x8000) && (dlm == DLM_FIXED || dlm == DLM_LOWEST));
}

static void lapic_ipi(void *opaque, unsigned from, uint32_t icr, uint32_t dest)
{
	struct lapic *l = opaque;

	if (from < l->cfg.ncpus)
		lapic_send_ipi(&l->cpu[from], icr, dest);
}

/* --- local sources ---------------------------------------------------------------------------------------------- */

void lapic_lvt_fire(struct lapic_cpu *c, enum lapic_lvt which)
{
	uint32_t lvt = c->lvt[which];
	bool pin = which == LVT_LINT0 || which == LVT_LINT1;
	enum lapic_dlm dlm = which == LVT_TIMER || which == LVT_ERROR ? DLM_FIXED : lvt >> 8 & 7;

	if (lvt & LVT_MASKED)
		return;
	if (dlm == DLM_EXTINT)
		lapic_kick(c); /* the 8259 is asked at the acknowledge */
	else if (dlm == DLM_FIXED || dlm == DLM_NMI || (dlm == DLM_INIT && pin))
		lapic_deliver(c, dlm, lvt, false);
}

void lapic_lint0(void *dev, bool level)
{
	struct lapic *l = dev;
	bool rising = level && !l->lint0;

	l->lint0 = level;
	if (!rising)
		return;
	for (unsigned i = 0; i < l->cfg.ncpus; i++) {
		if (lapic_enabled(&l->cpu[i]))
			lapic_lvt_fire(&l->cpu[i], LVT_LINT0);
		else if (i == 0)
			lapic_kick(&l->cpu[i]); /* 10.4.3: a disabled APIC's LINT0 is the INTR pin */
	}
}

void lapic_lint1(void *dev)
{
	struct lapic *l = dev;

	for (unsigned i = 0; i < l->cfg.ncpus; i++) {
		if (lapic_enabled(&l->cpu[i]))
			lapic_lvt_fire(&l->cpu[i], LVT_LINT1);
		else
			lapic_deliver(&l->cpu[i], DLM_NMI, 0, false);
	}
}

void lapic_set_eoi_listener(void *dev, void (*eoi)(void *opaque, uint8_t vector), void *opaque)
{
	struct lapic *l = dev;

	l->eoi = eoi;
	l->eoi_opaque = opaque;
}

/* --- the CPU's side --------------------------------------------------------------------------------------------- */

static bool lapic_extint_waits(const struct lapic_cpu *c)
{
	const struct io *io = c->l->io;
	uint32_t lint0 = c->lvt[LVT_LINT0];
	bool wired = !lapic_enabled(c) ? c->index == 0 : !(lint0 & LVT_MASKED) && (lint0 >> 8 & 7) == DLM_EXTINT;

	return (wired || c->extint) && io->pic && io->pic->pending(io->pic_opaque);
}

static bool lapic_pending(void *opaque, unsigned cpu)
{
	struct lapic *l = opaque;
	struct lapic_cpu *c = &l->cpu[cpu];

	if (cpu >= l->cfg.ncpus)
		return false;
	return lapic_extint_waits(c) || (lapic_enabled(c) && lapic_deliverable(c) >= 0);
}

static int lapic_ack(void *opaque, unsigned cpu)
{
	struct lapic *l = opaque;
	struct lapic_cpu *c = &l->cpu[cpu];
	int vector;

	if (cpu >= l->cfg.ncpus)
		return -1;
	if (lapic_extint_waits(c)) {
		c->extint = false;
		return l->io->pic->ack(l->io->pic_opaque);
	}
	vector = lapic_enabled(c) ? lapic_deliverable(c) : -1;
	if (vector < 0)
		return -1;
	map_assign(c->irr, vector, false);
	map_assign(c->isr, vector, true);
	return vector;
}

/* 10.8.6: CR8 is TPR bits 7-4. */
static uint64_t lapic_cr8_read(void *opaque, unsigned cpu)
{
	struct lapic *l = opaque;

	return cpu < l->cfg.ncpus ? l->cpu[cpu].tpr >> 4 : 0;
}

static void lapic_cr8_write(void *opaque, unsigned cpu, uint64_t val)
{
	struct lapic *l = opaque;

	if (cpu >= l->cfg.ncpus)
		return;
	l->cpu[cpu].tpr = (val & 15) << 4;
	lapic_recheck(&l->cpu[cpu]);
}

static const struct io_lapic_ops lapic_ops = {
	.pending = lapic_pending,
	.ack = lapic_ack,
	.msr_read = lapic_msr_read,
	.msr_write = lapic_msr_write,
	.cr8_read = lapic_cr8_read,
	.cr8_write = lapic_cr8_write,
	.msi = lapic_msi,
	.ipi = lapic_ipi,
};

/* --- life ------------------------------------------------------------------------------------------------------- */

/* 10.4.7.1 and 10.4.7.3: state after power-up, and after INIT except the ID. */
void lapic_cpu_init(struct lapic_cpu *c)
{
	c->tpr = c->ldr = c->icr = c->icr2 = c->esr = c->esr_pending = 0;
	c->dfr = UINT32_MAX;
	c->svr = 0xff;
	for (unsigned i = 0; i < LVT_COUNT; i++)
		c->lvt[i] = LVT_MASKED;
	memset(c->isr, 0, sizeof(c->isr));
	memset(c->irr, 0, sizeof(c->irr));
	memset(c->tmr, 0, sizeof(c->tmr));
	c->extint = false;
	c->timer_divide = 0;
	c->timer_start = 0;
	lapic_timer_stop(c);
}

static void lapic_reset(void *dev)
{
	struct lapic *l = dev;

	for (unsigned i = 0; i < l->cfg.ncpus; i++) {
		struct lapic_cpu *c = &l->cpu[i];

		c->base = LAPIC_DEFAULT_BASE | BASE_EN | (i == 0 ? BASE_BSP : 0);
		c->id = i;
		lapic_cpu_init(c);
	}
	l->cpu[0].svr = 0xff | SVR_ENABLE;
	l->cpu[0].lvt[LVT_LINT0] = DLM_EXTINT << 8;
	l->cpu[0].lvt[LVT_LINT1] = DLM_NMI << 8;
	lapic_move_page(l, LAPIC_DEFAULT_BASE);
}

static int lapic_create(struct io *io, const void *config, void **out)
{
	const struct lapic_config *cfg = config;
	struct lapic *l;
	int r;

	if (!cfg->ncpus || cfg->ncpus > LAPIC_MAX_CPUS)
		return -EINVAL;
	l = calloc(1, sizeof(*l) + cfg->ncpus * sizeof(l->cpu[0]));
	if (!l)
		return -ENOMEM;
	l->io = io;
	l->cfg = *cfg;
	r = io_register(io, IO_MMIO, LAPIC_DEFAULT_BASE, PAGE_SIZE, &lapic_mmio_handler, l);
	if (r) {
		free(l);
		return r;
	}
	l->mmio_base = LAPIC_DEFAULT_BASE;
	for (unsigned i = 0; i < cfg->ncpus; i++) {
		l->cpu[i].l = l;
		l->cpu[i].index = i;
		lapic_timer_setup(&l->cpu[i]);
	}
	io->lapic = &lapic_ops;
	io->lapic_opaque = l;
	lapic_reset(l);
	*out = l;
	return 0;
}

static void lapic_state(void *dev, struct io_state *s)
{
	struct lapic *l = dev;
	uint64_t was = l->mmio_base, is;

	DEV_FIELD(s, l, mmio_base);
	is = l->mmio_base;
	l->mmio_base = was;
	lapic_move_page(l, is);
	DEV_FIELD(s, l, lint0);
	for (unsigned i = 0; i < l->cfg.ncpus; i++) {
		struct lapic_cpu *c = &l->cpu[i];

		DEV_FIELD(s, c, base);
		DEV_FIELD(s, c, id);
		DEV_FIELD(s, c, tpr);
		DEV_FIELD(s, c, ldr);
		DEV_FIELD(s, c, dfr);
		DEV_FIELD(s, c, svr);
		DEV_FIELD(s, c, icr);
		DEV_FIELD(s, c, icr2);
		DEV_FIELD(s, c, esr);
		DEV_FIELD(s, c, esr_pending);
		DEV_FIELD(s, c, lvt);
		DEV_FIELD(s, c, isr);
		DEV_FIELD(s, c, irr);
		DEV_FIELD(s, c, tmr);
		DEV_FIELD(s, c, extint);
		DEV_FIELD(s, c, timer.deadline);
		DEV_FIELD(s, c, timer_init);
		DEV_FIELD(s, c, timer_divide);
		DEV_FIELD(s, c, timer_start);
		DEV_FIELD(s, c, tsc_deadline);
	}
}

static void lapic_destroy(void *dev)
{
	struct lapic *l = dev;

	for (unsigned i = 0; i < l->cfg.ncpus; i++)
		io_timer_unregister(l->io, &l->cpu[i].timer);
	l->io->lapic = NULL;
	if (l->mmio_base)
		io_unregister(l->io, IO_MMIO, l->mmio_base);
	free(l);
}

const struct device_class lapic_class = {
	.name = "lapic",
	.create = lapic_create,
	.reset = lapic_reset,
	.state = lapic_state,
	.destroy = lapic_destroy,
};
