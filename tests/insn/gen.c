/* SPDX-License-Identifier: Apache-2.0 */
/*
 * From a form to a test: random registers, addressing mode, immediates, prefixes, and a state in which the memory operand lands where
 * it is interesting: aligned, misaligned, across the two data pages, across the end of what is mapped, outside it.
 */
#include <Zydis/Mnemonic.h>
#include <Zydis/Zydis.h>
#include <string.h>

#include "insn_test.h"

#define M(x) ZYDIS_MNEMONIC_##x

uint64_t rnd(struct rng *r)
{
	uint64_t x = r->s += 0x9e3779b97f4a7c15ull;

	x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9ull;
	x = (x ^ x >> 27) * 0x94d049bb133111ebull;
	return x ^ x >> 31;
}

/* --- values ------------------------------------------------------------------------------------------------------ */

static uint64_t value(struct rng *r)
{
	static const uint64_t edge[] = {0, 1, 2, 0x7f, 0x80, 0xff, 0x7fff, 0x8000, 0xffff, 0x7fffffff, 0x80000000, 0xffffffff,
					0x7fffffffffffffff, 0x8000000000000000, ~0ull, 0x8080808080808080, 31, 32, 63, 64};

	switch (pick(r, 4)) {
	case 0: return edge[pick(r, nitems(edge))];
	case 1: return rnd(r) >> pick(r, 64);
	case 2: return ~(rnd(r) >> pick(r, 64));
	default: return rnd(r);
	}
}

static uint32_t float_bits(struct rng *r)
{
	static const uint32_t edge[] = {0, 0x80000000, 0x3f800000, 0xbf800000, 0x7f800000, 0xff800000, 0x7fc00000, 0x7f800001, 1,
					0x007fffff, 0x00800000, 0x7f7fffff, 0x4f000000, 0xcf000000, 0x3f000000, 0x40490fdb};

	return pick(r, 3) ? (uint32_t)rnd(r) : edge[pick(r, nitems(edge))];
}

static uint64_t double_bits(struct rng *r)
{
	static const uint64_t edge[] = {0, 1ull << 63, 0x3ff0000000000000, 0xbff0000000000000, 0x7ff0000000000000,
					0xfff0000000000000, 0x7ff8000000000000, 0x7ff0000000000001, 1, 0x000fffffffffffff,
					0x0010000000000000, 0x7fefffffffffffff, 0x41e0000000000000, 0xc1e0000000000000,
					0x43e0000000000000, 0x3fe0000000000000};

	if (pick(r, 3) == 0)
		return edge[pick(r, nitems(edge))];
	/* Mostly exponents near each other, so that sums and products are not trivial. */
	return pick(r, 2) ? rnd(r) : (rnd(r) & 0x800fffffffffffff) | (uint64_t)(1023 - 8 + pick(r, 16)) << 52;
}

static void fill_vector(struct rng *r, uint8_t *p, unsigned len)
{
	unsigned how = pick(r, 4);

	for (unsigned i = 0; i < len; i += 8) {
		uint64_t x = how == 0 ? rnd(r)
			   : how == 1 ? double_bits(r)
			   : how == 2 ? float_bits(r) | (uint64_t)float_bits(r) << 32
				      : value(r);

		memcpy(p + i, &x, 8);
	}
}

/* An 80-bit register: integer-valued, special, or anything. */
static void fill_x87(struct rng *r, uint8_t *p)
{
	uint64_t m = rnd(r) | BIT(63);
	uint16_t e = (uint16_t)((16383 - 20 + pick(r, 60)) | (pick(r, 2) << 15));

	switch (pick(r, 6)) {
	case 0: m = 0; e &= 0x8000; break;
	case 1: m = BIT(63); e |= 0x7fff; break;
	case 2: m = rnd(r); e = (uint16_t)rnd(r); break;
	default: break;
	}
	memcpy(p, &m, 8);
	memcpy(p + 8, &e, 2);
}

