/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The option table of `doppel run` and the command line that is read with it. Files given with -c come first, in order; the
 * rest of the command line then overrides what can be given once and adds to what can be given often (run.h).
 */
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "cli/cli.h"
#include "cli/run.h"
#include "proto/status.h"

#define MEMORY_DEFAULT (512ull << 20)

static int set_config(struct run_request *req, const struct run_arg *arg)
{
	return run_read_config(req, arg);
}

static const struct run_option file_options[] = {
	{.name = "config", .value = "F", .letter = 'c', .set = set_config, .flags = RUN_REPEATS | RUN_LINE_ONLY,
	 .help = "options from a file, see doppel.conf(5); repeatable"},
	{0},
};
static const struct run_family run_file_family = {"Configuration file", file_options, NULL};

/* Ordered: so the help shows them, and so they finish. */
static const struct run_family *const run_families[] = {
	&run_file_family, &run_boot_family, &run_disk_family, &run_cloud_family, &run_net_family, &run_device_family,
	&run_machine_family, &run_console_family, &run_gdb_family, NULL,
};

const struct run_option *run_find(const char *name, size_t len, unsigned *index)
{
	*index = 0;
	for (const struct run_family *const *f = run_families; *f; f++)
		for (const struct run_option *o = (*f)->option; o->name; o++, ++*index)
			if (strlen(o->name) == len && !memcmp(o->name, name, len))
				return o;
	return NULL;
}

static void print_option(const struct run_option *o)
{
	const char *line = o->help;
	char head[64];
	int n = 0;

	if (o->letter)
		n = snprintf(head, sizeof(head), "-%c, ", o->letter);
	snprintf(head + n, sizeof(head) - (size_t)n, "--%s%s%s", o->name, o->value ? " " : "", o->value ? o->value : "");
	while (line) {
		size_t len = strcspn(line, "\n");

		printf("  %-21s%s%.*s\n", head, strlen(head) > 20 ? " " : "", (int)len, line);
		head[0] = 0;
		line = line[len] ? line + len + 1 : NULL;
	}
}

void run_print_options(void)
{
	for (const struct run_family *const *f = run_families; *f; f++) {
		printf("\n%s:\n", (*f)->title);
		for (const struct run_option *o = (*f)->option; o->name; o++)
			print_option(o);
	}
}

/* What getopt_long() needs, and the rows in the order of its numbers. */
struct getopt_table {
	struct option longopts[RUN_MAX_OPTIONS + 1];
	char letters[3 * RUN_MAX_OPTIONS + 2];
	const struct run_option *row[RUN_MAX_OPTIONS];
	unsigned rows;
};
enum { FIRST_LONG = 256 };

static int has_arg(const struct run_option *o)
{
	return o->value && !(o->flags & RUN_OPTIONAL) ? required_argument : optional_argument;
}

static void table_init(struct getopt_table *t)
{
	char *l = t->letters;

	*t = (struct getopt_table){0};
	*l++ = ':';
	for (const struct run_family *const *f = run_families; *f; f++) {
		for (const struct run_option *o = (*f)->option; o->name; o++) {
			if (t->rows == RUN_MAX_OPTIONS)
				BUG("raise RUN_MAX_OPTIONS");
			t->longopts[t->rows] = (struct option){o->name, has_arg(o), NULL, FIRST_LONG + (int)t->rows};
			t->row[t->rows++] = o;
			if (o->letter)
				*l++ = o->letter;
			if (o->letter && o->value)
				*l++ = ':';
		}
	}
}

static const struct run_option *row_of(const struct getopt_table *t, int c)
{
	for (unsigned i = 0; i < t->rows; i++)
		if (c == FIRST_LONG + (int)i || (c < FIRST_LONG && c == t->row[i]->letter))
			return t->row[i];
	return NULL;
}

static int wrong(const char *fmt, const char *arg)
{
	char msg[512];

	snprintf(msg, sizeof(msg), fmt, arg);
	log_error("%s", msg);
	return STATUS_USAGE;
}

