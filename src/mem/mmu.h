/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Guest paging: the page walk, and the flat shadow tables that make its result one load away.
 *
 * A context (one per PCID in use) owns flat arrays indexed by virtual page number, reserved address space of which only
 * touched pages exist:
 *
 *   r[vpn]  hva - gva of the page for reads, 0 = absent       vpn = gva bits 12..47 (36 bits): every 64-bit address
 *   w[vpn]  the same for writes and read-modify-writes        gives an index inside the table
 *   x[vpn]  opaque 32-bit value of the translator (code page) separate x tables for user and supervisor
 *
 * Rights. One pair r/w serves both privilege levels:
 *   upper half (bit 47 set): entries carry supervisor rights. Translated and C user-mode accesses never use them: user code
 *     indexes with bits 12..46 only, so an upper-half address meets a lower-half entry, and address + entry lies in the
 *     host's kernel half or is non-canonical, and faults (see docs/design/mem.md); C code checks CPL.
 *   lower half: entries carry user rights (which SMAP being off makes a subset of supervisor rights). An entry for a
 *     supervisor-only page (or a write with CR0.WP = 0) may be filled while CPL < 3, setting `lower_super`;
 *     mmu_enter_user() empties the lower half if it is set. It must be called on every change to CPL 3.
 *
 * A write entry exists only if the mapping permits it, the PTE's dirty bit is set, and the frame has no translated code
 * and is not shared or logged. A present entry implies the PTE's accessed bit is set.
 *
 * Budget: at most MMU_CONTEXTS contexts; the least recently used is recycled. Per context a list of touched table pages
 * (2 MiB regions of guest address space) makes emptying cost what was used; past MMU_MAX_REGIONS everything is emptied. What
 * the host spends on tables and on its own page tables for them is bounded over all contexts by MMU_BORN_BASE and _PER_EXTENT.
 *
 * Owner: the vCPU's thread; nobody else touches a struct mmu but its `sync`, through which other threads make requests, and reads
 * the reverse map (code.c).
 */
#ifndef MEM_MMU_H
#define MEM_MMU_H

#include "base/prof.h"
#include "base/types.h"
#include "mem/mem.h"
#include "x86/arch.h"

#define MMU_CONTEXTS 8
#define MMU_MAX_REGIONS 16384
/* Over all contexts, regions that may get table pages before those are returned: so many, and more for each 2 MiB of RAM. */
#define MMU_BORN_BASE 4096u
#define MMU_BORN_PER_EXTENT 4u

/* Region = 2 MiB of guest addresses = one host page of r and w, half a page of x. */
#define MMU_REGION_SHIFT 21
/* Line = 16 pages: two cache lines of r and of w, one of x. A region has 32. */
#define MMU_LINE_PAGES 16u

struct mmu_context {
	uint64_t *r;          /* 2^36 entries */
	uint64_t *w;
	uint32_t *x_user;     /* 2^36 entries; written by mmu_set_exec only */
	uint32_t *x_super;
	uint32_t x_gen[2];    /* changes whenever an entry of x_user [0], x_super [1] may have been dropped */
	uint16_t *region;     /* 2^27 entries: MMU_RG_ flags */
	uint32_t *lines;      /* of each region: which lines may hold entries, in any table */
	uint32_t *touched;    /* list of region numbers */
	uint32_t ntouched;
	uint32_t *idle;       /* regions emptied at least once since the last trim; those not touched again lose their pages */
	uint32_t nidle;
	uint32_t born;        /* regions that got table pages since these were last returned to the host all together */
	uint8_t *huge;        /* per 1 GiB of addresses: may hold fragments of a 1G page */
	uint16_t pcid;
	bool in_use;
	bool lower_super;     /* lower half holds entries that user mode must not see */
	uint64_t last_use;
};
enum {
	MMU_RG_TOUCHED = 1,     /* on the touched list: may hold entries */
	MMU_RG_LARGE = 2,       /* holds fragments of a 2M, 4M or 1G page */
	MMU_RG_LOCAL = 8,       /* holds entries of non-global pages */
	MMU_RG_GLOBAL = 16,     /* holds entries of global pages */
	MMU_RG_IDLE = 32,       /* on the idle list */
	/* Which table pages exist in host memory (and must be cleared): */
	MMU_RG_R = 64, MMU_RG_W = 128, MMU_RG_XU = 256, MMU_RG_XS = 512,
};
#define MMU_RG_TABLES (MMU_RG_R | MMU_RG_W | MMU_RG_XU | MMU_RG_XS)

