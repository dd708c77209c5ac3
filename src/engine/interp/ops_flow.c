/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Control transfer and the stack: jumps, calls, returns, loops, push and pop in all their forms, ENTER/LEAVE, BOUND, INT.
 *
 * Invariant: RSP and RIP change only after the stack access and the target check have succeeded. Far transfers, gates and
 * interrupts are cpu/far.c and cpu/excp.c. Spec: SDM vol. 1 6, vol. 2.
 */
#include "engine/interp/ops.h"

/* --- jumps --------------------------------------------------------------------------------------------------------- */

INLINE int jump_rel(struct vcpu *v, const struct insn *in)
{
	return jump_to(v, in, v->rip + in->len + in->imm[0]);
}

INLINE int jcc(struct vcpu *v, const struct insn *in, unsigned cc)
{
	return condition(v->rflags, cc) ? jump_rel(v, in) : OP_NEXT;
}

#define CC(n) static int jcc_##n(struct vcpu *v, const struct insn *in) { return jcc(v, in, 0x##n); }
CC(0) CC(1) CC(2) CC(3) CC(4) CC(5) CC(6) CC(7) CC(8) CC(9) CC(a) CC(b) CC(c) CC(d) CC(e) CC(f)
#undef CC
const interp_fn op_jcc_cc[16] = {jcc_0, jcc_1, jcc_2, jcc_3, jcc_4, jcc_5, jcc_6, jcc_7,
				 jcc_8, jcc_9, jcc_a, jcc_b, jcc_c, jcc_d, jcc_e, jcc_f};

/* Far pointer in memory: offset, then selector. */
static int far_pointer(struct vcpu *v, const struct insn *in, uint16_t *sel, uint64_t *off)
{
	uint64_t s;
	gva_t lin;

	if (in->op[0].kind == OPND_FAR) {
		*sel = in->far_sel;
		*off = in->imm[0] & size_mask(in->opsize);
		return 0;
	}
	if (mem_lin(v, in, in->opsize + 2u, false, &lin) || lin_load(v, lin, in->opsize, off) ||
	    lin_load(v, lin + in->opsize, 2, &s))
		return -1;
	*sel = (uint16_t)s;
	return 0;
}

static bool is_far(const struct insn *in)
{
	return in->op[0].kind == OPND_FAR || (in->opcode == 0xff && (in->modrm & 0x08) && in->op[0].kind == OPND_MEM);
}

static int jmp(struct vcpu *v, const struct insn *in)
{
	uint64_t target;
	uint16_t sel;

	if (likely(in->op[0].kind == OPND_REL))
		return jump_rel(v, in);
	if (is_far(in)) {
		if (far_pointer(v, in, &sel, &target) || cpu_far_jump(v, sel, target, in->opsize))
			return OP_FAULT;
		return OP_JUMP;
	}
	if (op_read(v, in, 0, in->op[0].size, &target))
		return OP_FAULT;
	return jump_to(v, in, target);
}

static int call(struct vcpu *v, const struct insn *in)
{
	uint64_t target, ret = next_rip(v, in), rip = v->rip;
	uint16_t sel;

	if (likely(in->op[0].kind == OPND_REL)) {
		target = v->rip + in->len + in->imm[0];
	} else if (is_far(in)) {
		if (far_pointer(v, in, &sel, &target) || cpu_far_call(v, sel, target, in->opsize, ret))
			return OP_FAULT;
		return OP_JUMP;
	} else if (op_read(v, in, 0, in->op[0].size, &target)) {
		return OP_FAULT;
	}
	if (unlikely(jump_to(v, in, target) < 0))
		return OP_FAULT;
	target = v->rip;
	v->rip = rip; /* the push may still fault */
	if (unlikely(stack_push(v, in->opsize, ret)))
		return OP_FAULT;
	v->rip = target;
	return OP_JUMP;
}

static int ret(struct vcpu *v, const struct insn *in)
{
	unsigned pop = in->nops ? in->imm[0] & 0xffff : 0;
	uint64_t target, sp;

	if (unlikely(in->opcode == 0xca || in->opcode == 0xcb))
		return cpu_far_ret(v, in->opsize, pop) ? OP_FAULT : OP_JUMP;
	sp = stack_ptr(v, in->opsize + pop);
	if (unlikely(stack_peek(v, 0, in->opsize, &target) || jump_to(v, in, target) < 0))
		return OP_FAULT;
	stack_set(v, sp);
	return OP_JUMP;
}
OP_ONE(op_jmp, jmp);
OP_ONE(op_call, call);
OP_ONE(op_ret, ret);

