/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The translator's demands on the host: guest code is executed as it is, so the host must have what the guest is shown, and
 * the checks of memory accesses use BMI2. Nothing is asked of the host's kernel.
 */
#include "engine/bt/probe.h"

#include <stdio.h>

bool bt_probe(char *why, size_t size)
{
	if (!__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("bmi2")) {
		snprintf(why, size, "needs a host CPU with AVX2 and BMI2 (x86-64-v3)");
		return false;
	}
	snprintf(why, size, "needs nothing but an ordinary process");
	return true;
}
