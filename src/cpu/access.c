/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Linear memory access: the flat tables first, then the page walk, memory-mapped devices, and translated code being written.
 *
 * Invariant: an access either completes or raises #PF with nothing changed: all its pages are resolved before the first byte
 * is moved. User accesses to the upper half never use the flat tables, whose entries there carry supervisor rights.
 * Owner: the vCPU's thread. Spec: SDM vol. 3A 4.6, 4.7 (rights, faults), 8.1.1 (atomicity).
 */
#include "cpu/private.h"

/* One page's share of an access. */
struct piece {
	struct mmu_target t;
	unsigned len;
	bool walked;     /* no table entry: t.gpa is valid */
};

/* --- small helpers ---------------------------------------------------------------------------------------------- */

/* Guest operands have any alignment, as on the host. */
typedef uint16_t host_u16 __attribute__((aligned(1), may_alias));
typedef uint32_t host_u32 __attribute__((aligned(1), may_alias));
typedef uint64_t host_u64 __attribute__((aligned(1), may_alias));

static inline uint64_t host_load(const void *p, unsigned size)
{
	switch (size) {
	case 1:
		return *(const uint8_t *)p;
	case 2:
		return *(const host_u16 *)p;
	case 4:
		return *(const host_u32 *)p;
	default:
		return *(const host_u64 *)p;
	}
}

static inline void host_store(void *p, unsigned size, uint64_t val)
{
	switch (size) {
	case 1:
		*(uint8_t *)p = (uint8_t)val;
		break;
	case 2:
		*(host_u16 *)p = (uint16_t)val;
		break;
	case 4:
		*(host_u32 *)p = (uint32_t)val;
		break;
	default:
		*(host_u64 *)p = val;
		break;
	}
}

static inline void host_copy(void *dst, const void *src, size_t n)
{
	__asm__ volatile("rep movsb" : "+D"(dst), "+S"(src), "+c"(n) : : "memory");
}

/* May the flat tables answer? Not for non-canonical addresses, nor for user accesses to the upper half. */
static inline bool flat_usable(gva_t lin, bool user)
{
	return user ? lin >> 47 == 0 : x86_canonical(lin);
}

static inline void *flat_find(const uint64_t *table, gva_t lin)
{
	uint64_t e = table[mmu_vpn(lin)];

	return e ? (void *)(uintptr_t)(lin + e) : NULL;
}

static inline bool in_page(gva_t lin, size_t len)
{
	return (lin & PAGE_MASK) + len <= PAGE_SIZE;
}

static inline bool is_user(const struct vcpu *v)
{
	return v->cpl == 3;
}

/* --- journal ---------------------------------------------------------------------------------------------------- */

static __attribute__((noinline)) void journal_record(struct vcpu_journal *j, void *hva, size_t len)
{
	uint8_t *p = hva;

	while (len) {
		size_t n = len < sizeof(j->e[0].old) ? len : sizeof(j->e[0].old);

		if (j->n == nitems(j->e)) {
			j->overflow = true;
			return;
		}
		j->e[j->n].hva = p;
		j->e[j->n].len = (uint8_t)n;
		host_copy(j->e[j->n].old, p, n);
		j->n++;
		p += n;
		len -= n;
	}
}

static inline void journal_store(struct vcpu *v, void *hva, size_t len)
{
	if (unlikely(v->journal))
		journal_record(v->journal, hva, len);
}

/* --- devices ---------------------------------------------------------------------------------------------------- */

/* Devices see naturally aligned accesses of 1, 2, 4 or 8 bytes: the largest that fits at gpa. */
static unsigned mmio_chunk(gpa_t gpa, size_t len)
{
	unsigned n = 8;

	while (n > len || (gpa & (n - 1)))
		n >>= 1;
	return n;
}


static void mmio_read(struct vcpu *v, gpa_t gpa, uint8_t *buf, size_t len)
{
	bool was = cpu_leave(v);

	v->stats.mmio++;
	while (len) {
		unsigned n = mmio_chunk(gpa, len);
		uint64_t val = v->ops->mmio_read(v->vm, gpa, n);

		host_copy(buf, &val, n);
		gpa += n;
		buf += n;
		len -= n;
	}
	cpu_return(v, was);
}

