/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The CPU model: x86-64-v4, or -v3, as the host has it, with the host's vendor, family and model; one package, a core of one thread per vCPU.
 *
 * Invariant: a feature is shown only if the interpreter, the translator and the mmu implement it and, where the host
 * executes it, the host has it. The table is built once at creation: CPUID is slow on a virtualized host.
 * Locking: none; built before the vCPU runs, read-only afterwards.
 * Spec: SDM vol. 2 CPUID, vol. 4 (IA32_ARCH_CAPABILITIES in msr.c); APM vol. 3 appendix E; Linux Documentation/virt/kvm/x86/cpuid.rst.
 *
 * Guests are told that the vulnerabilities of section "speculation" of docs/design/cpu.md do not exist here, so that they do not
 * pay for mitigations that protect nothing in this machine. Automatic IBRS (AMD) or enhanced IBRS (Intel) is shown because it makes
 * Linux drop retpolines, which would defeat the translator's return prediction.
 */
#include <cpuid.h>

#include "cpu/private.h"

/* Leaf 1. */
#define F1C_ALWAYS (BIT(17) /* PCID */ | BIT(21) /* x2APIC */ | BIT(24) /* TSC deadline */ | BIT(31) /* hypervisor */)
#define F1C_HOST                                                                                                       \
	(BIT(0) /* SSE3 */ | BIT(1) /* PCLMULQDQ */ | BIT(9) /* SSSE3 */ | BIT(12) /* FMA */ | BIT(13) /* CX16 */ |    \
	 BIT(19) /* SSE4.1 */ | BIT(20) /* SSE4.2 */ | BIT(22) /* MOVBE */ | BIT(23) /* POPCNT */ | BIT(25) /* AES */ | \
	 BIT(26) /* XSAVE */ | BIT(28) /* AVX */ | BIT(29) /* F16C */ | BIT(30) /* RDRAND */)
#define F1C_OSXSAVE BIT(27)
/* FPU DE PSE TSC MSR PAE MCE CX8 APIC SEP MTRR PGE MCA CMOV PAT PSE36 CLFSH MMX FXSR SSE SSE2: every host has them. */
#define F1D_ALWAYS 0x078bfbfdull
#define F1D_HTT BIT(28) /* more than one logical CPU in the package */
/* Leaf 7. */
#define F7B_ALWAYS (BIT(0) /* FSGSBASE */ | BIT(1) /* TSC_ADJUST */ | BIT(7) /* SMEP */ | BIT(9) /* ERMS */ | BIT(10) /* INVPCID */)
#define F7B_HOST                                                                                                       \
	(BIT(3) /* BMI1 */ | BIT(5) /* AVX2 */ | BIT(8) /* BMI2 */ | BIT(18) /* RDSEED */ | BIT(19) /* ADX */ | BIT(29) /* SHA */)
#define F7C_HOST (BIT(8) /* GFNI */ | BIT(9) /* VAES */ | BIT(10) /* VPCLMULQDQ */)
/* Where the model has the state of AVX-512; the first six are what insn_avx512() asks for, or extend it. */
#define F7B_AVX512                                                                                                     \
	(BIT(16) /* F */ | BIT(17) /* DQ */ | BIT(21) /* IFMA */ | BIT(28) /* CD */ | BIT(30) /* BW */ | BIT(31) /* VL */)
