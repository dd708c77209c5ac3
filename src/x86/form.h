/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The form of an instruction: its bytes without displacement and immediate. Instructions of one form decode to the same struct insn but
 * for these numbers and the bytes themselves, so a form that has been decoded (Zydis: 160 ns) serves all of them (20 ns).
 *
 * What depends on more than the form has none: forms are an offer, not a decoder. Immediates that choose what an instruction is or which
 * flags it writes (shift counts, shuffles, operands in them) count as part of the form.
 */
#ifndef X86_FORM_H
#define X86_FORM_H

#include "x86/insn.h"

struct insn_form {
	uint64_t key;      /* equal for equal forms of a mode; not 0. Bits 60..63 are 0, for the caller's use */
	uint8_t len;       /* of the instruction */
	uint8_t disp_off, disp_size;
	uint8_t imm_off, imm_size; /* 0: none, or it is part of the form */
};

/* The form of the instruction at `code`, whose bytes nobody else writes meanwhile. False: it has none, or is longer than `avail`. */
bool insn_form(struct insn_form *f, enum insn_mode mode, const uint8_t *code, size_t avail);

/* `in` has been decoded from code of the form `f`: whether it agrees with what insn_form() took its bytes for. */
bool insn_form_agrees(const struct insn_form *f, const struct insn *in);

/* Makes `in`, decoded from other code of the form `f`, what decoding `code` gives. */
void insn_form_fill(struct insn *in, const struct insn_form *f, const uint8_t *code);

#endif
