/* SPDX-License-Identifier: Apache-2.0 */
/* PCI functions: sizing and moving BARs in every order, conflicts, MSI-X masks and pending bits, the interrupt pin. */
#include "machine.h"

#include "dev/platform/pci.h"
#include "dev/platform/pci_dev.h"

struct gadget {
	struct pci_dev pci;
	uint64_t last;
};

static uint64_t g_read(void *opaque, uint64_t off, unsigned size)
{
	(void)size;
	return ((struct gadget *)opaque)->pci.devfn << 16 | off;
}

static void g_write(void *opaque, uint64_t off, unsigned size, uint64_t val)
{
	(void)size;
	((struct gadget *)opaque)->last = off << 32 | val;
}

static const struct io_handler g_handler = {.read = g_read, .write = g_write};
static const struct pci_dev_setup g_setup = {.vendor = 0x1234, .device = 0x5678, .subvendor = 1, .subdevice = 2, .class = 0x020304,
					     .revision = 9};

static void g_create(struct machine *m, struct gadget *g)
{
	pci_dev_init(&g->pci, &m->io, board_find(&m->board, "pci"), &g_setup);
	pci_dev_bar(&g->pci, 0, 0x4000, true, &g_handler, g);
	pci_dev_msix(&g->pci, 2, 3);
	assert_int_equal(pci_dev_capability(&g->pci, 0x09, 7), 0x4c);
	assert_int_equal(pci_dev_attach(&g->pci), 0);
}

static uint32_t cfg(struct machine *m, unsigned slot, unsigned reg)
{
	outl(m, 0xcf8, 0x80000000u | slot << 11 | reg);
	return inl(m, 0xcfc);
}

static void cfg_put(struct machine *m, unsigned slot, unsigned reg, uint32_t v)
{
	outl(m, 0xcf8, 0x80000000u | slot << 11 | reg);
	outl(m, 0xcfc, v);
}

static void test_header(void **state)
{
	struct machine *m = m_create(1);
	struct gadget g;

	(void)state;
	g_create(m, &g);
	assert_int_equal(cfg(m, 1, 0x00), 0x56781234);
	assert_int_equal(cfg(m, 1, 0x04), 0x00100002);
	assert_int_equal(cfg(m, 1, 0x08), 0x02030409);
	assert_int_equal(cfg(m, 1, 0x2c), 0x00020001);
	assert_int_equal(cfg(m, 1, 0x34), 0x40);
	assert_int_equal(cfg(m, 1, 0x3c), 0x010b); /* pin A, IRQ 11: odd slot */
	assert_int_equal(cfg(m, 1, 0x40), 0x00024c11);
	assert_int_equal(cfg(m, 1, 0x44), 2);
	assert_int_equal(cfg(m, 1, 0x48), 0x802);
	assert_int_equal(cfg(m, 1, 0x4c), 0x0009);
	cfg_put(m, 1, 0x00, 0);
	cfg_put(m, 1, 0x34, 0);
	cfg_put(m, 1, 0x3c, 0xffffffff);
	assert_int_equal(cfg(m, 1, 0x00), 0x56781234);
	assert_int_equal(cfg(m, 1, 0x34), 0x40);
	assert_int_equal(cfg(m, 1, 0x3c), 0x01ff);
	pci_dev_detach(&g.pci);
	assert_int_equal(cfg(m, 1, 0x00), 0xffffffff);
	m_destroy(m);
}

static void test_bars(void **state)
{
	struct machine *m = m_create(1);
	struct gadget g, h;

	(void)state;
	g_create(m, &g);
	g_create(m, &h);
	assert_int_equal(cfg(m, 1, 0x10), 0xc0000004); /* as firmware would assign them */
	assert_int_equal(cfg(m, 1, 0x18), 0xc0004000);
	assert_int_equal(cfg(m, 2, 0x10), 0xc0008004);
	assert_int_equal(readl(m, 0xc0000010), 0x080010);
	assert_int_equal(readl(m, 0xc0008010), 0x100010);
	/* Sizing, with decoding left on. */
	cfg_put(m, 1, 0x10, 0xffffffff);
	assert_int_equal(cfg(m, 1, 0x10), 0xffffc004);
	assert_int_equal(readl(m, 0xc0000010), 0xffffffff);
	cfg_put(m, 1, 0x14, 0xffffffff);
	assert_int_equal(cfg(m, 1, 0x14), 0xffffffff);
	cfg_put(m, 1, 0x10, 0xd0000000);
	assert_int_equal(readl(m, 0xd0000000), 0xffffffff); /* the upper half is still elsewhere */
	cfg_put(m, 1, 0x14, 0);
	assert_int_equal(readl(m, 0xd0003ffc), 0x083ffc);
	writel(m, 0xd0000020, 77);
	assert_int_equal(g.last, 0x20ull << 32 | 77);
	/* Onto the other one: the first keeps its place, the second gets its own when the first leaves. */
	cfg_put(m, 2, 0x10, 0xd0000000);
	assert_int_equal(readl(m, 0xd0000000), 0x080000);
	assert_int_equal(readl(m, 0xc0008000), 0xffffffff);
	cfg_put(m, 1, 0x10, 0xe0000000);
	assert_int_equal(readl(m, 0xd0000000), 0x100000);
	assert_int_equal(readl(m, 0xe0000000), 0x080000);
	/* Outside the window: RAM, the APICs. */
	cfg_put(m, 1, 0x10, 0x00100000);
	assert_int_equal(readl(m, 0x00100000), 0xffffffff);
	cfg_put(m, 1, 0x10, 0xfee00000);
	cfg_put(m, 1, 0x10, 0xfebfc000);
	assert_int_equal(readl(m, 0xfebfc000), 0x080000);
	cfg_put(m, 1, 0x04, 0); /* decoding off */
	assert_int_equal(readl(m, 0xfebfc000), 0xffffffff);
	pci_dev_reset(&g.pci);
	assert_int_equal(readl(m, 0xc0000000), 0x080000);
	pci_dev_detach(&g.pci);
	pci_dev_detach(&h.pci);
	m_destroy(m);
}

