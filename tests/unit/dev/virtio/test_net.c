/* SPDX-License-Identifier: Apache-2.0 */
/* virtio-net between a model driver and a backend of lists: both directions, what happens when either is slow, filters, hostile drivers. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/log.h"
#include "unit/dev/virtio/net_fixture.h"

#define MERGE BIT(VIRTIO_NET_F_MRG_RXBUF)
#define CTRL (BIT(VIRTIO_NET_F_CTRL_VQ) | BIT(VIRTIO_NET_F_CTRL_RX) | BIT(VIRTIO_NET_F_CTRL_MAC_ADDR) | BIT(VIRTIO_NET_F_CTRL_VLAN))

static const uint64_t layouts[] = {0, BIT(VIRTIO_RING_F_EVENT_IDX), BIT(VIRTIO_F_RING_PACKED),
				   BIT(VIRTIO_F_RING_PACKED) | BIT(VIRTIO_RING_F_EVENT_IDX)};
static const struct virtio_net_hdr_v1 plain;
static uint8_t bytes[NET_FRAME_MAX], got[NET_FRAME_MAX + 4096];

static void fill_bytes(size_t n, unsigned seed)
{
	static const uint8_t to_us[NET_MAC_LEN] = {2, 1, 2, 3, 4, 5};

	for (size_t i = 0; i < n; i++)
		bytes[i] = (uint8_t)(seed + i * 5 + (i >> 8));
	memcpy(bytes, to_us, sizeof(to_us));
	bytes[12] = 8;
	bytes[13] = 0;
}

/* Takes one received frame off ring 0 and compares it with bytes[0, len); its number of buffers. */
static unsigned expect_received(struct netdev *d, size_t len)
{
	struct virtio_net_hdr_v1 hdr;
	unsigned buffers = 0;
	size_t have = 0;
	uint32_t written = 0;
	uint16_t id = 0;

	do {
		assert_true(vdrv_take(&d->q[0], &id, &written));
		memcpy(got + have, vat(&d->q[0], ND_RX_BUF(id)), written);
		have += written;
		vdrv_free(&d->q[0], id);
		memcpy(&hdr, got, sizeof(hdr));
	} while (++buffers < hdr.num_buffers);
	assert_int_equal(have, sizeof(hdr) + len);
	assert_memory_equal(got + sizeof(hdr), bytes, len);
	return buffers;
}

static void test_offer(void **state)
{
	struct netdev *d = nd_create(1), *two = nd_create(2);
	struct virtio_net_config c;
	uint64_t offered = virtio_offered(d->v, 0);

	(void)state;
	for (unsigned i = 0; i < sizeof(c); i++)
		((uint8_t *)&c)[i] = (uint8_t)virtio_config_read(d->v, i, 1);
	assert_memory_equal(c.mac, "\2\1\2\3\4\5", 6);
	assert_int_equal(c.status, VIRTIO_NET_S_LINK_UP);
	assert_int_equal(c.mtu, 9000);
	assert_true(offered & BIT(VIRTIO_NET_F_MTU));
	assert_true(offered & BIT(VIRTIO_NET_F_HOST_TSO4));
	assert_false(offered & BIT(VIRTIO_NET_F_MQ));
	assert_true(virtio_offered(two->v, 0) & BIT(VIRTIO_NET_F_MQ));
	nd_destroy(d);
	nd_destroy(two);
}

static void test_send(void **state)
{
	(void)state;
	for (size_t l = 0; l < nitems(layouts); l++) {
		struct netdev *d = nd_create(1);
		struct virtio_net_stats s;
		uint32_t written = 0;
		uint16_t id = 0;

		nd_start(d, layouts[l], 3);
		for (unsigned i = 0; i < 200; i++) {
			size_t len = 14 + (size_t)rand() % 1500;

			fill_bytes(len, i);
			nd_xmit(d, i % 32, &plain, bytes, len, i & 1);
			assert_int_equal(d->backend->nsent, i + 1);
			assert_int_equal(d->backend->sent[i % ND_FRAMES].len, len);
			assert_memory_equal(d->backend->sent[i % ND_FRAMES].bytes, bytes, len);
			assert_true(vdrv_take(&d->q[1], &id, &written));
			assert_int_equal(written, 0);
			vdrv_free(&d->q[1], id);
		}
		virtio_net_stats(d->v, &s);
		assert_int_equal(s.tx_frames, 200);
		assert_int_equal(s.tx_dropped, 0);
		nd_destroy(d);
	}
}

