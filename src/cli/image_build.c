/* SPDX-License-Identifier: Apache-2.0 */
/*
 * doppel image build: makes a disk image of a whole system out of its distribution's packages.
 *
 * The work is that of other programs (mmdebstrap, mke2fs, sfdisk), so it is a shell script for each system, which this process
 * becomes; the script gets the rest of the command line and, in DOPPEL, the way back to us for what only doppel does.
 */
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "base/types.h"
#include "cli/cli.h"
#include "proto/status.h"

static const struct {
	const char *name;
	const char *places[3];
} systems[] = {
	{"debian", {"../guest/debian/build", "../libexec/doppel/debian/build", NULL}},
};

int image_build(int argc, char **argv)
{
	char path[PATH_MAX], self[PATH_MAX];
	ssize_t n = readlink("/proc/self/exe", self, sizeof(self) - 1);
	size_t i = 0;

	if (argc < 2 || !strcmp(argv[1], "--help")) {
		puts("usage: doppel image build SYSTEM [OPTIONS]\n\nSYSTEM is debian; `doppel image build debian --help` has its options.");
		return argc < 2 ? STATUS_USAGE : STATUS_POWEROFF;
	}
	while (i < nitems(systems) && strcmp(argv[1], systems[i].name))
		i++;
	if (i == nitems(systems)) {
		log_error("there is no recipe for '%s'; `doppel image build --help` lists them", argv[1]);
		return STATUS_USAGE;
	}
	if (cli_find(systems[i].places, path, sizeof(path)) < 0 || n < 0) {
		log_error("%s is missing; build or install doppel again (`make`)", path);
		return STATUS_START;
	}
	self[n] = 0;
	setenv("DOPPEL", self, 1);
	argv[1] = path;
	execv(path, argv + 1);
	log_error("cannot run %s: %s; build or install doppel again (`make`)", path, strerror(errno));
	return STATUS_START;
}
