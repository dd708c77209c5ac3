/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Inside of fs/: nodes, handles, a request under way. Never included from outside (tests excepted).
 */
#ifndef FS_PRIVATE_H
#define FS_PRIVATE_H

#include <linux/fuse.h>
#include <pthread.h>
#include <sys/stat.h>

#include "fs/fs.h"

#define FS_MAX_NODES (1u << 19)
#define FS_MAX_DEPTH 1024       /* of directories, when a closed node is opened again by its names */
#define FS_MAX_HANDLES 8192
#define FS_HASH 16384
#define FS_MAX_WRITE (1u << 20)
#define FS_VALID_SEC 1          /* how long the guest may believe a name or an attribute: the host changes files too */

/*
 * A file or directory the guest knows. `fd` (O_PATH) is a cache: the least recently used are closed when there are too many,
 * and opened again by parent and name, if they still lead to the same file.
 *
 *   lookups   what the guest holds (replies minus FORGET)        pins      threads and handles that use fd now
 *   children  nodes whose parent this is                         all three 0: the node goes
 */
struct fs_node {
	uint64_t id;
	uint64_t generation;              /* tells apart nodes that have the same id one after the other; constant */
	dev_t dev;
	ino_t ino;
	mode_t type;
	int fd;
	uint32_t pins, children;
	uint64_t lookups;
	struct fs_node *parent;
	char *name;                       /* in parent; NULL: root */
	struct fs_node *hash_next;
	struct fs_node *newer, *older;    /* among nodes with a descriptor and no pin */
};

struct fs_nodes {
	pthread_mutex_t lock;
	struct fs_node **slot;            /* by id; FS_MAX_NODES places */
	uint32_t used, free;              /* slots ever used; head of the free list, 0 = empty (kept in next[]) */
	uint32_t *next;
	uint64_t generation;
	struct fs_node *hash[FS_HASH];
	struct fs_node lru;               /* ring: lru.newer is the oldest */
	unsigned open, max_open;
};

struct fs_handle {
	int fd;                           /* -1: free */
	bool dir, closing;
	uint32_t refs;
	struct fs_node *node;             /* pinned */
	pthread_mutex_t position;         /* directories: around seek and read */
};

struct fs {
	struct fs_config cfg;
	struct fs_nodes nodes;
	pthread_mutex_t handles_lock;
	struct fs_handle *handle;
	unsigned max_handles, next_handle;
	uint32_t own_uid, own_gid;        /* as the server sees its own files */
	int sync_fd;                      /* the root, opened for real: syncfs */
};

/* A request under way. arg is a private copy: nobody else can change it. */
struct fs_req {
	struct fs *fs;
	struct fuse_in_header h;
	const uint8_t *arg;
	size_t len;
	uint8_t *out;                     /* behind the header of the reply */
	size_t max;
};

/* An operation: length of what it wrote to r->out, or -errno. */
typedef int fs_op(struct fs_req *r);
#define FS_NO_REPLY (-0x10000)

fs_op fs_op_init, fs_op_destroy, fs_op_forget, fs_op_batch_forget, fs_op_syncfs, fs_op_statfs, fs_op_ignore;
fs_op fs_op_lookup, fs_op_symlink, fs_op_mknod, fs_op_mkdir, fs_op_unlink, fs_op_rmdir, fs_op_rename, fs_op_rename2,
	fs_op_link, fs_op_create, fs_op_readlink;
fs_op fs_op_getattr, fs_op_setattr, fs_op_getxattr, fs_op_listxattr, fs_op_setxattr, fs_op_removexattr;
fs_op fs_op_open, fs_op_read, fs_op_write, fs_op_release, fs_op_flush, fs_op_fsync, fs_op_fallocate, fs_op_lseek, fs_op_copy;
fs_op fs_op_opendir, fs_op_readdir, fs_op_readdirplus, fs_op_releasedir, fs_op_fsyncdir;

/* request.c: takes n bytes, or a name that is safe to look up, from the front of the argument. NULL / false: not there. */
const void *fs_take(struct fs_req *r, size_t n);
bool fs_take_name(struct fs_req *r, const char **name);
bool fs_take_string(struct fs_req *r, const char **s, size_t max);
/* Copies a reply. */
int fs_reply(struct fs_req *r, const void *p, size_t n);
void fs_attr_fill(const struct fs *fs, const struct stat *st, struct fuse_attr *a);
/* Opens the file of a pinned node for real. Regular files and directories only: opening anything else has effects. */
int fs_open_node(struct fs *fs, const struct fs_node *n, int flags);
/* Around calls that make files, so that they belong to whoever asked in the guest (only if the server may). */
void fs_become(const struct fs_req *r);
void fs_become_self(const struct fs_req *r);

/* node.c */
int fs_nodes_init(struct fs_nodes *t, int root, unsigned max_open);
void fs_nodes_fini(struct fs_nodes *t);
void fs_nodes_reset(struct fs_nodes *t);
/* Finds a node by number, its descriptor open, and pins it. 0, -ENOENT, -ESTALE, or what opening said. */
int fs_node_get(struct fs_nodes *t, uint64_t id, struct fs_node **out);
void fs_node_pin(struct fs_nodes *t, struct fs_node *n);
void fs_node_put(struct fs_nodes *t, struct fs_node *n);
/* Looks a name up in a pinned directory and counts a lookup for the guest; *out is pinned. */
int fs_node_lookup(struct fs_nodes *t, struct fs_node *dir, const char *name, struct fs_node **out, struct stat *st);
/* A file has got another name: what is now there is remembered under it, if the guest knows it. */
void fs_node_renamed(struct fs_nodes *t, struct fs_node *dir, const char *name);
void fs_node_forget(struct fs_nodes *t, uint64_t id, uint64_t count);

/* handle.c: fd and a pin of node pass to the handle. */
int fs_handle_add(struct fs *fs, struct fs_node *node, int fd, bool dir, uint64_t *fh);
struct fs_handle *fs_handle_get(struct fs *fs, uint64_t fh, bool dir);
void fs_handle_put(struct fs *fs, struct fs_handle *h);
void fs_handle_close(struct fs *fs, uint64_t fh, bool dir);
void fs_handles_reset(struct fs *fs);

/* op_name.c: fills the reply that introduces a node. */
void fs_entry_fill(const struct fs *fs, const struct fs_node *n, const struct stat *st, struct fuse_entry_out *e);

#endif
