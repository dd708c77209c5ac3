/* SPDX-License-Identifier: Apache-2.0 */
/*
 * SMBIOS 3.0 tables (DMTF DSP0134): the structures that annex A requires, but for caches (CPUID tells) and slots (PCI tells).
 *
 * A vendor and product name for guests that key on them; a processor and the memory for inventories. No serial numbers or UUID: they
 * would tell machines apart that a clone must not tell apart, and cloud-init reads them from its seed. Pure: fills a buffer. What
 * does not fit is noted in `full` and makes the whole fail.
 */
#include "dev/platform/smbios.h"

#include <errno.h>
#include <string.h>

struct tables {
	uint8_t *buf;
	size_t cap, len;
	uint16_t handle;
	bool full;
};

static void put(struct tables *t, const void *p, size_t n)
{
	if (t->cap - t->len < n) {
		t->full = true;
		return;
	}
	if (n) /* p may be NULL then */
		memcpy(t->buf + t->len, p, n);
	t->len += n;
}

/* One structure: header, formatted area, then its strings (each with its NUL) and a final NUL; 7.x of the specification. Its handle. */
static uint16_t structure(struct tables *t, uint8_t type, const void *body, size_t n, const char *strings, size_t nstrings)
{
	uint8_t header[4] = {type, (uint8_t)(4 + n), (uint8_t)t->handle, (uint8_t)(t->handle >> 8)};

	put(t, header, sizeof(header));
	put(t, body, n);
	put(t, strings, nstrings);
	put(t, "", 1);
	return t->handle++;
}

static void platform(struct tables *t)
{
	static const char bios[] = "doppel\0001.0\00001/01/2026";
	static const char system[] = "doppel\0Virtual Machine\0001";
	static const char enclosure[] = "doppel";
	/* 7.1: vendor, version, segment, date, ROM size, characteristics (none known), extension (a virtual machine), releases. */
	const uint8_t bios_info[] = {1, 2, 0x00, 0xf0, 3, 0, 8, 0, 0, 0, 0, 0, 0, 0, 0, 0x10, 1, 0, 0xff, 0xff};
	/* 7.2: manufacturer, product, version, serial, UUID (all zero: not present), wake-up type (power switch), SKU, family. */
	const uint8_t system_info[] = {1, 2, 3, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 6, 0, 0};
	/* 7.4: manufacturer, type (other), version, serial, asset tag, states (safe), security (unknown). */
	const uint8_t enclosure_info[] = {1, 1, 0, 0, 0, 3, 3, 3, 2};

	structure(t, 0, bios_info, sizeof(bios_info), bios, sizeof(bios));
	structure(t, 1, system_info, sizeof(system_info), system, sizeof(system));
	structure(t, 3, enclosure_info, sizeof(enclosure_info), enclosure, sizeof(enclosure));
}

/* 7.5: one package, as CPUID has it. Fields from offset 4 on. */
struct __attribute__((packed)) processor {
	uint8_t socket, type, family, manufacturer;
	uint32_t id[2];
	uint8_t version, voltage;
	uint16_t clock, max_mhz, mhz;
	uint8_t status, upgrade;
	uint16_t cache[3];
	uint8_t serial, asset, part, cores, enabled, threads;
	uint16_t characteristics, family2, cores2, enabled2, threads2;
};
static_assert(sizeof(struct processor) == 0x30 - 4, "version 3.0");

static void put_processor(struct tables *t, const struct smbios_config *c)
{
	char strings[8 + sizeof(c->vendor) + sizeof(c->brand)];
	struct processor p = {
		.socket = 1, .type = 3 /* central */, .family = 1 /* other */, .manufacturer = 2, .version = 3,
		.id = {c->signature, c->features}, .max_mhz = (uint16_t)c->mhz, .mhz = (uint16_t)c->mhz,
		.status = 0x41 /* there, enabled */, .upgrade = 1 /* other */, .cache = {0xffff, 0xffff, 0xffff},
		.cores = (uint8_t)c->ncpus, .enabled = (uint8_t)c->ncpus, .threads = (uint8_t)c->ncpus,
		/* 7.5.9: 64 bits, several cores, execute protection */
		.characteristics = (uint16_t)(1u << 2 | (c->ncpus > 1 ? 1u << 3 : 0) | 1u << 5), .family2 = 1,
		.cores2 = (uint16_t)c->ncpus, .enabled2 = (uint16_t)c->ncpus, .threads2 = (uint16_t)c->ncpus,
	};
	const char *const list[] = {"CPU 0", c->vendor[0] ? c->vendor : "unknown", c->brand[0] ? c->brand : "unknown"};
	size_t len = 0;

	for (unsigned i = 0; i < 3; i++) { /* an empty string would end the list */
		memcpy(strings + len, list[i], strlen(list[i]) + 1);
		len += strlen(list[i]) + 1;
	}
	structure(t, 4, &p, sizeof(p), strings, len);
}

