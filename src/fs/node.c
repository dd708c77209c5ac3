/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The nodes of a shared folder: which files the guest knows, and descriptors for those it uses.
 *
 * Invariant: a node's fd, if open, is an O_PATH descriptor of the file with its device, number and type. Nodes with a descriptor
 * and no pin are in the ring, oldest at lru.newer; only those are closed. The root is never closed and never goes.
 * Locking: t->lock around everything; a pinned node's fd, type and id may be read without it.
 * Rejected: a descriptor for each node for as long as the guest knows it. A guest that walks a large tree remembers hundreds of
 * thousands of files, more than an ordinary user may hold open.
 */
#include "fs/private.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

static int open_beneath(int dir, const char *name)
{
	struct open_how how = {.flags = O_PATH | O_NOFOLLOW | O_CLOEXEC, .resolve = RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS};
	long fd = syscall(SYS_openat2, dir, name, &how, sizeof(how));

	return fd < 0 ? -errno : (int)fd;
}

static struct fs_node **bucket(struct fs_nodes *t, dev_t dev, ino_t ino)
{
	uint64_t h = ((uint64_t)ino ^ (uint64_t)dev << 32) * 0x9e3779b97f4a7c15ull;

	return &t->hash[h >> 50];
}
static_assert(FS_HASH == 1u << 14, "bucket() takes 14 bits");

static void ring_remove(struct fs_node *n)
{
	if (!n->newer)
		return;
	n->newer->older = n->older;
	n->older->newer = n->newer;
	n->newer = n->older = NULL;
}

static void ring_add(struct fs_nodes *t, struct fs_node *n)
{
	n->older = t->lru.older;
	n->newer = &t->lru;
	n->older->newer = n;
	t->lru.older = n;
}

static void node_close(struct fs_nodes *t, struct fs_node *n)
{
	ring_remove(n);
	close(n->fd);
	n->fd = -1;
	t->open--;
}

/* Closes the oldest descriptors until there is room for another one. */
static void make_room(struct fs_nodes *t)
{
	while (t->open >= t->max_open && t->lru.newer != &t->lru)
		node_close(t, t->lru.newer);
}

static void unhash(struct fs_nodes *t, struct fs_node *n)
{
	for (struct fs_node **p = bucket(t, n->dev, n->ino); *p; p = &(*p)->hash_next) {
		if (*p == n) {
			*p = n->hash_next;
			return;
		}
	}
}

static void unpin(struct fs_nodes *t, struct fs_node *n);

/* Frees what nobody needs any more: the node, then perhaps its parent, and so on. */
static void collect(struct fs_nodes *t, struct fs_node *n)
{
	while (n && n->parent && !n->lookups && !n->pins && !n->children) {
		struct fs_node *parent = n->parent;

		if (n->fd >= 0)
			node_close(t, n);
		unhash(t, n);
		t->slot[n->id] = NULL;
		t->next[n->id] = t->free;
		t->free = (uint32_t)n->id;
		free(n->name);
		free(n);
		parent->children--;
		n = parent;
	}
}

static void pin(struct fs_node *n)
{
	n->pins++;
	ring_remove(n);
}

static void unpin(struct fs_nodes *t, struct fs_node *n)
{
	if (--n->pins == 0 && n->parent && n->fd >= 0)
		ring_add(t, n);
	collect(t, n);
}

/* Opens a node that was closed, by its names from the nearest ancestor that is open. */
static int node_open(struct fs_nodes *t, struct fs_node *n, unsigned depth)
{
	struct stat st;
	int err, fd;

	if (n->fd >= 0)
		return 0;
	if (depth == FS_MAX_DEPTH)
		return -ESTALE;
	err = node_open(t, n->parent, depth + 1);
	if (err)
		return err;
	pin(n->parent);
	make_room(t);
	fd = open_beneath(n->parent->fd, n->name);
	unpin(t, n->parent);
	if (fd < 0)
		return fd == -ENOENT || fd == -ENOTDIR ? -ESTALE : fd;
	if (fstat(fd, &st) < 0 || st.st_dev != n->dev || st.st_ino != n->ino || (st.st_mode & S_IFMT) != n->type) {
		close(fd);
		return -ESTALE;
	}
	n->fd = fd;
	t->open++;
	if (!n->pins)
		ring_add(t, n);
	return 0;
}

int fs_nodes_init(struct fs_nodes *t, int root, unsigned max_open)
{
	struct fs_node *n = calloc(1, sizeof(*n));
	struct stat st;

	memset(t, 0, sizeof(*t));
	t->slot = calloc(FS_MAX_NODES, sizeof(*t->slot));
	t->next = calloc(FS_MAX_NODES, sizeof(*t->next));
	if (!n || !t->slot || !t->next || fstat(root, &st) < 0) {
		int err = n && t->slot && t->next ? -errno : -ENOMEM;

		free(n);
		free(t->slot);
		free(t->next);
		return err;
	}
	pthread_mutex_init(&t->lock, NULL);
	*n = (struct fs_node){.id = FUSE_ROOT_ID, .dev = st.st_dev, .ino = st.st_ino, .type = S_IFDIR, .fd = root};
	t->slot[FUSE_ROOT_ID] = n;
	t->used = FUSE_ROOT_ID + 1;
	t->lru.newer = t->lru.older = &t->lru;
	t->max_open = max_open;
	n->hash_next = *bucket(t, n->dev, n->ino);
	*bucket(t, n->dev, n->ino) = n;
	return 0;
}

