/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A vsock device between a model driver and programs that are socket pairs of the test. Shared by the unit test and the fuzzer.
 */
#ifndef TESTS_UNIT_DEV_VIRTIO_VSOCK_FIXTURE_H
#define TESTS_UNIT_DEV_VIRTIO_VSOCK_FIXTURE_H

#include <fcntl.h>
#include <signal.h>
#include <unistd.h>

#include "dev/virtio/vsock_conn.h"
#include "proto/dial.h"
#include "virtio_driver.h"

#define VS_CID 3
#define VS_RX_BUF(id) (VD_BUFFERS + 0x1000ull * (id))
#define VS_TX_BUF (VD_BUFFERS + 0x1000ull * VD_RING)
#define VS_RX_LEN 4096

struct vs {
	struct mem *mem;
	struct io io;
	struct evloop loop;
	struct virtio_dev *v;
	struct vsock *d;
	struct vdrv q[3];
	int dial;               /* doppel's end */
	uint8_t data[VS_RX_LEN];   /* of the last packet received */
};

static inline struct vs *vs_create(void)
{
	struct virtio_vsock_options opt = {.cid = VS_CID};
	struct vs *s = calloc(1, sizeof(*s));
	int pair[2];

	signal(SIGPIPE, SIG_IGN);
	if (!s || mem_create(&s->mem, 4 << 20, 4 << 8) || mem_add_ram(s->mem, 0, VRING_RAM) || io_init(&s->io, s->mem) ||
	    socketpair(AF_UNIX, SOCK_SEQPACKET, 0, pair))
		abort();
	evloop_init(&s->loop);
	s->dial = pair[0];
	opt.dial = pair[1];
	opt.loop = &s->loop;
	if (virtio_vsock_create(&s->io, &opt, &s->v))
		abort();
	s->d = container_of(s->v, struct vsock, v);
	return s;
}

static inline void vs_destroy(struct vs *s)
{
	s->v->ops->destroy(s->v);
	close(s->dial);
	io_fini(&s->io);
	mem_destroy(s->mem);
	free(s);
}

/* Gives the device receive buffers for every free descriptor. */
static inline void vs_fill(struct vs *s)
{
	struct vdrv *q = &s->q[0];

	while (q->nfree) {
		struct vbuf b = {VS_RX_BUF(q->free[q->nfree - 1]), VS_RX_LEN, true};

		(void)vdrv_add(q, &b, 1, false);
	}
	vd_kick(s->v, 0);
}

static inline void vs_start(struct vs *s, uint64_t features)
{
	vd_negotiate(s->v, s->q, 3, features);
	vs_fill(s);
}

/* The guest sends raw bytes as one packet. */
static inline void vs_send_raw(struct vs *s, const void *p, size_t n)
{
	struct vbuf b = {VS_TX_BUF, (uint32_t)n, false};
	uint32_t len;
	uint16_t id;

	memcpy(vat(&s->q[1], VS_TX_BUF), p, n);
	(void)vdrv_add(&s->q[1], &b, 1, false);
	vd_kick(s->v, 1);
	while (vdrv_take(&s->q[1], &id, &len))
		vdrv_free(&s->q[1], id);
}

static inline void vs_send(struct vs *s, uint16_t op, uint32_t guest_port, uint32_t host_port, uint32_t fwd, const void *p, uint32_t n)
{
	struct virtio_vsock_hdr h = {.src_cid = VS_CID, .dst_cid = 2, .src_port = guest_port, .dst_port = host_port, .len = n,
				     .type = VIRTIO_VSOCK_TYPE_STREAM, .op = op, .buf_alloc = 8192, .fwd_cnt = fwd};
	static uint8_t packet[70000];

	if (op == VIRTIO_VSOCK_OP_SHUTDOWN) {
		h.flags = n;
		h.len = n = 0;
	}
	memcpy(packet, &h, sizeof(h));
	if (n)
		memcpy(packet + sizeof(h), p, n);
	vs_send_raw(s, packet, sizeof(h) + n);
}

/* The guest receives a packet; false if there is none. Its buffer goes back. */
static inline bool vs_recv(struct vs *s, struct virtio_vsock_hdr *h)
{
	uint32_t len = 0;
	uint16_t id = 0;

	vd_loop(&s->loop);
	if (!vdrv_take(&s->q[0], &id, &len))
		return false;
	memcpy(h, vat(&s->q[0], VS_RX_BUF(id)), sizeof(*h));
	memcpy(s->data, vat(&s->q[0], VS_RX_BUF(id) + sizeof(*h)), VS_RX_LEN - sizeof(*h));
	if (len != sizeof(*h) + h->len)
		abort();
	vdrv_free(&s->q[0], id);
	vs_fill(s);
	return true;
}

/* A program of the host connects; its end. */
static inline int vs_program(struct vs *s)
{
	int pair[2];

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, pair) || dial_send(s->dial, DIAL_ACCEPTED, 0, 0, pair[1]))
		abort();
	close(pair[1]);
	vd_loop(&s->loop);
	return pair[0];
}

#endif
