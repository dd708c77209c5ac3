/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The interpreter's loop: one instruction, then what happens between instructions.
 *
 * Invariant: everything asynchronous (stop requests, interrupts, NMI, debug traps) is looked at only at instruction boundaries, and
 * v->exc is empty there. Order at a boundary follows SDM vol. 3A table 6-2: debug traps of the previous instruction, then NMI and
 * interrupts, then instruction breakpoints, then the fetch.
 *
 * Locking: none; the vCPU's thread. v->event is written by others and read atomically.
 */
#include "engine/interp/operands.h"

#include <Zydis/Mnemonic.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Delivers v->exc; 0, or OP_SHUTDOWN. */
static int deliver(struct vcpu *v)
{
	return cpu_deliver_exception(v) ? OP_SHUTDOWN : 0;
}

/* Instruction breakpoints (R/W = 00) at the address about to be executed, unless RF. Returns DR6 bits. */
static uint32_t insn_breakpoints(const struct vcpu *v)
{
	gva_t lin = v->mode == INSN_MODE_64 ? v->rip : (uint32_t)(v->rip + v->seg[CS].base);
	uint32_t hits = 0;

	if (v->rflags & FL_RF)
		return 0;
	for (unsigned n = 0; n < 4; n++)
		if (((v->dr7 >> (n * 2)) & 3) && !((v->dr7 >> (16 + n * 4)) & 3) && v->dr[n] == lin)
			hits |= 1u << n;
	return hits;
}

/* Executes what handlers return into; common to the fast and the careful path. 0 or OP_ code < 0 or OP_HLT. */
static int finish(struct vcpu *v, const struct insn *in, int r)
{
	switch (r) {
	case OP_NEXT:
		v->rip = next_rip(v, in);
		return 0;
	case OP_FAULT:
		return deliver(v);
	case OP_SHUTDOWN:
	case OP_HLT:
		return r;
	default:
		return 0;
	}
}

/* One instruction with breakpoints, single step and interrupt shadows considered. */
static int step_careful(struct vcpu *v, struct interp *ip)
{
	bool tf = v->rflags & FL_TF, shadow_db = v->inhibit_db;
	struct icache_entry *e;
	uint64_t dr6 = 0;
	int r;

	v->inhibit_irq = v->inhibit_db = false;
	if ((v->dr7 & 0xff) && !shadow_db) {
		uint32_t hits = insn_breakpoints(v);

		if (hits) {
			cpu_raise_db(v, hits);
			return deliver(v);
		}
	}
	ip->db_hits = 0;
	e = interp_decode(v, ip);
	if (!e)
		return deliver(v);
	v->stats.insns_interp++;
	prof_insn(v->prof, e->in.mnemonic);
	/* RF suppresses breakpoints for one instruction; a fault pushes it set again (cpu_deliver_exception). */
	v->rflags &= ~(uint64_t)FL_RF;
	r = e->fn(v, &e->in);
	if (r == OP_FAULT || r == OP_SHUTDOWN || r == OP_NOTRAP)
		return finish(v, &e->in, r);
	if (tf && !v->inhibit_db &&
	    (e->in.mnemonic != ZYDIS_MNEMONIC_SYSCALL || (v->rflags & FL_TF)))
		dr6 |= DR6_BS;
	dr6 |= ip->db_hits;
	r = finish(v, &e->in, r);
	if (dr6 && r != OP_SHUTDOWN && !v->inhibit_db) {
		v->halted = false;
		cpu_raise_db(v, dr6);
		return deliver(v);
	}
	return r;
}

/* Something other than plain execution is due at this boundary. */
static inline bool careful(const struct vcpu *v)
{
	return (v->rflags & (FL_TF | FL_RF)) | (v->dr7 & 0xff) | v->inhibit_irq | v->inhibit_db;
}

static inline int step(struct vcpu *v, struct interp *ip)
{
	struct icache_entry *e;
	int r;

	if (unlikely(careful(v)))
		return step_careful(v, ip);
	e = interp_decode(v, ip);
	if (unlikely(!e))
		return deliver(v);
	v->stats.insns_interp++;
	prof_insn(v->prof, e->in.mnemonic);
	r = e->fn(v, &e->in);
	if (likely(r == OP_NEXT)) {
		v->rip = next_rip(v, &e->in);
		return 0;
	}
	if (likely(r == OP_JUMP))
		return 0;
	return finish(v, &e->in, r);
}

