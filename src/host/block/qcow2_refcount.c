/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reference counts of qcow2 clusters, and allocation.
 *
 * The refcount table says where the block is that counts each range of clusters; a range without a block is free. A new block is put into
 * the first cluster of its own range, so it counts itself and nothing else has to be allocated for it. A table that is full
 * is replaced by a larger one, which together with the blocks that count it lies right behind what the old one covers.
 *
 * Invariant: cached blocks may be written at any time (qcow2_private.h). A block is written before the table entry that names it.
 * Locking: slow calls only; q->map for q->end.
 */
#include <errno.h>
#include <stdlib.h>

#include "host/block/qcow2_private.h"

/* Where the file may not grow beyond: offsets in tables have 56 bits. */
#define FILE_MAX (1ull << 55)
/* Clusters beyond the end of the file may be counted as used, if the process ended between the two; not without end. */
#define LEAKED_MAX (1ull << 20)

uint64_t qcow2_refcount_at(const uint8_t *block, unsigned order, uint64_t i)
{
	const uint8_t *p = block + (order < 3 ? i >> (3 - order) : i << (order - 3));
	unsigned bits = 1u << order, shift = (unsigned)(i << order & 7);

	switch (order) {
	case 4: return (uint64_t)p[0] << 8 | p[1];
	case 5: return get_be32(p);
	case 6: return get_be64(p);
	default: return (uint64_t)(p[0] >> (order == 3 ? 0 : shift)) & ((1u << bits) - 1);
	}
}

void qcow2_refcount_put(uint8_t *block, unsigned order, uint64_t i, uint64_t v)
{
	uint8_t *p = block + (order < 3 ? i >> (3 - order) : i << (order - 3));
	unsigned bits = 1u << order, shift = order < 3 ? (unsigned)(i << order & 7) : 0;

	switch (order) {
	case 4: p[0] = (uint8_t)(v >> 8); p[1] = (uint8_t)v; break;
	case 5: put_be32(p, (uint32_t)v); break;
	case 6: put_be64(p, v); break;
	default: p[0] = (uint8_t)((p[0] & ~(((1u << bits) - 1) << shift)) | (v << shift)); break;
	}
}

static uint64_t refcount_max(const struct qcow2 *q)
{
	return q->refcount_order == 6 ? UINT64_MAX : (1ull << (1u << q->refcount_order)) - 1;
}

/* A slot out of use. Blocks may be written whenever they must leave. */
static int ref_slot_free(struct qcow2 *q, struct table_slot **s)
{
	int ret;

	*s = table_cache_victim(&q->ref);
	if (!*s) {
		ret = table_cache_write(&q->ref, q->fd);
		if (ret < 0)
			return ret;
		*s = table_cache_victim(&q->ref);
	}
	table_cache_drop(&q->ref, *s);
	return 0;
}

/* The block that counts `cluster`, NULL in *s if there is none. */
static int block_load(struct qcow2 *q, uint64_t cluster, struct table_slot **s)
{
	uint64_t index = cluster >> q->refblock_bits, offset;
	int ret;

	*s = NULL;
	if (index >= q->reftable_size)
		return 0;
	*s = table_cache_find(&q->ref, (uint32_t)index);
	offset = q->reftable[index] & ~511ull;
	if (*s || !offset)
		return 0;
	if (offset & (q->cluster - 1) || offset >= q->end)
		return -EIO;
	ret = ref_slot_free(q, s);
	if (ret == 0)
		ret = file_read(q->fd, (*s)->data, q->cluster, offset);
	if (ret == 0)
		table_cache_assign(&q->ref, *s, (uint32_t)index, offset);
	return ret;
}

int qcow2_refcount_get(struct qcow2 *q, uint64_t cluster, uint64_t *count)
{
	struct table_slot *s;
	int ret = block_load(q, cluster, &s);

	*count = 0;
	if (ret == 0 && s)
		*count = qcow2_refcount_at(s->data, q->refcount_order, cluster & (BIT(q->refblock_bits) - 1));
	return ret;
}

static void set_count(struct qcow2 *q, struct table_slot *s, uint64_t i, uint64_t v)
{
	uint64_t bit = i << q->refcount_order;
	uint32_t from = (uint32_t)(bit / 8), to = (uint32_t)((bit + (1u << q->refcount_order) + 7) / 8);

	qcow2_refcount_put(s->data, q->refcount_order, i, v);
	table_dirty(s, from, to);
	q->node.dirty = true;
}

static void set_end(struct qcow2 *q, uint64_t end)
{
	pthread_mutex_lock(&q->map);
	if (end > q->end)
		q->end = end;
	pthread_mutex_unlock(&q->map);
}

/* --- a larger table ---------------------------------------------------------------------------------------------------------- */

struct growth { uint64_t start, table_clusters, blocks, entries; };

