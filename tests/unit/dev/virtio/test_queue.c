/* SPDX-License-Identifier: Apache-2.0 */
/* Virtqueues against a model driver: both layouts, indirect tables, suppression of kicks and signals, rings that break the rules. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "dev/virtio/queue.h"
#include "mem/mmu.h"
#include "vring.h"

#define PIECES 64
#define BUF(n) (0x100000 + (n) * 0x1000ull)

struct ring {
	struct mem *mem;
	struct virtqueue q;
	struct virtqueue_chain c;
	struct vdrv d;
};

static void ring_start(struct ring *r, uint16_t size, bool packed, bool event_idx)
{
	vdrv_init(&r->d, r->mem, size, packed, event_idx, true);
	virtqueue_reset(&r->q);
	r->q.size = size;
	r->q.packed = packed;
	r->q.event_idx = event_idx;
	r->q.indirect = true;
	r->q.desc = r->d.desc;
	r->q.driver = r->d.driver;
	r->q.device = r->d.device;
	assert_int_equal(virtqueue_enable(&r->q), 0);
}

static void ring_create(struct ring *r)
{
	*r = (struct ring){0};
	assert_int_equal(mem_create(&r->mem, 4 << 20, 4 << 8), 0);
	assert_int_equal(mem_add_ram(r->mem, 0, VRING_RAM), 0);
	assert_int_equal(virtqueue_chain_init(&r->c, PIECES), 0);
	r->q = (struct virtqueue){.mem = r->mem, .size_max = 256, .max_bytes = 1 << 20};
}

static void ring_destroy(struct ring *r)
{
	virtqueue_chain_fini(&r->c);
	mem_destroy(r->mem);
}

static uint64_t rnd(uint64_t *s)
{
	*s ^= *s << 13;
	*s ^= *s >> 7;
	*s ^= *s << 17;
	return *s;
}

/* Thousands of chains of random shape, given back out of order, through many laps; every byte and length is checked. */
static void soak(struct ring *r, uint16_t size, bool packed, bool event_idx)
{
	uint64_t seed = 88172645463325252ull + size + packed;
	struct { bool used; struct virtqueue_chain c; uint32_t want; } held[8] = {0};
	uint32_t expect[1024] = {0};
	unsigned done = 0;

	ring_start(r, size, packed, event_idx);
	for (unsigned step = 0; step < 40000; step++) {
		unsigned h = rnd(&seed) % nitems(held);
		struct vbuf b[4];
		uint16_t id;
		uint32_t len;

		if (rnd(&seed) & 1) {
			unsigned n = 1 + rnd(&seed) % 4, nread = rnd(&seed) % (n + 1);
			bool table = rnd(&seed) & 1;
			int got;

			for (unsigned i = 0; i < n; i++)
				b[i] = (struct vbuf){BUF(rnd(&seed) % 64) + rnd(&seed) % 64, 1 + rnd(&seed) % 5000, i >= nread};
			got = vdrv_add(&r->d, b, n, table);
			if (got >= 0) {
				expect[got] = 0;
				for (unsigned i = 0; i < n; i++)
					expect[got] += b[i].len << (b[i].write ? 16 : 0);
			}
		}
		if (!held[h].used) {
			int n = virtqueue_pop(&r->q, &r->c);

			assert_in_range(n, 0, 1);
			held[h].used = n;
			held[h].c = r->c;
			if (n)
				assert_int_equal((uint32_t)(r->c.r.bytes + (r->c.w.bytes << 16)), expect[r->c.id]);
		} else {
			held[h].used = false;
			held[h].want = (uint32_t)rnd(&seed) | 1;
			expect[held[h].c.id] = held[h].want;
			virtqueue_push(&r->q, &held[h].c, held[h].want);
		}
		while (vdrv_take(&r->d, &id, &len)) {
			assert_int_equal(len, expect[id]);
			vdrv_free(&r->d, id);
			done++;
		}
	}
	assert_true(done > 2000);
	assert_false(r->q.broken);
}

static void test_soak(void **state)
{
	static const uint16_t sizes[] = {1, 2, 8, 128, 256};
	struct ring r;

	(void)state;
	ring_create(&r);
	for (unsigned i = 0; i < nitems(sizes); i++)
		for (unsigned k = 0; k < 4; k++)
			soak(&r, sizes[i], k & 1, k & 2);
	soak(&r, 7, true, true); /* a packed ring may have any size */
	ring_destroy(&r);
}

