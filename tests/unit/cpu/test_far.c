/* SPDX-License-Identifier: Apache-2.0 */
/* cpu/far.c, cpu/task.c: far jumps, calls through gates, returns, IRET with its checks, task switches. */
#include "fixture.h"

static void put_frame(struct bed *b, uint64_t rip, uint64_t cs, uint64_t fl, uint64_t rsp, uint64_t ss)
{
	const uint64_t f[5] = { rip, cs, fl, rsp, ss };

	mem_write(b->fx.m, KSTACK - 40, f, sizeof(f));
	b->v->gpr[RSP] = K(KSTACK - 40);
}

static void iret64_checks(void **state)
{
	struct { uint64_t rip, cs, ss; unsigned vec; uint32_t err; } cases[] = {
		{ USER, 0, S_UDATA, VEC_GP, 0 },
		{ USER, 3, S_UDATA, VEC_GP, 0 },
		{ USER, 0x103, S_UDATA, VEC_GP, 0x100 },
		{ USER, S_KDATA, S_KDATA, VEC_GP, S_KDATA },
		{ USER, S_UCODE & ~3, S_UDATA, VEC_GP, S_UCODE & ~3 },          /* RPL 0, DPL 3 */
		{ USER, S_KCODE | 3, S_UDATA, VEC_GP, S_KCODE },
		{ USER, S_ABSENT_CODE, S_KDATA, VEC_NP, S_ABSENT_CODE },
		{ USER, S_UCODE, 0, VEC_GP, 0 },
		{ USER, S_UCODE, 3, VEC_GP, 0 },                                /* null SS at CPL 3 */
		{ USER, S_KCODE, 1, VEC_GP, 0 },                                /* null SS with the wrong RPL */
		{ USER, S_UCODE32, 3, VEC_GP, 0 },
		{ USER, S_UCODE, S_KDATA, VEC_GP, S_KDATA },
		{ USER, S_UCODE, S_RODATA, VEC_GP, S_RODATA & ~3 },
		{ USER, S_UCODE, S_ABSENT_DATA, VEC_SS, S_ABSENT_DATA & ~3 },
		{ 0x800000000000, S_UCODE, S_UDATA, VEC_GP, 0 },
	};
	struct bed *b = *state;
	struct vcpu *v = b->v;

	bed_long(b);
	for (unsigned i = 0; i < nitems(cases); i++) {
		put_frame(b, cases[i].rip, cases[i].cs, FL_IF, USER + 0x100, cases[i].ss);
		expect_fault(cpu_iret(v, 8), v, cases[i].vec, cases[i].err);
		assert_int_equal(v->rip, K(0x1000));
		assert_int_equal(v->cpl, 0);
		assert_int_equal(v->seg[CS].sel, S_KCODE);
		assert_int_equal(v->gpr[RSP], K(KSTACK - 40));
		assert_false(v->rflags & FL_IF);
	}
	v->rflags |= FL_NT;
	put_frame(b, USER, S_UCODE, FL_IF, USER, S_UDATA);
	expect_fault(cpu_iret(v, 8), v, VEC_GP, 0);
	v->rflags &= ~(uint64_t)FL_NT;
	/* Null SS is fine between 64-bit inner levels, and IRET always pops it. */
	put_frame(b, K(0x2000), S_KCODE, FL_FIXED, K(0x30001), 0);
	assert_int_equal(cpu_iret(v, 8), 0);
	assert_int_equal(v->gpr[RSP], K(0x30001));
	assert_true(v->seg[SS].unusable);
	assert_int_equal(v->mode, INSN_MODE_64);
}

static void iret64_to_compat(void **state)
{
	struct bed *b = *state;
	struct vcpu *v = b->v;

	bed_long(b);
	assert_int_equal(cpu_load_seg(v, DS, S_KDATA), 0);
	assert_int_equal(cpu_load_seg(v, FS, S_UDATA), 0);
	v->seg[FS].base = 0x1234;
	put_frame(b, 0xffffffff00001000, S_UCODE32, FL_IF | FL_IOPL | FL_AC | FL_RF, 0xdead00000800, S_UDATA);
	assert_int_equal(cpu_iret(v, 8), 0);
	assert_int_equal(v->mode, INSN_MODE_32);
	assert_int_equal(v->rip, 0x1000);
	assert_int_equal(v->gpr[RSP], 0x800);
	assert_int_equal(v->rflags, FL_IF | FL_IOPL | FL_AC | FL_RF | FL_FIXED);
	assert_true(v->seg[DS].unusable);                  /* inner data segments are dropped, others kept */
	assert_int_equal(v->seg[FS].base, 0x1234);
	/* 16-bit stack: only SP is loaded. */
	v->cpl = 0;
	v->seg[CS].attr |= SEG_L;
	v->mode = INSN_MODE_64;
	put_frame(b, 0x1000, S_UCODE32, FL_IF, 0x5678, S_UDATA16);
	assert_int_equal(cpu_iret(v, 8), 0);
	assert_int_equal(v->gpr[RSP], (K(KSTACK - 40) & 0xffff0000) | 0x5678);
}

