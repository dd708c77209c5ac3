/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The one table: mnemonic -> handlers, and the few choices that the mnemonic alone does not make.
 *
 * Invariant: interp_resolve() is total; what has no row and is not for the host FPU is #UD. Pure, no state.
 */
#include <Zydis/Mnemonic.h>

#include "engine/interp/ops.h"

#define M(name) ZYDIS_MNEMONIC_##name

/* Rows point at arrays indexed by log2 of the first operand's size. */
static const interp_fn *const op_table[ZYDIS_MNEMONIC_MAX_VALUE + 1] = {
	/* ops_alu.c */
	[M(ADC)] = op_adc, [M(ADCX)] = op_adcx, [M(ADD)] = op_add, [M(ADOX)] = op_adox, [M(AND)] = op_and,
	[M(CMP)] = op_cmp, [M(CMPXCHG)] = op_cmpxchg, [M(CMPXCHG16B)] = op_cmpxchg16b,
	[M(CMPXCHG8B)] = op_cmpxchg8b, [M(DEC)] = op_dec, [M(DIV)] = op_div, [M(IDIV)] = op_idiv,
	[M(IMUL)] = op_imul, [M(INC)] = op_inc, [M(MUL)] = op_mul, [M(NEG)] = op_neg, [M(NOT)] = op_not,
	[M(OR)] = op_or, [M(RCL)] = op_rcl, [M(RCR)] = op_rcr, [M(ROL)] = op_rol, [M(ROR)] = op_ror,
	[M(SAR)] = op_sar, [M(SBB)] = op_sbb, [M(SHL)] = op_shl, [M(SHLD)] = op_shld, [M(SHR)] = op_shr,
	[M(SHRD)] = op_shrd, [M(SUB)] = op_sub, [M(TEST)] = op_test, [M(XADD)] = op_xadd, [M(XCHG)] = op_xchg,
	[M(XOR)] = op_xor,
	/* ops_bits.c */
	[M(ANDN)] = op_andn, [M(BEXTR)] = op_bextr, [M(BLSI)] = op_blsi, [M(BLSMSK)] = op_blsmsk,
	[M(BLSR)] = op_blsr, [M(BSF)] = op_bsf, [M(BSR)] = op_bsr, [M(BSWAP)] = op_bswap, [M(BT)] = op_bt,
	[M(BTC)] = op_btc, [M(BTR)] = op_btr, [M(BTS)] = op_bts, [M(BZHI)] = op_bzhi, [M(CRC32)] = op_crc32,
	[M(LZCNT)] = op_lzcnt, [M(MOVBE)] = op_movbe, [M(MULX)] = op_mulx, [M(PDEP)] = op_pdep, [M(PEXT)] = op_pext,
	[M(POPCNT)] = op_popcnt, [M(RORX)] = op_rorx, [M(SARX)] = op_sarx, [M(SHLX)] = op_shlx, [M(SHRX)] = op_shrx,
	[M(TZCNT)] = op_tzcnt,
	/* ops_move.c */
	[M(AAA)] = op_aaa, [M(AAD)] = op_aad, [M(AAM)] = op_aam, [M(AAS)] = op_aas, [M(CBW)] = op_cbw,
	[M(CDQ)] = op_cwd, [M(CDQE)] = op_cbw, [M(CLC)] = op_clc, [M(CLD)] = op_cld, [M(CMC)] = op_cmc,
	[M(CQO)] = op_cwd, [M(CWD)] = op_cwd, [M(CWDE)] = op_cbw, [M(DAA)] = op_daa, [M(DAS)] = op_das,
	[M(LAHF)] = op_lahf, [M(LDS)] = op_lds, [M(LEA)] = op_lea, [M(LES)] = op_les, [M(LFS)] = op_lfs,
	[M(LGS)] = op_lgs, [M(LSS)] = op_lss, [M(MOVSX)] = op_movsx, [M(MOVSXD)] = op_movsx, [M(MOVZX)] = op_movzx,
	[M(NOP)] = op_nop, [M(PAUSE)] = op_pause, [M(PREFETCH)] = op_nop, [M(PREFETCHNTA)] = op_nop,
	[M(PREFETCHT0)] = op_nop, [M(PREFETCHT1)] = op_nop, [M(PREFETCHT2)] = op_nop, [M(PREFETCHW)] = op_nop,
	[M(SAHF)] = op_sahf, [M(SALC)] = op_salc, [M(STC)] = op_stc, [M(STD)] = op_std, [M(XLAT)] = op_xlat,
	[M(MOVNTI)] = op_mov_store,
	/* ops_flow.c */
	[M(BOUND)] = op_bound, [M(CALL)] = op_call, [M(ENTER)] = op_enter, [M(INT)] = op_int, [M(INT1)] = op_int1,
	[M(INT3)] = op_int3, [M(INTO)] = op_into, [M(JCXZ)] = op_jcxz, [M(JECXZ)] = op_jcxz, [M(JMP)] = op_jmp,
	[M(JRCXZ)] = op_jcxz, [M(LEAVE)] = op_leave, [M(LOOP)] = op_loop, [M(LOOPE)] = op_loope,
	[M(LOOPNE)] = op_loopne, [M(POP)] = op_pop, [M(POPA)] = op_popa, [M(POPAD)] = op_popa, [M(POPF)] = op_popf,
	[M(POPFD)] = op_popf, [M(POPFQ)] = op_popf, [M(PUSH)] = op_push, [M(PUSHA)] = op_pusha,
	[M(PUSHAD)] = op_pusha, [M(PUSHF)] = op_pushf, [M(PUSHFD)] = op_pushf, [M(PUSHFQ)] = op_pushf,
	[M(RET)] = op_ret,
	/* ops_string.c */
	[M(CMPSB)] = op_cmps, [M(CMPSW)] = op_cmps, [M(CMPSD)] = op_cmps, [M(CMPSQ)] = op_cmps, [M(INSB)] = op_ins,
	[M(INSW)] = op_ins, [M(INSD)] = op_ins, [M(LODSB)] = op_lods, [M(LODSW)] = op_lods, [M(LODSD)] = op_lods,
	[M(LODSQ)] = op_lods, [M(MOVSB)] = op_movs, [M(MOVSW)] = op_movs, [M(MOVSD)] = op_movs,
	[M(MOVSQ)] = op_movs, [M(OUTSB)] = op_outs, [M(OUTSW)] = op_outs, [M(OUTSD)] = op_outs,
	[M(SCASB)] = op_scas, [M(SCASW)] = op_scas, [M(SCASD)] = op_scas, [M(SCASQ)] = op_scas,
	[M(STOSB)] = op_stos, [M(STOSW)] = op_stos, [M(STOSD)] = op_stos, [M(STOSQ)] = op_stos,
	/* ops_sys.c */
	[M(ARPL)] = op_arpl, [M(CLFLUSH)] = op_clflush, [M(CLFLUSHOPT)] = op_clflush, [M(CLWB)] = op_clflush,
	[M(CLI)] = op_cli, [M(CLTS)] = op_clts, [M(CPUID)] = op_cpuid, [M(FXRSTOR)] = op_fxrstor,
	[M(FXRSTOR64)] = op_fxrstor, [M(FXSAVE)] = op_fxsave, [M(FXSAVE64)] = op_fxsave, [M(HLT)] = op_hlt,
	[M(IN)] = op_in, [M(INVD)] = op_wbinvd, [M(INVLPG)] = op_invlpg, [M(INVPCID)] = op_invpcid,
	[M(IRET)] = op_iret, [M(IRETD)] = op_iret, [M(IRETQ)] = op_iret, [M(LAR)] = op_lar, [M(LFENCE)] = op_fence,
	[M(LGDT)] = op_lgdt, [M(LIDT)] = op_lidt, [M(LLDT)] = op_lldt, [M(LMSW)] = op_lmsw, [M(LSL)] = op_lsl,
	[M(LTR)] = op_ltr, [M(MFENCE)] = op_fence, [M(OUT)] = op_out, [M(RDFSBASE)] = op_rdfsbase,
	[M(RDGSBASE)] = op_rdgsbase, [M(RDMSR)] = op_rdmsr, [M(RDPID)] = op_rdpid, [M(RDPMC)] = op_rdpmc,
	[M(RDRAND)] = op_rdrand, [M(RDSEED)] = op_rdseed, [M(RDTSC)] = op_rdtsc, [M(RDTSCP)] = op_rdtscp,
	[M(SFENCE)] = op_fence, [M(SGDT)] = op_sgdt, [M(SIDT)] = op_sidt, [M(SLDT)] = op_sldt, [M(SMSW)] = op_smsw,
	[M(STI)] = op_sti, [M(STR)] = op_str, [M(SWAPGS)] = op_swapgs, [M(SYSCALL)] = op_syscall,
	[M(SYSENTER)] = op_sysenter, [M(SYSEXIT)] = op_sysexit, [M(SYSRET)] = op_sysret, [M(UD0)] = op_ud,
	[M(UD1)] = op_ud, [M(UD2)] = op_ud, [M(VERR)] = op_verr, [M(VERW)] = op_verw, [M(WBINVD)] = op_wbinvd,
	[M(VMCALL)] = op_vmcall, [M(VMMCALL)] = op_vmcall,
	[M(WRFSBASE)] = op_wrfsbase, [M(WRGSBASE)] = op_wrgsbase, [M(WRMSR)] = op_wrmsr, [M(XGETBV)] = op_xgetbv,
	[M(XRSTOR)] = op_xrstor, [M(XRSTOR64)] = op_xrstor, [M(XSAVE)] = op_xsave, [M(XSAVE64)] = op_xsave,
	[M(XSAVEC)] = op_xsavec, [M(XSAVEC64)] = op_xsavec, [M(XSAVEOPT)] = op_xsaveopt,
	[M(XSAVEOPT64)] = op_xsaveopt, [M(XSETBV)] = op_xsetbv,
};

