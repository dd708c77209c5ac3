/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The pool of machine frames: a memfd, mapped once and never moved, so that machine memory can be shared, counted and returned.
 *
 * Invariant: a frame is either free (its bit clear, contents zero at next touch) or has exactly one owner in p2m.
 * Extents of 2 MiB are handed out whole while free ones last, with huge pages advised; single frames are taken from one
 * extent at a time so that they spoil few. Locking: the caller holds mem->lock.
 */
#include "mem/private.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

int mem_pool_init(struct mem_pool *p, uint64_t bytes)
{
	int err;

	*p = (struct mem_pool){ .fd = -1 };
	if (!bytes || bytes % MEM_EXTENT_SIZE || bytes >> 52)
		return -EINVAL;
	p->frames = bytes >> PAGE_SHIFT;
	p->nextents = p->frames / MEM_EXTENT_FRAMES;
	p->used = calloc(p->frames / 64, sizeof(*p->used));
	p->touched = calloc((p->frames / MEM_TOUCH_FRAMES + 63) / 64, sizeof(*p->touched));
	p->taken = calloc(p->nextents, sizeof(*p->taken));
	err = -ENOMEM;
	if (!p->used || !p->touched || !p->taken)
		goto fail;
	p->fd = memfd_create("guest", MFD_CLOEXEC);
	if (p->fd < 0 || ftruncate(p->fd, (off_t)bytes) < 0) {
		err = -errno;
		goto fail;
	}
	/* Aligned by hand: a huge page needs the same offset modulo 2 MiB in the file and in memory. What is left on both sides
	 * stays inaccessible: a second line of defence should an access ever run past an end. */
	p->area = mmap(NULL, bytes + 2 * MEM_EXTENT_SIZE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (p->area == MAP_FAILED) {
		err = -errno;
		p->area = NULL;
		goto fail;
	}
	uintptr_t want = ((uintptr_t)p->area + PAGE_SIZE + MEM_EXTENT_SIZE - 1) & ~(uintptr_t)(MEM_EXTENT_SIZE - 1);
	p->base = mmap((void *)want, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE | MAP_FIXED, p->fd, 0);
	if (p->base == MAP_FAILED) {
		err = -errno;
		p->base = NULL;
		goto fail;
	}
	/* A crash dump of the monitor must not contain the guest. */
	madvise(p->base, bytes, MADV_DONTDUMP);
	return 0;
fail:
	mem_pool_fini(p);
	return err;
}

void mem_pool_fini(struct mem_pool *p)
{
	if (p->area)
		munmap(p->area, (p->frames << PAGE_SHIFT) + 2 * MEM_EXTENT_SIZE);
	if (p->fd >= 0)
		close(p->fd);
	free(p->used);
	free(p->touched);
	free(p->taken);
	*p = (struct mem_pool){ .fd = -1 };
}

mfn_t mem_pool_take_extent(struct mem_pool *p)
{
	for (uint64_t n = 0; n < p->nextents; n++) {
		uint64_t e = (p->next_extent + n) % p->nextents;

		if (p->taken[e])
			continue;
		p->taken[e] = MEM_EXTENT_FRAMES;
		for (unsigned i = 0; i < MEM_EXTENT_FRAMES / 64; i++)
			p->used[e * (MEM_EXTENT_FRAMES / 64) + i] = UINT64_MAX;
		p->next_extent = e + 1;
		/* Best effort: without huge pages for shared memory everything works, only slower. */
		mem_madvise(p->base + e * MEM_EXTENT_SIZE, MEM_EXTENT_SIZE, MADV_HUGEPAGE);
		return e * MEM_EXTENT_FRAMES;
	}
	return POOL_NONE;
}

static mfn_t pool_take_from(struct mem_pool *p, uint64_t e)
{
	for (unsigned i = 0; i < MEM_EXTENT_FRAMES / 64; i++) {
		uint64_t *w = &p->used[e * (MEM_EXTENT_FRAMES / 64) + i];

		if (*w == UINT64_MAX)
			continue;
		unsigned bit = (unsigned)__builtin_ctzll(~*w);
		*w |= BIT(bit);
		p->taken[e]++;
		return e * MEM_EXTENT_FRAMES + i * 64 + bit;
	}
	return POOL_NONE;
}

mfn_t mem_pool_take(struct mem_pool *p)
{
	/* First the extent already broken; then, from the end (extents grow from the start), any with room. */
	if (p->taken[p->next_single] && p->taken[p->next_single] < MEM_EXTENT_FRAMES)
		return pool_take_from(p, p->next_single);
	for (unsigned partial = 1; partial <= 2; partial++) {
		for (uint64_t e = p->nextents; e-- > 0;) {
			if (p->taken[e] == MEM_EXTENT_FRAMES || (partial == 1 && !p->taken[e]))
				continue;
			p->next_single = e;
			return pool_take_from(p, e);
		}
	}
	return POOL_NONE;
}

/* Neighbours in the first and last group may be asked for twice. */
static void forget_touched(struct mem_pool *p, mfn_t mfn, uint64_t count)
{
	for (uint64_t g = mfn / MEM_TOUCH_FRAMES; g <= (mfn + count - 1) / MEM_TOUCH_FRAMES; g++)
		__atomic_fetch_and(&p->touched[g / 64], ~BIT(g % 64), __ATOMIC_RELAXED);
}

/*
 * A page fault of the host costs more than filling the page, on virtualized hosts ten times as much, and one asked for in advance costs no
 * fault. Where it cannot be asked for (Linux before 5.14, a limit reached) the page comes with its fault.
 */
void mem_pool_touch(struct mem_pool *p, mfn_t mfn)
{
	uint64_t g = mfn / MEM_TOUCH_FRAMES, used;
	unsigned at = mfn % MEM_TOUCH_FRAMES, up, down;

	static_assert(MEM_TOUCH_FRAMES == 64, "a group is a word of `used`");
	if (likely(__atomic_load_n(&p->touched[g / 64], __ATOMIC_RELAXED) & BIT(g % 64)))
		return;
	__atomic_fetch_or(&p->touched[g / 64], BIT(g % 64), __ATOMIC_RELAXED);
	/* Of the group the neighbours that somebody owns: what was given back must stay with the host. Read without the lock, so a neighbour that
	 * is given back right now may come along once. */
	used = __atomic_load_n(&p->used[g], __ATOMIC_RELAXED) | BIT(at);
	up = used >> at == UINT64_MAX ? 64 : (unsigned)__builtin_ctzll(~(used >> at));
	down = used << (63 - at) == UINT64_MAX ? 63 : (unsigned)__builtin_clzll(~(used << (63 - at))) - 1;
	mem_madvise(p->base + ((mfn - down) << PAGE_SHIFT), (uint64_t)(up + down) << PAGE_SHIFT, MADV_POPULATE_WRITE);
}

void mem_pool_give(struct mem_pool *p, mfn_t mfn, uint64_t count)
{
	mem_madvise(p->base + (mfn << PAGE_SHIFT), count << PAGE_SHIFT, MADV_REMOVE);
	forget_touched(p, mfn, count); /* afterwards: a neighbour may have been touched meanwhile */
	for (uint64_t f = mfn; f < mfn + count; f++) {
		p->used[f / 64] &= ~BIT(f % 64);
		p->taken[f / MEM_EXTENT_FRAMES]--;
	}
	if (mfn / MEM_EXTENT_FRAMES < p->next_extent)
		p->next_extent = mfn / MEM_EXTENT_FRAMES;
}
