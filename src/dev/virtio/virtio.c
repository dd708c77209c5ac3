/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What all virtio devices have in common: negotiation, status, reset, failure.
 *
 * Invariant and locking: see virtio.h. Status only gains bits until it is written 0 (2.1.1), whatever the driver writes.
 */
#include "dev/virtio/virtio.h"

#include <errno.h>
#include <linux/virtio_ring.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"

#define RING_FEATURES                                                                                                          \
	(BIT(VIRTIO_F_VERSION_1) | BIT(VIRTIO_F_RING_PACKED) | BIT(VIRTIO_RING_F_INDIRECT_DESC) | BIT(VIRTIO_RING_F_EVENT_IDX))
#define STATUS_WRITABLE                                                                                                        \
	(VIRTIO_CONFIG_S_ACKNOWLEDGE | VIRTIO_CONFIG_S_DRIVER | VIRTIO_CONFIG_S_DRIVER_OK | VIRTIO_CONFIG_S_FEATURES_OK |        \
	 VIRTIO_CONFIG_S_FAILED)
/* A guest must not be able to fill the host's log. */
#define MAX_COMPLAINTS 4

static void expire(void *opaque, uint64_t now)
{
	struct virtio_dev *v = opaque;
	uint64_t queues = v->deferred;

	(void)now;
	v->deferred = 0;
	for (unsigned i = 0; i < v->nqueues; i++)
		if ((queues >> i & 1) && v->queue[i].enabled && virtio_live(v))
			v->ops->notify(v, i);
}

int virtio_init(struct virtio_dev *v, struct io *io, const struct virtio_setup *setup)
{
	BUG_ON(!setup->nqueues || setup->nqueues > VIRTIO_MAX_QUEUES || setup->queue_size > VIRTQUEUE_MAX_SIZE);
	*v = (struct virtio_dev){
		.ops = setup->ops, .io = io, .offered = setup->features | RING_FEATURES, .nqueues = setup->nqueues,
		.config = setup->config, .config_len = setup->config_len,
	};
	v->queue = calloc(v->nqueues, sizeof(*v->queue));
	if (!v->queue || (setup->pieces && virtqueue_chain_init(&v->chain, setup->pieces) < 0)) {
		free(v->queue);
		return -ENOMEM;
	}
	for (unsigned i = 0; i < v->nqueues; i++) {
		v->queue[i] = (struct virtqueue){
			.mem = io->mem, .size_max = setup->queue_size, .max_bytes = setup->max_bytes};
		virtqueue_reset(&v->queue[i]);
	}
	pthread_cond_init(&v->idle, NULL);
	v->timer = (struct io_timer){.expire = expire, .opaque = v};
	io_timer_register(io, &v->timer);
	return 0;
}

void virtio_fini(struct virtio_dev *v)
{
	io_timer_unregister(v->io, &v->timer);
	pthread_cond_destroy(&v->idle);
	virtqueue_chain_fini(&v->chain);
	free(v->queue);
	v->queue = NULL;
}

bool virtio_live(const struct virtio_dev *v)
{
	return (v->status & (VIRTIO_CONFIG_S_DRIVER_OK | VIRTIO_CONFIG_S_NEEDS_RESET)) == VIRTIO_CONFIG_S_DRIVER_OK &&
	       !v->resetting;
}

void virtio_fail(struct virtio_dev *v, const char *why)
{
	if (v->status & VIRTIO_CONFIG_S_NEEDS_RESET)
		return;
	if (v->complaints++ < MAX_COMPLAINTS)
		log_info("virtio-%s: guest driver: %s; device stopped until its driver resets it", v->ops->name, why);
	v->status |= VIRTIO_CONFIG_S_NEEDS_RESET;
	/* 2.1.2: the driver is told only if it has said DRIVER_OK. */
	if ((v->status & VIRTIO_CONFIG_S_DRIVER_OK) && v->transport)
		v->transport->config_changed(v->transport_opaque);
}

