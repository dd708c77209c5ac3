/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Where engines and devices meet: port and MMIO dispatch, interrupt lines, timers, and the device class.
 *
 * Locking: io->lock (a mutex) is held around every device callback: register access (taken by io_access), timer expiry
 * (taken by io_timers_run), host input (taken by the event loop). Devices therefore need no locks of their own.
 * Time: io_now() is nanoseconds of machine time: monotonic, starts at 0, stands still while the machine is paused.
 */
#ifndef IO_IO_H
#define IO_IO_H

#include <pthread.h>

#include "base/stats.h"
#include "base/types.h"
#include "mem/mem.h"

enum io_space { IO_PIO, IO_MMIO };

/* One handler type for ports and MMIO. off is relative to the range's base; size 1, 2, 4 or 8. The lock is held. */
struct io_handler {
	uint64_t (*read)(void *opaque, uint64_t off, unsigned size);
	void (*write)(void *opaque, uint64_t off, unsigned size, uint64_t val);
};

struct io_range {
	uint64_t base, len;
	const struct io_handler *handler;
	void *opaque;
};
#define IO_MAX_RANGES 128

struct io_timer {
	uint64_t deadline;              /* io_now() units; UINT64_MAX = not armed */
	void (*expire)(void *opaque, uint64_t now);
	void *opaque;
	unsigned owner;                 /* CPU index + 1 of the CPU it belongs to (whose thread serves it in HLT); 0 = nobody's */
	struct io_timer *next;          /* registered list */
};

/* Sink of an interrupt line (PIC, I/O APIC): level changes of a GSI. Called with the lock held. */
struct io_irq_sink {
	void (*set)(void *opaque, unsigned gsi, bool level);
	void *opaque;
};
#define IO_MAX_IRQ_SINKS 2

/* A local interrupt controller, registered by the LAPIC; called with the lock held. cpu = index. */
struct io_lapic_ops {
	bool (*pending)(void *opaque, unsigned cpu);           /* a vector above the processor priority, or ExtINT, waits */
	int (*ack)(void *opaque, unsigned cpu);                /* takes it: vector, or -1 if it vanished */
	int (*msr_read)(void *opaque, unsigned cpu, uint32_t msr, uint64_t *val);   /* APIC_BASE, 800h.., TSC_DEADLINE; -1 = #GP */
	int (*msr_write)(void *opaque, unsigned cpu, uint32_t msr, uint64_t val);
	uint64_t (*cr8_read)(void *opaque, unsigned cpu);
	void (*cr8_write)(void *opaque, unsigned cpu, uint64_t val);
	void (*msi)(void *opaque, uint64_t addr, uint32_t data);               /* message-signalled interrupt */
	void (*ipi)(void *opaque, unsigned from, uint32_t icr, uint32_t dest); /* as a write to ICR in x2APIC mode */
};
/* The 8259 pair as seen by the LAPIC (ExtINT): pending INTR output and INTA cycle. */
struct io_pic_ops {
	bool (*pending)(void *opaque);
	int (*ack)(void *opaque);
};

enum io_request { IO_REQ_POWEROFF, IO_REQ_RESET, IO_REQ_DEBUG_EXIT };

struct io {
	pthread_mutex_t lock;
	unsigned cpu;                                          /* lock held: whose access is being served */
	struct mem *mem;
	struct io_range range[2][IO_MAX_RANGES];               /* sorted by base */
	unsigned nranges[2];
	struct io_irq_sink sink[IO_MAX_IRQ_SINKS];
	unsigned nsinks;
	const struct io_lapic_ops *lapic; void *lapic_opaque;
	const struct io_pic_ops *pic; void *pic_opaque;
	struct io_timer *timers;
	/* Up-calls into vm/: set before any device is created. */
	void (*kick)(void *vm, unsigned cpu);                  /* interrupt state of cpu may have changed; any thread */
	void (*wake_timers)(void *vm, const struct io_timer *t); /* t was armed: whoever serves it may have to wake earlier */
	void (*request)(void *vm, enum io_request what, uint32_t arg);
	void *vm;
	uint64_t (*now)(void *vm);
	uint64_t (*guest_tsc)(void *vm, unsigned cpu);         /* current guest TSC; guest_tsc_khz its rate */
	uint64_t guest_tsc_khz;
	struct stats_registry registry;                        /* of the whole machine: devices add their sources in create() */
	struct { uint64_t pio, mmio, irqs, timers; } stats;
};

int io_init(struct io *io, struct mem *mem);
void io_fini(struct io *io);

/* -EEXIST on overlap, -ENOSPC on too many. Before the machine runs, or with the lock held. */
int io_register(struct io *io, enum io_space space, uint64_t base, uint64_t len, const struct io_handler *h, void *opaque);
void io_unregister(struct io *io, enum io_space space, uint64_t base);

/* Who has the address: the opaque pointer of its range, NULL if nobody has. Takes the lock. */
const void *io_owner(struct io *io, enum io_space space, uint64_t addr);

/* A guest's access on CPU number `cpu` (0 in the short forms); takes the lock. Unclaimed addresses read all ones and ignore writes (returns false). Accesses crossing
 * the end of a range are treated as unclaimed. */
bool io_read_by(struct io *io, unsigned cpu, enum io_space space, uint64_t addr, unsigned size, uint64_t *val);
bool io_write_by(struct io *io, unsigned cpu, enum io_space space, uint64_t addr, unsigned size, uint64_t val);
static inline bool io_read(struct io *io, enum io_space space, uint64_t addr, unsigned size, uint64_t *val)
{
	return io_read_by(io, 0, space, addr, size, val);
}
static inline bool io_write(struct io *io, enum io_space space, uint64_t addr, unsigned size, uint64_t val)
{
	return io_write_by(io, 0, space, addr, size, val);
}

/* Level of GSI 0..23; edge-triggered sources pulse. Lock held. */
void io_irq_set(struct io *io, unsigned gsi, bool level);

static inline uint64_t io_now(struct io *io) { return io->now(io->vm); }

void io_timer_register(struct io *io, struct io_timer *t);
void io_timer_unregister(struct io *io, struct io_timer *t);
void io_timer_arm(struct io *io, struct io_timer *t, uint64_t deadline);   /* lock held; re-arms */
void io_timer_cancel(struct io *io, struct io_timer *t);
/* Runs what is due (takes the lock); returns the next deadline or UINT64_MAX. */
uint64_t io_timers_run(struct io *io);

/* --- devices ------------------------------------------------------------------------------------------------- */

/* One walk over a device's state, field by field, serves save, load and dump (snap/ later). */
struct io_state {
	void (*field)(struct io_state *s, const char *name, void *p, size_t size);
};

struct device;
struct device_class {
	const char *name;
	/* Allocates, registers ranges; *out is the instance. config is the class's own struct (see the device's header), may be NULL. */
	int (*create)(struct io *io, const void *config, void **out);
	void (*reset)(void *dev);                               /* to power-on state */
	void (*state)(void *dev, struct io_state *s);           /* optional */
	void (*destroy)(void *dev);
};

#endif
