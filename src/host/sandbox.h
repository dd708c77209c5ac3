/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Sealing a machine's process before the guest's first instruction. The argument is in docs/design/isolation.md.
 */
#ifndef HOST_SANDBOX_H
#define HOST_SANDBOX_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* What was reached, for the log and for tests: bits of sandbox_enter()'s result. */
enum sandbox_layer {
	SANDBOX_USERNS = 1,
	SANDBOX_PIDNS = 2,
	SANDBOX_NETNS = 4,
	SANDBOX_EMPTY_ROOT = 8,
	SANDBOX_NO_CAPS = 16,
	SANDBOX_NO_NEW_PRIVS = 32,
	SANDBOX_SECCOMP = 64,
};

/* Limit on open descriptors. Not below EVLOOP_MAX: poll(2) refuses a longer list than this. */
#define SANDBOX_NOFILE 256

/*
 * First half, single-threaded, with every descriptor and mapping in place: leaves the file system (if a mount namespace of our
 * own allows), drops capabilities, sets limits and no_new_privs. `namespaces`: the CLONE_NEW* the process was started in.
 * Best effort except for no_new_privs: the host may forbid namespaces. Returns the layers reached.
 */
unsigned sandbox_enter(uint32_t namespaces);

/* An ioctl() that stays allowed, on this descriptor only. */
struct sandbox_ioctl {
	int fd;
	uint32_t request;
};

/*
 * Second half, once all threads exist: the system call filter, for every thread. `tty`: the descriptor of the terminal
 * whose mode may still be restored, or -1; `rights`: the socket on which descriptors may still be received, or -1;
 * `ioctls`: further ones that the machine needs. 0, or -errno (the machine must then not run); -ENOSYS in a sanitizer build,
 * whose runtime needs more system calls than a machine does.
 */
int sandbox_seal(int tty, int rights, const struct sandbox_ioctl *ioctls, size_t n);

/* The same for a helper of another trade: the calls it needs (SCMP_SYS numbers), memory that never becomes executable, nothing else. */
int sandbox_seal_calls(const int *calls, size_t n);

/* Keeps at most the capabilities of the mask, for this thread and its children; a program executed later gets none. */
bool sandbox_drop_capabilities(uint64_t keep);

#endif
