/* SPDX-License-Identifier: Apache-2.0 */
/*
 * --cloud-init and --ssh-key: the seed that cloud-init's NoCloud source reads in the guest at its first boot.
 *
 * The seed is a read-only disk of its own behind the user's, an ISO 9660 image labelled "cidata" in anonymous memory. Its
 * instance-id follows from the name and the contents: the same machine boots as itself, one with another seed as a new
 * instance. Specification: cloud-init's documentation of the NoCloud data source. Invariant and rules: run.h.
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/log.h"
#include "host/iso9660.h"
#include "cli/run.h"
#include "host/block/block.h"
#include "proto/status.h"

#define SEED_FILE_MAX (1u << 20)
#define KEY_MAX 16384u

/* A file of the seed; data is NULL if it was not given. */
struct text {
	char *data;
	size_t size;
};

struct seed {
	struct text user, meta, network;
};

static int set_seed(struct run_request *req, const struct run_arg *arg) { req->cloud.seed = *arg; return 0; }

static int set_key(struct run_request *req, const struct run_arg *arg)
{
	if (req->cloud.nkeys == RUN_MAX_SSH_KEYS)
		return run_error(arg, STATUS_USAGE, "more than %d keys; put them into one user-data", RUN_MAX_SSH_KEYS);
	req->cloud.ssh_key[req->cloud.nkeys++] = *arg;
	return 0;
}

/* Reads from fd until its end; false if that is more than max or goes wrong (errno). */
static bool read_all(int fd, struct text *t, size_t max)
{
	ssize_t n = 0;

	t->data = malloc(max + 1);
	t->size = 0;
	while (t->data && t->size <= max && (n = read(fd, t->data + t->size, max + 1 - t->size)) > 0)
		t->size += (size_t)n;
	if (t->data && n == 0 && t->size <= max) {
		t->data[t->size] = 0;
		return true;
	}
	errno = t->data && n >= 0 ? EFBIG : errno;
	free(t->data);
	*t = (struct text){0};
	return false;
}

static int read_file(struct run_request *req, const struct run_arg *arg, const char *name, size_t max, struct text *t)
{
	const char *path = run_path(req, arg, name, strlen(name));
	int fd = path ? open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK) : -1;
	struct stat st;
	bool ok = false;

	if (fd >= 0 && fstat(fd, &st) == 0 && S_ISDIR(st.st_mode))
		errno = EISDIR;
	else if (fd >= 0)
		ok = read_all(fd, t, max);
	if (!ok)
		(void)run_error(arg, STATUS_START, "cannot read %s: %s; give another", path ? path : name, strerror(errno));
	if (fd >= 0)
		close(fd);
	return ok ? 0 : STATUS_START;
}

/* "F[,meta-data=F][,network-config=F]" */
static int read_seed(struct run_request *req, struct seed *s)
{
	const struct run_arg *arg = &req->cloud.seed;
	char part[PATH_MAX + 32];
	const char *rest = run_split(part, sizeof(part), arg->text);
	int ret = STATUS_USAGE;

	if (!rest || !part[0])
		return run_error(arg, STATUS_USAGE, "'%.200s' names no file; write F[,meta-data=F][,network-config=F]", arg->text);
	ret = read_file(req, arg, part, SEED_FILE_MAX, &s->user);
	while (ret == 0 && *rest) {
		struct text *t;
		char *value;

		rest = run_split(part, sizeof(part), rest);
		value = rest ? strchr(part, '=') : NULL;
		if (value)
			*value++ = 0;
		t = value && !strcmp(part, "meta-data") ? &s->meta : value && !strcmp(part, "network-config") ? &s->network : NULL;
		if (!t || t->data || !*value)
			return run_error(arg, STATUS_USAGE, "after the user-data come meta-data=F and network-config=F, once each");
		ret = read_file(req, arg, value, SEED_FILE_MAX, t);
	}
	return ret;
}

/* --- meta-data --------------------------------------------------------------------------------------------------------- */

static uint64_t hash_add(uint64_t h, const void *data, size_t size)
{
	const uint8_t *p = data;

	/* FNV-1a: tells contents apart, keeps no secret. */
	for (size_t i = 0; i < size; i++)
		h = (h ^ p[i]) * 0x100000001b3;
	return (h ^ size) * 0x100000001b3;
}

/* The machine's name as a host name: what is not allowed there becomes a hyphen. */
static void host_name(const char *name, char host[64])
{
	size_t n = 0;

	for (; name[n] && n < 63; n++)
		host[n] = name[n] == '_' || name[n] == '.' ? '-' : name[n];
	while (n > 1 && host[n - 1] == '-')
		n--;
	host[n] = 0;
}

/* Adds the keys of one file, a line each, as strings of YAML. */
static int add_keys(FILE *meta, const struct run_arg *arg, const char *keys)
{
	unsigned found = 0;

	if (strstr(keys, "PRIVATE KEY"))
		return run_error(arg, STATUS_USAGE, "%s is a private key; give the public one, %s.pub", arg->text, arg->text);
	for (const char *line = keys; *line; line += strcspn(line, "\n"), line += *line == '\n') {
		size_t len = strcspn(line, "\r\n");

		if (len == 0 || *line == '#')
			continue;
		fputs("  - \"", meta);
		for (size_t i = 0; i < len; i++) {
			if (line[i] < ' ' || line[i] == 127)
				return run_error(arg, STATUS_USAGE, "%s is not a public key of ssh; give one, *.pub", arg->text);
			if (line[i] == '"' || line[i] == '\\')
				fputc('\\', meta);
			fputc(line[i], meta);
		}
		fputs("\"\n", meta);
		found++;
	}
	return found ? 0 : run_error(arg, STATUS_USAGE, "%s has no key; give a public key of ssh, *.pub", arg->text);
}

