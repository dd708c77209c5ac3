/* SPDX-License-Identifier: Apache-2.0 */
/*
 * doppel ps: the user's machines. What dead ones have left is shown once, as dead, and removed.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "cli/cli.h"
#include "cli/control.h"
#include "host/rundir.h"
#include "proto/status.h"

void cmd_ps_usage(void)
{
	fputs("usage: doppel ps [--format text|json]\n"
	      "\n"
	      "Lists your machines: name, process, state (running, pausing, paused, held, stopping, hung,\n"
	      "dead), processors, memory, engine, time since boot without pauses, processor time. What\n"
	      "dead machines have left behind is listed once and removed.\n",
	      stdout);
}

/* Adds what is known of one machine to the array. */
static int add(void *list, const char *name)
{
	json_t *info = NULL;
	pid_t pid;
	int fd, ret = control_try(name, &fd, &pid);
	const char *state = "hung";

	if (ret == -ENOENT)
		return 0;
	if (ret == 0) {
		ret = control_call(fd, CTL_INFO, &info);
		close(fd);
	}
	if (ret == -ESRCH)
		state = "dead";
	else if (ret == -ENOTCONN || ret == -EACCES)
		state = "stopping";
	if (!info)
		info = json_pack("{s:s, s:s}", "name", name, "state", state);
	if (pid && ret != -ESRCH) /* a dead one's number may be somebody else's by now */
		json_object_set_new(info, "pid", json_integer(pid));
	return json_array_append_new(list, info) < 0 ? -ENOMEM : 0;
}

static void print_time(const json_t *ns)
{
	double s = (double)json_integer_value(ns) / 1e9;

	if (!ns)
		printf(" %10s", "-");
	else if (s < 600)
		printf(" %8.1f s", s);
	else
		printf(" %5d h %02d", (int)(s / 3600), (int)(s / 60) % 60);
}

static const char *text(const json_t *o, const char *key)
{
	const char *s = json_string_value(json_object_get(o, key));

	return s ? s : "-";
}

static void print_number(const json_t *o, const char *key, unsigned shift, int width, const char *unit)
{
	const json_t *n = json_object_get(o, key);

	if (n)
		printf(" %*lld%s", width, (long long)json_integer_value(n) >> shift, unit);
	else
		printf(" %*s", width + (int)strlen(unit), "-");
}

static void print_text(const json_t *list)
{
	size_t i;
	json_t *m;

	printf("%-20s %7s %-9s %4s %8s %-8s %10s %10s\n", "NAME", "PID", "STATE", "CPUS", "MEMORY", "ENGINE", "UPTIME", "CPU");
	json_array_foreach(list, i, m) {
		printf("%-20s", text(m, "name"));
		print_number(m, "pid", 0, 7, "");
		printf(" %-9s", text(m, "state"));
		print_number(m, "cpus", 0, 4, "");
		print_number(m, "memory_bytes", 20, 6, " M");
		printf(" %-8s", text(m, "engine"));
		print_time(json_object_get(m, "uptime_ns"));
		print_time(json_object_get(m, "vcpu_ns"));
		putchar('\n');
	}
}

int cmd_ps(int argc, char **argv)
{
	struct control_args a;
	struct rundir d;
	char why[256];
	json_t *list;
	int ret = control_parse(argc, argv, NULL, NULL, CONTROL_NOTHING, &a);

	if (ret)
		return ret;
	if (rundir_open(&d, why, sizeof(why)) < 0) {
		log_error("%s", why);
		return STATUS_START;
	}
	list = json_array();
	ret = list ? rundir_each(&d, add, list) : -ENOMEM;
	rundir_close(&d);
	if (ret < 0)
		log_error("cannot list %s: %s", d.path, strerror(-ret));
	else if (a.json)
		control_print(list);
	else
		print_text(list);
	json_decref(list);
	return ret < 0 ? STATUS_START : STATUS_POWEROFF;
}
