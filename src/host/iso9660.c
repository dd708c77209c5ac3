/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Writing a small ISO 9660 image (iso9660.h). Sectors of 2048 bytes:
 *
 *   0-15 unused | 16 volume descriptor | 17 its end | 18, 19 path tables (little, big endian) | 20 top folder | 21... files
 *
 * Most numbers are stored twice, little-endian and then big-endian.
 */
#include "host/iso9660.h"

#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/types.h"

#define SECTOR 2048u

enum layout { S_DESCRIPTOR = 16, S_END = 17, S_PATHS_LE = 18, S_PATHS_BE = 19, S_FOLDER = 20, S_FILES = 21 };
/* Offsets in the volume descriptor (ECMA-119 8.4) and in a folder's record (9.1). */
enum descriptor { D_SYSTEM = 8, D_VOLUME = 40, D_BLOCKS = 80, D_SET = 120, D_SEQUENCE = 124, D_BLOCK_SIZE = 128, D_PATHS_SIZE = 132,
		  D_PATHS_LE = 140, D_PATHS_BE = 148, D_ROOT = 156, D_TEXTS = 190, D_DATES = 813, D_VERSION = 881 };
enum record { R_LENGTH = 0, R_EXTENT = 2, R_SIZE = 10, R_DATE = 18, R_FLAGS = 25, R_SEQUENCE = 28, R_NAME_LENGTH = 32, R_NAME = 33 };
#define R_FOLDER 2

static void le16(uint8_t *p, unsigned v) { p[0] = (uint8_t)v; p[1] = (uint8_t)(v >> 8); }
static void be16(uint8_t *p, unsigned v) { p[0] = (uint8_t)(v >> 8); p[1] = (uint8_t)v; }
static void le32(uint8_t *p, uint32_t v) { le16(p, v & 0xffff); le16(p + 2, v >> 16); }
static void be32(uint8_t *p, uint32_t v) { be16(p, v >> 16); be16(p + 2, v & 0xffff); }
static void both16(uint8_t *p, unsigned v) { le16(p, v); be16(p + 2, v); }
static void both32(uint8_t *p, uint32_t v) { le32(p, v); be32(p + 4, v); }

static void text(uint8_t *p, size_t size, const char *s)
{
	memset(p, ' ', size);
	memcpy(p, s, strlen(s) < size ? strlen(s) : size);
}

/* A record with its ISO name (len bytes); the length so far, even as it must be. */
static unsigned record(uint8_t *r, const char *name, unsigned len, unsigned sector, size_t size, unsigned flags)
{
	static const uint8_t date[7] = {70, 1, 1}; /* the epoch: equal files make equal images */
	unsigned total = R_NAME + len + !(len & 1);

	both32(r + R_EXTENT, sector);
	both32(r + R_SIZE, (uint32_t)size);
	memcpy(r + R_DATE, date, sizeof(date));
	r[R_FLAGS] = (uint8_t)flags;
	both16(r + R_SEQUENCE, 1);
	r[R_NAME_LENGTH] = (uint8_t)len;
	memcpy(r + R_NAME, name, len);
	r[R_LENGTH] = (uint8_t)total;
	return total;
}

/* Adds a system use entry: signature, version 1, `len` bytes of data that the caller fills in. */
static uint8_t *entry(uint8_t *r, const char *signature, unsigned len)
{
	uint8_t *e = r + r[R_LENGTH];

	memcpy(e, signature, 2);
	e[2] = (uint8_t)(4 + len);
	e[3] = 1;
	r[R_LENGTH] = (uint8_t)(r[R_LENGTH] + 4 + len);
	return e + 4;
}

/* PX: mode and link count, owned by root. */
static void entry_mode(uint8_t *r, unsigned mode, unsigned links)
{
	uint8_t *e = entry(r, "PX", 32);

	both32(e, mode);
	both32(e + 8, links);
}

static uint8_t *end_record(uint8_t *r)
{
	r[R_LENGTH] = (uint8_t)(r[R_LENGTH] + (r[R_LENGTH] & 1));
	return r + r[R_LENGTH];
}

