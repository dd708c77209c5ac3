/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Checking qcow2 images, and repairing their reference counts.
 *
 * Every reference in the image is counted (header, both kinds of tables, snapshots, data) and compared with what the image says.
 * Too high a count is a leak: space is lost, nothing else. Too low a count is an error: the cluster could be given
 * away while it is in use. Leaks are repaired in place. Errors are repaired by a whole new set of counts behind the end of
 * the file, which the header then names in one write: so a repair that is interrupted has changed nothing.
 *
 * Invariant: the walk reads each L2 table at most once per L1 table, and at most as many as the file can hold; a hostile image
 * costs time in proportion to its size. No locks: nobody else has the image open for writing (lock.c).
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>

#include "host/block/qcow2_private.h"

#define CLUSTERS_MAX (1ull << 28)
#define SNAPSHOT_FIXED 40u
#define SNAPSHOT_BYTES_MAX (1u << 20)

struct check {
	struct qcow2 *q;
	struct qcow2_check *result;
	uint32_t *counts;            /* per cluster: references found */
	uint64_t clusters;
	uint8_t *table;              /* an L2 table */
	uint64_t too_low;            /* clusters whose count is */
	bool fix_flags;
};

static void say(struct check *c, uint64_t *kind, const char *fmt, uint64_t a, uint64_t b)
{
	char text[160];

	++*kind;
	if (!c->result->say)
		return;
	snprintf(text, sizeof(text), fmt, (unsigned long long)a, (unsigned long long)b);
	c->result->say(c->result->opaque, text);
}

/* Counts what [offset, offset + bytes) touches, `by` being 1 or -1. */
static void count(struct check *c, uint64_t offset, uint64_t bytes, int by)
{
	uint64_t first = offset >> c->q->cluster_bits, last;

	if (bytes == 0)
		return;
	if (offset > INT64_MAX || bytes > INT64_MAX || (last = (offset + bytes - 1) >> c->q->cluster_bits) >= c->clusters) {
		say(c, &c->result->corruptions, "%#llx, %llu bytes: beyond the end of the file", offset, bytes);
		return;
	}
	for (uint64_t i = first; i <= last; i++)
		if (by < 0 || c->counts[i] < UINT32_MAX)
			c->counts[i] += (uint32_t)by;
}

static void count_entry(struct check *c, uint64_t entry)
{
	uint64_t offset, bytes;

	switch (qcow2_kind(c->q, entry, &offset)) {
	case CLUSTER_DATA:
	case CLUSTER_ZERO:
		c->result->allocated += offset != 0;
		count(c, offset, offset ? c->q->cluster : 0, 1);
		break;
	case CLUSTER_PACKED:
		c->result->allocated++;
		c->result->compressed++;
		qcow2_packed_range(c->q, entry, &offset, &bytes);
		/* The last sector may lie partly beyond the end. */
		if (offset + bytes > c->q->end)
			bytes = c->q->end - offset;
		count(c, offset, bytes, 1);
		break;
	case CLUSTER_BAD:
		say(c, &c->result->corruptions, "L2 entry %#llx is impossible", entry, 0);
		break;
	case CLUSTER_NONE:
		break;
	}
}

static bool table_is_possible(const struct check *c, uint64_t offset)
{
	return !(offset & (c->q->cluster - 1)) && offset >= c->q->cluster && offset < c->q->end;
}

static int walk_l1(struct check *c, const uint64_t *l1, uint32_t n)
{
	uint64_t tables = 0;

	for (uint32_t i = 0; i < n; i++) {
		uint64_t offset = l1[i] & QCOW2_OFFSET_MASK;
		int ret;

		if (!offset)
			continue;
		if (!table_is_possible(c, offset) || ++tables > c->clusters) {
			say(c, &c->result->corruptions, "L1 entry %llu: %#llx is no place of a table", i, l1[i]);
			continue;
		}
		count(c, offset, c->q->cluster, 1);
		ret = file_read(c->q->fd, c->table, c->q->cluster, offset);
		if (ret < 0)
			return ret;
		for (uint32_t j = 0; j < BIT(c->q->l2_bits); j++)
			count_entry(c, get_be64(c->table + j * 8));
	}
	return 0;
}

