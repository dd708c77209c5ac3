/* SPDX-License-Identifier: Apache-2.0 */
/*
 * String instructions with their repeat prefixes, and string I/O.
 *
 * Invariant: after every iteration rSI, rDI and rCX are architectural, so a fault, an event or a single-step trap can be taken between
 * any two; the instruction is then simply executed again (OP_REP, or OP_FAULT with v->rip unmoved).
 *
 * REP MOVS/STOS run page-sized pieces with the host's own instruction on the host addresses: overlap behaves as the guest's memory
 * would, because aliased guest pages have one host address.
 *
 * Spec: SDM vol. 1 7.3.9, vol. 2B REP.
 */
#include "engine/interp/alu.h"
#include "engine/interp/ops.h"

/* One string instruction in flight. */
struct str {
	unsigned size;     /* of an element */
	unsigned asize;    /* of rSI, rDI, rCX */
	uint64_t amask;
	int64_t step;      /* +size or -size */
};

static struct str str_open(const struct vcpu *v, const struct insn *in)
{
	struct str s = {.size = in->opsize, .asize = in->addrsize, .amask = size_mask(in->addrsize)};

	s.step = v->rflags & FL_DF ? -(int64_t)s.size : (int64_t)s.size;
	return s;
}

INLINE void advance(struct vcpu *v, const struct str *s, unsigned reg, int64_t by)
{
	gpr_write(v, reg, s->asize, v->gpr[reg] + (uint64_t)by);
}

INLINE int src_lin(struct vcpu *v, const struct insn *in, const struct str *s, gva_t *lin)
{
	return lin_of(v, in->mem.seg, v->gpr[RSI] & s->amask, s->size, false, lin);
}

INLINE int dst_lin(struct vcpu *v, const struct str *s, bool write, gva_t *lin)
{
	return lin_of(v, ES, v->gpr[RDI] & s->amask, s->size, write, lin);
}

/* --- one iteration of each; 0 done, -1 fault ------------------------------------------------------------------------- */

typedef int (*str_fn)(struct vcpu *v, const struct insn *in, const struct str *s);

static int movs_one(struct vcpu *v, const struct insn *in, const struct str *s)
{
	gva_t from, to;
	uint64_t x;

	if (src_lin(v, in, s, &from) || lin_load(v, from, s->size, &x) || dst_lin(v, s, true, &to) ||
	    lin_store(v, to, s->size, x))
		return -1;
	advance(v, s, RSI, s->step);
	advance(v, s, RDI, s->step);
	return 0;
}

static int stos_one(struct vcpu *v, const struct insn *in, const struct str *s)
{
	gva_t to;

	(void)in;
	if (dst_lin(v, s, true, &to) || lin_store(v, to, s->size, v->gpr[RAX] & size_mask(s->size)))
		return -1;
	advance(v, s, RDI, s->step);
	return 0;
}

static int lods_one(struct vcpu *v, const struct insn *in, const struct str *s)
{
	gva_t from;
	uint64_t x;

	if (src_lin(v, in, s, &from) || lin_load(v, from, s->size, &x))
		return -1;
	gpr_write(v, RAX, s->size, x);
	advance(v, s, RSI, s->step);
	return 0;
}

static void compare(struct vcpu *v, unsigned size, uint64_t a, uint64_t b)
{
	uint64_t fl = v->rflags;

	switch (size) {
	case 1: (void)alu(ALU_CMP, 1, a, b, &fl); break;
	case 2: (void)alu(ALU_CMP, 2, a, b, &fl); break;
	case 4: (void)alu(ALU_CMP, 4, a, b, &fl); break;
	default: (void)alu(ALU_CMP, 8, a, b, &fl); break;
	}
	v->rflags = fl;
}

static int cmps_one(struct vcpu *v, const struct insn *in, const struct str *s)
{
	gva_t la, lb;
	uint64_t a, b;

	if (src_lin(v, in, s, &la) || lin_load(v, la, s->size, &a) || dst_lin(v, s, false, &lb) || lin_load(v, lb, s->size, &b))
		return -1;
	compare(v, s->size, a, b);
	advance(v, s, RSI, s->step);
	advance(v, s, RDI, s->step);
	return 0;
}

