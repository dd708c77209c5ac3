/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The translator's run loop and what translated code asks of C (bt_service).
 *
 * Invariants
 *  - On entry to bt_service() every general register is in v->gpr and sync_in() has put RIP and the flags into the vcpu, so cpu/ and
 *    the interpreter see architectural state; on return sync_out() derives the hot slots from it again.
 *  - Translated code is left (return 0) whenever something is due at an instruction boundary: an event, a shutdown, a mode the
 *    translator does not handle. The run loop then decides.
 *  - After a flush, or after a part of the cache has been dropped, no code address from before is used: services compare bt->generation.
 */
#include <errno.h>
#include <stdlib.h>

#include "engine/bt/bt.h"
#include "engine/bt/probe.h"

static_assert(offsetof(struct vcpu, gpr) == V_GPR, "layout.h");
static_assert(offsetof(struct vcpu, rip) == V_RIP, "layout.h");
static_assert(offsetof(struct vcpu, rflags) == V_RFLAGS, "layout.h");
static_assert(offsetof(struct vcpu, event) == V_EVENT, "layout.h");

static inline uint64_t *hot(struct vcpu *v, unsigned off) { return &v->hot[off / 8]; }

static enum bt_mode mode_of(const struct vcpu *v)
{
	return v->cpl != 3 ? BT_K64 : v->mode == INSN_MODE_32 ? BT_U32 : BT_U64;
}

/* Compatibility-mode code whose addresses need no segment: what every 32-bit user program runs with. */
static bool flat32(const struct vcpu *v)
{
	static const uint8_t segs[] = {CS, SS, DS, ES};

	for (unsigned i = 0; i < nitems(segs); i++)
		if (v->seg[segs[i]].unusable || v->seg[segs[i]].base || v->seg[segs[i]].limit != UINT32_MAX)
			return false;
	return (v->seg[SS].attr & SEG_DB) && (v->seg[DS].attr & 0xa) == 2 && (v->seg[ES].attr & 0xa) == 2;
}

/* States the translator handles; everything else is interpreted. */
static bool translatable(const struct vcpu *v)
{
	bool mode = v->mode == INSN_MODE_64 ? v->cpl == 0 || v->cpl == 3
					    : v->mode == INSN_MODE_32 && v->cpl == 3 && (v->efer & EFER_LMA) && flat32(v);

	return mode && !v->inhibit_irq && !v->inhibit_db &&
	       !cpu_debugging(v) && !cpu_align_check(v);
}

/* What translations assume of control registers; a change drops them. */
static void check_facts(struct bt *bt)
{
	struct vcpu *v = bt->v;
	enum bt_mode mode = mode_of(v);
	uint8_t *user_mode = &bt->user_mode[v->mmu.cur - v->mmu.ctx];
	bool fpu_ok = !(v->cr0 & (CR0_TS | CR0_EM)) && (v->cr4 & CR4_OSFXSR) && cpu_xcr0_has(v, 7);
	bool avx512_ok = cpu_xcr0_has(v, VCPU_XCR0_AVX512);
	bool tsd = v->cr4 & CR4_TSD, fsgsbase = v->cr4 & CR4_FSGSBASE;

	/* Dispatch knows the page, not the mode: the x entries of an address space are for one user mode at a time. */
	if (mode != BT_K64 && *user_mode != mode) {
		mmu_flush_pcid(&v->mmu, v->mmu.cur->pcid);
		*user_mode = mode;
	}
	if (fpu_ok == bt->fpu_ok && avx512_ok == bt->avx512_ok && tsd == bt->tsd && fsgsbase == bt->fsgsbase)
		return;
	bt->fpu_ok = fpu_ok;
	bt->avx512_ok = avx512_ok;
	bt->tsd = tsd;
	bt->fsgsbase = fsgsbase;
	bt_flush(bt);
}

/* --- state ----------------------------------------------------------------------------------------------------- */

