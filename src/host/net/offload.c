/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Checksums and TCP segmentation offload in software: RFC 1071, RFC 791, RFC 8200, RFC 9293, virtio 1.2 section 5.1.6.2.
 *
 * Invariant: decisions are taken on `head` and `hdr`, which are private copies. The rest of the frame is guest memory: it is summed once,
 * and a guest that changes it meanwhile sends a frame with a wrong checksum, which it could have written itself.
 * No state, no locks.
 */
#include "host/net/offload.h"

#include <endian.h>
#include <errno.h>
#include <string.h>

#define ETHERTYPE_VLAN 0x8100
#define ETHERTYPE_IPV4 0x0800
#define ETHERTYPE_IPV6 0x86dd
#define PROTO_TCP 6
#define IPV4_HEADER 20
#define IPV6_HEADER 40
#define TCP_HEADER 20
#define TCP_CSUM_OFFSET 16
/* Linux never segments below this (TCP_MIN_SND_MSS); it bounds the number of segments that one frame can become. */
#define GSO_SIZE_MIN 48

static uint16_t load16(const uint8_t *p)
{
	uint16_t v;

	memcpy(&v, p, sizeof(v));
	return be16toh(v);
}

static void store16(uint8_t *p, uint16_t v)
{
	v = htobe16(v);
	memcpy(p, &v, sizeof(v));
}

/* Host byte order inside: a sum of byte-swapped words is the byte-swapped sum (RFC 1071, 2 B). */
static uint64_t sum_native(const uint8_t *p, size_t n)
{
	uint64_t sum = 0;
	uint32_t w;

	for (; n >= sizeof(w); p += sizeof(w), n -= sizeof(w)) {
		memcpy(&w, p, sizeof(w));
		sum += w;
	}
	w = 0;
	memcpy(&w, p, n);
	return sum + w;
}

uint16_t net_sum_fold(uint64_t sum)
{
	while (sum >> 16)
		sum = (sum & 0xffff) + (sum >> 16);
	return (uint16_t)sum;
}

uint64_t net_sum(const void *p, size_t n)
{
	return be16toh(net_sum_fold(sum_native(p, n)));
}

/* The sum over the frame from offset `start`. Pieces may have odd lengths; what follows one then counts with its bytes swapped. */
static uint64_t sum_frame(const struct net_frame *f, size_t start)
{
	uint64_t sum = 0;
	size_t pos = 0;

	for (unsigned i = 0; i < f->niov; i++) {
		const uint8_t *p = f->iov[i].iov_base;
		size_t n = f->iov[i].iov_len, skip = start > pos ? start - pos : 0;
		uint16_t part;

		pos += n;
		if (skip >= n)
			continue;
		part = (uint16_t)net_sum(p + skip, n - skip);
		/* Its first byte is at (pos - n + skip) - start of the text. */
		sum += ((pos - (n - skip) - start) & 1) ? (uint16_t)(part << 8 | part >> 8) : part;
	}
	return sum;
}

/* Where the network header begins and what it is, behind at most one VLAN tag. */
static uint16_t network_header(const struct net_frame *f, size_t *l3)
{
	uint16_t type = load16(f->head + 12);

	*l3 = NET_ETH_HEADER;
	if (type == ETHERTYPE_VLAN && f->head_len >= NET_ETH_HEADER + NET_VLAN_TAG) {
		type = load16(f->head + 16);
		*l3 += NET_VLAN_TAG;
	}
	return type;
}

/* TCP segmentation: the headers must be what gso_type says, and lie inside head. */
static bool tcp_ok(const struct net_frame *f, bool v6)
{
	size_t l3, l4 = f->hdr.csum_start, tcp_len;
	const uint8_t *ip;

	if (network_header(f, &l3) != (v6 ? ETHERTYPE_IPV6 : ETHERTYPE_IPV4) ||
	    l3 + (v6 ? IPV6_HEADER : IPV4_HEADER) > f->head_len)
		return false;
	ip = f->head + l3;
	if (v6 && (ip[0] >> 4 != 6 || ip[6] != PROTO_TCP || l4 != l3 + IPV6_HEADER))
		return false;
	if (!v6 && (ip[0] >> 4 != 4 || (ip[0] & 15) < 5 || ip[9] != PROTO_TCP || l4 != l3 + (ip[0] & 15) * 4u))
		return false;
	if (f->hdr.csum_offset != TCP_CSUM_OFFSET || l4 + TCP_HEADER > f->head_len)
		return false;
	tcp_len = (size_t)(f->head[l4 + 12] >> 4) * 4;
	return tcp_len >= TCP_HEADER && l4 + tcp_len < f->len && l4 + tcp_len <= f->head_len;
}

