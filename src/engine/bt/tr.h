/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The translation of one block in progress: shared by translate.c (blocks), operand.c (memory and registers), and reencode.c, ops.c,
 * sysops.c and string.c (instructions). Lives on the stack of bt_translate().
 *
 * Flags: `slot` says where the guest's arithmetic flags are at this point of the code: in the host register, or in the flag
 * slot because a check has clobbered the register. While nothing later reads them (live_before == 0) neither holds them.
 */
#ifndef ENGINE_BT_TR_H
#define ENGINE_BT_TR_H

#include "engine/bt/bt.h"

#define TR_MAX_COLD (BT_BLOCK_INSNS * 4)

/* Out-of-line code of a lookup (hint.c): the page is another than last time, or the bytes are not in one page. */
struct tr_cold_access {
	uint8_t *other[2]; /* the branches taken then, rel32, or NULL */
	uintptr_t back;    /* behind the lookup: r13 = host address */
	int32_t hint;      /* offset from RSP; 0 = none */
	uint32_t site;     /* where C is called if need be ... */
	uint32_t link;     /* ... or, of a span, where the translation without spans is entered: an index of cold_link, plus 1 */
	uint16_t size;
	uint8_t kind;
	bool interpret;    /* no lookup: `other` leads to the interpreter */
	bool early;        /* of a span: an absent entry is no fault yet */
};
struct tr_cold_link {
	uint8_t *jump;
	uint32_t link;
};

/* What a register or an address holds: the unknown value `root`, plus scale times the unknown value `index` (scale 0: none), plus off. */
struct tr_value {
	uint16_t root, index;
	uint8_t scale;
	int64_t off;
};
struct tr_values {
	struct tr_value reg[GPR_COUNT];
	uint16_t roots;    /* the next fresh one */
};

/* Guest bytes [base+lo, base+hi) that one lookup has found in one page (span.c). */
#define TR_SPANS 4
struct tr_span {
	bool active, write;
	bool early;        /* write, though the first access only reads */
	struct tr_value base; /* without off */
	int64_t lo, hi;
};

/* A loop that is one block, and the accesses in it whose pages are looked up once for many iterations (loop.c). */
#define TR_STREAMS 4
struct tr_stream {
	struct tr_span span;
	int32_t step;      /* bytes that its address moves in an iteration */
	bool still;        /* its root does not change, but its index may */
};
struct tr_loop {
	unsigned end;      /* the loop is insn[0..end), the last of which branches back; 0 = there is none */
	bool inside;       /* its unchecked form is being emitted */
	unsigned nstreams;
	struct tr_stream stream[TR_STREAMS];
	uint8_t counter;   /* guest register that counts the iterations ... */
	int32_t count;     /* ... by this much each; not 0 */
	uint8_t *enter;    /* the branch back of the ordinary form */
	uintptr_t ordinary; /* host address of its body */
};

struct tr {
	struct bt *bt;
	struct emit e;
	uint32_t block;
	enum bt_mode mode;
	gfn_t gfn;                           /* of the page */
	unsigned read_from, read_to;         /* offsets that mem_code_read() has been told of */
	unsigned n, i;                       /* instructions decoded; the one being emitted */
	bool open;                           /* the block falls through to insn_off[n] */
	bool crossing;                       /* the instruction there crosses the page or cannot be decoded */
	bool tail_known;                     /* the page behind this one has been executed, or is too far away to matter */
	uint32_t tail;                       /* page behind this one, if the only instruction reaches into it */
	uint8_t *guard;                      /* the branch taken if another page is behind this one now */
	uint32_t guard_site;
	bool slot;
	bool ended;                          /* an emitted instruction left the block unconditionally */
	uint32_t insn_start;                 /* host offset of the current instruction */
	uint32_t pending_next[8];            /* sites whose `next` is the end of the current instruction */
	unsigned npending;
	unsigned ncold, nlinks;
	uint8_t *dispatch;                   /* the branch taken where the jump table has nothing; NULL = no indirect exit */
	uint32_t dispatch_site;
	bool overflow;                       /* sites or links ran out */
	bool plain;                          /* without spans */
	struct tr_values values;             /* before the current instruction */
	struct tr_span span[TR_SPANS];
	unsigned next_span;
	int8_t held[2];                      /* which span's host address r13 and r14 hold between instructions, -1 = none */
	struct tr_loop loop;
	bool scratch_known;                  /* `held` is true after the current instruction */
	/* From here on nothing is zeroed for each block. */
	struct tr_cold_access cold[TR_MAX_COLD];
	struct tr_cold_link cold_link[BT_BLOCK_INSNS * 2 + 2];
	uint16_t live_after[BT_BLOCK_INSNS]; /* arithmetic flags read after instruction i before being written */
	uint16_t live_before[BT_BLOCK_INSNS];
	uint16_t insn_off[BT_BLOCK_INSNS + 1];
	uint8_t cls[BT_BLOCK_INSNS];         /* enum tr_class */
	struct insn insn[BT_BLOCK_INSNS];
	struct bt_decoded formless;          /* the last instruction decoded that had no form */
};