static void test_data(void **state)
{
	struct ring r;
	char text[32] = {0};
	struct vbuf b[] = {{BUF(1) - 4, 8, false}, {BUF(3), 2, false}, {BUF(4) - 1, 2, true}, {BUF(8), 4, true}};

	(void)state;
	ring_create(&r);
	for (unsigned packed = 0; packed < 2; packed++) {
		ring_start(&r, 8, packed, false);
		memcpy(r.d.ram + BUF(1) - 4, "abcdefgh", 8);
		memcpy(r.d.ram + BUF(3), "ij", 2);
		assert_true(vdrv_add(&r.d, b, 4, packed) >= 0);
		assert_int_equal(virtqueue_pop(&r.q, &r.c), 1);
		assert_int_equal(r.c.r.bytes, 10);
		assert_int_equal(r.c.w.bytes, 6);
		assert_int_equal(io_dma_read(&r.c.r, 3, text, sizeof(text)), 7);
		assert_string_equal(text, "defghij");
		io_dma_trim_front(&r.c.r, 9);
		assert_int_equal(r.c.r.n, 1);
		assert_int_equal(r.c.r.gpa[0], BUF(3) + 1);
		assert_int_equal(io_dma_write(r.mem, &r.c.w, 1, "WXYZ12345", 9), 5);
		assert_memory_equal(r.d.ram + BUF(8), "XYZ1", 4);
		assert_int_equal(r.d.ram[BUF(4)], 'W');
		io_dma_trim_back(&r.c.w, 5);
		assert_int_equal(r.c.w.bytes, 1);
		assert_int_equal(r.c.w.n, 1);
		memset(text, 0, sizeof(text));
	}
	ring_destroy(&r);
}

/* No kick and no signal is lost, and none is sent that was declined. */
static void suppression(struct ring *r, bool packed, bool event_idx)
{
	struct vbuf b = {BUF(0), 16, true};
	uint16_t id;
	uint32_t len;

	ring_start(r, 8, packed, event_idx);
	assert_false(virtqueue_kicks_on(&r->q));
	for (unsigned lap = 0; lap < 100; lap++) {
		vdrv_arm(&r->d, lap & 1);
		assert_true(vdrv_add(&r->d, &b, 1, false) >= 0);
		assert_true(vdrv_should_kick(&r->d));
		virtqueue_kicks_off(&r->q);
		assert_true(vdrv_add(&r->d, &b, 1, false) >= 0);
		assert_false(vdrv_should_kick(&r->d));
		assert_int_equal(virtqueue_pop(&r->q, &r->c), 1);
		virtqueue_push(&r->q, &r->c, 1);
		assert_true(virtqueue_kicks_on(&r->q)); /* the second one, for which there was no kick */
		assert_int_equal(virtqueue_pop(&r->q, &r->c), 1);
		assert_false(virtqueue_pending(&r->q));
		assert_false(virtqueue_kicks_on(&r->q));
		virtqueue_push(&r->q, &r->c, 1);
		assert_int_equal(virtqueue_should_signal(&r->q), lap & 1);
		assert_false(virtqueue_should_signal(&r->q)); /* nothing new */
		while (vdrv_take(&r->d, &id, &len))
			vdrv_free(&r->d, id);
	}
}

static void test_suppression(void **state)
{
	struct ring r;

	(void)state;
	ring_create(&r);
	for (unsigned k = 0; k < 4; k++)
		suppression(&r, k & 1, k & 2);
	ring_destroy(&r);
}

/* An event index three chains ahead: the signal comes with the third. */
static void test_event_ahead(void **state)
{
	struct vbuf b = {BUF(0), 16, true};
	struct ring r;

	(void)state;
	ring_create(&r);
	for (unsigned packed = 0; packed < 2; packed++) {
		ring_start(&r, 8, packed, true);
		if (packed) {
			*v16(&r.d, r.d.driver) = 2 | 0x8000;
			*v16(&r.d, r.d.driver + 2) = 2;
		} else {
			*v16(&r.d, r.d.driver + 4 + 16) = 2;
		}
		for (unsigned i = 0; i < 5; i++) {
			assert_true(vdrv_add(&r.d, &b, 1, false) >= 0);
			assert_int_equal(virtqueue_pop(&r.q, &r.c), 1);
			virtqueue_push(&r.q, &r.c, 1);
			assert_int_equal(virtqueue_should_signal(&r.q), i == 2);
		}
	}
	ring_destroy(&r);
}

