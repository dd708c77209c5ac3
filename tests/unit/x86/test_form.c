/* SPDX-License-Identifier: Apache-2.0 */
/*
 * x86/form.c against insn_decode(): for every opcode of every map, with random prefixes and operands, code that has the same form decodes
 * to the same, or not at all, and what insn_form_fill() makes of one is what the other decodes to, byte for byte.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "x86/form.h"

#define ROUNDS 64  /* for each opcode of each map */

struct gen {
	uint64_t state;
};

static uint64_t draw(struct gen *g)
{
	g->state ^= g->state << 13;
	g->state ^= g->state >> 7;
	g->state ^= g->state << 17;
	return g->state;
}

static void fill(struct gen *g, uint8_t *p, unsigned n)
{
	while (n--)
		*p++ = (uint8_t)(draw(g) >> 24);
}

enum map { ONE, TWO, MAP_38, MAP_3A, VEX2, VEX3, MAPS };

/* An instruction with this opcode, and random bytes behind it. */
static void make(struct gen *g, uint8_t code[16], enum insn_mode mode, enum map map, unsigned opcode)
{
	static const uint8_t prefix[] = {0x66, 0x67, 0xf0, 0xf2, 0xf3, 0x64, 0x65, 0x2e, 0x3e, 0x26};
	unsigned n = 0;

	fill(g, code, 16);
	for (unsigned few = draw(g) % 4; few > 1; few--)
		code[n++] = prefix[draw(g) % sizeof(prefix)];
	if (map < VEX2 && mode == INSN_MODE_64 && draw(g) % 2)
		code[n++] = (uint8_t)(0x40 | draw(g) % 16);
	if (map == VEX2 || map == VEX3) {
		code[n++] = map == VEX2 ? 0xc5 : 0xc4;
		if (map == VEX3)
			code[n++] = (uint8_t)(draw(g) & 0xe0) | (uint8_t)(1 + draw(g) % 3);
		if (mode == INSN_MODE_32)
			code[n - (map == VEX3)] |= 0xc0;
		n++;
	} else if (map != ONE) {
		code[n++] = 0x0f;
		if (map != TWO)
			code[n++] = map == MAP_38 ? 0x38 : 0x3a;
	}
	code[n] = (uint8_t)opcode;
}

/* Other code of the same form. */
static bool again(struct gen *g, uint8_t to[16], const uint8_t code[16], const struct insn_form *f, enum insn_mode mode)
{
	struct insn_form other;

	for (unsigned tries = 0; tries < 64; tries++) {
		memcpy(to, code, 16);
		fill(g, to + f->disp_off, f->disp_size);
		fill(g, to + f->imm_off, f->imm_size);
		fill(g, to + f->len, 16u - f->len);
		if (insn_form(&other, mode, to, INSN_MAX_LEN) && other.key == f->key) {
			assert_memory_equal(&other, f, sizeof(other));
			return true;
		}
	}
	return false;
}

static void check(struct gen *g, enum insn_mode mode, const uint8_t code[16], unsigned *agreed)
{
	uint8_t with[16];
	struct insn_form f;
	struct insn a, b;
	int r;

	if (!insn_form(&f, mode, code, INSN_MAX_LEN))
		return;
	assert_true(f.key && !(f.key >> 60));
	assert_true(f.len && f.len <= INSN_MAX_LEN && f.disp_off + f.disp_size <= f.len && f.imm_off + f.imm_size <= f.len);
	assert_false(insn_form(&f, mode, code, f.len - 1u));
	assert_true(insn_form(&f, mode, code, f.len));
	assert_true(again(g, with, code, &f, mode));
	r = insn_decode(&a, mode, code, INSN_MAX_LEN);
	assert_int_equal(insn_decode(&b, mode, with, INSN_MAX_LEN), r);
	if (r)
		return;
	if (!insn_form_agrees(&f, &a)) {
		fprintf(stderr, "no form wanted for");
		for (unsigned i = 0; i < 16; i++)
			fprintf(stderr, " %02x", code[i]);
		fail();
	}
	insn_form_fill(&a, &f, with);
	assert_memory_equal(&a, &b, sizeof(a));
	(*agreed)++;
}

static void forms(enum insn_mode mode)
{
	struct gen g = {.state = 0x9e3779b97f4a7c15ull + mode};
	uint8_t code[16];
	unsigned agreed = 0;

	for (unsigned map = 0; map < MAPS; map++)
		for (unsigned opcode = 0; opcode < 256; opcode++)
			for (unsigned i = 0; i < ROUNDS; i++) {
				make(&g, code, mode, (enum map)map, opcode);
				check(&g, mode, code, &agreed);
			}
	/* The others are no instructions, or have no form. */
	assert_true(agreed > MAPS * 256 * ROUNDS / 5);
}

static void test_64(void **state)
{
	(void)state;
	forms(INSN_MODE_64);
}

static void test_32(void **state)
{
	(void)state;
	forms(INSN_MODE_32);
}

/* Random bytes, all kinds of prefixes included. */
static void test_random(void **state)
{
	struct gen g = {.state = 1};
	uint8_t code[16];
	unsigned agreed = 0;

	(void)state;
	for (unsigned i = 0; i < 200000; i++) {
		fill(&g, code, sizeof(code));
		check(&g, i & 1 ? INSN_MODE_64 : INSN_MODE_32, code, &agreed);
	}
	assert_true(agreed > 50000);
}

static void test_none(void **state)
{
	static const uint8_t nop[16] = {0x90}, enter[16] = {0xc8, 8}, evex[16] = {0x62, 0xf1, 0x7c, 0x48, 0x58, 0xc0};
	struct insn_form f;

	(void)state;
	assert_true(insn_form(&f, INSN_MODE_64, nop, 1));
	assert_false(insn_form(&f, INSN_MODE_64, nop, 0));
	assert_false(insn_form(&f, INSN_MODE_16, nop, 1));
	assert_false(insn_form(&f, INSN_MODE_64, enter, INSN_MAX_LEN));
	assert_false(insn_form(&f, INSN_MODE_64, evex, INSN_MAX_LEN));
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(test_64), cmocka_unit_test(test_32), cmocka_unit_test(test_random),
					   cmocka_unit_test(test_none)};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
