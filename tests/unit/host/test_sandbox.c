/* SPDX-License-Identifier: Apache-2.0 */
/* host/sandbox.c: sealed processes do what running a machine takes, and die of anything else. Each case runs in a child. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

#include "base/types.h"
#include "host/sandbox.h"

static void *page;

static long do_open(void) { return open("/etc/passwd", O_RDONLY); }
static long do_socket(void) { return socket(AF_UNIX, SOCK_STREAM, 0); }
static long do_fork(void) { return fork(); }
static long do_exec(void) { return execl("/bin/true", "true", (char *)NULL); }
static long do_kill(void) { return kill(getppid(), 0); }
static long do_tgkill(void) { return syscall(SYS_tgkill, 1, 1, 0); }
static long do_mmap_exec(void) { return (long)mmap(NULL, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0); }
static long do_mprotect_exec(void) { return mprotect(page, 4096, PROT_READ | PROT_EXEC); }
static long do_sti(void) { return ioctl(0, TIOCSTI, "x"); }
static long do_tty_elsewhere(void) { struct termios t; return ioctl(1, TCGETS, &t); }
static long do_unshare(void) { return unshare(CLONE_NEWUSER); }
static long do_ptrace(void) { return syscall(SYS_ptrace, 0, 0, 0, 0); }
static long do_io_uring(void) { return syscall(SYS_io_uring_setup, 1, NULL); }
static long do_getsockopt(void) { int v; socklen_t n = sizeof(v); return getsockopt(0, SOL_SOCKET, SO_TYPE, &v, &n); }
static long do_compat(void)
{
	long r;

	/* The 32-bit entry: numbers mean something else there, so the filter must refuse the whole architecture. */
	__asm__ volatile("int $0x80" : "=a"(r) : "a"(20) : "memory");
	return r;
}

static long do_work(void)
{
	struct timespec ts = {.tv_nsec = 1000};
	struct termios t;
	void *p;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	nanosleep(&(struct timespec){.tv_nsec = 1000}, NULL);
	p = mmap(NULL, 1 << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	memset(p, 1, 1 << 20);
	mprotect(p, 4096, PROT_READ);
	munmap(p, 1 << 20);
	free(malloc(1 << 22));
	(void)ioctl(0, TCGETS, &t);
	return 0;
}

/* Wait status of a sealed child that did it. */
static int sealed(long (*what)(void))
{
	int status;
	pid_t pid = fork();

	if (pid == 0) {
		int ret;

		sandbox_enter(0);
		ret = sandbox_seal(0, -1, NULL, 0);
		if (ret == -ENOSYS)
			_exit(77);
		if (ret < 0)
			_exit(99);
		what();
		_exit(0);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	return status;
}

static void test_allowed(void **state)
{
	int status = sealed(do_work);

	(void)state;
	assert_true(WIFEXITED(status));
	if (WEXITSTATUS(status) == 77)
		skip();
	assert_int_equal(WEXITSTATUS(status), 0);
}

static void test_forbidden(void **state)
{
	static long (*const cases[])(void) = {do_open, do_socket, do_fork, do_exec, do_kill, do_tgkill, do_mmap_exec,
					      do_mprotect_exec, do_sti, do_tty_elsewhere, do_unshare, do_ptrace, do_io_uring,
					      do_getsockopt, do_compat};

	(void)state;
	for (size_t i = 0; i < nitems(cases); i++) {
		int status = sealed(cases[i]);

		if (WIFEXITED(status) && WEXITSTATUS(status) == 77)
			skip();
		if (!WIFSIGNALED(status) || WTERMSIG(status) != SIGSYS)
			fail_msg("case %zu: status %#x", i, status);
	}
}

static void test_layers(void **state)
{
	int status;
	pid_t pid = fork();

	(void)state;
	if (pid == 0) {
		unsigned want = SANDBOX_NO_CAPS | SANDBOX_NO_NEW_PRIVS, got = sandbox_enter(0);

		_exit((got & want) == want && dup2(0, SANDBOX_NOFILE) < 0 ? 0 : 1);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_allowed),
		cmocka_unit_test(test_forbidden),
		cmocka_unit_test(test_layers),
	};

	page = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
