/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Finds the displacement and the immediate of common instructions, without decoding what they are.
 *
 * Invariant: whatever the length of an instruction and the meaning of its other bytes depend on is in the key: prefixes, opcode, ModRM,
 * SIB, immediates marked `K`, the sign of the others. tests/unit/x86 compares with insn_decode() for every opcode.
 * Encodings: SDM vol. 2A 2.1 (legacy), 2.3 (VEX), vol. 2D appendix A (opcode maps).
 */
#include "x86/form.h"

/*
 * A character for each opcode:
 *
 *     .  no operand bytes         b  imm8                       m  ModRM              x  ModRM and imm8
 *     ?  no form                  z  imm16 or imm32             y  ModRM and imm16 or imm32
 *     k  imm8, part of the form   v  imm16, imm32 or imm64      K  ModRM and imm8, part of the form
 *     j  rel32                    3  ModRM, and an immediate with the opcode extensions 0 and 1 (F6: imm8, F7: imm16 or imm32)
 */
static const char one_byte[256 + 1] = {
	"mmmmbz??mmmmbz??" /* 00 */
	"mmmmbz??mmmmbz??"
	"mmmmbz??mmmmbz??" /* 20 */
	"mmmmbz??mmmmbz??"
	"................" /* 40: in 64-bit code prefixes, below */
	"................"
	"???m????zybx...." /* 60 */
	"bbbbbbbbbbbbbbbb"
	"xy?xmmmmmmmmmmm?" /* 80 */
	"..........?....."
	"????....bz......" /* A0 */
	"bbbbbbbbvvvvvvvv"
	"KK?.??xy?.?..??." /* C0 */
	"mmmm???.mmmmmmmm"
	"bbbbkkkkjj?b...." /* E0 */
	"????..33......mm"
};
static const char two_bytes[256 + 1] = { /* 0F xx */
	"mmmm?....." "?.?m??"   /* 00 */
	"mmmmmmmmmmmmmmmm"
	"????????mmmmmmmm" /* 20 */
	"......??????????"
	"mmmmmmmmmmmmmmmm" /* 40 */
	"mmmmmmmmmmmmmmmm"
	"mmmmmmmmmmmmmmmm" /* 60 */
	"KKKKmmm.????mmmm"
	"jjjjjjjjjjjjjjjj" /* 80 */
	"mmmmmmmmmmmmmmmm"
	"...mKm??...mKmmm" /* A0 */
	"mmmmmmmm?mKmmmmm"
	"mmKmKKKm........" /* C0 */
	"mmmmmmmmmmmmmmmm"
	"mmmmmmmmmmmmmmmm" /* E0 */
	"mmmmmmmmmmmmmmm?"
};

#define KEY_BYTES 7
#define KEY_LEN_SHIFT 56  /* three bits */
#define KEY_SIGN BIT(59)

struct parse {
	const uint8_t *code;
	unsigned n, avail;     /* bytes taken, and how many there are */
	bool opsize, rex_w;
};

static unsigned take(struct parse *p)
{
	return p->n < p->avail ? p->code[p->n++] : (p->n = p->avail + 1, 0);
}

/* VEX: what its opcode is followed by. */
static char vex(struct parse *p, unsigned first)
{
	unsigned map = 1, op;

	if (first == 0xc4)
		map = take(p) & 0x1f;
	take(p);
	op = take(p);
	if (map == 1)
		return op == 0x77 ? '.' : (op >= 0x70 && op <= 0x73) || op == 0xc2 || (op >= 0xc4 && op <= 0xc6) ? 'K' : 'm';
	return map == 2 ? 'm' : map == 3 ? 'K' : '?';
}

/* Prefixes and opcode; returns what follows. */
static char opcode(struct parse *p, enum insn_mode mode)
{
	unsigned b;
	char kind;

	for (;;) {
		b = take(p);
		if (b == 0x66)
			p->opsize = true;
		else if (b == 0x67 ? mode != INSN_MODE_64 : b != 0xf0 && b != 0xf2 && b != 0xf3 && b != 0x64 && b != 0x65 && b != 0x2e && b != 0x3e)
			break;
	}
	if (mode == INSN_MODE_64 && (b & 0xf0) == 0x40) {
		p->rex_w = b & 8;
		b = take(p);
		if ((b & 0xf0) == 0x40)
			return '?';
	}
	if (b == 0xc4 || b == 0xc5)
		return mode == INSN_MODE_64 || (p->n < p->avail && p->code[p->n] >= 0xc0) ? vex(p, b) : '?';
	if (b != 0x0f) {
		kind = one_byte[b];
	} else {
		b = take(p);
		if (b == 0x38 || b == 0x3a) {
			take(p);
			return b == 0x38 ? 'm' : 'K';
		}
		kind = two_bytes[b];
	}
	return kind == 'j' && p->opsize ? '?' : kind;
}

