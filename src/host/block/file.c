/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Whole, blocking transfers on an image file.
 *
 * No state, no locks. A signal or a short count never surfaces; a read past the end yields zeroes, as holes do, because an
 * image's last sector or cluster may lie partly beyond it.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "host/block/private.h"

#define ZERO_CHUNK 65536u

int block_fail(struct block_error *err, int ret, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(err->text, sizeof(err->text), fmt, ap);
	va_end(ap);
	return ret;
}

int file_read(int fd, void *buf, size_t bytes, uint64_t offset)
{
	const struct iovec iov = {.iov_base = buf, .iov_len = bytes};

	return file_readv(fd, &iov, 1, 0, offset);
}

int file_write(int fd, const void *buf, size_t bytes, uint64_t offset)
{
	const struct iovec iov = {.iov_base = (void *)(uintptr_t)buf, .iov_len = bytes};

	return file_writev(fd, &iov, 1, 0, offset);
}

/* Element by element: this finishes what a vectored call has left over, so it is rarely called with many. */
int file_try_readv(int fd, const struct iovec *iov, unsigned niov, size_t bytes, uint64_t offset)
{
	ssize_t n = preadv2(fd, iov, (int)niov, (off_t)offset, RWF_NOWAIT);

	if (n < 0 && (errno == EOPNOTSUPP || errno == ENOSYS))
		return -EOPNOTSUPP;
	return n == (ssize_t)bytes ? 0 : -EAGAIN;
}

int file_readv(int fd, const struct iovec *iov, unsigned niov, size_t skip, uint64_t offset)
{
	bool end = false;

	offset += skip;
	for (unsigned i = 0; i < niov; i++) {
		size_t at = skip < iov[i].iov_len ? skip : iov[i].iov_len;

		skip -= at;
		while (at < iov[i].iov_len) {
			ssize_t n = end ? 0 : pread(fd, (char *)iov[i].iov_base + at, iov[i].iov_len - at, (off_t)offset);

			if (n < 0 && errno == EINTR)
				continue;
			if (n < 0)
				return -errno;
			if (n == 0) {
				end = true;
				n = (ssize_t)(iov[i].iov_len - at);
				memset((char *)iov[i].iov_base + at, 0, (size_t)n);
			}
			at += (size_t)n;
			offset += (uint64_t)n;
		}
	}
	return 0;
}

int file_writev(int fd, const struct iovec *iov, unsigned niov, size_t skip, uint64_t offset)
{
	offset += skip;
	for (unsigned i = 0; i < niov; i++) {
		size_t at = skip < iov[i].iov_len ? skip : iov[i].iov_len;

		skip -= at;
		while (at < iov[i].iov_len) {
			ssize_t n = pwrite(fd, (const char *)iov[i].iov_base + at, iov[i].iov_len - at, (off_t)offset);

			if (n < 0 && errno == EINTR)
				continue;
			if (n <= 0)
				return n < 0 ? -errno : -ENOSPC;
			at += (size_t)n;
			offset += (uint64_t)n;
		}
	}
	return 0;
}

int file_sync(int fd)
{
	int ret;

	do
		ret = fdatasync(fd);
	while (ret < 0 && errno == EINTR);
	return ret < 0 ? -errno : 0;
}

static int allocate(int fd, int mode, uint64_t bytes, uint64_t offset)
{
	int ret;

	do
		ret = fallocate(fd, mode, (off_t)offset, (off_t)bytes);
	while (ret < 0 && errno == EINTR);
	return ret < 0 ? -errno : 0;
}

int file_punch(int fd, uint64_t bytes, uint64_t offset)
{
	return allocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, bytes, offset);
}

int file_zero(int fd, uint64_t bytes, uint64_t offset, bool unmap)
{
	static const uint8_t zeroes[ZERO_CHUNK];
	int ret = unmap ? file_punch(fd, bytes, offset) : -EOPNOTSUPP;

	if (ret < 0)
		ret = allocate(fd, FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE, bytes, offset);
	/* Any refusal may be the file system's way of saying that it cannot: writing decides. */
	while (ret < 0 && bytes) {
		size_t n = bytes < ZERO_CHUNK ? bytes : ZERO_CHUNK;
		int err = file_write(fd, zeroes, n, offset);

		if (err < 0)
			return err;
		offset += n;
		bytes -= n;
	}
	return 0;
}

int file_size(int fd, uint64_t *size)
{
	off_t end = lseek(fd, 0, SEEK_END);

	if (end < 0)
		return -errno;
	*size = (uint64_t)end;
	return 0;
}