static void fill_xstate(struct rng *r, uint8_t *x)
{
	uint16_t fcw = (uint16_t)(0x37f & ~(pick(r, 4) ? 0 : pick(r, 64))), fsw = (uint16_t)(pick(r, 8) << 11 | (rnd(r) & 0x4700));
	uint32_t mxcsr = 0x1f80 | (uint32_t)pick(r, 4) << 13 | (pick(r, 8) ? 0 : 0x8000) | (pick(r, 8) ? 0 : 0x40);
	uint64_t bv = x_components();

	memset(x, 0, x_size());
	fcw = (uint16_t)((fcw & 0xf0ff) | (pick(r, 4) ? 0x300 : (rnd(r) & 0xf00)));
	fsw |= pick(r, 64) & 0x7f;
	if (fsw & 0x40)
		fsw |= 1;
	if (fsw & ~fcw & 0x3f)
		fsw = pick(r, 4) ? (uint16_t)(fsw & ~0x7f) : (uint16_t)(fsw | 0x8080);
	if (!pick(r, 16)) /* some exceptions unmasked */
		mxcsr &= ~(uint32_t)(rnd(r) & 0x1780); /* but underflow: see hostexec.c */
	if (pick(r, 2))
		mxcsr |= (uint32_t)rnd(r) & 0x3f;
	memcpy(x, &fcw, 2);
	memcpy(x + 2, &fsw, 2);
	x[4] = pick(r, 3) ? 0xff : (uint8_t)rnd(r);
	memcpy(x + 24, &mxcsr, 4);
	memcpy(x + 512, &bv, 8);
	for (unsigned i = 0; i < 8; i++)
		fill_x87(r, x + 32 + 16 * i);
	for (unsigned i = 0; i < (insn_avx512() ? 32 : 16); i++)
		for (unsigned byte = 0; byte < (insn_avx512() ? 64 : 32); byte += 16)
			fill_vector(r, x_vec(x, i, byte), 16);
	/* All elements, the first few, any. */
	for (unsigned i = 0; i < 8 && insn_avx512(); i++) {
		uint64_t k = pick(r, 4) ? pick(r, 2) ? rnd(r) : (1ull << pick(r, 64)) - 1 : ~0ull;

		memcpy(x_mask(x, i), &k, 8);
	}
}

/* --- encoding ------------------------------------------------------------------------------------------------------ */

/* Registers, mask, zeroing, and for register operands rounding, which insn_decode() has to agree to. */
static void encode_evex(struct rng *r, const struct form *f, bool mem, bool high, uint8_t *c)
{
	memcpy(c, f->bytes, 5);
	/* The higher 16 registers now and then: general and opmask registers have none. */
	c[1] = (uint8_t)((c[1] & 0x0f) | (high ? 0x10 : rnd(r) & 0xe0) | (pick(r, 3) ? 0x10 : 0));
	if ((c[2] & 0x78) != 0x78) {
		c[2] = (uint8_t)((c[2] & ~0x78) | (rnd(r) & 0x78));
		if (!pick(r, 3))
			c[3] ^= 0x08;
	}
	if (f->in.has_vsib && !pick(r, 3))
		c[3] ^= 0x08;
	if (c[3] & 7) {
		c[3] = (uint8_t)((c[3] & ~7) | pick(r, 8));
		if (!pick(r, 3))
			c[3] |= 0x80;
	}
	if (!mem && !pick(r, 4))
		c[3] = (uint8_t)((c[3] & ~0x60) | 0x10 | pick(r, 4) << 5);
}

