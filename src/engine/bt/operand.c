/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Memory operands and displaced registers in translated code.
 *
 * Host r13 and r14 are scratch between guest instructions. Address first (r13), then the lookup:
 *
 *     xor  r13, [rsp+hint.page]           the page that this lookup met last?
 *     cmp  r13, PAGE_SIZE-size ; ja cold  another page, or the bytes cross into the next: out of line (hint.c)
 *     add  r13, [rsp+hint.host]
 *
 * after which r13 is the operand's address in host memory. The check clobbers the arithmetic flags: if a later instruction needs
 * them they are saved to the flag slot first (once: t->slot stays true until an instruction writes or reads flags).
 */
#include "engine/bt/tr.h"

uint32_t tr_site(struct tr *t, unsigned flags, unsigned size)
{
	struct bt *bt = t->bt;
	uint32_t s = bt->nsites;

	if (s == bt->end.sites || t->npending == nitems(t->pending_next)) {
		t->overflow = true;
		return 0;
	}
	bt->nsites++;
	bt->site[s] = (struct bt_site){
		.start = t->insn_start,
		.block = t->block,
		.off = t->insn_off[t->i],
		.len = t->i < t->n ? t->insn[t->i].len : 0,
		.flags = (uint8_t)(flags | (t->slot ? SITE_SLOT : 0)),
		.size = (uint8_t)size,
	};
	t->pending_next[t->npending++] = s;
	return s;
}

void tr_get(struct tr *t, unsigned dst, unsigned guest)
{
	if (dst == R13 || dst == R14)
		t->held[dst - R13] = -1;
	if (tr_displaced(guest))
		emit_load(&t->e, dst, EMEM(RSP, tr_slot(guest)));
	else if (tr_host(guest) != dst)
		emit_mov(&t->e, dst, tr_host(guest));
}

void tr_put(struct tr *t, unsigned guest, unsigned src)
{
	if (tr_displaced(guest))
		emit_store(&t->e, EMEM(RSP, tr_slot(guest)), src);
	else if (tr_host(guest) != src)
		emit_mov(&t->e, tr_host(guest), src);
}

void tr_page_address(struct tr *t, unsigned dst, int64_t off)
{
	t->held[dst - R13] = -1;
	emit_load(&t->e, dst, EMEM(RSP, H_PB));
	if (off)
		emit_lea(&t->e, dst, EMEM(dst, (int32_t)off));
}

/* A register of the address in a host register; displaced ones are loaded into `scratch`. */
static unsigned address_reg(struct tr *t, unsigned guest, unsigned scratch)
{
	if (guest == INSN_NO_REG)
		return NOREG;
	if (!tr_displaced(guest))
		return tr_host(guest);
	emit_load(&t->e, scratch, EMEM(RSP, tr_slot(guest)));
	return scratch;
}

void tr_sum(struct tr *t, int32_t disp)
{
	const struct insn *in = tr_insn(t);
	unsigned base = address_reg(t, in->mem.base, R13), index = address_reg(t, in->mem.index, R14);
	struct emem m = EMEMX((uint8_t)base, (uint8_t)index, in->mem.scale, disp);

	if (in->addrsize == 4)
		emit_lea32(&t->e, R13, m);
	else if (index == NOREG && disp == 0)
		base == R13 ? (void)0 : emit_mov(&t->e, R13, base);
	else
		emit_lea(&t->e, R13, m);
}

bool tr_address(struct tr *t)
{
	const struct insn *in = tr_insn(t);
	int64_t disp = in->mem.disp;

	tr_held_forget(t);
	if (in->rip_relative) {
		disp += t->insn_off[t->i] + in->len;
		if (disp != (int32_t)disp || in->addrsize != 8)
			return false;
		tr_page_address(t, R13, disp);
	} else if (in->mem.base == INSN_NO_REG && in->mem.index == INSN_NO_REG) {
		emit_mov_imm(&t->e, R13, in->addrsize == 4 ? (uint32_t)disp : (uint64_t)disp);
	} else {
		if (disp != (int32_t)disp)
			return false;
		tr_sum(t, (int32_t)disp);
	}
	if (in->mem.seg == FS || in->mem.seg == GS) {
		emit_load(&t->e, R14, EMEM(RSP, (int32_t)offsetof(struct vcpu, seg[in->mem.seg].base)));
		emit_lea(&t->e, R13, EMEMX(R13, R14, 1, 0));
	}
	return in->addrsize != 2;
}

uint8_t *tr_in_page(struct tr *t, unsigned bytes)
{
	struct emit *e = &t->e;

	if (bytes == 1)
		return NULL;
	if (bytes > 16 || (bytes & (bytes - 1)))
		return bt_emit_crosses(e, bytes);
	/* Nearly always aligned: then they are in one page. */
	emit_test_imm8(e, R13, (uint8_t)(bytes - 1));
	return emit_jcc(e, CC_NE, emit_here(e));
}

