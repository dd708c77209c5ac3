/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Guest memory with page tables made by hand, for the tests of mem/.
 *
 * Layout of the 64 MiB: tables from 1 MiB up (one frame each, taken in order), data frames from 4 MiB up.
 */
#ifndef TESTS_UNIT_MEM_FIXTURE_H
#define TESTS_UNIT_MEM_FIXTURE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "mem/private.h"

#define FX_RAM (64ull << 20)
#define FX_DATA (4ull << 20)

struct fx {
	struct mem *m;
	struct mmu mmu;
	gpa_t next_table;
};

static inline gpa_t fx_table(struct fx *f)
{
	gpa_t t = f->next_table;

	f->next_table += PAGE_SIZE;
	return t;
}

static inline uint64_t fx_get(struct fx *f, gpa_t gpa, unsigned size)
{
	uint64_t v = 0;

	assert_int_equal(mem_read(f->m, gpa, &v, size), 0);
	return v;
}

static inline void fx_put(struct fx *f, gpa_t gpa, unsigned size, uint64_t v)
{
	assert_int_equal(mem_write(f->m, gpa, &v, size), 0);
}

/* Address of the entry at `level` (1 = 4K) for gva, making the tables above it (all rights) as needed. 64-bit entries. */
static inline gpa_t fx_entry(struct fx *f, gpa_t top, unsigned top_level, gva_t gva, unsigned level)
{
	gpa_t t = top;

	for (unsigned l = top_level;; l--) {
		gpa_t e = t + ((gva >> (12 + 9 * (l - 1))) & 511) * 8;

		if (l == level)
			return e;
		if (!(fx_get(f, e, 8) & PTE_P))
			fx_put(f, e, 8, fx_table(f) | PTE_P | PTE_W | PTE_U);
		t = fx_get(f, e, 8) & PTE_ADDR;
	}
}

/* Maps in the current long-mode tables. level 1, 2, 3 = 4K, 2M, 1G. */
static inline gpa_t fx_map(struct fx *f, gva_t gva, gpa_t gpa, unsigned level, uint64_t bits)
{
	gpa_t e = fx_entry(f, f->mmu.regs.cr3 & PTE_ADDR, 4, gva, level);

	fx_put(f, e, 8, gpa | bits | (level > 1 ? PTE_PS : 0));
	return e;
}

/* Long mode, WP, NXE, PGE, empty tables. */
static inline void fx_long(struct fx *f, uint64_t cr4_more)
{
	struct mmu_regs r = {
		.cr0 = CR0_PE | CR0_PG | CR0_WP, .cr4 = CR4_PAE | CR4_PGE | cr4_more, .efer = EFER_LMA | EFER_LME | EFER_NXE,
		.cr3 = fx_table(f),
	};

	mmu_set_regs(&f->mmu, &r, false);
}

static inline int fx_setup(void **state)
{
	struct fx *f = calloc(1, sizeof(*f));

	assert_int_equal(mem_create(&f->m, FX_RAM, 2 * FX_RAM >> PAGE_SHIFT), 0);
	assert_int_equal(mem_add_ram(f->m, 0, FX_RAM), 0);
	assert_int_equal(mmu_create(&f->mmu, f->m, MMU_CONTEXTS), 0);
	f->next_table = 1 << 20;
	*state = f;
	return 0;
}

static inline int fx_teardown(void **state)
{
	struct fx *f = *state;

	mmu_destroy(&f->mmu);
	mem_destroy(f->m);
	free(f);
	return 0;
}

#endif
