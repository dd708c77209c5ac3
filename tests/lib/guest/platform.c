/* SPDX-License-Identifier: Apache-2.0 */
/*
 * 8259 pair, 8254, local APIC: the few steps every timer test starts with.
 *
 * Invariant: pic_init() leaves all lines masked. Spec: Intel 8259A, 8254 data sheets, SDM vol. 3A 10.
 */
#include "guest.h"

void pic_init(u8 base0, u8 base1)
{
	outb(0x20, 0x11);
	outb(0xa0, 0x11);
	outb(0x21, base0);
	outb(0xa1, base1);
	outb(0x21, 4);
	outb(0xa1, 2);
	outb(0x21, 1);
	outb(0xa1, 1);
	pic_mask(0xffff);
}

void pic_mask(u16 mask)
{
	outb(0x21, (u8)mask);
	outb(0xa1, (u8)(mask >> 8));
}

void pic_eoi(unsigned irq)
{
	if (irq >= 8)
		outb(0xa0, 0x20);
	outb(0x20, 0x20);
}

void pit_set(unsigned channel, unsigned mode, u16 count)
{
	outb(0x43, (u8)(channel << 6 | 0x30 | mode << 1));
	outb((u16)(0x40 + channel), (u8)count);
	outb((u16)(0x40 + channel), (u8)(count >> 8));
}

u16 pit_read(unsigned channel)
{
	u8 lo;

	outb(0x43, (u8)(channel << 6));
	lo = inb((u16)(0x40 + channel));
	return (u16)(lo | inb((u16)(0x40 + channel)) << 8);
}

void apic_enable(u8 spurious)
{
	wrmsr(0x1b, (rdmsr(0x1b) & ~0xc00ull) | 0x800);
	apic_write(APIC_TPR, 0);
	apic_write(APIC_SVR, 0x100u | spurious);
	apic_write(APIC_LVTT, 0x10000);
	apic_write(APIC_TDCR, 0xb);
}

/* TSC ticks during 2386 PIT ticks (2 ms), mode 0 on channel 2 behind the speaker gate. A virtual CPU may be off its processor for a
 * while, which can only make a run look longer: the smallest of many counts, each shorter than what schedulers hand out at once. */
u64 tsc_hz(void)
{
	static u64 hz;
	u64 best = ~0ull;

	if (hz)
		return hz;
	for (unsigned i = 0; i < 16; i++) {
		u64 t;

		outb(0x61, (u8)((inb(0x61) & ~3) | 1));
		t = rdtsc();
		pit_set(2, 0, 2386);
		while (!(inb(0x61) & 0x20))
			;
		t = (rdtsc() - t) * 500;
		if (t < best)
			best = t;
	}
	hz = best;
	return hz;
}
