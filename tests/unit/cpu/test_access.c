/* SPDX-License-Identifier: Apache-2.0 */
/* cpu/access.c: fast and slow paths, page crossing, devices, ROM, code pages, the journal, fetch. Neighbours in cpu/ are fakes. */
#include "../mem/fixture.h"

#include "cpu/cpu.h"

#define LOW 0x400000ull
#define HIGH 0xffff888000000000ull
#define MMIO 0xfee00000ull
#define RW (PTE_P | PTE_W)
#define RWU (PTE_P | PTE_W | PTE_U)

struct bed {
	struct fx fx;           /* memory only; the vcpu has its own mmu, shared by value through `fx.mmu` */
	struct vcpu *v;
	unsigned n;
	struct { bool write; gpa_t gpa; unsigned size; uint64_t val; } log[32];
	unsigned code_writes;
};

/* --- fakes ------------------------------------------------------------------------------------------------------ */

int cpu_raise_pf(struct vcpu *v, gva_t gva, uint32_t err)
{
	v->exc = (struct vcpu_exc){ .kind = EXC_HARDWARE, .vector = VEC_PF, .has_err = true, .err = err, .cr2 = gva };
	return -1;
}

int cpu_raise_err(struct vcpu *v, enum x86_vector vec, uint32_t err)
{
	v->exc = (struct vcpu_exc){ .kind = EXC_HARDWARE, .vector = (uint8_t)vec, .has_err = true, .err = err };
	return -1;
}

void vcpu_fpu_park_slow(struct vcpu *v)
{
	v->fpu_live = false;
}

static uint64_t dev_read(void *vm, gpa_t gpa, unsigned size)
{
	struct bed *b = vm;

	assert_false(b->v->fpu_live);
	b->log[b->n].write = false;
	b->log[b->n].gpa = gpa;
	b->log[b->n++].size = size;
	return 0x8877665544332211ull >> ((gpa & 7) * 8);
}

static void dev_write(void *vm, gpa_t gpa, unsigned size, uint64_t val)
{
	struct bed *b = vm;

	assert_false(b->v->fpu_live);
	b->log[b->n].write = true;
	b->log[b->n].gpa = gpa;
	b->log[b->n].size = size;
	b->log[b->n++].val = val;
}

static bool code_write(void *opaque, gfn_t gfn, unsigned off, unsigned len)
{
	(void)gfn;
	(void)off;
	(void)len;
	((struct bed *)opaque)->code_writes++;
	return false;
}

static const struct vcpu_ops ops = { .mmio_read = dev_read, .mmio_write = dev_write };
static const struct mem_code_ops code_ops = { .write = code_write };

static int setup(void **state)
{
	struct bed *b = calloc(1, sizeof(*b));
	struct vcpu *v = aligned_alloc(64, (sizeof(*v) + 63) / 64 * 64);

	memset(v, 0, sizeof(*v));
	b->v = v;
	assert_int_equal(mem_create(&b->fx.m, FX_RAM, 2 * FX_RAM >> PAGE_SHIFT), 0);
	assert_int_equal(mem_add_ram(b->fx.m, 0, FX_RAM), 0);
	assert_int_equal(mmu_create(&v->mmu, b->fx.m, MMU_CONTEXTS), 0);
	b->fx.next_table = 1 << 20;
	v->mem = b->fx.m;
	v->ops = &ops;
	v->vm = b;
	v->efer = EFER_LMA | EFER_LME | EFER_NXE;
	struct mmu_regs r = { .cr0 = CR0_PE | CR0_PG | CR0_WP, .cr4 = CR4_PAE, .efer = v->efer, .cr3 = fx_table(&b->fx) };
	mmu_set_regs(&v->mmu, &r, false);
	b->fx.mmu.regs = r;
	fx_map(&b->fx, LOW, FX_DATA, 1, RWU);
	fx_map(&b->fx, LOW + 0x1000, FX_DATA + 0x8000, 1, RWU);
	fx_map(&b->fx, LOW + 0x2000, FX_DATA + 0x2000, 1, PTE_P | PTE_U | PTE_NX);
	fx_map(&b->fx, LOW + 0x4000, FX_DATA + 0x4000, 1, RWU);
	fx_map(&b->fx, LOW + 0x5000, MMIO, 1, RWU);
	fx_map(&b->fx, HIGH, FX_DATA + 0x6000, 1, RW);
	v->mmu.code_ops = &code_ops;
	v->mmu.code_opaque = b;
	*state = b;
	return 0;
}

