/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Local APIC: registers, timer modes, priorities, self IPI, spurious vector, EOI, x2APIC, TSC deadline.
 *
 * Environments: long64
 * Spec: SDM vol. 3A 10.4-10.12.
 */
#include "guest.h"

static volatile unsigned hits[256];
static volatile unsigned order[8], norder;
static bool x2;
static bool eoi_in_handler = true;

static u32 rd(unsigned reg) { return x2 ? (u32)rdmsr(0x800 + (reg >> 4)) : apic_read(reg); }
static void wr(unsigned reg, u32 v)
{
	if (x2)
		wrmsr(0x800 + (reg >> 4), v);
	else
		apic_write(reg, v);
}

static void on_irq(struct regs *f)
{
	hits[f->vec]++;
	if (norder < ARRAY_SIZE(order))
		order[norder++] = (unsigned)f->vec;
	if (eoi_in_handler)
		wr(APIC_EOI, 0);
}

static void self_ipi(unsigned vec)
{
	if (x2)
		wrmsr(0x83f, vec);
	else {
		wr(APIC_ICR2, 0);
		wr(APIC_ICR, 0x40000 | vec);          /* shorthand self, fixed */
		while (rd(APIC_ICR) & 0x1000)
			;
	}
}

/* Interrupts on for long enough to take what is pending. */
static void window(void)
{
	sti();
	for (unsigned i = 0; i < 20; i++)
		asm volatile("nop");
	cli();
}

static bool bit(unsigned base, unsigned vec) { return rd(base + (vec >> 5) * 16) >> (vec & 31) & 1; }

/* Waits with interrupts on until hits[vec] reaches n or about 1 s of TSC passed. */
static bool wait_hits(unsigned vec, unsigned n)
{
	u64 end = rdtsc() + tsc_hz();

	sti();
	while (hits[vec] < n && rdtsc() < end)
		pause();
	cli();
	return hits[vec] >= n;
}

static void test_registers(void)
{
	u64 base = rdmsr(0x1b);

	CHECK_EQ(base & ~0xfffull, 0xfee00000);
	CHECK(base & 0x100);                          /* BSP */
	CHECK(base & 0x800);
	CHECK_EQ(rd(APIC_ID) >> 24, 0);
	CHECK((rd(APIC_VER) & 0xff) >= 0x10 && (rd(APIC_VER) & 0xff) <= 0x15);
	CHECK((rd(APIC_VER) >> 16 & 0xff) >= 3);
	wr(APIC_TPR, 0x35);
	CHECK_EQ(rd(APIC_TPR), 0x35);
	CHECK_EQ(rd(APIC_PPR), 0x35);
	u64 cr8;
	asm volatile("mov %%cr8, %0" : "=r"(cr8));
	CHECK_EQ(cr8, 3);
	asm volatile("mov %0, %%cr8" : : "r"(7ul));
	CHECK_EQ(rd(APIC_TPR), 0x70);
	wr(APIC_TPR, 0);
	wr(APIC_LVTT, 0x10000 | 0x31);
	CHECK_EQ(rd(APIC_LVTT), 0x10031);
	wr(APIC_DFR, 0xffffffff);
	CHECK_EQ(rd(APIC_DFR), 0xffffffff);
	wr(APIC_LDR, 0x01000000);
	CHECK_EQ(rd(APIC_LDR), 0x01000000);
	for (unsigned v = 0; v < 256; v += 32) {
		CHECK_EQ(rd(APIC_IRR + v / 2), 0);
		CHECK_EQ(rd(APIC_ISR + v / 2), 0);
	}
}

static void test_self_ipi(void)
{
	norder = 0;
	hits[0x50] = hits[0x60] = hits[0x70] = 0;
	self_ipi(0x50);
	CHECK(bit(APIC_IRR, 0x50));
	CHECK_EQ(hits[0x50], 0);                      /* IF = 0 */
	window();
	CHECK_EQ(hits[0x50], 1);
	CHECK(!bit(APIC_IRR, 0x50));
	CHECK(!bit(APIC_ISR, 0x50));
	/* highest vector first; the same vector twice in IRR is one */
	norder = 0;
	self_ipi(0x60);
	self_ipi(0x50);
	self_ipi(0x70);
	self_ipi(0x50);
	window();
	CHECK_EQ(norder, 3);
	CHECK_EQ(order[0], 0x70);
	CHECK_EQ(order[1], 0x60);
	CHECK_EQ(order[2], 0x50);
	/* TPR holds back its own class and below */
	norder = 0;
	wr(APIC_TPR, 0x60);
	self_ipi(0x50);
	self_ipi(0x60);
	self_ipi(0x6f);
	self_ipi(0x70);
	window();
	CHECK_EQ(norder, 1);
	CHECK_EQ(order[0], 0x70);
	asm volatile("mov %0, %%cr8" : : "r"(5ul));
	window();
	CHECK_EQ(norder, 3);
	CHECK_EQ(order[1], 0x6f);
	CHECK_EQ(order[2], 0x60);
	wr(APIC_TPR, 0);
	window();
	CHECK_EQ(norder, 4);
	/* In service: PPR follows, lower and equal classes wait, EOI releases. */
	eoi_in_handler = false;
	norder = 0;
	self_ipi(0x61);
	window();
	CHECK_EQ(norder, 1);
	CHECK(bit(APIC_ISR, 0x61));
	CHECK_EQ(rd(APIC_PPR) & 0xf0, 0x60);
	self_ipi(0x65);
	self_ipi(0x51);
	window();
	CHECK_EQ(norder, 1);
	self_ipi(0x71);
	window();
	CHECK_EQ(norder, 2);
	CHECK(bit(APIC_ISR, 0x71) && bit(APIC_ISR, 0x61));
	wr(APIC_EOI, 0);
	CHECK(!bit(APIC_ISR, 0x71) && bit(APIC_ISR, 0x61));
	window();
	CHECK_EQ(norder, 2);
	wr(APIC_EOI, 0);
	window();
	CHECK_EQ(norder, 3);
	CHECK_EQ(order[2], 0x65);
	wr(APIC_EOI, 0);
	window();
	CHECK_EQ(order[3], 0x51);
	wr(APIC_EOI, 0);
	eoi_in_handler = true;
	CHECK_EQ(rd(APIC_PPR), 0);
	wr(APIC_EOI, 0);                              /* with nothing in service: harmless */
}

