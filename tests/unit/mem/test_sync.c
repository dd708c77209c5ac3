/* SPDX-License-Identifier: Apache-2.0 */
/* mem/sync.c, code.c, release.c: code marks, requests between vCPUs, running alone, taking frames away; with and without threads. */
#include "fixture.h"

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stdlib.h>

#define VA 0xffff888000000000ull
#define RW (PTE_P | PTE_W | PTE_G)
#define FRAME (FX_DATA >> PAGE_SHIFT)
#define NCPUS 4

/* A vCPU: an MMU, and what its engine would hear. */
struct cpu {
	struct mmu mmu;
	unsigned kicks, writes, drops;
	gfn_t gfn;
	unsigned off, len;
	bool answer;
	/* threads */
	struct bed *bed;
	pthread_t thread;
	uint64_t count;
};

struct bed {
	struct fx fx;                 /* its mmu is cpu 0's page tables' owner only */
	struct cpu *cpu[NCPUS];
	uint32_t go, stop;
	uint64_t halves[2];           /* the counter that needs two stores */
};

static bool heard(void *opaque, gfn_t gfn, unsigned off, unsigned len)
{
	struct cpu *c = opaque;

	c->writes++;
	c->gfn = gfn;
	c->off = off;
	c->len = len;
	return c->answer;
}

static void dropped(void *opaque) { ((struct cpu *)opaque)->drops++; }

static void kicked(void *opaque)
{
	__atomic_fetch_add(&((struct cpu *)opaque)->kicks, 1, __ATOMIC_RELAXED);
}

static const struct mem_code_ops code_ops = { .write = heard, .drop = dropped };

static int setup(void **state)
{
	struct bed *b = calloc(1, sizeof(*b));
	struct fx *f = &b->fx;

	assert_int_equal(mem_create(&f->m, FX_RAM, 2 * FX_RAM >> PAGE_SHIFT), 0);
	assert_int_equal(mem_add_ram(f->m, 0, FX_RAM), 0);
	f->next_table = 1 << 20;
	for (unsigned i = 0; i < NCPUS; i++) {
		struct cpu *c = b->cpu[i] = calloc(1, sizeof(*c));

		assert_int_equal(mmu_create(&c->mmu, f->m, 2), 0);
		assert_int_equal(c->mmu.index, i);
		c->bed = b;
		c->mmu.code_ops = &code_ops;
		c->mmu.code_opaque = c;
		c->mmu.sync.kick = kicked;
		c->mmu.sync.opaque = c;
	}
	struct mmu_regs r = { .cr0 = CR0_PE | CR0_PG | CR0_WP, .cr4 = CR4_PAE | CR4_PGE,
			      .efer = EFER_LMA | EFER_LME | EFER_NXE, .cr3 = fx_table(f) };
	f->mmu.regs = r;
	fx_map(f, VA, FX_DATA, 1, RW);
	fx_map(f, VA + PAGE_SIZE, FX_DATA + PAGE_SIZE, 1, RW);
	for (unsigned i = 0; i < NCPUS; i++)
		mmu_set_regs(&b->cpu[i]->mmu, &r, false);
	*state = b;
	return 0;
}

static int teardown(void **state)
{
	struct bed *b = *state;

	for (unsigned i = 0; i < NCPUS; i++) {
		mmu_destroy(&b->cpu[i]->mmu);
		free(b->cpu[i]);
	}
	mem_destroy(b->fx.m);
	free(b);
	return 0;
}

static uint64_t w_entry(const struct cpu *c, gva_t gva)
{
	return c->mmu.cur->w[mmu_vpn(gva)];
}

static uint64_t r_entry(const struct cpu *c, gva_t gva)
{
	return c->mmu.cur->r[mmu_vpn(gva)];
}

static void write_to(struct cpu *c, gva_t gva)
{
	struct mmu_target t;

	assert_int_equal(mmu_resolve(&c->mmu, gva, true, false, false, &t), 0);
	assert_non_null(t.hva);
}

/* --- marks ------------------------------------------------------------------------------------------------------------ */

