/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Putting a machine together and taking it apart.
 *
 *   0        640K    768K   896K  1M                    low_ram <= 3G          4G        4G + high_ram
 *   | RAM    | (VGA) | RAM  | ACPI | RAM                 | PCI, APICs, ...       | RAM       |
 *
 * Invariant: after machine_create() (and again after machine_reset()) everything is in power-on state; machine_boot() (load.c)
 * then makes vCPU 0 stand at the kernel's entry. Both run before the vCPU threads exist, or at a rendezvous of them (life.h).
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/stat.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include "base/log.h"
#include "dev/platform/serial.h"
#include "gdb/gdb.h"
#include "vm/vm.h"

#define HOLE_BEGIN 0xa0000ull
#define HOLE_END 0xc0000ull
#define LOW_MAX (3ull << 30)
#define HIGH_BASE (4ull << 30)

static uint64_t file_size(int fd)
{
	struct stat st;

	return fstat(fd, &st) == 0 && st.st_size > 0 ? (uint64_t)st.st_size : 0;
}

/* Distributes the descriptors that came with the configuration; returns the serial port's file, or -1. */
static int take_files(struct vm *vm, const int *fds)
{
	struct proto_config *c = vm->config;
	unsigned named = 0;
	int serial = -1;

	for (unsigned i = 0; i < c->nfds; i++) {
		struct boot_file f = {.fd = fds[i], .size = file_size(fds[i])};

		switch (c->role[i]) {
		case PROTO_FD_KERNEL:
			vm->kernel = (struct vm_file){.fd = fds[i], .size = f.size};
			break;
		case PROTO_FD_INITRD:
			f.args = c->initrd;
			memmove(vm->module + 1, vm->module, vm->nmodules * sizeof(f));
			vm->module[0] = f;
			vm->nmodules++;
			vm->has_initrd = true;
			break;
		case PROTO_FD_MODULE:
			f.args = c->module[named++];
			vm->module[vm->nmodules++] = f;
			break;
		case PROTO_FD_SERIAL:
			serial = fds[i];
			break;
		case PROTO_FD_STATS:
			vm->stats_fd = fds[i];
			break;
		case PROTO_FD_PROFILE:
			vm->profile_fd = fds[i];
			break;
		case PROTO_FD_PERF_MAP:
			vm->perf_map_fd = fds[i];
			break;
		case PROTO_FD_GDB:
			vm->gdb_fd = fds[i];
			break;
		case PROTO_FD_CONTROL:
			vm->control_fd = fds[i];
			break;
		case PROTO_FD_SHARE:
			vm->share_fd[vm->nshares++] = fds[i];
			break;
		case PROTO_FD_DIAL:
			vm->dial_fd = fds[i];
			break;
		}
	}
	return serial;
}

/* The user's console, and what becomes of the serial port if that is not it. `file`: the serial port's, or -1. */
static void open_consoles(struct vm *vm, int file)
{
	const struct proto_config *c = vm->config;
	bool stdio = c->hvc == PROTO_HVC_STDIO || c->serial == PROTO_SERIAL_STDIO;
	int out = stdio ? STDOUT_FILENO : c->hvc ? -1 : file;

	console_init(&vm->console, vm, stdio ? STDIN_FILENO : -1, out);
	vm->console.tty = stdio && (c->flags & PROTO_F_TTY);
	vm->console.saved = c->termios;
	console_init(&vm->serial_file, vm, -1, c->hvc ? file : -1);
}

static const char *make_memory(struct vm *vm)
{
	uint64_t low = vm->config->memory < LOW_MAX ? vm->config->memory : LOW_MAX, high = vm->config->memory - low;
	gfn_t max_gfn = (high ? HIGH_BASE + high : HIGH_BASE) >> PAGE_SHIFT;

	if (mem_create(&vm->mem, vm->config->memory, max_gfn) < 0)
		return "not enough host memory for the guest's; give --memory less";
	if (mem_add_ram(vm->mem, 0, HOLE_BEGIN) < 0 || mem_add_ram(vm->mem, HOLE_END, low - HOLE_END) < 0 ||
	    (high && mem_add_ram(vm->mem, HIGH_BASE, high) < 0))
		return "the memory map cannot be built; give --memory another size";
	vm->target = (struct boot_target){.mem = vm->mem, .low_ram = low, .high_ram = high};
	return NULL;
}

/* Power-on state of the processors as a whole: one TSC, and all but the first wait to be started. */
static void reset_cpus(struct vm *vm)
{
	for (unsigned i = 0; i < vm->ncpus; i++) {
		vm->vcpu[i]->tsc_offset = vm->vcpu[0]->tsc_offset;
		vm->cpu[i].startup = i ? VM_CPU_WAITS : VM_CPU_RUNS;
	}
}

