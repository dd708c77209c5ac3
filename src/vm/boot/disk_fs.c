/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reading files from ext2, ext3 and ext4 through libext2fs, over a partition of a struct disk.
 *
 * libext2fs knows every feature such file systems have, but was not written for hostile ones. It is fenced in: it runs in
 * the sealed process, every read it makes goes through channel_read() here, which holds it to the partition and counts
 * against a budget (a cycle in the metadata ends there), and it is never asked to write. Like other boot loaders, it does
 * not replay the journal.
 * No locks: a struct disk_fs belongs to one thread.
 */
#include <errno.h>
#include <ext2fs/ext2fs.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "vm/boot/disk.h"

/* Reads of a file system in all: both limits are far above what two of the largest files and their metadata take. */
#define BUDGET_READS (4u << 20)
#define BUDGET_BYTES (8ull << 30)

struct disk_fs {
	const struct disk *disk;
	uint64_t start, len;
	uint64_t reads_left, bytes_left;
	ext2_filsys fs;
	char uuid[40];
};

/* --- the channel: libext2fs's way to the disk ------------------------------------------------------------------------ */

static errcode_t channel_read(io_channel ch, unsigned long long block, int count, void *buf)
{
	struct disk_fs *f = ch->private_data;
	/* A negative count is a number of bytes. */
	uint64_t len = count < 0 ? -(uint64_t)(int64_t)count : (uint64_t)count * (unsigned)ch->block_size;
	uint64_t off;

	if (__builtin_mul_overflow(block, (uint64_t)ch->block_size, &off) || off > f->len || len > f->len - off)
		return EXT2_ET_SHORT_READ;
	if (f->reads_left == 0 || f->bytes_left < len)
		return EXT2_ET_SHORT_READ;
	f->reads_left--;
	f->bytes_left -= len;
	return f->disk->read(f->disk->opaque, buf, len, f->start + off) == 0 ? 0 : EXT2_ET_SHORT_READ;
}

static errcode_t channel_read_narrow(io_channel ch, unsigned long block, int count, void *buf)
{
	return channel_read(ch, block, count, buf);
}

static errcode_t channel_write(io_channel ch, unsigned long block, int count, const void *buf)
{
	(void)ch, (void)block, (void)count, (void)buf;
	return EXT2_ET_RO_FILSYS;
}

static errcode_t channel_flush(io_channel ch)
{
	(void)ch;
	return 0;
}

static errcode_t channel_blksize(io_channel ch, int size)
{
	ch->block_size = size;
	return 0;
}

static errcode_t channel_close(io_channel ch)
{
	if (--ch->refcount > 0)
		return 0;
	ext2fs_free_mem(&ch->name);
	ext2fs_free_mem(&ch);
	return 0;
}

static errcode_t channel_open(const char *name, int flags, io_channel *out);

static const struct struct_io_manager manager = {
	.magic = EXT2_ET_MAGIC_IO_MANAGER,
	.name = "doppel",
	.open = channel_open,
	.close = channel_close,
	.set_blksize = channel_blksize,
	.read_blk = channel_read_narrow,
	.read_blk64 = channel_read,
	.write_blk = channel_write,
	.flush = channel_flush,
};

/* ext2fs_open2() hands nothing but a name on to the channel, so the name is the address of the struct disk_fs, made by
 * disk_fs_open() and parsed nowhere else. */
static errcode_t channel_open(const char *name, int flags, io_channel *out)
{
	struct struct_io_channel *ch = NULL;
	errcode_t err;
	char *end;

	(void)flags;
	err = ext2fs_get_memzero(sizeof(*ch), &ch);
	if (err)
		return err;
	err = ext2fs_get_mem(strlen(name) + 1, &ch->name);
	if (err) {
		ext2fs_free_mem(&ch);
		return err;
	}
	memcpy(ch->name, name, strlen(name) + 1);
	ch->magic = EXT2_ET_MAGIC_IO_CHANNEL;
	ch->manager = (io_manager)(uintptr_t)&manager; /* the library's type lacks the const it keeps */
	ch->block_size = 1024;
	ch->refcount = 1;
	ch->private_data = (void *)(uintptr_t)strtoull(name, &end, 16);
	*out = ch;
	return 0;
}

/* --- the file system ------------------------------------------------------------------------------------------------ */

static void format_uuid(const uint8_t *u, char out[40])
{
	char *p = out;

	for (unsigned i = 0; i < 16; i++) {
		bool dash = i == 4 || i == 6 || i == 8 || i == 10;

		p += snprintf(p, 4, "%s%02x", dash ? "-" : "", u[i]);
	}
}

