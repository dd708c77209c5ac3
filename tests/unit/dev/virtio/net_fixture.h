/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A virtio-net device between a model driver (vring.h) and a backend that is a pair of lists. Everything hangs off struct netdev, whose
 * guest memory is one extent. Shared by the unit test and the fuzzer.
 */
#ifndef TESTS_UNIT_DEV_VIRTIO_NET_FIXTURE_H
#define TESTS_UNIT_DEV_VIRTIO_NET_FIXTURE_H

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "dev/virtio/net.h"
#include "lib/virtio_driver.h"

#define ND_QUEUES 5            /* two pairs and the control queue */
#define ND_RING VD_RING
#define ND_RX_BUF(i) (0x80000ull + 0x1000ull * (i))
#define ND_TX_BUF(i) (0x100000ull + 0x1000ull * (i))
#define ND_CTRL_BUF 0x70000ull
#define ND_FRAMES 64

struct nd_frame {
	struct virtio_net_hdr_v1 hdr;
	size_t len;
	uint8_t bytes[NET_FRAME_MAX];
};

/* The backend: what it has been given, and what it has to give. */
struct nd_backend {
	struct net_backend b;
	struct nd_frame sent[ND_FRAMES], pending[ND_FRAMES];
	unsigned nsent, first, npending;
	unsigned room;                 /* frames it still takes */
	unsigned offloads;
};

struct netdev {
	struct mem *mem;
	struct io io;
	struct evloop loop;
	struct nd_backend *backend;
	struct virtio_dev *v;
	struct vdrv q[ND_QUEUES];
	unsigned signals[ND_QUEUES], config_changes;
	unsigned rx_len;               /* of the driver's receive buffers */
};

static inline unsigned nd_send(struct net_backend *nb, unsigned queue, struct net_frame *f, unsigned n)
{
	struct nd_backend *b = container_of(nb, struct nd_backend, b);
	unsigned i;

	(void)queue;
	for (i = 0; i < n && b->room; i++, b->room--) {
		struct nd_frame *to = &b->sent[b->nsent++ % ND_FRAMES];

		to->hdr = f[i].hdr;
		to->len = 0;
		for (unsigned k = 0; k < f[i].niov; k++) {
			memcpy(to->bytes + to->len, f[i].iov[k].iov_base, f[i].iov[k].iov_len);
			to->len += f[i].iov[k].iov_len;
		}
		BUG_ON(to->len != f[i].len);
	}
	return i;
}

static inline int nd_peek(struct net_backend *nb, unsigned queue, struct net_rx *rx)
{
	struct nd_backend *b = container_of(nb, struct nd_backend, b);
	struct nd_frame *f = &b->pending[b->first % ND_FRAMES];

	if (queue || b->first == b->npending)
		return b->b.gone ? -EPIPE : 0;
	*rx = (struct net_rx){f->hdr, f->bytes, f->len};
	return 1;
}

static inline void nd_take(struct net_backend *nb, unsigned queue, const struct iovec *iov, unsigned niov)
{
	struct nd_backend *b = container_of(nb, struct nd_backend, b);
	struct nd_frame *f = &b->pending[b->first++ % ND_FRAMES];

	(void)queue;
	net_scatter(iov, niov, f->bytes, f->len);
}

static inline void nd_set_offloads(struct net_backend *nb, unsigned offloads)
{
	container_of(nb, struct nd_backend, b)->offloads = offloads;
}

static inline void nd_backend_destroy(struct net_backend *nb)
{
	struct nd_backend *b = container_of(nb, struct nd_backend, b);

	for (unsigned i = 0; i < b->b.queues; i++)
		close(b->b.source[i].fd);
	free(b);
}

static const struct net_backend_ops nd_ops = {
	.send = nd_send, .peek = nd_peek, .take = nd_take, .set_offloads = nd_set_offloads, .destroy = nd_backend_destroy,
};

/* A frame of `len` bytes arrives at the backend. */
static inline void nd_arrive(struct netdev *d, const uint8_t *bytes, size_t len)
{
	struct nd_frame *f = &d->backend->pending[d->backend->npending++ % ND_FRAMES];
	uint64_t one = 1;

	memset(&f->hdr, 0, sizeof(f->hdr));
	memcpy(f->bytes, bytes, len);
	f->len = len;
	if (write(d->backend->b.source[0].fd, &one, sizeof(one)) < 0)
		abort();
}

static inline void nd_loop(struct netdev *d) { vd_loop(&d->loop); }
static inline void nd_kick(struct netdev *d, unsigned queue) { vd_kick(d->v, queue); }

