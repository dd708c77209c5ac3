/* SPDX-License-Identifier: Apache-2.0 */
/* cpu/fpu.c: images compared with the host's own FXSAVE and XSAVE of the same state, header validation, #NM and #UD. */
#include "fixture.h"

#define AREA (USER + 0x100)
#define GPA_AREA (FX_DATA + 0x100)
#define AVX_OK (BIT(27) | BIT(28))

/* Known contents for every component of the parked state. */
static void fill(struct vcpu *v)
{
	uint64_t bv = 7;

	for (unsigned i = 160; i < 416; i++)
		v->fpu.area[i] = (uint8_t)(i * 7);
	for (unsigned i = 576; i < 832; i++)
		v->fpu.area[i] = (uint8_t)(i * 11);
	for (unsigned i = 0; i < 8; i++)
		for (unsigned j = 0; j < 10; j++)
			v->fpu.area[32 + 16 * i + j] = (uint8_t)(i * 10 + j + 1);
	v->fpu.area[24] = 0x80;
	v->fpu.area[25] = 0x3f;                                /* MXCSR: round up */
	v->fpu.area[4] = 0xff;                                 /* all tags valid */
	v->fpu.area[8] = 0x99;                                 /* a host FIP */
	memcpy(v->fpu.area + 512, &bv, 8);
	v->fpu_live = false;
}

static void ready(struct bed *b)
{
	bed_long(b);
	assert_int_equal(cpu_xsetbv(b->v, 0, 7), 0);
	memset(mem_frame(b->fx.m, FX_DATA >> 12, true), 0xcc, 4096);
	fill(b->v);
}

static const uint8_t *image(struct bed *b)
{
	return (const uint8_t *)mem_frame(b->fx.m, FX_DATA >> 12, false) + 0x100;
}

static void park_and_load(void **state)
{
	struct bed *b = *state;
	struct vcpu *v = b->v;
	uint8_t copy[832];
	uint32_t mxcsr;

	ready(b);
	memcpy(copy, v->fpu.area, sizeof(copy));
	vcpu_fpu_load(v);
	assert_true(v->fpu_live);
	vcpu_fpu_park(v);
	__asm__ volatile("stmxcsr %0" : "=m"(mxcsr));
	assert_int_equal(mxcsr & 0xffc0, 0x1f80);              /* the guest's rounding mode does not leak into ours */
	assert_memory_equal(v->fpu.area + 24, copy + 24, 4);
	assert_memory_equal(v->fpu.area + 32, copy + 32, 384);
	assert_memory_equal(v->fpu.area + 576, copy + 576, 256);
}

static void fxsave_fxrstor(void **state)
{
	struct bed *b = *state;
	struct vcpu *v = b->v;

	ready(b);
	assert_int_equal(cpu_xsave_op(v, XOP_FXSAVE, AREA, 0, true), 0);
	assert_memory_equal(image(b) + 32, v->fpu.area + 32, 384);
	assert_int_equal(image(b)[8], 0);                      /* FIP hidden */
	assert_int_equal(image(b)[416], 0xcc);                 /* software's bytes untouched */
	assert_int_equal(fx_get(&b->fx, GPA_AREA + 28, 4), v->mxcsr_mask);
	memset(v->fpu.area + 32, 0, 384);
	assert_int_equal(cpu_xsave_op(v, XOP_FXRSTOR, AREA, 0, true), 0);
	assert_memory_equal(image(b) + 32, v->fpu.area + 32, 384);
	fx_put(&b->fx, GPA_AREA + 24, 4, 0x10000);
	expect_fault(cpu_xsave_op(v, XOP_FXRSTOR, AREA, 0, true), v, VEC_GP, 0);
	expect_fault(cpu_xsave_op(v, XOP_FXSAVE, AREA + 8, 0, true), v, VEC_GP, 0);
	/* Outside 64-bit mode XMM8-15 are neither written nor read. */
	memset(mem_frame(b->fx.m, FX_DATA >> 12, true), 0xcc, 4096);
	v->mode = INSN_MODE_32;
	assert_int_equal(cpu_xsave_op(v, XOP_FXSAVE, AREA, 0, false), 0);
	assert_int_equal(image(b)[160 + 128], 0xcc);
}

