/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Hints: most lookups meet the page they met last time. Comparing with that page and adding its host address is half the instructions of
 * reading the flat table, and the address an access waits for comes from the hint, not through the table: a pointer is followed
 * in 2 cycles more than natively instead of 9. Only where the page is another one is the table read, out of line, and the hint
 * overwritten.
 *
 * That costs a misprediction. Lookups that meet many pages (hash tables) do better reading the table each time. So a lookup that has missed
 * SAMPLE times is translated again on trial, with both outcomes counted, and after as many misses more once again, as what is better.
 *
 * Invariants
 *  - A hint is what the flat tables hold: bt_hints_check() forgets all of them, before translated code runs, when anything has been
 *    dropped from the tables or the address space is another one (mmu.gen). What was only added does not matter.
 *  - Hints of kernel and user code, and for reading and writing, are apart: none is used with other rights than it was found with.
 *  - Those of the stack share BT_STACK_HINTS, by code page; other lookups may have to share hints (there are BT_HINTS of a kind), and
 *    instructions their form (a hash): that is slower, not wrong.
 *  - `none` matches addresses in the page at 2^63 only, and adding it leaves them as they are: not canonical, so the access faults.
 */
#include "engine/bt/bt.h"

#define NONE (1ull << 63)

/* Misses after which a lookup is looked at again. */
#ifdef TORTURE_HINTS
#define SAMPLE 8
#else
#define SAMPLE 256
#endif
/* A miss costs so many times what a hit gains. */
#define MISS_COST 12

static struct bt_hints *hints(const struct bt *bt)
{
	return (struct bt_hints *)((uint8_t *)bt->v + VCPU_ENGINE_OFFSET);
}

/* --- forms ------------------------------------------------------------------------------------------------------ */

static uint8_t *form_of(const struct bt *bt, gfn_t gfn, unsigned off)
{
	uint64_t h = (gfn << PAGE_SHIFT | off) * 0x9e3779b97f4a7c15ull;

	return &bt->form[h >> 48 & (BT_FORMS - 1)];
}

enum bt_form bt_form(const struct bt *bt, gfn_t gfn, unsigned off)
{
	/* Lockstep cannot follow a block that is dropped in its middle, and checks both ways. */
	if (bt->single)
		return off & 1 ? BT_FORM_TABLE : BT_FORM_KEEP;
	return *form_of(bt, gfn, off);
}

static int32_t offset_of(const struct bt *bt, unsigned kind, unsigned i)
{
	return (int32_t)((uint8_t *)&hints(bt)->hint[kind][i] - (uint8_t *)bt->v);
}

int32_t bt_hint_new(struct bt *bt, unsigned kind, enum bt_form form, uint32_t site)
{
	unsigned i = BT_STACK_HINTS + bt->next_hint[kind]++ % (BT_HINTS - BT_STACK_HINTS);

	hints(bt)->tally[kind][i] = (struct bt_tally){.left = form == BT_FORM_KEEP ? INT32_MAX : SAMPLE, .site = site, .form = form};
	return offset_of(bt, kind, i);
}

int32_t bt_hint_stack(const struct bt *bt, unsigned kind, gfn_t gfn)
{
	return offset_of(bt, kind, gfn % BT_STACK_HINTS);
}

void bt_hints_forget_sites(struct bt *bt)
{
	for (unsigned kind = 0; kind < BT_HINT_KINDS; kind++) {
		uint32_t given = bt->next_hint[kind] < BT_HINTS - BT_STACK_HINTS ? bt->next_hint[kind] : BT_HINTS - BT_STACK_HINTS;

		for (unsigned i = 0; i < given; i++)
			hints(bt)->tally[kind][BT_STACK_HINTS + i].site = 0;
		bt->next_hint[kind] = 0;
	}
}

