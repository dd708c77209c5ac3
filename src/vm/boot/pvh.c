/* SPDX-License-Identifier: Apache-2.0 */
/*
 * PVH direct boot: an ELF kernel with a XEN_ELFNOTE_PHYS32_ENTRY note is entered in 32-bit protected mode, paging off, with EBX =
 * hvm_start_info (Xen docs/misc/pvh.pandoc, public/arch-x86/hvm/start_info.h; version 1 has the memory map).
 *
 *   BOOT_INFO + 0      struct hvm_start_info (56 bytes)
 *   BOOT_INFO + 0x40   module list, 32 bytes each: address, size, command line, 0
 *   BOOT_INFO + 0x400  memory map, 24 bytes each: address, size, type, 0
 */
#include <string.h>

#include "vm/boot/boot.h"
#include "vm/boot/elf.h"

#define XEN_ELFNOTE_PHYS32_ENTRY 18
#define START_MAGIC 0x336ec578u

struct hvm_start_info {
	uint32_t magic, version, flags, nr_modules;
	uint64_t modlist_paddr, cmdline_paddr, rsdp_paddr, memmap_paddr;
	uint32_t memmap_entries, reserved;
};
struct hvm_modlist_entry { uint64_t paddr, size, cmdline_paddr, reserved; };
struct hvm_memmap_entry { uint64_t addr, size; uint32_t type, reserved; };

#define MODLIST (BOOT_INFO + 0x40)
#define MEMMAP (BOOT_INFO + 0x400)
static_assert(sizeof(struct hvm_start_info) == 56, "hvm_start_info v1");
static_assert(0x40 + BOOT_MAX_MODULES * sizeof(struct hvm_modlist_entry) <= 0x400, "module list fits");

static const uint8_t *entry_note(const struct elf_image *elf, uint32_t *len)
{
	return elf_note(elf, "Xen", XEN_ELFNOTE_PHYS32_ENTRY, len);
}

bool pvh_probe(const uint8_t *image, size_t size)
{
	struct elf_image elf;
	uint32_t len;

	return elf_probe(image, size) && !elf_open(&elf, image, size) && entry_note(&elf, &len);
}

/* Command lines: the kernel's, then one per module, back to back. */
static const char *put_modules(const struct boot_target *t, const struct boot_source *s, const gpa_t *gpa)
{
	struct hvm_modlist_entry list[BOOT_MAX_MODULES] = {0};
	gpa_t text = BOOT_CMDLINE;
	const char *err = boot_copy(t, text, s->append, strlen(s->append) + 1);

	text += strlen(s->append) + 1;
	for (unsigned i = 0; !err && i < s->nmodules; i++) {
		size_t len = strlen(s->module[i].args) + 1;

		list[i] = (struct hvm_modlist_entry){.paddr = gpa[i], .size = s->module[i].size, .cmdline_paddr = text};
		err = boot_copy(t, text, s->module[i].args, len);
		text += len;
	}
	return err ? err : boot_copy(t, MODLIST, list, sizeof(list));
}

static const char *put_info(const struct boot_target *t, const struct boot_source *s)
{
	struct boot_range map[BOOT_MAX_RANGES];
	struct hvm_memmap_entry memmap[BOOT_MAX_RANGES] = {0};
	unsigned n = boot_memory_map(t, map);
	struct hvm_start_info info = {
		.magic = START_MAGIC, .version = 1, .nr_modules = s->nmodules, .cmdline_paddr = BOOT_CMDLINE,
		.modlist_paddr = s->nmodules ? MODLIST : 0, .rsdp_paddr = t->rsdp, .memmap_paddr = MEMMAP,
		.memmap_entries = n};
	const char *err;

	for (unsigned i = 0; i < n; i++)
		memmap[i] = (struct hvm_memmap_entry){.addr = map[i].base, .size = map[i].len, .type = map[i].type};
	err = boot_copy(t, MEMMAP, memmap, sizeof(memmap));
	return err ? err : boot_copy(t, BOOT_INFO, &info, sizeof(info));
}

const char *pvh_load(const struct boot_target *t, const struct boot_source *s, struct boot_entry *e)
{
	struct elf_image elf;
	gpa_t gpa[BOOT_MAX_MODULES];
	const uint8_t *note;
	uint32_t len = 0;
	uint64_t end, entry;
	const char *err = elf_open(&elf, s->image, s->size);

	if (err)
		return err;
	note = entry_note(&elf, &len);
	if (!note || len < 4)
		return "a damaged PVH note; get the file again";
	/* The note's descriptor is 4 bytes in 32-bit kernels and 8 in 64-bit ones; the value has 32 bits in both. */
	entry = image_get(note, len, 0, 4);
	err = elf_load(&elf, t, &end);
	if (!err && !boot_is_free(t, entry, 1))
		err = "the PVH entry point lies outside guest memory; get the file again";
	if (!err)
		err = boot_place_modules(t, s, end, 0xffffffff, gpa);
	if (!err)
		err = put_modules(t, s, gpa);
	if (err)
		return err;
	*e = (struct boot_entry){.protocol = "PVH", .rip = entry, .rbx = BOOT_INFO};
	return put_info(t, s);
}