static void xsave_components(void **state)
{
	struct bed *b = *state;
	struct vcpu *v = b->v;

	ready(b);
	put64(b, GPA_AREA + 512, 0);
	assert_int_equal(cpu_xsave_op(v, XOP_XSAVE, AREA, ~0ull, true), 0);
	assert_memory_equal(image(b) + 32, v->fpu.area + 32, 384);
	assert_memory_equal(image(b) + 576, v->fpu.area + 576, 256);
	assert_int_equal(get64(b, GPA_AREA + 512), 7);
	assert_int_equal(image(b)[520], 0xcc);                 /* XSAVE leaves XCOMP_BV */
	/* Only AVX: MXCSR goes along, x87 and SSE stay; XSTATE_BV keeps the other bits. */
	memset(mem_frame(b->fx.m, FX_DATA >> 12, true), 0xcc, 4096);
	put64(b, GPA_AREA + 512, 0xf0);                        /* bits that are not asked for stay, whatever they are */
	assert_int_equal(cpu_xsave_op(v, XOP_XSAVE, AREA, 4, true), 0);
	assert_int_equal(image(b)[0], 0xcc);
	assert_int_equal(image(b)[160], 0xcc);
	assert_memory_equal(image(b) + 24, v->fpu.area + 24, 4);
	assert_int_equal(get64(b, GPA_AREA + 512), 0xf4);
	/* XSAVEOPT skips what is in its initial state, XSAVE writes it. */
	memset(mem_frame(b->fx.m, FX_DATA >> 12, true), 0xcc, 4096);
	v->fpu.area[512] = 3;
	memset(v->fpu.area + 576, 0, 256);
	put64(b, GPA_AREA + 512, 0);
	assert_int_equal(cpu_xsave_op(v, XOP_XSAVEOPT, AREA, 7, true), 0);
	assert_int_equal(image(b)[576], 0xcc);
	assert_int_equal(get64(b, GPA_AREA + 512), 3);
	assert_int_equal(cpu_xsave_op(v, XOP_XSAVE, AREA, 7, true), 0);
	assert_int_equal(image(b)[576], 0);
	/* XSAVEC: compacted header, only components in use. */
	memset(mem_frame(b->fx.m, FX_DATA >> 12, true), 0xcc, 4096);
	assert_int_equal(cpu_xsave_op(v, XOP_XSAVEC, AREA, 7, true), 0);
	assert_int_equal(get64(b, GPA_AREA + 512), 3);
	assert_int_equal(get64(b, GPA_AREA + 520), BIT(63) | 7);
	assert_int_equal(image(b)[576], 0xcc);
	expect_fault(cpu_xsave_op(v, XOP_XSAVE, AREA + 32, 7, true), v, VEC_GP, 0);
}

static void xrstor_headers(void **state)
{
	/* XSTATE_BV, XCOMP_BV, quadword at 528, quadword at 536: faults or not. */
	static const struct { uint64_t bv, comp, q2, q3; bool ok; } rows[] = {
		{ 7, 0, 0, 0, true }, { 0, 0, 0, 0, true }, { 8, 0, 0, 0, false }, { 7, 7, 0, 0, false }, { 7, 0, 1, 0, false },
		{ 7, 0, 0, 1, true }, { 7, BIT(63) | 7, 0, 0, true }, { 7, BIT(63) | 3, 0, 0, false },
		{ 3, BIT(63) | 15, 0, 0, false }, { 3, BIT(63) | 3, 0, 1, false }, { 0, BIT(63), 0, 0, true },
	};
	struct bed *b = *state;
	struct vcpu *v = b->v;

	ready(b);
	put64(b, GPA_AREA + 512, 0);
	assert_int_equal(cpu_xsave_op(v, XOP_XSAVE, AREA, 7, true), 0);
	for (unsigned i = 0; i < nitems(rows); i++) {
		put64(b, GPA_AREA + 512, rows[i].bv);
		put64(b, GPA_AREA + 520, rows[i].comp);
		put64(b, GPA_AREA + 528, rows[i].q2);
		put64(b, GPA_AREA + 536, rows[i].q3);
		for (unsigned j = 544; j < 576; j += 8)
			put64(b, GPA_AREA + j, 0);
		if (rows[i].ok)
			assert_int_equal(cpu_xsave_op(v, XOP_XRSTOR, AREA, 7, true), 0);
		else
			expect_fault(cpu_xsave_op(v, XOP_XRSTOR, AREA, 7, true), v, VEC_GP, 0);
	}
}

