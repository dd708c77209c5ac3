/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The parts of the code cache: filled one after the other, and dropped in the same order when all are full, so that what is dropped is
 * what has been translated longest ago, and what is translated again is a part and not everything.
 *
 * Invariants
 *  - A part is dropped while every older one is empty. So the blocks to be dropped are the end of every list (cache.c), no link of an
 *    older block leads to a bridge in it (link.c), and nothing but links and blocks of the part itself and newer ones is touched.
 *  - Whoever held a block, a site, a link or a code address from before compares `generation`, as after a flush.
 *  - Pages are not dropped: an x entry stays what it is, and finds an empty entry in etab.
 */
#include "engine/bt/bt.h"

static void begin(struct bt *bt, unsigned part)
{
	uint32_t hot = BT_PART_HOT(bt->v->count), cold = BT_PART_COLD(bt->v->count);

	bt->part = part;
	bt->code_used = BT_STUBS + part * hot;
	bt->cold_used = bt->hot_size + part * cold;
	bt->nblocks = 1 + part * BT_PART_BLOCKS;
	bt->nsites = 1 + part * BT_PART_SITES;
	bt->nlinks = 1 + part * BT_PART_LINKS;
	bt->end = (struct bt_ends){.code = bt->code_used + hot,
				   .cold = bt->cold_used + cold,
				   .blocks = bt->nblocks + BT_PART_BLOCKS,
				   .sites = bt->nsites + BT_PART_SITES,
				   .links = bt->nlinks + BT_PART_LINKS};
	bt->used[part] = (struct bt_ends){0};
}

void bt_part_first(struct bt *bt)
{
	for (unsigned i = 0; i < BT_PARTS; i++)
		bt->used[i] = (struct bt_ends){0};
	begin(bt, 0);
}

static void drop(struct bt *bt, unsigned part)
{
	uint32_t first = 1 + part * BT_PART_BLOCKS, end = bt->used[part].blocks;

	bt->generation++;
	for (uint32_t b = first; b < end; b++)
		if (!bt->block[b].dead)
			bt_block_unlist(bt, first, end, b);
	for (uint32_t l = 1 + part * BT_PART_LINKS; l < bt->used[part].links; l++)
		bt_link_forget(bt, l);
	bt_jump_forget_all(bt);
	bt_hint_review_cancel(bt);
	bt->stats.parts++;
}

void bt_part_next(struct bt *bt)
{
	unsigned next = (bt->part + 1) % BT_PARTS;

	bt->used[bt->part] = (struct bt_ends){bt->code_used, bt->cold_used, bt->nblocks, bt->nsites, bt->nlinks};
	if (bt->used[next].blocks)
		drop(bt, next);
	begin(bt, next);
}

bool bt_part_room(const struct bt *bt)
{
	return bt->nblocks < bt->end.blocks && bt->end.code - bt->code_used >= BT_BLOCK_BYTES + 512 &&
	       bt->end.cold - bt->cold_used >= BT_BLOCK_BYTES + EMIT_SLACK;
}

unsigned bt_part_of(const struct bt *bt, uint32_t host)
{
	return host < bt->hot_size ? (host - BT_STUBS) / BT_PART_HOT(bt->v->count) : (host - bt->hot_size) / BT_PART_COLD(bt->v->count);
}

void bt_part_bytes(const struct bt *bt, uint64_t *hot, uint64_t *cold)
{
	*hot = *cold = 0;
	for (unsigned i = 0; i < BT_PARTS; i++) {
		bool current = i == bt->part;

		if (!current && !bt->used[i].blocks)
			continue;
		*hot += (current ? bt->code_used : bt->used[i].code) - (BT_STUBS + i * BT_PART_HOT(bt->v->count));
		*cold += (current ? bt->cold_used : bt->used[i].cold) - (bt->hot_size + i * BT_PART_COLD(bt->v->count));
	}
}
