/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The machine's end of its control socket (proto/ctl.h): accepts the owner's connections and serves their requests.
 *
 * Budget: CTL_CLIENTS connections, nothing allocated after creation, no output buffer per client: console output is read from the console's
 * ring as fast as the client takes it, and a client that does not take a reply is dropped. So no client can hold up the machine.
 * Threads: the main thread only.
 */
#ifndef VM_CTL_H
#define VM_CTL_H

#include <sys/types.h>

#include "host/evloop.h"
#include "proto/ctl.h"

#define CTL_CLIENTS 16

/* How long a report waits for what the guest has to say. */
#define CTL_GUEST_PATIENCE_NS 500000000ull

struct vm;

struct ctl_client {
	struct vm *vm;
	struct ev_source ev;        /* fd < 0: free */
	bool watches;               /* wants ENDED */
	bool attached, writes;      /* console */
	/* A request that has not been answered yet: PAUSE until the machine stands still, STATS and MEMORY until the guest has said what memory it
	 * has free, or has not in time. */
	enum ctl_type late;         /* 0: none */
	uint64_t news, until;       /* of the balloon; CLOCK_MONOTONIC, in ns */
	uint64_t pos, missed;       /* console output: what comes next, what it has lost */
};

struct ctl {
	struct vm *vm;
	uid_t owner;                /* as this process sees itself; peers must look the same */
	struct ev_source listener;
	struct ctl_client client[CTL_CLIENTS];
	uint8_t in[CTL_MAX];
	union { struct ctl_header h; uint8_t bytes[CTL_MAX]; } out;
};

/* Serves on a listening socket, which it then owns. 0 or -errno. While the machine is built. */
int ctl_init(struct vm *vm, int listen_fd);
/* Before each wait: late replies, console output, what to wait for. Milliseconds until it wants to be called again, -1: when something
 * happens. Harmless without ctl_init(). */
int ctl_pump(struct vm *vm);
/* The machine has ended: tells who wants to know. */
void ctl_end(struct vm *vm);

#endif
