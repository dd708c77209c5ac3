/* SPDX-License-Identifier: Apache-2.0 */
/* mem/flat.c, context.c, tlb.c: what is filled, what is never filled, and that every removal removes what it must. */
#include <sys/mman.h>

#include "fixture.h"

#define LOW 0x7f1234567000ull
#define HIGH 0xffff888000000000ull
#define RW (PTE_P | PTE_W)
#define RWU (PTE_P | PTE_W | PTE_U)

static uint64_t r_at(struct fx *f, gva_t gva)
{
	return f->mmu.cur->r[mmu_vpn(gva)];
}

static uint64_t w_at(struct fx *f, gva_t gva)
{
	return f->mmu.cur->w[mmu_vpn(gva)];
}

/* Resolves as the given access and checks that what was filled points where it must. */
static struct mmu_target touch(struct fx *f, gva_t gva, bool write, bool user, bool cpl3)
{
	struct mmu_target t;

	assert_int_equal(mmu_resolve(&f->mmu, gva, write, user, cpl3, &t), 0);
	if (t.hva && r_at(f, gva))
		assert_int_equal(r_at(f, gva) + gva, (uintptr_t)t.hva);
	if (t.hva && w_at(f, gva))
		assert_int_equal(w_at(f, gva) + gva, (uintptr_t)t.hva);
	return t;
}

static void load_cr3(struct fx *f, uint64_t cr3, bool noflush)
{
	struct mmu_regs r = f->mmu.regs;

	r.cr3 = cr3;
	mmu_set_regs(&f->mmu, &r, noflush);
}

static void fill_rules(void **state)
{
	struct fx *f = *state;
	gpa_t e;

	fx_long(f, 0);
	/* A read of a clean page fills r only; a write fills both; a read of a dirty page too. */
	e = fx_map(f, LOW, FX_DATA, 1, RWU);
	touch(f, LOW + 5, false, true, true);
	assert_true(r_at(f, LOW) && !w_at(f, LOW));
	assert_false(fx_get(f, e, 8) & PTE_D);
	touch(f, LOW + 5, true, true, true);
	assert_true(r_at(f, LOW) && w_at(f, LOW));
	assert_true(fx_get(f, e, 8) & PTE_D);
	mmu_invlpg(&f->mmu, LOW);
	assert_true(!r_at(f, LOW) && !w_at(f, LOW));
	touch(f, LOW, false, true, true);
	assert_true(r_at(f, LOW) && w_at(f, LOW));
	/* Neighbours of a 4K page are not filled. */
	assert_int_equal(r_at(f, LOW + PAGE_SIZE), 0);
	/* A read-only page never gets a write entry from a user, nor from a supervisor under WP. */
	fx_map(f, LOW + PAGE_SIZE, FX_DATA, 1, PTE_P | PTE_U | PTE_D);
	touch(f, LOW + PAGE_SIZE, false, true, true);
	assert_true(r_at(f, LOW + PAGE_SIZE) && !w_at(f, LOW + PAGE_SIZE));
	struct mmu_target t;
	assert_int_equal(mmu_resolve(&f->mmu, LOW + PAGE_SIZE, true, false, false, &t), MMU_FAULT | PF_P | PF_W);
	/* Devices and holes: no entry, the address is reported. */
	fx_map(f, LOW + 2 * PAGE_SIZE, 0xfee00000, 1, RWU | PTE_D);
	t = touch(f, LOW + 2 * PAGE_SIZE + 0x20, true, true, true);
	assert_null(t.hva);
	assert_int_equal(t.gpa, 0xfee00020);
	assert_true(!r_at(f, LOW + 2 * PAGE_SIZE) && !w_at(f, LOW + 2 * PAGE_SIZE));
	/* ROM: readable, writes are reported without a pointer. */
	assert_int_equal(mem_set_rom(f->m, FX_DATA + PAGE_SIZE, PAGE_SIZE), 0);
	fx_map(f, LOW + 3 * PAGE_SIZE, FX_DATA + PAGE_SIZE, 1, RWU | PTE_D);
	t = touch(f, LOW + 3 * PAGE_SIZE, true, true, true);
	assert_null(t.hva);
	assert_true(r_at(f, LOW + 3 * PAGE_SIZE) && !w_at(f, LOW + 3 * PAGE_SIZE));
}