static unsigned size_index(const struct insn *in)
{
	switch (in->nops ? in->op[0].size : in->opsize) {
	case 1: return 0;
	case 2: return 1;
	case 4: return 2;
	default: return 3;
	}
}

/* MOV by operand kinds. */
static interp_fn resolve_mov(const struct insn *in)
{
	unsigned dst = in->op[0].kind, src = in->op[1].kind, i = size_index(in);

	if (dst == OPND_CR || src == OPND_CR)
		return op_mov_cr[0];
	if (dst == OPND_DR || src == OPND_DR)
		return op_mov_dr[0];
	if (dst == OPND_SEG)
		return op_mov_to_seg[0];
	if (src == OPND_SEG)
		return op_mov_from_seg[0];
	if (src == OPND_IMM)
		return op_mov_imm[i];
	if (src == OPND_MEM)
		return op_mov_load[i];
	return dst == OPND_MEM ? op_mov_store[i] : op_mov_reg[i];
}

/* Vector and x87 instructions that the host cannot execute as they are. */
static interp_fn resolve_host(const struct insn *in)
{
	if (in->has_vsib && in->avx512)
		return in->op[0].kind == OPND_MEM ? op_scatter : op_gather512;
	if (in->has_vsib)
		return op_gather;
	switch (in->mnemonic) {
	case M(FNSTENV): case M(FLDENV): case M(FNSAVE): case M(FRSTOR):
		return op_x87_env;
	case M(VMASKMOVPS): case M(VMASKMOVPD): case M(VPMASKMOVD): case M(VPMASKMOVQ):
		return op_vmaskmov;
	case M(MASKMOVDQU): case M(VMASKMOVDQU): case M(MASKMOVQ):
		return op_maskmov;
	default:
		return op_hostexec;
	}
}