/* The same XRSTOR image on the emulated and on the real instruction, with the state live. */
static void xrstor_values(void **state)
{
	struct bed *b = *state;
	struct vcpu *v = b->v;
	uint64_t val;
	uint8_t want[832];

	ready(b);
	memcpy(want, v->fpu.area, sizeof(want));
	assert_int_equal(cpu_xsave_op(v, XOP_XSAVE, AREA, 7, true), 0);
	for (unsigned j = 520; j < 576; j += 8)
		put64(b, GPA_AREA + j, 0);
	put64(b, GPA_AREA + 512, 5);                           /* SSE to its initial state, MXCSR still loaded */
	vcpu_fpu_load(v);
	assert_int_equal(cpu_xsave_op(v, XOP_XRSTOR, AREA, 7, true), 0);
	assert_true(v->fpu_live);
	assert_int_equal(cpu_xgetbv(v, 1, &val), 0);
	assert_int_equal(val, 7);                              /* MXCSR is not at its initial value: SSE counts as in use */
	vcpu_fpu_park(v);
	memset(want + 160, 0, 256);
	assert_memory_equal(v->fpu.area + 32, want + 32, 384);
	assert_memory_equal(v->fpu.area + 576, want + 576, 256);
	assert_memory_equal(v->fpu.area + 24, want + 24, 4);
	/* Compacted: MXCSR belongs to SSE. */
	put64(b, GPA_AREA + 520, BIT(63) | 7);
	assert_int_equal(cpu_xsave_op(v, XOP_XRSTOR, AREA, 7, true), 0);
	assert_int_equal(v->fpu.area[24] | v->fpu.area[25] << 8, 0x1f80);
	/* RFBM restricts what changes. */
	fill(v);
	put64(b, GPA_AREA + 520, 0);
	put64(b, GPA_AREA + 512, 0);
	assert_int_equal(cpu_xsave_op(v, XOP_XRSTOR, AREA, 1, true), 0);
	assert_int_equal(v->fpu.area[0] | v->fpu.area[1] << 8, 0x37f);
	assert_int_equal(v->fpu.area[161], (uint8_t)(161 * 7));
}

/* The same images with live registers and with parked ones, for each set of components and both forms. */
static void xrstor_live(void **state)
{
	struct bed *b = *state;
	struct vcpu *v = b->v;
	uint8_t parked[832];

	ready(b);
	assert_int_equal(cpu_xsave_op(v, XOP_XSAVE, AREA, 7, true), 0);
	for (unsigned i = 160; i < 832; i += i == 408 ? 168 : 8)
		put64(b, GPA_AREA + i, i * 0x0101010101010101ull);
	put64(b, GPA_AREA + 32, 0x8765432112345678);
	put64(b, GPA_AREA + 8, 0x1122334455667788);            /* FIP: not restored */
	fx_put(&b->fx, GPA_AREA + 24, 4, 0x5fa0);
	for (unsigned j = 520; j < 576; j += 8)
		put64(b, GPA_AREA + j, 0);
	for (unsigned k = 0; k < 2 * 8 * 8; k++) {
		unsigned mask = k & 7, bv = k >> 3 & 7;

		put64(b, GPA_AREA + 512, bv);
		put64(b, GPA_AREA + 520, k >> 6 ? BIT(63) | 7 : 0);
		fill(v);
		assert_int_equal(cpu_xsave_op(v, XOP_XRSTOR, AREA, mask, true), 0);
		vcpu_fpu_load(v);
		vcpu_fpu_park(v);
		memcpy(parked, v->fpu.area, sizeof(parked));
		fill(v);
		vcpu_fpu_load(v);
		assert_int_equal(cpu_xsave_op(v, XOP_XRSTOR, AREA, mask, true), 0);
		vcpu_fpu_park(v);
		assert_memory_equal(v->fpu.area, parked, 6);
		assert_memory_equal(v->fpu.area + 24, parked + 24, 4);
		assert_memory_equal(v->fpu.area + 32, parked + 32, 384);
		assert_memory_equal(v->fpu.area + 576, parked + 576, 256);
		assert_int_equal(v->fpu.area[512] & mask & ~bv & 5, 0);
	}
}

