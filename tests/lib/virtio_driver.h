/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What every model driver of a virtio device does: the initialisation of 3.1.1, with rings (vring.h) at fixed places in guest
 * memory: 16 KiB a queue from 0x10000 on. Buffers belong behind VD_BUFFERS.
 */
#ifndef TESTS_LIB_VIRTIO_DRIVER_H
#define TESTS_LIB_VIRTIO_DRIVER_H

#include "dev/virtio/virtio.h"
#include "host/evloop.h"
#include "vring.h"

#define VD_RING 64
#define VD_BUFFERS 0x80000ull

/* Resets the device and sets it up with `features` of what is offered, and `queues` queues. io->lock is taken. */
static inline void vd_negotiate(struct virtio_dev *v, struct vdrv *q, unsigned queues, uint64_t features)
{
	const uint8_t driver = VIRTIO_CONFIG_S_ACKNOWLEDGE | VIRTIO_CONFIG_S_DRIVER;

	pthread_mutex_lock(&v->io->lock);
	virtio_set_status(v, 0);
	virtio_set_status(v, driver);
	features |= BIT(VIRTIO_F_VERSION_1);
	virtio_accept(v, 0, (uint32_t)features);
	virtio_accept(v, 1, (uint32_t)(features >> 32));
	virtio_set_status(v, driver | VIRTIO_CONFIG_S_FEATURES_OK);
	for (unsigned i = 0; i < queues; i++) {
		struct virtqueue *vq = virtio_queue(v, i);
		gpa_t base = 0x10000 + 0x4000ull * i;

		vdrv_init(&q[i], v->io->mem, VD_RING, features & BIT(VIRTIO_F_RING_PACKED),
			  features & BIT(VIRTIO_RING_F_EVENT_IDX), false);
		vq->size = VD_RING;
		vq->desc = q[i].desc = base;
		vq->driver = q[i].driver = base + 0x1000;
		vq->device = q[i].device = base + 0x2000;
		memset(vat(&q[i], base), 0, 0x4000);
		virtio_queue_enable(v, i);
	}
	virtio_set_status(v, driver | VIRTIO_CONFIG_S_FEATURES_OK | VIRTIO_CONFIG_S_DRIVER_OK);
	pthread_mutex_unlock(&v->io->lock);
}

static inline void vd_kick(struct virtio_dev *v, unsigned queue)
{
	pthread_mutex_lock(&v->io->lock);
	virtio_notify(v, queue);
	pthread_mutex_unlock(&v->io->lock);
}

/* The loop's thread, until it has nothing to do (bounded: a descriptor may stay ready). */
static inline void vd_loop(struct evloop *loop)
{
	for (unsigned i = 0; i < 20 && evloop_wait(loop, 0) > 0; i++)
		;
}

#endif