static inline void nd_signal(void *opaque, unsigned queue) { ((struct netdev *)opaque)->signals[queue]++; }
static inline void nd_config_changed(void *opaque) { ((struct netdev *)opaque)->config_changes++; }
static const struct virtio_transport_ops nd_transport = {nd_signal, nd_config_changed};

/* A driver that accepts `features` of what is offered and sets up `queues` queues. */
static inline void nd_start(struct netdev *d, uint64_t features, unsigned queues)
{
	vd_negotiate(d->v, d->q, queues, features);
	nd_loop(d);
}

static inline struct netdev *nd_create(unsigned pairs)
{
	static const uint8_t mac[NET_MAC_LEN] = {2, 1, 2, 3, 4, 5};
	struct netdev *d = calloc(1, sizeof(*d));
	struct nd_backend *b = calloc(1, sizeof(*b));
	struct virtio_net_setup setup = {.name = "net0", .loop = &d->loop, .mtu = 9000};

	if (!d || !b || mem_create(&d->mem, 4 << 20, 4 << 8) || mem_add_ram(d->mem, 0, VRING_RAM) || io_init(&d->io, d->mem))
		abort();
	evloop_init(&d->loop);
	b->b = (struct net_backend){.ops = &nd_ops, .name = "test", .queues = pairs, .rx_trusted = true};
	b->b.tx_offloads = b->b.rx_offloads = NET_OFFLOAD_CSUM | NET_OFFLOAD_TSO4 | NET_OFFLOAD_TSO6 | NET_OFFLOAD_ECN;
	for (unsigned i = 0; i < pairs; i++)
		b->b.source[i].fd = eventfd(0, EFD_NONBLOCK);
	b->room = ~0u;
	d->backend = b;
	setup.backend = &b->b;
	memcpy(setup.mac, mac, sizeof(mac));
	if (virtio_net_create(&d->io, &setup, &d->v))
		abort();
	d->v->transport = &nd_transport;
	d->v->transport_opaque = d;
	d->rx_len = 2048;
	return d;
}

static inline void nd_destroy(struct netdev *d)
{
	d->v->ops->destroy(d->v);
	io_fini(&d->io);
	mem_destroy(d->mem);
	free(d);
}

/* Gives the device n receive buffers; kicks if it wants that, and says whether it did. */
static inline bool nd_fill(struct netdev *d, unsigned n)
{
	struct vdrv *q = &d->q[0];

	for (unsigned i = 0; i < n; i++) {
		/* A buffer belongs to the id that comes next. */
		struct vbuf b = {ND_RX_BUF(q->free[q->nfree - 1]), d->rx_len, true};

		if (vdrv_add(q, &b, 1, false) < 0)
			abort();
	}
	if (!vdrv_should_kick(q))
		return false;
	nd_kick(d, 0);
	return true;
}

/* Sends a frame in buffer `slot`, the header in a descriptor of its own or not. */
static inline void nd_xmit(struct netdev *d, unsigned slot, const struct virtio_net_hdr_v1 *hdr, const void *bytes, size_t len, bool split)
{
	struct vdrv *q = &d->q[1];
	struct vbuf b[2] = {{ND_TX_BUF(slot), (uint32_t)sizeof(*hdr), false}, {ND_TX_BUF(slot) + sizeof(*hdr), (uint32_t)len, false}};

	memcpy(vat(q, ND_TX_BUF(slot)), hdr, sizeof(*hdr));
	memcpy(vat(q, ND_TX_BUF(slot) + sizeof(*hdr)), bytes, len);
	if (!split)
		b[0].len += (uint32_t)len;
	if (vdrv_add(q, b, split ? 2 : 1, false) < 0)
		abort();
	if (vdrv_should_kick(q))
		nd_kick(d, 1);
}

/* Makes a control command available and kicks. */
static inline void nd_command(struct netdev *d, unsigned queue, const void *data, size_t len)
{
	struct vdrv *q = &d->q[queue];
	struct vbuf b[2] = {{ND_CTRL_BUF, (uint32_t)len, false}, {ND_CTRL_BUF + 0x4000, 1, true}};

	memcpy(vat(q, ND_CTRL_BUF), data, len);
	*(uint8_t *)vat(q, ND_CTRL_BUF + 0x4000) = 0xff;
	if (vdrv_add(q, b, 2, false) < 0)
		abort();
	nd_kick(d, queue);
}

/* A control command; the device's answer, 0xff if it gave none. */
static inline uint8_t nd_control(struct netdev *d, unsigned queue, const void *data, size_t len)
{
	struct vdrv *q = &d->q[queue];
	uint32_t written;
	uint16_t id;

	nd_command(d, queue, data, len);
	if (!vdrv_take(q, &id, &written))
		return 0xff;
	vdrv_free(q, id);
	return *(uint8_t *)vat(q, ND_CTRL_BUF + 0x4000);
}

#endif