/* Builds prefixes + opcode + ModRM + SIB + displacement + immediates; the immediates are whatever follows. */
static bool encode(struct rng *r, const struct form *f, struct test *t)
{
	bool evex = f->in.encoding == ZYDIS_INSTRUCTION_ENCODING_EVEX, vex = f->in.encoding == ZYDIS_INSTRUCTION_ENCODING_VEX || evex;
	bool mem = f->in.has_modrm && f->in.modrm >> 6 != 3;
	bool high = !pick(r, 4); /* R13-R15 wherever a register is: the translator has no host registers for them */
	unsigned n = 0, i = 0;
	uint8_t *c = t->code, modrm = f->in.modrm;

	for (unsigned k = 0; k < 16; k++)
		c[k] = (uint8_t)value(r);
	if (mem && !pick(r, 8) && !f->in.lock)
		c[n++] = 0x67;
	if (mem && !vex && f->in.kind == INSN_INT && !pick(r, 3) && f->in.op[0].kind == OPND_MEM && f->in.op[0].write)
		c[n++] = 0xf0;
	while (!vex && (f->bytes[i] == 0x66 || f->bytes[i] == 0xf2 || f->bytes[i] == 0xf3))
		c[n++] = f->bytes[i++];
	if (evex) {
		encode_evex(r, f, mem, high, c + n);
		n += 5;
		i = 5;
	} else if (vex) {
		memcpy(c + n, f->bytes, 4);
		c[n + 1] = (uint8_t)((c[n + 1] & 0x1f) | (rnd(r) & 0xe0));
		if ((c[n + 2] & 0x78) != 0x78)
			c[n + 2] = (uint8_t)((c[n + 2] & ~0x78) | (high ? pick(r, 3) << 3 : rnd(r) & 0x78));
		if (high)
			c[n + 1] &= 0x1f;
		n += 4;
		i = 4;
	} else {
		uint8_t rex = (uint8_t)((f->in.rex & 8) | (high ? 5 : pick(r, 8)));

		if (rex || pick(r, 2))
			if (f->in.rex || high || pick(r, 2))
				c[n++] = 0x40 | rex;
		if (f->in.has_rex)
			i++;
		while (i <= f->opcode_off)
			c[n++] = f->bytes[i++];
	}
	if (f->in.has_modrm) {
		if (!f->reg_fixed)
			modrm = (uint8_t)((modrm & 0xc7) | (high ? 5 + pick(r, 3) : pick(r, 8)) << 3);
		if (mem)
			modrm = (uint8_t)((modrm & 0x38) | pick(r, 3) << 6 | (f->in.has_vsib ? 4 : pick(r, 8)));
		else if (f->in.op[0].kind != OPND_NONE && f->in.kind != INSN_X87)
			modrm = (uint8_t)((modrm & 0xf8) | (high ? 5 + pick(r, 3) : pick(r, 8)));
		else if (f->in.kind == INSN_X87 && f->in.map != ZYDIS_OPCODE_MAP_DEFAULT)
			modrm = (uint8_t)((modrm & 0xf8) | pick(r, 8));
		c[n] = modrm;
	}
	return insn_decode(&t->in, INSN_MODE_64, c, 15) == 0 && t->in.mnemonic == f->in.mnemonic && t->in.nops == f->in.nops &&
	       t->in.op[0].kind == f->in.op[0].kind && t->in.op[1].kind == f->in.op[1].kind;
}

/* --- placement -------------------------------------------------------------------------------------------------------- */

static uint64_t place(struct rng *r, unsigned size)
{
	uint64_t a;

	switch (pick(r, 10)) {
	case 0: return DATA_VA + PAGE_SIZE - 1 - pick(r, size > 1 ? size : 2);          /* across the pages */
	case 1: return DATA_VA + DATA_SIZE - 1 - pick(r, size > 1 ? size : 2);          /* across the end */
	case 2: return DATA_VA - 1 - pick(r, size > 1 ? size : 2);                      /* from before the start */
	case 3: return pick(r, 4) ? DATA_VA + pick(r, DATA_SIZE - 128) : rnd(r) | BIT(62); /* anywhere; non-canonical */
	case 4: case 5: return DATA_VA + 64 + pick(r, DATA_SIZE - 256);                 /* misaligned */
	default:
		a = DATA_VA + 64 + pick(r, DATA_SIZE - 512);
		return a & ~63ull;
	}
}

/* MOV between the accumulator and an absolute address, which is the instruction's last eight bytes, or four. */
static bool is_absolute(const struct insn *in)
{
	return in->mnemonic == M(MOV) && in->map == ZYDIS_OPCODE_MAP_DEFAULT && in->opcode >= 0xa0 && in->opcode <= 0xa3;
}

/* Makes the memory operand's address `want`; false if its registers cannot express it. */
static bool aim(struct rng *r, struct test *t, uint64_t want)
{
	struct insn *in = &t->in;
	uint64_t *g = t->s.gpr, rest;

	/* Truncated to 32 bits, any other address could be one where this process has something: the translator's code cache. */
	if (in->addrsize == 4 && want >> 32)
		return false;
	if (is_absolute(in)) {
		memcpy(t->code + in->len - in->addrsize, &want, in->addrsize);
		return insn_decode(in, INSN_MODE_64, t->code, 15) == 0;
	}
	if (in->has_vsib) {
		if (in->mem.base == INSN_NO_REG)
			return false;
		g[in->mem.base] = want - (uint64_t)in->mem.disp;
		return true;
	}
	if (in->rip_relative) {
		int64_t disp = (int64_t)(want - (INSN_VA + in->len));
		int32_t d32 = (int32_t)disp;

		if (in->addrsize == 4 || d32 != disp)
			return false;
		memcpy(t->code + in->modrm_off + 1, &d32, 4);
		return insn_decode(in, INSN_MODE_64, t->code, 15) == 0;
	}
	if (in->mem.base == INSN_NO_REG && in->mem.index == INSN_NO_REG) {
		unsigned off = in->has_modrm ? in->modrm_off + ((in->modrm & 7) == 4 ? 2u : 1u) : 0;
		uint32_t d32 = (uint32_t)want;

		if (!off || (want >> 31))
			return false;
		memcpy(t->code + off, &d32, 4);
		return insn_decode(in, INSN_MODE_64, t->code, 15) == 0;
	}
	rest = (uint64_t)in->mem.disp;
	if (in->mem.base == INSN_NO_REG || in->mem.base == in->mem.index) {
		unsigned k = in->mem.scale + (in->mem.base == in->mem.index);
		uint64_t x = want - rest;

		if (want >> 47 || (int64_t)x < 0 || in->addrsize == 4)
			return false;
		if (x % k)
			return false;
		g[in->mem.index] = x / k;
		return true;
	}
	if (in->mem.index != INSN_NO_REG)
		rest += g[in->mem.index] * in->mem.scale;
	g[in->mem.base] = want - rest;
	if (in->addrsize == 4)
		g[in->mem.base] = (uint32_t)g[in->mem.base] | rnd(r) << 32;
	return true;
}

