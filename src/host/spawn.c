/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Starting a machine's process in fresh namespaces: clone(2), user_namespaces(7), pid_namespaces(7).
 *
 * The namespaces are made by clone and not by unshare in the child because a process can put only its children into a new
 * pid namespace, and a process in the middle, waiting, would be one more thing to die.
 * Invariant: between clone and exec the child makes system calls only (the parent may hold libc locks).
 */
#include "host/spawn.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/types.h"

#define NS_INNER (CLONE_NEWPID | CLONE_NEWNS | CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWUTS)

static void write_file(const char *path, const char *text, size_t len)
{
	int fd = open(path, O_WRONLY | O_CLOEXEC);

	/* Failing is harmless: without a mapping the process has fewer rights, and the sandbox reports what it reached. */
	if (fd >= 0) {
		if (write(fd, text, len) < 0)
			len = 0;
		close(fd);
	}
}

struct id_map { char uid[32], gid[32]; size_t uid_len, gid_len; };

/* What the child says when the program does not start: composed beforehand, only written by it. */
struct complaint { char text[512]; size_t len; };

static void complaint_init(struct complaint *c, const char *path)
{
	int n = snprintf(c->text, sizeof(c->text), "doppel: cannot execute %.400s; build or install doppel again (`make`)\n", path);

	c->len = n > 0 ? (size_t)n : 0;
}

static void id_map_init(struct id_map *m)
{
	m->uid_len = (size_t)snprintf(m->uid, sizeof(m->uid), "0 %u 1", (unsigned)geteuid());
	m->gid_len = (size_t)snprintf(m->gid, sizeof(m->gid), "0 %u 1", (unsigned)getegid());
}

__attribute__((noreturn)) static void child(const char *path, char *const argv[], int channel, int exec_status,
					     const struct id_map *map, const struct complaint *complaint, uint32_t ns)
{
	sigset_t none;

	if (ns & CLONE_NEWUSER) {
		write_file("/proc/self/setgroups", "deny", 4);
		write_file("/proc/self/uid_map", map->uid, map->uid_len);
		write_file("/proc/self/gid_map", map->gid, map->gid_len);
	}
	if (channel == SPAWN_CHANNEL_FD)
		(void)fcntl(channel, F_SETFD, 0);
	else if (dup2(channel, SPAWN_CHANNEL_FD) < 0)
		_exit(exec_status);
	syscall(SYS_close_range, SPAWN_CHANNEL_FD + 1, ~0u, 0);
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	execv(path, argv);
	if (write(STDERR_FILENO, complaint->text, complaint->len) < 0)
		_exit(exec_status);
	_exit(exec_status);
}

pid_t spawn_isolated(const char *path, char *const argv[], int channel, int exec_status, uint32_t without,
		     uint32_t *namespaces)
{
	const uint32_t attempt[] = {CLONE_NEWUSER | NS_INNER, CLONE_NEWUSER, geteuid() == 0 ? NS_INNER : 0, 0};
	struct complaint complaint;
	struct id_map map;
	long pid = -1;

	id_map_init(&map);
	complaint_init(&complaint, path);
	for (size_t i = 0; i < nitems(attempt); i++) {
		uint32_t ns = attempt[i] & ~without;

		pid = syscall(SYS_clone, (unsigned long)ns | SIGCHLD, NULL, NULL, NULL, NULL);
		if (pid == 0)
			child(path, argv, channel, exec_status, &map, &complaint, ns);
		if (pid > 0) {
			*namespaces = ns;
			return (pid_t)pid;
		}
	}
	return -errno;
}
