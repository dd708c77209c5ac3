/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One block: decode to the first unconditional branch (or the page's end), find where flags are dead, emit entries, body,
 * exits and out-of-line code.
 *
 * Layout of a block's host code:
 *
 *     ind:    page base = r13 - offset              entered by indirect branches and from C, r13 = address of the block
 *     chk:    v->event != 0 ? -> C                  entered by backward and cross-page branches
 *     plain:  body ...                              entered by forward branches
 *
 * and elsewhere, in the cold part of the cache, crossing checks, calls of the slow path, unlinked exits.
 *
 * A block whose first use of the arithmetic flags is a read (flags_in) tests the event word without touching them.
 */
#include <Zydis/Zydis.h>
#include <errno.h>

#include "engine/bt/tr.h"

/* How far to look for the death of the flags behind a direct branch. */
#define PEEK_INSNS 6

static void emit_stub_call(struct tr *t, uint32_t arg, unsigned svc)
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
	bt->link[l] = (struct bt_link){.patch = (uint32_t)(jump - bt->code_w),
				       .target = target,
				       .block = t->block,
				       .slot = t->slot,
				       .backward = target <= (int32_t)t->insn_off[t->i]};
	t->cold_link[t->nlinks++] = (struct tr_cold_link){jump, l};
	return l;
}

void tr_link_plain(struct tr *t, uint8_t *jump)
{
	uint32_t l = new_link(t, jump, t->insn_off[t->i]);

	t->bt->link[l].plain = true;
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
	struct tr_cold_access *c = &t->cold[t->ncold];

	if (t->ncold == TR_MAX_COLD) {
		t->overflow = true;
		return;
	}
	t->ncold++;
	*c = (struct tr_cold_access){.site = tr_site(t, 0, 0), .absent = emit_jcc(&t->e, cc, emit_here(&t->e)), .interpret = true};
}

/* The jump table's entry for bits 1..11 of the target, or out of line to the thunk that fills it (jump.c). */
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

	emit_stub_call(t, s, BT_SVC_INTERP);
	t->ended = true;
}

/* --- decoding ------------------------------------------------------------------------------------------------ */

static bool ends_block(const struct bt *bt, enum bt_mode mode, const struct insn *in)
{
	switch (tr_classify(bt, mode, in)) {
	case TR_INTERP_END:
		return true;
	case TR_FLOW:
		return in->mnemonic == ZYDIS_MNEMONIC_JMP || in->mnemonic == ZYDIS_MNEMONIC_CALL ||
		       in->mnemonic == ZYDIS_MNEMONIC_RET || in->mnemonic == ZYDIS_MNEMONIC_SYSCALL ||
		       in->mnemonic == ZYDIS_MNEMONIC_SYSRET || in->mnemonic == ZYDIS_MNEMONIC_IRETQ;
	default:
		return false;
	}
}

/* One instruction of the page. That its bytes are read is announced first, to those who store to them. */
static int decode_at(struct tr *t, const uint8_t *page, unsigned off, struct insn *in)
{
	unsigned avail = PAGE_SIZE - off < INSN_MAX_LEN ? (unsigned)(PAGE_SIZE - off) : INSN_MAX_LEN;

	if (off < t->read_from || off + avail > t->read_to) {
		t->read_from = off;
		t->read_to = off + 4 * INSN_MAX_LEN < PAGE_SIZE ? off + 4 * INSN_MAX_LEN : (unsigned)PAGE_SIZE;
		mem_code_read(t->bt->v->mem, t->gfn, off, t->read_to - off);
	}
	return insn_decode(in, bt_insn_mode(t->mode), page + off, avail);
}

/* An instruction that reaches into the page behind, as a block of its own. */
static bool decode_crossing(struct tr *t, const uint8_t *page, unsigned off, uint32_t tail)
{
	const uint8_t *behind = tail ? mem_frame(t->bt->v->mem, t->bt->page[tail].gfn, false) : NULL;
	struct insn *in = &t->insn[0];
	uint8_t bytes[2 * INSN_MAX_LEN];
	unsigned here = (unsigned)(PAGE_SIZE - off);

	if (!behind || here >= INSN_MAX_LEN || t->bt->single)
		return false;
	mem_code_read(t->bt->v->mem, t->bt->page[tail].gfn, 0, INSN_MAX_LEN);
	__builtin_memcpy(bytes, page + off, here);
	__builtin_memcpy(bytes + here, behind, INSN_MAX_LEN);
	if (insn_decode(in, bt_insn_mode(t->mode), bytes, INSN_MAX_LEN) || in->len <= here ||
	    tr_classify(t->bt, t->mode, in) < TR_COMPUTE)
		return false;
	t->n = 1;
	t->insn_off[1] = (uint16_t)(off + in->len);
	t->open = !ends_block(t->bt, t->mode, in);
	t->tail = tail;
	return true;
}

static void decode_block(struct tr *t, const uint8_t *page, unsigned off, uint32_t tail)
{
	t->open = true;
	t->tail_known = tail || PAGE_SIZE - off >= INSN_MAX_LEN;
	while (t->n < BT_BLOCK_INSNS && off < PAGE_SIZE) {
		struct insn *in = &t->insn[t->n];

		t->insn_off[t->n] = (uint16_t)off;
		if (decode_at(t, page, off, in)) {
			/* Behind other instructions it is left to a block of its own. */
			if (!t->n && !t->bt->single)
				t->crossing = !decode_crossing(t, page, off, tail);
			else
				t->crossing = t->bt->single;
			return;
		}
		/* Lockstep compares pure blocks: interpreted instructions get one of their own. */
		if (t->bt->single && t->n && tr_classify(t->bt, t->mode, in) < TR_COMPUTE)
			return;
		t->n++;
		off += in->len;
		t->insn_off[t->n] = (uint16_t)off;
		if (ends_block(t->bt, t->mode, in)) {
			t->open = false;
			return;
		}
	}
}

