/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Loops that are one block: most of the accesses in compiled loops walk through memory by the same distance in each iteration, or do
 * not move at all (streams). How many iterations stay inside the pages they are in is arithmetic; so many run without any check.
 *
 *     ordinary:  body ; jcc enter              one iteration as everywhere else
 *     enter:     event? -> the block's entry ; one of the first few iterations? -> ordinary
 *                for each stream: its bytes in one page, and present? else -> ordinary
 *                                 n = min(n, iterations until it leaves its page)
 *                                 what to add to its guest addresses -> [rsp+H_STREAM+8*k], and r14, r13
 *                limit = counting register + n * its step -> [rsp+H_LIMIT]
 *     loop:      body, accesses as [guest register + r14]
 *                j!cc exit
 *                cmp counting register, [rsp+H_LIMIT] ; jne loop
 *                jmp enter
 *
 * Invariants
 *  - Every register of the guest has its value at every instruction of the unchecked form as well, so exits, host faults and accesses that
 *    are not streams leave from it as from anywhere.
 *  - The counting register changes by the same amount in each iteration, so it meets the limit exactly. n is at most 4096: an event
 *    waits no longer.
 *  - What the streams rely on changes in C only, and then the block is not resumed (span.c).
 *  - Flags are dead at the head of the loop.
 */
#include <Zydis/Zydis.h>

#include "engine/bt/tr.h"

#define M(x) ZYDIS_MNEMONIC_##x

#define LOOP_INSNS 32
/* A stream that moves faster is not worth it. */
#define STREAM_STEP 512
/* Iterations between looks at the event word when no stream leaves its page. */
#define LOOP_ROUNDS 1024
/* Ordinary iterations first: looking the streams up costs about three of them, and many loops are short. */
#define LOOP_TRIPS 3

/* --- what is a loop --------------------------------------------------------------------------------------------- */

static bool closes_loop(const struct tr *t, unsigned i)
{
	const struct insn *in = &t->insn[i];

	/* JRCXZ and LOOP, E0 to E3, have no opposite to leave the loop by. */
	return in->op[0].kind == OPND_REL && in->mnemonic != M(CALL) && (in->opcode & 0xfc) != 0xe0 && t->cls[i] == TR_FLOW &&
	       (int32_t)t->insn_off[i + 1] + (int32_t)in->imm[0] == (int32_t)t->insn_off[0];
}

/* Only what computes, and branches. Returns the number of instructions of the loop, or 0. */
static unsigned find_loop(const struct tr *t)
{
	for (unsigned i = 0; i < t->n && i < LOOP_INSNS; i++) {
		const struct insn *in = &t->insn[i];
		enum tr_class c = t->cls[i];

		if (closes_loop(t, i))
			return i + 1;
		if (c < TR_COMPUTE || (c == TR_FLOW && in->mnemonic != M(LEA) && (in->op[0].kind != OPND_REL || in->mnemonic == M(CALL))))
			return 0;
	}
	return 0;
}

/* By how much a register changes in an iteration; false if by no constant. */
static bool step_of(const struct tr_values *end, unsigned root, int64_t *step)
{
	*step = 0;
	if (root == TR_ROOT_PAGE || root == TR_ROOT_ZERO)
		return true;
	if (root >= GPR_COUNT || end->reg[root].root != root)
		return false;
	*step = end->reg[root].off;
	return true;
}

/* Adds the access to a stream, or as a stream of its own if its address moves in constant steps. With an index the rest of
 * the address stands still, so that it can be added once. */
static void add_stream(struct tr_loop *l, const struct tr_values *end, const struct tr_access *a)
{
	int64_t step, index_step = 0;
	struct tr_span *s;
	bool still;

	for (unsigned k = 0; k < l->nstreams; k++) {
		s = &l->stream[k].span;
		if (tr_same_base(&s->base, &a->at)) {
			if (tr_span_widen(s, a))
				s->write |= a->write;
			return;
		}
	}
	if (l->nstreams == TR_STREAMS || !step_of(end, a->at.root, &step))
		return;
	still = !step;
	if (a->at.scale && (!still || !step_of(end, a->at.index, &index_step)))
		return;
	step += index_step * a->at.scale;
	s = &l->stream[l->nstreams].span;
	*s = (struct tr_span){.active = true, .base = a->at, .write = a->write, .lo = a->at.off, .hi = a->at.off + a->size};
	if (step < -STREAM_STEP || step > STREAM_STEP || s->lo != (int32_t)s->lo || !tr_span_widen(s, a))
		return;
	l->stream[l->nstreams].still = still;
	l->stream[l->nstreams++].step = (int32_t)step;
}

/* A register to count by, one that is not in a slot if there is any. */
static bool find_counter(struct tr_loop *l, const struct tr_values *end)
{
	for (unsigned r = 0; r < GPR_COUNT; r++) {
		int64_t step;

		if (!step_of(end, r, &step) || !step || step != (int32_t)step || (step > 0 ? step : -step) > 1 << 16)
			continue;
		l->counter = (uint8_t)r;
		l->count = (int32_t)step;
		return true;
	}
	return false;
}

