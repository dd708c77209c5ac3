/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Partition tables: GPT (UEFI specification, chapter 5) and MBR with its chain of logical partitions.
 *
 * Invariant: a part that is returned lies inside the disk. Tables are read once into a buffer and judged there; a part that
 * does not fit is left out, as if the entry were empty. No state, no locks.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "vm/boot/boot.h"
#include "vm/boot/disk.h"

#define SECTOR 512u
#define MBR_TABLE 446
#define MBR_ENTRIES 4
#define MBR_MAX_LOGICAL 60
#define GPT_ENTRY_MAX 4096
#define GPT_TABLE_MAX (1u << 20)

enum mbr_type { MBR_EMPTY = 0, MBR_EXTENDED_CHS = 0x05, MBR_EXTENDED_LBA = 0x0f, MBR_EXTENDED_LINUX = 0x85, MBR_GPT = 0xee };
enum mbr_entry { E_TYPE = 4, E_START = 8, E_SECTORS = 12, E_SIZE = 16 };
enum gpt_header { G_HEADER_SIZE = 12, G_HEADER_CRC = 16, G_MY_LBA = 24, G_ENTRIES_LBA = 72, G_ENTRIES = 80, G_ENTRY_SIZE = 84,
		  G_ENTRIES_CRC = 88, G_MIN = 92 };
enum gpt_entry { P_TYPE = 0, P_UUID = 16, P_FIRST = 32, P_LAST = 40, P_MIN = 128 };

/* CRC-32 as UEFI has it (reflected, 0xedb88320), bit by bit: a table is 16 KiB, once per boot. */
static uint32_t crc32_add(uint32_t crc, const uint8_t *buf, size_t len)
{
	for (size_t i = 0; i < len; i++) {
		crc ^= buf[i];
		for (unsigned bit = 0; bit < 8; bit++)
			crc = (crc >> 1) ^ (0xedb88320u & -(crc & 1));
	}
	return crc;
}

static bool read_sector(const struct disk *d, uint64_t lba, uint8_t buf[SECTOR])
{
	return lba < d->size / SECTOR && d->read(d->opaque, buf, SECTOR, lba * SECTOR) == 0;
}

/* Adds a part unless it is empty or reaches out of the disk; NULL then. */
static struct disk_part *add(const struct disk *d, struct disk_part *parts, int *n, uint64_t lba, uint64_t sectors)
{
	uint64_t total = d->size / SECTOR;

	if (*n == DISK_MAX_PARTS || sectors == 0 || lba >= total || sectors > total - lba)
		return NULL;
	parts[*n] = (struct disk_part){.start = lba * SECTOR, .len = sectors * SECTOR};
	return &parts[(*n)++];
}

/* The first three fields of a GUID are little-endian, the rest is in order. */
static void format_guid(const uint8_t *g, char out[40])
{
	snprintf(out, 40, "%02x%02x%02x%02x-%02x%02x-%02x%02x-%02x%02x-%02x%02x%02x%02x%02x%02x", g[3], g[2], g[1], g[0], g[5], g[4],
		 g[7], g[6], g[8], g[9], g[10], g[11], g[12], g[13], g[14], g[15]);
}

static bool gpt_header_ok(const uint8_t *h, uint64_t lba)
{
	static const uint8_t zero[4];
	uint64_t size = image_get(h, SECTOR, G_HEADER_SIZE, 4), entry = image_get(h, SECTOR, G_ENTRY_SIZE, 4);
	uint32_t crc = ~0u;

	if (memcmp(h, "EFI PART", 8) || size < G_MIN || size > SECTOR || image_get(h, SECTOR, G_MY_LBA, 8) != lba)
		return false;
	if (entry < P_MIN || entry > GPT_ENTRY_MAX || entry & (entry - 1))
		return false;
	crc = crc32_add(crc, h, G_HEADER_CRC);
	crc = crc32_add(crc, zero, sizeof(zero));
	crc = crc32_add(crc, h + G_HEADER_CRC + 4, size - G_HEADER_CRC - 4);
	return ~crc == image_get(h, SECTOR, G_HEADER_CRC, 4);
}

static bool gpt_entries_ok(const struct disk *d, uint64_t at, uint64_t bytes, uint32_t want)
{
	uint8_t buf[SECTOR];
	uint32_t crc = ~0u;

	for (uint64_t off = 0; off < bytes; off += SECTOR) {
		size_t n = bytes - off < SECTOR ? bytes - off : SECTOR;

		if (!read_sector(d, at + off / SECTOR, buf))
			return false;
		crc = crc32_add(crc, buf, n);
	}
	return ~crc == want;
}

