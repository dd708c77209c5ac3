/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Stacks under construction: frames pushed and popped by far transfers, IRET and exception delivery, and the stack pointers
 * a TSS holds.
 *
 * Invariant: nothing in struct vcpu changes before cpu_stack_commit(); a fault in the middle of a frame is restartable.
 * Locking: none; the vCPU's thread.
 * Spec: SDM vol. 3A 6.12, 6.14 (stack switching), 7.2 (TSS).
 */
#include "cpu/private.h"

static uint64_t stack_mask(const struct vcpu *v, uint16_t attr)
{
	if (cpu_code64(v))
		return ~0ull;
	return attr & SEG_DB ? 0xffffffffull : 0xffffull;
}

void cpu_stack_current(struct vcpu *v, struct cpu_stack *s)
{
	const struct vcpu_seg *ss = &v->seg[SS];

	s->v = v;
	s->code64 = cpu_code64(v);
	s->base = s->code64 ? 0 : ss->base;
	s->limit = ss->limit;
	s->attr = ss->attr;
	s->mask = stack_mask(v, ss->attr);
	s->sp = v->gpr[RSP] & s->mask;
	s->user = v->cpl == 3;
	s->err = 0;
}

void cpu_stack_new(struct vcpu *v, struct cpu_stack *s, uint64_t ss_desc, uint64_t sp, unsigned cpl, uint16_t err)
{
	s->v = v;
	s->code64 = false;
	s->base = desc_base(ss_desc);
	s->limit = desc_limit(ss_desc);
	s->attr = desc_attr(ss_desc);
	s->mask = desc_big(ss_desc) ? 0xffffffffull : 0xffffull;
	s->sp = sp & s->mask;
	s->user = cpl == 3;
	s->err = err;
}

static int stack_linear(const struct cpu_stack *s, uint64_t sp, unsigned size, gva_t *lin)
{
	uint64_t last = sp + size - 1;
	bool ok;

	if (s->code64) {
		*lin = sp;
		ok = x86_canonical(sp) && x86_canonical(last);
	} else {
		*lin = (uint32_t)(s->base + sp);
		if ((s->attr & 0xc) == 0x4)
			ok = sp > s->limit && last <= (s->attr & SEG_DB ? 0xffffffffu : 0xffffu);
		else
			ok = last <= s->limit;
	}
	return ok ? 0 : cpu_raise_err(s->v, VEC_SS, s->err);
}

int cpu_stack_push(struct cpu_stack *s, unsigned size, uint64_t val)
{
	uint64_t sp = (s->sp - size) & s->mask;
	gva_t lin;

	if (stack_linear(s, sp, size, &lin))
		return -1;
	if (s->user ? cpu_store(s->v, lin, size, val) : cpu_store_sys(s->v, lin, size, val))
		return -1;
	s->sp = sp;
	return 0;
}

int cpu_stack_peek(struct cpu_stack *s, unsigned off, unsigned size, uint64_t *val)
{
	gva_t lin;

	if (stack_linear(s, (s->sp + off) & s->mask, size, &lin))
		return -1;
	return s->user ? cpu_load(s->v, lin, size, val) : cpu_load_sys(s->v, lin, size, val);
}

void cpu_stack_commit(struct vcpu *v, const struct cpu_stack *s)
{
	uint64_t mask = s->mask;

	/* A 32-bit write clears the upper half of RSP, a 16-bit one keeps the rest. */
	v->gpr[RSP] = mask == 0xffff ? (v->gpr[RSP] & ~mask) | (s->sp & mask) : s->sp & mask;
}

int cpu_tss_rsp(struct vcpu *v, unsigned n, unsigned ext, uint64_t *rsp)
{
	const struct vcpu_seg *tr = &v->seg[TR];
	unsigned off = 4 + 8 * n;

	if (unlikely(off + 7 > tr->limit))
		return cpu_raise_err(v, VEC_TS, (tr->sel & ~3u) | ext);
	if (cpu_sys_u64(v, tr->base + off, rsp))
		return -1;
	if (unlikely(!x86_canonical(*rsp)))
		return cpu_raise_err(v, VEC_SS, ext);
	return 0;
}

int cpu_tss_stack(struct vcpu *v, unsigned cpl, unsigned ext, uint16_t *ss, uint64_t *sp)
{
	const struct vcpu_seg *tr = &v->seg[TR];
	bool tss32 = tr->attr & 8;
	unsigned size = tss32 ? 4 : 2;
	unsigned off = tss32 ? 4 + 8 * cpl : 2 + 4 * cpl;
	uint64_t sel;

	if (tr->unusable || off + 2 * size - 1 > tr->limit)
		return cpu_raise_err(v, VEC_TS, (tr->sel & ~3u) | ext);
	if (cpu_load_sys(v, (uint32_t)(tr->base + off), size, sp) ||
	    cpu_load_sys(v, (uint32_t)(tr->base + off + size), 2, &sel))
		return -1;
	*ss = (uint16_t)sel;
	return 0;
}