void tr_loop_plan(struct tr *t)
{
	struct tr_values end, v;
	unsigned n = find_loop(t);

	if (!n || t->plain || t->bt->single || t->mode == BT_U32 || (t->live_before[0] & FL_ARITH))
		return;
	tr_values_init(&end);
	for (unsigned i = 0; i < n; i++)
		tr_values_step(&end, &t->insn[i]);
	if (!find_counter(&t->loop, &end))
		return;
	tr_values_init(&v);
	for (unsigned i = 0; i < n; i++) {
		struct tr_access a[2];
		unsigned count = tr_accesses(&v, &t->insn[i], t->insn_off[i], a);

		for (unsigned k = 0; k < count; k++)
			add_stream(&t->loop, &end, &a[k]);
		tr_values_step(&v, &t->insn[i]);
	}
	if (t->loop.nstreams)
		t->loop.end = n;
}

/* --- emission ------------------------------------------------------------------------------------------------------ */

bool tr_loop_back(struct tr *t, enum cond cc)
{
	struct tr_loop *l = &t->loop;

	if (t->i + 1 != l->end)
		return false;
	if (l->inside) {
		if (cc != CC_ALWAYS)
			tr_jcc(t, cc ^ 1, t->insn_off[l->end]);
		return true;
	}
	l->enter = cc == CC_ALWAYS ? emit_jmp(&t->e, emit_here(&t->e)) : emit_jcc(&t->e, cc, emit_here(&t->e));
	t->ended |= cc == CC_ALWAYS;
	return true;
}

/* A register of a stream's address as it is at the head of the loop: host register, loaded into `scratch` if it is in a slot. */
static unsigned head_reg(struct tr *t, unsigned root, unsigned scratch)
{
	if (root == TR_ROOT_ZERO)
		return NOREG;
	if (root == TR_ROOT_PAGE)
		emit_load(&t->e, scratch, EMEM(RSP, H_PB));
	else if (tr_displaced(root))
		emit_load(&t->e, scratch, EMEM(RSP, tr_slot(root)));
	else
		return tr_host(root);
	return scratch;
}

/* r14 = iterations that the stream at r13 stays in its page behind the present one. */
static void rounds(struct tr *t, const struct tr_stream *s)
{
	unsigned step = (unsigned)(s->step < 0 ? -s->step : s->step);
	struct emit *e = &t->e;

	if (s->step > 0) {
		/* Bytes behind the span: those behind its last byte. */
		emit_lea(e, R14, EMEM(R13, (int32_t)(s->span.hi - s->span.lo - 1)));
		emit_op_reg(e, false, 0xf7, 2, R14); /* not */
	} else {
		emit_op_reg(e, false, 0x89, R13, R14);
	}
	emit_and_imm32(e, R14, PAGE_MASK);
	if (step & (step - 1)) {
		emit_imul_imm32(e, R14, R14, (int32_t)(65536 / step));
		emit_shift(e, 5, R14, 16);
	} else if (step > 1) {
		emit_shift(e, 5, R14, (uint8_t)__builtin_ctz(step));
	}
}

/* [H_LIMIT] = min of itself and r14. */
static void limit_min(struct emit *e)
{
	uint8_t *skip;

	emit_op_mem(e, true, 0x3b, R14, EMEM(RSP, H_LIMIT)); /* cmp */
	skip = emit_jcc(e, CC_AE, emit_here(e));
	emit_store(e, EMEM(RSP, H_LIMIT), R14);
	emit_patch(e, skip, emit_here(e));
}

/* Looks stream k up; branches to the ordinary form if that fails. */
static void enter_stream(struct tr *t, unsigned k)
{
	const struct tr_stream *s = &t->loop.stream[k];
	struct emit *e = &t->e;
	unsigned base = head_reg(t, s->span.base.root, R13);
	unsigned index = s->span.base.scale ? head_reg(t, s->span.base.index, R14) : NOREG;
	uint8_t *fail;

	emit_lea(e, R13, EMEMX((uint8_t)base, (uint8_t)index, s->span.base.scale ? s->span.base.scale : 1, (int32_t)s->span.lo));
	fail = tr_in_page(t, (unsigned)(s->span.hi - s->span.lo));
	if (fail)
		emit_patch(e, fail, t->loop.ordinary);
	if (s->step) {
		rounds(t, s);
		limit_min(e);
	}
	emit_patch(e, bt_emit_entry(e, R13, R14, s->span.write, 0), t->loop.ordinary);
	base = s->still ? head_reg(t, s->span.base.root, R13) : NOREG;
	if (base != NOREG)
		emit_lea(e, R14, EMEMX(R14, (uint8_t)base, 1, 0));
	emit_store(e, EMEM(RSP, H_STREAM + 8 * (int)k), R14);
}