/* The registers paging depends on, kept equal to the vCPU's by cpu/control.c through mmu_set_regs(). */
struct mmu_regs {
	uint64_t cr0, cr3, cr4, efer;
	uint64_t pdpte[4];    /* PAE paging without long mode: loaded by MOV CR3 (SDM vol. 3A 4.4.1) */
};

/*
 * Requests of other threads to a vCPU, and the vCPU's answer (sync.c). While `active` the owner may hold what it derived from the
 * tables, from p2m or from code: host addresses, table entries loaded into a register, decoded bytes. It serves requests between
 * instructions; while inactive (not in the engine, or waiting for something) it holds nothing, and serves before it goes on.
 */
#define MMU_REQUESTS 128
struct mmu_request {
	gfn_t gfn;
	uint32_t frames;
	uint16_t off, len;     /* bytes of code that changed, in each of the frames; len 0: drop write entries instead */
};
struct mmu_sync {
	uint32_t active;
	uint32_t asked, served;    /* tickets: a request is done when served has reached its ticket */
	uint32_t waiters, wake;    /* somebody sleeps on the futex `wake` until served, or active, changes */
	uint32_t lock;             /* of asked and what follows */
	uint32_t n;
	bool flush;                /* empty all tables */
	bool everything;           /* ... and drop all translations */
	struct mmu_request q[MMU_REQUESTS];
	void (*kick)(void *opaque);   /* any thread: has the owner call mmu_serve() soon; NULL: it has nobody to be told by */
	void *opaque;
	struct { uint64_t requests, waits, overflows, exclusive; } stats;   /* made by others; waits of the owner for others */
};

struct mmu {
	struct mem *mem;
	unsigned index;                /* among the machine's MMUs */
	const struct mem_code_ops *code_ops;   /* of the engine that translates, or NULL */
	void *code_opaque;
	struct mmu_context *cur;       /* never NULL */
	struct mmu_context ctx[MMU_CONTEXTS];
	unsigned nctx;                 /* usable ones: fewer if address space is short */
	uint64_t (*rmap)[2];           /* per guest frame: which write entries reach it (flat.c) */
	gfn_t max_gfn;
	struct mmu_regs regs;
	uint32_t gen;                  /* changes whenever any entry of `cur` may have been dropped or `cur` changes;
					* caches of derived facts (fetch cache) compare it */
	uint64_t use_clock;
	uint32_t born;                 /* sum over the contexts */
	const struct mmu_watches *watches;   /* NULL: no debugger watches anything */
	struct prof *prof;                   /* NULL: nobody profiles */
	struct { uint64_t walks, fills, flushes, region_flushes, evictions, sheds; } stats;
	struct mmu_sync sync;
};

enum mmu_access { MMU_READ = 0, MMU_WRITE = 1, MMU_FETCH = 2 };

/*
 * Guest addresses that a debugger watches (linear, as a processor's own breakpoint registers). While an MMU points at a list, no
 * flat entry exists for a page that holds a watched byte, so every access to such a page takes the slow path, where cpu/access.c
 * compares exactly. Whoever changes a list or the pointer does so while the vCPU stands still and calls mmu_flush_all() afterwards.
 */
#define MMU_MAX_WATCHES 64
#define MMU_WATCH_READ 1
#define MMU_WATCH_WRITE 2
struct mmu_watches {
	unsigned n;
	struct mmu_watch { gva_t addr; uint32_t len; uint8_t kinds; } w[MMU_MAX_WATCHES];   /* len >= 1; no wrapping around 2^64 */
};

/* Creates reservations for `contexts` contexts (address space only), at most MMU_CONTEXTS; fewer if it is short. 0 or -ENOMEM with the remedy logged. */
int mmu_create(struct mmu *mmu, struct mem *mem, unsigned contexts);
void mmu_destroy(struct mmu *mmu);

struct mmu_walk {
	gpa_t gpa;            /* of the byte at gva */
	uint8_t page_shift;   /* 12, 21, 22, 30; 32 = paging off */
	bool writable, user, nx, global, dirty;   /* effective rights over all levels */
};

