/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Options of `doppel run` about the machine as such: its name, memory, processors, engine, and how it ends. Invariant and
 * rules: run.h.
 */
#include <stdlib.h>
#include <string.h>

#include "cli/run.h"
#include "proto/status.h"

#define MEMORY_UNIT (2ull << 20)
#define MEMORY_MAX (512ull << 30)
#define MIB (1ull << 20)

static int set_memory(struct run_request *req, const struct run_arg *arg)
{
	uint64_t bytes;

	if (!run_size(arg->text, MIB, &bytes))
		return run_error(arg, STATUS_USAGE, "'%s' is no size; write for example 512M or 2G", arg->text);
	if (bytes < MEMORY_UNIT || bytes > MEMORY_MAX)
		return run_error(arg, STATUS_USAGE, "'%s' is out of range; give between 2M and 512G", arg->text);
	req->config.memory = (bytes + MEMORY_UNIT - 1) / MEMORY_UNIT * MEMORY_UNIT;
	return 0;
}

static int set_cpus(struct run_request *req, const struct run_arg *arg)
{
	char *end;
	unsigned long n = strtoul(arg->text, &end, 10);

	if (arg->text[0] < '0' || arg->text[0] > '9' || *end || n < 1 || n > PROTO_MAX_CPUS)
		return run_error(arg, STATUS_USAGE, "'%s' is not possible; give a number from 1 to %d", arg->text, PROTO_MAX_CPUS);
	req->config.cpus = (uint32_t)n;
	return 0;
}

static int set_engine(struct run_request *req, const struct run_arg *arg)
{
	static const char *const names[] = {"auto", "bt", "interp", "lockstep"};

	for (size_t i = 0; i < nitems(names); i++)
		if (!strcmp(arg->text, names[i]))
			return run_copy(req->config.engine, sizeof(req->config.engine), arg->text, arg);
	return run_error(arg, STATUS_USAGE, "'%s' is unknown; choose auto, bt, interp or lockstep", arg->text);
}

static int set_virtio_transport(struct run_request *req, const struct run_arg *arg)
{
	if (strcmp(arg->text, "pci") && strcmp(arg->text, "mmio"))
		return run_error(arg, STATUS_USAGE, "'%s' is unknown; choose pci or mmio", arg->text);
	req->config.flags &= ~(uint32_t)PROTO_F_VIRTIO_MMIO;
	req->config.flags |= arg->text[0] == 'm' ? PROTO_F_VIRTIO_MMIO : 0;
	return 0;
}

static int set_name(struct run_request *req, const struct run_arg *arg)
{
	static const char good[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-";

	if (arg->text[0] == '.' || arg->text[0] == '-' || strspn(arg->text, good) != strlen(arg->text))
		return run_error(arg, STATUS_USAGE,
				 "'%s' is no name; use letters, digits, '_', and after the first also '.' and '-'", arg->text);
	return run_copy(req->config.name, sizeof(req->config.name), arg->text, arg);
}

static int set_flag(struct run_request *req, const struct run_arg *arg, enum proto_flag flag)
{
	if (run_is_yes(arg))
		req->config.flags |= flag;
	else
		req->config.flags &= ~(uint32_t)flag;
	return 0;
}

static int set_debug_exit(struct run_request *req, const struct run_arg *arg)
{
	return set_flag(req, arg, PROTO_F_DEBUG_EXIT);
}

static int set_no_reboot(struct run_request *req, const struct run_arg *arg)
{
	return set_flag(req, arg, PROTO_F_NO_REBOOT);
}

static int set_no_balloon(struct run_request *req, const struct run_arg *arg)
{
	return set_flag(req, arg, PROTO_F_NO_BALLOON);
}

static int set_check(struct run_request *req, const struct run_arg *arg)
{
	return set_flag(req, arg, PROTO_F_CHECK);
}

static int set_detach(struct run_request *req, const struct run_arg *arg)
{
	req->detach = run_is_yes(arg);
	return 0;
}

static int set_stats(struct run_request *req, const struct run_arg *arg) { req->machine.stats = *arg; return 0; }

static int set_profile(struct run_request *req, const struct run_arg *arg)
{
	req->machine.profile = *arg;
	req->config.flags |= PROTO_F_PROFILE;
	return 0;
}

static int set_perf_map(struct run_request *req, const struct run_arg *arg)
{
	req->machine.perf_map = run_is_yes(arg);
	return 0;
}

/* Opens what a report goes to; an option that was not given has no text, an empty one stands for standard error. */
static int open_report(struct run_request *req, const struct run_arg *arg, enum proto_fd_role role)
{
	const char *path;

	if (!arg->text || !*arg->text)
		return 0;
	path = run_path(req, arg, arg->text, strlen(arg->text));
	return path ? run_open_output(req, arg, path, role)
		    : run_error(arg, STATUS_START, "out of memory; free some and try again");
}

static int finish(struct run_request *req)
{
	int ret = open_report(req, &req->machine.stats, PROTO_FD_STATS);

	return ret ? ret : open_report(req, &req->machine.profile, PROTO_FD_PROFILE);
}

static const struct run_option options[] = {
	{.name = "name", .value = "N", .set = set_name,
	 .help = "the machine's name (default: that of the file of -c, or vm-PID)"},
	{.name = "memory", .value = "SIZE", .set = set_memory,
	 .help = "guest memory: K, M or G; plain numbers are MiB (default 512M)"},
	{.name = "no-balloon", .set = set_no_balloon,
	 .help = "no memory balloon: what the guest does not use stays with it"},
	{.name = "cpus", .value = "N", .set = set_cpus, .help = "processors, 1 to 16 (default 1)"},
	{.name = "engine", .value = "NAME", .set = set_engine,
	 .help = "auto, bt, interp or lockstep (default auto); see `doppel check`"},
	{.name = "virtio-transport", .value = "T", .set = set_virtio_transport,
	 .help = "pci or mmio: where virtio devices are found (default pci)"},
	{.name = "debug-exit", .set = set_debug_exit, .help = "port 0xf4 ends the run with status (value << 1) | 1"},
	{.name = "no-reboot", .set = set_no_reboot, .help = "a reset ends the run instead of rebooting"},
	{.name = "stats", .value = "F", .set = set_stats, .help = "write statistics as JSON to F at the end"},
	{.name = "profile", .value = "F", .set = set_profile, .flags = RUN_OPTIONAL | RUN_EMPTY,
	 .help = "at the end, report to F where the time went (default: standard error)"},
	{.name = "perf-map", .set = set_perf_map, .flags = RUN_LINE_ONLY,
	 .help = "write /tmp/perf-PID.map, for perf(1) to name translated code"},
	{.name = "detach", .letter = 'd', .set = set_detach, .flags = RUN_LINE_ONLY,
	 .help = "return when the guest runs; `doppel console` reaches it"},
	{.name = "check", .letter = 'n', .set = set_check, .flags = RUN_LINE_ONLY,
	 .help = "check everything, run nothing"},
	{0},
};

const struct run_family run_machine_family = {"The machine", options, finish};
