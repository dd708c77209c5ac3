/* SPDX-License-Identifier: Apache-2.0 */
/*
 * x87, MMX, SSE, AVX and AVX-512 instructions, executed by the host on the guest's live vector registers.
 *
 * The memory operand goes through a bounce buffer: loaded before, stored after the host has executed the re-encoded instruction
 * (hoststub.c). A destination is probed for writing first, so a fault is precise.
 *
 * Unmasked exceptions never reach the host as signals:
 *  - x87 reports an exception at the next waiting instruction, so testing FSW.ES before each is exact: #MF.
 *  - SSE/AVX: with an exception unmasked in the guest's MXCSR the instruction runs with all of them masked and the flags
 *    clear, its vector state saved. If it then raised an unmasked flag the state is put back and #XM is delivered. Chosen over a SIGFPE
 *    handler because it needs no process-wide signal state and costs nothing while everything is masked, as it nearly always is.
 *    Two deviations: an unmasked underflow on an exact denormal result is not noticed (masked underflow is only flagged if inexact), and an
 *    unmasked overflow always reports an inexact result as well (a masked one is), even where the quotient with its exponent wrapped is exact.
 *
 * Locking: none; the vCPU's thread. Spec: SDM vol. 1 8.6 (x87), 11.5 (SIMD), vol. 2 2.4 (alignment classes).
 */
#include <Zydis/Mnemonic.h>

#include "engine/interp/operands.h"

#define NO_OP 0xff
#define MXCSR_FLAGS 0x3fu
#define MXCSR_MASKS 0x1f80u
#define MXCSR_PRE 0x07u /* invalid, denormal, divide by zero: found before computing */
#define FSW_ES 0x80u

/* --- availability ------------------------------------------------------------------------------------------------ */

bool host_x87_pending(void)
{
	uint16_t fsw;

	asm volatile("fnstsw %0" : "=a"(fsw));
	return fsw & FSW_ES;
}

static bool usable_fast(const struct vcpu *v, const struct host_insn *h)
{
	if (v->cr0 & (CR0_TS | CR0_EM))
		return false;
	if (h->avx)
		return cpu_xcr0_has(v, h->avx512 ? VCPU_XCR0_AVX512 | 6 : 6) && (v->cr0 & CR0_PE);
	return !h->sse || (v->cr4 & CR4_OSFXSR);
}

static int usable_slow(struct vcpu *v, const struct host_insn *h, const struct insn *in)
{
	if (in->mnemonic == ZYDIS_MNEMONIC_FWAIT)
		return cpu_fpu_check(v, FPU_WAIT);
	if (h->avx)
		return v->cr0 & CR0_PE ? cpu_fpu_check(v, h->avx512 ? FPU_AVX512 : FPU_AVX) : cpu_ud(v);
	if (h->sse && cpu_fpu_check(v, FPU_SSE))
		return -1;
	if (h->mmx)
		return cpu_fpu_check(v, FPU_MMX);
	return h->x87 ? cpu_fpu_check(v, FPU_X87) : 0;
}

/* Vector state live, #NM/#UD/#MF ruled out. */
static int host_begin(struct vcpu *v, const struct host_insn *h, const struct insn *in)
{
	if (unlikely(!usable_fast(v, h)) && usable_slow(v, h, in))
		return -1;
	vcpu_fpu_load(v);
	if ((h->x87 || h->mmx) && !h->nowait && unlikely(host_x87_pending()))
		return cpu_raise(v, VEC_MF);
	return 0;
}

int host_fpu_ready(struct vcpu *v, const struct insn *in)
{
	return host_begin(v, host_stub_get(interp_of(v), in), in);
}

/* --- MXCSR ----------------------------------------------------------------------------------------------------------- */

static inline uint32_t mxcsr_get(void)
{
	uint32_t m;

	asm volatile("stmxcsr %0" : "=m"(m));
	return m;
}

