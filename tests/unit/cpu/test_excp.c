/* SPDX-License-Identifier: Apache-2.0 */
/* cpu/excp.c: frames, error codes, stack switches, #DF promotion, interrupt windows. */
#include "fixture.h"

/* Delivers hardware exception `vec` and returns what cpu_deliver_exception() says. */
static int raise_and_deliver(struct vcpu *v, unsigned vec, bool has_err, uint32_t err)
{
	v->exc = (struct vcpu_exc){ .kind = EXC_HARDWARE, .vector = (uint8_t)vec, .has_err = has_err, .err = err };
	return cpu_deliver_exception(v);
}

static void long_from_user(void **state)
{
	struct bed *b = *state;
	struct vcpu *v = b->v;

	bed_long(b);
	bed_user(b, S_UCODE);
	assert_int_equal(v->mode, INSN_MODE_64);
	v->rflags |= FL_TF | FL_CF;
	v->rip = USER + 5;
	v->exc = (struct vcpu_exc){ .kind = EXC_HARDWARE, .vector = VEC_PF, .has_err = true, .err = 6, .cr2 = 0x1234 };
	assert_int_equal(cpu_deliver_exception(v), 0);
	assert_int_equal(v->exc.kind, EXC_NONE);
	assert_int_equal(v->cr2, 0x1234);
	assert_int_equal(v->cpl, 0);
	assert_int_equal(v->rip, K(HANDLER + VEC_PF));
	assert_int_equal(v->seg[CS].sel, S_KCODE);
	assert_int_equal(v->seg[SS].sel, 0);
	assert_true(v->seg[SS].unusable);
	assert_int_equal(v->rflags, FL_CF | FL_FIXED);
	assert_int_equal(v->gpr[RSP], K(STACK0 - 48));
	assert_int_equal(get64(b, STACK0 - 48), 6);
	assert_int_equal(get64(b, STACK0 - 40), USER + 5);
	assert_int_equal(get64(b, STACK0 - 32), S_UCODE);
	assert_int_equal(get64(b, STACK0 - 24), FL_IF | FL_TF | FL_CF | FL_FIXED | FL_RF);
	assert_int_equal(get64(b, STACK0 - 16), USER + 0x800);
	assert_int_equal(get64(b, STACK0 - 8), S_UDATA);
	/* And back: the null SS of the handler does not matter. */
	v->gpr[RSP] += 8;
	assert_int_equal(cpu_iret(v, 8), 0);
	assert_int_equal(v->cpl, 3);
	assert_int_equal(v->rip, USER + 5);
	assert_int_equal(v->rflags, FL_IF | FL_TF | FL_CF | FL_FIXED | FL_RF);
	assert_int_equal(v->gpr[RSP], USER + 0x800);
}

static void long_alignment_and_ist(void **state)
{
	struct bed *b = *state;
	struct vcpu *v = b->v;

	bed_long(b);
	v->rflags |= FL_IF;
	/* Same privilege: RSP aligned down to 16 before the push, SS unchanged. */
	v->gpr[RSP] = K(KSTACK - 3);
	assert_int_equal(raise_and_deliver(v, VEC_UD, false, 0), 0);
	assert_int_equal(v->gpr[RSP], K(KSTACK - 16 - 40));
	assert_int_equal(get64(b, KSTACK - 16 - 40 + 24), K(KSTACK - 3));
	assert_int_equal(v->seg[SS].sel, S_KDATA);
	/* IST, aligned too; a trap gate keeps IF. */
	bed_gate64(b, VEC_UD, K(HANDLER), S_KCODE, 0x8f, 1);
	v->rflags |= FL_IF;
	assert_int_equal(raise_and_deliver(v, VEC_UD, false, 0), 0);
	assert_int_equal(v->gpr[RSP], K(IST1 - 8 - 40));
	assert_true(v->rflags & FL_IF);
	/* Delivery set the accessed bit of the code segment. */
	assert_int_equal(get64(b, GDT + S_KCODE), 0x00af9b000000ffff);
}