void bt_hint_review(struct bt *bt)
{
	uint32_t *review = (uint32_t *)((uint8_t *)bt->v + H_REVIEW);
	struct bt_tally *t = (struct bt_tally *)((uint8_t *)bt->v + *review + BT_TALLY);
	const struct bt_site *s = &bt->site[t->site];
	const struct bt_block *b = &bt->block[s->block];
	uint8_t *form;

	*review = 0;
	if (!t->site || b->dead) {
		t->left = SAMPLE;
		return;
	}
	form = form_of(bt, bt->page[b->page].gfn, s->off);
	if (t->form == BT_FORM_KEEP) {
		t->left = INT32_MAX;
		return;
	}
	/* Other blocks with the same instruction may have changed its form since this one was translated. */
	if (t->form == *form && t->form == BT_FORM_HINT) {
		*form = BT_FORM_TRIAL;
		bt->stats.trials++;
	} else if (t->form == *form) {
		*form = t->hits < SAMPLE * MISS_COST ? BT_FORM_TABLE : BT_FORM_KEEP;
		bt->stats.tables += *form == BT_FORM_TABLE;
	}
	t->site = 0;
	t->left = SAMPLE;
	bt_block_drop(bt, s->block);
}

/* --- contents ------------------------------------------------------------------------------------------------------ */

static void forget(struct bt *bt, unsigned kind)
{
	uint64_t *to = &hints(bt)->hint[kind][0].page;
	size_t n = BT_HINTS * sizeof(struct bt_hint) / sizeof(uint64_t);

	__asm__ volatile("rep stosq" : "+D"(to), "+c"(n) : "a"(NONE) : "memory");
}

void bt_hints_check(struct bt *bt, bool user)
{
	struct bt_hints *h = hints(bt);
	unsigned first = user ? BT_HINT_USER : 0;

	if (bt->hint_gen != bt->v->mmu.gen) {
		bt->hint_gen = bt->v->mmu.gen;
		bt->hint_stale = 3;
	}
	if (likely(!(bt->hint_stale & BIT(user))))
		return;
	bt->hint_stale &= (uint8_t)~BIT(user);
	for (unsigned kind = first; kind < first + 2; kind++)
		if (h->used[kind]) {
			h->used[kind] = 0;
			forget(bt, kind);
		}
	bt->stats.forgets++;
}

/* --- thunks ------------------------------------------------------------------------------------------------------ */

/* A thunk's return address. */
#define PUSHED 8

/* [rsp+off] as seen by a thunk. */
static struct emem frame(int32_t off)
{
	return EMEM(RSP, off + PUSHED);
}

/* [the hint whose offset is in reg, + off] likewise. */
static struct emem hinted(unsigned reg, int32_t off)
{
	return EMEMX(RSP, (uint8_t)reg, 1, off + PUSHED);
}

uint8_t *bt_emit_crosses(struct emit *e, unsigned bytes)
{
	emit_lea(e, R14, EMEM(R13, (int32_t)(bytes - 1)));
	emit_op_reg(e, false, 0x31, R13, R14); /* xor r14d, r13d */
	emit_test_imm32(e, R14, PAGE_SIZE);
	return emit_jcc(e, CC_NE, emit_here(e));
}

uint8_t *bt_emit_entry(struct emit *e, unsigned pointer, unsigned entry, bool write, int32_t pushed)
{
	emit_pext(e, entry, pointer, EMEM(RSP, H_MASK + pushed));
	emit_op_mem(e, true, 0x03, entry, EMEM(RSP, (write ? H_WTAB : H_RTAB) + pushed)); /* add */
	emit_load(e, entry, EMEMX(NOREG, (uint8_t)entry, 8, 0));
	emit_op_reg(e, true, 0x85, entry, entry); /* test */
	return emit_jcc(e, CC_E, emit_here(e));
}

/* r14 = entry for the bytes at r13, or the thunk returns behind the 5-byte jump that follows its call: there is none, or they lie in two pages. */
static void emit_entry(struct emit *e, unsigned kind, unsigned size, uint8_t *fail[2])
{
	fail[0] = size > 1 ? bt_emit_crosses(e, size) : NULL;
	fail[1] = bt_emit_entry(e, R13, R14, kind & BT_HINT_WRITE, PUSHED);
}

