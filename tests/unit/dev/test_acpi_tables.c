/* SPDX-License-Identifier: Apache-2.0 */
/* ACPI tables: reachable from the RSDP, checksums, sizes; the AML disassembles if iasl is there. Fixed hardware. */
#include "machine.h"

#include <stdio.h>
#include <unistd.h>

#include "dev/platform/acpi.h"

#define BASE 0xe0000ull

static uint64_t le(const uint8_t *p, unsigned n)
{
	uint64_t v = 0;

	while (n--)
		v = v << 8 | p[n];
	return v;
}

static uint8_t sum(const uint8_t *p, size_t n)
{
	uint8_t s = 0;

	while (n--)
		s += *p++;
	return s;
}

/* The table at a guest address, checked. */
static const uint8_t *table(const uint8_t *buf, int len, uint64_t addr, const char *sig)
{
	const uint8_t *t = buf + (addr - BASE);
	uint64_t size = le(t + 4, 4);

	assert_in_range(addr, BASE, BASE + len - 36);
	assert_memory_equal(t, sig, 4);
	assert_in_range(size, 36, BASE + len - addr);
	assert_int_equal(sum(t, size), 0);
	return t;
}

static void disassemble(const uint8_t *dsdt)
{
	char dir[] = "/tmp/doppel-acpi-XXXXXX", path[64], cmd[400];
	FILE *f;
	int r;

	if (system("command -v iasl >/dev/null 2>&1"))
		return;
	assert_non_null(mkdtemp(dir));
	snprintf(path, sizeof(path), "%s/dsdt.dat", dir);
	f = fopen(path, "wb");
	assert_non_null(f);
	assert_int_equal(fwrite(dsdt, 1, le(dsdt + 4, 4), f), le(dsdt + 4, 4));
	fclose(f);
	/* Recompiling without errors proves that the disassembler understood every byte. */
	snprintf(
	    cmd, sizeof(cmd),
	    "cd %s && iasl -d dsdt.dat >log 2>&1 && iasl dsdt.dsl >log2 2>&1 && grep -q ' 0 Errors, 0 Warnings' log2",
	    dir);
	r = system(cmd);
	snprintf(cmd, sizeof(cmd), "rm -rf %s", dir);
	assert_int_equal(system(cmd), 0);
	assert_int_equal(r, 0);
}

static void test_tables(void **state)
{
	static uint8_t buf[8192];
	gpa_t rsdp;
	int len = acpi_tables_build(buf, sizeof(buf), BASE, 3, 0, &rsdp);
	const uint8_t *p, *xsdt, *fadt, *madt, *dsdt, *facs;

	(void)state;
	assert_in_range(len, 200, ACPI_TABLES_MAX(3));
	assert_int_equal(rsdp, BASE);
	assert_memory_equal(buf, "RSD PTR ", 8);
	assert_int_equal(sum(buf, 20), 0);
	assert_int_equal(sum(buf, 36), 0);
	xsdt = table(buf, len, le(buf + 24, 8), "XSDT");
	fadt = table(buf, len, le(xsdt + 36, 8), "FACP");
	madt = table(buf, len, le(xsdt + 44, 8), "APIC");
	dsdt = table(buf, len, le(fadt + 140, 8), "DSDT");
	assert_int_equal(le(fadt + 4, 4), 276);
	assert_int_equal(le(fadt + 40, 4), le(fadt + 140, 8));
	facs = buf + (le(fadt + 36, 4) - BASE);
	assert_memory_equal(facs, "FACS", 4);
	assert_int_equal(le(fadt + 36, 4) % 64, 0);
	assert_int_equal(le(facs + 4, 4), 64);
	p = madt + 44;
	for (unsigned i = 0; i < 3; i++, p += 8)
		assert_int_equal(le(p, 8), 0x100000800 | i << 16 | i << 24);
	while (p < madt + le(madt + 4, 4)) {
		assert_in_range(p[1], 2, 32);
		p += p[1];
	}
	assert_ptr_equal(p, madt + le(madt + 4, 4));
	disassemble(dsdt);
}

static void test_bad_arguments(void **state)
{
	static uint8_t buf[16384];
	gpa_t rsdp;
	int len = acpi_tables_build(buf, sizeof(buf), BASE, 255, 32, &rsdp);

	(void)state;
	assert_in_range(len, 1000, ACPI_TABLES_MAX(255));
	for (int cap = 0; cap < len; cap += 7)
		assert_true(acpi_tables_build(buf, cap, BASE, 255, 32, &rsdp) < 0);
	assert_int_equal(acpi_tables_build(buf, len, BASE, 255, 32, &rsdp), len);
	assert_true(acpi_tables_build(buf, sizeof(buf), BASE + 16, 1, 0, &rsdp) < 0);
	assert_true(acpi_tables_build(buf, sizeof(buf), BASE, 0, 0, &rsdp) < 0);
	assert_true(acpi_tables_build(buf, sizeof(buf), BASE, 1, 33, &rsdp) < 0);
	assert_true(acpi_tables_build(buf, sizeof(buf), 1ull << 32, 1, 0, &rsdp) < 0);
}

static void test_fixed_hardware(void **state)
{
	struct machine *m = m_create(1);

	(void)state;
	m_pic_init(m, 1);
	outb(m, 0x4d1, 2);
	assert_int_equal(inl(m, 0x604) & 0xffff, 1); /* SCI_EN */
	m_advance(m, NS_PER_SEC);
	assert_int_equal(inl(m, 0x608), 3579545);
	acpi_power_button(board_find(&m->board, "acpi"));
	assert_false(m_pending(m, 0));
	outw(m, 0x602, 0x0100);
	assert_int_equal(m_ack(m, 0), 0x29);
	outw(m, 0x600, 0x0100);
	outb(m, 0xa0, 0x20);
	outb(m, 0x20, 0x20);
	assert_false(m_pending(m, 0));
	outw(m, 0x602, 0x0001);
	m_advance(m, 599ull * NS_PER_SEC); /* 2^31 ticks are 599.93 s */
	assert_true(m_pending(m, 0));
	assert_int_equal(inl(m, 0x600) & 1, 1);
	outw(m, 0x604, 4 << 10 | 1 << 13);
	assert_int_equal(m->requests[IO_REQ_POWEROFF], 0);
	outw(m, 0x604, 5 << 10 | 1 << 13);
	assert_int_equal(m->requests[IO_REQ_POWEROFF], 1);
	m_destroy(m);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_tables),
		cmocka_unit_test(test_bad_arguments),
		cmocka_unit_test(test_fixed_hardware),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
