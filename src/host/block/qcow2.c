/* SPDX-License-Identifier: Apache-2.0 */
/*
 * qcow2 images as disks: opening, and finding out where a range is.
 *
 * Everything the image says is checked when it is used: an offset must be aligned and inside the file, or the access fails
 * with EIO. What the image could do by lying beyond that is to show its own guest wrong data.
 * Locking: qcow2_private.h. Specification: docs/interop/qcow2.txt of QEMU.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "host/block/qcow2_private.h"

#define KNOWN_INCOMPATIBLE (QCOW2_DIRTY | QCOW2_CORRUPT | QCOW2_DATA_FILE | QCOW2_COMPRESSION | QCOW2_EXTENDED_L2)

bool qcow2_is_metadata(const struct qcow2 *q, uint64_t offset, uint64_t bytes)
{
	uint64_t end = offset + bytes;

	return offset < q->cluster || (offset < q->l1_offset + q->l1_size * 8ull && end > q->l1_offset) ||
	       (offset < q->reftable_offset + q->reftable_size * 8ull && end > q->reftable_offset);
}

enum cluster_kind qcow2_kind(const struct qcow2 *q, uint64_t entry, uint64_t *offset)
{
	bool zero = entry & QCOW2_ZERO;

	*offset = 0;
	if (entry & QCOW2_PACKED) {
		uint64_t at, bytes;

		qcow2_packed_range(q, entry, &at, &bytes);
		return at < q->cluster || at >= q->end ? CLUSTER_BAD : CLUSTER_PACKED;
	}
	if (zero && q->version < 3)
		return CLUSTER_BAD;
	*offset = entry & QCOW2_OFFSET_MASK;
	if (*offset & (q->cluster - 1) || (*offset && (*offset >= q->end || qcow2_is_metadata(q, *offset, q->cluster))))
		return CLUSTER_BAD;
	if (zero)
		return CLUSTER_ZERO;
	return *offset ? CLUSTER_DATA : CLUSTER_NONE;
}

uint32_t qcow2_run(const struct qcow2 *q, const struct table_slot *s, uint32_t i, uint32_t max, enum cluster_kind *kind,
		   uint64_t *offset)
{
	uint64_t entry = qcow2_l2_get(s, i), copied = entry & QCOW2_COPIED, next;
	uint32_t n = 1;

	*kind = qcow2_kind(q, entry, offset);
	if (*kind == CLUSTER_PACKED || *kind == CLUSTER_BAD)
		return 1;
	for (; n < max; n++) {
		entry = qcow2_l2_get(s, i + n);
		if (qcow2_kind(q, entry, &next) != *kind || (entry & QCOW2_COPIED) != copied)
			break;
		if (*kind == CLUSTER_DATA && next != *offset + ((uint64_t)n << q->cluster_bits))
			break;
	}
	return n;
}

/* --- where a range is -------------------------------------------------------------------------------------------------------- */

/* A range of the disk, cut to one L2 table. */
struct span {
	uint32_t table, first, clusters;   /* L1 index; L2 index; clusters touched */
	uint64_t bytes, inside;            /* bytes; offset in the first cluster */
};

static struct span span_at(const struct qcow2 *q, uint64_t offset, uint64_t bytes)
{
	uint64_t per_table = q->cluster << q->l2_bits, left = per_table - (offset & (per_table - 1));
	struct span sp = {
		.table = (uint32_t)(offset >> (q->cluster_bits + q->l2_bits)),
		.first = (uint32_t)(offset >> q->cluster_bits & (BIT(q->l2_bits) - 1)),
		.bytes = bytes < left ? bytes : left,
		.inside = offset & (q->cluster - 1),
	};

	sp.clusters = (uint32_t)(align_up(sp.inside + sp.bytes, q->cluster) >> q->cluster_bits);
	return sp;
}

