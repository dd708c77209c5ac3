/* SPDX-License-Identifier: Apache-2.0 */
/* dev/virtio/console.c, driven by a model driver: both directions, a terminal that is held up, sizes, the character in distress. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <linux/virtio_console.h>

#include "dev/virtio/console.h"
#include "virtio_driver.h"

enum { RECEIVE, TRANSMIT };
#define BUF(i) (VD_BUFFERS + 0x1000ull * (i))

struct bed {
	struct mem *mem;
	struct io io;
	struct virtio_dev *v;
	struct vdrv q[2];
	uint64_t now;
	uint8_t out[1 << 20];
	size_t nout, limit;      /* put() takes up to limit */
	unsigned puts, rooms, changes;
};

static uint64_t up_now(void *vm) { return ((struct bed *)vm)->now; }
static void up_wake(void *vm, const struct io_timer *t) { (void)vm, (void)t; }
static void on_signal(void *o, unsigned queue) { (void)o, (void)queue; }
static void on_change(void *o) { ((struct bed *)o)->changes++; }
static void on_room(void *o) { ((struct bed *)o)->rooms++; }
static const struct virtio_transport_ops transport = {.signal = on_signal, .config_changed = on_change};

static size_t on_put(void *o, const uint8_t *buf, size_t n)
{
	struct bed *b = o;

	b->puts++;
	if (n > b->limit - b->nout)
		n = b->limit - b->nout;
	memcpy(b->out + b->nout, buf, n);
	b->nout += n;
	return n;
}

static int up(void **state)
{
	struct bed *b = calloc(1, sizeof(*b));
	const struct virtio_console_options opt = {.put = on_put, .room = on_room, .opaque = b, .cols = 80, .rows = 24};

	assert_non_null(b);
	b->limit = sizeof(b->out);
	assert_int_equal(mem_create(&b->mem, 4 << 20, 4 << 8), 0);
	assert_int_equal(mem_add_ram(b->mem, 0, VRING_RAM), 0);
	assert_int_equal(io_init(&b->io, b->mem), 0);
	b->io.vm = b;
	b->io.now = up_now;
	b->io.wake_timers = up_wake;
	assert_int_equal(virtio_console_create(&b->io, &opt, &b->v), 0);
	b->v->transport = &transport;
	b->v->transport_opaque = b;
	vd_negotiate(b->v, b->q, 2, BIT(VIRTIO_CONSOLE_F_SIZE));
	*state = b;
	return 0;
}

static int down(void **state)
{
	struct bed *b = *state;

	b->v->ops->destroy(b->v);
	io_fini(&b->io);
	mem_destroy(b->mem);
	free(b);
	return 0;
}

static void add(struct bed *b, unsigned queue, unsigned i, uint32_t len)
{
	const struct vbuf buf = {BUF(i), len, queue == RECEIVE};

	assert_true(vdrv_add(&b->q[queue], &buf, 1, false) >= 0);
}

static unsigned take(struct bed *b, unsigned queue, uint32_t *len)
{
	unsigned n = 0;
	uint16_t id;

	while (vdrv_take(&b->q[queue], &id, len)) {
		vdrv_free(&b->q[queue], id);
		n++;
	}
	return n;
}

static void fill(struct bed *b, unsigned i, uint32_t len, unsigned from)
{
	for (uint32_t k = 0; k < len; k++)
		((uint8_t *)vat(&b->q[0], BUF(i)))[k] = (uint8_t)(from + k);
}

static bool counts(const struct bed *b)
{
	for (size_t i = 0; i < b->nout; i++)
		if (b->out[i] != (uint8_t)i)
			return false;
	return true;
}

static void output(void **state)
{
	struct bed *b = *state;
	const struct vbuf pieces[] = {{BUF(0), 3, false}, {BUF(0) + 3, 0, false}, {BUF(0) + 3, 4000, false}};
	uint32_t len;

	fill(b, 0, 4003, 0);
	assert_true(vdrv_add(&b->q[TRANSMIT], pieces, 3, false) >= 0);
	fill(b, 1, 5, 4003);
	add(b, TRANSMIT, 1, 5);
	vd_kick(b->v, TRANSMIT);
	assert_int_equal(take(b, TRANSMIT, &len), 2);
	assert_int_equal(b->nout, 4008);
	assert_true(counts(b));
}

/* A terminal that takes nothing: the ring keeps what it does not take, and not a byte is lost or comes twice. */
static void held_up(void **state)
{
	struct bed *b = *state;
	uint32_t len;
	unsigned done = 0, puts;

	b->limit = 100;
	for (unsigned i = 0; i < 20; i++) {
		fill(b, i, 1000, 1000 * i);
		add(b, TRANSMIT, i, 1000);
	}
	vd_kick(b->v, TRANSMIT);
	assert_int_equal(b->nout, 100);
	assert_int_equal(take(b, TRANSMIT, &len), 0);
	puts = b->puts;
	for (unsigned i = 0; i < 10; i++)
		vd_kick(b->v, TRANSMIT); /* changes nothing, costs nothing */
	assert_int_equal(b->puts, puts);
	while (b->nout < 20000) {
		b->limit += 777;
		if (b->limit > 20000)
			b->limit = 20000;
		virtio_console_drained(b->v);
		assert_int_equal(b->nout, b->limit);
		done += take(b, TRANSMIT, &len);
	}
	assert_int_equal(done, 20);
	assert_true(counts(b));
	/* Drained without need; and it goes on as usual. */
	b->limit = sizeof(b->out);
	virtio_console_drained(b->v);
	add(b, TRANSMIT, 0, 1);
	vd_kick(b->v, TRANSMIT);
	assert_int_equal(take(b, TRANSMIT, &len), 1);
}

