/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Model-specific registers: one table, plus a short cut for those that system calls and context switches write.
 *
 * Invariant: a register that is not in the table does not exist: #GP(0), logged once per machine.
 * Locking: none; the vCPU's thread.
 * Spec: SDM vol. 4 chapter 2; APM vol. 2 appendix A; vol. 3A 11.11 (MTRRs), 11.12 (PAT).
 */
#include "base/log.h"
#include "cpu/private.h"

enum msr_kind {
	MSR_FIELD,      /* a field of struct vcpu; bits outside `arg` fault */
	MSR_CANON,      /* a field holding a canonical address */
	MSR_CONST,      /* reads `arg`; writes fault */
	MSR_IGNORE,     /* reads `arg`; writes have no effect */
	MSR_FN,         /* special: read_special(), write_special() */
	MSR_APIC,       /* belongs to the local APIC */
	MSR_PVCLOCK,    /* field read back; writes go to pvclock.c */
};
enum { VENDOR_ANY, VENDOR_INTEL, VENDOR_AMD };

struct msr_row {
	uint32_t first, last;
	uint8_t kind, vendor;
	uint16_t off;           /* of the field of `first`; the following ones are 8 bytes apart */
	uint64_t arg;
};

#define F(m) offsetof(struct vcpu, m)
#define ONE(n) n, n

#define MSR_TSC 0x10
#define MSR_TSC_ADJUST 0x3b
#define MSR_PAT 0x277
#define MSR_MTRR_DEF 0x2ff
#define MSR_EFER 0xc0000080
#define MSR_KVM_STEAL 0x4b564d03
#define MSR_FS_BASE 0xc0000100
#define MSR_GS_BASE 0xc0000101
#define MSR_KERNEL_GS_BASE 0xc0000102

/* RDCL_NO IBRS_ALL SKIP_L1DFL SSB_NO MDS_NO PSCHANGE_MC_NO TAA_NO SBDR_SSDP_NO FBSDP_NO PSDP_NO BHI_NO PBRSB_NO GDS_NO RFDS_NO
 * ITS_NO */
#define ARCH_CAPS                                                                                                      \
	(BIT(0) | BIT(1) | BIT(3) | BIT(4) | BIT(5) | BIT(6) | BIT(8) | BIT(13) | BIT(14) | BIT(15) | BIT(20) |        \
	 BIT(24) | BIT(26) | BIT(27) | BIT(62))

