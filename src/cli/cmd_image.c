/* SPDX-License-Identifier: Apache-2.0 */
/*
 * doppel image: the table of subcommands, their common options, and `create`.
 */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "cli/cli.h"
#include "cli/image.h"
#include "proto/status.h"

#define CLUSTER_BITS_DEFAULT 16

static const struct {
	const char *name;
	int (*run)(int argc, char **argv);
} commands[] = {
	{"create", image_create}, {"info", image_info}, {"convert", image_convert}, {"check", image_check}, {"commit", image_commit},
	{"build", image_build},
};

void cmd_image_usage(void)
{
	fputs("usage: doppel image COMMAND [OPTIONS] FILE...\n"
	      "\n"
	      "  create [-f qcow2|raw] [-b BASE -F FORMAT] [-o OPTS] [--force] FILE [SIZE]\n"
	      "          an empty image; with -b one that shows BASE until it is written to\n"
	      "  info [-f FORMAT] [--format text|json] FILE\n"
	      "          what an image is and what it is based on; also of an image in use\n"
	      "  convert [-f FORMAT] [-O qcow2|raw] [-c] [-o OPTS] [--force] FILE NEW\n"
	      "          a copy with everything that FILE is based on; -c compresses it\n"
	      "  check [--repair leaks|all] [--format text|json] FILE\n"
	      "          whether a qcow2 image is consistent; exit status 0 yes, 6 space is lost,\n"
	      "          4 damaged, 10 it cannot be checked\n"
	      "  commit FILE\n"
	      "          writes what FILE holds into what it is based on; FILE stays as it is\n"
	      "  build SYSTEM [OPTIONS]\n"
	      "          an image of a whole system from its packages; `build debian --help` says more\n"
	      "\n"
	      "  -f, -O, -F   raw or qcow2; without -f the content decides. -O is qcow2 by default\n"
	      "  -o OPTS      cluster_size=SIZE (512 to 2M), compression=zstd|zlib\n"
	      "  --force      replace an existing file\n"
	      "  SIZE         in bytes, or with K, M, G or T\n", stdout);
}

static int usage(const char *fmt, const char *arg)
{
	char msg[512];

	snprintf(msg, sizeof(msg), fmt, arg);
	log_error("%s; see `doppel image --help`", msg);
	return STATUS_USAGE;
}

int image_size(const char *text, uint64_t *size)
{
	static const char units[] = "kmgt";
	const char *unit;
	unsigned shift = 0;
	char *end;

	errno = 0;
	*size = strtoull(text, &end, 10);
	if (end == text || *text < '0' || *text > '9' || errno)
		return usage("'%s' is no size", text);
	if (*end) {
		unit = strchr(units, *end | 0x20);
		if (!unit || end[1])
			return usage("'%s' is no size", text);
		shift = 10 * (unsigned)(unit - units) + 10;
	}
	if (*size > (uint64_t)INT64_MAX >> shift)
		return usage("the size %s is too large", text);
	*size <<= shift;
	return 0;
}

static int set_format(enum block_format *format, const char *name)
{
	*format = block_format_find(name);
	return *format == BLOCK_AUTO ? usage("the format '%s' is unknown; choose raw or qcow2", name) : 0;
}

static int set_cluster_size(struct image_options *o, const char *text)
{
	uint64_t size;
	int ret = image_size(text, &size);

	if (ret)
		return ret;
	for (o->cluster_bits = QCOW2_CLUSTER_BITS_MIN; o->cluster_bits <= QCOW2_CLUSTER_BITS_MAX; o->cluster_bits++)
		if (size == 1ull << o->cluster_bits)
			return 0;
	return usage("the cluster size %s is no power of two from 512 to 2M", text);
}

static int set_details(struct image_options *o, char *list)
{
	char *option;
	int ret = 0;

	while (ret == 0 && (option = strsep(&list, ","))) {
		if (!strncmp(option, "cluster_size=", 13))
			ret = set_cluster_size(o, option + 13);
		else if (!strcmp(option, "compression=zlib"))
			o->compression = QCOW2_ZLIB;
		else if (!strcmp(option, "compression=zstd"))
			o->compression = QCOW2_ZSTD;
		else
			ret = usage("-o %s is unknown", option);
	}
	return ret;
}

static int set_repair(struct image_options *o, const char *what)
{
	o->repair = !strcmp(what, "all") ? QCOW2_REPAIR_ALL : !strcmp(what, "leaks") ? QCOW2_REPAIR_LEAKS : QCOW2_REPAIR_NONE;
	return o->repair == QCOW2_REPAIR_NONE ? usage("--repair '%s' is unknown; choose leaks or all", what) : 0;
}

static int set_option(struct image_options *o, int c, char *arg)
{
	switch (c) {
	case 'f': return set_format(&o->format, arg);
	case 'O': return set_format(&o->output, arg);
	case 'F': return set_format(&o->backing_format, arg);
	case 'o': return set_details(o, arg);
	case 'r': return set_repair(o, arg);
	case 'b': o->backing = arg; return 0;
	case 'c': o->compress = true; return 0;
	case 'y': o->force = true; return 0;
	case 'j':
		o->json = !strcmp(arg, "json");
		return o->json || !strcmp(arg, "text") ? 0 : usage("--format '%s' is unknown; choose text or json", arg);
	}
	return STATUS_USAGE;
}

