/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Framing of GDB's remote serial protocol (packet.h has the rules).
 *
 * The last packet stays where it was framed, in out[], until another is queued: a negative acknowledgement sends the same bytes again. Since
 * the protocol is one of requests and replies, out[] is empty when the peer finds fault with a reply, unless it floods us; then
 * nothing is repeated and it has to ask again.
 */
#include "gdb/packet.h"

#include <string.h>

static const char digits[] = "0123456789abcdef";

void gdb_packets_init(struct gdb_packets *p)
{
	p->state = GDB_RX_IDLE;
	p->in_len = 0;
	p->no_ack = false;
	p->out_len = p->last_off = p->last_len = 0;
}

static void put_byte(struct gdb_packets *p, uint8_t c)
{
	if (p->out_len < sizeof(p->out))
		p->out[p->out_len++] = c;
}

static void acknowledge(struct gdb_packets *p, bool good)
{
	if (!p->no_ack) {
		p->last_len = 0; /* what follows in out[] is no longer the last packet alone */
		put_byte(p, good ? '+' : '-');
	}
}

/* '-': the bytes of the last packet still lie behind what has been written. */
static void repeat(struct gdb_packets *p)
{
	if (p->no_ack || p->out_len || !p->last_len)
		return;
	memmove(p->out, p->out + p->last_off, p->last_len);
	p->last_off = 0;
	p->out_len = p->last_len;
}

static void append(struct gdb_packets *p, uint8_t byte)
{
	if (p->in_len < GDB_PACKET_MAX)
		p->in[p->in_len++] = byte;
	else
		p->too_long = true;
}

static void begin(struct gdb_packets *p)
{
	p->state = GDB_RX_DATA;
	p->in_len = 0;
	p->sum = 0;
	p->too_long = false;
}

static enum gdb_event idle(struct gdb_packets *p, uint8_t byte)
{
	switch (byte) {
	case '$':
		begin(p);
		return GDB_EV_NONE;
	case '-':
		repeat(p);
		return GDB_EV_NONE;
	case 3:
		return GDB_EV_INTERRUPT;
	default:
		return GDB_EV_NONE; /* '+', or noise */
	}
}

static void data(struct gdb_packets *p, uint8_t byte)
{
	if (byte == '$') {
		begin(p); /* the rest of the one before was lost: only an escaped '$' belongs into a payload */
		return;
	}
	if (byte == '#') {
		p->state = GDB_RX_SUM_HIGH;
		return;
	}
	p->sum = (uint8_t)(p->sum + byte);
	if (byte == '}')
		p->state = GDB_RX_ESCAPE;
	else
		append(p, byte);
}

static enum gdb_event finish(struct gdb_packets *p, uint8_t byte)
{
	int high = gdb_hex_digit(p->sum_given), low = gdb_hex_digit(byte);
	bool good = !p->too_long && (p->no_ack || (high >= 0 && low >= 0 && (high << 4 | low) == p->sum));

	p->state = GDB_RX_IDLE;
	acknowledge(p, good);
	if (!good)
		return GDB_EV_NONE;
	p->in[p->in_len] = 0;
	return GDB_EV_PACKET;
}

enum gdb_event gdb_packets_feed(struct gdb_packets *p, uint8_t byte)
{
	switch (p->state) {
	case GDB_RX_IDLE:
		return idle(p, byte);
	case GDB_RX_DATA:
		data(p, byte);
		return GDB_EV_NONE;
	case GDB_RX_ESCAPE:
		p->sum = (uint8_t)(p->sum + byte);
		append(p, byte ^ 0x20);
		p->state = GDB_RX_DATA;
		return GDB_EV_NONE;
	case GDB_RX_SUM_HIGH:
		p->sum_given = byte;
		p->state = GDB_RX_SUM_LOW;
		return GDB_EV_NONE;
	case GDB_RX_SUM_LOW:
		return finish(p, byte);
	}
	return GDB_EV_NONE;
}

bool gdb_packets_send(struct gdb_packets *p, const void *payload, size_t len)
{
	const uint8_t *s = payload;
	size_t from = p->out_len;
	uint8_t sum = 0;

	if (len > GDB_PACKET_MAX || sizeof(p->out) - p->out_len < 2 * len + 4)
		return false;
	put_byte(p, '$');
	for (size_t i = 0; i < len; i++) {
		uint8_t c = s[i];

		/* '*' would be read as a run length. */
		if (c == '$' || c == '#' || c == '}' || c == '*') {
			put_byte(p, '}');
			sum = (uint8_t)(sum + '}');
			c ^= 0x20;
		}
		put_byte(p, c);
		sum = (uint8_t)(sum + c);
	}
	put_byte(p, '#');
	put_byte(p, (uint8_t)digits[sum >> 4]);
	put_byte(p, (uint8_t)digits[sum & 15]);
	p->last_off = from;
	p->last_len = p->out_len - from;
	return true;
}

void gdb_packets_written(struct gdb_packets *p, size_t n)
{
	if (n >= p->out_len) {
		p->out_len = 0; /* the bytes stay for repeat() */
		return;
	}
	p->out_len -= n;
	/* Keep the last packet whole only if nothing of it has been written yet; a partial write means that the peer is slow. */
	if (p->last_off >= n)
		p->last_off -= n;
	else
		p->last_len = 0;
	memmove(p->out, p->out + n, p->out_len);
}

/* --- hexadecimal ---------------------------------------------------------------------------------------------------- */

int gdb_hex_digit(uint8_t c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	c |= 0x20;
	return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

void gdb_hex_put(char *dst, const void *src, size_t len)
{
	const uint8_t *s = src;

	for (size_t i = 0; i < len; i++) {
		dst[2 * i] = digits[s[i] >> 4];
		dst[2 * i + 1] = digits[s[i] & 15];
	}
}

bool gdb_hex_get(void *dst, const char *src, size_t len)
{
	uint8_t *d = dst;

	for (size_t i = 0; i < len; i++) {
		int high = gdb_hex_digit((uint8_t)src[2 * i]), low = high < 0 ? -1 : gdb_hex_digit((uint8_t)src[2 * i + 1]);

		if (low < 0)
			return false;
		d[i] = (uint8_t)(high << 4 | low);
	}
	return true;
}

bool gdb_hex_number(const char **s, uint64_t *val)
{
	const char *p = *s;
	uint64_t v = 0;
	int d;

	while ((d = gdb_hex_digit((uint8_t)*p)) >= 0) {
		if (v >> 60)
			return false;
		v = v << 4 | (unsigned)d;
		p++;
	}
	if (p == *s)
		return false;
	*s = p;
	*val = v;
	return true;
}