#define F7C_AVX512 (BIT(1) /* VBMI */ | BIT(6) /* VBMI2 */ | BIT(11) /* VNNI */ | BIT(12) /* BITALG */ | BIT(14) /* VPOPCNTDQ */)
#define F7C_ALWAYS (BIT(2) /* UMIP */ | BIT(22) /* RDPID */)
#define F7D_ALWAYS BIT(4) /* FSRM */
#define F7D_INTEL (BIT(26) /* SPEC_CTRL */ | BIT(29) /* ARCH_CAPABILITIES */)
#define F72D_INTEL (BIT(2) /* RRSBA_CTRL */ | BIT(4) /* BHI_CTRL */)
/* Leaf 0x80000001. */
#define FX1C_HOST (BIT(0) /* LAHF */ | BIT(5) /* LZCNT */ | BIT(8) /* PREFETCHW */)
#define FX1C_AMD BIT(22) /* TOPOEXT: leaves 8000001Dh, 8000001Eh */
#define FX1C_AMD_SMP BIT(1) /* CmpLegacy: the logical CPUs are cores */
#define FX1D_ALWAYS (BIT(11) /* SYSCALL */ | BIT(20) /* NX */ | BIT(26) /* 1G pages */ | BIT(27) /* RDTSCP */ | BIT(29) /* LM */)
#define FX1D_AMD_COPY 0x0183f3fdull   /* AMD repeats these of leaf 1 EDX */
#define FX1D_AMD_HOST BIT(22)         /* MMXEXT */
/* 0x80000008 EBX: XSAVEERPTR, SSB_NO, BTC_NO. 0x80000021 EAX: LFENCE serializing, null selector clears base, automatic IBRS,
 * SRSO_NO, SRSO_USER_KERNEL_NO; ECX: TSA_SQ_NO, TSA_L1_NO. */
#define FX8B_AMD (BIT(2) | BIT(26) | BIT(29))
#define FX21A_AMD (BIT(2) | BIT(6) | BIT(8) | BIT(29) | BIT(30))
#define FX21C_AMD (BIT(1) | BIT(2))
/* KVM: CLOCKSOURCE, NOP_IO_DELAY, CLOCKSOURCE2, STEAL_TIME, CLOCKSOURCE_STABLE_BIT; between several vCPUs PV_UNHALT, PV_TLB_FLUSH,
 * PV_SEND_IPI as well. */
#define KVM_FEATURES (BIT(0) | BIT(1) | BIT(3) | BIT(5) | BIT(24))
#define KVM_FEATURES_SMP (BIT(7) | BIT(9) | BIT(11))
#define APIC_BUS_KHZ 1000000u

struct regs {
	uint32_t a, b, c, d;
};

static struct regs host(uint32_t leaf, uint32_t subleaf)
{
	struct regs r = { 0 };

	/* Returns zero above the host's last leaf, where CPUID itself repeats that last leaf on Intel. */
	__get_cpuid_count(leaf, subleaf, &r.a, &r.b, &r.c, &r.d);
	return r;
}

static void add(struct vcpu *v, uint32_t leaf, uint32_t subleaf, struct regs r)
{
	if (v->ncpuid < VCPU_CPUID_LEAVES)
		v->cpuid[v->ncpuid++] = (struct vcpu_cpuid){ leaf, subleaf, { r.a, r.b, r.c, r.d } };
}

bool cpu_vendor_amd(const struct vcpu *v)
{
	return v->vendor_amd;
}

/* Bits of an APIC ID that number the cores of the package. */
static unsigned core_bits(const struct vcpu *v)
{
	return v->count > 1 ? 32 - (unsigned)__builtin_clz(v->count - 1) : 0;
}

/* Cache descriptor of leaves 4 and 8000001Dh: 64-byte lines; the third level is the package's, the others a core's. */
static struct regs cache(const struct vcpu *v, unsigned type, unsigned level, unsigned ways, unsigned sets)
{
	unsigned sharing = level == 3 ? (1u << core_bits(v)) - 1 : 0;
	unsigned cores = v->vendor_amd ? 0 : (1u << core_bits(v)) - 1;   /* reserved on AMD */

	return (struct regs){ .a = type | level << 5 | 1u << 8 | sharing << 14 | cores << 26, .b = 63 | (ways - 1) << 22, .c = sets - 1 };
}

static void add_caches(struct vcpu *v, uint32_t leaf)
{
	add(v, leaf, 0, cache(v, 1, 1, 8, 64));                           /* 32 KiB data */
	add(v, leaf, 1, cache(v, 2, 1, 8, 64));                           /* 32 KiB code */
	add(v, leaf, 2, cache(v, 3, 2, 16, 1024));                        /* 1 MiB */
	add(v, leaf, 3, cache(v, 3, 3, 16, 16384));                       /* 16 MiB */
}

