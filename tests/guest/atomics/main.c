/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Atomic instructions on memory shared by processors: counters and locks, aligned, misaligned, across cache lines and across pages.
 *
 * Environments: long64
 * Spec: SDM vol. 3A 8.1.2 (bus locking), vol. 2 LOCK, XCHG.
 */
#include "smp.h"

enum { ROUNDS = 2000, BITS = 16 };

/* Two pages that are neighbours for the processor and not in memory, so that nothing works by chance. */
#define PLACE TEST_VA
static u8 *half[2];

struct job {
	volatile void *p;
	unsigned what, size, rounds;
};

enum { INC, XADD, ADD, SUB_DEC, CMPXCHG, XOR_TWICE, BTS_BTR, XCHG_LOCK, CMPXCHG_WIDE, KINDS };
static const char *const name[KINDS] = {"lock inc", "lock xadd", "lock add", "lock sub, dec", "lock cmpxchg", "lock xor", "lock bts, btr",
					"xchg", "lock cmpxchg8b/16b"};

static struct smp_barrier start;
static volatile u64 guarded;          /* by the XCHG lock */
static volatile u32 broken;

#define SIZED(op, suf, T) asm volatile("lock " op suf " %1, %0" : "+m"(*(volatile T *)p) : "r"(v) : "cc", "memory")
#define BY_SIZE(op, val)                                                                    \
	do {                                                                                \
		u64 v_ = (val);                                                             \
		if (size == 2) { u16 v = (u16)v_; SIZED(op, "w", u16); }                    \
		else if (size == 4) { u32 v = (u32)v_; SIZED(op, "l", u32); }               \
		else { u64 v = v_; SIZED(op, "q", u64); }                                   \
	} while (0)

static void inc(volatile void *p, unsigned size)
{
	if (size == 2)
		asm volatile("lock incw %0" : "+m"(*(volatile u16 *)p) : : "cc", "memory");
	else if (size == 4)
		asm volatile("lock incl %0" : "+m"(*(volatile u32 *)p) : : "cc", "memory");
	else
		asm volatile("lock incq %0" : "+m"(*(volatile u64 *)p) : : "cc", "memory");
}

static u64 cmpxchg(volatile void *p, unsigned size, u64 old, u64 neu)
{
	if (size == 2)
		asm volatile("lock cmpxchgw %w2, %1" : "+a"(old), "+m"(*(volatile u16 *)p) : "r"(neu) : "cc", "memory");
	else if (size == 4)
		asm volatile("lock cmpxchgl %k2, %1" : "+a"(old), "+m"(*(volatile u32 *)p) : "r"(neu) : "cc", "memory");
	else
		asm volatile("lock cmpxchgq %2, %1" : "+a"(old), "+m"(*(volatile u64 *)p) : "r"(neu) : "cc", "memory");
	return size == 2 ? (u16)old : size == 4 ? (u32)old : old;
}

static u64 load(volatile void *p, unsigned size)
{
	return size == 2 ? *(volatile u16 *)p : size == 4 ? *(volatile u32 *)p : *(volatile u64 *)p;
}

static u64 xchg(volatile void *p, unsigned size, u64 v)
{
	if (size == 2)
		asm volatile("xchgw %w0, %1" : "+r"(v), "+m"(*(volatile u16 *)p) : : "memory");
	else if (size == 4)
		asm volatile("xchgl %k0, %1" : "+r"(v), "+m"(*(volatile u32 *)p) : : "memory");
	else
		asm volatile("xchgq %0, %1" : "+r"(v), "+m"(*(volatile u64 *)p) : : "memory");
	return size == 2 ? (u16)v : size == 4 ? (u32)v : v;
}

/* Adds 1 to the low half and 2 to the high half, which must stay in that relation. */
static void add_wide(volatile void *p, unsigned size)
{
	bool ok;

	if (size == 8) {
		u32 lo = ((volatile u32 *)p)[0], hi = ((volatile u32 *)p)[1];

		do
			asm volatile("lock cmpxchg8b %1" : "=@ccz"(ok), "+m"(*(volatile u64 *)p), "+a"(lo), "+d"(hi)
				     : "b"(lo + 1), "c"(hi + 2) : "memory");
		while (!ok);
	} else {
		u64 lo = ((volatile u64 *)p)[0], hi = ((volatile u64 *)p)[1];

		do
			asm volatile("lock cmpxchg16b %1" : "=@ccz"(ok), "+m"(*(volatile u8(*)[16])p), "+a"(lo), "+d"(hi)
				     : "b"(lo + 1), "c"(hi + 2) : "memory");
		while (!ok);
	}
}

