/* SPDX-License-Identifier: Apache-2.0 */
/* 8254: modes, latching, gate, drift. Ticks are converted with the exact rational clock. */
#include "machine.h"

#include "dev/platform/pit.h"

static uint64_t edges; /* rising edges of IRQ 0, counted by a sink */
static bool line;

static void count_edges(void *opaque, unsigned gsi, bool level)
{
	(void)opaque;
	if (gsi)
		return;
	edges += level && !line;
	line = level;
}

static struct machine *start(void)
{
	struct machine *m = m_create(1);

	edges = 0;
	line = false;
	m->io.sink[0] = (struct io_irq_sink){.set = count_edges, .opaque = m->io.sink[0].opaque};
	return m;
}

/* Time at which `n` ticks after the present tick have just passed. */
static void ticks(struct machine *m, uint64_t n)
{
	uint64_t t = dev_scale(m->now, PIT_HZ, NS_PER_SEC);

	m_advance(m, dev_scale_up(t + n, NS_PER_SEC, PIT_HZ) - m->now);
}

static unsigned count(struct machine *m, unsigned ch)
{
	unsigned lo;

	outb(m, 0x43, ch << 6);
	lo = inb(m, 0x40 + ch);
	return lo | inb(m, 0x40 + ch) << 8;
}

static void program(struct machine *m, unsigned ch, unsigned mode, unsigned n)
{
	outb(m, 0x43, ch << 6 | 0x30 | mode << 1);
	outb(m, 0x40 + ch, n);
	outb(m, 0x40 + ch, n >> 8);
}

static void test_rate_generator(void **state)
{
	struct machine *m = start();

	(void)state;
	program(m, 0, 2, 4773); /* 250 Hz, as Linux would */
	edges = 0;
	m_advance(m, 100 * NS_PER_SEC);
	/* 100 s are 119318200 ticks; the load takes one. */
	assert_int_equal(edges, (119318200 - 1) / 4773);
	m_destroy(m);
}

/* Served late, the schedule stays. */
static void test_no_drift(void **state)
{
	struct machine *m = start();

	(void)state;
	program(m, 0, 2, 11932);
	edges = 0;
	m_advance_late(m, 50 * NS_PER_SEC, 3000000);
	assert_in_range(edges, 50 * PIT_HZ / 11932 - 1, 50 * PIT_HZ / 11932);
	m_destroy(m);
}

static void test_count_values(void **state)
{
	struct machine *m = start();

	(void)state;
	program(m, 0, 2, 10);
	ticks(m, 1);
	for (unsigned i = 0; i < 30; i++, ticks(m, 1))
		assert_int_equal(count(m, 0), 10 - i % 10);
	program(m, 0, 3, 10);
	ticks(m, 1);
	for (unsigned i = 0; i < 30; i++, ticks(m, 1))
		assert_int_equal(count(m, 0), 10 - 2 * (i % 5));
	program(m, 0, 3, 5); /* odd: 4 2 0 | 4 2 */
	ticks(m, 1);
	for (unsigned i = 0; i < 10; i++, ticks(m, 1))
		assert_int_equal(count(m, 0), "42042"[i % 5] - '0');
	program(m, 0, 0, 3);
	ticks(m, 1);
	for (unsigned i = 0; i < 5; i++, ticks(m, 1))
		assert_int_equal(count(m, 0), (3 - i) & 0xffff);
	outb(m, 0x43, 0x31); /* BCD, mode 0 */
	outb(m, 0x40, 0x00);
	outb(m, 0x40, 0x10);
	ticks(m, 2);
	assert_int_equal(count(m, 0), 0x0999);
	m_destroy(m);
}

static void test_oneshot_modes(void **state)
{
	struct machine *m = start();

	(void)state;
	program(m, 0, 0, 100);
	assert_false(line);
	ticks(m, 100);
	assert_false(line);
	ticks(m, 1);
	assert_true(line);
	ticks(m, 100000);
	assert_int_equal(edges, 1);
	program(m, 0, 4, 100); /* Linux's one-shot */
	assert_true(line);
	edges = 0;
	ticks(m, 101);
	assert_int_equal(edges, 0);
	ticks(m, 2);
	assert_int_equal(edges, 1);
	ticks(m, 100000);
	assert_int_equal(edges, 1);
	outb(m, 0x40, 50); /* a new count starts it again */
	outb(m, 0x40, 0);
	ticks(m, 60);
	assert_int_equal(edges, 2);
	m_destroy(m);
}

