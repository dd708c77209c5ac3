/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The guard: how many host instructions the translator spends on fixed guest code, without timing anything.
 *
 * Each case of corpus.S runs on bt until everything is translated, chained and filled in, then once more one host instruction at a time:
 * those in the code cache and in the stubs are counted. The interpreter counts the guest's instructions of the same run, the translator
 * how often it called C. All three are exact and repeat, so they are compared with a table of maxima: a lost optimization
 * fails, an improvement asks for the table to be lowered.
 *
 *   guard TABLE            compares           guard --print           prints a table of what is
 *
 * Stepping is the trap flag and a handler of SIGTRAP, which sets it again when POPF has cleared it. ptrace(2) would take two process
 * switches an instruction. Translated code keeps the flag out of what the guest sees: it takes over the arithmetic flags and DF alone.
 */
#include <signal.h>
#include <stdio.h>
#include <ucontext.h>
#include <unistd.h>

#include "engine/bt/bt.h"
#include "guard.h"
#include "unit/cpu/fixture.h"

#define CODE_PA 0x800000ull
#define DATA_PA 0x900000ull
#define STACK_PA 0xa00000ull
#define GS_PA 0xb00000ull
#define DATA_SIZE 0x20000u
#define CORE_GS 0xc0000102u

static_assert(GUARD_CODE == K(CODE_PA), "corpus.S is linked for that address");

struct guard_case {
	const char *name;
	const uint8_t *code;
	uint64_t times;
	uint64_t user;
};
extern const struct guard_case guard_cases[];
extern const uint8_t corpus_begin[], corpus_end[], kernel_entry[];

struct result {
	uint64_t guest, host, services;
};

/* What the handler needs: there is one run at a time, and a handler has no argument. */
static struct {
	uintptr_t code, code_end;
	uint64_t count;
	bool on;
} stepping;

/* --- the guest ------------------------------------------------------------------------------------------------------------ */

static uint64_t services(const struct bt *bt)
{
	return bt->stats.misses + bt->stats.slow_fill + bt->stats.slow_interp + bt->stats.interp + bt->stats.events + bt->stats.links;
}

static gva_t guest_address(const uint8_t *code)
{
	return K(CODE_PA) + (uint64_t)(code - corpus_begin);
}

static struct bed *machine(const struct engine_ops *engine)
{
	struct bed *b;

	bed_setup((void **)&b);
	bed_long(b);
	assert_int_equal(mem_write(b->fx.m, CODE_PA, corpus_begin, (size_t)(corpus_end - corpus_begin)), 0);
	b->v->fpu.xcr0 = 7;
	assert_int_equal(cpu_write_cr(b->v, 4, b->v->cr4 | CR4_FSGSBASE), 0);
	assert_int_equal(cpu_wrmsr(b->v, 0xc0000081, (uint64_t)(S_UCODE32 & ~3u) << 48 | (uint64_t)S_KCODE << 32), 0);
	assert_int_equal(cpu_wrmsr(b->v, 0xc0000082, guest_address(kernel_entry)), 0);
	for (unsigned i = 0; i < 2; i++)
		fx_map(&b->fx, USER + (i + 1) * PAGE_SIZE, DATA_PA + i * PAGE_SIZE, 1, PTE_P | PTE_W | PTE_U);
	assert_int_equal(engine->create(b->v), 0);
	return b;
}

/* Registers and memory as the case expects them, the same in every run. */
static void prepare(struct bed *b, const struct guard_case *c)
{
	struct vcpu *v = b->v;
	uint32_t x = 1;

	for (gpa_t a = DATA_PA; a < DATA_PA + DATA_SIZE; a += 4) {
		x = x * 1664525 + 1013904223;
		fx_put(&b->fx, a, 4, x >> 2 & 0x3fffffff);
	}
	put64(b, GS_PA, K(STACK_PA));
	if (v->cpl == 3)
		bed_kernel(b);
	v->halted = false;
	v->seg[GS].base = K(GS_PA);
	if (c->user) {
		mem_write(b->fx.m, FX_DATA, c->code, PAGE_SIZE);
		bed_user(b, S_UCODE);
		v->seg[GS].base = 0;
		assert_int_equal(cpu_wrmsr(v, CORE_GS, K(GS_PA)), 0);
	}
	memset(v->gpr, 0, sizeof(v->gpr));
	v->rip = c->user ? USER : guest_address(c->code);
	v->rflags = FL_FIXED;
	v->gpr[RSP] = c->user ? USER + PAGE_SIZE - 64 : K(STACK_PA);
	v->gpr[RDI] = c->times;
	v->gpr[RSI] = c->user ? USER + PAGE_SIZE : K(DATA_PA);
	v->gpr[RDX] = c->user ? USER + PAGE_SIZE : K(DATA_PA + DATA_SIZE / 2);
	/* What writing code and tables has asked of the engine. */
	mmu_serve(&v->mmu);
	v->event = 0;
}

