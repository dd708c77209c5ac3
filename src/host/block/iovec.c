/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A request's cursor over its iovecs.
 *
 * Invariant: block_submit() has checked that the iovecs add up to the request's size, so walking `bytes` that are left of it stays
 * inside them. The thread that advances the request owns the cursor.
 */
#include <string.h>

#include "host/block/private.h"

/* The part of the current element that is left, at most max; the cursor moves over it. */
static struct iovec step(struct block_request *r, uint64_t max)
{
	const struct iovec *v = &r->iov[r->iov_index];
	struct iovec part = {.iov_base = (char *)v->iov_base + r->iov_offset, .iov_len = v->iov_len - r->iov_offset};

	if (part.iov_len > max) {
		part.iov_len = max;
		r->iov_offset += max;
	} else {
		r->iov_index++;
		r->iov_offset = 0;
	}
	return part;
}

unsigned request_slice(struct block_request *r, struct iovec *iov, unsigned max, uint64_t *bytes)
{
	uint64_t done = 0;
	unsigned n = 0;

	while (n < max && done < *bytes) {
		iov[n] = step(r, *bytes - done);
		done += iov[n].iov_len;
		n += iov[n].iov_len != 0;
	}
	*bytes = done;
	return n;
}

void request_gather(struct block_request *r, uint8_t *buf, size_t bytes)
{
	while (bytes) {
		struct iovec v = step(r, bytes);

		memcpy(buf, v.iov_base, v.iov_len);
		buf += v.iov_len;
		bytes -= v.iov_len;
	}
}

void request_scatter(struct block_request *r, const uint8_t *buf, size_t bytes)
{
	while (bytes) {
		struct iovec v = step(r, bytes);

		memcpy(v.iov_base, buf, v.iov_len);
		buf += v.iov_len;
		bytes -= v.iov_len;
	}
}

void request_clear(struct block_request *r, uint64_t bytes)
{
	while (bytes) {
		struct iovec v = step(r, bytes);

		memset(v.iov_base, 0, v.iov_len);
		bytes -= v.iov_len;
	}
}
