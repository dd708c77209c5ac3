/* SPDX-License-Identifier: Apache-2.0 */
/*
 * --disk: parsing, and opening of images with everything they are based on.
 *
 * Invariant and rules: run.h. Paths and locks are dealt with here, with the user's rights; the machine gets descriptors and formats. The locks belong to
 * the open files, so they last until the last process that has them is gone, whatever it died of.
 */
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/run.h"
#include "host/block/block.h"
#include "proto/status.h"

#define SERIAL_MAX 20

struct disk_options {
	char path[PATH_MAX];
	enum block_format format;
	bool read_only;
	char serial[SERIAL_MAX + 1];
};

static const char *set_option(struct disk_options *d, char *option)
{
	char *val = strchr(option, '=');

	if (!val)
		return "options are written NAME=VALUE";
	*val++ = 0;
	if (!strcmp(option, "format")) {
		d->format = block_format_find(val);
		return d->format == BLOCK_AUTO && strcmp(val, "auto") ? "format is raw, qcow2 or auto" : NULL;
	}
	if (!strcmp(option, "readonly")) {
		d->read_only = !strcmp(val, "on");
		return d->read_only || !strcmp(val, "off") ? NULL : "readonly is on or off";
	}
	if (!strcmp(option, "serial")) {
		if (!*val || strlen(val) > SERIAL_MAX)
			return "serial is 1 to 20 characters";
		for (const char *p = val; *p; p++)
			if (*p <= ' ' || *p > '~')
				return "serial is made of printable ASCII characters";
		strcpy(d->serial, val);
		return NULL;
	}
	return "the options are format, readonly and serial";
}

static int parse(struct disk_options *d, const struct run_arg *arg)
{
	const char *spec = arg->text;
	char options[256], *rest = options, *option;
	const char *wrong = NULL, *after;

	memset(d, 0, sizeof(*d));
	after = run_split(d->path, sizeof(d->path), spec);
	if (!after || strlen(after) >= sizeof(options))
		return run_error(arg, STATUS_USAGE, "'%.200s...' is too long; shorten it", spec);
	if (!d->path[0])
		return run_error(arg, STATUS_USAGE, "'%s' names no file; write F or F,OPTS", spec);
	strcpy(options, after);
	while (!wrong && *options && (option = strsep(&rest, ",")))
		wrong = set_option(d, option);
	return wrong ? run_error(arg, STATUS_USAGE, "'%s': %s; see `doppel run --help`", spec, wrong) : 0;
}

static int set_disk(struct run_request *req, const struct run_arg *arg)
{
	struct disk_options d;

	if (req->config.ndisks == PROTO_MAX_DISKS)
		return run_error(arg, STATUS_USAGE, "more than %d disks; join some of them", PROTO_MAX_DISKS);
	req->disks.disk[req->config.ndisks++] = *arg;
	return parse(&d, arg);
}

static void describe_file(struct proto_disk_file *f, const struct block_file *from)
{
	f->format = from->format;
	f->probed = from->probed;
	snprintf(f->path, sizeof(f->path), "%s", from->path);
}

static int open_disk(struct run_request *req, struct proto_disk *disk, const struct run_arg *arg)
{
	struct proto_config *c = &req->config;
	struct disk_options d;
	struct block_chain chain;
	struct block_error err;
	const char *path;
	int ret = parse(&d, arg);

	if (ret)
		return ret;
	path = run_path(req, arg, d.path, strlen(d.path));
	if (!path)
		return run_error(arg, STATUS_START, "out of memory; free some and try again");
	if (block_chain_open(&chain, path, d.format, d.read_only ? BLOCK_RDONLY : 0, &err) < 0)
		return run_error(arg, STATUS_START, "%s", err.text);
	if (c->ndisk_files + chain.n > PROTO_MAX_DISK_FILES || c->nfds + chain.n > PROTO_MAX_FDS) {
		block_chain_close(&chain);
		return run_error(arg, STATUS_START, "the disks have more than %d files; commit some backing files",
				 PROTO_MAX_DISK_FILES);
	}
	disk->flags = d.read_only ? PROTO_DISK_RDONLY : 0;
	disk->nfiles = chain.n;
	memcpy(disk->serial, d.serial, sizeof(d.serial));
	for (unsigned i = 0; i < chain.n; i++) {
		describe_file(&c->disk_file[c->ndisk_files++], &chain.file[i]);
		(void)run_add_fd(req, chain.file[i].fd, PROTO_FD_DISK); /* there is room: see above */
	}
	block_chain_forget(&chain);
	return 0;
}

static int finish(struct run_request *req)
{
	int ret = 0;

	for (unsigned i = 0; ret == 0 && i < req->config.ndisks; i++)
		ret = open_disk(req, &req->config.disk[i], &req->disks.disk[i]);
	return ret;
}

static const struct run_option options[] = {
	{.name = "disk", .value = "F[,OPTS]", .set = set_disk, .flags = RUN_REPEATS,
	 .help = "a disk image, raw or qcow2, or a block device; repeatable. OPTS:\n"
		 "format=raw|qcow2, readonly=on, serial=S; a comma in F is written twice"},
	{0},
};

const struct run_family run_disk_family = {"Disks", options, finish};
