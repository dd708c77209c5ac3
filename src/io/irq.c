/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Interrupt lines: a level change of a GSI reaches every sink (PIC, I/O APIC), each of which knows what it makes of it.
 *
 * Locking: io->lock is held.
 */
#include "io/io.h"

void io_irq_set(struct io *io, unsigned gsi, bool level)
{
	io->stats.irqs += level;
	for (unsigned i = 0; i < io->nsinks; i++)
		io->sink[i].set(io->sink[i].opaque, gsi, level);
}