static void put_mem(struct test *t, uint64_t va, uint64_t val)
{
	for (unsigned i = 0; i < 8; i++)
		if (va + i >= DATA_VA && va + i < DATA_VA + DATA_SIZE)
			t->s.mem[va + i - DATA_VA] = (uint8_t)(val >> (8 * i));
}

static bool is_branch(const struct insn *in)
{
	return in->category == ZYDIS_CATEGORY_COND_BR || in->category == ZYDIS_CATEGORY_UNCOND_BR ||
	       in->category == ZYDIS_CATEGORY_CALL || in->category == ZYDIS_CATEGORY_RET;
}

/* Relative branches go to TARGET_VA; so do indirect ones, except for a few that go nowhere. */
static bool aim_branch(struct rng *r, struct test *t, uint64_t want)
{
	struct insn *in = &t->in;
	/* Processors differ in whether CALL checks its target or its stack first. */
	uint64_t target = pick(r, 8) || in->category == ZYDIS_CATEGORY_CALL ? TARGET_VA : rnd(r) | BIT(62);

	if (in->nops && in->op[0].kind == OPND_REL) {
		int64_t rel = (int64_t)(TARGET_VA - (INSN_VA + in->len));

		memcpy(t->code + in->imm_off, &rel, in->imm_size);
		return insn_decode(in, INSN_MODE_64, t->code, 15) == 0;
	}
	if (in->category == ZYDIS_CATEGORY_RET)
		put_mem(t, t->s.gpr[RSP], target);
	else if (in->op[0].kind == OPND_MEM)
		put_mem(t, want, target);
	else
		t->s.gpr[in->op[0].reg] = target;
	/* A call through rSP pushes into the code. */
	return in->category != ZYDIS_CATEGORY_CALL || in->op[0].kind != OPND_GPR || in->op[0].reg != RSP;
}

/* Registers with a meaning of their own. */
static void implicit(struct rng *r, struct test *t)
{
	struct insn *in = &t->in;
	uint64_t *g = t->s.gpr;

	switch (in->category) {
	case ZYDIS_CATEGORY_STRINGOP:
		g[RSI] = place(r, in->opsize);
		g[RDI] = place(r, in->opsize);
		if (!pick(r, 4)) /* overlapping */
			g[RDI] = g[RSI] + pick(r, 16);
		g[RCX] = pick(r, 40);
		if (pick(r, 2)) /* so that comparisons go on for a while */
			memset(t->s.mem, pick(r, 2), sizeof(t->s.mem));
		if (pick(r, 2))
			g[RAX] = pick(r, 2) * 0x0101010101010101ull;
		break;
	case ZYDIS_CATEGORY_PUSH: case ZYDIS_CATEGORY_POP: case ZYDIS_CATEGORY_CALL: case ZYDIS_CATEGORY_RET:
		g[RSP] = place(r, 8);
		break;
	default:
		break;
	}
	switch (in->mnemonic) {
	case M(LEAVE): case M(ENTER):
		g[RSP] = place(r, 8);
		g[RBP] = place(r, 8);
		break;
	case M(XLAT):
		g[RBX] = place(r, 1);
		break;
	case M(MASKMOVDQU): case M(VMASKMOVDQU): case M(MASKMOVQ):
		/* Whether unselected bytes outside the mapping fault is left to the implementation. */
		g[RDI] = DATA_VA + pick(r, DATA_SIZE - 16);
		break;
	case M(CMPXCHG): /* equal half of the time */
		if (pick(r, 2) && in->op[0].kind == OPND_GPR)
			g[RAX] = g[in->op[0].reg];
		break;
	case M(POPF): case M(POPFQ): /* no trap flag, no alignment check */
		put_mem(t, g[RSP], value(r) & (FL_ARITH | FL_DF | FL_IF));
		break;
	case M(BT): case M(BTS): case M(BTR): case M(BTC):
		if (in->op[1].kind == OPND_GPR)
			g[in->op[1].reg] = (uint64_t)((int64_t)pick(r, 2000) - 1000);
		break;
	case M(DIV): case M(IDIV): /* quotients that fit, sometimes */
		if (pick(r, 2))
			g[RDX] = pick(r, 3) ? 0 : ~0ull;
		break;
	default:
		break;
	}
	if (in->has_vsib)
		for (unsigned i = 0; i < (in->avx512 ? 16 : 8); i++) {
			int32_t d = (int32_t)pick(r, 64) - 32;
			uint8_t *x = x_vec(t->s.x, in->mem.index, 4 * i);

			if (in->opcode & 1)
				d = i & 1 ? 0 : (int32_t)pick(r, 64);
			memcpy(x, &d, 4);
		}
}

