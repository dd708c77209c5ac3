/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Glue: the vCPU's operations in terms of io/, and io/'s up-calls in terms of the vCPU.
 *
 * Invariant: a vCPU's operations are called on its thread with its vector state parked; the up-calls come from any
 * thread, those that say so with io.lock held.
 */
#include <unistd.h>

#include "dev/platform/lapic.h"
#include "vm/vm.h"

/* --- a vCPU looks at the machine: opaque is its struct vm_cpu ------------------------------------------------------- */

/*
 * What the monitor does for a vCPU is timed with the TSC, which costs less than anything that could be saved by timing less. A wait for
 * io.lock counts as the monitor's time.
 */
struct visit {
	uint64_t tsc;
	unsigned was;
};

static struct visit begin(struct vm_cpu *c, const void *owner, uint64_t where)
{
	struct prof *p = c->vm->vcpu[c->index]->prof;

	if (unlikely(p))
		p->device = (uint8_t)prof_device(p, owner ? owner : &c->vm->io, where);
	return (struct visit){.was = prof_begin(p, PROF_DEVICE), .tsc = __builtin_ia32_rdtsc()};
}

static struct visit begin_access(struct vm_cpu *c, enum io_space space, uint64_t addr)
{
	bool profiled = c->vm->profile;

	return begin(c, unlikely(profiled) ? io_owner(&c->vm->io, space, addr) : NULL, addr | (space == IO_PIO ? BIT(63) : 0));
}

static struct visit begin_lapic(struct vm_cpu *c)
{
	return begin(c, c->vm->io.lapic_opaque, 0);
}

static void end(struct vm_cpu *c, struct visit v)
{
	stats_add(&c->stats.device_tsc, __builtin_ia32_rdtsc() - v.tsc);
	prof_end(c->vm->vcpu[c->index]->prof, v.was);
}

static uint64_t glue_read(struct vm_cpu *c, enum io_space space, uint64_t addr, unsigned size)
{
	uint64_t val = UINT64_MAX;
	struct visit since = begin_access(c, space, addr);

	(void)io_read_by(&c->vm->io, c->index, space, addr, size, &val);
	end(c, since);
	return size < 8 ? val & (BIT(8 * size) - 1) : val;
}

static uint64_t pio_read(void *cpu, uint16_t port, unsigned size) { return glue_read(cpu, IO_PIO, port, size); }
static uint64_t mmio_read(void *cpu, gpa_t gpa, unsigned size) { return glue_read(cpu, IO_MMIO, gpa, size); }

static void pio_write(void *opaque, uint16_t port, unsigned size, uint64_t val)
{
	struct vm_cpu *c = opaque;
	struct visit since = begin_access(c, IO_PIO, port);

	(void)io_write_by(&c->vm->io, c->index, IO_PIO, port, size, val);
	end(c, since);
	if (unlikely(c->vm->talkers & (1u << c->index)))
		console_throttle(c->vm, c->vm->vcpu[c->index]);
}

static void mmio_write(void *opaque, gpa_t gpa, unsigned size, uint64_t val)
{
	struct vm_cpu *c = opaque;
	struct visit since = begin_access(c, IO_MMIO, gpa);

	(void)io_write_by(&c->vm->io, c->index, IO_MMIO, gpa, size, val);
	end(c, since);
	if (unlikely(c->vm->talkers & (1u << c->index)))
		console_throttle(c->vm, c->vm->vcpu[c->index]);
}

static bool irq_pending(void *opaque, unsigned cpu)
{
	struct vm_cpu *c = opaque;
	struct io *io = &c->vm->io;
	struct visit since = begin_lapic(c);
	bool pending;

	pthread_mutex_lock(&io->lock);
	pending = io->lapic ? io->lapic->pending(io->lapic_opaque, cpu) : io->pic && io->pic->pending(io->pic_opaque);
	pthread_mutex_unlock(&io->lock);
	end(c, since);
	return pending;
}

static int irq_ack(void *opaque, unsigned cpu)
{
	struct vm_cpu *c = opaque;
	struct io *io = &c->vm->io;
	struct visit since = begin_lapic(c);
	int vector = -1;

	pthread_mutex_lock(&io->lock);
	if (io->lapic)
		vector = io->lapic->ack(io->lapic_opaque, cpu);
	else if (io->pic)
		vector = io->pic->ack(io->pic_opaque);
	pthread_mutex_unlock(&io->lock);
	end(c, since);
	return vector;
}

static int apic_msr(void *opaque, unsigned cpu, bool write, uint32_t msr, uint64_t *val)
{
	struct vm_cpu *c = opaque;
	struct io *io = &c->vm->io;
	struct visit since = begin_lapic(c);
	int ret;

	if (!io->lapic)
		return -1;
	pthread_mutex_lock(&io->lock);
	ret = write ? io->lapic->msr_write(io->lapic_opaque, cpu, msr, *val) : io->lapic->msr_read(io->lapic_opaque, cpu, msr, val);
	pthread_mutex_unlock(&io->lock);
	end(c, since);
	return ret;
}

