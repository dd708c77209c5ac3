/* SPDX-License-Identifier: Apache-2.0 */
/* host/block: raw disks through io_uring and through threads, also in a sealed process; refusals; locks; formats found by looking. */
#include "fixture.h"

#include <liburing.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/wait.h>

#include "host/block/private.h"
#include "host/sandbox.h"

#define SIZE (4u << 20)

static void run_load(unsigned aio_flags)
{
	struct load *l = calloc(1, sizeof(*l));
	struct disk d;

	disk_dir(&d);
	make_file(d.path, SIZE);
	disk_open(&d, BLOCK_RAW, 0, aio_flags);
	*l = (struct load){.d = &d, .model = calloc(1, SIZE), .size = SIZE, .seed = 0x1234567 + aio_flags, .max = 1u << 20,
			   .discards = true};
	load_run(l, 4000);
	assert_true(l->reads > 500 && l->writes > 500 && l->others > 100);
	/* A file system may be without reads that do not wait. */
	assert_true(l->tried > 100 || d.b->top->no_try);
	disk_compare(&d, l->model, SIZE);
	disk_close(&d);
	/* What is in the file is what was written. */
	disk_open(&d, BLOCK_RAW, BLOCK_RDONLY, BLOCK_AIO_NO_URING);
	disk_compare(&d, l->model, SIZE);
	disk_close(&d);
	disk_remove_dir(&d);
	free(l->model);
	free(l);
}

static void test_uring(void **state)
{
	struct disk d;
	bool have;

	(void)state;
	disk_dir(&d);
	make_file(d.path, SIZE);
	disk_open(&d, BLOCK_RAW, 0, 0);
	have = !strcmp(block_aio_kind(d.aio), "io_uring");
	disk_close(&d);
	disk_remove_dir(&d);
	if (!have)
		skip();
	run_load(0);
}

static void test_threads(void **state)
{
	(void)state;
	run_load(BLOCK_AIO_NO_URING);
}

/* More requests at once than there are pieces, each of more iovecs than a piece holds. */
static void test_many(unsigned aio_flags)
{
	enum { N = 600, IOV = 130 };
	static struct block_request r[N];
	static struct iovec iov[IOV];
	static uint8_t buf[IOV * 512];
	static int result[N];
	struct disk d;

	disk_dir(&d);
	make_file(d.path, SIZE);
	disk_open(&d, BLOCK_RAW, 0, aio_flags);
	memset(buf, 0x5a, sizeof(buf));
	for (unsigned i = 0; i < IOV; i++)
		iov[i] = (struct iovec){.iov_base = buf + i * 512, .iov_len = 512};
	for (unsigned i = 0; i < N; i++) {
		result[i] = 1;
		r[i] = (struct block_request){.op = i % 3 == 2 ? BLOCK_FLUSH : BLOCK_WRITE, .offset = i % 32 * sizeof(buf),
					      .bytes = sizeof(buf), .iov = iov, .niov = IOV, .done = store_result,
					      .opaque = &result[i]};
		block_submit(d.b, &r[i]);
	}
	block_drain(d.b);
	for (unsigned i = 0; i < N; i++)
		assert_int_equal(result[i], 0);
	memset(buf, 0, sizeof(buf));
	assert_int_equal(disk_do(&d, BLOCK_READ, buf, sizeof(buf), 31 * sizeof(buf)), 0);
	for (size_t i = 0; i < sizeof(buf); i++)
		assert_int_equal(buf[i], 0x5a);
	disk_close(&d);
	disk_remove_dir(&d);
}

static void test_many_uring(void **state)
{
	(void)state;
	test_many(0);
}

static void test_many_threads(void **state)
{
	(void)state;
	test_many(BLOCK_AIO_NO_URING);
}

struct batch { struct disk *d; unsigned done, told; bool late; };

static void count_done(struct block_request *r, int result)
{
	struct batch *b = r->opaque;

	assert_int_equal(result, 0);
	b->done++;
	b->late = true;
}

static void batch_end(void *opaque)
{
	struct batch *b = opaque;

	assert_true(b->late); /* there was something to tell, */
	b->late = false;
	b->told = b->done;
}

/* Plugged requests end like others; each poll that ends some says so once, after the last of them. */
static void test_batches(unsigned aio_flags)
{
	enum { N = 40 };
	static struct block_request r[N];
	static uint8_t buf[512];
	struct iovec iov = {buf, sizeof(buf)};
	struct disk d;
	struct batch b = {.d = &d};

	disk_dir(&d);
	make_file(d.path, SIZE);
	disk_open(&d, BLOCK_RAW, 0, aio_flags);
	block_on_batch(d.b, batch_end, &b);
	block_plug(d.b);
	block_plug(d.b);
	for (unsigned i = 0; i < N; i++) {
		r[i] = (struct block_request){.op = i % 3 ? BLOCK_READ : BLOCK_WRITE, .offset = i * 512, .bytes = 512, .iov = &iov,
					      .niov = 1, .done = count_done, .opaque = &b};
		block_submit(d.b, &r[i]);
		if (i == N / 2)
			block_unplug(d.b); /* what is there goes, though another plug is left */
	}
	block_unplug(d.b);
	block_drain(d.b);
	assert_int_equal(b.done, N);
	assert_int_equal(b.told, N);
	block_on_batch(d.b, NULL, NULL);
	disk_close(&d);
	disk_remove_dir(&d);
}

