/* SPDX-License-Identifier: Apache-2.0 */
/* 8259 pair: priorities, cascade, end of interrupt, spurious vectors, modes. */
#include "machine.h"

static void irq(struct machine *m, unsigned n, bool level) { io_irq_set(&m->io, n, level); }

static void test_priority(void **state)
{
	struct machine *m = m_create(1);

	(void)state;
	m_pic_init(m, 1);
	assert_false(m_pending(m, 0));
	irq(m, 5, true);
	irq(m, 3, true);
	irq(m, 13, true);
	assert_int_equal(m_ack(m, 0), 0x2d); /* the slave sits at level 2 */
	irq(m, 1, true);
	assert_int_equal(m_ack(m, 0), 0x21);
	assert_false(m_pending(m, 0));
	outb(m, 0x20, 0x20);
	assert_false(m_pending(m, 0)); /* level 2 still in service */
	outb(m, 0xa0, 0x20);
	outb(m, 0x20, 0x20);
	assert_int_equal(m_ack(m, 0), 0x23);
	outb(m, 0x20, 0x0b);
	assert_int_equal(inb(m, 0x20), 0x08);
	outb(m, 0x20, 0x0a);
	assert_int_equal(inb(m, 0x20), 0x20);
	outb(m, 0x20, 0x63); /* specific */
	assert_int_equal(m_ack(m, 0), 0x25);
	outb(m, 0x20, 0x20);
	assert_false(m_pending(m, 0)); /* held lines make no new edge */
	m_destroy(m);
}

static void test_slave_nesting(void **state)
{
	struct machine *m = m_create(1);

	(void)state;
	m_pic_init(m, 1);
	irq(m, 12, true);
	assert_int_equal(m_ack(m, 0), 0x2c);
	irq(m, 8, true);
	assert_false(m_pending(m, 0)); /* the master blocks its level 2 */
	outb(m, 0x20, 0x20);
	assert_int_equal(m_ack(m, 0), 0x28);
	m_destroy(m);

	m = m_create(1);
	m_pic_init(m, 0x11); /* special fully nested */
	irq(m, 12, true);
	assert_int_equal(m_ack(m, 0), 0x2c);
	irq(m, 3, true);
	assert_false(m_pending(m, 0));
	irq(m, 8, true);
	assert_int_equal(m_ack(m, 0), 0x28);
	m_destroy(m);
}

static void test_spurious(void **state)
{
	struct machine *m = m_create(1);

	(void)state;
	m_pic_init(m, 1);
	irq(m, 4, true);
	assert_true(m_pending(m, 0));
	irq(m, 4, false);
	assert_false(m_pending(m, 0));
	assert_int_equal(m->io.pic->ack(m->io.pic_opaque), 0x27);
	outb(m, 0x20, 0x0b);
	assert_int_equal(inb(m, 0x20), 0); /* not in service */
	m_destroy(m);
}

static void test_level(void **state)
{
	struct machine *m = m_create(1);

	(void)state;
	m_pic_init(m, 1);
	outw(m, 0x4d0, 0xffff);
	assert_int_equal(inb(m, 0x4d0), 0xf8);
	assert_int_equal(inb(m, 0x4d1), 0xde);
	irq(m, 9, true);
	assert_int_equal(m_ack(m, 0), 0x29);
	outb(m, 0xa0, 0x20);
	outb(m, 0x20, 0x20);
	assert_int_equal(m_ack(m, 0), 0x29); /* still asserted */
	irq(m, 9, false);
	outb(m, 0xa0, 0x20);
	outb(m, 0x20, 0x20);
	assert_false(m_pending(m, 0));
	m_destroy(m);
}

static void test_mask_aeoi_rotate(void **state)
{
	struct machine *m = m_create(1);

	(void)state;
	m_pic_init(m, 3); /* automatic EOI */
	outb(m, 0x21, 0x02);
	irq(m, 1, true);
	assert_false(m_pending(m, 0));
	outb(m, 0x21, 0x00);
	assert_int_equal(m_ack(m, 0), 0x21);
	irq(m, 6, true);
	assert_int_equal(m_ack(m, 0), 0x26);
	irq(m, 1, false);
	irq(m, 6, false);
	outb(m, 0x20, 0x80); /* rotate in automatic EOI mode */
	irq(m, 3, true);
	assert_int_equal(m_ack(m, 0), 0x23); /* now 4 is first, 3 last */
	irq(m, 3, false);
	irq(m, 3, true);
	irq(m, 6, true);
	assert_int_equal(m_ack(m, 0), 0x26);
	assert_int_equal(m_ack(m, 0), 0x23);
	outb(m, 0x20, 0xc0); /* set priority: 0 lowest */
	irq(m, 0, true);
	irq(m, 7, true);
	assert_int_equal(m_ack(m, 0), 0x27);
	m_destroy(m);
}

static void test_special_mask_and_poll(void **state)
{
	struct machine *m = m_create(1);

	(void)state;
	m_pic_init(m, 1);
	irq(m, 3, true);
	assert_int_equal(m_ack(m, 0), 0x23);
	irq(m, 5, true);
	assert_false(m_pending(m, 0));
	outb(m, 0x21, 0x08);
	outb(m, 0x20, 0x68);
	assert_true(m_pending(m, 0));
	outb(m, 0x20, 0x0c); /* poll */
	assert_int_equal(inb(m, 0x20), 0x85);
	assert_false(m_pending(m, 0));
	outb(m, 0x20, 0x0c);
	assert_int_equal(inb(m, 0x20), 0);
	outb(m, 0x20, 0x20);
	outb(m, 0x20, 0x0b);
	assert_int_equal(inb(m, 0x20), 0x08); /* the masked level was skipped */
	m_destroy(m);
}

/* Linux's probe_8259A(): the mask register reads back. */
static void test_probe_and_reset(void **state)
{
	struct machine *m = m_create(1);

	(void)state;
	assert_int_equal(inb(m, 0x21), 0xff);
	outb(m, 0x21, 0xfb);
	assert_int_equal(inb(m, 0x21), 0xfb);
	m_pic_init(m, 1);
	irq(m, 4, true);
	m_ack(m, 0);
	board_reset(&m->board);
	assert_int_equal(inb(m, 0x21), 0xff);
	outb(m, 0x20, 0x0b);
	assert_int_equal(inb(m, 0x20), 0);
	m_destroy(m);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_priority),	    cmocka_unit_test(test_slave_nesting),
		cmocka_unit_test(test_spurious),	    cmocka_unit_test(test_level),
		cmocka_unit_test(test_mask_aeoi_rotate),    cmocka_unit_test(test_special_mask_and_poll),
		cmocka_unit_test(test_probe_and_reset),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