static_assert(PROTO_MAX_CPUS == VCPU_MAX, "the command line allows what can be built");

static const char *make_vcpus(struct vm *vm)
{
	static char why[256];
	uint64_t khz = vm_clock_tsc_khz();

	vm->engine = engine_find(vm->config->engine, vm->config->cpus, why, sizeof(why));
	if (!vm->engine)
		return why[0] ? why : "the engine is not part of this build; see `doppel check`";
	vm->io.guest_tsc_khz = khz;
	for (vm->ncpus = 0; vm->ncpus < vm->config->cpus; vm->ncpus++) {
		unsigned i = vm->ncpus;
		const struct vcpu_config vc = {
			.index = i, .count = vm->config->cpus, .tsc_khz = khz, .ops = &vm_vcpu_ops, .vm = &vm->cpu[i]};

		vm->cpu[i] = (struct vm_cpu){.vm = vm, .index = i};
		if (vcpu_create(&vm->vcpu[i], vm->mem, &vc) < 0)
			return "not enough address space for the virtual processors; give --cpus less, or raise the limit (ulimit -v)";
		if (vm->engine->create(vm->vcpu[i]) < 0) {
			vcpu_destroy(vm->vcpu[i]);
			return "the engine cannot be set up here; see `doppel check`, or try --engine interp";
		}
	}
	reset_cpus(vm);
	return NULL;
}

static const char *make_board(struct vm *vm)
{
	static const struct console_port serial_port = {.input = serial_input};
	struct console *on_serial = vm->config->hvc ? &vm->serial_file : &vm->console;
	struct board_config bc = {
		.ncpus = vm->config->cpus,
		.ram_below_4g = vm->target.low_ram,
		.ram_above_4g = vm->target.high_ram,
		.serial = &console_chr_ops,
		.serial_opaque = on_serial,
		.cpus = &vm_lapic_cpu_ops,
		.debug_exit = vm->config->flags & PROTO_F_DEBUG_EXIT,
	};

	if (board_create(&vm->io, &bc, &vm->board) < 0)
		return "the board cannot be built; free some host memory";
	on_serial->port = &serial_port;
	on_serial->dev = board_find(&vm->board, "serial0");
	return vm_devices_create(vm);
}

const char *machine_create(struct vm *vm, struct proto_config *config, const int *fds)
{
	const char *err;

	vm->config = config;
	vm->stats_fd = vm->profile_fd = vm->perf_map_fd = vm->gdb_fd = vm->control_fd = vm->dial_fd = -1;
	vm->kernel.fd = -1;
	vm->notify_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	vm->timer_fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
	vm->armed = UINT64_MAX;
	life_init(&vm->life);
	open_consoles(vm, take_files(vm, fds));
	if (vm->notify_fd < 0 || vm->timer_fd < 0)
		return "no event descriptor; raise the limit on open files";
	evloop_init(&vm->loop);
	if (vm_loop_init(vm) < 0 || (vm->control_fd >= 0 && ctl_init(vm, vm->control_fd) < 0))
		return "the event loop is full; give the machine fewer devices";
	vm_clock_init(&vm->clock);
	err = make_memory(vm);
	if (!err && io_init(&vm->io, vm->mem) < 0)
		err = "the bus cannot be set up; free some host memory";
	if (err)
		return err;
	vm_io_glue(vm);
	err = vm_disks_open(vm, fds);
	if (!err)
		err = vm_nets_open(vm, fds);
	if (!err)
		err = make_vcpus(vm);
	if (!err)
		err = make_board(vm);
	if (!err && vm_debugger_init(vm) < 0)
		err = "the debugger's stub cannot be set up; free some host memory";
	if (!err && vm_profile_create(vm) < 0)
		err = "the profile cannot be set up; free some host memory";
	return err;
}

void machine_destroy(struct vm *vm)
{
	gdb_destroy(vm->gdb);
	board_destroy(&vm->board);
	for (unsigned i = 0; i < vm->ncpus; i++) {
		vm->engine->destroy(vm->vcpu[i]);
		vcpu_destroy(vm->vcpu[i]);
	}
	if (vm->mem) {
		io_fini(&vm->io);
		mem_destroy(vm->mem);
	}
}

void machine_reset(struct vm *vm)
{
	pthread_mutex_lock(&vm->io.lock);
	board_reset(&vm->board);
	pthread_mutex_unlock(&vm->io.lock);
	for (unsigned i = 0; i < vm->ncpus; i++) {
		vm->engine->reset(vm->vcpu[i]);
		vcpu_reset(vm->vcpu[i]);
	}
	reset_cpus(vm);
	mem_reset(vm->mem);
}
