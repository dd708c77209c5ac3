/* SPDX-License-Identifier: Apache-2.0 */
/*
 * 32-bit protected mode: segment limits and types, gates, privilege changes, 2-level and PAE paging, a task gate, virtual 8086 mode.
 *
 * Environments: prot32
 * Spec: SDM vol. 3A 4.3, 4.4, 5, 6.12, 20.2.
 */
#include "guest.h"

static struct regs kernel(const void *code)
{
	return (struct regs){ .eip = (u32)code, .cs = KCS, .ss = KDS, .ds = KDS, .es = KDS, .esp = (u32)run_stack_top, .eflags = FL_1 };
}

static struct regs user(const void *code)
{
	return (struct regs){ .eip = (u32)code, .cs = UCS, .ss = UDS, .ds = UDS, .es = UDS, .esp = (u32)run_stack_top, .eflags = FL_1 };
}

SNIP(p_load, "mov (%esi), %eax");
SNIP(p_store, "mov %eax, (%esi)");
SNIP(p_fs, "mov %fs:(%esi), %eax");
SNIP(p_ss, "mov %ss:(%esi), %eax");
SNIP(p_cs, "mov %cs:(%esi), %eax");
SNIP(p_csw, "mov %eax, %cs:(%esi)");
SNIP(p_call, "call *%esi");
SNIP(p_int30, "int $0x30; nop");
SNIP(p_hlt, "hlt");
SNIP(p_lcall, "lcall *(%esi)");
SNIP(p_ljmp, "ljmp *(%esi)");
SNIP(p_into, "mov $0x7fffffff, %eax; inc %eax; into; nop");
SNIP(p_bound, "bound %eax, (%esi)");
SNIP(p_nop, "nop");
SNIP(p_inc, ".byte 0x40, 0x49; .byte 0xd6; aaa");
SNIP(p_pusha, "pusha; pop %eax; add $28, %esp");
SNIP(p_lds, "lds (%esi), %eax");
SNIP(p_arpl, "arpl %cx, %ax");
SNIP(p_ud2, "ud2");
SNIP(p_lret, "lret");

static void test_basic(void)
{
	struct regs r = kernel(p_into);

	run(&r);
	CHECK_EQ(r.vec, OF);
	CHECK_EQ(r.eip, (u32)p_into_end - 1);
	u32 bounds[2] = { 10, 20 };
	r = kernel(p_bound);
	r.esi = (u32)bounds;
	r.eax = 21;
	run(&r);
	CHECK_EQ(r.vec, BR);
	CHECK_EQ(r.eip, (u32)p_bound);
	r.eax = 20;
	r.eflags = FL_1;
	run(&r);
	CHECK_EQ(r.vec, VEC_DONE);
	r = kernel(p_inc);
	r.eax = 0xff;
	run(&r);
	CHECK_EQ(r.vec, VEC_DONE);
	CHECK_EQ(r.ecx, 0xffffffff);
	r = kernel(p_pusha);
	r.edi = 0x1234;
	run(&r);
	CHECK_EQ(r.eax, 0x1234);
	CHECK_EQ(r.esp, (u32)run_stack_top);
	r = kernel(p_arpl);
	r.eax = 0x10;
	r.ecx = 3;
	run(&r);
	CHECK_EQ(r.eax, 0x13);
	CHECK_EQ(r.eflags & FL_ZF, FL_ZF);
	TRYV("syscall; nop", "a"(0));
	CHECK(exc.vec == UD || exc.vec == VEC_NONE);
	TRYV(".byte 0x0f, 0x01, 0xf8", "a"(0));
	EXPECT_FAULT(UD, 0);
	if (!on_qemu) {
		TRYV("movl %0, %%cr0", "r"((read_cr0() & ~1u) | (1u << 31)));
		EXPECT_FAULT(GP, 0);
	}
}