/* A reset while held up: what was under way is forgotten, and the next driver begins at its first byte. */
static void reset_held_up(void **state)
{
	struct bed *b = *state;
	uint32_t len;

	b->limit = 10;
	fill(b, 0, 1000, 0);
	add(b, TRANSMIT, 0, 1000);
	vd_kick(b->v, TRANSMIT);
	vd_negotiate(b->v, b->q, 2, 0);
	virtio_console_drained(b->v);
	assert_int_equal(b->nout, 10);
	b->nout = 0;
	b->limit = sizeof(b->out);
	add(b, TRANSMIT, 0, 1000);
	vd_kick(b->v, TRANSMIT);
	assert_int_equal(take(b, TRANSMIT, &len), 1);
	assert_int_equal(b->nout, 1000);
	assert_true(counts(b));
}

/* A chain that changes while it waits, as only a hostile guest's does. */
static void shrinks(void **state)
{
	struct bed *b = *state;
	uint32_t len;

	b->limit = 500;
	fill(b, 0, 1000, 0);
	add(b, TRANSMIT, 0, 1000);
	vd_kick(b->v, TRANSMIT);
	assert_int_equal(b->nout, 500);
	*v32(&b->q[TRANSMIT], b->q[TRANSMIT].desc + 16 * (VD_RING - 1) + 8) = 3; /* ids are given from the lowest... */
	*v32(&b->q[TRANSMIT], b->q[TRANSMIT].desc + 8) = 3;                      /* ...or the highest: both */
	b->limit = sizeof(b->out);
	virtio_console_drained(b->v);
	assert_int_equal(take(b, TRANSMIT, &len), 1);
	assert_int_equal(b->nout, 500);
	add(b, TRANSMIT, 1, 2);
	vd_kick(b->v, TRANSMIT);
	assert_int_equal(b->nout, 502);
}

static void input(void **state)
{
	struct bed *b = *state;
	static const uint8_t typed[] = "what is typed";
	uint32_t len;

	assert_int_equal(virtio_console_input(b->v, typed, 13), 0);
	add(b, RECEIVE, 0, 5);
	add(b, RECEIVE, 1, 0);
	vd_kick(b->v, RECEIVE);
	assert_int_equal(b->rooms, 2); /* once at DRIVER_OK */
	assert_int_equal(virtio_console_input(b->v, typed, 13), 5);
	assert_int_equal(take(b, RECEIVE, &len), 2);
	assert_int_equal(len, 0);
	assert_memory_equal(vat(&b->q[0], BUF(0)), "what ", 5);
	add(b, RECEIVE, 2, 4096);
	assert_int_equal(virtio_console_input(b->v, typed + 5, 8), 8);
	assert_int_equal(take(b, RECEIVE, &len), 1);
	assert_int_equal(len, 8);
	/* No driver, no room. */
	vd_negotiate(b->v, b->q, 2, 0);
	virtio_set_status(b->v, 0);
	assert_int_equal(virtio_console_input(b->v, typed, 13), 0);
}

static void size(void **state)
{
	struct bed *b = *state;

	b->changes = 0;
	assert_int_equal(virtio_config_read(b->v, 0, 4), 80 | 24 << 16);
	virtio_console_resize(b->v, 80, 24);
	assert_int_equal(b->changes, 0);
	virtio_console_resize(b->v, 132, 50);
	assert_int_equal(b->changes, 1);
	assert_int_equal(virtio_config_read(b->v, 0, 4), 132 | 50 << 16);
	/* A driver that starts is told by and by: Linux does not look by itself. */
	vd_negotiate(b->v, b->q, 2, BIT(VIRTIO_CONSOLE_F_SIZE));
	b->changes = 0;
	for (unsigned i = 0; i < 200; i++) {
		b->now += NS_PER_SEC / 10;
		(void)io_timers_run(&b->io);
		if (i == 8)
			assert_int_equal(b->changes, 0);
		if (i == 10)
			assert_int_equal(b->changes, 1);
	}
	assert_int_equal(b->changes, 3);
	virtio_config_write(b->v, 0, 4, 0); /* not the driver's */
	assert_int_equal(virtio_config_read(b->v, 0, 4), 132 | 50 << 16);
}

static void distress(void **state)
{
	struct bed *b = *state;
	const unsigned at = offsetof(struct virtio_console_config, emerg_wr);

	virtio_set_status(b->v, 0);
	virtio_config_write(b->v, at, 4, 'h');
	virtio_config_write(b->v, at, 1, 'i');
	assert_memory_equal(b->out, "hi", 2);
	b->limit = 2;
	virtio_config_write(b->v, at, 4, '!');
	assert_int_equal(b->nout, 2);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(output, up, down),
		cmocka_unit_test_setup_teardown(held_up, up, down),
		cmocka_unit_test_setup_teardown(reset_held_up, up, down),
		cmocka_unit_test_setup_teardown(shrinks, up, down),
		cmocka_unit_test_setup_teardown(input, up, down),
		cmocka_unit_test_setup_teardown(size, up, down),
		cmocka_unit_test_setup_teardown(distress, up, down),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
