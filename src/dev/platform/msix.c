/* SPDX-License-Identifier: Apache-2.0 */
/*
 * MSI-X table and pending bits.
 *
 * Invariant, locking, specification: see msix.h. The guest chooses address and data; the local APIC takes only what lies in its own
 * message window, so a message never becomes a memory write.
 */
#include "dev/platform/msix.h"

#include "dev/device.h"

#define ENTRY_MASKED 1u
#define ADDR_WRITABLE (~3ull) /* 6.8.2.6: dword aligned */

void msix_reset(struct msix *m)
{
	m->enabled = m->masked = m->blocked = false;
	for (unsigned i = 0; i < nitems(m->pending); i++)
		m->pending[i] = 0;
	for (unsigned i = 0; i < m->vectors; i++)
		m->table[i] = (struct msix_entry){.control = ENTRY_MASKED};
}

static bool msix_is_masked(const struct msix *m, unsigned vector)
{
	return m->masked || m->blocked || (m->table[vector].control & ENTRY_MASKED);
}

static void msix_send(struct msix *m, unsigned vector)
{
	const struct msix_entry *e = &m->table[vector];

	m->pending[vector / 64] &= ~BIT(vector % 64);
	if (m->io->lapic && m->io->lapic->msi)
		m->io->lapic->msi(m->io->lapic_opaque, e->addr, e->data);
}

void msix_trigger(struct msix *m, unsigned vector)
{
	if (!m->enabled || vector >= m->vectors)
		return;
	if (msix_is_masked(m, vector))
		m->pending[vector / 64] |= BIT(vector % 64);
	else
		msix_send(m, vector);
}

static void msix_retry(struct msix *m, unsigned vector)
{
	if (m->enabled && (m->pending[vector / 64] >> (vector % 64) & 1) && !msix_is_masked(m, vector))
		msix_send(m, vector);
}

void msix_control(struct msix *m, bool enabled, bool masked, bool blocked)
{
	m->enabled = enabled;
	m->masked = masked;
	m->blocked = blocked;
	for (unsigned i = 0; i < m->vectors; i++)
		msix_retry(m, i);
}

static uint32_t msix_dword(const struct msix *m, uint64_t off)
{
	uint64_t word = off - MSIX_PBA_OFFSET;
	const struct msix_entry *e;

	if (off >= MSIX_PBA_OFFSET)
		return word / 8 < nitems(m->pending) ? (uint32_t)(m->pending[word / 8] >> (word & 4) * 8) : 0;
	if (off / 16 >= m->vectors)
		return 0;
	e = &m->table[off / 16];
	switch (off & 12) {
	case 0:
		return (uint32_t)e->addr;
	case 4:
		return e->addr >> 32;
	case 8:
		return e->data;
	default:
		return e->control;
	}
}

static uint64_t msix_read(void *opaque, uint64_t off, unsigned size)
{
	uint64_t val = msix_dword(opaque, off & ~3ull);

	if (size == 8)
		val |= (uint64_t)msix_dword(opaque, (off & ~3ull) + 4) << 32;
	return val >> (off & 3) * 8;
}

static void msix_put(struct msix *m, uint64_t off, uint32_t val)
{
	struct msix_entry *e;

	if (off >= MSIX_PBA_OFFSET || off / 16 >= m->vectors)
		return; /* pending bits are read-only */
	e = &m->table[off / 16];
	switch (off & 12) {
	case 0:
		e->addr = ((e->addr & ~0xffffffffull) | val) & ADDR_WRITABLE;
		break;
	case 4:
		e->addr = (e->addr & 0xffffffff) | (uint64_t)val << 32;
		break;
	case 8:
		e->data = val;
		break;
	default:
		e->control = val & ENTRY_MASKED;
		msix_retry(m, (unsigned)(off / 16));
	}
}

static void msix_write(void *opaque, uint64_t off, unsigned size, uint64_t val)
{
	if ((off & 3) || size < 4)
		return; /* 6.8.2: dwords and aligned qwords, the rest is undefined */
	msix_put(opaque, off, (uint32_t)val);
	if (size == 8)
		msix_put(opaque, off + 4, (uint32_t)(val >> 32));
}

const struct io_handler msix_handler = {.read = msix_read, .write = msix_write};

void msix_state(struct msix *m, struct io_state *s)
{
	DEV_BOOL(s, m, enabled);
	DEV_BOOL(s, m, masked);
	DEV_BOOL(s, m, blocked);
	DEV_FIELD(s, m, table);
	DEV_FIELD(s, m, pending);
}
