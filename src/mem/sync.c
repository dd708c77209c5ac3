/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Between vCPUs: requests to the owner of an MMU, waiting until they are done, and running alone.
 *
 * A request is put into the target's queue, then `active` is read; the target sets `active`, then reads the queue; a full barrier stands
 * between the two steps of each. So either the requester sees an active target and waits, or the target sees the request before it
 * derives anything from memory. Nobody waits while active itself: a thread that waits counts as having answered everyone, so
 * waits cannot form a circle.
 *
 * Invariant: a target serves its queue between two instructions and before it becomes active; `served` then has reached the tickets of
 * all that was in the queue. While mem->exclusive names another MMU, no owner becomes active.
 * Locking: sync.lock for the queue, held for a few stores. System calls (futex) only where somebody sleeps.
 */
#include <linux/futex.h>
#include <time.h>

#include "mem/private.h"

/* How long to spin before sleeping: what a target on a processor of its own needs to reach its next safe point, several times. */
#define SPINS 2000

static void futex_wait(uint32_t *word, uint32_t val)
{
	mem_syscall6(SYS_futex, (long)word, FUTEX_WAIT_PRIVATE, val, 0, 0, 0);
}

static void futex_wake_all(uint32_t *word)
{
	mem_syscall6(SYS_futex, (long)word, FUTEX_WAKE_PRIVATE, INT32_MAX, 0, 0, 0);
}

/* --- the requester's side ---------------------------------------------------------------------------------------- */

/* Consecutive frames of one device write become one request, and stores next to each other in a frame, too. Lock held. */
static bool merge(struct mmu_sync *s, const struct mmu_request *r)
{
	struct mmu_request *last = s->n ? &s->q[s->n - 1] : NULL;

	if (!last || !r->len || !last->len)
		return false;
	if (last->gfn == r->gfn && last->frames == 1 && r->frames == 1) {
		unsigned end = last->off + last->len, r_end = r->off + r->len;

		last->off = last->off < r->off ? last->off : r->off;
		last->len = (uint16_t)((end > r_end ? end : r_end) - last->off);
		return true;
	}
	if (last->gfn + last->frames == r->gfn && last->len == PAGE_SIZE && r->len == PAGE_SIZE) {
		last->frames += r->frames;
		return true;
	}
	return false;
}

uint32_t mmu_ask(struct mmu *mmu, const struct mmu_request *r)
{
	struct mmu_sync *s = &mmu->sync;
	uint32_t ticket;

	word_lock(&s->lock);
	s->stats.requests++;
	if (!r) {
		s->flush = true;
	} else if (!merge(s, r)) {
		if (s->n < MMU_REQUESTS) {
			s->q[s->n++] = *r;
		} else {
			s->stats.overflows += !s->everything;
			s->everything = true;
		}
	}
	ticket = s->asked + 1;
	__atomic_store_n(&s->asked, ticket, __ATOMIC_RELAXED);
	word_unlock(&s->lock);
	/* Pairs with the exchange in mmu_enter(). */
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	if (s->kick && __atomic_load_n(&s->active, __ATOMIC_RELAXED))
		s->kick(s->opaque);
	return ticket;
}

static bool answered(const struct mmu_sync *s, uint32_t ticket)
{
	return !__atomic_load_n(&s->active, __ATOMIC_ACQUIRE) ||
	       (int32_t)(__atomic_load_n(&s->served, __ATOMIC_ACQUIRE) - ticket) >= 0;
}

static bool idle(const struct mmu_sync *s, uint32_t unused)
{
	(void)unused;
	return !__atomic_load_n(&s->active, __ATOMIC_ACQUIRE);
}

static void await(struct mmu_sync *s, bool (*done)(const struct mmu_sync *s, uint32_t ticket), uint32_t ticket)
{
	for (unsigned spins = 0; !done(s, ticket); spins++) {
		uint32_t wake;

		if (spins < SPINS) {
			__builtin_ia32_pause();
			continue;
		}
		/* The owner changes its answer, then looks at `waiters`. */
		wake = __atomic_load_n(&s->wake, __ATOMIC_ACQUIRE);
		__atomic_store_n(&s->waiters, 1, __ATOMIC_SEQ_CST);
		if (!done(s, ticket))
			futex_wait(&s->wake, wake);
	}
}

void mmu_await(struct mmu *mmu, uint32_t ticket)
{
	await(&mmu->sync, answered, ticket);
}

