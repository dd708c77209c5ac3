/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Random instruction streams: the same code and state in two engines, everything compared at the end. Where one instruction at a
 * time (main.c) asks whether each is right, this asks whether they are right together: flags carried across blocks, branches, the
 * stack's alignment, displaced registers, faults in the middle.
 *
 * Deterministic: stream n of seed s is always the same. A stream that does not end is stopped by a watchdog and not compared.
 */
#include <Zydis/Mnemonic.h>
#include <Zydis/Zydis.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "cpu/vcpu.h"
#include "insn_test.h"

#define M(x) ZYDIS_MNEMONIC_##x
#define MAX_INSNS 30
#define MAX_FAILURES 10

struct stream {
	uint8_t code[PAGE_SIZE];
	struct state s;
	enum insn_mode mode;
	unsigned n;
	uint16_t off[MAX_INSNS + 1];     /* of each instruction in the page, and of the end */
	bool bytes;                      /* not instructions but anything at all, only to be survived */
};

/* --- generation ------------------------------------------------------------------------------------------------------- */

/* Not the same everywhere, or what main.c already excuses: undefined flags that a later instruction would spread, time, pointers of
 * the floating-point unit, and ways to leave the page. */
static bool unsuitable(const struct insn *in)
{
	if (in->category == ZYDIS_CATEGORY_COND_BR || in->category == ZYDIS_CATEGORY_UNCOND_BR || in->category == ZYDIS_CATEGORY_CALL ||
	    in->category == ZYDIS_CATEGORY_RET || in->has_vsib)
		return true;
	switch (in->mnemonic) {
	case M(RDTSC): case M(RDTSCP): case M(RDRAND): case M(RDSEED): case M(CPUID): case M(XGETBV):
	case M(DIV): case M(IDIV): case M(INT): case M(INT1): case M(INT3): case M(SYSCALL): case M(SYSENTER): case M(VMCALL): case M(VMMCALL): case M(IRET): case M(IRETQ): case M(IRETD):
	case M(POPF): case M(POPFQ): case M(FNSTENV): case M(FNSAVE): case M(FXSAVE): case M(FXSAVE64): case M(XSAVE): case M(XSAVE64):
	case M(XSAVEC): case M(XSAVEC64): case M(XSAVEOPT): case M(XSAVEOPT64): case M(FLDENV): case M(FRSTOR): case M(FXRSTOR):
	case M(FXRSTOR64): case M(XRSTOR): case M(XRSTOR64): case M(LDMXCSR): case M(VLDMXCSR):
	case M(DPPS): case M(DPPD): case M(VDPPS): case M(VDPPD): /* main.c: mxcsr_unknown() */
		return true;
	default:
		return false;
	}
}

static unsigned put_branch(struct rng *r, uint8_t *p)
{
	unsigned n = 0;

	switch (pick(r, 4)) {
	case 0:
		p[n++] = 0xeb;
		break;
	case 1: /* LOOP and JRCXZ, or their narrow forms */
		if (!pick(r, 4))
			p[n++] = 0x67;
		p[n++] = 0xe0 | (uint8_t)pick(r, 4);
		break;
	default:
		p[n++] = 0x70 | (uint8_t)pick(r, 16);
		break;
	}
	p[n++] = 0;      /* aimed when all offsets are known */
	return n;
}

/* A well-behaved stack instruction or a move through a pointer register: what real code consists of. */
static unsigned put_common(struct rng *r, uint8_t *p)
{
	static const uint8_t base[] = {RBX, RBP, RSI, RDI};
	unsigned n = 0, reg = pick(r, 8);

	switch (pick(r, 6)) {
	case 0: p[n++] = 0x40 | (uint8_t)pick(r, 2); p[n++] = 0x50 | (uint8_t)reg; break;
	case 1: p[n++] = 0x40 | (uint8_t)pick(r, 2); p[n++] = 0x58 | (uint8_t)reg; break;
	case 2: p[n++] = 0xff; p[n++] = 0x70 | base[pick(r, 4)]; p[n++] = (uint8_t)rnd(r); break;
	case 3: p[n++] = 0x48; p[n++] = 0x83; p[n++] = pick(r, 2) ? 0xc4 : 0xec; p[n++] = (uint8_t)(pick(r, 32) * (pick(r, 4) ? 8 : 1)); break;
	case 4: p[n++] = 0x48 | (uint8_t)(pick(r, 2) << 2); p[n++] = pick(r, 2) ? 0x89 : 0x8b; p[n++] = 0x44 | (uint8_t)reg << 3;
		p[n++] = 0x24; p[n++] = (uint8_t)(pick(r, 16) * 8); break;
	default: p[n++] = 0x48 | (uint8_t)(pick(r, 2) << 2); p[n++] = pick(r, 2) ? 0x89 : 0x8b;
		p[n++] = 0x40 | (uint8_t)reg << 3 | base[pick(r, 4)]; p[n++] = (uint8_t)rnd(r); break;
	}
	return n;
}

