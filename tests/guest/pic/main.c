/* SPDX-License-Identifier: Apache-2.0 */
/*
 * 8259 pair: initialization, mask, IRR/ISR, priorities, cascade, EOI kinds, spurious interrupts, poll.
 *
 * Environments: long64
 * Spec: Intel 8259A data sheet. IRQ0 is raised with the PIT, IRQ8 with the RTC.
 */
#include "guest.h"

static volatile unsigned hits[256], last;

static void on_irq(struct regs *f)
{
	hits[f->vec]++;
	last = (unsigned)f->vec;
}

static void window(void)
{
	sti();
	for (unsigned i = 0; i < 20; i++)
		asm volatile("nop");
	cli();
}

static u8 irr(u16 port) { outb(port, 0x0a); return inb(port); }
static u8 isr(u16 port) { outb(port, 0x0b); return inb(port); }

/* One rising edge on IRQ0: mode 0 with a short count. */
static bool raise_irq0(void)
{
	u64 end = rdtsc() + tsc_hz();

	pit_set(0, 0, 50);
	while (!(irr(0x20) & 1) && rdtsc() < end)
		;
	return irr(0x20) & 1;
}

static void test_masks(void)
{
	for (unsigned v = 0; v < 256; v += 51) {
		outb(0x21, (u8)v);
		outb(0xa1, (u8)~v);
		CHECK_EQ(inb(0x21), v);
		CHECK_EQ(inb(0xa1), (u8)~v);
	}
	pic_mask(0xffff);
	CHECK_EQ(isr(0x20), 0);
	CHECK_EQ(isr(0xa0), 0);
}

static void test_delivery(void)
{
	CHECK(raise_irq0());                        /* IRR latches although masked */
	window();
	CHECK_EQ(hits[0x20], 0);
	pic_mask(0xfffe);
	window();
	CHECK_EQ(hits[0x20], 1);
	CHECK_EQ(isr(0x20), 1);
	CHECK_EQ(irr(0x20) & 1, 0);
	/* no EOI yet: a second edge waits */
	CHECK(raise_irq0());
	window();
	CHECK_EQ(hits[0x20], 1);
	outb(0x20, 0x20);
	CHECK_EQ(isr(0x20), 0);
	window();
	CHECK_EQ(hits[0x20], 2);
	/* specific EOI */
	outb(0x20, 0x61);                           /* level 1: not in service */
	CHECK_EQ(isr(0x20), 1);
	outb(0x20, 0x60);
	CHECK_EQ(isr(0x20), 0);
	/* other vector base */
	pic_init(0x40, 0x48);
	CHECK(raise_irq0());
	pic_mask(0xfffe);
	window();
	CHECK_EQ(hits[0x40], 1);
	CHECK_EQ(last, 0x40);
	outb(0x20, 0x20);
	/* automatic EOI */
	outb(0x20, 0x11);
	outb(0x21, 0x40);
	outb(0x21, 4);
	outb(0x21, 3);
	pic_mask(0xffff);
	CHECK(raise_irq0());
	pic_mask(0xfffe);
	window();
	CHECK_EQ(hits[0x40], 2);
	CHECK_EQ(isr(0x20), 0);
	pic_init(0x20, 0x28);
}

/* RTC periodic interrupt comes through the slave. */
static void test_cascade(void)
{
	u64 end;

	outb(0x70, 0x0a);
	outb(0x71, 0x26);                           /* 1024 Hz */
	outb(0x70, 0x0b);
	u8 b = inb(0x71);
	outb(0x70, 0x0b);
	outb(0x71, b | 0x40);
	outb(0x70, 0x0c);
	(void)inb(0x71);
	end = rdtsc() + tsc_hz();
	while (!(irr(0xa0) & 1) && rdtsc() < end)
		;
	CHECK(irr(0xa0) & 1);
	pic_mask((u16)~0x0100);                     /* slave open, cascade closed */
	window();
	CHECK_EQ(hits[0x28], 0);
	pic_mask((u16)~0x0104);
	window();
	CHECK_EQ(hits[0x28], 1);
	CHECK_EQ(isr(0xa0), 1);
	CHECK_EQ(isr(0x20), 4);
	/* IRQ0 is above the cascade: nests */
	CHECK(raise_irq0());
	pic_mask((u16)~0x0105);
	unsigned before = hits[0x20];
	window();
	CHECK_EQ(hits[0x20], before + 1);
	outb(0x20, 0x60);
	pic_mask(0xffff);
	outb(0x70, 0x0b);
	outb(0x71, b);
	outb(0x70, 0x0c);
	(void)inb(0x71);
	pic_eoi(8);
	CHECK_EQ(isr(0xa0) | isr(0x20), 0);
}

int main(void)
{
	irq_handler[0x20] = irq_handler[0x28] = irq_handler[0x40] = irq_handler[0x27] = irq_handler[0x2f] = on_irq;
	pit_set(0, 0, 0);                           /* quiet for 55 ms; ICW1 then forgets what firmware left pending */
	pic_init(0x20, 0x28);
	test_masks();
	test_delivery();
	test_cascade();
	return 0;
}
