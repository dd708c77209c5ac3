/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Segmentation: address checks, descriptor loads, and the selector-testing instructions.
 *
 * Invariant: a hidden part is only ever filled from a descriptor that passed its checks; v->mode and v->cpl follow CS.
 * Locking: none; the vCPU's thread.
 * Spec: SDM vol. 3A chapters 3 and 5; vol. 2 MOV, LLDT, LTR, LAR, LSL, VERR.
 */
#include "cpu/private.h"

int cpu_desc_read(struct vcpu *v, uint16_t sel, enum x86_vector vec, unsigned ext, uint64_t *d)
{
	gva_t lin;

	if (!cpu_desc_addr(v, sel, 8, &lin))
		return cpu_raise_err(v, vec, (sel & ~3u) | ext);
	return cpu_sys_u64(v, lin, d);
}

int cpu_desc_mark(struct vcpu *v, uint16_t sel, uint64_t *d)
{
	gva_t lin;

	if (*d & DESC_BIT_ACCESSED)
		return 0;
	if (!cpu_desc_addr(v, sel, 8, &lin))
		return cpu_raise_err(v, VEC_GP, sel & ~3u);
	if (cpu_change_byte_sys(v, lin + 5, (uint8_t)(DESC_BIT_ACCESSED >> 40), 0))
		return -1;
	*d |= DESC_BIT_ACCESSED;
	return 0;
}

void cpu_seg_fill(struct vcpu_seg *s, uint16_t sel, uint64_t d)
{
	s->sel = sel;
	s->attr = desc_attr(d);
	s->limit = desc_limit(d);
	s->base = desc_base(d);
	s->unusable = false;
}

void cpu_seg_null(struct vcpu_seg *s, uint16_t sel, unsigned dpl)
{
	s->sel = sel;
	s->attr = (uint16_t)(dpl << SEG_DPL_SHIFT);
	s->limit = 0;
	s->base = 0;
	s->unusable = true;
}

void cpu_seg_real(struct vcpu *v, enum x86_seg seg, uint16_t sel)
{
	struct vcpu_seg *s = &v->seg[seg];

	s->sel = sel;
	s->base = (uint64_t)sel << 4;
	s->unusable = false;
	if (cpu_v86(v)) {
		s->limit = 0xffff;
		s->attr = 0x00f3;
	} else if (seg == CS) {
		s->attr = 0x009b;   /* limits survive in real mode ("unreal" mode), rights become read-write */
	} else {
		s->attr = (uint16_t)((s->attr & SEG_DB) | 0x0093);
	}
}

void cpu_update_mode(struct vcpu *v)
{
	uint16_t attr = v->seg[CS].attr;

	if (cpu_real(v) || cpu_v86(v))
		v->mode = INSN_MODE_REAL;
	else if (cpu_long(v) && (attr & SEG_L))
		v->mode = INSN_MODE_64;
	else
		v->mode = attr & SEG_DB ? INSN_MODE_32 : INSN_MODE_16;
}

void cpu_install_cs(struct vcpu *v, uint16_t sel, uint64_t d, unsigned cpl)
{
	cpu_seg_fill(&v->seg[CS], (uint16_t)((sel & ~3u) | cpl), d);
	cpu_set_cpl(v, cpl);
	cpu_update_mode(v);
}

void cpu_install_flat(struct vcpu *v, uint16_t cs_sel, uint16_t ss_sel, unsigned cpl, bool code64)
{
	uint16_t dpl = (uint16_t)(cpl << SEG_DPL_SHIFT);

	v->seg[CS] = (struct vcpu_seg){ .sel = cs_sel, .limit = 0xffffffff,
		.attr = (uint16_t)(SEG_G | (code64 ? SEG_L : SEG_DB) | SEG_P | SEG_S | 0xb | dpl) };
	v->seg[SS] = (struct vcpu_seg){ .sel = ss_sel, .limit = 0xffffffff,
		.attr = (uint16_t)(SEG_G | SEG_DB | SEG_P | SEG_S | 0x3 | dpl) };
	cpu_set_cpl(v, cpl);
	if (likely(code64 && cpu_long(v)))
		v->mode = INSN_MODE_64;
	else
		cpu_update_mode(v);
}

void cpu_drop_inner_segs(struct vcpu *v)
{
	static const uint8_t data[4] = { ES, DS, FS, GS };

	for (unsigned i = 0; i < nitems(data); i++) {
		struct vcpu_seg *s = &v->seg[data[i]];
		bool conforming = (s->attr & 0xc) == 0xc;

		if (!s->unusable && !conforming && ((s->attr >> SEG_DPL_SHIFT) & 3) < v->cpl)
			cpu_seg_null(s, 0, 0);
	}
}

