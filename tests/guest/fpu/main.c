/* SPDX-License-Identifier: Apache-2.0 */
/*
 * x87/SSE/AVX state: FXSAVE and XSAVE images, XCR0 rules, CR0.TS, MXCSR, state across interrupts, exceptions and mode changes.
 *
 * Environments: long64
 * Spec: SDM vol. 1 8, 10.5, 13; vol. 2 FXSAVE, XSAVE, XRSTOR, XSETBV.
 */
#include "guest.h"

static u8 area[4096] __attribute__((aligned(64)));
static u8 area2[4096] __attribute__((aligned(64)));
static bool has_xsave, has_avx, has_avx512;

static u64 xgetbv(u32 i)
{
	u32 a, d;
	asm volatile("xgetbv" : "=a"(a), "=d"(d) : "c"(i));
	return a | (u64)d << 32;
}

static unsigned xsetbv_safe(u32 i, u64 v)
{
	asm volatile(TRY("xsetbv") : : "c"(i), "a"((u32)v), "d"((u32)(v >> 32)) : "memory");
	return (unsigned)exc.vec;
}

#define XSAVE(insn, p, mask) asm volatile(insn " (%0)" : : "r"(p), "a"((u32)(mask)), "d"((u32)((u64)(mask) >> 32)) : "memory")

static void load_pattern(void)
{
	static const u64 pat[2] = { 0x1122334455667788ull, 0x99aabbccddeeff00ull };

	asm volatile("fninit; fld1; fldpi; fldz");
	asm volatile("movdqu %0, %%xmm0; movdqa %%xmm0, %%xmm5; paddq %%xmm5, %%xmm5; movdqa %%xmm0, %%xmm15" : : "m"(pat));
}

static void test_reset_state(void)
{
	u16 cw, sw;
	u32 mxcsr;

	asm volatile("fninit; fnstcw %0; fnstsw %1" : "=m"(cw), "=m"(sw));
	CHECK_EQ(cw, 0x37f);
	CHECK_EQ(sw, 0);
	asm volatile("stmxcsr %0" : "=m"(mxcsr));
	CHECK_EQ(mxcsr, 0x1f80);
}

static void test_fxsave(void)
{
	load_pattern();
	memset(area, 0xcc, 1024);
	asm volatile("fxsave64 %0" : "=m"(area));
	CHECK_EQ(*(u16 *)area, 0x37f);
	CHECK_EQ(*(u16 *)(area + 2) >> 11 & 7, 5);            /* TOP */
	CHECK_EQ(area[4], 0xe0);                              /* abridged tags: three used */
	CHECK_EQ(*(u32 *)(area + 24), 0x1f80);
	CHECK_EQ(*(u32 *)(area + 28) & 0xffff, 0xffff);       /* MXCSR_MASK has at least these, DAZ included */
	CHECK_EQ(*(u64 *)(area + 32), 0);                     /* ST0 = 0 */
	CHECK_EQ(*(u64 *)(area + 48), 0xc90fdaa22168c235ull); /* ST1 = pi */
	CHECK_EQ(*(u16 *)(area + 56), 0x4000);
	CHECK_EQ(*(u64 *)(area + 64), 0x8000000000000000ull); /* ST2 = 1 */
	CHECK_EQ(*(u64 *)(area + 160), 0x1122334455667788ull);
	CHECK_EQ(*(u64 *)(area + 168), 0x99aabbccddeeff00ull);
	CHECK_EQ(*(u64 *)(area + 160 + 15 * 16), 0x1122334455667788ull);
	CHECK_EQ(*(u64 *)(area + 160 + 5 * 16), 0x22446688aaccef10ull);
	CHECK_EQ(area[464], 0xcc);                            /* software bytes untouched */
	CHECK_EQ(area[512], 0xcc);
	asm volatile("fninit; pxor %xmm0, %xmm0; pxor %xmm15, %xmm15");
	asm volatile("fxrstor64 %0; fxsave64 %1" : "+m"(area), "=m"(area2));
	CHECK(!memcmp(area, area2, 5) && !memcmp(area + 160, area2 + 160, 256));
	for (unsigned i = 0; i < 8; i++)
		CHECK(!memcmp(area + 32 + i * 16, area2 + 32 + i * 16, 10));
	TRYV("fxsave64 (%0)", "r"(area + 8));
	CHECK_MANUAL(exc.vec, GP);
	*(u32 *)(area + 24) = 0x10000;                        /* reserved MXCSR bit */
	TRYV("fxrstor64 (%0)", "r"(area));
	EXPECT_FAULT_MANUAL(GP, 0);
	*(u32 *)(area + 24) = 0x1f80;
	TRYV("fxrstor64 (%0)", "r"(TEST_VA));
	CHECK_EQ(exc.vec, PF);
	CHECK_EQ(exc.err, 0);
	TRYV("fxsave64 (%0)", "r"(TEST_VA));
	CHECK_EQ(exc.vec, PF);
	CHECK_EQ(exc.err, PF_W);
	CHECK_EQ(exc.rip, exc_insn);
	/* an area that crosses into an absent page */
	map_page(TEST_VA, (u64)page_alloc(), PTE_P | PTE_W);
	TRYV("fxsave64 (%0)", "r"(TEST_VA + 4096 - 256));
	CHECK_EQ(exc.vec, PF);
	CHECK_EQ(exc.cr2, TEST_VA + 4096);
	TRYV("fxrstor64 (%0)", "r"(TEST_VA + 4096 - 256));
	CHECK_EQ(exc.vec, PF);
	CHECK_EQ(exc.cr2, TEST_VA + 4096);
	asm volatile("fxrstor64 %0" : : "m"(area2));
}

