/* SPDX-License-Identifier: Apache-2.0 */
/*
 * SMBIOS 3.0 tables (DMTF DSP0134): entry point, BIOS information, system information, enclosure, end.
 *
 * Only what guests key on: a vendor and product name. No serial numbers or UUID: they would tell machines apart that a clone must
 * not tell apart, and cloud-init reads them from its seed. Pure: fills a buffer.
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

/* One structure: header, formatted area, then its strings (each with its NUL) and a final NUL; 7.x of the specification. */
static void structure(struct tables *t, uint8_t type, const uint8_t *body, uint8_t n, const char *strings, size_t nstrings)
{
	uint8_t header[4] = {type, (uint8_t)(4 + n), (uint8_t)t->handle, (uint8_t)(t->handle >> 8)};

	t->handle++;
	put(t, header, sizeof(header));
	put(t, body, n);
	put(t, strings, nstrings);
	put(t, "", 1);
}

static void structures(struct tables *t)
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
	structure(t, 127, NULL, 0, "", 1);
}

int smbios_tables_build(uint8_t *buf, size_t cap, gpa_t base)
{
	/* 5.2.2: anchor, checksum, length, version 3.0, revision, reserved, size of the structures, their address. */
	uint8_t entry[32] = {'_', 'S', 'M', '3', '_', 0, 24, 3, 0, 0, 1, 0};
	struct tables t = {.buf = buf, .cap = cap, .len = sizeof(entry)};
	uint64_t at = base + sizeof(entry);
	uint32_t size;
	uint8_t sum = 0;

	if (cap < sizeof(entry))
		return -ENOSPC;
	structures(&t);
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