/* The components of AVX-512: rules of XCR0, both forms of the image, live and parked, and what 32-bit code leaves alone. */
static void avx512_xcr0(void **state)
{
	static const uint64_t bad[] = { 0xe1, 0xe3, 0xe5, 0x27, 0x47, 0x87, 0x67, 0xc7, 0xa7, 0xe6, 0x1e7, 0xf, 0xe7 | BIT(9) };
	struct bed *b = *state;
	struct vcpu *v = b->v;

	ready(b);
	for (unsigned i = 0; i < nitems(bad); i++)
		expect_fault(cpu_xsetbv(v, 0, bad[i]), v, VEC_GP, 0);
	if (!(v->fpu.model & VCPU_XCR0_AVX512)) {
		expect_fault(cpu_xsetbv(v, 0, 0xe7), v, VEC_GP, 0);
		return;
	}
	expect_fault(cpu_fpu_check(v, FPU_AVX512), v, VEC_UD, 0);
	assert_int_equal(cpu_xsetbv(v, 0, 0xe7), 0);
	assert_int_equal(cpu_fpu_check(v, FPU_AVX512), 0);
	/* What the host left in those registers while they were not the guest's does not come to light. */
	assert_int_equal(cpu_xsetbv(v, 0, 7), 0);
	vcpu_fpu_load(v);
	__asm__ volatile("vpternlogd $255, %%zmm17, %%zmm17, %%zmm17; kxnorq %%k3, %%k3, %%k3" : : : "memory");
	assert_int_equal(cpu_xsetbv(v, 0, 0xe7), 0);
	vcpu_fpu_load(v);
	vcpu_fpu_park(v);
	for (unsigned i = 0; i < 1024; i++)
		assert_int_equal(v->fpu.area[v->fpu.offset[VCPU_XS_HI16_ZMM] + i], 0);
	assert_int_equal(v->fpu.area[v->fpu.offset[VCPU_XS_OPMASK] + 24], 0);
}

static void avx512_images(void **state)
{
	struct bed *b = *state;
	struct vcpu *v = b->v;
	uint8_t *k, *hi, *hi16, want[VCPU_XSAVE_MAX];
	int ret;

	ready(b);
	if (!(v->fpu.model & VCPU_XCR0_AVX512))
		skip();
	assert_int_equal(cpu_xsetbv(v, 0, 0xe7), 0);
	k = v->fpu.area + v->fpu.offset[VCPU_XS_OPMASK];
	hi = v->fpu.area + v->fpu.offset[VCPU_XS_ZMM_HI256];
	hi16 = v->fpu.area + v->fpu.offset[VCPU_XS_HI16_ZMM];
	memset(k, 0x51, 64);
	memset(hi, 0x52, 512);
	memset(hi16, 0x53, 1024);
	v->fpu.area[512] = 0xa7;                               /* ZMM_Hi256 in its initial state */
	memset(hi, 0, 512);
	memcpy(want, v->fpu.area, sizeof(want));
	/* Between the operations libc may use the registers. */
	for (unsigned live = 0; live < 2; live++) {
		memset(mem_frame(b->fx.m, FX_DATA >> 12, true), 0, 4096);
		if (live)
			vcpu_fpu_load(v);
		ret = cpu_xsave_op(v, XOP_XSAVEC, AREA, ~0ull, true);
		vcpu_fpu_park(v);
		assert_int_equal(ret, 0);
		assert_int_equal(get64(b, GPA_AREA + 512), 0xa7);
		assert_int_equal(get64(b, GPA_AREA + 520), BIT(63) | 0xe7);
		assert_int_equal(image(b)[832], 0x51);
		assert_int_equal(image(b)[832 + 64], 0);
		assert_int_equal(image(b)[832 + 64 + 512], 0x53);
		/* Only Hi16_ZMM, in an image without the others: right behind the header. */
		memset(mem_frame(b->fx.m, FX_DATA >> 12, true), 0, 4096);
		if (live)
			vcpu_fpu_load(v);
		ret = cpu_xsave_op(v, XOP_XSAVEC, AREA, 0x80, true);
		vcpu_fpu_park(v);
		assert_int_equal(ret, 0);
		assert_int_equal(get64(b, GPA_AREA + 520), BIT(63) | 0x80);
		assert_int_equal(image(b)[576], 0x53);
		assert_int_equal(image(b)[576 + 1023], 0x53);
		assert_int_equal(image(b)[576 + 1024], 0);
		fx_put(&b->fx, GPA_AREA + 576 + 64, 4, 0x12345678); /* ZMM17 */
		if (live)
			vcpu_fpu_load(v);
		ret = cpu_xsave_op(v, XOP_XRSTOR, AREA, ~0ull, true);
		vcpu_fpu_park(v);
		assert_int_equal(ret, 0);
		assert_int_equal(v->fpu.area[512] & 0xe0, 0x80);     /* the others have become initial */
		assert_int_equal(k[0] | hi[0], 0);
		assert_int_equal(hi16[64] | hi16[65] << 8, 0x5678);
		assert_int_equal(hi16[63], 0x53);
		memcpy(v->fpu.area, want, sizeof(want));
	}
	/* Outside 64-bit mode: masks, and half of ZMM_Hi256; ZMM16-31 stay, in use. */
	memset(hi, 0x52, 512);
	v->fpu.area[512] = 0xe7;
	memset(mem_frame(b->fx.m, FX_DATA >> 12, true), 0, 4096);
	v->mode = INSN_MODE_32;
	assert_int_equal(cpu_xsave_op(v, XOP_XRSTOR, AREA, ~0ull, false), 0);
	assert_int_equal(k[0] | hi[0] | hi[255], 0);
	assert_int_equal(hi[256], 0x52);
	assert_int_equal(hi16[0], 0x53);
	assert_int_equal(v->fpu.area[512] & 0xe0, 0xc0);
}

