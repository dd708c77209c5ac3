/* SPDX-License-Identifier: Apache-2.0 */
/*
 * doppel: the command line. This file is the table of verbs and the way to them.
 */
#include "cli/cli.h"

#include <signal.h>
#include <stdio.h>
#include <string.h>

#include "base/log.h"
#include "proto/status.h"

#ifndef DOPPEL_VERSION
#define DOPPEL_VERSION "0.1"
#endif

const struct cli_verb cli_verbs[] = {
	{"run", "boot a machine", cmd_run_usage, cmd_run},
	{"ps", "list your machines", cmd_ps_usage, cmd_ps},
	{"stop", "switch a machine off, by its power button or by force", cmd_stop_usage, cmd_stop},
	{"pause", "have a machine stand still", cmd_pause_usage, cmd_pause},
	{"resume", "have a paused machine go on", cmd_resume_usage, cmd_resume},
	{"reset", "press a machine's reset button", cmd_reset_usage, cmd_reset},
	{"console", "attach the terminal to a machine", cmd_console_usage, cmd_console},
	{"stats", "print what a machine has used and done", cmd_stats_usage, cmd_stats},
	{"memory", "show a machine's memory, or change how much its guest keeps", cmd_memory_usage, cmd_memory},
	{"image", "create, look at, convert, check and commit disk images", cmd_image_usage, cmd_image},
	{"check", "say which engines work on this host, and how fast", cmd_check_usage, cmd_check},
	{"help", "list the verbs, or explain one", cmd_help_usage, cmd_help},
	{0},
};

int main(int argc, char **argv)
{
	const char *name = argc > 1 ? argv[1] : "help";

	/* A parent that ignores it may have passed that on; nobody would then learn how the processes of a machine have ended. */
	signal(SIGCHLD, SIG_DFL);
	if (!strcmp(name, "--help") || !strcmp(name, "-h"))
		name = "help";
	if (!strcmp(name, "--version") || !strcmp(name, "-V")) {
		printf("doppel %s\n", DOPPEL_VERSION);
		return STATUS_POWEROFF;
	}
	for (const struct cli_verb *v = cli_verbs; v->name; v++) {
		if (strcmp(name, v->name))
			continue;
		if (argc > 2 && (!strcmp(argv[2], "--help") || !strcmp(argv[2], "-h"))) {
			v->usage();
			return STATUS_POWEROFF;
		}
		return argc > 1 ? v->run(argc - 1, argv + 1) : (v->run(1, (char *[]){"help", NULL}), STATUS_USAGE);
	}
	log_error("there is no verb '%s'; `doppel help` lists them", name);
	return STATUS_USAGE;
}
