/* SPDX-License-Identifier: Apache-2.0 */
/* dev/virtio/balloon.c, driven by a model driver: what leaves the host and what must not, statistics, reporting, hostile messages. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <linux/virtio_balloon.h>

#include "dev/virtio/balloon.h"
#include "virtio_driver.h"

/* Memory beside the rings: RAM that comes and goes, a page of ROM, a hole. */
#define PLAY (4ull << 20)
#define PLAY_LEN (2ull << 20)
#define ROM (PLAY + PLAY_LEN - PAGE_SIZE)
#define HOLE (3ull << 20)
#define END (8ull << 20)
#define MESSAGE VD_BUFFERS
#define STATS_BUF (VD_BUFFERS + 0x8000)

enum { INFLATE, DEFLATE, STATS, REPORT3, REPORT4 };

struct bed {
	struct mem *mem;
	struct io io;
	struct virtio_dev *v;
	struct vdrv q[5];
	uint64_t now;
	unsigned news, signals[5], changes;
};

static uint64_t up_now(void *vm) { return ((struct bed *)vm)->now; }
static void up_wake(void *vm, const struct io_timer *t) { (void)vm, (void)t; }
static void on_news(void *o) { ((struct bed *)o)->news++; }
static void on_signal(void *o, unsigned queue) { ((struct bed *)o)->signals[queue]++; }
static void on_change(void *o) { ((struct bed *)o)->changes++; }
static const struct virtio_transport_ops transport = {.signal = on_signal, .config_changed = on_change};

#define ALL_FEATURES                                                                                                           \
	(BIT(VIRTIO_BALLOON_F_STATS_VQ) | BIT(VIRTIO_BALLOON_F_DEFLATE_ON_OOM) | BIT(VIRTIO_BALLOON_F_REPORTING))

static void start(struct bed *b, uint64_t features)
{
	vd_negotiate(b->v, b->q, 5, features);
}

static int up(void **state)
{
	struct bed *b = calloc(1, sizeof(*b));
	const struct virtio_balloon_options opt = {.news = on_news, .opaque = b};

	assert_non_null(b);
	assert_int_equal(mem_create(&b->mem, 8 << 20, END >> PAGE_SHIFT), 0);
	assert_int_equal(mem_add_ram(b->mem, 0, VRING_RAM), 0);
	assert_int_equal(mem_add_ram(b->mem, PLAY, PLAY_LEN), 0);
	assert_int_equal(mem_write(b->mem, ROM, "rom", 3), 0);
	assert_int_equal(mem_set_rom(b->mem, ROM, PAGE_SIZE), 0);
	assert_int_equal(io_init(&b->io, b->mem), 0);
	b->io.vm = b;
	b->io.now = up_now;
	b->io.wake_timers = up_wake;
	b->now = 1;
	assert_int_equal(virtio_balloon_create(&b->io, &opt, &b->v), 0);
	b->v->transport = &transport;
	b->v->transport_opaque = b;
	start(b, ALL_FEATURES);
	*v32(&b->q[0], MESSAGE) = 0; /* on the host from here on, as the rings are: not counted later */
	*state = b;
	return 0;
}

static int down(void **state)
{
	struct bed *b = *state;
	char rom[4] = "";

	assert_int_equal(mem_read(b->mem, ROM, rom, 3), 0);
	assert_string_equal(rom, "rom");
	b->v->ops->destroy(b->v);
	io_fini(&b->io);
	mem_destroy(b->mem);
	free(b);
	return 0;
}

static void offer(struct bed *b, unsigned queue, gpa_t gpa, uint32_t len, bool write)
{
	const struct vbuf buf = {gpa, len, write};

	assert_true(vdrv_add(&b->q[queue], &buf, 1, false) >= 0);
}

/* Takes what came back; how many. */
static unsigned take(struct bed *b, unsigned queue)
{
	unsigned n = 0;
	uint32_t len;
	uint16_t id;

	for (; vdrv_take(&b->q[queue], &id, &len); n++) {
		assert_int_equal(len, 0);
		vdrv_free(&b->q[queue], id);
	}
	return n;
}

