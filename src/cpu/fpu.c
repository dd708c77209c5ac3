/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Vector state: moving it between the host's registers and the vCPU, and the instructions that save and restore all of it.
 *
 * Invariant: fpu.area holds, in the standard XSAVE format, the actual value of every component whenever it is current
 * (components in their initial state included); XSTATE_BV says which of them are in use. Its FOP, FIP and FDP are host
 * addresses and never reach the guest. MXCSR in it has no reserved bit, so XRSTOR cannot fault. Only components that the guest has
 * enabled in XCR0, and x87, SSE and AVX, are ever moved: XCR0 changes with the registers parked (cpu_xsetbv).
 * Locking: none; the vCPU's thread.
 * Spec: SDM vol. 1 10.5 (FXSAVE), 13.4-13.10 (XSAVE), vol. 3A 2.5 (CR0.TS, EM), vol. 2 the instructions.
 */
#include <cpuid.h>

#include "cpu/private.h"
#include "x86/insn.h"

#define XF_X87 1u
#define XF_SSE 2u
#define XF_AVX 4u
#define XF_BASE 7u

/* Layout of the standard format. Behind the header the host's processor says where a component lies. */
enum {
	XA_FCW = 0, XA_FOP = 6, XA_FIP = 8, XA_MXCSR = 24, XA_MXCSR_MASK = 28, XA_ST = 32, XA_XMM = 160, XA_LEGACY_END = 416,
	XA_BV = 512, XA_COMP_BV = 520, XA_HEADER_REST = 528, XA_EXTENDED = 576, XA_FX_SIZE = 512,
};

/* The components behind the header, in the order of their bits: bytes, and how many of them exist outside 64-bit mode, where registers 8-31
 * do not (SDM vol. 1 13.5). All are multiples of 64, so none of the compacted form needs aligning. */
static const struct extended {
	uint8_t bit;
	uint16_t size, size32;
} extended[] = {
	{VCPU_XS_AVX, 256, 128},          /* YMM_Hi128 */
	{VCPU_XS_OPMASK, 64, 64},
	{VCPU_XS_ZMM_HI256, 512, 256},
	{VCPU_XS_HI16_ZMM, 1024, 0},
};
#define XCOMP_COMPACTED BIT(63)
#define MXCSR_INIT 0x1f80u

static uint64_t get64(const uint8_t *p)
{
	uint64_t v;

	__builtin_memcpy(&v, p, 8);
	return v;
}

static void put64(uint8_t *p, uint64_t v) { __builtin_memcpy(p, &v, 8); }

static uint32_t get32(const uint8_t *p)
{
	uint32_t v;

	__builtin_memcpy(&v, p, 4);
	return v;
}

static void put32(uint8_t *p, uint32_t v) { __builtin_memcpy(p, &v, 4); }

/* Loops instead of memcpy(): libc's uses the vector registers that may hold the guest's state. */
static void copy(uint8_t *to, const uint8_t *from, size_t n)
{
	size_t words = n / 8;

	__asm__ volatile("rep movsq" : "+D"(to), "+S"(from), "+c"(words) : : "memory");
}

static void clear(uint8_t *to, size_t n)
{
	size_t words = n / 8;

	__asm__ volatile("rep stosq" : "+D"(to), "+c"(words) : "a"(0ull) : "memory");
}

static unsigned moved(const struct vcpu *v)
{
	return (unsigned)v->fpu.xcr0 | XF_BASE;
}

static void host_save(struct vcpu *v)
{
	__asm__ volatile("xsave64 %0" : "+m"(v->fpu.area) : "a"(moved(v)), "d"(0) : "memory");
}

static void host_restore(struct vcpu *v)
{
	__asm__ volatile("xrstor64 %0" : : "m"(v->fpu.area), "a"(moved(v)), "d"(0) : "memory");
}

