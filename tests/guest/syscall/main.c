/* SPDX-License-Identifier: Apache-2.0 */
/*
 * SYSCALL, SYSRET, SYSENTER, SYSEXIT, IRET in all forms, SWAPGS, FSGSBASE, compatibility mode, far transfers, LAR/LSL/VERR.
 *
 * Environments: long64
 * Spec: SDM vol. 2 of each instruction, vol. 3A 5.8; where Intel and AMD differ both answers pass.
 */
#include "guest.h"

#define NONCANON 0x8000000000000000ull
enum { STAR = 0xc0000081, LSTAR, CSTAR, FMASK, FS_BASE = 0xc0000100, GS_BASE, KERNEL_GS_BASE, SE_CS = 0x174, SE_ESP, SE_EIP, EFER = 0xc0000080 };

static struct regs user(const void *code)
{
	return (struct regs){ .rip = USER(code), .cs = UCS, .ss = UDS, .rsp = USER(run_stack_top), .rflags = FL_1 };
}

static struct regs user32(const void *code)
{
	struct regs r = user(code);
	r.cs = UCS32;
	return r;
}

static struct regs kernel(const void *code)
{
	return (struct regs){ .rip = (u64)code, .cs = KCS, .ss = KDS, .rsp = (u64)run_stack_top, .rflags = FL_1 };
}

SNIP(s_syscall, "syscall");
SNIP(s_sysret64, "sysretq");
SNIP(s_sysret32, "sysretl");
SNIP(s_sysenter, "sysenter");
SNIP(s_sysexit32, "sysexitl");
SNIP(s_sysexit64, "sysexitq");
SNIP(s_iretq, "iretq");
SNIP(s_iretl, "iretl");
SNIP(s_iretw, "iretw");
SNIP(s_swapgs, "swapgs");
SNIP(s_gsload, "mov %gs:(%rsi), %rax");
SNIP(s_fsload, "mov %fs:(%rsi), %rax");
SNIP(s_nop, "nop");
SNIP(s_ud2, "ud2");
SNIP(s_rdfs, "rdfsbase %rax");
SNIP(s_wrgs, "wrgsbase %rax");
SNIP(s_wrfs32, "wrfsbase %eax; rdfsbase %rbx");
SNIP(s_lret, "lretl");
SNIP(s_lretq, "lretq");
SNIP(s_ljmp, "ljmpl *(%rsi)");
SNIP(s_ljmpq, "rex.w ljmpl *(%rsi)");
SNIP(s_lcall, "lcall *(%rsi)");

static void test_syscall(void)
{
	struct regs r = user(s_syscall);

	r.rflags = FL_1 | FL_CF | FL_ZF | FL_DF | FL_AC | FL_NT | FL_ID | FL_IF;
	r.rcx = r.r11 = 0x1111;
	run(&r);
	CHECK_EQ(r.vec, VEC_SYSCALL);
	CHECK_EQ(r.cs, KCS);
	CHECK_EQ(r.ss, KDS);
	CHECK_EQ(r.rsp, USER(run_stack_top));
	CHECK_EQ(r.rcx, USER(s_syscall) + 2);
	CHECK_EQ(r.r11, FL_1 | FL_CF | FL_ZF | FL_DF | FL_AC | FL_NT | FL_ID | FL_IF);
	CHECK_MANUAL(r.rflags & (FL_DF | FL_AC | FL_NT | FL_IF | FL_ID | FL_CF | FL_ZF), FL_ID | FL_CF | FL_ZF);
	/* FMASK = 0: flags stay; all ones: only bit 1 stays. */
	wrmsr(FMASK, 0);
	r = user(s_syscall);
	r.rflags = FL_1 | FL_CF | FL_ID;
	run(&r);
	CHECK_MANUAL(r.rflags & (FL_CF | FL_ID), FL_CF | FL_ID);
	wrmsr(FMASK, 0xffffffff);
	r = user(s_syscall);
	r.rflags = FL_1 | 0x8d5 | FL_DF | FL_ID;
	run(&r);
	CHECK_EQ(r.rflags & ~(u64)FL_PF & ~(u64)FL_ZF, FL_1);     /* the stub did no arithmetic: PF, ZF clear too */
	CHECK_EQ(r.r11 & 0x8d5, 0x8d5);
	wrmsr(FMASK, FL_TF | FL_IF | FL_DF | FL_NT | FL_AC);
	/* from CPL 0: allowed, just reloads */
	r = kernel(s_syscall);
	run(&r);
	CHECK_EQ(r.vec, VEC_SYSCALL);
	CHECK_EQ(r.rcx, (u64)s_syscall + 2);
	/* SCE = 0 */
	wrmsr(EFER, rdmsr(EFER) & ~1ull);
	r = user(s_syscall);
	run(&r);
	CHECK_EQ(r.vec, UD);
	CHECK_EQ(r.rip, USER(s_syscall));
	r = kernel(s_sysret64);
	run(&r);
	CHECK_EQ(r.vec, UD);
	wrmsr(EFER, rdmsr(EFER) | 1);
	CHECK_EQ(rdmsr(LSTAR), (u64)syscall_entry);
	CHECK_EQ(rdmsr(STAR) >> 32, (UCS32) << 16 | KCS);
}

