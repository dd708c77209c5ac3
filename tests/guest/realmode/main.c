/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Real mode: segment arithmetic, the interrupt vector table, limits, 16/32-bit operand and address sizes, big real mode.
 *
 * Environments: prot32
 * Spec: SDM vol. 3A 20.1, 9.9.
 */
#include "guest.h"

#define GO(name) real_run(&r, name, (size_t)(name##_end - name))

SNIP16(r_arith, "mov $0x1234, %ax; add $0x1111, %ax; mov $0x89abcdef, %ebx; mov %cs, %cx; mov %ss, %dx");
SNIP16(r_seg, "mov $0x1000, %ax; mov %ax, %ds; mov $0x0fff, %ax; mov %ax, %es; movl $0xcafe1234, %ds:0x10; mov %es:0x20, %ebx");
SNIP16(r_int, "int $0x21; nop");
SNIP16(r_div, "xor %cx, %cx; div %cx");
SNIP16(r_ud, "ud2");
SNIP16(r_push, "push $0x1234; pushl $0x56789abc; pop %ax; pop %bx; pop %cx");
SNIP16(r_call, "call 1f; mov $2, %bx; jmp 2f; 1: mov $1, %ax; ret; 2: nop");
SNIP16(r_far, "push %cs; push $(1f - r_far + 0xa000); lret; ud2; 1: mov $77, %ax");
SNIP16(r_string, "cld; mov $5, %ax; mov $0xb000, %di; mov $8, %cx; rep stosw; std; mov $0xb00e, %si; mov $0xb10e, %di; mov $8, %cx; rep movsw; cld");
SNIP16(r_limit, "mov $0xffff, %bx; mov (%bx), %ax");           /* word at the segment limit: #GP */
SNIP16(r_limit_ok, "mov $0xfffe, %bx; mov (%bx), %ax");
SNIP16(r_stack, "mov $1, %sp; push %ax");                       /* crosses the limit: #SS, delivered on the same stack */
SNIP16(r_wrap, "mov $0xffff, %bx; mov 2(%bx), %al");             /* 16-bit addresses wrap: offset 1 */
SNIP16(r_addr32, "mov $0x1b000, %ebx; addr32 mov (%ebx), %al");     /* 32-bit offset beyond 64K: #GP */
SNIP16(r_pushf, "pushf; pop %ax; pushfl; pop %ebx; push $0x7ed5; popf; pushf; pop %cx");
SNIP16(r_into, "mov $0x7f, %al; add $1, %al; into");
SNIP16(r_bound, "mov $5, %ax; bound %ax, 0xb200");
SNIP16(r_loop, "mov $10, %cx; xor %ax, %ax; 1: add %cx, %ax; loop 1b");
SNIP16(r_lmsw, "smsw %ax");
SNIP16(r_bcd, "mov $0x19, %al; add $0x28, %al; daa");
SNIP16(r_lgdt, "sidt 0xb300");
SNIP16(r_ltr, "ltr %ax");
SNIP16(r_arpl, ".byte 0x63, 0xc0");
SNIP16(r_hlt, "sti; hlt; nop");
SNIP16(r_iret, "pushf; push %cs; push $(1f - r_iret + 0xa000); iret; ud2; 1: mov $99, %ax");
SNIP16(r_enter, "mov %sp, %cx; enter $16, $0; mov %sp, %dx; mov %bp, %bx; leave; mov %sp, %ax");
SNIP16(r_a20, "mov $0xffff, %ax; mov %ax, %ds; mov 0x10, %ebx");      /* ffff:0010 = 1 MiB */
/* big real mode: load a 4 GiB DS in protected mode, keep it in real mode */
SNIP16(r_unreal, "lgdtl 0xb400; mov %cr0, %eax; or $1, %al; mov %eax, %cr0; mov $0x10, %bx; mov %bx, %ds; and $0xfe, %al; mov %eax, %cr0;"
		 "jmp 1f; 1: xor %bx, %bx; mov %bx, %ds; mov $0x100000, %ebx; addr32 mov (%ebx), %edx; mov %bx, %ds");

static struct real_regs fresh(void)
{
	return (struct real_regs){ .eflags = FL_1, .esp = 0x6f00 };
}

static void expect(struct real_regs *r, unsigned vec, u16 ip)
{
	CHECK_EQ(r->vec, vec);
	CHECK_EQ(r->ip, ip);
	CHECK_EQ(r->cs, 0);
}

#define DONE(name) expect(&r, VEC_DONE, (u16)(0xa000 + (name##_end - name) + 2))

