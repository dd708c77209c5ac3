/* SPDX-License-Identifier: Apache-2.0 */
/*
 * host/iso9660.c: a reader that follows ECMA-119 and Rock Ridge from the volume descriptor on finds the label, the names and
 * the contents; what does not fit is refused.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/types.h"
#include "host/iso9660.h"

#define SECTOR 2048u

struct found {
	char name[64], iso[64];
	const uint8_t *data;
	uint32_t size;
};

/* A number stored in both byte orders. */
static uint32_t both(const uint8_t *p)
{
	uint32_t le = p[0] | p[1] << 8 | p[2] << 16 | (uint32_t)p[3] << 24, be = p[7] | p[6] << 8 | p[5] << 16 | (uint32_t)p[4] << 24;

	assert_int_equal(le, be);
	return le;
}

static void read_record(const uint8_t *image, size_t size, const uint8_t *r, struct found *f)
{
	unsigned at = 33u + r[32] + !(r[32] & 1);

	*f = (struct found){.data = image + both(r + 2) * SECTOR, .size = both(r + 10)};
	assert_true(f->data + f->size <= image + size);
	memcpy(f->iso, r + 33, r[32]);
	while (at + 4 <= r[0]) {
		assert_true(r[at + 2] >= 4 && at + r[at + 2] <= r[0]);
		if (r[at] == 'N' && r[at + 1] == 'M') {
			assert_int_equal(r[at + 4], 0);
			memcpy(f->name, r + at + 5, r[at + 2] - 5u);
		}
		at += r[at + 2];
	}
}

static unsigned read_folder(const uint8_t *image, size_t size, struct found *f, unsigned max)
{
	const uint8_t *d = image + 16 * SECTOR, *folder, *r;
	unsigned n = 0;

	assert_memory_equal(d, "\1CD001\1", 7);
	assert_memory_equal(d + SECTOR, "\377CD001\1", 7);
	assert_int_equal(both(d + 80) * SECTOR, size);
	folder = image + both(d + 156 + 2) * SECTOR;
	/* "." tells that there are system use entries. */
	assert_memory_equal(folder + 34, "SP\7\1\276\357", 6);
	for (r = folder; r < folder + both(d + 156 + 10) && r[0]; r += r[0]) {
		assert_int_equal(r[0] & 1, 0);
		assert_true(n < max);
		read_record(image, size, r, &f[n++]);
	}
	return n;
}

static void test_files_are_found(void **state)
{
	static char big[5000];
	const struct iso9660_file file[] = {{"user-data", big, sizeof(big)}, {"meta-data", "m", 1}, {"network-config", "", 0}};
	struct found f[8];
	uint8_t *image;
	size_t size;

	(void)state;
	memset(big, 'u', sizeof(big));
	assert_int_equal(iso9660_build("cidata", file, nitems(file), &image, &size), 0);
	assert_int_equal(size % SECTOR, 0);
	assert_memory_equal(image + 16 * SECTOR + 40, "cidata                          ", 32);
	assert_int_equal(read_folder(image, size, f, nitems(f)), 2 + nitems(file));
	for (size_t i = 0; i < nitems(file); i++) {
		assert_string_equal(f[2 + i].name, file[i].name);
		assert_int_equal(f[2 + i].size, file[i].size);
		assert_memory_equal(f[2 + i].data, file[i].data, file[i].size);
	}
	assert_string_equal(f[2].iso, "USER_DATA.;1");
	free(image);
}

static void test_the_folder_is_full(void **state)
{
	struct iso9660_file file[ISO9660_MAX_FILES + 1];
	char name[ISO9660_NAME_MAX + 1];
	struct found f[16];
	uint8_t *image;
	size_t size;

	(void)state;
	memset(name, 'n', sizeof(name) - 1);
	name[sizeof(name) - 1] = 0;
	for (size_t i = 0; i < nitems(file); i++)
		file[i] = (struct iso9660_file){name, "x", 1};
	assert_int_equal(iso9660_build("v", file, ISO9660_MAX_FILES, &image, &size), 0);
	assert_int_equal(read_folder(image, size, f, nitems(f)), 2 + ISO9660_MAX_FILES);
	assert_string_equal(f[9].name, name);
	free(image);
	assert_int_equal(iso9660_build("v", file, ISO9660_MAX_FILES + 1, &image, &size), -EINVAL);
}

static void test_too_much_is_refused(void **state)
{
	struct iso9660_file file = {"a-name-that-is-longer-than-the-limit", "", 0};
	uint8_t *image;
	size_t size;

	(void)state;
	assert_int_equal(iso9660_build("v", &file, 1, &image, &size), -EINVAL);
	file = (struct iso9660_file){"a", "", UINT32_MAX};
	assert_int_equal(iso9660_build("v", &file, 1, &image, &size), -EINVAL);
	assert_int_equal(iso9660_build("a label that has more than 32 bytes", NULL, 0, &image, &size), -EINVAL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_files_are_found), cmocka_unit_test(test_the_folder_is_full),
		cmocka_unit_test(test_too_much_is_refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
