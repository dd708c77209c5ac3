/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Opening an image and what it is based on, by path: the part that needs the user's rights.
 *
 * Formats. A format that the user gives is believed. Without one the first sector decides; a disk found to be raw that way is
 * marked `probed` (raw.c). For a backing file the format recorded in the image above is believed. If none is
 * recorded, the content decides, but a file that then names a backing file of its own is refused: a guest that once wrote to it
 * as a raw disk could have written that name.
 * Names. A backing file's name is relative to the folder of the image that names it. Names with a protocol are refused.
 * No state but the chain, no locks (in the process; lock.c has those on files).
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "host/block/private.h"
#include "host/block/qcow2.h"

static const char *const format_names[] = {[BLOCK_AUTO] = "auto", [BLOCK_RAW] = "raw", [BLOCK_QCOW2] = "qcow2"};

const char *block_format_name(enum block_format format)
{
	return format_names[format];
}

enum block_format block_format_find(const char *name)
{
	for (unsigned i = BLOCK_RAW; i < nitems(format_names); i++)
		if (!strcmp(name, format_names[i]))
			return (enum block_format)i;
	return BLOCK_AUTO;
}

enum block_format block_probe(const uint8_t head[BLOCK_SECTOR])
{
	return memcmp(head, "QFI\xfb", 4) ? BLOCK_RAW : BLOCK_QCOW2;
}

/* Formats of others by their first bytes, to refuse them with their name instead of showing the guest a disk of rubbish. */
static const char *foreign_format(const uint8_t head[BLOCK_SECTOR])
{
	static const struct { const char *name, *magic; } known[] = {
		{"VMDK", "KDMV"}, {"VMDK", "# Disk DescriptorFile"}, {"VHDX", "vhdxfile"}, {"VHD", "conectix"},
		{"VDI", "<<< Oracle VM VirtualBox"}, {"QED", "QED"},
	};

	for (size_t i = 0; i < nitems(known); i++) {
		size_t len = strlen(known[i].magic) + (i == nitems(known) - 1); /* QED's magic ends with a NUL */

		if (!memcmp(head, known[i].magic, len))
			return known[i].name;
	}
	return NULL;
}

static int open_file(const char *path, unsigned flags, int *out, struct block_error *err)
{
	bool write = !(flags & BLOCK_RDONLY);
	/* Without O_NONBLOCK the open of a FIFO would wait; with it left set, transfers might not. */
	int fd = open(path, (write ? O_RDWR : O_RDONLY) | O_CLOEXEC | O_NOCTTY | O_NONBLOCK), ret;
	struct stat st;

	if (fd < 0) {
		ret = -errno;
		return block_fail(err, ret, "cannot open %s%s: %s; %s", path, write ? " for writing" : "", strerror(-ret),
				  write && (ret == -EACCES || ret == -EROFS || ret == -EPERM)
					  ? "change its permissions or open it read-only" : "check the path");
	}
	if (fstat(fd, &st) < 0 || (!S_ISREG(st.st_mode) && !S_ISBLK(st.st_mode))) {
		close(fd);
		return block_fail(err, -EINVAL, "%s is neither a file nor a block device; give one as a disk", path);
	}
	(void)fcntl(fd, F_SETFL, 0);
	ret = (flags & BLOCK_NO_LOCK) ? 0 : block_lock(fd, write);
	/* File systems without such locks exist; then it is up to the user, as it is with cp. */
	if (ret == -EBUSY || ret == -EAGAIN || ret == -EACCES) {
		close(fd);
		return block_fail(err, -EBUSY, "%s is in use by another process that %s; stop that first", path,
				  write ? "would see it change" : "writes to it");
	}
	*out = fd;
	return 0;
}

/* The format of an open file of which the user or the image above said `format`. */
static int find_format(struct block_file *f, enum block_format format, struct block_error *err)
{
	uint8_t head[BLOCK_SECTOR];
	const char *foreign;
	int ret;

	f->format = format;
	if (format != BLOCK_AUTO)
		return 0;
	ret = file_read(f->fd, head, sizeof(head), 0);
	if (ret < 0)
		return block_fail(err, ret, "cannot read %s: %s; check the file", f->path, strerror(-ret));
	foreign = foreign_format(head);
	if (foreign)
		return block_fail(err, -EINVAL, "%s is a %s image; convert it with qemu-img convert -O qcow2, or say format=raw", f->path,
				  foreign);
	f->format = block_probe(head);
	f->probed = f->format == BLOCK_RAW;
	return 0;
}

