/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Spans: one lookup for several accesses of a block. Compiled code reads and writes around few pointers (the stack, a struct);
 * where their distance is known, one check that all of them lie in one page and one lookup serve all.
 *
 *     lea   r13, [base+index*scale+lo]     lowest byte that any access of the span touches
 *     xor, cmp, ja cold, add               the lookup of operand.c, for hi-lo bytes
 *     mov   [rsp+H_SPAN+8*k], r13          host address of the span, kept for the accesses: [r13+x], without any check
 *
 * Where the span straddles two pages a translation of the rest without spans goes on.
 *
 * Values of registers are followed as root + offset: a root is whatever a register held when it was last written by something
 * unknown. Two addresses with one root (and one root times one scale for an index) are a known distance apart.
 *
 * Invariants
 *  - A span holds from its lookup to the end of the block, or to the next interpreted instruction. Whenever C has been called
 *    in the middle of a block and anything was dropped from the tables (mmu.gen), the block is not resumed (run.c).
 *  - The lookup of a span is not resumed behind (SITE_END): if its instruction had to be interpreted there is no host address.
 *  - A write span serves reads as well (what may be written may be read), a read span only reads. A span that is written later is a
 *    write span from the start (`early`); as nothing has been written yet, an absent entry is no fault: the plain code goes on.
 *  - r13 and r14 may hold the host addresses of spans between instructions (`held`). Nothing that C resumes in the middle of
 *    a block relies on that: sites of span accesses are SITE_END, and lookups forget what is held.
 */
#include <Zydis/Zydis.h>

#include "engine/bt/tr.h"

#define M(x) ZYDIS_MNEMONIC_##x

/* A longer span straddles pages too often. */
#define SPAN_BYTES 1024
/* Fewer accesses than these are cheaper one by one. */
#define SPAN_ACCESSES 2

/* --- values of registers -------------------------------------------------------------------------------------- */

void tr_values_init(struct tr_values *v)
{
	for (unsigned i = 0; i < GPR_COUNT; i++)
		v->reg[i] = (struct tr_value){.root = (uint16_t)i};
	v->roots = TR_ROOT_FRESH;
}

static void value_unknown(struct tr_values *v, uint16_t regs)
{
	for (; regs; regs &= (uint16_t)(regs - 1))
		v->reg[__builtin_ctz(regs)] = (struct tr_value){.root = v->roots++};
}

static bool is_reg64(const struct insn_operand *o)
{
	return o->kind == OPND_GPR && o->size == 8;
}

/* The few forms that move a known distance; everything else that writes a register makes it unknown. */
static bool known_result(const struct tr_values *v, const struct insn *in, struct tr_value *out)
{
	const struct insn_operand *dst = &in->op[0], *src = &in->op[1];

	if (!is_reg64(dst))
		return false;
	*out = v->reg[dst->reg];
	switch (in->mnemonic) {
	case M(ADD): case M(SUB):
		if (src->kind != OPND_IMM)
			return false;
		out->off += in->mnemonic == M(ADD) ? (int64_t)in->imm[0] : -(int64_t)in->imm[0];
		break;
	case M(INC): case M(DEC):
		out->off += in->mnemonic == M(INC) ? 1 : -1;
		break;
	case M(MOV):
		if (!is_reg64(src))
			return false;
		*out = v->reg[src->reg];
		break;
	case M(LEA):
		if (in->addrsize != 8 || in->rip_relative || in->mem.base == INSN_NO_REG || in->mem.index != INSN_NO_REG)
			return false;
		*out = v->reg[in->mem.base];
		out->off += in->mem.disp;
		break;
	default:
		return false;
	}
	/* Far away is as good as unknown, and sums of offsets cannot overflow. */
	return out->off > -(1 << 28) && out->off < 1 << 28;
}