static inline const struct insn *tr_insn(const struct tr *t) { return &t->insn[t->i]; }
static inline uint32_t tr_here(const struct tr *t) { return (uint32_t)(t->e.w - t->bt->code_w); }
static inline bool tr_displaced(unsigned guest) { return guest >= R13; }
static inline int32_t tr_slot(unsigned guest) { return guest == R13 ? H_R13 : guest == R14 ? H_R14 : H_R15; }
/* Size of a stack slot and of an address in the mode being translated. */
static inline unsigned tr_word(enum bt_mode mode) { return mode == BT_U32 ? 4 : 8; }
static inline uint8_t tr_other_scratch(unsigned host) { return host == R13 ? R14 : R13; }
/* Host register of a guest register that is not displaced. */
static inline unsigned tr_host(unsigned guest) { return guest == RSP ? R15 : guest; }

/* operand.c */
/* r13 = linear address of the current instruction's memory operand; may use r14. False if the form is not handled. */
bool tr_address(struct tr *t);
/* r13 = host address of the `size` bytes at guest address r13, which lie in one page; loses r14. Saves live flags first if needed. */
void tr_lookup(struct tr *t, bool write, unsigned size);
/* Guest register to host register `dst` / from `src`. */
void tr_get(struct tr *t, unsigned dst, unsigned guest);
void tr_put(struct tr *t, unsigned guest, unsigned src);
/* Guest address `page base + off` to host register. */
void tr_page_address(struct tr *t, unsigned dst, int64_t off);
uint32_t tr_site(struct tr *t, unsigned flags, unsigned size);
/* The same for a span. Where it straddles two pages, or (early) there is no entry, the translation without spans goes on. */
void tr_lookup_span(struct tr *t, const struct tr_span *s);
/* Adds out-of-line code with a site; NULL if there is no room. */
struct tr_cold_access *tr_cold_add(struct tr *t, unsigned site_flags, unsigned site_size);
/* Out of line, what a lookup does when its hint is of no use. */
void tr_lookup_cold(struct tr *t, const struct tr_cold_access *c);
/* r13 = address of the current instruction's base, index and scale, plus disp; may use r14. */
void tr_sum(struct tr *t, int32_t disp);
/* The branch taken if the bytes from r13 on may lie in two pages; NULL: they never do. Loses r14. */
uint8_t *tr_in_page(struct tr *t, unsigned bytes);

/* span.c */
void tr_values_init(struct tr_values *v);
void tr_values_step(struct tr_values *v, const struct insn *in);
/* The current instruction's memory operand as host memory at *m (base r13 or r14, the other one is free), if a span serves
 * it. False if none does or pays; nothing has been emitted then. */
bool tr_span_operand(struct tr *t, bool write, unsigned size, struct emem *m);
/* The same for eight bytes at guest register + disp. */
bool tr_span_stack(struct tr *t, unsigned base_reg, int disp, bool write, struct emem *m);
void tr_spans_forget(struct tr *t);
void tr_held_forget(struct tr *t);

/* What an instruction that is going to be translated accesses through lookups of its own: at most an operand and a stack slot. Returns
 * how many. */
