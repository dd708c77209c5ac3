/* SPDX-License-Identifier: Apache-2.0 */
/*
 * insn [--engine NAME] [--only MNEMONIC] [--verbose] [seed] [count]: count tests, spread evenly over all forms.
 * insn [--engine NAME] --stream SECONDS [seed]: random streams instead (stream.c).
 * Prints details of the first failures of each form, with the command that repeats each, then `N passed, N failed`.
 */
#include <Zydis/Mnemonic.h>
#include <Zydis/Zydis.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "insn_test.h"

#define M(x) ZYDIS_MNEMONIC_##x
#define MAX_REPORTS 40

static const char *const gpr_name[GPR_COUNT] = {"rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi",
						"r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15"};

struct report {
	char text[4096];
	size_t n;
};

__attribute__((format(printf, 2, 3))) static void add(struct report *r, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	if (r->n < sizeof(r->text))
		r->n += (size_t)vsnprintf(r->text + r->n, sizeof(r->text) - r->n, fmt, ap);
	va_end(ap);
}

/* Undefined flags are compared too (the interpreter uses the host's ALU), except where it computes in another way. */
static uint64_t flags_compared(const struct insn *in, bool precise, bool faulted)
{
	/* A translator computes addresses with instructions that change flags where these are dead, that is, where the faulting
	 * instruction would have overwritten them. */
	if (!precise && faulted)
		return (FL_ARITH | FL_DF) & ~(uint64_t)in->flags_write;
	if (!precise)
		return (FL_ARITH | FL_DF) & ~(uint64_t)in->flags_undef;
	if (in->mnemonic == M(DIV) || in->mnemonic == M(IDIV))
		return FL_DF;
	return FL_ARITH | FL_DF;
}

#define MXCSR_OE 0x08u
#define MXCSR_PE 0x20u

static uint32_t mxcsr_of(const struct outcome *o)
{
	uint32_t m;

	memcpy(&m, (const uint8_t *)o->s.x + 24, 4);
	return m;
}

/* A dot product is several operations; which of their flags are set when one raises an unmasked exception is not modelled. Nor is
 * whether what overflows unmasked is inexact as well (hostexec.c). */
static bool mxcsr_unknown(const struct test *t, const struct outcome *h, const struct outcome *g)
{
	if (h->vector != VEC_XM)
		return false;
	return t->in.mnemonic == M(DPPS) || t->in.mnemonic == M(DPPD) || t->in.mnemonic == M(VDPPS) || t->in.mnemonic == M(VDPPD) ||
	       ((mxcsr_of(h) & MXCSR_OE) && mxcsr_of(g) == (mxcsr_of(h) | MXCSR_PE));
}

static void compare_x(struct report *r, const uint8_t *h, const uint8_t *g)
{
	const struct x_part *part;
	unsigned n = x_parts(&part);

	for (unsigned i = 0; i < n; i++) {
		if (!memcmp(h + part[i].off, g + part[i].off, part[i].len))
			continue;
		add(r, "  %-6s host ", part[i].name);
		for (unsigned k = part[i].len; k-- > 0;)
			add(r, "%02x", h[part[i].off + k]);
		add(r, " engine ");
		for (unsigned k = part[i].len; k-- > 0;)
			add(r, "%02x", g[part[i].off + k]);
		add(r, "\n");
	}
}

/* FIP, FDP, FOP and the reserved words around them: the host's are its own addresses. */
static void hide_env(const struct test *t, struct outcome *o)
{
	unsigned small = t->in.opsize == 2, skip = small ? 6 : 12, len = small ? 8 : 16;

	if (t->in.mnemonic != M(FNSTENV) && t->in.mnemonic != M(FNSAVE))
		return;
	for (unsigned off = 0; off + 28 <= DATA_SIZE; off++) {
		uint64_t ea = t->in.mem.disp + (t->in.mem.base == INSN_NO_REG ? 0 : t->s.gpr[t->in.mem.base]);

		if (t->in.mem.index != INSN_NO_REG)
			ea += t->s.gpr[t->in.mem.index] * t->in.mem.scale;
		if (t->in.rip_relative)
			ea += INSN_VA + t->in.len;
		if (t->in.addrsize == 4)
			ea = (uint32_t)ea;
		if (DATA_VA + off == ea)
			memset(o->s.mem + off + skip, 0, len);
	}
}

