/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Timers of devices. A machine has about ten and one for each CPU, so they are an unsorted list that is scanned.
 *
 * Invariant: an expired timer is disarmed before its callback runs, which may arm it again.
 * Locking: io->lock is held by callers of arm and cancel; io_timers_run takes it. wake_timers is called with the lock held.
 */
#include "io/io.h"

/* Callbacks per run: a timer that always re-arms itself in the past must not keep the event loop from everything else. */
#define IO_TIMER_BURST 256

void io_timer_register(struct io *io, struct io_timer *t)
{
	t->deadline = UINT64_MAX;
	t->next = io->timers;
	io->timers = t;
}

void io_timer_unregister(struct io *io, struct io_timer *t)
{
	for (struct io_timer **p = &io->timers; *p; p = &(*p)->next) {
		if (*p == t) {
			*p = t->next;
			return;
		}
	}
}

static struct io_timer *io_timer_earliest(struct io *io)
{
	struct io_timer *best = NULL;

	for (struct io_timer *t = io->timers; t; t = t->next)
		if (t->deadline != UINT64_MAX && (!best || t->deadline < best->deadline))
			best = t;
	return best;
}

void io_timer_arm(struct io *io, struct io_timer *t, uint64_t deadline)
{
	t->deadline = deadline;
	if (deadline != UINT64_MAX && io->wake_timers)
		io->wake_timers(io->vm, t);
}

void io_timer_cancel(struct io *io, struct io_timer *t)
{
	(void)io;
	t->deadline = UINT64_MAX;
}

uint64_t io_timers_run(struct io *io)
{
	struct io_timer *t;
	uint64_t next;

	pthread_mutex_lock(&io->lock);
	for (unsigned n = 0; n < IO_TIMER_BURST; n++) {
		uint64_t now = io_now(io);

		t = io_timer_earliest(io);
		if (!t || t->deadline > now)
			break;
		t->deadline = UINT64_MAX;
		io->stats.timers++;
		t->expire(t->opaque, now);
	}
	t = io_timer_earliest(io);
	next = t ? t->deadline : UINT64_MAX;
	pthread_mutex_unlock(&io->lock);
	return next;
}
