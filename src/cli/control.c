/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Client of the control protocol (control.h, proto/ctl.h). One request at a time; nothing here waits without a limit unless told to.
 */
#include "cli/control.h"

#include <errno.h>
#include <getopt.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/log.h"
#include "host/rundir.h"
#include "proto/status.h"

#define MAX_OPTIONS 8

/* --- command lines -------------------------------------------------------------------------------------------------- */

static int set_format(struct control_args *out, const char *arg)
{
	out->json = !strcmp(arg, "json");
	if (out->json || !strcmp(arg, "text"))
		return 0;
	log_error("--format: '%s' is unknown; choose text or json", arg);
	return STATUS_USAGE;
}

static int wrong(const char *verb, const char *what, const char *arg)
{
	log_error("%s%s; see `doppel %s --help`", arg, what, verb);
	return STATUS_USAGE;
}

int control_parse(int argc, char **argv, const struct control_option *options, void *opaque, enum control_words words,
		  struct control_args *out)
{
	struct option longopts[MAX_OPTIONS + 2] = {{"format", required_argument, NULL, 1}};
	int c, ret = 0;

	*out = (struct control_args){0};
	for (int i = 0; options && options[i].name && i < MAX_OPTIONS; i++)
		longopts[i + 1] = (struct option){options[i].name, options[i].value ? required_argument : no_argument, NULL, i + 2};
	opterr = 0;
	optind = 1;
	while (ret == 0 && (c = getopt_long(argc, argv, ":", longopts, NULL)) >= 0) {
		if (c == ':')
			ret = wrong(argv[0], " needs a value", argv[optind - 1]);
		else if (c == '?')
			ret = wrong(argv[0], " is no option here", argv[optind - 1]);
		else
			ret = c == 1 ? set_format(out, optarg) : options[c - 2].set(opaque, optarg);
	}
	if (ret)
		return ret;
	if (words && optind == argc)
		return wrong(argv[0], " needs the name of a machine, `doppel ps` lists them", argv[0]);
	if (optind + (int)words < argc)
		return wrong(argv[0], " is one argument too many", argv[optind + (int)words]);
	out->name = words ? argv[optind] : NULL;
	out->more = words == CONTROL_NAME_AND_MORE && optind + 1 < argc ? argv[optind + 1] : NULL;
	return 0;
}

bool control_seconds(const char *text, double *out)
{
	char *end;
	double v = strtod(text, &end);

	if (*text < '0' || *text > '9' || *end || !(v > 0 && v <= 86400))
		return false;
	*out = v;
	return true;
}

/* --- connections ---------------------------------------------------------------------------------------------------- */

static bool name_ok(const char *name)
{
	return *name && *name != '.' && !strchr(name, '/') && strlen(name) < RUNDIR_NAME_MAX;
}

int control_try(const char *name, int *fd, pid_t *supervisor)
{
	struct rundir d;
	char why[256];
	int ret;

	*supervisor = 0;
	if (!name_ok(name))
		return -ENOENT;
	ret = rundir_open(&d, why, sizeof(why));
	if (ret < 0) {
		log_error("%s", why);
		return ret;
	}
	ret = rundir_alive(&d, name, supervisor);
	if (ret == 0) {
		(void)rundir_clean(&d, name);
		ret = -ESRCH;
	} else if (ret > 0) {
		*fd = rundir_connect(&d, name);
		ret = *fd < 0 ? *fd : 0;
	}
	rundir_close(&d);
	return ret;
}

int control_connect(const char *name, int *fd)
{
	pid_t pid;
	int ret = control_try(name, fd, &pid);

	if (ret == 0)
		return 0;
	if (ret == -ENOENT || ret == -ESRCH)
		log_error("no machine called '%s' is running; `doppel ps` lists those that are", name);
	else if (ret == -ECONNREFUSED || ret == -EAGAIN)
		log_error("%s (pid %d) takes no connections now; try again, or kill it", name, (int)pid);
	else
		log_error("cannot reach %s: %s", name, strerror(-ret));
	return STATUS_START;
}

int control_send(int fd, enum ctl_type type, const void *body, size_t len)
{
	struct { struct ctl_header h; uint8_t body[CTL_INPUT_MAX]; } m;

	if (len > sizeof(m.body))
		return -EMSGSIZE;
	ctl_header_init(&m.h, type, sizeof(m.h) + len, 0);
	if (len)
		memcpy(m.body, body, len);
	if (send(fd, &m, sizeof(m.h) + len, MSG_NOSIGNAL) < 0)
		return errno == EPIPE || errno == ECONNRESET ? -ENOTCONN : -errno;
	return 0;
}

int control_receive(int fd, int timeout_ms, uint8_t *buf, struct ctl_header *h, const uint8_t **body, size_t *len)
{
	struct pollfd p = {.fd = fd, .events = POLLIN};
	ssize_t n;
	int ret;

	ret = poll(&p, 1, timeout_ms);
	if (ret <= 0)
		return ret < 0 && errno != EINTR ? -errno : -ETIMEDOUT;
	n = recv(fd, buf, CTL_MAX, 0);
	if (n < 0)
		return errno == ECONNRESET ? -ENOTCONN : -errno;
	return n == 0 ? -ENOTCONN : ctl_parse_answer(buf, (size_t)n, h, body, len);
}

int control_call(int fd, enum ctl_type type, json_t **json)
{
	return control_call_with(fd, type, NULL, 0, json);
}

int control_call_with(int fd, enum ctl_type type, const void *body_out, size_t len_out, json_t **json)
{
	uint8_t *buf = malloc(CTL_MAX);
	struct ctl_header h;
	const uint8_t *body;
	size_t len;
	int ret = buf ? control_send(fd, type, body_out, len_out) : -ENOMEM;

	/* What comes unasked may come first. */
	while (ret == 0) {
		ret = control_receive(fd, CONTROL_PATIENCE_MS, buf, &h, &body, &len);
		if (ret == 0 && h.type == (type | CTL_REPLY)) {
			ret = h.status;
			if (ret == 0 && json && !(*json = json_loadb((const char *)body, len, 0, NULL)))
				ret = -EPROTO;
			break;
		}
		if (ret == 0 && h.type == CTL_ENDED)
			ret = -ENOTCONN;
	}
	free(buf);
	return ret;
}

int control_ask(int fd, const char *name, enum ctl_type type, json_t **json)
{
	int ret = control_call(fd, type, json);

	return ret < 0 ? control_failed(name, ret) : STATUS_POWEROFF;
}

int control_failed(const char *name, int error)
{
	switch (error) {
	case -ETIMEDOUT:
		log_error("%s does not answer; try again, or kill it (`doppel ps` shows the pid)", name);
		return STATUS_TIMEOUT;
	case -ENOTCONN:
		log_error("%s has ended, or serves as many clients as it can; see `doppel ps`", name);
		return STATUS_START;
	case -EBUSY:
		log_error("%s does not run now; `doppel resume %s` first, or use --force", name, name);
		return STATUS_START;
	case -EPROTO:
	case -EPROTONOSUPPORT:
		log_error("%s was started by another version of doppel; use that one", name);
		return STATUS_START;
	default:
		log_error("%s refuses: %s", name, strerror(-error));
		return STATUS_START;
	}
}

void control_print(const json_t *json)
{
	json_dumpf(json, stdout, JSON_INDENT(2));
	putchar('\n');
	fflush(stdout);
}

void control_done(const struct control_args *a, const char *key, const char *val)
{
	json_t *j;

	if (!a->json)
		return;
	j = json_pack("{s:s, s:s}", "name", a->name, key, val);
	control_print(j);
	json_decref(j);
}
