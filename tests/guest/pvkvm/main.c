/* SPDX-License-Identifier: Apache-2.0 */
/*
 * KVM's paravirtual interface between processors: SEND_IPI, KICK_CPU, steal time, the preempted hint with its deferred TLB flush.
 *
 * Environments: long64
 * Spec: Linux Documentation/virt/kvm/x86/hypercalls.rst, msr.rst, cpuid.rst.
 */
#include "smp.h"

enum { HC_KICK = 5, HC_IPI = 10, VEC = 0x40 };
enum { MSR_STEAL = 0x4b564d03 };

struct steal { volatile u64 steal; volatile u32 version, flags; volatile u8 preempted; u8 pad[47]; };
_Static_assert(sizeof(struct steal) == 64, "ABI");

static struct steal steal[SMP_MAX] __attribute__((aligned(64)));
static volatile u32 hits[SMP_MAX], woken, wait, looked;
static volatile bool quit;

static u64 hypercall(u64 nr, u64 a, u64 b, u64 c, u64 d)
{
	u64 r;

	asm volatile("vmcall" : "=a"(r) : "a"(nr), "b"(a), "c"(b), "d"(c), "S"(d) : "memory");
	return r;
}

static void on_ipi(struct regs *f)
{
	(void)f;
	hits[smp_self()]++;
	apic_write(APIC_EOI, 0);
}

static bool wait_for(volatile u32 *p, u32 n)
{
	u64 end = rdtsc() + 5 * tsc_hz();

	while (*p < n && rdtsc() < end)
		pause();
	return *p >= n;
}

static void listen(void *arg)
{
	(void)arg;
	sti();
	while (!quit)
		pause();
	cli();
}

static void test_ipi(void)
{
	quit = false;
	for (unsigned i = 1; i < smp_count; i++)
		smp_run(i, listen, NULL);
	for (unsigned n = 1; n <= 100; n++) {
		u64 map = (BIT(smp_count) - 1) & ~1ull;

		CHECK_EQ(hypercall(HC_IPI, map, 0, 0, VEC), smp_count - 1);
		for (unsigned i = 1; i < smp_count; i++)
			CHECK(wait_for(&hits[i], n));
	}
	/* Counted from another ID, and IDs that do not exist. */
	CHECK_EQ(hypercall(HC_IPI, ~0ull, ~0ull, 1, VEC), smp_count - 1);
	CHECK(wait_for(&hits[1], 101));
	CHECK_EQ(hypercall(HC_IPI, ~0ull, ~0ull, ~0ull, VEC), (u64)-22);
	CHECK_EQ(hypercall(HC_IPI, 2, 0, 0, VEC | 0x500), (u64)-22);      /* INIT is not for this call */
	CHECK_EQ(hypercall(0x7777, 0, 0, 0, 0), (u64)-1000);
	CHECK_EQ(hits[0], 0);
	quit = true;
	for (unsigned i = 1; i < smp_count; i++)
		smp_join(i);
}

/* Interrupts off: nothing but a kick ends this HLT; a kick that comes before it is not lost. */
static void halts(void *arg)
{
	u32 n = (u32)(u64)arg;

	while (woken < n) {
		u32 w = wait;

		if (woken == w)
			asm volatile("hlt" ::: "memory");
		while (woken < wait)
			woken++;
	}
}

static void test_kick(void)
{
	const u32 n = 2000;

	smp_run(1, halts, (void *)(u64)n);
	for (u32 i = 1; i <= n; i++) {
		for (u32 k = 0; k < (i & 31); k++)
			asm volatile("nop");
		wait = i;
		CHECK_EQ(hypercall(HC_KICK, 0, smp_cpu[1].apic_id, 0, 0), 0);
		if (!wait_for(&woken, i)) {
			CHECK_EQ(woken, i);
			guest_exit(1);
		}
	}
	smp_join(1);
	CHECK_EQ(hypercall(HC_KICK, 0, 999, 0, 0), 0);
}

static void report(void *arg)
{
	(void)arg;
	wrmsr(MSR_STEAL, (u64)&steal[smp_self()] | 1);
}

/* Has the translation in its tables, halts, looks again. */
static void sleeper(void *arg)
{
	volatile u64 *p = (u64 *)TEST_VA;

	(void)arg;
	looked = (u32)*p;
	asm volatile("hlt" ::: "memory");
	looked = (u32)*p;
}

static void test_steal(void)
{
	u64 *page[2] = {page_alloc(), page_alloc()};
	u64 end;

	CHECK_EQ(wrmsr_safe(MSR_STEAL, (u64)&steal[0] | 3), GP);
	smp_run_all(report, NULL);
	CHECK_EQ(rdmsr(MSR_STEAL), (u64)&steal[0] | 1);
	for (unsigned i = 0; i < smp_count; i++) {
		CHECK_EQ(steal[i].version & 1, 0);
		CHECK(steal[i].version > 0);
		CHECK_EQ(steal[i].preempted, 0);
	}
	/* The hint of a halted processor, and what it is for. */
	*page[0] = 1;
	*page[1] = 2;
	map_page(TEST_VA, (u64)page[0], PTE_P | PTE_W);
	smp_run(1, sleeper, NULL);
	CHECK(wait_for(&looked, 1));
	end = rdtsc() + 5 * tsc_hz();
	while (!(steal[1].preempted & 1) && rdtsc() < end)
		pause();
	CHECK_EQ(steal[1].preempted, 1);
	map_page(TEST_VA, (u64)page[1], PTE_P | PTE_W);
	u8 expect = 1;
	CHECK(__atomic_compare_exchange_n(&steal[1].preempted, &expect, 3, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST));
	hypercall(HC_KICK, 0, smp_cpu[1].apic_id, 0, 0);
	smp_join(1);
	CHECK_EQ(looked, 2);
	CHECK_EQ(steal[1].preempted, 0);
	wrmsr(MSR_STEAL, 0);
}

int main(void)
{
	u32 o[4];

	cpuid(0x40000000, 0, o);
	if (o[1] != 0x4b4d564b || o[2] != 0x564b4d56)
		return 0;
	cpuid(0x40000001, 0, o);
	CHECK_EQ(o[0] & (BIT(5) | BIT(7) | BIT(9) | BIT(11)), BIT(5) | BIT(7) | BIT(9) | BIT(11));
	irq_handler[VEC] = on_ipi;
	CHECK(smp_start() >= 2);
	test_ipi();
	test_kick();
	test_steal();
	return 0;
}
