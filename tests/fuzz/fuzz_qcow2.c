/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Fuzzes the qcow2 code: whatever an image says, opening, checking, repairing, reading and writing it return, and nothing outside of
 * it is touched. Afterwards what was written and not refused must still be read as written.
 *
 * As a program: fuzz_qcow2 RUNS [SEED] mutates images that it makes itself (several cluster sizes, a backing file, compressed clusters of
 * both kinds), mostly in their metadata. With -DLIBFUZZER it is a libFuzzer target: the input is the choices of this, or an image.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "choices.h"
#include "host/block/bytes.h"
#include "host/block/private.h"
#include "host/block/qcow2.h"

#define DISK_SIZE (96u << 10)
#define IMAGE_MAX (512u << 10)

struct fuzz {
	struct choices choices;
	int fd, base_fd;
	unsigned long opened, checked, writes, refused;
};

struct seed_image { uint8_t *bytes; size_t size; bool backing; };

static uint64_t next(struct fuzz *f) { return choices_next(&f->choices); }

static void load_image(struct fuzz *f, const uint8_t *bytes, size_t size)
{
	if (ftruncate(f->fd, 0) < 0 || pwrite(f->fd, bytes, size, 0) != (ssize_t)size)
		abort();
}

/* Writes random places; what was accepted must be read back, unless a later write went over it (there is none: one at a time). */
static void use(struct fuzz *f, struct block *b)
{
	static uint8_t buf[16384], back[16384];
	uint64_t size = block_size(b), sectors = size / 512;

	for (unsigned i = 0; i < 12; i++) {
		uint64_t at = next(f) % sectors * 512, bytes = (1 + next(f) % 31) * 512, kind = next(f) % 8;

		bytes = bytes < size - at ? bytes : size - at;
		if (kind == 0) {
			(void)block_pdiscard(b, bytes, at);
		} else if (kind == 1) {
			(void)block_pflush(b);
		} else if (kind < 4) {
			(void)block_pread(b, back, bytes, at);
		} else {
			memset(buf, (int)i + 1, bytes);
			f->writes++;
			if (kind == 4 ? block_pzero(b, bytes, at, i & 1) : block_pwrite(b, buf, bytes, at)) {
				f->refused++;
				continue;
			}
			if (kind == 4)
				memset(buf, 0, bytes);
			/* A lying image may keep one disk range in two places or two in one; then reading may fail, never hang. */
			(void)block_pread(b, back, bytes, at);
		}
	}
	for (uint64_t at = 0, kinds = 0; at < size && kinds < 64; kinds++) {
		uint64_t bytes = size - at;

		if (block_status(b, at, &bytes, 0) < 0 || bytes == 0)
			break;
		at += bytes;
	}
}

static void check(struct fuzz *f, enum qcow2_repair repair)
{
	const struct block_file file = {.fd = f->fd, .format = BLOCK_QCOW2, .path = "image"};
	struct qcow2_check result = {0};
	struct block_error err;

	f->checked += qcow2_check(&file, repair, &result, &err) == 0;
}

static void run_one(struct fuzz *f, const uint8_t *bytes, size_t size, bool backing)
{
	const struct block_file file[2] = {
		{.fd = f->fd, .format = BLOCK_QCOW2, .path = "image"}, {.fd = f->base_fd, .format = BLOCK_RAW, .path = "base"}};
	struct qcow2_backing name;
	struct block_error err;
	struct block *b;

	load_image(f, bytes, size);
	(void)qcow2_backing_name(f->fd, &name, &err);
	check(f, QCOW2_REPAIR_NONE);
	if (next(f) % 4 == 0)
		check(f, next(f) % 2 ? QCOW2_REPAIR_ALL : QCOW2_REPAIR_LEAKS);
	if (block_open(&b, NULL, file, backing ? 2 : 1, (next(f) % 4 ? 0 : BLOCK_RDONLY) | (next(f) % 16 ? BLOCK_TINY_CACHE : 0), &err) < 0)
		return;
	f->opened++;
	use(f, b);
	(void)block_close(b);
}

static void make_seed(struct fuzz *f, struct seed_image *s, const struct qcow2_new *o, bool packed)
{
	const struct block_file file[2] = {
		{.fd = f->fd, .format = BLOCK_QCOW2, .path = "image"}, {.fd = f->base_fd, .format = BLOCK_RAW, .path = "base"}};
	static uint8_t buf[65536];
	struct block_error err;
	struct block *b;
	off_t end;

	s->backing = o->backing;
	if (ftruncate(f->fd, 0) < 0 || qcow2_create(f->fd, o, &err) < 0 ||
	    block_open(&b, NULL, file, s->backing ? 2 : 1, 0, &err) < 0)
		abort();
	for (unsigned i = 0; i < sizeof(buf); i++)
		buf[i] = (uint8_t)(i >> 4);
	for (unsigned i = 0; packed && i < 4; i++)
		if (block_pwrite_packed(b, buf, 1u << o->cluster_bits, (uint64_t)i << o->cluster_bits) < 0)
			abort();
	if (block_pwrite(b, buf, 20000, DISK_SIZE / 2 + 512) < 0 || block_pzero(b, 8192, DISK_SIZE / 2 + 8192, true) < 0 ||
	    block_close(b) < 0)
		abort();
	end = lseek(f->fd, 0, SEEK_END);
	if (end > IMAGE_MAX)
		abort();
	s->size = (size_t)end;
	s->bytes = malloc(s->size);
	if (!s->bytes || pread(f->fd, s->bytes, s->size, 0) != end)
		abort();
}

