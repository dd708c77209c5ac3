/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tests/insn: one instruction, the same random state, on the host's processor and in an engine; everything must come out equal.
 *
 * Both sides see the same addresses: two data pages with nothing mapped around them, and a code page. The host runs the instruction
 * in its own process at CPL 3 (host.c, stub.S); the engine runs it at CPL 3 of a small guest whose page tables map the same
 * addresses (guest.c). forms.c enumerates what can be encoded, gen.c makes it concrete, main.c compares.
 */
#ifndef TESTS_INSN_H
#define TESTS_INSN_H

#include "base/types.h"
#include "cpu/vcpu.h"
#include "x86/arch.h"
#include "x86/insn.h"

#define DATA_VA 0x30000000ull
#define DATA_SIZE (2 * PAGE_SIZE)
#define CODE_VA 0x30100000ull
#define INSN_VA (CODE_VA + 0x7f0)
#define TARGET_VA (INSN_VA + 0x60)      /* where taken branches go */

/* Architectural state before or after; the XSAVE image is in the standard format. */
struct state {
	uint64_t gpr[GPR_COUNT];
	uint64_t rflags;
	uint64_t rip;
	uint8_t x[VCPU_XSAVE_MAX] __attribute__((aligned(64)));
	uint8_t mem[DATA_SIZE];
};

/* xstate.c: the parts of state.x. Components: XCR0 bits that both sides have; where vector and opmask registers lie in the image, and in how
 * many pieces. */
uint64_t x_components(void);
unsigned x_size(void);
struct x_part { char name[8]; unsigned off, len; };
unsigned x_parts(const struct x_part **out);
uint8_t *x_vec(uint8_t *x, unsigned reg, unsigned byte);
uint8_t *x_mask(uint8_t *x, unsigned reg);

/* How an instruction ended. */
struct outcome {
	int vector;            /* -1: completed */
	uint32_t err;
	uint64_t cr2;
	struct state s;
};

struct rng { uint64_t s; };
uint64_t rnd(struct rng *r);
static inline unsigned pick(struct rng *r, unsigned n) { return (unsigned)((rnd(r) >> 11) % n); }

/* forms.c: one representative encoding per distinct instruction form. */
struct form {
	uint8_t bytes[16];
	uint8_t len;
	uint8_t reg_fixed;     /* ModRM.reg is part of the opcode */
	uint8_t opcode_off;    /* of the last opcode byte */
	struct insn in;
};
size_t forms_enumerate(struct form **out, bool host);   /* host: only what the host can be compared in */

/* gen.c: a concrete instruction and a state to run it in. False if this draw does not work out. */
struct test {
	const struct form *form;
	uint8_t code[16];
	struct insn in;
	struct state s;
};
bool gen_test(struct rng *r, const struct form *f, struct test *t);

/* host.c */
int host_init(void);
void host_run(const struct test *t, struct outcome *o);

/* guest.c */
struct guest;
int guest_create(struct guest **out, const char *engine);
void guest_run(struct guest *g, const struct test *t, struct outcome *o);
void guest_destroy(struct guest *g);
/* guest_run in steps: a whole page of code, entered at INSN_VA, and a state; then until the guest halts. */
struct vcpu;
void guest_load(struct guest *g, enum insn_mode mode, const uint8_t *code, const struct state *s);
void guest_go(struct guest *g, struct outcome *o);
struct vcpu *guest_vcpu(struct guest *g);

/* stream.c: random streams of instructions on interp and `engine` for that many seconds; 0: just the stream numbered `seed`. `program` is
 * how this one was called. */
int stream_main(const char *program, const char *engine, uint64_t seed, unsigned seconds);

#endif
