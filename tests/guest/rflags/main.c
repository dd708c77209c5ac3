/* SPDX-License-Identifier: Apache-2.0 */
/*
 * PUSHF/POPF/IRET against IOPL and CPL, CLI/STI at IOPL, I/O permission bitmap, flag bits that exist and that do not.
 *
 * Environments: long64
 * Spec: SDM vol. 1 3.4.3, 19.5; vol. 2 POPF, CLI, STI.
 */
#include "guest.h"

SNIP(s_popf, "popfq; pushfq; popq %rax");
SNIP(s_popfw, "popfw; pushfq; popq %rax");
SNIP(s_cli, "cli; pushfq; popq %rax");
SNIP(s_sti, "sti; pushfq; popq %rax");
SNIP(s_in8, "inb %dx, %al");
SNIP(s_in16, "inw %dx, %ax");
SNIP(s_in32, "inl %dx, %eax");
SNIP(s_out8, "outb %al, %dx");
SNIP(s_outsb, "outsb");
SNIP(s_lahf, "sahf; lahf");

static struct regs go(const void *code, bool user, u64 flags, u64 pushed)
{
	u64 *sp = (u64 *)run_stack_top - 8;
	struct regs r = { .rip = user ? USER(code) : (u64)code, .cs = user ? UCS : KCS, .ss = user ? UDS : KDS,
		.rsp = user ? USER(sp) : (u64)sp, .rflags = FL_1 | flags };

	*sp = pushed;
	run(&r);
	return r;
}

static void test_popf(void)
{
	u64 all = FL_CF | FL_PF | FL_AF | FL_ZF | FL_SF | FL_DF | FL_OF | FL_IOPL | FL_NT | FL_AC | FL_ID;
	struct regs r = go(s_popf, false, 0, all);

	CHECK_EQ(r.vec, VEC_DONE);
	CHECK_EQ(r.rax, all | FL_1);
	r = go(s_popf, false, 0, ~0ull & ~(u64)(FL_TF | FL_IF));
	CHECK_EQ(r.rax & ~0x180000ull, all | FL_1);             /* VIP, VIF cleared; RF, VM never set */
	r = go(s_popf, false, FL_CF, 0);
	CHECK_EQ(r.rax, FL_1);
	/* CPL 3, IOPL 0: IF and IOPL stay silently */
	r = go(s_popf, true, FL_IF, all);
	CHECK_EQ(r.rax, (all & ~(u64)FL_IOPL) | FL_1 | FL_IF);
	r = go(s_popf, true, 0, all | FL_IF);
	CHECK_EQ(r.rax, (all & ~(u64)FL_IOPL) | FL_1);
	/* CPL 3, IOPL 3: IF changes, IOPL does not */
	r = go(s_popf, true, FL_IOPL | FL_IF, 0);
	CHECK_EQ(r.rax, FL_1 | FL_IOPL);
	r = go(s_popf, true, FL_IOPL, FL_IF);
	CHECK_EQ(r.rax, FL_1 | FL_IOPL | FL_IF);
	/* 16-bit operand keeps the upper half */
	r = go(s_popfw, false, FL_AC | FL_ID, FL_CF);
	CHECK_EQ(r.rax, FL_1 | FL_AC | FL_ID | FL_CF);
	r = go(s_lahf, false, 0, 0);
	CHECK_EQ(r.vec, VEC_DONE);
	CHECK_EQ(r.rax >> 8 & 0xff, 2);
}

static void test_iopl(void)
{
	struct regs r;

	for (u64 iopl = 0; iopl < 4; iopl++) {
		r = go(s_cli, true, iopl << 12 | FL_IF, 0);
		CHECK_EQ(r.vec, iopl == 3 ? VEC_DONE : GP);
		if (iopl == 3)
			CHECK_EQ(r.rax & FL_IF, 0);
		r = go(s_sti, true, iopl << 12, 0);
		CHECK_EQ(r.vec, iopl == 3 ? VEC_DONE : GP);
		r = go(s_in8, true, iopl << 12, 0);
		CHECK_EQ(r.vec, iopl == 3 ? VEC_DONE : GP);
		CHECK_EQ(r.err, 0);
	}
}

static struct regs io(const void *code, u16 port)
{
	struct regs r = { .rip = USER(code), .cs = UCS, .ss = UDS, .rsp = USER(run_stack_top), .rflags = FL_1, .rdx = port,
		.rsi = USER(run_stack_top) - 64 };
	run(&r);
	return r;
}

/* A set bit forbids; all bytes of the access count; the bitmap must lie inside the TSS limit. */
static void test_bitmap(void)
{
	tss.bitmap[0x80 / 8] = 0xfe;                      /* 0x80 open, 0x81.. closed */
	CHECK_EQ(io(s_in8, 0x80).vec, VEC_DONE);
	CHECK_EQ(io(s_out8, 0x80).vec, VEC_DONE);
	CHECK_EQ(io(s_outsb, 0x80).vec, VEC_DONE);
	CHECK_EQ(io(s_in16, 0x80).vec, GP);
	CHECK_EQ(io(s_in8, 0x81).vec, GP);
	CHECK_EQ(io(s_in32, 0x80).vec, GP);
	tss.bitmap[0x80 / 8] = 0xf0;
	CHECK_EQ(io(s_in32, 0x80).vec, VEC_DONE);
	CHECK_EQ(io(s_in32, 0x81).vec, GP);
	tss.bitmap[0x80 / 8] = 0x7f;                      /* 0x87 open, 0x88 closed: crosses a bitmap byte */
	CHECK_EQ(io(s_in8, 0x87).vec, VEC_DONE);
	CHECK_EQ(io(s_in16, 0x87).vec, GP);
	tss.bitmap[0x88 / 8] = 0xfe;
	CHECK_EQ(io(s_in16, 0x87).vec, VEC_DONE);
	tss.bitmap[0xffff / 8] = 0x7f;
	CHECK_EQ(io(s_in8, 0xffff).vec, VEC_DONE);
	/* limit: bitmap beyond it counts as closed */
	memset(tss.bitmap, 0, 8192);
	gdt[TSS_SEL >> 3] = (gdt[TSS_SEL >> 3] & ~0xffffull & ~(2ull << 40)) | (offsetof(struct tss, bitmap) + 0x11);
	asm volatile("ltr %w0" : : "r"(TSS_SEL));
	CHECK_EQ(io(s_in8, 0x80).vec, VEC_DONE);          /* bytes 16 and 17 are inside */
	CHECK_EQ(io(s_in8, 0x88).vec, GP);
	tss.iomap = 0xffff;
	CHECK_EQ(io(s_in8, 0x80).vec, GP);
	tss.iomap = offsetof(struct tss, bitmap);
	memset(tss.bitmap, 0xff, sizeof(tss.bitmap));
	gdt[TSS_SEL >> 3] = (gdt[TSS_SEL >> 3] & ~0xffffull & ~(2ull << 40)) | (sizeof(tss) - 1);
	asm volatile("ltr %w0" : : "r"(TSS_SEL));
}

int main(void)
{
	test_popf();
	test_iopl();
	test_bitmap();
	return 0;
}
