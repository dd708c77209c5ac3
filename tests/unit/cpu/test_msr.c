/* SPDX-License-Identifier: Apache-2.0 */
/* cpu/msr.c, cpu/cpuid.c, cpu/pvclock.c. */
#include "fixture.h"
#include "x86/insn.h"

static void fields(void **state)
{
	/* Register, a value it takes, a value that must fault (0 = none). */
	static const struct { uint32_t msr; uint64_t good, bad; } rows[] = {
		{ 0x174, 0x10, 0x100000000 }, { 0x175, K(8), 0x800000000000 }, { 0x176, 8, 0x800000000000 },
		{ 0x277, 0x0007040600070406, 2 }, { 0x277, 0x0007010600070106, 8 }, { 0x2ff, 0xc06, 0x1000 }, { 0x2ff, 0x806, 2 },
		{ 0x200, 0x80000006, 0x80000002 }, { 0x201, 0xff80000800, 0xffff80000800 }, { 0x20f, 0, 1 },
		{ 0x250, 0x0606060606060606, 2 }, { 0x259, 0, 0x0700000000000000 }, { 0x26f, 0x0505050505050505, 0x03 },
		{ 0x1d9, 2, 4 }, { 0xc0000081, ~0ull, 0 }, { 0xc0000082, K(1), 0x800000000000 }, { 0xc0000083, 1, 1ull << 63 },
		{ 0xc0000084, 0xffffffff, 1ull << 32 }, { 0xc0000100, K(2), 0x800000000000 }, { 0xc0000101, K(3), 1ull << 62 },
		{ 0xc0000102, 5, 0xffff7fffffffffff }, { 0xc0000103, 0x12345678, 1ull << 32 },
	};
	struct bed *b = *state;
	struct vcpu *v = b->v;
	uint64_t val;

	for (unsigned i = 0; i < nitems(rows); i++) {
		assert_int_equal(cpu_wrmsr(v, rows[i].msr, rows[i].good), 0);
		if (rows[i].bad)
			expect_fault(cpu_wrmsr(v, rows[i].msr, rows[i].bad), v, VEC_GP, 0);
		assert_int_equal(cpu_rdmsr(v, rows[i].msr, &val), 0);
		assert_int_equal(val, rows[i].good);
	}
	assert_int_equal(v->seg[FS].base, K(2));
	assert_int_equal(v->seg[GS].base, K(3));
	assert_int_equal(v->msr_mtrr_fixed[10], 0x0505050505050505);
	assert_int_equal(v->msr_mtrr_var[15], 0);
}

static void special(void **state)
{
	struct bed *b = *state;
	struct vcpu *v = b->v;
	uint64_t val, before;

	assert_int_equal(cpu_wrmsr(v, 0x10, 1ull << 40), 0);
	assert_int_equal(cpu_rdmsr(v, 0x10, &val), 0);
	assert_in_range(val - (1ull << 40), 0, 1ull << 34);
	assert_int_equal(cpu_rdmsr(v, 0x3b, &before), 0);
	assert_int_equal(cpu_wrmsr(v, 0x3b, before + (1ull << 40)), 0);
	assert_int_equal(cpu_rdmsr(v, 0x10, &val), 0);
	assert_in_range(val - (1ull << 41), 0, 1ull << 34);
	/* EFER: reserved bits, LMA is read-only. */
	expect_fault(cpu_wrmsr(v, 0xc0000080, 1 << 12), v, VEC_GP, 0);
	assert_int_equal(cpu_wrmsr(v, 0xc0000080, EFER_SCE | EFER_LMA), 0);
	assert_int_equal(v->efer, EFER_SCE);
	/* The local APIC's are handed on, faults included. */
	assert_int_equal(cpu_wrmsr(v, 0x80b, 7), 0);
	assert_int_equal(b->apic[0], 0x80b);
	assert_int_equal(b->apic[1], 7);
	assert_int_equal(cpu_rdmsr(v, 0x6e0, &val), 0);
	assert_int_equal(val, 0x6e0);
	expect_fault(cpu_rdmsr(v, 0x8ff, &val), v, VEC_GP, 0);
	/* Constants. */
	expect_fault(cpu_wrmsr(v, 0xfe, 0), v, VEC_GP, 0);
	assert_int_equal(cpu_rdmsr(v, 0x179, &val), 0);
	assert_int_equal(val, 0);
	assert_int_equal(cpu_rdmsr(v, 0x8b, &val), 0);
	assert_true(val != 0);
}

