/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Statistics: who has counters registers a source; `doppel stats` and the file of --stats ask all sources of a machine.
 *
 * Each source is a section of the report ("disk0": {"read_ops": 12, ...}). Names end in what they count: _ops, _bytes, _ns; a name
 * without such an ending counts events.
 * Threads: sources are added while the machine is built; emit() runs on the main thread, at any time while the machine runs, without
 * locks. A counter is therefore an aligned uint64_t with one writer (or writers that hold a lock), written with stats_add() and read with
 * stats_read(): a report may lag behind, it never sees half a number.
 */
#ifndef BASE_STATS_H
#define BASE_STATS_H

#include <stddef.h>
#include <stdint.h>

typedef void stats_emit_fn(void *o, const char *name, uint64_t val);

struct stats_source {
	const char *section;                                        /* lives as long as the source */
	void (*emit)(void *opaque, stats_emit_fn *emit, void *o);   /* calls emit(o, name, value) for each counter */
	void *opaque;
	struct stats_source *next;
};

struct stats_registry {
	struct stats_source *first;
};

/* Sources appear in the order in which they were registered. The source is the caller's and stays where it is. */
static inline void stats_register(struct stats_registry *r, struct stats_source *s)
{
	struct stats_source **end = &r->first;

	while (*end)
		end = &(*end)->next;
	s->next = NULL;
	*end = s;
}

/* Before the source's memory goes. */
static inline void stats_unregister(struct stats_registry *r, const struct stats_source *s)
{
	struct stats_source **at = &r->first;

	while (*at && *at != s)
		at = &(*at)->next;
	if (*at)
		*at = s->next;
}

static inline void stats_add(uint64_t *counter, uint64_t n)
{
	__atomic_store_n(counter, __atomic_load_n(counter, __ATOMIC_RELAXED) + n, __ATOMIC_RELAXED);
}

static inline uint64_t stats_read(const uint64_t *counter)
{
	return __atomic_load_n(counter, __ATOMIC_RELAXED);
}

#endif
