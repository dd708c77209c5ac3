/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Helpers shared by the files of cpu/: descriptors, mode predicates, system-table accesses and stack frames.
 *
 * Invariant: a change of CPL goes through cpu_set_cpl(), so that mmu_enter_user() is never forgotten.
 * Locking: none; everything belongs to the vCPU's thread.
 * Spec: SDM vol. 3A 3.4.5 (segment descriptors), 3.5 (system descriptors), 6.11 (gates).
 */
#ifndef CPU_PRIVATE_H
#define CPU_PRIVATE_H

#include "cpu/cpu.h"
#include "x86/insn.h"

/* Descriptor types with S = 0 (SDM vol. 3A table 3-2). */
enum desc_type {
	DT_TSS16 = 1, DT_LDT = 2, DT_TSS16_BUSY = 3, DT_CALL16 = 4, DT_TASK = 5, DT_INT16 = 6, DT_TRAP16 = 7,
	DT_TSS32 = 9, DT_TSS32_BUSY = 11, DT_CALL32 = 12, DT_INT32 = 14, DT_TRAP32 = 15,
};

#define DESC_BIT_ACCESSED BIT(40)
#define DESC_BIT_BUSY BIT(41)

static inline uint32_t desc_base(uint64_t d)
{
	return (uint32_t)((d >> 16) & 0xffffff) | (uint32_t)((d >> 56) << 24);
}

static inline uint32_t desc_limit(uint64_t d)
{
	uint32_t limit = (uint32_t)(d & 0xffff) | (uint32_t)((d >> 32) & 0xf0000);

	return d & BIT(55) ? limit << 12 | 0xfff : limit;
}

static inline unsigned desc_type(uint64_t d) { return (unsigned)(d >> 40) & 15; }
static inline unsigned desc_dpl(uint64_t d) { return (unsigned)(d >> 45) & 3; }
static inline bool desc_is_segment(uint64_t d) { return d & BIT(44); }
static inline bool desc_present(uint64_t d) { return d & BIT(47); }
static inline bool desc_long(uint64_t d) { return d & BIT(53); }
static inline bool desc_big(uint64_t d) { return d & BIT(54); }
static inline uint16_t desc_attr(uint64_t d) { return (uint16_t)(d >> 40) & 0xf0ff; }
/* S and type together: code segments, conforming ones, and writable data. */
static inline bool desc_is_code(uint64_t d) { return (d & (BIT(44) | BIT(43))) == (BIT(44) | BIT(43)); }
static inline bool desc_is_conforming(uint64_t d) { return d & BIT(42); }
static inline bool desc_is_writable_data(uint64_t d)
{
	return (d & (BIT(44) | BIT(43) | BIT(41))) == (BIT(44) | BIT(41));
}

static inline bool sel_null(uint16_t sel) { return !(sel & ~3u); }

static inline bool cpu_real(const struct vcpu *v) { return !(v->cr0 & CR0_PE); }
static inline bool cpu_v86(const struct vcpu *v) { return v->rflags & FL_VM; }
static inline bool cpu_long(const struct vcpu *v) { return v->efer & EFER_LMA; }
static inline bool cpu_code64(const struct vcpu *v) { return v->mode == INSN_MODE_64; }
static inline unsigned cpu_iopl(const struct vcpu *v) { return (unsigned)(v->rflags >> 12) & 3; }

/* Around a call into the machine around the CPU, which may wait for locks, and for other vCPUs: parks the vector state, tells a journal that
 * this cannot be undone, and answers other vCPUs' requests (mem/sync.c), so host addresses of guest memory do not outlive the call. */
static inline bool cpu_leave(struct vcpu *v)
{
	vcpu_fpu_park(v);
	if (unlikely(v->journal))
		v->journal->io = true;
	return mmu_pause(&v->mmu);
}

static inline void cpu_return(struct vcpu *v, bool was)
{
	mmu_resume(&v->mmu, was);
}

static inline void cpu_set_cpl(struct vcpu *v, unsigned cpl)
{
	if (cpl == 3 && v->cpl != 3)
		mmu_enter_user(&v->mmu);
	v->cpl = (uint8_t)cpl;
}

/* Host address of [lin, lin + len) for a supervisor access if the flat table has it and it lies in one page; else NULL.
 * Entries of the lower half may carry user rights, which are a subset. Writes are left to access.c while a journal records them. */
static inline void *cpu_flat(const uint64_t *table, gva_t lin, unsigned len)
{
	uint64_t e;

	if (unlikely((lin & PAGE_MASK) > PAGE_SIZE - len || !x86_canonical(lin)))
		return NULL;
	e = table[mmu_vpn(lin)];
	return e ? (void *)(uintptr_t)(lin + e) : NULL;
}

static inline void *cpu_flat_read(struct vcpu *v, gva_t lin, unsigned len)
{
	return cpu_flat(v->mmu.cur->r, lin, len);
}

static inline void *cpu_flat_write(struct vcpu *v, gva_t lin, unsigned len)
{
	return v->journal ? NULL : cpu_flat(v->mmu.cur->w, lin, len);
}

/* Eight bytes with supervisor rights: descriptors, gates, TSS fields. */
static inline int cpu_sys_u64(struct vcpu *v, gva_t lin, uint64_t *val)
{
	const void *p = cpu_flat_read(v, lin, 8);

	if (likely(p)) {
		__builtin_memcpy(val, p, 8); /* TSS fields are not aligned */
		return 0;
	}
	return cpu_load_sys(v, lin, 8, val);
}

