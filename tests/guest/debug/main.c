/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Single stepping over all kinds of instructions, hardware breakpoints on execution, data and I/O, DR6, DR7.GD, INT1, RF.
 *
 * Environments: long64
 * Spec: SDM vol. 3B 17.2, 17.3.
 */
#include "guest.h"

enum { DR6_BS = 0x4000, DR6_BD = 0x2000, DR6_LOW = 0xe00f };
static u64 word[4] __attribute__((aligned(16)));

static struct regs kernel(const void *code)
{
	return (struct regs){ .rip = (u64)code, .cs = KCS, .ss = KDS, .rsp = (u64)run_stack_top, .rflags = FL_1 };
}

static struct regs user(const void *code)
{
	return (struct regs){ .rip = USER(code), .cs = UCS, .ss = UDS, .rsp = USER(run_stack_top), .rflags = FL_1 };
}

/* Each row: code whose first instruction is stepped; `len` to the next RIP relative to the start. */
SNIP(t_nop, "nop; nop");
SNIP(t_add, "add $1, %rax; nop");
SNIP(t_load, "mov (%rsi), %rax; nop");
SNIP(t_store, "mov %rax, (%rsi); nop");
SNIP(t_jmp, "jmp 1f; nop; 1: nop");
SNIP(t_jcc, "jnz 1f; nop; 1: nop");
SNIP(t_call, "call 1f; 1: nop");
SNIP(t_cpuid, "cpuid; nop");
SNIP(t_rdtsc, "rdtsc; nop");
SNIP(t_push, "pushf; nop");
SNIP(t_x87, "fld1; nop");
SNIP(t_sse, "paddd %xmm0, %xmm1; nop");
SNIP(t_out, "outb %al, $0x80; nop");
SNIP(t_cr, "mov %cr0, %rbx; nop");
SNIP(t_lock, "lock; addq $1, (%rsi); nop");
SNIP(t_movss, "mov %ss, %ebx; nop");
SNIP(t_ldss, "mov %ebx, %ss; nop; nop");
SNIP(t_ud, "ud2; nop");
SNIP(t_int, "int $0x30; nop");
SNIP(t_popf, "popfq; nop; nop");
SNIP(t_syscall, "syscall; nop");
SNIP(t_iret, "iretq");

static void step(const void *code, unsigned len)
{
	struct regs r = kernel(code);

	r.rsi = (u64)word;
	r.rbx = KDS;
	r.rflags |= FL_TF;
	write_dr6(0xffff0ff0);
	run(&r);
	CHECK_EQ(r.vec, DB);
	CHECK_EQ(r.rip, (u64)code + len);
	CHECK_EQ(r.dr6 & DR6_LOW, DR6_BS);
	CHECK_EQ(r.rflags & FL_TF, FL_TF);        /* saved image still has it */
}

