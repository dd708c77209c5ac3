/* SPDX-License-Identifier: Apache-2.0 */
/*
 * doppel run: boot a machine in the foreground. Options are read in run_options.c, the process is minded in run_supervise.c.
 */
#include <stdlib.h>
#include <unistd.h>

#include "base/log.h"
#include "cli/cli.h"
#include "cli/run.h"
#include "proto/status.h"

const char cmd_run_usage[] =
	"usage: doppel run [OPTIONS]\n"
	"\n"
	"Boots a machine in the foreground, its serial port on the terminal. Without --kernel it\n"
	"boots the demo guest.\n"
	"\n"
	"  --kernel F           Linux bzImage, ELF with a PVH note, or multiboot 1 image\n"
	"  --initrd F           initial RAM disk (multiboot: the first module)\n"
	"  --append STR         kernel command line\n"
	"  --module F[,ARGS]    another boot module (multiboot, PVH); repeatable\n"
	"  --disk F[,OPTS]      a disk image, raw or qcow2, or a block device; repeatable. OPTS:\n"
	"                       format=raw|qcow2, readonly=on, serial=S; a comma in F is written twice\n"
	"  --memory SIZE        guest memory: K, M or G; plain numbers are MiB (default 512M)\n"
	"  --cpus N             processors, 1 to 16 (default 1)\n"
	"  --engine NAME        auto, bt, interp or lockstep (default auto); see `doppel check`\n"
	"  --serial WHERE       stdio, none or file:F (default stdio)\n"
	"  --debug-exit         port 0xf4 ends the run with status (value << 1) | 1\n"
	"  --no-reboot          a reset ends the run instead of rebooting\n"
	"  --stats F            write statistics as JSON to F at the end\n"
	"  --name N             the machine's name\n"
	"  -n                   check everything, run nothing\n"
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

int cmd_run(int argc, char **argv)
{
	struct run_request *req = calloc(1, sizeof(*req));
	int status;

	if (!req) {
		log_error("out of memory; free some and try again");
		return STATUS_START;
	}
	status = run_parse(req, argc, argv);
	if (status == STATUS_POWEROFF)
		status = run_supervise(req);
	for (unsigned i = 0; i < req->config.nfds; i++)
		close(req->fds[i]);
	free(req);
	return status;
}
