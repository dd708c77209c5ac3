/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Operations on attributes: getattr, setattr, extended attributes.
 *
 * Owners: a server with whole_ids passes them unchanged. Otherwise its own user and group appear as those of the configuration,
 * and giving a file away is refused, as it is to any user.
 * Extended attributes: the "user." namespace only. The others mean something to the host's kernel.
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/xattr.h>
#include <stdio.h>
#include <string.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "fs/private.h"

static int reply_attr(struct fs_req *r, int fd)
{
	struct fuse_attr_out out = {.attr_valid = FS_VALID_SEC};
	struct stat st;

	if (fstat(fd, &st) < 0)
		return -errno;
	fs_attr_fill(r->fs, &st, &out.attr);
	return fs_reply(r, &out, sizeof(out));
}

int fs_op_getattr(struct fs_req *r)
{
	struct fs_node *n;
	int ret = fs_node_get(&r->fs->nodes, r->h.nodeid, &n);

	if (ret)
		return ret;
	ret = reply_attr(r, n->fd);
	fs_node_put(&r->fs->nodes, n);
	return ret;
}

static int set_owner(struct fs_req *r, int fd, const struct fuse_setattr_in *in)
{
	uid_t uid = in->valid & FATTR_UID ? in->uid : (uid_t)-1;
	gid_t gid = in->valid & FATTR_GID ? in->gid : (gid_t)-1;
	struct fuse_attr now;
	struct stat st;

	if (r->fs->cfg.whole_ids)
		return fchownat(fd, "", uid, gid, AT_EMPTY_PATH | AT_SYMLINK_NOFOLLOW) < 0 ? -errno : 0;
	if (fstat(fd, &st) < 0)
		return -errno;
	fs_attr_fill(r->fs, &st, &now);
	return (uid == (uid_t)-1 || uid == now.uid) && (gid == (gid_t)-1 || gid == now.gid) ? 0 : -EPERM;
}

static int set_size(struct fs_req *r, struct fs_node *n, const struct fuse_setattr_in *in)
{
	struct fs_handle *h = in->valid & FATTR_FH ? fs_handle_get(r->fs, in->fh, false) : NULL;
	int fd, ret;

	if (h) {
		ret = ftruncate(h->fd, (off_t)in->size) < 0 ? -errno : 0;
		fs_handle_put(r->fs, h);
		return ret;
	}
	if (n->type != S_IFREG)
		return -EINVAL;
	fd = fs_open_node(r->fs, n, O_WRONLY);
	if (fd < 0)
		return fd;
	ret = ftruncate(fd, (off_t)in->size) < 0 ? -errno : 0;
	close(fd);
	return ret;
}

static int set_times(struct fs_req *r, const char *number, const struct fuse_setattr_in *in)
{
	struct timespec ts[2] = {{.tv_nsec = UTIME_OMIT}, {.tv_nsec = UTIME_OMIT}};

	if (in->valid & FATTR_ATIME_NOW)
		ts[0].tv_nsec = UTIME_NOW;
	else if (in->valid & FATTR_ATIME)
		ts[0] = (struct timespec){.tv_sec = (time_t)in->atime, .tv_nsec = in->atimensec % 1000000000u};
	if (in->valid & FATTR_MTIME_NOW)
		ts[1].tv_nsec = UTIME_NOW;
	else if (in->valid & FATTR_MTIME)
		ts[1] = (struct timespec){.tv_sec = (time_t)in->mtime, .tv_nsec = in->mtimensec % 1000000000u};
	return utimensat(r->fs->cfg.proc, number, ts, 0) < 0 ? -errno : 0;
}

int fs_op_setattr(struct fs_req *r)
{
	const struct fuse_setattr_in *in = fs_take(r, sizeof(*in));
	struct fs_node *n;
	char number[16];
	int ret;

	if (!in)
		return -EINVAL;
	ret = fs_node_get(&r->fs->nodes, r->h.nodeid, &n);
	if (ret)
		return ret;
	snprintf(number, sizeof(number), "%d", n->fd);
	if (in->valid & (FATTR_UID | FATTR_GID))
		ret = set_owner(r, n->fd, in);
	if (!ret && (in->valid & FATTR_MODE)) {
		mode_t mode = in->mode & 07777;

		/* See safe_mode() in op_name.c. */
		if (n->type != S_IFDIR)
			mode &= ~(mode_t)(S_ISUID | S_ISGID);
		ret = n->type == S_IFLNK ? -EOPNOTSUPP : fchmodat(r->fs->cfg.proc, number, mode, 0) < 0 ? -errno : 0;
	}
	if (!ret && (in->valid & FATTR_SIZE))
		ret = set_size(r, n, in);
	if (!ret && (in->valid & (FATTR_ATIME | FATTR_MTIME | FATTR_ATIME_NOW | FATTR_MTIME_NOW)))
		ret = set_times(r, number, in);
	if (!ret)
		ret = reply_attr(r, n->fd);
	fs_node_put(&r->fs->nodes, n);
	return ret;
}