static void seg_case(u64 desc, const void *code, u32 off, unsigned vec)
{
	struct regs r = kernel(code);

	gdt_set(FREE_SEL, desc);
	r.fs = r.ds = FREE_SEL;
	r.esi = off;
	if (vec != VEC_DONE && on_qemu)
		return;                                  /* TCG checks neither limits nor types on access */
	run(&r);
	CHECK_EQ(r.vec, vec);
	if (vec == GP) {
		CHECK_EQ(r.err, 0);
		CHECK_EQ(r.eip, (u32)code);
	}
}

static void test_limits(void)
{
	u32 b = (u32)run_stack_top - 0x1000;

	seg_case(seg_desc(b, 0xff, 0x93, 4), p_load, 0xfc, VEC_DONE);
	seg_case(seg_desc(b, 0xff, 0x93, 4), p_load, 0xfd, GP);
	seg_case(seg_desc(b, 0xff, 0x93, 4), p_load, 0x100, GP);
	seg_case(seg_desc(b, 0xff, 0x93, 4), p_load, 0xffffffff, GP);
	seg_case(seg_desc(b, 0xff, 0x93, 4), p_fs, 0xfc, VEC_DONE);
	seg_case(seg_desc(b, 0xff, 0x93, 4), p_fs, 0xfe, GP);
	seg_case(seg_desc(b, 0, 0x93, 0xc), p_load, 0xffc, VEC_DONE);       /* page granular */
	seg_case(seg_desc(b, 0, 0x93, 0xc), p_load, 0x1000, GP);
	seg_case(seg_desc(b, 0xff, 0x91, 4), p_load, 0, VEC_DONE);          /* read-only */
	seg_case(seg_desc(b, 0xff, 0x91, 4), p_store, 0, GP);
	seg_case(seg_desc(b, 0xff, 0x97, 4), p_load, 0x100, VEC_DONE);      /* expand down: above the limit */
	seg_case(seg_desc(b, 0xff, 0x97, 4), p_load, 0xfc, GP);
	seg_case(seg_desc(b, 0xff, 0x97, 4), p_load, 0xff, GP);
	seg_case(seg_desc(b, 0xff, 0x97, 0), p_load, 0xfffd, GP);           /* B = 0: up to ffff */
	seg_case(seg_desc(b, 0xff, 0x9b, 4), p_load, 0, VEC_DONE);          /* readable code */
	seg_case(seg_desc(b, 0xff, 0x9b, 4), p_store, 0, GP);
	seg_case(seg_desc(0xfffffff0, 0xfffff, 0x93, 0xc), p_load, b + 0x10, VEC_DONE);   /* wraps at 4 GiB */
	if (!on_qemu) {
		struct regs r = kernel(p_csw);
		r.esi = b;
		run(&r);
		CHECK_EQ(r.vec, GP);
		r = kernel(p_fs);
		r.fs = 0;
		r.esi = b;
		run(&r);
		CHECK_EQ(r.vec, GP);
		CHECK_EQ(r.err, 0);
		/* stack segment limit: #SS(0) */
		gdt_set(FREE_SEL, seg_desc(0, 0xff, 0xf3, 4));
		r = user(p_ss);
		r.ss = FREE_SEL | 3;
		r.esi = 0x100;
		run(&r);
		CHECK_EQ(r.vec, SS_);
		CHECK_EQ(r.err, 0);
		/* instruction fetch beyond the CS limit: #GP(0) */
		gdt_set(FREE_SEL, seg_desc((u32)p_nop, 0, 0xfb, 4));
		r = user(NULL);
		r.cs = FREE_SEL | 3;
		run(&r);
		CHECK_EQ(r.vec, GP);
		CHECK_EQ(r.err, 0);
		CHECK_EQ(r.eip, 1);
	}
}

