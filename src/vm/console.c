/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Console: ring buffer out, line in, escape key.
 *
 * Invariant: descriptors are the user's and may be shared with other programs, so they are never made non-blocking; a write follows
 * a poll and is small enough (PIPE_BUF) not to block.
 * Locking: console.lock for the ring, taken with io.lock held by put(); nothing waits while holding either.
 */
#include "vm/console.h"

#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/log.h"
#include "dev/platform/serial.h"
#include "host/tty.h"
#include "vm/vm.h"

#define FEED_PAUSE_NS 1000000ull
#define THROTTLE_NS 50000000

void console_init(struct console *c, struct vm *vm, int in_fd, int out_fd)
{
	*c = (struct console){.vm = vm, .in_fd = in_fd, .out_fd = out_fd, .room = true};
	pthread_mutex_init(&c->lock, NULL);
	pthread_cond_init(&c->drained, NULL);
}

static bool writable(int fd, int timeout_ms)
{
	struct pollfd p = {.fd = fd, .events = POLLOUT};

	return poll(&p, 1, timeout_ms) > 0;
}

/* Writes one piece of the ring; false if nothing was waiting or the output cannot take it now. Lock held. */
static bool write_piece(struct console *c)
{
	unsigned at = c->tail % CONSOLE_OUT, n = (unsigned)(c->head - c->tail);
	ssize_t done;

	if (n > CONSOLE_OUT - at)
		n = CONSOLE_OUT - at;
	if (n > PIPE_BUF)
		n = PIPE_BUF;
	if (n == 0 || !writable(c->out_fd, 0))
		return false;
	done = write(c->out_fd, c->out + at, n);
	if (done < 0 && (errno == EINTR || errno == EAGAIN))
		return false;
	/* The reader is gone, or the disk is full: the guest's port does not know such things, its output is lost. */
	c->tail += done < 0 ? n : (unsigned)done;
	return true;
}

void console_flush(struct console *c)
{
	bool drained;

	pthread_mutex_lock(&c->lock);
	while (write_piece(c))
		;
	drained = c->full && c->head - c->tail < CONSOLE_BACKLOG / 2;
	if (drained) {
		c->full = false;
		pthread_cond_broadcast(&c->drained);
	}
	pthread_mutex_unlock(&c->lock);
	if (!drained || !c->port || !c->port->drained)
		return;
	pthread_mutex_lock(&c->vm->io.lock);
	c->port->drained(c->dev);
	pthread_mutex_unlock(&c->vm->io.lock);
}

static void wait_drained(struct vm *vm, struct console *c, const struct vcpu *v)
{
	struct timespec until;

	pthread_mutex_lock(&c->lock);
	/* A request to stop, pause or reset comes first; nobody signals `drained` for it, hence the short waits. */
	while (c->full && !(__atomic_load_n(&v->event, __ATOMIC_ACQUIRE) & VCPU_EV_STOP) && !life_stopping(vm)) {
		clock_gettime(CLOCK_REALTIME, &until);
		until.tv_nsec += THROTTLE_NS;
		until.tv_sec += until.tv_nsec / 1000000000;
		until.tv_nsec %= 1000000000;
		pthread_cond_timedwait(&c->drained, &c->lock, &until);
	}
	pthread_mutex_unlock(&c->lock);
}

void console_throttle(struct vm *vm, const struct vcpu *v)
{
	atomic_fetch_and(&vm->talkers, ~(1u << v->index));
	wait_drained(vm, &vm->console, v);
	wait_drained(vm, &vm->serial_file, v);
}

static void put(struct console *c, const uint8_t *buf, size_t n)
{
	for (size_t i = 0; i < n; i++)
		c->out[c->head++ % CONSOLE_OUT] = buf[i];
	if (c->out_fd < 0)
		c->tail = c->head;
	/* Only a guest that is stopped again and again while it is throttled gets this far. */
	if (c->head - c->tail > CONSOLE_OUT)
		c->tail = c->head - CONSOLE_OUT;
	c->full = c->head - c->tail >= CONSOLE_BACKLOG;
	if (c->full)
		atomic_fetch_or(&c->vm->talkers, 1u << c->vm->io.cpu);
}

