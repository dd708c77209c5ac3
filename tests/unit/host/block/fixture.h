/* SPDX-License-Identifier: Apache-2.0 */
/*
 * For tests of host/block: a disk on a temporary image, requests that can be waited for, and a random load that is compared with
 * a plain array.
 */
#ifndef TESTS_BLOCK_FIXTURE_H
#define TESTS_BLOCK_FIXTURE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "host/block/block.h"

struct disk {
	struct block_aio *aio;
	struct block *b;
	struct block_chain chain;
	char dir[64], path[128];
};

static inline uint64_t random_next(uint64_t *seed)
{
	*seed ^= *seed << 13;
	*seed ^= *seed >> 7;
	*seed ^= *seed << 17;
	return *seed;
}

static inline void disk_dir(struct disk *d)
{
	/* In memory if possible: waiting for a medium proves nothing here. TMPDIR chooses another place. */
	const char *base = getenv("TMPDIR") ? getenv("TMPDIR") : access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp";

	memset(d, 0, sizeof(*d));
	snprintf(d->dir, sizeof(d->dir), "%s/doppel-block-XXXXXX", base);
	assert_non_null(mkdtemp(d->dir));
	snprintf(d->path, sizeof(d->path), "%s/disk.img", d->dir);
}

static inline void disk_remove_dir(struct disk *d)
{
	char cmd[128];

	snprintf(cmd, sizeof(cmd), "rm -rf '%s'", d->dir);
	assert_int_equal(system(cmd), 0);
}

static inline void make_file(const char *path, off_t size)
{
	int fd = open(path, O_RDWR | O_CREAT | O_TRUNC, 0600);

	assert_true(fd >= 0);
	assert_int_equal(ftruncate(fd, size), 0);
	close(fd);
}

/* The error's text if it cannot be opened, else NULL. */
static inline const char *disk_try_open(struct disk *d, enum block_format format, unsigned flags, unsigned aio_flags)
{
	static struct block_error err;

	if (block_chain_open(&d->chain, d->path, format, flags, &err) < 0)
		return err.text;
	assert_int_equal(block_aio_create(&d->aio, aio_flags), 0);
	if (block_open(&d->b, d->aio, d->chain.file, d->chain.n, flags & (BLOCK_RDONLY | BLOCK_TINY_CACHE), &err) < 0) {
		block_aio_destroy(d->aio);
		block_chain_close(&d->chain);
		return err.text;
	}
	assert_int_equal(block_aio_start(d->aio), 0);
	return NULL;
}

static inline void disk_open(struct disk *d, enum block_format format, unsigned flags, unsigned aio_flags)
{
	const char *err = disk_try_open(d, format, flags, aio_flags);

	if (err)
		fail_msg("%s", err);
}

static inline void disk_close(struct disk *d)
{
	assert_int_equal(block_close(d->b), 0);
	block_aio_destroy(d->aio);
	block_chain_close(&d->chain);
}

static inline void store_result(struct block_request *r, int result)
{
	*(int *)r->opaque = result;
}

static inline void disk_wait(struct disk *d, const int *result)
{
	struct pollfd p = {.fd = block_aio_fd(d->aio), .events = POLLIN};

	while (*result == 1) {
		assert_int_equal(poll(&p, 1, 20000), 1);
		block_aio_poll(d->aio);
	}
}

static inline int disk_do(struct disk *d, enum block_op op, void *buf, uint64_t bytes, uint64_t offset)
{
	struct iovec iov = {.iov_base = buf, .iov_len = bytes};
	int result = 1;
	struct block_request r = {.op = op, .unmap = offset & 4096, .offset = offset, .bytes = bytes, .iov = &iov,
				  .niov = buf ? 1 : 0, .done = store_result, .opaque = &result};

	block_submit(d->b, &r);
	disk_wait(d, &result);
	return result;
}

/* --- the random load ------------------------------------------------------------------------------------------------- */

#define LOAD_LANES 8
#define LOAD_IOV 100

struct lane {
	struct block_request r;
	struct iovec iov[LOAD_IOV];
	uint8_t *buf;
	uint64_t at, bytes;
	int result;
};

struct load {
	struct disk *d;
	uint8_t *model;
	uint64_t size, seed, max;          /* max: largest request */
	bool discards;
	unsigned long reads, writes, others, tried;
	struct lane lane[LOAD_LANES];
};

static inline bool lane_overlaps(const struct load *l, uint64_t at, uint64_t bytes)
{
	for (unsigned i = 0; i < LOAD_LANES; i++)
		if (l->lane[i].bytes && at < l->lane[i].at + l->lane[i].bytes && l->lane[i].at < at + bytes)
			return true;
	return false;
}