static void send_frames(struct bed *b, unsigned queue, const uint32_t *frame, unsigned n)
{
	memcpy(vat(&b->q[0], MESSAGE), frame, n * sizeof(*frame));
	offer(b, queue, MESSAGE, n * 4, false);
	vd_kick(b->v, queue);
	assert_int_equal(take(b, queue), 1);
	assert_true(virtio_live(b->v));
}

static void touch(struct bed *b, gpa_t from, gpa_t to)
{
	for (; from < to; from += PAGE_SIZE)
		assert_int_equal(mem_write(b->mem, from, "data", 4), 0);
}

static bool is_zero(struct bed *b, gpa_t gpa)
{
	char text[4];

	assert_int_equal(mem_read(b->mem, gpa, text, 4), 0);
	return !memcmp(text, "\0\0\0\0", 4);
}

static void inflate(void **state)
{
	struct bed *b = *state;
	const uint32_t f = PLAY >> PAGE_SHIFT, frames[] = {f, f + 1, f + 2, f + 9, f + 8, f + 7, f + 1, f + 100};
	uint64_t populated, resident;

	touch(b, PLAY, ROM);
	populated = mem_populated(b->mem);
	resident = mem_resident(b->mem);
	assert_true(resident >= ROM - PLAY);
	send_frames(b, INFLATE, frames, nitems(frames));
	assert_int_equal(mem_ballooned(b->mem), 7 * PAGE_SIZE);
	assert_int_equal(mem_populated(b->mem), populated - 7 * PAGE_SIZE);
	assert_int_equal(mem_resident(b->mem), resident - 7 * PAGE_SIZE);
	assert_int_equal(mem_state(b->mem, f + 3), P2M_OWNED);
	assert_false(is_zero(b, PLAY + 3 * PAGE_SIZE));
	/* Used without a word, as drivers may that have not promised to tell. */
	assert_true(is_zero(b, PLAY + PAGE_SIZE));
	assert_int_equal(mem_ballooned(b->mem), 6 * PAGE_SIZE);
	send_frames(b, DEFLATE, frames, nitems(frames));
	assert_int_equal(mem_ballooned(b->mem), 0);
	assert_true(is_zero(b, PLAY + 8 * PAGE_SIZE));
	assert_int_equal(b->signals[INFLATE] + b->signals[DEFLATE], 2);
}

/* Numbers of nothing, of ROM, past the end, the largest there is; half a number; an empty message; a message of many pieces. */
static void odd_frames(void **state)
{
	struct bed *b = *state;
	const uint32_t frames[] = {HOLE >> PAGE_SHIFT, ROM >> PAGE_SHIFT, END >> PAGE_SHIFT, UINT32_MAX, 0x7fffffff, UINT32_MAX - 1};
	struct vbuf pieces[8];
	uint64_t populated = mem_populated(b->mem);

	for (unsigned queue = INFLATE; queue <= DEFLATE; queue++) {
		send_frames(b, queue, frames, nitems(frames));
		offer(b, queue, MESSAGE, 3, false);
		offer(b, queue, MESSAGE, 0, false);
		offer(b, queue, MESSAGE, 64, true);
		vd_kick(b->v, queue);
		assert_int_equal(take(b, queue), 3);
	}
	assert_int_equal(mem_ballooned(b->mem), 0);
	assert_int_equal(mem_populated(b->mem), populated);
	touch(b, PLAY, PLAY + 8 * PAGE_SIZE);
	for (uint32_t i = 0; i < 8; i++) {
		*v32(&b->q[0], MESSAGE + 0x100 * i) = (PLAY >> PAGE_SHIFT) + i;
		pieces[i] = (struct vbuf){MESSAGE + 0x100 * i, 4, false};
	}
	assert_true(vdrv_add(&b->q[INFLATE], pieces, 8, false) >= 0);
	vd_kick(b->v, INFLATE);
	assert_int_equal(take(b, INFLATE), 1);
	assert_int_equal(mem_ballooned(b->mem), 8 * PAGE_SIZE);
}

