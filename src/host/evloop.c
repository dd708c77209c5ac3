/* SPDX-License-Identifier: Apache-2.0 */
/*
 * poll(2) over a table of sources (evloop.h has the invariants).
 *
 * A slot of source[] and the one of poll[] with the same index belong together. Deleting and adding clear the slot's revents: what a
 * round has seen of the former owner's descriptor is nothing to its successor.
 * Rejected: epoll, which saves copying a few dozen entries but costs a system call for each change of interest, and the console
 * changes its interest nearly every round.
 */
#include "host/evloop.h"

#include <errno.h>
#include <stddef.h>

#include "base/types.h"
#include "host/sandbox.h"

static_assert(EVLOOP_MAX <= SANDBOX_NOFILE, "poll() refuses more entries than descriptors may be open");

void evloop_init(struct evloop *l)
{
	*l = (struct evloop){0};
}

int evloop_add(struct evloop *l, struct ev_source *s)
{
	unsigned place = EVLOOP_MAX;

	for (unsigned i = EVLOOP_MAX; i-- > 0;) {
		if (l->source[i] == s)
			return -EEXIST;
		if (!l->source[i])
			place = i;
	}
	if (place == EVLOOP_MAX)
		return -ENOSPC;
	l->source[place] = s;
	l->poll[place].revents = 0;
	if (place >= l->used)
		l->used = place + 1;
	return 0;
}

void evloop_del(struct evloop *l, struct ev_source *s)
{
	for (unsigned i = 0; i < l->used; i++) {
		if (l->source[i] != s)
			continue;
		l->source[i] = NULL;
		l->poll[i].revents = 0;
	}
}

static void prepare(struct evloop *l)
{
	for (unsigned i = 0; i < l->used; i++) {
		const struct ev_source *s = l->source[i];

		l->poll[i] = (struct pollfd){.fd = s && s->events ? s->fd : -1, .events = s ? s->events : 0};
	}
}

int evloop_wait(struct evloop *l, int timeout_ms)
{
	unsigned used = l->used;
	int called = 0;

	prepare(l);
	if (poll(l->poll, used, timeout_ms) < 0) {
		/* Nothing was seen; what the kernel has left in revents is not defined. */
		return errno == EINTR ? 0 : -errno;
	}
	for (unsigned i = 0; i < used; i++) {
		struct ev_source *s = l->source[i];
		short seen = l->poll[i].revents;

		if (!s || !seen || s->fd != l->poll[i].fd)
			continue;
		/* A source called before may have withdrawn this one's interest. */
		seen &= (short)(s->events | POLLERR | POLLHUP | POLLNVAL);
		if (!s->events || !seen)
			continue;
		s->ready(s->opaque, seen);
		called++;
	}
	return called;
}