static int walk_snapshot(struct check *c, uint64_t l1_offset, uint32_t l1_size)
{
	uint64_t *l1;
	int ret;

	if (l1_size > QCOW2_L1_BYTES_MAX / 8 || l1_offset & (c->q->cluster - 1) || l1_offset >= c->q->end) {
		say(c, &c->result->corruptions, "a snapshot's L1 table at %#llx with %llu entries is impossible", l1_offset, l1_size);
		return 0;
	}
	l1 = malloc(l1_size * 8ull + 1);
	if (!l1)
		return -ENOMEM;
	count(c, l1_offset, l1_size * 8ull, 1);
	ret = file_read(c->q->fd, l1, l1_size * 8ull, l1_offset);
	for (uint32_t i = 0; ret == 0 && i < l1_size; i++)
		l1[i] = be64toh(l1[i]);
	if (ret == 0)
		ret = walk_l1(c, l1, l1_size);
	free(l1);
	return ret;
}

static int walk_snapshots(struct check *c)
{
	uint64_t at = c->q->header.snapshots_offset;
	int ret = 0;

	for (uint32_t i = 0; ret == 0 && i < c->q->header.nsnapshots; i++) {
		uint8_t fixed[SNAPSHOT_FIXED];
		uint64_t bytes;

		if (at >= c->q->end) {
			say(c, &c->result->corruptions, "snapshot %llu is not in the file", i, 0);
			return 0;
		}
		ret = file_read(c->q->fd, fixed, sizeof(fixed), at);
		if (ret < 0)
			return ret;
		ret = walk_snapshot(c, get_be64(fixed), get_be32(fixed + 8));
		bytes = SNAPSHOT_FIXED + (uint64_t)get_be32(fixed + 36) + (fixed[12] << 8 | fixed[13]) + (fixed[14] << 8 | fixed[15]);
		if (bytes > SNAPSHOT_BYTES_MAX) {
			say(c, &c->result->corruptions, "snapshot %llu is described by %llu bytes", i, bytes);
			return 0;
		}
		at += align_up(bytes, 8);
	}
	count(c, c->q->header.snapshots_offset, at - c->q->header.snapshots_offset, 1);
	return ret;
}

/* The counts themselves; by = -1 takes them out again. */
static void count_refcounts(struct check *c, int by)
{
	count(c, c->q->reftable_offset, c->q->reftable_size * 8ull, by);
	for (uint32_t i = 0; i < c->q->reftable_size; i++) {
		uint64_t offset = c->q->reftable[i] & ~511ull;

		if (offset && table_is_possible(c, offset)) {
			count(c, offset, c->q->cluster, by);
		} else if (offset && by > 0) {
			say(c, &c->result->corruptions, "refcount block %llu: %#llx is no place of a table", i, offset);
			c->too_low++;
			c->q->reftable[i] = 0;
		}
	}
}

static int count_all(struct check *c)
{
	int ret;

	count(c, 0, c->q->cluster, 1);
	count(c, c->q->l1_offset, c->q->header.l1_size * 8ull, 1);
	ret = walk_l1(c, c->q->l1, c->q->l1_size);
	if (ret == 0)
		ret = walk_snapshots(c);
	if (ret == 0)
		count_refcounts(c, 1);
	return ret;
}

