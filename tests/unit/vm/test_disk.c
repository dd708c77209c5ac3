/* SPDX-License-Identifier: Apache-2.0 */
/*
 * vm/boot/disk*.c: disks as distributions lay them out, made with mke2fs and sfdisk, boot what those would boot; disks that
 * cannot boot say why; configuration text is read as its programs mean it.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "vm/boot/disk.h"

#define MIB (1ull << 20)

struct fx {
	char dir[64];
	int fd;
	unsigned long reads;
	struct disk disk;
	struct disk_boot boot;
};

static int fx_read(void *opaque, void *buf, size_t len, uint64_t off)
{
	struct fx *f = opaque;

	assert_true(off <= f->disk.size && len <= f->disk.size - off);
	f->reads++;
	return pread(f->fd, buf, len, (off_t)off) == (ssize_t)len ? 0 : -EIO;
}

__attribute__((format(printf, 2, 3))) static void sh(struct fx *f, const char *fmt, ...)
{
	char cmd[4096];
	va_list ap;
	int n = snprintf(cmd, sizeof(cmd), "cd %s && PATH=$PATH:/usr/sbin:/sbin && ", f->dir);

	va_start(ap, fmt);
	vsnprintf(cmd + n, sizeof(cmd) - (size_t)n, fmt, ap);
	va_end(ap);
	if (system(cmd) != 0)
		fail_msg("failed: %s", cmd);
}

static struct fx *fx_create(void)
{
	struct fx *f = calloc(1, sizeof(*f));

	assert_non_null(f);
	f->fd = -1;
	snprintf(f->dir, sizeof(f->dir), "/tmp/doppel-test-XXXXXX");
	assert_non_null(mkdtemp(f->dir));
	return f;
}

static void fx_destroy(struct fx *f)
{
	disk_boot_fini(&f->boot);
	if (f->fd >= 0)
		close(f->fd);
	sh(f, "rm -rf %s", f->dir);
	free(f);
}

static const char *boot(struct fx *f, const char *append)
{
	char path[128];
	struct stat st;

	snprintf(path, sizeof(path), "%s/disk", f->dir);
	f->fd = open(path, O_RDONLY);
	assert_true(f->fd >= 0 && fstat(f->fd, &st) == 0);
	f->disk = (struct disk){.read = fx_read, .opaque = f, .size = (uint64_t)st.st_size};
	return disk_boot_find(&f->disk, append, &f->boot);
}

static void assert_contents(const uint8_t *buf, size_t size, const char *want)
{
	assert_non_null(buf);
	assert_int_equal(size, strlen(want));
	assert_memory_equal(buf, want, size);
}

/* A file system of the tree in DIR/TREE at an offset of the disk. */
static void make_fs(struct fx *f, const char *tree, const char *options, unsigned mib_at, unsigned mib)
{
	sh(f, "mke2fs -q -F -t ext4 %s -d %s -E offset=%llu disk %um", options, tree, mib_at * MIB, mib);
}

static void test_whole_disk(void **state)
{
	struct fx *f = fx_create();

	(void)state;
	sh(f, "mkdir -p t/boot && cd t/boot && for v in 6.1.9 6.1.10 6.1.2; do printf k$v >vmlinuz-$v; printf i$v >initrd.img-$v; done"
	      " && printf old >vmlinuz-9.old");
	sh(f, "truncate -s 16M disk");
	make_fs(f, "t", "-U 01234567-89ab-cdef-0123-456789abcdef", 0, 16);
	assert_null(boot(f, "single"));
	assert_contents(f->boot.kernel, f->boot.kernel_size, "k6.1.10");
	assert_contents(f->boot.initrd, f->boot.initrd_size, "i6.1.10");
	assert_int_equal(f->boot.partition, 0);
	assert_string_equal(f->boot.cmdline, "root=UUID=01234567-89ab-cdef-0123-456789abcdef ro console=ttyS0 single");
	fx_destroy(f);
}

