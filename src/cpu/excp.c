/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Exceptions and interrupts: raising, delivery through the IDT, double and triple faults, interrupt windows.
 *
 * Invariant: delivery changes registers only after the whole frame is on the stack, so a fault on the way leaves the state
 * in which the next exception (or #DF) is delivered.
 * Locking: the vCPU's thread; other threads only post events.
 * Spec: SDM vol. 3A chapter 6 (6.12 protected mode, 6.14 IA-32e mode, 6.15 #DF table), vol. 3B 20.1.4 (real mode).
 */
#include "cpu/private.h"

int cpu_raise(struct vcpu *v, enum x86_vector vec)
{
	v->exc = (struct vcpu_exc){ .kind = EXC_HARDWARE, .vector = (uint8_t)vec };
	return -1;
}

int cpu_raise_err(struct vcpu *v, enum x86_vector vec, uint32_t err)
{
	v->exc = (struct vcpu_exc){ .kind = EXC_HARDWARE, .vector = (uint8_t)vec, .has_err = true, .err = err };
	return -1;
}

int cpu_raise_pf(struct vcpu *v, gva_t gva, uint32_t err)
{
	v->exc = (struct vcpu_exc){ .kind = EXC_HARDWARE, .vector = VEC_PF, .has_err = true,
		.err = err & ~MMU_FAULT, .cr2 = gva };
	return -1;
}

int cpu_raise_db(struct vcpu *v, uint64_t dr6_bits)
{
	v->exc = (struct vcpu_exc){ .kind = EXC_HARDWARE, .vector = VEC_DB, .dr6 = dr6_bits };
	return -1;
}

/* --- delivery --------------------------------------------------------------------------------------------------- */

/* The RFLAGS image to push: RF is set for faults, so that an instruction breakpoint does not fire again on return. */
static uint64_t pushed_rflags(const struct vcpu *v, const struct vcpu_exc *e)
{
	const uint32_t not_faults = 1u << VEC_BP | 1u << VEC_OF | 1u << VEC_DF | 1u << VEC_MC | 1u << VEC_NMI;

	if (e->kind != EXC_HARDWARE || (not_faults >> (e->vector & 31) & 1))
		return v->rflags;
	if (e->vector == VEC_DB && !(e->dr6 & DR6_BD))
		return v->rflags;
	return v->rflags | FL_RF;
}

static uint32_t idt_err(const struct vcpu_exc *e, unsigned ext)
{
	return (uint32_t)e->vector << 3 | 2 | ext;
}

/* Pushes the five or six quadwords of a 64-bit frame below rsp (aligned); *sp is the new RSP. */
static int push_frame64(struct vcpu *v, const struct vcpu_exc *e, uint64_t rsp, uint64_t rip, unsigned cpl,
			unsigned ext, uint64_t *sp)
{
	unsigned n = e->has_err ? 6 : 5;
	uint64_t frame[6] = { e->err, rip, v->seg[CS].sel, pushed_rflags(v, e), v->gpr[RSP], v->seg[SS].sel };
	const uint64_t *src = frame + 6 - n;
	gva_t lin = (rsp & ~15ull) - 8 * n;
	uint64_t *dst = cpl == 3 ? NULL : cpu_flat_write(v, lin, 8 * n);

	*sp = lin;
	if (likely(dst)) {
		for (unsigned i = 0; i < n; i++)
			dst[i] = src[i];
		return 0;
	}
	if (!x86_canonical(lin) || !x86_canonical(lin + 8 * n - 1))
		return cpu_raise_err(v, VEC_SS, ext);
	if (cpl == 3)
		return cpu_store_buf(v, lin, src, 8 * n);
	for (unsigned i = n; i-- > 0;)
		if (cpu_store_sys(v, lin + 8 * i, 8, src[i]))
			return -1;
	return 0;
}

/* IDT gate of IA-32e mode: checks it and returns its parts. */
static int read_gate64(struct vcpu *v, const struct vcpu_exc *e, unsigned ext, uint64_t gate[2])
{
	gva_t lin = v->idt.base + 16u * e->vector;
	const uint64_t *p;

	if (unlikely(16u * e->vector + 15 > v->idt.limit))
		return cpu_raise_err(v, VEC_GP, idt_err(e, ext));
	p = cpu_flat_read(v, lin, 16);
	if (likely(p)) {
		gate[0] = p[0];
		gate[1] = p[1];
	} else if (cpu_load_sys(v, lin, 8, &gate[0]) || cpu_load_sys(v, lin + 8, 8, &gate[1])) {
		return -1;
	}
	if (unlikely(desc_is_segment(gate[0]) || (desc_type(gate[0]) & 14) != DT_INT32))
		return cpu_raise_err(v, VEC_GP, idt_err(e, ext));
	if (unlikely(e->kind == EXC_SOFT_INT && desc_dpl(gate[0]) < v->cpl))
		return cpu_raise_err(v, VEC_GP, idt_err(e, 0));
	if (unlikely(!desc_present(gate[0])))
		return cpu_raise_err(v, VEC_NP, idt_err(e, ext));
	return 0;
}

static int deliver64(struct vcpu *v, const struct vcpu_exc *e, uint64_t rip, unsigned ext)
{
	uint64_t gate[2], d, rsp, sp, entry;
	unsigned cpl = v->cpl, ist;
	uint16_t sel;

	if (read_gate64(v, e, ext, gate))
		return -1;
	sel = (uint16_t)(gate[0] >> 16);
	if (unlikely(sel_null(sel)))
		return cpu_raise_err(v, VEC_GP, ext);
	if (cpu_desc_read(v, sel, VEC_GP, ext, &d))
		return -1;
	if (unlikely(!desc_is_code(d) || desc_dpl(d) > cpl || !desc_long(d) || desc_big(d)))
		return cpu_raise_err(v, VEC_GP, (sel & ~3u) | ext);
	if (unlikely(!desc_present(d)))
		return cpu_raise_err(v, VEC_NP, (sel & ~3u) | ext);
	if (!desc_is_conforming(d))
		cpl = desc_dpl(d);
	ist = (unsigned)(gate[0] >> 32) & 7;
	if (ist) {
		if (cpu_tss_rsp(v, 3 + ist, ext, &rsp))
			return -1;
	} else if (cpl < v->cpl) {
		if (cpu_tss_rsp(v, cpl, ext, &rsp))
			return -1;
	} else {
		rsp = v->gpr[RSP];
	}
	entry = (gate[0] & 0xffff) | (gate[0] >> 48) << 16 | gate[1] << 32;
	if (unlikely(!x86_canonical(entry)))
		return cpu_raise_err(v, VEC_GP, ext);
	if (push_frame64(v, e, rsp, rip, cpl, ext, &sp) || cpu_desc_mark(v, sel, &d))
		return -1;
	v->gpr[RSP] = sp;
	v->rip = entry;
	if (cpl < v->cpl)
		cpu_seg_null(&v->seg[SS], (uint16_t)cpl, cpl);
	v->rflags &= ~(uint64_t)(FL_TF | FL_NT | FL_RF | FL_VM | (desc_type(gate[0]) & 1 ? 0 : FL_IF));
	cpu_seg_fill(&v->seg[CS], (uint16_t)((sel & ~3u) | cpl), d);
	v->cpl = (uint8_t)cpl;                  /* gates never lead outwards: no mmu_enter_user() */
	v->mode = INSN_MODE_64;
	return 0;
}

static int deliver_real(struct vcpu *v, const struct vcpu_exc *e, uint64_t rip)
{
	struct cpu_stack s;
	uint64_t vec;

	if (4u * e->vector + 3 > v->idt.limit)
		return cpu_raise_err(v, VEC_GP, 0);
	if (cpu_load_sys(v, (uint32_t)(v->idt.base + 4u * e->vector), 4, &vec))
		return -1;
	cpu_stack_current(v, &s);
	if (cpu_stack_push(&s, 2, v->rflags) || cpu_stack_push(&s, 2, v->seg[CS].sel) || cpu_stack_push(&s, 2, rip))
		return -1;
	cpu_stack_commit(v, &s);
	v->rflags &= ~(uint64_t)(FL_IF | FL_TF | FL_AC | FL_RF);
	cpu_seg_real(v, CS, (uint16_t)(vec >> 16));
	v->rip = vec & 0xffff;
	return 0;
}

struct legacy_gate {
	uint64_t gate, cs;
	uint16_t sel;
	unsigned cpl;
	bool switch_stack;
};

/* Gate of a 32-bit IDT and the code segment it names, with all checks up to the stack. */
static int read_gate32(struct vcpu *v, const struct vcpu_exc *e, unsigned ext, struct legacy_gate *g)
{
	const uint32_t types = 1u << DT_TASK | 1u << DT_INT16 | 1u << DT_TRAP16 | 1u << DT_INT32 | 1u << DT_TRAP32;

	if (8u * e->vector + 7 > v->idt.limit)
		return cpu_raise_err(v, VEC_GP, idt_err(e, ext));
	if (cpu_load_sys(v, (uint32_t)(v->idt.base + 8u * e->vector), 8, &g->gate))
		return -1;
	if (desc_is_segment(g->gate) || !(types >> desc_type(g->gate) & 1))
		return cpu_raise_err(v, VEC_GP, idt_err(e, ext));
	if (e->kind == EXC_SOFT_INT && desc_dpl(g->gate) < v->cpl)
		return cpu_raise_err(v, VEC_GP, idt_err(e, 0));
	if (!desc_present(g->gate))
		return cpu_raise_err(v, VEC_NP, idt_err(e, ext));
	g->sel = (uint16_t)(g->gate >> 16);
	if (desc_type(g->gate) == DT_TASK)
		return 0;
	if (sel_null(g->sel))
		return cpu_raise_err(v, VEC_GP, ext);
	if (cpu_desc_read(v, g->sel, VEC_GP, ext, &g->cs))
		return -1;
	if (!desc_is_code(g->cs) || desc_dpl(g->cs) > v->cpl)
		return cpu_raise_err(v, VEC_GP, (g->sel & ~3u) | ext);
	if (!desc_present(g->cs))
		return cpu_raise_err(v, VEC_NP, (g->sel & ~3u) | ext);
	g->cpl = desc_is_conforming(g->cs) ? v->cpl : desc_dpl(g->cs);
	g->switch_stack = g->cpl < v->cpl;
	if (cpu_v86(v) && g->cpl != 0)
		return cpu_raise_err(v, VEC_GP, (g->sel & ~3u) | ext);
	return 0;
}

static int deliver_task(struct vcpu *v, const struct vcpu_exc *e, uint64_t rip, unsigned ext, uint16_t sel)
{
	uint64_t d;

	if (sel_null(sel) || (sel & 4))
		return cpu_raise_err(v, VEC_GP, (sel & ~3u) | ext);
	if (cpu_desc_read(v, sel, VEC_GP, ext, &d))
		return -1;
	return cpu_task_switch(v, sel, d, TASK_GATE, ext, e->has_err, e->err, rip);
}

/* The frame that a stack switch adds: data segments of a virtual-8086 task, then SS:ESP. */
static int push_outer(struct vcpu *v, struct cpu_stack *s, unsigned size)
{
	if (cpu_v86(v) && (cpu_stack_push(s, size, v->seg[GS].sel) || cpu_stack_push(s, size, v->seg[FS].sel) ||
			   cpu_stack_push(s, size, v->seg[DS].sel) || cpu_stack_push(s, size, v->seg[ES].sel)))
		return -1;
	if (cpu_stack_push(s, size, v->seg[SS].sel) || cpu_stack_push(s, size, v->gpr[RSP]))
		return -1;
	return 0;
}

static int deliver32(struct vcpu *v, const struct vcpu_exc *e, uint64_t rip, unsigned ext)
{
	struct legacy_gate g;
	struct cpu_stack s;
	uint64_t ss_desc = 0, esp, off;
	uint16_t ss = 0;
	unsigned size;

	if (read_gate32(v, e, ext, &g))
		return -1;
	if (desc_type(g.gate) == DT_TASK)
		return deliver_task(v, e, rip, ext, g.sel);
	size = desc_type(g.gate) & 8 ? 4 : 2;
	cpu_stack_current(v, &s);
	s.err = (uint16_t)ext;
	if (g.switch_stack) {
		if (cpu_tss_stack(v, g.cpl, ext, &ss, &esp) || cpu_check_ss(v, ss, g.cpl, VEC_TS, ext, &ss_desc))
			return -1;
		cpu_stack_new(v, &s, ss_desc, esp, g.cpl, (uint16_t)((ss & ~3u) | ext));
	}
	off = (g.gate & 0xffff) | (size == 4 ? g.gate >> 48 << 16 : 0);
	if (off > desc_limit(g.cs))
		return cpu_raise_err(v, VEC_GP, ext);
	if ((g.switch_stack && push_outer(v, &s, size)) || cpu_stack_push(&s, size, pushed_rflags(v, e)) ||
	    cpu_stack_push(&s, size, v->seg[CS].sel) || cpu_stack_push(&s, size, rip) ||
	    (e->has_err && cpu_stack_push(&s, size, e->err)))
		return -1;
	if (cpu_desc_mark(v, g.sel, &g.cs) || (g.switch_stack && cpu_desc_mark(v, ss, &ss_desc)))
		return -1;
	if (cpu_v86(v))
		for (unsigned i = ES; i <= GS; i++)
			cpu_seg_null(&v->seg[i], 0, 0);
	if (g.switch_stack)
		cpu_seg_fill(&v->seg[SS], ss, ss_desc);
	cpu_stack_commit(v, &s);
	v->rip = off;
	v->rflags &= ~(uint64_t)(FL_TF | FL_NT | FL_RF | FL_VM | (desc_type(g.gate) & 1 ? 0 : FL_IF));
	cpu_install_cs(v, g.sel, g.cs, g.cpl);
	return 0;
}

static int deliver_one(struct vcpu *v, const struct vcpu_exc *e, uint64_t rip)
{
	unsigned ext = e->kind != EXC_SOFT_INT;

	if (likely(cpu_long(v)))
		return deliver64(v, e, rip, ext);
	return cpu_real(v) ? deliver_real(v, e, rip) : deliver32(v, e, rip, ext);
}

enum exc_class { CLASS_BENIGN, CLASS_CONTRIBUTORY, CLASS_PAGE_FAULT, CLASS_DOUBLE };

/* SDM vol. 3A table 6-4. */
static enum exc_class exc_class(const struct vcpu_exc *e)
{
	if (e->kind != EXC_HARDWARE)
		return CLASS_BENIGN;
	switch (e->vector) {
	case VEC_DE: case VEC_TS: case VEC_NP: case VEC_SS: case VEC_GP:
		return CLASS_CONTRIBUTORY;
	case VEC_PF:
		return CLASS_PAGE_FAULT;
	case VEC_DF:
		return CLASS_DOUBLE;
	default:
		return CLASS_BENIGN;
	}
}

/* What is delivered after `second` arose during the delivery of `first` (SDM vol. 3A table 6-5); false = shutdown. */
static bool exc_combine(const struct vcpu_exc *first, struct vcpu_exc *second)
{
	enum exc_class a = exc_class(first), b = exc_class(second);
	bool escalate = (a == CLASS_CONTRIBUTORY && b == CLASS_CONTRIBUTORY) ||
			(a == CLASS_PAGE_FAULT && (b == CLASS_CONTRIBUTORY || b == CLASS_PAGE_FAULT));

	if (a == CLASS_DOUBLE)
		return false;
	if (escalate)
		*second = (struct vcpu_exc){ .kind = EXC_HARDWARE, .vector = VEC_DF, .has_err = true };
	return true;
}

/* Side effects that belong to the event itself, whatever happens to its delivery. */
static void exc_record(struct vcpu *v, const struct vcpu_exc *e)
{
	if (e->kind != EXC_HARDWARE)
		return;
	if (e->vector == VEC_PF) {
		v->cr2 = e->cr2;
	} else if (e->vector == VEC_DB) {
		v->dr6 = (v->dr6 & ~0xfull) | e->dr6;
		v->dr7 &= ~DR7_GD;
	}
}

/* Bounded: each failure moves benign -> contributory or page fault -> #DF -> shutdown. */
static int deliver(struct vcpu *v, struct vcpu_exc e, uint64_t rip)
{
	v->exc.kind = EXC_NONE;
	v->inhibit_irq = false;
	v->inhibit_db = false;
	v->halted = false;
	for (;;) {
		struct vcpu_exc second;

		exc_record(v, &e);
		if (likely(!deliver_one(v, &e, rip)))
			return 0;
		second = v->exc;
		v->exc.kind = EXC_NONE;
		if (second.kind == EXC_HARDWARE && second.vector == VEC_PF)
			v->cr2 = second.cr2;
		if (!exc_combine(&e, &second))
			return -1;
		e = second;
		rip = v->rip;
	}
}

int cpu_deliver_exception(struct vcpu *v)
{
	v->stats.exceptions++;
	return deliver(v, v->exc, v->rip);
}

int cpu_soft_int(struct vcpu *v, uint8_t vector, uint64_t next_rip)
{
	struct vcpu_exc e = { .kind = EXC_SOFT_INT, .vector = vector };

	/* INT n in virtual-8086 mode is IOPL-sensitive; INT3 and INTO are not. */
	if (cpu_v86(v) && cpu_iopl(v) < 3 && vector != VEC_BP && vector != VEC_OF) {
		e = (struct vcpu_exc){ .kind = EXC_HARDWARE, .vector = VEC_GP, .has_err = true };
		next_rip = v->rip;
	}
	return deliver(v, e, next_rip);
}

/* --- interrupts ------------------------------------------------------------------------------------------------- */

static bool nmi_take(struct vcpu *v)
{
	if (__atomic_load_n(&v->event, __ATOMIC_RELAXED) & VCPU_EV_NMI) {
		__atomic_fetch_and(&v->event, ~(uint32_t)VCPU_EV_NMI, __ATOMIC_ACQ_REL);
		v->nmi_pending = true;
	}
	return v->nmi_pending && !v->nmi_blocked;
}

/* A #DF handler or shutdown may have replaced the event itself; only its own delivery counts as "delivered". */
static int deliver_event(struct vcpu *v, enum vcpu_exc_kind kind, uint8_t vector)
{
	struct vcpu_exc e = { .kind = (uint8_t)kind, .vector = vector };

	v->stats.interrupts++;
	return deliver(v, e, v->rip) ? -1 : 1;
}

int cpu_take_interrupt(struct vcpu *v)
{
	int vector;
	bool was;

	if (unlikely(nmi_take(v))) {
		if (v->inhibit_irq) {
			__atomic_fetch_or(&v->event, VCPU_EV_NMI, __ATOMIC_RELEASE);
			return 0;
		}
		v->nmi_pending = false;
		v->nmi_blocked = true;
		return deliver_event(v, EXC_NMI, VEC_NMI);
	}
	/* Cleared before the controller is asked: a line raised meanwhile posts it again. */
	__atomic_fetch_and(&v->event, ~(uint32_t)VCPU_EV_IRQ, __ATOMIC_ACQ_REL);
	if (!(v->rflags & FL_IF)) {
		v->irq_waiting = true;
		return 0;
	}
	if (v->inhibit_irq) {
		__atomic_fetch_or(&v->event, VCPU_EV_IRQ, __ATOMIC_RELEASE);
		return 0;
	}
	v->irq_waiting = false;
	was = cpu_leave(v);
	cpu_pv_tick(v);
	vector = v->ops->irq_pending(v->vm, v->index) ? v->ops->irq_ack(v->vm, v->index) : -1;
	if (vector >= 0 && v->ops->irq_pending(v->vm, v->index))
		__atomic_fetch_or(&v->event, VCPU_EV_IRQ, __ATOMIC_RELEASE);
	cpu_return(v, was);
	if (vector < 0)
		return 0;
	return deliver_event(v, EXC_INTERRUPT, (uint8_t)vector);
}

void cpu_irq_window(struct vcpu *v)
{
	if (v->irq_waiting) {
		v->irq_waiting = false;
		__atomic_fetch_or(&v->event, VCPU_EV_IRQ, __ATOMIC_RELEASE);
	}
}
