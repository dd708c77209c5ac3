/* SPDX-License-Identifier: Apache-2.0 */
/* Local APIC: priorities, timer modes, interprocessor messages, x2APIC, virtual wire. */
#include "machine.h"

enum {
	SVR = 0xf0,
	TPR = 0x80,
	PPR = 0xa0,
	EOI = 0xb0,
	ICR = 0x300,
	ICR2 = 0x310,
	LVTT = 0x320,
	LINT0 = 0x350,
	LVTERR = 0x370,
	TMICT = 0x380,
	TMCCT = 0x390,
	TDCR = 0x3e0,
	ESR = 0x280
};
#define SELF 0x40000

static void self_ipi(struct machine *m, uint8_t vector) { writel(m, APIC(ICR), SELF | vector); }
static void eoi(struct machine *m) { writel(m, APIC(EOI), 0); }

static void test_identity(void **state)
{
	struct machine *m = m_create(2);
	uint64_t v;

	(void)state;
	assert_int_equal(readl(m, APIC(0x30)), 0x50014);
	assert_int_equal(readl(m, APIC(0x20)), 0);
	assert_int_equal(m_rdmsr(m, 0x1b, &v), 0);
	assert_int_equal(v, 0xfee00900);
	m->current = 1;
	assert_int_equal(readl(m, APIC(0x20)), 1u << 24);
	assert_int_equal(m_rdmsr(m, 0x1b, &v), 0);
	assert_int_equal(v, 0xfee00800);
	assert_int_equal(readl(m, APIC(SVR)), 0xff);
	m_destroy(m);
}

static void test_priority(void **state)
{
	struct machine *m = m_create(1);

	(void)state;
	self_ipi(m, 0x41);
	self_ipi(m, 0x52);
	self_ipi(m, 0x45);
	assert_int_equal(m->kicks[0], 3);
	assert_int_equal(m_ack(m, 0), 0x52);
	assert_int_equal(readl(m, APIC(PPR)), 0x50);
	assert_false(m_pending(m, 0));
	self_ipi(m, 0x58);
	assert_false(m_pending(m, 0)); /* same class */
	self_ipi(m, 0x61);
	assert_int_equal(m_ack(m, 0), 0x61);
	assert_int_equal(readl(m, APIC(0x100 + 0x30)), 1u << 1);
	eoi(m);
	assert_int_equal(readl(m, APIC(PPR)), 0x50);
	eoi(m);
	assert_int_equal(m_ack(m, 0), 0x58);
	eoi(m);
	m->io.lapic->cr8_write(m->io.lapic_opaque, 0, 4);
	assert_int_equal(readl(m, APIC(TPR)), 0x40);
	assert_int_equal(m_ack(m, 0), -1);
	m->kicks[0] = 0;
	m->io.lapic->cr8_write(m->io.lapic_opaque, 0, 3);
	assert_int_equal(m->kicks[0], 1);
	assert_int_equal(m_ack(m, 0), 0x45);
	eoi(m);
	assert_int_equal(m_ack(m, 0), 0x41);
	m_destroy(m);
}

static void test_timer(void **state)
{
	struct machine *m = m_create(1);

	(void)state;
	writel(m, APIC(TDCR), 0x3); /* divide by 16 */
	writel(m, APIC(LVTT), 0x40);
	writel(m, APIC(TMICT), 1000);
	m_advance(m, 8000);
	assert_int_equal(readl(m, APIC(TMCCT)), 500);
	writel(m, APIC(TDCR), 0xb); /* by 1: the count stays */
	assert_int_equal(readl(m, APIC(TMCCT)), 500);
	m_advance(m, 499);
	assert_false(m_pending(m, 0));
	m_advance(m, 1);
	assert_int_equal(m_ack(m, 0), 0x40);
	eoi(m);
	assert_int_equal(readl(m, APIC(TMCCT)), 0);
	m_advance(m, NS_PER_SEC);
	assert_false(m_pending(m, 0));
	m_destroy(m);
}

static void test_timer_periodic(void **state)
{
	struct machine *m = m_create(1);
	unsigned ticks = 0;

	(void)state;
	writel(m, APIC(TDCR), 0xb);
	writel(m, APIC(LVTT), 0x20040);
	writel(m, APIC(TMICT), 1000003);
	for (unsigned i = 0; i < 10000; i++) {
		m_advance_late(m, 100000, 777); /* served late, never a period moved */
		if (m_pending(m, 0)) {
			m_ack(m, 0);
			eoi(m);
			ticks++;
		}
	}
	assert_int_equal(ticks, NS_PER_SEC / 1000003);
	assert_int_equal(readl(m, APIC(TMCCT)), 1000003 - NS_PER_SEC % 1000003);
	writel(m, APIC(TMICT), 0);
	m_advance(m, NS_PER_SEC);
	assert_false(m_pending(m, 0));
	/* A hostile period does not storm the host. */
	writel(m, APIC(TMICT), 1);
	m->io.stats.timers = 0;
	m_advance(m, NS_PER_SEC / 100);
	assert_in_range(m->io.stats.timers, 100, 600);
	m_destroy(m);
}

