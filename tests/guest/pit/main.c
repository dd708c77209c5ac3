/* SPDX-License-Identifier: Apache-2.0 */
/*
 * 8254: counting, latch, read-back, modes 0, 2, 3, IRQ0 through the 8259, channel 2 behind the speaker gate.
 *
 * Environments: long64
 * Spec: Intel 8254 data sheet.
 */
#include "guest.h"

/* How often a measurement is repeated that this CPU's being held up for long spoils. */
enum { TRIES = 50 };

static volatile unsigned ticks;

static void on_tick(struct regs *f)
{
	(void)f;
	ticks++;
	pic_eoi(0);
}

static void spin(u64 tsc)
{
	u64 end = rdtsc() + tsc;

	while (rdtsc() < end)
		pause();
}

static void test_count(void)
{
	u16 a, b;
	u64 t;

	/* 1 ms is 1193 ticks; measured, because this CPU may be held up. Above 40 ms the counter could have wrapped: again. */
	for (unsigned n = 0; n < TRIES; n++) {
		pit_set(0, 2, 0);                   /* 65536 */
		t = rdtsc();
		a = pit_read(0);
		spin(tsc_hz() / 1000);
		b = pit_read(0);
		t = (rdtsc() - t) / (tsc_hz() / 1193182 + 1);
		if (t < 40000)
			break;
	}
	CHECK((u16)(a - b) > 900 && (u16)(a - b) <= t + t / 4);
	/* a latched count does not move */
	outb(0x43, 0x00);
	spin(tsc_hz() / 2000);
	outb(0x43, 0x00);                           /* second latch is ignored until read */
	a = inb(0x40);
	a |= (u16)(inb(0x40) << 8);
	b = pit_read(0);
	CHECK((u16)(a - b) > 400);
	/* low byte only access mode: the count is 0..255 in mode 2 */
	outb(0x43, 0x14);
	outb(0x40, 100);
	for (unsigned i = 0; i < 50; i++) {
		u8 v = inb(0x40);
		CHECK(v <= 100 && v >= 1);
	}
	/* read-back: status with the programmed mode; null count bit clears once loaded */
	pit_set(0, 2, 1000);
	spin(tsc_hz() / 10000);
	outb(0x43, 0xe2);                           /* status only, counter 0 */
	a = inb(0x40);
	CHECK_EQ(a & 0x7f, 0x34);
	outb(0x43, 0xc2);                           /* status and count */
	a = inb(0x40);
	CHECK_EQ(a & 0x3f, 0x34);
	a = inb(0x40);
	a |= (u16)(inb(0x40) << 8);
	CHECK(a >= 1 && a <= 1000);
	pit_set(0, 3, 1000);
	outb(0x43, 0xe2);
	CHECK_EQ(inb(0x40) & 0x3f, 0x36);
	for (unsigned i = 0; i < 20; i++)
		CHECK((pit_read(0) & 1) == 0);      /* mode 3 with an even count goes down by two */
}

static void test_irq0(void)
{
	u64 hz = tsc_hz(), t0;

	irq_handler[0x20] = on_tick;
	ticks = 0;
	t0 = rdtsc();
	pit_set(0, 2, 1193 * 2);                    /* 2 ms */
	pic_mask(0xfffe);
	sti();
	while (ticks < 10 && rdtsc() - t0 < hz)
		asm volatile("hlt");
	cli();
	t0 = rdtsc() - t0;
	CHECK_EQ(ticks, 10);
	CHECK(t0 > hz / 1000 * 15 && t0 < hz);
	/* mode 0: one interrupt, then silence */
	ticks = 0;
	pit_set(0, 0, 1193);
	t0 = rdtsc();
	sti();
	while (!ticks && rdtsc() - t0 < hz)
		pause();
	spin(hz / 100);
	cli();
	CHECK_EQ(ticks, 1);
	/* masked in the PIC */
	pic_mask(0xffff);
	pit_set(0, 2, 1193);
	ticks = 0;
	sti();
	spin(hz / 200);
	cli();
	CHECK_EQ(ticks, 0);
	/* edges while masked leave at most one pending request */
	pic_mask(0xfffe);
	pit_set(0, 0, 0);                           /* output low, no further edge for 55 ms */
	sti();
	spin(hz / 1000);
	cli();
	CHECK(ticks <= 1);
	pic_mask(0xffff);
	irq_handler[0x20] = NULL;
}

/* Channel 2: gate in port 61h bit 0, output in bit 5. */
static void test_speaker(void)
{
	u64 hz = tsc_hz(), t0;
	u16 a, b;

	outb(0x61, (u8)((inb(0x61) & ~3) | 1));
	pit_set(2, 0, 5966);                        /* 5 ms */
	t0 = rdtsc();
	a = inb(0x61) & 0x20;
	CHECK(a == 0 || rdtsc() - t0 > hz / 1000 * 4);
	while (!(inb(0x61) & 0x20) && rdtsc() - t0 < hz)
		;
	t0 = rdtsc() - t0;
	CHECK(t0 > hz / 1000 * 4 && t0 < hz / 2);
	/* gate low: the count stands still in mode 0 */
	outb(0x61, (u8)(inb(0x61) & ~3));
	CHECK_EQ(inb(0x61) & 3, 0);
	pit_set(2, 0, 60000);
	spin(hz / 1000);
	a = pit_read(2);
	spin(hz / 1000);
	b = pit_read(2);
	CHECK_MANUAL(a, b);
	/* gate high: it goes on; 40 ms, so that it does not wrap */
	for (unsigned n = 0; n < TRIES; n++) {
		t0 = rdtsc();
		outb(0x61, (u8)((inb(0x61) & ~3) | 1));
		spin(hz / 1000);
		b = pit_read(2);
		outb(0x61, (u8)(inb(0x61) & ~3));
		if (rdtsc() - t0 < hz / 1000 * 40)
			break;
		pit_set(2, 0, 60000);
		a = pit_read(2);
	}
	CHECK(b < a);
	outb(0x61, 0);
	/* bits 0 and 1 read back; bit 4 toggles with refresh */
	outb(0x61, 3);
	CHECK_EQ(inb(0x61) & 3, 3);
	outb(0x61, 0);
}

int main(void)
{
	test_count();
	test_irq0();
	test_speaker();
	return 0;
}