static void one(const struct job *j)
{
	volatile void *p = j->p;
	unsigned size = j->size;
	u64 old, was;

	switch (j->what) {
	case INC: inc(p, size); break;
	case ADD: BY_SIZE("add", 1); break;
	case XADD:
		was = 1;
		if (size == 2)
			asm volatile("lock xaddw %w0, %1" : "+r"(was), "+m"(*(volatile u16 *)p) : : "cc", "memory");
		else if (size == 4)
			asm volatile("lock xaddl %k0, %1" : "+r"(was), "+m"(*(volatile u32 *)p) : : "cc", "memory");
		else
			asm volatile("lock xaddq %0, %1" : "+r"(was), "+m"(*(volatile u64 *)p) : : "cc", "memory");
		break;
	case SUB_DEC:
		BY_SIZE("sub", (u64)-2);
		if (size == 2)
			asm volatile("lock decw %0" : "+m"(*(volatile u16 *)p) : : "cc", "memory");
		else if (size == 4)
			asm volatile("lock decl %0" : "+m"(*(volatile u32 *)p) : : "cc", "memory");
		else
			asm volatile("lock decq %0" : "+m"(*(volatile u64 *)p) : : "cc", "memory");
		break;
	case CMPXCHG:
		old = load(p, size);
		while ((was = cmpxchg(p, size, old, old + 1)) != old)
			old = was;
		break;
	case XOR_TWICE:
		/* A bit that the counter does not reach, or there is none. */
		BY_SIZE("xor", BIT(size * 8 - 1 - smp_self() % 4));
		BY_SIZE("xor", BIT(size * 8 - 1 - smp_self() % 4));
		if (size > 2)
			inc(p, size);
		break;
	case BTS_BTR: {
		/* A bit of one's own in the top byte, on and off: nobody else may disturb it. */
		u64 bit = size * 8 - 1 - smp_self() % 4;
		bool before, after;

		if (size == 2) {
			asm volatile("lock btsw %w2, %1" : "=@ccc"(before), "+m"(*(volatile u16 *)p) : "r"((u16)bit) : "memory");
			asm volatile("lock btrw %w2, %1" : "=@ccc"(after), "+m"(*(volatile u16 *)p) : "r"((u16)bit) : "memory");
		} else if (size == 4) {
			asm volatile("lock btsl %k2, %1" : "=@ccc"(before), "+m"(*(volatile u32 *)p) : "r"((u32)bit) : "memory");
			asm volatile("lock btrl %k2, %1" : "=@ccc"(after), "+m"(*(volatile u32 *)p) : "r"((u32)bit) : "memory");
		} else {
			asm volatile("lock btsq %2, %1" : "=@ccc"(before), "+m"(*(volatile u64 *)p) : "r"(bit) : "memory");
			asm volatile("lock btrq %2, %1" : "=@ccc"(after), "+m"(*(volatile u64 *)p) : "r"(bit) : "memory");
		}
		if (before || !after)
			broken++;
		if (size > 2)
			inc(p, size);
		break;
	}
	case XCHG_LOCK:
		while (xchg(p, size, 1))
			pause();
		guarded++;
		BY_SIZE("and", 0);
		break;
	default:
		add_wide(p, size);
		break;
	}
}

static void work(void *arg)
{
	const struct job *j = arg;

	smp_barrier(&start, smp_count);
	for (unsigned i = 0; i < j->rounds; i++)
		one(j);
}

static void check(const struct job *j)
{
	u64 n = (u64)j->rounds * smp_count;

	check_context = name[j->what];
	if (j->what == CMPXCHG_WIDE) {
		u64 lo = j->size == 8 ? *(volatile u32 *)j->p : *(volatile u64 *)j->p;
		u64 hi = j->size == 8 ? ((volatile u32 *)j->p)[1] : ((volatile u64 *)j->p)[1];

		CHECK_EQ(lo, n);
		CHECK_EQ(hi, 2 * n);
	} else if (j->what == XCHG_LOCK) {
		CHECK_EQ(guarded, n);
	} else if ((j->what != BTS_BTR && j->what != XOR_TWICE) || j->size > 2) {
		CHECK_EQ(load(j->p, j->size), j->size == 2 ? (u16)n : n);
	} else {
		CHECK_EQ(load(j->p, 2), 0);
	}
	CHECK_EQ(broken, 0);
}

static void torture(unsigned off, unsigned rounds)
{
	for (unsigned what = 0; what < KINDS; what++) {
		for (unsigned size = 2; size <= 16; size *= 2) {
			struct job j = {(u8 *)PLACE + off, what, size, rounds};

			if (what == CMPXCHG_WIDE ? size < 8 || (size == 16 && off % 16) : size > 8)
				continue;
			/* Across the end of the page: the last byte and the first of the next. */
			if (off == 4095 || off + size <= 4096 || off > 4096) {
				memset(half[0], 0, 4096);
				memset(half[1], 0, 4096);
				guarded = broken = 0;
				smp_run_all(work, &j);
				check(&j);
			}
		}
	}
	check_context = NULL;
}

/* Descriptor accessed bits: set while another processor changes other bits of the same byte's neighbour. */
static void accessed(void *arg)
{
	u64 *d = arg;

	for (unsigned i = 0; i < 2000; i++) {
		if (smp_self() == 0) {
			asm volatile("mov %0, %%fs" : : "r"(FREE_SEL));
			asm volatile("mov %0, %%fs" : : "r"(0));
			__atomic_fetch_and((u8 *)d + 5, (u8)~1, __ATOMIC_SEQ_CST);
		} else if (smp_self() == 1) {
			/* The expand-down bit, which does not matter to anybody. */
			__atomic_fetch_or((u8 *)d + 5, 4, __ATOMIC_SEQ_CST);
			if (!(*((volatile u8 *)d + 5) & 4))
				broken++;
			__atomic_fetch_and((u8 *)d + 5, (u8)~4, __ATOMIC_SEQ_CST);
		}
	}
}

int main(void)
{
	CHECK(smp_start() >= 2);
	half[0] = pages_alloc(3, 1);
	half[1] = half[0] + 2 * 4096;
	map_page(PLACE, (u64)half[0], PTE_P | PTE_W);
	map_page(PLACE + 4096, (u64)half[1], PTE_P | PTE_W);
	torture(0, ROUNDS);
	torture(1 + 16, ROUNDS);             /* misaligned in a line */
	torture(4096 + 64, ROUNDS);
	torture(4095, 100);                  /* across the page */
	broken = 0;
	gdt_set(FREE_SEL, seg_desc(0, 0xfffff, 0x92, 0xc));
	smp_run_all(accessed, &gdt[FREE_SEL >> 3]);
	CHECK_EQ(broken, 0);
	return 0;
}
