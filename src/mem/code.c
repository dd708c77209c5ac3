/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Code marks: which guest frames hold translated code, of which vCPUs, and who is told when such a frame changes.
 *
 * Invariant: while a frame carries P2M_F_SEALED no flat write entry reaches it, in any context of any vCPU. Marking is: set this MMU's bit;
 * drop its own write entries; have every other vCPU that may have one drop it, and wait; set SEALED. mmu_resolve() looks at the bits
 * before it fills an entry. An MMU's own bit is set and cleared on its thread only (but by mem_reset).
 *
 * A store that is not made through a flat entry happens, then a full barrier, then the bits and lines are read; the translator sets
 * bit and line, a full barrier, then reads the bytes. One of the two sees the other. docs/design/mem.md has the argument in full.
 * Locking: the p2m word is changed by compare-exchange; m->mmu[] changes only while no vCPU runs.
 */
#include "mem/private.h"

#include <errno.h>

int mem_attach_mmu(struct mem *m, struct mmu *mmu)
{
	int err = -ENOSPC;

	mem_lock(m);
	for (unsigned i = 0; i < MEM_MAX_MMUS && err; i++) {
		if (m->mmu[i])
			continue;
		mmu->index = i;
		m->mmu[i] = mmu;
		err = 0;
	}
	mem_unlock(m);
	return err;
}

void mem_detach_mmu(struct mem *m, struct mmu *mmu)
{
	mem_lock(m);
	m->mmu[mmu->index] = NULL;
	mem_unlock(m);
}

/* Sets our bit; the entry as it was before. False if the frame is no memory. */
static bool set_bit(struct mem *m, gfn_t gfn, uint64_t bit, uint64_t *old)
{
	while (mem_frame(m, gfn, false)) {
		*old = p2m_entry(m, gfn);
		/* Between the two the frame may have been taken away. */
		if (!p2m_state_empty(p2m_entry_state(*old)) &&
		    __atomic_compare_exchange_n(&m->p2m[gfn], old, *old | bit, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST))
			return true;
	}
	return false;
}

/* Write entries of the frame may exist in o: its reverse map has had one since they were last dropped. An owner that is about to fill
 * one has put it into the map before it looks at the marks (flat.c). */
static bool may_write(const struct mmu *o, gfn_t gfn)
{
	return gfn < o->max_gfn && (__atomic_load_n(&o->rmap[gfn][0], __ATOMIC_ACQUIRE) |
				    __atomic_load_n(&o->rmap[gfn][1], __ATOMIC_ACQUIRE));
}

/* Has every other vCPU drop its write entries of the frame, and waits. */
static void seal(struct mmu *mmu, gfn_t gfn)
{
	const struct mmu_request r = { .gfn = gfn, .frames = 1 };
	struct mem *m = mmu->mem;
	uint32_t ticket[MEM_MAX_MMUS], asked = 0;
	bool was;

	for (unsigned i = 0; i < MEM_MAX_MMUS; i++) {
		if (!m->mmu[i] || m->mmu[i] == mmu || !may_write(m->mmu[i], gfn))
			continue;
		ticket[i] = mmu_ask(m->mmu[i], &r);
		asked |= 1u << i;
	}
	if (!asked)
		return;
	mmu->sync.stats.waits++;
	was = mmu_pause(mmu);
	for (unsigned i = 0; i < MEM_MAX_MMUS; i++)
		if (asked & (1u << i))
			mmu_await(m->mmu[i], ticket[i]);
	mmu_resume(mmu, was);
}

/* Serving others while waiting may take the bit away again, when a store from before is heard of: so many times, then not now. */
#define MARK_TRIES 8

bool mem_code_mark(struct mmu *mmu, gfn_t gfn)
{
	struct mem *m = mmu->mem;
	uint64_t bit = P2M_CODE(mmu->index), e = p2m_entry(m, gfn);

	if (e & bit)
		return true;
	for (unsigned i = 0; i < MARK_TRIES; i++) {
		if (!set_bit(m, gfn, bit, &e))
			return false;
		mmu_drop_writes(mmu, gfn);
		/* Unsealed with others' bits set: somebody else is at it, and has not waited long enough for us to rely on. */
		if (e & P2M_F_SEALED)
			return true;
		seal(mmu, gfn);
		e = p2m_entry(m, gfn);
		while (e & bit)
			if (__atomic_compare_exchange_n(&m->p2m[gfn], &e, e | P2M_F_SEALED, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST))
				return true;
	}
	return false;
}

bool mem_code_marked(const struct mem *m, gfn_t gfn)
{
	return p2m_entry(m, gfn) & P2M_CODE_ANY;
}

/* --- lines: stores to data that only shares a frame with code concern nobody ---------------------------------------- */

static uint64_t line_mask(unsigned off, unsigned len)
{
	unsigned first = off >> 6, last = (off + len - 1) >> 6;

	return (~0ull >> (63 - (last & 63))) & (~0ull << (first & 63));
}

void mem_code_read(struct mem *m, gfn_t gfn, unsigned off, unsigned len)
{
	uint64_t mask = line_mask(off, len);

	/* A full barrier in either case: the bytes are read after the bit and the line have become visible. */
	if ((__atomic_load_n(&m->code_lines[gfn], __ATOMIC_RELAXED) & mask) == mask)
		__atomic_thread_fence(__ATOMIC_SEQ_CST);
	else
		__atomic_fetch_or(&m->code_lines[gfn], mask, __ATOMIC_SEQ_CST);
}

/* --- stores ----------------------------------------------------------------------------------------------------------- */

void mem_code_changed(struct mmu *mmu, gfn_t gfn, unsigned off, unsigned len)
{
	struct mem *m = mmu->mem;
	uint64_t bit = P2M_CODE(mmu->index), e, want;

	if (mmu->code_ops && !mmu->code_ops->write(mmu->code_opaque, gfn, off, len))
		return;
	/* The last bit takes the seal along. */
	e = p2m_entry(m, gfn);
	do {
		if (!(e & bit))
			return;
		want = e & ~bit;
		if (!(want & P2M_CODE_ANY))
			want &= ~P2M_F_SEALED;
	} while (!__atomic_compare_exchange_n(&m->p2m[gfn], &e, want, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST));
}

void mem_code_write(struct mmu *mmu, gfn_t gfn, unsigned off, unsigned len)
{
	if (p2m_entry(mmu->mem, gfn) & P2M_CODE(mmu->index))
		mem_code_changed(mmu, gfn, off, len);
}

void mem_code_wrote(struct mem *m, const struct mmu *mmu, gfn_t gfn, unsigned off, unsigned len)
{
	const struct mmu_request r = { .gfn = gfn, .frames = 1, .off = (uint16_t)off, .len = (uint16_t)len };
	uint64_t others;

	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	others = p2m_entry(m, gfn) & P2M_CODE_ANY & ~(mmu ? P2M_CODE(mmu->index) : 0);
	if (likely(!others) || !(__atomic_load_n(&m->code_lines[gfn], __ATOMIC_RELAXED) & line_mask(off, len)))
		return;
	/* Nobody waits: the request is in the other vCPU's event word before any later store of this one can be seen, and it looks there
	 * at the latest when it serializes. */
	for (unsigned i = 0; i < MEM_MAX_MMUS; i++)
		if ((others & P2M_CODE(i)) && m->mmu[i])
			mmu_ask(m->mmu[i], &r);
}