static void test_xcr0(void)
{
	u32 o[4];

	TRYV("xgetbv", "c"(0));                               /* CR4.OSXSAVE = 0 */
	EXPECT_FAULT(UD, 0);
	TRYV("xsave (%0)", "r"(area), "a"(7), "d"(0));
	EXPECT_FAULT(UD, 0);
	cpuid(1, 0, o);
	CHECK_EQ(o[2] >> 27 & 1, 0);
	write_cr4(read_cr4() | BIT(18));
	cpuid(1, 0, o);
	CHECK_EQ(o[2] >> 27 & 1, 1);                          /* OSXSAVE mirrors CR4 */
	CHECK_EQ(xgetbv(0), 1);
	cpuid(0xd, 0, o);
	CHECK_EQ(o[0] & 3, 3);
	CHECK_EQ(o[1], 576);
	has_avx = o[0] & 4;
	CHECK_EQ(xsetbv_safe(0, 0), GP);                      /* x87 is not optional */
	CHECK_EQ(exc.err, 0);
	CHECK_EQ(xsetbv_safe(0, 2), GP);
	CHECK_EQ(xsetbv_safe(0, 5), GP);                      /* AVX without SSE */
	CHECK_EQ(xsetbv_safe(0, 1ull << 62 | 1), GP);
	CHECK_EQ(xsetbv_safe(1, 1), GP);
	CHECK_EQ(xgetbv(0), 1);
	CHECK_EQ(xsetbv_safe(0, 3), VEC_NONE);
	CHECK_EQ(xgetbv(0), 3);
	TRYV("xgetbv", "c"(7));
	EXPECT_FAULT(GP, 0);
	if (has_avx) {
		TRYV("vpxor %%xmm0, %%xmm0, %%xmm0", "a"(0));         /* XCR0[2] = 0 */
		EXPECT_FAULT(UD, 0);
		CHECK_EQ(xsetbv_safe(0, 7), VEC_NONE);
		TRYV("vpxor %%xmm0, %%xmm0, %%xmm0", "a"(0));
		EXPECT_NONE();
		cpuid(0xd, 0, o);
		CHECK_EQ(o[1], 832);
		cpuid(0xd, 2, o);
		CHECK_EQ(o[0], 256);
		CHECK_EQ(o[1], 576);
	}
	cpuid(0xd, 0, o);
	has_avx512 = (o[0] & 0xe0) == 0xe0 && cpu_has(7, 1, 16);
	CHECK_EQ(xsetbv_safe(0, 0x27), GP);                   /* the three of AVX-512 together, and with AVX */
	CHECK_EQ(xsetbv_safe(0, 0xe3), GP);
	if (has_avx512) {
		TRYV("vpxord %%zmm17, %%zmm17, %%zmm17", "a"(0));
		EXPECT_FAULT(UD, 0);
		TRYV("kxorw %%k1, %%k1, %%k1", "a"(0));
		EXPECT_FAULT(UD, 0);
		CHECK_EQ(xsetbv_safe(0, 0xe7), VEC_NONE);
		CHECK_EQ(xgetbv(0), 0xe7);
		cpuid(0xd, 0, o);
		CHECK_EQ(o[1], o[2]);
		TRYV("vpxord %%zmm17, %%zmm17, %%zmm17; kxorw %%k1, %%k1, %%k1", "a"(0));
		EXPECT_NONE();
	}
}

