/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Where the things installed with doppel are: always relative to the running binary, so that a build tree and an installation
 * under any prefix both work without a configured path.
 */
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/types.h"
#include "cli/cli.h"

static int binary_dir(char *buf, size_t size)
{
	ssize_t n = readlink("/proc/self/exe", buf, size - 1);
	char *slash;

	if (n <= 0)
		return -ENOENT;
	buf[n] = 0;
	slash = strrchr(buf, '/');
	if (!slash)
		return -ENOENT;
	*slash = 0;
	return 0;
}

int cli_find(const char *const places[], char *buf, size_t size)
{
	char dir[PATH_MAX];

	if (binary_dir(dir, sizeof(dir)) < 0)
		snprintf(dir, sizeof(dir), ".");
	for (size_t i = 0; places[i]; i++) {
		int n = snprintf(buf, size, "%s/%s", dir, places[i]);

		if (n > 0 && (size_t)n < size && access(buf, R_OK) == 0)
			return 0;
	}
	snprintf(buf, size, "%s/%s", dir, places[0]);
	return -ENOENT;
}

int cli_find_vm(char *buf, size_t size)
{
	static const char *const places[] = {"doppel-vm", "../libexec/doppel/doppel-vm", "../lib/doppel/doppel-vm", NULL};

	return cli_find(places, buf, size);
}