void cpu_fpu_model(struct vcpu *v)
{
	uint64_t model = XF_BASE | (insn_avx512() ? VCPU_XCR0_AVX512 : 0);

	for (unsigned i = 0; i < nitems(extended); i++) {
		uint32_t size = 0, off = 0, c, d;

		__cpuid_count(0xd, extended[i].bit, size, off, c, d);
		if (size != extended[i].size || off < XA_EXTENDED || off + size > sizeof(v->fpu.area))
			model &= ~(uint64_t)VCPU_XCR0_AVX512;
		else
			v->fpu.offset[extended[i].bit] = (uint16_t)off;
	}
	v->fpu.model = model;
}

uint32_t cpu_xsave_size(const struct vcpu *v, uint64_t components, bool compacted)
{
	uint32_t size = XA_EXTENDED;

	for (unsigned i = 0; i < nitems(extended); i++) {
		if (!(components & BIT(extended[i].bit)))
			continue;
		if (compacted)
			size += extended[i].size;
		else if (v->fpu.offset[extended[i].bit] + extended[i].size > size)
			size = v->fpu.offset[extended[i].bit] + extended[i].size;
	}
	return size;
}

/* Saves the guest's state and gives C code the environment its ABI promises: empty x87 stack, masked exceptions. */
void vcpu_fpu_park_slow(struct vcpu *v)
{
	static const uint32_t mxcsr = MXCSR_INIT;

	host_save(v);
	__asm__ volatile("fninit; ldmxcsr %0; vzeroupper" : : "m"(mxcsr));
	v->fpu_live = false;
}

void vcpu_fpu_live_slow(struct vcpu *v)
{
	host_restore(v);
	v->fpu_live = true;
}

static void init_x87(uint8_t *area)
{
	clear(area + XA_FCW, XA_MXCSR);
	area[XA_FCW] = 0x7f;
	area[XA_FCW + 1] = 0x03;
	clear(area + XA_ST, XA_XMM - XA_ST);
}

void cpu_fpu_reset(struct vcpu *v)
{
	clear(v->fpu.area, sizeof(v->fpu.area));
	init_x87(v->fpu.area);
	put32(v->fpu.area + XA_MXCSR, MXCSR_INIT);
	v->fpu.xcr0 = XF_X87;
	v->fpu_live = false;
}

int cpu_fpu_check(struct vcpu *v, enum cpu_fpu_class cls)
{
	const uint64_t cr0 = v->cr0;
	bool ud = false, nm = cr0 & CR0_TS;

	switch (cls) {
	case FPU_X87: nm = cr0 & (CR0_TS | CR0_EM); break;
	case FPU_MMX: ud = cr0 & CR0_EM; break;
	case FPU_SSE: ud = (cr0 & CR0_EM) || !(v->cr4 & CR4_OSFXSR); break;
	case FPU_AVX: case FPU_AVX512:
		ud = !cpu_xcr0_has(v, cls == FPU_AVX512 ? VCPU_XCR0_AVX512 | 6 : 6) || v->mode == INSN_MODE_REAL;
		break;
	case FPU_WAIT: nm = (cr0 & (CR0_TS | CR0_MP)) == (CR0_TS | CR0_MP); break;
	case FPU_FXSAVE: nm = cr0 & (CR0_TS | CR0_EM); break;
	case FPU_XSAVE: ud = !(v->cr4 & CR4_OSXSAVE); break;
	}
	if (unlikely(ud))
		return cpu_ud(v);
	return unlikely(nm) ? cpu_raise(v, VEC_NM) : 0;
}

/* Makes fpu.area current without giving up the live registers. */
static uint8_t *sync_area(struct vcpu *v)
{
	if (v->fpu_live)
		host_save(v);
	return v->fpu.area;
}

int cpu_xgetbv(struct vcpu *v, uint32_t idx, uint64_t *val)
{
	if (!(v->cr4 & CR4_OSXSAVE))
		return cpu_ud(v);
	if (idx > 1)
		return cpu_gp0(v);
	*val = v->fpu.xcr0;
	if (idx == 1) {
		const uint8_t *area = sync_area(v);

		*val &= get64(area + XA_BV) | (get32(area + XA_MXCSR) != MXCSR_INIT ? XF_SSE : 0);
	}
	return 0;
}

