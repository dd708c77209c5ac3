/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Threads, atomic instructions, mappings and large copies.
 */
#include <fcntl.h>
#include <linux/futex.h>
#include <pthread.h>
#include <sched.h>

#include "vmtest.h"

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

void test_threads(void)
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

void test_clone_futex(void)
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

void test_atomics(void)
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

void test_mmap(void)
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

void test_file_map(void)
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
void test_copy(void)
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