/* A driver that wants to hear of nothing sent gets no signal; one that arms gets one, at the frame it asked for, and then none until it arms anew. */
static void test_send_signals(void **state)
{
	(void)state;
	for (size_t l = 0; l < nitems(layouts); l++) {
		bool event_idx = layouts[l] & BIT(VIRTIO_RING_F_EVENT_IDX);
		struct netdev *d = nd_create(1);
		uint32_t written = 0;
		uint16_t id = 0;

		nd_start(d, layouts[l], 3);
		fill_bytes(100, 1);
		vdrv_arm(&d->q[1], false);
		for (unsigned i = 0; i < 20; i++)
			nd_xmit(d, i, &plain, bytes, 100, false);
		assert_int_equal(d->signals[1], 0);
		while (vdrv_take(&d->q[1], &id, &written))
			vdrv_free(&d->q[1], id);
		vdrv_arm(&d->q[1], true);
		for (unsigned i = 0; i < 20; i++)
			nd_xmit(d, i, &plain, bytes, 100, false);
		/* Without the event index it can only say "always". */
		assert_int_equal(d->signals[1], event_idx ? 1 : 20);
		nd_destroy(d);
	}
}

/* The carrier is full after some frames: the rest waits in the ring and follows, in order, from the loop's thread. */
static void test_send_full(void **state)
{
	(void)state;
	for (size_t l = 0; l < nitems(layouts); l++) {
		struct netdev *d = nd_create(1);
		struct virtio_net_stats s;
		uint64_t total = 0;
		uint32_t written = 0;
		uint16_t id = 0;

		nd_start(d, layouts[l], 3);
		d->backend->room = 5;
		for (unsigned i = 0; i < 30; i++) {
			fill_bytes(100 + i, i);
			total += 100 + i;
			nd_xmit(d, i, &plain, bytes, 100 + i, false);
		}
		assert_int_equal(d->backend->nsent, 5);
		nd_loop(d);
		assert_int_equal(d->backend->nsent, 5);
		d->backend->room = 18;
		nd_loop(d);
		assert_int_equal(d->backend->nsent, 23);
		d->backend->room = 100;
		nd_loop(d);
		assert_int_equal(d->backend->nsent, 30);
		for (unsigned i = 0; i < 30; i++) {
			fill_bytes(100 + i, i);
			assert_int_equal(d->backend->sent[i].len, 100 + i);
			assert_memory_equal(d->backend->sent[i].bytes, bytes, 100 + i);
			assert_true(vdrv_take(&d->q[1], &id, &written));
		}
		assert_false(vdrv_take(&d->q[1], &id, &written));
		virtio_net_stats(d->v, &s);
		assert_int_equal(s.tx_frames, 30);
		assert_int_equal(s.tx_bytes, total);
		/* It is over: kicks are heard again. */
		nd_xmit(d, 0, &plain, bytes, 60, false);
		assert_int_equal(d->backend->nsent, 31);
		nd_destroy(d);
	}
}

/* Chains that are no frames are given back and counted; good ones around them are sent. */
static void test_send_hostile(void **state)
{
	static const struct virtio_net_hdr_v1 bad[] = {
		{.flags = 1, .csum_start = 65535, .csum_offset = 65535}, {.flags = 1, .csum_start = 34, .csum_offset = 250},
		{.gso_type = 1, .gso_size = 0}, {.gso_type = 1, .flags = 1, .csum_start = 34, .csum_offset = 16},
		{.gso_type = 0xff, .gso_size = 1}, {.gso_type = 3, .flags = 1, .gso_size = 1400, .csum_start = 34, .csum_offset = 6},
	};
	struct netdev *d = nd_create(1);
	struct virtio_net_stats s;
	struct vbuf shorter[] = {{ND_TX_BUF(1), 5, false}}, empty[] = {{ND_TX_BUF(1), 12, false}};
	uint32_t written = 0;
	uint16_t id = 0;

	(void)state;
	nd_start(d, BIT(VIRTIO_NET_F_CSUM) | BIT(VIRTIO_NET_F_HOST_TSO4), 3);
	fill_bytes(1000, 3);
	for (size_t i = 0; i < nitems(bad); i++) {
		nd_xmit(d, 0, &bad[i], bytes, 1000, i & 1);
		nd_xmit(d, 1, &plain, bytes, 1000, false);
	}
	nd_xmit(d, 2, &plain, bytes, 13, false);
	assert_true(vdrv_add(&d->q[1], shorter, 1, false) >= 0);
	assert_true(vdrv_add(&d->q[1], empty, 1, false) >= 0);
	nd_kick(d, 1);
	assert_int_equal(d->backend->nsent, nitems(bad));
	for (size_t i = 0; i < 2 * nitems(bad) + 3; i++)
		assert_true(vdrv_take(&d->q[1], &id, &written));
	virtio_net_stats(d->v, &s);
	assert_int_equal(s.tx_dropped, nitems(bad) + 3);
	assert_int_equal(s.tx_frames, nitems(bad));
	assert_true(virtio_live(d->v));
	nd_destroy(d);
}

