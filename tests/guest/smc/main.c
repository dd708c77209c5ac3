/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Self- and cross-modifying code: an engine that caches decoded or translated code must execute what memory says.
 *
 * Every case loops far past any translation threshold.
 *
 * Environments: long64
 * Spec: SDM vol. 3A 8.1.3, 11.6: on one processor a store is seen by later fetches after a branch; through another linear address
 * after a serializing instruction.
 */
#include "guest.h"

enum { LOOPS = 300 };
static u8 *page;                   /* two neighbouring pages of scratch code */
typedef u64 fn(u64);

static u64 call(const void *p, u64 a)
{
	return ((fn *)(ul)p)(a);
}

static void serialize(void)
{
	u32 o[4];
	cpuid(0, 0, o);
}

/* mov eax, imm32; ret */
static void put_mov(u8 *p, u32 v)
{
	p[0] = 0xb8;
	p[1] = (u8)v;
	p[2] = (u8)(v >> 8);
	p[3] = (u8)(v >> 16);
	p[4] = (u8)(v >> 24);
	p[5] = 0xc3;
}

static void test_rewrite(void)
{
	bool ok = true;

	for (u32 i = 0; i < LOOPS; i++) {
		put_mov(page, i * 7);
		ok &= call(page, 0) == i * 7;
	}
	CHECK(ok);
	/* one byte of the immediate */
	for (u32 i = 0; i < LOOPS; i++) {
		page[1] = (u8)i;
		ok &= (call(page, 0) & 0xff) == (u8)i;
	}
	CHECK(ok);
	/* data next to code on the same page must not disturb it */
	put_mov(page, 5);
	for (u32 i = 0; i < LOOPS; i++) {
		*(volatile u32 *)(page + 64) = i;
		ok &= call(page, 0) == 5 && *(volatile u32 *)(page + 64) == i;
	}
	CHECK(ok);
	/* heated code, then one change */
	put_mov(page + 128, 1);
	for (u32 i = 0; i < 5000; i++)
		ok &= call(page + 128, 0) == 1;
	put_mov(page + 128, 2);
	for (u32 i = 0; i < 5000; i++)
		ok &= call(page + 128, 0) == 2;
	CHECK(ok);
}

/* The store modifies the instruction right behind itself, or the one behind that, or a later one in the same basic block. */
asm(".pushsection .data; .balign 64; .globl smc_next, smc_later, smc_self_loop, smc_back, smc_rep, smc_push\n"
    /* rdi = new immediate */
    "smc_next: movl %edi, 1f+1(%rip); 1: mov $0x11111111, %eax; ret\n"
    "smc_later: xor %eax, %eax; movb %dil, 1f+2(%rip); nop; inc %ecx; add %ecx, %edx; lea 3(%rdx), %edx; 1: add $0x11, %eax; ret\n"
    /* every round patches the add it is about to execute: sum of 0..n-1 */
    "smc_self_loop: xor %eax, %eax; xor %ecx, %ecx; 2: movl %ecx, 1f+1(%rip); 1: add $0x12345678, %eax; inc %ecx; cmp %edi, %ecx; jne 2b; ret\n"
    /* patch an instruction that has already run (behind the PC): takes effect in the next round */
    "smc_back: xor %eax, %eax; mov $2, %ecx; 1: add $0x12345678, %eax; movl %edi, 1b+1(%rip); dec %ecx; jnz 1b; ret\n"
    /* overwrite the following instructions with REP MOVSB: rsi -> 6 bytes */
    "smc_rep: mov %rdi, %rsi; lea 1f(%rip), %rdi; mov $6, %ecx; rep movsb; 1: mov $0x11111111, %eax; ret\n"
    /* overwrite by PUSH: rsp points behind the target */
    "smc_push: mov %rsp, %rdx; lea 1f+8(%rip), %rsp; push %rdi; mov %rdx, %rsp; 1: nop; nop; nop; nop; nop; nop; nop; nop; ret\n"
    ".popsection");
extern u8 smc_next[], smc_later[], smc_self_loop[], smc_back[], smc_rep[], smc_push[];

