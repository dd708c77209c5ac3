/* SPDX-License-Identifier: Apache-2.0 */
/*
 * An engine: a way to run a struct vcpu until something needs the machine around it.
 */
#ifndef ENGINE_ENGINE_H
#define ENGINE_ENGINE_H

#include "cpu/cpu.h"

enum exit_reason {
	EXIT_STOP,       /* VCPU_EV_STOP was posted (the bit is cleared by the receiver) */
	EXIT_HLT,        /* v->halted: nothing to do until an event */
	EXIT_INIT,       /* VCPU_EV_INIT was posted (likewise) */
	EXIT_SHUTDOWN,   /* triple fault */
	EXIT_DIVERGED,   /* lockstep found a difference (already printed) */
	EXIT_DEBUG,      /* a debugger's breakpoint or watch was met (v->debug); a look, nothing has to be done to go on */
	EXIT_ERROR,      /* the monitor cannot go on (already logged) */
	EXIT_COUNT,
};

/* What a host address inside translations stands for. */
struct engine_spot {
	unsigned kind;      /* index into engine_ops.spots */
	gva_t block;        /* guest code that begins there; its length in bytes and instructions; 0 instructions: none */
	uint16_t bytes, insns;
};

struct engine_ops {
	const char *name;
	const char *what;                                      /* one line for `doppel check` */
	const char *slowdown;                                  /* expected, against native: "1.5-3 x" */
	unsigned max_cpus;                                     /* in one machine */
	bool (*probe)(char *why, size_t size);                 /* can it run on this host? why not / why */
	int (*create)(struct vcpu *v);                         /* attaches to a vcpu (before the sandbox closes) */
	void (*destroy)(struct vcpu *v);
	/* On the vCPU's thread, between mmu_enter() and mmu_leave(); consumes VCPU_EV_IRQ itself. */
	enum exit_reason (*run)(struct vcpu *v);
	void (*reset)(struct vcpu *v);                         /* machine reset: drop all derived state */
	void (*stats)(struct vcpu *v, void (*emit)(void *o, const char *name, uint64_t val), void *o);
	/* For the profiler; both NULL where nothing is translated. False: pc is in no translation. Async-signal-safe, on the vCPU's thread. */
	bool (*spot)(const struct vcpu *v, uintptr_t pc, struct engine_spot *out);
	const char *const *spots;
	/* Writes what is translated to fd, a line for each block in the format of perf's map files; -1: writes what is left and stops. While the
	 * vCPU stands still. 0 or -errno; NULL: nothing is translated. */
	int (*perf_map)(struct vcpu *v, int fd);
};
#define ENGINE_SPOTS 24 /* at most */

/*
 * v->engine points at this (engine.c): one slot per engine that keeps private data, so that bt and lockstep can use interp as
 * a service on the same vCPU. Every engine's create() calls engine_attach() before it fills its slot and its destroy() calls
 * engine_detach() after it emptied it; the struct lives from the first attach to the last detach. Owner: the vCPU's creator.
 */
struct interp;
struct engine_slots {
	struct interp *interp;
	void *bt;
	void *lockstep;
	unsigned users;
};
static inline struct engine_slots *engine_slots(const struct vcpu *v) { return v->engine; }
int engine_attach(struct vcpu *v);      /* 0 or -ENOMEM */
void engine_detach(struct vcpu *v);
extern const struct engine_ops engine_interp;   /* create/destroy nest: other engines call them to use interp_step() */
extern const struct engine_ops engine_bt;
extern const struct engine_ops engine_lockstep;

/* What is due at an instruction boundary when v->event is not zero: a stop, requests of other vCPUs, an NMI, an interrupt. True to leave
 * engine_run() with *why. Translations may have been dropped. */
bool engine_events(struct vcpu *v, enum exit_reason *why);

/* registry.c: ordered array, best first; engine_find("auto") returns the first that probes well and runs so many vCPUs. NULL if
 * unknown or not able to; then why says it. */
extern const struct engine_ops *const engine_registry[];
const struct engine_ops *engine_find(const char *name, unsigned cpus, char *why, size_t size);

/* interp as a service for other engines: executes exactly one instruction at v->rip, delivering the exception it raises if any
 * (and a pending single-step trap). For `rep` string instructions one call may do many iterations but returns early when
 * v->event becomes nonzero, with v->rip still at the instruction. Returns 0; 1 if halted; -1 on shutdown. */
int interp_step(struct vcpu *v);
/* What interp_step() need not find out by a walk: the page at v->rip may be fetched from now, and is this frame. The code segment's base is 0. */
void interp_fetch_known(struct vcpu *v, gfn_t gfn);
/* Same for a known-decoded instruction (its bytes were fetched at v->rip); raises into v->exc and returns -1 without delivering. */
struct insn;
int interp_exec(struct vcpu *v, const struct insn *in);

#endif
