/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Hints: most lookups meet the page they met last time. Comparing with that page and adding its host address is half the instructions of
 * reading the flat table, and the address an access waits for comes from the hint, not through the table: a pointer is followed
 * in 2 cycles more than natively instead of 9. Only where the page is another one is the table read, out of line, and the hint
 * overwritten.
 *
 * That costs a misprediction. Lookups that meet many pages (hash tables) do better reading the table each time. So a lookup that has missed
 * PATIENCE times is translated again on trial, with both outcomes counted, and after SAMPLE misses more once again, as what is better.
 *
 * Lookups of the stack share a few hints, by code page: when the stack has moved to another page, the first one finds out and the others of
 * the function meet it. Where a frame lies in two pages that fails each time; whoever misses in the end gets a hint of its own, on trial.
 *
 * Invariants
 *  - A hint is what the flat tables hold: bt_hints_check() forgets all of them, before translated code runs, when anything has been
 *    dropped from the tables or the address space is another one (mmu.gen). What was only added does not matter.
 *  - Hints of kernel and user code, and for reading and writing, are apart: none is used with other rights than it was found with.
 *  - Lookups may have to share hints (there are BT_HINTS of a kind), and instructions their form (a hash): that is slower, not wrong.
 *  - Hints that have not been given yet are never looked at. Of the others, all that are not `none` are in a group that is `used`.
 *  - `none` matches addresses in the page at 2^63 only, and adding it leaves them as they are: not canonical, so the access faults.
 */
#include "engine/bt/bt.h"

#define NONE (1ull << 63)

/* The frame's slots are written all the time. A load from an address with the same low 12 bits that follows such a store is taken to
 * depend on it, and some 45 cycles are lost (seen on Zen 5): no hints where a page offset is that of a slot. */
#define PER_PAGE (PAGE_SIZE / sizeof(struct bt_hint))
#define PER_SLOTS (V_GPR / sizeof(struct bt_hint))
#define PLACES (BT_HINTS / PER_PAGE * (PER_PAGE - PER_SLOTS))

/* log2 of the bytes of hints that are forgotten together. */
#define GROUP_SHIFT 10
static_assert(BT_HINT_GROUP * sizeof(struct bt_hint) == 1 << GROUP_SHIFT, "a group");

/* Misses after which a lookup goes on trial: by then they have cost as much as the two translations that follow. */
#ifdef TORTURE_HINTS
#define PATIENCE 8
#define SAMPLE 8
#else
#define PATIENCE 1024
#define SAMPLE 256 /* ... and of the trial itself */
#endif
/* A miss costs so many times what a hit gains. */
#define MISS_COST 12

static struct bt_hints *hints(const struct bt *bt)
{
	return (struct bt_hints *)((uint8_t *)bt->v + VCPU_ENGINE_OFFSET);
}

static unsigned place(unsigned i)
{
	return (unsigned)(i / (PER_PAGE - PER_SLOTS) * PER_PAGE + PER_SLOTS + i % (PER_PAGE - PER_SLOTS));
}

/* --- forms ------------------------------------------------------------------------------------------------------ */

static uint8_t *form_of(const struct bt *bt, gfn_t gfn, unsigned off)
{
	/* Those of a block lie in a cache line or two. */
	uint64_t h = (gfn << (PAGE_SHIFT - 6) | off >> 6) * 0x9e3779b97f4a7c15ull;

	return &bt->form[(h >> 48 << 6 | (off & 63)) & (BT_FORMS - 1)];
}

enum bt_form bt_form(const struct bt *bt, gfn_t gfn, unsigned off)
{
	/* Lockstep cannot follow a block that is dropped in its middle, and checks both ways. */
	if (bt->single)
		return off & 1 ? BT_FORM_TABLE : off & 2 ? BT_FORM_KEEP : BT_FORM_SHARE;
	return *form_of(bt, gfn, off);
}

int32_t bt_hint_give(struct bt *bt, unsigned kind, enum bt_form form, uint32_t site, bool stack)
{
	struct bt_site *s = &bt->site[site];
	bool shared = stack && form != BT_FORM_TRIAL && form != BT_FORM_KEEP;
	unsigned i = place((unsigned)(bt->page[bt->block[s->block].page].gfn % BT_STACK_HINTS));

	if (!shared) {
		i = place(BT_STACK_HINTS + bt->next_hint[kind]++ % (PLACES - BT_STACK_HINTS));
		hints(bt)->hint[kind][i] = (struct bt_hint){NONE, NONE};
		hints(bt)->tally[kind][i] = (struct bt_tally){.left = form == BT_FORM_KEEP ? INT32_MAX : form == BT_FORM_TRIAL ? SAMPLE : PATIENCE};
	}
	s->form = (uint8_t)form;
	s->hint = (int32_t)((uint8_t *)&hints(bt)->hint[kind][i] - (uint8_t *)bt->v);
	return s->hint;
}

static uint32_t *review_of(const struct bt *bt)
{
	return (uint32_t *)((uint8_t *)bt->v + H_REVIEW);
}

