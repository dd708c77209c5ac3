/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Bit test and scan, counts, BMI1/BMI2, byte order, CRC32.
 *
 * Invariant: as in ops_alu.c, nothing changes before the memory operand has been accessed. BMI results and flags come from the
 * host's own instruction (the probe demands BMI1/BMI2). Spec: SDM vol. 2.
 */
#include "engine/interp/alu.h"
#include "engine/interp/ops.h"

/* BT family with a register bit offset addresses memory beyond the operand: offset / width operands away, signed. */
INLINE int bit_op(struct vcpu *v, const struct insn *in, enum alu_op op, unsigned size)
{
	uint64_t off, old, res, fl = v->rflags, ea;
	struct rmw m;
	gva_t lin;

	(void)op_read(v, in, 1, size, &off);
	if (in->op[0].kind == OPND_GPR) {
		res = alu(op, size, reg_get(v, &in->op[0], size), off & (size * 8 - 1), &fl);
		if (op != ALU_BT)
			reg_set(v, &in->op[0], size, res);
		v->rflags = fl;
		return OP_NEXT;
	}
	ea = ea_offset(v, in);
	if (in->op[1].kind == OPND_GPR) {
		int64_t s = (int64_t)sign_extend(off, size);

		ea = (ea + (uint64_t)((s >> (size == 2 ? 4 : size == 4 ? 5 : 6)) * (int64_t)size)) & size_mask(in->addrsize);
	}
	off &= size * 8 - 1;
	if (lin_of(v, in->mem.seg, ea, size, op != ALU_BT, &lin))
		return OP_FAULT;
	if (op == ALU_BT) {
		if (lin_load(v, lin, size, &old))
			return OP_FAULT;
		(void)alu(op, size, old, off, &fl);
	} else {
		if (rmw_open_at(v, lin, size, &m, &old))
			return OP_FAULT;
		do {
			fl = v->rflags;
			res = alu(op, size, old, off, &fl);
		} while (!rmw_commit(v, &m, size, in->lock, &old, res));
	}
	v->rflags = fl;
	return OP_NEXT;
}