/* LOOP, LOOPE, LOOPNE count in rCX of the address size; the count changes only if the jump does not fault. */
static int loop_if(struct vcpu *v, const struct insn *in, bool cond)
{
	uint64_t count = (v->gpr[RCX] - 1) & size_mask(in->addrsize);
	int r = OP_NEXT;

	if (count && cond)
		r = jump_rel(v, in);
	if (r >= 0)
		gpr_write(v, RCX, in->addrsize, count);
	return r;
}
static int loop(struct vcpu *v, const struct insn *in) { return loop_if(v, in, true); }
static int loope(struct vcpu *v, const struct insn *in) { return loop_if(v, in, v->rflags & FL_ZF); }
static int loopne(struct vcpu *v, const struct insn *in) { return loop_if(v, in, !(v->rflags & FL_ZF)); }
OP_ONE(op_loop, loop);
OP_ONE(op_loope, loope);
OP_ONE(op_loopne, loopne);

static int jcxz(struct vcpu *v, const struct insn *in)
{
	return v->gpr[RCX] & size_mask(in->addrsize) ? OP_NEXT : jump_rel(v, in);
}
OP_ONE(op_jcxz, jcxz);

/* --- push and pop ----------------------------------------------------------------------------------------------------- */

static int push(struct vcpu *v, const struct insn *in)
{
	uint64_t x;

	if (in->op[0].kind == OPND_SEG)
		return stack_push(v, in->opsize, v->seg[in->op[0].reg].sel);
	if (unlikely(op_read(v, in, 0, in->opsize, &x)))
		return OP_FAULT;
	return stack_push(v, in->opsize, x);
}

/* POP [rSP-relative] computes its address after the increment. */
static int pop_mem(struct vcpu *v, const struct insn *in, uint64_t x)
{
	uint64_t old = v->gpr[RSP];

	stack_set(v, stack_ptr(v, in->opsize));
	if (!mem_write_op(v, in, in->opsize, x))
		return OP_NEXT;
	v->gpr[RSP] = old;
	return OP_FAULT;
}

static int pop_seg(struct vcpu *v, const struct insn *in, uint64_t x)
{
	uint64_t sp = stack_ptr(v, in->opsize);
	unsigned seg = in->op[0].reg;

	if (seg == CS)
		return cpu_ud(v);
	/* The new SS decides nothing about this pop: SP was computed with the old one. */
	if (cpu_load_seg(v, (enum x86_seg)seg, (uint16_t)x))
		return OP_FAULT;
	stack_set(v, sp);
	if (seg == SS)
		v->inhibit_irq = v->inhibit_db = true;
	return OP_NEXT;
}

static int pop(struct vcpu *v, const struct insn *in)
{
	uint64_t x;

	if (unlikely(stack_peek(v, 0, in->opsize, &x)))
		return OP_FAULT;
	if (in->op[0].kind == OPND_MEM)
		return pop_mem(v, in, x);
	if (in->op[0].kind == OPND_SEG)
		return pop_seg(v, in, x);
	stack_set(v, stack_ptr(v, in->opsize));
	gpr_write(v, in->op[0].reg, in->opsize, x);
	return OP_NEXT;
}
OP_ONE(op_push, push);
OP_ONE(op_pop, pop);

/* All eight stores must succeed before SP moves; a fault in the middle leaves stored values, as on hardware. */
static int pusha(struct vcpu *v, const struct insn *in)
{
	unsigned size = in->opsize;
	gva_t lin;

	for (unsigned i = 0; i < 8; i++)
		if (lin_of(v, SS, stack_ptr(v, -(int64_t)(size * (i + 1))), size, true, &lin) ||
		    lin_store(v, lin, size, v->gpr[i]))
			return OP_FAULT;
	stack_set(v, stack_ptr(v, -(int64_t)(size * 8)));
	return OP_NEXT;
}

static int popa(struct vcpu *v, const struct insn *in)
{
	unsigned size = in->opsize;
	uint64_t x[8], sp = stack_ptr(v, size * 8);

	for (unsigned i = 0; i < 8; i++)
		if (stack_peek(v, size * i, size, &x[i]))
			return OP_FAULT;
	for (unsigned i = 0; i < 8; i++)
		if (7 - i != RSP)
			gpr_write(v, 7 - i, size, x[i]);
	stack_set(v, sp);
	return OP_NEXT;
}
OP_ONE(op_pusha, pusha);
OP_ONE(op_popa, popa);

