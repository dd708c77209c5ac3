/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What instructions mean above the arithmetic: memory access with all its checks, segments, control transfer, exceptions,
 * control registers, MSRs, CPUID, vector state. Both engines call these; nothing here executes an instruction stream.
 *
 * Convention: int functions return 0, or -1 with v->exc set (the instruction faults; v->rip still points at it).
 */
#ifndef CPU_CPU_H
#define CPU_CPU_H

#include "cpu/vcpu.h"

/* --- raising (excp.c): record and return -1 ------------------------------------------------------------------- */
int cpu_raise(struct vcpu *v, enum x86_vector vec);                 /* no error code */
int cpu_raise_err(struct vcpu *v, enum x86_vector vec, uint32_t err);
int cpu_raise_pf(struct vcpu *v, gva_t gva, uint32_t err);
int cpu_raise_db(struct vcpu *v, uint64_t dr6_bits);                 /* trap or fault; v->rip is what is pushed */
#define cpu_ud(v) cpu_raise(v, VEC_UD)
#define cpu_gp0(v) cpu_raise_err(v, VEC_GP, 0)

/* --- access.c: linear memory ------------------------------------------------------------------------------------ *
 * size 1, 2, 4, 8 for load/store; any length up to 4096 for the _buf forms. May cross a page. Values little-endian,
 * zero-extended. The _sys forms are implicit supervisor accesses (descriptor tables, TSS), whatever the CPL.
 * Errors: #PF; #GP(0)/#SS(0) for non-canonical is the caller's (cpu_linear does it). MMIO goes to v->ops. */
int cpu_load(struct vcpu *v, gva_t lin, unsigned size, uint64_t *val);
int cpu_store(struct vcpu *v, gva_t lin, unsigned size, uint64_t val);
int cpu_load_sys(struct vcpu *v, gva_t lin, unsigned size, uint64_t *val);
int cpu_store_sys(struct vcpu *v, gva_t lin, unsigned size, uint64_t val);
int cpu_load_buf(struct vcpu *v, gva_t lin, void *buf, size_t len);
int cpu_store_buf(struct vcpu *v, gva_t lin, const void *buf, size_t len);   /* all or nothing: both pages are probed first */
/* Checks that [lin, lin+len) can be written (sets A/D), without changing it. */
int cpu_probe_write(struct vcpu *v, gva_t lin, size_t len);
/* Read-modify-write of 1..16 bytes. Inside one page of RAM hva is the operand itself: the caller uses host atomics on it and then
 * cpu_rmw_close(). Otherwise (a page is crossed, a device) it is NULL, and the caller does load, compute, cpu_store, between
 * cpu_alone_begin() and _end() if the whole must be atomic. */
struct cpu_rmw {
	void *hva;
	gpa_t gpa;       /* if walked */
	bool walked;     /* not through a write entry: others may have to be told of the store */
};
int cpu_rmw_open(struct vcpu *v, gva_t lin, unsigned size, struct cpu_rmw *r);
void cpu_rmw_close(struct vcpu *v, const struct cpu_rmw *r, unsigned size);
/* Sets, then clears bits of a byte, each atomically, with supervisor rights: accessed and busy bits of descriptors. */
int cpu_change_byte_sys(struct vcpu *v, gva_t lin, uint8_t set, uint8_t clear);
/* No other vCPU executes anything in between. Nothing derived from memory may be held at the begin. */
void cpu_alone_begin(struct vcpu *v);
void cpu_alone_end(struct vcpu *v);
/* Up to 15 instruction bytes at linear address lin with fetch rights (NX, SMEP, U/S) into buf; *got >= 1 and stops at the end
 * of what can be fetched. -1 with #PF only if the first byte cannot be fetched. *gpa of the first byte. */
int cpu_fetch(struct vcpu *v, gva_t lin, uint8_t buf[16], unsigned *got, gpa_t *gpa);

