/* SPDX-License-Identifier: Apache-2.0 */
/* 16550A: identification, FIFO and its interrupts, loopback, OUT2 gate. */
#include "machine.h"

enum { P = 0x3f8, IRQ4 = 0x24 };

static void test_identify(void **state)
{
	struct machine *m = m_create(1);

	(void)state;
	outb(m, P + 7, 0x5a);
	assert_int_equal(inb(m, P + 7), 0x5a);
	outb(m, P + 1, 0xff);
	assert_int_equal(inb(m, P + 1), 0x0f);
	outb(m, P + 2, 0x01);
	assert_int_equal(inb(m, P + 2) & 0xc0, 0xc0);
	outb(m, P + 2, 0x00);
	assert_int_equal(inb(m, P + 2) & 0xc0, 0);
	outb(m, P + 3, 0x83);
	outb(m, P, 0x01);
	outb(m, P + 1, 0x02);
	assert_int_equal(inb(m, P), 0x01);
	assert_int_equal(inb(m, P + 1), 0x02);
	outb(m, P + 3, 0x03);
	assert_int_equal(inb(m, P + 1), 0x0f);
	assert_int_equal(inb(m, P + 5), 0x60);
	m_destroy(m);
}

static void test_output(void **state)
{
	struct machine *m = m_create(1), *other = m_create(1);

	(void)state;
	outb(m, P, 'h');
	outb(m, P, 'i');
	outb(other, P, '!');
	assert_memory_equal(m->out, "hi", 2);
	assert_int_equal(m->nout, 2);
	assert_int_equal(other->nout, 1);
	m_destroy(m);
	m_destroy(other);
}

/* What the Linux driver does to find chips whose transmitter interrupt does not come again. */
static void test_thre(void **state)
{
	struct machine *m = m_create(1);

	(void)state;
	m_pic_init(m, 1);
	outb(m, P + 4, 0x0b);
	assert_int_equal(inb(m, P + 2), 0x01);
	outb(m, P + 1, 0x02);
	assert_true(m_pending(m, 0));
	assert_int_equal(m_ack(m, 0), IRQ4);
	outb(m, 0x20, 0x20);
	assert_int_equal(inb(m, P + 2), 0x02);
	assert_int_equal(inb(m, P + 2), 0x01); /* reading acknowledged it */
	outb(m, P + 1, 0x00);
	outb(m, P + 1, 0x02);
	assert_int_equal(inb(m, P + 2), 0x02); /* and enabling raises it again */
	outb(m, P, 'x');
	assert_true(m_pending(m, 0));
	assert_int_equal(inb(m, P + 2), 0x02);
	assert_false(m_pending(m, 0)); /* an edge that went away before its acknowledge */
	m_destroy(m);
}

static void test_receive(void **state)
{
	struct machine *m = m_create(1);
	void *uart = board_find(&m->board, "serial0");
	uint8_t text[20] = "0123456789abcdefghi";

	(void)state;
	assert_int_equal(serial_input(uart, text, 2), 0); /* nobody asserts RTS */
	m->rooms = 0;
	outb(m, P + 4, 0x02);
	assert_int_equal(m->rooms, 1);
	assert_int_equal(serial_input(uart, text, 2), 1); /* no FIFO: one holding register */
	assert_int_equal(inb(m, P), '0');
	outb(m, P + 2, 0x81); /* trigger 8 */
	outb(m, P + 1, 0x01);
	assert_int_equal(serial_input(uart, text, 7), 7);
	assert_int_equal(inb(m, P + 2), 0xc1);
	assert_int_equal(inb(m, P + 5) & 1, 1);
	m_advance(m, 100 * 1000 * 1000); /* four characters at 9600 baud are 4 ms */
	assert_int_equal(inb(m, P + 2), 0xcc);
	assert_int_equal(inb(m, P), '0');
	assert_int_equal(inb(m, P + 2), 0xc1); /* reading restarts the time-out */
	assert_int_equal(serial_input(uart, text + 7, 13), 10);
	assert_int_equal(serial_room(uart), 0);
	assert_int_equal(inb(m, P + 2), 0xc4);
	m->rooms = 0;
	for (unsigned i = 1; i < 17; i++)
		assert_int_equal(inb(m, P), text[i]);
	assert_int_equal(m->rooms, 1);
	assert_int_equal(inb(m, P + 2), 0xc1);
	assert_int_equal(inb(m, P + 5) & 1, 0);
	m_destroy(m);
}

