/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A shared folder's server: the guest's file requests (FUSE messages) carried out on a directory of the host.
 *
 * Invariant: the guest names files by node number and single names only; a name is never "." or "..", holds no slash, and is
 * looked up beneath a directory that is itself beneath the root, symbolic links not followed. So no request reaches outside.
 * Everything a guest can make the server hold is bounded: nodes, descriptors, handles, bytes of a message.
 * Locking: fs_request() may be called from several threads, each with buffers of its own.
 * Spec: virtio 1.2, 5.11; linux/fuse.h has the messages.
 */
#ifndef FS_FS_H
#define FS_FS_H

#include <sys/types.h>

#include "base/types.h"

struct fs;

struct fs_config {
	int root;            /* O_PATH descriptor of the directory; fs_create() takes it over */
	int proc;            /* /proc/self/fd; likewise */
	bool read_only;
	bool whole_ids;      /* the server may give files to anybody (it is root): owners pass unchanged */
	uint32_t uid, gid;   /* otherwise: what the guest sees in place of the server's own user and group */
	unsigned max_fds;    /* descriptors the server may hold open for the guest */
};

/* 0 or -errno; on failure the descriptors stay the caller's. */
int fs_create(const struct fs_config *cfg, struct fs **out);
void fs_destroy(struct fs *fs);

/*
 * Carries out one request of `len` bytes and writes the reply, at most `max` bytes, to out. The length of the reply, 0 if there
 * is none, or -EPROTO if the bytes are no request at all (nothing has then been done). May block as long as the host's files do.
 */
int fs_request(struct fs *fs, const void *in, size_t len, void *out, size_t max);

/* Forgets what the guest held: nodes, open files. Requests under way finish. */
void fs_reset(struct fs *fs);

#endif