/* Dropped and waiting at once: a wrong frame behind the one that did not fit is counted once, when its turn comes. */
static void test_send_full_hostile(void **state)
{
	static const struct virtio_net_hdr_v1 bad = {.gso_type = 9};
	struct netdev *d = nd_create(1);
	struct virtio_net_stats s;

	(void)state;
	nd_start(d, 0, 3);
	fill_bytes(100, 3);
	d->backend->room = 0;
	for (unsigned i = 0; i < 6; i++)
		nd_xmit(d, i, i % 2 ? &bad : &plain, bytes, 100, false);
	nd_loop(d);
	d->backend->room = 99;
	nd_loop(d);
	virtio_net_stats(d->v, &s);
	assert_int_equal(s.tx_frames, 3);
	assert_int_equal(s.tx_dropped, 3);
	nd_destroy(d);
}

/* One frame over as many buffers as it takes. */
static void test_receive_merged(void **state)
{
	static const size_t lens[] = {14, 60, 1514, 2036, 2037, 9014, 65549, NET_FRAME_MAX};

	(void)state;
	for (size_t l = 0; l < nitems(layouts); l++) {
		struct netdev *d = nd_create(1);

		nd_start(d, layouts[l] | MERGE | BIT(VIRTIO_NET_F_GUEST_CSUM), 3);
		nd_fill(d, ND_RING);
		nd_loop(d);
		for (size_t i = 0; i < 40; i++) {
			size_t len = lens[i % nitems(lens)];
			unsigned n;

			fill_bytes(len, (unsigned)i);
			nd_arrive(d, bytes, len);
			nd_loop(d);
			n = expect_received(d, len);
			assert_int_equal(n, (len + 12 + 2047) / 2048);
			assert_true(got[0] & VIRTIO_NET_HDR_F_DATA_VALID);
			nd_fill(d, n);
		}
		nd_destroy(d);
	}
}

/* Too few buffers: the frame waits, and the next buffer is kicked for, though some were there all the time. */
static void test_receive_starved(void **state)
{
	(void)state;
	for (size_t l = 0; l < nitems(layouts); l++) {
		struct netdev *d = nd_create(1);

		nd_start(d, layouts[l] | MERGE, 3);
		for (unsigned round = 0; round < 50; round++) {
			size_t len = 9014;

			fill_bytes(len, round);
			nd_arrive(d, bytes, len);
			nd_loop(d);
			for (unsigned i = 0; i < 4; i++) {
				assert_true(nd_fill(d, 1));
				nd_loop(d);
				assert_int_equal(d->backend->first, round);
			}
			assert_true(nd_fill(d, 1));
			nd_loop(d);
			assert_int_equal(expect_received(d, len), 5);
		}
		nd_destroy(d);
	}
}

/* Frames that came while the driver had no buffers, more than one call handles: all arrive although poll() reports nothing new. */
static void test_receive_backlog(void **state)
{
	struct netdev *d = nd_create(1);
	uint64_t count;

	(void)state;
	nd_start(d, MERGE, 3);
	for (unsigned i = 0; i < 60; i++) {
		fill_bytes(100 + i, i);
		nd_arrive(d, bytes, 100 + i);
	}
	nd_loop(d);
	assert_int_equal(read(d->backend->b.source[0].fd, &count, sizeof(count)), sizeof(count));
	nd_fill(d, ND_RING);
	nd_loop(d);
	for (unsigned i = 0; i < 60; i++) {
		fill_bytes(100 + i, i);
		expect_received(d, 100 + i);
	}
	nd_destroy(d);
}

/* Frames that cannot fit are dropped, so that others follow: a ring too small for one, or single buffers too small. */
static void test_receive_no_room(void **state)
{
	struct virtio_net_stats s;
	struct netdev *d = nd_create(1);

	(void)state;
	nd_start(d, 0, 3);
	nd_fill(d, 4);
	fill_bytes(3000, 1);
	nd_arrive(d, bytes, 3000);
	nd_arrive(d, bytes, 500);
	nd_loop(d);
	assert_int_equal(expect_received(d, 500), 1);
	nd_start(d, MERGE, 3);
	d->rx_len = 100;
	nd_fill(d, ND_RING);
	nd_arrive(d, bytes, 65000);
	nd_arrive(d, bytes, 500);
	nd_loop(d);
	assert_int_equal(expect_received(d, 500), 6);
	virtio_net_stats(d->v, &s);
	assert_int_equal(s.rx_dropped, 2);
	d->rx_len = 11;
	nd_start(d, MERGE, 3);
	nd_fill(d, 2);
	nd_arrive(d, bytes, 500);
	nd_loop(d);
	assert_true(d->v->status & VIRTIO_CONFIG_S_NEEDS_RESET);
	nd_destroy(d);
}

