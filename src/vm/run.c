/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The vCPU's thread: runs the engine and routes its exits.
 *
 * Invariant: while `halted` is set (under io.lock) this thread serves the device timers itself, so waking an idle guest
 * takes no other thread; while it is clear, timer_fd wakes the main thread for them.
 */
#include "base/log.h"
#include "vm/vm.h"

static void set_halted(struct vm *vm, bool halted)
{
	pthread_mutex_lock(&vm->io.lock);
	vm->halted = halted;
	if (halted)
		vm_timers_disarm(vm);
	else
		vm_timers_arm(vm);
	pthread_mutex_unlock(&vm->io.lock);
}

/* HLT: waits until an event is posted, running what falls due. Spurious wake-ups are harmless: the engine returns at once. */
static void wait_for_event(struct vm *vm)
{
	uint64_t begin = vm_clock_now(&vm->clock), deadline, now;

	vm->v->stats.hlt++;
	set_halted(vm, true);
	while (!__atomic_load_n(&vm->v->event, __ATOMIC_ACQUIRE)) {
		deadline = io_timers_run(&vm->io);
		if (__atomic_load_n(&vm->v->event, __ATOMIC_ACQUIRE))
			break;
		now = vm_clock_now(&vm->clock);
		if (deadline == UINT64_MAX)
			vcpu_wait(vm->v, UINT64_MAX);
		else if (deadline > now)
			vcpu_wait(vm->v, deadline - now);
	}
	set_halted(vm, false);
	vm->halted_ns += vm_clock_now(&vm->clock) - begin;
}

/* Carries on after an exit. False: the machine has ended. */
static bool route(struct vm *vm, enum exit_reason why)
{
	switch (why) {
	case EXIT_HLT:
		wait_for_event(vm);
		return true;
	case EXIT_STOP:
		/* Clear first, look afterwards: a request made in between posts the bit again. */
		__atomic_and_fetch(&vm->v->event, ~(uint32_t)VCPU_EV_STOP, __ATOMIC_ACQ_REL);
		return life_serve(vm);
	case EXIT_SHUTDOWN:
		/* What hardware does: processors signal shutdown, boards answer with a reset. A loop of triple faults helps
		 * nobody, so here it ends the run. */
		log_error("triple fault: the guest could not deliver an exception at rip %#llx",
			  (unsigned long long)vm->v->rip);
		life_stop(vm, STATUS_TRIPLE, "triple fault");
		return false;
	case EXIT_DIVERGED:
		life_stop(vm, STATUS_MONITOR, "engines diverged");
		return false;
	case EXIT_ERROR:
		break;
	}
	life_stop(vm, STATUS_MONITOR, "engine error");
	return false;
}

void *vm_vcpu_main(void *arg)
{
	struct vm *vm = arg;

	pthread_mutex_lock(&vm->io.lock);
	vm_timers_arm(vm);
	pthread_mutex_unlock(&vm->io.lock);
	while (route(vm, vm->engine->run(vm->v)))
		;
	vm->vcpu_ended = true;
	vm_notify(vm);
	return NULL;
}
