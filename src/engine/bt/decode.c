/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The instructions of a block: up to the first unconditional branch, the first that ends it in the interpreter, or the page's end; and
 * where the arithmetic flags are dead.
 *
 * Invariant: whatever bytes a block depends on lie in [off, end) or [peek, peek_end) of its page, or at the beginning of its tail.
 */
#include <Zydis/Zydis.h>

#include "engine/bt/tr.h"

/* How far to look for the death of the flags behind a direct branch. */
#define PEEK_INSNS 6

static bool ends_block(enum tr_class cls, const struct insn *in)
{
	switch (cls) {
	case TR_INTERP_END:
		return true;
	case TR_FLOW:
		return in->mnemonic == ZYDIS_MNEMONIC_JMP || in->mnemonic == ZYDIS_MNEMONIC_CALL ||
		       in->mnemonic == ZYDIS_MNEMONIC_RET || in->mnemonic == ZYDIS_MNEMONIC_SYSCALL ||
		       in->mnemonic == ZYDIS_MNEMONIC_SYSRET || in->mnemonic == ZYDIS_MNEMONIC_IRETQ;
	default:
		return false;
	}
}

/* The bytes of an instruction, copied once: other vCPUs may be writing to them. */
struct bytes {
	uint8_t b[16];
	unsigned avail;
	bool has_form;
	struct insn_form form;
};

/* That they are read is announced first, to those who store to them. */
static void read_bytes(struct tr *t, const uint8_t *page, unsigned off, struct bytes *c)
{
	c->avail = PAGE_SIZE - off < INSN_MAX_LEN ? (unsigned)(PAGE_SIZE - off) : INSN_MAX_LEN;
	if (off < t->read_from || off + c->avail > t->read_to) {
		t->read_from = off;
		t->read_to = off + 4 * INSN_MAX_LEN < PAGE_SIZE ? off + 4 * INSN_MAX_LEN : (unsigned)PAGE_SIZE;
		mem_code_read(t->bt->v->mem, t->gfn, off, t->read_to - off);
	}
	if (off <= PAGE_SIZE - sizeof(c->b))
		__builtin_memcpy(c->b, page + off, sizeof(c->b));
	else
		__builtin_memcpy(c->b, page + off, c->avail);
	c->has_form = insn_form(&c->form, bt_insn_mode(t->mode), c->b, c->avail);
}

static bool decode_new(struct tr *t, const struct bytes *c, struct bt_decoded *d)
{
	vcpu_fpu_park(t->bt->v); /* Zydis */
	if (insn_decode(&d->in, bt_insn_mode(t->mode), c->b, c->avail))
		return false;
	d->cls = (uint8_t)tr_classify(t->bt, t->mode, &d->in);
	d->ends = ends_block(d->cls, &d->in);
	d->used = tr_flags_used(t->bt, t->mode, &d->in);
	d->killed = tr_flags_killed(&d->in);
	return true;
}

/* One instruction of the page, but for its displacement and immediate; NULL if it reaches out of the page or is none. Nothing else of it
 * depends on those but the flags that shifts write, and shift counts are part of the form. */
static const struct bt_decoded *decode_at(struct tr *t, const uint8_t *page, unsigned off, struct bytes *c)
{
	struct bt_decoded *d;
	uint64_t key;

	read_bytes(t, page, off, c);
	if (!c->has_form)
		return decode_new(t, c, &t->formless) ? &t->formless : NULL;
	key = c->form.key | (uint64_t)t->mode << 60;
	d = &t->bt->decoded[key * 0x9e3779b97f4a7c15ull >> (64 - BT_DECODED_BITS)];
	if (d->key == key)
		return d;
	d->key = 0;
	if (!decode_new(t, c, d))
		return NULL;
	c->has_form = insn_form_agrees(&c->form, &d->in);
	if (c->has_form)
		d->key = key;
	return d;
}

