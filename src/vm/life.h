/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A machine's life: running, paused, being reset, ended.
 *
 *             pause                        request reset (not --no-reboot)
 *   RUNNING <-------> PAUSED      RUNNING ---------------------------------> RUNNING (from power-on state)
 *      |  resume        |
 *      +------ stop ----+----> ENDED (status, reason)
 *
 * Any thread makes requests; the vCPU thread carries them out in life_serve(), when the engine has returned EXIT_STOP. The first
 * stop decides the status.
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
	bool paused;                     /* the vCPU thread stands still */
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

/* vCPU thread, outside the engine: carries out what was requested. False: the machine has ended. */
bool life_serve(struct vm *vm);

#endif
