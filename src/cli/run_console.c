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

static int finish(struct run_request *req)
{
	const struct run_arg *arg = &req->console.serial;
	const char *name, *path;

	if (req->config.serial != PROTO_SERIAL_FILE)
		return 0;
	name = arg->text + strlen(FILE_PREFIX);
	path = run_path(req, arg, name, strlen(name));
	return path ? run_open_output(req, arg, path, PROTO_FD_SERIAL)
		    : run_error(arg, STATUS_START, "out of memory; free some and try again");
}

static const struct run_option options[] = {
	{.name = "serial", .value = "WHERE", .set = set_serial, .help = "stdio, none or file:F (default stdio)"},
	{0},
};

const struct run_family run_console_family = {"Console", options, finish};
