/* SPDX-License-Identifier: Apache-2.0 */
/* virtio-vsock between a model driver and programs: both ways to connect, credit both ways, ends of all kinds, hostile guests. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "unit/dev/virtio/vsock_fixture.h"

#define BOTH (VIRTIO_VSOCK_SHUTDOWN_RCV | VIRTIO_VSOCK_SHUTDOWN_SEND)

static void expect(struct vs *s, uint16_t op, struct virtio_vsock_hdr *h)
{
	assert_true(vs_recv(s, h));
	assert_int_equal(h->op, op);
	assert_int_equal(h->src_cid, 2);
	assert_int_equal(h->dst_cid, VS_CID);
	assert_int_equal(h->type, VIRTIO_VSOCK_TYPE_STREAM);
}

static void quiet(struct vs *s)
{
	struct virtio_vsock_hdr h;

	assert_false(vs_recv(s, &h));
}

static unsigned conns(const struct vs *s)
{
	unsigned n = 0;

	for (unsigned i = 0; i < VSOCK_CONNS; i++)
		n += s->d->conn[i].state != CONN_FREE;
	return n;
}

/* A program connects to guest port 52; the host's port it got. */
static int connect_in(struct vs *s, uint32_t *port)
{
	struct virtio_vsock_hdr h;
	int fd = vs_program(s);
	char line[32];
	ssize_t n;

	assert_int_equal(write(fd, "CONN", 4), 4);
	quiet(s);
	/* What follows the line belongs to the stream already. */
	assert_int_equal(write(fd, "ECT 52\nearly", 12), 12);
	expect(s, VIRTIO_VSOCK_OP_REQUEST, &h);
	assert_int_equal(h.dst_port, 52);
	*port = h.src_port;
	vs_send(s, VIRTIO_VSOCK_OP_RESPONSE, 52, *port, 0, NULL, 0);
	n = read(fd, line, sizeof(line) - 1);
	assert_true(n > 3);
	line[n] = 0;
	assert_int_equal(strtoul(line + 3, NULL, 10), *port);
	expect(s, VIRTIO_VSOCK_OP_RW, &h);
	assert_int_equal(h.len, 5);
	assert_memory_equal(s->data, "early", 5);
	return fd;
}

/* The guest connects to port 1000; the program's end. */
static int connect_out(struct vs *s)
{
	struct virtio_vsock_hdr h;
	struct dial_message m;
	int pair[2], none;

	vs_send(s, VIRTIO_VSOCK_OP_REQUEST, 77, 1000, 0, NULL, 0);
	assert_int_equal(dial_recv(s->dial, &m, &none), 0);
	assert_int_equal(m.type, DIAL_DIAL);
	assert_int_equal(m.arg, 1000);
	quiet(s);
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, pair), 0);
	assert_int_equal(dial_send(s->dial, DIAL_DIALED, m.id, 0, pair[1]), 0);
	close(pair[1]);
	expect(s, VIRTIO_VSOCK_OP_RESPONSE, &h);
	assert_int_equal(h.dst_port, 77);
	assert_int_equal(h.src_port, 1000);
	assert_int_equal(h.buf_alloc, VSOCK_BUFFER);
	return pair[0];
}

static void test_connect(void **state)
{
	static const uint64_t layouts[] = {0, BIT(VIRTIO_RING_F_EVENT_IDX), BIT(VIRTIO_F_RING_PACKED),
					   BIT(VIRTIO_F_RING_PACKED) | BIT(VIRTIO_RING_F_EVENT_IDX)};
	struct virtio_vsock_hdr h;
	char buf[64];
	uint32_t port = 0;

	(void)state;
	for (unsigned l = 0; l < nitems(layouts); l++) {
		struct vs *s = vs_create();
		int in, out;

		vs_start(s, layouts[l]);
		in = connect_in(s, &port);
		out = connect_out(s);
		vs_send(s, VIRTIO_VSOCK_OP_RW, 52, port, 0, "hello", 5);
		assert_int_equal(read(in, buf, sizeof(buf)), 5);
		assert_memory_equal(buf, "hello", 5);
		vs_send(s, VIRTIO_VSOCK_OP_RW, 77, 1000, 0, "there", 5);
		assert_int_equal(read(out, buf, sizeof(buf)), 5);
		assert_int_equal(write(out, "back", 4), 4);
		expect(s, VIRTIO_VSOCK_OP_RW, &h);
		assert_int_equal(h.dst_port, 77);
		assert_memory_equal(s->data, "back", 4);
		/* The program closes: the guest is told, closes too, and gets its RST. */
		close(out);
		expect(s, VIRTIO_VSOCK_OP_SHUTDOWN, &h);
		assert_int_equal(h.flags, BOTH);
		vs_send(s, VIRTIO_VSOCK_OP_SHUTDOWN, 77, 1000, 0, NULL, BOTH);
		expect(s, VIRTIO_VSOCK_OP_RST, &h);
		/* The guest closes. */
		vs_send(s, VIRTIO_VSOCK_OP_SHUTDOWN, 52, port, 0, NULL, BOTH);
		expect(s, VIRTIO_VSOCK_OP_RST, &h);
		assert_int_equal(read(in, buf, sizeof(buf)), 0);
		close(in);
		assert_int_equal(conns(s), 0);
		quiet(s);
		vs_destroy(s);
	}
}

