/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Local APIC registers: the xAPIC page, the x2APIC MSRs, IA32_APIC_BASE and IA32_TSC_DEADLINE.
 *
 * One table says what each register allows; both views use it. In x2APIC mode a violation is #GP, in xAPIC mode a
 * reserved register sets "illegal register address" in ESR and reserved bits are dropped.
 *
 * Invariant: the page answers only while the accessing CPU is in xAPIC mode, the MSRs only in x2APIC mode.
 * Locking: io->lock. Spec: SDM vol. 3A 10.4 (registers), 10.12 (x2APIC).
 */
#include "dev/platform/lapic_private.h"

#include "x86/arch.h"

enum { R = 1, W = 2, RW = 3 };
#define MSR_APIC_BASE 0x1b
#define MSR_TSC_DEADLINE 0x6e0
#define MSR_X2APIC 0x800

/* Rows 10h apart that repeat (ISR, TMR, IRR) have count 8. mask: bits a write may set. */
static const struct lapic_row {
	uint16_t off, count;
	uint8_t xapic, x2apic;
	uint32_t mask;
} lapic_rows[] = {
	{APIC_ID, 1, RW, R, 0xff000000},
	{APIC_VERSION, 1, R, R, 0},
	{APIC_TPR, 1, RW, RW, 0xff},
	{APIC_APR, 1, R, 0, 0},
	{APIC_PPR, 1, R, R, 0},
	{APIC_EOI, 1, W, W, 0},
	{APIC_RRD, 1, R, 0, 0},
	{APIC_LDR, 1, RW, R, 0xff000000},
	{APIC_DFR, 1, RW, 0, 0xf0000000},
	{APIC_SVR, 1, RW, RW, 0x3ff},
	{APIC_ISR, 8, R, R, 0},
	{APIC_TMR, 8, R, R, 0},
	{APIC_IRR, 8, R, R, 0},
	{APIC_ESR, 1, RW, RW, 0},
	{APIC_ICR, 1, RW, RW, 0x000ccfff},
	{APIC_ICR2, 1, RW, 0, 0xff000000},
	{APIC_LVT + 0x10 * LVT_TIMER, 1, RW, RW, 0x000700ff},
	{APIC_LVT + 0x10 * LVT_THERMAL, 1, RW, RW, 0x000107ff},
	{APIC_LVT + 0x10 * LVT_PERF, 1, RW, RW, 0x000107ff},
	{APIC_LVT + 0x10 * LVT_LINT0, 1, RW, RW, 0x0001a7ff},
	{APIC_LVT + 0x10 * LVT_LINT1, 1, RW, RW, 0x0001a7ff},
	{APIC_LVT + 0x10 * LVT_ERROR, 1, RW, RW, 0x000100ff},
	{APIC_TMICT, 1, RW, RW, 0xffffffff},
	{APIC_TMCCT, 1, R, R, 0},
	{APIC_TDCR, 1, RW, RW, 0xb},
	{APIC_SELF_IPI, 1, 0, W, 0xff},
};

/* Version 14h (integrated APIC), six LVT entries, no EOI broadcast suppression. */
#define LAPIC_VERSION (0x14u | (LVT_COUNT - 1) << 16)

static const struct lapic_row *row_find(unsigned off)
{
	for (unsigned i = 0; i < nitems(lapic_rows); i++) {
		const struct lapic_row *row = &lapic_rows[i];

		if (off >= row->off && off < row->off + row->count * 0x10u)
			return row;
	}
	return NULL;
}

/* 10.12.10.2: in x2APIC mode the logical ID follows from the ID. */
static uint32_t lapic_read_ldr(const struct lapic_cpu *c)
{
	return lapic_x2(c) ? c->index >> 4 << 16 | 1u << (c->index & 15) : c->ldr;
}

static uint32_t lapic_reg_read(struct lapic_cpu *c, unsigned off)
{
	unsigned word = off >> 4 & 7;

	if (off >= APIC_LVT && off < APIC_LVT + 0x10 * LVT_COUNT)
		return c->lvt[(off - APIC_LVT) >> 4];
	switch (off & ~0x70u) {
	case APIC_ISR:
		return c->isr[word];
	case APIC_TMR:
		return c->tmr[word];
	case APIC_IRR:
		return c->irr[word];
	}
	switch (off) {
	case APIC_ID:
		return lapic_x2(c) ? c->index : c->id << 24;
	case APIC_VERSION:
		return LAPIC_VERSION;
	case APIC_TPR:
		return c->tpr;
	case APIC_APR:
	case APIC_PPR:
		return lapic_ppr(c);
	case APIC_LDR:
		return lapic_read_ldr(c);
	case APIC_DFR:
		return c->dfr;
	case APIC_SVR:
		return c->svr;
	case APIC_ESR:
		return c->esr;
	case APIC_ICR:
		return c->icr;
	case APIC_ICR2:
		return c->icr2;
	case APIC_TMICT:
		return c->timer_init;
	case APIC_TMCCT:
		return lapic_timer_count(c);
	case APIC_TDCR:
		return c->timer_divide;
	default:
		return 0;
	}
}