/* One of the forms, with prefixes repeated now and then. */
static unsigned put_form(struct rng *r, enum insn_mode mode, const struct form *forms, size_t nforms, struct test *t, uint8_t *p)
{
	static const uint8_t prefix[] = {0x66, 0x2e, 0x3e, 0x36, 0x26, 0x67, 0xf2, 0xf3};

	for (unsigned try = 0; try < 50; try++) {
		unsigned pad = 0;
		struct insn in;

		if (!gen_test(r, &forms[pick(r, (unsigned)nforms)], t) || unsuitable(&t->in))
			continue;
		if (!pick(r, 6)) {
			uint8_t which = prefix[pick(r, nitems(prefix))];

			pad = pick(r, 3) ? 1 : INSN_MAX_LEN - t->in.len;
			memset(p, which, pad);
		}
		if (pad + t->in.len > INSN_MAX_LEN)
			pad = 0;
		memcpy(p + pad, t->code, t->in.len);
		if (insn_decode(&in, mode, p, pad + t->in.len) || unsuitable(&in) || in.len != pad + t->in.len)
			continue;
		/* Processors keep the flags that these leave undefined, the translator need not: nothing may read them. */
		if (in.mnemonic == M(BT) || in.mnemonic == M(BTS) || in.mnemonic == M(BTR) || in.mnemonic == M(BTC)) {
			static const uint8_t settle[] = {0x0f, 0x92, 0xc0, 0x84, 0xc0}; /* setc al; test al, al */

			memcpy(p + in.len, settle, sizeof(settle));
			return in.len + sizeof(settle);
		}
		return in.len;
	}
	p[0] = 0x90;
	return 1;
}

static void aim_branches(struct rng *r, struct stream *s)
{
	for (unsigned i = 0; i < s->n; i++) {
		uint8_t *p = s->code + s->off[i];
		/* Forward mostly: a loop that the flags do not end is for the watchdog. */
		unsigned to = pick(r, 8) ? i + 1 + pick(r, s->n - i) : pick(r, s->n);
		int rel = (int)s->off[to] - (int)s->off[i + 1];
		unsigned len = s->off[i + 1] - s->off[i];

		if (len == 3 && p[0] == 0x67 && (p[1] & 0xfc) == 0xe0)
			p++;
		else if (len != 2 || (p[0] != 0xeb && (p[0] & 0xfc) != 0xe0 && (p[0] & 0xf0) != 0x70))
			continue;
		p[1] = (uint8_t)(rel >= -128 && rel <= 127 ? rel : 0);
	}
}

static void generate(struct rng *r, const struct form *forms, size_t nforms, struct test *t, struct stream *s)
{
	static const uint8_t done[] = {0xcd, 0x81};
	unsigned at = INSN_VA & PAGE_MASK;

	s->bytes = !pick(r, 8);
	s->mode = pick(r, 4) ? INSN_MODE_64 : INSN_MODE_32;
	memset(s->code, 0xcc, sizeof(s->code));
	s->n = 5 + pick(r, MAX_INSNS - 4);
	while (!gen_test(r, &forms[pick(r, (unsigned)nforms)], t))
		;
	s->s = t->s;
	for (unsigned i = 0; i < s->n; i++) {
		uint8_t *p = s->code + at;

		s->off[i] = (uint16_t)at;
		if (s->bytes) {
			for (unsigned k = 0; k < 8; k++)
				p[k] = (uint8_t)rnd(r);
			at += 8;
		} else if (!pick(r, 6)) {
			at += put_branch(r, p);
		} else if (!pick(r, 3)) {
			at += put_common(r, p);
		} else {
			at += put_form(r, s->mode, forms, nforms, t, p);
		}
	}
	s->off[s->n] = (uint16_t)at;
	memcpy(s->code + at, done, sizeof(done));
	if (!s->bytes)
		aim_branches(r, s);
	for (unsigned i = 0; i < GPR_COUNT; i++)
		if (i == RSP || pick(r, 3))
			s->s.gpr[i] = DATA_VA + 256 + (pick(r, 3) ? pick(r, 900) * 8 : pick(r, 7000));
	if (pick(r, 4))
		s->s.gpr[RCX] = pick(r, 70);
	s->s.rflags &= ~(uint64_t)(pick(r, 8) ? FL_DF : 0);
}

/* --- running ---------------------------------------------------------------------------------------------------------- */

struct watchdog {
	struct vcpu *volatile running;
	volatile unsigned count;
	volatile bool quit;
};

static void *watch(void *arg)
{
	struct watchdog *w = arg;

	while (!w->quit) {
		unsigned seen = w->count;
		struct vcpu *v;

		usleep(5000);
		v = w->running;
		if (v && seen == w->count)
			vcpu_post(v, VCPU_EV_STOP);
	}
	return NULL;
}

