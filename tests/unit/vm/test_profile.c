/* SPDX-License-Identifier: Apache-2.0 */
/* base/prof.h: samples find their kind and their activity; vm/symbols.c: our own functions have names. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "base/prof.h"
#include "vm/json.h"
#include "vm/symbols.h"

static int create(void **state)
{
	*state = calloc(1, sizeof(struct prof));
	return *state ? 0 : -1;
}

static int destroy(void **state)
{
	free(*state);
	return 0;
}

static void test_kinds(void **state)
{
	struct prof *p = *state;
	unsigned was;

	prof_sample(p);
	assert_int_equal(p->samples[PROF_OTHER][PROF_ENGINE], 1);
	prof_insn(p, 7);
	prof_sample(p);
	assert_int_equal(p->samples[PROF_INSN + 7][PROF_ENGINE], 1);
	/* What it is for is known when it is over. */
	prof_open(p);
	prof_sample(p);
	was = prof_begin(p, PROF_WALK);
	prof_sample(p);
	prof_sample(p);
	prof_end(p, was);
	prof_book(p, PROF_FILL_READ);
	assert_int_equal(p->samples[PROF_FILL_READ][PROF_ENGINE], 1);
	assert_int_equal(p->samples[PROF_FILL_READ][PROF_WALK], 2);
	assert_int_equal(p->count[PROF_FILL_READ], 1);
	prof_sample(p);
	assert_int_equal(p->samples[PROF_OTHER][PROF_ENGINE], 2);
}

static void test_nesting(void **state)
{
	struct prof *p = *state;
	unsigned outer = prof_begin(p, PROF_TRANSLATE), inner = prof_begin(p, PROF_WALK);

	prof_sample(p);
	prof_end(p, inner);
	prof_sample(p);
	prof_end(p, outer);
	prof_sample(p);
	assert_int_equal(p->samples[PROF_OTHER][PROF_WALK], 1);
	assert_int_equal(p->samples[PROF_OTHER][PROF_TRANSLATE], 1);
	assert_int_equal(p->samples[PROF_OTHER][PROF_ENGINE], 1);
}

static void test_unprofiled(void **state)
{
	(void)state;
	prof_end(NULL, prof_begin(NULL, PROF_WALK));
	prof_insn(NULL, 1);
}

static void test_bounds(void **state)
{
	struct prof *p = *state;
	static char owner[2 * PROF_DEVICES];

	prof_open(p);
	prof_sample(p);
	prof_book(p, PROF_KINDS);
	assert_int_equal(p->samples[PROF_OTHER][PROF_ENGINE], 1);
	/* More devices than there is room for share the last place. */
	for (unsigned i = 0; i < 2 * PROF_DEVICES; i++) {
		p->device = (uint8_t)prof_device(p, &owner[i], i);
		assert_true(p->device < PROF_DEVICES);
	}
	assert_int_equal(prof_device(p, &owner[5], 0), 5);
	assert_int_equal(p->dev[5].count, 2);
	assert_int_equal(p->dev[5].where, 5);
	prof_begin(p, PROF_DEVICE);
	p->device = 5;
	prof_sample(p);
	assert_int_equal(p->dev[5].samples, 1);
}

static void test_symbols(void **state)
{
	struct symbols s;
	unsigned i;

	(void)state;
	assert_int_equal(symbols_load(&s), 0);
	i = symbols_find(&s, (uintptr_t)json_number + 3);
	assert_true(i < s.n);
	assert_string_equal(s.e[i].name, "json_number");
	i = symbols_find(&s, (uintptr_t)strtoul);
	assert_true(i < s.n && strstr(s.e[i].name, "libc.so"));
	assert_int_equal(symbols_find(&s, 0), s.n);
	assert_int_equal(symbols_find(&s, UINTPTR_MAX), s.n);
	free(s.e);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_kinds, create, destroy),
		cmocka_unit_test_setup_teardown(test_nesting, create, destroy),
		cmocka_unit_test(test_unprofiled),
		cmocka_unit_test_setup_teardown(test_bounds, create, destroy),
		cmocka_unit_test(test_symbols),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
