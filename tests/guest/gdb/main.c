/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What tests/gdb looks at from outside: code and data with names, each thing a debugger is to see in a function of its own. Runs through
 * without a debugger, too.
 *
 * Environments: long64
 */
#include "guest.h"

#define ROUNDS 3

volatile u64 counter, mirror, poked = 1;
volatile u64 table[8];
u8 from[16] = "0123456789abcde", to[16];
volatile u64 wakeups, faults;
volatile u16 *const ap_count = (volatile u16 *)0x7000;

/* Not static: the debugger is to find them whole, with their own names. */
void bump(void);
u64 look(void);
void put_down(u64 x);
void copy(void);
void shadows(void);
void fault(void);
void sleep_once(void);
void end_of_round(unsigned i);

noinline void bump(void)
{
	counter++;
}

noinline u64 look(void)
{
	return table[3];
}

noinline void put_down(u64 x)
{
	table[5] = x;
}

/* Instructions that a debugger steps over; each label is where a step must end. */
extern u8 at_rep[], after_rep[], at_sti[], after_sti[], at_ss[], after_ss[], at_ud[], after_ud[], at_popf[], after_popf[], at_hlt[];

noinline void copy(void)
{
	void *d = to;
	const void *s = from;
	ul n = 4;

	asm volatile(".globl at_rep, after_rep\nat_rep: rep movsb\nafter_rep: nop" : "+D"(d), "+S"(s), "+c"(n) : : "memory");
}

noinline void shadows(void)
{
	asm volatile(".globl at_sti, after_sti, at_ss, after_ss, at_popf, after_popf\n"
		     "at_sti: sti\nafter_sti: cli\n"
		     "mov %%ss, %%eax\nat_ss: mov %%eax, %%ss\nafter_ss: nop\n"
		     "pushfq\nat_popf: popfq\nafter_popf: nop" : : : "rax", "memory", "cc");
}

noinline void fault(void)
{
	TRYV(".globl at_ud, after_ud\nat_ud: ud2\nafter_ud: nop");
	faults += exc.vec == 6;
}

static void on_timer(struct regs *f)
{
	(void)f;
	wakeups++;
	apic_write(APIC_EOI, 0);
}

noinline void sleep_once(void)
{
	u64 before = wakeups;

	apic_write(APIC_TDCR, 3);
	apic_write(APIC_LVTT, 0x60);
	apic_write(APIC_TMICT, 100000);
	while (wakeups == before)
		asm volatile(".globl at_hlt\nsti\nat_hlt: hlt\ncli" : : : "memory");
}

/* A second processor, if there is one, counts in real mode. */
static void start_other(void)
{
	static const u8 code[] = {0xff, 0x06, 0x00, 0x70, 0xf3, 0x90, 0xeb, 0xf8}; /* 1: incw 0x7000; pause; jmp 1b */

	for (unsigned i = 0; i < sizeof(code); i++)
		((volatile u8 *)0x8000)[i] = code[i];
	apic_write(APIC_ICR2, 1u << 24);
	apic_write(APIC_ICR, 0x4500);
	apic_write(APIC_ICR2, 1u << 24);
	apic_write(APIC_ICR, 0x4608);
}

noinline void end_of_round(unsigned i)
{
	mirror = counter + i;
}

int main(void)
{
	u64 seen = 0;

	irq_handler[0x60] = on_timer;
	apic_enable(0xff);
	table[3] = 7;
	start_other();
	for (unsigned i = 0; i < ROUNDS; i++) {
		bump();
		seen += look();
		put_down(i);
		copy();
		shadows();
		fault();
		sleep_once();
		end_of_round(i);
	}
	CHECK_EQ(counter, ROUNDS);
	CHECK_EQ(seen, ROUNDS * 7);
	CHECK_EQ(table[5], ROUNDS - 1);
	CHECK_EQ(faults, ROUNDS);
	CHECK_EQ(to[3], '3');
	CHECK_EQ(to[4], 0);
	CHECK_EQ(poked == 1 || poked == 42, true);
	return 0;
}
