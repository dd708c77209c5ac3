/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One block: what has been decoded of it (decode.c) becomes entries, body, exits and out-of-line code.
 *
 * Layout of a block's host code:
 *
 *     ind:    page base = r13 - offset              entered by indirect branches and from C, r13 = address of the block
 *     chk:    v->event != 0 ? -> C                  entered by backward branches
 *     plain:  body ...                              entered by forward branches
 *
 * and elsewhere, in the cold part of the cache, lookups whose hint was of no use, calls of the slow path, unlinked exits.
 *
 * A block whose first use of the arithmetic flags is a read (flags_in) tests the event word without touching them.
 */
#include <Zydis/Zydis.h>
#include <string.h>

#include "engine/bt/tr.h"

void tr_stub_call(struct tr *t, uint32_t arg, unsigned svc)
{
	emit_store_imm32(&t->e, EMEM(RSP, H_SITE), arg);
	emit_jmp(&t->e, t->bt->code_x + t->bt->stub[svc]);
}

void tr_flags_to_slot(struct tr *t)
{
	t->held[1] = -1;
	bt_emit_flags_save(&t->e, R14);
	t->slot = true;
}

void tr_flags_rescue(struct tr *t)
{
	if (!t->slot && (t->live_before[t->i] & FL_ARITH))
		tr_flags_to_slot(t);
}

void tr_flags_to_host(struct tr *t, unsigned scratch)
{
	bt_emit_flags_restore(&t->e, scratch);
	t->slot = false;
}

static uint32_t new_link(struct tr *t, uint8_t *jump, int32_t target)
{
	struct bt *bt = t->bt;
	uint32_t l = bt->nlinks;

	if (l == bt->end.links || t->nlinks == nitems(t->cold_link)) {
		t->overflow = true;
		return 0;
	}
	bt->nlinks++;
	bt->link[l] = (struct bt_link){.patch = jump ? (uint32_t)(jump - bt->code_w) : 0,
				       .target = target,
				       .block = t->block,
				       .slot = t->slot,
				       .backward = target <= (int32_t)t->insn_off[t->i]};
	t->cold_link[t->nlinks++] = (struct tr_cold_link){jump, l};
	return l;
}

uint32_t tr_link_plain(struct tr *t)
{
	uint32_t l = new_link(t, NULL, t->insn_off[t->i]);

	t->bt->link[l].plain = true;
	return t->nlinks - 1;
}

void tr_cold_link_jump(struct tr *t, uint32_t i, uint8_t *jump)
{
	t->cold_link[i].jump = jump;
	t->bt->link[t->cold_link[i].link].patch = (uint32_t)(jump - t->bt->code_w);
}

void tr_exit_direct(struct tr *t, int32_t target)
{
	new_link(t, emit_jmp(&t->e, emit_here(&t->e)), target);
	t->ended = true;
}

void tr_jcc(struct tr *t, enum cond cc, int32_t target)
{
	new_link(t, cc == CC_ALWAYS ? emit_jmp(&t->e, emit_here(&t->e)) : emit_jcc(&t->e, cc, emit_here(&t->e)), target);
}

void tr_interpret_if(struct tr *t, enum cond cc)
{
	struct tr_cold_access *c = tr_cold_add(t, 0, 0);

	if (!c)
		return;
	c->other[0] = emit_jcc(&t->e, cc, emit_here(&t->e));
	c->interpret = true;
}

/* The jump table's entry for the target's low bits, or out of line to the thunk that fills it (jump.c). */
void tr_exit_dispatch(struct tr *t, int32_t adjust)
{
	struct emit *e = &t->e;

	if (!t->slot)
		tr_flags_to_slot(t);
	t->dispatch_site = tr_site(t, 0, 0);
	t->bt->site[t->dispatch_site].adjust = adjust;
	t->ended = true;
	emit_op_reg(e, false, 0x89, R13, R14); /* mov r14d, r13d */
	emit_and_imm32(e, R14, (BT_JUMPS - 1) * 2);
	emit_op_mem(e, true, 0x03, R14, EMEM(RSP, H_JUMP));          /* add */
	emit_op_mem(e, true, 0x3b, R13, EMEMX(NOREG, R14, 8, 0));    /* cmp r13, [r14*8] */
	t->dispatch = emit_jcc(e, CC_NE, emit_here(e));
	emit_op_mem(e, false, 0xff, 4, EMEMX(NOREG, R14, 8, 8));     /* jmp [r14*8+8] */
}

