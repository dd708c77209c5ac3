/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Starting the server of a shared folder (share.h has the protocol).
 */
#include "proto/share.h"

#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

int share_send_start(int sock, struct share_start *start, int dir)
{
	proto_header_init(&start->h, PROTO_SHARE_START, sizeof(*start));
	return proto_send(sock, &start->h, &dir, 1);
}

int share_recv_start(int sock, struct share_start *start, int *dir)
{
	int fds[PROTO_MAX_FDS];
	unsigned nfds = 0;
	int n = proto_recv(sock, start, sizeof(*start), fds, &nfds, MSG_WAITALL);

	if (n < 0)
		return n;
	if ((size_t)n != sizeof(*start) || start->h.magic != PROTO_MAGIC || start->h.version != PROTO_VERSION ||
	    start->h.type != PROTO_SHARE_START || start->h.size != sizeof(*start) || nfds != 1 ||
	    !memchr(start->path, 0, sizeof(start->path))) {
		proto_close(fds, nfds);
		return -EPROTO;
	}
	*dir = fds[0];
	return 0;
}

int share_send_ready(int sock)
{
	const struct share_reply r = {.magic = SHARE_MAGIC, .tag = SHARE_READY};

	return write(sock, &r, sizeof(r)) == sizeof(r) ? 0 : -errno;
}

int share_await_ready(int sock)
{
	struct pollfd p = {.fd = sock, .events = POLLIN};
	struct share_reply r;

	if (poll(&p, 1, 20000) != 1)
		return -ETIMEDOUT;
	return read(sock, &r, sizeof(r)) == sizeof(r) && r.magic == SHARE_MAGIC && r.tag == SHARE_READY ? 0 : -ENOTCONN;
}