static void test_gates(void)
{
	struct regs r = user(p_int30);

	run(&r);
	CHECK_EQ(r.vec, GP);
	CHECK_EQ(r.err, 0x30 * 8 + 2);
	idt_dpl(0x30, 3);
	r = user(p_int30);
	run(&r);
	CHECK_EQ(r.vec, 0x30);
	CHECK_EQ(r.cs, UCS);
	CHECK_EQ(r.ss, UDS);
	CHECK_EQ(r.esp, (u32)run_stack_top);
	idt_present(0x30, false);
	r = user(p_int30);
	run(&r);
	CHECK_EQ(r.vec, NP);
	CHECK_EQ(r.err, 0x30 * 8 + 2);
	idt_default(0x30);
	r = user(p_hlt);
	run(&r);
	CHECK_EQ(r.vec, GP);
	/* 32-bit call gate with parameter copy */
	u32 h = (u32)p_nop;
	gdt_set(FREE_SEL, (h & 0xffff) | (u32)KCS << 16 | (u64)(0xec02 | (h & 0xffff0000)) << 32);
	struct { u32 off; u16 sel; } __attribute__((packed)) t = { 0, FREE_SEL | 3 };
	r = user(p_lcall);
	r.esi = (u32)&t;
	r.esp = (u32)run_stack_top - 64;
	((u32 *)r.esp)[0] = 0x1111;
	((u32 *)r.esp)[1] = 0x2222;
	u32 *frame = (u32 *)trap_stack_top - 6;
	run(&r);
	CHECK_EQ(r.vec, VEC_DONE);
	CHECK_EQ(r.cs, KCS);
	CHECK_EQ(r.esp, (u32)frame);
	CHECK_EQ(frame[0], (u32)p_lcall_end);
	CHECK_EQ(frame[1], UCS);
	CHECK_EQ(frame[2], 0x1111);
	CHECK_EQ(frame[3], 0x2222);
	CHECK_EQ(frame[4], (u32)run_stack_top - 64);
	CHECK_EQ(frame[5], UDS);
	/* far return to the outer level */
	u32 *sp = (u32 *)run_stack_top - 16;
	sp[0] = (u32)p_nop;
	sp[1] = UCS;
	sp[2] = (u32)run_stack_top;
	sp[3] = UDS;
	r = kernel(p_lret);
	r.esp = (u32)sp;
	run(&r);
	CHECK_EQ(r.vec, VEC_DONE);
	CHECK_EQ(r.cs, UCS);
	CHECK_EQ(r.esp, (u32)run_stack_top);
	CHECK_EQ(r.ds, 0);                       /* DPL 0 data is nulled */
}

/* 2-level paging: 4 MiB pages identity for everything, a 4 KiB table for the test range. */
static u32 *pd, *pt;
#define VA32 0x80000000u

static void paging_on(void)
{
	pd = page_alloc();
	pt = page_alloc();
	for (u32 i = 0; i < 16; i++)
		pd[i] = i << 22 | 0x87;
	for (u32 i = 0x3fb; i < 0x400; i++)
		pd[i] = i << 22 | 0x83;
	pd[VA32 >> 22] = (u32)pt | 7;
	write_cr4(read_cr4() | 0x10);
	write_cr3((u32)pd);
	write_cr0(read_cr0() | 1u << 31 | 1u << 16);
}

static void paging_off(void)
{
	write_cr0(read_cr0() & ~(1u << 31));
	write_cr4(read_cr4() & ~0x30u);
}

static void one(u32 *entry, u32 value, const void *code, bool is_user, u32 want)
{
	struct regs r = is_user ? user(code) : kernel(code);

	*(volatile u32 *)entry = value;
	invlpg(VA32);
	r.esi = VA32;
	run(&r);
	if (want == 0xffff) {
		CHECK_EQ(r.vec, VEC_DONE);
		CHECK_EQ(*entry & 0x20, 0x20);
		CHECK_EQ(*entry & 0x40, code == p_store ? 0x40 : 0);
	} else {
		CHECK_EQ(r.vec, PF);
		CHECK_EQ(r.err, want);
		CHECK_EQ(r.cr2, VA32);
	}
}

