/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Every exception that can be raised on purpose: vector, error code, saved RIP, RF, CR2, stack switching, double fault.
 *
 * Environments: long64
 * Spec: SDM vol. 3A 6.3-6.15.
 */
#include "guest.h"

#define NONCANON 0x8000000000000000ull

/* --- plain faults and traps at CPL 0 ---------------------------------------------------------------------------- */
static void test_divide(void)
{
	asm volatile(TRY("divl %%ecx") : : "a"(1), "d"(0), "c"(0) : "cc");
	EXPECT_FAULT(DE, 0);
	CHECK_EQ(exc.cs, KCS);
	CHECK_EQ(exc.ss, KDS);
	CHECK_MANUAL(exc.flags & FL_RF, FL_RF);     /* faults push RF set */
	asm volatile(TRY("divl %%ecx") : : "a"(0), "d"(5), "c"(5) : "cc");
	EXPECT_FAULT(DE, 0);
	asm volatile(TRY("idivl %%ecx") : : "a"(0x80000000), "d"(-1), "c"(-1) : "cc");
	EXPECT_FAULT(DE, 0);
	asm volatile(TRY("idivq %%rcx") : : "a"(NONCANON), "d"(-1ll), "c"(-1ll) : "cc");
	EXPECT_FAULT(DE, 0);
	asm volatile(TRY("divb %%cl") : : "a"(0x1000), "c"(0x10) : "cc");
	EXPECT_FAULT(DE, 0);
	asm volatile(TRY("idivb %%cl") : : "a"(0xff80), "c"(1) : "cc");
	EXPECT_NONE();
	asm volatile(TRY("idivb %%cl") : : "a"(0x0080), "c"(1) : "cc");
	EXPECT_FAULT(DE, 0);
	asm volatile(TRY("divq %%rcx") : : "a"(0), "d"(1ull << 62), "c"((1ull << 62) + 1) : "cc");
	EXPECT_NONE();
}

static void test_ud(void)
{
	TRYV("ud2", "a"(0));
	EXPECT_FAULT(UD, 0);
	CHECK_MANUAL(exc.flags & FL_RF, FL_RF);
	TRYV(".byte 0x06", "a"(0));              /* PUSH ES */
	EXPECT_FAULT(UD, 0);
	TRYV(".byte 0x37", "a"(0));              /* AAA */
	EXPECT_FAULT(UD, 0);
	TRYV(".byte 0xd4, 0x0a", "a"(0));        /* AAM */
	EXPECT_FAULT(UD, 0);
	TRYV(".byte 0x9a, 0,0,0,0, 8,0", "a"(0)); /* CALL ptr16:32 */
	EXPECT_FAULT(UD, 0);
	TRYV(".byte 0xea, 0,0,0,0, 8,0", "a"(0));
	EXPECT_FAULT(UD, 0);
	TRYV(".byte 0x82, 0xc0, 0", "a"(0));     /* group 1 alias */
	EXPECT_FAULT(UD, 0);
	TRYV(".byte 0xce", "a"(0));              /* INTO */
	EXPECT_FAULT(UD, 0);
	TRYV(".byte 0xf0, 0x90", "a"(0));        /* LOCK NOP */
	EXPECT_FAULT(UD, 0);
	TRYV(".byte 0xf0, 0x01, 0xc0", "a"(0));  /* LOCK ADD eax, eax */
	EXPECT_FAULT(UD, 0);
	TRYV(".byte 0xf0, 0x8b, 0x00", "a"(0));  /* LOCK MOV */
	EXPECT_FAULT_MANUAL(UD, 0);
	TRYV(".byte 0x8d, 0xc0", "a"(0));        /* LEA reg */
	EXPECT_FAULT(UD, 0);
	TRYV(".byte 0x8e, 0xc8", "a"(0));        /* MOV CS */
	EXPECT_FAULT(UD, 0);
	TRYV(".byte 0x0f, 0x20, 0xc8", "a"(0));  /* MOV rax, CR1 */
	EXPECT_FAULT(UD, 0);
	TRYV(".byte 0x0f, 0x22, 0xe8", "a"(0));  /* MOV CR5, rax */
	EXPECT_FAULT(UD, 0);
	TRYV(".byte 0xfe, 0xd0", "a"(0));        /* group 4 /2 */
	EXPECT_FAULT(UD, 0);
	TRYV(".byte 0xff, 0xf8", "a"(0));        /* group 5 /7 */
	EXPECT_FAULT(UD, 0);
	TRYV(".byte 0xff, 0xe8", "a"(0));        /* JMP far with a register operand */
	EXPECT_FAULT(UD, 0);
	TRYV(".byte 0x0f, 0xb9, 0xc0", "a"(0));  /* UD1 */
	EXPECT_FAULT(UD, 0);
	TRYV(".byte 0x62", "a"(0));              /* BOUND is gone; without AVX-512 also #UD */
	CHECK_EQ(exc.vec, UD);
	write_cr4(read_cr4() & ~BIT(9));         /* OSFXSR = 0: SSE is #UD */
	TRYV("xorps %%xmm0, %%xmm0", "a"(0));
	EXPECT_FAULT(UD, 0);
	write_cr4(read_cr4() | BIT(9));
}

