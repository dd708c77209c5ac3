/* SPDX-License-Identifier: Apache-2.0 */
/* io/timer.c: order of expiry, re-arming, wake-ups of the event loop. Time is a parameter. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "io/io.h"

struct clock {
	uint64_t now;
	unsigned wakes;
	char order[16];
	unsigned n;
	struct io *io;
};

struct probe {
	struct io_timer t;
	struct clock *c;
	char name;
	uint64_t again;         /* re-arm after this long, 0 = not */
};

static uint64_t clock_now(void *vm)
{
	return ((struct clock *)vm)->now;
}

static void clock_wake(void *vm, const struct io_timer *t)
{
	assert_true(t->deadline != UINT64_MAX);
	((struct clock *)vm)->wakes++;
}

static void expired(void *opaque, uint64_t now)
{
	struct probe *p = opaque;

	assert_int_equal(p->t.deadline, UINT64_MAX);
	assert_int_equal(now, p->c->now);
	if (p->c->n < sizeof(p->c->order) - 1)
		p->c->order[p->c->n++] = p->name;
	if (p->again)
		io_timer_arm(p->c->io, &p->t, now + p->again);
}

static void order(void **state)
{
	struct io io;
	struct clock c = { .io = &io };
	struct probe p[3];

	(void)state;
	assert_int_equal(io_init(&io, NULL), 0);
	io.vm = &c;
	io.now = clock_now;
	io.wake_timers = clock_wake;
	assert_int_equal(io_timers_run(&io), UINT64_MAX);
	for (unsigned i = 0; i < 3; i++) {
		p[i] = (struct probe){ .c = &c, .name = (char)('a' + i) };
		p[i].t.expire = expired;
		p[i].t.opaque = &p[i];
		io_timer_register(&io, &p[i].t);
	}
	io_timer_arm(&io, &p[0].t, 300);
	io_timer_arm(&io, &p[1].t, 100);
	io_timer_arm(&io, &p[2].t, 200);
	assert_int_equal(c.wakes, 3);
	assert_int_equal(io_timers_run(&io), 100);
	c.now = 250;
	assert_int_equal(io_timers_run(&io), 300);
	assert_string_equal(c.order, "bc");
	io_timer_cancel(&io, &p[0].t);
	c.now = 1000;
	assert_int_equal(io_timers_run(&io), UINT64_MAX);
	p[0].again = 50;
	io_timer_arm(&io, &p[0].t, 1000);
	assert_int_equal(io_timers_run(&io), 1050);
	assert_string_equal(c.order, "bca");
	io_timer_unregister(&io, &p[0].t);
	io_timer_unregister(&io, &p[0].t);
	assert_int_equal(io_timers_run(&io), UINT64_MAX);
	assert_int_equal(io.stats.timers, 3);
	io_fini(&io);
}

static void arm_now(void *opaque, uint64_t now)
{
	struct probe *p = opaque;

	p->c->n++;
	io_timer_arm(p->c->io, &p->t, now);
}

/* A timer that is always due does not hold the loop for ever. */
static void storm(void **state)
{
	struct io io;
	struct clock c = { .io = &io };
	struct probe p = { .c = &c };

	(void)state;
	assert_int_equal(io_init(&io, NULL), 0);
	io.vm = &c;
	io.now = clock_now;
	p.t.expire = arm_now;
	p.t.opaque = &p;
	io_timer_register(&io, &p.t);
	io_timer_arm(&io, &p.t, 0);
	assert_int_equal(io_timers_run(&io), 0);
	assert_in_range(c.n, 1, 1000);
	io_fini(&io);
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(order), cmocka_unit_test(storm) };

	return cmocka_run_group_tests_name("io/timer", tests, NULL, NULL);
}
