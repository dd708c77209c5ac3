/* SPDX-License-Identifier: Apache-2.0 */
/*
 * doppel help [VERB].
 */
#include <stdio.h>
#include <string.h>

#include "base/log.h"
#include "cli/cli.h"
#include "proto/status.h"

void cmd_help_usage(void)
{
	fputs("usage: doppel help [VERB]\n", stdout);
}

int cmd_help(int argc, char **argv)
{
	if (argc > 2) {
		log_error("help takes at most one verb; see `doppel help`");
		return STATUS_USAGE;
	}
	for (const struct cli_verb *v = cli_verbs; argc == 2 && v->name; v++) {
		if (!strcmp(argv[1], v->name)) {
			v->usage();
			return STATUS_POWEROFF;
		}
	}
	if (argc == 2) {
		log_error("there is no verb '%s'; `doppel help` lists them", argv[1]);
		return STATUS_USAGE;
	}
	printf("doppel runs virtual machines with or without hardware virtualization.\n\nusage: doppel VERB [OPTIONS]\n\n");
	for (const struct cli_verb *v = cli_verbs; v->name; v++)
		printf("  %-8s %s\n", v->name, v->what);
	printf("\n`doppel VERB --help` explains a verb; doppel(1) has the rest.\n");
	return STATUS_POWEROFF;
}