static void mmio_write(struct vcpu *v, gpa_t gpa, const uint8_t *buf, size_t len)
{
	bool was = cpu_leave(v);

	v->stats.mmio++;
	while (len) {
		unsigned n = mmio_chunk(gpa, len);
		uint64_t val = 0;

		host_copy(&val, buf, n);
		v->ops->mmio_write(v->vm, gpa, n, val);
		gpa += n;
		buf += n;
		len -= n;
	}
	cpu_return(v, was);
}

/* --- slow path -------------------------------------------------------------------------------------------------- */

/* Resolves the one or two pages of an access (len <= 4096); -1 with the exception raised. */
static int resolve(struct vcpu *v, gva_t lin, size_t len, bool write, bool user, struct piece p[2], unsigned *n)
{
	*n = 0;
	while (len) {
		const uint64_t *table = write ? v->mmu.cur->w : v->mmu.cur->r;
		struct piece *q = &p[*n];
		uint32_t fault;

		/* Segmentation checks come first, so this is for addresses made elsewhere (descriptor tables, wrap-around). */
		if (unlikely(!x86_canonical(lin)))
			return cpu_gp0(v);
		q->len = (unsigned)(PAGE_SIZE - (lin & PAGE_MASK));
		if (q->len > len)
			q->len = (unsigned)len;
		/* A crossing access comes here though both pages may be at hand. */
		q->t = (struct mmu_target){ .hva = flat_usable(lin, user) ? flat_find(table, lin) : NULL };
		q->walked = !q->t.hva;
		if (q->walked) {
			v->stats.slow_mem++;
			fault = mmu_resolve(&v->mmu, lin, write, user, is_user(v), &q->t);
			if (fault)
				return cpu_raise_pf(v, lin, fault & ~MMU_FAULT);
		}
		lin += q->len;
		if (!(v->efer & EFER_LMA))
			lin &= UINT32_MAX;
		len -= q->len;
		++*n;
	}
	return 0;
}

/* Reads through resolved pieces: memory first, because host addresses do not outlive the call of a device. */
static void pieces_load(struct vcpu *v, const struct piece *p, unsigned n, uint8_t *buf)
{
	for (unsigned i = 0; i < n; i++)
		if (p[i].t.hva)
			host_copy(buf + (i ? p[0].len : 0), p[i].t.hva, p[i].len);
	for (unsigned i = 0; i < n; i++)
		if (!p[i].t.hva)
			mmio_read(v, p[i].t.gpa, buf + (i ? p[0].len : 0), p[i].len);
}

static bool is_rom(struct vcpu *v, gpa_t gpa)
{
	return mem_state(v->mem, gpa >> PAGE_SHIFT) == P2M_ROM;
}

static void code_write(struct vcpu *v, const struct mmu_target *t, unsigned len)
{
	if (unlikely(t->code))
		mem_code_write(&v->mmu, t->gpa >> PAGE_SHIFT, t->gpa & PAGE_MASK, len);
}

/* One piece in memory. What was resolved through no write entry may have been marked as code by another vCPU meanwhile. */
static void piece_store(struct vcpu *v, const struct piece *p, const uint8_t *buf)
{
	code_write(v, &p->t, p->len);
	journal_store(v, p->t.hva, p->len);
	/* One move where the host can do it in one: other processors must not see halves. */
	if (p->len <= 8 && !(p->len & (p->len - 1)))
		host_store(p->t.hva, p->len, host_load(buf, p->len));
	else
		host_copy(p->t.hva, buf, p->len);
	if (p->walked)
		mem_code_wrote(v->mem, &v->mmu, p->t.gpa >> PAGE_SHIFT, p->t.gpa & PAGE_MASK, p->len);
}

/* Memory first, as in pieces_load(). */
static void pieces_store(struct vcpu *v, const struct piece *p, unsigned n, const uint8_t *buf)
{
	for (unsigned i = 0; i < n; i++)
		if (p[i].t.hva)
			piece_store(v, &p[i], buf + (i ? p[0].len : 0));
	for (unsigned i = 0; i < n; i++)
		if (!p[i].t.hva && !is_rom(v, p[i].t.gpa))
			mmio_write(v, p[i].t.gpa, buf + (i ? p[0].len : 0), p[i].len);
}

