/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Where the registers lie in the XSAVE image: as the host's processor says (SDM vol. 1 13.4.3), which is also what the guest is told.
 */
#include <cpuid.h>
#include <stdio.h>

#include "insn_test.h"

#define ST 32
#define XMM 160

static unsigned offset(unsigned component)
{
	static unsigned known[VCPU_XS_COUNT];
	unsigned a, b, c, d;

	if (!known[component]) {
		__cpuid_count(0xd, component, a, b, c, d);
		known[component] = b;
	}
	return known[component];
}

uint64_t x_components(void)
{
	return 7 | (insn_avx512() ? VCPU_XCR0_AVX512 : 0);
}

unsigned x_size(void)
{
	return insn_avx512() ? offset(VCPU_XS_HI16_ZMM) + 1024 : 832;
}

uint8_t *x_vec(uint8_t *x, unsigned reg, unsigned byte)
{
	if (reg >= 16)
		return x + offset(VCPU_XS_HI16_ZMM) + 64 * (reg - 16) + byte;
	if (byte >= 32)
		return x + offset(VCPU_XS_ZMM_HI256) + 32 * reg + byte - 32;
	return x + (byte < 16 ? XMM : offset(VCPU_XS_AVX) - 16) + 16 * reg + byte;
}

uint8_t *x_mask(uint8_t *x, unsigned reg)
{
	return x + offset(VCPU_XS_OPMASK) + 8 * reg;
}

unsigned x_parts(const struct x_part **out)
{
	static struct x_part part[4 + 8 + 16 * 3 + 16 + 8] = {
		{"fcw", 0, 2}, {"fsw", 2, 2}, {"ftw", 4, 1}, {"mxcsr", 24, 4},
	};
	static unsigned n;
	uint8_t *zero = NULL;

#define ADD(where, bytes, ...)                                                                                         \
	do {                                                                                                           \
		snprintf(part[n].name, sizeof(part[n].name), __VA_ARGS__);                                             \
		part[n].off = (unsigned)(where);                                                                       \
		part[n++].len = (bytes);                                                                               \
	} while (0)
	*out = part;
	if (n)
		return n;
	n = 4;
	for (unsigned i = 0; i < 8; i++)
		ADD(ST + 16 * i, 10, "st%u", i);
	for (unsigned i = 0; i < 16; i++) {
		ADD(XMM + 16 * i, 16, "xmm%u", i);
		ADD(offset(VCPU_XS_AVX) + 16 * i, 16, "ymh%u", i);
		if (insn_avx512())
			ADD(offset(VCPU_XS_ZMM_HI256) + 32 * i, 32, "zmh%u", i);
	}
	for (unsigned i = 0; i < 16 && insn_avx512(); i++)
		ADD(offset(VCPU_XS_HI16_ZMM) + 64 * i, 64, "zmm%u", 16 + i);
	for (unsigned i = 0; i < 8 && insn_avx512(); i++)
		ADD(x_mask(zero, i) - zero, 8, "k%u", i);
#undef ADD
	return n;
}