static void soft_interrupts(void **state)
{
	struct bed *b = *state;
	struct vcpu *v = b->v;

	bed_long(b);
	bed_gate64(b, 0x80, K(HANDLER), S_KCODE, 0xee, 0);
	bed_user(b, S_UCODE32);
	assert_int_equal(v->mode, INSN_MODE_32);
	assert_int_equal(cpu_soft_int(v, 0x80, USER + 2), 0);
	assert_int_equal(v->mode, INSN_MODE_64);
	assert_int_equal(get64(b, STACK0 - 40), USER + 2);
	assert_int_equal(get64(b, STACK0 - 32), S_UCODE32);
	/* DPL 0 gate: #GP(vector * 8 + 2), EXT clear, and the frame names the INT itself. */
	bed_user(b, S_UCODE);
	assert_int_equal(cpu_soft_int(v, 0x81, USER + 2), 0);
	assert_int_equal(v->rip, K(HANDLER + VEC_GP));
	assert_int_equal(get64(b, STACK0 - 48), 0x81 * 8 + 2);
	assert_int_equal(get64(b, STACK0 - 40), USER);
	/* Not present. */
	bed_gate64(b, 0x82, K(HANDLER), S_KCODE, 0x6e, 0);
	bed_user(b, S_UCODE);
	assert_int_equal(cpu_soft_int(v, 0x82, USER + 2), 0);
	assert_int_equal(v->rip, K(HANDLER + VEC_NP));
	assert_int_equal(get64(b, STACK0 - 48), 0x82 * 8 + 2);
}

static void gate_errors(void **state)
{
	struct { uint16_t sel; unsigned attr; uint64_t off; unsigned vec; uint32_t err; } cases[] = {
		{ S_KCODE, 0x0e, K(HANDLER), VEC_NP, VEC_UD * 8 + 3 },
		{ S_KCODE, 0x85, K(HANDLER), VEC_GP, VEC_UD * 8 + 3 },          /* task gate */
		{ S_KCODE, 0x87, K(HANDLER), VEC_GP, VEC_UD * 8 + 3 },          /* 16-bit trap gate */
		{ 0, 0x8e, K(HANDLER), VEC_GP, 1 },
		{ S_KDATA, 0x8e, K(HANDLER), VEC_GP, S_KDATA | 1 },
		{ S_KCODE32, 0x8e, K(HANDLER), VEC_GP, S_KCODE32 | 1 },
		{ S_UCODE, 0x8e, K(HANDLER), VEC_GP, (S_UCODE & ~3) | 1 },      /* outwards */
		{ S_ABSENT_CODE, 0x8e, K(HANDLER), VEC_NP, S_ABSENT_CODE | 1 },
		{ 0x100, 0x8e, K(HANDLER), VEC_GP, 0x101 },                     /* beyond the GDT */
		{ S_KCODE, 0x8e, 0x800000000000, VEC_GP, 1 },
	};
	struct bed *b = *state;
	struct vcpu *v = b->v;

	bed_long(b);
	for (unsigned i = 0; i < nitems(cases); i++) {
		v->gpr[RSP] = K(KSTACK);
		v->rip = K(0x1000);
		bed_gate64(b, VEC_UD, cases[i].off, cases[i].sel, cases[i].attr, 0);
		assert_int_equal(raise_and_deliver(v, VEC_UD, false, 0), 0);
		assert_int_equal(v->rip, K(HANDLER + cases[i].vec));
		assert_int_equal(get64(b, KSTACK - 48), cases[i].err);
		assert_int_equal(get64(b, KSTACK - 40), K(0x1000));
	}
	v->idt.limit = 16 * VEC_GP + 15;
	v->gpr[RSP] = K(KSTACK);
	assert_int_equal(raise_and_deliver(v, VEC_PF, true, 0), 0);         /* #PF, then #GP: #DF */
	assert_int_equal(v->rip, K(HANDLER + VEC_DF));
	v->gpr[RSP] = K(KSTACK);
	assert_int_equal(raise_and_deliver(v, VEC_XM, false, 0), 0);
	assert_int_equal(get64(b, KSTACK - 48), VEC_XM * 8 + 3);
}

