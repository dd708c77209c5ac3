/* SPDX-License-Identifier: Apache-2.0 */
/* cpu/syscall.c and cpu/flags.c: entry instructions with both vendors' semantics, POPF, CLI, STI. */
#include "fixture.h"

#define LSTAR 0xc0000082
#define ENTRY K(0x6000)

static void setup(struct bed *b)
{
	bed_long(b);
	assert_int_equal(cpu_wrmsr(b->v, 0xc0000081, (uint64_t)0x18 << 48 | (uint64_t)S_KCODE << 32), 0);
	assert_int_equal(cpu_wrmsr(b->v, LSTAR, ENTRY), 0);
	assert_int_equal(cpu_wrmsr(b->v, 0xc0000083, ENTRY + 1), 0);
	assert_int_equal(cpu_wrmsr(b->v, 0xc0000084, FL_IF | FL_TF | FL_DF | FL_AC), 0);
	assert_int_equal(cpu_wrmsr(b->v, 0x174, S_KCODE), 0);
	assert_int_equal(cpu_wrmsr(b->v, 0x175, K(0x27000)), 0);
	assert_int_equal(cpu_wrmsr(b->v, 0x176, ENTRY + 2), 0);
}

static void round_trip(void **state)
{
	struct bed *b = *state;
	struct vcpu *v = b->v;

	setup(b);
	bed_user(b, S_UCODE);
	v->rflags |= FL_TF | FL_AC | FL_CF | FL_RF;
	assert_int_equal(cpu_syscall(v, USER + 2), 0);
	assert_int_equal(v->cpl, 0);
	assert_int_equal(v->mode, INSN_MODE_64);
	assert_int_equal(v->rip, ENTRY);
	assert_int_equal(v->gpr[RCX], USER + 2);
	assert_int_equal(v->gpr[R11], FL_IF | FL_TF | FL_AC | FL_CF | FL_FIXED);
	assert_int_equal(v->rflags, FL_CF | FL_FIXED);
	assert_int_equal(v->seg[CS].sel, S_KCODE);
	assert_int_equal(v->seg[CS].attr, SEG_G | SEG_L | SEG_P | SEG_S | 0xb);
	assert_int_equal(v->seg[SS].sel, S_KDATA);
	assert_int_equal(v->seg[SS].attr, SEG_G | SEG_DB | SEG_P | SEG_S | 0x3);
	assert_int_equal(v->gpr[RSP], USER + 0x800);
	v->irq_waiting = true;
	assert_int_equal(cpu_sysret(v, 8), 0);
	assert_int_equal(v->cpl, 3);
	assert_int_equal(v->rip, USER + 2);
	assert_int_equal(v->rflags, FL_IF | FL_TF | FL_AC | FL_CF | FL_FIXED);
	assert_int_equal(v->seg[CS].sel, S_UCODE);
	assert_int_equal(v->seg[SS].sel, S_UDATA);
	assert_int_equal(v->event, VCPU_EV_IRQ);            /* IF opened the window */
	expect_fault(cpu_sysret(v, 8), v, VEC_GP, 0);       /* CPL 3 */
	assert_int_equal(cpu_syscall(v, USER + 2), 0);
	assert_int_equal(cpu_sysret(v, 4), 0);
	assert_int_equal(v->mode, INSN_MODE_32);
	assert_int_equal(v->seg[CS].sel, S_UCODE32);
}

