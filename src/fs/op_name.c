/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Operations on names: looking up, making, removing, renaming.
 *
 * Invariant: every name is a single component (fs_take_name()), used relative to the descriptor of a directory node and never
 * followed if it is a symbolic link.
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "fs/private.h"

void fs_entry_fill(const struct fs *fs, const struct fs_node *n, const struct stat *st, struct fuse_entry_out *e)
{
	*e = (struct fuse_entry_out){
		.nodeid = n->id, .generation = n->generation, .entry_valid = FS_VALID_SEC, .attr_valid = FS_VALID_SEC};
	fs_attr_fill(fs, st, &e->attr);
}

/* Looks up and introduces: the reply of everything that names a file. */
static int reply_entry(struct fs_req *r, struct fs_node *dir, const char *name)
{
	struct fuse_entry_out e;
	struct fs_node *n;
	struct stat st;
	int err;

	if (r->max < sizeof(e))
		return -EINVAL;
	err = fs_node_lookup(&r->fs->nodes, dir, name, &n, &st);
	if (err)
		return err;
	fs_entry_fill(r->fs, n, &st, &e);
	fs_node_put(&r->fs->nodes, n);
	return fs_reply(r, &e, sizeof(e));
}

int fs_op_lookup(struct fs_req *r)
{
	const char *name;
	struct fs_node *dir;
	int ret;

	if (!fs_take_name(r, &name))
		return -EINVAL;
	ret = fs_node_get(&r->fs->nodes, r->h.nodeid, &dir);
	if (ret)
		return ret;
	ret = reply_entry(r, dir, name);
	fs_node_put(&r->fs->nodes, dir);
	return ret;
}

/* Set-user-id programs owned by the host's user, made by a guest, would be a way for third parties to become that user. */
static mode_t safe_mode(mode_t mode)
{
	return S_ISDIR(mode) ? mode : mode & ~(mode_t)(S_ISUID | S_ISGID);
}

enum make { MAKE_NODE, MAKE_DIR, MAKE_LINK };

static int make(struct fs_req *r, enum make what, const char *name, mode_t mode, const char *target)
{
	struct fs_node *dir;
	int ret = fs_node_get(&r->fs->nodes, r->h.nodeid, &dir);

	if (ret)
		return ret;
	fs_become(r);
	switch (what) {
	case MAKE_NODE:
		ret = mknodat(dir->fd, name, safe_mode(mode), 0);
		break;
	case MAKE_DIR:
		ret = mkdirat(dir->fd, name, mode & 07777);
		break;
	case MAKE_LINK:
		ret = symlinkat(target, dir->fd, name);
		break;
	}
	ret = ret < 0 ? -errno : 0;
	fs_become_self(r);
	if (!ret)
		ret = reply_entry(r, dir, name);
	fs_node_put(&r->fs->nodes, dir);
	return ret;
}

int fs_op_mknod(struct fs_req *r)
{
	const struct fuse_mknod_in *in = fs_take(r, sizeof(*in));
	const char *name;

	if (!in || !fs_take_name(r, &name))
		return -EINVAL;
	/* No devices: they would be the host's. */
	if (!S_ISREG(in->mode) && !S_ISFIFO(in->mode) && !S_ISSOCK(in->mode))
		return -EPERM;
	return make(r, MAKE_NODE, name, in->mode, NULL);
}

int fs_op_mkdir(struct fs_req *r)
{
	const struct fuse_mkdir_in *in = fs_take(r, sizeof(*in));
	const char *name;

	return in && fs_take_name(r, &name) ? make(r, MAKE_DIR, name, in->mode, NULL) : -EINVAL;
}

int fs_op_symlink(struct fs_req *r)
{
	const char *name, *target;

	if (!fs_take_name(r, &name) || !fs_take_string(r, &target, PATH_MAX - 1))
		return -EINVAL;
	return make(r, MAKE_LINK, name, 0, target);
}

static int remove_name(struct fs_req *r, int flags)
{
	struct fs_node *dir;
	const char *name;
	int ret;

	if (!fs_take_name(r, &name))
		return -EINVAL;
	ret = fs_node_get(&r->fs->nodes, r->h.nodeid, &dir);
	if (ret)
		return ret;
	ret = unlinkat(dir->fd, name, flags) < 0 ? -errno : 0;
	fs_node_put(&r->fs->nodes, dir);
	return ret;
}

int fs_op_unlink(struct fs_req *r)
{
	return remove_name(r, 0);
}

int fs_op_rmdir(struct fs_req *r)
{
	return remove_name(r, AT_REMOVEDIR);
}

