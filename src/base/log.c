/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Diagnostics on standard error.
 *
 * Invariant: one message is one write(2), so lines of different threads and processes never mix.
 * Locking: none; the level is set before threads start. It is the only mutable file-scope state of the program.
 */
#include "base/log.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define LOG_LINE_MAX 1024

static enum log_level log_max = LOG_WARN;

void log_set_level(enum log_level level)
{
	log_max = level;
}

/* Writes all of buf; gives up on errors, for there is nobody left to tell. */
static void log_write(const char *buf, size_t len)
{
	while (len) {
		ssize_t n = write(STDERR_FILENO, buf, len);

		if (n <= 0)
			return;
		buf += n;
		len -= (size_t)n;
	}
}

static size_t log_append(char *buf, size_t pos, const char *fmt, va_list ap)
{
	int n = vsnprintf(buf + pos, LOG_LINE_MAX - pos, fmt, ap);

	if (n < 0)
		return pos;
	pos += (size_t)n;
	return pos < LOG_LINE_MAX - 1 ? pos : LOG_LINE_MAX - 2;
}

__attribute__((format(printf, 3, 4))) static size_t log_appendf(char *buf, size_t pos, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	pos = log_append(buf, pos, fmt, ap);
	va_end(ap);
	return pos;
}

void log_line(enum log_level level, const char *fmt, ...)
{
	static const char *const word[] = {
		[LOG_ERROR] = "", [LOG_WARN] = "warning: ", [LOG_INFO] = "", [LOG_DEBUG] = "debug: ",
	};
	char buf[LOG_LINE_MAX];
	va_list ap;
	size_t pos;

	if (level > log_max)
		return;
	pos = log_appendf(buf, 0, "doppel: %s", word[level]);
	va_start(ap, fmt);
	pos = log_append(buf, pos, fmt, ap);
	va_end(ap);
	buf[pos++] = '\n';
	log_write(buf, pos);
}

void log_bug(const char *file, int line, const char *fmt, ...)
{
	char buf[LOG_LINE_MAX];
	va_list ap;
	size_t pos = log_appendf(buf, 0, "doppel: BUG at %s:%d: ", file, line);

	va_start(ap, fmt);
	pos = log_append(buf, pos, fmt, ap);
	va_end(ap);
	buf[pos++] = '\n';
	log_write(buf, pos);
	abort();
}
