/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Moves between general registers and system registers, with each general register, at both privileges: control registers, selectors, FS and GS
 * bases, TSC_AUX; POP RSP. What a fault must leave alone, and what CR4.FSGSBASE forbids.
 *
 * Environments: long64
 * Spec: SDM vol. 2 MOV, MOV to/from control registers, POP, RDFSBASE, WRFSBASE, RDTSCP, RDPID.
 */
#include "guest.h"

#define NONCANON 0x8000000000000000ull
enum { FS_BASE = 0xc0000100, GS_BASE, TSC_AUX = 0xc0000103, CR4_FSGSBASE = 1 << 16 };

/* A snippet for each register but RSP, and tables of them. */
#define REGS(X, ...) X(rax, 0, __VA_ARGS__) X(rcx, 1, __VA_ARGS__) X(rdx, 2, __VA_ARGS__) X(rbx, 3, __VA_ARGS__) X(rbp, 4, __VA_ARGS__) \
	X(rsi, 5, __VA_ARGS__) X(rdi, 6, __VA_ARGS__) X(r8, 7, __VA_ARGS__) X(r9, 8, __VA_ARGS__) X(r10, 9, __VA_ARGS__) \
	X(r11, 10, __VA_ARGS__) X(r12, 11, __VA_ARGS__) X(r13, 12, __VA_ARGS__) X(r14, 13, __VA_ARGS__) X(r15, 14, __VA_ARGS__)
#define ONE(reg, n, name, before, after) SNIP(name##_##reg, before "%" #reg after);
#define ENTRY(reg, n, name, ...) name##_##reg,
#define EACH(name, before, after) REGS(ONE, name, before, after) static const void *const name[] = { REGS(ENTRY, name) }

EACH(s_cr0, "mov %cr0, ", "");
EACH(s_cr2, "mov %cr2, ", "");
EACH(s_cr3, "mov %cr3, ", "");
EACH(s_cr4, "mov %cr4, ", "");
EACH(s_ss, "mov %ss, ", "");
EACH(s_rdfs, "rdfsbase ", "");
EACH(s_rdgs, "rdgsbase ", "");
EACH(s_wrfs, "wrfsbase ", "; nop");
EACH(s_wrgs, "wrgsbase ", "; nop");
EACH(s_rdpid, "rdpid ", "");
SNIP(s_ss16_rax, "data16 mov %ss, %eax");
SNIP(s_ss16_r9, "data16 mov %ss, %r9d");
SNIP(s_ss16_r14, "data16 mov %ss, %r14d");
SNIP(s_ss_mem, "mov %ss, (%rsi)");
SNIP(s_rdfs32, "rdfsbase %r13d");
SNIP(s_wrfs32, "wrfsbase %r13d");
SNIP(s_poprsp, "pop %rsp");
SNIP(s_poprsp_twice, "pop %rsp; pop %r13; pop %rbx");
SNIP(s_rdfs_rsp, "rdfsbase %rsp");
SNIP(s_cr0_rsp, "mov %rsp, %rbx; mov %cr0, %rsp; mov %rsp, %rax; mov %rbx, %rsp");
SNIP(s_rdtscp, "rdtsc; shl $32, %rdx; lea (%rax,%rdx), %r13; rdtscp; shl $32, %rdx; lea (%rax,%rdx), %r14");

#define NREGS 15
static const u64 mark = 0xa5a5a5a5a5a5a5a5ull, flags = FL_1 | FL_CF | FL_ZF | FL_AF | FL_SF | FL_PF | FL_OF;

static u64 *general(struct regs *r, unsigned n)
{
	return &r->rax + n;
}

static struct regs start(const void *code, bool user)
{
	struct regs r = { .rip = user ? USER(code) : (u64)code, .cs = user ? UCS : KCS, .ss = user ? UDS : KDS,
		.rsp = user ? USER(run_stack_top) - 64 : (u64)run_stack_top - 64, .rflags = flags };

	for (unsigned i = 0; i < NREGS; i++)
		*general(&r, i) = mark + i;
	return r;
}

/* Every register but `but` is what start() made it. */
static bool others_kept(struct regs *r, unsigned but)
{
	for (unsigned i = 0; i < NREGS; i++)
		if (i != but && *general(r, i) != mark + i)
			return false;
	return true;
}