/* Timer ticks per second over at least 5 ms, by the time that really passed; the best of a few, this CPU may be held up. */
static u64 count_rate(u64 tsc_per_s)
{
	u64 best = 0;

	for (unsigned n = 0; n < 3; n++) {
		wr(APIC_TMICT, 0xffffffff);
		u64 t0 = rdtsc(), t1;
		while ((t1 = rdtsc()) - t0 < tsc_per_s / 200)
			;
		u64 ticks = 0xffffffffu - rd(APIC_TMCCT), us = (t1 - t0) / (tsc_per_s / 1000000);
		u64 rate = ticks * 1000000 / us;
		if (!best || rate < best)
			best = rate;
	}
	wr(APIC_TMICT, 0);
	return best;
}

static void test_timer(void)
{
	u64 t;

	wr(APIC_TDCR, 0xb);                           /* divide by 1 */
	wr(APIC_LVTT, 0x10040);                       /* masked one-shot: counts, no interrupt */
	wr(APIC_TMICT, 0x10000000);
	u32 a = rd(APIC_TMCCT);
	CHECK(a <= 0x10000000 && a > 0);
	for (unsigned i = 0; i < 10000 && rd(APIC_TMCCT) >= a; i++)
		;
	CHECK(rd(APIC_TMCCT) < a);
	CHECK_EQ(rd(APIC_TMICT), 0x10000000);
	wr(APIC_TMICT, 0);                            /* stops */
	CHECK_EQ(rd(APIC_TMCCT), 0);
	/* rate over 5 ms */
	t = tsc_hz();
	u64 t0;
	u64 apic_hz = count_rate(t);
	CHECK(apic_hz > 1000000);
	u32 ms = (u32)(apic_hz / 1000);
	/* one-shot */
	hits[0x40] = 0;
	wr(APIC_LVTT, 0x40);
	wr(APIC_TMICT, ms);
	CHECK(wait_hits(0x40, 1));
	CHECK_EQ(rd(APIC_TMCCT), 0);
	u64 end = rdtsc() + t / 200;
	sti();
	while (rdtsc() < end)
		;
	cli();
	CHECK_EQ(hits[0x40], 1);
	/* masked: nothing arrives */
	hits[0x40] = 0;
	wr(APIC_LVTT, 0x10040);
	wr(APIC_TMICT, ms / 4 + 1);
	end = rdtsc() + t / 500;
	sti();
	while (rdtsc() < end)
		;
	cli();
	CHECK_EQ(hits[0x40], 0);
	/* periodic: 10 ticks of 2 ms take about 20 ms, never much less */
	wr(APIC_LVTT, 0x20040);
	t0 = rdtsc();
	wr(APIC_TMICT, ms * 2);
	CHECK(wait_hits(0x40, 10));
	t0 = rdtsc() - t0;
	CHECK(t0 > t / 1000 * 15);
	wr(APIC_TMICT, 0);
	wr(APIC_LVTT, 0x10040);
	window();
	/* the divider slows it down: 16 */
	wr(APIC_TDCR, 3);
	CHECK_EQ(rd(APIC_TDCR), 3);
	u64 slow = count_rate(t);
	CHECK(slow > apic_hz / 32 && slow < apic_hz / 8);
	wr(APIC_TMICT, 0);
	wr(APIC_TDCR, 0xb);
}

