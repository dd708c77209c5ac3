/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Changing qcow2 images: writing where nothing is yet, copy on write, zeroing, discarding.
 *
 * Invariant: a new cluster's data are in the file, whole, before an L2 entry in memory names it; so the fast path never sees a half
 * of one, and a commit never writes an entry for one. A replaced cluster is released after its entry is gone.
 * Locking: slow calls only. Other transfers may be in flight on clusters that had a place before.
 */
#include <errno.h>

#include "host/block/qcow2_private.h"

/* A part of a write, within one L2 table. */
struct part {
	struct qcow2 *q;
	struct table_slot *table;
	uint32_t index;              /* of the first cluster in the table */
	uint64_t offset;             /* on the disk */
	const uint8_t *buf;
	size_t bytes;
};

static uint64_t inside(const struct qcow2 *q, uint64_t offset)
{
	return offset & (q->cluster - 1);
}

/* The entry is no longer in the table: gives up what it named. */
static int release_entry(struct qcow2 *q, uint64_t entry)
{
	uint64_t offset, bytes;

	switch (qcow2_kind(q, entry, &offset)) {
	case CLUSTER_DATA:
	case CLUSTER_ZERO:
		return offset ? qcow2_release(q, offset >> q->cluster_bits, 1) : 0;
	case CLUSTER_PACKED:
		qcow2_packed_range(q, entry, &offset, &bytes);
		return qcow2_release(q, offset >> q->cluster_bits,
				     ((offset + bytes - 1) >> q->cluster_bits) - (offset >> q->cluster_bits) + 1);
	default:
		return 0;
	}
}

/* Bytes of p from `at` on that are part of one cluster, which so far was elsewhere or nowhere: with the rest of it to `place`. */
static int write_around(struct part *p, uint64_t at, size_t bytes, uint64_t place, bool fresh)
{
	struct qcow2 *q = p->q;
	uint64_t offset = p->offset + at, start = offset & ~(q->cluster - 1), old_offset;
	uint32_t i = p->index + (uint32_t)((inside(q, p->offset) + at) >> q->cluster_bits);
	enum cluster_kind kind = qcow2_kind(q, qcow2_l2_get(p->table, i), &old_offset);
	const uint8_t *buf = p->buf + at;
	int ret;

	if (kind == CLUSTER_BAD)
		return -EIO;
	/* What was never written reads as zeroes already. */
	if (fresh && (kind == CLUSTER_ZERO || (kind == CLUSTER_NONE && !q->below)))
		return file_write(q->fd, buf, bytes, place + inside(q, offset));
	ret = qcow2_read(&q->node, q->cow, q->cluster, start);
	memcpy(q->cow + inside(q, offset), buf, bytes);
	return ret == 0 ? file_write(q->fd, q->cow, q->cluster, place) : ret;
}

/* The data of p into n clusters at `place`. */
static int write_clusters(struct part *p, uint32_t n, uint64_t place, bool fresh)
{
	struct qcow2 *q = p->q;
	uint64_t end = ((uint64_t)n << q->cluster_bits) - inside(q, p->offset), at = 0;
	int ret = 0;

	if (end > p->bytes)
		end = p->bytes;
	while (ret == 0 && at < end) {
		uint64_t skip = inside(q, p->offset + at), whole = (end - at) & ~(q->cluster - 1), len = whole;

		if (skip || !whole) {
			len = q->cluster - skip < end - at ? q->cluster - skip : end - at;
			ret = write_around(p, at, len, place, fresh);
			place += q->cluster;
		} else {
			ret = file_write(q->fd, p->buf + at, len, place);
			place += len;
		}
		at += len;
	}
	return ret;
}

/* The n clusters are at `place` now. */
static int set_entries(struct part *p, uint32_t n, uint64_t place)
{
	struct qcow2 *q = p->q;
	int ret = 0;

	for (uint32_t i = 0; ret == 0 && i < n; i++, place += q->cluster) {
		uint64_t old = qcow2_l2_get(p->table, p->index + i), old_offset;

		qcow2_l2_set(q, p->table, p->index + i, place | QCOW2_COPIED);
		(void)qcow2_kind(q, old, &old_offset);
		if (old_offset != place || (old & QCOW2_PACKED))
			ret = release_entry(q, old);
	}
	return ret;
}

