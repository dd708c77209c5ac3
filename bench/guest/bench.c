/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The benchmark program: one static binary that runs natively, in doppel and in other monitors, so that only the
 * machine underneath differs. A line of output per kernel: "bench NAME NS" (nanoseconds per operation, best sample).
 *
 * Method: the iteration count of a kernel doubles until one sample lasts at least SAMPLE_NS; then `samples` samples are
 * taken and the fastest counts. Time is CLOCK_MONOTONIC. Each kernel folds its results into a checksum that is
 * printed too ("sum NAME HEX", of one operation from a fresh start): it must be the same on every machine.
 *
 * Usage: bench [-s SAMPLES] [-t SAMPLE_MS] [NAME...]
 */
#include <errno.h>
#include <fcntl.h>
#include <immintrin.h>
#include <math.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define nitems(a) (sizeof(a) / sizeof((a)[0]))
#define FAST3 __attribute__((optimize("O3"), target("avx2,fma")))
/* Hides a value from the optimizer, so that a kernel's work cannot be hoisted or dropped. */
#define OPAQUE(x) __asm__ volatile("" : "+r"(x)::"memory")

static const char *self;

static void die(const char *what)
{
	fprintf(stderr, "bench: %s: %s\n", what, strerror(errno));
	exit(1);
}

static uint64_t now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * 1000000000ull + ts.tv_nsec;
}

static uint32_t rng(uint32_t *s)
{
	*s ^= *s << 13;
	*s ^= *s >> 17;
	*s ^= *s << 5;
	return *s;
}

static uint64_t fold(const void *data, size_t n)
{
	const uint8_t *p = data;
	uint64_t h = 0xcbf29ce484222325;

	while (n--)
		h = (h ^ *p++) * 0x100000001b3;
	return h;
}

/* --- integer ------------------------------------------------------------------------------------------------------ */

#define SORT_N 1000

static void quicksort(uint32_t *a, long lo, long hi)
{
	while (lo < hi) {
		uint32_t pivot = a[(lo + hi) / 2];
		long i = lo, j = hi;

		while (i <= j) {
			while (a[i] < pivot)
				i++;
			while (a[j] > pivot)
				j--;
			if (i <= j) {
				uint32_t t = a[i];

				a[i++] = a[j];
				a[j--] = t;
			}
		}
		if (j - lo < hi - i) {
			quicksort(a, lo, j);
			lo = i;
		} else {
			quicksort(a, i, hi);
			hi = j;
		}
	}
}

static uint64_t run_sort(long n)
{
	static uint32_t a[SORT_N];
	uint64_t sum = 0;

	while (n--) {
		uint32_t s = 12345;

		for (int i = 0; i < SORT_N; i++)
			a[i] = rng(&s);
		quicksort(a, 0, SORT_N - 1);
		sum = fold(a, sizeof(a));
	}
	return sum;
}

static const uint32_t sha_k[64] = {
	0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5, 0xd807aa98, 0x12835b01,
	0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174, 0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc,
	0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da, 0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147,
	0x06ca6351, 0x14292967, 0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
	0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070, 0x19a4c116, 0x1e376c08,
	0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3, 0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208,
	0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2,
};

static uint32_t ror(uint32_t x, int n) { return x >> n | x << (32 - n); }

static void sha256_block(uint32_t h[8], const uint8_t *p)
{
	uint32_t w[64], s[8];

	for (int i = 0; i < 16; i++)
		w[i] = (uint32_t)p[4 * i] << 24 | p[4 * i + 1] << 16 | p[4 * i + 2] << 8 | p[4 * i + 3];
	for (int i = 16; i < 64; i++)
		w[i] = w[i - 16] + w[i - 7] + (ror(w[i - 15], 7) ^ ror(w[i - 15], 18) ^ w[i - 15] >> 3) +
		       (ror(w[i - 2], 17) ^ ror(w[i - 2], 19) ^ w[i - 2] >> 10);
	memcpy(s, h, sizeof(s));
	for (int i = 0; i < 64; i++) {
		uint32_t t1 = s[7] + (ror(s[4], 6) ^ ror(s[4], 11) ^ ror(s[4], 25)) + ((s[4] & s[5]) ^ (~s[4] & s[6])) +
			      sha_k[i] + w[i];
		uint32_t t2 = (ror(s[0], 2) ^ ror(s[0], 13) ^ ror(s[0], 22)) +
			      ((s[0] & s[1]) ^ (s[0] & s[2]) ^ (s[1] & s[2]));

		s[7] = s[6];
		s[6] = s[5];
		s[5] = s[4];
		s[4] = s[3] + t1;
		s[3] = s[2];
		s[2] = s[1];
		s[1] = s[0];
		s[0] = t1 + t2;
	}
	for (int i = 0; i < 8; i++)
		h[i] += s[i];
}

