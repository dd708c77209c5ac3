/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Options of `doppel run`: parsing, defaults, opening of files.
 *
 * Files are opened here, with the user's rights, before the machine's process exists: that process gets descriptors and
 * never sees a path. Each option is a row of the table and a small function.
 */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/log.h"
#include "cli/cli.h"
#include "cli/run.h"
#include "proto/status.h"

#define MEMORY_DEFAULT (512ull << 20)
#define MEMORY_UNIT (2ull << 20)
#define MEMORY_MAX (512ull << 30)
#define DEMO_APPEND "console=ttyS0"

/* Options that name files are collected first and opened when everything is known to be well formed. */
struct options {
	struct run_request *req;
	const char *kernel, *initrd, *serial_file, *stats;
	const char *module[PROTO_MAX_MODULES];
	bool append_given;
};

static int usage(const char *fmt, const char *arg)
{
	char msg[512];

	snprintf(msg, sizeof(msg), fmt, arg);
	log_error("%s", msg);
	return STATUS_USAGE;
}

static int copy_string(char *dst, size_t size, const char *src, const char *option)
{
	if (strlen(src) >= size) {
		log_error("%s is longer than %zu bytes; shorten it", option, size - 1);
		return STATUS_USAGE;
	}
	memcpy(dst, src, strlen(src) + 1);
	return 0;
}

static int set_kernel(struct options *o, const char *arg) { o->kernel = arg; return 0; }
static int set_initrd(struct options *o, const char *arg) { o->initrd = arg; return 0; }
static int set_stats(struct options *o, const char *arg) { o->stats = arg; return 0; }

static int set_append(struct options *o, const char *arg)
{
	o->append_given = true;
	return copy_string(o->req->config.append, sizeof(o->req->config.append), arg, "--append");
}

static int set_module(struct options *o, const char *arg)
{
	if (o->req->config.nmodules == PROTO_MAX_MODULES)
		return usage("more than 16 modules; join some of them%s", "");
	o->module[o->req->config.nmodules++] = arg;
	return 0;
}

static int set_disk(struct options *o, const char *arg)
{
	return run_disk_add(o->req, arg);
}

static int set_memory(struct options *o, const char *arg)
{
	static const char units[] = "kmg";
	unsigned long long v;
	const char *unit;
	unsigned shift;
	char *end;

	errno = 0;
	v = strtoull(arg, &end, 10);
	if (end == arg || *arg < '0' || *arg > '9' || errno)
		return usage("--memory '%s' is no size; write for example 512M or 2G", arg);
	unit = *end ? strchr(units, *end | 0x20) : units + 1;
	if (!unit || (*end && end[1]))
		return usage("--memory '%s' is no size; write for example 512M or 2G", arg);
	shift = 10 * (unsigned)(unit - units) + 10;
	if (v > (MEMORY_MAX >> shift) || (v << shift) < MEMORY_UNIT)
		return usage("--memory %s is out of range; give between 2M and 512G", arg);
	o->req->config.memory = ((v << shift) + MEMORY_UNIT - 1) / MEMORY_UNIT * MEMORY_UNIT;
	return 0;
}

static int set_cpus(struct options *o, const char *arg)
{
	char *end;
	unsigned long n = strtoul(arg, &end, 10);

	if (arg[0] < '0' || arg[0] > '9' || *end || n < 1 || n > PROTO_MAX_CPUS)
		return usage("--cpus %s is not possible; give a number from 1 to 16", arg);
	o->req->config.cpus = (uint32_t)n;
	return 0;
}

static int set_engine(struct options *o, const char *arg)
{
	static const char *const names[] = {"auto", "bt", "interp", "lockstep"};

	for (size_t i = 0; i < nitems(names); i++)
		if (!strcmp(arg, names[i]))
			return copy_string(o->req->config.engine, sizeof(o->req->config.engine), arg, "--engine");
	return usage("--engine '%s' is unknown; choose auto, bt, interp or lockstep", arg);
}

static int set_serial(struct options *o, const char *arg)
{
	if (!strcmp(arg, "stdio"))
		o->req->config.serial = PROTO_SERIAL_STDIO;
	else if (!strcmp(arg, "none"))
		o->req->config.serial = PROTO_SERIAL_NONE;
	else if (!strncmp(arg, "file:", 5) && arg[5]) {
		o->req->config.serial = PROTO_SERIAL_FILE;
		o->serial_file = arg + 5;
	} else
		return usage("--serial '%s' is unknown; choose stdio, none or file:F", arg);
	return 0;
}