struct tr_access {
	struct tr_value at;
	unsigned size;
	bool write;
};
unsigned tr_accesses(const struct tr_values *v, const struct insn *in, unsigned insn_off, struct tr_access out[2]);
bool tr_same_base(const struct tr_value *a, const struct tr_value *b);
bool tr_in_span(const struct tr_span *s, const struct tr_access *a);
bool tr_span_widen(struct tr_span *s, const struct tr_access *a); /* to hold the access as well; false if it cannot */
/* The host register of the pointer of span k or (TR_SPANS + k) stream k, loaded if need be: r14 by preference, else r13. */
unsigned tr_pointer(struct tr *t, unsigned k);
enum { TR_ROOT_PAGE = GPR_COUNT /* base of the page being executed */, TR_ROOT_ZERO, TR_ROOT_FRESH };

/* loop.c */
void tr_loop_plan(struct tr *t);                      /* looks for a loop in the decoded block */
void tr_loop_head(struct tr *t);                      /* emits what comes before its body when it is entered from elsewhere */
bool tr_loop_back(struct tr *t, enum cond cc);        /* emits the current branch if it closes the ordinary loop */
void tr_loop_emit(struct tr *t);                      /* the unchecked form, behind the ordinary one */
/* The current instruction's memory operand, if it belongs to a stream of the loop being emitted. */
bool tr_loop_operand(struct tr *t, const struct tr_access *a, struct emem *m);

/* reencode.c: the current instruction with other registers and memory operand; -1 / NULL = as it is. */
struct tr_subst {
	int8_t rm, reg, opcode, vvvv;
	const struct emem *mem;
};
void tr_reencode(struct tr *t, const struct insn *in, const struct tr_subst *s);
/* Emits an instruction that only computes: registers, at most one memory operand. False if the form is not handled. */
bool tr_compute(struct tr *t);

/* string.c: string instructions in place. */
bool tr_string_handled(const struct insn *in);
bool tr_string(struct tr *t);

/* sysops.c: system instructions. */
bool tr_system_handled(const struct bt *bt, enum bt_mode mode, const struct insn *in);
bool tr_system(struct tr *t);

/* ops.c: pushes what is in H_TMP1. */
void tr_push_tmp1(struct tr *t);
/* ops.c: the current instruction, in the interpreter if its form is refused. */
void tr_emit_insn(struct tr *t);

/* classify.c */
/* How an instruction is translated: from TR_COMPUTE on it is. */
enum tr_class { TR_INTERP, TR_INTERP_END, TR_COMPUTE, TR_FLOW, TR_NOP };
enum tr_class tr_classify(const struct bt *bt, enum bt_mode mode, const struct insn *in);
/* Arithmetic flags that are written whatever the operands (a shift by CL may write none). */
uint16_t tr_flags_killed(const struct insn *in);
uint16_t tr_flags_used(const struct bt *bt, enum bt_mode mode, const struct insn *in);

/* decode.c: the instructions of the block at `off` of the page, and which flags are alive between them. */
void tr_decode(struct tr *t, const uint8_t *page, unsigned off, uint32_t tail);

/* translate.c: the first n instructions of the block; exits */
void tr_emit_insns(struct tr *t, unsigned n);
void tr_exit_direct(struct tr *t, int32_t target);   /* target relative to the page base */
void tr_exit_dispatch(struct tr *t, int32_t adjust); /* target address in r13; RSP has been moved by adjust */
void tr_jcc(struct tr *t, enum cond cc, int32_t target); /* CC_ALWAYS: code before it may lead around it */
/* The interpreter takes the current instruction if cc; nothing has been changed by then. */
void tr_interpret_if(struct tr *t, enum cond cc);
/* Adds the link of a jump, to be emitted later, that leaves before the current instruction for a translation without spans. */
uint32_t tr_link_plain(struct tr *t);
void tr_cold_link_jump(struct tr *t, uint32_t i, uint8_t *jump); /* jump belongs to cold_link[i] */
void tr_stub_call(struct tr *t, uint32_t arg, unsigned svc); /* leaves to C for good: arg is the site, link or block */
void tr_flags_to_slot(struct tr *t);                 /* loses r14 */
void tr_flags_rescue(struct tr *t);                  /* to the slot, if they are needed and about to be lost; may lose r14 */
void tr_flags_to_host(struct tr *t, unsigned scratch); /* loses scratch; NOREG: none is free */

#endif