/* After an access has been resolved, so that nothing but the access itself is left: does a debugger want to know? */
static inline void watch(struct vcpu *v, gva_t lin, size_t len, unsigned kinds)
{
	if (unlikely(v->mmu.watches))
		cpu_debug_access(v, lin, len, kinds);
}

static __attribute__((noinline)) int load_slow(struct vcpu *v, gva_t lin, unsigned size, bool user, uint64_t *val)
{
	struct piece p[2];
	unsigned n;
	uint64_t r = 0;

	if (resolve(v, lin, size, false, user, p, &n))
		return -1;
	watch(v, lin, size, MMU_WATCH_READ);
	if (n == 1 && p[0].t.hva)
		r = host_load(p[0].t.hva, size);
	else
		pieces_load(v, p, n, (uint8_t *)&r);
	*val = r;
	return 0;
}

static __attribute__((noinline)) int store_slow(struct vcpu *v, gva_t lin, unsigned size, bool user, uint64_t val)
{
	struct piece p[2];
	unsigned n;

	if (resolve(v, lin, size, true, user, p, &n))
		return -1;
	watch(v, lin, size, MMU_WATCH_WRITE);
	pieces_store(v, p, n, (const uint8_t *)&val);
	return 0;
}

/* --- interface -------------------------------------------------------------------------------------------------- */

static inline int load(struct vcpu *v, gva_t lin, unsigned size, bool user, uint64_t *val)
{
	if (likely(in_page(lin, size) && flat_usable(lin, user))) {
		const void *p = flat_find(v->mmu.cur->r, lin);

		if (likely(p)) {
			*val = host_load(p, size);
			return 0;
		}
	}
	return load_slow(v, lin, size, user, val);
}

static inline int store(struct vcpu *v, gva_t lin, unsigned size, bool user, uint64_t val)
{
	if (likely(in_page(lin, size) && flat_usable(lin, user))) {
		void *p = flat_find(v->mmu.cur->w, lin);

		if (likely(p)) {
			journal_store(v, p, size);
			host_store(p, size, val);
			return 0;
		}
	}
	return store_slow(v, lin, size, user, val);
}

int cpu_load(struct vcpu *v, gva_t lin, unsigned size, uint64_t *val)
{
	return load(v, lin, size, is_user(v), val);
}

int cpu_store(struct vcpu *v, gva_t lin, unsigned size, uint64_t val)
{
	return store(v, lin, size, is_user(v), val);
}

int cpu_load_sys(struct vcpu *v, gva_t lin, unsigned size, uint64_t *val)
{
	return load(v, lin, size, false, val);
}

int cpu_store_sys(struct vcpu *v, gva_t lin, unsigned size, uint64_t val)
{
	return store(v, lin, size, false, val);
}

int cpu_load_buf(struct vcpu *v, gva_t lin, void *buf, size_t len)
{
	struct piece p[2];
	unsigned n;

	if (len > PAGE_SIZE)
		return cpu_gp0(v);
	if (in_page(lin, len) && flat_usable(lin, is_user(v))) {
		const void *h = flat_find(v->mmu.cur->r, lin);

		if (h) {
			host_copy(buf, h, len);
			return 0;
		}
	}
	if (resolve(v, lin, len, false, is_user(v), p, &n))
		return -1;
	watch(v, lin, len, MMU_WATCH_READ);
	pieces_load(v, p, n, buf);
	return 0;
}

int cpu_store_buf(struct vcpu *v, gva_t lin, const void *buf, size_t len)
{
	struct piece p[2];
	unsigned n;

	if (len > PAGE_SIZE)
		return cpu_gp0(v);
	if (in_page(lin, len) && flat_usable(lin, is_user(v))) {
		void *h = flat_find(v->mmu.cur->w, lin);

		if (h) {
			journal_store(v, h, len);
			host_copy(h, buf, len);
			return 0;
		}
	}
	if (resolve(v, lin, len, true, is_user(v), p, &n))
		return -1;
	watch(v, lin, len, MMU_WATCH_WRITE);
	pieces_store(v, p, n, buf);
	return 0;
}