static void test_batches_uring(void **state)
{
	(void)state;
	test_batches(0);
}

static void test_batches_threads(void **state)
{
	(void)state;
	test_batches(BLOCK_AIO_NO_URING);
}

static void test_refusals(void **state)
{
	static uint8_t buf[4096];
	struct iovec odd = {.iov_base = buf, .iov_len = 100};
	struct block_request r = {.op = BLOCK_READ, .bytes = 512, .iov = &odd, .niov = 1, .done = store_result};
	struct disk d;
	int result = 1;

	(void)state;
	disk_dir(&d);
	/* The last sector is there only in part. */
	make_file(d.path, SIZE + 100);
	disk_open(&d, BLOCK_RAW, BLOCK_RDONLY, 0);
	assert_int_equal(block_size(d.b), SIZE + 512);
	memset(buf, 1, sizeof(buf));
	assert_int_equal(disk_do(&d, BLOCK_READ, buf, 512, SIZE), 0);
	assert_int_equal(buf[511], 0);
	assert_int_equal(disk_do(&d, BLOCK_READ, buf, 1024, SIZE), -EINVAL);
	assert_int_equal(disk_do(&d, BLOCK_READ, buf, 512, UINT64_MAX - 511), -EINVAL);
	assert_int_equal(disk_do(&d, BLOCK_WRITE, buf, 512, 0), -EROFS);
	assert_int_equal(disk_do(&d, BLOCK_DISCARD, NULL, 512, 0), -EROFS);
	assert_int_equal(disk_do(&d, BLOCK_FLUSH, NULL, 0, 0), 0);
	r.opaque = &result;
	block_submit(d.b, &r);
	assert_int_equal(result, 1);      /* never from inside block_submit() */
	disk_wait(&d, &result);
	assert_int_equal(result, -EINVAL);
	disk_close(&d);
	disk_remove_dir(&d);
}

/* A guest may not turn a disk that was found to be raw into a header with a backing file of its choice. */
static void test_probed(void **state)
{
	static uint8_t sector[1024] = "QFI\xfb";
	struct disk d;

	(void)state;
	disk_dir(&d);
	make_file(d.path, SIZE);
	disk_open(&d, BLOCK_AUTO, 0, 0);
	assert_int_equal(disk_do(&d, BLOCK_WRITE, sector, 512, 0), -EPERM);
	assert_int_equal(disk_do(&d, BLOCK_WRITE, sector, 1024, 0), -EPERM);
	assert_int_equal(disk_do(&d, BLOCK_WRITE, sector, 1024, 512), 0); /* elsewhere it is data */
	assert_int_equal(block_pwrite(d.b, "QF", 2, 0), 0);
	assert_int_equal(block_pwrite(d.b, "I\xfb", 2, 2), -EPERM);
	disk_close(&d);
	disk_open(&d, BLOCK_RAW, 0, 0);
	assert_int_equal(disk_do(&d, BLOCK_WRITE, sector, 512, 0), 0);
	disk_close(&d);
	disk_remove_dir(&d);
}

static void test_locks(void **state)
{
	struct disk d, other;

	(void)state;
	disk_dir(&d);
	make_file(d.path, SIZE);
	other = d;
	disk_open(&d, BLOCK_RAW, 0, 0);
	assert_non_null(disk_try_open(&other, BLOCK_RAW, 0, 0));
	assert_non_null(strstr(disk_try_open(&other, BLOCK_RAW, BLOCK_RDONLY, 0), "in use"));
	disk_open(&other, BLOCK_RAW, BLOCK_RDONLY | BLOCK_NO_LOCK, 0);
	disk_close(&other);
	disk_close(&d);
	disk_open(&d, BLOCK_RAW, BLOCK_RDONLY, 0);
	disk_open(&other, BLOCK_RAW, BLOCK_RDONLY, 0);
	disk_close(&other);
	assert_non_null(disk_try_open(&other, BLOCK_RAW, 0, 0));
	disk_close(&d);
	disk_open(&d, BLOCK_RAW, 0, 0);
	disk_close(&d);
	disk_remove_dir(&d);
}

