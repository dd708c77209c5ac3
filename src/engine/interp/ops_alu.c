/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Two-operand arithmetic, increments, shifts, multiplication, division, exchange: everything on general registers that is not
 * a bit field or a data move (ops_bits.c, ops_move.c).
 *
 * Invariant: registers and flags change only after the memory operand has been written. Locking: locked forms use host
 * atomics on the operand, so device threads that share guest memory see them whole. Spec: SDM vol. 2.
 */
#include "engine/interp/alu.h"
#include "engine/interp/ops.h"

/* dst = dst OP src, for registers and memory, with and without LOCK. */
INLINE int modify(struct vcpu *v, const struct insn *in, enum alu_op op, unsigned size, uint64_t src)
{
	uint64_t old, res, fl = v->rflags;
	struct rmw m;

	if (likely(in->op[0].kind == OPND_GPR)) {
		res = alu(op, size, reg_get(v, &in->op[0], size), src, &fl);
		reg_set(v, &in->op[0], size, res);
		v->rflags = fl;
		return OP_NEXT;
	}
	if (unlikely(rmw_open(v, in, size, &m, &old)))
		return OP_FAULT;
	do {
		fl = v->rflags;
		res = alu(op, size, old, src, &fl);
	} while (unlikely(!rmw_commit(v, &m, size, in->lock, &old, res)));
	v->rflags = fl;
	return OP_NEXT;
}

INLINE int binary(struct vcpu *v, const struct insn *in, enum alu_op op, unsigned size)
{
	uint64_t src;

	if (unlikely(op_read(v, in, 1, size, &src)))
		return OP_FAULT;
	return modify(v, in, op, size, src);
}

INLINE int compare(struct vcpu *v, const struct insn *in, enum alu_op op, unsigned size)
{
	uint64_t a, b;

	if (unlikely(op_read(v, in, 0, size, &a) || op_read(v, in, 1, size, &b)))
		return OP_FAULT;
	(void)alu(op, size, a, b, &v->rflags);
	return OP_NEXT;
}

INLINE int shift(struct vcpu *v, const struct insn *in, enum alu_op op, unsigned size)
{
	const struct insn_operand *c = &in->op[1];

	return modify(v, in, op, size, c->kind == OPND_GPR ? v->gpr[RCX] & 0xff : in->imm[c->reg]);
}

INLINE int unary(struct vcpu *v, const struct insn *in, enum alu_op op, unsigned size)
{
	return modify(v, in, op, size, 0);
}

