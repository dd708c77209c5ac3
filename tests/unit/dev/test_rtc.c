/* SPDX-License-Identifier: Apache-2.0 */
/* MC146818: time in its formats, setting, update, alarm and periodic interrupts. */
#include "machine.h"

static uint8_t get(struct machine *m, unsigned reg)
{
	outb(m, 0x70, reg);
	return inb(m, 0x71);
}

static void set(struct machine *m, unsigned reg, uint8_t val)
{
	outb(m, 0x70, reg);
	outb(m, 0x71, val);
}

static void assert_time(struct machine *m, unsigned century, unsigned year, unsigned month, unsigned day, unsigned wday,
			unsigned hour, unsigned min, unsigned sec)
{
	assert_int_equal(get(m, 0x32), century);
	assert_int_equal(get(m, 9), year);
	assert_int_equal(get(m, 8), month);
	assert_int_equal(get(m, 7), day);
	assert_int_equal(get(m, 6), wday);
	assert_int_equal(get(m, 4), hour);
	assert_int_equal(get(m, 2), min);
	assert_int_equal(get(m, 0), sec);
}

static void test_time(void **state)
{
	struct machine *m = m_create(1);

	(void)state;
	assert_int_equal(get(m, 0xd), 0x80);
	assert_time(m, 0x20, 0x23, 0x11, 0x14, 3, 0x22, 0x13, 0x20);
	set(m, 0xb, 0x06); /* binary */
	assert_time(m, 20, 23, 11, 14, 3, 22, 13, 20);
	set(m, 0xb, 0x04); /* 12 hours */
	assert_int_equal(get(m, 4), 0x8a);
	set(m, 0xb, 0x00);
	assert_int_equal(get(m, 4), 0x90);
	m_advance(m, 3 * 3600 * NS_PER_SEC);
	assert_int_equal(get(m, 4), 0x01);
	assert_int_equal(get(m, 7), 0x15);
	m_destroy(m);
}

static void test_set(void **state)
{
	struct machine *m = m_create(1);

	(void)state;
	set(m, 0xb, 0x82);
	set(m, 0x32, 0x20);
	set(m, 9, 0x24);
	set(m, 8, 0x02);
	set(m, 7, 0x29);
	set(m, 4, 0x23);
	set(m, 2, 0x59);
	set(m, 0, 0x58);
	m_advance(m, 10 * NS_PER_SEC); /* stands still */
	assert_int_equal(get(m, 0), 0x58);
	set(m, 0xb, 0x02);
	m_advance(m, 2 * NS_PER_SEC);
	assert_time(m, 0x20, 0x24, 0x03, 0x01, 6, 0x00, 0x00, 0x00);
	/* As Linux sets it: divider in reset, then started: the first second ends after half a second. */
	set(m, 0xb, 0x82);
	set(m, 0xa, 0x76);
	set(m, 0, 0x10);
	set(m, 0xb, 0x02);
	set(m, 0xa, 0x26);
	m_advance(m, NS_PER_SEC / 2 - 1000000);
	assert_int_equal(get(m, 0), 0x10);
	m_advance(m, 1000001);
	assert_int_equal(get(m, 0), 0x11);
	board_reset(&m->board); /* the battery keeps the time */
	assert_int_equal(get(m, 9), 0x24);
	m_destroy(m);
}

static void test_uip(void **state)
{
	struct machine *m = m_create(1);

	(void)state;
	assert_int_equal(get(m, 0xa), 0x26);
	m_advance(m, NS_PER_SEC - 244000);
	assert_int_equal(get(m, 0xa), 0xa6);
	m_advance(m, 244000);
	assert_int_equal(get(m, 0xa), 0x26);
	m_destroy(m);
}

