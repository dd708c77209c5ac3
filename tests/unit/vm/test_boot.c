/* SPDX-License-Identifier: Apache-2.0 */
/*
 * vm/boot/: what each protocol promises a kernel is in guest memory; images that do not fit are refused with the cause.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "vm/boot/boot.h"

#define RAM (16ull << 20)

struct fx {
	struct boot_target t;
	struct boot_source s;
	struct boot_file module[2];
	struct boot_entry e;
	uint8_t image[8192];
};

static void put(uint8_t *p, unsigned n, uint64_t v)
{
	for (unsigned i = 0; i < n; i++)
		p[i] = (uint8_t)(v >> (8 * i));
}

static uint64_t guest(struct fx *f, gpa_t gpa, unsigned n)
{
	uint64_t v = 0;

	assert_int_equal(mem_read(f->t.mem, gpa, &v, n), 0);
	return v;
}

static void assert_text(struct fx *f, gpa_t gpa, const char *want)
{
	char got[64] = {0};

	assert_true(strlen(want) < sizeof(got));
	assert_int_equal(mem_read(f->t.mem, gpa, got, strlen(want) + 1), 0);
	assert_string_equal(got, want);
}

static struct fx *fx_create(void)
{
	static const char text[] = "the contents of a module";
	struct fx *f = calloc(1, sizeof(*f));
	int fd = memfd_create("module", 0);

	assert_non_null(f);
	assert_int_equal(write(fd, text, sizeof(text)), sizeof(text));
	assert_int_equal(mem_create(&f->t.mem, RAM, (4ull << 30) >> PAGE_SHIFT), 0);
	assert_int_equal(mem_add_ram(f->t.mem, 0, RAM), 0);
	f->t.low_ram = RAM;
	f->t.rsdp = 0xe1230;
	f->module[0] = (struct boot_file){.fd = fd, .size = sizeof(text), .args = "first arg"};
	f->module[1] = (struct boot_file){.fd = fd, .size = sizeof(text), .args = "second"};
	f->s = (struct boot_source){.image = f->image, .size = sizeof(f->image), .append = "hello world", .module = f->module};
	return f;
}

static void fx_destroy(struct fx *f)
{
	close(f->module[0].fd);
	mem_destroy(f->t.mem);
	free(f);
}

static void make_bzimage(uint8_t *p)
{
	memset(p, 0x90, 8192);
	memset(p, 0, 1024);
	p[0x1f1] = 1;
	put(p + 0x1f4, 4, (8192 - 1024) / 16);
	put(p + 0x1fe, 2, 0xaa55);
	p[0x201] = 0x6a;
	memcpy(p + 0x202, "HdrS", 4);
	put(p + 0x206, 2, 0x20f);
	p[0x211] = 1;
	put(p + 0x22c, 4, 0x5fffff);
	put(p + 0x236, 2, 1);
	put(p + 0x238, 4, 255);
	put(p + 0x258, 8, 0x200000);
	put(p + 0x260, 4, 0x10000);
}

static void test_bzimage(void **state)
{
	struct fx *f = fx_create();
	gpa_t initrd;

	(void)state;
	make_bzimage(f->image);
	f->s.nmodules = 1;
	f->s.has_initrd = true;
	assert_null(boot_load(&f->t, &f->s, &f->e));
	assert_true(f->e.long_mode);
	assert_int_equal(f->e.rip, 0x200200);
	assert_int_equal(f->e.rsi, BOOT_PARAMS);
	assert_int_equal(guest(f, 0x200000, 8), 0x9090909090909090);
	assert_int_equal(guest(f, BOOT_PARAMS + 0x202, 4), 0x53726448);
	assert_int_equal(guest(f, BOOT_PARAMS + 0x210, 1), 0xff);
	assert_int_equal(guest(f, BOOT_PARAMS + 0x1ef, 1), 0); /* sentinel */
	assert_int_equal(guest(f, BOOT_PARAMS + 0x70, 8), 0xe1230);
	assert_text(f, guest(f, BOOT_PARAMS + 0x228, 4), "hello world");
	initrd = guest(f, BOOT_PARAMS + 0x218, 4);
	assert_int_equal(initrd & PAGE_MASK, 0);
	assert_true(initrd + f->module[0].size <= 0x600000); /* initrd_addr_max */
	assert_true(initrd >= 0x210000);
	assert_int_equal(guest(f, BOOT_PARAMS + 0x21c, 4), f->module[0].size);
	assert_text(f, initrd, "the contents of a module");
	assert_int_equal(guest(f, BOOT_PARAMS + 0x1e8, 1), 4);
	assert_int_equal(guest(f, BOOT_PARAMS + 0x2d0 + 3 * 20, 8), 0x100000);
	assert_int_equal(guest(f, BOOT_PARAMS + 0x2d0 + 3 * 20 + 8, 8), RAM - 0x100000);
	fx_destroy(f);
}