int disk_fs_open(const struct disk *d, const struct disk_part *p, struct disk_fs **out)
{
	struct disk_fs *f = calloc(1, sizeof(*f));
	char name[24];
	errcode_t err;

	if (!f)
		return -ENOMEM;
	*f = (struct disk_fs){.disk = d, .start = p->start, .len = p->len, .reads_left = BUDGET_READS,
			      .bytes_left = BUDGET_BYTES};
	snprintf(name, sizeof(name), "%llx", (unsigned long long)(uintptr_t)f);
	err = ext2fs_open2(name, NULL, EXT2_FLAG_64BITS, 0, 0, (io_manager)(uintptr_t)&manager, &f->fs);
	if (err) {
		free(f);
		return err == EXT2_ET_BAD_MAGIC || err == EXT2_ET_SHORT_READ ? -ENODEV : -EINVAL;
	}
	format_uuid(f->fs->super->s_uuid, f->uuid);
	*out = f;
	return 0;
}

void disk_fs_close(struct disk_fs *f)
{
	ext2fs_free(f->fs);
	free(f);
}

const char *disk_fs_uuid(const struct disk_fs *f)
{
	return f->uuid;
}

/* The inode of a path, symbolic links followed (the library has a limit on their number). */
static int find(struct disk_fs *f, const char *path, ext2_ino_t *ino, struct ext2_inode *inode)
{
	if (ext2fs_namei_follow(f->fs, EXT2_ROOT_INO, EXT2_ROOT_INO, path, ino))
		return -ENOENT;
	return ext2fs_read_inode(f->fs, *ino, inode) ? -EIO : 0;
}

bool disk_fs_exists(struct disk_fs *f, const char *path)
{
	struct ext2_inode inode;
	ext2_ino_t ino;

	return find(f, path, &ino, &inode) == 0;
}

static int read_file(ext2_file_t file, uint8_t *buf, size_t size)
{
	for (size_t done = 0; done < size;) {
		unsigned want = size - done < (1u << 30) ? (unsigned)(size - done) : 1u << 30, got = 0;

		if (ext2fs_file_read(file, buf + done, want, &got) || got == 0)
			return -EIO;
		done += got;
	}
	return 0;
}

int disk_fs_read(struct disk_fs *f, const char *path, uint64_t max, uint8_t **buf, size_t *size)
{
	struct ext2_inode inode;
	ext2_file_t file;
	ext2_ino_t ino;
	int ret = find(f, path, &ino, &inode);

	if (ret < 0)
		return ret;
	if (!LINUX_S_ISREG(inode.i_mode))
		return -ENOENT;
	if (EXT2_I_SIZE(&inode) > max)
		return -EFBIG;
	*size = EXT2_I_SIZE(&inode);
	/* Anonymous memory rather than the heap: it goes back to the host when the guest has its copy. */
	*buf = mmap(NULL, *size + 1, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (*buf == MAP_FAILED)
		return -ENOMEM;
	ret = -EIO;
	if (ext2fs_file_open(f->fs, ino, 0, &file) == 0) {
		ret = read_file(file, *buf, *size);
		ext2fs_file_close(file);
	}
	if (ret < 0)
		disk_fs_free(*buf, *size);
	return ret;
}

void disk_fs_free(uint8_t *buf, size_t size)
{
	if (buf)
		munmap(buf, size + 1);
}

struct listing {
	bool (*each)(void *opaque, const char *name);
	void *opaque;
	unsigned left;
};

static int list_entry(ext2_ino_t dir, int entry, struct ext2_dir_entry *de, int offset, int blocksize, char *buf, void *arg)
{
	struct listing *l = arg;
	char name[EXT2_NAME_LEN + 1];
	unsigned len = (unsigned)ext2fs_dirent_name_len(de);

	(void)dir, (void)entry, (void)offset, (void)blocksize, (void)buf;
	if (l->left-- == 0)
		return DIRENT_ABORT;
	if (len > EXT2_NAME_LEN || memchr(de->name, 0, len))
		return 0;
	memcpy(name, de->name, len);
	name[len] = 0;
	return l->each(l->opaque, name) ? 0 : DIRENT_ABORT;
}

int disk_fs_list(struct disk_fs *f, const char *path, bool (*each)(void *opaque, const char *name), void *opaque)
{
	struct listing l = {.each = each, .opaque = opaque, .left = DISK_MAX_NAMES};
	struct ext2_inode inode;
	ext2_ino_t ino;
	int ret = find(f, path, &ino, &inode);

	if (ret < 0)
		return ret;
	return ext2fs_dir_iterate2(f->fs, ino, 0, NULL, list_entry, &l) ? -EIO : 0;
}