/* Of a table that is in memory. */
static void classify(const struct qcow2 *q, const struct table_slot *s, const struct span *sp, bool write, struct block_extent *e)
{
	static const enum extent_kind meaning[] = {
		[CLUSTER_NONE] = EXTENT_BELOW, [CLUSTER_DATA] = EXTENT_DATA, [CLUSTER_ZERO] = EXTENT_ZERO,
		[CLUSTER_PACKED] = EXTENT_SLOW, [CLUSTER_BAD] = EXTENT_SLOW,
	};
	enum cluster_kind kind;
	uint64_t offset, have;
	uint32_t n = qcow2_run(q, s, sp->first, sp->clusters, &kind, &offset);

	have = ((uint64_t)n << q->cluster_bits) - sp->inside;
	*e = (struct block_extent){.kind = meaning[kind], .bytes = have < sp->bytes ? have : sp->bytes};
	if (kind == CLUSTER_DATA)
		e->offset = offset + sp->inside;
	/* Data of which somebody else has a reference are replaced, not changed. */
	if (write && (kind != CLUSTER_DATA || !(qcow2_l2_get(s, sp->first) & QCOW2_COPIED))) {
		e->kind = EXTENT_SLOW;
		e->bytes = sp->bytes;
	}
}

static void qcow2_map(struct block_node *n, uint64_t offset, uint64_t bytes, bool write, struct block_extent *e)
{
	struct qcow2 *q = to_qcow2(n);
	struct span sp = span_at(q, offset, bytes);
	struct table_slot *s;

	*e = (struct block_extent){.kind = EXTENT_SLOW, .bytes = sp.bytes};
	pthread_mutex_lock(&q->map);
	s = table_cache_find(&q->l2, sp.table);
	if (s)
		classify(q, s, &sp, write, e);
	else if (!q->l1[sp.table] && !write)
		e->kind = EXTENT_BELOW;
	else if (!write && e->bytes > q->cluster - sp.inside)
		e->bytes = q->cluster - sp.inside; /* enough to get the table; the rest then goes the fast way */
	if (e->kind == EXTENT_DATA && !n->read_only) {
		q->pins[q->epoch]++;
		e->pin = q->epoch + 1;
	}
	pthread_mutex_unlock(&q->map);
}

static void qcow2_unpin(struct block_node *n, unsigned pin)
{
	struct qcow2 *q = to_qcow2(n);

	pthread_mutex_lock(&q->map);
	if (--q->pins[pin - 1] == 0)
		pthread_cond_broadcast(&q->quiet);
	pthread_mutex_unlock(&q->map);
}

/* The first run of a range, with the table loaded. *entry: of its first cluster. */
static int look_up(struct qcow2 *q, uint64_t offset, uint64_t bytes, struct block_extent *e, uint64_t *entry)
{
	struct span sp = span_at(q, offset, bytes);
	struct table_slot *s;
	uint64_t unused;
	int ret = qcow2_l2_load(q, sp.table, &s);

	*entry = 0;
	*e = (struct block_extent){.kind = EXTENT_BELOW, .bytes = sp.bytes};
	if (ret < 0 || !s)
		return ret;
	classify(q, s, &sp, false, e);
	*entry = qcow2_l2_get(s, sp.first);
	return e->kind == EXTENT_SLOW && qcow2_kind(q, *entry, &unused) == CLUSTER_BAD ? -EIO : 0;
}

int qcow2_read(struct block_node *n, void *buf, size_t bytes, uint64_t offset)
{
	struct qcow2 *q = to_qcow2(n);
	struct block_extent e;
	uint64_t entry;
	int ret = 0;

	while (ret == 0 && bytes) {
		ret = look_up(q, offset, bytes, &e, &entry);
		if (ret < 0)
			break;
		switch (e.kind) {
		case EXTENT_DATA:
			ret = file_read(q->fd, buf, e.bytes, e.offset);
			break;
		case EXTENT_ZERO:
			memset(buf, 0, e.bytes);
			break;
		case EXTENT_BELOW:
			ret = block_node_read(q->below, buf, e.bytes, offset);
			break;
		case EXTENT_SLOW:
			ret = qcow2_unpack(q, entry);
			if (ret == 0)
				memcpy(buf, q->plain + (offset & (q->cluster - 1)), e.bytes);
			break;
		}
		buf = (uint8_t *)buf + e.bytes;
		offset += e.bytes;
		bytes -= e.bytes;
	}
	return ret;
}

static int qcow2_status(struct block_node *n, uint64_t offset, uint64_t bytes, struct block_extent *e)
{
	uint64_t entry;
	int ret = look_up(to_qcow2(n), offset, bytes, e, &entry);

	if (ret == 0 && e->kind == EXTENT_SLOW)
		e->kind = EXTENT_DATA;
	return ret;
}

static int qcow2_flush(struct block_node *n)
{
	return qcow2_commit(to_qcow2(n));
}

/* --- opening ------------------------------------------------------------------------------------------------------------------- */