static uint64_t cr8(void *opaque, unsigned cpu, bool write, uint64_t val)
{
	struct vm_cpu *c = opaque;
	struct io *io = &c->vm->io;
	struct visit since = begin_lapic(c);

	if (!io->lapic)
		return 0;
	pthread_mutex_lock(&io->lock);
	if (write)
		io->lapic->cr8_write(io->lapic_opaque, cpu, val);
	else
		val = io->lapic->cr8_read(io->lapic_opaque, cpu);
	pthread_mutex_unlock(&io->lock);
	end(c, since);
	return val;
}

static uint64_t cpu_now_ns(void *opaque)
{
	return vm_clock_now(&((struct vm_cpu *)opaque)->vm->clock);
}

static uint64_t wall_ns(void *cpu)
{
	(void)cpu;
	return vm_clock_wall_ns();
}

static void clock_pair(void *opaque, uint64_t *host_tsc, uint64_t *ns)
{
	const struct vm_clock *c = &((struct vm_cpu *)opaque)->vm->clock;

	*host_tsc = c->pair_tsc;
	*ns = c->pair_ns;
}

static void pv_ipi(void *opaque, uint32_t dest, uint32_t icr)
{
	struct vm_cpu *c = opaque;
	struct vm *vm = c->vm;

	pthread_mutex_lock(&vm->io.lock);
	if (vm->io.lapic)
		vm->io.lapic->ipi(vm->io.lapic_opaque, c->index, icr, dest);
	pthread_mutex_unlock(&vm->io.lock);
}

static void pv_kick(void *opaque, uint32_t dest)
{
	struct vm *vm = ((struct vm_cpu *)opaque)->vm;

	if (dest < vm->ncpus)
		vcpu_post(vm->vcpu[dest], VCPU_EV_KICK);
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
	.now_ns = cpu_now_ns,
	.wall_ns = wall_ns,
	.clock_pair = clock_pair,
	.pv_ipi = pv_ipi,
	.pv_kick = pv_kick,
	.steal_ns = vm_steal_ns,
};

/* --- the devices look at the machine: opaque is struct vm ------------------------------------------------------------ */

static void post(struct vm *vm, unsigned cpu, uint32_t event)
{
	if (cpu < vm->ncpus && vm->vcpu[cpu])
		vcpu_post(vm->vcpu[cpu], event);
}

static void kick(void *vm, unsigned cpu)
{
	post(vm, cpu, VCPU_EV_IRQ);
}

static uint64_t now_ns(void *opaque)
{
	struct vm *vm = opaque;

	return vm_clock_now(&vm->clock);
}

/* The CPU whose register access is being served. */
static unsigned current(void *opaque)
{
	const struct vm *vm = opaque;

	return vm->io.cpu;
}

static void nmi(void *vm, unsigned cpu)
{
	post(vm, cpu, VCPU_EV_NMI);
}

/* INIT and start-up messages: noted here (io.lock is held), obeyed by the CPU's own thread (run.c). */
static void init(void *opaque, unsigned cpu)
{
	struct vm *vm = opaque;

	if (cpu >= vm->ncpus)
		return;
	/* The boot processor would start at its reset vector, where there is no firmware: what a board does then is a reset. */
	if (cpu == 0) {
		life_reset(vm);
		return;
	}
	vm->cpu[cpu].startup = VM_CPU_INIT;
	post(vm, cpu, VCPU_EV_INIT);
}

static void start(void *opaque, unsigned cpu, uint8_t vector)
{
	struct vm *vm = opaque;
	struct vm_cpu *c = &vm->cpu[cpu];

	if (cpu >= vm->ncpus || (c->startup != VM_CPU_INIT && c->startup != VM_CPU_WAITS))
		return;
	/* Between INIT and this the CPU may not have got round to resetting itself: it does that on its way. */
	c->start_vector = vector;
	c->startup = VM_CPU_STARTS;
	post(vm, cpu, VCPU_EV_INIT);
}

const struct lapic_cpu_ops vm_lapic_cpu_ops = {.current = current, .nmi = nmi, .init = init, .start = start};

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

	return cpu < vm->ncpus && vm->vcpu[cpu] ? tsc + vm->vcpu[cpu]->tsc_offset : tsc;
}

void vm_io_glue(struct vm *vm)
{
	vm->io.vm = vm;
	vm->io.kick = kick;
	vm->io.wake_timers = vm_wake_timers;
	vm->io.request = request;
	vm->io.now = now_ns;
	vm->io.guest_tsc = guest_tsc;
}

void vm_notify(struct vm *vm)
{
	uint64_t one = 1;
	ssize_t n = write(vm->notify_fd, &one, sizeof(one));

	(void)n; /* EAGAIN: it is pending already */
}
