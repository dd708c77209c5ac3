/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Re-encoding: a guest instruction's own opcode and immediates with other registers and another memory operand.
 *
 * Kept: 66/F2/F3/LOCK prefixes, REX.W, VEX.W/L/pp/map, EVEX's likewise and mask, zeroing and rounding, opcode, immediates. Dropped: segment
 * overrides and the address-size prefix (the address has been computed). Encodings: SDM vol. 2A 2.1, 2.2.1 (REX), 2.3 (VEX), 2.7 (EVEX).
 */
#include <Zydis/Zydis.h>

#include "engine/bt/tr.h"

static unsigned map_len(const struct insn *in)
{
	switch (in->map) {
	case ZYDIS_OPCODE_MAP_DEFAULT: return 1;
	case ZYDIS_OPCODE_MAP_0F: return 2;
	default: return 3; /* 0F38, 0F3A */
	}
}

static bool kept_prefix(uint8_t b)
{
	return b == 0x66 || b == 0xf2 || b == 0xf3 || b == 0xf0;
}

/* Each once, at its last place (of F2 and F3 the later one counts): repeated ones would leave no room for the REX or SIB byte
 * that a substitution adds, and the host refuses more than 15 bytes. */
static void kept_prefixes(struct emit *e, const uint8_t *p, unsigned n)
{
	for (unsigned i = 0; i < n; i++) {
		bool again = false;

		for (unsigned k = i + 1; k < n; k++)
			again |= p[k] == p[i];
		if (kept_prefix(p[i]) && !again)
			emit_byte(e, p[i]);
	}
}

static unsigned pick(int subst, unsigned original)
{
	return subst >= 0 ? (unsigned)subst : original;
}

/* REX.RXB bits for the final registers. */
static unsigned rxb(const struct tr_subst *s, unsigned reg, unsigned rm)
{
	unsigned bits = reg & 8 ? 4 : 0;

	if (s->mem) {
		bits |= s->mem->index != NOREG && (s->mem->index & 8) ? 2 : 0;
		bits |= s->mem->base != NOREG && (s->mem->base & 8) ? 1 : 0;
	} else {
		bits |= rm & 8 ? 1 : 0;
	}
	return bits;
}

/* In 32-bit code VEX.W means nothing where it would choose a 64-bit register or integer. */
static bool vex_w_ignored(const struct insn *in)
{
	if (in->kind == INSN_INT)
		return true;
	for (unsigned i = 0; i < in->nops; i++)
		if (in->op[i].kind == OPND_GPR)
			return true;
	switch (in->mnemonic) {
	case ZYDIS_MNEMONIC_VCVTSI2SS: case ZYDIS_MNEMONIC_VCVTSI2SD: case ZYDIS_MNEMONIC_VMOVD: case ZYDIS_MNEMONIC_VPINSRD:
	case ZYDIS_MNEMONIC_VPEXTRD: case ZYDIS_MNEMONIC_VCVTUSI2SS: case ZYDIS_MNEMONIC_VCVTUSI2SD:
		return true;
	default:
		return false;
	}
}

/* What 32-bit code leaves without meaning and 64-bit code has a meaning for: register bits, W (SDM vol. 2A 2.3.5, 2.3.6). */
static void vex_from_32(const struct insn *in, uint8_t *b1, uint8_t *b2)
{
	*b1 |= 0xe0;
	*b2 |= 0x40;
	if (vex_w_ignored(in))
		*b2 &= 0x7f;
}

static bool has_is4(const struct insn *in)
{
	for (unsigned i = 0; i < in->nops; i++)
		if (in->op[i].enc == ENC_IS4)
			return true;
	return false;
}

static void operand_bytes(struct emit *e, const struct insn *in, const struct tr_subst *s, unsigned reg, unsigned rm)
{
	if (in->has_modrm) {
		if (s->mem)
			emit_modrm_mem(e, reg, s->mem, in->encoding == ZYDIS_INSTRUCTION_ENCODING_EVEX);
		else
			emit_modrm_reg(e, reg, rm);
	}
	if (in->imm_size && in->mode == INSN_MODE_32 && has_is4(in))
		emit_byte(e, in->bytes[in->imm_off] & 0x7f);
	else if (in->imm_size)
		emit_bytes(e, in->bytes + in->imm_off, in->imm_size);
}