void fs_nodes_reset(struct fs_nodes *t)
{
	pthread_mutex_lock(&t->lock);
	for (uint32_t id = FUSE_ROOT_ID + 1; id < t->used; id++)
		if (t->slot[id])
			t->slot[id]->lookups = 0;
	for (uint32_t id = FUSE_ROOT_ID + 1; id < t->used; id++)
		collect(t, t->slot[id]);
	pthread_mutex_unlock(&t->lock);
}

void fs_nodes_fini(struct fs_nodes *t)
{
	for (uint32_t id = 0; id < t->used; id++) {
		struct fs_node *n = t->slot[id];

		if (!n)
			continue;
		close(n->fd);
		free(n->name);
		free(n);
	}
	free(t->slot);
	free(t->next);
	pthread_mutex_destroy(&t->lock);
}

int fs_node_get(struct fs_nodes *t, uint64_t id, struct fs_node **out)
{
	struct fs_node *n;
	int err = -ENOENT;

	pthread_mutex_lock(&t->lock);
	n = id < t->used ? t->slot[id] : NULL;
	if (n)
		err = node_open(t, n, 0);
	if (!err) {
		pin(n);
		*out = n;
	}
	pthread_mutex_unlock(&t->lock);
	return err;
}

void fs_node_pin(struct fs_nodes *t, struct fs_node *n)
{
	pthread_mutex_lock(&t->lock);
	pin(n);
	pthread_mutex_unlock(&t->lock);
}

void fs_node_put(struct fs_nodes *t, struct fs_node *n)
{
	pthread_mutex_lock(&t->lock);
	unpin(t, n);
	pthread_mutex_unlock(&t->lock);
}

/* Remembers under which name a node was seen last. No memory: it keeps the old name, and is stale when closed. */
static void set_name(struct fs_nodes *t, struct fs_node *n, struct fs_node *dir, const char *name)
{
	struct fs_node *before = n->parent;
	char *copy;

	if (n->id == FUSE_ROOT_ID || n == dir || (before == dir && !strcmp(n->name, name)))
		return;
	copy = strdup(name);
	if (!copy)
		return;
	free(n->name);
	n->name = copy;
	n->parent = dir;
	dir->children++;
	if (before) {
		before->children--;
		collect(t, before);
	}
}

static struct fs_node *find(struct fs_nodes *t, const struct stat *st)
{
	for (struct fs_node *n = *bucket(t, st->st_dev, st->st_ino); n; n = n->hash_next)
		if (n->dev == st->st_dev && n->ino == st->st_ino && n->type == (st->st_mode & S_IFMT))
			return n;
	return NULL;
}

static struct fs_node *node_new(struct fs_nodes *t, struct fs_node *dir, const char *name, const struct stat *st)
{
	struct fs_node *n = calloc(1, sizeof(*n));

	if (n)
		n->name = strdup(name);
	if (!n || !n->name || (!t->free && t->used == FS_MAX_NODES)) {
		if (n)
			free(n->name);
		free(n);
		return NULL;
	}
	n->id = t->free ? t->free : t->used++;
	t->free = t->next[n->id];
	t->next[n->id] = 0;
	n->dev = st->st_dev;
	n->ino = st->st_ino;
	n->type = st->st_mode & S_IFMT;
	n->fd = -1;
	n->parent = dir;
	dir->children++;
	n->hash_next = *bucket(t, n->dev, n->ino);
	*bucket(t, n->dev, n->ino) = n;
	t->slot[n->id] = n;
	n->generation = ++t->generation;
	return n;
}

int fs_node_lookup(struct fs_nodes *t, struct fs_node *dir, const char *name, struct fs_node **out, struct stat *st)
{
	int fd = open_beneath(dir->fd, name);
	struct fs_node *n;

	if (fd < 0)
		return fd;
	if (fstat(fd, st) < 0) {
		int err = -errno;

		close(fd);
		return err;
	}
	pthread_mutex_lock(&t->lock);
	n = find(t, st);
	if (n)
		set_name(t, n, dir, name);
	else
		n = node_new(t, dir, name, st);
	if (n) {
		pin(n);
		n->lookups++;
		if (n->fd < 0) {
			make_room(t);
			n->fd = fd;
			t->open++;
			fd = -1;
		}
	}
	pthread_mutex_unlock(&t->lock);
	if (fd >= 0)
		close(fd);
	*out = n;
	return n ? 0 : -ENFILE;
}

void fs_node_renamed(struct fs_nodes *t, struct fs_node *dir, const char *name)
{
	struct fs_node *n;
	struct stat st;

	if (fstatat(dir->fd, name, &st, AT_SYMLINK_NOFOLLOW) < 0)
		return;
	pthread_mutex_lock(&t->lock);
	n = find(t, &st);
	if (n)
		set_name(t, n, dir, name);
	pthread_mutex_unlock(&t->lock);
}

void fs_node_forget(struct fs_nodes *t, uint64_t id, uint64_t count)
{
	struct fs_node *n;

	pthread_mutex_lock(&t->lock);
	n = id < t->used ? t->slot[id] : NULL;
	if (n) {
		n->lookups -= count < n->lookups ? count : n->lookups;
		collect(t, n);
	}
	pthread_mutex_unlock(&t->lock);
}
