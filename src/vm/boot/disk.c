/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a disk boots: where to look, in which order, and the command line that results.
 *
 * Partitions are tried in order. On each the folder is /boot, or / if the partition is one that is mounted there; in it the
 * first of these that names a kernel that is there decides:
 *   1. the default entry of grub/grub.cfg (grub2/grub.cfg)   2. the newest of loader/entries   3. the newest vmlinuz-*
 * The first two come with their command line. The third takes it from /etc/default/grub of the root file system, which is
 * the partition itself or the first with an /etc/fstab. All get console=ttyS0 if they lack it: it is always there.
 *
 * Invariant: what is returned is in memory of our own; the disk is not looked at again. See disk.h.
 */
#include "vm/boot/disk.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CONSOLE "console=ttyS0"

struct search {
	const struct disk *disk;
	struct disk_part parts[DISK_MAX_PARTS];
	int nparts;
	int fs_seen, fs_bad;           /* ext file systems found; found but not readable */
	const char *trouble;           /* why a kernel that was found cannot be used */
	struct disk_entry entry;
};

/* Where in one file system to look. */
struct place {
	struct disk_fs *fs;
	const struct disk_part *part;
	const char *folder;            /* "/boot", or "" for the top */
};

static bool join(char out[DISK_PATH_MAX], const char *folder, const char *prefix, const char *name)
{
	int n = snprintf(out, DISK_PATH_MAX, "%s/%s%s", folder, prefix, name);

	return n > 0 && n < DISK_PATH_MAX;
}

/* A small text file, or NULL; release with disk_fs_free(). */
static char *read_text(struct disk_fs *fs, const char *path, size_t *size)
{
	uint8_t *buf;

	return disk_fs_read(fs, path, DISK_TEXT_MAX, &buf, size) == 0 ? (char *)buf : NULL;
}

static bool from_grub(struct search *s, const struct place *p)
{
	static const char *const names[] = {"grub/grub.cfg", "grub2/grub.cfg"};
	bool found = false;

	for (size_t i = 0; i < nitems(names) && !found; i++) {
		char path[DISK_PATH_MAX], *text;
		size_t size;

		if (!join(path, p->folder, "", names[i]))
			continue;
		text = read_text(p->fs, path, &size);
		if (!text)
			continue;
		found = disk_menu_grub(text, &s->entry) && disk_fs_exists(p->fs, s->entry.kernel);
		disk_fs_free((uint8_t *)text, size);
	}
	return found;
}

/* The newest of the names that begin with prefix and end with suffix. */
struct newest {
	const char *prefix, *suffix;
	char name[DISK_PATH_MAX];      /* without prefix and suffix; empty = none yet */
};

static bool ends_with(const char *s, const char *suffix)
{
	size_t n = strlen(s), k = strlen(suffix);

	return n >= k && !strcmp(s + n - k, suffix);
}

static bool see_name(void *opaque, const char *name)
{
	static const char *const leftovers[] = {".old", ".bak", "~", ".dpkg-new", ".dpkg-tmp", ".dpkg-old", ".efi.signed"};
	struct newest *best = opaque;
	size_t prefix = strlen(best->prefix), suffix = strlen(best->suffix), len = strlen(name);
	char middle[DISK_PATH_MAX];

	if (strncmp(name, best->prefix, prefix) || len <= prefix + suffix || !ends_with(name, best->suffix))
		return true;
	for (size_t i = 0; i < nitems(leftovers); i++)
		if (ends_with(name, leftovers[i]))
			return true;
	/* The rescue kernels that some systems keep are for another day. */
	if (strstr(name, "rescue"))
		return true;
	snprintf(middle, sizeof(middle), "%.*s", (int)(len - prefix - suffix), name + prefix);
	if (!best->name[0] || disk_menu_compare(middle, best->name) > 0)
		memcpy(best->name, middle, sizeof(middle));
	return true;
}

