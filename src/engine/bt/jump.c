/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Indirect branches: a table per address space and mode that maps guest addresses to translated code, read by translated code:
 *
 *     mov   r14d, r13d                        r13 = target
 *     and   r14d, ffeh                        its offset in the page chooses the entry
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
#include <string.h>
#include <sys/mman.h>

#include "engine/bt/bt.h"

#define TABLES (MMU_CONTEXTS * 2)
#define BYTES (TABLES * BT_JUMPS * sizeof(struct bt_jump))

static struct bt_jump *table(const struct bt *bt, unsigned context, bool super)
{
	return bt->jump + (context * 2 + super) * BT_JUMPS;
}

static unsigned entry_of(unsigned off)
{
	return off / 2 % BT_JUMPS;
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
			table(bt, c, super)->rip = 2;
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
		struct bt_jump *j = &table(bt, c, super)[entry_of(b->off)];

		if (j->code == bt->code_x + b->entry_ind)
			j->rip = entry_of(b->off) ? 0 : 2;
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
	struct bt_jump *j = table(bt, c, super);

	if (bt->jump_gen[c][super] != mmu->cur->x_gen[super]) {
		memset(j, 0, BT_JUMPS * sizeof(*j));
		j->rip = 2;
		bt->jump_gen[c][super] = mmu->cur->x_gen[super];
	}
	return (uint64_t)(uintptr_t)j / 8;
}

struct bt_jump *bt_jump_entry(struct bt *bt, bool super, uint64_t rip)
{
	struct bt_jump *table = (struct bt_jump *)(uintptr_t)(bt_jump_table(bt, super) * 8);

	return &table[rip / 2 % BT_JUMPS];
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
	emit_load(e, R14, EMEM(RSP, H_RIP));
	emit_store(e, EMEMX(NOREG, R13, 8, 0), R14);
	emit_op_reg(e, true, 0x87, R13, R14);  /* xchg: r13 = target again */
	emit_op_mem(e, false, 0xff, 4, EMEMX(NOREG, R14, 8, 8)); /* jmp [r14*8+8] */
	emit_patch(e, absent, emit_here(e));
	emit_jmp(e, bt->code_x + bt->stub[BT_SVC_MISS]);
	emit_patch(e, stray, emit_here(e));
	emit_jmp(e, bt->code_x + bt->stub[BT_SVC_STRAY]);
}