static void test_sysret(void)
{
	struct regs r = kernel(s_sysret64);

	r.rcx = USER(s_nop_end);
	r.r11 = FL_IF | FL_CF | FL_RF | FL_VM | FL_NT | FL_IOPL | FL_AC | FL_ID | 0xffffffff00008028ull;
	r.rsp = 0x12345678;
	run(&r);
	CHECK_EQ(r.vec, VEC_DONE);
	CHECK_EQ(r.cs, UCS);
	CHECK_EQ(r.ss, UDS);
	CHECK_EQ(r.rsp, 0x12345678);
	CHECK_EQ(r.rip, USER(s_nop_end) + 2);
	CHECK_MANUAL(r.rflags & ~(u64)FL_RF, FL_IF | FL_CF | FL_1 | FL_NT | FL_IOPL | FL_AC | FL_ID);
	/* 32-bit: compatibility mode, RIP = ECX */
	r = kernel(s_sysret32);
	r.rcx = USER(s_nop_end) | 0xabcd00000000ull;
	r.r11 = FL_1;
	run(&r);
	CHECK_EQ(r.vec, VEC_DONE);
	CHECK_EQ(r.cs, UCS32);
	CHECK_EQ(r.ss, UDS);
	CHECK_EQ(r.rip, USER(s_nop_end) + 2);
	/* Non-canonical RCX: Intel #GP(0) in ring 0, AMD at the target in ring 3. */
	r = kernel(s_sysret64);
	r.rcx = NONCANON;
	r.r11 = FL_1;
	run(&r);
	CHECK_EQ(r.vec, GP);
	CHECK(r.rip == (u64)s_sysret64 ? r.cs == KCS : r.rip == NONCANON && r.cs == UCS);
	/* CPL 3 */
	r = user(s_sysret64);
	run(&r);
	CHECK_EQ(r.vec, GP);
	CHECK_EQ(r.err, 0);
	CHECK_EQ(r.rip, USER(s_sysret64));
	/* Descriptors are not read: bases, limits and rights are fixed. */
	u64 save = gdt[UCS >> 3], save2 = gdt[UDS >> 3];
	gdt[UCS >> 3] = gdt[UDS >> 3] = 0;
	r = kernel(s_sysret64);
	r.rcx = USER(s_nop_end);
	r.r11 = FL_1;
	run(&r);
	CHECK_EQ(r.vec, VEC_DONE);
	CHECK_EQ(r.cs, UCS);
	gdt[UCS >> 3] = save;
	gdt[UDS >> 3] = save2;
}

static void test_sysenter(void)
{
	struct regs r = user(s_sysenter);

	wrmsr(SE_CS, 0);
	run(&r);
	/* AMD: #UD in long mode; Intel: #GP(0) with a null SYSENTER_CS. */
	bool amd = r.vec == UD;
	CHECK(amd || (r.vec == GP && r.err == 0));
	CHECK_EQ(r.rip, USER(s_sysenter));
	if (amd) {
		printf("SYSENTER is not available in long mode here\n");
		return;
	}
	wrmsr(SE_CS, KCS);
	wrmsr(SE_ESP, (u64)trap_stack_top - 4096);
	wrmsr(SE_EIP, (u64)sysenter_entry);
	CHECK_EQ(rdmsr(SE_CS), KCS);
	r = user(s_sysenter);
	r.rflags |= FL_IF;
	run(&r);
	CHECK_EQ(r.vec, VEC_SYSENTER);
	CHECK_EQ(r.cs, KCS);
	CHECK_EQ(r.ss, KDS);
	CHECK_EQ(r.rsp, (u64)trap_stack_top - 4096);
	CHECK_EQ(r.rflags & FL_IF, 0);
	r = user32(s_sysenter);
	run(&r);
	CHECK_EQ(r.vec, VEC_SYSENTER);
	CHECK_EQ(r.cs, KCS);
	r = kernel(s_sysexit64);
	r.rcx = USER(run_stack_top) - 64;
	r.rdx = USER(s_nop_end);
	run(&r);
	CHECK_EQ(r.vec, VEC_DONE);
	CHECK_EQ(r.cs, (KCS + 32) | 3);
	CHECK_EQ(r.ss, (KCS + 40) | 3);
	CHECK_EQ(r.rsp, USER(run_stack_top) - 64);
	r = kernel(s_sysexit32);
	r.rcx = USER(run_stack_top) - 64;
	r.rdx = USER(s_nop_end);
	run(&r);
	CHECK_EQ(r.vec, VEC_DONE);
	CHECK_EQ(r.cs, (KCS + 16) | 3);
	r = user(s_sysexit64);
	run(&r);
	CHECK_EQ(r.vec, GP);
	wrmsr(SE_CS, 0);
	r = kernel(s_sysexit64);
	run(&r);
	CHECK_EQ(r.vec, GP);
	CHECK_EQ(r.err, 0);
	if (!on_qemu) {
		CHECK_EQ(wrmsr_safe(SE_EIP, NONCANON), GP);
		CHECK_EQ(wrmsr_safe(SE_ESP, NONCANON), GP);
	}
}

