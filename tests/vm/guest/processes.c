/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Processes: fork, exec, and how a process dies.
 */
#include <sched.h>
#include <sys/wait.h>

#include "vmtest.h"

void test_fork(void)
{
	static volatile int shared_by_cow = 1;
	int *page = mmap(NULL, 4096 * 16, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	int *common = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

	for (int i = 0; i < 16; i++)
		page[i * 1024] = i;
	for (int n = 0; n < 20; n++) {
		pid_t pid = fork();

		CHECK(pid >= 0);
		if (pid == 0) {
			shared_by_cow = 100 + n;
			for (int i = 0; i < 16; i++)
				page[i * 1024] += 1000;
			*common = n;
			_exit(page[5 * 1024] == 1005 && shared_by_cow == 100 + n ? n : 255);
		}
		CHECK_EQ(wait_status(pid), n << 8);
		CHECK_EQ(*common, n);
	}
	CHECK_EQ(shared_by_cow, 1);
	for (int i = 0; i < 16; i++)
		CHECK_EQ(page[i * 1024], i);
}

/* Many processes alive at once, each with its own value at the same address. */
void test_fork_many(void)
{
	pid_t pids[30];
	volatile long value = -1;
	int p[2];
	char c;

	CHECK(pipe(p) == 0);
	for (size_t i = 0; i < nitems(pids); i++) {
		pids[i] = fork();
		if (pids[i] == 0) {
			close(p[1]);
			value = i;
			if (read(p[0], &c, 1) != 0) /* until every sibling exists */
				_exit(200);
			for (int k = 0; k < 20; k++)
				sched_yield();
			_exit(value);
		}
	}
	close(p[1]);
	for (size_t i = 0; i < nitems(pids); i++)
		CHECK_EQ(wait_status(pids[i]), i << 8);
}

void test_exec(void)
{
	char *const env[] = {"VMTEST=from-exec", NULL};

	for (int i = 0; i < 5; i++) {
		pid_t pid = fork();

		if (pid == 0) {
			execle(self, self, "--exec-child", "argument two", NULL, env);
			_exit(99);
		}
		CHECK_EQ(wait_status(pid), 42 << 8);
	}
	CHECK(execl("/nonexistent", "x", NULL) == -1 && errno == ENOENT);
	CHECK(execl("/proc/self/mem", "x", NULL) == -1);
}

int exec_child(int argc, char **argv)
{
	const char *env = getenv("VMTEST");

	return argc == 3 && !strcmp(argv[2], "argument two") && env && !strcmp(env, "from-exec") ? 42 : 1;
}

void test_crash_status(void)
{
	static const struct {
		int how, sig;
	} crash[] = {{0, SIGSEGV}, {1, SIGILL}, {2, SIGFPE}, {3, SIGTRAP}, {4, SIGSEGV}, {5, SIGABRT}, {6, SIGSEGV}};

	for (size_t i = 0; i < nitems(crash); i++) {
		pid_t pid = fork();

		if (pid == 0) {
			volatile int zero = 0;

			switch (crash[i].how) {
			case 0: *(volatile int *)16 = 1; break;
			case 1: __asm__ volatile("ud2"); break;
			case 2: __asm__ volatile("xorl %%edx,%%edx; movl $1,%%eax; divl %0" ::"m"(zero) : "eax", "edx"); break;
			case 3: __asm__ volatile("int3"); break;
			case 4: __asm__ volatile("hlt"); break;
			case 5: abort();
			case 6: __asm__ volatile("xorl %%esp,%%esp; push %%rax" ::: "memory"); break;
			}
			_exit(0);
		}
		CHECK_EQ(WTERMSIG(wait_status(pid)), crash[i].sig);
	}
}
