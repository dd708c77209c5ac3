/* SPDX-License-Identifier: Apache-2.0 */
/*
 * virtio-vsock: the device's queues. vsock_conn.c has the connections.
 *
 *   queue 0 (rx)  device to driver: packets owed, then data read straight from the host's sockets, one packet a connection a turn
 *   queue 1 (tx)  driver to device: each packet's header is copied, checked, and acted on
 *   queue 2 (event)  unused until machines are restored from snapshots
 *
 * Invariant: a packet of the guest can make the device owe at most one packet; while the list of those is full, no more are taken.
 * Work in one go is bounded (PACKETS); what is left is continued by the main thread.
 * Locking: io->lock. Whoever has work does it; only the main thread waits (epoll set, dial channel).
 * Spec: virtio 1.2, 5.10.
 */
#include "dev/virtio/vsock.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/log.h"
#include "dev/virtio/vsock_conn.h"
#include "proto/dial.h"

enum { RX, TX, EVENT, NQUEUES };
#define QUEUE_SIZE 256
#define MAX_PACKET ((64u << 10) + 4096)
#define PIECES (MAX_PACKET / PAGE_SIZE + 8)
#define PACKETS 512
#define HDR sizeof(struct virtio_vsock_hdr)
#define NO_CONN VSOCK_CONNS           /* the eventfd's place in the epoll set */

static struct vsock *self(struct virtio_dev *v)
{
	return container_of(v, struct vsock, v);
}

static void continue_later(struct vsock *d)
{
	uint64_t one = 1;

	(void)!write(d->kick, &one, sizeof(one));
}

/* --- to the guest ------------------------------------------------------------------------------------------------------- */

/* Takes a place for a packet. False: the guest has none, or one that is none. */
static bool take_rx(struct vsock *d)
{
	if (virtio_pop(&d->v, RX, &d->rx) <= 0)
		return false;
	if (d->rx.w.bytes > HDR)
		return true;
	virtio_fail(&d->v, "a receive buffer without room for a packet");
	return false;
}

static void push_rx(struct vsock *d, const struct virtio_vsock_hdr *h)
{
	(void)io_dma_write(d->v.io->mem, &d->rx.w, 0, h, sizeof(*h));
	virtqueue_push(&d->v.queue[RX], &d->rx, (uint32_t)sizeof(*h) + h->len);
}

static struct virtio_vsock_hdr header(const struct vsock *d, uint32_t guest_port, uint32_t host_port, uint16_t op)
{
	return (struct virtio_vsock_hdr){.src_cid = VMADDR_CID_HOST, .dst_cid = d->opt.cid, .src_port = host_port,
					 .dst_port = guest_port, .type = VIRTIO_VSOCK_TYPE_STREAM, .op = op};
}

static struct virtio_vsock_hdr conn_header(const struct vsock *d, struct vsock_conn *c, uint16_t op)
{
	struct virtio_vsock_hdr h = header(d, c->guest_port, c->host_port, op);

	/* Every packet tells our credit. */
	h.buf_alloc = VSOCK_BUFFER;
	h.fwd_cnt = c->fwd_told = c->fwd;
	c->owed &= ~(unsigned)OWE_CREDIT;
	return h;
}

/* One packet without data, if one is owed. */
static bool send_owed(struct vsock *d, struct vsock_conn *c)
{
	static const struct { unsigned owed; uint16_t op; } order[] = {
		{OWE_REQUEST, VIRTIO_VSOCK_OP_REQUEST}, {OWE_RESPONSE, VIRTIO_VSOCK_OP_RESPONSE}, {OWE_RST, VIRTIO_VSOCK_OP_RST},
		{OWE_CREDIT, VIRTIO_VSOCK_OP_CREDIT_UPDATE}, {OWE_ASK, VIRTIO_VSOCK_OP_CREDIT_REQUEST},
		{OWE_SHUTDOWN, VIRTIO_VSOCK_OP_SHUTDOWN},
	};

	for (unsigned i = 0; i < nitems(order); i++) {
		struct virtio_vsock_hdr h;

		if (!(c->owed & order[i].owed))
			continue;
		if (!take_rx(d))
			return false;
		c->owed &= ~order[i].owed;
		h = conn_header(d, c, order[i].op);
		if (order[i].owed == OWE_SHUTDOWN)
			h.flags = c->shutdown;
		push_rx(d, &h);
		if (order[i].owed == OWE_RST)
			vsock_conn_free(d, c);
		return true;
	}
	return false;
}

/* The program has closed: the guest learns it when it has all the data. */
static void host_ended(struct vsock *d, struct vsock_conn *c)
{
	c->readable = false;
	c->shutdown |= VIRTIO_VSOCK_SHUTDOWN_SEND | (c->hup ? VIRTIO_VSOCK_SHUTDOWN_RCV : 0);
	c->owed |= OWE_SHUTDOWN;
	vsock_conn_watch(d, c);
}