static void test_unpop(void **state)
{
	struct vbuf b[] = {{BUF(0), 16, false}, {BUF(1), 16, true}, {BUF(2), 16, true}};
	struct ring r;
	uint16_t id = 0;
	uint32_t len;

	(void)state;
	ring_create(&r);
	for (unsigned packed = 0; packed < 2; packed++) {
		ring_start(&r, 4, packed, false);
		for (unsigned i = 0; i < 20; i++) {
			int want = vdrv_add(&r.d, b, 3, false);

			assert_int_equal(virtqueue_pop(&r.q, &r.c), 1);
			virtqueue_unpop(&r.q, &r.c);
			assert_true(virtqueue_pending(&r.q));
			assert_int_equal(virtqueue_pop(&r.q, &r.c), 1);
			assert_int_equal(r.c.id, want);
			virtqueue_push(&r.q, &r.c, 32);
			assert_true(vdrv_take(&r.d, &id, &len));
			vdrv_free(&r.d, id);
		}
	}
	ring_destroy(&r);
}

/* --- hostile rings ----------------------------------------------------------------------------------------------------------- */

enum { NEXT = 1, WRITE = 2, INDIRECT = 4 };

static void expect_broken(struct ring *r)
{
	assert_true(virtqueue_pop(&r->q, &r->c) < 0);
	assert_true(r->q.broken);
	assert_non_null(r->q.why);
	assert_int_equal(virtqueue_pop(&r->q, &r->c), 0);
	assert_false(virtqueue_pending(&r->q));
	virtqueue_push(&r->q, &r->c, 1);
	assert_false(virtqueue_should_signal(&r->q));
}

struct row {
	uint64_t addr;
	uint32_t len;
	uint16_t flags, next;
};

/* One chain in a split ring of 8 whose descriptors 0.. are given as rows. */
static void split_chain(struct ring *r, unsigned n, const struct row *row, uint16_t head)
{
	ring_start(r, 8, false, false);
	for (unsigned i = 0; i < n; i++)
		vdesc(&r->d, r->d.desc + 16 * i, row[i].addr, row[i].len, row[i].flags, row[i].next);
	*v16(&r->d, r->d.driver + 4) = head;
	*v16(&r->d, r->d.driver + 2) = 1;
}
#define SPLIT(head, ...)                                                                                                       \
	do {                                                                                                                   \
		const struct row row_[] = {__VA_ARGS__};                                                                       \
		split_chain(&r, nitems(row_), row_, head);                                                       \
	} while (0)

