/* SPDX-License-Identifier: Apache-2.0 */
/*
 * ACPI tables of the board: RSDP, XSDT, FADT, FACS, MADT and a DSDT whose AML comes from a small byte builder.
 *
 * Invariant: every write goes through struct build, which refuses to pass the end of the buffer and remembers that
 * it did.
 * Locking: none, pure. Spec: ACPI 6.3, 5.2 (tables), 6.4 (resource descriptors), 20.2 (AML).
 */
#include <errno.h>
#include <string.h>

#include "dev/board.h"
#include "dev/platform/acpi.h"
#include "dev/platform/ioapic.h"
#include "dev/platform/lapic.h"
#include "dev/platform/pci.h"

struct build {
	uint8_t *buf;
	size_t cap, len;
	bool full;
};

static void put_bytes(struct build *b, const void *p, size_t n)
{
	if (n > b->cap - b->len) {
		b->full = true;
		return;
	}
	memcpy(b->buf + b->len, p, n);
	b->len += n;
}

static void put_int(struct build *b, uint64_t val, unsigned size)
{
	uint8_t bytes[8];

	for (unsigned i = 0; i < 8; i++)
		bytes[i] = val >> (8 * i);
	put_bytes(b, bytes, size);
}

static void put8(struct build *b, uint8_t val) { put_int(b, val, 1); }
static void put16(struct build *b, uint16_t val) { put_int(b, val, 2); }
static void put32(struct build *b, uint32_t val) { put_int(b, val, 4); }

static void put_align(struct build *b, size_t align)
{
	while (b->len % align && !b->full)
		put8(b, 0);
}

/* Overwrites what has been built. */
static void patch_int(struct build *b, size_t at, uint64_t val, unsigned size)
{
	for (unsigned i = 0; i < size && at + i < b->len; i++)
		b->buf[at + i] = val >> (8 * i);
}

static uint8_t checksum(const struct build *b, size_t at, size_t len)
{
	uint8_t sum = 0;

	for (size_t i = at; i < at + len && i < b->len; i++)
		sum += b->buf[i];
	return -sum;
}

/* --- tables ----------------------------------------------------------------------------------------------------- */

/* 5.2.6: the 36-byte header; length and checksum come with table_end(). */
static size_t table_begin(struct build *b, const char *signature, uint8_t revision)
{
	size_t at;

	put_align(b, 16);
	at = b->len;
	put_bytes(b, signature, 4);
	put32(b, 0);
	put8(b, revision);
	put8(b, 0);
	put_bytes(b, "DOPPEL", 6);
	put_bytes(b, "DOPPELVM", 8);
	put32(b, 1);
	put_bytes(b, "DPPL", 4);
	put32(b, 1);
	return at;
}

static void table_end(struct build *b, size_t at)
{
	patch_int(b, at + 4, b->len - at, 4);
	patch_int(b, at + 9, checksum(b, at, b->len - at), 1);
}

/* --- AML -------------------------------------------------------------------------------------------------------- */

enum { AML_NAME = 0x08, AML_BYTE = 0x0a, AML_WORD = 0x0b, AML_DWORD = 0x0c, AML_SCOPE = 0x10, AML_BUFFER = 0x11,
       AML_PACKAGE = 0x12, AML_METHOD = 0x14, AML_EXT = 0x5b, AML_ARG0 = 0x68, AML_STORE = 0x70, AML_STRING = 0x0d, AML_IF = 0xa0,
       AML_RETURN = 0xa4, AML_EXT_DEVICE = 0x82 };

/* 20.2.4: a package length of two bytes, patched at the end (nothing here reaches 4096 bytes). */
static size_t pkg_begin(struct build *b)
{
	put16(b, 0);
	return b->len - 2;
}

static void pkg_end(struct build *b, size_t at)
{
	size_t len = b->len - at;

	if (len > 0xfff)
		b->full = true;
	patch_int(b, at, 0x40 | (len & 0xf) | (len >> 4) << 8, 2);
}

