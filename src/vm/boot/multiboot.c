/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Multiboot 1 (specification 0.6.96): ELF images and flat ones described by the header's address fields, modules, memory map.
 * Entered in 32-bit protected mode, paging off, EAX = 0x2BADB002, EBX = the information structure.
 *
 *   BOOT_INFO + 0      multiboot_info (we fill the first 116 bytes)
 *   BOOT_INFO + 0x80   loader name
 *   BOOT_INFO + 0x100  module list, 16 bytes each
 *   BOOT_INFO + 0x400  memory map, 24 bytes each (size field, base, length, type)
 */
#include <string.h>

#include "vm/boot/boot.h"
#include "vm/boot/elf.h"

#define HEADER_MAGIC 0x1badb002u
#define BOOT_MAGIC 0x2badb002u
#define SEARCH_LIMIT 8192
#define HF_ADDRESSES BIT(16)
#define HF_VIDEO BIT(2)
#define HF_UNSUPPORTED 0xfff8u  /* required features (low half) beyond page alignment, memory and video information */

#define INFO_NAME (BOOT_INFO + 0x80)
#define INFO_MODULES (BOOT_INFO + 0x100)
#define INFO_MMAP (BOOT_INFO + 0x400)

struct info {
	uint32_t flags, mem_lower, mem_upper, boot_device, cmdline, mods_count, mods_addr, syms[4], mmap_length, mmap_addr;
	uint32_t drives_length, drives_addr, config_table, boot_loader_name;
};
struct module { uint32_t start, end, string, reserved; };
struct mmap_entry { uint32_t size; uint64_t base, len; uint32_t type; } __attribute__((packed));
enum { INFO_F_MEM = 1, INFO_F_CMDLINE = 4, INFO_F_MODS = 8, INFO_F_MMAP = 64, INFO_F_NAME = 512 };

static uint32_t get(const uint8_t *image, size_t size, uint64_t off)
{
	return (uint32_t)image_get(image, size, off, 4);
}

/* Offset of the header: 4-aligned, wholly within the first 8192 bytes, checksum right. -1 if there is none. */
static long find_header(const uint8_t *image, size_t size)
{
	for (size_t off = 0; off + 12 <= size && off + 12 <= SEARCH_LIMIT; off += 4)
		if (get(image, size, off) == HEADER_MAGIC &&
		    HEADER_MAGIC + get(image, size, off + 4) + get(image, size, off + 8) == 0)
			return (long)off;
	return -1;
}

bool multiboot_probe(const uint8_t *image, size_t size)
{
	return find_header(image, size) >= 0;
}

/* The header's own load addresses ("a.out kludge"): header_addr, load_addr, load_end_addr, bss_end_addr, entry_addr. */
static const char *load_flat(const struct boot_target *t, const struct boot_source *s, uint64_t off, uint64_t *entry,
			     uint64_t *end)
{
	uint64_t header = get(s->image, s->size, off + 12), load = get(s->image, s->size, off + 16);
	uint64_t load_end = get(s->image, s->size, off + 20), bss_end = get(s->image, s->size, off + 24);
	uint64_t start, len, total;
	const char *err;

	if (s->size < off + 32 || load > header || header - load > off)
		return "damaged multiboot header (load addresses); get the file again";
	start = off - (header - load);
	len = load_end ? load_end - load : s->size - start;
	if ((load_end && load_end < load) || len > s->size - start)
		return "truncated multiboot kernel; the file is incomplete, get it again";
	total = bss_end > load + len ? bss_end - load : len;
	if (!boot_is_free(t, load, total))
		return "the multiboot kernel lies outside guest memory (1 MiB up to --memory); give --memory more, or link it at "
		       "1 MiB";
	*entry = get(s->image, s->size, off + 28);
	*end = load + total;
	err = boot_copy(t, load, s->image + start, len);
	return err ? err : boot_zero(t, load + len, total - len);
}

