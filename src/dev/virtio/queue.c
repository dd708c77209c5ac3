/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Split and packed virtqueues, seen from the device, for a hostile guest.
 *
 * Invariant and locking: see queue.h.
 *
 * Barriers (D = device, here; G = driver, in the guest; both run on processors of one host, and the engines keep the guest's
 * own ordering):
 *   1. D loads avail.idx (packed: the descriptor's flags) with acquire, then the descriptors.
 *      G stores the descriptors, then avail.idx (flags) after a write barrier.
 *   2. D stores the used element, then used.idx (flags) with release.
 *      G loads used.idx (flags), then the element after a read barrier.
 *   3. D stores used.idx (flags), full barrier (in mem_written()), loads used_event / avail.flags / driver event suppression.
 *      G stores used_event / enables interrupts, full barrier, loads used.idx again.
 *      One of the two sees the other's store: no lost signal.
 *   4. D stores avail_event / used.flags / device event suppression, full barrier, loads avail.idx (flags) again
 *      (virtqueue_kicks_on()). G stores avail.idx, full barrier, loads avail_event. No lost kick.
 *
 * Spec: virtio 1.2, 2.7 (split), 2.8 (packed).
 */
#include "dev/virtio/queue.h"

#include <errno.h>
#include <linux/virtio_ring.h>
#include <stdlib.h>
#include <string.h>

enum { AVAIL_IDX = 2, AVAIL_RING = 4, USED_IDX = 2, USED_RING = 4, DESC_SIZE = 16 };
enum { PACKED_LEN = 8, PACKED_ID = 12, PACKED_FLAGS = 14, EVENT_OFF_WRAP = 0, EVENT_FLAGS = 2 };
#define PACKED_AVAIL (1u << VRING_PACKED_DESC_F_AVAIL)
#define PACKED_USED (1u << VRING_PACKED_DESC_F_USED)
#define EVENT_WRAP (1u << VRING_PACKED_EVENT_F_WRAP_CTR)
#define EVENT_OFF (EVENT_WRAP - 1)

/* A descriptor in the machine's byte order, which is the ring's. `id` is the packed ring's name for what split calls next. */
struct desc {
	uint64_t addr;
	uint32_t len;
	union {
		struct { uint16_t flags, next; };
		struct { uint16_t id, packed_flags; };
	};
};
static_assert(sizeof(struct desc) == DESC_SIZE, "descriptor");

/* --- ring fields: aligned (virtqueue_enable() saw to it), so none crosses a page ------------------------------------------ */

static int ring_load16(struct virtqueue *q, gpa_t gpa, uint16_t *out)
{
	const uint8_t *f = mem_frame(q->mem, gpa >> PAGE_SHIFT, false);

	if (!f)
		return -EFAULT;
	*out = __atomic_load_n((const uint16_t *)(f + (gpa & PAGE_MASK)), __ATOMIC_ACQUIRE);
	return 0;
}

static int ring_store16(struct virtqueue *q, gpa_t gpa, uint16_t val)
{
	uint8_t *f = mem_frame(q->mem, gpa >> PAGE_SHIFT, true);

	if (!f)
		return -EFAULT;
	__atomic_store_n((uint16_t *)(f + (gpa & PAGE_MASK)), val, __ATOMIC_RELEASE);
	return 0;
}

static int ring_store32(struct virtqueue *q, gpa_t gpa, uint32_t val)
{
	uint8_t *f = mem_frame(q->mem, gpa >> PAGE_SHIFT, true);

	if (!f)
		return -EFAULT;
	__atomic_store_n((uint32_t *)(f + (gpa & PAGE_MASK)), val, __ATOMIC_RELAXED);
	return 0;
}

/* An indirect table may lie anywhere, so this one may cross a page. */
static int desc_load(struct virtqueue *q, gpa_t gpa, struct desc *d)
{
	const uint8_t *f;

	if (gpa & (DESC_SIZE - 1))
		return mem_read(q->mem, gpa, d, sizeof(*d));
	f = mem_frame(q->mem, gpa >> PAGE_SHIFT, false);
	if (!f)
		return -EFAULT;
	memcpy(d, f + (gpa & PAGE_MASK), sizeof(*d));
	/* The compiler may not read guest memory again later in place of the copy. */
	__asm__ volatile("" : : : "memory");
	return 0;
}

/* Remembers why, once; the queue yields nothing from now on. */
static int bad(struct virtqueue *q, int err, const char *why)
{
	if (!q->broken) {
		q->broken = true;
		q->why = why;
	}
	return err;
}

/* --- chains --------------------------------------------------------------------------------------------------------------- */

int virtqueue_chain_init(struct virtqueue_chain *c, unsigned max)
{
	*c = (struct virtqueue_chain){.max = max};
	c->iov = calloc(max, sizeof(*c->iov));
	c->gpa = calloc(max, sizeof(*c->gpa));
	if (c->iov && c->gpa)
		return 0;
	virtqueue_chain_fini(c);
	return -ENOMEM;
}

void virtqueue_chain_fini(struct virtqueue_chain *c)
{
	free(c->iov);
	free(c->gpa);
	*c = (struct virtqueue_chain){0};
}

static void chain_clear(struct virtqueue_chain *c)
{
	c->r = (struct io_dma){.iov = c->iov, .gpa = c->gpa, .max = c->max};
	c->w = c->r;
}

/* Adds the buffer of one descriptor. `*writing`: a writable one has been seen. */
static int chain_add(struct virtqueue *q, struct virtqueue_chain *c, const struct desc *d, bool write, bool *writing)
{
	int err;

	if (*writing && !write)
		return bad(q, -EINVAL, "a readable descriptor after a writable one");
	if (write && !*writing) {
		*writing = true;
		c->w = (struct io_dma){.iov = c->iov + c->r.n, .gpa = c->gpa + c->r.n, .max = c->max - c->r.n};
	}
	if (d->len > q->max_bytes - c->r.bytes - (*writing ? c->w.bytes : 0))
		return bad(q, -E2BIG, "a chain longer than the device takes");
	if (q->unmapped)
		err = io_dma_note(write ? &c->w : &c->r, d->addr, d->len);
	else
		err = io_dma_map(q->mem, write ? &c->w : &c->r, d->addr, d->len, write);
	if (err == -E2BIG)
		return bad(q, err, "a chain of more pieces than the device takes");
	return err ? bad(q, err, "a descriptor of what is not memory") : 0;
}

/* An INDIRECT descriptor: the number of entries in its table. */
static int indirect_entries(struct virtqueue *q, const struct desc *d, uint32_t *n)
{
	if (!q->indirect)
		return bad(q, -EINVAL, "an indirect descriptor that was not negotiated");
	*n = d->len / DESC_SIZE;
	if (!*n || d->len % DESC_SIZE || *n > VIRTQUEUE_MAX_INDIRECT)
		return bad(q, -EINVAL, "an indirect table of a wrong size");
	return 0;
}

/* --- split ring ------------------------------------------------------------------------------------------------------------ */

/* Follows the chain at `head`; at most size + VIRTQUEUE_MAX_INDIRECT steps. */
static int split_walk(struct virtqueue *q, struct virtqueue_chain *c, uint16_t head)
{
	bool indirect = false, writing = false;
	uint32_t entries = q->size, left = q->size, i = head;
	gpa_t table = q->desc;
	struct desc d;
	int err;

	for (;;) {
		if (!left--)
			return bad(q, -ELOOP, "a chain that goes in circles");
		if (desc_load(q, table + (gpa_t)i * DESC_SIZE, &d) < 0)
			return bad(q, -EFAULT, "a descriptor table outside memory");
		if (d.flags & VRING_DESC_F_INDIRECT) {
			if (indirect || (d.flags & VRING_DESC_F_NEXT))
				return bad(q, -EINVAL, "an indirect descriptor where none may be");
			err = indirect_entries(q, &d, &entries);
			if (err)
				return err;
			indirect = true;
			table = d.addr;
			left = entries;
			i = 0;
			continue;
		}
		err = chain_add(q, c, &d, d.flags & VRING_DESC_F_WRITE, &writing);
		if (err || !(d.flags & VRING_DESC_F_NEXT))
			return err;
		if (d.next >= entries)
			return bad(q, -ERANGE, "a next index outside the table");
		i = d.next;
	}
}

/* Chains that wait: 0 to size, or -errno. Barrier 1. */
static int split_pending(struct virtqueue *q)
{
	uint16_t idx, n;

	if (ring_load16(q, q->driver + AVAIL_IDX, &idx) < 0)
		return bad(q, -EFAULT, "an available ring outside memory");
	n = idx - q->avail;
	return n > q->size ? bad(q, -ERANGE, "an available index that jumped") : n;
}

static int split_pop(struct virtqueue *q, struct virtqueue_chain *c)
{
	int n = split_pending(q), err;
	uint16_t head;

	if (n <= 0)
		return n;
	if (ring_load16(q, q->driver + AVAIL_RING + 2ull * (q->avail & (q->size - 1)), &head) < 0)
		return bad(q, -EFAULT, "an available ring outside memory");
	if (head >= q->size)
		return bad(q, -ERANGE, "a head outside the descriptor table");
	err = split_walk(q, c, head);
	if (err)
		return err;
	c->id = head;
	c->slots = 1;
	q->avail++;
	return 1;
}

/* Barriers 2 and, in mem_written(), the first half of 3. One index for all elements: the driver sees all or none. */
static int split_push(struct virtqueue *q, const struct virtqueue_used *u, unsigned n)
{
	for (unsigned i = 0; i < n; i++) {
		gpa_t elem = q->device + USED_RING + 8ull * ((q->used + i) & (q->size - 1));

		if (ring_store32(q, elem, u[i].id) < 0 || ring_store32(q, elem + 4, u[i].written) < 0)
			return -EFAULT;
	}
	if (ring_store16(q, q->device + USED_IDX, (uint16_t)(q->used + n)) < 0)
		return -EFAULT;
	mem_written(q->mem, q->device, USED_RING + 8ull * q->size);
	q->used += n;
	return 0;
}

static bool split_should_signal(struct virtqueue *q)
{
	uint16_t old = q->used - q->unsignalled, event, flags;

	if (!q->event_idx)
		return ring_load16(q, q->driver, &flags) == 0 && !(flags & VRING_AVAIL_F_NO_INTERRUPT);
	if (ring_load16(q, q->driver + AVAIL_RING + 2ull * q->size, &event) < 0)
		return false;
	return vring_need_event(event, q->used, old);
}

/* What the driver reads to decide whether to kick. With the event index "off" is an event that has passed already. */
static int split_set_kicks(struct virtqueue *q, bool on)
{
	gpa_t gpa = q->event_idx ? q->device + USED_RING + 8ull * q->size : q->device;
	int err;

	if (q->event_idx && !on)
		return 0;
	err = ring_store16(q, gpa, q->event_idx ? q->avail : on ? 0 : VRING_USED_F_NO_NOTIFY);
	mem_written(q->mem, gpa, 2);
	return err;
}

/* --- packed ring ------------------------------------------------------------------------------------------------------------ */

/* 1: the slot at `avail` is available, 0: not, -errno. Barrier 1. */
static int packed_pending(struct virtqueue *q)
{
	uint16_t flags;

	if (ring_load16(q, q->desc + (gpa_t)q->avail * DESC_SIZE + PACKED_FLAGS, &flags) < 0)
		return bad(q, -EFAULT, "a descriptor ring outside memory");
	return !!(flags & PACKED_AVAIL) == q->avail_wrap && !!(flags & PACKED_USED) != q->avail_wrap;
}

/* The entries of an indirect table follow each other; only WRITE means anything in them (2.8.8). */
static int packed_walk_table(struct virtqueue *q, struct virtqueue_chain *c, const struct desc *at)
{
	bool writing = false;
	uint32_t n;
	struct desc d;
	int err = indirect_entries(q, at, &n);

	for (uint32_t i = 0; !err && i < n; i++) {
		if (desc_load(q, at->addr + (gpa_t)i * DESC_SIZE, &d) < 0)
			return bad(q, -EFAULT, "an indirect table outside memory");
		err = chain_add(q, c, &d, d.packed_flags & VRING_DESC_F_WRITE, &writing);
	}
	return err;
}

static int packed_walk(struct virtqueue *q, struct virtqueue_chain *c)
{
	bool writing = false;
	uint16_t slot = q->avail;
	struct desc d;
	int err;

	for (c->slots = 1;; c->slots++) {
		if (desc_load(q, q->desc + (gpa_t)slot * DESC_SIZE, &d) < 0)
			return bad(q, -EFAULT, "a descriptor ring outside memory");
		if (d.packed_flags & VRING_DESC_F_INDIRECT) {
			if (c->slots > 1 || (d.packed_flags & VRING_DESC_F_NEXT))
				return bad(q, -EINVAL, "an indirect descriptor where none may be");
			c->id = d.id;
			return packed_walk_table(q, c, &d);
		}
		err = chain_add(q, c, &d, d.packed_flags & VRING_DESC_F_WRITE, &writing);
		if (err)
			return err;
		if (!(d.packed_flags & VRING_DESC_F_NEXT)) {
			c->id = d.id;
			return 0;
		}
		if (c->slots == q->size)
			return bad(q, -ELOOP, "a chain longer than the ring");
		slot = slot + 1 == q->size ? 0 : slot + 1;
	}
}

/* Moves a position in the ring; the wrap counter flips at its end. */
static void packed_advance(const struct virtqueue *q, uint16_t *slot, bool *wrap, uint16_t n)
{
	uint32_t to = (uint32_t)*slot + n;

	if (to >= q->size) {
		to -= q->size;
		*wrap = !*wrap;
	}
	*slot = (uint16_t)to;
}

static int packed_pop(struct virtqueue *q, struct virtqueue_chain *c)
{
	int n = packed_pending(q), err;

	if (n <= 0)
		return n;
	err = packed_walk(q, c);
	if (err)
		return err;
	packed_advance(q, &q->avail, &q->avail_wrap, c->slots);
	return 1;
}

/* Barriers 2 and 3: id and length first, the flags that make the slot used last. The flags of the first slot come after everything else:
 * the driver goes in order, so it sees all or none. */
static int packed_push(struct virtqueue *q, const struct virtqueue_used *u, unsigned n)
{
	gpa_t first = q->desc + (gpa_t)q->used * DESC_SIZE;
	uint16_t first_flags = 0;

	for (unsigned i = 0; i < n; i++) {
		gpa_t slot = q->desc + (gpa_t)q->used * DESC_SIZE;
		uint16_t flags = (q->used_wrap ? PACKED_AVAIL | PACKED_USED : 0) | (u[i].written ? VRING_DESC_F_WRITE : 0);

		if (ring_store32(q, slot + PACKED_LEN, u[i].written) < 0 || ring_store16(q, slot + PACKED_ID, u[i].id) < 0)
			return -EFAULT;
		if (i == 0)
			first_flags = flags;
		else if (ring_store16(q, slot + PACKED_FLAGS, flags) < 0)
			return -EFAULT;
		packed_advance(q, &q->used, &q->used_wrap, u[i].slots);
	}
	if (ring_store16(q, first + PACKED_FLAGS, first_flags) < 0)
		return -EFAULT;
	mem_written(q->mem, q->desc, (uint64_t)q->size * DESC_SIZE);
	return 0;
}

/* 2.8.14: the driver names a slot and a wrap counter; a position of the other lap lies `size` before. */
static bool packed_should_signal(struct virtqueue *q)
{
	uint16_t flags, off_wrap, event;

	if (ring_load16(q, q->driver + EVENT_FLAGS, &flags) < 0)
		return false;
	flags &= 3;
	if (flags != VRING_PACKED_EVENT_FLAG_DESC || !q->event_idx)
		return flags != VRING_PACKED_EVENT_FLAG_DISABLE;
	if (ring_load16(q, q->driver + EVENT_OFF_WRAP, &off_wrap) < 0)
		return false;
	event = off_wrap & EVENT_OFF;
	if (!!(off_wrap & EVENT_WRAP) != q->used_wrap)
		event -= q->size;
	return vring_need_event(event, q->used, q->used - q->unsignalled);
}

static int packed_set_kicks(struct virtqueue *q, bool on)
{
	uint16_t flags = on ? VRING_PACKED_EVENT_FLAG_ENABLE : VRING_PACKED_EVENT_FLAG_DISABLE;
	int err = 0;

	if (on && q->event_idx) {
		err = ring_store16(q, q->device + EVENT_OFF_WRAP, q->avail | (q->avail_wrap ? EVENT_WRAP : 0));
		flags = VRING_PACKED_EVENT_FLAG_DESC;
	}
	if (!err)
		err = ring_store16(q, q->device + EVENT_FLAGS, flags);
	mem_written(q->mem, q->device, 4);
	return err;
}

/* --- both ------------------------------------------------------------------------------------------------------------------ */

void virtqueue_reset(struct virtqueue *q)
{
	*q = (struct virtqueue){
		.mem = q->mem, .size = q->size_max, .size_max = q->size_max, .max_bytes = q->max_bytes, .unmapped = q->unmapped,
		.chains = q->chains, .kicks = q->kicks, .signals = q->signals, .avail_wrap = true, .used_wrap = true,
	};
}

int virtqueue_enable(struct virtqueue *q)
{
	gpa_t driver_align = q->packed ? 3 : 1, device_align = 3;

	if (!q->size || q->size > q->size_max || (!q->packed && (q->size & (q->size - 1))))
		return -EINVAL;
	if ((q->desc & (DESC_SIZE - 1)) || (q->driver & driver_align) || (q->device & device_align))
		return -EINVAL;
	q->enabled = true;
	return 0;
}

int virtqueue_pop(struct virtqueue *q, struct virtqueue_chain *c)
{
	int n;

	if (!q->enabled || q->broken)
		return 0;
	chain_clear(c);
	n = q->packed ? packed_pop(q, c) : split_pop(q, c);
	q->chains += n > 0;
	return n;
}

bool virtqueue_pending(struct virtqueue *q)
{
	if (!q->enabled || q->broken)
		return false;
	return (q->packed ? packed_pending(q) : split_pending(q)) > 0;
}

void virtqueue_unpop(struct virtqueue *q, const struct virtqueue_chain *c)
{
	q->chains--;
	if (!q->packed) {
		q->avail--;
		return;
	}
	if (q->avail < c->slots) {
		q->avail += q->size;
		q->avail_wrap = !q->avail_wrap;
	}
	q->avail -= c->slots;
}

void virtqueue_push_all(struct virtqueue *q, const struct virtqueue_used *u, unsigned n)
{
	int err;

	if (!q->enabled || q->broken || !n)
		return;
	err = q->packed ? packed_push(q, u, n) : split_push(q, u, n);
	if (err) {
		(void)bad(q, err, "a used ring outside memory");
		return;
	}
	for (unsigned i = 0; i < n; i++) {
		if (q->unsignalled > q->size)
			q->signal_always = true;
		else
			q->unsignalled += u[i].slots;
	}
}

void virtqueue_push(struct virtqueue *q, const struct virtqueue_chain *c, uint32_t written)
{
	const struct virtqueue_used u = {.id = c->id, .slots = c->slots, .written = written};

	virtqueue_push_all(q, &u, 1);
}

bool virtqueue_should_signal(struct virtqueue *q)
{
	bool want;

	if (!q->enabled || q->broken || !q->unsignalled)
		return false;
	/* mem_written() in push was the full barrier 3. */
	want = q->signal_always || (q->packed ? packed_should_signal(q) : split_should_signal(q));
	q->unsignalled = 0;
	q->signal_always = false;
	q->signals += want;
	return want;
}

/* Barrier 4 is the one in mem_written(). */
static void set_kicks(struct virtqueue *q, bool on)
{
	int err = q->packed ? packed_set_kicks(q, on) : split_set_kicks(q, on);

	q->kicks_off = !on;
	if (err)
		(void)bad(q, err, "a used ring outside memory");
}

void virtqueue_kicks_off(struct virtqueue *q)
{
	if (q->enabled && !q->broken && !q->kicks_off)
		set_kicks(q, false);
}

bool virtqueue_kicks_on(struct virtqueue *q)
{
	if (!q->enabled || q->broken)
		return false;
	set_kicks(q, true);
	return virtqueue_pending(q);
}
