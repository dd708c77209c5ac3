/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Writing RFLAGS: POPF, IRET, CLI, STI.
 *
 * Invariant: every write that may set IF goes through cpu_put_rflags(), which re-posts an interrupt that waited for it.
 * Locking: none; the vCPU's thread.
 * Spec: SDM vol. 2 POPF, CLI, STI; vol. 3A 2.3.
 */
#include "cpu/private.h"

#define FL_WRITABLE (FL_ARITH | FL_TF | FL_IF | FL_DF | FL_IOPL | FL_NT | FL_RF | FL_VM | FL_AC | FL_VIF | FL_VIP | FL_ID)

void cpu_put_rflags(struct vcpu *v, uint64_t rflags)
{
	v->rflags = (rflags & FL_WRITABLE) | FL_FIXED;
	if (unlikely(v->irq_waiting) && (rflags & FL_IF))
		cpu_irq_window(v);
}

void cpu_set_rflags(struct vcpu *v, uint64_t val, uint64_t mask)
{
	if (v->cpl > 0)
		mask &= ~(uint64_t)(FL_IOPL | FL_VIF | FL_VIP);
	if (v->cpl > cpu_iopl(v))
		mask &= ~(uint64_t)FL_IF;
	cpu_put_rflags(v, (v->rflags & ~mask) | (val & mask));
}

int cpu_popf(struct vcpu *v, uint64_t val, unsigned opsize)
{
	uint64_t mask = FL_ARITH | FL_TF | FL_IF | FL_DF | FL_IOPL | FL_NT | FL_AC | FL_ID | FL_RF;

	if (cpu_v86(v) && cpu_iopl(v) < 3)
		return cpu_gp0(v);
	if (opsize == 2)
		mask &= 0xffff;
	if (cpu_v86(v))
		mask &= ~(uint64_t)FL_IOPL;
	cpu_set_rflags(v, val & ~(uint64_t)FL_RF, mask);     /* POPF clears RF */
	return 0;
}

int cpu_cli(struct vcpu *v)
{
	if (!cpu_real(v) && v->cpl > cpu_iopl(v))
		return cpu_gp0(v);
	v->rflags &= ~(uint64_t)FL_IF;
	return 0;
}

int cpu_sti(struct vcpu *v)
{
	if (!cpu_real(v) && v->cpl > cpu_iopl(v))
		return cpu_gp0(v);
	if (!(v->rflags & FL_IF)) {
		v->inhibit_irq = true;
		cpu_put_rflags(v, v->rflags | FL_IF);
	}
	return 0;
}
