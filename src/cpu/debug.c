/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Breakpoints and watches of a debugger outside the machine.
 *
 * Invariant: what is recorded in v->debug stays until whoever reports it takes it; of several watched bytes touched by one
 * instruction the first counts. A breakpoint is met before its instruction, a watch is reported behind it.
 * Locking: the lists change only while every vCPU stands still; v->debug is the vCPU's thread's.
 */
#include "cpu/private.h"

static gva_t linear_rip(const struct vcpu *v)
{
	return v->mode == INSN_MODE_64 ? v->rip : (uint32_t)(v->rip + v->seg[CS].base);
}

bool cpu_debug_break(struct vcpu *v)
{
	const struct cpu_breaks *b = v->debug.breaks;
	gva_t lin = linear_rip(v);

	for (unsigned i = 0; i < b->n; i++) {
		if (b->addr[i] == lin) {
			v->debug.hit = DEBUG_HIT_BREAK;
			v->debug.addr = lin;
			return true;
		}
	}
	if (b->any)
		v->debug.hit = DEBUG_HIT_STEP;
	return b->any;
}

bool cpu_debug_break_page(const struct vcpu *v, gva_t lin)
{
	const struct cpu_breaks *b = v->debug.breaks;

	for (unsigned i = 0; i < b->n; i++)
		if (!((b->addr[i] ^ lin) & ~PAGE_MASK))
			return true;
	return b->any;
}

void cpu_debug_access(struct vcpu *v, gva_t lin, size_t len, unsigned kinds)
{
	const struct mmu_watches *l = v->mmu.watches;

	if (v->debug.hit != DEBUG_HIT_NONE)
		return;
	for (unsigned i = 0; i < l->n; i++) {
		const struct mmu_watch *w = &l->w[i];

		/* Distances, so that neither end can wrap. */
		if (!(w->kinds & kinds) || !(lin - w->addr < w->len || w->addr - lin < len))
			continue;
		v->debug.hit = DEBUG_HIT_WATCH;
		v->debug.kinds = w->kinds;
		v->debug.addr = lin - w->addr < w->len ? lin : w->addr;
		__atomic_fetch_or(&v->event, VCPU_EV_DEBUG, __ATOMIC_RELAXED);
		return;
	}
}
