/* SPDX-License-Identifier: Apache-2.0 */
/* gdb/packet.c: framing, checksums, acknowledgements, escaping, limits, hexadecimal. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "gdb/packet.h"

static struct gdb_packets p; /* too large for the stack of a test */

static enum gdb_event feed(const char *bytes, size_t len)
{
	enum gdb_event ev = GDB_EV_NONE;

	for (size_t i = 0; i < len; i++) {
		assert_int_equal(ev, GDB_EV_NONE); /* only the last byte may complete something */
		ev = gdb_packets_feed(&p, (uint8_t)bytes[i]);
	}
	return ev;
}

#define FEED(s) feed(s, sizeof(s) - 1)

static void expect_out(const char *s)
{
	assert_int_equal(p.out_len, strlen(s));
	assert_memory_equal(p.out, s, p.out_len);
	gdb_packets_written(&p, p.out_len);
}

static int setup(void **state)
{
	(void)state;
	gdb_packets_init(&p);
	return 0;
}

static void good_and_bad(void **state)
{
	(void)state;
	assert_int_equal(FEED("+noise$m0,4#fd"), GDB_EV_PACKET);
	assert_string_equal((char *)p.in, "m0,4");
	expect_out("+");
	assert_int_equal(FEED("$m0,4#fe"), GDB_EV_NONE);
	expect_out("-");
	assert_int_equal(FEED("$m0,4#xy"), GDB_EV_NONE);
	expect_out("-");
	assert_int_equal(FEED("$#00"), GDB_EV_PACKET);
	assert_int_equal(p.in_len, 0);
	expect_out("+");
	/* A packet cut off by the next. */
	assert_int_equal(FEED("$m0$m0,4#FD"), GDB_EV_PACKET);
	assert_string_equal((char *)p.in, "m0,4");
}

static void interrupt(void **state)
{
	(void)state;
	assert_int_equal(FEED("\3"), GDB_EV_INTERRUPT);
	/* Inside a packet it is a byte like any other. */
	assert_int_equal(FEED("$a\3#64"), GDB_EV_PACKET);
	assert_memory_equal(p.in, "a\3", 3);
}

static void escapes(void **state)
{
	const char all[] = "a#b$c}d*e";
	uint8_t wire[64];
	size_t n;

	(void)state;
	assert_true(gdb_packets_send(&p, all, 9));
	n = p.out_len;
	memcpy(wire, p.out, n);
	for (size_t i = 1; i < n - 3; i++)
		assert_null(memchr("#$*", wire[i], 3));
	gdb_packets_written(&p, n);
	/* What is sent reads back as what it was. */
	assert_int_equal(feed((char *)wire, n), GDB_EV_PACKET);
	assert_int_equal(p.in_len, 9);
	assert_memory_equal(p.in, all, 9);
}

static void repeats(void **state)
{
	(void)state;
	assert_int_equal(FEED("-"), GDB_EV_NONE); /* nothing has been sent */
	assert_int_equal(p.out_len, 0);
	assert_int_equal(FEED("$?#3f"), GDB_EV_PACKET);
	assert_true(gdb_packets_send(&p, "OK", 2));
	expect_out("+$OK#9a");
	FEED("-");
	expect_out("$OK#9a");
	FEED("-");
	expect_out("$OK#9a");
	/* While something waits to be written nothing is repeated: a peer cannot make the buffer grow. */
	FEED("-");
	for (int i = 0; i < 1000; i++)
		FEED("-");
	expect_out("$OK#9a");
	/* Written in parts. */
	assert_true(gdb_packets_send(&p, "OK", 2));
	gdb_packets_written(&p, 2);
	expect_out("K#9a");
	/* Another packet's acknowledgement has taken its place. */
	FEED("$g#67");
	expect_out("+");
	FEED("-");
	assert_int_equal(p.out_len, 0);
}

static void no_ack(void **state)
{
	(void)state;
	p.no_ack = true;
	assert_int_equal(FEED("$g#00"), GDB_EV_PACKET); /* checksums no longer count */
	assert_int_equal(p.out_len, 0);
	assert_true(gdb_packets_send(&p, "x", 1));
	expect_out("$x#78");
	FEED("-");
	assert_int_equal(p.out_len, 0);
}

static void limits(void **state)
{
	static char big[GDB_PACKET_MAX + 2];
	uint8_t sum = 0;
	char tail[4];

	(void)state;
	memset(big, 'a', sizeof(big));
	for (size_t extra = 0; extra < 2; extra++) {
		sum = 0;
		assert_int_equal(FEED("$"), GDB_EV_NONE);
		for (size_t i = 0; i < GDB_PACKET_MAX + extra; i++) {
			assert_int_equal(gdb_packets_feed(&p, 'a'), GDB_EV_NONE);
			sum = (uint8_t)(sum + 'a');
		}
		snprintf(tail, sizeof(tail), "#%02x", sum);
		assert_int_equal(feed(tail, 3), extra ? GDB_EV_NONE : GDB_EV_PACKET);
		expect_out(extra ? "-" : "+");
	}
	assert_false(gdb_packets_send(&p, big, GDB_PACKET_MAX + 1));
	memset(big, '#', sizeof(big));
	assert_true(gdb_packets_send(&p, big, GDB_PACKET_MAX)); /* every byte escaped still fits */
	assert_false(gdb_packets_send(&p, big, GDB_PACKET_MAX));
}

static void hexadecimal(void **state)
{
	const char *s = "ffffffffffffffff,";
	uint8_t bytes[3];
	char text[6];
	uint64_t v;

	(void)state;
	assert_true(gdb_hex_number(&s, &v));
	assert_int_equal(v, UINT64_MAX);
	assert_string_equal(s, ",");
	assert_false(gdb_hex_number(&s, &v));
	s = "10000000000000000";
	assert_false(gdb_hex_number(&s, &v));
	s = "-1";
	assert_false(gdb_hex_number(&s, &v));
	assert_true(gdb_hex_get(bytes, "00Ff7a", 3));
	assert_memory_equal(bytes, "\0\xff\x7a", 3);
	assert_false(gdb_hex_get(bytes, "00f", 2));
	gdb_hex_put(text, bytes, 3);
	assert_memory_equal(text, "00ff7a", 6);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(good_and_bad, setup), cmocka_unit_test_setup(interrupt, setup),
		cmocka_unit_test_setup(escapes, setup), cmocka_unit_test_setup(repeats, setup),
		cmocka_unit_test_setup(no_ack, setup), cmocka_unit_test_setup(limits, setup), cmocka_unit_test(hexadecimal),
	};

	return cmocka_run_group_tests_name("gdb/packet", tests, NULL, NULL);
}