int main(void)
{
	struct real_regs r = fresh();

	GO(r_arith);
	DONE(r_arith);
	CHECK_EQ(r.eax & 0xffff, 0x2345);
	CHECK_EQ(r.ebx, 0x89abcdef);
	CHECK_EQ(r.ecx & 0xffff, 0);
	r = fresh();
	GO(r_seg);
	DONE(r_seg);
	CHECK_EQ(r.ebx, 0xcafe1234);
	CHECK_EQ(*(u32 *)0x10010, 0xcafe1234);
	CHECK_EQ(r.ds, 0x1000);
	CHECK_EQ(r.es, 0x0fff);
	r = fresh();
	GO(r_int);
	expect(&r, 0x21, 0xa002);
	r = fresh();
	GO(r_div);
	expect(&r, DE, 0xa002);
	r = fresh();
	GO(r_ud);
	expect(&r, UD, 0xa000);
	r = fresh();
	GO(r_push);
	CHECK_EQ(r.eax & 0xffff, 0x9abc);
	CHECK_EQ(r.ebx & 0xffff, 0x5678);
	CHECK_EQ(r.ecx & 0xffff, 0x1234);
	CHECK_EQ(r.esp & 0xffff, 0x6f00);
	r = fresh();
	GO(r_call);
	DONE(r_call);
	CHECK_EQ(r.eax, 1);
	CHECK_EQ(r.ebx, 2);
	r = fresh();
	GO(r_far);
	DONE(r_far);
	CHECK_EQ(r.eax, 77);
	r = fresh();
	GO(r_string);
	DONE(r_string);
	CHECK_EQ(*(u32 *)0xb100, 0x00050005);
	CHECK_EQ(r.edi & 0xffff, 0xb0fe);
	CHECK_EQ(r.esi & 0xffff, 0xaffe);
	r = fresh();
	GO(r_limit_ok);
	DONE(r_limit_ok);
	if (!on_qemu) {                          /* TCG checks no limits */
		r = fresh();
		GO(r_limit);
		expect(&r, GP, 0xa003);
		r = fresh();
		GO(r_addr32);
		expect(&r, GP, 0xa006);
	}
	r = fresh();
	*(u8 *)1 = 0x5a;
	GO(r_wrap);
	DONE(r_wrap);
	r = fresh();
	GO(r_pushf);
	DONE(r_pushf);
	CHECK_EQ(r.eax & 0xffff, 2);
	CHECK_EQ(r.ebx, 2);
	CHECK_EQ(r.ecx & 0xffff, 0x7ed5 | 2);
	r = fresh();
	GO(r_into);
	expect(&r, OF, (u16)(0xa000 + (r_into_end - r_into)));
	r = fresh();
	*(u16 *)0xb200 = 6;
	*(u16 *)0xb202 = 9;
	GO(r_bound);
	expect(&r, BR, 0xa003);
	*(u16 *)0xb200 = 5;
	r = fresh();
	GO(r_bound);
	DONE(r_bound);
	r = fresh();
	GO(r_loop);
	CHECK_EQ(r.eax & 0xffff, 55);
	r = fresh();
	GO(r_lmsw);
	CHECK_EQ(r.eax & 1, 0);
	r = fresh();
	GO(r_bcd);
	CHECK_EQ(r.eax & 0xff, 0x47);
	r = fresh();
	GO(r_lgdt);
	CHECK_EQ(*(u16 *)0xb300, 0x3ff);
	r = fresh();
	GO(r_ltr);
	expect(&r, UD, 0xa000);
	r = fresh();
	GO(r_arpl);
	expect(&r, UD, 0xa000);
	r = fresh();
	GO(r_iret);
	DONE(r_iret);
	CHECK_EQ(r.eax, 99);
	r = fresh();
	GO(r_enter);
	DONE(r_enter);
	CHECK_EQ((r.ecx - r.edx) & 0xffff, 18);
	CHECK_EQ((r.ecx - r.ebx) & 0xffff, 2);
	CHECK_EQ(r.eax & 0xffff, r.ecx & 0xffff);
	r = fresh();
	GO(r_a20);
	DONE(r_a20);
	CHECK_EQ(r.ebx, *(u32 *)0x100000);       /* our multiboot header, so A20 is on */
	struct { u16 limit; u32 base; } __attribute__((packed)) g = { 0xff, (u32)gdt };
	memcpy((void *)0xb400, &g, 6);
	r = fresh();
	GO(r_unreal);
	DONE(r_unreal);
	CHECK_EQ(r.edx, *(u32 *)0x100000);
	/* timer interrupt through the IVT wakes HLT */
	pit_set(0, 0, 2000);
	pic_mask(0xfffe);
	r = fresh();
	GO(r_hlt);
	expect(&r, 0x20, 0xa002);
	CHECK_EQ(r.eflags & FL_IF, FL_IF);
	pic_eoi(0);
	pic_mask(0xffff);
	return 0;
}
