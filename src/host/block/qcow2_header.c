/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reading the header of a qcow2 image.
 *
 *   0   magic  version | 8  backing file: offset, length | 20 cluster bits | 24 size | 32 encryption
 *   36  L1: entries, offset | 48 refcount table: offset, clusters | 60 snapshots: number, offset
 *   72  (version 3) feature bits: incompatible, compatible, autoclear | 96 refcount order, header length, compression
 *   then extensions (type, length, data padded to 8), ended by type 0 or by the backing file's name; all in the first cluster
 *
 * Invariant: the first cluster is read once into a buffer and everything is taken from there, each range checked against it.
 */
#include <errno.h>
#include <stdlib.h>

#include "host/block/bytes.h"
#include "host/block/private.h"
#include "host/block/qcow2.h"

#define EXT_FEATURE_NAMES 0x6803f857u
#define FEATURE_NAME_BYTES 48u
#define KNOWN_INCOMPATIBLE (QCOW2_DIRTY | QCOW2_CORRUPT | QCOW2_DATA_FILE | QCOW2_COMPRESSION | QCOW2_EXTENDED_L2)

static void decode(struct qcow2_header *h, const uint8_t *p)
{
	h->version = get_be32(p + 4);
	h->cluster_bits = get_be32(p + 20);
	h->size = get_be64(p + 24);
	h->crypt_method = get_be32(p + 32);
	h->l1_size = get_be32(p + 36);
	h->l1_offset = get_be64(p + 40);
	h->reftable_offset = get_be64(p + QCOW2_AT_REFTABLE);
	h->reftable_clusters = get_be32(p + 56);
	h->nsnapshots = get_be32(p + 60);
	h->snapshots_offset = get_be64(p + 64);
	h->refcount_order = 4;
	h->header_length = QCOW2_V2_LENGTH;
	if (h->version != 3)
		return;
	h->incompatible = get_be64(p + QCOW2_AT_INCOMPATIBLE);
	h->compatible = get_be64(p + 80);
	h->autoclear = get_be64(p + QCOW2_AT_AUTOCLEAR);
	h->refcount_order = get_be32(p + 96);
	h->header_length = get_be32(p + 100);
	if (h->header_length > 104)
		h->compression = p[104];
}

static const char *check_numbers(const struct qcow2_header *h)
{
	uint32_t min = h->version == 3 ? 104 : QCOW2_V2_LENGTH;

	if (h->version != 2 && h->version != 3)
		return "its version is neither 2 nor 3; convert it with qemu-img";
	if (h->cluster_bits < QCOW2_CLUSTER_BITS_MIN || h->cluster_bits > QCOW2_CLUSTER_BITS_MAX)
		return "its cluster size is impossible; it is damaged";
	if (h->header_length < min || h->header_length > 1u << h->cluster_bits || h->header_length % 8)
		return "its header has an impossible length; it is damaged";
	if (h->refcount_order > 6)
		return "its reference counts have an impossible width; it is damaged";
	if (h->size > INT64_MAX)
		return "its size is impossible; it is damaged";
	if (h->l1_size > QCOW2_L1_BYTES_MAX / 8)
		return "its first-level table is larger than 32 MiB; it is damaged, or use larger clusters";
	if (h->reftable_clusters > QCOW2_REFTABLE_BYTES_MAX >> h->cluster_bits)
		return "its reference count table is larger than 8 MiB; it is damaged, or use larger clusters";
	if (h->nsnapshots > QCOW2_SNAPSHOTS_MAX)
		return "it has more than 65536 snapshots; it is damaged";
	return NULL;
}

