/* SPDX-License-Identifier: Apache-2.0 */
/*
 * doppel check: which engines work here, why, and what they cost. The probes run in doppel-vm (it has the engines); this file
 * only reads its table, one engine a line: name, works (0/1), slow-down, what, why, separated by tabs.
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/log.h"
#include "cli/cli.h"
#include "proto/status.h"

void cmd_check_usage(void)
{
	fputs("usage: doppel check [--format text|json]\n"
	      "\n"
	      "Says for every engine whether it works on this host, why (not), and the slow-down\n"
	      "to expect against native execution. Exit status 0 if at least one works, else 10.\n",
	      stdout);
}

enum { F_NAME, F_WORKS, F_SLOWDOWN, F_WHAT, F_WHY, F_COUNT };

static void print_json(char *f[F_COUNT], bool first)
{
	static const char *const key[F_COUNT] = {"name", "works", "slowdown", "what", "why"};

	printf("%s\n  {", first ? "" : ",");
	for (int i = 0; i < F_COUNT; i++) {
		printf("%s\"%s\": ", i ? ", " : "", key[i]);
		if (i == F_WORKS)
			fputs(*f[i] == '1' ? "true" : "false", stdout);
		else
			cli_json_string(f[i]);
	}
	putchar('}');
}

static void print_text(char *f[F_COUNT])
{
	bool works = *f[F_WORKS] == '1';

	printf("%-9s %-3s  %s\n", f[F_NAME], works ? "yes" : "no", f[F_WHAT]);
	if (works)
		printf("%-14s slow-down against native: %s\n", "", f[F_SLOWDOWN]);
	if (*f[F_WHY])
		printf("%-14s %s\n", "", f[F_WHY]);
}

static bool split(char *line, char *f[F_COUNT])
{
	line[strcspn(line, "\n")] = 0;
	for (int i = 0; i < F_COUNT; i++) {
		f[i] = strsep(&line, "\t");
		if (!f[i])
			return false;
	}
	return true;
}

/* Starts `doppel-vm --probe` with its output on the returned stream; *pid to be waited for. */
static FILE *start_probe(const char *path, pid_t *pid)
{
	int fd[2];

	if (pipe2(fd, O_CLOEXEC) < 0)
		return NULL;
	*pid = fork();
	if (*pid == 0) {
		dup2(fd[1], STDOUT_FILENO);
		execl(path, "doppel-vm", "--probe", (char *)NULL);
		_exit(STATUS_START);
	}
	close(fd[1]);
	if (*pid < 0) {
		close(fd[0]);
		return NULL;
	}
	return fdopen(fd[0], "r");
}

static int report(FILE *in, bool json)
{
	char line[1024], *f[F_COUNT];
	int working = 0, engines = 0;

	if (json)
		printf("{\"engines\": [");
	else
		printf("%-9s %-3s  %s\n", "engine", "ok", "technique");
	while (fgets(line, sizeof(line), in)) {
		if (!split(line, f))
			continue;
		working += *f[F_WORKS] == '1';
		if (json)
			print_json(f, engines == 0);
		else
			print_text(f);
		engines++;
	}
	if (json)
		printf("\n]}\n");
	return working;
}

int cmd_check(int argc, char **argv)
{
	char path[PATH_MAX];
	bool json = false;
	pid_t pid;
	FILE *in;
	int working, status = -1;

	if (argc == 3 && !strcmp(argv[1], "--format") && (!strcmp(argv[2], "json") || !strcmp(argv[2], "text"))) {
		json = !strcmp(argv[2], "json");
	} else if (argc != 1) {
		log_error("check takes only --format text or --format json; see `doppel check --help`");
		return STATUS_USAGE;
	}
	if (cli_find_vm(path, sizeof(path)) < 0) {
		log_error("%s is missing; build or install doppel again (`make`)", path);
		return STATUS_START;
	}
	in = start_probe(path, &pid);
	if (!in) {
		log_error("cannot start %s: %s", path, strerror(errno));
		return STATUS_START;
	}
	working = report(in, json);
	fclose(in);
	while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
		;
	if (!WIFEXITED(status) || WEXITSTATUS(status) != 0) {
		log_error("%s --probe failed; build or install doppel again (`make`)", path);
		return STATUS_START;
	}
	return working ? STATUS_POWEROFF : STATUS_START;
}
