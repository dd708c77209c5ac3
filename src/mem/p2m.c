/* SPDX-License-Identifier: Apache-2.0 */
/*
 * p2m: the one map from guest frames to machine frames, and copies to and from guest-physical memory.
 *
 * Invariant: an entry's frame number is valid exactly in the states OWNED and ROM; it is published with release order after
 * the frame is taken, so a reader without the lock sees either no frame or a whole one.
 * Locking: see mem.h. Flag bits are set with atomic OR, states change under mem->lock.
 */
#include "mem/private.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>

int mem_create(struct mem **out, uint64_t bytes, gfn_t max_gfn)
{
	struct mem *m;
	int err;

	if (!max_gfn || max_gfn > BIT(X86_PHYS_BITS - PAGE_SHIFT))
		return -EINVAL;
	m = calloc(1, sizeof(*m));
	if (!m)
		return -ENOMEM;
	err = mem_pool_init(&m->pool, bytes);
	if (err)
		goto fail_pool;
	m->max_gfn = max_gfn;
	m->p2m = mmap(NULL, max_gfn * sizeof(uint64_t), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (m->p2m == MAP_FAILED) {
		err = -errno;
		goto fail_p2m;
	}
	m->code_lines = mmap(NULL, max_gfn * sizeof(uint64_t), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (m->code_lines == MAP_FAILED) {
		err = -errno;
		goto fail_lines;
	}
	*out = m;
	return 0;
fail_lines:
	munmap(m->p2m, max_gfn * sizeof(uint64_t));
fail_p2m:
	mem_pool_fini(&m->pool);
fail_pool:
	free(m);
	return err;
}

void mem_destroy(struct mem *m)
{
	if (!m)
		return;
	munmap(m->code_lines, m->max_gfn * sizeof(uint64_t));
	munmap(m->p2m, m->max_gfn * sizeof(uint64_t));
	mem_pool_fini(&m->pool);
	free(m);
}

/* Page-aligned, nonempty, inside max_gfn. */
static bool mem_range_ok(const struct mem *m, gpa_t gpa, uint64_t len)
{
	uint64_t limit = m->max_gfn << PAGE_SHIFT;

	return len && !((gpa | len) & PAGE_MASK) && gpa < limit && len <= limit - gpa;
}

int mem_add_ram(struct mem *m, gpa_t gpa, uint64_t len)
{
	int err = 0;

	if (!mem_range_ok(m, gpa, len))
		return -EINVAL;
	gfn_t first = gpa >> PAGE_SHIFT, end = first + (len >> PAGE_SHIFT);
	mem_lock(m);
	for (gfn_t g = first; g < end && !err; g++)
		if (p2m_entry_state(m->p2m[g]) != P2M_NONE)
			err = -EEXIST;
	/* Budget: what is declared can be populated, so a running guest never meets an empty pool. */
	if (!err && m->ram_frames + (end - first) > m->pool.frames)
		err = -ENOMEM;
	if (!err) {
		for (gfn_t g = first; g < end; g++)
			m->p2m[g] = P2M_ENTRY(0, P2M_ABSENT);
		m->ram_frames += end - first;
	}
	mem_unlock(m);
	return err;
}

int mem_set_rom(struct mem *m, gpa_t gpa, uint64_t len)
{
	if (!mem_range_ok(m, gpa, len))
		return -EINVAL;
	gfn_t first = gpa >> PAGE_SHIFT, end = first + (len >> PAGE_SHIFT);
	for (gfn_t g = first; g < end; g++)
		if (!mem_frame(m, g, false))
			return -EFAULT;
	for (gfn_t g = first; g < end; g++) {
		mem_lock(m);
		__atomic_store_n(&m->p2m[g], (m->p2m[g] & ~P2M_STATE_MASK) | P2M_ENTRY(0, P2M_ROM), __ATOMIC_RELEASE);
		mem_unlock(m);
		for (unsigned i = 0; i < MEM_MAX_MMUS; i++)
			if (m->mmu[i])
				mmu_drop_writes(m->mmu[i], g);
	}
	return 0;
}

enum p2m_state mem_state(const struct mem *m, gfn_t gfn)
{
	return p2m_entry_state(p2m_entry(m, gfn));
}

/* Gives the whole aligned extent around gfn frames, if all of it is RAM without frames. Lock held. */
static bool mem_populate_extent(struct mem *m, gfn_t gfn)
{
	gfn_t first = gfn & ~(MEM_EXTENT_FRAMES - 1);

	if (first + MEM_EXTENT_FRAMES > m->max_gfn)
		return false;
	for (gfn_t g = first; g < first + MEM_EXTENT_FRAMES; g++)
		if (p2m_entry_state(m->p2m[g]) != P2M_ABSENT)
			return false;
	mfn_t mfn = mem_pool_take_extent(&m->pool);
	if (mfn == POOL_NONE)
		return false;
	for (unsigned i = 0; i < MEM_EXTENT_FRAMES; i++)
		__atomic_store_n(&m->p2m[first + i], P2M_ENTRY(mfn + i, P2M_OWNED), __ATOMIC_RELEASE);
	m->populated += MEM_EXTENT_FRAMES;
	return true;
}

static __attribute__((noinline)) void mem_populate(struct mem *m, gfn_t gfn)
{
	enum p2m_state state;

	mem_lock(m);
	state = p2m_entry_state(m->p2m[gfn]);
	if (p2m_state_empty(state) && !mem_populate_extent(m, gfn)) {
		mfn_t mfn = mem_pool_take(&m->pool);

		if (mfn != POOL_NONE) {
			m->ballooned -= state == P2M_BALLOONED;
			__atomic_store_n(&m->p2m[gfn], P2M_ENTRY(mfn, P2M_OWNED), __ATOMIC_RELEASE);
			m->populated++;
		}
	}
	mem_unlock(m);
}

void *mem_frame(struct mem *m, gfn_t gfn, bool write)
{
	uint64_t e = p2m_entry(m, gfn);

	if (likely(p2m_entry_state(e) == P2M_OWNED)) {
		if (write) /* loaders and devices: about to fill it */
			mem_pool_touch(&m->pool, e & P2M_MFN_MASK);
		return mem_hva(m, e);
	}
	if (p2m_state_empty(p2m_entry_state(e))) {
		mem_populate(m, gfn);
		e = p2m_entry(m, gfn);
	}
	switch (p2m_entry_state(e)) {
	case P2M_OWNED:
		if (write)
			mem_pool_touch(&m->pool, e & P2M_MFN_MASK);
		return mem_hva(m, e);
	case P2M_ROM:
		return write ? NULL : mem_hva(m, e);
	default:
		return NULL;
	}
}

int mem_read(struct mem *m, gpa_t gpa, void *buf, size_t len)
{
	uint8_t *p = buf;

	while (len) {
		size_t n = PAGE_SIZE - (gpa & PAGE_MASK);
		const uint8_t *f = mem_frame(m, gpa >> PAGE_SHIFT, false);

		if (!f)
			return -EFAULT;
		if (n > len)
			n = len;
		mem_copy(p, f + (gpa & PAGE_MASK), n);
		gpa += n;
		p += n;
		len -= n;
	}
	return 0;
}

void mem_written(struct mem *m, gpa_t gpa, uint64_t len)
{
	/* The marks are looked at after the bytes are in place, and the translator marks before it reads: one of the two sees
	 * the other. */
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	if (!len || gpa + (len - 1) < gpa)
		return;
	while (len && gpa >> PAGE_SHIFT < m->max_gfn) {
		gfn_t gfn = gpa >> PAGE_SHIFT;
		unsigned off = gpa & PAGE_MASK;
		uint64_t e = p2m_entry(m, gfn), n = PAGE_SIZE - off < len ? PAGE_SIZE - off : len;

		if (p2m_entry_state(e) == P2M_OWNED && !(e & P2M_F_DIRTY))
			p2m_set_flags(m, gfn, P2M_F_DIRTY);
		if (e & P2M_CODE_ANY)
			mem_code_wrote(m, NULL, gfn, off, (unsigned)n);
		gpa += n;
		len -= n;
	}
}

int mem_write(struct mem *m, gpa_t gpa, const void *buf, size_t len)
{
	const uint8_t *p = buf;
	gpa_t at = gpa;
	int err = 0;

	while (len) {
		size_t n = PAGE_SIZE - (at & PAGE_MASK);
		gfn_t gfn = at >> PAGE_SHIFT;
		uint8_t *f = mem_frame(m, gfn, true);

		if (n > len)
			n = len;
		if (f) {
			mem_copy(f + (at & PAGE_MASK), p, n);
		} else if (mem_state(m, gfn) != P2M_ROM) {
			err = -EFAULT;
			break;
		}
		at += n;
		p += n;
		len -= n;
	}
	mem_written(m, gpa, at - gpa);
	return err;
}

uint64_t mem_populated(const struct mem *m)
{
	return m->populated << PAGE_SHIFT;
}

uint64_t mem_resident(const struct mem *m)
{
	struct stat st;

	return fstat(m->pool.fd, &st) == 0 ? (uint64_t)st.st_blocks * 512 : 0;
}

uint64_t mem_ram_size(const struct mem *m)
{
	return m->ram_frames << PAGE_SHIFT;
}

gfn_t mem_max_gfn(const struct mem *m)
{
	return m->max_gfn;
}

uint64_t mem_ballooned(const struct mem *m)
{
	return m->ballooned << PAGE_SHIFT;
}

void mem_reset(struct mem *m)
{
	mem_lock(m);
	for (gfn_t g = 0; g < m->max_gfn;) {
		uint64_t e = m->p2m[g];
		uint64_t n = 1;

		if (p2m_entry_state(e) == P2M_BALLOONED)
			m->p2m[g] = P2M_ENTRY(0, P2M_ABSENT);
		if (p2m_entry_state(e) != P2M_OWNED) {
			g++;
			continue;
		}
		/* Runs of neighbours in both spaces go back in one call. */
		while (g + n < m->max_gfn && p2m_entry_state(m->p2m[g + n]) == P2M_OWNED &&
		       (m->p2m[g + n] & P2M_MFN_MASK) == (e & P2M_MFN_MASK) + n)
			n++;
		for (uint64_t i = 0; i < n; i++)
			m->p2m[g + i] = P2M_ENTRY(0, P2M_ABSENT);
		mem_pool_give(&m->pool, e & P2M_MFN_MASK, n);
		m->populated -= n;
		g += n;
	}
	m->ballooned = 0;
	mem_madvise(m->code_lines, m->max_gfn * sizeof(uint64_t), MADV_DONTNEED);
	mem_unlock(m);
	for (unsigned i = 0; i < MEM_MAX_MMUS; i++)
		if (m->mmu[i])
			mmu_flush_all(m->mmu[i]);
}
