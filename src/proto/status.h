/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Exit statuses of `doppel run` (and of doppel-vm, which doppel passes on).
 *
 * All are even: --debug-exit yields (value << 1) | 1, always odd, so that a test kernel's verdict can never be taken for
 * one of the monitor's, nor the other way round. Documented in doppel.1; scripts depend on them.
 */
#ifndef PROTO_STATUS_H
#define PROTO_STATUS_H

enum proto_status {
	STATUS_POWEROFF = 0,  /* the guest switched itself off */
	STATUS_USAGE = 2,     /* wrong option or argument */
	STATUS_TRIPLE = 4,    /* triple fault */
	STATUS_RESET = 6,     /* the guest asked for a reset and --no-reboot was given */
	STATUS_STOPPED = 8,   /* stopped from outside: console escape, signal, end of the terminal */
	STATUS_START = 10,    /* could not start: a file, the host or the configuration does not allow it */
	STATUS_MONITOR = 12,  /* the monitor could not go on: engines diverged, host resources ran out */
	STATUS_CRASH = 14,    /* the machine's process died of a signal */
	STATUS_TIMEOUT = 16,  /* other verbs: the machine did not react in time */
};

static inline int status_debug_exit(unsigned value)
{
	return (int)(((value << 1) | 1) & 0xff);
}

#endif
