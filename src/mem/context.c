/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Contexts: the storage of the flat shadow tables, which parts of it are in use, and emptying them.
 *
 * Invariant: an entry is nonzero only if its region is on the touched list, the region's flag of that table is set, and the bit of its line.
 * Owner: the vCPU's thread. Spec: SDM vol. 3A 4.10.4 (what each invalidation must remove; removing more is allowed).
 */
#include "mem/private.h"

#include <errno.h>
#include <sys/mman.h>

#define FLAT_BULK 2000u               /* from this many regions on the kernel empties tables faster than we do */

/* The idle list is trimmed when it is this much longer than what is in use, so that emptying everything at once, which makes
 * all of it idle, does not return pages that are about to be filled again. */
#define IDLE_SLACK 256u
#define IDLE_CAPACITY (MMU_MAX_REGIONS + IDLE_SLACK)

/* A region with more lines in use than these is emptied faster as a whole. */
#define LINES_ONE_BY_ONE 12

static void *flat_reserve(uint64_t bytes)
{
	void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	if (p == MAP_FAILED)
		return NULL;
	/* One guest page in use would otherwise pin 2 MiB of table. */
	madvise(p, bytes, MADV_NOHUGEPAGE);
	madvise(p, bytes, MADV_DONTDUMP);
	return p;
}

static void flat_release(void *p, uint64_t bytes)
{
	if (p)
		munmap(p, bytes);
}

int mmu_context_init(struct mmu_context *c)
{
	*c = (struct mmu_context){ 0 };
	c->r = flat_reserve(FLAT_ENTRIES * sizeof(*c->r));
	c->w = flat_reserve(FLAT_ENTRIES * sizeof(*c->w));
	c->x_user = flat_reserve(FLAT_ENTRIES * sizeof(*c->x_user));
	c->x_super = flat_reserve(FLAT_ENTRIES * sizeof(*c->x_super));
	c->region = flat_reserve(FLAT_REGIONS * sizeof(*c->region));
	c->lines = flat_reserve(FLAT_REGIONS * sizeof(*c->lines));
	c->touched = flat_reserve(MMU_MAX_REGIONS * sizeof(*c->touched));
	c->idle = flat_reserve(IDLE_CAPACITY * sizeof(*c->idle));
	c->huge = flat_reserve(FLAT_GIBS * sizeof(*c->huge));
	if (c->r && c->w && c->x_user && c->x_super && c->region && c->lines && c->touched && c->idle && c->huge)
		return 0;
	mmu_context_fini(c);
	return -ENOMEM;
}

void mmu_context_fini(struct mmu_context *c)
{
	flat_release(c->r, FLAT_ENTRIES * sizeof(*c->r));
	flat_release(c->w, FLAT_ENTRIES * sizeof(*c->w));
	flat_release(c->x_user, FLAT_ENTRIES * sizeof(*c->x_user));
	flat_release(c->x_super, FLAT_ENTRIES * sizeof(*c->x_super));
	flat_release(c->region, FLAT_REGIONS * sizeof(*c->region));
	flat_release(c->lines, FLAT_REGIONS * sizeof(*c->lines));
	flat_release(c->touched, MMU_MAX_REGIONS * sizeof(*c->touched));
	flat_release(c->idle, IDLE_CAPACITY * sizeof(*c->idle));
	flat_release(c->huge, FLAT_GIBS * sizeof(*c->huge));
	*c = (struct mmu_context){ 0 };
}

/* Returns the pages of the x tables under a pair of regions (they share them) unless one is in use. */
static void context_trim_exec(struct mmu_context *c, uint32_t rg)
{
	uint64_t vpn = (uint64_t)(rg & ~1u) * REGION_PAGES;
	uint16_t *f = &c->region[rg & ~1u];
	uint16_t both = f[0] | f[1];

	if (both & MMU_RG_TOUCHED)
		return;
	if (both & MMU_RG_XU)
		mem_madvise(&c->x_user[vpn], 2 * REGION_PAGES * sizeof(*c->x_user), MADV_DONTNEED);
	if (both & MMU_RG_XS)
		mem_madvise(&c->x_super[vpn], 2 * REGION_PAGES * sizeof(*c->x_super), MADV_DONTNEED);
	f[0] &= (uint16_t)~(MMU_RG_XU | MMU_RG_XS);
	f[1] &= (uint16_t)~(MMU_RG_XU | MMU_RG_XS);
}

/* Emptied regions keep their (zero) table pages for the next use. Processes come and go at random addresses, so from time
 * to time the pages of regions nobody came back to are returned. */
static void context_trim(struct mmu_context *c)
{
	for (uint32_t i = 0; i < c->nidle; i++) {
		uint64_t vpn = (uint64_t)c->idle[i] * REGION_PAGES;
		uint16_t *f = &c->region[c->idle[i]];

		*f &= (uint16_t)~MMU_RG_IDLE;
		if (*f & MMU_RG_TOUCHED)
			continue;
		if (*f & MMU_RG_R)
			mem_madvise(&c->r[vpn], REGION_PAGES * sizeof(*c->r), MADV_DONTNEED);
		if (*f & MMU_RG_W)
			mem_madvise(&c->w[vpn], REGION_PAGES * sizeof(*c->w), MADV_DONTNEED);
		*f &= (uint16_t)~(MMU_RG_R | MMU_RG_W);
		context_trim_exec(c, c->idle[i]);
	}
	c->nidle = 0;
}

