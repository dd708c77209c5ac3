/* SPDX-License-Identifier: Apache-2.0 */
/*
 * doppel image convert, commit: copying what an image holds.
 *
 * What reads as zeroes is not copied to a new image, whether the source says so or its data do. A copy can be stopped between two
 * parts of it (SIGINT, SIGTERM, SIGHUP): convert then leaves nothing, commit a base that has a part of the overlay and can be committed again.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/log.h"
#include "cli/image.h"
#include "proto/status.h"

#define CHUNK (2u << 20)        /* the largest cluster */
#define GRAIN 4096u             /* smallest stretch of zeroes worth leaving out of a raw image */

struct copy {
	struct block *from, *to;
	unsigned files;             /* of the source's chain that count; 0: all */
	size_t grain;
	bool packed, keep_zeroes;   /* keep_zeroes: they must be written, the target is not new */
	uint8_t *buf;
	const char *what;
	const struct image_output *stop;
};

static int complain(const char *path, int ret)
{
	log_error("%s: %s; %s", path, strerror(-ret), ret == -ENOSPC ? "make room on the disk" : "check the file and its disk");
	return STATUS_START;
}

static bool is_zero(const uint8_t *p, size_t n)
{
	return n == 0 || (p[0] == 0 && memcmp(p, p + 1, n - 1) == 0);
}

/* Writes what is not zero of a chunk. */
static int put_chunk(struct copy *c, uint64_t at, size_t bytes)
{
	int ret = 0;

	if (c->keep_zeroes)
		return block_pwrite(c->to, c->buf, bytes, at);
	for (size_t i = 0, n; ret == 0 && i < bytes; i += n) {
		n = bytes - i < c->grain ? bytes - i : c->grain;
		if (is_zero(c->buf + i, n))
			continue;
		while (!c->packed && i + n < bytes && !is_zero(c->buf + i + n, bytes - i - n < c->grain ? bytes - i - n : c->grain))
			n += bytes - i - n < c->grain ? bytes - i - n : c->grain;
		ret = c->packed ? block_pwrite_packed(c->to, c->buf + i, n, at + i) : block_pwrite(c->to, c->buf + i, n, at + i);
	}
	return ret;
}

/* The part at `at`; *bytes: how long it is. A new image gets whole grains, so that none is begun in its middle. */
static int copy_part(struct copy *c, uint64_t at, uint64_t *bytes)
{
	uint64_t left = *bytes;
	int ret, kind = block_status(c->from, at, bytes, c->files);

	if (kind < 0 || kind == BLOCK_STATUS_BELOW)
		return kind < 0 ? kind : 0;
	if (kind == BLOCK_STATUS_ZERO && c->keep_zeroes)
		return block_pzero(c->to, *bytes, at, true);
	if (kind == BLOCK_STATUS_ZERO && (*bytes >= c->grain || *bytes == left)) {
		*bytes -= *bytes == left ? 0 : *bytes % c->grain;
		return 0;
	}
	/* An overlay has just this range; a whole chain can be read on, which makes larger parts. */
	if (!c->files || *bytes > CHUNK)
		*bytes = left < CHUNK ? left : CHUNK;
	ret = block_pread(c->from, c->buf, (size_t)*bytes, at);
	return ret == 0 ? put_chunk(c, at, (size_t)*bytes) : ret;
}

static int copy_all(struct copy *c)
{
	uint64_t size = block_size(c->from), at = 0, shown = 0;
	int ret = 0;

	c->buf = malloc(CHUNK);
	if (!c->buf)
		return -ENOMEM;
	image_progress(c->what, 0, size);
	while (ret == 0 && at < size) {
		uint64_t bytes = size - at;

		ret = image_output_stopped(c->stop) ? -EINTR : copy_part(c, at, &bytes);
		at += bytes;
		if (ret == 0 && (at - shown > size / 1000 || at == size)) {
			image_progress(c->what, at, size);
			shown = at;
		}
	}
	free(c->buf);
	return ret;
}

static int open_disk(struct block_chain *chain, struct block **b, const char *path, enum block_format format, unsigned flags)
{
	struct block_error err;

	if (block_chain_open(chain, path, format, flags, &err) < 0) {
		log_error("%s", err.text);
		return STATUS_START;
	}
	if (block_open(b, NULL, chain->file, chain->n, flags, &err) < 0) {
		log_error("%s: %s", path, err.text);
		block_chain_close(chain);
		return STATUS_START;
	}
	return 0;
}

/* --- convert --------------------------------------------------------------------------------------------------------------------- */

static int open_target(const struct image_options *o, struct image_output *out, uint64_t size, struct block **to)
{
	const struct qcow2_new new = {.size = size, .cluster_bits = o->cluster_bits, .compression = o->compression};
	const struct block_file file = {.fd = out->fd, .format = o->output, .path = out->path};
	struct block_error err;
	int ret = 0;

	if (o->output == BLOCK_QCOW2)
		ret = qcow2_create(out->fd, &new, &err);
	else if (ftruncate(out->fd, (off_t)size) < 0)
		return complain(out->path, -errno);
	if (ret == 0)
		ret = block_open(to, NULL, &file, 1, 0, &err);
	if (ret < 0)
		log_error("%s: %s", out->path, err.text);
	return ret < 0 ? STATUS_START : 0;
}

