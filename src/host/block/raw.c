/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Raw images and block devices: byte n of the disk is byte n of the file.
 *
 * A disk that is raw only because its content looked like nothing else (`probed`) must not become anything else by what its
 * guest writes: the next probing would believe a header of the guest's, with a backing file of the guest's choice. Writes to
 * its first sector therefore go through a buffer of ours and are refused if they make a known header. No locks, no metadata.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "host/block/private.h"

static void raw_map(struct block_node *n, uint64_t offset, uint64_t bytes, bool write, struct block_extent *e)
{
	*e = (struct block_extent){.kind = EXTENT_DATA, .offset = offset, .bytes = bytes};
	if (write && n->probed && offset < BLOCK_SECTOR) {
		e->kind = EXTENT_SLOW;
		if (offset + bytes > BLOCK_SECTOR)
			e->bytes = BLOCK_SECTOR - offset;
	}
}

static int raw_read(struct block_node *n, void *buf, size_t bytes, uint64_t offset)
{
	return file_read(n->fd, buf, bytes, offset);
}

/* 0, or -EPERM if the first sector would then be a header. */
static int check_head(struct block_node *n, const void *buf, size_t bytes, uint64_t offset)
{
	uint8_t head[BLOCK_SECTOR];
	size_t part = BLOCK_SECTOR - offset < bytes ? BLOCK_SECTOR - offset : bytes;
	int ret = file_read(n->fd, head, sizeof(head), 0);

	if (ret < 0)
		return ret;
	memcpy(head + offset, buf, part);
	return block_probe(head) == BLOCK_RAW ? 0 : -EPERM;
}

static int raw_write(struct block_node *n, const void *buf, size_t bytes, uint64_t offset)
{
	int ret = n->probed && offset < BLOCK_SECTOR ? check_head(n, buf, bytes, offset) : 0;

	return ret < 0 ? ret : file_write(n->fd, buf, bytes, offset);
}

static int raw_zero(struct block_node *n, uint64_t bytes, uint64_t offset, bool unmap)
{
	return file_zero(n->fd, bytes, offset, unmap);
}

static int raw_discard(struct block_node *n, uint64_t bytes, uint64_t offset)
{
	/* Advice: a file system that cannot has not failed. */
	(void)file_punch(n->fd, bytes, offset);
	return 0;
}

static int raw_flush(struct block_node *n)
{
	return file_sync(n->fd);
}

static int raw_status(struct block_node *n, uint64_t offset, uint64_t bytes, struct block_extent *e)
{
	off_t data = lseek(n->fd, (off_t)offset, SEEK_DATA), hole;

	*e = (struct block_extent){.kind = EXTENT_DATA, .offset = offset, .bytes = bytes};
	if (data < 0) {
		if (errno == ENXIO)
			e->kind = EXTENT_ZERO;
		return 0;
	}
	if ((uint64_t)data > offset) {
		e->kind = EXTENT_ZERO;
		if ((uint64_t)data - offset < bytes)
			e->bytes = (uint64_t)data - offset;
		return 0;
	}
	hole = lseek(n->fd, (off_t)offset, SEEK_HOLE);
	if (hole > (off_t)offset && (uint64_t)hole - offset < bytes)
		e->bytes = (uint64_t)hole - offset;
	return 0;
}

static int raw_close(struct block_node *n)
{
	free(n);
	return 0;
}

const struct block_ops raw_ops = {
	.map = raw_map,
	.read = raw_read,
	.write = raw_write,
	.zero = raw_zero,
	.discard = raw_discard,
	.flush = raw_flush,
	.status = raw_status,
	.close = raw_close,
};

int raw_open(struct block_node **out, const struct block_file *file, unsigned flags, struct block_error *err)
{
	struct block_node *n = calloc(1, sizeof(*n));
	int ret;

	(void)flags;
	if (!n)
		return block_fail(err, -ENOMEM, "out of memory; free some and try again");
	ret = file_size(file->fd, &n->size);
	if (ret < 0 || n->size == 0 || n->size > INT64_MAX - BLOCK_SECTOR) {
		free(n);
		return ret < 0 ? block_fail(err, ret, "its size cannot be found: %s; give a file or a block device", strerror(-ret))
			       : block_fail(err, -EINVAL, "it is empty; make it as large as the disk should be (truncate -s)");
	}
	/* A disk has whole sectors; what the file lacks of the last one reads as zeroes. */
	n->size = (n->size + BLOCK_SECTOR - 1) / BLOCK_SECTOR * BLOCK_SECTOR;
	n->probed = file->probed;
	n->ops = &raw_ops;
	*out = n;
	return 0;
}
