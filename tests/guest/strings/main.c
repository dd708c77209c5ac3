/* SPDX-License-Identifier: Apache-2.0 */
/*
 * String instructions: results, direction, address size, faults in the middle with exact RCX, RSI, RDI, interrupts during REP.
 *
 * Environments: long64
 * Spec: SDM vol. 2B REP, MOVS, STOS, LODS, CMPS, SCAS, INS, OUTS.
 */
#include "guest.h"

SNIP(s_movsb, "rep movsb");
SNIP(s_movsw, "rep movsw");
SNIP(s_movsl, "rep movsl");
SNIP(s_movsq, "rep movsq");
SNIP(s_stosb, "rep stosb");
SNIP(s_stosw, "rep stosw");
SNIP(s_stosl, "rep stosl");
SNIP(s_stosq, "rep stosq");
SNIP(s_lodsb, "rep lodsb");
SNIP(s_lodsq, "rep lodsq");
SNIP(s_cmpsb, "repe cmpsb");
SNIP(s_cmpsq, "repne cmpsq");
SNIP(s_scasb, "repne scasb");
SNIP(s_scasl, "repe scasl");
SNIP(s_movsb_std, "std; rep movsb; cld");
SNIP(s_movsq_std, "std; rep movsq; cld");
SNIP(s_stos32, "addr32 rep stosb");
SNIP(s_movs32, "addr32 rep movsl");
SNIP(s_movs1, "movsb");
SNIP(s_outsb, "rep outsb");
SNIP(s_insb, "rep insb");

static u8 *frame;      /* two pages behind TEST_VA; TEST_VA + 8K is absent, TEST_VA + 12K read-only, - 4K absent */
#define V (TEST_VA + 0x10000)

static struct regs go(const void *code, u64 rcx, u64 rsi, u64 rdi, u64 rax)
{
	struct regs r = { .rip = (u64)code, .cs = KCS, .ss = KDS, .rsp = (u64)run_stack_top, .rflags = FL_1,
		.rcx = rcx, .rsi = rsi, .rdi = rdi, .rax = rax };

	run(&r);
	return r;
}

static void expect(struct regs *r, unsigned vec, u64 rcx, u64 rsi, u64 rdi)
{
	CHECK_EQ(r->vec, vec);
	CHECK_EQ(r->rcx, rcx);
	CHECK_EQ(r->rsi, rsi);
	CHECK_EQ(r->rdi, rdi);
}

static void fill(void)
{
	for (unsigned i = 0; i < 8192; i++)
		frame[i] = (u8)(i * 7 + (i >> 8));
}

static void test_plain(void)
{
	static const struct { const void *code; unsigned size; } mov[] = { { s_movsb, 1 }, { s_movsw, 2 }, { s_movsl, 4 }, { s_movsq, 8 } };
	static const struct { const void *code; unsigned size; } sto[] = { { s_stosb, 1 }, { s_stosw, 2 }, { s_stosl, 4 }, { s_stosq, 8 } };
	struct regs r;

	for (unsigned i = 0; i < 4; i++) {
		for (unsigned n = 0; n < 40; n += 3) {
			unsigned size = mov[i].size, bytes = n * size;
			u8 *ref = frame + 4096 + 1000;

			fill();
			memcpy(ref, frame + 3, bytes);
			r = go(mov[i].code, n, V + 3, V + 4096 - 20, 0);       /* the destination crosses a page */
			expect(&r, VEC_DONE, 0, V + 3 + bytes, V + 4096 - 20 + bytes);
			CHECK(!memcmp(frame + 4096 - 20, ref, bytes));
			CHECK_EQ(frame[4096 - 21], (u8)((4096 - 21) * 7 + (4095 >> 8)));
			fill();
			r = go(sto[i].code, n, 0, V + 4096 - 21, 0x8877665544332211ull);
			expect(&r, VEC_DONE, 0, 0, V + 4096 - 21 + bytes);
			bool ok = true;
			for (unsigned k = 0; k < bytes; k++)
				ok &= frame[4096 - 21 + k] == 0x11 * (k % size + 1);
			CHECK(ok);
		}
	}
	/* overlapping forward copy replicates the first bytes */
	fill();
	frame[0] = 0xab;
	r = go(s_movsb, 500, V, V + 1, 0);
	bool ok = true;
	for (unsigned i = 0; i <= 500; i++)
		ok &= frame[i] == 0xab;
	CHECK(ok);
	memcpy(frame, "01234567", 8);
	r = go(s_movsq, 50, V, V + 4, 0);               /* overlap smaller than the element */
	CHECK(!memcmp(frame, "01230123", 8));
	/* backward */
	fill();
	r = go(s_movsb_std, 300, V + 4096 + 99, V + 8000, 0);
	expect(&r, VEC_DONE, 0, V + 4096 + 99 - 300, V + 8000 - 300);
	CHECK(!memcmp(frame + 8000 - 299, frame + 4096 + 99 - 299, 300));
	fill();
	r = go(s_movsq_std, 30, V + 4096 + 4, V + 8000, 0);
	expect(&r, VEC_DONE, 0, V + 4096 + 4 - 240, V + 8000 - 240);
	CHECK(!memcmp(frame + 8000 - 232, frame + 4096 + 4 - 232, 240));
	/* RCX = 0 touches nothing, not even bad addresses */
	r = go(s_movsb, 0, 0x8000000000000000ull, V + 8192, 0);
	expect(&r, VEC_DONE, 0, 0x8000000000000000ull, V + 8192);
	/* LODS, SCAS, CMPS with flags */
	fill();
	r = go(s_lodsq, 5, V + 16, 0, 0);
	expect(&r, VEC_DONE, 0, V + 56, 0);
	CHECK_EQ(r.rax, *(u64 *)(frame + 48));
	r = go(s_lodsb, 3, V + 16, 0, 0x1234567890abcd00ull);
	CHECK_EQ(r.rax, 0x1234567890abcd00ull | frame[18]);
	memset(frame, 'a', 100);
	frame[40] = 'b';
	r = go(s_scasb, 1000, 0, V, 'b');
	expect(&r, VEC_DONE, 1000 - 41, 0, V + 41);
	CHECK_EQ(r.rflags & FL_ZF, FL_ZF);
	r = go(s_scasb, 20, 0, V, 'b');
	expect(&r, VEC_DONE, 0, 0, V + 20);
	CHECK_EQ(r.rflags & FL_ZF, 0);
	r = go(s_scasl, 20, 0, V, 0x61616161);
	expect(&r, VEC_DONE, 9, 0, V + 44);
	memcpy(frame + 200, frame, 100);
	frame[200 + 77] = 'z';
	r = go(s_cmpsb, 100, V, V + 200, 0);
	expect(&r, VEC_DONE, 22, V + 78, V + 278);
	CHECK_EQ(r.rflags & (FL_ZF | FL_CF), FL_CF);           /* 'a' - 'z' borrows */
	r = go(s_cmpsq, 10, V, V + 200, 0);
	expect(&r, VEC_DONE, 9, V + 8, V + 208);
	r = go(s_movs1, 5, V, V + 1, 0);
	expect(&r, VEC_DONE, 5, V + 1, V + 2);
}

