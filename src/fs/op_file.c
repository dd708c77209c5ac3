/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Operations on open files.
 *
 * Invariant: only regular files are opened for the guest; a length it names never exceeds the room for the reply or the bytes that came.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

#include "fs/private.h"

#define OPEN_FLAGS (O_ACCMODE | O_APPEND | O_TRUNC | O_SYNC | O_DSYNC)

int fs_op_open(struct fs_req *r)
{
	const struct fuse_open_in *in = fs_take(r, sizeof(*in));
	struct fuse_open_out out = {0};
	struct fs_node *n;
	int ret, fd;

	if (!in || r->max < sizeof(out))
		return -EINVAL;
	if (r->fs->cfg.read_only && ((in->flags & O_ACCMODE) != O_RDONLY || (in->flags & O_TRUNC)))
		return -EROFS;
	ret = fs_node_get(&r->fs->nodes, r->h.nodeid, &n);
	if (ret)
		return ret;
	fd = n->type == S_IFREG ? fs_open_node(r->fs, n, (int)in->flags & OPEN_FLAGS) : -EPERM;
	ret = fd < 0 ? fd : fs_handle_add(r->fs, n, fd, false, &out.fh);
	if (ret && fd >= 0)
		close(fd);
	fs_node_put(&r->fs->nodes, n);
	return ret ? ret : fs_reply(r, &out, sizeof(out));
}

int fs_op_release(struct fs_req *r)
{
	const struct fuse_release_in *in = fs_take(r, sizeof(*in));

	if (!in)
		return -EINVAL;
	fs_handle_close(r->fs, in->fh, false);
	return 0;
}

int fs_op_read(struct fs_req *r)
{
	const struct fuse_read_in *in = fs_take(r, sizeof(*in));
	struct fs_handle *h;
	size_t want;
	ssize_t n;

	if (!in)
		return -EINVAL;
	h = fs_handle_get(r->fs, in->fh, false);
	if (!h)
		return -EBADF;
	want = in->size < r->max ? in->size : r->max;
	n = pread(h->fd, r->out, want, (off_t)in->offset);
	if (n < 0)
		n = -errno;
	fs_handle_put(r->fs, h);
	return (int)n;
}

int fs_op_write(struct fs_req *r)
{
	const struct fuse_write_in *in = fs_take(r, sizeof(*in));
	struct fuse_write_out out = {0};
	struct fs_handle *h;
	const void *data;
	ssize_t n;

	if (!in || r->max < sizeof(out))
		return -EINVAL;
	data = fs_take(r, in->size);
	if (!data)
		return -EINVAL;
	h = fs_handle_get(r->fs, in->fh, false);
	if (!h)
		return -EBADF;
	n = pwrite(h->fd, data, in->size, (off_t)in->offset);
	if (n < 0)
		n = -errno;
	fs_handle_put(r->fs, h);
	if (n < 0)
		return (int)n;
	out.size = (uint32_t)n;
	return fs_reply(r, &out, sizeof(out));
}

/* Some file systems report late errors at close; the guest's program closes here. */
int fs_op_flush(struct fs_req *r)
{
	const struct fuse_flush_in *in = fs_take(r, sizeof(*in));
	struct fs_handle *h = in ? fs_handle_get(r->fs, in->fh, false) : NULL;
	int fd, ret;

	if (!h)
		return in ? -EBADF : -EINVAL;
	fd = fcntl(h->fd, F_DUPFD_CLOEXEC, 0);
	ret = fd < 0 || close(fd) < 0 ? -errno : 0;
	fs_handle_put(r->fs, h);
	return ret;
}

int fs_op_fsync(struct fs_req *r)
{
	const struct fuse_fsync_in *in = fs_take(r, sizeof(*in));
	struct fs_handle *h = in ? fs_handle_get(r->fs, in->fh, false) : NULL;
	int ret;

	if (!h)
		return in ? -EBADF : -EINVAL;
	ret = in->fsync_flags & FUSE_FSYNC_FDATASYNC ? fdatasync(h->fd) : fsync(h->fd);
	ret = ret < 0 ? -errno : 0;
	fs_handle_put(r->fs, h);
	return ret;
}

int fs_op_fallocate(struct fs_req *r)
{
	const struct fuse_fallocate_in *in = fs_take(r, sizeof(*in));
	struct fs_handle *h = in ? fs_handle_get(r->fs, in->fh, false) : NULL;
	int ret;

	if (!h)
		return in ? -EBADF : -EINVAL;
	ret = fallocate(h->fd, (int)in->mode, (off_t)in->offset, (off_t)in->length) < 0 ? -errno : 0;
	fs_handle_put(r->fs, h);
	return ret;
}

/* Data and holes only: the position itself the guest keeps. */
int fs_op_lseek(struct fs_req *r)
{
	const struct fuse_lseek_in *in = fs_take(r, sizeof(*in));
	struct fuse_lseek_out out = {0};
	struct fs_handle *h;
	off_t at;

	if (!in || (in->whence != SEEK_DATA && in->whence != SEEK_HOLE))
		return -EINVAL;
	h = fs_handle_get(r->fs, in->fh, false);
	if (!h)
		return -EBADF;
	at = lseek(h->fd, (off_t)in->offset, (int)in->whence);
	if (at < 0)
		at = -errno;
	fs_handle_put(r->fs, h);
	if (at < 0)
		return (int)at;
	out.offset = (uint64_t)at;
	return fs_reply(r, &out, sizeof(out));
}

int fs_op_copy(struct fs_req *r)
{
	const struct fuse_copy_file_range_in *in = fs_take(r, sizeof(*in));
	struct fuse_write_out out = {0};
	struct fs_handle *from, *to;
	ssize_t n = -EBADF;

	if (!in || r->max < sizeof(out))
		return -EINVAL;
	from = fs_handle_get(r->fs, in->fh_in, false);
	to = fs_handle_get(r->fs, in->fh_out, false);
	if (from && to) {
		off_t a = (off_t)in->off_in, b = (off_t)in->off_out;
		/* A part is enough: the guest asks again. One request must not take minutes. */
		size_t len = in->len < (64u << 20) ? in->len : (64u << 20);

		n = copy_file_range(from->fd, &a, to->fd, &b, len, 0);
		if (n < 0)
			n = -errno;
	}
	if (from)
		fs_handle_put(r->fs, from);
	if (to)
		fs_handle_put(r->fs, to);
	if (n < 0)
		return (int)n;
	out.size = (uint32_t)n;
	return fs_reply(r, &out, sizeof(out));
}
