/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A vCPU over real memory and paging with fake devices, and the descriptor tables the tests of cpu/ share.
 *
 * Long mode: guest-physical 0..16 MiB is mapped at K(0) for the supervisor; USER is one user page (read-write), at FX_DATA.
 * Protected mode: paging off. Tables lie at the same guest-physical addresses in both.
 */
#ifndef TESTS_UNIT_CPU_FIXTURE_H
#define TESTS_UNIT_CPU_FIXTURE_H

#include "../mem/fixture.h"
#include "cpu/cpu.h"
#include "x86/insn.h"

#define K(x) (0xffff800000000000ull + (x))
#define USER 0x400000ull
#define GDT 0x10000ull
#define IDT 0x11000ull
#define TSS 0x12000ull
#define STACK0 0x20000ull
#define IST1 0x22008ull       /* deliberately misaligned */
#define KSTACK 0x24000ull
#define HANDLER 0x5000ull

enum {
	S_KCODE = 0x08, S_KDATA = 0x10, S_UCODE32 = 0x1b, S_UDATA = 0x23, S_UCODE = 0x2b, S_TSS = 0x30, S_KCODE32 = 0x40,
	S_CONF = 0x48, S_ABSENT_CODE = 0x50, S_ABSENT_DATA = 0x5b, S_LDT = 0x60, S_EXEC_ONLY = 0x73, S_RODATA = 0x7b,
	S_GATE = 0x80, S_DOWN = 0x93, S_UDATA16 = 0x9b, S_TSS2 = 0xa0, S_TOP = 0xb0,
};

struct bed {
	struct fx fx;
	struct vcpu *v;
	bool irq;
	int vector;
	uint64_t now, wall, apic[2], cr8, pio;
};

static inline uint64_t bed_pio_read(void *vm, uint16_t port, unsigned size)
{
	return ((struct bed *)vm)->pio + port + size;
}

static inline void bed_pio_write(void *vm, uint16_t port, unsigned size, uint64_t val)
{
	((struct bed *)vm)->pio = val + port + size;
}

static inline uint64_t bed_mmio_read(void *vm, gpa_t gpa, unsigned size)
{
	(void)vm, (void)gpa, (void)size;
	return ~0ull;
}

static inline void bed_mmio_write(void *vm, gpa_t gpa, unsigned size, uint64_t val)
{
	(void)vm, (void)gpa, (void)size, (void)val;
}

static inline bool bed_irq_pending(void *vm, unsigned cpu)
{
	(void)cpu;
	return ((struct bed *)vm)->irq;
}

static inline int bed_irq_ack(void *vm, unsigned cpu)
{
	struct bed *b = vm;

	(void)cpu;
	b->irq = false;
	return b->vector;
}

static inline int bed_apic_msr(void *vm, unsigned cpu, bool write, uint32_t msr, uint64_t *val)
{
	struct bed *b = vm;

	(void)cpu;
	if (msr == 0x8ff)
		return -1;
	if (write) {
		b->apic[0] = msr;
		b->apic[1] = *val;
	} else {
		*val = msr;
	}
	return 0;
}

static inline uint64_t bed_cr8(void *vm, unsigned cpu, bool write, uint64_t val)
{
	struct bed *b = vm;

	(void)cpu;
	if (write)
		b->cr8 = val;
	return b->cr8;
}

static inline uint64_t bed_now(void *vm) { return ((struct bed *)vm)->now; }
static inline uint64_t bed_wall(void *vm) { return ((struct bed *)vm)->wall; }

static inline int bed_setup(void **state)
{
	static const struct vcpu_ops ops = {
		.pio_read = bed_pio_read, .pio_write = bed_pio_write, .mmio_read = bed_mmio_read, .mmio_write = bed_mmio_write,
		.irq_pending = bed_irq_pending, .irq_ack = bed_irq_ack, .apic_msr = bed_apic_msr, .cr8 = bed_cr8,
		.now_ns = bed_now, .wall_ns = bed_wall,
	};
	struct bed *b = calloc(1, sizeof(*b));
	const struct vcpu_config config = { .count = 1, .tsc_khz = 2000000, .ops = &ops, .vm = b };

	assert_int_equal(mem_create(&b->fx.m, FX_RAM, 2 * FX_RAM >> PAGE_SHIFT), 0);
	assert_int_equal(mem_add_ram(b->fx.m, 0, FX_RAM), 0);
	assert_int_equal(vcpu_create(&b->v, b->fx.m, &config), 0);
	b->fx.next_table = 1 << 20;
	*state = b;
	return 0;
}

