/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Fuzzes the boot loaders: whatever the bytes, boot_load() returns (an error, or success with an entry inside guest memory) and
 * nothing outside the image or the guest's memory is touched.
 *
 * As a program: fuzz_loaders RUNS [SEED] mutates built-in seeds (a minimal valid image per protocol) deterministically. Images
 * end right before an inaccessible page, so that reading past the end is a crash even without a sanitizer. With
 * -DLIBFUZZER it is a libFuzzer target.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/log.h"
#include "vm/boot/boot.h"

#define RAM (16ull << 20)
#define IMAGE_MAX 65536

struct fuzz {
	struct mem *mem;
	uint8_t *area;     /* IMAGE_MAX bytes, then an inaccessible page */
	uint64_t seed;
	int module_fd;
};

static uint64_t next(struct fuzz *f)
{
	f->seed ^= f->seed << 13;
	f->seed ^= f->seed >> 7;
	f->seed ^= f->seed << 17;
	return f->seed;
}

static void put(uint8_t *p, unsigned n, uint64_t v)
{
	for (unsigned i = 0; i < n; i++)
		p[i] = (uint8_t)(v >> (8 * i));
}

static size_t seed_bzimage(uint8_t *p)
{
	memset(p, 0, 8192);
	p[0x1f1] = 1;
	put(p + 0x1f4, 4, (8192 - 1024) / 16);
	put(p + 0x1fe, 2, 0xaa55);
	p[0x200] = 0xeb;
	p[0x201] = 0x66;
	memcpy(p + 0x202, "HdrS", 4);
	put(p + 0x206, 2, 0x20f);
	p[0x211] = 1;
	put(p + 0x22c, 4, 0x7fffffff);
	put(p + 0x236, 2, 1);
	put(p + 0x238, 4, 2047);
	put(p + 0x258, 8, 0x200000);
	put(p + 0x260, 4, 0x10000);
	return 8192;
}

static size_t seed_elf(uint8_t *p, bool is64, bool multiboot)
{
	unsigned ph = is64 ? 64 : 52, phent = is64 ? 56 : 32;
	uint64_t note = 0x800, text = 0x1000;

	memset(p, 0, 8192);
	memcpy(p, "\177ELF", 4);
	p[4] = is64 ? 2 : 1;
	p[5] = p[6] = 1;
	put(p + 16, 2, 2);
	put(p + 18, 2, is64 ? 62 : 3);
	put(p + 24, is64 ? 8 : 4, 0x100000);
	put(p + (is64 ? 32 : 28), is64 ? 8 : 4, ph);
	put(p + (is64 ? 54 : 42), 2, phent);
	put(p + (is64 ? 56 : 44), 2, 2);
	for (unsigned i = 0; i < 2; i++) {
		uint64_t off = i ? note : text, addr = 0x100000, len = i ? 20 : 4096;
		uint8_t *h = p + ph + i * phent;

		put(h, 4, i ? 4 : 1);
		if (is64) {
			put(h + 8, 8, off); put(h + 16, 8, addr); put(h + 24, 8, addr);
			put(h + 32, 8, len); put(h + 40, 8, len * 2);
		} else {
			put(h + 4, 4, off); put(h + 8, 4, addr); put(h + 12, 4, addr);
			put(h + 16, 4, len); put(h + 20, 4, len * 2);
		}
	}
	put(p + note, 4, 4);
	put(p + note + 4, 4, 4);
	put(p + note + 8, 4, 18);
	memcpy(p + note + 12, "Xen", 4);
	put(p + note + 16, 4, 0x100000);
	if (multiboot) {
		put(p + 0x400, 4, 0x1badb002);
		put(p + 0x408, 4, -0x1badb002u);
	}
	return 8192;
}

static size_t seed_flat(uint8_t *p)
{
	static const uint32_t addr[] = {0x100400, 0x100000, 0x102000, 0x104000, 0x100500};

	memset(p, 0, 8192);
	put(p + 0x400, 4, 0x1badb002);
	put(p + 0x404, 4, 0x10000);
	put(p + 0x408, 4, -(0x1badb002u + 0x10000));
	for (unsigned i = 0; i < 5; i++)
		put(p + 0x40c + 4 * i, 4, addr[i]);
	return 8192;
}

