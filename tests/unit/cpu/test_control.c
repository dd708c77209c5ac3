/* SPDX-License-Identifier: Apache-2.0 */
/* cpu/control.c: reserved bits, mode transitions, debug registers, INVPCID, XCR0. */
#include "fixture.h"

static void reserved_bits(void **state)
{
	struct bed *b = *state;
	struct vcpu *v = b->v;
	uint64_t val;

	bed_long(b);
	expect_fault(cpu_write_cr(v, 0, v->cr0 | BIT(32)), v, VEC_GP, 0);
	expect_fault(cpu_write_cr(v, 0, v->cr0 & ~CR0_PE), v, VEC_GP, 0);
	expect_fault(cpu_write_cr(v, 0, v->cr0 | CR0_NW), v, VEC_GP, 0);
	expect_fault(cpu_write_cr(v, 0, v->cr0 & ~CR0_PG), v, VEC_GP, 0);       /* in 64-bit code */
	expect_fault(cpu_write_cr(v, 3, BIT(40)), v, VEC_GP, 0);
	expect_fault(cpu_write_cr(v, 3, v->cr3 | BIT(63)), v, VEC_GP, 0);       /* no PCIDE */
	expect_fault(cpu_write_cr(v, 4, v->cr4 & ~CR4_PAE), v, VEC_GP, 0);
	expect_fault(cpu_write_cr(v, 4, v->cr4 | BIT(21)), v, VEC_GP, 0);       /* SMAP */
	expect_fault(cpu_write_cr(v, 4, v->cr4 | BIT(13)), v, VEC_GP, 0);       /* VMXE */
	expect_fault(cpu_write_cr(v, 8, 16), v, VEC_GP, 0);
	expect_fault(cpu_write_cr(v, 1, 0), v, VEC_UD, 0);
	expect_fault(cpu_read_cr(v, 5, &val), v, VEC_UD, 0);
	assert_int_equal(cpu_write_cr(v, 8, 9), 0);
	assert_int_equal(cpu_read_cr(v, 8, &val), 0);
	assert_int_equal(val, 9);
	expect_fault(cpu_wrmsr(v, 0xc0000080, EFER_NXE), v, VEC_GP, 0);         /* LME while paging */
}

static void pcid(void **state)
{
	struct bed *b = *state;
	struct vcpu *v = b->v;

	bed_long(b);
	expect_fault(cpu_invpcid(v, 0, 1, 0), v, VEC_GP, 0);
	assert_int_equal(cpu_write_cr(v, 3, v->cr3 | 0x18), 0);
	expect_fault(cpu_write_cr(v, 4, v->cr4 | CR4_PCIDE), v, VEC_GP, 0);     /* CR3 bits 0..11 not zero */
	assert_int_equal(cpu_write_cr(v, 3, v->cr3 & ~0xfffull), 0);
	assert_int_equal(cpu_write_cr(v, 4, v->cr4 | CR4_PCIDE), 0);
	assert_int_equal(cpu_write_cr(v, 3, v->cr3 | 5 | BIT(63)), 0);
	assert_int_equal(v->cr3 & ~PTE_ADDR, 5);
	assert_int_equal(cpu_invpcid(v, 0, 5, 0x1000), 0);
	assert_int_equal(cpu_invpcid(v, 2, 0, 0), 0);
	expect_fault(cpu_invpcid(v, 4, 0, 0), v, VEC_GP, 0);
	expect_fault(cpu_invpcid(v, 1, 0x1000, 0), v, VEC_GP, 0);
	expect_fault(cpu_invpcid(v, 0, 5, 0x800000000000), v, VEC_GP, 0);
	assert_int_equal(cpu_invlpg(v, 0x800000000000), 0);
	bed_user(b, S_UCODE);
	expect_fault(cpu_invlpg(v, 0), v, VEC_GP, 0);
	expect_fault(cpu_invpcid(v, 2, 0, 0), v, VEC_GP, 0);
}

static void leaving_long_mode(void **state)
{
	struct bed *b = *state;
	struct vcpu *v = b->v;

	bed_long(b);
	fx_map(&b->fx, 0, 0, 2, PTE_P | PTE_W);
	assert_int_equal(cpu_far_jump(v, S_KCODE32, 0x1000, 4), 0);
	assert_int_equal(v->mode, INSN_MODE_32);
	assert_int_equal(cpu_write_cr(v, 0, v->cr0 & ~CR0_PG), 0);
	assert_false(v->efer & EFER_LMA);
	assert_int_equal(cpu_write_cr(v, 0, v->cr0 | CR0_PG), 0);
	assert_true(v->efer & EFER_LMA);
	assert_int_equal(v->mode, INSN_MODE_32);
	/* LMSW sets PE and cannot clear it. */
	assert_int_equal(cpu_lmsw(v, 0), 0);
	assert_true(v->cr0 & CR0_PE);
	assert_int_equal(cpu_lmsw(v, 8), 0);
	assert_true(v->cr0 & CR0_TS);
	assert_int_equal(cpu_clts(v), 0);
	assert_false(v->cr0 & CR0_TS);
}