static void test_refused(void **state)
{
	static const char *const bad[] = {"HELLO\n", "CONNECT \n", "CONNECT x\n", "CONNECT -1\n", "CONNECT 4294967296\n",
					  "CONNECT 1 2\n", "CONNECT 00000000000000000000000000000001\n"};
	struct vs *s = vs_create();
	struct virtio_vsock_hdr h;
	struct dial_message m;
	char c;
	int fd;

	(void)state;
	/* Before the driver is there. */
	fd = vs_program(s);
	assert_int_equal(read(fd, &c, 1), 0);
	close(fd);
	vs_start(s, 0);
	for (unsigned i = 0; i < nitems(bad); i++) {
		fd = vs_program(s);
		assert_int_equal(write(fd, bad[i], strlen(bad[i])), strlen(bad[i]));
		quiet(s);
		errno = 0;
		assert_true(read(fd, &c, 1) <= 0 && errno != EAGAIN);
		close(fd);
	}
	/* Nobody listens in the guest. */
	fd = vs_program(s);
	assert_int_equal(write(fd, "CONNECT 9\n", 10), 10);
	expect(s, VIRTIO_VSOCK_OP_REQUEST, &h);
	vs_send(s, VIRTIO_VSOCK_OP_RST, 9, h.src_port, 0, NULL, 0);
	assert_int_equal(read(fd, &c, 1), 0);
	close(fd);
	/* Nobody listens on the host; and an answer that comes too late. */
	vs_send(s, VIRTIO_VSOCK_OP_REQUEST, 5, 6, 0, NULL, 0);
	assert_int_equal(dial_recv(s->dial, &m, &fd), 0);
	assert_int_equal(dial_send(s->dial, DIAL_DIALED, m.id, ECONNREFUSED, -1), 0);
	expect(s, VIRTIO_VSOCK_OP_RST, &h);
	assert_int_equal(h.dst_port, 5);
	assert_int_equal(dial_send(s->dial, DIAL_DIALED, m.id, 0, STDIN_FILENO), 0);
	assert_int_equal(dial_send(s->dial, DIAL_DIALED, UINT32_MAX, 0, STDIN_FILENO), 0);
	quiet(s);
	assert_int_equal(conns(s), 0);
	vs_destroy(s);
}

/* The program does not read: the guest may send exactly the buffer ahead; when the program reads, all comes in order. */
static void test_slow_program(void **state)
{
	struct vs *s = vs_create();
	struct virtio_vsock_hdr h;
	static uint8_t chunk[4096], got[4096];
	uint64_t sent = 0, read_back = 0;
	uint32_t fwd = 0;
	int fd;

	(void)state;
	vs_start(s, 0);
	fd = connect_out(s);
	for (;;) {
		for (unsigned i = 0; i < sizeof(chunk); i++)
			chunk[i] = (uint8_t)((sent + i) * 7 >> 3);
		while (vs_recv(s, &h))
			fwd = h.fwd_cnt;
		if (sent + sizeof(chunk) - fwd > VSOCK_BUFFER)
			break;
		vs_send(s, VIRTIO_VSOCK_OP_RW, 77, 1000, 0, chunk, sizeof(chunk));
		sent += sizeof(chunk);
	}
	assert_true(sent > VSOCK_BUFFER);
	while (read_back < sent) {
		ssize_t n = read(fd, got, sizeof(got));

		if (n < 0) {
			vd_loop(&s->loop);
			continue;
		}
		for (ssize_t i = 0; i < n; i++)
			assert_int_equal(got[i], (uint8_t)((read_back + (uint64_t)i) * 7 >> 3));
		read_back += (uint64_t)n;
		vd_loop(&s->loop);
	}
	while (vs_recv(s, &h))
		fwd = h.fwd_cnt;
	assert_true(sent - fwd < VSOCK_BUFFER / 4);
	/* The guest is done and resets before the program has read: it still gets everything. */
	for (unsigned i = 0; i < 14; i++)
		vs_send(s, VIRTIO_VSOCK_OP_RW, 77, 1000, 0, chunk, sizeof(chunk));
	vs_send(s, VIRTIO_VSOCK_OP_SHUTDOWN, 77, 1000, 0, NULL, BOTH);
	vs_send(s, VIRTIO_VSOCK_OP_RST, 77, 1000, 0, NULL, 0);
	for (read_back = 0; read_back < 14 * sizeof(chunk);) {
		ssize_t n = read(fd, got, sizeof(got));

		assert_true(n > 0 || (n < 0 && errno == EAGAIN));
		read_back += n > 0 ? (uint64_t)n : 0;
		vd_loop(&s->loop);
	}
	assert_int_equal(read(fd, got, 1), 0);
	assert_int_equal(conns(s), 0);
	close(fd);
	vs_destroy(s);
}