static int refuse_features(const struct qcow2_header *h, unsigned flags, struct block_error *err)
{
	uint64_t unknown = h->incompatible & ~KNOWN_INCOMPATIBLE;
	bool write = !(flags & BLOCK_RDONLY), repair = flags & BLOCK_REPAIR;
	char bit[16];

	snprintf(bit, sizeof(bit), "bit %d", unknown ? __builtin_ctzll(unknown) : 0);
	if (h->crypt_method)
		return block_fail(err, -ENOTSUP, "it is encrypted; decrypt it with qemu-img convert");
	if (unknown)
		return block_fail(err, -ENOTSUP, "it uses the feature '%.47s', which doppel does not know; convert it with qemu-img",
				  h->unknown_feature[0] ? h->unknown_feature : bit);
	if (h->incompatible & QCOW2_DATA_FILE)
		return block_fail(err, -ENOTSUP, "its data are in an external file; convert it with qemu-img convert");
	if (h->incompatible & QCOW2_EXTENDED_L2)
		return block_fail(err, -ENOTSUP, "it has extended L2 entries; convert it with qemu-img convert");
	if (h->compression > QCOW2_ZSTD || (h->compression != QCOW2_ZLIB) != !!(h->incompatible & QCOW2_COMPRESSION))
		return block_fail(err, -ENOTSUP, "its compression type %u is unknown; convert it with qemu-img convert", h->compression);
	if (write && !repair && (h->incompatible & (QCOW2_DIRTY | QCOW2_CORRUPT)))
		return block_fail(err, -EUCLEAN, "it is marked %s; doppel image check --repair all puts it right, or open it read-only",
				  h->incompatible & QCOW2_CORRUPT ? "corrupt" : "as not closed properly");
	return 0;
}

static const char *check_places(const struct qcow2 *q, const struct qcow2_header *h, bool counts)
{
	uint64_t mask = q->cluster - 1, need = align_up(h->size, q->cluster << q->l2_bits) >> (q->cluster_bits + q->l2_bits);

	if (h->size == 0)
		return "its size is 0; make it larger with qemu-img resize";
	if (h->l1_size < need)
		return "its first-level table is too small for its size; it is damaged";
	if (h->l1_offset == 0 || h->l1_offset & mask || h->l1_offset >= q->end || h->l1_size * 8ull > q->end - h->l1_offset)
		return "its first-level table is not inside the file; it is damaged";
	if (h->reftable_offset == 0 || h->reftable_offset & mask || h->reftable_offset >= q->end ||
	    (uint64_t)h->reftable_clusters << q->cluster_bits > q->end - h->reftable_offset)
		return "its reference count table is not inside the file; it is damaged";
	if (counts && h->reftable_clusters == 0)
		return "it has no reference counts; it is damaged";
	return NULL;
}

static int load_table(int fd, uint64_t *table, uint32_t n, uint64_t offset)
{
	int ret = file_read(fd, table, n * 8ull, offset);

	for (uint32_t i = 0; ret == 0 && i < n; i++)
		table[i] = be64toh(table[i]);
	return ret;
}

/* counts: reference counts are wanted, for writing or for checking. */
static int allocate(struct qcow2 *q, bool counts, bool tiny)
{
	int ret = table_cache_init(&q->l2, (uint32_t)q->cluster, tiny ? 0 : L2_CACHE_BYTES, q->l1_size);

	q->l1 = calloc(q->l1_size, sizeof(*q->l1));
	q->packed = malloc(2 * q->cluster);
	q->plain = malloc(q->cluster);
	if (ret < 0 || !q->l1 || !q->packed || !q->plain)
		return -ENOMEM;
	ret = qcow2_codec_create(q);
	if (ret < 0 || !counts)
		return ret;
	q->reftable = calloc(q->reftable_size, sizeof(*q->reftable));
	q->pending = calloc(PENDING_MAX, sizeof(*q->pending));
	q->cow = malloc(q->cluster);
	if (!q->reftable || !q->pending || !q->cow)
		return -ENOMEM;
	return table_cache_init(&q->ref, (uint32_t)q->cluster, tiny ? 0 : REF_CACHE_BYTES, q->reftable_size);
}