static void test_same_block(void)
{
	bool ok = true;
	u8 code[6];

	for (u32 i = 0; i < LOOPS; i++)
		ok &= call(smc_next, i * 3 + 1) == i * 3 + 1;
	CHECK(ok);
	for (u32 i = 0; i < LOOPS; i++)
		ok &= call(smc_later, i & 0x7f) == (i & 0x7f);
	CHECK(ok);
	CHECK_EQ(call(smc_self_loop, 200), 200 * 199 / 2);
	CHECK_EQ(call(smc_self_loop, 1000), 1000 * 999 / 2);
	for (u32 i = 1, prev = 0x12345678; i < LOOPS; prev = i++)
		ok &= (u32)call(smc_back, i) == prev + i;
	CHECK(ok);
	for (u32 i = 0; i < LOOPS; i++) {
		put_mov(code, ~i);
		ok &= (u32)call(smc_rep, (u64)code) == ~i;
	}
	CHECK(ok);
	/* push b8 imm32 nop nop nop */
	for (u32 i = 0; i < LOOPS; i++)
		ok &= (u32)call(smc_push, 0x909090ull << 40 | (u64)i << 8 | 0xb8) == i;
	CHECK(ok);
}

/* Patch the displacement of a JMP and of a CALL that were chained. */
static void test_jump_target(void)
{
	u8 *j = page + 256;
	bool ok = true;

	put_mov(page + 512, 111);
	put_mov(page + 576, 222);
	for (u32 i = 0; i < LOOPS; i++) {
		u32 rel = (i & 1 ? 512u : 576u) - 256 - 5;

		j[0] = 0xe9;
		memcpy(j + 1, &rel, 4);
		for (unsigned k = 0; k < 10; k++)
			ok &= call(j, 0) == (i & 1 ? 111 : 222);
	}
	CHECK(ok);
	/* the target changes while the jump stays */
	for (u32 i = 0; i < LOOPS; i++) {
		put_mov(page + 512, i);
		u32 rel = 512 - 256 - 5;
		if (i == 0)
			memcpy(j + 1, &rel, 4);
		ok &= call(j, 0) == i;
	}
	CHECK(ok);
	/* a jump across a page boundary to code that changes */
	u32 rel = 4096 + 64 - 256 - 5;
	memcpy(j + 1, &rel, 4);
	for (u32 i = 0; i < LOOPS; i++) {
		put_mov(page + 4096 + 64, i ^ 0x55);
		ok &= call(j, 0) == (i ^ 0x55);
	}
	CHECK(ok);
	/* NOP <-> JMP, as static keys do it */
	put_mov(page + 768 + 5, 1);
	put_mov(page + 832, 2);
	for (u32 i = 0; i < LOOPS; i++) {
		if (i & 1)
			memcpy(page + 768, "\xe9\x3b\x00\x00\x00", 5);      /* 768 + 5 + 0x3b = 832 */
		else
			memcpy(page + 768, "\x0f\x1f\x44\x00\x00", 5);
		ok &= call(page + 768, 0) == (i & 1 ? 2 : 1);
	}
	CHECK(ok);
}

/* The page is written through one linear address and executed at another; both directions, and with the alias being 4K and the
 * original a 2M page. */
