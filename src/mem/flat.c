/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Filling the flat shadow tables, and the reverse map from guest frames to the write entries that reach them.
 *
 * Invariant: a nonzero entry is host address - guest address of a frame that p2m owns. Every live write entry, and every one about to be
 * filled, is found by
 * mmu_drop_writes(): it is in the frame's two reverse-map slots, or the frame is marked overflowed and all write tables are
 * searched. Owner: the vCPU's thread. Rules of filling: mmu.h. Spec: SDM vol. 3A 4.10.2 (what a TLB may hold).
 */
#include "mem/private.h"

#define FLAT_AROUND 64u               /* entries filled at once under a large page */
static_assert(FLAT_AROUND <= 64, "flat_announce() returns a bit for each");

/* Reverse-map slot: bits 0-35 vpn, 36-43 contexts, 62 used; bit 63 of slot 0: more than two pages reached the frame. */
#define RMAP_VPN (BIT(36) - 1)
#define RMAP_CTX_SHIFT 36
#define RMAP_USED BIT(62)
#define RMAP_OVERFLOW BIT(63)
static_assert(MMU_CONTEXTS <= 8, "the reverse map has eight context bits");

static gva_t vpn_gva(uint64_t vpn)
{
	return (gva_t)((int64_t)(vpn << 28) >> 16);
}

/* --- reverse map ------------------------------------------------------------------------------------------------ */

/* Contexts of the slot whose write entry still reaches the page at hva. Reads tables only where they were written. */
static uint64_t rmap_live(const struct mmu *mmu, uint64_t slot, const uint8_t *hva)
{
	uint64_t vpn = slot & RMAP_VPN, want = (uint64_t)(uintptr_t)hva - vpn_gva(vpn), live = 0;

	for (unsigned i = 0; i < mmu->nctx; i++) {
		const struct mmu_context *c = &mmu->ctx[i];

		if ((slot & BIT(RMAP_CTX_SHIFT + i)) && (c->region[vpn / REGION_PAGES] & MMU_RG_W) && c->w[vpn] == want)
			live |= BIT(RMAP_CTX_SHIFT + i);
	}
	return live;
}

/* Remembers that context number ctx gets a write entry for vpn reaching gfn. Slots of dropped entries are reused. */
static void rmap_add(struct mmu *mmu, gfn_t gfn, const uint8_t *hva, uint64_t vpn, unsigned ctx)
{
	uint64_t *slot = mmu->rmap[gfn];
	uint64_t mine = RMAP_USED | vpn, bit = BIT(RMAP_CTX_SHIFT + ctx);

	for (unsigned i = 0; i < 2; i++) {
		if ((slot[i] & (RMAP_USED | RMAP_VPN)) == mine) {
			__atomic_store_n(&slot[i], slot[i] | bit, __ATOMIC_RELAXED);
			return;
		}
	}
	if (slot[0] & RMAP_OVERFLOW)
		return;
	for (unsigned i = 0; i < 2; i++) {
		if (!(slot[i] & RMAP_USED) || !rmap_live(mmu, slot[i], hva)) {
			__atomic_store_n(&slot[i], mine | bit, __ATOMIC_RELAXED);
			return;
		}
	}
	__atomic_store_n(&slot[0], slot[0] | RMAP_OVERFLOW, __ATOMIC_RELAXED);
}

/* The fallback: searches every write table for entries reaching the page at hva. */
static void drop_writes_everywhere(struct mmu *mmu, const uint8_t *hva)
{
	for (unsigned i = 0; i < mmu->nctx; i++) {
		struct mmu_context *c = &mmu->ctx[i];

		for (uint32_t t = 0; t < c->ntouched; t++) {
			uint64_t vpn = (uint64_t)c->touched[t] * REGION_PAGES;
			uint64_t want = (uint64_t)(uintptr_t)hva - vpn_gva(vpn);

			if (!(c->region[c->touched[t]] & MMU_RG_W))
				continue;
			for (unsigned k = 0; k < REGION_PAGES; k++, want -= PAGE_SIZE)
				if (c->w[vpn + k] == want)
					c->w[vpn + k] = 0;
		}
	}
}

