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
};

/* run_options.c: fills *req from the command line and opens the files. 0 or an enum proto_status, the error printed. */
int run_parse(struct run_request *req, int argc, char **argv);

/* run_supervise.c: starts doppel-vm, hands it the request, minds terminal and signals, returns the exit status. */
int run_supervise(struct run_request *req);

#endif