/* Turns a queue found broken into the device's failure. */
static bool queue_failed(struct virtio_dev *v, unsigned queue)
{
	if (!v->queue[queue].broken)
		return false;
	virtio_fail(v, v->queue[queue].why);
	return true;
}

int virtio_pop(struct virtio_dev *v, unsigned queue, struct virtqueue_chain *c)
{
	int n;

	if (!virtio_live(v))
		return 0;
	n = virtqueue_pop(&v->queue[queue], c);
	return queue_failed(v, queue) ? 0 : n;
}

void virtio_signal(struct virtio_dev *v, unsigned queue)
{
	if (!virtqueue_should_signal(&v->queue[queue])) {
		(void)queue_failed(v, queue);
		return;
	}
	if (virtio_live(v) && v->transport)
		v->transport->signal(v->transport_opaque, queue);
}

void virtio_config_changed(struct virtio_dev *v)
{
	v->generation++;
	if ((v->status & VIRTIO_CONFIG_S_DRIVER_OK) && !v->resetting && v->transport)
		v->transport->config_changed(v->transport_opaque);
}

void virtio_defer(struct virtio_dev *v, unsigned queue, uint64_t when)
{
	if (!v->deferred || when < v->timer.deadline)
		io_timer_arm(v->io, &v->timer, when);
	v->deferred |= BIT(queue);
}

void virtio_hold(struct virtio_dev *v)
{
	v->holds++;
}

void virtio_release(struct virtio_dev *v)
{
	BUG_ON(!v->holds);
	if (!--v->holds)
		pthread_cond_broadcast(&v->idle);
}

void virtio_reset(struct virtio_dev *v)
{
	if (v->resetting)
		return; /* another vCPU waits below */
	v->resetting = true;
	while (v->holds)
		pthread_cond_wait(&v->idle, &v->io->lock);
	if (v->ops->reset)
		v->ops->reset(v);
	for (unsigned i = 0; i < v->nqueues; i++)
		virtqueue_reset(&v->queue[i]);
	io_timer_cancel(v->io, &v->timer);
	v->deferred = 0;
	v->status = 0;
	v->features = 0;
	v->driver_features = 0;
	v->resetting = false;
}

uint32_t virtio_offered(const struct virtio_dev *v, uint32_t select)
{
	return select < 2 ? (uint32_t)(v->offered >> (32 * select)) : 0;
}

uint32_t virtio_accepted(const struct virtio_dev *v, uint32_t select)
{
	return select < 2 ? (uint32_t)(v->driver_features >> (32 * select)) : 0;
}

void virtio_accept(struct virtio_dev *v, uint32_t select, uint32_t val)
{
	unsigned shift = 32 * (select & 1);

	/* 3.1.1: not after FEATURES_OK. */
	if (select < 2 && !(v->status & VIRTIO_CONFIG_S_FEATURES_OK))
		v->driver_features = (v->driver_features & ~(0xffffffffull << shift)) | (uint64_t)val << shift;
}

/* 2.2.2, 6.1: nothing that was not offered, and no driver of before 1.0. */
static bool features_ok(struct virtio_dev *v)
{
	if ((v->driver_features & ~v->offered) || !(v->driver_features & BIT(VIRTIO_F_VERSION_1)))
		return false;
	v->features = v->driver_features;
	return true;
}

static void driver_ok(struct virtio_dev *v)
{
	if (v->ops->driver_ok)
		v->ops->driver_ok(v);
	/* Buffers made available before are no news that a kick would announce. */
	for (unsigned i = 0; i < v->nqueues; i++)
		virtio_notify(v, i);
}

