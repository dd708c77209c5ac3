/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Floating point: known values, x87, AVX2, state across task switches; and time.
 */
#include <immintrin.h>
#include <math.h>
#include <sys/time.h>
#include <sys/wait.h>

#include "vmtest.h"

/* --- floating point ----------------------------------------------------------------------------------------------- */

static uint64_t bits(double d)
{
	uint64_t u;

	memcpy(&u, &d, 8);
	return u;
}

void test_float(void)
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

void test_x87(void)
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

__attribute__((target("avx2,fma"))) void test_avx(void)
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
void test_fpu_switch(void)
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

void test_vdso_time(void)
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

void test_sleep(void)
{
	uint64_t t = now_ns(CLOCK_MONOTONIC);
	struct timespec ts = {.tv_nsec = 50000000};

	for (int i = 0; i < 4; i++)
		nanosleep(&ts, NULL);
	t = now_ns(CLOCK_MONOTONIC) - t;
	if (t < 200000000 || t > 600000000)
		fail("4 x 50 ms took %llu us", (unsigned long long)t / 1000);
}

void test_itimer(void)
{
	struct itimerval it = {{0, 10000}, {0, 10000}};
	uint64_t t = now_ns(CLOCK_MONOTONIC);
	long spins = 0;

	signals_seen = 0;
	signal(SIGALRM, count_signal);
	setitimer(ITIMER_REAL, &it, NULL);
	while (now_ns(CLOCK_MONOTONIC) - t < 500000000) /* busy: the timer must interrupt running code */
		spins++;
	memset(&it, 0, sizeof(it));
	setitimer(ITIMER_REAL, &it, NULL);
	if (signals_seen < 15 || signals_seen > 51)
		fail("%d ticks of 10 ms in 500 ms", (int)signals_seen);
}