static void test_new_count_waits(void **state)
{
	struct machine *m = start();

	(void)state;
	program(m, 0, 2, 1000);
	ticks(m, 501);
	outb(m, 0x40, 100);
	outb(m, 0x40, 0);
	assert_int_equal(count(m, 0), 500);
	ticks(m, 500);
	assert_int_equal(count(m, 0), 100);
	edges = 0;
	ticks(m, 1000);
	assert_int_equal(edges, 10);
	m_destroy(m);
}

static void test_channel2_gate(void **state)
{
	struct machine *m = start();

	(void)state;
	/* As the TSC calibration of Linux: gate on, mode 0, wait for OUT2. */
	outb(m, 0x61, (inb(m, 0x61) & ~2) | 1);
	program(m, 2, 0, 1000);
	assert_int_equal(inb(m, 0x61) & 0x21, 0x01);
	ticks(m, 500);
	outb(m, 0x61, 0);
	ticks(m, 5000); /* stands still */
	assert_int_equal(count(m, 2), 501);
	assert_int_equal(inb(m, 0x61) & 0x20, 0);
	outb(m, 0x61, 1);
	ticks(m, 500);
	assert_int_equal(inb(m, 0x61) & 0x20, 0);
	ticks(m, 1);
	assert_int_equal(inb(m, 0x61) & 0x20, 0x20);
	/* Mode 1: the gate's edge triggers. */
	outb(m, 0x61, 0);
	program(m, 2, 1, 10);
	assert_int_equal(inb(m, 0x61) & 0x20, 0x20);
	ticks(m, 100);
	outb(m, 0x61, 1);
	ticks(m, 2);
	assert_int_equal(inb(m, 0x61) & 0x20, 0);
	ticks(m, 10);
	assert_int_equal(inb(m, 0x61) & 0x20, 0x20);
	m_destroy(m);
}

static void test_latch_and_read_back(void **state)
{
	struct machine *m = start();
	uint8_t a, b;

	(void)state;
	program(m, 0, 2, 0x1234);
	ticks(m, 0x35);
	outb(m, 0x43, 0x00);
	ticks(m, 100);
	outb(m, 0x43, 0x00); /* a second latch is ignored */
	a = inb(m, 0x40);
	b = inb(m, 0x40);
	assert_int_equal(a | b << 8, 0x1200);
	outb(m, 0x43, 0xc2); /* status and count */
	assert_int_equal(inb(m, 0x40), 0xb4);
	a = inb(m, 0x40);
	b = inb(m, 0x40);
	assert_int_equal(a | b << 8, 0x1200 - 100);
	outb(m, 0x43, 0x34);
	outb(m, 0x43, 0xe2);
	assert_int_equal(inb(m, 0x40) & 0x40, 0x40); /* null count */
	m_destroy(m);
}

static void test_refresh_toggle(void **state)
{
	struct machine *m = start();
	uint8_t was = inb(m, 0x61);

	(void)state;
	m_advance(m, 15086);
	assert_int_equal((inb(m, 0x61) ^ was) & 0x10, 0x10);
	m_destroy(m);
}

static void test_hostile(void **state)
{
	struct machine *m = m_create(1);
	uint64_t v;

	(void)state;
	srand(2);
	for (unsigned i = 0; i < 100000; i++) {
		unsigned port = rand() % 5, size = 1u << rand() % 4;

		if (port == 4)
			outb(m, 0x61, rand());
		else if (rand() & 1)
			io_write(&m->io, IO_PIO, 0x40 + port, size, rand());
		else
			io_read(&m->io, IO_PIO, 0x40 + port, size, &v);
		m_advance(m, rand() % 20000);
	}
	/* The fastest rate does not storm the host. */
	program(m, 0, 2, 2);
	v = m->io.stats.timers;
	m_advance(m, NS_PER_SEC / 10);
	assert_in_range(m->io.stats.timers - v, 1000, 6000);
	m_destroy(m);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_rate_generator),	cmocka_unit_test(test_no_drift),
		cmocka_unit_test(test_count_values),	cmocka_unit_test(test_oneshot_modes),
		cmocka_unit_test(test_new_count_waits), cmocka_unit_test(test_channel2_gate),
		cmocka_unit_test(test_latch_and_read_back), cmocka_unit_test(test_refresh_toggle),
		cmocka_unit_test(test_hostile),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