static uint64_t run_sha256(long n)
{
	static uint8_t data[16384];
	uint32_t h[8];

	for (size_t i = 0; i < sizeof(data); i++)
		data[i] = i * 7;
	while (n--) {
		static const uint32_t init[8] = {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a,
						 0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};

		memcpy(h, init, sizeof(h));
		for (size_t i = 0; i < sizeof(data); i += 64)
			sha256_block(h, data + i);
	}
	return fold(h, sizeof(h));
}

#define SIEVE_N 100000

static uint64_t run_sieve(long n)
{
	static uint8_t composite[SIEVE_N];
	uint64_t primes = 0;

	while (n--) {
		memset(composite, 0, sizeof(composite));
		primes = 0;
		for (int i = 2; i < SIEVE_N; i++) {
			if (composite[i])
				continue;
			primes++;
			for (long j = (long)i * i; j < SIEVE_N; j += i)
				composite[j] = 1;
		}
	}
	return primes;
}

#define HASH_N 65536

static uint64_t run_hash(long n)
{
	static struct {
		uint64_t key, val;
	} table[HASH_N * 2];
	uint64_t sum = 0;

	while (n--) {
		uint32_t s = 99;

		memset(table, 0, sizeof(table));
		for (int i = 0; i < HASH_N; i++) {
			uint64_t key = rng(&s);
			uint32_t slot = (key * 0x9e3779b97f4a7c15) >> 47;

			while (table[slot].key && table[slot].key != key)
				slot = (slot + 1) % (HASH_N * 2);
			table[slot].key = key;
			table[slot].val += i;
		}
		sum = 0;
		s = 99;
		for (int i = 0; i < HASH_N; i++) {
			uint64_t key = rng(&s);
			uint32_t slot = (key * 0x9e3779b97f4a7c15) >> 47;

			while (table[slot].key != key)
				slot = (slot + 1) % (HASH_N * 2);
			sum += table[slot].val;
		}
	}
	return sum;
}

static __attribute__((noinline, optimize("no-optimize-sibling-calls"))) uint64_t fib(unsigned n)
{
	__asm__ volatile(""); /* a call stays a call */
	return n < 2 ? n : fib(n - 1) + fib(n - 2);
}

static uint64_t run_calls(long n)
{
	uint64_t r = 0;

	while (n--) {
		unsigned arg = 22;

		OPAQUE(arg);
		r = fib(arg);
	}
	return r;
}

/* A bytecode machine with an accumulator, eight registers and a dense switch: an indirect jump for each of its instructions. */
enum op { OP_LDI, OP_LD, OP_ST, OP_ADD, OP_SUB, OP_XOR, OP_SHL, OP_SHR, OP_DEC, OP_JNZ, OP_HALT };
static const uint8_t program[] = {
	OP_LDI, 200, OP_ST, 0, OP_LDI, 7, OP_ST, 1,                                     /* r0 = 200, r1 = 7 */
	OP_LD, 1, OP_SHL, 3, OP_XOR, 1, OP_ADD, 0, OP_ST, 2, OP_SHR, 2, OP_SUB, 0,      /* 8: mix r1 with r0 */
	OP_XOR, 2, OP_ST, 1, OP_DEC, 0, OP_JNZ, 8, OP_HALT, 0,
};

static __attribute__((noinline)) uint32_t interpret(const uint8_t *code)
{
	uint32_t acc = 0, r[8] = {0};

	for (unsigned pc = 0;; pc += 2) {
		uint8_t arg = code[pc + 1];

		switch ((enum op)code[pc]) {
		case OP_LDI:
			acc = arg;
			break;
		case OP_LD:
			acc = r[arg];
			break;
		case OP_ST:
			r[arg] = acc;
			break;
		case OP_ADD:
			acc += r[arg];
			break;
		case OP_SUB:
			acc -= r[arg];
			break;
		case OP_XOR:
			acc ^= r[arg];
			break;
		case OP_SHL:
			acc <<= arg;
			break;
		case OP_SHR:
			acc >>= arg;
			break;
		case OP_DEC:
			acc = --r[arg];
			break;
		case OP_JNZ:
			if (acc)
				pc = arg - 2;
			break;
		case OP_HALT:
			return r[1];
		}
	}
}

static uint64_t run_bytecode(long n)
{
	uint64_t sum = 0;

	while (n--) {
		const uint8_t *code = program;

		OPAQUE(code);
		sum = interpret(code);
	}
	return sum;
}