static uint8_t command(struct netdev *d, unsigned queue, uint8_t class, uint8_t cmd, const void *data, size_t len)
{
	uint8_t c[64] = {class, cmd};

	memcpy(c + 2, data, len);
	return nd_control(d, queue, c, len + 2);
}

/* Whether a frame to the address reaches the driver. */
static bool reaches(struct netdev *d, const void *mac, int vlan)
{
	uint32_t written = 0;
	uint16_t id = 0;

	fill_bytes(100, 0);
	memcpy(bytes, mac, 6);
	if (vlan >= 0) {
		bytes[12] = 0x81;
		bytes[13] = 0;
		bytes[14] = (uint8_t)(0xe0 | vlan >> 8);
		bytes[15] = (uint8_t)vlan;
	}
	nd_arrive(d, bytes, 100);
	nd_loop(d);
	if (!vdrv_take(&d->q[0], &id, &written))
		return false;
	vdrv_free(&d->q[0], id);
	nd_fill(d, 1);
	return true;
}

static void test_filter(void **state)
{
	static const char own[] = "\2\1\2\3\4\5", other[] = "\2\1\2\3\4\6", all[] = "\xff\xff\xff\xff\xff\xff", multi[] = "\1\0\x5e\0\0\1";
	struct netdev *d = nd_create(1);
	struct virtio_net_stats s;

	(void)state;
	nd_start(d, MERGE | CTRL, 3);
	nd_fill(d, 32);
	assert_true(reaches(d, other, -1)); /* promiscuous at first */
	assert_int_equal(command(d, 2, VIRTIO_NET_CTRL_RX, VIRTIO_NET_CTRL_RX_PROMISC, "\0", 1), VIRTIO_NET_OK);
	assert_false(reaches(d, other, -1));
	assert_false(reaches(d, multi, -1));
	assert_true(reaches(d, own, -1));
	assert_true(reaches(d, all, -1));
	assert_int_equal(command(d, 2, VIRTIO_NET_CTRL_MAC, VIRTIO_NET_CTRL_MAC_TABLE_SET,
				 "\1\0\0\0\2\1\2\3\4\6\1\0\0\0\1\0\x5e\0\0\1", 20), VIRTIO_NET_OK);
	assert_true(reaches(d, other, -1));
	assert_true(reaches(d, multi, -1));
	/* A table that is cut short, or longer than it says, changes nothing. */
	assert_int_equal(command(d, 2, VIRTIO_NET_CTRL_MAC, VIRTIO_NET_CTRL_MAC_TABLE_SET, "\0\0\0\0\2\0\0\0", 8), VIRTIO_NET_ERR);
	assert_int_equal(command(d, 2, VIRTIO_NET_CTRL_MAC, VIRTIO_NET_CTRL_MAC_TABLE_SET, "\0\0\0\0\0\0\0\0\0", 9), VIRTIO_NET_ERR);
	assert_int_equal(command(d, 2, VIRTIO_NET_CTRL_MAC, VIRTIO_NET_CTRL_MAC_TABLE_SET, "\xff\xff\xff\xff\0\0\0\0", 8), VIRTIO_NET_ERR);
	assert_true(reaches(d, other, -1));
	assert_int_equal(command(d, 2, VIRTIO_NET_CTRL_MAC, VIRTIO_NET_CTRL_MAC_ADDR_SET, "\2\7\7\7\7\7", 6), VIRTIO_NET_OK);
	assert_false(reaches(d, own, -1));
	assert_true(reaches(d, "\2\7\7\7\7\7", -1));
	assert_int_equal(command(d, 2, VIRTIO_NET_CTRL_RX, VIRTIO_NET_CTRL_RX_NOBCAST, "\1", 1), VIRTIO_NET_OK);
	assert_false(reaches(d, all, -1));
	assert_false(reaches(d, "\2\7\7\7\7\7", 5));
	assert_int_equal(command(d, 2, VIRTIO_NET_CTRL_VLAN, VIRTIO_NET_CTRL_VLAN_ADD, "\5\0", 2), VIRTIO_NET_OK);
	assert_true(reaches(d, "\2\7\7\7\7\7", 5));
	assert_false(reaches(d, "\2\7\7\7\7\7", 4095));
	assert_int_equal(command(d, 2, VIRTIO_NET_CTRL_VLAN, VIRTIO_NET_CTRL_VLAN_ADD, "\0\x10", 2), VIRTIO_NET_ERR);
	virtio_net_stats(d->v, &s);
	assert_int_equal(s.rx_filtered, 6);
	/* A reset forgets it all. */
	nd_start(d, MERGE, 2);
	nd_fill(d, 4);
	assert_true(reaches(d, other, 77));
	nd_destroy(d);
}

