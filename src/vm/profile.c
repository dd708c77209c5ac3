/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The sampling side of --profile: timers, the signal handler, and what it counts into. See profile.h.
 *
 * The timers run on CLOCK_MONOTONIC. Timers on a thread's processor time would be the natural choice, but the kernel looks at those at its
 * own tick only (250 a second here), and always at the same phase of it. A thread that waits takes its samples, too; they are told apart
 * by its mark (PROF_HALT). One that has been preempted takes a single one when it goes on.
 *
 * The handler runs on the thread it interrupts, whatever that does: in translated code the stack pointer is the vcpu, whose host stack
 * lies below. It takes no lock, calls nothing of the C library and touches nothing but its thread's profile_cpu; which one that is
 * comes with the signal. Compiled code of this file may use vector registers: the kernel saves and restores them around a handler.
 */
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <ucontext.h>
#include <unistd.h>

#include "base/log.h"
#include "vm/profile_private.h"

static void count_block(struct profile_cpu *c, const struct engine_spot *s)
{
	uint64_t h = (s->block ^ s->kind) * 0x9e3779b97f4a7c15ull >> 32;

	for (unsigned i = 0; i < 16; i++) {
		struct profile_block *b = &c->block[(h + i) & (PROFILE_BLOCKS - 1)];

		if (b->samples && (b->addr != s->block || b->kind != s->kind))
			continue;
		b->addr = s->block;
		b->kind = (uint16_t)s->kind;
		b->bytes = s->bytes;
		b->insns = s->insns;
		__atomic_store_n(&b->samples, b->samples + 1, __ATOMIC_RELEASE);
		return;
	}
	c->lost++;
}

static void on_sample(int sig, siginfo_t *si, void *ctx)
{
	const ucontext_t *uc = ctx;
	uintptr_t pc = (uintptr_t)uc->uc_mcontext.gregs[REG_RIP];
	const struct engine_ops *engine;
	struct engine_spot spot;
	struct profile_cpu *c;

	(void)sig;
	if (si->si_code != SI_TIMER) /* sent by a process: its value means nothing */
		return;
	c = si->si_value.sival_ptr;
	engine = c->profile->vm->engine;
	c->samples++;
	if (c->prof.activity != PROF_HALT && engine->spot && engine->spot(c->v, pc, &spot)) {
		c->spot[spot.kind]++;
		if (spot.insns)
			count_block(c, &spot);
		return;
	}
	prof_sample(&c->prof);
	if (c->prof.activity != PROF_HALT)
		c->function[symbols_find(&c->profile->symbols, pc)]++;
}

static int create_cpu(struct vm_profile *p, unsigned i)
{
	struct profile_cpu *c = &p->cpu[i];

	c->profile = p;
	c->cpu = &p->vm->cpu[i];
	c->v = p->vm->vcpu[i];
	c->function = calloc(p->symbols.n + 1, sizeof(*c->function));
	c->block = calloc(PROFILE_BLOCKS, sizeof(*c->block));
	if (!c->function || !c->block)
		return -ENOMEM;
	c->prof.activity = PROF_HALT;
	c->v->prof = c->v->mmu.prof = &c->prof;
	return 0;
}

static int create_profile(struct vm *vm)
{
	struct sigaction sa = {.sa_sigaction = on_sample, .sa_flags = SA_SIGINFO | SA_RESTART};
	int ret = 0;

	vm->profile = calloc(1, sizeof(*vm->profile) + vm->ncpus * sizeof(vm->profile->cpu[0]));
	if (!vm->profile)
		return -ENOMEM;
	vm->profile->vm = vm;
	if (symbols_load(&vm->profile->symbols) < 0)
		log_warn("the profile names no functions: doppel-vm has been stripped");
	for (unsigned i = 0; ret == 0 && i < vm->ncpus; i++)
		ret = create_cpu(vm->profile, i);
	if (ret == 0 && sigaction(SIGPROF, &sa, NULL) < 0)
		ret = -errno;
	if (ret == 0)
		profile_register(vm->profile);
	return ret;
}

int vm_profile_create(struct vm *vm)
{
	int ret = vm->config->flags & PROTO_F_PROFILE ? create_profile(vm) : 0;

	for (unsigned i = 0; ret == 0 && vm->perf_map_fd >= 0 && i < vm->ncpus; i++)
		if (vm->engine->perf_map)
			ret = vm->engine->perf_map(vm->vcpu[i], vm->perf_map_fd);
	return ret;
}

static void signal_mask(int how)
{
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGPROF);
	pthread_sigmask(how, &set, NULL);
}

int vm_profile_thread(struct vm_cpu *cpu)
{
	struct vm_profile *p = cpu->vm->profile;
	const struct timespec period = {.tv_nsec = PROFILE_PERIOD_NS};
	const struct itimerspec its = {period, period};
	struct sigevent ev = {.sigev_notify = SIGEV_THREAD_ID, .sigev_signo = SIGPROF};

	if (!p)
		return 0;
	ev.sigev_value.sival_ptr = &p->cpu[cpu->index];
	ev._sigev_un._tid = (pid_t)syscall(SYS_gettid);
	signal_mask(SIG_UNBLOCK);
	if (timer_create(CLOCK_MONOTONIC, &ev, &p->cpu[cpu->index].timer) < 0 ||
	    timer_settime(p->cpu[cpu->index].timer, 0, &its, NULL) < 0)
		return -errno;
	return 0;
}

void vm_profile_run(struct vm_cpu *cpu)
{
	if (!cpu->vm->profile)
		return;
	prof_end(cpu->vm->vcpu[cpu->index]->prof, PROF_ENGINE);
}

void vm_profile_stop(struct vm_cpu *cpu)
{
	if (cpu->vm->profile)
		signal_mask(SIG_BLOCK); /* the sealed process cannot stop the timer */
}

void vm_profile_write(struct vm *vm)
{
	for (unsigned i = 0; vm->perf_map_fd >= 0 && i < vm->ncpus; i++)
		if (vm->engine->perf_map)
			(void)vm->engine->perf_map(vm->vcpu[i], -1);
	if (vm->profile)
		profile_print(vm->profile, vm->profile_fd >= 0 ? vm->profile_fd : STDERR_FILENO);
}