/* Addresses and count are 32 bits wide with the 67 prefix; upper halves are cleared. */
static void test_addr32(void)
{
	struct regs r;

	fill();
	r = go(s_stos32, 0xffffffff00000010ull, 0, V | 0xabcd00000000ull, 0x5a);
	CHECK_EQ(r.vec, VEC_DONE);
	CHECK_EQ(r.rcx, 0);
	CHECK_EQ(r.rdi, V + 16);
	CHECK_EQ(frame[0], 0x5a);
	CHECK_EQ(frame[15], 0x5a);
	r = go(s_movs32, 0x7700000004ull, V | 0x100000000ull, V + 64, 0);
	expect(&r, VEC_DONE, 0, V + 16, V + 80);
}

/* Faults in the middle: registers show exactly the iterations done, memory too, RIP is the REP; then continue. */
static void test_faults(void)
{
	struct regs r;

	fill();
	r = go(s_movsb, 100, V, V + 8192 - 37, 0);
	expect(&r, PF, 63, V + 37, V + 8192);
	CHECK_EQ(r.err, PF_W);
	CHECK_EQ(r.cr2, V + 8192);
	CHECK_EQ(r.rip, (u64)s_movsb);
	CHECK(!memcmp(frame + 8192 - 37, frame, 37));
	r = go(s_movsq, 10, V, V + 8192 - 20, 0);              /* element across the edge: not written at all */
	expect(&r, PF, 8, V + 16, V + 8192 - 4);
	CHECK_EQ(r.cr2, V + 8192);
	r = go(s_movsl, 100, V + 8192 - 12, V, 0);             /* source absent */
	expect(&r, PF, 97, V + 8192, V + 12);
	CHECK_EQ(r.err, 0);
	r = go(s_stosq, 100, 0, V + 8192 - 24, 0);
	expect(&r, PF, 97, 0, V + 8192);
	r = go(s_stosb, 3, 0, V + 12288 + 5, 0);               /* read-only */
	expect(&r, PF, 3, 0, V + 12288 + 5);
	CHECK_EQ(r.err, PF_P | PF_W);
	r = go(s_lodsq, 4, V + 8192 - 16, 0, 0);
	expect(&r, PF, 2, V + 8192, 0);
	memset(frame + 8192 - 50, 'a', 50);
	memset(frame + 4096 - 25, 'a', 80);
	r = go(s_scasb, 100, 0, V + 8192 - 50, 'b');
	expect(&r, PF, 50, 0, V + 8192);
	r = go(s_cmpsb, 100, V + 8192 - 50, V + 4096 - 25, 0);
	expect(&r, PF, 50, V + 8192, V + 4096 + 25);
	/* backward into the absent page below */
	r = go(s_movsb_std, 50, V + 100, V + 19, 0);
	expect(&r, PF, 30, V + 80, V - 1);
	CHECK_EQ(r.rip, (u64)s_movsb_std + 1);
	/* non-canonical end: #GP with the same precision */
	r = go(s_stosb, 16, 0, 0x8000000000000000ull, 0);
	expect(&r, GP, 16, 0, 0x8000000000000000ull);
	/* two faults, each repaired, the copy completes */
	u64 extra = (u64)page_alloc();
	fill();
	r = go(s_movsb, 6000, V, V + 8192 - 1000, 0);
	expect(&r, PF, 5000, V + 1000, V + 8192);
	map_page(V + 8192, extra, PTE_P | PTE_W);
	r.rflags = FL_1;
	run(&r);
	expect(&r, PF, 5000 - 4096, V + 1000 + 4096, V + 12288);
	*pte_at(boot_pml4, V + 12288, 1) |= PTE_W;
	run(&r);
	expect(&r, VEC_DONE, 0, V + 6000, V + 8192 + 5000);
	map_page(V + 8192, 0, 0);
	*pte_at(boot_pml4, V + 12288, 1) &= ~(u64)PTE_W;
	invlpg(V + 12288);
	/* 2^40 iterations with a fault soon: must not take long */
	r = go(s_stosb, 1ull << 40, 0, V, 0);
	expect(&r, PF, (1ull << 40) - 8192, 0, V + 8192);
}

