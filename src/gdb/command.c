/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The packets: parsing what the client asks, doing it, replying.
 *
 * Invariant: a packet is parsed from a terminated copy of at most GDB_PACKET_MAX bytes; every number in it is checked before it is used;
 * what is malformed gets E01, what cannot be done E02, memory that is not there E14, what is not known the empty reply. While the
 * machine runs (the client should be waiting) only packets that need no stopped vCPU are served.
 * Spec: "Debugging with GDB" E.2 (packets), E.4 (general queries), E.7 (host I/O is not offered).
 */
#include "gdb/private.h"

#include <stdio.h>
#include <string.h>

#define E_MALFORMED "E01"
#define E_IMPOSSIBLE "E02"
#define E_FAULT "E0e"

static struct vcpu *cpu_g(const struct gdb *g)
{
	return g->c.vcpu[g->cur_g];
}

static bool take(const char **s, const char *prefix)
{
	size_t n = strlen(prefix);

	if (strncmp(*s, prefix, n) != 0)
		return false;
	*s += n;
	return true;
}

/* A thread id: a CPU's number + 1; 0 is any and -1 is all, for both of which the CPU already chosen stands. */
static bool take_thread(const char **s, unsigned ncpus, unsigned chosen, unsigned *n)
{
	uint64_t id;

	if (take(s, "-1")) {
		*n = chosen;
		return true;
	}
	if (!gdb_hex_number(s, &id) || id > ncpus)
		return false;
	*n = id ? (unsigned)id - 1 : chosen;
	return true;
}

/* --- registers ------------------------------------------------------------------------------------------------------- */

static void cmd_read_all(struct gdb *g, const char *s)
{
	uint8_t val[GDB_REG_BYTES_MAX];
	size_t len = 0;

	(void)s;
	for (unsigned n = 0; n < gdb_reg_count(); n++) {
		gdb_reg_read(cpu_g(g), n, val);
		gdb_hex_put(g->reply + len, val, gdb_reg_bytes(n));
		len += 2 * (size_t)gdb_reg_bytes(n);
	}
	gdb_send_bytes(g, g->reply, len);
}

/* As many as are given; those that can only be read stay what they are. */
static void cmd_write_all(struct gdb *g, const char *s)
{
	uint8_t val[GDB_REG_BYTES_MAX];
	size_t left = strlen(s);

	for (unsigned n = 0; n < gdb_reg_count() && left; n++) {
		size_t digits = 2 * (size_t)gdb_reg_bytes(n);

		if (left < digits || !gdb_hex_get(val, s, digits / 2)) {
			gdb_send(g, E_MALFORMED);
			return;
		}
		(void)gdb_reg_write(cpu_g(g), n, val);
		s += digits;
		left -= digits;
	}
	gdb_send(g, left ? E_MALFORMED : "OK");
}

static void cmd_read_one(struct gdb *g, const char *s)
{
	uint8_t val[GDB_REG_BYTES_MAX];
	uint64_t n;

	if (!gdb_hex_number(&s, &n) || *s || n >= gdb_reg_count()) {
		gdb_send(g, E_MALFORMED);
		return;
	}
	gdb_reg_read(cpu_g(g), (unsigned)n, val);
	gdb_hex_put(g->reply, val, gdb_reg_bytes((unsigned)n));
	gdb_send_bytes(g, g->reply, 2 * (size_t)gdb_reg_bytes((unsigned)n));
}

static void cmd_write_one(struct gdb *g, const char *s)
{
	uint8_t val[GDB_REG_BYTES_MAX];
	uint64_t n;

	if (!gdb_hex_number(&s, &n) || !take(&s, "=") || n >= gdb_reg_count() ||
	    strlen(s) != 2 * (size_t)gdb_reg_bytes((unsigned)n) || !gdb_hex_get(val, s, gdb_reg_bytes((unsigned)n))) {
		gdb_send(g, E_MALFORMED);
		return;
	}
	gdb_send(g, gdb_reg_write(cpu_g(g), (unsigned)n, val) ? "OK" : E_IMPOSSIBLE);
}

/* --- memory ------------------------------------------------------------------------------------------------------------ */

static bool take_range(const char **s, uint64_t *addr, uint64_t *len)
{
	return gdb_hex_number(s, addr) && take(s, ",") && gdb_hex_number(s, len);
}

