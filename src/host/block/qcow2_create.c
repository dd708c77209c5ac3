/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Making an empty qcow2 image, version 3.
 *
 *   cluster 0: header, extensions, backing file's name | refcount table | refcount blocks | L1 table
 *
 * Nothing else exists yet, so the order of writing does not matter; the caller gives the file its name when it is done.
 */
#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

#include "host/block/bytes.h"
#include "host/block/private.h"
#include "host/block/qcow2_private.h"

#define HEADER_MAX 4096u

struct layout { uint64_t cluster, table, blocks, l1_clusters, l1_size, total; };

static int lay_out(const struct qcow2_new *o, struct layout *l)
{
	uint64_t per_block;

	l->cluster = 1ull << o->cluster_bits;
	l->l1_size = align_up(o->size, l->cluster * (l->cluster / 8)) >> (2 * o->cluster_bits - 3);
	if (l->l1_size * 8 > QCOW2_L1_BYTES_MAX)
		return -EFBIG;
	l->l1_clusters = align_up(l->l1_size * 8, l->cluster) / l->cluster;
	per_block = l->cluster / 2;
	l->table = l->blocks = 1;
	for (;;) {
		l->total = 1 + l->table + l->blocks + l->l1_clusters;
		if (l->blocks * per_block < l->total)
			l->blocks++;
		else if (l->table * l->cluster < l->blocks * 8)
			l->table++;
		else
			return 0;
	}
}

static size_t put_extension(uint8_t *p, uint32_t type, const char *data, size_t len)
{
	put_be32(p, type);
	put_be32(p + 4, (uint32_t)len);
	memcpy(p + 8, data, len);
	return 8 + align_up(len, 8);
}

/* Its length, or -E2BIG if it does not fit in the first cluster. */
static int make_header(const struct qcow2_new *o, const struct layout *l, uint8_t *p)
{
	size_t at = QCOW2_V3_LENGTH, name = o->backing ? strlen(o->backing) : 0;

	put_be32(p, QCOW2_MAGIC);
	put_be32(p + 4, 3);
	put_be32(p + 20, o->cluster_bits);
	put_be64(p + 24, o->size);
	put_be32(p + 36, (uint32_t)l->l1_size);
	put_be64(p + 40, (1 + l->table + l->blocks) * l->cluster);
	put_be64(p + QCOW2_AT_REFTABLE, l->cluster);
	put_be32(p + 56, (uint32_t)l->table);
	put_be64(p + QCOW2_AT_INCOMPATIBLE, o->compression == QCOW2_ZLIB ? 0 : QCOW2_COMPRESSION);
	put_be32(p + 96, 4);
	put_be32(p + 100, QCOW2_V3_LENGTH);
	p[104] = (uint8_t)o->compression;
	if (o->backing) {
		at += put_extension(p + at, QCOW2_EXT_BACKING_FORMAT, o->backing_format, strlen(o->backing_format));
		put_be64(p + 8, at + 8);
		put_be32(p + 16, (uint32_t)name);
	}
	at += 8; /* the end of extensions */
	if (name > QCOW2_NAME_MAX || at + name > l->cluster || at + name > HEADER_MAX)
		return -E2BIG;
	if (name)
		memcpy(p + at, o->backing, name);
	return (int)(at + name);
}

static int write_tables(int fd, const struct layout *l)
{
	uint8_t *buf = calloc(2, l->cluster), *block = buf + l->cluster;
	uint64_t first_block = 1 + l->table, per_block = l->cluster / 2;
	int ret = buf ? 0 : -ENOMEM;

	for (uint64_t b = 0; ret == 0 && b < l->blocks; b++) {
		uint64_t left = l->total - b * per_block;

		memset(block, 0, l->cluster);
		for (uint64_t i = 0; i < per_block && i < left; i++)
			qcow2_refcount_put(block, 4, i, 1);
		put_be64(buf, (first_block + b) * l->cluster);
		ret = file_write(fd, buf, 8, l->cluster + b * 8);
		if (ret == 0)
			ret = file_write(fd, block, l->cluster, (first_block + b) * l->cluster);
	}
	free(buf);
	return ret;
}

int qcow2_create(int fd, const struct qcow2_new *o, struct block_error *err)
{
	uint8_t header[HEADER_MAX + 64] = {0};
	struct layout l;
	int len, ret = lay_out(o, &l);

	if (ret < 0)
		return block_fail(err, ret, "too large for clusters of %u bytes; give larger ones", 1u << o->cluster_bits);
	len = o->backing && strlen(o->backing) > QCOW2_NAME_MAX ? -E2BIG : make_header(o, &l, header);
	if (len < 0)
		return block_fail(err, len, "the backing file's name is too long; give a shorter one");
	if (ftruncate(fd, (off_t)(l.total * l.cluster)) < 0)
		ret = -errno;
	if (ret == 0)
		ret = write_tables(fd, &l);
	if (ret == 0)
		ret = file_write(fd, header, (size_t)len, 0);
	return ret < 0 ? block_fail(err, ret, "cannot be written: %s; make room on the disk", strerror(-ret)) : 0;
}
