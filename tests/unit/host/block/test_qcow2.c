/* SPDX-License-Identifier: Apache-2.0 */
/*
 * host/block/qcow2*: a random load against a plain array on images of every shape, made by us and by qemu-img; what we wrote is
 * found whole by qemu-img, and the other way round. Without qemu-img only ours are tested.
 */
#include "fixture.h"

#include "host/block/qcow2.h"

#define SIZE (6u << 20)
#define STEPS 700

static bool have_qemu;

__attribute__((format(printf, 1, 2))) static void run(const char *fmt, ...)
{
	char cmd[1024];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(cmd, sizeof(cmd), fmt, ap);
	va_end(ap);
	if (system(cmd) != 0)
		fail_msg("failed: %s", cmd);
}

static void make_ours(const char *path, uint64_t size, unsigned bits, enum qcow2_compression compression, const char *backing,
		      const char *format)
{
	const struct qcow2_new o = {.size = size, .cluster_bits = bits, .compression = compression, .backing = backing,
				    .backing_format = format};
	struct block_error err;
	int fd = open(path, O_RDWR | O_CREAT | O_TRUNC, 0600);

	assert_true(fd >= 0);
	if (qcow2_create(fd, &o, &err) < 0)
		fail_msg("%s", err.text);
	close(fd);
}

static void fill_model(uint8_t *model, uint64_t size, uint64_t seed)
{
	/* Stretches of text-like data, zeroes and noise, so that all ways of storing occur. */
	for (uint64_t at = 0; at < size; at += 4096)
		for (uint64_t i = 0; i < 4096 && at + i < size; i += 8) {
			uint64_t v = random_next(&seed);

			v = at / 65536 % 3 == 0 ? v : at / 65536 % 3 == 1 ? 0 : 0x6162636465666768ull + (at >> 12);
			memcpy(model + at + i, &v, 8);
		}
}

static void store(const char *path, const uint8_t *model, uint64_t size)
{
	int fd = open(path, O_RDWR | O_CREAT | O_TRUNC, 0600);

	assert_int_equal(pwrite(fd, model, size, 0), (ssize_t)size);
	close(fd);
}

/* qemu-img finds the image consistent and with the same content. */
static void verify_by_qemu(struct disk *d, const uint8_t *model, uint64_t size)
{
	char raw[160];

	if (!have_qemu)
		return;
	run("qemu-img check -q '%s' >'%s/check' 2>&1 || { cat '%s/check' >&2; false; }", d->path, d->dir, d->dir);
	snprintf(raw, sizeof(raw), "%s/model.raw", d->dir);
	store(raw, model, size);
	run("qemu-img compare -q -f raw -F qcow2 '%s' '%s'", raw, d->path);
}

/* The random load on d->path, which reads as the model; afterwards everything still agrees. */
static void exercise(struct disk *d, uint8_t *model, unsigned aio_flags, uint64_t seed)
{
	struct load *l = calloc(1, sizeof(*l));

	disk_open(d, BLOCK_QCOW2, seed & 1 ? BLOCK_TINY_CACHE : 0, aio_flags);
	disk_compare(d, model, SIZE);
	*l = (struct load){.d = d, .model = model, .size = SIZE, .seed = seed, .max = 600u << 10, .discards = true};
	load_run(l, STEPS);
	disk_compare(d, model, SIZE);
	disk_close(d);
	disk_open(d, BLOCK_QCOW2, BLOCK_RDONLY, aio_flags);
	disk_compare(d, model, SIZE);
	disk_close(d);
	verify_by_qemu(d, model, SIZE);
	free(l);
}

static void test_ours(void **state)
{
	static const unsigned bits[] = {9, 12, 16, 21};
	struct disk d;

	(void)state;
	for (size_t i = 0; i < nitems(bits); i++) {
		uint8_t *model = calloc(1, SIZE);

		disk_dir(&d);
		make_ours(d.path, SIZE, bits[i], QCOW2_ZLIB, NULL, NULL);
		exercise(&d, model, i & 1 ? BLOCK_AIO_NO_URING : 0, 77 + i);
		disk_remove_dir(&d);
		free(model);
	}
}

/* A chain of three, the lower ones of other sizes and formats. */
static void test_backing(void **state)
{
	uint8_t *model = calloc(1, SIZE);
	char base[160], middle[160];
	struct disk d;

	(void)state;
	disk_dir(&d);
	snprintf(base, sizeof(base), "%s/base.raw", d.dir);
	snprintf(middle, sizeof(middle), "%s/middle.qcow2", d.dir);
	fill_model(model, SIZE / 2, 5);
	store(base, model, SIZE / 2 - 512);
	memset(model + SIZE / 2 - 512, 0, 512);
	make_ours(middle, SIZE / 4 * 3, 12, QCOW2_ZLIB, "base.raw", "raw");
	make_ours(d.path, SIZE, 16, QCOW2_ZSTD, "middle.qcow2", "qcow2");
	exercise(&d, model, 0, 99);
	/* Nothing below has changed. */
	strcpy(d.path, middle);
	memset(model, 0, SIZE);
	fill_model(model, SIZE / 2, 5);
	memset(model + SIZE / 2 - 512, 0, 512);
	disk_open(&d, BLOCK_QCOW2, BLOCK_RDONLY, 0);
	disk_compare(&d, model, SIZE / 4 * 3);
	disk_close(&d);
	disk_remove_dir(&d);
	free(model);
}