static void test_deadline(void)
{
	u64 hz = tsc_hz(), t;

	if (!cpu_has(1, 2, 24)) {
		printf("no TSC deadline timer\n");
		return;
	}
	wr(APIC_LVTT, 0x40040);
	CHECK_EQ(rdmsr(0x6e0), 0);
	hits[0x40] = 0;
	t = rdtsc() + hz / 500;
	wrmsr(0x6e0, t);
	CHECK_EQ(rdmsr(0x6e0), t);
	CHECK(wait_hits(0x40, 1));
	CHECK(rdtsc() >= t);
	CHECK_EQ(rdmsr(0x6e0), 0);                    /* disarmed by firing */
	wrmsr(0x6e0, 1);                              /* in the past: at once */
	CHECK(wait_hits(0x40, 2));
	wrmsr(0x6e0, rdtsc() + hz / 1000);            /* cancelled */
	wrmsr(0x6e0, 0);
	t = rdtsc() + hz / 400;
	sti();
	while (rdtsc() < t)
		;
	cli();
	CHECK_EQ(hits[0x40], 2);
	CHECK_EQ(rd(APIC_TMCCT), 0);
	wr(APIC_TMICT, 1000);                         /* ignored in this mode */
	CHECK_EQ(rd(APIC_TMCCT), 0);
	wr(APIC_LVTT, 0x10040);
	wrmsr(0x6e0, rdtsc() + 1000);                 /* ignored in the others */
	CHECK_EQ(rdmsr(0x6e0), 0);
}

/* HLT with the timer; and an interrupt taken while HLT's IF is on. */
static void test_halt(void)
{
	u64 hz = tsc_hz();

	hits[0x40] = 0;
	wr(APIC_LVTT, 0x40);
	u64 t0 = rdtsc();
	wr(APIC_TMICT, 0x100000);
	asm volatile("sti; hlt; cli" ::: "memory");
	CHECK_EQ(hits[0x40], 1);
	CHECK(rdtsc() - t0 < hz);
	wr(APIC_LVTT, 0x10040);
}

static void test_spurious_and_disable(void)
{
	/* Software disable masks LVTs; self IPIs are lost or kept pending, registers stay readable. */
	wr(APIC_SVR, 0xff);
	CHECK(rd(APIC_LVTT) & 0x10000);
	wr(APIC_LVTT, 0x40);
	CHECK_MANUAL(rd(APIC_LVTT) & 0x10000, 0x10000);   /* mask cannot be cleared while disabled */
	wr(APIC_SVR, 0x1ff);
	CHECK_EQ(rd(APIC_SVR) & 0x1ff, 0x1ff);
	/* illegal vectors below 16 set the error status */
	wr(APIC_LVTERR, 0x10000);
	wr(APIC_ESR, 0);
	wr(APIC_ESR, 0);
	CHECK_EQ(rd(APIC_ESR), 0);
}

static void test_x2apic(void)
{
	if (!cpu_has(1, 2, 21)) {
		printf("no x2APIC\n");
		return;
	}
	u64 v, base = rdmsr(0x1b);
	CHECK_EQ(rdmsr_safe(0x802, &v), GP);          /* not in x2APIC mode yet */
	CHECK_EQ(wrmsr_safe(0x1b, base | 0x400), VEC_NONE);
	x2 = true;
	CHECK_EQ(rdmsr(0x802), 0);
	CHECK_EQ(rdmsr(0x803) & 0xff, rd(APIC_VER) & 0xff);
	CHECK_EQ(rdmsr(0x80d), 1);                    /* LDR of ID 0 */
	CHECK_EQ(wrmsr_safe(0x802, 1), GP);           /* read-only */
	CHECK_EQ(wrmsr_safe(0x803, 0), GP);
	CHECK_EQ(wrmsr_safe(0x80b, 1), GP);           /* EOI takes 0 only */
	CHECK_EQ(rdmsr_safe(0x80b, &v), GP);          /* write-only */
	CHECK_EQ(rdmsr_safe(0x83f, &v), GP);
	CHECK_EQ(rdmsr_safe(0x80e, &v), GP);          /* DFR does not exist */
	CHECK_EQ(rdmsr_safe(0x831, &v), GP);          /* ICR2 neither */
	CHECK_EQ(wrmsr_safe(0x808, 0x100), GP);       /* reserved bits */
	CHECK_EQ(wrmsr_safe(0x1b, base), GP);         /* x2APIC -> xAPIC directly */
	/* 64-bit ICR to self by physical ID 0 */
	hits[0x50] = 0;
	wrmsr(0x830, 0x50);
	window();
	CHECK_EQ(hits[0x50], 1);
	test_self_ipi();
	test_timer();
	test_deadline();
	test_halt();
	CHECK_EQ(wrmsr_safe(0x1b, base & ~0xc00ull), VEC_NONE);
	CHECK_EQ(wrmsr_safe(0x1b, base), VEC_NONE);
	x2 = false;
	apic_enable(0xff);
	CHECK_EQ(apic_read(APIC_ID) >> 24, 0);
	hits[0x50] = 0;
	self_ipi(0x50);
	window();
	CHECK_EQ(hits[0x50], 1);
}

int main(void)
{
	for (unsigned v = 0x40; v < 0x100; v++)
		if (v != VEC_DONE)
			irq_handler[v] = on_irq;
	apic_enable(0xff);
	test_registers();
	test_self_ipi();
	test_timer();
	test_deadline();
	test_halt();
	test_spurious_and_disable();
	test_x2apic();
	return 0;
}
