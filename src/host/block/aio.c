/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Pieces, threads and the done list: everything asynchronous that does not depend on a disk.
 *
 * Invariant: all memory and threads exist before block_aio_start() returns. A piece is either on the free list, being filled by
 * one thread, or in flight. A request that finds no free piece waits; every ended piece lets one go on.
 * Locking: aio->lock for the lists, each pool's lock for its jobs; both are leaves and held for a few instructions.
 */
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "host/block/private.h"

/* One data thread finishes what io_uring cut short; without io_uring they do everything. */
#define DATA_THREADS_URING 1
#define DATA_THREADS 4
#define SLOW_THREADS 3
#define STACK_SIZE (256u << 10)

static void *pool_main(void *arg)
{
	struct aio_pool *pool = arg;
	struct aio_job *job;

	pthread_mutex_lock(&pool->lock);
	pool->begun++;
	pthread_cond_signal(&pool->begun_changed);
	for (;;) {
		while (!pool->head && !pool->stop)
			pthread_cond_wait(&pool->more, &pool->lock);
		job = pool->head;
		if (!job)
			break;
		pool->head = job->next;
		if (!pool->head)
			pool->tail = &pool->head;
		pthread_mutex_unlock(&pool->lock);
		job->run(job);
		pthread_mutex_lock(&pool->lock);
	}
	pthread_mutex_unlock(&pool->lock);
	return NULL;
}

static void pool_init(struct aio_pool *pool)
{
	pthread_mutex_init(&pool->lock, NULL);
	pthread_cond_init(&pool->more, NULL);
	pthread_cond_init(&pool->begun_changed, NULL);
	pool->tail = &pool->head;
}

/* Returns when the threads have begun: the C library makes system calls before that which the sandbox will forbid. */
static int pool_start(struct aio_pool *pool, unsigned n)
{
	sigset_t all, old;
	pthread_attr_t attr;
	int ret = 0;

	pthread_attr_init(&attr);
	pthread_attr_setstacksize(&attr, STACK_SIZE);
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	while (ret == 0 && pool->nthreads < n) {
		ret = pthread_create(&pool->thread[pool->nthreads], &attr, pool_main, pool);
		pool->nthreads += ret == 0;
	}
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	pthread_attr_destroy(&attr);
	pthread_mutex_lock(&pool->lock);
	while (pool->begun < pool->nthreads)
		pthread_cond_wait(&pool->begun_changed, &pool->lock);
	pthread_mutex_unlock(&pool->lock);
	return -ret;
}

static void pool_stop(struct aio_pool *pool)
{
	pthread_mutex_lock(&pool->lock);
	pool->stop = true;
	pthread_cond_broadcast(&pool->more);
	pthread_mutex_unlock(&pool->lock);
	while (pool->nthreads)
		pthread_join(pool->thread[--pool->nthreads], NULL);
	pthread_cond_destroy(&pool->more);
	pthread_cond_destroy(&pool->begun_changed);
	pthread_mutex_destroy(&pool->lock);
}

void aio_pool_push(struct aio_pool *pool, struct aio_job *job)
{
	job->next = NULL;
	pthread_mutex_lock(&pool->lock);
	*pool->tail = job;
	pool->tail = &job->next;
	pthread_cond_signal(&pool->more);
	pthread_mutex_unlock(&pool->lock);
}

int block_aio_create(struct block_aio **out, unsigned flags)
{
	struct block_aio *aio = calloc(1, sizeof(*aio));
	int ret = -ENOMEM;

	if (!aio)
		return ret;
	aio->flags = flags;
	aio->waiting_tail = &aio->waiting;
	aio->done_tail = &aio->done;
	pthread_mutex_init(&aio->lock, NULL);
	pool_init(&aio->data);
	pool_init(&aio->slow);
	aio->event_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (aio->event_fd < 0)
		ret = -errno;
	else
		aio->piece = calloc(AIO_PIECES, sizeof(*aio->piece));
	if (!aio->piece) {
		block_aio_destroy(aio);
		return ret;
	}
	for (unsigned i = 0; i < AIO_PIECES; i++)
		aio_piece_put(aio, &aio->piece[i]);
	*out = aio;
	return 0;
}

int aio_add_file(struct block_aio *aio, int fd)
{
	if (aio->nfiles == AIO_FILES)
		return -ENFILE;
	aio->file[aio->nfiles] = fd;
	return (int)aio->nfiles++;
}

int block_aio_start(struct block_aio *aio)
{
	int ret;

	/* Whatever the reason that there is no ring, the threads do the same work. */
	if (!(aio->flags & BLOCK_AIO_NO_URING) && aio->nfiles)
		(void)uring_create(&aio->uring, aio->event_fd, aio->file, aio->nfiles);
	ret = pool_start(&aio->data, aio->uring ? DATA_THREADS_URING : DATA_THREADS);
	if (ret == 0)
		ret = pool_start(&aio->slow, SLOW_THREADS);
	aio->started = ret == 0;
	return ret;
}

