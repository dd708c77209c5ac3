/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The instructions that need more than re-encoding: stack, control transfer, LEA (system instructions: sysops.c); and the emission of any
 * instruction, with the interpreter where a form is refused.
 */
#include <Zydis/Zydis.h>

#include "engine/bt/tr.h"

#define M(x) ZYDIS_MNEMONIC_##x

/* --- stack ----------------------------------------------------------------------------------------------------- */

/* Register and memory moves of the width of a stack slot. */
static void word_lea(struct tr *t, unsigned reg, struct emem m)
{
	emit_op_mem(&t->e, t->mode != BT_U32, 0x8d, reg, m);
}

static void word_mov(struct tr *t, unsigned dst, unsigned src)
{
	emit_op_reg(&t->e, t->mode != BT_U32, 0x89, src, dst);
}

static void word_load(struct tr *t, unsigned reg, struct emem m)
{
	emit_op_mem(&t->e, t->mode != BT_U32, 0x8b, reg, m);
}

static void word_store(struct tr *t, struct emem m, unsigned reg)
{
	emit_op_mem(&t->e, t->mode != BT_U32, 0x89, reg, m);
}

/* Every push: look the slot below guest RSP up, store, then move RSP (so that a fault changes nothing). The slot's host address:
 * base register and displacement; returns the scratch register that is free. */
static unsigned push_begin(struct tr *t, struct emem *m)
{
	if (tr_span_stack(t, RSP, -(int)tr_word(t->mode), true, m))
		return tr_other_scratch(m->base);
	word_lea(t, R13, EMEM(R15, -(int)tr_word(t->mode)));
	tr_lookup(t, true, tr_word(t->mode));
	*m = EMEM(R13, 0);
	return R14;
}

static void push_end(struct tr *t)
{
	word_lea(t, R15, EMEM(R15, -(int)tr_word(t->mode)));
}

static void push_reg(struct tr *t, unsigned guest)
{
	struct emem m;
	unsigned src = push_begin(t, &m);

	if (tr_displaced(guest))
		tr_get(t, src, guest);
	else
		src = tr_host(guest);
	word_store(t, m, src);
	push_end(t);
}

static void push_imm(struct tr *t, int32_t imm)
{
	struct emem m;

	push_begin(t, &m);
	emit_op_mem(&t->e, t->mode != BT_U32, 0xc7, 0, m);
	emit_u32(&t->e, (uint32_t)imm);
	push_end(t);
}

void tr_push_tmp1(struct tr *t)
{
	struct emem m;
	unsigned src = push_begin(t, &m);

	t->held[src - R13] = -1;
	emit_load(&t->e, src, EMEM(RSP, H_TMP1));
	word_store(t, m, src);
	push_end(t);
}

static void push_return_address(struct tr *t)
{
	struct emem m;
	unsigned src = push_begin(t, &m);

	tr_page_address(t, src, t->insn_off[t->i] + tr_insn(t)->len);
	word_store(t, m, src);
	push_end(t);
}

/* r13 = the memory operand, a word. */
static bool load_operand(struct tr *t)
{
	struct emem m = EMEM(R13, 0);

	if (!tr_span_operand(t, false, tr_word(t->mode), &m)) {
		if (!tr_address(t))
			return false;
		tr_lookup(t, false, tr_word(t->mode));
	}
	word_load(t, R13, m);
	t->held[0] = -1;
	return true;
}

/* reg = the word at the top of the stack; may use r13 and r14. */
static void load_top(struct tr *t, unsigned reg)
{
	struct emem m = EMEM(R13, 0);

	if (!tr_span_stack(t, RSP, 0, false, &m)) {
		word_mov(t, R13, R15);
		tr_lookup(t, false, tr_word(t->mode));
	}
	word_load(t, reg, m);
	if (reg == R13)
		t->held[0] = -1;
}

static bool op_push(struct tr *t)
{
	const struct insn *in = tr_insn(t);

	switch (in->op[0].kind) {
	case OPND_GPR:
		push_reg(t, in->op[0].reg);
		return true;
	case OPND_IMM:
		push_imm(t, (int32_t)in->imm[0]);
		return true;
	default:
		if (!load_operand(t))
			return false;
		/* Interpreted for its source's sake the push finds no span for the stack, which what follows may rely on. */
		if (!t->overflow && !t->bt->single)
			t->bt->site[t->bt->nsites - 1].flags |= SITE_END;
		emit_store(&t->e, EMEM(RSP, H_TMP1), R13);
		tr_push_tmp1(t);
		return true;
	}
}

static bool op_pop(struct tr *t)
{
	unsigned guest = tr_insn(t)->op[0].reg;
	unsigned dst = tr_displaced(guest) ? R13 : tr_host(guest);

	load_top(t, dst);
	if (guest == RSP) /* the value popped, not the incremented one (SDM vol. 2B POP) */
		return true;
	if (tr_displaced(guest))
		tr_put(t, guest, R13);
	word_lea(t, R15, EMEM(R15, (int)tr_word(t->mode)));
	return true;
}

