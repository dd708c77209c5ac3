/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The stub's connection and states (private.h has the diagram): accepting a client, moving bytes, resuming, telling why the machine
 * stopped, and taking everything back when the client has gone.
 *
 * Invariant: a packet is looked at only while out[] is empty and the machine is not on its way to a standstill, so one reply at a time is
 * on its way and a client that does not read holds up nothing but itself.
 * Threads: that of the event loop. Spec: "Debugging with GDB" E.3 (stop reply packets), E.9 (interrupts).
 */
#include "gdb/private.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/log.h"

/* Signals in the numbering of the protocol. */
enum { SIGNAL_INT = 2, SIGNAL_TRAP = 5, SIGNAL_ABRT = 6 };

static bool connected(const struct gdb *g)
{
	return g->ev_client.fd >= 0;
}

bool gdb_attached(const struct gdb *g)
{
	return g->attached;
}

/* --- output -------------------------------------------------------------------------------------------------------------- */

/* False if the client is gone. */
static bool flush(struct gdb *g)
{
	ssize_t n;

	while (g->io.out_len && connected(g)) {
		n = write(g->ev_client.fd, g->io.out, g->io.out_len);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return errno == EAGAIN; /* the rest when it can be taken */
		gdb_packets_written(&g->io, (size_t)n);
	}
	return true;
}

void gdb_send_bytes(struct gdb *g, const void *payload, size_t len)
{
	if (connected(g) && !gdb_packets_send(&g->io, payload, len))
		log_error("gdb: a reply of %zu bytes does not fit; please report this defect", len);
}

void gdb_send(struct gdb *g, const char *payload)
{
	gdb_send_bytes(g, payload, strlen(payload));
}

/* --- stops ----------------------------------------------------------------------------------------------------------------- */

static struct vcpu *cpu(const struct gdb *g, unsigned n)
{
	return g->c.vcpu[n];
}

/* The CPU to speak of: one that has met something; else the one the client looks at. */
static unsigned stopped_cpu(const struct gdb *g)
{
	for (unsigned i = 0; i < g->c.ncpus; i++)
		if (cpu(g, (g->cur_c + i) % g->c.ncpus)->debug.hit != DEBUG_HIT_NONE)
			return (g->cur_c + i) % g->c.ncpus;
	return g->cur_c;
}

void gdb_send_stop(struct gdb *g)
{
	unsigned n = stopped_cpu(g), signal = SIGNAL_TRAP;
	struct vcpu *v = cpu(g, n);
	char why[64] = "", msg[128];
	const char *name;

	switch ((enum vcpu_debug_hit)v->debug.hit) {
	case DEBUG_HIT_BREAK:
		name = gdb_target_break_name(&g->target, v->debug.addr);
		if (name && (name[0] == 's' ? g->swbreak : g->hwbreak))
			snprintf(why, sizeof(why), "%s:;", name);
		break;
	case DEBUG_HIT_WATCH:
		snprintf(why, sizeof(why), "%s:%llx;", gdb_target_watch_name(v->debug.kinds), (unsigned long long)v->debug.addr);
		break;
	case DEBUG_HIT_SHUTDOWN:
		signal = SIGNAL_ABRT;
		break;
	case DEBUG_HIT_NONE:
		if (g->interrupted)
			signal = SIGNAL_INT;
		break;
	case DEBUG_HIT_STEP:
		break;
	}
	v->debug.hit = DEBUG_HIT_NONE;
	g->interrupted = false;
	g->cur_g = g->cur_c = n;
	snprintf(msg, sizeof(msg), "T%02xthread:%x;%s", signal, n + 1, why);
	gdb_send(g, msg);
}

static void ask_to_stop(struct gdb *g)
{
	if (g->state != GDB_RUNNING)
		return;
	g->state = GDB_STOPPING;
	g->c.ops->stop(g->c.vm);
}

/* A watch met by a CPU whose turn to be reported has not come yet. Breakpoints need no memory: they are met again. */
static bool pending_watch(struct gdb *g)
{
	bool found = false;

	for (unsigned i = 0; i < g->c.ncpus; i++) {
		struct vcpu_debug *d = &cpu(g, i)->debug;

		if (d->hit == DEBUG_HIT_WATCH && gdb_target_watched(&g->target, d->addr))
			found = true;
		else
			d->hit = DEBUG_HIT_NONE;
	}
	return found;
}

static void run(struct gdb *g)
{
	g->state = GDB_RUNNING;
	g->c.ops->resume(g->c.vm);
}

void gdb_continue(struct gdb *g)
{
	if (pending_watch(g)) {
		gdb_send_stop(g);
		return;
	}
	gdb_target_apply(&g->target);
	g->owes_reply = true;
	run(g);
}

/* The next instruction of a CPU that is halted is that of the interrupt which wakes it: everything runs until then. */
static void step_by_waking(struct gdb *g, unsigned n)
{
	gdb_target_apply(&g->target);
	cpu(g, n)->debug.breaks = &g->target.any;
	g->stepped = (int)n;
	g->owes_reply = true;
	run(g);
}

void gdb_step(struct gdb *g, unsigned n)
{
	struct vcpu *v = cpu(g, n);

	if (g->c.ops->cpu_state(g->c.vm, n) != GDB_CPU_RUNS) {
		step_by_waking(g, n);
		return;
	}
	g->cur_c = n;
	gdb_target_apply(&g->target);
	v->debug.hit = DEBUG_HIT_NONE;
	if (g->c.ops->step(g->c.vm, n) < 0)
		return; /* gdb_ended() is about to be called */
	if (v->debug.hit == DEBUG_HIT_NONE)
		v->debug.hit = DEBUG_HIT_STEP;
	gdb_send_stop(g);
}