/* Elements that are not selected do not fault; what faults is precise; images carry the registers. */
static void test_avx512(void)
{
	static u32 idx[16] = { 0, 1, 2, 1024, 3 }, out[16];
	u8 *page = page_alloc(), *end;
	u64 k, off;
	u32 o[4];

	if (!has_avx512)
		return;
	for (unsigned i = 0; i < 4096; i++)
		page[i] = (u8)(i * 7 + 1);
	map_page(TEST_VA + 0x200000, (u64)page, PTE_P | PTE_W);
	end = (u8 *)TEST_VA + 0x200000 + 4096;
	asm volatile("kmovq %0, %%k1" : : "r"(0xffull));
	TRYV("vmovdqu8 (%0), %%zmm16%{%%k1%}%{z%}", "r"(end - 8));
	EXPECT_NONE();
	asm volatile("vmovdqu32 %%zmm16, %0" : "=m"(out));
	CHECK(!memcmp(out, page + 4096 - 8, 8));
	CHECK_EQ(out[2] | out[15], 0);
	TRYV("vmovdqu8 (%0), %%zmm16%{%%k1%}%{z%}", "r"(end - 7));
	EXPECT_FAULT(PF, 0);
	CHECK_EQ(exc.cr2, (u64)end);
	TRYV("vmovdqu8 %%zmm16, (%0)%{%%k1%}", "r"(end - 8));
	EXPECT_NONE();
	TRYV("vmovdqu8 %%zmm16, (%0)%{%%k1%}", "r"(end - 7));
	EXPECT_FAULT(PF, PF_W);
	CHECK_EQ(page[4096 - 7], (u8)(4089 * 7 + 1));         /* nothing was written */
	/* the lowest three elements of 16, side by side at the end of the page */
	asm volatile("vpternlogd $255, %%zmm17, %%zmm17, %%zmm17; kmovq %0, %%k2" : : "r"(0x8421ull));
	TRYV("vpcompressd %%zmm17, (%0)%{%%k2%}", "r"(end - 16));
	EXPECT_NONE();
	CHECK_EQ(*(u64 *)(page + 4088), ~0ull);
	/* a scatter that faults has stored what comes before, and says so in the mask */
	memset(page, 0, 64);
	asm volatile("vmovdqu32 %0, %%zmm18; kmovq %1, %%k3" : : "m"(idx), "r"(0x1full));
	TRYV("vpscatterdd %%zmm17, (%0,%%zmm18,4)%{%%k3%}", "r"(end - 4096));
	EXPECT_FAULT(PF, PF_W);
	CHECK_EQ(exc.cr2, (u64)end);
	asm volatile("kmovq %%k3, %0" : "=r"(k));
	CHECK_EQ(k, 0x18);
	CHECK_EQ(*(u32 *)(page + 8), ~0u);
	CHECK_EQ(*(u32 *)(page + 12), 0);
	/* and a gather likewise */
	asm volatile("kmovq %0, %%k3; vpxord %%zmm19, %%zmm19, %%zmm19" : : "r"(0x1full));
	TRYV("vpgatherdd (%0,%%zmm18,4), %%zmm19%{%%k3%}", "r"(end - 4096));
	EXPECT_FAULT(PF, 0);
	asm volatile("kmovq %%k3, %0; vmovdqu32 %%zmm19, %1" : "=r"(k), "=m"(out));
	CHECK_EQ(k, 0x18);
	CHECK_EQ(out[2], ~0u);
	CHECK_EQ(out[3], 0);
	/* aligned forms */
	TRYV("vmovdqa64 (%0), %%zmm20", "r"(end - 4096 + 32));
	EXPECT_FAULT(GP, 0);
	TRYV("vmovdqa64 (%0), %%zmm20", "r"(end - 4096 + 64));
	EXPECT_NONE();
	/* images */
	memset(area, 0, sizeof(area));
	asm volatile("kmovq %0, %%k4" : : "r"(0x123456789abcdef0ull));
	XSAVE("xsavec64", area, 0xe7);
	CHECK_EQ(*(u64 *)(area + 520), BIT(63) | 0xe7);
	cpuid(0xd, 5, o);
	XSAVE("xsave64", area2, 0xe7);
	CHECK_EQ(*(u64 *)(area2 + o[1] + 4 * 8), 0x123456789abcdef0ull);
	cpuid(0xd, 7, o);
	off = o[1];
	CHECK_EQ(*(u64 *)(area2 + off + 64), ~0ull);          /* ZMM17 */
	asm volatile("kxorq %k4, %k4, %k4; vpxord %zmm17, %zmm17, %zmm17");
	XSAVE("xrstor64", area, 0xe7);
	asm volatile("kmovq %%k4, %0; vmovdqu32 %%zmm17, %1" : "=r"(k), "=m"(out));
	CHECK_EQ(k, 0x123456789abcdef0ull);
	CHECK_EQ(out[15], ~0u);
}

