/* SPDX-License-Identifier: Apache-2.0 */
/*
 * virtio-net: frames between a guest's queues and a host/net backend (virtio 1.2, 5.1).
 *
 * Sending happens where the driver kicks, on a vCPU's thread; what the carrier does not take waits in the ring until it can, and the
 * loop's thread sends it. Receiving happens on the loop's thread; without buffers of the guest's nothing is read, so frames wait in
 * the carrier, which knows what to do about it (a socket is full, a tap drops).
 *
 * Invariants: every chain is given back before the lock is let go of, so a reset never finds one in use. Headers are copied once and
 * checked by net_offload_check(). One call handles a bounded number of frames; `again` says that there are more.
 * Locking: io->lock. The sources' `events` belong to the loop's thread: others set flags and wake it (poke).
 */
#include "dev/virtio/net.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/log.h"
#include "base/stats.h"
#include "dev/virtio/netfilter.h"
#include "host/net/offload.h"

#define HDR_BYTES (sizeof(struct virtio_net_hdr_v1))
#define QUEUE_SIZE 256
#define MAX_BYTES (128u << 10)   /* of a chain: drivers round up to pages, and add one */
#define PIECES 256              /* of a chain */
#define TX_BATCH 16             /* chains handed to the backend at once */
#define TX_ROUNDS 32            /* batches in a row */
#define RX_CHAINS 64            /* buffers that one frame may be spread over */
#define RX_PIECES 1024          /* of all of them: one page each would be 17 */
#define RX_BATCH 32             /* frames in a row with the lock held */
#define RX_ROUNDS 8             /* such batches in a row */
#define CTRL_BYTES (2 * (4 + 1024 * NET_MAC_LEN))

/* What the loop calls for one of the backend's sources. */
struct source {
	struct virtio_net *net;
	unsigned queue;
};

struct virtio_net {
	struct virtio_dev v;
	struct virtio_net_config config;
	struct net_backend *backend;
	struct evloop *loop;
	struct ev_source wake;          /* an eventfd: see poke() */
	struct source source[NET_MAX_QUEUES];
	unsigned pairs, pairs_used;
	unsigned tx_allowed;            /* enum net_offload the driver may use */
	uint8_t mac[NET_MAC_LEN];       /* at power-on */
	struct netfilter filter;
	/* A bit per queue pair. */
	uint32_t starved;               /* receive: the driver must bring buffers first */
	uint32_t blocked;               /* send: the carrier is full */
	uint32_t again;                 /* send: the kick had more than its share */
	uint32_t ready;                 /* receive, by source: frames may wait where poll() does not see them */
	struct virtio_net_stats stats;
	struct stats_source stats_source;
	/* Work space of one call, made at creation. */
	struct virtqueue_chain tx[TX_BATCH], rx[RX_CHAINS];
	struct net_frame frame[TX_BATCH];
	struct iovec tx_iov[TX_BATCH][1 + PIECES];
	uint8_t head[TX_BATCH][NET_HEAD];
	struct iovec rx_iov[RX_PIECES];
	struct virtqueue_used used[RX_CHAINS];
	uint8_t command[CTRL_BYTES];
};

static struct virtio_net *to_net(struct virtio_dev *v)
{
	return container_of(v, struct virtio_net, v);
}

static unsigned rx_queue(unsigned pair) { return 2 * pair; }
static unsigned tx_queue(unsigned pair) { return 2 * pair + 1; }

/* 5.1.2: behind the pairs there may be, if the driver knows of more than one. */
static unsigned ctrl_queue(const struct virtio_net *n)
{
	return virtio_has(&n->v, VIRTIO_NET_F_MQ) ? 2 * n->pairs : 2;
}

/* Has the loop's thread look at the flags. */
static void poke(struct virtio_net *n)
{
	uint64_t one = 1;

	(void)!write(n->wake.fd, &one, sizeof(one));
}

/* Frames of every source may be deliverable now. */
static void look_at_all(struct virtio_net *n)
{
	n->ready = (1u << n->backend->queues) - 1;
	poke(n);
}

