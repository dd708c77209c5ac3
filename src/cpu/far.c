/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Far control transfer: JMP, CALL, RET and IRET that load CS, in real, virtual-8086, protected, compatibility and 64-bit mode.
 *
 * Invariant: all checks and all memory accesses come before the first change of a register.
 * Locking: none; the vCPU's thread.
 * Spec: SDM vol. 2 JMP, CALL, RET, IRET; vol. 3A 5.8 (privilege checks), 5.8.3 (call gates), 6.14.3 (IRET in IA-32e mode).
 */
#include "cpu/private.h"

static uint64_t trunc_ip(uint64_t off, unsigned opsize)
{
	return opsize == 2 ? off & 0xffff : opsize == 4 ? off & 0xffffffff : off;
}

static uint32_t sel_err(uint16_t sel)
{
	return sel & ~3u;
}

/* In IA-32e mode a code segment with both L and D is reserved. */
static bool code_usable(const struct vcpu *v, uint64_t d)
{
	return desc_is_code(d) && !(cpu_long(v) && desc_long(d) && desc_big(d));
}

/* The new instruction pointer must lie in the new code segment. */
static int check_ip(struct vcpu *v, uint64_t d, uint64_t *ip)
{
	if (cpu_long(v) && desc_long(d)) {
		if (likely(x86_canonical(*ip)))
			return 0;
	} else if ((*ip & 0xffffffff) <= desc_limit(d)) {
		*ip &= 0xffffffff;
		return 0;
	}
	return cpu_gp0(v);
}

/* Direct far JMP and CALL: the target segment's privilege (SDM vol. 3A 5.8.1). */
static int check_direct(struct vcpu *v, uint16_t sel, uint64_t d)
{
	bool ok;

	if (desc_is_conforming(d))
		ok = desc_dpl(d) <= v->cpl;
	else
		ok = (sel & 3) <= v->cpl && desc_dpl(d) == v->cpl;
	if (!ok || !code_usable(v, d))
		return cpu_raise_err(v, VEC_GP, sel_err(sel));
	if (!desc_present(d))
		return cpu_raise_err(v, VEC_NP, sel_err(sel));
	return 0;
}

static int far_real(struct vcpu *v, uint16_t sel, uint64_t off)
{
	if (off > v->seg[CS].limit)
		return cpu_gp0(v);
	cpu_seg_real(v, CS, sel);
	v->rip = off;
	return 0;
}

/* --- call gates ------------------------------------------------------------------------------------------------- */

struct call_gate {
	uint64_t off, cs;        /* entry point and code descriptor */
	uint16_t sel;
	unsigned size, params;   /* of a pushed item; items to copy */
};

static int gate_high(struct vcpu *v, uint16_t sel, struct call_gate *g)
{
	uint64_t hi;
	gva_t lin;

	if (!cpu_desc_addr(v, sel, 16, &lin))
		return cpu_raise_err(v, VEC_GP, sel_err(sel));
	if (cpu_sys_u64(v, lin + 8, &hi))
		return -1;
	if ((hi >> 40) & 0x1f)
		return cpu_raise_err(v, VEC_GP, sel_err(sel));
	g->off |= hi << 32;
	g->size = 8;
	g->params = 0;
	return 0;
}

/* Checks the gate that sel names (descriptor d) and its code segment. */
static int read_call_gate(struct vcpu *v, uint16_t sel, uint64_t d, bool call, struct call_gate *g)
{
	bool conforming, ok;

	if (desc_dpl(d) < v->cpl || desc_dpl(d) < (sel & 3u))
		return cpu_raise_err(v, VEC_GP, sel_err(sel));
	if (!desc_present(d))
		return cpu_raise_err(v, VEC_NP, sel_err(sel));
	g->sel = (uint16_t)(d >> 16);
	g->size = desc_type(d) & 8 ? 4 : 2;
	g->params = (unsigned)(d >> 32) & 31;
	g->off = (d & 0xffff) | (g->size == 4 ? d >> 48 << 16 : 0);
	if (cpu_long(v) && gate_high(v, sel, g))
		return -1;
	if (sel_null(g->sel))
		return cpu_gp0(v);
	if (cpu_desc_read(v, g->sel, VEC_GP, 0, &g->cs))
		return -1;
	conforming = desc_is_conforming(g->cs);
	ok = code_usable(v, g->cs) && desc_dpl(g->cs) <= v->cpl && (!cpu_long(v) || desc_long(g->cs));
	if (!call && !conforming && desc_dpl(g->cs) != v->cpl)
		ok = false;
	if (!ok)
		return cpu_raise_err(v, VEC_GP, sel_err(g->sel));
	if (!desc_present(g->cs))
		return cpu_raise_err(v, VEC_NP, sel_err(g->sel));
	return 0;
}

