/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Disks: opening a chain, carrying out requests (private.h has the picture), the blocking calls.
 *
 * Invariant: a request's `refs` is the number of its pieces in flight plus one while a thread advances it or it waits to be
 * advanced; it is on at most one list. `result` is the first error. After an error nothing more is begun.
 * Locking: b->lock for the queue of slow work; one thread at a time serves it, so formats see one slow call at a time.
 */
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>

#include "host/block/private.h"

static bool is_write(const struct block_request *r)
{
	return r->op != BLOCK_READ && r->op != BLOCK_FLUSH;
}

static void note(struct block_request *r, int result)
{
	int none = 0;

	if (result < 0)
		atomic_compare_exchange_strong(&r->result, &none, result);
}

static void drop(struct block_request *r)
{
	if (atomic_fetch_sub(&r->refs, 1) == 1)
		aio_finish(r->block->aio, r);
}

/* --- slow work ------------------------------------------------------------------------------------------------------------- */

static void queue_slow(struct block *b, struct block_request *r)
{
	bool start;

	r->next = NULL;
	pthread_mutex_lock(&b->lock);
	*b->queue_tail = r;
	b->queue_tail = &r->next;
	start = !b->running;
	b->running = true;
	pthread_mutex_unlock(&b->lock);
	if (start)
		aio_pool_push(&b->aio->slow, &b->job);
}

/* The next step of a transfer, through the buffer. */
static int slow_transfer(struct block *b, struct block_request *r)
{
	uint64_t at = r->offset + r->pos;
	struct block_extent e;
	size_t n;
	int ret;

	/* Asked again: what was in the way may have been dealt with, and then the fast path takes more at once. */
	b->top->ops->map(b->top, at, r->bytes - r->pos, r->op == BLOCK_WRITE, &e);
	if (e.kind == EXTENT_DATA && e.pin)
		b->top->ops->unpin(b->top, e.pin);
	if (e.kind == EXTENT_DATA || e.kind == EXTENT_ZERO)
		return 0;
	n = e.bytes < SLOW_BYTES ? (size_t)e.bytes : SLOW_BYTES;
	r->pos += n;
	if (r->op == BLOCK_WRITE) {
		request_gather(r, b->bounce, n);
		return b->top->ops->write(b->top, b->bounce, n, at);
	}
	ret = block_node_read(b->top, b->bounce, n, at);
	if (ret == 0)
		request_scatter(r, b->bounce, n);
	return ret;
}

static int slow_step(struct block *b, struct block_request *r)
{
	struct block_node *top = b->top;

	switch (r->op) {
	case BLOCK_READ:
	case BLOCK_WRITE:
		return slow_transfer(b, r);
	case BLOCK_FLUSH:
		return top->ops->flush(top);
	case BLOCK_DISCARD:
		return top->ops->discard(top, r->bytes, r->offset);
	case BLOCK_WRITE_ZEROES:
		return top->ops->zero(top, r->bytes, r->offset, r->unmap);
	}
	return -EINVAL;
}

/* One request of the queue; then the disk queues up again behind the others. */
static void serve(struct aio_job *job)
{
	struct block *b = container_of(job, struct block, job);
	struct block_request *r;
	bool more;

	pthread_mutex_lock(&b->lock);
	r = b->queue;
	b->queue = r->next;
	if (!b->queue)
		b->queue_tail = &b->queue;
	pthread_mutex_unlock(&b->lock);

	note(r, slow_step(b, r));
	if (r->op == BLOCK_READ || r->op == BLOCK_WRITE)
		block_advance(r);
	else
		drop(r);

	pthread_mutex_lock(&b->lock);
	more = b->queue != NULL;
	b->running = more;
	if (!more)
		pthread_cond_signal(&b->idle);
	pthread_mutex_unlock(&b->lock);
	if (more)
		aio_pool_push(&b->aio->slow, &b->job);
}

/* --- the fast path --------------------------------------------------------------------------------------------------------- */

