/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Operations on the folder as a whole: beginning and end of a mount, forgetting, statfs, sync.
 */
#include <errno.h>
#include <string.h>
#include <sys/statfs.h>
#include <unistd.h>

#include "fs/private.h"

/* What is offered; the guest gets what it asked for among these. Not offered: write-back caching (the host's own changes
 * would be lost), POSIX ACLs, security labels, DAX (guest memory and host files stay apart). */
#define OFFERED (FUSE_ASYNC_READ | FUSE_ATOMIC_O_TRUNC | FUSE_BIG_WRITES | FUSE_AUTO_INVAL_DATA | FUSE_DO_READDIRPLUS | \
		 FUSE_READDIRPLUS_AUTO | FUSE_ASYNC_DIO | FUSE_PARALLEL_DIROPS | FUSE_HANDLE_KILLPRIV | FUSE_MAX_PAGES)

int fs_op_init(struct fs_req *r)
{
	struct fuse_init_in in = {0};
	struct fuse_init_out out = {.major = FUSE_KERNEL_VERSION, .minor = FUSE_KERNEL_MINOR_VERSION};
	size_t n = r->len < sizeof(in) ? r->len : sizeof(in);
	const void *p = fs_take(r, n);

	if (n < 16)
		return -EINVAL;
	memcpy(&in, p, n);
	if (in.major < FUSE_KERNEL_VERSION || (in.major == FUSE_KERNEL_VERSION && in.minor < 31))
		return -EPROTO;
	fs_reset(r->fs);
	/* A newer guest reads our version and asks again with it. */
	if (in.major > FUSE_KERNEL_VERSION)
		return fs_reply(r, &out, sizeof(out));
	if (out.minor > in.minor)
		out.minor = in.minor;
	out.max_readahead = in.max_readahead;
	out.flags = in.flags & OFFERED;
	out.max_background = 64;
	out.congestion_threshold = 48;
	out.max_write = FS_MAX_WRITE;
	out.max_pages = FS_MAX_WRITE / PAGE_SIZE;
	out.time_gran = 1;
	return fs_reply(r, &out, sizeof(out));
}

int fs_op_destroy(struct fs_req *r)
{
	fs_reset(r->fs);
	return 0;
}

int fs_op_forget(struct fs_req *r)
{
	const struct fuse_forget_in *in = fs_take(r, sizeof(*in));

	if (in)
		fs_node_forget(&r->fs->nodes, r->h.nodeid, in->nlookup);
	return FS_NO_REPLY;
}

int fs_op_batch_forget(struct fs_req *r)
{
	const struct fuse_batch_forget_in *in = fs_take(r, sizeof(*in));
	const struct fuse_forget_one *one;

	/* Bounded by the message, not by the count it claims. */
	for (uint32_t i = 0; in && i < in->count && (one = fs_take(r, sizeof(*one))); i++)
		fs_node_forget(&r->fs->nodes, one->nodeid, one->nlookup);
	return FS_NO_REPLY;
}

int fs_op_ignore(struct fs_req *r)
{
	(void)r;
	return FS_NO_REPLY;
}

int fs_op_syncfs(struct fs_req *r)
{
	return syncfs(r->fs->sync_fd) < 0 ? -errno : 0;
}

int fs_op_statfs(struct fs_req *r)
{
	struct fuse_statfs_out out = {0};
	struct statfs sf;
	struct fs_node *n;
	int err = fs_node_get(&r->fs->nodes, r->h.nodeid, &n);

	if (err)
		return err;
	err = fstatfs(n->fd, &sf) < 0 ? -errno : 0;
	fs_node_put(&r->fs->nodes, n);
	if (err)
		return err;
	out.st = (struct fuse_kstatfs){
		.blocks = sf.f_blocks, .bfree = sf.f_bfree, .bavail = sf.f_bavail, .files = sf.f_files, .ffree = sf.f_ffree,
		.bsize = (uint32_t)sf.f_bsize, .frsize = (uint32_t)sf.f_frsize, .namelen = (uint32_t)sf.f_namelen,
	};
	return fs_reply(r, &out, sizeof(out));
}