/* One option as getopt has found it; switches get their word. */
static int take(struct run_arg *arg, const struct run_option *o, const char *text)
{
	*arg = (struct run_arg){.text = text, .option = o};
	if (!o->value && !text)
		arg->text = "yes";
	if (!o->value && strcmp(arg->text, "yes") && strcmp(arg->text, "no"))
		return run_error(arg, STATUS_USAGE, "'%s' is neither yes nor no; a switch takes no other value", arg->text);
	if (!*arg->text && !(o->flags & RUN_EMPTY))
		return run_error(arg, STATUS_USAGE, "the value is empty; give %s", o->value);
	return 0;
}

/* What getopt has found, or what follows: nothing but options may stand there, so anything else is the value. */
static const char *value_of(const struct run_option *o, int argc, char **argv)
{
	if (!(o->flags & RUN_OPTIONAL) || optarg)
		return optarg;
	return optind < argc && argv[optind][0] != '-' ? argv[optind++] : "";
}

/* Splits the command line into arguments, in the order given. */
static int collect(struct run_arg *given, unsigned *count, int argc, char **argv)
{
	struct getopt_table t;
	int c, ret = 0;

	table_init(&t);
	opterr = 0;
	optind = 1;
	while (ret == 0 && (c = getopt_long(argc, argv, t.letters, t.longopts, NULL)) >= 0) {
		if (c == ':')
			ret = wrong("%s needs a value; see `doppel run --help`", argv[optind - 1]);
		else if (c == '?')
			ret = wrong("unknown option %s; see `doppel run --help`", argv[optind - 1]);
		else
			ret = take(&given[(*count)++], row_of(&t, c), value_of(row_of(&t, c), argc, argv));
	}
	if (ret == 0 && optind < argc)
		ret = wrong("'%s' is no option; kernels are given with --kernel F, see `doppel run --help`", argv[optind]);
	return ret;
}

static int apply(struct run_request *req, const struct run_arg *given, unsigned count)
{
	int ret = 0;

	for (unsigned i = 0; ret == 0 && i < count; i++)
		if (given[i].option->set == set_config)
			ret = set_config(req, &given[i]);
	for (unsigned i = 0; ret == 0 && i < count; i++)
		if (given[i].option->set != set_config)
			ret = given[i].option->set(req, &given[i]);
	return ret;
}

int run_open(struct run_request *req)
{
	int ret = 0;

	for (const struct run_family *const *f = run_families; ret == 0 && *f; f++)
		if ((*f)->finish)
			ret = (*f)->finish(req);
	return ret;
}

/*
 * A machine without a name is called after its (first) configuration file, since that is what its user knows it by; without one after this
 * process, so that two runs of the same kernel do not collide.
 */
static void default_name(struct run_request *req, const struct run_arg *given, unsigned count)
{
	static const char good[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_";
	char *name = req->config.name;

	snprintf(name, sizeof(req->config.name), "vm-%d", (int)getpid());
	for (unsigned i = 0; i < count; i++) {
		const char *base = given[i].text, *slash = strrchr(base, '/');
		size_t len;

		if (given[i].option->set != set_config)
			continue;
		base = slash ? slash + 1 : base;
		len = strspn(base, good);
		if (len && len < sizeof(req->config.name) && (!base[len] || !strcmp(base + len, ".conf")))
			snprintf(name, len + 1, "%s", base);
		return;
	}
}

int run_parse(struct run_request *req, int argc, char **argv)
{
	struct run_arg *given;
	unsigned count = 0;
	size_t most = 1;
	int ret;

	for (int i = 0; i < argc; i++)
		most += strlen(argv[i]) + 1; /* letters may be joined: an option a character */
	given = calloc(most, sizeof(*given));
	if (!given) {
		log_error("out of memory; free some and try again");
		return STATUS_START;
	}
	req->config.memory = MEMORY_DEFAULT;
	req->config.cpus = 1;
	snprintf(req->config.engine, sizeof(req->config.engine), "auto");
	ret = collect(given, &count, argc, argv);
	default_name(req, given, count);
	if (ret == 0)
		ret = apply(req, given, count);
	free(given);
	return ret;
}
