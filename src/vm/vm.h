/* SPDX-License-Identifier: Apache-2.0 */
/*
 * struct vm: one machine, everything it is made of, and the threads that run it.
 *
 * Threads (docs/design/vm.md):
 *   main   event loop (loop.c): console, channel to doppel, timers while vCPUs run, watchdog of the end
 *   vcpu   one for each vCPU: engine_run() in a loop (run.c); while halted it serves its own timers itself
 *
 * Locks, outermost first:  io.lock  ->  life.lock  ->  console.lock. A vCPU thread holds none of them while the guest runs.
 * vcpu[i] and everything behind it belongs to its thread once that exists, but at a rendezvous (life.h).
 */
#ifndef VM_VM_H
#define VM_VM_H

#include <pthread.h>
#include <stdatomic.h>
#include <termios.h>

#include "cpu/vcpu.h"
#include "dev/board.h"
#include "engine/engine.h"
#include "host/block/block.h"
#include "host/evloop.h"
#include "host/net/net.h"
#include "host/sandbox.h"
#include "io/io.h"
#include "proto/proto.h"
#include "vm/boot/boot.h"
#include "vm/clock.h"
#include "vm/console.h"
#include "vm/ctl.h"
#include "vm/life.h"
#include "vm/profile.h"

struct json;
struct gdb;
struct virtio_dev;

struct vm_file {
	int fd;              /* -1: not given */
	uint64_t size;
};

/* How far a processor is in starting up (SDM vol. 3A 8.4.2). */
enum vm_startup {
	VM_CPU_RUNS,
	VM_CPU_INIT,         /* INIT has come: to be reset, then waits */
	VM_CPU_WAITS,        /* for a start-up message; everything else is held off */
	VM_CPU_STARTS,       /* the start-up message has come */
};

/* A vCPU as the machine sees it. */
struct vm_cpu {
	struct vm *vm;
	unsigned index;
	pthread_t thread;
	/* Under io.lock: */
	bool halted;                      /* waits in HLT or for a start-up message, and serves its own timers */
	uint64_t halted_since;            /* while halted: machine time */
	uint64_t wait_until;              /* while halted: machine time at which it wakes by itself */
	enum vm_startup startup;
	uint8_t start_vector;
	struct {                          /* written by its thread, read by any: base/stats.h */
		uint64_t halted_ns;       /* time spent halted, without the halt that goes on; written under io.lock */
		uint64_t exits[EXIT_COUNT];
		uint64_t device_tsc;      /* in devices, interrupt controllers included: ticks of the host's TSC */
		uint64_t exit_cpu_ns;     /* processor time spent halting and waking */
		uint64_t end_cpu_ns;      /* processor time of the thread when it ended; 0 before */
	} stats;
	clockid_t clock;                  /* processor time of its thread */
	uint64_t begun_ns, steal_ns;      /* machine time when its thread began; steal time last told; its thread's */
};

struct vm {
	struct proto_config *config;
	struct vm_file kernel;
	struct boot_file module[BOOT_MAX_MODULES];
	unsigned nmodules;
	bool has_initrd;
	int stats_fd, control_fd;
	int profile_fd, perf_map_fd;
	struct vm_profile *profile;       /* NULL: nobody asked for one */
	int channel;
	unsigned sandbox;                 /* enum sandbox_layer reached */

	struct mem *mem;
	struct io io;
	struct board board;
	unsigned ncpus;
	struct vcpu *vcpu[VCPU_MAX];
	struct vm_cpu cpu[VCPU_MAX];      /* cpu[i] is the machine's side of vcpu[i] */
	const struct engine_ops *engine;
	struct boot_target target;

	struct block_aio *aio;            /* NULL without disks */
	struct block *disk[PROTO_MAX_DISKS];
	unsigned ndisks;
	struct stats_source disk_stats[PROTO_MAX_DISKS];
	char disk_name[PROTO_MAX_DISKS][16];
	int share_fd[PROTO_MAX_SHARES];   /* to the servers of shared folders */
	unsigned nshares;
	char share_name[PROTO_MAX_SHARES][16];
	int dial_fd;                      /* where connections for vsock come from; -1: no vsock */
	struct net_backend *net[PROTO_MAX_NETS];   /* the devices' once those exist */
	unsigned nnets;
	char net_name[PROTO_MAX_NETS][16];
	struct virtio_dev *balloon;       /* NULL: none */
	struct stats_source balloon_stats;