static int teardown(void **state)
{
	struct bed *b = *state;

	mmu_destroy(&b->v->mmu);
	mem_destroy(b->fx.m);
	free(b->v);
	free(b);
	return 0;
}

/* --- tests ------------------------------------------------------------------------------------------------------ */

static void sizes_and_crossing(void **state)
{
	struct bed *b = *state;
	const uint64_t pattern = 0x1122334455667788ull;
	uint64_t walks, val;

	for (unsigned cpl = 0; cpl <= 3; cpl += 3) {
		b->v->cpl = (uint8_t)cpl;
		mmu_enter_user(&b->v->mmu);
		for (unsigned size = 1; size <= 8; size *= 2) {
			for (gva_t a = LOW + 0xff0; a < LOW + 0x1008; a++) {
				uint64_t mask = size == 8 ? UINT64_MAX : BIT(size * 8) - 1;

				assert_int_equal(cpu_store(b->v, a, size, pattern + a), 0);
				assert_int_equal(cpu_load(b->v, a, size, &val), 0);
				assert_int_equal(val, (pattern + a) & mask);
				/* Seen byte by byte through physical memory: neither page got the other's bytes. */
				for (unsigned i = 0; i < size; i++) {
					gpa_t p = a + i < LOW + 0x1000 ? FX_DATA + (a + i - LOW)
								       : FX_DATA + 0x8000 + (a + i - LOW - 0x1000);
					assert_int_equal(fx_get(&b->fx, p, 1), (pattern + a) >> (8 * i) & 0xff);
				}
			}
		}
	}
	/* Both pages at hand: crossing costs no walk. */
	walks = b->v->mmu.stats.walks;
	assert_int_equal(cpu_store(b->v, LOW + 0xffd, 8, 1), 0);
	assert_int_equal(cpu_load(b->v, LOW + 0xffd, 8, &val), 0);
	assert_int_equal(b->v->mmu.stats.walks, walks);
}

static void faults(void **state)
{
	struct bed *b = *state;
	struct vcpu *v = b->v;
	uint64_t val;
	uint8_t buf[64] = { 0 };

	v->cpl = 3;
	/* Crossing into a page that may not be written: #PF there, the first page unchanged. */
	assert_int_equal(cpu_store(v, LOW + 0xff8, 8, 0), 0);
	assert_int_equal(cpu_store(v, LOW + 0x1ffc, 8, UINT64_MAX), -1);
	assert_int_equal(v->exc.vector, VEC_PF);
	assert_int_equal(v->exc.cr2, LOW + 0x2000);
	assert_int_equal(v->exc.err, PF_P | PF_W | PF_U);
	assert_int_equal(fx_get(&b->fx, FX_DATA + 0x8ffc, 4), 0);
	memset(buf, 0xff, sizeof(buf));
	assert_int_equal(cpu_store_buf(v, LOW + 0x1ff0, buf, 32), -1);
	assert_int_equal(fx_get(&b->fx, FX_DATA + 0x8ff0, 8), 0);
	assert_int_equal(cpu_load(v, LOW + 0x2ffc, 8, &val), -1);
	assert_int_equal(v->exc.cr2, LOW + 0x3000);
	assert_int_equal(v->exc.err, PF_U);
	assert_int_equal(cpu_probe_write(v, LOW + 0x2000, 1), -1);
	assert_int_equal(cpu_probe_write(v, LOW, PAGE_SIZE), 0);
	/* The upper half: not for user accesses, however often the supervisor was there. */
	assert_int_equal(cpu_store_sys(v, HIGH, 8, 42), 0);
	assert_int_equal(cpu_load_sys(v, HIGH, 8, &val), 0);
	assert_int_equal(val, 42);
	assert_int_equal(cpu_load(v, HIGH, 8, &val), -1);
	assert_int_equal(v->exc.err, PF_P | PF_U);
	assert_int_equal(cpu_store(v, HIGH, 8, 1), -1);
	assert_int_equal(cpu_load_buf(v, HIGH, buf, 8), -1);
	struct cpu_rmw rmw;
	assert_int_equal(cpu_rmw_open(v, HIGH, 8, &rmw), -1);
	/* Non-canonical. */
	v->cpl = 0;
	const gva_t bad[] = { LOW | BIT(60), HIGH ^ BIT(50), BIT(47), 0x7ffffffffffcull + 4, UINT64_MAX >> 1 };
	for (unsigned i = 0; i < nitems(bad); i++) {
		assert_int_equal(cpu_load(v, bad[i], 8, &val), -1);
		assert_int_equal(v->exc.vector, VEC_GP);
		assert_int_equal(cpu_store(v, bad[i], 8, 0), -1);
		assert_int_equal(v->exc.vector, VEC_GP);
	}
}

