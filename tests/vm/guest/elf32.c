/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A 32-bit program for the 64-bit guest kernel's compatibility mode: no C library, own _start, system calls by INT 0x80 and
 * by the vDSO's entry (SYSENTER or SYSCALL, whichever the kernel picked). Output as vmtest's.
 * Spec: Linux i386 system call numbers (asm/unistd_32.h), SDM vol. 3A 3.4.5 (descriptors), vol. 2 SYSENTER.
 */
typedef unsigned int u32;
typedef unsigned long long u64;
typedef _Bool bool;

#define NR_exit 1
#define NR_fork 2
#define NR_write 4
#define NR_waitpid 7
#define NR_execve 11
#define NR_getpid 20
#define NR_kill 37
#define NR_pipe 42
#define NR_brk 45
#define NR_read 3
#define NR_mmap2 192
#define NR_mprotect 125
#define NR_rt_sigaction 174
#define NR_set_thread_area 243
#define NR_nanosleep 162
#define NR_clock_gettime 265

#define AT_SYSINFO 32

static u32 sysinfo; /* the vDSO's __kernel_vsyscall */

static int int80(u32 nr, u32 a, u32 b, u32 c, u32 d, u32 e)
{
	int ret;

	__asm__ volatile("int $0x80" : "=a"(ret) : "0"(nr), "b"(a), "c"(b), "d"(c), "S"(d), "D"(e) : "memory");
	return ret;
}

static int vsyscall(u32 nr, u32 a, u32 b, u32 c)
{
	int ret;

	__asm__ volatile("call *%1" : "=a"(ret) : "m"(sysinfo), "0"(nr), "b"(a), "c"(b), "d"(c) : "memory");
	return ret;
}

static u32 len(const char *s)
{
	u32 n = 0;

	while (s[n])
		n++;
	return n;
}

static void say(const char *s) { int80(NR_write, 1, (u32)s, len(s), 0, 0); }

static void result(const char *name, bool good)
{
	say(good ? "ok elf32-" : "not ok elf32-");
	say(name);
	say(good ? "\n" : ": wrong result\n");
}

static bool test_gates(void)
{
	int pid = int80(NR_getpid, 0, 0, 0, 0, 0);

	for (int i = 0; i < 1000; i++)
		if (vsyscall(NR_getpid, 0, 0, 0) != pid || int80(NR_getpid, 0, 0, 0, 0, 0) != pid)
			return 0;
	return pid > 0 && int80(9999, 0, 0, 0, 0, 0) == -38;
}

/* INT 0x80 with all six arguments, EBP included: mmap2, then use it. */
static bool test_mmap(void)
{
	u32 *p;

	__asm__ volatile("push %%ebp; xor %%ebp, %%ebp; int $0x80; pop %%ebp"
			 : "=a"(p)
			 : "0"(NR_mmap2), "b"(0), "c"(65536), "d"(7), "S"(0x22), "D"(-1)
			 : "memory");
	if ((u32)p > 0xfffff000)
		return 0;
	for (int i = 0; i < 16384; i++)
		p[i] = i * 3;
	for (int i = 0; i < 16384; i++)
		if (p[i] != (u32)i * 3)
			return 0;
	((unsigned char *)p)[0] = 0xb8; /* mov eax, 0x11223344; ret */
	*(u32 *)((char *)p + 1) = 0x11223344;
	((unsigned char *)p)[5] = 0xc3;
	return ((u32(*)(void))p)() == 0x11223344;
}

static bool test_fork(void)
{
	int status = 0, fds[2], pid;
	volatile int value = 1;
	char c = 0;

	if (int80(NR_pipe, (u32)fds, 0, 0, 0, 0))
		return 0;
	pid = int80(NR_fork, 0, 0, 0, 0, 0);
	if (pid == 0) {
		value = 2;
		int80(NR_write, fds[1], (u32) "z", 1, 0, 0);
		int80(NR_exit, 40 + value, 0, 0, 0, 0);
	}
	return int80(NR_read, fds[0], (u32)&c, 1, 0, 0) == 1 && c == 'z' &&
	       int80(NR_waitpid, pid, (u32)&status, 0, 0, 0) == pid && status == 42 << 8 && value == 1;
}

/* Instructions that exist in 32-bit code only. */
static bool test_legacy(void)
{
	u32 a = 0x19, b = 0x28, carry, regs[8];
	unsigned char al = 0x9b, ah;

	__asm__("addb %b1, %b0; daa" : "+a"(a) : "q"(b) : "cc"); /* 19 + 28 = 47 in BCD */
	__asm__("aam" : "+a"(al) : : "cc");
	(void)al;
	__asm__("movl $0x004f, %%eax; aam; movb %%ah, %0" : "=q"(ah) : : "eax", "cc"); /* 79 -> 7, 9 */
	__asm__ volatile("movl $1, %%ecx; movl $2, %%edx; pusha; xorl %%ecx, %%ecx; popa; movl %%ecx, %0; movl %%edx, %1"
			 : "=m"(regs[0]), "=m"(regs[1])
			 :
			 : "ecx", "edx", "memory");
	__asm__("stc; sbbl %0, %0" : "=r"(carry) : : "cc");
	__asm__ volatile("push %%ds; pop %%es; push %%ss; pop %%ds; push %%es; pop %%ds" ::: "memory");
	return (a & 0xff) == 0x47 && ah == 7 && regs[0] == 1 && regs[1] == 2 && carry == 0xffffffff;
}

