/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The page walk: linear to guest-physical address, with rights, accessed and dirty bits.
 *
 * Invariant: table entries are read and changed through p2m only, one aligned word at a time; accessed and dirty bits are
 * set by compare-exchange against the value the rights were derived from, and only if the access succeeds.
 * Spec: SDM vol. 3A 4.3 (32-bit), 4.4 (PAE), 4.5 (4-level), 4.6 (rights), 4.7 (error code), 4.8 (A and D).
 */
#include "mem/private.h"

/* A walk is restarted when an entry changed under it; another writer cannot keep winning, but guest-made loops are bounded. */
#define WALK_RETRIES 16

enum walk_mode { WALK_32, WALK_PAE, WALK_LONG };

/* One entry on the way, kept so that A and D can be set at the end. */
struct walk_entry {
	void *hva;       /* NULL: not in memory that can be written */
	gpa_t gpa;
	uint64_t val;
};

struct walk {
	enum walk_mode mode;
	unsigned n;
	struct walk_entry e[4];
	uint64_t rights_and;    /* W and U survive only if set at every level */
	uint64_t rights_or;     /* NX holds if set at any level */
	unsigned shift;         /* of the leaf */
};

static uint64_t walk_reserved(const struct mmu_regs *r, enum walk_mode mode, unsigned level, bool leaf)
{
	uint64_t rsvd;

	if (mode == WALK_32)
		return leaf && level == 2 ? BIT(21) : 0;
	/* Address bits beyond the width; PAE entries have no ignored bits below NX. */
	rsvd = (mode == WALK_PAE ? BIT(63) - 1 : PTE_ADDR) & ~(BIT(X86_PHYS_BITS) - 1);
	if (!(r->efer & EFER_NXE))
		rsvd |= PTE_NX;
	if (level == 4)
		rsvd |= PTE_PS;
	if (leaf && level == 3)
		rsvd |= (BIT(30) - 1) & ~(BIT(13) - 1);
	if (leaf && level == 2)
		rsvd |= (BIT(21) - 1) & ~(BIT(13) - 1);
	return rsvd;
}

/* Reads the entry at gpa into e. Outside memory every bit reads as one. */
static void walk_load(struct mem *m, struct walk_entry *e, gpa_t gpa, enum walk_mode mode)
{
	uint8_t *f = mem_frame(m, gpa >> PAGE_SHIFT, false);

	e->gpa = gpa;
	e->hva = NULL;
	if (!f) {
		e->val = mode == WALK_32 ? UINT32_MAX : UINT64_MAX;
		return;
	}
	f += gpa & PAGE_MASK;
	if (mode == WALK_32)
		e->val = __atomic_load_n((uint32_t *)(void *)f, __ATOMIC_RELAXED);
	else
		e->val = __atomic_load_n((uint64_t *)(void *)f, __ATOMIC_RELAXED);
	if (mem_state(m, gpa >> PAGE_SHIFT) == P2M_OWNED)
		e->hva = f;
}

/* Sets bits in an entry; false if the entry changed since it was read. Entries in ROM stay as they are. */
static bool walk_mark(struct mmu *mmu, struct walk_entry *e, uint64_t bits, enum walk_mode mode)
{
	struct mem *m = mmu->mem;
	unsigned size = mode == WALK_32 ? 4 : 8;

	if ((e->val & bits) == bits || !e->hva)
		return true;
	/* Page tables and translated code may share a frame; the engine hears of this store like of any other. */
	if (unlikely(mem_code_marked(m, e->gpa >> PAGE_SHIFT)))
		mem_code_write(mmu, e->gpa >> PAGE_SHIFT, e->gpa & PAGE_MASK, size);
	if (!(p2m_entry(m, e->gpa >> PAGE_SHIFT) & P2M_F_DIRTY))
		p2m_set_flags(m, e->gpa >> PAGE_SHIFT, P2M_F_DIRTY);
	if (mode == WALK_32) {
		uint32_t old = (uint32_t)e->val;

		if (!__atomic_compare_exchange_n((uint32_t *)e->hva, &old, old | (uint32_t)bits, false, __ATOMIC_SEQ_CST,
						 __ATOMIC_SEQ_CST))
			return false;
	} else {
		uint64_t old = e->val;

		if (!__atomic_compare_exchange_n((uint64_t *)e->hva, &old, old | bits, false, __ATOMIC_SEQ_CST,
						 __ATOMIC_SEQ_CST))
			return false;
	}
	e->val |= bits;
	if (unlikely(mem_code_marked(m, e->gpa >> PAGE_SHIFT)))
		mem_code_wrote(m, mmu, e->gpa >> PAGE_SHIFT, e->gpa & PAGE_MASK, size);
	return true;
}

/* Descends to the leaf. 0, PF_P | PF_RSVD, or MMU_FAULT alone for not present. */
static uint32_t walk_descend(const struct mmu *mmu, gva_t gva, struct walk *w)
{
	const struct mmu_regs *r = &mmu->regs;
	unsigned bits = w->mode == WALK_32 ? 10 : 9, size = w->mode == WALK_32 ? 4 : 8;
	unsigned level = w->mode == WALK_LONG ? 4 : 2;
	gpa_t table = r->cr3 & (w->mode == WALK_LONG ? PTE_ADDR : 0xfffff000ull);

	w->n = 0;
	w->rights_and = PTE_W | PTE_U;
	w->rights_or = 0;
	if (w->mode == WALK_PAE) {
		/* The four top entries are registers, without rights of their own. */
		uint64_t pdpte = r->pdpte[(gva >> 30) & 3];

		if (!(pdpte & PTE_P))
			return MMU_FAULT;
		table = pdpte & PTE_ADDR;
	}
	for (;; level--) {
		struct walk_entry *e = &w->e[w->n++];
		bool leaf;

		w->shift = PAGE_SHIFT + (level - 1) * bits;
		walk_load(mmu->mem, e, table + ((gva >> w->shift) & (BIT(bits) - 1)) * size, w->mode);
		if (!(e->val & PTE_P))
			return MMU_FAULT;
		leaf = level == 1 || (level <= 3 && (e->val & PTE_PS) && (w->mode != WALK_32 || (r->cr4 & CR4_PSE)));
		if (e->val & walk_reserved(r, w->mode, level, leaf))
			return MMU_FAULT | PF_P | PF_RSVD;
		w->rights_and &= e->val;
		w->rights_or |= e->val & PTE_NX;
		if (leaf)
			return 0;
		table = e->val & (w->mode == WALK_32 ? 0xfffff000ull : PTE_ADDR);
	}
}