static int pushf(struct vcpu *v, const struct insn *in)
{
	return stack_push(v, in->opsize, v->rflags & ~(uint64_t)(FL_VM | FL_RF));
}

static int popf(struct vcpu *v, const struct insn *in)
{
	uint64_t x;

	if (stack_peek(v, 0, in->opsize, &x) || cpu_popf(v, x, in->opsize))
		return OP_FAULT;
	stack_set(v, stack_ptr(v, in->opsize));
	return OP_NEXT;
}
OP_ONE(op_pushf, pushf);
OP_ONE(op_popf, popf);

static int leave(struct vcpu *v, const struct insn *in)
{
	uint64_t bp = v->gpr[RBP] & size_mask(stack_size(v)), x;
	gva_t lin;

	if (lin_of(v, SS, bp, in->opsize, false, &lin) || lin_load(v, lin, in->opsize, &x))
		return OP_FAULT;
	stack_set(v, (bp + in->opsize) & size_mask(stack_size(v)));
	gpr_write(v, RBP, in->opsize, x);
	return OP_NEXT;
}
OP_ONE(op_leave, leave);

/* ENTER alloc, level: the frame pointers of the enclosing levels are copied first. */
static int enter(struct vcpu *v, const struct insn *in)
{
	unsigned size = in->opsize, level = in->imm[1] & 31;
	uint64_t mask = size_mask(stack_size(v)), sp = stack_ptr(v, 0), bp = v->gpr[RBP], frame, x;
	gva_t lin;

	sp = (sp - size) & mask;
	frame = sp;
	if (lin_of(v, SS, sp, size, true, &lin) || lin_store(v, lin, size, v->gpr[RBP]))
		return OP_FAULT;
	for (unsigned i = 1; i < level; i++) {
		bp -= size;
		sp = (sp - size) & mask;
		if (lin_of(v, SS, bp & mask, size, false, &lin) || lin_load(v, lin, size, &x) ||
		    lin_of(v, SS, sp, size, true, &lin) || lin_store(v, lin, size, x))
			return OP_FAULT;
	}
	if (level) {
		sp = (sp - size) & mask;
		if (lin_of(v, SS, sp, size, true, &lin) || lin_store(v, lin, size, frame))
			return OP_FAULT;
	}
	sp = (sp - (in->imm[0] & 0xffff)) & mask;
	/* The new top of the stack must be writable (SDM: "if a memory write to the final ESP would fault"). */
	if (lin_of(v, SS, sp, 1, true, &lin) || cpu_probe_write(v, lin, 1))
		return OP_FAULT;
	gpr_write(v, RBP, size, frame);
	stack_set(v, sp);
	return OP_NEXT;
}
OP_ONE(op_enter, enter);

/* --- software interrupts ------------------------------------------------------------------------------------------------ */

static int soft_int(struct vcpu *v, const struct insn *in, unsigned vector)
{
	return cpu_soft_int(v, (uint8_t)vector, next_rip(v, in)) ? OP_SHUTDOWN : OP_NOTRAP;
}
static int int_n(struct vcpu *v, const struct insn *in) { return soft_int(v, in, in->imm[0] & 0xff); }
static int int3(struct vcpu *v, const struct insn *in) { return soft_int(v, in, VEC_BP); }
static int int1(struct vcpu *v, const struct insn *in)
{
	/* INT1 is a #DB trap without gate privilege check. */
	v->rip = next_rip(v, in);
	return cpu_raise_db(v, 0);
}
static int into(struct vcpu *v, const struct insn *in)
{
	return v->rflags & FL_OF ? soft_int(v, in, VEC_OF) : OP_NEXT;
}
OP_ONE(op_int, int_n);
OP_ONE(op_int3, int3);
OP_ONE(op_int1, int1);
OP_ONE(op_into, into);

static int bound(struct vcpu *v, const struct insn *in)
{
	unsigned size = in->op[0].size;
	int64_t x = (int64_t)sign_extend(v->gpr[in->op[0].reg], size);
	uint64_t lo, hi;
	gva_t lin;

	if (mem_lin(v, in, size * 2, false, &lin) || lin_load(v, lin, size, &lo) || lin_load(v, lin + size, size, &hi))
		return OP_FAULT;
	if (x < (int64_t)sign_extend(lo, size) || x > (int64_t)sign_extend(hi, size))
		return cpu_raise(v, VEC_BR);
	return OP_NEXT;
}
OP_ONE(op_bound, bound);
