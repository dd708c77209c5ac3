/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A small ISO 9660 image in memory: some files in the top folder, their real names as Rock Ridge has them.
 *
 * Written here because it is a page of code: the libraries that write such images are under the GPL, which this program is not,
 * and running a tool for it would put a dependency, a temporary file and a failure mode in front of every start.
 * Specification: ECMA-119; IEEE P1281 (SUSP) and P1282 (RRIP) for the names.
 */
#ifndef HOST_ISO9660_H
#define HOST_ISO9660_H

#include <stddef.h>
#include <stdint.h>

#define ISO9660_MAX_FILES 8
#define ISO9660_NAME_MAX 30

struct iso9660_file {
	const char *name;      /* at most ISO9660_NAME_MAX characters */
	const void *data;
	size_t size;           /* below 4 GiB */
};

/* Builds the image of at most ISO9660_MAX_FILES files; *image is the caller's to free. 0, -EINVAL or -ENOMEM. */
int iso9660_build(const char *volume, const struct iso9660_file *file, unsigned nfiles, uint8_t **image, size_t *size);

#endif