static void test_paths(void **state)
{
	struct disk d;
	int fd;

	(void)state;
	disk_dir(&d);
	assert_non_null(strstr(disk_try_open(&d, BLOCK_RAW, 0, 0), "check the path"));
	make_file(d.path, 0);
	assert_non_null(strstr(disk_try_open(&d, BLOCK_RAW, 0, 0), "empty"));
	fd = open(d.path, O_WRONLY);
	assert_int_equal(pwrite(fd, "KDMV", 4, 0), 4);
	close(fd);
	assert_non_null(strstr(disk_try_open(&d, BLOCK_AUTO, 0, 0), "VMDK"));
	strcpy(d.path, d.dir);
	assert_non_null(disk_try_open(&d, BLOCK_RAW, BLOCK_RDONLY, 0));
	disk_remove_dir(&d);
}

/* 0 if a sealed process can use its disk, 77 if this build cannot be sealed. */
static int use_sealed(unsigned aio_flags, bool open_one)
{
	static uint8_t buf[8192];
	struct disk d;
	int status;
	pid_t pid;

	disk_dir(&d);
	make_file(d.path, SIZE);
	pid = fork();
	if (pid == 0) {
		disk_open(&d, BLOCK_RAW, 0, aio_flags);
		sandbox_enter(0);
		if (sandbox_seal(-1, -1, NULL, 0) < 0)
			_exit(77);
		if (open_one)
			(void)open("/", O_RDONLY);
		memset(buf, 0xa5, sizeof(buf));
		if (disk_do(&d, BLOCK_WRITE, buf, sizeof(buf), 512) || disk_do(&d, BLOCK_FLUSH, NULL, 0, 0) ||
		    disk_do(&d, BLOCK_WRITE_ZEROES, NULL, 512, 512) || disk_do(&d, BLOCK_DISCARD, NULL, 4096, 4096) ||
		    disk_do(&d, BLOCK_READ, buf, 1024, 512) || disk_do(&d, BLOCK_READ, buf + 1024, 512, SIZE - 512))
			_exit(1);
		_exit(buf[511] == 0 && buf[512] == 0xa5 ? 0 : 2);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	disk_remove_dir(&d);
	return status;
}

static void test_sealed(void **state)
{
	int status = use_sealed(0, false);

	(void)state;
	if (WIFEXITED(status) && WEXITSTATUS(status) == 77)
		skip();
	assert_int_equal(status, 0);
	assert_int_equal(use_sealed(BLOCK_AIO_NO_URING, false), 0);
	assert_true(WIFSIGNALED(use_sealed(0, true)));
}

static int ring_try(struct io_uring *ring)
{
	struct io_uring_cqe *cqe;
	int res;

	assert_int_equal(io_uring_submit_and_wait(ring, 1), 1);
	assert_int_equal(io_uring_peek_cqe(ring, &cqe), 0);
	res = cqe->res;
	io_uring_cqe_seen(ring, cqe);
	return res;
}

/* The ring, taken over by a guest: nothing but its files. */
static void test_restricted(void **state)
{
	int fd = open("/dev/null", O_RDWR), event = eventfd(0, EFD_NONBLOCK), files[1] = {fd};
	struct io_uring_sqe *sqe;
	struct io_uring *ring;
	struct uring *u;
	char b;

	(void)state;
	if (uring_create(&u, event, files, 1) < 0)
		skip();
	ring = (struct io_uring *)u; /* its first member */
	sqe = io_uring_get_sqe(ring);
	io_uring_prep_openat(sqe, AT_FDCWD, "/", O_RDONLY, 0);
	assert_int_equal(ring_try(ring), -EACCES);
	sqe = io_uring_get_sqe(ring);
	io_uring_prep_socket(sqe, AF_UNIX, SOCK_STREAM, 0, 0);
	sqe->flags |= IOSQE_FIXED_FILE;
	assert_int_equal(ring_try(ring), -EACCES);
	sqe = io_uring_get_sqe(ring);
	io_uring_prep_readv(sqe, fd, &(struct iovec){.iov_base = &b, .iov_len = 1}, 1, 0);
	assert_int_equal(ring_try(ring), -EACCES);
	sqe = io_uring_get_sqe(ring);
	io_uring_prep_readv(sqe, 0, &(struct iovec){.iov_base = &b, .iov_len = 1}, 1, 0);
	sqe->flags |= IOSQE_FIXED_FILE;
	assert_int_equal(ring_try(ring), 0);
	assert_int_equal(io_uring_register_files_update(ring, 0, &event, 1), -EACCES);
	uring_destroy(u);
	close(event);
	close(fd);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_uring), cmocka_unit_test(test_threads), cmocka_unit_test(test_many_uring),
		cmocka_unit_test(test_many_threads), cmocka_unit_test(test_batches_uring),
		cmocka_unit_test(test_batches_threads), cmocka_unit_test(test_refusals), cmocka_unit_test(test_probed),
		cmocka_unit_test(test_locks), cmocka_unit_test(test_paths), cmocka_unit_test(test_sealed),
		cmocka_unit_test(test_restricted),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
