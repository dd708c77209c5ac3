/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which instruction forms exist: every opcode of every map with every mandatory prefix, REX.W / VEX.W, vector length and ModRM.reg is tried on
 * insn_decode(), and one encoding is kept per distinct form. So nothing that the decoder accepts can be forgotten; the table of
 * exclusions below says what cannot be compared with the host and why.
 */
#include <Zydis/Mnemonic.h>
#include <Zydis/SharedTypes.h>
#include <stdlib.h>
#include <string.h>

#include "insn_test.h"

#define M(x) ZYDIS_MNEMONIC_##x

/* Results depend on the machine, not on the instruction and its operands; tests/guest covers most of these. */
static const uint16_t excluded[] = {
	M(SYSCALL), M(SYSENTER), M(SYSEXIT), M(SYSRET), M(INT), M(INT1), M(INT3), M(INTO), M(IRET), M(IRETD), M(IRETQ),
	M(VMCALL), M(VMMCALL), /* a hypercall's answer is the hypervisor's */
	M(CPUID), M(RDTSC), M(RDTSCP), M(RDRAND), M(RDSEED), M(RDPMC), M(XGETBV), M(XSETBV),
	M(SGDT), M(SIDT), M(SLDT), M(STR), M(SMSW),                    /* emulated by the host's kernel under UMIP */
	M(LAR), M(LSL), M(VERR), M(VERW), M(LFS), M(LGS), M(LSS),      /* descriptors differ */
	M(FXSAVE), M(FXSAVE64), M(FXRSTOR), M(FXRSTOR64), M(XSAVE), M(XSAVE64), M(XRSTOR), M(XRSTOR64), M(XSAVEC), M(XSAVEC64),
	M(XSAVEOPT), M(XSAVEOPT64),                                    /* host's XCR0 has more components */
	M(RDMSR), M(WRMSR), M(INVPCID),
};

/* The same in every engine, but not on the host: the harness' own thread pointer, the processor it runs on. */
static const uint16_t engines_only[] = {M(RDPID), M(RDFSBASE), M(RDGSBASE), M(WRFSBASE), M(WRGSBASE)};

static bool is_excluded(const struct insn *in, bool host)
{
	for (size_t i = 0; host && i < nitems(engines_only); i++)
		if (engines_only[i] == in->mnemonic)
			return true;
	for (size_t i = 0; i < nitems(excluded); i++)
		if (excluded[i] == in->mnemonic)
			return true;
	/* Reserved NOP on Intel processors, #UD on AMD's. */
	if (in->map == ZYDIS_OPCODE_MAP_0F && in->opcode == 0x0d && in->op[0].kind != OPND_MEM)
		return true;
	/* Segment loads and far transfers. */
	if ((in->mnemonic == M(MOV) || in->mnemonic == M(POP)) && in->op[0].kind == OPND_SEG)
		return true;
	if (in->map == ZYDIS_OPCODE_MAP_DEFAULT && (in->opcode == 0xca || in->opcode == 0xcb))
		return true;
	return in->map == ZYDIS_OPCODE_MAP_DEFAULT && in->opcode == 0xff && in->op[0].kind == OPND_MEM && (in->modrm & 0x08) &&
	       ((in->modrm >> 3) & 7) >= 3 && ((in->modrm >> 3) & 7) <= 5 && ((in->modrm >> 3) & 7) != 4;
}

static bool same_form(const struct insn *a, const struct insn *b)
{
	if (a->mnemonic != b->mnemonic || a->map != b->map || a->opcode != b->opcode || a->nops != b->nops ||
	    a->opsize != b->opsize || a->rep != b->rep || a->repne != b->repne || a->encoding != b->encoding)
		return false;
	for (unsigned i = 0; i < a->nops; i++)
		if (a->op[i].kind != b->op[i].kind || a->op[i].size != b->op[i].size)
			return false;
	return true;
}

struct list {
	bool host;
	struct form *f;
	size_t n, cap;
	size_t map_start;
};

/* Does ModRM.reg select the instruction? It does if some other value decodes to another mnemonic or not at all. */
static bool reg_selects(const uint8_t *bytes, unsigned modrm)
{
	uint8_t b[16];
	struct insn a, c;

	memcpy(b, bytes, 16);
	if (insn_decode(&a, INSN_MODE_64, b, 15) || !a.has_modrm)
		return true;
	for (unsigned r = 0; r < 8; r++) {
		b[modrm] = (uint8_t)((b[modrm] & ~0x38) | r << 3);
		if (insn_decode(&c, INSN_MODE_64, b, 15) || c.mnemonic != a.mnemonic || c.op[0].kind != a.op[0].kind)
			return true;
	}
	return false;
}