int image_parse(struct image_options *o, int argc, char **argv, const char *allowed, int min_args, int max_args)
{
	static const struct option longopts[] = {
		{"format", required_argument, NULL, 'j'}, {"repair", required_argument, NULL, 'r'},
		{"force", no_argument, NULL, 'y'}, {0},
	};
	int c, ret = 0;

	*o = (struct image_options){.cluster_bits = CLUSTER_BITS_DEFAULT};
	opterr = 0;
	optind = 1;
	while (ret == 0 && (c = getopt_long(argc, argv, ":f:O:F:o:b:c", longopts, NULL)) >= 0) {
		if (c == ':')
			ret = usage("%s needs a value", argv[optind - 1]);
		else if (c == '?' || !strchr(allowed, c))
			ret = usage("unknown option %s", argv[optind - 1]);
		else
			ret = set_option(o, c, optarg);
	}
	o->args = argv + optind;
	o->nargs = argc - optind;
	if (ret == 0 && o->nargs < min_args)
		ret = usage("%s needs more arguments", argv[0]);
	if (ret == 0 && o->nargs > max_args)
		ret = usage("'%s' is one argument too many", o->args[max_args]);
	return ret;
}

/* What the new image is based on must be there and readable; its size is the default. */
static int look_at_base(struct image_options *o, const char *path, uint64_t *size)
{
	struct block_chain chain;
	struct block_error err;
	struct block *b;
	char *resolved;

	if (o->backing_format == BLOCK_AUTO)
		return usage("-b %s needs -F with its format", o->backing);
	if (block_path_beside(path, o->backing, &resolved, &err) < 0) {
		log_error("%s", err.text);
		return STATUS_START;
	}
	if (block_chain_open(&chain, resolved, o->backing_format, BLOCK_RDONLY, &err) < 0) {
		log_error("%s", err.text);
		free(resolved);
		return STATUS_START;
	}
	free(resolved);
	if (block_open(&b, NULL, chain.file, chain.n, BLOCK_RDONLY, &err) < 0) {
		log_error("%s: %s", chain.path[0], err.text);
		block_chain_close(&chain);
		return STATUS_START;
	}
	if (*size == 0)
		*size = block_size(b);
	(void)block_close(b);
	block_chain_close(&chain);
	return 0;
}

static int make(struct image_options *o, const char *path, uint64_t size)
{
	const struct qcow2_new new = {.size = size, .cluster_bits = o->cluster_bits, .compression = o->compression,
				      .backing = o->backing,
				      .backing_format = o->backing ? block_format_name(o->backing_format) : NULL};
	struct image_output out;
	struct block_error err = {{0}};
	int ret = image_output_open(&out, path, o->force);

	if (ret)
		return ret;
	if (o->format == BLOCK_QCOW2)
		ret = qcow2_create(out.fd, &new, &err);
	else if (ftruncate(out.fd, (off_t)size) < 0)
		ret = snprintf(err.text, sizeof(err.text), "%s; choose another size or place", strerror(errno));
	if (ret) {
		log_error("%s: %s", path, err.text);
		image_output_abandon(&out);
		return STATUS_START;
	}
	return image_output_finish(&out, o->force);
}

int image_create(int argc, char **argv)
{
	struct image_options o;
	uint64_t size = 0;
	int ret = image_parse(&o, argc, argv, "fFoby", 1, 2);

	if (ret)
		return ret;
	if (o.format == BLOCK_AUTO)
		o.format = BLOCK_QCOW2;
	if (o.backing && o.format != BLOCK_QCOW2)
		return usage("a raw image cannot be based on %s; choose -f qcow2", o.backing);
	if (o.nargs == 2)
		ret = image_size(o.args[1], &size);
	else if (!o.backing)
		ret = usage("%s needs a size", argv[0]);
	if (ret == 0 && o.nargs == 2 && size < BLOCK_SECTOR)
		ret = usage("the size %s is too small", o.args[1]);
	if (ret == 0 && o.backing)
		ret = look_at_base(&o, o.args[0], &size);
	/* Disks have whole sectors. */
	return ret ? ret : make(&o, o.args[0], (size + BLOCK_SECTOR - 1) / BLOCK_SECTOR * BLOCK_SECTOR);
}

int cmd_image(int argc, char **argv)
{
	if (argc < 2) {
		cmd_image_usage();
		return STATUS_USAGE;
	}
	for (size_t i = 0; i < nitems(commands); i++) {
		if (strcmp(argv[1], commands[i].name))
			continue;
		if (argc > 2 && (!strcmp(argv[2], "--help") || !strcmp(argv[2], "-h"))) {
			cmd_image_usage();
			return STATUS_POWEROFF;
		}
		return commands[i].run(argc - 1, argv + 1);
	}
	return usage("there is no command '%s'", argv[1]);
}