/* Longer than any driver sends: the device stops and takes nothing of it. */
static void long_message(void **state)
{
	struct bed *b = *state;

	touch(b, PLAY, PLAY + PAGE_SIZE);
	offer(b, INFLATE, MESSAGE, 4096, false);
	vd_kick(b->v, INFLATE);
	assert_int_equal(take(b, INFLATE), 1);
	offer(b, INFLATE, MESSAGE, 4100, false);
	vd_kick(b->v, INFLATE);
	assert_int_equal(take(b, INFLATE), 0);
	assert_false(virtio_live(b->v));
	start(b, ALL_FEATURES);
	assert_true(virtio_live(b->v));
}

/* A driver that does not wait for its messages has a few of them served at a time. */
static void flood(void **state)
{
	struct bed *b = *state;
	unsigned served = 0, rounds = 0;

	for (unsigned i = 0; i < VD_RING; i++)
		offer(b, INFLATE, MESSAGE, 64, false);
	vd_kick(b->v, INFLATE);
	for (; served < VD_RING && rounds < 100; rounds++) {
		unsigned n = take(b, INFLATE);

		assert_true(n <= 16);
		served += n;
		b->now += NS_PER_SEC;
		(void)io_timers_run(&b->io);
	}
	assert_int_equal(served, VD_RING);
	assert_true(rounds >= VD_RING / 16);
}

static void report(struct bed *b, unsigned queue, gpa_t gpa, uint32_t len)
{
	offer(b, queue, gpa, len, true);
	vd_kick(b->v, queue);
	assert_int_equal(take(b, queue), 1);
	assert_true(virtio_live(b->v));
}

static void reporting(void **state)
{
	struct bed *b = *state;
	uint64_t resident;

	for (unsigned queue = REPORT3; queue <= REPORT4; queue++) {
		touch(b, PLAY, PLAY + 0x20000);
		resident = mem_resident(b->mem);
		/* Whole pages only: one of the three is not. */
		report(b, queue, PLAY + 0x1800, 0x2800);
		assert_int_equal(mem_resident(b->mem), resident - 2 * PAGE_SIZE);
		assert_false(is_zero(b, PLAY + 0x1000));
		assert_true(is_zero(b, PLAY + 0x2000));
		assert_int_equal(mem_ballooned(b->mem), 0);
		/* What is no RAM stays what it is, and nothing is populated by looking. */
		report(b, queue, HOLE, 0x10000);
		report(b, queue, ROM, PAGE_SIZE);
		report(b, queue, END - PAGE_SIZE, 0x10000);
		report(b, queue, UINT64_MAX - 0xfff, 0x2000);
		report(b, queue, 0xffff000000000000, 0x1000);
		/* A stretch over RAM, ROM and a hole. */
		report(b, queue, PLAY, (uint32_t)(END - PLAY));
		assert_true(mem_resident(b->mem) <= resident - 0x1e000);
	}
	/* Without statistics Linux has it at the next number. */
	start(b, BIT(VIRTIO_BALLOON_F_REPORTING));
	touch(b, PLAY, PLAY + 0x4000);
	report(b, STATS, PLAY, 0x4000);
	assert_true(is_zero(b, PLAY));
	/* Not negotiated: the buffer comes back and nothing happens. */
	start(b, 0);
	touch(b, PLAY, PLAY + 0x4000);
	report(b, REPORT3, PLAY, 0x4000);
	assert_false(is_zero(b, PLAY));
}

/* Pages that the guest expects its pattern in stay. */
static void poison(void **state)
{
	struct bed *b = *state;

	for (uint32_t pattern = 0; pattern < 2; pattern++) {
		start(b, BIT(VIRTIO_BALLOON_F_REPORTING) | BIT(VIRTIO_BALLOON_F_PAGE_POISON));
		touch(b, PLAY, PLAY + PAGE_SIZE);
		virtio_config_write(b->v, offsetof(struct virtio_balloon_config, poison_val), 4, pattern ? 0xaaaaaaaa : 0);
		report(b, REPORT4, PLAY, PAGE_SIZE);
		assert_int_equal(is_zero(b, PLAY), !pattern);
	}
}

static void put_stat(struct bed *b, unsigned at, uint16_t tag, uint64_t val)
{
	memcpy(vat(&b->q[0], STATS_BUF + 10 * at), &tag, 2);
	memcpy(vat(&b->q[0], STATS_BUF + 10 * at + 2), &val, 8);
}

