/* SPDX-License-Identifier: Apache-2.0 */
/*
 * System instructions that are a few moves on struct vcpu: time stamp, interrupt flag, control and segment registers read, FS and GS bases; and
 * the ways between rings, which C takes without the interpreter.
 *
 * Invariant: what is emitted here cannot fault but for a data access (operand.c). Where the manual wants a fault, or an interrupt waits to be let
 * in, the code branches to the interpreter, which finds the registers as they were before the instruction. Privilege is the block's: supervisor
 * code is translated apart. What else decides (CR4.TSD, FSGSBASE) is a fact that translations are specialised on (run.c).
 * Spec: SDM vol. 2 of each instruction.
 */
#include <Zydis/Zydis.h>

#include "engine/bt/tr.h"

#define M(x) ZYDIS_MNEMONIC_##x

/* A field of struct vcpu, which is at RSP. */
#define FIELD(member) EMEM(RSP, (int32_t)offsetof(struct vcpu, member))

/* TSC + offset without touching flags: r13 = EDX:EAX, add with LEA, split again. */
static bool op_rdtsc(struct tr *t)
{
	struct emit *e = &t->e;

	emit_byte(e, 0x0f);
	emit_byte(e, 0x31);
	emit_rorx(e, R13, RDX, 32);
	emit_lea(e, R13, EMEMX(R13, RAX, 1, 0));
	emit_load(e, R14, FIELD(tsc_offset));
	emit_lea(e, R13, EMEMX(R13, R14, 1, 0));
	emit_op_reg(e, false, 0x89, R13, RAX);
	emit_rorx(e, RDX, R13, 32);
	emit_op_reg(e, false, 0x89, RDX, RDX);
	return true;
}

static bool op_rdtscp(struct tr *t)
{
	op_rdtsc(t);
	emit_load32(&t->e, RCX, FIELD(msr_tsc_aux));
	return true;
}

/* The register operand = a field of struct vcpu, the upper half cleared if it is not read. */
static bool read_field(struct tr *t, struct emem field, bool wide)
{
	unsigned guest = tr_insn(t)->op[0].reg, dst = tr_displaced(guest) ? R13 : tr_host(guest);

	emit_op_mem(&t->e, wide, 0x8b, dst, field);
	tr_put(t, guest, dst);
	return true;
}

/* v->rflags with IF cleared (PEXT and PDEP under one mask = AND without flags) to r13. */
static void rflags_without_if(struct tr *t)
{
	emit_load(&t->e, R13, EMEM(RSP, V_RFLAGS));
	emit_pext(&t->e, R13, R13, EMEM(RSP, H_NOIF));
	emit_pdep(&t->e, R13, R13, EMEM(RSP, H_NOIF));
}

static bool op_cli(struct tr *t)
{
	rflags_without_if(t);
	emit_store(&t->e, EMEM(RSP, V_RFLAGS), R13);
	return true;
}

/* With an interrupt waiting the interpreter does it. Otherwise the interrupt shadow needs nothing: events are looked at on block
 * entry only, so it is enough that the next instruction is in this block (STI; HLT must not be torn apart). */
static bool op_sti(struct tr *t)
{
	struct emit *e = &t->e;
	uint8_t *rel8;
	uint32_t s;

	if (t->i + 1 >= t->n)
		return false;
	s = tr_site(t, 0, 0);
	emit_store(e, EMEM(RSP, H_TMP0), RCX);
	emit_op_mem(e, false, 0x0fb6, RCX, FIELD(irq_waiting)); /* movzx ecx, byte */
	emit_byte(e, 0xe3); /* jrcxz */
	rel8 = e->w;
	emit_byte(e, 0);
	emit_load(e, RCX, EMEM(RSP, H_TMP0));
	tr_stub_call(t, s, BT_SVC_INTERP);
	if (!e->full)
		*rel8 = (uint8_t)(e->w - rel8 - 1);
	emit_load(e, RCX, EMEM(RSP, H_TMP0));
	rflags_without_if(t);
	emit_lea(e, R13, EMEM(R13, FL_IF));
	emit_store(e, EMEM(RSP, V_RFLAGS), R13);
	return true;
}

static bool op_swapgs(struct tr *t)
{
	struct emem gs = FIELD(seg[GS].base), kernel = FIELD(msr_kernel_gs_base);

	emit_load(&t->e, R13, gs);
	emit_load(&t->e, R14, kernel);
	emit_store(&t->e, gs, R14);
	emit_store(&t->e, kernel, R13);
	return true;
}

static bool op_pushf(struct tr *t)
{
	struct emit *e = &t->e;

	if (t->slot)
		tr_flags_to_host(t, R14);
	emit_flags_to_reg(e, R14);
	emit_pext(e, R14, R14, EMEM(RSP, H_ARITH));
	emit_pdep(e, R14, R14, EMEM(RSP, H_ARITH));
	emit_load(e, R13, EMEM(RSP, V_RFLAGS));
	emit_pext(e, R13, R13, EMEM(RSP, H_VIRT));
	emit_pdep(e, R13, R13, EMEM(RSP, H_VIRT));
	emit_lea(e, R13, EMEMX(R13, R14, 1, 0));
	emit_store(e, EMEM(RSP, H_TMP1), R13);
	tr_push_tmp1(t);
	return true;
}