/* Where the range is: through the chain, for reads. *where is the node that holds data. */
static void map_range(struct block_request *r, struct block_extent *e, struct block_node **where)
{
	uint64_t at = r->offset + r->pos, left = r->bytes - r->pos;
	struct block_node *n = r->block->top;
	bool write = r->op == BLOCK_WRITE;

	for (;; n = n->below) {
		if (!n || at >= n->size) {
			*e = (struct block_extent){.kind = EXTENT_ZERO, .bytes = left};
			return;
		}
		if (left > n->size - at)
			left = n->size - at;
		n->ops->map(n, at, left, write, e);
		if (e->kind != EXTENT_BELOW)
			break;
		left = e->bytes;
	}
	*where = n;
}

static void fill_piece(struct block_request *r, struct aio_piece *p, const struct block_extent *e, struct block_node *n)
{
	uint64_t bytes = e->bytes;

	p->op = r->op == BLOCK_WRITE ? AIO_WRITE : AIO_READ;
	p->fd = n->fd;
	p->slot = n->slot;
	p->pin = e->pin;
	p->offset = e->offset;
	p->request = r;
	p->niov = request_slice(r, p->iov, AIO_IOV, &bytes);
	p->bytes = bytes;
	r->pos += bytes;
}

/* Begins the next part. False: somebody else goes on with the request. */
static bool begin(struct block_request *r)
{
	struct block_aio *aio = r->block->aio;
	struct aio_piece *p = aio_piece_get(aio, r);
	struct block_node *n = NULL;
	struct block_extent e;

	if (!p)
		return false;
	map_range(r, &e, &n);
	if (e.kind == EXTENT_DATA) {
		fill_piece(r, p, &e, n);
		atomic_fetch_add(&r->refs, 1);
		aio_piece_submit(aio, p);
		return true;
	}
	aio_piece_put(aio, p);
	if (e.kind == EXTENT_SLOW) {
		queue_slow(r->block, r);
		return false;
	}
	request_clear(r, e.bytes);
	r->pos += e.bytes;
	return true;
}

/* A flush without metadata to write is a sync of the file. */
static void begin_flush(struct block_request *r)
{
	struct block *b = r->block;
	struct aio_piece *p;

	if (b->top->read_only) {
		drop(r);
		return;
	}
	if (b->top->dirty) {
		queue_slow(b, r);
		return;
	}
	p = aio_piece_get(b->aio, r);
	if (!p)
		return;
	p->op = AIO_SYNC;
	p->fd = b->top->fd;
	p->slot = b->top->slot;
	p->pin = 0;
	p->niov = 0;
	p->bytes = 0;
	p->request = r;
	aio_piece_submit(b->aio, p); /* takes over our reference */
}

void block_advance(struct block_request *r)
{
	if (r->op == BLOCK_FLUSH) {
		begin_flush(r);
		return;
	}
	while (r->pos < r->bytes && r->result == 0)
		if (!begin(r))
			return;
	drop(r);
}

void block_piece_done(struct aio_piece *p, int result)
{
	struct block_request *r = p->request;
	struct block_node *top = r->block->top;

	if (p->pin)
		top->ops->unpin(top, p->pin);
	note(r, result);
	drop(r);
}

static int check(const struct block *b, const struct block_request *r)
{
	uint64_t sum = 0;

	if (r->op == BLOCK_FLUSH)
		return 0;
	if (is_write(r) && b->top->read_only)
		return -EROFS;
	if (r->offset > b->top->size || r->bytes > b->top->size - r->offset)
		return -EINVAL;
	if (r->op != BLOCK_READ && r->op != BLOCK_WRITE)
		return 0;
	for (unsigned i = 0; i < r->niov; i++)
		if (__builtin_add_overflow(sum, r->iov[i].iov_len, &sum))
			return -EINVAL;
	return sum == r->bytes ? 0 : -EINVAL;
}

void block_submit(struct block *b, struct block_request *r)
{
	r->block = b;
	r->pos = 0;
	r->iov_index = 0;
	r->iov_offset = 0;
	r->refs = 1;
	r->result = check(b, r);
	atomic_fetch_add(&b->in_flight, 1);
	if (r->result < 0) {
		drop(r);
		return;
	}
	if (r->op == BLOCK_DISCARD || r->op == BLOCK_WRITE_ZEROES)
		queue_slow(b, r);
	else
		block_advance(r);
}

