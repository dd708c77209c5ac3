/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Device DMA: stretches of guest-physical memory as lists of host pieces (iovec), and copies to and from them.
 *
 * Invariant: a piece lies in RAM (or, for reading, ROM) that p2m answered for when it was mapped; MMIO and holes are refused, so
 * DMA never reaches a register. gpa[i] is where iov[i] lies in the guest, contiguous there over the whole piece.
 * Whoever stores through a piece without io_dma_write() calls io_dma_written() afterwards: translated code of those frames
 * must go, and they become dirty.
 * Locking: none of its own; a list belongs to one request. Pieces stay valid until the frames are taken away from p2m, which
 * waits for devices (machine reset drains them first).
 */
#ifndef IO_DMA_H
#define IO_DMA_H

#include <sys/uio.h>

#include "base/types.h"
#include "mem/mem.h"

struct io_dma {
	struct iovec *iov;   /* `max` places, owned by whoever set the list up */
	gpa_t *gpa;
	unsigned n, max;
	uint64_t bytes;      /* sum of the lengths */
};

/* Appends [gpa, gpa+len) for reading by the device (write false) or writing. -EFAULT if a page of it is not memory of that
 * kind, -E2BIG if the list is full; the list then holds an unspecified part of it. Neighbours join. */
int io_dma_map(struct mem *m, struct io_dma *d, gpa_t gpa, uint64_t len, bool write);

/* Appends a stretch by its address alone: iov_base is NULL. For devices that act on memory without looking into it. -E2BIG. */
int io_dma_note(struct io_dma *d, gpa_t gpa, uint64_t len);

/* Copies from / to the pieces, starting `off` bytes into the list; returns the bytes copied, fewer at the end of the list. */
size_t io_dma_read(const struct io_dma *d, uint64_t off, void *buf, size_t len);
size_t io_dma_write(struct mem *m, const struct io_dma *d, uint64_t off, const void *buf, size_t len);

/* The pieces of bytes [off, off+len), as far as the list goes, into iov (at most max of them); returns their number. For readv(2) and
 * writev(2) on a part; the list stays as it is. */
unsigned io_dma_slice(const struct io_dma *d, uint64_t off, uint64_t len, struct iovec *iov, unsigned max);

/* The first `bytes` bytes of the list have been stored to by other means (a read system call into iov). */
void io_dma_written(struct mem *m, const struct io_dma *d, uint64_t bytes);

/* Shortens the list by n bytes (at most all) at its front or back. The pieces are changed in place. */
void io_dma_trim_front(struct io_dma *d, uint64_t n);
void io_dma_trim_back(struct io_dma *d, uint64_t n);

#endif