/* Call through a gate to a more privileged segment: new stack, parameters copied. */
static int call_inner(struct vcpu *v, struct call_gate *g, uint64_t next_rip)
{
	unsigned cpl = desc_dpl(g->cs);
	struct cpu_stack old, s;
	uint64_t ss_desc = 0, sp, val;
	uint16_t ss = (uint16_t)cpl;

	cpu_stack_current(v, &old);
	if (g->size == 8) {
		if (cpu_tss_rsp(v, cpl, 0, &sp))
			return -1;
		s = (struct cpu_stack){ .v = v, .sp = sp, .mask = ~0ull, .code64 = true };
	} else {
		if (cpu_tss_stack(v, cpl, 0, &ss, &sp) || cpu_check_ss(v, ss, cpl, VEC_TS, 0, &ss_desc))
			return -1;
		cpu_stack_new(v, &s, ss_desc, sp, cpl, (uint16_t)sel_err(ss));
	}
	if (check_ip(v, g->cs, &g->off))
		return -1;
	if (cpu_stack_push(&s, g->size, v->seg[SS].sel) || cpu_stack_push(&s, g->size, v->gpr[RSP]))
		return -1;
	for (unsigned i = g->params; i-- > 0;)
		if (cpu_stack_peek(&old, i * g->size, g->size, &val) || cpu_stack_push(&s, g->size, val))
			return -1;
	if (cpu_stack_push(&s, g->size, v->seg[CS].sel) || cpu_stack_push(&s, g->size, next_rip) ||
	    cpu_desc_mark(v, g->sel, &g->cs) || (ss_desc && cpu_desc_mark(v, ss, &ss_desc)))
		return -1;
	if (ss_desc)
		cpu_seg_fill(&v->seg[SS], ss, ss_desc);
	else
		cpu_seg_null(&v->seg[SS], ss, cpl);
	cpu_stack_commit(v, &s);
	v->rip = g->off;
	cpu_install_cs(v, g->sel, g->cs, cpl);
	return 0;
}

/* Pushes the return address on the current stack and enters the checked code segment at the same privilege. */
static int call_same(struct vcpu *v, uint16_t sel, uint64_t d, uint64_t ip, unsigned size, uint64_t next_rip)
{
	struct cpu_stack s;

	cpu_stack_current(v, &s);
	/* A far call from compatibility mode into a 64-bit segment still pushes on the stack of the caller's mode. */
	if (cpu_stack_push(&s, size, v->seg[CS].sel) || cpu_stack_push(&s, size, next_rip) ||
	    check_ip(v, d, &ip) || cpu_desc_mark(v, sel, &d))
		return -1;
	cpu_stack_commit(v, &s);
	v->rip = ip;
	cpu_install_cs(v, sel, d, v->cpl);
	return 0;
}

static int call_gate(struct vcpu *v, uint16_t sel, uint64_t d, uint64_t next_rip)
{
	struct call_gate g;

	if (read_call_gate(v, sel, d, true, &g))
		return -1;
	if (!desc_is_conforming(g.cs) && desc_dpl(g.cs) < v->cpl)
		return call_inner(v, &g, next_rip);
	return call_same(v, g.sel, g.cs, g.off, g.size, next_rip);
}

static int jump_gate(struct vcpu *v, uint16_t sel, uint64_t d)
{
	struct call_gate g;

	if (read_call_gate(v, sel, d, false, &g) || check_ip(v, g.cs, &g.off) || cpu_desc_mark(v, g.sel, &g.cs))
		return -1;
	v->rip = g.off;
	cpu_install_cs(v, g.sel, g.cs, v->cpl);
	return 0;
}