/* --- sending -------------------------------------------------------------------------------------------------------------- */

/* Makes a frame of a chain. False: it is none, and is dropped. */
static bool tx_frame(struct virtio_net *n, struct net_frame *f, unsigned slot, struct virtqueue_chain *c)
{
	*f = (struct net_frame){.head = n->head[slot], .iov = n->tx_iov[slot], .niov = 1};
	if (c->r.bytes < HDR_BYTES || io_dma_read(&c->r, 0, &f->hdr, HDR_BYTES) != HDR_BYTES)
		return false;
	io_dma_trim_front(&c->r, HDR_BYTES);
	f->len = c->r.bytes;
	f->head_len = io_dma_read(&c->r, 0, f->head, NET_HEAD);
	io_dma_trim_front(&c->r, f->head_len);
	f->iov[0] = (struct iovec){f->head, f->head_len};
	memcpy(f->iov + 1, c->r.iov, c->r.n * sizeof(*f->iov));
	f->niov += c->r.n;
	return net_offload_check(f, n->tx_allowed) == 0;
}

/* Sends up to a batch. The number of chains given back; *full: the carrier took no more. */
static unsigned tx_batch(struct virtio_net *n, unsigned pair, bool *full)
{
	struct virtqueue *q = &n->v.queue[tx_queue(pair)];
	unsigned chains = 0, frames = 0, sent, done, lost, owner[TX_BATCH];
	uint64_t lost_before = n->backend->tx_dropped;

	while (chains < TX_BATCH && virtio_pop(&n->v, tx_queue(pair), &n->tx[chains]) > 0) {
		if (tx_frame(n, &n->frame[frames], chains, &n->tx[chains]))
			owner[frames++] = chains;
		chains++;
	}
	sent = net_send(n->backend, pair % n->backend->queues, n->frame, frames);
	*full = sent < frames || n->backend->tx_pending;
	done = sent < frames ? owner[sent] : chains;
	lost = (unsigned)(n->backend->tx_dropped - lost_before);
	stats_add(&n->stats.tx_frames, sent - lost);
	stats_add(&n->stats.tx_dropped, done - sent + lost);
	for (unsigned i = 0; i < sent; i++)
		stats_add(&n->stats.tx_bytes, n->frame[i].len);
	while (chains > done)
		virtqueue_unpop(q, &n->tx[--chains]);
	for (unsigned i = 0; i < done; i++)
		virtqueue_push(q, &n->tx[i], 0);
	return done;
}

static void tx(struct virtio_net *n, unsigned pair)
{
	struct virtqueue *q = &n->v.queue[tx_queue(pair)];
	bool full = false;
	unsigned round;

	n->again &= ~(1u << pair);
	if (n->blocked & (1u << pair))
		return;
	virtqueue_kicks_off(q);
	for (round = 0; round < TX_ROUNDS && !full; round++)
		if (tx_batch(n, pair, &full) == 0 && !full && !virtqueue_kicks_on(q))
			break;
	virtio_signal(&n->v, tx_queue(pair));
	if (full)
		n->blocked |= 1u << pair;
	else if (round == TX_ROUNDS)
		n->again |= 1u << pair;
	if (full || round == TX_ROUNDS)
		poke(n);
}

/* --- receiving ------------------------------------------------------------------------------------------------------------ */

enum delivery { DELIVERED, NO_BUFFERS, NO_ROOM };

/* Takes buffers for `need` bytes into n->rx[]. */
static enum delivery rx_buffers(struct virtio_net *n, unsigned queue, uint64_t need, unsigned *count)
{
	unsigned most = virtio_has(&n->v, VIRTIO_NET_F_MRG_RXBUF) ? RX_CHAINS : 1;
	struct virtqueue *q = &n->v.queue[queue];
	unsigned pieces = 0;
	uint64_t have = 0;

