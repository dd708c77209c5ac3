/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The report of --profile: sections of the machine's statistics (JSON), and tables for people.
 *
 * Everything is a list of rows, made anew for each report by adding up the vCPUs, the biggest first. Runs on the main thread, also while the
 * vCPUs run: a report may then be a few samples behind.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include "vm/profile_private.h"
#include "x86/insn.h"

#define TOP 40 /* rows of a list */

struct row {
	uint64_t key;                      /* what is meant depends on the list */
	uint64_t samples, count;
	uint64_t part[PROF_ACTIVITIES];
	uint16_t kind, bytes, insns;       /* of blocks */
	uint32_t most;
};

struct list {
	struct row *row;
	size_t n;
};

static int by_samples(const void *a, const void *b)
{
	const struct row *x = a, *y = b;

	if (x->samples != y->samples)
		return x->samples > y->samples ? -1 : 1;
	return x->count != y->count ? (x->count > y->count ? -1 : 1) : 0;
}

static int by_count(const void *a, const void *b)
{
	const struct row *x = a, *y = b;

	return x->count != y->count ? (x->count > y->count ? -1 : 1) : 0;
}

static int by_key(const void *a, const void *b)
{
	const struct row *x = a, *y = b;

	return x->key < y->key ? -1 : x->key > y->key;
}

/* Room for n rows, or an empty list if there is none: a report then lacks it. */
static struct list list_create(size_t n)
{
	return (struct list){.row = calloc(n ? n : 1, sizeof(struct row))};
}

static void list_sort(struct list *l)
{
	if (l->row)
		qsort(l->row, l->n, sizeof(*l->row), by_samples);
}

/* --- what there is --------------------------------------------------------------------------------------------------- */

static struct list code_list(const struct vm_profile *p)
{
	struct list l = list_create(ENGINE_SPOTS);

	for (unsigned k = 0; l.row && p->vm->engine->spots && p->vm->engine->spots[k]; k++) {
		l.row[l.n].key = k;
		for (unsigned i = 0; i < p->vm->ncpus; i++)
			l.row[l.n].samples += p->cpu[i].spot[k];
		l.n += l.row[l.n].samples != 0;
	}
	list_sort(&l);
	return l;
}

static struct list work_list(const struct vm_profile *p)
{
	struct list l = list_create(PROF_KINDS + 1);

	for (unsigned k = 0; l.row && k < PROF_KINDS; k++) {
		struct row *r = &l.row[l.n];

		*r = (struct row){.key = k};
		for (unsigned i = 0; i < p->vm->ncpus; i++) {
			const struct prof *f = &p->cpu[i].prof;

			r->count += f->count[k];
			for (unsigned a = 0; a < PROF_ACTIVITIES; a++) {
				r->part[a] += f->samples[k][a];
				r->samples += a == PROF_HALT ? 0 : f->samples[k][a];
			}
		}
		l.n += r->samples || r->count;
	}
	list_sort(&l);
	return l;
}

static struct list device_list(const struct vm_profile *p)
{
	struct list l = list_create((size_t)p->vm->ncpus * PROF_DEVICES);

	for (unsigned i = 0; l.row && i < p->vm->ncpus; i++)
		for (unsigned k = 0; k < PROF_DEVICES && p->cpu[i].prof.dev[k].owner; k++) {
			const struct prof_device *d = &p->cpu[i].prof.dev[k];
			size_t at = 0;

			while (at < l.n && l.row[at].key != (uintptr_t)d->owner)
				at++;
			l.n += at == l.n;
			l.row[at].key = (uintptr_t)d->owner;
			l.row[at].part[0] = d->where;
			l.row[at].samples += d->samples;
			l.row[at].count += d->count;
		}
	list_sort(&l);
	return l;
}

static struct list function_list(const struct vm_profile *p)
{
	struct list l = list_create(p->symbols.n + 1);

	for (unsigned k = 0; l.row && k <= p->symbols.n; k++) {
		l.row[l.n].key = k;
		for (unsigned i = 0; i < p->vm->ncpus; i++)
			l.row[l.n].samples += p->cpu[i].function[k];
		l.n += l.row[l.n].samples != 0;
	}
	list_sort(&l);
	return l;
}