/* --- the owner's side --------------------------------------------------------------------------------------------- */

/* After `active` or `served` changed, with a full barrier. */
static void tell_waiters(struct mmu_sync *s)
{
	if (likely(!__atomic_load_n(&s->waiters, __ATOMIC_RELAXED)))
		return;
	__atomic_store_n(&s->waiters, 0, __ATOMIC_RELAXED);
	__atomic_fetch_add(&s->wake, 1, __ATOMIC_SEQ_CST);
	futex_wake_all(&s->wake);
}

static void serve_one(struct mmu *mmu, const struct mmu_request *r)
{
	if (!r->len) {
		mmu_drop_writes(mmu, r->gfn);
		return;
	}
	for (uint32_t i = 0; i < r->frames; i++)
		mem_code_changed(mmu, r->gfn + i, r->off, r->len);
}

static void serve_queue(struct mmu *mmu)
{
	struct mmu_sync *s = &mmu->sync;
	struct mmu_request q[MMU_REQUESTS];
	bool flush, everything;
	uint32_t ticket, n;

	word_lock(&s->lock);
	n = s->n;
	for (uint32_t i = 0; i < n; i++)
		q[i] = s->q[i];
	flush = s->flush;
	everything = s->everything;
	ticket = s->asked;
	s->n = 0;
	s->flush = s->everything = false;
	word_unlock(&s->lock);
	if (everything && mmu->code_ops)
		mmu->code_ops->drop(mmu->code_opaque);
	if (flush || everything)
		mmu_flush_all(mmu);
	for (uint32_t i = 0; i < n && !everything; i++)
		serve_one(mmu, &q[i]);
	__atomic_exchange_n(&s->served, ticket, __ATOMIC_SEQ_CST);
	tell_waiters(s);
}

/* Another vCPU runs alone. */
static bool held_off(const struct mmu *mmu)
{
	uint32_t who = __atomic_load_n(&mmu->mem->exclusive, __ATOMIC_ACQUIRE);

	return who && who != mmu->index + 1;
}

void mmu_enter(struct mmu *mmu)
{
	struct mmu_sync *s = &mmu->sync;

	/* Pairs with the barrier in mmu_ask() and in mmu_exclusive_begin(). */
	while (__atomic_exchange_n(&s->active, 1, __ATOMIC_SEQ_CST), unlikely(held_off(mmu))) {
		uint32_t who;

		mmu_leave(mmu);
		who = __atomic_load_n(&mmu->mem->exclusive, __ATOMIC_ACQUIRE);
		if (who)
			futex_wait(&mmu->mem->exclusive, who);
	}
	if (unlikely(__atomic_load_n(&s->asked, __ATOMIC_RELAXED) != s->served))
		serve_queue(mmu);
}

void mmu_leave(struct mmu *mmu)
{
	__atomic_exchange_n(&mmu->sync.active, 0, __ATOMIC_SEQ_CST);
	tell_waiters(&mmu->sync);
}

void mmu_serve(struct mmu *mmu)
{
	if (__atomic_load_n(&mmu->sync.asked, __ATOMIC_ACQUIRE) != mmu->sync.served)
		serve_queue(mmu);
	if (held_off(mmu))
		mmu_resume(mmu, mmu_pause(mmu));
}

/* --- running alone -------------------------------------------------------------------------------------------------- */

void mmu_exclusive_begin(struct mmu *mmu)
{
	struct mem *m = mmu->mem;
	bool was = mmu_pause(mmu);
	uint32_t who;

	mmu->sync.stats.exclusive++;
	for (;;) {
		who = 0;
		if (__atomic_compare_exchange_n(&m->exclusive, &who, mmu->index + 1, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST))
			break;
		futex_wait(&m->exclusive, who);
	}
	for (unsigned i = 0; i < MEM_MAX_MMUS; i++) {
		struct mmu *o = m->mmu[i];

		if (!o || o == mmu)
			continue;
		if (o->sync.kick && __atomic_load_n(&o->sync.active, __ATOMIC_SEQ_CST))
			o->sync.kick(o->sync.opaque);
		await(&o->sync, idle, 0);
	}
	mmu_resume(mmu, was);
}

void mmu_exclusive_end(struct mmu *mmu)
{
	__atomic_store_n(&mmu->mem->exclusive, 0, __ATOMIC_SEQ_CST);
	futex_wake_all(&mmu->mem->exclusive);
}
