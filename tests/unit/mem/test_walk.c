/* SPDX-License-Identifier: Apache-2.0 */
/*
 * mem/walk.c: the rights matrix in every paging mode against the manual's rules written out a second time, accessed and
 * dirty bits, reserved bits, tables in odd places.
 */
#include "fixture.h"

enum paging { P32_4K, P32_4M, PAE_4K, PAE_2M, LONG_4K, LONG_2M, LONG_1G, PAGINGS };

struct shape {
	const char *name;
	unsigned levels;        /* table levels below the top that carry rights */
	unsigned shift;
	bool wide;              /* 64-bit entries */
	bool longmode;
	bool top_pdpte;
};

static const struct shape shapes[PAGINGS] = {
	[P32_4K] = { "32-bit 4K", 2, 12, false, false, false }, [P32_4M] = { "32-bit 4M", 1, 22, false, false, false },
	[PAE_4K] = { "PAE 4K", 2, 12, true, false, true },      [PAE_2M] = { "PAE 2M", 1, 21, true, false, true },
	[LONG_4K] = { "long 4K", 4, 12, true, true, false },    [LONG_2M] = { "long 2M", 3, 21, true, true, false },
	[LONG_1G] = { "long 1G", 2, 30, true, true, false },
};

#define GVA 0x40c03123ull          /* some index at each level, fits 32 bits */

/* Builds the path to GVA; entry[0] is the top table's, entry[n-1] the leaf. Returns the number of entries. */
static unsigned build(struct fx *f, enum paging p, gpa_t entry[4], struct mmu_regs *r)
{
	const struct shape *s = &shapes[p];
	unsigned bits = s->wide ? 9 : 10, size = s->wide ? 8 : 4;
	unsigned level = s->longmode ? 4 : 2;
	gpa_t table = fx_table(f), leaf = s->shift >= 30 ? 0 : 0x800000;

	*r = (struct mmu_regs){ .cr0 = CR0_PE | CR0_PG, .cr3 = table };
	if (s->longmode)
		r->efer = EFER_LMA | EFER_LME;
	if (s->wide)
		r->cr4 |= CR4_PAE;
	else
		r->cr4 |= CR4_PSE;
	if (s->top_pdpte) {
		r->pdpte[(GVA >> 30) & 3] = table | PTE_P;
		r->cr3 = 0;
	}
	for (unsigned i = 0; i < s->levels; i++, level--) {
		unsigned shift = 12 + (level - 1) * bits;

		entry[i] = table + ((GVA >> shift) & (BIT(bits) - 1)) * size;
		if (i + 1 == s->levels) {
			fx_put(f, entry[i], size, leaf | (level > 1 ? PTE_PS : 0));
		} else {
			table = fx_table(f);
			fx_put(f, entry[i], size, table);
		}
	}
	return s->levels;
}

static void or_entry(struct fx *f, enum paging p, gpa_t e, uint64_t bits)
{
	unsigned size = shapes[p].wide ? 8 : 4;

	fx_put(f, e, size, fx_get(f, e, size) | bits);
}

static void mask_entry(struct fx *f, enum paging p, gpa_t e, uint64_t bits)
{
	unsigned size = shapes[p].wide ? 8 : 4;

	fx_put(f, e, size, fx_get(f, e, size) & ~bits);
}

/* The expected answer, from SDM 4.6.1 and 4.7, for rights where `lost` is missing (or NX set) at one level only. */
static uint32_t expected(const struct mmu_regs *r, bool p, bool w, bool u, bool nx, enum mmu_access acc, bool user)
{
	bool nxe = (r->efer & EFER_NXE) && (r->cr4 & CR4_PAE);
	bool smep = r->cr4 & CR4_SMEP;
	uint32_t code = (acc == MMU_WRITE ? PF_W : 0) | (user ? PF_U : 0) | (acc == MMU_FETCH && (nxe || smep) ? PF_I : 0);
	bool bad = false;

	if (!p)
		return MMU_FAULT | code;
	if (nx && !nxe)
		return MMU_FAULT | code | PF_P | PF_RSVD;
	if (user)
		bad = !u || (acc == MMU_WRITE && !w) || (acc == MMU_FETCH && nx);
	else
		bad = (acc == MMU_WRITE && !w && (r->cr0 & CR0_WP)) || (acc == MMU_FETCH && (nx || (u && smep)));
	return bad ? MMU_FAULT | code | PF_P : 0;
}