/* The guest does not read: it gets what its buffer takes, is asked for credit, and gets the rest when it gives some. */
static void test_slow_guest(void **state)
{
	struct vs *s = vs_create();
	struct virtio_vsock_hdr h;
	static uint8_t data[20000];
	uint32_t got = 0;
	bool asked = false;
	int fd;

	(void)state;
	vs_start(s, 0);
	fd = connect_out(s);
	assert_int_equal(write(fd, data, sizeof(data)), sizeof(data));
	close(fd);
	while (vs_recv(s, &h)) {
		asked |= h.op == VIRTIO_VSOCK_OP_CREDIT_REQUEST;
		got += h.op == VIRTIO_VSOCK_OP_RW ? h.len : 0;
	}
	assert_int_equal(got, 8192);
	assert_true(asked);
	vs_send(s, VIRTIO_VSOCK_OP_CREDIT_UPDATE, 77, 1000, got, NULL, 0);
	while (vs_recv(s, &h))
		got += h.op == VIRTIO_VSOCK_OP_RW ? h.len : 0;
	assert_int_equal(got, 16384);
	vs_send(s, VIRTIO_VSOCK_OP_CREDIT_UPDATE, 77, 1000, got, NULL, 0);
	while (vs_recv(s, &h))
		got += h.op == VIRTIO_VSOCK_OP_RW ? h.len : 0;
	assert_int_equal(got, sizeof(data));
	assert_int_equal(h.op, VIRTIO_VSOCK_OP_SHUTDOWN);
	vs_destroy(s);
}

static void test_hostile(void **state)
{
	struct virtio_vsock_hdr h, bad = {.src_cid = VS_CID, .dst_cid = 2, .src_port = 1, .dst_port = 2, .op = VIRTIO_VSOCK_OP_REQUEST};
	static uint8_t big[60000];
	struct vs *s = vs_create();
	struct dial_message m;
	int fd, none;

	(void)state;
	vs_start(s, 0);
	/* Another type: RST. Another source or destination: nothing. Unknown ends: RST, but none for an RST. */
	bad.type = 2;
	vs_send_raw(s, &bad, sizeof(bad));
	expect(s, VIRTIO_VSOCK_OP_RST, &h);
	bad.type = 1;
	bad.src_cid = 4;
	vs_send_raw(s, &bad, sizeof(bad));
	bad.src_cid = VS_CID;
	bad.dst_cid = 1;
	vs_send_raw(s, &bad, sizeof(bad));
	quiet(s);
	assert_int_equal(dial_recv(s->dial, &m, &none), -EAGAIN);
	vs_send(s, VIRTIO_VSOCK_OP_RW, 1, 2, 0, "x", 1);
	expect(s, VIRTIO_VSOCK_OP_RST, &h);
	vs_send(s, VIRTIO_VSOCK_OP_RST, 1, 2, 0, NULL, 0);
	quiet(s);
	/* More than its credit. */
	fd = connect_out(s);
	for (unsigned i = 0; i < 10; i++)
		vs_send(s, VIRTIO_VSOCK_OP_RW, 77, 1000, 0, big, sizeof(big));
	do
		assert_true(vs_recv(s, &h));
	while (h.op != VIRTIO_VSOCK_OP_RST);
	close(fd);
	while (vs_recv(s, &h))
		;
	assert_int_equal(conns(s), 0);
	/* An operation that does not exist; a second REQUEST for a connection. */
	fd = connect_out(s);
	vs_send(s, 99, 77, 1000, 0, NULL, 0);
	expect(s, VIRTIO_VSOCK_OP_RST, &h);
	close(fd);
	fd = connect_out(s);
	vs_send(s, VIRTIO_VSOCK_OP_REQUEST, 77, 1000, 0, NULL, 0);
	expect(s, VIRTIO_VSOCK_OP_RST, &h);
	close(fd);
	/* More connections than there are places. */
	for (unsigned i = 0; i < VSOCK_CONNS; i++)
		vs_send(s, VIRTIO_VSOCK_OP_REQUEST, 1000 + i, 1, 0, NULL, 0);
	quiet(s);
	vs_send(s, VIRTIO_VSOCK_OP_REQUEST, 999, 1, 0, NULL, 0);
	expect(s, VIRTIO_VSOCK_OP_RST, &h);
	assert_int_equal(h.dst_port, 999);
	/* A reset of the device ends them all. */
	vs_start(s, 0);
	assert_int_equal(conns(s), 0);
	/* Headers cut short, lengths that lie. */
	vs_send_raw(s, &bad, 20);
	assert_false(virtio_live(s->v));
	vs_start(s, 0);
	bad.len = 1000;
	vs_send_raw(s, &bad, sizeof(bad));
	assert_false(virtio_live(s->v));
	vs_destroy(s);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_connect), cmocka_unit_test(test_refused), cmocka_unit_test(test_slow_program),
		cmocka_unit_test(test_slow_guest), cmocka_unit_test(test_hostile),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
