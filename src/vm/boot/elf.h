/* SPDX-License-Identifier: Apache-2.0 */
/*
 * ELF images of kernels: headers checked once, then program headers in one form for both classes.
 */
#ifndef VM_BOOT_ELF_H
#define VM_BOOT_ELF_H

#include "vm/boot/boot.h"

#define ELF_PT_LOAD 1
#define ELF_PT_NOTE 4

struct elf_segment {
	uint32_t type;
	uint64_t offset, vaddr, paddr, filesz, memsz;
};

struct elf_image {
	const uint8_t *image;
	size_t size;
	bool is64;
	uint64_t entry;
	uint64_t phoff;
	unsigned phnum, phentsize;
};

bool elf_probe(const uint8_t *image, size_t size);
/* Checks the headers. NULL, or "cause; remedy". */
const char *elf_open(struct elf_image *elf, const uint8_t *image, size_t size);
/* Segment n < phnum; its file range has not been checked. */
void elf_segment(const struct elf_image *elf, unsigned n, struct elf_segment *seg);
/* Loads all PT_LOAD segments at their physical addresses; *end is the first address past them. */
const char *elf_load(const struct elf_image *elf, const struct boot_target *t, uint64_t *end);
/* The physical address of a virtual one, by the segment that holds it; the address itself if none does. */
uint64_t elf_physical(const struct elf_image *elf, uint64_t vaddr);
/* Finds a note by owner and type: its descriptor's bytes, or NULL. */
const uint8_t *elf_note(const struct elf_image *elf, const char *owner, uint32_t type, uint32_t *len);

#endif
