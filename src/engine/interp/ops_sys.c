/* SPDX-License-Identifier: Apache-2.0 */
/*
 * System instructions: privilege checks and operands here, meaning in cpu/.
 *
 * Invariant: every check of the instruction's own (CPL, mode, CR4 enable bits, UMIP) comes before operands are read, as the manual's
 * pseudocode has it. Spec: SDM vol. 2, vol. 3A 2.8, 5.9.
 */
#include "engine/interp/ops.h"

static int need_cpl0(struct vcpu *v)
{
	return v->cpl ? cpu_gp0(v) : 0;
}

/* SGDT, SIDT, SLDT, STR, SMSW outside ring 0. */
static int need_umip(struct vcpu *v)
{
	return v->cpl && (v->cr4 & CR4_UMIP) ? cpu_gp0(v) : 0;
}

static int need_protected(struct vcpu *v)
{
	return v->cr0 & CR0_PE ? 0 : cpu_ud(v);
}

/* --- control, debug, model-specific registers ------------------------------------------------------------------- */

static int mov_cr(struct vcpu *v, const struct insn *in)
{
	bool load = in->op[0].kind == OPND_CR;
	const struct insn_operand *r = &in->op[load ? 1 : 0];
	unsigned size = v->mode == INSN_MODE_64 ? 8 : 4;
	uint64_t x;

	if (need_cpl0(v))
		return OP_FAULT;
	if (load)
		return cpu_write_cr(v, in->op[0].reg, reg_get(v, r, size));
	if (cpu_read_cr(v, in->op[1].reg, &x))
		return OP_FAULT;
	reg_set(v, r, size, x);
	return OP_NEXT;
}
OP_ONE(op_mov_cr, mov_cr);

static int mov_dr(struct vcpu *v, const struct insn *in)
{
	bool load = in->op[0].kind == OPND_DR;
	const struct insn_operand *r = &in->op[load ? 1 : 0];
	unsigned size = v->mode == INSN_MODE_64 ? 8 : 4;
	uint64_t x;

	if (need_cpl0(v))
		return OP_FAULT;
	if (load)
		return cpu_write_dr(v, in->op[0].reg, reg_get(v, r, size));
	if (cpu_read_dr(v, in->op[1].reg, &x))
		return OP_FAULT;
	reg_set(v, r, size, x);
	return OP_NEXT;
}
OP_ONE(op_mov_dr, mov_dr);

static void set_edx_eax(struct vcpu *v, uint64_t x)
{
	v->gpr[RAX] = (uint32_t)x;
	v->gpr[RDX] = x >> 32;
}

static uint64_t get_edx_eax(const struct vcpu *v)
{
	return (uint32_t)v->gpr[RAX] | v->gpr[RDX] << 32;
}

static int rdmsr(struct vcpu *v, const struct insn *in)
{
	uint64_t x;

	(void)in;
	if (need_cpl0(v) || cpu_rdmsr(v, (uint32_t)v->gpr[RCX], &x))
		return OP_FAULT;
	set_edx_eax(v, x);
	return OP_NEXT;
}

static int wrmsr(struct vcpu *v, const struct insn *in)
{
	(void)in;
	return need_cpl0(v) || cpu_wrmsr(v, (uint32_t)v->gpr[RCX], get_edx_eax(v)) ? OP_FAULT : OP_NEXT;
}

static int cpuid(struct vcpu *v, const struct insn *in)
{
	uint32_t out[4];

	(void)in;
	cpu_cpuid(v, (uint32_t)v->gpr[RAX], (uint32_t)v->gpr[RCX], out);
	v->gpr[RAX] = out[0];
	v->gpr[RBX] = out[1];
	v->gpr[RCX] = out[2];
	v->gpr[RDX] = out[3];
	return OP_NEXT;
}

static int rdtsc(struct vcpu *v, const struct insn *in)
{
	(void)in;
	if ((v->cr4 & CR4_TSD) && v->cpl)
		return cpu_gp0(v);
	set_edx_eax(v, cpu_rdtsc(v));
	return OP_NEXT;
}

static int rdtscp(struct vcpu *v, const struct insn *in)
{
	if (rdtsc(v, in))
		return OP_FAULT;
	v->gpr[RCX] = (uint32_t)v->msr_tsc_aux;
	return OP_NEXT;
}

static int rdpid(struct vcpu *v, const struct insn *in)
{
	reg_set(v, &in->op[0], in->op[0].size, (uint32_t)v->msr_tsc_aux);
	return OP_NEXT;
}

