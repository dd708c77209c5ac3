/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Writing host machine code: a cursor and the few instruction forms the translator needs. Knows nothing of guests.
 *
 * Invariant: nothing is written past `end` by more than EMIT_SLACK bytes, since room is looked for once for each instruction; behind
 * `end` `full` is set and the block abandoned. Patching stays inside what has been written. Addresses are those of the
 * executable alias; `w` is the writable one (W^X: the same memory mapped twice).
 * Encodings: Intel SDM vol. 2A 2.1 (ModRM, SIB, REX), 2.3 (VEX).
 */
#ifndef ENGINE_BT_EMIT_H
#define ENGINE_BT_EMIT_H

#include "base/types.h"
#include "x86/arch.h"

struct emit {
	uint8_t *w;        /* next byte, writable alias */
	uint8_t *end;
	int64_t x_minus_w; /* executable address = (uintptr_t)w + x_minus_w */
	bool full;
};

/* The longest instruction, and some. */
#define EMIT_SLACK 32

#define NOREG 0xff

enum cond { CC_O, CC_NO, CC_B, CC_AE, CC_E, CC_NE, CC_BE, CC_A, CC_S, CC_NS, CC_P, CC_NP, CC_L, CC_GE, CC_LE, CC_G, CC_ALWAYS };

/* A memory operand. base/index are host registers or NOREG; with both NOREG the address is the sign-extended disp. */
struct emem {
	uint8_t base, index, scale;
	int32_t disp;
};
#define EMEM(b, d) ((struct emem){.base = (b), .index = NOREG, .scale = 1, .disp = (d)})
#define EMEMX(b, i, s, d) ((struct emem){.base = (b), .index = (i), .scale = (s), .disp = (d)})

static inline uintptr_t emit_here(const struct emit *e) { return (uintptr_t)((int64_t)(uintptr_t)e->w + e->x_minus_w); }
static inline bool emit_room(struct emit *e)
{
	if (likely(e->w < e->end))
		return true;
	e->full = true;
	return false;
}
static inline void emit_byte(struct emit *e, unsigned b)
{
	if (emit_room(e))
		*e->w++ = (uint8_t)b;
}
void emit_u32(struct emit *e, uint32_t v);
void emit_u64(struct emit *e, uint64_t v);
void emit_bytes(struct emit *e, const uint8_t *p, unsigned n);

/* ModRM, SIB and displacement for reg field `reg` (low 3 bits used) and a memory or register operand. wide: a displacement that is not 0 has
 * 32 bits, as EVEX counts one of 8 bits in other units (SDM vol. 2A 2.7.5). */
void emit_modrm_mem(struct emit *e, unsigned reg, const struct emem *m, bool wide);
void emit_modrm_reg(struct emit *e, unsigned reg, unsigned rm);

/* [REX] opcode ModRM: `op` is one byte, or 0x0Fxx. w = REX.W. */
void emit_op_mem(struct emit *e, bool w, unsigned op, unsigned reg, struct emem m);
void emit_op_reg(struct emit *e, bool w, unsigned op, unsigned reg, unsigned rm);

static inline void emit_load(struct emit *e, unsigned reg, struct emem m) { emit_op_mem(e, true, 0x8b, reg, m); }
static inline void emit_load32(struct emit *e, unsigned reg, struct emem m) { emit_op_mem(e, false, 0x8b, reg, m); }
static inline void emit_store(struct emit *e, struct emem m, unsigned reg) { emit_op_mem(e, true, 0x89, reg, m); }
static inline void emit_store32(struct emit *e, struct emem m, unsigned reg) { emit_op_mem(e, false, 0x89, reg, m); }
static inline void emit_lea(struct emit *e, unsigned reg, struct emem m) { emit_op_mem(e, true, 0x8d, reg, m); }
static inline void emit_lea32(struct emit *e, unsigned reg, struct emem m) { emit_op_mem(e, false, 0x8d, reg, m); }
static inline void emit_mov(struct emit *e, unsigned dst, unsigned src) { emit_op_reg(e, true, 0x89, src, dst); }
void emit_mov_imm(struct emit *e, unsigned reg, uint64_t imm);       /* shortest of 32-bit, sign-extended, 64-bit */
void emit_store_imm32(struct emit *e, struct emem m, uint32_t imm);  /* 32-bit store */
/* dst = PEXT/PDEP of register src under the mask in memory. */
void emit_pext(struct emit *e, unsigned dst, unsigned src, struct emem mask);
void emit_pdep(struct emit *e, unsigned dst, unsigned src, struct emem mask);
void emit_rorx(struct emit *e, unsigned dst, unsigned src, unsigned count);
void emit_shift(struct emit *e, unsigned op, unsigned reg, uint8_t count); /* 64 bits; op: /4 shl, /5 shr, /7 sar */
void emit_and_imm32(struct emit *e, unsigned reg, uint32_t imm);     /* and reg32, imm32 */
void emit_and_page(struct emit *e, unsigned reg);                    /* and reg64, -PAGE_SIZE */
void emit_imul_imm32(struct emit *e, unsigned dst, unsigned src, int32_t imm); /* 64 bits */
void emit_test_imm32(struct emit *e, unsigned reg, uint32_t imm);    /* test reg32, imm32 */
void emit_flags_to_reg(struct emit *e, unsigned reg);               /* pushfq; pop reg: on the host stack */
void emit_test_imm8(struct emit *e, unsigned reg, uint8_t imm);      /* test reg8, imm8 */

/* Branches to absolute executable addresses (within 2 GiB). Return the writable address of the rel32, for patching. */
uint8_t *emit_jmp(struct emit *e, uintptr_t target);
uint8_t *emit_call(struct emit *e, uintptr_t target);
uint8_t *emit_jcc(struct emit *e, enum cond cc, uintptr_t target);
/* Points the rel32 at `at` (as returned above) to `target`. */
void emit_patch(const struct emit *e, uint8_t *at, uintptr_t target);

#endif
