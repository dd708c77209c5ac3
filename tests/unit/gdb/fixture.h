/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A stub over two vCPUs with real memory and page tables, in a machine that only pretends to run; the client is the other end of a
 * socket pair.
 */
#ifndef TESTS_UNIT_GDB_FIXTURE_H
#define TESTS_UNIT_GDB_FIXTURE_H

#include <fcntl.h>
#include <stdio.h>
#include <sys/socket.h>
#include <unistd.h>

#include "../cpu/fixture.h"
#include "gdb/private.h"

struct gbed {
	struct bed *cpu[2];
	struct vcpu *vcpu[2];
	struct evloop loop;
	struct gdb *g;
	int client;
	bool held, runs;         /* asked to stand still; the next poll finds it running still */
	unsigned resumed, steps, resets, kills, last_step;
	enum vcpu_debug_hit step_hit;
	enum gdb_cpu_state cpu_state[2];
	char reply[2 * GDB_PACKET_MAX];
};

static inline void gbed_stop(void *vm) { ((struct gbed *)vm)->held = true; }
static inline bool gbed_stopped(void *vm) { return ((struct gbed *)vm)->held && !((struct gbed *)vm)->runs; }
static inline void gbed_reset(void *vm) { ((struct gbed *)vm)->resets++; }
static inline void gbed_kill(void *vm) { ((struct gbed *)vm)->kills++; }
static inline enum gdb_cpu_state gbed_cpu_state(void *vm, unsigned n) { return ((struct gbed *)vm)->cpu_state[n]; }

static inline void gbed_resume(void *vm)
{
	struct gbed *b = vm;

	assert_true(b->held);
	b->held = false;
	b->resumed++;
}

static inline int gbed_step(void *vm, unsigned cpu)
{
	struct gbed *b = vm;

	b->steps++;
	b->last_step = cpu;
	b->vcpu[cpu]->rip++;
	b->vcpu[cpu]->debug.hit = (uint8_t)b->step_hit;
	return 0;
}

static inline int gbed_setup(void **state)
{
	static const struct gdb_ops ops = {
		.stop = gbed_stop, .stopped = gbed_stopped, .resume = gbed_resume, .step = gbed_step,
		.cpu_state = gbed_cpu_state, .reset = gbed_reset, .kill = gbed_kill,
	};
	struct gbed *b = calloc(1, sizeof(*b));
	struct gdb_config c = {.listen_fd = -1, .loop = &b->loop, .vcpu = b->vcpu, .ncpus = 2, .ops = &ops, .vm = b};

	for (unsigned i = 0; i < 2; i++) {
		void *s;

		assert_int_equal(bed_setup(&s), 0);
		b->cpu[i] = s;
		b->vcpu[i] = b->cpu[i]->v;
		b->vcpu[i]->index = i;
		bed_long(b->cpu[i]);
	}
	c.mem = b->cpu[0]->fx.m;
	evloop_init(&b->loop);
	assert_int_equal(gdb_create(&b->g, &c), 0);
	b->client = -1;
	*state = b;
	return 0;
}

static inline int gbed_teardown(void **state)
{
	struct gbed *b = *state;

	gdb_destroy(b->g);
	if (b->client >= 0)
		close(b->client);
	for (unsigned i = 0; i < 2; i++) {
		void *s = b->cpu[i];

		bed_teardown(&s);
	}
	free(b);
	return 0;
}

/* Lets the stub do what there is to do. */
static inline void gbed_turn(struct gbed *b)
{
	do
		gdb_poll(b->g);
	while (evloop_wait(&b->loop, 0) > 0);
}

static inline void gbed_connect(struct gbed *b)
{
	int pair[2];

	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, pair), 0);
	b->client = pair[1];
	gdb_adopt(b->g, pair[0]);
	gbed_turn(b);
}

static inline void gbed_disconnect(struct gbed *b)
{
	close(b->client);
	b->client = -1;
	gbed_turn(b);
}

static inline void gbed_send(struct gbed *b, const char *payload)
{
	char wire[GDB_PACKET_MAX + 8];
	uint8_t sum = 0;
	int n;

	for (const char *s = payload; *s; s++)
		sum = (uint8_t)(sum + *s);
	n = snprintf(wire, sizeof(wire), "$%s#%02x", payload, sum);
	assert_int_equal(write(b->client, wire, (size_t)n), n);
	gbed_turn(b);
}

/* The payload of what has come back, "" if nothing has; acknowledgements left out. */
static inline const char *gbed_reply(struct gbed *b)
{
	char wire[2 * GDB_PACKET_MAX];
	ssize_t n = read(b->client, wire, sizeof(wire) - 1);
	char *from, *to;

	b->reply[0] = 0;
	if (n <= 0)
		return b->reply;
	wire[n] = 0;
	from = strchr(wire, '$');
	to = from ? strrchr(from, '#') : NULL;
	if (to) {
		memcpy(b->reply, from + 1, (size_t)(to - from - 1));
		b->reply[to - from - 1] = 0;
	}
	return b->reply;
}

#define gbed_expect(b, payload, reply)                                                                                 \
	do {                                                                                                           \
		gbed_send(b, payload);                                                                                 \
		assert_string_equal(gbed_reply(b), reply);                                                             \
	} while (0)

#define gbed_test(f) cmocka_unit_test_setup_teardown(f, gbed_setup, gbed_teardown)

#endif