static inline void mxcsr_set(uint32_t m)
{
	asm volatile("ldmxcsr %0" : : "m"(m));
}

static void state_save(const struct vcpu *v, struct interp *ip)
{
	/* XRSTOR refuses a header that XSAVE did not write whole. */
	__builtin_memset(ip->save + 512, 0, 64);
	asm volatile("xsave64 %0" : "+m"(ip->save) : "a"((uint32_t)v->fpu.xcr0 | 7), "d"(0));
}

static void state_restore(const struct vcpu *v, const struct interp *ip)
{
	asm volatile("xrstor64 %0" : : "m"(ip->save), "a"((uint32_t)v->fpu.xcr0 | 7), "d"(0));
}

/* Runs the stub with the guest's unmasked exceptions watched. */
static int run_unmasked(struct vcpu *v, struct interp *ip, const struct host_insn *h, struct host_regs *r, uint32_t mxcsr)
{
	struct host_regs scratch = {.rcx = (uint64_t)(uintptr_t)ip->bounce};
	uint32_t raised, unmasked;

	state_save(v, ip);
	mxcsr_set((mxcsr | MXCSR_MASKS) & ~MXCSR_FLAGS);
	h->stub(r);
	raised = mxcsr_get() & MXCSR_FLAGS;
	unmasked = raised & ~(mxcsr >> 7);
	if (!unmasked) {
		mxcsr_set(mxcsr | raised);
		return 0;
	}
	state_restore(v, ip);
	/* The switch from x87 to MMX (TOP = 0, all registers valid) stands; reading an MMX register makes it. */
	if (h->mmx)
		host_stub_fixed(ip, STUB_MMX_READ)(&scratch);
	/* A fault found before computing leaves no post-computation flags. */
	mxcsr_set(mxcsr | (unmasked & MXCSR_PRE ? raised & MXCSR_PRE : raised));
	return v->cr4 & CR4_OSXMMEXCPT ? cpu_raise(v, VEC_XM) : cpu_ud(v);
}

static inline int run(struct vcpu *v, struct interp *ip, const struct host_insn *h, struct host_regs *r)
{
	uint32_t mxcsr;

	if (!h->sse || h->mxcsr) {
		h->stub(r);
		return 0;
	}
	mxcsr = mxcsr_get();
	if (unlikely((mxcsr & MXCSR_MASKS) != MXCSR_MASKS))
		return run_unmasked(v, ip, h, r, mxcsr);
	h->stub(r);
	return 0;
}

/* --- operands ---------------------------------------------------------------------------------------------------------- */

uint64_t host_selected_bytes(struct vcpu *v, const struct insn *in)
{
	unsigned n = in->selected, total = 0, size = in->element;
	uint64_t mask, elements = 0, bytes = 0;

	for (unsigned i = 0; i < in->nops; i++)
		if (in->op[i].kind == OPND_MEM)
			total = in->op[i].size / size;
	host_call_fixed(v, STUB_MASK_READ + in->mask, &mask);
	mask &= ~0ull >> (64 - n);
	if (in->packed)
		elements = mask ? ~0ull >> (64 - __builtin_popcountll(mask)) : 0;
	else
		for (unsigned i = 0; i < n; i++)
			elements |= (mask >> i & 1) << i % total;
	for (unsigned i = 0; i < total; i++)
		if (elements >> i & 1)
			bytes |= (~0ull >> (64 - size)) << i * size;
	return bytes;
}

/* The bytes selected, in as few pieces as they lie in; all of them can be accessed, or the first that cannot faults. */
enum piece_access { PIECE_PROBE, PIECE_LOAD, PIECE_STORE };