/* Sorted by number. */
static const struct msr_row msr_table[] = {
	{ 0x0, 0x1, MSR_IGNORE, VENDOR_ANY, 0, 0 },                       /* P5_MC_ADDR, P5_MC_TYPE */
	{ ONE(MSR_TSC), MSR_FN, VENDOR_ANY, 0, 0 },
	{ ONE(0x11), MSR_PVCLOCK, VENDOR_ANY, F(kvm_wall_clock), 0 },
	{ ONE(0x12), MSR_PVCLOCK, VENDOR_ANY, F(kvm_system_time), 0 },
	{ ONE(0x17), MSR_CONST, VENDOR_ANY, 0, 0 },                       /* PLATFORM_ID */
	{ ONE(0x1b), MSR_APIC, VENDOR_ANY, 0, 0 },                        /* APIC_BASE */
	{ ONE(0x2a), MSR_IGNORE, VENDOR_ANY, 0, 0 },                      /* EBL_CR_POWERON */
	{ ONE(0x34), MSR_CONST, VENDOR_ANY, 0, 0 },                       /* SMI_COUNT */
	{ ONE(0x3a), MSR_CONST, VENDOR_INTEL, 0, 1 },                     /* FEATURE_CONTROL: locked, no VMX */
	{ ONE(MSR_TSC_ADJUST), MSR_FN, VENDOR_ANY, 0, 0 },
	{ ONE(0x48), MSR_FIELD, VENDOR_INTEL, F(msr_spec_ctrl), 0x447 },  /* SPEC_CTRL: IBRS STIBP SSBD RRSBA_DIS_S BHI_DIS_S */
	{ ONE(0x49), MSR_IGNORE, VENDOR_ANY, 0, 0 },                      /* PRED_CMD */
	{ ONE(0x79), MSR_IGNORE, VENDOR_ANY, 0, 0 },                      /* BIOS_UPDT_TRIG */
	{ ONE(0x8b), MSR_IGNORE, VENDOR_INTEL, 0, 0xffffffffull << 32 },  /* BIOS_SIGN_ID: newest thinkable microcode */
	{ ONE(0x8b), MSR_IGNORE, VENDOR_AMD, 0, 0x0fffffff },             /* PATCH_LEVEL */
	{ ONE(0x9b), MSR_IGNORE, VENDOR_INTEL, 0, 0 },                    /* SMM_MONITOR_CTL */
	{ ONE(0xcd), MSR_CONST, VENDOR_INTEL, 0, 3 },                     /* FSB_FREQ */
	{ ONE(0xce), MSR_CONST, VENDOR_INTEL, 0, 0 },                     /* PLATFORM_INFO: no CPUID faulting */
	{ ONE(0xfe), MSR_CONST, VENDOR_ANY, 0, 0x508 },                   /* MTRRCAP: WC, fixed, 8 variable */
	{ ONE(0x10a), MSR_CONST, VENDOR_INTEL, 0, ARCH_CAPS },
	{ ONE(0x10b), MSR_IGNORE, VENDOR_INTEL, 0, 0 },                   /* FLUSH_CMD */
	{ ONE(0x11e), MSR_IGNORE, VENDOR_INTEL, 0, 0xbe702111 },          /* BBL_CR_CTL3 */
	{ ONE(0x140), MSR_IGNORE, VENDOR_INTEL, 0, 0 },                   /* MISC_FEATURES_ENABLES: Linux writes 0 unasked */
	{ ONE(0x174), MSR_FIELD, VENDOR_ANY, F(msr_sysenter_cs), 0xffffffff },
	{ ONE(0x175), MSR_CANON, VENDOR_ANY, F(msr_sysenter_esp), 0 },
	{ ONE(0x176), MSR_CANON, VENDOR_ANY, F(msr_sysenter_eip), 0 },
	{ ONE(0x179), MSR_CONST, VENDOR_ANY, 0, 0 },                      /* MCG_CAP: no banks */
	{ ONE(0x17a), MSR_IGNORE, VENDOR_ANY, 0, 0 },                     /* MCG_STATUS */
	{ ONE(0x198), MSR_CONST, VENDOR_INTEL, 0, 0 },                    /* PERF_STATUS */
	{ ONE(0x199), MSR_IGNORE, VENDOR_INTEL, 0, 0 },                   /* PERF_CTL */
	{ ONE(0x1a0), MSR_FIELD, VENDOR_INTEL, F(msr_misc_enable), 0x1840089ull | BIT(11) | BIT(12) | BIT(22) | BIT(34) },
	{ ONE(0x1d9), MSR_FIELD, VENDOR_ANY, F(msr_debugctl), 0x3 },      /* DEBUGCTL: kept, without effect */
	{ 0x1db, 0x1de, MSR_CONST, VENDOR_ANY, 0, 0 },                    /* last branch and interrupt records */
	{ 0x200, 0x20f, MSR_FN, VENDOR_ANY, F(msr_mtrr_var), 0 },
	{ ONE(0x250), MSR_FN, VENDOR_ANY, F(msr_mtrr_fixed), 0 },
	{ 0x258, 0x259, MSR_FN, VENDOR_ANY, F(msr_mtrr_fixed[1]), 0 },
	{ 0x268, 0x26f, MSR_FN, VENDOR_ANY, F(msr_mtrr_fixed[3]), 0 },
	{ ONE(MSR_PAT), MSR_FN, VENDOR_ANY, F(msr_pat), 0 },
	{ ONE(MSR_MTRR_DEF), MSR_FN, VENDOR_ANY, F(msr_mtrr_def), 0 },
	{ ONE(0x345), MSR_CONST, VENDOR_INTEL, 0, 0 },                    /* PERF_CAPABILITIES */
	{ ONE(0x6e0), MSR_APIC, VENDOR_ANY, 0, 0 },                       /* TSC_DEADLINE */
	{ 0x800, 0x8ff, MSR_APIC, VENDOR_ANY, 0, 0 },                     /* x2APIC */
	{ 0x4b564d00, 0x4b564d00, MSR_PVCLOCK, VENDOR_ANY, F(kvm_wall_clock), 0 },
	{ 0x4b564d01, 0x4b564d01, MSR_PVCLOCK, VENDOR_ANY, F(kvm_system_time), 0 },
	{ ONE(MSR_KVM_STEAL), MSR_FN, VENDOR_ANY, F(kvm_steal_time), 0 },
	{ ONE(MSR_EFER), MSR_FN, VENDOR_ANY, 0, 0 },
	{ ONE(0xc0000081), MSR_FIELD, VENDOR_ANY, F(msr_star), ~0ull },
	{ ONE(0xc0000082), MSR_CANON, VENDOR_ANY, F(msr_lstar), 0 },
	{ ONE(0xc0000083), MSR_CANON, VENDOR_ANY, F(msr_cstar), 0 },
	{ ONE(0xc0000084), MSR_FIELD, VENDOR_ANY, F(msr_fmask), 0xffffffff },
	{ ONE(MSR_FS_BASE), MSR_CANON, VENDOR_ANY, F(seg[FS].base), 0 },
	{ ONE(MSR_GS_BASE), MSR_CANON, VENDOR_ANY, F(seg[GS].base), 0 },
	{ ONE(MSR_KERNEL_GS_BASE), MSR_CANON, VENDOR_ANY, F(msr_kernel_gs_base), 0 },
	{ ONE(0xc0000103), MSR_FIELD, VENDOR_ANY, F(msr_tsc_aux), 0xffffffff },
	{ ONE(0xc0010010), MSR_IGNORE, VENDOR_AMD, 0, 0 },                /* SYSCFG */
	{ ONE(0xc0010015), MSR_IGNORE, VENDOR_AMD, 0, BIT(24) },          /* HWCR: TSC counts at the P0 rate */
	{ 0xc0010016, 0xc0010019, MSR_IGNORE, VENDOR_AMD, 0, 0 },         /* IORRs */
	{ ONE(0xc001001a), MSR_IGNORE, VENDOR_AMD, 0, 0 },                /* TOP_MEM */
	{ ONE(0xc001001d), MSR_IGNORE, VENDOR_AMD, 0, 0 },                /* TOP_MEM2 */
	{ ONE(0xc001001f), MSR_IGNORE, VENDOR_AMD, 0, 0 },                /* NB_CFG */
	{ ONE(0xc0010055), MSR_IGNORE, VENDOR_AMD, 0, 0 },                /* interrupt pending message: no C1E */
	{ ONE(0xc0010058), MSR_CONST, VENDOR_AMD, 0, 0 },                 /* MMIO_CONF_BASE */
	{ ONE(0xc0010114), MSR_CONST, VENDOR_AMD, 0, 0x18 },              /* VM_CR: SVM locked off */
	{ ONE(0xc0011004), MSR_IGNORE, VENDOR_AMD, 0, 0 },                /* CPUID feature overrides */
	{ ONE(0xc0011005), MSR_IGNORE, VENDOR_AMD, 0, 0 },
	{ 0xc0011020, 0xc0011023, MSR_IGNORE, VENDOR_AMD, 0, 0 },         /* LS_CFG, IC_CFG, DC_CFG, BU_CFG */
	{ ONE(0xc0011029), MSR_IGNORE, VENDOR_AMD, 0, BIT(1) },           /* DE_CFG: LFENCE is serializing */
	{ ONE(0xc001102a), MSR_IGNORE, VENDOR_AMD, 0, 0 },                /* BU_CFG2 */
	{ ONE(0xc001102e), MSR_IGNORE, VENDOR_AMD, 0, 0 },                /* BP_CFG */
};

