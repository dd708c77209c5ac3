/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Starting a machine's process in fresh namespaces.
 */
#ifndef HOST_SPAWN_H
#define HOST_SPAWN_H

#include <stdint.h>
#include <sys/types.h>

/*
 * Forks and executes path with `channel` as descriptor SPAWN_CHANNEL_FD, standard descriptors inherited, everything else
 * closed, the signal mask emptied. Tries user, pid, mount, network, IPC and UTS namespaces together, then (as root) the
 * same without the user namespace, then none; never those in `without`; *namespaces says which CLONE_NEW* took effect. Inside a user namespace the
 * process is uid 0, which is what lets it empty its mount namespace before it drops everything.
 * The pid, or -errno. A failing exec makes the child exit with status `exec_status`.
 */
#define SPAWN_CHANNEL_FD 3
pid_t spawn_isolated(const char *path, char *const argv[], int channel, int exec_status, uint32_t without,
		     uint32_t *namespaces);

#endif