/* Which byte of a long operand faults first is the host's choice of access order; the page is not. */
static uint64_t cr2_mask(const struct insn *in)
{
	switch (in->mnemonic) {
	case M(FNSTENV): case M(FNSAVE): case M(FLDENV): case M(FRSTOR):
	case M(MASKMOVQ): case M(MASKMOVDQU): case M(VMASKMOVDQU): case M(VPSHUFBITQMB):
		return ~PAGE_MASK;
	default:
		return ~0ull;
	}
}

/* When a gather of AVX-512 that faults clears what lies above its destination is open; the host does it early. */
static void hide_above(const struct test *t, const struct outcome *h, struct outcome *g)
{
	if (h->vector < 0 || !t->in.has_vsib || !t->in.avx512 || t->in.op[0].kind != OPND_VEC)
		return;
	for (unsigned i = t->in.op[0].size; i < 64; i++)
		*x_vec(g->s.x, t->in.op[0].reg, i) = *x_vec((uint8_t *)h->s.x, t->in.op[0].reg, i);
}

static void compare(struct report *r, const struct test *t, const struct outcome *h, struct outcome *g, bool precise)
{
	uint64_t fl = flags_compared(&t->in, precise, h->vector >= 0);

	/* The host's kernel reports every address of its own half as present. */
	if (h->vector == VEC_PF && h->cr2 >> 47)
		g->err |= PF_P;
	if (h->vector != g->vector || h->err != g->err || (h->vector == VEC_PF && ((h->cr2 ^ g->cr2) & cr2_mask(&t->in))))
		add(r, "  ended  host vector %d err %x cr2 %lx engine vector %d err %x cr2 %lx\n", h->vector, h->err, h->cr2, g->vector,
		    g->err, g->cr2);
	if (h->s.rip != g->s.rip)
		add(r, "  rip    host %lx engine %lx\n", h->s.rip, g->s.rip);
	for (unsigned i = 0; i < GPR_COUNT; i++)
		if (h->s.gpr[i] != g->s.gpr[i])
			add(r, "  %-6s host %016lx engine %016lx (was %016lx)\n", gpr_name[i], h->s.gpr[i], g->s.gpr[i], t->s.gpr[i]);
	/* The translator relies on what the decoder says about implicit operands. */
	for (unsigned i = 0; i < GPR_COUNT; i++)
		if (h->s.gpr[i] != t->s.gpr[i] && !(t->in.gpr_write & BIT(i)))
			add(r, "  %-6s host %016lx (was %016lx): the decoder does not say that it is written\n", gpr_name[i], h->s.gpr[i],
			    t->s.gpr[i]);
	if ((h->s.rflags ^ g->s.rflags) & fl)
		add(r, "  rflags host %04lx engine %04lx (was %04lx)\n", h->s.rflags & fl, g->s.rflags & fl, t->s.rflags & fl);
	if (mxcsr_unknown(t, h, g))
		memcpy((uint8_t *)g->s.x + 24, h->s.x + 24, 4);
	hide_above(t, h, g);
	compare_x(r, h->s.x, g->s.x);
	for (unsigned i = 0, shown = 0; i < DATA_SIZE && shown < 4; i += 8)
		if (memcmp(h->s.mem + i, g->s.mem + i, 8)) {
			uint64_t a, b, was;

			memcpy(&a, h->s.mem + i, 8);
			memcpy(&b, g->s.mem + i, 8);
			memcpy(&was, t->s.mem + i, 8);
			add(r, "  [%llx] host %016lx engine %016lx (was %016lx)\n", DATA_VA + i, a, b, was);
			shown++;
		}
}

struct options {
	const char *program, *engine, *only;
	uint64_t seed, count;
	bool verbose, stream;
	unsigned seconds;
};

