/* SPDX-License-Identifier: Apache-2.0 */
/*
 * CPUID: well-formed leaves, and every advertised feature works, every hidden one raises #UD.
 *
 * Environments: long64
 * Spec: SDM vol. 2 CPUID.
 */
#include "guest.h"

/* feature bit -> an instruction of it; with the bit clear it must be #UD, with the bit set it must run */
static void probe(bool has, const char *name)
{
	check_context = name;
	if (has)
		EXPECT_NONE();
	else
		CHECK_MANUAL(exc.vec, UD);
	check_context = NULL;
}

int main(void)
{
	u32 o[4], max, maxx, p[4];
	static u8 area[64] __attribute__((aligned(64)));

	cpuid(0, 0, o);
	max = o[0];
	CHECK(max >= 0xd && max < 0x100);
	CHECK(o[1] && o[2] && o[3]);
	cpuid(0x80000000, 0, p);
	maxx = p[0];
	CHECK(maxx >= 0x80000008 && maxx < 0x80000100);
	cpuid(1, 0, o);
	/* x87 PSE TSC MSR PAE CX8 APIC PGE CMOV PAT MMX FXSR SSE SSE2 */
	CHECK_EQ(o[3] & 0x0701a179, 0x0701a179);
	CHECK_EQ(o[2] & 0x00982201, 0x00982201);                 /* SSE3 SSSE3 CX16 SSE4.1 SSE4.2 POPCNT */
	CHECK_EQ(o[2] >> 31, 1);                                 /* hypervisor present */
	CHECK_EQ(o[1] >> 24, 0);                                 /* initial APIC ID */
	CHECK((o[1] >> 8 & 0xff) == 8);                          /* CLFLUSH line 64 */
	cpuid(0x80000001, 0, o);
	CHECK_EQ(o[3] & (BIT(29) | BIT(20) | BIT(11)), BIT(29) | BIT(20) | BIT(11));   /* LM NX SYSCALL */
	cpuid(0x80000008, 0, o);
	CHECK((o[0] & 0xff) >= 36 && (o[0] & 0xff) <= 52);
	CHECK((o[0] >> 8 & 0xff) == 48 || (o[0] >> 8 & 0xff) == 57);
	/* out of range basic leaves answer, registers' upper halves are cleared */
	u64 a = ~0ull, b = ~0ull, c = 0xffffffff00000000ull, d = ~0ull;
	asm volatile("cpuid" : "+a"(a), "+b"(b), "+c"(c), "+d"(d));
	CHECK_EQ((a | b | c | d) >> 32, 0);
	a = 0;
	c = 0xffffffffffffffffull;
	asm volatile("cpuid" : "+a"(a), "=b"(b), "+c"(c), "=d"(d));
	CHECK_EQ(a, max);
	/* every leaf is stable between two reads (besides OSXSAVE etc. nothing changes under us) */
	for (u32 l = 0; l <= max; l++) {
		cpuid(l, 0, o);
		cpuid(l, 0, p);
		CHECK(!memcmp(o, p, sizeof(o)));
	}
	/* topology leaf, if there, describes one CPU */
	if (max >= 0xb) {
		cpuid(0xb, 0, o);
		CHECK_EQ(o[3], 0);
	}
	/* the brand string is text */
	if (maxx >= 0x80000004) {
		for (u32 l = 0x80000002; l <= 0x80000004; l++) {
			cpuid(l, 0, o);
			for (unsigned i = 0; i < 16; i++) {
				u8 ch = ((u8 *)o)[i];
				CHECK(ch == 0 || (ch >= 32 && ch < 127));
			}
		}
	}
	/* features that need nothing set up */
	TRYV("popcnt %%rax, %%rax", "a"(5));
	probe(cpu_has(1, 2, 23), "popcnt");
	TRYV("movbe (%0), %%eax", "r"(area), "a"(0));
	probe(cpu_has(1, 2, 22), "movbe");
	asm volatile(TRY("rdrand %%rax") : : : "rax", "cc");
	probe(cpu_has(1, 2, 30), "rdrand");
	asm volatile(TRY("rdseed %%rax") : : : "rax", "cc");
	probe(cpu_has(7, 1, 18), "rdseed");
	asm volatile(TRY("adcx %%rax, %%rax") : : : "rax", "cc");
	probe(cpu_has(7, 1, 19), "adx");
	asm volatile(TRY("lock cmpxchg16b (%0)") : : "r"(area) : "rax", "rbx", "rcx", "rdx", "memory", "cc");
	probe(cpu_has(1, 2, 13), "cx16");
	asm volatile(TRY("rdpid %%rax") : : : "rax");
	probe(cpu_has(7, 2, 22), "rdpid");
	asm volatile(TRY("andn %%rax, %%rax, %%rax") : : : "rax", "cc");
	probe(cpu_has(7, 1, 3), "bmi1");
	asm volatile(TRY("pext %%rax, %%rax, %%rax") : : : "rax");
	probe(cpu_has(7, 1, 8), "bmi2");
	asm volatile(TRY("crc32b %%al, %%eax") : : : "rax");
	probe(cpu_has(1, 2, 20), "sse4.2");
	asm volatile(TRY("rdtscp") : : : "rax", "rdx", "rcx");
	probe(cpu_has(0x80000001, 3, 27), "rdtscp");
	asm volatile(TRY("clac"));
	probe(cpu_has(7, 1, 20), "smap");
	asm volatile(TRY("rdpkru") : : "c"(0) : "rax", "rdx");
	CHECK_EQ(exc.vec, UD);                                   /* CR4.PKE is clear in any case */
	asm volatile(TRY("xbegin 1f; 1:") : : : "rax", "memory");
	if (!cpu_has(7, 1, 11))
		CHECK_MANUAL(exc.vec, UD);
	asm volatile(TRY("monitor") : : "a"(area), "c"(0), "d"(0));
	if (!cpu_has(1, 2, 3))
		CHECK_MANUAL(exc.vec, UD);
	TRYV("vmcall", "a"(0x12345678));                         /* any answer but a dead machine */
	CHECK(exc.vec == VEC_NONE || exc.vec == UD || exc.vec == GP);
	TRYV("vmxon (%0)", "r"(area));
	CHECK_MANUAL(exc.vec, UD);
	return 0;
}