static const char *load_image(const struct boot_target *t, const struct boot_source *s, uint64_t off, uint64_t *entry,
			      uint64_t *end)
{
	struct elf_image elf;
	uint32_t flags = get(s->image, s->size, off + 4);
	const char *err;

	if (flags & (HF_UNSUPPORTED | HF_VIDEO))
		return "a multiboot kernel that requires features doppel does not have (video); build it without them";
	if (flags & HF_ADDRESSES)
		return load_flat(t, s, off, entry, end);
	err = elf_open(&elf, s->image, s->size);
	if (!err)
		err = elf_load(&elf, t, end);
	if (!err)
		*entry = elf_physical(&elf, elf.entry);
	return err;
}

static const char *put_modules(const struct boot_target *t, const struct boot_source *s, const gpa_t *gpa, struct info *info)
{
	struct module list[BOOT_MAX_MODULES] = {0};
	gpa_t text = BOOT_CMDLINE;
	const char *err = boot_copy(t, text, s->append, strlen(s->append) + 1);

	info->cmdline = BOOT_CMDLINE;
	text += strlen(s->append) + 1;
	for (unsigned i = 0; !err && i < s->nmodules; i++) {
		size_t len = strlen(s->module[i].args) + 1;

		list[i] = (struct module){.start = (uint32_t)gpa[i], .end = (uint32_t)(gpa[i] + s->module[i].size),
					  .string = (uint32_t)text};
		err = boot_copy(t, text, s->module[i].args, len);
		text += len;
	}
	info->mods_count = s->nmodules;
	info->mods_addr = INFO_MODULES;
	return err ? err : boot_copy(t, INFO_MODULES, list, sizeof(list));
}

static const char *put_info(const struct boot_target *t, struct info *info)
{
	static const char name[] = "doppel";
	struct boot_range map[BOOT_MAX_RANGES];
	struct mmap_entry entries[BOOT_MAX_RANGES];
	unsigned n = boot_memory_map(t, map);
	const char *err;

	for (unsigned i = 0; i < n; i++)
		entries[i] = (struct mmap_entry){.size = 20, .base = map[i].base, .len = map[i].len, .type = map[i].type};
	info->flags = INFO_F_MEM | INFO_F_CMDLINE | INFO_F_MODS | INFO_F_MMAP | INFO_F_NAME;
	info->mem_lower = BOOT_LOW_END >> 10;
	info->mem_upper = (uint32_t)((t->low_ram - BOOT_HIGH) >> 10);
	info->mmap_addr = INFO_MMAP;
	info->mmap_length = n * (uint32_t)sizeof(entries[0]);
	info->boot_loader_name = INFO_NAME;
	err = boot_copy(t, INFO_MMAP, entries, info->mmap_length);
	if (!err)
		err = boot_copy(t, INFO_NAME, name, sizeof(name));
	return err ? err : boot_copy(t, BOOT_INFO, info, sizeof(*info));
}

const char *multiboot_load(const struct boot_target *t, const struct boot_source *s, struct boot_entry *e)
{
	gpa_t gpa[BOOT_MAX_MODULES];
	struct info info = {0};
	uint64_t entry = 0, end = 0;
	long off = find_header(s->image, s->size);
	const char *err = off < 0 ? "no multiboot header; give a multiboot kernel"
				  : load_image(t, s, (uint64_t)off, &entry, &end);

	if (!err && !boot_is_free(t, entry, 1))
		err = "the multiboot entry point lies outside guest memory; get the file again";
	if (!err)
		err = boot_place_modules(t, s, end, 0xffffffff, gpa);
	if (!err)
		err = put_modules(t, s, gpa, &info);
	if (!err)
		err = put_info(t, &info);
	if (!err)
		*e = (struct boot_entry){.protocol = "multiboot", .rip = entry, .rax = BOOT_MAGIC, .rbx = BOOT_INFO};
	return err;
}
