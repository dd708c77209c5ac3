/* SPDX-License-Identifier: Apache-2.0 */
/*
 * host/net/offload.c: finished checksums are what a receiver accepts, and no header field a guest may write gets past the checks.
 */
#include "host/net/offload.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>

#include "unit/host/net/frames.h"

#define ALL (NET_OFFLOAD_CSUM | NET_OFFLOAD_TSO4 | NET_OFFLOAD_TSO6 | NET_OFFLOAD_ECN)

static struct test_frame frame;
static uint8_t flat[NET_FRAME_MAX + 64];

static void test_sum(void **state)
{
	uint8_t buf[300];

	(void)state;
	for (size_t i = 0; i < sizeof(buf); i++)
		buf[i] = (uint8_t)(0xff - (i % 7));
	for (size_t off = 0; off < 8; off++)
		for (size_t n = 0; n + off <= sizeof(buf); n++)
			assert_int_equal(net_sum_fold(net_sum(buf + off, n)), slow_sum(0, buf + off, n));
	assert_int_equal(net_sum_fold(0x1fffe), 0xffff);
}

/* A long TCP segment, in every combination of version and tag, cut in pieces of odd lengths. */
static void test_finish_segments(void **state)
{
	static const size_t payloads[] = {1, 2, 1460, 1461, 9001, 32767, 65000, 65480};

	(void)state;
	for (unsigned i = 0; i < 4 * nitems(payloads) * 5; i++) {
		bool v6 = i & 1, vlan = i & 2;
		size_t l3 = vlan ? 18 : 14, l4 = l3 + (v6 ? 40 : 20);
		size_t len = test_tcp(&frame, v6, vlan, payloads[i / 4 % nitems(payloads)]);

		assert_int_equal(net_offload_check(&frame.f, ALL), 0);
		assert_int_equal(net_offload_finish(&frame.f), 0);
		assert_int_equal(test_frame_flat(&frame.f, flat), len);
		assert_int_equal(received_sum(flat + l3, l4 - l3, len - l4, 6), 0xffff);
		assert_int_equal(get16(flat + l3 + (v6 ? 4 : 2)), len - l3 - (v6 ? 40 : 0));
		if (!v6)
			assert_int_equal(slow_sum(0, flat + l3, 20), 0xffff);
		assert_int_equal(frame.f.hdr.flags, 0);
		assert_int_equal(frame.f.hdr.gso_type, 0);
		/* Finished is finished: a second attempt to send changes nothing. */
		assert_int_equal(net_offload_finish(&frame.f), 0);
		assert_int_equal(received_sum(flat + l3, l4 - l3, len - l4, 6), 0xffff);
	}
}

/* A plain packet: the driver has left the pseudo header's sum, as Linux does. */
static void test_finish_checksum(void **state)
{
	(void)state;
	for (unsigned i = 0; i < 200; i++) {
		size_t len = test_tcp(&frame, false, false, (size_t)rand() % 1460);
		uint8_t pseudo[4] = {0, 6, 0, 0};

		put16(pseudo + 2, (unsigned)(len - 34));
		put16(frame.bytes + 16, (unsigned)(len - 14));
		put16(frame.bytes + 50, slow_sum(slow_sum(0, frame.bytes + 26, 8), pseudo, 4));
		test_frame_cut(&frame, len, 0);
		frame.f.hdr.gso_type = 0;
		assert_int_equal(net_offload_check(&frame.f, NET_OFFLOAD_CSUM), 0);
		assert_int_equal(net_offload_finish(&frame.f), 0);
		test_frame_flat(&frame.f, flat);
		assert_int_equal(received_sum(flat + 14, 20, len - 34, 6), 0xffff);
	}
}

/* A sum that comes out as zero is sent as all ones: zero would mean that there is none. */
static void test_zero_sum(void **state)
{
	(void)state;
	memset(&frame, 0, sizeof(frame));
	put16(frame.bytes + 20, 0xffff);
	test_frame_cut(&frame, 60, 0);
	frame.f.hdr = (struct virtio_net_hdr_v1){.flags = 1, .csum_start = 20, .csum_offset = 6};
	assert_int_equal(net_offload_check(&frame.f, NET_OFFLOAD_CSUM), 0);
	assert_int_equal(net_offload_finish(&frame.f), 0);
	assert_int_equal(get16(frame.head + 26), 0xffff);
}

static void test_too_long(void **state)
{
	(void)state;
	test_tcp(&frame, false, false, 65535 - 20 - 19);
	assert_int_equal(net_offload_check(&frame.f, ALL), 0);
	assert_int_equal(net_offload_finish(&frame.f), -EMSGSIZE);
	test_tcp(&frame, true, true, 65535 - 20);
	assert_int_equal(net_offload_check(&frame.f, ALL), 0);
	assert_int_equal(net_offload_finish(&frame.f), 0);
}

