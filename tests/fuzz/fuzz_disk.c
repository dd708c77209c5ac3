/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Fuzzes booting from a disk: whatever is on it, disk_boot_find() returns in bounded time, reads nothing outside the disk and
 * never crashes.
 *
 * As a program: fuzz_disk RUNS [SEED] makes a small disk (GPT, ext4 with a kernel, a menu and defaults) with sfdisk and
 * mke2fs and boots from it with random bytes changed, mostly in what describes it: the table, the superblock, the group
 * descriptors, inodes and folders. Without those two tools it says so and does nothing. With -DLIBFUZZER it is a libFuzzer
 * target: the input is the list of changes.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "vm/boot/disk.h"

#define DISK_BYTES (3u << 20)
#define PART_AT (1u << 20)
/* A read budget the size of the loader's would let one run take seconds; the disk has far fewer sectors. */
#define READS_MAX 200000u
#define CHANGES_MAX 64

struct fuzz {
	uint8_t *base, *disk;  /* sound, and with changes */
	size_t changed[CHANGES_MAX];
	unsigned nchanged;
	uint64_t seed;
	unsigned reads;
};

static uint64_t next(struct fuzz *f)
{
	f->seed ^= f->seed << 13;
	f->seed ^= f->seed >> 7;
	f->seed ^= f->seed << 17;
	return f->seed;
}

static int disk_read(void *opaque, void *buf, size_t len, uint64_t off)
{
	struct fuzz *f = opaque;

	if (off > DISK_BYTES || len > DISK_BYTES - off) {
		fprintf(stderr, "read outside the disk: %zu at %llu\n", len, (unsigned long long)off);
		abort();
	}
	if (f->reads++ > READS_MAX)
		return -EIO;
	memcpy(buf, f->disk + off, len);
	return 0;
}

/* The disk as the tools leave it. -1 without them. */
static int make_base(uint8_t *base)
{
	static const char script[] =
		"set -e; PATH=$PATH:/usr/sbin:/sbin; d=$(mktemp -d); trap 'rm -rf $d' EXIT; cd $d; "
		"command -v mke2fs sfdisk >/dev/null; mkdir -p t/boot/grub t/boot/loader/entries t/etc/default; "
		"head -c 70000 /dev/zero >t/boot/vmlinuz-1; head -c 9000 /dev/zero >t/boot/initrd.img-1; ln -s vmlinuz-1 t/boot/k; "
		"printf 'menuentry a {\\nlinux /boot/k root=x\\ninitrd /boot/initrd.img-1\\n}\\n' >t/boot/grub/grub.cfg; "
		"printf 'linux /boot/k\\noptions a\\n' >t/boot/loader/entries/a.conf; : >t/etc/fstab; "
		"echo 'GRUB_CMDLINE_LINUX=\"quiet\"' >t/etc/default/grub; truncate -s 3M disk; "
		"printf 'label: gpt\\nstart=2048,size=4000\\n' | sfdisk -q disk; "
		"mke2fs -q -F -t ext4 -b 1024 -O ^has_journal,^metadata_csum -d t -E offset=1048576 disk 2000k; cat disk";
	FILE *p = popen(script, "r");
	size_t n = p ? fread(base, 1, DISK_BYTES, p) : 0;

	return p && pclose(p) == 0 && n == DISK_BYTES ? 0 : -1;
}

static const char *boot(struct fuzz *f)
{
	const struct disk d = {.read = disk_read, .opaque = f, .size = DISK_BYTES};
	struct disk_boot b;
	const char *err;

	f->reads = 0;
	err = disk_boot_find(&d, "append", &b);
	disk_boot_fini(&b);
	return err;
}

static int fuzz_init(struct fuzz *f)
{
	f->base = malloc(DISK_BYTES);
	f->disk = malloc(DISK_BYTES);
	if (!f->base || !f->disk || make_base(f->base) < 0)
		return -1;
	memcpy(f->disk, f->base, DISK_BYTES);
	if (boot(f)) {
		fprintf(stderr, "the sound disk does not boot\n");
		abort();
	}
	return 0;
}

static void change(struct fuzz *f, size_t at, uint8_t value)
{
	if (f->nchanged == CHANGES_MAX)
		return;
	f->changed[f->nchanged++] = at;
	f->disk[at] = value;
}

static void restore(struct fuzz *f)
{
	while (f->nchanged) {
		size_t at = f->changed[--f->nchanged];

		f->disk[at] = f->base[at];
	}
}

#ifdef LIBFUZZER
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Each four bytes of input: where (22 bits), what (8 bits). */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct fuzz f;

	if (!f.base && fuzz_init(&f) < 0)
		return 0;
	for (size_t i = 0; i + 4 <= size; i += 4)
		change(&f, (size_t)(data[i] | data[i + 1] << 8 | (data[i + 2] & 0x3f) << 16) % DISK_BYTES, data[i + 3]);
	(void)boot(&f);
	restore(&f);
	return 0;
}
#else
/* Where a change matters: any byte that is not zero in the sound disk is more telling than one that is. */
static size_t pick(struct fuzz *f)
{
	size_t at = 0;

	for (unsigned i = 0; i < 64; i++) {
		switch (next(f) % 4) {
		case 0:
			at = next(f) % 4096;                          /* partition table */
			break;
		case 1:
			at = PART_AT + 1024 + next(f) % 2048;         /* superblock, group descriptors */
			break;
		default:
			at = PART_AT + next(f) % (DISK_BYTES - PART_AT);
			break;
		}
		if (f->base[at])
			break;
	}
	return at;
}

static void mutate(struct fuzz *f)
{
	unsigned changes = 1 + (unsigned)(next(f) % 4);

	for (unsigned i = 0; i < changes; i++) {
		size_t at = pick(f), n = next(f) % 8 == 0 ? 4 : 1;

		for (size_t k = at; k < at + n && k < DISK_BYTES; k++)
			change(f, k, next(f) % 4 == 0 ? 0xff : (uint8_t)next(f));
	}
}

int main(int argc, char **argv)
{
	unsigned long runs = argc > 1 ? strtoul(argv[1], NULL, 0) : 20000;
	struct fuzz f = {.seed = argc > 2 ? strtoull(argv[2], NULL, 0) : 0x9e3779b97f4a7c15};

	if (fuzz_init(&f) < 0) {
		printf("mke2fs or sfdisk is missing: nothing fuzzed\n");
		runs = 0;
	}
	for (unsigned long i = 0; i < runs; i++) {
		mutate(&f);
		(void)boot(&f);
		restore(&f);
	}
	printf("%lu disks\n", runs);
	free(f.base);
	free(f.disk);
	return 0;
}
#endif
