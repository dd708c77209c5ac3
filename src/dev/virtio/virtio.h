/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A virtio device without its transport: status, features, queues, configuration space. Devices (blk.c, net.c, ...) put a
 * struct virtio_dev into their own structure and fill in struct virtio_ops; transports (pci.c, mmio.c) show it to the guest.
 *
 * A device's request path, all of it with io->lock held:
 *
 *   notify(v, queue)                       a driver's kick, on a vCPU thread
 *     virtqueue_kicks_off
 *     while virtio_pop(v, queue, &chain) > 0:      (at most a ring's worth; then leave the rest for the next completion)
 *         answer at once: io_dma_read/io_dma_write, virtqueue_push(q, &chain, written)
 *         or later:       virtio_hold(v); hand chain.r/chain.w pieces to the host; when done (main thread, taking io->lock):
 *                         io_dma_written(), virtqueue_push, virtio_signal, virtio_release(v)
 *     virtqueue_kicks_on: true = look again
 *     virtio_signal(v, queue)
 *
 * Invariant: after reset no request of before holds guest memory: virtio_reset() waits, letting go of io->lock, until all holds
 * are released; meanwhile virtio_pop() yields nothing. Guest data that breaks the rules ends in virtio_fail(): NEEDS_RESET and a
 * configuration interrupt; then nothing is taken any more until the driver resets the device.
 * Locking: io->lock for everything.
 * Spec: virtio 1.2, ch. 2 and 3.
 */
#ifndef DEV_VIRTIO_VIRTIO_H
#define DEV_VIRTIO_VIRTIO_H

#include <linux/virtio_config.h>
#include <linux/virtio_ids.h>

#include "dev/device.h"
#include "dev/virtio/queue.h"

#define VIRTIO_MAX_QUEUES 64

struct virtio_dev;

struct virtio_ops {
	const char *name;
	uint16_t id;                /* VIRTIO_ID_*: PCI device 1040h + id */
	uint32_t pci_class;         /* 24 bits: class, subclass, interface */
	/* The driver writes size (1, 2, 4, 8) bytes of configuration space at off, inside config_len. NULL: read-only. */
	void (*config_write)(struct virtio_dev *v, unsigned off, unsigned size, uint64_t val);
	/* A kick, or DRIVER_OK with the queue enabled. The device is live. */
	void (*notify)(struct virtio_dev *v, unsigned queue);
	/* DRIVER_OK: features are final, the queues that will be used are enabled. Optional. */
	void (*driver_ok)(struct virtio_dev *v);
	/* Back to power-on state; no holds are left, queues are reset afterwards. Optional. */
	void (*reset)(struct virtio_dev *v);
	/* The device's own fields; queues and status are walked by virtio_state(). Optional. */
	void (*state)(struct virtio_dev *v, struct io_state *s);
	/* Frees the device; calls virtio_fini(). No holds are left. */
	void (*destroy)(struct virtio_dev *v);
};

/* The transport's side, called by virtio.c. */
struct virtio_transport_ops {
	void (*signal)(void *opaque, unsigned queue);   /* used buffer notification */
	void (*config_changed)(void *opaque);           /* configuration change notification */
};

struct virtio_dev {
	const struct virtio_ops *ops;
	struct io *io;
	const struct virtio_transport_ops *transport;
	void *transport_opaque;
	uint64_t offered;           /* feature bits */
	uint64_t driver_features;   /* as written, not yet accepted */
	uint64_t features;          /* negotiated: a subset of offered, 0 before FEATURES_OK */
	uint8_t status;
	uint8_t generation;         /* of the configuration space */
	bool resetting;
	unsigned holds;             /* requests in the hands of the host */
	pthread_cond_t idle;        /* holds became 0; goes with io->lock */
	void *config;               /* configuration space, little endian, part of the device's own structure */
	unsigned config_len;
	unsigned nqueues;
	struct virtqueue *queue;
	struct virtqueue_chain chain;   /* for the device: what it works on right now, if that is one chain */
	uint64_t deferred;          /* a bit per queue to look at when the timer expires */
	struct io_timer timer;
	unsigned complaints;        /* log lines about this guest driver so far */
};

/* --- for devices ---------------------------------------------------------------------------------------------------------- */

struct virtio_setup {
	const struct virtio_ops *ops;
	uint64_t features;          /* the device's own; virtio.c adds those of the rings and VERSION_1 */
	unsigned nqueues;
	uint16_t queue_size;        /* largest, for all queues; v->queue[i].size_max may be changed before use */
	uint64_t max_bytes;         /* of one chain */
	unsigned pieces;            /* room in v->chain; 0 if the device has chains of its own */
	void *config;
	unsigned config_len;
};

/* 0 or -ENOMEM. */
int virtio_init(struct virtio_dev *v, struct io *io, const struct virtio_setup *setup);
void virtio_fini(struct virtio_dev *v);

static inline bool virtio_has(const struct virtio_dev *v, unsigned bit) { return v->features & BIT(bit); }

/* DRIVER_OK, not broken, not being reset. */
bool virtio_live(const struct virtio_dev *v);
/* virtqueue_pop() on a live device; a broken ring is reported to the driver. 1: a chain; 0: none. */
int virtio_pop(struct virtio_dev *v, unsigned queue, struct virtqueue_chain *c);
/* After pushes: interrupts the driver if it wants to know. */
void virtio_signal(struct virtio_dev *v, unsigned queue);
/* The configuration space has been changed by the device. */
void virtio_config_changed(struct virtio_dev *v);
/* The driver broke the rules: NEEDS_RESET. `why` continues "guest driver: ". */
void virtio_fail(struct virtio_dev *v, const char *why);
/* Looks at the queue (ops->notify) again at io_now() time `when`: what is left over when a budget is used up. */
void virtio_defer(struct virtio_dev *v, unsigned queue, uint64_t when);
/* A request keeps pointers into guest memory, or will call back. */
void virtio_hold(struct virtio_dev *v);
void virtio_release(struct virtio_dev *v);

/* --- for transports --------------------------------------------------------------------------------------------------------- */

/* Writes to device_status; 0 resets. */
void virtio_set_status(struct virtio_dev *v, uint8_t val);
/* Back to power-on state, waiting for requests in the hands of the host (io->lock is let go of meanwhile). */
void virtio_reset(struct virtio_dev *v);
/* 32 bits of the offered / accepted features; `select` picks which, 0 for what does not exist. */
uint32_t virtio_offered(const struct virtio_dev *v, uint32_t select);
uint32_t virtio_accepted(const struct virtio_dev *v, uint32_t select);
void virtio_accept(struct virtio_dev *v, uint32_t select, uint32_t val);
/* The queue if there is one. */
struct virtqueue *virtio_queue(struct virtio_dev *v, uint32_t queue);
void virtio_queue_enable(struct virtio_dev *v, uint32_t queue);
void virtio_notify(struct virtio_dev *v, uint32_t queue);
/* size 1, 2, 4 or 8; what lies outside reads 0 and is not written. */
uint64_t virtio_config_read(struct virtio_dev *v, uint64_t off, unsigned size);
void virtio_config_write(struct virtio_dev *v, uint64_t off, unsigned size, uint64_t val);
void virtio_state(struct virtio_dev *v, struct io_state *s);

#endif