/* Linear address of the descriptor that sel (not null) names, with `size` bytes inside its table. */
static inline bool cpu_desc_addr(const struct vcpu *v, uint16_t sel, unsigned size, gva_t *lin)
{
	unsigned off = sel & ~7u;

	if (sel & 4) {
		const struct vcpu_seg *ldt = &v->seg[LDTR];

		*lin = ldt->base + off;
		return !ldt->unusable && off + size - 1 <= ldt->limit;
	}
	*lin = v->gdt.base + off;
	return off + size - 1 <= v->gdt.limit;
}

/* Reads the descriptor of sel (not null); raises vec(sel & ~3 | ext) if it lies outside its table. */
int cpu_desc_read(struct vcpu *v, uint16_t sel, enum x86_vector vec, unsigned ext, uint64_t *d);
/* Sets the accessed bit in memory if it is clear; *d follows. */
int cpu_desc_mark(struct vcpu *v, uint16_t sel, uint64_t *d);
/* Fills a hidden part from a descriptor. */
void cpu_seg_fill(struct vcpu_seg *s, uint16_t sel, uint64_t d);
/* The null selector as interrupts, far calls and IRET in 64-bit mode leave it in SS: no segment, DPL = cpl. */
void cpu_seg_null(struct vcpu_seg *s, uint16_t sel, unsigned dpl);
/* Real and virtual-8086 mode: base = sel * 16. */
void cpu_seg_real(struct vcpu *v, enum x86_seg seg, uint16_t sel);
/* Installs a checked code segment and the CPL that goes with it, and recomputes the mode. */
void cpu_install_cs(struct vcpu *v, uint16_t sel, uint64_t d, unsigned cpl);
/* Flat code and stack segments as SYSCALL, SYSENTER and their returns set them. */
void cpu_install_flat(struct vcpu *v, uint16_t cs_sel, uint16_t ss_sel, unsigned cpl, bool code64);
/* Outer returns: data segments that the new CPL may not use become null. */
void cpu_drop_inner_segs(struct vcpu *v);
/* Reads and checks the SS descriptor for a stack of privilege cpl; faults are vec(sel), #SS(sel) if not present. */
int cpu_check_ss(struct vcpu *v, uint16_t sel, unsigned cpl, enum x86_vector vec, unsigned ext, uint64_t *d);

/* Replaces RFLAGS, posting the interrupt event if IF opened the window. */
void cpu_put_rflags(struct vcpu *v, uint64_t rflags);

/* A stack being pushed to or popped from before its registers are committed. */
struct cpu_stack {
	struct vcpu *v;
	uint64_t base;      /* of the segment; 0 in 64-bit mode */
	uint64_t sp;
	uint64_t mask;      /* 0xffff, 0xffffffff or all ones */
	uint32_t limit;
	uint16_t attr;
	bool code64;        /* no limit checks, canonical ones */
	bool user;          /* accesses carry CPL 3 rights */
	uint16_t err;       /* error code of a #SS it raises */
};
void cpu_stack_current(struct vcpu *v, struct cpu_stack *s);
void cpu_stack_new(struct vcpu *v, struct cpu_stack *s, uint64_t ss_desc, uint64_t sp, unsigned cpl, uint16_t err);
int cpu_stack_push(struct cpu_stack *s, unsigned size, uint64_t val);
/* Reads at sp + off and leaves sp alone. */
int cpu_stack_peek(struct cpu_stack *s, unsigned off, unsigned size, uint64_t *val);
/* Stores sp into RSP with the stack's width. */
void cpu_stack_commit(struct vcpu *v, const struct cpu_stack *s);

/* Hardware task switch (task.c). */
enum task_reason { TASK_JMP, TASK_CALL, TASK_IRET, TASK_GATE };
int cpu_task_switch(struct vcpu *v, uint16_t sel, uint64_t desc, enum task_reason why, unsigned ext, bool has_err,
		    uint32_t err, uint64_t next_rip);
/* SS0:ESP0 .. of the current TSS for a switch to privilege cpl, outside long mode. */
int cpu_tss_stack(struct vcpu *v, unsigned cpl, unsigned ext, uint16_t *ss, uint64_t *sp);
/* RSPn (n = 0..2) or ISTn (n = 4..10) of the 64-bit TSS. */
int cpu_tss_rsp(struct vcpu *v, unsigned n, unsigned ext, uint64_t *rsp);

/* cpuid.c: builds v->cpuid[] from the host's leaves. */
void cpu_cpuid_init(struct vcpu *v);
bool cpu_vendor_amd(const struct vcpu *v);
/* fpu.c: initial state. */
void cpu_fpu_reset(struct vcpu *v);
/* Which state components the model has, and where: what the host has and insn_decode() knows instructions for. */
void cpu_fpu_model(struct vcpu *v);
/* Bytes of an XSAVE image with these components (XCR0 bits), legacy region and header included. */
uint32_t cpu_xsave_size(const struct vcpu *v, uint64_t components, bool compacted);
/* pvkvm.c: writes MSR_KVM_STEAL_TIME; brings steal time up to date now and then, between cpu_leave() and cpu_return(). */
int cpu_pv_wrmsr_steal(struct vcpu *v, uint64_t val);
void cpu_pv_tick(struct vcpu *v);
/* pvclock.c */
int cpu_pvclock_wrmsr(struct vcpu *v, uint32_t msr, uint64_t val);
/* control.c: hands the paging registers to the mmu. */
void cpu_sync_mmu(struct vcpu *v, bool noflush);

#endif