static void aml_name(struct build *b, const char *name)
{
	put8(b, AML_NAME);
	put_bytes(b, name, strlen(name));
}

static void aml_int(struct build *b, uint32_t val)
{
	if (val <= 1) {
		put8(b, val); /* ZeroOp, OneOp */
	} else if (val <= 0xff) {
		put8(b, AML_BYTE);
		put8(b, val);
	} else {
		put8(b, AML_DWORD);
		put32(b, val);
	}
}

/* Compressed EISA ID: three letters of five bits, four hexadecimal digits, big-endian (19.3.4, EISAID). */
static void aml_eisa_id(struct build *b, const char id[static 7])
{
	uint32_t val = (uint32_t)(id[0] - 0x40) << 26 | (uint32_t)(id[1] - 0x40) << 21 | (uint32_t)(id[2] - 0x40) << 16;

	for (unsigned i = 0; i < 4; i++)
		val |= (uint32_t)(id[3 + i] <= '9' ? id[3 + i] - '0' : id[3 + i] - 'A' + 10) << (12 - 4 * i);
	put8(b, AML_DWORD);
	put32(b, __builtin_bswap32(val));
}

static size_t device_open(struct build *b, const char *name)
{
	size_t at;

	put8(b, AML_EXT);
	put8(b, AML_EXT_DEVICE);
	at = pkg_begin(b);
	put_bytes(b, name, 4);
	aml_name(b, "_HID");
	return at;
}

static size_t device_begin(struct build *b, const char *name, const char *hid, unsigned uid)
{
	size_t at = device_open(b, name);

	aml_eisa_id(b, hid);
	aml_name(b, "_UID");
	aml_int(b, uid);
	return at;
}

static size_t method_begin(struct build *b, const char *name, uint8_t args)
{
	size_t at;

	put8(b, AML_METHOD);
	at = pkg_begin(b);
	put_bytes(b, name, 4);
	put8(b, args);
	return at;
}

/* Name (_CRS, Buffer (n) {...}): the buffer's size is a word constant patched with the length. */
struct crs {
	size_t pkg, size, start;
};

static struct crs crs_begin(struct build *b)
{
	struct crs c;

	aml_name(b, "_CRS");
	put8(b, AML_BUFFER);
	c.pkg = pkg_begin(b);
	put8(b, AML_WORD);
	c.size = b->len;
	put16(b, 0);
	c.start = b->len;
	return c;
}

static void crs_end(struct build *b, struct crs c)
{
	put8(b, 0x79); /* end tag; checksum 0 = not computed */
	put8(b, 0);
	patch_int(b, c.size, b->len - c.start, 2);
	pkg_end(b, c.pkg);
}

/* 6.4.2.5: I/O port descriptor, 16-bit decode, fixed address. */
static void crs_io(struct build *b, uint16_t base, uint8_t len)
{
	put8(b, 0x47);
	put8(b, 1);
	put16(b, base);
	put16(b, base);
	put8(b, 1);
	put8(b, len);
}

/* 6.4.2.1: IRQ descriptor without flags: edge, active high, exclusive. */
static void crs_irq(struct build *b, unsigned irq)
{
	put8(b, 0x22);
	put16(b, 1u << irq);
}

enum { RANGE_MEMORY = 0, RANGE_IO = 1, RANGE_BUS = 2 };
/* 6.4.3.5.3 and .2: word or dword address space, producer, fixed at both ends. */
static void crs_range(struct build *b, unsigned size, uint8_t type, uint8_t type_flags, uint32_t min, uint32_t max)
{
	put8(b, size == 2 ? 0x88 : 0x87);
	put16(b, 3 + 5 * size);
	put8(b, type);
	put8(b, 0x0c);
	put8(b, type_flags);
	put_int(b, 0, size);
	put_int(b, min, size);
	put_int(b, max, size);
	put_int(b, 0, size);
	put_int(b, max - min + 1, size);
}

