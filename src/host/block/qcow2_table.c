/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Tables of qcow2 images in memory, and writing them back in a safe order.
 *
 * Invariant: see qcow2_private.h. A cache holds a fixed number of tables; a dirty L2 table leaves it only through a commit.
 * Locking: q->map around every change that the fast path could see; nothing blocks under it.
 */
#include <errno.h>
#include <stdlib.h>

#include "host/block/qcow2_private.h"

/* --- the cache ------------------------------------------------------------------------------------------------------------- */

int table_cache_init(struct table_cache *c, uint32_t bytes, uint32_t budget, uint32_t nindex)
{
	uint32_t n = budget / bytes;

	n = n < CACHE_SLOTS_MIN ? CACHE_SLOTS_MIN : n > CACHE_SLOTS_MAX ? CACHE_SLOTS_MAX : n;
	c->bytes = bytes;
	c->nslots = n;
	c->slot = calloc(n, sizeof(*c->slot));
	c->slot_of = calloc(nindex, sizeof(*c->slot_of));
	c->data = malloc((size_t)n * bytes);
	if (!c->slot || !c->slot_of || !c->data)
		return -ENOMEM;
	for (uint32_t i = 0; i < n; i++)
		c->slot[i].data = c->data + (size_t)i * bytes;
	return 0;
}

void table_cache_fini(struct table_cache *c)
{
	free(c->slot);
	free(c->slot_of);
	free(c->data);
}

struct table_slot *table_cache_find(struct table_cache *c, uint32_t index)
{
	struct table_slot *s;

	if (!c->slot_of[index])
		return NULL;
	s = &c->slot[c->slot_of[index] - 1];
	s->stamp = ++c->clock;
	return s;
}

struct table_slot *table_cache_victim(struct table_cache *c)
{
	struct table_slot *best = NULL;

	for (unsigned i = 0; i < c->nslots; i++) {
		struct table_slot *s = &c->slot[i];

		if (!s->used)
			return s;
		if (s->from == s->to && (!best || s->stamp < best->stamp))
			best = s;
	}
	return best;
}

void table_cache_drop(struct table_cache *c, struct table_slot *s)
{
	if (s->used)
		c->slot_of[s->index] = 0;
	s->used = false;
	s->from = s->to = 0;
}

void table_cache_assign(struct table_cache *c, struct table_slot *s, uint32_t index, uint64_t offset)
{
	s->index = index;
	s->offset = offset;
	s->used = true;
	s->from = s->to = 0;
	s->stamp = ++c->clock;
	c->slot_of[index] = (uint16_t)(s - c->slot + 1);
}

static int slot_write(struct table_slot *s, int fd)
{
	int ret = s->from == s->to ? 0 : file_write(fd, s->data + s->from, s->to - s->from, s->offset + s->from);

	if (ret == 0)
		s->from = s->to = 0;
	return ret;
}

int table_cache_write(struct table_cache *c, int fd)
{
	int ret = 0;

	for (unsigned i = 0; ret == 0 && i < c->nslots; i++)
		if (c->slot[i].used)
			ret = slot_write(&c->slot[i], fd);
	return ret;
}

static bool cache_is_dirty(const struct table_cache *c)
{
	for (unsigned i = 0; i < c->nslots; i++)
		if (c->slot[i].used && c->slot[i].from != c->slot[i].to)
			return true;
	return false;
}

/* --- L2 tables ------------------------------------------------------------------------------------------------------------- */

/* A clean slot out of use, taken away from the fast path. */
static int l2_slot_free(struct qcow2 *q, struct table_slot **s)
{
	int ret;

	for (unsigned i = 0; i < 2; i++) {
		pthread_mutex_lock(&q->map);
		*s = table_cache_victim(&q->l2);
		if (*s)
			table_cache_drop(&q->l2, *s);
		pthread_mutex_unlock(&q->map);
		if (*s)
			return 0;
		ret = qcow2_commit(q);
		if (ret < 0)
			return ret;
	}
	return -EIO;
}

int qcow2_l2_load(struct qcow2 *q, uint32_t index, struct table_slot **s)
{
	uint64_t offset = q->l1[index] & QCOW2_OFFSET_MASK;
	int ret;

	pthread_mutex_lock(&q->map);
	*s = table_cache_find(&q->l2, index);
	pthread_mutex_unlock(&q->map);
	if (*s || !offset)
		return 0;
	if (offset & (q->cluster - 1) || offset >= q->end)
		return -EIO;
	ret = l2_slot_free(q, s);
	if (ret == 0)
		ret = file_read(q->fd, (*s)->data, q->cluster, offset);
	if (ret < 0)
		return ret;
	pthread_mutex_lock(&q->map);
	table_cache_assign(&q->l2, *s, index, offset);
	pthread_mutex_unlock(&q->map);
	return 0;
}

static void l1_set(struct qcow2 *q, uint32_t index, uint64_t entry)
{
	q->l1[index] = entry;
	if (q->l1_from == q->l1_to) {
		q->l1_from = index;
		q->l1_to = index + 1;
	} else {
		q->l1_from = index < q->l1_from ? index : q->l1_from;
		q->l1_to = index >= q->l1_to ? index + 1 : q->l1_to;
	}
}

