/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Control server: see ctl.h for budget and threads, docs/abi/control.md for the protocol.
 *
 * Invariant: whatever a client sends or leaves unread costs at most its connection.
 * Rights: the socket lies in a directory that only the owner can enter; the peer's user is checked once more here. Inside a user
 * namespace that sees the owner as itself and everybody else, root included, as somebody else.
 */
#include "vm/ctl.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "dev/platform/acpi.h"
#include "dev/virtio/balloon.h"
#include "vm/json.h"
#include "vm/vm.h"

#define OUTPUT_PIECE 4096u      /* console output a message */
#define OUTPUT_PIECES 16u       /* messages a client and round, so that the others have their turn */

static void drop(struct ctl_client *c)
{
	evloop_del(&c->vm->loop, &c->ev);
	close(c->ev.fd);
	*c = (struct ctl_client){.vm = c->vm, .ev.fd = -1};
	c->vm->ctl->listener.events = POLLIN; /* there may have been no descriptor for the next one */
}

/* Sends ctl->out; `size` counts the header. False: not taken. errno says why. */
static bool send_out(struct ctl_client *c, unsigned type, size_t size, int status)
{
	struct ctl *ctl = c->vm->ctl;
	ssize_t n;

	ctl_header_init(&ctl->out.h, type, size, status);
	do
		n = write(c->ev.fd, ctl->out.bytes, size);
	while (n < 0 && errno == EINTR);
	return n == (ssize_t)size;
}

static void reply(struct ctl_client *c, enum ctl_type type, size_t body, int status)
{
	if (!send_out(c, type | CTL_REPLY, sizeof(struct ctl_header) + body, status))
		drop(c);
}

/* --- requests ------------------------------------------------------------------------------------------------------- */

static const char *state_name(struct vm *vm)
{
	const char *name = "running";

	pthread_mutex_lock(&vm->life.lock);
	if (vm->life.stop)
		name = "stopping";
	else if (vm->life.pause)
		name = vm->life.still ? "paused" : "pausing";
	else if (vm->life.holds)
		name = "held";
	pthread_mutex_unlock(&vm->life.lock);
	return name;
}

static void report_info(struct vm *vm, struct json *j)
{
	uint64_t cpu = 0;

	for (unsigned i = 0; i < vm->ncpus; i++)
		cpu += vm_cpu_ns(&vm->cpu[i]);
	json_open(j, NULL);
	json_string(j, "name", vm->config->name);
	json_string(j, "state", state_name(vm));
	json_number(j, "cpus", vm->ncpus);
	json_number(j, "memory_bytes", vm->config->memory);
	json_number(j, "populated_bytes", mem_populated(vm->mem));
	json_string(j, "engine", vm->engine->name);
	json_number(j, "uptime_ns", vm_clock_now(&vm->clock));
	json_number(j, "vcpu_ns", cpu);
	json_close(j);
}

static void send_json(struct ctl_client *c, enum ctl_type type, void (*report)(struct vm *vm, struct json *j))
{
	struct ctl *ctl = c->vm->ctl;
	struct json j = {.first = true};

	report(c->vm, &j);
	if (j.overflow || j.len > CTL_MAX - sizeof(struct ctl_header)) {
		reply(c, type, 0, -EMSGSIZE);
		return;
	}
	memcpy(ctl->out.bytes + sizeof(struct ctl_header), j.buf, j.len);
	reply(c, type, j.len, 0);
}

/* A guest that stands still would not notice the button. */
static int press_power(struct vm *vm)
{
	void *acpi = board_find(&vm->board, "acpi");

	if (strcmp(state_name(vm), "running"))
		return -EBUSY;
	if (!acpi)
		return -ENODEV;
	pthread_mutex_lock(&vm->io.lock);
	acpi_power_button(acpi);
	pthread_mutex_unlock(&vm->io.lock);
	return 0;
}

static uint64_t host_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000ull + (uint64_t)ts.tv_nsec;
}

/* Replies from ctl_pump(), when the guest has had its say. One that stands still has none. */
static void report_late(struct ctl_client *c, enum ctl_type type)
{
	struct vm *vm = c->vm;
	struct virtio_balloon_info info;

	c->late = type;
	c->until = 0;
	if (!vm->balloon || strcmp(state_name(vm), "running"))
		return;
	pthread_mutex_lock(&vm->io.lock);
	virtio_balloon_info(vm->balloon, &info);
	if (virtio_balloon_poll(vm->balloon))
		c->until = host_ns() + CTL_GUEST_PATIENCE_NS;
	pthread_mutex_unlock(&vm->io.lock);
	c->news = info.news;
}

