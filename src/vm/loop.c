/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The main thread's event loop: console, channel to doppel, device timers while the vCPU runs, and the end.
 *
 * Invariant: this thread never waits for the guest; it takes io.lock only while the vCPU thread does not hold it for long
 * (console.blocked says when it does).
 * The end of the channel means that doppel is gone (however it died): the terminal is restored and the process exits.
 */
#include <errno.h>
#include <poll.h>
#include <time.h>
#include <unistd.h>

#include "base/log.h"
#include "vm/vm.h"

/* How long the vCPU thread may take to leave the engine after a stop request before the process ends without it. */
#define STOP_PATIENCE_NS 5000000000ull

enum { P_CHANNEL, P_NOTIFY, P_TIMER, P_IN, P_OUT, P_COUNT };

static void drain(int fd)
{
	uint64_t count;
	ssize_t n = read(fd, &count, sizeof(count));

	(void)n;
}

static void on_channel(struct vm *vm)
{
	switch (proto_recv_command(vm->channel)) {
	case PROTO_PAUSE:
		life_pause(vm, true);
		break;
	case PROTO_RESUME:
		vm->console.in_held = false;
		life_pause(vm, false);
		break;
	case PROTO_STOP:
		life_stop(vm, STATUS_STOPPED, "signal");
		break;
	default:
		/* End of file: doppel has died; or nonsense, which it never sends. Nobody is left to wait for the guest. */
		console_close(&vm->console);
		_exit(STATUS_STOPPED);
	}
}

static void on_timer(struct vm *vm)
{
	drain(vm->timer_fd);
	if (vm->console.blocked)
		return; /* the vCPU thread arms it again when it next halts or programs a timer */
	(void)io_timers_run(&vm->io);
	pthread_mutex_lock(&vm->io.lock);
	vm->armed = 0; /* it has expired, whatever it was set to */
	if (!vm->halted)
		vm_timers_arm(vm);
	pthread_mutex_unlock(&vm->io.lock);
}

/* Milliseconds poll may sleep, at most `timeout`; -1 for ever. Bounds the wait for a stopping vCPU. */
static int patience(struct vm *vm, int timeout, uint64_t *stop_seen)
{
	struct timespec ts;
	uint64_t now;

	if (!life_stopping(vm))
		return timeout;
	clock_gettime(CLOCK_MONOTONIC, &ts);
	now = (uint64_t)ts.tv_sec * 1000000000ull + (uint64_t)ts.tv_nsec;
	if (!*stop_seen)
		*stop_seen = now;
	if (now - *stop_seen > STOP_PATIENCE_NS) {
		log_error("the virtual processor did not stop in time; please report this defect");
		console_close(&vm->console);
		_exit(vm->life.status);
	}
	return 100;
}

int vm_loop(struct vm *vm)
{
	struct pollfd p[P_COUNT] = {
		[P_CHANNEL] = {.fd = vm->channel, .events = POLLIN},
		[P_NOTIFY] = {.fd = vm->notify_fd, .events = POLLIN},
		[P_TIMER] = {.fd = vm->timer_fd, .events = POLLIN},
	};
	uint64_t stop_seen = 0;
	int feed = -1;

	while (!vm->vcpu_ended) {
		console_wants(&vm->console, &p[P_IN], &p[P_OUT]);
		if (poll(p, P_COUNT, patience(vm, feed, &stop_seen)) < 0)
			continue; /* EINTR */
		if (p[P_NOTIFY].revents)
			drain(vm->notify_fd);
		if (vm->terminated)
			life_stop(vm, STATUS_STOPPED, "signal");
		if (p[P_TIMER].revents)
			on_timer(vm);
		if (p[P_CHANNEL].revents)
			on_channel(vm);
		if (p[P_OUT].fd >= 0 && p[P_OUT].revents)
			console_flush(&vm->console);
		if (p[P_IN].fd >= 0 && p[P_IN].revents)
			console_readable(vm);
		feed = console_feed(vm);
	}
	pthread_join(vm->vcpu_thread, NULL);
	return vm->life.status;
}
