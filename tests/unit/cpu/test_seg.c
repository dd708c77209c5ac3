/* SPDX-License-Identifier: Apache-2.0 */
/* cpu/seg.c: limits and types, selector loads, LLDT, LTR, LAR, LSL, VERR, VERW. */
#include "fixture.h"

static void linear64(void **state)
{
	struct bed *b = *state;
	struct vcpu *v = b->v;
	gva_t lin;

	bed_long(b);
	v->seg[DS].base = 0x1000;
	v->seg[FS].base = 0x2000;
	assert_int_equal(cpu_linear(v, DS, 0x10, 8, true, &lin), 0);
	assert_int_equal(lin, 0x10);
	assert_int_equal(cpu_linear(v, FS, 0x10, 8, true, &lin), 0);
	assert_int_equal(lin, 0x2010);
	assert_int_equal(cpu_linear(v, FS, -0x10ull, 8, false, &lin), 0);
	assert_int_equal(lin, 0x1ff0);
	expect_fault(cpu_linear(v, DS, 0x800000000000, 1, false, &lin), v, VEC_GP, 0);
	expect_fault(cpu_linear(v, DS, 0x7ffffffffff9, 8, false, &lin), v, VEC_GP, 0);
	assert_int_equal(cpu_linear(v, DS, 0x7ffffffffff8, 8, false, &lin), 0);
	expect_fault(cpu_linear(v, SS, 0x7ffffffffff9, 8, true, &lin), v, VEC_SS, 0);
	expect_fault(cpu_linear(v, DS, 0xffff7fffffffffff, 1, true, &lin), v, VEC_GP, 0);
}

static void linear32(void **state)
{
	struct bed *b = *state;
	struct vcpu *v = b->v;
	gva_t lin;

	bed_prot(b);
	v->seg[DS].base = 0xfffff000;
	assert_int_equal(cpu_linear(v, DS, 0x1004, 4, true, &lin), 0);
	assert_int_equal(lin, 4);                                      /* wraps at 4 GiB */
	v->seg[DS].limit = 0xfff;
	assert_int_equal(cpu_linear(v, DS, 0xffc, 4, true, &lin), 0);
	expect_fault(cpu_linear(v, DS, 0xffd, 4, true, &lin), v, VEC_GP, 0);
	expect_fault(cpu_linear(v, DS, 0xffffffff, 4, true, &lin), v, VEC_GP, 0);
	v->seg[SS].limit = 0xfff;
	expect_fault(cpu_linear(v, SS, 0x1000, 1, false, &lin), v, VEC_SS, 0);
	/* Types: code is not writable, execute-only code not readable, read-only data not writable. */
	expect_fault(cpu_linear(v, CS, 0, 1, true, &lin), v, VEC_GP, 0);
	assert_int_equal(cpu_linear(v, CS, 0, 1, false, &lin), 0);
	v->seg[CS].attr &= ~2;
	expect_fault(cpu_linear(v, CS, 0, 1, false, &lin), v, VEC_GP, 0);
	assert_int_equal(cpu_load_seg(v, ES, S_RODATA), 0);
	assert_int_equal(cpu_linear(v, ES, 0, 1, false, &lin), 0);
	expect_fault(cpu_linear(v, ES, 0, 1, true, &lin), v, VEC_GP, 0);
	/* Expand-down: above the limit only. */
	assert_int_equal(cpu_load_seg(v, ES, S_DOWN), 0);
	expect_fault(cpu_linear(v, ES, 0xffff, 1, true, &lin), v, VEC_GP, 0);
	assert_int_equal(cpu_linear(v, ES, 0x10000, 1, true, &lin), 0);
	expect_fault(cpu_linear(v, ES, 0xfffffffd, 4, true, &lin), v, VEC_GP, 0);
	v->seg[ES].attr &= ~SEG_DB;
	v->seg[ES].limit = 0xff;
	assert_int_equal(cpu_linear(v, ES, 0xfffc, 4, true, &lin), 0);
	expect_fault(cpu_linear(v, ES, 0xfffd, 4, true, &lin), v, VEC_GP, 0);
	assert_int_equal(cpu_load_seg(v, ES, 0), 0);
	expect_fault(cpu_linear(v, ES, 0, 1, false, &lin), v, VEC_GP, 0);
}

