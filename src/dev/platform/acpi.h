/* SPDX-License-Identifier: Apache-2.0 */
/*
 * ACPI fixed hardware (PM1a event and control blocks, PM timer) and the tables that describe the board.
 *
 *   base+0  PM1_STS (16)   base+2  PM1_EN (16)   base+4  PM1_CNT (16)   base+8  PM_TMR (32)
 */
#ifndef DEV_PLATFORM_ACPI_H
#define DEV_PLATFORM_ACPI_H

#include "io/io.h"

struct acpi_config {
	uint16_t base; /* 12 ports */
	uint8_t irq;   /* SCI, level-triggered */
};

extern const struct device_class acpi_class;

#define ACPI_PM_BASE 0x600
#define ACPI_PM_LEN 12
#define ACPI_SCI_IRQ 9
#define ACPI_S5_TYPE 5
#define ACPI_TIMER_HZ 3579545ull

/* The user pressed the power button. Lock held. */
void acpi_power_button(void *dev);

/* Space that is enough for acpi_tables_build() with `ncpus` processors. */
#define ACPI_TABLES_MAX(ncpus) (8192 + 16 * (size_t)(ncpus))

/* Builds RSDP, XSDT, FADT, FACS, MADT and DSDT as they are to appear at guest-physical `base` (64-byte aligned, below 4
 * GiB; FACS must be writable by the guest). virtio_mmio: how many places of that transport are in use. Returns the bytes
 * used, -ENOSPC, or -EINVAL. *rsdp: where the RSDP is. */
int acpi_tables_build(uint8_t *buf, size_t cap, gpa_t base, unsigned ncpus, unsigned virtio_mmio, gpa_t *rsdp);

#endif