static bool from_bls(struct search *s, const struct place *p)
{
	struct newest best = {.prefix = "", .suffix = ".conf"};
	char folder[DISK_PATH_MAX], path[DISK_PATH_MAX], file[DISK_PATH_MAX + 8], *text;
	size_t size;
	bool found;

	if (!join(folder, p->folder, "", "loader/entries") || disk_fs_list(p->fs, folder, see_name, &best) < 0 || !best.name[0])
		return false;
	snprintf(file, sizeof(file), "%s.conf", best.name);
	if (!join(path, folder, "", file))
		return false;
	text = read_text(p->fs, path, &size);
	if (!text)
		return false;
	found = disk_menu_bls(text, &s->entry) && disk_fs_exists(p->fs, s->entry.kernel);
	disk_fs_free((uint8_t *)text, size);
	return found;
}

static void find_initrd(const struct place *p, const char *version, char initrd[DISK_PATH_MAX])
{
	static const char *const forms[][2] = {{"initrd.img-", ""}, {"initramfs-", ".img"}, {"initrd-", ""}, {"initramfs-", ""}};

	for (size_t i = 0; i < nitems(forms); i++) {
		char name[2 * DISK_PATH_MAX];

		snprintf(name, sizeof(name), "%s%s", version, forms[i][1]);
		if (join(initrd, p->folder, forms[i][0], name) && disk_fs_exists(p->fs, initrd))
			return;
	}
	initrd[0] = 0;
}

/* root=... for the file system at p. Without an initrd only the kernel's own names work. */
static void name_root(const struct place *p, bool initrd, char options[DISK_OPTIONS_MAX])
{
	char root[64];

	if (initrd)
		snprintf(root, sizeof(root), "root=UUID=%s ro", disk_fs_uuid(p->fs));
	else if (p->part->partuuid[0])
		snprintf(root, sizeof(root), "root=PARTUUID=%s ro", p->part->partuuid);
	else
		snprintf(root, sizeof(root), "root=/dev/vda ro");
	(void)disk_menu_add(options, root);
}

/* The command line for a kernel without one, from the root file system at p. */
static void default_options(struct search *s, const struct place *p)
{
	char options[DISK_OPTIONS_MAX] = "", *text;
	size_t size;

	name_root(p, s->entry.initrd[0], s->entry.options);
	text = read_text(p->fs, "/etc/default/grub", &size);
	if (!text)
		return;
	disk_menu_defaults(text, options);
	(void)disk_menu_add(s->entry.options, options);
	disk_fs_free((uint8_t *)text, size);
}

/* The root file system that goes with a separate boot partition: the first other one with an /etc/fstab. */
static void options_from_root(struct search *s, const struct place *boot)
{
	for (int i = 0; i < s->nparts; i++) {
		struct place p = {.part = &s->parts[i], .folder = ""};
		bool is_root;

		if (p.part == boot->part || disk_fs_open(s->disk, p.part, &p.fs) < 0)
			continue;
		is_root = disk_fs_exists(p.fs, "/etc/fstab");
		if (is_root)
			default_options(s, &p);
		disk_fs_close(p.fs);
		if (is_root)
			return;
	}
	s->trouble = "the disk has a kernel but no root file system doppel can read; give --kernel, --initrd and --append";
}

static bool from_names(struct search *s, const struct place *p)
{
	struct newest best = {.prefix = "vmlinuz-", .suffix = ""};

	if (disk_fs_list(p->fs, p->folder[0] ? p->folder : "/", see_name, &best) < 0 || !best.name[0])
		return false;
	s->entry = (struct disk_entry){0};
	if (!join(s->entry.kernel, p->folder, "vmlinuz-", best.name))
		return false;
	find_initrd(p, best.name, s->entry.initrd);
	if (p->folder[0])
		default_options(s, p);
	else
		options_from_root(s, p);
	return true;
}

/* Looks in one file system; true if it has a kernel, with s->entry filled in. */
static bool search_fs(struct search *s, struct place *p)
{
	static const char *const folders[] = {"/boot", ""};

	for (size_t i = 0; i < nitems(folders); i++) {
		p->folder = folders[i];
		if (from_grub(s, p) || from_bls(s, p) || from_names(s, p))
			return true;
	}
	return false;
}