/* Runs an IRETQ with the given frame at CPL 0 (or 3) and returns what happened. */
static struct regs iret(u64 rip, u64 cs, u64 flags, u64 rsp, u64 ss)
{
	u64 *sp = (u64 *)run_stack_top - 32;
	struct regs r = kernel(s_iretq);

	sp[0] = rip;
	sp[1] = cs;
	sp[2] = flags;
	sp[3] = rsp;
	sp[4] = ss;
	r.rsp = (u64)sp;
	run(&r);
	return r;
}

static void expect_iret_fault(struct regs r, unsigned vec, u64 err)
{
	CHECK_EQ(r.vec, vec);
	CHECK_EQ(r.err, err);
	CHECK_EQ(r.rip, (u64)s_iretq);
	CHECK_EQ(r.rsp, (u64)run_stack_top - 256);
	CHECK_EQ(r.cs, KCS);
}

static void test_iret(void)
{
	u64 k = (u64)s_nop_end, u = USER(s_nop_end), usp = USER(run_stack_top);
	struct regs r = iret(u, UCS, FL_1 | FL_IF | FL_IOPL | FL_AC | FL_ID | FL_CF, usp - 3, UDS);

	CHECK_EQ(r.vec, VEC_DONE);
	CHECK_EQ(r.cs, UCS);
	CHECK_EQ(r.ss, UDS);
	CHECK_EQ(r.rsp, usp - 3);
	CHECK_EQ(r.rflags, FL_1 | FL_IF | FL_IOPL | FL_AC | FL_ID | FL_CF);
	r = iret(k, KCS, FL_1, (u64)run_stack_top, KDS);
	CHECK_EQ(r.vec, VEC_DONE);
	CHECK_EQ(r.rsp, (u64)run_stack_top);
	r = iret(k, KCS, FL_1, (u64)run_stack_top, 0);               /* null SS to CPL 0 in 64-bit mode: fine */
	CHECK_EQ(r.vec, VEC_DONE);
	CHECK_EQ(r.ss, 0);
	expect_iret_fault(iret(u, UCS, FL_1, usp, 0), GP, 0);         /* to CPL 3: not */
	expect_iret_fault(iret(u, UCS, FL_1, usp, 3), GP, 0);
	expect_iret_fault(iret(u, UCS, FL_1, usp, KDS), GP, KDS);
	expect_iret_fault(iret(u, UCS, FL_1, usp, UDS & ~3), GP, UDS & ~3);
	expect_iret_fault(iret(u, UCS, FL_1, usp, UCS), GP, UCS & ~3);
	expect_iret_fault(iret(u, 0, FL_1, usp, UDS), GP, 0);
	expect_iret_fault(iret(u, 3, FL_1, usp, UDS), GP, 0);
	expect_iret_fault(iret(u, UDS, FL_1, usp, UDS), GP, UDS & ~3);
	expect_iret_fault(iret(u, KCS | 3, FL_1, usp, UDS), GP, KCS);  /* DPL != RPL */
	expect_iret_fault(iret(u, UCS & ~3, FL_1, usp, UDS), GP, UCS & ~3);
	expect_iret_fault(iret(u, 0x7000, FL_1, usp, UDS), GP, 0x7000);
	gdt_set(FREE_SEL, seg_desc(0, 0xfffff, 0x7b, 0xa));           /* not present */
	expect_iret_fault(iret(u, FREE_SEL | 3, FL_1, usp, UDS), NP, FREE_SEL);
	gdt_set(FREE_SEL, seg_desc(0, 0xfffff, 0xfb, 0xe));           /* L and D both set */
	if (!on_qemu)
		expect_iret_fault(iret(u, FREE_SEL | 3, FL_1, usp, UDS), GP, FREE_SEL);
	gdt_set(FREE_SEL, seg_desc(0, 0xfffff, 0x73, 0xc));
	if (!on_qemu)
		expect_iret_fault(iret(u, UCS, FL_1, usp, FREE_SEL | 3), SS_, FREE_SEL);
	r = iret(k, KCS, FL_1 | FL_NT, usp, KDS);                      /* NT in the image is only loaded */
	CHECK_EQ(r.vec, VEC_DONE);
	CHECK_EQ(r.rflags & FL_NT, FL_NT);
	/* NT set when executing IRET in long mode: #GP(0) */
	r = kernel(s_iretq);
	r.rflags |= FL_NT;
	run(&r);
	CHECK_EQ(r.vec, GP);
	CHECK_EQ(r.err, 0);
	/* Non-canonical RIP: #GP on the IRET (Intel). */
	r = iret(NONCANON, UCS, FL_1, usp, UDS);
	CHECK_EQ(r.vec, GP);
	CHECK_EQ(r.err, 0);
	CHECK_MANUAL(r.rip, (u64)s_iretq);
	/* A non-canonical RSP is loaded without complaint. */
	r = iret(u, UCS, FL_1, NONCANON, UDS);
	CHECK_EQ(r.vec, VEC_DONE);
	CHECK_EQ(r.rsp, NONCANON);
	/* RF in the image suppresses nothing we can see here, but is loaded: INT pushes it clear again or not; VM is ignored. */
	r = iret(u, UCS, FL_1 | FL_VM, usp, UDS);
	CHECK_EQ(r.vec, VEC_DONE);
	CHECK_EQ(r.rflags & FL_VM, 0);
	/* At CPL 3 IRET cannot change IOPL or (IOPL < 3) IF, and cannot raise privilege. */
	u64 *sp = (u64 *)run_stack_top - 32;
	sp[0] = u;
	sp[1] = UCS;
	sp[2] = FL_1 | FL_IF | FL_IOPL | FL_CF;
	sp[3] = usp;
	sp[4] = UDS;
	r = user(s_iretq);
	r.rsp = USER(sp);
	run(&r);
	CHECK_EQ(r.vec, VEC_DONE);
	CHECK_EQ(r.rflags, FL_1 | FL_CF);
	sp[1] = KCS;
	r = user(s_iretq);
	r.rsp = USER(sp);
	run(&r);
	CHECK_EQ(r.vec, GP);
	CHECK_EQ(r.err, KCS);
	/* 32-bit operand: pops five 32-bit words */
	u32 *sp4 = (u32 *)sp;
	sp4[0] = (u32)u;
	sp4[1] = UCS32;
	sp4[2] = FL_1 | FL_ZF;
	sp4[3] = (u32)usp - 16;
	sp4[4] = UDS;
	r = kernel(s_iretl);
	r.rsp = (u64)sp;
	run(&r);
	CHECK_EQ(r.vec, VEC_DONE);
	CHECK_EQ(r.cs, UCS32);
	CHECK_EQ(r.rsp, usp - 16);
	CHECK_EQ(r.rflags, FL_1 | FL_ZF);
	/* 16-bit operand: to an address below 64K is not possible here; a present frame is checked the same way */
	u16 *sp2 = (u16 *)sp;
	sp2[0] = 0;
	sp2[1] = 0;
	sp2[2] = FL_1;
	r = kernel(s_iretw);
	r.rsp = (u64)sp;
	run(&r);
	CHECK_EQ(r.vec, GP);
	CHECK_EQ(r.err, 0);
	/* IRET sets the accessed bits. */
	gdt_set(FREE_SEL, seg_desc(0, 0xfffff, 0xfa, 0xa));
	gdt_set(FREE_SEL + 8, seg_desc(0, 0xfffff, 0xf2, 0xc));
	r = iret(u, FREE_SEL | 3, FL_1, usp, (FREE_SEL + 8) | 3);
	CHECK_EQ(r.vec, VEC_DONE);
	CHECK_MANUAL(gdt[FREE_SEL >> 3] >> 40 & 0xff, 0xfb);
	CHECK_MANUAL(gdt[(FREE_SEL + 8) >> 3] >> 40 & 0xff, 0xf3);
	/* Segment registers with DPL < new CPL become null on the way out. */
	asm volatile("mov %w0, %%es; mov %w0, %%fs" : : "r"(KDS));
	r = iret(USER(s_nop_end), UCS, FL_1, usp, UDS);
	u16 fs;
	asm volatile("mov %%fs, %w0" : "=r"(fs));
	CHECK_EQ(fs, 0);
	/* conforming code runs at the caller's level */
	gdt_set(FREE_SEL, seg_desc(0, 0xfffff, 0x9f, 0xa));
	r = iret(u, FREE_SEL | 3, FL_1, usp, UDS);
	CHECK_EQ(r.vec, VEC_DONE);
	CHECK_EQ(r.cs, FREE_SEL | 3);
	expect_iret_fault(iret(u, FREE_SEL, FL_1 | FL_CF, usp, UDS), GP, UDS & ~3);
}

