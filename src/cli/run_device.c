/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The option family of the devices that connect guest and host besides disks and network. Invariant and rules: run.h.
 */
#include "cli/run.h"

static int finish(struct run_request *req)
{
	int ret = run_share_finish(req);

	return ret ? ret : run_vsock_finish(req);
}

static const struct run_option options[] = {
	{.name = "share", .value = "DIR,OPTS", .set = run_share_set, .flags = RUN_REPEATS,
	 .help = "a folder that the guest mounts with `mount -t virtiofs T ...`;\n"
		 "repeatable. OPTS: tag=T, readonly=on"},
	{.name = "vsock", .value = "cid=N,path=P", .set = run_vsock_set,
	 .help = "stream sockets between guest and host: programs reach the guest through\n"
		 "the unix socket P, the guest's port N reaches the socket P_N"},
	{0},
};

const struct run_family run_device_family = {"Folders and sockets", options, finish};