/* No performance counters in the CPU model: every index is out of range. */
static int rdpmc(struct vcpu *v, const struct insn *in)
{
	(void)in;
	return cpu_gp0(v);
}

/* Random numbers come from the host's generator; CF = 0 (retry) if it has none to give. */
#define RANDOM(name)                                                                                                   \
	static int name(struct vcpu *v, const struct insn *in)                                                         \
	{                                                                                                              \
		uint64_t x;                                                                                            \
		bool ok;                                                                                               \
                                                                                                                       \
		asm volatile(#name " %[x]" : "=@ccc"(ok), [x] "=r"(x));                                                \
		reg_set(v, &in->op[0], in->op[0].size, ok ? x : 0);                                                    \
		v->rflags = (v->rflags & ~(uint64_t)FL_ARITH) | (ok ? FL_CF : 0);                                      \
		return OP_NEXT;                                                                                        \
	}
RANDOM(rdrand)
RANDOM(rdseed)
OP_ONE(op_rdmsr, rdmsr);
OP_ONE(op_wrmsr, wrmsr);
OP_ONE(op_cpuid, cpuid);
OP_ONE(op_rdtsc, rdtsc);
OP_ONE(op_rdtscp, rdtscp);
OP_ONE(op_rdpid, rdpid);
OP_ONE(op_rdpmc, rdpmc);
OP_ONE(op_rdrand, rdrand);
OP_ONE(op_rdseed, rdseed);

static int xgetbv(struct vcpu *v, const struct insn *in)
{
	uint64_t x;

	(void)in;
	if (!(v->cr4 & CR4_OSXSAVE))
		return cpu_ud(v);
	if (cpu_xgetbv(v, (uint32_t)v->gpr[RCX], &x))
		return OP_FAULT;
	set_edx_eax(v, x);
	return OP_NEXT;
}

static int xsetbv(struct vcpu *v, const struct insn *in)
{
	(void)in;
	if (!(v->cr4 & CR4_OSXSAVE))
		return cpu_ud(v);
	return need_cpl0(v) || cpu_xsetbv(v, (uint32_t)v->gpr[RCX], get_edx_eax(v)) ? OP_FAULT : OP_NEXT;
}
OP_ONE(op_xgetbv, xgetbv);
OP_ONE(op_xsetbv, xsetbv);

/* --- descriptor tables and selectors ------------------------------------------------------------------------------ */

static int store_table(struct vcpu *v, const struct insn *in, const struct vcpu_table *t)
{
	unsigned len = v->mode == INSN_MODE_64 ? 10 : 6;
	uint8_t buf[10];
	gva_t lin;

	if (need_umip(v) || mem_lin(v, in, len, true, &lin))
		return OP_FAULT;
	__builtin_memcpy(buf, &t->limit, 2);
	__builtin_memcpy(buf + 2, &t->base, 8);
	return mem_store_buf(v, lin, buf, len) ? OP_FAULT : OP_NEXT;
}

static int load_table(struct vcpu *v, const struct insn *in, struct vcpu_table *t)
{
	unsigned len = v->mode == INSN_MODE_64 ? 10 : 6;
	uint64_t base = 0;
	uint8_t buf[10];
	gva_t lin;

	if (need_cpl0(v) || mem_lin(v, in, len, false, &lin) || mem_load_buf(v, lin, buf, len))
		return OP_FAULT;
	__builtin_memcpy(&base, buf + 2, len - 2);
	if (v->mode == INSN_MODE_64 && !x86_canonical(base))
		return cpu_gp0(v);
	if (v->mode != INSN_MODE_64 && in->opsize == 2)
		base &= 0xffffff;
	t->base = base;
	__builtin_memcpy(&t->limit, buf, 2);
	return OP_NEXT;
}

static int sgdt(struct vcpu *v, const struct insn *in) { return store_table(v, in, &v->gdt); }
static int sidt(struct vcpu *v, const struct insn *in) { return store_table(v, in, &v->idt); }
static int lgdt(struct vcpu *v, const struct insn *in) { return load_table(v, in, &v->gdt); }
static int lidt(struct vcpu *v, const struct insn *in) { return load_table(v, in, &v->idt); }
OP_ONE(op_sgdt, sgdt);
OP_ONE(op_sidt, sidt);
OP_ONE(op_lgdt, lgdt);
OP_ONE(op_lidt, lidt);

/* SLDT, STR, SMSW: 16 bits to memory, the operand size to a register. */
static int store_word(struct vcpu *v, const struct insn *in, uint64_t x)
{
	if (need_umip(v))
		return OP_FAULT;
	if (in->op[0].kind == OPND_MEM)
		return mem_write_op(v, in, 2, x);
	reg_set(v, &in->op[0], in->op[0].size, x);
	return OP_NEXT;
}

static int sldt(struct vcpu *v, const struct insn *in)
{
	return need_protected(v) ? OP_FAULT : store_word(v, in, v->seg[LDTR].sel);
}
static int str(struct vcpu *v, const struct insn *in)
{
	return need_protected(v) ? OP_FAULT : store_word(v, in, v->seg[TR].sel);
}
static int smsw(struct vcpu *v, const struct insn *in) { return store_word(v, in, v->cr0); }
OP_ONE(op_sldt, sldt);
OP_ONE(op_str, str);
OP_ONE(op_smsw, smsw);

static int lmsw(struct vcpu *v, const struct insn *in)
{
	uint64_t x;

	return need_cpl0(v) || op_read(v, in, 0, 2, &x) || cpu_lmsw(v, (uint16_t)x) ? OP_FAULT : OP_NEXT;
}

static int lldt(struct vcpu *v, const struct insn *in)
{
	uint64_t x;

	return need_protected(v) || need_cpl0(v) || op_read(v, in, 0, 2, &x) || cpu_lldt(v, (uint16_t)x) ? OP_FAULT : OP_NEXT;
}

static int ltr(struct vcpu *v, const struct insn *in)
{
	uint64_t x;

	return need_protected(v) || need_cpl0(v) || op_read(v, in, 0, 2, &x) || cpu_ltr(v, (uint16_t)x) ? OP_FAULT : OP_NEXT;
}
OP_ONE(op_lmsw, lmsw);
OP_ONE(op_lldt, lldt);
OP_ONE(op_ltr, ltr);

static void set_zf(struct vcpu *v, bool ok)
{
	v->rflags = (v->rflags & ~(uint64_t)FL_ZF) | (ok ? FL_ZF : 0);
}

static int lar_lsl(struct vcpu *v, const struct insn *in, int (*look)(struct vcpu *, uint16_t, bool *, uint32_t *))
{
	uint64_t sel;
	uint32_t x;
	bool ok;

	if (need_protected(v) || op_read(v, in, 1, 2, &sel) || look(v, (uint16_t)sel, &ok, &x))
		return OP_FAULT;
	if (ok)
		reg_set(v, &in->op[0], in->op[0].size, x);
	set_zf(v, ok);
	return OP_NEXT;
}
static int lar(struct vcpu *v, const struct insn *in) { return lar_lsl(v, in, cpu_lar); }
static int lsl(struct vcpu *v, const struct insn *in) { return lar_lsl(v, in, cpu_lsl); }

static int verify(struct vcpu *v, const struct insn *in, bool write)
{
	uint64_t sel;
	bool ok;

	if (need_protected(v) || op_read(v, in, 0, 2, &sel) || cpu_verify(v, (uint16_t)sel, write, &ok))
		return OP_FAULT;
	set_zf(v, ok);
	return OP_NEXT;
}
static int verr(struct vcpu *v, const struct insn *in) { return verify(v, in, false); }
static int verw(struct vcpu *v, const struct insn *in) { return verify(v, in, true); }
OP_ONE(op_lar, lar);
OP_ONE(op_lsl, lsl);
OP_ONE(op_verr, verr);
OP_ONE(op_verw, verw);

/* ARPL: raises the destination selector's RPL to the source's. */
static int arpl(struct vcpu *v, const struct insn *in)
{
	uint64_t dst, src = reg_get(v, &in->op[1], 2);
	struct rmw m = {0};
	bool mem = in->op[0].kind == OPND_MEM, raise;

	if (need_protected(v) || (mem && rmw_open(v, in, 2, &m, &dst)))
		return OP_FAULT;
	if (!mem)
		dst = reg_get(v, &in->op[0], 2);
	raise = (dst & 3) < (src & 3);
	if (raise) {
		uint64_t x = (dst & ~3ull) | (src & 3);

		if (mem)
			rmw_commit(v, &m, 2, false, &dst, x);
		else
			reg_set(v, &in->op[0], 2, x);
	}
	set_zf(v, raise);
	return OP_NEXT;
}
OP_ONE(op_arpl, arpl);

/* --- caches and translations ------------------------------------------------------------------------------------------ */

static int clts(struct vcpu *v, const struct insn *in)
{
	(void)in;
	return need_cpl0(v) || cpu_clts(v) ? OP_FAULT : OP_NEXT;
}

/* WBINVD, INVD: caches are coherent, nothing to write back. */
static int wbinvd(struct vcpu *v, const struct insn *in)
{
	(void)in;
	return need_cpl0(v) ? OP_FAULT : OP_NEXT;
}

/* The operand is an address, not an access: no segment or canonical fault. */
static int invlpg(struct vcpu *v, const struct insn *in)
{
	uint64_t lin = ea_offset(v, in);

	if (v->mode != INSN_MODE_64)
		lin = (uint32_t)(lin + v->seg[in->mem.seg].base);
	else if (in->mem.seg >= FS)
		lin += v->seg[in->mem.seg].base;
	return need_cpl0(v) || cpu_invlpg(v, lin) ? OP_FAULT : OP_NEXT;
}

static int invpcid(struct vcpu *v, const struct insn *in)
{
	unsigned size = v->mode == INSN_MODE_64 ? 8 : 4;
	uint64_t pcid, addr;
	gva_t lin;

	if (need_cpl0(v) || mem_lin(v, in, 16, false, &lin) || lin_load(v, lin, 8, &pcid) || lin_load(v, lin + 8, 8, &addr))
		return OP_FAULT;
	return cpu_invpcid(v, reg_get(v, &in->op[0], size), pcid, addr) ? OP_FAULT : OP_NEXT;
}

/* CLFLUSH and kin are checked like a one-byte load. */
static int clflush(struct vcpu *v, const struct insn *in)
{
	uint64_t x;

	return mem_read_op(v, in, 1, &x) ? OP_FAULT : OP_NEXT;
}

/* Device threads are the other side of a guest's fence. */
static int fence(struct vcpu *v, const struct insn *in)
{
	(void)v;
	(void)in;
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	return OP_NEXT;
}
OP_ONE(op_clts, clts);
OP_ONE(op_wbinvd, wbinvd);
OP_ONE(op_invlpg, invlpg);
OP_ONE(op_invpcid, invpcid);
OP_ONE(op_clflush, clflush);
OP_ONE(op_fence, fence);

/* --- ports --------------------------------------------------------------------------------------------------------------- */

static uint16_t port_of(const struct vcpu *v, const struct insn_operand *o, const struct insn *in)
{
	return (uint16_t)(o->kind == OPND_IMM ? in->imm[o->reg] & 0xff : v->gpr[RDX]);
}

static int in_port(struct vcpu *v, const struct insn *in)
{
	uint16_t port = port_of(v, &in->op[1], in);
	unsigned size = in->op[0].size;

	if (cpu_io_check(v, port, size))
		return OP_FAULT;
	gpr_write(v, RAX, size, cpu_pio_read(v, port, size));
	return OP_NEXT;
}

static int out_port(struct vcpu *v, const struct insn *in)
{
	uint16_t port = port_of(v, &in->op[0], in);
	unsigned size = in->op[1].size;

	if (cpu_io_check(v, port, size))
		return OP_FAULT;
	cpu_pio_write(v, port, size, v->gpr[RAX] & size_mask(size));
	return OP_NEXT;
}
OP_ONE(op_in, in_port);
OP_ONE(op_out, out_port);

/* --- entry and exit ------------------------------------------------------------------------------------------------------- */

static int syscall_(struct vcpu *v, const struct insn *in)
{
	return cpu_syscall(v, next_rip(v, in)) ? OP_FAULT : OP_JUMP;
}

static int sysret(struct vcpu *v, const struct insn *in)
{
	/* Zydis reports 64-bit operands always; REX.W chooses. */
	return need_cpl0(v) || cpu_sysret(v, in->rex & 8 ? 8 : 4) ? OP_FAULT : OP_JUMP;
}

static int sysenter(struct vcpu *v, const struct insn *in)
{
	(void)in;
	return cpu_sysenter(v) ? OP_FAULT : OP_JUMP;
}

static int sysexit(struct vcpu *v, const struct insn *in)
{
	return need_cpl0(v) || cpu_sysexit(v, in->rex & 8 ? 8 : 4) ? OP_FAULT : OP_JUMP;
}

static int iret(struct vcpu *v, const struct insn *in)
{
	return cpu_iret(v, in->opsize) ? OP_FAULT : OP_JUMP;
}

static int swapgs(struct vcpu *v, const struct insn *in)
{
	(void)in;
	return need_cpl0(v) || cpu_swapgs(v) ? OP_FAULT : OP_NEXT;
}

static int cli(struct vcpu *v, const struct insn *in)
{
	(void)in;
	return cpu_cli(v);
}

static int sti(struct vcpu *v, const struct insn *in)
{
	(void)in;
	return cpu_sti(v);
}

static int hlt(struct vcpu *v, const struct insn *in)
{
	if (need_cpl0(v))
		return OP_FAULT;
	v->rip = next_rip(v, in);
	v->stats.hlt++;
	if (unlikely(v->pv_kicked)) {
		v->pv_kicked = false;
		return OP_JUMP;
	}
	v->halted = true;
	return OP_HLT;
}

static int vmcall(struct vcpu *v, const struct insn *in)
{
	(void)in;
	cpu_hypercall(v);
	return OP_NEXT;
}

static int pause_(struct vcpu *v, const struct insn *in)
{
	(void)in;
	if (v->count > 1)
		cpu_pause(v);
	return OP_NEXT;
}

static int ud(struct vcpu *v, const struct insn *in)
{
	(void)in;
	return cpu_ud(v);
}
OP_ONE(op_syscall, syscall_);
OP_ONE(op_sysret, sysret);
OP_ONE(op_sysenter, sysenter);
OP_ONE(op_sysexit, sysexit);
OP_ONE(op_iret, iret);
OP_ONE(op_swapgs, swapgs);
OP_ONE(op_cli, cli);
OP_ONE(op_sti, sti);
OP_ONE(op_hlt, hlt);
OP_ONE(op_ud, ud);
OP_ONE(op_vmcall, vmcall);
OP_ONE(op_pause, pause_);

/* --- FS and GS bases ---------------------------------------------------------------------------------------------------------- */

static int base_get(struct vcpu *v, const struct insn *in, enum x86_seg seg)
{
	if (v->mode != INSN_MODE_64 || !(v->cr4 & CR4_FSGSBASE))
		return cpu_ud(v);
	reg_set(v, &in->op[0], in->op[0].size, v->seg[seg].base);
	return OP_NEXT;
}

static int base_set(struct vcpu *v, const struct insn *in, enum x86_seg seg)
{
	uint64_t x = reg_get(v, &in->op[0], in->op[0].size);

	if (v->mode != INSN_MODE_64 || !(v->cr4 & CR4_FSGSBASE))
		return cpu_ud(v);
	if (!x86_canonical(x))
		return cpu_gp0(v);
	v->seg[seg].base = x;
	return OP_NEXT;
}
static int rdfsbase(struct vcpu *v, const struct insn *in) { return base_get(v, in, FS); }
static int rdgsbase(struct vcpu *v, const struct insn *in) { return base_get(v, in, GS); }
static int wrfsbase(struct vcpu *v, const struct insn *in) { return base_set(v, in, FS); }
static int wrgsbase(struct vcpu *v, const struct insn *in) { return base_set(v, in, GS); }
OP_ONE(op_rdfsbase, rdfsbase);
OP_ONE(op_rdgsbase, rdgsbase);
OP_ONE(op_wrfsbase, wrfsbase);
OP_ONE(op_wrgsbase, wrgsbase);

/* --- whole vector state -------------------------------------------------------------------------------------------------------- */

static int state_op(struct vcpu *v, const struct insn *in, enum cpu_xsave_op op, enum cpu_fpu_class cls, unsigned len)
{
	gva_t lin;

	if (cpu_fpu_check(v, cls) ||
	    mem_lin(v, in, len, op != XOP_FXRSTOR && op != XOP_XRSTOR, &lin) ||
	    cpu_xsave_op(v, op, lin, get_edx_eax(v), in->rex & 8))
		return OP_FAULT;
	return OP_NEXT;
}
#define STATE_OP(name, op, cls, len)                                                                                   \
	static int name(struct vcpu *v, const struct insn *in) { return state_op(v, in, op, cls, len); }               \
	OP_ONE(op_##name, name)
STATE_OP(fxsave, XOP_FXSAVE, FPU_FXSAVE, 512);
STATE_OP(fxrstor, XOP_FXRSTOR, FPU_FXSAVE, 512);
STATE_OP(xsave, XOP_XSAVE, FPU_XSAVE, 576);
STATE_OP(xsaveopt, XOP_XSAVEOPT, FPU_XSAVE, 576);
STATE_OP(xsavec, XOP_XSAVEC, FPU_XSAVE, 576);
STATE_OP(xrstor, XOP_XRSTOR, FPU_XSAVE, 576);
