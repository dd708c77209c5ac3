/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Parts of the code cache: a guest that branches from page to page in every way goes on computing the right sums while parts are left
 * and dropped at random, and whatever leads to a block leads to one that exists.
 */
#include "../../cpu/fixture.h"
#include "engine/bt/bt.h"

#define CODE_PA 0x800000ull
#define DATA_PA 0x900000ull
#define STACK_PA 0xa00000ull
#define PAGES 48
#define ROUNDS 600

struct part_test {
	struct bed *b;
	uint32_t random;
	uint32_t adds[PAGES];   /* what each page adds to RAX */
};

static uint32_t draw(struct part_test *t, uint32_t n)
{
	t->random = t->random * 1664525 + 1013904223;
	return (t->random >> 8) % n;
}

/* --- the guest: each page adds a constant and the carry flag, and goes on to the next, which expects the flag set ------------- */

struct asm_at {
	uint8_t code[PAGE_SIZE];
	unsigned n;
};

static void put(struct asm_at *a, const char *bytes, unsigned n)
{
	memcpy(a->code + a->n, bytes, n);
	a->n += n;
}

static void put32(struct asm_at *a, uint32_t x)
{
	memcpy(a->code + a->n, &x, 4);
	a->n += 4;
}

/* The displacement, at the end of an instruction, that leads to offset 0 of the next page. */
static void put_next(struct asm_at *a)
{
	put32(a, (uint32_t)PAGE_SIZE - a->n - 4);
}

static uint32_t put_page(struct asm_at *a, unsigned kind, uint32_t constant)
{
	put(a, "\x48\x15", 2);                         /* adc rax, constant */
	put32(a, constant);
	switch (kind) {
	case 0:                                        /* flags in the host register over a bridge */
		put(a, "\xf9\xe9", 2);                 /* stc; jmp next */
		put_next(a);
		return constant + 1;
	case 1:                                        /* flags in the slot */
		put(a, "\xf9\x48\x89\x06\xe9", 5);     /* stc; mov [rsi], rax; jmp next */
		put_next(a);
		return constant + 1;
	case 2:                                        /* an indirect branch */
		put(a, "\x48\x8d\x0d", 3);             /* lea rcx, [next] */
		put_next(a);
		put(a, "\xf9\xff\xe1", 3);             /* stc; jmp rcx */
		return constant + 1;
	case 3:                                        /* a branch back, and one forward, inside the page */
		put(a, "\xb9\x05\x00\x00\x00", 5);     /* mov ecx, 5 */
		put(a, "\x48\x83\xc0\x02\xff\xc9", 6); /* add rax, 2; dec ecx */
		put(a, "\x75\xf8", 2);                 /* jnz to the add */
		put(a, "\xeb\x01\xf4\xf9\xe9", 5);     /* jmp over hlt; stc; jmp next */
		put_next(a);
		return constant + 1 + 10;
	default:                                       /* a call of the page's own function, and a return */
		put(a, "\xe8\x06\x00\x00\x00", 5);     /* call */
		put(a, "\xf9\xe9", 2);                 /* stc; jmp next */
		put_next(a);
		put(a, "\x48\xff\xc0\xc3", 4);         /* inc rax; ret */
		return constant + 1 + 1;
	}
}

static void write_page(struct part_test *t, unsigned page)
{
	struct asm_at a = {.n = 0};

	memset(a.code, 0xf4, sizeof(a.code));
	if (page + 1 < PAGES)
		t->adds[page] = put_page(&a, draw(t, 5), draw(t, 1 << 20));
	else
		put(&a, "\xf4", 1); /* hlt */
	assert_int_equal(mem_write(t->b->fx.m, CODE_PA + page * PAGE_SIZE, a.code, sizeof(a.code)), 0);
}

static void run_from(struct part_test *t, unsigned page)
{
	struct vcpu *v = t->b->v;
	uint64_t want = 0;

	for (unsigned i = page; i + 1 < PAGES; i++)
		want += t->adds[i];
	memset(v->gpr, 0, sizeof(v->gpr));
	v->halted = false;
	v->rip = K(CODE_PA) + page * PAGE_SIZE;
	v->rflags = FL_FIXED | FL_CF;
	v->gpr[RSP] = K(STACK_PA);
	v->gpr[RSI] = K(DATA_PA);
	mmu_serve(&v->mmu); /* what writing code has asked of the engine */
	v->event = 0;
	assert_int_equal(engine_bt.run(v), EXIT_HLT);
	assert_int_equal(v->gpr[RAX], want);
}

/* --- what must hold ----------------------------------------------------------------------------------------------------- */

static bool in_use(const struct bt *bt, uint32_t b)
{
	unsigned part = (b - 1) / BT_PART_BLOCKS;

	return b < (part == bt->part ? bt->nblocks : bt->used[part].blocks);
}