void mmu_drop_writes(struct mmu *mmu, gfn_t gfn)
{
	uint64_t e = p2m_entry(mmu->mem, gfn);
	uint8_t *hva = mem_hva(mmu->mem, e);
	uint64_t *slot;

	if (gfn >= mmu->max_gfn || (p2m_entry_state(e) != P2M_OWNED && p2m_entry_state(e) != P2M_ROM))
		return;
	mmu->gen++;
	slot = mmu->rmap[gfn];
	if (slot[0] & RMAP_OVERFLOW) {
		drop_writes_everywhere(mmu, hva);
	} else {
		for (unsigned s = 0; s < 2; s++) {
			uint64_t live = (slot[s] & RMAP_USED) ? rmap_live(mmu, slot[s], hva) : 0;

			for (unsigned i = 0; i < mmu->nctx; i++)
				if (live & BIT(RMAP_CTX_SHIFT + i))
					mmu->ctx[i].w[slot[s] & RMAP_VPN] = 0;
		}
	}
	/* Other threads look whether there is anything to drop (code.c): only now there is not. */
	__atomic_store_n(&slot[0], 0, __ATOMIC_RELEASE);
	__atomic_store_n(&slot[1], 0, __ATOMIC_RELEASE);
}

/* --- filling ---------------------------------------------------------------------------------------------------- */

/* What the rights of a walk allow to be cached, for the half the address lies in. */
struct flat_rights {
	bool read, write;
	bool super;       /* lower half: entries that user mode must not see */
};

static struct flat_rights flat_rights(const struct mmu *mmu, gva_t gva, const struct mmu_walk *w, bool user, bool cpl3)
{
	bool upper = gva & BIT(47);
	bool wp = mmu->regs.cr0 & CR0_WP;
	struct flat_rights fr = { .read = true, .write = w->dirty && (w->writable || (!wp && !user)) };

	if (upper) {
		/* User accesses up there are rare (vsyscall page) and never look into the tables. */
		if (user)
			fr.read = fr.write = false;
		return fr;
	}
	if (!w->user) {
		fr.super = true;
	} else if (fr.write && !w->writable) {
		/* Only CR0.WP = 0 allows the write: the read entry is common property, the write entry is not. */
		fr.write = !cpl3;
		fr.super = fr.write;
	}
	if (fr.super && cpl3)
		fr.read = fr.write = fr.super = false;
	return fr;
}

/* Does a debugger watch a byte of the page? */
static bool flat_watched(const struct mmu *mmu, gva_t page)
{
	const struct mmu_watches *l = mmu->watches;

	for (unsigned i = 0; l && i < l->n; i++)
		if (page >= (l->w[i].addr & ~PAGE_MASK) && page <= l->w[i].addr + l->w[i].len - 1)
			return true;
	return false;
}

static bool flat_writable(uint64_t e)
{
	return p2m_entry_state(e) == P2M_OWNED && !(e & (P2M_CODE_ANY | P2M_F_LOGGED));
}

/* Write entries for these pages are announced in the reverse map, with a full barrier before the marks are looked at again: whoever marks
 * a frame sets the mark and then looks into the map (code.c). Returns which pages were; only they may get an entry, though others may
 * have lost their mark meanwhile. */
static uint64_t flat_announce(struct mmu *mmu, gva_t page, gfn_t gfn, unsigned n)
{
	uint64_t announced = 0;

	for (unsigned i = 0; i < n; i++) {
		uint64_t e = p2m_entry(mmu->mem, gfn + i);

		if (!flat_writable(e))
			continue;
		rmap_add(mmu, gfn + i, mem_hva(mmu->mem, e), mmu_vpn(page + i * PAGE_SIZE), (unsigned)(mmu->cur - mmu->ctx));
		announced |= BIT(i);
	}
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	return announced;
}

static void flat_fill_one(struct mmu *mmu, gva_t page, gfn_t gfn, bool write)
{
	struct mmu_context *c = mmu->cur;
	uint64_t e = p2m_entry(mmu->mem, gfn), vpn = mmu_vpn(page);
	uint8_t *hva = mem_hva(mmu->mem, e);
	uint64_t entry = (uint64_t)(uintptr_t)hva - page;

	if (p2m_entry_state(e) != P2M_OWNED && p2m_entry_state(e) != P2M_ROM)
		return;
	if (unlikely(mmu->watches) && flat_watched(mmu, page))
		return;
	mem_pool_touch(&mmu->mem->pool, e & P2M_MFN_MASK);
	c->r[vpn] = entry;
	mmu->stats.fills++;
	if (!write || !flat_writable(e))
		return;
	if (!(e & P2M_F_DIRTY))
		p2m_set_flags(mmu->mem, gfn, P2M_F_DIRTY);
	c->w[vpn] = entry;
}

/* Does the page lack an entry it could have? If not, its neighbours have been filled as well: what led here is a store to
 * translated code, or an access that does not use the tables. */