/* Expects an error that mentions `what`. */
static void refuse(struct fx *f, const char *what)
{
	const char *err = boot_load(&f->t, &f->s, &f->e);

	assert_non_null(err);
	if (!strstr(err, what))
		fail_msg("'%s' does not mention '%s'", err, what);
}

static void test_bzimage_refused(void **state)
{
	struct fx *f = fx_create();
	char longline[300];

	(void)state;
	make_bzimage(f->image);
	f->s.size = 8192 - 16;
	refuse(f, "truncated");
	f->s.size = 8192 - 15; /* the last unit may be partial */
	assert_null(boot_load(&f->t, &f->s, &f->e));
	f->s.size = 0x220;
	refuse(f, "truncated");
	f->s.size = 8192;
	put(f->image + 0x260, 4, 0x1000000);
	refuse(f, "--memory");
	put(f->image + 0x260, 4, 0x10000);
	put(f->image + 0x258, 8, UINT64_MAX - 0xfff);
	refuse(f, "--memory");
	put(f->image + 0x258, 8, 0x200000);
	put(f->image + 0x236, 2, 0);
	refuse(f, "64-bit");
	put(f->image + 0x236, 2, 1);
	memset(longline, 'x', sizeof(longline));
	longline[sizeof(longline) - 1] = 0;
	f->s.append = longline;
	refuse(f, "command line");
	f->s.append = "";
	f->s.nmodules = 1;
	refuse(f, "--initrd");
	f->s.has_initrd = true;
	put(f->image + 0x22c, 4, 0x20ffff);
	refuse(f, "do not fit");
	fx_destroy(f);
}

static void make_flat_multiboot(uint8_t *p)
{
	static const uint32_t addr[] = {0x100400, 0x100000, 0x102000, 0x104000, 0x100500};

	memset(p, 0xcc, 8192);
	put(p + 0x400, 4, 0x1badb002);
	put(p + 0x404, 4, 0x10003);
	put(p + 0x408, 4, -(0x1badb002u + 0x10003));
	for (unsigned i = 0; i < 5; i++)
		put(p + 0x40c + 4 * i, 4, addr[i]);
}

static void test_multiboot(void **state)
{
	struct fx *f = fx_create();
	gpa_t mods, info, mmap;

	(void)state;
	make_flat_multiboot(f->image);
	f->s.nmodules = 2;
	assert_int_equal(mem_write(f->t.mem, 0x103000, "junk", 4), 0);
	assert_null(boot_load(&f->t, &f->s, &f->e));
	assert_false(f->e.long_mode);
	assert_int_equal(f->e.rip, 0x100500);
	assert_int_equal(f->e.rax, 0x2badb002);
	info = f->e.rbx;
	assert_int_equal(guest(f, 0x101fff, 1), 0xcc);
	assert_int_equal(guest(f, 0x103000, 4), 0); /* bss */
	assert_int_equal(guest(f, info, 4) & 0x4d, 0x4d);
	assert_int_equal(guest(f, info + 8, 4), (RAM - 0x100000) >> 10);
	assert_text(f, guest(f, info + 16, 4), "hello world");
	assert_int_equal(guest(f, info + 20, 4), 2);
	mods = guest(f, info + 24, 4);
	assert_text(f, guest(f, mods, 4), "the contents of a module");
	assert_text(f, guest(f, mods + 8, 4), "first arg");
	assert_text(f, guest(f, mods + 16 + 8, 4), "second");
	assert_true(guest(f, mods + 16, 4) >= 0x104000);
	mmap = guest(f, info + 48, 4);
	assert_int_equal(guest(f, info + 44, 4), 4 * 24);
	assert_int_equal(guest(f, mmap, 4), 20);
	assert_int_equal(guest(f, mmap + 20, 4), 1);
	put(f->image + 0x404, 4, 0x10007);
	put(f->image + 0x408, 4, -(0x1badb002u + 0x10007));
	refuse(f, "video");
	fx_destroy(f);
}

static void make_elf(uint8_t *p)
{
	memset(p, 0, 8192);
	memcpy(p, "\177ELF\2\1\1", 7);
	put(p + 16, 2, 2);
	put(p + 18, 2, 62);
	put(p + 32, 8, 64);
	put(p + 54, 2, 56);
	put(p + 56, 2, 2);
	put(p + 64, 4, 1);               /* PT_LOAD 0x1000..0x2000 at 2 MiB, twice as long in memory */
	put(p + 64 + 8, 8, 0x1000);
	put(p + 64 + 16, 8, 0xffffffff80200000);
	put(p + 64 + 24, 8, 0x200000);
	put(p + 64 + 32, 8, 0x1000);
	put(p + 64 + 40, 8, 0x2000);
	put(p + 120, 4, 4);              /* PT_NOTE at 0x800 */
	put(p + 120 + 8, 8, 0x800);
	put(p + 120 + 32, 8, 24);
	put(p + 0x800, 4, 4);
	put(p + 0x804, 4, 8);
	put(p + 0x808, 4, 18);
	memcpy(p + 0x80c, "Xen", 4);
	put(p + 0x810, 8, 0x200040);
	memset(p + 0x1000, 0xab, 0x1000);
}