SNIP(s_xsetbv, "xsetbv");

static void test_xsave(void)
{
	u64 all = has_avx ? 7 : 3;

	load_pattern();
	if (has_avx)
		asm volatile("vpcmpeqd %ymm3, %ymm3, %ymm3");
	memset(area, 0xcc, 1024);
	memset(area + 512, 0, 64);
	XSAVE("xsave64", area, all);
	CHECK_EQ(*(u64 *)(area + 512), all);                  /* XSTATE_BV */
	CHECK_EQ(*(u64 *)(area + 520), 0);                    /* XCOMP_BV */
	CHECK_EQ(*(u64 *)(area + 160), 0x1122334455667788ull);
	if (has_avx) {
		CHECK_EQ(*(u64 *)(area + 576 + 3 * 16), ~0ull);
		CHECK_EQ(*(u64 *)(area + 160 + 3 * 16 + 8), ~0ull);
	}
	/* partial save leaves the rest and updates only its bits */
	memset(area, 0xcc, 576);
	*(u64 *)(area + 512) = 4;
	memset(area + 520, 0, 56);
	XSAVE("xsave64", area, 1);
	CHECK_EQ(*(u64 *)(area + 512), 5);
	CHECK_EQ(*(u64 *)(area + 160), 0xccccccccccccccccull);
	CHECK_EQ(*(u16 *)area, 0x37f);
	/* restore: a clear bit in XSTATE_BV initializes */
	memset(area, 0, 1024);
	*(u32 *)(area + 24) = 0x1f80;
	*(u64 *)(area + 512) = 0;
	XSAVE("xrstor64", area, all);
	u64 x[2];
	asm volatile("movdqu %%xmm0, %0" : "=m"(x));
	CHECK_EQ(x[0] | x[1], 0);
	u16 sw, cw;
	asm volatile("fnstsw %0; fnstcw %1" : "=m"(sw), "=m"(cw));
	CHECK_EQ(sw, 0);
	CHECK_EQ(cw, 0x37f);
	/* only the requested components change */
	load_pattern();
	*(u64 *)(area + 512) = 0;
	XSAVE("xrstor64", area, 1);
	asm volatile("movdqu %%xmm0, %0" : "=m"(x));
	CHECK_EQ(x[0], 0x1122334455667788ull);
	/* errors */
	*(u64 *)(area + 512) = BIT(60);
	TRYV("xrstor64 (%0)", "r"(area), "a"(7), "d"(0));
	EXPECT_FAULT(GP, 0);
	*(u64 *)(area + 512) = 0;
	*(u64 *)(area + 528) = 1;                             /* reserved header bytes */
	TRYV("xrstor64 (%0)", "r"(area), "a"(7), "d"(0));
	EXPECT_FAULT_MANUAL(GP, 0);
	*(u64 *)(area + 528) = 0;
	TRYV("xsave64 (%0)", "r"(area + 32), "a"(7), "d"(0));
	EXPECT_FAULT(GP, 0);
	*(u64 *)(area + 512) = 2;
	*(u32 *)(area + 24) = 0xffff0000;
	TRYV("xrstor64 (%0)", "r"(area), "a"(7), "d"(0));
	EXPECT_FAULT_MANUAL(GP, 0);
	*(u32 *)(area + 24) = 0x1f80;
	struct regs r = { .rip = USER(s_xsetbv), .cs = UCS, .ss = UDS, .rsp = USER(run_stack_top), .rflags = FL_1, .rax = 3 };
	run(&r);
	CHECK_EQ(r.vec, GP);
	/* XSAVEOPT and XSAVEC where offered */
	u32 o[4];
	cpuid(0xd, 1, o);
	if (o[0] & 1) {
		load_pattern();
		memset(area, 0, 1024);
		XSAVE("xsaveopt64", area, all);
		CHECK_EQ(*(u64 *)(area + 512) & 3, 3);
		CHECK_EQ(*(u64 *)(area + 160), 0x1122334455667788ull);
	}
	if (o[0] & 2) {
		memset(area, 0, 1024);
		XSAVE("xsavec64", area, all);
		CHECK_EQ(*(u64 *)(area + 520), BIT(63) | all);
		CHECK_EQ(*(u64 *)(area + 160), 0x1122334455667788ull);
		asm volatile("pxor %xmm0, %xmm0");
		XSAVE("xrstor64", area, all);
		asm volatile("movdqu %%xmm0, %0" : "=m"(x));
		CHECK_EQ(x[0], 0x1122334455667788ull);
	}
}

