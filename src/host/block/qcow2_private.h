/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Inside the qcow2 format: an open image.
 *
 *   L1 (in memory) -> L2 table -> data cluster, zeroes, compressed data, or nothing (then the backing file has it)
 *   refcount table (in memory) -> refcount block -> number of references to each cluster of the file
 *
 * Crash safety (docs/design/block.md has the argument). The invariant of the *medium*, at every moment: a cluster's refcount there
 * is at least the number of references to it there, and what is referenced has been written there. So
 *   - refcounts are raised, and data and tables written, before (with a sync between) what refers to them;
 *   - a reference is gone from the medium before the refcount is lowered or the cluster used for something else.
 * Cached refcount blocks always satisfy this against the medium, so they may be written at any time. L2 tables, then L1, are written
 * only by qcow2_commit(), which has the syncs. Lowering is kept in `pending` until a commit has made it safe.
 *
 * Locking: slow calls come one at a time (private.h). q->map guards what the fast path reads: l1, the L2 cache's index and
 * contents, end, the pins. Slow calls may read those without it, and take it to change them.
 */
#ifndef HOST_BLOCK_QCOW2_PRIVATE_H
#define HOST_BLOCK_QCOW2_PRIVATE_H

#include "host/block/bytes.h"
#include "host/block/private.h"
#include "host/block/qcow2.h"

#define QCOW2_COPIED BIT(63)          /* L1, L2: the refcount is exactly one, so it may be changed in place */
#define QCOW2_PACKED BIT(62)
#define QCOW2_ZERO BIT(0)
#define QCOW2_OFFSET_MASK 0x00fffffffffffe00ull

#define L2_CACHE_BYTES (8u << 20)
#define REF_CACHE_BYTES (1u << 20)
#define CACHE_SLOTS_MIN 4u
#define CACHE_SLOTS_MAX 16384u
#define PENDING_MAX 4096u

/* A table of one cluster in memory. What differs from the file: bytes [from, to). */
struct table_slot {
	uint8_t *data;
	uint64_t offset;
	uint32_t index;        /* in the table above */
	bool used;
	uint32_t from, to;     /* from == to: clean */
	uint64_t stamp;        /* of last use */
};

struct table_cache {
	struct table_slot *slot;
	uint16_t *slot_of;     /* per index of the table above: slot number + 1, or 0 */
	uint8_t *data;
	unsigned nslots;
	uint32_t bytes;
	uint64_t clock;
};

struct cluster_run { uint64_t first, n; };

struct qcow2 {
	struct block_node node;        /* first */
	int fd;
	unsigned version, cluster_bits, l2_bits, refcount_order, refblock_bits;
	uint64_t cluster;              /* 1 << cluster_bits */
	uint8_t compression;
	struct qcow2_header header;    /* as read; offsets of tables that move are kept below */
	struct block_node *below;

	pthread_mutex_t map;
	pthread_cond_t quiet;
	unsigned epoch, pins[2];       /* transfers in flight to places that were looked up in each epoch */
	uint64_t end;                  /* clusters from here on are not in the file */

	uint64_t *l1;
	uint32_t l1_size;
	uint64_t l1_offset;
	uint32_t l1_from, l1_to;       /* entries that differ from the file */
	struct table_cache l2;

	uint64_t *reftable;
	uint32_t reftable_size;        /* entries */
	uint64_t reftable_offset;
	uint32_t reftable_from, reftable_to;
	struct table_cache ref;
	uint64_t hint;                 /* no cluster before this one is free */
	struct cluster_run *pending;   /* to be lowered by one after the next commit */
	unsigned npending;

	uint8_t *cow;                  /* a cluster being put together */
	uint8_t *packed, *plain;       /* compressed data (up to two clusters) and a cluster of plain data */
	uint64_t plain_entry;          /* L2 entry of what is in `plain`, or 0 */
	uint64_t pack_at;              /* where the next compressed cluster may go, or 0 */
	void *codec;
	int sync_error;                /* a sync has failed: what is on the medium is unknown, so nothing may build on it */
};

static inline struct qcow2 *to_qcow2(struct block_node *n)
{
	return container_of(n, struct qcow2, node);
}

static inline uint64_t align_up(uint64_t v, uint64_t to)
{
	return (v + to - 1) & ~(to - 1);
}

enum cluster_kind { CLUSTER_NONE, CLUSTER_DATA, CLUSTER_ZERO, CLUSTER_PACKED, CLUSTER_BAD };