static void reads(const void *const code[NREGS], bool user, u64 want, bool keeps_flags, const char *what)
{
	check_context = what;
	for (unsigned i = 0; i < NREGS; i++) {
		struct regs r = start(code[i], user);

		run(&r);
		CHECK_EQ(r.vec, VEC_DONE);
		CHECK_EQ(*general(&r, i), want);
		CHECK(others_kept(&r, i));
		if (keeps_flags)
			CHECK_EQ(r.rflags, flags);
	}
	check_context = NULL;
}

static void refused(const void *const code[NREGS], bool user, unsigned vec, const char *what)
{
	check_context = what;
	for (unsigned i = 0; i < NREGS; i++) {
		struct regs r = start(code[i], user);

		run(&r);
		CHECK_EQ(r.vec, vec);
		CHECK_EQ(r.err, 0);
		CHECK_EQ(r.rip, user ? USER(code[i]) : (u64)code[i]);
		CHECK(others_kept(&r, NREGS));
		CHECK_EQ(r.rflags & ~(u64)FL_RF, flags);
	}
	check_context = NULL;
}

static void test_control(void)
{
	struct regs r;

	write_cr2(0x123456789abcdef0);
	reads(s_cr0, false, read_cr0(), false, "cr0");
	reads(s_cr2, false, 0x123456789abcdef0, false, "cr2");
	reads(s_cr3, false, read_cr3(), false, "cr3");
	reads(s_cr4, false, read_cr4(), false, "cr4");
	refused(s_cr0, true, GP, "cr0 in user mode");
	refused(s_cr2, true, GP, "cr2 in user mode");
	refused(s_cr3, true, GP, "cr3 in user mode");
	refused(s_cr4, true, GP, "cr4 in user mode");
	r = start(s_cr0_rsp, false);
	run(&r);
	CHECK_EQ(r.rax, read_cr0());
}

static void test_selectors(void)
{
	static u8 page[8192] __attribute__((aligned(4096)));
	struct regs r;

	reads(s_ss, false, KDS, true, "ss");
	reads(s_ss, true, UDS, true, "ss in user mode");
	r = start(s_ss16_rax, true);
	run(&r);
	CHECK_EQ(r.rax, (mark & ~0xffffull) | UDS);
	r = start(s_ss16_r9, true);
	run(&r);
	CHECK_EQ(r.r9, ((mark + 8) & ~0xffffull) | UDS);
	r = start(s_ss16_r14, true);
	run(&r);
	CHECK_EQ(r.r14, ((mark + 13) & ~0xffffull) | UDS);
	CHECK_EQ(r.rflags, flags);
	/* to memory: two bytes, also on two pages, of which the second may be missing */
	for (unsigned off = 4093; off <= 4096; off++) {
		memset(page, 0xee, sizeof(page));
		r = start(s_ss_mem, false);
		r.rsi = (u64)page + off;
		run(&r);
		CHECK_EQ(r.vec, VEC_DONE);
		CHECK_EQ(page[off] | page[off + 1] << 8, KDS);
		CHECK_EQ(page[off - 1], 0xee);
		CHECK_EQ(page[off + 2], 0xee);
		CHECK_EQ(r.rflags, flags);
	}
	map_page(TEST_VA, (u64)page, PTE_P | PTE_W);
	memset(page, 0xee, sizeof(page));
	r = start(s_ss_mem, false);
	r.rsi = TEST_VA + 4095;
	run(&r);
	CHECK_EQ(r.vec, PF);
	CHECK_EQ(r.cr2, TEST_VA + 4096);
	CHECK_EQ(r.err, PF_W);
	CHECK_EQ(page[4095], 0xee);
}

static void writes_base(const void *const code[NREGS], u32 msr, bool user, const char *what)
{
	check_context = what;
	for (unsigned i = 0; i < NREGS; i++) {
		struct regs r = start(code[i], user);

		*general(&r, i) = 0xffff800012345000ull + i;
		run(&r);
		CHECK_EQ(r.vec, VEC_DONE);
		CHECK_EQ(rdmsr(msr), 0xffff800012345000ull + i);
		CHECK_EQ(r.rflags, flags);
		r = start(code[i], user);
		*general(&r, i) = i & 1 ? NONCANON + i : 0x800000000000ull;
		run(&r);
		CHECK_EQ(r.vec, GP);
		CHECK_EQ(r.err, 0);
		CHECK_EQ(r.rip, user ? USER(code[i]) : (u64)code[i]);
		CHECK_EQ(rdmsr(msr), 0xffff800012345000ull + i);
		CHECK_EQ(r.rflags & ~(u64)FL_RF, flags);
		CHECK(others_kept(&r, i));
	}
	check_context = NULL;
}

