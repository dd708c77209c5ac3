/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The encoder behind emit.h: instruction forms as bytes, no knowledge of guests or blocks.
 */
#include "engine/bt/emit.h"

static inline uint8_t *put(uint8_t *p, unsigned b)
{
	*p = (uint8_t)b;
	return p + 1;
}

static inline uint8_t *put_u32(uint8_t *p, uint32_t v)
{
	__builtin_memcpy(p, &v, sizeof(v));
	return p + sizeof(v);
}

void emit_bytes(struct emit *e, const uint8_t *p, unsigned n)
{
	for (unsigned i = 0; i < n; i++)
		emit_byte(e, p[i]);
}

void emit_u32(struct emit *e, uint32_t v)
{
	if (emit_room(e))
		e->w = put_u32(e->w, v);
}

void emit_u64(struct emit *e, uint64_t v)
{
	emit_u32(e, (uint32_t)v);
	emit_u32(e, (uint32_t)(v >> 32));
}

static inline unsigned scale_bits(unsigned scale)
{
	return scale == 8 ? 3 : scale == 4 ? 2 : scale == 2 ? 1 : 0;
}

static inline uint8_t *put_modrm_mem(uint8_t *p, unsigned reg, const struct emem *m, bool wide)
{
	unsigned r = (reg & 7) << 3;
	bool sib = m->index != NOREG || m->base == NOREG || (m->base & 7) == RSP;
	unsigned mod = 2;

	if (m->base == NOREG || (m->disp == 0 && (m->base & 7) != RBP))
		mod = 0;
	else if (m->disp == 0 || (!wide && m->disp >= -128 && m->disp <= 127))
		mod = 1;
	if (sib) {
		unsigned idx = m->index == NOREG ? RSP : (m->index & 7);
		unsigned base = m->base == NOREG ? RBP : (m->base & 7);

		p = put(p, mod << 6 | r | 4);
		p = put(p, scale_bits(m->scale) << 6 | idx << 3 | base);
	} else {
		p = put(p, mod << 6 | r | (m->base & 7));
	}
	if (mod == 1)
		p = put(p, (uint8_t)m->disp);
	else if (mod == 2 || m->base == NOREG)
		p = put_u32(p, (uint32_t)m->disp);
	return p;
}

void emit_modrm_mem(struct emit *e, unsigned reg, const struct emem *m, bool wide)
{
	if (emit_room(e))
		e->w = put_modrm_mem(e->w, reg, m, wide);
}

void emit_modrm_reg(struct emit *e, unsigned reg, unsigned rm)
{
	emit_byte(e, 0xc0 | (reg & 7) << 3 | (rm & 7));
}

static inline unsigned rex_mem(bool w, unsigned reg, const struct emem *m)
{
	return (w ? 8u : 0) | (reg & 8 ? 4u : 0) | (m->index != NOREG && (m->index & 8) ? 2u : 0) |
	       (m->base != NOREG && (m->base & 8) ? 1u : 0);
}

static inline uint8_t *put_opcode(uint8_t *p, unsigned rex, unsigned op)
{
	if (rex)
		p = put(p, 0x40 | rex);
	if (op > 0xff)
		p = put(p, op >> 8);
	return put(p, op & 0xff);
}

void emit_op_mem(struct emit *e, bool w, unsigned op, unsigned reg, struct emem m)
{
	if (emit_room(e))
		e->w = put_modrm_mem(put_opcode(e->w, rex_mem(w, reg, &m), op), reg, &m, false);
}

void emit_op_reg(struct emit *e, bool w, unsigned op, unsigned reg, unsigned rm)
{
	unsigned rex = (w ? 8u : 0) | (reg & 8 ? 4u : 0) | (rm & 8 ? 1u : 0);

	if (emit_room(e))
		e->w = put(put_opcode(e->w, rex, op), 0xc0 | (reg & 7) << 3 | (rm & 7));
}

void emit_mov_imm(struct emit *e, unsigned reg, uint64_t imm)
{
	unsigned b = reg & 8 ? 1 : 0;

	if (imm <= 0xffffffffu) {
		if (b)
			emit_byte(e, 0x41);
		emit_byte(e, 0xb8 | (reg & 7));
		emit_u32(e, (uint32_t)imm);
	} else if ((int64_t)imm == (int32_t)imm) {
		emit_byte(e, 0x48 | b);
		emit_byte(e, 0xc7);
		emit_modrm_reg(e, 0, reg);
		emit_u32(e, (uint32_t)imm);
	} else {
		emit_byte(e, 0x48 | b);
		emit_byte(e, 0xb8 | (reg & 7));
		emit_u64(e, imm);
	}
}