static void test_pvh(void **state)
{
	struct fx *f = fx_create();
	gpa_t info, mods;

	(void)state;
	make_elf(f->image);
	f->s.nmodules = 1;
	f->s.has_initrd = true;
	assert_null(boot_load(&f->t, &f->s, &f->e));
	assert_false(f->e.long_mode);
	assert_int_equal(f->e.rip, 0x200040);
	info = f->e.rbx;
	assert_int_equal(guest(f, info, 4), 0x336ec578);
	assert_int_equal(guest(f, info + 4, 4), 1);
	assert_int_equal(guest(f, info + 12, 4), 1);
	mods = guest(f, info + 16, 8);
	assert_text(f, guest(f, info + 24, 8), "hello world");
	assert_int_equal(guest(f, info + 32, 8), 0xe1230);
	assert_int_equal(guest(f, info + 48, 4), 4);
	assert_int_equal(guest(f, guest(f, info + 40, 8) + 3 * 24, 8), 0x100000);
	assert_text(f, guest(f, mods, 8), "the contents of a module");
	assert_int_equal(guest(f, mods + 8, 8), f->module[0].size);
	assert_text(f, guest(f, mods + 16, 8), "first arg");
	assert_int_equal(guest(f, 0x200ffc, 8), 0xabababab);
	fx_destroy(f);
}

static void test_elf_refused(void **state)
{
	struct fx *f = fx_create();

	(void)state;
	make_elf(f->image);
	put(f->image + 18, 2, 183);
	refuse(f, "another architecture");
	make_elf(f->image);
	f->s.size = 0x1800;
	refuse(f, "truncated");
	f->s.size = 8192;
	put(f->image + 0x808, 4, 17);
	refuse(f, "PVH");
	make_elf(f->image);
	put(f->image + 64 + 24, 8, RAM - 0x1000);
	refuse(f, "outside guest memory");
	put(f->image + 64 + 24, 8, 0x1000); /* our own tables live there */
	refuse(f, "outside guest memory");
	make_elf(f->image);
	put(f->image + 0x810, 8, 0x80200040);
	refuse(f, "entry point");
	make_elf(f->image);
	put(f->image + 64 + 40, 8, UINT64_MAX);
	refuse(f, "outside guest memory");
	memcpy(f->image, "\x1f\x8b\x08\x00", 4);
	refuse(f, "gunzip");
	f->s.size = 0;
	refuse(f, "empty");
	fx_destroy(f);
}

static void test_enter(void **state)
{
	struct boot_entry e = {.long_mode = true, .rip = 0x200200, .rsi = BOOT_PARAMS};
	static const struct vcpu_ops ops;
	const struct vcpu_config config = {.count = 1, .tsc_khz = 2000000, .ops = &ops};
	struct fx *f = fx_create();
	struct mmu_walk w;
	struct vcpu *v;

	(void)state;
	assert_int_equal(vcpu_create(&v, f->t.mem, &config), 0);
	boot_enter(&f->t, &e, v);
	assert_int_equal(v->mode, 0); /* INSN_MODE_64 */
	assert_int_equal(v->gpr[RSI], BOOT_PARAMS);
	assert_int_equal(mmu_walk(&v->mmu, 0xfee00020, MMU_READ, false, &w), 0);
	assert_int_equal(w.gpa, 0xfee00020);
	assert_int_equal(mmu_walk(&v->mmu, 0x123456, MMU_WRITE, false, &w), 0);
	assert_int_equal(w.gpa, 0x123456);
	assert_true(mmu_walk(&v->mmu, 4ull << 30, MMU_READ, false, &w) & MMU_FAULT);
	vcpu_reset(v);
	e = (struct boot_entry){.rip = 0x100000, .rax = 0x2badb002, .rbx = BOOT_INFO};
	boot_enter(&f->t, &e, v);
	assert_int_equal(v->cr0 & (CR0_PE | CR0_PG), CR0_PE);
	assert_int_equal(v->mode, 1); /* INSN_MODE_32 */
	assert_int_equal(v->rflags & FL_IF, 0);
	/* The hidden parts equal the descriptors. */
	assert_int_equal(guest(f, v->gdt.base + v->seg[CS].sel, 8) >> 40 & 0xf0ff, v->seg[CS].attr);
	assert_int_equal(guest(f, v->gdt.base + v->seg[DS].sel, 8) >> 40 & 0xf0ff, v->seg[DS].attr);
	vcpu_destroy(v);
	fx_destroy(f);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_bzimage), cmocka_unit_test(test_bzimage_refused), cmocka_unit_test(test_multiboot),
		cmocka_unit_test(test_pvh),     cmocka_unit_test(test_elf_refused),     cmocka_unit_test(test_enter),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
