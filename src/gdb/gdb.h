/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A stub for GDB: one client at a time looks into a machine through the remote serial protocol (docs/design/gdb.md).
 *
 * The stub lives on the thread of the event loop. It never waits: it asks for the machine to stand still (gdb_ops.stop), hears of it through
 * gdb_poll(), and only then looks at or changes a vCPU. Everything the client sends is checked; it can do anything to the guest and
 * nothing to the host.
 */
#ifndef GDB_GDB_H
#define GDB_GDB_H

#include "cpu/vcpu.h"
#include "host/evloop.h"

/* What the stub needs of the machine around it. Loop thread. */
enum gdb_cpu_state { GDB_CPU_RUNS, GDB_CPU_HALTED, GDB_CPU_WAITS /* for a start-up message */ };
struct gdb_ops {
	void (*stop)(void *vm);              /* ask for a standstill; gdb_poll() is to be called when it has come about */
	bool (*stopped)(void *vm);           /* everything stands still until resume() */
	void (*resume)(void *vm);
	/* While stopped: one instruction of a CPU that runs. -1: triple fault, the machine ends. */
	int (*step)(void *vm, unsigned cpu);
	enum gdb_cpu_state (*cpu_state)(void *vm, unsigned cpu);
	void (*reset)(void *vm);             /* takes place after resume() */
	void (*kill)(void *vm);              /* ends the machine, stopped or not */
};

struct gdb_config {
	int listen_fd;                       /* listening stream socket; the stub's from now on */
	struct evloop *loop;
	struct mem *mem;
	struct vcpu *const *vcpu;
	unsigned ncpus;
	const struct gdb_ops *ops;
	void *vm;
	bool wait;                           /* stand still until a client says go */
};

struct gdb;

/* Registers the socket with the loop. Everything is allocated here. 0 or -errno. */
int gdb_create(struct gdb **out, const struct gdb_config *config);
void gdb_destroy(struct gdb *g);

/* The machine may have come to stand still, by request or because a vCPU met a breakpoint. */
void gdb_poll(struct gdb *g);

/* The machine has ended: tells the client, as far as its socket takes it. */
void gdb_ended(struct gdb *g, int status);

/* A client is there: triple faults are worth stopping for. Any thread. */
bool gdb_attached(const struct gdb *g);

#endif
