/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the profiler wants to know of the translator: which guest code a host address belongs to, what a service was for, and the blocks as
 * lines of perf's map file.
 *
 * bt_spot() runs in a signal handler on the vCPU's thread. Where it interrupts translated code, no translation is in progress, so the
 * indices are consistent. The rest runs between blocks, and only while somebody profiles.
 */
#include <Zydis/Zydis.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "engine/bt/bt.h"

/* --- samples ------------------------------------------------------------------------------------------------------- */

enum part { PART_BODY, PART_INDIRECT, PART_COLD, PARTS };
enum { SPOT_BRIDGE = 3 * PARTS, SPOT_LOOKUP, SPOT_JUMP, SPOT_STUB };

const char *const bt_spots[] = {
	[BT_K64 * PARTS + PART_BODY] = "kernel code",
	[BT_K64 * PARTS + PART_INDIRECT] = "kernel code: returns and indirect branches",
	[BT_K64 * PARTS + PART_COLD] = "kernel code: out of line",
	[BT_U64 * PARTS + PART_BODY] = "user code",
	[BT_U64 * PARTS + PART_INDIRECT] = "user code: returns and indirect branches",
	[BT_U64 * PARTS + PART_COLD] = "user code: out of line",
	[BT_U32 * PARTS + PART_BODY] = "user code, 32-bit",
	[BT_U32 * PARTS + PART_INDIRECT] = "user code, 32-bit: returns and indirect branches",
	[BT_U32 * PARTS + PART_COLD] = "user code, 32-bit: out of line",
	[SPOT_BRIDGE] = "direct branches between pages",
	[SPOT_LOOKUP] = "lookups that met another page than last time",
	[SPOT_JUMP] = "indirect branches that miss the jump table",
	[SPOT_STUB] = "registers saved and loaded around C",
	NULL,
};
static_assert(nitems(bt_spots) <= ENGINE_SPOTS + 1, "the profiler counts so many");

static enum part part_of(const struct bt *bt, uint32_t block, uint32_t host)
{
	const struct bt_block *b = &bt->block[block];
	uint32_t s;

	if (host >= b->cold)
		return PART_COLD;
	s = bt_site_find(bt, host);
	/* The site of an indirect branch's dispatch is the last of its block, and accesses nothing. */
	return s && s == b->first_site + b->nsites - 1 && !bt->site[s].size && !(bt->site[s].flags & ~SITE_SLOT) ? PART_INDIRECT : PART_BODY;
}

bool bt_spot(const struct vcpu *v, uintptr_t pc, struct engine_spot *out)
{
	const struct bt *bt = bt_of(v);
	uint32_t host = (uint32_t)(pc - bt->code_x), b;

	*out = (struct engine_spot){.kind = SPOT_STUB};
	if (pc >= (uintptr_t)bt_enter && pc < (uintptr_t)bt_stubs_end)
		return true;
	if (pc < bt->code_x || pc >= bt->code_x + bt->code_size)
		return false;
	b = bt_block_at(bt, host);
	if (!b) {
		out->kind = host >= BT_STUBS ? SPOT_BRIDGE : host < bt->jump_miss ? SPOT_LOOKUP : SPOT_JUMP;
		return true;
	}
	out->kind = bt->page[bt->block[b].page].mode * PARTS + part_of(bt, b, host);
	out->block = v->hot[H_PB / 8] + bt->block[b].off;
	out->bytes = (uint16_t)(bt->block[b].end - bt->block[b].off);
	out->insns = bt->block[b].ninsn;
	return true;
}

/* --- services ------------------------------------------------------------------------------------------------------- */

/* What is known of a slow access before it is served; counters tell afterwards what became of it. */
struct access {
	gva_t gva;
	bool write, crossing, readable;
	uint64_t exceptions, mmio;
};

static uint64_t entry(const struct vcpu *v, gva_t gva, bool write)
{
	bool usable = v->cpl == 3 ? gva >> 47 == 0 : x86_canonical(gva);

	return usable ? (write ? v->mmu.cur->w : v->mmu.cur->r)[mmu_vpn(gva)] : 0;
}

static struct access access_begin(const struct bt *bt)
{
	const struct vcpu *v = bt->v;
	const struct bt_site *s = &bt->site[(uint32_t)v->hot[H_SITE / 8]];
	struct access a = {.gva = v->hot[H_A0 / 8], .write = s->flags & SITE_WRITE};

	a.crossing = (a.gva & PAGE_MASK) + s->size > PAGE_SIZE;
	a.readable = entry(v, a.gva, false);
	a.exceptions = v->stats.exceptions;
	a.mmio = v->stats.mmio;
	return a;
}