static void test_int3_into(void)
{
	TRYV("int3", "a"(0));
	EXPECT_TRAP(BP);
	CHECK_EQ(exc.flags & FL_RF, 0);          /* traps do not */
	TRYV(".byte 0xcd, 0x03", "a"(0));
	EXPECT_TRAP(BP);
	TRYV("int $0x80", "a"(0));
	EXPECT_TRAP(0x80);
	TRYV(".byte 0xf1", "a"(0));              /* INT1 */
	EXPECT_TRAP_MANUAL(DB);
	CHECK_EQ(exc.dr6 & 0xe00f, 0);
}

/* INT 13 has no error code: check with a gate whose stub pushes one itself. */
static void test_int13(void)
{
	idt_gate(GP, trap_stubs + 0x60 * TRAP_STUB_SIZE, KCS, 0x8e, 0);
	TRYV("int $13", "a"(0));
	EXPECT_TRAP(0x60);
	idt_default(GP);
}

static void test_gp_selectors(void)
{
	TRYV("mov %w0, %%ds", "r"(0x7008));       /* beyond the GDT limit */
	EXPECT_FAULT(GP, 0x7008);
	TRYV("mov %w0, %%ds", "r"(0x700b));
	EXPECT_FAULT(GP, 0x7008);
	TRYV("mov %w0, %%ds", "r"(0x4c));          /* LDT is null */
	EXPECT_FAULT(GP, 0x4c);
	gdt_set(FREE_SEL, seg_desc(0, 0xfffff, 0x13, 0xc));      /* data, not present */
	TRYV("mov %w0, %%ds", "r"(FREE_SEL));
	EXPECT_FAULT(NP, FREE_SEL);
	TRYV("mov %w0, %%fs", "r"(FREE_SEL));
	EXPECT_FAULT(NP, FREE_SEL);
	TRYV("mov %w0, %%ss", "r"(FREE_SEL));
	EXPECT_FAULT(SS_, FREE_SEL);
	TRYV("mov %w0, %%ss", "r"(UDS));           /* RPL, DPL != CPL */
	EXPECT_FAULT(GP, UDS & ~3);
	TRYV("mov %w0, %%ss", "r"(KDS | 3));
	EXPECT_FAULT(GP, KDS);
	TRYV("mov %w0, %%ss", "r"(KCS));
	EXPECT_FAULT(GP, KCS);
	TRYV("mov %w0, %%ds", "r"(KCS));           /* readable code is fine */
	EXPECT_NONE();
	gdt_set(FREE_SEL, seg_desc(0, 0xfffff, 0x99, 0xa));      /* execute-only code */
	TRYV("mov %w0, %%ds", "r"(FREE_SEL));
	EXPECT_FAULT(GP, FREE_SEL);
	gdt_set(FREE_SEL, seg_desc(0, 0xfffff, 0x91, 0xc));      /* read-only data */
	TRYV("mov %w0, %%ss", "r"(FREE_SEL));
	EXPECT_FAULT(GP, FREE_SEL);
	TRYV("mov %w0, %%es", "r"(FREE_SEL));
	EXPECT_NONE();
	TRYV("mov %w0, %%es", "r"(TSS_SEL));       /* system descriptor */
	EXPECT_FAULT(GP, TSS_SEL);
	TRYV("mov %w0, %%ss", "r"(0));             /* null SS: allowed in 64-bit mode below CPL 3 */
	EXPECT_NONE();
	TRYV("mov %w0, %%ss; mov %w0, %%ds; mov %w0, %%es", "r"(KDS));
	gdt_set(FREE_SEL, seg_desc(0, 0xfffff, 0x92, 0xc));
	TRYV("mov %w0, %%ds", "r"(FREE_SEL));
	CHECK_EQ(gdt[FREE_SEL >> 3] >> 40 & 1, 1);  /* accessed bit is set */
	TRYV("mov %w0, %%ds", "r"(KDS));
}

