/* SPDX-License-Identifier: Apache-2.0 */
/* Block device: a disk of the host block layer (host/block) as a multi-queue virtio disk. */
#ifndef DEV_VIRTIO_BLK_H
#define DEV_VIRTIO_BLK_H

#include "base/stats.h"
#include "dev/virtio/virtio.h"
#include "host/block/block.h"

#define BLK_MAX_QUEUES 16
#define BLK_SERIAL_LEN 20

struct virtio_blk_setup {
	struct block *disk;
	unsigned queues;                    /* 1 to BLK_MAX_QUEUES */
	char serial[BLK_SERIAL_LEN + 1];    /* may be empty */
};

/* What a disk has done: counters as base/stats.h wants them. */
struct virtio_blk_stats {
	uint64_t reads, writes, flushes, discards;   /* requests completed; discards: also write zeroes */
	uint64_t read_bytes, written_bytes;
	uint64_t errors;
};

/* 0 or -errno. The disk stays the caller's and must outlive the device. */
int virtio_blk_create(struct io *io, const struct virtio_blk_setup *setup, struct virtio_dev **out);
/* Lives as long as the device. */
const struct virtio_blk_stats *virtio_blk_stats(const struct virtio_dev *v);
/* emit of a struct stats_source whose opaque is the struct virtio_dev. */
void virtio_blk_emit(void *dev, stats_emit_fn *emit, void *o);

#endif
