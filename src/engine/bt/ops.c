/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which instructions are translated, and the ones that need more than re-encoding: stack, control transfer, LEA, RDTSC,
 * interrupt-flag instructions. Everything not listed in `computes` or handled here goes to the interpreter.
 */
#include <Zydis/Zydis.h>

#include "engine/bt/tr.h"

#define M(x) ZYDIS_MNEMONIC_##x

/* Integer instructions that only compute on registers and one memory operand: re-encoded as they are. */
static bool computes(const struct insn *in)
{
	switch (in->mnemonic) {
	case M(ADD): case M(ADC): case M(SUB): case M(SBB): case M(CMP): case M(AND): case M(OR): case M(XOR):
	case M(TEST): case M(INC): case M(DEC): case M(NEG): case M(NOT):
	case M(SHL): case M(SHR): case M(SAR): case M(ROL): case M(ROR): case M(RCL): case M(RCR): case M(SHLD): case M(SHRD):
	case M(MUL): case M(IMUL): case M(DIV): case M(IDIV):
	case M(BSF): case M(BSR): case M(TZCNT): case M(LZCNT): case M(POPCNT):
	case M(ANDN): case M(BEXTR): case M(BLSI): case M(BLSMSK): case M(BLSR): case M(BZHI): case M(MULX): case M(PDEP):
	case M(PEXT): case M(RORX): case M(SARX): case M(SHLX): case M(SHRX): case M(ADCX): case M(ADOX):
	case M(MOVBE): case M(BSWAP): case M(CRC32): case M(CMPXCHG): case M(CMPXCHG8B): case M(CMPXCHG16B):
	case M(XADD): case M(XCHG): case M(CBW): case M(CWDE): case M(CDQE): case M(CWD): case M(CDQ): case M(CQO):
	case M(LAHF): case M(SAHF): case M(CLC): case M(STC): case M(CMC): case M(CLD): case M(STD):
	case M(MOVSX): case M(MOVSXD): case M(MOVZX): case M(MOVNTI): case M(LFENCE): case M(SFENCE): case M(MFENCE):
	case M(PAUSE):
		return true;
	case M(BT): case M(BTS): case M(BTR): case M(BTC):
		return true;
	case M(MOV):
		for (unsigned i = 0; i < in->nops; i++)
			if (in->op[i].kind != OPND_GPR && in->op[i].kind != OPND_MEM && in->op[i].kind != OPND_IMM)
				return false;
		return in->has_modrm || in->op[0].kind == OPND_GPR ? in->opcode < 0xa0 || in->opcode > 0xa3 : false;
	default:
		return in->category == ZYDIS_CATEGORY_SETCC || in->category == ZYDIS_CATEGORY_CMOV;
	}
}

/* Vector and x87 instructions the host may execute in place. */
static bool vector_computes(const struct bt *bt, const struct insn *in)
{
	if (!bt->fpu_ok || in->has_vsib || in->hidden_mem)
		return false;
	switch (in->mnemonic) {
	case M(FNSTENV): case M(FLDENV): case M(FNSAVE):
	case M(FRSTOR): case M(FXSAVE): case M(FXRSTOR):
		return false;
	default:
		return true;
	}
}

static bool is_nop(const struct insn *in)
{
	switch (in->mnemonic) {
	case M(NOP): case M(PREFETCHNTA): case M(PREFETCHT0): case M(PREFETCHT1): case M(PREFETCHT2): case M(PREFETCHW):
	case M(PREFETCH):
		return true;
	default:
		return false;
	}
}

static bool is_stack(enum bt_mode mode, const struct insn *in)
{
	const struct insn_operand *o = &in->op[0];
	unsigned word = tr_word(mode);

	if (in->mnemonic == M(LEAVE))
		return in->opsize == word;
	if (in->mnemonic == M(PUSH))
		return in->stacksize == word && in->opsize == word &&
		       (o->kind == OPND_GPR || o->kind == OPND_IMM || o->kind == OPND_MEM);
	if (in->mnemonic == M(POP))
		return in->opsize == word && o->kind == OPND_GPR && o->reg != RSP;
	return false;
}

static bool is_flow(enum bt_mode mode, const struct insn *in)
{
	unsigned word = tr_word(mode);

	switch (in->mnemonic) {
	case M(JMP): case M(CALL):
		if (in->op[0].kind == OPND_REL)
			return in->opsize != 2;
		return in->opsize == word &&
		       (in->op[0].kind == OPND_GPR || (in->op[0].kind == OPND_MEM && in->op[0].size == word));
	case M(RET):
		return in->opsize == word && (in->opcode == 0xc3 || in->opcode == 0xc2);
	case M(JCXZ): case M(JECXZ): case M(JRCXZ): case M(LOOP): case M(LOOPE): case M(LOOPNE):
		return false;
	default:
		return in->category == ZYDIS_CATEGORY_COND_BR && in->opsize != 2;
	}
}

