/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Connections of the vsock device: states, buffers, credit, and the host's end of each.
 *
 * Invariant: got - fwd <= VSOCK_BUFFER, whatever the guest sends; a guest that ignores its credit loses the connection. A slow
 * program on the host holds up its own connection only: its bytes wait in its ring, and the guest is told no new credit.
 * Counters of bytes are 32 bits wide and wrap, as the specification has them; only differences mean something.
 * Locking: io->lock. Descriptors are not blocking. The epoll set may be changed while another thread waits on it.
 * Spec: virtio 1.2, 5.10.
 */
#include "dev/virtio/vsock_conn.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "proto/dial.h"

#define RING_MASK (VSOCK_BUFFER - 1)
#define SHUTDOWN_BOTH (VIRTIO_VSOCK_SHUTDOWN_RCV | VIRTIO_VSOCK_SHUTDOWN_SEND)
#define FIRST_PORT (1u << 30)
#define HDR sizeof(struct virtio_vsock_hdr)
/* Pieces of a packet written straight from guest memory; what does not fit into these goes through the ring. */
#define DIRECT_PIECES 32
static_assert((VSOCK_BUFFER & RING_MASK) == 0, "ring size");

static struct vsock_conn *find(struct vsock *d, uint32_t guest_port, uint32_t host_port)
{
	for (unsigned i = 0; i < VSOCK_CONNS; i++) {
		struct vsock_conn *c = &d->conn[i];

		if (c->state >= CONN_ASKED && c->guest_port == guest_port && c->host_port == host_port)
			return c;
	}
	return NULL;
}

static struct vsock_conn *conn_new(struct vsock *d, enum vsock_state state)
{
	struct vsock_conn *c = NULL;

	for (unsigned i = 0; i < VSOCK_CONNS && !c; i++)
		if (d->conn[i].state == CONN_FREE)
			c = &d->conn[i];
	/* Programs that connect and say nothing, or do not read to the end, make room for others. */
	for (unsigned i = 0; i < VSOCK_CONNS && !c; i++) {
		if (d->conn[i].state == CONN_HANDSHAKE || d->conn[i].state == CONN_DRAINING) {
			c = &d->conn[i];
			vsock_conn_free(d, c);
		}
	}
	if (!c)
		return NULL;
	*c = (struct vsock_conn){.state = state, .fd = -1, .serial = ++d->next_serial & 0xffffff, .ring = c->ring};
	return c;
}

static void close_host(struct vsock_conn *c)
{
	/* Closing takes it out of the epoll set: nobody else has this descriptor. */
	if (c->fd >= 0)
		close(c->fd);
	c->fd = -1;
	c->watched = false;
	c->readable = false;
}

void vsock_conn_free(struct vsock *d, struct vsock_conn *c)
{
	(void)d;
	close_host(c);
	c->state = CONN_FREE;
	c->owed = 0;
}

void vsock_conn_end(struct vsock *d, struct vsock_conn *c)
{
	if (c->state == CONN_HANDSHAKE) {
		vsock_conn_free(d, c);
		return;
	}
	close_host(c);
	c->state = CONN_ENDING;
	c->owed = OWE_RST;
}

void vsock_conn_watch(struct vsock *d, struct vsock_conn *c)
{
	struct epoll_event ev = {.data.u32 = (uint32_t)(c - d->conn)};
	int op = c->watched ? EPOLL_CTL_MOD : EPOLL_CTL_ADD;

	if (c->fd < 0)
		return;
	/* A hang-up would be reported again and again; it has been noted. */
	if (c->hup) {
		if (c->watched)
			(void)epoll_ctl(d->epoll, EPOLL_CTL_DEL, c->fd, NULL);
		c->watched = false;
		return;
	}
	if (c->state == CONN_HANDSHAKE || (c->state == CONN_OPEN && !c->readable && !(c->shutdown & VIRTIO_VSOCK_SHUTDOWN_SEND)))
		ev.events |= EPOLLIN;
	if (c->state >= CONN_DRAINING && c->got != c->fwd)
		ev.events |= EPOLLOUT;
	if (c->watched && ev.events == c->watching)
		return;
	c->watching = ev.events;
	c->watched = epoll_ctl(d->epoll, op, c->fd, &ev) == 0;
}

uint32_t vsock_conn_credit(const struct vsock_conn *c)
{
	uint32_t flying = c->sent - c->peer_fwd;

	return flying < c->peer_alloc ? c->peer_alloc - flying : 0;
}

/* The program does not read any more: its bytes are dropped, and the guest learns that nobody receives. */
static void host_deaf(struct vsock_conn *c)
{
	c->fwd = c->got;
	c->shutdown |= VIRTIO_VSOCK_SHUTDOWN_RCV;
	c->owed |= OWE_SHUTDOWN;
}