static void add_basic(struct vcpu *v)
{
	struct regs h = host(1, 0), r = { .a = h.a };

	r.b = 8u << 8 | v->count << 16 | v->index << 24;  /* CLFLUSH 64 bytes, logical CPUs, APIC id */
	r.c = (uint32_t)((h.c & F1C_HOST) | F1C_ALWAYS);
	r.d = (uint32_t)(F1D_ALWAYS | (v->count > 1 ? F1D_HTT : 0));
	add(v, 1, 0, r);
	if (!v->vendor_amd) {
		add(v, 2, 0, (struct regs){ .a = 0x00feff01 });           /* "see leaf 4" */
		add_caches(v, 4);
	}
	add(v, 6, 0, (struct regs){ .a = 4 });                            /* the APIC timer never stops */
	h = host(7, 0);
	r = (struct regs){ .a = v->vendor_amd ? 0 : 2 };
	r.b = (uint32_t)((h.b & F7B_HOST) | F7B_ALWAYS);
	r.c = (uint32_t)((h.c & F7C_HOST) | F7C_ALWAYS);
	if (v->fpu.model & VCPU_XCR0_AVX512) {
		r.b |= (uint32_t)(h.b & F7B_AVX512);
		r.c |= (uint32_t)(h.c & F7C_AVX512);
	}
	r.d = (uint32_t)(F7D_ALWAYS | (v->vendor_amd ? 0 : F7D_INTEL));
	add(v, 7, 0, r);
	if (!v->vendor_amd)
		add(v, 7, 2, (struct regs){ .d = (uint32_t)F72D_INTEL });
}

static void add_topology(struct vcpu *v, uint32_t leaf)
{
	/* One thread per core: the first level has shift 0; the second's is how far to shift for the package. */
	add(v, leaf, 0, (struct regs){ .a = 0, .b = 1, .c = 1u << 8, .d = v->index });
	add(v, leaf, 1, (struct regs){ .a = core_bits(v), .b = v->count, .c = 2u << 8 | 1, .d = v->index });
	add(v, leaf, 2, (struct regs){ .c = 2, .d = v->index });
}

static void add_xsave(struct vcpu *v)
{
	struct regs h = host(0xd, 1);

	/* EBX of the first two follows XCR0, see cpu_cpuid(). */
	add(v, 0xd, 0, (struct regs){ .a = (uint32_t)v->fpu.model, .c = cpu_xsave_size(v, v->fpu.model, false) });
	add(v, 0xd, 1, (struct regs){ .a = h.a & 7 });                    /* XSAVEOPT, XSAVEC, XGETBV(1) */
	for (uint32_t i = VCPU_XS_AVX; i < VCPU_XS_COUNT; i++)
		if (v->fpu.model & BIT(i)) {
			h = host(0xd, i);
			add(v, 0xd, i, (struct regs){ .a = h.a, .b = h.b });
		}
}

static void add_hypervisor(struct vcpu *v)
{
	/* "KVMKVMKVM" */
	add(v, 0x40000000, 0, (struct regs){ .a = 0x40000010, .b = 0x4b4d564b, .c = 0x564b4d56, .d = 0x4d });
	add(v, 0x40000001, 0, (struct regs){ .a = (uint32_t)(KVM_FEATURES | (v->count > 1 ? KVM_FEATURES_SMP : 0)) });
	add(v, 0x40000010, 0, (struct regs){ .a = (uint32_t)v->tsc_khz, .b = APIC_BUS_KHZ });
}

