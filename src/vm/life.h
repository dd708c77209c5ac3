/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A machine's life: running, standing still, being reset, ended.
 *
 *             pause, hold                  request reset (not --no-reboot)
 *   RUNNING <-------------> STILL   RUNNING -------------------------------> RUNNING (from power-on state)
 *      |   resume, release   |
 *      +-------- stop -------+----> ENDED (status, reason)
 *
 * Any thread makes requests. They take effect at a rendezvous: VCPU_EV_STOP gets every vCPU thread out of its engine into
 * life_serve(), the last to arrive carries the requests out while the others stand, and all go on together. So whoever carries out, or
 * holds the machine still, may touch every vCPU's state. The first stop decides the status and needs no rendezvous.
 */
#ifndef VM_LIFE_H
#define VM_LIFE_H

#include <pthread.h>

#include "base/types.h"
#include "proto/status.h"

struct vm;

struct life {
	pthread_mutex_t lock;
	pthread_cond_t changed;
	bool stop, reset, pause, dump;   /* requests */
	unsigned holds;                  /* life_hold() without life_release() */
	unsigned arrived;                /* vCPU threads in the rendezvous */
	unsigned round;                  /* rendezvous completed */
	bool still;                      /* the machine stands still: clock stopped, all vCPU threads waiting */
	int status;                      /* valid with stop */
	const char *reason;              /* static text, for the statistics and the log */
	unsigned resets;
};

void life_init(struct life *l);
void life_stop(struct vm *vm, int status, const char *reason);
void life_reset(struct vm *vm);
void life_pause(struct vm *vm, bool pause);
void life_toggle_pause(struct vm *vm);
void life_dump(struct vm *vm);
bool life_stopping(struct vm *vm);

/*
 * Holds the machine still from outside the vCPU threads (a debugger, a snapshot); holds nest with each other and with pauses.
 * life_hold() asks for it and returns at once; the main thread is notified (vm_notify) when life_held() has become true, and from
 * then until life_release() the caller may read and change every vCPU, device (with io.lock) and all memory.
 */
void life_hold(struct vm *vm);
bool life_held(struct vm *vm);
void life_release(struct vm *vm);

/* vCPU thread, outside the engine, io.lock not held: takes part in the rendezvous. False: the machine has ended. */
bool life_serve(struct vm *vm);

#endif