/* The same block of several vCPUs, and its parts in and out of line, become one. */
static void merge_blocks(struct list *l)
{
	size_t n = 0;

	qsort(l->row, l->n, sizeof(*l->row), by_key);
	for (size_t i = 0; i < l->n; i++) {
		struct row *to = n ? &l->row[n - 1] : NULL;

		if (!to || to->key != l->row[i].key) {
			l->row[n++] = l->row[i];
			continue;
		}
		to->samples += l->row[i].samples;
		if (l->row[i].most > to->most) {
			to->most = l->row[i].most;
			to->kind = l->row[i].kind;
		}
	}
	l->n = n;
}

static struct list block_list(const struct vm_profile *p)
{
	struct list l = list_create((size_t)p->vm->ncpus * PROFILE_BLOCKS);

	for (unsigned i = 0; l.row && i < p->vm->ncpus; i++)
		for (unsigned k = 0; k < PROFILE_BLOCKS; k++) {
			const struct profile_block *b = &p->cpu[i].block[k];
			uint32_t samples = __atomic_load_n(&b->samples, __ATOMIC_ACQUIRE);

			if (samples)
				l.row[l.n++] = (struct row){.key = b->addr, .samples = samples, .most = samples, .kind = b->kind,
							    .bytes = b->bytes, .insns = b->insns};
		}
	if (l.row)
		merge_blocks(&l);
	list_sort(&l);
	return l;
}

/* Where slow accesses and interpreted instructions are, by how often. */
static struct list place_list(const struct vm_profile *p)
{
	struct list l = list_create((size_t)p->vm->ncpus * PROF_PLACES);

	for (unsigned i = 0; l.row && i < p->vm->ncpus; i++)
		for (unsigned k = 0; k < PROF_PLACES; k++) {
			const struct prof_place *e = &p->cpu[i].prof.place[k];
			uint64_t count = __atomic_load_n(&e->count, __ATOMIC_ACQUIRE);

			if (count)
				l.row[l.n++] = (struct row){.key = e->kind, .part = {e->addr}, .count = count};
		}
	list_sort(&l);
	return l;
}

/* --- names ---------------------------------------------------------------------------------------------------------- */

static const char *code_name(const struct vm_profile *p, const struct row *r, char *buf, size_t size)
{
	(void)buf;
	(void)size;
	return p->vm->engine->spots[r->key];
}

static const char *work_name(const struct vm_profile *p, const struct row *r, char *buf, size_t size)
{
	static const char *const names[PROF_INSN] = {
		[PROF_OTHER] = "run loop and signals",
		[PROF_MISS] = "dispatch: no translation found",
		[PROF_LINK] = "direct branch taken first",
		[PROF_EVENT] = "event seen at a block's entry",
		[PROF_SYSCALL] = "SYSCALL",
		[PROF_SYSRET] = "SYSRET",
		[PROF_FILL_READ] = "access: first read of a page",
		[PROF_FILL_WRITE] = "access: first write to a page",
		[PROF_FILL_UPGRADE] = "access: first write to a page read before",
		[PROF_CROSS] = "access: crosses a page",
		[PROF_CODE] = "access: store to a page with code",
		[PROF_MMIO] = "access: device memory",
		[PROF_FAULT] = "access: page fault or other exception",
		[PROF_SLOW] = "access: other",
		[PROF_HOST_FAULT] = "fault of the host's processor",
		[PROF_INSN_CROSSING] = "interpreted: crosses a page",
	};

	(void)p;
	if (r->key < PROF_INSN)
		return names[r->key];
	if (r->key == PROF_INSN)
		return "interpreted: exception while fetching";
	snprintf(buf, size, "interpreted: %s", insn_name((unsigned)r->key - PROF_INSN));
	return buf;
}

static const char *place_name(const struct vm_profile *p, const struct row *r, char *buf, size_t size)
{
	char what[64];

	snprintf(buf, size, "%llx %s", (unsigned long long)r->part[0], work_name(p, r, what, sizeof(what)));
	return buf;
}

static const char *device_name(const struct vm_profile *p, const struct row *r, char *buf, size_t size)
{
	const struct board *b = &p->vm->board;

	for (unsigned i = 0; i < b->ndevices; i++)
		if ((uintptr_t)b->device[i].inst == r->key)
			return b->device[i].name;
	snprintf(buf, size, r->part[0] & BIT(63) ? "port %llx" : "memory %llx", (unsigned long long)(r->part[0] & ~BIT(63)));
	return buf;
}

static const char *function_name(const struct vm_profile *p, const struct row *r, char *buf, size_t size)
{
	(void)buf;
	(void)size;
	return r->key < p->symbols.n ? p->symbols.e[r->key].name : "(no symbol)";
}

