/* SPDX-License-Identifier: Apache-2.0 */
/* Several processors in the long64 environment: see smp.c. */
#ifndef GUEST_SMP_H
#define GUEST_SMP_H

#include "guest.h"

#define SMP_MAX 16

struct smp_cpu {
	volatile u32 apic_id;
	volatile bool online;
	void (*volatile fn)(void *arg);
	void *volatile arg;
} __attribute__((aligned(64)));
extern struct smp_cpu smp_cpu[SMP_MAX];
extern unsigned smp_count;

/* INIT and start-up messages to all others; the number of processors that run afterwards. */
unsigned smp_start(void);
/* Has another processor run fn(arg); smp_join() waits until it is done. */
void smp_run(unsigned cpu, void (*fn)(void *arg), void *arg);
void smp_join(unsigned cpu);
/* On all of them, this one too; returns when all are done. */
void smp_run_all(void (*fn)(void *arg), void *arg);
unsigned smp_self(void);
/* Writes the interrupt command register and waits until it has been sent. */
void smp_ipi(u32 dest, u32 icr);
void smp_delay_us(u64 us);

struct smp_barrier { volatile u32 arrived, round; };
void smp_barrier(struct smp_barrier *b, unsigned n);

#endif