/* How many of the next clusters have to get a new place; at least the first one does. */
static uint32_t count_new(const struct part *p, uint32_t max)
{
	uint32_t n = 0;

	while (n < max) {
		uint64_t entry = qcow2_l2_get(p->table, p->index + n), offset;
		enum cluster_kind kind = qcow2_kind(p->q, entry, &offset);

		if (kind == CLUSTER_BAD || ((entry & QCOW2_COPIED) && offset))
			break;
		n++;
	}
	return n;
}

/* Writes the first run of p; *done: bytes of it. */
static int write_run(struct part *p, size_t *done)
{
	struct qcow2 *q = p->q;
	uint32_t clusters = (uint32_t)(align_up(inside(q, p->offset) + p->bytes, q->cluster) >> q->cluster_bits), n;
	uint64_t entry = qcow2_l2_get(p->table, p->index), place, first = 0, got = 1;
	enum cluster_kind kind;
	bool fresh = false, reserved;
	int ret;

	n = qcow2_run(q, p->table, p->index, clusters, &kind, &place);
	if (kind == CLUSTER_BAD)
		return -EIO;
	if ((entry & QCOW2_COPIED) && kind == CLUSTER_DATA) {
		*done = ((uint64_t)n << q->cluster_bits) - inside(q, p->offset);
		*done = *done < p->bytes ? *done : p->bytes;
		return file_write(q->fd, p->buf, *done, place + inside(q, p->offset));
	}
	reserved = (entry & QCOW2_COPIED) && place;
	if (!reserved) {
		ret = qcow2_alloc(q, count_new(p, clusters), &first, &got, &fresh);
		if (ret < 0)
			return ret;
		place = first << q->cluster_bits;
	}
	*done = (got << q->cluster_bits) - inside(q, p->offset);
	*done = *done < p->bytes ? *done : p->bytes;
	ret = write_clusters(p, (uint32_t)got, place, fresh);
	if (ret == 0)
		return set_entries(p, (uint32_t)got, place);
	/* Nothing refers to them, on the medium or here. */
	if (!reserved)
		(void)qcow2_refcount_add(q, first, got, -1);
	return ret;
}

int qcow2_write(struct block_node *n, const void *buf, size_t bytes, uint64_t offset)
{
	struct qcow2 *q = to_qcow2(n);
	uint64_t per_table = q->cluster << q->l2_bits;
	int ret = 0;

	while (ret == 0 && bytes) {
		uint64_t left = per_table - (offset & (per_table - 1));
		struct part p = {.q = q, .buf = buf, .offset = offset, .bytes = bytes < left ? bytes : (size_t)left,
				 .index = (uint32_t)(offset >> q->cluster_bits & (BIT(q->l2_bits) - 1))};
		size_t done = 0;

		/* Looked up again for every run: finding old data for a copy may have put the table out of the cache. */
		ret = qcow2_l2_load_writable(q, (uint32_t)(offset >> (q->cluster_bits + q->l2_bits)), &p.table);
		if (ret == 0)
			ret = write_run(&p, &done);
		buf = (const uint8_t *)buf + done;
		offset += done;
		bytes -= done;
	}
	return ret;
}

/* --- zeroing and discarding ---------------------------------------------------------------------------------------------------- */

/* What an entry becomes when its cluster is to read as zeroes. False: this cannot be said in the table. */
static bool zero_entry(const struct qcow2 *q, uint64_t entry, bool unmap, uint64_t *new)
{
	uint64_t offset;
	enum cluster_kind kind = qcow2_kind(q, entry, &offset);

	if (kind == CLUSTER_BAD)
		return false;
	if (q->version < 3) {
		*new = 0;
		return !q->below && (unmap || kind == CLUSTER_NONE);
	}
	if (kind == CLUSTER_NONE && !q->below)
		*new = entry;
	else if (!unmap && offset && (entry & QCOW2_COPIED))
		*new = entry | QCOW2_ZERO;   /* keeps its place */
	else
		*new = QCOW2_ZERO;
	return true;
}

