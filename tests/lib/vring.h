/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The other side of a virtqueue: a small driver over guest memory, for unit tests and fuzzers. Written from the specification, not
 * from queue.c: its own idea of layouts and positions is what the device is checked against.
 *
 * Guest memory is VRING_RAM bytes in one host extent, so the model uses a plain pointer. Rings lie at the addresses in struct vdrv.
 */
#ifndef TESTS_LIB_VRING_H
#define TESTS_LIB_VRING_H

#include <linux/virtio_ring.h>
#include <stdlib.h>
#include <string.h>

#include "mem/mem.h"

#define VRING_RAM (2ull << 20)

struct vdrv {
	uint8_t *ram;
	gpa_t desc, driver, device;
	gpa_t tables;              /* an indirect table per id: 64 entries each */
	uint16_t size;
	bool packed, event_idx, indirect;
	uint16_t next, seen;       /* avail.idx and the last used.idx seen (split); slots (packed) */
	bool next_wrap, seen_wrap;
	uint16_t nfree, free[1024];/* ids */
	uint16_t slots[1024];      /* by id: descriptors of its chain */
	uint16_t link[1024];       /* split: free descriptors behind a head are ids themselves */
	uint16_t unkicked;
};

struct vbuf {
	gpa_t gpa;
	uint32_t len;
	bool write;
};

static inline void *vat(struct vdrv *d, gpa_t gpa) { return d->ram + gpa; }
static inline uint16_t *v16(struct vdrv *d, gpa_t gpa) { return vat(d, gpa); }
static inline uint32_t *v32(struct vdrv *d, gpa_t gpa) { return vat(d, gpa); }

/* Rings at desc, driver and device; only what they occupy is cleared. */
static inline void vdrv_init_at(struct vdrv *d, struct mem *m, uint16_t size, bool packed, bool event_idx, bool indirect,
				gpa_t desc, gpa_t driver, gpa_t device)
{
	*d = (struct vdrv){.ram = mem_frame(m, 0, true), .desc = desc, .driver = driver, .device = device, .tables = 0x40000,
			   .size = size, .packed = packed, .event_idx = event_idx, .indirect = indirect, .next_wrap = true,
			   .seen_wrap = true};
	memset(vat(d, d->desc), 0, 16 * size);
	memset(vat(d, d->driver), 0, 6 + 2 * size);
	memset(vat(d, d->device), 0, 6 + 8 * size);
	for (uint16_t i = 0; i < size; i++)
		d->free[d->nfree++] = size - 1 - i;
}

static inline void vdrv_init(struct vdrv *d, struct mem *m, uint16_t size, bool packed, bool event_idx, bool indirect)
{
	vdrv_init_at(d, m, size, packed, event_idx, indirect, 0x10000, 0x20000, 0x30000);
}

/* One descriptor; `last4`: flags and next (split), id and flags (packed). */
static inline void vdesc(struct vdrv *d, gpa_t at, uint64_t addr, uint32_t len, uint16_t a, uint16_t b)
{
	memcpy(vat(d, at), &addr, 8);
	*v32(d, at + 8) = len;
	*v16(d, at + 12) = a;
	*v16(d, at + 14) = b;
}

static inline uint16_t vpacked_flags(const struct vdrv *d, bool wrap)
{
	(void)d;
	return wrap ? 1u << 7 : 1u << 15;
}

static inline void vdrv_table(struct vdrv *d, uint16_t id, const struct vbuf *b, unsigned n)
{
	for (unsigned i = 0; i < n; i++) {
		uint16_t flags = (b[i].write ? 2 : 0) | (i + 1 < n && !d->packed ? 1 : 0);
		gpa_t at = d->tables + 1024ull * id + 16 * i;

		if (d->packed)
			vdesc(d, at, b[i].gpa, b[i].len, 0, flags);
		else
			vdesc(d, at, b[i].gpa, b[i].len, flags, i + 1);
	}
}

static inline void vdrv_add_split(struct vdrv *d, uint16_t id, const struct vbuf *b, unsigned n, bool table)
{
	uint16_t at = id;

	if (table) {
		vdrv_table(d, id, b, n);
		vdesc(d, d->desc + 16 * id, d->tables + 1024ull * id, 16 * n, 4, 0xdead);
		n = 1;
	}
	for (unsigned i = 0; !table && i < n; i++) {
		uint16_t next = i + 1 < n ? d->free[--d->nfree] : 0xffff;

		vdesc(d, d->desc + 16 * at, b[i].gpa, b[i].len, (b[i].write ? 2 : 0) | (i + 1 < n ? 1 : 0), next);
		d->link[at] = next;
		at = next;
	}
	d->slots[id] = n;
	*v16(d, d->driver + 4 + 2 * (d->next % d->size)) = id;
	d->next++;
	__atomic_store_n(v16(d, d->driver + 2), d->next, __ATOMIC_SEQ_CST);
	d->unkicked++;
}