static void emit_fail(struct emit *e, uint8_t *fail[2])
{
	for (unsigned i = 0; i < 2; i++)
		if (fail[i])
			emit_patch(e, fail[i], emit_here(e));
	emit_op_mem(e, true, 0x83, 0, EMEM(RSP, 0)); /* add qword [rsp], 5 */
	emit_byte(e, 5);
	emit_byte(e, 0xc3);
}

/* r13 = guest address ^ the hint's page, r14 = offset of the hint from RSP. Returns with r13 = host address, or fails with r13 = guest
 * address, also if C is to review the hint. What the guest waits for comes first, RAX helps with the rest. */
static void write_lookup(struct emit *e, unsigned kind, unsigned size)
{
	int32_t used = (int32_t)(VCPU_ENGINE_OFFSET + offsetof(struct bt_hints, used) + kind);
	uint8_t *fail[2], *review;

	emit_op_mem(e, true, 0x33, R13, hinted(R14, offsetof(struct bt_hint, page))); /* xor */
	emit_store(e, frame(H_TMP0), R14);
	emit_entry(e, kind, size, fail);
	emit_op_reg(e, true, 0x01, R14, R13); /* add r13, r14 */
	emit_store(e, frame(H_A0), RAX);
	emit_load(e, RAX, frame(H_TMP0));
	emit_op_reg(e, true, 0xf7, 3, R14);   /* neg */
	emit_lea(e, R14, EMEMX(R14, R13, 1, 0));
	emit_and_page(e, R14);
	emit_store(e, hinted(RAX, offsetof(struct bt_hint, page)), R14);
	emit_mov(e, R14, R13);
	emit_and_page(e, R14);
	emit_store(e, hinted(RAX, offsetof(struct bt_hint, host)), R14);
	emit_op_mem(e, false, 0xc6, 0, frame(used)); /* mov byte, 1 */
	emit_byte(e, 1);
	emit_op_mem(e, false, 0x83, 5, hinted(RAX, BT_TALLY + (int32_t)offsetof(struct bt_tally, left))); /* sub dword, 1 */
	emit_byte(e, 1);
	review = emit_jcc(e, CC_S, emit_here(e));
	emit_load(e, RAX, frame(H_A0));
	emit_byte(e, 0xc3);
	emit_patch(e, review, emit_here(e));
	emit_store32(e, frame(H_REVIEW), RAX);
	emit_and_imm32(e, R13, PAGE_MASK);
	emit_op_mem(e, true, 0x0b, R13, hinted(RAX, offsetof(struct bt_hint, page))); /* or: the guest address again */
	emit_load(e, RAX, frame(H_A0));
	emit_fail(e, fail);
}

/* r13 = guest address. The same without a hint. */
static void write_table(struct emit *e, unsigned kind, unsigned size)
{
	uint8_t *fail[2];

	emit_entry(e, kind, size, fail);
	emit_op_reg(e, true, 0x01, R14, R13); /* add r13, r14 */
	emit_byte(e, 0xc3);
	emit_fail(e, fail);
}

void bt_hint_thunks(struct bt *bt, struct emit *e)
{
	static const uint8_t sizes[] = {1, 2, 4, 8, 10, 16, 32};

	_Static_assert(sizeof(struct bt_hints) <= VCPU_ENGINE_SIZE, "hints outgrow the engine's area");
	_Static_assert(sizeof(struct bt_hint) == sizeof(struct bt_tally), "one offset for both");
	for (unsigned kind = 0; kind < BT_HINT_KINDS; kind++) {
		for (unsigned i = 0; i < BT_HINTS; i++) {
			hints(bt)->hint[kind][i] = (struct bt_hint){NONE, NONE};
			hints(bt)->tally[kind][i].left = INT32_MAX;
		}
		for (unsigned i = 0; i < nitems(sizes); i++) {
			bt->lookup[kind][sizes[i]] = (uint32_t)(e->w - bt->code_w);
			write_lookup(e, kind, sizes[i]);
			bt->table[kind][sizes[i]] = (uint32_t)(e->w - bt->code_w);
			write_table(e, kind, sizes[i]);
		}
	}
}
