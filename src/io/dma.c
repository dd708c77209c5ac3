/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Lists of host pieces over guest-physical memory.
 *
 * Invariant and locking: see dma.h. Loops run over pages or pieces; callers bound the length they map.
 */
#include "io/dma.h"

#include <errno.h>
#include <string.h>

/* One stretch inside a page. */
static int io_dma_add(struct io_dma *d, uint8_t *host, gpa_t gpa, size_t len)
{
	struct iovec *last = d->n ? &d->iov[d->n - 1] : NULL;

	d->bytes += len;
	if (last && (uint8_t *)last->iov_base + last->iov_len == host && d->gpa[d->n - 1] + last->iov_len == gpa) {
		last->iov_len += len;
		return 0;
	}
	if (d->n == d->max)
		return -E2BIG;
	d->iov[d->n] = (struct iovec){.iov_base = host, .iov_len = len};
	d->gpa[d->n++] = gpa;
	return 0;
}

int io_dma_map(struct mem *m, struct io_dma *d, gpa_t gpa, uint64_t len, bool write)
{
	if (len && gpa + (len - 1) < gpa)
		return -EFAULT;
	while (len) {
		uint64_t n = PAGE_SIZE - (gpa & PAGE_MASK);
		uint8_t *frame = mem_frame(m, gpa >> PAGE_SHIFT, write);
		int err;

		if (!frame)
			return -EFAULT;
		if (n > len)
			n = len;
		err = io_dma_add(d, frame + (gpa & PAGE_MASK), gpa, n);
		if (err)
			return err;
		gpa += n;
		len -= n;
	}
	return 0;
}

int io_dma_note(struct io_dma *d, gpa_t gpa, uint64_t len)
{
	if (d->n == d->max)
		return -E2BIG;
	d->iov[d->n] = (struct iovec){.iov_len = len};
	d->gpa[d->n++] = gpa;
	d->bytes += len;
	return 0;
}

/* Finds where byte `off` lies; false past the end. */
static bool io_dma_seek(const struct io_dma *d, uint64_t *off, unsigned *piece)
{
	for (*piece = 0; *piece < d->n; (*piece)++) {
		if (*off < d->iov[*piece].iov_len)
			return true;
		*off -= d->iov[*piece].iov_len;
	}
	return false;
}

size_t io_dma_read(const struct io_dma *d, uint64_t off, void *buf, size_t len)
{
	size_t done = 0;
	unsigned i;

	if (!io_dma_seek(d, &off, &i))
		return 0;
	for (; i < d->n && done < len; i++, off = 0) {
		size_t n = d->iov[i].iov_len - off;

		if (n > len - done)
			n = len - done;
		memcpy((uint8_t *)buf + done, (const uint8_t *)d->iov[i].iov_base + off, n);
		done += n;
	}
	return done;
}

size_t io_dma_write(struct mem *m, const struct io_dma *d, uint64_t off, const void *buf, size_t len)
{
	size_t done = 0;
	unsigned i;

	if (!io_dma_seek(d, &off, &i))
		return 0;
	for (; i < d->n && done < len; i++, off = 0) {
		size_t n = d->iov[i].iov_len - off;

		if (n > len - done)
			n = len - done;
		memcpy((uint8_t *)d->iov[i].iov_base + off, (const uint8_t *)buf + done, n);
		mem_written(m, d->gpa[i] + off, n);
		done += n;
	}
	return done;
}

unsigned io_dma_slice(const struct io_dma *d, uint64_t off, uint64_t len, struct iovec *iov, unsigned max)
{
	unsigned n = 0, i;

	if (!io_dma_seek(d, &off, &i))
		return 0;
	for (; i < d->n && len && n < max; i++, off = 0) {
		uint64_t part = d->iov[i].iov_len - off;

		if (part > len)
			part = len;
		iov[n++] = (struct iovec){.iov_base = (uint8_t *)d->iov[i].iov_base + off, .iov_len = part};
		len -= part;
	}
	return n;
}

void io_dma_written(struct mem *m, const struct io_dma *d, uint64_t bytes)
{
	for (unsigned i = 0; i < d->n && bytes; i++) {
		uint64_t n = d->iov[i].iov_len < bytes ? d->iov[i].iov_len : bytes;

		mem_written(m, d->gpa[i], n);
		bytes -= n;
	}
}

void io_dma_trim_front(struct io_dma *d, uint64_t n)
{
	unsigned gone = 0;

	if (n > d->bytes)
		n = d->bytes;
	d->bytes -= n;
	while (gone < d->n && n >= d->iov[gone].iov_len)
		n -= d->iov[gone++].iov_len;
	d->iov += gone;
	d->gpa += gone;
	d->n -= gone;
	d->max -= gone;
	if (n) {
		d->iov[0].iov_base = (uint8_t *)d->iov[0].iov_base + n;
		d->iov[0].iov_len -= n;
		d->gpa[0] += n;
	}
}

void io_dma_trim_back(struct io_dma *d, uint64_t n)
{
	if (n > d->bytes)
		n = d->bytes;
	d->bytes -= n;
	while (d->n && n >= d->iov[d->n - 1].iov_len)
		n -= d->iov[--d->n].iov_len;
	if (n)
		d->iov[d->n - 1].iov_len -= n;
}
