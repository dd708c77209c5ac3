/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Connections for a sealed machine (dial.h has the protocol).
 */
#include "proto/dial.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

int dial_send(int sock, enum dial_type type, uint32_t id, uint32_t arg, int fd)
{
	struct dial_message m = {.magic = DIAL_MAGIC, .type = type, .id = id, .arg = arg};

	/* The machine may write, but not send: it has no descriptors to give. */
	if (fd < 0)
		return write(sock, &m, sizeof(m)) == sizeof(m) ? 0 : -errno;
	return proto_send_fds(sock, &m, sizeof(m), &fd, fd >= 0, MSG_DONTWAIT);
}

int dial_recv(int sock, struct dial_message *m, int *fd)
{
	int fds[PROTO_MAX_FDS];
	unsigned nfds = 0;
	int n = proto_recv(sock, m, sizeof(*m), fds, &nfds, MSG_DONTWAIT);

	*fd = -1;
	if (n < 0)
		return n;
	if ((size_t)n != sizeof(*m) || m->magic != DIAL_MAGIC || m->type < DIAL_DIAL || m->type > DIAL_ACCEPTED || nfds > 1) {
		proto_close(fds, nfds);
		return -EPROTO;
	}
	if (nfds)
		*fd = fds[0];
	return 0;
}