/* One whole cluster. */
static int zero_cluster(struct qcow2 *q, uint64_t offset, bool unmap, bool discard)
{
	uint32_t table = (uint32_t)(offset >> (q->cluster_bits + q->l2_bits));
	uint32_t i = (uint32_t)(offset >> q->cluster_bits & (BIT(q->l2_bits) - 1));
	uint64_t old, new, old_offset, new_offset;
	struct table_slot *s;
	int ret = qcow2_l2_load_writable(q, table, &s);

	if (ret < 0)
		return ret;
	old = qcow2_l2_get(s, i);
	if (!zero_entry(q, old, unmap, &new))
		return discard ? 0 : -EOPNOTSUPP;
	if (new == old)
		return 0;
	qcow2_l2_set(q, s, i, new);
	(void)qcow2_kind(q, old, &old_offset);
	(void)qcow2_kind(q, new, &new_offset);
	return (old & QCOW2_PACKED) || old_offset != new_offset ? release_entry(q, old) : 0;
}

/* Zeroes as data, for parts of clusters and for what cannot be said otherwise. */
static int write_zeroes(struct qcow2 *q, uint64_t bytes, uint64_t offset)
{
	static const uint8_t zeroes[4096];
	int ret = 0;

	while (ret == 0 && bytes) {
		size_t n = bytes < sizeof(zeroes) ? bytes : sizeof(zeroes);

		ret = qcow2_write(&q->node, zeroes, n, offset);
		offset += n;
		bytes -= n;
	}
	return ret;
}

/* Nothing of a table's range is allocated, here or below: it reads as zeroes already. */
static bool table_is_empty(const struct qcow2 *q, uint64_t offset)
{
	return !q->below && !(q->l1[offset >> (q->cluster_bits + q->l2_bits)] & QCOW2_OFFSET_MASK);
}

static int change_clusters(struct qcow2 *q, uint64_t from, uint64_t to, bool unmap, bool discard)
{
	uint64_t per_table = q->cluster << q->l2_bits;
	int ret = 0;

	while (ret == 0 && from < to) {
		if (table_is_empty(q, from)) {
			from = (from & ~(per_table - 1)) + per_table;
			continue;
		}
		ret = zero_cluster(q, from, unmap, discard);
		if (ret == -EOPNOTSUPP)
			ret = write_zeroes(q, to - from < q->cluster ? to - from : q->cluster, from);
		from += q->cluster;
	}
	return ret;
}

int qcow2_zero(struct block_node *n, uint64_t bytes, uint64_t offset, bool unmap)
{
	struct qcow2 *q = to_qcow2(n);
	uint64_t end = offset + bytes, from = align_up(offset, q->cluster), to = end & ~(q->cluster - 1);
	int ret = 0;

	/* The disk's last cluster counts as whole. */
	if (end == n->size)
		to = align_up(end, q->cluster);
	if (from >= to)
		return write_zeroes(q, bytes, offset);
	if (from > offset)
		ret = write_zeroes(q, from - offset, offset);
	if (ret == 0)
		ret = change_clusters(q, from, to, unmap, false);
	if (ret == 0 && end > to)
		ret = write_zeroes(q, end - to, to);
	return ret;
}

int qcow2_discard(struct block_node *n, uint64_t bytes, uint64_t offset)
{
	struct qcow2 *q = to_qcow2(n);
	uint64_t end = offset + bytes, from = align_up(offset, q->cluster), to = end & ~(q->cluster - 1);

	if (end == n->size)
		to = align_up(end, q->cluster);
	/* Version 2 has no way to say that a cluster hides what is below. */
	if (q->version < 3 && q->below)
		return 0;
	return from < to ? change_clusters(q, from, to, true, true) : 0;
}
