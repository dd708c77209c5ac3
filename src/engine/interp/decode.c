/* SPDX-License-Identifier: Apache-2.0 */
/*
 * From v->rip to a decoded instruction: fetch page cache, then decoded-instruction cache.
 *
 * Invariant: a cached decode is used only if the bytes in memory still are the bytes it was made from (two masked 8-byte
 * compares), so self-modifying code, DMA into code and page replacement need no invalidation. The fetch page cache is derived
 * from the guest's page tables and is valid for one value of mmu.gen (which every flush, context switch and change of paging bits
 * moves) and one privilege. A translator that runs a page's code knows the frame already (interp_fetch_known).
 *
 * Locking: none; the vCPU's thread. Spec: SDM vol. 2A 2.1 (15-byte limit), vol. 3A 4.6 (fetch rights).
 */
#include "engine/interp/operands.h"

#include <errno.h>

/* Masks of the first n bytes of 16, as two little-endian words. */
static uint64_t mask_lo(unsigned n)
{
	return n >= 8 ? ~0ull : (1ull << (n * 8)) - 1;
}

static uint64_t mask_hi(unsigned n)
{
	return n <= 8 ? 0 : (1ull << ((n - 8) * 8)) - 1;
}

static struct fetch_page *page_fill(struct vcpu *v, struct fetch_page *fp, uint64_t tag, gva_t lin)
{
	uint8_t buf[16];
	unsigned got;
	gpa_t gpa;

	if (v->mode == INSN_MODE_64 && !x86_canonical(lin)) {
		cpu_gp0(v);
		return NULL;
	}
	if (cpu_fetch(v, lin, buf, &got, &gpa))
		return NULL;
	fp->tag = tag;
	fp->gpa = gpa & ~PAGE_MASK;
	fp->hva = mem_frame(v->mem, gpa >> PAGE_SHIFT, false);
	fp->gen = v->mmu.gen;
	return fp;
}

static inline struct fetch_page *page_slot(struct interp *ip, const struct vcpu *v, gva_t lin, uint64_t *tag)
{
	*tag = (lin & ~PAGE_MASK) | (v->cpl == 3) | 2;
	return &ip->page[(lin >> PAGE_SHIFT) % FETCH_PAGES];
}

static inline struct fetch_page *page_get(struct vcpu *v, struct interp *ip, gva_t lin)
{
	uint64_t tag;
	struct fetch_page *fp = page_slot(ip, v, lin, &tag);

	if (likely(fp->tag == tag && fp->gen == v->mmu.gen))
		return fp;
	return page_fill(v, fp, tag, lin);
}

void interp_fetch_known(struct vcpu *v, gfn_t gfn)
{
	struct fetch_page *fp;
	uint64_t tag;

	fp = page_slot(interp_of(v), v, v->rip, &tag);
	if (fp->tag != tag || fp->gen != v->mmu.gen)
		*fp = (struct fetch_page){.tag = tag, .gen = v->mmu.gen, .gpa = gfn << PAGE_SHIFT, .hva = mem_frame(v->mem, gfn, false)};
}

/* Up to 15 bytes at lin from the cached pages; the second page only if `cross`. -1 with v->exc if that one faults. */
static int gather(struct vcpu *v, struct interp *ip, const struct fetch_page *fp, gva_t lin, bool cross, uint8_t buf[16],
		  unsigned *got)
{
	unsigned off = lin & PAGE_MASK, n = PAGE_SIZE - off < 15 ? (unsigned)(PAGE_SIZE - off) : 15;
	gpa_t gpa;

	__builtin_memset(buf, 0, 16);
	if (!fp->hva) /* code outside RAM */
		return cpu_fetch(v, lin, buf, got, &gpa);
	for (unsigned i = 0; i < n; i++)
		buf[i] = fp->hva[off + i];
	if (cross && n < 15) {
		gva_t next = (lin & ~PAGE_MASK) + PAGE_SIZE;
		const struct fetch_page *np;

		if (v->mode != INSN_MODE_64)
			next = (uint32_t)next;
		np = page_get(v, ip, next);
		if (!np)
			return -1;
		for (unsigned i = 0; np->hva && n < 15; i++)
			buf[n++] = np->hva[i];
	}
	*got = n;
	return 0;
}

