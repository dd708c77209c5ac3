/* SPDX-License-Identifier: Apache-2.0 */
/* fs/: requests on a real directory; names that try to get out; numbers the guest makes up; descriptors that must be shed. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <sys/xattr.h>

#include "fs/private.h"
#include "fuse_client.h"

static void start(struct client *c)
{
	client_start(c, false, 400);
	assert_int_equal(client_init(c), 0);
}

static void test_read_write(void **state)
{
	struct client c;
	uint64_t node = 0, fh = 0, again = 0;
	char path[256];
	struct stat st;

	(void)state;
	start(&c);
	assert_int_equal(client_create(&c, 1, "file", O_RDWR | O_EXCL, &node, &fh), 0);
	assert_int_equal(client_create(&c, 1, "file", O_RDWR | O_EXCL, &node, &again), -EEXIST);
	assert_int_equal(client_write(&c, fh, 3, "hello", 5), 0);
	assert_int_equal(client_read(&c, FUSE_READ, fh, 0, 100), 0);
	assert_int_equal(c.reply, 8);
	assert_memory_equal(client_data(&c), "\0\0\0hello", 8);
	/* Behind the end: nothing, and no error. */
	assert_int_equal(client_read(&c, FUSE_READ, fh, 1000, 100), 0);
	assert_int_equal(c.reply, 0);
	/* A set-user-id bit does not reach the host. */
	client_path(&c, path, "file");
	assert_int_equal(stat(path, &st), 0);
	assert_int_equal(st.st_mode & 07777, 0755);
	assert_int_equal(st.st_size, 8);
	/* Opening what exists through CREATE truncates when asked. */
	assert_int_equal(client_create(&c, 1, "file", O_RDWR | O_TRUNC, &node, &again), 0);
	assert_int_equal(stat(path, &st), 0);
	assert_int_equal(st.st_size, 0);
	client_stop(&c);
}

static void test_names_stay_inside(void **state)
{
	static const char *const bad[] = {"..", ".", "", "a/b", "/etc/passwd", "../outside", "dir/../../outside"};
	struct client c;
	uint64_t node = 0, fh = 0, dir = 0;
	char path[256], name[400];

	(void)state;
	start(&c);
	client_path(&c, path, "dir");
	assert_int_equal(mkdir(path, 0755), 0);
	client_path(&c, path, "link");
	assert_int_equal(symlink("../outside", path), 0);
	client_path(&c, path, "dirlink");
	assert_int_equal(symlink("..", path), 0);
	assert_int_equal(client_lookup(&c, 1, "dir", &dir), 0);
	for (unsigned i = 0; i < nitems(bad); i++) {
		assert_int_equal(client_lookup(&c, 1, bad[i], &node), -EINVAL);
		assert_int_equal(client_lookup(&c, dir, bad[i], &node), -EINVAL);
		assert_int_equal(client_create(&c, dir, bad[i], O_RDWR, &node, &fh), -EINVAL);
		client_begin(&c, FUSE_UNLINK, dir);
		client_name(&c, bad[i]);
		assert_int_equal(client_send(&c), -EINVAL);
		client_begin(&c, FUSE_RENAME, 1);
		client_add(&c, &(struct fuse_rename_in){.newdir = 1}, sizeof(struct fuse_rename_in));
		client_name(&c, "dir");
		client_name(&c, bad[i]);
		assert_int_equal(client_send(&c), -EINVAL);
	}
	/* A name without an end, and one that is too long. */
	client_begin(&c, FUSE_LOOKUP, 1);
	client_add(&c, "dir", 3);
	assert_int_equal(client_send(&c), -EINVAL);
	memset(name, 'x', sizeof(name));
	name[sizeof(name) - 1] = 0;
	assert_int_equal(client_lookup(&c, 1, name, &node), -ENAMETOOLONG);
	assert_int_equal(client_create(&c, 1, name, O_RDWR, &node, &fh), -ENAMETOOLONG);
	/* A link is a node like any other, and followed by nobody here. */
	assert_int_equal(client_lookup(&c, 1, "link", &node), 0);
	assert_int_equal(client_open(&c, FUSE_OPEN, node, O_RDONLY, &fh), -EPERM);
	assert_int_equal(client_create(&c, 1, "link", O_RDWR, &node, &fh), -EEXIST);
	assert_int_equal(client_lookup(&c, 1, "dirlink", &node), 0);
	assert_int_equal(client_lookup(&c, node, "outside", &node), -ENOTDIR);
	assert_int_equal(client_open(&c, FUSE_OPENDIR, node, O_RDONLY, &fh), -ENOTDIR);
	client_begin(&c, FUSE_READLINK, node);
	assert_int_equal(client_send(&c), 0);
	assert_memory_equal(client_data(&c), "..", 2);
	client_stop(&c);
}