static void halves(void **state)
{
	struct fx *f = *state;
	struct mmu_regs r;

	fx_long(f, 0);
	fx_map(f, HIGH, FX_DATA, 1, RW);
	fx_map(f, HIGH + PAGE_SIZE, FX_DATA, 1, RWU);
	fx_map(f, LOW, FX_DATA, 1, RW);
	fx_map(f, LOW + PAGE_SIZE, FX_DATA, 1, PTE_P | PTE_U);
	touch(f, HIGH, true, false, false);
	assert_true(r_at(f, HIGH) && w_at(f, HIGH));
	assert_false(f->mmu.cur->lower_super);
	/* A user access to the upper half works but leaves nothing. */
	assert_non_null(touch(f, HIGH + PAGE_SIZE, true, true, true).hva);
	assert_true(!r_at(f, HIGH + PAGE_SIZE) && !w_at(f, HIGH + PAGE_SIZE));
	/* An implicit supervisor access at CPL 3 leaves nothing in the lower half. */
	touch(f, LOW, true, false, true);
	assert_true(!r_at(f, LOW) && !w_at(f, LOW) && !f->mmu.cur->lower_super);
	/* At CPL 0 it may, until user mode is entered. */
	touch(f, LOW, true, false, false);
	assert_true(r_at(f, LOW) && w_at(f, LOW) && f->mmu.cur->lower_super);
	uint32_t gen = f->mmu.gen;
	mmu_enter_user(&f->mmu);
	assert_true(!r_at(f, LOW) && !w_at(f, LOW) && !f->mmu.cur->lower_super);
	assert_true(r_at(f, HIGH) && w_at(f, HIGH));
	assert_int_not_equal(gen, f->mmu.gen);
	/* WP = 0 lets a supervisor write a read-only user page: the write entry is supervisor's only. */
	r = f->mmu.regs;
	r.cr0 &= ~CR0_WP;
	mmu_set_regs(&f->mmu, &r, false);
	assert_int_equal(r_at(f, HIGH), 0);
	touch(f, LOW + PAGE_SIZE, true, false, false);
	assert_true(w_at(f, LOW + PAGE_SIZE) && f->mmu.cur->lower_super);
	mmu_enter_user(&f->mmu);
	assert_int_equal(w_at(f, LOW + PAGE_SIZE), 0);
	touch(f, LOW + PAGE_SIZE, true, false, true);
	assert_true(r_at(f, LOW + PAGE_SIZE) && !w_at(f, LOW + PAGE_SIZE) && !f->mmu.cur->lower_super);
	/* A CR0.WP change removes what WP = 0 allowed. */
	touch(f, LOW + PAGE_SIZE, true, false, false);
	assert_int_not_equal(w_at(f, LOW + PAGE_SIZE), 0);
	r.cr0 |= CR0_WP;
	mmu_set_regs(&f->mmu, &r, false);
	assert_int_equal(w_at(f, LOW + PAGE_SIZE), 0);
}

static void fault_around(void **state)
{
	struct fx *f = *state;

	fx_long(f, 0);
	fx_map(f, HIGH, 0x800000, 2, RW | PTE_G);
	mem_code_mark(&f->mmu, 0x810);
	mem_code_mark(&f->mmu, 0x900);
	touch(f, HIGH + 0x5123, true, false, false);
	for (unsigned i = 0; i < 64; i++) {
		gva_t a = HIGH + i * PAGE_SIZE;

		assert_int_equal(r_at(f, a) + a, (uintptr_t)mem_frame(f->m, 0x800 + i, false));
		assert_int_equal(w_at(f, a), i == 0x10 ? 0 : r_at(f, a));
	}
	assert_int_equal(r_at(f, HIGH + 64 * PAGE_SIZE), 0);
	/* Writing the marked page: pointer and `code`, and the neighbours are not filled once more. */
	uint64_t fills = f->mmu.stats.fills;
	struct mmu_target t = touch(f, HIGH + 0x10010, true, false, false);
	assert_in_range(f->mmu.stats.fills, fills, fills + 1);
	assert_true(t.code && t.hva);
	assert_int_equal(w_at(f, HIGH + 0x10010), 0);
	/* INVLPG anywhere in the large page empties all of it. */
	mmu_invlpg(&f->mmu, HIGH + 0x1ff000);
	for (unsigned i = 0; i < 512; i++)
		assert_true(!r_at(f, HIGH + i * PAGE_SIZE) && !w_at(f, HIGH + i * PAGE_SIZE));
	/* The same with a 1G page, whose fragments lie in other regions than the address given; half of it is no memory. */
	fx_map(f, HIGH + BIT(30), 0, 3, RW);
	touch(f, HIGH + BIT(30) + 0x200000, true, false, false);
	touch(f, HIGH + BIT(30) + 0x3f0000 * 4, true, false, false);
	assert_null(touch(f, HIGH + BIT(30) + FX_RAM, true, false, false).hva);
	assert_int_equal(r_at(f, HIGH + BIT(30) + FX_RAM), 0);
	assert_int_not_equal(r_at(f, HIGH + BIT(30) + 0x200000), 0);
	mmu_invlpg(&f->mmu, HIGH + BIT(30) + 0x3fe00000);
	assert_int_equal(r_at(f, HIGH + BIT(30) + 0x200000), 0);
	assert_int_equal(r_at(f, HIGH + BIT(30) + 0x3f0000 * 4), 0);
}