/* Far transfers to anything that is not a code segment. */
static int far_system(struct vcpu *v, uint16_t sel, uint64_t d, bool call, uint64_t next_rip)
{
	enum task_reason why = call ? TASK_CALL : TASK_JMP;
	uint64_t tss;
	uint16_t tsel;

	switch (desc_is_segment(d) ? 0 : desc_type(d)) {
	case DT_CALL16:
		if (cpu_long(v))
			break;
		/* fallthrough */
	case DT_CALL32:
		return call ? call_gate(v, sel, d, next_rip) : jump_gate(v, sel, d);
	case DT_TASK:
	case DT_TSS16:
	case DT_TSS32:
		if (cpu_long(v) || desc_dpl(d) < v->cpl || desc_dpl(d) < (sel & 3u))
			break;
		if (!desc_present(d))
			return cpu_raise_err(v, VEC_NP, sel_err(sel));
		if (desc_type(d) != DT_TASK)
			return cpu_task_switch(v, sel, d, why, 0, false, 0, next_rip);
		tsel = (uint16_t)(d >> 16);
		if (sel_null(tsel) || (tsel & 4))
			return cpu_raise_err(v, VEC_GP, sel_err(tsel));
		if (cpu_desc_read(v, tsel, VEC_GP, 0, &tss))
			return -1;
		return cpu_task_switch(v, tsel, tss, why, 0, false, 0, next_rip);
	default:
		break;
	}
	return cpu_raise_err(v, VEC_GP, sel_err(sel));
}

/* --- JMP and CALL ----------------------------------------------------------------------------------------------- */

int cpu_far_jump(struct vcpu *v, uint16_t sel, uint64_t off, unsigned opsize)
{
	uint64_t d;

	off = trunc_ip(off, opsize);
	if (cpu_real(v) || cpu_v86(v))
		return far_real(v, sel, off);
	if (sel_null(sel))
		return cpu_gp0(v);
	if (cpu_desc_read(v, sel, VEC_GP, 0, &d))
		return -1;
	if (!desc_is_code(d))
		return far_system(v, sel, d, false, 0);
	if (check_direct(v, sel, d) || check_ip(v, d, &off) || cpu_desc_mark(v, sel, &d))
		return -1;
	v->rip = off;
	cpu_install_cs(v, sel, d, v->cpl);
	return 0;
}

int cpu_far_call(struct vcpu *v, uint16_t sel, uint64_t off, unsigned opsize, uint64_t next_rip)
{
	struct cpu_stack s;
	uint64_t d;

	off = trunc_ip(off, opsize);
	if (cpu_real(v) || cpu_v86(v)) {
		cpu_stack_current(v, &s);
		if (off > v->seg[CS].limit)
			return cpu_gp0(v);
		if (cpu_stack_push(&s, opsize, v->seg[CS].sel) || cpu_stack_push(&s, opsize, next_rip))
			return -1;
		cpu_stack_commit(v, &s);
		return far_real(v, sel, off);
	}
	if (sel_null(sel))
		return cpu_gp0(v);
	if (cpu_desc_read(v, sel, VEC_GP, 0, &d))
		return -1;
	if (!desc_is_code(d))
		return far_system(v, sel, d, true, next_rip);
	if (check_direct(v, sel, d))
		return -1;
	return call_same(v, sel, d, off, opsize, next_rip);
}

/* --- RET and IRET ----------------------------------------------------------------------------------------------- */

/* Code segment popped by a return: not inwards, and of exactly the privilege its RPL says. */
static int check_return_cs(struct vcpu *v, uint16_t sel, uint64_t *d)
{
	unsigned rpl = sel & 3;
	bool ok;

	if (unlikely(sel_null(sel)))
		return cpu_gp0(v);
	if (cpu_desc_read(v, sel, VEC_GP, 0, d))
		return -1;
	ok = desc_is_conforming(*d) ? desc_dpl(*d) <= rpl : desc_dpl(*d) == rpl;
	if (unlikely(!ok || rpl < v->cpl || !code_usable(v, *d)))
		return cpu_raise_err(v, VEC_GP, sel_err(sel));
	if (unlikely(!desc_present(*d)))
		return cpu_raise_err(v, VEC_NP, sel_err(sel));
	return 0;
}

/* Stack segment popped by a return to privilege cpl; a null one is fine for inner levels of 64-bit code. *d = 0 then. */
static int check_return_ss(struct vcpu *v, uint16_t sel, unsigned cpl, bool to64, uint64_t *d)
{
	*d = 0;
	if (sel_null(sel) && to64 && cpl < 3 && (sel & 3) == cpl)
		return 0;
	return cpu_check_ss(v, sel, cpl, VEC_GP, 0, d);
}

struct far_return {
	uint64_t ip, cs_desc, sp, ss_desc;
	uint16_t cs, ss;
	bool load_ss;
};

