/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One request of the guest: checked, dispatched by table, answered. And what every operation uses.
 *
 * Invariant: the header's length is the message's, the argument is taken piece by piece with a check each, and the reply
 * never exceeds what the guest has room for. Nothing read here can change afterwards: the message is a private copy.
 * Locking: none; fs.h says what callers may do.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "fs/private.h"

/* What an operation does to the host, for read-only folders. */
enum { CHANGES = 1 };

static const struct {
	fs_op *run;
	unsigned flags;
} table[] = {
	[FUSE_LOOKUP] = {fs_op_lookup, 0},                    /* 1 */
	[FUSE_FORGET] = {fs_op_forget, 0},                    /* 2, no reply */
	[FUSE_GETATTR] = {fs_op_getattr, 0},                  /* 3 */
	[FUSE_SETATTR] = {fs_op_setattr, CHANGES},            /* 4 */
	[FUSE_READLINK] = {fs_op_readlink, 0},                /* 5 */
	[FUSE_SYMLINK] = {fs_op_symlink, CHANGES},            /* 6 */
	[FUSE_MKNOD] = {fs_op_mknod, CHANGES},                /* 8 */
	[FUSE_MKDIR] = {fs_op_mkdir, CHANGES},                /* 9 */
	[FUSE_UNLINK] = {fs_op_unlink, CHANGES},              /* 10 */
	[FUSE_RMDIR] = {fs_op_rmdir, CHANGES},                /* 11 */
	[FUSE_RENAME] = {fs_op_rename, CHANGES},              /* 12 */
	[FUSE_LINK] = {fs_op_link, CHANGES},                  /* 13 */
	[FUSE_OPEN] = {fs_op_open, 0},                        /* 14; looks at the flags itself */
	[FUSE_READ] = {fs_op_read, 0},                        /* 15 */
	[FUSE_WRITE] = {fs_op_write, CHANGES},                /* 16 */
	[FUSE_STATFS] = {fs_op_statfs, 0},                    /* 17 */
	[FUSE_RELEASE] = {fs_op_release, 0},                  /* 18 */
	[FUSE_FSYNC] = {fs_op_fsync, 0},                      /* 20 */
	[FUSE_SETXATTR] = {fs_op_setxattr, CHANGES},          /* 21 */
	[FUSE_GETXATTR] = {fs_op_getxattr, 0},                /* 22 */
	[FUSE_LISTXATTR] = {fs_op_listxattr, 0},              /* 23 */
	[FUSE_REMOVEXATTR] = {fs_op_removexattr, CHANGES},    /* 24 */
	[FUSE_FLUSH] = {fs_op_flush, 0},                      /* 25 */
	[FUSE_INIT] = {fs_op_init, 0},                        /* 26 */
	[FUSE_OPENDIR] = {fs_op_opendir, 0},                  /* 27 */
	[FUSE_READDIR] = {fs_op_readdir, 0},                  /* 28 */
	[FUSE_RELEASEDIR] = {fs_op_releasedir, 0},            /* 29 */
	[FUSE_FSYNCDIR] = {fs_op_fsyncdir, 0},                /* 30 */
	[FUSE_CREATE] = {fs_op_create, CHANGES},              /* 35 */
	[FUSE_INTERRUPT] = {fs_op_ignore, 0},                 /* 36, no reply: every request is answered anyway */
	[FUSE_DESTROY] = {fs_op_destroy, 0},                  /* 38 */
	[FUSE_BATCH_FORGET] = {fs_op_batch_forget, 0},        /* 42, no reply */
	[FUSE_FALLOCATE] = {fs_op_fallocate, CHANGES},        /* 43 */
	[FUSE_READDIRPLUS] = {fs_op_readdirplus, 0},          /* 44 */
	[FUSE_RENAME2] = {fs_op_rename2, CHANGES},            /* 45 */
	[FUSE_LSEEK] = {fs_op_lseek, 0},                      /* 46 */
	[FUSE_COPY_FILE_RANGE] = {fs_op_copy, CHANGES},       /* 47 */
	[FUSE_SYNCFS] = {fs_op_syncfs, 0},                    /* 50 */
	/* Absent: locks and ioctl (the guest's kernel then does locks itself), access (it checks permissions), poll, DAX. */
};

int fs_request(struct fs *fs, const void *in, size_t len, void *out, size_t max)
{
	struct fuse_out_header *oh = out;
	struct fs_req r = {.fs = fs};
	int n;

	if (len < sizeof(r.h))
		return -EPROTO;
	memcpy(&r.h, in, sizeof(r.h));
	if (r.h.len != len)
		return -EPROTO;
	r.arg = (const uint8_t *)in + sizeof(r.h);
	r.len = len - sizeof(r.h);
	if (max >= sizeof(*oh)) {
		r.out = (uint8_t *)(oh + 1);
		r.max = max - sizeof(*oh);
	}
	if (r.h.opcode >= nitems(table) || !table[r.h.opcode].run)
		n = -ENOSYS;
	else if ((table[r.h.opcode].flags & CHANGES) && fs->cfg.read_only)
		n = -EROFS;
	else
		n = table[r.h.opcode].run(&r);
	if (n == FS_NO_REPLY || max < sizeof(*oh))
		return 0;
	*oh = (struct fuse_out_header){.unique = r.h.unique, .error = n < 0 ? n : 0};
	oh->len = (uint32_t)(sizeof(*oh) + (n > 0 ? (size_t)n : 0));
	return (int)oh->len;
}