static void test_update_interrupt(void **state)
{
	struct machine *m = m_create(1);

	(void)state;
	m_pic_init(m, 1);
	set(m, 0xb, 0x12);
	m_advance(m, NS_PER_SEC - 1);
	assert_false(m_pending(m, 0));
	m_advance(m, 1);
	assert_int_equal(m_ack(m, 0), 0x28);
	m_advance(m, 5 * NS_PER_SEC);
	assert_int_equal(get(m, 0xc) & 0xb0, 0x90); /* PF runs along with the default rate */
	assert_int_equal(get(m, 0xc), 0);
	m_destroy(m);
}

static void test_alarm(void **state)
{
	struct machine *m = m_create(1);

	(void)state;
	m_pic_init(m, 1);
	set(m, 1, 0x00);
	set(m, 3, 0x15);
	set(m, 5, 0x22);
	get(m, 0xc);
	set(m, 0xb, 0x22);
	m_advance(m, 100 * NS_PER_SEC - 1); /* 22:15:00 is 100 s away */
	assert_false(m_pending(m, 0));
	m_advance(m, 1);
	assert_int_equal(m_ack(m, 0), 0x28);
	assert_int_equal(get(m, 0xc) & 0xa0, 0xa0);
	outb(m, 0xa0, 0x20);
	outb(m, 0x20, 0x20);
	set(m, 1, 0xff); /* every second of 22:15 */
	m_advance(m, NS_PER_SEC);
	assert_true(m_pending(m, 0));
	get(m, 0xc);
	set(m, 5, 0x07); /* tomorrow */
	set(m, 1, 0x30);
	m_advance(m, (8 * 3600 + 59 * 60 + 60 + 29 - 2) * NS_PER_SEC);
	assert_false(m_pending(m, 0));
	m_advance(m, 2 * NS_PER_SEC);
	assert_true(m_pending(m, 0));
	get(m, 0xc);
	set(m, 3, 0x77); /* never */
	m_advance(m, 2 * 86400 * NS_PER_SEC);
	assert_int_equal(get(m, 0xc) & 0x20, 0);
	m_destroy(m);
}

static void test_periodic(void **state)
{
	struct machine *m = m_create(1);
	unsigned n = 0;

	(void)state;
	m_pic_init(m, 3);
	set(m, 0xa, 0x26);
	set(m, 0xb, 0x42);
	for (unsigned i = 0; i < 20000; i++) {
		m_advance_late(m, 50000, 333);
		if (m_pending(m, 0)) {
			m_ack(m, 0);
			assert_int_equal(get(m, 0xc) & 0xc0, 0xc0);
			n++;
		}
	}
	assert_in_range(n, 1023, 1024);
	m_destroy(m);
}

static void test_cmos(void **state)
{
	struct machine *m = m_create(1);
	unsigned sum = 0;

	(void)state;
	assert_int_equal(get(m, 0x15) | get(m, 0x16) << 8, 640);
	assert_int_equal(get(m, 0x34) | get(m, 0x35) << 8, (512 - 16) * 16);
	for (unsigned i = 0x10; i <= 0x2d; i++)
		sum += get(m, i);
	assert_int_equal(get(m, 0x2e) << 8 | get(m, 0x2f), sum & 0xffff);
	set(m, 0x7f, 0x42);
	assert_int_equal(get(m, 0xff), 0x42); /* bit 7 is not part of the index */
	assert_int_equal(inb(m, 0x70), 0xff);
	m_destroy(m);
}

static void test_hostile(void **state)
{
	struct machine *m = m_create(1);

	(void)state;
	srand(5);
	for (unsigned i = 0; i < 200000; i++) {
		unsigned reg = rand() & 1 ? rand() % 14 : rand() % 256;

		if (rand() & 1)
			set(m, reg, rand());
		else
			get(m, reg);
		m_advance(m, rand() % 2000000);
	}
	m_destroy(m);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_time),  cmocka_unit_test(test_set),      cmocka_unit_test(test_uip),
		cmocka_unit_test(test_update_interrupt), cmocka_unit_test(test_alarm), cmocka_unit_test(test_periodic),
		cmocka_unit_test(test_cmos),  cmocka_unit_test(test_hostile),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
