/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Writes an initramfs archive (cpio "newc") from a list on standard input, so that device nodes and root ownership need
 * no privilege: they exist only as headers in the archive. One entry a line, blank lines and # comments ignored:
 *
 *   dir   NAME MODE                    file  NAME MODE SOURCE
 *   slink NAME TARGET                  nod   NAME MODE c|b MAJOR MINOR
 *
 * Invariant: the same list and files give the same bytes (times are zero, inode numbers count up).
 * Spec: Documentation/driver-api/early-userspace/buffer-format.rst of the Linux kernel.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

struct entry {
	char name[256];
	unsigned mode, major, minor;
	const void *data;
	size_t size;
};

struct archive {
	size_t written;
	unsigned entries;
};

static void put(struct archive *a, const void *data, size_t size)
{
	if (size && fwrite(data, 1, size, stdout) != size) {
		fprintf(stderr, "newc: write: %s\n", strerror(errno));
		exit(1);
	}
	a->written += size;
}

static void pad(struct archive *a, size_t align)
{
	static const char zero[512];

	put(a, zero, -a->written & (align - 1));
}

static void put_entry(struct archive *a, const struct entry *e)
{
	char head[111];

	/* magic ino mode uid gid nlink mtime filesize devmajor devminor rdevmajor rdevminor namesize check */
	snprintf(head, sizeof(head), "070701%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X", ++a->entries, e->mode, 0, 0, 1, 0,
		 (unsigned)e->size, 0, 0, e->major, e->minor, (unsigned)strlen(e->name) + 1, 0);
	put(a, head, 110);
	put(a, e->name, strlen(e->name) + 1);
	pad(a, 4);
	put(a, e->data, e->size);
	pad(a, 4);
}

static void *slurp(const char *path, size_t *size)
{
	FILE *f = fopen(path, "rb");
	struct stat st;
	char *data = NULL;

	if (f && fstat(fileno(f), &st) == 0)
		data = malloc(st.st_size + 1);
	if (!data || fread(data, 1, st.st_size, f) != (size_t)st.st_size) {
		fprintf(stderr, "newc: %s: %s\n", path, strerror(errno));
		exit(1);
	}
	fclose(f);
	*size = st.st_size;
	return data;
}

/* One line of the list; 0, or -1 if it is not understood. */
static int add_line(struct archive *a, const char *line)
{
	struct entry e = {0};
	char arg[1024] = "", type;
	void *copy = NULL;

	if (sscanf(line, "dir %255s %o", e.name, &e.mode) == 2) {
		e.mode |= S_IFDIR;
	} else if (sscanf(line, "file %255s %o %1023s", e.name, &e.mode, arg) == 3) {
		e.mode |= S_IFREG;
		e.data = copy = slurp(arg, &e.size);
	} else if (sscanf(line, "slink %255s %1023s", e.name, arg) == 2) {
		e.mode = S_IFLNK | 0777;
		e.data = arg;
		e.size = strlen(arg);
	} else if (sscanf(line, "nod %255s %o %c %u %u", e.name, &e.mode, &type, &e.major, &e.minor) == 5) {
		e.mode |= type == 'b' ? S_IFBLK : S_IFCHR;
	} else {
		return -1;
	}
	put_entry(a, &e);
	free(copy);
	return 0;
}

int main(void)
{
	const struct entry end = {.name = "TRAILER!!!"};
	struct archive a = {0};
	char line[2048];

	while (fgets(line, sizeof(line), stdin)) {
		line[strcspn(line, "\n")] = '\0';
		if (line[0] == '\0' || line[0] == '#')
			continue;
		if (add_line(&a, line)) {
			fprintf(stderr, "newc: cannot understand: %s\n", line);
			return 1;
		}
	}
	put_entry(&a, &end);
	pad(&a, 512);
	if (fflush(stdout)) {
		fprintf(stderr, "newc: write: %s\n", strerror(errno));
		return 1;
	}
	return 0;
}