/* --- extended attributes ------------------------------------------------------------------------------------------------- */

static bool user_name(const char *name)
{
	return !strncmp(name, XATTR_USER_PREFIX, XATTR_USER_PREFIX_LEN) && name[XATTR_USER_PREFIX_LEN];
}

/* The file, opened for reading: descriptors without rights do not serve here. Other kinds of files have no such attributes. */
static int xattr_open(struct fs_req *r)
{
	struct fs_node *n;
	int ret = fs_node_get(&r->fs->nodes, r->h.nodeid, &n);

	if (ret)
		return ret;
	ret = n->type == S_IFREG || n->type == S_IFDIR ? fs_open_node(r->fs, n, O_RDONLY) : -ENODATA;
	fs_node_put(&r->fs->nodes, n);
	return ret;
}

/* Answers with the length alone if the guest asked for no bytes. */
static int reply_xattr(struct fs_req *r, ssize_t n, uint32_t size)
{
	struct fuse_getxattr_out out = {0};

	if (n < 0)
		return -errno;
	if (size)
		return (int)n;
	out.size = (uint32_t)n;
	return fs_reply(r, &out, sizeof(out));
}

int fs_op_getxattr(struct fs_req *r)
{
	const struct fuse_getxattr_in *in = fs_take(r, sizeof(*in));
	const char *name;
	int fd, ret;

	if (!in || !fs_take_string(r, &name, XATTR_NAME_MAX) || in->size > r->max)
		return -EINVAL;
	if (!user_name(name))
		return -EOPNOTSUPP;
	fd = xattr_open(r);
	if (fd < 0)
		return fd;
	ret = reply_xattr(r, fgetxattr(fd, name, r->out, in->size), in->size);
	close(fd);
	return ret;
}

int fs_op_listxattr(struct fs_req *r)
{
	const struct fuse_getxattr_in *in = fs_take(r, sizeof(*in));
	char all[XATTR_LIST_MAX];
	ssize_t n, kept = 0;
	int fd;

	if (!in || in->size > r->max)
		return -EINVAL;
	fd = xattr_open(r);
	if (fd == -ENODATA)
		return reply_xattr(r, 0, in->size);
	if (fd < 0)
		return fd;
	n = flistxattr(fd, all, sizeof(all));
	if (n < 0)
		n = -errno;
	close(fd);
	if (n < 0)
		return (int)n;
	for (ssize_t i = 0; i < n; i += (ssize_t)strlen(all + i) + 1) {
		size_t len = strlen(all + i) + 1;

		if (!user_name(all + i))
			continue;
		memmove(all + kept, all + i, len);
		/* The name that moved ends where it did or before, so the walk goes on behind its old place. */
		kept += (ssize_t)len;
	}
	if (in->size && (size_t)kept > in->size)
		return -ERANGE;
	if (in->size)
		memcpy(r->out, all, (size_t)kept);
	return reply_xattr(r, kept, in->size);
}

int fs_op_setxattr(struct fs_req *r)
{
	/* Without SETXATTR_EXT the structure ends before its last two fields. */
	const struct fuse_setxattr_in *in = fs_take(r, FUSE_COMPAT_SETXATTR_IN_SIZE);
	const char *name;
	const void *value;
	int fd, ret;

	if (!in || !fs_take_string(r, &name, XATTR_NAME_MAX) || in->size > XATTR_SIZE_MAX)
		return -EINVAL;
	value = fs_take(r, in->size);
	if (!value)
		return -EINVAL;
	if (!user_name(name))
		return -EOPNOTSUPP;
	fd = xattr_open(r);
	if (fd < 0)
		return fd == -ENODATA ? -EPERM : fd;
	ret = fsetxattr(fd, name, value, in->size, (int)in->flags & (XATTR_CREATE | XATTR_REPLACE)) < 0 ? -errno : 0;
	close(fd);
	return ret;
}

int fs_op_removexattr(struct fs_req *r)
{
	const char *name;
	int fd, ret;

	if (!fs_take_string(r, &name, XATTR_NAME_MAX))
		return -EINVAL;
	if (!user_name(name))
		return -EOPNOTSUPP;
	fd = xattr_open(r);
	if (fd < 0)
		return fd;
	ret = fremovexattr(fd, name) < 0 ? -errno : 0;
	close(fd);
	return ret;
}