/* One field changed from a good frame each; all must be refused. */
static void test_hostile_fields(void **state)
{
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Woverride-init"
	static const struct {
		const char *what;
		unsigned offloads;
		struct virtio_net_hdr_v1 hdr;
	} bad[] = {
#define H(...) {.flags = 1, .gso_type = 1, .csum_start = 34, .csum_offset = 16, .gso_size = 1460, __VA_ARGS__}
		{"no checksum with segments", ALL, H(.flags = 0)},
		{"not negotiated: checksum", 0, H()},
		{"not negotiated: tso4", ALL & ~NET_OFFLOAD_TSO4, H()},
		{"not negotiated: ecn", ALL & ~NET_OFFLOAD_ECN, H(.gso_type = 0x81)},
		{"gso_size 0", ALL, H(.gso_size = 0)},
		{"gso_size 1", ALL, H(.gso_size = 1)},
		{"udp fragmentation", ALL, H(.gso_type = 3)},
		{"udp segmentation", ALL, H(.gso_type = 5)},
		{"tcp6 on IPv4", ALL, H(.gso_type = 4)},
		{"unknown type", ALL, H(.gso_type = 0x7f)},
		{"csum_start before the headers", ALL, H(.csum_start = 0)},
		{"csum_start in the Ethernet header", ALL, H(.csum_start = 13)},
		{"csum_start not at TCP", ALL, H(.csum_start = 35)},
		{"csum_start far", ALL, H(.csum_start = 65535)},
		{"csum_offset not TCP's", ALL, H(.csum_offset = 6)},
		{"csum_offset far", ALL, H(.csum_offset = 65535)},
		{"both far", ALL, H(.gso_type = 0, .csum_start = 65535, .csum_offset = 65535)},
		{"beyond head", ALL, H(.gso_type = 0, .csum_start = NET_HEAD - 1, .csum_offset = 0)},
#undef H
	};
#pragma GCC diagnostic pop

	(void)state;
	for (size_t i = 0; i < nitems(bad); i++) {
		test_tcp(&frame, false, false, 5000);
		frame.f.hdr = bad[i].hdr;
		if (net_offload_check(&frame.f, bad[i].offloads) != -EINVAL)
			fail_msg("%s was accepted", bad[i].what);
	}
	test_tcp(&frame, false, false, 5000);
	assert_int_equal(net_offload_check(&frame.f, ALL), 0);
}

/* Bytes of the headers that disagree with gso_type. */
static void test_hostile_headers(void **state)
{
	static const struct { const char *what; bool v6; size_t at; uint8_t val; } bad[] = {
		{"ethertype", false, 13, 6}, {"IP version", false, 14, 0x65}, {"IP header shorter than one", false, 14, 0x44},
		{"IP options not counted", false, 14, 0x46}, {"protocol", false, 23, 17}, {"TCP header short", false, 46, 0x40},
		{"ethertype 6", true, 13, 0}, {"version 6", true, 14, 0x45}, {"next header", true, 20, 0},
	};

	(void)state;
	for (size_t i = 0; i < nitems(bad); i++) {
		test_tcp(&frame, bad[i].v6, false, 5000);
		frame.head[bad[i].at] = bad[i].val;
		if (net_offload_check(&frame.f, ALL) != -EINVAL)
			fail_msg("%s was accepted", bad[i].what);
	}
}

/* Frames that end inside a header, and lengths no frame has. */
static void test_short(void **state)
{
	(void)state;
	for (size_t len = 1; len < 80; len++)
		for (unsigned v6 = 0; v6 < 2; v6++) {
			test_tcp(&frame, v6, false, 100);
			test_frame_cut(&frame, len, 0);
			assert_int_equal(net_offload_check(&frame.f, ALL), len > (v6 ? 74u : 54u) ? 0 : -EINVAL);
		}
	test_tcp(&frame, false, false, 100);
	frame.f.hdr = (struct virtio_net_hdr_v1){.hdr_len = 77, .gso_size = 3, .csum_start = 9, .flags = 0xfe, .num_buffers = 5};
	assert_int_equal(net_offload_check(&frame.f, 0), 0);
	assert_memory_equal(&frame.f.hdr, &(struct virtio_net_hdr_v1){0}, sizeof(frame.f.hdr));
	frame.f.len = NET_FRAME_MAX + 1;
	assert_int_equal(net_offload_check(&frame.f, 0), -EINVAL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_sum), cmocka_unit_test(test_finish_segments), cmocka_unit_test(test_finish_checksum),
		cmocka_unit_test(test_zero_sum), cmocka_unit_test(test_too_long), cmocka_unit_test(test_hostile_fields),
		cmocka_unit_test(test_hostile_headers), cmocka_unit_test(test_short),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
