/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Frames through a tap: a descriptor of /dev/net/tun per queue, one frame a read or write (Linux tuntap.rst, <linux/if_tun.h>).
 *
 * With IFF_VNET_HDR the kernel takes and gives virtio's offload fields in front of each frame; without (a descriptor made by somebody
 * else), frames are finished here and long segments are not offered.
 * Invariant: the kernel checks the fields once more, as it must: it gets them from whoever holds the descriptor.
 * Locking: net.h.
 */
#include "host/net/tap.h"

#include <errno.h>
#include <linux/if_tun.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "host/net/offload.h"

/* 12 bytes: the fields of virtio 1.x, in its byte order. */
#define HDR_BYTES ((int)sizeof(struct virtio_net_hdr_v1))
#define TAP_PIECES 1024

struct tap {
	struct net_backend b;
	bool vnet_hdr;
	int fd[NET_MAX_QUEUES];
	/* The frame that peek has read from a queue; 0: none. */
	size_t peeked[NET_MAX_QUEUES];
	struct virtio_net_hdr_v1 hdr[NET_MAX_QUEUES];
	uint8_t (*frame)[NET_FRAME_MAX];
};

static bool send_one(struct tap *t, unsigned queue, struct net_frame *f)
{
	struct iovec iov[TAP_PIECES];
	unsigned niov = 0;
	ssize_t n;

	if (f->niov >= TAP_PIECES || (!t->vnet_hdr && net_offload_finish(f) < 0)) {
		f->len = 0;
		t->b.tx_dropped++;
		return true;
	}
	if (t->vnet_hdr)
		iov[niov++] = (struct iovec){&f->hdr, (size_t)HDR_BYTES};
	memcpy(iov + niov, f->iov, f->niov * sizeof(*iov));
	niov += f->niov;
	do
		n = writev(t->fd[queue], iov, (int)niov);
	while (n < 0 && errno == EINTR);
	if (n < 0 && errno == EAGAIN)
		return false;
	/* EIO: the interface is down. EINVAL: fields that the kernel takes for wrong. Either way the frame is lost, as on a wire. */
	if (n < 0) {
		f->len = 0;
		t->b.tx_dropped++;
	}
	return true;
}

static unsigned tap_send(struct net_backend *b, unsigned queue, struct net_frame *f, unsigned n)
{
	struct tap *t = container_of(b, struct tap, b);
	unsigned done = 0;

	while (done < n && send_one(t, queue, &f[done]))
		done++;
	return done;
}

/* Reads a frame into the queue's buffer. Its length, 0 if there is none, -EPIPE at the interface's end. */
static ssize_t fetch(struct tap *t, unsigned queue)
{
	struct iovec iov[2] = {{&t->hdr[queue], (size_t)HDR_BYTES}, {t->frame[queue], NET_FRAME_MAX}};
	int skip = t->vnet_hdr ? 0 : 1;
	ssize_t n;

	do
		n = readv(t->fd[queue], iov + skip, 2 - skip);
	while (n < 0 && errno == EINTR);
	if (n < 0)
		return errno == EAGAIN ? 0 : -EPIPE;
	n -= t->vnet_hdr ? HDR_BYTES : 0;
	return n < NET_ETH_HEADER ? 0 : n;
}

static int tap_peek(struct net_backend *b, unsigned queue, struct net_rx *rx)
{
	struct tap *t = container_of(b, struct tap, b);
	ssize_t n = (ssize_t)t->peeked[queue];

	if (n == 0)
		n = fetch(t, queue);
	if (n < 0)
		b->gone = true;
	if (n <= 0)
		return (int)n;
	t->peeked[queue] = (size_t)n;
	rx->hdr = t->hdr[queue];
	rx->head = t->frame[queue];
	rx->len = (size_t)n;
	return 1;
}

static void tap_take(struct net_backend *b, unsigned queue, const struct iovec *iov, unsigned niov)
{
	struct tap *t = container_of(b, struct tap, b);

	net_scatter(iov, niov, t->frame[queue], t->peeked[queue]);
	t->peeked[queue] = 0;
}

static void tap_set_offloads(struct net_backend *b, unsigned offloads)
{
	struct tap *t = container_of(b, struct tap, b);
	unsigned long flags = 0;

	if (offloads & NET_OFFLOAD_CSUM)
		flags |= TUN_F_CSUM;
	if (offloads & NET_OFFLOAD_TSO4)
		flags |= TUN_F_TSO4;
	if (offloads & NET_OFFLOAD_TSO6)
		flags |= TUN_F_TSO6;
	if (offloads & NET_OFFLOAD_ECN)
		flags |= TUN_F_TSO_ECN;
	/* The setting is the interface's, shared by its queues. */
	(void)ioctl(t->fd[0], TUNSETOFFLOAD, flags);
}

static void tap_destroy(struct net_backend *b)
{
	struct tap *t = container_of(b, struct tap, b);

	for (unsigned i = 0; i < b->queues; i++)
		close(t->fd[i]);
	free(t->frame);
	free(t);
}

static const struct net_backend_ops tap_ops = {
	.send = tap_send,
	.peek = tap_peek,
	.take = tap_take,
	.set_offloads = tap_set_offloads,
	.destroy = tap_destroy,
};

int net_tap_create(struct net_backend **out, const int *fds, unsigned nfds)
{
	unsigned offloads = NET_OFFLOAD_CSUM | NET_OFFLOAD_TSO4 | NET_OFFLOAD_TSO6 | NET_OFFLOAD_ECN;
	bool vnet_hdr = false, with;
	struct tap *t;

	if (nfds == 0 || nfds > NET_MAX_QUEUES)
		return -EINVAL;
	for (unsigned i = 0; i < nfds; i++) {
		int ret = net_tap_prepare(fds[i], &with);

		if (ret < 0 || (i && with != vnet_hdr))
			return ret < 0 ? ret : -EINVAL;
		vnet_hdr = with;
	}
	t = calloc(1, sizeof(*t));
	if (!t)
		return -ENOMEM;
	t->frame = calloc(nfds, sizeof(*t->frame));
	if (!t->frame) {
		free(t);
		return -ENOMEM;
	}
	t->vnet_hdr = vnet_hdr;
	t->b = (struct net_backend){.ops = &tap_ops, .name = "tap", .queues = nfds};
	t->b.tx_offloads = vnet_hdr ? offloads : NET_OFFLOAD_CSUM;
	t->b.rx_offloads = vnet_hdr ? offloads : 0;
	for (unsigned i = 0; i < nfds; i++)
		t->b.source[i].fd = t->fd[i] = fds[i];
	tap_set_offloads(&t->b, 0);
	*out = &t->b;
	return 0;
}