/* 6.2.13: pin A of every slot; `apic` chooses between its two wirings (pci.h). The bridge has no pin. */
static void dsdt_prt(struct build *b, const char *name, bool apic)
{
	size_t all, one;

	aml_name(b, name);
	put8(b, AML_PACKAGE);
	all = pkg_begin(b);
	put8(b, 31);
	for (unsigned slot = 1; slot < 32; slot++) {
		put8(b, AML_PACKAGE);
		one = pkg_begin(b);
		put8(b, 4);
		aml_int(b, slot << 16 | 0xffff);
		aml_int(b, 0);
		aml_int(b, 0); /* wired, no link device */
		aml_int(b, apic ? PCI_GSI(slot) : PCI_ISA_IRQ(slot));
		pkg_end(b, one);
	}
	pkg_end(b, all);
}

/* Method (_PRT) { If (PICM) { Return (PRTA) } Return (PRTP) } */
static void dsdt_prt_method(struct build *b)
{
	size_t method = method_begin(b, "_PRT", 0), cond;

	put8(b, AML_IF);
	cond = pkg_begin(b);
	put_bytes(b, "PICM", 4);
	put8(b, AML_RETURN);
	put_bytes(b, "PRTA", 4);
	pkg_end(b, cond);
	put8(b, AML_RETURN);
	put_bytes(b, "PRTP", 4);
	pkg_end(b, method);
}

/* 5.8.1: the operating system says which interrupt controllers it uses: 0 the 8259s, 1 the I/O APIC. */
static void dsdt_pic_method(struct build *b)
{
	size_t method;

	aml_name(b, "PICM");
	aml_int(b, 0);
	method = method_begin(b, "_PIC", 1);
	put8(b, AML_STORE);
	put8(b, AML_ARG0);
	put_bytes(b, "PICM", 4);
	pkg_end(b, method);
}

static void dsdt_pci(struct build *b)
{
	size_t dev = device_begin(b, "PCI0", "PNP0A03", 0);
	struct crs crs;

	dsdt_prt(b, "PRTA", true);
	dsdt_prt(b, "PRTP", false);
	dsdt_prt_method(b);
	crs = crs_begin(b);
	crs_range(b, 2, RANGE_BUS, 0, 0, 0xff);
	crs_io(b, PCI_CONFIG_PORT, 8);
	crs_range(b, 2, RANGE_IO, 3, 0, PCI_CONFIG_PORT - 1);
	crs_range(b, 2, RANGE_IO, 3, PCI_CONFIG_PORT + 8, 0xffff);
	crs_range(b, 4, RANGE_MEMORY, 1, BOARD_PCI_BASE, BOARD_PCI_END - 1);
	crs_end(b, crs);
	pkg_end(b, dev);
}

/* A virtio-mmio place; "LNRO0005" is no EISA ID. */
static void dsdt_virtio_mmio(struct build *b, unsigned n)
{
	char name[5] = {'V', 'M', (char)('0' + n / 10), (char)('0' + n % 10)};
	size_t dev = device_open(b, name);
	struct crs crs;

	put8(b, AML_STRING);
	put_bytes(b, "LNRO0005", 9);
	aml_name(b, "_UID");
	aml_int(b, n);
	crs = crs_begin(b);
	put8(b, 0x86); /* 6.4.3.4: 32-bit fixed memory, writable */
	put16(b, 9);
	put8(b, 1);
	put32(b, BOARD_VIRTIO_MMIO(n));
	put32(b, BOARD_VIRTIO_MMIO_SIZE);
	put8(b, 0x89); /* 6.4.3.6: interrupt, consumer, level, active high, shared */
	put16(b, 6);
	put8(b, 0x09);
	put8(b, 1);
	put32(b, PCI_GSI(n));
	crs_end(b, crs);
	pkg_end(b, dev);
}

static void dsdt_isa(struct build *b, const char *name, const char *hid, unsigned uid, uint16_t port, uint8_t len,
		     unsigned irq)
{
	size_t dev = device_begin(b, name, hid, uid);
	struct crs crs = crs_begin(b);

	crs_io(b, port, len);
	crs_irq(b, irq);
	crs_end(b, crs);
	pkg_end(b, dev);
}