static int load(struct qcow2 *q, const struct qcow2_header *h, unsigned flags)
{
	bool write = !(flags & BLOCK_RDONLY), counts = write || (flags & BLOCK_REPAIR);
	uint8_t none[8] = {0};
	int ret;

	q->l1_size = (uint32_t)(align_up(h->size, q->cluster << q->l2_bits) >> (q->cluster_bits + q->l2_bits));
	q->l1_offset = h->l1_offset;
	q->reftable_offset = h->reftable_offset;
	q->reftable_size = (uint32_t)((uint64_t)h->reftable_clusters << q->cluster_bits >> 3);
	ret = allocate(q, counts, flags & BLOCK_TINY_CACHE);
	if (ret == 0)
		ret = load_table(q->fd, q->l1, q->l1_size, q->l1_offset);
	if (ret == 0 && counts)
		ret = load_table(q->fd, q->reftable, q->reftable_size, q->reftable_offset);
	/* Of these bits the format says: whoever writes without knowing one clears it. We know none. */
	if (ret == 0 && write && h->autoclear)
		ret = file_write(q->fd, none, sizeof(none), QCOW2_AT_AUTOCLEAR);
	return ret;
}

static void qcow2_free(struct qcow2 *q)
{
	table_cache_fini(&q->l2);
	table_cache_fini(&q->ref);
	qcow2_codec_destroy(q);
	free(q->l1);
	free(q->reftable);
	free(q->pending);
	free(q->cow);
	free(q->packed);
	free(q->plain);
	pthread_mutex_destroy(&q->map);
	pthread_cond_destroy(&q->quiet);
	free(q);
}

static int qcow2_close(struct block_node *n)
{
	struct qcow2 *q = to_qcow2(n);
	int ret = 0;

	/* Twice: the first makes it safe to lower counts, the second writes the lowered ones. */
	for (int i = 0; ret == 0 && i < 2 && !n->read_only && n->dirty; i++)
		ret = qcow2_commit(q);
	qcow2_free(q);
	return ret;
}

const struct block_ops qcow2_ops = {
	.map = qcow2_map,
	.unpin = qcow2_unpin,
	.read = qcow2_read,
	.write = qcow2_write,
	.write_packed = qcow2_write_packed,
	.zero = qcow2_zero,
	.discard = qcow2_discard,
	.flush = qcow2_flush,
	.status = qcow2_status,
	.close = qcow2_close,
};

static struct qcow2 *qcow2_new(int fd, const struct qcow2_header *h, struct block_node *below)
{
	struct qcow2 *q = calloc(1, sizeof(*q));

	if (!q)
		return NULL;
	q->node.ops = &qcow2_ops;
	q->node.size = align_up(h->size, BLOCK_SECTOR);
	q->fd = fd;
	q->below = below;
	q->header = *h;
	q->version = h->version;
	q->compression = h->compression;
	q->cluster_bits = h->cluster_bits;
	q->cluster = 1ull << h->cluster_bits;
	q->l2_bits = h->cluster_bits - 3;
	q->refcount_order = h->refcount_order;
	q->refblock_bits = h->cluster_bits + 3 - h->refcount_order;
	q->hint = 1;
	pthread_mutex_init(&q->map, NULL);
	pthread_cond_init(&q->quiet, NULL);
	return q;
}

int qcow2_open(struct block_node **out, const struct block_file *file, struct block_node *below, unsigned flags,
	       struct block_error *err)
{
	struct qcow2_header h;
	const char *wrong;
	struct qcow2 *q;
	uint64_t end;
	int ret = qcow2_header_read(file->fd, &h, err);

	if (ret == 0)
		ret = refuse_features(&h, flags, err);
	if (ret < 0)
		return ret;
	if (!!h.backing[0] != !!below && !(flags & BLOCK_NO_BACKING))
		return block_fail(err, -EINVAL, "%s", below ? "it has no backing file" : "its backing file is missing");
	q = qcow2_new(file->fd, &h, below);
	if (!q)
		return block_fail(err, -ENOMEM, "out of memory; free some and try again");
	ret = file_size(file->fd, &end);
	q->end = align_up(end, q->cluster);
	wrong = ret == 0 ? check_places(q, &h, !(flags & BLOCK_RDONLY) || (flags & BLOCK_REPAIR)) : NULL;
	if (ret == 0 && !wrong)
		ret = load(q, &h, flags);
	if (ret == 0 && !wrong) {
		*out = &q->node;
		return 0;
	}
	qcow2_free(q);
	return wrong ? block_fail(err, -EINVAL, "%s", wrong)
		     : block_fail(err, ret, "cannot be opened: %s; check the file and the memory", strerror(-ret));
}