/* INC and DEC with the register in the opcode are REX prefixes in 64-bit mode: their FF form instead. */
static void reencode_inc_dec(struct emit *e, const struct insn *in, const struct tr_subst *s)
{
	unsigned rm = pick(s->opcode, in->opcode & 7);

	if (in->opsize == 2)
		emit_byte(e, 0x66);
	emit_op_reg(e, false, 0xff, in->opcode & 8 ? 1 : 0, rm);
}

static void reencode_legacy(struct emit *e, const struct insn *in, const struct tr_subst *s)
{
	unsigned n = map_len(in);
	unsigned opc = (in->has_modrm ? in->modrm_off : in->len - in->imm_size) - n;
	unsigned reg = pick(s->reg, (in->modrm >> 3 & 7) | (in->rex & 4 ? 8 : 0));
	unsigned rm = pick(in->has_modrm ? s->rm : s->opcode,
			   ((in->has_modrm ? in->modrm : in->bytes[opc + n - 1]) & 7) | (in->rex & 1 ? 8 : 0));
	unsigned rex = rxb(s, in->has_modrm ? reg : 0, rm) | (in->rex & 8);

	kept_prefixes(e, in->bytes, opc);
	if (!in->has_modrm && s->opcode < 0)
		rex = in->rex & 0xf;
	if (rex || in->has_rex)
		emit_byte(e, 0x40 | rex);
	emit_bytes(e, in->bytes + opc, n - 1);
	if (!in->has_modrm && s->opcode >= 0)
		emit_byte(e, (in->bytes[opc + n - 1] & ~7u) | (rm & 7));
	else
		emit_byte(e, in->bytes[opc + n - 1]);
	operand_bytes(e, in, s, reg, rm);
}

static void reencode_vex(struct emit *e, const struct insn *in, const struct tr_subst *s)
{
	unsigned opc = in->has_modrm ? in->modrm_off - 1u : in->len - in->imm_size - 1u;
	bool two = in->bytes[opc - 2] == 0xc5 && (opc < 3 || in->bytes[opc - 3] != 0xc4);
	uint8_t b1 = two ? (in->bytes[opc - 1] & 0x80) | 0x61 : in->bytes[opc - 2];
	uint8_t b2 = two ? in->bytes[opc - 1] & 0x7f : in->bytes[opc - 1];
	unsigned reg, rm, bits;

	if (in->mode == INSN_MODE_32)
		vex_from_32(in, &b1, &b2);
	reg = pick(s->reg, (in->modrm >> 3 & 7) | (b1 & 0x80 ? 0 : 8));
	rm = pick(s->rm, (in->modrm & 7) | (b1 & 0x20 ? 0 : 8));
	bits = in->has_modrm ? rxb(s, reg, rm) : 0;
	if (s->vvvv >= 0)
		b2 = (uint8_t)((b2 & ~0x78) | (~(unsigned)s->vvvv & 15) << 3);
	emit_byte(e, 0xc4);
	emit_byte(e, (~bits & 7) << 5 | (b1 & 0x1f));
	emit_byte(e, b2);
	emit_byte(e, in->bytes[opc]);
	operand_bytes(e, in, s, reg, rm);
}

/* 62 P0 P1 P2: R, X, B, R', V' and vvvv are inverted. A vector register in ModRM.rm has its bit 4 in X. An 8-bit displacement would be counted
 * in units that depend on the form, so there is none but 0. */