static size_t make_seed(unsigned kind, uint8_t *p)
{
	switch (kind) {
	case 0: return seed_bzimage(p);
	case 1: return seed_elf(p, true, false);
	case 2: return seed_elf(p, false, false);
	case 3: return seed_elf(p, false, true);
	case 4: return seed_elf(p, true, true);
	default: return seed_flat(p);
	}
}
#define SEEDS 6

static int load(struct fuzz *f, const uint8_t *image, size_t size, struct boot_entry *e)
{
	const struct boot_target t = {.mem = f->mem, .low_ram = RAM, .rsdp = 0xe0000};
	const struct boot_file module = {.fd = f->module_fd, .size = 5000, .args = "module args"};
	const struct boot_source s = {.image = image, .size = size, .append = "console=ttyS0", .module = &module, .nmodules = 1,
				      .has_initrd = true};
	const char *err = boot_load(&t, &s, e);

	if (err)
		return -1;
	if (e->rip < BOOT_HIGH || e->rip >= RAM || !e->protocol) {
		fprintf(stderr, "accepted with an entry outside guest memory: %#llx\n", (unsigned long long)e->rip);
		abort();
	}
	return 0;
}

static void setup(struct fuzz *f)
{
	FILE *module = tmpfile();

	*f = (struct fuzz){.seed = 0x9e3779b97f4a7c15ull};
	if (!module || ftruncate(fileno(module), 5000) < 0 || mem_create(&f->mem, RAM, RAM >> PAGE_SHIFT) < 0 ||
	    mem_add_ram(f->mem, 0, RAM) < 0)
		abort();
	f->module_fd = fileno(module);
	f->area = mmap(NULL, IMAGE_MAX + 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (f->area == MAP_FAILED || mprotect(f->area + IMAGE_MAX, 4096, PROT_NONE) < 0)
		abort();
}

#ifdef LIBFUZZER
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct fuzz f;
	struct boot_entry e;

	if (!f.mem)
		setup(&f);
	(void)load(&f, data, size, &e);
	return 0;
}
#else

/* Interesting values for fields of any width: the borders of everything that gets added up. */
static const uint64_t borders[] = {0, 1, 0x7f, 0xff, 0x7fff, 0xffff, 0x7fffffff, 0x80000000, 0xffffffff, 0xfffff000,
				   0x7fffffffffffffff, 0x8000000000000000, 0xffffffffffffffff, 0x100000, RAM, RAM - 1};

static void mutate(struct fuzz *f, uint8_t *p, size_t *size)
{
	unsigned n = 1 + (unsigned)(next(f) % 6);

	while (n--) {
		/* Most hits go where headers are. */
		size_t limit = next(f) % 4 ? 0x500 : *size, at = next(f) % (limit > *size - 8 ? *size - 8 : limit);
		unsigned width = 1u << (next(f) % 4);

		switch (next(f) % 5) {
		case 0: p[at] = (uint8_t)next(f); break;
		case 1: put(p + at, width, borders[next(f) % nitems(borders)]); break;
		case 2: p[at] ^= (uint8_t)(1u << (next(f) % 8)); break;
		case 3: put(p + at, width, next(f)); break;
		default: *size = 16 + next(f) % 8192; break;
		}
		if (*size > 8192)
			*size = 8192;
	}
}

int main(int argc, char **argv)
{
	unsigned long runs = argc > 1 ? strtoul(argv[1], NULL, 0) : 1000, accepted = 0;
	uint8_t image[8192];
	struct boot_entry e;
	struct fuzz f;

	setup(&f);
	if (argc > 2)
		f.seed = strtoull(argv[2], NULL, 0) | 1;
	for (unsigned i = 0; i < SEEDS; i++) {
		size_t size = make_seed(i, image);

		if (load(&f, image, size, &e) < 0) {
			fprintf(stderr, "seed %u is not accepted\n", i);
			return 1;
		}
	}
	for (unsigned long i = 0; i < runs; i++) {
		size_t size = make_seed((unsigned)(i % SEEDS), image);
		uint8_t *at;

		mutate(&f, image, &size);
		at = f.area + IMAGE_MAX - size;
		memcpy(at, image, size);
		accepted += load(&f, at, size, &e) == 0;
	}
	mem_destroy(f.mem);
	printf("%lu images, %lu accepted\n", runs, accepted);
	return accepted == 0 || accepted == runs;
}
#endif