static void availability(void **state)
{
	struct bed *b = *state;
	struct vcpu *v = b->v;

	ready(b);
	for (unsigned c = FPU_X87; c <= FPU_XSAVE; c++)
		if (c != FPU_AVX512)
			assert_int_equal(cpu_fpu_check(v, c), 0);
	v->fpu.xcr0 = v->fpu.model | VCPU_XCR0_AVX512;
	v->cr0 |= CR0_TS;
	for (unsigned c = FPU_X87; c <= FPU_XSAVE; c++) {
		if (c == FPU_WAIT)
			continue;
		expect_fault(cpu_fpu_check(v, c), v, VEC_NM, 0);
	}
	assert_int_equal(cpu_fpu_check(v, FPU_WAIT), 0);
	v->cr0 |= CR0_MP;
	expect_fault(cpu_fpu_check(v, FPU_WAIT), v, VEC_NM, 0);
	v->cr0 = (v->cr0 & ~CR0_TS) | CR0_EM;
	expect_fault(cpu_fpu_check(v, FPU_X87), v, VEC_NM, 0);
	expect_fault(cpu_fpu_check(v, FPU_MMX), v, VEC_UD, 0);
	expect_fault(cpu_fpu_check(v, FPU_SSE), v, VEC_UD, 0);
	assert_int_equal(cpu_fpu_check(v, FPU_AVX), 0);
	v->cr0 &= ~CR0_EM;
	v->fpu.xcr0 = 7;
	expect_fault(cpu_fpu_check(v, FPU_AVX512), v, VEC_UD, 0);
	v->fpu.xcr0 = 3;
	expect_fault(cpu_fpu_check(v, FPU_AVX), v, VEC_UD, 0);
	v->cr4 &= ~(CR4_OSXSAVE | CR4_OSFXSR);
	expect_fault(cpu_fpu_check(v, FPU_XSAVE), v, VEC_UD, 0);
	expect_fault(cpu_fpu_check(v, FPU_SSE), v, VEC_UD, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		bed_test(park_and_load), bed_test(fxsave_fxrstor), bed_test(xsave_components), bed_test(xrstor_headers),
		bed_test(xrstor_values), bed_test(xrstor_live), bed_test(avx512_xcr0), bed_test(avx512_images), bed_test(availability),
	};

	return cmocka_run_group_tests_name("cpu/fpu", tests, NULL, NULL);
}