static void vendor_rows(void **state)
{
	struct bed *b = *state;
	struct vcpu *v = b->v;
	uint64_t val;

	v->vendor_amd = true;
	assert_int_equal(cpu_rdmsr(v, 0xc0010015, &val), 0);
	assert_true(val & BIT(24));
	assert_int_equal(cpu_wrmsr(v, 0xc0011029, 2), 0);
	expect_fault(cpu_rdmsr(v, 0x10a, &val), v, VEC_GP, 0);
	assert_int_equal(cpu_wrmsr(v, 0xc0000080, BIT(21)), 0);
	v->vendor_amd = false;
	expect_fault(cpu_rdmsr(v, 0xc0010015, &val), v, VEC_GP, 0);
	assert_int_equal(cpu_rdmsr(v, 0x10a, &val), 0);
	assert_true(val & 1);
	assert_int_equal(cpu_wrmsr(v, 0x48, 1), 0);
	expect_fault(cpu_wrmsr(v, 0xc0000080, BIT(21)), v, VEC_GP, 0);
}

/* Every MSR number of the usual ranges: no crash, and unknown ones fault and are remembered in a bounded table. */
static void sweep(void **state)
{
	struct bed *b = *state;
	struct vcpu *v = b->v;
	uint64_t val;
	unsigned known = 0;

	for (uint32_t base = 0; base < 3; base++)
		for (uint32_t i = 0; i < 0x2000; i++) {
			uint32_t msr = (base == 0 ? 0 : base == 1 ? 0xc0000000 : 0xc0010000) + i;

			known += !cpu_rdmsr(v, msr, &val);
			if (msr != 0xc0000080)
				cpu_wrmsr(v, msr, 0x5a5a5a5a5a5a5a5a);
		}
	assert_in_range(known, 300, 340);
	assert_int_equal(v->nmsr_unknown, nitems(v->msr_unknown));
	assert_true(v->stats.msr_unknown > 40000);
}

