/* SPDX-License-Identifier: Apache-2.0 */
/*
 * doppel stop: presses the power button and waits until the guest has switched itself off; with --force ends the machine at once.
 * On a terminal the wait is shown.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/log.h"
#include "cli/cli.h"
#include "cli/control.h"
#include "host/rundir.h"
#include "proto/status.h"

#define TIMEOUT_DEFAULT 60.0
#define FORCE_TIMEOUT 20.0
#define SHOW_MS 1000

void cmd_stop_usage(void)
{
	fputs("usage: doppel stop NAME [--force] [--timeout SECONDS] [--format text|json]\n"
	      "\n"
	      "Presses the machine's power button and waits until its guest has switched it off.\n"
	      "\n"
	      "  --force              end the machine at once, as pulling the plug does\n"
	      "  --timeout SECONDS    how long to wait (default 60)\n"
	      "\n"
	      "exit status: 0 it has ended; 10 there is none, or it is paused; 16 it has not ended in\n"
	      "time (and goes on)\n",
	      stdout);
}

struct stop {
	struct control_args args;
	bool force;
	double timeout;
};

static int set_force(void *opaque, const char *arg)
{
	(void)arg;
	((struct stop *)opaque)->force = true;
	return 0;
}

static int set_timeout(void *opaque, const char *arg)
{
	if (control_seconds(arg, &((struct stop *)opaque)->timeout))
		return 0;
	log_error("--timeout: '%s' is no number of seconds; give one up to 86400", arg);
	return STATUS_USAGE;
}

static double now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}

static void show(const struct stop *s, double waited, bool last)
{
	if (isatty(STDERR_FILENO))
		fprintf(stderr, last ? "\r\033[K" : "\rwaiting for %s to switch itself off: %.0f s ", s->args.name, waited);
}

/* The end as the machine tells it, then of its process: what holds its disks is gone when the name is free. 0 or -ETIMEDOUT. */
static int wait_for_end(const struct stop *s, int fd, struct ctl_ended *end)
{
	uint8_t *buf = malloc(CTL_MAX);
	const uint8_t *body;
	struct ctl_header h;
	double begin = now(), waited = 0;
	size_t len;
	int ret = buf ? 0 : -ENOMEM, probe;
	pid_t pid;

	while (ret == 0 && waited < s->timeout) {
		double left = (s->timeout - waited) * 1000;

		ret = control_receive(fd, left < SHOW_MS ? (int)left + 1 : SHOW_MS, buf, &h, &body, &len);
		if (ret == 0 && h.type == CTL_ENDED)
			memcpy(end, body, sizeof(*end));
		if (ret == -ETIMEDOUT)
			ret = 0;
		waited = now() - begin;
		show(s, waited, ret != 0);
	}
	free(buf);
	if (ret == 0)
		show(s, waited, true);
	while (ret == -ENOTCONN && now() - begin < s->timeout) {
		int r = control_try(s->args.name, &probe, &pid);

		if (r == 0)
			close(probe);
		if (r == -ENOENT || r == -ESRCH)
			return 0;
		usleep(10000);
	}
	return ret == 0 || ret == -ENOTCONN ? -ETIMEDOUT : ret;
}

static int stop(const struct stop *s, int fd)
{
	struct ctl_ended end = {.reason = "ended"};
	int ret = control_ask(fd, s->args.name, CTL_WATCH, NULL);

	if (ret)
		return ret;
	ret = control_call(fd, s->force ? CTL_STOP : CTL_POWER, NULL);
	/* It may end by itself just now: all the better. */
	if (ret < 0 && ret != -ENOTCONN)
		return control_failed(s->args.name, ret);
	ret = wait_for_end(s, fd, &end);
	if (ret == -ETIMEDOUT) {
		log_error("%s has not ended within %g s; give it a longer --timeout, or --force", s->args.name, s->timeout);
		return STATUS_TIMEOUT;
	}
	if (ret < 0) {
		log_error("%s: %s", s->args.name, strerror(-ret));
		return STATUS_START;
	}
	control_done(&s->args, "end", end.reason);
	return STATUS_POWEROFF;
}

int cmd_stop(int argc, char **argv)
{
	static const struct control_option options[] = {{"force", NULL, set_force}, {"timeout", "SECONDS", set_timeout}, {0}};
	struct stop s = {0};
	int fd, ret = control_parse(argc, argv, options, &s, CONTROL_NAME, &s.args);

	if (ret)
		return ret;
	if (s.timeout == 0)
		s.timeout = s.force ? FORCE_TIMEOUT : TIMEOUT_DEFAULT;
	ret = control_connect(s.args.name, &fd);
	if (ret)
		return ret;
	ret = stop(&s, fd);
	close(fd);
	return ret;
}
