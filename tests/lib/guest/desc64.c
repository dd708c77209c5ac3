/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Descriptor tables of the long64 environment: GDT helpers, a 256-entry IDT, the TSS.
 *
 * Invariant: after boot64() every vector has a present interrupt gate (IF cleared on entry), DPL 0 except VEC_DONE, IST 0.
 * Spec: SDM vol. 3A 3.4.5, 6.14.1, 7.7.
 */
#include "guest.h"

struct gate { u16 off0, sel; u8 ist, attr; u16 off1; u32 off2, zero; };
static struct gate idt[256] __attribute__((aligned(16)));
struct tss tss __attribute__((aligned(16)));

void gdt_set(unsigned sel, u64 desc)
{
	gdt[sel >> 3] = desc;
	barrier();
}

u64 seg_desc(u32 base, u32 limit20, u8 access, u8 flags)
{
	return (limit20 & 0xffff) | (u64)(base & 0xffffff) << 16 | (u64)access << 40 | (u64)(limit20 >> 16 & 0xf) << 48 |
	       (u64)(flags & 0xf) << 52 | (u64)(base >> 24) << 56;
}

void idt_gate(unsigned vec, void *handler, unsigned sel, unsigned attr, unsigned ist)
{
	u64 h = (u64)handler;

	idt[vec] = (struct gate){ (u16)h, (u16)sel, (u8)ist, (u8)attr, (u16)(h >> 16), (u32)(h >> 32), 0 };
	barrier();
}

void idt_default(unsigned vec)
{
	idt_gate(vec, trap_stubs + vec * TRAP_STUB_SIZE, KCS, vec == VEC_DONE ? 0xee : 0x8e, 0);
}

void idt_dpl(unsigned vec, unsigned dpl)
{
	idt[vec].attr = (u8)((idt[vec].attr & ~0x60) | dpl << 5);
	barrier();
}

void idt_ist(unsigned vec, unsigned ist)
{
	idt[vec].ist = (u8)ist;
	barrier();
}

void idt_present(unsigned vec, bool present)
{
	idt[vec].attr = (u8)((idt[vec].attr & 0x7f) | present << 7);
	barrier();
}

void idt_load(u16 limit)
{
	struct { u16 limit; u64 base; } __attribute__((packed)) d = { limit, (u64)idt };
	asm volatile("lidt %0" : : "m"(d));
}

void boot64(void);
void guest_main(void);
void boot64(void)
{
	struct { u16 limit; u64 base; } __attribute__((packed)) d = { sizeof(gdt) - 1, (u64)gdt };
	u64 base = (u64)&tss;

	for (unsigned v = 0; v < 256; v++)
		idt_default(v);
	idt_load(IDT_FULL_LIMIT);
	for (unsigned i = 0; i < 3; i++)
		tss.rsp[i] = (u64)trap_stack_top;
	for (unsigned i = 0; i < 7; i++)
		tss.ist[i] = (u64)ist_stack_top - i * 8192;
	tss.iomap = offsetof(struct tss, bitmap);
	memset(tss.bitmap, 0xff, sizeof(tss.bitmap));
	gdt[TSS_SEL >> 3] = seg_desc((u32)base, sizeof(tss) - 1, 0x89, 0);
	gdt[(TSS_SEL >> 3) + 1] = base >> 32;
	asm volatile("lgdt %0; ltr %w1" : : "m"(d), "r"(TSS_SEL) : "memory");
	wrmsr(0xc0000081, (u64)(UCS32) << 48 | (u64)KCS << 32);
	wrmsr(0xc0000082, (u64)syscall_entry);
	wrmsr(0xc0000083, (u64)syscall32_entry);
	wrmsr(0xc0000084, FL_TF | FL_IF | FL_DF | FL_NT | FL_AC);
	pic_init(0x20, 0x28);
	guest_main();
}
