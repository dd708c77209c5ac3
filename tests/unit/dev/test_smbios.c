/* SPDX-License-Identifier: Apache-2.0 */
/* The SMBIOS tables, read the way an operating system does: anchor, checksum, then structure by structure. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "dev/platform/smbios.h"

#define BASE 0xf0000

/* Length of the structure at p with its strings, or 0 if it runs past end. */
static size_t whole(const uint8_t *p, const uint8_t *end)
{
	const uint8_t *s = p + p[1];

	while (s + 1 < end && (s[0] || s[1]))
		s++;
	return s + 2 <= end ? (size_t)(s + 2 - p) : 0;
}

static void test_walk(void **state)
{
	uint8_t buf[SMBIOS_TABLES_MAX], sum = 0;
	static const uint8_t types[] = {0, 1, 3, 127};
	int len = smbios_tables_build(buf, sizeof(buf), BASE);
	const uint8_t *p, *end = buf + len;
	uint64_t at;
	uint32_t size;

	(void)state;
	assert_true(len > 32);
	assert_memory_equal(buf, "_SM3_", 5);
	for (unsigned i = 0; i < buf[6]; i++)
		sum = (uint8_t)(sum + buf[i]);
	assert_int_equal(sum, 0);
	memcpy(&size, buf + 12, 4);
	memcpy(&at, buf + 16, 8);
	p = buf + (at - BASE);
	assert_ptr_equal(p + size, end);
	for (unsigned i = 0; i < sizeof(types); i++) {
		size_t n = whole(p, end);

		assert_int_equal(p[0], types[i]);
		assert_true(n >= 6);
		if (types[i] == 1)
			assert_string_equal((const char *)p + p[1], "doppel");
		p += n;
	}
	assert_ptr_equal(p, end);
}

static void test_too_small(void **state)
{
	uint8_t buf[SMBIOS_TABLES_MAX];
	int len = smbios_tables_build(buf, sizeof(buf), BASE);

	(void)state;
	for (int n = 0; n < len; n++)
		assert_true(smbios_tables_build(buf, (size_t)n, BASE) < 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(test_walk), cmocka_unit_test(test_too_small)};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