static void iret_flags_at_cpl3(void **state)
{
	struct bed *b = *state;
	struct vcpu *v = b->v;
	const uint64_t f[5] = { USER + 8, S_UCODE, FL_IOPL | FL_CF | FL_ID, USER + 0x700, S_UDATA };

	bed_long(b);
	bed_user(b, S_UCODE);
	mem_write(b->fx.m, FX_DATA + 0x700, f, sizeof(f));
	v->gpr[RSP] = USER + 0x700;
	assert_int_equal(cpu_iret(v, 8), 0);
	assert_int_equal(v->rflags, FL_IF | FL_CF | FL_ID | FL_FIXED);  /* IF and IOPL are not user's to change */
	assert_int_equal(v->rip, USER + 8);
	/* Inwards never. */
	put64(b, FX_DATA + 0x708, S_KCODE);
	v->gpr[RSP] = USER + 0x700;
	expect_fault(cpu_iret(v, 8), v, VEC_GP, S_KCODE);
}

static void jump_checks(void **state)
{
	struct bed *b = *state;
	struct vcpu *v = b->v;

	bed_long(b);
	expect_fault(cpu_far_jump(v, 3, 0, 8), v, VEC_GP, 0);
	expect_fault(cpu_far_jump(v, S_KDATA, 0, 8), v, VEC_GP, S_KDATA);
	expect_fault(cpu_far_jump(v, S_UCODE, 0, 8), v, VEC_GP, S_UCODE & ~3);
	expect_fault(cpu_far_jump(v, S_TSS, 0, 8), v, VEC_GP, S_TSS);
	expect_fault(cpu_far_jump(v, S_KCODE, 0x800000000000, 8), v, VEC_GP, 0);
	expect_fault(cpu_far_jump(v, S_ABSENT_CODE, 0, 8), v, VEC_NP, S_ABSENT_CODE);
	bed_desc(b, S_KCODE32, 0x00ef9a000000ffff);            /* L and D */
	expect_fault(cpu_far_jump(v, S_KCODE32, 0, 8), v, VEC_GP, S_KCODE32);
	bed_user(b, S_UCODE);
	expect_fault(cpu_far_jump(v, S_KCODE, 0, 8), v, VEC_GP, S_KCODE);
	assert_int_equal(cpu_far_jump(v, S_CONF, 0x1234, 8), 0);
	assert_int_equal(v->cpl, 3);
	assert_int_equal(v->seg[CS].sel, S_CONF | 3);
	assert_int_equal(v->rip, 0x1234);
}

static void call_gate64(void **state)
{
	struct bed *b = *state;
	struct vcpu *v = b->v;
	const uint64_t target = K(0x5678);
	uint64_t lo = (target & 0xffff) | (uint64_t)S_KCODE << 16 | 0xecull << 40 | (target >> 16 & 0xffff) << 48;

	bed_long(b);
	bed_desc16(b, S_GATE, lo, target >> 32);
	bed_user(b, S_UCODE);
	assert_int_equal(cpu_far_call(v, S_GATE | 3, 0, 4, USER + 7), 0);
	assert_int_equal(v->cpl, 0);
	assert_int_equal(v->rip, target);
	assert_int_equal(v->seg[CS].sel, S_KCODE);
	assert_int_equal(v->seg[SS].sel, 0);
	assert_int_equal(v->gpr[RSP], K(STACK0 - 32));
	assert_int_equal(get64(b, STACK0 - 32), USER + 7);
	assert_int_equal(get64(b, STACK0 - 24), S_UCODE);
	assert_int_equal(get64(b, STACK0 - 16), USER + 0x800);
	assert_int_equal(get64(b, STACK0 - 8), S_UDATA);
	assert_int_equal(cpu_far_ret(v, 8, 0), 0);
	assert_int_equal(v->cpl, 3);
	assert_int_equal(v->rip, USER + 7);
	assert_int_equal(v->gpr[RSP], USER + 0x800);
	/* A gate of DPL 0 is out of reach; JMP through one may not change the level. */
	expect_fault(cpu_far_jump(v, S_GATE | 3, 0, 4), v, VEC_GP, S_KCODE);
	bed_desc16(b, S_GATE, lo & ~(3ull << 45), target >> 32);
	expect_fault(cpu_far_call(v, S_GATE, 0, 4, 0), v, VEC_GP, S_GATE);
	bed_desc16(b, S_GATE, lo & ~(1ull << 47), target >> 32);
	expect_fault(cpu_far_call(v, S_GATE, 0, 4, 0), v, VEC_NP, S_GATE);
	bed_desc16(b, S_GATE, lo, target >> 32 | 1ull << 40);
	expect_fault(cpu_far_call(v, S_GATE, 0, 4, 0), v, VEC_GP, S_GATE);
}

