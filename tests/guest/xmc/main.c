/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Cross-modifying code: one processor changes instructions that others execute.
 *
 * Environments: long64
 * Spec: SDM vol. 3A 8.1.3 (handling self- and cross-modifying code), 8.3 (serializing instructions).
 */
#include "smp.h"

static volatile bool quit;
static volatile u32 calls[SMP_MAX], wrong[SMP_MAX], traps[SMP_MAX];

/* mov eax, N; ret: N is changed while others call it. */
static u8 *code;

static u32 call_code(void) { return ((u32 (*)(void))code)(); }

static void serialize(void)
{
	u32 o[4];

	cpuid(0, 0, o);
}

static void write_function(u8 *p, u32 n)
{
	p[0] = 0xb8;
	memcpy(p + 1, &n, 4);
	p[5] = 0xc3;
}

/* --- with a flag and serialization: what the manual asks for ------------------------------------------------------------ */

static volatile u32 version, seen[SMP_MAX];

static void follow(void *arg)
{
	unsigned me = smp_self();

	(void)arg;
	while (!quit) {
		u32 v = version;

		if (v == seen[me]) {
			pause();
			continue;
		}
		serialize();
		wrong[me] += call_code() != v;
		calls[me]++;
		seen[me] = v;
	}
}

static void wait_all(volatile u32 *p, u32 n)
{
	u64 end = rdtsc() + 10 * tsc_hz();

	for (unsigned i = 1; i < smp_count; i++)
		while (p[i] < n && rdtsc() < end)
			pause();
}

static void all_run(void (*fn)(void *))
{
	quit = false;
	memset((void *)wrong, 0, sizeof(wrong));
	memset((void *)calls, 0, sizeof(calls));
	for (unsigned i = 1; i < smp_count; i++)
		smp_run(i, fn, NULL);
}

static void all_stop(void)
{
	quit = true;
	for (unsigned i = 1; i < smp_count; i++)
		smp_join(i);
	for (unsigned i = 1; i < smp_count; i++) {
		CHECK(calls[i] > 0);
		CHECK_EQ(wrong[i], 0);
	}
}

static void test_serialized(void)
{
	memset((void *)seen, 0, sizeof(seen));
	version = 0;
	write_function(code, 0);
	all_run(follow);
	for (u32 v = 1; v <= 400; v++) {
		write_function(code, v);
		version = v;
		wait_all(seen, v);
		/* This processor executes it as well, changed a moment ago by itself. */
		CHECK_EQ(call_code(), v);
	}
	all_stop();
}

/* --- without a word: an aligned change becomes visible some time, as old or new and nothing else ------------------------ */

static volatile u32 last[SMP_MAX];

static void chase(void *arg)
{
	unsigned me = smp_self();
	u32 prev = 0;

	(void)arg;
	while (!quit) {
		u32 v = call_code();

		wrong[me] += v < prev;      /* versions only grow */
		prev = last[me] = v;
		calls[me]++;
	}
}

static void test_asynchronous(void)
{
	/* The immediate is an aligned word, so a store changes it as a whole. */
	memset((void *)last, 0, sizeof(last));
	write_function(code, 0);
	all_run(chase);
	for (u32 v = 1; v <= 300; v++) {
		*(volatile u32 *)(code + 1) = v;
		if (v % 20 == 0)
			wait_all(last, v);
		else
			smp_delay_us(20);
	}
	wait_all(last, 300);
	for (unsigned i = 1; i < smp_count; i++)
		CHECK_EQ(last[i], 300);
	all_stop();
}

/* --- the INT3 protocol, as Linux's text_poke_bp() does it ----------------------------------------------------------------- */

/* At `poke`: nop (5 bytes), add ecx, 1 forms; exchanged with a jump of 5 bytes. */
static u8 *poke;
static const u8 nop5[5] = {0x0f, 0x1f, 0x44, 0x00, 0x00};
static u8 jump5[5];
static volatile u32 synced;
enum { VEC_SYNC = 0x50 };

static void on_int3(struct regs *f)
{
	traps[smp_self()]++;
	/* As if the instruction were the no-op: behind it. */
	f->rip = (u64)poke + 5;
}

static void on_sync(struct regs *f)
{
	(void)f;
	serialize();
	__atomic_add_fetch(&synced, 1, __ATOMIC_SEQ_CST);
	apic_write(APIC_EOI, 0);
}

static void sync_all(void)
{
	synced = 0;
	smp_ipi(0, 0xc4000 | VEC_SYNC);
	while (synced < smp_count - 1)
		pause();
}