/* One combination: rights missing at level `at` (of n), control bits, access. */
static void check_one(struct fx *f, enum paging pg, const gpa_t *entry, unsigned n, unsigned at, unsigned combo)
{
	bool p = combo & 1, w = combo & 2, u = combo & 4, nx = (combo & 8) && shapes[pg].wide;
	bool user = combo & 16, wp = combo & 32, nxe = combo & 64, smep = combo & 128;
	struct mmu_regs *r = &f->mmu.regs;

	r->cr0 = (r->cr0 & ~CR0_WP) | (wp ? CR0_WP : 0);
	r->efer = (r->efer & ~EFER_NXE) | (nxe && shapes[pg].wide ? EFER_NXE : 0);
	r->cr4 = (r->cr4 & ~CR4_SMEP) | (smep ? CR4_SMEP : 0);
	for (unsigned acc = MMU_READ; acc <= MMU_FETCH; acc++) {
		struct mmu_walk o;
		uint32_t want, got;

		for (unsigned i = 0; i < n; i++) {
			mask_entry(f, pg, entry[i], PTE_A | PTE_D | PTE_NX);
			or_entry(f, pg, entry[i], PTE_P | PTE_W | PTE_U);
		}
		mask_entry(f, pg, entry[at], (p ? 0 : PTE_P) | (w ? 0 : PTE_W) | (u ? 0 : PTE_U));
		or_entry(f, pg, entry[at], nx ? PTE_NX : 0);
		want = expected(r, p, w, u, nx, acc, user);
		got = mmu_walk(&f->mmu, GVA, acc, user, &o);
		if (want != got)
			fail_msg("%s level %u combo %#x access %u: want %#x got %#x", shapes[pg].name, at, combo, acc, want, got);
		for (unsigned i = 0; i < n; i++) {
			uint64_t e = fx_get(f, entry[i], 4);

			assert_int_equal(!!(e & PTE_A), !want);
			assert_int_equal(!!(e & PTE_D), !want && acc == MMU_WRITE && i == n - 1);
		}
		if (want)
			continue;
		assert_int_equal(o.gpa, (shapes[pg].shift >= 30 ? 0 : 0x800000) | (GVA & (BIT(shapes[pg].shift) - 1)));
		assert_int_equal(o.page_shift, shapes[pg].shift);
		assert_int_equal(o.writable, w);
		assert_int_equal(o.user, u);
		assert_int_equal(o.nx, nx);
		assert_int_equal(o.dirty, acc == MMU_WRITE);
	}
}

static void rights(void **state)
{
	struct fx *f = *state;

	for (unsigned pg = 0; pg < PAGINGS; pg++) {
		gpa_t entry[4];
		unsigned n = build(f, pg, entry, &f->mmu.regs);

		for (unsigned at = 0; at < n; at++)
			for (unsigned combo = 0; combo < 256; combo++)
				check_one(f, pg, entry, n, at, combo);
	}
}

/* Every reserved bit of every level faults with P and RSVD; every ignored bit does not. */
static void reserved(void **state)
{
	struct fx *f = *state;

	for (unsigned pg = 0; pg < PAGINGS; pg++) {
		gpa_t entry[4];
		unsigned n = build(f, pg, entry, &f->mmu.regs);

		f->mmu.regs.efer |= shapes[pg].wide ? EFER_NXE : 0;
		for (unsigned i = 0; i < n; i++)
			or_entry(f, pg, entry[i], PTE_P | PTE_W | PTE_U);
		for (unsigned at = 0; at < n; at++) {
			bool leaf = at == n - 1;
			unsigned level = (shapes[pg].longmode ? 4 : 2) - at;
			unsigned top = shapes[pg].wide ? 62 : 31;

			for (unsigned b = 9; b <= top; b++) {
				bool rsvd = false;
				struct mmu_walk o;
				uint64_t old = fx_get(f, entry[at], 8);
				uint32_t got;

				if (b >= X86_PHYS_BITS && b < 52)
					rsvd = true;
				if (b >= 52 && !shapes[pg].longmode)
					rsvd = true;
				if (leaf && level == 2)
					rsvd |= shapes[pg].wide ? b >= 13 && b < 21 : b == 21;
				if (leaf && level == 3)
					rsvd |= b >= 13 && b < 30;
				if (!leaf && b >= 12 && b < X86_PHYS_BITS)
					continue;       /* would lead to another table */
				fx_put(f, entry[at], 8, old | BIT(b));
				got = mmu_walk(&f->mmu, GVA, MMU_READ, true, &o);
				if (got != (rsvd ? (MMU_FAULT | PF_P | PF_U | PF_RSVD) : 0))
					fail_msg("%s level %u bit %u: got %#x", shapes[pg].name, level, b, got);
				fx_put(f, entry[at], 8, old);
			}
		}
	}
	/* PS in a PML4 entry. */
	gpa_t entry[4];
	struct mmu_walk o;
	unsigned n = build(f, LONG_4K, entry, &f->mmu.regs);
	for (unsigned i = 0; i < n; i++)
		or_entry(f, LONG_4K, entry[i], PTE_P);
	or_entry(f, LONG_4K, entry[0], PTE_PS);
	assert_int_equal(mmu_walk(&f->mmu, GVA, MMU_READ, false, &o), MMU_FAULT | PF_P | PF_RSVD);
}

