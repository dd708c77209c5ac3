/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Control, debug and extended control registers, TLB instructions, and I/O permission.
 *
 * Invariant: whenever CR0, CR3, CR4 or EFER change, the mmu has the new values before the next guest access, and v->mode
 * is that of the new state.
 * Locking: none; the vCPU's thread.
 * Spec: SDM vol. 3A 2.5 (control registers), 4.1 (paging modes), 9.8.5 (entering IA-32e mode), vol. 3B 17.2 (DR), vol. 2 INVPCID.
 */
#include "cpu/private.h"

#define CR0_VALID (CR0_PE | CR0_MP | CR0_EM | CR0_TS | CR0_ET | CR0_NE | CR0_WP | CR0_AM | CR0_NW | CR0_CD | CR0_PG)
#define CR4_VALID                                                                                                      \
	(CR4_TSD | CR4_DE | CR4_PSE | CR4_PAE | CR4_MCE | CR4_PGE | CR4_PCE | CR4_OSFXSR | CR4_OSXMMEXCPT | CR4_UMIP |  \
	 CR4_FSGSBASE | CR4_PCIDE | CR4_OSXSAVE | CR4_SMEP)
#define CR3_NOFLUSH BIT(63)
#define PHYS_RESERVED (~0ull << X86_PHYS_BITS)

void cpu_sync_mmu(struct vcpu *v, bool noflush)
{
	struct mmu_regs regs = v->mmu.regs;

	regs.cr0 = v->cr0;
	regs.cr3 = v->cr3;
	regs.cr4 = v->cr4;
	regs.efer = v->efer;
	mmu_set_regs(&v->mmu, &regs, noflush);
}

static bool pae_paging(uint64_t cr0, uint64_t cr4, uint64_t efer)
{
	return (cr0 & CR0_PG) && (cr4 & CR4_PAE) && !(efer & (EFER_LMA | EFER_LME));
}

/* Loads the four PDPTEs that cr3 names; #GP(0) on reserved bits in a present one. */
static int load_pdptes(struct vcpu *v, uint64_t cr3)
{
	uint64_t pdpte[4];

	vcpu_fpu_park(v);
	if (mem_read(v->mem, cr3 & 0xffffffe0, pdpte, sizeof(pdpte)))
		return cpu_gp0(v);
	for (unsigned i = 0; i < 4; i++)
		if ((pdpte[i] & PTE_P) && (pdpte[i] & (PHYS_RESERVED | 0x1e6)))
			return cpu_gp0(v);
	for (unsigned i = 0; i < 4; i++)
		v->mmu.regs.pdpte[i] = pdpte[i];
	return 0;
}

/* LMA for a CR0 about to be written; #GP(0) if the transition is not allowed. */
static int paging_transition(struct vcpu *v, uint64_t cr0, uint64_t *efer)
{
	bool was = v->cr0 & CR0_PG, is = cr0 & CR0_PG;

	*efer = v->efer;
	if (!was && is && (v->efer & EFER_LME)) {
		if (!(v->cr4 & CR4_PAE) || (v->seg[CS].attr & SEG_L) || !(v->seg[TR].attr & 8))
			return cpu_gp0(v);
		*efer |= EFER_LMA;
	}
	if (was && !is) {
		if (cpu_code64(v) || (v->cr4 & CR4_PCIDE))
			return cpu_gp0(v);
		*efer &= ~EFER_LMA;
	}
	return 0;
}

static int write_cr0(struct vcpu *v, uint64_t val)
{
	const uint64_t reload = CR0_PG | CR0_CD | CR0_NW;
	uint64_t efer;

	if (val >> 32 || ((val & CR0_PG) && !(val & CR0_PE)) || ((val & CR0_NW) && !(val & CR0_CD)))
		return cpu_gp0(v);
	val = (val & CR0_VALID) | CR0_ET;
	if (val == v->cr0)
		return 0;
	if (paging_transition(v, val, &efer))
		return -1;
	if (((val ^ v->cr0) & reload) && pae_paging(val, v->cr4, efer) && load_pdptes(v, v->cr3))
		return -1;
	if ((val ^ v->cr0) & CR0_PE)
		v->cpl = 0;
	v->cr0 = val;
	v->efer = efer;
	cpu_update_mode(v);
	cpu_sync_mmu(v, false);
	return 0;
}