/* --- the client comes and goes ------------------------------------------------------------------------------------------------ */

static void forget_points(struct gdb *g)
{
	gdb_target_clear(&g->target);
	gdb_target_apply(&g->target);
	for (unsigned i = 0; i < g->c.ncpus; i++)
		cpu(g, i)->debug.hit = DEBUG_HIT_NONE;
}

/* Stopped, and nobody is there any more: the guest goes on as if nobody had been. */
static void let_go(struct gdb *g)
{
	forget_points(g);
	g->leaving = false;
	run(g);
}

void gdb_detach(struct gdb *g)
{
	(void)flush(g);
	if (connected(g))
		close(g->ev_client.fd);
	g->ev_client.fd = -1;
	g->ev_client.events = 0;
	g->attached = false;
	g->owes_reply = g->interrupted = false;
	g->leaving = true;
	if (g->state == GDB_STOPPED)
		let_go(g);
	else
		ask_to_stop(g);
}

static void pump(struct gdb *g);

void gdb_adopt(struct gdb *g, int fd)
{
	gdb_packets_init(&g->io);
	g->rx_len = g->rx_pos = 0;
	g->owes_reply = g->swbreak = g->hwbreak = false;
	g->cur_g = g->cur_c = 0;
	g->ev_client.fd = fd;
	g->attached = true;
	g->c.wait = false; /* it has come */
	ask_to_stop(g);
	pump(g);
}

static void on_listen(void *opaque, short revents)
{
	struct gdb *g = opaque;
	int fd = accept4(g->ev_listen.fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);

	(void)revents;
	if (fd < 0)
		return;
	if (connected(g) || g->leaving) {
		close(fd); /* one at a time */
		return;
	}
	gdb_adopt(g, fd);
}

/* --- input --------------------------------------------------------------------------------------------------------------------- */

static void feed_one(struct gdb *g)
{
	switch (gdb_packets_feed(&g->io, g->rx[g->rx_pos++])) {
	case GDB_EV_NONE:
		break;
	case GDB_EV_PACKET:
		gdb_command(g);
		break;
	case GDB_EV_INTERRUPT:
		if (g->state == GDB_RUNNING) {
			g->interrupted = true;
			ask_to_stop(g);
		}
		break;
	}
}

/* Looks at what has been read, as far as the invariant allows; then says what the loop is to wait for. */
static void pump(struct gdb *g)
{
	bool there;

	while ((there = flush(g)) && !g->io.out_len && connected(g) && g->rx_pos < g->rx_len && g->state != GDB_STOPPING)
		feed_one(g);
	if (!there)
		gdb_detach(g);
	if (!connected(g))
		return;
	/* No second try to write here: if it succeeded, what has been read would be left lying with nothing to wait for. */
	if (g->io.out_len)
		g->ev_client.events = POLLOUT;
	else
		g->ev_client.events = g->state == GDB_STOPPING ? 0 : POLLIN;
}

static void on_client(void *opaque, short revents)
{
	struct gdb *g = opaque;

	(void)revents;
	/* What has been read comes first, and what is to be written before that. */
	if (g->rx_pos == g->rx_len && !g->io.out_len) {
		ssize_t n = read(g->ev_client.fd, g->rx, sizeof(g->rx));

		if (n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR)) {
			gdb_detach(g);
			return;
		}
		g->rx_pos = 0;
		g->rx_len = n > 0 ? (size_t)n : 0;
	}
	pump(g);
}

/* --- the machine ---------------------------------------------------------------------------------------------------------------- */

/* A step of a halted CPU is over, whatever ended it. */
static void step_done(struct gdb *g)
{
	if (g->stepped < 0)
		return;
	g->cur_c = (unsigned)g->stepped;
	g->stepped = -1;
}

void gdb_poll(struct gdb *g)
{
	if (g->state == GDB_STOPPED || !g->c.ops->stopped(g->c.vm))
		return;
	g->state = GDB_STOPPED;
	step_done(g);
	if (g->leaving) {
		let_go(g);
		return;
	}
	if (!connected(g)) {
		if (!g->c.wait)
			let_go(g); /* a breakpoint was met just as the client left */
		return;
	}
	if (g->owes_reply)
		gdb_send_stop(g);
	g->owes_reply = false;
	pump(g);
}

void gdb_ended(struct gdb *g, int status)
{
	char msg[8];

	snprintf(msg, sizeof(msg), "W%02x", (unsigned)status & 0xff);
	gdb_send(g, msg);
	(void)flush(g);
}

int gdb_create(struct gdb **out, const struct gdb_config *config)
{
	struct gdb *g = calloc(1, sizeof(*g));
	int ret;

	if (!g)
		return -ENOMEM;
	g->c = *config;
	g->stepped = -1;
	g->ev_listen = (struct ev_source){.fd = config->listen_fd, .events = POLLIN, .ready = on_listen, .opaque = g};
	g->ev_client = (struct ev_source){.fd = -1, .ready = on_client, .opaque = g};
	gdb_target_init(&g->target, config);
	g->xml_len = gdb_reg_describe(g->xml, sizeof(g->xml));
	ret = evloop_add(config->loop, &g->ev_listen);
	if (ret == 0)
		ret = evloop_add(config->loop, &g->ev_client);
	if (ret < 0) {
		evloop_del(config->loop, &g->ev_listen);
		free(g);
		return ret;
	}
	if (config->wait)
		ask_to_stop(g);
	*out = g;
	return 0;
}

void gdb_destroy(struct gdb *g)
{
	if (!g)
		return;
	evloop_del(g->c.loop, &g->ev_listen);
	evloop_del(g->c.loop, &g->ev_client);
	if (connected(g))
		close(g->ev_client.fd);
	close(g->c.listen_fd);
	free(g);
}