static void test_only_files_are_opened(void **state)
{
	struct client c;
	uint64_t node = 0, fh = 0;
	char path[256];

	(void)state;
	start(&c);
	client_path(&c, path, "pipe");
	assert_int_equal(mkfifo(path, 0644), 0);
	assert_int_equal(client_lookup(&c, 1, "pipe", &node), 0);
	assert_int_equal(client_open(&c, FUSE_OPEN, node, O_RDONLY, &fh), -EPERM);
	assert_int_equal(client_create(&c, 1, "pipe", O_WRONLY, &node, &fh), -EEXIST);
	assert_int_equal(client_open(&c, FUSE_OPEN, 1, O_RDONLY, &fh), -EPERM);
	/* The guest makes no devices. */
	client_begin(&c, FUSE_MKNOD, 1);
	client_add(&c, &(struct fuse_mknod_in){.mode = S_IFCHR | 0666, .rdev = 0x103}, sizeof(struct fuse_mknod_in));
	client_name(&c, "null");
	assert_int_equal(client_send(&c), -EPERM);
	client_stop(&c);
}

static void test_numbers(void **state)
{
	static const uint64_t bad[] = {0, 2, 77, FS_MAX_NODES, FS_MAX_NODES + 1ull, 1ull << 32, UINT64_MAX};
	struct client c;
	uint64_t fh = 0, node = 0;
	struct fuse_read_in in;

	(void)state;
	start(&c);
	for (unsigned i = 0; i < nitems(bad); i++) {
		assert_int_equal(client_lookup(&c, bad[i], "x", &node), -ENOENT);
		assert_int_equal(client_read(&c, FUSE_READ, bad[i], 0, 10), -EBADF);
		assert_int_equal(client_read(&c, FUSE_READDIR, bad[i], 0, 10), -EBADF);
		client_forget(&c, bad[i], UINT64_MAX);
	}
	client_forget(&c, 1, UINT64_MAX);
	assert_int_equal(client_lookup(&c, 1, "x", &node), -ENOENT);
	/* A file handle is no directory handle. */
	assert_int_equal(client_create(&c, 1, "f", O_RDWR, &node, &fh), 0);
	assert_int_equal(client_read(&c, FUSE_READDIR, fh, 0, 100), -EBADF);
	/* More data announced than sent; headers cut short; lengths that lie; no room. */
	client_begin(&c, FUSE_WRITE, node);
	client_add(&c, &(struct fuse_write_in){.fh = fh, .size = 1 << 20}, sizeof(struct fuse_write_in));
	client_add(&c, "short", 5);
	assert_int_equal(client_send(&c), -EINVAL);
	client_begin(&c, FUSE_WRITE, node);
	assert_int_equal(client_send(&c), -EINVAL);
	client_begin(&c, FUSE_READ, node);
	in = (struct fuse_read_in){.fh = fh, .size = UINT32_MAX};
	client_add(&c, &in, sizeof(in));
	assert_int_equal(client_send_room(&c, 100), 0);
	client_begin(&c, FUSE_GETATTR, node);
	assert_int_equal(client_send_room(&c, 20), -EINVAL);
	assert_int_equal(fs_request(c.fs, c.in, 39, c.out, CLIENT_MAX), -EPROTO);
	assert_int_equal(fs_request(c.fs, c.in, 60, c.out, CLIENT_MAX), -EPROTO);
	client_begin(&c, 4096, 1);
	assert_int_equal(client_send(&c), -ENOSYS);
	client_stop(&c);
}

