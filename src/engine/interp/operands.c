/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The slow sides of operand access: watched accesses (data breakpoints, alignment checks), read-modify-write that the flat
 * tables cannot serve, operands of odd lengths.
 *
 * Spec: SDM vol. 3B 17.2.4, 17.3.1.2 (data breakpoints), vol. 3A 6.15 #AC.
 */
#include "engine/interp/operands.h"

/* DR7: two enable bits per breakpoint, then 2 bits R/W and 2 bits LEN each from bit 16. */
static bool dr_matches(const struct vcpu *v, unsigned n, gva_t lin, unsigned size, bool write)
{
	static const uint8_t lens[4] = {1, 2, 8, 4};
	unsigned rw = (v->dr7 >> (16 + n * 4)) & 3, len = lens[(v->dr7 >> (18 + n * 4)) & 3];
	uint64_t start = v->dr[n] & ~(uint64_t)(len - 1);

	if (!((v->dr7 >> (n * 2)) & 3) || !(rw == 3 || (rw == 1 && write)))
		return false;
	return lin < start + len && start < lin + size;
}

int mem_watch(struct vcpu *v, gva_t lin, unsigned size, bool write)
{
	if (cpu_align_check(v) && size <= 8 && (lin & (size - 1)) && !(size & (size - 1)))
		return cpu_raise_err(v, VEC_AC, 0);
	for (unsigned n = 0; n < 4; n++)
		if (dr_matches(v, n, lin, size, write))
			interp_of(v)->db_hits |= 1u << n;
	return 0;
}

int rmw_open_slow(struct vcpu *v, gva_t lin, unsigned size, struct rmw *m, uint64_t *old)
{
	m->slowly = true;
	if (cpu_rmw_open(v, lin, size, &m->slow))
		return -1;
	m->p = m->slow.hva;
	if (m->p) {
		*old = host_get(m->p, size);
		return 0;
	}
	/* No instruction of the host does this in one, so nobody else may run. Whatever was true before may not be any more: the
	 * probe makes a fault report a write and come before the read. */
	cpu_alone_begin(v);
	if (cpu_probe_write(v, lin, size) || cpu_load(v, lin, size, old)) {
		cpu_alone_end(v);
		return -1;
	}
	return 0;
}

void rmw_close_slow(struct vcpu *v, struct rmw *m, unsigned size)
{
	if (m->p)
		cpu_rmw_close(v, &m->slow, size);
	else
		cpu_alone_end(v);
}

/* Short and by hand: memcpy() may become a call (sanitizers intercept it), and libc uses the live vector registers. */
static inline void copy(void *dst, const void *src, unsigned len)
{
	any_u64 *d = dst;
	const any_u64 *s = src;
	unsigned i;

	for (i = 0; i + 8 <= len; i += 8)
		*(volatile any_u64 *)d++ = *s++;
	for (; i < len; i++)
		((volatile uint8_t *)dst)[i] = ((const uint8_t *)src)[i];
}

int mem_load_buf(struct vcpu *v, gva_t lin, void *buf, unsigned len)
{
	const uint8_t *p;

	if (unlikely(mem_watched(v)) && mem_watch(v, lin, len, false))
		return -1;
	p = flat_ptr(v, v->mmu.cur->r, lin, len);
	if (!p)
		return cpu_load_buf(v, lin, buf, len);
	copy(buf, p, len);
	return 0;
}

int mem_store_buf(struct vcpu *v, gva_t lin, const void *buf, unsigned len)
{
	uint8_t *p;

	if (unlikely(mem_watched(v)) && mem_watch(v, lin, len, true))
		return -1;
	p = flat_ptr(v, v->mmu.cur->w, lin, len);
	if (!p || v->journal)
		return cpu_store_buf(v, lin, buf, len);
	copy(p, buf, len);
	return 0;
}