static int access_pieces(struct vcpu *v, uint64_t bytes, gva_t lin, uint8_t *buf, enum piece_access access)
{
	unsigned at = 0;

	while (at < 64 && bytes >> at) {
		unsigned from = at + (unsigned)__builtin_ctzll(bytes >> at), len = 0;
		int r;

		while (from + len < 64 && bytes >> (from + len) & 1)
			len++;
		if (access == PIECE_LOAD)
			r = mem_load_buf(v, lin + from, buf + from, len);
		else if (access == PIECE_STORE)
			r = mem_store_buf(v, lin + from, buf + from, len);
		else
			r = (unlikely(mem_watched(v)) && mem_watch(v, lin + from, len, true)) || cpu_probe_write(v, lin + from, len);
		if (r)
			return -1;
		at = from + len;
	}
	return 0;
}

/* Of the elements that are not selected nothing is checked, neither is alignment if none is. */
static int open_selected(struct vcpu *v, struct interp *ip, const struct host_insn *h, const struct insn *in, gva_t *lin)
{
	uint64_t bytes = host_selected_bytes(v, in);
	bool write = in->op[h->mem_op].write;
	unsigned first, end;

	if (!bytes)
		return 0;
	first = (unsigned)__builtin_ctzll(bytes);
	end = 64 - (unsigned)__builtin_clzll(bytes);
	if (h->align && mem_lin_aligned(v, in, in->op[h->mem_op].size, h->align, write, lin))
		return -1;
	if (lin_of(v, in->mem.seg, ea_offset(v, in) + first, end - first, write, lin))
		return -1;
	*lin -= first;
	return access_pieces(v, bytes, *lin, ip->bounce, write ? PIECE_PROBE : PIECE_LOAD);
}

static int open_memory(struct vcpu *v, struct interp *ip, const struct host_insn *h, const struct insn *in, gva_t *lin)
{
	const struct insn_operand *o = &in->op[h->mem_op];
	bool write = o->write;

	if (in->selected && !in->whole_faults)
		return open_selected(v, ip, h, in, lin);
	if (h->align ? mem_lin_aligned(v, in, o->size, h->align, write, lin) : mem_lin(v, in, o->size, write, lin))
		return -1;
	if (write) {
		if (unlikely(mem_watched(v)) && mem_watch(v, *lin, o->size, true))
			return -1;
		if (!flat_ptr(v, v->mmu.cur->w, *lin, o->size) && cpu_probe_write(v, *lin, o->size))
			return -1;
	}
	/* An x87 store whose exception is unmasked leaves memory alone: what is there goes back. */
	if (o->read || h->x87) {
		uint8_t hit = v->debug.hit;

		if (mem_load_buf(v, *lin, ip->bounce, o->size))
			return -1;
		if (!o->read)
			v->debug.hit = hit; /* the guest does not read: a debugger's watch has not seen anything */
	}
	if (h->mxcsr && o->read && (*(uint32_t *)ip->bounce & ~v->mxcsr_mask))
		return cpu_gp0(v);
	return 0;
}

int op_hostexec(struct vcpu *v, const struct insn *in)
{
	struct interp *ip = interp_of(v);
	const struct host_insn *h = host_stub_get(ip, in);
	struct host_regs r;
	gva_t lin = 0;

	if (unlikely(host_begin(v, h, in)))
		return OP_FAULT;
	if (h->mem_op != NO_OP) {
		if (unlikely(open_memory(v, ip, h, in, &lin)))
			return OP_FAULT;
		/* A slow access may have gone to a device, which parks the vector state. */
		vcpu_fpu_load(v);
	}
	r.rax = v->gpr[h->gpr_op != NO_OP ? in->op[h->gpr_op].reg : RAX];
	r.rcx = h->mem_op != NO_OP ? (uint64_t)(uintptr_t)ip->bounce : v->gpr[RCX];
	r.rdx = v->gpr[RDX];
	r.flags = v->rflags;
	if (unlikely(run(v, ip, h, &r)))
		return OP_FAULT;
	if (in->selected && h->mem_op != NO_OP && in->op[h->mem_op].write)
		(void)access_pieces(v, host_selected_bytes(v, in), lin, ip->bounce, PIECE_STORE);
	else if (h->mem_op != NO_OP && in->op[h->mem_op].write)
		(void)mem_store_buf(v, lin, ip->bounce, in->op[h->mem_op].size);
	if (h->gpr_op != NO_OP && in->op[h->gpr_op].write)
		reg_set(v, &in->op[h->gpr_op], in->op[h->gpr_op].size, r.rax);
	if (h->sets_rcx)
		v->gpr[RCX] = (uint32_t)r.rcx;
	if (in->flags_write)
		v->rflags = (v->rflags & ~(uint64_t)in->flags_write) | (r.flags & in->flags_write);
	return OP_NEXT;
}

