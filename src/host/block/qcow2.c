/* SPDX-License-Identifier: Apache-2.0 */
/*
 * qcow2 images as disks.
 */
#include <errno.h>

#include "host/block/private.h"
#include "host/block/qcow2.h"

int qcow2_open(struct block_node **n, const struct block_file *file, struct block_node *below, unsigned flags,
	       struct block_error *err)
{
	(void)n;
	(void)file;
	(void)below;
	(void)flags;
	return block_fail(err, -ENOTSUP, "qcow2 is not supported yet; convert it with qemu-img convert -O raw");
}