static struct icache_entry *fill(struct vcpu *v, struct interp *ip, struct icache_entry *e, uint64_t key, gva_t lin,
				 const struct fetch_page *fp)
{
	uint8_t buf[16];
	unsigned got;
	int r;

	if (!fp->hva)
		e = &ip->scratch;
	if (gather(v, ip, fp, lin, false, buf, &got))
		return NULL;
	vcpu_fpu_park(v);
	r = insn_decode(&e->in, (enum insn_mode)v->mode, buf, got);
	if (r == -ENODATA && got < 15) {
		if (gather(v, ip, fp, lin, true, buf, &got))
			return NULL;
		vcpu_fpu_park(v);
		r = insn_decode(&e->in, (enum insn_mode)v->mode, buf, got);
	}
	ip->stats.decodes++;
	if (r) {
		e->fn = NULL;
		e->key = ~0ull;
		if (r == -ENODATA)
			cpu_gp0(v); /* longer than 15 bytes */
		else
			cpu_ud(v);
		return NULL;
	}
	e->key = key;
	e->mlo = mask_lo(e->in.len);
	e->mhi = mask_hi(e->in.len);
	__builtin_memcpy(&e->lo, e->in.bytes, 8);
	__builtin_memcpy(&e->hi, e->in.bytes + 8, 8);
	e->fn = interp_resolve(&e->in);
	return e;
}

/* The rare compare: near the end of the page, where 16 bytes cannot be read. */
static bool same_bytes(struct vcpu *v, struct interp *ip, const struct icache_entry *e, const struct fetch_page *fp, gva_t lin)
{
	uint8_t buf[16];
	unsigned got;
	uint64_t lo, hi;

	if (!fp->hva)
		return false;
	if (gather(v, ip, fp, lin, (lin & PAGE_MASK) + e->in.len > PAGE_SIZE, buf, &got)) {
		/* The entry may describe bytes that are gone: only a decode of what is there can say whether page two is needed. */
		v->exc.kind = EXC_NONE;
		return false;
	}
	__builtin_memcpy(&lo, buf, 8);
	__builtin_memcpy(&hi, buf + 8, 8);
	return (((lo ^ e->lo) & e->mlo) | ((hi ^ e->hi) & e->mhi)) == 0;
}

/* CS limit outside 64-bit mode: the whole instruction must lie inside. */
static bool beyond_limit(const struct vcpu *v, unsigned len)
{
	return v->rip + len - 1 > v->seg[CS].limit;
}

struct icache_entry *interp_decode(struct vcpu *v, struct interp *ip)
{
	gva_t lin = v->rip;
	struct icache_entry *e;
	struct fetch_page *fp;
	uint64_t key, off;

	if (unlikely(v->mode != INSN_MODE_64)) {
		if (beyond_limit(v, 1)) {
			cpu_gp0(v);
			return NULL;
		}
		lin = (uint32_t)(lin + v->seg[CS].base);
	}
	fp = page_get(v, ip, lin);
	if (unlikely(!fp))
		return NULL;
	off = lin & PAGE_MASK;
	key = (fp->gpa + off) << 2 | v->mode;
	e = &ip->icache[((key >> 2) ^ (key >> 17)) % ICACHE_ENTRIES];
	if (likely(e->key == key && e->fn)) {
		if (likely(fp->hva && off <= PAGE_SIZE - 16)) {
			const any_u64 *p = (const any_u64 *)(fp->hva + off);

			if (likely((((p[0] ^ e->lo) & e->mlo) | ((p[1] ^ e->hi) & e->mhi)) == 0))
				goto found;
		} else if (same_bytes(v, ip, e, fp, lin)) {
			goto found;
		}
	}
	ip->stats.icache_misses++;
	/* fill() may replace *fp (page two shares the slot never: consecutive pages), so nothing of it is used afterwards. */
	e = fill(v, ip, e, key, lin, fp);
	if (!e)
		return NULL;
found:
	if (unlikely(v->mode != INSN_MODE_64 && beyond_limit(v, e->in.len))) {
		cpu_gp0(v);
		return NULL;
	}
	return e;
}
