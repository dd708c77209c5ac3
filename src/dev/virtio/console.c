/* SPDX-License-Identifier: Apache-2.0 */
/*
 * virtio-console: one port. Queue 0 carries what is typed, queue 1 what the guest puts out.
 *
 * When the host's side takes no more, the chain that was under way goes back into the ring, `sent` remembers how far it was, and nothing is taken
 * until virtio_console_drained(). Nothing is buffered here, so there is nothing that a guest could fill.
 *
 * Linux reads the terminal's size when it is told of a change and at no other time, and has no port to give it to while its driver starts; so
 * it is told a few times, a while after that. (With MULTIPORT the size would come as a message, in an order of its fields that kernels and
 * specification do not agree about.)
 *
 * Invariant: `sent` bytes of the next chain of the transmit queue have been put out; with `stuck` put() has refused, and drained() will come.
 * Locking: io->lock. Spec: virtio 1.2, 5.3.
 */
#include "dev/virtio/console.h"

#include <errno.h>
#include <linux/virtio_console.h>
#include <stdlib.h>

enum { RECEIVE, TRANSMIT, NQUEUES };
#define QUEUE_SIZE 128
#define MAX_PIECES 64
#define MAX_BYTES (64u << 10)
#define CHUNK 512u
#define TELLS 3u                    /* of the size, after the driver's start */
#define TELL_FIRST_NS NS_PER_SEC
#define TELL_AGAIN_NS (4 * NS_PER_SEC)
/* MULTIPORT is not offered: one port is what a console needs. */
#define FEATURES (BIT(VIRTIO_CONSOLE_F_SIZE) | BIT(VIRTIO_CONSOLE_F_EMERG_WRITE))

struct hvc {
	struct virtio_dev v;
	struct virtio_console_options opt;
	struct virtio_console_config space;
	uint32_t sent;
	bool stuck;
	unsigned tells;              /* how often the size is still to be told */
	uint64_t next_tell;
};

static struct hvc *self(struct virtio_dev *v)
{
	return container_of(v, struct hvc, v);
}

/* --- from the guest ------------------------------------------------------------------------------------------------- */

/* The rest of the chain. False: not all of it was taken. */
static bool put_chain(struct hvc *d)
{
	uint8_t buf[CHUNK];
	size_t n, taken;

	while ((n = io_dma_read(&d->v.chain.r, d->sent, buf, sizeof(buf))) > 0) {
		taken = d->opt.put(d->opt.opaque, buf, n);
		d->sent += (uint32_t)taken;
		if (taken < n)
			return false;
	}
	d->sent = 0;
	return true;
}

static void tell_size(struct hvc *d)
{
	if (!d->tells)
		return;
	if (io_now(d->v.io) >= d->next_tell) {
		d->tells--;
		d->next_tell += TELL_AGAIN_NS;
		virtio_config_changed(&d->v);
	}
	if (d->tells)
		virtio_defer(&d->v, TRANSMIT, d->next_tell);
}

static void transmit(struct hvc *d)
{
	struct virtio_dev *v = &d->v;
	struct virtqueue *q = &v->queue[TRANSMIT];

	virtqueue_kicks_off(q);
	for (unsigned n = 0; !d->stuck && n < QUEUE_SIZE && virtio_pop(v, TRANSMIT, &d->v.chain) > 0; n++) {
		d->stuck = !put_chain(d);
		if (d->stuck)
			virtqueue_unpop(q, &d->v.chain);
		else
			virtqueue_push(q, &d->v.chain, 0);
	}
	if (!d->stuck && virtqueue_kicks_on(q)) {
		virtqueue_kicks_off(q);
		virtio_defer(v, TRANSMIT, io_now(v->io));
	}
	virtio_signal(v, TRANSMIT);
	tell_size(d);
}

static void driver_ok(struct virtio_dev *v)
{
	struct hvc *d = self(v);

	d->tells = d->space.cols && virtio_has(v, VIRTIO_CONSOLE_F_SIZE) ? TELLS : 0;
	d->next_tell = io_now(v->io) + TELL_FIRST_NS;
}

