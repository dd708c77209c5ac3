/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The handler arrays that table.c joins to mnemonics; each is indexed by log2 of the first operand's size.
 * Defined in ops_alu.c, ops_bits.c, ops_move.c, ops_flow.c, ops_string.c, ops_sys.c.
 */
#ifndef ENGINE_INTERP_OPS_H
#define ENGINE_INTERP_OPS_H

#include "engine/interp/operands.h"

extern const interp_fn op_aaa[4], op_aad[4], op_aam[4], op_aas[4], op_adc[4], op_adcx[4], op_add[4], op_adox[4], op_and[4];
extern const interp_fn op_andn[4], op_arpl[4], op_bextr[4], op_blsi[4], op_blsmsk[4], op_blsr[4], op_bound[4], op_bsf[4];
extern const interp_fn op_bsr[4], op_bswap[4], op_bt[4], op_btc[4], op_btr[4], op_bts[4], op_bzhi[4], op_call[4], op_cbw[4];
extern const interp_fn op_clc[4], op_cld[4], op_clflush[4], op_cli[4], op_clts[4], op_cmc[4], op_cmp[4], op_cmps[4];
extern const interp_fn op_cmpxchg[4], op_cmpxchg16b[4], op_cmpxchg8b[4], op_cpuid[4], op_crc32[4], op_cwd[4], op_daa[4];
extern const interp_fn op_das[4], op_dec[4], op_div[4], op_enter[4], op_fence[4], op_fxrstor[4], op_fxsave[4], op_hlt[4];
extern const interp_fn op_idiv[4], op_imul[4], op_in[4], op_inc[4], op_ins[4], op_int[4], op_int1[4], op_int3[4], op_into[4];
extern const interp_fn op_invlpg[4], op_invpcid[4], op_iret[4], op_jcxz[4], op_jmp[4], op_lahf[4], op_lar[4], op_lds[4];
extern const interp_fn op_lea[4], op_leave[4], op_les[4], op_lfs[4], op_lgdt[4], op_lgs[4], op_lidt[4], op_lldt[4];
extern const interp_fn op_lmsw[4], op_lods[4], op_loop[4], op_loope[4], op_loopne[4], op_lsl[4], op_lss[4], op_ltr[4];
extern const interp_fn op_lzcnt[4], op_mov_cr[4], op_mov_dr[4], op_mov_from_seg[4], op_mov_imm[4], op_mov_load[4], op_mov_reg[4];
extern const interp_fn op_mov_store[4], op_mov_to_seg[4], op_movbe[4], op_movs[4], op_movsx[4], op_movzx[4], op_mul[4];
extern const interp_fn op_mulx[4], op_neg[4], op_nop[4], op_not[4], op_or[4], op_out[4], op_outs[4], op_pdep[4], op_pext[4];
extern const interp_fn op_pop[4], op_popa[4], op_popcnt[4], op_popf[4], op_push[4], op_pusha[4], op_pushf[4], op_rcl[4];
extern const interp_fn op_rcr[4], op_rdfsbase[4], op_rdgsbase[4], op_rdmsr[4], op_rdpid[4], op_rdpmc[4], op_rdrand[4];
extern const interp_fn op_rdseed[4], op_rdtsc[4], op_rdtscp[4], op_ret[4], op_rol[4], op_ror[4], op_rorx[4], op_sahf[4];
extern const interp_fn op_salc[4], op_sar[4], op_sarx[4], op_sbb[4], op_scas[4], op_sgdt[4], op_shl[4], op_shld[4];
extern const interp_fn op_shlx[4], op_shr[4], op_shrd[4], op_shrx[4], op_sidt[4], op_sldt[4], op_smsw[4], op_stc[4];
extern const interp_fn op_std[4], op_sti[4], op_stos[4], op_str[4], op_sub[4], op_swapgs[4], op_syscall[4], op_sysenter[4];
extern const interp_fn op_sysexit[4], op_sysret[4], op_test[4], op_tzcnt[4], op_ud[4], op_verr[4], op_verw[4], op_wbinvd[4];
extern const interp_fn op_wrfsbase[4], op_wrgsbase[4], op_wrmsr[4], op_xadd[4], op_xchg[4], op_xgetbv[4], op_xlat[4];
extern const interp_fn op_vmcall[4], op_pause[4];
extern const interp_fn op_xor[4], op_xrstor[4], op_xsave[4], op_xsavec[4], op_xsaveopt[4], op_xsetbv[4];
/* One function per condition code. */
extern const interp_fn op_jcc_cc[16], op_set_cc[16], op_cmov_cc[16];

#endif
