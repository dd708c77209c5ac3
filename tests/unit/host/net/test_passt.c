/* SPDX-License-Identifier: Apache-2.0 */
/*
 * host/net/passt.c against the other end of a socket pair: framing however the stream is cut, order and content when the socket is
 * full, and what is cut then; the end of the peer.
 */
#include "host/net/net.h"

#include <endian.h>
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <signal.h>
#include <sys/socket.h>
#include <unistd.h>
#include <cmocka.h>

#include "base/log.h"
#include "unit/host/net/frames.h"

#define FRAMES 24

static struct test_frame frame[FRAMES];
static uint8_t buf[8 << 20], other[NET_FRAME_MAX];

struct pair {
	struct net_backend *b;
	int peer;
};

static void setup(struct pair *p, int sndbuf)
{
	int fd[2];

	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, fd), 0);
	if (sndbuf)
		assert_int_equal(setsockopt(fd[0], SOL_SOCKET, SO_SNDBUF, &sndbuf, sizeof(sndbuf)), 0);
	assert_int_equal(net_passt_create(&p->b, fd[0]), 0);
	p->peer = fd[1];
}

static void teardown(struct pair *p)
{
	net_destroy(p->b);
	if (p->peer >= 0)
		close(p->peer);
}

static size_t put_frame(uint8_t *to, size_t len, uint8_t seed)
{
	uint32_t be = htobe32((uint32_t)len);

	memcpy(to, &be, 4);
	for (size_t i = 0; i < len; i++)
		to[4 + i] = (uint8_t)(seed + i * 7);
	return len + 4;
}

static void expect_frame(struct net_backend *b, size_t len, uint8_t seed)
{
	struct iovec iov[3] = {{other, len / 3}, {other + len / 3, 1}, {other + len / 3 + 1, sizeof(other) - len / 3 - 1}};
	struct net_rx rx;

	assert_int_equal(net_peek(b, 0, &rx), 1);
	assert_int_equal(rx.len, len);
	assert_int_equal(net_peek(b, 0, &rx), 1);
	net_take(b, 0, iov, 3);
	for (size_t i = 0; i < len; i++)
		assert_int_equal(other[i], (uint8_t)(seed + i * 7));
}

/* Two frames, the stream cut at every position. */
static void test_receive_cut_anywhere(void **state)
{
	size_t n = put_frame(buf, 14, 1);
	struct net_rx rx;
	struct pair p;

	(void)state;
	n += put_frame(buf + n, 61, 2);
	for (size_t cut = 1; cut < n; cut++) {
		setup(&p, 0);
		assert_int_equal(write(p.peer, buf, cut), cut);
		if (cut >= 18)
			expect_frame(p.b, 14, 1);
		assert_int_equal(net_peek(p.b, 0, &rx), 0);
		assert_int_equal(write(p.peer, buf + cut, n - cut), n - cut);
		if (cut < 18)
			expect_frame(p.b, 14, 1);
		expect_frame(p.b, 61, 2);
		assert_int_equal(net_peek(p.b, 0, &rx), 0);
		teardown(&p);
	}
}

/* A long stream of frames of all lengths, written in random pieces while frames are taken: the buffer wraps around many times. */
static void test_receive_stream(void **state)
{
	size_t len[400], n = 0, written = 0, got = 0;
	struct net_rx rx;
	struct pair p;

	(void)state;
	setup(&p, 0);
	for (unsigned i = 0; i < nitems(len); i++) {
		len[i] = i % 40 == 5 ? 65535 : 14 + (size_t)rand() % (i % 3 ? 1600 : 30000);
		n += put_frame(buf + n, len[i], (uint8_t)i);
		assert_true(n < sizeof(buf));
	}
	while (got < nitems(len)) {
		size_t part = 1 + (size_t)rand() % 90000;
		ssize_t w = write(p.peer, buf + written, part < n - written ? part : n - written);

		written += w > 0 ? (size_t)w : 0;
		while (got < nitems(len) && rand() % 8 && net_peek(p.b, 0, &rx) == 1) {
			if (got % 5 == 4)
				net_take(p.b, 0, NULL, 0); /* a frame that the filter refuses */
			else
				expect_frame(p.b, len[got], (uint8_t)got);
			got++;
		}
	}
	assert_int_equal(net_peek(p.b, 0, &rx), 0);
	teardown(&p);
}

static void make_frames(unsigned n, size_t max)
{
	for (unsigned i = 0; i < n; i++)
		test_tcp(&frame[i], i & 1, i & 2, 1 + (size_t)rand() % max);
}