static bool op_leave(struct tr *t)
{
	struct emem m = EMEM(R13, 0);
	unsigned top;

	if (!tr_span_stack(t, RBP, 0, false, &m)) {
		word_mov(t, R13, RBP);
		tr_lookup(t, false, tr_word(t->mode));
	}
	/* RSP changes once nothing can fault any more. */
	top = tr_other_scratch(m.base);
	t->held[top - R13] = -1;
	word_load(t, top, m);
	word_lea(t, R15, EMEM(RBP, (int)tr_word(t->mode)));
	word_mov(t, RBP, top);
	return true;
}

/* --- control transfer ------------------------------------------------------------------------------------------ */

/* Target of an indirect JMP/CALL to r13. */
static bool indirect_target(struct tr *t)
{
	const struct insn *in = tr_insn(t);

	if (in->op[0].kind == OPND_GPR) {
		if (t->mode == BT_U32)
			word_mov(t, R13, tr_host(in->op[0].reg));
		else
			tr_get(t, R13, in->op[0].reg);
		return true;
	}
	return load_operand(t);
}

static int32_t branch_target(const struct tr *t)
{
	const struct insn *in = tr_insn(t);

	return (int32_t)(t->insn_off[t->i] + in->len + (int32_t)in->imm[0]);
}

static bool op_jmp(struct tr *t)
{
	if (tr_insn(t)->op[0].kind == OPND_REL) {
		if (!tr_loop_back(t, CC_ALWAYS))
			tr_exit_direct(t, branch_target(t));
		return true;
	}
	if (!indirect_target(t))
		return false;
	tr_exit_dispatch(t, 0);
	return true;
}

static bool op_call(struct tr *t)
{
	if (tr_insn(t)->op[0].kind == OPND_REL) {
		push_return_address(t);
		tr_exit_direct(t, branch_target(t));
		return true;
	}
	if (!indirect_target(t))
		return false;
	emit_store(&t->e, EMEM(RSP, H_TMP1), R13);
	push_return_address(t);
	emit_load(&t->e, R13, EMEM(RSP, H_TMP1));
	tr_exit_dispatch(t, -(int)tr_word(t->mode));
	return true;
}

static bool op_ret(struct tr *t)
{
	const struct insn *in = tr_insn(t);
	int32_t pop = in->opcode == 0xc2 ? (int32_t)(in->imm[0] & 0xffff) : 0;

	load_top(t, R13);
	pop += (int32_t)tr_word(t->mode);
	word_lea(t, R15, EMEM(R15, pop));
	tr_exit_dispatch(t, pop);
	return true;
}

static bool op_jcc(struct tr *t)
{
	const struct insn *in = tr_insn(t);

	if (t->slot)
		tr_flags_to_host(t, t->held[1] < 0 ? R14 : t->held[0] < 0 ? R13 : NOREG);
	if (!tr_loop_back(t, in->opcode & 15))
		tr_jcc(t, in->opcode & 15, branch_target(t));
	t->scratch_known = true;
	return true;
}

static void short_jump(struct tr *t, unsigned opcode, unsigned over)
{
	emit_byte(&t->e, opcode);
	emit_byte(&t->e, over);
}

/* JRCXZ and LOOP: the host's have a short form only, so they lead around a jump of 5 bytes or to it. */
static bool op_count_branch(struct tr *t)
{
	const struct insn *in = tr_insn(t);
	bool loop = in->opcode != 0xe3, narrow = in->addrsize == 4;

	if (in->opcode <= 0xe1 && t->slot)
		tr_flags_to_host(t, t->held[1] < 0 ? R14 : t->held[0] < 0 ? R13 : NOREG);
	if (loop)
		emit_op_mem(&t->e, !narrow, 0x8d, RCX, EMEM(RCX, -1));
	if (in->opcode <= 0xe1) /* LOOPNE, LOOPE: around all that follows */
		short_jump(t, in->opcode == 0xe1 ? 0x75 : 0x74, narrow ? 8 : 7);
	if (narrow)
		emit_byte(&t->e, 0x67);
	short_jump(t, 0xe3, loop ? 5 : 2);
	if (!loop)
		short_jump(t, 0xeb, 5);
	tr_jcc(t, CC_ALWAYS, branch_target(t));
	t->scratch_known = true;
	return true;
}

/* --- the rest ---------------------------------------------------------------------------------------------------- */

/* No displaced register is involved: the instruction itself with at most RSP renamed. */
static bool lea_in_place(const struct insn *in)
{
	return !in->rip_relative && (in->addrsize == 8 || (in->addrsize == 4 && in->opsize == 4)) && !tr_displaced(in->op[0].reg) &&
	       (in->mem.base == INSN_NO_REG || !tr_displaced(in->mem.base)) &&
	       (in->mem.index == INSN_NO_REG || !tr_displaced(in->mem.index)) &&
	       (in->mem.base != INSN_NO_REG || in->mem.index != INSN_NO_REG);
}