static void load_checks(void **state)
{
	struct bed *b = *state;
	struct vcpu *v = b->v;

	bed_long(b);
	assert_int_equal(cpu_lldt(v, 0), 0);
	assert_int_equal(cpu_load_seg(v, DS, S_UDATA), 0);
	assert_int_equal(get64(b, GDT + (S_UDATA & ~7)) >> 40 & 1, 1);          /* accessed */
	assert_int_equal(cpu_load_seg(v, DS, 2), 0);                            /* null with any RPL */
	assert_true(v->seg[DS].unusable);
	expect_fault(cpu_load_seg(v, DS, S_EXEC_ONLY), v, VEC_GP, S_EXEC_ONLY & ~3);
	expect_fault(cpu_load_seg(v, DS, S_ABSENT_DATA), v, VEC_NP, S_ABSENT_DATA & ~3);
	expect_fault(cpu_load_seg(v, DS, S_TSS), v, VEC_GP, S_TSS);
	expect_fault(cpu_load_seg(v, DS, S_KDATA | 3), v, VEC_GP, S_KDATA);
	expect_fault(cpu_load_seg(v, DS, S_TOP), v, VEC_GP, S_TOP);
	expect_fault(cpu_load_seg(v, DS, 0xc), v, VEC_GP, 0xc);                 /* no LDT */
	assert_int_equal(cpu_load_seg(v, DS, S_CONF), 0);
	/* SS. */
	assert_int_equal(cpu_load_seg(v, SS, 0), 0);
	expect_fault(cpu_load_seg(v, SS, 3), v, VEC_GP, 0);
	expect_fault(cpu_load_seg(v, SS, S_UDATA), v, VEC_GP, S_UDATA & ~3);
	expect_fault(cpu_load_seg(v, SS, S_KCODE), v, VEC_GP, S_KCODE);
	/* FS loads a base from its descriptor even in 64-bit mode; null clears it. */
	bed_desc(b, S_UDATA, 0x12cff2345678ffff);
	v->seg[FS].base = 0xffff888800000000;
	assert_int_equal(cpu_load_seg(v, FS, S_UDATA), 0);
	assert_int_equal(v->seg[FS].base, 0x12345678);
	assert_int_equal(cpu_load_seg(v, FS, 0), 0);
	assert_int_equal(v->seg[FS].base, 0);
	bed_desc(b, S_UDATA, 0x00cff2000000ffff);
	bed_user(b, S_UCODE);
	expect_fault(cpu_load_seg(v, SS, 3), v, VEC_GP, 0);
	expect_fault(cpu_load_seg(v, DS, S_KDATA), v, VEC_GP, S_KDATA);
	expect_fault(cpu_load_seg(v, SS, S_ABSENT_DATA), v, VEC_SS, S_ABSENT_DATA & ~3);
}

static void system_segments(void **state)
{
	struct bed *b = *state;
	struct vcpu *v = b->v;

	bed_long(b);
	assert_int_equal(v->seg[TR].base, K(TSS));
	assert_int_equal(get64(b, GDT + S_TSS) >> 40 & 15, 11);                 /* busy */
	expect_fault(cpu_ltr(v, S_TSS), v, VEC_GP, S_TSS);
	expect_fault(cpu_ltr(v, 0), v, VEC_GP, 0);
	expect_fault(cpu_ltr(v, S_KDATA), v, VEC_GP, S_KDATA);
	expect_fault(cpu_ltr(v, S_TSS | 4), v, VEC_GP, S_TSS | 4);
	bed_desc16(b, S_TSS, sys_desc(K(TSS), 0x67, 0x09), K(TSS) >> 32);
	expect_fault(cpu_ltr(v, S_TSS), v, VEC_NP, S_TSS);
	bed_desc16(b, S_TSS, sys_desc(K(TSS), 0x67, 0x81), K(TSS) >> 32);
	expect_fault(cpu_ltr(v, S_TSS), v, VEC_GP, S_TSS);                      /* 16-bit TSS in long mode */
	bed_desc16(b, S_TSS, sys_desc(K(TSS), 0x67, 0x89), 0x8000);
	expect_fault(cpu_ltr(v, S_TSS), v, VEC_GP, S_TSS);                      /* base not canonical */
	bed_desc16(b, S_TSS, sys_desc(K(TSS), 0x67, 0x89), K(TSS) >> 32 | 1ull << 40);
	expect_fault(cpu_ltr(v, S_TSS), v, VEC_GP, S_TSS);
	assert_int_equal(cpu_lldt(v, S_LDT), 0);
	assert_int_equal(v->seg[LDTR].base, K(GDT));
	assert_int_equal(cpu_load_seg(v, DS, S_KDATA | 4), 0);                  /* through the LDT */
	expect_fault(cpu_lldt(v, S_KDATA), v, VEC_GP, S_KDATA);
	assert_int_equal(cpu_lldt(v, 0), 0);
	assert_true(v->seg[LDTR].unusable);
	v->gdt.limit = S_TSS + 11;
	expect_fault(cpu_ltr(v, S_TSS), v, VEC_GP, S_TSS);                      /* upper half outside the table */
}

