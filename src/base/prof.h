/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a vCPU's thread is doing, for the sampling profiler (vm/profile.c).
 *
 * A profiled thread has a struct prof; without one each of these costs a branch that is never taken. The thread marks what it does; a
 * signal that interrupts it again and again adds a sample to what is marked then. Two dimensions: an *activity* is what runs at this
 * moment (a page walk, a device), and nests; a *kind* is what it is done for (a slow memory access, an interpreted IRET), and is
 * often known only when it is over: samples taken since prof_open() are kept apart until prof_book() names their kind.
 *
 * Writers: the thread and its own signal handler. Everything the two share is one byte or one naturally aligned word. Others read
 * totals while it runs; a report may lag behind.
 */
#ifndef BASE_PROF_H
#define BASE_PROF_H

#include <stdbool.h>
#include <stdint.h>

enum prof_activity { PROF_ENGINE, PROF_TRANSLATE, PROF_WALK, PROF_DEVICE, PROF_HALT, PROF_ACTIVITIES };

enum prof_kind {
	PROF_OTHER,           /* nothing was open */
	PROF_MISS,            /* dispatch found no translation */
	PROF_LINK,            /* a direct branch is taken for the first time */
	PROF_EVENT,           /* interrupts, requests of other vCPUs */
	PROF_SYSCALL,
	PROF_SYSRET,
	/* A data access had no table entry: */
	PROF_FILL_READ,       /* first touch of the page, to read */
	PROF_FILL_WRITE,      /* ... to write */
	PROF_FILL_UPGRADE,    /* a write to a page that could only be read: clean, or its code is gone */
	PROF_CROSS,           /* crosses a page (or is a misaligned stack slot) */
	PROF_CODE,            /* a store to a page that holds translated code, or to ROM */
	PROF_MMIO,
	PROF_FAULT,           /* ends in an exception */
	PROF_SLOW,            /* none of these */
	PROF_HOST_FAULT,      /* the host's processor refused the instruction */
	PROF_INSN_CROSSING,   /* an interpreted instruction that crosses a page */
	PROF_INSN,            /* + mnemonic: an interpreted instruction */
	PROF_KINDS = PROF_INSN + 2048,
};

#define PROF_DEVICES 64
struct prof_device {
	const void *owner;    /* NULL: unused */
	uint64_t where;       /* address of the first access; for ports with bit 63 */
	uint64_t count;
	uint32_t samples;
};

/* Where the monitor is called from: a guest address, for one kind. */
#define PROF_PLACES 8192u /* a power of two */
struct prof_place {
	uint64_t addr;
	uint64_t count;       /* 0: unused */
	uint32_t kind;
};

struct prof {
	uint8_t activity;     /* enum prof_activity */
	uint8_t device;       /* PROF_DEVICE: index */
	bool open;
	uint16_t mnemonic;    /* of the instruction being interpreted; 0: none */
	bool host_fault;      /* the next service is for one */
	uint32_t pending[PROF_ACTIVITIES];
	uint32_t samples[PROF_KINDS][PROF_ACTIVITIES];
	uint64_t count[PROF_KINDS];
	struct prof_device dev[PROF_DEVICES];
	struct prof_place place[PROF_PLACES];
};

/* Marks what runs from here to prof_end(), which gets what this returns. */
static inline unsigned prof_begin(struct prof *p, enum prof_activity a)
{
	unsigned was = 0;

	if (__builtin_expect(!!p, 0)) {
		was = p->activity;
		__atomic_store_n(&p->activity, (uint8_t)a, __ATOMIC_RELAXED);
		__atomic_signal_fence(__ATOMIC_SEQ_CST);
	}
	return was;
}

static inline void prof_end(struct prof *p, unsigned was)
{
	if (__builtin_expect(!!p, 0)) {
		__atomic_signal_fence(__ATOMIC_SEQ_CST);
		__atomic_store_n(&p->activity, (uint8_t)was, __ATOMIC_RELAXED);
	}
}

static inline void prof_insn(struct prof *p, unsigned mnemonic)
{
	if (__builtin_expect(!!p, 0))
		__atomic_store_n(&p->mnemonic, (uint16_t)mnemonic, __ATOMIC_RELAXED);
}

/* p is not NULL. */
static inline void prof_open(struct prof *p)
{
	p->mnemonic = 0;
	__atomic_store_n(&p->open, true, __ATOMIC_RELAXED);
}

static inline void prof_book(struct prof *p, unsigned kind)
{
	if (kind >= PROF_KINDS)
		kind = PROF_OTHER;
	__atomic_store_n(&p->open, false, __ATOMIC_RELAXED);
	__atomic_signal_fence(__ATOMIC_SEQ_CST);
	for (unsigned a = 0; a < PROF_ACTIVITIES; a++) {
		p->samples[kind][a] += p->pending[a];
		p->pending[a] = 0;
	}
	p->count[kind]++;
	p->mnemonic = 0;
}

/* A service of this kind was asked for at a guest address. What finds no room is not told apart. p is not NULL. */
static inline void prof_place(struct prof *p, uint64_t addr, unsigned kind)
{
	uint64_t h = (addr ^ kind) * 0x9e3779b97f4a7c15ull >> 32;

	for (unsigned i = 0; i < 8; i++) {
		struct prof_place *e = &p->place[(h + i) & (PROF_PLACES - 1)];

		if (e->count && (e->addr != addr || e->kind != kind))
			continue;
		e->addr = addr;
		e->kind = kind;
		__atomic_store_n(&e->count, e->count + 1, __ATOMIC_RELEASE);
		return;
	}
}

/* The device whose registers are accessed, as index for `device`. p is not NULL. */
static inline unsigned prof_device(struct prof *p, const void *owner, uint64_t where)
{
	unsigned i = 0;

	while (i + 1 < PROF_DEVICES && p->dev[i].owner && p->dev[i].owner != owner)
		i++;
	if (!p->dev[i].owner) {
		p->dev[i].where = where;
		p->dev[i].owner = owner;
	}
	p->dev[i].count++;
	return i;
}

/* A sample; in the signal handler of the thread. */
static inline void prof_sample(struct prof *p)
{
	unsigned a = p->activity < PROF_ACTIVITIES ? p->activity : PROF_ENGINE;

	if (p->open)
		p->pending[a]++;
	else
		p->samples[p->mnemonic ? PROF_INSN + p->mnemonic : PROF_OTHER][a]++;
	if (a == PROF_DEVICE)
		p->dev[p->device].samples++;
}

#endif
