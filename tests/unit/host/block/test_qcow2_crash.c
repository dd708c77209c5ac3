/* SPDX-License-Identifier: Apache-2.0 */
/*
 * host/block/qcow2*: whatever the process dies of, the image is consistent and holds what was flushed.
 *
 * Power loss is simulated: this program's own pwrite, fallocate and fdatasync keep a log of what the format does to its file. A crash
 * leaves everything before the last sync and, of what came after it, any sectors whatever. Many such images are made and checked.
 * SIGKILL is real: a process that writes through io_uring is killed again and again, on the same image.
 */
#include "fixture.h"

#include <signal.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>

#include "host/block/qcow2.h"

/* --- power loss ------------------------------------------------------------------------------------------------------ */

enum { LOG_WRITE, LOG_PUNCH, LOG_SYNC, LOG_MAX = 200000 };

struct log_entry { int kind; uint64_t offset, bytes; uint8_t *data; };

static struct { int fd; unsigned n; struct log_entry entry[LOG_MAX]; } journal = {.fd = -1};

static void log_add(int fd, int kind, const void *data, uint64_t bytes, uint64_t offset)
{
	struct log_entry *e = &journal.entry[journal.n];

	if (fd != journal.fd || journal.n == LOG_MAX)
		return;
	*e = (struct log_entry){kind, offset, bytes, NULL};
	if (data) {
		e->data = malloc(bytes);
		memcpy(e->data, data, bytes);
	}
	journal.n++;
}

/* These take the place of the C library's in the whole program. */
ssize_t pwrite(int fd, const void *buf, size_t bytes, off_t offset)
{
	log_add(fd, LOG_WRITE, buf, bytes, (uint64_t)offset);
	return syscall(SYS_pwrite64, fd, buf, bytes, offset);
}

int fallocate(int fd, int mode, off_t offset, off_t bytes)
{
	log_add(fd, LOG_PUNCH, NULL, (uint64_t)bytes, (uint64_t)offset);
	return (int)syscall(SYS_fallocate, fd, mode, offset, bytes);
}

int fdatasync(int fd)
{
	log_add(fd, LOG_SYNC, NULL, 0, 0);
	return 0; /* the file is in memory */
}

enum { POWER_SIZE = 1 << 20, POWER_OPS = 400, POWER_CRASHES = 100 };

struct op { unsigned begun; uint64_t at, bytes; };
struct flush { unsigned ended, op; uint8_t *model; };

struct power {
	uint64_t seed;
	uint8_t *before, *model;
	size_t image_size;
	struct op op[POWER_OPS];
	struct flush flush[POWER_OPS];
	unsigned nops, nflushes;
};

static void apply(int fd, const struct log_entry *e, uint64_t *seed)
{
	/* With a seed: each sector by chance. */
	for (uint64_t at = 0; at < e->bytes; at += 512) {
		uint64_t n = e->bytes - at < 512 ? e->bytes - at : 512;

		if (seed && random_next(seed) % 2)
			continue;
		if (e->kind == LOG_WRITE)
			assert_int_equal(syscall(SYS_pwrite64, fd, e->data + at, n, e->offset + at), (long)n);
		else if (e->kind == LOG_PUNCH)
			(void)syscall(SYS_fallocate, fd, 3, e->offset + at, n);
	}
}

static void random_ops(struct power *p, struct block *b)
{
	static uint8_t buf[100 << 10];

	for (p->nops = 0; p->nops < POWER_OPS; p->nops++) {
		struct op *o = &p->op[p->nops];
		uint64_t kind = random_next(&p->seed) % 12;

		o->at = random_next(&p->seed) % (POWER_SIZE / 512) * 512;
		o->bytes = (1 + random_next(&p->seed) % (random_next(&p->seed) % 4 ? 16 : 200)) * 512;
		o->bytes = o->bytes < POWER_SIZE - o->at ? o->bytes : POWER_SIZE - o->at;
		o->begun = journal.n;
		if (kind == 0) {
			o->bytes = 0;
			assert_int_equal(block_pflush(b), 0);
			p->flush[p->nflushes] = (struct flush){journal.n, p->nops, malloc(POWER_SIZE)};
			memcpy(p->flush[p->nflushes++].model, p->model, POWER_SIZE);
		} else if (kind < 9) {
			for (uint64_t i = 0; i < o->bytes; i++)
				buf[i] = (uint8_t)random_next(&p->seed);
			memcpy(p->model + o->at, buf, o->bytes);
			assert_int_equal(block_pwrite(b, buf, o->bytes, o->at), 0);
		} else {
			memset(p->model + o->at, 0, o->bytes);
			assert_int_equal(block_pzero(b, o->bytes, o->at, kind & 1), 0);
		}
	}
}