static void cmd_read_memory(struct gdb *g, const char *s)
{
	uint64_t addr, len;
	size_t n;

	if (!take_range(&s, &addr, &len) || *s || len > GDB_PACKET_MAX / 2) {
		gdb_send(g, E_MALFORMED);
		return;
	}
	n = gdb_target_read(&g->target, cpu_g(g), addr, g->scratch, len);
	if (n == 0 && len) {
		gdb_send(g, E_FAULT);
		return;
	}
	gdb_hex_put(g->reply, g->scratch, n);
	gdb_send_bytes(g, g->reply, 2 * n);
}

static void write_memory(struct gdb *g, uint64_t addr, const void *data, size_t len)
{
	gdb_send(g, gdb_target_write(&g->target, cpu_g(g), addr, data, len) ? "OK" : E_FAULT);
}

static void cmd_write_memory(struct gdb *g, const char *s)
{
	uint64_t addr, len;

	if (!take_range(&s, &addr, &len) || !take(&s, ":") || len > GDB_PACKET_MAX / 2 || strlen(s) != 2 * len ||
	    !gdb_hex_get(g->scratch, s, len)) {
		gdb_send(g, E_MALFORMED);
		return;
	}
	write_memory(g, addr, g->scratch, len);
}

/* The data are bytes and may hold zeros: their number is what the packet has left. */
static void cmd_write_binary(struct gdb *g, const char *s)
{
	const char *end = (const char *)g->io.in + g->io.in_len;
	uint64_t addr, len;

	if (!take_range(&s, &addr, &len) || !take(&s, ":") || (uint64_t)(end - s) != len) {
		gdb_send(g, E_MALFORMED);
		return;
	}
	write_memory(g, addr, s, len);
}

/* --- breakpoints ----------------------------------------------------------------------------------------------------------- */

static bool take_point(const char *s, uint64_t *kind, uint64_t *addr, uint64_t *len)
{
	/* Conditions and commands (";...") are not announced and not taken. */
	return gdb_hex_number(&s, kind) && take(&s, ",") && take_range(&s, addr, len) && !*s;
}

static void cmd_insert(struct gdb *g, const char *s)
{
	uint64_t kind, addr, len;

	if (!take_point(s, &kind, &addr, &len))
		gdb_send(g, E_MALFORMED);
	else if (kind >= GDB_POINTS)
		gdb_send(g, "");
	else
		gdb_send(g, gdb_target_insert(&g->target, (enum gdb_point)kind, addr, len) ? "OK" : E_IMPOSSIBLE);
}

static void cmd_remove(struct gdb *g, const char *s)
{
	uint64_t kind, addr, len;

	if (!take_point(s, &kind, &addr, &len))
		gdb_send(g, E_MALFORMED);
	else if (kind >= GDB_POINTS)
		gdb_send(g, "");
	else
		gdb_send(g, gdb_target_remove(&g->target, (enum gdb_point)kind, addr, len) ? "OK" : E_IMPOSSIBLE);
}

/* --- threads ---------------------------------------------------------------------------------------------------------------- */

static void cmd_choose(struct gdb *g, const char *s)
{
	char op = *s;
	unsigned *chosen = op == 'g' ? &g->cur_g : &g->cur_c, n;

	if (op != 'g' && op != 'c') {
		gdb_send(g, E_MALFORMED);
		return;
	}
	s++;
	if (!take_thread(&s, g->c.ncpus, *chosen, &n) || *s) {
		gdb_send(g, E_MALFORMED);
		return;
	}
	*chosen = n;
	gdb_send(g, "OK");
}

static void cmd_alive(struct gdb *g, const char *s)
{
	uint64_t id;

	gdb_send(g, gdb_hex_number(&s, &id) && !*s && id >= 1 && id <= g->c.ncpus ? "OK" : E_MALFORMED);
}

static void query_threads(struct gdb *g, const char *s)
{
	size_t len = 0;

	(void)s;
	for (unsigned i = 0; i < g->c.ncpus; i++)
		len += (size_t)snprintf(g->reply + len, sizeof(g->reply) - len, "%c%x", i ? ',' : 'm', i + 1);
	gdb_send(g, g->reply);
}

static void query_threads_end(struct gdb *g, const char *s)
{
	(void)s;
	gdb_send(g, "l");
}

const char *gdb_cpu_text(const struct gdb *g, unsigned n)
{
	static const char *const text[] = {
		[GDB_CPU_RUNS] = "running", [GDB_CPU_HALTED] = "halted", [GDB_CPU_WAITS] = "waiting to be started"};

	return text[g->c.ops->cpu_state(g->c.vm, n)];
}