/* Takes the next frame off the stream in buf[*pos...) and compares it with frame[i]; its offloads have been finished by then. */
static void same_frame(unsigned i, size_t *pos)
{
	size_t n = test_frame_flat(&frame[i].f, other);
	uint32_t be;

	memcpy(&be, buf + *pos, 4);
	assert_int_equal(be32toh(be), n);
	assert_memory_equal(buf + *pos + 4, other, n);
	*pos += 4 + n;
}

static size_t drain(struct pair *p, size_t have)
{
	ssize_t n;

	while ((n = read(p->peer, buf + have, sizeof(buf) - have)) > 0)
		have += (size_t)n;
	return have;
}

/* What has arrived ends with a whole length and, unless a frame is under way, with a whole frame. */
static void check_cut(const struct pair *p, size_t *at, size_t have)
{
	uint32_t be = 0;

	while (*at < have) {
		assert_true(have - *at >= 4);
		memcpy(&be, buf + *at, 4);
		if (be32toh(be) > have - *at - 4)
			break;
		*at += 4 + be32toh(be);
	}
	assert_int_equal(*at < have, p->b->tx_pending);
}

/* Frames of up to 64 KiB into a small socket that is emptied whenever it is full: everything arrives, in order, once. */
static void test_send_full(void **state)
{
	struct net_frame list[FRAMES];

	(void)state;
	for (unsigned round = 0; round < 30; round++) {
		size_t have = 0, pos = 0, at = 0;
		unsigned done = 0, stalls = 0;
		struct pair p;

		setup(&p, round % 3 ? 100000 : 0);
		make_frames(FRAMES, round % 2 ? 65000 : 3000);
		for (unsigned i = 0; i < FRAMES; i++)
			list[i] = frame[i].f;
		while (done < FRAMES || p.b->tx_pending) {
			done += net_send(p.b, 0, list + done, done < FRAMES ? 1 + (unsigned)rand() % (FRAMES - done) : 0);
			if (done == FRAMES && !p.b->tx_pending)
				break;
			if (rand() % 4)
				continue;
			stalls++;
			have = drain(&p, have);
			check_cut(&p, &at, have);
		}
		have = drain(&p, have);
		assert_int_equal(p.b->tx_dropped, 0);
		assert_true(stalls > 0 || round % 2 == 0);
		for (unsigned i = 0; i < FRAMES; i++)
			same_frame(i, &pos);
		assert_int_equal(pos, have);
		teardown(&p);
	}
}

/* Frames that passt cannot take are dropped and counted, and those around them arrive. */
static void test_send_drops(void **state)
{
	struct net_frame list[3];
	size_t pos = 0;
	struct pair p;

	(void)state;
	setup(&p, 0);
	test_tcp(&frame[0], false, false, 100);
	test_tcp(&frame[1], true, true, 65535 - 20);
	test_tcp(&frame[2], true, false, 200);
	for (unsigned i = 0; i < 3; i++)
		list[i] = frame[i].f;
	assert_int_equal(net_send(p.b, 0, list, 3), 3);
	assert_int_equal(p.b->tx_dropped, 1);
	drain(&p, 0);
	same_frame(0, &pos);
	same_frame(2, &pos);
	teardown(&p);
}

/* Lengths that no frame has, and the end of the peer: nothing more comes, what is sent is dropped, nobody dies of it. */
static void test_peer_ends(void **state)
{
	static const uint32_t nonsense[] = {0, 13, NET_FRAME_MAX + 1, 0xffffffff, 0x80000000};
	struct net_rx rx;
	struct pair p;

	(void)state;
	for (size_t i = 0; i < nitems(nonsense); i++) {
		uint32_t be = htobe32(nonsense[i]);

		setup(&p, 0);
		assert_int_equal(write(p.peer, &be, 4), 4);
		assert_int_equal(net_peek(p.b, 0, &rx), -EPIPE);
		assert_true(p.b->gone);
		assert_int_equal(net_peek(p.b, 0, &rx), -EPIPE);
		teardown(&p);
	}
	setup(&p, 0);
	assert_int_equal(write(p.peer, buf, put_frame(buf, 99, 9)), 103);
	close(p.peer);
	p.peer = -1;
	test_tcp(&frame[0], false, false, 100);
	assert_int_equal(net_send(p.b, 0, &frame[0].f, 1), 1);
	assert_int_equal(p.b->tx_dropped, 1);
	assert_true(p.b->gone);
	assert_int_equal(net_peek(p.b, 0, &rx), -EPIPE);
	teardown(&p);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_receive_cut_anywhere), cmocka_unit_test(test_receive_stream), cmocka_unit_test(test_send_full),
		cmocka_unit_test(test_send_drops), cmocka_unit_test(test_peer_ends),
	};

	signal(SIGPIPE, SIG_IGN);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
