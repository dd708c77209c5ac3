/* SPDX-License-Identifier: Apache-2.0 */
/* Inside of the local APIC model: state, and the calls between its three files. */
#ifndef DEV_PLATFORM_LAPIC_PRIVATE_H
#define DEV_PLATFORM_LAPIC_PRIVATE_H

#include "dev/device.h"
#include "dev/platform/lapic.h"

/* Register offsets (SDM vol. 3A table 10-1); x2APIC MSR = 800h + offset / 16. */
enum lapic_reg {
	APIC_ID = 0x020, APIC_VERSION = 0x030, APIC_TPR = 0x080, APIC_APR = 0x090, APIC_PPR = 0x0a0, APIC_EOI = 0x0b0,
	APIC_RRD = 0x0c0, APIC_LDR = 0x0d0, APIC_DFR = 0x0e0, APIC_SVR = 0x0f0, APIC_ISR = 0x100, APIC_TMR = 0x180,
	APIC_IRR = 0x200, APIC_ESR = 0x280, APIC_ICR = 0x300, APIC_ICR2 = 0x310, APIC_LVT = 0x320, APIC_TMICT = 0x380,
	APIC_TMCCT = 0x390, APIC_TDCR = 0x3e0, APIC_SELF_IPI = 0x3f0,
};

/* Local vector table in register order from 320h. */
enum lapic_lvt { LVT_TIMER, LVT_THERMAL, LVT_PERF, LVT_LINT0, LVT_LINT1, LVT_ERROR, LVT_COUNT };
#define LVT_MASKED 0x10000u
enum lapic_timer_mode { TIMER_ONESHOT = 0, TIMER_PERIODIC = 1, TIMER_DEADLINE = 2 };

/* Delivery modes (10.5.1, 10.6.1). */
enum lapic_dlm { DLM_FIXED, DLM_LOWEST, DLM_SMI, DLM_RESERVED, DLM_NMI, DLM_INIT, DLM_SIPI, DLM_EXTINT };

#define SVR_ENABLE 0x100u
#define ESR_SEND_VECTOR 0x20u
#define ESR_RECV_VECTOR 0x40u
#define ESR_REGISTER 0x80u

#define BASE_BSP BIT(8)
#define BASE_X2 BIT(10)
#define BASE_EN BIT(11)
#define BASE_MODE (BASE_X2 | BASE_EN)

struct lapic;

struct lapic_cpu {
	struct lapic *l;
	unsigned index;
	uint64_t base;                    /* IA32_APIC_BASE */
	uint32_t id;                      /* xAPIC ID as written; x2APIC mode shows the index */
	uint32_t tpr, ldr, dfr, svr, icr, icr2;
	uint32_t esr, esr_pending;        /* as latched by the last write; collected since */
	uint32_t lvt[LVT_COUNT];
	uint32_t isr[8], irr[8], tmr[8];
	bool extint;                      /* an ExtINT message arrived over the bus */
	/* lapic_timer.c */
	struct io_timer timer;
	uint32_t timer_init, timer_divide;
	uint64_t timer_start;             /* machine time at which timer_init began to count down */
	uint64_t tsc_deadline;            /* 0 = not armed */
};

struct lapic {
	struct io *io;
	struct lapic_config cfg;
	uint64_t mmio_base;               /* where the page is registered; 0 = nowhere */
	bool lint0;
	void (*eoi)(void *opaque, uint8_t vector);
	void *eoi_opaque;
	struct lapic_cpu cpu[];
};

/* lapic.c */
void lapic_accept(struct lapic_cpu *c, uint8_t vector, bool level);
void lapic_lvt_fire(struct lapic_cpu *c, enum lapic_lvt which);
void lapic_error(struct lapic_cpu *c, uint32_t bit);
void lapic_recheck(struct lapic_cpu *c);
uint8_t lapic_ppr(const struct lapic_cpu *c);
void lapic_end_of_interrupt(struct lapic_cpu *c);
void lapic_send_ipi(struct lapic_cpu *c, uint32_t icr, uint32_t dest);
void lapic_cpu_init(struct lapic_cpu *c);
static inline bool lapic_enabled(const struct lapic_cpu *c) { return c->base & BASE_EN; }
static inline bool lapic_x2(const struct lapic_cpu *c) { return (c->base & BASE_MODE) == BASE_MODE; }

/* lapic_regs.c */
extern const struct io_handler lapic_mmio_handler;
void lapic_move_page(struct lapic *l, uint64_t base); /* 0: nowhere */
int lapic_msr_read(void *opaque, unsigned cpu, uint32_t msr, uint64_t *val);
int lapic_msr_write(void *opaque, unsigned cpu, uint32_t msr, uint64_t val);

/* lapic_timer.c: the timer counts at 1 GHz before division. */
void lapic_timer_setup(struct lapic_cpu *c);
void lapic_timer_stop(struct lapic_cpu *c);
uint32_t lapic_timer_count(const struct lapic_cpu *c);
void lapic_timer_write_init(struct lapic_cpu *c, uint32_t val);
void lapic_timer_write_divide(struct lapic_cpu *c, uint32_t val);
void lapic_timer_write_lvt(struct lapic_cpu *c, uint32_t val);
void lapic_timer_write_deadline(struct lapic_cpu *c, uint64_t tsc);

#endif