static int set_memory(struct vm *vm, uint64_t bytes)
{
	if (!bytes)
		return 0;
	if (!vm->balloon)
		return -ENODEV;
	if (bytes > vm->config->memory)
		return -EINVAL;
	pthread_mutex_lock(&vm->io.lock);
	virtio_balloon_set(vm->balloon, vm->config->memory - bytes);
	pthread_mutex_unlock(&vm->io.lock);
	return 0;
}

static struct ctl_client *writer(struct ctl *ctl)
{
	for (unsigned i = 0; i < CTL_CLIENTS; i++)
		if (ctl->client[i].ev.fd >= 0 && ctl->client[i].writes)
			return &ctl->client[i];
	return NULL;
}

static int attach(struct ctl_client *c, const struct ctl_attach *a)
{
	struct ctl_client *other = writer(c->vm->ctl);

	if (c->attached)
		return -EALREADY;
	if (a->flags & CTL_ATTACH_WRITE) {
		if (other && !(a->flags & CTL_ATTACH_STEAL))
			return -EBUSY;
		if (other)
			other->writes = false;
		c->writes = true;
	}
	c->attached = c->watches = true;
	c->pos = console_last(&c->vm->console, a->scrollback);
	return 0;
}

static void serve(struct ctl_client *c, const struct ctl_request *r)
{
	struct vm *vm = c->vm;
	int ret;

	switch (r->type) {
	case CTL_INFO:
		send_json(c, r->type, report_info);
		return;
	case CTL_STATS:
		report_late(c, r->type);
		return;
	case CTL_MEMORY:
		ret = set_memory(vm, r->memory.bytes);
		if (ret)
			reply(c, r->type, 0, ret);
		else
			report_late(c, r->type);
		return;
	case CTL_PAUSE:
		life_pause(vm, true);
		c->late = r->type; /* ctl_pump() replies */
		return;
	case CTL_RESUME:
		life_pause(vm, false);
		break;
	case CTL_RESET:
		life_reset(vm);
		break;
	case CTL_POWER:
		reply(c, r->type, 0, press_power(vm));
		return;
	case CTL_STOP:
		life_stop(vm, STATUS_STOPPED, "doppel stop");
		break;
	case CTL_WATCH:
		c->watches = true;
		break;
	case CTL_ATTACH:
		reply(c, r->type, 0, attach(c, &r->attach));
		return;
	case CTL_INPUT:
		/* From one whose place was taken meanwhile: nothing to say about that. */
		if (c->writes)
			console_type(&vm->console, r->data, r->len);
		return;
	case CTL_RESIZE:
		if (c->writes)
			console_resize(&vm->console, r->resize.cols, r->resize.rows);
		return;
	default:
		return; /* ctl_parse_request() lets nothing else through */
	}
	reply(c, r->type, 0, 0);
}

/* --- connections ---------------------------------------------------------------------------------------------------- */

static void on_client(void *opaque, short revents)
{
	struct ctl_client *c = opaque;
	struct ctl *ctl = c->vm->ctl;
	struct ctl_request r;
	ssize_t n;

	if (!(revents & ~POLLOUT))
		return; /* ctl_pump() writes */
	/* read(2) takes no descriptors: what a client may have attached is gone. */
	n = read(c->ev.fd, ctl->in, sizeof(ctl->in));
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (n <= 0 || ctl_parse_request(ctl->in, (size_t)n, &r) < 0)
		drop(c);
	else
		serve(c, &r);
}

static bool is_owner(const struct ctl *ctl, int fd)
{
	struct ucred peer;
	socklen_t len = sizeof(peer);

	return getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &len) == 0 && peer.uid == ctl->owner;
}