/* Walks a directory with readdirplus in small pieces; the number of entries besides "." and "..". */
static unsigned walk(struct client *c, uint64_t fh, uint64_t *first)
{
	uint64_t off = 0;
	unsigned n = 0;

	for (;;) {
		size_t at = 0;

		assert_int_equal(client_read(c, FUSE_READDIRPLUS, fh, off, 1000), 0);
		if (!c->reply)
			return n;
		while (at < (size_t)c->reply) {
			struct fuse_direntplus d;

			memcpy(&d, (uint8_t *)client_data(c) + at, sizeof(d));
			off = d.dirent.off;
			at += FUSE_DIRENTPLUS_SIZE(&d);
			if (!d.entry_out.nodeid)
				continue;
			if (!n++)
				*first = d.entry_out.nodeid;
		}
		assert_int_equal(at, c->reply);
	}
}

static unsigned open_fds(void)
{
	unsigned n = 0;

	for (int fd = 0; fd < 1024; fd++)
		n += fcntl(fd, F_GETFD) >= 0;
	return n;
}

/* Many more files than descriptors: all are known, few are open, each can be used; what was replaced on the host is stale. */
static void test_many_files(void **state)
{
	struct client c;
	uint64_t fh = 0, node = 0, first = 0, dir = 0, other;
	unsigned before;
	char path[256], old[256], name[32];

	(void)state;
	client_start(&c, false, 40);
	assert_int_equal(client_init(&c), 0);
	client_path(&c, path, "d");
	assert_int_equal(mkdir(path, 0755), 0);
	for (unsigned i = 0; i < 500; i++) {
		snprintf(name, sizeof(name), "file-%03u", i);
		client_file(path, name, "contents");
	}
	before = open_fds();
	assert_int_equal(client_lookup(&c, 1, "d", &dir), 0);
	assert_int_equal(client_open(&c, FUSE_OPENDIR, dir, 0, &fh), 0);
	assert_int_equal(walk(&c, fh, &first), 500);
	assert_true(open_fds() < before + 40);
	client_begin(&c, FUSE_RELEASEDIR, dir);
	client_add(&c, &(struct fuse_release_in){.fh = fh}, sizeof(struct fuse_release_in));
	assert_int_equal(client_send(&c), 0);
	for (unsigned i = 0; i < 500; i++) {
		client_begin(&c, FUSE_GETATTR, first + i);
		client_add(&c, &(struct fuse_getattr_in){0}, sizeof(struct fuse_getattr_in));
		assert_int_equal(client_send(&c), 0);
	}
	/* The guest renames the directory: nodes inside are found again through its new name. */
	client_begin(&c, FUSE_RENAME, 1);
	client_add(&c, &(struct fuse_rename_in){.newdir = 1}, sizeof(struct fuse_rename_in));
	client_name(&c, "d");
	client_name(&c, "e");
	assert_int_equal(client_send(&c), 0);
	assert_int_equal(client_open(&c, FUSE_OPEN, first, O_RDONLY, &fh), 0);
	/* The host puts another file in the place of one whose descriptor was shed. */
	assert_int_equal(client_lookup(&c, dir, "file-007", &node), 0);
	for (unsigned i = 100; i < 200; i++) {
		snprintf(name, sizeof(name), "file-%03u", i);
		assert_int_equal(client_lookup(&c, dir, name, &other), 0);
	}
	client_file(c.share, "e/new", "another");
	client_path(&c, path, "e/new");
	client_path(&c, old, "e/file-007");
	assert_int_equal(rename(path, old), 0);
	assert_int_equal(client_open(&c, FUSE_OPEN, node, O_RDONLY, &fh), -ESTALE);
	/* Handles run out, and come back. */
	for (unsigned i = 0; i < 20; i++)
		(void)client_open(&c, FUSE_OPEN, first, O_RDONLY, &fh);
	assert_int_equal(client_open(&c, FUSE_OPEN, first, O_RDONLY, &fh), -ENFILE);
	client_begin(&c, FUSE_DESTROY, 0);
	assert_int_equal(client_send(&c), 0);
	assert_int_equal(open_fds(), before);
	client_stop(&c);
}

