/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The guest's side of a shared folder for unit tests and fuzzers: FUSE messages in, replies out, against a temporary directory
 * with a file outside of it that no request may reach.
 *
 *   TOP/outside        "secret"         TOP/share/   the folder
 */
#ifndef TESTS_LIB_FUSE_CLIENT_H
#define TESTS_LIB_FUSE_CLIENT_H

#include <errno.h>
#include <fcntl.h>
#include <linux/fuse.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "fs/fs.h"

#define CLIENT_MAX (1u << 21)

struct client {
	struct fs *fs;
	char top[64], share[80];
	uint8_t *in, *out;
	size_t len;              /* of the message under construction */
	uint64_t unique;
	uint64_t generation;     /* of the node looked up last */
	int reply;               /* bytes behind the header, after client_send() */
};

static inline void client_path(const struct client *c, char buf[256], const char *name)
{
	snprintf(buf, 256, "%s/%s", c->share, name);
}

static inline void client_file(const char *dir, const char *name, const char *text)
{
	char path[512];
	FILE *f;

	snprintf(path, sizeof(path), "%s/%s", dir, name);
	f = fopen(path, "w");
	if (!f || fputs(text, f) < 0 || fclose(f))
		abort();
}

static inline void client_start(struct client *c, bool read_only, unsigned max_fds)
{
	struct fs_config cfg = {.read_only = read_only, .uid = 4242, .gid = 4343, .max_fds = max_fds};

	*c = (struct client){.in = malloc(CLIENT_MAX), .out = malloc(CLIENT_MAX)};
	snprintf(c->top, sizeof(c->top), "/tmp/doppel-fs-test.XXXXXX");
	if (!c->in || !c->out || !mkdtemp(c->top))
		abort();
	snprintf(c->share, sizeof(c->share), "%s/share", c->top);
	client_file(c->top, "outside", "secret");
	if (mkdir(c->share, 0755) < 0)
		abort();
	cfg.root = open(c->share, O_PATH | O_DIRECTORY);
	cfg.proc = open("/proc/self/fd", O_PATH | O_DIRECTORY);
	if (cfg.root < 0 || cfg.proc < 0 || fs_create(&cfg, &c->fs) < 0)
		abort();
}

static inline void client_stop(struct client *c)
{
	char cmd[128];

	fs_destroy(c->fs);
	snprintf(cmd, sizeof(cmd), "rm -rf %s", c->top);
	if (system(cmd))
		abort();
	free(c->in);
	free(c->out);
}

static inline void client_begin(struct client *c, uint32_t opcode, uint64_t nodeid)
{
	struct fuse_in_header h = {.opcode = opcode, .nodeid = nodeid, .unique = ++c->unique};

	memcpy(c->in, &h, sizeof(h));
	c->len = sizeof(h);
}

static inline void client_add(struct client *c, const void *p, size_t n)
{
	memcpy(c->in + c->len, p, n);
	c->len += n;
}

static inline void client_name(struct client *c, const char *name) { client_add(c, name, strlen(name) + 1); }

/* Sends; 0 or the reply's error. c->reply bytes are at client_data(). */
static inline int client_send_room(struct client *c, size_t room)
{
	struct fuse_out_header oh;
	uint32_t len = (uint32_t)c->len;
	int n;

	memcpy(c->in, &len, sizeof(len));
	n = fs_request(c->fs, c->in, c->len, c->out, room);
	if (n <= 0)
		return n;
	memcpy(&oh, c->out, sizeof(oh));
	if ((size_t)n > room || oh.len != (uint32_t)n || oh.unique != c->unique)
		abort();
	c->reply = n - (int)sizeof(oh);
	return oh.error;
}
static inline int client_send(struct client *c) { return client_send_room(c, CLIENT_MAX); }
static inline void *client_data(struct client *c) { return c->out + sizeof(struct fuse_out_header); }

static inline int client_init(struct client *c)
{
	struct fuse_init_in in = {.major = 7, .minor = 38, .flags = ~0u};

	client_begin(c, FUSE_INIT, 0);
	client_add(c, &in, sizeof(in));
	return client_send(c);
}

static inline int client_lookup(struct client *c, uint64_t dir, const char *name, uint64_t *node)
{
	struct fuse_entry_out e;
	int err;

	client_begin(c, FUSE_LOOKUP, dir);
	client_name(c, name);
	err = client_send(c);
	if (!err) {
		memcpy(&e, client_data(c), sizeof(e));
		*node = e.nodeid;
		c->generation = e.generation;
	}
	return err;
}

static inline int client_open(struct client *c, uint32_t op, uint64_t node, uint32_t flags, uint64_t *fh)
{
	struct fuse_open_in in = {.flags = flags};
	struct fuse_open_out o;
	int err;

	client_begin(c, op, node);
	client_add(c, &in, sizeof(in));
	err = client_send(c);
	if (!err) {
		memcpy(&o, client_data(c), sizeof(o));
		*fh = o.fh;
	}
	return err;
}

static inline int client_create(struct client *c, uint64_t dir, const char *name, uint32_t flags, uint64_t *node, uint64_t *fh)
{
	struct fuse_create_in in = {.flags = flags | O_CREAT, .mode = S_IFREG | 04755};
	struct { struct fuse_entry_out e; struct fuse_open_out o; } out;
	int err;

	client_begin(c, FUSE_CREATE, dir);
	client_add(c, &in, sizeof(in));
	client_name(c, name);
	err = client_send(c);
	if (!err) {
		memcpy(&out, client_data(c), sizeof(out));
		*node = out.e.nodeid;
		*fh = out.o.fh;
	}
	return err;
}

static inline int client_read(struct client *c, uint32_t op, uint64_t fh, uint64_t off, uint32_t size)
{
	struct fuse_read_in in = {.fh = fh, .offset = off, .size = size};

	client_begin(c, op, 1);
	client_add(c, &in, sizeof(in));
	return client_send(c);
}

static inline int client_write(struct client *c, uint64_t fh, uint64_t off, const void *p, uint32_t n)
{
	struct fuse_write_in in = {.fh = fh, .offset = off, .size = n};

	client_begin(c, FUSE_WRITE, 1);
	client_add(c, &in, sizeof(in));
	client_add(c, p, n);
	return client_send(c);
}

static inline void client_forget(struct client *c, uint64_t node, uint64_t n)
{
	struct fuse_forget_in in = {.nlookup = n};

	client_begin(c, FUSE_FORGET, node);
	client_add(c, &in, sizeof(in));
	(void)client_send(c);
}

#endif