static void cpuid_model(void **state)
{
	struct bed *b = *state;
	struct vcpu *v = b->v;
	uint32_t r[4];

	cpu_cpuid(v, 0, 0, r);
	assert_in_range(r[0], 0xd, 0x16);
	cpu_cpuid(v, 1, 0x1234, r);                                  /* subleaf ignored */
	assert_true(r[2] & BIT(31));
	assert_true(r[2] & BIT(17));                                 /* PCID */
	assert_false(r[2] & (BIT(27) | BIT(3) | BIT(5)));            /* OSXSAVE off; MONITOR, VMX hidden */
	assert_int_equal(v->gpr[RDX], r[0]);
	v->cr4 |= CR4_OSXSAVE;
	cpu_cpuid(v, 1, 0, r);
	assert_true(r[2] & BIT(27));
	cpu_cpuid(v, 7, 0, r);
	assert_true(r[1] & BIT(7));                                  /* SMEP */
	assert_false(r[1] & (BIT(20) | BIT(11) | BIT(4) | BIT(14)));   /* SMAP RTM HLE MPX */
	assert_int_equal(!!(r[1] & BIT(16)), insn_avx512());
	assert_false(r[2] & (BIT(3) | BIT(16)));                     /* PKU, LA57 */
	cpu_cpuid(v, 7, 1, r);
	assert_int_equal(r[0] | r[1] | r[2] | r[3], 0);
	cpu_cpuid(v, 0xd, 0, r);
	assert_int_equal(r[0], insn_avx512() ? 0xe7 : 7);
	assert_int_equal(r[1], 576);
	v->fpu.xcr0 = 7;
	cpu_cpuid(v, 0xd, 0, r);
	assert_int_equal(r[1], 832);
	if (insn_avx512()) {
		v->fpu.xcr0 = 0xe7;
		cpu_cpuid(v, 0xd, 0, r);
		assert_int_equal(r[1], r[2]);
		assert_true(r[2] >= 832 + 64 + 512 + 1024 && r[2] <= VCPU_XSAVE_MAX);
		cpu_cpuid(v, 0xd, 1, r);
		assert_int_equal(r[1], 832 + 64 + 512 + 1024);       /* compacted */
		cpu_cpuid(v, 0xd, 6, r);
		assert_int_equal(r[0], 512);
	}
	cpu_cpuid(v, 0xd, 1, r);
	assert_false(r[0] & 8);                                      /* XSAVES */
	cpu_cpuid(v, 0xb, 5, r);
	assert_int_equal(r[2], 5);
	cpu_cpuid(v, 0x40000000, 0, r);
	assert_memory_equal(&r[1], "KVMKVMKVM\0\0\0", 12);
	cpu_cpuid(v, 0x80000001, 0, r);
	assert_true(r[3] & BIT(29));
	assert_false(r[2] & BIT(2));                                 /* SVM */
	cpu_cpuid(v, 0x80000008, 0, r);
	assert_int_equal(r[0] & 0xffff, 40 | 48 << 8);
	cpu_cpuid(v, 0x12345678, 0, r);
	assert_int_equal(r[0] | r[1] | r[2] | r[3], 0);
}

static void pvclock(void **state)
{
	struct bed *b = *state;
	struct vcpu *v = b->v;
	const gpa_t page = 0x30000;
	uint64_t tsc, ns;
	uint32_t mul;
	int8_t shift;

	b->now = 123456789;
	b->wall = 1700000000ull * 1000000000 + b->now + 42;
	fx_put(&b->fx, page, 4, 7);                                  /* left odd by somebody */
	assert_int_equal(cpu_wrmsr(v, 0x4b564d01, page | 1), 0);
	assert_int_equal(fx_get(&b->fx, page, 4) & 1, 0);
	assert_true(fx_get(&b->fx, page, 4) > 7);
	assert_int_equal(get64(b, page + 16), b->now);
	assert_int_equal(fx_get(&b->fx, page + 29, 1), 1);
	mul = (uint32_t)fx_get(&b->fx, page + 24, 4);
	shift = (int8_t)fx_get(&b->fx, page + 28, 1);
	assert_true(mul >> 31);
	/* A second's worth of ticks is a second. */
	tsc = v->tsc_khz * 1000;
	ns = (uint64_t)(((unsigned __int128)(shift < 0 ? tsc >> -shift : tsc << shift) * mul) >> 32);
	assert_in_range(ns, 999999990, 1000000010);
	assert_in_range(cpu_rdtsc(v) - get64(b, page + 8), 0, tsc * 10);
	assert_int_equal(cpu_wrmsr(v, 0x4b564d00, page + 64), 0);
	assert_int_equal(fx_get(&b->fx, page + 68, 4), 1700000000);
	assert_int_equal(fx_get(&b->fx, page + 72, 4), 42);
	assert_int_equal(cpu_wrmsr(v, 0x4b564d01, page), 0);         /* disabled: left alone */
	b->now = 1;
	cpu_pvclock_update(v);
	assert_int_equal(get64(b, page + 16), 123456789);
	assert_int_equal(cpu_wrmsr(v, 0x4b564d01, ~0ull), 0);        /* no memory there: nothing happens */
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		bed_test(fields), bed_test(special), bed_test(vendor_rows), bed_test(sweep), bed_test(cpuid_model), bed_test(pvclock),
	};

	return cmocka_run_group_tests_name("cpu/msr", tests, NULL, NULL);
}
