/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Inside of the vsock device: its connections (vsock_conn.c) and its queues (vsock.c).
 */
#ifndef DEV_VIRTIO_VSOCK_CONN_H
#define DEV_VIRTIO_VSOCK_CONN_H

#include <linux/virtio_vsock.h>
#include <sys/socket.h>

#include <linux/vm_sockets.h>

#include "dev/virtio/vsock.h"

#define VSOCK_CONNS 64
#define VSOCK_BUFFER (64u << 10)      /* what the guest may send ahead on a connection; a power of two */
#define VSOCK_RESETS 64
#define VSOCK_LINE 24                 /* "CONNECT 4294967295\n" and some room */

/*
 *             program connects                  guest: RESPONSE
 *   FREE ---------------------> HANDSHAKE -> ASKED ----------> OPEN
 *    |   guest: REQUEST                   doppel: connected      |
 *    +---------------------> DIALING ----------------------------+
 *
 * ENDING: the host's side is closed, an RST is owed; then FREE. An RST from the guest frees at once, in any state; but if the guest
 * had said before that it was done, the program still gets what it sent (DRAINING: the guest knows nothing of it any more).
 * From ASKED on the guest knows the connection by its ports.
 */
enum vsock_state { CONN_FREE, CONN_HANDSHAKE, CONN_DRAINING, CONN_ASKED, CONN_DIALING, CONN_OPEN, CONN_ENDING };

/* Packets owed to the guest. In one pump they go in this order, data after CREDIT. */
enum vsock_owed {
	OWE_REQUEST = 1,
	OWE_RESPONSE = 2,
	OWE_RST = 4,
	OWE_CREDIT = 8,       /* our credit update */
	OWE_ASK = 16,         /* a credit request */
	OWE_SHUTDOWN = 32,    /* after all data */
};

struct vsock_conn {
	enum vsock_state state;
	int fd;                            /* the host's program; -1: none */
	uint32_t serial;                   /* tells apart connections that used this place */
	uint32_t guest_port, host_port;
	uint32_t peer_alloc, peer_fwd;     /* the guest's buffer, and how much it has taken out of it */
	uint32_t sent;                     /* bytes to the guest */
	uint32_t got, fwd, fwd_told;       /* bytes from the guest; passed to the host; last figure told */
	uint8_t *ring;                     /* VSOCK_BUFFER bytes: got - fwd of them wait for the host's program */
	unsigned owed;                     /* enum vsock_owed */
	uint32_t shutdown;                 /* VIRTIO_VSOCK_SHUTDOWN_*: by us */
	uint32_t guest_shutdown;           /* by the guest */
	uint32_t watching;                 /* EPOLL* asked for */
	bool watched;                      /* in the epoll set */
	bool readable;                     /* worth a read */
	bool hup;                          /* the program has gone: what it sent is still there */
	bool shut;                         /* our writing direction is closed */
	char line[VSOCK_LINE];
	unsigned line_len;
};

struct vsock_addr { uint32_t guest_port, host_port; };

struct vsock {
	struct virtio_dev v;
	struct virtio_vsock_options opt;
	struct { uint64_t guest_cid; } space;
	int epoll, kick;                   /* connections and kick are in the epoll set */
	struct ev_source ev_epoll, ev_dial;
	struct vsock_conn conn[VSOCK_CONNS];
	unsigned turn;                     /* whose packets come first */
	uint32_t next_port, next_serial;
	struct vsock_addr reset[VSOCK_RESETS];   /* RSTs owed to ends that are no connection */
	unsigned nresets;
	struct virtqueue_chain rx, tx;
	uint8_t *rings;
};

/* vsock_conn.c. All with io->lock held. */
void vsock_conn_free(struct vsock *d, struct vsock_conn *c);
/* Ends a connection: the host's side at once, the guest's by an RST. */
void vsock_conn_end(struct vsock *d, struct vsock_conn *c);
/* A packet of the guest for or without a connection; the payload lies at VSOCK_HDR in d->tx. */
void vsock_conn_packet(struct vsock *d, const struct virtio_vsock_hdr *h);
/* Events of the host's side. */
void vsock_conn_ready(struct vsock *d, struct vsock_conn *c, uint32_t events);
void vsock_conn_accepted(struct vsock *d, int fd);
void vsock_conn_dialed(struct vsock *d, uint32_t id, uint32_t error, int fd);
/* Adjusts what the epoll set waits for. */
void vsock_conn_watch(struct vsock *d, struct vsock_conn *c);
/* How much the guest has room for. */
uint32_t vsock_conn_credit(const struct vsock_conn *c);

#endif
