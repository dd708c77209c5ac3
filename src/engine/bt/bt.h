/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Private to engine/bt: the translator's data. See docs/design/bt.md for the conventions of translated code.
 *
 * Nouns: a *page* is one guest frame translated in one mode; a *block* is a straight run of guest instructions inside a page,
 * keyed by (frame, mode, offset) and position independent; a *site* is a place in a block that may leave to C and come back
 * (a memory access, an interpreted instruction); a *link* is a direct branch out of a block, patched once its target exists.
 *
 * The cache is filled part by part, and the oldest part dropped when all are full (part.c). Indices, not pointers: 0 = none.
 * Owner: the vCPU's thread.
 */
#ifndef ENGINE_BT_BT_H
#define ENGINE_BT_BT_H

#include "cpu/cpu.h"
#include "engine/bt/emit.h"
#include "engine/bt/layout.h"
#include "engine/engine.h"
#include "x86/form.h"
#include "x86/insn.h"

/* What a translation is specialised on: supervisor or user 64-bit code, user 32-bit code (compatibility mode, flat segments). */
enum bt_mode { BT_K64, BT_U64, BT_U32 };
static inline enum insn_mode bt_insn_mode(enum bt_mode mode) { return mode == BT_U32 ? INSN_MODE_32 : INSN_MODE_64; }

/* The cache consists of parts that are filled and dropped in turn. Each has its share of the code that runs, of the code that is left for
 * rarely (apart, so that the former lies close together), and of every array. */
#ifdef TORTURE_TINYCACHE
#define BT_PARTS 4
#define BT_PART_HOT(vcpus) ((void)(vcpus), 36u << 10) /* one block of the largest size and 3 KiB */
#define BT_PART_COLD(vcpus) ((void)(vcpus), 36u << 10)
#else
#define BT_PARTS 8
#define BT_PART_HOT(vcpus) ((vcpus) <= 8 ? 12u << 20 : 6u << 20)
#define BT_PART_COLD(vcpus) ((vcpus) <= 8 ? 9u << 20 : 9u << 19)
#endif
#define BT_PART_BLOCKS (64u << 10)
#define BT_PART_SITES (384u << 10)
#define BT_PART_LINKS (256u << 10)
#define BT_MAX_BLOCKS (1 + BT_PARTS * BT_PART_BLOCKS)
#define BT_MAX_SITES (1 + BT_PARTS * BT_PART_SITES)
#define BT_MAX_LINKS (1 + BT_PARTS * BT_PART_LINKS)
#define BT_MAX_PAGES 16384
#define BT_HASH_SIZE (256u << 10)
/* Where code caches are mapped: below where programs without a choice of address, their libraries and their mappings begin, above a
 * sanitizer's shadow. */
#define BT_CODE_FROM 0x100100000000u
#define BT_CODE_TO 0x200000000000u
/* The stubs, before the parts. */
#define BT_STUBS (16u << 10)
#define BT_BLOCK_INSNS 48
/* Bytes of host code a block may need at most; less left = the part is full. */
#define BT_BLOCK_BYTES (32u << 10)
#define BT_MAX_ACCESS 64               /* bytes of one memory operand */

struct bt_page {
	gfn_t gfn;
	uint32_t first_block; /* list through bt_block.next_in_page */
	uint32_t first_tail;  /* blocks of the page before that end in this one, through bt_block.next_tail */
	uint32_t hash_next;
	uint32_t cut;         /* the generation in which a part's blocks were last taken off these lists */
	uint64_t starts[4];   /* a bit for each 16 bytes: a block may begin there */
	uint8_t mode;
	bool plain;           /* translations without spans, entered where a span straddles two guest pages */
};

struct bt_block {
	uint32_t entry_ind;   /* offsets into the code cache: entered with H_RIP set ... */
	uint32_t entry_chk;   /* ... from a direct backward branch (tests v->event) ... */
	uint32_t entry_plain; /* ... from any other direct branch */
	uint32_t cold, cold_end; /* its out-of-line code, in the cold part */
	uint32_t host_end;
	uint32_t page;
	uint32_t next_in_page;
	uint32_t hash_next;
	uint32_t first_site, nsites;
	uint32_t incoming;    /* links that jump here, through bt_link.next_in */
	uint16_t off, end;    /* guest bytes [off, end) of the page */
	uint32_t tail;        /* page in which its only instruction, which crosses into it, ends; 0 = none */
	uint32_t next_tail;
	uint16_t tail_end;    /* ... where in it */
	uint16_t peek, peek_end; /* bytes of a branch target that the translation relies on (flags dead there) */
	uint16_t ninsn;
	bool flags_in;        /* reads arithmetic flags before writing them */
	bool dead;
	bool pure;            /* the first instruction is translated, not interpreted */
};