static void exit_interp(struct tr *t)
{
	uint32_t s = tr_site(t, SITE_END | (t->tail_known ? 0 : SITE_CROSSING), 0);

	tr_stub_call(t, s, BT_SVC_INTERP);
	t->ended = true;
}

/* --- emission -------------------------------------------------------------------------------------------------- */

static void emit_entries(struct tr *t, uint8_t **event_ind, uint8_t **event_chk)
{
	struct bt_block *b = &t->bt->block[t->block];
	struct emit *e = &t->e;
	struct emem event = EMEM(RSP, V_EVENT);

	b->flags_in = t->n == 0 || (t->live_before[0] & FL_ARITH);
	b->entry_ind = tr_here(t);
	if (b->off)
		emit_lea(e, R13, EMEM(R13, -(int32_t)b->off));
	emit_store(e, EMEM(RSP, H_PB), R13);
	if (!b->flags_in)
		b->entry_chk = tr_here(t);
	emit_op_mem(e, false, 0x83, 7, event); /* cmp dword [event], 0 */
	emit_byte(e, 0);
	*event_ind = emit_jcc(e, CC_NE, emit_here(e));
	*event_chk = NULL;
	if (b->flags_in) {
		uint8_t *skip, *rel8;

		bt_emit_flags_restore(e, R13);
		skip = emit_jmp(e, emit_here(e));
		b->entry_chk = tr_here(t);
		emit_store(e, EMEM(RSP, H_TMP0), RCX);
		emit_load32(e, RCX, event);
		emit_byte(e, 0xe3); /* jrcxz */
		rel8 = e->w;
		emit_byte(e, 0);
		emit_load(e, RCX, EMEM(RSP, H_TMP0));
		*event_chk = emit_jmp(e, emit_here(e));
		if (!e->full)
			*rel8 = (uint8_t)(e->w - rel8 - 1);
		emit_load(e, RCX, EMEM(RSP, H_TMP0));
		emit_patch(e, skip, emit_here(e));
	}
	b->entry_plain = tr_here(t);
	if (t->loop.end)
		tr_loop_head(t);
}

void tr_emit_insns(struct tr *t, unsigned n)
{
	for (t->i = 0; t->i < n && !t->ended && !t->overflow; t->i++) {
		t->insn_start = tr_here(t);
		t->npending = 0;
		tr_emit_insn(t);
		for (unsigned k = 0; k < t->npending; k++)
			t->bt->site[t->pending_next[k]].next = tr_here(t);
	}
}

/* The instruction is what it was if the page that is executed behind is the one it was decoded from. */
static void emit_guard(struct tr *t)
{
	struct emit *e = &t->e;

	t->insn_start = tr_here(t);
	t->npending = 0;
	tr_flags_rescue(t);
	t->guard_site = tr_site(t, SITE_END, 0);
	bt_emit_compare_page(e, bt_etab_off(t->tail), PAGE_SIZE);
	t->guard = emit_jcc(e, CC_NE, emit_here(e));
}

static void emit_body(struct tr *t)
{
	if (t->tail)
		emit_guard(t);
	tr_values_init(&t->values);
	tr_held_forget(t);
	tr_emit_insns(t, t->n);
	if (t->ended || t->overflow)
		return;
	t->insn_start = tr_here(t);
	t->npending = 0;
	if (t->crossing && !(t->bt->single && t->n))
		exit_interp(t);
	else
		tr_exit_direct(t, t->insn_off[t->n]);
	for (unsigned k = 0; k < t->npending; k++)
		t->bt->site[t->pending_next[k]].next = tr_here(t);
}