/* One packet of data, read from the program straight into the guest's buffer. */
static bool send_data(struct vsock *d, struct vsock_conn *c)
{
	uint32_t credit = vsock_conn_credit(c);
	struct iovec iov[PIECES];
	struct virtio_vsock_hdr h;
	ssize_t n;

	if (c->state != CONN_OPEN || !c->readable || (c->owed & OWE_RESPONSE) || (c->shutdown & VIRTIO_VSOCK_SHUTDOWN_SEND))
		return false;
	if (!credit || !take_rx(d))
		return false;
	n = readv(c->fd, iov, (int)io_dma_slice(&d->rx.w, HDR, credit, iov, PIECES));
	if (n <= 0) {
		virtqueue_unpop(&d->v.queue[RX], &d->rx);
		if (n < 0 && errno == EINTR)
			return false;
		if (n < 0 && errno == EAGAIN) {
			c->readable = false;
			vsock_conn_watch(d, c);
		} else {
			host_ended(d, c);
		}
		return false;
	}
	io_dma_written(d->v.io->mem, &d->rx.w, HDR + (uint64_t)n);
	c->sent += (uint32_t)n;
	if (!vsock_conn_credit(c))
		c->owed |= OWE_ASK;
	h = conn_header(d, c, VIRTIO_VSOCK_OP_RW);
	h.len = (uint32_t)n;
	push_rx(d, &h);
	return true;
}

static bool send_reset(struct vsock *d)
{
	struct virtio_vsock_hdr h;

	if (!d->nresets || !take_rx(d))
		return false;
	d->nresets--;
	h = header(d, d->reset[d->nresets].guest_port, d->reset[d->nresets].host_port, VIRTIO_VSOCK_OP_RST);
	push_rx(d, &h);
	return true;
}

/* Fills the guest's buffers as far as there are packets; a turn is one packet a connection. True: the budget ran out. */
static bool pump_rx(struct vsock *d)
{
	unsigned budget = PACKETS, sent;

	do {
		sent = 0;
		while (budget && send_reset(d))
			budget--;
		for (unsigned i = 0; i < VSOCK_CONNS && budget; i++) {
			struct vsock_conn *c = &d->conn[d->turn++ % VSOCK_CONNS];

			/* SHUTDOWN is behind the data. */
			if ((c->owed & ~(unsigned)OWE_SHUTDOWN) ? send_owed(d, c) : send_data(d, c) || send_owed(d, c)) {
				budget--;
				sent++;
			}
		}
	} while (sent && budget);
	virtio_signal(&d->v, RX);
	return !budget;
}

/* --- from the guest ------------------------------------------------------------------------------------------------------- */

static void take_packet(struct vsock *d)
{
	struct virtio_vsock_hdr h;

	if (io_dma_read(&d->tx.r, 0, &h, sizeof(h)) < sizeof(h))
		virtio_fail(&d->v, "a packet without a header");
	else if (h.len > d->tx.r.bytes - HDR)
		virtio_fail(&d->v, "a packet shorter than it says");
	else
		vsock_conn_packet(d, &h);
}

/* True: there may be more. */
static bool pump_tx(struct vsock *d)
{
	unsigned budget = PACKETS;

	while (budget && d->nresets < VSOCK_RESETS) {
		if (virtio_pop(&d->v, TX, &d->tx) > 0) {
			take_packet(d);
			virtqueue_push(&d->v.queue[TX], &d->tx, 0);
			budget--;
		} else if (!virtio_live(&d->v) || !virtqueue_kicks_on(&d->v.queue[TX])) {
			break;
		}
	}
	virtio_signal(&d->v, TX);
	return !budget;
}

static void pump(struct vsock *d)
{
	bool more = false;

	if (!virtio_live(&d->v))
		return;
	more |= pump_tx(d);
	more |= pump_rx(d);
	/* Buffers the guest adds from now on are news, whether or not there is something to put into them. */
	more |= virtqueue_kicks_on(&d->v.queue[RX]) && d->nresets;
	if (more)
		continue_later(d);
}

static void notify(struct virtio_dev *v, unsigned queue)
{
	if (queue != EVENT)
		pump(self(v));
}

static void on_epoll(void *opaque, short revents)
{
	struct epoll_event ev[32];
	struct vsock *d = opaque;
	uint64_t count;
	int n;

	(void)revents;
	pthread_mutex_lock(&d->v.io->lock);
	n = epoll_wait(d->epoll, ev, nitems(ev), 0);
	for (int i = 0; i < n; i++) {
		if (ev[i].data.u32 == NO_CONN)
			(void)!read(d->kick, &count, sizeof(count));
		else
			vsock_conn_ready(d, &d->conn[ev[i].data.u32], ev[i].events);
	}
	pump(d);
	pthread_mutex_unlock(&d->v.io->lock);
}

