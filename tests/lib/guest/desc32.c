/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Descriptor tables of the prot32 environment, and real_run().
 *
 * Invariant: after boot32() every vector has a present 32-bit interrupt gate, DPL 0 except VEC_DONE.
 * Spec: SDM vol. 3A 3.4.5, 6.11, 7.2.1, 20.1.4.
 */
#include "guest.h"

struct gate { u16 off0, sel; u8 zero, attr; u16 off1; };
static struct gate idt[256] __attribute__((aligned(16)));
struct tss tss __attribute__((aligned(128)));

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
	u32 h = (u32)handler;

	(void)ist;
	idt[vec] = (struct gate){ (u16)h, (u16)sel, 0, (u8)attr, (u16)(h >> 16) };
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

void idt_present(unsigned vec, bool present)
{
	idt[vec].attr = (u8)((idt[vec].attr & 0x7f) | present << 7);
	barrier();
}

void idt_load(u16 limit)
{
	struct { u16 limit; u32 base; } __attribute__((packed)) d = { limit, (u32)idt };
	asm volatile("lidt %0" : : "m"(d));
}

void real_enter(void);
extern u8 real_start[], real_end[], real_stub_off[];

void real_run(struct real_regs *r, const void *code, size_t len)
{
	memcpy((void *)0x8000, real_start, (size_t)(real_end - real_start));
	memcpy((void *)0xa000, code, len);
	memcpy((void *)(0xa000 + len), "\xcd\xfe", 2);
	for (unsigned v = 0; v < 256; v++)
		((volatile u32 *)0)[v] = (u32)real_stub_off + v * 8;     /* segment 0 */
	barrier();
	if (!r->ip)
		r->entry_ip = 0xa000;
	else
		r->entry_ip = r->ip;
	r->entry_cs = r->cs;
	memcpy((void *)0x7000, r, sizeof(*r));
	real_enter();
	memcpy(r, (void *)0x7000, sizeof(*r));
}

void boot32(void);
void guest_main(void);
void boot32(void)
{
	for (unsigned v = 0; v < 256; v++)
		idt_default(v);
	idt_load(IDT_FULL_LIMIT);
	tss.esp0 = (u32)trap_stack_top;
	tss.ss0 = KDS;
	tss.iomap = offsetof(struct tss, bitmap);
	memset(tss.bitmap, 0xff, sizeof(tss.bitmap));
	gdt[TSS_SEL >> 3] = seg_desc((u32)&tss, sizeof(tss) - 1, 0x89, 0);
	asm volatile("ltr %w0" : : "r"(TSS_SEL) : "memory");
	pic_init(0x20, 0x28);
	guest_main();
}
