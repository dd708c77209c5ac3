/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The main thread: the event loop with console, channel to doppel, the timers that no halted vCPU serves, and the end.
 *
 * Invariant: this thread never waits for the guest; nothing waits while holding io.lock, so it is free to take that.
 * The end of the channel means that doppel is gone (however it died): the terminal is restored and the process exits.
 */
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/log.h"
#include "gdb/gdb.h"
#include "vm/vm.h"

/* How long the vCPU thread may take to leave the engine after a stop request before the process ends without it. */
#define STOP_PATIENCE_NS 5000000000ull

static void drain(int fd)
{
	uint64_t count;
	ssize_t n = read(fd, &count, sizeof(count));

	(void)n;
}

static void on_notify(void *opaque, short revents)
{
	struct vm *vm = opaque;

	(void)revents;
	drain(vm->notify_fd);
}

static void on_channel(void *opaque, short revents)
{
	struct vm *vm = opaque;

	struct proto_resize m;

	(void)revents;
	switch (proto_recv_command(vm->channel, &m)) {
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
	case PROTO_RESIZE:
		console_resize(&vm->console, m.cols, m.rows);
		break;
	default:
		/* End of file: doppel has died; or nonsense, which it never sends. Nobody is left to wait for the guest. */
		console_close(&vm->console);
		_exit(STATUS_STOPPED);
	}
}

static void on_timer(void *opaque, short revents)
{
	struct vm *vm = opaque;

	(void)revents;
	drain(vm->timer_fd);
	(void)io_timers_run(&vm->io);
	pthread_mutex_lock(&vm->io.lock);
	vm->armed = UINT64_MAX; /* it has expired, whatever it was set to */
	vm_timers_arm(vm);
	pthread_mutex_unlock(&vm->io.lock);
}

/* Milliseconds poll may sleep, at most `timeout`; -1 for ever. Bounds the wait for stopping vCPUs. */
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
		log_error("a virtual processor did not stop in time; please report this defect");
		console_close(&vm->console);
		_exit(vm->life.status);
	}
	return 100;
}

int vm_loop_init(struct vm *vm)
{
	int ret;

	vm->ev_notify = (struct ev_source){.fd = vm->notify_fd, .events = POLLIN, .ready = on_notify, .opaque = vm};
	vm->ev_timer = (struct ev_source){.fd = vm->timer_fd, .events = POLLIN, .ready = on_timer, .opaque = vm};
	vm->ev_channel = (struct ev_source){.fd = vm->channel, .events = POLLIN, .ready = on_channel, .opaque = vm};
	ret = evloop_add(&vm->loop, &vm->ev_notify);
	if (ret == 0)
		ret = evloop_add(&vm->loop, &vm->ev_timer);
	if (ret == 0)
		ret = evloop_add(&vm->loop, &vm->ev_channel);
	if (ret == 0)
		ret = console_watch(&vm->console);
	return ret ? ret : console_watch(&vm->serial_file);
}

int vm_loop(struct vm *vm)
{
	uint64_t stop_seen = 0;
	int feed = -1, ret, wait;

	while (vm->vcpus_ended < vm->ncpus) {
		console_wants(&vm->console);
		console_wants(&vm->serial_file);
		wait = ctl_pump(vm);
		if (wait < 0 || (feed >= 0 && feed < wait))
			wait = feed;
		ret = evloop_wait(&vm->loop, patience(vm, wait, &stop_seen));
		if (ret < 0 && !life_stopping(vm)) {
			log_error("the event loop cannot wait: %s; free some host memory", strerror(-ret));
			life_stop(vm, STATUS_MONITOR, "event loop");
		}
		if (vm->gdb)
			gdb_poll(vm->gdb);
		if (vm->terminated)
			life_stop(vm, STATUS_STOPPED, "signal");
		feed = console_feed(&vm->console);
	}
	for (unsigned i = 0; i < vm->ncpus; i++)
		pthread_join(vm->cpu[i].thread, NULL);
	if (vm->gdb)
		gdb_ended(vm->gdb, vm->life.status);
	return vm->life.status;
}
