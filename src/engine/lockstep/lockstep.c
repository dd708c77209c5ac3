/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The translator checked against the interpreter, block by block.
 *
 * Each block runs twice from the same state: first in the interpreter, whose stores are journalled and then taken back, then in
 * the translator. Registers, defined flags, vector state and the stored memory must agree; at the first difference both
 * states are printed and the machine stops (EXIT_DIVERGED).
 *
 * A fault's RFLAGS image may hold stale arithmetic flags where no later instruction reads them (docs/design/bt.md): those bits are
 * left out after an exception.
 *
 * Not compared: blocks that touch devices (they cannot be run twice), instructions the translator leaves to the interpreter
 * anyway, and stores by the translator to addresses the interpreter did not store to.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "engine/bt/bt.h"
#include "engine/bt/probe.h"

/* The architectural part of struct vcpu, copied as a whole. */
#define ARCH_FROM offsetof(struct vcpu, gpr)
#define ARCH_TO offsetof(struct vcpu, fpu)
#define FPU_COMPARED_FROM 24  /* MXCSR, ST0-7, XMM; the pointers before it are host addresses */
#define FPU_LEGACY_TO 416
#define FPU_EXTENDED 576      /* YMM and what AVX-512 adds, as far as the host has it */

struct state {
	uint8_t arch[ARCH_TO - ARCH_FROM];
	struct vcpu_fpu fpu;
};

struct lockstep {
	struct vcpu_journal journal;
	struct state before, interp;
	uint8_t stored[VCPU_JOURNAL_STORES][32];  /* what the interpreter left where journal.e[] points */
	uint64_t compared, skipped;
};

static struct lockstep *lockstep_of(const struct vcpu *v) { return engine_slots(v)->lockstep; }

static void save(struct vcpu *v, struct state *s)
{
	vcpu_fpu_park(v);
	memcpy(s->arch, (uint8_t *)v + ARCH_FROM, sizeof(s->arch));
	memcpy(&s->fpu, &v->fpu, sizeof(s->fpu));
}

/* Puts a saved state back, except the event bits: other threads set them at any moment, so they are not even rewritten with what was
 * just read. */
static void restore(struct vcpu *v, const struct state *s)
{
	size_t after = offsetof(struct vcpu, event) + sizeof(v->event);

	v->fpu_live = false;
	memcpy((uint8_t *)v + ARCH_FROM, s->arch, offsetof(struct vcpu, event) - ARCH_FROM);
	memcpy((uint8_t *)v + after, s->arch + after - ARCH_FROM, ARCH_TO - after);
	memcpy(&v->fpu, &s->fpu, sizeof(s->fpu));
	v->fpu_live = false;
}

static const struct vcpu *as_vcpu(const struct state *s)
{
	return (const struct vcpu *)(s->arch - ARCH_FROM);
}

/* Runs at most n instructions, as long as they follow one another. Returns the flags left undefined; *r as interp_step. *event:
 * left where an event waits (STI or POPF let an interrupt in), which the rest of the block, a CLI perhaps, must not run past. */
static uint16_t run_interp(struct vcpu *v, const struct bt_block *b, enum insn_mode mode, const uint8_t *page, int *r, bool *event)
{
	unsigned off = b->off;
	uint16_t undefined = 0;

	*r = 0;
	*event = false;
	for (unsigned i = 0; i < b->ninsn && !*r; i++) {
		struct insn in;
		uint64_t next;

		vcpu_fpu_park(v);
		if (insn_decode(&in, mode, page + off, PAGE_SIZE - off < 15 ? (size_t)(PAGE_SIZE - off) : 15))
			break;
		next = v->rip + in.len;
		*r = interp_step(v);
		undefined = (uint16_t)((undefined & ~in.flags_write) | in.flags_undef);
		off += in.len;
		if (__atomic_load_n(&v->event, __ATOMIC_ACQUIRE)) {
			*event = true;
			break;
		}
		if (v->rip != next)
			break;
	}
	return undefined;
}

static void take_back(struct lockstep *ls)
{
	struct vcpu_journal *j = &ls->journal;

	for (unsigned i = 0; i < j->n; i++)
		memcpy(ls->stored[i], j->e[i].hva, j->e[i].len);
	for (unsigned i = j->n; i-- > 0;)
		memcpy(j->e[i].hva, j->e[i].old, j->e[i].len);
}

