/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Local APICs of all CPUs (xAPIC and x2APIC). Registers itself as io->lapic. All calls with io->lock held.
 */
#ifndef DEV_PLATFORM_LAPIC_H
#define DEV_PLATFORM_LAPIC_H

#include "io/io.h"

/* Messages to processors that are not interrupts. Any member may be NULL (the message is then lost). vm is io->vm. */
struct lapic_cpu_ops {
	unsigned (*current)(void *vm); /* the CPU whose MMIO access is being served; NULL: CPU 0 */
	void (*nmi)(void *vm, unsigned cpu);
	void (*init)(void *vm, unsigned cpu); /* INIT: reset, wait for SIPI (the BSP starts at its reset vector) */
	void (*start)(void *vm, unsigned cpu, uint8_t vector); /* SIPI; obeyed in wait-for-SIPI only: vm/ tracks it */
};

struct lapic_config {
	unsigned ncpus;                      /* APIC ID = CPU index */
	const struct lapic_cpu_ops *cpus;    /* may be NULL */
};

#define LAPIC_DEFAULT_BASE 0xfee00000ull
#define LAPIC_MAX_CPUS 255

extern const struct device_class lapic_class;

/* The 8259's INTR output, wired to LINT0 of every CPU. */
void lapic_lint0(void *dev, bool level);
/* A pulse on the NMI line, wired to LINT1 of every CPU. */
void lapic_lint1(void *dev);
/* Called for every EOI of a level-triggered vector (broadcast to I/O APICs; there is one). */
void lapic_set_eoi_listener(void *dev, void (*eoi)(void *opaque, uint8_t vector), void *opaque);

#endif