static void test_alias(void)
{
	u8 *alias = (u8 *)TEST_VA;
	bool ok = true;

	map_page(TEST_VA, (u64)page, PTE_P | PTE_W);
	for (u32 i = 0; i < LOOPS; i++) {
		put_mov(alias + 1024, i);
		serialize();
		ok &= call(page + 1024, 0) == i;
	}
	CHECK(ok);
	for (u32 i = 0; i < LOOPS; i++) {
		put_mov(page + 1024, i + 3);
		serialize();
		ok &= call(alias + 1024, 0) == i + 3;
		ok &= call(page + 1024, 0) == i + 3;
	}
	CHECK(ok);
	/* remap: the same address executes another frame */
	u8 *other = page_alloc();
	put_mov(page + 1088, 1);
	put_mov(other + 1088, 2);
	for (u32 i = 0; i < LOOPS; i++) {
		map_page(TEST_VA, i & 1 ? (u64)other : (u64)page, PTE_P | PTE_W);
		ok &= call(alias + 1088, 0) == 1 + (i & 1);
	}
	CHECK(ok);
	/* remapped code behind a direct jump from another page: a chained jump must notice */
	u8 *j = page + 4096 + 128;
	u32 rel = (u32)((u64)alias + 1088 - ((u64)j + 5));
	j[0] = 0xe9;
	memcpy(j + 1, &rel, 4);
	for (u32 i = 0; i < LOOPS; i++) {
		map_page(TEST_VA, i & 1 ? (u64)other : (u64)page, PTE_P | PTE_W);
		ok &= call(j, 0) == 1 + (i & 1);
	}
	CHECK(ok);
	/* and by switching CR3 */
	u64 *pml4 = page_alloc(), *pdpt = page_alloc();
	u64 old = read_cr3();
	memcpy(pml4, boot_pml4, 4096);
	memcpy(pdpt, (void *)(boot_pml4[0] & ~0xfffull), 4096);
	pdpt[2] = 0;
	pml4[0] = (u64)pdpt | 7;
	*pte_at(pml4, TEST_VA, 1) = (u64)other | 3;
	map_page(TEST_VA, (u64)page, PTE_P | PTE_W);
	for (u32 i = 0; i < LOOPS; i++) {
		write_cr3(i & 1 ? (u64)pml4 : old);
		ok &= call(j, 0) == 1 + (i & 1);
	}
	write_cr3(old);
	CHECK(ok);
}

/* An instruction that straddles a page boundary, with each side modified and each side remapped. */
static void test_boundary(void)
{
	u8 *p = page + 4096 - 3;           /* b8 xx xx | xx xx c3 */
	bool ok = true;

	put_mov(p, 0x01020304);
	CHECK_EQ(call(p, 0), 0x01020304);
	for (u32 i = 0; i < LOOPS; i++) {
		p[1] = (u8)i;                 /* first page */
		ok &= call(p, 0) == (0x01020300 | (u8)i);
	}
	CHECK(ok);
	put_mov(p, 0);
	for (u32 i = 0; i < LOOPS; i++) {
		p[4] = (u8)i;                 /* second page */
		ok &= call(p, 0) == (u32)(u8)i << 24;
	}
	CHECK(ok);
	u8 *a = page_alloc(), *b = page_alloc(), *c = page_alloc();
	put_mov(p, 0x0a0b0c0d);
	memcpy(a, page, 4096);
	memcpy(b, page + 4096, 4096);
	memcpy(c, page + 4096, 4096);
	c[1] = 0x77;
	map_page(TEST_VA + 0x2000, (u64)a, PTE_P | PTE_W);
	for (u32 i = 0; i < LOOPS; i++) {
		map_page(TEST_VA + 0x3000, i & 1 ? (u64)c : (u64)b, PTE_P | PTE_W);
		ok &= call((u8 *)TEST_VA + 0x2ffd, 0) == (i & 1 ? 0x770b0c0d : 0x0a0b0c0d);
	}
	CHECK(ok);
	/* the second half disappears: #PF with CR2 there */
	map_page(TEST_VA + 0x3000, 0, 0);
	struct regs r = { .rip = TEST_VA + 0x2ffd, .cs = KCS, .ss = KDS, .rsp = (u64)run_stack_top, .rflags = FL_1 };
	run(&r);
	CHECK_EQ(r.vec, PF);
	CHECK_EQ(r.cr2, TEST_VA + 0x3000);
	CHECK_EQ(r.rip, TEST_VA + 0x2ffd);
}

/* Text patching as Linux does it: INT3 over the first byte, the tail, then the first byte; the handler emulates. */
static u64 bp_hits;
static void on_bp(struct regs *f)
{
	bp_hits++;
	f->rip = (u64)page + 1536 + 5;     /* behind the instruction being patched */
	f->rax = 42;
}

