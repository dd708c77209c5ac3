/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Who serves which device timer: the main thread through timer_fd, or a halted vCPU's thread while it waits anyway.
 *
 *   timer of a CPU (LAPIC)   that CPU's thread while it is halted, else the main thread
 *   other timers             the thread of the vCPU that halted last, while all of them are; else the main thread
 *
 * So an idle guest's tick is one futex wake-up in one thread, and a vCPU that halts never has to wake another for a timer.
 *
 * Invariant: a timer's server wakes no later than its deadline: timer_fd is armed for the main thread's earliest, wait_until of a halted
 * vCPU is not after its earliest, and vm_wake_timers() tells a server whose timer moved closer.
 * Locking: io.lock is held.
 */
#include <sys/timerfd.h>

#include "vm/vm.h"

/* The vCPU that serves t, or NULL: the main thread. */
static struct vm_cpu *server(struct vm *vm, const struct io_timer *t)
{
	unsigned cpu = t->owner ? t->owner : vm->idle_cpu;

	return cpu && cpu <= vm->ncpus && vm->cpu[cpu - 1].halted ? &vm->cpu[cpu - 1] : NULL;
}

static uint64_t earliest(struct vm *vm, const struct vm_cpu *c)
{
	uint64_t first = UINT64_MAX;

	for (struct io_timer *t = vm->io.timers; t; t = t->next)
		if (t->deadline < first && server(vm, t) == c)
			first = t->deadline;
	return first;
}

uint64_t vm_timers_next(struct vm_cpu *c)
{
	return c->wait_until = earliest(c->vm, c);
}

static void set_timer(struct vm *vm, uint64_t host_ns)
{
	struct itimerspec its = {0};

	if (vm->armed == host_ns)
		return;
	vm->armed = host_ns;
	if (host_ns != UINT64_MAX) {
		/* Zero would disarm: a deadline of 0 ns is one of 1. */
		its.it_value.tv_sec = (time_t)(host_ns / 1000000000ull);
		its.it_value.tv_nsec = (long)(host_ns % 1000000000ull) + (host_ns == 0);
	}
	(void)timerfd_settime(vm->timer_fd, TFD_TIMER_ABSTIME, &its, NULL);
}

void vm_timers_arm(struct vm *vm)
{
	uint64_t first = earliest(vm, NULL);

	if (!vm->clock.paused)
		set_timer(vm, first == UINT64_MAX ? first : vm_clock_host(&vm->clock, first));
}

void vm_timers_disarm(struct vm *vm)
{
	set_timer(vm, UINT64_MAX);
}

void vm_wake_timers(void *opaque, const struct io_timer *t)
{
	struct vm *vm = opaque;
	struct vm_cpu *c = server(vm, t);
	uint64_t host;

	if (c) {
		/* Its own thread looks again before it waits. */
		if (t->deadline < c->wait_until && !pthread_equal(pthread_self(), c->thread))
			vcpu_post(vm->vcpu[c->index], VCPU_EV_IRQ);
		return;
	}
	host = vm_clock_host(&vm->clock, t->deadline);
	/* A timer_fd that fires too early costs a look, one set again and again costs a system call each time. */
	if (host < vm->armed && !vm->clock.paused)
		set_timer(vm, host);
}

void vm_timers_halt(struct vm_cpu *c, bool halted)
{
	struct vm *vm = c->vm;
	bool all = true;

	c->halted = halted;
	c->wait_until = 0;
	for (unsigned i = 0; i < vm->ncpus; i++)
		all &= vm->cpu[i].halted;
	if (all)
		vm->idle_cpu = c->index + 1;
	else if (!halted && vm->idle_cpu == c->index + 1)
		vm->idle_cpu = 0;
	vm_timers_arm(vm);
}
