/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Several processors: start-up, interprocessor interrupts of all kinds, NMI, INIT and starting again, HLT and its wake-up, TLB
 * shootdown, accessed and dirty bits set by several at once, time that agrees.
 *
 * Environments: long64
 * Spec: SDM vol. 3A 8.4 (start-up), 10.6 (IPIs), 4.10.5 (propagation of paging-structure changes), 4.8 (A and D).
 */
#include "smp.h"

enum { VEC = 0x40, VEC_SHOOT = 0x41, VEC_PING = 0x42 };

static volatile u32 hits[SMP_MAX][256];
static volatile u32 nmis[SMP_MAX];
static volatile bool quit;

static void on_ipi(struct regs *f)
{
	hits[smp_self()][f->vec]++;
	apic_write(APIC_EOI, 0);
}

static void on_nmi(struct regs *f)
{
	(void)f;
	nmis[smp_self()]++;
}

/* Until *p is at least n, for at most some seconds. */
static bool wait_for(volatile u32 *p, u32 n)
{
	u64 end = rdtsc() + 5 * tsc_hz();

	while (*p < n && rdtsc() < end)
		pause();
	return *p >= n;
}

static void listen(void *arg)
{
	(void)arg;
	sti();
	while (!quit)
		pause();
	cli();
}

static void sleep_until_quit(void *arg)
{
	(void)arg;
	while (!quit) {
		asm volatile("sti; hlt; cli" ::: "memory");
	}
}

/* --- start-up ----------------------------------------------------------------------------------------------------------- */

static void test_start(void)
{
	u32 o[4];

	cpuid(1, 0, o);
	CHECK(smp_count >= 2);
	CHECK_EQ(smp_count, o[1] >> 16 & 0xff);
	for (unsigned i = 0; i < smp_count; i++)
		for (unsigned k = i + 1; k < smp_count; k++)
			CHECK(smp_cpu[i].apic_id != smp_cpu[k].apic_id);
	CHECK(rdmsr(0x1b) & 0x100);
}

static volatile u32 seen_bsp[SMP_MAX], seen_id[SMP_MAX];

static void look(void *arg)
{
	u32 o[4];
	unsigned me = smp_self();

	(void)arg;
	cpuid(1, 0, o);
	seen_bsp[me] = rdmsr(0x1b) >> 8 & 1;
	seen_id[me] = o[1] >> 24;
}

static void test_identity(void)
{
	smp_run_all(look, NULL);
	for (unsigned i = 0; i < smp_count; i++) {
		CHECK_EQ(seen_bsp[i], i == 0);
		CHECK_EQ(seen_id[i], smp_cpu[i].apic_id);
	}
}

/* --- interrupts ----------------------------------------------------------------------------------------------------------- */

static void all_listen(void (*fn)(void *))
{
	quit = false;
	memset((void *)hits, 0, sizeof(hits));
	for (unsigned i = 1; i < smp_count; i++)
		smp_run(i, fn, NULL);
}

static void all_quit(void)
{
	quit = true;
	/* Sleepers need a reason to look. */
	smp_ipi(0, 0xc4000 | VEC);
	for (unsigned i = 1; i < smp_count; i++)
		smp_join(i);
}

static u32 total(unsigned vec)
{
	u32 n = 0;

	for (unsigned i = 0; i < smp_count; i++)
		n += hits[i][vec];
	return n;
}

static void test_ipis(void)
{
	all_listen(listen);
	/* Physical, one by one. */
	for (unsigned i = 1; i < smp_count; i++) {
		smp_ipi(smp_cpu[i].apic_id, 0x4000 | (VEC + 0x10));
		CHECK(wait_for(&hits[i][VEC + 0x10], 1));
	}
	CHECK_EQ(total(VEC + 0x10), smp_count - 1);
	/* All but self, all with self, self. */
	smp_ipi(0, 0xc4000 | (VEC + 0x11));
	for (unsigned i = 1; i < smp_count; i++)
		CHECK(wait_for(&hits[i][VEC + 0x11], 1));
	sti();
	smp_ipi(0, 0x84000 | (VEC + 0x12));
	for (unsigned i = 0; i < smp_count; i++)
		CHECK(wait_for(&hits[i][VEC + 0x12], 1));
	smp_ipi(0, 0x44000 | (VEC + 0x13));
	CHECK(wait_for(&hits[0][VEC + 0x13], 1));
	/* Physical broadcast. */
	smp_ipi(0xff, 0x4000 | (VEC + 0x14));
	for (unsigned i = 0; i < smp_count; i++)
		CHECK(wait_for(&hits[i][VEC + 0x14], 1));
	/* Lowest priority: exactly one of all. */
	smp_ipi(0xff, 0x4100 | (VEC + 0x15));
	smp_delay_us(20000);
	if (!on_qemu)
		CHECK_EQ(total(VEC + 0x15), 1);
	cli();
	CHECK_EQ(total(VEC + 0x11), smp_count - 1);
	CHECK_EQ(total(VEC + 0x12), smp_count);
	CHECK_EQ(total(VEC + 0x13), 1);
	CHECK_EQ(total(VEC + 0x14), smp_count);
	all_quit();
}

