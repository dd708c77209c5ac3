/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Architectural constants of x86-64: registers, flags, control bits, exceptions, page-table bits.
 *
 * Sources: Intel SDM vol. 1 3.4 (registers, EFLAGS), vol. 3A 2.5 (control registers), 4.5 (4-level paging), 6.3.1
 * (exceptions), 3.4.5 (descriptors); AMD APM vol. 2.
 */
#ifndef X86_ARCH_H
#define X86_ARCH_H

#include "base/types.h"

/* General registers in encoding order (SDM vol. 2A table 2-4). */
enum x86_gpr { RAX, RCX, RDX, RBX, RSP, RBP, RSI, RDI, R8, R9, R10, R11, R12, R13, R14, R15, GPR_COUNT };

/* Segment registers in encoding order; LDTR and TR follow so that one array holds all. */
enum x86_seg { ES, CS, SS, DS, FS, GS, LDTR, TR, SEG_COUNT };

enum x86_eflags {
	FL_CF = 1u << 0, FL_FIXED = 1u << 1, FL_PF = 1u << 2, FL_AF = 1u << 4, FL_ZF = 1u << 6, FL_SF = 1u << 7,
	FL_TF = 1u << 8, FL_IF = 1u << 9, FL_DF = 1u << 10, FL_OF = 1u << 11, FL_IOPL = 3u << 12, FL_NT = 1u << 14,
	FL_RF = 1u << 16, FL_VM = 1u << 17, FL_AC = 1u << 18, FL_VIF = 1u << 19, FL_VIP = 1u << 20, FL_ID = 1u << 21,
};
#define FL_ARITH (FL_CF | FL_PF | FL_AF | FL_ZF | FL_SF | FL_OF)

#define CR0_PE BIT(0)
#define CR0_MP BIT(1)
#define CR0_EM BIT(2)
#define CR0_TS BIT(3)
#define CR0_ET BIT(4)
#define CR0_NE BIT(5)
#define CR0_WP BIT(16)
#define CR0_AM BIT(18)
#define CR0_NW BIT(29)
#define CR0_CD BIT(30)
#define CR0_PG BIT(31)

#define CR4_VME BIT(0)
#define CR4_PVI BIT(1)
#define CR4_TSD BIT(2)
#define CR4_DE BIT(3)
#define CR4_PSE BIT(4)
#define CR4_PAE BIT(5)
#define CR4_MCE BIT(6)
#define CR4_PGE BIT(7)
#define CR4_PCE BIT(8)
#define CR4_OSFXSR BIT(9)
#define CR4_OSXMMEXCPT BIT(10)
#define CR4_UMIP BIT(11)
#define CR4_FSGSBASE BIT(16)
#define CR4_PCIDE BIT(17)
#define CR4_OSXSAVE BIT(18)
#define CR4_SMEP BIT(20)

#define EFER_SCE BIT(0)
#define EFER_LME BIT(8)
#define EFER_LMA BIT(10)
#define EFER_NXE BIT(11)

enum x86_vector {
	VEC_DE = 0, VEC_DB = 1, VEC_NMI = 2, VEC_BP = 3, VEC_OF = 4, VEC_BR = 5, VEC_UD = 6, VEC_NM = 7, VEC_DF = 8,
	VEC_TS = 10, VEC_NP = 11, VEC_SS = 12, VEC_GP = 13, VEC_PF = 14, VEC_MF = 16, VEC_AC = 17, VEC_MC = 18, VEC_XM = 19,
};

/* Page-fault error code (SDM vol. 3A 4.7). */
enum x86_pferr { PF_P = 1, PF_W = 2, PF_U = 4, PF_RSVD = 8, PF_I = 16 };

/* Page-table entry bits (SDM vol. 3A 4.5.4). */
#define PTE_P BIT(0)
#define PTE_W BIT(1)
#define PTE_U BIT(2)
#define PTE_A BIT(5)
#define PTE_D BIT(6)
#define PTE_PS BIT(7)
#define PTE_G BIT(8)
#define PTE_NX BIT(63)
#define PTE_ADDR 0x000ffffffffff000ull

/* DR6/DR7 (SDM vol. 3B 17.2). */
#define DR6_FIXED 0xffff0ff0ull
#define DR6_BD BIT(13)
#define DR6_BS BIT(14)
#define DR6_BT BIT(15)
#define DR7_FIXED 0x400ull
#define DR7_GD BIT(13)

/* Widths of the physical and linear address this machine reports in CPUID 80000008. */
#define X86_PHYS_BITS 40
#define X86_LINEAR_BITS 48

static inline bool x86_canonical(gva_t a)
{
	return (uint64_t)((int64_t)(a << 16) >> 16) == a;
}

#endif
