/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The directory of a user's running machines:
 *
 *   $XDG_RUNTIME_DIR/doppel, else /run/user/UID/doppel, else /tmp/doppel-UID      mode 0700, ours
 *     NAME.lock   locked while the machine lives; "SUPERVISOR-PID\n"
 *     NAME.sock   control socket (proto/ctl.h)
 *     NAME.log    messages and the like of a detached machine; stays when it has ended
 *
 * Invariant: only who holds the lock of NAME.lock makes or removes the files of NAME, so a name is never taken from a living machine.
 * The lock is an open file description lock (fcntl(2)): it belongs to the open file, which doppel and doppel-vm share, so it is free
 * when both are gone, whatever they died of; and it can be asked for without taking it, which flock(2) cannot.
 * The directory is opened once and everything in it reached through that descriptor: nobody can exchange it under us.
 */
#ifndef HOST_RUNDIR_H
#define HOST_RUNDIR_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#define RUNDIR_NAME_MAX 64

struct rundir {
	int fd;
	char path[96];
};

/* Opens the directory, making it if need be. 0, or -errno with "cause; remedy" in why. */
int rundir_open(struct rundir *d, char *why, size_t size);
void rundir_close(struct rundir *d);

/* Takes a name for as long as *lock_fd or a copy of it is open; what a dead machine of that name has left is removed. 0, -EBUSY if
 * it is in use, or -errno. */
int rundir_claim(const struct rundir *d, const char *name, int *lock_fd);
/* With the lock: listens on the control socket. 0 or -errno. */
int rundir_listen(const struct rundir *d, const char *name, int *fd);
/* With the lock: opens the log for appending, emptied. A descriptor or -errno. */
int rundir_log(const struct rundir *d, const char *name);
/* With the lock, at the end: removes lock and socket. */
void rundir_release(const struct rundir *d, const char *name);

/* Is there a living machine of that name? *supervisor: its doppel process, 0 if that is not known. -ENOENT: no trace of it. 0: dead. */
int rundir_alive(const struct rundir *d, const char *name, pid_t *supervisor);
/* Removes what a dead machine has left. True if there was something. */
bool rundir_clean(const struct rundir *d, const char *name);
/* Connects to the control socket. A descriptor or -errno. */
int rundir_connect(const struct rundir *d, const char *name);

/* Calls each for every name that has a lock file, sorted; stops at a value other than 0 and returns it. Or -errno. */
int rundir_each(const struct rundir *d, int (*each)(void *opaque, const char *name), void *opaque);

#endif
