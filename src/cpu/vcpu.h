/* SPDX-License-Identifier: Apache-2.0 */
/*
 * struct vcpu: the whole architectural state of a virtual CPU, engine-neutral, and how engines report outcomes.
 *
 * Invariants
 *  - Outside engine_run() everything here is current. Inside, the running engine may hold part of it elsewhere (bt: general
 *    registers and arithmetic flags in host registers) but has it written back whenever cpu/ code is called.
 *  - Vector state stays live: while `fpu_live` is set, the guest's x87, SSE, AVX and AVX-512 state and MXCSR are in the host's registers and
 *    `fpu.area` is stale. cpu/, mem/ and engine/ are compiled with -mgeneral-regs-only so that they do not disturb it; they call
 *    vcpu_fpu_park() before calling anything else (devices, libc, Zydis). engine_run() parks before it returns.
 *  - Functions that can raise a guest exception return 0, or -1 with v->exc filled in; nothing architectural has then changed
 *    except what the manual says changes. The engine delivers v->exc with cpu_deliver_exception() at an instruction boundary.
 *
 * Owner: the vCPU's thread. Other threads only do vcpu_post() (event bits) and read stats.
 *
 * Layout: `hot` is first and belongs to the running engine: translated code addresses it, and the rest, off RSP, and the
 * host stack of the vCPU's thread lies below the struct while translated code runs (vcpu_create allocates both).
 */
#ifndef CPU_VCPU_H
#define CPU_VCPU_H

#include "base/prof.h"
#include "base/types.h"
#include "mem/mmu.h"
#include "x86/arch.h"

/* Segment register with its hidden part. attr: bits 0-3 type, 4 S, 5-6 DPL, 7 P, 12 AVL, 13 L, 14 D/B, 15 G (bits 40-55 of a
 * descriptor, bits 8-11 zero); SEG_UNUSABLE for a null selector. limit is in bytes, expanded. */
struct vcpu_seg {
	uint16_t sel;
	uint16_t attr;
	uint32_t limit;
	uint64_t base;
	bool unusable;
};
#define SEG_TYPE 0x000f
#define SEG_S 0x0010
#define SEG_DPL_SHIFT 5
#define SEG_P 0x0080
#define SEG_AVL 0x1000
#define SEG_L 0x2000
#define SEG_DB 0x4000
#define SEG_G 0x8000

struct vcpu_table { uint64_t base; uint16_t limit; };

enum vcpu_exc_kind { EXC_NONE, EXC_HARDWARE /* fault, abort, #DB trap */, EXC_SOFT_INT /* INT n, INT3, INTO */, EXC_INTERRUPT, EXC_NMI };
struct vcpu_exc {
	uint8_t kind;
	uint8_t vector;
	bool has_err;
	uint32_t err;
	uint64_t cr2;    /* for #PF */
	uint64_t dr6;    /* bits to set for #DB */
};

/* Event bits: posted by any thread, looked at between blocks (translated code tests the whole word for zero). */
enum vcpu_event {
	VCPU_EV_IRQ = 1,     /* interrupt controller state may have changed */
	VCPU_EV_STOP = 2,    /* leave engine_run() with EXIT_STOP */
	VCPU_EV_NMI = 4,
	VCPU_EV_CODE = 8,    /* another thread asks something of the tables or translations: mmu_serve() */
	VCPU_EV_INIT = 16,   /* leave engine_run() with EXIT_INIT: an INIT or start-up message came */
	VCPU_EV_DEBUG = 32,  /* the instruction before this boundary touched watched memory: leave with EXIT_DEBUG */
	VCPU_EV_KICK = 64,   /* KICK_CPU hypercall: ends HLT, this one or the next, whatever IF is */
};

struct vcpu;

/* What the CPU needs from the machine around it; filled in by vm/. Called with fpu parked. */
struct vcpu_ops {
	uint64_t (*pio_read)(void *vm, uint16_t port, unsigned size);
	void (*pio_write)(void *vm, uint16_t port, unsigned size, uint64_t val);
	uint64_t (*mmio_read)(void *vm, gpa_t gpa, unsigned size);       /* size 1,2,4,8 */
	void (*mmio_write)(void *vm, gpa_t gpa, unsigned size, uint64_t val);
	bool (*irq_pending)(void *vm, unsigned cpu);
	int (*irq_ack)(void *vm, unsigned cpu);                          /* vector or -1 */
	int (*apic_msr)(void *vm, unsigned cpu, bool write, uint32_t msr, uint64_t *val); /* 0 or -1 (#GP) */
	uint64_t (*cr8)(void *vm, unsigned cpu, bool write, uint64_t val);
	uint64_t (*now_ns)(void *vm);                                    /* machine time (io_now) */
	uint64_t (*wall_ns)(void *vm);                                   /* host UTC, ns since 1970 */
	/* One moment of the past, in the host's TSC and in machine time: the same for all vCPUs. NULL: now. */
	void (*clock_pair)(void *vm, uint64_t *host_tsc, uint64_t *ns);
	/* KVM's paravirtual interface; each may be NULL. Destinations are APIC IDs; icr as in x2APIC mode. */
	void (*pv_ipi)(void *vm, uint32_t dest, uint32_t icr);
	void (*pv_kick)(void *vm, uint32_t dest);
	uint64_t (*steal_ns)(void *vm);      /* time this vCPU was ready and had no processor */
};

