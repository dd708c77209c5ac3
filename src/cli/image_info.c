/* SPDX-License-Identifier: Apache-2.0 */
/*
 * doppel image info, check: looking at images.
 *
 * info reads headers only and takes no lock, so it works on an image that a machine is using; it shows as much of a broken chain as there is.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/log.h"
#include "cli/cli.h"
#include "cli/image.h"
#include "proto/status.h"

struct description {
	const struct block_file *file;
	struct qcow2_header qcow2;      /* if it is one */
	uint64_t size, disk_size;
};

static void print_size(const char *what, uint64_t bytes)
{
	static const char units[] = "KMGTPE";
	double v = (double)bytes / 1024;
	unsigned u = 0;

	for (; v >= 1024; v /= 1024)
		u++;
	printf("%s: %.4g %ciB (%llu bytes)\n", what, v, units[u], (unsigned long long)bytes);
}

static const char *compression(const struct qcow2_header *h)
{
	return h->compression == QCOW2_ZSTD ? "zstd" : "zlib";
}

static void print_text(const struct description *d, bool first)
{
	const struct qcow2_header *h = &d->qcow2;

	printf("%simage: %s\nformat: %s\n", first ? "" : "\n", d->file->path, block_format_name(d->file->format));
	print_size("virtual size", d->size);
	print_size("disk size", d->disk_size);
	if (d->file->format != BLOCK_QCOW2)
		return;
	printf("cluster size: %u\nversion: %u\ncompression: %s\nrefcount bits: %u\n", 1u << h->cluster_bits, h->version, compression(h),
	       1u << h->refcount_order);
	if (h->nsnapshots)
		printf("snapshots: %u\n", h->nsnapshots);
	if (h->incompatible & (QCOW2_DIRTY | QCOW2_CORRUPT))
		printf("state: %s; see `doppel image check`\n", h->incompatible & QCOW2_CORRUPT ? "corrupt" : "not closed properly");
	if (h->backing[0])
		printf("backing file: %s\nbacking format: %s\n", h->backing, h->backing_format[0] ? h->backing_format : "not recorded");
}

static void json_field(const char *key, const char *val)
{
	printf(", \"%s\": ", key);
	cli_json_string(val);
}

static void print_json(const struct description *d, bool first)
{
	const struct qcow2_header *h = &d->qcow2;

	printf("%s\n  {\"image\": ", first ? "" : ",");
	cli_json_string(d->file->path);
	json_field("format", block_format_name(d->file->format));
	printf(", \"virtual_size\": %llu, \"disk_size\": %llu", (unsigned long long)d->size, (unsigned long long)d->disk_size);
	if (d->file->format == BLOCK_QCOW2) {
		printf(", \"cluster_size\": %u, \"version\": %u, \"refcount_bits\": %u, \"snapshots\": %u, \"dirty\": %s, \"corrupt\": %s",
		       1u << h->cluster_bits, h->version, 1u << h->refcount_order, h->nsnapshots,
		       h->incompatible & QCOW2_DIRTY ? "true" : "false", h->incompatible & QCOW2_CORRUPT ? "true" : "false");
		json_field("compression", compression(h));
		if (h->backing[0]) {
			json_field("backing_file", h->backing);
			json_field("backing_format", h->backing_format);
		}
	}
	putchar('}');
}

/* 0 or an enum proto_status. */
static int describe(const struct block_file *f, bool json, bool first)
{
	struct description d = {.file = f};
	struct block_error err;
	struct stat st;
	off_t end = lseek(f->fd, 0, SEEK_END);

	if (fstat(f->fd, &st) == 0)
		d.disk_size = (uint64_t)st.st_blocks * 512;
	d.size = end < 0 ? 0 : (uint64_t)end;
	if (f->format == BLOCK_QCOW2) {
		if (qcow2_header_read(f->fd, &d.qcow2, &err) < 0) {
			log_error("%s: %s", f->path, err.text);
			return STATUS_START;
		}
		d.size = d.qcow2.size;
	}
	(json ? print_json : print_text)(&d, first);
	return 0;
}

