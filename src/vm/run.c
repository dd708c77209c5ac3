/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A vCPU's thread: runs the engine and routes its exits, and starts up as the messages of other processors tell it.
 *
 * Invariant: while `halted` is set (under io.lock) this thread serves its timers itself (timers.c), so waking an idle guest takes
 * no other thread. A CPU that waits for a start-up message waits in the same way and takes notice of nothing else but the end.
 */
#include <time.h>

#include "base/log.h"
#include "cpu/cpu.h"
#include "vm/vm.h"

static void set_halted(struct vm_cpu *c, bool halted)
{
	uint64_t now = vm_clock_now(&c->vm->clock);

	pthread_mutex_lock(&c->vm->io.lock);
	if (halted)
		c->halted_since = now;
	else
		stats_add(&c->stats.halted_ns, now - c->halted_since);
	vm_timers_halt(c, halted);
	pthread_mutex_unlock(&c->vm->io.lock);
}

/* The deadline to wait for, after everything due has been run. */
static uint64_t run_timers(struct vm_cpu *c)
{
	uint64_t next;

	(void)io_timers_run(&c->vm->io);
	pthread_mutex_lock(&c->vm->io.lock);
	next = vm_timers_next(c);
	pthread_mutex_unlock(&c->vm->io.lock);
	return next;
}

static uint64_t thread_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &ts);
	return (uint64_t)ts.tv_sec * 1000000000ull + (uint64_t)ts.tv_nsec;
}

/* Time not halted that its thread did not spend on a processor: the host's other work, and waiting for other vCPUs. */
uint64_t vm_steal_ns(void *opaque)
{
	struct vm_cpu *c = opaque;
	uint64_t wall = vm_clock_now(&c->vm->clock) - c->begun_ns - stats_read(&c->stats.halted_ns);
	uint64_t cpu = thread_ns() - stats_read(&c->stats.exit_cpu_ns);

	/* The two clocks are not read at the same moment. */
	if (wall > cpu && wall - cpu > c->steal_ns)
		c->steal_ns = wall - cpu;
	return c->steal_ns;
}

/* HLT: waits until an event is posted, running what falls due. Spurious wake-ups are harmless: the engine returns at once. */
static void wait_for_event(struct vm_cpu *c)
{
	struct vm *vm = c->vm;
	struct vcpu *v = vm->vcpu[c->index];
	uint64_t cpu_begin = thread_ns(), deadline, now;
	unsigned was = prof_begin(v->prof, PROF_HALT);

	cpu_pv_halt(v);
	set_halted(c, true);
	while (!__atomic_load_n(&v->event, __ATOMIC_ACQUIRE)) {
		deadline = run_timers(c);
		if (__atomic_load_n(&v->event, __ATOMIC_ACQUIRE))
			break;
		now = vm_clock_now(&vm->clock);
		if (deadline == UINT64_MAX)
			vcpu_wait(v, UINT64_MAX);
		else if (deadline > now)
			vcpu_wait(v, deadline - now);
	}
	set_halted(c, false);
	stats_add(&c->stats.exit_cpu_ns, thread_ns() - cpu_begin);
	cpu_pv_wake(v);
	prof_end(v->prof, was);
}

/* Takes the next step of starting up; true when the CPU runs (again). */
static bool start_up(struct vm_cpu *c)
{
	struct vm *vm = c->vm;
	struct vcpu *v = vm->vcpu[c->index];
	enum vm_startup was;

	pthread_mutex_lock(&vm->io.lock);
	was = c->startup;
	/* Cleared with the lock held, so that a message that comes later posts it again. Interrupts and NMIs are not remembered. */
	__atomic_and_fetch(&v->event, was == VM_CPU_RUNS ? ~(uint32_t)VCPU_EV_INIT : (uint32_t)VCPU_EV_STOP, __ATOMIC_ACQ_REL);
	if (was == VM_CPU_INIT)
		c->startup = VM_CPU_WAITS;
	else if (was == VM_CPU_STARTS)
		c->startup = VM_CPU_RUNS;
	pthread_mutex_unlock(&vm->io.lock);
	if (was == VM_CPU_INIT || was == VM_CPU_STARTS)
		vcpu_init(v);
	if (was == VM_CPU_STARTS)
		vcpu_start(v, c->start_vector);
	return was == VM_CPU_RUNS || was == VM_CPU_STARTS;
}

static bool stop_requested(struct vcpu *v)
{
	/* Clear first, look afterwards: a request made in between posts the bit again. */
	return __atomic_fetch_and(&v->event, ~(uint32_t)VCPU_EV_STOP, __ATOMIC_ACQ_REL) & VCPU_EV_STOP;
}

/* Until the CPU has been started. False: the machine has ended. */
static bool wait_for_start(struct vm_cpu *c)
{
	struct vcpu *v = c->vm->vcpu[c->index];

	while (!start_up(c)) {
		wait_for_event(c);
		if (stop_requested(v) && !life_serve(c->vm))
			return false;
	}
	return true;
}

/* What hardware does: processors signal shutdown, boards answer with a reset. A loop of triple faults helps nobody, so here it ends
 * the run. */
void vm_triple_fault(struct vm *vm, const struct vcpu *v)
{
	log_error("triple fault: the guest could not deliver an exception at rip %#llx", (unsigned long long)v->rip);
	life_stop(vm, STATUS_TRIPLE, "triple fault");
}

/* Carries on after an exit. False: the machine has ended. */
static bool route(struct vm_cpu *c, enum exit_reason why)
{
	struct vm *vm = c->vm;
	struct vcpu *v = vm->vcpu[c->index];

	stats_add(&c->stats.exits[why], 1);
	switch (why) {
	case EXIT_HLT:
		wait_for_event(c);
		return true;
	case EXIT_STOP:
		(void)stop_requested(v);
		/* A reset of the machine has this CPU wait for a start-up message. */
		return life_serve(vm) && wait_for_start(c);
	case EXIT_INIT:
		return wait_for_start(c);
	case EXIT_DEBUG:
		return vm_debugger_hit(vm, v) && wait_for_start(c);
	case EXIT_SHUTDOWN:
		if (vm_debugger_shutdown(vm, v))
			vm_triple_fault(vm, v);
		return false;
	case EXIT_DIVERGED:
		life_stop(vm, STATUS_MONITOR, "engines diverged");
		return false;
	case EXIT_ERROR:
	case EXIT_COUNT:
		break;
	}
	life_stop(vm, STATUS_MONITOR, "engine error");
	return false;
}

void *vm_vcpu_main(void *arg)
{
	struct vm_cpu *c = arg;
	struct vm *vm = c->vm;

	vm_profile_run(c);
	c->begun_ns = vm_clock_now(&vm->clock);
	if (c->index == 0) {
		pthread_mutex_lock(&vm->io.lock);
		vm_timers_arm(vm);
		pthread_mutex_unlock(&vm->io.lock);
	}
	if (wait_for_start(c))
		while (route(c, vm->engine->run(vm->vcpu[c->index])))
			;
	vm_profile_stop(c);
	stats_add(&c->stats.end_cpu_ns, thread_ns());
	vm->vcpus_ended++;
	vm_notify(vm);
	return NULL;
}