static void test_gs(void)
{
	static u64 a = 0xaaaa, b = 0xbbbb, c = 0xcccc;
	struct regs r = kernel(s_swapgs);

	wrmsr(GS_BASE, (u64)&a);
	wrmsr(KERNEL_GS_BASE, (u64)&b);
	wrmsr(FS_BASE, (u64)&c);
	run(&r);
	CHECK_EQ(r.vec, VEC_DONE);
	CHECK_EQ(rdmsr(GS_BASE), (u64)&b);
	CHECK_EQ(rdmsr(KERNEL_GS_BASE), (u64)&a);
	r = kernel(s_gsload);
	run(&r);
	CHECK_EQ(r.rax, 0xbbbb);
	r = kernel(s_fsload);
	run(&r);
	CHECK_EQ(r.rax, 0xcccc);
	r = user(s_swapgs);
	run(&r);
	CHECK_EQ(r.vec, GP);
	CHECK_EQ(r.err, 0);
	CHECK_EQ(rdmsr(GS_BASE), (u64)&b);
	r = user32(s_swapgs);
	run(&r);
	CHECK_EQ(r.vec, UD);
	/* high bases, wrap-around and non-canonical sums */
	wrmsr(GS_BASE, 0xffffffffffff0000ull);
	r = kernel(s_gsload);
	r.rsi = (u64)&a + 0x10000;
	run(&r);
	CHECK_EQ(r.vec, VEC_DONE);
	CHECK_EQ(r.rax, 0xaaaa);
	wrmsr(GS_BASE, 0x7ffffffff000ull);
	r = kernel(s_gsload);
	r.rsi = 0x1000;
	run(&r);
	CHECK_EQ(r.vec, GP);
	/* FSGSBASE */
	write_cr4(read_cr4() & ~BIT(16));
	r = user(s_rdfs);
	run(&r);
	CHECK_EQ(r.vec, UD);
	r = kernel(s_wrgs);
	run(&r);
	CHECK_EQ(r.vec, UD);
	if (cpu_has(7, 1, 0)) {
		write_cr4(read_cr4() | BIT(16));
		wrmsr(FS_BASE, 0xffff800012345678ull);
		r = user(s_rdfs);
		run(&r);
		CHECK_EQ(r.vec, VEC_DONE);
		CHECK_EQ(r.rax, 0xffff800012345678ull);
		r = user(s_wrgs);
		r.rax = 0x12345000;
		run(&r);
		CHECK_EQ(rdmsr(GS_BASE), 0x12345000);
		r = user(s_wrgs);
		r.rax = NONCANON;
		run(&r);
		CHECK_MANUAL(r.vec, GP);
		if (!on_qemu)
			CHECK_EQ(rdmsr(GS_BASE), 0x12345000);
		r = user(s_wrfs32);
		r.rax = 0xffffffff87654321ull;
		run(&r);
		CHECK_EQ(r.rbx, 0x87654321);
	}
	/* Loading a selector reloads the base from the descriptor; a null selector: Intel zeroes, AMD keeps. */
	gdt_set(FREE_SEL, seg_desc((u32)(u64)&a, 0xfffff, 0x93, 0xc));
	asm volatile("mov %w0, %%gs" : : "r"(FREE_SEL));
	CHECK_EQ(rdmsr(GS_BASE), (u64)&a);
	r = kernel(s_gsload);
	run(&r);
	CHECK_EQ(r.rax, 0xaaaa);
	wrmsr(GS_BASE, 0);
	wrmsr(FS_BASE, 0);
	asm volatile("mov %w0, %%gs" : : "r"(0));
}