/* Flags that the code at `off` of this page may read before writing them, looking a few instructions ahead. The bytes looked at
 * become part of the block: changing them drops it. */
static uint16_t flags_at(struct tr *t, const uint8_t *page, unsigned off)
{
	struct bt_block *b = &t->bt->block[t->block];
	uint16_t live = 0, unknown = FL_ARITH;

	b->peek = (uint16_t)off;
	for (unsigned i = 0; i < PEEK_INSNS && unknown && off < PAGE_SIZE; i++) {
		struct insn in;

		if (decode_at(t, page, off, &in) || ends_block(t->bt, t->mode, &in))
			break;
		live |= (uint16_t)(unknown & tr_flags_used(t->bt, t->mode, &in));
		unknown &= (uint16_t)~(tr_flags_killed(&in) | live);
		off += in.len;
	}
	b->peek_end = (uint16_t)off;
	return live | unknown;
}

/* Flags alive where the block is left at its end: all, unless a direct branch or the fall-through stays in the page. */
static uint16_t flags_at_exit(struct tr *t, const uint8_t *page)
{
	const struct insn *last = t->n ? &t->insn[t->n - 1] : NULL;
	int32_t target;

	if (!last || t->crossing || t->bt->single) /* lockstep compares flags at every block's end */
		return FL_ARITH;
	if (t->open)
		target = t->insn_off[t->n];
	else if (last->op[0].kind == OPND_REL)
		target = (int32_t)(t->insn_off[t->n] + (int32_t)last->imm[0]);
	else
		return FL_ARITH;
	return target >= 0 && target < (int32_t)PAGE_SIZE ? flags_at(t, page, (unsigned)target) : FL_ARITH;
}

/* Backwards: which arithmetic flags are read before being written. Everything is live where the block can be left with a
 * guest-visible state of its own choosing: side exits, interpreted instructions, the end. */
static void flag_liveness(struct tr *t, const uint8_t *page)
{
	uint16_t live = flags_at_exit(t, page);

	for (unsigned i = t->n; i-- > 0;) {
		t->live_after[i] = live;
		live = (uint16_t)((live & ~tr_flags_killed(&t->insn[i])) | tr_flags_used(t->bt, t->mode, &t->insn[i]));
		t->live_before[i] = live;
	}
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

static void emit_cold_access(struct tr *t, const struct tr_cold_access *c)
{
	struct emit *e = &t->e;

	if (c->misaligned && !c->demand) {
		emit_patch(e, c->misaligned, emit_here(e));
		emit_call(e, t->bt->code_x + t->bt->crossing[c->size]);
		emit_jmp(e, c->back);
	}
	emit_patch(e, c->absent, emit_here(e));
	if (c->demand)
		emit_patch(e, c->misaligned, emit_here(e));
	emit_stub_call(t, c->site, c->interpret ? BT_SVC_INTERP : BT_SVC_SLOW);
}

static void emit_cold(struct tr *t, uint8_t *event_ind, uint8_t *event_chk)
{
	struct emit *e = &t->e;
	struct bt *bt = t->bt;

	for (unsigned i = 0; i < t->ncold; i++)
		emit_cold_access(t, &t->cold[i]);
	if (t->guard) {
		emit_patch(e, t->guard, emit_here(e));
		emit_stub_call(t, t->guard_site, BT_SVC_INTERP);
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
		emit_stub_call(t, t->cold_link[i].link, BT_SVC_LINK);
	}
	emit_patch(e, event_ind, emit_here(e));
	emit_stub_call(t, t->block, bt->block[t->block].flags_in ? BT_SVC_EVENT_SLOT : BT_SVC_EVENT_HOST);
	if (event_chk) {
		emit_patch(e, event_chk, emit_here(e));
		emit_stub_call(t, t->block, BT_SVC_EVENT_HOST);
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

uint32_t bt_translate(struct bt *bt, uint32_t page, unsigned off, uint32_t tail)
{
	struct tr t = {.bt = bt, .mode = bt->page[page].mode, .plain = bt->page[page].plain, .gfn = bt->page[page].gfn};
	struct bt_block *b = &bt->block[bt->nblocks];
	uint32_t sites = bt->nsites, links = bt->nlinks;
	uint8_t *event_ind, *event_chk;
	const uint8_t *code = mem_frame(bt->v->mem, bt->page[page].gfn, false);

	if (!bt_part_room(bt) || !code)
		return 0;
	bt_get_ready(bt);
	vcpu_fpu_park(bt->v); /* Zydis */
	t.e = bt_emit_at_end(bt);
	t.e.end = t.e.w + BT_BLOCK_BYTES;
	t.block = bt->nblocks;
	*b = (struct bt_block){.page = page, .off = (uint16_t)off, .first_site = sites};
	decode_block(&t, code, off, tail);
	flag_liveness(&t, code);
	tr_loop_plan(&t);
	emit_entries(&t, &event_ind, &event_chk);
	emit_body(&t);
	if (t.loop.enter && !t.overflow)
		tr_loop_emit(&t);
	b->host_end = tr_here(&t);
	b->cold = bt->cold_used;
	if (!t.overflow && !t.e.full) {
		t.e.w = bt->code_w + b->cold;
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
	b->pure = t.n && tr_classify(bt, t.mode, &t.insn[0]) >= TR_COMPUTE;
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