static const struct msr_row *msr_find(const struct vcpu *v, uint32_t msr)
{
	size_t lo = 0, hi = nitems(msr_table);

	while (lo < hi) {
		size_t mid = (lo + hi) / 2;

		if (msr_table[mid].last < msr)
			lo = mid + 1;
		else
			hi = mid;
	}
	/* The vendors may give one number two meanings: adjacent rows. */
	for (; lo < nitems(msr_table) && msr_table[lo].first <= msr; lo++) {
		uint8_t vendor = msr_table[lo].vendor;

		if (vendor == VENDOR_ANY || (vendor == VENDOR_AMD) == v->vendor_amd)
			return &msr_table[lo];
	}
	return NULL;
}

static uint64_t *msr_field(struct vcpu *v, const struct msr_row *row, uint32_t msr)
{
	return (uint64_t *)((char *)v + row->off) + (msr - row->first);
}

static int msr_unknown(struct vcpu *v, uint32_t msr, bool write, uint64_t val)
{
	uint32_t i;

	v->stats.msr_unknown++;
	for (i = 0; i < v->nmsr_unknown && v->msr_unknown[i] != msr; i++)
		;
	if (i == v->nmsr_unknown && i < nitems(v->msr_unknown)) {
		v->msr_unknown[v->nmsr_unknown++] = msr;
		vcpu_fpu_park(v);
		if (write)
			log_info("guest wrote unknown MSR %#x = %#llx: #GP", msr, (unsigned long long)val);
		else
			log_info("guest read unknown MSR %#x: #GP", msr);
	}
	return cpu_gp0(v);
}