	for (*count = 0; have < need; (*count)++) {
		struct virtqueue_chain *c = &n->rx[*count];

		if (*count == most || pieces > RX_PIECES - PIECES)
			return NO_ROOM;
		/* Kicks are asked for with everything taken: the next buffer that comes is then the one that kicks. */
		while (virtio_pop(&n->v, queue, c) <= 0)
			if (!virtqueue_kicks_on(q))
				return *count == q->size ? NO_ROOM : NO_BUFFERS;
		if (c->w.bytes < (*count ? 1 : HDR_BYTES)) {
			virtio_fail(&n->v, "a receive buffer too small for a header");
			return NO_BUFFERS;
		}
		have += c->w.bytes;
		pieces += c->w.n;
	}
	return DELIVERED;
}

/* The pieces of the first `count` buffers in one list; rx_buffers() saw to it that they fit. */
static unsigned rx_pieces(struct virtio_net *n, unsigned count)
{
	unsigned niov = 0;

	for (unsigned i = 0; i < count; i++) {
		memcpy(n->rx_iov + niov, n->rx[i].w.iov, n->rx[i].w.n * sizeof(*n->rx_iov));
		niov += n->rx[i].w.n;
	}
	return niov;
}

static enum delivery rx_deliver(struct virtio_net *n, unsigned pair, unsigned source, const struct net_rx *frame)
{
	struct virtio_net_hdr_v1 hdr = frame->hdr;
	struct virtqueue *q = &n->v.queue[rx_queue(pair)];
	size_t left = HDR_BYTES + frame->len;
	unsigned count;
	enum delivery how = rx_buffers(n, rx_queue(pair), left, &count);

	if (how != DELIVERED) {
		while (count)
			virtqueue_unpop(q, &n->rx[--count]);
		return how;
	}
	if (n->backend->rx_trusted && virtio_has(&n->v, VIRTIO_NET_F_GUEST_CSUM))
		hdr.flags |= VIRTIO_NET_HDR_F_DATA_VALID;
	hdr.num_buffers = (uint16_t)count;
	io_dma_write(n->v.io->mem, &n->rx[0].w, 0, &hdr, HDR_BYTES);
	io_dma_trim_front(&n->rx[0].w, HDR_BYTES);
	net_take(n->backend, source, n->rx_iov, rx_pieces(n, count));
	left -= HDR_BYTES;
	for (unsigned i = 0; i < count; i++) {
		uint64_t part = n->rx[i].w.bytes < left ? n->rx[i].w.bytes : left;

		io_dma_written(n->v.io->mem, &n->rx[i].w, part);
		left -= part;
		n->used[i] = (struct virtqueue_used){
			.id = n->rx[i].id, .slots = n->rx[i].slots, .written = (uint32_t)(part + (i ? 0 : HDR_BYTES))};
	}
	virtqueue_push_all(q, n->used, count);
	stats_add(&n->stats.rx_frames, 1);
	stats_add(&n->stats.rx_bytes, frame->len);
	return DELIVERED;
}

/* Up to a batch from one source. True if there may be more. */
static bool rx_batch(struct virtio_net *n, unsigned source)
{
	unsigned pair = source % n->pairs_used;
	struct net_rx frame;
	bool more = virtio_live(&n->v) && !(n->starved & (1u << pair));

	if (more)
		virtqueue_kicks_off(&n->v.queue[rx_queue(pair)]);
	for (unsigned i = 0; more && i < RX_BATCH; i++) {
		if (net_peek(n->backend, source, &frame) <= 0) {
			more = false;
		} else if (!netfilter_accepts(&n->filter, frame.head, frame.len)) {
			stats_add(&n->stats.rx_filtered, 1);
			net_take(n->backend, source, NULL, 0);
		} else {
			enum delivery how = rx_deliver(n, pair, source, &frame);

			if (how == NO_ROOM) {
				stats_add(&n->stats.rx_dropped, 1);
				net_take(n->backend, source, NULL, 0);
			} else if (how == NO_BUFFERS) {
				n->starved |= 1u << pair;
				more = false;
			}
		}
	}
	virtio_signal(&n->v, rx_queue(pair));
	return more;
}