void bt_hint_review_cancel(struct bt *bt)
{
	*review_of(bt) = 0;
}

/* What a lookup becomes: from `form`, in which it was translated, after `hits`. */
static enum bt_form next_form(enum bt_form form, uint32_t hits, bool stack)
{
	if (form == BT_FORM_HINT)
		return BT_FORM_TRIAL;
	if (hits >= SAMPLE * MISS_COST)
		return BT_FORM_KEEP;
	/* The stack itself moves between pages: whoever finds out does so for those that follow. */
	return stack ? BT_FORM_SHARE : BT_FORM_TABLE;
}

void bt_hint_review(struct bt *bt)
{
	const struct bt_site *s = &bt->site[*review_of(bt)];
	struct bt_tally *t = (struct bt_tally *)((uint8_t *)bt->v + s->hint + BT_TALLY);
	const struct bt_block *b = &bt->block[s->block];
	uint8_t *form = form_of(bt, bt->page[b->page].gfn, s->off);

	*review_of(bt) = 0;
	t->left = PATIENCE;
	if (b->dead || s->form == BT_FORM_KEEP || s->form == BT_FORM_SHARE)
		return;
	/* Other blocks with the same instruction may have changed its form since this one was translated. */
	if (s->form == *form) {
		*form = (uint8_t)next_form(s->form, t->hits, s->flags & SITE_STACK);
		bt->stats.trials += *form == BT_FORM_TRIAL;
		bt->stats.tables += *form == BT_FORM_TABLE;
	}
	bt_block_drop(bt, s->block);
}

/* --- contents ------------------------------------------------------------------------------------------------------ */

static void forget(struct bt *bt, unsigned kind)
{
	struct bt_hints *h = hints(bt);

	for (unsigned g = 0; g < BT_HINTS / BT_HINT_GROUP; g++) {
		uint64_t *to = &h->hint[kind][g * BT_HINT_GROUP].page;
		size_t n = BT_HINT_GROUP * sizeof(struct bt_hint) / sizeof(uint64_t);

		if (!h->used[kind][g])
			continue;
		h->used[kind][g] = 0;
		__asm__ volatile("rep stosq" : "+D"(to), "+c"(n) : "a"(NONE) : "memory");
	}
}

void bt_hints_check(struct bt *bt, bool user)
{
	unsigned first = user ? BT_HINT_USER : 0;

	if (bt->hint_gen != bt->v->mmu.gen) {
		bt->hint_gen = bt->v->mmu.gen;
		bt->hint_stale = 3;
	}
	if (likely(!(bt->hint_stale & BIT(user))))
		return;
	bt->hint_stale &= (uint8_t)~BIT(user);
	forget(bt, first);
	forget(bt, first | BT_HINT_WRITE);
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

/* [the hint whose offset is in reg, or another offset, + off] likewise. */
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
	int32_t hint = (int32_t)(VCPU_ENGINE_OFFSET + offsetof(struct bt_hints, hint[kind]));
	int32_t used = (int32_t)(VCPU_ENGINE_OFFSET + offsetof(struct bt_hints, used[kind]));
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
	emit_lea(e, R14, EMEM(RAX, -hint));
	emit_shift(e, 5, R14, GROUP_SHIFT); /* shr: the group */
	emit_op_mem(e, false, 0xc6, 0, hinted(R14, used)); /* mov byte, 1 */
	emit_byte(e, 1);
	emit_op_mem(e, false, 0x83, 5, hinted(RAX, BT_TALLY + (int32_t)offsetof(struct bt_tally, left))); /* sub dword, 1 */
	emit_byte(e, 1);
	review = emit_jcc(e, CC_S, emit_here(e));
	emit_load(e, RAX, frame(H_A0));
	emit_byte(e, 0xc3);
	emit_patch(e, review, emit_here(e));
	emit_load32(e, R14, frame(H_SITE));
	emit_store32(e, frame(H_REVIEW), R14);
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
	static const uint8_t sizes[] = {1, 2, 4, 8, 10, 16, 32, 64};

	_Static_assert(sizeof(struct bt_hints) <= VCPU_ENGINE_SIZE, "hints outgrow the engine's area");
	_Static_assert(sizeof(struct bt_hint) == sizeof(struct bt_tally), "one offset for both");
	for (unsigned kind = 0; kind < BT_HINT_KINDS; kind++) {
		for (unsigned i = 0; i < BT_STACK_HINTS; i++) {
			hints(bt)->hint[kind][place(i)] = (struct bt_hint){NONE, NONE};
			hints(bt)->tally[kind][place(i)].left = PATIENCE;
		}
		for (unsigned i = 0; i < nitems(sizes); i++) {
			bt->lookup[kind][sizes[i]] = (uint32_t)(e->w - bt->code_w);
			write_lookup(e, kind, sizes[i]);
			bt->table[kind][sizes[i]] = (uint32_t)(e->w - bt->code_w);
			write_table(e, kind, sizes[i]);
		}
	}
}
