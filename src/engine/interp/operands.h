/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Operand access: registers, effective and linear addresses, memory through the flat tables, the stack.
 *
 * The inline paths cover what a 64-bit or flat 32-bit kernel does all day; everything else is cpu/access.c and cpu/seg.c.
 * Invariant: an access takes the inline path only if nobody must see it: no data breakpoint armed, no alignment check, no
 * journal (stores), inside one page, a flat entry present, and for CPL 3 an address below 2^47 (the tables' upper half carries
 * supervisor rights; mem/mmu.h).
 */
#ifndef ENGINE_INTERP_OPERANDS_H
#define ENGINE_INTERP_OPERANDS_H

#include "engine/interp/interp.h"

#define INLINE static inline __attribute__((always_inline))

INLINE uint64_t size_mask(unsigned size)
{
	return size == 8 ? ~0ull : (1ull << (size * 8)) - 1;
}

INLINE uint64_t sign_extend(uint64_t val, unsigned size)
{
	switch (size) {
	case 1: return (uint64_t)(int64_t)(int8_t)val;
	case 2: return (uint64_t)(int64_t)(int16_t)val;
	case 4: return (uint64_t)(int64_t)(int32_t)val;
	default: return val;
	}
}

/* --- registers ------------------------------------------------------------------------------------------------- */

/* Writes the low `size` bytes as the architecture does: 4 zero-extends, 1 and 2 merge. */
INLINE void gpr_write(struct vcpu *v, unsigned reg, unsigned size, uint64_t val)
{
	uint64_t *r = &v->gpr[reg];

	switch (size) {
	case 1: *r = (*r & ~0xffull) | (uint8_t)val; break;
	case 2: *r = (*r & ~0xffffull) | (uint16_t)val; break;
	case 4: *r = (uint32_t)val; break;
	default: *r = val; break;
	}
}

INLINE uint64_t reg_get(const struct vcpu *v, const struct insn_operand *o, unsigned size)
{
	uint64_t r = v->gpr[o->reg];

	if (size == 1 && o->high8)
		return (uint8_t)(r >> 8);
	return r & size_mask(size);
}

INLINE void reg_set(struct vcpu *v, const struct insn_operand *o, unsigned size, uint64_t val)
{
	if (size == 1 && o->high8)
		v->gpr[o->reg] = (v->gpr[o->reg] & ~0xff00ull) | ((val & 0xff) << 8);
	else
		gpr_write(v, o->reg, size, val);
}

/* --- addresses ------------------------------------------------------------------------------------------------- */

INLINE uint64_t ea_offset(const struct vcpu *v, const struct insn *in)
{
	uint64_t a = (uint64_t)in->mem.disp;

	if (in->mem.base != INSN_NO_REG)
		a += v->gpr[in->mem.base];
	else if (in->rip_relative)
		a += v->rip + in->len;
	if (in->mem.index != INSN_NO_REG)
		a += v->gpr[in->mem.index] * in->mem.scale;
	if (likely(in->addrsize == 8))
		return a;
	return in->addrsize == 4 ? (uint32_t)a : (uint16_t)a;
}

/* Flat, writable, expand-up data segment: the linear address is the offset. */
INLINE bool seg_flat(const struct vcpu_seg *s)
{
	return s->base == 0 && s->limit == 0xffffffff && !s->unusable && (s->attr & 0xe) == 2;
}

INLINE int lin_of(struct vcpu *v, unsigned seg, uint64_t off, unsigned len, bool write, gva_t *lin)
{
	if (likely(v->mode == INSN_MODE_64)) {
		uint64_t a = off, b;

		if (unlikely(seg >= FS))
			a += v->seg[seg].base;
		b = a + len - 1;
		if (likely((((a + BIT(47)) | (b + BIT(47))) >> 48) == 0)) {
			*lin = a;
			return 0;
		}
	} else if (likely(seg_flat(&v->seg[seg]) && off + len - 1 <= 0xffffffff)) {
		*lin = off;
		return 0;
	}
	return cpu_linear(v, (enum x86_seg)seg, off, len, write, lin);
}

INLINE int mem_lin(struct vcpu *v, const struct insn *in, unsigned len, bool write, gva_t *lin)
{
	return lin_of(v, in->mem.seg, ea_offset(v, in), len, write, lin);
}

/* Misalignment of an operand that must be aligned is #GP(0) whatever the segment, and comes before #SS of a non-canonical stack
 * address. */
INLINE int mem_lin_aligned(struct vcpu *v, const struct insn *in, unsigned len, unsigned align, bool write, gva_t *lin)
{
	uint64_t base = v->mode != INSN_MODE_64 || in->mem.seg >= FS ? v->seg[in->mem.seg].base : 0;

	if ((ea_offset(v, in) + base) & (align - 1))
		return cpu_gp0(v);
	return mem_lin(v, in, len, write, lin);
}

/* --- linear memory --------------------------------------------------------------------------------------------- */

