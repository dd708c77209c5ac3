/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Boot loaders: put a kernel image into a machine's memory and say in which state its first instruction is to run.
 *
 * An image is bytes from a stranger: each loader reads it through image_*() or after checking offset and length against its
 * size, writes guest memory only through mem_write()/boot_file_load(), and reports a static one-line "cause; remedy".
 * Loaders are pure but for guest memory: they do not touch the vCPU, so the fuzzer drives them alone.
 *
 * Layout of low memory while booting (all of it below 640 KiB, free for the kernel once it has looked):
 *   0x00500  GDT                 0x06000  PVH start info, memory map, module list / multiboot information
 *   0x08000  boot_params         0x09000  page tables: PML4, PDPT, four page directories (first 4 GiB, 2 MiB pages)
 *   0x10000  command lines       0x1fff0  initial stack
 *   0xe0000  ACPI tables
 */
#ifndef VM_BOOT_BOOT_H
#define VM_BOOT_BOOT_H

#include "base/types.h"
#include "cpu/vcpu.h"
#include "mem/mem.h"

#define BOOT_GDT 0x500
#define BOOT_INFO 0x6000
#define BOOT_PARAMS 0x8000
#define BOOT_TABLES 0x9000
#define BOOT_CMDLINE 0x10000
#define BOOT_STACK 0x1fff0
#define BOOT_LOW_END 0x9fc00
#define BOOT_ACPI 0xe0000
#define BOOT_SMBIOS 0xf0000
#define BOOT_HIGH 0x100000   /* where kernels may live */

/* Selectors both Linux protocols and multiboot expect of us: flat code and data. */
#define BOOT_CS 0x10
#define BOOT_DS 0x18

#define BOOT_MAX_MODULES 17

/* A file loaded as it is (initrd, module), from memory if data is set; args is its command line. */
struct boot_file {
	int fd;
	const uint8_t *data;
	uint64_t size;
	const char *args;
};

struct boot_source {
	const uint8_t *image;
	size_t size;
	const char *append;
	const struct boot_file *module; /* the initrd first, if has_initrd */
	unsigned nmodules;
	bool has_initrd;
};

/* The machine as far as loaders need it. */
struct boot_target {
	struct mem *mem;
	uint64_t low_ram;    /* RAM reaches from 0 to here (below 3 GiB), but for the hole at 640 KiB */
	uint64_t high_ram;   /* bytes above 4 GiB */
	gpa_t rsdp;          /* 0 = no ACPI */
};

/* State at the first instruction. */
struct boot_entry {
	const char *protocol;    /* for messages */
	bool long_mode;          /* 64-bit with identity paging; otherwise 32-bit protected mode without paging */
	uint64_t rip, rax, rbx, rsi;
};

enum { BOOT_MEM_RAM = 1, BOOT_MEM_RESERVED = 2, BOOT_MEM_ACPI = 3 };
struct boot_range {
	uint64_t base, len;
	uint32_t type;
};
#define BOOT_MAX_RANGES 8

/* --- boot.c ------------------------------------------------------------------------------------------------------- */
/* Recognizes the image, loads it with the protocol it asks for. NULL, or "cause; remedy". */
const char *boot_load(const struct boot_target *t, const struct boot_source *s, struct boot_entry *e);
/* Puts a freshly reset vCPU (and GDT, page tables in memory) into the entry's state. */
void boot_enter(const struct boot_target *t, const struct boot_entry *e, struct vcpu *v);

/* --- what the loaders share (boot.c) -------------------------------------------------------------------------------- */
unsigned boot_memory_map(const struct boot_target *t, struct boot_range map[BOOT_MAX_RANGES]);
/* True if [gpa, gpa+len) is RAM at or above BOOT_HIGH and below 4 GiB. */
bool boot_is_free(const struct boot_target *t, gpa_t gpa, uint64_t len);
/* Copies to guest memory; the range has been checked, so failing means that the host is out of memory. */
const char *boot_copy(const struct boot_target *t, gpa_t gpa, const void *buf, size_t len);
const char *boot_zero(const struct boot_target *t, gpa_t gpa, uint64_t len);
const char *boot_file_load(const struct boot_target *t, const struct boot_file *f, gpa_t gpa);
/* Places all modules as high as possible below `limit` but above `floor`; gpa[] is filled in. */
const char *boot_place_modules(const struct boot_target *t, const struct boot_source *s, uint64_t floor, uint64_t limit,
			       gpa_t gpa[BOOT_MAX_MODULES]);

/* --- the protocols: probe tells whether an image is of that kind, load does the work ---------------------------------- */
bool bzimage_probe(const uint8_t *image, size_t size);
const char *bzimage_load(const struct boot_target *t, const struct boot_source *s, struct boot_entry *e);
bool multiboot_probe(const uint8_t *image, size_t size);
const char *multiboot_load(const struct boot_target *t, const struct boot_source *s, struct boot_entry *e);
bool pvh_probe(const uint8_t *image, size_t size);
const char *pvh_load(const struct boot_target *t, const struct boot_source *s, struct boot_entry *e);

/* Little-endian field of an image; 0 if outside (callers have checked where it matters). */
static inline uint64_t image_get(const uint8_t *image, size_t size, uint64_t off, unsigned n)
{
	uint64_t v = 0;

	if (n > size || off > size - n)
		return 0;
	for (unsigned i = 0; i < n; i++)
		v |= (uint64_t)image[off + i] << (8 * i);
	return v;
}

#endif