static void test_gp_system(void)
{
	if (!on_qemu) {                            /* which loads it */
		TRYV("ltr %w0", "r"(0));
		EXPECT_FAULT(GP, 0);
	}
	TRYV("ltr %w0", "r"(TSS_SEL));             /* busy */
	EXPECT_FAULT(GP, TSS_SEL);
	TRYV("ltr %w0", "r"(KDS));
	EXPECT_FAULT(GP, KDS);
	gdt_set(FREE_SEL, seg_desc(0, 0x67, 0x09, 0));
	gdt_set(FREE_SEL + 8, 0);
	TRYV("ltr %w0", "r"(FREE_SEL));
	EXPECT_FAULT(NP, FREE_SEL);
	TRYV("lldt %w0", "r"(KDS));
	EXPECT_FAULT(GP, KDS);
	gdt_set(FREE_SEL, seg_desc(0, 0xfff, 0x02, 0));
	TRYV("lldt %w0", "r"(FREE_SEL));
	EXPECT_FAULT(NP, FREE_SEL);
	TRYV("lldt %w0", "r"(0));
	EXPECT_NONE();
	TRYV("mov %0, %%cr0", "r"(read_cr0() | BIT(32)));
	EXPECT_FAULT_MANUAL(GP, 0);
	TRYV("mov %0, %%cr0", "r"((read_cr0() | BIT(29)) & ~BIT(30)));  /* NW without CD */
	CHECK_MANUAL(exc.vec, GP);
	write_cr0(read_cr0() & ~BIT(29));
	if (!on_qemu) {                                           /* TCG believes some of them and dies, and hangs on the others */
		TRYV("mov %0, %%cr0", "r"(read_cr0() & ~1ul));     /* PG without PE */
		EXPECT_FAULT(GP, 0);
		TRYV("mov %0, %%cr4", "r"(read_cr4() & ~BIT(5)));  /* PAE off in long mode */
		EXPECT_FAULT(GP, 0);
		TRYV("mov %0, %%cr3", "r"(read_cr3() | BIT(60)));
		EXPECT_FAULT(GP, 0);
		TRYV("mov %0, %%cr4", "r"(read_cr4() | BIT(31)));
		EXPECT_FAULT(GP, 0);
		TRYV("mov %0, %%cr4", "r"(read_cr4() | BIT(40)));
		EXPECT_FAULT(GP, 0);
	}
	TRYV("mov %0, %%cr8", "r"(0x10ul));
	CHECK_MANUAL(exc.vec, GP);
	TRYV("mov %0, %%dr7", "r"(BIT(32)));
	EXPECT_FAULT(GP, 0);
	TRYV("mov %0, %%dr6", "r"(BIT(32)));
	EXPECT_FAULT(GP, 0);
	CHECK_MANUAL(wrmsr_safe(0xc0000080, rdmsr(0xc0000080) & ~BIT(8)), GP);   /* LME with paging on */
	CHECK_MANUAL(exc.rip, exc_insn);
	if (on_qemu)
		wrmsr(0xc0000080, 0xd01);
	CHECK_MANUAL(wrmsr_safe(0xc0000080, rdmsr(0xc0000080) | BIT(20)), GP);
	CHECK_MANUAL(wrmsr_safe(0xc0000082, NONCANON), GP);
	CHECK_MANUAL(wrmsr_safe(0xc0000100, NONCANON), GP);
	CHECK_MANUAL(wrmsr_safe(0xc0000102, NONCANON), GP);
}