/* The new table and the blocks that count it and them begin at the first cluster that the old table does not cover. */
static int growth_plan(const struct qcow2 *q, struct growth *g)
{
	uint64_t per_block = BIT(q->refblock_bits);

	g->start = (uint64_t)q->reftable_size << q->refblock_bits;
	g->blocks = 1;
	for (;;) {
		g->entries = q->reftable_size + g->blocks + q->reftable_size / 2;
		g->table_clusters = align_up(g->entries * 8, q->cluster) >> q->cluster_bits;
		if (g->table_clusters + g->blocks <= g->blocks * per_block)
			break;
		g->blocks++;
	}
	g->entries = g->table_clusters << q->cluster_bits >> 3;
	if (g->entries * 8 > QCOW2_REFTABLE_BYTES_MAX || g->start > FILE_MAX >> q->cluster_bits)
		return -EFBIG;
	return qcow2_is_metadata(q, g->start << q->cluster_bits, (g->table_clusters + g->blocks) << q->cluster_bits) ? -EIO : 0;
}

/* Writes the blocks and the table; nothing refers to them yet. */
static int growth_write(struct qcow2 *q, const struct growth *g, const uint64_t *table)
{
	uint64_t used = g->table_clusters + g->blocks, per_block = BIT(q->refblock_bits);
	uint8_t *buf = malloc(q->cluster);
	int ret = buf ? 0 : -ENOMEM;

	for (uint64_t b = 0; ret == 0 && b < g->blocks; b++) {
		memset(buf, 0, q->cluster);
		for (uint64_t i = 0; i < per_block && b * per_block + i < used; i++)
			qcow2_refcount_put(buf, q->refcount_order, i, 1);
		ret = file_write(q->fd, buf, q->cluster, table[q->reftable_size + b]);
	}
	for (uint64_t c = 0; ret == 0 && c < g->table_clusters; c++) {
		for (uint64_t i = 0; i < q->cluster / 8; i++)
			put_be64(buf + i * 8, table[c * (q->cluster / 8) + i]);
		ret = file_write(q->fd, buf, q->cluster, (g->start + c) << q->cluster_bits);
	}
	free(buf);
	return ret;
}

/* The header names the new table, in one write of 12 bytes inside one sector. */
static int growth_switch(struct qcow2 *q, const struct growth *g)
{
	uint8_t field[12];
	int ret = qcow2_sync(q);

	put_be64(field, g->start << q->cluster_bits);
	put_be32(field + 8, (uint32_t)g->table_clusters);
	if (ret == 0)
		ret = file_write(q->fd, field, sizeof(field), QCOW2_AT_REFTABLE);
	return ret == 0 ? qcow2_sync(q) : ret;
}

static int reftable_grow(struct qcow2 *q)
{
	uint64_t old = q->reftable_offset >> q->cluster_bits, old_clusters = (q->reftable_size * 8ull) >> q->cluster_bits;
	uint64_t *table = NULL;
	uint16_t *slot_of = NULL;
	struct growth g;
	int ret = growth_plan(q, &g);

	if (ret == 0) {
		table = calloc(g.entries, sizeof(*table));
		slot_of = calloc(g.entries, sizeof(*slot_of));
		ret = table && slot_of ? 0 : -ENOMEM;
	}
	if (ret == 0) {
		memcpy(table, q->reftable, q->reftable_size * sizeof(*table));
		memcpy(slot_of, q->ref.slot_of, q->reftable_size * sizeof(*slot_of));
		for (uint64_t b = 0; b < g.blocks; b++)
			table[q->reftable_size + b] = (g.start + g.table_clusters + b) << q->cluster_bits;
		/* The new table may name blocks that the old one on the medium does not name yet. */
		ret = table_cache_write(&q->ref, q->fd);
	}
	if (ret == 0)
		ret = growth_write(q, &g, table);
	if (ret == 0)
		ret = growth_switch(q, &g);
	if (ret < 0) {
		free(table);
		free(slot_of);
		return ret;
	}
	free(q->reftable);
	free(q->ref.slot_of);
	q->reftable = table;
	q->ref.slot_of = slot_of;
	q->reftable_size = (uint32_t)g.entries;
	q->reftable_from = q->reftable_to = 0;
	q->reftable_offset = g.start << q->cluster_bits;
	set_end(q, (g.start + g.table_clusters + g.blocks) << q->cluster_bits);
	return qcow2_release(q, old, old_clusters);
}