static uint64_t slot_decode(uint64_t fl)
{
	return (fl >> 8 & (FL_SF | FL_ZF | FL_AF | FL_PF | FL_CF)) | (fl & 1 ? FL_OF : 0);
}

static uint64_t slot_encode(uint64_t rflags)
{
	return (rflags & 0xff) << 8 | (rflags & FL_OF ? 1 : 0);
}

static void sync_in(struct vcpu *v, uint64_t rip, bool slot)
{
	uint64_t host = *hot(v, H_HFLAGS);
	uint64_t arith = slot ? slot_decode(*hot(v, H_FL)) : host & FL_ARITH;

	v->rip = v->mode == INSN_MODE_32 ? (uint32_t)rip : rip;
	v->rflags = (v->rflags & ~(uint64_t)(FL_ARITH | FL_DF)) | arith | (host & FL_DF);
}

static void sync_out(struct bt *bt)
{
	struct vcpu *v = bt->v;
	struct mmu_context *ctx = v->mmu.cur;
	enum bt_mode mode = mode_of(v);
	uint64_t x = (uint64_t)(uintptr_t)(mode == BT_K64 ? ctx->x_super : ctx->x_user);

	*hot(v, H_HFLAGS) = (v->rflags & (FL_ARITH | FL_DF)) | FL_FIXED | FL_IF;
	*hot(v, H_FL) = slot_encode(v->rflags);
	*hot(v, H_RTAB) = (uint64_t)(uintptr_t)ctx->r / 8;
	*hot(v, H_WTAB) = (uint64_t)(uintptr_t)ctx->w / 8;
	*hot(v, H_XB) = x;
	*hot(v, H_MASK) = mode == BT_K64 ? 0x0000fffffffff000ull : 0x00007ffffffff000ull;
	*hot(v, H_JUMP) = bt_jump_table(bt, mode == BT_K64);
	bt_hints_check(bt, mode != BT_K64);
	v->rflags &= ~(uint64_t)FL_RF; /* no breakpoints are armed: an instruction will have completed */
}

static uint64_t resume(struct bt *bt, uint32_t host)
{
	vcpu_fpu_load(bt->v);
	sync_out(bt);
	return bt->code_x + host;
}

/* --- lookup ---------------------------------------------------------------------------------------------------- */

/* The page that v->rip executes from, entered in the x table; 0 if it cannot be translated now. */
static uint32_t lookup_page(struct bt *bt)
{
	struct vcpu *v = bt->v;
	struct mmu_context *ctx = v->mmu.cur;
	bool user = v->cpl == 3;
	struct mmu_walk w;
	uint32_t x, page;

	if (!x86_canonical(v->rip))
		return 0;
	/* Without an x entry every way into the page ends here; inside, the run loop interprets and looks before each instruction. */
	if (unlikely(v->debug.breaks) && cpu_debug_break_page(v, v->rip))
		return 0;
	x = (user ? ctx->x_user : ctx->x_super)[mmu_vpn(v->rip)];
	if (x)
		return x / bt_etab_off(1);
	if (mmu_walk(&v->mmu, v->rip, MMU_FETCH, user, &w) || !mem_frame(v->mem, w.gpa >> PAGE_SHIFT, false))
		return 0;
	page = bt_page_get(bt, w.gpa >> PAGE_SHIFT, mode_of(v), false);
	if (!page) {
		bt_flush(bt);
		page = bt_page_get(bt, w.gpa >> PAGE_SHIFT, mode_of(v), false);
	}
	mmu_set_exec(&v->mmu, v->rip, user, bt_etab_off(page));
	return page;
}

/* The page executed behind the one that v->rip is in, if it has been executed in this mode; else 0. */
static uint32_t page_behind(const struct bt *bt)
{
	const struct vcpu *v = bt->v;
	uint64_t next = (v->rip | PAGE_MASK) + 1;
	const uint32_t *x = v->cpl == 3 ? v->mmu.cur->x_user : v->mmu.cur->x_super;
	uint32_t page = x86_canonical(next) ? x[mmu_vpn(next)] / bt_etab_off(1) : 0;

	return page && bt->page[page].mode == mode_of(v) ? page : 0;
}