static void test_text_poke(void)
{
	u8 *p = page + 1536;
	bool ok = true;

	irq_handler[BP] = on_bp;
	put_mov(p, 1);
	for (u32 i = 0; i < LOOPS; i++) {
		ok &= call(p, 0) == (i ? i : 1);
		p[0] = 0xcc;
		serialize();
		ok &= call(p, 0) == 42;
		u32 v = i + 1;
		memcpy(p + 1, &v, 4);
		serialize();
		ok &= call(p, 0) == 42;
		p[0] = 0xb8;
		serialize();
		ok &= call(p, 0) == i + 1;
	}
	irq_handler[BP] = NULL;
	CHECK(ok);
	CHECK_EQ(bp_hits, 2 * LOOPS);
}

/* Other kinds of stores onto code: REP STOSB over a whole page, XCHG, CMPXCHG, BTS, 16-byte SSE stores, a store that crosses into
 * the code page, stores by the processor itself (exception frames, page-table accessed bits). */
static void test_stores(void)
{
	u8 *p = page + 2048;
	u64 stack;
	bool ok = true;

	for (u32 i = 0; i < 50; i++) {
		put_mov(p, i);
		ok &= call(p, 0) == i;
		memset(page + 2048, 0x90, 64);            /* nop slide */
		page[2048 + 64] = 0xc3;
		ok &= call(p, 0) != ~0ull;
		put_mov(p, i + 9);
		ok &= call(p, 0) == i + 9;
	}
	CHECK(ok);
	for (u32 i = 0; i < LOOPS; i++) {
		u32 v = i;

		asm volatile("xchgl %0, 1(%1)" : "+r"(v) : "r"(p) : "memory");
		ok &= call(p, 0) == i;
		asm volatile("lock; addl $5, 1(%0)" : : "r"(p) : "memory");
		ok &= call(p, 0) == i + 5;
		asm volatile("lock; btsl $31, 1(%0)" : : "r"(p) : "memory");
		ok &= call(p, 0) == (0x80000000u | (i + 5));
	}
	CHECK(ok);
	for (u32 i = 0; i < LOOPS; i++) {
		u8 code[16] __attribute__((aligned(16))) = { 0 };

		put_mov(code, i * 11);
		asm volatile("movdqa %0, %%xmm7; movdqu %%xmm7, (%1)" : : "m"(code), "r"(p) : "memory");
		ok &= call(p, 0) == i * 11;
	}
	CHECK(ok);
	/* crossing store: the upper half hits code at the start of the second page */
	put_mov(page + 4096, 0x01010101);
	for (u32 i = 0; i < LOOPS; i++) {
		*(volatile u64 *)(page + 4096 - 4) = (u64)i << 40 | 0xb8ull << 32;
		ok &= call(page + 4096, 0) == ((i & 0xffffff) | 0x01000000);
	}
	CHECK(ok);
	/* an exception frame pushed over code: SS and RSP land there; then the code is put back */
	for (u32 i = 0; i < 100; i++) {
		put_mov(p, i);
		ok &= call(p, 0) == i;
		asm volatile("mov %%rsp, %0; mov %1, %%rsp\n\t" TRY("ud2") "mov %0, %%rsp" : "=&r"(stack) : "r"(p + 16) : "memory");
		ok &= exc.vec == UD;
		ok &= *(u64 *)(p + 8) == KDS && *(u64 *)p == (u64)p + 16;       /* SS, RSP */
	}
	CHECK(ok);
}

/* Thrashing: a page that is executed and written alternately, with many small functions on it. */
static void test_thrash(void)
{
	bool ok = true;

	for (u32 i = 0; i < 64; i++)
		put_mov(page + 3000 + i * 8, i);
	for (u32 n = 0; n < 20; n++) {
		for (u32 i = 0; i < 64; i++) {
			ok &= call(page + 3000 + i * 8, 0) == i + n;
			put_mov(page + 3000 + i * 8, i + n + 1);
		}
	}
	CHECK(ok);
}

int main(void)
{
	page = pages_alloc(2, 1);
	test_rewrite();
	test_same_block();
	test_jump_target();
	test_alias();
	test_boundary();
	test_text_poke();
	test_stores();
	test_thrash();
	return 0;
}
