/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Options of `doppel run` about gdb: where it connects to. The socket is opened here, with the user's rights; the machine's process only
 * accepts. Invariant and rules: run.h.
 *
 * TCP is bound to the loopback address alone: whoever connects owns the guest. On a host with other users a unix socket is the better
 * choice, since only its owner can connect to it.
 */
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "cli/run.h"
#include "proto/status.h"

#define GDB_PORT 1234 /* what gdb users expect of an emulator */
#define UNIX_PREFIX "unix:"

static const char *unix_path(const char *where)
{
	return strncmp(where, UNIX_PREFIX, strlen(UNIX_PREFIX)) ? NULL : where + strlen(UNIX_PREFIX);
}

/* 0: no port. */
static unsigned port_of(const char *where)
{
	unsigned long port = GDB_PORT;
	char *end;

	if (!*where)
		return GDB_PORT;
	port = strtoul(where, &end, 10);
	return *where < '0' || *where > '9' || *end || port > 65535 ? 0 : (unsigned)port;
}

static int set_gdb(struct run_request *req, const struct run_arg *arg)
{
	const char *path = unix_path(arg->text);

	if (path ? !*path : !port_of(arg->text))
		return run_error(arg, STATUS_USAGE, "'%s' is no place to listen at; give a port or unix:PATH", arg->text);
	req->gdb.where = *arg;
	return 0;
}

static int set_gdb_wait(struct run_request *req, const struct run_arg *arg)
{
	if (run_is_yes(arg))
		req->config.flags |= PROTO_F_GDB_WAIT;
	else
		req->config.flags &= ~(uint32_t)PROTO_F_GDB_WAIT;
	return 0;
}

static int bind_tcp(int fd, unsigned port)
{
	struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	int one = 1;

	/* Accepted sockets inherit both: packets are small and each waits for the other side's. */
	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	return bind(fd, (struct sockaddr *)&a, sizeof(a));
}

/* A socket file that nobody listens on was left by a machine that was killed. */
static bool left_over(const struct sockaddr_un *a)
{
	struct stat st;
	int fd;
	bool refused;

	if (lstat(a->sun_path, &st) < 0 || !S_ISSOCK(st.st_mode))
		return false;
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return false;
	refused = connect(fd, (const struct sockaddr *)a, sizeof(*a)) < 0 && errno == ECONNREFUSED;
	close(fd);
	return refused;
}

static int bind_unix(int fd, const char *path)
{
	struct sockaddr_un a = {.sun_family = AF_UNIX};
	mode_t mask;
	int ret;

	if (strlen(path) >= sizeof(a.sun_path)) {
		errno = ENAMETOOLONG;
		return -1;
	}
	memcpy(a.sun_path, path, strlen(path));
	mask = umask(0177);
	ret = bind(fd, (struct sockaddr *)&a, sizeof(a));
	if (ret < 0 && errno == EADDRINUSE) {
		if (left_over(&a) && unlink(path) == 0)
			ret = bind(fd, (struct sockaddr *)&a, sizeof(a));
		else
			errno = EADDRINUSE;
	}
	umask(mask);
	return ret;
}

static int open_socket(struct run_request *req, const struct run_arg *arg, const char *path)
{
	int fd = socket(path ? AF_UNIX : AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	int ret = fd;

	if (fd >= 0)
		ret = path ? bind_unix(fd, path) : bind_tcp(fd, port_of(arg->text));
	if (ret == 0 && path)
		req->gdb.path = path;
	if (ret == 0)
		ret = listen(fd, 1);
	if (ret < 0) {
		ret = errno;
		if (fd >= 0)
			close(fd);
		if (path)
			return run_error(arg, STATUS_START, "cannot listen at %s: %s; give another path", path, strerror(ret));
		return run_error(arg, STATUS_START, "cannot listen on port %u of the loopback address: %s; give another, or unix:PATH",
				 port_of(arg->text), strerror(ret));
	}
	if (run_add_fd(req, fd, PROTO_FD_GDB))
		return 0;
	close(fd);
	return run_error(arg, STATUS_START, "the machine has too many files; give it fewer disks or modules");
}

static int finish(struct run_request *req)
{
	const struct run_arg *arg = &req->gdb.where;
	const char *path;

	if (!arg->text && (req->config.flags & PROTO_F_GDB_WAIT))
		return run_error(arg, STATUS_USAGE, "--gdb-wait needs a way for gdb to come; add --gdb");
	if (!arg->text)
		return 0;
	if (req->config.flags & PROTO_F_CHECK) {
		req->config.flags &= ~(uint32_t)PROTO_F_GDB_WAIT; /* nobody will come */
		return 0;
	}
	path = unix_path(arg->text);
	if (path) {
		path = run_path(req, arg, path, strlen(path));
		if (!path)
			return run_error(arg, STATUS_START, "out of memory; free some and try again");
	}
	return open_socket(req, arg, path);
}

void run_gdb_release(struct run_request *req)
{
	if (req->gdb.path)
		unlink(req->gdb.path);
}

static const struct run_option options[] = {
	{.name = "gdb", .value = "[WHERE]", .set = set_gdb, .flags = RUN_EMPTY | RUN_OPTIONAL,
	 .help = "let gdb connect: a port of the loopback address (default 1234)\nor unix:PATH"},
	{.name = "gdb-wait", .set = set_gdb_wait, .help = "run nothing before gdb says so"},
	{0},
};

const struct run_family run_gdb_family = {"Debugging", options, finish};