/* Operands equal to what a comparison looks for. */
static void coincidences(struct rng *r, struct test *t, uint64_t want)
{
	if (t->in.mnemonic == M(CMPXCHG) && t->in.op[0].kind == OPND_MEM && pick(r, 2))
		put_mem(t, want, t->s.gpr[RAX]);
	if ((t->in.mnemonic == M(CMPXCHG8B) || t->in.mnemonic == M(CMPXCHG16B)) && pick(r, 2)) {
		if (t->in.mnemonic == M(CMPXCHG8B)) {
			put_mem(t, want, (uint32_t)t->s.gpr[RAX] | t->s.gpr[RDX] << 32);
		} else {
			put_mem(t, want, t->s.gpr[RAX]);
			put_mem(t, want + 8, t->s.gpr[RDX]);
		}
	}
	/* x87 and integers in memory: numbers more often than noise. */
	if (t->in.kind == INSN_X87 && pick(r, 2))
		put_mem(t, want, double_bits(r));
	if (t->in.mnemonic == M(LDMXCSR) || t->in.mnemonic == M(VLDMXCSR))
		put_mem(t, want, rnd(r) & (pick(r, 4) ? 0xffbf : 0xffffffff));
}

bool gen_test(struct rng *r, const struct form *f, struct test *t)
{
	struct state *s = &t->s;
	uint64_t want = 0;
	bool mem = false;

	t->form = f;
	if (!encode(r, f, t))
		return false;
	for (unsigned i = 0; i < GPR_COUNT; i++)
		s->gpr[i] = value(r);
	s->rflags = FL_FIXED | FL_IF | (rnd(r) & FL_ARITH);
	if (t->in.category == ZYDIS_CATEGORY_STRINGOP || !pick(r, 8))
		s->rflags |= pick(r, 2) ? FL_DF : 0;
	s->rip = INSN_VA;
	fill_xstate(r, s->x);
	for (unsigned i = 0; i < DATA_SIZE; i += 8) {
		uint64_t x = rnd(r);

		memcpy(s->mem + i, &x, 8);
	}
	for (unsigned i = 0; i < t->in.nops; i++)
		if (t->in.op[i].kind == OPND_MEM)
			mem = true;
	implicit(r, t);
	if (mem && (t->in.has_modrm || is_absolute(&t->in))) {
		want = place(r, t->in.op[0].kind == OPND_MEM ? t->in.op[0].size : t->in.op[1].size);
		if (t->in.mnemonic == M(CMPXCHG16B) && pick(r, 4))
			want &= ~15ull;
		fill_vector(r, s->mem, 0);
		if (!aim(r, t, want))
			return false;
		/* rSP-relative addressing moves the stack the instruction uses. */
		if (t->in.has_vsib || want < DATA_VA || want > DATA_VA + DATA_SIZE - 64)
			goto placed;
		if (t->in.kind == INSN_VEC)
			fill_vector(r, s->mem + (want - DATA_VA), 64);
		coincidences(r, t, want);
	}
placed:
	return !is_branch(&t->in) || aim_branch(r, t, want);
}