const void *fs_take(struct fs_req *r, size_t n)
{
	const void *p = r->arg;

	if (n > r->len)
		return NULL;
	r->arg += n;
	r->len -= n;
	return p;
}

bool fs_take_string(struct fs_req *r, const char **s, size_t max)
{
	const void *end = memchr(r->arg, 0, r->len);
	size_t n;

	if (!end)
		return false;
	n = (size_t)((const uint8_t *)end - r->arg);
	*s = fs_take(r, n + 1);
	return n <= max;
}

bool fs_take_name(struct fs_req *r, const char **name)
{
	/* Whether it is too long is for the host's file system to say: it has an error of its own for that. */
	return fs_take_string(r, name, SIZE_MAX) && **name && strcmp(*name, ".") && strcmp(*name, "..") && !strchr(*name, '/');
}

int fs_reply(struct fs_req *r, const void *p, size_t n)
{
	if (n > r->max)
		return -EINVAL;
	memcpy(r->out, p, n);
	return (int)n;
}

void fs_attr_fill(const struct fs *fs, const struct stat *st, struct fuse_attr *a)
{
	*a = (struct fuse_attr){
		.ino = st->st_ino, .size = (uint64_t)st->st_size, .blocks = (uint64_t)st->st_blocks,
		.atime = (uint64_t)st->st_atim.tv_sec, .atimensec = (uint32_t)st->st_atim.tv_nsec,
		.mtime = (uint64_t)st->st_mtim.tv_sec, .mtimensec = (uint32_t)st->st_mtim.tv_nsec,
		.ctime = (uint64_t)st->st_ctim.tv_sec, .ctimensec = (uint32_t)st->st_ctim.tv_nsec,
		.mode = st->st_mode, .nlink = (uint32_t)st->st_nlink, .uid = st->st_uid, .gid = st->st_gid,
		.rdev = (uint32_t)st->st_rdev, .blksize = (uint32_t)st->st_blksize,
	};
	if (fs->cfg.whole_ids)
		return;
	if (st->st_uid == fs->own_uid)
		a->uid = fs->cfg.uid;
	if (st->st_gid == fs->own_gid)
		a->gid = fs->cfg.gid;
}

int fs_open_node(struct fs *fs, const struct fs_node *n, int flags)
{
	char number[16];
	int fd;

	if (n->type != S_IFREG && n->type != S_IFDIR)
		return n->type == S_IFLNK ? -ELOOP : -EPERM;
	/* The entry under /proc leads to the very file of the descriptor, whatever its name is now. */
	snprintf(number, sizeof(number), "%d", n->fd);
	fd = openat(fs->cfg.proc, number, flags | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
	return fd < 0 ? -errno : fd;
}

/* The file system's user and group belong to a thread; losing user 0 also drops the rights over others' files. */
void fs_become(const struct fs_req *r)
{
	if (!r->fs->cfg.whole_ids)
		return;
	syscall(SYS_setfsgid, r->h.gid);
	syscall(SYS_setfsuid, r->h.uid);
}

void fs_become_self(const struct fs_req *r)
{
	if (!r->fs->cfg.whole_ids)
		return;
	syscall(SYS_setfsuid, r->fs->own_uid);
	syscall(SYS_setfsgid, r->fs->own_gid);
}

int fs_create(const struct fs_config *cfg, struct fs **out)
{
	struct fs *fs = calloc(1, sizeof(*fs));
	int err = -ENOMEM;

	if (!fs)
		return err;
	fs->cfg = *cfg;
	fs->own_uid = geteuid();
	fs->own_gid = getegid();
	fs->max_handles = cfg->max_fds / 4 < FS_MAX_HANDLES ? cfg->max_fds / 4 : FS_MAX_HANDLES;
	fs->handle = calloc(fs->max_handles, sizeof(*fs->handle));
	if (!fs->handle)
		goto fail;
	pthread_mutex_init(&fs->handles_lock, NULL);
	for (unsigned i = 0; i < fs->max_handles; i++) {
		fs->handle[i].fd = -1;
		pthread_mutex_init(&fs->handle[i].position, NULL);
	}
	fs->sync_fd = openat(cfg->root, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fs->sync_fd < 0) {
		err = -errno;
		goto fail;
	}
	/* A handle pins its node's descriptor too: half of the budget is theirs, the rest a cache. */
	err = fs_nodes_init(&fs->nodes, cfg->root, cfg->max_fds / 2);
	if (!err) {
		*out = fs;
		return 0;
	}
	close(fs->sync_fd);
fail:
	free(fs->handle);
	free(fs);
	return err;
}

void fs_reset(struct fs *fs)
{
	fs_handles_reset(fs);
	fs_nodes_reset(&fs->nodes);
}

void fs_destroy(struct fs *fs)
{
	fs_reset(fs);
	fs_nodes_fini(&fs->nodes);
	close(fs->sync_fd);
	close(fs->cfg.proc);
	free(fs->handle);
	free(fs);
}