static void poke_text(const u8 *text)
{
	*(volatile u8 *)poke = 0xcc;
	sync_all();
	for (unsigned i = 1; i < 5; i++)
		((volatile u8 *)poke)[i] = text[i];
	sync_all();
	*(volatile u8 *)poke = text[0];
	sync_all();
}

/* xor eax, eax; poke: nop5 | jmp over the or; or eax, 1 x16; ret. Either all of the ORs are executed or none. */
static void build_poke(void)
{
	u8 *p = code;
	u32 rel;

	*p++ = 0x31;
	*p++ = 0xc0;
	poke = p;
	memcpy(p, nop5, 5);
	p += 5;
	for (unsigned i = 0; i < 16; i++) {
		*p++ = 0x83;                 /* add eax, 1 */
		*p++ = 0xc0;
		*p++ = 1;
	}
	*p = 0xc3;
	jump5[0] = 0xe9;
	rel = (u32)(p - (poke + 5));
	memcpy(jump5 + 1, &rel, 4);
}

static void hammer(void *arg)
{
	unsigned me = smp_self();

	(void)arg;
	sti();
	while (!quit) {
		u32 v = call_code();

		wrong[me] += v != 0 && v != 16;
		calls[me]++;
	}
	cli();
}

static void test_int3(void)
{
	irq_handler[BP] = on_int3;
	irq_handler[VEC_SYNC] = on_sync;
	build_poke();
	all_run(hammer);
	wait_all(calls, 1);
	for (unsigned i = 0; i < 150; i++) {
		poke_text(i & 1 ? nop5 : jump5);
		CHECK_MANUAL(call_code(), i & 1 ? 16 : 0);
	}
	all_stop();
	irq_handler[BP] = NULL;
}

/* --- data beside code ------------------------------------------------------------------------------------------------------ */

/* Others call code of the page while this processor writes data of it, and the other way round. */
static void beside(void *arg)
{
	unsigned me = smp_self();
	volatile u32 *mine = (u32 *)(code + 1024 + me * 64);

	(void)arg;
	while (!quit) {
		u32 was = *mine;

		wrong[me] += call_code() != 77;
		asm volatile("lock incl %0" : "+m"(*mine) : : "cc", "memory");
		wrong[me] += *mine != was + 1;
		calls[me]++;
	}
}

static void test_beside(void)
{
	volatile u32 *shared = (u32 *)(code + 2048);
	u32 sum = 0;

	write_function(code, 77);
	for (unsigned i = 0; i < SMP_MAX; i++)
		*(u32 *)(code + 1024 + i * 64) = 0;
	*shared = 0;
	all_run(beside);
	for (u32 i = 0; i < 3000; i++)
		*shared = *shared + 1;
	CHECK_EQ(*shared, 3000);
	wait_all(calls, 100);
	all_stop();
	for (unsigned i = 1; i < smp_count; i++)
		sum += *(u32 *)(code + 1024 + i * 64) != calls[i];
	CHECK_EQ(sum, 0);
}

/* --- pages that are code on one processor and data on the other, in turn ---------------------------------------------- */

static volatile u32 turn;

static void alternate(void *arg)
{
	unsigned me = smp_self();

	(void)arg;
	if (me != 1)
		return;
	for (u32 i = 0; i < 300; i++) {
		while (turn != 2 * i + 1)
			pause();
		serialize();
		wrong[1] += call_code() != i;
		/* Now it writes the next function, and the other one executes it. */
		write_function(code, i + 1000);
		turn = 2 * i + 2;
	}
}

static void test_alternate(void)
{
	turn = 0;
	memset((void *)wrong, 0, sizeof(wrong));
	for (unsigned i = 1; i < smp_count; i++)
		smp_run(i, alternate, NULL);
	for (u32 i = 0; i < 300; i++) {
		write_function(code, i);
		turn = 2 * i + 1;
		while (turn != 2 * i + 2)
			pause();
		serialize();
		if (!CHECK_EQ(call_code(), i + 1000))
			break;
	}
	for (unsigned i = 1; i < smp_count; i++)
		smp_join(i);
	CHECK_EQ(wrong[1], 0);
}

int main(void)
{
	CHECK(smp_start() >= 2);
	/* The immediate of "mov eax, N" lies at a multiple of four. */
	code = (u8 *)page_alloc() + 67;
	test_serialized();
	test_asynchronous();
	test_alternate();
	test_int3();
	test_beside();
	return 0;
}