void tr_loop_head(struct tr *t)
{
	emit_store_imm32(&t->e, EMEM(RSP, H_TRIPS), LOOP_TRIPS);
	t->loop.ordinary = emit_here(&t->e);
}

static void enter(struct tr *t)
{
	struct tr_loop *l = &t->loop;
	struct emit *e = &t->e;
	unsigned counter = tr_displaced(l->counter) ? R13 : tr_host(l->counter);

	emit_op_mem(e, false, 0x83, 7, EMEM(RSP, V_EVENT)); /* cmp dword [event], 0 */
	emit_byte(e, 0);
	emit_jcc(e, CC_NE, t->bt->code_x + t->bt->block[t->block].entry_chk);
	emit_op_mem(e, false, 0x83, 5, EMEM(RSP, H_TRIPS)); /* sub dword, 1 */
	emit_byte(e, 1);
	emit_jcc(e, CC_NS, l->ordinary);
	emit_mov_imm(e, R14, LOOP_ROUNDS);
	emit_store(e, EMEM(RSP, H_LIMIT), R14);
	for (unsigned k = 0; k < l->nstreams; k++)
		enter_stream(t, k);
	/* limit = counter + (n + 1) * count: the present iteration counts as well. */
	emit_load(e, R14, EMEM(RSP, H_LIMIT));
	emit_imul_imm32(e, R14, R14, l->count);
	tr_get(t, counter, l->counter);
	emit_lea(e, R14, EMEMX(R14, (uint8_t)counter, 1, l->count));
	emit_store(e, EMEM(RSP, H_LIMIT), R14);
}

static void hold_streams(struct tr *t)
{
	static const int8_t want[2][2] = {{-1, TR_SPANS}, {TR_SPANS + 1, TR_SPANS}};
	const int8_t *w = want[t->loop.nstreams > 1];

	for (unsigned r = 0; r < 2; r++) {
		if (w[r] >= 0 && t->held[r] != w[r])
			emit_load(&t->e, R13 + r, EMEM(RSP, H_STREAM + 8 * (w[r] - TR_SPANS)));
		t->held[r] = w[r];
	}
}

void tr_loop_emit(struct tr *t)
{
	struct tr_loop *l = &t->loop;
	struct emit *e = &t->e;
	unsigned n = t->n, counter;
	uintptr_t start, loop;

	start = emit_here(e);
	emit_patch(e, l->enter, start);
	t->i = 0;
	enter(t);
	tr_held_forget(t);
	hold_streams(t);
	loop = emit_here(e);
	tr_values_init(&t->values);
	for (unsigned k = 0; k < TR_SPANS; k++)
		t->span[k].active = false;
	t->slot = t->ended = false;
	l->inside = true;
	t->n = l->end;                   /* what is looked ahead for */
	tr_emit_insns(t, l->end);
	t->n = n;
	l->inside = false;
	counter = tr_displaced(l->counter) ? R13 : tr_host(l->counter);
	if (counter == R13)
		tr_get(t, R13, l->counter);
	emit_op_mem(e, true, 0x3b, counter, EMEM(RSP, H_LIMIT)); /* cmp */
	/* Flags are dead here, and loads leave them alone. */
	hold_streams(t);
	emit_jcc(e, CC_NE, loop);
	emit_jmp(e, start);
	t->ended = true;
}

/* The operand in host memory: from a root that stands still the rest of its address, else the guest's address. */
static bool stream_address(struct tr *t, unsigned k, int64_t off, struct emem *m)
{
	const struct insn *in = tr_insn(t);
	bool still = t->loop.stream[k].still;
	unsigned moving = still ? in->mem.index : in->mem.base, r, other;
	int64_t disp = !still ? in->mem.disp : moving != INSN_NO_REG ? off - t->values.reg[moving].off * in->mem.scale : off;

	if (disp != (int32_t)disp)
		return false;
	r = tr_pointer(t, TR_SPANS + k);
	t->scratch_known = true;
	if (moving == INSN_NO_REG) {
		*m = EMEM((uint8_t)r, (int32_t)disp);
		return true;
	}
	*m = EMEMX((uint8_t)r, (uint8_t)tr_host(moving), still ? in->mem.scale : 1, (int32_t)disp);
	if (tr_displaced(moving)) {
		other = tr_other_scratch((uint8_t)r);
		t->held[other - R13] = -1;
		tr_get(t, other, moving);
		m->index = (uint8_t)other;
		emit_lea(&t->e, other, *m);
		*m = EMEM((uint8_t)other, 0);
	}
	return true;
}

bool tr_loop_operand(struct tr *t, const struct tr_access *a, struct emem *m)
{
	unsigned k = 0;

	while (k < t->loop.nstreams && !tr_in_span(&t->loop.stream[k].span, a))
		k++;
	if (k == t->loop.nstreams)
		return false;
	/* A fault of the host (misaligned vector) finds the instruction here. */
	tr_site(t, SITE_END, 0);
	return stream_address(t, k, a->at.off, m);
}
