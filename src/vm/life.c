/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Life of a machine: requests from any thread, carried out at a rendezvous of the vCPU threads (life.h has the states).
 *
 * Invariant: while `still` is set, or requests are carried out, every vCPU thread waits in life_serve().
 * Locking: life.lock protects the requests. It nests inside io.lock (devices request power-off and reset while
 * they hold that) and is never held while calling anything that takes io.lock.
 */
#include "vm/life.h"

#include <unistd.h>

#include "base/log.h"
#include "vm/vm.h"

void life_init(struct life *l)
{
	*l = (struct life){.reason = "running"};
	pthread_mutex_init(&l->lock, NULL);
	pthread_cond_init(&l->changed, NULL);
}

/* After a request changed: gets the vCPU threads out of the engine, out of HLT, or out of a rendezvous. Lock held. */
static void wake(struct vm *vm)
{
	pthread_cond_broadcast(&vm->life.changed);
	for (unsigned i = 0; i < vm->ncpus; i++)
		if (vm->vcpu[i])
			vcpu_post(vm->vcpu[i], VCPU_EV_STOP);
}

void life_stop(struct vm *vm, int status, const char *reason)
{
	struct life *l = &vm->life;

	pthread_mutex_lock(&l->lock);
	if (!l->stop) {
		l->stop = true;
		l->status = status;
		l->reason = reason;
	}
	wake(vm);
	pthread_mutex_unlock(&l->lock);
	/* The main thread limits how long the vCPU threads may take to notice. */
	vm_notify(vm);
}

void life_reset(struct vm *vm)
{
	if (vm->config->flags & PROTO_F_NO_REBOOT) {
		life_stop(vm, STATUS_RESET, "reset");
		return;
	}
	pthread_mutex_lock(&vm->life.lock);
	vm->life.reset = true;
	wake(vm);
	pthread_mutex_unlock(&vm->life.lock);
}

void life_pause(struct vm *vm, bool pause)
{
	pthread_mutex_lock(&vm->life.lock);
	vm->life.pause = pause;
	wake(vm);
	pthread_mutex_unlock(&vm->life.lock);
}

void life_toggle_pause(struct vm *vm)
{
	pthread_mutex_lock(&vm->life.lock);
	vm->life.pause = !vm->life.pause;
	wake(vm);
	pthread_mutex_unlock(&vm->life.lock);
}

void life_dump(struct vm *vm)
{
	pthread_mutex_lock(&vm->life.lock);
	vm->life.dump = true;
	wake(vm);
	pthread_mutex_unlock(&vm->life.lock);
}

bool life_stopping(struct vm *vm)
{
	bool stop;

	pthread_mutex_lock(&vm->life.lock);
	stop = vm->life.stop;
	pthread_mutex_unlock(&vm->life.lock);
	return stop;
}

void life_hold(struct vm *vm)
{
	pthread_mutex_lock(&vm->life.lock);
	vm->life.holds++;
	wake(vm);
	pthread_mutex_unlock(&vm->life.lock);
}

bool life_held(struct vm *vm)
{
	bool held;

	pthread_mutex_lock(&vm->life.lock);
	held = vm->life.holds && vm->life.still;
	pthread_mutex_unlock(&vm->life.lock);
	return held;
}

void life_release(struct vm *vm)
{
	pthread_mutex_lock(&vm->life.lock);
	vm->life.holds--;
	pthread_cond_broadcast(&vm->life.changed);
	pthread_mutex_unlock(&vm->life.lock);
}

/* --- the rendezvous: on the vCPU thread that arrived last, lock held except where said ------------------------------ */

/* Machine time stands still from before the wait until after it, and the guest's TSCs with it. Holds come before other requests:
 * a holder may be in the middle of something that a dump or a reset would disturb. */
static void stand_still(struct vm *vm)
{
	struct life *l = &vm->life;
	uint64_t missed;

	pthread_mutex_unlock(&l->lock);
	pthread_mutex_lock(&vm->io.lock);
	vm_clock_pause(&vm->clock);
	vm_timers_disarm(vm);
	pthread_mutex_unlock(&vm->io.lock);
	pthread_mutex_lock(&l->lock);
	l->still = true;
	vm_notify(vm);
	while (!l->stop && (l->holds || (l->pause && !l->dump && !l->reset)))
		pthread_cond_wait(&l->changed, &l->lock);
	l->still = false;
	pthread_mutex_unlock(&l->lock);
	pthread_mutex_lock(&vm->io.lock);
	missed = vm_clock_resume(&vm->clock);
	for (unsigned i = 0; i < vm->ncpus; i++)
		vm->vcpu[i]->tsc_offset -= missed;
	vm_timers_arm(vm);
	pthread_mutex_unlock(&vm->io.lock);
	pthread_mutex_lock(&l->lock);
}

/* Called without the lock. */
static void start_over(struct vm *vm)
{
	const char *err;

	machine_reset(vm);
	err = machine_boot(vm);
	if (!err)
		return;
	log_error("%s: %s", vm->config->kernel, err);
	life_stop(vm, STATUS_START, "reboot failed");
}

static void carry_out(struct vm *vm)
{
	struct life *l = &vm->life;

	while (!l->stop && (l->reset || l->pause || l->dump || l->holds)) {
		if (l->holds) {
			stand_still(vm);
		} else if (l->dump) {
			l->dump = false;
			pthread_mutex_unlock(&l->lock);
			for (unsigned i = 0; i < vm->ncpus; i++)
				vcpu_dump(vm->vcpu[i], STDERR_FILENO);
			pthread_mutex_lock(&l->lock);
		} else if (l->reset) {
			l->reset = false;
			l->resets++;
			pthread_mutex_unlock(&l->lock);
			start_over(vm);
			pthread_mutex_lock(&l->lock);
		} else {
			stand_still(vm);
		}
	}
}

bool life_serve(struct vm *vm)
{
	struct life *l = &vm->life;
	unsigned round;
	bool stop;

	pthread_mutex_lock(&l->lock);
	round = l->round;
	/* The bit may be left from a request that a rendezvous has served already. */
	if (!l->stop && (l->reset || l->pause || l->dump || l->holds)) {
		if (++l->arrived == vm->ncpus) {
			carry_out(vm);
			l->arrived = 0;
			l->round++;
			pthread_cond_broadcast(&l->changed);
		} else {
			/* Whoever withdraws the last request before all have arrived leaves nobody waiting. */
			while (!l->stop && round == l->round && (l->reset || l->pause || l->dump || l->holds || l->arrived == vm->ncpus))
				pthread_cond_wait(&l->changed, &l->lock);
			if (!l->stop && round == l->round)
				l->arrived--;
		}
	}
	stop = l->stop;
	pthread_mutex_unlock(&l->lock);
	return !stop;
}