static void test_hostile_split(void **state)
{
	struct ring r;

	(void)state;
	ring_create(&r);
	SPLIT(8, {BUF(0), 1, 0, 0});                                               /* head outside */
	expect_broken(&r);
	SPLIT(0, {BUF(0), 1, NEXT, 8});                                            /* next outside */
	expect_broken(&r);
	SPLIT(0, {BUF(0), 1, NEXT, 0});                                            /* circles */
	expect_broken(&r);
	SPLIT(0, {BUF(0), 0, NEXT, 1}, {BUF(0), 0, NEXT, 0});                      /* circles of nothing */
	expect_broken(&r);
	SPLIT(0, {BUF(0), 1, NEXT | WRITE, 1}, {BUF(1), 1, 0, 0});                 /* readable after writable */
	expect_broken(&r);
	SPLIT(0, {BUF(0), 0, NEXT | WRITE, 1}, {BUF(1), 1, 0, 0});                 /* the same, of no length */
	expect_broken(&r);
	SPLIT(0, {VRING_RAM, 1, 0, 0});                                            /* no memory */
	expect_broken(&r);
	SPLIT(0, {VRING_RAM - 1, 2, 0, 0});                                        /* runs out of memory */
	expect_broken(&r);
	SPLIT(0, {UINT64_MAX, 2, 0, 0});                                           /* wraps */
	expect_broken(&r);
	SPLIT(0, {0xfee00000, 4, WRITE, 0});                                       /* a register */
	expect_broken(&r);
	SPLIT(0, {BUF(0), 0xffffffff, 0, 0});                                      /* longer than the device takes */
	expect_broken(&r);
	SPLIT(0, {BUF(0), 1 << 19, NEXT, 1}, {0, 1 << 19, NEXT, 2}, {0, 1, 0, 0}); /* in sum */
	expect_broken(&r);
	SPLIT(0, {BUF(0), 16, INDIRECT | NEXT, 1}, {BUF(1), 1, 0, 0});             /* indirect with next */
	expect_broken(&r);
	SPLIT(0, {BUF(0), 24, INDIRECT, 0});                                       /* a table and a half */
	expect_broken(&r);
	SPLIT(0, {BUF(0), 0, INDIRECT, 0});                                        /* an empty table */
	expect_broken(&r);
	SPLIT(0, {BUF(0), 16 * (VIRTQUEUE_MAX_INDIRECT + 1), INDIRECT, 0});        /* a long one */
	expect_broken(&r);
	SPLIT(0, {VRING_RAM - 8, 16, INDIRECT, 0});                                /* one that runs out of memory */
	expect_broken(&r);
	SPLIT(0, {BUF(0), 16, INDIRECT, 0});                                       /* a table in a table */
	vdesc(&r.d, BUF(0), BUF(1), 16, INDIRECT, 0);
	expect_broken(&r);
	SPLIT(0, {BUF(0), 32, INDIRECT, 0});                                       /* circles in a table */
	vdesc(&r.d, BUF(0), BUF(1), 1, NEXT, 1);
	vdesc(&r.d, BUF(0) + 16, BUF(1), 1, NEXT, 0);
	expect_broken(&r);
	SPLIT(0, {BUF(0), 16, INDIRECT, 0});
	r.q.indirect = false;                                                      /* not negotiated */
	expect_broken(&r);
	SPLIT(0, {BUF(0), 1, 0, 0});
	*v16(&r.d, r.d.driver + 2) = 9;                                            /* index jumped */
	expect_broken(&r);
	SPLIT(0, {BUF(0), 1, 0, 0});
	r.q.driver = VRING_RAM;
	expect_broken(&r);
	SPLIT(0, {BUF(0), 1, 0, 0});
	r.q.desc = 1ull << 60;
	expect_broken(&r);
	SPLIT(0, {BUF(0), 1, 0, 0});
	r.q.device = VRING_RAM; /* nowhere to give it back to */
	assert_int_equal(virtqueue_pop(&r.q, &r.c), 1);
	virtqueue_push(&r.q, &r.c, 0);
	assert_true(r.q.broken);
	ring_destroy(&r);
}

static void test_pieces(void **state)
{
	struct ring r;
	struct vbuf b[65];

	(void)state;
	ring_create(&r);
	for (unsigned packed = 0; packed < 2; packed++) {
		for (unsigned i = 0; i < 65; i++)
			b[i] = (struct vbuf){BUF(2 * i % 200), 1, i > 32};
		ring_start(&r, 128, packed, false);
		assert_true(vdrv_add(&r.d, b, 64, false) >= 0);
		assert_int_equal(virtqueue_pop(&r.q, &r.c), 1);
		assert_int_equal(r.c.r.n, 33);
		assert_int_equal(r.c.w.n, 31);
		assert_int_equal(vdrv_add(&r.d, b, 65, false), -1); /* the model's own check */
		ring_start(&r, 128, packed, false);
		assert_true(vdrv_add(&r.d, b, 65, false) >= 0);
		expect_broken(&r);
	}
	ring_destroy(&r);
}

static void packed_slot(struct ring *r, unsigned slot, uint64_t addr, uint32_t len, uint16_t flags)
{
	vdesc(&r->d, r->d.desc + 16 * slot, addr, len, 77, flags | 1u << 7);
}

static void test_hostile_packed(void **state)
{
	struct ring r;

	(void)state;
	ring_create(&r);
	ring_start(&r, 4, true, false);
	packed_slot(&r, 0, BUF(0), 1, 1u << 15); /* both bits: a used descriptor of this lap, so nothing is available */
	assert_int_equal(virtqueue_pop(&r.q, &r.c), 0);
	for (unsigned i = 0; i < 4; i++)
		packed_slot(&r, i, BUF(0), 1, NEXT); /* a chain longer than the ring */
	expect_broken(&r);
	ring_start(&r, 4, true, false);
	packed_slot(&r, 0, BUF(0), 1, NEXT);
	packed_slot(&r, 1, BUF(0), 16, INDIRECT);
	expect_broken(&r);
	ring_start(&r, 4, true, false);
	packed_slot(&r, 0, BUF(0), 16, INDIRECT | NEXT);
	expect_broken(&r);
	ring_start(&r, 4, true, false);
	packed_slot(&r, 0, BUF(0), 17, INDIRECT);
	expect_broken(&r);
	ring_start(&r, 4, true, false);
	packed_slot(&r, 0, VRING_RAM, 32, INDIRECT);
	expect_broken(&r);
	ring_start(&r, 4, true, false);
	packed_slot(&r, 0, BUF(0), 1, NEXT | WRITE);
	packed_slot(&r, 1, BUF(0), 1, 0);
	expect_broken(&r);
	ring_start(&r, 4, true, false);
	r.q.desc = VRING_RAM;
	expect_broken(&r);
	ring_start(&r, 4, true, true);
	*v16(&r.d, r.d.driver) = 0x7fff; /* an event far outside */
	*v16(&r.d, r.d.driver + 2) = 0xffff;
	packed_slot(&r, 0, BUF(0), 1, 0);
	assert_int_equal(virtqueue_pop(&r.q, &r.c), 1);
	assert_int_equal(r.c.id, 77);
	virtqueue_push(&r.q, &r.c, 0);
	(void)virtqueue_should_signal(&r.q);
	assert_false(r.q.broken);
	ring_destroy(&r);
}