static void test_canonical(void)
{
	u64 sp;

	TRYV("movb (%0), %%al", "S"(NONCANON) , "a"(0));
	EXPECT_FAULT(GP, 0);
	TRYV("movb (%0), %%al", "S"(0x800000000000ull), "a"(0));
	EXPECT_FAULT(GP, 0);
	TRYV("movb %%al, (%0)", "S"(0xffff7fffffffffffull), "a"(0));
	EXPECT_FAULT(GP, 0);
	TRYV("movq 0(%0), %%rax", "S"(0x7ffffffffff9ull), "a"(0));     /* last byte is not canonical */
	CHECK_MANUAL(exc.vec, GP);
	CHECK_MANUAL(exc.err, 0);
	/* RBP and RSP based accesses use SS. */
	asm volatile("mov %%rbp, %%rbx\n\tmov %0, %%rbp\n\t" TRY("movb 0(%%rbp), %%al") "mov %%rbx, %%rbp" : : "r"(NONCANON) : "rbx", "rax", "memory");
	CHECK_MANUAL(exc.vec, SS_);
	CHECK_EQ(exc.err, 0);
	asm volatile("mov %%rbp, %%rbx\n\tmov %0, %%rbp\n\t" TRY("movb %%ds:0(%%rbp), %%al") "mov %%rbx, %%rbp" : : "r"(NONCANON) : "rbx", "rax", "memory");
	CHECK_MANUAL(exc.vec, SS_);               /* DS override is ignored in 64-bit mode: still SS */
	for (unsigned v = 12; v <= 14; v++)
		idt_ist(v, 1);
	asm volatile("mov %%rsp, %0\n\tmov %1, %%rsp\n\t" TRY("push %%rax") "mov %0, %%rsp" : "=&r"(sp) : "r"(NONCANON) : "memory");
	CHECK_MANUAL(exc.vec, SS_);
	CHECK_EQ(exc.err, 0);
	CHECK_EQ(exc.sp, NONCANON);               /* unchanged */
	CHECK_EQ(exc.rip, exc_insn);
	asm volatile("mov %%rsp, %0\n\tmov %1, %%rsp\n\t" TRY("pop %%rax") "mov %0, %%rsp" : "=&r"(sp) : "r"(NONCANON) : "rax", "memory");
	CHECK_MANUAL(exc.vec, SS_);
	asm volatile("mov %%rsp, %0\n\tmov %1, %%rsp\n\t" TRY("call *%%rax") "mov %0, %%rsp" : "=&r"(sp) : "r"(NONCANON), "a"(test_canonical) : "memory");
	CHECK_MANUAL(exc.vec, SS_);
	CHECK_EQ(exc.rip, exc_insn);
	for (unsigned v = 12; v <= 14; v++)
		idt_ist(v, 0);
	/* A branch to a non-canonical target faults on the branch. */
	TRYV("jmp *%0", "r"(NONCANON));
	CHECK_MANUAL(exc.vec, GP);
	CHECK_MANUAL(exc.rip, exc_insn);
	asm volatile("mov %%rsp, %%rbx\n\t" TRY("call *%1") "mov %%rsp, %%rax\n\tmov %%rbx, %%rsp" : "=&a"(sp) : "r"(NONCANON) : "rbx", "memory");
	CHECK_MANUAL(exc.vec, GP);
	CHECK_MANUAL(exc.rip, exc_insn);
}

static void test_pf(void)
{
	volatile u64 *p = (u64 *)TEST_VA;

	TRYV("movb (%0), %%al", "r"(p), "a"(0));
	EXPECT_FAULT(PF, 0);
	CHECK_EQ(exc.cr2, TEST_VA);
	CHECK_MANUAL(exc.flags & FL_RF, FL_RF);
	TRYV("movb %%al, 0x123(%0)", "r"(p), "a"(0));
	EXPECT_FAULT(PF, PF_W);
	CHECK_EQ(exc.cr2, TEST_VA + 0x123);
	TRYV("addl $1, 0x123(%0)", "r"(p), "a"(0));       /* read-modify-write reports the write */
	CHECK_EQ(exc.vec, PF);
	CHECK_MANUAL(exc.err, PF_W);
	TRYV("cmpl $1, 0x123(%0)", "r"(p), "a"(0));
	EXPECT_FAULT(PF, 0);
	TRYV("lock; cmpxchgl %%ecx, 0x123(%0)", "r"(p), "a"(0));
	CHECK_EQ(exc.vec, PF);
	CHECK_MANUAL(exc.err, PF_W);
	TRYV("prefetcht0 (%0)", "r"(p));
	EXPECT_NONE();
	map_page(TEST_VA, (u64)page_alloc(), PTE_P | PTE_W);
	TRYV("movq 0xffc(%0), %%rax", "r"(p), "a"(0));    /* crossing: CR2 is the second page */
	EXPECT_FAULT(PF, 0);
	CHECK_EQ(exc.cr2, TEST_VA + 0x1000);
	TRYV("movq %%rax, 0xffc(%0)", "r"(p), "a"(~0ull));
	EXPECT_FAULT(PF, PF_W);
	CHECK_EQ(exc.cr2, TEST_VA + 0x1000);
	CHECK_EQ(*(u32 *)(TEST_VA + 0xffc), 0);            /* nothing was written */
	/* A fetch from an absent page. */
	asm volatile("mov %%rsp, %%rbx\n\t" TRY("jmp *%0") "mov %%rbx, %%rsp" : : "r"(TEST_VA + 0x5000) : "rbx", "memory");
	CHECK_EQ(exc.vec, PF);
	CHECK_EQ(exc.err, PF_I);                           /* NXE is on */
	CHECK_EQ(exc.cr2, TEST_VA + 0x5000);
	CHECK_EQ(exc.rip, TEST_VA + 0x5000);
}

