/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Open files and directories of a shared folder.
 *
 * Invariant: a handle in use has a descriptor and a pin of its node; it goes when it is closing and the last request that uses
 * it has finished. A number the guest makes up finds nothing, or a file it has open anyway.
 * Locking: fs->handles_lock around the table; a handle's fd is constant while it has a reference.
 */
#include "fs/private.h"

#include <errno.h>
#include <unistd.h>

int fs_handle_add(struct fs *fs, struct fs_node *node, int fd, bool dir, uint64_t *fh)
{
	int err = -ENFILE;

	pthread_mutex_lock(&fs->handles_lock);
	for (unsigned i = 0; i < fs->max_handles && err; i++) {
		unsigned at = (fs->next_handle + i) % fs->max_handles;
		struct fs_handle *h = &fs->handle[at];

		if (h->fd >= 0)
			continue;
		h->fd = fd;
		h->dir = dir;
		h->closing = false;
		h->refs = 0;
		h->node = node;
		fs->next_handle = at + 1;
		*fh = at;
		err = 0;
	}
	pthread_mutex_unlock(&fs->handles_lock);
	if (!err)
		fs_node_pin(&fs->nodes, node);
	return err;
}

/* Table locked: closes the handle if nothing keeps it. The node to be unpinned once the lock is free, or NULL. */
static struct fs_node *settle(struct fs_handle *h)
{
	if (!h->closing || h->refs)
		return NULL;
	close(h->fd);
	h->fd = -1;
	return h->node;
}

struct fs_handle *fs_handle_get(struct fs *fs, uint64_t fh, bool dir)
{
	struct fs_handle *h = NULL;

	pthread_mutex_lock(&fs->handles_lock);
	if (fh < fs->max_handles && fs->handle[fh].fd >= 0 && !fs->handle[fh].closing && fs->handle[fh].dir == dir) {
		h = &fs->handle[fh];
		h->refs++;
	}
	pthread_mutex_unlock(&fs->handles_lock);
	return h;
}

void fs_handle_put(struct fs *fs, struct fs_handle *h)
{
	struct fs_node *node;

	pthread_mutex_lock(&fs->handles_lock);
	h->refs--;
	node = settle(h);
	pthread_mutex_unlock(&fs->handles_lock);
	if (node)
		fs_node_put(&fs->nodes, node);
}

void fs_handle_close(struct fs *fs, uint64_t fh, bool dir)
{
	struct fs_node *node = NULL;

	pthread_mutex_lock(&fs->handles_lock);
	if (fh < fs->max_handles && fs->handle[fh].fd >= 0 && fs->handle[fh].dir == dir) {
		fs->handle[fh].closing = true;
		node = settle(&fs->handle[fh]);
	}
	pthread_mutex_unlock(&fs->handles_lock);
	if (node)
		fs_node_put(&fs->nodes, node);
}

void fs_handles_reset(struct fs *fs)
{
	for (unsigned i = 0; i < fs->max_handles; i++) {
		fs_handle_close(fs, i, false);
		fs_handle_close(fs, i, true);
	}
}
