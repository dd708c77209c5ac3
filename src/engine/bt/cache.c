/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The code cache: its memory, and the indices that find a block by guest address, by dispatch and by host address.
 *
 * Invariants
 *  - A block is reachable (hash, dispatch table, links) only while it is not dead; invalidation undoes all three.
 *  - In a part (part.c) blocks are allocated in order of host address, so a host address finds its block by binary search.
 *  - Every list of blocks has the newest first, so the blocks of the oldest part are its end.
 *  - Nothing else that can be executed lies where code does (BT_CODE_FROM; signal.c). etab (dispatch by page offset) has no page 0: an x
 *    entry of 0 finds only misses.
 *  - Memory is bounded at creation; when pages run out everything is dropped (bt_flush), when anything else does the oldest part.
 */
#include "engine/bt/bt.h"

#include <errno.h>
#include <sys/mman.h>

#include "base/log.h"

#define ETAB_BYTES (BT_MAX_PAGES * (size_t)bt_etab_off(1))

/* Address space for code, where nothing is mapped yet. */
static void *map_code_space(size_t size)
{
	int flags = MAP_FIXED_NOREPLACE | MAP_NORESERVE | MAP_PRIVATE | MAP_ANONYMOUS;

	for (uintptr_t at = BT_CODE_FROM; at + size < BT_CODE_TO; at += BIT(30)) {
		void *p = mmap((void *)at, size, PROT_NONE, flags, -1, 0);

		if (p == (void *)at)
			return p;
		if (p != MAP_FAILED)
			munmap(p, size);
	}
	return NULL;
}

static void *map_array(size_t bytes)
{
	void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	if (p == MAP_FAILED)
		return NULL;
	/* A translation reads and writes a little of each array: with pages of 4 KiB it misses the TLB at every step. */
	madvise(p, bytes, MADV_HUGEPAGE);
	return p;
}

/* Shared anonymous memory, mapped a second time (mremap(2) with an old size of 0): perf takes that for generated code and looks for its
 * map file, which it does not for a memfd. */
