/* SPDX-License-Identifier: Apache-2.0 */
/* I/O APIC: redirection, edge and level, remote IRR, EOI by message and by register. */
#include "machine.h"

#define IOAPIC 0xfec00000ull

static uint32_t get(struct machine *m, unsigned index)
{
	writel(m, IOAPIC, index);
	return readl(m, IOAPIC + 0x10);
}

static void set(struct machine *m, unsigned index, uint32_t val)
{
	writel(m, IOAPIC, index);
	writel(m, IOAPIC + 0x10, val);
}

static void rte(struct machine *m, unsigned pin, uint32_t low)
{
	set(m, 0x11 + 2 * pin, 0);
	set(m, 0x10 + 2 * pin, low);
}
static void irq(struct machine *m, unsigned n, bool level) { io_irq_set(&m->io, n, level); }
static void eoi(struct machine *m) { writel(m, APIC(0xb0), 0); }

static void test_registers(void **state)
{
	struct machine *m = m_create(1);

	(void)state;
	assert_int_equal(get(m, 1), 0x00170020);
	assert_int_equal(get(m, 0x10), 0x10000);
	assert_int_equal(get(m, 0x40), 0);
	set(m, 0, 0x0f000000);
	assert_int_equal(get(m, 0), 0x0f000000);
	set(m, 0x3e, 0xffffffff);
	assert_int_equal(get(m, 0x3e), 0x0001afff); /* status and remote IRR are read-only */
	set(m, 0x3f, 0xffffffff);
	assert_int_equal(get(m, 0x3f), 0xff000000);
	m_destroy(m);
}

static void test_edge(void **state)
{
	struct machine *m = m_create(1);

	(void)state;
	rte(m, 4, 0x34);
	irq(m, 4, true);
	assert_int_equal(m_ack(m, 0), 0x34);
	eoi(m);
	irq(m, 4, true);
	assert_false(m_pending(m, 0));
	irq(m, 4, false);
	rte(m, 4, 0x10034);
	irq(m, 4, true); /* lost while masked */
	rte(m, 4, 0x34);
	assert_false(m_pending(m, 0));
	rte(m, 2, 0x32); /* the timer's override */
	irq(m, 0, true);
	assert_int_equal(m_ack(m, 0), 0x32);
	irq(m, 2, true);
	irq(m, 24, true);
	irq(m, 1000, true);
	m_destroy(m);
}

static void test_level(void **state)
{
	struct machine *m = m_create(1);

	(void)state;
	rte(m, 9, 0x8039);
	irq(m, 9, true);
	assert_int_equal(get(m, 0x10 + 18) & 0x4000, 0x4000);
	assert_int_equal(m_ack(m, 0), 0x39);
	assert_int_equal(readl(m, APIC(0x180 + 0x10)), 1u << (0x39 - 0x20));
	irq(m, 9, false);
	irq(m, 9, true);
	assert_int_equal(readl(m, APIC(0x200 + 0x10)), 0); /* remote IRR holds it back */
	eoi(m);
	assert_int_equal(m_ack(m, 0), 0x39); /* still asserted */
	irq(m, 9, false);
	eoi(m);
	assert_int_equal(get(m, 0x10 + 18) & 0x4000, 0);
	assert_false(m_pending(m, 0));
	rte(m, 9, 0x18039);
	irq(m, 9, true);
	assert_false(m_pending(m, 0));
	rte(m, 9, 0x8039); /* a level is still there when unmasked */
	assert_int_equal(m_ack(m, 0), 0x39);
	writel(m, IOAPIC + 0x40, 0x39); /* directed EOI */
	assert_int_equal(get(m, 0x10 + 18) & 0x4000, 0x4000);
	irq(m, 9, false);
	writel(m, IOAPIC + 0x40, 0x39);
	assert_int_equal(get(m, 0x10 + 18) & 0x4000, 0);
	m_destroy(m);
}

static void test_nmi_and_extint(void **state)
{
	struct machine *m = m_create(1);

	(void)state;
	rte(m, 5, 0x8400); /* NMI is an edge even with the level bit */
	irq(m, 5, true);
	assert_int_equal(m->nmis, 1);
	assert_int_equal(get(m, 0x10 + 10) & 0x4000, 0);
	m_pic_init(m, 1);
	writel(m, APIC(0x350), 0x10700);
	rte(m, 6, 0x700);
	irq(m, 6, true);
	irq(m, 5, false);
	assert_int_equal(m_ack(m, 0), 0x26);
	m_destroy(m);
}

static void test_two_machines_and_reset(void **state)
{
	struct machine *a = m_create(1), *b = m_create(1);

	(void)state;
	rte(a, 4, 0x34);
	rte(b, 4, 0x44);
	irq(b, 4, true);
	assert_false(m_pending(a, 0));
	assert_int_equal(m_ack(b, 0), 0x44);
	board_reset(&a->board);
	assert_int_equal(get(a, 0x18), 0x10000);
	m_destroy(a);
	m_destroy(b);
}

static void test_hostile(void **state)
{
	struct machine *m = m_create(1);
	uint64_t v;

	(void)state;
	srand(4);
	for (unsigned i = 0; i < 200000; i++) {
		unsigned size = 1u << rand() % 4;

		if (rand() & 1)
			set(m, rand() & 0xff, (uint32_t)rand() << 8 ^ rand());
		io_write(&m->io, IO_MMIO, IOAPIC + rand() % (4096 - size), size, rand());
		io_read(&m->io, IO_MMIO, IOAPIC + rand() % (4096 - size), size, &v);
		irq(m, rand() % 32, rand() & 1);
		m_ack(m, 0);
		eoi(m);
	}
	m_destroy(m);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_registers),	cmocka_unit_test(test_edge),
		cmocka_unit_test(test_level),		cmocka_unit_test(test_nmi_and_extint),
		cmocka_unit_test(test_two_machines_and_reset), cmocka_unit_test(test_hostile),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
