/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Choosing the boot protocol, and what the protocols share: memory map, placement, copying.
 *
 * Invariant: guest memory is written only inside ranges that boot_is_free() accepted or that boot.h reserves below
 * 640 KiB. No state, no locks: runs before the vCPU does, or on its thread at a reset.
 */
#include "vm/boot/boot.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "vm/boot/elf.h"

#define FOUR_G (1ull << 32)

static const char no_memory[] = "guest memory ran out while loading; free host memory or give --memory less";

unsigned boot_memory_map(const struct boot_target *t, struct boot_range map[BOOT_MAX_RANGES])
{
	unsigned n = 0;

	map[n++] = (struct boot_range){0, BOOT_LOW_END, BOOT_MEM_RAM};
	map[n++] = (struct boot_range){BOOT_LOW_END, 0xa0000 - BOOT_LOW_END, BOOT_MEM_RESERVED};
	map[n++] = (struct boot_range){BOOT_ACPI, BOOT_HIGH - BOOT_ACPI, BOOT_MEM_RESERVED};
	map[n++] = (struct boot_range){BOOT_HIGH, t->low_ram - BOOT_HIGH, BOOT_MEM_RAM};
	if (t->high_ram)
		map[n++] = (struct boot_range){FOUR_G, t->high_ram, BOOT_MEM_RAM};
	return n;
}

bool boot_is_free(const struct boot_target *t, gpa_t gpa, uint64_t len)
{
	return gpa >= BOOT_HIGH && gpa <= t->low_ram && len <= t->low_ram - gpa;
}

const char *boot_copy(const struct boot_target *t, gpa_t gpa, const void *buf, size_t len)
{
	return mem_write(t->mem, gpa, buf, len) < 0 ? no_memory : NULL;
}

const char *boot_zero(const struct boot_target *t, gpa_t gpa, uint64_t len)
{
	static const uint8_t zero[PAGE_SIZE];

	/* Frames never touched are zero already: leave them unpopulated, so that a large bss costs nothing. */
	while (len) {
		uint64_t n = PAGE_SIZE - (gpa & PAGE_MASK);

		if (n > len)
			n = len;
		if (mem_state(t->mem, gpa >> PAGE_SHIFT) != P2M_ABSENT && mem_write(t->mem, gpa, zero, n) < 0)
			return no_memory;
		gpa += n;
		len -= n;
	}
	return NULL;
}

const char *boot_file_load(const struct boot_target *t, const struct boot_file *f, gpa_t gpa)
{
	uint64_t off = 0;

	if (f->data)
		return boot_copy(t, gpa, f->data, f->size);
	while (off < f->size) {
		uint64_t in_page = (gpa + off) & PAGE_MASK, n = PAGE_SIZE - in_page;
		uint8_t *page = mem_frame(t->mem, (gpa + off) >> PAGE_SHIFT, true);
		ssize_t got;

		if (!page)
			return no_memory;
		if (n > f->size - off)
			n = f->size - off;
		do
			got = pread(f->fd, page + in_page, n, (off_t)off);
		while (got < 0 && errno == EINTR);
		if (got <= 0)
			return "the initrd or a module cannot be read to its end; check the file";
		off += (uint64_t)got;
	}
	return NULL;
}

const char *boot_place_modules(const struct boot_target *t, const struct boot_source *s, uint64_t floor, uint64_t limit,
			       gpa_t gpa[BOOT_MAX_MODULES])
{
	uint64_t top = t->low_ram < limit ? t->low_ram : limit;
	const char *err;

	if (floor < BOOT_HIGH)
		floor = BOOT_HIGH;
	for (unsigned i = 0; i < s->nmodules; i++) {
		uint64_t size = s->module[i].size;

		if (top < floor || size > top - floor || ((top - size) & ~PAGE_MASK) < floor)
			return "the initrd or the modules do not fit into guest memory; give --memory more";
		top = (top - size) & ~PAGE_MASK;
		gpa[i] = top;
		err = boot_file_load(t, &s->module[i], top);
		if (err)
			return err;
	}
	return NULL;
}

/* What people give by mistake, recognized to name the remedy. */
static const struct {
	unsigned off, len;
	const char *bytes, *message;
} strangers[] = {
	{0x38, 4, "ARMd", "a Linux kernel for ARM64; give an x86-64 one"},
	{0x30, 8, "RISCV\0\0\0", "a Linux kernel for RISC-V; give an x86-64 one"},
	{0, 2, "\x1f\x8b", "compressed with gzip; unpack it first (gunzip)"},
	{0, 6, "\xfd" "7zXZ\0", "compressed with xz; unpack it first (unxz)"},
	{0, 4, "\x28\xb5\x2f\xfd", "compressed with zstd; unpack it first (unzstd)"},
	{0, 8, "!<arch>\n", "an archive or Debian package; unpack it first (dpkg-deb -x) and give boot/vmlinuz-*"},
};

static const char *what_is_it(const uint8_t *image, size_t size)
{
	if (size == 0)
		return "an empty file; give a kernel";
	for (size_t i = 0; i < nitems(strangers); i++)
		if (size >= strangers[i].off + strangers[i].len &&
		    !memcmp(image + strangers[i].off, strangers[i].bytes, strangers[i].len))
			return strangers[i].message;
	return "not a kernel doppel knows; give a Linux bzImage, an ELF file with a PVH note, or a multiboot image";
}

const char *boot_load(const struct boot_target *t, const struct boot_source *s, struct boot_entry *e)
{
	struct elf_image elf;
	const char *err;

	if (bzimage_probe(s->image, s->size))
		return bzimage_load(t, s, e);
	if (multiboot_probe(s->image, s->size))
		return multiboot_load(t, s, e);
	if (pvh_probe(s->image, s->size))
		return pvh_load(t, s, e);
	if (!elf_probe(s->image, s->size))
		return what_is_it(s->image, s->size);
	err = elf_open(&elf, s->image, s->size);
	return err ? err : "an ELF file without PVH note or multiboot header; build the kernel with CONFIG_PVH=y";
}