/* Rows of 48 bytes: kind (0: incompatible), bit, name. */
static void name_feature(struct qcow2_header *h, const uint8_t *p, uint32_t len)
{
	uint64_t unknown = h->incompatible & ~KNOWN_INCOMPATIBLE;

	for (; len >= FEATURE_NAME_BYTES; p += FEATURE_NAME_BYTES, len -= FEATURE_NAME_BYTES) {
		if (p[0] != 0 || p[1] > 63 || !(unknown & BIT(p[1])))
			continue;
		/* It ends up in a message on a terminal. */
		for (unsigned i = 0; i < FEATURE_NAME_BYTES - 2 && p[2 + i]; i++)
			h->unknown_feature[i] = p[2 + i] >= ' ' && p[2 + i] < 127 ? (char)p[2 + i] : '?';
		return;
	}
}

static const char *read_extensions(struct qcow2_header *h, const uint8_t *p, uint32_t end)
{
	uint32_t at = h->header_length, type, len;

	while (end - at >= 8) {
		type = get_be32(p + at);
		len = get_be32(p + at + 4);
		at += 8;
		if (type == 0)
			break;
		if (len > end - at)
			return "a header extension does not fit; it is damaged";
		if (type == QCOW2_EXT_BACKING_FORMAT) {
			if (len >= sizeof(h->backing_format))
				return "the name of the backing file's format is too long; it is damaged";
			memcpy(h->backing_format, p + at, len);
		} else if (type == EXT_FEATURE_NAMES) {
			name_feature(h, p + at, len);
		}
		len = (len + 7) & ~7u;
		at = len > end - at ? end : at + len;
	}
	return NULL;
}

/* p: the first cluster. */
static const char *read_rest(struct qcow2_header *h, const uint8_t *p)
{
	uint64_t offset = get_be64(p + 8), cluster = 1ull << h->cluster_bits;
	uint32_t len = get_be32(p + 16);

	if (!offset)
		return read_extensions(h, p, (uint32_t)cluster);
	if (len > QCOW2_NAME_MAX || offset < h->header_length || offset > cluster || len > cluster - offset)
		return "the name of its backing file is not where it can be; it is damaged";
	memcpy(h->backing, p + offset, len);
	if (strlen(h->backing) != len)
		return "the name of its backing file has a zero in it; it is damaged";
	return read_extensions(h, p, (uint32_t)offset);
}

int qcow2_header_read(int fd, struct qcow2_header *h, struct block_error *err)
{
	uint8_t head[BLOCK_SECTOR], *cluster;
	const char *wrong;
	int ret = file_read(fd, head, sizeof(head), 0);

	memset(h, 0, sizeof(*h));
	if (ret < 0)
		return block_fail(err, ret, "cannot be read: %s; check the file", strerror(-ret));
	if (get_be32(head) != QCOW2_MAGIC)
		return block_fail(err, -EINVAL, "it is no qcow2 image; say which format it has");
	decode(h, head);
	wrong = check_numbers(h);
	if (wrong)
		return block_fail(err, -EINVAL, "%s", wrong);
	cluster = malloc(1u << h->cluster_bits);
	if (!cluster)
		return block_fail(err, -ENOMEM, "out of memory; free some and try again");
	ret = file_read(fd, cluster, 1u << h->cluster_bits, 0);
	if (ret == 0 && memcmp(cluster, head, sizeof(head)))
		ret = -EAGAIN;
	wrong = ret == 0 ? read_rest(h, cluster) : NULL;
	free(cluster);
	if (ret < 0)
		return block_fail(err, ret, "cannot be read: %s; check the file", strerror(-ret));
	return wrong ? block_fail(err, -EINVAL, "%s", wrong) : 0;
}

int qcow2_backing_name(int fd, struct qcow2_backing *b, struct block_error *err)
{
	struct qcow2_header h;
	int ret = qcow2_header_read(fd, &h, err);

	memset(b, 0, sizeof(*b));
	if (ret < 0)
		return ret;
	memcpy(b->name, h.backing, sizeof(b->name));
	b->format = h.backing_format[0] ? block_format_find(h.backing_format) : BLOCK_AUTO;
	if (h.backing[0] && h.backing_format[0] && b->format == BLOCK_AUTO)
		return block_fail(err, -ENOTSUP, "its backing file has the format '%s'; convert that to raw or qcow2 and rebase",
				  h.backing_format);
	return 0;
}
