/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Data moves: MOV and its extensions, LEA, conditional moves and sets, sign extensions, flag moves, decimal adjustment, XLAT.
 *
 * MOV is specialised by operand form because it is a third of all instructions. Spec: SDM vol. 2.
 */
#include "engine/interp/ops.h"

/* --- MOV -------------------------------------------------------------------------------------------------------- */

INLINE int mov_reg(struct vcpu *v, const struct insn *in, int unused, unsigned size)
{
	(void)unused;
	reg_set(v, &in->op[0], size, reg_get(v, &in->op[1], size));
	return OP_NEXT;
}

INLINE int mov_load(struct vcpu *v, const struct insn *in, int unused, unsigned size)
{
	uint64_t x;

	(void)unused;
	if (unlikely(mem_read_op(v, in, size, &x)))
		return OP_FAULT;
	reg_set(v, &in->op[0], size, x);
	return OP_NEXT;
}

INLINE int mov_store(struct vcpu *v, const struct insn *in, int unused, unsigned size)
{
	(void)unused;
	return mem_write_op(v, in, size, reg_get(v, &in->op[1], size));
}

INLINE int mov_imm(struct vcpu *v, const struct insn *in, int unused, unsigned size)
{
	(void)unused;
	return op_write(v, in, 0, size, in->imm[in->op[1].reg]);
}

