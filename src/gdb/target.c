/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Guest memory as a debugger reads and writes it, and the lists of breakpoints and watches.
 *
 * Nothing of a breakpoint is ever in guest memory: the engines compare addresses (cpu/debug.c), so the guest cannot read, overwrite
 * or trip over it. Invariant: the lists change only while the machine stands still, and gdb_target_apply() comes before it runs: it points
 * the vCPUs at the lists and empties their flat tables, from where watched pages and pages with breakpoints then keep away.
 * Locking: the machine stands still.
 */
#include "gdb/private.h"

#include <string.h>

#include "mem/mem.h"

void gdb_target_init(struct gdb_target *t, const struct gdb_config *c)
{
	memset(t, 0, sizeof(*t));
	t->mem = c->mem;
	t->vcpu = c->vcpu;
	t->ncpus = c->ncpus;
	t->any.any = true;
}

/* --- memory ---------------------------------------------------------------------------------------------------------- */

/* Where addr lies; false if nowhere. */
static bool locate(const struct gdb_target *t, struct vcpu *v, uint64_t addr, gpa_t *gpa)
{
	struct mmu_walk w;

	if (t->physical) {
		*gpa = addr;
		return true;
	}
	if (!mmu_probe(&v->mmu, addr, &w))
		return false;
	*gpa = w.gpa;
	return true;
}

static size_t in_page(uint64_t addr, size_t len)
{
	size_t left = PAGE_SIZE - (addr & PAGE_MASK);

	return len < left ? len : left;
}

size_t gdb_target_read(struct gdb_target *t, struct vcpu *v, uint64_t addr, void *buf, size_t len)
{
	size_t done = 0;
	gpa_t gpa;

	while (done < len) {
		size_t n = in_page(addr + done, len - done);

		if (!locate(t, v, addr + done, &gpa) || mem_read(t->mem, gpa, (uint8_t *)buf + done, n))
			break;
		done += n;
	}
	return done;
}

bool gdb_target_write(struct gdb_target *t, struct vcpu *v, uint64_t addr, const void *buf, size_t len)
{
	gpa_t gpa;

	for (size_t done = 0; done < len;) {
		size_t n = in_page(addr + done, len - done);

		if (!locate(t, v, addr + done, &gpa) || mem_write(t->mem, gpa, (const uint8_t *)buf + done, n))
			return false;
		done += n;
	}
	return true;
}

/* --- breakpoints ------------------------------------------------------------------------------------------------------- */

static unsigned break_find(const struct gdb_target *t, gva_t addr)
{
	unsigned i = 0;

	while (i < t->breaks.n && t->breaks.addr[i] != addr)
		i++;
	return i;
}

static bool break_insert(struct gdb_target *t, enum gdb_point kind, gva_t addr)
{
	unsigned i = break_find(t, addr);

	if (i == CPU_MAX_BREAKS)
		return false;
	if (i == t->breaks.n) {
		t->breaks.addr[i] = addr;
		t->kind[i] = 0;
		t->breaks.n++;
	}
	t->kind[i] |= (uint8_t)(1u << kind);
	return true;
}

/* Removing what is not there is no error: gdb may have lost a reply and ask again. */
static void break_remove(struct gdb_target *t, enum gdb_point kind, gva_t addr)
{
	unsigned i = break_find(t, addr);

	if (i == t->breaks.n)
		return;
	t->kind[i] &= (uint8_t)~(1u << kind);
	if (t->kind[i])
		return;
	t->breaks.n--;
	t->breaks.addr[i] = t->breaks.addr[t->breaks.n];
	t->kind[i] = t->kind[t->breaks.n];
}

const char *gdb_target_break_name(const struct gdb_target *t, gva_t addr)
{
	unsigned i = break_find(t, addr);

	if (i == t->breaks.n)
		return NULL;
	return t->kind[i] & (1u << GDB_BREAK_SOFT) ? "swbreak" : "hwbreak";
}

/* --- watches ------------------------------------------------------------------------------------------------------------- */

static uint8_t watch_kinds(enum gdb_point kind)
{
	switch (kind) {
	case GDB_WATCH_WRITE:
		return MMU_WATCH_WRITE;
	case GDB_WATCH_READ:
		return MMU_WATCH_READ;
	default:
		return MMU_WATCH_READ | MMU_WATCH_WRITE;
	}
}

const char *gdb_target_watch_name(unsigned kinds)
{
	return kinds == MMU_WATCH_WRITE ? "watch" : kinds == MMU_WATCH_READ ? "rwatch" : "awatch";
}

static unsigned watch_find(const struct gdb_target *t, uint8_t kinds, gva_t addr, uint64_t len)
{
	unsigned i = 0;

	while (i < t->watches.n &&
	       (t->watches.w[i].addr != addr || t->watches.w[i].len != len || t->watches.w[i].kinds != kinds))
		i++;
	return i;
}

static bool watch_insert(struct gdb_target *t, uint8_t kinds, gva_t addr, uint64_t len)
{
	unsigned i = watch_find(t, kinds, addr, len);

	if (len == 0 || len > GDB_WATCH_LEN_MAX || addr + len - 1 < addr || i == MMU_MAX_WATCHES)
		return false;
	if (i == t->watches.n) {
		t->watches.w[i] = (struct mmu_watch){.addr = addr, .len = (uint32_t)len, .kinds = kinds};
		t->watches.n++;
	}
	return true;
}

static void watch_remove(struct gdb_target *t, uint8_t kinds, gva_t addr, uint64_t len)
{
	unsigned i = watch_find(t, kinds, addr, len);

	if (i < t->watches.n)
		t->watches.w[i] = t->watches.w[--t->watches.n];
}

bool gdb_target_watched(const struct gdb_target *t, gva_t addr)
{
	for (unsigned i = 0; i < t->watches.n; i++)
		if (addr - t->watches.w[i].addr < t->watches.w[i].len)
			return true;
	return false;
}

/* --- both ------------------------------------------------------------------------------------------------------------------ */

bool gdb_target_insert(struct gdb_target *t, enum gdb_point kind, uint64_t addr, uint64_t len)
{
	bool ok = kind <= GDB_BREAK_HARD ? break_insert(t, kind, addr) : watch_insert(t, watch_kinds(kind), addr, len);

	t->changed |= ok;
	return ok;
}

bool gdb_target_remove(struct gdb_target *t, enum gdb_point kind, uint64_t addr, uint64_t len)
{
	if (kind <= GDB_BREAK_HARD)
		break_remove(t, kind, addr);
	else
		watch_remove(t, watch_kinds(kind), addr, len);
	t->changed = true;
	return true;
}

void gdb_target_clear(struct gdb_target *t)
{
	t->breaks.n = 0;
	t->watches.n = 0;
	t->physical = false;
	t->changed = true;
}

void gdb_target_apply(struct gdb_target *t)
{
	for (unsigned i = 0; i < t->ncpus; i++) {
		struct vcpu *v = t->vcpu[i];

		v->debug.breaks = t->breaks.n ? &t->breaks : NULL;
		if (!t->changed)
			continue;
		v->mmu.watches = t->watches.n ? &t->watches : NULL;
		mmu_flush_all(&v->mmu);
	}
	t->changed = false;
}
