/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Options of `doppel run` about the console. Invariant and rules: run.h.
 */
#include <string.h>

#include "cli/run.h"
#include "proto/status.h"

#define FILE_PREFIX "file:"

static int set_serial(struct run_request *req, const struct run_arg *arg)
{
	size_t prefix = strlen(FILE_PREFIX);

	if (!strcmp(arg->text, "stdio"))
		req->config.serial = PROTO_SERIAL_STDIO;
	else if (!strcmp(arg->text, "none"))
		req->config.serial = PROTO_SERIAL_NONE;
	else if (!strncmp(arg->text, FILE_PREFIX, prefix) && arg->text[prefix])
		req->config.serial = PROTO_SERIAL_FILE;
	else
		return run_error(arg, STATUS_USAGE, "'%s' is unknown; choose stdio, none or file:F", arg->text);
	req->console.serial = *arg;
	return 0;
}

static int set_console(struct run_request *req, const struct run_arg *arg)
{
	if (strcmp(arg->text, "serial") && strcmp(arg->text, "virtio"))
		return run_error(arg, STATUS_USAGE, "'%s' is unknown; choose serial or virtio", arg->text);
	req->config.hvc = arg->text[0] == 'v' ? PROTO_HVC_STDIO : PROTO_HVC_ABSENT;
	req->console.console = *arg;
	return 0;
}

/* The terminal can be one console's only. */
static int share_out(struct run_request *req)
{
	if (!req->config.hvc || req->config.serial != PROTO_SERIAL_STDIO)
		return 0;
	if (req->console.serial.text)
		return run_error(&req->console.serial, STATUS_USAGE,
				 "stdio is the virtio console's; give the serial port none or file:F, or leave out --console virtio");
	req->config.serial = PROTO_SERIAL_NONE;
	return 0;
}

static int finish(struct run_request *req)
{
	const struct run_arg *arg = &req->console.serial;
	const char *name, *path;
	int ret = share_out(req);

	if (ret)
		return ret;
	if (req->config.serial != PROTO_SERIAL_FILE)
		return 0;
	name = arg->text + strlen(FILE_PREFIX);
	path = run_path(req, arg, name, strlen(name));
	return path ? run_open_output(req, arg, path, PROTO_FD_SERIAL)
		    : run_error(arg, STATUS_START, "out of memory; free some and try again");
}

static const struct run_option options[] = {
	{.name = "console", .value = "PORT", .set = set_console,
	 .help = "serial, or virtio (hvc0 in Linux): which the terminal and `doppel console`\n"
		 "are connected to (default serial)"},
	{.name = "serial", .value = "WHERE", .set = set_serial, .help = "stdio, none or file:F (default stdio; with --console virtio, none)"},
	{0},
};

const struct run_family run_console_family = {"Console", options, finish};