static void vendors(void **state)
{
	struct bed *b = *state;
	struct vcpu *v = b->v;

	setup(b);
	/* Non-canonical return address: #GP at CPL 0 on Intel; AMD returns and faults on the fetch. */
	v->gpr[RCX] = 0x800000000000;
	v->gpr[R11] = FL_FIXED;
	v->vendor_amd = false;
	expect_fault(cpu_sysret(v, 8), v, VEC_GP, 0);
	assert_int_equal(v->cpl, 0);
	v->vendor_amd = true;
	assert_int_equal(cpu_sysret(v, 8), 0);
	assert_int_equal(v->cpl, 3);
	/* SYSCALL from compatibility mode: AMD only, to CSTAR. SYSENTER in long mode: Intel only. */
	bed_kernel(b);
	bed_user(b, S_UCODE32);
	v->vendor_amd = false;
	expect_fault(cpu_syscall(v, USER + 2), v, VEC_UD, 0);
	v->vendor_amd = true;
	expect_fault(cpu_sysenter(v), v, VEC_UD, 0);
	assert_int_equal(cpu_syscall(v, USER + 2), 0);
	assert_int_equal(v->rip, ENTRY + 1);
	expect_fault(cpu_sysexit(v, 8), v, VEC_UD, 0);
	v->vendor_amd = false;
	assert_int_equal(cpu_sysret(v, 4), 0);
	assert_int_equal(cpu_sysenter(v), 0);
	assert_int_equal(v->rip, ENTRY + 2);
	assert_int_equal(v->gpr[RSP], K(0x27000));
	assert_false(v->rflags & FL_IF);
	v->gpr[RDX] = USER + 4;
	v->gpr[RCX] = USER + 0x700;
	assert_int_equal(cpu_sysexit(v, 8), 0);
	assert_int_equal(v->rip, USER + 4);
	assert_int_equal(v->gpr[RSP], USER + 0x700);
	assert_int_equal(v->seg[CS].sel, S_KCODE + 32 + 3);
	expect_fault(cpu_sysexit(v, 8), v, VEC_GP, 0);
	/* SCE off. */
	v->efer &= ~EFER_SCE;
	expect_fault(cpu_syscall(v, 0), v, VEC_UD, 0);
	expect_fault(cpu_sysret(v, 8), v, VEC_UD, 0);
}

static void swapgs(void **state)
{
	struct bed *b = *state;
	struct vcpu *v = b->v;

	setup(b);
	v->seg[GS].base = 1;
	assert_int_equal(cpu_wrmsr(v, 0xc0000102, 2), 0);
	assert_int_equal(cpu_swapgs(v), 0);
	assert_int_equal(v->seg[GS].base, 2);
	assert_int_equal(v->msr_kernel_gs_base, 1);
	bed_user(b, S_UCODE);
	expect_fault(cpu_swapgs(v), v, VEC_GP, 0);
	bed_kernel(b);
	bed_user(b, S_UCODE32);
	expect_fault(cpu_swapgs(v), v, VEC_UD, 0);
}

static void popf(void **state)
{
	struct bed *b = *state;
	struct vcpu *v = b->v;

	setup(b);
	assert_int_equal(cpu_popf(v, ~0ull, 8), 0);
	assert_int_equal(v->rflags, FL_ARITH | FL_TF | FL_IF | FL_DF | FL_IOPL | FL_NT | FL_AC | FL_ID | FL_FIXED);
	assert_int_equal(cpu_popf(v, 0, 2), 0);
	assert_int_equal(v->rflags, FL_AC | FL_ID | FL_FIXED);
	bed_user(b, S_UCODE);
	assert_int_equal(cpu_popf(v, FL_IOPL | FL_CF, 8), 0);
	assert_int_equal(v->rflags, FL_IF | FL_CF | FL_FIXED);
	expect_fault(cpu_cli(v), v, VEC_GP, 0);
	expect_fault(cpu_sti(v), v, VEC_GP, 0);
	v->rflags |= FL_IOPL;
	assert_int_equal(cpu_cli(v), 0);
	assert_int_equal(cpu_popf(v, FL_IF, 8), 0);
	assert_int_equal(v->rflags, FL_IF | FL_IOPL | FL_FIXED);
}

int main(void)
{
	const struct CMUnitTest tests[] = { bed_test(round_trip), bed_test(vendors), bed_test(swapgs), bed_test(popf) };

	return cmocka_run_group_tests_name("cpu/syscall", tests, NULL, NULL);
}
