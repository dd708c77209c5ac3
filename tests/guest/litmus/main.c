/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Memory-ordering litmus tests between processors: outcomes that the x86 model forbids never happen.
 *
 * Each test runs over arrays of independent cells, so that processors race over a whole array without meeting after each cell; they walk
 * it in the same order from one barrier. Counts of what was seen are printed: a test that never saw a race proves little.
 *
 * Environments: long64
 * Spec: SDM vol. 3A 8.2.3 (examples 8-1 to 8-10).
 */
#include "smp.h"

enum { CELLS = 1024, ROUNDS = 60 };

/* Every variable has a line of its own. */
struct cell {
	volatile u64 x __attribute__((aligned(64)));
	volatile u64 y __attribute__((aligned(64)));
	volatile u64 out[4] __attribute__((aligned(64)));
};

static struct cell *cell;
static struct smp_barrier start;
static unsigned players;

static inline void mfence(void) { asm volatile("mfence" ::: "memory"); }
static inline void locked(void) { asm volatile("lock addl $0, (%%rsp)" ::: "memory", "cc"); }

/* Store buffering: x = 1, read y || y = 1, read x. Both zero is allowed unless a fence stands between. */
static void sb(struct cell *c, unsigned me, void (*fence)(void))
{
	if (me == 0) {
		c->x = 1;
		fence();
		c->out[0] = c->y;
	} else {
		c->y = 1;
		fence();
		c->out[1] = c->x;
	}
}

static void no_fence(void) { barrier(); }
static void sb_plain(struct cell *c, unsigned me) { sb(c, me, no_fence); }
static void sb_mfence(struct cell *c, unsigned me) { sb(c, me, mfence); }
static void sb_locked(struct cell *c, unsigned me) { sb(c, me, locked); }
static void sb_xchg(struct cell *c, unsigned me)
{
	volatile u64 *mine = me ? &c->y : &c->x;
	u64 one = 1;

	asm volatile("xchg %0, %1" : "+r"(one), "+m"(*mine) : : "memory");
	c->out[me] = me ? c->x : c->y;
}
static bool sb_both_zero(const struct cell *c) { return !c->out[0] && !c->out[1]; }

/* Message passing: data, then flag || flag, then data. */
static void mp(struct cell *c, unsigned me)
{
	if (me == 0) {
		c->x = 1;
		barrier();
		c->y = 1;
	} else {
		c->out[0] = c->y;
		barrier();
		c->out[1] = c->x;
	}
}
static bool mp_bad(const struct cell *c) { return c->out[0] && !c->out[1]; }
static bool mp_seen(const struct cell *c) { return !c->out[0] && c->out[1]; }

/* Load buffering: read x, y = 1 || read y, x = 1. */
static void lb(struct cell *c, unsigned me)
{
	if (me == 0) {
		c->out[0] = c->x;
		barrier();
		c->y = 1;
	} else {
		c->out[1] = c->y;
		barrier();
		c->x = 1;
	}
}
static bool lb_bad(const struct cell *c) { return c->out[0] && c->out[1]; }
static bool lb_seen(const struct cell *c) { return c->out[0] != c->out[1]; }

/* Independent reads of independent writes: two writers, two readers, who must agree on the order. */
static void iriw(struct cell *c, unsigned me)
{
	switch (me) {
	case 0: c->x = 1; break;
	case 1: c->y = 1; break;
	case 2:
		c->out[0] = c->x;
		barrier();
		c->out[1] = c->y;
		break;
	default:
		c->out[2] = c->y;
		barrier();
		c->out[3] = c->x;
		break;
	}
}
static bool iriw_bad(const struct cell *c) { return c->out[0] && !c->out[1] && c->out[2] && !c->out[3]; }
static bool iriw_seen(const struct cell *c) { return (c->out[0] && !c->out[1]) || (c->out[2] && !c->out[3]); }

/* Coherence: two readings of one variable do not go backwards. */
static void corr(struct cell *c, unsigned me)
{
	if (me == 0) {
		c->x = 1;
	} else {
		c->out[0] = c->x;
		barrier();
		c->out[1] = c->x;
	}
}
static bool corr_bad(const struct cell *c) { return c->out[0] && !c->out[1]; }
static bool corr_seen(const struct cell *c) { return !c->out[0] && c->out[1]; }

static const struct litmus {
	const char *name;
	unsigned players;
	void (*play)(struct cell *c, unsigned me);
	bool (*forbidden)(const struct cell *c);      /* NULL: everything is allowed */
	bool (*seen)(const struct cell *c);           /* the outcome that shows a race */
} litmus[] = {
	{"SB", 2, sb_plain, NULL, sb_both_zero},
	{"SB mfence", 2, sb_mfence, sb_both_zero, NULL},
	{"SB lock", 2, sb_locked, sb_both_zero, NULL},
	{"SB xchg", 2, sb_xchg, sb_both_zero, NULL},
	{"MP", 2, mp, mp_bad, mp_seen},
	{"LB", 2, lb, lb_bad, lb_seen},
	{"CoRR", 2, corr, corr_bad, corr_seen},
	{"IRIW", 4, iriw, iriw_bad, iriw_seen},
};

static void play(void *arg)
{
	const struct litmus *l = arg;
	unsigned me = smp_self();

	if (me >= l->players)
		return;
	smp_barrier(&start, l->players);
	for (unsigned i = 0; i < CELLS; i++)
		l->play(&cell[i], me);
}

int main(void)
{
	players = smp_start();
	CHECK(players >= 2);
	cell = pages_alloc(CELLS * sizeof(*cell) / 4096, 1);
	for (unsigned t = 0; t < ARRAY_SIZE(litmus); t++) {
		const struct litmus *l = &litmus[t];
		u32 bad = 0, seen = 0;

		if (l->players > players)
			continue;
		for (unsigned r = 0; r < ROUNDS; r++) {
			memset(cell, 0, CELLS * sizeof(*cell));
			smp_run_all(play, (void *)l);
			for (unsigned i = 0; i < CELLS; i++) {
				bad += l->forbidden && l->forbidden(&cell[i]);
				seen += l->seen && l->seen(&cell[i]);
			}
		}
		printf("%s: %u cells, %u raced, %u forbidden\n", l->name, CELLS * ROUNDS, seen, bad);
		check_context = l->name;
		CHECK_EQ(bad, 0);
	}
	return 0;
}
