/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Signals: what a fault tells the handler, alternate stacks, vector state across handlers.
 */
#include <sys/wait.h>

#include "vmtest.h"

sigjmp_buf out;
volatile struct fault_seen seen;

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

void catch_signals(bool alt)
{
	static const int sigs[] = {SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGTRAP};
	struct sigaction sa = {.sa_sigaction = note_signal, .sa_flags = SA_SIGINFO | (alt ? SA_ONSTACK : 0)};

	for (size_t i = 0; i < nitems(sigs); i++)
		CHECK(sigaction(sigs[i], &sa, NULL) == 0);
}

void test_fault_info(void)
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

void test_arith_fault(void)
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

void test_fault_regs(void)
{
	struct sigaction sa = {.sa_sigaction = skip_load, .sa_flags = SA_SIGINFO};
	uint64_t rbx, r12;
	uint8_t carry;

	sigaction(SIGSEGV, &sa, NULL);
	for (int round = 0; round < 100; round++) {
		__asm__ volatile("movq $8, %%rax; movq $0x1111111111, %%rbx; movq $-2, %%rcx; movq $3, %%rdx; movq $4, %%rsi\n"
				 "movq $5, %%rdi; movq $8, %%r8; movq $9, %%r9; movq $10, %%r10; movq $11, %%r11\n"
				 "movq $12, %%r12; movq $13, %%r13; movq $14, %%r14; movq $15, %%r15\n"
				 "cmpq %%rax, %%rax; stc\n"
				 "movq (%%rax), %%rbx\n"
				 "setc %2; movq %%rbx, %0; movq %%r12, %1"
				 : "=m"(rbx), "=m"(r12), "=m"(carry)
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
		CHECK_EQ(carry, 1);
		CHECK_EQ(rbx, 0x1234);
		CHECK_EQ(r12, 0x5678);
	}
}

void test_sigaltstack(void)
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

volatile sig_atomic_t signals_seen;

static void clobber_vectors(int sig, siginfo_t *si, void *ctx)
{
	ucontext_t *uc = ctx;

	(void)sig;
	(void)si;
	signals_seen++;
	__asm__ volatile("vpcmpeqd %%ymm0,%%ymm0,%%ymm0; vmovdqa %%ymm0,%%ymm1; vmovdqa %%ymm0,%%ymm7; vmovdqa %%ymm0,%%ymm15;"
			 "fninit; fldpi; fldpi"
			 ::: "xmm0", "xmm1", "xmm7", "xmm15");
	/* A change in the frame must be seen after the return. */
	uc->uc_mcontext.fpregs->_xmm[3].element[0] = 0xabcd;
}

void test_signal_fpu(void)
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
	CHECK_EQ(signals_seen, 50);
}

void count_signal(int sig)
{
	(void)sig;
	signals_seen++;
}

void test_signals(void)
{
	sigset_t set, old;
	pid_t pid;

	signal(SIGUSR1, count_signal);
	for (int i = 0; i < 1000; i++)
		raise(SIGUSR1);
	CHECK_EQ(signals_seen, 1000);
	sigemptyset(&set);
	sigaddset(&set, SIGUSR1);
	sigprocmask(SIG_BLOCK, &set, &old);
	raise(SIGUSR1);
	raise(SIGUSR1);
	CHECK_EQ(signals_seen, 1000);
	sigprocmask(SIG_SETMASK, &old, NULL);
	CHECK_EQ(signals_seen, 1001);
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