static void install_return(struct vcpu *v, const struct far_return *r)
{
	unsigned cpl = r->cs & 3;
	bool outer = cpl > v->cpl;
	bool to64 = cpu_long(v) && desc_long(r->cs_desc);

	if (r->load_ss) {
		if (r->ss_desc)
			cpu_seg_fill(&v->seg[SS], r->ss, r->ss_desc);
		else
			cpu_seg_null(&v->seg[SS], r->ss, cpl);
		/* A 16-bit stack takes only SP: the upper half of ESP stays the inner level's, as on hardware. */
		if (to64)
			v->gpr[RSP] = r->sp;
		else if (desc_big(r->ss_desc))
			v->gpr[RSP] = r->sp & 0xffffffff;
		else
			v->gpr[RSP] = (v->gpr[RSP] & 0xffff0000) | (r->sp & 0xffff);
	}
	v->rip = r->ip;
	cpu_install_cs(v, r->cs, r->cs_desc, cpl);
	if (outer)
		cpu_drop_inner_segs(v);
}

static int ret_real(struct vcpu *v, unsigned opsize, unsigned pop)
{
	struct cpu_stack s;
	uint64_t ip, cs;

	cpu_stack_current(v, &s);
	if (cpu_stack_peek(&s, 0, opsize, &ip) || cpu_stack_peek(&s, opsize, opsize, &cs))
		return -1;
	if (far_real(v, (uint16_t)cs, ip))
		return -1;
	s.sp += 2 * opsize + pop;
	cpu_stack_commit(v, &s);
	return 0;
}

int cpu_far_ret(struct vcpu *v, unsigned opsize, unsigned pop)
{
	struct far_return r = { 0 };
	struct cpu_stack s;
	uint64_t cs, ss;
	unsigned cpl;

	if (cpu_real(v) || cpu_v86(v))
		return ret_real(v, opsize, pop);
	cpu_stack_current(v, &s);
	if (cpu_stack_peek(&s, 0, opsize, &r.ip) || cpu_stack_peek(&s, opsize, opsize, &cs))
		return -1;
	r.cs = (uint16_t)cs;
	cpl = r.cs & 3;
	if (check_return_cs(v, r.cs, &r.cs_desc))
		return -1;
	if (cpl > v->cpl) {
		unsigned off = 2 * opsize + pop;

		if (cpu_stack_peek(&s, off, opsize, &r.sp) || cpu_stack_peek(&s, off + opsize, opsize, &ss))
			return -1;
		r.ss = (uint16_t)ss;
		r.sp += pop;
		r.load_ss = true;
		if (check_return_ss(v, r.ss, cpl, cpu_long(v) && desc_long(r.cs_desc), &r.ss_desc))
			return -1;
	}
	if (check_ip(v, r.cs_desc, &r.ip) || cpu_desc_mark(v, r.cs, &r.cs_desc) ||
	    (r.ss_desc && cpu_desc_mark(v, r.ss, &r.ss_desc)))
		return -1;
	if (!r.load_ss) {
		s.sp += 2 * opsize + pop;
		cpu_stack_commit(v, &s);
	}
	install_return(v, &r);
	return 0;
}

/* RFLAGS as IRET loads them from val at the current (old) CPL. */
static uint64_t iret_flags(const struct vcpu *v, uint64_t val, unsigned opsize)
{
	uint64_t mask = FL_ARITH | FL_TF | FL_DF | FL_NT | FL_RF | FL_AC | FL_ID;

	if (v->cpl <= cpu_iopl(v))
		mask |= FL_IF;
	if (v->cpl == 0)
		mask |= FL_IOPL | FL_VIF | FL_VIP;
	if (opsize == 2)
		mask &= 0xffff;
	return (v->rflags & ~mask) | (val & mask);
}

static void iret_unblock_nmi(struct vcpu *v)
{
	if (unlikely(v->nmi_blocked)) {
		v->nmi_blocked = false;
		if (v->nmi_pending)
			__atomic_fetch_or(&v->event, VCPU_EV_NMI, __ATOMIC_RELEASE);
	}
}

static int iret_real(struct vcpu *v, unsigned opsize)
{
	struct cpu_stack s;
	uint64_t ip, cs, fl;

	if (cpu_v86(v) && cpu_iopl(v) < 3)
		return cpu_gp0(v);
	cpu_stack_current(v, &s);
	if (cpu_stack_peek(&s, 0, opsize, &ip) || cpu_stack_peek(&s, opsize, opsize, &cs) ||
	    cpu_stack_peek(&s, 2 * opsize, opsize, &fl))
		return -1;
	fl = iret_flags(v, fl, opsize);
	if (far_real(v, (uint16_t)cs, ip))
		return -1;
	s.sp += 3 * opsize;
	cpu_stack_commit(v, &s);
	cpu_put_rflags(v, fl);
	iret_unblock_nmi(v);
	return 0;
}

