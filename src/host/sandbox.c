/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Sealing the machine's process: empty root, no capabilities, limits, no_new_privs, seccomp filter.
 *
 * Invariant: nothing here is needed for correctness of the guest; every layer alone must hold a guest that has taken over the process
 * away from the host's files, processes and network. The order matters: the mount namespace needs capabilities, the
 * filter forbids everything else, so it is last. Specification: seccomp(2), capabilities(7), pivot_root(2).
 */
#include "host/sandbox.h"

#include <errno.h>
#include <linux/capability.h>
#include <sched.h>
#include <seccomp.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <termios.h>
#include <unistd.h>
#include <sys/ioctl.h>

#include "base/types.h"

#if defined(__SANITIZE_ADDRESS__)
#define SANDBOX_SANITIZED 1
#else
#define SANDBOX_SANITIZED 0
#endif

/* An empty read-only tmpfs becomes the root, the old root is detached. The mount point must exist: any directory does. */
static bool empty_root(void)
{
	static const char *const places[] = {"/tmp", "/proc", "/var"};
	bool mounted = false;

	if (mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0)
		return false;
	for (size_t i = 0; i < nitems(places) && !mounted; i++)
		mounted = mount("none", places[i], "tmpfs", MS_NOSUID | MS_NODEV | MS_NOEXEC, "size=4k,mode=555") == 0 &&
			  chdir(places[i]) == 0;
	if (!mounted || syscall(SYS_pivot_root, ".", ".") < 0 || umount2(".", MNT_DETACH) < 0 || chdir("/") < 0)
		return false;
	(void)mount(NULL, "/", NULL, MS_REMOUNT | MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL);
	return true;
}

bool sandbox_drop_capabilities(uint64_t keep)
{
	struct __user_cap_header_struct hdr = {.version = _LINUX_CAPABILITY_VERSION_3};
	struct __user_cap_data_struct data[2] = {{0}};

	for (unsigned i = 0; i < 2; i++)
		data[i].effective = data[i].permitted = (uint32_t)(keep >> (32 * i));
	/* Fails with EINVAL past the kernel's last capability, with EPERM when there is none to drop: both fine. */
	for (int cap = 0; cap < 64; cap++)
		(void)prctl(PR_CAPBSET_DROP, cap, 0, 0, 0);
	(void)prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0);
	return syscall(SYS_capset, &hdr, data) == 0;
}

static void set_limit(int what, rlim_t value)
{
	struct rlimit old, lim = {.rlim_cur = value, .rlim_max = value};

	if (getrlimit(what, &old) == 0 && old.rlim_max < value)
		return;
	(void)setrlimit(what, &lim);
}

unsigned sandbox_enter(uint32_t namespaces)
{
	unsigned got = 0;

	if (namespaces & CLONE_NEWUSER)
		got |= SANDBOX_USERNS;
	if (namespaces & CLONE_NEWPID)
		got |= SANDBOX_PIDNS;
	if (namespaces & CLONE_NEWNET)
		got |= SANDBOX_NETNS;
	if ((namespaces & CLONE_NEWNS) && empty_root())
		got |= SANDBOX_EMPTY_ROOT;
	if (sandbox_drop_capabilities(0))
		got |= SANDBOX_NO_CAPS;
	set_limit(RLIMIT_CORE, 0);    /* a core file would hold the guest's memory */
	set_limit(RLIMIT_NOFILE, SANDBOX_NOFILE);
	set_limit(RLIMIT_MSGQUEUE, 0);
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0)
		got |= SANDBOX_NO_NEW_PRIVS;
	return got;
}

/* Calls allowed with any arguments: what running a machine takes. Nothing here names a file, a process or an address
 * outside this process. */
static const int plain_calls[] = {
	SCMP_SYS(read), SCMP_SYS(write), SCMP_SYS(readv), SCMP_SYS(writev), SCMP_SYS(preadv2), SCMP_SYS(pread64), SCMP_SYS(pwrite64), SCMP_SYS(io_uring_enter),
	SCMP_SYS(close), SCMP_SYS(shutdown), SCMP_SYS(fstat), SCMP_SYS(lseek), SCMP_SYS(ftruncate), SCMP_SYS(fallocate),
	SCMP_SYS(fdatasync), SCMP_SYS(accept4), SCMP_SYS(poll), SCMP_SYS(ppoll), SCMP_SYS(epoll_wait), SCMP_SYS(epoll_pwait), SCMP_SYS(epoll_ctl),
	SCMP_SYS(timerfd_settime), SCMP_SYS(clock_gettime), SCMP_SYS(clock_nanosleep), SCMP_SYS(nanosleep),
	SCMP_SYS(gettimeofday), SCMP_SYS(time), SCMP_SYS(futex), SCMP_SYS(sched_yield), SCMP_SYS(membarrier), SCMP_SYS(rseq),
	SCMP_SYS(madvise), SCMP_SYS(munmap), SCMP_SYS(brk), SCMP_SYS(mincore),
	SCMP_SYS(rt_sigreturn), SCMP_SYS(rt_sigprocmask), SCMP_SYS(rt_sigaction), SCMP_SYS(sigaltstack),
	SCMP_SYS(restart_syscall), SCMP_SYS(arch_prctl), SCMP_SYS(getrandom), SCMP_SYS(getrusage),
	SCMP_SYS(getpid), SCMP_SYS(gettid), SCMP_SYS(exit), SCMP_SYS(exit_group),
};