static void test_timer_deadline(void **state)
{
	struct machine *m = m_create(1);
	uint64_t v;

	(void)state;
	assert_int_equal(m_wrmsr(m, 0x6e0, 1000), 0);
	m_rdmsr(m, 0x6e0, &v);
	assert_int_equal(v, 0); /* not in this mode */
	writel(m, APIC(LVTT), 0x40040);
	assert_int_equal(m_wrmsr(m, 0x6e0, 2500001), 0); /* one tick past 1 ms */
	m_rdmsr(m, 0x6e0, &v);
	assert_int_equal(v, 2500001);
	m_advance(m, 1000000);
	assert_false(m_pending(m, 0));
	m_advance(m, 1);
	assert_int_equal(m_ack(m, 0), 0x40);
	m_rdmsr(m, 0x6e0, &v);
	assert_int_equal(v, 0);
	eoi(m);
	m_wrmsr(m, 0x6e0, 5); /* in the past: at once */
	m_advance(m, 0);
	assert_int_equal(m_ack(m, 0), 0x40);
	eoi(m);
	m_wrmsr(m, 0x6e0, UINT64_MAX);
	m_advance(m, NS_PER_SEC);
	assert_false(m_pending(m, 0));
	m_wrmsr(m, 0x6e0, m_tsc(m, 0) + 25000);
	writel(m, APIC(LVTT), 0x40); /* leaving the mode disarms */
	m_advance(m, NS_PER_SEC);
	assert_false(m_pending(m, 0));
	m_destroy(m);
}

static void test_software_disable(void **state)
{
	struct machine *m = m_create(1);

	(void)state;
	self_ipi(m, 0x41);
	writel(m, APIC(SVR), 0xff);
	assert_int_equal(readl(m, APIC(LINT0)), 0x10700);
	writel(m, APIC(LINT0), 0x700);
	assert_int_equal(readl(m, APIC(LINT0)), 0x10700);
	self_ipi(m, 0x50);
	assert_int_equal(m_ack(m, 0), 0x41); /* was pending */
	eoi(m);
	assert_false(m_pending(m, 0));
	m_destroy(m);
}

static void test_errors(void **state)
{
	struct machine *m = m_create(1);

	(void)state;
	writel(m, APIC(LVTERR), 0xfe);
	self_ipi(m, 5);
	assert_int_equal(m_ack(m, 0), 0xfe);
	eoi(m);
	readl(m, APIC(0x50));
	assert_int_equal(readl(m, APIC(ESR)), 0);
	writel(m, APIC(ESR), 0);
	assert_int_equal(readl(m, APIC(ESR)), 0xa0);
	writel(m, APIC(ESR), 0);
	assert_int_equal(readl(m, APIC(ESR)), 0);
	writel(m, APIC(LVTERR), 3); /* an illegal error vector does not recurse */
	self_ipi(m, 5);
	writel(m, APIC(ESR), 0);
	assert_int_equal(readl(m, APIC(ESR)), 0x60);
	m_destroy(m);
}

static void test_ipi(void **state)
{
	struct machine *m = m_create(4);

	(void)state;
	for (m->current = 0; m->current < 4; m->current++) {
		writel(m, APIC(SVR), 0x1ff);
		writel(m, APIC(0xd0), 1u << (24 + m->current));
	}
	m->current = 0;
	writel(m, APIC(ICR2), 2u << 24);
	writel(m, APIC(ICR), 0x41);
	assert_true(m_pending(m, 2) && !m_pending(m, 1));
	assert_int_equal(m_ack(m, 2), 0x41);
	writel(m, APIC(ICR2), 0x0au << 24);
	writel(m, APIC(ICR), 0x851); /* logical, flat: CPUs 1 and 3 */
	assert_int_equal(m_ack(m, 1), 0x51);
	assert_int_equal(m_ack(m, 3), 0x51);
	assert_int_equal(m_ack(m, 0), -1);
	writel(m, APIC(ICR2), 0x0fu << 24);
	writel(m, APIC(ICR), 0x961); /* lowest priority: CPU 0 serves nothing */
	assert_int_equal(m_ack(m, 0), 0x61);
	assert_false(m_pending(m, 1) || m_pending(m, 2) || m_pending(m, 3));
	writel(m, APIC(ICR), 0xc0071); /* all but self */
	assert_false(m_pending(m, 0));
	assert_int_equal(m_ack(m, 3), 0x71);
	writel(m, APIC(ICR), 0xc0400);
	assert_int_equal(m->nmis, 3);
	writel(m, APIC(ICR2), 1u << 24);
	writel(m, APIC(ICR), 0xc500);
	writel(m, APIC(ICR), 0x8500); /* de-assert */
	assert_int_equal(m->inits, 1);
	m->current = 1;
	assert_int_equal(readl(m, APIC(SVR)), 0xff);
	m->current = 0;
	writel(m, APIC(ICR), 0x4699);
	assert_int_equal(m->starts, 1);
	assert_int_equal(m->start_vector, 0x99);
	m_destroy(m);
}