static void query_thread_info(struct gdb *g, const char *s)
{
	char text[64];
	unsigned n;

	if (!take_thread(&s, g->c.ncpus, g->cur_g, &n) || *s) {
		gdb_send(g, E_MALFORMED);
		return;
	}
	snprintf(text, sizeof(text), "CPU#%u [%s]", n, gdb_cpu_text(g, n));
	gdb_hex_put(g->reply, text, strlen(text));
	gdb_send_bytes(g, g->reply, 2 * strlen(text));
}

static void query_current(struct gdb *g, const char *s)
{
	(void)s;
	snprintf(g->reply, sizeof(g->reply), "QC%x", g->cur_g + 1);
	gdb_send(g, g->reply);
}

/* --- queries and settings --------------------------------------------------------------------------------------------------- */

static void query_supported(struct gdb *g, const char *s)
{
	g->swbreak = strstr(s, "swbreak+") != NULL;
	g->hwbreak = strstr(s, "hwbreak+") != NULL;
	snprintf(g->reply, sizeof(g->reply),
		 "PacketSize=%x;qXfer:features:read+;vContSupported+;QStartNoAckMode+;swbreak+;hwbreak+", GDB_PACKET_MAX);
	gdb_send(g, g->reply);
}

static void query_features(struct gdb *g, const char *s)
{
	uint64_t off, len;

	if (!take(&s, "target.xml:") || !take_range(&s, &off, &len) || *s) {
		gdb_send(g, E_MALFORMED);
		return;
	}
	if (off >= g->xml_len) {
		gdb_send(g, "l");
		return;
	}
	if (len > GDB_PACKET_MAX - 1)
		len = GDB_PACKET_MAX - 1;
	if (len > g->xml_len - off)
		len = g->xml_len - off;
	g->reply[0] = off + len == g->xml_len ? 'l' : 'm';
	memcpy(g->reply + 1, g->xml + off, len);
	gdb_send_bytes(g, g->reply, len + 1);
}

static void query_attached(struct gdb *g, const char *s)
{
	(void)s;
	gdb_send(g, "1"); /* leaving gdb detaches and does not kill */
}

static void query_monitor(struct gdb *g, const char *s)
{
	char text[256];
	size_t len = strlen(s) / 2, n;

	if (strlen(s) % 2 || len >= sizeof(text) || !gdb_hex_get(text, s, len)) {
		gdb_send(g, E_MALFORMED);
		return;
	}
	text[len] = 0;
	gdb_monitor(g, text, (char *)g->scratch, GDB_PACKET_MAX / 2);
	n = strlen((const char *)g->scratch);
	if (n == 0) {
		gdb_send(g, "OK");
		return;
	}
	gdb_hex_put(g->reply, g->scratch, n);
	gdb_send_bytes(g, g->reply, 2 * n);
}

static void set_no_ack(struct gdb *g, const char *s)
{
	(void)s;
	gdb_send(g, "OK");
	g->io.no_ack = true;
}

static void query_physical(struct gdb *g, const char *s)
{
	(void)s;
	gdb_send(g, g->target.physical ? "1" : "0");
}

static void set_physical(struct gdb *g, const char *s)
{
	if ((s[0] != '0' && s[0] != '1') || s[1]) {
		gdb_send(g, E_MALFORMED);
		return;
	}
	g->target.physical = s[0] == '1';
	gdb_send(g, "OK");
}

/* Packets that begin with q and Q, by what follows; the rest of the packet is the function's. */
static const struct query {
	const char *name;
	bool exact, running;  /* nothing may follow; served while the machine runs too */
	void (*fn)(struct gdb *g, const char *s);
} queries[] = {
	{"qSupported", false, true, query_supported},
	{"qXfer:features:read:", false, true, query_features},
	{"qfThreadInfo", true, true, query_threads},
	{"qsThreadInfo", true, true, query_threads_end},
	{"qThreadExtraInfo,", false, false, query_thread_info},
	{"qC", true, true, query_current},
	{"qAttached", false, true, query_attached},
	{"qRcmd,", false, false, query_monitor},
	{"qqemu.PhyMemMode", true, true, query_physical},   /* the name other emulators have given it */
	{"Qqemu.PhyMemMode:", false, false, set_physical},
	{"QStartNoAckMode", true, true, set_no_ack},
};

static void cmd_query(struct gdb *g, const char *s)
{
	for (size_t i = 0; i < nitems(queries); i++) {
		const char *rest = s;

		if (!take(&rest, queries[i].name) || (queries[i].exact && *rest))
			continue;
		if (!queries[i].running && g->state != GDB_STOPPED)
			gdb_send(g, E_IMPOSSIBLE);
		else
			queries[i].fn(g, rest);
		return;
	}
	gdb_send(g, "");
}