/* --- the loop's thread ---------------------------------------------------------------------------------------------------- */

/* The other side is gone for good: no link. */
static void link_down(struct virtio_net *n)
{
	if (!(n->config.status & VIRTIO_NET_S_LINK_UP))
		return;
	n->config.status &= (uint16_t)~VIRTIO_NET_S_LINK_UP;
	virtio_config_changed(&n->v);
}

/* What to wait for, from the flags. */
static void wait_for(struct virtio_net *n)
{
	bool live = virtio_live(&n->v);

	if (n->backend->gone)
		link_down(n);
	for (unsigned i = 0; i < n->backend->queues; i++) {
		short events = 0;

		if (live && !n->backend->gone) {
			if (!(n->starved & (1u << i % n->pairs_used)))
				events |= POLLIN;
			if (n->blocked & (1u << i))
				events |= POLLOUT;
		}
		n->backend->source[i].events = events;
	}
}

/* Receives from one source, within bounds. Takes the lock and lets go of it. */
static void receive(struct virtio_net *n, unsigned source)
{
	struct io *io = n->v.io;
	bool more = true;

	/* The lock is let go of between batches: processors may be waiting for it. */
	for (unsigned round = 0; more && round < RX_ROUNDS; round++) {
		pthread_mutex_lock(&io->lock);
		n->ready &= ~(1u << source);
		more = rx_batch(n, source);
		if (more && round == RX_ROUNDS - 1) {
			n->ready |= 1u << source;
			poke(n);
		}
		pthread_mutex_unlock(&io->lock);
	}
}

static void source_ready(void *opaque, short revents)
{
	struct source *s = opaque;
	struct virtio_net *n = s->net;

	if (revents & ~POLLOUT)
		receive(n, s->queue);
	pthread_mutex_lock(&n->v.io->lock);
	if (n->blocked) {
		uint32_t blocked = n->blocked;

		n->blocked = 0;
		for (unsigned pair = 0; pair < n->pairs; pair++)
			if (blocked & (1u << pair))
				tx(n, pair);
	}
	wait_for(n);
	pthread_mutex_unlock(&n->v.io->lock);
}

static void wake_ready(void *opaque, short revents)
{
	struct virtio_net *n = opaque;
	uint32_t ready;
	uint64_t count;

	(void)revents;
	(void)!read(n->wake.fd, &count, sizeof(count));
	pthread_mutex_lock(&n->v.io->lock);
	for (unsigned pair = 0; pair < n->pairs; pair++)
		if (n->again & (1u << pair))
			tx(n, pair);
	ready = n->ready;
	pthread_mutex_unlock(&n->v.io->lock);
	for (unsigned i = 0; i < n->backend->queues; i++)
		if (ready & (1u << i))
			receive(n, i);
	pthread_mutex_lock(&n->v.io->lock);
	wait_for(n);
	pthread_mutex_unlock(&n->v.io->lock);
}

/* --- the control queue ---------------------------------------------------------------------------------------------------- */

static bool set_pairs(struct virtio_net *n, unsigned command, const uint8_t *data, size_t len)
{
	unsigned pairs;

	if (!virtio_has(&n->v, VIRTIO_NET_F_MQ) || command != VIRTIO_NET_CTRL_MQ_VQ_PAIRS_SET || len != 2)
		return false;
	pairs = data[0] | (unsigned)data[1] << 8;
	if (pairs < 1 || pairs > n->pairs)
		return false;
	n->pairs_used = pairs;
	n->starved = 0;
	look_at_all(n);
	return true;
}

/* Offloads of received frames as the bits of the feature words. */
static unsigned rx_offloads(uint64_t features)
{
	unsigned o = 0;

	if (features & BIT(VIRTIO_NET_F_GUEST_CSUM)) {
		o |= NET_OFFLOAD_CSUM;
		o |= features & BIT(VIRTIO_NET_F_GUEST_TSO4) ? NET_OFFLOAD_TSO4 : 0;
		o |= features & BIT(VIRTIO_NET_F_GUEST_TSO6) ? NET_OFFLOAD_TSO6 : 0;
		o |= features & BIT(VIRTIO_NET_F_GUEST_ECN) ? NET_OFFLOAD_ECN : 0;
	}
	return o;
}

