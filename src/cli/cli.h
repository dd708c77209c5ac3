/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The doppel command line: one entry per verb, one file per verb (cmd_VERB.c).
 *
 * A verb gets argv with argv[0] = its own name and returns an enum proto_status. Errors are one line on standard error
 * that names the cause and, after a semicolon or dash, the remedy; only main.c and the verbs print.
 */
#ifndef CLI_CLI_H
#define CLI_CLI_H

#include <stddef.h>

struct cli_verb {
	const char *name;
	const char *what;      /* one line for `doppel help` */
	void (*usage)(void);   /* prints the full text for `doppel VERB --help` */
	int (*run)(int argc, char **argv);
};

/* main.c: ordered table, ends with a NULL name. */
extern const struct cli_verb cli_verbs[];

/* One file per verb. */
int cmd_run(int argc, char **argv);
int cmd_ps(int argc, char **argv);
int cmd_stop(int argc, char **argv);
int cmd_pause(int argc, char **argv);
int cmd_resume(int argc, char **argv);
int cmd_reset(int argc, char **argv);
int cmd_console(int argc, char **argv);
int cmd_stats(int argc, char **argv);
int cmd_memory(int argc, char **argv);
int cmd_check(int argc, char **argv);
int cmd_help(int argc, char **argv);
int cmd_image(int argc, char **argv);
void cmd_run_usage(void);
void cmd_image_usage(void);
void cmd_ps_usage(void);
void cmd_stop_usage(void);
void cmd_pause_usage(void);
void cmd_resume_usage(void);
void cmd_reset_usage(void);
void cmd_console_usage(void);
void cmd_stats_usage(void);
void cmd_memory_usage(void);
void cmd_check_usage(void);
void cmd_help_usage(void);

/* print.c: a JSON string, quoted and escaped, to standard output. */
void cli_json_string(const char *s);

/* image_build.c: the subcommand of `doppel image`, with argv[0] = "build". Becomes another program, or returns a status. */
int image_build(int argc, char **argv);

/* paths.c: finds a program or data file installed with doppel, trying each of the places relative to the directory of the
 * running binary. The first that exists is written to buf, or the first of all if none does (for the message). 0 or -ENOENT. */
int cli_find(const char *const places[], char *buf, size_t size);
int cli_find_vm(char *buf, size_t size);      /* doppel-vm */

#endif