/* ModRM and SIB; returns the size of the displacement. */
static unsigned modrm(struct parse *p, unsigned *reg)
{
	unsigned m = take(p), mod = m >> 6, rm = m & 7;

	*reg = m >> 3 & 7;
	if (mod == 3)
		return 0;
	if (rm == 4)
		rm = take(p) & 7;
	return mod == 1 ? 1 : mod == 2 || rm == 5 ? 4 : 0;
}

static unsigned imm_size(const struct parse *p, char kind)
{
	switch (kind) {
	case 'b': case 'x': case 'k': case 'K': return 1;
	case 'z': case 'y': return p->opsize && !p->rex_w ? 2 : 4;
	case 'v': return p->rex_w ? 8 : p->opsize ? 2 : 4;
	case 'j': return 4;
	default: return 0;
	}
}

bool insn_form(struct insn_form *f, enum insn_mode mode, const uint8_t *code, size_t avail)
{
	struct parse p = {.code = code, .avail = (unsigned)avail};
	unsigned op, disp = 0, imm, reg, head;
	char kind = mode == INSN_MODE_64 || mode == INSN_MODE_32 ? opcode(&p, mode) : '?';

	if (kind == '?' || p.n > avail)
		return false;
	op = code[p.n - 1];
	if (kind == 'm' || kind == 'x' || kind == 'y' || kind == 'K' || kind == '3') {
		disp = modrm(&p, &reg);
		if (kind == '3')
			kind = reg > 1 ? 'm' : op == 0xf6 ? 'x' : 'y';
		/* XABORT, XBEGIN */
		if ((kind == 'x' || kind == 'y') && op >= 0xc6 && op <= 0xc7 && reg)
			return false;
	}
	imm = imm_size(&p, kind);
	head = p.n;
	*f = (struct insn_form){.disp_off = (uint8_t)head, .disp_size = (uint8_t)disp, .imm_off = (uint8_t)(head + disp),
				.imm_size = (uint8_t)imm, .len = (uint8_t)(head + disp + imm)};
	if (f->len > avail || head + (kind == 'k' || kind == 'K') > KEY_BYTES)
		return false;
	for (unsigned i = 0; i < head; i++)
		f->key |= (uint64_t)code[i] << 8 * i;
	if (kind == 'k' || kind == 'K') {
		f->key |= (uint64_t)code[f->imm_off] << 8 * head++;
		f->imm_size = 0;
	} else if (imm && code[f->len - 1] & 0x80) {
		f->key |= KEY_SIGN;
	}
	f->key |= (uint64_t)head << KEY_LEN_SHIFT;
	return true;
}

bool insn_form_agrees(const struct insn_form *f, const struct insn *in)
{
	return in->len == f->len && (!f->imm_size || (in->imm_size == f->imm_size && in->imm_off == f->imm_off));
}

/* `size` bytes, 1 to 8, as a number, without the sign. */
static uint64_t number(const uint8_t *p, unsigned size)
{
	uint64_t n = 0;

	for (unsigned i = 0; i < size; i++)
		n |= (uint64_t)p[i] << 8 * i;
	return n;
}

void insn_form_fill(struct insn *in, const struct insn_form *f, const uint8_t *code)
{
	for (unsigned i = 0; i < f->len; i++)
		in->bytes[i] = code[i];
	if (f->disp_size)
		in->mem.disp = f->disp_size == 1 ? (int8_t)code[f->disp_off] : (int32_t)number(code + f->disp_off, 4);
	if (f->imm_size) {
		uint64_t mask = ~0ull >> (64 - 8 * f->imm_size);

		/* The sign being part of the form, so are the bits above. */
		in->imm[0] = (in->imm[0] & ~mask) | number(code + f->imm_off, f->imm_size);
	}
}