static bool set_guest_offloads(struct virtio_net *n, unsigned command, const uint8_t *data, size_t len)
{
	uint64_t wanted;

	if (command != VIRTIO_NET_CTRL_GUEST_OFFLOADS_SET || len != sizeof(wanted) ||
	    !virtio_has(&n->v, VIRTIO_NET_F_CTRL_GUEST_OFFLOADS))
		return false;
	memcpy(&wanted, data, sizeof(wanted));
	if (wanted & ~n->v.features)
		return false;
	net_set_offloads(n->backend, rx_offloads(wanted));
	return true;
}

static bool control(struct virtio_net *n, const uint8_t *command, size_t len)
{
	const struct virtio_net_ctrl_hdr *h = (const void *)command;
	const uint8_t *data = command + sizeof(*h);

	if (len < sizeof(*h))
		return false;
	len -= sizeof(*h);
	switch (h->class) {
	case VIRTIO_NET_CTRL_MQ:
		return set_pairs(n, h->cmd, data, len);
	case VIRTIO_NET_CTRL_GUEST_OFFLOADS:
		return set_guest_offloads(n, h->cmd, data, len);
	default:
		return netfilter_command(&n->filter, h->class, h->cmd, data, len);
	}
}

static void ctrl(struct virtio_net *n, unsigned queue)
{
	struct virtqueue_chain *c = &n->v.chain;

	/* A ring's worth at most: a driver that adds while we work kicks again. */
	for (unsigned i = 0; i < QUEUE_SIZE && virtio_pop(&n->v, queue, c) > 0; i++) {
		size_t len = io_dma_read(&c->r, 0, n->command, sizeof(n->command));
		uint8_t ack = c->r.bytes <= sizeof(n->command) && control(n, n->command, len) ? VIRTIO_NET_OK : VIRTIO_NET_ERR;

		if (io_dma_write(n->v.io->mem, &c->w, 0, &ack, 1) != 1) {
			virtio_fail(&n->v, "a control command without room for its status");
			return;
		}
		virtqueue_push(&n->v.queue[queue], c, 1);
	}
	virtio_signal(&n->v, queue);
}

/* --- virtio_ops ----------------------------------------------------------------------------------------------------------- */

static void net_notify(struct virtio_dev *v, unsigned queue)
{
	struct virtio_net *n = to_net(v);
	unsigned pair = queue / 2;

	if (queue == ctrl_queue(n)) {
		if (virtio_has(v, VIRTIO_NET_F_CTRL_VQ))
			ctrl(n, queue);
	} else if (pair >= n->pairs) {
		return;
	} else if (queue & 1) {
		tx(n, pair);
	} else if (n->starved & (1u << pair)) {
		n->starved &= ~(1u << pair);
		look_at_all(n);
	}
}

static void net_driver_ok(struct virtio_dev *v)
{
	struct virtio_net *n = to_net(v);

	n->tx_allowed = 0;
	n->tx_allowed |= virtio_has(v, VIRTIO_NET_F_CSUM) ? NET_OFFLOAD_CSUM : 0;
	n->tx_allowed |= virtio_has(v, VIRTIO_NET_F_HOST_TSO4) ? NET_OFFLOAD_TSO4 : 0;
	n->tx_allowed |= virtio_has(v, VIRTIO_NET_F_HOST_TSO6) ? NET_OFFLOAD_TSO6 : 0;
	n->tx_allowed |= virtio_has(v, VIRTIO_NET_F_HOST_ECN) ? NET_OFFLOAD_ECN : 0;
	n->filter.vlans = virtio_has(v, VIRTIO_NET_F_CTRL_VLAN);
	net_set_offloads(n->backend, rx_offloads(v->features));
	look_at_all(n);
}

