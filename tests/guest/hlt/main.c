/* SPDX-License-Identifier: Apache-2.0 */
/*
 * HLT wake-up and the interrupt shadows of STI, MOV SS, POP SS.
 *
 * Environments: long64
 * Spec: SDM vol. 2 HLT, STI, MOV; vol. 3A 6.8.3.
 */
#include "guest.h"

static volatile u64 hit_rip, hit_count, hit_flags;

static void on_irq(struct regs *f)
{
	hit_rip = f->rip;
	hit_flags = f->rflags;
	hit_count++;
	apic_write(APIC_EOI, 0);
}

static void raise(void)
{
	hit_count = 0;
	apic_write(APIC_ICR2, 0);
	apic_write(APIC_ICR, 0x40050);
	/* pending before the code under test starts */
	for (unsigned i = 0; i < 1000000 && !(apic_read(APIC_IRR + 2 * 16) >> 16 & 1); i++)
		;
}

/* Code under test: runs with an interrupt pending and IF = 0 at entry; `name`_at is where the interrupt must hit. */
#define SHADOW(name, code) \
	extern u8 name[], name##_at[]; \
	asm(".pushsection .text; .globl " #name ", " #name "_at; .balign 16\n" #name ": " code "; cli; ret\n.popsection")

SHADOW(sh_sti, "sti; nop; sh_sti_at: nop; nop");
SHADOW(sh_sti_cli, "sti; cli; nop; nop; sh_sti_cli_at: nop");            /* never taken */
SHADOW(sh_sti_sti, "sti; sti; sh_sti_sti_at: nop; nop");                /* the shadow is of the STI that changed IF */
SHADOW(sh_sti_hlt, "sti; hlt; sh_sti_hlt_at: nop");
SHADOW(sh_movss, "mov %ss, %eax; push $0x202; popfq; sh_movss_at: mov %eax, %ss; nop; nop");
SHADOW(sh_popf, "push $0x202; popfq; sh_popf_at: nop; nop");            /* POPF has no shadow */
SHADOW(sh_movss2, "mov %ss, %eax; sti; mov %eax, %ss; nop; sh_movss2_at: nop; nop");
SHADOW(sh_sti_loop, "mov $5, %ecx; sti; 1: sh_sti_loop_at: loop 1b");
SHADOW(sh_sti_load, "sti; mov (%rsp), %rax; sh_sti_load_at: nop");
SHADOW(sh_sti_ret, "call 2f; sh_sti_ret_at: nop; jmp 3f; 2: sti; ret; 3: nop");
SHADOW(sh_sti_pf, "sti; push $0x202; sh_sti_pf_at: popfq");

static void expect(const void *code, const void *at)
{
	raise();
	asm volatile("call *%0" : : "r"(code) : "rax", "rcx", "memory", "cc");
	if (!at) {
		CHECK_EQ(hit_count, 0);
		asm volatile("sti; nop; nop; cli");
		CHECK_EQ(hit_count, 1);
		return;
	}
	CHECK_EQ(hit_count, 1);
	CHECK_EQ(hit_rip, (u64)at);
	CHECK_EQ(hit_flags & FL_IF, FL_IF);
}

static void test_shadows(void)
{
	for (unsigned i = 0; i < 200; i++) {
		expect(sh_sti, sh_sti_at);
		expect(sh_sti_cli, NULL);
		expect(sh_sti_hlt, sh_sti_hlt_at);
		expect(sh_popf, sh_popf_at);
		expect(sh_movss, sh_movss_at);
		expect(sh_sti_load, sh_sti_load_at);
		expect(sh_sti_ret, sh_sti_ret_at);
		expect(sh_sti_pf, sh_sti_pf_at);
		expect(sh_sti_sti, sh_sti_sti_at);
		raise();                                  /* two shadows in a row: implementation may or may not extend */
		asm volatile("call *%0" : : "r"(sh_movss2) : "rax", "memory", "cc");
		CHECK_EQ(hit_count, 1);
		raise();
		asm volatile("call *%0" : : "r"(sh_sti_loop) : "rax", "rcx", "memory", "cc");
		CHECK_EQ(hit_count, 1);
	}
}

static void test_wakeup(void)
{
	u64 t0, hz = tsc_hz();

	apic_write(APIC_LVTT, 0x50);
	for (unsigned i = 0; i < 20; i++) {
		hit_count = 0;
		apic_write(APIC_TMICT, 100000 + i * 1000);
		t0 = rdtsc();
		asm volatile("sti; hlt; sh_wake_at: cli" ::: "memory");
		extern u8 sh_wake_at[];
		CHECK_EQ(hit_count, 1);
		CHECK(rdtsc() - t0 < hz);
		if (hit_rip != (u64)sh_wake_at)                     /* the timer may beat HLT only before STI's shadow ends */
			CHECK_EQ(hit_rip, (u64)sh_wake_at);
	}
	/* HLT loop with periodic ticks: each wakes exactly once */
	hit_count = 0;
	apic_write(APIC_LVTT, 0x20050);
	apic_write(APIC_TMICT, 1000000);
	unsigned loops = 0;
	t0 = rdtsc();
	sti();
	while (hit_count < 10 && rdtsc() - t0 < 2 * hz) {
		asm volatile("hlt" ::: "memory");
		loops++;
	}
	cli();
	CHECK(hit_count >= 10);
	CHECK(loops <= hit_count + 1);
	apic_write(APIC_TMICT, 0);
	apic_write(APIC_LVTT, 0x10050);
	asm volatile("sti; nop; nop; cli");
}

/* HLT takes a pending interrupt at CPL 0 in compatibility mode too, and an NMI sent to self wakes without IF. */
static volatile unsigned nmis;
static void on_nmi(struct regs *f)
{
	(void)f;
	nmis++;
}

static void test_nmi(void)
{
	irq_handler[NMI] = on_nmi;
	apic_write(APIC_ICR2, 0);
	apic_write(APIC_ICR, 0x400);                         /* NMI, physical destination 0, no shorthand */
	for (volatile unsigned i = 0; i < 100000 && !nmis; i++)
		;
	CHECK_EQ(nmis, 1);
	irq_handler[NMI] = NULL;
}

int main(void)
{
	irq_handler[0x50] = on_irq;
	apic_enable(0xff);
	test_shadows();
	test_wakeup();
	test_nmi();
	return 0;
}
