/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Inside of mem/: the pool, struct mem, and the helpers its files share. Never included from outside (tests excepted).
 *
 * Nothing here uses libc or errno: these functions also run while the guest's vector state is in the host's registers,
 * which libc may use, so system calls are made directly and the lock is a word in memory.
 */
#ifndef MEM_PRIVATE_H
#define MEM_PRIVATE_H

#include <sys/syscall.h>

#include "mem/mem.h"
#include "mem/mmu.h"

#define P2M_MFN_MASK (BIT(40) - 1)
#define P2M_STATE_SHIFT 40
#define P2M_STATE_MASK (0xfull << P2M_STATE_SHIFT)
#define P2M_ENTRY(mfn, state) ((uint64_t)(mfn) | (uint64_t)(state) << P2M_STATE_SHIFT)

#define MEM_EXTENT_FRAMES 512ull
#define MEM_EXTENT_SIZE (MEM_EXTENT_FRAMES * PAGE_SIZE)

/* What is asked of the host at once when a frame is about to be used for the first time. */
#define MEM_TOUCH_FRAMES 64ull

/* Machine frames: one memfd mapped once. used: one bit per frame; taken: number of used frames per extent. */
struct mem_pool {
	uint8_t *base;
	void *area;             /* the reservation around it: inaccessible margins on both sides */
	uint64_t frames;
	uint64_t nextents;
	int fd;
	uint64_t *used;
	uint64_t *touched;      /* one bit per MEM_TOUCH_FRAMES: the host has been asked for them (since frames of these were given back) */
	uint16_t *taken;
	uint64_t next_extent;   /* where to look for a free extent */
	uint64_t next_single;   /* the extent single frames come from */
};

struct mem {
	struct mem_pool pool;
	uint64_t *p2m;
	gfn_t max_gfn;
	uint64_t ram_frames;
	uint64_t populated;     /* frames */
	uint64_t ballooned;     /* frames */
	uint32_t lock;
	uint32_t exclusive;     /* index + 1 of the MMU whose vCPU runs alone; a futex (sync.c) */
	uint64_t *code_lines;   /* per guest frame: 64-byte lines that translations were ever made from */
	struct mmu *mmu[MEM_MAX_MMUS];   /* by index; NULL: free */
};

#define POOL_NONE UINT64_MAX

int mem_pool_init(struct mem_pool *p, uint64_t bytes);
void mem_pool_fini(struct mem_pool *p);
mfn_t mem_pool_take_extent(struct mem_pool *p);    /* first frame of a free extent, or POOL_NONE */
mfn_t mem_pool_take(struct mem_pool *p);           /* one frame, or POOL_NONE */
void mem_pool_give(struct mem_pool *p, mfn_t mfn, uint64_t count);   /* contents are discarded */

/* The frame is about to be used by guest code: has the host provide it and its neighbours. Any thread, no lock. */
void mem_pool_touch(struct mem_pool *p, mfn_t mfn);

/* code.c */
int mem_attach_mmu(struct mem *m, struct mmu *mmu);
void mem_detach_mmu(struct mem *m, struct mmu *mmu);
/* Guest bytes have changed: drops mmu's translations of them, and its mark with the last one. On the owner's thread. */
void mem_code_changed(struct mmu *mmu, gfn_t gfn, unsigned off, unsigned len);

/* sync.c */
/* Hands a request to mmu's owner (NULL: empty all tables); the ticket to wait for. Any thread. */
uint32_t mmu_ask(struct mmu *mmu, const struct mmu_request *r);
/* Waits until it is done, or until the owner holds nothing and will do it before it goes on. The caller must not be active. */
void mmu_await(struct mmu *mmu, uint32_t ticket);

/* Dimensions of the flat tables. */
#define FLAT_ENTRIES BIT(36)
#define FLAT_REGIONS BIT(27)
#define FLAT_GIBS BIT(18)
#define REGION_PAGES 512u
#define GIB_REGIONS 512u
#define REGION_UPPER BIT(26)          /* region numbers of the upper half */