/* System instructions worth code of their own; those that need privilege in supervisor mode only. */
static bool is_inline_system(const struct bt *bt, enum bt_mode mode, const struct insn *in)
{
	switch (in->mnemonic) {
	case M(RDTSC):
		return !bt->tsd && !bt->single;
	case M(STI):
		return mode == BT_K64 && !bt->single;
	case M(CLI): case M(SWAPGS):
		return mode == BT_K64;
	case M(PUSHFQ):
		return mode != BT_U32 && in->opsize == 8;
	case M(MOV): /* from a segment register */
		return in->op[0].kind == OPND_GPR && in->op[1].kind == OPND_SEG && in->op[0].size >= 4;
	case M(SYSCALL):
		return mode == BT_U64 && !bt->single;
	case M(SYSRET):
		return mode == BT_K64 && !bt->single;
	default:
		return false;
	}
}

/* Forms that 32-bit code has and 64-bit code has not: a based segment, the second encoding of the immediate group. */
static bool only_32(const struct insn *in)
{
	bool mem = false;

	for (unsigned i = 0; i < in->nops; i++)
		mem |= in->op[i].kind == OPND_MEM;
	return (mem && (in->addrsize != 4 || (in->mnemonic != M(LEA) && (in->mem.seg == FS || in->mem.seg == GS ||
									  in->mem.seg == CS)))) ||
	       (in->map == ZYDIS_OPCODE_MAP_DEFAULT && in->opcode == 0x82);
}

enum tr_class tr_classify(const struct bt *bt, enum bt_mode mode, const struct insn *in)
{
	if (mode == BT_U32 && only_32(in))
		return in->mnemonic == M(CALL) || in->mnemonic == M(JMP) ? TR_INTERP_END : TR_INTERP;
	if (in->kind != INSN_INT)
		return vector_computes(bt, in) ? TR_COMPUTE : TR_INTERP;
	/* What is executed as it is must have no memory operand but the one that is replaced (docs/design/isolation.md). */
	if (is_nop(in) || (computes(in) && !in->hidden_mem))
		return TR_COMPUTE;
	if (is_stack(mode, in) || is_flow(mode, in) || in->mnemonic == M(LEA) || is_inline_system(bt, mode, in))
		return TR_FLOW;
	if (in->category == ZYDIS_CATEGORY_STRINGOP || in->mnemonic == M(MOV) || in->mnemonic == M(CPUID) ||
	    in->mnemonic == M(POP) || in->mnemonic == M(PUSH)) {
		for (unsigned i = 0; i < in->nops; i++)
			if (in->op[i].kind == OPND_CR || in->op[i].kind == OPND_DR || in->op[i].kind == OPND_SEG)
				return TR_INTERP_END;
		return TR_INTERP;
	}
	return TR_INTERP_END;
}

uint16_t tr_flags_killed(const struct insn *in)
{
	switch (in->mnemonic) {
	case M(SHL): case M(SHR): case M(SAR): case M(ROL): case M(ROR): case M(RCL): case M(RCR): case M(SHLD): case M(SHRD):
		/* A count of zero writes no flag; rotates keep the others, and OF is only defined for a count of 1. */
		for (unsigned i = 1; i < in->nops; i++)
			if (in->op[i].kind == OPND_IMM && (in->imm[in->op[i].reg] & (in->opsize == 8 ? 63 : 31)))
				return in->flags_write & FL_ARITH;
		return 0;
	case M(PUSHFQ): case M(CMPXCHG8B): case M(CMPXCHG16B):
		return in->mnemonic == M(PUSHFQ) ? 0 : FL_ZF;
	case M(MUL): case M(IMUL): case M(DIV): case M(IDIV): case M(BSF): case M(BSR): case M(TZCNT): case M(LZCNT):
		/* Some processors leave the undefined ones as they were, and so do we then. */
		return in->flags_write & ~in->flags_undef & FL_ARITH;
	default:
		break;
	}
	if (in->category == ZYDIS_CATEGORY_STRINGOP)
		return 0;
	return in->flags_write & FL_ARITH;
}