/* Acts on what may have become true now that the ring is shorter. */
static void settle(struct vsock *d, struct vsock_conn *c)
{
	if (c->state == CONN_DRAINING) {
		if (c->fwd == c->got)
			vsock_conn_free(d, c);
		else
			vsock_conn_watch(d, c);
		return;
	}
	if (c->fwd - c->fwd_told >= VSOCK_BUFFER / 4)
		c->owed |= OWE_CREDIT;
	if (c->fwd == c->got && (c->guest_shutdown & SHUTDOWN_BOTH) == SHUTDOWN_BOTH) {
		vsock_conn_end(d, c);
		return;
	}
	if (c->fwd == c->got && (c->guest_shutdown & VIRTIO_VSOCK_SHUTDOWN_SEND) && !c->shut) {
		c->shut = true;
		(void)shutdown(c->fd, SHUT_WR);
	}
	vsock_conn_watch(d, c);
}

/* Writes to the program what waits for it. */
static void flush(struct vsock *d, struct vsock_conn *c)
{
	while (c->fwd != c->got) {
		uint32_t at = c->fwd & RING_MASK, n = c->got - c->fwd;
		ssize_t done;

		if (n > VSOCK_BUFFER - at)
			n = VSOCK_BUFFER - at;
		done = write(c->fd, c->ring + at, n);
		if (done < 0 && errno == EINTR)
			continue;
		if (done < 0 && errno == EAGAIN)
			break;
		if (done < 0)
			host_deaf(c);
		else
			c->fwd += (uint32_t)done;
	}
	settle(d, c);
}

/* Data of the guest: straight to the program as far as it takes it, the rest into the ring. */
static void take_data(struct vsock *d, struct vsock_conn *c, uint32_t len)
{
	struct iovec iov[DIRECT_PIECES];
	uint64_t off = HDR;

	if (len > VSOCK_BUFFER - (c->got - c->fwd) || (c->guest_shutdown & VIRTIO_VSOCK_SHUTDOWN_SEND)) {
		vsock_conn_end(d, c);
		return;
	}
	if (c->shutdown & VIRTIO_VSOCK_SHUTDOWN_RCV) {
		c->got = c->fwd += len;
		settle(d, c);
		return;
	}
	if (c->got == c->fwd) {
		ssize_t n = writev(c->fd, iov, (int)io_dma_slice(&d->tx.r, off, len, iov, DIRECT_PIECES));

		if (n > 0) {
			c->got = c->fwd += (uint32_t)n;
			off += (uint64_t)n;
			len -= (uint32_t)n;
		}
	}
	while (len) {
		uint32_t at = c->got & RING_MASK, n = len < VSOCK_BUFFER - at ? len : VSOCK_BUFFER - at;

		(void)io_dma_read(&d->tx.r, off, c->ring + at, n);
		c->got += n;
		off += n;
		len -= n;
	}
	flush(d, c);
}

/* --- the guest's packets -------------------------------------------------------------------------------------------------- */

static void owe_reset(struct vsock *d, const struct virtio_vsock_hdr *h)
{
	/* An RST is not answered. vsock.c stops taking packets while this list is full. */
	if (h->op != VIRTIO_VSOCK_OP_RST && d->nresets < VSOCK_RESETS)
		d->reset[d->nresets++] = (struct vsock_addr){.guest_port = h->src_port, .host_port = h->dst_port};
}

static void guest_connects(struct vsock *d, const struct virtio_vsock_hdr *h)
{
	struct vsock_conn *c = conn_new(d, CONN_DIALING);

	if (!c) {
		owe_reset(d, h);
		return;
	}
	c->guest_port = h->src_port;
	c->host_port = h->dst_port;
	c->peer_alloc = h->buf_alloc;
	c->peer_fwd = h->fwd_cnt;
	if (dial_send(d->opt.dial, DIAL_DIAL, c->serial << 8 | (uint32_t)(c - d->conn), c->host_port, -1) < 0)
		vsock_conn_end(d, c);
}
static_assert(VSOCK_CONNS <= 256, "the place is 8 bits of the id");

static void guest_accepts(struct vsock *d, struct vsock_conn *c)
{
	char ok[32];
	int n = snprintf(ok, sizeof(ok), "OK %u\n", c->host_port);

	/* The first bytes into an empty socket buffer: they fit, or the program has gone. */
	if (c->state != CONN_ASKED || write(c->fd, ok, (size_t)n) != n) {
		vsock_conn_end(d, c);
		return;
	}
	c->state = CONN_OPEN;
	c->readable = true;
	vsock_conn_watch(d, c);
}

static void guest_resets(struct vsock *d, struct vsock_conn *c)
{
	if (c->state != CONN_OPEN || c->fwd == c->got || !(c->guest_shutdown & VIRTIO_VSOCK_SHUTDOWN_SEND)) {
		vsock_conn_free(d, c);
		return;
	}
	c->state = CONN_DRAINING;
	c->owed = 0;
	vsock_conn_watch(d, c);
}

