/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A JSON writer that neither allocates nor calls stdio streams, so it works inside the sandbox.
 */
#include "vm/json.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

static void put(struct json *j, const char *s, size_t n)
{
	if (n > sizeof(j->buf) - j->len) {
		j->overflow = true;
		return;
	}
	memcpy(j->buf + j->len, s, n);
	j->len += n;
}

static void put_quoted(struct json *j, const char *s)
{
	put(j, "\"", 1);
	for (; *s; s++) {
		char esc[8];

		if (*s == '"' || *s == '\\')
			put(j, (char[]){'\\', *s}, 2);
		else if ((unsigned char)*s < 0x20)
			put(j, esc, (size_t)snprintf(esc, sizeof(esc), "\\u%04x", *s));
		else
			put(j, s, 1);
	}
	put(j, "\"", 1);
}

static void begin(struct json *j, const char *key)
{
	if (j->len)
		put(j, j->first ? "\n" : ",\n", j->first ? 1 : 2);
	j->first = false;
	for (unsigned i = 0; i < j->depth; i++)
		put(j, "  ", 2);
	if (key) {
		put_quoted(j, key);
		put(j, ": ", 2);
	}
}

void json_open(struct json *j, const char *key)
{
	begin(j, key);
	put(j, "{", 1);
	j->depth++;
	j->first = true;
}

void json_close(struct json *j)
{
	j->depth--;
	put(j, "\n", 1);
	for (unsigned i = 0; i < j->depth; i++)
		put(j, "  ", 2);
	put(j, "}", 1);
	j->first = false;
	if (j->depth == 0)
		put(j, "\n", 1);
}

void json_number(struct json *j, const char *key, uint64_t val)
{
	char num[24];

	begin(j, key);
	put(j, num, (size_t)snprintf(num, sizeof(num), "%" PRIu64, val));
}

void json_string(struct json *j, const char *key, const char *val)
{
	begin(j, key);
	put_quoted(j, val);
}