/* --- data accesses ---------------------------------------------------------------------------------------------- */

static int seg_violation(struct vcpu *v, enum x86_seg seg)
{
	return cpu_raise_err(v, seg == SS ? VEC_SS : VEC_GP, 0);
}

static bool seg_type_allows(const struct vcpu_seg *s, bool write)
{
	if (write)
		return (s->attr & 0xa) == 0x2;          /* data, writable */
	return (s->attr & 0xa) != 0x8;                  /* anything but execute-only code */
}

static bool seg_limit_allows(const struct vcpu_seg *s, uint32_t off, unsigned len)
{
	uint64_t last = (uint64_t)off + len - 1;

	if ((s->attr & 0xc) == 0x4)                     /* expand-down data */
		return off > s->limit && last <= (s->attr & SEG_DB ? 0xffffffffu : 0xffffu);
	return last <= s->limit;
}

int cpu_linear(struct vcpu *v, enum x86_seg seg, uint64_t off, unsigned len, bool write, gva_t *lin)
{
	const struct vcpu_seg *s = &v->seg[seg];

	if (likely(cpu_code64(v))) {
		uint64_t a = off;

		if (seg == FS || seg == GS)
			a += s->base;
		*lin = a;
		if (unlikely(!x86_canonical(a) || !x86_canonical(a + len - 1)))
			return seg_violation(v, seg);
		return 0;
	}
	if (unlikely(s->unusable))
		return seg_violation(v, seg);
	if (!cpu_real(v) && !cpu_v86(v) && !seg_type_allows(s, write))
		return seg_violation(v, seg);
	if (!seg_limit_allows(s, (uint32_t)off, len))
		return seg_violation(v, seg);
	*lin = (uint32_t)(s->base + off);
	return 0;
}

/* --- loading ---------------------------------------------------------------------------------------------------- */

int cpu_check_ss(struct vcpu *v, uint16_t sel, unsigned cpl, enum x86_vector vec, unsigned ext, uint64_t *d)
{
	uint32_t err = (sel & ~3u) | ext;

	if (sel_null(sel))
		return cpu_raise_err(v, vec, ext);
	if (cpu_desc_read(v, sel, vec, ext, d))
		return -1;
	if ((sel & 3) != cpl || !desc_is_writable_data(*d) || desc_dpl(*d) != cpl)
		return cpu_raise_err(v, vec, err);
	if (!desc_present(*d))
		return cpu_raise_err(v, VEC_SS, err);
	return 0;
}

static int load_ss(struct vcpu *v, uint16_t sel)
{
	uint64_t d;

	if (sel_null(sel)) {
		if (!cpu_code64(v) || v->cpl == 3 || (sel & 3) != v->cpl)
			return cpu_gp0(v);
		cpu_seg_null(&v->seg[SS], sel, v->cpl);
		return 0;
	}
	if (cpu_check_ss(v, sel, v->cpl, VEC_GP, 0, &d) || cpu_desc_mark(v, sel, &d))
		return -1;
	cpu_seg_fill(&v->seg[SS], sel, d);
	return 0;
}

int cpu_load_seg(struct vcpu *v, enum x86_seg seg, uint16_t sel)
{
	unsigned rpl = sel & 3;
	uint64_t d;

	if (unlikely(cpu_real(v) || cpu_v86(v))) {
		cpu_seg_real(v, seg, sel);
		return 0;
	}
	if (seg == SS)
		return load_ss(v, sel);
	if (sel_null(sel)) {
		cpu_seg_null(&v->seg[seg], sel, 0);
		return 0;
	}
	if (cpu_desc_read(v, sel, VEC_GP, 0, &d))
		return -1;
	/* Data, or readable code. */
	if (!desc_is_segment(d) || (desc_type(d) & 0xa) == 0x8)
		return cpu_raise_err(v, VEC_GP, sel & ~3u);
	if ((desc_type(d) & 0xc) != 0xc && (desc_dpl(d) < rpl || desc_dpl(d) < v->cpl))
		return cpu_raise_err(v, VEC_GP, sel & ~3u);
	if (!desc_present(d))
		return cpu_raise_err(v, VEC_NP, sel & ~3u);
	if (cpu_desc_mark(v, sel, &d))
		return -1;
	cpu_seg_fill(&v->seg[seg], sel, d);
	return 0;
}