int interp_step(struct vcpu *v)
{
	int r;

	if (v->halted)
		return 1;
	r = step(v, interp_of(v));
	if (r == OP_HLT)
		return 1;
	return r < 0 ? -1 : 0;
}

int interp_exec(struct vcpu *v, const struct insn *in)
{
	int r = interp_resolve(in)(v, in);

	if (r == OP_NEXT)
		v->rip = next_rip(v, in);
	if (r == OP_HLT)
		return 1;
	return r < 0 ? -1 : 0;
}

/* breaks: a debugger has set breakpoints; a constant of the caller, so that their absence costs nothing. */
static inline __attribute__((always_inline)) enum exit_reason run(struct vcpu *v, bool breaks)
{
	struct interp *ip = interp_of(v);
	int r;

	mmu_enter(&v->mmu);
	for (;;) {
		if (unlikely(__atomic_load_n(&v->event, __ATOMIC_RELAXED))) {
			enum exit_reason why;

			if (engine_events(v, &why)) {
				r = why;
				break;
			}
		}
		if (unlikely(v->halted)) {
			r = EXIT_HLT;
			break;
		}
		if (breaks && cpu_debug_break(v)) {
			r = EXIT_DEBUG;
			break;
		}
		r = step(v, ip);
		if (unlikely(r == OP_SHUTDOWN)) {
			r = EXIT_SHUTDOWN;
			break;
		}
	}
	vcpu_fpu_park(v);
	mmu_leave(&v->mmu);
	return (enum exit_reason)r;
}

static enum exit_reason interp_run(struct vcpu *v)
{
	return v->debug.breaks ? run(v, true) : run(v, false);
}

static bool interp_probe(char *why, size_t size)
{
	if (!__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("bmi2")) {
		snprintf(why, size, "the host CPU has no AVX2 and BMI2 (x86-64-v3), which guests are shown");
		return false;
	}
	snprintf(why, size, "available everywhere; used as the reference and for rare modes");
	return true;
}

static void interp_destroy(struct vcpu *v)
{
	struct interp *ip = interp_of(v);

	if (--ip->users == 0) {
		host_stubs_fini(ip);
		free(ip->icache);
		free(ip->host);
		free(ip);
		engine_slots(v)->interp = NULL;
	}
	engine_detach(v);
}

static int interp_create(struct vcpu *v)
{
	struct interp *ip;
	int r = engine_attach(v);

	if (r)
		return r;
	ip = interp_of(v);
	if (ip) {
		ip->users++;
		return 0;
	}
	ip = aligned_alloc(64, (sizeof(*ip) + 63) & ~(size_t)63);
	if (!ip)
		goto fail_attach;
	memset(ip, 0, sizeof(*ip));
	ip->users = 1;
	ip->icache = calloc(ICACHE_ENTRIES, sizeof(*ip->icache));
	ip->host = calloc(HOST_INSNS, sizeof(*ip->host));
	if (!ip->icache || !ip->host)
		goto fail_alloc;
	if (host_stubs_init(ip))
		goto fail_alloc;
	engine_slots(v)->interp = ip;
	return 0;

fail_alloc:
	free(ip->host);
	free(ip->icache);
	free(ip);
fail_attach:
	engine_detach(v);
	return -ENOMEM;
}

static void interp_reset(struct vcpu *v)
{
	struct interp *ip = interp_of(v);

	memset(ip->page, 0, sizeof(ip->page));
	memset(ip->icache, 0, ICACHE_ENTRIES * sizeof(*ip->icache));
}

static void interp_stats(struct vcpu *v, void (*emit)(void *o, const char *name, uint64_t val), void *o)
{
	const struct interp *ip = interp_of(v);

	emit(o, "interp.instructions", v->stats.insns_interp);
	emit(o, "interp.decodes", ip->stats.decodes);
	emit(o, "interp.host_stubs", ip->stats.stubs);
}

const struct engine_ops engine_interp = {
	.name = "interp",
	.what = "interprets one instruction at a time; the reference",
	.slowdown = "50-150 x",
	.max_cpus = VCPU_MAX,
	.probe = interp_probe,
	.create = interp_create,
	.destroy = interp_destroy,
	.run = interp_run,
	.reset = interp_reset,
	.stats = interp_stats,
};