/* --- memory ------------------------------------------------------------------------------------------------------- */

static uint64_t run_memcpy(long n)
{
	static uint8_t from[1 << 20], to[1 << 20];

	memset(from, 0x5a, sizeof(from));
	while (n--) {
		uint8_t *d = to;

		OPAQUE(d);
		memcpy(d, from, sizeof(to));
	}
	return fold(to + 1000, 4096);
}

/* One operation = 1000 dependent loads over 4 MiB in a random cycle. */
static uint64_t run_chase(long n)
{
	enum { NODES = 1 << 19 };
	static uint64_t next[NODES];
	uint64_t at = 0;
	uint32_t s = 7;

	if (!next[0]) {
		for (uint32_t i = 0; i < NODES; i++)
			next[i] = i;
		for (uint32_t i = NODES - 1; i > 0; i--) {
			uint32_t j = rng(&s) % i;
			uint64_t t = next[i];

			next[i] = next[j];
			next[j] = t;
		}
	}
	while (n--)
		for (int i = 0; i < 1000; i++)
			at = next[at];
	return at;
}

/* --- floating point ----------------------------------------------------------------------------------------------- */

#define MAT_N 64

static uint64_t run_matrix(long n)
{
	static double a[MAT_N][MAT_N], b[MAT_N][MAT_N], c[MAT_N][MAT_N];

	for (int i = 0; i < MAT_N; i++) {
		for (int j = 0; j < MAT_N; j++) {
			a[i][j] = i * 0.5 - j;
			b[i][j] = i + j * 0.25;
		}
	}
	while (n--) {
		for (int i = 0; i < MAT_N; i++) {
			for (int j = 0; j < MAT_N; j++) {
				double sum = 0;

				for (int k = 0; k < MAT_N; k++)
					sum += a[i][k] * b[k][j];
				c[i][j] = sum;
			}
		}
		__asm__ volatile("" ::: "memory");
	}
	return fold(c, sizeof(c));
}

struct body {
	double x[3], v[3], mass;
};

static void advance(struct body *b, int n, double dt)
{
	for (int i = 0; i < n; i++) {
		for (int j = i + 1; j < n; j++) {
			double d[3], d2 = 0, mag;

			for (int k = 0; k < 3; k++) {
				d[k] = b[i].x[k] - b[j].x[k];
				d2 += d[k] * d[k];
			}
			mag = dt / (d2 * sqrt(d2));
			for (int k = 0; k < 3; k++) {
				b[i].v[k] -= d[k] * b[j].mass * mag;
				b[j].v[k] += d[k] * b[i].mass * mag;
			}
		}
	}
	for (int i = 0; i < n; i++)
		for (int k = 0; k < 3; k++)
			b[i].x[k] += dt * b[i].v[k];
}

static uint64_t run_nbody(long n)
{
	static const struct body init[5] = {
		{{0, 0, 0}, {0, 0, 0}, 39.47},
		{{4.84, -1.16, -0.10}, {0.60, 2.81, -0.02}, 0.037},
		{{8.34, 4.12, -0.40}, {-1.01, 1.82, 0.008}, 0.011},
		{{12.89, -15.11, -0.22}, {1.08, 0.86, -0.01}, 0.0017},
		{{15.37, -25.9, 0.179}, {0.97, 0.59, -0.034}, 0.002},
	};
	struct body b[5];

	while (n--) {
		memcpy(b, init, sizeof(b));
		for (int i = 0; i < 100; i++)
			advance(b, 5, 0.001);
	}
	return fold(b, sizeof(b));
}

#define SAXPY_N 4096

static FAST3 void saxpy(float *restrict y, const float *restrict x, float a)
{
	for (int i = 0; i < SAXPY_N; i++)
		y[i] = a * x[i] + y[i] * 0.5f;
}

static uint64_t run_saxpy(long n)
{
	static float x[SAXPY_N] __attribute__((aligned(64))), y[SAXPY_N] __attribute__((aligned(64)));

	for (int i = 0; i < SAXPY_N; i++) {
		x[i] = i * 0.25f;
		y[i] = 0;
	}
	while (n--) {
		float *d = y;

		OPAQUE(d);
		saxpy(d, x, 1.5f);
	}
	return fold(y, sizeof(y));
}

/* --- system ------------------------------------------------------------------------------------------------------- */

static uint64_t run_syscall(long n)
{
	while (n--)
		syscall(SYS_getppid);
	return 0;
}