/* The selector to a register, of which 32-bit and wider forms clear the rest, or to 16 bits of memory (SDM vol. 2B MOV). */
static bool op_mov_from_seg(struct tr *t)
{
	const struct insn *in = tr_insn(t);
	struct emem sel = FIELD(seg[in->op[1].reg].sel), m = EMEM(R13, 0);
	bool mem = in->op[0].kind == OPND_MEM;
	unsigned guest = mem ? INSN_NO_REG : in->op[0].reg;

	if (mem) {
		if (!tr_address(t))
			return false;
		tr_lookup(t, true, 2);
	} else if (in->op[0].size >= 4) {
		unsigned dst = tr_displaced(guest) ? R13 : tr_host(guest);

		emit_op_mem(&t->e, false, 0x0fb7, dst, sel); /* movzx r32, word */
		tr_put(t, guest, dst);
		return true;
	} else if (tr_displaced(guest)) {
		m = EMEM(RSP, tr_slot(guest));
	}
	emit_op_mem(&t->e, false, 0x0fb7, R14, sel);
	emit_byte(&t->e, 0x66); /* mov word */
	if (mem || tr_displaced(guest))
		emit_op_mem(&t->e, false, 0x89, R14, m);
	else
		emit_op_reg(&t->e, false, 0x89, R14, tr_host(guest));
	return true;
}

static struct emem control_register(unsigned cr)
{
	return cr == 0 ? FIELD(cr0) : cr == 2 ? FIELD(cr2) : cr == 3 ? FIELD(cr3) : FIELD(cr4);
}

static bool op_mov(struct tr *t)
{
	const struct insn_operand *src = &tr_insn(t)->op[1];

	return src->kind == OPND_CR ? read_field(t, control_register(src->reg), true) : op_mov_from_seg(t);
}

/* A base that is not canonical is #GP. */
static bool write_base(struct tr *t, struct emem base)
{
	const struct insn_operand *o = &tr_insn(t)->op[0];
	struct emit *e = &t->e;

	if (o->size == 8)
		tr_flags_rescue(t);
	tr_get(t, R13, o->reg);
	if (o->size == 4) {
		emit_op_reg(e, false, 0x89, R13, R13);
	} else {
		emit_mov(e, R14, R13);
		emit_shift(e, 4, R14, 16); /* shl, sar */
		emit_shift(e, 7, R14, 16);
		emit_op_reg(e, true, 0x39, R13, R14); /* cmp */
		tr_interpret_if(t, CC_NE);
	}
	emit_store(e, base, R13);
	return true;
}

/* SYSCALL, SYSRET, IRET. */
static bool op_ring(struct tr *t, unsigned flags, unsigned size)
{
	tr_stub_call(t, tr_site(t, SITE_END | flags, size), BT_SVC_SYSCALL);
	t->ended = true;
	return true;
}

bool tr_system(struct tr *t)
{
	const struct insn *in = tr_insn(t);

	switch (in->mnemonic) {
	case M(RDTSC): return op_rdtsc(t);
	case M(RDTSCP): return op_rdtscp(t);
	case M(RDPID): return read_field(t, FIELD(msr_tsc_aux), false);
	case M(CLI): return op_cli(t);
	case M(STI): return op_sti(t);
	case M(SWAPGS): return op_swapgs(t);
	case M(PUSHFQ): return op_pushf(t);
	case M(MOV): return op_mov(t);
	case M(RDFSBASE): return read_field(t, FIELD(seg[FS].base), in->op[0].size == 8);
	case M(RDGSBASE): return read_field(t, FIELD(seg[GS].base), in->op[0].size == 8);
	case M(WRFSBASE): return write_base(t, FIELD(seg[FS].base));
	case M(WRGSBASE): return write_base(t, FIELD(seg[GS].base));
	case M(SYSCALL): return op_ring(t, 0, 0);
	case M(SYSRET): return op_ring(t, SITE_SYSRET, in->opsize);
	default: return op_ring(t, SITE_IRET, in->opsize);
	}
}

/* A store of a selector, and moves from the control registers that are plain fields. */
static bool mov_handled(enum bt_mode mode, const struct insn *in)
{
	const struct insn_operand *src = &in->op[1];

	if (src->kind == OPND_CR)
		return mode == BT_K64 && (src->reg == 0 || src->reg == 2 || src->reg == 3 || src->reg == 4);
	return src->kind == OPND_SEG;
}

bool tr_system_handled(const struct bt *bt, enum bt_mode mode, const struct insn *in)
{
	switch (in->mnemonic) {
	case M(RDTSC): case M(RDTSCP):
		return !bt->tsd && !bt->single;
	case M(STI):
		return mode == BT_K64 && !bt->single;
	case M(CLI): case M(SWAPGS):
		return mode == BT_K64;
	case M(PUSHFQ):
		return mode != BT_U32 && in->opsize == 8;
	case M(MOV):
		return mov_handled(mode, in);
	case M(RDPID):
		return true;
	case M(RDFSBASE): case M(RDGSBASE): case M(WRFSBASE): case M(WRGSBASE):
		return mode != BT_U32 && bt->fsgsbase;
	case M(SYSCALL):
		return mode == BT_U64 && !bt->single;
	case M(SYSRET):
		return mode == BT_K64 && !bt->single;
	case M(IRETQ):
		return mode == BT_K64 && in->opsize == 8 && !bt->single;
	default:
		return false;
	}
}