static void reencode_evex(struct emit *e, const struct insn *in, const struct tr_subst *s)
{
	const uint8_t *p = in->bytes + in->modrm_off - 4;
	uint8_t p0 = p[0], p1 = p[1], p2 = p[2];
	unsigned changed = s->mem || s->rm >= 0 ? 0xe0 : 0x80; /* X and B stay those of a vector register in rm */
	unsigned reg, rm;

	if (in->mode == INSN_MODE_32) {
		p0 |= 0xf0;
		p1 |= 0x40;
		p2 |= 0x08;
		if (vex_w_ignored(in))
			p1 &= 0x7f;
	}
	reg = pick(s->reg, (in->modrm >> 3 & 7) | (p0 & 0x80 ? 0 : 8));
	rm = pick(s->rm, (in->modrm & 7) | (p0 & 0x20 ? 0 : 8));
	p0 = (uint8_t)((p0 & ~changed) | ((~rxb(s, reg, rm) & 7) << 5 & changed));
	emit_byte(e, 0x62);
	emit_byte(e, p0);
	emit_byte(e, p1);
	emit_byte(e, p2);
	emit_byte(e, in->opcode);
	operand_bytes(e, in, s, reg, rm);
}

void tr_reencode(struct tr *t, const struct insn *in, const struct tr_subst *s)
{
	if (in->encoding == ZYDIS_INSTRUCTION_ENCODING_VEX)
		reencode_vex(&t->e, in, s);
	else if (in->encoding == ZYDIS_INSTRUCTION_ENCODING_EVEX)
		reencode_evex(&t->e, in, s);
	else if (in->mode == INSN_MODE_32 && in->map == ZYDIS_OPCODE_MAP_DEFAULT && (in->opcode & 0xf0) == 0x40)
		reencode_inc_dec(&t->e, in, s);
	else
		reencode_legacy(&t->e, in, s);
}

static int8_t *subst_field(struct tr_subst *s, uint8_t enc)
{
	switch (enc) {
	case ENC_REG: return &s->reg;
	case ENC_RM: return &s->rm;
	case ENC_OPCODE: return &s->opcode;
	case ENC_VVVV: return &s->vvvv;
	default: return NULL;
	}
}

/* A destination whose old value does not matter: skips the load of a displaced register. */
static bool pure_write(const struct insn *in, const struct insn_operand *o)
{
	if (o->read || o->size < 4)
		return false;
	if (in->kind == INSN_VEC)
		return true;
	switch (in->mnemonic) {
	case ZYDIS_MNEMONIC_MOV: case ZYDIS_MNEMONIC_MOVZX: case ZYDIS_MNEMONIC_MOVSX: case ZYDIS_MNEMONIC_MOVSXD:
	case ZYDIS_MNEMONIC_MOVBE: case ZYDIS_MNEMONIC_IMUL: case ZYDIS_MNEMONIC_MULX: case ZYDIS_MNEMONIC_POPCNT:
	case ZYDIS_MNEMONIC_LZCNT: case ZYDIS_MNEMONIC_TZCNT: case ZYDIS_MNEMONIC_ANDN: case ZYDIS_MNEMONIC_BEXTR:
	case ZYDIS_MNEMONIC_BZHI: case ZYDIS_MNEMONIC_BLSI: case ZYDIS_MNEMONIC_BLSMSK: case ZYDIS_MNEMONIC_BLSR:
	case ZYDIS_MNEMONIC_PEXT: case ZYDIS_MNEMONIC_PDEP: case ZYDIS_MNEMONIC_RORX: case ZYDIS_MNEMONIC_SARX:
	case ZYDIS_MNEMONIC_SHLX: case ZYDIS_MNEMONIC_SHRX:
		return true;
	default:
		return false;
	}
}

/* A displaced register in ModRM.rm can often stay in memory: the slot takes the register's place. Not where the memory form
 * means something else (BT with a register offset, XCHG locks) or would not clear the upper half (32-bit destinations). */
