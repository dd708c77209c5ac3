/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A machine without CPUs for device tests: a real struct io whose clock, TSC and up-calls the test controls. Everything
 * hangs off struct machine, so a test can run two at a time.
 */
#ifndef TESTS_UNIT_DEV_MACHINE_H
#define TESTS_UNIT_DEV_MACHINE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "dev/board.h"
#include "dev/platform/lapic.h"
#include "dev/platform/serial.h"

#define TSC_KHZ 2500000ull
#define WALL_START 1700000000ull /* 2023-11-14 22:13:20 UTC, a Tuesday */

struct machine {
	struct io io;
	struct board board;
	uint64_t now, kicks[8], requests[3], last_arg;
	unsigned nmis, inits, starts, start_vector, current;
	char out[256];
	size_t nout;
	unsigned rooms;
};

static inline void m_kick(void *vm, unsigned cpu) { ((struct machine *)vm)->kicks[cpu & 7]++; }
static inline void m_wake(void *vm, const struct io_timer *t) { (void)vm; (void)t; }
static inline uint64_t m_now(void *vm) { return ((struct machine *)vm)->now; }
static inline uint64_t m_wall(void *vm) { return WALL_START * NS_PER_SEC + ((struct machine *)vm)->now; }
static inline void m_nmi(void *vm, unsigned cpu) { (void)cpu; ((struct machine *)vm)->nmis++; }
static inline void m_init(void *vm, unsigned cpu) { (void)cpu; ((struct machine *)vm)->inits++; }
static inline unsigned m_current(void *vm) { return ((struct machine *)vm)->current; }
static inline void m_room(void *o) { ((struct machine *)o)->rooms++; }

static inline uint64_t m_tsc(void *vm, unsigned cpu)
{
	(void)cpu;
	return dev_scale(((struct machine *)vm)->now, TSC_KHZ, 1000000);
}

static inline void m_start(void *vm, unsigned cpu, uint8_t vector)
{
	(void)cpu;
	((struct machine *)vm)->starts++;
	((struct machine *)vm)->start_vector = vector;
}

static inline void m_request(void *vm, enum io_request what, uint32_t arg)
{
	((struct machine *)vm)->requests[what]++;
	((struct machine *)vm)->last_arg = arg;
}

static inline void m_put(void *o, const uint8_t *buf, size_t n)
{
	struct machine *m = o;

	for (size_t i = 0; i < n && m->nout < sizeof(m->out); i++)
		m->out[m->nout++] = buf[i];
}

static inline struct machine *m_create(unsigned ncpus)
{
	static const struct lapic_cpu_ops cpus = {.current = m_current, .nmi = m_nmi, .init = m_init, .start = m_start};
	static const struct chr_ops chr = {.put = m_put, .room = m_room};
	struct machine *m = calloc(1, sizeof(*m));
	struct board_config cfg = {.ncpus = ncpus,
				   .ram_below_4g = 512 << 20,
				   .serial = &chr,
				   .cpus = &cpus,
				   .wall_ns = m_wall,
				   .debug_exit = true};

	assert_non_null(m);
	assert_int_equal(io_init(&m->io, NULL), 0);
	cfg.serial_opaque = m;
	m->io.vm = m;
	m->io.kick = m_kick;
	m->io.wake_timers = m_wake;
	m->io.request = m_request;
	m->io.now = m_now;
	m->io.guest_tsc = m_tsc;
	m->io.guest_tsc_khz = TSC_KHZ;
	assert_int_equal(board_create(&m->io, &cfg, &m->board), 0);
	return m;
}

static inline void m_destroy(struct machine *m)
{
	board_destroy(&m->board);
	assert_null(m->io.timers);
	assert_int_equal(m->io.nranges[IO_PIO] + m->io.nranges[IO_MMIO] + m->io.nsinks, 0);
	io_fini(&m->io);
	free(m);
}

/* Moves time, serving timers at their deadlines (and `late` ns after them if asked). */
static inline void m_advance_late(struct machine *m, uint64_t ns, uint64_t late)
{
	uint64_t end = m->now + ns, next;

	for (unsigned i = 0; i < 10000000; i++) {
		next = io_timers_run(&m->io);
		if (next == UINT64_MAX || next + late > end)
			break;
		if (next + late > m->now)
			m->now = next + late;
	}
	m->now = end;
}

static inline void m_advance(struct machine *m, uint64_t ns) { m_advance_late(m, ns, 0); }

static inline uint8_t inb(struct machine *m, uint16_t port)
{
	uint64_t v;

	io_read(&m->io, IO_PIO, port, 1, &v);
	return v;
}

static inline uint32_t inl(struct machine *m, uint16_t port)
{
	uint64_t v;

	io_read(&m->io, IO_PIO, port, 4, &v);
	return v;
}

static inline void outb(struct machine *m, uint16_t port, uint8_t v) { io_write(&m->io, IO_PIO, port, 1, v); }
static inline void outw(struct machine *m, uint16_t port, uint16_t v) { io_write(&m->io, IO_PIO, port, 2, v); }
static inline void outl(struct machine *m, uint16_t port, uint32_t v) { io_write(&m->io, IO_PIO, port, 4, v); }

static inline uint32_t readl(struct machine *m, uint64_t addr)
{
	uint64_t v;

	io_read(&m->io, IO_MMIO, addr, 4, &v);
	return v;
}

static inline void writel(struct machine *m, uint64_t addr, uint32_t v) { io_write(&m->io, IO_MMIO, addr, 4, v); }

#define APIC(off) (LAPIC_DEFAULT_BASE + (off))
static inline bool m_pending(struct machine *m, unsigned cpu) { return m->io.lapic->pending(m->io.lapic_opaque, cpu); }
static inline int m_ack(struct machine *m, unsigned cpu) { return m->io.lapic->ack(m->io.lapic_opaque, cpu); }

static inline int m_wrmsr(struct machine *m, uint32_t msr, uint64_t v)
{
	return m->io.lapic->msr_write(m->io.lapic_opaque, m->current, msr, v);
}

static inline int m_rdmsr(struct machine *m, uint32_t msr, uint64_t *v)
{
	return m->io.lapic->msr_read(m->io.lapic_opaque, m->current, msr, v);
}

/* The usual initialisation: vectors 20h and 28h, everything unmasked. */
static inline void m_pic_init(struct machine *m, uint8_t icw4)
{
	outb(m, 0x20, 0x11);
	outb(m, 0x21, 0x20);
	outb(m, 0x21, 0x04);
	outb(m, 0x21, icw4);
	outb(m, 0xa0, 0x11);
	outb(m, 0xa1, 0x28);
	outb(m, 0xa1, 0x02);
	outb(m, 0xa1, icw4);
	outb(m, 0x21, 0);
	outb(m, 0xa1, 0);
}

#endif