/* State components behind the header of an XSAVE image, by their bit in XCR0. */
enum vcpu_xstate { VCPU_XS_AVX = 2, VCPU_XS_OPMASK = 5, VCPU_XS_ZMM_HI256 = 6, VCPU_XS_HI16_ZMM = 7, VCPU_XS_COUNT };
#define VCPU_XCR0_AVX512 0xe0u /* the last three, which XCR0 enables together only */

/* Intel's layout of these components in the standard format ends at 2688, AMD's at 2432. 64-byte aligned. */
#define VCPU_XSAVE_MAX 2688
struct vcpu_fpu {
	uint8_t area[VCPU_XSAVE_MAX] __attribute__((aligned(64)));
	uint64_t xcr0;                    /* guest's */
	uint64_t model;                   /* what it may set there */
	uint16_t offset[VCPU_XS_COUNT];   /* of a component in the standard format: the host's */
};

/* What a block changed in memory, so that lockstep can take it back: old contents of every store to RAM through access.c,
 * oldest first. io: a device was accessed, which cannot be taken back. overflow: entries are missing. */
#define VCPU_JOURNAL_STORES 128 /* an XSAVE takes 84 */
struct vcpu_journal {
	unsigned n;
	bool overflow;
	bool io;
	struct { void *hva; uint8_t len; uint8_t old[32]; } e[VCPU_JOURNAL_STORES];
};

/*
 * What a debugger outside the machine has asked for. The guest's own debug registers and TF are not involved, so it can neither see
 * nor disturb any of this; nothing here costs anything while `breaks` (and mmu.watches) are NULL. Set up while the vCPU stands still.
 */
#define CPU_MAX_BREAKS 256
struct cpu_breaks {
	unsigned n;
	bool any;                        /* stop before every instruction (recorded as DEBUG_HIT_STEP) */
	gva_t addr[CPU_MAX_BREAKS];      /* linear: CS base + instruction pointer */
};
enum vcpu_debug_hit { DEBUG_HIT_NONE, DEBUG_HIT_BREAK, DEBUG_HIT_WATCH, DEBUG_HIT_STEP, DEBUG_HIT_SHUTDOWN /* triple fault */ };
struct vcpu_debug {
	const struct cpu_breaks *breaks; /* NULL: none */
	bool step;                       /* a single instruction is being executed: one iteration of a repeated one */
	uint8_t hit;                     /* enum vcpu_debug_hit: why the engine left with EXIT_DEBUG; taken by whoever reports it */
	gva_t addr;                      /* breakpoint, or first watched byte that was touched */
	uint8_t kinds;                   /* of the watch: MMU_WATCH_ bits */
};

#define VCPU_CPUID_LEAVES 64

struct vcpu {
	uint64_t hot[32];          /* the running engine's; 256 bytes */
	uint64_t gpr[GPR_COUNT];
	uint64_t rip;
	uint64_t rflags;           /* all bits, FL_FIXED set */
	uint32_t event;            /* enum vcpu_event; atomic */
	bool fpu_live;
	uint8_t cpl;               /* equals ss.attr DPL (and RPL of CS) */
	uint8_t mode;              /* enum insn_mode of CS, recomputed by cpu_update_mode() */
	bool inhibit_irq;          /* STI, MOV SS, POP SS: interrupts held off until after the next instruction */
	bool inhibit_db;           /* MOV SS / POP SS also hold off debug traps */
	bool halted;               /* HLT: waiting for an event */
	bool irq_waiting;          /* an interrupt was pending while IF = 0: whoever sets IF posts VCPU_EV_IRQ */
	bool nmi_blocked;
	bool nmi_pending;
	bool pv_kicked;            /* a kick came while not halted: the next HLT returns at once */
	struct vcpu_exc exc;