static void test_bases(void)
{
	struct regs r;

	if (!cpu_has(7, 1, 0))
		return;
	write_cr4(read_cr4() & ~(u64)CR4_FSGSBASE);
	refused(s_rdfs, true, UD, "rdfsbase without CR4.FSGSBASE");
	refused(s_wrgs, false, UD, "wrgsbase without CR4.FSGSBASE");
	write_cr4(read_cr4() | CR4_FSGSBASE);
	for (unsigned user = 0; user < 2; user++) {
		wrmsr(FS_BASE, 0x7fff12345678);
		wrmsr(GS_BASE, 0xffffc00012345678);
		reads(s_rdfs, user, 0x7fff12345678, true, "rdfsbase");
		reads(s_rdgs, user, 0xffffc00012345678, true, "rdgsbase");
		writes_base(s_wrfs, FS_BASE, user, "wrfsbase");
		writes_base(s_wrgs, GS_BASE, user, "wrgsbase");
	}
	wrmsr(FS_BASE, 0xffff888812345678);
	r = start(s_rdfs32, true);
	run(&r);
	CHECK_EQ(r.r13, 0x12345678);
	r = start(s_rdfs_rsp, true);
	run(&r);
	CHECK_EQ(r.rsp, 0xffff888812345678);
	r = start(s_wrfs32, true);
	r.r13 = 0x80000000deadbeefull;      /* not canonical, but only the lower half counts */
	run(&r);
	CHECK_EQ(r.vec, VEC_DONE);
	CHECK_EQ(rdmsr(FS_BASE), 0xdeadbeef);
	wrmsr(FS_BASE, 0);
	wrmsr(GS_BASE, 0);
	write_cr4(read_cr4() & ~(u64)CR4_FSGSBASE);
	refused(s_rdgs, true, UD, "rdgsbase forbidden again");
	write_cr4(read_cr4() | CR4_FSGSBASE);
}

static void test_aux(void)
{
	struct regs r;
	u64 x;

	if (!cpu_has(0x80000001, 3, 27) || wrmsr_safe(TSC_AUX, 0x12345678) != VEC_NONE)
		return;
	if (cpu_has(7, 2, 22)) {
		reads(s_rdpid, true, 0x12345678, true, "rdpid");
		reads(s_rdpid, false, 0x12345678, true, "rdpid");
	}
	r = start(s_rdtscp, true);
	run(&r);
	CHECK_EQ(r.vec, VEC_DONE);
	CHECK_EQ(r.rcx, 0x12345678);
	CHECK(r.r14 >= r.r13 && r.r14 - r.r13 < 1ull << 32);
	x = rdtsc();
	CHECK(x >= r.r14);
	wrmsr(TSC_AUX, 0);
}

static void test_pop(void)
{
	u64 *stack = (u64 *)run_stack_top - 8;
	struct regs r;

	stack[0] = NONCANON | 0x1234;
	r = start(s_poprsp, true);
	run(&r);
	CHECK_EQ(r.vec, VEC_DONE);
	CHECK_EQ(r.rsp, NONCANON | 0x1234);
	CHECK_EQ(r.rflags, flags);
	/* The next pops use the new stack, which is not aligned like the old one. */
	stack[0] = USER(stack) + 20;
	memcpy((u8 *)stack + 20, (u64[]){ 0x1111, 0x2222 }, 16);
	r = start(s_poprsp_twice, true);
	run(&r);
	CHECK_EQ(r.r13, 0x1111);
	CHECK_EQ(r.rbx, 0x2222);
	CHECK_EQ(r.rsp, USER(stack) + 36);
	r = start(s_poprsp, true);
	r.rsp = TEST_VA + 8192;
	run(&r);
	CHECK_EQ(r.vec, PF);
	CHECK_EQ(r.rsp, TEST_VA + 8192);
}

int main(void)
{
	test_control();
	test_selectors();
	test_bases();
	test_aux();
	test_pop();
	return 0;
}
