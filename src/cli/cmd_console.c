/* SPDX-License-Identifier: Apache-2.0 */
/*
 * doppel console: attaches the terminal to a machine's console, and detaches it again. Many may look on, one types; his terminal's size is the
 * console's.
 *
 * Invariant: the terminal is in the mode it was found in on every way out; signals that would end this process are blocked and read from
 * a descriptor, so there is one way out.
 */
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include "base/log.h"
#include "cli/cli.h"
#include "cli/control.h"
#include "host/signals.h"
#include "host/tty.h"
#include "proto/status.h"

#define ESCAPE 1                      /* Ctrl-A */
#define SCROLLBACK_DEFAULT (16u << 10)

void cmd_console_usage(void)
{
	fputs("usage: doppel console NAME [--read-only | --steal] [--scrollback BYTES]\n"
	      "\n"
	      "Attaches the terminal to the machine's console (its serial port, or virtio console) and\n"
	      "shows what it has put out last.\n"
	      "One may type, any number may look on; what is typed where the machine was started\n"
	      "arrives as well.\n"
	      "\n"
	      "  --read-only          look on, type nothing\n"
	      "  --steal              take over from whoever may type now\n"
	      "  --scrollback BYTES   how much earlier output to show (default 16384, at most 262144)\n"
	      "\n"
	      "Keys: Ctrl-A d detaches, Ctrl-A h lists the keys, Ctrl-A a sends Ctrl-A.\n"
	      "\n"
	      "exit status: 0 detached, or the machine has ended; 10 there is none, or somebody types\n",
	      stdout);
}

struct console {
	struct control_args args;
	struct ctl_attach attach;
	int fd, sigfd;
	bool tty, escaped, detached;
	struct termios saved;
};

static int set_read_only(void *opaque, const char *arg)
{
	(void)arg;
	((struct console *)opaque)->attach.flags = 0;
	return 0;
}

static int set_steal(void *opaque, const char *arg)
{
	(void)arg;
	((struct console *)opaque)->attach.flags |= CTL_ATTACH_STEAL;
	return 0;
}

static int set_scrollback(void *opaque, const char *arg)
{
	unsigned long v;
	char *end;

	errno = 0;
	v = strtoul(arg, &end, 10);
	if (*arg >= '0' && *arg <= '9' && !*end && !errno && v <= UINT32_MAX) {
		((struct console *)opaque)->attach.scrollback = (uint32_t)v;
		return 0;
	}
	log_error("--scrollback: '%s' is no number of bytes; give one up to 262144", arg);
	return STATUS_USAGE;
}

static int write_all(int fd, const uint8_t *buf, size_t len)
{
	while (len) {
		ssize_t n = write(fd, buf, len);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return -errno;
		buf += n;
		len -= (size_t)n;
	}
	return 0;
}

static void say(const char *text)
{
	(void)write_all(STDERR_FILENO, (const uint8_t *)text, strlen(text));
}

/* What a key pressed after Ctrl-A means; true if Ctrl-A itself is to be sent. */
static bool escape_key(struct console *c, uint8_t key)
{
	if (key == 'd')
		c->detached = true;
	else if (key == 'h' || key == '?')
		say("\r\n[Ctrl-A d detach   Ctrl-A a send Ctrl-A]\r\n");
	return key == 'a' || key == ESCAPE;
}

static int type(struct console *c)
{
	uint8_t in[512], out[512];
	ssize_t n = read(STDIN_FILENO, in, sizeof(in));
	size_t len = 0;

	if (n < 0 && (errno == EINTR || errno == EAGAIN))
		return 0;
	if (n <= 0)
		return -EPIPE; /* end of input: what is under way is still shown */
	for (ssize_t i = 0; i < n && !c->detached; i++) {
		if (c->escaped) {
			c->escaped = false;
			if (escape_key(c, in[i]))
				out[len++] = ESCAPE;
		} else if (c->tty && in[i] == ESCAPE) {
			c->escaped = true;
		} else {
			out[len++] = in[i];
		}
	}
	return len && (c->attach.flags & CTL_ATTACH_WRITE) ? control_send(c->fd, CTL_INPUT, out, len) : 0;
}

/* For a virtio console; a serial port has no size. */
static int send_size(struct console *c)
{
	struct ctl_resize r;

	if (!c->tty || !(c->attach.flags & CTL_ATTACH_WRITE))
		return 0;
	tty_size(STDIN_FILENO, &r.cols, &r.rows);
	return control_send(c->fd, CTL_RESIZE, &r, sizeof(r));
}