static void test_step(void)
{
	step(t_nop, 1);
	step(t_add, 4);
	step(t_load, 3);
	step(t_store, 3);
	step(t_jmp, 3);
	step(t_jcc, 3);
	step(t_call, 5);
	step(t_cpuid, 2);
	step(t_rdtsc, 2);
	step(t_push, 1);
	step(t_x87, 2);
	step(t_sse, 4);
	step(t_out, 2);
	step(t_cr, 3);
	step(t_lock, 5);
	step(t_movss, 2);
	if (!on_qemu)
		step(t_ldss, 3);                     /* MOV SS delays the trap by one instruction */
	/* stepping on: each resume advances one instruction */
	struct regs r = kernel(t_nop);
	r.rflags |= FL_TF;
	run(&r);
	CHECK_EQ(r.rip, (u64)t_nop + 1);
	run(&r);
	CHECK_EQ(r.rip, (u64)t_nop + 2);
	/* INT n clears TF for the handler; the trap is not taken after it (in the handler), the frame has TF */
	r = kernel(t_int);
	r.rflags |= FL_TF;
	run(&r);
	CHECK_EQ(r.vec, 0x30);
	CHECK_EQ(r.rip, (u64)t_int + 2);
	CHECK_EQ(r.rflags & FL_TF, FL_TF);
	/* a faulting instruction delivers its fault, not the trap */
	r = kernel(t_ud);
	r.rflags |= FL_TF;
	run(&r);
	CHECK_EQ(r.vec, UD);
	CHECK_EQ(r.rip, (u64)t_ud);
	CHECK_EQ(r.rflags & FL_TF, FL_TF);
	/* POPF setting TF: trap after the next instruction; POPF clearing TF: no trap after it... the old TF still traps */
	u64 *sp = (u64 *)run_stack_top - 8;
	sp[0] = FL_1 | FL_TF;
	r = kernel(t_popf);
	r.rsp = (u64)sp;
	run(&r);
	CHECK_EQ(r.vec, DB);
	CHECK_EQ(r.rip, (u64)t_popf + 2);
	sp[0] = FL_1;
	r = kernel(t_popf);
	r.rsp = (u64)sp;
	r.rflags |= FL_TF;
	run(&r);
	CHECK_EQ(r.vec, DB);
	CHECK_EQ(r.rip, (u64)t_popf + 1);
	CHECK_EQ(r.rflags & FL_TF, 0);
	/* IRET setting TF: trap after the instruction at the target */
	sp[0] = (u64)t_nop;
	sp[1] = KCS;
	sp[2] = FL_1 | FL_TF;
	sp[3] = (u64)run_stack_top;
	sp[4] = KDS;
	r = kernel(t_iret);
	r.rsp = (u64)sp;
	run(&r);
	CHECK_EQ(r.vec, DB);
	CHECK_EQ(r.rip, (u64)t_nop + 1);
	/* user mode; SYSCALL with TF masked by FMASK: no trap in the kernel */
	r = user(t_nop);
	r.rflags |= FL_TF;
	run(&r);
	CHECK_EQ(r.vec, DB);
	CHECK_EQ(r.cs, UCS);
	CHECK_EQ(r.rip, USER(t_nop) + 1);
	r = user(t_syscall);
	r.rflags |= FL_TF;
	run(&r);
	CHECK_EQ(r.vec, VEC_SYSCALL);
	CHECK_EQ(r.r11 & FL_TF, FL_TF);
	write_dr6(0xffff0ff0);
}

static void clear_dr(void)
{
	write_dr7(0x400);
	write_dr0(0);
	write_dr1(0);
	write_dr2(0);
	write_dr3(0);
	write_dr6(0xffff0ff0);
}

static void test_exec_bp(void)
{
	struct regs r;

	for (unsigned n = 0; n < 4; n++) {
		clear_dr();
		u64 at = (u64)t_add + 4;
		if (n == 0) write_dr0(at);
		if (n == 1) write_dr1(at);
		if (n == 2) write_dr2(at);
		if (n == 3) write_dr3(at);
		write_dr7(0x400 | 2ull << (n * 2));
		r = kernel(t_add);
		run(&r);
		CHECK_EQ(r.vec, DB);
		CHECK_EQ(r.rip, at);                    /* a fault: before the instruction */
		CHECK_EQ(r.rax, 1);
		CHECK_EQ(r.dr6 & DR6_LOW, 1u << n);
		CHECK_EQ(r.rflags & FL_RF, 0);          /* the one fault that does not push RF set */
		/* RF lets it run */
		r.rflags |= FL_RF;
		write_dr6(0xffff0ff0);
		run(&r);
		CHECK_EQ(r.vec, VEC_DONE);
		CHECK_EQ(read_dr6() & DR6_LOW, 0);
	}
	/* disabled: nothing, though DR6 may or may not record */
	write_dr7(0x400);
	r = kernel(t_add);
	run(&r);
	CHECK_EQ(r.vec, VEC_DONE);
	/* on the first instruction of code entered by IRET without RF */
	clear_dr();
	write_dr0((u64)t_load);
	write_dr7(0x402);
	r = kernel(t_load);
	r.rsi = (u64)word;
	run(&r);
	CHECK_EQ(r.vec, DB);
	CHECK_EQ(r.rip, (u64)t_load);
	/* in user mode */
	write_dr0(USER(t_nop) + 1);
	r = user(t_nop);
	run(&r);
	CHECK_EQ(r.vec, DB);
	CHECK_EQ(r.rip, USER(t_nop) + 1);
	CHECK_EQ(r.cs, UCS);
	clear_dr();
}

