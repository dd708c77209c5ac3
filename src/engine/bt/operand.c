/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Memory operands and displaced registers in translated code.
 *
 * Host r13 and r14 are scratch between guest instructions. Address first (r13), then the lookup:
 *
 *     test  r13b, SIZE-1 ; jnz cold       misaligned: does it cross the page? (out of line)
 *     pext  r14, r13, [rsp+H_MASK]        virtual page number
 *     add   r14, [rsp+H_RTAB]             read table; H_WTAB for writes
 *     mov   r14, [r14*8]
 *     test  r14, r14 ; jz cold            absent: C fills the entry and retries, or interprets the instruction
 *
 * after which [r13+r14] is the operand in host memory. The checks clobber the arithmetic flags: if a later instruction needs
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

enum alignment { ALIGN_TEST /* misaligned accesses are checked for crossing */, ALIGN_DEMAND /* ... are interpreted */, ALIGN_KNOWN };

/* Out-of-line code for a lookup of `size` bytes; NULL if there is no room. */
static struct tr_cold_access *add_cold(struct tr *t, unsigned flags, unsigned size)
{
	struct tr_cold_access *c = &t->cold[t->ncold];

	if (t->ncold == TR_MAX_COLD) {
		t->overflow = true;
		return NULL;
	}
	t->ncold++;
	*c = (struct tr_cold_access){.site = tr_site(t, flags, size), .size = (uint8_t)size};
	return c;
}

uint8_t *tr_load_entry(struct tr *t, unsigned pointer, unsigned entry, bool write)
{
	emit_pext(&t->e, entry, pointer, EMEM(RSP, H_MASK));
	emit_op_mem(&t->e, true, 0x03, entry, EMEM(RSP, write ? H_WTAB : H_RTAB)); /* add */
	emit_load(&t->e, entry, EMEMX(NOREG, (uint8_t)entry, 8, 0));
	emit_op_reg(&t->e, true, 0x85, entry, entry); /* test */
	return emit_jcc(&t->e, CC_E, emit_here(&t->e));
}

static void lookup(struct tr *t, bool write, unsigned size, enum alignment align)
{
	unsigned mask = size <= 1 ? 0 : size <= 2 ? 1 : size <= 4 ? 3 : size <= 8 ? 7 : size <= 16 ? 15 : 31;
	struct tr_cold_access *c;

	tr_held_forget(t);
	tr_flags_rescue(t);
	c = add_cold(t, (write ? SITE_WRITE : 0) | (align == ALIGN_DEMAND ? SITE_END : 0), size);
	if (!c)
		return;
	c->demand = align == ALIGN_DEMAND;
	if (mask && align != ALIGN_KNOWN) {
		emit_test_imm8(&t->e, R13, (uint8_t)mask);
		c->misaligned = emit_jcc(&t->e, CC_NE, emit_here(&t->e));
	}
	c->back = emit_here(&t->e);
	c->absent = tr_load_entry(t, R13, R14, write);
}

void tr_lookup_span(struct tr *t, bool write, bool early)
{
	struct tr_cold_access *c;

	if (early) {
		tr_link_plain(t, tr_load_entry(t, R13, R14, write));
		return;
	}
	/* One byte of the span's page, so that what C does about it never crosses. */
	c = add_cold(t, (write ? SITE_WRITE : 0) | SITE_END, 1);
	if (c)
		c->absent = tr_load_entry(t, R13, R14, write);
}

void tr_lookup(struct tr *t, bool write, unsigned size)
{
	const struct insn *in = tr_insn(t);
	bool known = t->rsp_aligned && in->mem.base == RSP && in->mem.index == INSN_NO_REG && in->mem.seg == SS && size <= tr_word(t->mode) &&
		     in->mem.disp % (int)size == 0;

	lookup(t, write, size, known ? ALIGN_KNOWN : ALIGN_TEST);
}

void tr_lookup_stack(struct tr *t, bool write)
{
	if (t->bt->single) { /* lockstep cannot follow a block that is left in its middle */
		lookup(t, write, tr_word(t->mode), ALIGN_TEST);
		return;
	}
	lookup(t, write, tr_word(t->mode), t->rsp_aligned ? ALIGN_KNOWN : ALIGN_DEMAND);
	t->rsp_aligned = true;
}