/* The borders of everything that is compared or added up. */
static const uint64_t borders[] = {0, 1, 2, 511, 512, 513, 0x1000, 0x1fff, 0x10000, 0x7fffffff, 0x80000000, 0xffffffff, 1ull << 32, 1ull << 55,
				   1ull << 56, 1ull << 62, 1ull << 63, 0x7fffffffffffffff, 0xffffffffffffffff, 0x8000000000000001,
				   0xc000000000000000, 0x00fffffffffffe00};

static void mutate(struct fuzz *f, uint8_t *p, size_t size)
{
	unsigned n = 1 + (unsigned)(next(f) % 5);

	while (n--) {
		/* A third each: the header, the entries of tables at the front, anywhere. */
		size_t kind = next(f) % 3, limit = kind == 0 ? 128 : kind == 1 ? size / 4 : size, at = next(f) % (limit - 8);
		uint64_t old;

		if (next(f) % 2)
			at &= ~(size_t)7;
		old = get_be64(p + at);
		switch (next(f) % 7) {
		case 0: p[at] = (uint8_t)next(f); break;
		case 1: p[at] ^= (uint8_t)(1u << next(f) % 8); break;
		case 2: put_be64(p + at, borders[next(f) % nitems(borders)]); break;
		case 3: put_be32(p + at, (uint32_t)borders[next(f) % nitems(borders)]); break;
		case 4: put_be64(p + at, old ^ 1ull << next(f) % 64); break;
		case 5: put_be64(p + at, old + ((next(f) % 9) - 4) * 512); break;
		default: put_be64(p + at, get_be64(p + (next(f) % (size - 8) & ~7ull))); break;
		}
	}
}

static const struct qcow2_new shape[] = {
	{.size = DISK_SIZE, .cluster_bits = 9}, {.size = DISK_SIZE, .cluster_bits = 12},
	{.size = DISK_SIZE, .cluster_bits = 9, .backing = "base", .backing_format = "raw"},
	{.size = DISK_SIZE, .cluster_bits = 12, .compression = QCOW2_ZSTD}, {.size = DISK_SIZE, .cluster_bits = 13},
};

/* Everything that the runs share: the two files and an image of each shape. */
static void setup(struct fuzz *f, struct seed_image *seed)
{
	*f = (struct fuzz){.choices = choices_of_seed(NULL)};
	f->fd = memfd_create("image", MFD_CLOEXEC);
	f->base_fd = memfd_create("base", MFD_CLOEXEC);
	if (f->fd < 0 || f->base_fd < 0 || ftruncate(f->base_fd, DISK_SIZE / 2) < 0)
		abort();
	for (size_t i = 0; i < nitems(shape); i++)
		make_seed(f, &seed[i], &shape[i], i >= 3);
}

/* An image of our own, spoiled or not. */
static void run(struct fuzz *f, const struct seed_image *s, bool spoil)
{
	static uint8_t image[IMAGE_MAX];
	size_t size = s->size;

	memcpy(image, s->bytes, size);
	if (spoil)
		mutate(f, image, size);
	if (spoil && next(f) % 16 == 0)
		size = 512 + next(f) % size;
	run_one(f, image, size < s->size ? size : s->size, s->backing);
}

#ifndef LIBFUZZER
int main(int argc, char **argv)
{
	unsigned long runs = argc > 1 ? strtoul(argv[1], NULL, 0) : 1000;
	struct seed_image seed[nitems(shape)];
	struct fuzz f;

	setup(&f, seed);
	f.choices = choices_of_seed(argc > 2 ? argv[2] : NULL);
	for (unsigned long i = 0; i < runs; i++)
		run(&f, &seed[i % nitems(seed)], i >= nitems(seed));
	for (size_t i = 0; i < nitems(seed); i++)
		free(seed[i].bytes);
	printf("%lu images, %lu opened, %lu checks to the end, %lu writes, %lu refused\n", runs, f.opened, f.checked, f.writes, f.refused);
	return f.opened == 0 || f.checked == 0 || (runs > 100 && f.opened == runs);
}
#else
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct seed_image seed[nitems(shape)];
	static struct fuzz f;

	if (f.fd == 0)
		setup(&f, seed);
	if (size < 1)
		return 0;
	f.choices = choices_of_input(data + 1, size - 1);
	if (data[0] % 8 < nitems(seed)) {
		run(&f, &seed[data[0] % 8], true);
	} else {
		f.choices = choices_of_seed(NULL);
		run_one(&f, data + 1, size - 1, false);
	}
	return 0;
}
#endif