/* The page that this lookup met last? */
static void emit_hint(struct tr *t, struct tr_cold_access *c, enum bt_form form, bool stack)
{
	struct emit *e = &t->e;

	c->hint = bt_hint_give(t->bt, c->kind, form, c->site, stack);
	emit_op_mem(e, true, 0x33, R13, EMEM(RSP, c->hint + (int)offsetof(struct bt_hint, page))); /* xor */
	emit_op_reg(e, true, 0x81, 7, R13);                                                         /* cmp r13, imm32 */
	emit_u32(e, (uint32_t)(PAGE_SIZE - c->size));
	c->other[0] = emit_jcc(e, CC_A, emit_here(e));
	emit_op_mem(e, true, 0x03, R13, EMEM(RSP, c->hint + (int)offsetof(struct bt_hint, host))); /* add */
	if (form == BT_FORM_TRIAL)
		emit_op_mem(e, false, 0xff, 0, EMEM(RSP, c->hint + BT_TALLY + (int)offsetof(struct bt_tally, hits))); /* inc dword */
}

/* The table's entry. */
static void emit_table(struct tr *t, struct tr_cold_access *c)
{
	struct emit *e = &t->e;

	c->other[0] = tr_in_page(t, c->size);
	c->other[1] = bt_emit_entry(e, R13, R14, c->kind & BT_HINT_WRITE, 0);
	emit_op_reg(e, true, 0x01, R14, R13); /* add r13, r14 */
}

/* PUSH, RET ..., and operands around RSP. */
static bool on_stack(const struct insn *in)
{
	for (unsigned i = 0; i < in->nops; i++)
		if (in->op[i].kind == OPND_MEM)
			return in->mem.base == RSP && in->mem.index == INSN_NO_REG && in->mem.seg == SS;
	return true;
}

/* A kernel's pointers lead elsewhere from one call to the next, and it changes the address space often: hints lose more than they gain. */
static enum bt_form form_of(const struct tr *t)
{
#ifndef TORTURE_HINTS
	if (t->mode == BT_K64 && !t->bt->single)
		return BT_FORM_TABLE;
#endif
	return bt_form(t->bt, t->gfn, t->insn_off[t->i]);
}

struct tr_cold_access *tr_cold_add(struct tr *t, unsigned site_flags, unsigned site_size)
{
	struct tr_cold_access *c = &t->cold[t->ncold];

	if (t->ncold == TR_MAX_COLD) {
		t->overflow = true;
		return NULL;
	}
	t->ncold++;
	*c = (struct tr_cold_access){.site = tr_site(t, site_flags, site_size)};
	return c;
}

static struct tr_cold_access *lookup(struct tr *t, bool write, unsigned size, unsigned site_flags, unsigned site_size)
{
	bool stack = on_stack(tr_insn(t));
	enum bt_form form = form_of(t);
	struct tr_cold_access *c;

	tr_held_forget(t);
	tr_flags_rescue(t);
	c = tr_cold_add(t, site_flags | (write ? SITE_WRITE : 0) | (stack ? SITE_STACK : 0), site_size);
	if (!c)
		return NULL;
	c->size = (uint16_t)size;
	c->kind = (t->mode == BT_K64 ? 0 : BT_HINT_USER) | (write ? BT_HINT_WRITE : 0);
	if (form == BT_FORM_TABLE)
		emit_table(t, c);
	else
		emit_hint(t, c, form, stack);
	c->back = emit_here(&t->e);
	return c;
}

void tr_lookup(struct tr *t, bool write, unsigned size)
{
	lookup(t, write, size, 0, size);
}

void tr_lookup_span(struct tr *t, const struct tr_span *s)
{
	/* C is told of one byte, so that what it does about it never crosses. */
	struct tr_cold_access *c = lookup(t, s->write, (unsigned)(s->hi - s->lo), SITE_END, 1);

	if (!c)
		return;
	c->early = s->early;
	c->link = tr_link_plain(t) + 1;
}

void tr_lookup_cold(struct tr *t, const struct tr_cold_access *c)
{
	struct bt *bt = t->bt;
	struct emit *e = &t->e;
	unsigned size = c->link ? 1 : c->size;
	uint8_t *straddle = NULL;

	for (unsigned i = 0; i < 2; i++)
		if (c->other[i])
			emit_patch(e, c->other[i], emit_here(e));
	if (c->interpret) {
		tr_stub_call(t, c->site, BT_SVC_INTERP);
		return;
	}
	/* r13 = guest address, or that ^ the hint's page: its low bits are the same. */
	if (c->link && c->size > 1)
		straddle = bt_emit_crosses(e, c->size);
	if (c->hint) {
		emit_store_imm32(e, EMEM(RSP, H_SITE), c->site);
		emit_mov_imm(e, R14, (uint32_t)c->hint);
	}
	emit_call(e, bt->code_x + (c->hint ? bt->lookup : bt->table)[c->kind][size]);
	emit_jmp(e, c->back);
	/* The thunk returns here if there is no entry, or the bytes cross. */
	if (!c->early)
		tr_stub_call(t, c->site, BT_SVC_SLOW);
	if (straddle)
		emit_patch(e, straddle, emit_here(e));
	if (c->link)
		tr_cold_link_jump(t, c->link - 1, emit_jmp(e, emit_here(e)));
}
