/* SPDX-License-Identifier: Apache-2.0 */
/* The board as a whole: creation, names, reset lines, debug exit, the state walk, arbitrary accesses to every port. */
#include "machine.h"

static void test_find(void **state)
{
	struct machine *m = m_create(1);

	(void)state;
	assert_non_null(board_find(&m->board, "serial0"));
	assert_null(board_find(&m->board, "floppy"));
	m_destroy(m);
}

static void test_conflict(void **state)
{
	struct machine *m = m_create(1);
	struct board second;
	struct board_config cfg = {.ncpus = 1};

	(void)state;
	m->io.nsinks = 0;
	assert_true(board_create(&m->io, &cfg, &second) < 0); /* addresses are taken: undone without a trace */
	assert_int_equal(second.ndevices, 0);
	m->io.nsinks = 2;
	m_destroy(m);
}

static void test_reset_lines(void **state)
{
	struct machine *m = m_create(1);
	uint64_t *resets = &m->requests[IO_REQ_RESET];

	(void)state;
	assert_int_equal(inb(m, 0x64) & 3, 0);
	outb(m, 0x64, 0xff);
	assert_int_equal(*resets, 0);
	outb(m, 0x64, 0xfe);
	assert_int_equal(*resets, 1);
	outb(m, 0x64, 0xd1);
	outb(m, 0x60, 0xdf);
	assert_int_equal(*resets, 1);
	assert_int_equal(inb(m, 0x92), 2);
	outb(m, 0x64, 0xd1);
	outb(m, 0x60, 0xdd);
	assert_int_equal(inb(m, 0x92), 0);
	outb(m, 0x92, 0x03);
	assert_int_equal(*resets, 2);
	outb(m, 0x64, 0xaa);
	assert_int_equal(inb(m, 0x64) & 1, 1);
	assert_int_equal(inb(m, 0x60), 0x55);
	assert_int_equal(inb(m, 0x64) & 1, 0);
	m_destroy(m);
}

static void test_debug_exit(void **state)
{
	struct machine *m = m_create(1);

	(void)state;
	outb(m, 0xf4, 0x2a);
	assert_int_equal(m->requests[IO_REQ_DEBUG_EXIT], 1);
	assert_int_equal(m->last_arg, 0x2a);
	outl(m, 0xf4, 0x12345678);
	assert_int_equal(m->last_arg, 0x12345678);
	m_destroy(m);
}

/* State saved from one machine and loaded into another: both then answer alike. */
struct tape {
	struct io_state s;
	uint8_t bytes[16384];
	size_t at;
	bool load;
};

static void tape_field(struct io_state *s, const char *name, void *p, size_t size)
{
	struct tape *t = container_of(s, struct tape, s);

	assert_non_null(name);
	assert_true(t->at + size <= sizeof(t->bytes));
	memcpy(t->load ? p : t->bytes + t->at, t->load ? t->bytes + t->at : p, size);
	t->at += size;
}

static void test_state(void **state)
{
	static struct tape t = {.s = {.field = tape_field}};
	struct machine *a = m_create(2), *b = m_create(2);
	size_t saved;

	(void)state;
	m_pic_init(a, 1);
	outb(a, 0x43, 0x34);
	outb(a, 0x40, 0x00);
	outb(a, 0x40, 0x10);
	outb(a, 0x3fc, 0x08);
	m_wrmsr(a, 0x1b, 0xfed00900);
	m_advance(a, 12345678);
	m_advance(b, 12345678);
	board_state(&a->board, &t.s);
	saved = t.at;
	t.at = 0;
	t.load = true;
	board_state(&b->board, &t.s);
	assert_int_equal(t.at, saved);
	m_advance(a, 5000000);
	m_advance(b, 5000000);
	for (unsigned port = 0; port < 0x1000; port++)
		assert_int_equal(inb(a, port), inb(b, port));
	for (unsigned off = 0; off < 0x400; off += 16)
		assert_int_equal(readl(a, 0xfed00000 + off), readl(b, 0xfed00000 + off));
	assert_int_equal(m_pending(a, 0), m_pending(b, 0));
	m_destroy(a);
	m_destroy(b);
}

static void test_hostile(void **state)
{
	struct machine *m = m_create(1);
	uint64_t v;

	(void)state;
	srand(6);
	for (unsigned i = 0; i < 500000; i++) {
		unsigned port = rand() % 0x1000, size = 1u << rand() % 4;

		if (rand() & 1)
			io_write(&m->io, IO_PIO, port, size, (uint64_t)rand() << 32 | rand());
		else
			io_read(&m->io, IO_PIO, port, size, &v);
		if (!(i % 64)) {
			m_advance(m, rand() % 1000000);
			m_ack(m, 0);
		}
	}
	board_reset(&m->board);
	m_destroy(m);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_find),	   cmocka_unit_test(test_conflict), cmocka_unit_test(test_reset_lines),
		cmocka_unit_test(test_debug_exit), cmocka_unit_test(test_state),    cmocka_unit_test(test_hostile),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
