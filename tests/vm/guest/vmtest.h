/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the parts of vmtest share: checks that end a test with the line and the values, waiting, fault expectations.
 *
 * Every test runs in a child of its own, so a failing check may simply end the process, and statics start fresh.
 */
#ifndef VMTEST_H
#define VMTEST_H

#include <errno.h>
#include <setjmp.h>
#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <sys/ucontext.h>
#include <time.h>
#include <unistd.h>

#define nitems(a) (sizeof(a) / sizeof((a)[0]))

extern const char *self; /* argv[0], for tests that execute this program again */

__attribute__((noreturn, format(printf, 1, 2))) void fail(const char *fmt, ...);

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

uint64_t now_ns(clockid_t clock);
int wait_status(pid_t pid);

/* What the last signal caught by catch_signals() said; it jumps back to `out`. */
extern sigjmp_buf out;
extern volatile struct fault_seen {
	int sig, code;
	uintptr_t addr, rip, err, trapno, sp;
} seen;
void catch_signals(bool alt_stack);

/* A handler that only counts. */
extern volatile sig_atomic_t signals_seen;
void count_signal(int sig);

/* Runs a statement that must fault and checks what the signal handler was told. */
#define EXPECT_FAULT(stmt_, sig_, code_, trap_)                                                                        \
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

/* The tests; the table is in vmtest.c. */
void test_fork(void);
void test_fork_many(void);
void test_exec(void);
void test_crash_status(void);
void test_fault_info(void);
void test_arith_fault(void);
void test_fault_regs(void);
void test_sigaltstack(void);
void test_signal_fpu(void);
void test_signals(void);
void test_threads(void);
void test_clone_futex(void);
void test_atomics(void);
void test_mmap(void);
void test_file_map(void);
void test_copy(void);
void test_jit(void);
void test_selfmod(void);
void test_crossmod(void);
void test_float(void);
void test_x87(void);
void test_avx(void);
void test_fpu_switch(void);
void test_vdso_time(void);
void test_sleep(void);
void test_itimer(void);
void test_proc_maps(void);
void test_syscalls(void);
void test_pipes(void);
void test_ptrace(void);
void test_trap_flag(void);
void test_cpuid(void);
void folder_write(void);     /* folder.c */
void folder_append(void);
void folder_big(void);
void folder_mmap(void);
void folder_rename(void);
void folder_links(void);
void folder_modes(void);
void folder_many(void);
void folder_names(void);
void folder_open_gone(void);
void folder_exec(void);
int exec_child(int argc, char **argv);
int power_button(void);      /* button.c */
int vsock_services(void);    /* vsock.c */

#endif