static void has_put(struct console *c)
{
	if (!atomic_exchange(&c->told, true))
		vm_notify(c->vm);
}

static void chr_put(void *opaque, const uint8_t *buf, size_t n)
{
	struct console *c = opaque;

	pthread_mutex_lock(&c->lock);
	put(c, buf, n);
	pthread_mutex_unlock(&c->lock);
	has_put(c);
}

size_t console_put_some(void *console, const uint8_t *buf, size_t n)
{
	struct console *c = console;
	uint64_t waiting;

	pthread_mutex_lock(&c->lock);
	waiting = c->head - c->tail;
	if (n > CONSOLE_BACKLOG - waiting)
		n = waiting < CONSOLE_BACKLOG ? CONSOLE_BACKLOG - waiting : 0;
	put(c, buf, n);
	pthread_mutex_unlock(&c->lock);
	has_put(c);
	return n;
}

uint64_t console_last(struct console *c, uint64_t n)
{
	uint64_t pos, most;

	pthread_mutex_lock(&c->lock);
	most = c->head < CONSOLE_OUT ? c->head : CONSOLE_OUT;
	pos = c->head - (n < most ? n : most);
	pthread_mutex_unlock(&c->lock);
	return pos;
}

size_t console_copy(struct console *c, uint64_t *pos, uint8_t *buf, size_t n, uint64_t *missed)
{
	pthread_mutex_lock(&c->lock);
	if (c->head - *pos > CONSOLE_OUT) {
		*missed += c->head - *pos - CONSOLE_OUT;
		*pos = c->head - CONSOLE_OUT;
	}
	if (n > c->head - *pos)
		n = (size_t)(c->head - *pos);
	for (size_t i = 0; i < n; i++)
		buf[i] = c->out[(*pos)++ % CONSOLE_OUT];
	pthread_mutex_unlock(&c->lock);
	return n;
}

void console_has_room(void *console)
{
	struct console *c = console;

	if (!atomic_exchange(&c->room, true))
		vm_notify(c->vm);
}

const struct chr_ops console_chr_ops = {.put = chr_put, .room = console_has_room};

void console_resize(struct console *c, uint16_t cols, uint16_t rows)
{
	if (!c->port || !c->port->resize)
		return;
	pthread_mutex_lock(&c->vm->io.lock);
	c->port->resize(c->dev, cols, rows);
	pthread_mutex_unlock(&c->vm->io.lock);
}

void console_wants(struct console *c)
{
	bool waiting;

	c->told = false; /* before looking: whatever is put from here on notifies again */
	/* A terminal is always read, for the escape key; what the guest does not take is then dropped, as on a real line. */
	c->ev_in.fd = c->in_fd;
	c->ev_in.events = !c->in_held && (c->tty || c->in_len < CONSOLE_IN) ? POLLIN : 0;
	pthread_mutex_lock(&c->lock);
	waiting = c->head != c->tail;
	pthread_mutex_unlock(&c->lock);
	c->ev_out.fd = c->out_fd;
	c->ev_out.events = waiting ? POLLOUT : 0;
}

/* The user reads this where the guest's output appears. */
static void say(struct console *c, const char *text)
{
	ssize_t n = write(c->out_fd, text, strlen(text));

	(void)n;
}

static void on_escape_key(struct console *c, uint8_t key)
{
	struct vm *vm = c->vm;

	switch (key) {
	case 'x':
		life_stop(vm, STATUS_STOPPED, "console escape");
		break;
	case 'p':
		life_toggle_pause(vm);
		say(c, vm->life.pause ? "\r\n[paused; Ctrl-A p resumes]\r\n" : "\r\n[resumed]\r\n");
		break;
	case 'd':
		say(c, "\r\n");
		life_dump(vm);
		break;
	case 'h':
	case '?':
		say(c, "\r\n[Ctrl-A x quit   Ctrl-A p pause/resume   Ctrl-A d dump state   Ctrl-A a send Ctrl-A]\r\n");
		break;
	default:
		break;
	}
}

