/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A fuzzer's choices: a generator's, or those of an input that libFuzzer bends towards code not yet reached; when the input ends the
 * generator goes on, always the same way, so an input is a whole test. Two bytes make a choice: its low bits are theirs, for `% n`,
 * and the others follow from them.
 */
#ifndef TESTS_FUZZ_CHOICES_H
#define TESTS_FUZZ_CHOICES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#define CHOICES_SEED 0x9e3779b97f4a7c15ull

struct choices {
	uint64_t state;
	const uint8_t *tape, *end;
};

/* From the argument of a program, if there is one. */
static inline struct choices choices_of_seed(const char *arg)
{
	return (struct choices){.state = arg ? strtoull(arg, NULL, 0) | 1 : CHOICES_SEED};
}

static inline struct choices choices_of_input(const uint8_t *data, size_t size)
{
	return (struct choices){.state = CHOICES_SEED, .tape = data, .end = data + size};
}

static inline bool choices_left(const struct choices *c) { return c->end - c->tape >= 2; }

static inline uint64_t choices_next(struct choices *c)
{
	if (choices_left(c)) {
		uint64_t v = c->tape[0] | (uint64_t)c->tape[1] << 8;

		c->tape += 2;
		return v | (v * CHOICES_SEED & ~0xffffull);
	}
	c->state ^= c->state << 13;
	c->state ^= c->state >> 7;
	c->state ^= c->state << 17;
	return c->state;
}

#endif
