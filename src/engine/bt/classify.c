/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which instructions are translated, and what they do to the arithmetic flags. Everything not listed in `computes` or handled
 * in ops.c goes to the interpreter.
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
	if (!bt->fpu_ok || in->has_vsib || in->hidden_mem || (in->avx512 && !bt->avx512_ok))
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
		return in->opsize == word && o->kind == OPND_GPR;
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
	case M(JCXZ): case M(LOOP): case M(LOOPE): case M(LOOPNE):
		return in->addrsize != 2 && in->opsize != 2;
	default:
		return in->category == ZYDIS_CATEGORY_COND_BR && in->opsize != 2;
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
	/* Who waits for another vCPU lets the host run it now and then. */
	if (in->mnemonic == M(PAUSE) && bt->v->count > 1)
		return TR_INTERP;
	if (mode == BT_U32 && only_32(in))
		return in->mnemonic == M(CALL) || in->mnemonic == M(JMP) ? TR_INTERP_END : TR_INTERP;
	if (in->kind != INSN_INT)
		return vector_computes(bt, in) ? TR_COMPUTE : TR_INTERP;
	/* What is executed as it is must have no memory operand but the one that is replaced (docs/design/isolation.md). */
	if (is_nop(in))
		return TR_NOP;
	if (computes(in) && !in->hidden_mem)
		return TR_COMPUTE;
	if (is_stack(mode, in) || is_flow(mode, in) || in->mnemonic == M(LEA) || tr_system_handled(bt, mode, in))
		return TR_FLOW;
	if (mode != BT_U32 && !bt->single && tr_string_handled(in))
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
	case M(PUSHFQ): case M(MOV): /* from a control register: undefined */
		return 0;
	case M(CMPXCHG8B): case M(CMPXCHG16B):
		return FL_ZF;
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
	if (in->mnemonic == M(PUSHFQ) || in->mnemonic == M(SYSCALL) || in->mnemonic == M(SYSRET) || in->mnemonic == M(IRETQ) ||
	    in->mnemonic == M(STI))
		return FL_ARITH;
	if (c == TR_FLOW)
		return 0; /* what a branch leaves alive is in live_after */
	if (in->mnemonic == M(DIV) || in->mnemonic == M(IDIV))
		return 0;
	return in->flags_read & FL_ARITH;
}
