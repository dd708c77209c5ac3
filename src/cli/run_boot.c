/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Options of `doppel run` about what is booted: kernel, initial RAM disk, command line, modules. Without a kernel it is
 * what a disk boots, and without a disk the demo guest. Invariant and rules: run.h.
 */
#include <limits.h>
#include <stdio.h>
#include <string.h>

#include "base/log.h"
#include "cli/cli.h"
#include "cli/run.h"
#include "proto/status.h"

#define DEMO_APPEND "console=ttyS0"

static int set_kernel(struct run_request *req, const struct run_arg *arg) { req->boot.kernel = *arg; return 0; }
static int set_initrd(struct run_request *req, const struct run_arg *arg) { req->boot.initrd = *arg; return 0; }

static int set_append(struct run_request *req, const struct run_arg *arg)
{
	req->boot.append = *arg;
	return run_copy(req->config.append, sizeof(req->config.append), arg->text, arg);
}

static int set_module(struct run_request *req, const struct run_arg *arg)
{
	if (req->config.nmodules == PROTO_MAX_MODULES)
		return run_error(arg, STATUS_USAGE, "more than %d modules; join some of them", PROTO_MAX_MODULES);
	if (arg->text[0] == ',')
		return run_error(arg, STATUS_USAGE, "'%s' names no file; write F or F,ARGS", arg->text);
	req->boot.module[req->config.nmodules++] = *arg;
	return 0;
}

static int open_named(struct run_request *req, const struct run_arg *arg, char name[256], enum proto_fd_role role)
{
	const char *path = run_path(req, arg, arg->text, strlen(arg->text));

	if (!path)
		return run_error(arg, STATUS_START, "out of memory; free some and try again");
	snprintf(name, 256, "%s", path);
	return run_open_input(req, arg, path, role);
}

/* "F,ARGS" -> the file, and "F ARGS" as the module's command line (what boot loaders pass). */
static int open_module(struct run_request *req, const struct run_arg *arg, unsigned index)
{
	size_t len = strcspn(arg->text, ",");
	const char *path = run_path(req, arg, arg->text, len);
	int ret;

	if (!path)
		return run_error(arg, STATUS_START, "out of memory; free some and try again");
	ret = run_copy(req->config.module[index], sizeof(req->config.module[index]), arg->text, arg);
	if (ret)
		return ret;
	if (arg->text[len])
		req->config.module[index][len] = ' ';
	return run_open_input(req, arg, path, PROTO_FD_MODULE);
}

/* The demo guest: what `make run` has prepared beside the binary, or what is installed. */
static int demo_guest(struct run_request *req)
{
	static const char *const kernels[] = {"guest/vmlinuz", "../share/doppel/vmlinuz", NULL};
	static const char *const initrds[] = {"guest/initramfs.cpio.gz", "../share/doppel/initramfs.cpio.gz", NULL};
	struct run_boot *b = &req->boot;
	char kernel[PATH_MAX], initrd[PATH_MAX];

	if (cli_find(kernels, kernel, sizeof(kernel)) < 0 ||
	    (!b->initrd.text && cli_find(initrds, initrd, sizeof(initrd)) < 0)) {
		log_error("the demo guest is not there; `make run` gets it, or give --kernel F");
		return STATUS_START;
	}
	if (req->config.hvc && !b->initrd.text)
		return run_error(&req->console.console, STATUS_USAGE, "the demo guest has no driver for it; give --kernel or --initrd");
	b->kernel = (struct run_arg){.text = run_keep(req, kernel, strlen(kernel))};
	if (!b->initrd.text)
		b->initrd = (struct run_arg){.text = run_keep(req, initrd, strlen(initrd))};
	if (!b->kernel.text || !b->initrd.text) {
		log_error("out of memory; free some and try again");
		return STATUS_START;
	}
	return b->append.text ? 0 : run_copy(req->config.append, sizeof(req->config.append), DEMO_APPEND, &b->append);
}

/* Without --kernel a machine with disks boots from them; what would go with a kernel of ours then makes no sense. */
static int from_disk(struct run_request *req)
{
	const struct run_boot *b = &req->boot;
	const struct run_arg *stray = b->initrd.text ? &b->initrd : req->config.nmodules ? &b->module[0] : NULL;

	if (stray)
		return run_error(stray, STATUS_USAGE, "the disk's kernel has its own; give a kernel as well, or leave it out");
	snprintf(req->config.kernel, sizeof(req->config.kernel), "%.255s", req->disks.disk[0].text);
	return 0;
}

static int finish(struct run_request *req)
{
	struct run_boot *b = &req->boot;
	int ret = 0;

	if (!b->kernel.text && req->config.ndisks > 0)
		return from_disk(req);
	if (!b->kernel.text)
		ret = demo_guest(req);
	if (ret == 0)
		ret = open_named(req, &b->kernel, req->config.kernel, PROTO_FD_KERNEL);
	if (ret == 0 && b->initrd.text)
		ret = open_named(req, &b->initrd, req->config.initrd, PROTO_FD_INITRD);
	for (unsigned i = 0; ret == 0 && i < req->config.nmodules; i++)
		ret = open_module(req, &b->module[i], i);
	return ret;
}

static const struct run_option options[] = {
	{.name = "kernel", .value = "F", .set = set_kernel,
	 .help = "Linux bzImage, ELF with a PVH note, or multiboot 1 image"},
	{.name = "initrd", .value = "F", .set = set_initrd, .help = "initial RAM disk (multiboot: the first module)"},
	{.name = "append", .value = "STR", .set = set_append, .flags = RUN_EMPTY, .help = "kernel command line; without --kernel it comes after the disk's own"},
	{.name = "module", .value = "F[,ARGS]", .set = set_module, .flags = RUN_REPEATS,
	 .help = "another boot module (multiboot, PVH); repeatable"},
	{0},
};

const struct run_family run_boot_family = {"What is booted", options, finish};
