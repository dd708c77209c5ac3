/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The runtime directory (rundir.h has layout and invariants).
 */
#include "host/rundir.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#define CLAIM_TRIES 5
#define CLAIM_PAUSE_US 20000
#define BACKLOG 16

/* A folder of ours for run-time files, as the specification of XDG_RUNTIME_DIR wants it. */
static bool base_ok(const char *base)
{
	struct stat st;

	return base && base[0] == '/' && strlen(base) < sizeof(((struct rundir *)0)->path) - sizeof("/doppel") &&
	       stat(base, &st) == 0 && S_ISDIR(st.st_mode) && st.st_uid == geteuid();
}

static void choose_path(struct rundir *d)
{
	const char *base = getenv("XDG_RUNTIME_DIR");
	char run[64];

	snprintf(run, sizeof(run), "/run/user/%u", (unsigned)geteuid());
	if (!base_ok(base))
		base = base_ok(run) ? run : NULL;
	if (base)
		snprintf(d->path, sizeof(d->path), "%.80s/doppel", base);
	else
		snprintf(d->path, sizeof(d->path), "/tmp/doppel-%u", (unsigned)geteuid());
}

int rundir_open(struct rundir *d, char *why, size_t size)
{
	struct stat st;
	int ret;

	choose_path(d);
	d->fd = -1;
	if (mkdir(d->path, 0700) < 0 && errno != EEXIST) {
		ret = -errno;
		snprintf(why, size, "cannot make %s: %s; set XDG_RUNTIME_DIR to a folder of yours", d->path, strerror(errno));
		return ret;
	}
	/* What is opened is looked at, not what was made: in /tmp others may have been there first. */
	d->fd = open(d->path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (d->fd < 0 || fstat(d->fd, &st) < 0) {
		ret = -errno;
		snprintf(why, size, "cannot open %s: %s; remove it, or set XDG_RUNTIME_DIR", d->path, strerror(errno));
	} else if (st.st_uid != geteuid() || (st.st_mode & 077)) {
		ret = -EPERM;
		snprintf(why, size, "%s is not yours alone; remove it, or chmod 700 it if it is yours", d->path);
	} else {
		return 0;
	}
	rundir_close(d);
	return ret;
}

void rundir_close(struct rundir *d)
{
	if (d->fd >= 0)
		close(d->fd);
	d->fd = -1;
}

static void file_name(char *buf, size_t size, const char *name, const char *ending)
{
	snprintf(buf, size, "%.*s.%s", RUNDIR_NAME_MAX - 1, name, ending);
}

static int lock_open(const struct rundir *d, const char *name, int flags)
{
	char file[RUNDIR_NAME_MAX + 8];
	int fd;

	file_name(file, sizeof(file), name, "lock");
	fd = openat(d->fd, file, O_RDWR | O_NOFOLLOW | O_CLOEXEC | O_NOCTTY | flags, 0600);
	return fd < 0 ? -errno : fd;
}

static int lock_take(int fd)
{
	struct flock l = {.l_type = F_WRLCK, .l_whence = SEEK_SET};

	return fcntl(fd, F_OFD_SETLK, &l) < 0 ? -errno : 0;
}

/* Is the file that we have locked still the one of that name? Its former owner may have removed it between open and lock. */
static bool lock_current(const struct rundir *d, const char *name, int fd)
{
	char file[RUNDIR_NAME_MAX + 8];
	struct stat ours, there;

	file_name(file, sizeof(file), name, "lock");
	return fstat(fd, &ours) == 0 && fstatat(d->fd, file, &there, AT_SYMLINK_NOFOLLOW) == 0 && ours.st_ino == there.st_ino &&
	       ours.st_dev == there.st_dev;
}

static void remove_file(const struct rundir *d, const char *name, const char *ending)
{
	char file[RUNDIR_NAME_MAX + 8];

	file_name(file, sizeof(file), name, ending);
	(void)unlinkat(d->fd, file, 0);
}

static int try_claim(const struct rundir *d, const char *name, int *lock_fd)
{
	char pid[24];
	int fd = lock_open(d, name, O_CREAT), ret, n;

	if (fd < 0)
		return fd;
	ret = lock_take(fd);
	if (ret == 0 && !lock_current(d, name, fd))
		ret = -EAGAIN;
	if (ret == 0) {
		n = snprintf(pid, sizeof(pid), "%d\n", (int)getpid());
		if (ftruncate(fd, 0) < 0 || pwrite(fd, pid, (size_t)n, 0) != n)
			ret = -EIO;
	}
	if (ret < 0) {
		close(fd);
		return ret;
	}
	remove_file(d, name, "sock");
	*lock_fd = fd;
	return 0;
}

int rundir_claim(const struct rundir *d, const char *name, int *lock_fd)
{
	int ret = -EAGAIN;

	/* A `doppel ps` that cleans up holds the lock for an instant. */
	for (int i = 0; i < CLAIM_TRIES && (ret == -EAGAIN || ret == -EACCES); i++) {
		if (i)
			usleep(CLAIM_PAUSE_US);
		ret = try_claim(d, name, lock_fd);
	}
	return ret == -EAGAIN || ret == -EACCES ? -EBUSY : ret;
}

/* The address of a file in the directory: through the descriptor, since paths of sockets are short and directories can be exchanged. */
static void address(struct sockaddr_un *a, const struct rundir *d, const char *name)
{
	char file[RUNDIR_NAME_MAX + 8];

	file_name(file, sizeof(file), name, "sock");
	*a = (struct sockaddr_un){.sun_family = AF_UNIX};
	snprintf(a->sun_path, sizeof(a->sun_path), "/proc/self/fd/%d/%.72s", d->fd, file);
}

int rundir_listen(const struct rundir *d, const char *name, int *fd)
{
	struct sockaddr_un a;
	int ret;

	address(&a, d, name);
	*fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (*fd >= 0 && bind(*fd, (struct sockaddr *)&a, sizeof(a)) == 0 && listen(*fd, BACKLOG) == 0)
		return 0;
	ret = -errno;
	if (*fd >= 0)
		close(*fd);
	*fd = -1;
	return ret;
}

int rundir_log(const struct rundir *d, const char *name)
{
	char file[RUNDIR_NAME_MAX + 8];
	int fd;

	file_name(file, sizeof(file), name, "log");
	fd = openat(d->fd, file, O_RDWR | O_CREAT | O_TRUNC | O_APPEND | O_NOFOLLOW | O_CLOEXEC | O_NOCTTY, 0600);
	return fd < 0 ? -errno : fd;
}

void rundir_release(const struct rundir *d, const char *name)
{
	remove_file(d, name, "sock");
	remove_file(d, name, "lock");
}

int rundir_alive(const struct rundir *d, const char *name, pid_t *supervisor)
{
	struct flock l = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
	int fd = lock_open(d, name, 0), ret;
	char pid[24];
	ssize_t n;

	*supervisor = 0;
	if (fd < 0)
		return fd;
	n = pread(fd, pid, sizeof(pid) - 1, 0);
	if (n > 0) {
		pid[n] = 0;
		*supervisor = (pid_t)strtol(pid, NULL, 10);
	}
	ret = fcntl(fd, F_OFD_GETLK, &l) < 0 ? -errno : l.l_type != F_UNLCK;
	close(fd);
	return ret;
}

bool rundir_clean(const struct rundir *d, const char *name)
{
	int fd = lock_open(d, name, 0);
	bool dead;

	if (fd < 0)
		return false;
	dead = lock_take(fd) == 0 && lock_current(d, name, fd);
	if (dead)
		rundir_release(d, name);
	close(fd);
	return dead;
}

int rundir_connect(const struct rundir *d, const char *name)
{
	struct sockaddr_un a;
	int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0), ret;

	if (fd < 0)
		return -errno;
	address(&a, d, name);
	if (connect(fd, (struct sockaddr *)&a, sizeof(a)) == 0)
		return fd;
	ret = -errno;
	close(fd);
	return ret;
}

static int is_lock(const struct dirent *e)
{
	size_t len = strlen(e->d_name);

	return len > 5 && len < RUNDIR_NAME_MAX + 5 && e->d_name[0] != '.' && !strcmp(e->d_name + len - 5, ".lock");
}

int rundir_each(const struct rundir *d, int (*each)(void *opaque, const char *name), void *opaque)
{
	struct dirent **list;
	int n = scandirat(d->fd, ".", &list, is_lock, alphasort), ret = 0;

	if (n < 0)
		return -errno;
	for (int i = 0; i < n; i++) {
		list[i]->d_name[strlen(list[i]->d_name) - 5] = 0;
		if (ret == 0)
			ret = each(opaque, list[i]->d_name);
		free(list[i]);
	}
	free(list);
	return ret;
}