static void test_cluster(void **state)
{
	struct machine *m = m_create(2);

	(void)state;
	for (m->current = 0; m->current < 2; m->current++) {
		writel(m, APIC(SVR), 0x1ff);
		writel(m, APIC(0xe0), 0x0fffffff);
		writel(m, APIC(0xd0), (0x31u + 0x10 * m->current) << 24);
	}
	m->current = 0;
	writel(m, APIC(ICR2), 0x41u << 24);
	writel(m, APIC(ICR), 0x841);
	assert_false(m_pending(m, 0));
	assert_int_equal(m_ack(m, 1), 0x41);
	writel(m, APIC(ICR2), 0xffu << 24);
	writel(m, APIC(ICR), 0x851);
	assert_int_equal(m_ack(m, 0), 0x51);
	assert_int_equal(m_ack(m, 1), 0x51);
	m_destroy(m);
}

static void test_x2apic(void **state)
{
	struct machine *m = m_create(20);
	uint64_t v;

	(void)state;
	m->current = 17;
	assert_int_equal(m_rdmsr(m, 0x802, &v), -1);
	assert_int_equal(m_wrmsr(m, 0x1b, 0xfee00400), -1); /* EXTD without EN */
	assert_int_equal(m_wrmsr(m, 0x1b, 0xfee00c00), 0);
	assert_int_equal(m_wrmsr(m, 0x1b, 0xfee00800), -1); /* no way back but through disabled */
	assert_int_equal(m_rdmsr(m, 0x802, &v), 0);
	assert_int_equal(v, 17);
	m_rdmsr(m, 0x80d, &v);
	assert_int_equal(v, 0x10002);
	assert_int_equal(readl(m, APIC(0x20)), 0xffffffff);
	assert_int_equal(m_rdmsr(m, 0x80e, &v), -1); /* no DFR, no ICR2, no EOI read */
	assert_int_equal(m_rdmsr(m, 0x831, &v), -1);
	assert_int_equal(m_rdmsr(m, 0x80b, &v), -1);
	assert_int_equal(m_wrmsr(m, 0x80b, 1), -1);
	assert_int_equal(m_wrmsr(m, 0x802, 1), -1);
	assert_int_equal(m_wrmsr(m, 0x80f, 0x1000), -1);
	assert_int_equal(m_wrmsr(m, 0x808, 0x100), -1);
	assert_int_equal(m_wrmsr(m, 0x828, 1), -1);
	assert_int_equal(m_wrmsr(m, 0x835, 1ull << 32), -1);
	assert_int_equal(m_wrmsr(m, 0x80f, 0x1ff), 0);
	assert_int_equal(m_wrmsr(m, 0x83f, 0x41), 0);
	assert_int_equal(m_ack(m, 17), 0x41);
	assert_int_equal(m_wrmsr(m, 0x80b, 0), 0);
	assert_int_equal(m_wrmsr(m, 0x830, 17ull << 32 | 0x51), 0);
	assert_int_equal(m_ack(m, 17), 0x51);
	m_rdmsr(m, 0x830, &v);
	assert_int_equal(v, 17ull << 32 | 0x51);
	m_wrmsr(m, 0x80b, 0);
	assert_int_equal(m_wrmsr(m, 0x830, 0x10002ull << 32 | 0x861), 0); /* logical cluster 1 */
	assert_int_equal(m_ack(m, 17), 0x61);
	m_wrmsr(m, 0x80b, 0);
	assert_int_equal(m_wrmsr(m, 0x838, 100), 0);
	assert_int_equal(m_wrmsr(m, 0x1b, 0xfee00000), 0);
	assert_int_equal(m_wrmsr(m, 0x1b, 0xfee00c00), -1);
	assert_int_equal(m_wrmsr(m, 0x1b, 0xfee00800), 0);
	assert_int_equal(readl(m, APIC(SVR)), 0xff); /* reset state */
	m_destroy(m);
}

