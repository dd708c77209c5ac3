/* SPDX-License-Identifier: Apache-2.0 */
/* gdb/: the whole stub against a client that speaks (and misspeaks) the protocol: states, memory, points, threads, detaching. */
#include "fixture.h"

static void connecting(void **state)
{
	struct gbed *b = *state;

	assert_false(gdb_attached(b->g));
	gbed_connect(b);
	assert_true(b->held);
	assert_true(gdb_attached(b->g));
	gbed_expect(b, "qSupported:swbreak+;hwbreak+;xmlRegisters=i386",
		    "PacketSize=4000;qXfer:features:read+;vContSupported+;QStartNoAckMode+;swbreak+;hwbreak+");
	gbed_expect(b, "?", "T05thread:1;");
	gbed_expect(b, "vMustReplyEmpty", "");
	gbed_expect(b, "qfThreadInfo", "m1,2");
	gbed_expect(b, "qsThreadInfo", "l");
	gbed_expect(b, "T2", "OK");
	gbed_expect(b, "T3", "E01");
	gbed_expect(b, "T0", "E01");
	gbed_expect(b, "Hg2", "OK");
	gbed_expect(b, "qC", "QC2");
	gbed_expect(b, "Hg3", "E01");
	gbed_expect(b, "Hx1", "E01");
	b->cpu_state[1] = GDB_CPU_HALTED;
	gbed_expect(b, "qThreadExtraInfo,2", "435055233120" "5b68616c7465645d"); /* CPU#1 [halted] */
}

/* While the machine is on its way to a standstill nothing is answered; then everything is, in order. */
static void waits_for_standstill(void **state)
{
	struct gbed *b = *state;

	b->runs = true;
	gbed_connect(b);
	gbed_expect(b, "?", "");
	b->runs = false;
	gbed_turn(b);
	assert_string_equal(gbed_reply(b), "T05thread:1;");
}

static void memory(void **state)
{
	struct gbed *b = *state;
	char cmd[64];

	gbed_connect(b);
	snprintf(cmd, sizeof(cmd), "M%llx,4:11223344", (unsigned long long)K(0x8000));
	gbed_expect(b, cmd, "OK");
	assert_int_equal(fx_get(&b->cpu[0]->fx, 0x8000, 4), 0x44332211);
	snprintf(cmd, sizeof(cmd), "m%llx,4", (unsigned long long)K(0x8000));
	gbed_expect(b, cmd, "11223344");
	/* USER is one page: what can be read is, what cannot be is an error. */
	fx_put(&b->cpu[0]->fx, FX_DATA + 0xffe, 2, 0xbbaa);
	gbed_expect(b, "m400ffe,8", "aabb");
	gbed_expect(b, "m401000,8", "E0e");
	gbed_expect(b, "M400ffe,4:00000000", "E0e");
	gbed_expect(b, "m800000000000,1", "E0e"); /* not canonical */
	gbed_expect(b, "m400000,ffffffff", "E01");
	gbed_expect(b, "m400000", "E01");
	gbed_expect(b, "M400000,2:00", "E01");
	gbed_expect(b, "M400000,1:0g", "E01");
	gbed_expect(b, "X400000,2:}\x03x", "OK"); /* '#' escaped, then 'x' */
	assert_int_equal(fx_get(&b->cpu[0]->fx, FX_DATA, 2), 'x' << 8 | '#');
	gbed_expect(b, "X400000,3:xx", "E01");
	gbed_expect(b, "X400000,0:", "OK");
	/* Physical addresses. */
	gbed_expect(b, "m8000,1", "E0e");
	gbed_expect(b, "Qqemu.PhyMemMode:1", "OK");
	gbed_expect(b, "m8000,1", "11");
	gbed_expect(b, "mffffffffff000,1", "E0e");
	gbed_expect(b, "qqemu.PhyMemMode", "1");
}

