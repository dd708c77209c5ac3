/* SPDX-License-Identifier: Apache-2.0 */
/* host/rundir.c: who may use the directory, who has a name, and what the dead leave. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "host/rundir.h"

static int enter(void **state)
{
	char *dir = strdup("/tmp/doppel-unit-XXXXXX");

	*state = dir;
	return dir && mkdtemp(dir) && setenv("XDG_RUNTIME_DIR", dir, 1) == 0 ? 0 : -1;
}

static int leave(void **state)
{
	char path[128];

	snprintf(path, sizeof(path), "%s/doppel", (char *)*state);
	(void)unlink(path);
	(void)rmdir(path);
	(void)rmdir(*state);
	free(*state);
	return 0;
}

static struct rundir open_it(void)
{
	struct rundir d;
	char why[256];

	assert_int_equal(rundir_open(&d, why, sizeof(why)), 0);
	return d;
}

static void test_private(void **state)
{
	struct rundir d = open_it();
	char why[256] = "";

	(void)state;
	assert_int_equal(chmod(d.path, 0750), 0);
	rundir_close(&d);
	assert_int_equal(rundir_open(&d, why, sizeof(why)), -EPERM);
	assert_non_null(strstr(why, "not yours alone"));
	assert_int_equal(chmod(d.path, 0700), 0);
	/* A link to a good directory is not one. */
	assert_int_equal(rmdir(d.path), 0);
	assert_int_equal(symlink("/tmp", d.path), 0);
	assert_true(rundir_open(&d, why, sizeof(why)) < 0);
	assert_int_equal(d.fd, -1);
}

static int count(void *opaque, const char *name)
{
	(void)name;
	++*(int *)opaque;
	return 0;
}

static void test_claim(void **state)
{
	struct rundir d = open_it();
	int lock, second, fd, n = 0;
	pid_t pid;

	(void)state;
	assert_int_equal(rundir_alive(&d, "web", &pid), -ENOENT);
	assert_int_equal(rundir_claim(&d, "web", &lock), 0);
	assert_int_equal(rundir_claim(&d, "web", &second), -EBUSY);
	assert_int_equal(rundir_alive(&d, "web", &pid), 1);
	assert_int_equal(pid, getpid());
	assert_false(rundir_clean(&d, "web"));
	assert_int_equal(rundir_listen(&d, "web", &fd), 0);
	second = rundir_connect(&d, "web");
	assert_true(second >= 0);
	close(second);
	close(fd);
	assert_int_equal(rundir_each(&d, count, &n), 0);
	assert_int_equal(n, 1);
	rundir_release(&d, "web");
	close(lock);
	assert_int_equal(rundir_alive(&d, "web", &pid), -ENOENT);
	rundir_close(&d);
}

/* The lock lives as long as any process that has the file, and no longer, whatever it dies of. */
static void test_killed(void **state)
{
	struct rundir d = open_it();
	int lock, fd, ready[2];
	pid_t child, pid;
	char byte;

	(void)state;
	assert_int_equal(pipe(ready), 0);
	assert_int_equal(rundir_claim(&d, "web", &lock), 0);
	assert_int_equal(rundir_listen(&d, "web", &fd), 0);
	close(fd);
	child = fork();
	if (child == 0) {
		(void)!write(ready[1], "x", 1);
		pause();
		_exit(0);
	}
	assert_int_equal(read(ready[0], &byte, 1), 1);
	close(lock);
	assert_int_equal(rundir_alive(&d, "web", &pid), 1);
	kill(child, SIGKILL);
	assert_int_equal(waitpid(child, NULL, 0), child);
	assert_int_equal(rundir_alive(&d, "web", &pid), 0);
	/* The next of that name finds the socket out of its way. */
	assert_int_equal(rundir_claim(&d, "web", &lock), 0);
	assert_int_equal(rundir_listen(&d, "web", &fd), 0);
	close(fd);
	close(lock);
	assert_true(rundir_clean(&d, "web"));
	assert_false(rundir_clean(&d, "web"));
	rundir_close(&d);
	close(ready[0]);
	close(ready[1]);
}

/* Files of a name are made where they belong or not at all. */
static void test_links(void **state)
{
	struct rundir d = open_it();
	int lock;

	(void)state;
	assert_int_equal(symlinkat("/tmp/doppel-unit-nowhere", d.fd, "web.lock"), 0);
	assert_int_equal(rundir_claim(&d, "web", &lock), -ELOOP);
	assert_int_equal(access("/tmp/doppel-unit-nowhere", F_OK), -1);
	assert_int_equal(unlinkat(d.fd, "web.lock", 0), 0);
	assert_int_equal(symlinkat("/tmp/doppel-unit-nowhere", d.fd, "web.log"), 0);
	assert_int_equal(rundir_log(&d, "web"), -ELOOP);
	assert_int_equal(unlinkat(d.fd, "web.log", 0), 0);
	rundir_close(&d);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_private, enter, leave),
		cmocka_unit_test_setup_teardown(test_claim, enter, leave),
		cmocka_unit_test_setup_teardown(test_killed, enter, leave),
		cmocka_unit_test_setup_teardown(test_links, enter, leave),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
