/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Runs inside the guest: user-space behaviour that depends on the machine underneath. Prints "ok NAME" or
 * "not ok NAME: WHY" per test and "vmtest done" at the end. Static, so that it needs nothing from the guest.
 *
 * Every test runs in a child of its own with a time limit: a test that crashes or hangs fails alone. Expected values are
 * what the manuals say or what any x86-64 computes; nothing is compared with a previous run.
 */
#include <errno.h>
#include <fcntl.h>
#include <fenv.h>
#include <immintrin.h>
#include <linux/futex.h>
#include <math.h>
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/ucontext.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define nitems(a) (sizeof(a) / sizeof((a)[0]))

static const char *self;
static const char *current = "?";

static __attribute__((noreturn, format(printf, 1, 2))) void fail(const char *fmt, ...)
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

#define CHECK(cond)                                                                                                    \
	do {                                                                                                           \
		if (!(cond))                                                                                           \
			fail("line %d: %s", __LINE__, #cond);                                                          \
	} while (0)
#define CHECK_EQ(a, b)                                                                                                 \
	do {                                                                                                           \
		unsigned long long got_ = (unsigned long long)(a), want_ = (unsigned long long)(b);                    \
		if (got_ != want_)                                                                                     \
			fail("line %d: %s is %#llx, not %#llx", __LINE__, #a, got_, want_);                            \
	} while (0)

static uint64_t now_ns(clockid_t clock)
{
	struct timespec ts;

	clock_gettime(clock, &ts);
	return ts.tv_sec * 1000000000ull + ts.tv_nsec;
}

static int wait_status(pid_t pid)
{
	int status = -1;

	CHECK_EQ(waitpid(pid, &status, 0), pid);
	return status;
}

/* --- processes ---------------------------------------------------------------------------------------------------- */

static void test_fork(void)
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
static void test_fork_many(void)
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

static void test_exec(void)
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

static int exec_child(int argc, char **argv)
{
	const char *env = getenv("VMTEST");

	return argc == 3 && !strcmp(argv[2], "argument two") && env && !strcmp(env, "from-exec") ? 42 : 1;
}

static void test_crash_status(void)
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

/* --- signals ------------------------------------------------------------------------------------------------------ */

static sigjmp_buf out;
static volatile struct {
	int sig, code;
	uintptr_t addr, rip, err, trapno, sp;
} seen;

static void note_signal(int sig, siginfo_t *si, void *ctx)
{
	const ucontext_t *uc = ctx;
	int on_stack;

	seen.sig = sig;
	seen.code = si->si_code;
	seen.addr = (uintptr_t)si->si_addr;
	seen.rip = uc->uc_mcontext.gregs[REG_RIP];
	seen.err = uc->uc_mcontext.gregs[REG_ERR];
	seen.trapno = uc->uc_mcontext.gregs[REG_TRAPNO];
	seen.sp = (uintptr_t)&on_stack;
	siglongjmp(out, 1);
}

static void catch_signals(bool alt)
{
	static const int sigs[] = {SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGTRAP};
	struct sigaction sa = {.sa_sigaction = note_signal, .sa_flags = SA_SIGINFO | (alt ? SA_ONSTACK : 0)};

	for (size_t i = 0; i < nitems(sigs); i++)
		CHECK(sigaction(sigs[i], &sa, NULL) == 0);
}

/* Runs a statement that must fault and checks what the signal handler was told. */
#define EXPECT_FAULT(stmt_, sig_, code_, trap_)                                                                         \
	do {                                                                                                           \
		seen.sig = 0;                                                                                          \
		if (sigsetjmp(out, 1) == 0) {                                                                          \
			stmt_;                                                                                         \
			fail("line %d: no signal", __LINE__);                                                          \
		}                                                                                                      \
		CHECK_EQ(seen.sig, sig_);                                                                              \
		CHECK_EQ(seen.code, code_);                                                                            \
		CHECK_EQ(seen.trapno, trap_);                                                                          \
	} while (0)

static void test_fault_info(void)
{
	uint8_t *p = mmap(NULL, 3 * 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	uint8_t *gone = p + 2 * 4096;
	volatile uint64_t sink;

	catch_signals(false);
	munmap(gone, 4096);
	EXPECT_FAULT(sink = *(volatile uint8_t *)(gone + 123), SIGSEGV, SEGV_MAPERR, 14);
	CHECK_EQ(seen.addr, gone + 123);
	CHECK_EQ(seen.err, 4);
	EXPECT_FAULT(*(volatile uint8_t *)(gone + 7) = 1, SIGSEGV, SEGV_MAPERR, 14);
	CHECK_EQ(seen.addr, gone + 7);
	CHECK_EQ(seen.err, 6);
	/* Crossing into the missing page: the address is its first byte, and nothing is written. */
	memset(p, 0, 2 * 4096);
	EXPECT_FAULT(*(volatile uint64_t *)(gone - 3) = ~0ull, SIGSEGV, SEGV_MAPERR, 14);
	CHECK_EQ(seen.addr, gone);
	CHECK_EQ(gone[-3] | gone[-2] | gone[-1], 0);
	mprotect(p, 4096, PROT_READ);
	sink = p[5];
	EXPECT_FAULT(*(volatile uint8_t *)(p + 5) = 1, SIGSEGV, SEGV_ACCERR, 14);
	CHECK_EQ(seen.addr, p + 5);
	CHECK_EQ(seen.err, 7);
	p[4096] = 0xc3;
	EXPECT_FAULT(((void (*)(void))(p + 4096))(), SIGSEGV, SEGV_ACCERR, 14);
	CHECK_EQ(seen.addr, p + 4096);
	CHECK_EQ(seen.rip, p + 4096);
	CHECK_EQ(seen.err, 0x15);
	EXPECT_FAULT(sink = *(volatile uint8_t *)0x8000000000000000, SIGSEGV, SI_KERNEL, 13);
	EXPECT_FAULT(sink = *(volatile uint8_t *)0xffffffff81000000, SIGSEGV, SEGV_MAPERR, 14);
	CHECK_EQ(seen.err & ~1ul, 4);
	EXPECT_FAULT(__asm__ volatile("cli"), SIGSEGV, SI_KERNEL, 13);
	EXPECT_FAULT(__asm__ volatile("rdmsr" ::: "eax", "edx"), SIGSEGV, SI_KERNEL, 13);
	EXPECT_FAULT(__asm__ volatile("in $0x64, %%al" ::: "eax"), SIGSEGV, SI_KERNEL, 13);
	EXPECT_FAULT(__asm__ volatile("int $0x20"), SIGSEGV, SI_KERNEL, 13);
	CHECK_EQ(seen.err, 0x20 * 8 + 2);
	EXPECT_FAULT(__asm__ volatile("ud2"), SIGILL, ILL_ILLOPN, 6);
	EXPECT_FAULT(__asm__ volatile("int3"), SIGTRAP, SI_KERNEL, 3);
	EXPECT_FAULT(__asm__ volatile("movaps 1(%0), %%xmm0" ::"r"(p + 4096) : "xmm0"), SIGSEGV, SI_KERNEL, 13);
	(void)sink;
}

static void test_arith_fault(void)
{
	volatile int zero = 0, min = (int)0x80000000;
	unsigned mxcsr = 0x1f80 & ~0x200; /* unmask divide by zero */
	unsigned short cw = 0x37f & ~4;
	double r;

	catch_signals(false);
	EXPECT_FAULT(__asm__ volatile("movl $1,%%eax; cltd; idivl %0" ::"m"(zero) : "eax", "edx"), SIGFPE, FPE_INTDIV, 0);
	EXPECT_FAULT(__asm__ volatile("movl %0,%%eax; cltd; movl $-1,%%ecx; idivl %%ecx" ::"m"(min) : "eax", "ecx", "edx"),
		     SIGFPE, FPE_INTDIV, 0);
	EXPECT_FAULT(__asm__ volatile("ldmxcsr %0; pxor %%xmm0,%%xmm0; movsd %1,%%xmm1; divsd %%xmm0,%%xmm1" ::"m"(mxcsr),
				      "m"(*(const double[]){1.0})
				      : "xmm0", "xmm1"),
		     SIGFPE, FPE_FLTDIV, 19);
	EXPECT_FAULT(__asm__ volatile("fninit; fldcw %1; fld1; fldz; fdivrp; fstpl %0; fwait" : "=m"(r) : "m"(cw)), SIGFPE,
		     FPE_FLTDIV, 16);
	__asm__ volatile("fnclex; fninit");
}

/* Registers as they were at the fault: each is loaded with its own pattern, then a load faults. */
static volatile uint64_t fault_regs[16];

static void skip_load(int sig, siginfo_t *si, void *ctx)
{
	ucontext_t *uc = ctx;

	(void)sig;
	(void)si;
	for (int i = 0; i < 16; i++)
		fault_regs[i] = uc->uc_mcontext.gregs[i];
	fault_regs[15] = uc->uc_mcontext.gregs[REG_EFL];
	uc->uc_mcontext.gregs[REG_RIP] += 3; /* movq (%rax), %rbx */
	uc->uc_mcontext.gregs[REG_RBX] = 0x1234;
	uc->uc_mcontext.gregs[REG_R12] = 0x5678;
}

static void test_fault_regs(void)
{
	struct sigaction sa = {.sa_sigaction = skip_load, .sa_flags = SA_SIGINFO};
	uint64_t rbx, r12;

	sigaction(SIGSEGV, &sa, NULL);
	for (int round = 0; round < 100; round++) {
		__asm__ volatile("movq $8, %%rax; movq $0x1111111111, %%rbx; movq $-2, %%rcx; movq $3, %%rdx; movq $4, %%rsi\n"
				 "movq $5, %%rdi; movq $8, %%r8; movq $9, %%r9; movq $10, %%r10; movq $11, %%r11\n"
				 "movq $12, %%r12; movq $13, %%r13; movq $14, %%r14; movq $15, %%r15\n"
				 "cmpq %%rax, %%rax; stc\n"
				 "movq (%%rax), %%rbx\n"
				 "movq %%rbx, %0; movq %%r12, %1"
				 : "=m"(rbx), "=m"(r12)
				 :
				 : "rax", "rbx", "rcx", "rdx", "rsi", "rdi", "r8", "r9", "r10", "r11", "r12", "r13", "r14",
				   "r15", "cc", "memory");
		for (int i = 0; i < 8; i++)
			CHECK_EQ(fault_regs[REG_R8 + i], 8 + i == 15 ? fault_regs[7] : 8ull + i);
		CHECK_EQ(fault_regs[REG_RAX], 8);
		CHECK_EQ(fault_regs[REG_RBX], 0x1111111111);
		CHECK_EQ(fault_regs[REG_RCX], -2);
		CHECK_EQ(fault_regs[REG_RDI], 5);
		CHECK_EQ(fault_regs[15] & 0x8d5, 0x45); /* ZF, PF, CF */
		CHECK_EQ(rbx, 0x1234);
		CHECK_EQ(r12, 0x5678);
	}
}

static void test_sigaltstack(void)
{
	static uint8_t stack[65536];
	stack_t ss = {.ss_sp = stack, .ss_size = sizeof(stack)};

	CHECK(sigaltstack(&ss, NULL) == 0);
	catch_signals(true);
	EXPECT_FAULT(*(volatile int *)8 = 1, SIGSEGV, SEGV_MAPERR, 14);
	CHECK(seen.sp >= (uintptr_t)stack && seen.sp < (uintptr_t)(stack + sizeof(stack)));
	/* With no usable stack at all, only the alternate one can take the signal. */
	seen.sig = 0;
	if (sigsetjmp(out, 1) == 0)
		__asm__ volatile("movq $64, %%rsp; pushq %%rax" ::: "memory");
	CHECK_EQ(seen.sig, SIGSEGV);
	CHECK_EQ(seen.addr, 56);
}

static volatile sig_atomic_t usr1;

static void clobber_vectors(int sig, siginfo_t *si, void *ctx)
{
	ucontext_t *uc = ctx;

	(void)sig;
	(void)si;
	usr1++;
	__asm__ volatile("vpcmpeqd %%ymm0,%%ymm0,%%ymm0; vmovdqa %%ymm0,%%ymm1; vmovdqa %%ymm0,%%ymm7; vmovdqa %%ymm0,%%ymm15;"
			 "fninit; fldpi; fldpi"
			 ::: "xmm0", "xmm1", "xmm7", "xmm15");
	/* A change in the frame must be seen after the return. */
	uc->uc_mcontext.fpregs->_xmm[3].element[0] = 0xabcd;
}

static void test_signal_fpu(void)
{
	struct sigaction sa = {.sa_sigaction = clobber_vectors, .sa_flags = SA_SIGINFO};
	uint8_t in[3][32] __attribute__((aligned(32))), got[3][32] __attribute__((aligned(32)));
	unsigned mxcsr = 0x5f80, mxcsr_after; /* round up */
	uint32_t xmm3;
	double fp;
	long ret;

	if (!__builtin_cpu_supports("avx2"))
		fail("the CPU model must offer AVX2");
	sigaction(SIGUSR1, &sa, NULL);
	for (size_t i = 0; i < sizeof(in); i++)
		((uint8_t *)in)[i] = i * 5 + 1;
	for (int round = 0; round < 50; round++) {
		pid_t pid = getpid();

		__asm__ volatile("vmovdqa (%[in]), %%ymm1; vmovdqa 32(%[in]), %%ymm7; vmovdqa 64(%[in]), %%ymm15\n"
				 "vpxor %%xmm3, %%xmm3, %%xmm3\n"
				 "ldmxcsr %[mx]; fninit; fldl2e\n"
				 "syscall\n" /* kill(self, SIGUSR1): the signal arrives on return */
				 "fstpl %[fp]; stmxcsr %[mx2]\n"
				 "vmovdqa %%ymm1, (%[got]); vmovdqa %%ymm7, 32(%[got]); vmovdqa %%ymm15, 64(%[got])\n"
				 "vmovd %%xmm3, %[x3]\n"
				 : "=a"(ret), [fp] "=m"(fp), [mx2] "=m"(mxcsr_after), [x3] "=m"(xmm3)
				 : "0"(SYS_kill), "D"((long)pid), "S"((long)SIGUSR1), [in] "r"(in), [got] "r"(got), [mx] "m"(mxcsr)
				 : "rcx", "r11", "memory", "xmm1", "xmm3", "xmm7", "xmm15");
		CHECK_EQ(ret, 0);
		CHECK(memcmp(in, got, sizeof(in)) == 0);
		CHECK_EQ(mxcsr_after & 0x6000, 0x4000);
		CHECK(fp > 1.442695 && fp < 1.442696);
		CHECK_EQ(xmm3, 0xabcd);
	}
	mxcsr = 0x1f80;
	__asm__ volatile("ldmxcsr %0" ::"m"(mxcsr));
	CHECK_EQ(usr1, 50);
}

static void count_usr1(int sig)
{
	(void)sig;
	usr1++;
}

static void test_signals(void)
{
	sigset_t set, old;
	pid_t pid;

	signal(SIGUSR1, count_usr1);
	for (int i = 0; i < 1000; i++)
		raise(SIGUSR1);
	CHECK_EQ(usr1, 1000);
	sigemptyset(&set);
	sigaddset(&set, SIGUSR1);
	sigprocmask(SIG_BLOCK, &set, &old);
	raise(SIGUSR1);
	raise(SIGUSR1);
	CHECK_EQ(usr1, 1000);
	sigprocmask(SIG_SETMASK, &old, NULL);
	CHECK_EQ(usr1, 1001);
	pid = fork();
	if (pid == 0) {
		signal(SIGTERM, SIG_DFL);
		for (;;)
			; /* the timer interrupt must get the kernel in */
	}
	usleep(20000);
	kill(pid, SIGTERM);
	CHECK_EQ(WTERMSIG(wait_status(pid)), SIGTERM);
}

/* --- threads ------------------------------------------------------------------------------------------------------ */

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t cond = PTHREAD_COND_INITIALIZER;
static long counter, atomic_counter;
static int turn;
static __thread long tls = 7;

static void *worker(void *arg)
{
	long id = (long)arg;
	double sum = 0;

	for (int i = 0; i < 2000; i++) {
		pthread_mutex_lock(&lock);
		counter++;
		pthread_mutex_unlock(&lock);
		__atomic_fetch_add(&atomic_counter, 1, __ATOMIC_SEQ_CST);
		sum += id * 0.5;
		if (i % 500 == 0)
			sched_yield();
	}
	tls += id;
	return (void *)(sum == id * 1000.0 ? tls : -1);
}

static void *ping(void *arg)
{
	int me = (int)(long)arg;

	for (int i = 0; i < 200; i++) {
		pthread_mutex_lock(&lock);
		while (turn != me)
			pthread_cond_wait(&cond, &lock);
		turn = !me;
		pthread_cond_broadcast(&cond);
		pthread_mutex_unlock(&lock);
	}
	return NULL;
}

static void test_threads(void)
{
	pthread_t t[8];
	void *ret;

	for (long i = 0; i < 8; i++)
		CHECK_EQ(pthread_create(&t[i], NULL, worker, (void *)i), 0);
	for (long i = 0; i < 8; i++) {
		pthread_join(t[i], &ret);
		CHECK_EQ((long)ret, 7 + i);
	}
	CHECK_EQ(counter, 16000);
	CHECK_EQ(atomic_counter, 16000);
	CHECK_EQ(tls, 7);
	for (long i = 0; i < 2; i++)
		pthread_create(&t[i], NULL, ping, (void *)i);
	for (long i = 0; i < 2; i++)
		pthread_join(t[i], NULL);
}

static int futex_word;

static int clone_child(void *arg)
{
	*(volatile int *)arg = 77;
	__atomic_store_n(&futex_word, 1, __ATOMIC_SEQ_CST);
	syscall(SYS_futex, &futex_word, FUTEX_WAKE, 1, NULL, NULL, 0);
	return 0;
}

static void test_clone_futex(void)
{
	static uint8_t stack[65536] __attribute__((aligned(16)));
	struct timespec soon = {.tv_nsec = 5000000};
	volatile int value = 0;
	int pid;

	pid = clone(clone_child, stack + sizeof(stack), CLONE_VM | CLONE_FS | CLONE_FILES | SIGCHLD, (void *)&value);
	CHECK(pid > 0);
	while (!__atomic_load_n(&futex_word, __ATOMIC_SEQ_CST))
		syscall(SYS_futex, &futex_word, FUTEX_WAIT, 0, NULL, NULL, 0);
	CHECK_EQ(value, 77);
	CHECK_EQ(wait_status(pid), 0);
	CHECK(syscall(SYS_futex, &futex_word, FUTEX_WAIT, 1, &soon, NULL, 0) == -1 && errno == ETIMEDOUT);
}

static void test_atomics(void)
{
	static unsigned __int128 wide __attribute__((aligned(16)));
	static uint8_t raw[128] __attribute__((aligned(64)));
	uint64_t *split = (uint64_t *)(raw + 60); /* across a cache line */
	uint64_t lo = 0, hi = 0, x = 5, expect = 0;
	uint8_t ok;

	CHECK(__atomic_compare_exchange_n(split, &expect, 0x123456789abcdef, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST));
	CHECK_EQ(__atomic_fetch_add(split, 1, __ATOMIC_SEQ_CST), 0x123456789abcdef);
	CHECK_EQ(*split, 0x123456789abcdf0);
	__asm__ volatile("lock cmpxchg16b %1; sete %0" : "=q"(ok), "+m"(wide), "+a"(lo), "+d"(hi) : "b"(11ull), "c"(22ull) : "cc");
	CHECK(ok && (uint64_t)wide == 11 && (uint64_t)(wide >> 64) == 22);
	__asm__ volatile("lock cmpxchg16b %1; sete %0" : "=q"(ok), "+m"(wide), "+a"(lo), "+d"(hi) : "b"(1ull), "c"(2ull) : "cc");
	CHECK(!ok && lo == 11 && hi == 22);
	__asm__ volatile("lock xaddq %0, %1" : "+r"(x), "+m"(*split)::"cc");
	CHECK_EQ(x, 0x123456789abcdf0);
	__asm__ volatile("lock btsq $63, %1; setc %0" : "=q"(ok), "+m"(*split)::"cc");
	CHECK_EQ(ok, 0);
	CHECK_EQ(*split >> 63, 1);
}

/* --- memory ------------------------------------------------------------------------------------------------------- */

static void test_mmap(void)
{
	uint8_t *p = mmap(NULL, 64 * 4096, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0), *q;
	volatile uint8_t sink;

	catch_signals(false);
	EXPECT_FAULT(sink = *(volatile uint8_t *)p, SIGSEGV, SEGV_ACCERR, 14);
	for (volatile int round = 0; round < 20; round++) {
		uint8_t *page = p + (round % 64) * 4096;

		CHECK(mprotect(page, 4096, PROT_READ | PROT_WRITE) == 0);
		page[9] = round;
		CHECK(mprotect(page, 4096, PROT_READ) == 0);
		CHECK_EQ(page[9], round);
		EXPECT_FAULT(*(volatile uint8_t *)(page + 9) = 0, SIGSEGV, SEGV_ACCERR, 14);
		CHECK_EQ(page[9], round);
		CHECK(mprotect(page, 4096, PROT_NONE) == 0);
		EXPECT_FAULT(sink = *(volatile uint8_t *)(page + 9), SIGSEGV, SEGV_ACCERR, 14);
	}
	CHECK(mprotect(p, 64 * 4096, PROT_READ | PROT_WRITE) == 0);
	memset(p, 0x77, 64 * 4096);
	CHECK(madvise(p, 8 * 4096, MADV_DONTNEED) == 0);
	CHECK_EQ(p[100], 0);
	CHECK_EQ(p[8 * 4096], 0x77);
	q = mremap(p, 64 * 4096, 128 * 4096, MREMAP_MAYMOVE);
	CHECK(q != MAP_FAILED);
	CHECK_EQ(q[63 * 4096], 0x77);
	CHECK_EQ(q[64 * 4096], 0);
	munmap(q, 128 * 4096);
	EXPECT_FAULT(sink = *(volatile uint8_t *)(q + 4096), SIGSEGV, SEGV_MAPERR, 14);
	(void)sink;
}

static void test_file_map(void)
{
	int fd = open("/tmp/vmtest.map", O_CREAT | O_RDWR | O_TRUNC, 0600);
	uint8_t *priv, *shared, buf[4];

	CHECK(fd >= 0 && ftruncate(fd, 8192) == 0);
	priv = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0);
	shared = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	CHECK_EQ(priv[10], 0);
	shared[10] = 5;
	CHECK_EQ(priv[10], 5); /* not yet copied */
	priv[11] = 6;
	CHECK_EQ(shared[11], 0);
	CHECK(pread(fd, buf, 4, 9) == 4 && buf[1] == 5 && buf[2] == 0);
	CHECK(pwrite(fd, "\x21", 1, 4096) == 1);
	CHECK_EQ(shared[4096], 0x21);
	catch_signals(false);
	CHECK(ftruncate(fd, 0) == 0);
	EXPECT_FAULT(buf[0] = *(volatile uint8_t *)(shared + 10), SIGBUS, BUS_ADRERR, 14);
	unlink("/tmp/vmtest.map");
}

/* Copies of many sizes and alignments, by memcpy and by string instructions in both directions. */
static void test_copy(void)
{
	enum { N = 8 << 20 };
	uint8_t *a = malloc(N), *b = malloc(N);
	const uint8_t *s;
	uint8_t *d;
	size_t n;

	for (size_t i = 0; i < N; i++)
		a[i] = i * 31 + (i >> 8);
	memcpy(b, a, N);
	CHECK(memcmp(a, b, N) == 0);
	for (int shift = 1; shift < 64; shift += 7) {
		memset(b, 0, 70000);
		s = a + shift;
		d = b + (shift * 3) % 61;
		n = 65000 + shift;
		__asm__ volatile("rep movsb" : "+S"(s), "+D"(d), "+c"(n)::"memory");
		CHECK(n == 0 && memcmp(a + shift, b + (shift * 3) % 61, 65000 + shift) == 0);
		CHECK_EQ(b[(shift * 3) % 61 + 65000 + shift], 0);
	}
	memmove(b + 3, b, 100000);
	s = a + 50000 * 8 - 8;
	d = b + 50000 * 8 - 8;
	n = 50000;
	__asm__ volatile("std; rep movsq; cld" : "+S"(s), "+D"(d), "+c"(n)::"memory", "cc");
	CHECK(memcmp(a, b, 400000) == 0 && s == a - 8);
	n = 300001;
	d = b;
	__asm__ volatile("rep stosb" : "+D"(d), "+c"(n) : "a"(0x3c) : "memory");
	CHECK(b[0] == 0x3c && b[300000] == 0x3c && b[300001] == a[300001]);
	d = b;
	n = 400000;
	__asm__ volatile("repe scasb" : "+D"(d), "+c"(n) : "a"(0x3c) : "cc");
	CHECK_EQ(d - b, 300002);
}

/* --- code that changes ------------------------------------------------------------------------------------------- */

typedef int (*code_fn)(int);

static void test_jit(void)
{
	uint8_t *code = mmap(NULL, 8192, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	/* mov eax, imm32; add eax, edi; ret */
	static const uint8_t body[] = {0xb8, 0, 0, 0, 0, 0x01, 0xf8, 0xc3};

	CHECK(code != MAP_FAILED);
	for (int i = 0; i < 3000; i++) {
		uint8_t *at = code + (i % 3) * 2045; /* the last one starts below the page boundary */

		memcpy(at, body, sizeof(body));
		memcpy(at + 1, &i, 4);
		CHECK_EQ(((code_fn)(uintptr_t)at)(5), i + 5);
	}
	memcpy(code + 4093, body, sizeof(body)); /* across two pages */
	for (int i = 0; i < 200; i++) {
		memcpy(code + 4094, &i, 4);
		CHECK_EQ(((code_fn)(uintptr_t)(code + 4093))(1), i + 1);
	}
	for (int i = 0; i < 50; i++) {
		CHECK(mprotect(code, 4096, PROT_READ | PROT_WRITE) == 0);
		memcpy(code, body, sizeof(body));
		memcpy(code + 1, &i, 4);
		CHECK(mprotect(code, 4096, PROT_READ | PROT_EXEC) == 0);
		CHECK_EQ(((code_fn)(uintptr_t)code)(2), i + 2);
	}
}

/* Instructions that overwrite the very next instruction, and a second mapping of the same page used for writing. */
static void test_selfmod(void)
{
	static const uint8_t body[] = {
		0xb8, 1, 0, 0, 0,                         /* mov eax, 1 */
		0x40, 0x88, 0x3d, 1, 0, 0, 0,             /* mov [rip+1], dil: the immediate of the next instruction */
		0xb8, 0, 0, 0, 0,                         /* mov eax, imm */
		0xc3,
	};
	int fd = syscall(SYS_memfd_create, "code", 0);
	uint8_t *rx, *rw, *rwx = mmap(NULL, 4096, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	memcpy(rwx, body, sizeof(body));
	for (int i = 0; i < 500; i++)
		CHECK_EQ(((code_fn)(uintptr_t)rwx)(i & 0xff), i & 0xff);
	CHECK(fd >= 0 && ftruncate(fd, 4096) == 0);
	rw = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	rx = mmap(NULL, 4096, PROT_READ | PROT_EXEC, MAP_SHARED, fd, 0);
	for (int i = 0; i < 500; i++) {
		rw[0] = 0xb8;
		memcpy(rw + 1, &i, 4);
		rw[5] = 0xc3;
		CHECK_EQ(((code_fn)(uintptr_t)rx)(0), i);
	}
	/* The kernel writes the code: read(2) into it. */
	for (int i = 0; i < 50; i++) {
		uint8_t fresh[] = {0xb8, i, 0, 0, 0, 0xc3};
		int p[2];

		CHECK(pipe(p) == 0 && write(p[1], fresh, 6) == 6 && read(p[0], rwx, 6) == 6);
		close(p[0]);
		close(p[1]);
		CHECK_EQ(((code_fn)(uintptr_t)rwx)(0), i);
	}
}

/* One thread patches, others run: each call returns the old or the new value, never anything else. */
static uint8_t *cross_code;
static volatile bool cross_stop;

static void *cross_runner(void *arg)
{
	long bad = 0;

	(void)arg;
	while (!cross_stop) {
		int r = ((code_fn)(uintptr_t)cross_code)(0);

		if ((r & 0xff) != 0x11 && (r & 0xff) != 0x22)
			bad++;
	}
	return (void *)bad;
}

static void test_crossmod(void)
{
	pthread_t t[2];
	void *bad;

	cross_code = mmap(NULL, 4096, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	memcpy(cross_code, "\xb8\x11\x00\x00\x00\xc3", 6);
	for (int i = 0; i < 2; i++)
		pthread_create(&t[i], NULL, cross_runner, NULL);
	for (int i = 0; i < 300; i++) {
		__atomic_store_n(cross_code + 1, i & 1 ? 0x11 : 0x22, __ATOMIC_SEQ_CST);
		CHECK_EQ(((code_fn)(uintptr_t)cross_code)(0), i & 1 ? 0x11 : 0x22);
		if (i % 30 == 0)
			usleep(1000);
	}
	cross_stop = true;
	for (int i = 0; i < 2; i++) {
		pthread_join(t[i], &bad);
		CHECK_EQ((long)bad, 0);
	}
}

/* --- floating point ----------------------------------------------------------------------------------------------- */

static uint64_t bits(double d)
{
	uint64_t u;

	memcpy(&u, &d, 8);
	return u;
}

static void test_float(void)
{
	volatile double one = 1, three = 3, two = 2, big = 1e300, nan = NAN;
	volatile float f = 16777217.0f;
	long double ld = 1.0L;
	double sum = 0;

	CHECK_EQ(bits(one / three), 0x3fd5555555555555);
	CHECK_EQ(bits(sqrt(two)), 0x3ff6a09e667f3bcd);
	CHECK_EQ(bits(0.1 + 0.2 * one), 0x3fd3333333333334);
	CHECK_EQ(bits(fma(one / three, three, -1.0)), 0xbc90000000000000);
	CHECK_EQ(bits(big * big), 0x7ff0000000000000);
	CHECK(nan != nan && !(nan < one));
	CHECK(f == 16777216.0f);
	CHECK_EQ((int)(volatile double){-2.9}, -2);
	CHECK_EQ(lrint((volatile double){2.5}), 2);
	for (int i = 1; i <= 1000; i++)
		sum += one / i;
	CHECK_EQ(bits(sum), 0x401df11f45f4e618);
	for (int i = 1; i <= 25; i++)
		ld *= i;
	CHECK(ld == 15511210043330985984000000.0L);
	CHECK_EQ(bits(sin(one)), 0x3feaed548f090cee);
	CHECK_EQ(bits(exp(one)), 0x4005bf0a8b145769);
	CHECK_EQ(bits(pow(three, 0.5)), 0x3ffbb67ae8584caa);
}

static void test_x87(void)
{
	double pi, at, lg;
	unsigned short sw, cw;
	uint8_t bcd[10];
	long long iv = 123456789012345ll, back;
	long double third = 1.0L / (volatile long double){3.0L};
	uint64_t mant;

	__asm__ volatile("fldpi; fstpl %0" : "=m"(pi));
	__asm__ volatile("fld1; fld1; fpatan; fstpl %0" : "=m"(at));
	__asm__ volatile("fldln2; fld1; fadd %%st(0); fyl2x; fstpl %0" : "=m"(lg));
	CHECK_EQ(bits(pi), 0x400921fb54442d18);
	CHECK_EQ(bits(at), 0x3fe921fb54442d18);
	CHECK_EQ(bits(lg), 0x3fe62e42fefa39ef);
	__asm__ volatile("fildq %1; fbstp %0" : "=m"(bcd) : "m"(iv));
	CHECK(bcd[0] == 0x45 && bcd[1] == 0x23 && bcd[7] == 0x01 && bcd[9] == 0);
	__asm__ volatile("fbld %1; fistpq %0" : "=m"(back) : "m"(bcd));
	CHECK_EQ(back, iv);
	memcpy(&mant, &third, 8);
	CHECK_EQ(mant, 0xaaaaaaaaaaaaaaab);
	__asm__ volatile("fninit; fldz; fld1; fdivp; fnstsw %0; fnstcw %1; fninit" : "=m"(sw), "=m"(cw));
	CHECK_EQ(cw, 0x37f);
	(void)sw;
}

__attribute__((target("avx2,fma"))) static void test_avx(void)
{
	float in[8] = {1, 2, 3, 4, 5, 6, 7, 8}, got[8];
	int32_t idx[8] = {7, 6, 5, 4, 3, 2, 1, 0}, mask[8] = {-1, 0, -1, 0, -1, 0, -1, 0};
	uint8_t *edge = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	__m256 v, w;

	if (!__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("fma"))
		fail("the CPU model must offer AVX2 and FMA");
	v = _mm256_loadu_ps(in);
	w = _mm256_permutevar8x32_ps(v, _mm256_loadu_si256((void *)idx));
	_mm256_storeu_ps(got, _mm256_fmadd_ps(v, w, _mm256_set1_ps(0.5f)));
	for (int i = 0; i < 8; i++)
		CHECK(got[i] == in[i] * in[7 - i] + 0.5f);
	w = _mm256_i32gather_ps(in, _mm256_loadu_si256((void *)idx), 4);
	_mm256_storeu_ps(got, w);
	for (int i = 0; i < 8; i++)
		CHECK(got[i] == in[7 - i]);
	/* Accesses across the page boundary, and a masked store whose unselected part lies in a missing page. */
	_mm256_storeu_ps((float *)(edge + 4096 - 13), v);
	_mm256_storeu_ps(got, _mm256_loadu_ps((float *)(edge + 4096 - 13)));
	CHECK(memcmp(got, in, 32) == 0);
	munmap(edge + 4096, 4096);
	mask[4] = mask[6] = 0;
	_mm256_maskstore_ps((float *)(edge + 4096 - 16), _mm256_loadu_si256((void *)mask), v);
	CHECK(*(float *)(edge + 4096 - 16) == 1 && *(float *)(edge + 4096 - 8) == 3);
	CHECK_EQ((uint32_t)_mm256_movemask_epi8(_mm256_cmpeq_epi8(_mm256_set1_epi8(3), _mm256_set1_epi8(3))), 0xffffffff);
	CHECK_EQ(__builtin_ia32_crc32di(0, 0x123456789abcdef0), _mm_crc32_u64(0, 0x123456789abcdef0));
}

/* Each process has its own vector state, whatever the scheduler does. */
static void test_fpu_switch(void)
{
	pid_t pids[4];

	for (int i = 0; i < 4; i++) {
		pids[i] = fork();
		if (pids[i] == 0) {
			uint64_t want = 0x1111111111111111ull * (i + 1), a = 0, b = 0;

			__asm__ volatile("vmovq %0, %%xmm9; vpbroadcastq %%xmm9, %%ymm9; movq %0, %%mm3" ::"r"(want)
					 : "xmm9", "mm3");
			for (int k = 0; k < 50; k++) {
				syscall(SYS_sched_yield);
				for (volatile int d = 0; d < 2000; d++)
					;
			}
			__asm__ volatile("vextracti128 $1, %%ymm9, %%xmm8; vpextrq $1, %%xmm8, %0; movq %%mm3, %1; emms"
					 : "=r"(a), "=r"(b)::"xmm8");
			_exit(a == want && b == want ? 0 : 1);
		}
	}
	for (int i = 0; i < 4; i++)
		CHECK_EQ(wait_status(pids[i]), 0);
}

/* --- time --------------------------------------------------------------------------------------------------------- */

static void test_vdso_time(void)
{
	uint64_t last = 0, t, sys;
	struct timespec ts;

	for (int i = 0; i < 20000; i++) {
		t = now_ns(CLOCK_MONOTONIC);
		CHECK(t >= last);
		last = t;
	}
	syscall(SYS_clock_gettime, CLOCK_MONOTONIC, &ts);
	sys = ts.tv_sec * 1000000000ull + ts.tv_nsec;
	t = now_ns(CLOCK_MONOTONIC);
	CHECK(sys >= last && t >= sys && t - sys < 50000000);
	/* Two clocks over the same stretch agree within 1 % + 2 ms. */
	last = now_ns(CLOCK_MONOTONIC_RAW);
	sys = now_ns(CLOCK_MONOTONIC);
	usleep(300000);
	last = now_ns(CLOCK_MONOTONIC_RAW) - last;
	sys = now_ns(CLOCK_MONOTONIC) - sys;
	CHECK(last > sys - sys / 100 - 2000000 && last < sys + sys / 100 + 2000000);
	CHECK(time(NULL) > 1700000000);
}

static void test_sleep(void)
{
	uint64_t t = now_ns(CLOCK_MONOTONIC);
	struct timespec ts = {.tv_nsec = 50000000};

	for (int i = 0; i < 4; i++)
		nanosleep(&ts, NULL);
	t = now_ns(CLOCK_MONOTONIC) - t;
	if (t < 200000000 || t > 600000000)
		fail("4 x 50 ms took %llu us", (unsigned long long)t / 1000);
}

static void test_itimer(void)
{
	struct itimerval it = {{0, 10000}, {0, 10000}};
	uint64_t t = now_ns(CLOCK_MONOTONIC);
	long spins = 0;

	usr1 = 0;
	signal(SIGALRM, count_usr1);
	setitimer(ITIMER_REAL, &it, NULL);
	while (now_ns(CLOCK_MONOTONIC) - t < 500000000) /* busy: the timer must interrupt running code */
		spins++;
	memset(&it, 0, sizeof(it));
	setitimer(ITIMER_REAL, &it, NULL);
	if (usr1 < 15 || usr1 > 51)
		fail("%d ticks of 10 ms in 500 ms", (int)usr1);
}

/* --- kernel interfaces -------------------------------------------------------------------------------------------- */

static void test_proc_maps(void)
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

static void test_syscalls(void)
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

static void test_pipes(void)
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
static void test_ptrace(void)
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
	usr1++;
	if (usr1 == 10)
		uc->uc_mcontext.gregs[REG_EFL] &= ~0x100l;
}

/* The process sets TF itself: a trap after each instruction until the handler clears it. */
static void test_trap_flag(void)
{
	struct sigaction sa = {.sa_sigaction = trap_counter, .sa_flags = SA_SIGINFO};
	uint64_t n = 0;

	sigaction(SIGTRAP, &sa, NULL);
	__asm__ volatile("pushfq; orq $0x100, (%%rsp); popfq\n"
			 "incq %0; incq %0; incq %0; incq %0; incq %0; incq %0; incq %0; incq %0; incq %0; incq %0; incq %0; incq %0"
			 : "+r"(n)::"cc", "memory");
	CHECK_EQ(n, 12);
	CHECK_EQ(usr1, 10);
}

static void test_cpuid(void)
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
	for (size_t i = 0; i < nitems(tests); i++)
		if (argc == 1 || !strcmp(argv[1], tests[i].name))
			run_test(&tests[i]);
	puts("vmtest done");
	return 0;
}
