/* SPDX-License-Identifier: Apache-2.0 */
/* Which signals are taken over, and which are left to the parent's wish. */
#include "host/signals.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <time.h>

#include <cmocka.h>

#include "base/types.h"

static const int list[] = {SIGINT, SIGQUIT, SIGHUP, SIGTSTP, SIGTERM, SIGWINCH};

/* The signal that waits, or -1. */
static int waiting(const sigset_t *set)
{
	const struct timespec now = {0};

	return sigtimedwait(set, NULL, &now);
}

static int release(void **state)
{
	sigset_t set;

	(void)state;
	sigfillset(&set);
	sigprocmask(SIG_UNBLOCK, &set, NULL);
	for (size_t i = 0; i < nitems(list); i++)
		signal(list[i], SIG_DFL);
	return 0;
}

static void test_default(void **state)
{
	sigset_t set;

	(void)state;
	signals_take(&set, list, nitems(list));
	for (size_t i = 0; i < nitems(list); i++) {
		raise(list[i]);
		assert_int_equal(waiting(&set), list[i]);
	}
	assert_false(sigismember(&set, SIGUSR1));
}

/* Only what ends a session or comes from its keyboard is somebody else's to switch off. */
static void test_ignored(void **state)
{
	sigset_t set;

	(void)state;
	for (size_t i = 0; i < nitems(list); i++)
		signal(list[i], SIG_IGN);
	signals_take(&set, list, nitems(list));
	for (size_t i = 0; i < nitems(list); i++) {
		raise(list[i]);
		assert_int_equal(waiting(&set), i < 4 ? -1 : list[i]);
		assert_int_equal(sigismember(&set, list[i]), i >= 4);
	}
}

static void test_one_ignored(void **state)
{
	sigset_t set;

	(void)state;
	signal(SIGHUP, SIG_IGN);
	signals_take(&set, list, nitems(list));
	raise(SIGHUP);
	assert_int_equal(waiting(&set), -1);
	raise(SIGINT);
	assert_int_equal(waiting(&set), SIGINT);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_teardown(test_default, release),
		cmocka_unit_test_teardown(test_ignored, release),
		cmocka_unit_test_teardown(test_one_ignored, release),
	};

	release(NULL);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
