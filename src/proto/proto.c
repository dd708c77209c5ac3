/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Packing and checking of the doppel <-> doppel-vm messages (proto.h has the protocol).
 *
 * No state and no locks: each end uses its socket from one thread.
 */
#include "proto/proto.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

void proto_header_init(struct proto_header *h, enum proto_type type, size_t size)
{
	*h = (struct proto_header){
		.magic = PROTO_MAGIC, .version = PROTO_VERSION, .type = (uint16_t)type, .size = (uint32_t)size};
}

int proto_send_fds(int sock, const void *buf, size_t size, const int *fds, unsigned nfds, int flags)
{
	union {
		struct cmsghdr align;
		char buf[CMSG_SPACE(sizeof(int) * PROTO_MAX_FDS)];
	} ctl = {0};
	struct iovec iov = {.iov_base = (void *)(uintptr_t)buf, .iov_len = size};
	struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1};
	struct cmsghdr *c;
	ssize_t n;

	if (nfds > PROTO_MAX_FDS)
		return -EINVAL;
	if (nfds) {
		msg.msg_control = ctl.buf;
		msg.msg_controllen = CMSG_SPACE(sizeof(int) * nfds);
		c = CMSG_FIRSTHDR(&msg);
		c->cmsg_level = SOL_SOCKET;
		c->cmsg_type = SCM_RIGHTS;
		c->cmsg_len = CMSG_LEN(sizeof(int) * nfds);
		memcpy(CMSG_DATA(c), fds, sizeof(int) * nfds);
	}
	do
		n = sendmsg(sock, &msg, MSG_NOSIGNAL | flags);
	while (n < 0 && errno == EINTR);
	if (n < 0)
		return -errno;
	return (size_t)n == size ? 0 : -EIO;
}

int proto_send(int sock, const struct proto_header *h, const int *fds, unsigned nfds)
{
	return proto_send_fds(sock, h, h->size, fds, nfds, 0);
}

static bool header_ok(const struct proto_header *h, size_t size)
{
	return h->magic == PROTO_MAGIC && h->version == PROTO_VERSION && h->size == size && h->zero == 0;
}

static bool terminated(const char *s, size_t size)
{
	return memchr(s, 0, size) != NULL;
}

/* The role table and nmodules must describe the same machine: at most one of each but modules and disks. */
static bool roles_ok(const struct proto_config *cfg)
{
	unsigned count[PROTO_FD_LAST + 1] = {0};

	for (unsigned i = 0; i < cfg->nfds; i++) {
		if (cfg->role[i] < PROTO_FD_KERNEL || cfg->role[i] > PROTO_FD_LAST)
			return false;
		count[cfg->role[i]]++;
	}
	/* Without a kernel the machine boots from its disks, which have it all. */
	if (count[PROTO_FD_KERNEL] == 0 && (cfg->ndisks == 0 || count[PROTO_FD_INITRD] || cfg->nmodules))
		return false;
	if (count[PROTO_FD_GDB] > 1 || (cfg->flags & PROTO_F_GDB_WAIT && !count[PROTO_FD_GDB]))
		return false;
	return count[PROTO_FD_KERNEL] <= 1 && count[PROTO_FD_INITRD] <= 1 && count[PROTO_FD_STATS] <= 1 &&
	       count[PROTO_FD_PROFILE] <= (cfg->flags & PROTO_F_PROFILE ? 1u : 0u) && count[PROTO_FD_PERF_MAP] <= 1 &&
	       count[PROTO_FD_CONTROL] <= 1 && count[PROTO_FD_LOCK] <= 1 &&
	       count[PROTO_FD_MODULE] == cfg->nmodules && count[PROTO_FD_DISK] == cfg->ndisk_files &&
	       count[PROTO_FD_SHARE] == cfg->nshares && count[PROTO_FD_DIAL] == (cfg->vsock_cid ? 1u : 0u) &&
	       count[PROTO_FD_SERIAL] == (cfg->serial == PROTO_SERIAL_FILE ? 1u : 0u);
}

/* Every file belongs to one disk, every disk has files. */
static bool disks_ok(const struct proto_config *cfg)
{
	uint32_t files = 0;

	if (cfg->ndisks > PROTO_MAX_DISKS || cfg->ndisk_files > PROTO_MAX_DISK_FILES)
		return false;
	for (unsigned i = 0; i < cfg->ndisks; i++) {
		const struct proto_disk *d = &cfg->disk[i];

		if (d->nfiles == 0 || d->nfiles > PROTO_MAX_DISK_FILES || !terminated(d->serial, sizeof(d->serial)))
			return false;
		files += d->nfiles;
	}
	for (unsigned i = 0; i < cfg->ndisk_files; i++)
		if (cfg->disk_file[i].probed > 1 || !terminated(cfg->disk_file[i].path, sizeof(cfg->disk_file[i].path)))
			return false;
	return files == cfg->ndisk_files;
}

/* 5.11.4, 5.10.4: tags of at most 36 bytes; context identifiers below 3 and the highest are reserved. */
static bool shares_ok(const struct proto_config *cfg)
{
	if (cfg->nshares > PROTO_MAX_SHARES || (cfg->vsock_cid && (cfg->vsock_cid < 3 || cfg->vsock_cid == UINT32_MAX)))
		return false;
	for (unsigned i = 0; i < cfg->nshares; i++)
		if (!cfg->share[i][0] || !terminated(cfg->share[i], 37))
			return false;
	return true;
}