static void on_dial(void *opaque, short revents)
{
	struct vsock *d = opaque;
	struct dial_message m;
	int fd, ret;

	(void)revents;
	pthread_mutex_lock(&d->v.io->lock);
	for (unsigned i = 0; i < VSOCK_CONNS && (ret = dial_recv(d->opt.dial, &m, &fd)) == 0; i++) {
		if (m.type == DIAL_ACCEPTED && fd >= 0)
			vsock_conn_accepted(d, fd);
		else if (m.type == DIAL_DIALED)
			vsock_conn_dialed(d, m.id, m.arg, fd);
		else if (fd >= 0)
			close(fd);
	}
	/* doppel has ended: so will the machine. */
	if (ret < 0 && ret != -EAGAIN)
		d->ev_dial.events = 0;
	pump(d);
	pthread_mutex_unlock(&d->v.io->lock);
}

static void reset(struct virtio_dev *v)
{
	struct vsock *d = self(v);

	for (unsigned i = 0; i < VSOCK_CONNS; i++)
		vsock_conn_free(d, &d->conn[i]);
	d->nresets = 0;
}

static void destroy(struct virtio_dev *v)
{
	struct vsock *d = self(v);

	reset(v);
	evloop_del(d->opt.loop, &d->ev_epoll);
	evloop_del(d->opt.loop, &d->ev_dial);
	if (d->epoll >= 0)
		close(d->epoll);
	if (d->kick >= 0)
		close(d->kick);
	close(d->opt.dial);
	if (d->rings)
		munmap(d->rings, (size_t)VSOCK_CONNS * VSOCK_BUFFER);
	virtqueue_chain_fini(&d->rx);
	virtqueue_chain_fini(&d->tx);
	virtio_fini(v);
	free(d);
}

static const struct virtio_ops vsock_ops = {
	.name = "vsock",
	.id = VIRTIO_ID_VSOCK,
	.pci_class = 0x028000, /* network controller, other */
	.notify = notify,
	.reset = reset,
	.destroy = destroy,
};

/* Descriptors, buffers, chains. */
static int resources(struct vsock *d)
{
	struct epoll_event ev = {.events = EPOLLIN, .data.u32 = NO_CONN};
	int err;

	d->epoll = epoll_create1(EPOLL_CLOEXEC);
	d->kick = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (d->epoll < 0 || d->kick < 0 || epoll_ctl(d->epoll, EPOLL_CTL_ADD, d->kick, &ev) < 0)
		return -errno;
	d->rings = mmap(NULL, (size_t)VSOCK_CONNS * VSOCK_BUFFER, PROT_READ | PROT_WRITE,
			MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (d->rings == MAP_FAILED) {
		d->rings = NULL;
		return -ENOMEM;
	}
	for (unsigned i = 0; i < VSOCK_CONNS; i++)
		d->conn[i].ring = d->rings + (size_t)i * VSOCK_BUFFER;
	err = virtqueue_chain_init(&d->rx, PIECES);
	return err ? err : virtqueue_chain_init(&d->tx, PIECES);
}

int virtio_vsock_create(struct io *io, const struct virtio_vsock_options *opt, struct virtio_dev **out)
{
	struct vsock *d = calloc(1, sizeof(*d));
	struct virtio_setup setup = {
		.ops = &vsock_ops, .nqueues = NQUEUES, .queue_size = QUEUE_SIZE, .max_bytes = MAX_PACKET};
	int err;

	if (!d)
		return -ENOMEM;
	setup.config = &d->space;
	setup.config_len = sizeof(d->space);
	err = virtio_init(&d->v, io, &setup);
	if (err) {
		free(d);
		return err;
	}
	d->opt = *opt;
	d->space.guest_cid = opt->cid;
	for (unsigned i = 0; i < VSOCK_CONNS; i++)
		d->conn[i].fd = -1;
	err = resources(d);
	d->ev_epoll = (struct ev_source){.fd = d->epoll, .events = POLLIN, .ready = on_epoll, .opaque = d};
	d->ev_dial = (struct ev_source){.fd = opt->dial, .events = POLLIN, .ready = on_dial, .opaque = d};
	if (!err)
		err = evloop_add(opt->loop, &d->ev_epoll);
	if (!err)
		err = evloop_add(opt->loop, &d->ev_dial);
	if (err) {
		destroy(&d->v);
		return err;
	}
	*out = &d->v;
	return 0;
}