static bool test_arith(void)
{
	volatile u32 hi = 0x12345678, lo = 0x9abcdef0, d = 0x23456789;
	u32 q, r;
	volatile double x = 1, y = 3;
	double z;

	__asm__("divl %4" : "=a"(q), "=d"(r) : "0"(lo), "1"(hi), "m"(d));
	if ((u64)q * d + r != ((u64)hi << 32 | lo) || r >= d)
		return 0;
	__asm__ volatile("fldl %1; fdivl %2; fstpl %0" : "=m"(z) : "m"(x), "m"(y));
	if (*(u64 *)&z != 0x3fd5555555555555ull)
		return 0;
	__asm__ volatile("movsd %1, %%xmm5; divsd %2, %%xmm5; movsd %%xmm5, %0" : "=m"(z) : "m"(x), "m"(y));
	return *(u64 *)&z == 0x3fd5555555555555ull;
}

/* Thread-local storage as a C library uses it: a GDT entry loaded into GS. */
static bool test_tls(void)
{
	static u32 area[4] = {0xcafe0000, 0xcafe0001, 0xcafe0002, 0xcafe0003};
	struct {
		u32 entry, base, limit, flags;
	} desc = {-1u, (u32)area, 0xfffff, 0x51}; /* 32-bit, data, limit in pages, usable */
	u32 got, fs_ok;

	if (int80(NR_set_thread_area, (u32)&desc, 0, 0, 0, 0))
		return 0;
	__asm__ volatile("movw %w1, %%gs; movl %%gs:8, %0" : "=r"(got) : "r"(desc.entry * 8 + 3));
	int80(NR_getpid, 0, 0, 0, 0, 0); /* survives the kernel */
	__asm__ volatile("movl %%gs:12, %0" : "=r"(fs_ok));
	return got == 0xcafe0002 && fs_ok == 0xcafe0003;
}

static volatile u32 fault_seen;

static __attribute__((regparm(0))) void on_fault(int sig, u32 *info, u32 *uc)
{
	(void)uc;
	if (sig == 11 && info[3] == 0x20)
		fault_seen++;
	/* uc_mcontext.gregs[REG_EIP]: skip the two bytes of movl %eax, (%ecx). */
	uc[5 + 14] += 2;
}

__asm__(".globl sig_restore\nsig_restore: movl $173, %eax\nint $0x80\n");
extern char sig_restore[];

static bool test_signal(void)
{
	struct {
		u32 handler, flags, restorer, mask[2];
	} sa = {(u32)on_fault, 0x04000004, (u32)sig_restore, {0, 0}}; /* SA_SIGINFO, SA_RESTORER */

	if (int80(NR_rt_sigaction, 11, (u32)&sa, 0, 8, 0))
		return 0;
	for (int i = 0; i < 20; i++)
		__asm__ volatile("movl %%eax, (%%ecx)" ::"c"(0x20) : "memory");
	return fault_seen == 20;
}

static bool test_time(void)
{
	u32 a[2], b[2], nap[2] = {0, 30000000};
	u64 d;

	int80(NR_clock_gettime, 1, (u32)a, 0, 0, 0);
	int80(NR_nanosleep, (u32)nap, 0, 0, 0, 0);
	vsyscall(NR_clock_gettime, 1, (u32)b, 0);
	d = (b[0] - a[0]) * 1000000000ull + b[1] - a[1];
	return d >= 30000000 && d < 500000000;
}

static const struct {
	const char *name;
	bool (*run)(void);
} tests[] = {
	{"gates", test_gates}, {"mmap", test_mmap}, {"fork", test_fork},     {"legacy", test_legacy},
	{"arith", test_arith}, {"tls", test_tls},   {"signal", test_signal}, {"time", test_time},
};

__attribute__((used)) static void start(u32 *sp)
{
	u32 *p = sp + 1 + sp[0] + 1; /* argc, argv, NULL */

	while (*p++) /* environment */
		;
	for (; p[0]; p += 2)
		if (p[0] == AT_SYSINFO)
			sysinfo = p[1];
	for (u32 i = 0; i < sizeof(tests) / sizeof(tests[0]); i++)
		result(tests[i].name, tests[i].run());
	say("elf32 done\n");
	int80(NR_exit, 0, 0, 0, 0, 0);
}

__asm__(".globl _start\n_start: movl %esp, %eax\nandl $-16, %esp\nsubl $12, %esp\npushl %eax\ncall start\n");
