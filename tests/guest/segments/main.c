/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Segment registers in 64-bit mode: what is ignored, what is not; LDT; FS/GS bases; UMIP; descriptor table registers.
 *
 * Environments: long64
 * Spec: SDM vol. 3A 3.4.4, 3.5, 5.2.1.
 */
#include "guest.h"

SNIP(s_sgdt, "sgdt (%rsi)");
SNIP(s_sidt, "sidt (%rsi)");
SNIP(s_sldt, "sldt %eax");
SNIP(s_str, "str %eax");
SNIP(s_smsw, "smsw %eax");
SNIP(s_ds, "mov %ds:(%rsi), %rax");

static struct regs go(const void *code, bool user, u64 rsi)
{
	struct regs r = { .rip = user ? USER(code) : (u64)code, .cs = user ? UCS : KCS, .ss = user ? UDS : KDS,
		.rsp = user ? USER(run_stack_top) : (u64)run_stack_top, .rflags = FL_1, .rsi = rsi };
	run(&r);
	return r;
}

static void test_ignored(void)
{
	static u64 word = 0x1234567890abcdefull;
	struct regs r;

	/* DS with a base and a tiny limit, null, and read-only: no effect */
	gdt_set(FREE_SEL, seg_desc(0x1000, 0, 0x91, 0));
	asm volatile("mov %w0, %%ds; mov %w0, %%es" : : "r"(FREE_SEL));
	r = go(s_ds, false, (u64)&word);
	CHECK_EQ(r.vec, VEC_DONE);
	CHECK_EQ(r.rax, word);
	asm volatile("mov %w0, %%ds" : : "r"(0));
	r = go(s_ds, false, (u64)&word);
	CHECK_EQ(r.rax, word);
	r = go(s_ds, true, USER(&word));
	CHECK_EQ(r.rax, word);
	/* FS and GS bases count, limits do not */
	u64 v = 0;
	gdt_set(FREE_SEL, seg_desc((u32)(u64)&word - 16, 0, 0x93, 0));
	asm volatile("mov %w1, %%fs; mov %%fs:16, %0" : "=r"(v) : "r"(FREE_SEL));
	CHECK_EQ(v, word);
	CHECK_EQ(rdmsr(0xc0000100), (u64)&word - 16);
	asm volatile("mov %w0, %%fs" : : "r"(0));
	wrmsr(0xc0000100, 0);
	/* segment override prefixes other than FS/GS are ignored, the last of several FS/GS wins */
	wrmsr(0xc0000101, (u64)&word);
	asm volatile(".byte 0x2e, 0x36, 0x65, 0x48, 0x8b, 0x04, 0x25, 0, 0, 0, 0" : "=a"(v));
	CHECK_EQ(v, word);
	wrmsr(0xc0000101, 0);
}

static void test_ldt(void)
{
	static u64 ldt[4] __attribute__((aligned(8)));
	u16 sel;

	ldt[1] = seg_desc(0, 0xfffff, 0x93, 0xc);
	ldt[2] = seg_desc(0, 0xfffff, 0xfb, 0xa);
	gdt_set(FREE_SEL, seg_desc((u32)(u64)ldt, sizeof(ldt) - 1, 0x82, 0));
	gdt_set(FREE_SEL + 8, (u64)ldt >> 32);
	TRYV("lldt %w0", "r"(FREE_SEL));
	EXPECT_NONE();
	asm volatile("sldt %w0" : "=r"(sel));
	CHECK_EQ(sel, FREE_SEL);
	TRYV("mov %w0, %%es", "r"(0x0c));
	EXPECT_NONE();
	TRYV("mov %w0, %%es", "r"(0x24));               /* beyond its limit */
	EXPECT_FAULT(GP, 0x24);
	struct regs r = { .rip = USER(s_smsw), .cs = 0x17, .ss = UDS, .rsp = USER(run_stack_top), .rflags = FL_1 };
	run(&r);                                         /* code from the LDT */
	CHECK_EQ(r.vec, VEC_DONE);
	CHECK_EQ(r.cs, 0x17);
	TRYV("lldt %w0", "r"(0));
	TRYV("mov %w0, %%es", "r"(0x0c));
	EXPECT_FAULT(GP, 0x0c);
	TRYV("lldt %w0", "r"(FREE_SEL | 4));             /* the LDT's descriptor cannot be in the LDT */
	EXPECT_FAULT(GP, FREE_SEL | 4);
	asm volatile("mov %w0, %%es" : : "r"(KDS));
}