/* --- compatibility mode ------------------------------------------------------------------------------------------------- */
asm(".pushsection .text.snip, \"ax\"; .code32; .globl c_arith, c_push, c_ff, c_wrap, c_inc, c_seg, c_jmp64, c_syscall, c_addr16, c_aaa, c_done\n"
    "c_arith: mov $0xffffffff, %eax; add $2, %eax; mov $0x12345678, %ebx; int $0xfe\n"
    "c_push: push $0x11223344; pushw $0x5566; mov %esp, %eax; int $0xfe\n"
    "c_ff: mov (%esi), %eax; int $0xfe\n"
    "c_wrap: mov -1(%esi), %al; int $0xfe\n"
    "c_inc: .byte 0x40, 0x48, 0x41; int $0xfe\n"             /* inc eax; dec eax; inc ecx: REX in 64-bit mode */
    "c_seg: mov %ds:(%esi), %eax; mov %es:(%esi), %ebx; int $0xfe\n"
    "c_jmp64: ljmp *(%esi)\n"
    "c_syscall: syscall; int $0xfe\n"
    "c_addr16: .byte 0x67, 0x8b, 0x04\n int $0xfe\n"          /* mov (%si), %eax */
    "c_aaa: aaa; aad; daa; int $0xfe\n"
    "c_done: int $0xfe\n"
    ".code64; .popsection");