static void consider(struct list *l, const uint8_t *bytes, unsigned modrm)
{
	struct insn in;

	if (insn_decode(&in, INSN_MODE_64, bytes, 15) || is_excluded(&in, l->host))
		return;
	for (size_t i = l->map_start; i < l->n; i++)
		if (same_form(&l->f[i].in, &in))
			return;
	if (l->n == l->cap) {
		l->cap = l->cap ? l->cap * 2 : 1024;
		l->f = realloc(l->f, l->cap * sizeof(*l->f));
		if (!l->f)
			abort();
	}
	l->f[l->n] = (struct form){.len = in.len, .in = in, .opcode_off = (uint8_t)(modrm - 1), .reg_fixed = reg_selects(bytes, modrm)};
	memcpy(l->f[l->n].bytes, bytes, 15);
	l->n++;
}

/* All ModRM.reg, memory and register operand, and all ModRM.rm of register operands (x87 and 0F 01 use them as opcode). */
static void modrm_forms(struct list *l, uint8_t *b, unsigned n)
{
	for (unsigned reg = 0; reg < 8; reg++) {
		b[n] = (uint8_t)(reg << 3 | 1); /* [rcx] */
		consider(l, b, n);
		for (unsigned rm = 0; rm < 8; rm++) {
			b[n] = (uint8_t)(0xc0 | reg << 3 | rm);
			consider(l, b, n);
		}
		/* Gathers need SIB and three different registers. */
		b[n] = 0x0c;
		b[n + 1] = 0x11;
		consider(l, b, n);
		b[n + 1] = 0;
	}
}

/* Bytes of the one-byte map that are prefixes or escapes. */
static bool is_prefix(unsigned op)
{
	return (op & 0xe7) == 0x26 || (op >= 0x40 && op <= 0x4f) || (op >= 0x64 && op <= 0x67) || op == 0x0f || op == 0x62 ||
	       op == 0xc4 || op == 0xc5 || op == 0xf0 || op == 0xf2 || op == 0xf3;
}

static void legacy_forms(struct list *l)
{
	static const uint8_t maps[][3] = {{0}, {1, 0x0f}, {2, 0x0f, 0x38}, {2, 0x0f, 0x3a}};
	static const uint8_t pp[] = {0, 0x66, 0xf3, 0xf2};

	for (unsigned m = 0; m < nitems(maps); m++) {
		l->map_start = l->n;
		for (unsigned op = 0; op < 256; op++)
			for (unsigned p = 0; p < 8; p++) {
				uint8_t b[32] = {0};
				unsigned n = 0;

				if (m == 0 && is_prefix(op))
					break;
				if (pp[p & 3])
					b[n++] = pp[p & 3];
				if (p & 4)
					b[n++] = 0x48;
				memcpy(b + n, maps[m] + 1, maps[m][0]);
				n += maps[m][0];
				b[n++] = (uint8_t)op;
				modrm_forms(l, b, n);
			}
	}
}

static void vex_forms(struct list *l)
{
	for (unsigned m = 1; m <= 3; m++) {
		l->map_start = l->n;
		for (unsigned op = 0; op < 256; op++)
			for (unsigned k = 0; k < 32; k++) {
				uint8_t b[32] = {0xc4, (uint8_t)(0xe0 | m)};

				/* W, vvvv (all ones = unused, or xmm2), L, pp */
				b[2] = (uint8_t)((k & 16 ? 0x80 : 0) | (k & 8 ? 0x78 : 0x68) | (k & 4) | (k & 3));
				b[3] = (uint8_t)op;
				modrm_forms(l, b, 4);
			}
	}
}

/* With a mask first: most forms have one, and gathers need it. b: broadcast of a memory operand; of registers gen.c makes rounding. */
static void evex_forms(struct list *l)
{
	for (unsigned m = 1; m <= 3; m++) {
		l->map_start = l->n;
		for (unsigned op = 0; op < 256; op++)
			for (unsigned k = 0; k < 192; k++) {
				uint8_t b[32] = {0x62, (uint8_t)(0xf0 | m)};

				/* W, vvvv (all ones = unused, or xmm2), pp; L'L, b */
				b[2] = (uint8_t)((k & 16 ? 0x80 : 0) | (k & 8 ? 0x78 : 0x68) | 4 | (k & 3));
				b[3] = (uint8_t)((k / 64) << 5 | (k & 32 ? 0x10 : 0) | 8 | (k & 4 ? 0 : 1));
				b[4] = (uint8_t)op;
				modrm_forms(l, b, 5);
			}
	}
}

size_t forms_enumerate(struct form **out, bool host)
{
	struct list l = {.host = host};

	legacy_forms(&l);
	vex_forms(&l);
	evex_forms(&l);
	*out = l.f;
	return l.n;
}