/* What `rm -r` does: entries go while the directory is being read. Each is seen once all the same. */
static void test_remove_while_reading(void **state)
{
	struct client c;
	uint64_t fh = 0, dir = 0, off = 0;
	unsigned seen = 0;
	char path[256], name[32];

	(void)state;
	start(&c);
	client_path(&c, path, "d");
	assert_int_equal(mkdir(path, 0755), 0);
	for (unsigned i = 0; i < 300; i++) {
		snprintf(name, sizeof(name), "f%u", i);
		client_file(path, name, "");
	}
	assert_int_equal(client_lookup(&c, 1, "d", &dir), 0);
	assert_int_equal(client_open(&c, FUSE_OPENDIR, dir, 0, &fh), 0);
	for (;;) {
		static uint8_t batch[4096];
		size_t len, at = 0;

		assert_int_equal(client_read(&c, FUSE_READDIR, fh, off, 1000), 0);
		if (!c.reply)
			break;
		len = (size_t)c.reply;
		memcpy(batch, client_data(&c), len);
		while (at < len) {
			struct fuse_dirent d;

			memcpy(&d, batch + at, FUSE_NAME_OFFSET);
			memcpy(name, batch + at + FUSE_NAME_OFFSET, d.namelen);
			name[d.namelen] = 0;
			off = d.off;
			at += FUSE_DIRENT_SIZE(&d);
			if (name[0] == '.')
				continue;
			seen++;
			client_begin(&c, FUSE_UNLINK, dir);
			client_name(&c, name);
			assert_int_equal(client_send(&c), 0);
		}
	}
	assert_int_equal(seen, 300);
	client_stop(&c);
}

static void test_forget_frees(void **state)
{
	struct client c;
	uint64_t a = 0, b = 0, again = 0, generation;
	char path[256];

	(void)state;
	start(&c);
	client_path(&c, path, "a");
	assert_int_equal(mkdir(path, 0755), 0);
	client_file(path, "b", "");
	assert_int_equal(client_lookup(&c, 1, "a", &a), 0);
	generation = c.generation;
	assert_int_equal(client_lookup(&c, a, "b", &b), 0);
	assert_int_equal(client_lookup(&c, a, "b", &again), 0);
	assert_int_equal(b, again);
	/* Number and generation are the node's as long as it lives: Linux discards an inode whose generation changes. */
	assert_int_equal(client_lookup(&c, 1, "a", &again), 0);
	assert_int_equal(again, a);
	assert_int_equal(c.generation, generation);
	client_forget(&c, a, 1);
	/* A directory stays while something in it is known. */
	client_forget(&c, a, 1);
	assert_int_equal(client_lookup(&c, a, "b", &again), 0);
	client_forget(&c, b, 2);
	assert_non_null(c.fs->nodes.slot[b]);
	client_forget(&c, b, 1);
	assert_null(c.fs->nodes.slot[b]);
	assert_null(c.fs->nodes.slot[a]);
	client_stop(&c);
}

static void test_read_only(void **state)
{
	struct client c;
	uint64_t node = 0, fh = 0;

	(void)state;
	client_start(&c, true, 400);
	client_file(c.share, "file", "text");
	assert_int_equal(client_init(&c), 0);
	assert_int_equal(client_lookup(&c, 1, "file", &node), 0);
	assert_int_equal(client_open(&c, FUSE_OPEN, node, O_RDWR, &fh), -EROFS);
	assert_int_equal(client_open(&c, FUSE_OPEN, node, O_TRUNC, &fh), -EROFS);
	assert_int_equal(client_open(&c, FUSE_OPEN, node, O_RDONLY, &fh), 0);
	assert_int_equal(client_write(&c, fh, 0, "x", 1), -EROFS);
	assert_int_equal(client_create(&c, 1, "new", O_RDWR, &node, &fh), -EROFS);
	client_begin(&c, FUSE_UNLINK, 1);
	client_name(&c, "file");
	assert_int_equal(client_send(&c), -EROFS);
	client_stop(&c);
}