/* Images by qemu-img: every cluster size, refcount width, version, preallocation, compression, internal snapshots. */
static void test_theirs(void **state)
{
	static const char *const options[] = {
		"cluster_size=512,refcount_bits=1", "cluster_size=1k,refcount_bits=2", "cluster_size=2k,refcount_bits=4",
		"cluster_size=4k,refcount_bits=8", "cluster_size=8k,refcount_bits=32", "cluster_size=64k,refcount_bits=64",
		"cluster_size=2M", "compat=0.10", "preallocation=metadata", "preallocation=falloc,cluster_size=16k",
		"lazy_refcounts=on",
	};
	struct disk d;

	(void)state;
	if (!have_qemu)
		skip();
	for (size_t i = 0; i < nitems(options); i++) {
		uint8_t *model = calloc(1, SIZE);

		disk_dir(&d);
		run("qemu-img create -q -f qcow2 -o %s '%s' %u", options[i], d.path, SIZE);
		exercise(&d, model, i & 1 ? 0 : BLOCK_AIO_NO_URING, 1000 + i);
		disk_remove_dir(&d);
		free(model);
	}
}

static void test_compressed(void **state)
{
	static const char *const options[] = {"compression_type=zlib", "compression_type=zstd", "compression_type=zlib,cluster_size=2M",
					      "compression_type=zstd,cluster_size=4k", "compat=0.10"};
	struct disk d;

	(void)state;
	if (!have_qemu)
		skip();
	for (size_t i = 0; i < nitems(options); i++) {
		uint8_t *model = calloc(1, SIZE);
		char raw[160];

		disk_dir(&d);
		snprintf(raw, sizeof(raw), "%s/raw", d.dir);
		fill_model(model, SIZE, 31 + i);
		store(raw, model, SIZE);
		run("qemu-img convert -q -c -f raw -O qcow2 -o %s '%s' '%s'", options[i], raw, d.path);
		exercise(&d, model, 0, 2000 + i);
		disk_remove_dir(&d);
		free(model);
	}
}

/* Writing to an image with internal snapshots leaves them as they were. */
static void test_snapshots(void **state)
{
	uint8_t *model = calloc(1, SIZE), *before = malloc(SIZE);
	struct disk d;
	char raw[160];

	(void)state;
	if (!have_qemu)
		skip();
	disk_dir(&d);
	snprintf(raw, sizeof(raw), "%s/raw", d.dir);
	fill_model(model, SIZE, 3);
	memcpy(before, model, SIZE);
	store(raw, model, SIZE);
	run("qemu-img convert -q -f raw -O qcow2 -o cluster_size=4k '%s' '%s'", raw, d.path);
	run("qemu-img snapshot -c one '%s'", d.path);
	exercise(&d, model, 0, 12345);
	run("qemu-img snapshot -c two '%s'", d.path);
	exercise(&d, model, 0, 54321);
	run("qemu-img convert -q -l one -O raw '%s' '%s/one'", d.path, d.dir);
	run("cmp '%s' '%s/one'", raw, d.dir);
	disk_remove_dir(&d);
	free(model);
	free(before);
}

/* The refcount table of a small image is too small for what is written: it grows. */
static void test_growth(void **state)
{
	enum { BIG = 20 << 20 };
	static uint8_t buf[1 << 20], got[1 << 20];
	struct disk d;

	(void)state;
	disk_dir(&d);
	make_ours(d.path, 64u << 20, 9, QCOW2_ZLIB, NULL, NULL);
	disk_open(&d, BLOCK_QCOW2, 0, 0);
	for (unsigned i = 0; i < BIG / sizeof(buf); i++) {
		memset(buf, (int)i + 1, sizeof(buf));
		assert_int_equal(disk_do(&d, BLOCK_WRITE, buf, sizeof(buf), (uint64_t)i * 2 * sizeof(buf)), 0);
		if (i % 7 == 0)
			assert_int_equal(disk_do(&d, BLOCK_FLUSH, NULL, 0, 0), 0);
	}
	disk_close(&d);
	disk_open(&d, BLOCK_QCOW2, BLOCK_RDONLY, 0);
	for (unsigned i = 0; i < BIG / sizeof(buf); i++) {
		memset(buf, (int)i + 1, sizeof(buf));
		assert_int_equal(disk_do(&d, BLOCK_READ, got, sizeof(got), (uint64_t)i * 2 * sizeof(buf)), 0);
		assert_memory_equal(buf, got, sizeof(got));
	}
	disk_close(&d);
	if (have_qemu)
		run("qemu-img check -q '%s'", d.path);
	disk_remove_dir(&d);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_ours), cmocka_unit_test(test_backing), cmocka_unit_test(test_theirs),
		cmocka_unit_test(test_compressed), cmocka_unit_test(test_snapshots), cmocka_unit_test(test_growth),
	};

	have_qemu = system("command -v qemu-img >/dev/null") == 0;
	return cmocka_run_group_tests(tests, NULL, NULL);
}
