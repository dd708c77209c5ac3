/* SPDX-License-Identifier: Apache-2.0 */
/* host/evloop.c: who is called when, and that a deleted source is not. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/time.h>
#include <unistd.h>

#include "base/types.h"
#include "host/evloop.h"

struct probe {
	struct ev_source ev;
	struct evloop *loop;
	struct probe *victim, *heir;     /* deleted and added by ready() */
	struct probe *mute;              /* its interest is withdrawn by ready() */
	int pipe[2];
	unsigned called, order;
	short seen;
	unsigned *clock;
};

static void ready(void *opaque, short revents)
{
	struct probe *p = opaque;

	p->called++;
	p->seen = revents;
	p->order = p->clock ? ++*p->clock : 0;
	if (p->victim)
		evloop_del(p->loop, &p->victim->ev);
	if (p->heir)
		assert_int_equal(evloop_add(p->loop, &p->heir->ev), 0);
	if (p->mute)
		p->mute->ev.events = 0;
}

static void probe_init(struct probe *p, struct evloop *l)
{
	*p = (struct probe){.loop = l};
	assert_int_equal(pipe2(p->pipe, O_CLOEXEC | O_NONBLOCK), 0);
	p->ev = (struct ev_source){.fd = p->pipe[0], .events = POLLIN, .ready = ready, .opaque = p};
}

static void probe_fini(struct probe *p)
{
	close(p->pipe[0]);
	if (p->pipe[1] >= 0)
		close(p->pipe[1]);
}

static void poke(struct probe *p)
{
	assert_int_equal(write(p->pipe[1], "x", 1), 1);
}

static void test_calls_what_is_ready(void **state)
{
	struct evloop l;
	struct probe p[3];
	unsigned clock = 0;

	(void)state;
	evloop_init(&l);
	for (unsigned i = 0; i < 3; i++) {
		probe_init(&p[i], &l);
		p[i].clock = &clock;
		assert_int_equal(evloop_add(&l, &p[i].ev), 0);
	}
	assert_int_equal(evloop_wait(&l, 0), 0);
	poke(&p[2]);
	poke(&p[0]);
	assert_int_equal(evloop_wait(&l, -1), 2);
	assert_int_equal(p[0].order, 1);
	assert_int_equal(p[1].called, 0);
	assert_int_equal(p[2].order, 2);
	assert_int_equal(p[2].seen, POLLIN);
	/* Level-triggered: still ready, called again. */
	assert_int_equal(evloop_wait(&l, -1), 2);
	for (unsigned i = 0; i < 3; i++)
		probe_fini(&p[i]);
}

static void test_no_interest(void **state)
{
	struct evloop l;
	struct probe p, gone;

	(void)state;
	evloop_init(&l);
	probe_init(&p, &l);
	probe_init(&gone, &l);
	assert_int_equal(evloop_add(&l, &p.ev), 0);
	assert_int_equal(evloop_add(&l, &gone.ev), 0);
	/* Without events even the end of the other side goes unseen: no busy loop on a source that nobody wants. */
	p.ev.events = 0;
	close(p.pipe[1]);
	p.pipe[1] = -1;
	gone.ev.fd = -1;
	poke(&gone);
	assert_int_equal(evloop_wait(&l, 1), 0);
	p.ev.events = POLLIN;
	assert_int_equal(evloop_wait(&l, 1), 1);
	assert_true(p.seen & POLLHUP);
	assert_int_equal(gone.called, 0);
	probe_fini(&p);
	probe_fini(&gone);
}

static void test_deleted_is_not_called(void **state)
{
	struct evloop l;
	struct probe a, b, c;

	(void)state;
	evloop_init(&l);
	probe_init(&a, &l);
	probe_init(&b, &l);
	probe_init(&c, &l);
	assert_int_equal(evloop_add(&l, &a.ev), 0);
	assert_int_equal(evloop_add(&l, &b.ev), 0);
	/* b is deleted while its readiness is known, and c, with nothing to read, takes its slot. */
	a.victim = &b;
	a.heir = &c;
	poke(&a);
	poke(&b);
	assert_int_equal(evloop_wait(&l, -1), 1);
	assert_int_equal(a.called, 1);
	assert_int_equal(b.called, 0);
	assert_int_equal(c.called, 0);
	/* Also when it comes back itself within the round. */
	a.victim = a.heir = &c;
	poke(&c);
	assert_int_equal(evloop_wait(&l, -1), 1);
	assert_int_equal(c.called, 0);
	a.victim = a.heir = NULL;
	assert_int_equal(evloop_wait(&l, -1), 2);
	assert_int_equal(c.called, 1);
	/* A source may delete itself. */
	c.victim = &c;
	assert_int_equal(evloop_wait(&l, -1), 2);
	assert_int_equal(evloop_wait(&l, -1), 1);
	assert_int_equal(c.called, 2);
	evloop_del(&l, &c.ev);
	probe_fini(&a);
	probe_fini(&b);
	probe_fini(&c);
}

static void test_withdrawn_interest(void **state)
{
	struct evloop l;
	struct probe a, b;

	(void)state;
	evloop_init(&l);
	probe_init(&a, &l);
	probe_init(&b, &l);
	assert_int_equal(evloop_add(&l, &a.ev), 0);
	assert_int_equal(evloop_add(&l, &b.ev), 0);
	a.mute = &b;
	poke(&a);
	poke(&b);
	assert_int_equal(evloop_wait(&l, -1), 1);
	assert_int_equal(b.called, 0);
	probe_fini(&a);
	probe_fini(&b);
}

static void test_budget(void **state)
{
	static struct ev_source s[EVLOOP_MAX + 1];
	struct evloop l;

	(void)state;
	evloop_init(&l);
	for (unsigned i = 0; i < EVLOOP_MAX; i++) {
		s[i] = (struct ev_source){.fd = -1, .events = POLLIN, .ready = ready};
		assert_int_equal(evloop_add(&l, &s[i]), 0);
	}
	assert_int_equal(evloop_add(&l, &s[3]), -EEXIST);
	assert_int_equal(evloop_add(&l, &s[EVLOOP_MAX]), -ENOSPC);
	evloop_del(&l, &s[7]);
	assert_int_equal(evloop_add(&l, &s[EVLOOP_MAX]), 0);
	assert_ptr_equal(l.source[7], &s[EVLOOP_MAX]);
	assert_int_equal(evloop_wait(&l, 0), 0);
}

static void on_alarm(int sig)
{
	(void)sig;
}

static void test_signal(void **state)
{
	const struct sigaction sa = {.sa_handler = on_alarm};
	const struct itimerval soon = {.it_value.tv_usec = 20000, .it_interval.tv_usec = 20000}, never = {0};
	struct evloop l;
	struct probe p;

	(void)state;
	evloop_init(&l);
	probe_init(&p, &l);
	assert_int_equal(evloop_add(&l, &p.ev), 0);
	sigaction(SIGALRM, &sa, NULL);
	setitimer(ITIMER_REAL, &soon, NULL);
	assert_int_equal(evloop_wait(&l, -1), 0);
	setitimer(ITIMER_REAL, &never, NULL);
	assert_int_equal(p.called, 0);
	probe_fini(&p);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_calls_what_is_ready),
		cmocka_unit_test(test_no_interest),
		cmocka_unit_test(test_deleted_is_not_called),
		cmocka_unit_test(test_withdrawn_interest),
		cmocka_unit_test(test_budget),
		cmocka_unit_test(test_signal),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
