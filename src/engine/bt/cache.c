/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The code cache: its memory, and the indices that find a block by guest address, by dispatch and by host address.
 *
 * Invariants
 *  - A block is reachable (hash, dispatch table, links) only while it is not dead; invalidation undoes all three.
 *  - Blocks are allocated in order of host address, so a host address finds its block by binary search.
 *  - etab (dispatch by page offset) and the code itself lie below 2 GiB, so that translated code addresses them with
 *    32-bit displacements. etab page 0 is never used: an x entry of 0 finds only misses.
 *  - Memory is bounded at creation; when any array is full everything is dropped (bt_flush), never grown.
 */
#include "engine/bt/bt.h"

#include <errno.h>
#include <sys/mman.h>

#include "base/log.h"

#define ETAB_BYTES(bt) ((size_t)(bt)->max_pages * 4096 * 4)

/* Maps `size` bytes of anonymous memory below 2 GiB, where nothing is mapped yet. */
static void *map_low(size_t size, int prot)
{
	int flags = MAP_FIXED_NOREPLACE | MAP_NORESERVE | MAP_PRIVATE | MAP_ANONYMOUS;

	for (uintptr_t at = 0x10000000; at + size < 0x7fff0000; at += 0x1000000) {
		void *p = mmap((void *)at, size, prot, flags, -1, 0);

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

	return p == MAP_FAILED ? NULL : p;
}

/* Shared anonymous memory, mapped a second time (mremap(2) with an old size of 0): perf takes that for generated code and looks for its
 * map file, which it does not for a memfd. */
static int map_code(struct bt *bt)
{
	uint8_t *w = mmap(NULL, bt->code_size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	void *x = map_low(bt->code_size, PROT_NONE);

	bt->code_w = w;
	bt->code_x = (uintptr_t)x;
	if (w == MAP_FAILED || !x || mremap(w, 0, bt->code_size, MREMAP_MAYMOVE | MREMAP_FIXED, x) != x ||
	    mprotect(x, bt->code_size, PROT_READ | PROT_EXEC) < 0)
		return -ENOMEM;
	return 0;
}

/* One check per access size, shared by all misaligned accesses: r14 is scratch, flags are dead. */
static void write_crossing_checks(struct bt *bt, struct emit *e)
{
	static const uint8_t sizes[] = {2, 4, 8, 10, 16, 32};

	for (unsigned i = 0; i < nitems(sizes); i++) {
		bt->crossing[sizes[i]] = (uint32_t)(e->w - bt->code_w);
		emit_lea(e, R14, EMEM(R13, sizes[i] - 1));
		emit_op_reg(e, true, 0x31, R13, R14);  /* xor r14, r13 */
		emit_test_imm32(e, R14, PAGE_SIZE);
		emit_byte(e, 0x75);                    /* jnz +1 */
		emit_byte(e, 1);
		emit_byte(e, 0xc3);                    /* ret */
		emit_op_mem(e, true, 0x83, 0, EMEM(RSP, 0)); /* add qword [rsp], 5 */
		emit_byte(e, 5);
		emit_byte(e, 0xc3);
	}
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
	struct emit e = bt_emit_at_end(bt);

	for (unsigned i = 0; i < BT_SVC_COUNT; i++) {
		bt->stub[i] = (uint32_t)(e.w - bt->code_w);
		emit_byte(&e, 0xff); /* jmp [rip+2], padded so that the pointer follows */
		emit_byte(&e, 0x25);
		emit_u32(&e, 2);
		emit_byte(&e, 0x0f);
		emit_byte(&e, 0x0b);
		emit_u64(&e, (uint64_t)(uintptr_t)target[i]);
	}
	write_crossing_checks(bt, &e);
	bt_jump_thunk(bt, &e);
	bt->code_reserved = (uint32_t)(e.w - bt->code_w + 63) & ~63u;
}

static int map_tables(struct bt *bt)
{
	bt->etab = map_low(ETAB_BYTES(bt), PROT_READ | PROT_WRITE);
	bt->page = map_array(BT_MAX_PAGES * sizeof(*bt->page));
	bt->block = map_array(BT_MAX_BLOCKS * sizeof(*bt->block));
	bt->site = map_array(BT_MAX_SITES * sizeof(*bt->site));
	bt->link = map_array(BT_MAX_LINKS * sizeof(*bt->link));
	bt->block_hash = map_array(BT_HASH_SIZE * 4);
	bt->page_hash = map_array(BT_MAX_PAGES * 4);
	if (!bt->etab || !bt->page || !bt->block ||
	    !bt->site || !bt->link || !bt->block_hash || !bt->page_hash)
		return -ENOMEM;
	return 0;
}

int bt_cache_create(struct bt *bt)
{
	int r;

	/* All vCPUs' dispatch tables and code lie below 2 GiB. */
	bt->max_pages = bt->v->count <= 8 ? BT_MAX_PAGES : BT_MAX_PAGES / 2;
	bt->hot_size = BT_HOT_SIZE(bt->v->count);
	bt->code_size = bt->hot_size + BT_COLD_SIZE(bt->v->count);
	r = map_code(bt);
	if (!r)
		r = map_tables(bt);
	if (!r)
		r = bt_jump_create(bt);
	if (r) {
		log_error("the translator found no room below 2 GiB or no address space: raise `ulimit -v`, or use --engine interp");
		return r;
	}
	madvise(bt->etab, ETAB_BYTES(bt), MADV_NOHUGEPAGE);
	write_thunks(bt);
	bt->code_used = bt->code_reserved;
	bt->cold_used = bt->hot_size;
	bt->npages = bt->nblocks = bt->nsites = bt->nlinks = 1;
	return 0;
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
	unmap(bt->etab, ETAB_BYTES(bt));
	unmap(bt->page, BT_MAX_PAGES * sizeof(*bt->page));
	unmap(bt->block, BT_MAX_BLOCKS * sizeof(*bt->block));
	unmap(bt->site, BT_MAX_SITES * sizeof(*bt->site));
	unmap(bt->link, BT_MAX_LINKS * sizeof(*bt->link));
	unmap(bt->block_hash, BT_HASH_SIZE * 4);
	unmap(bt->page_hash, BT_MAX_PAGES * 4);
}

struct emit bt_emit_at_end(struct bt *bt)
{
	return (struct emit){.w = bt->code_w + bt->code_used,
			     .end = bt->code_w + bt->hot_size,
			     .x_minus_w = (int64_t)(bt->code_x - (uintptr_t)bt->code_w)};
}

/* Bytes [0, used + AHEAD) are about to be written: has the host provide them, AHEAD bytes at a time. */
#define AHEAD (256u << 10)
static void ahead(void *base, size_t *ready, size_t used, size_t size)
{
	size_t n = size - *ready < AHEAD ? size - *ready : AHEAD;

	if (likely(used + AHEAD / 2 <= *ready) || !n)
		return;
	madvise((uint8_t *)base + *ready, n & ~(size_t)PAGE_MASK, MADV_POPULATE_WRITE);
	*ready += n;
}

/* The same for one part of the code cache, its executable alias included. */
static void code_ahead(struct bt *bt, size_t *ready, uint32_t part, uint32_t used, size_t size)
{
	size_t before = *ready;

	ahead(bt->code_w + part, ready, used - part, size);
	if (*ready != before)
		madvise((void *)(bt->code_x + part + before), (*ready - before) & ~(size_t)PAGE_MASK, MADV_POPULATE_READ);
}

/* A fault of the host costs more than translating a block. Not for etab, most of whose pages stay unused. Where MADV_POPULATE_WRITE is not known (Linux before 5.14), pages come with
 * their faults. */
void bt_get_ready(struct bt *bt)
{
	code_ahead(bt, &bt->ready.code, 0, bt->code_used, bt->hot_size);
	code_ahead(bt, &bt->ready.cold, bt->hot_size, bt->cold_used, bt->code_size - bt->hot_size);
	ahead(bt->block, &bt->ready.block, bt->nblocks * sizeof(*bt->block), BT_MAX_BLOCKS * sizeof(*bt->block));
	ahead(bt->site, &bt->ready.site, bt->nsites * sizeof(*bt->site), BT_MAX_SITES * sizeof(*bt->site));
	ahead(bt->link, &bt->ready.link, bt->nlinks * sizeof(*bt->link), BT_MAX_LINKS * sizeof(*bt->link));
}

void bt_flush(struct bt *bt)
{
	madvise(bt->etab, (size_t)bt->npages * 4096 * 4, MADV_DONTNEED);
	for (uint32_t i = 0; i < BT_HASH_SIZE; i++)
		bt->block_hash[i] = 0;
	for (uint32_t i = 0; i < BT_MAX_PAGES; i++)
		bt->page_hash[i] = 0;
	bt->npages = bt->nblocks = bt->nsites = bt->nlinks = 1;
	bt->code_used = bt->code_reserved;
	bt->cold_used = bt->hot_size;
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
	if (bt->npages == bt->max_pages)
		return 0;
	p = bt->npages++;
	bt->page[p] = (struct bt_page){.gfn = gfn, .mode = (uint8_t)mode, .plain = plain, .hash_next = bt->page_hash[bucket]};
	bt->page_hash[bucket] = p;
	return p;
}

static uint32_t block_bucket(uint32_t page, unsigned off)
{
	return ((page << 12 | off) * 0x9e3779b1u) >> 14;
}

uint32_t bt_block_find(const struct bt *bt, uint32_t page, unsigned off)
{
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
	bool cold = host >= bt->hot_size;
	uint32_t lo = 1, hi = bt->nblocks;

	while (hi - lo > 1) {
		uint32_t mid = lo + (hi - lo) / 2;

		if ((cold ? bt->block[mid].cold : bt->block[mid].entry_ind) <= host)
			lo = mid;
		else
			hi = mid;
	}
	if (lo >= bt->nblocks)
		return 0;
	if (cold)
		return host < bt->block[lo].cold_end ? lo : 0;
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
