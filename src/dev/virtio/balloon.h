/* SPDX-License-Identifier: Apache-2.0 */
/*
 * virtio-balloon: guest memory that goes back to the host, when the host asks for it (inflating) or by itself (free page reporting).
 *
 * What the driver says (how large the balloon is, the guest's statistics) is its word and no more; what memory the host has got back is
 * known to mem/ alone. Locking: io->lock for everything but virtio_balloon_emit().
 */
#ifndef DEV_VIRTIO_BALLOON_H
#define DEV_VIRTIO_BALLOON_H

#include "base/stats.h"
#include "dev/virtio/virtio.h"

struct virtio_balloon_options {
	void (*news)(void *opaque);    /* statistics have come; io->lock is held. May be NULL. */
	void *opaque;
};

/* Bytes, as the guest says; UINT64_MAX: it has not. */
struct virtio_balloon_guest {
	uint64_t free, total, available, caches;
};

struct virtio_balloon_info {
	uint64_t target;         /* bytes the balloon shall have */
	uint64_t actual;         /* bytes it has, as the driver says */
	bool driver;             /* a driver is at work */
	uint64_t news;           /* how often statistics have come, since power-on */
	uint64_t guest_time;     /* io_now() when they came last; 0: never */
	struct virtio_balloon_guest guest;
};

/* 0 or -ENOMEM. */
int virtio_balloon_create(struct io *io, const struct virtio_balloon_options *opt, struct virtio_dev **out);

/* Asks the driver to make the balloon `bytes` large (whole pages; at most all memory). The wish outlives resets. */
void virtio_balloon_set(struct virtio_dev *v, uint64_t bytes);
/* Asks the driver for statistics. True: they will come, if the driver does as it should. */
bool virtio_balloon_poll(struct virtio_dev *v);
void virtio_balloon_info(const struct virtio_dev *v, struct virtio_balloon_info *info);
/* A stats_source's. */
void virtio_balloon_emit(void *dev, stats_emit_fn *emit, void *o);

#endif
