/* SPDX-License-Identifier: Apache-2.0 */
/* SMBIOS: what firmware tells the guest about the machine it runs on. */
#ifndef DEV_PLATFORM_SMBIOS_H
#define DEV_PLATFORM_SMBIOS_H

#include "base/types.h"

#define SMBIOS_TABLES_MAX 1024

/* What the tables tell; processors are cores of one package. */
struct smbios_config {
	unsigned ncpus;
	unsigned mhz;                  /* 0: unknown */
	uint32_t signature, features;  /* EAX and EDX of CPUID leaf 1 */
	char vendor[13], brand[49];    /* CPUID's; may be empty */
	uint64_t low_ram, high_ram;    /* bytes from 0 and from 4 GiB on */
};

/* Builds the 64-bit entry point (_SM3_) and the structures as they are to appear at guest-physical `base`, a 16-byte boundary in
 * 0xF0000-0xFFFFF. Returns the bytes used, -ENOSPC, or -EINVAL for a configuration that cannot be. */
int smbios_tables_build(uint8_t *buf, size_t cap, gpa_t base, const struct smbios_config *c);

#endif