enum { SITE_SLOT = 1 /* guest flags are in the flag slot */, SITE_WRITE = 2, SITE_END = 4 /* always re-dispatch afterwards */,
       SITE_SYSRET = 8 /* SYSRET, not SYSCALL */, SITE_CROSSING = 16 /* an instruction that ends in a page not executed yet */,
       SITE_IRET = 32 /* likewise */, SITE_FAULT = 64 /* where the access faults, the instruction does, and no otherwise */,
       SITE_STACK = 128 /* a lookup of the stack */ };
struct bt_site {
	uint32_t start;       /* host offsets: the instruction's lookup (where a filled access retries) */
	uint32_t next;        /* ... code of the next guest instruction */
	uint32_t block;
	uint16_t off;         /* page offset of the guest instruction */
	uint8_t len;
	uint8_t flags;
	uint8_t size;         /* of the access */
	uint8_t form;         /* of a lookup: enum bt_form ... */
	int32_t hint;         /* ... and its hint, offset from RSP */
	int32_t adjust;       /* an indirect branch at its dispatch: what it has added to RSP by then */
};

#define BT_FIRST_IN BIT(31)
struct bt_link {
	uint32_t patch;       /* host offset of the rel32 */
	uint32_t stub;        /* host offset of the cold code that calls bt_stub_link */
	int32_t target;       /* guest address relative to the page base of the source */
	uint32_t next_in;
	uint32_t prev_in;     /* the link before it, or BT_FIRST_IN and the block; 0 = not patched */
	uint32_t block;       /* source */
	bool slot;            /* guest flags are in the flag slot on this edge */
	bool backward;
	bool plain;           /* to a translation without spans */
};

/* What instructions of one form (x86/form.h) are, found by that and the mode, as long as the facts of classify.c stand, whose change is a
 * flush. */
#define BT_DECODED_BITS 14
#define BT_DECODED (1u << BT_DECODED_BITS)
struct bt_decoded {
	uint64_t key;          /* the form's, the mode in its upper bits; 0 = empty */
	uint16_t used, killed; /* arithmetic flags */
	uint8_t cls;           /* enum tr_class */
	bool ends;             /* nothing behind it belongs to its block */
	struct insn in;        /* the first that was met: others have other displacements and immediates */
} __attribute__((aligned(64)));

/* Where an indirect branch to rip goes (jump.c). Read by translated code, found by bits 1..13 of rip. */
struct bt_jump {
	uint64_t rip;
	uint64_t code;        /* host address */
};
#define BT_JUMPS 8192

/* Hints (hint.c): the page that a lookup met last, for lookups of one kind: by kernel or user code, for reading or writing. They are in the
 * vcpu's engine area; a hint and its tally have the same index. */
struct bt_hint {
	uint64_t page;        /* guest address */
	uint64_t host;        /* ... and where it is */
};
struct bt_tally {
	_Alignas(sizeof(struct bt_hint)) int32_t left; /* other pages that may still be met before C has a look; then negative */
	uint32_t hits;        /* counted by lookups on trial only */
};
#define BT_HINTS 8192
#define BT_STACK_HINTS 8 /* the first of them, shared by lookups of the stack */
#define BT_HINT_GROUP 64 /* hints that are forgotten together */
enum { BT_HINT_WRITE = 1, BT_HINT_USER = 2, BT_HINT_KINDS = 4 };
struct bt_hints {
	struct bt_hint hint[BT_HINT_KINDS][BT_HINTS];
	uint8_t apart[2048];  /* a hint and its tally have different page offsets */
	struct bt_tally tally[BT_HINT_KINDS][BT_HINTS];
	uint8_t used[BT_HINT_KINDS][BT_HINTS / BT_HINT_GROUP]; /* some hints of the group are not `none` */
};
/* How an instruction's lookups are translated. */
enum bt_form {
	BT_FORM_HINT,   /* until many pages have been met. Those of the stack share their hints */
	BT_FORM_TRIAL,  /* counts both outcomes */
	BT_FORM_KEEP,   /* with a hint of its own */
	BT_FORM_TABLE,  /* without hint */
	BT_FORM_SHARE   /* stack: with the shared one */
};
#define BT_FORMS (64u << 10)