static bool flat_lacks(const struct mmu *mmu, gva_t page, gfn_t gfn, bool write)
{
	const struct mmu_context *c = mmu->cur;
	uint64_t vpn = mmu_vpn(page);
	uint16_t have = c->region[vpn / REGION_PAGES];

	if (!(have & MMU_RG_R) || !c->r[vpn])
		return true;
	return write && !mem_code_marked(mmu->mem, gfn) && (!(have & MMU_RG_W) || !c->w[vpn]);
}

/* Fills the page of gva, and its neighbours when one guest entry maps them all: large pages are what kernels map their
 * memory with, and each fragment would otherwise cost a walk. */
static void flat_fill(struct mmu *mmu, gva_t gva, const struct mmu_walk *w, struct flat_rights fr)
{
	struct mmu_context *c = mmu->cur;
	gva_t page = vpn_gva(mmu_vpn(gva));    /* canonical, whatever was asked for */
	gfn_t gfn = w->gpa >> PAGE_SHIFT;
	uint64_t announced = 0;
	unsigned n = 1;
	uint16_t flags = MMU_RG_R | (fr.write ? MMU_RG_W : 0) | (w->global ? MMU_RG_GLOBAL : MMU_RG_LOCAL);

	if (w->page_shift < 32 && w->page_shift > PAGE_SHIFT)
		flags |= MMU_RG_LARGE;
	if (w->page_shift > PAGE_SHIFT && flat_lacks(mmu, page, gfn, fr.write)) {
		n = FLAT_AROUND;
		page &= ~(FLAT_AROUND * PAGE_SIZE - 1);
		gfn &= ~(uint64_t)(FLAT_AROUND - 1);
	}
	mmu_context_touch(mmu, c, mmu_vpn(page), n, flags);
	if (w->page_shift == 30)
		c->huge[mmu_vpn(page) / REGION_PAGES / GIB_REGIONS] = 1;
	if (fr.super)
		c->lower_super = true;
	if (fr.write)
		announced = flat_announce(mmu, page, gfn, n);
	for (unsigned i = 0; i < n; i++)
		flat_fill_one(mmu, page + i * PAGE_SIZE, gfn + i, announced & BIT(i));
}

uint32_t mmu_resolve(struct mmu *mmu, gva_t gva, bool write, bool user, bool cpl3, struct mmu_target *out)
{
	struct mmu_walk w;
	uint32_t fault = mmu_walk(mmu, gva, write ? MMU_WRITE : MMU_READ, user, &w);

	if (fault)
		return fault;
	gfn_t gfn = w.gpa >> PAGE_SHIFT;
	uint8_t *frame = mem_frame(mmu->mem, gfn, write);
	out->gpa = w.gpa;
	out->hva = NULL;
	out->code = false;
	/* Also when ROM is written: its read entry is as good as any. */
	if (!frame && mem_state(mmu->mem, gfn) != P2M_ROM)
		return 0;
	struct flat_rights fr = flat_rights(mmu, gva, &w, user, cpl3);
	/* Each access to a watched page comes here; its neighbours need not be filled each time. */
	if (fr.read && !flat_watched(mmu, gva & ~PAGE_MASK))
		flat_fill(mmu, gva, &w, fr);
	if (!frame)
		return 0;
	out->hva = frame + (w.gpa & PAGE_MASK);
	if (write) {
		out->code = mem_code_marked(mmu->mem, gfn);
		if (!(p2m_entry(mmu->mem, gfn) & P2M_F_DIRTY))
			p2m_set_flags(mmu->mem, gfn, P2M_F_DIRTY);
	}
	return 0;
}

void mmu_set_exec(struct mmu *mmu, gva_t gva, bool user, uint32_t value)
{
	struct mmu_context *c = mmu->cur;
	struct mmu_walk w;
	uint16_t flags = user ? MMU_RG_XU : MMU_RG_XS;

	/* The walk is for what decides when the entry must go: page size and G; a page that cannot be fetched gets none. */
	if (mmu_walk(mmu, gva, MMU_FETCH, user, &w))
		return;
	flags |= w.global ? MMU_RG_GLOBAL : MMU_RG_LOCAL;
	if (w.page_shift > PAGE_SHIFT && w.page_shift < 32)
		flags |= MMU_RG_LARGE;
	mmu_context_touch(mmu, c, mmu_vpn(gva), 1, flags);
	if (w.page_shift == 30)
		c->huge[mmu_vpn(gva) / REGION_PAGES / GIB_REGIONS] = 1;
	(user ? c->x_user : c->x_super)[mmu_vpn(gva)] = value;
}