static void test_paging2(void)
{
	u32 frame = (u32)page_alloc(), big = (u32)pages_alloc(1, 1024);

	*(u8 *)frame = *(u8 *)big = 0xc3;
	paging_on();
	for (unsigned wp = 0; wp < 2; wp++) {
		write_cr0(wp ? read_cr0() | 1u << 16 : read_cr0() & ~(1u << 16));
		for (unsigned size = 0; size < 2; size++) {
			u32 *e = size ? &pd[VA32 >> 22] : pt;

			for (unsigned bits = 0; bits < 8; bits++) {
				bool p = bits & 1, w = bits & 2, u = bits & 4;
				u32 v = (size ? big | 0x80 : frame) | bits;

				*(u8 *)frame = *(u8 *)big = 0xc3;
				one(e, v, p_load, false, p ? 0xffff : 0);
				one(e, v, p_store, false, !p ? PF_W : w || !wp ? 0xffff : PF_P | PF_W);
				*(u8 *)frame = *(u8 *)big = 0xc3;
				one(e, v, p_load, true, !p ? PF_U : u ? 0xffff : PF_P | PF_U);
				one(e, v, p_store, true, !p ? PF_U | PF_W : u && w ? 0xffff : PF_P | PF_U | PF_W);
				*(u8 *)frame = *(u8 *)big = 0xc3;
				one(e, v, p_call, true, !p ? PF_U : u ? 0xffff : PF_P | PF_U);      /* no NX, no I bit */
			}
			pd[VA32 >> 22] = (u32)pt | 7;
			write_cr3((u32)pd);
		}
	}
	paging_off();
}

static void test_pae(void)
{
	u64 *pdpt = page_alloc(), *pd0 = page_alloc(), *pd2 = page_alloc(), *pd3 = page_alloc(), *pt2 = page_alloc();
	u32 frame = (u32)page_alloc();
	struct regs r;

	for (u32 i = 0; i < 32; i++)
		pd0[i] = (u64)i << 21 | 0x87;
	for (u32 i = 0; i < 512; i++)
		pd3[i] = 0xc0000000u + ((u64)i << 21) + 0x83;
	pt2[0] = frame | 7;
	pd2[0] = (u32)pt2 | 7;
	pdpt[0] = (u32)pd0 | 1;
	pdpt[2] = (u32)pd2 | 1;
	pdpt[3] = (u32)pd3 | 1;
	write_cr3((u32)pdpt);
	write_cr4(read_cr4() | 0x20);
	wrmsr(0xc0000080, rdmsr(0xc0000080) | BIT(11));
	write_cr0(read_cr0() | 1u << 31 | 1u << 16);
	*(u32 *)frame = 0x00c3c3c3;
	r = user(p_load);
	r.esi = VA32;
	run(&r);
	CHECK_EQ(r.vec, VEC_DONE);
	CHECK_EQ(r.eax, 0x00c3c3c3);
	r = user(p_call);
	r.esi = VA32;
	run(&r);
	CHECK_EQ(r.vec, VEC_DONE);
	pt2[0] = frame | 7 | PTE_NX;
	invlpg(VA32);
	r = user(p_call);
	r.esi = VA32;
	run(&r);
	CHECK_EQ(r.vec, PF);
	CHECK_EQ(r.err, PF_P | PF_U | PF_I);
	/* PDPTEs are loaded by MOV CR3, not walked: changing one without it has no effect */
	u64 old = pdpt[2];
	pdpt[2] = 0;
	invlpg(VA32);
	r = user(p_load);
	r.esi = VA32;
	run(&r);
	CHECK_MANUAL(r.vec, VEC_DONE);
	write_cr3((u32)pdpt);
	r = user(p_load);
	r.esi = VA32;
	run(&r);
	CHECK_EQ(r.vec, PF);
	CHECK_EQ(r.err, PF_U);
	pdpt[2] = old;
	write_cr3((u32)pdpt);
	if (!on_qemu) {                              /* reserved bits in a PDPTE: MOV CR3 faults */
		pdpt[1] = 0x1e7;
		TRYV("mov %0, %%cr3", "r"(pdpt));
		EXPECT_FAULT(GP, 0);
		pdpt[1] = 0;
	}
	paging_off();
}

