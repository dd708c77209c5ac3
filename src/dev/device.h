/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What every device model shares: the instance record, the field macros of the state() walk, byte-wide register files
 * behind wider accesses, and exact conversions between nanoseconds and device clocks.
 *
 * Invariant: device clocks are functions of io_now(): a tick count is always computed from absolute machine time and
 * never accumulated, so periodic sources do not drift however late they are served.
 */
#ifndef DEV_DEVICE_H
#define DEV_DEVICE_H

#include "base/types.h"
#include "io/io.h"

/* One device on a board. */
struct device {
	const struct device_class *class;
	const char *name;
	void *inst;
};

/* One member of *d in a state() walk; arrays and scalars alike. */
#define DEV_FIELD(s, d, member) ((s)->field((s), #member, &(d)->member, sizeof((d)->member)))

/* A bool: what a forged stream holds may be neither true nor false, and must not be looked at as if it were. */
static inline void dev_field_bool(struct io_state *s, const char *name, bool *p)
{
	uint8_t byte = *p;

	s->field(s, name, &byte, sizeof(byte));
	*p = byte & 1;
}
#define DEV_BOOL(s, d, member) dev_field_bool((s), #member, &(d)->member)

#define NS_PER_SEC 1000000000ull

/* v * mul / div without overflow in between, rounded down or up. */
static inline uint64_t dev_scale(uint64_t v, uint64_t mul, uint64_t div)
{
	return (uint64_t)((unsigned __int128)v * mul / div);
}

static inline uint64_t dev_scale_up(uint64_t v, uint64_t mul, uint64_t div)
{
	return (uint64_t)(((unsigned __int128)v * mul + div - 1) / div);
}

/* An interrupt controller joins or leaves the sinks of io_irq_set(). The caller has checked for room. */
static inline void dev_sink_add(struct io *io, void (*set)(void *opaque, unsigned gsi, bool level), void *d)
{
	io->sink[io->nsinks++] = (struct io_irq_sink){.set = set, .opaque = d};
}

static inline void dev_sink_remove(struct io *io, void *d)
{
	unsigned kept = 0;

	for (unsigned i = 0; i < io->nsinks; i++)
		if (io->sink[i].opaque != d)
			io->sink[kept++] = io->sink[i];
	io->nsinks = kept;
}

/* ISA devices are eight bits wide: the bus turns a wider access into byte cycles at ascending addresses. */
static inline uint64_t dev_read_bytes(uint8_t (*get)(void *d, uint64_t off), void *d, uint64_t off, unsigned size)
{
	uint64_t val = 0;

	for (unsigned i = 0; i < size && i < 8; i++)
		val |= (uint64_t)get(d, off + i) << (8 * i);
	return val;
}

static inline void dev_write_bytes(void (*put)(void *d, uint64_t off, uint8_t val), void *d, uint64_t off,
				   unsigned size, uint64_t val)
{
	for (unsigned i = 0; i < size && i < 8; i++)
		put(d, off + i, (uint8_t)(val >> (8 * i)));
}

#endif