#define WIDE(name, op)                                                                                                 \
	static int name##_2(struct vcpu *v, const struct insn *in) { return bit_op(v, in, op, 2); }                    \
	static int name##_4(struct vcpu *v, const struct insn *in) { return bit_op(v, in, op, 4); }                    \
	static int name##_8(struct vcpu *v, const struct insn *in) { return bit_op(v, in, op, 8); }                    \
	OPS(name) = {name##_2, name##_2, name##_4, name##_8}
WIDE(op_bt, ALU_BT);
WIDE(op_bts, ALU_BTS);
WIDE(op_btr, ALU_BTR);
WIDE(op_btc, ALU_BTC);

/*
 * Two-operand forms of the host: r is the whole destination register, so that what a zero source leaves in it (BSF, BSR) is what
 * the host leaves.
 */
#define SCAN_OPERANDS [r] "+&r"(r), "=&a"(ax) : [s] "r"(src), [fl] "r"((uint32_t)v->rflags) : "cc"
#define SCAN(name, mn, mask)                                                                                           \
	static int name(struct vcpu *v, const struct insn *in)                                                         \
	{                                                                                                              \
		uint64_t src, r = v->gpr[in->op[0].reg];                                                               \
		unsigned size = in->op[0].size;                                                                        \
		uint32_t ax;                                                                                           \
                                                                                                                       \
		if (op_read(v, in, 1, size, &src))                                                                     \
			return OP_FAULT;                                                                               \
		if (size == 2)                                                                                         \
			asm(ALU_KEEP mn " %w[s], %w[r]" ALU_TAIL : SCAN_OPERANDS);               \
		else if (size == 4)                                                                                    \
			asm(ALU_KEEP mn " %k[s], %k[r]" ALU_TAIL : SCAN_OPERANDS);               \
		else                                                                                                   \
			asm(ALU_KEEP mn " %[s], %[r]" ALU_TAIL : SCAN_OPERANDS);                 \
		v->gpr[in->op[0].reg] = r;                                                                             \
		v->rflags = alu_flags(v->rflags, ax, mask);                                                            \
		return OP_NEXT;                                                                                        \
	}                                                                                                              \
	OP_ONE(op_##name, name)
SCAN(bsf, "bsf", FL_ARITH);
SCAN(bsr, "bsr", FL_ARITH);
SCAN(tzcnt, "tzcnt", FL_ARITH);
SCAN(lzcnt, "lzcnt", FL_ARITH);
SCAN(popcnt, "popcnt", FL_ARITH);

/* VEX forms dst, src: BLSI, BLSMSK, BLSR. */
#define BMI_TWO(name)                                                                                                  \
	static int name(struct vcpu *v, const struct insn *in)                                                         \
	{                                                                                                              \
		unsigned size = in->op[0].size;                                                                        \
		uint64_t src, r;                                                                                       \
		uint32_t ax;                                                                                           \
                                                                                                                       \
		if (op_read(v, in, 1, size, &src))                                                                     \
			return OP_FAULT;                                                                               \
		if (size == 4)                                                                                         \
			asm(#name " %k[s], %k[r]" ALU_TAIL : [r] "=&r"(r), "=&a"(ax) : [s] "r"(src) : "cc");            \
		else                                                                                                   \
			asm(#name " %[s], %[r]" ALU_TAIL : [r] "=&r"(r), "=&a"(ax) : [s] "r"(src) : "cc");              \
		reg_set(v, &in->op[0], size, r);                                                                       \
		v->rflags = alu_flags(v->rflags, ax, FL_ARITH);                                                        \
		return OP_NEXT;                                                                                        \
	}                                                                                                              \
	OP_ONE(op_##name, name)
BMI_TWO(blsi);
BMI_TWO(blsmsk);
BMI_TWO(blsr);

/* VEX forms with three operands; x is operand 1 and y operand 2, whichever of them may be memory. */
#define BMI_THREE(name, args, mask)                                                                                    \
	static int name(struct vcpu *v, const struct insn *in)                                                         \
	{                                                                                                              \
		unsigned size = in->op[0].size;                                                                        \
		uint64_t x, y, r;                                                                                      \
		uint32_t ax;                                                                                           \
                                                                                                                       \
		if (op_read(v, in, 1, size, &x) || op_read(v, in, 2, size, &y))                                        \
			return OP_FAULT;                                                                               \
		if (size == 4)                                                                                         \
			asm(#name " " args("k") ALU_TAIL : [r] "=&r"(r), "=&a"(ax) : [x] "r"(x), [y] "r"(y) : "cc");    \
		else                                                                                                   \
			asm(#name " " args("q") ALU_TAIL : [r] "=&r"(r), "=&a"(ax) : [x] "r"(x), [y] "r"(y) : "cc");    \
		reg_set(v, &in->op[0], size, r);                                                                       \
		v->rflags = alu_flags(v->rflags, ax, mask);                                                            \
		return OP_NEXT;                                                                                        \
	}                                                                                                              \
	OP_ONE(op_##name, name)
#define YXR(k) "%" k "[y], %" k "[x], %" k "[r]" /* AT&T order of dst, x, y/m */
BMI_THREE(andn, YXR, FL_ARITH);
BMI_THREE(bextr, YXR, FL_ARITH);
BMI_THREE(bzhi, YXR, FL_ARITH);
BMI_THREE(pdep, YXR, 0);
BMI_THREE(pext, YXR, 0);
BMI_THREE(sarx, YXR, 0);
BMI_THREE(shlx, YXR, 0);
BMI_THREE(shrx, YXR, 0);

static int rorx(struct vcpu *v, const struct insn *in)
{
	unsigned size = in->op[0].size, c = in->imm[in->op[2].reg] & (size * 8 - 1);
	uint64_t x;

	if (op_read(v, in, 1, size, &x))
		return OP_FAULT;
	reg_set(v, &in->op[0], size, c ? x >> c | x << (size * 8 - c) : x);
	return OP_NEXT;
}
OP_ONE(op_rorx, rorx);

/* MULX hi, lo, src: rDX * src; hi wins when both name one register. */
static int mulx(struct vcpu *v, const struct insn *in)
{
	unsigned size = in->op[0].size;
	uint64_t src, lo = v->gpr[RDX], hi;

	if (op_read(v, in, 2, size, &src))
		return OP_FAULT;
	if (size == 4) {
		lo = (uint64_t)(uint32_t)lo * src;
		hi = lo >> 32;
	} else {
		asm("mulq %[s]" : "+a"(lo), "=d"(hi) : [s] "r"(src) : "cc");
	}
	reg_set(v, &in->op[1], size, lo);
	reg_set(v, &in->op[0], size, hi);
	return OP_NEXT;
}
OP_ONE(op_mulx, mulx);

/* --- byte order, checksums --------------------------------------------------------------------------------------- */

static uint64_t swap_bytes(uint64_t x, unsigned size)
{
	return size == 2 ? __builtin_bswap16((uint16_t)x) : size == 4 ? __builtin_bswap32((uint32_t)x) : __builtin_bswap64(x);
}

/* The 16-bit form is undefined in the manual; hardware clears the register's low word. */
static int bswap(struct vcpu *v, const struct insn *in)
{
	unsigned size = in->op[0].size;

	reg_set(v, &in->op[0], size, size == 2 ? 0 : swap_bytes(reg_get(v, &in->op[0], size), size));
	return OP_NEXT;
}
OP_ONE(op_bswap, bswap);

static int movbe(struct vcpu *v, const struct insn *in)
{
	unsigned size = in->op[0].size;
	uint64_t x;

	if (op_read(v, in, 1, size, &x) || op_write(v, in, 0, size, swap_bytes(x, size)))
		return OP_FAULT;
	return OP_NEXT;
}
OP_ONE(op_movbe, movbe);

static int crc32(struct vcpu *v, const struct insn *in)
{
	uint64_t x, c = (uint32_t)v->gpr[in->op[0].reg];
	unsigned size = in->op[1].size;

	if (op_read(v, in, 1, size, &x))
		return OP_FAULT;
	switch (size) {
	case 1: asm("crc32b %b[x], %k[c]" : [c] "+r"(c) : [x] "r"(x)); break;
	case 2: asm("crc32w %w[x], %k[c]" : [c] "+r"(c) : [x] "r"(x)); break;
	case 4: asm("crc32l %k[x], %k[c]" : [c] "+r"(c) : [x] "r"(x)); break;
	default: asm("crc32q %[x], %[c]" : [c] "+r"(c) : [x] "r"(x)); break;
	}
	v->gpr[in->op[0].reg] = c;
	return OP_NEXT;
}
OP_ONE(op_crc32, crc32);