/* Says what differs. With `repair` lowers what is too high. */
static int compare(struct check *c, bool repair)
{
	struct qcow2 *q = c->q;
	int ret = 0;

	for (uint64_t i = 0; ret == 0 && i < c->clusters; i++) {
		uint64_t have, want = c->counts[i];

		ret = qcow2_refcount_get(q, i, &have);
		if (ret < 0 || have == want)
			continue;
		if (have < want) {
			c->too_low++;
			say(c, &c->result->corruptions, "cluster %llu is counted too low, it has %llu references", i, want);
			continue;
		}
		say(c, &c->result->leaks, "cluster %llu is leaked, it has %llu references", i, want);
		if (repair)
			ret = qcow2_refcount_set(q, i, want);
	}
	return ret;
}

/* One table's flags: an entry says "exactly one reference" if and only if the image counts one. */
static int check_flags(struct check *c, uint8_t *entries, uint32_t n, uint64_t place)
{
	for (uint32_t i = 0; i < n; i++) {
		uint64_t entry = get_be64(entries + i * 8), offset = entry & QCOW2_OFFSET_MASK, want;
		bool copied = entry & QCOW2_COPIED;
		int ret;

		if (!offset || (entry & QCOW2_PACKED) || offset >= c->q->end)
			continue;
		want = c->counts[offset >> c->q->cluster_bits];
		if (copied == (want == 1))
			continue;
		say(c, &c->result->corruptions, "the entry %#llx at %#llx has the wrong copied flag", entry, place + i * 8);
		if (!c->fix_flags)
			continue;
		put_be64(entries + i * 8, entry ^ QCOW2_COPIED);
		ret = file_write(c->q->fd, entries + i * 8, 8, place + i * 8);
		if (ret < 0)
			return ret;
	}
	return 0;
}

static int check_all_flags(struct check *c)
{
	struct qcow2 *q = c->q;
	int ret = 0;

	for (uint32_t i = 0; ret == 0 && i < q->l1_size; i++) {
		uint64_t offset = q->l1[i] & QCOW2_OFFSET_MASK;
		uint8_t entry[8];

		if (!offset || !table_is_possible(c, offset))
			continue;
		put_be64(entry, q->l1[i]);
		ret = check_flags(c, entry, 1, q->l1_offset + i * 8ull);
		if (ret == 0)
			ret = file_read(q->fd, c->table, q->cluster, offset);
		if (ret == 0)
			ret = check_flags(c, c->table, (uint32_t)BIT(q->l2_bits), offset);
	}
	return ret;
}

/* --- repair ------------------------------------------------------------------------------------------------------------------ */

/* Refcount of cluster i once the new counts, of `extra` clusters, are there. */
static uint64_t final_count(const struct check *c, uint64_t i, uint64_t extra)
{
	return i < c->clusters ? c->counts[i] : i < c->clusters + extra ? 1 : 0;
}

static int write_counts(struct check *c, uint64_t tables, uint64_t blocks)
{
	struct qcow2 *q = c->q;
	uint64_t per_block = BIT(q->refblock_bits), max = q->refcount_order == 6 ? UINT64_MAX : BIT(1u << q->refcount_order) - 1;
	int ret = 0;

	for (uint64_t b = 0; ret == 0 && b < blocks; b++) {
		uint64_t place = (c->clusters + tables + b) << q->cluster_bits;
		uint8_t entry[8];

		memset(c->table, 0, q->cluster);
		for (uint64_t i = 0; i < per_block; i++) {
			uint64_t n = final_count(c, b * per_block + i, tables + blocks);

			if (n > max)
				return -ERANGE;
			qcow2_refcount_put(c->table, q->refcount_order, i, n);
		}
		ret = file_write(q->fd, c->table, q->cluster, place);
		put_be64(entry, place);
		if (ret == 0)
			ret = file_write(q->fd, entry, sizeof(entry), (c->clusters << q->cluster_bits) + b * 8);
	}
	return ret;
}

