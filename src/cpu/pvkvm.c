/* SPDX-License-Identifier: Apache-2.0 */
/*
 * KVM's paravirtual interface between vCPUs: hypercalls, steal time, preempted hint with deferred TLB flushes, PAUSE.
 *
 * Invariant: the preempted byte of the steal-time page is set only while this vCPU is halted; before the guest goes on it is taken back
 * with an exchange, and if another vCPU has asked for a TLB flush in it instead of sending an interrupt, the tables are emptied.
 * Locking: none; the vCPU's thread. Guests of other vCPUs change the preempted byte by compare-exchange.
 * Spec: Linux Documentation/virt/kvm/x86/hypercalls.rst, msr.rst (MSR_KVM_STEAL_TIME), cpuid.rst.
 *
 *   steal-time page (64 bytes, 64-byte aligned)
 *   0 steal u64 (ns)   8 version u32 (odd while changing)   12 flags u32   16 preempted u8 (1 = not running, 2 = flush asked for)
 */
#include <sys/syscall.h>

#include "cpu/private.h"

#define STEAL_ENABLE 1ull
#define STEAL_RESERVED 0x3eull
#define STEAL_PREEMPTED 16
#define PREEMPTED 1u
#define PREEMPTED_FLUSH 2u

/* Hypercall numbers and errors. */
#define HC_VAPIC_POLL_IRQ 1
#define HC_KICK_CPU 5
#define HC_SEND_IPI 10
#define HC_ENOSYS (-1000)
#define HC_EPERM (-1)
#define HC_EINVAL (-22)

/* From so many PAUSEs on a vCPU lets others run: it waits for one that may have no processor. */
#define PAUSES_PER_YIELD 256

/* --- steal time --------------------------------------------------------------------------------------------------- */

static uint8_t *steal_page(struct vcpu *v)
{
	gpa_t gpa = v->kvm_steal_time & ~0x3full;
	uint8_t *f;

	if (likely(!(v->kvm_steal_time & STEAL_ENABLE)))
		return NULL;
	f = mem_frame(v->mem, gpa >> PAGE_SHIFT, true);
	return f ? f + (gpa & PAGE_MASK) : NULL;
}

static void steal_written(struct vcpu *v, unsigned off, unsigned len)
{
	mem_written(v->mem, (v->kvm_steal_time & ~0x3full) + off, len);
}

/* The machine around is asked, so the vCPU must not be active. */
static void steal_update(struct vcpu *v, uint8_t *p)
{
	uint32_t *version = (uint32_t *)(void *)(p + 8);

	if (!v->ops->steal_ns)
		return;
	__atomic_store_n(version, (*version | 1) + (*version & 1 ? 2 : 0), __ATOMIC_SEQ_CST);
	__atomic_store_n((uint64_t *)(void *)p, v->ops->steal_ns(v->vm), __ATOMIC_SEQ_CST);
	__atomic_store_n(version, *version + 1, __ATOMIC_SEQ_CST);
	steal_written(v, 0, 12);
}

void cpu_pv_tick(struct vcpu *v)
{
	uint64_t now = __builtin_ia32_rdtsc();
	uint8_t *p;

	/* A millisecond apart: the machine around makes a system call for it. */
	if (likely(now - v->steal_tsc < v->tsc_khz))
		return;
	p = steal_page(v);
	v->steal_tsc = now;
	if (p)
		steal_update(v, p);
}

void cpu_pv_halt(struct vcpu *v)
{
	uint8_t *p = steal_page(v);

	if (!p)
		return;
	__atomic_store_n(p + STEAL_PREEMPTED, PREEMPTED, __ATOMIC_SEQ_CST);
	steal_written(v, STEAL_PREEMPTED, 1);
}

void cpu_pv_wake(struct vcpu *v)
{
	uint8_t *p = steal_page(v);

	if (!p)
		return;
	if (__atomic_exchange_n(p + STEAL_PREEMPTED, 0, __ATOMIC_SEQ_CST) & PREEMPTED_FLUSH) {
		v->stats.pv_flushes++;
		mmu_flush_all(&v->mmu);
	}
	steal_update(v, p);
}

int cpu_pv_wrmsr_steal(struct vcpu *v, uint64_t val)
{
	uint8_t *p;
	bool was;

	if (val & STEAL_RESERVED || (val >> X86_PHYS_BITS))
		return cpu_gp0(v);
	v->kvm_steal_time = val;
	p = steal_page(v);
	if (!p)
		return 0;
	was = cpu_leave(v);
	steal_update(v, p);
	cpu_return(v, was);
	return 0;
}

/* --- hypercalls ------------------------------------------------------------------------------------------------------ */

/* Bit n of the 128-bit map is APIC ID min + n. Returns how many there are to get it. */
static int64_t send_ipi(struct vcpu *v, const uint64_t map[2], uint64_t min, uint32_t icr)
{
	unsigned delivery = icr >> 8 & 7;
	int64_t sent = 0;

	/* Fixed and NMI, the destination being the map. */
	if ((delivery != 0 && delivery != 4) || (icr & 0xc0000) || min > VCPU_MAX)
		return HC_EINVAL;
	for (unsigned n = 0; n < 128; n++) {
		uint64_t dest = min + n;

		if (!(map[n >> 6] >> (n & 63) & 1) || dest >= v->count)
			continue;
		v->ops->pv_ipi(v->vm, (uint32_t)dest, icr);
		sent++;
	}
	return sent;
}

void cpu_hypercall(struct vcpu *v)
{
	uint64_t mask = cpu_code64(v) ? ~0ull : 0xffffffff;
	uint64_t nr = v->gpr[RAX] & mask, a[4] = { v->gpr[RBX] & mask, v->gpr[RCX] & mask, v->gpr[RDX] & mask, v->gpr[RSI] & mask };
	int64_t ret = HC_ENOSYS;
	bool was;

	v->stats.hypercalls++;
	was = cpu_leave(v);
	if (v->cpl)
		ret = HC_EPERM;
	else if (nr == HC_VAPIC_POLL_IRQ)
		ret = 0;
	else if (nr == HC_SEND_IPI && v->ops->pv_ipi)
		ret = send_ipi(v, a, a[2], (uint32_t)a[3]);
	else if (nr == HC_KICK_CPU && v->ops->pv_kick)
		ret = (v->ops->pv_kick(v->vm, (uint32_t)a[1]), 0);
	cpu_return(v, was);
	v->gpr[RAX] = (uint64_t)ret & mask;
}

void cpu_pause(struct vcpu *v)
{
	bool was;

	if (++v->pauses < PAUSES_PER_YIELD)
		return;
	v->pauses = 0;
	was = mmu_pause(&v->mmu);
	/* Raw: the guest's vector state may be live. */
	__asm__ volatile("syscall" : : "a"(SYS_sched_yield) : "rcx", "r11", "memory");
	mmu_resume(&v->mmu, was);
}