/* --- seg.c ------------------------------------------------------------------------------------------------------ */
/* seg:off -> linear, with limit, type and canonical checks for an access of `len` bytes. #GP(0) or #SS(0) (seg == SS). */
int cpu_linear(struct vcpu *v, enum x86_seg seg, uint64_t off, unsigned len, bool write, gva_t *lin);
/* MOV/POP to ES, SS, DS, FS, GS (not CS); LLDT; LTR. All checks of SDM vol. 2B MOV, vol. 3A 5. */
int cpu_load_seg(struct vcpu *v, enum x86_seg seg, uint16_t sel);
int cpu_lldt(struct vcpu *v, uint16_t sel);
int cpu_ltr(struct vcpu *v, uint16_t sel);
/* LAR, LSL, VERR, VERW: *ok = ZF; no exception for a bad selector. */
int cpu_lar(struct vcpu *v, uint16_t sel, bool *ok, uint32_t *rights);
int cpu_lsl(struct vcpu *v, uint16_t sel, bool *ok, uint32_t *limit);
int cpu_verify(struct vcpu *v, uint16_t sel, bool write, bool *ok);
/* Recomputes v->mode and v->cpl-derived state after CS, CR0.PE or EFER.LMA changed. */
void cpu_update_mode(struct vcpu *v);

/* --- far.c: control transfer that changes CS; on success v->rip, CS, SS, RSP, CPL are the new ones ---------------- */
int cpu_far_jump(struct vcpu *v, uint16_t sel, uint64_t off, unsigned opsize);
int cpu_far_call(struct vcpu *v, uint16_t sel, uint64_t off, unsigned opsize, uint64_t next_rip);
int cpu_far_ret(struct vcpu *v, unsigned opsize, unsigned pop);
int cpu_iret(struct vcpu *v, unsigned opsize);
/* --- syscall.c */
int cpu_syscall(struct vcpu *v, uint64_t next_rip);
int cpu_sysret(struct vcpu *v, unsigned opsize);
int cpu_sysenter(struct vcpu *v);
int cpu_sysexit(struct vcpu *v, unsigned opsize);
int cpu_swapgs(struct vcpu *v);
/* Writes RFLAGS as POPF/IRET of the given operand size may at this CPL/IOPL/mode. */
void cpu_set_rflags(struct vcpu *v, uint64_t val, uint64_t mask);
int cpu_popf(struct vcpu *v, uint64_t val, unsigned opsize);    /* VM86/IOPL checks included */
int cpu_cli(struct vcpu *v);
int cpu_sti(struct vcpu *v);                                      /* sets inhibit_irq if IF was 0 */

/* --- excp.c: delivery ------------------------------------------------------------------------------------------- */
/* Delivers v->exc (and clears it) through the IDT: stack switch, IST, error code, #DF promotion. v->rip must be the address to
 * push (for EXC_SOFT_INT: the next instruction; `INT n` checks gate DPL). Returns 0, or -1 on triple fault (EXIT_SHUTDOWN). */
int cpu_deliver_exception(struct vcpu *v);
/* INT n / INT3 / INTO / INT1 as instructions: sets v->exc so that delivery uses next_rip; a faulting delivery reports the
 * instruction itself. Returns 0 delivered, -1 shutdown. */
int cpu_soft_int(struct vcpu *v, uint8_t vector, uint64_t next_rip);
/* Takes a pending NMI or external interrupt if the state allows (IF, inhibit, NMI blocking). 1 delivered, 0 nothing, -1 shutdown. */
int cpu_take_interrupt(struct vcpu *v);
/* Page fault / general helper used after IF became 1: re-posts VCPU_EV_IRQ if irq_waiting. */
void cpu_irq_window(struct vcpu *v);

/* --- control.c -------------------------------------------------------------------------------------------------- */
int cpu_read_cr(struct vcpu *v, unsigned cr, uint64_t *val);      /* #UD for CR1, 5-7, 9-15; privilege checked by caller */
int cpu_write_cr(struct vcpu *v, unsigned cr, uint64_t val);
int cpu_lmsw(struct vcpu *v, uint16_t val);
int cpu_clts(struct vcpu *v);
int cpu_read_dr(struct vcpu *v, unsigned dr, uint64_t *val);      /* CR4.DE, DR7.GD */
int cpu_write_dr(struct vcpu *v, unsigned dr, uint64_t val);
int cpu_invlpg(struct vcpu *v, gva_t lin);
int cpu_invpcid(struct vcpu *v, uint64_t type, uint64_t pcid, gva_t lin);
int cpu_xsetbv(struct vcpu *v, uint32_t idx, uint64_t val);
int cpu_xgetbv(struct vcpu *v, uint32_t idx, uint64_t *val);
/* True if hardware breakpoints or single step are armed (or a debugger steps): bt then leaves everything to interp. */
static inline bool cpu_debugging(const struct vcpu *v) { return (v->rflags & FL_TF) || (v->dr7 & 0xff) || v->debug.step; }
/* True if user alignment checks are on (CR0.AM, EFLAGS.AC, CPL 3). */
static inline bool cpu_align_check(const struct vcpu *v)
{
	return v->cpl == 3 && (v->rflags & FL_AC) && (v->cr0 & CR0_AM);
}