static void run_one(struct watchdog *w, struct guest *g, const struct stream *s, struct outcome *o)
{
	guest_load(g, s->mode, s->code, &s->s);
	w->running = guest_vcpu(g);
	guest_go(g, o);
	w->running = NULL;
	w->count++;
}

/* Upper halves of registers are not defined after 32-bit code. The flags that are a processor's business are the engines' too: both leave the computing to the host. What a fault pushes may differ
 * in flags that nothing reads (docs/design/bt.md), and so may all undefined ones after it. */
static bool same(enum insn_mode mode, const struct outcome *a, const struct outcome *b, char *what, size_t size)
{
	uint64_t fl = a->vector >= 0 ? FL_DF : FL_ARITH | FL_DF;
	uint64_t gpr = mode == INSN_MODE_64 ? ~0ull : UINT32_MAX;
	const struct x_part *part;
	unsigned n;

	if (a->vector != b->vector || a->err != b->err || a->s.rip != b->s.rip) {
		snprintf(what, size, "ended: vector %d err %x rip %lx, against %d %x %lx", a->vector, a->err, a->s.rip, b->vector, b->err,
			 b->s.rip);
		return false;
	}
	for (unsigned i = 0; i < GPR_COUNT; i++)
		if ((a->s.gpr[i] ^ b->s.gpr[i]) & gpr) {
			snprintf(what, size, "register %u: %lx, against %lx", i, a->s.gpr[i], b->s.gpr[i]);
			return false;
		}
	if ((a->s.rflags ^ b->s.rflags) & fl) {
		snprintf(what, size, "flags: %lx, against %lx", a->s.rflags & fl, b->s.rflags & fl);
		return false;
	}
	if (memcmp(a->s.mem, b->s.mem, DATA_SIZE)) {
		snprintf(what, size, "memory");
		return false;
	}
	/* Without the pointers and the last opcode of the x87. */
	n = x_parts(&part);
	for (unsigned i = 0; i < n; i++)
		if (memcmp(a->s.x + part[i].off, b->s.x + part[i].off, part[i].len)) {
			snprintf(what, size, "register %s", part[i].name);
			return false;
		}
	return true;
}

static void print_stream(const struct stream *s, const char *again, const char *what)
{
	printf("FAIL stream of %u bits: %s   (again: %s)\n", s->mode == INSN_MODE_64 ? 64 : 32, what, again);
	for (unsigned at = s->off[0]; at < s->off[s->n];) {
		struct insn in;
		char text[128];

		if (insn_decode(&in, s->mode, s->code + at, 15)) {
			printf("    %03x (undefined)\n", at);
			break;
		}
		printf("    %03x %s   ;", at, insn_format(&in, CODE_VA + at, text, sizeof(text)));
		for (unsigned i = 0; i < in.len; i++)
			printf(" %02x", in.bytes[i]);
		printf("\n");
		at += in.len;
	}
}

int stream_main(const char *program, const char *engine, uint64_t seed, unsigned seconds)
{
	static struct stream s;
	static struct outcome a, b;
	static struct test t;
	struct watchdog w = {0};
	struct guest *ref, *g;
	struct form *forms;
	size_t nforms = forms_enumerate(&forms, false);
	uint64_t passed = 0, failed = 0, stopped = 0, n = 0;
	time_t end = time(NULL) + seconds;
	pthread_t thread;
	char what[160], again[512];

	if (guest_create(&ref, "interp") || guest_create(&g, engine) || pthread_create(&thread, NULL, watch, &w))
		return 2;
	do {
		uint64_t id = seconds ? seed * 0x100000000ull + n++ : seed;
		struct rng r = {.s = id * 0x2545f4914f6cdd1dull};

		generate(&r, forms, nforms, &t, &s);
		if (getenv("STREAM_TRACE"))
			fprintf(stderr, "%#lx\n", id);
		run_one(&w, ref, &s, &a);
		run_one(&w, g, &s, &b);
		if (a.vector <= -2 || b.vector <= -2) {
			stopped++;
			continue;
		}
		if (s.bytes || same(s.mode, &a, &b, what, sizeof(what))) {
			passed++;
		} else if (failed++ < MAX_FAILURES) {
			snprintf(again, sizeof(again), "%s --engine %s --stream 0 %#lx", program, engine, id);
			print_stream(&s, again, what);
		}
	} while (time(NULL) < end);
	w.quit = true;
	pthread_join(thread, NULL);
	guest_destroy(g);
	guest_destroy(ref);
	free(forms);
	printf("tests/insn: streams, engine %s, seed %#lx, %lu stopped\n%lu passed, %lu failed\n", engine, seed, stopped, passed, failed);
	return failed != 0;
}