#define TABLE 0xc0004000ull
static void vector(struct machine *m, unsigned n, uint8_t v, uint32_t control)
{
	writel(m, TABLE + 16 * n, 0xfee00000);
	writel(m, TABLE + 16 * n + 4, 0);
	writel(m, TABLE + 16 * n + 8, v);
	writel(m, TABLE + 16 * n + 12, control);
}

static void test_msix(void **state)
{
	struct machine *m = m_create(1);
	struct gadget g;

	(void)state;
	g_create(m, &g);
	assert_int_equal(readl(m, TABLE + 12), 1); /* masked from reset */
	vector(m, 0, 0x50, 0);
	vector(m, 1, 0x60, 1);
	vector(m, 3, 0x70, 0); /* not there */
	assert_int_equal(readl(m, TABLE + 0x38), 0);
	msix_trigger(&g.pci.msix, 0);
	assert_false(m_pending(m, 0)); /* not enabled: lost */
	cfg_put(m, 1, 0x40, 0x80000000);
	msix_trigger(&g.pci.msix, 0);
	assert_false(m_pending(m, 0)); /* no bus mastering: pends */
	assert_int_equal(readl(m, TABLE + 0x800), 1);
	cfg_put(m, 1, 0x04, 6);
	assert_int_equal(m_ack(m, 0), 0x50);
	assert_int_equal(readl(m, TABLE + 0x800), 0);
	msix_trigger(&g.pci.msix, 1);
	msix_trigger(&g.pci.msix, 1);
	assert_int_equal(readl(m, TABLE + 0x800), 2);
	writel(m, TABLE + 0x800, 0);
	assert_int_equal(readl(m, TABLE + 0x800), 2);
	writel(m, TABLE + 28, 0); /* unmasked: one message */
	assert_int_equal(m_ack(m, 0), 0x60);
	assert_int_equal(readl(m, TABLE + 0x800), 0);
	cfg_put(m, 1, 0x40, 0xc0000000); /* function mask */
	msix_trigger(&g.pci.msix, 0);
	msix_trigger(&g.pci.msix, 3);
	msix_trigger(&g.pci.msix, 0xffff);
	assert_int_equal(readl(m, TABLE + 0x800), 1);
	writel(m, APIC(0xb0), 0);
	writel(m, APIC(0xb0), 0);
	cfg_put(m, 1, 0x40, 0x80000000);
	assert_int_equal(m_ack(m, 0), 0x50);
	writel(m, APIC(0xb0), 0);
	vector(m, 0, 0x51, 0);
	writel(m, TABLE, 0x1000); /* a message to RAM is none */
	msix_trigger(&g.pci.msix, 0);
	assert_false(m_pending(m, 0));
	pci_dev_detach(&g.pci);
	m_destroy(m);
}

/* Pin A of slots 1 and 9 is the same line: up while either is. */
static void test_intx(void **state)
{
	struct machine *m = m_create(1);
	struct gadget g[9];

	(void)state;
	m_pic_init(m, 1);
	for (unsigned i = 0; i < 9; i++)
		g_create(m, &g[i]);
	assert_int_equal(inb(m, 0x4d1), 0x0c);
	pci_dev_set_intx(&g[0].pci, true);
	assert_int_equal(cfg(m, 1, 0x04) >> 19 & 1, 1);
	assert_int_equal(m_ack(m, 0), 0x2b);
	outb(m, 0xa0, 0x20);
	outb(m, 0x20, 0x20);
	assert_true(m_pending(m, 0)); /* level */
	pci_dev_set_intx(&g[8].pci, true);
	pci_dev_set_intx(&g[0].pci, false);
	assert_true(m_pending(m, 0));
	cfg_put(m, 9, 0x04, 0x402); /* INTx off */
	assert_false(m_pending(m, 0));
	cfg_put(m, 9, 0x04, 0x002);
	assert_true(m_pending(m, 0));
	cfg_put(m, 9, 0x40, 0x80000000); /* MSI-X instead */
	assert_false(m_pending(m, 0));
	for (unsigned i = 0; i < 9; i++)
		pci_dev_detach(&g[i].pci);
	m_destroy(m);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_header), cmocka_unit_test(test_bars), cmocka_unit_test(test_msix), cmocka_unit_test(test_intx),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
