/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Page allocator (bump, from the end of the image up to 24 MiB) and walks of 4-level tables.
 *
 * Invariant: physical = virtual below 1 GiB, so a table's address is a pointer.
 */
#include "guest.h"

enum { POOL_END = 24 << 20 };
static ul pool;

void *pages_alloc(unsigned n, unsigned align_pages)
{
	ul a;

	if (!pool)
		pool = (ul)image_end;
	a = (pool + align_pages * 4096ul - 1) & ~(align_pages * 4096ul - 1);
	if (a + n * 4096ul > POOL_END) {
		printf("out of guest memory\n");
		guest_exit(3);
	}
	pool = a + n * 4096ul;
	return memset((void *)a, 0, n * 4096ul);
}

void *page_alloc(void)
{
	return pages_alloc(1, 1);
}

#ifdef __x86_64__
u64 *pte_at(u64 *table, u64 va, unsigned level)
{
	for (unsigned l = 4; l > level; l--) {
		u64 *e = &table[va >> (12 + 9 * (l - 1)) & 511];

		if (!(*e & PTE_P))
			*e = (u64)page_alloc() | PTE_P | PTE_W | PTE_U;
		table = (u64 *)(*e & 0x000ffffffffff000ull);
	}
	return &table[va >> (12 + 9 * (level - 1)) & 511];
}

void map_page(u64 va, u64 pa, u64 flags)
{
	*(volatile u64 *)pte_at(boot_pml4, va, 1) = pa | flags;
	invlpg(va);
}
#endif
