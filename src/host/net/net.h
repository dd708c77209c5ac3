/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The host's side of a network interface: frames in, frames out, whatever carries them.
 *
 *   device (dev/virtio/net.c)  --send-->   backend   --->  passt's socket, a tap, nothing
 *                              <--peek/take--        <---
 *
 * Invariants: no operation blocks; a backend buffers a bounded amount (one receive buffer, at most one frame half sent) made at
 * creation, and otherwise says "later". A frame to be sent consists of a private copy of its first bytes (`head`), on which
 * everything is decided, and pieces of guest memory that the guest may change at any time and that are only copied and summed.
 * Locking: all operations of one backend under one lock (the machine's io.lock). The sources' descriptors are fixed; `events` is
 * the caller's.
 * Offload fields are those of virtio: struct virtio_net_hdr_v1 of <linux/virtio_net.h> (virtio 1.2, 5.1.6), little-endian.
 */
#ifndef HOST_NET_NET_H
#define HOST_NET_NET_H

#include <linux/virtio_net.h>
#include <string.h>
#include <sys/uio.h>

#include "base/types.h"
#include "host/evloop.h"

#define NET_MAC_LEN 6
#define NET_ETH_HEADER 14
#define NET_VLAN_TAG 4
/* An IPv6 packet of the greatest length with its Ethernet header and a VLAN tag: no frame is longer. */
#define NET_FRAME_MAX (NET_ETH_HEADER + NET_VLAN_TAG + 40 + 65535)
/* How much of a frame is copied to be looked at: more than any sensible chain of headers. */
#define NET_HEAD 256
#define NET_MAX_QUEUES 8

/* What a backend takes and gives beside finished frames. */
enum net_offload {
	NET_OFFLOAD_CSUM = 1,    /* checksums left to be completed */
	NET_OFFLOAD_TSO4 = 2,    /* TCP over IPv4 longer than the MTU */
	NET_OFFLOAD_TSO6 = 4,
	NET_OFFLOAD_ECN = 8,     /* ... with CWR set */
};

/* One frame to be sent. `head` is iov[0]; the rest of iov is guest memory. */
struct net_frame {
	struct virtio_net_hdr_v1 hdr;   /* as the guest gave it, a copy */
	uint8_t *head;
	size_t head_len;                /* the smaller of len and NET_HEAD */
	struct iovec *iov;
	unsigned niov;
	size_t len;                     /* of the frame: the sum over iov */
};

/* The frame at the head of a receive queue. Valid until the next operation on the backend. */
struct net_rx {
	struct virtio_net_hdr_v1 hdr;   /* num_buffers is the device's to fill in */
	const uint8_t *head;            /* at least the smaller of len and NET_HEAD bytes */
	size_t len;
};

struct net_backend;

struct net_backend_ops {
	/*
	 * Takes up to n frames in order and says how many. Fewer, or tx_pending: the carrier is full, call again (n may be 0) when
	 * source[] reports POLLOUT. Frames that cannot be sent are taken, counted as dropped and get
	 * len 0. `head` and `hdr` may be changed.
	 */
	unsigned (*send)(struct net_backend *b, unsigned queue, struct net_frame *f, unsigned n);
	/* 1 and the next frame, 0 if there is none now, -EPIPE if the other side is gone. */
	int (*peek)(struct net_backend *b, unsigned queue, struct net_rx *rx);
	/* Copies the peeked frame into iov, which holds at least its length, and forgets it. niov 0: only forgets it. */
	void (*take)(struct net_backend *b, unsigned queue, const struct iovec *iov, unsigned niov);
	/* Which offloads received frames may carry from now on (bits of rx_offloads). NULL: they never carry any. */
	void (*set_offloads)(struct net_backend *b, unsigned offloads);
	void (*destroy)(struct net_backend *b);
};

struct net_backend {
	const struct net_backend_ops *ops;
	const char *name;               /* for messages */
	unsigned queues;                /* sources in use */
	unsigned tx_offloads;           /* what send accepts */
	unsigned rx_offloads;           /* what peek may be asked to deliver */
	bool rx_trusted;                /* received checksums are known to be right */
	bool gone;                      /* the other side has ended */
	bool tx_pending;                /* a part of the last frame taken is still to be sent */
	uint64_t tx_dropped;            /* frames that send took and threw away */
	struct ev_source source[NET_MAX_QUEUES];
};

/* passt.c: frames over a stream socket, each after its length. Takes over fd. 0 or -errno. */
int net_passt_create(struct net_backend **out, int fd);

/* tap.c: one descriptor per queue. Takes them over. 0 or -errno (-EINVAL: not taps of one kind). */
int net_tap_create(struct net_backend **out, const int *fds, unsigned nfds);

/* Copies n bytes into the pieces, in order, as far as they reach. */
static inline void net_scatter(const struct iovec *iov, unsigned niov, const uint8_t *from, size_t n)
{
	for (unsigned i = 0; i < niov && n; i++) {
		size_t part = iov[i].iov_len < n ? iov[i].iov_len : n;

		memcpy(iov[i].iov_base, from, part);
		from += part;
		n -= part;
	}
}

static inline unsigned net_send(struct net_backend *b, unsigned queue, struct net_frame *f, unsigned n)
{
	return b->ops->send(b, queue, f, n);
}

static inline int net_peek(struct net_backend *b, unsigned queue, struct net_rx *rx)
{
	return b->ops->peek(b, queue, rx);
}

static inline void net_take(struct net_backend *b, unsigned queue, const struct iovec *iov, unsigned niov)
{
	b->ops->take(b, queue, iov, niov);
}

static inline void net_set_offloads(struct net_backend *b, unsigned offloads)
{
	if (b->ops->set_offloads)
		b->ops->set_offloads(b, offloads & b->rx_offloads);
}

static inline void net_destroy(struct net_backend *b)
{
	if (b)
		b->ops->destroy(b);
}

#endif