static void add_extended(struct vcpu *v, struct regs vendor)
{
	struct regs h = host(0x80000001, 0), r = { .a = h.a };
	bool amd = v->vendor_amd;

	vendor.a = amd ? 0x80000021 : 0x80000008;
	if (!amd)
		vendor.b = vendor.c = vendor.d = 0;
	add(v, 0x80000000, 0, vendor);
	r.c = (uint32_t)((h.c & FX1C_HOST) | (amd ? FX1C_AMD | (v->count > 1 ? FX1C_AMD_SMP : 0) : 0));
	r.d = (uint32_t)(FX1D_ALWAYS | (amd ? FX1D_AMD_COPY | (h.d & FX1D_AMD_HOST) : 0));
	add(v, 0x80000001, 0, r);
	for (uint32_t leaf = 0x80000002; leaf <= 0x80000004; leaf++)
		add(v, leaf, 0, host(leaf, 0));                           /* brand string */
	if (amd)                                                          /* 32 KiB L1, 64-entry TLBs */
		add(v, 0x80000005, 0, (struct regs){ 0xff40ff40, 0xff40ff40, 0x20080140, 0x20080140 });
	/* 1 MiB 8-way L2; AMD also 16 MiB 16-way L3. */
	add(v, 0x80000006, 0, (struct regs){ .a = amd ? 0x48006400 : 0, .b = amd ? 0x68006400 : 0, .c = 0x04006140,
					     .d = amd ? 0x00808140 : 0 });
	add(v, 0x80000007, 0, (struct regs){ .d = BIT(8) });              /* invariant TSC */
	add(v, 0x80000008, 0, (struct regs){ .a = X86_PHYS_BITS | X86_LINEAR_BITS << 8, .b = amd ? (uint32_t)FX8B_AMD : 0,
					     .c = amd ? (v->count - 1) | core_bits(v) << 12 : 0 });
	if (!amd)
		return;
	add_caches(v, 0x8000001d);
	/* Extended APIC ID; core number, one thread per core; one node. */
	add(v, 0x8000001e, 0, (struct regs){ .a = v->index, .b = v->index });
	add(v, 0x80000021, 0, (struct regs){ .a = (uint32_t)FX21A_AMD, .c = (uint32_t)FX21C_AMD });
}

void cpu_cpuid_init(struct vcpu *v)
{
	struct regs r = host(0, 0);

	/* "AuthenticAMD" and "HygonGenuine" share AMD's semantics. */
	v->vendor_amd = r.b == 0x68747541 || r.b == 0x6f677948;
	v->ncpuid = 0;
	cpu_fpu_model(v);
	r.a = v->vendor_amd ? 0xd : 0x16;
	add(v, 0, 0, r);
	add_basic(v);
	add_topology(v, 0xb);
	add_xsave(v);
	if (!v->vendor_amd) {
		/* Crystal 1 GHz (the APIC's bus clock), times tsc_khz / 10^6. */
		add(v, 0x15, 0, (struct regs){ .a = 1000000, .b = (uint32_t)v->tsc_khz, .c = 1000000000 });
		add(v, 0x16, 0, (struct regs){ .a = (uint32_t)(v->tsc_khz / 1000), .b = (uint32_t)(v->tsc_khz / 1000),
					       .c = APIC_BUS_KHZ / 1000 });
	}
	add_hypervisor(v);
	add_extended(v, host(0, 0));
}

/* Leaves that do not look at ECX answer for any subleaf. */
static bool has_subleaves(uint32_t leaf)
{
	return leaf == 4 || leaf == 7 || leaf == 0xb || leaf == 0xd || leaf == 0x8000001d;
}

void cpu_cpuid(struct vcpu *v, uint32_t leaf, uint32_t subleaf, uint32_t out[4])
{
	const struct vcpu_cpuid *hit = NULL;
	uint32_t sub = has_subleaves(leaf) ? subleaf : 0;

	for (uint32_t i = 0; i < v->ncpuid && !hit; i++)
		if (v->cpuid[i].leaf == leaf && v->cpuid[i].subleaf == sub)
			hit = &v->cpuid[i];
	for (unsigned i = 0; i < 4; i++)
		out[i] = hit ? hit->out[i] : 0;
	switch (leaf) {
	case 1:
		if (v->cr4 & CR4_OSXSAVE)
			out[2] |= (uint32_t)F1C_OSXSAVE;
		break;
	case 0xb:
		if (!hit) {
			out[2] = subleaf & 0xff;
			out[3] = v->index;
		}
		break;
	case 0xd:
		if (subleaf <= 1)
			out[1] = cpu_xsave_size(v, v->fpu.xcr0, subleaf == 1);
		break;
	default:
		break;
	}
}