static bool has_console(const char *cmdline)
{
	const char *at = strstr(cmdline, CONSOLE);

	for (; at; at = strstr(at + 1, CONSOLE))
		if ((at == cmdline || at[-1] == ' ') && strchr(" ,", at[sizeof(CONSOLE) - 1]))
			return true; /* strchr finds the end of the string, too */
	return false;
}

static const char *make_cmdline(const struct search *s, const char *append, struct disk_boot *b)
{
	bool fits = disk_menu_add(b->cmdline, s->entry.options);

	if (fits && !has_console(b->cmdline))
		fits = disk_menu_add(b->cmdline, CONSOLE);
	return fits && disk_menu_add(b->cmdline, append) ? NULL : "the command line is longer than 4095 bytes; shorten --append";
}

static const char *load_file(struct disk_fs *fs, const char *path, uint64_t max, uint8_t **buf, size_t *size)
{
	switch (disk_fs_read(fs, path, max, buf, size)) {
	case 0:
		return NULL;
	case -ENOENT:
		return "the disk's boot menu names a file that is not there; give --kernel";
	case -EFBIG:
		return "the disk's kernel or initrd is larger than any can be; give --kernel";
	case -ENOMEM:
		return "not enough host memory to read the disk's kernel; free some";
	default:
		return "the disk's kernel or initrd cannot be read to its end; check the image (fsck), or give --kernel";
	}
}

static const char *load(const struct search *s, const struct place *p, const char *append, struct disk_boot *b)
{
	const char *err = s->trouble;

	b->partition = p->part->number;
	memcpy(b->kernel_path, s->entry.kernel, sizeof(b->kernel_path));
	memcpy(b->initrd_path, s->entry.initrd, sizeof(b->initrd_path));
	if (!err)
		err = make_cmdline(s, append, b);
	if (!err)
		err = load_file(p->fs, b->kernel_path, DISK_KERNEL_MAX, &b->kernel, &b->kernel_size);
	if (!err && b->initrd_path[0])
		err = load_file(p->fs, b->initrd_path, DISK_INITRD_MAX, &b->initrd, &b->initrd_size);
	return err;
}

static const char *nothing_found(const struct search *s)
{
	if (s->fs_bad)
		return "no bootable kernel found, and a file system on the disk is damaged or of a newer kind; "
		       "check it (fsck), or give --kernel";
	if (s->fs_seen)
		return "no bootable kernel found on the disk (no vmlinuz-* in /boot); give --kernel";
	return "no bootable kernel found on the disk (it has no ext2, ext3 or ext4 file system); give --kernel";
}

static const char *search_disk(struct search *s, const char *append, struct disk_boot *b)
{
	for (int i = 0; i < s->nparts; i++) {
		struct place p = {.part = &s->parts[i]};
		int ret = disk_fs_open(s->disk, p.part, &p.fs);
		const char *err;
		bool found;

		s->fs_bad += ret == -EINVAL;
		if (ret < 0)
			continue;
		s->fs_seen++;
		found = search_fs(s, &p);
		err = found ? load(s, &p, append, b) : NULL;
		disk_fs_close(p.fs);
		if (found)
			return err;
	}
	return nothing_found(s);
}

const char *disk_boot_find(const struct disk *d, const char *append, struct disk_boot *b)
{
	struct search *s = calloc(1, sizeof(*s));
	const char *err;

	*b = (struct disk_boot){0};
	if (!s)
		return "out of memory; free some and try again";
	s->disk = d;
	s->nparts = disk_parts(d, s->parts);
	err = s->nparts < 0 ? "the disk cannot be read; check the image, or give --kernel" : search_disk(s, append, b);
	free(s);
	if (err)
		disk_boot_fini(b);
	return err;
}

void disk_boot_fini(struct disk_boot *b)
{
	disk_fs_free(b->kernel, b->kernel_size);
	disk_fs_free(b->initrd, b->initrd_size);
	b->kernel = b->initrd = NULL;
}