/* SDM 4.6.1: may the access be made, given the rights of all levels together? */
static bool walk_allowed(const struct mmu_regs *r, const struct mmu_walk *o, enum mmu_access acc, bool user)
{
	if (user && !o->user)
		return false;
	if (acc == MMU_WRITE && !o->writable && (user || (r->cr0 & CR0_WP)))
		return false;
	if (acc == MMU_FETCH && o->nx)
		return false;
	if (acc == MMU_FETCH && !user && o->user && (r->cr4 & CR4_SMEP))
		return false;
	return true;
}

static gpa_t walk_leaf_gpa(const struct walk *w, uint64_t pte, gva_t gva)
{
	uint64_t mask = BIT(w->shift) - 1;
	uint64_t base = pte & PTE_ADDR;

	if (w->mode == WALK_32) {
		base = pte & 0xfffff000ull;
		if (w->shift == 22)   /* PSE-36: bits 13-20 are address bits 32-39 */
			base = (pte & 0xffc00000ull) | ((pte >> 13) & 0xff) << 32;
	}
	return (base & ~mask) | (gva & mask);
}

static uint32_t walk_error(const struct mmu_regs *r, uint32_t cause, enum mmu_access acc, bool user)
{
	uint32_t err = MMU_FAULT | cause;

	if (acc == MMU_WRITE)
		err |= PF_W;
	if (user)
		err |= PF_U;
	if (acc == MMU_FETCH && (((r->cr4 & CR4_PAE) && (r->efer & EFER_NXE)) || (r->cr4 & CR4_SMEP)))
		err |= PF_I;
	return err;
}

static enum walk_mode walk_mode(const struct mmu_regs *r)
{
	return (r->efer & EFER_LMA) ? WALK_LONG : (r->cr4 & CR4_PAE) ? WALK_PAE : WALK_32;
}

static struct mmu_walk walk_identity(gva_t gva)
{
	return (struct mmu_walk){ .gpa = gva & UINT32_MAX, .page_shift = 32, .writable = true, .user = true, .dirty = true };
}

/* What a finished descent says. */
static void walk_result(const struct mmu_regs *r, const struct walk *w, gva_t gva, struct mmu_walk *out)
{
	const struct walk_entry *leaf = &w->e[w->n - 1];

	out->page_shift = (uint8_t)w->shift;
	out->writable = w->rights_and & PTE_W;
	out->user = w->rights_and & PTE_U;
	out->nx = w->rights_or & PTE_NX;
	out->global = (leaf->val & PTE_G) && (r->cr4 & CR4_PGE);
	out->dirty = leaf->val & PTE_D;
	out->gpa = walk_leaf_gpa(w, leaf->val, gva);
}

static uint32_t walk(struct mmu *mmu, gva_t gva, enum mmu_access acc, bool user, struct mmu_walk *out)
{
	const struct mmu_regs *r = &mmu->regs;
	struct walk w;

	mmu->stats.walks++;
	if (!(r->cr0 & CR0_PG)) {
		*out = walk_identity(gva);
		return 0;
	}
	w.mode = walk_mode(r);
	if (w.mode != WALK_LONG)
		gva &= UINT32_MAX;
	for (unsigned try = 0; try < WALK_RETRIES; try++) {
		uint32_t cause = walk_descend(mmu, gva, &w);
		bool same = true;

		if (cause)
			return walk_error(r, cause, acc, user);
		walk_result(r, &w, gva, out); /* only now: a PAE walk can end before it has read an entry */
		if (!walk_allowed(r, out, acc, user))
			return walk_error(r, PF_P, acc, user);
		for (unsigned i = 0; i < w.n && same; i++) {
			bool dirty = i == w.n - 1 && acc == MMU_WRITE;

			same = walk_mark(mmu, &w.e[i], PTE_A | (dirty ? PTE_D : 0), w.mode);
		}
		out->dirty = w.e[w.n - 1].val & PTE_D;
		if (same)
			break;
	}
	return 0;
}

uint32_t mmu_walk(struct mmu *mmu, gva_t gva, enum mmu_access acc, bool user, struct mmu_walk *out)
{
	unsigned was = prof_begin(mmu->prof, PROF_WALK);
	uint32_t fault = walk(mmu, gva, acc, user, out);

	prof_end(mmu->prof, was);
	return fault;
}

bool mmu_probe(const struct mmu *mmu, gva_t gva, struct mmu_walk *out)
{
	const struct mmu_regs *r = &mmu->regs;
	struct walk w;

	if (!(r->cr0 & CR0_PG)) {
		*out = walk_identity(gva);
		return true;
	}
	w.mode = walk_mode(r);
	if (w.mode != WALK_LONG)
		gva &= UINT32_MAX;
	else if (!x86_canonical(gva))
		return false;
	if (walk_descend(mmu, gva, &w))
		return false;
	walk_result(r, &w, gva, out);
	return true;
}