static void double_and_triple(void **state)
{
	static const struct { unsigned first, second; bool df; } table[] = {
		{ VEC_DE, VEC_NP, true }, { VEC_TS, VEC_NP, true }, { VEC_GP, VEC_NP, true }, { VEC_PF, VEC_NP, true },
		{ VEC_UD, VEC_NP, false }, { VEC_DB, VEC_NP, false }, { VEC_BP, VEC_NP, false }, { VEC_AC, VEC_NP, false },
		{ VEC_XM, VEC_NP, false }, { VEC_NM, VEC_NP, false },
	};
	struct bed *b = *state;
	struct vcpu *v = b->v;

	bed_long(b);
	for (unsigned i = 0; i < nitems(table); i++) {
		unsigned first = table[i].first;

		bed_gate64(b, first, K(HANDLER), S_KCODE, 0x0e, 0);
		v->gpr[RSP] = K(KSTACK);
		assert_int_equal(raise_and_deliver(v, first, false, 0), 0);
		assert_int_equal(v->rip, K(HANDLER + (table[i].df ? VEC_DF : VEC_NP)));
		assert_int_equal(get64(b, KSTACK - 48), table[i].df ? 0 : first * 8 + 3);
		bed_gate64(b, first, K(HANDLER + first), S_KCODE, 0x8e, 0);
	}
	/* The stack of the handler faults: #PF while delivering #UD is benign + #PF; its delivery faults again: #DF on IST. */
	bed_gate64(b, VEC_DF, K(HANDLER + VEC_DF), S_KCODE, 0x8e, 1);
	v->gpr[RSP] = K(64ull << 20);
	assert_int_equal(raise_and_deliver(v, VEC_UD, false, 0), 0);
	assert_int_equal(v->rip, K(HANDLER + VEC_DF));
	assert_int_equal(v->cr2 & ~0xfffull, K((64ull << 20) - 0x1000));
	assert_int_equal(get64(b, IST1 - 8 - 16), K(64ull << 20));
	/* Without a working #DF: shutdown. */
	bed_gate64(b, VEC_DF, K(HANDLER + VEC_DF), S_KCODE, 0x0e, 0);
	v->gpr[RSP] = K(64ull << 20);
	assert_int_equal(raise_and_deliver(v, VEC_UD, false, 0), -1);
	assert_int_equal(v->exc.kind, EXC_NONE);
}

static void tss_errors(void **state)
{
	struct bed *b = *state;
	struct vcpu *v = b->v;

	bed_long(b);
	bed_gate64(b, VEC_TS, K(HANDLER + VEC_TS), S_KCODE, 0x8e, 1);
	bed_gate64(b, VEC_SS, K(HANDLER + VEC_SS), S_KCODE, 0x8e, 1);
	put64(b, TSS + 4, 0x800000000000);
	bed_user(b, S_UCODE);
	assert_int_equal(raise_and_deliver(v, VEC_UD, false, 0), 0);
	assert_int_equal(v->rip, K(HANDLER + VEC_SS));
	assert_int_equal(get64(b, IST1 - 8 - 48), 1);
	put64(b, TSS + 4, K(STACK0));
	bed_user(b, S_UCODE);
	v->seg[TR].limit = 40;
	bed_gate64(b, VEC_UD, K(HANDLER), S_KCODE, 0x8e, 7);
	bed_gate64(b, VEC_TS, K(HANDLER + VEC_TS), S_KCODE, 0x8e, 0);
	assert_int_equal(raise_and_deliver(v, VEC_UD, false, 0), 0);
	assert_int_equal(v->rip, K(HANDLER + VEC_TS));
	assert_int_equal(get64(b, STACK0 - 48), S_TSS | 1);
}

static void debug_exception(void **state)
{
	struct bed *b = *state;
	struct vcpu *v = b->v;

	bed_long(b);
	v->dr7 |= DR7_GD;
	v->dr6 |= DR6_BS | 8;
	cpu_raise_db(v, 1);
	assert_int_equal(cpu_deliver_exception(v), 0);
	assert_int_equal(v->dr6, DR6_FIXED | DR6_BS | 1);
	assert_false(v->dr7 & DR7_GD);
	assert_false(get64(b, KSTACK - 24) & FL_RF);
}

static void interrupts(void **state)
{
	struct bed *b = *state;
	struct vcpu *v = b->v;

	bed_long(b);
	b->irq = true;
	b->vector = 0x41;
	v->event = VCPU_EV_IRQ;
	assert_int_equal(cpu_take_interrupt(v), 0);        /* IF = 0 */
	assert_int_equal(v->event, 0);
	assert_true(v->irq_waiting);
	assert_int_equal(cpu_sti(v), 0);
	assert_true(v->inhibit_irq);
	assert_int_equal(v->event, VCPU_EV_IRQ);
	assert_int_equal(cpu_take_interrupt(v), 0);        /* shadow of STI: stays posted */
	assert_int_equal(v->event, VCPU_EV_IRQ);
	v->inhibit_irq = false;
	v->halted = true;
	assert_int_equal(cpu_take_interrupt(v), 1);
	assert_false(v->halted);
	assert_int_equal(v->rip, K(HANDLER + 0x41));
	assert_false(v->rflags & FL_IF);
	assert_int_equal(get64(b, KSTACK - 24), FL_IF | FL_FIXED);
	/* STI with IF already set has no shadow. */
	v->rflags |= FL_IF;
	assert_int_equal(cpu_sti(v), 0);
	assert_false(v->inhibit_irq);
	/* Nothing pending. */
	assert_int_equal(cpu_take_interrupt(v), 0);
}