void tr_values_step(struct tr_values *v, const struct insn *in)
{
	struct tr_value known;
	bool is_known = known_result(v, in, &known);
	unsigned dst = in->op[0].reg;

	if (in->mnemonic == M(PUSH) && in->opsize == 8) {
		v->reg[RSP].off -= 8;
	} else if (in->mnemonic == M(POP) && in->opsize == 8 && is_reg64(&in->op[0]) && dst != RSP) {
		v->reg[RSP].off += 8;
		value_unknown(v, (uint16_t)(in->gpr_write & ~BIT(RSP)));
	} else if (is_known) {
		v->reg[dst] = known;
	} else {
		value_unknown(v, in->gpr_write);
	}
}

/* --- accesses ----------------------------------------------------------------------------------------------------- */

/* The address of the memory operand; false if it has a based segment. */
static bool operand_value(const struct tr_values *v, const struct insn *in, unsigned insn_off, struct tr_value *at)
{
	if (in->addrsize != 8 || in->has_vsib || in->mem.seg == FS || in->mem.seg == GS || in->mem.disp != (int32_t)in->mem.disp)
		return false;
	if (in->rip_relative)
		*at = (struct tr_value){.root = TR_ROOT_PAGE, .off = insn_off + in->len};
	else if (in->mem.base != INSN_NO_REG)
		*at = v->reg[in->mem.base];
	else if (in->mem.index != INSN_NO_REG)
		*at = (struct tr_value){.root = TR_ROOT_ZERO};
	else
		return false;
	at->off += in->mem.disp;
	if (in->mem.index != INSN_NO_REG) {
		at->index = v->reg[in->mem.index].root;
		at->scale = in->mem.scale;
		at->off += v->reg[in->mem.index].off * in->mem.scale;
	}
	return true;
}

unsigned tr_accesses(const struct tr_values *v, const struct insn *in, unsigned insn_off, struct tr_access out[2])
{
	unsigned n = 0;

	for (unsigned i = 0; i < in->nops && in->mnemonic != M(LEA); i++)
		if (in->op[i].kind == OPND_MEM && operand_value(v, in, insn_off, &out[n].at)) {
			out[n].size = in->op[i].size;
			out[n++].write = in->op[i].write;
		}
	switch (in->mnemonic) {
	case M(PUSH): case M(CALL):
		out[n] = (struct tr_access){.at = v->reg[RSP], .size = 8, .write = true};
		out[n++].at.off -= 8;
		break;
	case M(POP): case M(RET):
		out[n++] = (struct tr_access){.at = v->reg[RSP], .size = 8};
		break;
	case M(LEAVE):
		out[n++] = (struct tr_access){.at = v->reg[RBP], .size = 8};
		break;
	default:
		break;
	}
	return n;
}

/* --- spans ------------------------------------------------------------------------------------------------------------ */

bool tr_same_base(const struct tr_value *a, const struct tr_value *b)
{
	return a->root == b->root && a->index == b->index && a->scale == b->scale;
}

bool tr_in_span(const struct tr_span *s, const struct tr_access *a)
{
	return s->active && tr_same_base(&s->base, &a->at) && (s->write || !a->write) && s->lo <= a->at.off && a->at.off + (int)a->size <= s->hi;
}

bool tr_span_widen(struct tr_span *s, const struct tr_access *a)
{
	int64_t lo = a->at.off < s->lo ? a->at.off : s->lo, hi = a->at.off + a->size > s->hi ? a->at.off + a->size : s->hi;

	if (hi - lo > SPAN_BYTES || (s->base.root == TR_ROOT_PAGE && (lo >> PAGE_SHIFT) != ((hi - 1) >> PAGE_SHIFT)))
		return false;
	s->lo = lo;
	s->hi = hi;
	return true;
}

/* Looks ahead from the current instruction for accesses that the span of `first` could serve. Returns how many. */
static unsigned plan(const struct tr *t, const struct tr_access *first, struct tr_span *s)
{
	struct tr_values v = t->values;
	unsigned count = 0;

	*s = (struct tr_span){.base = first->at, .write = first->write, .lo = first->at.off, .hi = first->at.off + first->size};
	if (!tr_span_widen(s, first))
		return 0;
	for (unsigned i = t->i; i < t->n; i++) {
		const struct insn *in = &t->insn[i];
		struct tr_access a[2];
		unsigned n;

		if (t->cls[i] < TR_COMPUTE)
			break;
		n = tr_accesses(&v, in, t->insn_off[i], a);
		for (unsigned k = 0; k < n; k++)
			if (tr_same_base(&a[k].at, &s->base) && tr_span_widen(s, &a[k])) {
				count++;
				s->early |= a[k].write && !s->write;
				s->write |= a[k].write;
			}
		tr_values_step(&v, in);
	}
	return count;
}

