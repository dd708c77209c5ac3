/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Frames over a stream socket to passt: each frame after its length as a 32-bit big-endian number (passt(1), QEMU's "stream").
 *
 *   | length | Ethernet frame | length | Ethernet frame | ...      both directions; no offload fields
 *
 * passt ends TCP and UDP connections of the guest in the host's kernel and takes frames of up to 65535 bytes, so a long TCP segment is
 * sent as it is, finished by net_offload_finish(). Its own frames carry good checksums for data that the kernel has verified.
 *
 * Invariant of the sending side: what one writev() carries is whole frames of at most GROUP_BYTES together, or one frame, or
 * the rest of one frame. passt of 2023 reads the rest of a frame that was cut with a single recv(), and loses its place if that returns
 * less, or if a length is cut. A stream socket of Linux takes pieces of 32 KiB as one, so with these groups no length is ever cut, and the
 * rest of a cut frame arrives at once.
 * Only read() and writev(), which a sealed process may do on any descriptor it has; SIGPIPE is ignored by whoever runs this.
 * Locking: net.h.
 */
#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "host/net/net.h"
#include "host/net/offload.h"

#define LENGTH_BYTES 4
#define PASST_FRAME_MAX 65535
#define GROUP_BYTES (32u << 10)
#define GROUP_FRAMES 32
#define GROUP_PIECES 256
/* Room for a few of the longest frames, so that one read() fetches what has come. */
#define RX_BYTES (256u << 10)

struct passt {
	struct net_backend b;
	int fd;
	/* Received and not yet taken: rx[start, end). */
	uint8_t *rx;
	size_t start, end;
	/* The rest of a frame that the socket took a part of: rest[rest_start, rest_end). */
	uint8_t *rest;
	size_t rest_start, rest_end;
};

/* A run of frames for one writev(). */
struct group {
	struct iovec iov[GROUP_PIECES];
	uint32_t length[GROUP_FRAMES];  /* big-endian */
	unsigned first, n;              /* frames [first, first + n) of the caller's */
	unsigned niov;
	size_t bytes;
};

static void end_of_peer(struct passt *p, const char *why)
{
	if (p->b.gone)
		return;
	p->b.gone = true;
	log_warn("user networking has ended: %s; the machine goes on without it, start it again to have it back", why);
}

/* One attempt: bytes taken by the socket, 0 if it is full. Errors end the connection. */
static size_t push(struct passt *p, const struct iovec *iov, unsigned niov)
{
	ssize_t n;

	do
		n = writev(p->fd, iov, (int)niov);
	while (n < 0 && errno == EINTR);
	if (n >= 0)
		return (size_t)n;
	if (errno != EAGAIN && errno != ENOBUFS)
		end_of_peer(p, "passt is gone");
	return 0;
}

static bool push_rest(struct passt *p)
{
	struct iovec iov = {p->rest + p->rest_start, p->rest_end - p->rest_start};

	if (iov.iov_len == 0)
		return true;
	p->rest_start += push(p, &iov, 1);
	return p->rest_start == p->rest_end;
}

/* Copies what follows the first `skip` bytes of the pieces. */
static void keep_rest(struct passt *p, const struct iovec *iov, unsigned niov, size_t skip)
{
	p->rest_start = p->rest_end = 0;
	for (unsigned i = 0; i < niov; i++) {
		size_t n = iov[i].iov_len, off = skip < n ? skip : n;

		skip -= off;
		memcpy(p->rest + p->rest_end, (const uint8_t *)iov[i].iov_base + off, n - off);
		p->rest_end += n - off;
	}
}

static bool sendable(struct passt *p, struct net_frame *f)
{
	if (f->len <= PASST_FRAME_MAX && f->niov < GROUP_PIECES && net_offload_finish(f) == 0)
		return true;
	p->b.tx_dropped++;
	return false;
}

/* Fills a group with frames from f[first] on, leaving out what cannot be sent: those at its end belong to it without being in it. */
static void gather(struct passt *p, struct group *g, struct net_frame *f, unsigned first, unsigned n)
{
	unsigned frames = 0;

	*g = (struct group){.first = first};
	while (first + g->n < n) {
		struct net_frame *next = &f[first + g->n];

		if (frames && (frames == GROUP_FRAMES || g->bytes + LENGTH_BYTES + next->len > GROUP_BYTES ||
			       g->niov + 1 + next->niov > GROUP_PIECES))
			break;
		g->n++;
		if (!sendable(p, next)) {
			next->len = 0;
			continue;
		}
		g->length[frames] = htobe32((uint32_t)next->len);
		g->iov[g->niov++] = (struct iovec){&g->length[frames++], LENGTH_BYTES};
		memcpy(&g->iov[g->niov], next->iov, next->niov * sizeof(*next->iov));
		g->niov += next->niov;
		g->bytes += LENGTH_BYTES + next->len;
	}
}

/* The socket took `sent` bytes of the group. The number of the caller's frames that are thereby done with; the rest of one that was cut
 * is kept. */
static unsigned account(struct passt *p, const struct group *g, const struct net_frame *f, size_t sent)
{
	unsigned piece = 0;

	for (unsigned i = g->first; i < g->first + g->n; i++) {
		size_t size = f[i].len + LENGTH_BYTES;

		if (f[i].len == 0)
			continue; /* dropped */
		if (sent == 0)
			return i - g->first;
		if (sent < size) {
			keep_rest(p, &g->iov[piece], 1 + f[i].niov, sent);
			return i + 1 - g->first;
		}
		sent -= size;
		piece += 1 + f[i].niov;
	}
	return g->n;
}

static unsigned passt_send(struct net_backend *b, unsigned queue, struct net_frame *f, unsigned n)
{
	struct passt *p = container_of(b, struct passt, b);
	unsigned done = 0;
	struct group g;

	(void)queue;
	while (push_rest(p) && done < n && !p->b.gone) {
		size_t sent = 0;

		gather(p, &g, f, done, n);
		if (g.niov)
			sent = push(p, g.iov, g.niov);
		done += account(p, &g, f, sent);
		if (sent < g.bytes)
			break;
	}
	if (p->b.gone) {
		p->b.tx_dropped += n - done;
		p->rest_start = p->rest_end = 0;
		done = n;
	}
	b->tx_pending = p->rest_start < p->rest_end;
	return done;
}

/* Whether the buffer begins with a whole frame; *size is then its length. -EPROTO for a length that no frame has. */
static int whole_frame(const struct passt *p, size_t *size)
{
	uint32_t len;

	if (p->end - p->start < LENGTH_BYTES)
		return 0;
	memcpy(&len, p->rx + p->start, sizeof(len));
	*size = be32toh(len);
	if (*size < NET_ETH_HEADER || *size > NET_FRAME_MAX)
		return -EPROTO;
	return p->end - p->start - LENGTH_BYTES >= *size;
}

/* Reads what has come behind what is there. False if nothing has. */
static bool refill(struct passt *p)
{
	ssize_t n;

	if (p->start) {
		memmove(p->rx, p->rx + p->start, p->end - p->start);
		p->end -= p->start;
		p->start = 0;
	}
	do
		n = read(p->fd, p->rx + p->end, RX_BYTES - p->end);
	while (n < 0 && errno == EINTR);
	if (n > 0)
		p->end += (size_t)n;
	else if (n == 0 || errno != EAGAIN)
		end_of_peer(p, "passt is gone");
	return n > 0;
}

static int passt_peek(struct net_backend *b, unsigned queue, struct net_rx *rx)
{
	struct passt *p = container_of(b, struct passt, b);
	int whole;

	(void)queue;
	while ((whole = whole_frame(p, &rx->len)) == 0)
		if (p->b.gone || !refill(p))
			return p->b.gone ? -EPIPE : 0;
	if (whole < 0) {
		end_of_peer(p, "passt sent nonsense");
		p->start = p->end = 0;
		return -EPIPE;
	}
	rx->head = p->rx + p->start + LENGTH_BYTES;
	rx->hdr = (struct virtio_net_hdr_v1){.flags = 0};
	return 1;
}

static void passt_take(struct net_backend *b, unsigned queue, const struct iovec *iov, unsigned niov)
{
	struct passt *p = container_of(b, struct passt, b);
	size_t size;

	(void)queue;
	if (whole_frame(p, &size) <= 0)
		return;
	net_scatter(iov, niov, p->rx + p->start + LENGTH_BYTES, size);
	p->start += LENGTH_BYTES + size;
}

static void passt_destroy(struct net_backend *b)
{
	struct passt *p = container_of(b, struct passt, b);

	close(p->fd);
	free(p->rx);
	free(p->rest);
	free(p);
}

static const struct net_backend_ops passt_ops = {
	.send = passt_send,
	.peek = passt_peek,
	.take = passt_take,
	.destroy = passt_destroy,
};

int net_passt_create(struct net_backend **out, int fd)
{
	struct passt *p = calloc(1, sizeof(*p));
	int flags = fcntl(fd, F_GETFL);

	static_assert(RX_BYTES >= 2 * (LENGTH_BYTES + NET_FRAME_MAX), "any frame fits");
	if (!p)
		return -ENOMEM;
	p->rx = malloc(RX_BYTES);
	p->rest = malloc(LENGTH_BYTES + PASST_FRAME_MAX);
	if (!p->rx || !p->rest || flags < 0 || fcntl(fd, F_SETFL, flags | O_NONBLOCK) < 0) {
		free(p->rx);
		free(p->rest);
		free(p);
		return flags < 0 ? -EBADF : -ENOMEM;
	}
	p->fd = fd;
	p->b = (struct net_backend){
		.ops = &passt_ops, .name = "passt", .queues = 1, .rx_trusted = true, .source[0].fd = fd,
		.tx_offloads = NET_OFFLOAD_CSUM | NET_OFFLOAD_TSO4 | NET_OFFLOAD_TSO6 | NET_OFFLOAD_ECN,
	};
	*out = &p->b;
	return 0;
}
