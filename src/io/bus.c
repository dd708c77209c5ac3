/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Port and MMIO dispatch.
 *
 * Invariant: range[space] is sorted by base and free of overlaps, so an access has at most one owner.
 * Locking: io->lock is taken here around every handler; registration happens before the machine runs or with the lock held.
 */
#include "io/io.h"

#include <errno.h>

int io_init(struct io *io, struct mem *mem)
{
	*io = (struct io){ .mem = mem };
	return -pthread_mutex_init(&io->lock, NULL);
}

void io_fini(struct io *io)
{
	pthread_mutex_destroy(&io->lock);
}

int io_register(struct io *io, enum io_space space, uint64_t base, uint64_t len, const struct io_handler *h, void *opaque)
{
	struct io_range *r = io->range[space];
	unsigned n = io->nranges[space], at = 0;

	if (!len || base + (len - 1) < base || (space == IO_PIO && base + len > 0x10000))
		return -EINVAL;
	if (n == IO_MAX_RANGES)
		return -ENOSPC;
	while (at < n && r[at].base < base)
		at++;
	if ((at > 0 && base - r[at - 1].base < r[at - 1].len) || (at < n && r[at].base - base < len))
		return -EEXIST;
	for (unsigned i = n; i > at; i--)
		r[i] = r[i - 1];
	r[at] = (struct io_range){ .base = base, .len = len, .handler = h, .opaque = opaque };
	io->nranges[space]++;
	return 0;
}

void io_unregister(struct io *io, enum io_space space, uint64_t base)
{
	struct io_range *r = io->range[space];
	unsigned n = io->nranges[space], at = 0;

	while (at < n && r[at].base != base)
		at++;
	if (at == n)
		return;
	for (; at + 1 < n; at++)
		r[at] = r[at + 1];
	io->nranges[space]--;
}

/* The range holding all of [addr, addr+size), or NULL. */
static const struct io_range *io_find(const struct io *io, enum io_space space, uint64_t addr, unsigned size)
{
	const struct io_range *r = io->range[space];
	unsigned lo = 0, hi = io->nranges[space];

	while (lo < hi) {
		unsigned mid = (lo + hi) / 2;

		if (addr < r[mid].base)
			hi = mid;
		else if (addr - r[mid].base >= r[mid].len)
			lo = mid + 1;
		else
			return r[mid].len - (addr - r[mid].base) >= size ? &r[mid] : NULL;
	}
	return NULL;
}

const void *io_owner(struct io *io, enum io_space space, uint64_t addr)
{
	const struct io_range *r;

	pthread_mutex_lock(&io->lock);
	r = io_find(io, space, addr, 1);
	pthread_mutex_unlock(&io->lock);
	return r ? r->opaque : NULL;
}

static uint64_t io_size_mask(unsigned size)
{
	return size >= 8 ? UINT64_MAX : BIT(size * 8) - 1;
}

bool io_read_by(struct io *io, unsigned cpu, enum io_space space, uint64_t addr, unsigned size, uint64_t *val)
{
	const struct io_range *r;

	*val = io_size_mask(size);
	pthread_mutex_lock(&io->lock);
	io->cpu = cpu;
	io->stats.pio += space == IO_PIO;
	io->stats.mmio += space == IO_MMIO;
	r = io_find(io, space, addr, size);
	if (r && r->handler->read)
		*val = r->handler->read(r->opaque, addr - r->base, size) & io_size_mask(size);
	pthread_mutex_unlock(&io->lock);
	return r;
}

bool io_write_by(struct io *io, unsigned cpu, enum io_space space, uint64_t addr, unsigned size, uint64_t val)
{
	const struct io_range *r;

	pthread_mutex_lock(&io->lock);
	io->cpu = cpu;
	io->stats.pio += space == IO_PIO;
	io->stats.mmio += space == IO_MMIO;
	r = io_find(io, space, addr, size);
	if (r && r->handler->write)
		r->handler->write(r->opaque, addr - r->base, size, val & io_size_mask(size));
	pthread_mutex_unlock(&io->lock);
	return r;
}
