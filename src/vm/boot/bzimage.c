/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Linux bzImage by the 64-bit boot protocol (Linux Documentation/x86/boot.rst, zero-page.rst).
 *
 * The compressed kernel is placed at its preferred address and entered at +0x200 in 64-bit mode with RSI = boot_params; the
 * initrd goes as high as the header allows. Offsets below are those of the document.
 * Invariant: nothing is written to guest memory before all sizes have been checked.
 */
#include <string.h>

#include "vm/boot/boot.h"

enum setup_header {
	H_SETUP_SECTS = 0x1f1, H_SYSSIZE = 0x1f4, H_BOOT_FLAG = 0x1fe, H_JUMP = 0x200, H_MAGIC = 0x202, H_VERSION = 0x206,
	H_TYPE_OF_LOADER = 0x210, H_LOADFLAGS = 0x211, H_RAMDISK_IMAGE = 0x218, H_RAMDISK_SIZE = 0x21c,
	H_CMD_LINE_PTR = 0x228, H_INITRD_ADDR_MAX = 0x22c, H_RELOCATABLE = 0x234, H_XLOADFLAGS = 0x236,
	H_CMDLINE_SIZE = 0x238, H_PREF_ADDRESS = 0x258, H_INIT_SIZE = 0x260, H_END = 0x268,
};
enum zero_page { Z_ACPI_RSDP = 0x070, Z_E820_ENTRIES = 0x1e8, Z_HEADER = 0x1f1, Z_E820_TABLE = 0x2d0, Z_SIZE = 4096 };

#define LOADFLAGS_HIGH 1
#define XLF_KERNEL_64 1
#define ENTRY_64 0x200
#define LOADER_UNDEFINED 0xff

bool bzimage_probe(const uint8_t *image, size_t size)
{
	return size > H_MAGIC + 4 && !memcmp(image + H_MAGIC, "HdrS", 4);
}

struct header {
	uint64_t payload_off, payload_len;
	uint64_t load, init_size, initrd_max, cmdline_max;
};

static const char *check_header(const struct boot_source *s, struct header *h)
{
	unsigned version, sects;

#define GET(off, n) image_get(s->image, s->size, off, n)
	if (s->size < H_END)
		return "truncated Linux kernel; the file is incomplete, get it again";
	version = (unsigned)GET(H_VERSION, 2);
	if (GET(H_BOOT_FLAG, 2) != 0xaa55 || !(GET(H_LOADFLAGS, 1) & LOADFLAGS_HIGH))
		return "damaged or very old Linux kernel (no bzImage); give a kernel of this century";
	if (version < 0x20c || !(GET(H_XLOADFLAGS, 2) & XLF_KERNEL_64))
		return "a Linux kernel without 64-bit entry (boot protocol 2.12); give an x86-64 kernel of version 3.8 or later";
	sects = (unsigned)GET(H_SETUP_SECTS, 1);
	h->payload_off = ((sects ? sects : 4) + 1) * 512ull;
	h->payload_len = GET(H_SYSSIZE, 4) * 16;
	h->load = GET(H_PREF_ADDRESS, 8);
	h->init_size = GET(H_INIT_SIZE, 4);
	h->initrd_max = GET(H_INITRD_ADDR_MAX, 4);
	h->cmdline_max = GET(H_CMDLINE_SIZE, 4);
#undef GET
	if (h->payload_len <= ENTRY_64 || h->payload_off >= s->size || h->payload_len > s->size - h->payload_off + 15)
		return "truncated Linux kernel; the file is incomplete, get it again";
	/* syssize counts in 16-byte units: the last may be partly missing. */
	if (h->payload_len > s->size - h->payload_off)
		h->payload_len = s->size - h->payload_off;
	if (h->init_size < h->payload_len)
		h->init_size = h->payload_len;
	return NULL;
}

static void put(uint8_t *page, unsigned off, unsigned n, uint64_t val)
{
	for (unsigned i = 0; i < n; i++)
		page[off + i] = (uint8_t)(val >> (8 * i));
}

static void fill_e820(const struct boot_target *t, uint8_t *page)
{
	struct boot_range map[BOOT_MAX_RANGES];
	unsigned n = boot_memory_map(t, map);

	page[Z_E820_ENTRIES] = (uint8_t)n;
	for (unsigned i = 0; i < n; i++) {
		put(page, Z_E820_TABLE + 20 * i, 8, map[i].base);
		put(page, Z_E820_TABLE + 20 * i + 8, 8, map[i].len);
		put(page, Z_E820_TABLE + 20 * i + 16, 4, map[i].type);
	}
}

static void fill_zero_page(const struct boot_target *t, const struct boot_source *s, gpa_t initrd, uint8_t *page)
{
	/* The header's length is in the byte that doubles as the jump's displacement. */
	size_t end = H_MAGIC + (size_t)s->image[H_JUMP + 1];

	if (end > H_END + 8 || end > s->size)
		end = H_END;
	memset(page, 0, Z_SIZE);
	memcpy(page + Z_HEADER, s->image + H_SETUP_SECTS, end - H_SETUP_SECTS);
	page[H_TYPE_OF_LOADER] = LOADER_UNDEFINED;
	put(page, H_CMD_LINE_PTR, 4, BOOT_CMDLINE);
	if (s->has_initrd) {
		put(page, H_RAMDISK_IMAGE, 4, initrd);
		put(page, H_RAMDISK_SIZE, 4, s->module[0].size);
	}
	put(page, Z_ACPI_RSDP, 8, t->rsdp);
	fill_e820(t, page);
}

const char *bzimage_load(const struct boot_target *t, const struct boot_source *s, struct boot_entry *e)
{
	struct header h;
	uint8_t page[Z_SIZE];
	gpa_t initrd[BOOT_MAX_MODULES] = {0};
	const char *err = check_header(s, &h);

	if (err)
		return err;
	if (s->nmodules > (s->has_initrd ? 1u : 0u))
		return "a Linux kernel takes no modules; use --initrd";
	if (strlen(s->append) > h.cmdline_max)
		return "the command line is longer than this kernel accepts; shorten --append";
	if (!boot_is_free(t, h.load, h.init_size))
		return "the kernel does not fit into guest memory; give --memory more";
	err = boot_place_modules(t, s, h.load + h.init_size, h.initrd_max + 1, initrd);
	if (!err)
		err = boot_copy(t, h.load, s->image + h.payload_off, h.payload_len);
	if (!err)
		err = boot_copy(t, BOOT_CMDLINE, s->append, strlen(s->append) + 1);
	if (err)
		return err;
	fill_zero_page(t, s, initrd[0], page);
	*e = (struct boot_entry){
		.protocol = "Linux 64-bit", .long_mode = true, .rip = h.load + ENTRY_64, .rsi = BOOT_PARAMS};
	return boot_copy(t, BOOT_PARAMS, page, sizeof(page));
}