static void lapic_write_lvt(struct lapic_cpu *c, enum lapic_lvt which, uint32_t val)
{
	if (!(c->svr & SVR_ENABLE))
		val |= LVT_MASKED; /* 10.4.7.2: attempts to unmask are ignored */
	if (which == LVT_TIMER) {
		lapic_timer_write_lvt(c, val);
		return;
	}
	c->lvt[which] = val;
	/* Unmasking LINT0 as ExtINT with INTR already high. */
	if (which == LVT_LINT0 && c->l->lint0 && !(val & LVT_MASKED) && (val >> 8 & 7) == DLM_EXTINT)
		lapic_lvt_fire(c, LVT_LINT0);
}

static void lapic_write_svr(struct lapic_cpu *c, uint32_t val)
{
	c->svr = val;
	if (val & SVR_ENABLE)
		return;
	for (unsigned i = 0; i < LVT_COUNT; i++)
		c->lvt[i] |= LVT_MASKED;
}

/* val has been masked. ICR in x2APIC mode is handled by the caller (it is one 64-bit register). */
static void lapic_reg_write(struct lapic_cpu *c, unsigned off, uint32_t val)
{
	if (off >= APIC_LVT && off < APIC_LVT + 0x10 * LVT_COUNT) {
		lapic_write_lvt(c, (off - APIC_LVT) >> 4, val);
		return;
	}
	switch (off) {
	case APIC_ID:
		c->id = val >> 24;
		break;
	case APIC_TPR:
		c->tpr = val;
		lapic_recheck(c);
		break;
	case APIC_EOI:
		lapic_end_of_interrupt(c);
		break;
	case APIC_LDR:
		c->ldr = val;
		break;
	case APIC_DFR:
		c->dfr = val | 0x0fffffff;
		break;
	case APIC_SVR:
		lapic_write_svr(c, val);
		break;
	case APIC_ESR: /* 10.5.3: the write latches what was collected */
		c->esr = c->esr_pending;
		c->esr_pending = 0;
		break;
	case APIC_ICR:
		c->icr = val;
		lapic_send_ipi(c, val, c->icr2 >> 24);
		break;
	case APIC_ICR2:
		c->icr2 = val;
		break;
	case APIC_TMICT:
		lapic_timer_write_init(c, val);
		break;
	case APIC_TDCR:
		lapic_timer_write_divide(c, val);
		break;
	case APIC_SELF_IPI:
		if (val < 16)
			lapic_error(c, ESR_SEND_VECTOR);
		else
			lapic_accept(c, val, false);
		break;
	}
}

/* --- the page (10.4.1) ------------------------------------------------------------------------------------------ */

static struct lapic_cpu *lapic_current(struct lapic *l)
{
	const struct lapic_cpu_ops *cpus = l->cfg.cpus;
	unsigned cpu = cpus && cpus->current ? cpus->current(l->io->vm) : 0;

	return cpu < l->cfg.ncpus ? &l->cpu[cpu] : NULL;
}

/* Registers are 32 bits at multiples of 16; parts of one are readable, the twelve bytes after it are zero. */
static uint64_t lapic_mmio_read(void *opaque, uint64_t off, unsigned size)
{
	struct lapic_cpu *c = lapic_current(opaque);
	const struct lapic_row *row = row_find(off & ~15ull);
	unsigned shift = (off & 15) * 8;

	(void)size;
	if (!c || !lapic_enabled(c) || lapic_x2(c))
		return UINT64_MAX;
	if (!row || !(row->xapic & R)) {
		if (!row || !row->xapic)
			lapic_error(c, ESR_REGISTER);
		return 0;
	}
	return shift < 32 ? lapic_reg_read(c, off & ~15ull) >> shift : 0;
}