/* What the last flush before the crash covered and nothing touched since is there. */
static void check_flushed(const struct power *p, struct block *b, unsigned crash)
{
	static uint8_t got[POWER_SIZE];
	static bool touched[POWER_SIZE / 512];
	const struct flush *f = NULL;

	for (unsigned i = 0; i < p->nflushes && p->flush[i].ended <= crash; i++)
		f = &p->flush[i];
	if (!f)
		return;
	memset(touched, 0, sizeof(touched));
	for (unsigned i = f->op; i < p->nops && p->op[i].begun <= crash; i++)
		memset(touched + p->op[i].at / 512, 1, p->op[i].bytes / 512);
	assert_int_equal(block_pread(b, got, POWER_SIZE, 0), 0);
	for (unsigned s = 0; s < POWER_SIZE / 512; s++)
		if (!touched[s] && memcmp(got + s * 512, f->model + s * 512, 512))
			fail_msg("crash after %u of %u: sector %u is lost", crash, journal.n, s);
}

static void say(void *opaque, const char *text)
{
	print_error("crash after %u: %s\n", *(unsigned *)opaque, text);
}

/* The image as a crash after `crash` entries of the log leaves it. */
static void crash_once(struct power *p, int fd, unsigned crash)
{
	const struct block_file file = {.fd = fd, .format = BLOCK_QCOW2, .path = "image"};
	struct qcow2_check result = {.say = NULL, .opaque = &crash};
	struct block_error err;
	struct block *b;
	unsigned sync = 0;

	for (unsigned i = 0; i < crash; i++)
		if (journal.entry[i].kind == LOG_SYNC)
			sync = i;
	assert_int_equal(ftruncate(fd, 0), 0);
	assert_int_equal(syscall(SYS_pwrite64, fd, p->before, p->image_size, 0), (long)p->image_size);
	for (unsigned i = 0; i < crash; i++)
		apply(fd, &journal.entry[i], i < sync ? NULL : &p->seed);
	assert_int_equal(qcow2_check(&file, QCOW2_REPAIR_NONE, &result, &err), 0);
	if (result.corruptions) {
		result = (struct qcow2_check){.say = say, .opaque = &crash};
		(void)qcow2_check(&file, QCOW2_REPAIR_NONE, &result, &err);
		fail_msg("crash after %u of %u log entries: %llu corruptions", crash, journal.n, (unsigned long long)result.corruptions);
	}
	assert_int_equal(block_open(&b, NULL, &file, 1, BLOCK_RDONLY, &err), 0);
	check_flushed(p, b, crash);
	assert_int_equal(block_close(b), 0);
}

static void lose_power(unsigned cluster_bits, unsigned flags, uint64_t seed)
{
	const struct qcow2_new new = {.size = POWER_SIZE, .cluster_bits = cluster_bits};
	struct power *p = calloc(1, sizeof(*p));
	int fd = memfd_create("image", 0), copy = memfd_create("copy", 0);
	const struct block_file file = {.fd = fd, .format = BLOCK_QCOW2, .path = "image"};
	struct block_error err;
	struct block *b;

	p->seed = seed;
	p->model = calloc(1, POWER_SIZE);
	assert_int_equal(qcow2_create(fd, &new, &err), 0);
	p->image_size = (size_t)lseek(fd, 0, SEEK_END);
	p->before = malloc(p->image_size);
	assert_int_equal(pread(fd, p->before, p->image_size, 0), (ssize_t)p->image_size);
	journal.n = 0;
	journal.fd = fd;
	assert_int_equal(block_open(&b, NULL, &file, 1, flags, &err), 0);
	random_ops(p, b);
	assert_int_equal(block_close(b), 0);
	journal.fd = -1;
	assert_true(journal.n < LOG_MAX && p->nflushes > 10);
	for (unsigned i = 0; i < POWER_CRASHES; i++)
		crash_once(p, copy, 1 + (unsigned)(random_next(&p->seed) % journal.n));
	crash_once(p, copy, journal.n);
	for (unsigned i = 0; i < journal.n; i++)
		free(journal.entry[i].data);
	for (unsigned i = 0; i < p->nflushes; i++)
		free(p->flush[i].model);
	free(p->before);
	free(p->model);
	free(p);
	close(fd);
	close(copy);
}

static void test_power(void **state)
{
	(void)state;
	lose_power(9, BLOCK_TINY_CACHE, 1);
	lose_power(9, 0, 2);
	lose_power(12, BLOCK_TINY_CACHE, 3);
	lose_power(16, 0, 4);
}

/* --- SIGKILL ------------------------------------------------------------------------------------------------------------ */

enum { KILL_SIZE = 8 << 20, KILL_BLOCKS = KILL_SIZE / 4096, KILL_LANES = 8, KILLS = 15 };

/* Shared with the writer: per block of 4 KiB the number of the write that was last begun, and of that which a flush has covered. */
struct shared { _Atomic uint32_t begun[KILL_BLOCKS], safe[KILL_BLOCKS]; _Atomic unsigned long flushes, steps; };

struct kill_lane { struct block_request r; struct iovec iov; uint64_t buf[4096 * 4 / 8]; unsigned block, n; int result; };

static void fill(uint64_t *block, unsigned number, uint32_t version)
{
	for (unsigned i = 0; i < 512; i++)
		block[i] = version ? (uint64_t)number << 32 | version : 0;
}