/* A guest that never touches MCR but polls LSR gets its input all the same; one that polls for the transmitter does not. */
static void test_polling(void **state)
{
	struct machine *m = m_create(1);
	void *uart = board_find(&m->board, "serial0");

	(void)state;
	for (unsigned i = 0; i < 1000; i++) {
		inb(m, P + 5);
		outb(m, P, '.');
	}
	assert_int_equal(serial_input(uart, (const uint8_t *)"q", 1), 0);
	m->rooms = 0;
	for (unsigned i = 0; i < 100; i++)
		inb(m, P + 5);
	assert_int_equal(m->rooms, 1);
	assert_int_equal(serial_input(uart, (const uint8_t *)"q", 1), 1);
	assert_int_equal(inb(m, P), 'q');
	m_destroy(m);
}

static void test_line_status(void **state)
{
	struct machine *m = m_create(1);
	void *uart = board_find(&m->board, "serial0");

	(void)state;
	outb(m, P + 4, 0x02);
	outb(m, P + 2, 0x01);
	outb(m, P + 1, 0x05);
	serial_input(uart, (const uint8_t *)"a", 1);
	serial_break(uart);
	assert_int_equal(inb(m, P + 2) & 0xf, 0x04); /* the break is behind 'a' */
	assert_int_equal(inb(m, P + 5), 0xe1);
	assert_int_equal(inb(m, P), 'a');
	assert_int_equal(inb(m, P + 2) & 0xf, 0x06);
	assert_int_equal(inb(m, P + 5) & 0x1f, 0x19);
	assert_int_equal(inb(m, P + 5) & 0x1f, 0x01);
	assert_int_equal(inb(m, P), 0);
	m_destroy(m);
}

static void test_loopback(void **state)
{
	struct machine *m = m_create(1);

	(void)state;
	m_pic_init(m, 1);
	outb(m, P + 4, 0x1a); /* LOOP, OUT2, RTS */
	assert_int_equal(inb(m, P + 6) & 0xf0, 0x90);
	outb(m, P, 'L');
	assert_int_equal(m->nout, 0);
	assert_int_equal(inb(m, P), 'L');
	outb(m, P, '1');
	outb(m, P, '2');
	assert_int_equal(inb(m, P + 5) & 3, 3); /* overrun */
	assert_int_equal(inb(m, P), '2');
	outb(m, P + 1, 0x0f);
	assert_int_not_equal(inb(m, P + 2) & 1, 1);
	assert_false(m_pending(m, 0)); /* OUT2 is off at the pin */
	outb(m, P + 4, 0x08);
	assert_true(m_pending(m, 0));
	outb(m, P + 4, 0x00);
	assert_false(m_pending(m, 0));
	m_destroy(m);
}

static void test_hostile(void **state)
{
	struct machine *m = m_create(1);
	uint64_t v;

	(void)state;
	srand(1);
	for (unsigned i = 0; i < 200000; i++) {
		unsigned port = P + rand() % 8, size = 1u << rand() % 4;

		if (rand() & 1)
			io_write(&m->io, IO_PIO, port, size, rand());
		else
			io_read(&m->io, IO_PIO, port, size, &v);
		m->nout = 0;
		serial_input(board_find(&m->board, "serial0"), (const uint8_t *)"abcdefgh", rand() % 8);
		m_advance(m, rand() % 100000);
	}
	board_reset(&m->board);
	assert_int_equal(inb(m, P + 5), 0x60);
	m_destroy(m);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_identify), cmocka_unit_test(test_output),	     cmocka_unit_test(test_thre),
		cmocka_unit_test(test_receive), cmocka_unit_test(test_polling),	 cmocka_unit_test(test_line_status), cmocka_unit_test(test_loopback),
		cmocka_unit_test(test_hostile),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
