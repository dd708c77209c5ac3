/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Code that is written while it runs: just-in-time compilers, self- and cross-modifying code.
 */
#include <pthread.h>

#include "vmtest.h"

typedef int (*code_fn)(int);

void test_jit(void)
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
void test_selfmod(void)
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

void test_crossmod(void)
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
