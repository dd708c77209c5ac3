/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Diagnostics on standard error: one line each, prefixed "doppel: ".
 *
 * Who is wrong decides (docs/design/base.md): the guest -> an exception or
 * vm_stop(); the caller or the host -> -errno upwards, printed once where there
 * is context; ourselves -> BUG(). Guest data never reaches BUG().
 */
#ifndef BASE_LOG_H
#define BASE_LOG_H

#include <stdint.h>

enum log_level { LOG_ERROR, LOG_WARN, LOG_INFO, LOG_DEBUG };

/* Lines above `level` are dropped; the default is LOG_WARN. Not thread-safe: call before threads start. */
void log_set_level(enum log_level level);

/* Prints one line (a newline is added). Safe from any thread; a single write(2) per line. */
__attribute__((format(printf, 2, 3))) void log_line(enum log_level level, const char *fmt, ...);

#define log_error(...) log_line(LOG_ERROR, __VA_ARGS__)
#define log_warn(...) log_line(LOG_WARN, __VA_ARGS__)
#define log_info(...) log_line(LOG_INFO, __VA_ARGS__)
#define log_debug(...) log_line(LOG_DEBUG, __VA_ARGS__)

/* A defect of doppel itself: prints the place and aborts. Never reachable from guest data. */
__attribute__((noreturn, format(printf, 3, 4))) void log_bug(const char *file, int line, const char *fmt, ...);
#define BUG(...) log_bug(__FILE__, __LINE__, __VA_ARGS__)
#define BUG_ON(cond)                                                                                                   \
	do {                                                                                                           \
		if (__builtin_expect(!!(cond), 0))                                                                     \
			BUG("%s", #cond);                                                                              \
	} while (0)

#endif