static int write_meta(struct run_request *req, const struct seed *s, FILE *meta)
{
	uint64_t h = 0xcbf29ce484222325;
	char host[64];
	int ret = 0;

	host_name(req->config.name, host);
	if (req->cloud.nkeys)
		fputs("public-keys:\n", meta);
	for (unsigned i = 0; ret == 0 && i < req->cloud.nkeys; i++) {
		const struct run_arg *arg = &req->cloud.ssh_key[i];
		struct text key = {0};

		ret = read_file(req, arg, arg->text, KEY_MAX, &key);
		if (ret == 0)
			ret = add_keys(meta, arg, key.data);
		h = hash_add(h, key.data, key.size);
		free(key.data);
	}
	h = hash_add(h, s->user.data, s->user.size);
	h = hash_add(h, s->network.data, s->network.size);
	fprintf(meta, "instance-id: %s-%016llx\nlocal-hostname: %s\n", host, (unsigned long long)h, host);
	return ret;
}

static int make_meta(struct run_request *req, struct seed *s)
{
	FILE *meta;
	int ret;

	if (s->meta.data && req->cloud.nkeys)
		return run_error(&req->cloud.ssh_key[0], STATUS_USAGE, "the meta-data given has the keys; add it there (public-keys)");
	if (s->meta.data)
		return 0;
	meta = open_memstream(&s->meta.data, &s->meta.size);
	if (!meta)
		return run_error(&req->cloud.seed, STATUS_START, "out of memory; free some and try again");
	ret = write_meta(req, s, meta);
	if (fclose(meta) != 0 && ret == 0)
		ret = run_error(&req->cloud.seed, STATUS_START, "out of memory; free some and try again");
	return ret;
}

/* --- the disk ------------------------------------------------------------------------------------------------------------ */

static int make_image(const struct seed *s)
{
	struct iso9660_file file[3] = {
		{"user-data", s->user.data ? s->user.data : "#cloud-config\n{}\n", s->user.data ? s->user.size : 17},
		{"meta-data", s->meta.data, s->meta.size},
		{"network-config", s->network.data, s->network.size},
	};
	uint8_t *image;
	size_t size;
	int ret = iso9660_build("cidata", file, s->network.data ? 3 : 2, &image, &size), fd;

	if (ret < 0)
		return ret;
	fd = memfd_create("cidata", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	ret = fd < 0 ? -errno : fd;
	if (fd >= 0 && write(fd, image, size) != (ssize_t)size)
		ret = -ENOSPC;
	if (fd >= 0)
		(void)fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL);
	if (fd >= 0 && ret < 0)
		close(fd);
	free(image);
	return ret;
}

static int add_disk(struct run_request *req, const struct seed *s)
{
	const struct run_arg *arg = req->cloud.seed.text ? &req->cloud.seed : &req->cloud.ssh_key[0];
	struct proto_config *c = &req->config;
	struct proto_disk_file *f = &c->disk_file[c->ndisk_files];
	int fd;

	if (c->ndisks == PROTO_MAX_DISKS || c->ndisk_files == PROTO_MAX_DISK_FILES)
		return run_error(arg, STATUS_USAGE, "no room for one more disk; join some of them");
	fd = make_image(s);
	if (fd < 0)
		return run_error(arg, STATUS_START, "cannot make the seed: %s; free some memory", strerror(-fd));
	if (!run_add_fd(req, fd, PROTO_FD_DISK)) {
		close(fd);
		return run_error(arg, STATUS_USAGE, "too many files; use fewer disks or modules");
	}
	*f = (struct proto_disk_file){.format = BLOCK_RAW, .path = "(cloud-init seed)"};
	c->ndisk_files++;
	c->disk[c->ndisks++] = (struct proto_disk){.flags = PROTO_DISK_RDONLY, .nfiles = 1, .serial = "cidata"};
	return 0;
}

static int finish(struct run_request *req)
{
	struct seed s = {.user = {0}};
	int ret = 0;

	if (!req->cloud.seed.text && !req->cloud.nkeys)
		return 0;
	if (req->cloud.seed.text)
		ret = read_seed(req, &s);
	if (ret == 0)
		ret = make_meta(req, &s);
	if (ret == 0)
		ret = add_disk(req, &s);
	free(s.user.data);
	free(s.meta.data);
	free(s.network.data);
	return ret;
}

static const struct run_option options[] = {
	{.name = "cloud-init", .value = "F[,OPTS]", .set = set_seed,
	 .help = "user-data for cloud-init in the guest, as a NoCloud disk. OPTS:\n"
		 "meta-data=F (default: --name as host name), network-config=F"},
	{.name = "ssh-key", .value = "F", .set = set_key, .flags = RUN_REPEATS,
	 .help = "a public key that cloud-init lets into its default user; repeatable"},
	{0},
};

const struct run_family run_cloud_family = {"First boot of the guest", options, finish};
