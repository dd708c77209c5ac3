/* SPDX-License-Identifier: Apache-2.0 */
/*
 * doppel memory: what memory a machine has and uses, and how much of it its guest shall keep: the balloon takes the rest.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/log.h"
#include "cli/cli.h"
#include "cli/control.h"
#include "cli/run.h"
#include "proto/status.h"

#define MIB (1ull << 20)
#define LOOK_EVERY_NS 100000000

void cmd_memory_usage(void)
{
	fputs("usage: doppel memory NAME [SIZE|max] [--wait SECONDS] [--format text|json]\n"
	      "\n"
	      "Shows a machine's memory by state. With SIZE (K, M or G; plain numbers are MiB) asks the\n"
	      "guest to keep that much and give the rest back to the host; `max`: to keep all it has\n"
	      "been promised. --wait waits until the guest has done so, SECONDS at most.\n",
	      stdout);
}

struct memory {
	struct control_args args;
	uint64_t bytes;         /* 0: only show; UINT64_MAX: all */
	double wait;
	int fd;
};

static int set_wait(void *opaque, const char *arg)
{
	if (control_seconds(arg, &((struct memory *)opaque)->wait))
		return 0;
	log_error("--wait: '%s' is no number of seconds; give one up to 86400", arg);
	return STATUS_USAGE;
}

static int take_size(struct memory *m)
{
	const char *text = m->args.more;

	if (!text)
		return 0;
	if (!strcmp(text, "max")) {
		m->bytes = UINT64_MAX;
		return 0;
	}
	if (run_size(text, MIB, &m->bytes) && m->bytes >= MIB && m->bytes < UINT64_MAX)
		return 0;
	log_error("'%s' is no size; write for example 512M or 2G, or max", text);
	return STATUS_USAGE;
}

/* A request of the protocol; bytes 0 only asks. */
static int ask(const struct memory *m, uint64_t bytes, json_t **answer)
{
	const struct ctl_memory body = {.bytes = bytes};
	int ret = control_call_with(m->fd, CTL_MEMORY, &body, sizeof(body), answer);

	if (ret == -ENODEV)
		log_error("%s has no balloon; start it without --no-balloon", m->args.name);
	else if (ret == -EINVAL)
		log_error("%s has less than %s; `doppel memory %s` shows how much, start it with more --memory", m->args.name, m->args.more,
			  m->args.name);
	else if (ret < 0)
		return control_failed(m->args.name, ret);
	return ret ? STATUS_START : 0;
}

static uint64_t number(const json_t *o, const char *key)
{
	return (uint64_t)json_integer_value(json_object_get(o, key));
}

static bool reached(const json_t *o)
{
	return number(o, "balloon_target_bytes") == number(o, "balloon_actual_bytes");
}

/* Asks again until the guest has reached what is wanted. */
static int wait_for_guest(const struct memory *m, json_t **answer)
{
	struct timespec now;
	double end;
	int ret = 0;

	clock_gettime(CLOCK_MONOTONIC, &now);
	end = (double)now.tv_sec + (double)now.tv_nsec / 1e9 + m->wait;
	while (ret == 0 && !reached(*answer)) {
		clock_gettime(CLOCK_MONOTONIC, &now);
		if ((double)now.tv_sec + (double)now.tv_nsec / 1e9 > end) {
			log_error("the guest of %s has not come that far in time; it may need its memory, `doppel memory %s` shows it",
				  m->args.name, m->args.name);
			return STATUS_TIMEOUT;
		}
		nanosleep(&(struct timespec){0, LOOK_EVERY_NS}, NULL);
		json_decref(*answer);
		*answer = NULL;
		ret = ask(m, 0, answer);
	}
	return ret;
}

static void print_text(const json_t *o)
{
	static const struct { const char *key, *label; } rows[] = {
		{"memory_bytes", "configured"},
		{"balloon_actual_bytes", "  in the balloon, says the guest"},
		{"balloon_target_bytes", "  in the balloon, wanted"},
		{"ballooned_bytes", "  ballooned and not in use"},
		{"populated_bytes", "  populated"},
		{"resident_bytes", "  resident on the host"},
		{"guest_total_bytes", "guest: total"},
		{"guest_available_bytes", "guest: available"},
		{"guest_free_bytes", "guest: free"},
		{"guest_cache_bytes", "guest: caches"},
	};

	for (size_t i = 0; i < nitems(rows); i++)
		if (json_object_get(o, rows[i].key))
			printf("%-36s%10.1f MiB\n", rows[i].label, (double)number(o, rows[i].key) / (double)MIB);
	if (json_object_get(o, "balloon_driver") && !number(o, "balloon_driver"))
		puts("The guest has no balloon driver at work.");
}

static int change(struct memory *m)
{
	json_t *answer = NULL;
	uint64_t bytes = m->bytes;
	int ret;

	if (bytes == UINT64_MAX) {
		ret = ask(m, 0, &answer);
		if (ret)
			return ret;
		bytes = number(answer, "memory_bytes");
		json_decref(answer);
		answer = NULL;
	}
	ret = ask(m, bytes, &answer);
	if (ret == 0 && m->wait > 0)
		ret = wait_for_guest(m, &answer);
	if (ret == 0 && m->args.json)
		control_print(answer);
	else if (ret == 0 && bytes && !number(answer, "balloon_driver"))
		log_warn("the guest of %s has no balloon driver at work; the first that comes is asked", m->args.name);
	if (ret == 0 && !m->args.json && !bytes)
		print_text(answer);
	json_decref(answer);
	return ret;
}

int cmd_memory(int argc, char **argv)
{
	static const struct control_option options[] = {{"wait", "SECONDS", set_wait}, {0}};
	struct memory m = {0};
	int ret = control_parse(argc, argv, options, &m, CONTROL_NAME_AND_MORE, &m.args);

	if (ret == 0)
		ret = take_size(&m);
	if (ret == 0)
		ret = control_connect(m.args.name, &m.fd);
	if (ret)
		return ret;
	ret = change(&m);
	close(m.fd);
	return ret;
}