/* Double fault through a task gate: the state is saved in the old TSS. */
static struct tss df_tss __attribute__((aligned(128)));
static volatile u32 df_seen, df_err;
void df_task(void);
asm(".pushsection .text; .globl df_task\ndf_task: pop %eax; mov %eax, df_err; movl $1, df_seen; movl $df_after, tss+32; iret; jmp df_task; .popsection");
extern u8 df_after[];

static void test_task_gate(void)
{
	df_tss.esp = (u32)ist_stack_top;
	df_tss.ss = df_tss.ds = df_tss.es = KDS;
	df_tss.cs = KCS;
	df_tss.eip = (u32)df_task;
	df_tss.eflags = FL_1;
	gdt_set(0x40, seg_desc((u32)&df_tss, 0x67, 0x89, 0));
	idt_gate(DF, NULL, 0x40, 0x85, 0);
	idt_present(GP, false);                       /* #GP -> #NP -> #DF */
	idt_present(NP, false);
	asm volatile("mov %w0, %%fs; df_after:" : : "r"(0x7008) : "memory", "eax");
	CHECK_EQ(df_seen, 1);
	CHECK_EQ(df_err, 0);
	idt_default(GP);
	idt_default(NP);
	idt_default(DF);
	u16 tr;
	asm volatile("str %w0" : "=r"(tr));
	CHECK_EQ(tr, TSS_SEL);
}

/* Virtual 8086 mode: entered by IRET, left by any exception. */
asm(".pushsection .text; .code16; .globl v_code, v_end, v_hlt, v_cli, v_int, v_in\n"
    "v_code: mov %cs, %ax; mov %ds:0x10, %ebx; mov %sp, %cx; int $0xfe; v_hlt: hlt; v_cli: cli; v_int: int $0x21; v_in: inb $0x80, %al; int $0xfe; v_end:\n"
    ".code32; .popsection");
extern u8 v_code[], v_end[], v_hlt[], v_cli[], v_int[], v_in[];

static struct regs v86(const u8 *at, u32 flags)
{
	struct regs r = { .eip = (u32)(at - v_code), .cs = 0x1000, .ss = 0x2000, .esp = 0x800, .eflags = FL_1 | FL_VM | flags, .vm_ds = 0x3000 };

	run(&r);
	return r;
}

static void test_vm86(void)
{
	struct regs r;

	memcpy((void *)0x10000, v_code, (size_t)(v_end - v_code));
	*(u32 *)0x30010 = 0xabcd1234;
	r = v86(v_code, FL_IOPL);                    /* IOPL 3: INT goes through the IDT of protected mode */
	CHECK_EQ(r.vec, VEC_DONE);
	CHECK_EQ(r.eax & 0xffff, 0x1000);
	CHECK_EQ(r.ebx, 0xabcd1234);
	CHECK_EQ(r.ecx & 0xffff, 0x800);
	CHECK_EQ(r.cs, 0x1000);
	CHECK_EQ(r.ss, 0x2000);
	CHECK_EQ(r.vm_ds, 0x3000);
	CHECK_EQ(r.eflags & FL_VM, FL_VM);
	r = v86(v_hlt, 0);
	CHECK_EQ(r.vec, GP);
	CHECK_EQ(r.eip, (u32)(v_hlt - v_code));
	r = v86(v_cli, 0);
	CHECK_EQ(r.vec, GP);
	CHECK_EQ(r.err, 0);
	r = v86(v_int, 0);                           /* IOPL 0: #GP(0) */
	CHECK_EQ(r.vec, GP);
	CHECK_EQ(r.err, 0);
	r = v86(v_in, FL_IOPL);                      /* the bitmap decides whatever the IOPL */
	CHECK_EQ(r.vec, GP);
	tss.bitmap[0x80 / 8] = 0xfe;
	r = v86(v_in, 0);
	CHECK_EQ(r.vec, GP);                         /* got past IN to INT, which IOPL 0 stops */
	CHECK_EQ(r.eip, (u32)(v_end - v_code) - 2);
	tss.bitmap[0x80 / 8] = 0xff;
}

int main(void)
{
	test_basic();
	test_limits();
	test_gates();
	test_paging2();
	test_pae();
	test_task_gate();
	test_vm86();
	return 0;
}
