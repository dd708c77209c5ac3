/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Hardware task switch between 32-bit (or 16-bit) TSSs, outside IA-32e mode.
 *
 * Invariant: faults before the commit point leave the old task; after it they belong to the new task, as the manual says.
 * Locking: none; the vCPU's thread.
 * Spec: SDM vol. 3A 7.2.1 (TSS layout), 7.3 (task switching), table 7-1 (checks).
 */
#include "cpu/private.h"

struct tss_layout {
	uint8_t ip, flags, gpr, seg, nseg, ldt, width, size;
};

/* Offsets of the dynamic fields; general registers in encoding order, segments ES CS SS DS (FS GS). */
static const struct tss_layout tss_layout[2] = {
	{ .ip = 14, .flags = 16, .gpr = 18, .seg = 34, .nseg = 4, .ldt = 42, .width = 2, .size = 44 },
	{ .ip = 32, .flags = 36, .gpr = 40, .seg = 72, .nseg = 6, .ldt = 96, .width = 4, .size = 104 },
};
#define TSS32_CR3 28

static int save_old(struct vcpu *v, uint64_t next_rip, uint64_t rflags)
{
	const struct vcpu_seg *tr = &v->seg[TR];
	const struct tss_layout *l = &tss_layout[tr->attr & 8 ? 1 : 0];
	gva_t base = tr->base;

	if (cpu_store_sys(v, (uint32_t)(base + l->ip), l->width, next_rip) ||
	    cpu_store_sys(v, (uint32_t)(base + l->flags), l->width, rflags))
		return -1;
	for (unsigned i = 0; i < 8; i++)
		if (cpu_store_sys(v, (uint32_t)(base + l->gpr + i * l->width), l->width, v->gpr[i]))
			return -1;
	for (unsigned i = 0; i < l->nseg; i++)
		if (cpu_store_sys(v, (uint32_t)(base + l->seg + i * l->width), 2, v->seg[i].sel))
			return -1;
	return 0;
}

static int set_busy(struct vcpu *v, uint16_t sel, bool busy)
{
	const uint8_t bit = (uint8_t)(DESC_BIT_BUSY >> 40);
	gva_t lin;

	if (!cpu_desc_addr(v, sel, 8, &lin) || (sel & 4))
		return cpu_raise_err(v, VEC_TS, sel & ~3u);
	return cpu_change_byte_sys(v, lin + 5, busy ? bit : 0, busy ? 0 : bit);
}

struct tss_image {
	uint64_t cr3, ip, flags, gpr[8], sel[6], ldt;
};

static int load_new(struct vcpu *v, gva_t base, const struct tss_layout *l, struct tss_image *t)
{
	*t = (struct tss_image){ .cr3 = v->cr3 };
	if (l->width == 4 && cpu_load_sys(v, (uint32_t)(base + TSS32_CR3), 4, &t->cr3))
		return -1;
	if (cpu_load_sys(v, (uint32_t)(base + l->ip), l->width, &t->ip) ||
	    cpu_load_sys(v, (uint32_t)(base + l->flags), l->width, &t->flags) ||
	    cpu_load_sys(v, (uint32_t)(base + l->ldt), 2, &t->ldt))
		return -1;
	for (unsigned i = 0; i < 8; i++)
		if (cpu_load_sys(v, (uint32_t)(base + l->gpr + i * l->width), l->width, &t->gpr[i]))
			return -1;
	for (unsigned i = 0; i < l->nseg; i++)
		if (cpu_load_sys(v, (uint32_t)(base + l->seg + i * l->width), 2, &t->sel[i]))
			return -1;
	return 0;
}

static int ts_fault(struct vcpu *v, uint64_t sel)
{
	return cpu_raise_err(v, VEC_TS, (uint32_t)sel & 0xfffc);
}

static int load_ldt(struct vcpu *v, uint16_t sel)
{
	uint64_t d;

	cpu_seg_null(&v->seg[LDTR], sel, 0);
	if (sel_null(sel))
		return 0;
	if (sel & 4)
		return ts_fault(v, sel);
	if (cpu_desc_read(v, sel, VEC_TS, 0, &d))
		return -1;
	if (desc_is_segment(d) || desc_type(d) != DT_LDT || !desc_present(d))
		return ts_fault(v, sel);
	cpu_seg_fill(&v->seg[LDTR], sel, d);
	return 0;
}

static int load_cs_ss(struct vcpu *v, const struct tss_image *t)
{
	uint16_t cs = (uint16_t)t->sel[CS], ss = (uint16_t)t->sel[SS];
	uint64_t d;
	bool ok;

	if (sel_null(cs))
		return ts_fault(v, cs);
	if (cpu_desc_read(v, cs, VEC_TS, 0, &d))
		return -1;
	ok = desc_is_conforming(d) ? desc_dpl(d) <= (cs & 3u) : desc_dpl(d) == (cs & 3u);
	if (!desc_is_code(d) || !ok)
		return ts_fault(v, cs);
	if (!desc_present(d))
		return cpu_raise_err(v, VEC_NP, cs & ~3u);
	if (cpu_desc_mark(v, cs, &d))
		return -1;
	cpu_install_cs(v, cs, d, cs & 3);
	if (cpu_check_ss(v, ss, v->cpl, VEC_TS, 0, &d) || cpu_desc_mark(v, ss, &d))
		return -1;
	cpu_seg_fill(&v->seg[SS], ss, d);
	return 0;
}