static int map_code(struct bt *bt)
{
	uint8_t *w = mmap(NULL, bt->code_size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	void *x = map_code_space(bt->code_size);

	bt->code_w = w;
	bt->code_x = (uintptr_t)x;
	if (w == MAP_FAILED || !x || mremap(w, 0, bt->code_size, MREMAP_MAYMOVE | MREMAP_FIXED, x) != x ||
	    mprotect(x, bt->code_size, PROT_READ | PROT_EXEC) < 0)
		return -ENOMEM;
	return 0;
}

/* The cache begins with one thunk per service: translated code cannot reach the program's own text with a rel32. The miss
 * thunk is at offset 0, which is what an empty dispatch entry means. */
static void write_thunks(struct bt *bt)
{
	static void (*const target[BT_SVC_COUNT])(void) = {
		[BT_SVC_MISS] = bt_stub_miss,             [BT_SVC_SLOW] = bt_stub_slow,
		[BT_SVC_INTERP] = bt_stub_interp,         [BT_SVC_LINK] = bt_stub_link,
		[BT_SVC_EVENT_HOST] = bt_stub_event_host, [BT_SVC_EVENT_SLOT] = bt_stub_event_slot,
		[BT_SVC_SYSCALL] = bt_stub_syscall,       [BT_SVC_STRAY] = bt_stub_stray,
	};
	struct emit e = {.w = bt->code_w, .end = bt->code_w + BT_STUBS - EMIT_SLACK, .x_minus_w = (int64_t)(bt->code_x - (uintptr_t)bt->code_w)};

	for (unsigned i = 0; i < BT_SVC_COUNT; i++) {
		bt->stub[i] = (uint32_t)(e.w - bt->code_w);
		emit_byte(&e, 0xff); /* jmp [rip+2], padded so that the pointer follows */
		emit_byte(&e, 0x25);
		emit_u32(&e, 2);
		emit_byte(&e, 0x0f);
		emit_byte(&e, 0x0b);
		emit_u64(&e, (uint64_t)(uintptr_t)target[i]);
	}
	bt_hint_thunks(bt, &e);
	bt_jump_thunk(bt, &e);
	BUG_ON(e.full);
	bt->stubs_end = (uint32_t)(e.w - bt->code_w);
}

static int map_tables(struct bt *bt)
{
	bt->etab = map_array(ETAB_BYTES);
	bt->page = map_array(BT_MAX_PAGES * sizeof(*bt->page));
	bt->block = map_array(BT_MAX_BLOCKS * sizeof(*bt->block));
	bt->site = map_array(BT_MAX_SITES * sizeof(*bt->site));
	bt->link = map_array(BT_MAX_LINKS * sizeof(*bt->link));
	bt->block_hash = map_array(BT_HASH_SIZE * 4);
	bt->page_hash = map_array(BT_MAX_PAGES * 4);
	bt->decoded = map_array(BT_DECODED * sizeof(*bt->decoded));
	bt->form = map_array(BT_FORMS);
	if (!bt->etab || !bt->page || !bt->block || !bt->site || !bt->link || !bt->block_hash || !bt->page_hash || !bt->decoded || !bt->form)
		return -ENOMEM;
	return 0;
}

int bt_cache_create(struct bt *bt)
{
	int r;

	bt->hot_size = BT_STUBS + BT_PARTS * BT_PART_HOT(bt->v->count);
	bt->code_size = bt->hot_size + BT_PARTS * BT_PART_COLD(bt->v->count);
	r = map_code(bt);
	if (!r)
		r = map_tables(bt);
	if (!r)
		r = bt_jump_create(bt);
	if (r) {
		log_error("the translator found no address space: raise `ulimit -v`, or use --engine interp");
		return r;
	}
	madvise(bt->etab, ETAB_BYTES, MADV_NOHUGEPAGE);
	write_thunks(bt);
	bt->npages = 1;
	bt_part_first(bt);
	return 0;
}

/* What forms are, according to the facts that have stood until now. */
static void forget_decoded(struct bt *bt)
{
	for (unsigned i = 0; i < BT_DECODED; i++)
		bt->decoded[i].key = 0;
}

static void unmap(void *p, size_t n)
{
	if (p && p != MAP_FAILED)
		munmap(p, n);
}

void bt_cache_destroy(struct bt *bt)
{
	bt_jump_destroy(bt);
	unmap(bt->code_w, bt->code_size);
	unmap((void *)bt->code_x, bt->code_size);
	unmap(bt->etab, ETAB_BYTES);
	unmap(bt->page, BT_MAX_PAGES * sizeof(*bt->page));
	unmap(bt->block, BT_MAX_BLOCKS * sizeof(*bt->block));
	unmap(bt->site, BT_MAX_SITES * sizeof(*bt->site));
	unmap(bt->link, BT_MAX_LINKS * sizeof(*bt->link));
	unmap(bt->block_hash, BT_HASH_SIZE * 4);
	unmap(bt->page_hash, BT_MAX_PAGES * 4);
	unmap(bt->decoded, BT_DECODED * sizeof(*bt->decoded));
	unmap(bt->form, BT_FORMS);
}

static struct emit cursor(struct bt *bt, uint32_t used, uint32_t end)
{
	return (struct emit){.w = bt->code_w + used,
			     .end = bt->code_w + end - EMIT_SLACK,
			     .x_minus_w = (int64_t)(bt->code_x - (uintptr_t)bt->code_w)};
}

struct emit bt_emit_at_end(struct bt *bt)
{
	return cursor(bt, bt->code_used, bt->end.code);
}

struct emit bt_emit_cold(struct bt *bt)
{
	return cursor(bt, bt->cold_used, bt->end.cold);
}

/* What lies behind `used` is about to be written: has the host provide it, AHEAD bytes at a time. *ready: up to where it has; the rest of
 * a part that was left before its end counts as provided. Returns how many bytes before *ready it has been asked for. */
#define AHEAD (256u << 10)
static size_t ahead(struct bt *bt, void *base, size_t *ready, size_t used, size_t size)
{
	size_t from = *ready > used ? *ready : used & ~(size_t)PAGE_MASK, n = size - from < AHEAD ? size - from : AHEAD;

	if (likely(used + AHEAD / 2 <= *ready) || from >= size)
		return 0;
	vcpu_fpu_park(bt->v); /* libc */
	madvise((uint8_t *)base + from, n, MADV_POPULATE_WRITE);
	*ready = from + n;
	return n;
}

/* The same for code, its executable alias included. */
static void code_ahead(struct bt *bt, size_t *ready, uint32_t used, size_t size)
{
	size_t n = ahead(bt, bt->code_w, ready, used, size);

	if (n)
		madvise((void *)(bt->code_x + *ready - n), n, MADV_POPULATE_READ);
}

/* A fault of the host costs more than translating a block. Not for etab, most of whose pages stay unused. Where MADV_POPULATE_WRITE is not known (Linux before 5.14), pages come with
 * their faults. */
void bt_get_ready(struct bt *bt)
{
	code_ahead(bt, &bt->ready.code, bt->code_used, bt->hot_size);
	code_ahead(bt, &bt->ready.cold, bt->cold_used, bt->code_size);
	ahead(bt, bt->block, &bt->ready.block, bt->nblocks * sizeof(*bt->block), BT_MAX_BLOCKS * sizeof(*bt->block));
	ahead(bt, bt->site, &bt->ready.site, bt->nsites * sizeof(*bt->site), BT_MAX_SITES * sizeof(*bt->site));
	ahead(bt, bt->link, &bt->ready.link, bt->nlinks * sizeof(*bt->link), BT_MAX_LINKS * sizeof(*bt->link));
}

/* Blocks of one page, which are looked for together, lie together: 64 buckets, four cache lines. */
static uint32_t block_bucket(uint32_t page, unsigned off)
{
	return (page << 6 | off >> 6) % BT_HASH_SIZE;
}

/* Into the caches of the host, to be written. */
static void fetch(const void *p, size_t bytes)
{
	for (size_t i = 0; i < bytes; i += 64)
		__builtin_prefetch((const uint8_t *)p + i, 1);
}

/* What a block of usual size writes is in no cache yet: asked for before it is decoded, it arrives meanwhile. */
void bt_block_fetch(const struct bt *bt, uint32_t page, unsigned off)
{
	fetch(bt->code_w + bt->code_used, 384);
	fetch(bt->code_w + bt->cold_used, 256);
	fetch(&bt->block[bt->nblocks], sizeof(*bt->block));
	fetch(&bt->site[bt->nsites], 6 * sizeof(*bt->site));
	fetch(&bt->link[bt->nlinks], 4 * sizeof(*bt->link));
	fetch(&bt->block_hash[block_bucket(page, off)], 1);
}

void bt_flush(struct bt *bt)
{
	madvise(bt->etab, bt->npages * (size_t)bt_etab_off(1), MADV_DONTNEED);
	for (uint32_t i = 0; i < BT_HASH_SIZE; i++)
		bt->block_hash[i] = 0;
	for (uint32_t i = 0; i < BT_MAX_PAGES; i++)
		bt->page_hash[i] = 0;
	forget_decoded(bt);
	bt->npages = 1;
	bt_part_first(bt);
	bt_hint_review_cancel(bt);
	bt->generation++;
	bt->stats.flushes++;
	mmu_flush_all(&bt->v->mmu); /* the x entries */
}

static uint32_t page_bucket(gfn_t gfn)
{
	return (uint32_t)(gfn * 0x9e3779b97f4a7c15ull >> 40) % BT_MAX_PAGES;
}

uint32_t bt_page_get(struct bt *bt, gfn_t gfn, enum bt_mode mode, bool plain)
{
	uint32_t bucket = page_bucket(gfn), p;

	for (p = bt->page_hash[bucket]; p; p = bt->page[p].hash_next)
		if (bt->page[p].gfn == gfn && bt->page[p].mode == mode && bt->page[p].plain == plain)
			return p;
	if (bt->npages == BT_MAX_PAGES)
		return 0;
	p = bt->npages++;
	bt->page[p] = (struct bt_page){.gfn = gfn, .mode = (uint8_t)mode, .plain = plain, .hash_next = bt->page_hash[bucket]};
	bt->page_hash[bucket] = p;
	return p;
}

uint32_t bt_block_find(const struct bt *bt, uint32_t page, unsigned off)
{
	/* Often there is none, which the page, at hand already, knows better than the hash table. */
	if (!(bt->page[page].starts[off >> 10] >> (off >> 4 & 63) & 1))
		return 0;
	for (uint32_t b = bt->block_hash[block_bucket(page, off)]; b; b = bt->block[b].hash_next)
		if (bt->block[b].page == page && bt->block[b].off == off)
			return b;
	return 0;
}

void bt_block_add(struct bt *bt, uint32_t b)
{
	struct bt_block *blk = &bt->block[b];
	uint32_t *head = &bt->block_hash[block_bucket(blk->page, blk->off)];

	blk->hash_next = *head;
	*head = b;
	bt->page[blk->page].starts[blk->off >> 10] |= BIT(blk->off >> 4 & 63);
	blk->next_in_page = bt->page[blk->page].first_block;
	bt->page[blk->page].first_block = b;
	if (blk->tail) {
		blk->next_tail = bt->page[blk->tail].first_tail;
		bt->page[blk->tail].first_tail = b;
	}
}

void bt_block_publish(struct bt *bt, uint32_t b)
{
	bt->etab[(size_t)bt->block[b].page * 4096 + bt->block[b].off] = bt->block[b].entry_ind;
}

static void hash_remove(struct bt *bt, uint32_t b)
{
	uint32_t *at = &bt->block_hash[block_bucket(bt->block[b].page, bt->block[b].off)];

	while (*at && *at != b)
		at = &bt->block[*at].hash_next;
	if (*at)
		*at = bt->block[b].hash_next;
}

static void block_kill(struct bt *bt, uint32_t b)
{
	struct bt_block *blk = &bt->block[b];

	blk->dead = true;
	hash_remove(bt, b);
	bt_unlink_incoming(bt, b);
	bt->etab[(size_t)blk->page * 4096 + blk->off] = 0;
	bt_jump_forget(bt, b);
	bt->stats.smc++;
}

/* Takes a block out of a list that begins at *at. */
static void unlist(struct bt *bt, uint32_t *at, uint32_t b, bool tail)
{
	while (*at && *at != b)
		at = tail ? &bt->block[*at].next_tail : &bt->block[*at].next_in_page;
	if (*at)
		*at = tail ? bt->block[b].next_tail : bt->block[b].next_in_page;
}

/* Cuts a list behind the last block that is not in [first, end). */
static void cut(struct bt *bt, uint32_t *at, uint32_t first, uint32_t end, bool tail)
{
	while (*at && (*at < first || *at >= end))
		at = tail ? &bt->block[*at].next_tail : &bt->block[*at].next_in_page;
	*at = 0;
}

static void cut_page(struct bt *bt, uint32_t page, uint32_t first, uint32_t end)
{
	struct bt_page *p = &bt->page[page];

	if (p->cut == bt->generation)
		return;
	p->cut = bt->generation;
	cut(bt, &p->first_block, first, end, false);
	cut(bt, &p->first_tail, first, end, true);
}

/* Every list has its newest block first. */
void bt_block_unlist(struct bt *bt, uint32_t first, uint32_t end, uint32_t b)
{
	struct bt_block *blk = &bt->block[b];
	uint32_t *at = &bt->block_hash[block_bucket(blk->page, blk->off)];

	while (*at && (*at < first || *at >= end))
		at = &bt->block[*at].hash_next;
	*at = 0;
	cut_page(bt, blk->page, first, end);
	if (blk->tail)
		cut_page(bt, blk->tail, first, end);
	blk->dead = true;
	bt_unlink_incoming(bt, b);
	bt->etab[(size_t)blk->page * 4096 + blk->off] = 0;
}

void bt_block_drop(struct bt *bt, uint32_t b)
{
	struct bt_block *blk = &bt->block[b];

	unlist(bt, &bt->page[blk->page].first_block, b, false);
	if (blk->tail)
		unlist(bt, &bt->page[blk->tail].first_tail, b, true);
	block_kill(bt, b);
}

/* Whether bytes [off, off+len) of the page are part of what the block was made from. */
static bool made_from(const struct bt_block *blk, bool tail, unsigned off, unsigned len)
{
	if (tail)
		return off < blk->tail_end;
	return (blk->off < off + len && off < blk->end) || (blk->peek < off + len && off < blk->peek_end);
}

/* Drops what was made from the bytes, in one of the two lists of a page. Returns whether nothing is left. */
static bool drop_listed(struct bt *bt, uint32_t p, bool tail, unsigned off, unsigned len)
{
	uint32_t b = tail ? bt->page[p].first_tail : bt->page[p].first_block, next;
	bool empty = true;

	for (; b; b = next) {
		next = tail ? bt->block[b].next_tail : bt->block[b].next_in_page;
		if (made_from(&bt->block[b], tail, off, len))
			bt_block_drop(bt, b);
		else
			empty = false;
	}
	return empty;
}

/* Guest bytes [off, off+len) of the frame are about to change: drops the blocks made from them, in every mode. */
bool bt_code_write(void *opaque, gfn_t gfn, unsigned off, unsigned len)
{
	struct bt *bt = opaque;
	bool empty = true;

	for (uint32_t p = bt->page_hash[page_bucket(gfn)]; p; p = bt->page[p].hash_next) {
		if (bt->page[p].gfn != gfn)
			continue;
		empty &= drop_listed(bt, p, false, off, len);
		empty &= drop_listed(bt, p, true, off, len);
	}
	return empty;
}

uint32_t bt_block_at(const struct bt *bt, uint32_t host)
{
	unsigned part = host < BT_STUBS ? 0 : bt_part_of(bt, host);
	bool cold = host >= bt->hot_size;
	uint32_t first = 1 + part * BT_PART_BLOCKS, lo = first, end = part == bt->part ? bt->nblocks : bt->used[part].blocks, hi = end;

	if (host < BT_STUBS || first >= end)
		return 0;
	while (hi - lo > 1) {
		uint32_t mid = lo + (hi - lo) / 2;

		if ((cold ? bt->block[mid].cold : bt->block[mid].entry_ind) <= host)
			lo = mid;
		else
			hi = mid;
	}
	if (cold)
		return host >= bt->block[lo].cold && host < bt->block[lo].cold_end ? lo : 0;
	return host >= bt->block[lo].entry_ind && host < bt->block[lo].host_end ? lo : 0;
}

uint32_t bt_site_find(const struct bt *bt, uint32_t host)
{
	uint32_t b = bt_block_at(bt, host);

	/* The last one: an indirect branch at its dispatch comes behind its own memory access. */
	for (uint32_t s = b ? bt->block[b].nsites : 0; s-- > 0;) {
		const struct bt_site *site = &bt->site[bt->block[b].first_site + s];

		if (host >= site->start && host < site->next)
			return bt->block[b].first_site + s;
	}
	return 0;
}