/* --- at CPL 3 ------------------------------------------------------------------------------------------------------ */
SNIP(s_hlt, "hlt");
SNIP(s_cli, "cli");
SNIP(s_in, "inb $0x80, %al");
SNIP(s_cr, "mov %cr0, %rax");
SNIP(s_wrmsr, "wrmsr");
SNIP(s_int20, "int $0x20");
SNIP(s_int3, "int3; nop");
SNIP(s_int1, ".byte 0xf1; nop");
SNIP(s_int21, "int $0x21; nop");
SNIP(s_ac, "mov 1(%rsi), %eax");
SNIP(s_ac2, "mov 1(%rsi), %al; mov 2(%rsi), %ax; mov 8(%rsi), %rax; mov 4(%rsi), %eax");
SNIP(s_ac16, "mov 1(%rsi), %ax");
SNIP(s_ac64, "mov %rax, 4(%rsi)");
SNIP(s_load, "mov (%rsi), %rax");
SNIP(s_popss, "mov %eax, %ss");
SNIP(s_popds, "mov %eax, %ds");
SNIP(s_ud2, "ud2");
SNIP(s_lgdt, "lgdt (%rsi)");
SNIP(s_invlpg, "invlpg (%rsi)");
SNIP(s_clts, "clts");
SNIP(s_sti, "sti");
SNIP(s_outs, "outsb");
SNIP(s_done, "mov $0x1234, %eax; xor %ebx, %ebx");

static struct regs user(const void *code)
{
	return (struct regs){ .rip = USER(code), .cs = UCS, .ss = UDS, .rsp = USER(run_stack_top), .rflags = FL_1 };
}

static void expect_user(const void *code, unsigned vec, u64 err, u64 rax)
{
	struct regs r = user(code);

	r.rax = rax;
	r.rsi = USER(run_stack_top) - 256;
	run(&r);
	CHECK_EQ(r.vec, vec);
	if (err & 2)
		CHECK_MANUAL(r.err, err);               /* TCG 7.2 multiplies the vector by 16 */
	else
		CHECK_EQ(r.err, err);
	CHECK_EQ(r.rip, USER(code));
	CHECK_EQ(r.cs, UCS);
	CHECK_EQ(r.ss, UDS);
	CHECK_EQ(r.rsp, USER(run_stack_top));
	CHECK_EQ(r.rax, rax);
}