#define MIB (1ull << 20)
#define KIB (1ull << 10)
#define NOT_TOLD 0xfffe            /* handle of error information: none is provided */

struct __attribute__((packed)) memory_array {  /* 7.17 */
	uint8_t location, use, correction;
	uint32_t max_kib;
	uint16_t errors, devices;
	uint64_t max_bytes;
};
static_assert(sizeof(struct memory_array) == 0x17 - 4, "version 2.7");

struct __attribute__((packed)) memory_device { /* 7.18 */
	uint16_t array, errors, total_width, data_width, mib;
	uint8_t form, set, locator, bank, type;
	uint16_t detail, speed;
	uint8_t manufacturer, serial, asset, part, attributes;
	uint32_t mib_large;
	uint16_t configured_speed, min_mv, max_mv, mv;
};
static_assert(sizeof(struct memory_device) == 0x28 - 4, "version 2.8");

struct __attribute__((packed)) memory_address { /* 7.20 */
	uint32_t first_kib, last_kib;
	uint16_t array;
	uint8_t width;
	uint64_t first, last;
};
static_assert(sizeof(struct memory_address) == 0x1f - 4, "version 2.7");

/* A range of the address space; what 32 bits of KiB cannot say goes into the wide fields instead. */
static void put_range(struct tables *t, uint16_t array, uint64_t first, uint64_t size)
{
	uint64_t last = first + size - 1;
	struct memory_address m = {.array = array, .width = 1, .first_kib = UINT32_MAX, .last_kib = UINT32_MAX};

	if (last / KIB < UINT32_MAX) {
		m.first_kib = (uint32_t)(first / KIB);
		m.last_kib = (uint32_t)(last / KIB);
	} else {
		m.first = first;
		m.last = last;
	}
	structure(t, 19, &m, sizeof(m), "", 1);
}

/* One array with one module in it. */
static void put_memory(struct tables *t, const struct smbios_config *c)
{
	static const char strings[] = "DIMM 0\0doppel";
	uint64_t size = c->low_ram + c->high_ram, mib = size / MIB;
	bool wide = size / KIB >= 0x80000000u, large = mib >= 0x7fff;
	struct memory_array a = {.location = 1 /* other */, .use = 3 /* system memory */, .correction = 2 /* unknown */,
				 .max_kib = wide ? 0x80000000u : (uint32_t)(size / KIB), .max_bytes = wide ? size : 0,
				 .errors = NOT_TOLD, .devices = 1};
	struct memory_device d = {.errors = NOT_TOLD, .total_width = 0xffff, .data_width = 0xffff /* unknown */,
				  .mib = large ? 0x7fff : (uint16_t)mib, .mib_large = large ? (uint32_t)mib : 0,
				  .form = 9 /* DIMM */, .locator = 1, .type = 7 /* RAM */, .detail = 2 /* other */, .manufacturer = 2};

	d.array = structure(t, 16, &a, sizeof(a), "", 1);
	structure(t, 17, &d, sizeof(d), strings, sizeof(strings));
	put_range(t, d.array, 0, c->low_ram);
	if (c->high_ram)
		put_range(t, d.array, 4ull << 30, c->high_ram);
}

static void structures(struct tables *t, const struct smbios_config *c)
{
	const uint8_t boot[7] = {0}; /* 7.33: six reserved, no errors detected */

	platform(t);
	put_processor(t, c);
	put_memory(t, c);
	structure(t, 32, boot, sizeof(boot), "", 1);
	structure(t, 127, NULL, 0, "", 1);
}

int smbios_tables_build(uint8_t *buf, size_t cap, gpa_t base, const struct smbios_config *c)
{
	/* 5.2.2: anchor, checksum, length, version 3.0, revision, reserved, size of the structures, their address. */
	uint8_t entry[32] = {'_', 'S', 'M', '3', '_', 0, 24, 3, 0, 0, 1, 0};
	struct tables t = {.buf = buf, .cap = cap, .len = sizeof(entry)};
	uint64_t at = base + sizeof(entry);
	uint32_t size;
	uint8_t sum = 0;

	if (cap < sizeof(entry))
		return -ENOSPC;
	if (!memchr(c->vendor, 0, sizeof(c->vendor)) || !memchr(c->brand, 0, sizeof(c->brand)) || c->ncpus > UINT8_MAX)
		return -EINVAL;
	structures(&t, c);
	if (t.full)
		return -ENOSPC;
	size = (uint32_t)(t.len - sizeof(entry));
	memcpy(entry + 12, &size, 4);
	memcpy(entry + 16, &at, 8);
	for (unsigned i = 0; i < 24; i++)
		sum = (uint8_t)(sum + entry[i]);
	entry[5] = (uint8_t)-sum;
	memcpy(buf, entry, sizeof(entry));
	return (int)t.len;
}