static void devices(void **state)
{
	struct bed *b = *state;
	struct vcpu *v = b->v;
	struct vcpu_journal j = { 0 };
	uint64_t val;
	uint8_t buf[16];

	v->fpu_live = true;
	assert_int_equal(cpu_load(v, LOW + 0x5010, 4, &val), 0);
	assert_int_equal(val, 0x44332211);
	assert_int_equal(b->n, 1);
	assert_int_equal(b->log[0].gpa, MMIO + 0x10);
	assert_int_equal(b->log[0].size, 4);
	/* Misaligned: natural pieces, 1 + 2 + 4 + 1. */
	b->n = 0;
	assert_int_equal(cpu_load(v, LOW + 0x5001, 8, &val), 0);
	assert_int_equal(b->n, 4);
	assert_int_equal(b->log[1].size, 2);
	assert_int_equal(b->log[2].size, 4);
	assert_int_equal(val, 0x1188776655443322ull);
	b->n = 0;
	assert_int_equal(cpu_store(v, LOW + 0x5020, 8, 0x0102030405060708ull), 0);
	assert_int_equal(b->n, 1);
	assert_int_equal(b->log[0].val, 0x0102030405060708ull);
	/* From RAM into the device. */
	b->n = 0;
	v->journal = &j;
	assert_int_equal(cpu_store(v, LOW + 0x4ffc, 8, 0xaabbccdd11223344ull), 0);
	assert_int_equal(b->n, 1);
	assert_int_equal(b->log[0].val, 0xaabbccdd);
	assert_int_equal(fx_get(&b->fx, FX_DATA + 0x4ffc, 4), 0x11223344);
	assert_true(j.io);
	assert_int_equal(j.n, 1);
	v->journal = NULL;
	b->n = 0;
	assert_int_equal(cpu_load_buf(v, LOW + 0x5000, buf, 16), 0);
	assert_int_equal(b->n, 2);
	struct cpu_rmw rmw = { .hva = buf };
	assert_int_equal(cpu_rmw_open(v, LOW + 0x5000, 4, &rmw), 0);
	assert_null(rmw.hva);
	/* ROM: reads, writes vanish without an access to a device. */
	b->n = 0;
	assert_int_equal(mem_set_rom(v->mem, FX_DATA + 0x4000, PAGE_SIZE), 0);
	assert_int_equal(cpu_store(v, LOW + 0x4ff8, 4, 0), 0);
	assert_int_equal(cpu_rmw_open(v, LOW + 0x4ffc, 4, &rmw), 0);
	assert_null(rmw.hva);
	assert_int_equal(cpu_store(v, LOW + 0x4ffc, 4, 0), 0);
	assert_int_equal(cpu_load(v, LOW + 0x4ffc, 4, &val), 0);
	assert_int_equal(val, 0x11223344);
	assert_int_equal(b->n, 0);
}

static void code_pages(void **state)
{
	struct bed *b = *state;
	struct vcpu *v = b->v;
	uint8_t buf[16] = { 1, 2, 3 };
	struct cpu_rmw rmw;

	assert_int_equal(cpu_store(v, LOW, 8, 0), 0);
	mem_code_mark(&v->mmu, FX_DATA >> PAGE_SHIFT);
	assert_int_equal(cpu_store(v, LOW, 8, 1), 0);
	assert_int_equal(b->code_writes, 1);
	assert_int_equal(cpu_store(v, LOW + 0xffc, 8, 1), 0);
	assert_int_equal(b->code_writes, 2);
	assert_int_equal(cpu_rmw_open(v, LOW + 8, 4, &rmw), 0);
	assert_ptr_equal(rmw.hva, (uint8_t *)mem_frame(v->mem, FX_DATA >> PAGE_SHIFT, false) + 8);
	assert_int_equal(b->code_writes, 3);
	assert_int_equal(cpu_store_buf(v, LOW + 16, buf, 16), 0);
	assert_int_equal(b->code_writes, 4);
	assert_int_equal(cpu_store(v, LOW + 0x1000, 8, 1), 0);
	assert_int_equal(b->code_writes, 4);
	assert_int_equal(fx_get(&b->fx, FX_DATA + 16, 4), 0x030201);
}