static bool use_slot_as_rm(const struct insn *in)
{
	const struct insn_operand *rm = NULL;

	if (in->kind != INSN_INT)
		return false;
	for (unsigned i = 0; i < in->nops; i++) {
		const struct insn_operand *o = &in->op[i];

		if (o->kind != OPND_GPR)
			continue;
		if (o->enc == ENC_RM)
			rm = o;
		else if (o->enc != ENC_NONE && tr_displaced(o->reg))
			return false;
	}
	if (!rm || !tr_displaced(rm->reg) || (rm->write && rm->size != 8))
		return false;
	switch (in->mnemonic) {
	case ZYDIS_MNEMONIC_BT: case ZYDIS_MNEMONIC_BTS: case ZYDIS_MNEMONIC_BTR: case ZYDIS_MNEMONIC_BTC:
	case ZYDIS_MNEMONIC_XCHG:
		return false;
	default:
		return true;
	}
}

struct scratch {
	uint8_t host, guest;
	bool load, store;
};

/* Gives each displaced register operand a scratch register. Returns how many, or -1 if there are too few. */
static int assign_scratch(const struct insn *in, struct tr_subst *s, struct scratch *sc, const uint8_t *avail, int navail)
{
	int n = 0;

	for (unsigned i = 0; i < in->nops; i++) {
		const struct insn_operand *o = &in->op[i];
		int8_t *field = o->kind == OPND_GPR ? subst_field(s, o->enc) : NULL;
		int k = 0;

		if (!field)
			continue;
		if (!tr_displaced(o->reg)) {
			if (o->reg == RSP && !o->high8)
				*field = R15;
			continue;
		}
		while (k < n && sc[k].guest != o->reg)
			k++;
		if (k == n) {
			if (n == navail)
				return -1;
			sc[n++] = (struct scratch){.host = avail[k], .guest = o->reg};
		}
		*field = (int8_t)sc[k].host;
		sc[k].load |= !pure_write(in, o);
		sc[k].store |= o->write;
	}
	return n;
}

static bool touches_high8(const struct insn *in)
{
	for (unsigned i = 0; i < in->nops; i++)
		if (in->op[i].high8)
			return true;
	return false;
}

static const struct insn_operand *mem_operand(const struct insn *in)
{
	for (unsigned i = 0; i < in->nops; i++)
		if (in->op[i].kind == OPND_MEM)
			return &in->op[i];
	return NULL;
}

static bool size_handled(unsigned n)
{
	return n == 1 || n == 2 || n == 4 || n == 8 || n == 10 || n == 16 || n == 32 || n == BT_MAX_ACCESS;
}

/* Flags the instruction itself needs must be in the host register when it executes. */
static void flags_for_insn(struct tr *t, const struct insn *in)
{
	uint16_t writes = in->flags_write & FL_ARITH;
	uint16_t kept = t->live_after[t->i] & ~tr_flags_killed(in) & FL_ARITH;

	if (t->slot && ((in->flags_read & FL_ARITH) || (writes && kept)))
		tr_flags_to_host(t, NOREG);
	else if (t->slot && writes)
		t->slot = false; /* nothing of the old flags is needed any more */
}

/* BMI instructions with one displaced register more than there are scratch ones: what is named by ModRM.rm is read first, into the register that
 * the result goes to. ModRM.reg and VEX.vvvv name a displaced register each. */
static bool compute_three(struct tr *t, const struct insn *in, const struct insn_operand *mo)
{
	struct tr_subst s = {.rm = R13, .reg = R13, .opcode = -1, .vvvv = R14};
	struct emem m = EMEM(R13, 0);

	if (in->encoding != ZYDIS_INSTRUCTION_ENCODING_VEX || in->kind != INSN_INT)
		return false;
	if (mo && !tr_span_operand(t, false, mo->size, &m)) {
		if (!tr_address(t))
			return false;
		tr_lookup(t, false, mo->size);
	}
	if (mo)
		emit_op_mem(&t->e, mo->size == 8, 0x8b, R13, m);
	tr_held_forget(t);
	for (unsigned i = 0; i < in->nops; i++) {
		const struct insn_operand *o = &in->op[i];

		if (o->enc == ENC_RM && !mo)
			tr_get(t, R13, o->reg);
		else if (o->enc == ENC_VVVV && o->read)
			tr_get(t, R14, o->reg);
	}
	flags_for_insn(t, in);
	tr_reencode(t, in, &s);
	for (unsigned i = 0; i < in->nops; i++)
		if (in->op[i].write && (in->op[i].enc == ENC_REG || in->op[i].enc == ENC_VVVV))
			tr_put(t, in->op[i].reg, in->op[i].enc == ENC_REG ? R13 : R14);
	return true;
}