	struct vcpu_seg seg[SEG_COUNT];
	struct vcpu_table gdt, idt;
	uint64_t cr0, cr2, cr3, cr4, efer;
	uint64_t dr[4], dr6, dr7;
	uint64_t msr_star, msr_lstar, msr_cstar, msr_fmask, msr_kernel_gs_base;
	uint64_t msr_sysenter_cs, msr_sysenter_esp, msr_sysenter_eip;
	uint64_t msr_pat, msr_tsc_aux, msr_misc_enable, msr_spec_ctrl;
	uint64_t msr_mtrr_def, msr_mtrr_fixed[11], msr_mtrr_var[16];
	uint64_t tsc_offset;       /* guest TSC = host TSC + offset */
	uint64_t tsc_khz;
	uint64_t kvm_system_time, kvm_wall_clock;  /* KVM paravirtual clock MSRs as written */
	uint64_t kvm_steal_time;   /* ... steal time */
	uint64_t steal_tsc;        /* host TSC when the steal time was last brought up to date */
	uint32_t pauses;           /* PAUSEs since others were last let run */
	struct vcpu_fpu fpu;

	struct mmu mmu;
	struct mem *mem;
	unsigned index;            /* = APIC ID */
	unsigned count;            /* of the machine's vCPUs */
	const struct vcpu_ops *ops;
	void *vm;
	void *engine;              /* private data of the engine(s): owned by engine/ */

	uint32_t waiting;          /* in vcpu_wait(): whoever posts an event has to wake it */
	bool vendor_amd;           /* semantics of SYSCALL, SYSENTER and MSRs follow the vendor CPUID reports */
	uint32_t mxcsr_mask;       /* MXCSR bits the host implements */
	uint64_t msr_tsc_adjust, msr_debugctl;
	uint32_t ncpuid;           /* CPUID leaves, fixed at creation; everything else reads as zero */
	struct vcpu_cpuid { uint32_t leaf, subleaf, out[4]; } cpuid[VCPU_CPUID_LEAVES];
	uint32_t nmsr_unknown;     /* unknown MSRs already logged */
	uint32_t msr_unknown[32];
	uint8_t bounce[VCPU_XSAVE_MAX] __attribute__((aligned(64)));   /* XSAVE images on their way to and from guest memory */

	/* Lockstep: when set, cpu/access.c records every store's old contents before changing memory. */
	struct vcpu_journal *journal;
	struct vcpu_debug debug;
	struct prof *prof;         /* NULL: nobody profiles; otherwise mmu.prof is the same */

	struct { uint64_t insns_interp, exceptions, interrupts, pio, mmio, hlt, slow_mem, msr_unknown, hypercalls, pv_flushes; } stats;
};

/* Address space and CPUID are laid out for at most so many vCPUs in a machine. */
#define VCPU_MAX 16
struct vcpu_config {
	unsigned index, count;     /* this one of so many */
	uint64_t tsc_khz;          /* rate of the host's TSC */
	const struct vcpu_ops *ops;
	void *vm;                  /* first argument of the operations */
};
/* Allocates a vCPU with its stack and mmu, in reset state. 0 or -errno. */
int vcpu_create(struct vcpu **out, struct mem *mem, const struct vcpu_config *config);
void vcpu_destroy(struct vcpu *v);
/* Power-on state (SDM vol. 3A table 9-1): real mode at f000:fff0. vm/boot then sets what its protocol asks. */
void vcpu_reset(struct vcpu *v);
/* State after INIT (the same table): general and control registers as after power-on; vector state, TSC and most MSRs are kept. */
void vcpu_init(struct vcpu *v);
/* What a start-up message does to a processor that waits for one: runs at vector * 4 KiB in real mode (SDM vol. 3A 8.4.4). */
void vcpu_start(struct vcpu *v, uint8_t vector);
/* Size of the host stack below the struct. */
#define VCPU_STACK_SIZE (256 * 1024)
/* Zeroed bytes at this distance from the struct, for the engine that runs it. */
#define VCPU_ENGINE_OFFSET ((sizeof(struct vcpu) + PAGE_MASK) & ~PAGE_MASK)
#define VCPU_ENGINE_SIZE (1032 * 1024)

/* Sets event bits; any thread, any context. Wakes a halted vCPU (futex on v->event). */
void vcpu_post(struct vcpu *v, uint32_t bits);
/* Waits until an event is posted or the absolute machine-independent timeout in ns from now passes (UINT64_MAX = none). */
void vcpu_wait(struct vcpu *v, uint64_t timeout_ns);

/* --- vector state (fpu.c, compiled without vector instructions except its inline XSAVE/XRSTOR) ------------------ */
void vcpu_fpu_park_slow(struct vcpu *v);
void vcpu_fpu_live_slow(struct vcpu *v);
static inline void vcpu_fpu_park(struct vcpu *v) { if (v->fpu_live) vcpu_fpu_park_slow(v); }
static inline void vcpu_fpu_load(struct vcpu *v) { if (!v->fpu_live) vcpu_fpu_live_slow(v); }

/* Human-readable dump of the whole state (for the console escape, lockstep and crashes). */
void vcpu_dump(const struct vcpu *v, int fd);
/* The same as text, terminated, cut off at size (> 0); its length. */
#define VCPU_FORMAT_MAX 4096
size_t vcpu_format(const struct vcpu *v, char *buf, size_t size);

#endif