static void journal(void **state)
{
	struct bed *b = *state;
	struct vcpu *v = b->v;
	struct vcpu_journal j = { 0 };
	uint8_t before[8192], buf[100];
	struct cpu_rmw rmw;

	for (unsigned i = 0; i < 1024; i++)
		assert_int_equal(cpu_store(v, LOW + i * 8, 8, i * 0x0101010101010101ull), 0);
	assert_int_equal(cpu_load_buf(v, LOW, before, 4096), 0);
	assert_int_equal(cpu_load_buf(v, LOW + 4096, before + 4096, 4096), 0);
	v->journal = &j;
	memset(buf, 0xee, sizeof(buf));
	assert_int_equal(cpu_store(v, LOW + 3, 4, 0), 0);
	assert_int_equal(cpu_store(v, LOW + 0xffd, 8, 1), 0);
	assert_int_equal(cpu_store_buf(v, LOW + 0xfa0, buf, 100), 0);
	assert_int_equal(cpu_rmw_open(v, LOW + 0x20, 16, &rmw), 0);
	memset(rmw.hva, 0, 16);
	mmu_flush_all(&v->mmu);
	assert_int_equal(cpu_rmw_open(v, LOW + 0x40, 8, &rmw), 0);
	memset(rmw.hva, 0, 8);
	assert_false(j.io || j.overflow);
	for (unsigned i = j.n; i-- > 0;)
		memcpy(j.e[i].hva, j.e[i].old, j.e[i].len);
	v->journal = NULL;
	uint8_t after[4096];
	assert_int_equal(cpu_load_buf(v, LOW, after, 4096), 0);
	assert_memory_equal(before, after, 4096);
	assert_int_equal(cpu_load_buf(v, LOW + 4096, after, 4096), 0);
	assert_memory_equal(before + 4096, after, 4096);
	v->journal = &j;
	for (unsigned i = 0; i < nitems(j.e) + 6; i++)
		assert_int_equal(cpu_store(v, LOW, 1, 0), 0);
	assert_true(j.overflow);
	assert_int_equal(j.n, nitems(j.e));
}

static void fetch(void **state)
{
	struct bed *b = *state;
	struct vcpu *v = b->v;
	uint8_t buf[16];
	unsigned got;
	gpa_t gpa;

	for (unsigned i = 0; i < 16; i++)
		assert_int_equal(cpu_store(v, LOW + 0xff8 + i, 1, 0xc0 + i), 0);
	v->cpl = 3;
	assert_int_equal(cpu_fetch(v, LOW + 0xff8, buf, &got, &gpa), 0);
	assert_int_equal(got, 15);
	assert_int_equal(gpa, FX_DATA + 0xff8);
	for (unsigned i = 0; i < 15; i++)
		assert_int_equal(buf[i], 0xc0 + i);
	/* The next page is NX: what can be had is had; alone it faults. */
	assert_int_equal(cpu_fetch(v, LOW + 0x1ffe, buf, &got, &gpa), 0);
	assert_int_equal(got, 2);
	assert_int_equal(cpu_fetch(v, LOW + 0x2000, buf, &got, &gpa), -1);
	assert_int_equal(v->exc.err, PF_P | PF_U | PF_I);
	assert_int_equal(cpu_fetch(v, LOW + 0x3000, buf, &got, &gpa), -1);
	assert_int_equal(v->exc.err, PF_U | PF_I);
	assert_int_equal(cpu_fetch(v, HIGH, buf, &got, &gpa), -1);
	assert_int_equal(v->exc.err, PF_P | PF_U | PF_I);
	v->cpl = 0;
	assert_int_equal(cpu_fetch(v, LOW + 0x5000, buf, &got, &gpa), 0);
	assert_int_equal(buf[0], 0xff);
	assert_int_equal(b->n, 0);
	assert_int_equal(cpu_fetch(v, BIT(50), buf, &got, &gpa), -1);
	assert_int_equal(v->exc.vector, VEC_GP);
}

/* Without long mode linear addresses wrap at 4 GiB. */
static void wrap(void **state)
{
	struct bed *b = *state;
	struct vcpu *v = b->v;
	struct mmu_regs r = { .cr0 = CR0_PE };
	uint64_t val;

	v->efer = 0;
	mmu_set_regs(&v->mmu, &r, false);
	fx_put(&b->fx, 0, 4, 0x44332211);
	assert_int_equal(cpu_load(v, 0xfffffffe, 4, &val), 0);
	assert_int_equal(val, 0x22118877);
	assert_int_equal(b->log[0].gpa, 0xfffffffe);
}