/* The block at v->rip of `page`; 0 if there is no room. */
static uint32_t translate(struct bt *bt, uint32_t page, unsigned off, uint32_t tail)
{
	unsigned was = prof_begin(bt->v->prof, PROF_TRANSLATE);
	uint32_t b = bt_translate(bt, page, off, tail);

	if (unlikely(bt->perf_map) && b)
		bt_perf_map_add(bt, b);
	prof_end(bt->v->prof, was);
	return b;
}

/* The block at v->rip, translated if need be; 0 if the interpreter must take this instruction. plain: without spans. */
static uint32_t lookup(struct bt *bt, bool plain)
{
	unsigned off = bt->v->rip & PAGE_MASK;
	uint32_t b = 0, generation, tail;

	/* A second round after the cache was full and has been dropped, or the oldest part of it. */
	for (unsigned round = 0; round < 2 && !b; round++) {
		uint32_t page = lookup_page(bt);

		if (!page)
			return 0;
		if (plain)
			page = bt_page_get(bt, bt->page[page].gfn, mode_of(bt->v), true);
		b = page ? bt_block_find(bt, page, off) : 0;
		if (b)
			break;
		/* Marked before it is read, so that no write slips in between unseen. That may have to wait for other vCPUs, whose
		 * requests, served meanwhile, may drop blocks, or all of them. */
		generation = bt->generation;
		tail = page && PAGE_SIZE - off < INSN_MAX_LEN ? page_behind(bt) : 0;
		if ((page && !mem_code_mark(&bt->v->mmu, bt->page[page].gfn)) ||
		    (tail && !mem_code_mark(&bt->v->mmu, bt->page[tail].gfn)))
			return 0;
		if (generation != bt->generation)
			continue;
		if (page)
			b = translate(bt, page, off, tail && tail == page_behind(bt) ? tail : 0);
		if (!page)
			bt_flush(bt);
		else if (!b)
			bt_part_next(bt);
	}
	return b;
}

/* Continues at v->rip: code address, or 0 for the run loop. */
static uint64_t dispatch(struct bt *bt)
{
	struct vcpu *v = bt->v;
	uint64_t code;
	uint32_t b;

	if (__atomic_load_n(&v->event, __ATOMIC_RELAXED) || bt->single || !translatable(v))
		return 0;
#ifdef TORTURE_FLUSH
	bt_flush(bt);
#endif
	check_facts(bt);
	/* Mostly to where it went before: back from a system call, an interpreted instruction, to the handler of an exception. */
	*hot(v, H_RIP) = v->rip;
	code = bt_jump_find(bt, v->cpl != 3, v->rip);
	if (likely(code))
		return resume(bt, (uint32_t)(code - bt->code_x));
	b = lookup(bt, false);
	if (!b)
		return 0;
	bt_block_publish(bt, b);
	bt_jump_fill(bt, v->cpl != 3, v->rip, bt->code_x + bt->block[b].entry_ind);
	return resume(bt, bt->block[b].entry_ind);
}

/* --- services ----------------------------------------------------------------------------------------------------- */

static uint64_t leave(struct bt *bt, enum exit_reason why)
{
	bt->leave = true;
	bt->exit = why;
	return 0;
}

static gfn_t frame_of(const struct bt *bt, uint32_t block)
{
	return bt->page[bt->block[block].page].gfn;
}

/* Interprets the instruction of a site and goes on behind it if nothing speaks against it. */
static uint64_t interpret(struct bt *bt, const struct bt_site *site)
{
	struct vcpu *v = bt->v;
	struct bt_site s = *site;
	uint64_t next = v->rip + s.len;
	uint32_t generation = bt->generation;
	enum bt_mode mode = mode_of(v);
	int r;

	if (likely(v->mmu.gen == bt->gen)) /* the page that runs is still mapped */
		interp_fetch_known(v, frame_of(bt, s.block));
	r = interp_step(v);
	if (r < 0)
		return leave(bt, EXIT_SHUTDOWN);
	if (r > 0 || __atomic_load_n(&v->event, __ATOMIC_RELAXED))
		return 0;
	if ((s.flags & SITE_END) || v->rip != next || generation != bt->generation || bt->block[s.block].dead ||
	    mode != mode_of(v) || !translatable(v) || v->mmu.gen != bt->gen)
		return dispatch(bt);
	return resume(bt, s.next);
}