/* AH..BH exist without REX only, which R13 and R14 need: RSI lends itself for the address. A host fault would find it changed, so the address
 * is tried first. */
static bool compute_high8(struct tr *t, const struct insn *in, const struct insn_operand *mo)
{
	struct tr_subst s = {-1, -1, -1, -1, NULL};
	struct emem m = EMEM(R13, 0);

	if (!tr_span_operand(t, mo->write, mo->size, &m)) {
		if (!tr_address(t))
			return false;
		tr_lookup(t, mo->write, mo->size);
	}
	tr_held_forget(t);
	emit_lea(&t->e, R13, m);
	m = EMEM(R13, 0);
	emit_op_mem(&t->e, false, 0x0fb6, R14, m); /* movzx r14d, byte */
	emit_mov(&t->e, R14, RSI);
	emit_mov(&t->e, RSI, R13);
	m = EMEM(RSI, 0);
	s.mem = &m;
	flags_for_insn(t, in);
	tr_reencode(t, in, &s);
	emit_mov(&t->e, RSI, R14);
	return true;
}

/* Can something else of the instruction fault before its access does? x87 and MMX: a pending exception. Misaligned vectors are told apart
 * where the access fails. Masked moves access the elements selected only, and so does AVX-512. */
static bool faults_otherwise(const struct insn *in)
{
	for (unsigned i = 0; i < in->nops; i++)
		if (in->op[i].kind == OPND_MMX)
			return true;
	switch (in->mnemonic) {
	case ZYDIS_MNEMONIC_VMASKMOVPS: case ZYDIS_MNEMONIC_VMASKMOVPD: case ZYDIS_MNEMONIC_VPMASKMOVD: case ZYDIS_MNEMONIC_VPMASKMOVQ:
		return true;
	default:
		return in->kind == INSN_X87 || in->selected;
	}
}

static bool compute_mem(struct tr *t, const struct insn *in, const struct insn_operand *mo)
{
	uint8_t avail[] = {R14};
	struct tr_subst s = {-1, -1, -1, -1, NULL};
	struct scratch sc[2];
	struct emem m = EMEM(R13, 0);
	int n = assign_scratch(in, &s, sc, avail, 1);

	if (n < 0)
		return compute_three(t, in, mo);
	if (touches_high8(in))
		return compute_high8(t, in, mo);
	if (!size_handled(mo->size))
		return false;
	if (tr_span_operand(t, mo->write, mo->size, &m)) {
		avail[0] = tr_other_scratch(m.base == R13 || m.index == R13 ? R13 : R14);
		assign_scratch(in, &s, sc, avail, 1);
	} else {
		if (!tr_address(t))
			return false;
		tr_lookup(t, mo->write, mo->size);
		if (!faults_otherwise(in) && !t->overflow)
			t->bt->site[t->bt->nsites - 1].flags |= SITE_FAULT;
	}
	if (n)
		t->held[avail[0] - R13] = -1;
	if (n && sc[0].load)
		emit_load(&t->e, avail[0], EMEM(RSP, tr_slot(sc[0].guest)));
	flags_for_insn(t, in);
	s.mem = &m;
	tr_reencode(t, in, &s);
	if (n && sc[0].store)
		emit_store(&t->e, EMEM(RSP, tr_slot(sc[0].guest)), avail[0]);
	return true;
}

/* BT, BTS, BTR, BTC with a register offset: the operand is a bit string around the address. r13 moves to the element that holds the
 * bit, the rest of the offset goes to r14. */
static bool is_bit_string(const struct insn *in)
{
	switch (in->mnemonic) {
	case ZYDIS_MNEMONIC_BT: case ZYDIS_MNEMONIC_BTS: case ZYDIS_MNEMONIC_BTR: case ZYDIS_MNEMONIC_BTC:
		return in->op[0].kind == OPND_MEM && in->op[1].kind == OPND_GPR;
	default:
		return false;
	}
}