/* Never returns. */
static void write_for_ever(struct disk *d, struct shared *s, uint64_t seed)
{
	static struct kill_lane lane[KILL_LANES];
	static uint32_t done[KILL_BLOCKS], covered[KILL_BLOCKS];

	memcpy(done, (const void *)s->safe, sizeof(done));
	disk_open(d, BLOCK_QCOW2, BLOCK_TINY_CACHE, 0);
	for (;;) {
		struct kill_lane *x = &lane[random_next(&seed) % KILL_LANES];

		s->steps++;
		disk_wait(d, &x->result);
		for (unsigned i = 0; i < x->n; i++)
			done[x->block + i] = s->begun[x->block + i];
		x->n = 0;
		if (random_next(&seed) % 40 == 0) {
			memcpy(covered, done, sizeof(covered));
			if (disk_do(d, BLOCK_FLUSH, NULL, 0, 0))
				_exit(1);
			for (unsigned i = 0; i < KILL_BLOCKS; i++)
				s->safe[i] = covered[i];
			s->flushes++;
			continue;
		}
		/* Each lane has blocks of its own, so nothing overlaps. */
		x->block = (unsigned)(random_next(&seed) % (KILL_BLOCKS / KILL_LANES / 4) * KILL_LANES * 4 + (unsigned)(x - lane) * 4);
		x->n = 1 + (unsigned)(random_next(&seed) % 4);
		for (unsigned i = 0; i < x->n; i++)
			fill(x->buf + i * 512, x->block + i, ++s->begun[x->block + i]);
		x->iov = (struct iovec){x->buf, x->n * 4096};
		x->r = (struct block_request){.op = BLOCK_WRITE, .offset = x->block * 4096ull, .bytes = x->n * 4096, .iov = &x->iov,
					      .niov = 1, .done = store_result, .opaque = &x->result};
		x->result = 1;
		block_submit(d->b, &x->r);
	}
}

static void check_killed(struct disk *d, struct shared *s)
{
	struct qcow2_check result = {0};
	struct block_error err;
	static uint64_t got[512], want[512];

	disk_open(d, BLOCK_QCOW2, BLOCK_RDONLY, BLOCK_AIO_NO_URING);
	assert_int_equal(qcow2_check(&d->chain.file[0], QCOW2_REPAIR_NONE, &result, &err), 0);
	assert_int_equal(result.corruptions, 0);
	for (unsigned i = 0; i < KILL_BLOCKS; i++) {
		uint32_t version;

		assert_int_equal(block_pread(d->b, got, sizeof(got), i * 4096ull), 0);
		version = (uint32_t)got[0];
		fill(want, i, version);
		/* The host's page cache outlives the process, so a block is never torn at a kill except between pages. */
		if (memcmp(got, want, sizeof(got)) || version < s->safe[i] || version > s->begun[i])
			fail_msg("block %u: holds %#llx, flushed %u, begun %u", i, (unsigned long long)got[0], s->safe[i], s->begun[i]);
		s->begun[i] = s->safe[i] = version;
	}
	disk_close(d);
}

static void test_kill(void **state)
{
	struct shared *s = mmap(NULL, sizeof(*s), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	const struct qcow2_new new = {.size = KILL_SIZE, .cluster_bits = 13};
	unsigned kills = getenv("KILLS") ? (unsigned)atoi(getenv("KILLS")) : KILLS;
	uint64_t seed = getenv("SEED") ? strtoull(getenv("SEED"), NULL, 0) | 1 : 4711;
	struct block_error err;
	struct disk d;
	int fd;

	(void)state;
	disk_dir(&d);
	fd = open(d.path, O_RDWR | O_CREAT, 0600);
	assert_int_equal(qcow2_create(fd, &new, &err), 0);
	close(fd);
	for (unsigned i = 0; i < kills; i++) {
		uint64_t child_seed = random_next(&seed);
		unsigned long until = s->steps + random_next(&seed) % 600;
		struct timespec wait = {.tv_nsec = (long)(random_next(&seed) % 2000000)};
		pid_t pid = fork();
		int status;

		if (pid == 0)
			write_for_ever(&d, s, child_seed);
		/* After a random number of its steps, somewhere in one. */
		for (unsigned n = 0; s->steps < until && n < 100000; n++)
			nanosleep(&(struct timespec){.tv_nsec = 100000}, NULL);
		nanosleep(&wait, NULL);
		kill(pid, SIGKILL);
		assert_int_equal(waitpid(pid, &status, 0), pid);
		assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
		check_killed(&d, s);
		if (system("command -v qemu-img >/dev/null") == 0) {
			char cmd[256];

			snprintf(cmd, sizeof(cmd), "qemu-img check '%s' >'%s/log' 2>&1", d.path, d.dir);
			status = system(cmd);
			/* 3: space is lost, which is permitted. */
			assert_true(WIFEXITED(status) && (WEXITSTATUS(status) == 0 || WEXITSTATUS(status) == 3));
		}
	}
	print_message("%u kills, %lu flushes\n", kills, s->flushes);
	assert_true(s->flushes > 0);
	disk_remove_dir(&d);
	munmap(s, sizeof(*s));
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(test_power), cmocka_unit_test(test_kill)};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