/* The instruction reaches into a page that had not been executed when it was translated. Once that has been, it is translated. */
static uint64_t crossing(struct bt *bt, const struct bt_site *site)
{
	if (!page_behind(bt))
		return interpret(bt, site);
	if (!bt->block[site->block].dead)
		bt_block_drop(bt, site->block);
	return dispatch(bt);
}

/* SYSCALL, SYSRET and IRET without the interpreter's decoding. */
static uint64_t change_ring(struct bt *bt, const struct bt_site *site)
{
	struct vcpu *v = bt->v;
	int r = site->flags & SITE_SYSRET ? cpu_sysret(v, site->size)
		: site->flags & SITE_IRET ? cpu_iret(v, site->size)
					  : cpu_syscall(v, v->rip + site->len);

	if (r && cpu_deliver_exception(v))
		return leave(bt, EXIT_SHUTDOWN);
	return dispatch(bt);
}

/* #PF of an access, where the site says that the interpreter would find the same. */
static uint64_t page_fault(struct bt *bt, gva_t gva, uint32_t fault)
{
	cpu_raise_pf(bt->v, gva, fault);
	return cpu_deliver_exception(bt->v) ? leave(bt, EXIT_SHUTDOWN) : dispatch(bt);
}

/* A data access found no table entry, or crosses a page: fill the entry and retry, or fault, or interpret. */
static uint64_t slow_access(struct bt *bt, const struct bt_site *site)
{
	struct vcpu *v = bt->v;
	gva_t gva = *hot(v, H_A0);
	bool write = site->flags & SITE_WRITE, user = v->cpl == 3, aligned = !(gva & (site->size - 1u));
	struct mmu_target target;
	uint32_t fault;

	if ((gva & PAGE_MASK) + site->size > PAGE_SIZE || !x86_canonical(gva) || (user && gva >> 47))
		goto interpret;
	fault = mmu_resolve(&v->mmu, gva, write, user, user, &target);
	if (fault) {
		if ((site->flags & SITE_FAULT) && (aligned || site->size <= 8))
			return page_fault(bt, gva, fault);
	} else if ((write ? v->mmu.cur->w : v->mmu.cur->r)[mmu_vpn(gva)]) {
		bt->stats.slow_fill++;
		/* Setting an accessed bit may have changed the very code that runs; spans rely on what the tables held. */
		return bt->block[site->block].dead || v->mmu.gen != bt->gen ? dispatch(bt) : resume(bt, site->start);
	}
interpret:
	bt->stats.slow_interp++;
	return interpret(bt, site);
}

/* An indirect branch to a non-canonical address faults as the branch, before it has changed RSP (SDM vol. 2A CALL, 2B RET). */
static uint64_t stray_branch(struct bt *bt, const struct bt_site *site)
{
	bt->v->gpr[RSP] -= (uint64_t)(int64_t)site->adjust;
	return interpret(bt, site);
}

static uint64_t link_branch(struct bt *bt, uint32_t l)
{
	struct vcpu *v = bt->v;
	uint32_t generation = bt->generation, b;
	int32_t target = bt->link[l].target;
	bool cross = target < 0 || target >= (int32_t)PAGE_SIZE, moved;

	if (__atomic_load_n(&v->event, __ATOMIC_RELAXED) || bt->single)
		return 0;
	b = lookup(bt, bt->link[l].plain);
	if (!b)
		return 0;
	/* Inside a page the frame is not compared again: it must be the source's, though the page may have been mapped anew. */
	moved = generation != bt->generation || (!cross && frame_of(bt, b) != frame_of(bt, bt->link[l].block));
#ifndef TORTURE_NOCHAIN
	if (!moved && !bt_link_patch(bt, l, b, cross)) {
		/* Once more, where there is room: without a bridge every round would come here. */
		bt_part_next(bt);
		return dispatch(bt);
	}
#endif
	(void)moved;
	*hot(v, H_RIP) = v->rip;
	return resume(bt, bt->block[b].entry_ind);
}