static int do_rename(struct fs_req *r, uint64_t newdir, unsigned flags)
{
	struct fs_nodes *t = &r->fs->nodes;
	struct fs_node *from, *to;
	const char *a, *b;
	int ret;

	if (!fs_take_name(r, &a) || !fs_take_name(r, &b) || (flags & ~(RENAME_NOREPLACE | RENAME_EXCHANGE)))
		return -EINVAL;
	ret = fs_node_get(t, r->h.nodeid, &from);
	if (ret)
		return ret;
	ret = fs_node_get(t, newdir, &to);
	if (!ret) {
		ret = renameat2(from->fd, a, to->fd, b, flags) < 0 ? -errno : 0;
		if (!ret)
			fs_node_renamed(t, to, b);
		if (!ret && (flags & RENAME_EXCHANGE))
			fs_node_renamed(t, from, a);
		fs_node_put(t, to);
	}
	fs_node_put(t, from);
	return ret;
}

int fs_op_rename(struct fs_req *r)
{
	const struct fuse_rename_in *in = fs_take(r, sizeof(*in));

	return in ? do_rename(r, in->newdir, 0) : -EINVAL;
}

int fs_op_rename2(struct fs_req *r)
{
	const struct fuse_rename2_in *in = fs_take(r, sizeof(*in));

	return in ? do_rename(r, in->newdir, in->flags) : -EINVAL;
}

int fs_op_link(struct fs_req *r)
{
	const struct fuse_link_in *in = fs_take(r, sizeof(*in));
	struct fs_nodes *t = &r->fs->nodes;
	struct fs_node *dir, *old;
	const char *name;
	char number[16];
	int ret;

	if (!in || !fs_take_name(r, &name))
		return -EINVAL;
	ret = fs_node_get(t, r->h.nodeid, &dir);
	if (ret)
		return ret;
	ret = fs_node_get(t, in->oldnodeid, &old);
	if (!ret) {
		snprintf(number, sizeof(number), "%d", old->fd);
		ret = linkat(r->fs->cfg.proc, number, dir->fd, name, AT_SYMLINK_FOLLOW) < 0 ? -errno : 0;
		fs_node_put(t, old);
	}
	if (!ret)
		ret = reply_entry(r, dir, name);
	fs_node_put(t, dir);
	return ret;
}

int fs_op_readlink(struct fs_req *r)
{
	struct fs_node *n;
	ssize_t len;
	int ret = fs_node_get(&r->fs->nodes, r->h.nodeid, &n);

	if (ret)
		return ret;
	len = readlinkat(n->fd, "", (char *)r->out, r->max < PATH_MAX ? r->max : PATH_MAX);
	ret = len < 0 ? -errno : (int)len;
	fs_node_put(&r->fs->nodes, n);
	return ret;
}

/* Opens what is there under the name, or makes it. Only a new file is opened by name: what exists may be a device. */
static int create_or_open(struct fs_req *r, struct fs_node *dir, const char *name, int flags, mode_t mode)
{
	int fd;

	fs_become(r);
	fd = openat(dir->fd, name, flags | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC | O_NOCTTY, safe_mode(mode) & 07777);
	fd = fd < 0 ? -errno : fd;
	fs_become_self(r);
	return fd;
}

#define OPEN_FLAGS (O_ACCMODE | O_APPEND | O_TRUNC | O_SYNC | O_DSYNC)

int fs_op_create(struct fs_req *r)
{
	const struct fuse_create_in *in = fs_take(r, sizeof(*in));
	struct { struct fuse_entry_out e; struct fuse_open_out o; } out = {0};
	struct fs_nodes *t = &r->fs->nodes;
	struct fs_node *dir, *n = NULL;
	struct stat st;
	const char *name;
	int ret, fd;

	if (!in || !fs_take_name(r, &name) || r->max < sizeof(out))
		return -EINVAL;
	ret = fs_node_get(t, r->h.nodeid, &dir);
	if (ret)
		return ret;
	fd = create_or_open(r, dir, name, (int)in->flags & OPEN_FLAGS, in->mode);
	ret = fd == -EEXIST && !(in->flags & O_EXCL) ? 0 : fd < 0 ? fd : 0;
	if (!ret)
		ret = fs_node_lookup(t, dir, name, &n, &st);
	fs_node_put(t, dir);
	if (!ret && fd < 0)
		fd = ret = n->type == S_IFREG ? fs_open_node(r->fs, n, (int)in->flags & OPEN_FLAGS) : -EEXIST;
	if (ret >= 0)
		ret = fs_handle_add(r->fs, n, fd, false, &out.o.fh);
	if (!ret) {
		fs_entry_fill(r->fs, n, &st, &out.e);
		ret = fs_reply(r, &out, sizeof(out));
	} else {
		if (fd >= 0)
			close(fd);
		if (n)
			fs_node_forget(t, n->id, 1);
	}
	if (n)
		fs_node_put(t, n);
	return ret;
}