static void call_gate32_with_parameters(void **state)
{
	struct bed *b = *state;
	struct vcpu *v = b->v;

	bed_prot(b);
	bed_desc(b, S_GATE, 0x5678 | (uint64_t)S_KCODE32 << 16 | 2ull << 32 | 0xecull << 40);
	bed_user32(b);
	fx_put(&b->fx, USER + 0x800, 4, 0x11111111);
	fx_put(&b->fx, USER + 0x804, 4, 0x22222222);
	assert_int_equal(cpu_far_call(v, S_GATE | 3, 0, 4, USER + 7), 0);
	assert_int_equal(v->rip, 0x5678);
	assert_int_equal(v->gpr[RSP], STACK0 - 24);
	assert_int_equal(fx_get(&b->fx, STACK0 - 24, 4), USER + 7);
	assert_int_equal(fx_get(&b->fx, STACK0 - 20, 4), S_UCODE32);
	assert_int_equal(fx_get(&b->fx, STACK0 - 16, 4), 0x11111111);
	assert_int_equal(fx_get(&b->fx, STACK0 - 12, 4), 0x22222222);
	assert_int_equal(fx_get(&b->fx, STACK0 - 8, 4), USER + 0x800);
	assert_int_equal(fx_get(&b->fx, STACK0 - 4, 4), S_UDATA);
	assert_int_equal(cpu_far_ret(v, 4, 8), 0);
	assert_int_equal(v->cpl, 3);
	assert_int_equal(v->gpr[RSP], USER + 0x808);
	/* Beyond the segment's limit. */
	bed_desc(b, S_UCODE32, 0x0040fa0000000fff);
	expect_fault(cpu_far_jump(v, S_UCODE32, 0x1000, 4), v, VEC_GP, 0);
	assert_int_equal(cpu_far_jump(v, S_UCODE32, 0xfff, 4), 0);
}

static void real_call(void **state)
{
	struct bed *b = *state;
	struct vcpu *v = b->v;

	v->gpr[RSP] = 0x9000;
	assert_int_equal(cpu_far_call(v, 0x3000, 0x44, 2, 0xfff5), 0);
	assert_int_equal(v->seg[CS].base, 0x30000);
	assert_int_equal(v->gpr[RSP], 0x8ffc);
	assert_int_equal(cpu_far_ret(v, 2, 6), 0);
	assert_int_equal(v->rip, 0xfff5);
	assert_int_equal(v->seg[CS].sel, 0xf000);
	assert_int_equal(v->gpr[RSP], 0x9006);
	expect_fault(cpu_far_jump(v, 0x3000, 0x10000, 4), v, VEC_GP, 0);
}