/* One place of one file, or zeroes: anything else is what block_submit() is for. */
int block_try_read(struct block *b, struct block_request *r)
{
	struct block_node *n = NULL;
	struct block_extent e;
	int ret = -EAGAIN;

	r->block = b;
	r->pos = 0;
	r->iov_index = 0;
	r->iov_offset = 0;
	if (r->op != BLOCK_READ || r->bytes > TRY_BYTES || r->niov > IOV_MAX || check(b, r) < 0)
		return -EAGAIN;
	map_range(r, &e, &n);
	if (e.kind == EXTENT_ZERO && e.bytes >= r->bytes) {
		request_clear(r, r->bytes);
		return 0;
	}
	if (e.kind != EXTENT_DATA)
		return -EAGAIN;
	if (e.bytes >= r->bytes && !n->no_try)
		ret = file_try_readv(n->fd, r->iov, r->niov, r->bytes, e.offset);
	if (e.pin)
		n->ops->unpin(n, e.pin);
	if (ret == -EOPNOTSUPP)
		n->no_try = true;
	return ret ? -EAGAIN : 0;
}

void block_plug(struct block *b)
{
	if (b->aio->uring)
		uring_plug(b->aio->uring);
}

void block_unplug(struct block *b)
{
	if (b->aio->uring)
		uring_unplug(b->aio->uring);
}

void block_on_batch(struct block *b, void (*fn)(void *opaque), void *opaque)
{
	b->batch = fn;
	b->batch_opaque = opaque;
}

void block_drain(struct block *b)
{
	struct pollfd p = {.fd = b->aio ? b->aio->event_fd : -1, .events = POLLIN};

	while (b->in_flight) {
		(void)poll(&p, 1, -1);
		block_aio_poll(b->aio);
	}
	/* The slow thread may not have left the disk yet. */
	pthread_mutex_lock(&b->lock);
	while (b->running)
		pthread_cond_wait(&b->idle, &b->lock);
	pthread_mutex_unlock(&b->lock);
}

/* --- opening and closing --------------------------------------------------------------------------------------------------- */

static int open_node(struct block *b, const struct block_file *file, struct block_node *below, unsigned flags,
		     struct block_error *err)
{
	struct block_node *n = NULL;
	int ret = -EINVAL, slot = 0;

	if (file->format == BLOCK_QCOW2)
		ret = qcow2_open(&n, file, below, flags, err);
	else if (below)
		block_fail(err, ret, "a raw image has no backing file");
	else
		ret = raw_open(&n, file, flags, err);
	if (ret < 0)
		return ret;
	n->fd = file->fd;
	n->below = below;
	n->path = file->path;
	n->read_only = flags & BLOCK_RDONLY;
	b->top = n;
	b->node[b->nfiles++] = n;
	if (b->aio)
		slot = aio_add_file(b->aio, file->fd);
	n->slot = (unsigned)slot;
	return slot < 0 ? block_fail(err, slot, "more than %u image files; use fewer disks or shorter chains", AIO_FILES) : 0;
}

int block_open(struct block **out, struct block_aio *aio, const struct block_file *file, unsigned nfiles, unsigned flags,
	       struct block_error *err)
{
	struct block *b = calloc(1, sizeof(*b));
	int ret = 0;

	if (b)
		b->bounce = malloc(SLOW_BYTES);
	if (!b || !b->bounce) {
		free(b);
		return block_fail(err, -ENOMEM, "out of memory; free some and try again");
	}
	b->aio = aio;
	b->job.run = serve;
	b->queue_tail = &b->queue;
	pthread_mutex_init(&b->lock, NULL);
	pthread_cond_init(&b->idle, NULL);
	if (nfiles == 0 || nfiles > BLOCK_CHAIN_MAX)
		ret = block_fail(err, -EINVAL, "a chain of %u image files; at most %u are possible", nfiles, BLOCK_CHAIN_MAX);
	for (unsigned i = nfiles; ret == 0 && i-- > 0;)
		ret = open_node(b, &file[i], b->top, i ? BLOCK_RDONLY : flags, err);
	if (ret < 0) {
		(void)block_close(b);
		return ret;
	}
	*out = b;
	return 0;
}