static int scas_one(struct vcpu *v, const struct insn *in, const struct str *s)
{
	gva_t lb;
	uint64_t b;

	(void)in;
	if (dst_lin(v, s, false, &lb) || lin_load(v, lb, s->size, &b))
		return -1;
	compare(v, s->size, v->gpr[RAX] & size_mask(s->size), b);
	advance(v, s, RDI, s->step);
	return 0;
}

/* The destination is probed before the port is read: a device read cannot be undone. */
static int ins_one(struct vcpu *v, const struct insn *in, const struct str *s)
{
	uint16_t port = (uint16_t)v->gpr[RDX];
	gva_t to;

	(void)in;
	if (cpu_io_check(v, port, s->size) || dst_lin(v, s, true, &to) || cpu_probe_write(v, to, s->size))
		return -1;
	(void)lin_store(v, to, s->size, cpu_pio_read(v, port, s->size));
	advance(v, s, RDI, s->step);
	return 0;
}

static int outs_one(struct vcpu *v, const struct insn *in, const struct str *s)
{
	uint16_t port = (uint16_t)v->gpr[RDX];
	gva_t from;
	uint64_t x;

	if (cpu_io_check(v, port, s->size) || src_lin(v, in, s, &from) || lin_load(v, from, s->size, &x))
		return -1;
	cpu_pio_write(v, port, s->size, x);
	advance(v, s, RSI, s->step);
	return 0;
}

/* --- bulk pieces ------------------------------------------------------------------------------------------------------- */

/* Linear equals offset (plus an FS/GS base), nobody watches, forward: pieces may be moved at host speed. */
static bool bulk_ok(const struct vcpu *v, unsigned seg)
{
	if ((v->rflags & FL_DF) || mem_watched(v) || v->journal)
		return false;
	return v->mode == INSN_MODE_64 || seg_flat(&v->seg[seg]);
}

/* Elements from `off` to the end of its page or of the address space, at most n. */
static uint64_t piece(const struct str *s, uint64_t off, gva_t lin, uint64_t n)
{
	uint64_t page = (PAGE_SIZE - (lin & PAGE_MASK)) / s->size, wrap = (s->amask - off) / s->size;

	if (n > page)
		n = page;
	return n > wrap ? wrap : n;
}

/* Moves some elements; returns how many, 0 = none this way. */
static uint64_t movs_bulk(struct vcpu *v, const struct insn *in, const struct str *s, uint64_t n)
{
	uint64_t so = v->gpr[RSI] & s->amask, dof = v->gpr[RDI] & s->amask, c;
	gva_t from, to;
	void *sp, *dp;

	if (!bulk_ok(v, in->mem.seg) || !bulk_ok(v, ES))
		return 0;
	if (src_lin(v, in, s, &from) || dst_lin(v, s, true, &to)) {
		v->exc.kind = EXC_NONE; /* found again, precisely, by the single iteration */
		return 0;
	}
	n = piece(s, dof, to, piece(s, so, from, n));
	sp = n ? flat_ptr(v, v->mmu.cur->r, from, s->size) : NULL;
	dp = n ? flat_ptr(v, v->mmu.cur->w, to, s->size) : NULL;
	if (!sp || !dp)
		return 0;
	c = n;
	switch (s->size) {
	case 1: asm volatile("rep movsb" : "+S"(sp), "+D"(dp), "+c"(c) : : "memory"); break;
	case 2: asm volatile("rep movsw" : "+S"(sp), "+D"(dp), "+c"(c) : : "memory"); break;
	case 4: asm volatile("rep movsl" : "+S"(sp), "+D"(dp), "+c"(c) : : "memory"); break;
	default: asm volatile("rep movsq" : "+S"(sp), "+D"(dp), "+c"(c) : : "memory"); break;
	}
	advance(v, s, RSI, (int64_t)(n * s->size));
	advance(v, s, RDI, (int64_t)(n * s->size));
	return n;
}