static void invlpg_4m(void **state)
{
	struct fx *f = *state;
	struct mmu_regs r = { .cr0 = CR0_PE | CR0_PG, .cr4 = CR4_PSE };

	r.cr3 = fx_table(f);
	fx_put(f, r.cr3 + 0x300 * 4, 4, 0x00800000 | RWU | PTE_PS);
	mmu_set_regs(&f->mmu, &r, false);
	touch(f, 0xc0000000, true, false, false);
	touch(f, 0xc0200000, true, false, false);
	mmu_invlpg(&f->mmu, 0xc0200000);
	assert_true(!r_at(f, 0xc0000000) && !r_at(f, 0xc0200000));
	/* The other region need not have been touched. */
	touch(f, 0xc0200000, true, false, false);
	mmu_invlpg(&f->mmu, 0xc0000000);
	assert_int_equal(r_at(f, 0xc0200000), 0);
}

static void cr3_without_pcid(void **state)
{
	struct fx *f = *state;

	fx_long(f, 0);
	fx_map(f, LOW, FX_DATA, 1, RWU);
	fx_map(f, HIGH, FX_DATA, 1, RW | PTE_G);
	fx_map(f, HIGH + (4 << 20), FX_DATA, 1, RW);
	touch(f, LOW, true, true, true);
	touch(f, HIGH, true, false, false);
	touch(f, HIGH + (4 << 20), true, false, false);
	mmu_set_exec(&f->mmu, LOW, true, 7);
	mmu_set_exec(&f->mmu, HIGH, false, 8);
	assert_int_equal(f->mmu.cur->x_user[mmu_vpn(LOW)], 7);
	assert_int_equal(f->mmu.cur->x_super[mmu_vpn(HIGH)], 8);
	load_cr3(f, f->mmu.regs.cr3, false);
	assert_true(!r_at(f, LOW) && !w_at(f, LOW) && !f->mmu.cur->x_user[mmu_vpn(LOW)]);
	assert_true(r_at(f, HIGH) && w_at(f, HIGH));
	assert_int_equal(f->mmu.cur->x_super[mmu_vpn(HIGH)], 8);
	assert_int_equal(r_at(f, HIGH + (4 << 20)), 0);
	/* Changing a control bit that paging does not depend on is no CR3 write. */
	touch(f, LOW, true, true, true);
	struct mmu_regs r = f->mmu.regs;
	r.cr0 |= CR0_TS;
	mmu_set_regs(&f->mmu, &r, false);
	assert_int_not_equal(r_at(f, LOW), 0);
	/* CR4.PGE off and on: everything goes. */
	r.cr4 &= ~CR4_PGE;
	mmu_set_regs(&f->mmu, &r, false);
	assert_true(!r_at(f, LOW) && !r_at(f, HIGH) && !f->mmu.cur->x_super[mmu_vpn(HIGH)]);
	/* Without PGE the G bit means nothing. */
	touch(f, HIGH, true, false, false);
	load_cr3(f, f->mmu.regs.cr3, false);
	assert_int_equal(r_at(f, HIGH), 0);
}

