/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Vector instructions whose memory operand is not one block: gathers, scatters and masked moves, element by element.
 *
 * Invariant: only elements whose mask bit is set touch memory (fault suppression). A gather that faults has loaded the elements before,
 * with their mask elements cleared, so that it can be restarted, and so has a scatter stored them; a masked store is probed whole before its first element is written.
 *
 * Spec: SDM vol. 2 VGATHERxx, VPGATHERxx, VSCATTERxx, VPSCATTERxx, VMASKMOV, VPMASKMOV, MASKMOVDQU, MASKMOVQ.
 */
#include <Zydis/Mnemonic.h>

#include "engine/interp/operands.h"

union vec {
	uint8_t b[64];
	uint32_t d[16];
	uint64_t q[8];
};

void host_call_fixed(struct vcpu *v, unsigned stub, void *buf)
{
	struct host_regs r = {.rcx = (uint64_t)(uintptr_t)buf};

	vcpu_fpu_load(v);
	host_stub_fixed(interp_of(v), stub)(&r);
}

/* Registers 0-15, as long as they are. */
static void vec_read(struct vcpu *v, unsigned reg, union vec *x)
{
	host_call_fixed(v, (v->fpu.model & VCPU_XCR0_AVX512 ? STUB_ZMM_READ : STUB_VEC_READ) + reg, x);
}

static void vec_put_back(struct vcpu *v, unsigned reg, union vec *x)
{
	host_call_fixed(v, (v->fpu.model & VCPU_XCR0_AVX512 ? STUB_ZMM_WRITE : STUB_VEC_WRITE32) + reg, x);
}

/* Bits above `size` bytes become zero, as for every VEX instruction. */
static void vec_write(struct vcpu *v, unsigned reg, unsigned size, const union vec *x)
{
	union vec copy = *x;

	host_call_fixed(v, (size == 32 ? STUB_VEC_WRITE32 : STUB_VEC_WRITE16) + reg, &copy);
}

static uint64_t element(const union vec *x, unsigned i, unsigned size)
{
	return size == 8 ? x->q[i] : x->d[i];
}

static void set_element(union vec *x, unsigned i, unsigned size, uint64_t val)
{
	if (size == 8)
		x->q[i] = val;
	else
		x->d[i] = (uint32_t)val;
}

static bool mask_bit(const union vec *m, unsigned i, unsigned size)
{
	return element(m, i, size) >> (size * 8 - 1) & 1;
}

/* VEX.W: C4 form only, third byte, top bit. VEX.L: bit 2 of the last prefix byte. */
static uint8_t vex_last(const struct insn *in)
{
	unsigned i = 0;

	while (i < 14 && in->bytes[i] != 0xc4 && in->bytes[i] != 0xc5)
		i++;
	return in->bytes[i] == 0xc4 ? in->bytes[i + 2] : in->bytes[i + 1] & 0x7f;
}

/* EVEX.W: the top bit of the third byte (SDM vol. 2A 2.7.1). */
static bool evex_w(const struct insn *in)
{
	return in->bytes[in->modrm_off - 3] & 0x80;
}

static uint64_t gather_offset(const struct vcpu *v, const struct insn *in, uint64_t index)
{
	uint64_t a = (uint64_t)in->mem.disp + index * in->mem.scale;

	if (in->mem.base != INSN_NO_REG)
		a += v->gpr[in->mem.base];
	return a & size_mask(in->addrsize);
}

