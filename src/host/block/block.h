/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Disks on the host: what virtual disk devices, boot loaders and `doppel image` read and write.
 *
 * A `struct block` is one disk: a chain of image files, top first, each raw or qcow2; all but the top are read-only. The chain
 * is opened by path in the unsealed process (block_chain_open) and by descriptor wherever it is used (block_open).
 *
 * Two ways to use a disk. Asynchronous: block_submit() from any thread, done() on the thread that calls block_aio_poll().
 * Blocking: block_pread() and its siblings, for loaders and tools; on a disk without requests in flight.
 *
 * Promises: a read sees every write that was done before it was submitted. Requests in flight at the same time on overlapping
 * ranges may happen in any order. FLUSH covers every write done before it was submitted, and is done when they are on the
 * medium. Whatever the process dies of, the image stays consistent (docs/design/block.md has the argument).
 */
#ifndef HOST_BLOCK_BLOCK_H
#define HOST_BLOCK_BLOCK_H

#include <limits.h>
#include <sys/uio.h>

#include "base/types.h"

#define BLOCK_SECTOR 512u
#define BLOCK_CHAIN_MAX 16

enum block_op { BLOCK_READ, BLOCK_WRITE, BLOCK_FLUSH, BLOCK_DISCARD, BLOCK_WRITE_ZEROES };
enum block_format { BLOCK_AUTO, BLOCK_RAW, BLOCK_QCOW2 };

enum block_flag {
	BLOCK_RDONLY = 1,
	BLOCK_NO_BACKING = 2,  /* the named file only; what is not in it then reads as zeroes */
	BLOCK_NO_LOCK = 4,     /* block_chain_open: no lock, for looking at an image in use */
	BLOCK_TINY_CACHE = 16, /* block_open: as few metadata in memory as possible, so that tests see them come and go */
	BLOCK_REPAIR = 8,      /* block_open: also images marked dirty or corrupt, which are refused otherwise; for repair */
};

/* "cause; remedy", without the file's name. */
struct block_error { char text[320]; };

/* One image file of a chain. The descriptor and the path belong to whoever made this. */
struct block_file {
	int fd;
	enum block_format format;
	bool probed;           /* raw, but only because the content said so: the guest may not make it look like another format */
	const char *path;      /* for messages */
};

struct block;
struct block_aio;

/*
 * An asynchronous request. The submitter fills the first part, owns the memory and keeps it, the iovecs and what they point to
 * in place until done(). READ, WRITE: the iovecs add up to `bytes`. FLUSH ignores the range. DISCARD is advice, afterwards the range may read as
 * anything (here: as before, or zeroes). WRITE_ZEROES with `unmap` may give the space back.
 */
struct block_request {
	enum block_op op;
	bool unmap;
	uint64_t offset, bytes;
	const struct iovec *iov;
	unsigned niov;
	void (*done)(struct block_request *r, int result);   /* result: 0 or -errno */
	void *opaque;

	/* private to host/block */
	struct block *block;
	struct block_request *next;
	uint64_t pos;          /* what is before it has been dealt with or is under way */
	unsigned iov_index;
	size_t iov_offset;
	_Atomic unsigned refs;
	_Atomic int result;
};

/* --- the asynchronous machinery, one per machine: aio.c -------------------------------------------------------------- */

enum block_aio_flag { BLOCK_AIO_NO_URING = 1 };

/* Everything is allocated and every thread made here and in block_aio_start(), which is called after the last block_open() and
 * before the process is sealed: it registers the descriptors and closes the ring to everything else. 0 or -errno. */
int block_aio_create(struct block_aio **aio, unsigned flags);
int block_aio_start(struct block_aio *aio);
/* No request may be in flight. */
void block_aio_destroy(struct block_aio *aio);
/* A descriptor that is readable when block_aio_poll() has something to do. */
int block_aio_fd(const struct block_aio *aio);
/* Calls done() of the requests that have finished. Always the same thread; done() may submit more. */
void block_aio_poll(struct block_aio *aio);
/* "io_uring" or "threads", for the log and statistics. */
const char *block_aio_kind(const struct block_aio *aio);