static void put_in(struct console *c, uint8_t b)
{
	if (c->in_len < CONSOLE_IN)
		c->in[c->in_len++] = b;
	else
		c->dropped++;
}

void console_type(struct console *c, const uint8_t *buf, size_t n)
{
	for (size_t i = 0; i < n; i++)
		put_in(c, buf[i]);
}

size_t console_room(const struct console *c)
{
	return CONSOLE_IN - c->in_len;
}

static void take_byte(struct console *c, uint8_t b)
{
	if (c->tty && c->escaped) {
		c->escaped = false;
		if (b != 'a' && b != CONSOLE_ESCAPE) {
			on_escape_key(c, b);
			return;
		}
		b = CONSOLE_ESCAPE;
	} else if (c->tty && b == CONSOLE_ESCAPE) {
		c->escaped = true;
		return;
	}
	put_in(c, b);
}

static void on_readable(void *opaque, short revents)
{
	struct console *c = opaque;
	uint8_t buf[1024];
	size_t want = c->tty ? sizeof(buf) : CONSOLE_IN - c->in_len;
	ssize_t n = read(c->in_fd, buf, want < sizeof(buf) ? want : sizeof(buf));

	(void)revents;
	if (n < 0 && (errno == EINTR || errno == EAGAIN))
		return;
	if (n < 0 && errno == EIO && c->tty) {
		c->in_held = true; /* in the background; reading goes on when the machine is resumed */
		return;
	}
	if (n <= 0) {
		c->in_fd = -1; /* end of file: the line stays idle, the machine runs on */
		return;
	}
	for (ssize_t i = 0; i < n; i++)
		take_byte(c, buf[i]);
}

static void on_writable(void *opaque, short revents)
{
	(void)revents;
	console_flush(opaque);
}

/* Output before input: what the guest has answered stands before what the user types next. */
int console_watch(struct console *c)
{
	int ret;

	c->ev_out = (struct ev_source){.fd = c->out_fd, .ready = on_writable, .opaque = c};
	c->ev_in = (struct ev_source){.fd = c->in_fd, .ready = on_readable, .opaque = c};
	ret = evloop_add(&c->vm->loop, &c->ev_out);
	return ret ? ret : evloop_add(&c->vm->loop, &c->ev_in);
}

static uint64_t host_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000ull + (uint64_t)ts.tv_nsec;
}

/*
 * After a refusal a millisecond passes before the next offer: 16 bytes then arrive about as fast as on a real line (115200 baud), so
 * that terminal drivers keep up, and a driver that listens before its last clearing of the FIFO (Linux does) loses nothing.
 */
int console_feed(struct console *c)
{
	size_t n;

	if (c->in_len == 0 || !c->room)
		return -1;
	if (c->refused) {
		c->refused = false;
		c->not_before = host_ns() + FEED_PAUSE_NS;
	}
	if (c->not_before > host_ns())
		return 1;
	pthread_mutex_lock(&c->vm->io.lock);
	n = c->port->input(c->dev, c->in, c->in_len);
	if (n < c->in_len)
		c->room = false; /* under io.lock, so room() cannot come before it */
	pthread_mutex_unlock(&c->vm->io.lock);
	c->refused = n < c->in_len;
	memmove(c->in, c->in + n, c->in_len - n);
	c->in_len -= (unsigned)n;
	return -1;
}

void console_close(struct console *c)
{
	for (int i = 0; i < 20 && c->out_fd >= 0; i++) {
		console_flush(c);
		if (c->head == c->tail)
			break;
		(void)writable(c->out_fd, 50);
	}
	if (c->tty)
		tty_restore(STDIN_FILENO, &c->saved);
}