/* A new table in place of *s, which belongs to a snapshot as well, or of none. */
static int l2_replace(struct qcow2 *q, uint32_t index, struct table_slot **s)
{
	uint64_t old = q->l1[index] & QCOW2_OFFSET_MASK, first, got;
	bool fresh;
	int ret = qcow2_alloc(q, 1, &first, &got, &fresh);

	if (ret < 0)
		return ret;
	/* A shared table that has been loaded is its own copy. */
	if (!*s) {
		ret = l2_slot_free(q, s);
		if (ret < 0) {
			(void)qcow2_refcount_add(q, first, 1, -1);
			return ret;
		}
		memset((*s)->data, 0, q->cluster);
	}
	pthread_mutex_lock(&q->map);
	table_cache_drop(&q->l2, *s);
	table_cache_assign(&q->l2, *s, index, first << q->cluster_bits);
	table_dirty(*s, 0, (uint32_t)q->cluster);
	l1_set(q, index, first << q->cluster_bits | QCOW2_COPIED);
	pthread_mutex_unlock(&q->map);
	q->node.dirty = true;
	return old ? qcow2_release(q, old >> q->cluster_bits, 1) : 0;
}

int qcow2_l2_load_writable(struct qcow2 *q, uint32_t index, struct table_slot **s)
{
	int ret = qcow2_l2_load(q, index, s);

	if (ret == 0 && (!*s || !(q->l1[index] & QCOW2_COPIED)))
		ret = l2_replace(q, index, s);
	return ret;
}

void qcow2_l2_set(struct qcow2 *q, struct table_slot *s, uint32_t i, uint64_t entry)
{
	pthread_mutex_lock(&q->map);
	put_be64(s->data + i * 8u, entry);
	table_dirty(s, i * 8u, i * 8u + 8);
	pthread_mutex_unlock(&q->map);
	q->node.dirty = true;
}

/* --- writing back ---------------------------------------------------------------------------------------------------------- */

int qcow2_sync(struct qcow2 *q)
{
	if (q->sync_error == 0)
		q->sync_error = file_sync(q->fd);
	return q->sync_error;
}

static int write_l1(struct qcow2 *q)
{
	uint8_t buf[512];
	int ret = 0;

	while (ret == 0 && q->l1_from < q->l1_to) {
		uint32_t n = q->l1_to - q->l1_from < sizeof(buf) / 8 ? q->l1_to - q->l1_from : sizeof(buf) / 8;

		for (uint32_t i = 0; i < n; i++)
			put_be64(buf + i * 8, q->l1[q->l1_from + i]);
		ret = file_write(q->fd, buf, n * 8, q->l1_offset + q->l1_from * 8ull);
		if (ret == 0)
			q->l1_from += n;
	}
	if (ret == 0)
		q->l1_from = q->l1_to = 0;
	return ret;
}

/* Waits until every transfer has ended whose place was looked up before now. */
static void quiesce(struct qcow2 *q)
{
	unsigned old;

	pthread_mutex_lock(&q->map);
	old = q->epoch;
	q->epoch ^= 1;
	while (q->pins[old])
		pthread_cond_wait(&q->quiet, &q->map);
	pthread_mutex_unlock(&q->map);
}

/* Clusters that nobody uses go back to the host's file system, in as few calls as possible. */
static int punch_free(struct qcow2 *q, struct cluster_run run)
{
	uint64_t from = run.first, end = run.first + run.n;

	for (uint64_t c = run.first; c <= end; c++) {
		uint64_t count = 1;
		int ret = c < end ? qcow2_refcount_get(q, c, &count) : 0;

		if (ret < 0)
			return ret;
		if (count == 0)
			continue;
		if (c > from)
			(void)file_punch(q->fd, (c - from) << q->cluster_bits, from << q->cluster_bits);
		from = c + 1;
	}
	return 0;
}

/* No reference to these is on the medium any more. */
static int lower_pending(struct qcow2 *q)
{
	int ret = 0;

	if (q->npending == 0)
		return 0;
	quiesce(q);
	q->plain_entry = 0;
	while (ret == 0 && q->npending) {
		struct cluster_run run = q->pending[q->npending - 1];

		q->npending--;
		ret = qcow2_refcount_add(q, run.first, run.n, -1);
		if (ret == 0)
			ret = punch_free(q, run);
	}
	q->node.dirty = true;
	return ret;
}

int qcow2_commit(struct qcow2 *q)
{
	bool l2 = cache_is_dirty(&q->l2), l1 = q->l1_from != q->l1_to;
	int ret = q->sync_error;

	if (ret == 0)
		ret = qcow2_refcount_flush(q);
	/* Data and refcounts before what refers to them; L2 tables before L1. */
	if (ret == 0 && (l2 || l1))
		ret = qcow2_sync(q);
	if (ret == 0)
		ret = table_cache_write(&q->l2, q->fd);
	if (ret == 0 && l1)
		ret = qcow2_sync(q);
	if (ret == 0)
		ret = write_l1(q);
	if (ret == 0)
		ret = qcow2_sync(q);
	if (ret < 0)
		return ret;
	q->node.dirty = false;
	return lower_pending(q);
}

int qcow2_release(struct qcow2 *q, uint64_t first, uint64_t n)
{
	struct cluster_run *last = q->npending ? &q->pending[q->npending - 1] : NULL;

	q->node.dirty = true;
	if (last && last->first + last->n == first) {
		last->n += n;
		return 0;
	}
	q->pending[q->npending++] = (struct cluster_run){first, n};
	return q->npending == PENDING_MAX ? qcow2_commit(q) : 0;
}