/* --- resuming ------------------------------------------------------------------------------------------------------------------- */

static void cmd_why(struct gdb *g, const char *s)
{
	(void)s;
	gdb_send_stop(g);
}

/* c [addr] and s [addr]: old forms, for clients without vCont. An address is refused: gdb itself writes the register instead. */
static void cmd_continue(struct gdb *g, const char *s)
{
	if (*s)
		gdb_send(g, E_MALFORMED);
	else
		gdb_continue(g);
}

static void cmd_step(struct gdb *g, const char *s)
{
	if (*s)
		gdb_send(g, E_MALFORMED);
	else
		gdb_step(g, g->cur_c);
}

/* What one action of vCont says: c and s, C and S with a signal, which no processor can take, t to stay. */
static bool take_action(const char **s, char *action)
{
	uint64_t signal;

	*action = **s;
	if (!strchr("cCsSt", *action) || !*action)
		return false;
	++*s;
	return (*action != 'C' && *action != 'S') || gdb_hex_number(s, &signal);
}

/*
 * vCont;action[:thread]...: the first action that fits a thread is its own. One step is made with everything else standing, as other
 * system emulators do; without a step, one CPU that is to go on takes all along.
 */
static void vcont(struct gdb *g, const char *s)
{
	uint8_t action[VCPU_MAX] = {0};
	int step = -1;
	bool go = false;

	while (*s) {
		unsigned from = 0, to = g->c.ncpus;
		char a;

		if (!take(&s, ";") || !take_action(&s, &a))
			goto malformed;
		if (take(&s, ":") && !take(&s, "-1")) {
			if (!take_thread(&s, g->c.ncpus, g->cur_c, &from))
				goto malformed;
			to = from + 1;
		}
		for (unsigned i = from; i < to; i++)
			if (!action[i])
				action[i] = (uint8_t)(a | 0x20);
	}
	for (unsigned i = 0; i < g->c.ncpus; i++) {
		if (action[i] == 's' && (step < 0 || i == g->cur_c))
			step = (int)i;
		go |= action[i] == 'c';
	}
	if (step >= 0)
		gdb_step(g, (unsigned)step);
	else if (go)
		gdb_continue(g);
	else
		gdb_send(g, E_IMPOSSIBLE);
	return;
malformed:
	gdb_send(g, E_MALFORMED);
}

static void cmd_v(struct gdb *g, const char *s)
{
	if (!strcmp(s, "Cont?")) {
		gdb_send(g, "vCont;c;C;s;S;t");
	} else if (take(&s, "Cont")) {
		if (g->state == GDB_STOPPED)
			vcont(g, s);
		else
			gdb_send(g, E_IMPOSSIBLE);
	} else if (take(&s, "Kill;")) {
		gdb_send(g, "OK");
		g->c.ops->kill(g->c.vm);
	} else {
		gdb_send(g, "");
	}
}

static void cmd_detach(struct gdb *g, const char *s)
{
	(void)s;
	gdb_send(g, "OK");
	gdb_detach(g);
}

static void cmd_kill(struct gdb *g, const char *s)
{
	(void)s;
	g->c.ops->kill(g->c.vm);
}

static const struct command {
	char letter;
	bool running; /* served while the machine runs, too */
	void (*fn)(struct gdb *g, const char *s);
} commands[] = {
	{'?', false, cmd_why},          {'g', false, cmd_read_all},    {'G', false, cmd_write_all},
	{'p', false, cmd_read_one},     {'P', false, cmd_write_one},   {'m', false, cmd_read_memory},
	{'M', false, cmd_write_memory}, {'X', false, cmd_write_binary}, {'Z', false, cmd_insert},
	{'z', false, cmd_remove},       {'H', true, cmd_choose},       {'T', true, cmd_alive},
	{'c', false, cmd_continue},     {'s', false, cmd_step},        {'D', true, cmd_detach},
	{'k', true, cmd_kill},
};

void gdb_command(struct gdb *g)
{
	const char *s = (const char *)g->io.in;

	if (*s == 'q' || *s == 'Q') {
		cmd_query(g, s);
		return;
	}
	if (*s == 'v') {
		cmd_v(g, s + 1);
		return;
	}
	for (size_t i = 0; i < nitems(commands); i++) {
		if (commands[i].letter != *s)
			continue;
		if (!commands[i].running && g->state != GDB_STOPPED)
			gdb_send(g, E_IMPOSSIBLE);
		else
			commands[i].fn(g, s + 1);
		return;
	}
	gdb_send(g, "");
}