struct bt {
	struct vcpu *v;
	uint8_t *code_w;      /* code cache: writable and executable alias */
	uintptr_t code_x;
	uint32_t hot_size, code_size; /* of the stubs and what runs, and with what is out of line */
	uint32_t stubs_end;
	unsigned part;        /* the one being filled ... */
	uint32_t code_used, cold_used, nblocks, nsites, nlinks; /* ... how far: the next free byte or entry ... */
	struct bt_ends { uint32_t code, cold, blocks, sites, links; } end, used[BT_PARTS]; /* ... up to where; how far the others are, 0 = not at all */
	uint32_t *etab;       /* per page 4096 entries: code offset by page offset, 0 = miss */
	void *jump;               /* tables of BT_JUMPS entries for each context and, within that, user and supervisor mode */
	uint32_t jump_gen[MMU_CONTEXTS][2]; /* the x_gen at which a table was last emptied */
	uint8_t user_mode[MMU_CONTEXTS]; /* which user mode the context's x_user entries belong to */
	struct bt_page *page;
	struct bt_block *block;
	struct bt_site *site;
	struct bt_link *link;
	uint32_t npages;
	uint32_t *block_hash, *page_hash;
	struct bt_decoded *decoded; /* BT_DECODED of them */
	uint32_t generation;  /* changes whenever blocks are dropped for want of room, or all of them */
	uint32_t stub[BT_SVC_COUNT];
	uint32_t jump_miss;    /* thunk of an indirect branch that found nothing in the jump table */
	uint32_t lookup[BT_HINT_KINDS][BT_MAX_ACCESS + 1]; /* by kind and access size: the thunk that looks a page up and remembers it ... */
	uint32_t table[BT_HINT_KINDS][BT_MAX_ACCESS + 1];  /* ... that only looks it up */
	uint8_t *form;         /* enum bt_form of instructions, by a hash of their guest-physical address */
	uint32_t next_hint[BT_HINT_KINDS];
	uint32_t hint_gen;     /* v->mmu.gen when that was last looked at ... */
	uint8_t hint_stale;    /* ... and has it changed since hints of kernel (bit 0) and user code (bit 1) were forgotten? */
	struct {               /* bytes that the host has been asked for, from the beginning of each */
		size_t code, cold, block, site, link;
	} ready;
	bool fpu_ok, avx512_ok, tsd, fsgsbase; /* facts translations are specialised on */
	bool single;          /* lockstep: leave after every block; blocks end before interpreted instructions */
	enum exit_reason exit;
	uint32_t gen;         /* v->mmu.gen when a service began: what the running block knows of the tables */
	struct bt_perf_map *perf_map;   /* NULL: nobody wants one */
	bool leave;           /* bt_service must return to the run loop with `exit` */
	struct {
		uint64_t translated, blocks, trials, tables, forgets, flushes, parts, jump_flushes, links, misses, slow_fill, slow_interp, interp, signals, smc, events, loops;
	} stats;
};

static inline struct bt *bt_of(const struct vcpu *v) { return engine_slots(v)->bt; }

/* cache.c: memory, pages, blocks, lookup, flush, invalidation */
int bt_cache_create(struct bt *bt);
void bt_cache_destroy(struct bt *bt);
void bt_flush(struct bt *bt);
void bt_block_unlist(struct bt *bt, uint32_t first, uint32_t end, uint32_t block); /* with all of [first, end), the oldest blocks of all */
void bt_get_ready(struct bt *bt);                       /* before a translation: memory for it, without faults of the host */
void bt_block_fetch(const struct bt *bt, uint32_t page, unsigned off); /* likewise: has the caches fetch what it will write */
uint32_t bt_page_get(struct bt *bt, gfn_t gfn, enum bt_mode mode, bool plain); /* finds or adds; 0 = full */
uint32_t bt_block_find(const struct bt *bt, uint32_t page, unsigned off);
void bt_block_add(struct bt *bt, uint32_t block);
void bt_block_publish(struct bt *bt, uint32_t block);                       /* enters it in the dispatch table */
void bt_block_drop(struct bt *bt, uint32_t block);
bool bt_code_write(void *opaque, gfn_t gfn, unsigned off, unsigned len);    /* mem_code_ops.write */
uint32_t bt_block_at(const struct bt *bt, uint32_t host);                   /* by host code offset; 0 = none */
uint32_t bt_site_find(const struct bt *bt, uint32_t host);                  /* likewise */
static inline uint32_t bt_etab_off(uint32_t page) { return page * 4096 * 4; }

/* part.c: which part is filled, and dropping the oldest. */
void bt_part_first(struct bt *bt);                      /* all are empty: begins with the first */
void bt_part_next(struct bt *bt);                       /* the current one is full: drops the next and goes on there */
bool bt_part_room(const struct bt *bt);                 /* for one more block */
unsigned bt_part_of(const struct bt *bt, uint32_t host); /* of a code offset behind the stubs */
void bt_part_bytes(const struct bt *bt, uint64_t *hot, uint64_t *cold); /* of code in use */

