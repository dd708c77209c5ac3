/* SPDX-License-Identifier: Apache-2.0 */
/*
 * doppel stats: what a machine has used and done, once or again and again. Sections and counters are the machine's
 * (base/stats.h): this file knows them by their endings only.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/log.h"
#include "cli/cli.h"
#include "cli/control.h"
#include "proto/status.h"

void cmd_stats_usage(void)
{
	fputs("usage: doppel stats NAME [--interval SECONDS [--count N]] [--format text|json]\n"
	      "\n"
	      "Prints processor time (guest and monitor), exits by kind, memory, and what each device\n"
	      "has done. With --interval again and again: as text the change per second, as JSON a whole\n"
	      "report a line, until the machine ends or N reports are printed. doppel(1) says what the\n"
	      "counters mean.\n",
	      stdout);
}

struct stats {
	struct control_args args;
	double interval;
	unsigned long count;   /* 0: no limit */
};

static int set_interval(void *opaque, const char *arg)
{
	if (control_seconds(arg, &((struct stats *)opaque)->interval))
		return 0;
	log_error("--interval: '%s' is no number of seconds; give one up to 86400", arg);
	return STATUS_USAGE;
}

static int set_count(void *opaque, const char *arg)
{
	char *end;

	((struct stats *)opaque)->count = strtoul(arg, &end, 10);
	if (*arg >= '1' && *arg <= '9' && !*end)
		return 0;
	log_error("--count: '%s' is no number; give at least 1", arg);
	return STATUS_USAGE;
}

static bool ends_in(const char *s, const char *end)
{
	size_t n = strlen(s), m = strlen(end);

	return n >= m && !strcmp(s + n - m, end);
}

/* A value, or the change per second if `per` is not zero. */
static void print_value(const char *key, double v, double per)
{
	const char *rate = per > 0 ? "/s" : "";

	if (per > 0)
		v /= per;
	if (ends_in(key, "_ns"))
		printf("%14.3f s%s", v / 1e9, rate);
	else if (ends_in(key, "_bytes"))
		printf("%14.2f MiB%s", v / 1048576, rate);
	else
		printf("%14.0f%s", v, rate);
}

static void print_section(const char *name, const json_t *now, const json_t *before, double per)
{
	const char *key;
	json_t *val;

	json_object_foreach((json_t *)(uintptr_t)now, key, val) {
		double v = (double)json_integer_value(val), old = (double)json_integer_value(json_object_get(before, key));

		if (before && v == old)
			continue;
		printf("%s.%-*s", name, 36 - (int)strlen(name), key);
		print_value(key, before ? v - old : v, per);
		putchar('\n');
	}
}

static void print_text(const json_t *now, const json_t *before)
{
	const char *key;
	json_t *val;
	double per = 0;

	if (before) {
		const json_t *a = json_object_get(json_object_get(before, "time"), "host_ns");
		const json_t *b = json_object_get(json_object_get(now, "time"), "host_ns");

		per = (double)(json_integer_value(b) - json_integer_value(a)) / 1e9;
		if (per <= 0)
			return;
	}
	json_object_foreach((json_t *)(uintptr_t)now, key, val) {
		if (json_is_object(val))
			print_section(key, val, json_object_get(before, key), per);
		else if (!before && json_is_string(val))
			printf("%-37s%14s\n", key, json_string_value(val));
		else if (!before)
			printf("%-37s%14lld\n", key, (long long)json_integer_value(val));
	}
	fflush(stdout);
}

static int report(const struct stats *s, int fd, json_t **before)
{
	json_t *now;
	int ret = control_ask(fd, s->args.name, CTL_STATS, &now);

	if (ret)
		return ret;
	if (!s->args.json) {
		if (*before)
			putchar('\n');
		print_text(now, *before);
	} else if (s->interval > 0) {
		json_dumpf(now, stdout, JSON_COMPACT);
		putchar('\n');
		fflush(stdout);
	} else {
		control_print(now);
	}
	json_decref(*before);
	*before = now;
	return 0;
}

int cmd_stats(int argc, char **argv)
{
	static const struct control_option options[] = {{"interval", "SECONDS", set_interval}, {"count", "N", set_count}, {0}};
	struct stats s = {0};
	json_t *before = NULL;
	int fd, ret = control_parse(argc, argv, options, &s, CONTROL_NAME, &s.args);

	if (ret)
		return ret;
	ret = control_connect(s.args.name, &fd);
	if (ret)
		return ret;
	for (unsigned long i = 0; ret == 0 && (i == 0 || s.interval > 0) && (!s.count || i < s.count); i++) {
		if (i)
			nanosleep(&(struct timespec){(time_t)s.interval, (long)((s.interval - (double)(time_t)s.interval) * 1e9)}, NULL);
		ret = report(&s, fd, &before);
	}
	json_decref(before);
	close(fd);
	return ret;
}