static void task_switch(void **state)
{
	struct bed *b = *state;
	struct vcpu *v = b->v;
	const uint32_t tss2 = 0x13000;

	bed_prot(b);
	bed_desc(b, S_TSS2, sys_desc(tss2, 0x67, 0x89));
	fx_put(&b->fx, tss2 + 32, 4, 0x7777);                          /* EIP */
	fx_put(&b->fx, tss2 + 36, 4, FL_IF | FL_FIXED);
	fx_put(&b->fx, tss2 + 40, 4, 0xaaaa);                          /* EAX */
	fx_put(&b->fx, tss2 + 56, 4, 0x26000);                         /* ESP */
	for (unsigned i = 0; i < 6; i++)
		fx_put(&b->fx, tss2 + 72 + 4 * i, 4, i == CS ? S_KCODE32 : S_KDATA);
	v->gpr[RBX] = 0xbbbb;
	assert_int_equal(cpu_far_call(v, S_TSS2, 0, 4, 0x1007), 0);
	assert_int_equal(v->rip, 0x7777);
	assert_int_equal(v->gpr[RAX], 0xaaaa);
	assert_int_equal(v->gpr[RSP], 0x26000);
	assert_int_equal(v->rflags, FL_IF | FL_NT | FL_FIXED);
	assert_int_equal(v->seg[TR].sel, S_TSS2);
	assert_true(v->cr0 & CR0_TS);
	assert_int_equal(fx_get(&b->fx, TSS + 32, 4), 0x1007);
	assert_int_equal(fx_get(&b->fx, TSS + 52, 4), 0xbbbb);
	assert_int_equal(fx_get(&b->fx, tss2, 2), S_TSS);
	assert_int_equal(get64(b, GDT + S_TSS2) >> 40 & 15, 11);
	assert_int_equal(get64(b, GDT + S_TSS) >> 40 & 15, 11);        /* nested: both busy */
	expect_fault(cpu_far_jump(v, S_TSS, 0, 4), v, VEC_GP, S_TSS);
	assert_int_equal(cpu_iret(v, 4), 0);                           /* NT: back to the first task */
	assert_int_equal(v->rip, 0x1007);
	assert_int_equal(v->gpr[RBX], 0xbbbb);
	assert_int_equal(v->seg[TR].sel, S_TSS);
	assert_int_equal(get64(b, GDT + S_TSS2) >> 40 & 15, 9);
	/* Through a task gate, with an error code. */
	bed_gate32(b, VEC_GP, 0, S_TSS2, 0x85);
	fx_put(&b->fx, tss2 + 32, 4, 0x7777);
	fx_put(&b->fx, tss2 + 56, 4, 0x26000);
	cpu_raise_err(v, VEC_GP, 0x42);
	assert_int_equal(cpu_deliver_exception(v), 0);
	assert_int_equal(v->rip, 0x7777);
	assert_int_equal(v->gpr[RSP], 0x25ffc);
	assert_int_equal(fx_get(&b->fx, 0x25ffc, 4), 0x42);
}

static void virtual_8086(void **state)
{
	struct bed *b = *state;
	struct vcpu *v = b->v;
	const uint32_t f[9] = { 0x100, 0x2000, FL_VM | FL_IF | FL_FIXED, 0xfff0, 0x3000, 0x4000, 0x5000, 0x6000, 0x7000 };

	bed_prot(b);
	mem_write(b->fx.m, KSTACK - 36, f, sizeof(f));
	v->gpr[RSP] = KSTACK - 36;
	assert_int_equal(cpu_iret(v, 4), 0);
	assert_int_equal(v->cpl, 3);
	assert_int_equal(v->mode, INSN_MODE_REAL);
	assert_int_equal(v->seg[CS].base, 0x20000);
	assert_int_equal(v->seg[SS].base, 0x30000);
	assert_int_equal(v->seg[GS].base, 0x70000);
	expect_fault(cpu_popf(v, 0, 2), v, VEC_GP, 0);
	/* INT n with IOPL < 3 is #GP(0); its frame holds the data segments. */
	assert_int_equal(cpu_soft_int(v, 0x21, 0x102), 0);
	assert_int_equal(v->cpl, 0);
	assert_int_equal(v->rip, HANDLER + VEC_GP);
	assert_int_equal(v->gpr[RSP], STACK0 - 40);
	assert_int_equal(fx_get(&b->fx, STACK0 - 36, 4), 0x100);
	assert_int_equal(fx_get(&b->fx, STACK0 - 4, 4), 0x7000);
	assert_true(v->seg[DS].unusable);
	v->gpr[RSP] += 4;
	assert_int_equal(cpu_iret(v, 4), 0);
	assert_int_equal(v->seg[DS].base, 0x50000);
	assert_true(v->rflags & FL_VM);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		bed_test(iret64_checks), bed_test(iret64_to_compat), bed_test(iret_flags_at_cpl3), bed_test(jump_checks),
		bed_test(call_gate64), bed_test(call_gate32_with_parameters), bed_test(real_call), bed_test(task_switch),
		bed_test(virtual_8086),
	};

	return cmocka_run_group_tests_name("cpu/far", tests, NULL, NULL);
}
