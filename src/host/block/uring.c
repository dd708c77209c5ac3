/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Pieces through io_uring(7).
 *
 * The ring is made for a process that may be taken over by its guest: it starts disabled, is then restricted to reading, writing
 * and syncing registered files, and enabled; nothing can be registered any more. A sealed process can therefore do
 * with it what it could do to these files anyway, and nothing else (no open, no socket, no message to another ring). A kernel that cannot
 * restrict is one without io_uring for us.
 *
 * Invariant: at most AIO_PIECES entries are in flight, which is the size of the submission ring; so there is always room.
 * Locking: u->lock for the submission side; completions are taken by the polling thread only.
 */
#include <errno.h>
#include <liburing.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "host/block/private.h"

struct uring {
	struct io_uring ring;
	pthread_mutex_t lock;
	unsigned plugs;        /* under lock: who holds submissions back */
	bool waiting;          /* under lock: entries are in the ring that the kernel does not know of */
	bool stuck;            /* under lock: the kernel has refused entries for now; they are still in the ring */
	int event_fd;
};

/* The library has functions for what is registered here, but does not export them in every release that Debian has. */
static int register_raw(struct io_uring *ring, unsigned what, const void *arg, unsigned n)
{
	return syscall(SYS_io_uring_register, ring->ring_fd, what, arg, n) < 0 ? -errno : 0;
}

static int restrict_ring(struct io_uring *ring)
{
	static const uint8_t ops[] = {IORING_OP_READV, IORING_OP_WRITEV, IORING_OP_FSYNC};
	struct io_uring_restriction r[nitems(ops) + 2] = {{0}};
	unsigned n = 0;

	for (; n < nitems(ops); n++) {
		r[n].opcode = IORING_RESTRICTION_SQE_OP;
		r[n].sqe_op = ops[n];
	}
	r[n].opcode = IORING_RESTRICTION_SQE_FLAGS_ALLOWED;
	r[n++].sqe_flags = IOSQE_FIXED_FILE;
	r[n].opcode = IORING_RESTRICTION_SQE_FLAGS_REQUIRED;
	r[n++].sqe_flags = IOSQE_FIXED_FILE;
	return register_raw(ring, IORING_REGISTER_RESTRICTIONS, r, n);
}

int uring_create(struct uring **out, int event_fd, const int *files, unsigned nfiles)
{
	struct io_uring_params params = {.flags = IORING_SETUP_R_DISABLED};
	struct uring *u = calloc(1, sizeof(*u));
	int ret;

	if (!u)
		return -ENOMEM;
	u->event_fd = event_fd;
	pthread_mutex_init(&u->lock, NULL);
	ret = io_uring_queue_init_params(AIO_PIECES, &u->ring, &params);
	if (ret < 0)
		goto out_free;
	ret = io_uring_register_files(&u->ring, files, nfiles);
	if (ret == 0)
		ret = io_uring_register_eventfd(&u->ring, event_fd);
	if (ret == 0)
		ret = restrict_ring(&u->ring);
	if (ret == 0)
		ret = register_raw(&u->ring, IORING_REGISTER_ENABLE_RINGS, NULL, 0);
	if (ret == 0) {
		*out = u;
		return 0;
	}
	io_uring_queue_exit(&u->ring);
out_free:
	free(u);
	return ret;
}

void uring_destroy(struct uring *u)
{
	io_uring_queue_exit(&u->ring);
	pthread_mutex_destroy(&u->lock);
	free(u);
}

/* u->lock held. What the kernel does not take now (no memory) stays in the ring; the polling thread tries again. */
static void push(struct uring *u)
{
	int ret;

	do
		ret = io_uring_submit(&u->ring);
	while (ret == -EINTR);
	u->waiting = false;
	u->stuck = ret < 0;
	if (u->stuck) {
		uint64_t one = 1;

		(void)!write(u->event_fd, &one, sizeof(one));
	}
}

void uring_submit(struct uring *u, struct aio_piece *p)
{
	struct io_uring_sqe *sqe;

	pthread_mutex_lock(&u->lock);
	sqe = io_uring_get_sqe(&u->ring);
	switch (p->op) {
	case AIO_READ:
		io_uring_prep_readv(sqe, (int)p->slot, p->iov, p->niov, p->offset);
		break;
	case AIO_WRITE:
		io_uring_prep_writev(sqe, (int)p->slot, p->iov, p->niov, p->offset);
		break;
	case AIO_SYNC:
		io_uring_prep_fsync(sqe, (int)p->slot, IORING_FSYNC_DATASYNC);
		break;
	}
	sqe->flags |= IOSQE_FIXED_FILE;
	io_uring_sqe_set_data(sqe, p);
	u->waiting = true;
	if (!u->plugs)
		push(u);
	pthread_mutex_unlock(&u->lock);
}

void uring_plug(struct uring *u)
{
	pthread_mutex_lock(&u->lock);
	u->plugs++;
	pthread_mutex_unlock(&u->lock);
}

void uring_unplug(struct uring *u)
{
	pthread_mutex_lock(&u->lock);
	u->plugs--;
	if (u->waiting)
		push(u);
	pthread_mutex_unlock(&u->lock);
}

void uring_reap(struct uring *u, struct block_aio *aio)
{
	struct io_uring_cqe *cqe;

	pthread_mutex_lock(&u->lock);
	if (u->stuck)
		push(u);
	pthread_mutex_unlock(&u->lock);
	while (io_uring_peek_cqe(&u->ring, &cqe) == 0) {
		struct aio_piece *p = io_uring_cqe_get_data(cqe);
		int res = cqe->res;

		io_uring_cqe_seen(&u->ring, cqe);
		aio_piece_done(aio, p, res);
	}
}
