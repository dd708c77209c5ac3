/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The translator's demands on the host: guest code is executed as it is, so the host must have what the guest is shown, and the
 * flat tables hang off FS and GS, so programs must be allowed to write their bases. (A file of its own: <elf.h> behind
 * <sys/auxv.h> and the page-fault bits of x86/arch.h share names.)
 */
#include "engine/bt/probe.h"

#include <asm/hwcap2.h>
#include <stdio.h>
#include <sys/auxv.h>

bool bt_probe(char *why, size_t size)
{
	if (!__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("bmi2")) {
		snprintf(why, size, "needs a host CPU with AVX2 and BMI2 (x86-64-v3)");
		return false;
	}
	if (!(getauxval(AT_HWCAP2) & HWCAP2_FSGSBASE)) {
		snprintf(why, size, "needs a kernel that lets programs write the FS and GS bases (Linux 5.9 or newer)");
		return false;
	}
	snprintf(why, size, "needs nothing but an ordinary process");
	return true;
}
