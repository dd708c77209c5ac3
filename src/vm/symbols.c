/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The symbol table of our own program (ELF-64, System V ABI ch. 4) and the libraries around it.
 *
 * Invariant: entries are sorted by address and the last has no name, so every address below it belongs to the entry before. The program's
 * file stays mapped: names point into it. It is our own file, so its offsets are checked but not its meaning.
 */
#include "vm/symbols.h"

#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <link.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

struct file {
	const uint8_t *p;
	size_t size;
};

/* n bytes at offset off of the file, or NULL. */
static const void *at(const struct file *f, uint64_t off, uint64_t n)
{
	return off <= f->size && n <= f->size - off ? f->p + off : NULL;
}

static int add(struct symbols *s, uintptr_t addr, const char *name)
{
	if (!(s->n & (s->n - 1))) { /* grows at powers of two */
		void *bigger = realloc(s->e, (s->n ? 2 * (size_t)s->n : 1) * sizeof(*s->e));

		if (!bigger)
			return -ENOMEM;
		s->e = bigger;
	}
	s->e[s->n++] = (struct symbol){addr, name};
	return 0;
}

static int add_functions(struct symbols *s, const struct file *f, const Elf64_Shdr *symtab, const Elf64_Shdr *strtab, uintptr_t bias)
{
	const Elf64_Sym *sym = at(f, symtab->sh_offset, symtab->sh_size);
	const char *names = at(f, strtab->sh_offset, strtab->sh_size);
	int ret = 0;

	if (!sym || !names || !strtab->sh_size || names[strtab->sh_size - 1])
		return -ENOEXEC;
	for (size_t i = 0; ret == 0 && i < symtab->sh_size / sizeof(*sym); i++)
		if (ELF64_ST_TYPE(sym[i].st_info) == STT_FUNC && sym[i].st_value && sym[i].st_name < strtab->sh_size)
			ret = add(s, bias + sym[i].st_value, names + sym[i].st_name);
	return ret;
}

static int add_program(struct symbols *s, const struct file *f, uintptr_t bias)
{
	const Elf64_Ehdr *h = at(f, 0, sizeof(*h));
	const Elf64_Shdr *sh = h ? at(f, h->e_shoff, (uint64_t)h->e_shnum * sizeof(*sh)) : NULL;

	if (!sh || memcmp(h->e_ident, ELFMAG, SELFMAG) || h->e_shentsize != sizeof(*sh))
		return -ENOEXEC;
	for (unsigned i = 0; i < h->e_shnum; i++)
		if (sh[i].sh_type == SHT_SYMTAB && sh[i].sh_link < h->e_shnum)
			return add_functions(s, f, &sh[i], &sh[sh[i].sh_link], bias);
	return -ENOENT; /* stripped */
}

static int map_program(struct file *f)
{
	int fd = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
	struct stat st;
	void *p;

	if (fd < 0)
		return -errno;
	if (fstat(fd, &st) < 0 || st.st_size <= 0) {
		close(fd);
		return -ENOEXEC;
	}
	f->size = (size_t)st.st_size;
	p = mmap(NULL, f->size, PROT_READ, MAP_PRIVATE, fd, 0);
	close(fd);
	f->p = p;
	return p == MAP_FAILED ? -ENOMEM : 0;
}

/* A module's executable part as one entry, and one without a name behind it. The first is the program. */
static int add_module(struct dl_phdr_info *m, size_t size, void *opaque)
{
	struct symbols *s = opaque;
	const char *slash = strrchr(m->dlpi_name, '/');
	int ret = 0;

	(void)size;
	for (unsigned i = 0; ret == 0 && i < m->dlpi_phnum; i++) {
		const Elf64_Phdr *ph = &m->dlpi_phdr[i];

		if (ph->p_type != PT_LOAD || !(ph->p_flags & PF_X))
			continue;
		if (m->dlpi_name[0])
			ret = add(s, m->dlpi_addr + ph->p_vaddr, slash ? slash + 1 : m->dlpi_name);
		else
			ret = add(s, m->dlpi_addr + ph->p_vaddr, "(program)");
		if (ret == 0)
			ret = add(s, m->dlpi_addr + ph->p_vaddr + ph->p_memsz, NULL);
	}
	return ret;
}

static int program_bias(struct dl_phdr_info *m, size_t size, void *bias)
{
	(void)size;
	*(uintptr_t *)bias = m->dlpi_addr;
	return 1;
}

static int by_address(const void *a, const void *b)
{
	const struct symbol *x = a, *y = b;

	return x->addr < y->addr ? -1 : x->addr > y->addr;
}

int symbols_load(struct symbols *s)
{
	struct file f = {0};
	uintptr_t bias = 0;
	int ret;

	*s = (struct symbols){0};
	ret = dl_iterate_phdr(add_module, s);
	if (ret < 0)
		return ret;
	dl_iterate_phdr(program_bias, &bias);
	ret = map_program(&f);
	if (ret == 0)
		ret = add_program(s, &f, bias);
	qsort(s->e, s->n, sizeof(*s->e), by_address);
	return ret;
}

unsigned symbols_find(const struct symbols *s, uintptr_t addr)
{
	unsigned lo = 0, hi = s->n;

	while (lo < hi) { /* the first one behind addr */
		unsigned mid = lo + (hi - lo) / 2;

		if (s->e[mid].addr <= addr)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo && s->e[lo - 1].name ? lo - 1 : s->n;
}