static size_t build_dsdt(struct build *b, unsigned virtio_mmio)
{
	size_t at = table_begin(b, "DSDT", 2), pkg;

	/* 7.4.2: values of SLP_TYP for S5. */
	aml_name(b, "_S5_");
	put8(b, AML_PACKAGE);
	pkg = pkg_begin(b);
	put8(b, 4);
	aml_int(b, ACPI_S5_TYPE);
	aml_int(b, ACPI_S5_TYPE);
	aml_int(b, 0);
	aml_int(b, 0);
	pkg_end(b, pkg);

	dsdt_pic_method(b);
	put8(b, AML_SCOPE);
	pkg = pkg_begin(b);
	put_bytes(b, "\\_SB_", 5);
	dsdt_pci(b);
	dsdt_isa(b, "COM1", "PNP0501", 1, BOARD_COM1_PORT, 8, BOARD_COM1_IRQ);
	dsdt_isa(b, "RTC_", "PNP0B00", 0, BOARD_RTC_PORT, 2, BOARD_RTC_IRQ);
	for (unsigned n = 0; n < virtio_mmio; n++)
		dsdt_virtio_mmio(b, n);
	pkg_end(b, pkg);
	table_end(b, at);
	return at;
}

/* 5.2.10: 64 bytes, version 2; not a table with a header. */
static size_t build_facs(struct build *b)
{
	static const uint8_t rest[64 - 8 - 24 - 1];
	size_t at;

	put_align(b, 64);
	at = b->len;
	put_bytes(b, "FACS", 4);
	put32(b, 64);
	put_bytes(b, rest, 24); /* signature, vectors, lock, flags, 64-bit vector */
	put8(b, 2);
	put_bytes(b, rest, sizeof(rest));
	return at;
}

/* 5.2.9, table 5-33. GAS rows: address space 1 (I/O), bit width, offset 0, access size, address. */
enum { FADT_LEN = 276 };
static const struct {
	uint16_t off;
	uint8_t size;
	uint32_t val;
} fadt_rows[] = {
	{45, 1, 4},                                /* profile: enterprise server */
	{46, 2, ACPI_SCI_IRQ},
	{56, 4, ACPI_PM_BASE},                     /* PM1a_EVT_BLK */
	{64, 4, ACPI_PM_BASE + 4},                 /* PM1a_CNT_BLK */
	{76, 4, ACPI_PM_BASE + 8},                 /* PM_TMR_BLK */
	{88, 1, 4}, {89, 1, 2}, {91, 1, 4},        /* their lengths */
	{96, 2, 0xfff}, {98, 2, 0xfff},            /* no C2, no C3 */
	{108, 1, 0x32},                            /* RTC century register */
	{109, 2, 0x0005},                          /* legacy devices; no 8042 (bit 1); no VGA */
	/* WBINVD, C1, sleep button and RTC wake not fixed hardware, 32-bit timer, reset register */
	{112, 4, BIT(0) | BIT(2) | BIT(5) | BIT(6) | BIT(8) | BIT(10)},
	{116, 4, 1 | 8 << 8 | 1u << 24}, {120, 4, PCI_RESET_PORT}, /* RESET_REG */
	{128, 1, PCI_RESET_VALUE},
	{131, 1, 3},                               /* minor version: 6.3 */
	{148, 4, 1 | 32 << 8 | 2u << 24}, {152, 4, ACPI_PM_BASE},     /* X_PM1a_EVT_BLK */
	{172, 4, 1 | 16 << 8 | 2u << 24}, {176, 4, ACPI_PM_BASE + 4}, /* X_PM1a_CNT_BLK */
	{208, 4, 1 | 32 << 8 | 3u << 24}, {212, 4, ACPI_PM_BASE + 8}, /* X_PM_TMR_BLK */
};