static interp_fn resolve_condition(const struct insn *in)
{
	switch (in->mnemonic) {
	case M(JO): case M(JNO): case M(JB): case M(JNB): case M(JZ): case M(JNZ): case M(JBE): case M(JNBE):
	case M(JS): case M(JNS): case M(JP): case M(JNP): case M(JL): case M(JNL): case M(JLE): case M(JNLE):
		return op_jcc_cc[in->opcode & 15];
	case M(SETO): case M(SETNO): case M(SETB): case M(SETNB): case M(SETZ): case M(SETNZ): case M(SETBE): case M(SETNBE):
	case M(SETS): case M(SETNS): case M(SETP): case M(SETNP): case M(SETL): case M(SETNL): case M(SETLE): case M(SETNLE):
		return op_set_cc[in->opcode & 15];
	case M(CMOVO): case M(CMOVNO): case M(CMOVB): case M(CMOVNB): case M(CMOVZ): case M(CMOVNZ): case M(CMOVBE): case M(CMOVNBE):
	case M(CMOVS): case M(CMOVNS): case M(CMOVP): case M(CMOVNP): case M(CMOVL): case M(CMOVNL): case M(CMOVLE): case M(CMOVNLE):
		return op_cmov_cc[in->opcode & 15];
	default:
		return NULL;
	}
}

/* LOCK is defined on read-modify-writes of memory only; Zydis knows which, the operand is checked again here. */
static bool lock_legal(const struct insn *in)
{
	return in->nops && in->op[0].kind == OPND_MEM && in->op[0].write;
}

interp_fn interp_resolve(const struct insn *in)
{
	const interp_fn *row;
	interp_fn fn;

	if (in->lock && !lock_legal(in))
		return op_ud[0];
	/* Before the table: MOVSD and CMPSD are string and vector instructions under one mnemonic. */
	if (in->kind != INSN_INT)
		return resolve_host(in);
	if (in->mnemonic == M(MOV))
		return resolve_mov(in);
	fn = resolve_condition(in);
	if (fn)
		return fn;
	row = op_table[in->mnemonic];
	return row ? row[size_index(in)] : op_ud[0];
}