static void selector_tests(void **state)
{
	struct bed *b = *state;
	struct vcpu *v = b->v;
	uint32_t val;
	bool ok;

	bed_long(b);
	assert_int_equal(cpu_lar(v, S_KCODE, &ok, &val), 0);
	assert_true(ok);
	assert_int_equal(val, 0x00a09b00);
	assert_int_equal(cpu_lsl(v, S_KDATA, &ok, &val), 0);
	assert_true(ok);
	assert_int_equal(val, 0xffffffff);
	assert_int_equal(cpu_lsl(v, S_TSS, &ok, &val), 0);
	assert_true(ok);
	assert_int_equal(val, 0x67);
	assert_int_equal(cpu_lar(v, 0, &ok, &val), 0);
	assert_false(ok);
	assert_int_equal(cpu_lar(v, S_TOP, &ok, &val), 0);
	assert_false(ok);
	assert_int_equal(cpu_lar(v, S_KDATA | 3, &ok, &val), 0);
	assert_false(ok);
	assert_int_equal(cpu_lar(v, S_CONF | 3, &ok, &val), 0);
	assert_true(ok);
	bed_desc16(b, S_GATE, 0xecull << 40, 0);
	assert_int_equal(cpu_lar(v, S_GATE, &ok, &val), 0);
	assert_true(ok);
	assert_int_equal(cpu_lsl(v, S_GATE, &ok, &val), 0);
	assert_false(ok);
	assert_int_equal(cpu_verify(v, S_RODATA, false, &ok), 0);
	assert_true(ok);
	assert_int_equal(cpu_verify(v, S_RODATA, true, &ok), 0);
	assert_false(ok);
	assert_int_equal(cpu_verify(v, S_EXEC_ONLY, false, &ok), 0);
	assert_false(ok);
	assert_int_equal(cpu_verify(v, S_TSS, false, &ok), 0);
	assert_false(ok);
	bed_user(b, S_UCODE);
	assert_int_equal(cpu_verify(v, S_KDATA, false, &ok), 0);
	assert_false(ok);
	assert_int_equal(cpu_verify(v, S_UDATA, true, &ok), 0);
	assert_true(ok);
}

static void io_permission(void **state)
{
	struct bed *b = *state;
	struct vcpu *v = b->v;

	bed_long(b);
	assert_int_equal(cpu_io_check(v, 0xffff, 1), 0);
	bed_user(b, S_UCODE);
	expect_fault(cpu_io_check(v, 0x3f8, 1), v, VEC_GP, 0);
	fx_put(&b->fx, TSS + 102, 2, 0x68);
	v->seg[TR].limit = 0x68 + 0x80;
	fx_put(&b->fx, TSS + 0x68 + 0x7f, 2, 0xff00);
	assert_int_equal(cpu_io_check(v, 0x3f8, 4), 0);
	assert_int_equal(cpu_io_check(v, 0x3fc, 4), 0);
	expect_fault(cpu_io_check(v, 0x3fd, 4), v, VEC_GP, 0);                  /* its last byte is bit 0 of the ones */
	expect_fault(cpu_io_check(v, 0x400, 1), v, VEC_GP, 0);
	/* Two bytes are read: the second must lie inside the limit even when its bits do not matter. */
	fx_put(&b->fx, TSS + 0x68 + 0x80, 4, 0);
	assert_int_equal(cpu_io_check(v, 0x3f8, 1), 0);
	v->seg[TR].limit--;
	expect_fault(cpu_io_check(v, 0x3f8, 1), v, VEC_GP, 0);
	v->rflags |= FL_IOPL;
	assert_int_equal(cpu_io_check(v, 0x400, 1), 0);
	b->pio = 1;
	assert_int_equal(cpu_pio_read(v, 0x80, 2), 0x83);
}

static void unreal_mode(void **state)
{
	struct bed *b = *state;
	struct vcpu *v = b->v;
	gva_t lin;

	expect_fault(cpu_linear(v, DS, 0x10000, 1, true, &lin), v, VEC_GP, 0);
	bed_prot(b);
	assert_int_equal(cpu_far_jump(v, S_KCODE32, 0x1000, 4), 0);
	assert_int_equal(cpu_write_cr(v, 0, 0), 0);
	assert_int_equal(v->mode, INSN_MODE_REAL);
	assert_int_equal(cpu_load_seg(v, DS, 0x1234), 0);
	assert_int_equal(v->seg[DS].base, 0x12340);
	assert_int_equal(v->seg[DS].limit, 0xffffffff);                         /* the big limit stays */
	assert_int_equal(cpu_linear(v, DS, 0x100000, 4, true, &lin), 0);
	assert_int_equal(lin, 0x112340);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		bed_test(linear64), bed_test(linear32), bed_test(load_checks), bed_test(system_segments), bed_test(selector_tests),
		bed_test(io_permission), bed_test(unreal_mode),
	};

	return cmocka_run_group_tests_name("cpu/seg", tests, NULL, NULL);
}