static void test_tables(void)
{
	struct { u16 limit; u64 base; } __attribute__((packed)) d, e, bad = { 0xff, 0x8000000000000000ull };

	asm volatile("sgdt %0; sidt %1" : "=m"(d), "=m"(e));
	CHECK_EQ(d.base, (u64)gdt);
	CHECK_EQ(d.limit, 0xff);
	CHECK_EQ(e.limit, 0xfff);
	TRYV("lgdt %0", "m"(bad));
	if (!CHECK_MANUAL(exc.vec, GP))
		asm volatile("lgdt %0" : : "m"(d));
	TRYV("lidt %0", "m"(bad));
	if (exc.vec == VEC_NONE)
		asm volatile("lidt %0" : : "m"(e));
	CHECK_MANUAL(exc.vec, GP);
	/* descriptors in a page that is not there: #PF from the segment load, supervisor access */
	struct { u16 limit; u64 base; } __attribute__((packed)) far = { 0x1fff, TEST_VA };
	u8 *page = page_alloc();
	memcpy(page, gdt, 256);
	map_page(TEST_VA, (u64)page, PTE_P | PTE_W);
	asm volatile("lgdt %0" : : "m"(far));
	TRYV("mov %w0, %%es", "r"(0x1000));
	CHECK_EQ(exc.vec, PF);
	CHECK_EQ(exc.err, 0);
	CHECK_EQ(exc.cr2, TEST_VA + 0x1000);
	/* a read-only GDT page: setting the accessed bit faults */
	((u64 *)page)[FREE_SEL >> 3] = seg_desc(0, 0xfffff, 0x92, 0xc);
	map_page(TEST_VA, (u64)page, PTE_P);
	TRYV("mov %w0, %%es", "r"(FREE_SEL));
	CHECK_EQ(exc.vec, PF);
	CHECK_EQ(exc.err, PF_P | PF_W);
	((u64 *)page)[FREE_SEL >> 3] |= 1ull << 40;
	TRYV("mov %w0, %%es", "r"(FREE_SEL));            /* already accessed: no write */
	EXPECT_NONE();
	asm volatile("lgdt %0" : : "m"(d));
	asm volatile("mov %w0, %%es" : : "r"(KDS));
}

static void test_umip(void)
{
	u64 buf = USER(run_stack_top) - 64;

	CHECK_EQ(go(s_sgdt, true, buf).vec, VEC_DONE);
	CHECK_EQ(go(s_sidt, true, buf).vec, VEC_DONE);
	CHECK_EQ(go(s_sldt, true, buf).vec, VEC_DONE);
	CHECK_EQ(go(s_str, true, buf).rax, TSS_SEL);
	CHECK_EQ(go(s_smsw, true, buf).rax & 0xffff, read_cr0() & 0xffff);
	if (!cpu_has(7, 2, 2))
		return;
	TRYV("mov %0, %%cr4", "r"(read_cr4() | BIT(11)));
	EXPECT_NONE();
	CHECK_EQ(go(s_sgdt, true, buf).vec, GP);
	CHECK_EQ(go(s_sidt, true, buf).vec, GP);
	CHECK_EQ(go(s_sldt, true, buf).vec, GP);
	CHECK_EQ(go(s_str, true, buf).vec, GP);
	CHECK_EQ(go(s_smsw, true, buf).vec, GP);
	CHECK_EQ(go(s_smsw, false, buf).vec, VEC_DONE);
	write_cr4(read_cr4() & ~BIT(11));
}

int main(void)
{
	test_ignored();
	test_ldt();
	test_tables();
	test_umip();
	return 0;
}
