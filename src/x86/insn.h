/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A decoded instruction: what the interpreter executes and the translator re-encodes.
 *
 * insn_decode() wraps Zydis, rejects what the CPU model (x86-64-v3, or -v4 where the host is one) does not have, and reduces the rest to
 * this struct.
 * It is pure: no guest state, no memory. Mnemonics are Zydis' (ZYDIS_MNEMONIC_ADD ...): a maintained list, not ours.
 */
#ifndef X86_INSN_H
#define X86_INSN_H

#include "base/types.h"
#include "x86/arch.h"

#define INSN_MAX_LEN 15
#define INSN_MAX_OPERANDS 5

/* Code size of the executing segment, and whether CR0.PE is clear (real mode differs in decoding of a few opcodes). */
enum insn_mode { INSN_MODE_64, INSN_MODE_32, INSN_MODE_16, INSN_MODE_REAL };

enum insn_kind {
	INSN_INT,  /* integer, string, control transfer, system: given meaning by our own code */
	INSN_X87,  /* x87 and MMX: executed by the host FPU */
	INSN_VEC,  /* SSE..AVX-512, FMA, AES, ...: executed by the host with its memory operand redirected */
};

enum insn_operand_kind {
	OPND_NONE,
	OPND_GPR,  /* reg = x86_gpr; high8 set for AH CH DH BH (reg is then RAX..RBX) */
	OPND_MEM,  /* described by insn.mem; at most one */
	OPND_IMM,  /* insn.imm[n], n = operand's reg field */
	OPND_REL,  /* branch displacement in insn.imm[0], relative to the next instruction */
	OPND_FAR,  /* ptr16:16/32 in insn.far_sel, insn.imm[0] */
	OPND_SEG,  /* reg = x86_seg */
	OPND_CR,
	OPND_DR,
	OPND_MMX,
	OPND_X87,  /* st(reg) */
	OPND_VEC,  /* xmm/ymm/zmm reg; size 16, 32 or 64 */
	OPND_MASK, /* opmask register k0-k7 that the instruction computes with; the one that selects elements is insn.mask */
};

/* Where an operand is encoded, for re-encoding it: implicit operands are ENC_NONE. */
enum insn_operand_enc { ENC_NONE, ENC_REG /* ModRM.reg */, ENC_RM /* ModRM.rm */, ENC_OPCODE /* low 3 opcode bits */, ENC_VVVV, ENC_IMM, ENC_IS4 };

struct insn_operand {
	uint8_t kind;  /* enum insn_operand_kind */
	uint8_t size;  /* bytes; memory operands of 64..255 bytes (fxsave ...) saturate at 255; see the instruction */
	uint8_t reg;
	uint8_t enc;   /* enum insn_operand_enc */
	bool high8 : 1;
	bool read : 1;
	bool write : 1;
};

struct insn {
	uint16_t mnemonic;     /* ZydisMnemonic */
	uint8_t len;           /* 1..15 */
	uint8_t mode;          /* enum insn_mode */
	uint8_t kind;          /* enum insn_kind */
	uint8_t opsize;        /* effective operand size in bytes: 1, 2, 4, 8 */
	uint8_t addrsize;      /* effective address size in bytes: 2, 4, 8 */
	uint8_t stacksize;     /* width of an implicit stack access: 2, 4, 8 */
	uint8_t map;           /* ZydisOpcodeMap */
	uint8_t opcode;
	uint8_t encoding;      /* ZydisInstructionEncoding: LEGACY, VEX, EVEX, 3DNOW */
	uint8_t category;      /* ZydisInstructionCategory */
	bool lock : 1;
	bool rep : 1;          /* F3 as a repeat prefix of a string instruction */
	bool repne : 1;
	bool has_modrm : 1;
	bool has_vsib : 1;     /* gather: index is a vector register */
	bool rip_relative : 1; /* mem.disp is then relative to the next instruction; mem.base is INSN_NO_REG */
	bool has_rex : 1;
	bool hidden_mem : 1;   /* accesses memory that no operand in op[] names: strings, stack, MASKMOV ... */
	bool privileged : 1;   /* #GP unless CPL 0 (Zydis' attribute) */
	bool avx512 : 1;       /* EVEX, or on opmask registers: needs their state enabled in XCR0 */
	bool whole_faults : 1; /* with in->selected: elements that are not selected are left alone but fault all the same */
	bool packed : 1;       /* the selected elements lie side by side in memory: VCOMPRESS, VEXPAND */
	uint8_t mask;          /* opmask register that selects elements, 0 = all */
	uint8_t selected;      /* how many of its bits say which elements of the memory operand are accessed; 0: all are, whatever it says */
	uint8_t element;       /* bytes of such an element */
	uint8_t vl;            /* VEX, EVEX: vector length in bytes */
	uint8_t modrm;
	uint8_t modrm_off;     /* offset of the ModRM byte in bytes[], 0 if none */
	uint8_t imm_off;       /* offset and size of the trailing immediate bytes in bytes[] (all immediates together) */
	uint8_t imm_size;
	uint8_t prefix_len;    /* legacy prefixes and REX; for VEX the legacy prefixes before it */
	uint8_t rex;           /* the REX byte, 0 if none */
	uint8_t nops;          /* explicit operands in op[] */
	uint16_t flags_read;   /* arithmetic flags and DF, as FL_ bits (low 16): tested */
	uint16_t flags_write;  /* ... modified, set, cleared or left undefined */
	uint16_t flags_undef;
	uint16_t gpr_write;    /* general registers written, operands that are not in op[] included: bit = x86_gpr */
	uint16_t far_sel;
	struct {
		uint8_t seg;   /* effective segment: override or default (SS for rBP/rSP bases) */
		uint8_t base;  /* x86_gpr or INSN_NO_REG */
		uint8_t index;
		uint8_t scale; /* 1, 2, 4, 8 */
		int64_t disp;
	} mem;
	uint64_t imm[2];       /* sign- or zero-extended to 64 bits as the instruction defines */
	struct insn_operand op[INSN_MAX_OPERANDS];
	uint8_t bytes[16];     /* the instruction's own bytes, zero padded */
};

#define INSN_NO_REG 0xff

/*
 * Decodes the instruction at `code`, of which `avail` (1..15) bytes are readable.
 * Returns 0; -ENODATA if it needs more than `avail` bytes (the caller fetches on, or raises #GP past 15);
 * -EILSEQ if it is undefined or not part of the CPU model: #UD.
 */
int insn_decode(struct insn *in, enum insn_mode mode, const uint8_t *code, size_t avail);

/* True if the model has AVX-512 (F, CD, BW, DQ, VL): the host has it and its system lets programs use it. */
bool insn_avx512(void);

/* The name of a mnemonic, in lower case. */
const char *insn_name(unsigned mnemonic);

/* Formats as Intel syntax for traces and dumps. Returns buf. */
const char *insn_format(const struct insn *in, gva_t rip, char *buf, size_t size);

#endif
