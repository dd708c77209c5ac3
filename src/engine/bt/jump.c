/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Indirect branches: a table per address space and mode that maps guest addresses to translated code, read by translated code:
 *
 *     mov   r14d, r13d                        r13 = target
 *     and   r14d, 3ffeh                       its low bits choose the entry
 *     add   r14, [rsp+H_JUMP]
 *     cmp   r13, [r14*8] ; jne out of line
 *     jmp   [r14*8+8]
 *
 * Behind a miss (bt_jump_thunk) the x table of the address space gives the code page and etab the code; the entry is overwritten.
 * Where these have nothing, C translates.
 *
 * Invariants
 *  - Whatever is in a table would be found by way of the x table and etab as well. An entry of the x table that is dropped
 *    changes x_gen, and a table older than that is emptied before translated code runs again; a block that dies takes its
 *    entries along (bt_jump_forget).
 *  - A page's modes do not mix: user and supervisor code have tables of their own, as they have x tables.
 *  - Empty entries match no address: their rip is 0, which entry 0 alone could be asked for, and that one holds 2.
 */
#include <errno.h>
#include <stddef.h>
#include <string.h>
#include <sys/mman.h>

#include "engine/bt/bt.h"

/* Most tables have been given few entries when they are emptied: which, the thunk writes down. */
#define NOTED 1024
struct jump_table {
	struct bt_jump entry[BT_JUMPS];
	uint64_t noted;         /* since it was emptied; of more than NOTED the first are overwritten */
	uint64_t note[NOTED];   /* address of the entry / 8 */
};
#define NOTES(member) ((int32_t)offsetof(struct jump_table, member))

#define TABLES (MMU_CONTEXTS * 2)
#define BYTES (TABLES * sizeof(struct jump_table))

static struct jump_table *table(const struct bt *bt, unsigned context, bool super)
{
	return (struct jump_table *)bt->jump + context * 2 + super;
}

/* Entries for addresses of one page offset are so far apart; the first is at half the offset. */
#define SAME_OFFSET (PAGE_SIZE / 2)

static void empty(struct jump_table *t)
{
	if (t->noted > NOTED)
		memset(t->entry, 0, sizeof(t->entry));
	else
		for (uint64_t i = 0; i < t->noted; i++)
			((struct bt_jump *)(uintptr_t)(t->note[i] * 8))->rip = 0;
	t->noted = 0;
	t->entry[0].rip = 2;
}