static void bit_offset(struct tr *t, const struct insn *in)
{
	tr_get(t, R14, in->op[1].reg);
	if (in->opsize == 4)
		emit_op_reg(&t->e, true, 0x63, R14, R14);   /* movsxd r14, r14d */
	else if (in->opsize == 2)
		emit_op_reg(&t->e, true, 0x0fbf, R14, R14); /* movsx r14, r14w */
}

static bool compute_bit_string(struct tr *t, const struct insn *in, const struct insn_operand *mo)
{
	struct tr_subst s = {-1, R14, -1, -1, NULL};
	struct emem m = EMEM(R13, 0);
	unsigned shift = in->opsize == 8 ? 6 : in->opsize == 4 ? 5 : 4;

	if (in->addrsize != 8 || !tr_address(t))
		return false;
	tr_flags_rescue(t);
	bit_offset(t, in);
	emit_byte(&t->e, 0x49); /* sar r14, shift */
	emit_byte(&t->e, 0xc1);
	emit_modrm_reg(&t->e, 7, R14);
	emit_byte(&t->e, shift);
	emit_lea(&t->e, R13, EMEMX(R13, R14, in->opsize, 0));
	tr_lookup(t, mo->write, in->opsize);
	tr_get(t, R14, in->op[1].reg);
	emit_byte(&t->e, 0x41); /* and r14d, bits - 1 */
	emit_byte(&t->e, 0x83);
	emit_modrm_reg(&t->e, 4, R14);
	emit_byte(&t->e, (1u << shift) - 1);
	flags_for_insn(t, in);
	s.mem = &m;
	tr_reencode(t, in, &s);
	return true;
}

static bool compute_reg(struct tr *t, const struct insn *in)
{
	static const uint8_t avail[] = {R13, R14};
	struct tr_subst s = {-1, -1, -1, -1, NULL};
	struct scratch sc[2];
	struct emem slot;
	int n;

	if (use_slot_as_rm(in)) {
		for (unsigned i = 0; i < in->nops; i++) {
			const struct insn_operand *o = &in->op[i];

			if (o->enc == ENC_RM)
				slot = EMEM(RSP, tr_slot(o->reg));
			else if (o->kind == OPND_GPR && o->reg == RSP && subst_field(&s, o->enc))
				*subst_field(&s, o->enc) = R15;
		}
		s.mem = &slot;
		flags_for_insn(t, in);
		tr_reencode(t, in, &s);
		t->scratch_known = true;
		return true;
	}
	n = assign_scratch(in, &s, sc, avail, 2);
	if (n < 0)
		return compute_three(t, in, NULL);
	/* AH..BH exist without REX only, and R15 (guest RSP) needs one. */
	if (touches_high8(in) && (s.rm == R15 || s.reg == R15))
		return false;
	t->scratch_known = true;
	for (int k = 0; k < n; k++) {
		t->held[sc[k].host - R13] = -1;
		if (sc[k].load)
			emit_load(&t->e, sc[k].host, EMEM(RSP, tr_slot(sc[k].guest)));
	}
	flags_for_insn(t, in);
	tr_reencode(t, in, &s);
	for (int k = 0; k < n; k++)
		if (sc[k].store)
			emit_store(&t->e, EMEM(RSP, tr_slot(sc[k].guest)), sc[k].host);
	return true;
}

bool tr_compute(struct tr *t)
{
	const struct insn *in = tr_insn(t);
	const struct insn_operand *mo = mem_operand(in);

	if (mo && is_bit_string(in))
		return compute_bit_string(t, in, mo);
	if (mo)
		return compute_mem(t, in, mo);
	/* Host faults (#DE, SIMD and x87 exceptions) find the instruction through a site. */
	if (in->kind != INSN_INT || in->mnemonic == ZYDIS_MNEMONIC_DIV || in->mnemonic == ZYDIS_MNEMONIC_IDIV)
		tr_site(t, SITE_END, 0);
	return compute_reg(t, in);
}