/* --- saving ----------------------------------------------------------------------------------------------------- */

/* Bytes that exist in the current mode: registers 8-31 are left alone outside 64-bit mode. */
static size_t xmm_bytes(const struct vcpu *v)
{
	return cpu_code64(v) ? 256 : 128;
}

static size_t extended_bytes(const struct vcpu *v, const struct extended *x)
{
	return cpu_code64(v) ? x->size : x->size32;
}

/* Stores [from, to) of fpu.area. */
static int store_part(struct vcpu *v, gva_t lin, size_t from, size_t to)
{
	return from == to ? 0 : cpu_store_buf(v, lin + from, v->fpu.area + from, to - from);
}

/* The area as the guest may see it but for the header: FOP, FIP and FDP cleared. */
static const uint8_t *public_area(struct vcpu *v)
{
	uint8_t *area = sync_area(v);

	area[XA_FOP] = area[XA_FOP + 1] = 0;
	put64(area + XA_FIP, 0);
	put64(area + XA_FIP + 8, 0);
	put32(area + XA_MXCSR_MASK, v->mxcsr_mask);
	return area;
}

static int store_legacy(struct vcpu *v, gva_t lin, unsigned parts, bool mxcsr)
{
	size_t xmm_end = XA_XMM + xmm_bytes(v);

	if ((parts & 3) == 3 && mxcsr)
		return store_part(v, lin, 0, xmm_end);
	if ((parts & XF_X87) && (store_part(v, lin, 0, XA_MXCSR) || store_part(v, lin, XA_ST, XA_XMM)))
		return -1;
	if (mxcsr && store_part(v, lin, XA_MXCSR, XA_ST))
		return -1;
	return parts & XF_SSE ? store_part(v, lin, XA_XMM, xmm_end) : 0;
}

static int do_fxsave(struct vcpu *v, gva_t lin)
{
	if (cpu_probe_write(v, lin, XA_FX_SIZE))
		return -1;
	public_area(v);
	return store_legacy(v, lin, v->cr4 & CR4_OSFXSR ? XF_X87 | XF_SSE : XF_X87, true);
}

/* Those of `parts`, in an image for the components of rfbm. */
static int store_extended(struct vcpu *v, gva_t lin, unsigned rfbm, unsigned parts, bool compacted)
{
	size_t packed = XA_EXTENDED;

	for (unsigned i = 0; i < nitems(extended); i++) {
		const struct extended *x = &extended[i];
		size_t off = v->fpu.offset[x->bit], n = extended_bytes(v, x);

		if (!(rfbm & BIT(x->bit)))
			continue;
		if ((parts & BIT(x->bit)) && n && cpu_store_buf(v, lin + (compacted ? packed : off), v->fpu.area + off, n))
			return -1;
		packed += x->size;
	}
	return 0;
}

/* XSAVE, XSAVEOPT and XSAVEC differ in which components are written and in the header. */
static int do_xsave(struct vcpu *v, enum cpu_xsave_op op, gva_t lin, uint64_t mask)
{
	unsigned rfbm = (unsigned)(mask & v->fpu.xcr0), inuse, parts;
	bool mxcsr = rfbm & (XF_SSE | XF_AVX);
	uint64_t header[XA_HEADER_REST / 8 - XA_BV / 8] = {0}, old;
	const uint8_t *area;

	if (cpu_probe_write(v, lin, cpu_xsave_size(v, rfbm, op == XOP_XSAVEC)))
		return -1;
	area = public_area(v);
	inuse = (unsigned)get64(area + XA_BV) & rfbm;
	if (op == XOP_XSAVEC) {
		if ((rfbm & XF_SSE) && get32(area + XA_MXCSR) != MXCSR_INIT)
			inuse |= XF_SSE;
		header[1] = rfbm | XCOMP_COMPACTED;
		parts = inuse;
		mxcsr = inuse & XF_SSE;
	} else {
		if (cpu_load(v, lin + XA_BV, 8, &old))
			return -1;
		header[0] = old & ~(uint64_t)rfbm;
		parts = op == XOP_XSAVEOPT ? inuse : rfbm;
	}
	header[0] |= inuse;
	if (store_legacy(v, lin, parts, mxcsr) || cpu_store_buf(v, lin + XA_BV, header, op == XOP_XSAVEC ? 16 : 8))
		return -1;
	return store_extended(v, lin, rfbm, parts, op == XOP_XSAVEC);
}