static void test_ts(void)
{
	static const u64 v[4] = { 1, 2, 3, 4 };

	write_cr0(read_cr0() | BIT(3));
	TRYV("fld1", "a"(0));
	EXPECT_FAULT(NM, 0);
	TRYV("movdqu (%0), %%xmm1", "r"(v));
	EXPECT_FAULT(NM, 0);
	TRYV("fxsave64 (%0)", "r"(area));
	EXPECT_FAULT(NM, 0);
	TRYV("emms", "a"(0));
	EXPECT_FAULT_MANUAL(NM, 0);
	TRYV("ldmxcsr (%0)", "r"(v));
	EXPECT_FAULT_MANUAL(NM, 0);
	if (has_xsave) {
		TRYV("xsave64 (%0)", "r"(area), "a"(1), "d"(0));
		EXPECT_FAULT_MANUAL(NM, 0);
	}
	if (has_avx) {
		TRYV("vmovdqu (%0), %%ymm1", "r"(v));
		EXPECT_FAULT(NM, 0);
	}
	TRYV("movnti %%rax, (%0)", "r"(area));                /* general registers: no #NM */
	EXPECT_NONE();
	TRYV("sfence", "a"(0));
	EXPECT_NONE();
	/* #NM comes before #PF */
	TRYV("movdqu (%0), %%xmm1", "r"(TEST_VA + 0x100000));
	EXPECT_FAULT(NM, 0);
	write_cr0(read_cr0() & ~BIT(1));                      /* MP = 0: WAIT passes */
	TRYV("fwait", "a"(0));
	EXPECT_NONE();
	write_cr0(read_cr0() | BIT(1));
	asm volatile("clts");
	CHECK_EQ(read_cr0() & BIT(3), 0);
}

