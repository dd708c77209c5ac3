/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Frames for the tests of host/net: built field by field, and checked by the book: slow sums that share nothing with the code under test.
 */
#ifndef TESTS_HOST_NET_FRAMES_H
#define TESTS_HOST_NET_FRAMES_H

#include <stdlib.h>
#include <string.h>

#include "host/net/net.h"

#define TEST_PIECES 64

/* A struct net_frame with everything it points to. */
struct test_frame {
	struct net_frame f;
	uint8_t bytes[NET_FRAME_MAX + 64];
	uint8_t head[NET_HEAD];
	struct iovec iov[TEST_PIECES];
};

static inline void put16(uint8_t *p, unsigned v)
{
	p[0] = (uint8_t)(v >> 8);
	p[1] = (uint8_t)v;
}

static inline unsigned get16(const uint8_t *p)
{
	return (unsigned)p[0] << 8 | p[1];
}

/* RFC 1071, a byte at a time. */
static inline unsigned slow_sum(unsigned sum, const uint8_t *p, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		sum += i & 1 ? p[i] : (unsigned)p[i] << 8;
		sum = (sum & 0xffff) + (sum >> 16);
	}
	return sum;
}

/* What the receiver of a TCP or UDP packet adds up: 0xffff if it is whole. */
static inline unsigned received_sum(const uint8_t *ip, size_t ip_header, size_t l4_len, unsigned proto)
{
	bool v6 = ip[0] >> 4 == 6;
	uint8_t tail[4];
	unsigned sum = v6 ? slow_sum(0, ip + 8, 32) : slow_sum(0, ip + 12, 8);

	put16(tail, (unsigned)l4_len);
	put16(tail + 2, proto);
	return slow_sum(slow_sum(sum, tail, 4), ip + ip_header, l4_len);
}

/* Cuts the frame's len bytes into head and pieces of at most `piece` bytes (random ones for 0). */
static inline void test_frame_cut(struct test_frame *t, size_t len, size_t piece)
{
	size_t pos = len < NET_HEAD ? len : NET_HEAD;

	memcpy(t->head, t->bytes, pos);
	t->iov[0] = (struct iovec){t->head, pos};
	t->f.head = t->head;
	t->f.head_len = pos;
	t->f.len = len;
	t->f.iov = t->iov;
	t->f.niov = 1;
	while (pos < len) {
		size_t n = piece ? piece : 1 + (size_t)rand() % 5000;

		if (n > len - pos || t->f.niov == TEST_PIECES - 1)
			n = len - pos;
		t->iov[t->f.niov++] = (struct iovec){t->bytes + pos, n};
		pos += n;
	}
}

/* Ethernet (with a VLAN tag or not), IPv4 or IPv6, TCP and `payload` random bytes, checksum left to the interface. The length. */
static inline size_t test_tcp(struct test_frame *t, bool v6, bool vlan, size_t payload)
{
	size_t l3 = vlan ? 18 : 14, l4 = l3 + (v6 ? 40 : 20), len = l4 + 20 + payload;
	uint8_t *b = t->bytes, *ip = b + l3;

	memset(t, 0, sizeof(*t));
	for (size_t i = 0; i < len; i++)
		b[i] = (uint8_t)rand();
	if (vlan)
		put16(b + 12, 0x8100);
	put16(b + l3 - 2, v6 ? 0x86dd : 0x0800);
	ip[0] = v6 ? 0x60 : 0x45;
	ip[v6 ? 6 : 9] = 6;
	put16(v6 ? ip + 4 : ip + 2, 0); /* a segment longer than the MTU: what stands here does not matter */
	b[l4 + 12] = 0x50;
	put16(b + l4 + 16, 0);
	t->f.hdr = (struct virtio_net_hdr_v1){
		.flags = VIRTIO_NET_HDR_F_NEEDS_CSUM, .csum_start = (uint16_t)l4, .csum_offset = 16, .gso_size = 1460,
		.gso_type = v6 ? VIRTIO_NET_HDR_GSO_TCPV6 : VIRTIO_NET_HDR_GSO_TCPV4};
	test_frame_cut(t, len, 0);
	return len;
}

/* The frame as a carrier would see it. */
static inline size_t test_frame_flat(const struct net_frame *f, uint8_t *out)
{
	size_t pos = 0;

	for (unsigned i = 0; i < f->niov; i++) {
		memcpy(out + pos, f->iov[i].iov_base, f->iov[i].iov_len);
		pos += f->iov[i].iov_len;
	}
	return pos;
}

#endif