static void net_reset(struct virtio_dev *v)
{
	struct virtio_net *n = to_net(v);

	n->pairs_used = 1;
	n->tx_allowed = 0;
	n->starved = n->blocked = n->again = n->ready = 0;
	netfilter_reset(&n->filter, n->mac);
	net_set_offloads(n->backend, 0);
	poke(n);
}

static void net_state(struct virtio_dev *v, struct io_state *s)
{
	struct virtio_net *n = to_net(v);

	DEV_FIELD(s, n, config.status);
	DEV_FIELD(s, n, pairs_used);
	DEV_FIELD(s, n, tx_allowed);
	DEV_FIELD(s, n, filter);
	/* A forged stream must not make anything leave its array. */
	if (n->pairs_used < 1 || n->pairs_used > n->pairs)
		n->pairs_used = 1;
	netfilter_sanitize(&n->filter);
}

static void net_free(struct virtio_net *n)
{
	for (unsigned i = 0; i < n->backend->queues; i++)
		evloop_del(n->loop, &n->backend->source[i]);
	evloop_del(n->loop, &n->wake);
	for (unsigned i = 0; i < TX_BATCH; i++)
		virtqueue_chain_fini(&n->tx[i]);
	for (unsigned i = 0; i < RX_CHAINS; i++)
		virtqueue_chain_fini(&n->rx[i]);
	if (n->wake.fd >= 0)
		close(n->wake.fd);
	net_destroy(n->backend);
	free(n);
}

static void net_destroy_dev(struct virtio_dev *v)
{
	stats_unregister(&v->io->registry, &to_net(v)->stats_source);
	virtio_fini(v);
	net_free(to_net(v));
}

static const struct virtio_ops net_ops = {
	.name = "net",
	.id = VIRTIO_ID_NET,
	.pci_class = 0x020000,          /* Ethernet controller */
	.notify = net_notify,
	.driver_ok = net_driver_ok,
	.reset = net_reset,
	.state = net_state,
	.destroy = net_destroy_dev,
};

/* What the device can do follows from what the backend can. */
static uint64_t offer(const struct virtio_net *n)
{
	static const struct { unsigned tx, rx; uint64_t host, guest; } map[] = {
		{NET_OFFLOAD_CSUM, NET_OFFLOAD_CSUM, BIT(VIRTIO_NET_F_CSUM), BIT(VIRTIO_NET_F_GUEST_CSUM)},
		{NET_OFFLOAD_TSO4, NET_OFFLOAD_TSO4, BIT(VIRTIO_NET_F_HOST_TSO4), BIT(VIRTIO_NET_F_GUEST_TSO4)},
		{NET_OFFLOAD_TSO6, NET_OFFLOAD_TSO6, BIT(VIRTIO_NET_F_HOST_TSO6), BIT(VIRTIO_NET_F_GUEST_TSO6)},
		{NET_OFFLOAD_ECN, NET_OFFLOAD_ECN, BIT(VIRTIO_NET_F_HOST_ECN), BIT(VIRTIO_NET_F_GUEST_ECN)},
	};
	uint64_t f = BIT(VIRTIO_NET_F_MAC) | BIT(VIRTIO_NET_F_STATUS) | BIT(VIRTIO_NET_F_MRG_RXBUF) |
		     BIT(VIRTIO_NET_F_CTRL_VQ) | BIT(VIRTIO_NET_F_CTRL_RX) | BIT(VIRTIO_NET_F_CTRL_RX_EXTRA) |
		     BIT(VIRTIO_NET_F_CTRL_VLAN) | BIT(VIRTIO_NET_F_CTRL_MAC_ADDR);

	for (size_t i = 0; i < nitems(map); i++) {
		f |= n->backend->tx_offloads & map[i].tx ? map[i].host : 0;
		f |= n->backend->rx_offloads & map[i].rx ? map[i].guest : 0;
	}
	f |= n->backend->rx_trusted ? BIT(VIRTIO_NET_F_GUEST_CSUM) : 0;
	f |= n->backend->rx_offloads ? BIT(VIRTIO_NET_F_CTRL_GUEST_OFFLOADS) : 0;
	f |= n->pairs > 1 ? BIT(VIRTIO_NET_F_MQ) : 0;
	f |= n->config.mtu ? BIT(VIRTIO_NET_F_MTU) : 0;
	return f;
}

