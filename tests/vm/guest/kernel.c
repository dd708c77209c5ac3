/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Kernel interfaces: system calls, /proc, pipes, ptrace's single step and breakpoints, CPUID.
 */
#include <fcntl.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/user.h>
#include <sys/wait.h>

#include "vmtest.h"

void test_proc_maps(void)
{
	FILE *f = fopen("/proc/self/maps", "r");
	char line[256];
	int found = 0;

	CHECK(f);
	while (fgets(line, sizeof(line), f)) {
		uintptr_t lo, hi;
		char perm[8];

		CHECK(sscanf(line, "%lx-%lx %7s", &lo, &hi, perm) == 3 && lo < hi);
		if (strstr(line, "[stack]")) {
			CHECK(lo <= (uintptr_t)&found && (uintptr_t)&found < hi);
			found |= 1;
		}
		if (strstr(line, "[vdso]"))
			found |= 2;
		if ((uintptr_t)test_proc_maps >= lo && (uintptr_t)test_proc_maps < hi)
			found |= !strcmp(perm, "r-xp") ? 4 : 0;
	}
	fclose(f);
	CHECK_EQ(found, 7);
}

void test_syscalls(void)
{
	int fd = open("/dev/zero", O_RDONLY), ret;
	uint64_t rcx, r11;

	CHECK(read(fd, (void *)0x10, 8) == -1 && errno == EFAULT);
	CHECK(write(1, (void *)0x8000000000000000, 8) == -1);
	CHECK(syscall(9999) == -1 && errno == ENOSYS);
	/* SYSCALL leaves the return address in RCX and RFLAGS in R11. */
	__asm__ volatile("lea 1f(%%rip), %%rdx; syscall; 1: subq %%rdx, %%rcx" : "=c"(rcx) : "a"(SYS_getpid) : "rdx", "r11", "memory");
	CHECK_EQ(rcx, 0);
	__asm__ volatile("syscall; pushfq; popq %%rdx; xorq %%rdx, %%r11; movq %%r11, %0"
			 : "=r"(r11) : "a"(SYS_getpid) : "rdx", "rcx", "r11", "memory");
	CHECK_EQ(r11 & 0xfd5 & ~0x8d5, 0);
	/* The 32-bit gate from 64-bit code: getpid is 20 there. */
	__asm__ volatile("int $0x80" : "=a"(ret) : "0"(20) : "r8", "r9", "r10", "r11", "memory");
	CHECK_EQ(ret, getpid());
	for (int i = 0; i < 5000; i++)
		syscall(SYS_getppid);
}

void test_pipes(void)
{
	int a[2], b[2], sv[2];
	char buf[4096];
	size_t total = 0;
	ssize_t n;
	pid_t pid;

	CHECK(pipe(a) == 0 && pipe(b) == 0 && socketpair(AF_UNIX, SOCK_STREAM, 0, sv) == 0);
	pid = fork();
	if (pid == 0) {
		close(a[1]);
		close(b[0]);
		while ((n = read(a[0], buf, sizeof(buf))) > 0)
			if (write(b[1], buf, n) != n)
				_exit(1);
		_exit(0);
	}
	close(a[0]);
	close(b[1]);
	for (int i = 0; i < 100; i++) {
		memset(buf, i, sizeof(buf));
		CHECK(write(a[1], buf, 1000 + i) == 1000 + i);
		for (ssize_t got = 0; got < 1000 + i; got += n) {
			n = read(b[0], buf, 1000 + i - got);
			CHECK(n > 0 && buf[n - 1] == i);
			total += n;
		}
	}
	close(a[1]);
	CHECK_EQ(wait_status(pid), 0);
	CHECK_EQ(total, 104950);
	CHECK(send(sv[0], "hello", 6, 0) == 6 && recv(sv[1], buf, 64, 0) == 6 && !strcmp(buf, "hello"));
}

