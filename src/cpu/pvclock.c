/* SPDX-License-Identifier: Apache-2.0 */
/*
 * KVM paravirtual clock: a page in guest memory from which Linux computes time with RDTSC alone.
 *
 * Invariant: the version in the page is odd exactly while its fields change, so that a reader on another vCPU retries. The pages of all
 * vCPUs are made from one pair of readings, so that time does not go backwards from one vCPU to another ("stable").
 * Locking: the vCPU's thread (MSR writes), or any thread while the vCPU does not run (cpu_pvclock_update after a pause).
 * Spec: Linux Documentation/virt/kvm/x86/msr.rst, cpuid.rst.
 *
 *   pvclock page (32 bytes)                                   wall clock (12 bytes)
 *   0 version u32   8 tsc_timestamp u64   16 system_time u64  0 version u32   4 sec u32   8 nsec u32
 *   24 tsc_to_system_mul u32   28 tsc_shift s8   29 flags u8  ns = ((tsc - tsc_timestamp) << tsc_shift) * mul >> 32
 */
#include "cpu/private.h"

#define NSEC_PER_SEC 1000000000ull
#define MSR_WALL_CLOCK_OLD 0x11
#define MSR_SYSTEM_TIME_OLD 0x12
#define MSR_WALL_CLOCK 0x4b564d00
#define MSR_SYSTEM_TIME 0x4b564d01
#define PVCLOCK_ENABLE 1u
#define PVCLOCK_TSC_STABLE 1u

struct pvclock_page {
	uint32_t version, pad0;
	uint64_t tsc_timestamp, system_time;
	uint32_t mul;
	int8_t shift;
	uint8_t flags, pad[2];
};
static_assert(sizeof(struct pvclock_page) == 32, "ABI");

struct pvclock_wall {
	uint32_t version, sec, nsec;
};

/* mul and shift such that ns = (ticks << shift) * mul >> 32, with mul using all its 32 bits. */
static void tsc_scale(uint64_t hz, uint32_t *mul, int8_t *shift)
{
	int s = 0;

	if (!hz)
		hz = NSEC_PER_SEC;
	while ((hz >> -s) > 2 * NSEC_PER_SEC && s > -31)
		s--;
	while (s >= 0 && s < 31 && (hz << s) <= NSEC_PER_SEC)
		s++;
	/* 1e9 has 30 bits, so the dividend fits 64 bits for shifts down to -2; 128 bits serve the rest. */
	*mul = (uint32_t)(((unsigned __int128)NSEC_PER_SEC << (32 - s)) / hz);
	*shift = (int8_t)s;
}

/* Copies a structure whose first word is its version, with the version odd while the rest changes. */
static void publish(struct vcpu *v, gpa_t gpa, uint32_t *version, const void *body, size_t size)
{
	uint32_t old = 0;

	if (mem_read(v->mem, gpa, &old, sizeof(old)))
		return;
	*version = (old | 1) + (old & 1 ? 2 : 0);
	if (mem_write(v->mem, gpa, version, sizeof(*version)))
		return;
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	mem_write(v->mem, gpa + 4, (const uint8_t *)body + 4, size - 4);
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	++*version;
	mem_write(v->mem, gpa, version, sizeof(*version));
}

void cpu_pvclock_update(struct vcpu *v)
{
	struct pvclock_page page = { .flags = PVCLOCK_TSC_STABLE };
	bool was;

	if (!(v->kvm_system_time & PVCLOCK_ENABLE))
		return;
	was = cpu_leave(v);
	tsc_scale(v->tsc_khz * 1000, &page.mul, &page.shift);
	if (v->ops->clock_pair) {
		v->ops->clock_pair(v->vm, &page.tsc_timestamp, &page.system_time);
		page.tsc_timestamp += v->tsc_offset;
	} else {
		page.tsc_timestamp = cpu_rdtsc(v);
		page.system_time = v->ops->now_ns(v->vm);
	}
	publish(v, v->kvm_system_time & ~3ull, &page.version, &page, sizeof(page));
	cpu_return(v, was);
}

static void write_wall_clock(struct vcpu *v, gpa_t gpa)
{
	struct pvclock_wall wall = { 0 };
	uint64_t boot;
	bool was = cpu_leave(v);

	boot = v->ops->wall_ns(v->vm) - v->ops->now_ns(v->vm);
	wall.sec = (uint32_t)(boot / NSEC_PER_SEC);
	wall.nsec = (uint32_t)(boot % NSEC_PER_SEC);
	publish(v, gpa & ~3ull, &wall.version, &wall, sizeof(wall));
	cpu_return(v, was);
}

int cpu_pvclock_wrmsr(struct vcpu *v, uint32_t msr, uint64_t val)
{
	switch (msr) {
	case MSR_WALL_CLOCK:
	case MSR_WALL_CLOCK_OLD:
		v->kvm_wall_clock = val;
		write_wall_clock(v, val);
		return 0;
	case MSR_SYSTEM_TIME:
	case MSR_SYSTEM_TIME_OLD:
		v->kvm_system_time = val;
		cpu_pvclock_update(v);
		return 0;
	default:
		return cpu_gp0(v);
	}
}
