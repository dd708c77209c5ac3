/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Contexts by PCID, and the TLB operations: what each must remove, and what it may leave.
 *
 * Invariant: mmu->cur is the context of the current PCID, and mmu->gen changes with every removal and every change of cur.
 * A context that is not in use may still hold entries: nothing looks them up, and they are removed before it is used again.
 * Owner: the vCPU's thread. Spec: SDM vol. 3A 4.10.4 (invalidation), 4.10.1 (PCIDs).
 */
#include "mem/private.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/mman.h>

#include "base/log.h"

#define MMU_MIN_CONTEXTS 2
#define CR3_PCID 0xfffull

int mmu_create(struct mmu *mmu, struct mem *mem, unsigned contexts)
{
	int err = -ENOMEM;

	*mmu = (struct mmu){ .mem = mem, .max_gfn = mem->max_gfn };
	for (unsigned i = 0; i < contexts && i < MMU_CONTEXTS; i++, mmu->nctx++)
		if (mmu_context_init(&mmu->ctx[i]))
			break;
	if (mmu->nctx < MMU_MIN_CONTEXTS) {
		log_error("cannot reserve %u TiB of address space for page tables: raise 'ulimit -v' and set vm.overcommit_memory to 0 or 1",
			  2 * MMU_MIN_CONTEXTS);
		goto fail_contexts;
	}
	mmu->rmap = mmap(NULL, mmu->max_gfn * sizeof(*mmu->rmap), PROT_READ | PROT_WRITE,
			 MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (mmu->rmap == MAP_FAILED) {
		log_error("cannot reserve memory for the reverse map: set vm.overcommit_memory to 0 or 1");
		goto fail_contexts;
	}
	err = mem_attach_mmu(mem, mmu);
	if (err)
		goto fail_rmap;
	mmu->cur = &mmu->ctx[0];
	mmu->cur->in_use = true;
	return 0;
fail_rmap:
	munmap(mmu->rmap, mmu->max_gfn * sizeof(*mmu->rmap));
fail_contexts:
	for (unsigned i = 0; i < mmu->nctx; i++)
		mmu_context_fini(&mmu->ctx[i]);
	return err;
}

void mmu_destroy(struct mmu *mmu)
{
	mem_detach_mmu(mmu->mem, mmu);
	munmap(mmu->rmap, mmu->max_gfn * sizeof(*mmu->rmap));
	for (unsigned i = 0; i < mmu->nctx; i++)
		mmu_context_fini(&mmu->ctx[i]);
	*mmu = (struct mmu){ 0 };
}

static struct mmu_context *context_find(struct mmu *mmu, uint16_t pcid)
{
	for (unsigned i = 0; i < mmu->nctx; i++)
		if (mmu->ctx[i].in_use && mmu->ctx[i].pcid == pcid)
			return &mmu->ctx[i];
	return NULL;
}

/* A context for a PCID that has none: an unused one, else the least recently used. Empty on return. */
static struct mmu_context *context_claim(struct mmu *mmu, uint16_t pcid)
{
	struct mmu_context *best = NULL;

	for (unsigned i = 0; i < mmu->nctx; i++) {
		struct mmu_context *c = &mmu->ctx[i];

		if (!best || (best->in_use && !c->in_use) || (best->in_use == c->in_use && c->last_use < best->last_use))
			best = c;
	}
	if (best->in_use)
		mmu->stats.evictions++;
	mmu_context_empty(mmu, best);
	best->in_use = true;
	best->pcid = pcid;
	return best;
}

/* Makes pcid current; true if it already had a context (whose entries may have to be flushed). */
static bool context_switch(struct mmu *mmu, uint16_t pcid)
{
	struct mmu_context *c = context_find(mmu, pcid);
	bool found = c;

	if (!c)
		c = context_claim(mmu, pcid);
	if (c != mmu->cur)
		mmu->gen++;
	mmu->cur = c;
	c->last_use = ++mmu->use_clock;
	return found;
}

static uint16_t mmu_pcid(const struct mmu_regs *r)
{
	return (r->cr4 & CR4_PCIDE) ? r->cr3 & CR3_PCID : 0;
}

void mmu_invlpg(struct mmu *mmu, gva_t gva)
{
	mmu_context_empty_page(mmu, mmu->cur, gva);
	for (unsigned i = 0; i < mmu->nctx; i++) {
		struct mmu_context *c = &mmu->ctx[i];

		if (c != mmu->cur && c->in_use && mmu_context_page_global(mmu, c, gva))
			mmu_context_empty_page(mmu, c, gva);
	}
}

void mmu_invlpg_pcid(struct mmu *mmu, uint16_t pcid, gva_t gva)
{
	struct mmu_context *c = context_find(mmu, pcid);

	if (c)
		mmu_context_empty_page(mmu, c, gva);
}

void mmu_flush_pcid(struct mmu *mmu, uint16_t pcid)
{
	struct mmu_context *c = context_find(mmu, pcid);

	if (c)
		mmu_context_empty_nonglobal(mmu, c);
}

void mmu_flush_all(struct mmu *mmu)
{
	/* The others are emptied when (and if) they are claimed again. */
	for (unsigned i = 0; i < mmu->nctx; i++)
		if (&mmu->ctx[i] != mmu->cur)
			mmu->ctx[i].in_use = false;
	mmu_context_empty(mmu, mmu->cur);
}

void mmu_flush_nonglobal(struct mmu *mmu)
{
	for (unsigned i = 0; i < mmu->nctx; i++)
		if (mmu->ctx[i].in_use)
			mmu_context_empty_nonglobal(mmu, &mmu->ctx[i]);
}

void mmu_set_regs(struct mmu *mmu, const struct mmu_regs *regs, bool noflush)
{
	const uint64_t cr0_bits = CR0_PG | CR0_WP;
	const uint64_t cr4_bits = CR4_PGE | CR4_PAE | CR4_PSE | CR4_PCIDE | CR4_SMEP;
	const uint64_t efer_bits = EFER_NXE | EFER_LMA;
	struct mmu_regs old = mmu->regs;
	bool control = old.cr0 != regs->cr0 || old.cr4 != regs->cr4 || old.efer != regs->efer;

	mmu->regs = *regs;
	if (((old.cr0 ^ regs->cr0) & cr0_bits) || ((old.cr4 ^ regs->cr4) & cr4_bits) || ((old.efer ^ regs->efer) & efer_bits)) {
		context_switch(mmu, mmu_pcid(regs));
		mmu_flush_all(mmu);
		return;
	}
	/* A change of other control bits is no write to CR3; the same value written again is. */
	if (control && old.cr3 == regs->cr3)
		return;
	if (context_switch(mmu, mmu_pcid(regs)) && !noflush)
		mmu_context_empty_nonglobal(mmu, mmu->cur);
}

void mmu_enter_user_slow(struct mmu *mmu)
{
	mmu_context_empty_lower(mmu, mmu->cur);
}