static int write_cr3(struct vcpu *v, uint64_t val)
{
	bool noflush = false;

	if (likely(cpu_long(v))) {
		if (v->cr4 & CR4_PCIDE) {
			noflush = val & CR3_NOFLUSH;
			val &= ~CR3_NOFLUSH;
		}
		if (unlikely(val & PHYS_RESERVED))
			return cpu_gp0(v);
	} else {
		val &= 0xffffffff;
		if (pae_paging(v->cr0, v->cr4, v->efer) && load_pdptes(v, val))
			return -1;
	}
	v->cr3 = val;
	cpu_sync_mmu(v, noflush);
	return 0;
}

static int write_cr4(struct vcpu *v, uint64_t val)
{
	const uint64_t reload = CR4_PAE | CR4_PGE | CR4_PSE | CR4_SMEP;
	uint64_t changed = val ^ v->cr4;

	if (val & ~CR4_VALID)
		return cpu_gp0(v);
	if (cpu_long(v) && !(val & CR4_PAE))
		return cpu_gp0(v);
	if ((changed & val & CR4_PCIDE) && (!cpu_long(v) || (v->cr3 & 0xfff)))
		return cpu_gp0(v);
	if ((changed & reload) && pae_paging(v->cr0, val, v->efer) && load_pdptes(v, v->cr3))
		return -1;
	v->cr4 = val;
	cpu_sync_mmu(v, false);
	return 0;
}

int cpu_read_cr(struct vcpu *v, unsigned cr, uint64_t *val)
{
	bool was;

	switch (cr) {
	case 0: *val = v->cr0; return 0;
	case 2: *val = v->cr2; return 0;
	case 3: *val = v->cr3; return 0;
	case 4: *val = v->cr4; return 0;
	case 8:
		was = cpu_leave(v);
		*val = v->ops->cr8(v->vm, v->index, false, 0);
		cpu_return(v, was);
		return 0;
	default: return cpu_ud(v);
	}
}

int cpu_write_cr(struct vcpu *v, unsigned cr, uint64_t val)
{
	bool was;

	if (!cpu_code64(v))
		val &= 0xffffffff;
	switch (cr) {
	case 0: return write_cr0(v, val);
	case 2: v->cr2 = val; return 0;
	case 3: return write_cr3(v, val);
	case 4: return write_cr4(v, val);
	case 8:
		if (val > 15)
			return cpu_gp0(v);
		was = cpu_leave(v);
		v->ops->cr8(v->vm, v->index, true, val);
		cpu_return(v, was);
		return 0;
	default: return cpu_ud(v);
	}
}

int cpu_lmsw(struct vcpu *v, uint16_t val)
{
	/* LMSW can set PE but not clear it. */
	return write_cr0(v, (v->cr0 & ~0xeull) | (val & 0xf));
}

int cpu_clts(struct vcpu *v)
{
	v->cr0 &= ~CR0_TS;           /* paging does not depend on it */
	v->mmu.regs.cr0 = v->cr0;
	return 0;
}

/* --- debug registers -------------------------------------------------------------------------------------------- */

/* DR4 and DR5 name DR6 and DR7 unless CR4.DE is set; DR7.GD turns every access into #DB. */
static int debug_index(struct vcpu *v, unsigned *dr)
{
	if (*dr > 7)
		return cpu_ud(v);
	if (*dr == 4 || *dr == 5) {
		if (v->cr4 & CR4_DE)
			return cpu_ud(v);
		*dr += 2;
	}
	return v->dr7 & DR7_GD ? cpu_raise_db(v, DR6_BD) : 0;
}

int cpu_read_dr(struct vcpu *v, unsigned dr, uint64_t *val)
{
	if (debug_index(v, &dr))
		return -1;
	*val = dr == 6 ? v->dr6 : dr == 7 ? v->dr7 : v->dr[dr];
	return 0;
}

