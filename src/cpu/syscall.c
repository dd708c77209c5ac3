/* SPDX-License-Identifier: Apache-2.0 */
/*
 * SYSCALL, SYSRET, SYSENTER, SYSEXIT, SWAPGS: the entry instructions every system call of the guest runs.
 *
 * Invariant: flat segments are installed without reading descriptors, as the manuals say. Where vendors differ the vendor
 * in CPUID decides: AMD allows SYSCALL in compatibility mode and has no SYSENTER in IA-32e mode; Intel the reverse.
 * Locking: none; the vCPU's thread.
 * Spec: SDM vol. 2 SYSCALL, SYSRET, SYSENTER, SYSEXIT, SWAPGS; APM vol. 3 the same.
 */
#include "cpu/private.h"

static int syscall_legacy(struct vcpu *v, uint64_t next_rip)
{
	uint16_t cs = (uint16_t)(v->msr_star >> 32) & 0xfffc;

	if (!cpu_vendor_amd(v) || cpu_real(v))
		return cpu_ud(v);
	v->gpr[RCX] = next_rip & 0xffffffff;
	v->rip = v->msr_star & 0xffffffff;
	v->rflags &= ~(uint64_t)(FL_VM | FL_IF | FL_RF);
	cpu_install_flat(v, cs, (uint16_t)(cs + 8), 0, false);
	return 0;
}

int cpu_syscall(struct vcpu *v, uint64_t next_rip)
{
	uint16_t cs = (uint16_t)(v->msr_star >> 32) & 0xfffc;

	if (unlikely(!(v->efer & EFER_SCE)))
		return cpu_ud(v);
	if (unlikely(!cpu_long(v)))
		return syscall_legacy(v, next_rip);
	if (likely(cpu_code64(v)))
		v->rip = v->msr_lstar;
	else if (cpu_vendor_amd(v))
		v->rip = v->msr_cstar;
	else
		return cpu_ud(v);
	v->gpr[RCX] = next_rip;
	v->gpr[R11] = v->rflags & ~(uint64_t)FL_RF;
	v->rflags = (v->rflags & ~(v->msr_fmask | FL_RF)) | FL_FIXED;
	cpu_install_flat(v, cs, (uint16_t)(cs + 8), 0, true);
	return 0;
}

/* SYSRET outside IA-32e mode (AMD only): ECX is the target, only IF of the flags is set. */
static int sysret_legacy(struct vcpu *v)
{
	uint16_t base = (uint16_t)(v->msr_star >> 48);

	if (!cpu_vendor_amd(v) || cpu_real(v))
		return cpu_ud(v);
	if (v->cpl)
		return cpu_gp0(v);
	v->rip = v->gpr[RCX] & 0xffffffff;
	cpu_put_rflags(v, v->rflags | FL_IF);
	cpu_install_flat(v, base | 3, (uint16_t)(base + 8) | 3, 3, false);
	return 0;
}

int cpu_sysret(struct vcpu *v, unsigned opsize)
{
	uint16_t base = (uint16_t)(v->msr_star >> 48);
	uint64_t rip = v->gpr[RCX];

	if (unlikely(!(v->efer & EFER_SCE)))
		return cpu_ud(v);
	if (unlikely(!cpu_code64(v))) {
		/* AMD executes it in compatibility mode too; Intel requires 64-bit mode. */
		if (!cpu_long(v))
			return sysret_legacy(v);
		if (!cpu_vendor_amd(v))
			return cpu_ud(v);
		opsize = 4;
	}
	if (unlikely(v->cpl))
		return cpu_gp0(v);
	if (opsize == 8 && unlikely(!x86_canonical(rip)) && !cpu_vendor_amd(v))
		return cpu_gp0(v);          /* AMD returns first and faults on the fetch at CPL 3 */
	cpu_put_rflags(v, v->gpr[R11] & 0x3c7fd7);    /* neither RF nor VM */
	if (likely(opsize == 8)) {
		v->rip = rip;
		cpu_install_flat(v, (uint16_t)(base + 16) | 3, (uint16_t)(base + 8) | 3, 3, true);
	} else {
		v->rip = rip & 0xffffffff;
		cpu_install_flat(v, base | 3, (uint16_t)(base + 8) | 3, 3, false);
	}
	return 0;
}

int cpu_sysenter(struct vcpu *v)
{
	uint16_t cs = (uint16_t)v->msr_sysenter_cs & 0xfffc;
	bool lm = cpu_long(v);

	if (lm && cpu_vendor_amd(v))
		return cpu_ud(v);
	if (cpu_real(v) || sel_null(cs))
		return cpu_gp0(v);
	v->rflags &= ~(uint64_t)(FL_VM | FL_IF | FL_RF);
	v->gpr[RSP] = lm ? v->msr_sysenter_esp : v->msr_sysenter_esp & 0xffffffff;
	v->rip = lm ? v->msr_sysenter_eip : v->msr_sysenter_eip & 0xffffffff;
	cpu_install_flat(v, cs, (uint16_t)(cs + 8), 0, lm);
	return 0;
}

int cpu_sysexit(struct vcpu *v, unsigned opsize)
{
	uint16_t cs = (uint16_t)v->msr_sysenter_cs & 0xfffc;
	uint64_t rip = v->gpr[RDX], rsp = v->gpr[RCX];

	if (cpu_long(v) && cpu_vendor_amd(v))
		return cpu_ud(v);
	if (cpu_real(v) || v->cpl || sel_null(cs))
		return cpu_gp0(v);
	if (opsize == 8) {
		if (!x86_canonical(rip) || !x86_canonical(rsp))
			return cpu_gp0(v);
		v->rip = rip;
		v->gpr[RSP] = rsp;
		cpu_install_flat(v, (uint16_t)(cs + 32) | 3, (uint16_t)(cs + 40) | 3, 3, true);
		return 0;
	}
	v->rip = rip & 0xffffffff;
	v->gpr[RSP] = rsp & 0xffffffff;
	cpu_install_flat(v, (uint16_t)(cs + 16) | 3, (uint16_t)(cs + 24) | 3, 3, false);
	return 0;
}

int cpu_swapgs(struct vcpu *v)
{
	uint64_t base = v->seg[GS].base;

	if (unlikely(!cpu_code64(v)))
		return cpu_ud(v);
	if (unlikely(v->cpl))
		return cpu_gp0(v);
	v->seg[GS].base = v->msr_kernel_gs_base;
	v->msr_kernel_gs_base = base;
	return 0;
}