int image_info(int argc, char **argv)
{
	enum block_format format;
	struct image_options o;
	struct block_chain c;
	struct block_error err;
	char *path;
	int ret = image_parse(&o, argc, argv, "fj", 1, 1), more = 0, depth = 0;

	if (ret)
		return ret;
	format = o.format;
	path = strdup(o.args[0]);
	if (o.json)
		printf("[");
	while (ret == 0 && more == 0 && path && depth < BLOCK_CHAIN_MAX) {
		more = block_chain_open(&c, path, format, BLOCK_RDONLY | BLOCK_NO_BACKING | BLOCK_NO_LOCK, &err);
		free(path);
		path = NULL;
		if (more < 0)
			break;
		ret = describe(&c.file[0], o.json, depth++ == 0);
		if (ret == 0)
			more = block_backing_path(&c.file[0], &path, &format, &err);
		block_chain_close(&c);
	}
	free(path);
	if (o.json)
		printf("%s]\n", depth ? "\n" : "");
	if (ret == 0 && more < 0) {
		log_error("%s", err.text);
		ret = STATUS_START;
	}
	return ret;
}

/* --- check --------------------------------------------------------------------------------------------------------------------- */

static void complain(void *opaque, const char *text)
{
	unsigned *said = opaque;

	if (++*said <= 20)
		fprintf(stderr, "%s\n", text);
	else if (*said == 21)
		fprintf(stderr, "...\n");
}

static int verdict(const struct qcow2_check *r)
{
	return r->corruptions ? IMAGE_CORRUPT : r->leaks ? IMAGE_LEAKS : STATUS_POWEROFF;
}

static void print_check(const char *path, const struct qcow2_check *before, const struct qcow2_check *after, bool json)
{
	if (json) {
		printf("{\"image\": ");
		cli_json_string(path);
		printf(", \"corruptions\": %llu, \"leaks\": %llu, \"corruptions_repaired\": %llu, \"leaks_repaired\": %llu, "
		       "\"allocated_clusters\": %llu, \"compressed_clusters\": %llu, \"total_clusters\": %llu}\n",
		       (unsigned long long)after->corruptions, (unsigned long long)after->leaks,
		       (unsigned long long)(before->corruptions - after->corruptions), (unsigned long long)(before->leaks - after->leaks),
		       (unsigned long long)after->allocated, (unsigned long long)after->compressed, (unsigned long long)after->total);
		return;
	}
	if (before != after)
		printf("found: %llu corruptions, %llu leaked clusters\n", (unsigned long long)before->corruptions,
		       (unsigned long long)before->leaks);
	printf("%s: %llu corruptions, %llu leaked clusters; %llu of %llu clusters allocated, %llu compressed\n", path,
	       (unsigned long long)after->corruptions, (unsigned long long)after->leaks, (unsigned long long)after->allocated,
	       (unsigned long long)after->total, (unsigned long long)after->compressed);
}

int image_check(int argc, char **argv)
{
	unsigned said = 0;
	struct qcow2_check before = {.say = complain, .opaque = &said}, after = {0};
	struct image_options o;
	struct block_chain c;
	struct block_error err;
	int ret = image_parse(&o, argc, argv, "fjr", 1, 1);

	if (ret)
		return ret;
	if (block_chain_open(&c, o.args[0], o.format, BLOCK_NO_BACKING | (o.repair ? 0 : BLOCK_RDONLY), &err) < 0) {
		log_error("%s", err.text);
		return STATUS_START;
	}
	if (c.file[0].format != BLOCK_QCOW2) {
		ret = -ENOTSUP;
		snprintf(err.text, sizeof(err.text), "there is nothing to check in a raw image");
	} else {
		ret = qcow2_check(&c.file[0], o.repair, &before, &err);
	}
	if (ret == 0 && o.repair)
		ret = qcow2_check(&c.file[0], QCOW2_REPAIR_NONE, &after, &err);
	if (ret < 0)
		log_error("%s: %s", o.args[0], err.text);
	else
		print_check(o.args[0], &before, o.repair ? &after : &before, o.json);
	block_chain_close(&c);
	return ret < 0 ? STATUS_START : verdict(o.repair ? &after : &before);
}