void block_aio_destroy(struct block_aio *aio)
{
	if (!aio)
		return;
	pool_stop(&aio->data);
	pool_stop(&aio->slow);
	if (aio->uring)
		uring_destroy(aio->uring);
	if (aio->event_fd >= 0)
		close(aio->event_fd);
	pthread_mutex_destroy(&aio->lock);
	free(aio->piece);
	free(aio);
}

int block_aio_fd(const struct block_aio *aio)
{
	return aio->event_fd;
}

const char *block_aio_kind(const struct block_aio *aio)
{
	return aio->uring ? "io_uring" : "threads";
}

struct aio_piece *aio_piece_get(struct block_aio *aio, struct block_request *r)
{
	struct aio_piece *p;

	pthread_mutex_lock(&aio->lock);
	p = aio->free;
	if (p) {
		aio->free = (struct aio_piece *)p->job.next;
	} else {
		r->next = NULL;
		*aio->waiting_tail = r;
		aio->waiting_tail = &r->next;
	}
	pthread_mutex_unlock(&aio->lock);
	return p;
}

void aio_piece_put(struct block_aio *aio, struct aio_piece *p)
{
	pthread_mutex_lock(&aio->lock);
	p->job.next = (struct aio_job *)aio->free;
	aio->free = p;
	pthread_mutex_unlock(&aio->lock);
}

/* A request that waits, if there is a piece for it. */
static struct block_request *take_waiting(struct block_aio *aio)
{
	struct block_request *r;

	pthread_mutex_lock(&aio->lock);
	r = aio->free ? aio->waiting : NULL;
	if (r) {
		aio->waiting = r->next;
		if (!aio->waiting)
			aio->waiting_tail = &aio->waiting;
	}
	pthread_mutex_unlock(&aio->lock);
	return r;
}

/* A data thread's work: the whole piece without a ring; with one, what the ring has left over . */
static int transfer(const struct aio_piece *p, size_t done)
{
	switch (p->op) {
	case AIO_READ:
		return file_readv(p->fd, p->iov, p->niov, done, p->offset);
	case AIO_WRITE:
		return file_writev(p->fd, p->iov, p->niov, done, p->offset);
	default:
		return file_sync(p->fd);
	}
}

static void complete(struct block_aio *aio, struct aio_piece *p, int result)
{
	struct block_request *r;

	block_piece_done(p, result);
	aio_piece_put(aio, p);
	while ((r = take_waiting(aio)))
		block_advance(r);
}

static struct block_aio *piece_aio(const struct aio_piece *p)
{
	return p->request->block->aio;
}

static void run_piece(struct aio_job *job)
{
	struct aio_piece *p = container_of(job, struct aio_piece, job);

	complete(piece_aio(p), p, transfer(p, 0));
}

void aio_piece_submit(struct block_aio *aio, struct aio_piece *p)
{
	if (aio->uring) {
		uring_submit(aio->uring, p);
		return;
	}
	p->job.run = run_piece;
	aio_pool_push(&aio->data, &p->job);
}

void aio_piece_done(struct block_aio *aio, struct aio_piece *p, int result)
{
	bool whole = p->op == AIO_SYNC || (size_t)result == p->bytes;

	/* Cut short (the end of the file, a full disk) or not now: the blocking way finds out what the matter is. */
	if (result == -EAGAIN || result == -EINTR || (result >= 0 && !whole)) {
		p->job.run = run_piece;
		aio_pool_push(&aio->data, &p->job);
		return;
	}
	complete(aio, p, result < 0 ? result : 0);
}

void aio_finish(struct block_aio *aio, struct block_request *r)
{
	uint64_t one = 1;
	bool first;

	r->next = NULL;
	pthread_mutex_lock(&aio->lock);
	first = !aio->done;
	*aio->done_tail = r;
	aio->done_tail = &r->next;
	pthread_mutex_unlock(&aio->lock);
	if (first)
		(void)!write(aio->event_fd, &one, sizeof(one));
}

/* Calls done() of the list; the disks that want to hear of the end of it, linked. */
static struct block *deliver(struct block_request *r)
{
	struct block *batch = NULL;
	struct block_request *next;

	for (; r; r = next) {
		struct block *b = r->block;

		next = r->next;
		r->done(r, r->result);
		atomic_fetch_sub(&b->in_flight, 1);
		if (b->batch && !b->in_batch) {
			b->in_batch = true;
			b->next_batch = batch;
			batch = b;
		}
	}
	return batch;
}

void block_aio_poll(struct block_aio *aio)
{
	struct block *b, *next;
	struct block_request *r;
	uint64_t count;

	(void)!read(aio->event_fd, &count, sizeof(count));
	if (aio->uring)
		uring_reap(aio->uring, aio);
	pthread_mutex_lock(&aio->lock);
	r = aio->done;
	aio->done = NULL;
	aio->done_tail = &aio->done;
	pthread_mutex_unlock(&aio->lock);
	for (b = deliver(r); b; b = next) {
		next = b->next_batch;
		b->in_batch = false;
		b->batch(b->batch_opaque);
	}
}