static int set_name(struct options *o, const char *arg)
{
	if (!*arg || strspn(arg, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-") != strlen(arg))
		return usage("--name '%s' has characters other than letters, digits, '.', '_', '-'; choose another", arg);
	return copy_string(o->req->config.name, sizeof(o->req->config.name), arg, "--name");
}

static int set_debug_exit(struct options *o, const char *arg)
{
	(void)arg;
	o->req->config.flags |= PROTO_F_DEBUG_EXIT;
	return 0;
}

static int set_no_reboot(struct options *o, const char *arg)
{
	(void)arg;
	o->req->config.flags |= PROTO_F_NO_REBOOT;
	return 0;
}

static const struct {
	const char *name;
	bool has_arg;
	int (*set)(struct options *o, const char *arg);
} table[] = {
	{"kernel", true, set_kernel}, {"initrd", true, set_initrd}, {"append", true, set_append},
	{"module", true, set_module}, {"disk", true, set_disk}, {"memory", true, set_memory}, {"cpus", true, set_cpus},
	{"engine", true, set_engine}, {"serial", true, set_serial}, {"stats", true, set_stats},
	{"name", true, set_name}, {"debug-exit", false, set_debug_exit}, {"no-reboot", false, set_no_reboot},
};

static int parse_all(struct options *o, int argc, char **argv)
{
	struct option longopts[nitems(table) + 1] = {{0}};
	int c, index = 0, ret = 0;

	for (size_t i = 0; i < nitems(table); i++)
		longopts[i] = (struct option){table[i].name, table[i].has_arg, NULL, (int)i + 256};
	opterr = 0;
	optind = 1;
	while (ret == 0 && (c = getopt_long(argc, argv, ":n", longopts, &index)) >= 0) {
		if (c == 'n')
			o->req->config.flags |= PROTO_F_CHECK;
		else if (c == ':')
			ret = usage("%s needs a value; see `doppel run --help`", argv[optind - 1]);
		else if (c == '?')
			ret = usage("unknown option %s; see `doppel run --help`", argv[optind - 1]);
		else
			ret = table[c - 256].set(o, optarg);
	}
	if (ret == 0 && optind < argc)
		ret = usage("'%s' is no option; kernels are given with --kernel F, see `doppel run --help`", argv[optind]);
	return ret;
}

void run_add_fd(struct run_request *req, int fd, enum proto_fd_role role)
{
	req->fds[req->config.nfds] = fd;
	req->config.role[req->config.nfds++] = (uint8_t)role;
}

/* The remedy for a file that cannot be opened. */
static const char *remedy(int error)
{
	switch (error) {
	case EACCES:
	case EPERM:
		return "change the file's permissions, or";
	case ENOSPC:
	case EDQUOT:
		return "make room on the disk, or";
	default:
		return "check the path, or";
	}
}

static int open_input(struct run_request *req, const char *path, const char *option, enum proto_fd_role role)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
	struct stat st;

	if (fd < 0) {
		log_error("cannot open %s: %s; %s give %s another", path, strerror(errno), remedy(errno), option);
		return STATUS_START;
	}
	if (fstat(fd, &st) < 0 || !S_ISREG(st.st_mode)) {
		log_error("%s is not a regular file; give %s a file", path, option);
		close(fd);
		return STATUS_START;
	}
	run_add_fd(req, fd, role);
	return 0;
}

static int open_output(struct run_request *req, const char *path, const char *option, enum proto_fd_role role)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOCTTY, 0666);

	if (fd < 0) {
		log_error("cannot write %s: %s; %s give %s another", path, strerror(errno), remedy(errno), option);
		return STATUS_START;
	}
	run_add_fd(req, fd, role);
	return 0;
}

/* "F,ARGS" -> the file, and "F ARGS" as the module's command line (what boot loaders pass). */
static int open_module(struct run_request *req, const char *spec, unsigned index)
{
	char path[PATH_MAX];
	size_t len = strcspn(spec, ",");
	int ret;

	if (len == 0 || len >= sizeof(path))
		return usage("--module '%s' names no file; write --module F,ARGS", spec);
	memcpy(path, spec, len);
	path[len] = 0;
	ret = copy_string(req->config.module[index], sizeof(req->config.module[index]), spec, "--module");
	if (ret)
		return ret;
	if (spec[len])
		req->config.module[index][len] = ' ';
	return open_input(req, path, "--module", PROTO_FD_MODULE);
}

/* The demo guest: what `make run` has prepared beside the binary, or what is installed. */
static int demo_guest(struct options *o, char *kernel, char *initrd, size_t size)
{
	static const char *const kernels[] = {"guest/vmlinuz", "../share/doppel/vmlinuz", NULL};
	static const char *const initrds[] = {"guest/initramfs.cpio.gz", "../share/doppel/initramfs.cpio.gz", NULL};

	if (cli_find(kernels, kernel, size) < 0 || (!o->initrd && cli_find(initrds, initrd, size) < 0)) {
		log_error("the demo guest is not there; `make run` gets it, or give --kernel F");
		return STATUS_START;
	}
	o->kernel = kernel;
	if (!o->initrd)
		o->initrd = initrd;
	return o->append_given ? 0 : set_append(o, DEMO_APPEND);
}

static void message_name(char dst[256], const char *path)
{
	snprintf(dst, 256, "%s", path);
}

static int open_all(struct options *o)
{
	struct run_request *req = o->req;
	int ret = open_input(req, o->kernel, "--kernel", PROTO_FD_KERNEL);

	message_name(req->config.kernel, o->kernel);
	if (ret == 0 && o->initrd) {
		message_name(req->config.initrd, o->initrd);
		ret = open_input(req, o->initrd, "--initrd", PROTO_FD_INITRD);
	}
	for (unsigned i = 0; ret == 0 && i < req->config.nmodules; i++)
		ret = open_module(req, o->module[i], i);
	if (ret == 0)
		ret = run_disk_open(req);
	if (ret == 0 && o->serial_file)
		ret = open_output(req, o->serial_file, "--serial", PROTO_FD_SERIAL);
	if (ret == 0 && o->stats)
		ret = open_output(req, o->stats, "--stats", PROTO_FD_STATS);
	return ret;
}

int run_parse(struct run_request *req, int argc, char **argv)
{
	char kernel[PATH_MAX], initrd[PATH_MAX];
	struct options o = {.req = req};
	int ret;

	req->config.memory = MEMORY_DEFAULT;
	req->config.cpus = 1;
	snprintf(req->config.engine, sizeof(req->config.engine), "auto");
	snprintf(req->config.name, sizeof(req->config.name), "doppel");
	ret = parse_all(&o, argc, argv);
	if (ret == 0 && !o.kernel)
		ret = demo_guest(&o, kernel, initrd, sizeof(kernel));
	return ret ? ret : open_all(&o);
}