static void pcids(void **state)
{
	struct fx *f = *state;

	fx_long(f, CR4_PCIDE);
	uint64_t base = f->mmu.regs.cr3;
	fx_map(f, LOW, FX_DATA, 1, RWU);
	fx_map(f, HIGH, FX_DATA, 1, RW | PTE_G);
	for (unsigned p = 1; p <= 5; p++) {
		load_cr3(f, base | p, false);
		assert_int_equal(r_at(f, LOW), 0);
		touch(f, LOW, true, true, true);
		touch(f, HIGH, true, false, false);
	}
	load_cr3(f, base | 2, true);
	assert_int_not_equal(r_at(f, LOW), 0);
	load_cr3(f, base | 3, false);
	assert_int_equal(r_at(f, LOW), 0);
	assert_int_not_equal(r_at(f, HIGH), 0);
	/* INVLPG: the page in this PCID, and its global translations in all. */
	touch(f, LOW, true, true, true);
	mmu_invlpg(&f->mmu, HIGH);
	mmu_invlpg(&f->mmu, LOW);
	assert_int_equal(r_at(f, LOW), 0);
	load_cr3(f, base | 1, true);
	assert_int_equal(r_at(f, HIGH), 0);
	assert_int_not_equal(r_at(f, LOW), 0);
	/* INVPCID 0, 1. */
	mmu_invlpg_pcid(&f->mmu, 2, LOW);
	mmu_invlpg_pcid(&f->mmu, 77, LOW);
	mmu_flush_pcid(&f->mmu, 4);
	load_cr3(f, base | 2, true);
	assert_int_equal(r_at(f, LOW), 0);
	load_cr3(f, base | 4, true);
	assert_int_equal(r_at(f, LOW), 0);
	load_cr3(f, base | 5, true);
	assert_int_not_equal(r_at(f, LOW), 0);
	/* Type 3: all but globals; type 2: everything, everywhere. */
	touch(f, HIGH, true, false, false);
	mmu_flush_nonglobal(&f->mmu);
	assert_int_equal(r_at(f, LOW), 0);
	assert_int_not_equal(r_at(f, HIGH), 0);
	load_cr3(f, base | 1, true);
	assert_int_equal(r_at(f, LOW), 0);
	touch(f, LOW, true, true, true);
	load_cr3(f, base | 5, true);
	mmu_flush_all(&f->mmu);
	assert_int_equal(r_at(f, HIGH), 0);
	load_cr3(f, base | 1, true);
	assert_int_equal(r_at(f, LOW), 0);
}

/* More PCIDs than contexts: the least recently used loses its entries, never gets somebody else's. */
static void recycling(void **state)
{
	struct fx *f = *state;

	fx_long(f, CR4_PCIDE);
	uint64_t base = f->mmu.regs.cr3;
	fx_map(f, LOW, FX_DATA, 1, RWU);
	for (unsigned p = 1; p <= MMU_CONTEXTS; p++) {
		load_cr3(f, base | p, true);
		touch(f, LOW, true, true, true);
	}
	uint64_t evictions = f->mmu.stats.evictions;
	load_cr3(f, base | 1, true);
	assert_int_not_equal(r_at(f, LOW), 0);
	load_cr3(f, base | 100, true);
	assert_int_equal(f->mmu.stats.evictions, evictions + 1);
	assert_int_equal(r_at(f, LOW), 0);
	load_cr3(f, base | 1, true);
	assert_int_not_equal(r_at(f, LOW), 0);
	load_cr3(f, base | 2, true);
	assert_int_equal(r_at(f, LOW), 0);
}