/* --- disks: block.c ---------------------------------------------------------------------------------------------------- */

/* Opens the disk that the chain of descriptors holds. aio may be NULL for blocking use. 0 or -errno with *err filled in. */
int block_open(struct block **b, struct block_aio *aio, const struct block_file *file, unsigned nfiles, unsigned flags,
	       struct block_error *err);
/* Waits for what is in flight, writes cached metadata and forgets the disk; descriptors stay open. 0 or -errno (data may be lost). */
int block_close(struct block *b);
uint64_t block_size(const struct block *b);          /* bytes, a multiple of BLOCK_SECTOR */
bool block_read_only(const struct block *b);

/* Any thread, never blocks. done() is not called from inside. */
void block_submit(struct block *b, struct block_request *r);
/* A short READ whose bytes are in memory is done at once: 0, and done() is not called. Else -EAGAIN, and nothing has happened. Any thread, never
 * blocks. */
int block_try_read(struct block *b, struct block_request *r);
/* Around several block_submit() calls: what they have for the kernel goes there together, at the end. */
void block_plug(struct block *b);
void block_unplug(struct block *b);
/* Before anything is submitted: `fn` is called on the polling thread at the end of every block_aio_poll() that has called done() of this
 * disk's requests, so that their answers can be given together. */
void block_on_batch(struct block *b, void (*fn)(void *opaque), void *opaque);
/* Waits until nothing is in flight on b; calls block_aio_poll(), so on its thread. */
void block_drain(struct block *b);

/* Blocking. 0 or -errno; ranges must lie inside the disk. */
int block_pread(struct block *b, void *buf, size_t bytes, uint64_t offset);
int block_pwrite(struct block *b, const void *buf, size_t bytes, uint64_t offset);
/* The same, compressed, for making images: whole clusters of a qcow2 image that nothing was written to. -ENOTSUP for other formats. */
int block_pwrite_packed(struct block *b, const void *buf, size_t bytes, uint64_t offset);
int block_pzero(struct block *b, uint64_t bytes, uint64_t offset, bool unmap);
int block_pdiscard(struct block *b, uint64_t bytes, uint64_t offset);
int block_pflush(struct block *b);

enum block_status_kind { BLOCK_STATUS_DATA, BLOCK_STATUS_ZERO, BLOCK_STATUS_BELOW };
/* What the top `files` files of the chain (0: all) say of [offset, offset + *bytes); *bytes is shortened to a range of one kind. ZERO is
 * known without looking at data; BELOW: they say nothing. Blocking. The kind or -errno. */
int block_status(struct block *b, uint64_t offset, uint64_t *bytes, unsigned files);

/* --- opening by path: chain.c ------------------------------------------------------------------------------------------ */

struct block_chain {
	unsigned n;
	struct block_file file[BLOCK_CHAIN_MAX];
	char *path[BLOCK_CHAIN_MAX];
	bool probed_below;     /* private: the last file's format was found by looking at it */
};

/* Opens `path` and, for qcow2, the backing files it names, and locks them: the top for writing unless BLOCK_RDONLY, the others for
 * reading. 0, or -errno with *err filled in (naming the file) and nothing open. */
int block_chain_open(struct block_chain *c, const char *path, enum block_format format, unsigned flags,
		     struct block_error *err);
void block_chain_close(struct block_chain *c);
/* The same, but the descriptors stay open: they are the caller's now. */
void block_chain_forget(struct block_chain *c);

/* The path (allocated) and recorded format of what an open image is based on. 0; 1 if it is based on nothing; or -errno with *err. */
int block_backing_path(const struct block_file *f, char **path, enum block_format *format, struct block_error *err);

/* The path, allocated, that the name of a backing file means when the image at `path` records it. 0 or -errno with *err. */
int block_path_beside(const char *path, const char *name, char **out, struct block_error *err);

/* "raw" or "qcow2"; BLOCK_AUTO for an unknown name. */
const char *block_format_name(enum block_format format);
enum block_format block_format_find(const char *name);

#endif