/* A block for the range that `cluster` is in, which has none. */
static int block_create(struct qcow2 *q, uint64_t cluster, struct table_slot **s)
{
	uint64_t index = cluster >> q->refblock_bits, place = index << q->refblock_bits;
	int ret = 0;

	if (cluster >= FILE_MAX >> q->cluster_bits)
		return -EFBIG;
	if (index >= q->reftable_size) {
		ret = reftable_grow(q);
		if (ret < 0)
			return ret;
		ret = block_load(q, cluster, s);
		if (ret < 0 || *s)
			return ret;
	}
	/* A damaged image may count its own tables as free. */
	if (qcow2_is_metadata(q, place << q->cluster_bits, q->cluster))
		return -EIO;
	ret = ref_slot_free(q, s);
	if (ret < 0)
		return ret;
	memset((*s)->data, 0, q->cluster);
	table_cache_assign(&q->ref, *s, (uint32_t)index, place << q->cluster_bits);
	table_dirty(*s, 0, (uint32_t)q->cluster);
	set_count(q, *s, 0, 1);
	set_end(q, (place + 1) << q->cluster_bits);
	q->reftable[index] = place << q->cluster_bits;
	if (q->reftable_from == q->reftable_to) {
		q->reftable_from = (uint32_t)index;
		q->reftable_to = (uint32_t)index + 1;
	} else {
		q->reftable_from = index < q->reftable_from ? (uint32_t)index : q->reftable_from;
		q->reftable_to = index >= q->reftable_to ? (uint32_t)index + 1 : q->reftable_to;
	}
	return 0;
}

/* --- counting ---------------------------------------------------------------------------------------------------------------- */

int qcow2_refcount_add(struct qcow2 *q, uint64_t first, uint64_t n, int delta)
{
	for (uint64_t c = first; c < first + n; c++) {
		uint64_t i = c & (BIT(q->refblock_bits) - 1), v;
		struct table_slot *s;
		int ret = block_load(q, c, &s);

		if (ret == 0 && !s && delta > 0)
			ret = block_create(q, c, &s);
		if (ret < 0)
			return ret;
		v = s ? qcow2_refcount_at(s->data, q->refcount_order, i) : 0;
		if (delta > 0 ? v == refcount_max(q) : v == 0)
			return -ERANGE;
		v = delta > 0 ? v + 1 : v - 1;
		set_count(q, s, i, v);
		if (v == 0 && c < q->hint)
			q->hint = c;
	}
	return 0;
}

int qcow2_refcount_set(struct qcow2 *q, uint64_t cluster, uint64_t count)
{
	struct table_slot *s;
	int ret = block_load(q, cluster, &s);

	if (ret == 0 && !s)
		ret = -ENOENT;
	if (ret == 0)
		set_count(q, s, cluster & (BIT(q->refblock_bits) - 1), count);
	return ret;
}

/* The first free cluster from q->hint on, which moves there. */
static int find_free(struct qcow2 *q)
{
	uint64_t limit = (q->end >> q->cluster_bits) + LEAKED_MAX, count;

	for (; q->hint < limit; q->hint++) {
		int ret = qcow2_refcount_get(q, q->hint, &count);

		if (ret < 0)
			return ret;
		if (count == 0)
			return 0;
	}
	return -EIO;
}

int qcow2_alloc(struct qcow2 *q, uint64_t n, uint64_t *first, uint64_t *got, bool *fresh)
{
	uint64_t count = 0;
	struct table_slot *s;
	int ret = q->sync_error;

	/* A block that has to be made takes the first cluster of its range: so make it before looking what is free. */
	do {
		if (ret == 0)
			ret = find_free(q);
		if (ret == 0)
			ret = block_load(q, q->hint, &s);
		if (ret == 0 && !s)
			ret = block_create(q, q->hint, &s);
		if (ret == 0)
			ret = qcow2_refcount_get(q, q->hint, &count);
	} while (ret == 0 && count != 0);
	if (ret < 0)
		return ret;
	*first = q->hint;
	/* Not across the end of the block: one that is missing there would be made in the middle of the run. */
	for (*got = 1; *got < n && ((*first + *got) & (BIT(q->refblock_bits) - 1)); ++*got) {
		ret = qcow2_refcount_get(q, *first + *got, &count);
		if (ret < 0)
			return ret;
		if (count)
			break;
	}
	/* A count of zero for the image's own tables: it is damaged, and must not get worse. */
	if (qcow2_is_metadata(q, *first << q->cluster_bits, *got << q->cluster_bits))
		return -EIO;
	ret = qcow2_refcount_add(q, *first, *got, 1);
	if (ret < 0)
		return ret;
	*fresh = *first << q->cluster_bits >= q->end;
	q->hint = *first + *got;
	set_end(q, q->hint << q->cluster_bits);
	return 0;
}

int qcow2_refcount_flush(struct qcow2 *q)
{
	int ret = table_cache_write(&q->ref, q->fd);

	if (ret < 0 || q->reftable_from == q->reftable_to)
		return ret;
	ret = qcow2_sync(q);
	while (ret == 0 && q->reftable_from < q->reftable_to) {
		uint8_t entry[8];

		put_be64(entry, q->reftable[q->reftable_from]);
		ret = file_write(q->fd, entry, sizeof(entry), q->reftable_offset + q->reftable_from * 8ull);
		if (ret == 0)
			q->reftable_from++;
	}
	if (ret == 0)
		q->reftable_from = q->reftable_to = 0;
	return ret;
}
