/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Compressed clusters of qcow2 images: raw deflate with a window of 4 KiB, or a zstd frame.
 *
 *   L2 entry:  bits 0..x-1 offset in the file | x..61 further sectors | 62 set        x = 62 - (cluster_bits - 8)
 *
 * Their data lie at any byte, several in a cluster; each counts as one reference to every cluster it touches. What is behind
 * the data in their last sector is of others. The output is bounded by the cluster whatever the input says.
 * State: the decoder and the last cluster decoded, used by slow calls only.
 */
#include <errno.h>
#include <stdlib.h>
#include <zlib.h>
#include <zstd.h>

#include "host/block/qcow2_private.h"

#define DEFLATE_WINDOW -12

struct codec {
	z_stream inflate;
	bool inflating;
	ZSTD_DCtx *unzstd;
	z_stream deflate;      /* made when first wanted: only tools write compressed data */
	bool deflating;
	ZSTD_CCtx *zstd;
};

int qcow2_codec_create(struct qcow2 *q)
{
	struct codec *c = calloc(1, sizeof(*c));

	q->codec = c;
	if (!c)
		return -ENOMEM;
	if (q->compression == QCOW2_ZSTD) {
		c->unzstd = ZSTD_createDCtx();
		return c->unzstd ? 0 : -ENOMEM;
	}
	c->inflating = inflateInit2(&c->inflate, DEFLATE_WINDOW) == Z_OK;
	return c->inflating ? 0 : -ENOMEM;
}

void qcow2_codec_destroy(struct qcow2 *q)
{
	struct codec *c = q->codec;

	if (!c)
		return;
	if (c->inflating)
		inflateEnd(&c->inflate);
	if (c->deflating)
		deflateEnd(&c->deflate);
	ZSTD_freeDCtx(c->unzstd);
	ZSTD_freeCCtx(c->zstd);
	free(c);
}

void qcow2_packed_range(const struct qcow2 *q, uint64_t entry, uint64_t *offset, uint64_t *bytes)
{
	unsigned shift = 62 - (q->cluster_bits - 8);
	uint64_t sectors = (entry >> shift & (BIT(q->cluster_bits - 8) - 1)) + 1;

	*offset = entry & (BIT(shift) - 1);
	*bytes = sectors * 512 - (*offset & 511);
}

static int unpack_deflate(struct qcow2 *q, size_t bytes)
{
	z_stream *z = &((struct codec *)q->codec)->inflate;
	int ret;

	inflateReset(z);
	z->next_in = q->packed;
	z->avail_in = (unsigned)bytes;
	z->next_out = q->plain;
	z->avail_out = (unsigned)q->cluster;
	ret = inflate(z, Z_FINISH);
	/* The input's last sector holds more than this cluster's data, so the end of the output counts. */
	return (ret == Z_STREAM_END || ret == Z_BUF_ERROR) && z->avail_out == 0 ? 0 : -EIO;
}

static int unpack_zstd(struct qcow2 *q, size_t bytes)
{
	ZSTD_DCtx *d = ((struct codec *)q->codec)->unzstd;
	ZSTD_inBuffer in = {.src = q->packed, .size = bytes};
	ZSTD_outBuffer out = {.dst = q->plain, .size = q->cluster};

	ZSTD_DCtx_reset(d, ZSTD_reset_session_only);
	while (out.pos < out.size) {
		size_t before = in.pos + out.pos, ret = ZSTD_decompressStream(d, &out, &in);

		/* An end before the cluster's, or no progress: not a cluster. */
		if (ZSTD_isError(ret) || (out.pos < out.size && (ret == 0 || in.pos + out.pos == before)))
			return -EIO;
	}
	return 0;
}

int qcow2_unpack(struct qcow2 *q, uint64_t entry)
{
	uint64_t offset, bytes;
	int ret;

	if (q->plain_entry == entry)
		return 0;
	q->plain_entry = 0;
	qcow2_packed_range(q, entry, &offset, &bytes);
	if (offset >= q->end || bytes > 2 * q->cluster)
		return -EIO;
	ret = file_read(q->fd, q->packed, bytes, offset);
	if (ret == 0)
		ret = q->compression == QCOW2_ZSTD ? unpack_zstd(q, bytes) : unpack_deflate(q, bytes);
	if (ret == 0)
		q->plain_entry = entry;
	return ret;
}

/* --- writing ----------------------------------------------------------------------------------------------------------------- */