static const char debian_grub_cfg[] =
	"set default=\"0\"\n"
	"if [ \"${next_entry}\" ] ; then\n   set default=\"${next_entry}\"\n   set next_entry=\nelse\n   set default=\"0\"\nfi\n"
	"function load_video {\n  if [ x$feature_all_video_module = xy ]; then\n    insmod all_video\n  fi\n}\n"
	"menuentry 'Debian GNU/Linux' --class debian $menuentry_id_option 'gnulinux-simple' {\n"
	"\tload_video\n\tif [ x$grub_platform = xxen ]; then insmod xzio; fi\n"
	"\tsearch --no-floppy --fs-uuid --set=root 1234\n\techo\t'Loading Linux ...'\n"
	"\tlinux\t/boot/vmlinuz-6.1.0-1 root=PARTUUID=aa-01 ro  console=tty0 console=ttyS0,115200 $vt_handoff quiet\n"
	"\tinitrd\t/boot/initrd.img-6.1.0-1\n}\n"
	"submenu 'Advanced options' $menuentry_id_option 'advanced' {\n"
	"\tmenuentry 'with 6.1.0-0' {\n\t\tlinux /boot/vmlinuz-6.1.0-0 root=/dev/sda1\n\t}\n"
	"\tmenuentry 'recovery' {\n\t\tlinux /boot/vmlinuz-6.1.0-0 root=/dev/sda1 single\n\t}\n}\n";

static void write_file(struct fx *f, const char *path, const char *text)
{
	char full[192];
	FILE *file;

	snprintf(full, sizeof(full), "%s/%s", f->dir, path);
	file = fopen(full, "w");
	assert_non_null(file);
	assert_true(fputs(text, file) >= 0);
	assert_int_equal(fclose(file), 0);
}

/* The layout of Debian's cloud images: root is partition 1, behind an EFI partition numbered 15. */
static void make_cloud_disk(struct fx *f)
{
	sh(f, "mkdir -p t/boot/grub t/etc && cd t/boot && printf new >vmlinuz-6.1.0-9 && printf kernel >vmlinuz-6.1.0-1 && "
	      "printf initrd >initrd.img-6.1.0-1");
	write_file(f, "t/boot/grub/grub.cfg", debian_grub_cfg);
	sh(f, "truncate -s 32M disk && printf 'label: gpt\\nstart=2048,size=4096,type=U\\nstart=8192,size=32768,type=L\\n' | "
	      "sfdisk -q disk && sfdisk -q -r disk >/dev/null");
	make_fs(f, "t", "", 4, 16);
}

static void assert_cloud_boot(struct fx *f)
{
	assert_null(boot(f, ""));
	assert_contents(f->boot.kernel, f->boot.kernel_size, "kernel");
	assert_contents(f->boot.initrd, f->boot.initrd_size, "initrd");
	assert_int_equal(f->boot.partition, 2);
	assert_string_equal(f->boot.cmdline, "root=PARTUUID=aa-01 ro console=tty0 console=ttyS0,115200 quiet");
}

static void test_cloud_image(void **state)
{
	struct fx *f = fx_create();

	(void)state;
	make_cloud_disk(f);
	assert_cloud_boot(f);
	fx_destroy(f);
}

static void test_spare_gpt(void **state)
{
	struct fx *f = fx_create();

	(void)state;
	make_cloud_disk(f);
	sh(f, "dd if=/dev/zero of=disk bs=512 seek=1 count=33 conv=notrunc status=none");
	assert_cloud_boot(f);
	fx_destroy(f);
}

static void test_menu_names_a_missing_kernel(void **state)
{
	struct fx *f = fx_create();

	(void)state;
	sh(f, "mkdir -p t/boot/grub && printf kernel >t/boot/vmlinuz-2");
	write_file(f, "t/boot/grub/grub.cfg", debian_grub_cfg);
	sh(f, "truncate -s 16M disk");
	make_fs(f, "t", "", 0, 16);
	assert_null(boot(f, "root=/dev/vda"));
	assert_string_equal(f->boot.kernel_path, "/boot/vmlinuz-2");
	assert_null(f->boot.initrd);
	assert_string_equal(f->boot.cmdline, "root=/dev/vda ro console=ttyS0 root=/dev/vda");
	fx_destroy(f);
}