static void test_enable(void **state)
{
	struct ring r;

	(void)state;
	ring_create(&r);
	ring_start(&r, 8, false, false);
	r.q.enabled = false;
	r.q.size = 0;
	assert_int_equal(virtqueue_enable(&r.q), -EINVAL);
	r.q.size = 3;
	assert_int_equal(virtqueue_enable(&r.q), -EINVAL);
	r.q.size = 512;
	assert_int_equal(virtqueue_enable(&r.q), -EINVAL);
	r.q.size = 8;
	r.q.desc += 8;
	assert_int_equal(virtqueue_enable(&r.q), -EINVAL);
	r.q.desc -= 8;
	r.q.driver += 1;
	assert_int_equal(virtqueue_enable(&r.q), -EINVAL);
	r.q.driver += 1;
	assert_int_equal(virtqueue_enable(&r.q), 0);
	r.q.enabled = false;
	r.q.device += 2;
	assert_int_equal(virtqueue_enable(&r.q), -EINVAL);
	assert_int_equal(virtqueue_pop(&r.q, &r.c), 0);
	ring_destroy(&r);
}

/* Device writes to pages with translations reach the vCPU that has them; clean pages and lines do not. */
static void kicked(void *opaque) { ++*(unsigned *)opaque; }

static void test_code(void **state)
{
	struct vbuf b = {BUF(0), 0x2000, true};
	struct mmu mmu;
	unsigned told = 0;
	struct ring r;

	(void)state;
	ring_create(&r);
	ring_start(&r, 8, false, false);
	assert_int_equal(mmu_create(&mmu, r.mem, 2), 0);
	mmu.sync.kick = kicked;
	mmu.sync.opaque = &told;
	mmu_enter(&mmu);
	mem_code_mark(&mmu, BUF(1) >> PAGE_SHIFT);
	mem_code_read(r.mem, BUF(1) >> PAGE_SHIFT, 0, 64);
	vdrv_add(&r.d, &b, 1, false);
	assert_int_equal(virtqueue_pop(&r.q, &r.c), 1);
	io_dma_write(r.mem, &r.c.w, 0, "x", 1);
	assert_int_equal(told, 0);
	io_dma_write(r.mem, &r.c.w, 0x1040, "x", 1);
	assert_int_equal(told, 0);
	io_dma_write(r.mem, &r.c.w, 0x1000, "x", 1);
	assert_int_equal(told, 1);
	io_dma_written(r.mem, &r.c.w, 0x1000);
	assert_int_equal(told, 1);
	io_dma_written(r.mem, &r.c.w, 0x1001);
	assert_int_equal(told, 2);
	mem_code_mark(&mmu, r.d.device >> PAGE_SHIFT); /* even the ring itself */
	mem_code_read(r.mem, r.d.device >> PAGE_SHIFT, 0, PAGE_SIZE);
	virtqueue_push(&r.q, &r.c, 1);
	assert_true(told > 2);
	mmu_leave(&mmu);
	mmu_destroy(&mmu);
	ring_destroy(&r);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_soak), cmocka_unit_test(test_data), cmocka_unit_test(test_suppression),
		cmocka_unit_test(test_event_ahead), cmocka_unit_test(test_unpop), cmocka_unit_test(test_hostile_split),
		cmocka_unit_test(test_pieces), cmocka_unit_test(test_hostile_packed), cmocka_unit_test(test_enable),
		cmocka_unit_test(test_code),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
