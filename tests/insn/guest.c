/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The same instruction in an engine: a guest in 64-bit mode, the test's addresses mapped at CPL 3, an IDT whose 256 handlers are HLT. The
 * instruction is followed by INT 81h, so that it always ends in a handler; which one, and the frame it got, say what happened. Only
 * engine_ops is used, so every engine can be tested this way.
 *
 * Guest-physical layout: 1000h-8fffh page tables, 20000h GDT, 21000h IDT, 22000h TSS, 23000h handlers, 24000h stack, 30000h data,
 * 32000h code; supervisor virtual = KERNEL_VA + physical.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/engine.h"
#include "insn_test.h"

#define KERNEL_VA 0xffff800000000000ull
#define GDT_PA 0x20000ull
#define IDT_PA 0x21000ull
#define TSS_PA 0x22000ull
#define HANDLER_PA 0x23000ull
#define STACK_TOP_PA 0x25000ull
#define DATA_PA 0x30000ull
#define CODE_PA 0x32000ull
#define DONE_VECTOR 0x81

struct guest {
	struct mem *mem;
	struct vcpu *v;
	const struct engine_ops *engine;
};

/* --- the machine around it: nothing ---------------------------------------------------------------------------------- */

static uint64_t no_read(void *vm, uint16_t port, unsigned size) { (void)vm; (void)port; (void)size; return ~0ull; }
static void no_write(void *vm, uint16_t port, unsigned size, uint64_t val) { (void)vm; (void)port; (void)size; (void)val; }
static uint64_t no_mmio(void *vm, gpa_t gpa, unsigned size) { (void)vm; (void)gpa; (void)size; return ~0ull; }
static void no_mmio_write(void *vm, gpa_t gpa, unsigned size, uint64_t val) { (void)vm; (void)gpa; (void)size; (void)val; }
static bool no_irq(void *vm, unsigned cpu) { (void)vm; (void)cpu; return false; }
static int no_ack(void *vm, unsigned cpu) { (void)vm; (void)cpu; return -1; }
static int no_msr(void *vm, unsigned cpu, bool write, uint32_t msr, uint64_t *val)
{
	(void)vm; (void)cpu; (void)write; (void)msr; (void)val;
	return -1;
}
static uint64_t no_cr8(void *vm, unsigned cpu, bool write, uint64_t val) { (void)vm; (void)cpu; (void)write; (void)val; return 0; }
static uint64_t no_time(void *vm) { (void)vm; return 0; }

static const struct vcpu_ops ops = {
	.pio_read = no_read, .pio_write = no_write, .mmio_read = no_mmio, .mmio_write = no_mmio_write, .irq_pending = no_irq,
	.irq_ack = no_ack, .apic_msr = no_msr, .cr8 = no_cr8, .now_ns = no_time, .wall_ns = no_time,
};

/* --- tables ------------------------------------------------------------------------------------------------------------ */

static void put64(struct guest *g, gpa_t pa, uint64_t val)
{
	if (mem_write(g->mem, pa, &val, 8))
		abort();
}

static void build_paging(struct guest *g)
{
	const uint64_t user = PTE_P | PTE_W | PTE_U, super = PTE_P | PTE_W;

	put64(g, 0x1000, 0x2000 | user);
	put64(g, 0x2000, 0x3000 | user);
	put64(g, 0x3000 + 8 * (DATA_VA >> 21), 0x4000 | user);
	for (unsigned i = 0; i < 2; i++)
		put64(g, 0x4000 + 8 * i, (DATA_PA + i * PAGE_SIZE) | user);
	put64(g, 0x4000 + 8 * ((CODE_VA >> 12) & 511), CODE_PA | user);
	put64(g, 0x1000 + 8 * 256, 0x6000 | super);
	put64(g, 0x6000, 0x7000 | super);
	put64(g, 0x7000, 0x8000 | super);
	for (unsigned i = 0; i < 64; i++)
		put64(g, 0x8000 + 8 * i, i * PAGE_SIZE | super);
}