INLINE void *flat_ptr(const struct vcpu *v, const uint64_t *table, gva_t lin, unsigned size)
{
	uint64_t e;

	if (unlikely((lin & PAGE_MASK) > PAGE_SIZE - size))
		return NULL;
	if (unlikely(v->cpl == 3 && lin >> 47))
		return NULL;
	e = table[mmu_vpn(lin)];
	return e ? (void *)(uintptr_t)(lin + e) : NULL;
}

/* Guest operands have any alignment. */
typedef uint16_t any_u16 __attribute__((aligned(1), may_alias));
typedef uint32_t any_u32 __attribute__((aligned(1), may_alias));
typedef uint64_t any_u64 __attribute__((aligned(1), may_alias));

INLINE uint64_t host_get(const void *p, unsigned size)
{
	switch (size) {
	case 1: return *(const volatile uint8_t *)p;
	case 2: return *(const volatile any_u16 *)p;
	case 4: return *(const volatile any_u32 *)p;
	default: return *(const volatile any_u64 *)p;
	}
}

INLINE void host_put(void *p, unsigned size, uint64_t val)
{
	switch (size) {
	case 1: *(volatile uint8_t *)p = (uint8_t)val; break;
	case 2: *(volatile any_u16 *)p = (uint16_t)val; break;
	case 4: *(volatile any_u32 *)p = (uint32_t)val; break;
	default: *(volatile any_u64 *)p = val; break;
	}
}

/* Data breakpoints or alignment checks may be armed: mem_watch() looks. */
INLINE bool mem_watched(const struct vcpu *v)
{
	return (v->dr7 & 0xff) | (v->rflags & FL_AC);
}

/* operands.c: records data breakpoint hits; raises #AC. 0 or -1. */
int mem_watch(struct vcpu *v, gva_t lin, unsigned size, bool write);
struct rmw;
int rmw_open_slow(struct vcpu *v, gva_t lin, unsigned size, struct rmw *m, uint64_t *old);
void rmw_close_slow(struct vcpu *v, struct rmw *m, unsigned size);
/* Any length; used by multi-part operands. */
int mem_load_buf(struct vcpu *v, gva_t lin, void *buf, unsigned len);
int mem_store_buf(struct vcpu *v, gva_t lin, const void *buf, unsigned len);

INLINE int lin_load(struct vcpu *v, gva_t lin, unsigned size, uint64_t *val)
{
	void *p;

	if (unlikely(mem_watched(v)) && mem_watch(v, lin, size, false))
		return -1;
	p = flat_ptr(v, v->mmu.cur->r, lin, size);
	if (unlikely(!p))
		return cpu_load(v, lin, size, val);
	*val = host_get(p, size);
	return 0;
}

INLINE int lin_store(struct vcpu *v, gva_t lin, unsigned size, uint64_t val)
{
	void *p;

	if (unlikely(mem_watched(v)) && mem_watch(v, lin, size, true))
		return -1;
	p = flat_ptr(v, v->mmu.cur->w, lin, size);
	if (unlikely(!p || v->journal))
		return cpu_store(v, lin, size, val);
	host_put(p, size, val);
	return 0;
}

/* --- operands -------------------------------------------------------------------------------------------------- */

INLINE int mem_read_op(struct vcpu *v, const struct insn *in, unsigned size, uint64_t *val)
{
	gva_t lin;

	if (unlikely(mem_lin(v, in, size, false, &lin)))
		return -1;
	return lin_load(v, lin, size, val);
}

INLINE int mem_write_op(struct vcpu *v, const struct insn *in, unsigned size, uint64_t val)
{
	gva_t lin;

	if (unlikely(mem_lin(v, in, size, true, &lin)))
		return -1;
	return lin_store(v, lin, size, val);
}

/* A source operand: register, memory or immediate, zero-extended from `size` bytes. */
INLINE int op_read(struct vcpu *v, const struct insn *in, unsigned n, unsigned size, uint64_t *val)
{
	const struct insn_operand *o = &in->op[n];

	if (likely(o->kind == OPND_GPR)) {
		*val = reg_get(v, o, size);
		return 0;
	}
	if (o->kind == OPND_MEM)
		return mem_read_op(v, in, size, val);
	*val = in->imm[o->reg] & size_mask(size);
	return 0;
}

INLINE int op_write(struct vcpu *v, const struct insn *in, unsigned n, unsigned size, uint64_t val)
{
	const struct insn_operand *o = &in->op[n];

	if (likely(o->kind == OPND_GPR)) {
		reg_set(v, o, size, val);
		return 0;
	}
	return mem_write_op(v, in, size, val);
}

/* --- read-modify-write: p is the operand itself, or NULL (crosses a page, MMIO, ...): then this vCPU runs alone from open to commit --- */

struct rmw {
	void *p;
	gva_t lin;
	struct cpu_rmw slow;   /* valid if slowly */
	bool slowly;           /* p does not come from the flat table: rmw_close_slow() has to follow */
};

