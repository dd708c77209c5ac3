/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Taking frames away from a running guest: ballooning and free page reporting.
 *
 * Order: change the p2m entries, so that nobody derives anything new from them; have every vCPU empty its tables and drop translations, and
 * wait until each has or holds nothing; give the frames back. docs/design/mem.md has the argument.
 * Invariant: between the first step and the last the frames belong to nobody, so nothing can be handed out twice.
 * Locking: mem->lock for the entries and the pool, in stretches of bounded length, never while waiting.
 */
#include "mem/private.h"

#define RUNS 64              /* runs of machine frames given back after one wait */
#define STRETCH 512u         /* guest frames looked at, and frames of a run given back, with the lock held */

struct run {
	mfn_t mfn;
	uint64_t count;
};

struct batch {
	unsigned n;
	struct run run[RUNS];
};

/* Every vCPU forgets what its tables say. */
static void forget(struct mem *m)
{
	uint32_t ticket[MEM_MAX_MMUS];

	for (unsigned i = 0; i < MEM_MAX_MMUS; i++)
		if (m->mmu[i])
			ticket[i] = mmu_ask(m->mmu[i], NULL);
	for (unsigned i = 0; i < MEM_MAX_MMUS; i++)
		if (m->mmu[i])
			mmu_await(m->mmu[i], ticket[i]);
}

static void give_back(struct mem *m, struct batch *b)
{
	if (!b->n)
		return;
	forget(m);
	for (unsigned i = 0; i < b->n; i++) {
		mem_lock(m);
		mem_pool_give(&m->pool, b->run[i].mfn, b->run[i].count);
		m->populated -= b->run[i].count;
		mem_unlock(m);
	}
	b->n = 0;
}

/* False if the batch is full. Lock held. */
static bool take(struct mem *m, struct batch *b, gfn_t gfn, enum p2m_state to)
{
	uint64_t e = m->p2m[gfn];
	struct run *last = b->n ? &b->run[b->n - 1] : NULL;
	mfn_t mfn;

	if (p2m_entry_state(e) == P2M_ABSENT && to == P2M_BALLOONED) {
		m->ballooned++;
		__atomic_store_n(&m->p2m[gfn], P2M_ENTRY(0, to), __ATOMIC_RELEASE);
	}
	if (p2m_entry_state(e) != P2M_OWNED)
		return true;
	mfn = e & P2M_MFN_MASK;
	if (last && last->mfn + last->count == mfn && last->count < STRETCH)
		last->count++;
	else if (b->n < RUNS)
		b->run[b->n++] = (struct run){ mfn, 1 };
	else
		return false;
	/* Marks may be set and cleared without the lock. */
	e = __atomic_exchange_n(&m->p2m[gfn], P2M_ENTRY(0, to), __ATOMIC_SEQ_CST);
	m->ballooned += to == P2M_BALLOONED;
	for (unsigned i = 0; i < MEM_MAX_MMUS; i++) {
		const struct mmu_request r = { .gfn = gfn, .frames = 1, .off = 0, .len = PAGE_SIZE };

		if ((e & P2M_CODE(i)) && m->mmu[i])
			mmu_ask(m->mmu[i], &r);
	}
	return true;
}

/* Up to STRETCH frames from *gfn on; advances it. */
static void release_stretch(struct mem *m, struct batch *b, gfn_t *gfn, gfn_t end, enum p2m_state to)
{
	bool room = true;

	mem_lock(m);
	for (unsigned i = 0; i < STRETCH && *gfn < end; i++, ++*gfn) {
		room = take(m, b, *gfn, to);
		if (!room)
			break;
	}
	mem_unlock(m);
	if (!room)
		give_back(m, b);
}

static gfn_t span_end(const struct mem *m, const struct mem_span *s)
{
	if (s->gfn >= m->max_gfn)
		return s->gfn;
	return s->frames < m->max_gfn - s->gfn ? s->gfn + s->frames : m->max_gfn;
}

void mem_release(struct mem *m, const struct mem_span *span, unsigned n, bool ballooned)
{
	struct batch b = { 0 };

	for (unsigned i = 0; i < n; i++)
		for (gfn_t g = span[i].gfn, end = span_end(m, &span[i]); g < end;)
			release_stretch(m, &b, &g, end, ballooned ? P2M_BALLOONED : P2M_ABSENT);
	give_back(m, &b);
}

void mem_reclaim(struct mem *m, const struct mem_span *span, unsigned n)
{
	for (unsigned i = 0; i < n; i++) {
		gfn_t end = span_end(m, &span[i]);

		mem_lock(m);
		for (gfn_t g = span[i].gfn; g < end; g++) {
			if (p2m_entry_state(m->p2m[g]) != P2M_BALLOONED)
				continue;
			m->ballooned--;
			__atomic_store_n(&m->p2m[g], P2M_ENTRY(0, P2M_ABSENT), __ATOMIC_RELEASE);
		}
		mem_unlock(m);
	}
}