static void build_tables(struct guest *g)
{
	uint64_t tss = KERNEL_VA + TSS_PA;
	uint8_t hlt = 0xf4;

	put64(g, GDT_PA + 0x10, 0x00af9b000000ffff);
	put64(g, GDT_PA + 0x18, 0x00cf93000000ffff);
	put64(g, GDT_PA + 0x28, 0x00cff3000000ffff);
	put64(g, GDT_PA + 0x30, 0x00affb000000ffff);
	put64(g, GDT_PA + 0x40, 0x67 | (tss & 0xffffff) << 16 | 0x8bull << 40 | ((tss >> 24) & 0xff) << 56);
	put64(g, GDT_PA + 0x48, tss >> 32);
	put64(g, TSS_PA + 4, KERNEL_VA + STACK_TOP_PA);
	put64(g, TSS_PA + 0x60, 0x68ull << 48); /* no I/O bitmap */
	for (unsigned i = 0; i < 256; i++) {
		uint64_t h = KERNEL_VA + HANDLER_PA + 16 * i, dpl = i == DONE_VECTOR ? 3 : 0;

		put64(g, IDT_PA + 16 * i,
		      (h & 0xffff) | 0x10ull << 16 | (0x8e00ull | dpl << 13) << 32 | ((h >> 16) & 0xffff) << 48);
		put64(g, IDT_PA + 16 * i + 8, h >> 32);
		if (mem_write(g->mem, HANDLER_PA + 16 * i, &hlt, 1))
			abort();
	}
}

static void set_system(struct vcpu *v)
{
	struct mmu_regs regs;

	v->cr0 = CR0_PE | CR0_MP | CR0_ET | CR0_NE | CR0_WP | CR0_PG;
	v->cr3 = 0x1000;
	v->cr4 = CR4_PAE | CR4_OSFXSR | CR4_OSXMMEXCPT | CR4_OSXSAVE | CR4_FSGSBASE | CR4_UMIP;
	v->efer = EFER_SCE | EFER_LME | EFER_LMA | EFER_NXE;
	v->gdt = (struct vcpu_table){KERNEL_VA + GDT_PA, 0x4f};
	v->idt = (struct vcpu_table){KERNEL_VA + IDT_PA, 0xfff};
	v->seg[TR] = (struct vcpu_seg){.sel = 0x40, .attr = 0x8b, .limit = 0x67, .base = KERNEL_VA + TSS_PA};
	v->seg[LDTR] = (struct vcpu_seg){.unusable = true};
	v->fpu.xcr0 = v->fpu.model;
	regs = (struct mmu_regs){.cr0 = v->cr0, .cr3 = v->cr3, .cr4 = v->cr4, .efer = v->efer};
	mmu_set_regs(&v->mmu, &regs, false);
}

static void set_user(struct vcpu *v, enum insn_mode mode)
{
	static const struct vcpu_seg null = {.unusable = true}, data = {.sel = 0x2b, .attr = 0xc0f3, .limit = 0xffffffff};

	v->seg[CS] = (struct vcpu_seg){.sel = 0x33, .attr = mode == INSN_MODE_64 ? 0xa0fb : 0xc0fb, .limit = 0xffffffff};
	v->seg[SS] = data;
	v->seg[FS] = v->seg[GS] = null;
	v->seg[DS] = v->seg[ES] = mode == INSN_MODE_64 ? null : data;
	v->cpl = 3;
	cpu_update_mode(v);
	mmu_enter_user(&v->mmu);
}

/* --- running --------------------------------------------------------------------------------------------------------------- */