static int rebuild(struct check *c)
{
	struct qcow2 *q = c->q;
	uint64_t tables = 1, blocks = 1, start = c->clusters << q->cluster_bits;
	uint8_t field[12];
	int ret;

	count_refcounts(c, -1);
	for (;;) {
		if (blocks << q->refblock_bits < c->clusters + tables + blocks)
			blocks++;
		else if (tables << q->cluster_bits < blocks * 8)
			tables++;
		else
			break;
	}
	if (tables << q->cluster_bits > QCOW2_REFTABLE_BYTES_MAX)
		return -EFBIG;
	ret = file_zero(q->fd, tables << q->cluster_bits, start, false);
	if (ret == 0)
		ret = write_counts(c, tables, blocks);
	if (ret == 0)
		ret = file_sync(q->fd);
	put_be64(field, start);
	put_be32(field + 8, (uint32_t)tables);
	if (ret == 0)
		ret = file_write(q->fd, field, sizeof(field), QCOW2_AT_REFTABLE);
	return ret == 0 ? file_sync(q->fd) : ret;
}

static int clear_marks(struct qcow2 *q)
{
	uint8_t field[8];

	if (q->version < 3 || !(q->header.incompatible & (QCOW2_DIRTY | QCOW2_CORRUPT)))
		return 0;
	put_be64(field, q->header.incompatible & ~(QCOW2_DIRTY | QCOW2_CORRUPT));
	return file_write(q->fd, field, sizeof(field), QCOW2_AT_INCOMPATIBLE);
}

static int run_check(struct check *c, enum qcow2_repair repair)
{
	uint64_t impossible;
	int ret = count_all(c);

	impossible = c->result->corruptions;
	if (ret == 0)
		ret = compare(c, repair != QCOW2_REPAIR_NONE);
	c->fix_flags = repair == QCOW2_REPAIR_ALL;
	if (ret == 0)
		ret = check_all_flags(c);
	if (ret == 0 && c->too_low && c->fix_flags)
		ret = rebuild(c);
	/* Marks stay while there is something that cannot be repaired. */
	if (ret == 0 && c->fix_flags && impossible == 0)
		ret = clear_marks(c->q);
	return ret;
}

int qcow2_check(const struct block_file *file, enum qcow2_repair repair, struct qcow2_check *result, struct block_error *err)
{
	/* Tables are read once, in order: caching them is of no use. */
	unsigned flags = BLOCK_TINY_CACHE | BLOCK_REPAIR | BLOCK_NO_BACKING | (repair == QCOW2_REPAIR_NONE ? BLOCK_RDONLY : 0);
	struct check c = {.result = result};
	struct block_node *n;
	size_t bytes;
	int ret = qcow2_open(&n, file, NULL, flags, err), closed;

	if (ret < 0)
		return ret;
	n->read_only = repair == QCOW2_REPAIR_NONE;
	c.q = to_qcow2(n);
	c.clusters = c.q->end >> c.q->cluster_bits;
	result->total = align_up(n->size, c.q->cluster) >> c.q->cluster_bits;
	bytes = (c.clusters + 1) * sizeof(*c.counts);
	c.table = malloc(c.q->cluster);
	c.counts = c.clusters > CLUSTERS_MAX ? MAP_FAILED : mmap(NULL, bytes, PROT_READ | PROT_WRITE,
								   MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (c.q->header.autoclear & QCOW2_BITMAPS)
		ret = block_fail(err, -ENOTSUP, "it has persistent bitmaps, whose clusters doppel does not count; use qemu-img check");
	else if (!c.table || c.counts == MAP_FAILED)
		ret = block_fail(err, -ENOMEM, "not enough memory to count its clusters; use qemu-img check");
	else if ((ret = run_check(&c, repair)) < 0)
		block_fail(err, ret, "cannot be checked to the end: %s", strerror(-ret));
	if (c.counts != MAP_FAILED)
		munmap(c.counts, bytes);
	free(c.table);
	closed = n->ops->close(n);
	return ret < 0 ? ret : closed < 0 ? block_fail(err, closed, "cannot be written: %s", strerror(-closed)) : 0;
}