/* Marking code removes the write entries of every context and mapping, within the two slots and beyond. */
static void code_drops_writes(void **state)
{
	struct fx *f = *state;
	static const gva_t alias[] = { LOW, LOW + (1 << 30), HIGH, HIGH + (1ull << 38), HIGH + PAGE_SIZE };

	fx_long(f, CR4_PCIDE);
	uint64_t base = f->mmu.regs.cr3;
	for (unsigned i = 0; i < nitems(alias); i++)
		fx_map(f, alias[i], FX_DATA, 1, RWU);
	fx_map(f, LOW + PAGE_SIZE, FX_DATA + PAGE_SIZE, 1, RWU);
	for (unsigned n = 1; n <= nitems(alias); n++) {
		for (unsigned p = 1; p <= 3; p++) {
			load_cr3(f, base | p, true);
			touch(f, LOW + PAGE_SIZE, true, false, false);
			for (unsigned i = 0; i < n; i++) {
				touch(f, alias[i], true, false, false);
				assert_int_not_equal(w_at(f, alias[i]), 0);
			}
		}
		uint32_t gen = f->mmu.gen;
		mem_code_mark(&f->mmu, FX_DATA >> PAGE_SHIFT);
		assert_int_not_equal(gen, f->mmu.gen);
		for (unsigned p = 1; p <= 3; p++) {
			load_cr3(f, base | p, true);
			assert_int_not_equal(w_at(f, LOW + PAGE_SIZE), 0);
			for (unsigned i = 0; i < n; i++) {
				assert_int_equal(w_at(f, alias[i]), 0);
				assert_int_not_equal(r_at(f, alias[i]), 0);
				assert_true(touch(f, alias[i], true, false, false).code);
				assert_int_equal(w_at(f, alias[i]), 0);
			}
		}
		mem_code_write(&f->mmu, FX_DATA >> PAGE_SHIFT, 0, 8);
	}
	/* Slots of entries that are gone are reused: a frame mapped at many addresses in turn does not overflow. */
	for (unsigned i = 0; i < 100; i++) {
		touch(f, alias[i % nitems(alias)], true, false, false);
		mmu_invlpg(&f->mmu, alias[i % nitems(alias)]);
	}
	assert_false(f->mmu.rmap[FX_DATA >> PAGE_SHIFT][0] & BIT(63));
}

/* Random accesses, remappings with their INVLPG, CR3 writes and code marks: an entry never disagrees with the tables. */
static void random_walk(void **state)
{
	struct fx *f = *state;
	uint64_t seed = 12345;
	gva_t pages[64];

	fx_long(f, CR4_PCIDE);
	uint64_t base = f->mmu.regs.cr3;
	for (unsigned i = 0; i < nitems(pages); i++)
		pages[i] = (i & 1 ? HIGH : LOW & ~0x3fffffffull) + (i / 8) * 0x40000000ull + (i % 8) * PAGE_SIZE;
	for (unsigned step = 0; step < 20000; step++) {
		seed = seed * 6364136223846793005ull + 1442695040888963407ull;
		unsigned x = (unsigned)(seed >> 33);
		gva_t a = pages[x % nitems(pages)];
		gfn_t gfn = (FX_DATA >> PAGE_SHIFT) + (x >> 8) % 16;
		struct mmu_target t;
		struct mmu_walk w;

		switch ((x >> 16) % 8) {
		case 0: {
			/* Remapped in all address spaces at once, so removed from all. */
			fx_map(f, a, gfn << PAGE_SHIFT, 1, (x & BIT(20) ? RWU : RW) | (a & BIT(47) ? PTE_G : 0));
			for (unsigned p = 0; p < 16; p++)
				mmu_invlpg_pcid(&f->mmu, (uint16_t)p, a);
			mmu_invlpg(&f->mmu, a);
			break;
		}
		case 1:
			load_cr3(f, base | ((x >> 20) % 12), x & BIT(28));
			break;
		case 2:
			mem_code_mark(&f->mmu, gfn);
			break;
		case 3:
			mem_code_write(&f->mmu, gfn, 0, 1);
			break;
		case 4:
			mmu_enter_user(&f->mmu);
			mmu_resolve(&f->mmu, a, x & BIT(21), true, true, &t);
			break;
		default:
			mmu_resolve(&f->mmu, a, x & BIT(21), false, false, &t);
		}
		if (r_at(f, a)) {
			assert_int_equal(mmu_walk(&f->mmu, a, MMU_READ, false, &w), 0);
			assert_int_equal(r_at(f, a) + a, (uintptr_t)mem_frame(f->m, w.gpa >> PAGE_SHIFT, false));
			if (w_at(f, a)) {
				assert_int_equal(w_at(f, a), r_at(f, a));
				assert_true(w.dirty && w.writable && !mem_code_marked(f->m, w.gpa >> PAGE_SHIFT));
			}
		}
	}
}

