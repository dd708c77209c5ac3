/* SPDX-License-Identifier: Apache-2.0 */
/*
 * MOVS, STOS, CMPS, SCAS and LODS, repeated or not: executed in place where all they touch lies in one page each, which is present, and DF is clear. The interpreter does
 * the rest, and fills the tables on its way.
 *
 *     DF clear? rcx at most a page? not zero?
 *     first and last byte in one page; its entry -> r14              the same for rsi, entry -> r13
 *     cmp byte [rdi+r14], 0                                          a non-canonical address faults here, before anything has changed
 *     add rdi, r14 ; rep stos ; sub rdi, r14
 *
 * Invariant: from the first change of RDI or RSI on nothing can fault. A page is the most that runs without a look at the event word.
 */
#include <Zydis/Zydis.h>

#include "engine/bt/tr.h"

/* By opcode, of which bit 0 says that elements are wider than a byte. */
enum { MOVS = 0xa4, CMPS = 0xa6, STOS = 0xaa, LODS = 0xac, SCAS = 0xae };

static unsigned kind(const struct insn *in)
{
	return in->opcode & 0xfe;
}

static unsigned element(const struct insn *in)
{
	return in->opcode & 1 ? in->opsize : 1;
}

static bool repeated(const struct insn *in)
{
	return in->rep || in->repne;
}

static bool compares(const struct insn *in)
{
	return kind(in) == CMPS || kind(in) == SCAS;
}

static bool uses_source(const struct insn *in)
{
	return kind(in) == MOVS || kind(in) == CMPS || kind(in) == LODS;
}

bool tr_string_handled(const struct insn *in)
{
	if (in->category != ZYDIS_CATEGORY_STRINGOP || in->addrsize != 8 || in->map != ZYDIS_OPCODE_MAP_DEFAULT)
		return false;
	if (in->mem.seg == FS || in->mem.seg == GS)
		return false;
	return compares(in) || (!in->repne && (kind(in) == MOVS || kind(in) == STOS || kind(in) == LODS));
}

/* Where the instruction is left to the interpreter. */
struct leave {
	uint8_t *jump[8];
	unsigned n;
};

static void leave_if(struct tr *t, struct leave *l, enum cond cc)
{
	l->jump[l->n++] = emit_jcc(&t->e, cc, emit_here(&t->e));
}

/* entry = table entry of the page that the bytes from `pointer` on lie in. */
static void one_page(struct tr *t, struct leave *l, unsigned pointer, unsigned entry, unsigned size)
{
	const struct insn *in = tr_insn(t);
	bool write = pointer == RDI && !compares(in);
	struct emit *e = &t->e;

	/* The last byte. */
	emit_lea(e, entry, repeated(in) ? EMEMX((uint8_t)pointer, RCX, (uint8_t)size, -1) : EMEM((uint8_t)pointer, (int)size - 1));
	emit_op_reg(e, false, 0x31, pointer, entry);   /* xor */
	emit_test_imm32(e, entry, PAGE_SIZE);
	leave_if(t, l, CC_NE);
	l->jump[l->n++] = bt_emit_entry(e, pointer, entry, write, 0);
	emit_op_mem(e, false, 0x80, 7, EMEMX((uint8_t)pointer, (uint8_t)entry, 1, 0)); /* cmp byte, 0 */
	emit_byte(e, 0);
}

/* The flags of a comparison to the slot, where those before it are if RCX is 0; no register is free. */
static void save_result(struct emit *e)
{
	emit_store(e, EMEM(RSP, H_TMP0), RAX);
	emit_byte(e, 0x9f); /* lahf */
	emit_op_reg(e, false, 0x0f90, 0, RAX); /* seto al */
	emit_store32(e, EMEM(RSP, H_FL), RAX);
	emit_load(e, RAX, EMEM(RSP, H_TMP0));
}

static void execute(struct tr *t, const struct insn *in, unsigned size)
{
	bool source = uses_source(in), target = kind(in) != LODS;
	struct emit *e = &t->e;

	if (target)
		emit_op_reg(e, true, 0x01, R14, RDI); /* add */
	if (source)
		emit_op_reg(e, true, 0x01, R13, RSI);
	if (size == 2)
		emit_byte(e, 0x66);
	if (repeated(in))
		emit_byte(e, in->rep ? 0xf3 : 0xf2);
	if (size == 8)
		emit_byte(e, 0x48);
	emit_byte(e, in->opcode);
	if (compares(in) && t->slot)
		save_result(e);
	if (target)
		emit_op_reg(e, true, 0x29, R14, RDI); /* sub */
	if (source)
		emit_op_reg(e, true, 0x29, R13, RSI);
}

bool tr_string(struct tr *t)
{
	const struct insn *in = tr_insn(t);
	unsigned size = element(in);
	struct emit *e = &t->e;
	struct leave l = {.n = 0};
	uint8_t *none = NULL, *done;
	uint32_t site;

	/* Flags that are needed afterwards are in the slot from here on: what a comparison writes may be what was there. */
	tr_flags_rescue(t);
	site = tr_site(t, 0, 0);
	emit_flags_to_reg(e, R14);
	emit_test_imm32(e, R14, FL_DF);
	leave_if(t, &l, CC_NE);
	if (repeated(in)) {
		emit_op_reg(e, true, 0x85, RCX, RCX); /* test */
		none = emit_jcc(e, CC_E, emit_here(e));
		emit_op_reg(e, true, 0x81, 7, RCX);   /* cmp rcx, elements of a page */
		emit_u32(e, PAGE_SIZE / size);
		leave_if(t, &l, CC_A);
	}
	if (kind(in) != LODS)
		one_page(t, &l, RDI, R14, size);
	if (uses_source(in))
		one_page(t, &l, RSI, R13, size);
	execute(t, in, size);
	done = emit_jmp(e, emit_here(e));
	for (unsigned i = 0; i < l.n; i++)
		emit_patch(e, l.jump[i], emit_here(e));
	tr_stub_call(t, site, BT_SVC_INTERP);
	if (none)
		emit_patch(e, none, emit_here(e));
	emit_patch(e, done, emit_here(e));
	return true;
}