/* Zeroes `pages` entries from vpn on, in the tables that have pages there. */
static void entries_clear(struct mmu_context *c, uint64_t vpn, unsigned pages, uint16_t tables)
{
	if (tables & MMU_RG_R)
		mem_zero_words(&c->r[vpn], pages);
	if (tables & MMU_RG_W)
		mem_zero_words(&c->w[vpn], pages);
	if (tables & MMU_RG_XU)
		mem_zero_words(&c->x_user[vpn], pages / 2);
	if (tables & MMU_RG_XS)
		mem_zero_words(&c->x_super[vpn], pages / 2);
}

/* Zeroes what a region holds and takes its flags back; the caller takes it off the touched list. */
static void region_clear(struct mmu_context *c, uint32_t rg)
{
	uint64_t vpn = (uint64_t)rg * REGION_PAGES;
	uint16_t f = c->region[rg];
	uint32_t lines = c->lines[rg];

	c->lines[rg] = 0;
	if (__builtin_popcount(lines) > LINES_ONE_BY_ONE)
		entries_clear(c, vpn, REGION_PAGES, f);
	else
		for (; lines; lines &= lines - 1)
			entries_clear(c, vpn + (uint64_t)__builtin_ctz(lines) * MMU_LINE_PAGES, MMU_LINE_PAGES, f);
	c->x_gen[0] += !!(f & MMU_RG_XU);
	c->x_gen[1] += !!(f & MMU_RG_XS);
	f &= MMU_RG_TABLES | MMU_RG_IDLE;
	if (!(f & MMU_RG_IDLE)) {
		if (c->nidle >= IDLE_SLACK + c->ntouched) {
			c->region[rg] = f;
			context_trim(c);
		}
		c->idle[c->nidle++] = rg;
		f |= MMU_RG_IDLE;
	}
	c->region[rg] = f;
}

/* Maps a table anew where it was: unlike MADV_DONTNEED this also frees the host's page tables for it, which for entries strewn over
 * the address space take more memory than the entries. */
static void flat_renew(void *p, uint64_t bytes)
{
	long r = mem_syscall6(SYS_mmap, (long)p, (long)bytes, PROT_READ | PROT_WRITE,
			      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0);

	if (r != (long)p) {
		mem_madvise(p, bytes, MADV_DONTNEED);
		return;
	}
	mem_madvise(p, bytes, MADV_NOHUGEPAGE);
	mem_madvise(p, bytes, MADV_DONTDUMP);
}

/* Empties the context and returns everything its tables have cost. */
static void context_drop_tables(struct mmu *mmu, struct mmu_context *c)
{
	flat_renew(c->r, FLAT_ENTRIES * sizeof(*c->r));
	flat_renew(c->w, FLAT_ENTRIES * sizeof(*c->w));
	flat_renew(c->x_user, FLAT_ENTRIES * sizeof(*c->x_user));
	flat_renew(c->x_super, FLAT_ENTRIES * sizeof(*c->x_super));
	c->x_gen[0]++;
	c->x_gen[1]++;
	flat_renew(c->region, FLAT_REGIONS * sizeof(*c->region));
	flat_renew(c->lines, FLAT_REGIONS * sizeof(*c->lines));
	mem_madvise(c->huge, FLAT_GIBS * sizeof(*c->huge), MADV_DONTNEED);
	mmu->born -= c->born;
	c->born = 0;
	c->nidle = 0;
	c->ntouched = 0;
	c->lower_super = false;
}

/* Regions that may get table pages before everything is returned: enough for a few address spaces, each with all of RAM. */
static uint32_t born_budget(const struct mmu *mmu)
{
	uint64_t n = MMU_BORN_BASE + mmu->mem->ram_frames / MEM_EXTENT_FRAMES * MMU_BORN_PER_EXTENT;

	return n < UINT32_MAX ? (uint32_t)n : UINT32_MAX;
}

/* Keeps what the tables cost in bounds, however a guest strews its accesses: the other contexts go first. */
static void contexts_shed(struct mmu *mmu)
{
	for (unsigned i = 0; i < mmu->nctx; i++)
		if (&mmu->ctx[i] != mmu->cur && mmu->ctx[i].born)
			context_drop_tables(mmu, &mmu->ctx[i]);
	if (mmu->born > born_budget(mmu) / 2)
		context_drop_tables(mmu, mmu->cur);
	mmu->stats.sheds++;
	mmu->gen++;
}

/* Which regions an emptying spares. */
enum flat_keep { KEEP_NONE, KEEP_GLOBAL, KEEP_UPPER };

static bool region_kept(const struct mmu_context *c, uint32_t rg, enum flat_keep keep)
{
	if (keep == KEEP_NONE || !(rg & REGION_UPPER))
		return false;
	return keep == KEEP_UPPER || !(c->region[rg] & MMU_RG_LOCAL);
}

