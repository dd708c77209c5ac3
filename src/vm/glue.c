/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Glue: the vCPU's operations in terms of io/, and io/'s up-calls in terms of the vCPU.
 *
 * Invariant: the vCPU's operations are called on its thread with its vector state parked; the up-calls come from any
 * thread, those that say so with io.lock held.
 */
#include <stdatomic.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include "dev/platform/lapic.h"
#include "vm/vm.h"

#define NS_PER_SEC 1000000000ull

/* --- the vCPU looks at the machine ---------------------------------------------------------------------------------- */

static uint64_t glue_read(struct vm *vm, enum io_space space, uint64_t addr, unsigned size)
{
	uint64_t val = UINT64_MAX;

	(void)io_read(&vm->io, space, addr, size, &val);
	return size < 8 ? val & (BIT(8 * size) - 1) : val;
}

static uint64_t pio_read(void *vm, uint16_t port, unsigned size) { return glue_read(vm, IO_PIO, port, size); }
static uint64_t mmio_read(void *vm, gpa_t gpa, unsigned size) { return glue_read(vm, IO_MMIO, gpa, size); }

static void pio_write(void *opaque, uint16_t port, unsigned size, uint64_t val)
{
	struct vm *vm = opaque;

	(void)io_write(&vm->io, IO_PIO, port, size, val);
}

static void mmio_write(void *opaque, gpa_t gpa, unsigned size, uint64_t val)
{
	struct vm *vm = opaque;

	(void)io_write(&vm->io, IO_MMIO, gpa, size, val);
}

static bool irq_pending(void *opaque, unsigned cpu)
{
	struct vm *vm = opaque;
	bool pending;

	pthread_mutex_lock(&vm->io.lock);
	pending = vm->io.lapic ? vm->io.lapic->pending(vm->io.lapic_opaque, cpu)
			       : vm->io.pic && vm->io.pic->pending(vm->io.pic_opaque);
	pthread_mutex_unlock(&vm->io.lock);
	return pending;
}

static int irq_ack(void *opaque, unsigned cpu)
{
	struct vm *vm = opaque;
	int vector = -1;

	pthread_mutex_lock(&vm->io.lock);
	if (vm->io.lapic)
		vector = vm->io.lapic->ack(vm->io.lapic_opaque, cpu);
	else if (vm->io.pic)
		vector = vm->io.pic->ack(vm->io.pic_opaque);
	pthread_mutex_unlock(&vm->io.lock);
	return vector;
}

static int apic_msr(void *opaque, unsigned cpu, bool write, uint32_t msr, uint64_t *val)
{
	struct vm *vm = opaque;
	int ret = -1;

	if (!vm->io.lapic)
		return -1;
	pthread_mutex_lock(&vm->io.lock);
	ret = write ? vm->io.lapic->msr_write(vm->io.lapic_opaque, cpu, msr, *val)
		    : vm->io.lapic->msr_read(vm->io.lapic_opaque, cpu, msr, val);
	pthread_mutex_unlock(&vm->io.lock);
	return ret;
}

static uint64_t cr8(void *opaque, unsigned cpu, bool write, uint64_t val)
{
	struct vm *vm = opaque;

	if (!vm->io.lapic)
		return 0;
	pthread_mutex_lock(&vm->io.lock);
	if (write)
		vm->io.lapic->cr8_write(vm->io.lapic_opaque, cpu, val);
	else
		val = vm->io.lapic->cr8_read(vm->io.lapic_opaque, cpu);
	pthread_mutex_unlock(&vm->io.lock);
	return val;
}

static uint64_t now_ns(void *opaque)
{
	struct vm *vm = opaque;

	return vm_clock_now(&vm->clock);
}

static uint64_t wall_ns(void *vm)
{
	(void)vm;
	return vm_clock_wall_ns();
}

