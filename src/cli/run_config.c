/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reads a configuration file (doppel.conf.5): lines of `key = value`, keys being the long names of the options of `doppel run`.
 *
 * Invariant: a line means what the same option on the command line means; whatever is not understood is an error with file, line and
 * remedy, never skipped. A file is read whole before any of it takes effect, and at most CONFIG_MAX of it.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli/run.h"
#include "proto/status.h"

#define CONFIG_MAX (1u << 20)
#define BLANKS " \t\r"

struct config {
	struct run_request *req;
	const char *file;
	unsigned line;
	unsigned seen[RUN_MAX_OPTIONS];   /* line that had the option first; 0: none yet */
};

__attribute__((format(printf, 2, 3))) static int complain(const struct config *c, const char *fmt, ...)
{
	const struct run_arg here = {.file = c->file, .line = c->line};
	char msg[512];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(msg, sizeof(msg), fmt, ap);
	va_end(ap);
	return run_error(&here, STATUS_USAGE, "%s", msg);
}

static size_t trimmed(const char *s, size_t len)
{
	while (len && strchr(BLANKS, s[len - 1]))
		len--;
	return len;
}

/* A switch stands for yes or no in words that people use. */
static const char *switch_value(const char *text)
{
	static const char *const words[][2] = {{"yes", "yes"}, {"on", "yes"}, {"true", "yes"}, {"no", "no"}, {"off", "no"}, {"false", "no"}};

	for (size_t i = 0; i < nitems(words); i++)
		if (!strcmp(text, words[i][0]))
			return words[i][1];
	return NULL;
}

static int take_option(struct config *c, const struct run_option *o, const char *value)
{
	struct run_arg arg = {.text = value, .file = c->file, .line = c->line, .option = o};

	if (!o->value) {
		arg.text = switch_value(value);
		if (!arg.text)
			return complain(c, "'%s' is a switch; write %s = yes or %s = no", o->name, o->name, o->name);
	}
	if (!*value && !(o->flags & RUN_EMPTY))
		return complain(c, "'%s' has no value; write %s = %s", o->name, o->name, o->value);
	return o->set(c->req, &arg);
}

static int take_line(struct config *c, const char *line, size_t len)
{
	const struct run_option *o;
	const char *eq, *value;
	size_t key_len;
	unsigned index;

	while (len && strchr(BLANKS, *line))
		line++, len--;
	len = trimmed(line, len);
	if (len == 0 || *line == '#')
		return 0;
	eq = memchr(line, '=', len);
	if (!eq)
		return complain(c, "'%.*s' is no setting; write key = value, or # before a comment", (int)(len > 60 ? 60 : len), line);
	key_len = trimmed(line, (size_t)(eq - line));
	o = run_find(line, key_len, &index);
	if (!o)
		return complain(c, "there is no key '%.*s'; doppel.conf(5) lists them, they are the options of `doppel run`",
				(int)(key_len > 60 ? 60 : key_len), line);
	if (o->flags & RUN_LINE_ONLY)
		return complain(c, "'%s' is not for files; give --%s on the command line", o->name, o->name);
	if (!(o->flags & RUN_REPEATS) && c->seen[index])
		return complain(c, "'%s' is given twice, first in line %u; remove one", o->name, c->seen[index]);
	c->seen[index] = c->line;
	for (value = eq + 1, len -= (size_t)(eq + 1 - line); len && strchr(BLANKS, *value); value++)
		len--;
	value = run_keep(c->req, value, len);
	return value ? take_option(c, o, value) : complain(c, "out of memory; free some and try again");
}

/* The whole file, with a terminating NUL; *size without it. NULL with errno set. */
static char *read_file(const char *path, size_t *size)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY), error = 0;
	char *text = malloc(CONFIG_MAX + 1);
	ssize_t n = 1;

	*size = 0;
	while (fd >= 0 && text && *size <= CONFIG_MAX && n != 0) {
		n = read(fd, text + *size, CONFIG_MAX + 1 - *size);
		if (n > 0)
			*size += (size_t)n;
		else if (n < 0 && errno != EINTR)
			break;
	}
	error = fd < 0 || n < 0 ? errno : !text ? ENOMEM : *size > CONFIG_MAX ? EFBIG : 0;
	if (fd >= 0)
		close(fd);
	if (!error) {
		text[*size] = 0;
		return text;
	}
	free(text);
	errno = error;
	return NULL;
}

int run_read_config(struct run_request *req, const struct run_arg *arg)
{
	struct config c = {.req = req, .file = arg->text, .line = 1};
	size_t size;
	char *text = read_file(arg->text, &size), *line = text, *end;
	int ret = 0;

	if (!text)
		return run_error(arg, STATUS_START, "cannot read %s: %s; check the path, or give another", arg->text, strerror(errno));
	end = text + size;
	if (memchr(text, 0, size))
		ret = run_error(arg, STATUS_USAGE, "%s is no text file; give one with lines of key = value", arg->text);
	for (; ret == 0 && line < end; c.line++) {
		size_t len = strcspn(line, "\n");

		ret = take_line(&c, line, len);
		line += len + 1;
	}
	free(text);
	return ret;
}
