/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The machine as the debugger's stub (gdb/) needs it: standstill by life's rendezvous, single steps, and what a vCPU does that has met a
 * breakpoint.
 *
 * Invariant: the debugger holds the machine at most once; debug_hold says so and is set by whoever asks first, the main thread for the
 * client or a vCPU thread that met something, and taken back by the main thread alone while everything stands still.
 */
#include "base/log.h"
#include "gdb/gdb.h"
#include "vm/vm.h"

static void stop(void *opaque)
{
	struct vm *vm = opaque;

	if (!atomic_exchange(&vm->debug_hold, true))
		life_hold(vm);
}

static bool stopped(void *opaque)
{
	struct vm *vm = opaque;

	return vm->debug_hold && life_held(vm);
}

static void resume(void *opaque)
{
	struct vm *vm = opaque;

	vm->debug_hold = false;
	life_release(vm);
}

/* The clock runs for as long as the instruction takes: it may read it, and time must not jump back afterwards. */
static void clock_run(struct vm *vm, bool run)
{
	pthread_mutex_lock(&vm->io.lock);
	if (run) {
		uint64_t missed = vm_clock_resume(&vm->clock);

		for (unsigned i = 0; i < vm->ncpus; i++)
			vm->vcpu[i]->tsc_offset -= missed;
	} else {
		vm_clock_pause(&vm->clock);
	}
	pthread_mutex_unlock(&vm->io.lock);
}

/*
 * On the main thread: everything stands still, so it may. Interrupts stay pending, and timers do not fire: a step that ended in a
 * handler each time a timer is due would never get on.
 */
static int step(void *opaque, unsigned cpu)
{
	struct vm *vm = opaque;
	struct vcpu *v = vm->vcpu[cpu];
	int r;

	clock_run(vm, true);
	v->debug.step = true;
	r = interp_step(v);
	v->debug.step = false;
	vcpu_fpu_park(v);
	__atomic_fetch_and(&v->event, ~(uint32_t)VCPU_EV_DEBUG, __ATOMIC_RELAXED);
	clock_run(vm, false);
	if (r < 0)
		vm_triple_fault(vm, v);
	return r < 0 ? -1 : 0;
}

static enum gdb_cpu_state cpu_state(void *opaque, unsigned cpu)
{
	struct vm *vm = opaque;
	enum vm_startup startup;

	pthread_mutex_lock(&vm->io.lock);
	startup = vm->cpu[cpu].startup;
	pthread_mutex_unlock(&vm->io.lock);
	if (startup != VM_CPU_RUNS)
		return GDB_CPU_WAITS;
	return vm->vcpu[cpu]->halted ? GDB_CPU_HALTED : GDB_CPU_RUNS;
}

static void reset(void *opaque)
{
	life_reset(opaque);
}

static void kill_machine(void *opaque)
{
	life_stop(opaque, STATUS_STOPPED, "debugger");
}

static const struct gdb_ops ops = {
	.stop = stop,
	.stopped = stopped,
	.resume = resume,
	.step = step,
	.cpu_state = cpu_state,
	.reset = reset,
	.kill = kill_machine,
};

int vm_debugger_init(struct vm *vm)
{
	struct gdb_config c = {
		.listen_fd = vm->gdb_fd,
		.loop = &vm->loop,
		.mem = vm->mem,
		.vcpu = vm->vcpu,
		.ncpus = vm->ncpus,
		.ops = &ops,
		.vm = vm,
		.wait = vm->config->flags & PROTO_F_GDB_WAIT,
	};

	return vm->gdb_fd < 0 ? 0 : gdb_create(&vm->gdb, &c);
}

bool vm_debugger_hit(struct vm *vm, struct vcpu *v)
{
	/* A watch that turned out not to be one (x87 stores read what they may have to leave alone). */
	if (v->debug.hit == DEBUG_HIT_NONE)
		return true;
	stop(vm);
	return life_serve(vm);
}

bool vm_debugger_shutdown(struct vm *vm, struct vcpu *v)
{
	if (!vm->gdb || !gdb_attached(vm->gdb))
		return true;
	v->debug.hit = DEBUG_HIT_SHUTDOWN;
	return vm_debugger_hit(vm, v);
}