/* "user-data" -> "USER_DATA.;1", for readers without Rock Ridge. */
static unsigned iso_name(char out[ISO9660_NAME_MAX + 4], const char *name)
{
	unsigned n = 0;

	for (; name[n]; n++)
		out[n] = isalnum((unsigned char)name[n]) ? (char)toupper((unsigned char)name[n]) : '_';
	memcpy(out + n, ".;1", 4);
	return n + 3;
}

static void make_folder(uint8_t *r, const struct iso9660_file *file, unsigned nfiles)
{
	unsigned sector = S_FILES;
	uint8_t *e;

	record(r, "\0", 1, S_FOLDER, SECTOR, R_FOLDER);
	e = entry(r, "SP", 3);
	e[0] = 0xbe;
	e[1] = 0xef;
	entry_mode(r, 040555, 2);
	r = end_record(r);
	record(r, "\1", 1, S_FOLDER, SECTOR, R_FOLDER);
	entry_mode(r, 040555, 2);
	r = end_record(r);
	for (unsigned i = 0; i < nfiles; i++) {
		char name[ISO9660_NAME_MAX + 4];
		unsigned len = (unsigned)strlen(file[i].name);

		record(r, name, iso_name(name, file[i].name), sector, file[i].size, 0);
		e = entry(r, "NM", 1 + len);
		memcpy(e + 1, file[i].name, len);
		entry_mode(r, 0100444, 1);
		r = end_record(r);
		sector += (unsigned)((file[i].size + SECTOR - 1) / SECTOR);
	}
}

static void make_descriptor(uint8_t *d, const char *volume, unsigned sectors)
{
	memcpy(d, "\1CD001\1", 7);
	text(d + D_SYSTEM, 32, "");
	text(d + D_VOLUME, 32, volume);
	both32(d + D_BLOCKS, sectors);
	both16(d + D_SET, 1);
	both16(d + D_SEQUENCE, 1);
	both16(d + D_BLOCK_SIZE, SECTOR);
	both32(d + D_PATHS_SIZE, 10);
	le32(d + D_PATHS_LE, S_PATHS_LE);
	be32(d + D_PATHS_BE, S_PATHS_BE);
	record(d + D_ROOT, "\0", 1, S_FOLDER, SECTOR, R_FOLDER);
	text(d + D_TEXTS, D_DATES - D_TEXTS, "");
	for (unsigned i = 0; i < 4; i++)
		memset(d + D_DATES + 17 * i, '0', 16); /* not given */
	d[D_VERSION] = 1;
}

/* The path tables have one entry, the top folder: name length, attribute length, sector, number of its parent, name. */
static void make_paths(uint8_t *image)
{
	uint8_t *le = image + S_PATHS_LE * SECTOR, *be = image + S_PATHS_BE * SECTOR;

	le[0] = be[0] = 1;
	le32(le + 2, S_FOLDER);
	le16(le + 6, 1);
	be32(be + 2, S_FOLDER);
	be16(be + 6, 1);
}

int iso9660_build(const char *volume, const struct iso9660_file *file, unsigned nfiles, uint8_t **image, size_t *size)
{
	uint64_t sectors = S_FILES;
	uint8_t *p;

	if (nfiles > ISO9660_MAX_FILES || strlen(volume) > 32)
		return -EINVAL;
	for (unsigned i = 0; i < nfiles; i++) {
		if (strlen(file[i].name) > ISO9660_NAME_MAX || file[i].size > UINT32_MAX - SECTOR)
			return -EINVAL;
		sectors += (file[i].size + SECTOR - 1) / SECTOR;
	}
	if (sectors > UINT32_MAX)
		return -EINVAL;
	p = calloc(sectors, SECTOR);
	if (!p)
		return -ENOMEM;
	make_descriptor(p + S_DESCRIPTOR * SECTOR, volume, (unsigned)sectors);
	memcpy(p + S_END * SECTOR, "\377CD001\1", 7);
	make_paths(p);
	make_folder(p + S_FOLDER * SECTOR, file, nfiles);
	*image = p;
	*size = sectors * SECTOR;
	p += S_FILES * SECTOR;
	for (unsigned i = 0; i < nfiles; i++) {
		memcpy(p, file[i].data, file[i].size);
		p += (file[i].size + SECTOR - 1) / SECTOR * SECTOR;
	}
	return 0;
}