static void registers(void **state)
{
	struct gbed *b = *state;
	struct vcpu *v = b->vcpu[0];

	gbed_connect(b);
	v->gpr[RAX] = 0x1122334455667788;
	gbed_expect(b, "p0", "8877665544332211");
	gbed_expect(b, "P7=0001000000000000", "OK"); /* rsp */
	assert_int_equal(v->gpr[RSP], 0x100);
	gbed_expect(b, "P7=00", "E01");
	gbed_expect(b, "Pff=00", "E01");
	gbed_expect(b, "pffffffff", "E01");
	gbed_expect(b, "p12", "08000000"); /* cs */
	gbed_expect(b, "P12=08000000", "OK");
	gbed_expect(b, "P12=10000000", "E02");
	gbed_send(b, "g");
	assert_int_equal(strlen(gbed_reply(b)), 2 * 864u);
	b->reply[0] = '9';
	b->reply[1] = '9';
	memmove(b->reply + 1, b->reply, strlen(b->reply) + 1);
	b->reply[0] = 'G';
	gbed_expect(b, b->reply, "OK");
	assert_int_equal(v->gpr[RAX], 0x1122334455667799);
	gbed_expect(b, "G00", "E01");
	gbed_expect(b, "Gzz", "E01");
}

static void points(void **state)
{
	struct gbed *b = *state;
	char cmd[64];

	gbed_connect(b);
	gbed_expect(b, "Z0,1234,1", "OK");
	gbed_expect(b, "Z1,5678,1", "OK");
	gbed_expect(b, "Z2,9000,4", "OK");
	gbed_expect(b, "Z3,9010,8", "OK");
	gbed_expect(b, "Z5,9010,8", "");
	gbed_expect(b, "Z2,9000,0", "E02");
	gbed_expect(b, "Z2,ffffffffffffffff,2", "E02");
	gbed_expect(b, "Z2,0,fffffffff", "E02");
	gbed_expect(b, "Z0,1;X", "E01");
	assert_null(b->vcpu[1]->debug.breaks); /* not before anything runs */
	gbed_expect(b, "vCont;c", "");
	for (unsigned i = 0; i < 2; i++) {
		assert_int_equal(b->vcpu[i]->debug.breaks->n, 2);
		assert_int_equal(b->vcpu[i]->mmu.watches->n, 2);
	}
	/* CPU 1 meets one. */
	b->vcpu[1]->debug.hit = DEBUG_HIT_BREAK;
	b->vcpu[1]->debug.addr = 0x5678;
	b->held = true;
	gbed_turn(b);
	assert_string_equal(gbed_reply(b), "T05thread:2;");
	gbed_expect(b, "qSupported:swbreak+;hwbreak+", "PacketSize=4000;qXfer:features:read+;vContSupported+;QStartNoAckMode+;swbreak+;hwbreak+");
	b->vcpu[1]->debug.hit = DEBUG_HIT_BREAK;
	gbed_expect(b, "?", "T05thread:2;hwbreak:;");
	gbed_expect(b, "z0,1234,1", "OK");
	gbed_expect(b, "z1,5678,1", "OK");
	gbed_expect(b, "z1,5678,1", "OK");
	gbed_expect(b, "z2,9000,4", "OK");
	gbed_expect(b, "c", "");
	assert_null(b->vcpu[0]->debug.breaks);
	assert_int_equal(b->vcpu[0]->mmu.watches->n, 1);
	/* As many as there is room for. */
	b->held = true;
	gbed_turn(b);
	(void)gbed_reply(b);
	for (unsigned i = 0; i <= CPU_MAX_BREAKS; i++) {
		snprintf(cmd, sizeof(cmd), "Z%u,%x,1", i & 1, i * 16);
		gbed_expect(b, cmd, i < CPU_MAX_BREAKS ? "OK" : "E02");
	}
	for (unsigned i = 0; i < MMU_MAX_WATCHES; i++) {
		snprintf(cmd, sizeof(cmd), "Z4,%x,1", i * 16);
		gbed_expect(b, cmd, i < MMU_MAX_WATCHES - 1 ? "OK" : "E02");
	}
	/* The client vanishes and with it everything it had set. */
	gbed_disconnect(b);
	assert_false(b->held);
	for (unsigned i = 0; i < 2; i++) {
		assert_null(b->vcpu[i]->debug.breaks);
		assert_null(b->vcpu[i]->mmu.watches);
	}
}

/* Two CPUs touch watched memory at once: each is told, the second without anything having run. */
static void two_hits(void **state)
{
	struct gbed *b = *state;

	gbed_connect(b);
	gbed_expect(b, "Z4,9000,8", "OK");
	gbed_expect(b, "vCont;c", "");
	for (unsigned i = 0; i < 2; i++) {
		b->vcpu[i]->debug.hit = DEBUG_HIT_WATCH;
		b->vcpu[i]->debug.addr = 0x9000 + 4 * i;
		b->vcpu[i]->debug.kinds = MMU_WATCH_READ | MMU_WATCH_WRITE;
	}
	b->held = true;
	gbed_turn(b);
	assert_string_equal(gbed_reply(b), "T05thread:1;awatch:9000;");
	gbed_expect(b, "vCont;c", "T05thread:2;awatch:9004;");
	assert_true(b->held);
	gbed_expect(b, "vCont;c", "");
	assert_false(b->held);
}

