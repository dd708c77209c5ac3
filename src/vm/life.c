/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Life of a machine: requests from any thread, carried out by the vCPU thread (life.h has the states).
 *
 * Locking: life.lock protects the request flags. It nests inside io.lock (devices request power-off and reset while
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

/* After a flag changed: gets the vCPU thread out of the engine, out of HLT, or out of a pause. Lock held. */
static void wake(struct vm *vm)
{
	pthread_cond_broadcast(&vm->life.changed);
	if (vm->v)
		vcpu_post(vm->v, VCPU_EV_STOP);
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
	/* The main thread limits how long the vCPU thread may take to notice. */
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

/* Machine time stands still from before the wait until after it, and the guest's TSC with it. */
static void stand_still(struct vm *vm)
{
	struct life *l = &vm->life;

	pthread_mutex_unlock(&l->lock);
	pthread_mutex_lock(&vm->io.lock);
	vm_clock_pause(&vm->clock);
	vm_timers_disarm(vm);
	pthread_mutex_unlock(&vm->io.lock);
	pthread_mutex_lock(&l->lock);
	l->paused = true;
	while (l->pause && !l->stop && !l->dump)
		pthread_cond_wait(&l->changed, &l->lock);
	l->paused = false;
	pthread_mutex_unlock(&l->lock);
	pthread_mutex_lock(&vm->io.lock);
	vm->v->tsc_offset -= vm_clock_resume(&vm->clock);
	vm_timers_arm(vm);
	pthread_mutex_unlock(&vm->io.lock);
	pthread_mutex_lock(&l->lock);
}

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

bool life_serve(struct vm *vm)
{
	struct life *l = &vm->life;

	pthread_mutex_lock(&l->lock);
	while (!l->stop && (l->reset || l->pause || l->dump)) {
		if (l->dump) {
			l->dump = false;
			pthread_mutex_unlock(&l->lock);
			vcpu_dump(vm->v, STDERR_FILENO);
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
	pthread_mutex_unlock(&l->lock);
	return !life_stopping(vm);
}