void tr_spans_forget(struct tr *t)
{
	for (unsigned k = 0; k < TR_SPANS; k++)
		t->span[k].active = false;
	tr_held_forget(t);
}

void tr_held_forget(struct tr *t)
{
	t->held[0] = t->held[1] = -1;
}

static struct emem slot_of(unsigned k)
{
	return k < TR_SPANS ? EMEM(RSP, H_SPAN + 8 * (int)k) : EMEM(RSP, H_STREAM + 8 * (int)(k - TR_SPANS));
}

unsigned tr_pointer(struct tr *t, unsigned k)
{
	unsigned r = 1;

	for (unsigned i = 0; i < 2; i++)
		if (t->held[i] == (int)k)
			return R13 + i;
	if (t->held[1] >= 0 && t->held[0] < 0)
		r = 0;
	emit_load(&t->e, R13 + r, slot_of(k));
	t->held[r] = (int8_t)k;
	return R13 + r;
}

/* The lookup of a new span; `stack` is the register it is reached from, or NOREG: the address of the memory operand. `off` is what
 * the offset of that would be without a displacement. */
static void establish(struct tr *t, unsigned k, unsigned stack, int64_t off)
{
	struct tr_span *s = &t->span[k];
	struct emit *e = &t->e;
	int32_t lo = (int32_t)(s->lo - off);

	if (s->base.root == TR_ROOT_PAGE && !s->base.scale) {
		tr_page_address(t, R13, s->lo);
	} else {
		if (stack != NOREG)
			emit_lea(e, R13, EMEM((uint8_t)tr_host(stack), lo));
		else
			tr_sum(t, lo);
	}
	tr_lookup_span(t, s);
	emit_store(e, slot_of(k), R13);
	t->held[0] = (int8_t)k;
	s->active = true;
}

/* Finds or makes the span for an access; the operand in host memory to *m. */
static bool span_access(struct tr *t, const struct tr_access *a, unsigned stack, int64_t off, struct emem *m)
{
	struct tr_span s;
	unsigned k = 0;

	if (t->plain || t->bt->single || t->mode == BT_U32)
		return false;
	if (t->loop.inside && stack == NOREG && tr_loop_operand(t, a, m))
		return true;
	while (k < TR_SPANS && !tr_in_span(&t->span[k], a))
		k++;
	if (k == TR_SPANS) {
		if (plan(t, a, &s) < SPAN_ACCESSES || s.lo - off != (int32_t)(s.lo - off))
			return false;
		k = t->next_span++ % TR_SPANS;
		t->span[k] = s;
		establish(t, k, stack, off);
	}
	/* A fault of the host (not canonical, misaligned vector) finds the instruction here. */
	tr_site(t, SITE_END, 0);
	*m = EMEM((uint8_t)tr_pointer(t, k), (int32_t)(a->at.off - t->span[k].lo));
	t->scratch_known = true;
	return true;
}

bool tr_span_operand(struct tr *t, bool write, unsigned size, struct emem *m)
{
	const struct insn *in = tr_insn(t);
	struct tr_access a = {.size = size, .write = write};

	return operand_value(&t->values, in, t->insn_off[t->i], &a.at) &&
	       span_access(t, &a, NOREG, a.at.off - in->mem.disp, m);
}

bool tr_span_stack(struct tr *t, unsigned base_reg, int disp, bool write, struct emem *m)
{
	struct tr_access a = {.at = t->values.reg[base_reg], .size = 8, .write = write};

	a.at.off += disp;
	return span_access(t, &a, base_reg, a.at.off - disp, m);
}
