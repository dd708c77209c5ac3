/* SPDX-License-Identifier: Apache-2.0 */
/* 82093AA I/O APIC, 24 pins, version 20h (EOI register). Interrupt line sink; io->lapic hears it by MSI. */
#ifndef DEV_PLATFORM_IOAPIC_H
#define DEV_PLATFORM_IOAPIC_H

#include "io/io.h"

#define IOAPIC_DEFAULT_BASE 0xfec00000ull
#define IOAPIC_PINS 24

struct ioapic_config {
	uint64_t base;
	void *lapic; /* the lapic instance whose EOI broadcasts to hear; NULL in tests */
};

extern const struct device_class ioapic_class;

/* An EOI message for `vector`, as broadcast by local APICs. */
void ioapic_eoi(void *dev, uint8_t vector);

#endif