int cpu_probe_write(struct vcpu *v, gva_t lin, size_t len)
{
	struct piece p[2];
	unsigned n;

	if (len > PAGE_SIZE)
		return cpu_gp0(v);
	if (in_page(lin, len) && flat_usable(lin, is_user(v)) && flat_find(v->mmu.cur->w, lin))
		return 0;
	return resolve(v, lin, len, true, is_user(v), p, &n);
}

static int rmw(struct vcpu *v, gva_t lin, unsigned size, bool user, struct cpu_rmw *r)
{
	struct piece p[2];
	unsigned n;

	*r = (struct cpu_rmw){0};
	if (likely(in_page(lin, size) && flat_usable(lin, user))) {
		r->hva = flat_find(v->mmu.cur->w, lin);
		if (likely(r->hva)) {
			journal_store(v, r->hva, size);
			return 0;
		}
	}
	if (resolve(v, lin, size, true, user, p, &n))
		return -1;
	if (n == 1 && p[0].t.hva) {
		watch(v, lin, size, MMU_WATCH_READ | MMU_WATCH_WRITE);
		code_write(v, &p[0].t, size);
		journal_store(v, p[0].t.hva, size);
		*r = (struct cpu_rmw){ .hva = p[0].t.hva, .gpa = p[0].t.gpa, .walked = true };
	}
	return 0;
}

int cpu_rmw_open(struct vcpu *v, gva_t lin, unsigned size, struct cpu_rmw *r)
{
	return rmw(v, lin, size, is_user(v), r);
}

void cpu_rmw_close(struct vcpu *v, const struct cpu_rmw *r, unsigned size)
{
	if (unlikely(r->walked))
		mem_code_wrote(v->mem, &v->mmu, r->gpa >> PAGE_SHIFT, r->gpa & PAGE_MASK, size);
}

int cpu_change_byte_sys(struct vcpu *v, gva_t lin, uint8_t set, uint8_t clear)
{
	struct cpu_rmw r;
	uint64_t val;

	if (rmw(v, lin, 1, false, &r))
		return -1;
	if (unlikely(!r.hva))
		return cpu_load_sys(v, lin, 1, &val) || cpu_store_sys(v, lin, 1, (val | set) & (uint8_t)~clear) ? -1 : 0;
	if (set)
		__atomic_fetch_or((uint8_t *)r.hva, set, __ATOMIC_SEQ_CST);
	if (clear)
		__atomic_fetch_and((uint8_t *)r.hva, (uint8_t)~clear, __ATOMIC_SEQ_CST);
	cpu_rmw_close(v, &r, 1);
	return 0;
}

void cpu_alone_begin(struct vcpu *v)
{
	if (v->count > 1)
		mmu_exclusive_begin(&v->mmu);
}

void cpu_alone_end(struct vcpu *v)
{
	if (v->count > 1)
		mmu_exclusive_end(&v->mmu);
}

int cpu_fetch(struct vcpu *v, gva_t lin, uint8_t buf[16], unsigned *got, gpa_t *gpa)
{
	const unsigned want = 15;

	*got = 0;
	while (*got < want) {
		unsigned n = (unsigned)(PAGE_SIZE - (lin & PAGE_MASK));
		const uint8_t *f;
		struct mmu_walk w;
		uint32_t fault;

		if (!x86_canonical(lin))
			return *got ? 0 : cpu_gp0(v);
		fault = mmu_walk(&v->mmu, lin, MMU_FETCH, is_user(v), &w);
		if (fault)
			return *got ? 0 : cpu_raise_pf(v, lin, fault & ~MMU_FAULT);
		if (n > want - *got)
			n = want - *got;
		if (!*got)
			*gpa = w.gpa;
		/* Code in a device's registers: nothing answers, the bus floats. */
		f = mem_frame(v->mem, w.gpa >> PAGE_SHIFT, false);
		for (unsigned i = 0; i < n; i++)
			buf[*got + i] = f ? f[(w.gpa & PAGE_MASK) + i] : 0xff;
		*got += n;
		lin += n;
		if (!(v->efer & EFER_LMA))
			lin &= UINT32_MAX;
	}
	return 0;
}