static void test_separate_boot_with_bls(void **state)
{
	struct fx *f = fx_create();

	(void)state;
	sh(f, "mkdir -p t/loader/entries && cd t && printf k5 >vmlinuz-5 && printf k6 >vmlinuz-6 && printf i6 >initramfs-6.img && "
	      "printf 'title a\\nlinux /vmlinuz-5\\n' >loader/entries/id-5.conf && "
	      "printf 'title b\\nversion 6\\nlinux /vmlinuz-6\\ninitrd /initramfs-6.img $tuned_initrd\\noptions root=UUID=77 rw $tuned_params\\n'"
	      " >loader/entries/id-6.conf && printf 'linux /no\\n' >loader/entries/id-9-rescue.conf");
	sh(f, "truncate -s 32M disk && printf 'label: dos\\nlabel-id: 0x1234abcd\\nstart=2048,size=32768,type=83\\n' | sfdisk -q disk");
	make_fs(f, "t", "", 1, 16);
	assert_null(boot(f, ""));
	assert_contents(f->boot.kernel, f->boot.kernel_size, "k6");
	assert_contents(f->boot.initrd, f->boot.initrd_size, "i6");
	assert_int_equal(f->boot.partition, 1);
	assert_string_equal(f->boot.cmdline, "root=UUID=77 rw console=ttyS0");
	fx_destroy(f);
}

/* A boot partition without a menu, root on a logical partition with its defaults for GRUB. */
static void make_split_disk(struct fx *f)
{
	sh(f, "mkdir -p b r/etc/default && printf kernel >b/vmlinuz-6 && printf initrd >b/initrd.img-6 && : >r/etc/fstab && "
	      "printf 'GRUB_CMDLINE_LINUX=\"console=ttyS0,9600 a=b\"\\n#GRUB_CMDLINE_LINUX_DEFAULT=no\\n' >r/etc/default/grub && "
	      "printf \"GRUB_CMDLINE_LINUX_DEFAULT='quiet  c'\\n\" >>r/etc/default/grub");
	sh(f, "truncate -s 64M disk && printf 'label: dos\\nlabel-id: 0x1234abcd\\nstart=2048,size=32768,type=83\\n"
	      "start=40960,type=5\\nstart=43008,size=8192,type=83\\nstart=55296,size=32768,type=83\\n' | sfdisk -q disk");
	make_fs(f, "b", "", 1, 16);
}

static void test_separate_boot_without_menu(void **state)
{
	struct fx *f = fx_create();

	(void)state;
	make_split_disk(f);
	make_fs(f, "r", "-U 11111111-2222-3333-4444-555555555555", 27, 16);
	assert_null(boot(f, ""));
	assert_contents(f->boot.kernel, f->boot.kernel_size, "kernel");
	assert_string_equal(f->boot.cmdline,
			    "root=UUID=11111111-2222-3333-4444-555555555555 ro console=ttyS0,9600 a=b quiet  c");
	fx_destroy(f);
}

static void test_no_root(void **state)
{
	struct fx *f = fx_create();

	(void)state;
	make_split_disk(f);
	assert_non_null(strstr(boot(f, ""), "no root file system"));
	assert_null(f->boot.kernel);
	fx_destroy(f);
}

