/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the option families share: values, paths, opening files, errors that name their place (run.h).
 */
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/log.h"
#include "cli/run.h"
#include "proto/status.h"

struct run_text {
	struct run_text *next;
	char text[];
};

int run_error(const struct run_arg *arg, int status, const char *fmt, ...)
{
	const char *name = arg->option ? arg->option->name : NULL;
	char msg[768];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(msg, sizeof(msg), fmt, ap);
	va_end(ap);
	if (arg->file)
		log_error("%s:%u: %s%s%s", arg->file, arg->line, name ? name : "", name ? ": " : "", msg);
	else
		log_error("%s%s%s%s", name ? "--" : "", name ? name : "", name ? ": " : "", msg);
	return status;
}

bool run_is_yes(const struct run_arg *arg)
{
	return !strcmp(arg->text, "yes");
}

int run_copy(char *dst, size_t size, const char *text, const struct run_arg *arg)
{
	size_t len = strlen(text);

	if (len >= size)
		return run_error(arg, STATUS_USAGE, "longer than %zu bytes; shorten it", size - 1);
	memcpy(dst, text, len + 1);
	return 0;
}

bool run_size(const char *text, uint64_t plain, uint64_t *bytes)
{
	static const char units[] = "kmgt";
	unsigned long long v;
	uint64_t unit = plain;
	char *end;

	if (*text < '0' || *text > '9')
		return false; /* strtoull would take blanks and signs */
	errno = 0;
	v = strtoull(text, &end, 10);
	if (errno)
		return false;
	if (*end) {
		const char *u = strchr(units, *end | 0x20);

		if (!u || end[1])
			return false;
		unit = 1ull << (10 * (u - units) + 10);
	}
	if (v > UINT64_MAX / unit)
		return false;
	*bytes = v * unit;
	return true;
}

const char *run_split(char *path, size_t size, const char *spec)
{
	size_t n = 0;

	for (; *spec && (*spec != ',' || spec[1] == ','); spec++) {
		spec += *spec == ',';
		if (n + 1 >= size)
			return NULL;
		path[n++] = *spec;
	}
	path[n] = 0;
	return *spec ? spec + 1 : spec;
}

static char *keep(struct run_request *req, size_t len)
{
	struct run_text *t = malloc(sizeof(*t) + len + 1);

	if (!t)
		return NULL;
	t->next = req->texts;
	req->texts = t;
	t->text[len] = 0;
	return t->text;
}

char *run_keep(struct run_request *req, const char *text, size_t len)
{
	char *copy = keep(req, len);

	return copy ? memcpy(copy, text, len) : NULL;
}

const char *run_path(struct run_request *req, const struct run_arg *arg, const char *text, size_t len)
{
	const char *slash = arg->file ? strrchr(arg->file, '/') : NULL;
	size_t folder = slash && len && text[0] != '/' ? (size_t)(slash - arg->file) + 1 : 0;
	char *path = keep(req, folder + len);

	if (!path)
		return NULL;
	if (folder)
		memcpy(path, arg->file, folder);
	memcpy(path + folder, text, len);
	return path;
}

/* The remedy for a file that cannot be opened. */
static const char *remedy(int error)
{
	switch (error) {
	case EACCES:
	case EPERM:
		return "change the file's permissions, or give another";
	case ENOSPC:
	case EDQUOT:
		return "make room on the disk, or give another";
	default:
		return "check the path, or give another";
	}
}

bool run_add_fd(struct run_request *req, int fd, enum proto_fd_role role)
{
	if (req->config.nfds == PROTO_MAX_FDS)
		return false;
	req->fds[req->config.nfds] = fd;
	req->config.role[req->config.nfds++] = (uint8_t)role;
	return true;
}

static int hand_over(struct run_request *req, const struct run_arg *arg, int fd, enum proto_fd_role role)
{
	if (run_add_fd(req, fd, role))
		return 0;
	close(fd);
	return run_error(arg, STATUS_USAGE, "the machine has more than %d files; give it fewer", PROTO_MAX_FDS);
}

int run_open_input(struct run_request *req, const struct run_arg *arg, const char *path, enum proto_fd_role role)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
	struct stat st;

	if (fd < 0)
		return run_error(arg, STATUS_START, "cannot open %s: %s; %s", path, strerror(errno), remedy(errno));
	if (fstat(fd, &st) < 0 || !S_ISREG(st.st_mode)) {
		close(fd);
		return run_error(arg, STATUS_START, "%s is not a regular file; give a file", path);
	}
	return hand_over(req, arg, fd, role);
}

int run_open_output(struct run_request *req, const struct run_arg *arg, const char *path, enum proto_fd_role role)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOCTTY, 0666);

	if (fd < 0)
		return run_error(arg, STATUS_START, "cannot write %s: %s; %s", path, strerror(errno), remedy(errno));
	return hand_over(req, arg, fd, role);
}

void run_release(struct run_request *req)
{
	for (unsigned i = 0; i < req->config.nfds; i++)
		close(req->fds[i]);
	req->config.nfds = 0;
	run_share_end(req);
	run_vsock_end(req);
	run_gdb_release(req);
	while (req->texts) {
		struct run_text *t = req->texts;

		req->texts = t->next;
		free(t);
	}
}