/* Many regions: past the budget everything is returned and emptied; idle pages are returned and come back as zero. */
static void many_regions(void **state)
{
	struct fx *f = *state;

	fx_long(f, 0);
	/* 64 MiB of RAM are 32 regions of each 1 GiB page. */
	for (unsigned g = 0; g < 520; g++)
		fx_map(f, HIGH + g * BIT(30), 0, 3, RW | PTE_G);
	const unsigned budget = MMU_BORN_BASE + FX_RAM / BIT(21) * MMU_BORN_PER_EXTENT;
	for (unsigned rg = 0; rg < budget; rg++)
		touch(f, HIGH + rg % 32 * BIT(21) + rg / 32 * BIT(30), false, false, false);
	assert_int_equal(f->mmu.cur->ntouched, budget);
	assert_int_equal(f->mmu.stats.sheds, 0);
	gva_t last = HIGH + 519 * BIT(30);
	touch(f, last, true, false, false);
	assert_int_equal(f->mmu.stats.sheds, 1);
	assert_int_equal(f->mmu.born, 1);
	assert_int_equal(f->mmu.cur->ntouched, 1);
	assert_true(r_at(f, last) && w_at(f, last));
	for (unsigned g = 0; g < 519; g++)
		assert_int_equal(r_at(f, HIGH + g * BIT(30)), 0);
	mmu_flush_all(&f->mmu);
	assert_int_equal(f->mmu.cur->ntouched, 0);
	assert_int_equal(r_at(f, last), 0);
	/* Processes at ever new addresses; the kernel's entries, in a region that was idle once, outlive the trimming. */
	fx_map(f, HIGH + BIT(40), FX_DATA, 1, RW | PTE_G);
	for (unsigned i = 0; i < 2; i++) {
		mmu_flush_all(&f->mmu);
		touch(f, HIGH + BIT(40), true, false, false);
		mmu_set_exec(&f->mmu, HIGH + BIT(40), false, 99);
	}
	fx_map(f, LOW, FX_DATA, 1, RWU);
	gpa_t pt = fx_entry(f, f->mmu.regs.cr3, 4, LOW, 2);
	uint64_t pde = fx_get(f, pt, 8);
	for (unsigned i = 0; i < 2000; i++) {
		gva_t a = (LOW & ~(BIT(39) - 1)) + (i * 7 % 8 + 1) * BIT(30) + i * BIT(21) % BIT(30) + (LOW & 0x1fffff);
		gpa_t e = fx_entry(f, f->mmu.regs.cr3, 4, a, 2);

		fx_put(f, e, 8, pde);
		touch(f, a, true, true, true);
		mmu_set_exec(&f->mmu, a, true, i + 1);
		load_cr3(f, f->mmu.regs.cr3, false);
		assert_true(!r_at(f, a) && !w_at(f, a) && !f->mmu.cur->x_user[mmu_vpn(a)]);
	}
	assert_in_range(f->mmu.cur->nidle, 1, 1000);
	assert_true(r_at(f, HIGH + BIT(40)) && w_at(f, HIGH + BIT(40)));
	assert_int_equal(f->mmu.cur->x_super[mmu_vpn(HIGH + BIT(40))], 99);
}

/* Addresses that are not canonical share an index with canonical ones and must not spoil their entries. */
/* However few or many pages of a region have been touched, none is left when it is emptied, in any table. */
static void emptied_by_line(void **state)
{
	struct fx *f = *state;
	uint32_t x = 7;

	fx_long(f, 0);
	for (unsigned i = 0; i < REGION_PAGES; i++)
		fx_map(f, LOW + i * PAGE_SIZE, FX_DATA + i * PAGE_SIZE, 1, RWU | PTE_D);
	for (unsigned round = 0; round < 60; round++) {
		for (unsigned n = round; n < 60; n++) {
			gva_t gva;

			x = x * 1664525 + 1013904223;
			gva = LOW + (x >> 16) % REGION_PAGES * PAGE_SIZE;
			touch(f, gva, x & 1, true, true);
			if (x & 2)
				mmu_set_exec(&f->mmu, gva, true, x | 1);
			if (x & 4)
				mmu_set_exec(&f->mmu, gva, false, x | 1);
		}
		mmu_flush_nonglobal(&f->mmu);
		for (unsigned i = 0; i < REGION_PAGES; i++) {
			gva_t gva = LOW + i * PAGE_SIZE;
			const struct mmu_context *c = f->mmu.cur;

			assert_true(!r_at(f, gva) && !w_at(f, gva) && !c->x_user[mmu_vpn(gva)] && !c->x_super[mmu_vpn(gva)]);
		}
	}
}