static inline void vdrv_add_packed(struct vdrv *d, uint16_t id, const struct vbuf *b, unsigned n, bool table)
{
	uint16_t first = d->next, first_flags = 0;
	unsigned total = n;

	if (table) {
		vdrv_table(d, id, b, n);
		total = 1;
	}
	for (unsigned i = 0; i < total; i++) {
		uint16_t flags = vpacked_flags(d, d->next_wrap);
		gpa_t at = d->desc + 16ull * d->next;

		flags |= table ? 4 : (b[i].write ? 2 : 0) | (i + 1 < total ? 1 : 0);
		vdesc(d, at, table ? d->tables + 1024ull * id : b[i].gpa, table ? 16 * n : b[i].len, id, i ? flags : *v16(d, at + 14));
		if (!i)
			first_flags = flags;
		if (++d->next == d->size) {
			d->next = 0;
			d->next_wrap = !d->next_wrap;
		}
	}
	__atomic_store_n(v16(d, d->desc + 16ull * first + 14), first_flags, __ATOMIC_SEQ_CST);
	/* The other descriptors of the chain occupy slots, not ids: those are taken to keep the count of free slots. */
	for (unsigned i = 1; i < total; i++) {
		d->link[i == 1 ? id : d->free[d->nfree]] = d->free[d->nfree - 1];
		d->nfree--;
	}
	d->slots[id] = total;
	d->unkicked += total;
}

/* Makes a chain available; readable buffers first. The id, or -1 if the ring is full. */
static inline int vdrv_add(struct vdrv *d, const struct vbuf *b, unsigned n, bool table)
{
	unsigned need = table ? 1 : n;
	uint16_t id;

	if (d->nfree < need)
		return -1;
	id = d->free[--d->nfree];
	if (d->packed)
		vdrv_add_packed(d, id, b, n, table);
	else
		vdrv_add_split(d, id, b, n, table);
	return id;
}

/* Takes a used chain. False if there is none. */
static inline bool vdrv_take(struct vdrv *d, uint16_t *id, uint32_t *len)
{
	if (!d->packed) {
		gpa_t elem = d->device + 4 + 8 * (d->seen % d->size);

		if (__atomic_load_n(v16(d, d->device + 2), __ATOMIC_SEQ_CST) == d->seen)
			return false;
		*id = (uint16_t)*v32(d, elem);
		*len = *v32(d, elem + 4);
		d->seen++;
	} else {
		gpa_t at = d->desc + 16ull * d->seen;
		uint16_t flags = __atomic_load_n(v16(d, at + 14), __ATOMIC_SEQ_CST);

		if (!!(flags & 1u << 7) != d->seen_wrap || !!(flags & 1u << 15) != d->seen_wrap)
			return false;
		*id = *v16(d, at + 12);
		*len = *v32(d, at + 8);
		d->seen += d->slots[*id % d->size];
		if (d->seen >= d->size) {
			d->seen -= d->size;
			d->seen_wrap = !d->seen_wrap;
		}
	}
	return true;
}

/* Puts the ids of a taken chain back. */
static inline void vdrv_free(struct vdrv *d, uint16_t id)
{
	for (uint16_t n = d->slots[id]; n; n--) {
		uint16_t next = d->link[id];

		d->free[d->nfree++] = id;
		id = next;
	}
}

/* Does the device want a kick for what was added since the last question? */
static inline bool vdrv_should_kick(struct vdrv *d)
{
	uint16_t n = d->unkicked, event, flags, old = d->next - n;

	d->unkicked = 0;
	if (!d->packed) {
		if (!d->event_idx)
			return !(*v16(d, d->device) & 1);
		return vring_need_event(*v16(d, d->device + 4 + 8 * d->size), d->next, old);
	}
	flags = *v16(d, d->device + 2);
	if (flags != 2)
		return flags != 1;
	event = *v16(d, d->device) & 0x7fff;
	if (!!(*v16(d, d->device) & 0x8000) != d->next_wrap)
		event -= d->size;
	return vring_need_event(event, d->next, old);
}

/* Signals wanted: at the next used chain, or never. */
static inline void vdrv_arm(struct vdrv *d, bool on)
{
	if (!d->packed) {
		*v16(d, d->driver) = on || d->event_idx ? 0 : 1;
		if (d->event_idx)
			*v16(d, d->driver + 4 + 2 * d->size) = on ? d->seen : d->seen - 1;
	} else {
		*v16(d, d->driver) = d->seen | (d->seen_wrap ? 0x8000 : 0);
		*v16(d, d->driver + 2) = !on ? 1 : d->event_idx ? 2 : 0;
	}
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
}

#endif