int block_path_beside(const char *path, const char *name, char **out, struct block_error *err)
{
	const char *slash = strrchr(path, '/'), *colon;

	if (!strncmp(name, "file:", 5))
		name += 5;
	colon = strchr(name, ':');
	if (colon && memchr(name, '/', (size_t)(colon - name)) == NULL)
		return block_fail(err, -ENOTSUP, "the backing file '%.100s' of %s is not a plain path; rebase the image on a file", name,
				  path);
	if (*name == '/' || !slash) {
		*out = strdup(name);
	} else if (asprintf(out, "%.*s/%s", (int)(slash - path), path, name) < 0) {
		*out = NULL;
	}
	return *out ? 0 : block_fail(err, -ENOMEM, "out of memory; free some and try again");
}

static int add(struct block_chain *c, char *path, enum block_format format, unsigned flags, struct block_error *err)
{
	struct block_file *f = &c->file[c->n];
	int ret = open_file(path, flags, &f->fd, err);

	if (ret < 0) {
		free(path);
		return ret;
	}
	f->path = c->path[c->n++] = path;
	f->probed = false;
	return find_format(f, format, err);
}

/* The image's file is one of the chain already. */
static bool is_loop(const struct block_chain *c)
{
	struct stat a, b;

	if (fstat(c->file[c->n - 1].fd, &a) < 0)
		return false;
	for (unsigned i = 0; i + 1 < c->n; i++)
		if (fstat(c->file[i].fd, &b) == 0 && a.st_dev == b.st_dev && a.st_ino == b.st_ino)
			return true;
	return false;
}

int block_backing_path(const struct block_file *f, char **path, enum block_format *format, struct block_error *err)
{
	struct qcow2_backing b;
	struct block_error why;
	int ret;

	if (f->format != BLOCK_QCOW2)
		return 1;
	ret = qcow2_backing_name(f->fd, &b, &why);
	if (ret < 0)
		return block_fail(err, ret, "%.120s: %.180s", f->path, why.text);
	*format = b.format;
	return b.name[0] ? block_path_beside(f->path, b.name, path, err) : 1;
}

/* Opens what the last image of the chain is based on. 1: it is based on nothing. */
static int add_backing(struct block_chain *c, unsigned flags, struct block_error *err)
{
	const struct block_file *f = &c->file[c->n - 1];
	enum block_format format;
	char *path;
	int ret = block_backing_path(f, &path, &format, err);

	if (ret != 0)
		return ret;
	if (c->n > 1 && c->probed_below)
		ret = block_fail(err, -EPERM, "%.80s has a backing file, but %.80s does not say that it is qcow2; "
				  "if that is right, qemu-img rebase -u -F qcow2 records it", f->path, c->file[c->n - 2].path);
	else if (c->n == BLOCK_CHAIN_MAX)
		ret = block_fail(err, -ELOOP, "%s has more than %d files below it; commit some", c->path[0], BLOCK_CHAIN_MAX - 1);
	c->probed_below = format == BLOCK_AUTO;
	if (ret < 0)
		free(path);
	else
		ret = add(c, path, format, flags | BLOCK_RDONLY, err);
	if (ret == 0 && is_loop(c))
		ret = block_fail(err, -ELOOP, "%s is its own backing file; recreate the image", c->path[c->n - 1]);
	return ret;
}

int block_chain_open(struct block_chain *c, const char *path, enum block_format format, unsigned flags, struct block_error *err)
{
	char *copy = strdup(path);
	int ret = 0;

	memset(c, 0, sizeof(*c));
	if (!copy)
		return block_fail(err, -ENOMEM, "out of memory; free some and try again");
	ret = add(c, copy, format, flags, err);
	while (ret == 0 && !(flags & BLOCK_NO_BACKING))
		ret = add_backing(c, flags, err);
	if (ret < 0)
		block_chain_close(c);
	return ret < 0 ? ret : 0;
}

void block_chain_forget(struct block_chain *c)
{
	for (unsigned i = 0; i < c->n; i++)
		free(c->path[i]);
	c->n = 0;
}

void block_chain_close(struct block_chain *c)
{
	for (unsigned i = 0; i < c->n; i++)
		close(c->file[i].fd);
	block_chain_forget(c);
}