/* --- x87 environment ------------------------------------------------------------------------------------------------------ */

/* The 32-bit protected-mode layout as FNSTENV of 64-bit mode writes it; pointers are host addresses and are hidden. */
struct x87_env {
	uint16_t cw, r0, sw, r1, tw, r2;
	uint32_t fip;
	uint16_t fcs, fop;
	uint32_t fdp;
	uint16_t fds, r3;
} __attribute__((packed));

/* To the guest's layout; returns its length, 14 or 28. */
static unsigned env_pack(const struct x87_env *e, bool small, uint8_t *out)
{
	struct x87_env c = {.cw = e->cw, .sw = e->sw, .tw = e->tw, .r0 = 0xffff, .r1 = 0xffff, .r2 = 0xffff, .r3 = 0xffff};

	if (!small) {
		__builtin_memcpy(out, &c, 28);
		return 28;
	}
	__builtin_memset(out, 0, 14);
	__builtin_memcpy(out, &c.cw, 2);
	__builtin_memcpy(out + 2, &c.sw, 2);
	__builtin_memcpy(out + 4, &c.tw, 2);
	return 14;
}

static void env_unpack(struct x87_env *e, bool small, const uint8_t *in)
{
	__builtin_memset(e, 0, sizeof(*e));
	__builtin_memcpy(&e->cw, in, 2);
	__builtin_memcpy(&e->sw, in + (small ? 2 : 4), 2);
	__builtin_memcpy(&e->tw, in + (small ? 4 : 8), 2);
}

/* FNSTENV, FNSAVE, FLDENV, FRSTOR: the environment, and with SAVE/RSTOR the eight registers of ten bytes after it. */
int op_x87_env(struct vcpu *v, const struct insn *in)
{
	bool small = in->opsize == 2, regs = in->mnemonic == ZYDIS_MNEMONIC_FNSAVE || in->mnemonic == ZYDIS_MNEMONIC_FRSTOR;
	bool store = in->mnemonic == ZYDIS_MNEMONIC_FNSTENV || in->mnemonic == ZYDIS_MNEMONIC_FNSAVE;
	unsigned env = small ? 14 : 28, len = env + (regs ? 80 : 0);
	struct { struct x87_env e; uint8_t st[80]; } __attribute__((packed)) host;
	uint8_t buf[108];
	gva_t lin;

	if (host_fpu_ready(v, in) || mem_lin(v, in, len, store, &lin))
		return OP_FAULT;
	if (store) {
		if (cpu_probe_write(v, lin, len))
			return OP_FAULT;
		vcpu_fpu_load(v);
		if (regs)
			asm volatile("fnsave %0" : "=m"(host));
		else
			asm volatile("fnstenv %0" : "=m"(host.e));
		env_pack(&host.e, small, buf);
		if (regs)
			__builtin_memcpy(buf + env, host.st, 80);
		(void)cpu_store_buf(v, lin, buf, len);
		return OP_NEXT;
	}
	if (cpu_load_buf(v, lin, buf, len))
		return OP_FAULT;
	env_unpack(&host.e, small, buf);
	vcpu_fpu_load(v);
	if (regs) {
		__builtin_memcpy(host.st, buf + env, 80);
		asm volatile("frstor %0" : : "m"(host));
	} else {
		asm volatile("fldenv %0" : : "m"(host.e));
	}
	return OP_NEXT;
}