static bool parse(int argc, char **argv, struct options *o)
{
	unsigned pos = 0;

	*o = (struct options){.program = argv[0], .engine = "interp", .seed = 1};
	for (int i = 1; i < argc; i++) {
		if (!strcmp(argv[i], "--engine") && i + 1 < argc)
			o->engine = argv[++i];
		else if (!strcmp(argv[i], "--only") && i + 1 < argc)
			o->only = argv[++i];
		else if (!strcmp(argv[i], "--stream") && i + 1 < argc) {
			o->stream = true;
			o->seconds = (unsigned)strtoul(argv[++i], NULL, 0);
		} else if (!strcmp(argv[i], "--verbose"))
			o->verbose = true;
		else if (argv[i][0] == '-' || pos > 1)
			return false;
		else if (pos++ == 0)
			o->seed = strtoull(argv[i], NULL, 0);
		else
			o->count = strtoull(argv[i], NULL, 0);
	}
	return true;
}

/* The tests of a form do not depend on those of others, but on the seed and on how many there are. */
static void print_failure(const struct test *t, const struct report *r, const struct options *o)
{
	char text[128];

	printf("FAIL %s   ;", insn_format(&t->in, INSN_VA, text, sizeof(text)));
	for (unsigned i = 0; i < t->in.len; i++)
		printf(" %02x", t->code[i]);
	printf("   (again: %s --engine %s --only %s %#lx %lu)\n%s", o->program, o->engine,
	       ZydisMnemonicGetString((ZydisMnemonic)t->in.mnemonic), o->seed, o->count, r->text);
}

/* Both sides, and what differs. A virtualized host may fail to execute an instruction whose memory it has just taken away: an #UD of
 * its own that does not come again. */
static void run_both(const struct test *t, struct guest *guest, struct outcome *h, struct outcome *g)
{
	host_run(t, h);
	guest_run(guest, t, g);
	if (h->vector == VEC_UD && g->vector != VEC_UD)
		host_run(t, h);
	hide_env(t, h);
	hide_env(t, g);
}

int main(int argc, char **argv)
{
	static struct test t;
	static struct outcome h, g;
	struct options opt;
	struct form *forms;
	struct guest *guest;
	bool precise;
	uint64_t passed = 0, failed = 0, undrawn = 0, nforms, printed = 0, tried = 0;

	if (!parse(argc, argv, &opt)) {
		fprintf(stderr, "usage: insn [--engine NAME] [--only MNEMONIC] [--verbose] [--stream SECONDS] [seed] [count]\n");
		return 2;
	}
	if (opt.stream)
		return stream_main(opt.program, opt.engine, opt.seed, opt.seconds);
	if (host_init() || guest_create(&guest, opt.engine)) {
		fprintf(stderr, "tests/insn: cannot set up\n");
		return 2;
	}
	precise = !strcmp(opt.engine, "interp");
	nforms = forms_enumerate(&forms, true);
	if (!opt.count)
		opt.count = nforms * 64;
	for (uint64_t f = 0; f < nforms; f++) {
		uint64_t per = opt.count / nforms + 1, good = 0, bad = 0;
		struct rng r = {.s = opt.seed * 0x2545f4914f6cdd1dull + f};

		if (opt.only && strcasecmp(ZydisMnemonicGetString((ZydisMnemonic)forms[f].in.mnemonic), opt.only))
			continue;
		tried++;
		for (uint64_t i = 0; i < per * 8 && good + bad < per; i++) {
			struct report rep = {.n = 0};

			if (!gen_test(&r, &forms[f], &t))
				continue;
			run_both(&t, guest, &h, &g);
			/* A bit offset can lead a 32-bit address to what this process keeps below 2 GiB (the translator does). */
			if (t.in.addrsize == 4 && h.vector < 0 && g.vector == VEC_PF)
				continue;
			compare(&rep, &t, &h, &g, precise);
			if (!rep.n) {
				good++;
				continue;
			}
			if (bad++ < 1 && (printed++ < MAX_REPORTS || opt.verbose))
				print_failure(&t, &rep, &opt);
		}
		if (!good && !bad) {
			char text[128];

			undrawn++;
			if (opt.verbose)
				printf("never drawn: %s\n", insn_format(&forms[f].in, 0, text, sizeof(text)));
		}
		passed += good;
		failed += bad;
	}
	guest_destroy(guest);
	printf("tests/insn: engine %s, seed %#lx, %lu forms (%lu without a usable draw)\n%lu passed, %lu failed\n", opt.engine, opt.seed,
	       tried, undrawn, passed, failed);
	free(forms);
	return failed != 0;
}
