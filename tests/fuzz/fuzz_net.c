/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Fuzzes virtio-net: a driver that writes anything anywhere into its rings and buffers, kicks, sends control commands, resets; and a
 * backend that is full, empty or ends at any moment. The device keeps within guest memory and its own, holds no chain between calls, and
 * gives the backend only frames that net_offload_check() accepts.
 *
 * As a program: fuzz_net RUNS [SEED] makes up inputs. With -DLIBFUZZER it is a libFuzzer target.
 */
#include <stdio.h>

#include "base/log.h"
#include "host/net/offload.h"
#include "unit/dev/virtio/net_fixture.h"

#define INPUT_MAX 512

/* The input, a byte at a time; zeros when it is used up. */
struct input {
	const uint8_t *p;
	size_t n;
};

static unsigned take8(struct input *in)
{
	if (!in->n)
		return 0;
	in->n--;
	return *in->p++;
}

static unsigned take16(struct input *in)
{
	unsigned lo = take8(in);

	return lo | take8(in) << 8;
}

static void check_sent(struct netdev *d)
{
	struct nd_backend *b = d->backend;

	for (unsigned i = b->nsent > ND_FRAMES ? b->nsent - ND_FRAMES : 0; i < b->nsent; i++) {
		struct nd_frame *s = &b->sent[i % ND_FRAMES];
		struct iovec iov = {s->bytes, s->len};
		struct net_frame f = {.hdr = s->hdr, .head = s->bytes, .head_len = s->len < NET_HEAD ? s->len : NET_HEAD,
				      .iov = &iov, .niov = 1, .len = s->len};

		if (net_offload_check(&f, ~0u) < 0)
			BUG("a frame that is none was sent");
		if (net_offload_finish(&f) < 0 && s->len < 65535)
			BUG("a frame that is not too long cannot be finished");
	}
	b->nsent = 0;
}

static void start(struct netdev *d, struct input *in)
{
	uint64_t features = take16(in) | (uint64_t)take16(in) << 16;

	nd_start(d, features | (uint64_t)(take8(in) & 4) << 32, 1 + take8(in) % ND_QUEUES);
}

/* A frame with headers that are nearly right, or noise. */
static void send(struct netdev *d, struct input *in)
{
	static const uint8_t tcp[] = {2, 1, 2, 3, 4, 5, 2, 9, 9, 9, 9, 9, 8, 0, 0x45, 0, 0, 0, 0, 0, 0, 0, 64, 6, 0, 0, 10, 0, 2, 15,
				      10, 0, 2, 2, 1, 1, 2, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0x50};
	struct virtio_net_hdr_v1 hdr = {.flags = 1, .gso_type = (uint8_t)(take8(in) % 8), .gso_size = 1460, .csum_start = 34,
					.csum_offset = 16};
	static uint8_t frame[3000];
	struct vdrv *q = &d->q[1];

	memset(frame, 0, sizeof(frame));
	memcpy(frame, tcp, sizeof(tcp));
	for (unsigned k = take8(in) % 8; k; k--)
		frame[take8(in) % 64] = (uint8_t)take8(in);
	for (unsigned k = take8(in) % 4; k; k--)
		((uint8_t *)&hdr)[take8(in) % sizeof(hdr)] = (uint8_t)take8(in);
	if (q->ram && q->nfree > 2 && q->nfree <= ND_RING)
		nd_xmit(d, take8(in) % 32, &hdr, frame, take16(in) % sizeof(frame), take8(in) & 1);
}

static void scribble(struct netdev *d, struct input *in)
{
	uint8_t *ram = mem_frame(d->mem, 0, true);
	/* Rings and what stands in front of them, mostly: the rest of memory is only data. */
	unsigned at = 0x10000 + take16(in) % (ND_QUEUES * 0x4000);

	for (unsigned k = 1 + take8(in) % 16; k; k--)
		ram[at++] = (uint8_t)take8(in);
}

static void step(struct netdev *d, struct input *in)
{
	static uint8_t frame[NET_FRAME_MAX];
	uint8_t cmd[40];

	switch (take8(in) % 10) {
	case 0: start(d, in); break;
	case 1: send(d, in); break;
	case 2: scribble(d, in); break;
	case 3: nd_kick(d, take8(in) % (ND_QUEUES + 1)); break;
	case 4: nd_loop(d); break;
	case 5:
		if (d->q[0].ram && d->q[0].nfree > 8 && d->q[0].nfree <= ND_RING)
			nd_fill(d, 1 + take8(in) % 8);
		break;
	case 6:
		if (d->backend->npending - d->backend->first < ND_FRAMES)
			nd_arrive(d, frame, NET_ETH_HEADER + take16(in) % (NET_FRAME_MAX - NET_ETH_HEADER));
		break;
	case 7: d->backend->room = take8(in); break;
	case 8: d->rx_len = take16(in) % 4096; break;
	default:
		for (size_t i = 0; i < sizeof(cmd); i++)
			cmd[i] = (uint8_t)take8(in);
		for (unsigned q = 2; q < ND_QUEUES; q += 2)
			if (d->q[q].ram && d->q[q].nfree > 2 && d->q[q].nfree <= ND_RING)
				nd_command(d, q, cmd, take8(in) % sizeof(cmd));
	}
	check_sent(d);
}

static void one(struct netdev *d, const uint8_t *data, size_t size)
{
	struct input in = {data, size};

	memset(d->q, 0, sizeof(d->q));
	d->backend->room = ~0u;
	d->backend->first = d->backend->npending;
	d->rx_len = 2048;
	nd_start(d, in.n ? (uint64_t)take16(&in) << 16 | BIT(VIRTIO_NET_F_MRG_RXBUF) | BIT(VIRTIO_NET_F_CSUM) |
			   BIT(VIRTIO_NET_F_HOST_TSO4) | BIT(VIRTIO_NET_F_CTRL_VQ) : 0, ND_QUEUES);
	while (in.n)
		step(d, &in);
	nd_loop(d);
	check_sent(d);
}

#ifdef LIBFUZZER
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct netdev *d;

	if (!d)
		d = nd_create(2);
	one(d, data, size);
	return 0;
}
#else
int main(int argc, char **argv)
{
	unsigned long runs = argc > 1 ? strtoul(argv[1], NULL, 0) : 1000;
	uint64_t seed = argc > 2 ? strtoull(argv[2], NULL, 0) : 1, s = seed * 0x9e3779b97f4a7c15ull + 1;
	struct netdev *d = nd_create(2);
	uint8_t input[INPUT_MAX];

	for (unsigned long run = 0; run < runs; run++) {
		size_t n;

		for (n = 0; n < sizeof(input); n++) {
			s ^= s << 13;
			s ^= s >> 7;
			s ^= s << 17;
			input[n] = (uint8_t)(s >> 32);
		}
		one(d, input, s % INPUT_MAX);
	}
	nd_destroy(d);
	printf("%lu runs with seed %lu\n", runs, (unsigned long)seed);
	return 0;
}
#endif