static void marks(void **state)
{
	struct bed *b = *state;
	struct cpu *c = b->cpu[0];
	struct mem *m = b->fx.m;

	assert_false(mem_code_mark(&c->mmu, 2 * FX_RAM >> PAGE_SHIFT));
	assert_false(mem_code_mark(&c->mmu, UINT64_MAX));
	assert_true(mem_code_mark(&c->mmu, FRAME));
	assert_true(mem_code_marked(m, FRAME));
	mem_code_write(&c->mmu, FRAME + 1, 0, 8);
	assert_int_equal(c->writes, 0);
	mem_code_write(&c->mmu, FRAME, 16, 8);
	assert_int_equal(c->writes, 1);
	assert_int_equal(c->gfn, FRAME);
	assert_int_equal(c->off, 16);
	assert_int_equal(c->len, 8);
	assert_true(mem_code_marked(m, FRAME));
	/* Another vCPU has the frame, too: the mark goes with the last. */
	mem_code_mark(&b->cpu[1]->mmu, FRAME);
	c->answer = true;
	mem_code_write(&c->mmu, FRAME, 0, 1);
	assert_true(mem_code_marked(m, FRAME));
	mem_code_write(&c->mmu, FRAME, 0, 1);
	assert_int_equal(c->writes, 2);
	b->cpu[1]->answer = true;
	mem_code_write(&b->cpu[1]->mmu, FRAME, 0, 1);
	assert_false(mem_code_marked(m, FRAME));
	assert_int_equal(mem_state(m, FRAME), P2M_OWNED);
}

/* Stores of devices and of other vCPUs: only who has translations of these lines is told, at once or before it goes on. */
static void stores(void **state)
{
	struct bed *b = *state;
	struct cpu *c = b->cpu[0], *o = b->cpu[1];
	uint8_t x[2 * PAGE_SIZE] = { 0 };

	mem_code_mark(&c->mmu, FRAME);
	mem_code_read(b->fx.m, FRAME, 64, 32);
	assert_int_equal(mem_write(b->fx.m, FX_DATA, x, 64), 0);
	mmu_serve(&c->mmu);
	assert_int_equal(c->writes, 0);
	/* Inactive: not kicked, but served on entry. */
	assert_int_equal(mem_write(b->fx.m, FX_DATA + 60, x, 8), 0);
	assert_int_equal(c->kicks, 0);
	assert_int_equal(c->writes, 0);
	mmu_enter(&c->mmu);
	assert_int_equal(c->writes, 1);
	assert_int_equal(c->off, 60);
	assert_int_equal(c->len, 8);
	/* Active: kicked, served when it gets round to it. */
	mem_code_wrote(b->fx.m, &o->mmu, FRAME, 80, 4);
	mem_code_wrote(b->fx.m, &o->mmu, FRAME, 90, 1);
	assert_int_equal(c->kicks, 2);
	assert_int_equal(c->writes, 1);
	mmu_serve(&c->mmu);
	assert_int_equal(c->writes, 2);
	assert_int_equal(c->off, 80);
	assert_int_equal(c->len, 11);
	/* One's own stores are one's own business. */
	mem_code_wrote(b->fx.m, &c->mmu, FRAME, 80, 4);
	mmu_serve(&c->mmu);
	assert_int_equal(c->writes, 2);
	/* A long device write over neighbouring frames is one request; more than fit drop everything. */
	mem_code_mark(&c->mmu, FRAME + 1);
	mem_code_read(b->fx.m, FRAME + 1, 0, PAGE_SIZE);
	mem_code_read(b->fx.m, FRAME, 0, PAGE_SIZE);
	assert_int_equal(mem_write(b->fx.m, FX_DATA, x, sizeof(x)), 0);
	assert_int_equal(c->mmu.sync.n, 1);
	mmu_serve(&c->mmu);
	assert_int_equal(c->writes, 4);
	assert_int_equal(c->gfn, FRAME + 1);
	for (unsigned i = 0; i <= MMU_REQUESTS; i++)
		mem_code_wrote(b->fx.m, NULL, FRAME + (i & 1), 0, 4);
	assert_int_equal(c->drops, 0);
	mmu_serve(&c->mmu);
	assert_int_equal(c->drops, 1);
	assert_int_equal(c->writes, 4);
	assert_int_equal(c->mmu.sync.stats.overflows, 1);
	mmu_serve(&c->mmu);
	assert_int_equal(c->drops, 1);
	mmu_leave(&c->mmu);
}