extern u8 c_arith[], c_push[], c_ff[], c_wrap[], c_inc[], c_seg[], c_jmp64[], c_syscall[], c_addr16[], c_aaa[], c_done[];

static void test_compat(void)
{
	static u32 word = 0xfeedface;
	struct regs r = user32(c_arith);

	r.rax = r.rbx = ~0ull;
	run(&r);
	CHECK_EQ(r.vec, VEC_DONE);
	CHECK_EQ(r.rax, 1);
	CHECK_EQ(r.rbx, 0x12345678);
	CHECK_EQ(r.cs, UCS32);
	r = user32(c_push);
	run(&r);
	CHECK_EQ(r.vec, VEC_DONE);
	CHECK_EQ(r.rsp, USER(run_stack_top) - 6);
	CHECK_EQ(*(u16 *)(run_stack_top - 6), 0x5566);
	CHECK_EQ(*(u32 *)(run_stack_top - 4), 0x11223344);
	r = user32(c_inc);
	r.rax = 7;
	r.rcx = 0xffffffff;
	run(&r);
	CHECK_EQ(r.vec, VEC_DONE);
	CHECK_EQ(r.rax, 7);
	CHECK_EQ(r.rcx, 0);
	r = user32(c_syscall);
	run(&r);
	/* AMD: goes to CSTAR; Intel: #UD. */
	CHECK(r.vec == UD || r.vec == VEC_SYSCALL32);
	if (r.vec == VEC_SYSCALL32) {
		CHECK_EQ(r.rcx, USER(c_syscall) + 2);
		CHECK_EQ(r.cs, KCS);
	}
	/* Segment bases and limits count. */
	asm volatile("mov %w0, %%ds; mov %w0, %%es" : : "r"(UDS));
	r = user32(c_ff);
	r.rsi = USER(&word);
	run(&r);
	CHECK_EQ(r.rax, 0xfeedface);
	gdt_set(FREE_SEL, seg_desc(USER(&word) - 0x100, 0x103, 0xf3, 0x4));        /* byte limit 0x103 */
	gdt_set(FREE_SEL + 8, seg_desc((u32)USER(&word), 0xfffff, 0xf7, 0xc));     /* expand-down, limit ~0: empty */
	asm volatile("mov %w0, %%ds" : : "r"(FREE_SEL | 3));
	r = user32(c_ff);
	r.rsi = 0x100;
	run(&r);
	CHECK_EQ(r.vec, VEC_DONE);
	CHECK_EQ(r.rax, 0xfeedface);
	if (!on_qemu) {                                 /* TCG checks no limits */
		asm volatile("mov %w0, %%ds" : : "r"(FREE_SEL | 3));
		r = user32(c_ff);
		r.rsi = 0x101;
		run(&r);
		CHECK_EQ(r.vec, GP);
		CHECK_EQ(r.err, 0);
		asm volatile("mov %w0, %%ds" : : "r"(FREE_SEL + 8 + 3));
		r = user32(c_ff);
		r.rsi = 0x100;
		run(&r);
		CHECK_EQ(r.vec, GP);
		asm volatile("mov %w0, %%ds" : : "r"(0));
		r = user32(c_ff);
		run(&r);
		CHECK_EQ(r.vec, GP);
		gdt_set(FREE_SEL, seg_desc(0, 0xfffff, 0xf1, 0xc));             /* read-only */
		asm volatile("mov %w0, %%ds" : : "r"(FREE_SEL | 3));
	}
	/* linear addresses wrap at 4 GiB */
	gdt_set(FREE_SEL, seg_desc(0xfffffff0, 0xfffff, 0xf3, 0xc));
	asm volatile("mov %w0, %%ds" : : "r"(FREE_SEL | 3));
	r = user32(c_ff);
	r.rsi = USER(&word) + 0x10;
	run(&r);
	CHECK_EQ(r.vec, VEC_DONE);
	CHECK_EQ(r.rax, 0xfeedface);
	/* BCD works in compatibility mode */
	r = user32(c_aaa);
	r.rax = 0x00f;
	run(&r);
	CHECK_EQ(r.vec, VEC_DONE);
	/* far jump from compatibility to 64-bit code and back again by lret */
	struct { u32 off; u16 sel; } __attribute__((packed)) target = { (u32)USER(s_nop_end), UCS };
	asm volatile("mov %w0, %%ds" : : "r"(UDS));
	r = user32(c_jmp64);
	r.rsi = USER(&target);
	run(&r);
	CHECK_EQ(r.vec, VEC_DONE);
	CHECK_EQ(r.cs, UCS);
	CHECK_EQ(r.rip, USER(s_nop_end) + 2);
	target.off = (u32)USER(c_done);
	target.sel = UCS32;
	r = user(s_ljmp);
	r.rsi = USER(&target);
	run(&r);
	CHECK_EQ(r.vec, VEC_DONE);
	CHECK_EQ(r.cs, UCS32);
	/* kernel compatibility mode */
	r = kernel(c_push);
	r.cs = KCS32;
	run(&r);
	CHECK_EQ(r.vec, VEC_DONE);
	CHECK_EQ(r.cs, KCS32);
	CHECK_EQ(r.rsp, (u64)run_stack_top - 6);
}