/*
 * Walks the guest's page tables for an access at `gva` with privilege `user`, setting accessed and dirty bits as the
 * architecture says (atomically). Paging off: identity. Returns 0, or the #PF error code (with PF_P..PF_I, never 0: the
 * sign bit 1<<31 is set on every fault so that a not-present supervisor read, code 0, is distinguishable).
 * SDM vol. 3A 4.3-4.7. Reads page tables through p2m only; table addresses outside RAM read as all ones (reserved bits set).
 */
#define MMU_FAULT 0x80000000u
uint32_t mmu_walk(struct mmu *mmu, gva_t gva, enum mmu_access acc, bool user, struct mmu_walk *out);

/* Where does gva lead? For debuggers: no rights are checked and no accessed or dirty bit is set; out->dirty is what the leaf says. False if
 * it is not mapped or (in long mode) not canonical. Reads the vCPU's registers: its thread, or while it stands still. */
bool mmu_probe(const struct mmu *mmu, gva_t gva, struct mmu_walk *out);

/*
 * Slow path of a data access that stays within one page: walks, and if the page is memory fills the flat entry.
 * Results: *hva = host pointer of the byte, or NULL with *gpa set if the page is MMIO, ROM being written, or holds
 * translated code being written (*code true, *hva valid: the caller calls mem_code_write() before storing).
 * `user`: the access has user rights (CPL 3 and not an implicit supervisor access); `cpl3`: current CPL is 3 (nothing
 * supervisor-only may then be filled in the lower half). Returns 0 or MMU_FAULT | error code.
 */
struct mmu_target {
	void *hva;
	gpa_t gpa;
	bool code;
};
uint32_t mmu_resolve(struct mmu *mmu, gva_t gva, bool write, bool user, bool cpl3, struct mmu_target *out);

/* Sets / reads the translator's x entry for the page of gva; it is dropped together with the r/w entries of the page. */
void mmu_set_exec(struct mmu *mmu, gva_t gva, bool user, uint32_t value);

/* Removes every write entry, in every context of this MMU, that reaches the frame (reverse map with two slots per frame, full scan
 * as the fallback). */
void mmu_drop_writes(struct mmu *mmu, gfn_t gfn);

/* --- sync.c: between vCPUs ----------------------------------------------------------------------------------------- */

/* The engine is entered and left; around everything that may wait for anything. Nesting: mmu_pause() returns what it was. */
void mmu_enter(struct mmu *mmu);
void mmu_leave(struct mmu *mmu);
static inline bool mmu_pause(struct mmu *mmu)
{
	bool was = mmu->sync.active;

	if (was)
		mmu_leave(mmu);
	return was;
}
static inline void mmu_resume(struct mmu *mmu, bool was)
{
	if (was)
		mmu_enter(mmu);
}
/* Between two instructions, after a kick: does what others have asked for. */
void mmu_serve(struct mmu *mmu);
/* No other vCPU executes anything between these two; for accesses that no host instruction makes atomic. The caller is active and
 * holds nothing derived from memory at the begin. */
void mmu_exclusive_begin(struct mmu *mmu);
void mmu_exclusive_end(struct mmu *mmu);

/* TLB operations. Global entries survive only what the architecture says they may survive; emptying more is allowed. */
void mmu_invlpg(struct mmu *mmu, gva_t gva);                 /* current PCID + global translations of the page */
void mmu_invlpg_pcid(struct mmu *mmu, uint16_t pcid, gva_t gva);
void mmu_flush_pcid(struct mmu *mmu, uint16_t pcid);
void mmu_flush_all(struct mmu *mmu);                         /* all PCIDs, globals included */
void mmu_flush_nonglobal(struct mmu *mmu);

/* Takes new paging registers and does the flush each change demands: CR3 write (pcid switch, bit 63 = keep, passed apart
 * as `noflush`), CR0.PG/WP, CR4.PGE/PAE/PSE/PCIDE/SMEP, EFER.NXE/LMA. */
void mmu_set_regs(struct mmu *mmu, const struct mmu_regs *regs, bool noflush);

void mmu_enter_user_slow(struct mmu *mmu);
static inline void mmu_enter_user(struct mmu *mmu)
{
	if (unlikely(mmu->cur->lower_super))
		mmu_enter_user_slow(mmu);
}

static inline uint64_t mmu_vpn(gva_t gva)
{
	return (gva >> 12) & (BIT(36) - 1);
}

#endif