static void test_virtual_wire(void **state)
{
	struct machine *m = m_create(1);

	(void)state;
	m_pic_init(m, 1);
	io_irq_set(&m->io, 5, true);
	assert_true(m->kicks[0] > 0);
	assert_int_equal(m_ack(m, 0), 0x25);
	outb(m, 0x20, 0x20);
	io_irq_set(&m->io, 5, false);
	writel(m, APIC(LINT0), 0x10700);
	io_irq_set(&m->io, 5, true);
	assert_false(m_pending(m, 0));
	m->kicks[0] = 0;
	writel(m, APIC(LINT0), 0x700);
	assert_int_equal(m->kicks[0], 1);
	assert_int_equal(m_ack(m, 0), 0x25);
	outb(m, 0x20, 0x20);
	io_irq_set(&m->io, 5, false);
	writel(m, APIC(LINT0), 0x44); /* LINT0 as an ordinary interrupt */
	io_irq_set(&m->io, 5, true);
	assert_int_equal(m_ack(m, 0), 0x44);
	eoi(m);
	m_wrmsr(m, 0x1b, 0xfee00100); /* disabled: the PIC is wired through */
	assert_int_equal(m_ack(m, 0), 0x25);
	assert_int_equal(readl(m, APIC(0x30)), 0xffffffff);
	lapic_lint1(board_find(&m->board, "lapic"));
	assert_int_equal(m->nmis, 1);
	m_destroy(m);
}

static void test_relocation(void **state)
{
	struct machine *m = m_create(1);

	(void)state;
	assert_int_equal(m_wrmsr(m, 0x1b, 0xfed10900), 0);
	assert_int_equal(readl(m, 0xfed10030), 0x50014);
	assert_int_equal(readl(m, APIC(0x30)), 0xffffffff);
	assert_int_equal(m_wrmsr(m, 0x1b, 1ull << 50 | 0x900), -1);
	assert_int_equal(m_wrmsr(m, 0x1b, 0xfec00900), 0); /* onto the I/O APIC: the page is gone */
	assert_int_equal(readl(m, 0xfed10030), 0xffffffff);
	board_reset(&m->board);
	assert_int_equal(readl(m, APIC(0x30)), 0x50014);
	m_destroy(m);
}

static void test_msi(void **state)
{
	struct machine *m = m_create(2);

	(void)state;
	m->current = 1;
	writel(m, APIC(SVR), 0x1ff);
	m->io.lapic->msi(m->io.lapic_opaque, 0xfee01000, 0x4041);
	assert_int_equal(m_ack(m, 1), 0x41);
	assert_false(m_pending(m, 0));
	m->io.lapic->msi(m->io.lapic_opaque, 0xfeeff000, 0x0051);
	assert_int_equal(m_ack(m, 1), 0x51);
	assert_int_equal(m_ack(m, 0), 0x51);
	m->io.lapic->msi(m->io.lapic_opaque, 0x12345000, 0x0061);
	assert_false(m_pending(m, 0));
	m_destroy(m);
}

static void test_hostile(void **state)
{
	struct machine *m = m_create(2);
	uint64_t v;

	(void)state;
	srand(3);
	for (unsigned i = 0; i < 300000; i++) {
		unsigned size = 1u << rand() % 4, off = rand() % (4096 - size);

		m->current = rand() % 3; /* a CPU that does not exist, too */
		switch (rand() % 5) {
		case 0:
			io_write(&m->io, IO_MMIO, APIC(off & (rand() & 1 ? 0xff0 : 0xfff)), size,
				 (uint64_t)rand() << 16 ^ rand());
			break;
		case 1:
			io_read(&m->io, IO_MMIO, APIC(off), size, &v);
			break;
		case 2:
			m_wrmsr(m, 0x800 + rand() % 0x120, rand());
			m_rdmsr(m, 0x7f0 + rand() % 0x120, &v);
			break;
		case 3:
			m_wrmsr(m, rand() & 1 ? 0x1b : 0x6e0, 0xfee00000 | (rand() & 0xf00));
			break;
		default:
			m_ack(m, m->current);
			m_advance(m, rand() % 50000);
		}
	}
	board_reset(&m->board);
	m->current = 0;
	assert_int_equal(readl(m, APIC(SVR)), 0x1ff);
	m_destroy(m);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_identity),       cmocka_unit_test(test_priority),
		cmocka_unit_test(test_timer),	       cmocka_unit_test(test_timer_periodic),
		cmocka_unit_test(test_timer_deadline), cmocka_unit_test(test_software_disable),
		cmocka_unit_test(test_errors),	       cmocka_unit_test(test_ipi),
		cmocka_unit_test(test_cluster),	       cmocka_unit_test(test_x2apic),
		cmocka_unit_test(test_virtual_wire),   cmocka_unit_test(test_relocation),
		cmocka_unit_test(test_msi),	       cmocka_unit_test(test_hostile),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
