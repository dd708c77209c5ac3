/* SPDX-License-Identifier: Apache-2.0 */
/*
 * --vsock: parsing, and connections for the machine (proto/dial.h has the protocol).
 *
 * Invariant and rules: run.h. The machine asks for port numbers only; which socket that means is decided here: PATH_port. A program
 * that does not accept in time costs nothing: connecting does not block. A connection the machine has no room for waits here, one
 * at most; the others wait in the listening socket's queue.
 */
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/log.h"
#include "cli/run.h"
#include "proto/dial.h"
#include "proto/status.h"

#define BACKLOG 64
#define PORT_DIGITS 10
#define PER_ROUND 16           /* requests served before anything else has its turn */

struct vsock_spec {
	uint32_t cid;
	char path[sizeof(((struct sockaddr_un *)0)->sun_path)];
};

static int parse(struct vsock_spec *v, const struct run_arg *arg)
{
	char *end;
	unsigned long long cid;

	if (strncmp(arg->text, "cid=", 4) || arg->text[4] < '0' || arg->text[4] > '9')
		return run_error(arg, STATUS_USAGE, "'%s' is not understood; write cid=N,path=P", arg->text);
	cid = strtoull(arg->text + 4, &end, 10);
	if (strncmp(end, ",path=", 6) || !end[6])
		return run_error(arg, STATUS_USAGE, "'%s' is not understood; write cid=N,path=P", arg->text);
	if (cid < 3 || cid >= UINT32_MAX)
		return run_error(arg, STATUS_USAGE, "cid is a number from 3 to 4294967294, 0 to 2 mean hosts; choose another");
	v->cid = (uint32_t)cid;
	/* Room for the names of ports. */
	if (strlen(end + 6) + 1 + PORT_DIGITS >= sizeof(v->path))
		return run_error(arg, STATUS_USAGE, "'%s' is too long for a socket; give a path of at most %zu bytes", end + 6,
				 sizeof(v->path) - PORT_DIGITS - 2);
	strcpy(v->path, end + 6);
	return 0;
}

int run_vsock_set(struct run_request *req, const struct run_arg *arg)
{
	struct vsock_spec v;

	req->vsock.vsock = *arg;
	return parse(&v, arg);
}

static int connect_to(const char *path)
{
	struct sockaddr_un sa = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0), err;

	if (fd < 0)
		return -errno;
	snprintf(sa.sun_path, sizeof(sa.sun_path), "%s", path);
	if (connect(fd, (struct sockaddr *)&sa, sizeof(sa)) == 0)
		return fd;
	err = errno;
	close(fd);
	return -err;
}

/* A socket file that nobody listens at is what a killed doppel has left. */
static bool is_stale(const char *path)
{
	struct stat st;
	int fd;

	if (lstat(path, &st) < 0 || !S_ISSOCK(st.st_mode))
		return false;
	fd = connect_to(path);
	if (fd >= 0)
		close(fd);
	return fd == -ECONNREFUSED;
}

static int listen_at(const char *path)
{
	struct sockaddr_un sa = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0), err;
	mode_t old;

	if (fd < 0)
		return -errno;
	snprintf(sa.sun_path, sizeof(sa.sun_path), "%s", path);
	if (is_stale(path))
		(void)unlink(path);
	/* Whoever may connect talks to the guest: the user alone, unless they change it. */
	old = umask(077);
	err = bind(fd, (struct sockaddr *)&sa, sizeof(sa)) < 0 || listen(fd, BACKLOG) < 0 ? errno : 0;
	umask(old);
	if (!err)
		return fd;
	close(fd);
	return -err;
}