uint16_t tr_flags_used(const struct bt *bt, enum bt_mode mode, const struct insn *in)
{
	enum tr_class c = tr_classify(bt, mode, in);

	if (c == TR_INTERP || c == TR_INTERP_END)
		return FL_ARITH;
	if (c == TR_FLOW && in->category == ZYDIS_CATEGORY_COND_BR)
		return FL_ARITH; /* a side exit */
	if (in->mnemonic == M(PUSHFQ) || in->mnemonic == M(SYSCALL) || in->mnemonic == M(SYSRET) || in->mnemonic == M(STI))
		return FL_ARITH;
	if (c == TR_FLOW)
		return 0; /* what a branch leaves alive is in live_after */
	if (in->mnemonic == M(DIV) || in->mnemonic == M(IDIV))
		return 0;
	return in->flags_read & FL_ARITH;
}

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

/* Every push: look the slot below guest RSP up, store, then move RSP (so that a fault changes nothing). */
static void push_begin(struct tr *t)
{
	word_lea(t, R13, EMEM(R15, -(int)tr_word(t->mode)));
	tr_lookup_stack(t, true);
}

static void push_end(struct tr *t)
{
	word_lea(t, R15, EMEM(R15, -(int)tr_word(t->mode)));
}

static void push_reg(struct tr *t, unsigned guest)
{
	push_begin(t);
	if (tr_displaced(guest)) {
		emit_lea(&t->e, R13, EMEMX(R13, R14, 1, 0));
		tr_get(t, R14, guest);
		word_store(t, EMEM(R13, 0), R14);
	} else {
		word_store(t, EMEMX(R13, R14, 1, 0), tr_host(guest));
	}
	push_end(t);
}

static void push_imm(struct tr *t, int32_t imm)
{
	push_begin(t);
	emit_op_mem(&t->e, t->mode != BT_U32, 0xc7, 0, EMEMX(R13, R14, 1, 0));
	emit_u32(&t->e, (uint32_t)imm);
	push_end(t);
}

/* Pushes what is in H_TMP1. */
static void push_tmp1(struct tr *t)
{
	push_begin(t);
	emit_lea(&t->e, R13, EMEMX(R13, R14, 1, 0));
	emit_load(&t->e, R14, EMEM(RSP, H_TMP1));
	word_store(t, EMEM(R13, 0), R14);
	push_end(t);
}

static void push_return_address(struct tr *t)
{
	push_begin(t);
	emit_lea(&t->e, R13, EMEMX(R13, R14, 1, 0));
	tr_page_address(t, R14, t->insn_off[t->i] + tr_insn(t)->len);
	word_store(t, EMEM(R13, 0), R14);
	push_end(t);
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
		if (!tr_address(t))
			return false;
		tr_lookup(t, false, tr_word(t->mode));
		/* Interpreted for its source's sake the push has not tested RSP, which what follows relies on. */
		if (!t->rsp_aligned && !t->overflow && !t->bt->single)
			t->bt->site[t->bt->nsites - 1].flags |= SITE_END;
		word_load(t, R13, EMEMX(R13, R14, 1, 0));
		emit_store(&t->e, EMEM(RSP, H_TMP1), R13);
		push_tmp1(t);
		return true;
	}
}

static bool op_pop(struct tr *t)
{
	unsigned guest = tr_insn(t)->op[0].reg;
	unsigned dst = tr_displaced(guest) ? R13 : tr_host(guest);

	word_mov(t, R13, R15);
	tr_lookup_stack(t, false);
	word_load(t, dst, EMEMX(R13, R14, 1, 0));
	if (tr_displaced(guest))
		tr_put(t, guest, R13);
	word_lea(t, R15, EMEM(R15, (int)tr_word(t->mode)));
	return true;
}

static bool op_leave(struct tr *t)
{
	word_mov(t, R13, RBP);
	tr_lookup(t, false, tr_word(t->mode));
	word_load(t, RBP, EMEMX(R13, R14, 1, 0));
	word_lea(t, R15, EMEM(R13, (int)tr_word(t->mode)));
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
	if (!tr_address(t))
		return false;
	tr_lookup(t, false, tr_word(t->mode));
	word_load(t, R13, EMEMX(R13, R14, 1, 0));
	return true;
}

static int32_t branch_target(const struct tr *t)
{
	const struct insn *in = tr_insn(t);

	return (int32_t)(t->insn_off[t->i] + in->len + (int32_t)in->imm[0]);
}