static void test_far(void)
{
	struct { u64 off; u16 sel; } __attribute__((packed)) t64 = { (u64)s_nop_end, KCS };
	struct { u32 off; u16 sel; } __attribute__((packed)) t32 = { (u32)(u64)s_nop_end, KCS };
	u64 *sp = (u64 *)run_stack_top - 16;
	struct regs r = kernel(s_ljmp);

	r.rsi = (u64)&t32;
	run(&r);
	CHECK_EQ(r.vec, VEC_DONE);
	r = kernel(s_lcall);
	r.rsi = (u64)&t32;
	run(&r);
	CHECK_EQ(r.vec, VEC_DONE);
	CHECK_EQ(r.rsp, (u64)run_stack_top - 8);
	CHECK_EQ(((u32 *)run_stack_top)[-2], (u32)(u64)s_lcall_end);
	CHECK_EQ(((u32 *)run_stack_top)[-1] & 0xffff, KCS);
	if (!on_qemu) {
		r = kernel(s_ljmpq);                 /* m16:64 (Intel); AMD ignores REX.W */
		r.rsi = (u64)&t64;
		run(&r);
		CHECK(r.vec == VEC_DONE || r.vec == GP);
	}
	static const struct { u16 sel; unsigned vec; u16 err; } bad[] = {
		{ 0, GP, 0 }, { KDS, GP, KDS }, { UCS, GP, UCS & ~3 }, { 0x7008, GP, 0x7008 }, { TSS_SEL, GP, TSS_SEL },
	};
	for (unsigned i = 0; i < ARRAY_SIZE(bad); i++) {
		t32.sel = bad[i].sel;
		r = kernel(s_ljmp);
		r.rsi = (u64)&t32;
		run(&r);
		CHECK_EQ(r.vec, bad[i].vec);
		CHECK_EQ(r.err, bad[i].err);
		CHECK_EQ(r.rip, (u64)s_ljmp);
	}
	/* LRET to outer level */
	sp[0] = USER(s_nop_end);
	sp[1] = UCS;
	sp[2] = USER(run_stack_top);
	sp[3] = UDS;
	r = kernel(s_lretq);
	r.rsp = (u64)sp;
	run(&r);
	CHECK_EQ(r.vec, VEC_DONE);
	CHECK_EQ(r.cs, UCS);
	CHECK_EQ(r.rsp, USER(run_stack_top));
	sp[0] = (u64)s_nop_end;
	sp[1] = KCS;
	r = kernel(s_lretq);
	r.rsp = (u64)sp;
	run(&r);
	CHECK_EQ(r.vec, VEC_DONE);
	CHECK_EQ(r.rsp, (u64)(sp + 2));
	sp[0] = (u64)s_nop_end;                            /* the INT pushed over it */
	sp[1] = KCS;
	r = user(s_lretq);
	r.rsp = USER(sp);
	run(&r);
	CHECK_EQ(r.vec, GP);
	CHECK_EQ(r.err, KCS);
	/* 64-bit call gate from CPL 3: switches to RSP0, pushes SS, RSP, CS, RIP */
	u64 h = (u64)s_nop_end;
	gdt_set(FREE_SEL, (h & 0xffff) | (u64)KCS << 16 | 0xecull << 40 | (h >> 16 & 0xffff) << 48);
	gdt_set(FREE_SEL + 8, h >> 32);
	t32.sel = FREE_SEL | 3;
	r = user(s_lcall);
	r.rsi = USER(&t32);
	run(&r);
	CHECK_EQ(r.vec, VEC_DONE);
	CHECK_EQ(r.cs, KCS);
	CHECK_EQ(r.rsp, (u64)trap_stack_top - 32);
	CHECK_EQ(r.ss & ~3ull, 0);                         /* null */
	gdt_set(FREE_SEL, gdt[FREE_SEL >> 3] & ~(3ull << 45));       /* DPL 0 gate */
	r = user(s_lcall);
	r.rsi = USER(&t32);
	run(&r);
	CHECK_EQ(r.vec, GP);
	CHECK_EQ(r.err, FREE_SEL);
}