static void test_user(void)
{
	struct regs r = user(s_done);

	run(&r);
	CHECK_EQ(r.vec, VEC_DONE);
	CHECK_EQ(r.rax, 0x1234);
	CHECK_EQ(r.rip, USER(s_done_end) + 2);
	expect_user(s_hlt, GP, 0, 0);
	expect_user(s_cli, GP, 0, 0);
	expect_user(s_sti, GP, 0, 0);
	expect_user(s_in, GP, 0, 0);
	expect_user(s_outs, GP, 0, 0);
	expect_user(s_cr, GP, 0, 0);
	expect_user(s_wrmsr, GP, 0, 0);
	expect_user(s_lgdt, GP, 0, 0);
	expect_user(s_invlpg, GP, 0, 0);
	expect_user(s_clts, GP, 0, 0);
	expect_user(s_ud2, UD, 0, 0);
	expect_user(s_int20, GP, 0x20 * 8 + 2, 0);          /* gate DPL 0: IDT bit */
	expect_user(s_int3, GP, 3 * 8 + 2, 0);
	expect_user(s_popss, GP, 0, 0);                     /* null SS at CPL 3 */
	expect_user(s_popss, GP, KDS, KDS);
	expect_user(s_popds, GP, KDS, KDS | 3);
	expect_user(s_popds, GP, KDS, KDS);
	idt_dpl(3, 3);
	r = user(s_int3);
	run(&r);
	CHECK_EQ(r.vec, BP);
	CHECK_EQ(r.rip, USER(s_int3) + 1);
	idt_dpl(3, 0);
	/* INT1 ignores the gate's DPL. */
	r = user(s_int1);
	run(&r);
	CHECK_MANUAL(r.vec, DB);
	CHECK_MANUAL(r.rip, USER(s_int1) + 1);
	idt_dpl(0x20, 3);
	idt_present(0x20, false);
	expect_user(s_int20, NP, 0x20 * 8 + 2, 0);
	idt_default(0x20);
	idt_load(0x20f);                                    /* vector 0x21 is outside */
	idt_dpl(0x21, 3);
	expect_user(s_int21, GP, 0x21 * 8 + 2, 0);
	idt_load(IDT_FULL_LIMIT);
	idt_default(0x21);
	idt_gate(0x20, trap_stubs, KCS, 0xec, 0);           /* not a gate type (call gate) */
	expect_user(s_int20, GP, 0x20 * 8 + 2, 0);
	idt_gate(0x20, trap_stubs, KDS, 0xee, 0);           /* not code */
	expect_user(s_int20, GP, KDS, 0);
	idt_gate(0x20, trap_stubs, 0, 0xee, 0);
	expect_user(s_int20, GP, 0, 0);
	idt_gate(0x20, trap_stubs, KCS32, 0xee, 0);         /* not 64-bit code */
	expect_user(s_int20, GP, KCS32, 0);
	gdt_set(FREE_SEL, seg_desc(0, 0xfffff, 0x1b, 0xa));
	idt_gate(0x20, trap_stubs, FREE_SEL, 0xee, 0);
	expect_user(s_int20, NP, FREE_SEL, 0);
	idt_gate(0x20, trap_stubs, 0xf8 + 0x800, 0xee, 0);
	expect_user(s_int20, GP, 0xf8 + 0x800, 0);
	idt_default(0x20);
}

/* INT through an interrupt gate to CPL 0: IF, TF, NT, RF cleared inside; through a trap gate IF stays. */
static u64 seen_flags, seen_rsp;
static void see_flags(struct regs *f)
{
	seen_flags = read_flags();
	seen_rsp = (u64)(f + 1) - 16;      /* cr2, dr6 are not part of the frame */
}

SNIP(s_int30, "int $0x30; nop");

static void test_gate_flags(void)
{
	struct regs r = user(s_int30);

	irq_handler[0x30] = see_flags;
	idt_gate(0x30, trap_stubs + 0x30 * TRAP_STUB_SIZE, KCS, 0xee, 0);
	r.rflags = FL_1 | FL_IF | FL_NT | FL_AC;
	run(&r);
	CHECK_EQ(r.vec, VEC_DONE);
	CHECK_EQ(seen_flags & (FL_IF | FL_NT | FL_TF), 0);
	CHECK_EQ(seen_flags & FL_AC, FL_AC);
	CHECK_EQ(r.rflags & (FL_IF | FL_NT), FL_IF | FL_NT);
	CHECK_EQ(seen_rsp, (u64)trap_stack_top);
	idt_gate(0x30, trap_stubs + 0x30 * TRAP_STUB_SIZE, KCS, 0xef, 0);
	r = user(s_int30);
	r.rflags = FL_1 | FL_IF;
	run(&r);
	CHECK_EQ(seen_flags & FL_IF, FL_IF);
	cli();
	/* RSP0 is not aligned by the CPL change itself but the frame is: push starts at a multiple of 16. */
	tss.rsp[0] = (u64)trap_stack_top - 5;
	r = user(s_int30);
	run(&r);
	CHECK_EQ(seen_rsp, ((u64)trap_stack_top - 5) & -16ull);
	tss.rsp[0] = (u64)trap_stack_top;
	for (unsigned n = 1; n <= 7; n++) {
		idt_gate(0x30, trap_stubs + 0x30 * TRAP_STUB_SIZE, KCS, 0xee, n);
		r = user(s_int30);
		run(&r);
		CHECK_EQ(seen_rsp, (u64)ist_stack_top - (n - 1) * 8192);
	}
	/* Same level: aligned too, and SS:RSP are pushed. */
	idt_gate(0x30, trap_stubs + 0x30 * TRAP_STUB_SIZE, KCS, 0x8e, 0);
	for (unsigned off = 0; off < 16; off++) {
		r = (struct regs){ .rip = (u64)s_int30, .cs = KCS, .ss = KDS, .rsp = (u64)run_stack_top - 64 - off, .rflags = FL_1 };
		run(&r);
		CHECK_EQ(r.vec, VEC_DONE);
		CHECK_EQ(seen_rsp, (r.rsp) & -16ull);
		CHECK_EQ(r.rsp, (u64)run_stack_top - 64 - off);
		CHECK_EQ(r.ss, KDS);
	}
	idt_default(0x30);
	irq_handler[0x30] = NULL;
}

