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
	ZSTD_freeDCtx(c->unzstd);
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
