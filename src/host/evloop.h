/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The event loop: descriptors and what to call when they are ready, over poll(2).
 *
 * Invariant: at most EVLOOP_MAX sources, so a loop allocates nothing; a source that has been deleted is not called again, not even
 * for a readiness that was seen before it was deleted.
 * Threads: everything happens on the one thread that waits; before it first waits, sources may be added by whoever builds the loop.
 * Other threads get its attention through a source of their own (an eventfd).
 */
#ifndef HOST_EVLOOP_H
#define HOST_EVLOOP_H

#include <poll.h>

#define EVLOOP_MAX 128

/*
 * Owned by the caller, registered by pointer. On the loop's thread the owner may change fd, events, ready and opaque at any time; it takes
 * effect with the next wait. events == 0 or fd < 0: not looked at at all, so a hang-up is not reported either.
 */
struct ev_source {
	int fd;
	short events;                                   /* POLLIN, POLLOUT, ... as in poll(2) */
	void (*ready)(void *opaque, short revents);     /* may add and delete any source, itself included; must not block */
	void *opaque;
};

struct evloop {
	struct ev_source *source[EVLOOP_MAX];           /* NULL: free */
	struct pollfd poll[EVLOOP_MAX];                 /* the round that is being served */
	unsigned used;                                  /* slots from here on have never been used */
};

void evloop_init(struct evloop *l);

/* 0, -EEXIST if the source is registered already, -ENOSPC if the loop is full. */
int evloop_add(struct evloop *l, struct ev_source *s);

/* Forgets a source; harmless if it was not registered. Its memory is the caller's again at once. */
void evloop_del(struct evloop *l, struct ev_source *s);

/*
 * Waits at most timeout_ms (-1: for ever, 0: not at all) and calls every source that is ready once, in the order of their slots (that of
 * registration, as long as none was deleted). The number called; 0 also after a signal; -errno if poll failed otherwise.
 */
int evloop_wait(struct evloop *l, int timeout_ms);

#endif
