/* SPDX-License-Identifier: Apache-2.0 */
/*
 * doppel run: boot a machine in the foreground. Options are read in run_options.c, the process is minded in run_supervise.c.
 */
#include <stdio.h>
#include <stdlib.h>

#include "base/log.h"
#include "cli/cli.h"
#include "cli/run.h"
#include "proto/status.h"

static const char head[] =
	"usage: doppel run [OPTIONS]\n"
	"\n"
	"Boots a machine in the foreground, its serial port on the terminal. Without --kernel it\n"
	"boots from the first --disk with a system on it, or without disks the demo guest. Options\n"
	"in a file (-c) are overridden by those on the command line.\n";

static const char tail[] =
	"\n"
	"With --serial stdio on a terminal, Ctrl-A is the escape key: x quits, p pauses and resumes,\n"
	"d dumps the processor state, h lists the keys, a sends Ctrl-A itself.\n"
	"\n"
	"exit status:\n"
	"   0  the guest powered off             8  stopped by the user or a signal\n"
	"   2  wrong usage                      10  could not start\n"
	"   4  triple fault                     12  the monitor could not go on\n"
	"   6  reset, with --no-reboot          14  the machine's process crashed\n"
	"  odd (value << 1) | 1 from --debug-exit, and from nothing else\n";

void cmd_run_usage(void)
{
	fputs(head, stdout);
	run_print_options();
	fputs(tail, stdout);
}

int cmd_run(int argc, char **argv)
{
	struct run_request *req = calloc(1, sizeof(*req));
	int status;

	if (!req) {
		log_error("out of memory; free some and try again");
		return STATUS_START;
	}
	status = run_parse(req, argc, argv);
	if (status == STATUS_POWEROFF && req->detach && !(req->config.flags & PROTO_F_CHECK)) {
		/* Before anything is opened or started, so that it belongs to the process that stays. */
		if (run_detach(req, &status))
			goto out;
		if (req->config.serial == PROTO_SERIAL_STDIO)
			req->config.serial = PROTO_SERIAL_NONE;
		if (req->config.hvc == PROTO_HVC_STDIO)
			req->config.hvc = PROTO_HVC_DETACHED;
	}
	if (status == STATUS_POWEROFF)
		status = run_open(req);
	if (status == STATUS_POWEROFF)
		status = run_supervise(req);
out:
	run_release(req);
	free(req);
	return status;
}
