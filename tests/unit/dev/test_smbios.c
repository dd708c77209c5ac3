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

static uint64_t field(const uint8_t *p, unsigned off, unsigned n)
{
	uint64_t val = 0;

	assert_true(off + n <= p[1]);
	memcpy(&val, p + off, n);
	return val;
}

/* The structure of a type, the nth of its kind; NULL if there is none. */
static const uint8_t *find(const uint8_t *buf, int len, uint8_t type, unsigned nth)
{
	for (const uint8_t *p = buf + 32, *end = buf + len; p < end; p += whole(p, end))
		if (p[0] == type && nth-- == 0)
			return p;
	return NULL;
}

/* String number `n` of the structure, or NULL. */
static const char *string(const uint8_t *p, unsigned n)
{
	const char *s = (const char *)p + p[1];

	while (--n && *s)
		s += strlen(s) + 1;
	return *s ? s : NULL;
}

static const struct smbios_config small = {
	.ncpus = 2, .mhz = 2500, .signature = 0xb00f20, .features = 0x178bfbff, .vendor = "AuthenticAMD", .brand = "A Processor",
	.low_ram = 1ull << 30};

static void test_walk(void **state)
{
	uint8_t buf[SMBIOS_TABLES_MAX], sum = 0;
	static const uint8_t types[] = {0, 1, 3, 4, 16, 17, 19, 32, 127};
	int len = smbios_tables_build(buf, sizeof(buf), BASE, &small);
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
		assert_int_equal(field(p, 2, 2), i); /* handles are all different */
		assert_true(n >= 6);
		if (types[i] == 1)
			assert_string_equal(string(p, 1), "doppel");
		p += n;
	}
	assert_ptr_equal(p, end);
}

static void test_processor(void **state)
{
	uint8_t buf[SMBIOS_TABLES_MAX];
	struct smbios_config c = small;
	int len = smbios_tables_build(buf, sizeof(buf), BASE, &c);
	const uint8_t *p = find(buf, len, 4, 0);

	(void)state;
	assert_non_null(p);
	assert_string_equal(string(p, p[7]), "AuthenticAMD");
	assert_int_equal(field(p, 8, 8), 0x178bfbff00b00f20);
	assert_string_equal(string(p, p[16]), "A Processor");
	assert_int_equal(field(p, 0x16, 2), 2500);
	for (unsigned i = 0; i < 3; i++) { /* cores, enabled, threads: narrow and wide */
		assert_int_equal(p[0x23 + i], 2);
		assert_int_equal(field(p, 0x2a + 2 * i, 2), 2);
	}
	/* Names that are not there must not cut the list of strings short. */
	c.vendor[0] = c.brand[0] = 0;
	len = smbios_tables_build(buf, sizeof(buf), BASE, &c);
	p = find(buf, len, 4, 0);
	assert_non_null(p);
	assert_string_equal(string(p, p[16]), "unknown");
	assert_non_null(find(buf, len, 127, 0));
}

static void test_memory(void **state)
{
	uint8_t buf[SMBIOS_TABLES_MAX];
	struct smbios_config c = small;
	int len = smbios_tables_build(buf, sizeof(buf), BASE, &c);
	const uint8_t *array = find(buf, len, 16, 0), *module = find(buf, len, 17, 0), *range = find(buf, len, 19, 0);

	(void)state;
	assert_true(array && module && range);
	assert_int_equal(field(array, 7, 4), 1 << 20);       /* KiB */
	assert_int_equal(field(module, 0xc, 2), 1024);       /* MiB */
	assert_int_equal(field(module, 4, 2), field(array, 2, 2));
	assert_int_equal(field(range, 0xc, 2), field(array, 2, 2));
	assert_int_equal(field(range, 4, 4), 0);
	assert_int_equal(field(range, 8, 4), (1 << 20) - 1);
	assert_null(find(buf, len, 19, 1));

	/* As much as there can be: the narrow fields refer to the wide ones. */
	c.low_ram = 3ull << 30;
	c.high_ram = 8189ull << 30;
	len = smbios_tables_build(buf, sizeof(buf), BASE, &c);
	array = find(buf, len, 16, 0);
	module = find(buf, len, 17, 0);
	range = find(buf, len, 19, 1);
	assert_true(array && module && range);
	assert_int_equal(field(array, 7, 4), 0x80000000);
	assert_int_equal(field(array, 0xf, 8), 8ull << 40);
	assert_int_equal(field(module, 0xc, 2), 0x7fff);
	assert_int_equal(field(module, 0x1c, 4), 8 << 20);
	assert_int_equal(field(range, 4, 4), UINT32_MAX);
	assert_int_equal(field(range, 8, 4), UINT32_MAX);
	assert_int_equal(field(range, 0xf, 8), 4ull << 30);
	assert_int_equal(field(range, 0x17, 8), (8193ull << 30) - 1);
}

static void test_refused(void **state)
{
	uint8_t buf[SMBIOS_TABLES_MAX];
	struct smbios_config c = small;
	int len = smbios_tables_build(buf, sizeof(buf), BASE, &c);

	(void)state;
	for (int n = 0; n < len; n++)
		assert_true(smbios_tables_build(buf, (size_t)n, BASE, &c) < 0);
	memset(c.brand, 'x', sizeof(c.brand));
	assert_true(smbios_tables_build(buf, sizeof(buf), BASE, &c) < 0);
	/* The longest names fit. */
	memset(c.vendor, 'x', sizeof(c.vendor) - 1);
	c.brand[sizeof(c.brand) - 1] = 0;
	assert_true(smbios_tables_build(buf, sizeof(buf), BASE, &c) > len);
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(test_walk), cmocka_unit_test(test_processor), cmocka_unit_test(test_memory),
					   cmocka_unit_test(test_refused)};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