static void stepping(void **state)
{
	struct gbed *b = *state;

	gbed_connect(b);
	gbed_expect(b, "vCont?", "vCont;c;C;s;S;t");
	gbed_expect(b, "vCont;s:2;c", "T05thread:2;");
	assert_int_equal(b->last_step, 1);
	assert_true(b->held);
	gbed_expect(b, "vCont;S05:1", "T05thread:1;");
	assert_int_equal(b->last_step, 0);
	gbed_expect(b, "Hc2", "OK");
	gbed_expect(b, "s", "T05thread:2;");
	assert_int_equal(b->steps, 3);
	b->step_hit = DEBUG_HIT_WATCH;
	b->vcpu[1]->debug.kinds = MMU_WATCH_WRITE;
	b->vcpu[1]->debug.addr = 0x77;
	gbed_expect(b, "s", "T05thread:2;watch:77;");
	gbed_expect(b, "vCont;x", "E01");
	gbed_expect(b, "vCont;s:9", "E01");
	gbed_expect(b, "vCont;t", "E02");
	gbed_expect(b, "vCont", "E02");
	gbed_expect(b, "s1000", "E01");
	/* A halted CPU steps by being woken: everything runs until it is about to execute something. */
	b->cpu_state[0] = GDB_CPU_HALTED;
	gbed_expect(b, "vCont;s:1", "");
	assert_false(b->held);
	assert_true(b->vcpu[0]->debug.breaks->any);
	assert_null(b->vcpu[1]->debug.breaks);
	b->vcpu[0]->debug.hit = DEBUG_HIT_STEP;
	b->held = true;
	gbed_turn(b);
	assert_string_equal(gbed_reply(b), "T05thread:1;");
	gbed_expect(b, "vCont;c", "");
	assert_null(b->vcpu[0]->debug.breaks);
}

static void interrupting(void **state)
{
	struct gbed *b = *state;

	gbed_connect(b);
	gbed_expect(b, "vCont;c", "");
	gbed_expect(b, "g", "E02"); /* it runs */
	gbed_expect(b, "m0,1", "E02");
	gbed_expect(b, "vCont;c", "E02");
	assert_int_equal(write(b->client, "\3", 1), 1);
	gbed_turn(b);
	assert_true(b->held);
	assert_string_equal(gbed_reply(b), "T02thread:1;");
	/* A second one finds it stopped. */
	assert_int_equal(write(b->client, "\3", 1), 1);
	gbed_turn(b);
	assert_string_equal(gbed_reply(b), "");
}

static void leaving(void **state)
{
	struct gbed *b = *state;

	/* Orderly, stopped. */
	gbed_connect(b);
	gbed_expect(b, "Z0,1234,1", "OK");
	gbed_expect(b, "D", "OK");
	assert_false(b->held);
	assert_null(b->vcpu[0]->debug.breaks);
	assert_false(gdb_attached(b->g));
	close(b->client);
	/* Vanishing while it runs: stopped once more to take the points away. */
	gbed_connect(b);
	gbed_expect(b, "Z0,1234,1", "OK");
	gbed_expect(b, "vCont;c", "");
	assert_non_null(b->vcpu[0]->debug.breaks);
	gbed_disconnect(b);
	assert_false(b->held);
	assert_null(b->vcpu[0]->debug.breaks);
	/* And another may come. */
	gbed_connect(b);
	gbed_expect(b, "qAttached", "1");
	gbed_expect(b, "vKill;1", "OK");
	assert_int_equal(b->kills, 1);
	gbed_send(b, "k");
	assert_int_equal(b->kills, 2);
	gdb_ended(b->g, 8);
	assert_string_equal(gbed_reply(b), "W08");
}

/* "monitor ..." as hex; true if the answer has the text in it. */
static bool monitor(struct gbed *b, const char *text, const char *want)
{
	char cmd[600] = "qRcmd,", answer[GDB_PACKET_MAX];
	size_t n;

	gdb_hex_put(cmd + 6, text, strlen(text));
	cmd[6 + 2 * strlen(text)] = 0;
	gbed_send(b, cmd);
	n = strlen(gbed_reply(b)) / 2;
	if (!gdb_hex_get(answer, b->reply, n))
		return false;
	answer[n] = 0;
	return strstr(answer, want) != NULL;
}