static bool store_agrees(const struct lockstep *ls, unsigned i, bool exception)
{
	uint64_t a, b;

	if (!memcmp(ls->stored[i], ls->journal.e[i].hva, ls->journal.e[i].len))
		return true;
	if (!exception || ls->journal.e[i].len != 8)
		return false;
	memcpy(&a, ls->stored[i], 8);
	memcpy(&b, ls->journal.e[i].hva, 8);
	return !((a ^ b) & ~(uint64_t)FL_ARITH);
}

/* The final value of a byte stored several times is the last entry's. */
static bool memory_agrees(const struct lockstep *ls, bool exception, unsigned *which)
{
	const struct vcpu_journal *j = &ls->journal;

	for (unsigned i = 0; i < j->n; i++) {
		bool later = false;

		for (unsigned k = i + 1; k < j->n; k++)
			later |= (uint8_t *)j->e[k].hva < (uint8_t *)j->e[i].hva + j->e[i].len &&
				 (uint8_t *)j->e[i].hva < (uint8_t *)j->e[k].hva + j->e[k].len;
		if (!later && !store_agrees(ls, i, exception)) {
			*which = i;
			return false;
		}
	}
	return true;
}

static void put_back(struct lockstep *ls)
{
	struct vcpu_journal *j = &ls->journal;

	for (unsigned i = 0; i < j->n; i++)
		memcpy(j->e[i].hva, ls->stored[i], j->e[i].len);
}

static bool fpu_agrees(const uint8_t *a, const uint8_t *b)
{
	return !memcmp(a, b, 6) && !memcmp(a + FPU_COMPARED_FROM, b + FPU_COMPARED_FROM, 4) &&
	       !memcmp(a + 32, b + 32, FPU_LEGACY_TO - 32) &&
	       !memcmp(a + FPU_EXTENDED, b + FPU_EXTENDED, VCPU_XSAVE_MAX - FPU_EXTENDED);
}

static bool agrees(struct vcpu *v, const struct lockstep *ls, uint16_t undefined, bool exception, char what[64])
{
	const struct vcpu *a = as_vcpu(&ls->interp);
	uint64_t flags = ~(uint64_t)(undefined | FL_RF | (exception ? FL_ARITH : 0));
	unsigned which;

	for (unsigned i = 0; i < GPR_COUNT; i++) {
		if (a->gpr[i] != v->gpr[i]) {
			snprintf(what, 64, "register %u", i);
			return false;
		}
	}
	if (!memory_agrees(ls, exception, &which)) {
		snprintf(what, 64, "store %u of %u bytes", which, ls->journal.e[which].len);
	} else if (a->rip != v->rip) {
		snprintf(what, 64, "%s", "RIP");
	} else if ((a->rflags & flags) != (v->rflags & flags)) {
		snprintf(what, 64, "%s", "RFLAGS");
	} else if (a->cpl != v->cpl || memcmp(a->seg, v->seg, sizeof(a->seg))) {
		snprintf(what, 64, "%s", "segments");
	} else if (a->cr0 != v->cr0 || a->cr2 != v->cr2 || a->cr3 != v->cr3 || a->cr4 != v->cr4) {
		snprintf(what, 64, "%s", "control registers");
	} else if (!fpu_agrees(ls->interp.fpu.area, v->fpu.area)) {
		snprintf(what, 64, "%s", "vector state");
	} else {
		return true;
	}
	return false;
}

static void print_block(const struct bt_block *b, enum insn_mode mode, const uint8_t *page, gva_t base)
{
	unsigned off = b->off;
	char text[128];

	for (unsigned i = 0; i < b->ninsn; i++) {
		struct insn in;

		if (insn_decode(&in, mode, page + off, PAGE_SIZE - off < 15 ? (size_t)(PAGE_SIZE - off) : 15))
			break;
		dprintf(2, "  %016llx  %s\n", (unsigned long long)(base + off),
			insn_format(&in, base + off, text, sizeof(text)));
		off += in.len;
	}
}

static void report(struct vcpu *v, struct lockstep *ls, const struct bt_block *b, const uint8_t *page, const char *what)
{
	struct state bt;
	gva_t base = as_vcpu(&ls->before)->rip - b->off;

	save(v, &bt);
	log_error("lockstep: %s differs after %llu blocks", what, (unsigned long long)ls->compared);
	print_block(b, bt_insn_mode(bt_of(v)->page[b->page].mode), page, base);
	dprintf(2, "--- before\n");
	restore(v, &ls->before);
	vcpu_dump(v, 2);
	dprintf(2, "--- interpreter\n");
	restore(v, &ls->interp);
	vcpu_dump(v, 2);
	dprintf(2, "--- translator\n");
	restore(v, &bt);
	vcpu_dump(v, 2);
}