/* IRET from CPL 0 to virtual-8086 mode: nine doublewords, of which eip, cs and eflags are read already. */
static int iret_to_v86(struct vcpu *v, struct cpu_stack *s, uint64_t ip, uint64_t cs, uint64_t fl)
{
	static const uint8_t order[] = { SS, ES, DS, FS, GS };
	uint64_t esp, sel[5];

	if (cpu_stack_peek(s, 12, 4, &esp))
		return -1;
	for (unsigned i = 0; i < nitems(sel); i++)
		if (cpu_stack_peek(s, 16 + 4 * i, 4, &sel[i]))
			return -1;
	if ((ip & 0xffffffff) > 0xffff)
		return cpu_gp0(v);
	cpu_put_rflags(v, fl & 0xffffffff);
	cpu_set_cpl(v, 3);
	cpu_seg_real(v, CS, (uint16_t)cs);
	for (unsigned i = 0; i < nitems(sel); i++)
		cpu_seg_real(v, order[i], (uint16_t)sel[i]);
	v->gpr[RSP] = esp;
	v->rip = ip & 0xffff;
	cpu_update_mode(v);
	return 0;
}

static int iret_task(struct vcpu *v)
{
	const struct vcpu_seg *tr = &v->seg[TR];
	uint64_t link, d;

	if (cpu_long(v))
		return cpu_gp0(v);
	if (cpu_load_sys(v, (uint32_t)tr->base, 2, &link))
		return -1;
	if ((link & 4) || sel_null((uint16_t)link))
		return cpu_raise_err(v, VEC_TS, sel_err((uint16_t)link));
	if (cpu_desc_read(v, (uint16_t)link, VEC_TS, 0, &d))
		return -1;
	return cpu_task_switch(v, (uint16_t)link, d, TASK_IRET, 0, false, 0, v->rip);
}

/* The part of a protected-mode IRET after the frame has been read; r->load_ss says whether it held SS:RSP. */
static int iret_finish(struct vcpu *v, struct far_return *r, uint64_t fl, unsigned opsize, struct cpu_stack *s)
{
	if (unlikely(check_return_cs(v, r->cs, &r->cs_desc)))
		return -1;
	if (r->load_ss && check_return_ss(v, r->ss, r->cs & 3, cpu_long(v) && desc_long(r->cs_desc), &r->ss_desc))
		return -1;
	if (check_ip(v, r->cs_desc, &r->ip) || cpu_desc_mark(v, r->cs, &r->cs_desc) ||
	    (r->ss_desc && cpu_desc_mark(v, r->ss, &r->ss_desc)))
		return -1;
	if (!r->load_ss) {
		s->sp += 3 * opsize;
		cpu_stack_commit(v, s);
	}
	cpu_put_rflags(v, iret_flags(v, fl, opsize));
	install_return(v, r);
	iret_unblock_nmi(v);
	return 0;
}

static int iret_prot(struct vcpu *v, unsigned opsize)
{
	struct far_return r = { 0 };
	struct cpu_stack s;
	uint64_t cs, fl, ss;

	cpu_stack_current(v, &s);
	if (cpu_stack_peek(&s, 0, opsize, &r.ip) || cpu_stack_peek(&s, opsize, opsize, &cs) ||
	    cpu_stack_peek(&s, 2 * opsize, opsize, &fl))
		return -1;
	if ((fl & FL_VM) && opsize == 4 && v->cpl == 0 && !cpu_long(v))
		return iret_to_v86(v, &s, r.ip, cs, fl);
	r.cs = (uint16_t)cs;
	if (cpu_code64(v) || (cs & 3) > v->cpl) {
		if (cpu_stack_peek(&s, 3 * opsize, opsize, &r.sp) || cpu_stack_peek(&s, 4 * opsize, opsize, &ss))
			return -1;
		r.ss = (uint16_t)ss;
		r.load_ss = true;
	}
	return iret_finish(v, &r, fl, opsize, &s);
}

int cpu_iret(struct vcpu *v, unsigned opsize)
{
	const uint64_t *f;

	if (likely(cpu_code64(v) && opsize == 8 && !(v->rflags & FL_NT) && v->cpl == 0)) {
		f = cpu_flat_read(v, v->gpr[RSP], 40);
		if (likely(f)) {
			struct far_return r = { .ip = f[0], .cs = (uint16_t)f[1], .sp = f[3], .ss = (uint16_t)f[4],
				.load_ss = true };

			return iret_finish(v, &r, f[2], 8, NULL);
		}
	}
	if (cpu_real(v) || cpu_v86(v))
		return iret_real(v, opsize);
	if (v->rflags & FL_NT)
		return iret_task(v);
	return iret_prot(v, opsize);
}