static inline int bed_teardown(void **state)
{
	struct bed *b = *state;

	vcpu_destroy(b->v);
	mem_destroy(b->fx.m);
	free(b);
	return 0;
}

static inline uint64_t get64(struct bed *b, gpa_t gpa) { return fx_get(&b->fx, gpa, 8); }
static inline void put64(struct bed *b, gpa_t gpa, uint64_t val) { fx_put(&b->fx, gpa, 8, val); }

static inline void bed_desc(struct bed *b, unsigned sel, uint64_t d) { put64(b, GDT + (sel & ~7u), d); }

/* A system descriptor or gate of 16 bytes. */
static inline void bed_desc16(struct bed *b, unsigned sel, uint64_t lo, uint64_t hi)
{
	put64(b, GDT + (sel & ~7u), lo);
	put64(b, GDT + (sel & ~7u) + 8, hi);
}

static inline uint64_t sys_desc(uint64_t base, uint32_t limit, unsigned type_attr)
{
	return (limit & 0xffff) | (base & 0xffffff) << 16 | (uint64_t)type_attr << 40 |
	       (uint64_t)(limit >> 16 & 15) << 48 | (base >> 24 & 0xff) << 56;
}

/* Interrupt gate: attr = P, DPL and type, as in byte 5. */
static inline void bed_gate64(struct bed *b, unsigned vec, uint64_t off, uint16_t sel, unsigned attr, unsigned ist)
{
	put64(b, IDT + 16 * vec, (off & 0xffff) | (uint64_t)sel << 16 | (uint64_t)ist << 32 | (uint64_t)attr << 40 |
					 (off >> 16 & 0xffff) << 48);
	put64(b, IDT + 16 * vec + 8, off >> 32);
}

static inline void bed_gate32(struct bed *b, unsigned vec, uint32_t off, uint16_t sel, unsigned attr)
{
	put64(b, IDT + 8 * vec, (off & 0xffff) | (uint64_t)sel << 16 | (uint64_t)attr << 40 | (uint64_t)(off >> 16) << 48);
}

static inline void bed_gdt(struct bed *b)
{
	bed_desc(b, S_KCODE, 0x00af9a000000ffff);        /* accessed bits clear */
	bed_desc(b, S_KDATA, 0x00cf92000000ffff);
	bed_desc(b, S_UCODE32, 0x00cffa000000ffff);
	bed_desc(b, S_UDATA, 0x00cff2000000ffff);
	bed_desc(b, S_UCODE, 0x00affa000000ffff);
	bed_desc(b, S_KCODE32, 0x00cf9a000000ffff);
	bed_desc(b, S_CONF, 0x00af9e000000ffff);
	bed_desc(b, S_ABSENT_CODE, 0x00af1a000000ffff);
	bed_desc(b, S_ABSENT_DATA, 0x00cf72000000ffff);
	bed_desc(b, S_EXEC_ONLY, 0x00cff8000000ffff);
	bed_desc(b, S_RODATA, 0x00cff0000000ffff);
	bed_desc(b, S_DOWN, 0x0040f6000000ffff);         /* expand-down, D, limit 0xffff */
	bed_desc(b, S_UDATA16, 0x0000f2000000ffff);
	b->v->gdt = (struct vcpu_table){ .base = GDT, .limit = S_TOP - 1 };
	b->v->idt = (struct vcpu_table){ .base = IDT, .limit = 0xfff };
}

