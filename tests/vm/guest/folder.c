/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A shared folder under the guest's own virtiofs driver: `vmtest --folder DIR` works in DIR, which is to be writable, and the host looks at
 * what is left (tests/vm/folders.py).
 */
#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <sys/xattr.h>

#include "vmtest.h"

#define BIG (32u << 20)
#define MANY 1500

static int make(const char *name, const void *data, size_t n)
{
	int fd = open(name, O_RDWR | O_CREAT | O_TRUNC, 0644);

	CHECK(fd >= 0);
	CHECK_EQ(write(fd, data, n), n);
	return fd;
}

static void check_content(const char *name, const char *want)
{
	char buf[256] = {0};
	int fd = open(name, O_RDONLY);

	CHECK(fd >= 0);
	CHECK_EQ(read(fd, buf, sizeof(buf)), strlen(want));
	CHECK(!strcmp(buf, want));
	close(fd);
}

void folder_write(void)
{
	struct stat st;
	int fd = make("file", "0123456789", 10);

	CHECK_EQ(pwrite(fd, "ab", 2, 4), 2);
	CHECK_EQ(pwrite(fd, "end", 3, 20), 3);
	CHECK(fstat(fd, &st) == 0);
	CHECK_EQ(st.st_size, 23);
	CHECK(ftruncate(fd, 8) == 0);
	close(fd);
	check_content("file", "0123ab67");
	fd = open("file", O_WRONLY | O_APPEND);
	CHECK_EQ(write(fd, "+", 1), 1);
	close(fd);
	check_content("file", "0123ab67+");
	CHECK(truncate("file", 5ll << 30) == 0 && stat("file", &st) == 0);
	CHECK_EQ(st.st_size, 5ll << 30);
	CHECK(st.st_blocks < 1000);
	CHECK(unlink("file") == 0 && access("file", F_OK) < 0 && errno == ENOENT);
}

/* Several processes append at once: nothing is lost, lines are whole. */
void folder_append(void)
{
	char line[32];
	unsigned count[4] = {0};
	pid_t child[4];
	FILE *f;

	for (unsigned p = 0; p < 4; p++)
		if ((child[p] = fork()) == 0) {
			int fd = open("appended", O_WRONLY | O_APPEND | O_CREAT, 0644);

			for (unsigned i = 0; i < 100; i++)
				CHECK_EQ(write(fd, &"p0 line\np1 line\np2 line\np3 line\n"[p * 8], 8), 8);
			_exit(0);
		}
	for (unsigned p = 0; p < 4; p++)
		CHECK_EQ(wait_status(child[p]), 0);
	f = fopen("appended", "r");
	CHECK(f);
	while (fgets(line, sizeof(line), f)) {
		CHECK_EQ(strlen(line), 8);
		count[line[1] & 3]++;
	}
	for (unsigned p = 0; p < 4; p++)
		CHECK_EQ(count[p], 100);
}

/* More than the guest's cache is asked for: written, flushed, dropped from memory, read in odd pieces and directly. Stays for the host. */
void folder_big(void)
{
	static uint32_t block[16384], got[16384];
	int fd = open("big", O_RDWR | O_CREAT | O_TRUNC, 0644), drop = open("/proc/sys/vm/drop_caches", O_WRONLY);
	void *direct;

	for (uint32_t at = 0; at < BIG; at += sizeof(block)) {
		for (uint32_t i = 0; i < nitems(block); i++)
			block[i] = at / 4 + i;
		CHECK_EQ(write(fd, block, sizeof(block)), sizeof(block));
	}
	CHECK(fsync(fd) == 0);
	CHECK_EQ(write(drop, "3", 1), 1);
	for (uint32_t at = 0, n; at < BIG; at += n) {
		n = BIG - at < 60000 ? BIG - at : 60000;
		CHECK_EQ(pread(fd, got, n, at), n);
		for (uint32_t i = 0; i < n / 4; i++)
			CHECK_EQ(got[i], at / 4 + i);
	}
	close(fd);
	fd = open("big", O_RDONLY | O_DIRECT);
	CHECK(fd >= 0 && posix_memalign(&direct, 4096, 1 << 20) == 0);
	CHECK_EQ(pread(fd, direct, 1 << 20, 8 << 20), 1 << 20);
	for (uint32_t i = 0; i < (1 << 20) / 4; i++)
		CHECK_EQ(((uint32_t *)direct)[i], (8 << 20) / 4 + i);
	CHECK_EQ(pread(fd, direct, 1 << 20, BIG), 0);
}

