/* SPDX-License-Identifier: Apache-2.0 */
/* gdb/registers.c: every register reads and writes what it names, and refuses what the architecture does not allow. */
#include "../cpu/fixture.h"

#include "gdb/private.h"

/* Numbers by the order of the features in "Debugging with GDB". */
enum { N_RIP = 16, N_EFLAGS = 17, N_ST0 = 24, N_FCTRL = 32, N_FSTAT = 33, N_FTAG = 34, N_FIOFF = 36, N_XMM0 = 40, N_MXCSR = 56,
       N_FS_BASE = 57, N_YMM0H = 59, N_CR0 = 75 };

static uint64_t get(struct vcpu *v, unsigned n)
{
	uint8_t val[GDB_REG_BYTES_MAX] = {0};
	uint64_t x;

	gdb_reg_read(v, n, val);
	memcpy(&x, val, 8);
	return x;
}

static bool set(struct vcpu *v, unsigned n, uint64_t x)
{
	uint8_t val[GDB_REG_BYTES_MAX] = {0};

	memcpy(val, &x, 8);
	return gdb_reg_write(v, n, val);
}

static void general(void **state)
{
	static const enum x86_gpr order[] = {RAX, RBX, RCX, RDX, RSI, RDI, RBP, RSP, R8, R9, R10, R11, R12, R13, R14, R15};
	struct vcpu *v = ((struct bed *)*state)->v;

	for (unsigned i = 0; i < 16; i++) {
		assert_true(set(v, i, 0x1234567890abcdefull + i));
		assert_int_equal(v->gpr[order[i]], 0x1234567890abcdefull + i);
		assert_int_equal(get(v, i), v->gpr[order[i]]);
	}
	assert_true(set(v, N_RIP, 0x8000));
	assert_int_equal(v->rip, 0x8000);
}

static void flags(void **state)
{
	struct vcpu *v = ((struct bed *)*state)->v;

	v->irq_waiting = true;
	v->event = 0;
	assert_true(set(v, N_EFLAGS, FL_FIXED | FL_CF | FL_IF | FL_AC));
	assert_int_equal(v->rflags, FL_FIXED | FL_CF | FL_IF | FL_AC);
	assert_int_equal(v->event, VCPU_EV_IRQ); /* the window is open */
	assert_false(set(v, N_EFLAGS, FL_FIXED | FL_VM));
	assert_false(set(v, N_EFLAGS, 0));
	assert_int_equal(v->rflags, FL_FIXED | FL_CF | FL_IF | FL_AC);
}

static void bases_and_control(void **state)
{
	struct bed *b = *state;
	struct vcpu *v = b->v;

	assert_false(set(v, N_FS_BASE, 0x100000000)); /* real mode */
	bed_long(b);
	assert_true(set(v, N_FS_BASE, 0xffff800000001000));
	assert_int_equal(v->seg[FS].base, 0xffff800000001000);
	assert_false(set(v, N_FS_BASE, 0x800000000000));
	assert_int_equal(get(v, N_CR0), v->cr0);
	assert_true(set(v, N_CR0, v->cr0));
	assert_false(set(v, N_CR0, v->cr0 ^ CR0_PG));
	assert_int_equal(get(v, N_CR0 + 2), v->cr3);
	assert_int_equal(get(v, N_CR0 + 5), v->efer);
}

/* Loads the state and takes it out of the host's registers again: it must be one that XRSTOR accepts and means. */
static void round_trip(struct vcpu *v)
{
	vcpu_fpu_load(v);
	vcpu_fpu_park(v);
}

static void vectors(void **state)
{
	struct vcpu *v = ((struct bed *)*state)->v;
	uint8_t val[16], now[16];

	for (unsigned i = 0; i < 16; i++) {
		memset(val, (int)(0x10 + i), 16);
		assert_true(gdb_reg_write(v, N_XMM0 + i, val));
		memset(val, (int)(0x80 + i), 16);
		assert_true(gdb_reg_write(v, N_YMM0H + i, val));
	}
	assert_true(set(v, N_MXCSR, 0x9fc0));
	assert_false(set(v, N_MXCSR, 0x10000));
	round_trip(v);
	for (unsigned i = 0; i < 16; i++) {
		memset(val, (int)(0x10 + i), 16);
		gdb_reg_read(v, N_XMM0 + i, now);
		assert_memory_equal(now, val, 16);
		memset(val, (int)(0x80 + i), 16);
		gdb_reg_read(v, N_YMM0H + i, now);
		assert_memory_equal(now, val, 16);
	}
	assert_int_equal(get(v, N_MXCSR), 0x9fc0);
}

static void x87(void **state)
{
	struct vcpu *v = ((struct bed *)*state)->v;
	const uint8_t one[10] = {0, 0, 0, 0, 0, 0, 0, 0x80, 0xff, 0x3f}, inf[10] = {0, 0, 0, 0, 0, 0, 0, 0x80, 0xff, 0x7f};
	uint8_t now[10];

	assert_int_equal(get(v, N_FTAG) & 0xffff, 0xffff); /* all empty */
	assert_true(set(v, N_FSTAT, 6 << 11));             /* ST(0) is register 6 */
	assert_true(gdb_reg_write(v, N_ST0, one));
	assert_true(gdb_reg_write(v, N_ST0 + 1, inf));
	assert_true(set(v, N_FTAG, 0x0fff));               /* 6 and 7 in use */
	/* Valid, special, the others empty. */
	assert_int_equal(get(v, N_FTAG) & 0xffff, 0x8fff);
	round_trip(v);
	assert_int_equal(get(v, N_FTAG) & 0xffff, 0x8fff);
	gdb_reg_read(v, N_ST0, now);
	assert_memory_equal(now, one, 10);
	gdb_reg_read(v, N_ST0 + 1, now);
	assert_memory_equal(now, inf, 10);
	assert_true(set(v, N_FCTRL, 0x027f));
	assert_int_equal(get(v, N_FCTRL) & 0xffff, 0x027f);
	assert_false(set(v, N_FCTRL, 0x10000));
	assert_true(set(v, N_FIOFF, 0));
	assert_false(set(v, N_FIOFF, 1));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		bed_test(general), bed_test(flags), bed_test(bases_and_control), bed_test(vectors), bed_test(x87),
	};

	return cmocka_run_group_tests_name("gdb/registers", tests, NULL, NULL);
}