/* Cuts the lane's buffer into pieces of random sizes, some of them empty. */
static inline unsigned lane_cut(struct load *l, struct lane *x)
{
	uint64_t done = 0;
	unsigned n = 0;

	for (; n < LOAD_IOV - 1 && done < x->bytes; n++) {
		uint64_t part = random_next(&l->seed) % (x->bytes / 4 + 600);

		if (part > x->bytes - done)
			part = x->bytes - done;
		x->iov[n] = (struct iovec){.iov_base = x->buf + done, .iov_len = part};
		done += part;
	}
	x->iov[n++] = (struct iovec){.iov_base = x->buf + done, .iov_len = x->bytes - done};
	return n;
}

static inline void lane_begin(struct load *l, struct lane *x)
{
	unsigned kind = (unsigned)(random_next(&l->seed) % 16);
	uint64_t limit = random_next(&l->seed) % 4 ? 8192 : l->max;

	uint64_t at = random_next(&l->seed) % (l->size / 512) * 512, bytes = (1 + random_next(&l->seed) % (limit / 512)) * 512;

	if (bytes > l->size - at)
		bytes = l->size - at;
	/* Until it is checked, nobody else may touch the range. */
	if (lane_overlaps(l, at, bytes))
		return;
	x->at = at;
	x->bytes = bytes;
	x->r = (struct block_request){.offset = x->at, .bytes = x->bytes, .iov = x->iov, .done = store_result,
				      .opaque = &x->result, .unmap = kind & 1};
	x->r.niov = lane_cut(l, x);
	if (kind < 6) {
		x->r.op = BLOCK_READ;
	} else if (kind < 13) {
		x->r.op = BLOCK_WRITE;
		for (uint64_t i = 0; i < x->bytes; i += 8) {
			uint64_t v = random_next(&l->seed);

			memcpy(x->buf + i, &v, 8);
		}
		memcpy(l->model + x->at, x->buf, x->bytes);
	} else if (kind == 13) {
		x->r.op = BLOCK_FLUSH;
	} else {
		x->r.op = kind == 14 || !l->discards ? BLOCK_WRITE_ZEROES : BLOCK_DISCARD;
		memset(l->model + x->at, 0, x->bytes);
	}
	x->result = 1;
	if (kind < 3 && block_try_read(l->d->b, &x->r) == 0) {
		x->result = 0;
		l->tried++;
	} else {
		block_submit(l->d->b, &x->r);
	}
}

static inline void lane_check(struct load *l, struct lane *x)
{
	assert_int_equal(x->result, 0);
	switch (x->r.op) {
	case BLOCK_READ:
		l->reads++;
		assert_memory_equal(x->buf, l->model + x->at, x->bytes);
		break;
	case BLOCK_WRITE:
		l->writes++;
		break;
	case BLOCK_DISCARD:
		/* What it reads as now is the disk's choice: give the model the same by writing. */
		l->others++;
		memset(x->buf, 0, x->bytes);
		assert_int_equal(disk_do(l->d, BLOCK_WRITE, x->buf, x->bytes, x->at), 0);
		break;
	default:
		l->others++;
	}
}

/* Random requests, several at a time; the model must hold what the disk does. Afterwards it still does. */
static inline void load_run(struct load *l, unsigned long steps)
{
	for (unsigned i = 0; i < LOAD_LANES; i++) {
		l->lane[i] = (struct lane){.buf = malloc(l->max)};
		assert_non_null(l->lane[i].buf);
	}
	for (unsigned long s = 0; s < steps; s++) {
		struct lane *x = &l->lane[random_next(&l->seed) % LOAD_LANES];

		if (x->bytes) {
			disk_wait(l->d, &x->result);
			lane_check(l, x);
			x->bytes = 0;
		}
		lane_begin(l, x);
	}
	for (unsigned i = 0; i < LOAD_LANES; i++) {
		if (l->lane[i].bytes) {
			disk_wait(l->d, &l->lane[i].result);
			lane_check(l, &l->lane[i]);
		}
		free(l->lane[i].buf);
	}
}

/* The whole disk is the model. */
static inline void disk_compare(struct disk *d, const uint8_t *model, uint64_t size)
{
	static uint8_t buf[1 << 20];

	assert_int_equal(block_size(d->b), size);
	for (uint64_t at = 0; at < size; at += sizeof(buf)) {
		uint64_t n = size - at < sizeof(buf) ? size - at : sizeof(buf);

		assert_int_equal(disk_do(d, BLOCK_READ, buf, n, at), 0);
		for (uint64_t i = 0; i < n; i += 512)
			if (memcmp(buf + i, model + at + i, 512))
				fail_msg("sector at %#llx differs", (unsigned long long)(at + i));
	}
}

#endif