void folder_mmap(void)
{
	char buf[8] = {0}, *map;
	int fd = make("mapped", "", 0);

	CHECK(ftruncate(fd, 3 << 20) == 0);
	map = mmap(NULL, 3 << 20, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	CHECK(map != MAP_FAILED);
	memcpy(map + 4093, "across", 6);
	memcpy(map + (3 << 20) - 4, "last", 4);
	CHECK(msync(map, 3 << 20, MS_SYNC) == 0);
	CHECK_EQ(pread(fd, buf, 6, 4093), 6);
	CHECK(!strcmp(buf, "across"));
	CHECK_EQ(pwrite(fd, "wrote!", 6, 10), 6);
	CHECK(!memcmp(map + 10, "wrote!", 6));
	munmap(map, 3 << 20);
	map = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0);
	map[10] = 'X';
	CHECK_EQ(pread(fd, buf, 1, 10), 1);
	CHECK_EQ(buf[0], 'w');
}

void folder_rename(void)
{
	close(make("from", "1", 1));
	close(make("to", "22", 2));
	CHECK(renameat2(AT_FDCWD, "from", AT_FDCWD, "to", RENAME_NOREPLACE) < 0 && errno == EEXIST);
	CHECK(renameat2(AT_FDCWD, "from", AT_FDCWD, "to", RENAME_EXCHANGE) == 0);
	check_content("from", "22");
	CHECK(rename("from", "to") == 0 && access("from", F_OK) < 0);
	check_content("to", "22");
	CHECK(mkdir("dir", 0755) == 0 && mkdir("dir/sub", 0755) == 0);
	CHECK(rename("to", "dir/sub/to") == 0);
	CHECK(rename("dir", "dir/sub/dir") < 0 && errno == EINVAL);
	CHECK(rename("dir", "moved") == 0);
	check_content("moved/sub/to", "22");
	CHECK(rmdir("moved") < 0 && errno == ENOTEMPTY);
	CHECK(unlink("moved/sub/to") == 0 && rmdir("moved/sub") == 0 && rmdir("moved") == 0);
}

void folder_links(void)
{
	char buf[64] = {0};
	struct stat st;

	close(make("target", "t", 1));
	CHECK(link("target", "hard") == 0 && stat("target", &st) == 0);
	CHECK_EQ(st.st_nlink, 2);
	CHECK(symlink("target", "soft") == 0);
	CHECK_EQ(readlink("soft", buf, sizeof(buf)), 6);
	check_content("soft", "t");
	/* A link means what it means in the guest, wherever it points on the host. */
	CHECK(symlink("/proc/version", "absolute") == 0 && symlink("../../../../../etc/passwd", "outside") == 0);
	CHECK(open("outside", O_RDONLY) < 0 && errno == ENOENT);
	CHECK(open("absolute", O_RDONLY) >= 0);
	CHECK(unlink("soft") == 0 && unlink("hard") == 0 && unlink("absolute") == 0 && unlink("outside") == 0);
	CHECK(stat("target", &st) == 0);
	CHECK_EQ(st.st_nlink, 1);
	CHECK(unlink("target") == 0);
}

void folder_modes(void)
{
	struct stat st;
	int fd = make("mode", "x", 1);
	struct timespec times[2] = {{.tv_sec = 1000000000, .tv_nsec = 123456789}, {.tv_sec = 1234567890, .tv_nsec = 5}};
	pid_t child;

	CHECK(fchmod(fd, 0640) == 0 && stat("mode", &st) == 0);
	CHECK_EQ(st.st_mode, S_IFREG | 0640);
	CHECK(chmod("mode", 06755) == 0 && stat("mode", &st) == 0);
	CHECK_EQ(st.st_mode & 01777, 0755);
	CHECK(utimensat(AT_FDCWD, "mode", times, 0) == 0 && stat("mode", &st) == 0);
	CHECK_EQ(st.st_atim.tv_sec, 1000000000);
	CHECK_EQ(st.st_mtim.tv_sec, 1234567890);
	CHECK_EQ(st.st_mtim.tv_nsec, 5);
	CHECK(fsetxattr(fd, "user.key", "value", 5, 0) == 0);
	CHECK(setxattr("mode", "trusted.key", "value", 5, 0) < 0);
	CHECK(mknod("device", S_IFCHR | 0600, 0x103) < 0);
	CHECK(mkfifo("fifo", 0600) == 0 && stat("fifo", &st) == 0 && S_ISFIFO(st.st_mode));
	CHECK(unlink("fifo") == 0);
	/* The guest's kernel holds its users to owners and modes. */
	CHECK(chmod("mode", 0600) == 0);
	child = fork();
	if (child == 0) {
		CHECK(setresuid(12345, 12345, 12345) == 0);
		CHECK(open("mode", O_RDONLY) < 0 && errno == EACCES);
		_exit(0);
	}
	CHECK_EQ(wait_status(child), 0);
}