static volatile u64 irq_rcx, irq_rdi, irq_rip, irqs;
static void on_irq(struct regs *f)
{
	irqs++;
	irq_rcx = f->rcx;
	irq_rdi = f->rdi;
	irq_rip = f->rip;
	apic_write(APIC_EOI, 0);
}

/* A long REP is interruptible between iterations, the saved state is consistent and it resumes. */
static void test_interrupts(void)
{
	u64 count = 2 << 20;
	u8 *big = pages_alloc(512, 1);
	struct regs r;

	apic_enable(0xff);
	irq_handler[0x50] = on_irq;
	for (unsigned i = 0; i < 3; i++) {
		irqs = 0;
		apic_write(APIC_LVTT, 0x20050);
		r = (struct regs){ .rip = (u64)s_stosb, .cs = KCS, .ss = KDS, .rsp = (u64)run_stack_top, .rflags = FL_1 | FL_IF,
			.rcx = count, .rdi = (u64)big, .rax = i + 1 };
		apic_write(APIC_TMICT, 100000);
		run(&r);
		apic_write(APIC_TMICT, 0);
		apic_write(APIC_LVTT, 0x10050);
		expect(&r, VEC_DONE, 0, 0, (u64)big + count);
		CHECK(big[0] == i + 1 && big[count - 1] == i + 1 && big[count / 2] == i + 1);
		if (irqs && irq_rip == (u64)s_stosb)
			CHECK_EQ(irq_rcx + (irq_rdi - (u64)big), count);
		asm volatile("sti; nop; nop; cli");
	}
	irq_handler[0x50] = NULL;
}

/* TF: one trap per iteration. */
static void test_trace(void)
{
	struct regs r = go(s_movs1, 0, V, V + 1, 0);

	r = (struct regs){ .rip = (u64)s_movsb, .cs = KCS, .ss = KDS, .rsp = (u64)run_stack_top, .rflags = FL_1 | FL_TF,
		.rcx = 3, .rsi = V, .rdi = V + 64 };
	run(&r);
	CHECK_EQ(r.vec, DB);
	CHECK_EQ(r.rip, (u64)s_movsb);
	CHECK_EQ(r.rcx, 2);
	run(&r);
	CHECK_EQ(r.rcx, 1);
	CHECK_EQ(r.rip, (u64)s_movsb);
	run(&r);
	CHECK_EQ(r.rcx, 0);
	CHECK_MANUAL(r.rip, (u64)s_movsb_end);
}

static void test_io(void)
{
	struct regs r;

	r = go(s_outsb, 8, V, 0, 0);                            /* to port DX = 0: nobody minds */
	expect(&r, VEC_DONE, 0, V + 8, 0);
	r = (struct regs){ .rip = (u64)s_insb, .cs = KCS, .ss = KDS, .rsp = (u64)run_stack_top, .rflags = FL_1, .rdx = 0xeeee,
		.rcx = 8, .rdi = V + 8192 - 3 };
	run(&r);
	CHECK_EQ(r.vec, PF);
	CHECK_EQ(r.rcx, 5);
	CHECK_EQ(r.rdi, V + 8192);
	CHECK_EQ(frame[8191], 0xff);
}

int main(void)
{
	frame = pages_alloc(2, 1);
	map_page(V, (u64)frame, PTE_P | PTE_W);
	map_page(V + 4096, (u64)frame + 4096, PTE_P | PTE_W);
	map_page(V + 12288, (u64)page_alloc(), PTE_P);
	test_plain();
	test_addr32();
	test_faults();
	test_interrupts();
	test_trace();
	test_io();
	return 0;
}