static void expect_ac(const void *code, bool fault)
{
	struct regs r = user(code);

	r.rflags |= FL_AC;
	r.rsi = USER(run_stack_top) - 256;
	run(&r);
	if (fault) {
		CHECK_EQ(r.vec, AC);
		CHECK_EQ(r.err, 0);
		CHECK_EQ(r.rip, USER(code));
	} else {
		CHECK_EQ(r.vec, VEC_DONE);
	}
}

static void test_ac(void)
{
	expect_ac(s_ac, false);              /* CR0.AM is off */
	write_cr0(read_cr0() | BIT(18));
	if (!on_qemu) {                       /* TCG 7.2 does no alignment checks */
		expect_ac(s_ac, true);
		expect_ac(s_ac16, true);
		expect_ac(s_ac64, true);
	}
	expect_ac(s_ac2, false);
	/* Never at CPL 0. */
	write_flags(read_flags() | FL_AC);
	TRYV("mov 1(%0), %%eax", "r"(run_stack_top - 256), "a"(0));
	EXPECT_NONE();
	write_flags(read_flags() & ~(ul)FL_AC);
	write_cr0(read_cr0() & ~BIT(18));
}

/* --- floating point exceptions ---------------------------------------------------------------------------------------- */
static void test_fp(void)
{
	u32 mxcsr = 0x1f80 & ~0x200u;        /* unmask #Z */
	u16 cw = 0x37b;                      /* unmask ZE */
	u16 sw;

	asm volatile("fninit");
	asm volatile("ldmxcsr %0" : : "m"(mxcsr));
	TRYV("xorps %%xmm1, %%xmm1; mov $0x3f800000, %%eax; movd %%eax, %%xmm0", "a"(0));
	TRYV("divss %%xmm1, %%xmm0", "a"(0));
	EXPECT_FAULT_MANUAL(XM, 0);
	asm volatile("stmxcsr %0" : "=m"(mxcsr));
	CHECK_EQ(mxcsr & 0x3f, 4);
	mxcsr = 0x1f80;
	asm volatile("ldmxcsr %0" : : "m"(mxcsr));
	asm volatile("fldcw %0; fld1; fldz; fdivrp" : : "m"(cw));     /* 1 / 0, pending */
	asm volatile("fnstsw %0" : "=a"(sw));
	CHECK_EQ(sw & 0x84, 0x84);           /* ES, ZE */
	TRYV("fnop", "a"(0));
	EXPECT_FAULT(MF, 0);
	TRYV("fwait", "a"(0));
	EXPECT_FAULT(MF, 0);
	TRYV("fnclex", "a"(0));
	EXPECT_NONE();
	TRYV("fwait", "a"(0));
	EXPECT_NONE();
	asm volatile("fninit");
	write_cr0(read_cr0() | BIT(3));      /* TS */
	TRYV("fnop", "a"(0));
	EXPECT_FAULT(NM, 0);
	TRYV("fwait", "a"(0));               /* MP is set */
	EXPECT_FAULT(NM, 0);
	TRYV("xorps %%xmm0, %%xmm0", "a"(0));
	EXPECT_FAULT(NM, 0);
	asm volatile("clts");
	TRYV("fnop", "a"(0));
	EXPECT_NONE();
	write_cr0(read_cr0() | BIT(2));      /* EM */
	TRYV("fnop", "a"(0));
	EXPECT_FAULT(NM, 0);
	TRYV("xorps %%xmm0, %%xmm0", "a"(0));
	EXPECT_FAULT(UD, 0);
	write_cr0(read_cr0() & ~BIT(2));
	mxcsr = 0x10000;
	TRYV("ldmxcsr (%0)", "r"(&mxcsr));
	EXPECT_FAULT_MANUAL(GP, 0);
	TRYV("movaps (%0), %%xmm0", "r"((u64)run_stack_top - 60));
	CHECK_MANUAL(exc.vec, GP);
}

