/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Making a file that is there whole or not at all; stopping and showing progress of long work.
 *
 * The file has no name (O_TMPFILE) where the file system can do that, so that not even SIGKILL leaves anything behind; else a
 * temporary one beside the final one. Signals are blocked and asked for, so there is nothing to be undone in a handler.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/log.h"
#include "cli/image.h"
#include "host/signals.h"
#include "proto/status.h"

static int fail(const char *path, int error)
{
	log_error("cannot write %s: %s; %s", path, strerror(error),
		  error == EEXIST ? "remove it first, or say --force" : error == ENOSPC ? "make room on the disk" : "check the path");
	return STATUS_START;
}

/* "dir/file" -> "dir/.file.SUFFIX", or "dir" without a suffix. */
static char *beside(const char *path, const char *suffix)
{
	const char *slash = strrchr(path, '/');
	int len = slash ? (int)(slash - path) : 0;
	char *out;

	if (!suffix)
		return slash ? strndup(path, len ? (size_t)len : 1) : strdup(".");
	return asprintf(&out, "%.*s%s.%s.%s", len, path, slash ? "/" : "", slash ? slash + 1 : path, suffix) < 0 ? NULL : out;
}

static int open_temporary(struct image_output *o)
{
	mode_t mask = umask(0);
	int fd;

	umask(mask);
	o->temporary = beside(o->path, "XXXXXX");
	fd = o->temporary ? mkostemp(o->temporary, O_CLOEXEC) : -1;
	if (fd < 0) {
		free(o->temporary);
		o->temporary = NULL;
	} else {
		(void)fchmod(fd, 0666 & ~mask);
	}
	return fd;
}

int image_output_open(struct image_output *o, const char *path, bool force)
{
	char *dir = beside(path, NULL);
	struct stat st;

	*o = (struct image_output){.path = path, .fd = -1};
	if (lstat(path, &st) == 0 && (!force || !S_ISREG(st.st_mode))) {
		free(dir);
		return fail(path, EEXIST);
	}
	if (dir)
		o->fd = open(dir, O_TMPFILE | O_RDWR | O_CLOEXEC, 0666);
	free(dir);
	if (o->fd < 0)
		o->fd = open_temporary(o);
	if (o->fd < 0)
		return fail(path, errno);
	image_output_take_signals(o);
	return 0;
}

void image_output_take_signals(struct image_output *o)
{
	static const int list[] = {SIGINT, SIGTERM, SIGHUP};

	signals_take(&o->signals, list, nitems(list));
}

/* Gives the nameless file a name that is not in use. */
static int name_it(struct image_output *o, const char *name)
{
	char self[64];

	snprintf(self, sizeof(self), "/proc/self/fd/%d", o->fd);
	return linkat(AT_FDCWD, self, AT_FDCWD, name, AT_SYMLINK_FOLLOW);
}

static int place(struct image_output *o, bool force)
{
	char pid[16];

	if (!o->temporary) {
		if (name_it(o, o->path) == 0)
			return 0;
		if (errno != EEXIST || !force)
			return -errno;
		/* Over an existing file it gets by rename only, for which it needs a name. */
		snprintf(pid, sizeof(pid), "%d", (int)getpid());
		o->temporary = beside(o->path, pid);
		if (!o->temporary || name_it(o, o->temporary) < 0) {
			int ret = -errno;

			free(o->temporary);
			o->temporary = NULL;
			return ret;
		}
	}
	if (force ? rename(o->temporary, o->path) < 0 : link(o->temporary, o->path) < 0)
		return -errno;
	if (!force)
		unlink(o->temporary);
	free(o->temporary);
	o->temporary = NULL;
	return 0;
}

int image_output_finish(struct image_output *o, bool force)
{
	int ret = fsync(o->fd) < 0 ? -errno : 0;

	if (ret == 0)
		ret = place(o, force);
	image_output_abandon(o);
	return ret < 0 ? fail(o->path, -ret) : 0;
}

void image_output_abandon(struct image_output *o)
{
	if (o->temporary)
		unlink(o->temporary);
	free(o->temporary);
	o->temporary = NULL;
	close(o->fd);
	o->fd = -1;
}

bool image_output_stopped(const struct image_output *o)
{
	const struct timespec now = {0};

	return sigtimedwait(&o->signals, NULL, &now) > 0;
}

void image_progress(const char *what, uint64_t done, uint64_t all)
{
	if (isatty(STDERR_FILENO))
		fprintf(stderr, "\r%s: %5.1f %%%s", what, all ? 100.0 * (double)done / (double)all : 100.0, done == all ? "\n" : "");
}