void virtio_console_drained(void *dev)
{
	struct hvc *d = self(dev);

	if (!d->stuck)
		return;
	d->stuck = false;
	if (virtio_live(&d->v) && d->v.queue[TRANSMIT].enabled)
		transmit(d);
}

static void notify(struct virtio_dev *v, unsigned queue)
{
	struct hvc *d = self(v);

	if (queue == TRANSMIT)
		transmit(d);
	else if (d->opt.room)
		d->opt.room(d->opt.opaque);
}

/* --- to the guest ----------------------------------------------------------------------------------------------------- */

size_t virtio_console_input(void *dev, const uint8_t *buf, size_t n)
{
	struct hvc *d = self(dev);
	struct virtqueue *q = &d->v.queue[RECEIVE];
	size_t done = 0;

	/* Empty buffers, which no driver has reason to offer, go back: as many as one lap has. */
	for (unsigned i = 0; done < n && i < QUEUE_SIZE && virtio_pop(&d->v, RECEIVE, &d->v.chain) > 0; i++) {
		size_t part = io_dma_write(d->v.io->mem, &d->v.chain.w, 0, buf + done, n - done);

		virtqueue_push(q, &d->v.chain, (uint32_t)part);
		done += part;
	}
	virtio_signal(&d->v, RECEIVE);
	return done;
}

void virtio_console_resize(void *dev, uint16_t cols, uint16_t rows)
{
	struct hvc *d = self(dev);

	if (d->space.cols == cols && d->space.rows == rows)
		return;
	d->space.cols = cols;
	d->space.rows = rows;
	virtio_config_changed(&d->v);
}

/* --- the device --------------------------------------------------------------------------------------------------------- */

/* 5.3.4: one character for a driver in distress, before any queue is set up. If it does not fit it is lost. */
static void config_write(struct virtio_dev *v, unsigned off, unsigned size, uint64_t val)
{
	struct hvc *d = self(v);
	uint8_t byte = (uint8_t)val;

	(void)size;
	if (off == offsetof(struct virtio_console_config, emerg_wr))
		(void)d->opt.put(d->opt.opaque, &byte, 1);
}

static void reset(struct virtio_dev *v)
{
	struct hvc *d = self(v);

	d->sent = 0;
	d->stuck = false;
	d->tells = 0;
}

static void state(struct virtio_dev *v, struct io_state *s)
{
	struct hvc *d = self(v);

	DEV_FIELD(s, d, space);
	DEV_FIELD(s, d, sent);
	DEV_BOOL(s, d, stuck);
	DEV_FIELD(s, d, tells);
	DEV_FIELD(s, d, next_tell);
}

static void destroy(struct virtio_dev *v)
{
	struct hvc *d = self(v);

	virtio_fini(v);
	free(d);
}

static const struct virtio_ops console_ops = {
	.name = "console",
	.id = VIRTIO_ID_CONSOLE,
	.pci_class = 0x078000, /* a communication controller of no common kind */
	.config_write = config_write,
	.notify = notify,
	.driver_ok = driver_ok,
	.reset = reset,
	.state = state,
	.destroy = destroy,
};

int virtio_console_create(struct io *io, const struct virtio_console_options *opt, struct virtio_dev **out)
{
	struct hvc *d = calloc(1, sizeof(*d));
	struct virtio_setup setup = {
		.ops = &console_ops, .features = FEATURES, .nqueues = NQUEUES, .queue_size = QUEUE_SIZE, .max_bytes = MAX_BYTES,
		.pieces = MAX_PIECES};
	int err;

	if (!d)
		return -ENOMEM;
	d->opt = *opt;
	d->space = (struct virtio_console_config){.cols = opt->cols, .rows = opt->rows, .max_nr_ports = 1};
	setup.config = &d->space;
	setup.config_len = sizeof(d->space);
	err = virtio_init(&d->v, io, &setup);
	if (err) {
		free(d);
		return err;
	}
	*out = &d->v;
	return 0;
}