/* LAR, LSL, VERR, VERW never fault on the selector, only answer in ZF. */
static void test_lar(void)
{
	static const struct { u16 sel; u64 desc, next; u8 lar, lsl, verr, verw; } rows[] = {
		{ 0x00, 0, 0, 0, 0, 0, 0 },
		{ FREE_SEL, 0x00cf93000000ffff, 0, 1, 1, 1, 1 },          /* data */
		{ FREE_SEL, 0x00cf91000000ffff, 0, 1, 1, 1, 0 },          /* read-only */
		{ FREE_SEL, 0x00af9b000000ffff, 0, 1, 1, 1, 0 },          /* code, readable */
		{ FREE_SEL, 0x00af99000000ffff, 0, 1, 1, 0, 0 },          /* code, execute-only */
		{ FREE_SEL, 0x00cf13000000ffff, 0, 1, 1, 1, 1 },          /* not present: LAR and LSL still answer; VERR: see below */
		{ FREE_SEL, 0x0000890000000067, 0, 1, 1, 0, 0 },          /* TSS */
		{ FREE_SEL, 0x0000820000000067, 0, 1, 1, 0, 0 },          /* LDT */
		{ FREE_SEL, 0x00008c0000000067, 0, 1, 0, 0, 0 },          /* call gate: LAR only */
		{ FREE_SEL, 0x00008e0000000067, 0, 0, 0, 0, 0 },          /* interrupt gate */
		{ FREE_SEL, 0x0000850000000067, 0, 0, 0, 0, 0 },          /* task gate */
		{ 0x7000, 0, 0, 0, 0, 0, 0 },
	};

	for (unsigned i = 0; i < ARRAY_SIZE(rows); i++) {
		u64 rights = 0, limit = 0;
		bool lar, lsl, verr, verw;

		if (rows[i].sel == FREE_SEL) {
			gdt_set(FREE_SEL, rows[i].desc);
			gdt_set(FREE_SEL + 8, 0);
		}
		asm volatile("lar %w2, %k1" : "=@ccz"(lar), "+r"(rights) : "r"((u32)rows[i].sel));
		asm volatile("lsl %w2, %k1" : "=@ccz"(lsl), "+r"(limit) : "r"((u32)rows[i].sel));
		asm volatile("verr %w1" : "=@ccz"(verr) : "r"(rows[i].sel));
		asm volatile("verw %w1" : "=@ccz"(verw) : "r"(rows[i].sel));
		CHECK_MANUAL(lar, rows[i].lar);
		CHECK_EQ(lsl, rows[i].lsl);
		if (i != 5) {
			CHECK_EQ(verr, rows[i].verr);
			CHECK_EQ(verw, rows[i].verw);
		}
		if (lar && rows[i].lar)
			CHECK_EQ(rights & 0xf0ff00, rows[i].desc >> 32 & 0xf0ff00);
		else if (!lar)
			CHECK_EQ(rights, 0);                  /* destination unchanged */
		if (lsl)
			CHECK_EQ(limit, rows[i].desc >> 55 & 1 ? 0xffffffff : (rows[i].desc & 0xffff) | (rows[i].desc >> 32 & 0xf0000));
	}
	/* Privilege: kernel data is not visible with RPL 3. */
	bool ok;
	u64 v = 0;
	asm volatile("lar %w2, %k1" : "=@ccz"(ok), "+r"(v) : "r"((u32)KDS | 3));
	CHECK_EQ(ok, 0);
	asm volatile("verr %w1" : "=@ccz"(ok) : "r"((u16)(UDS)));
	CHECK_EQ(ok, 1);
}

int main(void)
{
	test_syscall();
	test_sysret();
	test_sysenter();
	test_iret();
	test_gs();
	test_compat();
	test_far();
	test_lar();
	return 0;
}
