/* SPDX-License-Identifier: Apache-2.0 */
/*
 * doppel pause, resume, reset: one request, one answer. For a paused machine no time passes.
 */
#include <stdio.h>
#include <unistd.h>

#include "cli/cli.h"
#include "cli/control.h"

void cmd_pause_usage(void)
{
	fputs("usage: doppel pause NAME [--format text|json]\n"
	      "\n"
	      "Has the machine stand still; returns when it does. Its clocks stand still as well.\n",
	      stdout);
}

void cmd_resume_usage(void)
{
	fputs("usage: doppel resume NAME [--format text|json]\n\nHas a paused machine go on.\n", stdout);
}

void cmd_reset_usage(void)
{
	fputs("usage: doppel reset NAME [--format text|json]\n"
	      "\n"
	      "Resets the machine without asking its guest, as the button on a case does. A machine\n"
	      "started with --no-reboot ends.\n",
	      stdout);
}

static int simple(int argc, char **argv, enum ctl_type type, const char *state)
{
	struct control_args a;
	int fd, ret = control_parse(argc, argv, NULL, NULL, CONTROL_NAME, &a);

	if (ret)
		return ret;
	ret = control_connect(a.name, &fd);
	if (ret)
		return ret;
	ret = control_ask(fd, a.name, type, NULL);
	close(fd);
	if (ret == 0)
		control_done(&a, "state", state);
	return ret;
}

int cmd_pause(int argc, char **argv)
{
	return simple(argc, argv, CTL_PAUSE, "paused");
}

int cmd_resume(int argc, char **argv)
{
	return simple(argc, argv, CTL_RESUME, "running");
}

int cmd_reset(int argc, char **argv)
{
	return simple(argc, argv, CTL_RESET, "running");
}