static const char *block_name(const struct vm_profile *p, const struct row *r, char *buf, size_t size)
{
	(void)p;
	snprintf(buf, size, "%llx", (unsigned long long)r->key);
	return buf;
}

/* --- JSON ------------------------------------------------------------------------------------------------------------ */

typedef const char *name_fn(const struct vm_profile *p, const struct row *r, char *buf, size_t size);

static void emit_list(const struct vm_profile *p, struct list l, name_fn *name, bool counts, stats_emit_fn *emit, void *o)
{
	char buf[96];

	if (counts && l.row)
		qsort(l.row, l.n, sizeof(*l.row), by_count);
	for (size_t i = 0; i < l.n && i < TOP; i++)
		if (counts ? l.row[i].count : l.row[i].samples)
			emit(o, name(p, &l.row[i], buf, sizeof(buf)), counts ? l.row[i].count : l.row[i].samples);
	free(l.row);
}

static uint64_t halted(const struct vm_profile *p)
{
	uint64_t n = 0;

	for (unsigned i = 0; i < p->vm->ncpus; i++)
		for (unsigned k = 0; k < PROF_KINDS; k++)
			n += p->cpu[i].prof.samples[k][PROF_HALT];
	return n;
}

static uint64_t all_samples(const struct vm_profile *p)
{
	uint64_t n = 0;

	for (unsigned i = 0; i < p->vm->ncpus; i++)
		n += p->cpu[i].samples;
	return n;
}

static uint64_t ns_of(struct timeval tv)
{
	return (uint64_t)tv.tv_sec * 1000000000ull + (uint64_t)tv.tv_usec * 1000;
}

static void emit_sum(void *p, stats_emit_fn *emit, void *o)
{
	uint64_t all = all_samples(p), idle = halted(p);
	struct rusage ru;

	getrusage(RUSAGE_SELF, &ru);
	emit(o, "period_ns", PROFILE_PERIOD_NS);
	emit(o, "samples", all - (idle < all ? idle : all));
	emit(o, "halted_samples", idle);
	emit(o, "user_ns", ns_of(ru.ru_utime));
	emit(o, "system_ns", ns_of(ru.ru_stime));
	emit(o, "host_page_faults", (uint64_t)ru.ru_minflt);
}

static void emit_code(void *p, stats_emit_fn *emit, void *o) { emit_list(p, code_list(p), code_name, false, emit, o); }
static void emit_work(void *p, stats_emit_fn *emit, void *o) { emit_list(p, work_list(p), work_name, false, emit, o); }
static void emit_events(void *p, stats_emit_fn *emit, void *o) { emit_list(p, work_list(p), work_name, true, emit, o); }
static void emit_devices(void *p, stats_emit_fn *emit, void *o) { emit_list(p, device_list(p), device_name, false, emit, o); }
static void emit_functions(void *p, stats_emit_fn *emit, void *o) { emit_list(p, function_list(p), function_name, false, emit, o); }
static void emit_places(void *p, stats_emit_fn *emit, void *o) { emit_list(p, place_list(p), place_name, true, emit, o); }
static void emit_blocks(void *p, stats_emit_fn *emit, void *o) { emit_list(p, block_list(p), block_name, false, emit, o); }

void profile_register(struct vm_profile *p)
{
	static const struct stats_source sources[PROFILE_SECTIONS] = {
		{.section = "profile", .emit = emit_sum},
		{.section = "profile_code", .emit = emit_code},
		{.section = "profile_work", .emit = emit_work},
		{.section = "profile_events", .emit = emit_events},
		{.section = "profile_places", .emit = emit_places},
		{.section = "profile_devices", .emit = emit_devices},
		{.section = "profile_functions", .emit = emit_functions},
		{.section = "profile_blocks", .emit = emit_blocks},
	};

	for (unsigned i = 0; i < PROFILE_SECTIONS; i++) {
		p->source[i] = sources[i];
		p->source[i].opaque = p;
		stats_register(&p->vm->io.registry, &p->source[i]);
	}
}

/* --- text ------------------------------------------------------------------------------------------------------------ */

static double percent(uint64_t n, uint64_t of)
{
	return of ? 100.0 * (double)n / (double)of : 0;
}

static uint64_t list_sum(const struct list *l)
{
	uint64_t n = 0;

	for (size_t i = 0; i < l->n; i++)
		n += l->row[i].samples;
	return n;
}