static void statistics(void **state)
{
	struct bed *b = *state;
	struct virtio_balloon_info info;

	assert_false(virtio_balloon_poll(b->v));
	put_stat(b, 0, VIRTIO_BALLOON_S_MEMFREE, 1234);
	put_stat(b, 1, VIRTIO_BALLOON_S_AVAIL, UINT64_MAX - 1);
	put_stat(b, 2, 0xffff, 7);
	put_stat(b, 3, VIRTIO_BALLOON_S_NR, 7);
	b->now = 77;
	offer(b, STATS, STATS_BUF, 45, false); /* half a fifth one */
	vd_kick(b->v, STATS);
	assert_int_equal(take(b, STATS), 0); /* kept */
	virtio_balloon_info(b->v, &info);
	assert_int_equal(info.guest.free, 1234);
	assert_int_equal(info.guest.available, UINT64_MAX - 1);
	assert_int_equal(info.guest.total, UINT64_MAX);
	assert_int_equal(info.guest_time, 77);
	assert_int_equal(info.news, 1);
	assert_int_equal(b->news, 1);
	/* Sent for once, however often it is wanted. */
	assert_true(virtio_balloon_poll(b->v));
	assert_true(virtio_balloon_poll(b->v));
	assert_int_equal(take(b, STATS), 1);
	put_stat(b, 0, VIRTIO_BALLOON_S_MEMTOT, 5);
	offer(b, STATS, STATS_BUF, 10, false);
	/* A second buffer, which no driver has: the first goes back. */
	offer(b, STATS, STATS_BUF, 10, false);
	vd_kick(b->v, STATS);
	assert_int_equal(take(b, STATS), 1);
	virtio_balloon_info(b->v, &info);
	assert_int_equal(info.guest.total, 5);
	assert_int_equal(info.guest.free, UINT64_MAX); /* that was the last buffer's */
	assert_int_equal(info.news, 3);
	/* What was held is the old driver's. */
	start(b, ALL_FEATURES);
	assert_false(virtio_balloon_poll(b->v));
	virtio_balloon_info(b->v, &info);
	assert_int_equal(info.guest.total, UINT64_MAX);
	assert_int_equal(info.guest_time, 0);
}

static void target(void **state)
{
	struct bed *b = *state;
	struct virtio_balloon_info info;
	const unsigned wanted = offsetof(struct virtio_balloon_config, num_pages), actual = offsetof(struct virtio_balloon_config, actual);

	b->changes = 0;
	virtio_balloon_set(b->v, 5 * PAGE_SIZE + 17);
	virtio_balloon_set(b->v, 5 * PAGE_SIZE);
	assert_int_equal(b->changes, 1);
	assert_int_equal(virtio_config_read(b->v, wanted, 4), 5);
	virtio_config_write(b->v, wanted, 4, 99); /* not the driver's */
	virtio_config_write(b->v, actual, 2, 99);
	virtio_config_write(b->v, actual, 8, 99);
	assert_int_equal(virtio_config_read(b->v, wanted, 8), 5);
	virtio_config_write(b->v, actual, 4, 3);
	virtio_balloon_info(b->v, &info);
	assert_int_equal(info.target, 5 * PAGE_SIZE);
	assert_int_equal(info.actual, 3 * PAGE_SIZE);
	assert_true(info.driver);
	/* The wish is for the next driver, too; no more than there is. */
	start(b, ALL_FEATURES);
	virtio_balloon_info(b->v, &info);
	assert_int_equal(info.target, 5 * PAGE_SIZE);
	assert_int_equal(info.actual, 0);
	virtio_balloon_set(b->v, UINT64_MAX);
	virtio_balloon_info(b->v, &info);
	assert_int_equal(info.target, mem_ram_size(b->mem));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(inflate, up, down),
		cmocka_unit_test_setup_teardown(odd_frames, up, down),
		cmocka_unit_test_setup_teardown(long_message, up, down),
		cmocka_unit_test_setup_teardown(flood, up, down),
		cmocka_unit_test_setup_teardown(reporting, up, down),
		cmocka_unit_test_setup_teardown(poison, up, down),
		cmocka_unit_test_setup_teardown(statistics, up, down),
		cmocka_unit_test_setup_teardown(target, up, down),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