static unsigned access_kind(const struct vcpu *v, const struct access *a)
{
	if (v->stats.exceptions != a->exceptions)
		return PROF_FAULT;
	if (v->stats.mmio != a->mmio)
		return PROF_MMIO;
	if (a->crossing)
		return PROF_CROSS;
	if (entry(v, a->gva, a->write))
		return !a->write ? PROF_FILL_READ : a->readable ? PROF_FILL_UPGRADE : PROF_FILL_WRITE;
	return a->write && entry(v, a->gva, false) ? PROF_CODE : PROF_SLOW;
}

static unsigned ring_kind(const struct bt_site *s)
{
	return s->flags & SITE_SYSRET ? PROF_SYSRET : s->flags & SITE_IRET ? PROF_INSN + ZYDIS_MNEMONIC_IRETQ : PROF_SYSCALL;
}

uint64_t bt_service_profiled(struct vcpu *v, unsigned reason, uint64_t (*service)(struct vcpu *v, unsigned reason))
{
	static const uint16_t kinds[BT_SVC_COUNT] = {
		[BT_SVC_MISS] = PROF_MISS, [BT_SVC_LINK] = PROF_LINK, [BT_SVC_SYSCALL] = PROF_SYSCALL,
		[BT_SVC_EVENT_HOST] = PROF_EVENT, [BT_SVC_EVENT_SLOT] = PROF_EVENT,
	};
	const struct bt *bt = bt_of(v);
	struct prof *p = v->prof;
	struct access a = {0};
	unsigned kind = kinds[reason];
	gva_t at = v->hot[H_PB / 8];
	bool crossing = false;
	uint64_t r;

	prof_open(p);
	if (reason == BT_SVC_SLOW || reason == BT_SVC_INTERP) {
		const struct bt_site *s = &bt->site[(uint32_t)v->hot[H_SITE / 8]];

		at += s->off;
		crossing = !s->len; /* could not be decoded from the page alone */
	}
	if (reason == BT_SVC_SLOW)
		a = access_begin(bt);
	else if (reason == BT_SVC_SYSCALL)
		kind = ring_kind(&bt->site[(uint32_t)v->hot[H_SITE / 8]]);
	r = service(v, reason);
	if (reason == BT_SVC_SLOW)
		kind = access_kind(v, &a);
	else if (reason == BT_SVC_INTERP)
		kind = p->host_fault ? PROF_HOST_FAULT : crossing ? PROF_INSN_CROSSING : PROF_INSN + p->mnemonic;
	p->host_fault = false;
	if (reason == BT_SVC_SLOW || reason == BT_SVC_INTERP)
		prof_place(p, at, kind);
	prof_book(p, kind);
	return r;
}

int bt_step_profiled(struct vcpu *v)
{
	int r;

	prof_open(v->prof);
	r = interp_step(v);
	prof_book(v->prof, PROF_INSN + v->prof->mnemonic);
	return r;
}

/* --- perf's map ------------------------------------------------------------------------------------------------------ */

struct bt_perf_map {
	int fd;
	unsigned used;
	char buf[32768];
};

static void map_write(struct bt_perf_map *m)
{
	/* A full disk costs lines of a report. */
	(void)!write(m->fd, m->buf, m->used);
	m->used = 0;
}

void bt_perf_map_add(struct bt *bt, uint32_t b)
{
	static const char *const mode[] = {[BT_K64] = "kernel", [BT_U64] = "user", [BT_U32] = "user32"};
	struct bt_perf_map *m = bt->perf_map;
	const struct bt_block *blk = &bt->block[b];

	vcpu_fpu_park(bt->v);
	if (m->used > sizeof(m->buf) - 128)
		map_write(m);
	m->used += (unsigned)snprintf(m->buf + m->used, 128, "%llx %x guest-%s:%llx\n",
				      (unsigned long long)(bt->code_x + blk->entry_ind), blk->host_end - blk->entry_ind,
				      mode[bt->page[blk->page].mode], (unsigned long long)((bt->v->rip & ~PAGE_MASK) | blk->off));
}

int bt_perf_map(struct vcpu *v, int fd)
{
	struct bt *bt = bt_of(v);

	if (bt->perf_map) {
		map_write(bt->perf_map);
		free(bt->perf_map);
		bt->perf_map = NULL;
	}
	if (fd < 0)
		return 0;
	bt->perf_map = malloc(sizeof(*bt->perf_map));
	if (!bt->perf_map)
		return -ENOMEM;
	bt->perf_map->fd = fd;
	bt->perf_map->used = 0;
	return 0;
}
