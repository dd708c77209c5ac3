/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The console: a port's host side on standard input and output, or a file, with the escape key; and a memory of what was put out last, for
 * those who attach later (ctl.c). The port is the first serial one or a virtio console.
 *
 * Output goes from a vCPU thread (holding io.lock) into a ring and never waits there. The main thread empties it; when it cannot keep
 * up, the vCPU that has written waits outside all locks (console_throttle), so a terminal that is held up holds up the guest and
 * nothing else. A virtio console is told how much was taken, and keeps the rest in the guest's ring. Viewers read the same ring at places of their own and may miss something; the guest never waits for them.
 */
#ifndef VM_CONSOLE_H
#define VM_CONSOLE_H

#include <pthread.h>
#include <stdatomic.h>
#include <termios.h>

#include "base/types.h"
#include "host/evloop.h"

#define CONSOLE_OUT (256u << 10)        /* power of two */
#define CONSOLE_BACKLOG (64u << 10)     /* waiting for the output: more makes the guest wait */
#define CONSOLE_IN 4096
#define CONSOLE_ESCAPE 1    /* Ctrl-A */

struct vm;
struct vcpu;

/* A device that a console belongs to. io.lock is held. */
struct console_port {
	size_t (*input)(void *dev, const uint8_t *buf, size_t n);        /* how many of them it took */
	void (*drained)(void *dev);                                      /* what was refused would be taken now. May be NULL. */
	void (*resize)(void *dev, uint16_t cols, uint16_t rows);         /* of the terminal. May be NULL. */
};

struct console {
	struct vm *vm;
	const struct console_port *port;
	void *dev;
	pthread_mutex_t lock;         /* protects out[], head, tail */
	pthread_cond_t drained;       /* full has become false */
	uint8_t out[CONSOLE_OUT];     /* out[head - n] .. out[head - 1], modulo size: what came last */
	uint64_t head, tail;          /* bytes ever put; bytes ever written to out_fd (head without one) */
	_Atomic bool full;            /* more than CONSOLE_BACKLOG waits */
	_Atomic bool told;            /* the main thread has been notified of output and has not looked yet */
	int out_fd, in_fd;            /* -1: none */
	struct ev_source ev_in, ev_out;
	bool tty;                     /* in_fd is a terminal: escape key works, `saved` is its mode to go back to */
	bool escaped;
	bool in_held;                 /* reading is suspended until the machine is resumed (we are in the background) */
	struct termios saved;
	uint8_t in[CONSOLE_IN];       /* main thread only */
	unsigned in_len;
	_Atomic bool room;            /* the receiver can take more */
	bool refused;                 /* it could not, last time */
	uint64_t not_before;          /* host time before which nothing is offered: see console_feed() */
	uint64_t dropped;
};

void console_init(struct console *c, struct vm *vm, int in_fd, int out_fd);
/* Device side. A chr_ops for the serial port, opaque = struct console; and for a virtio console: how much was taken, and room for input. */
extern const struct chr_ops console_chr_ops;
size_t console_put_some(void *console, const uint8_t *buf, size_t n);
void console_has_room(void *console);
/* vCPU thread that is among vm->talkers, after the access, no lock held: waits while the output is held up. */
void console_throttle(struct vm *vm, const struct vcpu *v);
/* Copies what follows *pos, at most n bytes, and moves *pos on; what is not in the ring any more is skipped and counted in *missed. */
size_t console_copy(struct console *c, uint64_t *pos, uint8_t *buf, size_t n, uint64_t *missed);
/* Main thread: input from elsewhere than in_fd, without escape key; what does not fit is dropped, console_room() bytes do. */
void console_type(struct console *c, const uint8_t *buf, size_t n);
size_t console_room(const struct console *c);
/* Where the last n bytes begin, or what is left of them. */
uint64_t console_last(struct console *c, uint64_t n);

/* Main thread. */
int console_watch(struct console *c);           /* registers with the machine's loop: 0 or -ENOSPC */
void console_resize(struct console *c, uint16_t cols, uint16_t rows);
void console_wants(struct console *c);          /* before each wait: what the loop is to look for */
void console_flush(struct console *c);          /* writes what can be written without blocking */
int console_feed(struct console *c);                /* hands buffered input to the port; ms until the next try, -1 = none */
void console_close(struct console *c);          /* flushes (up to a second) and restores the terminal */

#endif
