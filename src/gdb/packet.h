/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Framing of GDB's remote serial protocol: bytes in, packets out, and back.
 *
 *   $ payload # two hex digits      a packet; the digits are the sum of the payload's bytes modulo 256
 *   + -                             received well, send again (until the peer has asked to do without)
 *   0x03                            outside a packet: interrupt
 *   } x                             inside a payload: the byte x ^ 0x20
 *
 * Invariant: every buffer is bounded and the peer is not trusted: a payload that does not fit is dropped whole and answered with '-',
 * bytes outside a packet that mean nothing are ignored. No system calls, no machine: the caller moves the bytes.
 * Spec: "Debugging with GDB", appendix E.1 (overview), E.2 (standard replies), E.9 (interrupts).
 */
#ifndef GDB_PACKET_H
#define GDB_PACKET_H

#include "base/types.h"

/* What qSupported promises as PacketSize: payload bytes, both ways. */
#define GDB_PACKET_MAX 16384u
/* A reply with every byte escaped and its frame, and acknowledgements besides. */
#define GDB_OUT_MAX (2 * GDB_PACKET_MAX + 64)

enum gdb_event {
	GDB_EV_NONE,
	GDB_EV_PACKET,       /* in[0..in_len) holds a payload, unescaped and terminated by a zero byte that does not count */
	GDB_EV_INTERRUPT,
};

struct gdb_packets {
	enum { GDB_RX_IDLE, GDB_RX_DATA, GDB_RX_ESCAPE, GDB_RX_SUM_HIGH, GDB_RX_SUM_LOW } state;
	uint8_t in[GDB_PACKET_MAX + 1];
	size_t in_len;
	uint8_t sum;           /* of the payload received so far */
	uint8_t sum_given;
	bool too_long;
	bool no_ack;           /* QStartNoAckMode: neither side acknowledges */
	uint8_t out[GDB_OUT_MAX];
	size_t out_len;        /* waits to be written */
	size_t last_off, last_len;   /* the last packet sent, while it still lies in out[] or behind its end, for '-' */
};

void gdb_packets_init(struct gdb_packets *p);

/* Takes one byte. A packet stands in `in` until the next byte is fed. */
enum gdb_event gdb_packets_feed(struct gdb_packets *p, uint8_t byte);

/* Queues a packet. False if it does not fit, which a caller that sends only after out_len has come down to 0 does not see. */
bool gdb_packets_send(struct gdb_packets *p, const void *payload, size_t len);

/* The first n bytes of out[] have been written. */
void gdb_packets_written(struct gdb_packets *p, size_t n);

/* --- hexadecimal ---------------------------------------------------------------------------------------------------- */

/* Value of a hex digit, or -1. */
int gdb_hex_digit(uint8_t c);
/* Two digits a byte; dst takes 2 * len characters, no terminator. */
void gdb_hex_put(char *dst, const void *src, size_t len);
/* Exactly 2 * len digits into len bytes. False if there is anything else. */
bool gdb_hex_get(void *dst, const char *src, size_t len);
/* A number without prefix, most significant digit first, as addresses and lengths are; *s moves behind it. False if there is no digit or
 * it does not fit 64 bits. */
bool gdb_hex_number(const char **s, uint64_t *val);

#endif
