/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Inside `doppel run`: what the options ask for, and supervising the machine's process.
 */
#ifndef CLI_RUN_H
#define CLI_RUN_H

#include "proto/proto.h"

/* The configuration under construction and the files that go with it (fds[i] has role config.role[i]). */
struct run_request {
	struct proto_config config;
	int fds[PROTO_MAX_FDS];
	const char *disk[PROTO_MAX_DISKS];    /* --disk values, as given */
};

/* run_options.c: fills *req from the command line and opens the files. 0 or an enum proto_status, the error printed. */
int run_parse(struct run_request *req, int argc, char **argv);

/* run_options.c: passes a descriptor along. */
void run_add_fd(struct run_request *req, int fd, enum proto_fd_role role);

/* run_disk.c: takes one --disk; opens them all. 0 or an enum proto_status, the error printed. */
int run_disk_add(struct run_request *req, const char *spec);
int run_disk_open(struct run_request *req);

/* run_supervise.c: starts doppel-vm, hands it the request, minds terminal and signals, returns the exit status. */
int run_supervise(struct run_request *req);

#endif