static int allow_plain(scmp_filter_ctx ctx, const int *calls, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		int ret = seccomp_rule_add(ctx, SCMP_ACT_ALLOW, calls[i], 0);

		if (ret < 0)
			return ret;
	}
	return 0;
}

/* Memory: mappings may come and go, but no page may become executable any more. mremap may not move code either: it keeps
 * protections, so it makes nothing executable that was not. */
static int allow_memory(scmp_filter_ctx ctx)
{
	int ret = seccomp_rule_add(ctx, SCMP_ACT_ALLOW, SCMP_SYS(mmap), 1, SCMP_A2_32(SCMP_CMP_MASKED_EQ, PROT_EXEC, 0));

	if (ret == 0)
		ret = seccomp_rule_add(ctx, SCMP_ACT_ALLOW, SCMP_SYS(mprotect), 1,
				       SCMP_A2_32(SCMP_CMP_MASKED_EQ, PROT_EXEC, 0));
	if (ret == 0)
		ret = seccomp_rule_add(ctx, SCMP_ACT_ALLOW, SCMP_SYS(mremap), 0);
	/* What the C library's fstat() is: dprintf() asks it of its descriptor. */
	if (ret == 0)
		ret = seccomp_rule_add(ctx, SCMP_ACT_ALLOW, SCMP_SYS(newfstatat), 1,
				       SCMP_A3_32(SCMP_CMP_EQ, AT_EMPTY_PATH));
	return ret;
}

/* Signals only to ourselves (abort, raise), whatever pid we have. */
static int allow_self_signal(scmp_filter_ctx ctx)
{
	return seccomp_rule_add(ctx, SCMP_ACT_ALLOW, SCMP_SYS(tgkill), 1, SCMP_A0_32(SCMP_CMP_EQ, (uint32_t)getpid()));
}

/* The terminal: reading and setting its mode, nothing else (TIOCSTI would type commands into the user's shell). */
static int allow_terminal(scmp_filter_ctx ctx, int tty)
{
	static const unsigned long requests[] = {TCGETS, TCSETS, TCSETSW, TCSETSF};
	int ret = 0;

	for (size_t i = 0; ret == 0 && tty >= 0 && i < nitems(requests); i++)
		ret = seccomp_rule_add(ctx, SCMP_ACT_ALLOW, SCMP_SYS(ioctl), 2, SCMP_A0_32(SCMP_CMP_EQ, (uint32_t)tty),
				       SCMP_A1_32(SCMP_CMP_EQ, requests[i]));
	return ret;
}

/* Who is at the other end of a connection; no other socket option. */
static int allow_peer(scmp_filter_ctx ctx)
{
	return seccomp_rule_add(ctx, SCMP_ACT_ALLOW, SCMP_SYS(getsockopt), 2, SCMP_A1_32(SCMP_CMP_EQ, SOL_SOCKET),
				SCMP_A2_32(SCMP_CMP_EQ, SO_PEERCRED));
}

/* Descriptors come from doppel alone, through the one socket it has made for that. */
static int allow_rights(scmp_filter_ctx ctx, int sock)
{
	return sock < 0 ? 0 : seccomp_rule_add(ctx, SCMP_ACT_ALLOW, SCMP_SYS(recvmsg), 1, SCMP_A0_32(SCMP_CMP_EQ, (uint32_t)sock));
}

static int allow_ioctls(scmp_filter_ctx ctx, const struct sandbox_ioctl *ioctls, size_t n)
{
	int ret = 0;

	for (size_t i = 0; ret == 0 && i < n; i++)
		ret = seccomp_rule_add(ctx, SCMP_ACT_ALLOW, SCMP_SYS(ioctl), 2, SCMP_A0_32(SCMP_CMP_EQ, (uint32_t)ioctls[i].fd),
				       SCMP_A1_32(SCMP_CMP_EQ, ioctls[i].request));
	return ret;
}

static int seal(const int *calls, size_t n, int tty, int rights, const struct sandbox_ioctl *ioctls, size_t nioctls)
{
	scmp_filter_ctx ctx;
	int ret = -ENOMEM;

	if (SANDBOX_SANITIZED)
		return -ENOSYS;
	ctx = seccomp_init(SCMP_ACT_KILL_PROCESS);
	if (!ctx)
		return ret;
	ret = seccomp_attr_set(ctx, SCMP_FLTATR_CTL_TSYNC, 1);
	/* A sorted tree instead of a list: a filter run is then a few comparisons, paid on every call. */
	if (ret == 0)
		(void)seccomp_attr_set(ctx, SCMP_FLTATR_CTL_OPTIMIZE, 2);
	if (ret == 0)
		ret = allow_plain(ctx, calls, n);
	if (ret == 0)
		ret = allow_memory(ctx);
	if (ret == 0)
		ret = allow_self_signal(ctx);
	if (ret == 0)
		ret = allow_terminal(ctx, tty);
	if (ret == 0)
		ret = allow_peer(ctx);
	if (ret == 0)
		ret = allow_rights(ctx, rights);
	if (ret == 0)
		ret = allow_ioctls(ctx, ioctls, nioctls);
	if (ret == 0)
		ret = seccomp_load(ctx);
	seccomp_release(ctx);
	return ret;
}

int sandbox_seal(int tty, int rights, const struct sandbox_ioctl *ioctls, size_t n)
{
	return seal(plain_calls, nitems(plain_calls), tty, rights, ioctls, n);
}

int sandbox_seal_calls(const int *calls, size_t n)
{
	return seal(calls, n, -1, -1, NULL, 0);
}
