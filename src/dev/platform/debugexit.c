/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Debug exit device at port F4h, present only on request (--debug-exit). No state.
 * Locking: io->lock.
 */
#include "dev/platform/debugexit.h"

#include <errno.h>
#include <stdlib.h>

#include "dev/device.h"

struct debugexit {
	struct io *io;
	struct debugexit_config cfg;
};

static uint64_t debugexit_read(void *opaque, uint64_t off, unsigned size)
{
	(void)opaque;
	(void)off;
	(void)size;
	return 0;
}

static void debugexit_write(void *opaque, uint64_t off, unsigned size, uint64_t val)
{
	struct debugexit *d = opaque;

	(void)off;
	d->io->request(d->io->vm, IO_REQ_DEBUG_EXIT, size < 4 ? val & (BIT(8 * size) - 1) : val);
}

static const struct io_handler debugexit_handler = {.read = debugexit_read, .write = debugexit_write};

static void debugexit_reset(void *dev)
{
	(void)dev;
}

static int debugexit_create(struct io *io, const void *config, void **out)
{
	struct debugexit *d = calloc(1, sizeof(*d));
	int r;

	if (!d)
		return -ENOMEM;
	d->io = io;
	d->cfg = *(const struct debugexit_config *)config;
	r = io_register(io, IO_PIO, d->cfg.base, 4, &debugexit_handler, d);
	if (r) {
		free(d);
		return r;
	}
	*out = d;
	return 0;
}

static void debugexit_destroy(void *dev)
{
	struct debugexit *d = dev;

	io_unregister(d->io, IO_PIO, d->cfg.base);
	free(d);
}

const struct device_class debugexit_class = {
	.name = "debugexit",
	.create = debugexit_create,
	.reset = debugexit_reset,
	.destroy = debugexit_destroy,
};