/* --- double fault ------------------------------------------------------------------------------------------------------ */
static void test_df(void)
{
	idt_present(PF, false);              /* #PF -> #NP while delivering -> #DF */
	idt_ist(DF, 1);
	TRYV("movb (%0), %%al", "r"(TEST_VA + 0x100000), "a"(0));
	CHECK_EQ(exc.vec, DF);
	CHECK_EQ(exc.err, 0);
	idt_default(PF);
	idt_present(GP, false);              /* #GP -> #NP -> #DF */
	TRYV("mov %w0, %%ds", "r"(0x7008));
	CHECK_EQ(exc.vec, DF);
	idt_default(GP);
	/* #UD is benign: a #NP while delivering it is handled serially, EXT set. */
	idt_present(UD, false);
	TRYV("ud2", "a"(0));
	CHECK_EQ(exc.vec, NP);
	CHECK_MANUAL(exc.err, UD * 8 + 2 + 1);
	CHECK_EQ(exc.rip, exc_insn);
	idt_default(UD);
	/* A software interrupt's gate fault has EXT clear. */
	idt_present(0x40, false);
	TRYV("int $0x40", "a"(0));
	EXPECT_FAULT_MANUAL(NP, 0x40 * 8 + 2);
	idt_default(0x40);
	/* Bad stack on CPL change: RSP0 absent -> #PF on the push, which needs IST to survive. */
	struct regs r = user(s_ud2);
	idt_ist(PF, 2);
	tss.rsp[0] = TEST_VA + 0x200000;
	run(&r);
	CHECK_EQ(r.vec, PF);
	CHECK_EQ(r.err, PF_W);               /* supervisor write */
	CHECK_EQ(r.cs, UCS);
	CHECK_EQ(r.rip, USER(s_ud2));
	CHECK_EQ(r.cr2, TEST_VA + 0x200000 - 8);
	/* ... and #PF during #PF is #DF. */
	r = user(s_load);
	r.rsi = TEST_VA + 0x300000;
	idt_ist(PF, 0);
	run(&r);
	CHECK_EQ(r.vec, DF);
	CHECK_EQ(r.err, 0);
	CHECK_EQ(r.cs, UCS);
	/* Non-canonical RSP0: #SS(0), here with EXT for an exception's delivery. */
	tss.rsp[0] = NONCANON;
	r = user(s_ud2);
	idt_ist(SS_, 2);
	run(&r);
	CHECK_EQ(r.vec, SS_);
	CHECK_EQ(r.err & ~1ull, 0);
	CHECK_EQ(r.rip, USER(s_ud2));
	idt_ist(SS_, 0);
	tss.rsp[0] = (u64)trap_stack_top;
	idt_ist(DF, 0);
}

/* Vector n's IST slot non-canonical and nested delivery on distinct ISTs. */
static int nest_depth;
static void nested(struct regs *f)
{
	if (nest_depth++ == 0)
		asm volatile("int $0x32");
	(void)f;
}

static void test_nested(void)
{
	irq_handler[0x31] = nested;
	irq_handler[0x32] = nested;
	idt_ist(0x31, 3);
	idt_ist(0x32, 4);
	asm volatile("int $0x31" ::: "memory");
	CHECK_EQ(nest_depth, 2);
	idt_default(0x31);
	idt_default(0x32);
	irq_handler[0x31] = irq_handler[0x32] = NULL;
}

int main(void)
{
	test_divide();
	test_ud();
	test_int3_into();
	test_int13();
	test_gp_selectors();
	test_gp_system();
	test_canonical();
	test_pf();
	test_user();
	test_gate_flags();
	test_ac();
	test_fp();
	test_df();
	test_nested();
	return 0;
}