/* --- debug.c: breakpoints and watches of a debugger outside the machine (struct vcpu_debug) ------------------------ */
/* The instruction about to be executed has a breakpoint: recorded in v->debug. */
bool cpu_debug_break(struct vcpu *v);
/* Some breakpoint lies in the page of `lin`: the translator leaves such pages to the interpreter. */
bool cpu_debug_break_page(const struct vcpu *v, gva_t lin);
/* An access is being made (kinds: MMU_WATCH_ bits): the first one that touches a watched byte is recorded and VCPU_EV_DEBUG posted. Called
 * only where no flat entry answered. */
void cpu_debug_access(struct vcpu *v, gva_t lin, size_t len, unsigned kinds);
static inline bool cpu_break_due(struct vcpu *v) { return unlikely(v->debug.breaks) && cpu_debug_break(v); }

/* --- msr.c, cpuid.c --------------------------------------------------------------------------------------------- */
int cpu_rdmsr(struct vcpu *v, uint32_t msr, uint64_t *val);       /* #GP(0) for unknown ones, logged once each */
int cpu_wrmsr(struct vcpu *v, uint32_t msr, uint64_t val);
void cpu_cpuid(struct vcpu *v, uint32_t leaf, uint32_t subleaf, uint32_t out[4]);
uint64_t cpu_rdtsc(struct vcpu *v);
/* Writes the KVM clock page anew (after a pause or a change of tsc_offset); nothing if the guest has not enabled it. */
void cpu_pvclock_update(struct vcpu *v);
/* pvkvm.c: VMCALL and VMMCALL; PAUSE; and, with the vCPU outside its engine: it is about to halt, it goes on. */
void cpu_hypercall(struct vcpu *v);
void cpu_pause(struct vcpu *v);
void cpu_pv_halt(struct vcpu *v);
void cpu_pv_wake(struct vcpu *v);
/* #GP(0) unless port access [port, port+size) is allowed: CPL <= IOPL or the TSS bitmap says so (SDM vol. 1 19.5). */
int cpu_io_check(struct vcpu *v, uint16_t port, unsigned size);
uint64_t cpu_pio_read(struct vcpu *v, uint16_t port, unsigned size);   /* park, stats, v->ops */
void cpu_pio_write(struct vcpu *v, uint16_t port, unsigned size, uint64_t val);

/* --- fpu.c: instructions on the whole vector state ---------------------------------------------------------------- */
/* #NM (CR0.TS/EM), #UD (CR4.OSFXSR / OSXSAVE, XCR0) checks for an instruction of the given class. */
enum cpu_fpu_class { FPU_X87, FPU_MMX, FPU_SSE, FPU_AVX, FPU_AVX512, FPU_WAIT, FPU_FXSAVE, FPU_XSAVE };
int cpu_fpu_check(struct vcpu *v, enum cpu_fpu_class cls);
/* Has the guest enabled all of these state components? */
static inline bool cpu_xcr0_has(const struct vcpu *v, uint64_t components)
{
	return (v->cr4 & CR4_OSXSAVE) && (v->fpu.xcr0 & components) == components;
}
enum cpu_xsave_op { XOP_FXSAVE, XOP_FXRSTOR, XOP_XSAVE, XOP_XSAVEOPT, XOP_XSAVEC, XOP_XRSTOR };
/* lin already segment-checked for 16-byte (fx) or 64-byte (x) alignment by this function (#GP); mask = EDX:EAX; rexw = the
 * 64-bit form. Legacy FIP/FDP/FOP are stored as zero (they would be host addresses). */
int cpu_xsave_op(struct vcpu *v, enum cpu_xsave_op op, gva_t lin, uint64_t mask, bool rexw);

#endif