static void test_mxcsr(void)
{
	u32 m, one = 0x3f800000, tiny = 1, r;

	/* flags accumulate */
	m = 0x1f80;
	asm volatile("ldmxcsr %0" : : "m"(m));
	asm volatile("movd %1, %%xmm0; movd %2, %%xmm1; mulss %%xmm1, %%xmm0; movd %%xmm0, %0; stmxcsr %3"
		     : "=r"(r) : "r"(tiny), "r"(one), "m"(m) : "memory");
	CHECK_EQ(r, 1);
	CHECK_MANUAL(m & 2, 2);                               /* denormal operand */
	/* DAZ: denormals are zero */
	m = 0x1fc0;
	asm volatile("ldmxcsr %0" : : "m"(m));
	asm volatile("movd %1, %%xmm0; movd %2, %%xmm1; mulss %%xmm1, %%xmm0; movd %%xmm0, %0" : "=r"(r) : "r"(tiny), "r"(one));
	CHECK_EQ(r, 0);
	/* FTZ */
	m = 0x9f80;
	u32 small = 0x00800000, half = 0x3f000000;
	asm volatile("ldmxcsr %0" : : "m"(m));
	asm volatile("movd %1, %%xmm0; movd %2, %%xmm1; mulss %%xmm1, %%xmm0; movd %%xmm0, %0" : "=r"(r) : "r"(small), "r"(half));
	CHECK_EQ(r, 0);
	/* rounding modes: 1 + 2^-25 */
	static const u32 want[4] = { 0x3f800000, 0x3f800000, 0x3f800001, 0x3f800000 };
	for (u32 mode = 0; mode < 4; mode++) {
		u32 eps = 0x33000000;

		m = 0x1f80 | mode << 13;
		asm volatile("ldmxcsr %0" : : "m"(m));
		asm volatile("movd %1, %%xmm0; movd %2, %%xmm1; addss %%xmm1, %%xmm0; movd %%xmm0, %0" : "=r"(r) : "r"(one), "r"(eps));
		CHECK_EQ(r, want[mode]);
	}
	/* unmasked: precise #XM, destination unchanged, flag set */
	if (!on_qemu) {                                        /* TCG 7.2 raises no #XM */
		static const struct { u32 bit, a, b; const char *op; } rows[] = {
			{ 0, 0x7fa00000, 0x3f800000, "" }, { 1, 1, 0x3f800000, "" }, { 3, 0x7f000000, 0x7f000000, "" },
			{ 4, 0x00800000, 0x00800000, "" }, { 5, 0x3f800001, 0x3f800001, "" },
		};
		for (unsigned i = 0; i < ARRAY_SIZE(rows); i++) {
			m = 0x1f80 & ~(0x80u << rows[i].bit);
			asm volatile("ldmxcsr %0" : : "m"(m));
			asm volatile("movd %0, %%xmm0; movd %1, %%xmm1" : : "r"(rows[i].a), "r"(rows[i].b));
			TRYV("mulss %%xmm1, %%xmm0", "a"(0));
			EXPECT_FAULT(XM, 0);
			asm volatile("movd %%xmm0, %0; stmxcsr %1" : "=r"(r), "=m"(m));
			CHECK_EQ(r, rows[i].a);
			CHECK_EQ(m >> rows[i].bit & 1, 1);
		}
		/* CR4.OSXMMEXCPT = 0: #UD instead */
		m = 0x1f80 & ~0x200u;
		asm volatile("ldmxcsr %0" : : "m"(m));
		write_cr4(read_cr4() & ~BIT(10));
		TRYV("xorps %%xmm1, %%xmm1; movd %0, %%xmm0", "r"(one));
		TRYV("divss %%xmm1, %%xmm0", "a"(0));
		EXPECT_FAULT(UD, 0);
		write_cr4(read_cr4() | BIT(10));
	}
	m = 0x1f80;
	asm volatile("ldmxcsr %0" : : "m"(m));
}

