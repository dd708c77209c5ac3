/* SPDX-License-Identifier: Apache-2.0 */
/*
 * From power-on state to the state a boot protocol promises: flat segments, protected mode, or long mode over identity page
 * tables for the first 4 GiB (SDM vol. 3A 9.8.5; Linux boot.rst "64-bit boot protocol"; multiboot 0.6.96 3.2).
 *
 * Invariant: the hidden parts of the segment registers equal the descriptors in the GDT written here.
 */
#include "cpu/cpu.h"
#include "vm/boot/boot.h"

#define DESC_CODE32 0x00cf9b000000ffffull
#define DESC_CODE64 0x00af9b000000ffffull
#define DESC_DATA 0x00cf93000000ffffull
#define DESC_TSS 0x00008b0000000067ull   /* base 0, busy */
#define BOOT_TR 0x20

#define TABLE_FLAGS (PTE_P | PTE_W | PTE_A)

static void write_gdt(const struct boot_target *t, bool long_mode)
{
	const uint64_t gdt[] = {0, 0, long_mode ? DESC_CODE64 : DESC_CODE32, DESC_DATA, DESC_TSS, 0};

	(void)boot_copy(t, BOOT_GDT, gdt, sizeof(gdt));
}

/* PML4, PDPT and four page directories of 2 MiB pages. */
static void write_tables(const struct boot_target *t)
{
	uint64_t page[512] = {(BOOT_TABLES + 0x1000) | TABLE_FLAGS};

	(void)boot_copy(t, BOOT_TABLES, page, sizeof(page));
	for (unsigned i = 0; i < 4; i++)
		page[i] = (BOOT_TABLES + 0x2000 + i * 0x1000ull) | TABLE_FLAGS;
	(void)boot_copy(t, BOOT_TABLES + 0x1000, page, sizeof(page));
	for (unsigned d = 0; d < 4; d++) {
		for (unsigned i = 0; i < 512; i++)
			page[i] = ((d * 512ull + i) << 21) | TABLE_FLAGS | PTE_D | PTE_PS;
		(void)boot_copy(t, BOOT_TABLES + 0x2000 + d * 0x1000ull, page, sizeof(page));
	}
}

static void set_segments(struct vcpu *v, bool long_mode)
{
	const struct vcpu_seg data = {.sel = BOOT_DS, .attr = 0xc093, .limit = 0xffffffff};

	v->seg[CS] = (struct vcpu_seg){.sel = BOOT_CS, .attr = long_mode ? 0xa09b : 0xc09b, .limit = 0xffffffff};
	v->seg[DS] = v->seg[ES] = v->seg[SS] = v->seg[FS] = v->seg[GS] = data;
	v->seg[TR] = (struct vcpu_seg){.sel = BOOT_TR, .attr = 0x8b, .limit = 0x67};
	v->seg[LDTR] = (struct vcpu_seg){.attr = 0x82, .unusable = true};
	v->gdt.base = BOOT_GDT;
	v->gdt.limit = 6 * 8 - 1;
	v->idt.base = 0;
	v->idt.limit = 0;
}

void boot_enter(const struct boot_target *t, const struct boot_entry *e, struct vcpu *v)
{
	struct mmu_regs regs;

	write_gdt(t, e->long_mode);
	set_segments(v, e->long_mode);
	v->cr0 = CR0_PE | CR0_ET | CR0_NE;
	v->cr3 = v->cr4 = v->efer = 0;
	if (e->long_mode) {
		write_tables(t);
		v->cr0 |= CR0_PG;
		v->cr3 = BOOT_TABLES;
		v->cr4 = CR4_PAE;
		v->efer = EFER_LME | EFER_LMA;
	}
	regs = (struct mmu_regs){.cr0 = v->cr0, .cr3 = v->cr3, .cr4 = v->cr4, .efer = v->efer};
	mmu_set_regs(&v->mmu, &regs, false);
	for (unsigned i = 0; i < GPR_COUNT; i++)
		v->gpr[i] = 0;
	v->gpr[RAX] = e->rax;
	v->gpr[RBX] = e->rbx;
	v->gpr[RSI] = e->rsi;
	v->gpr[RSP] = BOOT_STACK;
	v->rip = e->rip;
	v->rflags = FL_FIXED;
	v->cpl = 0;
	cpu_update_mode(v);
}
