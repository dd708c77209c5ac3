/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Booting from a disk: find the kernel, the initrd and the command line that the system on it would boot with, and read
 * them into memory for boot_load().
 *
 *   partition table (disk_parts.c) -> ext2/3/4 (disk_fs.c) -> what to boot (disk_menu.c) -> disk.c puts it together
 *
 * The disk's contents are a stranger's: all of this runs in the sealed process, every read is bounds-checked and counted
 * against a budget (so nothing loops for long), every size has a limit, and the worst a wrong disk brings about is a
 * message. Nothing is ever written. No state, no locks: runs before the vCPU does, or on its thread at a reset.
 */
#ifndef VM_BOOT_DISK_H
#define VM_BOOT_DISK_H

#include "base/types.h"

#define DISK_PATH_MAX 256
#define DISK_OPTIONS_MAX 4096
#define DISK_KERNEL_MAX (1ull << 30)
#define DISK_INITRD_MAX (2ull << 30)
#define DISK_TEXT_MAX (1u << 20)      /* of a configuration file */
#define DISK_MAX_PARTS 128
#define DISK_MAX_NAMES 4096           /* looked at in a folder */

/* The disk: reads all of [off, off + len), which lies inside its size, or fails. */
struct disk {
	int (*read)(void *opaque, void *buf, size_t len, uint64_t off); /* 0 or -errno */
	void *opaque;
	uint64_t size;
};

/* --- disk.c ------------------------------------------------------------------------------------------------------- */
struct disk_boot {
	uint8_t *kernel, *initrd;    /* initrd NULL = none */
	size_t kernel_size, initrd_size;
	unsigned partition;          /* they came from; 0 = the disk has no partitions */
	char kernel_path[DISK_PATH_MAX], initrd_path[DISK_PATH_MAX];
	char cmdline[DISK_OPTIONS_MAX];
};

/* Finds and reads what to boot; `append` goes to the end of the command line. NULL and *b filled in (disk_boot_fini() it),
 * or "cause; remedy". */
const char *disk_boot_find(const struct disk *d, const char *append, struct disk_boot *b);
void disk_boot_fini(struct disk_boot *b);

/* --- disk_parts.c ------------------------------------------------------------------------------------------------- */
struct disk_part {
	uint64_t start, len;         /* bytes, inside the disk */
	unsigned number;             /* as Linux counts them; 0 = the whole disk */
	char partuuid[40];           /* as Linux names it, or empty */
};

/* Lists the partitions of a GPT or MBR; a disk without a table is one part. The number of parts, or -errno. */
int disk_parts(const struct disk *d, struct disk_part parts[DISK_MAX_PARTS]);

/* --- disk_fs.c: ext2, ext3, ext4 through libext2fs ------------------------------------------------------------------- */
struct disk_fs;

/* -ENODEV if it is no such file system, -EINVAL if one that is damaged or too new. */
int disk_fs_open(const struct disk *d, const struct disk_part *p, struct disk_fs **out);
void disk_fs_close(struct disk_fs *fs);
const char *disk_fs_uuid(const struct disk_fs *fs);
bool disk_fs_exists(struct disk_fs *fs, const char *path);
/* Reads a whole file of at most max bytes into *buf (disk_fs_free() it; a zero byte follows the last). 0, -ENOENT, -EFBIG,
 * -ENOMEM or -EIO. */
int disk_fs_read(struct disk_fs *fs, const char *path, uint64_t max, uint8_t **buf, size_t *size);
void disk_fs_free(uint8_t *buf, size_t size);
/* Calls each() for the names in a folder, at most DISK_MAX_NAMES, until it returns false. 0 or -errno. */
int disk_fs_list(struct disk_fs *fs, const char *path, bool (*each)(void *opaque, const char *name), void *opaque);

/* --- disk_menu.c: text of configuration files ------------------------------------------------------------------------ */
struct disk_entry {
	char kernel[DISK_PATH_MAX], initrd[DISK_PATH_MAX];   /* in the file system the text is in; initrd may be empty */
	char options[DISK_OPTIONS_MAX];
};

/* The default entry of a grub.cfg; false if it has none that is spelt out. */
bool disk_menu_grub(const char *text, struct disk_entry *e);
/* An entry of the Boot Loader Specification (loader/entries/NAME.conf). */
bool disk_menu_bls(const char *text, struct disk_entry *e);
/* GRUB_CMDLINE_LINUX and GRUB_CMDLINE_LINUX_DEFAULT of /etc/default/grub, as one line. */
void disk_menu_defaults(const char *text, char options[DISK_OPTIONS_MAX]);
/* < 0, 0, > 0 as version a is older than, the same as, newer than b: numbers count as numbers, '~' sorts before the end. */
int disk_menu_compare(const char *a, const char *b);
/* Adds a word or line to options, separated by a space; false if it does not fit. */
bool disk_menu_add(char options[DISK_OPTIONS_MAX], const char *what);

#endif