/* What a debugger watches: exact bytes, the right kinds, one event, and no flat entry that would hide the next access. */
static void watches(void **state)
{
	struct bed *b = *state;
	struct vcpu *v = b->v;
	static struct mmu_watches w = { .n = 2, .w = { { LOW + 0x10, 4, MMU_WATCH_WRITE }, { LOW + 0xffe, 4, MMU_WATCH_READ } } };
	uint8_t buf[64] = { 0 };
	uint64_t val;
	struct cpu_rmw rmw;

	assert_int_equal(cpu_store(v, LOW, 8, 0), 0);
	v->mmu.watches = &w;
	mmu_flush_all(&v->mmu);
#define MISS(call) do { v->event = 0; v->debug.hit = DEBUG_HIT_NONE; assert_int_equal(call, 0);                          \
		assert_int_equal(v->debug.hit, DEBUG_HIT_NONE); assert_int_equal(v->event, 0); } while (0)
#define HIT(call, at, kind) do { v->event = 0; v->debug.hit = DEBUG_HIT_NONE; assert_int_equal(call, 0);                 \
		assert_int_equal(v->debug.hit, DEBUG_HIT_WATCH); assert_int_equal(v->debug.addr, at);                    \
		assert_int_equal(v->debug.kinds, kind); assert_int_equal(v->event, VCPU_EV_DEBUG); } while (0)
	for (unsigned round = 0; round < 2; round++) {
		MISS(cpu_load(v, LOW + 0x10, 4, &val));
		MISS(cpu_store(v, LOW + 0xc, 4, 0));
		MISS(cpu_store(v, LOW + 0x14, 4, 0));
		HIT(cpu_store(v, LOW + 0x13, 1, 0), LOW + 0x13, MMU_WATCH_WRITE);
		HIT(cpu_store(v, LOW + 0xd, 4, 0), LOW + 0x10, MMU_WATCH_WRITE);
		HIT(cpu_store_sys(v, LOW + 0x10, 8, 0), LOW + 0x10, MMU_WATCH_WRITE);
		HIT(cpu_store_buf(v, LOW, buf, 64), LOW + 0x10, MMU_WATCH_WRITE);
		HIT(cpu_rmw_open(v, LOW + 0x12, 2, &rmw), LOW + 0x12, MMU_WATCH_WRITE);
		cpu_rmw_close(v, &rmw, 2);
		/* The second spans two pages; both are seen from either side. */
		MISS(cpu_store(v, LOW + 0xffc, 8, 0));
		HIT(cpu_load(v, LOW + 0x1001, 1, &val), LOW + 0x1001, MMU_WATCH_READ);
		HIT(cpu_load(v, LOW + 0xffc, 8, &val), LOW + 0xffe, MMU_WATCH_READ);
		HIT(cpu_load_buf(v, LOW + 0xff0, buf, 64), LOW + 0xffe, MMU_WATCH_READ);
		MISS(cpu_load(v, LOW + 0x1002, 8, &val));
		MISS(cpu_probe_write(v, LOW + 0x10, 4));
		/* A page that nobody watches is cached as ever. */
		MISS(cpu_store(v, LOW + 0x4000, 8, 0));
		assert_int_not_equal(v->mmu.cur->w[mmu_vpn(LOW + 0x4000)], 0);
		assert_int_equal(v->mmu.cur->r[mmu_vpn(LOW)], 0);
		assert_int_equal(v->mmu.cur->r[mmu_vpn(LOW + 0x1000)], 0);
	}
	/* A faulting access has touched nothing. */
	v->event = 0;
	v->debug.hit = DEBUG_HIT_NONE;
	assert_int_equal(cpu_load(v, LOW + 0x2ffc, 8, &val), -1);
	assert_int_equal(v->debug.hit, DEBUG_HIT_NONE);
	v->mmu.watches = NULL;
	mmu_flush_all(&v->mmu);
	assert_int_equal(cpu_store(v, LOW + 0x10, 4, 0), 0);
	assert_int_not_equal(v->mmu.cur->w[mmu_vpn(LOW)], 0);
}

#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(sizes_and_crossing), T(faults), T(devices), T(code_pages), T(journal), T(fetch), T(wrap), T(watches),
	};

	return cmocka_run_group_tests_name("cpu/access", tests, NULL, NULL);
}