static bool op_jmp(struct tr *t)
{
	if (tr_insn(t)->op[0].kind == OPND_REL) {
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

	word_mov(t, R13, R15);
	tr_lookup_stack(t, false);
	word_load(t, R13, EMEMX(R13, R14, 1, 0));
	pop += (int32_t)tr_word(t->mode);
	word_lea(t, R15, EMEM(R15, pop));
	tr_exit_dispatch(t, pop);
	return true;
}

static bool op_jcc(struct tr *t)
{
	const struct insn *in = tr_insn(t);

	if (t->slot)
		tr_flags_to_host(t);
	tr_jcc(t, in->opcode & 15, branch_target(t));
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

/* TSC + offset without touching flags: r13 = EDX:EAX, add with LEA, split again. */
static bool op_rdtsc(struct tr *t)
{
	struct emit *e = &t->e;

	emit_byte(e, 0x0f);
	emit_byte(e, 0x31);
	emit_rorx(e, R13, RDX, 32);
	emit_lea(e, R13, EMEMX(R13, RAX, 1, 0));
	emit_load(e, R14, EMEM(RSP, (int32_t)offsetof(struct vcpu, tsc_offset)));
	emit_lea(e, R13, EMEMX(R13, R14, 1, 0));
	emit_op_reg(e, false, 0x89, R13, RAX);
	emit_rorx(e, RDX, R13, 32);
	emit_op_reg(e, false, 0x89, RDX, RDX);
	return true;
}

/* v->rflags with IF cleared (PEXT and PDEP under one mask = AND without flags) to r13. */
static void rflags_without_if(struct tr *t)
{
	emit_load(&t->e, R13, EMEM(RSP, V_RFLAGS));
	emit_pext(&t->e, R13, R13, EMEM(RSP, H_NOIF));
	emit_pdep(&t->e, R13, R13, EMEM(RSP, H_NOIF));
}

static bool op_cli(struct tr *t)
{
	rflags_without_if(t);
	emit_store(&t->e, EMEM(RSP, V_RFLAGS), R13);
	return true;
}

/* With an interrupt waiting the interpreter does it. Otherwise the interrupt shadow needs nothing: events are looked at on block
 * entry only, so it is enough that the next instruction is in this block (STI; HLT must not be torn apart). */
static bool op_sti(struct tr *t)
{
	struct emit *e = &t->e;
	uint8_t *rel8;
	uint32_t s;

	if (t->i + 1 >= t->n)
		return false;
	s = tr_site(t, 0, 0);
	emit_store(e, EMEM(RSP, H_TMP0), RCX);
	emit_op_mem(e, false, 0x0fb6, RCX, EMEM(RSP, (int32_t)offsetof(struct vcpu, irq_waiting))); /* movzx ecx, byte */
	emit_byte(e, 0xe3); /* jrcxz */
	rel8 = e->w;
	emit_byte(e, 0);
	emit_load(e, RCX, EMEM(RSP, H_TMP0));
	emit_store_imm32(e, EMEM(RSP, H_SITE), s);
	emit_jmp(e, t->bt->code_x + t->bt->stub[BT_SVC_INTERP]);
	if (!e->full)
		*rel8 = (uint8_t)(e->w - rel8 - 1);
	emit_load(e, RCX, EMEM(RSP, H_TMP0));
	rflags_without_if(t);
	emit_lea(e, R13, EMEM(R13, FL_IF));
	emit_store(e, EMEM(RSP, V_RFLAGS), R13);
	return true;
}

static bool op_swapgs(struct tr *t)
{
	struct emem gs = EMEM(RSP, (int32_t)offsetof(struct vcpu, seg[GS].base));
	struct emem kernel = EMEM(RSP, (int32_t)offsetof(struct vcpu, msr_kernel_gs_base));

	emit_load(&t->e, R13, gs);
	emit_load(&t->e, R14, kernel);
	emit_store(&t->e, gs, R14);
	emit_store(&t->e, kernel, R13);
	return true;
}

static bool op_pushf(struct tr *t)
{
	struct emit *e = &t->e;

	if (t->slot)
		tr_flags_to_host(t);
	emit_byte(e, 0x9c); /* pushfq; pop r14: on the host stack */
	emit_byte(e, 0x41);
	emit_byte(e, 0x5e);
	emit_pext(e, R14, R14, EMEM(RSP, H_ARITH));
	emit_pdep(e, R14, R14, EMEM(RSP, H_ARITH));
	emit_load(e, R13, EMEM(RSP, V_RFLAGS));
	emit_pext(e, R13, R13, EMEM(RSP, H_VIRT));
	emit_pdep(e, R13, R13, EMEM(RSP, H_VIRT));
	emit_lea(e, R13, EMEMX(R13, R14, 1, 0));
	emit_store(e, EMEM(RSP, H_TMP1), R13);
	push_tmp1(t);
	return true;
}

static bool op_mov_from_seg(struct tr *t)
{
	const struct insn *in = tr_insn(t);
	unsigned guest = in->op[0].reg, dst = tr_displaced(guest) ? R13 : tr_host(guest);

	/* movzx r32, word [seg.sel]: the upper half of the register is cleared (SDM vol. 2B MOV). */
	emit_op_mem(&t->e, false, 0x0fb7, dst, EMEM(RSP, (int32_t)offsetof(struct vcpu, seg[in->op[1].reg].sel)));
	if (tr_displaced(guest))
		tr_put(t, guest, R13);
	return true;
}

static bool op_syscall(struct tr *t, unsigned flags, unsigned size)
{
	uint32_t s = tr_site(t, SITE_END | flags, size);

	emit_store_imm32(&t->e, EMEM(RSP, H_SITE), s);
	emit_jmp(&t->e, t->bt->code_x + t->bt->stub[BT_SVC_SYSCALL]);
	t->ended = true;
	return true;
}

static bool emit_flow(struct tr *t)
{
	const struct insn *in = tr_insn(t);

	switch (in->mnemonic) {
	case M(PUSH): return op_push(t);
	case M(POP): return op_pop(t);
	case M(LEAVE): return op_leave(t);
	case M(JMP): return op_jmp(t);
	case M(CALL): return op_call(t);
	case M(RET): return op_ret(t);
	case M(LEA): return op_lea(t);
	case M(RDTSC): return op_rdtsc(t);
	case M(CLI): return op_cli(t);
	case M(STI): return op_sti(t);
	case M(SWAPGS): return op_swapgs(t);
	case M(PUSHFQ): return op_pushf(t);
	case M(MOV): return op_mov_from_seg(t);
	case M(SYSCALL): return op_syscall(t, 0, 0);
	case M(SYSRET): return op_syscall(t, SITE_SYSRET, in->opsize);
	default: return op_jcc(t);
	}
}

static void emit_interp(struct tr *t, bool end)
{
	uint32_t s = tr_site(t, end ? SITE_END : 0, 0);

	emit_store_imm32(&t->e, EMEM(RSP, H_SITE), s);
	emit_jmp(&t->e, t->bt->code_x + t->bt->stub[BT_SVC_INTERP]);
	t->slot = false; /* C returns with the flags in the host register */
	if (end)
		t->ended = true;
}

/* What the instruction just emitted means for t->rsp_aligned. PUSH, POP, CALL keep it. */
static void track_rsp(struct tr *t, const struct insn *in, bool interpreted)
{
	const struct insn_operand *dst = &in->op[0];

	if (in->mnemonic == M(LEAVE) || interpreted) {
		t->rsp_aligned = false;
		return;
	}
	for (unsigned i = 1; i < in->nops; i++)
		if (in->op[i].kind == OPND_GPR && in->op[i].reg == RSP && in->op[i].write)
			t->rsp_aligned = false;
	if (dst->kind != OPND_GPR || dst->reg != RSP || !dst->write)
		return;
	switch (in->mnemonic) {
	case M(ADD): case M(SUB):
		if (dst->size != tr_word(t->mode) || in->op[1].kind != OPND_IMM || (in->imm[0] & 7))
			t->rsp_aligned = false;
		break;
	case M(LEA):
		if (in->opsize != tr_word(t->mode) || in->mem.base != RSP || in->mem.index != INSN_NO_REG || (in->mem.disp & 7))
			t->rsp_aligned = false;
		break;
	default:
		t->rsp_aligned = false;
	}
}

void tr_emit_insn(struct tr *t)
{
	const struct insn *in = tr_insn(t);
	enum tr_class c = tr_classify(t->bt, t->mode, in);
	struct emit mark = t->e;
	unsigned ncold = t->ncold;
	bool ok = true, slot = t->slot, rsp_aligned = t->rsp_aligned;

	if (c == TR_COMPUTE)
		ok = is_nop(in) || tr_compute(t);
	else if (c == TR_FLOW)
		ok = emit_flow(t);
	else
		ok = false;
	if (ok) {
		track_rsp(t, in, false);
		return;
	}
	/* Nothing before a refusal changes anything but scratch: take it back. */
	t->e = mark;
	t->ncold = ncold;
	t->slot = slot;
	t->rsp_aligned = rsp_aligned;
	track_rsp(t, in, true);
	emit_interp(t, c == TR_INTERP_END);
}
