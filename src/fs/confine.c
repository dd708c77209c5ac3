/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Confining doppel-fs to its folder: root of the file system, capabilities, system call filter.
 *
 * Invariant: even if a guest's message took over this process, it would find no file but those of the folder, no network, no
 * other process, and no right that the user does not have. Specification: pivot_root(2), user_namespaces(7), seccomp(2).
 */
#include "fs/confine.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <sched.h>
#include <seccomp.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "host/sandbox.h"

/* What a mount has already must be named again, or a user namespace refuses the change. */
static unsigned long mount_flags(const char *path)
{
	struct statvfs sv;
	unsigned long flags = 0;

	if (statvfs(path, &sv) < 0)
		return 0;
	flags |= sv.f_flag & ST_RDONLY ? MS_RDONLY : 0;
	flags |= sv.f_flag & ST_NOEXEC ? MS_NOEXEC : 0;
	flags |= sv.f_flag & ST_NOATIME ? MS_NOATIME : 0;
	flags |= sv.f_flag & ST_NODIRATIME ? MS_NODIRATIME : 0;
	flags |= sv.f_flag & ST_RELATIME ? MS_RELATIME : 0;
	return flags;
}

static bool become_root(const struct share_start *start)
{
	unsigned long flags = mount_flags(start->path) | (start->read_only ? MS_RDONLY : 0);

	if (mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0 ||
	    mount(start->path, start->path, NULL, MS_BIND | MS_REC, NULL) < 0 || chdir(start->path) < 0)
		return false;
	(void)mount(NULL, ".", NULL, MS_REMOUNT | MS_BIND | MS_NOSUID | MS_NODEV | flags, NULL);
	return syscall(SYS_pivot_root, ".", ".") == 0 && umount2(".", MNT_DETACH) == 0 && chdir("/") == 0;
}

static bool same_directory(int a, int b)
{
	struct stat x, y;

	return fstat(a, &x) == 0 && fstat(b, &y) == 0 && x.st_dev == y.st_dev && x.st_ino == y.st_ino;
}

/* Giving files away, and acting on those of others, as the guest's users. Only root of the host has these to keep. */
#define KEEP (BIT(CAP_CHOWN) | BIT(CAP_DAC_OVERRIDE) | BIT(CAP_FOWNER) | BIT(CAP_SETUID) | BIT(CAP_SETGID))

int confine_enter(const struct share_start *start, int dir, int *root, int *proc, bool *whole_ids)
{
	struct rlimit lim;

	*whole_ids = geteuid() == 0 && !(start->namespaces & CLONE_NEWUSER);
	*proc = open("/proc/self/fd", O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (*proc < 0)
		return -errno;
	*root = dir;
	if ((start->namespaces & CLONE_NEWNS) && become_root(start)) {
		/* The directory by its descriptor lies in the mounts of before; this is the same one, seen from inside. */
		*root = open("/", O_PATH | O_DIRECTORY | O_CLOEXEC);
		if (*root < 0 || !same_directory(*root, dir))
			return -ESTALE;
		close(dir);
	}
	if (!sandbox_drop_capabilities(*whole_ids ? KEEP : 0) || prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
		return -EPERM;
	umask(0); /* the guest's kernel has applied its own */
	lim = (struct rlimit){0};
	(void)setrlimit(RLIMIT_CORE, &lim);
	if (getrlimit(RLIMIT_NOFILE, &lim) == 0) {
		lim.rlim_cur = lim.rlim_max;
		(void)setrlimit(RLIMIT_NOFILE, &lim);
	}
	return 0;
}

static const int calls[] = {
	SCMP_SYS(read), SCMP_SYS(write), SCMP_SYS(readv), SCMP_SYS(writev), SCMP_SYS(pread64), SCMP_SYS(pwrite64), SCMP_SYS(lseek),
	SCMP_SYS(openat), SCMP_SYS(openat2), SCMP_SYS(close), SCMP_SYS(fcntl), SCMP_SYS(fstat), SCMP_SYS(newfstatat),
	SCMP_SYS(fstatfs), SCMP_SYS(getdents64), SCMP_SYS(readlinkat),
	SCMP_SYS(ftruncate), SCMP_SYS(fallocate), SCMP_SYS(copy_file_range), SCMP_SYS(fsync), SCMP_SYS(fdatasync), SCMP_SYS(syncfs),
	SCMP_SYS(mknodat), SCMP_SYS(mkdirat), SCMP_SYS(symlinkat), SCMP_SYS(linkat), SCMP_SYS(unlinkat), SCMP_SYS(renameat), SCMP_SYS(renameat2),
	SCMP_SYS(fchmodat), SCMP_SYS(fchownat), SCMP_SYS(utimensat),
	SCMP_SYS(fgetxattr), SCMP_SYS(flistxattr), SCMP_SYS(fsetxattr), SCMP_SYS(fremovexattr),
	SCMP_SYS(setfsuid), SCMP_SYS(setfsgid),
	SCMP_SYS(futex), SCMP_SYS(madvise), SCMP_SYS(munmap), SCMP_SYS(brk), SCMP_SYS(sched_yield), SCMP_SYS(rseq),
	SCMP_SYS(rt_sigreturn), SCMP_SYS(rt_sigprocmask), SCMP_SYS(rt_sigaction), SCMP_SYS(restart_syscall),
	SCMP_SYS(getpid), SCMP_SYS(gettid), SCMP_SYS(exit), SCMP_SYS(exit_group),
};

int confine_seal(void)
{
	return sandbox_seal_calls(calls, nitems(calls));
}
