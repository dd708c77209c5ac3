/* SPDX-License-Identifier: Apache-2.0 */
/*
 * MSI-X: a table of message addresses and data with masks, and the pending bits, in one page of a memory BAR.
 *
 *   page + 000h  table, 16 bytes a vector: address (64) | data (32) | vector control (bit 0 masks)
 *   page + 800h  pending bit array
 *
 * Invariant: a vector that is pending is masked (itself, or by the function mask, or not enabled); a message is sent exactly when one
 * is triggered, or becomes unmasked while pending.
 * Locking: io->lock. Spec: PCI Local Bus 3.0, 6.8.2.
 */
#ifndef DEV_PLATFORM_MSIX_H
#define DEV_PLATFORM_MSIX_H

#include "io/io.h"

#define MSIX_MAX_VECTORS 128
#define MSIX_PBA_OFFSET 0x800
#define MSIX_PAGE 0x1000

struct msix_entry {
	uint64_t addr;
	uint32_t data;
	uint32_t control;
};

struct msix {
	struct io *io;
	unsigned vectors;
	bool enabled, masked;   /* the function's, from its message control register */
	bool blocked;           /* bus mastering is off: nothing may be sent */
	struct msix_entry table[MSIX_MAX_VECTORS];
	uint64_t pending[MSIX_MAX_VECTORS / 64];
};

/* The BAR's handler; opaque is the struct msix. */
extern const struct io_handler msix_handler;

void msix_reset(struct msix *m);
/* Sends the vector's message, or remembers it. Vectors that do not exist are ignored, as is everything while MSI-X is disabled. */
void msix_trigger(struct msix *m, unsigned vector);
/* New values of the function's bits: sends what waited. */
void msix_control(struct msix *m, bool enabled, bool masked, bool blocked);
void msix_state(struct msix *m, struct io_state *s);

#endif