	struct vm_clock clock;
	struct console console;           /* the user's: on the serial port or the virtio console */
	struct console serial_file;       /* where the serial port goes if the console is not on it: a file, or nowhere */
	_Atomic uint32_t talkers;         /* bit per vCPU that has put out more than the console takes now; set under io.lock */
	struct life life;
	struct gdb *gdb;                  /* NULL: no debugger may come */
	int gdb_fd;                       /* its listening socket, or -1 */
	_Atomic bool debug_hold;          /* the debugger holds the machine still, or has asked for it */
	struct ctl *ctl;                  /* NULL without a control socket */
	struct evloop loop;               /* main thread; sources are added while the machine is built */
	struct ev_source ev_notify, ev_timer, ev_channel, ev_block;
	int notify_fd;                    /* eventfd: something for the main thread to look at */
	int timer_fd;                     /* earliest deadline of the timers that no halted vCPU serves */
	unsigned idle_cpu;                /* under io.lock: CPU index + 1 of the halted vCPU that serves timers without owner; 0 = none */
	uint64_t armed;                   /* under io.lock: what timer_fd is set to */
	_Atomic unsigned vcpus_ended;
	_Atomic bool terminated;          /* SIGTERM came */
};

/* machine.c: builds the machine the configuration asks for (before the sandbox closes) and takes it apart. */
const char *machine_create(struct vm *vm, struct proto_config *config, const int *fds);
void machine_destroy(struct vm *vm);
/* load.c: loads the kernel, from its file or a disk, and puts vCPU 0 at its entry, the others wait for a start-up message; the machine must be in reset state. NULL or "cause; remedy". */
const char *machine_boot(struct vm *vm);
/* Everything back to power-on state (devices, memory, vCPUs, engines). At a rendezvous, or before the vCPU threads exist. */
void machine_reset(struct vm *vm);

/* disks.c: opens config->disk[], whose descriptors are among fds. NULL or "file: cause; remedy". Before the sandbox closes. */
const char *vm_disks_open(struct vm *vm, const int *fds);
/* Waits for what is in flight and writes what is cached. Main thread, the vCPUs have ended. */
void vm_disks_close(struct vm *vm);

/* devices.c: puts the virtio devices on the board. NULL or "cause; remedy". Disks are open, the board is there. */
const char *vm_devices_create(struct vm *vm);
/* nets.c: network back ends from the configuration's descriptors. NULL or "cause; remedy". */
const char *vm_nets_open(struct vm *vm, const int *fds);
/* What the seal must let them do; their number. */
unsigned vm_nets_ioctls(const struct vm *vm, struct sandbox_ioctl out[PROTO_MAX_NETS]);

/* glue.c: the vCPU's view of the machine, and the devices' view of the vCPU. */
extern const struct vcpu_ops vm_vcpu_ops;
extern const struct lapic_cpu_ops vm_lapic_cpu_ops;
void vm_io_glue(struct vm *vm);

/* timers.c: who serves which timer. io.lock held in all of them. */
void vm_wake_timers(void *vm, const struct io_timer *t);   /* io.wake_timers */
/* Sets timer_fd to the earliest deadline of the timers that the main thread serves. */
void vm_timers_arm(struct vm *vm);
void vm_timers_disarm(struct vm *vm);
/* A vCPU begins or ends to wait; while it does, vm_timers_next() is the earliest deadline it is responsible for. */
void vm_timers_halt(struct vm_cpu *c, bool halted);
uint64_t vm_timers_next(struct vm_cpu *c);

/* Makes the main thread look around. Any thread. */
void vm_notify(struct vm *vm);

/* run.c: vcpu_ops.steal_ns; body of a vCPU's thread. */
uint64_t vm_steal_ns(void *vm_cpu);
void *vm_vcpu_main(void *vm_cpu);
/* Ends the machine after a triple fault. */
void vm_triple_fault(struct vm *vm, const struct vcpu *v);
/* debugger.c: the stub, if a socket for it has come along. 0 or -errno. */
int vm_debugger_init(struct vm *vm);
/* A vCPU thread whose engine has left with EXIT_DEBUG, or after a triple fault (which a debugger wants to look at first): waits for the
 * debugger to let it go on. False: the machine has ended. */
bool vm_debugger_hit(struct vm *vm, struct vcpu *v);
bool vm_debugger_shutdown(struct vm *vm, struct vcpu *v);
/* loop.c: prepares the loop and its first sources (0 or -errno); then the body of the main thread, which
 * returns when the machine has ended, with the exit status. */
int vm_loop_init(struct vm *vm);
int vm_loop(struct vm *vm);
/* stats.c: finds the clocks of the vCPU threads, once they exist. */
void vm_stats_init(struct vm *vm);
/* Processor time of a vCPU's thread. */
uint64_t vm_cpu_ns(const struct vm_cpu *c);
/* The report as it stands, as one JSON object. Main thread. */
void vm_stats_report(struct vm *vm, struct json *j);
/* Likewise the part about memory, with the machine's name. */
void vm_memory_report(struct vm *vm, struct json *j);
/* Writes the statistics file, if one was asked for. */
void vm_stats_write(struct vm *vm);

#endif
