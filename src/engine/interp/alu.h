/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Arithmetic with flags, computed by the host's own instruction of the same name and size.
 *
 * The guest's ISA is the host's, so the host's ALU is the definition: including flags that the manual leaves undefined, which then
 * agree with translated code. LAHF and SETO read the flags without touching the stack (the red zone stays usable).
 *
 * Invariant: alu() is pure; *fl is all of RFLAGS in and out, only arithmetic flags change.
 */
#ifndef ENGINE_INTERP_ALU_H
#define ENGINE_INTERP_ALU_H

#include "engine/interp/operands.h"

enum alu_op {
	ALU_ADD, ALU_OR, ALU_ADC, ALU_SBB, ALU_AND, ALU_SUB, ALU_XOR, ALU_CMP, ALU_TEST,
	ALU_INC, ALU_DEC, ALU_NEG, ALU_NOT,
	ALU_ROL, ALU_ROR, ALU_RCL, ALU_RCR, ALU_SHL, ALU_SHR, ALU_SAR,
	ALU_BT, ALU_BTS, ALU_BTR, ALU_BTC,
};

/* AH as LAHF leaves it, AL = OF. */
INLINE uint64_t alu_flags(uint64_t fl, uint32_t ax, uint64_t mask)
{
	uint64_t n = ((ax >> 8) & 0xd5) | (uint64_t)(ax & 1) << 11;

	return (fl & ~mask) | (n & mask);
}

#define ALU_TAIL "\n\tlahf\n\tseto %%al"
#define ALU_CARRY "btl $0, %k[fl]\n\t"
/* Loads all of the guest's arithmetic flags first, for instructions whose undefined flags some processors leave as they were.
 * 127 + OF overflows exactly if OF is set, and SAHF leaves OF alone. */
#define ALU_KEEP "movl %k[fl], %%eax\n\tshll $8, %%eax\n\tbtl $11, %k[fl]\n\tsetc %%al\n\taddb $127, %%al\n\tsahf\n\t"

#define ALU_TWO(T, pre, insn, mask)                                                                                    \
	({                                                                                                             \
		T r_ = (T)a;                                                                                           \
		uint32_t ax_;                                                                                          \
		asm(pre insn " %[b], %[r]" ALU_TAIL                                                                   \
		    : [r] "+&r"(r_), "=&a"(ax_)                                                                       \
		    : [b] "r"((T)b), [fl] "r"((uint32_t)*fl)                                                           \
		    : "cc");                                                                                           \
		*fl = alu_flags(*fl, ax_, mask);                                                                       \
		(uint64_t) r_;                                                                                         \
	})
#define ALU_ONE(T, pre, insn, mask)                                                                                    \
	({                                                                                                             \
		T r_ = (T)a;                                                                                           \
		uint32_t ax_;                                                                                          \
		asm(pre insn " %[r]" ALU_TAIL : [r] "+&r"(r_), "=&a"(ax_) : [fl] "r"((uint32_t)*fl) : "cc");           \
		*fl = alu_flags(*fl, ax_, mask);                                                                       \
		(uint64_t) r_;                                                                                         \
	})
#define ALU_SHIFT(T, pre, insn, mask)                                                                                  \
	({                                                                                                             \
		T r_ = (T)a;                                                                                           \
		uint32_t ax_;                                                                                          \
		asm(pre insn " %%cl, %[r]" ALU_TAIL                                                                   \
		    : [r] "+&r"(r_), "=&a"(ax_)                                                                       \
		    : "c"((uint8_t)b), [fl] "r"((uint32_t)*fl)                                                         \
		    : "cc");                                                                                           \
		*fl = alu_flags(*fl, ax_, mask);                                                                       \
		(uint64_t) r_;                                                                                         \
	})
#define ALU_SIZES(form, pre, insn, mask)                                                                               \
	(size == 1   ? form(uint8_t, pre, insn, mask)                                                                  \
	 : size == 2 ? form(uint16_t, pre, insn, mask)                                                                 \
	 : size == 4 ? form(uint32_t, pre, insn, mask)                                                                 \
		     : form(uint64_t, pre, insn, mask))
#define ALU_WIDE(form, pre, insn, mask)                                                                                \
	(size == 2   ? form(uint16_t, pre, insn, mask)                                                                 \
	 : size == 4 ? form(uint32_t, pre, insn, mask)                                                                 \
		     : form(uint64_t, pre, insn, mask))

#define FL_INCDEC (FL_ARITH & ~FL_CF)
#define FL_ROT (FL_CF | FL_OF)

INLINE bool alu_is_shift(enum alu_op op)
{
	return op >= ALU_ROL && op <= ALU_SAR;
}

INLINE uint64_t alu(enum alu_op op, unsigned size, uint64_t a, uint64_t b, uint64_t *fl)
{
	/* A masked count of zero changes no flag. */
	if (alu_is_shift(op) && !(b & (size == 8 ? 63 : 31)))
		return a;
	switch (op) {
	case ALU_ADD: return ALU_SIZES(ALU_TWO, "", "add", FL_ARITH);
	case ALU_OR: return ALU_SIZES(ALU_TWO, "", "or", FL_ARITH);
	case ALU_ADC: return ALU_SIZES(ALU_TWO, ALU_CARRY, "adc", FL_ARITH);
	case ALU_SBB: return ALU_SIZES(ALU_TWO, ALU_CARRY, "sbb", FL_ARITH);
	case ALU_AND: return ALU_SIZES(ALU_TWO, "", "and", FL_ARITH);
	case ALU_SUB: return ALU_SIZES(ALU_TWO, "", "sub", FL_ARITH);
	case ALU_XOR: return ALU_SIZES(ALU_TWO, "", "xor", FL_ARITH);
	case ALU_CMP: return ALU_SIZES(ALU_TWO, "", "cmp", FL_ARITH);
	case ALU_TEST: return ALU_SIZES(ALU_TWO, "", "test", FL_ARITH);
	case ALU_INC: return ALU_SIZES(ALU_ONE, "", "inc", FL_INCDEC);
	case ALU_DEC: return ALU_SIZES(ALU_ONE, "", "dec", FL_INCDEC);
	case ALU_NEG: return ALU_SIZES(ALU_ONE, "", "neg", FL_ARITH);
	case ALU_NOT: return ~a & size_mask(size);
	case ALU_ROL: return ALU_SIZES(ALU_SHIFT, "", "rol", FL_ROT);
	case ALU_ROR: return ALU_SIZES(ALU_SHIFT, "", "ror", FL_ROT);
	case ALU_RCL: return ALU_SIZES(ALU_SHIFT, ALU_CARRY, "rcl", FL_ROT);
	case ALU_RCR: return ALU_SIZES(ALU_SHIFT, ALU_CARRY, "rcr", FL_ROT);
	case ALU_SHL: return ALU_SIZES(ALU_SHIFT, "", "shl", FL_ARITH);
	case ALU_SHR: return ALU_SIZES(ALU_SHIFT, "", "shr", FL_ARITH);
	case ALU_SAR: return ALU_SIZES(ALU_SHIFT, "", "sar", FL_ARITH);
	case ALU_BT: return ALU_WIDE(ALU_TWO, "", "bt", FL_CF);
	case ALU_BTS: return ALU_WIDE(ALU_TWO, "", "bts", FL_CF);
	case ALU_BTR: return ALU_WIDE(ALU_TWO, "", "btr", FL_CF);
	case ALU_BTC: return ALU_WIDE(ALU_TWO, "", "btc", FL_CF);
	}
	return a;
}

#endif