/* Four functions, one per size, and their array. */
#define SIZED(name, form, op)                                                                                          \
	static int name##_1(struct vcpu *v, const struct insn *in) { return form(v, in, op, 1); }                      \
	static int name##_2(struct vcpu *v, const struct insn *in) { return form(v, in, op, 2); }                      \
	static int name##_4(struct vcpu *v, const struct insn *in) { return form(v, in, op, 4); }                      \
	static int name##_8(struct vcpu *v, const struct insn *in) { return form(v, in, op, 8); }                      \
	OPS(name) = {name##_1, name##_2, name##_4, name##_8}

SIZED(op_add, binary, ALU_ADD);
SIZED(op_or, binary, ALU_OR);
SIZED(op_adc, binary, ALU_ADC);
SIZED(op_sbb, binary, ALU_SBB);
SIZED(op_and, binary, ALU_AND);
SIZED(op_sub, binary, ALU_SUB);
SIZED(op_xor, binary, ALU_XOR);
SIZED(op_cmp, compare, ALU_CMP);
SIZED(op_test, compare, ALU_TEST);
SIZED(op_inc, unary, ALU_INC);
SIZED(op_dec, unary, ALU_DEC);
SIZED(op_neg, unary, ALU_NEG);
SIZED(op_not, unary, ALU_NOT);
SIZED(op_rol, shift, ALU_ROL);
SIZED(op_ror, shift, ALU_ROR);
SIZED(op_rcl, shift, ALU_RCL);
SIZED(op_rcr, shift, ALU_RCR);
SIZED(op_shl, shift, ALU_SHL);
SIZED(op_shr, shift, ALU_SHR);
SIZED(op_sar, shift, ALU_SAR);

/* --- double shifts --------------------------------------------------------------------------------------------- */

#define DSHIFT(T, insn)                                                                                                \
	({                                                                                                             \
		T r_ = (T)a;                                                                                           \
		uint32_t ax_;                                                                                          \
		asm(insn " %%cl, %[b], %[r]" ALU_TAIL                                                                 \
		    : [r] "+&r"(r_), "=&a"(ax_) : [b] "r"((T)b), "c"((uint8_t)count) : "cc");                          \
		*fl = alu_flags(*fl, ax_, FL_ARITH);                                                                   \
		(uint64_t) r_;                                                                                         \
	})

static uint64_t double_shift(unsigned size, bool left, uint64_t a, uint64_t b, unsigned count, uint64_t *fl)
{
	if (left)
		return size == 2 ? DSHIFT(uint16_t, "shld") : size == 4 ? DSHIFT(uint32_t, "shld") : DSHIFT(uint64_t, "shld");
	return size == 2 ? DSHIFT(uint16_t, "shrd") : size == 4 ? DSHIFT(uint32_t, "shrd") : DSHIFT(uint64_t, "shrd");
}

static int shift_double(struct vcpu *v, const struct insn *in, bool left)
{
	unsigned size = in->op[0].size;
	unsigned count = in->op[2].kind == OPND_GPR ? v->gpr[RCX] & 0xff : in->imm[in->op[2].reg] & 0xff;
	uint64_t src = reg_get(v, &in->op[1], size), old, res, fl = v->rflags;
	struct rmw m = {0};

	count &= size == 8 ? 63 : 31;
	if (in->op[0].kind == OPND_GPR)
		old = reg_get(v, &in->op[0], size);
	else if (rmw_open(v, in, size, &m, &old))
		return OP_FAULT;
	res = count ? double_shift(size, left, old, src, count, &fl) : old;
	if (in->op[0].kind == OPND_GPR)
		reg_set(v, &in->op[0], size, res);
	else
		rmw_commit(v, &m, size, false, &old, res);
	v->rflags = fl;
	return OP_NEXT;
}

static int shld(struct vcpu *v, const struct insn *in) { return shift_double(v, in, true); }
static int shrd(struct vcpu *v, const struct insn *in) { return shift_double(v, in, false); }
OP_ONE(op_shld, shld);
OP_ONE(op_shrd, shrd);

/* --- multiplication -------------------------------------------------------------------------------------------- */

/* rDX:rAX = rAX * src; AX for bytes. */
INLINE int multiply(struct vcpu *v, const struct insn *in, bool sign, unsigned size)
{
	uint64_t src, lo = v->gpr[RAX], hi = 0, a = (v->rflags & 0xff) << 8;
	uint32_t f;

	if (op_read(v, in, 0, size, &src))
		return OP_FAULT;
	/* AH = the guest's flags, lo = the multiplicand; then product in rDX:lo, flags in AX. */
#define MUL1(insn, s)                                                                                                  \
	asm("sahf\n\tmov %[lo], %%rax\n\t" insn " %" s "[b]\n\tmov %%rax, %[lo]" ALU_TAIL                             \
	    : "+&a"(a), "+&d"(hi), [lo] "+&r"(lo)                                                                      \
	    : [b] "r"(src) : "cc")
	if (sign) {
		switch (size) {
		case 1: MUL1("imul", "b"); break;
		case 2: MUL1("imul", "w"); break;
		case 4: MUL1("imul", "k"); break;
		default: MUL1("imul", "q"); break;
		}
	} else {
		switch (size) {
		case 1: MUL1("mul", "b"); break;
		case 2: MUL1("mul", "w"); break;
		case 4: MUL1("mul", "k"); break;
		default: MUL1("mul", "q"); break;
		}
	}
#undef MUL1
	f = (uint32_t)a;
	if (size == 1) {
		gpr_write(v, RAX, 2, lo);
	} else {
		gpr_write(v, RAX, size, lo);
		gpr_write(v, RDX, size, hi);
	}
	v->rflags = alu_flags(v->rflags, f, FL_ARITH);
	return OP_NEXT;
}
SIZED(op_mul, multiply, false);

/* IMUL with two and three operands: truncated product, CF = OF = overflow. */
INLINE int multiply_signed(struct vcpu *v, const struct insn *in, unsigned size)
{
	uint64_t a, b;

	if (op_read(v, in, in->nops == 2 ? 0 : 1, size, &a) || op_read(v, in, in->nops == 2 ? 1 : 2, size, &b))
		return OP_FAULT;
	{
		uint64_t *fl = &v->rflags;
		uint64_t r = ALU_WIDE(ALU_TWO, ALU_KEEP, "imul", FL_ARITH);

		reg_set(v, &in->op[0], size, r);
	}
	return OP_NEXT;
}

INLINE int imul_any(struct vcpu *v, const struct insn *in, int unused, unsigned size)
{
	(void)unused;
	if (in->nops == 1 || size == 1)
		return multiply(v, in, true, size);
	return multiply_signed(v, in, size);
}
SIZED(op_imul, imul_any, 0);

/* --- division -------------------------------------------------------------------------------------------------- */

/* Unsigned 128 / 64; the caller has checked hi < d. */
static uint64_t div128(uint64_t hi, uint64_t lo, uint64_t d, uint64_t *rem)
{
	asm("divq %[d]" : "+a"(lo), "+d"(hi) : [d] "r"(d) : "cc");
	*rem = hi;
	return lo;
}

/* Signed or unsigned hi:lo / d in 64-bit halves, as if sign-extended to 128 bits. False on overflow of `size` or d = 0. */
static bool divide(uint64_t hi, uint64_t lo, uint64_t d, bool sign, unsigned size, uint64_t *quo, uint64_t *rem)
{
	bool neg_n = sign && (int64_t)hi < 0, neg_d = sign && (int64_t)d < 0;
	uint64_t q, r, limit = size_mask(size);

	if (neg_n) {
		lo = -lo;
		hi = ~hi + (lo == 0);
	}
	if (neg_d)
		d = -d;
	if (hi >= d) /* d = 0 included */
		return false;
	q = div128(hi, lo, d, &r);
	if (sign)
		limit = (limit >> 1) + (neg_n != neg_d);
	if (q > limit)
		return false;
	*quo = neg_n != neg_d ? -q : q;
	*rem = neg_n ? -r : r;
	return true;
}

INLINE int division(struct vcpu *v, const struct insn *in, bool sign, unsigned size)
{
	uint64_t d, hi, lo, q, r;

	if (op_read(v, in, 0, size, &d))
		return OP_FAULT;
	if (size == 8) {
		lo = v->gpr[RAX];
		hi = v->gpr[RDX];
	} else {
		unsigned bits = size * 8;

		lo = size == 1 ? v->gpr[RAX] & 0xffff
			       : (v->gpr[RAX] & size_mask(size)) | (v->gpr[RDX] & size_mask(size)) << bits;
		if (sign) {
			lo = sign_extend(lo, size * 2);
			d = sign_extend(d, size);
		}
		hi = sign && (int64_t)lo < 0 ? ~0ull : 0;
	}
	if (!divide(hi, lo, d, sign, size, &q, &r))
		return cpu_raise(v, VEC_DE);
	if (size == 1) {
		gpr_write(v, RAX, 2, (q & 0xff) | (r & 0xff) << 8);
	} else {
		gpr_write(v, RAX, size, q);
		gpr_write(v, RDX, size, r);
	}
	return OP_NEXT;
}
SIZED(op_div, division, false);
SIZED(op_idiv, division, true);

/* --- exchange --------------------------------------------------------------------------------------------------- */

INLINE int exchange(struct vcpu *v, const struct insn *in, int unused, unsigned size)
{
	unsigned rn = in->op[0].kind == OPND_MEM ? 1 : 0;
	uint64_t reg = reg_get(v, &in->op[rn], size), old;
	struct rmw m;

	(void)unused;
	if (in->op[1 - rn].kind == OPND_GPR) {
		old = reg_get(v, &in->op[1 - rn], size);
		reg_set(v, &in->op[1 - rn], size, reg);
	} else {
		if (rmw_open(v, in, size, &m, &old))
			return OP_FAULT;
		while (!rmw_commit(v, &m, size, true, &old, reg)) /* XCHG is always locked */
			;
	}
	reg_set(v, &in->op[rn], size, old);
	return OP_NEXT;
}
SIZED(op_xchg, exchange, 0);

INLINE int exchange_add(struct vcpu *v, const struct insn *in, int unused, unsigned size)
{
	uint64_t src = reg_get(v, &in->op[1], size), old, res, fl = v->rflags;
	struct rmw m;

	(void)unused;
	if (in->op[0].kind == OPND_GPR) {
		old = reg_get(v, &in->op[0], size);
		res = alu(ALU_ADD, size, old, src, &fl);
		reg_set(v, &in->op[1], size, old);
		reg_set(v, &in->op[0], size, res);
	} else {
		if (rmw_open(v, in, size, &m, &old))
			return OP_FAULT;
		do {
			fl = v->rflags;
			res = alu(ALU_ADD, size, old, src, &fl);
		} while (!rmw_commit(v, &m, size, in->lock, &old, res));
		reg_set(v, &in->op[1], size, old);
	}
	v->rflags = fl;
	return OP_NEXT;
}
SIZED(op_xadd, exchange_add, 0);

/* The destination is written in either case: the old value if the comparison failed. */
INLINE int compare_exchange(struct vcpu *v, const struct insn *in, int unused, unsigned size)
{
	uint64_t acc = v->gpr[RAX] & size_mask(size), src = reg_get(v, &in->op[1], size), old, fl;
	bool mem = in->op[0].kind == OPND_MEM;
	struct rmw m;

	(void)unused;
	if (!mem)
		old = reg_get(v, &in->op[0], size);
	else if (rmw_open(v, in, size, &m, &old))
		return OP_FAULT;
	if (mem)
		while (!rmw_commit(v, &m, size, in->lock, &old, old == acc ? src : old))
			;
	fl = v->rflags;
	(void)alu(ALU_CMP, size, acc, old, &fl);
	v->rflags = fl;
	if (old != acc)
		gpr_write(v, RAX, size, old);
	else if (!mem)
		reg_set(v, &in->op[0], size, src);
	return OP_NEXT;
}
SIZED(op_cmpxchg, compare_exchange, 0);

static void cmpxchg_result(struct vcpu *v, bool equal, unsigned half, uint64_t lo, uint64_t hi)
{
	v->rflags = (v->rflags & ~(uint64_t)FL_ZF) | (equal ? FL_ZF : 0);
	if (!equal) {
		gpr_write(v, RAX, half, lo);
		gpr_write(v, RDX, half, hi);
	}
}

static int cmpxchg8b(struct vcpu *v, const struct insn *in)
{
	uint64_t want = (uint32_t)v->gpr[RAX] | v->gpr[RDX] << 32, neu = (uint32_t)v->gpr[RBX] | v->gpr[RCX] << 32, old;
	struct rmw m;

	if (rmw_open(v, in, 8, &m, &old))
		return OP_FAULT;
	while (!rmw_commit(v, &m, 8, in->lock, &old, old == want ? neu : old))
		;
	cmpxchg_result(v, old == want, 4, (uint32_t)old, old >> 32);
	return OP_NEXT;
}
OP_ONE(op_cmpxchg8b, cmpxchg8b);

/* CMPXCHG16B of an operand that is a device's: load, compare, store, with nobody else running. */
static int cmpxchg16b_slow(struct vcpu *v, gva_t lin, uint64_t *lo, uint64_t *hi, bool *equal)
{
	uint64_t old[2];

	cpu_alone_begin(v);
	if (cpu_probe_write(v, lin, 16) || cpu_load_buf(v, lin, old, 16)) {
		cpu_alone_end(v);
		return OP_FAULT;
	}
	*equal = old[0] == *lo && old[1] == *hi;
	*lo = old[0];
	*hi = old[1];
	if (*equal) {
		old[0] = v->gpr[RBX];
		old[1] = v->gpr[RCX];
	}
	(void)cpu_store_buf(v, lin, old, 16);
	cpu_alone_end(v);
	return OP_NEXT;
}

/* The host's own instruction on the operand; the operand is aligned, so it never crosses a page. */
static int cmpxchg16b(struct vcpu *v, const struct insn *in)
{
	uint64_t lo = v->gpr[RAX], hi = v->gpr[RDX];
	struct cpu_rmw r;
	bool equal;
	gva_t lin;

	if (mem_lin_aligned(v, in, 16, 16, true, &lin))
		return OP_FAULT;
	if ((unlikely(mem_watched(v)) && mem_watch(v, lin, 16, true)) || cpu_rmw_open(v, lin, 16, &r))
		return OP_FAULT;
	if (r.hva) {
		asm volatile("lock cmpxchg16b %[m]"
			     : "=@ccz"(equal), "+a"(lo), "+d"(hi), [m] "+m"(*(char(*)[16])r.hva)
			     : "b"(v->gpr[RBX]), "c"(v->gpr[RCX]) : "memory");
		cpu_rmw_close(v, &r, 16);
	} else if (cmpxchg16b_slow(v, lin, &lo, &hi, &equal)) {
		return OP_FAULT;
	}
	cmpxchg_result(v, equal, 8, lo, hi);
	return OP_NEXT;
}
OP_ONE(op_cmpxchg16b, cmpxchg16b);

/* ADCX and ADOX: addition with CF or OF as the only carry. */
static int add_carry(struct vcpu *v, const struct insn *in, uint64_t flag)
{
	unsigned size = in->op[0].size;
	uint64_t a, b, s, fl = v->rflags;
	bool c1, c2;

	if (op_read(v, in, 1, size, &b))
		return OP_FAULT;
	a = reg_get(v, &in->op[0], size);
	if (size == 8) {
		c1 = __builtin_add_overflow(a, b, &s);
		c2 = __builtin_add_overflow(s, (uint64_t)!!(fl & flag), &s);
	} else {
		s = a + b + !!(fl & flag);
		c1 = s >> 32;
		c2 = false;
	}
	reg_set(v, &in->op[0], size, s);
	v->rflags = (fl & ~flag) | (c1 || c2 ? flag : 0);
	return OP_NEXT;
}
static int adcx(struct vcpu *v, const struct insn *in) { return add_carry(v, in, FL_CF); }
static int adox(struct vcpu *v, const struct insn *in) { return add_carry(v, in, FL_OF); }
OP_ONE(op_adcx, adcx);
OP_ONE(op_adox, adox);
