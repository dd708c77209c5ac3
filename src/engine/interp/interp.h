/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Private parts of the interpreter: the handler contract, the decoded-instruction cache and the stub cache.
 *
 * A handler executes one instruction. Invariant: it changes nothing architectural before every fault is ruled out. It does not
 * advance v->rip unless it returns OP_JUMP or OP_HLT; the loop in run.c adds the length for OP_NEXT.
 *
 * Owner of struct interp: the vCPU's thread.
 */
#ifndef ENGINE_INTERP_INTERP_H
#define ENGINE_INTERP_INTERP_H

#include "engine/engine.h"
#include "x86/insn.h"

enum op_result {
	OP_SHUTDOWN = -2,  /* triple fault */
	OP_FAULT = -1,     /* v->exc set, v->rip at the instruction */
	OP_NEXT = 0,       /* done; the loop advances v->rip */
	OP_JUMP = 1,       /* done; v->rip is set */
	OP_REP = 2,        /* some iterations of a repeated string instruction done, more to do: v->rip stays */
	OP_HLT = 3,        /* halted; v->rip is set */
	OP_NOTRAP = 4,     /* done, v->rip set, and a single-step trap was consumed (INT n, IRET's rule is the usual one) */
};

typedef int (*interp_fn)(struct vcpu *v, const struct insn *in);

/* One decoded instruction. Verified against memory at each use: bytes under the masks must equal lo/hi. */
struct icache_entry {
	uint64_t key;      /* gpa << 2 | mode; 0 with fn NULL = empty */
	uint64_t lo, hi;   /* the instruction's bytes */
	uint64_t mlo, mhi; /* masks of the bytes that belong to it */
	interp_fn fn;
	struct insn in;
};
#define ICACHE_ENTRIES 65536

/* A virtual page that instructions were fetched from. */
struct fetch_page {
	uint64_t tag;      /* gva page | cpl 3 bit | 2 (valid) */
	uint32_t gen;      /* v->mmu.gen when filled */
	gpa_t gpa;
	const uint8_t *hva;
};
#define FETCH_PAGES 64

/* Registers and flags a host stub works on; layout known to hoststub.c. */
struct host_regs {
	uint64_t rax, rcx, rdx, flags;
};
typedef void (*host_stub)(struct host_regs *r);

/* One re-encoded vector or x87 instruction. */
struct host_insn {
	uint64_t lo, hi;       /* key: the guest's bytes, and the mode */
	uint8_t mode;
	bool valid;
	bool x87, mmx, sse, avx, avx512;
	bool nowait;           /* x87 control instruction that ignores pending exceptions */
	bool sets_rcx;         /* pcmp?stri */
	bool mxcsr;            /* loads or stores MXCSR */
	uint8_t mem_op;        /* operand index or 0xff */
	uint8_t gpr_op;
	uint8_t align;         /* required alignment, 0 = none */
	host_stub stub;
};
#define HOST_INSNS 4096
#define HOST_STUB_SIZE 64
#define HOST_STUB_BYTES (HOST_STUB_SIZE * HOST_INSNS * 2)
/* Fixed stubs at the start of the pool: register moves for element-wise instructions. Of vector registers 0-15 all that AVX has of them
 * is read; ZMM: all of 0-31. */
enum {
	STUB_VEC_READ = 0, STUB_VEC_WRITE16 = 16, STUB_VEC_WRITE32 = 32, STUB_MMX_READ = 48, STUB_ZMM_READ = 56, STUB_ZMM_WRITE = 88,
	STUB_MASK_READ = 120, STUB_MASK_WRITE = 128, STUB_FIXED = 136,
};

struct interp {
	uint8_t bounce[64] __attribute__((aligned(64)));
	uint8_t save[VCPU_XSAVE_MAX] __attribute__((aligned(64)));   /* vector state around an instruction with unmasked exceptions */
	struct icache_entry *icache;
	struct fetch_page page[FETCH_PAGES];
	struct icache_entry scratch;                       /* for code that cannot be cached */
	struct host_insn *host;
	uint8_t *stub_rw;                                  /* the pool, twice mapped: writable ... */
	uint8_t *stub_rx;                                  /* ... and executable */
	uint32_t stub_next;
	uint32_t stub_generation;
	uint32_t db_hits;                                  /* data breakpoints met by the current instruction (DR6 bits) */
	unsigned users;
	struct { uint64_t decodes, icache_misses, stubs; } stats;
};

static inline struct interp *interp_of(const struct vcpu *v) { return engine_slots(v)->interp; }

/* decode.c: the instruction at v->rip, or NULL with v->exc set. */
struct icache_entry *interp_decode(struct vcpu *v, struct interp *ip);

/* table.c: the handler of a decoded instruction. Never NULL. */
interp_fn interp_resolve(const struct insn *in);

/* hoststub.c */
int host_stubs_init(struct interp *ip);
void host_stubs_fini(struct interp *ip);
struct host_insn *host_stub_get(struct interp *ip, const struct insn *in);
static inline host_stub host_stub_fixed(const struct interp *ip, unsigned n)
{
	return (host_stub)(uintptr_t)(ip->stub_rx + n * HOST_STUB_SIZE);
}

/* hostexec.c, hostvec.c: vector and x87 handlers */
int op_hostexec(struct vcpu *v, const struct insn *in);
int op_x87_env(struct vcpu *v, const struct insn *in);
int op_gather(struct vcpu *v, const struct insn *in);
int op_gather512(struct vcpu *v, const struct insn *in);
int op_scatter(struct vcpu *v, const struct insn *in);
int op_vmaskmov(struct vcpu *v, const struct insn *in);
int op_maskmov(struct vcpu *v, const struct insn *in);
int host_fpu_ready(struct vcpu *v, const struct insn *in);
bool host_x87_pending(void);
/* Runs a fixed stub with `buf` as its memory operand. Vector state is live afterwards. */
void host_call_fixed(struct vcpu *v, unsigned stub, void *buf);
/* Which bytes of its memory operand an instruction with in->selected accesses, bit 0 = the first; the opmask register is read. */
uint64_t host_selected_bytes(struct vcpu *v, const struct insn *in);

#endif