static int convert(const struct image_options *o, struct block *from, struct image_output *out)
{
	struct copy c = {.from = from, .packed = o->compress, .what = "convert", .stop = out,
			 .grain = o->output == BLOCK_QCOW2 ? 1u << o->cluster_bits : GRAIN};
	int ret = open_target(o, out, block_size(from), &c.to), closed;

	if (ret)
		return ret;
	ret = copy_all(&c);
	closed = block_close(c.to);
	ret = ret < 0 ? ret : closed;
	/* A disk's last compressed data may end before their sector does; readers expect it whole. */
	if (ret == 0 && o->compress) {
		off_t end = lseek(out->fd, 0, SEEK_END);

		if (end < 0 || ftruncate(out->fd, (end + BLOCK_SECTOR - 1) / BLOCK_SECTOR * BLOCK_SECTOR) < 0)
			ret = -errno;
	}
	if (ret == -EINTR) {
		log_error("stopped; %s was not made", out->path);
		return STATUS_STOPPED;
	}
	return ret < 0 ? complain(out->path, ret) : 0;
}

int image_convert(int argc, char **argv)
{
	struct image_options o;
	struct image_output out;
	struct block_chain chain;
	struct block *from;
	int ret = image_parse(&o, argc, argv, "fOocy", 2, 2);

	if (ret)
		return ret;
	if (o.output == BLOCK_AUTO)
		o.output = BLOCK_QCOW2;
	if (o.compress && o.output != BLOCK_QCOW2) {
		log_error("a raw image cannot be compressed; leave out -c, or choose -O qcow2");
		return STATUS_USAGE;
	}
	ret = open_disk(&chain, &from, o.args[0], o.format, BLOCK_RDONLY);
	if (ret)
		return ret;
	ret = image_output_open(&out, o.args[1], o.force);
	if (ret == 0) {
		ret = convert(&o, from, &out);
		if (ret == 0)
			ret = image_output_finish(&out, o.force);
		else
			image_output_abandon(&out);
	}
	(void)block_close(from);
	block_chain_close(&chain);
	return ret;
}

/* --- commit ------------------------------------------------------------------------------------------------------------------------ */

/* A base that is too small for the overlay grows if it is raw. */
static int grow(const struct block_file *base, uint64_t have, uint64_t need)
{
	if (have >= need)
		return 0;
	if (base->format == BLOCK_RAW && ftruncate(base->fd, (off_t)need) == 0)
		return 0;
	log_error("%s is smaller than what is based on it; make it larger first (qemu-img resize)", base->path);
	return STATUS_START;
}

static int commit_into(struct block *from, const char *path, enum block_format format)
{
	struct copy c = {.from = from, .files = 1, .grain = BLOCK_SECTOR, .keep_zeroes = true, .what = "commit"};
	struct image_output stop = {.fd = -1};
	struct block_chain chain;
	int ret = open_disk(&chain, &c.to, path, format, 0), closed;

	if (ret)
		return ret;
	image_output_take_signals(&stop);
	c.stop = &stop;
	ret = grow(&chain.file[0], block_size(c.to), block_size(from));
	if (ret == 0) {
		(void)block_close(c.to);
		block_chain_close(&chain);
		ret = open_disk(&chain, &c.to, path, format, 0);
		if (ret)
			return ret;
		ret = copy_all(&c);
		closed = block_pflush(c.to);
		ret = ret < 0 ? ret : closed;
		if (ret == -EINTR)
			log_error("stopped; a part is in %s, run the same command again", path);
		ret = ret == -EINTR ? STATUS_STOPPED : ret < 0 ? complain(path, ret) : 0;
	}
	closed = block_close(c.to);
	block_chain_close(&chain);
	return ret == 0 && closed < 0 ? complain(path, closed) : ret;
}

int image_commit(int argc, char **argv)
{
	struct image_options o;
	struct block_chain chain;
	struct block_error err;
	enum block_format format;
	struct block *from;
	char *path;
	int ret = image_parse(&o, argc, argv, "f", 1, 1);

	if (ret)
		return ret;
	/* The overlay alone: what is below is opened for writing. */
	ret = open_disk(&chain, &from, o.args[0], o.format, BLOCK_RDONLY | BLOCK_NO_BACKING);
	if (ret)
		return ret;
	ret = block_backing_path(&chain.file[0], &path, &format, &err);
	if (ret != 0) {
		log_error("%s: %s", o.args[0], ret > 0 ? "it is based on nothing; there is nothing to commit to" : err.text);
		ret = STATUS_START;
	} else {
		ret = commit_into(from, path, format);
		free(path);
	}
	(void)block_close(from);
	block_chain_close(&chain);
	return ret;
}