INLINE int rmw_open_at(struct vcpu *v, gva_t lin, unsigned size, struct rmw *m, uint64_t *old)
{
	m->lin = lin;
	m->slowly = false;
	if (unlikely(mem_watched(v)) && mem_watch(v, lin, size, true))
		return -1;
	m->p = flat_ptr(v, v->mmu.cur->w, lin, size);
	if (unlikely(!m->p || v->journal))
		return rmw_open_slow(v, lin, size, m, old);
	*old = host_get(m->p, size);
	return 0;
}

INLINE int rmw_open(struct vcpu *v, const struct insn *in, unsigned size, struct rmw *m, uint64_t *old)
{
	gva_t lin;

	if (unlikely(mem_lin(v, in, size, true, &lin)))
		return -1;
	return rmw_open_at(v, lin, size, m, old);
}

/* Stores the result. locked: only if the operand still holds *old; false (with *old renewed) means compute again. After
 * rmw_open the store cannot fault. */
INLINE bool rmw_commit(struct vcpu *v, struct rmw *m, unsigned size, bool locked, uint64_t *old, uint64_t val)
{
	bool ok;

	if (unlikely(!m->p)) {
		(void)cpu_store(v, m->lin, size, val);
		rmw_close_slow(v, m, size);
		return true;
	}
	if (likely(!locked)) {
		host_put(m->p, size, val);
		if (unlikely(m->slowly))
			rmw_close_slow(v, m, size);
		return true;
	}
#define CAS(T)                                                                                                         \
	({                                                                                                             \
		T exp_ = (T)*old;                                                                                      \
		ok = __atomic_compare_exchange_n((T *)m->p, &exp_, (T)val, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);   \
		*old = exp_;                                                                                           \
	})
	switch (size) {
	case 1: CAS(uint8_t); break;
	case 2: CAS(any_u16); break;
	case 4: CAS(any_u32); break;
	default: CAS(any_u64); break;
	}
#undef CAS
	if (unlikely(ok && m->slowly))
		rmw_close_slow(v, m, size);
	return ok;
}

/* --- control and stack ----------------------------------------------------------------------------------------- */

INLINE uint64_t next_rip(const struct vcpu *v, const struct insn *in)
{
	uint64_t r = v->rip + in->len;

	return v->mode == INSN_MODE_64 ? r : (uint32_t)r;
}

/* Near branch within CS. */
INLINE int jump_to(struct vcpu *v, const struct insn *in, uint64_t target)
{
	if (likely(v->mode == INSN_MODE_64)) {
		if (unlikely(!x86_canonical(target)))
			return cpu_gp0(v);
	} else {
		target &= in->opsize == 2 ? 0xffff : 0xffffffff;
		if (unlikely(target > v->seg[CS].limit))
			return cpu_gp0(v);
	}
	v->rip = target;
	return OP_JUMP;
}

INLINE unsigned stack_size(const struct vcpu *v)
{
	if (likely(v->mode == INSN_MODE_64))
		return 8;
	return v->seg[SS].attr & SEG_DB ? 4 : 2;
}

INLINE uint64_t stack_ptr(const struct vcpu *v, int64_t delta)
{
	return (v->gpr[RSP] + (uint64_t)delta) & size_mask(stack_size(v));
}

INLINE void stack_set(struct vcpu *v, uint64_t sp)
{
	gpr_write(v, RSP, stack_size(v), sp);
}

INLINE int stack_push(struct vcpu *v, unsigned size, uint64_t val)
{
	uint64_t sp = stack_ptr(v, -(int64_t)size);
	gva_t lin;

	if (unlikely(lin_of(v, SS, sp, size, true, &lin) || lin_store(v, lin, size, val)))
		return -1;
	stack_set(v, sp);
	return 0;
}

/* Reads `size` bytes at SP + off; the caller adjusts SP when nothing can fault any more. */
INLINE int stack_peek(struct vcpu *v, int64_t off, unsigned size, uint64_t *val)
{
	gva_t lin;

	if (unlikely(lin_of(v, SS, stack_ptr(v, off), size, false, &lin)))
		return -1;
	return lin_load(v, lin, size, val);
}

/* Condition codes in encoding order (SDM vol. 1 B.1). */
INLINE bool condition(uint64_t fl, unsigned cc)
{
	bool r = false;

	switch (cc >> 1) {
	case 0: r = fl & FL_OF; break;
	case 1: r = fl & FL_CF; break;
	case 2: r = fl & FL_ZF; break;
	case 3: r = fl & (FL_CF | FL_ZF); break;
	case 4: r = fl & FL_SF; break;
	case 5: r = fl & FL_PF; break;
	case 6: r = ((fl >> 7) ^ (fl >> 11)) & 1; break;
	case 7: r = (((fl >> 7) ^ (fl >> 11)) & 1) | ((fl >> 6) & 1); break;
	}
	return r ^ (cc & 1);
}

/* A handler array per operation, indexed by log2 of the first operand's size. */
#define OPS(name) const interp_fn name[4]
#define OP_ONE(name, fn) const interp_fn name[4] = {fn, fn, fn, fn}

#endif