static void set_ldr(void *arg)
{
	(void)arg;
	apic_write(APIC_DFR, 0xffffffff);
	apic_write(APIC_LDR, 1u << (24 + smp_self()));
}

static void test_logical(void)
{
	if (smp_count > 8)
		return;
	smp_run_all(set_ldr, NULL);
	all_listen(listen);
	for (unsigned i = 1; i < smp_count; i++) {
		smp_ipi(1u << i, 0x4800 | (VEC + i));
		CHECK(wait_for(&hits[i][VEC + i], 1));
		CHECK_EQ(total(VEC + i), 1);
	}
	smp_ipi(0xfe, 0x4800 | (VEC + 0x20));
	for (unsigned i = 1; i < smp_count; i++)
		CHECK(wait_for(&hits[i][VEC + 0x20], 1));
	CHECK_EQ(total(VEC + 0x20), smp_count - 1);
	all_quit();
}

static void test_nmi(void)
{
	all_listen(listen);
	for (unsigned i = 1; i < smp_count; i++) {
		smp_ipi(smp_cpu[i].apic_id, 0x4400);
		CHECK(wait_for(&nmis[i], 1));
	}
	all_quit();
	/* Into HLT with interrupts on, and to all. */
	all_listen(sleep_until_quit);
	smp_delay_us(2000);
	smp_ipi(0, 0xc4400);
	for (unsigned i = 1; i < smp_count; i++)
		CHECK(wait_for(&nmis[i], 2));
	CHECK_EQ(nmis[0], 0);
	all_quit();
}

/* --- INIT and starting again ------------------------------------------------------------------------------------------- */

extern volatile u32 ap_started;

static void stuck(void *arg)
{
	(void)arg;
	for (;;)
		asm volatile("cli; hlt");
}

static void test_restart(void)
{
	unsigned cpu = smp_count - 1, was = smp_count;
	u32 before = ap_started;

	/* A start-up message to a running processor is ignored. */
	smp_ipi(smp_cpu[cpu].apic_id, 0x4600 | 0x70);
	smp_delay_us(10000);
	CHECK_EQ(ap_started, before);
	/* One that sleeps with interrupts off is out of reach of everything but INIT. */
	smp_run(cpu, stuck, NULL);
	smp_delay_us(2000);
	smp_ipi(smp_cpu[cpu].apic_id, 0x4000 | VEC);
	smp_delay_us(2000);
	if (ap_started >= SMP_MAX)
		return;
	smp_cpu[ap_started].online = false;
	smp_ipi(smp_cpu[cpu].apic_id, 0x4500);
	smp_delay_us(2000);
	CHECK_EQ(ap_started, before);
	smp_ipi(smp_cpu[cpu].apic_id, 0x4600 | 0x70);
	CHECK(wait_for(&ap_started, before + 1));
	/* It comes back under the next number. */
	CHECK(wait_for((volatile u32 *)&smp_cpu[before].online, 1));
	CHECK_EQ(smp_cpu[before].apic_id, smp_cpu[cpu].apic_id);
	smp_cpu[cpu].fn = NULL;
	smp_cpu[cpu].online = false;
	quit = false;
	memset((void *)hits, 0, sizeof(hits));
	smp_run(before, listen, NULL);
	smp_ipi(smp_cpu[before].apic_id, 0x4000 | VEC);
	CHECK(wait_for(&hits[before][VEC], 1));
	quit = true;
	smp_join(before);
	(void)was;
}

/* --- HLT and wake-up --------------------------------------------------------------------------------------------------- */

static volatile u32 ping, pong;

static void on_ping(struct regs *f)
{
	hits[smp_self()][f->vec]++;
	ping++;
	apic_write(APIC_EOI, 0);
}

/* Sleeps until pinged, answers; no wake-up may be lost between the look and the HLT. */
static void sleeper(void *arg)
{
	u32 n = (u32)(u64)arg;

	while (pong < n) {
		cli();
		if (ping == pong)
			asm volatile("sti; hlt" ::: "memory");
		sti();
		while (pong < ping)
			pong++;
	}
	cli();
}

static void test_wakeup(void)
{
	const u32 n = 3000;

	ping = pong = 0;
	irq_handler[VEC_PING] = on_ping;
	smp_run(1, sleeper, (void *)(u64)n);
	for (u32 i = 0; i < n; i++) {
		/* Different distances between the answer and the next ping. */
		for (u32 k = 0; k < (i & 63); k++)
			pause();
		smp_ipi(smp_cpu[1].apic_id, 0x4000 | VEC_PING);
		if (!wait_for(&pong, i + 1)) {
			CHECK_EQ(pong, i + 1);
			return;
		}
	}
	smp_join(1);
}

/* --- paging -------------------------------------------------------------------------------------------------------------- */

static volatile u64 *shoot_va;
static volatile u32 shot, reads;