int guest_create(struct guest **out, const char *engine)
{
	struct guest *g = calloc(1, sizeof(*g));
	const struct vcpu_config config = {.count = 1, .tsc_khz = 2000000, .ops = &ops, .vm = g};
	char why[128];

	if (!g)
		return -1;
	g->engine = engine_find(engine, 1, why, sizeof(why));
	if (!g->engine) {
		fprintf(stderr, "engine %s: %s\n", engine, why);
		return -1;
	}
	if (mem_create(&g->mem, 4 << 20, 1024) || mem_add_ram(g->mem, 0, 4 << 20) || vcpu_create(&g->v, g->mem, &config) ||
	    g->engine->create(g->v))
		return -1;
	build_paging(g);
	build_tables(g);
	set_system(g->v);
	*out = g;
	return 0;
}

void guest_destroy(struct guest *g)
{
	g->engine->destroy(g->v);
	vcpu_destroy(g->v);
	mem_destroy(g->mem);
	free(g);
}

static bool has_error_code(unsigned vector)
{
	return vector == VEC_DF || (vector >= VEC_TS && vector <= VEC_PF) || vector == VEC_AC;
}

/* The frame that delivery pushed says where and with what the instruction ended. */
static void read_outcome(struct guest *g, struct outcome *o)
{
	struct vcpu *v = g->v;
	uint64_t frame[6] = {0}, off = v->rip - 1 - (KERNEL_VA + HANDLER_PA);
	unsigned vector = (unsigned)(off / 16), skip;

	memcpy(o->s.gpr, v->gpr, sizeof(o->s.gpr));
	memcpy(o->s.x, v->fpu.area, x_size());
	o->cr2 = v->cr2;
	if (off >= PAGE_SIZE || off % 16) {
		o->vector = -2;
		o->s.rip = v->rip;
		o->s.rflags = v->rflags;
		return;
	}
	skip = has_error_code(vector);
	mem_read(g->mem, v->gpr[RSP] - KERNEL_VA, frame, sizeof(uint64_t) * (5 + skip));
	o->vector = vector == DONE_VECTOR ? -1 : (int)vector;
	o->err = skip ? (uint32_t)frame[0] : 0;
	o->s.rip = frame[skip] - (vector == DONE_VECTOR ? 2 : 0);
	o->s.rflags = frame[skip + 2];
	o->s.gpr[RSP] = frame[skip + 3];
}

void guest_load(struct guest *g, enum insn_mode mode, const uint8_t *code, const struct state *s)
{
	struct vcpu *v = g->v;

	/* Before the writes: an engine learns of new code by an event. */
	v->event = 0;
	mem_write(g->mem, DATA_PA, s->mem, DATA_SIZE);
	mem_write(g->mem, CODE_PA, code, PAGE_SIZE);
	set_user(v, mode);
	memcpy(v->gpr, s->gpr, sizeof(v->gpr));
	v->rip = INSN_VA;
	v->rflags = s->rflags;
	v->cr2 = 0;
	v->halted = false;
	memcpy(v->fpu.area, s->x, x_size());
	v->fpu_live = false;
}

void guest_go(struct guest *g, struct outcome *o)
{
	enum exit_reason why = g->engine->run(g->v);

	read_outcome(g, o);
	if (why != EXIT_HLT)
		o->vector = -3 - (int)why;
	mem_read(g->mem, DATA_PA, o->s.mem, DATA_SIZE);
}

struct vcpu *guest_vcpu(struct guest *g)
{
	return g->v;
}

void guest_run(struct guest *g, const struct test *t, struct outcome *o)
{
	static const uint8_t done[] = {0xcd, DONE_VECTOR};
	uint8_t code[PAGE_SIZE];

	memset(code, 0xcc, sizeof(code));
	memcpy(code + (INSN_VA & PAGE_MASK), t->code, t->in.len);
	memcpy(code + (INSN_VA & PAGE_MASK) + t->in.len, done, 2);
	memcpy(code + (TARGET_VA & PAGE_MASK), done, 2);
	guest_load(g, INSN_MODE_64, code, &t->s);
	guest_go(g, o);
}
