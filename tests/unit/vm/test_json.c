/* SPDX-License-Identifier: Apache-2.0 */
/* vm/json.c: nesting, escaping, and a full buffer. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "vm/json.h"

static void test_format(void **state)
{
	static const char want[] = "{\n  \"a\": 1,\n  \"b\": {\n    \"s\": \"x\\\"\\\\\\u000a\"\n  },\n  \"c\": 18446744073709551615\n}\n";
	static struct json j = {.first = true};

	(void)state;
	json_open(&j, NULL);
	json_number(&j, "a", 1);
	json_open(&j, "b");
	json_string(&j, "s", "x\"\\\n");
	json_close(&j);
	json_number(&j, "c", UINT64_MAX);
	json_close(&j);
	assert_false(j.overflow);
	assert_int_equal(j.len, sizeof(want) - 1);
	assert_memory_equal(j.buf, want, j.len);
}

static void test_overflow(void **state)
{
	static struct json j = {.first = true};

	(void)state;
	json_open(&j, NULL);
	for (int i = 0; i < 10000; i++)
		json_number(&j, "counter", (uint64_t)i);
	json_close(&j);
	assert_true(j.overflow);
	assert_true(j.len <= sizeof(j.buf));
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(test_format), cmocka_unit_test(test_overflow)};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