static void nmi(void **state)
{
	struct bed *b = *state;
	struct vcpu *v = b->v;

	bed_long(b);
	vcpu_post(v, VCPU_EV_NMI);
	assert_int_equal(cpu_take_interrupt(v), 1);
	assert_int_equal(v->rip, K(HANDLER + VEC_NMI));
	assert_true(v->nmi_blocked);
	vcpu_post(v, VCPU_EV_NMI);
	assert_int_equal(cpu_take_interrupt(v), 0);
	assert_int_equal(cpu_iret(v, 8), 0);
	assert_false(v->nmi_blocked);
	assert_true(v->event & VCPU_EV_NMI);
	assert_int_equal(cpu_take_interrupt(v), 1);
}

static void prot32_from_user(void **state)
{
	struct bed *b = *state;
	struct vcpu *v = b->v;

	bed_prot(b);
	bed_user32(b);
	assert_int_equal(v->mode, INSN_MODE_32);
	assert_int_equal(raise_and_deliver(v, VEC_GP, true, 0x55), 0);
	assert_int_equal(v->cpl, 0);
	assert_int_equal(v->rip, HANDLER + VEC_GP);
	assert_int_equal(v->gpr[RSP], STACK0 - 24);
	assert_int_equal(v->seg[SS].sel, S_KDATA);
	assert_int_equal(fx_get(&b->fx, STACK0 - 24, 4), 0x55);
	assert_int_equal(fx_get(&b->fx, STACK0 - 20, 4), USER);
	assert_int_equal(fx_get(&b->fx, STACK0 - 16, 4), S_UCODE32);
	assert_int_equal(fx_get(&b->fx, STACK0 - 12, 4), FL_IF | FL_FIXED | FL_RF);
	assert_int_equal(fx_get(&b->fx, STACK0 - 8, 4), USER + 0x800);
	assert_int_equal(fx_get(&b->fx, STACK0 - 4, 4), S_UDATA);
	/* A 16-bit gate pushes words. */
	bed_user32(b);
	bed_gate32(b, VEC_UD, HANDLER, S_KCODE32, 0x86);
	assert_int_equal(raise_and_deliver(v, VEC_UD, false, 0), 0);
	assert_int_equal(v->gpr[RSP], STACK0 - 10);
	assert_int_equal(fx_get(&b->fx, STACK0 - 8, 2), S_UCODE32);
	/* Bad SS0: #TS names it. */
	bed_user32(b);
	fx_put(&b->fx, TSS + 8, 4, S_UDATA);
	bed_gate32(b, VEC_TS, HANDLER, S_CONF, 0x8e);
	bed_desc(b, S_CONF, 0x00cf9e000000ffff);
	assert_int_equal(raise_and_deliver(v, VEC_UD, false, 0), 0);
	assert_int_equal(v->cpl, 3);                       /* the conforming handler runs on the user's stack */
	assert_int_equal(fx_get(&b->fx, USER + 0x800 - 16, 4), (S_UDATA & ~3) | 1);
}

static void real_mode(void **state)
{
	struct bed *b = *state;
	struct vcpu *v = b->v;

	fx_put(&b->fx, 4 * 0x21, 4, 0x12345678);
	v->gpr[RSP] = 0x8000;
	v->rflags |= FL_IF | FL_TF;
	assert_int_equal(cpu_far_jump(v, 0x2000, 0x10, 2), 0);
	assert_int_equal(cpu_soft_int(v, 0x21, 0x12), 0);
	assert_int_equal(v->rip, 0x5678);
	assert_int_equal(v->seg[CS].base, 0x12340);
	assert_int_equal(v->gpr[RSP], 0x7ffa);
	assert_false(v->rflags & (FL_IF | FL_TF));
	assert_int_equal(fx_get(&b->fx, 0x7ffa, 2), 0x12);
	assert_int_equal(fx_get(&b->fx, 0x7ffc, 2), 0x2000);
	assert_int_equal(cpu_iret(v, 2), 0);
	assert_int_equal(v->rip, 0x12);
	assert_int_equal(v->seg[CS].sel, 0x2000);
	assert_int_equal(v->rflags, FL_IF | FL_TF | FL_FIXED);
	/* Vector beyond the limit of the interrupt table, and #DF beyond it too: shutdown. */
	v->idt.limit = 0x10;
	assert_int_equal(cpu_soft_int(v, 0x21, 0x12), -1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		bed_test(long_from_user), bed_test(long_alignment_and_ist), bed_test(soft_interrupts), bed_test(gate_errors),
		bed_test(double_and_triple), bed_test(tss_errors), bed_test(debug_exception), bed_test(interrupts), bed_test(nmi),
		bed_test(prot32_from_user), bed_test(real_mode),
	};

	return cmocka_run_group_tests_name("cpu/excp", tests, NULL, NULL);
}