static int pack_deflate(struct qcow2 *q, const uint8_t *plain, size_t *bytes)
{
	struct codec *c = q->codec;
	z_stream *z = &c->deflate;

	if (!c->deflating && deflateInit2(z, Z_DEFAULT_COMPRESSION, Z_DEFLATED, DEFLATE_WINDOW, 9, Z_DEFAULT_STRATEGY) != Z_OK)
		return -ENOMEM;
	c->deflating = true;
	deflateReset(z);
	z->next_in = (uint8_t *)(uintptr_t)plain;
	z->avail_in = (unsigned)q->cluster;
	z->next_out = q->packed;
	z->avail_out = (unsigned)q->cluster;
	*bytes = deflate(z, Z_FINISH) == Z_STREAM_END ? q->cluster - z->avail_out : 0;
	return 0;
}

static int pack_zstd(struct qcow2 *q, const uint8_t *plain, size_t *bytes)
{
	struct codec *c = q->codec;
	size_t n;

	if (!c->zstd)
		c->zstd = ZSTD_createCCtx();
	if (!c->zstd)
		return -ENOMEM;
	n = ZSTD_compress2(c->zstd, q->packed, q->cluster, plain, q->cluster);
	*bytes = ZSTD_isError(n) ? 0 : n;
	return 0;
}

/* A place for so many bytes, less than a cluster: behind the last ones, if their cluster has room or the next one is free. */
static int pack_alloc(struct qcow2 *q, size_t bytes, uint64_t *at)
{
	uint64_t room = q->pack_at & (q->cluster - 1) ? q->cluster - (q->pack_at & (q->cluster - 1)) : 0, first, got;
	bool fresh;
	int ret = 0;

	/* One more reference to the cluster that is shared; if the image's counts are too narrow, it is full. */
	if (room && qcow2_refcount_add(q, q->pack_at >> q->cluster_bits, 1, 1) < 0)
		room = 0;
	if (room < bytes) {
		ret = qcow2_alloc(q, 1, &first, &got, &fresh);
		if (room && (ret < 0 || first << q->cluster_bits != q->pack_at + room)) {
			int undo = qcow2_refcount_add(q, q->pack_at >> q->cluster_bits, 1, -1);

			ret = ret < 0 ? ret : undo;
			room = 0;
		}
		if (ret == 0 && !room)
			q->pack_at = first << q->cluster_bits;
	}
	*at = q->pack_at;
	q->pack_at += bytes;
	return ret;
}

static int write_packed_cluster(struct qcow2 *q, const uint8_t *plain, uint64_t offset)
{
	unsigned shift = 62 - (q->cluster_bits - 8);
	uint32_t i = (uint32_t)(offset >> q->cluster_bits & (BIT(q->l2_bits) - 1));
	struct table_slot *s;
	uint64_t at, sectors;
	size_t bytes;
	int ret = q->compression == QCOW2_ZSTD ? pack_zstd(q, plain, &bytes) : pack_deflate(q, plain, &bytes);

	if (ret == 0)
		ret = qcow2_l2_load_writable(q, (uint32_t)(offset >> (q->cluster_bits + q->l2_bits)), &s);
	if (ret < 0)
		return ret;
	if (bytes == 0 || bytes >= q->cluster || qcow2_l2_get(s, i) != 0)
		return qcow2_write(&q->node, plain, q->cluster, offset);
	ret = pack_alloc(q, bytes, &at);
	if (ret == 0)
		ret = file_write(q->fd, q->packed, bytes, at);
	if (ret < 0)
		return ret;
	sectors = ((at + bytes - 1) >> 9) - (at >> 9);
	qcow2_l2_set(q, s, i, QCOW2_PACKED | sectors << shift | at);
	return 0;
}

int qcow2_write_packed(struct block_node *n, const void *buf, size_t bytes, uint64_t offset)
{
	struct qcow2 *q = to_qcow2(n);
	int ret = 0;

	while (ret == 0 && bytes) {
		const uint8_t *plain = buf;
		size_t part = bytes < q->cluster ? bytes : q->cluster;

		if (offset & (q->cluster - 1) || (part < q->cluster && offset + part != n->size))
			return -EINVAL;
		/* The disk's last cluster may be cut off by its end. */
		if (part < q->cluster) {
			memset(q->cow, 0, q->cluster);
			memcpy(q->cow, buf, part);
			plain = q->cow;
		}
		ret = write_packed_cluster(q, plain, offset);
		buf = (const uint8_t *)buf + part;
		offset += part;
		bytes -= part;
	}
	return ret;
}