static void on_listener(void *opaque, short revents)
{
	struct ctl *ctl = opaque;
	int fd = accept4(ctl->listener.fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
	struct ctl_client *c = ctl->client;

	(void)revents;
	if (fd < 0) {
		if (errno != EAGAIN && errno != EINTR && errno != ECONNABORTED)
			ctl->listener.events = 0; /* no descriptors left: until a client goes */
		return;
	}
	while (c < ctl->client + CTL_CLIENTS && c->ev.fd >= 0)
		c++;
	if (c == ctl->client + CTL_CLIENTS || !is_owner(ctl, fd)) {
		close(fd);
		return;
	}
	*c = (struct ctl_client){.vm = ctl->vm, .ev = {.fd = fd, .events = POLLIN, .ready = on_client, .opaque = c}};
	if (evloop_add(&ctl->vm->loop, &c->ev) < 0) {
		close(fd);
		c->ev.fd = -1;
	}
}

int ctl_init(struct vm *vm, int listen_fd)
{
	struct ctl *ctl = calloc(1, sizeof(*ctl));

	if (!ctl)
		return -ENOMEM;
	ctl->vm = vm;
	ctl->owner = geteuid();
	for (unsigned i = 0; i < CTL_CLIENTS; i++)
		ctl->client[i] = (struct ctl_client){.vm = vm, .ev.fd = -1};
	ctl->listener = (struct ev_source){.fd = listen_fd, .events = POLLIN, .ready = on_listener, .opaque = ctl};
	vm->ctl = ctl;
	return evloop_add(&vm->loop, &ctl->listener);
}

/* Console output while the client takes it. True if it may take more at once. */
static bool pump_output(struct ctl_client *c)
{
	struct ctl *ctl = c->vm->ctl;

	for (unsigned i = 0; i < OUTPUT_PIECES; i++) {
		uint64_t pos = c->pos;
		size_t n = console_copy(&c->vm->console, &c->pos, ctl->out.bytes + sizeof(struct ctl_header), OUTPUT_PIECE, &c->missed);

		if (n == 0)
			return false;
		if (send_out(c, CTL_OUTPUT, sizeof(struct ctl_header) + n, 0))
			continue;
		c->pos = pos;
		if (errno == EAGAIN)
			return true;
		drop(c);
		return false;
	}
	return true;
}

static bool stands_still(struct vm *vm)
{
	bool still;

	pthread_mutex_lock(&vm->life.lock);
	still = vm->life.still || !vm->life.pause;
	pthread_mutex_unlock(&vm->life.lock);
	return still;
}

/* Milliseconds until the guest has had its time, 0: it has, or has spoken. */
static int guest_patience(const struct ctl_client *c)
{
	struct virtio_balloon_info info = {0};
	uint64_t now = host_ns();

	if (c->until <= now)
		return 0;
	pthread_mutex_lock(&c->vm->io.lock);
	virtio_balloon_info(c->vm->balloon, &info);
	pthread_mutex_unlock(&c->vm->io.lock);
	return info.news == c->news ? (int)((c->until - now) / 1000000) + 1 : 0;
}

/* Milliseconds to wait, -1: until something happens. */
static int reply_late(struct ctl_client *c)
{
	enum ctl_type type = c->late;
	int wait;

	if (type == CTL_PAUSE) {
		if (!stands_still(c->vm))
			return -1;
		c->late = 0;
		reply(c, type, 0, 0);
		return -1;
	}
	wait = guest_patience(c);
	if (wait)
		return wait;
	c->late = 0;
	send_json(c, type, type == CTL_STATS ? vm_stats_report : vm_memory_report);
	return -1;
}

static int pump_client(struct ctl_client *c)
{
	bool more = false;
	int wait = c->late ? reply_late(c) : -1;

	if (c->ev.fd >= 0 && c->attached)
		more = pump_output(c);
	if (c->ev.fd < 0)
		return -1;
	/* What is typed waits in the socket until the guest has taken what was typed before; a late reply holds up what follows it. */
	c->ev.events = (short)((more ? POLLOUT : 0) |
			       (c->late || (c->writes && console_room(&c->vm->console) < CTL_INPUT_MAX) ? 0 : POLLIN));
	return wait;
}

int ctl_pump(struct vm *vm)
{
	int wait = -1, w;

	for (unsigned i = 0; vm->ctl && i < CTL_CLIENTS; i++) {
		w = vm->ctl->client[i].ev.fd >= 0 ? pump_client(&vm->ctl->client[i]) : -1;
		if (w >= 0 && (wait < 0 || w < wait))
			wait = w;
	}
	return wait;
}

void ctl_end(struct vm *vm)
{
	struct ctl_ended end = {.status = vm->life.status};
	size_t len = strnlen(vm->life.reason, sizeof(end.reason) - 1);

	memcpy(end.reason, vm->life.reason, len);
	for (unsigned i = 0; vm->ctl && i < CTL_CLIENTS; i++) {
		struct ctl_client *c = &vm->ctl->client[i];

		if (c->ev.fd < 0 || !c->watches)
			continue;
		if (c->attached)
			(void)pump_output(c);
		memcpy(vm->ctl->out.bytes + sizeof(struct ctl_header), &end, sizeof(end));
		if (c->ev.fd >= 0)
			(void)send_out(c, CTL_ENDED, sizeof(struct ctl_header) + sizeof(end), 0);
	}
}