static void pae_pdptes(void **state)
{
	struct bed *b = *state;
	struct vcpu *v = b->v;
	const gpa_t pdpt = 0x40000;

	bed_prot(b);
	put64(b, pdpt, 0x41000 | PTE_P);
	assert_int_equal(cpu_write_cr(v, 3, pdpt), 0);
	assert_int_equal(cpu_write_cr(v, 4, CR4_PAE), 0);
	put64(b, pdpt + 8, PTE_P | PTE_W);                                      /* reserved bit 1 */
	expect_fault(cpu_write_cr(v, 0, v->cr0 | CR0_PG), v, VEC_GP, 0);
	put64(b, pdpt + 8, 0);
	assert_int_equal(cpu_write_cr(v, 0, v->cr0 | CR0_PG), 0);
	assert_int_equal(v->mmu.regs.pdpte[0], 0x41000 | PTE_P);
	put64(b, pdpt, BIT(45) | PTE_P);
	expect_fault(cpu_write_cr(v, 3, pdpt), v, VEC_GP, 0);
	assert_int_equal(v->mmu.regs.pdpte[0], 0x41000 | PTE_P);
	/* LME without PAE cannot turn paging on. */
	assert_int_equal(cpu_write_cr(v, 0, v->cr0 & ~CR0_PG), 0);
	assert_int_equal(cpu_write_cr(v, 4, 0), 0);
	assert_int_equal(cpu_wrmsr(v, 0xc0000080, EFER_LME), 0);
	expect_fault(cpu_write_cr(v, 0, v->cr0 | CR0_PG), v, VEC_GP, 0);
}

static void debug_registers(void **state)
{
	struct bed *b = *state;
	struct vcpu *v = b->v;
	uint64_t val;

	bed_long(b);
	assert_int_equal(cpu_write_dr(v, 4, 0xffffffff), 0);                    /* alias of DR6 */
	assert_int_equal(v->dr6, DR6_FIXED | 0xe00f);
	expect_fault(cpu_write_dr(v, 6, BIT(32)), v, VEC_GP, 0);
	assert_int_equal(cpu_write_cr(v, 4, v->cr4 | CR4_DE), 0);
	expect_fault(cpu_read_dr(v, 5, &val), v, VEC_UD, 0);
	assert_int_equal(cpu_write_dr(v, 3, K(1)), 0);
	assert_int_equal(cpu_read_dr(v, 3, &val), 0);
	assert_int_equal(val, K(1));
	assert_int_equal(cpu_write_dr(v, 7, DR7_GD), 0);
	assert_int_equal(v->dr7, DR7_FIXED | DR7_GD);
	assert_int_equal(cpu_read_dr(v, 0, &val), -1);
	assert_int_equal(v->exc.vector, VEC_DB);
	assert_int_equal(v->exc.dr6, DR6_BD);
}

static void xcr0(void **state)
{
	struct bed *b = *state;
	struct vcpu *v = b->v;
	uint64_t val;

	bed_long(b);
	expect_fault(cpu_xsetbv(v, 0, 6), v, VEC_GP, 0);
	expect_fault(cpu_xsetbv(v, 0, 5), v, VEC_GP, 0);
	expect_fault(cpu_xsetbv(v, 0, 15), v, VEC_GP, 0);
	expect_fault(cpu_xsetbv(v, 1, 1), v, VEC_GP, 0);
	assert_int_equal(cpu_xsetbv(v, 0, 7), 0);
	assert_int_equal(cpu_xgetbv(v, 0, &val), 0);
	assert_int_equal(val, 7);
	v->cr4 &= ~CR4_OSXSAVE;
	expect_fault(cpu_xsetbv(v, 0, 7), v, VEC_UD, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		bed_test(reserved_bits), bed_test(pcid), bed_test(leaving_long_mode), bed_test(pae_pdptes),
		bed_test(debug_registers), bed_test(xcr0),
	};

	return cmocka_run_group_tests_name("cpu/control", tests, NULL, NULL);
}
