/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Virtqueue, device side: split and packed rings, indirect descriptors, event index. The only code that reads rings.
 *
 * Words:   chain    what the driver makes available and gets back as one unit: readable pieces, then writable ones
 *          kick     the driver tells the device (notification);   signal   the device tells the driver (interrupt)
 *
 * Invariant: everything in guest memory is read once into a local copy, checked, and used from the copy. Every loop is bounded by
 * the ring's size, VIRTQUEUE_MAX_INDIRECT or max_bytes. A ring that breaks the rules makes the queue `broken`: it yields nothing any
 * more until reset; the caller reports it (virtio_pop() sets NEEDS_RESET). Ring addresses go through p2m at every access; no
 * host pointer to a ring is kept.
 * Locking: io->lock. The guest changes rings at any moment; queue.c says which barrier pairs with what.
 * Spec: virtio 1.2, 2.6 to 2.8.
 */
#ifndef DEV_VIRTIO_QUEUE_H
#define DEV_VIRTIO_QUEUE_H

#include "io/dma.h"

#define VIRTQUEUE_MAX_SIZE 1024
#define VIRTQUEUE_MAX_INDIRECT 1024

struct virtqueue {
	struct mem *mem;
	/* Programmed by the driver while the queue is not enabled. */
	gpa_t desc;               /* descriptor table, or the packed ring */
	gpa_t driver;             /* available ring, or the driver's event suppression */
	gpa_t device;             /* used ring, or the device's event suppression */
	uint16_t size, size_max;
	bool enabled;
	/* Negotiated. */
	bool packed, event_idx, indirect;

	bool broken;
	const char *why;          /* what was wrong with the ring, for the log */
	bool kicks_off;           /* the driver has been asked not to kick */
	uint16_t avail;           /* next to take: free running (split), or slot (packed) */
	uint16_t used;            /* next to give back: likewise */
	bool avail_wrap, used_wrap;   /* packed: wrap counters, 1 at start */
	uint16_t unsignalled;     /* given back since the last signal: entries (split), slots (packed) */
	bool signal_always;       /* more than can be counted */
	uint64_t max_bytes;       /* of one chain; set by the device */
	bool unmapped;            /* likewise: pieces have guest addresses and lengths only, and need not be memory */
	uint64_t chains, kicks, signals;   /* statistics */
};

/* One chain. The arrays have `max` places and belong to whoever set them up with virtqueue_chain_init(). */
struct virtqueue_chain {
	uint16_t id;              /* head (split) or buffer id (packed): what push() gives back */
	uint16_t slots;           /* ring slots it took (packed) */
	struct io_dma r;          /* what the device may read */
	struct io_dma w;          /* what it may write; follows r in the arrays */
	struct iovec *iov;
	gpa_t *gpa;
	unsigned max;
};

/* Allocates room for `max` pieces. 0 or -ENOMEM. */
int virtqueue_chain_init(struct virtqueue_chain *c, unsigned max);
void virtqueue_chain_fini(struct virtqueue_chain *c);

/* Power-on state: not enabled, size at its maximum, no addresses. What the device has set stays. */
void virtqueue_reset(struct virtqueue *q);
/* Takes the queue into use as programmed. -EINVAL if size or alignment are not as the specification says. */
int virtqueue_enable(struct virtqueue *q);

/* 1: a chain, 0: none, -errno: the ring is broken (now and until reset: 0 from then on). */
int virtqueue_pop(struct virtqueue *q, struct virtqueue_chain *c);
/* True if a chain waits; looks at the ring without taking it. */
bool virtqueue_pending(struct virtqueue *q);
/* Takes back the last pop: the chain stays available. Several are taken back in reverse order; nothing may have been pushed in between. */
void virtqueue_unpop(struct virtqueue *q, const struct virtqueue_chain *c);
/* Gives a chain back, in any order; looks at id and slots only. `written`: bytes stored to c->w from its beginning. */
void virtqueue_push(struct virtqueue *q, const struct virtqueue_chain *c, uint32_t written);

/* Gives several back at once: the driver sees all of them or none, which is what buffers of one frame need (5.1.6.4). */
struct virtqueue_used {
	uint16_t id, slots;       /* of the chain */
	uint32_t written;
};
void virtqueue_push_all(struct virtqueue *q, const struct virtqueue_used *u, unsigned n);

/* After a batch of pushes: does the driver want a signal? */
bool virtqueue_should_signal(struct virtqueue *q);
/* Asks the driver not to kick while the device is at work anyway (a hint). */
void virtqueue_kicks_off(struct virtqueue *q);
/* Asks for kicks again. True: a chain has come meanwhile for which no kick may come, so look once more. */
bool virtqueue_kicks_on(struct virtqueue *q);

#endif
