/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Chaining: direct branches between blocks, and the bridges that keep a cross-page branch honest.
 *
 * Inside a page a branch is patched to its target: the same frame stays the same code. Across pages the branch goes through a
 * bridge that looks up the target's virtual page in the x table and compares it with the page that the target was translated
 * from: after a change of mapping the bridge leads to dispatch, out of line. Flags: an edge carries them in the host register or in
 * the flag slot (link.slot); a bridge restores them if the target reads them (block.flags_in) and keeps them otherwise.
 *
 * Invariant: a bridge lies in the part that was being filled when the branch was linked, which is not older than the branch's own. As
 * parts are dropped from the oldest on, no branch outlives its bridge.
 */
#include "engine/bt/bt.h"

/* More than any bridge takes, in line or out of line. */
#define BT_BRIDGE_BYTES 256

/* RAX is kept in a register, which costs its reader no round trip through memory. */
void bt_emit_flags_save(struct emit *e, unsigned scratch)
{
	emit_mov(e, scratch, RAX);
	emit_byte(e, 0x9f); /* lahf */
	emit_op_reg(e, false, 0x0f90, 0, RAX); /* seto al */
	emit_store32(e, EMEM(RSP, H_FL), RAX);
	emit_mov(e, RAX, scratch);
}

void bt_emit_flags_restore(struct emit *e, unsigned scratch)
{
	if (scratch == NOREG)
		emit_store(e, EMEM(RSP, H_TMP0), RAX);
	else
		emit_mov(e, scratch, RAX);
	emit_load32(e, RAX, EMEM(RSP, H_FL));
	emit_byte(e, 0x04); /* add al, 7fh: OF = saved bit */
	emit_byte(e, 0x7f);
	emit_byte(e, 0x9e); /* sahf */
	if (scratch == NOREG)
		emit_load(e, RAX, EMEM(RSP, H_TMP0));
	else
		emit_mov(e, RAX, scratch);
}

/* Out of line: the page is another than the link's target was translated from. The edge's flags to the slot, and to dispatch. */
static void bridge_miss(struct bt *bt, const struct bt_link *l, uint8_t *miss)
{
	struct emit e = bt_emit_cold(bt);

	emit_patch(&e, miss, emit_here(&e));
	if (!l->slot) {
		emit_load(&e, RCX, EMEM(RSP, H_TMP0));
		bt_emit_flags_save(&e, R14);
	}
	emit_load(&e, R13, EMEM(RSP, H_PB));
	emit_lea(&e, R13, EMEM(R13, l->target));
	emit_store(&e, EMEM(RSP, H_RIP), R13);
	emit_jmp(&e, bt->code_x + bt->stub[BT_SVC_MISS]);
	bt->cold_used = (uint32_t)(e.w - bt->code_w);
}

static void page_number(struct emit *e, int32_t page_delta)
{
	emit_load(e, R13, EMEM(RSP, H_PB));
	emit_lea(e, R13, EMEM(R13, page_delta));
	emit_pext(e, R14, R13, EMEM(RSP, H_XMASK));
}

void bt_emit_compare_page(struct emit *e, uint32_t expect, int32_t page_delta)
{
	page_number(e, page_delta);
	emit_load(e, R13, EMEM(RSP, H_XB));
	emit_op_mem(e, false, 0x81, 7, EMEMX(R13, R14, 4, 0)); /* cmp dword [r13+r14*4], expect */
	emit_u32(e, expect);
}

/* The same with r13 = that page, for an instruction more. */
static void compare_page(struct emit *e, uint32_t expect, int32_t page_delta)
{
	page_number(e, page_delta);
	emit_shift(e, 4, R14, 2);                             /* shl */
	emit_op_mem(e, true, 0x03, R14, EMEM(RSP, H_XB));     /* add */
	emit_op_mem(e, false, 0x81, 7, EMEM(R14, 0));         /* cmp dword [r14], expect */
	emit_u32(e, expect);
}