const struct vcpu_ops vm_vcpu_ops = {
	.pio_read = pio_read,
	.pio_write = pio_write,
	.mmio_read = mmio_read,
	.mmio_write = mmio_write,
	.irq_pending = irq_pending,
	.irq_ack = irq_ack,
	.apic_msr = apic_msr,
	.cr8 = cr8,
	.now_ns = now_ns,
	.wall_ns = wall_ns,
};

/* --- the devices look at the machine -------------------------------------------------------------------------------- */

static void kick(void *opaque, unsigned cpu)
{
	struct vm *vm = opaque;

	(void)cpu; /* there is one */
	if (vm->v)
		vcpu_post(vm->v, VCPU_EV_IRQ);
}

/* io.lock held. */
static void wake_timers(void *opaque)
{
	struct vm *vm = opaque;

	if (!vm->v)
		return;
	if (!vm->halted)
		vm_timers_arm(vm);
	else if (!pthread_equal(pthread_self(), vm->vcpu_thread))
		vcpu_post(vm->v, VCPU_EV_IRQ); /* it waits for the deadline it knew: make it look again */
}

static void nmi(void *opaque, unsigned cpu)
{
	struct vm *vm = opaque;

	(void)cpu;
	if (vm->v)
		vcpu_post(vm->v, VCPU_EV_NMI);
}

/* INIT to the only processor: what a board does then is a reset. */
static void init(void *opaque, unsigned cpu)
{
	(void)cpu;
	life_reset(opaque);
}

const struct lapic_cpu_ops vm_lapic_cpu_ops = {.nmi = nmi, .init = init};

static void request(void *opaque, enum io_request what, uint32_t arg)
{
	struct vm *vm = opaque;

	switch (what) {
	case IO_REQ_POWEROFF:
		life_stop(vm, STATUS_POWEROFF, "power-off");
		break;
	case IO_REQ_RESET:
		life_reset(vm);
		break;
	case IO_REQ_DEBUG_EXIT:
		life_stop(vm, status_debug_exit(arg), "debug exit");
		break;
	}
}

static uint64_t guest_tsc(void *opaque, unsigned cpu)
{
	struct vm *vm = opaque;
	uint64_t tsc = vm->clock.paused ? vm->clock.paused_tsc : __builtin_ia32_rdtsc();

	(void)cpu;
	return vm->v ? tsc + vm->v->tsc_offset : tsc;
}

void vm_io_glue(struct vm *vm)
{
	vm->io.vm = vm;
	vm->io.kick = kick;
	vm->io.wake_timers = wake_timers;
	vm->io.request = request;
	vm->io.now = now_ns;
	vm->io.guest_tsc = guest_tsc;
}

/* --- timers ----------------------------------------------------------------------------------------------------------- */

uint64_t vm_next_deadline(struct vm *vm)
{
	uint64_t first = UINT64_MAX;

	for (struct io_timer *t = vm->io.timers; t; t = t->next)
		if (t->deadline < first)
			first = t->deadline;
	return first;
}

static void set_timer(struct vm *vm, uint64_t host_ns)
{
	struct itimerspec its = {0};

	if (vm->armed == host_ns)
		return;
	vm->armed = host_ns;
	if (host_ns != UINT64_MAX) {
		/* Zero would disarm: a deadline of 0 ns is one of 1. */
		its.it_value.tv_sec = (time_t)(host_ns / NS_PER_SEC);
		its.it_value.tv_nsec = (long)(host_ns % NS_PER_SEC) + (host_ns == 0);
	}
	(void)timerfd_settime(vm->timer_fd, TFD_TIMER_ABSTIME, &its, NULL);
}

void vm_timers_arm(struct vm *vm)
{
	uint64_t first = vm_next_deadline(vm);

	if (!vm->clock.paused)
		set_timer(vm, first == UINT64_MAX ? first : vm_clock_host(&vm->clock, first));
}

void vm_timers_disarm(struct vm *vm)
{
	set_timer(vm, UINT64_MAX);
}

void vm_notify(struct vm *vm)
{
	uint64_t one = 1;
	ssize_t n = write(vm->notify_fd, &one, sizeof(one));

	(void)n; /* EAGAIN: it is pending already */
}