int run_vsock_finish(struct run_request *req)
{
	struct run_vsock *s = &req->vsock;
	const struct run_arg *arg = &s->vsock;
	struct vsock_spec v;
	const char *path;
	int ret, fd, pair[2];

	s->listener.fd = s->channel.fd = s->waiting = -1;
	if (!arg->text)
		return 0;
	ret = parse(&v, arg);
	if (ret)
		return ret;
	path = run_path(req, arg, v.path, strlen(v.path));
	/* A detached process leaves the folder in which a relative path means something. */
	if (path && req->detach && *path != '/')
		return run_error(arg, STATUS_USAGE, "'%s' is relative, which --detach does not allow; give an absolute path", path);
	if (!path || strlen(path) + 1 + PORT_DIGITS >= sizeof(s->path))
		return run_error(arg, STATUS_START, "'%s' is too long for a socket; give an absolute, shorter path", v.path);
	fd = listen_at(path);
	if (fd < 0)
		return run_error(arg, STATUS_START, "cannot listen at %s: %s; give another path%s", path, strerror(-fd),
				 fd == -EADDRINUSE ? ", or end the program that has it" : "");
	s->listener.fd = fd;
	snprintf(s->path, sizeof(s->path), "%s", path);
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, pair) < 0)
		return run_error(arg, STATUS_START, "cannot make a socket pair: %s; raise the limit on open files", strerror(errno));
	s->channel.fd = pair[0];
	if (!run_add_fd(req, pair[1], PROTO_FD_DIAL)) {
		close(pair[1]);
		return run_error(arg, STATUS_START, "too many files are passed to the machine; use fewer");
	}
	req->config.vsock_cid = v.cid;
	return 0;
}

static void dial(struct run_vsock *s, const struct dial_message *m)
{
	char path[sizeof(s->path) + 1 + PORT_DIGITS];
	int fd;

	snprintf(path, sizeof(path), "%s_%u", s->path, m->arg);
	fd = connect_to(path);
	/* The machine asks for no more than it has places, so there is room for the answer. */
	(void)dial_send(s->channel.fd, DIAL_DIALED, m->id, fd < 0 ? (uint32_t)-fd : 0, fd);
	if (fd >= 0)
		close(fd);
}

/* Passes on the connection that waits. */
static void pass_on(struct run_vsock *s)
{
	int ret = dial_send(s->channel.fd, DIAL_ACCEPTED, 0, 0, s->waiting);

	s->listener.events = ret == -EAGAIN ? 0 : POLLIN;
	s->channel.events = ret == -EAGAIN ? POLLIN | POLLOUT : POLLIN;
	if (ret == -EAGAIN)
		return;
	close(s->waiting);
	s->waiting = -1;
}

static void on_listener(void *opaque, short revents)
{
	struct run_vsock *s = opaque;

	(void)revents;
	s->waiting = accept4(s->listener.fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
	if (s->waiting >= 0)
		pass_on(s);
}

static void on_channel(void *opaque, short revents)
{
	struct run_vsock *s = opaque;
	struct dial_message m;
	int fd, ret = 0;

	if (s->waiting >= 0 && (revents & POLLOUT))
		pass_on(s);
	for (unsigned i = 0; i < PER_ROUND && ret == 0; i++) {
		ret = dial_recv(s->channel.fd, &m, &fd);
		if (ret == 0 && fd >= 0)
			close(fd);
		else if (ret == 0 && m.type == DIAL_DIAL)
			dial(s, &m);
	}
	/* The machine has ended, or talks nonsense: it gets nothing more. */
	if (ret < 0 && ret != -EAGAIN)
		s->listener.events = s->channel.events = 0;
}

int run_vsock_serve(struct run_request *req, struct evloop *loop)
{
	struct run_vsock *s = &req->vsock;
	int ret;

	if (s->channel.fd < 0)
		return 0;
	s->listener = (struct ev_source){.fd = s->listener.fd, .events = POLLIN, .ready = on_listener, .opaque = s};
	s->channel = (struct ev_source){.fd = s->channel.fd, .events = POLLIN, .ready = on_channel, .opaque = s};
	ret = evloop_add(loop, &s->listener);
	return ret ? ret : evloop_add(loop, &s->channel);
}

void run_vsock_end(struct run_request *req)
{
	struct run_vsock *s = &req->vsock;

	if (!s->path[0])
		return;
	(void)unlink(s->path);
	close(s->listener.fd);
	if (s->channel.fd >= 0)
		close(s->channel.fd);
	if (s->waiting >= 0)
		close(s->waiting);
	s->path[0] = 0;
}