static void test_x87(void)
{
	u16 cw = 0x37f & ~1, sw;
	double d = 0;

	/* stack overflow and underflow with IE unmasked are pending until the next waiting instruction */
	asm volatile("fninit; fldcw %0; fldz; fldz; fldz; fldz; fldz; fldz; fldz; fldz" : : "m"(cw));
	TRYV("fldz", "a"(0));
	EXPECT_NONE();
	asm volatile("fnstsw %0" : "=a"(sw));
	CHECK_MANUAL(sw & 0x2c1, 0x2c1);                         /* C1 (overflow), SF, IE, ES */
	TRYV("fldz", "a"(0));
	EXPECT_FAULT_MANUAL(MF, 0);
	TRYV("fnstsw %%ax; fnclex; fninit", "a"(0));
	EXPECT_NONE();
	cw = 0x27f;                                           /* double precision */
	asm volatile("fldcw %1; fld1; fldpi; fmulp; fstpl %0" : "=m"(d) : "m"(cw));
	u64 bits;
	memcpy(&bits, &d, 8);
	CHECK_EQ(bits >> 40, 0x400921fb54442d18ull >> 40);
	/* environment: tag word after one push */
	u32 env[7];
	asm volatile("fninit; fld1; fnstenv %0" : "=m"(env));
	CHECK_EQ(env[2] & 0xffff, 0x3fff);
	CHECK_EQ(env[1] >> 11 & 7, 7);
	/* FNSAVE initializes */
	u8 save[108];
	asm volatile("fninit; fldpi; fnsave %0; fnstsw %1" : "=m"(save), "=a"(sw));
	CHECK_EQ(sw, 0);
	asm volatile("frstor %0; fnstsw %1" : : "m"(save), "m"(sw));
	u64 st[2] = { 0 };
	asm volatile("fstpt %0" : "=m"(st));
	CHECK_EQ(st[0], 0xc90fdaa22168c235ull);
}

/* State survives interrupts, exceptions, user mode, and port and MMIO accesses in between. */
static volatile unsigned irqs;
static void on_irq(struct regs *f)
{
	(void)f;
	irqs++;
	apic_write(APIC_EOI, 0);
}

static void test_live(void)
{
	u64 x[2];
	u64 st[2] = { 0 };

	load_pattern();
	if (has_avx)
		asm volatile("vpcmpeqd %ymm7, %ymm7, %ymm7");
	if (has_avx512)
		asm volatile("vpternlogd $255, %zmm30, %zmm30, %zmm30; vpternlogd $255, %zmm7, %zmm7, %zmm7; kxnorq %k6, %k6, %k6");
	apic_enable(0xff);
	irq_handler[0x50] = on_irq;
	apic_write(APIC_LVTT, 0x20050);
	apic_write(APIC_TMICT, 200000);
	u64 end = rdtsc() + 20 * tsc_hz();                    /* of a test build on a busy host, ten take seconds */
	sti();
	while (irqs < 10 && rdtsc() < end) {
		TRYV("ud2", "a"(0));
		(void)inb(0x61);
		(void)apic_read(APIC_TMCCT);
		asm volatile("hlt");
	}
	cli();
	apic_write(APIC_TMICT, 0);
	CHECK(irqs >= 10);
	asm volatile("movdqu %%xmm15, %0; fstp %%st(0); fstpt %1" : "=m"(x), "=m"(st));
	CHECK_EQ(x[0], 0x1122334455667788ull);
	CHECK_EQ(x[1], 0x99aabbccddeeff00ull);
	CHECK_EQ(st[0], 0xc90fdaa22168c235ull);
	if (has_avx512) {
		u64 z[8], k;

		asm volatile("vmovdqu64 %%zmm30, %0; kmovq %%k6, %1" : "=m"(z), "=r"(k));
		CHECK_EQ(z[0] & z[7] & k, ~0ull);
		asm volatile("vmovdqu64 %%zmm7, %0" : "=m"(z));
		CHECK_EQ(z[7], ~0ull);
	}
	if (has_avx) {
		asm volatile("vextracti128 $1, %%ymm7, %%xmm6; movdqu %%xmm6, %0" : "=m"(x));
		CHECK_EQ(x[0] & x[1], ~0ull);
		/* a legacy SSE write keeps the upper half, a VEX one clears it */
		asm volatile("pxor %%xmm7, %%xmm7; vextracti128 $1, %%ymm7, %%xmm6; movdqu %%xmm6, %0" : "=m"(x));
		CHECK_EQ(x[0] & x[1], ~0ull);
		asm volatile("vpxor %%xmm7, %%xmm7, %%xmm7; vextracti128 $1, %%ymm7, %%xmm6; movdqu %%xmm6, %0" : "=m"(x));
		CHECK_EQ(x[0] | x[1], 0);
	}
}

int main(void)
{
	has_xsave = cpu_has(1, 2, 26);
	test_reset_state();
	test_fxsave();
	if (has_xsave) {
		test_xcr0();
		test_xsave();
		test_avx512();
	}
	test_ts();
	test_mxcsr();
	test_x87();
	test_live();
	return 0;
}