static uint64_t run_pipe(long n)
{
	int to[2], from[2];
	char c = 'x';
	pid_t pid;

	if (pipe(to) || pipe(from) || (pid = fork()) < 0)
		die("pipe");
	if (pid == 0) {
		close(to[1]);
		close(from[0]);
		while (read(to[0], &c, 1) == 1 && write(from[1], &c, 1) == 1)
			;
		_exit(0);
	}
	close(to[0]);
	close(from[1]);
	while (n--)
		if (write(to[1], &c, 1) != 1 || read(from[0], &c, 1) != 1)
			die("ping-pong");
	close(to[1]);
	close(from[0]);
	waitpid(pid, NULL, 0);
	return 0;
}

static void reap(pid_t pid)
{
	int status;

	if (pid < 0 || waitpid(pid, &status, 0) != pid || status)
		die("child");
}

static uint64_t run_fork(long n)
{
	while (n--) {
		pid_t pid = fork();

		if (pid == 0)
			_exit(0);
		reap(pid);
	}
	return 0;
}

static uint64_t run_exec(long n)
{
	while (n--) {
		pid_t pid = fork();

		if (pid == 0) {
			execl(self, self, "-x", NULL);
			_exit(127);
		}
		reap(pid);
	}
	return 0;
}

/* One operation = the first write to one fresh page (with 1/256 of an mmap and munmap). */
static uint64_t run_fault(long n)
{
	while (n > 0) {
		long batch = n < 256 ? n : 256;
		uint8_t *p = mmap(NULL, batch * 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

		if (p == MAP_FAILED)
			die("mmap");
		madvise(p, batch * 4096, MADV_NOHUGEPAGE);
		for (long i = 0; i < batch; i++)
			p[i * 4096] = 1;
		munmap(p, batch * 4096);
		n -= batch;
	}
	return 0;
}

static uint64_t run_file(long n)
{
	char path[64];

	snprintf(path, sizeof(path), "/dev/shm/bench.%d", getpid());
	while (n--) {
		int fd = open(path, O_CREAT | O_RDWR | O_EXCL, 0600);

		if (fd < 0 || write(fd, path, 1) != 1)
			die(path);
		close(fd);
		unlink(path);
	}
	return 0;
}

/* --- the table and the loop ----------------------------------------------------------------------------------------- */

static const struct kernel {
	const char *name;
	uint64_t (*run)(long n); /* n operations; the checksum after the last */
	bool avx2;
} kernels[] = {
	{"sort", run_sort, false},       {"sha256", run_sha256, false},   {"sieve", run_sieve, false},
	{"hash", run_hash, false},       {"calls", run_calls, false},     {"bytecode", run_bytecode, false},
	{"memcpy", run_memcpy, false},   {"chase", run_chase, false},     {"matrix", run_matrix, false},
	{"nbody", run_nbody, false},     {"saxpy", run_saxpy, true},      {"syscall", run_syscall, false},
	{"pipe", run_pipe, false},       {"fork", run_fork, false},       {"exec", run_exec, false},
	{"pagefault", run_fault, false}, {"file", run_file, false},
};

static uint64_t sample(const struct kernel *k, long n)
{
	uint64_t start = now_ns();

	k->run(n);
	return now_ns() - start;
}

static void measure(const struct kernel *k, unsigned samples, uint64_t sample_ns)
{
	uint64_t sum = k->run(1), best, t;
	long n = 1;

	while ((best = sample(k, n)) < sample_ns)
		n = best < sample_ns / 16 ? n * 8 : n * 2;
	for (unsigned i = 1; i < samples; i++) {
		t = sample(k, n);
		if (t < best)
			best = t;
	}
	printf("bench %s %.3f\nsum %s %016llx\n", k->name, (double)best / n, k->name, (unsigned long long)sum);
	fflush(stdout);
}

static bool wanted(const char *name, char **names, int n)
{
	for (int i = 0; i < n; i++)
		if (!strcmp(names[i], name))
			return true;
	return n == 0;
}

int main(int argc, char **argv)
{
	unsigned samples = 5, ms = 50;
	int opt;

	self = argv[0];
	while ((opt = getopt(argc, argv, "s:t:x")) != -1) {
		if (opt == 's')
			samples = atoi(optarg);
		else if (opt == 't')
			ms = atoi(optarg);
		else
			return opt == 'x' ? 0 : 2;
	}
	for (size_t i = 0; i < nitems(kernels); i++) {
		if (!wanted(kernels[i].name, argv + optind, argc - optind))
			continue;
		if (kernels[i].avx2 && !(__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"))) {
			printf("skip %s no AVX2\n", kernels[i].name);
			continue;
		}
		measure(&kernels[i], samples, ms * 1000000ull);
	}
	puts("bench done");
	return 0;
}
