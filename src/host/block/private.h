/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Inside host/block: how a request is carried out.
 *
 *   block_submit -> advance: map the next range -> zeroes: filled in at once
 *                                               -> data at a known place: a piece, to io_uring or a data thread
 *                                               -> anything that may block: the disk's queue, served by a slow thread
 *
 * A request advances on one thread at a time (the submitter's, then whichever thread continues it); its pieces are in flight in
 * parallel. `refs` counts pieces plus the advancing thread; whoever drops the last hands it to the done list.
 *
 * Threads: slow threads may block on files, on a disk's metadata and until pieces in flight end. Data threads block on files only, so
 * pieces always end. Nothing waits for slow threads but block_drain().
 * Lock order: node's metadata -> node's map -> nothing; aio->lock and pool->lock are leaves.
 */
#ifndef HOST_BLOCK_PRIVATE_H
#define HOST_BLOCK_PRIVATE_H

#include <pthread.h>
#include <stdatomic.h>

#include "host/block/block.h"

/* --- pieces and threads: aio.c, uring.c ---------------------------------------------------------------------------------- */

#define AIO_IOV 64
#define AIO_PIECES 256
#define AIO_FILES 256

enum aio_op { AIO_READ, AIO_WRITE, AIO_SYNC };

struct aio_job {
	struct aio_job *next;
	void (*run)(struct aio_job *job);
};

/* A transfer between memory and one place of one file. */
struct aio_piece {
	struct aio_job job;
	enum aio_op op;
	int fd;
	unsigned slot;                 /* fd among the ring's registered files */
	unsigned niov;
	unsigned pin;                  /* what block_node_unpin() wants back, plus one; 0: nothing */
	uint64_t offset;
	size_t bytes;
	struct block_request *request;
	struct iovec iov[AIO_IOV];
};

struct aio_pool {
	pthread_mutex_t lock;
	pthread_cond_t more, begun_changed;
	struct aio_job *head, **tail;
	pthread_t thread[8];
	unsigned nthreads, begun;
	bool stop;
};

struct uring;

struct block_aio {
	pthread_mutex_t lock;              /* the lists below */
	struct aio_piece *free;
	struct block_request *waiting, **waiting_tail;   /* want a piece */
	struct block_request *done, **done_tail;
	struct aio_piece *piece;           /* AIO_PIECES of them */
	struct aio_pool data, slow;
	struct uring *uring;               /* NULL: data threads do it */
	unsigned flags;
	int event_fd;
	int file[AIO_FILES];
	unsigned nfiles;
	bool started;
};

/* A slot for the descriptor in the ring's table, before block_aio_start(). -ENFILE if there is none left. */
int aio_add_file(struct block_aio *aio, int fd);
/* A free piece, or NULL; the request is then on the waiting list and will be advanced again. */
struct aio_piece *aio_piece_get(struct block_aio *aio, struct block_request *r);
void aio_piece_put(struct block_aio *aio, struct aio_piece *p);
void aio_piece_submit(struct block_aio *aio, struct aio_piece *p);
/* The transfer has ended: result is a byte count or -errno. Called by uring.c and the data threads. */
void aio_piece_done(struct block_aio *aio, struct aio_piece *p, int result);
void aio_pool_push(struct aio_pool *pool, struct aio_job *job);
void aio_finish(struct block_aio *aio, struct block_request *r);

/* uring.c. create: -errno if the kernel has none, forbids it or cannot restrict it. */
int uring_create(struct uring **u, int event_fd, const int *files, unsigned nfiles);
void uring_destroy(struct uring *u);
void uring_submit(struct uring *u, struct aio_piece *p);
/* While anybody has it plugged, submitted pieces wait in the ring; unplugging hands them over, whoever they are from. */
void uring_plug(struct uring *u);
void uring_unplug(struct uring *u);
/* Hands every completion to aio_piece_done(). The polling thread only. */
void uring_reap(struct uring *u, struct block_aio *aio);

/* --- formats ------------------------------------------------------------------------------------------------------------- */

enum extent_kind {
	EXTENT_DATA,     /* at `offset` of the file */
	EXTENT_ZERO,
	EXTENT_BELOW,    /* not in this file: the next of the chain has it */
	EXTENT_SLOW,     /* finding out may block, or the bytes are not there as such */
};

struct block_extent {
	enum extent_kind kind;
	uint64_t offset, bytes;
	unsigned pin;
};

struct block_node;

/* A format. Ranges are inside the node's size. Only map may be called on any thread and may not block; the others are
 * called on one thread at a time. write, zero, discard, flush: not for read-only nodes. */
struct block_ops {
	/* Where the range starting at offset is: *e for its first e->bytes bytes (1..bytes). For a write, DATA means that bytes may
	 * be overwritten in place. With e->pin the place stays this range's until block_node_unpin(). */
	void (*map)(struct block_node *n, uint64_t offset, uint64_t bytes, bool write, struct block_extent *e);
	void (*unpin)(struct block_node *n, unsigned pin);
	int (*read)(struct block_node *n, void *buf, size_t bytes, uint64_t offset);
	int (*write)(struct block_node *n, const void *buf, size_t bytes, uint64_t offset);
	int (*write_packed)(struct block_node *n, const void *buf, size_t bytes, uint64_t offset);   /* optional */
	int (*zero)(struct block_node *n, uint64_t bytes, uint64_t offset, bool unmap);
	int (*discard)(struct block_node *n, uint64_t bytes, uint64_t offset);
	int (*flush)(struct block_node *n);
	/* Like map, but may block and never says SLOW. */
	int (*status)(struct block_node *n, uint64_t offset, uint64_t bytes, struct block_extent *e);
	int (*close)(struct block_node *n);
};

struct block_node {
	const struct block_ops *ops;
	struct block_node *below;      /* the backing file, or NULL */
	int fd;
	unsigned slot;
	bool read_only, probed;
	_Atomic bool no_try;           /* the file system has no reads that do not wait */
	_Atomic bool dirty;            /* metadata is cached: a flush needs ops->flush, else syncing the file does */
	uint64_t size;                 /* of the disk, bytes */
	const char *path;
};

extern const struct block_ops raw_ops;
/* raw.c, qcow2.c: fill in ops and size (and for qcow2 allocate a larger struct). 0 or -errno with *err. */
int raw_open(struct block_node **n, const struct block_file *file, unsigned flags, struct block_error *err);
int qcow2_open(struct block_node **n, const struct block_file *file, struct block_node *below, unsigned flags,
	       struct block_error *err);

/* block.c: reads through the chain that begins at n; what is beyond the end of n, or in no file, is zeroes. */
int block_node_read(struct block_node *n, void *buf, size_t bytes, uint64_t offset);
void block_piece_done(struct aio_piece *p, int result);
void block_advance(struct block_request *r);

#define TRY_BYTES (64u << 10)      /* of a read that is tried at once */
#define SLOW_BYTES (1u << 20)      /* most that a slow thread does of a request at once */

struct block {
	struct block_aio *aio;
	struct block_node *top;
	unsigned nfiles;
	struct block_node *node[BLOCK_CHAIN_MAX];
	struct aio_job job;            /* serves the queue */
	pthread_mutex_t lock;          /* queue, running */
	struct block_request *queue, **queue_tail;
	bool running;                  /* job is queued or runs */
	pthread_cond_t idle;           /* it no longer does */
	_Atomic unsigned in_flight;
	void (*batch)(void *opaque);   /* block_on_batch() */
	void *batch_opaque;
	struct block *next_batch;      /* disks whose done() block_aio_poll() has called; its own */
	bool in_batch;
	uint8_t *bounce;               /* SLOW_BYTES, the running job's */
};

/* --- small things: file.c, iovec.c ----------------------------------------------------------------------------------------- */

/* Whole transfers, retried on EINTR and short counts. Reading past the end yields zeroes. 0 or -errno. */
int file_read(int fd, void *buf, size_t bytes, uint64_t offset);
int file_write(int fd, const void *buf, size_t bytes, uint64_t offset);
/* All of it if it is in the page cache: 0; else -EAGAIN, or -EOPNOTSUPP if this cannot be found out. */
int file_try_readv(int fd, const struct iovec *iov, unsigned niov, size_t bytes, uint64_t offset);
int file_readv(int fd, const struct iovec *iov, unsigned niov, size_t skip, uint64_t offset);
int file_writev(int fd, const struct iovec *iov, unsigned niov, size_t skip, uint64_t offset);
int file_sync(int fd);
/* Zeroes without (unless the file system cannot) writing them; with `unmap` giving the space back. */
int file_zero(int fd, uint64_t bytes, uint64_t offset, bool unmap);
/* Gives space back; the range then reads as zeroes. -EOPNOTSUPP where that cannot be. */
int file_punch(int fd, uint64_t bytes, uint64_t offset);
/* Of a regular file or block device. 0 or -errno. */
int file_size(int fd, uint64_t *size);

/* The next `bytes` of the request's iovecs, from its cursor, which moves on: as at most max iovecs (their number; *bytes is
 * shortened to what they hold), copied out, copied in, or filled with zeroes. */
unsigned request_slice(struct block_request *r, struct iovec *iov, unsigned max, uint64_t *bytes);
void request_gather(struct block_request *r, uint8_t *buf, size_t bytes);
void request_scatter(struct block_request *r, const uint8_t *buf, size_t bytes);
void request_clear(struct block_request *r, uint64_t bytes);

/* err->text, printf-like; returns `ret`. */
__attribute__((format(printf, 3, 4))) int block_fail(struct block_error *err, int ret, const char *fmt, ...);

/* chain.c: what the first bytes say. */
enum block_format block_probe(const uint8_t head[BLOCK_SECTOR]);
/* lock.c: 0, -EBUSY if another process uses the image in a way that excludes this, or -errno. Lasts as long as the open file. */
int block_lock(int fd, bool write);

#endif