int op_gather(struct vcpu *v, const struct insn *in)
{
	unsigned es = vex_last(in) & 0x80 ? 8 : 4, is = in->opcode & 1 ? 8 : 4, vl = vex_last(in) & 4 ? 32 : 16;
	unsigned n = vl / (es > is ? es : is), dst = in->op[0].reg, mask = in->op[2].reg, idx = in->mem.index;
	unsigned dsize = n * es > 16 ? 32 : 16;
	union vec d, m, x;
	uint64_t val;
	gva_t lin;
	int r = OP_NEXT;

	if (host_fpu_ready(v, in))
		return OP_FAULT;
	if (dst == mask || dst == idx || mask == idx)
		return cpu_ud(v);
	vec_read(v, dst, &d);
	vec_read(v, mask, &m);
	vec_read(v, idx, &x);
	for (unsigned i = 0; i < n; i++) {
		if (!mask_bit(&m, i, es)) {
			set_element(&m, i, es, 0);
			continue;
		}
		if (lin_of(v, in->mem.seg, gather_offset(v, in, sign_extend(element(&x, i, is), is)), es, false, &lin) ||
		    lin_load(v, lin, es, &val)) {
			r = OP_FAULT;
			break;
		}
		set_element(&d, i, es, val);
		set_element(&m, i, es, 0);
	}
	if (r == OP_NEXT) {
		for (unsigned i = n * es; i < 16; i++)
			d.b[i] = 0;
		__builtin_memset(&m, 0, sizeof(m));
		vec_write(v, dst, dsize, &d);
		vec_write(v, mask, 32, &m);
	} else {
		/* Interrupted: elements loaded so far stand; what lies above them is not cleared yet. */
		vec_put_back(v, dst, &d);
		vec_put_back(v, mask, &m);
	}
	return r;
}

/* AVX-512: elements are selected by an opmask register, whose bits are cleared as they are done. Elements `n` of `es` bytes, indices of `is`. */
struct vsib512 {
	unsigned es, is, n;
	union vec index;
	uint64_t mask;
};

static int vsib512_begin(struct vcpu *v, const struct insn *in, struct vsib512 *g)
{
	if (host_fpu_ready(v, in))
		return -1;
	if (!in->mask)
		return cpu_ud(v);
	g->es = evex_w(in) ? 8 : 4;
	g->is = in->opcode & 1 ? 8 : 4;
	g->n = in->vl / (g->es > g->is ? g->es : g->is);
	host_call_fixed(v, STUB_ZMM_READ + in->mem.index, &g->index);
	host_call_fixed(v, STUB_MASK_READ + in->mask, &g->mask);
	return 0;
}

static int vsib512_lin(struct vcpu *v, const struct insn *in, const struct vsib512 *g, unsigned i, bool write, gva_t *lin)
{
	return lin_of(v, in->mem.seg, gather_offset(v, in, sign_extend(element(&g->index, i, g->is), g->is)), g->es, write, lin);
}

int op_gather512(struct vcpu *v, const struct insn *in)
{
	unsigned dst = in->op[0].reg;
	struct vsib512 g;
	union vec d;
	uint64_t val;
	gva_t lin;
	int r = OP_NEXT;

	if (vsib512_begin(v, in, &g))
		return OP_FAULT;
	if (dst == in->mem.index)
		return cpu_ud(v);
	host_call_fixed(v, STUB_ZMM_READ + dst, &d);
	for (unsigned i = 0; i < g.n; i++) {
		if (g.mask >> i & 1) {
			if (vsib512_lin(v, in, &g, i, false, &lin) || lin_load(v, lin, g.es, &val)) {
				r = OP_FAULT;
				break;
			}
			set_element(&d, i, g.es, val);
		}
		g.mask &= ~BIT(i);
	}
	if (r == OP_NEXT) {
		for (unsigned i = g.n * g.es; i < sizeof(d.b); i++)
			d.b[i] = 0;
		g.mask = 0;
	}
	host_call_fixed(v, STUB_ZMM_WRITE + dst, &d);
	host_call_fixed(v, STUB_MASK_WRITE + in->mask, &g.mask);
	return r;
}

/* From the lowest element on, so that of two to one address the higher stays. */
int op_scatter(struct vcpu *v, const struct insn *in)
{
	struct vsib512 g;
	union vec s;
	gva_t lin;
	int r = OP_NEXT;

	if (vsib512_begin(v, in, &g))
		return OP_FAULT;
	host_call_fixed(v, STUB_ZMM_READ + in->op[1].reg, &s);
	for (unsigned i = 0; i < g.n && r == OP_NEXT; i++) {
		if ((g.mask >> i & 1) &&
		    (vsib512_lin(v, in, &g, i, true, &lin) || lin_store(v, lin, g.es, element(&s, i, g.es))))
			r = OP_FAULT;
		else
			g.mask &= ~BIT(i);
	}
	if (r == OP_NEXT)
		g.mask = 0;
	host_call_fixed(v, STUB_MASK_WRITE + in->mask, &g.mask);
	return r;
}