void vsock_conn_packet(struct vsock *d, const struct virtio_vsock_hdr *h)
{
	struct vsock_conn *c = find(d, h->src_port, h->dst_port);

	/* Streams only; what is not from the guest or not to the host is dropped. */
	if (h->src_cid != d->opt.cid || h->dst_cid != VMADDR_CID_HOST)
		return;
	if (h->type != VIRTIO_VSOCK_TYPE_STREAM || !c) {
		if (!c && h->type == VIRTIO_VSOCK_TYPE_STREAM && h->op == VIRTIO_VSOCK_OP_REQUEST)
			guest_connects(d, h);
		else
			owe_reset(d, h);
		return;
	}
	c->peer_alloc = h->buf_alloc;
	c->peer_fwd = h->fwd_cnt;
	if (h->op == VIRTIO_VSOCK_OP_RST)
		guest_resets(d, c);
	else if (c->state == CONN_ENDING)
		return;
	else if (h->op == VIRTIO_VSOCK_OP_RESPONSE)
		guest_accepts(d, c);
	else if (c->state != CONN_OPEN)
		vsock_conn_end(d, c);
	else if (h->op == VIRTIO_VSOCK_OP_RW)
		take_data(d, c, h->len);
	else if (h->op == VIRTIO_VSOCK_OP_CREDIT_REQUEST)
		c->owed |= OWE_CREDIT;
	else if (h->op == VIRTIO_VSOCK_OP_SHUTDOWN) {
		c->guest_shutdown |= h->flags & SHUTDOWN_BOTH;
		settle(d, c);
	} else if (h->op != VIRTIO_VSOCK_OP_CREDIT_UPDATE)
		vsock_conn_end(d, c);
}

/* --- the host's programs -------------------------------------------------------------------------------------------------- */

static uint32_t free_port(struct vsock *d, uint32_t guest_port)
{
	do
		d->next_port = (d->next_port + 1) | FIRST_PORT;
	while (find(d, guest_port, d->next_port));
	return d->next_port;
}

/* "CONNECT port\n", the port in decimal. */
static bool parse_line(const char *line, uint32_t *port)
{
	unsigned long long v;
	char *end;

	if (strncmp(line, "CONNECT ", 8) || line[8] < '0' || line[8] > '9')
		return false;
	v = strtoull(line + 8, &end, 10);
	*port = (uint32_t)v;
	return !strcmp(end, "\n") && v < UINT32_MAX;
}

/* Reads the line byte by byte: what follows it is the stream's. */
static void handshake(struct vsock *d, struct vsock_conn *c)
{
	for (;;) {
		ssize_t n = read(c->fd, c->line + c->line_len, 1);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && errno == EAGAIN)
			return;
		if (n <= 0 || ++c->line_len == VSOCK_LINE)
			break;
		if (c->line[c->line_len - 1] != '\n')
			continue;
		c->line[c->line_len] = 0;
		if (!virtio_live(&d->v) || !parse_line(c->line, &c->guest_port))
			break;
		c->host_port = free_port(d, c->guest_port);
		c->state = CONN_ASKED;
		c->owed |= OWE_REQUEST;
		vsock_conn_watch(d, c);
		return;
	}
	vsock_conn_free(d, c);
}

void vsock_conn_ready(struct vsock *d, struct vsock_conn *c, uint32_t events)
{
	if (c->state == CONN_FREE || c->fd < 0)
		return;
	if (c->state == CONN_HANDSHAKE) {
		handshake(d, c);
		return;
	}
	if (events & (EPOLLHUP | EPOLLERR)) {
		c->hup = true;
		/* Nobody waits for the answer any more. */
		if (c->state == CONN_DRAINING) {
			vsock_conn_free(d, c);
			return;
		}
		if (c->state != CONN_OPEN) {
			vsock_conn_end(d, c);
			return;
		}
	}
	if (events & (EPOLLIN | EPOLLHUP | EPOLLERR))
		c->readable = true;
	if (c->got != c->fwd)
		flush(d, c);
	else
		vsock_conn_watch(d, c);
}

void vsock_conn_accepted(struct vsock *d, int fd)
{
	struct vsock_conn *c = virtio_live(&d->v) ? conn_new(d, CONN_HANDSHAKE) : NULL;

	if (!c) {
		close(fd);
		return;
	}
	c->fd = fd;
	vsock_conn_watch(d, c);
}

void vsock_conn_dialed(struct vsock *d, uint32_t id, uint32_t error, int fd)
{
	struct vsock_conn *c = (id & 0xff) < VSOCK_CONNS ? &d->conn[id & 0xff] : NULL;

	/* The guest may have given up meanwhile, and its place been taken. */
	if (!c || c->state != CONN_DIALING || c->serial != id >> 8) {
		if (fd >= 0)
			close(fd);
		return;
	}
	if (error || fd < 0) {
		vsock_conn_end(d, c);
		return;
	}
	c->fd = fd;
	c->state = CONN_OPEN;
	c->owed |= OWE_RESPONSE;
	c->readable = true;
	vsock_conn_watch(d, c);
}
