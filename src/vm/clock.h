/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Machine time: nanoseconds that stand still while the machine is paused, and the TSC's rate.
 */
#ifndef VM_CLOCK_H
#define VM_CLOCK_H

#include "base/types.h"

struct vm_clock {
	uint64_t start;          /* host ns at machine time 0, moved forward by pauses */
	uint64_t paused_at;      /* machine time at which it stands still */
	uint64_t paused_tsc;
	uint64_t pair_tsc, pair_ns;   /* one moment in the host's TSC (moved forward by pauses) and in machine time */
	bool paused;
};

void vm_clock_init(struct vm_clock *c);
/* Machine time. Any thread; changes of `start` happen while no other thread asks (vCPU parked, main arms no timer). */
uint64_t vm_clock_now(const struct vm_clock *c);
/* Host CLOCK_MONOTONIC at which machine time will be `t`. */
uint64_t vm_clock_host(const struct vm_clock *c, uint64_t t);
void vm_clock_pause(struct vm_clock *c);
/* Returns by how many host TSC ticks the guest's TSC must be set back to have stood still, too. */
uint64_t vm_clock_resume(struct vm_clock *c);
/* Rate of the host's TSC in kHz. */
uint64_t vm_clock_tsc_khz(void);
uint64_t vm_clock_wall_ns(void);

#endif