/* Single step and a hardware breakpoint, through ptrace. */
void test_ptrace(void)
{
	static volatile int watched;
	struct user_regs_struct regs;
	int status, steps = 0;
	pid_t pid = fork();

	if (pid == 0) {
		ptrace(PTRACE_TRACEME, 0, NULL, NULL);
		raise(SIGSTOP);
		__asm__ volatile("nop; nop; nop; nop; nop; int3");
		for (volatile int i = 0; i < 1000; i++)
			;
		watched = 5;
		_exit(3);
	}
	CHECK(waitpid(pid, &status, 0) == pid && WIFSTOPPED(status));
	for (;;) {
		CHECK(ptrace(PTRACE_SINGLESTEP, pid, NULL, NULL) == 0);
		CHECK(waitpid(pid, &status, 0) == pid && WIFSTOPPED(status) && WSTOPSIG(status) == SIGTRAP);
		steps++;
		ptrace(PTRACE_GETREGS, pid, NULL, &regs);
		if ((ptrace(PTRACE_PEEKTEXT, pid, (void *)(regs.rip - 1), NULL) & 0xff) == 0xcc)
			break;
		CHECK(steps < 10000);
	}
	CHECK(steps > 8);
	CHECK(ptrace(PTRACE_POKEUSER, pid, offsetof(struct user, u_debugreg[0]), &watched) == 0);
	CHECK(ptrace(PTRACE_POKEUSER, pid, offsetof(struct user, u_debugreg[7]), 0xd0001) == 0); /* write, 4 bytes, DR0 */
	CHECK(ptrace(PTRACE_CONT, pid, NULL, NULL) == 0);
	CHECK(waitpid(pid, &status, 0) == pid && WIFSTOPPED(status) && WSTOPSIG(status) == SIGTRAP);
	CHECK_EQ(ptrace(PTRACE_PEEKUSER, pid, offsetof(struct user, u_debugreg[6]), NULL) & 0xf, 1);
	CHECK_EQ(ptrace(PTRACE_PEEKDATA, pid, &watched, NULL) & 0xffffffff, 5);
	CHECK(ptrace(PTRACE_CONT, pid, NULL, NULL) == 0);
	CHECK_EQ(wait_status(pid), 3 << 8);
}

static void trap_counter(int sig, siginfo_t *si, void *ctx)
{
	ucontext_t *uc = ctx;

	(void)sig;
	(void)si;
	signals_seen++;
	if (signals_seen == 10)
		uc->uc_mcontext.gregs[REG_EFL] &= ~0x100l;
}

/* The process sets TF itself: a trap after each instruction until the handler clears it. */
void test_trap_flag(void)
{
	struct sigaction sa = {.sa_sigaction = trap_counter, .sa_flags = SA_SIGINFO};
	uint64_t n = 0;

	sigaction(SIGTRAP, &sa, NULL);
	__asm__ volatile("pushfq; orq $0x100, (%%rsp); popfq\n"
			 "incq %0; incq %0; incq %0; incq %0; incq %0; incq %0; incq %0; incq %0; incq %0; incq %0; incq %0; incq %0"
			 : "+r"(n)::"cc", "memory");
	CHECK_EQ(n, 12);
	CHECK_EQ(signals_seen, 10);
}

void test_cpuid(void)
{
	uint32_t a, b, c, d;

	__asm__ volatile("cpuid" : "=a"(a), "=b"(b), "=c"(c), "=d"(d) : "a"(1), "c"(0));
	CHECK(d & 1 << 26 && c & 1 << 23 && c & 1 << 28); /* SSE2, POPCNT, AVX */
	CHECK(c & 1u << 31);                              /* a hypervisor says so */
	CHECK(c & 1 << 27);                               /* the kernel uses XSAVE */
	__asm__ volatile("xgetbv" : "=a"(a), "=d"(d) : "c"(0));
	CHECK_EQ(a & 7, 7);
	__asm__ volatile("cpuid" : "=a"(a), "=b"(b), "=c"(c), "=d"(d) : "a"(0x80000001), "c"(0));
	CHECK(d & 1 << 29 && d & 1 << 11 && d & 1 << 20); /* long mode, SYSCALL, NX */
}
