/* SPDX-License-Identifier: Apache-2.0 */
/*
 * --disk: parsing, and opening of images with everything they are based on.
 *
 * Paths and locks are dealt with here, with the user's rights; the machine gets descriptors and formats. The locks belong to
 * the open files, so they last until the last process that has them is gone, whatever it died of.
 */
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
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

static int usage(const char *spec, const char *what)
{
	log_error("--disk %s: %s; see `doppel run --help`", spec, what);
	return STATUS_USAGE;
}

/* Copies up to a comma that is not doubled. What follows it, or NULL if the copy does not fit. */
static const char *take_path(char *path, size_t size, const char *spec)
{
	size_t n = 0;

	for (; *spec && (*spec != ',' || spec[1] == ','); spec++) {
		spec += *spec == ',';
		if (n + 1 >= size)
			return NULL;
		path[n++] = *spec;
	}
	path[n] = 0;
	return *spec ? spec + 1 : spec;
}

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

static int parse(struct disk_options *d, const char *spec)
{
	char options[256], *rest = options, *option;
	const char *wrong = NULL, *after;

	memset(d, 0, sizeof(*d));
	after = take_path(d->path, sizeof(d->path), spec);
	if (!after || strlen(after) >= sizeof(options))
		return usage(spec, "it is too long");
	if (!d->path[0])
		return usage(spec, "it names no file");
	strcpy(options, after);
	while (!wrong && *options && (option = strsep(&rest, ",")))
		wrong = set_option(d, option);
	return wrong ? usage(spec, wrong) : 0;
}

int run_disk_add(struct run_request *req, const char *spec)
{
	struct disk_options d;

	if (req->config.ndisks == PROTO_MAX_DISKS) {
		log_error("more than %d disks; join some of them", PROTO_MAX_DISKS);
		return STATUS_USAGE;
	}
	req->disk[req->config.ndisks++] = spec;
	return parse(&d, spec);
}

static void describe_file(struct proto_disk_file *f, const struct block_file *from)
{
	f->format = from->format;
	f->probed = from->probed;
	snprintf(f->path, sizeof(f->path), "%s", from->path);
}

static int open_disk(struct run_request *req, struct proto_disk *disk, const char *spec)
{
	struct proto_config *c = &req->config;
	struct disk_options d;
	struct block_chain chain;
	struct block_error err;
	int ret = parse(&d, spec);

	if (ret)
		return ret;
	if (block_chain_open(&chain, d.path, d.format, d.read_only ? BLOCK_RDONLY : 0, &err) < 0) {
		log_error("%s", err.text);
		return STATUS_START;
	}
	if (c->ndisk_files + chain.n > PROTO_MAX_DISK_FILES) {
		log_error("the disks have more than %d files; commit some backing files", PROTO_MAX_DISK_FILES);
		block_chain_close(&chain);
		return STATUS_START;
	}
	disk->flags = d.read_only ? PROTO_DISK_RDONLY : 0;
	disk->nfiles = chain.n;
	memcpy(disk->serial, d.serial, sizeof(d.serial));
	for (unsigned i = 0; i < chain.n; i++) {
		describe_file(&c->disk_file[c->ndisk_files++], &chain.file[i]);
		run_add_fd(req, chain.file[i].fd, PROTO_FD_DISK);
	}
	block_chain_forget(&chain);
	return 0;
}

int run_disk_open(struct run_request *req)
{
	int ret = 0;

	for (unsigned i = 0; ret == 0 && i < req->config.ndisks; i++)
		ret = open_disk(req, &req->config.disk[i], req->disk[i]);
	return ret;
}
