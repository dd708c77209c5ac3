/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Model-specific registers: the architectural ones hold what is written and reject what they must, unknown ones raise #GP(0).
 *
 * Environments: long64
 * Spec: SDM vol. 4, vol. 2 RDMSR, WRMSR.
 */
#include "guest.h"

SNIP(s_rdmsr, "rdmsr");

static void hold(u32 msr, u64 v)
{
	u64 old, now;

	CHECK_EQ(rdmsr_safe(msr, &old), VEC_NONE);
	CHECK_EQ(wrmsr_safe(msr, v), VEC_NONE);
	CHECK_EQ(rdmsr_safe(msr, &now), VEC_NONE);
	CHECK_EQ(now, v);
	wrmsr(msr, old);
}

static const u32 readable[] = { 0x10, 0x1b, 0xfe, 0x174, 0x175, 0x176, 0x179, 0x200, 0x201, 0x250, 0x258, 0x268, 0x26f, 0x277, 0x2ff,
	0xc0000080, 0xc0000081, 0xc0000082, 0xc0000083, 0xc0000084, 0xc0000100, 0xc0000101, 0xc0000102 };

int main(void)
{
	u64 v;

	for (unsigned i = 0; i < ARRAY_SIZE(readable); i++) {
		if (rdmsr_safe(readable[i], &v) != VEC_NONE) {
			printf("msr %x\n", readable[i]);
			CHECK(!"readable");
		}
	}
	hold(0x174, 0x10);
	hold(0x175, 0x12345678);
	hold(0x176, 0xffffffff81000000ull);
	hold(0xc0000081, 0x0023001000000000ull);
	hold(0xc0000082, 0xffffffff81000000ull);
	hold(0xc0000083, 0x7ffffffff000ull);
	hold(0xc0000084, 0x47700);
	hold(0xc0000100, 0x7fff00001234ull);
	hold(0xc0000101, 0xffff888000000000ull);
	hold(0xc0000102, 0xffffffffffffffffull);
	hold(0x277, 0x0007040600070406ull);
	/* write-only halves and upper register parts: RDMSR clears bits 63:32 of RAX and RDX */
	u64 a = ~0ull, d = ~0ull;
	asm volatile("rdmsr" : "+a"(a), "+d"(d) : "c"(0x277));
	CHECK_EQ((a | d) >> 32, 0);
	/* ECX alone selects */
	asm volatile(TRY("rdmsr") : "+a"(a), "+d"(d) : "c"(0xabcd00000277ull));
	EXPECT_NONE();
	/* PAT rejects reserved types */
	CHECK_MANUAL(wrmsr_safe(0x277, 2), GP);
	CHECK_MANUAL(wrmsr_safe(0x277, 0x0807040600070406ull), GP);
	wrmsr(0x277, 0x0007040600070406ull);
	/* EFER */
	CHECK_EQ(rdmsr(0xc0000080) & 0xd01, 0xd01);
	/* FMASK is 32 bits wide on both vendors; Intel #GPs on the upper half, AMD ignores it */
	if (wrmsr_safe(0xc0000084, 0xffffffffffffffffull) == VEC_NONE && !on_qemu)
		CHECK_EQ(rdmsr(0xc0000084) >> 32, 0);
	wrmsr(0xc0000084, 0);
	/* TSC: writable, TSC_ADJUST follows where it exists */
	wrmsr(0x10, 0);
	CHECK_MANUAL(rdtsc() < 1ull << 36, true);
	u64 t = rdtsc();
	CHECK(rdtsc() >= t);
	CHECK_MANUAL(rdmsr(0x10) >= t, true);
	/* unknown ones: #GP(0), registers unchanged */
	static const u32 unknown[] = { 0x9, 0x4ff, 0x2345, 0x1f000, 0x40001000, 0x80000000, 0xbfffffff, 0xc0002fff, 0xdeadbeef, 0xffffffff };
	for (unsigned i = 0; i < ARRAY_SIZE(unknown); i++) {
		a = 0x1234567811111111ull;
		d = 0x1234567822222222ull;
		asm volatile(TRY("rdmsr") : "+a"(a), "+d"(d) : "c"(unknown[i]));
		if (on_qemu)
			continue;                                  /* TCG reads 0 */
		EXPECT_FAULT(GP, 0);
		CHECK_EQ(a, 0x1234567811111111ull);
		CHECK_EQ(d, 0x1234567822222222ull);
		CHECK_EQ(wrmsr_safe(unknown[i], 0), GP);
		CHECK_EQ(exc.err, 0);
	}
	/* privilege */
	struct regs r = { .rip = USER(s_rdmsr), .cs = UCS, .ss = UDS, .rsp = USER(run_stack_top), .rflags = FL_1, .rcx = 0xc0000080 };
	run(&r);
	CHECK_EQ(r.vec, GP);
	/* RDTSC and CR4.TSD, RDTSCP's AUX, RDPMC */
	if (cpu_has(0x80000001, 3, 27)) {
		hold(0xc0000103, 0x1234);
		wrmsr(0xc0000103, 0x77);
		u32 lo, hi, aux;
		asm volatile("rdtscp" : "=a"(lo), "=d"(hi), "=c"(aux));
		CHECK_EQ(aux, 0x77);
	}
	return 0;
}