void virtio_set_status(struct virtio_dev *v, uint8_t val)
{
	uint8_t gained = val & STATUS_WRITABLE & ~v->status;

	if (!val) {
		virtio_reset(v);
		return;
	}
	if (v->resetting)
		return;
	if ((gained & VIRTIO_CONFIG_S_FEATURES_OK) && !features_ok(v))
		gained &= ~VIRTIO_CONFIG_S_FEATURES_OK;
	if (!((v->status | gained) & VIRTIO_CONFIG_S_FEATURES_OK))
		gained &= ~VIRTIO_CONFIG_S_DRIVER_OK;
	v->status |= gained;
	if (gained & VIRTIO_CONFIG_S_DRIVER_OK)
		driver_ok(v);
}

struct virtqueue *virtio_queue(struct virtio_dev *v, uint32_t queue)
{
	return queue < v->nqueues ? &v->queue[queue] : NULL;
}

void virtio_queue_enable(struct virtio_dev *v, uint32_t queue)
{
	struct virtqueue *q = virtio_queue(v, queue);

	if (!q || q->enabled || v->resetting)
		return;
	if (!(v->status & VIRTIO_CONFIG_S_FEATURES_OK)) {
		virtio_fail(v, "a queue enabled before FEATURES_OK");
		return;
	}
	q->packed = virtio_has(v, VIRTIO_F_RING_PACKED);
	q->event_idx = virtio_has(v, VIRTIO_RING_F_EVENT_IDX);
	q->indirect = virtio_has(v, VIRTIO_RING_F_INDIRECT_DESC);
	if (virtqueue_enable(q) < 0)
		virtio_fail(v, "a queue of a wrong size or alignment");
}

void virtio_notify(struct virtio_dev *v, uint32_t queue)
{
	struct virtqueue *q = virtio_queue(v, queue);

	if (!q || !q->enabled || !virtio_live(v))
		return;
	q->kicks++;
	v->ops->notify(v, queue);
}

uint64_t virtio_config_read(struct virtio_dev *v, uint64_t off, unsigned size)
{
	uint64_t val = 0;

	if (off < v->config_len && size <= sizeof(val))
		memcpy(&val, (const uint8_t *)v->config + off, size < v->config_len - off ? size : v->config_len - off);
	return val;
}

void virtio_config_write(struct virtio_dev *v, uint64_t off, unsigned size, uint64_t val)
{
	if (v->ops->config_write && off < v->config_len && size <= v->config_len - off && !v->resetting)
		v->ops->config_write(v, (unsigned)off, size, val);
}

static void queue_state(struct virtqueue *q, struct io_state *s)
{
	DEV_FIELD(s, q, desc);
	DEV_FIELD(s, q, driver);
	DEV_FIELD(s, q, device);
	DEV_FIELD(s, q, size);
	DEV_BOOL(s, q, enabled);
	DEV_BOOL(s, q, packed);
	DEV_BOOL(s, q, event_idx);
	DEV_BOOL(s, q, indirect);
	DEV_BOOL(s, q, broken);
	DEV_BOOL(s, q, kicks_off);
	DEV_FIELD(s, q, avail);
	DEV_FIELD(s, q, used);
	DEV_BOOL(s, q, avail_wrap);
	DEV_BOOL(s, q, used_wrap);
	DEV_FIELD(s, q, unsignalled);
	DEV_BOOL(s, q, signal_always);
	/* A forged stream must not make positions leave the ring. */
	if (!q->size || q->size > q->size_max || (!q->packed && (q->size & (q->size - 1))))
		q->size = q->size_max;
	if (q->packed) {
		q->avail %= q->size;
		q->used %= q->size;
	}
	if (q->broken && !q->why)
		q->why = "broken before it was saved";
}

void virtio_state(struct virtio_dev *v, struct io_state *s)
{
	DEV_FIELD(s, v, driver_features);
	DEV_FIELD(s, v, features);
	DEV_FIELD(s, v, status);
	DEV_FIELD(s, v, generation);
	DEV_FIELD(s, v, deferred);
	DEV_FIELD(s, v, timer.deadline);
	v->features &= v->offered;
	for (unsigned i = 0; i < v->nqueues; i++)
		queue_state(&v->queue[i], s);
	if (v->ops->state)
		v->ops->state(v, s);
}
