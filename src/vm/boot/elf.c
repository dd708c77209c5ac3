/* SPDX-License-Identifier: Apache-2.0 */
/*
 * ELF (System V gABI 4, "ELF Header", "Program Header", "Note Section") as far as kernels need it.
 *
 * Invariant: every offset and length taken from the image is checked against its size in a form that cannot wrap, and
 * every loop is bounded by ELF_MAX_SEGMENTS or by the bytes of the image.
 */
#include "vm/boot/elf.h"

#include <string.h>

#define ELF_MAX_SEGMENTS 128
#define EM_386 3
#define EM_X86_64 62

static bool inside(const struct elf_image *elf, uint64_t off, uint64_t len)
{
	return off <= elf->size && len <= elf->size - off;
}

static uint64_t get(const struct elf_image *elf, uint64_t off, unsigned n)
{
	return image_get(elf->image, elf->size, off, n);
}

bool elf_probe(const uint8_t *image, size_t size)
{
	return size >= 4 && !memcmp(image, "\177ELF", 4);
}

const char *elf_open(struct elf_image *elf, const uint8_t *image, size_t size)
{
	unsigned machine, class;

	*elf = (struct elf_image){.image = image, .size = size};
	if (!elf_probe(image, size) || size < 52)
		return "truncated ELF header; the file is incomplete, get it again";
	class = image[4];
	machine = (unsigned)get(elf, 18, 2);
	if (image[5] != 1 || (machine != EM_386 && machine != EM_X86_64))
		return "an ELF file for another architecture; give an x86 kernel";
	if ((class != 1 && class != 2) || (class == 2 && size < 64))
		return "damaged ELF header; get the file again";
	elf->is64 = class == 2;
	elf->entry = elf->is64 ? get(elf, 24, 8) : get(elf, 24, 4);
	elf->phoff = elf->is64 ? get(elf, 32, 8) : get(elf, 28, 4);
	elf->phentsize = (unsigned)(elf->is64 ? get(elf, 54, 2) : get(elf, 42, 2));
	elf->phnum = (unsigned)(elf->is64 ? get(elf, 56, 2) : get(elf, 44, 2));
	if (elf->phnum == 0 || elf->phnum > ELF_MAX_SEGMENTS || elf->phentsize < (elf->is64 ? 56u : 32u))
		return "an ELF file without usable program headers; give an executable kernel, not an object file";
	if (!inside(elf, elf->phoff, (uint64_t)elf->phnum * elf->phentsize))
		return "truncated ELF file; it is incomplete, get it again";
	return NULL;
}

void elf_segment(const struct elf_image *elf, unsigned n, struct elf_segment *seg)
{
	uint64_t p = elf->phoff + (uint64_t)n * elf->phentsize;

	seg->type = (uint32_t)get(elf, p, 4);
	if (elf->is64) {
		seg->offset = get(elf, p + 8, 8);
		seg->vaddr = get(elf, p + 16, 8);
		seg->paddr = get(elf, p + 24, 8);
		seg->filesz = get(elf, p + 32, 8);
		seg->memsz = get(elf, p + 40, 8);
	} else {
		seg->offset = get(elf, p + 4, 4);
		seg->vaddr = get(elf, p + 8, 4);
		seg->paddr = get(elf, p + 12, 4);
		seg->filesz = get(elf, p + 16, 4);
		seg->memsz = get(elf, p + 20, 4);
	}
}

static const char *load_segment(const struct elf_image *elf, const struct boot_target *t, const struct elf_segment *seg)
{
	const char *err;

	if (!inside(elf, seg->offset, seg->filesz))
		return "truncated ELF file; it is incomplete, get it again";
	if (seg->filesz > seg->memsz)
		return "damaged ELF segment (more in the file than in memory); get the file again";
	if (!boot_is_free(t, seg->paddr, seg->memsz))
		return "an ELF segment lies outside guest memory (1 MiB up to --memory); give --memory more, or link the "
		       "kernel at 1 MiB";
	err = boot_copy(t, seg->paddr, elf->image + seg->offset, seg->filesz);
	return err ? err : boot_zero(t, seg->paddr + seg->filesz, seg->memsz - seg->filesz);
}

const char *elf_load(const struct elf_image *elf, const struct boot_target *t, uint64_t *end)
{
	struct elf_segment seg;
	const char *err;

	*end = 0;
	for (unsigned i = 0; i < elf->phnum; i++) {
		elf_segment(elf, i, &seg);
		if (seg.type != ELF_PT_LOAD || seg.memsz == 0)
			continue;
		err = load_segment(elf, t, &seg);
		if (err)
			return err;
		if (seg.paddr + seg.memsz > *end)
			*end = seg.paddr + seg.memsz;
	}
	return *end ? NULL : "an ELF file with nothing to load; give an executable kernel";
}

uint64_t elf_physical(const struct elf_image *elf, uint64_t vaddr)
{
	struct elf_segment seg;

	for (unsigned i = 0; i < elf->phnum; i++) {
		elf_segment(elf, i, &seg);
		if (seg.type == ELF_PT_LOAD && vaddr >= seg.vaddr && vaddr - seg.vaddr < seg.memsz)
			return vaddr - seg.vaddr + seg.paddr;
	}
	return vaddr;
}

/* One PT_NOTE segment: name size, descriptor size, type, name and descriptor each padded to four bytes. */
static const uint8_t *note_in(const struct elf_image *elf, uint64_t off, uint64_t end, const char *owner, uint32_t type,
			      uint32_t *len)
{
	size_t olen = strlen(owner) + 1;

	while (end - off >= 12) {
		uint64_t namesz = get(elf, off, 4), descsz = get(elf, off + 4, 4);
		uint64_t name = off + 12, desc = name + ((namesz + 3) & ~3ull), next = desc + ((descsz + 3) & ~3ull);

		/* Sizes are 32 bits and sums 64: nothing wraps. The last descriptor may lack its padding. */
		if (desc + descsz > end)
			return NULL;
		if (get(elf, off + 8, 4) == type && namesz == olen && !memcmp(elf->image + name, owner, olen)) {
			*len = (uint32_t)descsz;
			return elf->image + desc;
		}
		if (next > end)
			return NULL;
		off = next;
	}
	return NULL;
}

const uint8_t *elf_note(const struct elf_image *elf, const char *owner, uint32_t type, uint32_t *len)
{
	struct elf_segment seg;
	const uint8_t *desc;

	for (unsigned i = 0; i < elf->phnum; i++) {
		elf_segment(elf, i, &seg);
		if (seg.type != ELF_PT_NOTE || !inside(elf, seg.offset, seg.filesz))
			continue;
		desc = note_in(elf, seg.offset, seg.offset + seg.filesz, owner, type, len);
		if (desc)
			return desc;
	}
	return NULL;
}