static void noncanonical(void **state)
{
	struct fx *f = *state;
	struct mmu_target t;

	fx_long(f, 0);
	fx_map(f, LOW, FX_DATA, 1, RWU);
	assert_int_equal(mmu_resolve(&f->mmu, LOW | BIT(60), true, true, true, &t), 0);
	assert_int_equal(r_at(f, LOW) + LOW, (uintptr_t)t.hva);
	assert_int_equal(mmu_vpn(LOW | BIT(60)), mmu_vpn(LOW));
	/* Whatever the address, address + entry is the page itself or no address of this process's user half. */
	for (unsigned b = 48; b < 64; b++) {
		uint64_t h = (LOW ^ BIT(b)) + r_at(f, LOW);

		assert_true(h >> 47 != 0);
	}
	/* User code never uses bit 47 in its index: an upper address meets a lower entry and ends in no man's land too. */
	uint64_t up = LOW | 0xffff800000000000ull;
	assert_true((up + r_at(f, LOW)) >> 47 != 0);
}

static bool resident(const uint8_t *frame)
{
	unsigned char in = 0;

	assert_int_equal(mincore((void *)(uintptr_t)frame, PAGE_SIZE, &in), 0);
	return in & 1;
}

/* An entry comes with the host pages of its whole group, and again after the frames were given back. */
static void host_pages(void **state)
{
	struct fx *f = *state;
	gpa_t group = FX_DATA + (16 << 20);
	const uint8_t *first;
	const struct mem_span span = { .gfn = group >> PAGE_SHIFT, .frames = MEM_EXTENT_FRAMES };

	fx_long(f, 0);
	fx_map(f, LOW, group + 3 * PAGE_SIZE, 1, RWU);
	for (unsigned round = 0; round < 2; round++) {
		first = mem_frame(f->m, group >> PAGE_SHIFT, false);
		assert_false(resident(first));
		touch(f, LOW, true, true, true);
		if (!resident(first + 3 * PAGE_SIZE))
			skip(); /* a kernel without MADV_POPULATE_WRITE */
		for (unsigned i = 0; i < MEM_TOUCH_FRAMES; i++)
			assert_true(resident(first + i * PAGE_SIZE));
		assert_false(resident(first + MEM_TOUCH_FRAMES * PAGE_SIZE));
		mem_release(f->m, &span, 1, false);
		mmu_serve(&f->mmu);
	}
}

/* Neighbours that were given back stay away when what is left of their group is used. */
static void host_pages_given_back(void **state)
{
	struct fx *f = *state;
	gpa_t group = FX_DATA + (16 << 20);
	gfn_t gfn = group >> PAGE_SHIFT;
	const struct mem_span spans[] = { { gfn, 2 }, { gfn + 5, 7 }, { gfn + 63, 1 } };
	const uint8_t *first = mem_frame(f->m, gfn, false); /* not for writing: that asks the host for frames */

	fx_long(f, 0);
	fx_map(f, LOW, group + 3 * PAGE_SIZE, 1, RWU);
	mem_release(f->m, spans, 3, true);
	mmu_serve(&f->mmu);
	touch(f, LOW, true, true, true);
	if (!resident(first + 3 * PAGE_SIZE))
		skip(); /* a kernel without MADV_POPULATE_WRITE */
	for (unsigned i = 0; i < MEM_TOUCH_FRAMES; i++)
		assert_int_equal(resident(first + i * PAGE_SIZE), i >= 2 && i < 5);
	/* At either end of the group, and all of it but the first. */
	fx_map(f, LOW + PAGE_SIZE, group + (MEM_TOUCH_FRAMES + 63) * PAGE_SIZE, 1, RWU);
	mem_release(f->m, &(struct mem_span){ gfn + MEM_TOUCH_FRAMES, 1 }, 1, true);
	touch(f, LOW + PAGE_SIZE, true, true, true);
	assert_false(resident(first + MEM_TOUCH_FRAMES * PAGE_SIZE));
	assert_true(resident(first + (MEM_TOUCH_FRAMES + 63) * PAGE_SIZE));
	assert_false(resident(first + 2 * MEM_TOUCH_FRAMES * PAGE_SIZE));
}

#define T(name) cmocka_unit_test_setup_teardown(name, fx_setup, fx_teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(fill_rules), T(halves), T(fault_around), T(invlpg_4m), T(cr3_without_pcid), T(pcids), T(recycling),
		T(code_drops_writes), T(random_walk), T(many_regions), T(emptied_by_line), T(noncanonical), T(host_pages), T(host_pages_given_back),
	};

	return cmocka_run_group_tests_name("mem/flat", tests, NULL, NULL);
}