static void lapic_mmio_write(void *opaque, uint64_t off, unsigned size, uint64_t val)
{
	struct lapic_cpu *c = lapic_current(opaque);
	const struct lapic_row *row = row_find(off & ~15ull);

	if (!c || !lapic_enabled(c) || lapic_x2(c))
		return;
	if (!row || !row->xapic) {
		lapic_error(c, ESR_REGISTER);
		return;
	}
	if (!(row->xapic & W) || (off & 15) || size < 4)
		return; /* "must be accessed using 128-bit aligned 32-bit loads and stores" */
	lapic_reg_write(c, off, val & row->mask);
}

const struct io_handler lapic_mmio_handler = {.read = lapic_mmio_read, .write = lapic_mmio_write};

/* --- MSRs ------------------------------------------------------------------------------------------------------- */

/* CPU 0 decides where the page is decoded: one map serves all CPUs here, as all of them use the same address. */
void lapic_move_page(struct lapic *l, uint64_t base)
{
	if (l->mmio_base == base)
		return;
	if (l->mmio_base)
		io_unregister(l->io, IO_MMIO, l->mmio_base);
	l->mmio_base = base && !io_register(l->io, IO_MMIO, base, PAGE_SIZE, &lapic_mmio_handler, l) ? base : 0;
}

/* 10.4.4 and 10.12.5: allowed mode changes are a square without the diagonals disabled->x2APIC and x2APIC->xAPIC. */
static int lapic_write_base(struct lapic_cpu *c, uint64_t val)
{
	uint64_t reserved = 0xff | BIT(9) | ~(BIT(X86_PHYS_BITS) - 1);
	uint64_t from = c->base & BASE_MODE, to = val & BASE_MODE;

	if ((val & reserved) || to == BASE_X2)
		return -1;
	if ((from == 0 && to == BASE_MODE) || (from == BASE_MODE && to == BASE_EN))
		return -1;
	c->base = (val & ~BASE_BSP) | (c->base & BASE_BSP);
	if (to == 0 && from != 0) { /* 10.4.3: enabling again finds the reset state */
		lapic_cpu_init(c);
		c->id = c->index;
	}
	if (c->index == 0)
		lapic_move_page(c->l, val & ~PAGE_MASK);
	/* INTR may reach the CPU by another way now. */
	c->l->io->kick(c->l->io->vm, c->index);
	return 0;
}

int lapic_msr_read(void *opaque, unsigned cpu, uint32_t msr, uint64_t *val)
{
	struct lapic *l = opaque;
	struct lapic_cpu *c = &l->cpu[cpu];
	const struct lapic_row *row;

	if (cpu >= l->cfg.ncpus)
		return -1;
	if (msr == MSR_APIC_BASE) {
		*val = c->base;
		return 0;
	}
	if (msr == MSR_TSC_DEADLINE) {
		*val = c->tsc_deadline;
		return 0;
	}
	row = row_find((msr - MSR_X2APIC) << 4);
	if (msr < MSR_X2APIC || msr > MSR_X2APIC + 0xff || !lapic_x2(c) || !row || !(row->x2apic & R))
		return -1;
	*val = lapic_reg_read(c, (msr - MSR_X2APIC) << 4);
	if (row->off == APIC_ICR)
		*val |= (uint64_t)c->icr2 << 32;
	return 0;
}

int lapic_msr_write(void *opaque, unsigned cpu, uint32_t msr, uint64_t val)
{
	struct lapic *l = opaque;
	struct lapic_cpu *c = &l->cpu[cpu];
	const struct lapic_row *row;

	if (cpu >= l->cfg.ncpus)
		return -1;
	if (msr == MSR_APIC_BASE)
		return lapic_write_base(c, val);
	if (msr == MSR_TSC_DEADLINE) {
		lapic_timer_write_deadline(c, val);
		return 0;
	}
	row = row_find((msr - MSR_X2APIC) << 4);
	if (msr < MSR_X2APIC || msr > MSR_X2APIC + 0xff || !lapic_x2(c) || !row || !(row->x2apic & W))
		return -1;
	if (row->off == APIC_ICR) {
		if ((uint32_t)val & ~(row->mask | 0x1000)) /* bit 12 was the delivery status: ignored */
			return -1;
		c->icr = val & row->mask;
		c->icr2 = val >> 32;
		lapic_send_ipi(c, c->icr, c->icr2);
		return 0;
	}
	/* Read-only status bits of the LVT (12, 14) may be written back as read. */
	if (val & ~(uint64_t)(row->mask | (row->off >= APIC_LVT && row->off < APIC_TMICT ? 0x5000 : 0)))
		return -1;
	lapic_reg_write(c, row->off, val & row->mask);
	return 0;
}
