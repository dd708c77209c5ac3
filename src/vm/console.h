/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The console: the serial port's host side on standard input and output, or a file, with the escape key.
 *
 * Output goes from the vCPU thread (holding io.lock) into a ring that the main thread empties; a full ring makes the
 * writer empty it, so a terminal that is held up holds up the guest and nothing else.
 */
#ifndef VM_CONSOLE_H
#define VM_CONSOLE_H

#include <pthread.h>
#include <stdatomic.h>
#include <termios.h>

#include "base/types.h"
#include "host/evloop.h"

#define CONSOLE_OUT 65536   /* power of two */
#define CONSOLE_IN 4096
#define CONSOLE_ESCAPE 1    /* Ctrl-A */

struct vm;

struct console {
	pthread_mutex_t lock;         /* protects out[], head, tail */
	uint8_t out[CONSOLE_OUT];
	unsigned head, tail;          /* free-running: head - tail bytes wait */
	_Atomic bool blocked;         /* the vCPU thread waits for the output's reader while holding io.lock */
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

void console_init(struct console *c, int in_fd, int out_fd);
/* Device side: a chr_ops for the serial port, opaque = struct vm. */
extern const struct chr_ops console_chr_ops;

/* Main thread. */
int console_watch(struct vm *vm);               /* registers with the machine's loop: 0 or -ENOSPC */
void console_wants(struct console *c);          /* before each wait: what the loop is to look for */
void console_flush(struct console *c);          /* writes what can be written without blocking */
int console_feed(struct vm *vm);                /* hands buffered input to the port; ms until the next try, -1 = none */
void console_close(struct console *c);          /* flushes (up to a second) and restores the terminal */

#endif