/* Every queue has a descriptor, and every address is one that an interface may have. */
static bool nets_ok(const struct proto_config *cfg)
{
	unsigned queues = 0, fds = 0;

	if (cfg->nnets > PROTO_MAX_NETS)
		return false;
	for (unsigned i = 0; i < cfg->nnets; i++) {
		const struct proto_net *n = &cfg->net[i];

		if (n->kind < PROTO_NET_PASST || n->kind > PROTO_NET_TAP || n->queues < 1 || n->queues > PROTO_MAX_NET_QUEUES ||
		    (n->mac[0] & 1) || n->zero)
			return false;
		queues += n->queues;
	}
	for (unsigned i = 0; i < cfg->nfds; i++)
		fds += cfg->role[i] == PROTO_FD_NET;
	return queues == fds && fds <= PROTO_MAX_NET_FDS;
}

int proto_config_check(const struct proto_config *cfg, size_t size, unsigned nfds)
{
	if (size != sizeof(*cfg) || !header_ok(&cfg->h, size) || cfg->h.type != PROTO_CONFIG)
		return -EPROTO;
	if (cfg->nfds != nfds || nfds > PROTO_MAX_FDS || cfg->nmodules > PROTO_MAX_MODULES ||
	    cfg->serial > PROTO_SERIAL_FILE || cfg->hvc > PROTO_HVC_DETACHED || (cfg->hvc && cfg->serial == PROTO_SERIAL_STDIO) ||
	    !roles_ok(cfg) || !disks_ok(cfg) || !shares_ok(cfg) ||
	    !nets_ok(cfg))
		return -EPROTO;
	if (cfg->memory == 0 || cfg->memory % (2u << 20) || cfg->cpus == 0 || cfg->cpus > PROTO_MAX_CPUS)
		return -EPROTO;
	if (!terminated(cfg->engine, sizeof(cfg->engine)) || !terminated(cfg->name, sizeof(cfg->name)) ||
	    !terminated(cfg->kernel, sizeof(cfg->kernel)) || !terminated(cfg->initrd, sizeof(cfg->initrd)) ||
	    !terminated(cfg->append, sizeof(cfg->append)))
		return -EPROTO;
	for (unsigned i = 0; i < PROTO_MAX_MODULES; i++)
		if (!terminated(cfg->module[i], sizeof(cfg->module[i])))
			return -EPROTO;
	return 0;
}

/* Collects the descriptors of a message; more than fit is a protocol error, but none may leak. */
static int take_fds(struct msghdr *msg, int *fds, unsigned *nfds)
{
	int ret = (msg->msg_flags & (MSG_TRUNC | MSG_CTRUNC)) ? -EPROTO : 0;

	*nfds = 0;
	for (struct cmsghdr *c = CMSG_FIRSTHDR(msg); c; c = CMSG_NXTHDR(msg, c)) {
		size_t n;

		if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
			continue;
		n = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
		for (size_t i = 0; i < n; i++) {
			int fd;

			memcpy(&fd, CMSG_DATA(c) + i * sizeof(int), sizeof(fd));
			if (*nfds < PROTO_MAX_FDS) {
				fds[(*nfds)++] = fd;
			} else {
				close(fd);
				ret = -EPROTO;
			}
		}
	}
	return ret;
}

int proto_recv(int sock, void *buf, size_t size, int *fds, unsigned *nfds, int flags)
{
	union {
		struct cmsghdr align;
		char buf[CMSG_SPACE(sizeof(int) * PROTO_MAX_FDS)];
	} ctl;
	struct iovec iov = {.iov_base = buf, .iov_len = size};
	struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1, .msg_control = ctl.buf, .msg_controllen = sizeof(ctl)};
	ssize_t n;
	int ret;

	do
		n = recvmsg(sock, &msg, MSG_CMSG_CLOEXEC | flags);
	while (n < 0 && errno == EINTR);
	if (n < 0)
		return -errno;
	ret = take_fds(&msg, fds, nfds);
	if (ret == 0 && n == 0)
		ret = -ENOTCONN;
	if (ret < 0)
		proto_close(fds, *nfds);
	return ret < 0 ? ret : (int)n;
}

void proto_close(const int *fds, unsigned nfds)
{
	for (unsigned i = 0; i < nfds; i++)
		close(fds[i]);
}

int proto_recv_config(int sock, struct proto_config *cfg, int *fds)
{
	unsigned nfds = 0;
	int n = proto_recv(sock, cfg, sizeof(*cfg), fds, &nfds, 0), ret;

	if (n < 0)
		return n;
	ret = proto_config_check(cfg, (size_t)n, nfds);
	if (ret < 0)
		proto_close(fds, nfds);
	return ret;
}

int proto_recv_command(int sock, struct proto_resize *m)
{
	const struct proto_header *h = &m->h;
	ssize_t n;

	/* read(2), not recvmsg(2): the sealed process may not receive descriptors. */
	do
		n = read(sock, m, sizeof(*m));
	while (n < 0 && errno == EINTR);
	if (n < 0)
		return -errno;
	if (n == 0)
		return 0;
	if ((size_t)n < sizeof(*h) || !header_ok(h, (size_t)n))
		return -EPROTO;
	if (h->type == PROTO_RESIZE)
		return n == sizeof(*m) && !m->zero ? h->type : -EPROTO;
	return n == sizeof(*h) && ((h->type >= PROTO_PAUSE && h->type <= PROTO_STOP) || h->type == PROTO_RUNNING) ? h->type : -EPROTO;
}