/* jump.c: the jump tables of indirect branches. */
int bt_jump_create(struct bt *bt);
void bt_jump_destroy(struct bt *bt);
void bt_jump_forget(struct bt *bt, uint32_t block);    /* no indirect branch enters the block any more */
void bt_jump_forget_all(struct bt *bt);
uint64_t bt_jump_table(struct bt *bt, bool super);     /* of the current context, emptied if need be: value of H_JUMP */
uint64_t bt_jump_find(struct bt *bt, bool super, uint64_t rip);   /* host address of the code at rip if that table has it, else 0 */
void bt_jump_fill(struct bt *bt, bool super, uint64_t rip, uint64_t code);
void bt_jump_thunk(struct bt *bt, struct emit *e);     /* writes the code behind a miss; once, after the tables are mapped */

/* hint.c */
/* The branch taken if `bytes` bytes from r13 on lie in two pages; only the low bits of r13 matter. Loses r14. */
uint8_t *bt_emit_crosses(struct emit *e, unsigned bytes);
/* entry = the flat table's entry of the page of `pointer`, both host registers; returns the branch taken if it is absent. pushed: bytes on the
 * host's stack. */
uint8_t *bt_emit_entry(struct emit *e, unsigned pointer, unsigned entry, bool write, int32_t pushed);
void bt_hint_thunks(struct bt *bt, struct emit *e);
void bt_hints_check(struct bt *bt, bool user);         /* before translated code runs: forgets what the tables no longer hold */
/* Gives the site of a lookup a hint of that kind, `none` until its first miss. stack: may be that of the stack for code of its page.
 * Returns the offset from RSP; the tally is BT_TALLY further. */
int32_t bt_hint_give(struct bt *bt, unsigned kind, enum bt_form form, uint32_t site, bool stack);
#define BT_TALLY ((int32_t)offsetof(struct bt_hints, tally))
enum bt_form bt_form(const struct bt *bt, gfn_t gfn, unsigned off);
void bt_hint_review(struct bt *bt);                    /* a site's hint has been of little use (H_REVIEW): may drop its block */
void bt_hint_review_cancel(struct bt *bt);             /* before sites are used anew */

/* translate.c: translates one block of `page` at `off`; returns its index or 0 if the cache is full. tail: the page that is executed behind it
 * where v->rip is, or 0 if that is not known. The frames of both have been marked (mem_code_mark). */
uint32_t bt_translate(struct bt *bt, uint32_t page, unsigned off, uint32_t tail);

/* link.c: patches link l to jump to block b. False if there is no room for the bridge that it needs. */
bool bt_link_patch(struct bt *bt, uint32_t l, uint32_t b, bool cross_page);
void bt_unlink_incoming(struct bt *bt, uint32_t b);
void bt_link_forget(struct bt *bt, uint32_t l);        /* its block has been dropped: no block lists it any more */

/* run.c */
uint64_t bt_service(struct vcpu *v, unsigned reason);
uint32_t bt_block_here(struct bt *bt);                 /* block at v->rip, translated if need be, or 0 */
void bt_run_block(struct bt *bt, uint32_t block);      /* lockstep: runs one block of bt->single */

/* profile.c: engine_ops.spot, .spots and .perf_map; a service and an interpreted instruction that are booked; a block for perf's map. */
bool bt_spot(const struct vcpu *v, uintptr_t pc, struct engine_spot *out);
extern const char *const bt_spots[];
int bt_perf_map(struct vcpu *v, int fd);
uint64_t bt_service_profiled(struct vcpu *v, unsigned reason, uint64_t (*service)(struct vcpu *v, unsigned reason));
int bt_step_profiled(struct vcpu *v);
void bt_perf_map_add(struct bt *bt, uint32_t block);   /* at v->rip */

/* signal.c: host faults inside translated code become guest exceptions. */
int bt_signal_setup(void);

/* stubs.S */
void bt_enter(struct vcpu *v, uintptr_t code);
void bt_stub_miss(void);
void bt_stub_slow(void);
void bt_stub_interp(void);
void bt_stub_link(void);
void bt_stub_event_host(void);
void bt_stub_event_slot(void);
void bt_stub_syscall(void);
void bt_stub_stray(void);
void bt_stubs_end(void);   /* no function: where those end */

/* link.c: compares the x entry of the page `page_delta` bytes from the one being executed; loses r13, r14 and the host's flags. */
void bt_emit_compare_page(struct emit *e, uint32_t expect, int32_t page_delta);
/* ... moves the guest's arithmetic flags between the host register and the flag slot. */
void bt_emit_flags_save(struct emit *e, unsigned scratch);    /* scratch: a host register to lose */
void bt_emit_flags_restore(struct emit *e, unsigned scratch); /* ... NOREG: none is free */
/* cache.c: a cursor at the end of the used cache, and of its code that is out of line. */
struct emit bt_emit_at_end(struct bt *bt);
struct emit bt_emit_cold(struct bt *bt);

#endif