/* --- TSC -------------------------------------------------------------------------------------------------------- */

uint64_t cpu_rdtsc(struct vcpu *v)
{
	return __builtin_ia32_rdtsc() + v->tsc_offset;
}

/* TSC and TSC_ADJUST move together (SDM vol. 3B 17.17.3). */
static void tsc_move(struct vcpu *v, uint64_t delta)
{
	v->tsc_offset += delta;
	v->msr_tsc_adjust += delta;
	cpu_pvclock_update(v);
}

/* --- memory types, EFER ----------------------------------------------------------------------------------------- */

/* Eight memory types, a byte each: UC WC WT WP WB, and in PAT also UC-. */
static bool types_valid(uint64_t val, bool pat)
{
	const unsigned valid = pat ? 0xf3 : 0x73;

	for (unsigned i = 0; i < 64; i += 8)
		if ((val >> i & 0xff) > 7 || !(valid >> (val >> i & 7) & 1))
			return false;
	return true;
}

static bool mtrr_valid(uint32_t msr, uint64_t val)
{
	if (msr == MSR_MTRR_DEF)
		return !(val & ~0xcffull) && types_valid(val & 0xff, false);
	if (msr >= 0x250)
		return types_valid(val, false);
	if (val >> X86_PHYS_BITS)
		return false;
	return msr & 1 ? !(val & 0x7ff) : !(val & 0xf00) && types_valid(val & 0xff, false);
}

static int write_efer(struct vcpu *v, uint64_t val)
{
	uint64_t allowed = EFER_SCE | EFER_LME | EFER_LMA | EFER_NXE | (v->vendor_amd ? BIT(21) /* AutoIBRS */ : 0);

	if (val & ~allowed)
		return cpu_gp0(v);
	if (((val ^ v->efer) & EFER_LME) && (v->cr0 & CR0_PG))
		return cpu_gp0(v);
	v->efer = (val & ~EFER_LMA) | (v->efer & EFER_LMA);
	cpu_sync_mmu(v, false);
	return 0;
}

