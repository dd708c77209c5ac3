/* SPDX-License-Identifier: Apache-2.0 */
/* SMBIOS: what firmware tells the guest about the machine it runs on. */
#ifndef DEV_PLATFORM_SMBIOS_H
#define DEV_PLATFORM_SMBIOS_H

#include "base/types.h"

#define SMBIOS_TABLES_MAX 512

/* Builds the 64-bit entry point (_SM3_) and the structures as they are to appear at guest-physical `base`, a 16-byte boundary in
 * 0xF0000-0xFFFFF. Returns the bytes used or -ENOSPC. */
int smbios_tables_build(uint8_t *buf, size_t cap, gpa_t base);

#endif
