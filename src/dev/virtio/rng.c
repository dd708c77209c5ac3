/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Entropy device: fills buffers from getrandom(2).
 *
 * Invariant: at most RNG_BURST bytes per RNG_PERIOD, however fast the guest asks: the rest waits for the timer. The host's generator
 * cannot be exhausted, so the bound is there for the time spent under io->lock.
 * Locking: io->lock. Spec: virtio 1.2, 5.4.
 */
#include "dev/virtio/rng.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/random.h>

enum { RNG_QUEUE_SIZE = 64, RNG_PIECES = 64, RNG_MAX_BYTES = 1 << 20, RNG_CHUNK = 256 };
#define RNG_PERIOD (10 * NS_PER_SEC / 1000)
#define RNG_BURST (64u << 10)

struct rng {
	struct virtio_dev v;
	uint32_t left;              /* bytes that may still be given in this period */
	uint64_t period_end;
};

static void refill(struct rng *d)
{
	uint64_t now = io_now(d->v.io);

	if (now < d->period_end)
		return;
	d->left = RNG_BURST;
	d->period_end = now + RNG_PERIOD;
}

/* Fills the chain as far as the budget goes; a short answer is allowed and never empty (5.4.6). */
static uint32_t fill(struct rng *d)
{
	uint8_t chunk[RNG_CHUNK];
	uint32_t done = 0;

	while (d->left && done < d->v.chain.w.bytes) {
		size_t n = d->left < sizeof(chunk) ? d->left : sizeof(chunk);

		if (n > d->v.chain.w.bytes - done)
			n = d->v.chain.w.bytes - done;
		if (getrandom(chunk, n, 0) != (ssize_t)n)
			break; /* never for 256 bytes or less */
		(void)io_dma_write(d->v.io->mem, &d->v.chain.w, done, chunk, n);
		done += (uint32_t)n;
		d->left -= (uint32_t)n;
	}
	return done;
}

/* Serves what waits until queue or budget are at their end; at most one lap of the ring with nothing to fill. */
static void serve(struct rng *d)
{
	struct virtqueue *q = &d->v.queue[0];

	refill(d);
	for (unsigned n = 0; d->left && n < q->size_max && virtio_pop(&d->v, 0, &d->v.chain) > 0; n++)
		virtqueue_push(q, &d->v.chain, fill(d));
}

static void notify(struct virtio_dev *v, unsigned queue)
{
	struct rng *d = container_of(v, struct rng, v);
	struct virtqueue *q = &v->queue[queue];

	virtqueue_kicks_off(q);
	serve(d);
	if (virtqueue_kicks_on(q)) {
		/* Out of budget, or more has come: later, and no kicks until then. */
		virtqueue_kicks_off(q);
		virtio_defer(v, queue, d->left ? io_now(v->io) : d->period_end);
	}
	virtio_signal(v, queue);
}

static void state(struct virtio_dev *v, struct io_state *s)
{
	struct rng *d = container_of(v, struct rng, v);

	DEV_FIELD(s, d, left);
	DEV_FIELD(s, d, period_end);
}

static void destroy(struct virtio_dev *v)
{
	struct rng *d = container_of(v, struct rng, v);

	virtio_fini(v);
	free(d);
}

static const struct virtio_ops rng_ops = {
	.name = "rng",
	.id = VIRTIO_ID_RNG,
	.pci_class = 0x00ff00,
	.notify = notify,
	.state = state,
	.destroy = destroy,
};

int virtio_rng_create(struct io *io, struct virtio_dev **out)
{
	const struct virtio_setup setup = {
		.ops = &rng_ops, .nqueues = 1, .queue_size = RNG_QUEUE_SIZE, .max_bytes = RNG_MAX_BYTES,
		.pieces = RNG_PIECES};
	struct rng *d = calloc(1, sizeof(*d));
	int err;

	if (!d)
		return -ENOMEM;
	err = virtio_init(&d->v, io, &setup);
	if (err) {
		free(d);
		return err;
	}
	*out = &d->v;
	return 0;
}