static void check_blocks(const struct bt *bt)
{
	unsigned alive = 0, listed = 0;

	for (uint32_t b = 1; b < BT_MAX_BLOCKS; b++) {
		const struct bt_block *blk = &bt->block[b];

		if (!in_use(bt, b)) {
			b = (b - 1) / BT_PART_BLOCKS * BT_PART_BLOCKS + BT_PART_BLOCKS; /* on to the next part */
			continue;
		}
		if (blk->dead)
			continue;
		alive++;
		assert_int_equal(bt_block_find(bt, blk->page, blk->off), b);
		assert_int_equal(bt_block_at(bt, blk->entry_ind), b);
		for (uint32_t l = blk->incoming, before = BT_FIRST_IN | b; l; before = l, l = bt->link[l].next_in)
			assert_int_equal(bt->link[l].prev_in, before);
	}
	for (uint32_t p = 1; p < bt->npages; p++) {
		for (uint32_t b = bt->page[p].first_block; b; b = bt->block[b].next_in_page, listed++) {
			assert_true(in_use(bt, b) && !bt->block[b].dead);
			assert_int_equal(bt->block[b].page, p);
		}
		for (unsigned off = 0; off < PAGE_SIZE; off++) {
			uint32_t host = bt->etab[p * PAGE_SIZE + off];

			assert_true(!host || host == bt->block[bt_block_find(bt, p, off)].entry_ind);
		}
	}
	assert_int_equal(alive, listed);
}

static void test_random(void **state)
{
	struct part_test *t = *state;
	struct bt *bt = bt_of(t->b->v);

	for (unsigned i = 0; i < ROUNDS; i++) {
		run_from(t, draw(t, PAGES));
		if (!draw(t, 3))
			bt_part_next(bt);
		if (!draw(t, 5))
			write_page(t, draw(t, PAGES - 1));
		if (!draw(t, 97))
			bt_flush(bt);
		if (!draw(t, 7))
			check_blocks(bt);
	}
	assert_true(bt->stats.parts > ROUNDS / 6);
}

/* Only the oldest part goes: what was translated since stays. */
static void test_oldest(void **state)
{
	struct part_test *t = *state;
	struct bt *bt = bt_of(t->b->v);
	uint64_t blocks, all;

	bt_flush(bt);
	run_from(t, PAGES / 2);
	all = bt->stats.blocks;
	bt_part_next(bt);
	run_from(t, 0);                  /* the first half, and the branch into the second */
	blocks = bt->stats.blocks;
	run_from(t, 0);
	assert_int_equal(bt->stats.blocks, blocks);
	for (unsigned i = 2; i < BT_PARTS; i++)
		bt_part_next(bt);
	run_from(t, 0);
	assert_int_equal(bt->stats.blocks, blocks);
	bt_part_next(bt);                /* the second half goes */
	run_from(t, 0);
	assert_true(bt->stats.blocks > blocks && bt->stats.blocks - blocks <= all);
	check_blocks(bt);
}

/* An undefined instruction is no reason to translate again and again, whether or not the page behind has been executed. */
static void test_undefined(void **state)
{
	struct part_test *t = *state;
	struct vcpu *v = t->b->v;
	struct bt *bt = bt_of(v);
	static const uint8_t undefined = 0x06, hlt = 0xf4;
	uint64_t blocks;

	run_from(t, 0);
	assert_int_equal(mem_write(t->b->fx.m, CODE_PA + 0x800, &undefined, 1), 0);
	assert_int_equal(mem_write(t->b->fx.m, HANDLER + VEC_UD, &hlt, 1), 0);
	mmu_serve(&v->mmu);
	v->event = 0;
	v->halted = false;
	v->rip = K(CODE_PA + 0x800);
	v->gpr[RSP] = K(STACK_PA);
	blocks = bt->stats.blocks;
	assert_int_equal(engine_bt.run(v), EXIT_HLT);
	assert_int_equal(v->rip, K(HANDLER + VEC_UD + 1));
	assert_true(bt->stats.blocks - blocks <= 2);
}

static int setup(void **state)
{
	struct part_test *t = calloc(1, sizeof(*t));

	t->random = 1;
	bed_setup((void **)&t->b);
	bed_long(t->b);
	t->b->v->fpu.xcr0 = 7;
	assert_int_equal(engine_bt.create(t->b->v), 0);
	for (unsigned i = 0; i < PAGES; i++)
		write_page(t, i);
	*state = t;
	return 0;
}

static int teardown(void **state)
{
	struct part_test *t = *state;
	void *b = t->b;

	engine_bt.destroy(t->b->v);
	bed_teardown(&b);
	free(t);
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_random),
		cmocka_unit_test(test_oldest),
		cmocka_unit_test(test_undefined),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}