static uint64_t service(struct vcpu *v, unsigned reason)
{
	struct bt *bt = bt_of(v);
	uint32_t arg = (uint32_t)*hot(v, H_SITE);
	uint64_t page_base = *hot(v, H_PB);

	bt->gen = v->mmu.gen;
	if (unlikely(*(uint32_t *)((uint8_t *)v + H_REVIEW)) && reason != BT_SVC_LINK)
		bt_hint_review(bt);
	switch (reason) {
	case BT_SVC_MISS:
		bt->stats.misses++;
		sync_in(v, *hot(v, H_RIP), true);
		return dispatch(bt);
	case BT_SVC_SLOW:
		sync_in(v, page_base + bt->site[arg].off, bt->site[arg].flags & SITE_SLOT);
		return slow_access(bt, &bt->site[arg]);
	case BT_SVC_INTERP:
		bt->stats.interp++;
		sync_in(v, page_base + bt->site[arg].off, bt->site[arg].flags & SITE_SLOT);
		return bt->site[arg].flags & SITE_CROSSING ? crossing(bt, &bt->site[arg]) : interpret(bt, &bt->site[arg]);
	case BT_SVC_LINK:
		sync_in(v, page_base + (uint64_t)(int64_t)bt->link[arg].target, bt->link[arg].slot);
		return link_branch(bt, arg);
	case BT_SVC_STRAY:
		sync_in(v, page_base + bt->site[arg].off, true);
		return stray_branch(bt, &bt->site[arg]);
	case BT_SVC_SYSCALL:
		sync_in(v, page_base + bt->site[arg].off, bt->site[arg].flags & SITE_SLOT);
		return change_ring(bt, &bt->site[arg]);
	default:
		bt->stats.events++;
		sync_in(v, page_base + bt->block[arg].off, reason == BT_SVC_EVENT_SLOT);
		return 0;
	}
}

uint64_t bt_service(struct vcpu *v, unsigned reason)
{
	return unlikely(v->prof) ? bt_service_profiled(v, reason, service) : service(v, reason);
}

/* --- run loop ------------------------------------------------------------------------------------------------------ */

uint32_t bt_block_here(struct bt *bt)
{
	if (!translatable(bt->v))
		return 0;
	check_facts(bt);
	return lookup(bt, false);
}

void bt_run_block(struct bt *bt, uint32_t block)
{
	*hot(bt->v, H_RIP) = bt->v->rip;
	bt_enter(bt->v, resume(bt, bt->block[block].entry_ind));
}

static enum exit_reason bt_loop(struct bt *bt)
{
	struct vcpu *v = bt->v;
	enum exit_reason why;
	uint64_t code;
	int r;

	bt->leave = false;
	for (;;) {
		if (__atomic_load_n(&v->event, __ATOMIC_RELAXED) && engine_events(v, &why))
			return why;
		if (v->halted)
			return EXIT_HLT;
		code = dispatch(bt);
		if (code) {
			bt_enter(v, code);
			if (bt->leave)
				return bt->exit;
			continue;
		}
		/* Not translatable here and now, or an event came: one instruction, then look again. */
		if (cpu_break_due(v))
			return EXIT_DEBUG;
		r = unlikely(v->prof) ? bt_step_profiled(v) : interp_step(v);
		if (r < 0)
			return EXIT_SHUTDOWN;
	}
}

static enum exit_reason bt_run(struct vcpu *v)
{
	enum exit_reason why;

	mmu_enter(&v->mmu);
	why = bt_loop(bt_of(v));
	vcpu_fpu_park(v);
	mmu_leave(&v->mmu);
	return why;
}

