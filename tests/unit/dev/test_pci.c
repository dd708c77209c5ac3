/* SPDX-License-Identifier: Apache-2.0 */
/* PCI configuration mechanism #1, reset register. */
#include "machine.h"

#include "dev/platform/pci.h"

static uint32_t fake_read(void *opaque, unsigned reg, unsigned size)
{
	(void)opaque;
	return reg << 8 | size;
}

static void fake_write(void *opaque, unsigned reg, unsigned size, uint32_t val)
{
	*(uint32_t *)opaque = reg << 24 | size << 16 | (val & 0xffff);
}

static void test_probe(void **state)
{
	struct machine *m = m_create(1);

	(void)state;
	outb(m, 0xcfb, 1); /* as Linux does */
	outl(m, 0xcf8, 0x80000000);
	assert_int_equal(inl(m, 0xcf8), 0x80000000);
	assert_int_equal(inl(m, 0xcfc), 0x0d578086);
	assert_int_equal(inb(m, 0xcfd), 0x80);
	outl(m, 0xcf8, 0x80000008);
	assert_int_equal(inl(m, 0xcfc) >> 16, 0x0600);
	outl(m, 0xcf8, 0x80000800);
	assert_int_equal(inl(m, 0xcfc), 0xffffffff);
	outl(m, 0xcf8, 0x80010000);
	assert_int_equal(inl(m, 0xcfc), 0xffffffff);
	outl(m, 0xcf8, 0x00000000);
	assert_int_equal(inl(m, 0xcfc), 0xffffffff);
	m_destroy(m);
}

static void test_function(void **state)
{
	struct machine *m = m_create(1);
	uint32_t last = 0;
	void *pci = board_find(&m->board, "pci");
	const struct pci_function fn = {
	    .devfn = 0x18, .config_read = fake_read, .config_write = fake_write, .opaque = &last};

	(void)state;
	assert_int_equal(pci_add_function(pci, &fn), 0);
	assert_true(pci_add_function(pci, &fn) < 0);
	outl(m, 0xcf8, 0x80001842);
	assert_int_equal(inl(m, 0xcf8), 0x80001840);
	assert_int_equal(inl(m, 0xcfc), 0x4004);
	assert_int_equal(inb(m, 0xcff), 0x01); /* 0x4301, one byte of it */
	outw(m, 0xcfe, 0xabcd);
	assert_int_equal(last, 0x4202abcd);
	last = 0;
	outl(m, 0xcfd, 1); /* crosses the window */
	assert_int_equal(last, 0);
	pci_remove_function(pci, 0x18);
	assert_int_equal(inl(m, 0xcfc), 0xffffffff);
	m_destroy(m);
}

static void test_reset(void **state)
{
	struct machine *m = m_create(1);

	(void)state;
	outb(m, 0xcf9, 0x02);
	assert_int_equal(m->requests[IO_REQ_RESET], 0);
	outb(m, 0xcf9, 0x06);
	assert_int_equal(m->requests[IO_REQ_RESET], 1);
	outb(m, 0xcf9, 0x06);
	assert_int_equal(m->requests[IO_REQ_RESET], 1);
	m_destroy(m);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_probe), cmocka_unit_test(test_function), cmocka_unit_test(test_reset)};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