/* Marking takes the write entries of inactive vCPUs away before they go on, and is not bothered by those that never wrote. */
static void seal_idle(void **state)
{
	struct bed *b = *state;
	struct cpu *c = b->cpu[0], *o = b->cpu[1];

	write_to(o, VA);
	assert_int_not_equal(w_entry(o, VA), 0);
	mem_code_mark(&c->mmu, FRAME);
	assert_int_equal(o->mmu.sync.stats.requests, 1);
	assert_int_equal(b->cpu[2]->mmu.sync.stats.requests, 0);
	mmu_enter(&o->mmu);
	assert_int_equal(w_entry(o, VA), 0);
	assert_int_not_equal(r_entry(o, VA), 0);
	/* Marked frames get no entry back; once sealed, nobody asks again. */
	write_to(o, VA);
	assert_int_equal(w_entry(o, VA), 0);
	mem_code_mark(&b->cpu[2]->mmu, FRAME);
	assert_int_equal(o->mmu.sync.stats.requests, 1);
	mmu_leave(&o->mmu);
}

/* --- threads ---------------------------------------------------------------------------------------------------------- */

/* Stores through its write entry, as translated code does, and looks at requests now and then. */
static void *storer(void *arg)
{
	struct cpu *c = arg;
	struct mmu_target t;

	mmu_enter(&c->mmu);
	while (!__atomic_load_n(&c->bed->stop, __ATOMIC_RELAXED)) {
		uint64_t e = w_entry(c, VA);

		if (e) {
			__atomic_fetch_add((uint64_t *)(uintptr_t)(VA + e), 1, __ATOMIC_RELAXED);
			c->count++;
		} else if (mmu_resolve(&c->mmu, VA, true, false, false, &t) == 0 && t.code) {
			/* The store to code: seen by the marker. */
			mem_code_write(&c->mmu, t.gpa >> PAGE_SHIFT, 0, 8);
			__atomic_fetch_add((uint64_t *)t.hva, 1, __ATOMIC_RELAXED);
			c->count++;
			mem_code_wrote(c->bed->fx.m, &c->mmu, t.gpa >> PAGE_SHIFT, 0, 8);
		}
		if (__atomic_exchange_n(&c->kicks, 0, __ATOMIC_RELAXED))
			mmu_serve(&c->mmu);
	}
	mmu_leave(&c->mmu);
	return NULL;
}

/* The translator's promise: what was read after marking is what memory holds, until a store has been heard of. */
static void cross_modify(void **state)
{
	struct bed *b = *state;
	struct cpu *c = b->cpu[0];
	volatile uint64_t *word = mem_frame(b->fx.m, FRAME, true);
	uint64_t total = 0;

	c->answer = true;
	for (unsigned i = 1; i < 3; i++)
		pthread_create(&b->cpu[i]->thread, NULL, storer, b->cpu[i]);
	for (unsigned i = 1; i < 3; i++)
		while (!__atomic_load_n(&b->cpu[i]->count, __ATOMIC_RELAXED))
			sched_yield();
	mmu_enter(&c->mmu);
	/* On a busy host the others may not get a turn for a while. */
	for (unsigned n = 0; n < 2000 || (n < 1000000 && !c->mmu.sync.stats.waits); n++) {
		unsigned writes;
		uint64_t seen;

		if (!mem_code_mark(&c->mmu, FRAME))
			continue;
		mem_code_read(b->fx.m, FRAME, 0, 8);
		writes = c->writes;
		seen = *word;
		for (unsigned i = 0; i < 200; i++) {
			uint64_t now = *word;

			/* Whoever stored has posted its request by the time its store is followed by anything; wait for that. */
			for (unsigned k = 0; now != seen && c->writes == writes; k++) {
				if (k > 100)
					sched_yield();
				mmu_serve(&c->mmu);
				assert_true(k < 100000);
			}
			if (c->writes != writes)
				break;
		}
		if (__atomic_exchange_n(&c->kicks, 0, __ATOMIC_RELAXED))
			mmu_serve(&c->mmu);
	}
	mmu_leave(&c->mmu);
	b->stop = 1;
	for (unsigned i = 1; i < 3; i++) {
		pthread_join(b->cpu[i]->thread, NULL);
		total += b->cpu[i]->count;
	}
	assert_int_equal(*word, total);
	assert_true(c->mmu.sync.stats.waits > 0);
}