static void on_shoot(struct regs *f)
{
	(void)f;
	invlpg((ul)shoot_va);
	__atomic_add_fetch(&shot, 1, __ATOMIC_SEQ_CST);
	apic_write(APIC_EOI, 0);
}

/* Writes its mark to wherever the page is mapped; interrupts on. */
static void scribble(void *arg)
{
	volatile u64 *p = shoot_va + 8 * smp_self();

	(void)arg;
	sti();
	while (!quit) {
		++*p;
		reads++;
	}
	cli();
}

/* After the others have answered, nothing of theirs may reach the old page. */
static void test_shootdown(void)
{
	u64 *page[2] = {page_alloc(), page_alloc()};

	shoot_va = (u64 *)TEST_VA;
	map_page(TEST_VA, (u64)page[0], PTE_P | PTE_W);
	irq_handler[VEC_SHOOT] = on_shoot;
	quit = false;
	for (unsigned i = 1; i < smp_count; i++)
		if (smp_cpu[i].online)
			smp_run(i, scribble, NULL);
	for (unsigned n = 0; n < 300; n++) {
		u64 *old = page[n & 1], sum = 0;
		u32 others = 0, from = reads;

		for (unsigned i = 1; i < smp_count; i++)
			others += smp_cpu[i].online;
		shot = 0;
		map_page(TEST_VA, (u64)page[~n & 1], PTE_P | PTE_W);
		smp_ipi(0, 0xc4000 | VEC_SHOOT);
		CHECK(wait_for(&shot, others));
		memcpy(old + 256, old, 2048);
		for (unsigned k = 0; k < 200; k++)
			pause();
		for (unsigned i = 0; i < 256; i++)
			sum += old[i] != old[256 + i];
		if (!CHECK_EQ(sum, 0))
			break;
		(void)from;
	}
	quit = true;
	for (unsigned i = 1; i < smp_count; i++)
		if (smp_cpu[i].online)
			smp_join(i);
}

/* All processors touch pages while one takes accessed and dirty bits away with a locked instruction: a bit that is found set belongs to
 * a touch, and no other bit of the entries ever changes. */
enum { AD_PAGES = 64 };
static u64 *ad_pte[AD_PAGES];

static void touch(void *arg)
{
	(void)arg;
	while (!quit)
		for (unsigned i = 0; i < AD_PAGES; i++) {
			++*(volatile u64 *)(TEST_VA + 0x200000 + i * 4096 + smp_self() * 8);
			invlpg(TEST_VA + 0x200000 + i * 4096);
		}
}

static void test_ad(void)
{
	u64 found = 0, wrong = 0;

	for (unsigned i = 0; i < AD_PAGES; i++) {
		u64 va = TEST_VA + 0x200000 + i * 4096;

		map_page(va, (u64)page_alloc(), PTE_P | PTE_W);
		ad_pte[i] = pte_at(boot_pml4, va, 1);
	}
	quit = false;
	for (unsigned i = 1; i < smp_count; i++)
		if (smp_cpu[i].online)
			smp_run(i, touch, NULL);
	for (u64 n = 0, end = rdtsc() + 5 * tsc_hz(); n < 200 || (found < 100 && rdtsc() < end); n++)
		for (unsigned i = 0; i < AD_PAGES; i++) {
			u64 old = __atomic_fetch_and(ad_pte[i], ~(u64)(PTE_A | PTE_D), __ATOMIC_SEQ_CST);

			found += (old & PTE_D) != 0;
			wrong += (old & ~(u64)(PTE_A | PTE_D)) != ((*ad_pte[i]) & ~(u64)(PTE_A | PTE_D));
		}
	quit = true;
	for (unsigned i = 1; i < smp_count; i++)
		if (smp_cpu[i].online)
			smp_join(i);
	CHECK_EQ(wrong, 0);
	CHECK(found > 0);
}

/* --- time ---------------------------------------------------------------------------------------------------------------- */

static volatile u64 last_tsc;
static volatile u32 backwards;

/* Whoever takes the lock finds a time not before that of the one who had it last. */
static void clocks(void *arg)
{
	static volatile u32 lock;

	(void)arg;
	for (unsigned i = 0; i < 5000; i++) {
		while (__atomic_exchange_n(&lock, 1, __ATOMIC_SEQ_CST))
			pause();
		asm volatile("lfence" ::: "memory");
		u64 now = rdtsc();
		backwards += now < last_tsc;
		last_tsc = now;
		__atomic_store_n(&lock, 0, __ATOMIC_SEQ_CST);
	}
}

int main(void)
{
	for (unsigned v = VEC; v < 0x80; v++)
		irq_handler[v] = on_ipi;
	irq_handler[NMI] = on_nmi;
	smp_start();
	test_start();
	test_identity();
	test_ipis();
	test_logical();
	test_nmi();
	test_wakeup();
	smp_run_all(clocks, NULL);
	CHECK_EQ(backwards, 0);
	test_shootdown();
	test_ad();
	test_restart();
	return 0;
}