static uint64_t stos_bulk(struct vcpu *v, const struct insn *in, const struct str *s, uint64_t n)
{
	uint64_t dof = v->gpr[RDI] & s->amask, c, a = v->gpr[RAX];
	gva_t to;
	void *dp;

	(void)in;
	if (!bulk_ok(v, ES))
		return 0;
	if (dst_lin(v, s, true, &to)) {
		v->exc.kind = EXC_NONE;
		return 0;
	}
	n = piece(s, dof, to, n);
	dp = n ? flat_ptr(v, v->mmu.cur->w, to, s->size) : NULL;
	if (!dp)
		return 0;
	c = n;
	switch (s->size) {
	case 1: asm volatile("rep stosb" : "+D"(dp), "+c"(c) : "a"(a) : "memory"); break;
	case 2: asm volatile("rep stosw" : "+D"(dp), "+c"(c) : "a"(a) : "memory"); break;
	case 4: asm volatile("rep stosl" : "+D"(dp), "+c"(c) : "a"(a) : "memory"); break;
	default: asm volatile("rep stosq" : "+D"(dp), "+c"(c) : "a"(a) : "memory"); break;
	}
	advance(v, s, RDI, (int64_t)(n * s->size));
	return n;
}

/* --- the repeat loop ----------------------------------------------------------------------------------------------------- */

/* REP_PORT: AMD processors check the permission even if the count is zero. */
enum { REP_PLAIN, REP_COND, REP_PORT };
typedef uint64_t (*bulk_fn)(struct vcpu *v, const struct insn *in, const struct str *s, uint64_t n);

INLINE int string_op(struct vcpu *v, const struct insn *in, str_fn one, bulk_fn bulk, int cond)
{
	struct str s = str_open(v, in);
	uint64_t n, done;

	if (!in->rep && !in->repne)
		return one(v, in, &s) ? OP_FAULT : OP_NEXT;
	n = v->gpr[RCX] & s.amask;
	if (!n)
		return cond == REP_PORT && v->vendor_amd && cpu_io_check(v, (uint16_t)v->gpr[RDX], s.size) ? OP_FAULT : OP_NEXT;
	for (;;) {
		done = bulk && n > 1 && !cpu_debugging(v) ? bulk(v, in, &s, n) : 0;
		if (!done) {
			if (one(v, in, &s))
				return OP_FAULT;
			done = 1;
		}
		n -= done;
		gpr_write(v, RCX, s.asize, n);
		if (!n)
			return OP_NEXT;
		if (cond == REP_COND && !!(v->rflags & FL_ZF) == (in->repne != 0))
			return OP_NEXT;
		if (unlikely(__atomic_load_n(&v->event, __ATOMIC_RELAXED) || cpu_debugging(v)))
			return OP_REP;
	}
}

static int movs(struct vcpu *v, const struct insn *in) { return string_op(v, in, movs_one, movs_bulk, REP_PLAIN); }
static int stos(struct vcpu *v, const struct insn *in) { return string_op(v, in, stos_one, stos_bulk, REP_PLAIN); }
static int lods(struct vcpu *v, const struct insn *in) { return string_op(v, in, lods_one, NULL, REP_PLAIN); }
static int cmps(struct vcpu *v, const struct insn *in) { return string_op(v, in, cmps_one, NULL, REP_COND); }
static int scas(struct vcpu *v, const struct insn *in) { return string_op(v, in, scas_one, NULL, REP_COND); }
static int ins(struct vcpu *v, const struct insn *in) { return string_op(v, in, ins_one, NULL, REP_PORT); }
static int outs(struct vcpu *v, const struct insn *in) { return string_op(v, in, outs_one, NULL, REP_PORT); }
OP_ONE(op_movs, movs);
OP_ONE(op_stos, stos);
OP_ONE(op_lods, lods);
OP_ONE(op_cmps, cmps);
OP_ONE(op_scas, scas);
OP_ONE(op_ins, ins);
OP_ONE(op_outs, outs);