static void setattr(struct client *c, uint64_t node, struct fuse_setattr_in in, int want)
{
	client_begin(c, FUSE_SETATTR, node);
	client_add(c, &in, sizeof(in));
	assert_int_equal(client_send(c), want);
}

static void test_attributes(void **state)
{
	struct client c;
	struct fuse_entry_out e;
	uint64_t node = 0, fh = 0;
	char path[256], value[16] = "";
	struct stat st;

	(void)state;
	start(&c);
	assert_int_equal(client_create(&c, 1, "f", O_RDWR, &node, &fh), 0);
	memcpy(&e, client_data(&c), sizeof(e));
	/* The server's own user and group show as those of the configuration. */
	assert_int_equal(e.attr.uid, 4242);
	assert_int_equal(e.attr.gid, 4343);
	setattr(&c, node, (struct fuse_setattr_in){.valid = FATTR_MODE | FATTR_SIZE | FATTR_MTIME, .mode = 06640, .size = 12345,
						   .mtime = 1000000000, .mtimensec = 5}, 0);
	client_path(&c, path, "f");
	assert_int_equal(stat(path, &st), 0);
	assert_int_equal(st.st_mode & 07777, 0640);
	assert_int_equal(st.st_size, 12345);
	assert_int_equal(st.st_mtim.tv_sec, 1000000000);
	assert_int_equal(st.st_mtim.tv_nsec, 5);
	setattr(&c, node, (struct fuse_setattr_in){.valid = FATTR_UID, .uid = 4242}, 0);
	setattr(&c, node, (struct fuse_setattr_in){.valid = FATTR_UID, .uid = 1}, -EPERM);
	setattr(&c, 1, (struct fuse_setattr_in){.valid = FATTR_SIZE}, -EINVAL);
	client_begin(&c, FUSE_SETXATTR, node);
	client_add(&c, &(struct fuse_setxattr_in){.size = 3}, FUSE_COMPAT_SETXATTR_IN_SIZE);
	client_name(&c, "security.capability");
	client_add(&c, "abc", 3);
	assert_int_equal(client_send(&c), -EOPNOTSUPP);
	client_begin(&c, FUSE_SETXATTR, node);
	client_add(&c, &(struct fuse_setxattr_in){.size = 3}, FUSE_COMPAT_SETXATTR_IN_SIZE);
	client_name(&c, "user.note");
	client_add(&c, "abc", 3);
	if (client_send(&c) == 0) { /* not every file system of the host has them */
		assert_int_equal(getxattr(path, "user.note", value, sizeof(value)), 3);
		client_begin(&c, FUSE_LISTXATTR, node);
		client_add(&c, &(struct fuse_getxattr_in){.size = 100}, sizeof(struct fuse_getxattr_in));
		assert_int_equal(client_send(&c), 0);
		assert_int_equal(c.reply, sizeof("user.note"));
		client_begin(&c, FUSE_GETXATTR, node);
		client_add(&c, &(struct fuse_getxattr_in){.size = 1}, sizeof(struct fuse_getxattr_in));
		client_name(&c, "user.note");
		assert_int_equal(client_send(&c), -ERANGE);
	}
	client_stop(&c);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_read_write), cmocka_unit_test(test_names_stay_inside),
		cmocka_unit_test(test_only_files_are_opened), cmocka_unit_test(test_numbers), cmocka_unit_test(test_many_files), cmocka_unit_test(test_remove_while_reading),
		cmocka_unit_test(test_forget_frees), cmocka_unit_test(test_read_only), cmocka_unit_test(test_attributes),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