/* 64-bit supervisor code with every table in place; rip USER, stack KSTACK. */
static inline void bed_long(struct bed *b)
{
	struct vcpu *v = b->v;

	bed_gdt(b);
	v->cr3 = fx_table(&b->fx);
	b->fx.mmu.regs.cr3 = v->cr3;
	for (gpa_t a = 0; a < 16 << 20; a += 2 << 20)
		fx_map(&b->fx, K(a), a, 2, PTE_P | PTE_W);
	fx_map(&b->fx, USER, FX_DATA, 1, PTE_P | PTE_W | PTE_U);
	assert_int_equal(cpu_write_cr(v, 4, CR4_PAE | CR4_OSFXSR | CR4_OSXSAVE), 0);
	assert_int_equal(cpu_wrmsr(v, 0xc0000080, EFER_LME | EFER_NXE | EFER_SCE), 0);
	assert_int_equal(cpu_write_cr(v, 0, CR0_PE), 0);
	assert_int_equal(cpu_write_cr(v, 0, CR0_PE | CR0_PG | CR0_WP | CR0_NE), 0);
	v->gdt.base = K(GDT);
	v->idt.base = K(IDT);
	bed_desc16(b, S_TSS, sys_desc(K(TSS), 0x67, 0x89), K(TSS) >> 32);
	bed_desc16(b, S_LDT, sys_desc(K(GDT), 0xffff, 0x82), K(GDT) >> 32);
	put64(b, TSS + 4, K(STACK0));
	put64(b, TSS + 36, K(IST1));
	assert_int_equal(cpu_far_jump(v, S_KCODE, 0x1000, 4), 0);
	assert_int_equal(cpu_ltr(v, S_TSS), 0);
	assert_int_equal(cpu_load_seg(v, SS, S_KDATA), 0);
	v->gpr[RSP] = K(KSTACK);
	v->rip = K(0x1000);
	for (unsigned i = 0; i < 256; i++)
		bed_gate64(b, i, K(HANDLER + i), S_KCODE, 0x8e, 0);
}

/* Goes to user mode by IRET; mode by the code selector. */
static inline void bed_user(struct bed *b, uint16_t cs)
{
	struct vcpu *v = b->v;
	gpa_t f = KSTACK - 40;

	put64(b, f, USER);
	put64(b, f + 8, cs);
	put64(b, f + 16, FL_IF | FL_FIXED);
	put64(b, f + 24, USER + 0x800);
	put64(b, f + 32, S_UDATA);
	v->gpr[RSP] = K(f);
	assert_int_equal(cpu_iret(v, 8), 0);
	assert_int_equal(v->cpl, 3);
}

/* Back to 64-bit supervisor code, by an exception. */
static inline void bed_kernel(struct bed *b)
{
	cpu_raise(b->v, VEC_UD);
	assert_int_equal(cpu_deliver_exception(b->v), 0);
	assert_int_equal(b->v->cpl, 0);
}

/* 32-bit protected mode, flat, no paging, CPL 0. */
static inline void bed_prot(struct bed *b)
{
	struct vcpu *v = b->v;

	bed_gdt(b);
	assert_int_equal(cpu_write_cr(v, 0, CR0_PE), 0);
	assert_int_equal(cpu_far_jump(v, S_KCODE32, 0x1000, 4), 0);
	assert_int_equal(cpu_load_seg(v, SS, S_KDATA), 0);
	assert_int_equal(cpu_load_seg(v, DS, S_KDATA), 0);
	assert_int_equal(cpu_load_seg(v, ES, S_KDATA), 0);
	bed_desc(b, S_TSS, sys_desc(TSS, 0x200, 0x89));
	assert_int_equal(cpu_ltr(v, S_TSS), 0);
	fx_put(&b->fx, TSS + 4, 4, STACK0);
	fx_put(&b->fx, TSS + 8, 4, S_KDATA);
	v->gpr[RSP] = KSTACK;
	for (unsigned i = 0; i < 256; i++)
		bed_gate32(b, i, HANDLER + i, S_KCODE32, 0x8e);
}

static inline void bed_user32(struct bed *b)
{
	struct vcpu *v = b->v;
	uint32_t f[5] = { USER, S_UCODE32, FL_IF | FL_FIXED, USER + 0x800, S_UDATA };

	mem_write(b->fx.m, KSTACK - 20, f, sizeof(f));
	v->gpr[RSP] = KSTACK - 20;
	assert_int_equal(cpu_iret(v, 4), 0);
	assert_int_equal(v->cpl, 3);
}

#define expect_exc(v, vec, code)                                                                                       \
	do {                                                                                                           \
		assert_int_equal((v)->exc.kind, EXC_HARDWARE);                                                         \
		assert_int_equal((v)->exc.vector, vec);                                                                \
		assert_int_equal((v)->exc.err, code);                                                                  \
		(v)->exc.kind = EXC_NONE;                                                                              \
	} while (0)

#define expect_fault(call, v, vec, code)                                                                               \
	do {                                                                                                           \
		assert_int_equal(call, -1);                                                                            \
		expect_exc(v, vec, code);                                                                              \
	} while (0)

#define bed_test(f) cmocka_unit_test_setup_teardown(f, bed_setup, bed_teardown)

#endif