int cpu_write_dr(struct vcpu *v, unsigned dr, uint64_t val)
{
	if (debug_index(v, &dr))
		return -1;
	if (!cpu_code64(v))
		val &= 0xffffffff;
	if (dr >= 6 && val >> 32)
		return cpu_gp0(v);
	if (dr == 6)
		v->dr6 = DR6_FIXED | (val & (0xf | DR6_BD | DR6_BS | DR6_BT));
	else if (dr == 7)
		v->dr7 = DR7_FIXED | (val & 0xffff23ff);
	else
		v->dr[dr] = val;
	return 0;
}

/* --- TLB -------------------------------------------------------------------------------------------------------- */

int cpu_invlpg(struct vcpu *v, gva_t lin)
{
	if (v->cpl && !cpu_real(v))
		return cpu_gp0(v);
	if (x86_canonical(lin))
		mmu_invlpg(&v->mmu, lin);
	return 0;
}

int cpu_invpcid(struct vcpu *v, uint64_t type, uint64_t pcid, gva_t lin)
{
	if (v->cpl || cpu_v86(v) || type > 3)
		return cpu_gp0(v);
	if (type <= 1 && (pcid >> 12 || (pcid && !(v->cr4 & CR4_PCIDE))))
		return cpu_gp0(v);
	switch (type) {
	case 0:
		if (!x86_canonical(lin))
			return cpu_gp0(v);
		mmu_invlpg_pcid(&v->mmu, (uint16_t)pcid, lin);
		break;
	case 1: mmu_flush_pcid(&v->mmu, (uint16_t)pcid); break;
	case 2: mmu_flush_all(&v->mmu); break;
	default: mmu_flush_nonglobal(&v->mmu); break;
	}
	return 0;
}

/* --- XCR0 ------------------------------------------------------------------------------------------------------- */

int cpu_xsetbv(struct vcpu *v, uint32_t idx, uint64_t val)
{
	if (!(v->cr4 & CR4_OSXSAVE))
		return cpu_ud(v);
	/* x87 always; AVX only with SSE; the three of AVX-512 together and with AVX (SDM vol. 1 13.3). */
	if (v->cpl || idx || (val & ~v->fpu.model) || !(val & 1) || (val & 6) == 4 ||
	    ((val & VCPU_XCR0_AVX512) && (val & (VCPU_XCR0_AVX512 | 6)) != (VCPU_XCR0_AVX512 | 6)))
		return cpu_gp0(v);
	/* The host's registers hold the components enabled until now. */
	vcpu_fpu_park(v);
	v->fpu.xcr0 = val;
	return 0;
}

/* --- I/O -------------------------------------------------------------------------------------------------------- */

#define TSS_IOBASE 102

int cpu_io_check(struct vcpu *v, uint16_t port, unsigned size)
{
	const struct vcpu_seg *tr = &v->seg[TR];
	uint64_t base, bits;

	if (cpu_real(v) || (v->cpl <= cpu_iopl(v) && !cpu_v86(v)))
		return 0;
	if (tr->unusable || !(tr->attr & 8) || tr->limit < TSS_IOBASE + 1)
		return cpu_gp0(v);
	if (cpu_load_sys(v, tr->base + TSS_IOBASE, 2, &base))
		return -1;
	/* The bitmap ends with a byte of ones, so two bytes can be read for any port that it covers. */
	base += port / 8;
	if (base + 1 > tr->limit)
		return cpu_gp0(v);
	if (cpu_load_sys(v, tr->base + base, 2, &bits))
		return -1;
	return (bits >> (port & 7)) & ((1u << size) - 1) ? cpu_gp0(v) : 0;
}

uint64_t cpu_pio_read(struct vcpu *v, uint16_t port, unsigned size)
{
	bool was = cpu_leave(v);
	uint64_t val;

	v->stats.pio++;
	val = v->ops->pio_read(v->vm, port, size);
	cpu_return(v, was);
	return val;
}

void cpu_pio_write(struct vcpu *v, uint16_t port, unsigned size, uint64_t val)
{
	bool was = cpu_leave(v);

	v->stats.pio++;
	v->ops->pio_write(v->vm, port, size, val);
	cpu_return(v, was);
}