static int write_special(struct vcpu *v, const struct msr_row *row, uint32_t msr, uint64_t val)
{
	switch (msr) {
	case MSR_TSC:
		tsc_move(v, val - cpu_rdtsc(v));
		return 0;
	case MSR_TSC_ADJUST:
		tsc_move(v, val - v->msr_tsc_adjust);
		return 0;
	case MSR_EFER:
		return write_efer(v, val);
	case MSR_KVM_STEAL:
		return cpu_pv_wrmsr_steal(v, val);
	case MSR_PAT:
		if (!types_valid(val, true))
			return cpu_gp0(v);
		break;
	default:
		if (!mtrr_valid(msr, val))
			return cpu_gp0(v);
		break;
	}
	*msr_field(v, row, msr) = val;
	return 0;
}

static uint64_t read_special(struct vcpu *v, const struct msr_row *row, uint32_t msr)
{
	switch (msr) {
	case MSR_TSC: return cpu_rdtsc(v);
	case MSR_TSC_ADJUST: return v->msr_tsc_adjust;
	case MSR_EFER: return v->efer;
	default: return *msr_field(v, row, msr);
	}
}

/* --- RDMSR, WRMSR ----------------------------------------------------------------------------------------------- */

static int apic_msr(struct vcpu *v, bool write, uint32_t msr, uint64_t *val)
{
	bool was = cpu_leave(v);
	int r = v->ops->apic_msr(v->vm, v->index, write, msr, val);

	cpu_return(v, was);
	return r ? cpu_gp0(v) : 0;
}

int cpu_rdmsr(struct vcpu *v, uint32_t msr, uint64_t *val)
{
	const struct msr_row *row = msr_find(v, msr);

	if (!row)
		return msr_unknown(v, msr, false, 0);
	switch ((enum msr_kind)row->kind) {
	case MSR_FIELD:
	case MSR_CANON:
	case MSR_PVCLOCK: *val = *msr_field(v, row, msr); return 0;
	case MSR_CONST:
	case MSR_IGNORE: *val = row->arg; return 0;
	case MSR_FN: *val = read_special(v, row, msr); return 0;
	case MSR_APIC: return apic_msr(v, false, msr, val);
	}
	return cpu_gp0(v);
}

/* The three bases that context switches write. */
static uint64_t *base_msr(struct vcpu *v, uint32_t msr)
{
	switch (msr) {
	case MSR_FS_BASE: return &v->seg[FS].base;
	case MSR_GS_BASE: return &v->seg[GS].base;
	case MSR_KERNEL_GS_BASE: return &v->msr_kernel_gs_base;
	default: return NULL;
	}
}

int cpu_wrmsr(struct vcpu *v, uint32_t msr, uint64_t val)
{
	uint64_t *base = base_msr(v, msr);
	const struct msr_row *row;

	if (likely(base)) {
		if (unlikely(!x86_canonical(val)))
			return cpu_gp0(v);
		*base = val;
		return 0;
	}
	row = msr_find(v, msr);
	if (!row)
		return msr_unknown(v, msr, true, val);
	switch ((enum msr_kind)row->kind) {
	case MSR_FIELD:
		if (val & ~row->arg)
			return cpu_gp0(v);
		*msr_field(v, row, msr) = val;
		return 0;
	case MSR_CANON:
		if (!x86_canonical(val))
			return cpu_gp0(v);
		*msr_field(v, row, msr) = val;
		return 0;
	case MSR_CONST: return cpu_gp0(v);
	case MSR_IGNORE: return 0;
	case MSR_FN: return write_special(v, row, msr, val);
	case MSR_APIC: return apic_msr(v, true, msr, &val);
	case MSR_PVCLOCK: return cpu_pvclock_wrmsr(v, msr, val);
	}
	return cpu_gp0(v);
}
