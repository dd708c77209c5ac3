/* SPDX-License-Identifier: Apache-2.0 */
/*
 * struct vm: one machine, everything it is made of, and the threads that run it.
 *
 * Threads (docs/design/vm.md):
 *   main   event loop (loop.c): console, channel to doppel, timers while the vCPU runs, watchdog of the end
 *   vcpu   engine_run() in a loop (run.c); while halted it serves the timers itself
 *
 * Locks, outermost first:  io.lock  ->  life.lock  ->  console.lock. The vCPU thread holds none of them while the guest runs.
 * `v` and everything behind it belongs to the vCPU thread once that thread exists.
 */
#ifndef VM_VM_H
#define VM_VM_H

#include <pthread.h>
#include <stdatomic.h>
#include <termios.h>

#include "cpu/vcpu.h"
#include "dev/board.h"
#include "engine/engine.h"
#include "host/evloop.h"
#include "io/io.h"
#include "proto/proto.h"
#include "vm/boot/boot.h"
#include "vm/clock.h"
#include "vm/console.h"
#include "vm/life.h"

struct vm_file {
	int fd;              /* -1: not given */
	uint64_t size;
};

struct vm {
	struct proto_config *config;
	struct vm_file kernel;
	struct boot_file module[BOOT_MAX_MODULES];
	unsigned nmodules;
	bool has_initrd;
	int stats_fd;
	int channel;
	unsigned sandbox;                 /* enum sandbox_layer reached */

	struct mem *mem;
	struct io io;
	struct board board;
	void *serial;                     /* the console's port */
	struct vcpu *v;
	const struct engine_ops *engine;
	struct boot_target target;

	struct vm_clock clock;
	struct console console;
	struct life life;
	pthread_t vcpu_thread;
	struct evloop loop;               /* main thread; sources are added while the machine is built */
	struct ev_source ev_notify, ev_timer, ev_channel;
	int notify_fd;                    /* eventfd: something for the main thread to look at */
	int timer_fd;                     /* earliest device deadline while the vCPU is not halted */
	bool halted;                      /* under io.lock: the vCPU thread waits and serves timers itself */
	uint64_t armed;                   /* under io.lock: what timer_fd is set to */
	_Atomic bool vcpu_ended;
	_Atomic bool terminated;          /* SIGTERM came */
	_Atomic uint64_t halted_ns;       /* time spent halted, for statistics */
};

/* machine.c: builds the machine the configuration asks for (before the sandbox closes) and takes it apart. */
const char *machine_create(struct vm *vm, struct proto_config *config, const int *fds);
void machine_destroy(struct vm *vm);
/* Loads the kernel and puts the vCPU at its entry; the machine must be in reset state. NULL or "cause; remedy". */
const char *machine_boot(struct vm *vm);
/* Everything back to power-on state (devices, memory, vCPU, engine). vCPU thread, or before it exists. */
void machine_reset(struct vm *vm);

/* glue.c: the vCPU's view of the machine, and the devices' view of the vCPU. */
extern const struct vcpu_ops vm_vcpu_ops;
extern const struct lapic_cpu_ops vm_lapic_cpu_ops;
void vm_io_glue(struct vm *vm);
/* Sets timer_fd to the earliest deadline of any device. io.lock held. */
void vm_timers_arm(struct vm *vm);
void vm_timers_disarm(struct vm *vm);
uint64_t vm_next_deadline(struct vm *vm);
/* Makes the main thread look around. Any thread. */
void vm_notify(struct vm *vm);

/* run.c: body of the vCPU thread. */
void *vm_vcpu_main(void *vm);
/* loop.c: prepares the loop and its first sources (0 or -errno); then the body of the main thread, which
 * returns when the machine has ended, with the exit status. */
int vm_loop_init(struct vm *vm);
int vm_loop(struct vm *vm);
/* stats.c: writes the statistics file, if one was asked for. */
void vm_stats_write(struct vm *vm);

#endif