/* context.c */
int mmu_context_init(struct mmu_context *c);
void mmu_context_fini(struct mmu_context *c);
/* Entries of `pages` pages (1, or a multiple of a line, aligned) are about to be filled: puts their region on the touched list and adds
 * flags. False if the list was full and all of the context was emptied. */
bool mmu_context_touch(struct mmu *mmu, struct mmu_context *c, uint64_t vpn, unsigned pages, uint16_t flags);
void mmu_context_empty(struct mmu *mmu, struct mmu_context *c);
void mmu_context_empty_nonglobal(struct mmu *mmu, struct mmu_context *c);
void mmu_context_empty_lower(struct mmu *mmu, struct mmu_context *c);
void mmu_context_empty_page(struct mmu *mmu, struct mmu_context *c, gva_t gva);
bool mmu_context_page_global(const struct mmu *mmu, const struct mmu_context *c, gva_t gva);

static inline uint64_t p2m_entry(const struct mem *m, gfn_t gfn)
{
	return likely(gfn < m->max_gfn) ? __atomic_load_n(&m->p2m[gfn], __ATOMIC_ACQUIRE) : 0;
}

static inline enum p2m_state p2m_entry_state(uint64_t e)
{
	return (enum p2m_state)((e & P2M_STATE_MASK) >> P2M_STATE_SHIFT);
}

/* RAM without a frame. */
static inline bool p2m_state_empty(enum p2m_state s)
{
	return s == P2M_ABSENT || s == P2M_BALLOONED;
}

static inline uint8_t *mem_hva(const struct mem *m, uint64_t entry)
{
	return m->pool.base + ((entry & P2M_MFN_MASK) << PAGE_SHIFT);
}

/* Sets flag bits of an entry whose frame exists; concurrent with readers and other flag setters. */
static inline void p2m_set_flags(struct mem *m, gfn_t gfn, uint64_t flags)
{
	__atomic_fetch_or(&m->p2m[gfn], flags, __ATOMIC_SEQ_CST);
}

static inline long mem_syscall3(long nr, long a, long b, long c)
{
	long ret;

	__asm__ volatile("syscall" : "=a"(ret) : "a"(nr), "D"(a), "S"(b), "d"(c) : "rcx", "r11", "memory");
	return ret;
}

static inline long mem_syscall6(long nr, long a, long b, long c, long d, long e, long f)
{
	register long r10 __asm__("r10") = d;
	register long r8 __asm__("r8") = e;
	register long r9 __asm__("r9") = f;
	long ret;

	__asm__ volatile("syscall" : "=a"(ret) : "a"(nr), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9) : "rcx", "r11", "memory");
	return ret;
}

static inline int mem_madvise(void *p, uint64_t len, int advice)
{
	return (int)mem_syscall3(SYS_madvise, (long)p, (long)len, advice);
}

/* The lock is held for short, bounded work only (at worst one madvise), so waiting is spinning, then yielding. */
static inline void word_lock(uint32_t *lock)
{
	unsigned spins = 0;

	while (__atomic_exchange_n(lock, 1, __ATOMIC_ACQUIRE)) {
		if (++spins > 200)
			mem_syscall3(SYS_sched_yield, 0, 0, 0);
		else
			__builtin_ia32_pause();
	}
}

static inline void word_unlock(uint32_t *lock)
{
	__atomic_store_n(lock, 0, __ATOMIC_RELEASE);
}

static inline void mem_lock(struct mem *m) { word_lock(&m->lock); }
static inline void mem_unlock(struct mem *m) { word_unlock(&m->lock); }

/* Zeroes n 8-byte words without a call. */
static inline void mem_zero_words(void *p, uint64_t n)
{
	__asm__ volatile("rep stosq" : "+D"(p), "+c"(n) : "a"(0) : "memory");
}

static inline void mem_copy(void *dst, const void *src, uint64_t n)
{
	__asm__ volatile("rep movsb" : "+D"(dst), "+S"(src), "+c"(n) : : "memory");
}

#endif
