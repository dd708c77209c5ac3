/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Several processors: starting them, having them run functions, interprocessor interrupts (long64 only).
 *
 * Invariant: a processor's number is the order in which it arrived, 0 for the boot processor; it is in IA32_TSC_AUX. Application
 * processors run with the boot processor's tables, interrupts off, no TSS: no change of privilege there. TRY and run() are the
 * boot processor's.
 */
#include "guest.h"
#include "smp.h"

enum { TRAMPOLINE = 0x70000 };

extern u8 ap_trampoline[], ap_trampoline_end[];
extern volatile u32 ap_started;
void ap_main(unsigned cpu);

struct smp_cpu smp_cpu[SMP_MAX];
unsigned smp_count = 1;

/* An application processor's life. */
void ap_main(unsigned cpu)
{
	struct smp_cpu *c = &smp_cpu[cpu];

	idt_load(IDT_FULL_LIMIT);
	wrmsr(0xc0000103, cpu);
	wrmsr(0x1b, (rdmsr(0x1b) & ~0xc00ull) | 0x800);
	apic_write(APIC_TPR, 0);
	apic_write(APIC_SVR, 0x1ff);
	c->apic_id = apic_read(APIC_ID) >> 24;
	c->online = true;
	for (;;) {
		while (!c->fn)
			pause();
		c->fn(c->arg);
		barrier();
		c->fn = NULL;
	}
}

void smp_delay_us(u64 us)
{
	u64 end = rdtsc() + tsc_hz() / 1000000 * us;

	while (rdtsc() < end)
		pause();
}

void smp_ipi(u32 dest, u32 icr)
{
	apic_write(APIC_ICR2, dest << 24);
	apic_write(APIC_ICR, icr);
	while (apic_read(APIC_ICR) & 0x1000)
		pause();
}

static bool all_online(unsigned n)
{
	for (unsigned i = 0; i < n; i++)
		if (!smp_cpu[i].online)
			return false;
	return true;
}

unsigned smp_start(void)
{
	u32 o[4];
	unsigned want;

	cpuid(1, 0, o);
	want = o[3] & BIT(28) ? o[1] >> 16 & 0xff : 1;
	memcpy((void *)TRAMPOLINE, ap_trampoline, (size_t)(ap_trampoline_end - ap_trampoline));
	apic_enable(0xff);
	wrmsr(0xc0000103, 0);
	smp_cpu[0].apic_id = apic_read(APIC_ID) >> 24;
	smp_cpu[0].online = true;
	smp_ipi(0, 0xc4500);                       /* INIT, all but self */
	smp_delay_us(10000);
	for (unsigned i = 0; i < 2; i++) {
		smp_ipi(0, 0xc4600 | TRAMPOLINE >> 12);   /* start-up, all but self */
		smp_delay_us(200);
	}
	for (unsigned i = 0; i < 2000 && (ap_started < want || !all_online(want)); i++)
		smp_delay_us(1000);
	smp_count = ap_started < SMP_MAX ? ap_started : SMP_MAX;
	return smp_count;
}

void smp_run(unsigned cpu, void (*fn)(void *arg), void *arg)
{
	smp_cpu[cpu].arg = arg;
	barrier();
	smp_cpu[cpu].fn = fn;
}

void smp_join(unsigned cpu)
{
	while (smp_cpu[cpu].fn)
		pause();
}

void smp_run_all(void (*fn)(void *arg), void *arg)
{
	for (unsigned i = 1; i < smp_count; i++)
		smp_run(i, fn, arg);
	fn(arg);
	for (unsigned i = 1; i < smp_count; i++)
		smp_join(i);
}

unsigned smp_self(void)
{
	u32 a, d, c;

	asm volatile("rdtscp" : "=a"(a), "=d"(d), "=c"(c));
	return c;
}

void smp_barrier(struct smp_barrier *b, unsigned n)
{
	u32 round = b->round;

	if (__atomic_add_fetch(&b->arrived, 1, __ATOMIC_SEQ_CST) == n) {
		b->arrived = 0;
		__atomic_store_n(&b->round, round + 1, __ATOMIC_SEQ_CST);
		return;
	}
	while (__atomic_load_n(&b->round, __ATOMIC_SEQ_CST) == round)
		pause();
}