/* Runs one block both ways. */
static enum exit_reason compare_block(struct vcpu *v, struct lockstep *ls, uint32_t block, bool *stop)
{
	struct bt *bt = bt_of(v);
	struct bt_block b = bt->block[block];
	const uint8_t *page = mem_frame(v->mem, bt->page[b.page].gfn, false);
	uint64_t events = bt->stats.events, exceptions = v->stats.exceptions;
	bool exception, event;
	char what[64];
	uint16_t undefined;
	int r;

	*stop = false;
	save(v, &ls->before);
	ls->journal.n = 0;
	ls->journal.io = ls->journal.overflow = false;
	v->journal = &ls->journal;
	undefined = run_interp(v, &b, bt_insn_mode(bt->page[b.page].mode), page, &r, &event);
	exception = v->stats.exceptions != exceptions;
	v->journal = NULL;
	if (r || event || ls->journal.io || ls->journal.overflow || bt->block[block].dead) {
		ls->skipped++;
		*stop = r < 0;
		return EXIT_SHUTDOWN;
	}
	save(v, &ls->interp);
	take_back(ls);
	restore(v, &ls->before);
	bt_run_block(bt, block);
	vcpu_fpu_park(v);
	if (bt->stats.events != events) {
		put_back(ls);
		restore(v, &ls->interp);
		return EXIT_STOP;
	}
	ls->compared++;
	if (agrees(v, ls, undefined, exception, what))
		return EXIT_STOP;
	report(v, ls, &b, page, what);
	*stop = true;
	return EXIT_DIVERGED;
}

static enum exit_reason lockstep_run(struct vcpu *v)
{
	struct lockstep *ls = lockstep_of(v);
	struct bt *bt = bt_of(v);
	enum exit_reason why = EXIT_STOP;
	bool stop = false;

	mmu_enter(&v->mmu);
	while (!stop) {
		uint32_t block;

		if (__atomic_load_n(&v->event, __ATOMIC_RELAXED) && engine_events(v, &why))
			break;
		if (v->halted) {
			why = EXIT_HLT;
			break;
		}
		if (cpu_break_due(v)) {
			why = EXIT_DEBUG;
			break;
		}
		block = bt_block_here(bt);
		if (block && bt->block[block].pure) {
			why = compare_block(v, ls, block, &stop);
		} else if (interp_step(v) < 0) {
			why = EXIT_SHUTDOWN;
			break;
		}
	}
	vcpu_fpu_park(v);
	mmu_leave(&v->mmu);
	return why;
}

static int lockstep_create(struct vcpu *v)
{
	struct lockstep *ls;
	int r = engine_bt.create(v);

	if (r)
		return r;
	ls = calloc(1, sizeof(*ls));
	if (!ls) {
		engine_bt.destroy(v);
		return -ENOMEM;
	}
	engine_slots(v)->lockstep = ls;
	bt_of(v)->single = true;
	return 0;
}

static void lockstep_destroy(struct vcpu *v)
{
	free(lockstep_of(v));
	engine_slots(v)->lockstep = NULL;
	engine_bt.destroy(v);
}

static void lockstep_reset(struct vcpu *v)
{
	engine_bt.reset(v);
}

static void lockstep_stats(struct vcpu *v, void (*emit)(void *o, const char *name, uint64_t val), void *o)
{
	emit(o, "lockstep_compared", lockstep_of(v)->compared);
	emit(o, "lockstep_skipped", lockstep_of(v)->skipped);
	engine_bt.stats(v, emit, o);
}

const struct engine_ops engine_lockstep = {
	.name = "lockstep",
	.what = "the translator checked against the interpreter, block by block (for finding defects)",
	.slowdown = "500-2000 x",
	.max_cpus = 1,   /* what one vCPU is taken back must not have been seen by another */
	.probe = bt_probe,
	.create = lockstep_create,
	.destroy = lockstep_destroy,
	.run = lockstep_run,
	.reset = lockstep_reset,
	.stats = lockstep_stats,
};