static void run(struct bed *b, const struct engine_ops *engine, const struct guard_case *c)
{
	enum exit_reason why = engine->run(b->v);

	if (why != EXIT_HLT) {
		fprintf(stderr, "guard: %s ended with exit %d at %llx\n", c->name, (int)why, (unsigned long long)b->v->rip);
		_exit(2);
	}
}

/* --- counting ----------------------------------------------------------------------------------------------------------- */

static void on_step(int sig, siginfo_t *si, void *ctx)
{
	ucontext_t *uc = ctx;
	uintptr_t pc = (uintptr_t)uc->uc_mcontext.gregs[REG_RIP];

	(void)sig;
	(void)si;
	if ((pc >= stepping.code && pc < stepping.code_end) || (pc >= (uintptr_t)bt_enter && pc < (uintptr_t)bt_stubs_end))
		stepping.count++;
	if (stepping.on)
		uc->uc_mcontext.gregs[REG_EFL] |= FL_TF;
	else
		uc->uc_mcontext.gregs[REG_EFL] &= ~(greg_t)FL_TF;
}

static uint64_t steps(struct bed *b, const struct guard_case *c)
{
	stepping.code = bt_of(b->v)->code_x;
	stepping.code_end = stepping.code + bt_of(b->v)->code_size;
	stepping.count = 0;
	stepping.on = true;
	raise(SIGTRAP); /* the handler sets the flag */
	run(b, &engine_bt, c);
	stepping.on = false;
	raise(SIGTRAP);
	return stepping.count;
}

static struct result measure(struct bed *interp, struct bed *bt, const struct guard_case *c)
{
	struct result r;

	prepare(interp, c);
	r.guest = interp->v->stats.insns_interp;
	run(interp, &engine_interp, c);
	r.guest = interp->v->stats.insns_interp - r.guest;
	/* Fills, links, and the links between translations that filling has brought. */
	for (unsigned k = 0; k < 3; k++) {
		prepare(bt, c);
		run(bt, &engine_bt, c);
	}
	prepare(bt, c);
	r.services = services(bt_of(bt->v));
	r.host = steps(bt, c);
	r.services = services(bt_of(bt->v)) - r.services;
	if (memcmp(interp->v->gpr, bt->v->gpr, sizeof(bt->v->gpr))) {
		fprintf(stderr, "guard: %s: the engines differ\n", c->name);
		_exit(2);
	}
	return r;
}

/* --- the table ----------------------------------------------------------------------------------------------------------- */

static void print(const char *name, const struct result *r)
{
	printf("%-12s %8llu %8llu %8llu\n", name, (unsigned long long)r->guest, (unsigned long long)r->host,
	       (unsigned long long)r->services);
}

static bool find(const char *path, const char *name, struct result *r)
{
	FILE *f = fopen(path, "r");
	char line[256], found[64];
	bool ok = false;

	while (f && !ok && fgets(line, sizeof(line), f))
		ok = sscanf(line, "%63s %lu %lu %lu", found, &r->guest, &r->host, &r->services) == 4 && !strcmp(found, name);
	if (f)
		fclose(f);
	return ok;
}

static bool compare(const char *path, const char *name, const struct result *r)
{
	struct result max;

	if (!find(path, name, &max)) {
		printf("FAIL %s: %s has no line for it\n", name, path);
		return false;
	}
	if (r->guest != max.guest) {
		printf("FAIL %s: %lu guest instructions, not %lu: the case has changed, its line must, too\n", name, r->guest, max.guest);
		return false;
	}
	if (r->host > max.host || r->services > max.services) {
		printf("FAIL %s: %lu host instructions and %lu calls of C for %lu guest instructions; were %lu and %lu\n", name, r->host,
		       r->services, r->guest, max.host, max.services);
		return false;
	}
	printf("PASS %s: %.2f host instructions a guest instruction, %lu calls of C\n", name, (double)r->host / (double)r->guest, r->services);
	if (r->host < max.host || r->services < max.services)
		printf("     better than %s (%lu, %lu): lower its line to keep it so: %lu %lu\n", path, max.host, max.services, r->host,
		       r->services);
	return true;
}

int main(int argc, char **argv)
{
	const struct sigaction sa = {.sa_sigaction = on_step, .sa_flags = SA_SIGINFO};
	struct bed *interp = machine(&engine_interp), *bt = machine(&engine_bt);
	unsigned passed = 0, failed = 0;

	if (argc != 2) {
		fprintf(stderr, "usage: guard TABLE | guard --print\n");
		return 2;
	}
	sigaction(SIGTRAP, &sa, NULL);
	for (const struct guard_case *c = guard_cases; c->name; c++) {
		struct result r = measure(interp, bt, c);

		if (!strcmp(argv[1], "--print"))
			print(c->name, &r);
		else if (compare(argv[1], c->name, &r))
			passed++;
		else
			failed++;
		fflush(stdout);
	}
	if (strcmp(argv[1], "--print"))
		printf("%u passed, %u failed\n", passed, failed);
	return failed != 0;
}