static void data_bp(unsigned rw, unsigned len, u64 at, const void *code, u64 rsi, bool hit)
{
	struct regs r = kernel(code);

	write_dr6(0xffff0ff0);
	write_dr1(at);
	write_dr7(0x400 | 8 | (u64)rw << 20 | (u64)len << 22);
	r.rsi = rsi;
	run(&r);
	write_dr7(0x400);
	if (hit) {
		CHECK_EQ(r.vec, DB);
		CHECK(r.rip > (u64)code);                   /* a trap: behind the instruction */
		CHECK_EQ(r.dr6 & DR6_LOW, 2);
	} else {
		CHECK_EQ(r.vec, VEC_DONE);
	}
}

static void test_data_bp(void)
{
	u64 w = (u64)word;

	data_bp(1, 3, w, t_store, w, true);           /* write, 4 bytes */
	data_bp(1, 3, w, t_load, w, false);
	data_bp(3, 3, w, t_load, w, true);            /* read or write */
	data_bp(3, 3, w, t_store, w, true);
	data_bp(1, 0, w + 7, t_store, w, true);       /* any overlapping byte */
	data_bp(1, 0, w + 8, t_store, w, false);
	data_bp(1, 2, w, t_store, w, true);           /* 8 bytes */
	data_bp(1, 1, w + 8, t_store, w + 1, true);   /* unaligned access reaching into it */
	data_bp(1, 3, w, t_lock, w, true);
	data_bp(3, 0, w, t_nop, w, false);
	clear_dr();
}

SNIP(t_movdr, "mov %dr6, %rax");
SNIP(t_movdr7, "mov %rax, %dr7");

static void test_dr_access(void)
{
	struct regs r;

	clear_dr();
	CHECK_EQ(read_dr6(), 0xffff0ff0);
	write_dr6(0);
	CHECK_EQ(read_dr6() | 0x10000 | 0x800, 0xffff0ff0);   /* fixed bits (RTM and bus-lock bits may read either way) */
	write_dr6(0xe00f);
	CHECK_EQ(read_dr6() & 0xe00f, 0xe00f);
	write_dr7(0x400);
	CHECK_EQ(read_dr7(), 0x400);
	write_dr0(0x123456789abcull);
	CHECK_EQ(read_dr0(), 0x123456789abcull);
	write_dr3(~0ull);
	CHECK_EQ(read_dr3(), ~0ull);
	clear_dr();
	/* DR4/5 alias 6/7 unless CR4.DE */
	u64 v;
	asm volatile("mov %%db4, %0" : "=r"(v));
	CHECK_EQ(v, 0xffff0ff0);
	write_cr4(read_cr4() | BIT(3));
	asm volatile("xor %%eax, %%eax\n\t" TRY(".byte 0x0f, 0x21, 0xe0") : : : "rax", "memory");   /* mov rax, dr4 */
	EXPECT_FAULT(UD, 0);
	write_cr4(read_cr4() & ~BIT(3));
	/* CPL 3 */
	r = user(t_movdr);
	run(&r);
	CHECK_EQ(r.vec, GP);
	/* GD: any access faults with BD set; GD is cleared in the handler */
	if (!on_qemu) {
		write_dr7(0x2400);
		r = kernel(t_movdr);
		run(&r);
		CHECK_EQ(r.vec, DB);
		CHECK_EQ(r.rip, (u64)t_movdr);
		CHECK_EQ(r.dr6 & DR6_LOW, DR6_BD);
		CHECK_EQ(read_dr7() & 0x2000, 0);
	}
	clear_dr();
}

int main(void)
{
	clear_dr();
	test_step();
	test_exec_bp();
	test_data_bp();
	test_dr_access();
	return 0;
}
