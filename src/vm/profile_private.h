/* SPDX-License-Identifier: Apache-2.0 */
/* Between profile.c, which collects, and profile_report.c, which prints. */
#ifndef VM_PROFILE_PRIVATE_H
#define VM_PROFILE_PRIVATE_H

#include <time.h>

#include "vm/profile.h"
#include "vm/symbols.h"
#include "vm/vm.h"

#define PROFILE_PERIOD_NS 997000   /* no multiple of a guest's or the host's tick */
#define PROFILE_BLOCKS 16384u      /* a power of two; guest blocks that are told apart, for each vCPU */

struct profile_block {
	gva_t addr;
	uint16_t bytes, insns;
	uint16_t kind;                 /* of engine_ops.spots */
	uint32_t samples;              /* 0: unused */
};

/* Of one vCPU; written by its thread, in the signal handler. */
struct profile_cpu {
	struct vm_profile *profile;
	struct vm_cpu *cpu;
	struct vcpu *v;
	timer_t timer;
	uint64_t samples;              /* all, halted ones included */
	uint32_t spot[ENGINE_SPOTS];
	uint32_t lost;                 /* no room in block[] */
	uint32_t *function;            /* by index of symbols; one more for what has no name */
	struct profile_block *block;
	struct prof prof;
};

#define PROFILE_SECTIONS 8
struct vm_profile {
	struct vm *vm;
	struct symbols symbols;
	struct stats_source source[PROFILE_SECTIONS];
	struct profile_cpu cpu[];      /* vm->ncpus */
};

/* profile_report.c: adds the profile's sections to the machine's statistics. */
void profile_register(struct vm_profile *p);
/* The report as text. */
void profile_print(struct vm_profile *p, int fd);

#endif