void emit_store_imm32(struct emit *e, struct emem m, uint32_t imm)
{
	emit_op_mem(e, false, 0xc7, 0, m);
	emit_u32(e, imm);
}

/* VEX.0F38.W1 F5 with pp = F3 (pext) or F2 (pdep): vvvv = value, r/m = mask. */
static void emit_vex_f5(struct emit *e, unsigned pp, unsigned dst, unsigned src, const struct emem *m)
{
	unsigned rex = rex_mem(false, dst, m);
	uint8_t *p = e->w;

	if (!emit_room(e))
		return;
	p = put(p, 0xc4);
	p = put(p, (rex & 4 ? 0 : 0x80u) | (rex & 2 ? 0 : 0x40u) | (rex & 1 ? 0 : 0x20u) | 2);
	p = put(p, 0x80 | (~src & 15) << 3 | pp);
	p = put(p, 0xf5);
	e->w = put_modrm_mem(p, dst, m, false);
}

void emit_pext(struct emit *e, unsigned dst, unsigned src, struct emem mask)
{
	emit_vex_f5(e, 2, dst, src, &mask);
}

void emit_pdep(struct emit *e, unsigned dst, unsigned src, struct emem mask)
{
	emit_vex_f5(e, 3, dst, src, &mask);
}

void emit_rorx(struct emit *e, unsigned dst, unsigned src, unsigned count)
{
	emit_byte(e, 0xc4);
	emit_byte(e, (dst & 8 ? 0 : 0x80u) | 0x40 | (src & 8 ? 0 : 0x20u) | 3);
	emit_byte(e, 0xfb);
	emit_byte(e, 0xf0);
	emit_modrm_reg(e, dst, src);
	emit_byte(e, count);
}

void emit_shift(struct emit *e, unsigned op, unsigned reg, uint8_t count)
{
	emit_op_reg(e, true, 0xc1, op, reg);
	emit_byte(e, count);
}

void emit_and_imm32(struct emit *e, unsigned reg, uint32_t imm)
{
	emit_op_reg(e, false, 0x81, 4, reg);
	emit_u32(e, imm);
}

void emit_and_page(struct emit *e, unsigned reg)
{
	emit_op_reg(e, true, 0x81, 4, reg);
	emit_u32(e, (uint32_t)-(int32_t)PAGE_SIZE);
}

void emit_imul_imm32(struct emit *e, unsigned dst, unsigned src, int32_t imm)
{
	emit_op_reg(e, true, 0x69, dst, src);
	emit_u32(e, (uint32_t)imm);
}

void emit_test_imm32(struct emit *e, unsigned reg, uint32_t imm)
{
	emit_op_reg(e, false, 0xf7, 0, reg);
	emit_u32(e, imm);
}

void emit_flags_to_reg(struct emit *e, unsigned reg)
{
	emit_byte(e, 0x9c);
	if (reg & 8)
		emit_byte(e, 0x41);
	emit_byte(e, 0x58 | (reg & 7));
}

void emit_test_imm8(struct emit *e, unsigned reg, uint8_t imm)
{
	emit_byte(e, 0x40 | (reg & 8 ? 1 : 0));
	emit_byte(e, 0xf6);
	emit_modrm_reg(e, 0, reg);
	emit_byte(e, imm);
}

void emit_patch(const struct emit *e, uint8_t *at, uintptr_t target)
{
	uintptr_t next = (uintptr_t)((int64_t)(uintptr_t)at + e->x_minus_w) + 4;
	int32_t rel = (int32_t)(target - next);

	__builtin_memcpy(at, &rel, sizeof(rel));
}

/* One or two bytes of opcode (`first` 0: one), then the displacement. */
static uint8_t *emit_branch(struct emit *e, unsigned first, unsigned op, uintptr_t target)
{
	uint8_t *at;

	if (!emit_room(e))
		return e->w;
	at = put(first ? put(e->w, first) : e->w, op);
	e->w = at + 4;
	emit_patch(e, at, target);
	return at;
}

uint8_t *emit_jmp(struct emit *e, uintptr_t target)
{
	return emit_branch(e, 0, 0xe9, target);
}

uint8_t *emit_call(struct emit *e, uintptr_t target)
{
	return emit_branch(e, 0, 0xe8, target);
}

uint8_t *emit_jcc(struct emit *e, enum cond cc, uintptr_t target)
{
	return emit_branch(e, 0x0f, 0x80u | cc, target);
}