static void test_nothing_to_boot(void **state)
{
	static const struct {
		const char *make, *says;
	} cases[] = {
		{"truncate -s 8M disk", "no ext2, ext3 or ext4 file system"},
		{"truncate -s 100 disk", "cannot be read"},
		{": >disk", "cannot be read"},
		{"mkdir t; truncate -s 8M disk; mke2fs -q -F -t ext4 disk", "no vmlinuz-*"},
		{"truncate -s 8M disk; mke2fs -q -F -t ext4 disk; printf '\\377' | dd of=disk bs=1 seek=1120 conv=notrunc status=none",
		 "damaged or of a newer kind"},
		{"mkdir -p t/boot/vmlinuz-1; truncate -s 8M disk; mke2fs -q -F -t ext4 -d t disk", "is not there"},
		{"mkdir -p t/boot; truncate -s 3G t/boot/vmlinuz-1; truncate -s 8M disk; mke2fs -q -F -t ext4 -d t disk", "larger"},
	};

	(void)state;
	for (size_t i = 0; i < nitems(cases); i++) {
		struct fx *f = fx_create();
		const char *err;

		sh(f, "%s", cases[i].make);
		err = boot(f, "");
		assert_non_null(err);
		if (!strstr(err, cases[i].says))
			fail_msg("case %zu: %s", i, err);
		fx_destroy(f);
	}
}

static void test_command_line_too_long(void **state)
{
	struct fx *f = fx_create();
	char append[DISK_OPTIONS_MAX];

	(void)state;
	memset(append, 'x', sizeof(append) - 1);
	append[sizeof(append) - 1] = 0;
	sh(f, "mkdir -p t/boot && printf k >t/boot/vmlinuz-1 && truncate -s 8M disk");
	make_fs(f, "t", "", 0, 8);
	assert_non_null(strstr(boot(f, append), "shorten --append"));
	fx_destroy(f);
}

static void test_grub_text(void **state)
{
	struct disk_entry e;

	(void)state;
	assert_true(disk_menu_grub(debian_grub_cfg, &e));
	assert_string_equal(e.kernel, "/boot/vmlinuz-6.1.0-1");
	/* The second entry is a submenu: its first entry counts. */
	assert_true(disk_menu_grub("set default=\"1>2\"\nmenuentry a {\nlinux /a\n}\nsubmenu b {\nmenuentry c {\nlinux (hd0,1)/c x\n"
				   "}\nmenuentry d {\nlinux /d\n}\n}\n", &e));
	assert_string_equal(e.kernel, "/c");
	assert_string_equal(e.options, "x");
	/* An index past the end, a state only GRUB knows: the first entry. */
	assert_true(disk_menu_grub("set default=7\nset default=\"${saved_entry}\"\nmenuentry 'a b' {\nlinuxefi /a \"b c\" d\\ e\n}", &e));
	assert_string_equal(e.kernel, "/a");
	assert_string_equal(e.options, "b c d e");
	assert_false(disk_menu_grub("insmod blscfg\nblscfg\n", &e));
	assert_false(disk_menu_grub("menuentry a {\nlinux relative\n}\n", &e));
	assert_false(disk_menu_grub("", &e));
	assert_false(disk_menu_grub("} } menuentry { linux 'unterminated", &e));
}

static void test_compare(void **state)
{
	(void)state;
	assert_true(disk_menu_compare("6.1.0-9-amd64", "6.1.0-10-amd64") < 0);
	assert_true(disk_menu_compare("6.1", "6.1.1") < 0);
	assert_true(disk_menu_compare("6.10", "6.9") > 0);
	assert_true(disk_menu_compare("6.2~rc1", "6.2") < 0);
	assert_true(disk_menu_compare("6.02", "6.2") == 0);
	assert_true(disk_menu_compare("99999999999999999999999", "100000000000000000000000") < 0);
	assert_true(disk_menu_compare("", "") == 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_whole_disk), cmocka_unit_test(test_cloud_image), cmocka_unit_test(test_spare_gpt),
		cmocka_unit_test(test_menu_names_a_missing_kernel), cmocka_unit_test(test_separate_boot_with_bls),
		cmocka_unit_test(test_separate_boot_without_menu), cmocka_unit_test(test_no_root),
		cmocka_unit_test(test_nothing_to_boot), cmocka_unit_test(test_command_line_too_long),
		cmocka_unit_test(test_grub_text), cmocka_unit_test(test_compare),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