/* A data segment of the new task: faults of MOV to a segment register become #TS. */
static int load_data(struct vcpu *v, enum x86_seg seg, uint16_t sel)
{
	if (!cpu_load_seg(v, seg, sel))
		return 0;
	if (v->exc.vector == VEC_GP)
		v->exc.vector = VEC_TS;
	return -1;
}

static int load_segments(struct vcpu *v, const struct tss_image *t, unsigned nseg)
{
	static const uint8_t data[] = { ES, DS, FS, GS };

	if (load_ldt(v, (uint16_t)t->ldt))
		return -1;
	if (cpu_v86(v)) {
		cpu_set_cpl(v, 3);
		for (unsigned i = 0; i < 6; i++)
			cpu_seg_real(v, i, (uint16_t)t->sel[i]);
		cpu_update_mode(v);
		return 0;
	}
	if (load_cs_ss(v, t))
		return -1;
	for (unsigned i = 0; i < nitems(data); i++)
		if (load_data(v, data[i], data[i] < nseg ? (uint16_t)t->sel[data[i]] : 0))
			return -1;
	return 0;
}

/* Descriptor checks of the new TSS: busy for IRET, available otherwise; large enough. */
static int check_tss(struct vcpu *v, uint16_t sel, uint64_t d, enum task_reason why, unsigned ext)
{
	unsigned want = why == TASK_IRET ? DT_TSS16_BUSY : DT_TSS16;

	if (desc_is_segment(d) || (desc_type(d) & 7) != want || (sel & 4))
		return cpu_raise_err(v, why == TASK_IRET ? VEC_TS : VEC_GP, (sel & ~3u) | ext);
	if (!desc_present(d))
		return cpu_raise_err(v, VEC_NP, (sel & ~3u) | ext);
	if (desc_limit(d) + 1ull < tss_layout[desc_type(d) & 8 ? 1 : 0].size)
		return cpu_raise_err(v, VEC_TS, (sel & ~3u) | ext);
	return 0;
}

/* Registers of the new task; paging first, because its descriptors are read through it. */
static int become(struct vcpu *v, const struct tss_image *t, const struct tss_layout *l)
{
	if (l->width == 4 && (v->cr0 & CR0_PG) && t->cr3 != v->cr3) {
		v->cr3 = t->cr3;
		cpu_sync_mmu(v, false);
	}
	v->rip = t->ip;
	cpu_put_rflags(v, l->width == 4 ? t->flags : t->flags & 0xffff);
	for (unsigned i = 0; i < 8; i++)
		v->gpr[i] = l->width == 4 ? t->gpr[i] : t->gpr[i] | 0xffff0000;
	for (unsigned i = ES; i <= GS; i++)
		v->seg[i].sel = (uint16_t)t->sel[i];
	v->cr0 |= CR0_TS;
	v->dr7 &= ~0x155ull;     /* local breakpoints end with their task */
	cpu_sync_mmu(v, false);
	return load_segments(v, t, l->nseg);
}

int cpu_task_switch(struct vcpu *v, uint16_t sel, uint64_t desc, enum task_reason why, unsigned ext, bool has_err,
		    uint32_t err, uint64_t next_rip)
{
	const struct tss_layout *l = &tss_layout[desc_type(desc) & 8 ? 1 : 0];
	bool nested = why == TASK_CALL || why == TASK_GATE;
	uint16_t old = v->seg[TR].sel;
	uint64_t rflags = v->rflags;
	gva_t base = desc_base(desc);
	struct tss_image t;
	struct cpu_stack s;

	if (check_tss(v, sel, desc, why, ext))
		return -1;
	if (why == TASK_IRET)
		rflags &= ~(uint64_t)FL_NT;
	if (save_old(v, next_rip, rflags) || load_new(v, base, l, &t))
		return -1;
	if (!nested && set_busy(v, old, false))
		return -1;
	if (why != TASK_IRET && set_busy(v, sel, true))
		return -1;
	if (nested) {
		if (cpu_store_sys(v, (uint32_t)base, 2, old))
			return -1;
		t.flags |= FL_NT;
	}
	cpu_seg_fill(&v->seg[TR], sel, desc | DESC_BIT_BUSY);
	if (become(v, &t, l))
		return -1;
	if (has_err) {
		cpu_stack_current(v, &s);
		if (cpu_stack_push(&s, l->width, err))
			return -1;
		cpu_stack_commit(v, &s);
	}
	return v->rip > v->seg[CS].limit ? cpu_gp0(v) : 0;
}