static void code_drop(void *bt)
{
	bt_flush(bt);
}

static const struct mem_code_ops code_ops = {.write = bt_code_write, .drop = code_drop};

static void set_masks(struct vcpu *v)
{
	*hot(v, H_XMASK) = 0x0000fffffffff000ull;
	*hot(v, H_NOIF) = ~(uint64_t)FL_IF;
	*hot(v, H_ARITH) = FL_ARITH | FL_DF;
	*hot(v, H_VIRT) = ~(uint64_t)(FL_ARITH | FL_DF | FL_RF | FL_VM);
}

static void bt_destroy(struct vcpu *v)
{
	struct bt *bt = bt_of(v);

	v->mmu.code_ops = NULL;
	(void)bt_perf_map(v, -1);
	bt_cache_destroy(bt);
	free(bt);
	engine_slots(v)->bt = NULL;
	engine_interp.destroy(v);
	engine_detach(v);
}

static int bt_create(struct vcpu *v)
{
	struct bt *bt;
	int r = engine_attach(v);

	if (r)
		return r;
	r = engine_interp.create(v);
	if (r)
		goto err_attach;
	r = -ENOMEM;
	bt = calloc(1, sizeof(*bt));
	if (!bt)
		goto err_interp;
	bt->v = v;
	engine_slots(v)->bt = bt;
	r = bt_cache_create(bt);
	if (!r)
		r = bt_signal_setup();
	if (r)
		goto err_bt;
	v->mmu.code_ops = &code_ops;
	v->mmu.code_opaque = bt;
	set_masks(v);
	return 0;
err_bt:
	bt_cache_destroy(bt);
	free(bt);
	engine_slots(v)->bt = NULL;
err_interp:
	engine_interp.destroy(v);
err_attach:
	engine_detach(v);
	return r;
}

static void bt_reset(struct vcpu *v)
{
	set_masks(v);
	bt_flush(bt_of(v));
	if (engine_interp.reset)
		engine_interp.reset(v);
}

static void bt_stats(struct vcpu *v, void (*emit)(void *o, const char *name, uint64_t val), void *o)
{
	const struct bt *bt = bt_of(v);
	uint64_t hot, cold;

	bt_part_bytes(bt, &hot, &cold);
	emit(o, "bt_translated_instructions", bt->stats.translated);
	emit(o, "bt_blocks", bt->stats.blocks);
	emit(o, "bt_loops", bt->stats.loops);
	emit(o, "bt_trials", bt->stats.trials);
	emit(o, "bt_table_lookups", bt->stats.tables);
	emit(o, "bt_hints_forgotten", bt->stats.forgets);
	emit(o, "bt_flushes", bt->stats.flushes);
	emit(o, "bt_parts_dropped", bt->stats.parts);
	emit(o, "bt_jump_table_flushes", bt->stats.jump_flushes);
	emit(o, "bt_links", bt->stats.links);
	emit(o, "bt_dispatch_misses", bt->stats.misses);
	emit(o, "bt_slow_fills", bt->stats.slow_fill);
	emit(o, "bt_slow_interpreted", bt->stats.slow_interp);
	emit(o, "bt_interpreted", bt->stats.interp);
	emit(o, "bt_events", bt->stats.events);
	emit(o, "bt_host_signals", bt->stats.signals);
	emit(o, "bt_code_writes", bt->stats.smc);
	emit(o, "bt_code_bytes", hot);
	emit(o, "bt_cold_bytes", cold);
}

const struct engine_ops engine_bt = {
	.name = "bt",
	.what = "binary translation: direct execution of translated blocks, flat shadow page tables",
	.slowdown = "1-6 x",
	.max_cpus = VCPU_MAX,
	.probe = bt_probe,
	.create = bt_create,
	.destroy = bt_destroy,
	.run = bt_run,
	.reset = bt_reset,
	.stats = bt_stats,
	.spot = bt_spot,
	.spots = bt_spots,
	.perf_map = bt_perf_map,
};