/* False: a signal that ends us. */
static bool on_signal(struct console *c, int *ret)
{
	struct signalfd_siginfo si;

	if (read(c->sigfd, &si, sizeof(si)) != sizeof(si))
		return true;
	if (si.ssi_signo != SIGWINCH)
		return false;
	*ret = send_size(c);
	return true;
}

/* Serves machine, keyboard and signals until one of them ends it. *ended: the machine has. */
static int serve(struct console *c, uint8_t *buf, bool *ended)
{
	bool typing = true;
	struct ctl_header h;
	const uint8_t *body;
	size_t len;
	int ret = send_size(c);

	while (ret == 0 && !c->detached && !*ended) {
		struct pollfd p[] = {{.fd = c->fd, .events = POLLIN}, {.fd = typing ? STDIN_FILENO : -1, .events = POLLIN},
				     {.fd = c->sigfd, .events = POLLIN}};

		if (poll(p, 3, -1) < 0 && errno != EINTR)
			return -errno;
		if (p[2].revents && !on_signal(c, &ret))
			return 0;
		if (ret == 0 && p[1].revents) {
			ret = type(c);
			typing = ret != -EPIPE;
			ret = ret == -EPIPE ? 0 : ret;
		}
		if (ret == 0 && p[0].revents) {
			ret = control_receive(c->fd, -1, buf, &h, &body, &len);
			if (ret == 0 && h.type == CTL_OUTPUT)
				ret = write_all(STDOUT_FILENO, body, len);
			*ended = ret == 0 && h.type == CTL_ENDED;
		}
	}
	return ret;
}

static int attach(struct console *c, uint8_t *buf)
{
	struct ctl_header h;
	const uint8_t *body;
	size_t len;
	int ret = control_send(c->fd, CTL_ATTACH, &c->attach, sizeof(c->attach));

	if (ret == 0)
		ret = control_receive(c->fd, CONTROL_PATIENCE_MS, buf, &h, &body, &len);
	if (ret == 0)
		ret = h.type == (CTL_ATTACH | CTL_REPLY) ? h.status : -EPROTO;
	if (ret == -EBUSY)
		log_error("somebody types on the console of %s; look on with --read-only, or take over with --steal", c->args.name);
	else if (ret < 0)
		log_error("cannot attach to %s: %s; see `doppel ps`", c->args.name, strerror(-ret));
	return ret ? STATUS_START : 0;
}

static int session(struct console *c)
{
	uint8_t *buf = malloc(CTL_MAX);
	bool ended = false;
	int ret = buf ? attach(c, buf) : STATUS_START;

	if (ret) {
		free(buf);
		return ret;
	}
	c->tty = tty_save(STDIN_FILENO, &c->saved);
	if (c->tty) {
		fprintf(stderr, "[%s; Ctrl-A d detaches]\r\n", c->args.name);
		tty_raw(STDIN_FILENO, &c->saved);
	}
	ret = serve(c, buf, &ended);
	if (c->tty)
		tty_restore(STDIN_FILENO, &c->saved);
	free(buf);
	if (c->tty)
		fprintf(stderr, "\n[%s]\n", ended || ret == -ENOTCONN ? "the machine has ended" : "detached");
	if (ret == 0 || ret == -ENOTCONN || ret == -EPIPE)
		return STATUS_POWEROFF;
	log_error("%s: %s", c->args.name, strerror(-ret));
	return STATUS_START;
}

static int open_signals(void)
{
	static const int list[] = {SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGWINCH};
	sigset_t set;

	signals_take(&set, list, nitems(list));
	signal(SIGTTOU, SIG_IGN);
	signal(SIGPIPE, SIG_IGN);
	return signalfd(-1, &set, SFD_CLOEXEC);
}

int cmd_console(int argc, char **argv)
{
	static const struct control_option options[] = {
		{"read-only", NULL, set_read_only}, {"steal", NULL, set_steal}, {"scrollback", "BYTES", set_scrollback}, {0}};
	struct console c = {.attach = {CTL_ATTACH_WRITE, SCROLLBACK_DEFAULT}};
	int ret = control_parse(argc, argv, options, &c, CONTROL_NAME, &c.args);

	if (ret)
		return ret;
	ret = control_connect(c.args.name, &c.fd);
	if (ret)
		return ret;
	c.sigfd = open_signals();
	if (c.sigfd < 0) {
		log_error("cannot make a signal descriptor: %s; raise the limit on open files", strerror(errno));
		ret = STATUS_START;
	} else {
		ret = session(&c);
		close(c.sigfd);
	}
	close(c.fd);
	return ret;
}