static unsigned count_entries(const char *dir)
{
	DIR *d = opendir(dir);
	unsigned n = 0;

	CHECK(d);
	while (readdir(d))
		n++;
	closedir(d);
	return n - 2;
}

void folder_many(void)
{
	char name[32];
	struct dirent *e;
	DIR *d;

	CHECK(mkdir("many", 0755) == 0);
	for (unsigned i = 0; i < MANY; i++) {
		snprintf(name, sizeof(name), "many/entry-%05u", i);
		close(make(name, name, strlen(name)));
	}
	CHECK_EQ(count_entries("many"), MANY);
	for (unsigned i = 0; i < MANY; i += 97) {
		snprintf(name, sizeof(name), "many/entry-%05u", i);
		check_content(name, name);
	}
	/* Removing while reading, as rm -r does. */
	d = opendir("many");
	CHECK(d && chdir("many") == 0);
	while ((e = readdir(d)))
		CHECK(e->d_name[0] == '.' || unlink(e->d_name) == 0);
	closedir(d);
	CHECK(chdir("..") == 0);
	CHECK_EQ(count_entries("many"), 0);
	CHECK(rmdir("many") == 0);
}

void folder_names(void)
{
	static char longest[256], longer[257];
	const char *const names[] = {" ", "new\nline", "-rf", "\xff\xfe\x80", "...", "..a", "\\", "$(reboot)", "*", "\x01\x7f", "%s%n", longest};

	memset(longest, 'a', 255);
	memset(longer, 'a', 256);
	CHECK(mkdir("names", 0755) == 0 && chdir("names") == 0);
	for (size_t i = 0; i < nitems(names); i++)
		close(make(names[i], names[i], strlen(names[i])));
	CHECK_EQ(count_entries("."), nitems(names));
	CHECK(open(longer, O_RDWR | O_CREAT, 0644) < 0);
	CHECK_EQ(errno, ENAMETOOLONG);
	for (size_t i = 0; i < nitems(names); i++) {
		CHECK(rename(names[i], "plain") == 0);
		check_content("plain", names[i]);
		CHECK(unlink("plain") == 0);
	}
	CHECK(chdir("..") == 0 && rmdir("names") == 0);
}

void folder_open_gone(void)
{
	char buf[8] = {0};
	struct stat st;
	int fd = make("gone", "still", 5);

	CHECK(unlink("gone") == 0);
	CHECK_EQ(pwrite(fd, "!", 1, 5), 1);
	CHECK_EQ(pread(fd, buf, 6, 0), 6);
	CHECK(!strcmp(buf, "still!"));
	CHECK(fstat(fd, &st) == 0 && ftruncate(fd, 2) == 0 && fsync(fd) == 0);
}

void folder_exec(void)
{
	char buf[65536];
	int from = open("/bin/busybox", O_RDONLY), to = open("busybox", O_WRONLY | O_CREAT | O_TRUNC, 0755);
	pid_t child;
	ssize_t n;

	while ((n = read(from, buf, sizeof(buf))) > 0)
		CHECK_EQ(write(to, buf, (size_t)n), n);
	close(to);
	child = fork();
	if (child == 0) {
		execl("./busybox", "busybox", "sh", "-c", "exit 7", NULL);
		_exit(1);
	}
	CHECK_EQ(wait_status(child), 7 << 8);
	CHECK(unlink("busybox") == 0);
}