/* Flags in the host register: compare with LEA and JRCXZ, which leave them alone. Returns the branch taken if the page is another one. */
static uint8_t *compare_page_keeping_flags(struct emit *e, uint32_t expect, int32_t page_delta)
{
	uint8_t *rel8, *miss;

	page_number(e, page_delta);
	emit_store(e, EMEM(RSP, H_TMP0), RCX);
	emit_load(e, RCX, EMEM(RSP, H_XB));
	emit_load32(e, RCX, EMEMX(RCX, R14, 4, 0));
	emit_lea32(e, RCX, EMEM(RCX, -(int32_t)expect));
	emit_byte(e, 0xe3); /* jrcxz */
	rel8 = e->w;
	emit_byte(e, 0);
	miss = emit_jmp(e, emit_here(e));
	if (!e->full)
		*rel8 = (uint8_t)(e->w - rel8 - 1);
	emit_load(e, RCX, EMEM(RSP, H_TMP0));
	return miss;
}

/* Enters the page if it is the one that the link's target was translated from. */
static void bridge_check(struct bt *bt, struct emit *e, const struct bt_link *l, uint32_t expect)
{
	int32_t page_delta = l->target & ~(int32_t)PAGE_MASK;
	uint8_t *miss;

	if (l->slot) {
		compare_page(e, expect, page_delta);
		miss = emit_jcc(e, CC_NE, emit_here(e));
	} else {
		miss = compare_page_keeping_flags(e, expect, page_delta);
	}
	bridge_miss(bt, l, miss);
	emit_store(e, EMEM(RSP, H_PB), R13);
}

/* Every loop has a branch backward, or returns; where addresses wrap around at 4 GiB, also one forward may be it. */
static bool may_close_loop(const struct bt *bt, const struct bt_link *l)
{
	return l->backward || bt->page[bt->block[l->block].page].mode == BT_U32;
}

/* Enters a link in the list of the block it leads to. */
static void list_incoming(struct bt *bt, uint32_t li, uint32_t b)
{
	struct bt_link *l = &bt->link[li];
	struct bt_block *to = &bt->block[b];

	l->next_in = to->incoming;
	l->prev_in = BT_FIRST_IN | b;
	if (l->next_in)
		bt->link[l->next_in].prev_in = li;
	to->incoming = li;
}

void bt_link_forget(struct bt *bt, uint32_t li)
{
	struct bt_link *l = &bt->link[li];

	if (!l->prev_in)
		return;
	if (l->prev_in & BT_FIRST_IN)
		bt->block[l->prev_in & ~BT_FIRST_IN].incoming = l->next_in;
	else
		bt->link[l->prev_in].next_in = l->next_in;
	if (l->next_in)
		bt->link[l->next_in].prev_in = l->prev_in;
	l->next_in = l->prev_in = 0;
}

bool bt_link_patch(struct bt *bt, uint32_t li, uint32_t b, bool cross_page)
{
	struct bt_link *l = &bt->link[li];
	struct bt_block *to = &bt->block[b];
	bool restore = l->slot && to->flags_in;
	uintptr_t entry = bt->code_x + (may_close_loop(bt, l) ? to->entry_chk : to->entry_plain);
	uintptr_t dest = entry;
	struct emit e = bt_emit_at_end(bt);

	if (cross_page || restore) {
		if (bt->end.code - bt->code_used < BT_BRIDGE_BYTES || bt->end.cold - bt->cold_used < BT_BRIDGE_BYTES)
			return false;
		dest = emit_here(&e);
		if (cross_page)
			bridge_check(bt, &e, l, bt_etab_off(to->page));
		if (restore)
			bt_emit_flags_restore(&e, R13);
		emit_jmp(&e, entry);
		bt->code_used = (uint32_t)(e.w - bt->code_w);
	}
	emit_patch(&e, bt->code_w + l->patch, dest);
	list_incoming(bt, li, b);
	bt->stats.links++;
	return true;
}

void bt_unlink_incoming(struct bt *bt, uint32_t b)
{
	struct emit e = bt_emit_at_end(bt);
	uint32_t li = bt->block[b].incoming;

	while (li) {
		struct bt_link *l = &bt->link[li];

		emit_patch(&e, bt->code_w + l->patch, bt->code_x + l->stub);
		li = l->next_in;
		l->next_in = l->prev_in = 0;
	}
	bt->block[b].incoming = 0;
}