/* What an L2 entry says. For DATA, and for ZERO if a cluster is allocated, *offset is in the file and aligned, else 0. */
enum cluster_kind qcow2_kind(const struct qcow2 *q, uint64_t entry, uint64_t *offset);
/* Range of a packed entry's data. */
void qcow2_packed_range(const struct qcow2 *q, uint64_t entry, uint64_t *offset, uint64_t *bytes);
/* The range [offset, offset + bytes) touches header, L1 or refcount table: no data may be there. */
bool qcow2_is_metadata(const struct qcow2 *q, uint64_t offset, uint64_t bytes);

/* --- qcow2_table.c --------------------------------------------------------------------------------------------------------- */

int table_cache_init(struct table_cache *c, uint32_t bytes, uint32_t budget, uint32_t nindex);
void table_cache_fini(struct table_cache *c);
struct table_slot *table_cache_find(struct table_cache *c, uint32_t index);
static inline void table_dirty(struct table_slot *s, uint32_t from, uint32_t to)
{
	if (s->from == s->to) {
		s->from = from;
		s->to = to;
	} else {
		s->from = from < s->from ? from : s->from;
		s->to = to > s->to ? to : s->to;
	}
}
/* A slot to load something into: the least recently used clean one; NULL if all are dirty. */
struct table_slot *table_cache_victim(struct table_cache *c);
void table_cache_drop(struct table_cache *c, struct table_slot *s);
void table_cache_assign(struct table_cache *c, struct table_slot *s, uint32_t index, uint64_t offset);
int table_cache_write(struct table_cache *c, int fd);   /* all dirty slots */

/* The L2 table for L1 entry `index`. NULL in *s if there is none. May block. */
int qcow2_l2_load(struct qcow2 *q, uint32_t index, struct table_slot **s);
/* The same, and it may be changed: allocated or copied if need be. */
int qcow2_l2_load_writable(struct qcow2 *q, uint32_t index, struct table_slot **s);
static inline uint64_t qcow2_l2_get(const struct table_slot *s, uint32_t i)
{
	return get_be64(s->data + i * 8u);
}
void qcow2_l2_set(struct qcow2 *q, struct table_slot *s, uint32_t i, uint64_t entry);
/* Makes the medium current, in the order that keeps it consistent; afterwards lowers what was pending. */
int qcow2_commit(struct qcow2 *q);
int qcow2_sync(struct qcow2 *q);
/* The cluster's refcount goes down by one once no reference is on the medium. May commit. */
int qcow2_release(struct qcow2 *q, uint64_t first, uint64_t n);

/* --- qcow2_refcount.c ------------------------------------------------------------------------------------------------------ */

int qcow2_refcount_get(struct qcow2 *q, uint64_t cluster, uint64_t *count);
/* Adds to or takes from the refcounts of n clusters. -ERANGE if one does not fit its bits (the others before it have changed). */
int qcow2_refcount_add(struct qcow2 *q, uint64_t first, uint64_t n, int delta);
/* For repair. */
int qcow2_refcount_set(struct qcow2 *q, uint64_t cluster, uint64_t count);
/* Allocates 1 to n clusters in a row: *first, their number in *got, refcounts one. *fresh: they have never been written. */
int qcow2_alloc(struct qcow2 *q, uint64_t n, uint64_t *first, uint64_t *got, bool *fresh);
int qcow2_refcount_flush(struct qcow2 *q);
uint64_t qcow2_refcount_at(const uint8_t *block, unsigned order, uint64_t i);
void qcow2_refcount_put(uint8_t *block, unsigned order, uint64_t i, uint64_t v);

/* --- qcow2_write.c, qcow2_pack.c ---------------------------------------------------------------------------------------------- */

int qcow2_write(struct block_node *n, const void *buf, size_t bytes, uint64_t offset);
int qcow2_zero(struct block_node *n, uint64_t bytes, uint64_t offset, bool unmap);
int qcow2_discard(struct block_node *n, uint64_t bytes, uint64_t offset);
int qcow2_read(struct block_node *n, void *buf, size_t bytes, uint64_t offset);
/* How many of the entries from i on, at most max, are one run: of the same kind and, for DATA, adjacent in the file. */
uint32_t qcow2_run(const struct qcow2 *q, const struct table_slot *s, uint32_t i, uint32_t max, enum cluster_kind *kind,
		   uint64_t *offset);

int qcow2_write_packed(struct block_node *n, const void *buf, size_t bytes, uint64_t offset);
int qcow2_codec_create(struct qcow2 *q);
void qcow2_codec_destroy(struct qcow2 *q);
/* The plain content of a packed cluster is in q->plain. */
int qcow2_unpack(struct qcow2 *q, uint64_t entry);

#endif