static size_t build_fadt(struct build *b, gpa_t facs, gpa_t dsdt)
{
	size_t at = table_begin(b, "FACP", 6);

	while (b->len < at + FADT_LEN && !b->full)
		put8(b, 0);
	patch_int(b, at + 36, facs, 4);
	patch_int(b, at + 40, dsdt, 4);
	patch_int(b, at + 140, dsdt, 8);
	for (unsigned i = 0; i < nitems(fadt_rows); i++)
		patch_int(b, at + fadt_rows[i].off, fadt_rows[i].val, fadt_rows[i].size);
	table_end(b, at);
	return at;
}

/* 5.2.12.5: interrupt source override; flags: 0 as the bus, 0xd active high and level. */
static void madt_override(struct build *b, uint8_t irq, uint32_t gsi, uint16_t flags)
{
	put8(b, 2);
	put8(b, 10);
	put8(b, 0);
	put8(b, irq);
	put32(b, gsi);
	put16(b, flags);
}

static size_t build_madt(struct build *b, unsigned ncpus)
{
	size_t at = table_begin(b, "APIC", 5);

	put32(b, LAPIC_DEFAULT_BASE);
	put32(b, 1); /* PCAT_COMPAT: there are 8259s to be masked */
	for (unsigned i = 0; i < ncpus; i++) {
		put8(b, 0); /* 5.2.12.2: processor local APIC */
		put8(b, 8);
		put8(b, i);
		put8(b, i);
		put32(b, 1);
	}
	put8(b, 1); /* 5.2.12.3: I/O APIC */
	put8(b, 12);
	put8(b, 0);
	put8(b, 0);
	put32(b, IOAPIC_DEFAULT_BASE);
	put32(b, 0);
	madt_override(b, 0, 2, 0);
	madt_override(b, ACPI_SCI_IRQ, ACPI_SCI_IRQ, 0xd);
	for (uint8_t irq = 0; irq < 16; irq++)
		if (PCI_ISA_IRQS >> irq & 1)
			madt_override(b, irq, irq, 0xd);
	put8(b, 4); /* 5.2.12.7: LINT1 of all processors is NMI */
	put8(b, 6);
	put8(b, 0xff);
	put16(b, 0);
	put8(b, 1);
	table_end(b, at);
	return at;
}

/* 5.2.5.3: revision 2; the first checksum covers the 20 bytes of revision 0, the second all 36. */
static void build_rsdp(struct build *b, size_t at, gpa_t xsdt)
{
	memcpy(b->buf + at, "RSD PTR ", 8);
	memcpy(b->buf + at + 9, "DOPPEL", 6);
	b->buf[at + 15] = 2;
	patch_int(b, at + 20, 36, 4);
	patch_int(b, at + 24, xsdt, 8);
	patch_int(b, at + 8, checksum(b, at, 20), 1);
	patch_int(b, at + 32, checksum(b, at, 36), 1);
}

int acpi_tables_build(uint8_t *buf, size_t cap, gpa_t base, unsigned ncpus, unsigned virtio_mmio, gpa_t *rsdp)
{
	struct build b = {.buf = buf, .cap = cap};
	size_t facs, dsdt, fadt, madt, xsdt;

	if ((base & 63) || !ncpus || ncpus > LAPIC_MAX_CPUS || virtio_mmio > BOARD_VIRTIO_MMIO_MAX || base >> 32)
		return -EINVAL;
	if (cap < 64 || cap > INT32_MAX)
		return cap < 64 ? -ENOSPC : -EINVAL;
	/* The RSDP comes first, so that a search of the BIOS area finds it on its 16-byte boundary. */
	memset(buf, 0, 64);
	b.len = 64;
	facs = build_facs(&b);
	dsdt = build_dsdt(&b, virtio_mmio);
	fadt = build_fadt(&b, base + facs, base + dsdt);
	madt = build_madt(&b, ncpus);
	xsdt = table_begin(&b, "XSDT", 1);
	put_int(&b, base + fadt, 8);
	put_int(&b, base + madt, 8);
	table_end(&b, xsdt);
	if (b.full)
		return -ENOSPC;
	build_rsdp(&b, 0, base + xsdt);
	*rsdp = base;
	return b.len;
}