#define SIZED(name, form)                                                                                              \
	static int name##_1(struct vcpu *v, const struct insn *in) { return form(v, in, 0, 1); }                       \
	static int name##_2(struct vcpu *v, const struct insn *in) { return form(v, in, 0, 2); }                       \
	static int name##_4(struct vcpu *v, const struct insn *in) { return form(v, in, 0, 4); }                       \
	static int name##_8(struct vcpu *v, const struct insn *in) { return form(v, in, 0, 8); }                       \
	OPS(name) = {name##_1, name##_2, name##_4, name##_8}
SIZED(op_mov_reg, mov_reg);
SIZED(op_mov_load, mov_load);
SIZED(op_mov_store, mov_store);
SIZED(op_mov_imm, mov_imm);

/* MOV r/m, Sreg: memory gets 16 bits, a register the zero-extended selector. */
static int mov_from_seg(struct vcpu *v, const struct insn *in)
{
	uint16_t sel = v->seg[in->op[1].reg].sel;

	if (in->op[0].kind == OPND_MEM)
		return mem_write_op(v, in, 2, sel);
	reg_set(v, &in->op[0], in->op[0].size, sel);
	return OP_NEXT;
}
OP_ONE(op_mov_from_seg, mov_from_seg);

static int mov_to_seg(struct vcpu *v, const struct insn *in)
{
	unsigned seg = in->op[0].reg;
	uint64_t sel;

	if (seg == CS)
		return cpu_ud(v);
	if (op_read(v, in, 1, 2, &sel) || cpu_load_seg(v, (enum x86_seg)seg, (uint16_t)sel))
		return OP_FAULT;
	if (seg == SS)
		v->inhibit_irq = v->inhibit_db = true;
	return OP_NEXT;
}
OP_ONE(op_mov_to_seg, mov_to_seg);

/* LDS, LES, LFS, LGS, LSS: offset, then selector. */
static int load_far_pointer(struct vcpu *v, const struct insn *in, enum x86_seg seg)
{
	unsigned size = in->op[0].size;
	uint64_t off, sel;
	gva_t lin;

	if (mem_lin(v, in, size + 2, false, &lin) || lin_load(v, lin, size, &off) || lin_load(v, lin + size, 2, &sel) ||
	    cpu_load_seg(v, seg, (uint16_t)sel))
		return OP_FAULT;
	if (seg == SS)
		v->inhibit_irq = v->inhibit_db = true;
	reg_set(v, &in->op[0], size, off);
	return OP_NEXT;
}
static int lds(struct vcpu *v, const struct insn *in) { return load_far_pointer(v, in, DS); }
static int les(struct vcpu *v, const struct insn *in) { return load_far_pointer(v, in, ES); }
static int lfs(struct vcpu *v, const struct insn *in) { return load_far_pointer(v, in, FS); }
static int lgs(struct vcpu *v, const struct insn *in) { return load_far_pointer(v, in, GS); }
static int lss(struct vcpu *v, const struct insn *in) { return load_far_pointer(v, in, SS); }
OP_ONE(op_lds, lds);
OP_ONE(op_les, les);
OP_ONE(op_lfs, lfs);
OP_ONE(op_lgs, lgs);
OP_ONE(op_lss, lss);

/* --- extensions -------------------------------------------------------------------------------------------------- */

INLINE int extend(struct vcpu *v, const struct insn *in, bool sign, unsigned from)
{
	uint64_t x;

	if (unlikely(op_read(v, in, 1, from, &x)))
		return OP_FAULT;
	reg_set(v, &in->op[0], in->op[0].size, sign ? sign_extend(x, from) : x);
	return OP_NEXT;
}

static int movzx(struct vcpu *v, const struct insn *in)
{
	return in->op[1].size == 1 ? extend(v, in, false, 1) : extend(v, in, false, 2);
}

static int movsx(struct vcpu *v, const struct insn *in)
{
	switch (in->op[1].size) {
	case 1: return extend(v, in, true, 1);
	case 2: return extend(v, in, true, 2);
	default: return extend(v, in, true, 4);
	}
}
OP_ONE(op_movzx, movzx);
OP_ONE(op_movsx, movsx);

/* CBW, CWDE, CDQE: rAX from its lower half; CWD, CDQ, CQO: the sign of rAX into rDX. */
static int cbw(struct vcpu *v, const struct insn *in)
{
	gpr_write(v, RAX, in->opsize, sign_extend(v->gpr[RAX], in->opsize / 2));
	return OP_NEXT;
}

static int cwd(struct vcpu *v, const struct insn *in)
{
	gpr_write(v, RDX, in->opsize, (uint64_t)((int64_t)sign_extend(v->gpr[RAX], in->opsize) >> 63));
	return OP_NEXT;
}
OP_ONE(op_cbw, cbw);
OP_ONE(op_cwd, cwd);

static int lea(struct vcpu *v, const struct insn *in)
{
	reg_set(v, &in->op[0], in->op[0].size, ea_offset(v, in));
	return OP_NEXT;
}
OP_ONE(op_lea, lea);

/* --- conditions: one function per condition so that the test is a constant ------------------------------------------- */

/* The source is read (and may fault) whatever the condition; a 32-bit destination is zero-extended in any case. */
INLINE int cmov(struct vcpu *v, const struct insn *in, unsigned cc)
{
	unsigned size = in->op[0].size;
	uint64_t x;

	if (unlikely(op_read(v, in, 1, size, &x)))
		return OP_FAULT;
	if (condition(v->rflags, cc))
		reg_set(v, &in->op[0], size, x);
	else if (size == 4)
		v->gpr[in->op[0].reg] = (uint32_t)v->gpr[in->op[0].reg];
	return OP_NEXT;
}

INLINE int setcc(struct vcpu *v, const struct insn *in, unsigned cc)
{
	return op_write(v, in, 0, 1, condition(v->rflags, cc));
}

#define CC(n)                                                                                                          \
	static int cmov_##n(struct vcpu *v, const struct insn *in) { return cmov(v, in, 0x##n); }                      \
	static int set_##n(struct vcpu *v, const struct insn *in) { return setcc(v, in, 0x##n); }
CC(0) CC(1) CC(2) CC(3) CC(4) CC(5) CC(6) CC(7) CC(8) CC(9) CC(a) CC(b) CC(c) CC(d) CC(e) CC(f)
#undef CC
#define ALL(p) {p##0, p##1, p##2, p##3, p##4, p##5, p##6, p##7, p##8, p##9, p##a, p##b, p##c, p##d, p##e, p##f}
const interp_fn op_cmov_cc[16] = ALL(cmov_);
const interp_fn op_set_cc[16] = ALL(set_);

/* --- flags --------------------------------------------------------------------------------------------------------- */

static int lahf(struct vcpu *v, const struct insn *in)
{
	(void)in;
	v->gpr[RAX] = (v->gpr[RAX] & ~0xff00ull) | (v->rflags & 0xd5) << 8 | 0x200;
	return OP_NEXT;
}

static int sahf(struct vcpu *v, const struct insn *in)
{
	(void)in;
	v->rflags = (v->rflags & ~0xd5ull) | ((v->gpr[RAX] >> 8) & 0xd5);
	return OP_NEXT;
}

#define FLAG_OP(name, expr)                                                                                            \
	static int name(struct vcpu *v, const struct insn *in)                                                         \
	{                                                                                                              \
		(void)in;                                                                                              \
		v->rflags = (expr);                                                                                    \
		return OP_NEXT;                                                                                        \
	}                                                                                                              \
	OP_ONE(op_##name, name)
OP_ONE(op_lahf, lahf);
OP_ONE(op_sahf, sahf);
FLAG_OP(clc, v->rflags & ~(uint64_t)FL_CF);
FLAG_OP(stc, v->rflags | FL_CF);
FLAG_OP(cmc, v->rflags ^ FL_CF);
FLAG_OP(cld, v->rflags & ~(uint64_t)FL_DF);
FLAG_OP(std, v->rflags | FL_DF);

static int salc(struct vcpu *v, const struct insn *in)
{
	(void)in;
	gpr_write(v, RAX, 1, v->rflags & FL_CF ? 0xff : 0);
	return OP_NEXT;
}
OP_ONE(op_salc, salc);

/* --- odds and ends ------------------------------------------------------------------------------------------------- */

static int xlat(struct vcpu *v, const struct insn *in)
{
	uint64_t off = (v->gpr[RBX] + (v->gpr[RAX] & 0xff)) & size_mask(in->addrsize), x;
	gva_t lin;

	if (lin_of(v, in->mem.seg, off, 1, false, &lin) || lin_load(v, lin, 1, &x))
		return OP_FAULT;
	gpr_write(v, RAX, 1, x);
	return OP_NEXT;
}
OP_ONE(op_xlat, xlat);

/* SF, ZF, PF of a byte; the rest as given. */
static void bcd_flags(struct vcpu *v, uint8_t al, uint64_t cf_af)
{
	uint64_t fl = v->rflags & ~(uint64_t)FL_ARITH;

	fl |= cf_af | (al & 0x80 ? FL_SF : 0) | (al ? 0 : FL_ZF) | (__builtin_popcount(al) & 1 ? 0 : FL_PF);
	v->rflags = fl;
}

/* DAA, DAS (SDM vol. 2A pseudocode). */
static int decimal(struct vcpu *v, int sign)
{
	uint8_t old = (uint8_t)v->gpr[RAX], al = old;
	uint64_t fl = 0;
	bool cf = v->rflags & FL_CF;

	if ((old & 15) > 9 || (v->rflags & FL_AF)) {
		al = (uint8_t)(al + sign * 6);
		fl |= FL_AF;
		if (sign < 0 && (cf || old < 6))
			fl |= FL_CF;
	}
	if (old > 0x99 || cf) {
		al = (uint8_t)(al + sign * 0x60);
		fl |= FL_CF;
	}
	gpr_write(v, RAX, 1, al);
	bcd_flags(v, al, fl);
	return OP_NEXT;
}

/* AAA, AAS: 16-bit adjustment of AX. */
static int ascii(struct vcpu *v, int sign)
{
	uint16_t ax = (uint16_t)v->gpr[RAX];
	bool adjust = (ax & 15) > 9 || (v->rflags & FL_AF);

	if (adjust)
		ax = (uint16_t)(ax + sign * 0x106);
	ax &= 0xff0f;
	gpr_write(v, RAX, 2, ax);
	bcd_flags(v, (uint8_t)ax, adjust ? FL_CF | FL_AF : 0);
	return OP_NEXT;
}

static int daa(struct vcpu *v, const struct insn *in) { (void)in; return decimal(v, 1); }
static int das(struct vcpu *v, const struct insn *in) { (void)in; return decimal(v, -1); }
static int aaa(struct vcpu *v, const struct insn *in) { (void)in; return ascii(v, 1); }
static int aas(struct vcpu *v, const struct insn *in) { (void)in; return ascii(v, -1); }

static int aam(struct vcpu *v, const struct insn *in)
{
	uint8_t base = (uint8_t)in->imm[0], al = (uint8_t)v->gpr[RAX];

	if (!base)
		return cpu_raise(v, VEC_DE);
	gpr_write(v, RAX, 2, (uint64_t)(al / base) << 8 | al % base);
	bcd_flags(v, al % base, 0);
	return OP_NEXT;
}

static int aad(struct vcpu *v, const struct insn *in)
{
	uint8_t al = (uint8_t)((v->gpr[RAX] & 0xff) + ((v->gpr[RAX] >> 8) & 0xff) * in->imm[0]);

	gpr_write(v, RAX, 2, al);
	bcd_flags(v, al, 0);
	return OP_NEXT;
}
OP_ONE(op_daa, daa);
OP_ONE(op_das, das);
OP_ONE(op_aaa, aaa);
OP_ONE(op_aas, aas);
OP_ONE(op_aam, aam);
OP_ONE(op_aad, aad);

static int nop(struct vcpu *v, const struct insn *in)
{
	(void)v;
	(void)in;
	return OP_NEXT;
}
OP_ONE(op_nop, nop);
