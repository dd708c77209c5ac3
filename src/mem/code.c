/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Code marks: which guest frames hold translated code, and who is told when such a frame is about to change.
 *
 * Invariant: while a frame carries P2M_F_CODE no flat write entry reaches it, in any context of any vCPU: the mark is set
 * first, then existing entries are dropped, and mmu_resolve() looks at the mark before it fills one.
 * Locking: called on the vCPU's thread; foreign threads only read marks (mem_write).
 */
#include "mem/private.h"

#include <errno.h>

int mem_set_code_ops(struct mem *m, const struct mem_code_ops *ops, void *opaque)
{
	if (ops && m->code_ops && m->code_ops != ops)
		return -EBUSY;
	m->code_ops = ops;
	m->code_opaque = opaque;
	return 0;
}

int mem_attach_mmu(struct mem *m, struct mmu *mmu)
{
	int err = -ENOSPC;

	mem_lock(m);
	if (m->nmmus < MEM_MAX_MMUS) {
		m->mmu[m->nmmus++] = mmu;
		err = 0;
	}
	mem_unlock(m);
	return err;
}

void mem_detach_mmu(struct mem *m, struct mmu *mmu)
{
	mem_lock(m);
	for (unsigned i = 0; i < m->nmmus; i++) {
		if (m->mmu[i] == mmu) {
			m->mmu[i] = m->mmu[--m->nmmus];
			break;
		}
	}
	mem_unlock(m);
}

void mem_code_mark(struct mem *m, gfn_t gfn)
{
	uint64_t e = p2m_entry(m, gfn);

	if ((e & P2M_F_CODE) || !mem_frame(m, gfn, false))
		return;
	p2m_set_flags(m, gfn, P2M_F_CODE);
	for (unsigned i = 0; i < m->nmmus; i++)
		mmu_drop_writes(m->mmu[i], gfn);
}

bool mem_code_marked(const struct mem *m, gfn_t gfn)
{
	return p2m_entry(m, gfn) & P2M_F_CODE;
}

void mem_code_write(struct mem *m, gfn_t gfn, unsigned off, unsigned len)
{
	if (!mem_code_marked(m, gfn))
		return;
	if (!m->code_ops || m->code_ops->write(m->code_opaque, gfn, off, len))
		__atomic_fetch_and(&m->p2m[gfn], ~P2M_F_CODE, __ATOMIC_SEQ_CST);
}
