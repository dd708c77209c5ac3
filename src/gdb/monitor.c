/* SPDX-License-Identifier: Apache-2.0 */
/*
 * `monitor` commands: what the protocol has no packets for.
 *
 * Invariant: the answer is text of at most the size given, terminated. Locking: the machine stands still.
 */
#include "gdb/private.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "mem/mem.h"

#define XP_MAX 1024u

struct answer {
	char *text;
	size_t size, len;
};

static void say(struct answer *a, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

static void say(struct answer *a, const char *fmt, ...)
{
	va_list ap;
	int n;

	va_start(ap, fmt);
	n = vsnprintf(a->text + a->len, a->size - a->len, fmt, ap);
	va_end(ap);
	if (n > 0)
		a->len = a->len + (size_t)n < a->size ? a->len + (size_t)n : a->size - 1;
}

static void help(struct gdb *g, const char *args, struct answer *a);

static void info_registers(struct gdb *g, const char *args, struct answer *a)
{
	unsigned long n = g->cur_g;
	char *end;

	if (*args) {
		n = strtoul(args, &end, 10);
		if (*args < '0' || *args > '9' || *end || n >= g->c.ncpus) {
			say(a, "info registers takes a CPU from 0 to %u\n", g->c.ncpus - 1);
			return;
		}
	}
	a->len += vcpu_format(g->c.vcpu[n], a->text + a->len, a->size - a->len);
}

static void info_cpus(struct gdb *g, const char *args, struct answer *a)
{
	(void)args;
	for (unsigned i = 0; i < g->c.ncpus; i++) {
		const struct vcpu *v = g->c.vcpu[i];

		say(a, "%c CPU#%u cpl %u rip %016llx %s\n", i == g->cur_g ? '*' : ' ', i, v->cpl, (unsigned long long)v->rip,
		    gdb_cpu_text(g, i));
	}
}

/* Where a virtual address leads, with the rights on the way. */
static void info_page(struct gdb *g, const char *args, struct answer *a)
{
	char *end;
	unsigned long long gva = strtoull(args, &end, 0);
	struct mmu_walk w;

	if (end == args || *end) {
		say(a, "gva2gpa takes an address\n");
		return;
	}
	if (!mmu_probe(&g->c.vcpu[g->cur_g]->mmu, gva, &w)) {
		say(a, "%#llx is not mapped\n", gva);
		return;
	}
	say(a, "%#llx -> %#llx, page of %llu KiB, %s%s%s%s\n", gva, (unsigned long long)w.gpa,
	    w.page_shift == 32 ? 0 : BIT(w.page_shift - 10), w.user ? "user " : "supervisor ", w.writable ? "writable " : "read-only ",
	    w.nx ? "nx " : "", w.dirty ? "dirty" : "clean");
}

static void examine_physical(struct gdb *g, const char *args, struct answer *a)
{
	char *end, *end2;
	unsigned long long gpa = strtoull(args, &end, 0), len = *end ? strtoull(end, &end2, 0) : 64;
	uint8_t byte;

	if (end == args || (*end && *end2) || len == 0 || len > XP_MAX) {
		say(a, "xp takes a physical address and at most %u bytes\n", XP_MAX);
		return;
	}
	for (unsigned long long i = 0; i < len; i++) {
		if (i % 16 == 0)
			say(a, "%s%016llx:", i ? "\n" : "", gpa + i);
		if (mem_read(g->c.mem, gpa + i, &byte, 1))
			say(a, " --");
		else
			say(a, " %02x", byte);
	}
	say(a, "\n");
}

static void reset(struct gdb *g, const char *args, struct answer *a)
{
	(void)args;
	g->c.ops->reset(g->c.vm);
	say(a, "The machine is reset when it goes on.\n");
}

static const struct monitor {
	const char *name, *what;
	void (*fn)(struct gdb *g, const char *args, struct answer *a);
} list[] = {
	{"help", "this list", help},
	/* gdb tells of the thread chosen only when it reads registers: after `info threads` it is the last one. */
	{"info registers", "[CPU]: its whole state; without a number, of the CPU that gdb has looked at last", info_registers},
	{"info cpus", "a line for each CPU", info_cpus},
	{"gva2gpa", "ADDR: where a virtual address leads", info_page},
	{"xp", "ADDR [BYTES]: physical memory", examine_physical},
	{"reset", "resets the machine", reset},
};

static void help(struct gdb *g, const char *args, struct answer *a)
{
	(void)g;
	(void)args;
	for (size_t i = 0; i < nitems(list); i++)
		say(a, "%-16s %s\n", list[i].name, list[i].what);
}

void gdb_monitor(struct gdb *g, const char *text, char *out, size_t size)
{
	struct answer a = {.text = out, .size = size};

	out[0] = 0;
	for (size_t i = 0; i < nitems(list); i++) {
		size_t n = strlen(list[i].name);

		if (strncmp(text, list[i].name, n) || (text[n] && text[n] != ' '))
			continue;
		list[i].fn(g, text + n + strspn(text + n, " "), &a);
		return;
	}
	say(&a, "unknown command; `monitor help` lists them\n");
}
