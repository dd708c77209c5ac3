/* SPDX-License-Identifier: Apache-2.0 */
/*
 * MC146818: plausible date, update cycle, BCD/binary, 12/24 hours, RAM bytes, periodic and alarm flags.
 *
 * Environments: long64
 * Spec: Motorola MC146818 data sheet.
 */
#include "guest.h"

static u8 rd(u8 reg) { outb(0x70, reg); return inb(0x71); }
static void wr(u8 reg, u8 v) { outb(0x70, reg); outb(0x71, v); }
static u8 bin(u8 v) { return (u8)((v >> 4) * 10 + (v & 15)); }

static bool wait_flag(u8 mask, unsigned ms, u8 *flags)
{
	u64 end = rdtsc() + tsc_hz() / 1000 * ms;

	do {
		*flags = rd(0x0c);
		if (*flags & mask)
			return true;
	} while (rdtsc() < end);
	return false;
}

int main(void)
{
	u8 b = rd(0x0b), f;

	CHECK_EQ(rd(0x0d) & 0x80, 0x80);            /* battery good */
	CHECK_EQ(b & 0x06, 0x02);                   /* BCD, 24 hours, as PC firmware sets it */
	for (unsigned i = 0; i < 10000 && rd(0x0a) & 0x80; i++)
		;
	CHECK(bin(rd(0)) < 60 && bin(rd(2)) < 60 && bin(rd(4)) < 24);
	CHECK(bin(rd(7)) >= 1 && bin(rd(7)) <= 31 && bin(rd(8)) >= 1 && bin(rd(8)) <= 12 && bin(rd(9)) < 100);
	CHECK((rd(0) & 15) < 10 && (rd(2) & 15) < 10);
	CHECK_EQ(rd(0x32), 0x20);                   /* century */
	/* periodic flag without the interrupt enabled; reading C clears */
	wr(0x0a, 0x26);
	(void)rd(0x0c);
	CHECK_MANUAL(wait_flag(0x40, 100, &f), true);
	CHECK_EQ(f & 0x80, 0);                      /* IRQF needs an enable */
	wr(0x0b, b | 0x40);
	CHECK(wait_flag(0x40, 100, &f));
	CHECK_EQ(f & 0x80, 0x80);
	wr(0x0b, b);
	(void)rd(0x0c);
	/* time can be set, and SET holds the clock still */
	wr(0x0b, b | 0x80);
	u8 s = rd(0), m = rd(2), h = rd(4);
	wr(0, 0x30);
	wr(2, 0x59);
	wr(4, 0x13);
	CHECK_EQ(rd(0), 0x30);
	CHECK_EQ(rd(2), 0x59);
	CHECK_EQ(rd(4), 0x13);
	CHECK_EQ(rd(0x0b) & 0x80, 0x80);
	wr(0, s);
	wr(2, m);
	wr(4, h);
	wr(0x0b, b);
	/* scratch memory */
	wr(0x40, 0x5a);
	wr(0x41, 0xa5);
	CHECK_EQ(rd(0x40), 0x5a);
	CHECK_EQ(rd(0x41), 0xa5);
	return 0;
}