static bool gso_ok(const struct net_frame *f, unsigned offloads)
{
	if (!(f->hdr.flags & VIRTIO_NET_HDR_F_NEEDS_CSUM) || f->hdr.gso_size < GSO_SIZE_MIN)
		return false;
	if ((f->hdr.gso_type & VIRTIO_NET_HDR_GSO_ECN) && !(offloads & NET_OFFLOAD_ECN))
		return false;
	switch (f->hdr.gso_type & ~VIRTIO_NET_HDR_GSO_ECN) {
	case VIRTIO_NET_HDR_GSO_TCPV4:
		return (offloads & NET_OFFLOAD_TSO4) && tcp_ok(f, false);
	case VIRTIO_NET_HDR_GSO_TCPV6:
		return (offloads & NET_OFFLOAD_TSO6) && tcp_ok(f, true);
	default:
		return false;
	}
}

int net_offload_check(struct net_frame *f, unsigned offloads)
{
	struct virtio_net_hdr_v1 *h = &f->hdr;

	if (f->len < NET_ETH_HEADER || f->len > NET_FRAME_MAX)
		return -EINVAL;
	h->flags &= VIRTIO_NET_HDR_F_NEEDS_CSUM;
	h->num_buffers = 0;
	if (h->flags) {
		/* Sums of 16-bit fields: they cannot wrap in an int. */
		if (!(offloads & NET_OFFLOAD_CSUM) || h->csum_start < NET_ETH_HEADER ||
		    h->csum_start + h->csum_offset + 2u > f->head_len)
			return -EINVAL;
	} else {
		h->csum_start = h->csum_offset = 0;
	}
	if (h->gso_type != VIRTIO_NET_HDR_GSO_NONE)
		return gso_ok(f, offloads) ? 0 : -EINVAL;
	h->gso_size = h->hdr_len = 0;
	return 0;
}

/* One long segment: lengths and sums that a network card would write into each short one. */
static int finish_segment(struct net_frame *f)
{
	size_t l3, ip_len, tcp_len = f->len - f->hdr.csum_start;
	bool v6 = network_header(f, &l3) == ETHERTYPE_IPV6;
	uint8_t *ip = f->head + l3;
	uint64_t pseudo;

	ip_len = f->len - l3 - (v6 ? IPV6_HEADER : 0);
	if (ip_len > 0xffff)
		return -EMSGSIZE;
	if (v6) {
		store16(ip + 4, (uint16_t)ip_len);
		pseudo = net_sum(ip + 8, 32);
	} else {
		store16(ip + 2, (uint16_t)ip_len);
		store16(ip + 10, 0);
		store16(ip + 10, (uint16_t)~net_sum_fold(net_sum(ip, (ip[0] & 15) * 4u)));
		pseudo = net_sum(ip + 12, 8);
	}
	/* Drivers differ in whether the sum they leave includes the length: ours is made anew. */
	store16(f->head + f->hdr.csum_start + TCP_CSUM_OFFSET, net_sum_fold(pseudo + PROTO_TCP + tcp_len));
	return 0;
}

int net_offload_finish(struct net_frame *f)
{
	uint16_t sum;

	if (f->hdr.gso_type != VIRTIO_NET_HDR_GSO_NONE && finish_segment(f) < 0)
		return -EMSGSIZE;
	if (f->hdr.flags & VIRTIO_NET_HDR_F_NEEDS_CSUM) {
		sum = (uint16_t)~net_sum_fold(sum_frame(f, f->hdr.csum_start));
		/* Zero means "no checksum" to UDP and is never the only right value (RFC 768). */
		store16(f->head + f->hdr.csum_start + f->hdr.csum_offset, sum ? sum : 0xffff);
	}
	f->hdr = (struct virtio_net_hdr_v1){.flags = 0};
	return 0;
}
