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

struct vm;

struct ctl_client {
	struct vm *vm;
	struct ev_source ev;        /* fd < 0: free */
	bool watches;               /* wants ENDED */
	bool attached, writes;      /* console */
	bool pausing;               /* a PAUSE waits for its reply */
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
/* Before each wait: late replies, console output, what to wait for. Harmless without ctl_init(). */
void ctl_pump(struct vm *vm);
/* The machine has ended: tells who wants to know. */
void ctl_end(struct vm *vm);

#endif
