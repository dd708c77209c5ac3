/* SPDX-License-Identifier: Apache-2.0 */
/*
 * doppel run --profile: where a machine's processor time goes. docs/design/performance.md says how to read it.
 *
 * A timer interrupts each vCPU's thread about a thousand times a second; the handler looks at the interrupted address and at what the
 * thread has marked (base/prof.h) and counts. Budget: everything is allocated before the machine runs. A machine that is not profiled has
 * vm->profile == NULL, no timer and no handler.
 */
#ifndef VM_PROFILE_H
#define VM_PROFILE_H

#include "base/types.h"

struct vm;
struct vm_cpu;

/* Sets the profile up, if the configuration asks for one; perf's map file likewise. While the machine is built, before the sandbox closes.
 * 0 or -errno. */
int vm_profile_create(struct vm *vm);
/* On a new vCPU's thread, before the sandbox closes: its timer. Samples count as halted until vm_profile_run(). 0 or -errno. */
int vm_profile_thread(struct vm_cpu *c);
/* The thread begins to run the guest; it ends. */
void vm_profile_run(struct vm_cpu *c);
void vm_profile_stop(struct vm_cpu *c);
/* Writes the report, and what is left of perf's map file. The vCPUs' threads have ended. */
void vm_profile_write(struct vm *vm);

#endif