static void emit_cold(struct tr *t, uint8_t *event_ind, uint8_t *event_chk)
{
	struct emit *e = &t->e;
	struct bt *bt = t->bt;

	for (unsigned i = 0; i < t->ncold; i++)
		tr_lookup_cold(t, &t->cold[i]);
	if (t->guard) {
		emit_patch(e, t->guard, emit_here(e));
		tr_stub_call(t, t->guard_site, BT_SVC_INTERP);
	}
	if (t->dispatch) {
		emit_patch(e, t->dispatch, emit_here(e));
		emit_store_imm32(e, EMEM(RSP, H_SITE), t->dispatch_site);
		emit_jmp(e, bt->code_x + bt->jump_miss);
	}
	for (unsigned i = 0; i < t->nlinks; i++) {
		struct bt_link *l = &bt->link[t->cold_link[i].link];

		emit_patch(e, t->cold_link[i].jump, emit_here(e));
		l->stub = tr_here(t);
		tr_stub_call(t, t->cold_link[i].link, BT_SVC_LINK);
	}
	emit_patch(e, event_ind, emit_here(e));
	tr_stub_call(t, t->block, bt->block[t->block].flags_in ? BT_SVC_EVENT_SLOT : BT_SVC_EVENT_HOST);
	if (event_chk) {
		emit_patch(e, event_chk, emit_here(e));
		tr_stub_call(t, t->block, BT_SVC_EVENT_HOST);
	}
}

/* Branches to blocks of this page that exist already need not go through C once. */
static void link_known(struct bt *bt, uint32_t page, uint32_t first_link)
{
#ifndef TORTURE_NOCHAIN
	if (bt->single || bt->page[page].plain)
		return;
	for (uint32_t l = first_link; l < bt->nlinks; l++) {
		int32_t target = bt->link[l].target;
		uint32_t b = target >= 0 && target < (int32_t)PAGE_SIZE && !bt->link[l].plain ? bt_block_find(bt, page, (unsigned)target) : 0;

		if (b)
			(void)bt_link_patch(bt, l, b, false); /* where there is no room, C does it */
	}
#else
	(void)bt, (void)page, (void)first_link;
#endif
}

/* The arrays are written before they are read, as far as they are used. */
static void tr_init(struct tr *t, struct bt *bt, const struct bt_page *page)
{
	memset(t, 0, offsetof(struct tr, cold));
	t->bt = bt;
	t->mode = page->mode;
	t->plain = page->plain;
	t->gfn = page->gfn;
}

uint32_t bt_translate(struct bt *bt, uint32_t page, unsigned off, uint32_t tail)
{
	struct tr t;
	struct bt_block *b = &bt->block[bt->nblocks];
	uint32_t sites = bt->nsites, links = bt->nlinks;
	uint8_t *event_ind, *event_chk;
	const uint8_t *code = mem_frame(bt->v->mem, bt->page[page].gfn, false);

	if (!bt_part_room(bt) || !code)
		return 0;
	bt_get_ready(bt);
	bt_block_fetch(bt, page, off);
	tr_init(&t, bt, &bt->page[page]);
	t.e = bt_emit_at_end(bt);
	t.e.end = t.e.w + BT_BLOCK_BYTES;
	t.block = bt->nblocks;
	*b = (struct bt_block){.page = page, .off = (uint16_t)off, .first_site = sites};
	tr_decode(&t, code, off, tail);
	tr_loop_plan(&t);
	emit_entries(&t, &event_ind, &event_chk);
	emit_body(&t);
	if (t.loop.enter && !t.overflow)
		tr_loop_emit(&t);
	b->host_end = tr_here(&t);
	b->cold = bt->cold_used;
	if (!t.overflow && !t.e.full) {
		t.e = bt_emit_cold(bt);
		t.e.end = t.e.w + BT_BLOCK_BYTES;
		emit_cold(&t, event_ind, event_chk);
	}
	if (t.overflow || t.e.full) {
		bt->nsites = sites;
		bt->nlinks = links;
		return 0;
	}
	b->end = t.crossing || t.tail ? PAGE_SIZE : t.insn_off[t.n];
	if (b->end <= b->off)
		b->end = PAGE_SIZE;
	b->tail = t.tail;
	b->tail_end = t.tail ? (uint16_t)(t.insn_off[1] - PAGE_SIZE) : 0;
	b->pure = t.n && t.cls[0] >= TR_COMPUTE;
	b->ninsn = (uint16_t)t.n;
	b->nsites = bt->nsites - sites;
	bt->code_used = (b->host_end + 15) & ~15u;
	bt->cold_used = b->cold_end = tr_here(&t);
	bt->stats.translated += t.n;
	bt->stats.blocks++;
	bt->stats.loops += t.loop.enter != NULL;
	bt_block_add(bt, t.block);
	bt->nblocks++;
	link_known(bt, page, links);
	return t.block;
}