static bool op_lea(struct tr *t)
{
	const struct insn *in = tr_insn(t);
	unsigned guest = in->op[0].reg, dst = tr_displaced(guest) ? R13 : tr_host(guest);
	struct insn *mutable = &t->insn[t->i];

	mutable->mem.seg = DS; /* LEA ignores the segment */
	if (lea_in_place(in)) {
		struct tr_subst s = {-1, guest == RSP ? R15 : -1, -1, -1, NULL};
		struct emem m = EMEMX(in->mem.base == RSP ? R15 : in->mem.base, in->mem.index, in->mem.scale,
				      (int32_t)in->mem.disp);

		s.mem = &m;
		tr_reencode(t, in, &s);
		t->scratch_known = true;
		return true;
	}
	if (!tr_address(t))
		return false;
	if (in->opsize == 2) {
		if (tr_displaced(guest)) {
			emit_byte(&t->e, 0x66);
			emit_op_mem(&t->e, false, 0x89, R13, EMEM(RSP, tr_slot(guest)));
		} else {
			emit_byte(&t->e, 0x66);
			emit_op_reg(&t->e, false, 0x89, R13, dst);
		}
		return true;
	}
	if (in->opsize == 4)
		emit_op_reg(&t->e, false, 0x89, R13, dst); /* mov r32: clears the upper half */
	else if (dst != R13)
		emit_mov(&t->e, dst, R13);
	if (tr_displaced(guest))
		tr_put(t, guest, R13);
	return true;
}

static bool emit_flow(struct tr *t)
{
	const struct insn *in = tr_insn(t);

	if (in->category == ZYDIS_CATEGORY_STRINGOP)
		return tr_string(t);
	switch (in->mnemonic) {
	case M(PUSH): return op_push(t);
	case M(POP): return op_pop(t);
	case M(LEAVE): return op_leave(t);
	case M(JMP): return op_jmp(t);
	case M(CALL): return op_call(t);
	case M(RET): return op_ret(t);
	case M(LEA): return op_lea(t);
	case M(JECXZ): case M(JRCXZ): case M(LOOP): case M(LOOPE): case M(LOOPNE): return op_count_branch(t);
	default: return in->category == ZYDIS_CATEGORY_COND_BR ? op_jcc(t) : tr_system(t);
	}
}

static void emit_interp(struct tr *t, bool end)
{
	tr_stub_call(t, tr_site(t, end ? SITE_END : 0, 0), BT_SVC_INTERP);
	t->slot = false; /* C returns with the flags in the host register */
	if (end)
		t->ended = true;
}

/* What an attempt to translate an instruction changes besides scratch, to be taken back if the form is refused. */
struct attempt {
	struct emit e;
	unsigned ncold, nlinks, next_span;
	bool slot;
	struct tr_span span[TR_SPANS];
};

static void attempt_begin(const struct tr *t, struct attempt *a)
{
	*a = (struct attempt){t->e, t->ncold, t->nlinks, t->next_span, t->slot, {{0}}};
	for (unsigned k = 0; k < TR_SPANS; k++)
		a->span[k] = t->span[k];
}

static void attempt_undo(struct tr *t, const struct attempt *a)
{
	t->e = a->e;
	t->ncold = a->ncold;
	t->nlinks = a->nlinks;
	t->next_span = a->next_span;
	t->slot = a->slot;
	for (unsigned k = 0; k < TR_SPANS; k++)
		t->span[k] = a->span[k];
}

/* Code that may be retried from its beginning after a second access, or uses scratch before its access, must not begin with
 * held addresses. */
static bool starts_afresh(const struct insn *in)
{
	return in->mnemonic == M(PUSHFQ) ||
	       ((in->mnemonic == M(PUSH) || in->mnemonic == M(CALL)) && in->op[0].kind == OPND_MEM);
}

void tr_emit_insn(struct tr *t)
{
	const struct insn *in = tr_insn(t);
	enum tr_class c = t->cls[t->i];
	struct attempt before;
	bool ok = c == TR_NOP;

	attempt_begin(t, &before);
	t->scratch_known = c == TR_NOP;
	if (starts_afresh(in))
		tr_held_forget(t);
	if (c == TR_COMPUTE)
		ok = tr_compute(t);
	else if (c == TR_FLOW)
		ok = emit_flow(t);
	if (!t->scratch_known)
		tr_held_forget(t);
	if (!ok) {
		attempt_undo(t, &before);
		tr_spans_forget(t);
		emit_interp(t, c == TR_INTERP_END);
	}
	tr_values_step(&t->values, in);
}