/* The table whose header is at `lba`; -EINVAL if there is none that is right. */
static int gpt_at(const struct disk *d, uint64_t lba, struct disk_part *parts)
{
	static const uint8_t unused[16];
	uint64_t at, size, count;
	uint8_t h[SECTOR], e[SECTOR];
	int n = 0;

	if (!read_sector(d, lba, h) || !gpt_header_ok(h, lba))
		return -EINVAL;
	at = image_get(h, SECTOR, G_ENTRIES_LBA, 8);
	size = image_get(h, SECTOR, G_ENTRY_SIZE, 4);
	count = image_get(h, SECTOR, G_ENTRIES, 4);
	/* No tool writes more than 128 entries of 128 bytes. */
	if (count * size > GPT_TABLE_MAX || !gpt_entries_ok(d, at, count * size, (uint32_t)image_get(h, SECTOR, G_ENTRIES_CRC, 4)))
		return -EINVAL;
	for (uint64_t i = 0; i < count; i++) {
		const uint8_t *p = e + i * size % SECTOR;
		uint64_t first, last;
		struct disk_part *part;

		if (!read_sector(d, at + i * size / SECTOR, e))
			return -EIO;
		first = image_get(p, P_MIN, P_FIRST, 8);
		last = image_get(p, P_MIN, P_LAST, 8);
		if (!memcmp(p + P_TYPE, unused, sizeof(unused)) || last < first)
			continue;
		part = add(d, parts, &n, first, last - first + 1);
		if (!part)
			continue;
		part->number = (unsigned)i + 1;
		format_guid(p + P_UUID, part->partuuid);
	}
	return n;
}

static bool is_extended(unsigned type)
{
	return type == MBR_EXTENDED_CHS || type == MBR_EXTENDED_LBA || type == MBR_EXTENDED_LINUX;
}

/* Logical partitions: each is described by a table of its own, which points at the next one. */
static void logical(const struct disk *d, uint64_t extended, uint32_t id, struct disk_part *parts, int *n)
{
	uint64_t table = extended;
	uint8_t s[SECTOR];

	for (unsigned i = 0; i < MBR_MAX_LOGICAL; i++) {
		const uint8_t *e = s + MBR_TABLE, *next = e + E_SIZE;
		struct disk_part *part;

		if (!read_sector(d, table, s) || s[510] != 0x55 || s[511] != 0xaa)
			return;
		if (e[E_TYPE] != MBR_EMPTY) {
			part = add(d, parts, n, table + image_get(e, E_SIZE, E_START, 4), image_get(e, E_SIZE, E_SECTORS, 4));
			if (part) {
				part->number = MBR_ENTRIES + 1 + i;
				snprintf(part->partuuid, sizeof(part->partuuid), "%08x-%02x", id, part->number);
			}
		}
		if (!is_extended(next[E_TYPE]))
			return;
		table = extended + image_get(next, E_SIZE, E_START, 4);
	}
}

/* The MBR in s; -EINVAL if it is none. */
static int mbr(const struct disk *d, const uint8_t s[SECTOR], struct disk_part *parts)
{
	uint32_t id = (uint32_t)image_get(s, SECTOR, 440, 4);
	int n = 0;

	if (s[510] != 0x55 || s[511] != 0xaa)
		return -EINVAL;
	for (unsigned i = 0; i < MBR_ENTRIES; i++) {
		const uint8_t *e = s + MBR_TABLE + i * E_SIZE;
		uint64_t start = image_get(e, E_SIZE, E_START, 4);
		struct disk_part *part;

		/* The status byte tells a table from the boot code of a file system on the whole disk. */
		if (e[0] & 0x7f)
			return -EINVAL;
		if (e[E_TYPE] == MBR_EMPTY || e[E_TYPE] == MBR_GPT)
			continue;
		if (is_extended(e[E_TYPE])) {
			logical(d, start, id, parts, &n);
			continue;
		}
		part = add(d, parts, &n, start, image_get(e, E_SIZE, E_SECTORS, 4));
		if (!part)
			continue;
		part->number = i + 1;
		snprintf(part->partuuid, sizeof(part->partuuid), "%08x-%02x", id, part->number);
	}
	return n;
}

int disk_parts(const struct disk *d, struct disk_part parts[DISK_MAX_PARTS])
{
	uint8_t s[SECTOR];
	int n;

	if (!read_sector(d, 0, s))
		return -EIO;
	n = gpt_at(d, 1, parts);
	if (n < 0)
		n = gpt_at(d, d->size / SECTOR - 1, parts); /* the spare table, at the end */
	if (n < 0)
		n = mbr(d, s, parts);
	if (n > 0)
		return n;
	parts[0] = (struct disk_part){.len = d->size};
	return 1;
}