/* Adds to a counter in two halves that nothing but running alone keeps together; others read and check it. */
static void *loner(void *arg)
{
	struct cpu *c = arg;
	struct bed *b = c->bed;

	mmu_enter(&c->mmu);
	for (unsigned i = 0; i < 2000; i++) {
		mmu_exclusive_begin(&c->mmu);
		b->halves[0]++;
		if (i % 64 == 0)
			sched_yield();
		b->halves[1]++;
		mmu_exclusive_end(&c->mmu);
		c->count += b->halves[0] != b->halves[1];
		mmu_serve(&c->mmu);
	}
	mmu_leave(&c->mmu);
	return NULL;
}

static void alone(void **state)
{
	struct bed *b = *state;

	for (unsigned i = 0; i < NCPUS; i++)
		pthread_create(&b->cpu[i]->thread, NULL, loner, b->cpu[i]);
	for (unsigned i = 0; i < NCPUS; i++) {
		pthread_join(b->cpu[i]->thread, NULL);
		assert_int_equal(b->cpu[i]->count, 0);
	}
	assert_int_equal(b->halves[0], NCPUS * 2000);
	assert_int_equal(b->halves[1], NCPUS * 2000);
}

/* Frames come and go under two vCPUs that store to them; the pool's count stays right, and a frame given back is zero. */
static void release(void **state)
{
	struct bed *b = *state;
	struct mem *m = b->fx.m;
	struct mem_span s = { FRAME, 1 }, all = { FRAME, 4 };
	uint64_t populated;

	for (unsigned i = 1; i < 3; i++)
		pthread_create(&b->cpu[i]->thread, NULL, storer, b->cpu[i]);
	for (unsigned i = 0; i < 500; i++) {
		mem_release(m, &s, 1, i & 1);
		if (i % 16 == 0)
			sched_yield();
	}
	b->stop = 1;
	for (unsigned i = 1; i < 3; i++)
		pthread_join(b->cpu[i]->thread, NULL);
	for (unsigned i = 0; i < 4; i++)
		*(uint64_t *)mem_frame(m, FRAME + i, true) = 42;
	populated = mem_populated(m);
	assert_int_equal(mem_ballooned(m), 0);
	mem_release(m, &all, 1, true);
	assert_int_equal(mem_populated(m), populated - 4 * PAGE_SIZE);
	assert_int_equal(mem_ballooned(m), 4 * PAGE_SIZE);
	assert_int_equal(mem_state(m, FRAME + 1), P2M_BALLOONED);
	mem_release(m, &all, 1, true);
	assert_int_equal(mem_ballooned(m), 4 * PAGE_SIZE);
	mem_reclaim(m, &s, 1);
	assert_int_equal(mem_ballooned(m), 3 * PAGE_SIZE);
	assert_int_equal(*(uint64_t *)mem_frame(m, FRAME + 2, false), 0);
	assert_int_equal(mem_ballooned(m), 2 * PAGE_SIZE);
	/* Ranges outside memory, and wrapping ones, are skipped. */
	const struct mem_span odd[] = { { UINT64_MAX, 2 }, { FX_RAM >> PAGE_SHIFT, UINT64_MAX } };
	mem_release(m, odd, 2, false);
	mem_reclaim(m, odd, 2);
	/* Translations of a frame that is taken away go. */
	mem_code_mark(&b->cpu[3]->mmu, FRAME);
	mem_release(m, &s, 1, false);
	mmu_enter(&b->cpu[3]->mmu);
	assert_int_equal(b->cpu[3]->writes, 1);
	assert_int_equal(b->cpu[3]->len, PAGE_SIZE);
	assert_false(mem_code_marked(m, FRAME));
	mmu_leave(&b->cpu[3]->mmu);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(marks, setup, teardown), cmocka_unit_test_setup_teardown(stores, setup, teardown),
		cmocka_unit_test_setup_teardown(seal_idle, setup, teardown),
		cmocka_unit_test_setup_teardown(cross_modify, setup, teardown),
		cmocka_unit_test_setup_teardown(alone, setup, teardown), cmocka_unit_test_setup_teardown(release, setup, teardown),
	};

	return cmocka_run_group_tests_name("mem/sync", tests, NULL, NULL);
}