/* Reads a system descriptor (LDT, TSS) that must be in the GDT; the upper half too in long mode. */
static int read_system(struct vcpu *v, uint16_t sel, uint64_t *d, uint64_t *base, gva_t *lin)
{
	uint32_t err = sel & ~3u;
	uint64_t hi;

	if ((sel & 4) || !cpu_desc_addr(v, sel, cpu_long(v) ? 16 : 8, lin))
		return cpu_raise_err(v, VEC_GP, err);
	if (cpu_sys_u64(v, *lin, d))
		return -1;
	*base = desc_base(*d);
	if (!cpu_long(v))
		return 0;
	if (cpu_sys_u64(v, *lin + 8, &hi))
		return -1;
	*base |= hi << 32;
	if (((hi >> 40) & 0x1f) || !x86_canonical(*base))
		return cpu_raise_err(v, VEC_GP, err);
	return 0;
}

int cpu_lldt(struct vcpu *v, uint16_t sel)
{
	uint64_t d, base;
	gva_t lin;

	if (sel_null(sel)) {
		cpu_seg_null(&v->seg[LDTR], sel, 0);
		return 0;
	}
	if (read_system(v, sel, &d, &base, &lin))
		return -1;
	if (desc_is_segment(d) || desc_type(d) != DT_LDT)
		return cpu_raise_err(v, VEC_GP, sel & ~3u);
	if (!desc_present(d))
		return cpu_raise_err(v, VEC_NP, sel & ~3u);
	cpu_seg_fill(&v->seg[LDTR], sel, d);
	v->seg[LDTR].base = base;
	return 0;
}

int cpu_ltr(struct vcpu *v, uint16_t sel)
{
	uint64_t d, base;
	gva_t lin;

	if (sel_null(sel))
		return cpu_gp0(v);
	if (read_system(v, sel, &d, &base, &lin))
		return -1;
	if (desc_is_segment(d) || (desc_type(d) != DT_TSS32 && (cpu_long(v) || desc_type(d) != DT_TSS16)))
		return cpu_raise_err(v, VEC_GP, sel & ~3u);
	if (!desc_present(d))
		return cpu_raise_err(v, VEC_NP, sel & ~3u);
	d |= DESC_BIT_BUSY;
	if (cpu_change_byte_sys(v, lin + 5, (uint8_t)(DESC_BIT_BUSY >> 40), 0))
		return -1;
	cpu_seg_fill(&v->seg[TR], sel, d);
	v->seg[TR].base = base;
	return 0;
}

/* --- LAR, LSL, VERR, VERW ---------------------------------------------------------------------------------------- */

/* *ok = the descriptor exists and is visible at this CPL and RPL. `types` = system types allowed, as a bit set. */
static int read_visible(struct vcpu *v, uint16_t sel, uint32_t types, bool *ok, uint64_t *d)
{
	gva_t lin;

	*ok = false;
	if (sel_null(sel) || !cpu_desc_addr(v, sel, 8, &lin))
		return 0;
	if (cpu_sys_u64(v, lin, d))
		return -1;
	if (!desc_is_segment(*d)) {
		if (!(types >> desc_type(*d) & 1))
			return 0;
		/* System descriptors are 16 bytes in long mode; the type field of the upper half must be zero. */
		if (cpu_long(v) && !cpu_desc_addr(v, sel, 16, &lin))
			return 0;
	} else if ((desc_type(*d) & 0xc) == 0xc) {
		*ok = true;
		return 0;
	}
	*ok = desc_dpl(*d) >= v->cpl && desc_dpl(*d) >= (sel & 3u);
	return 0;
}

/* Types LAR and LSL accept: 1 2 3 4 5 9 11 12 and 1 2 3 9 11; in long mode 2 9 11 12 and 2 9 11. */
#define LAR_TYPES 0x1a3eu
#define LAR_TYPES_LONG 0x1a04u
#define LSL_TYPES 0x0a0eu
#define LSL_TYPES_LONG 0x0a04u

int cpu_lar(struct vcpu *v, uint16_t sel, bool *ok, uint32_t *rights)
{
	uint64_t d = 0;

	if (read_visible(v, sel, cpu_long(v) ? LAR_TYPES_LONG : LAR_TYPES, ok, &d))
		return -1;
	*rights = (uint32_t)(d >> 32) & 0x00f0ff00;
	return 0;
}

int cpu_lsl(struct vcpu *v, uint16_t sel, bool *ok, uint32_t *limit)
{
	uint64_t d = 0;

	if (read_visible(v, sel, cpu_long(v) ? LSL_TYPES_LONG : LSL_TYPES, ok, &d))
		return -1;
	*limit = desc_limit(d);
	return 0;
}

int cpu_verify(struct vcpu *v, uint16_t sel, bool write, bool *ok)
{
	uint64_t d = 0;

	if (read_visible(v, sel, 0, ok, &d))
		return -1;
	if (!*ok)
		return 0;
	*ok = write ? desc_is_writable_data(d) : (desc_type(d) & 0xa) != 0x8;
	return 0;
}