static int maskmov_load(struct vcpu *v, const struct insn *in, unsigned es, unsigned vl)
{
	union vec m, d = {0};
	uint64_t val, off = ea_offset(v, in);
	gva_t lin;

	vec_read(v, in->op[1].reg, &m);
	for (unsigned i = 0; i < vl / es; i++) {
		if (!mask_bit(&m, i, es))
			continue;
		if (lin_of(v, in->mem.seg, off + i * es, es, false, &lin) || lin_load(v, lin, es, &val))
			return OP_FAULT;
		set_element(&d, i, es, val);
	}
	vec_write(v, in->op[0].reg, vl, &d);
	return OP_NEXT;
}

/* Stores the selected elements of x at seg:off, all or nothing. */
static int store_selected(struct vcpu *v, unsigned seg, uint64_t off, const union vec *x, uint32_t select, unsigned es,
			  unsigned n)
{
	gva_t lin;

	for (unsigned pass = 0; pass < 2; pass++) {
		for (unsigned i = 0; i < n; i++) {
			if (!(select >> i & 1))
				continue;
			if (lin_of(v, seg, off + i * es, es, true, &lin))
				return OP_FAULT;
			if (pass == 0 ? cpu_probe_write(v, lin, es)
				      : lin_store(v, lin, es, es == 1 ? x->b[i] : element(x, i, es)))
				return OP_FAULT;
		}
	}
	return OP_NEXT;
}

/* VMASKMOVPS/PD, VPMASKMOVD/Q: (dst, mask, mem) or (mem, mask, src). */
int op_vmaskmov(struct vcpu *v, const struct insn *in)
{
	unsigned es = in->mnemonic == ZYDIS_MNEMONIC_VMASKMOVPD || in->mnemonic == ZYDIS_MNEMONIC_VPMASKMOVQ ? 8 : 4;
	unsigned vl = vex_last(in) & 4 ? 32 : 16;
	uint32_t select = 0;
	union vec m, x;

	if (host_fpu_ready(v, in))
		return OP_FAULT;
	if (in->op[0].kind == OPND_VEC)
		return maskmov_load(v, in, es, vl);
	vec_read(v, in->op[1].reg, &m);
	vec_read(v, in->op[2].reg, &x);
	for (unsigned i = 0; i < vl / es; i++)
		select |= (uint32_t)mask_bit(&m, i, es) << i;
	return store_selected(v, in->mem.seg, ea_offset(v, in), &x, select, es, vl / es);
}

/* MASKMOVDQU, MASKMOVQ: bytes of operand 0 selected by operand 1 to DS:rDI. */
int op_maskmov(struct vcpu *v, const struct insn *in)
{
	unsigned n = in->mnemonic == ZYDIS_MNEMONIC_MASKMOVQ ? 8 : 16, stub = n == 8 ? STUB_MMX_READ : STUB_VEC_READ, first = 0;
	uint32_t select = 0;
	union vec m, x;

	/* Zydis lists the implicit memory operand first or not at all; the registers are the two that are not memory. */
	if (in->op[0].kind == OPND_MEM)
		first = 1;
	if (host_fpu_ready(v, in))
		return OP_FAULT;
	host_call_fixed(v, stub + in->op[first].reg, &x);
	host_call_fixed(v, stub + in->op[first + 1].reg, &m);
	for (unsigned i = 0; i < n; i++)
		select |= (uint32_t)(m.b[i] >> 7) << i;
	return store_selected(v, in->mem.seg, v->gpr[RDI] & size_mask(in->addrsize), &x, select, 1, n);
}