/* --- restoring -------------------------------------------------------------------------------------------------- */

/* Takes component data from `src` (an image in the bounce buffer) or the initial state. */
static void load_x87(struct vcpu *v, const uint8_t *src)
{
	uint8_t *area = v->fpu.area;

	if (!src) {
		init_x87(area);
		return;
	}
	copy(area, src, XA_MXCSR);
	area[XA_FOP] = area[XA_FOP + 1] = 0;
	clear(area + XA_FIP, 16);
	copy(area + XA_ST, src + XA_ST, XA_XMM - XA_ST);
}

static void load_vector(struct vcpu *v, size_t off, size_t n, const uint8_t *src)
{
	if (src)
		copy(v->fpu.area + off, src + off, n);
	else
		clear(v->fpu.area + off, n);
}

static void set_inuse(struct vcpu *v, unsigned set, unsigned unset)
{
	uint64_t bv = get64(v->fpu.area + XA_BV);

	/* Registers 8-31 that an init outside 64-bit mode left alone keep their component in use. */
	if (!cpu_code64(v))
		set |= (unsigned)bv & unset & ~(XF_X87 | (unsigned)BIT(VCPU_XS_OPMASK));
	put64(v->fpu.area + XA_BV, ((bv & ~(uint64_t)unset) | set) & v->fpu.model);
	if (v->fpu_live)
		host_restore(v);
}

static int do_fxrstor(struct vcpu *v, gva_t lin)
{
	uint8_t *img = v->bounce;

	if (cpu_load_buf(v, lin, img, XA_FX_SIZE))
		return -1;
	if (get32(img + XA_MXCSR) & ~v->mxcsr_mask)
		return cpu_gp0(v);
	sync_area(v);
	load_x87(v, img);
	if (v->cr4 & CR4_OSFXSR) {
		put32(v->fpu.area + XA_MXCSR, get32(img + XA_MXCSR));
		load_vector(v, XA_XMM, xmm_bytes(v), img);
	}
	set_inuse(v, XF_X87 | XF_SSE, 0);
	return 0;
}

static bool all_zero(const uint8_t *p, size_t from, size_t to)
{
	uint64_t any = 0;

	for (size_t i = from; i < to; i += 8)
		any |= get64(p + i);
	return !any;
}

/* SDM vol. 1 13.8.1 and 13.8.2: header of the standard and of the compacted form. */
static bool header_valid(const struct vcpu *v, const uint8_t *img, bool compacted)
{
	uint64_t bv = get64(img + XA_BV), comp = get64(img + XA_COMP_BV) & ~XCOMP_COMPACTED;

	if (!compacted)
		return !(bv & ~v->fpu.xcr0) && all_zero(img, XA_COMP_BV, XA_COMP_BV + 16);
	return !(comp & ~v->fpu.xcr0) && !(bv & ~comp) && all_zero(img, XA_HEADER_REST, XA_EXTENDED);
}

/* The components of `load` to where the standard form has them; `comp` are those that the compacted form has, 0 = it is standard. */
static int fetch_extended(struct vcpu *v, gva_t lin, uint8_t *img, unsigned load, uint64_t comp)
{
	size_t packed = XA_EXTENDED;

	for (unsigned i = 0; i < nitems(extended); i++) {
		const struct extended *x = &extended[i];
		size_t off = v->fpu.offset[x->bit];

		if ((load & BIT(x->bit)) && cpu_load_buf(v, lin + (comp ? packed : off), img + off, x->size))
			return -1;
		if (comp & BIT(x->bit))
			packed += x->size;
	}
	return 0;
}