static void print_list(const struct vm_profile *p, struct list l, const char *title, name_fn *name, uint64_t all, int fd)
{
	char buf[64];

	if (l.n)
		dprintf(fd, "\n%7.1f %%  %s\n", percent(list_sum(&l), all), title);
	for (size_t i = 0; i < l.n && i < TOP; i++)
		dprintf(fd, "%7.2f %%  %s\n", percent(l.row[i].samples, all), name(p, &l.row[i], buf, sizeof(buf)));
	free(l.row);
}

static void print_work(const struct vm_profile *p, uint64_t all, int fd)
{
	struct list l = work_list(p);
	char buf[64];

	dprintf(fd, "\n%7.1f %%  the monitor, by what for          %9s %9s    walk translate  device\n", percent(list_sum(&l), all), "times", "us each");
	for (size_t i = 0; i < l.n && i < TOP; i++) {
		const struct row *r = &l.row[i];

		dprintf(fd, "%7.2f %%  %-42s", percent(r->samples, all), work_name(p, r, buf, sizeof(buf)));
		if (r->count)
			dprintf(fd, "%9llu %9.2f", (unsigned long long)r->count,
				(double)r->samples * PROFILE_PERIOD_NS / 1000 / (double)r->count);
		else
			dprintf(fd, "%19s", "");
		dprintf(fd, " %5.2f %%  %5.2f %% %5.2f %%\n", percent(r->part[PROF_WALK], all), percent(r->part[PROF_TRANSLATE], all),
			percent(r->part[PROF_DEVICE], all));
	}
	free(l.row);
}

static void print_devices(const struct vm_profile *p, uint64_t all, int fd)
{
	struct list l = device_list(p);
	char buf[64];

	if (l.n)
		dprintf(fd, "\n%7.1f %%  devices (part of the above)         accesses\n", percent(list_sum(&l), all));
	for (size_t i = 0; i < l.n && i < TOP; i++)
		dprintf(fd, "%7.2f %%  %-34s %10llu\n", percent(l.row[i].samples, all), device_name(p, &l.row[i], buf, sizeof(buf)),
			(unsigned long long)l.row[i].count);
	free(l.row);
}

static void print_blocks(const struct vm_profile *p, uint64_t all, int fd)
{
	struct list l = block_list(p);

	if (l.n)
		dprintf(fd, "\n           the hottest blocks of guest code   instructions, bytes\n");
	for (size_t i = 0; i < l.n && i < TOP; i++)
		dprintf(fd, "%7.2f %%  %16llx %4u %5u  %s\n", percent(l.row[i].samples, all), (unsigned long long)l.row[i].key, l.row[i].insns,
			l.row[i].bytes, p->vm->engine->spots[l.row[i].kind]);
	free(l.row);
}

static void print_places(const struct vm_profile *p, int fd)
{
	struct list l = place_list(p);
	char buf[64];

	if (l.n)
		dprintf(fd, "\n     times  slow accesses and interpreted instructions, by place\n");
	for (size_t i = 0; i < l.n && i < TOP; i++)
		dprintf(fd, "%10llu  %16llx  %s\n", (unsigned long long)l.row[i].count, (unsigned long long)l.row[i].part[0],
			work_name(p, &l.row[i], buf, sizeof(buf)));
	free(l.row);
}

void profile_print(struct vm_profile *p, int fd)
{
	uint64_t idle = halted(p), all = all_samples(p) - idle;
	uint32_t lost = 0;
	struct rusage ru;

	for (unsigned i = 0; i < p->vm->ncpus; i++)
		lost += p->cpu[i].lost;
	getrusage(RUSAGE_SELF, &ru);
	dprintf(fd, "profile of %s, engine %s: %llu samples, one every %.3f ms, and %llu while halted\n", p->vm->config->name, p->vm->engine->name,
		(unsigned long long)all, PROFILE_PERIOD_NS / 1e6, (unsigned long long)idle);
	dprintf(fd, "the whole process: %.3f s in user mode, %.3f s in the host's kernel; %ld page faults of the host\n",
		(double)ns_of(ru.ru_utime) / 1e9, (double)ns_of(ru.ru_stime) / 1e9, ru.ru_minflt);
	print_list(p, code_list(p), "translated code", code_name, all, fd);
	print_work(p, all, fd);
	print_places(p, fd);
	print_devices(p, all, fd);
	print_list(p, function_list(p), "functions of the monitor (the same samples once more)", function_name, all, fd);
	print_blocks(p, all, fd);
	if (lost)
		dprintf(fd, "%u samples of further blocks had no room\n", lost);
}