static int make_room(struct virtio_net *n)
{
	int err = 0;

	for (unsigned i = 0; !err && i < TX_BATCH; i++)
		err = virtqueue_chain_init(&n->tx[i], PIECES);
	for (unsigned i = 0; !err && i < RX_CHAINS; i++)
		err = virtqueue_chain_init(&n->rx[i], PIECES);
	return err;
}

static int join_loop(struct virtio_net *n)
{
	int err = evloop_add(n->loop, &n->wake);

	for (unsigned i = 0; !err && i < n->backend->queues; i++) {
		n->source[i] = (struct source){n, i};
		n->backend->source[i].ready = source_ready;
		n->backend->source[i].opaque = &n->source[i];
		n->backend->source[i].events = 0;
		err = evloop_add(n->loop, &n->backend->source[i]);
	}
	return err;
}

static void emit_stats(void *opaque, stats_emit_fn *emit, void *o)
{
	const struct virtio_net *n = opaque;
	const struct { const char *name; const uint64_t *counter; } row[] = {
		{"rx_frames", &n->stats.rx_frames}, {"rx_bytes", &n->stats.rx_bytes}, {"rx_filtered", &n->stats.rx_filtered},
		{"rx_dropped", &n->stats.rx_dropped}, {"tx_frames", &n->stats.tx_frames}, {"tx_bytes", &n->stats.tx_bytes},
		{"tx_dropped", &n->stats.tx_dropped},
	};

	for (size_t i = 0; i < nitems(row); i++)
		emit(o, row[i].name, stats_read(row[i].counter));
}

int virtio_net_create(struct io *io, const struct virtio_net_setup *cfg, struct virtio_dev **out)
{
	struct virtio_net *n = calloc(1, sizeof(*n));
	int err;

	if (!n) {
		net_destroy(cfg->backend);
		return -ENOMEM;
	}
	n->backend = cfg->backend;
	n->loop = cfg->loop;
	n->pairs = cfg->backend->queues;
	n->pairs_used = 1;
	memcpy(n->mac, cfg->mac, NET_MAC_LEN);
	memcpy(n->config.mac, cfg->mac, NET_MAC_LEN);
	n->config.status = VIRTIO_NET_S_LINK_UP;
	n->config.max_virtqueue_pairs = (uint16_t)n->pairs;
	n->config.mtu = cfg->mtu;
	netfilter_reset(&n->filter, n->mac);
	n->wake = (struct ev_source){.events = POLLIN, .ready = wake_ready, .opaque = n};
	n->wake.fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	err = n->wake.fd < 0 ? -errno : make_room(n);
	if (!err)
		err = virtio_init(&n->v, io, &(struct virtio_setup){
			.ops = &net_ops, .features = offer(n), .nqueues = 2 * n->pairs + 1, .queue_size = QUEUE_SIZE,
			.max_bytes = MAX_BYTES, .pieces = PIECES, .config = &n->config,
			.config_len = offsetof(struct virtio_net_config, mtu) + 2});
	if (!err) {
		err = join_loop(n);
		if (err)
			virtio_fini(&n->v);
	}
	if (err) {
		net_free(n);
		return err;
	}
	n->stats_source = (struct stats_source){.section = cfg->name, .emit = emit_stats, .opaque = n};
	stats_register(&io->registry, &n->stats_source);
	*out = &n->v;
	return 0;
}

void virtio_net_stats(const struct virtio_dev *v, struct virtio_net_stats *out)
{
	*out = container_of(v, struct virtio_net, v)->stats;
}