static void test_control_hostile(void **state)
{
	struct netdev *d = nd_create(2);
	struct vbuf none[] = {{ND_CTRL_BUF, 3, false}}, huge[] = {{ND_CTRL_BUF, 0x8000, false}, {ND_CTRL_BUF, 1, true}};

	(void)state;
	nd_start(d, MERGE | CTRL | BIT(VIRTIO_NET_F_MQ) | BIT(VIRTIO_NET_F_CTRL_GUEST_OFFLOADS) | BIT(VIRTIO_NET_F_GUEST_CSUM), 5);
	assert_int_equal(command(d, 4, 0xee, 0, "", 0), VIRTIO_NET_ERR);
	assert_int_equal(nd_control(d, 4, "", 0), VIRTIO_NET_ERR);
	assert_int_equal(nd_control(d, 4, "\0", 1), VIRTIO_NET_ERR);
	assert_int_equal(command(d, 4, VIRTIO_NET_CTRL_RX, 99, "\1", 1), VIRTIO_NET_ERR);
	assert_int_equal(command(d, 4, VIRTIO_NET_CTRL_MQ, 0, "\0\0", 2), VIRTIO_NET_ERR);
	assert_int_equal(command(d, 4, VIRTIO_NET_CTRL_MQ, 0, "\3\0", 2), VIRTIO_NET_ERR);
	assert_int_equal(command(d, 4, VIRTIO_NET_CTRL_MQ, 0, "\2\0", 2), VIRTIO_NET_OK);
	assert_int_equal(d->backend->offloads, NET_OFFLOAD_CSUM);
	assert_int_equal(command(d, 4, VIRTIO_NET_CTRL_GUEST_OFFLOADS, 0, "\x80\0\0\0\0\0\0\0", 8), VIRTIO_NET_ERR);
	assert_int_equal(command(d, 4, VIRTIO_NET_CTRL_GUEST_OFFLOADS, 0, "\0\0\0\0\0\0\0\0", 8), VIRTIO_NET_OK);
	assert_int_equal(d->backend->offloads, 0);
	vdrv_add(&d->q[4], huge, 2, false);
	nd_kick(d, 4);
	assert_int_equal(*(uint8_t *)vat(&d->q[4], ND_CTRL_BUF), VIRTIO_NET_ERR);
	assert_true(virtio_live(d->v));
	vdrv_add(&d->q[4], none, 1, false);
	nd_kick(d, 4);
	assert_true(d->v->status & VIRTIO_CONFIG_S_NEEDS_RESET);
	nd_destroy(d);
}

/* The backend ends: the link goes down, once, and what is sent is lost without harm. */
static void test_link(void **state)
{
	struct netdev *d = nd_create(1);

	(void)state;
	nd_start(d, MERGE, 3);
	nd_fill(d, 4);
	fill_bytes(100, 0);
	nd_arrive(d, bytes, 100);
	nd_loop(d);
	expect_received(d, 100);
	d->backend->b.gone = true;
	nd_arrive(d, bytes, 100);
	nd_loop(d);
	nd_loop(d);
	assert_int_equal(d->config_changes, 1);
	assert_int_equal(virtio_config_read(d->v, 6, 2), 0);
	nd_xmit(d, 0, &plain, bytes, 100, false);
	nd_destroy(d);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_offer), cmocka_unit_test(test_send),
		cmocka_unit_test(test_send_signals), cmocka_unit_test(test_send_full),
		cmocka_unit_test(test_send_hostile), cmocka_unit_test(test_send_full_hostile),
		cmocka_unit_test(test_receive_merged), cmocka_unit_test(test_receive_starved),
		cmocka_unit_test(test_receive_backlog), cmocka_unit_test(test_receive_no_room), cmocka_unit_test(test_filter),
		cmocka_unit_test(test_control_hostile), cmocka_unit_test(test_link),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