/* An instruction that reaches into the page behind, as a block of its own. */
static bool decode_crossing(struct tr *t, const uint8_t *page, unsigned off, uint32_t tail)
{
	const uint8_t *behind = tail ? mem_frame(t->bt->v->mem, t->bt->page[tail].gfn, false) : NULL;
	struct insn *in = &t->insn[0];
	uint8_t bytes[2 * INSN_MAX_LEN];
	unsigned here = (unsigned)(PAGE_SIZE - off);

	if (!behind || here >= INSN_MAX_LEN || t->bt->single)
		return false;
	mem_code_read(t->bt->v->mem, t->bt->page[tail].gfn, 0, INSN_MAX_LEN);
	__builtin_memcpy(bytes, page + off, here);
	__builtin_memcpy(bytes + here, behind, INSN_MAX_LEN);
	vcpu_fpu_park(t->bt->v); /* Zydis */
	if (insn_decode(in, bt_insn_mode(t->mode), bytes, INSN_MAX_LEN) || in->len <= here)
		return false;
	t->cls[0] = (uint8_t)tr_classify(t->bt, t->mode, in);
	if (t->cls[0] < TR_COMPUTE)
		return false;
	t->live_before[0] = tr_flags_used(t->bt, t->mode, in);
	t->live_after[0] = tr_flags_killed(in);
	t->n = 1;
	t->insn_off[1] = (uint16_t)(off + in->len);
	t->open = !ends_block(t->cls[0], in);
	t->tail = tail;
	return true;
}

static void decode_block(struct tr *t, const uint8_t *page, unsigned off, uint32_t tail)
{
	t->open = true;
	t->tail_known = tail || PAGE_SIZE - off >= INSN_MAX_LEN;
	while (t->n < BT_BLOCK_INSNS && off < PAGE_SIZE) {
		struct bytes c;
		const struct bt_decoded *d = decode_at(t, page, off, &c);

		t->insn_off[t->n] = (uint16_t)off;
		if (!d) {
			/* Behind other instructions it is left to a block of its own. */
			if (!t->n && !t->bt->single)
				t->crossing = !decode_crossing(t, page, off, tail);
			else
				t->crossing = t->bt->single;
			return;
		}
		/* Lockstep compares pure blocks: interpreted instructions get one of their own. */
		if (t->bt->single && t->n && d->cls < TR_COMPUTE)
			return;
		t->insn[t->n] = d->in;
		if (c.has_form)
			insn_form_fill(&t->insn[t->n], &c.form, c.b);
		t->cls[t->n] = d->cls;
		/* For flag_liveness(). */
		t->live_before[t->n] = d->used;
		t->live_after[t->n] = d->killed;
		t->n++;
		off += d->in.len;
		t->insn_off[t->n] = (uint16_t)off;
		if (d->ends) {
			t->open = false;
			return;
		}
	}
}

/* Flags that the code at `off` of this page may read before writing them, looking a few instructions ahead. The bytes looked at
 * become part of the block: changing them drops it. */
static uint16_t flags_at(struct tr *t, const uint8_t *page, unsigned off)
{
	struct bt_block *b = &t->bt->block[t->block];
	uint16_t live = 0, unknown = FL_ARITH;

	b->peek = (uint16_t)off;
	for (unsigned i = 0; i < PEEK_INSNS && unknown && off < PAGE_SIZE; i++) {
		struct bytes c;
		const struct bt_decoded *d = decode_at(t, page, off, &c);

		if (!d || d->ends)
			break;
		live |= (uint16_t)(unknown & d->used);
		unknown &= (uint16_t)~(d->killed | live);
		off += d->in.len;
	}
	b->peek_end = (uint16_t)off;
	return live | unknown;
}

/* Flags alive where the block is left at its end: all, unless a direct branch or the fall-through stays in the page. */
static uint16_t flags_at_exit(struct tr *t, const uint8_t *page)
{
	const struct insn *last = t->n ? &t->insn[t->n - 1] : NULL;
	int32_t target;

	if (!last || t->crossing || t->bt->single) /* lockstep compares flags at every block's end */
		return FL_ARITH;
	if (t->open)
		target = t->insn_off[t->n];
	else if (last->op[0].kind == OPND_REL)
		target = (int32_t)(t->insn_off[t->n] + (int32_t)last->imm[0]);
	else
		return FL_ARITH;
	return target >= 0 && target < (int32_t)PAGE_SIZE ? flags_at(t, page, (unsigned)target) : FL_ARITH;
}

/* Backwards: which arithmetic flags are read before being written. Everything is live where the block can be left with a
 * guest-visible state of its own choosing: side exits, interpreted instructions, the end. Until now the two arrays hold what each
 * instruction itself uses and kills. */
static void flag_liveness(struct tr *t, const uint8_t *page)
{
	uint16_t live = flags_at_exit(t, page);

	for (unsigned i = t->n; i-- > 0;) {
		uint16_t used = t->live_before[i], killed = t->live_after[i];

		t->live_after[i] = live;
		live = (uint16_t)((live & ~killed) | used);
		t->live_before[i] = live;
	}
}

void tr_decode(struct tr *t, const uint8_t *page, unsigned off, uint32_t tail)
{
	decode_block(t, page, off, tail);
	flag_liveness(t, page);
}