int bt_jump_create(struct bt *bt)
{
	bt->jump = mmap(NULL, BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (bt->jump == MAP_FAILED) {
		bt->jump = NULL;
		return -ENOMEM;
	}
	for (unsigned c = 0; c < MMU_CONTEXTS; c++)
		for (unsigned super = 0; super < 2; super++)
			table(bt, c, super)->entry[0].rip = 2;
	return 0;
}

void bt_jump_destroy(struct bt *bt)
{
	if (bt->jump)
		munmap(bt->jump, BYTES);
}

void bt_jump_forget(struct bt *bt, uint32_t block)
{
	const struct bt_block *b = &bt->block[block];
	bool super = bt->page[b->page].mode == BT_K64;

	for (unsigned c = 0; c < MMU_CONTEXTS; c++) {
		for (unsigned i = b->off / 2; i < BT_JUMPS; i += SAME_OFFSET) {
			struct bt_jump *j = &table(bt, c, super)->entry[i];

			if (j->code == bt->code_x + b->entry_ind)
				j->rip = i ? 0 : 2;
		}
	}
}

void bt_jump_forget_all(struct bt *bt)
{
	for (unsigned c = 0; c < MMU_CONTEXTS; c++)
		for (unsigned super = 0; super < 2; super++)
			bt->jump_gen[c][super] = bt->v->mmu.ctx[c].x_gen[super] - 1;
}

uint64_t bt_jump_table(struct bt *bt, bool super)
{
	const struct mmu *mmu = &bt->v->mmu;
	unsigned c = (unsigned)(mmu->cur - mmu->ctx);
	struct jump_table *t = table(bt, c, super);

	if (bt->jump_gen[c][super] != mmu->cur->x_gen[super]) {
		empty(t);
		bt->stats.jump_flushes++;
		bt->jump_gen[c][super] = mmu->cur->x_gen[super];
	}
	return (uint64_t)(uintptr_t)t / 8;
}

static struct bt_jump *entry_of(struct bt *bt, bool super, uint64_t rip)
{
	struct bt_jump *first = (struct bt_jump *)(uintptr_t)(bt_jump_table(bt, super) * 8);

	return &first[rip / 2 % BT_JUMPS];
}

uint64_t bt_jump_find(struct bt *bt, bool super, uint64_t rip)
{
	const struct bt_jump *j = entry_of(bt, super, rip);

	return j->rip == rip ? j->code : 0;
}

void bt_jump_fill(struct bt *bt, bool super, uint64_t rip, uint64_t code)
{
	struct bt_jump *j = entry_of(bt, super, rip);
	struct jump_table *t = table(bt, (unsigned)(bt->v->mmu.cur - bt->v->mmu.ctx), super);

	*j = (struct bt_jump){.rip = rip, .code = code};
	t->note[t->noted++ % NOTED] = (uint64_t)(uintptr_t)j / 8;
}

/* Notes that the entry at H_TMP0 is filled. */
static void note(struct emit *e)
{
	emit_load(e, R14, EMEM(RSP, H_JUMP));
	emit_load(e, R13, EMEMX(NOREG, R14, 8, NOTES(noted)));
	emit_op_mem(e, true, 0xff, 0, EMEMX(NOREG, R14, 8, NOTES(noted))); /* inc qword */
	emit_and_imm32(e, R13, NOTED - 1);
	emit_lea(e, R13, EMEMX(R13, R14, 1, 0));
	emit_load(e, R14, EMEM(RSP, H_TMP0));
	emit_store(e, EMEMX(NOREG, R13, 8, NOTES(note)), R14);
}

/* r13 = target, r14 = address of the entry / 8, H_SITE = the branch, flags in the slot. */
void bt_jump_thunk(struct bt *bt, struct emit *e)
{
	uint8_t *stray, *absent;

	bt->jump_miss = (uint32_t)(e->w - bt->code_w);
	emit_store(e, EMEM(RSP, H_RIP), R13);
	emit_store(e, EMEM(RSP, H_TMP0), R14);
	emit_mov(e, R14, R13);
	emit_shift(e, 4, R14, 16);             /* shl, sar r14, 16 */
	emit_shift(e, 7, R14, 16);
	emit_op_reg(e, true, 0x39, R13, R14);  /* cmp r14, r13 */
	stray = emit_jcc(e, CC_NE, emit_here(e));
	emit_pext(e, R13, R13, EMEM(RSP, H_XMASK));
	emit_load(e, R14, EMEM(RSP, H_XB));
	emit_load32(e, R14, EMEMX(R14, R13, 4, 0));
	emit_load32(e, R13, EMEM(RSP, H_RIP));
	emit_and_imm32(e, R13, PAGE_MASK);
	emit_lea(e, R14, EMEMX(R14, R13, 4, 0));
	emit_mov_imm(e, R13, (uintptr_t)bt->etab);
	emit_load32(e, R14, EMEMX(R14, R13, 1, 0));
	emit_op_reg(e, false, 0x85, R14, R14); /* test r14d, r14d */
	absent = emit_jcc(e, CC_E, emit_here(e));
	emit_mov_imm(e, R13, bt->code_x);
	emit_lea(e, R14, EMEMX(R14, R13, 1, 0));
	emit_load(e, R13, EMEM(RSP, H_TMP0));
	emit_store(e, EMEMX(NOREG, R13, 8, 8), R14);
	note(e);
	emit_load(e, R13, EMEM(RSP, H_TMP0));
	emit_load(e, R14, EMEM(RSP, H_RIP));
	emit_store(e, EMEMX(NOREG, R13, 8, 0), R14);
	emit_op_reg(e, true, 0x87, R13, R14);  /* xchg: r13 = target again */
	emit_op_mem(e, false, 0xff, 4, EMEMX(NOREG, R14, 8, 8)); /* jmp [r14*8+8] */
	emit_patch(e, absent, emit_here(e));
	emit_jmp(e, bt->code_x + bt->stub[BT_SVC_MISS]);
	emit_patch(e, stray, emit_here(e));
	emit_jmp(e, bt->code_x + bt->stub[BT_SVC_STRAY]);
}