/* With live registers the checked image, made one of the standard form, is what the host's XRSTOR loads. Components not in rfbm stay. */
static void load_image(struct vcpu *v, uint8_t *img, unsigned rfbm, unsigned load, uint32_t csr)
{
	img[XA_FOP] = img[XA_FOP + 1] = 0;
	put64(img + XA_FIP, 0);
	put64(img + XA_FIP + 8, 0);
	put32(img + XA_MXCSR, csr);
	put64(img + XA_BV, load);
	put64(img + XA_COMP_BV, 0);
	put64(img + XA_COMP_BV + 8, 0);
	__asm__ volatile("xrstor64 %0" : : "m"(v->bounce), "a"(rfbm), "d"(0) : "memory");
}

static int do_xrstor(struct vcpu *v, gva_t lin, uint64_t mask)
{
	unsigned rfbm = (unsigned)(mask & v->fpu.xcr0), load, init;
	uint8_t *img = v->bounce;
	bool compacted, mxcsr;
	uint32_t csr = MXCSR_INIT;

	if (cpu_load_buf(v, lin, img, XA_EXTENDED))
		return -1;
	compacted = get64(img + XA_COMP_BV) & XCOMP_COMPACTED;
	if (!header_valid(v, img, compacted))
		return cpu_gp0(v);
	load = rfbm & (unsigned)get64(img + XA_BV);
	init = rfbm & ~load;
	if (fetch_extended(v, lin, img, load, compacted ? get64(img + XA_COMP_BV) : 0))
		return -1;
	/* The standard form loads MXCSR with SSE or AVX whatever XSTATE_BV says; the compacted one as part of SSE. */
	mxcsr = compacted ? rfbm & XF_SSE : rfbm & (XF_SSE | XF_AVX);
	if (mxcsr && (!compacted || (load & XF_SSE)))
		csr = get32(img + XA_MXCSR);
	if (csr & ~v->mxcsr_mask)
		return cpu_gp0(v);
	/* Where registers 8-15 or, in the compacted form, MXCSR have to stay as they are, XRSTOR of the standard form cannot do it. */
	if (likely(v->fpu_live && cpu_code64(v) && (mxcsr || !(rfbm & XF_AVX)))) {
		load_image(v, img, rfbm, load, csr);
		return 0;
	}
	sync_area(v);
	if (rfbm & XF_X87)
		load_x87(v, load & XF_X87 ? img : NULL);
	if (mxcsr)
		put32(v->fpu.area + XA_MXCSR, csr);
	if (rfbm & XF_SSE)
		load_vector(v, XA_XMM, xmm_bytes(v), load & XF_SSE ? img : NULL);
	for (unsigned i = 0; i < nitems(extended); i++)
		if (rfbm & BIT(extended[i].bit))
			load_vector(v, v->fpu.offset[extended[i].bit], extended_bytes(v, &extended[i]),
				    load & BIT(extended[i].bit) ? img : NULL);
	set_inuse(v, load, init);
	return 0;
}

int cpu_xsave_op(struct vcpu *v, enum cpu_xsave_op op, gva_t lin, uint64_t mask, bool rexw)
{
	bool fx = op == XOP_FXSAVE || op == XOP_FXRSTOR;

	(void)rexw;          /* the forms differ in FIP and FDP only, which are zero */
	if (cpu_fpu_check(v, fx ? FPU_FXSAVE : FPU_XSAVE))
		return -1;
	if (unlikely(lin & (fx ? 15 : 63)))
		return cpu_gp0(v);
	switch (op) {
	case XOP_FXSAVE: return do_fxsave(v, lin);
	case XOP_FXRSTOR: return do_fxrstor(v, lin);
	case XOP_XRSTOR: return do_xrstor(v, lin, mask);
	default: return do_xsave(v, op, lin, mask);
	}
}