static void monitoring(void **state)
{
	struct gbed *b = *state;

	gbed_connect(b);
	assert_true(monitor(b, "help", "info registers"));
	assert_true(monitor(b, "info registers", "vcpu 0: 64-bit cpl 0"));
	assert_true(monitor(b, "info registers 1", "vcpu 1: 64-bit cpl 0"));
	assert_true(monitor(b, "info registers 2", "from 0 to 1"));
	assert_true(monitor(b, "info registers x", "from 0 to 1"));
	assert_true(monitor(b, "info cpus", "CPU#1"));
	fx_put(&b->cpu[0]->fx, 0x8000, 4, 0x44332211);
	assert_true(monitor(b, "xp 0x8000 4", "0000000000008000: 11 22 33 44\n"));
	assert_true(monitor(b, "xp 0xffffffffff000 1", " --"));
	assert_true(monitor(b, "xp 0 99999999999", "at most"));
	assert_true(monitor(b, "xp", "takes"));
	assert_true(monitor(b, "gva2gpa 0x400123", "0x400123 -> 0x400123"));
	assert_true(monitor(b, "gva2gpa 0x500000", "not mapped"));
	assert_true(monitor(b, "nonsense", "unknown"));
	assert_true(monitor(b, "helpx", "unknown"));
	assert_true(monitor(b, "reset", "reset"));
	assert_int_equal(b->resets, 1);
	gbed_expect(b, "qRcmd,6", "E01");
	gbed_expect(b, "qRcmd,zz", "E01");
}

static void description(void **state)
{
	struct gbed *b = *state;
	char xml[GDB_XML_MAX] = "", cmd[64];
	size_t len = 0, regs = 0;

	gbed_connect(b);
	gbed_expect(b, "QStartNoAckMode", "OK");
	/* In pieces, as gdb does. */
	for (bool more = true; more;) {
		snprintf(cmd, sizeof(cmd), "qXfer:features:read:target.xml:%zx,3e8", len);
		gbed_send(b, cmd);
		(void)gbed_reply(b);
		more = b->reply[0] == 'm';
		for (const char *s = b->reply + 1; *s; s++)
			xml[len++] = *s == '}' ? *++s ^ 0x20 : *s;
	}
	xml[len] = 0;
	assert_true(len < GDB_XML_MAX - 1);
	assert_string_equal(xml + len - 9, "</target>");
	for (const char *s = xml; (s = strstr(s, "<reg ")); s++)
		regs++;
	assert_int_equal(regs, gdb_reg_count());
	gbed_expect(b, "qXfer:features:read:target.xml:ffffffffffffffff,1", "l");
	gbed_expect(b, "qXfer:features:read:other.xml:0,1", "E01");
}

/* A client that asks much and reads late: every request is answered, in order, and nothing is buffered without bound. */
static void slow_reader(void **state)
{
	struct gbed *b = *state;
	int size = 4096;
	unsigned asked = 200, answers = 0;
	char buf[4096];
	ssize_t n;

	gbed_connect(b);
	assert_int_equal(setsockopt(b->g->ev_client.fd, SOL_SOCKET, SO_SNDBUF, &size, sizeof(size)), 0);
	for (unsigned i = 0; i < asked; i++)
		assert_int_equal(write(b->client, "+$g#67", 6), 6);
	gbed_turn(b);
	assert_int_equal(b->g->ev_client.events, POLLOUT);
	while ((n = read(b->client, buf, sizeof(buf))) > 0) {
		for (ssize_t i = 0; i < n; i++)
			answers += buf[i] == '#';
		gbed_turn(b);
	}
	assert_int_equal(answers, asked);
	gbed_expect(b, "qC", "QC1");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		gbed_test(connecting), gbed_test(waits_for_standstill), gbed_test(memory), gbed_test(registers),
		gbed_test(points), gbed_test(two_hits), gbed_test(stepping), gbed_test(interrupting), gbed_test(leaving),
		gbed_test(monitoring), gbed_test(description), gbed_test(slow_reader),
	};

	return cmocka_run_group_tests_name("gdb/stub", tests, NULL, NULL);
}