static void pse(void **state)
{
	struct fx *f = *state;
	gpa_t entry[4];
	struct mmu_walk o;

	build(f, P32_4M, entry, &f->mmu.regs);
	/* PSE-36: bits 13-20 of the entry are address bits 32-39. */
	fx_put(f, entry[0], 4, 0x00c00000 | 0x25 << 13 | PTE_PS | PTE_P);
	assert_int_equal(mmu_walk(&f->mmu, GVA, MMU_READ, false, &o), 0);
	assert_int_equal(o.gpa, 0x2500c00000ull | (GVA & 0x3fffff));
	/* Without CR4.PSE the bit means nothing: the entry names a table. */
	f->mmu.regs.cr4 = 0;
	gpa_t table = fx_table(f);
	fx_put(f, entry[0], 4, table | PTE_PS | PTE_P);
	fx_put(f, table + ((GVA >> 12) & 1023) * 4, 4, 0x00543000 | PTE_P);
	assert_int_equal(mmu_walk(&f->mmu, GVA, MMU_READ, false, &o), 0);
	assert_int_equal(o.gpa, 0x543123);
	/* Upper bits of a linear address do not exist outside long mode. */
	assert_int_equal(mmu_walk(&f->mmu, GVA | BIT(40), MMU_READ, false, &o), 0);
	assert_int_equal(o.gpa, 0x543123);
}

static void paging_off(void **state)
{
	struct fx *f = *state;
	struct mmu_walk o;

	f->mmu.regs = (struct mmu_regs){ .cr0 = CR0_PE };
	assert_int_equal(mmu_walk(&f->mmu, 0x123456, MMU_WRITE, true, &o), 0);
	assert_int_equal(o.gpa, 0x123456);
	assert_int_equal(o.page_shift, 32);
	assert_true(o.writable && o.user && o.dirty && !o.nx && !o.global);
}

/* Tables outside memory, at the last address, in ROM, and pointing at themselves. */
static void odd_tables(void **state)
{
	struct fx *f = *state;
	struct mmu_walk o;
	gpa_t e;

	fx_long(f, 0);
	const gpa_t bad[] = { FX_RAM, 2 * FX_RAM, BIT(39), BIT(40) - PAGE_SIZE };
	for (unsigned i = 0; i < nitems(bad); i++) {
		for (unsigned level = 2; level <= 4; level++) {
			e = fx_entry(f, f->mmu.regs.cr3, 4, GVA, level);
			uint64_t old = fx_get(f, e, 8);

			fx_put(f, e, 8, bad[i] | PTE_P | PTE_W | PTE_U);
			assert_int_equal(mmu_walk(&f->mmu, GVA, MMU_WRITE, true, &o), MMU_FAULT | PF_P | PF_W | PF_U | PF_RSVD);
			fx_put(f, e, 8, old);
		}
	}
	/* A leaf may point anywhere: what is there is the caller's business. */
	fx_map(f, GVA & ~PAGE_MASK, BIT(40) - PAGE_SIZE, 1, PTE_P | PTE_W);
	assert_int_equal(mmu_walk(&f->mmu, GVA, MMU_WRITE, false, &o), 0);
	assert_int_equal(o.gpa, (BIT(40) - PAGE_SIZE) | 0x123);
	/* The recursive mapping. */
	e = f->mmu.regs.cr3 + 511 * 8;
	fx_put(f, e, 8, f->mmu.regs.cr3 | PTE_P | PTE_W);
	assert_int_equal(mmu_walk(&f->mmu, UINT64_MAX & ~PAGE_MASK, MMU_WRITE, false, &o), 0);
	assert_int_equal(o.gpa, f->mmu.regs.cr3);
	assert_true(fx_get(f, e, 8) & PTE_D);
	/* ROM: no bits are set, the walk works. */
	mask_entry(f, LONG_4K, f->mmu.regs.cr3 + ((GVA >> 39) & 511) * 8, PTE_A);
	assert_int_equal(mem_set_rom(f->m, f->mmu.regs.cr3, PAGE_SIZE), 0);
	uint64_t before = fx_get(f, f->mmu.regs.cr3 + ((GVA >> 39) & 511) * 8, 8);
	mask_entry(f, LONG_4K, fx_entry(f, f->mmu.regs.cr3, 4, GVA, 1), PTE_A);
	assert_int_equal(mmu_walk(&f->mmu, GVA, MMU_READ, false, &o), 0);
	assert_int_equal(fx_get(f, f->mmu.regs.cr3 + ((GVA >> 39) & 511) * 8, 8), before);
	assert_true(fx_get(f, fx_entry(f, f->mmu.regs.cr3, 4, GVA, 1), 8) & PTE_A);
}

