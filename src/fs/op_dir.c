/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Operations on open directories.
 *
 * A position is the host's own (d_off): the guest hands it back as it got it, or any other number, which the host's file system
 * judges. Locking: h->position around seeking and reading, since several readers may share a handle.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "fs/private.h"

int fs_op_opendir(struct fs_req *r)
{
	struct fuse_open_out out = {0};
	struct fs_node *n;
	int ret, fd;

	if (r->max < sizeof(out))
		return -EINVAL;
	ret = fs_node_get(&r->fs->nodes, r->h.nodeid, &n);
	if (ret)
		return ret;
	fd = n->type == S_IFDIR ? fs_open_node(r->fs, n, O_RDONLY | O_DIRECTORY) : -ENOTDIR;
	ret = fd < 0 ? fd : fs_handle_add(r->fs, n, fd, true, &out.fh);
	if (ret && fd >= 0)
		close(fd);
	fs_node_put(&r->fs->nodes, n);
	return ret ? ret : fs_reply(r, &out, sizeof(out));
}

int fs_op_releasedir(struct fs_req *r)
{
	const struct fuse_release_in *in = fs_take(r, sizeof(*in));

	if (!in)
		return -EINVAL;
	fs_handle_close(r->fs, in->fh, true);
	return 0;
}

int fs_op_fsyncdir(struct fs_req *r)
{
	const struct fuse_fsync_in *in = fs_take(r, sizeof(*in));
	struct fs_handle *h = in ? fs_handle_get(r->fs, in->fh, true) : NULL;
	int ret;

	if (!h)
		return in ? -EBADF : -EINVAL;
	ret = fsync(h->fd) < 0 ? -errno : 0;
	fs_handle_put(r->fs, h);
	return ret;
}

/* What getdents64(2) fills. */
struct host_dirent {
	uint64_t ino;
	int64_t off;
	uint16_t reclen;
	uint8_t type;
	char name[];
};

/* Appends one entry; false if there is no room. `plus`: with a node, introduced as by LOOKUP. */
static bool add_entry(struct fs_req *r, struct fs_handle *h, const struct host_dirent *d, size_t room, size_t *used, bool plus)
{
	size_t len = strlen(d->name), head = plus ? offsetof(struct fuse_direntplus, dirent) : 0;
	size_t whole = FUSE_DIRENT_ALIGN(head + FUSE_NAME_OFFSET + len);
	struct fuse_entry_out e = {0};
	struct fuse_dirent fd = {.ino = d->ino, .off = (uint64_t)d->off, .namelen = (uint32_t)len, .type = d->type};
	uint8_t *at = r->out + *used;
	struct fs_node *n;
	struct stat st;

	if (whole > room - *used)
		return false;
	memset(at, 0, whole);
	/* An entry that cannot be looked up has node number 0: the guest asks for it when it needs it. */
	if (plus && strcmp(d->name, ".") && strcmp(d->name, "..") &&
	    fs_node_lookup(&r->fs->nodes, h->node, d->name, &n, &st) == 0) {
		fs_entry_fill(r->fs, n, &st, &e);
		fs_node_put(&r->fs->nodes, n);
	}
	if (plus)
		memcpy(at, &e, sizeof(e));
	memcpy(at + head, &fd, FUSE_NAME_OFFSET);
	memcpy(at + head + FUSE_NAME_OFFSET, d->name, len);
	*used += whole;
	return true;
}

static int read_dir(struct fs_req *r, bool plus)
{
	const struct fuse_read_in *in = fs_take(r, sizeof(*in));
	struct fs_handle *h = in ? fs_handle_get(r->fs, in->fh, true) : NULL;
	char buf[32768] __attribute__((aligned(8)));
	size_t room, used = 0;
	bool full = false;
	long n = 0;

	if (!h)
		return in ? -EBADF : -EINVAL;
	room = in->size < r->max ? in->size : r->max;
	pthread_mutex_lock(&h->position);
	if (lseek(h->fd, (off_t)in->offset, SEEK_SET) < 0)
		n = -errno;
	while (n >= 0 && !full) {
		n = syscall(SYS_getdents64, h->fd, buf, sizeof(buf));
		if (n < 0)
			n = -errno;
		if (n <= 0)
			break;
		for (long i = 0; i < n && !full;) {
			const struct host_dirent *d = (const void *)(buf + i);

			full = !add_entry(r, h, d, room, &used, plus);
			i += d->reclen;
		}
	}
	pthread_mutex_unlock(&h->position);
	fs_handle_put(r->fs, h);
	return n < 0 && !used ? (int)n : (int)used;
}

int fs_op_readdir(struct fs_req *r)
{
	return read_dir(r, false);
}

int fs_op_readdirplus(struct fs_req *r)
{
	return read_dir(r, true);
}
