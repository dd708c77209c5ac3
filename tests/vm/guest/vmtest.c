/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Runs inside the guest: user-space behaviour that depends on the machine underneath. Prints "ok NAME" or
 * "not ok NAME: WHY" per test and "vmtest done" at the end. Static, so that it needs nothing from the guest.
 *
 * Every test runs in a child of its own with a time limit: a test that crashes or hangs fails alone. Expected values are
 * what the manuals say or what any x86-64 computes; nothing is compared with a previous run.
 */
#include <stdarg.h>
#include <sys/resource.h>
#include <sys/wait.h>

#include "vmtest.h"

const char *self;
static const char *current = "?";

void fail(const char *fmt, ...)
{
	char why[200];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(why, sizeof(why), fmt, ap);
	va_end(ap);
	printf("not ok %s: %s\n", current, why);
	fflush(stdout);
	_exit(1);
}

uint64_t now_ns(clockid_t clock)
{
	struct timespec ts;

	clock_gettime(clock, &ts);
	return ts.tv_sec * 1000000000ull + ts.tv_nsec;
}

int wait_status(pid_t pid)
{
	int status = -1;

	CHECK_EQ(waitpid(pid, &status, 0), pid);
	return status;
}

/* --- the table ---------------------------------------------------------------------------------------------------- */

static const struct test {
	const char *name;
	void (*run)(void);
} tests[] = {
	{"fork", test_fork},
	{"fork-many", test_fork_many},
	{"exec", test_exec},
	{"crash-status", test_crash_status},
	{"signals", test_signals},
	{"fault-info", test_fault_info},
	{"fault-regs", test_fault_regs},
	{"arith-fault", test_arith_fault},
	{"sigaltstack", test_sigaltstack},
	{"signal-fpu", test_signal_fpu},
	{"threads", test_threads},
	{"clone-futex", test_clone_futex},
	{"atomics", test_atomics},
	{"mmap", test_mmap},
	{"file-map", test_file_map},
	{"copy", test_copy},
	{"jit", test_jit},
	{"selfmod", test_selfmod},
	{"crossmod", test_crossmod},
	{"float", test_float},
	{"x87", test_x87},
	{"avx", test_avx},
	{"fpu-switch", test_fpu_switch},
	{"vdso-time", test_vdso_time},
	{"sleep", test_sleep},
	{"itimer", test_itimer},
	{"proc-maps", test_proc_maps},
	{"syscalls", test_syscalls},
	{"pipes", test_pipes},
	{"ptrace", test_ptrace},
	{"trap-flag", test_trap_flag},
	{"cpuid", test_cpuid},
}, folder_tests[] = {
	{"folder-write", folder_write},
	{"folder-append", folder_append},
	{"folder-big", folder_big},
	{"folder-mmap", folder_mmap},
	{"folder-rename", folder_rename},
	{"folder-links", folder_links},
	{"folder-modes", folder_modes},
	{"folder-many", folder_many},
	{"folder-names", folder_names},
	{"folder-open-gone", folder_open_gone},
	{"folder-exec", folder_exec},
};

static void run_test(const struct test *t)
{
	int status;
	pid_t pid;

	current = t->name;
	fflush(stdout);
	pid = fork();
	if (pid == 0) {
		alarm(120);
		t->run();
		_exit(0);
	}
	waitpid(pid, &status, 0);
	if (WIFSIGNALED(status))
		printf("not ok %s: killed by signal %d\n", t->name, WTERMSIG(status));
	else if (status == 0)
		printf("ok %s\n", t->name);
}

int main(int argc, char **argv)
{
	struct rlimit no_core = {0, 0};

	self = argv[0];
	setrlimit(RLIMIT_CORE, &no_core);
	if (argc > 1 && !strcmp(argv[1], "--exec-child"))
		return exec_child(argc, argv);
	if (argc > 1 && !strcmp(argv[1], "--power-button"))
		return power_button();
	if (argc > 1 && !strcmp(argv[1], "--vsock"))
		return vsock_services();
	if (argc > 2 && !strcmp(argv[1], "--folder")) {
		for (size_t i = 0; chdir(argv[2]) == 0 && i < nitems(folder_tests); i++)
			run_test(&folder_tests[i]);
		return 0;
	}
	for (size_t i = 0; i < nitems(tests); i++)
		if (argc == 1 || !strcmp(argv[1], tests[i].name))
			run_test(&tests[i]);
	puts("vmtest done");
	return 0;
}