int block_close(struct block *b)
{
	int ret = 0;

	if (b->aio)
		block_drain(b);
	while (b->nfiles) {
		struct block_node *n = b->node[--b->nfiles];
		int err = n->ops->close(n);

		if (ret == 0)
			ret = err;
	}
	pthread_cond_destroy(&b->idle);
	pthread_mutex_destroy(&b->lock);
	free(b->bounce);
	free(b);
	return ret;
}

uint64_t block_size(const struct block *b)
{
	return b->top->size;
}

bool block_read_only(const struct block *b)
{
	return b->top->read_only;
}

/* --- blocking calls -------------------------------------------------------------------------------------------------------- */

int block_node_read(struct block_node *n, void *buf, size_t bytes, uint64_t offset)
{
	size_t have = bytes;
	int ret = 0;

	if (!n || offset >= n->size)
		have = 0;
	else if (bytes > n->size - offset)
		have = (size_t)(n->size - offset);
	if (have)
		ret = n->ops->read(n, buf, have, offset);
	memset((uint8_t *)buf + have, 0, bytes - have);
	return ret;
}

static int check_range(const struct block *b, uint64_t bytes, uint64_t offset, bool write)
{
	if (write && b->top->read_only)
		return -EROFS;
	return offset > b->top->size || bytes > b->top->size - offset ? -EINVAL : 0;
}

int block_pread(struct block *b, void *buf, size_t bytes, uint64_t offset)
{
	int ret = check_range(b, bytes, offset, false);

	return ret < 0 ? ret : block_node_read(b->top, buf, bytes, offset);
}

int block_pwrite(struct block *b, const void *buf, size_t bytes, uint64_t offset)
{
	int ret = check_range(b, bytes, offset, true);

	return ret < 0 || bytes == 0 ? ret : b->top->ops->write(b->top, buf, bytes, offset);
}

int block_pwrite_packed(struct block *b, const void *buf, size_t bytes, uint64_t offset)
{
	int ret = check_range(b, bytes, offset, true);

	if (ret < 0)
		return ret;
	return b->top->ops->write_packed ? b->top->ops->write_packed(b->top, buf, bytes, offset) : -ENOTSUP;
}

int block_pzero(struct block *b, uint64_t bytes, uint64_t offset, bool unmap)
{
	int ret = check_range(b, bytes, offset, true);

	return ret < 0 || bytes == 0 ? ret : b->top->ops->zero(b->top, bytes, offset, unmap);
}

int block_pdiscard(struct block *b, uint64_t bytes, uint64_t offset)
{
	int ret = check_range(b, bytes, offset, true);

	return ret < 0 || bytes == 0 ? ret : b->top->ops->discard(b->top, bytes, offset);
}

int block_pflush(struct block *b)
{
	return b->top->read_only ? 0 : b->top->ops->flush(b->top);
}

int block_status(struct block *b, uint64_t offset, uint64_t *bytes, unsigned files)
{
	struct block_node *n = b->top;
	struct block_extent e = {.bytes = *bytes};
	int ret = check_range(b, *bytes, offset, false);

	if (ret < 0)
		return ret;
	for (unsigned i = 0; files == 0 || i < files; i++, n = n->below) {
		uint64_t left = e.bytes;

		if (!n || offset >= n->size) {
			*bytes = left;
			return BLOCK_STATUS_ZERO;
		}
		if (left > n->size - offset)
			left = n->size - offset;
		ret = n->ops->status(n, offset, left, &e);
		if (ret < 0)
			return ret;
		*bytes = e.bytes;
		if (e.kind != EXTENT_BELOW)
			return e.kind == EXTENT_ZERO ? BLOCK_STATUS_ZERO : BLOCK_STATUS_DATA;
	}
	return BLOCK_STATUS_BELOW;
}
