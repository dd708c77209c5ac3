/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Keeping an image to one writer: locks on bytes of the image file itself.
 *
 * The protocol is QEMU's, so that qemu-img and doppel respect each other. A user of an image holds a shared lock on byte 100 + p for
 * each thing p it does, and on byte 200 + p for each thing p that nobody else may do; then it looks whether anybody else
 * holds what contradicts. Both lock before they look, so of two that exclude each other at most one goes on.
 *
 *   p    0 read   1 write   3 resize        a reader does 0;  a writer does 0, 1, 3;  both exclude others' 1 and 3
 *
 * These are open file description locks: they go with the descriptor to the machine's process, and the kernel drops them
 * however that ends. If an io_uring had the file, it does so a little later than the process ends; so a conflict is believed
 * only when it lasts.
 */
#include <errno.h>
#include <fcntl.h>
#include <time.h>

#include "host/block/private.h"

#define DOES 100
#define EXCLUDES 200

#define TRIES 25
#define TRY_NS 20000000l

static const unsigned all_things[] = {0, 1, 3}, written_things[] = {1, 3};

static int lock_byte(int fd, int what, unsigned p, int command, short *type)
{
	struct flock l = {.l_type = *type, .l_whence = SEEK_SET, .l_start = what + (int)p, .l_len = 1};

	if (fcntl(fd, command, &l) < 0)
		return -errno;
	*type = l.l_type;
	return 0;
}

static int take(int fd, int what, const unsigned *things, size_t n)
{
	int ret = 0;

	for (size_t i = 0; ret == 0 && i < n; i++) {
		short type = F_RDLCK;

		ret = lock_byte(fd, what, things[i], F_OFD_SETLK, &type);
	}
	return ret;
}

/* -EBUSY if somebody else holds one of the bytes. */
static int look(int fd, int what, const unsigned *things, size_t n)
{
	int ret = 0;

	for (size_t i = 0; ret == 0 && i < n; i++) {
		short type = F_WRLCK;

		ret = lock_byte(fd, what, things[i], F_OFD_GETLK, &type);
		if (ret == 0 && type != F_UNLCK)
			ret = -EBUSY;
	}
	return ret;
}

static int try_lock(int fd, bool write)
{
	size_t does = write ? nitems(all_things) : 1;
	int ret = take(fd, DOES, all_things, does);

	if (ret == 0)
		ret = take(fd, EXCLUDES, written_things, nitems(written_things));
	if (ret == 0)
		ret = look(fd, EXCLUDES, all_things, does);
	if (ret == 0)
		ret = look(fd, DOES, written_things, nitems(written_things));
	return ret;
}

int block_lock(int fd, bool write)
{
	const struct timespec pause = {.tv_nsec = TRY_NS};
	int ret = try_lock(fd, write);

	for (unsigned i = 1; ret == -EBUSY && i < TRIES; i++) {
		nanosleep(&pause, NULL);
		ret = try_lock(fd, write);
	}
	return ret;
}