static unsigned seen;
static bool observe(void *opaque, gfn_t gfn, unsigned off, unsigned len)
{
	(void)opaque;
	(void)gfn;
	assert_int_equal(len, 8);
	assert_int_equal(off % 8, 0);
	seen++;
	return false;
}

/* Page tables that share a frame with translated code: setting A is a store the engine hears of. */
static void tables_with_code(void **state)
{
	static const struct mem_code_ops ops = { .write = observe };
	struct fx *f = *state;
	struct mmu_walk o;

	fx_long(f, 0);
	gpa_t e = fx_map(f, GVA & ~PAGE_MASK, FX_DATA, 1, PTE_P | PTE_W | PTE_G);
	f->mmu.code_ops = &ops;
	mem_code_mark(&f->mmu, e >> PAGE_SHIFT);
	seen = 0;
	assert_int_equal(mmu_walk(&f->mmu, GVA, MMU_READ, false, &o), 0);
	assert_int_equal(seen, 1);
	assert_true(o.global);
	assert_int_equal(mmu_walk(&f->mmu, GVA, MMU_READ, false, &o), 0);
	assert_int_equal(seen, 1);
	assert_int_equal(mmu_walk(&f->mmu, GVA, MMU_WRITE, false, &o), 0);
	assert_int_equal(seen, 2);
}

/* A debugger's look changes nothing and asks for no rights. */
static void probe(void **state)
{
	struct fx *f = *state;
	struct mmu_walk o;

	fx_long(f, 0);
	gpa_t e = fx_map(f, GVA & ~PAGE_MASK, FX_DATA, 1, PTE_P | PTE_NX);
	uint64_t before = fx_get(f, e, 8);
	assert_true(mmu_probe(&f->mmu, GVA, &o));
	assert_int_equal(o.gpa, FX_DATA + (GVA & PAGE_MASK));
	assert_false(o.user || o.writable || o.dirty);
	assert_true(o.nx);
	assert_int_equal(fx_get(f, e, 8), before);
	assert_false(mmu_probe(&f->mmu, GVA + PAGE_SIZE, &o));
	assert_false(mmu_probe(&f->mmu, GVA ^ BIT(60), &o));
	f->mmu.regs = (struct mmu_regs){ .cr0 = CR0_PE };
	assert_true(mmu_probe(&f->mmu, BIT(60) + 0x1234, &o));
	assert_int_equal(o.gpa, 0x1234);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(rights, fx_setup, fx_teardown),
		cmocka_unit_test_setup_teardown(reserved, fx_setup, fx_teardown),
		cmocka_unit_test_setup_teardown(pse, fx_setup, fx_teardown),
		cmocka_unit_test_setup_teardown(paging_off, fx_setup, fx_teardown),
		cmocka_unit_test_setup_teardown(odd_tables, fx_setup, fx_teardown),
		cmocka_unit_test_setup_teardown(tables_with_code, fx_setup, fx_teardown),
		cmocka_unit_test_setup_teardown(probe, fx_setup, fx_teardown),
	};

	return cmocka_run_group_tests_name("mem/walk", tests, NULL, NULL);
}