static void context_clear(struct mmu *mmu, struct mmu_context *c, enum flat_keep keep)
{
	uint32_t kept = 0;

	for (uint32_t i = 0; i < c->ntouched; i++) {
		uint32_t rg = c->touched[i];

		if (region_kept(c, rg, keep)) {
			c->touched[kept++] = rg;
		} else {
			region_clear(c, rg);
			mmu->stats.region_flushes++;
		}
	}
	c->ntouched = kept;
	c->lower_super = false;
	mmu->gen++;
}

void mmu_context_empty(struct mmu *mmu, struct mmu_context *c)
{
	mmu->stats.flushes++;
	if (c->ntouched <= FLAT_BULK) {
		context_clear(mmu, c, KEEP_NONE);
		return;
	}
	context_drop_tables(mmu, c);
	mmu->gen++;
}

void mmu_context_empty_nonglobal(struct mmu *mmu, struct mmu_context *c)
{
	mmu->stats.flushes++;
	context_clear(mmu, c, KEEP_GLOBAL);
}

void mmu_context_empty_lower(struct mmu *mmu, struct mmu_context *c)
{
	context_clear(mmu, c, KEEP_UPPER);
}

/* Empties the touched regions [first, end). */
static void context_clear_range(struct mmu *mmu, struct mmu_context *c, uint32_t first, uint32_t end)
{
	uint32_t kept = 0;

	for (uint32_t i = 0; i < c->ntouched; i++) {
		uint32_t rg = c->touched[i];

		if (rg >= first && rg < end) {
			region_clear(c, rg);
			mmu->stats.region_flushes++;
		} else {
			c->touched[kept++] = rg;
		}
	}
	c->ntouched = kept;
}

/* 2 MiB regions that may hold fragments of the large page gva lies in. */
static void page_regions(const struct mmu *mmu, const struct mmu_context *c, gva_t gva, uint32_t *first, uint32_t *count)
{
	uint32_t rg = (uint32_t)(mmu_vpn(gva) / REGION_PAGES);

	*first = rg;
	*count = 1;
	if (c->huge[rg / GIB_REGIONS]) {
		*first = rg & ~(GIB_REGIONS - 1);
		*count = GIB_REGIONS;
	} else if (!(mmu->regs.cr4 & CR4_PAE)) {
		*first = rg & ~1u;     /* large pages of 32-bit paging are 4 MiB */
		*count = 2;
	}
}

static uint16_t page_flags(const struct mmu *mmu, const struct mmu_context *c, gva_t gva)
{
	uint32_t first, count;
	uint16_t f = 0;

	page_regions(mmu, c, gva, &first, &count);
	for (uint32_t i = 0; i < count; i++)
		f |= c->region[first + i];
	return f;
}

bool mmu_context_page_global(const struct mmu *mmu, const struct mmu_context *c, gva_t gva)
{
	return page_flags(mmu, c, gva) & MMU_RG_GLOBAL;
}

void mmu_context_empty_page(struct mmu *mmu, struct mmu_context *c, gva_t gva)
{
	uint64_t vpn = mmu_vpn(gva);
	uint16_t own = c->region[vpn / REGION_PAGES];
	uint32_t first, count;

	mmu->gen++;
	/* A large page is cached in fragments: all of it goes, wherever in it gva points. */
	page_regions(mmu, c, gva, &first, &count);
	if (page_flags(mmu, c, gva) & MMU_RG_LARGE) {
		context_clear_range(mmu, c, first, first + count);
		c->huge[first / GIB_REGIONS] &= count != GIB_REGIONS;
		return;
	}
	if (own & MMU_RG_R)
		c->r[vpn] = 0;
	if (own & MMU_RG_W)
		c->w[vpn] = 0;
	if ((own & MMU_RG_XU) && c->x_user[vpn]) {
		c->x_user[vpn] = 0;
		c->x_gen[0]++;
	}
	if ((own & MMU_RG_XS) && c->x_super[vpn]) {
		c->x_super[vpn] = 0;
		c->x_gen[1]++;
	}
}

bool mmu_context_touch(struct mmu *mmu, struct mmu_context *c, uint64_t vpn, unsigned pages, uint16_t flags)
{
	uint32_t rg = (uint32_t)(vpn / REGION_PAGES);
	uint16_t *f = &c->region[rg];
	bool room = true;

	if (!(*f & MMU_RG_TABLES)) {
		if (mmu->born >= born_budget(mmu)) {
			contexts_shed(mmu);
			room = false;
		}
		c->born++;
		mmu->born++;
	}
	if (!(*f & MMU_RG_TOUCHED)) {
		if (c->ntouched == MMU_MAX_REGIONS) {
			mmu_context_empty(mmu, c);
			room = false;
		}
		c->touched[c->ntouched++] = rg;
	}
	*f |= MMU_RG_TOUCHED | flags;
	for (unsigned i = 0; i < pages; i += MMU_LINE_PAGES)
		c->lines[rg] |= 1u << ((vpn + i) % REGION_PAGES / MMU_LINE_PAGES);
	return room;
}
