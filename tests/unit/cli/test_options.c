/* SPDX-License-Identifier: Apache-2.0 */
/* cli/run_*.c: what the command line and configuration files make of a machine. Errors and their texts are tests/golden's. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/log.h"
#include "cli/run.h"
#include "proto/status.h"

#define MIB (1ull << 20)

/* A folder with the files "kernel", "module" and those a test writes; it is the working directory of the test. */
static int enter(void **state)
{
	char *dir = strdup("/tmp/doppel-unit-XXXXXX");

	if (!dir || !mkdtemp(dir) || chdir(dir) < 0)
		return -1;
	close(open("kernel", O_WRONLY | O_CREAT, 0600));
	close(open("module", O_WRONLY | O_CREAT, 0600));
	if (mkdir("sub", 0700) < 0)
		return -1;
	*state = dir;
	return 0;
}

static int leave(void **state)
{
	static const char *const files[] = {"kernel", "module", "a.conf", "b.conf", "sub/c.conf"};

	for (size_t i = 0; i < nitems(files); i++)
		unlink(files[i]);
	rmdir("sub");
	if (chdir("/") < 0 || rmdir(*state) < 0)
		return -1;
	free(*state);
	return 0;
}

static void write_file(const char *name, const char *text)
{
	FILE *f = fopen(name, "w");

	assert_non_null(f);
	fputs(text, f);
	fclose(f);
}

/* Parses a command line of words; the request is the caller's to release. */
static int parse(struct run_request *req, const char *words)
{
	static char line[512];
	char *argv[32] = {"run"}, *save = NULL;
	int argc = 1, ret;

	snprintf(line, sizeof(line), "%s", words);
	for (char *w = strtok_r(line, " ", &save); w; w = strtok_r(NULL, " ", &save))
		argv[argc++] = w;
	memset(req, 0, sizeof(*req));
	ret = run_parse(req, argc, argv);
	return ret ? ret : run_open(req);
}

static void test_command_line(void **state)
{
	struct run_request req;

	(void)state;
	assert_int_equal(parse(&req, "--kernel kernel --memory 64 --append x=1 --module module,a --module module --no-reboot --no-balloon -n"), 0);
	assert_int_equal(req.config.memory, 64 * MIB);
	assert_string_equal(req.config.append, "x=1");
	assert_string_equal(req.config.kernel, "kernel");
	assert_string_equal(req.config.module[0], "module a");
	assert_string_equal(req.config.module[1], "module");
	assert_int_equal(req.config.nmodules, 2);
	assert_int_equal(req.config.nfds, 3);
	assert_int_equal(req.config.role[0], PROTO_FD_KERNEL);
	assert_int_equal(req.config.flags, PROTO_F_NO_REBOOT | PROTO_F_NO_BALLOON | PROTO_F_CHECK);
	assert_string_equal(req.config.engine, "auto");
	run_release(&req);
}

static void test_file(void **state)
{
	struct run_request req;

	(void)state;
	write_file("a.conf", "# first\r\n\n kernel=kernel\nappend =  a=b # c \t\r\nmemory = 3G\ndebug-exit = on\nno-reboot = no\n"
			     "module = module,one two\nmodule = module");
	assert_int_equal(parse(&req, "-c a.conf"), 0);
	assert_string_equal(req.config.append, "a=b # c");
	assert_int_equal(req.config.memory, 3072 * MIB);
	assert_int_equal(req.config.flags, PROTO_F_DEBUG_EXIT);
	assert_string_equal(req.config.module[0], "module one two");
	assert_int_equal(req.config.nmodules, 2);
	assert_string_equal(req.config.name, "a");
	run_release(&req);
}

/* The line wins over files and a later file over an earlier one, wherever they stand; what repeats is added up in that order. */
static void test_precedence(void **state)
{
	struct run_request req;

	(void)state;
	write_file("a.conf", "kernel = missing\nmemory = 64M\nappend = a\nmodule = module,a\nno-reboot = yes\nname = called\n");
	write_file("b.conf", "kernel = kernel\nmemory = 128M\nmodule = module,b\n");
	assert_int_equal(parse(&req, "--memory 256M --module module,l --no-reboot=no -c a.conf -c b.conf"), 0);
	assert_int_equal(req.config.memory, 256 * MIB);
	assert_string_equal(req.config.append, "a");
	assert_int_equal(req.config.flags, 0);
	assert_string_equal(req.config.module[0], "module a");
	assert_string_equal(req.config.module[1], "module b");
	assert_string_equal(req.config.module[2], "module l");
	assert_string_equal(req.config.name, "called");
	run_release(&req);
}

static void test_paths(void **state)
{
	struct run_request req;

	(void)state;
	write_file("sub/c.conf", "kernel = ../kernel\nmodule = ../module,x\n");
	assert_int_equal(parse(&req, "-c sub/c.conf --module module"), 0);
	assert_string_equal(req.config.kernel, "sub/../kernel");
	assert_int_equal(req.config.nfds, 3);
	assert_string_equal(req.config.name, "c");
	run_release(&req);
	assert_int_equal(parse(&req, "-c sub/c.conf --kernel /dev/null/nothing"), STATUS_START);
	run_release(&req);
}

static void test_sizes(void **state)
{
	static const struct { const char *text; uint64_t bytes; } good[] = {
		{"0", 0}, {"7", 7 * MIB}, {"1k", 1024}, {"2K", 2048}, {"3m", 3 * MIB}, {"1G", 1024 * MIB}, {"2T", 2048 * 1024 * MIB},
		{"17592186044415", 17592186044415ull * MIB},
	};
	static const char *const bad[] = {"", "-1", "+1", " 1", "1 ", "1KB", "0x10", "1.5G", "K", "17592186044416", "16777216T",
					  "99999999999999999999999"};
	uint64_t bytes;

	(void)state;
	for (size_t i = 0; i < nitems(good); i++) {
		assert_true(run_size(good[i].text, MIB, &bytes));
		assert_int_equal(bytes, good[i].bytes);
	}
	for (size_t i = 0; i < nitems(bad); i++)
		assert_false(run_size(bad[i], MIB, &bytes));
}

/* A refused machine keeps no descriptor. */
static void test_release(void **state)
{
	struct run_request req;
	int before = dup(0), after;

	(void)state;
	close(before);
	assert_int_equal(parse(&req, "--kernel kernel --module module --module missing"), STATUS_START);
	run_release(&req);
	after = dup(0);
	close(after);
	assert_int_equal(after, before);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_command_line, enter, leave),
		cmocka_unit_test_setup_teardown(test_file, enter, leave),
		cmocka_unit_test_setup_teardown(test_precedence, enter, leave),
		cmocka_unit_test_setup_teardown(test_paths, enter, leave),
		cmocka_unit_test(test_sizes),
		cmocka_unit_test_setup_teardown(test_release, enter, leave),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
