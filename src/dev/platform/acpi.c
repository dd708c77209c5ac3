/* SPDX-License-Identifier: Apache-2.0 */
/*
 * ACPI fixed hardware: power button, sleep request, PM timer, SCI. Not hardware-reduced; there is no SMI command port,
 * so the machine is always in ACPI mode and SCI_EN reads 1.
 *
 * Invariant: SCI line == (PM1_STS & PM1_EN) has a bit of the events that exist.
 * Locking: io->lock. Spec: ACPI 6.3, 4.8.3 (fixed registers) and 4.8.2.1 (timer).
 */
#include "dev/platform/acpi.h"

#include <errno.h>
#include <stdlib.h>

#include "dev/device.h"

enum { OFF_STS = 0, OFF_EN = 2, OFF_CNT = 4, OFF_TMR = 8 };
enum { PM1_TMR = 0x0001, PM1_GBL = 0x0020, PM1_PWRBTN = 0x0100, PM1_WAK = 0x8000 };
#define PM1_EVENTS (PM1_TMR | PM1_GBL | PM1_PWRBTN)
enum { CNT_SCI_EN = 0x0001, CNT_KEPT = 0x1c03, CNT_TYPE_SHIFT = 10, CNT_SLP_EN = 0x2000 };

struct acpi {
	struct io *io;
	struct acpi_config cfg;
	struct io_timer timer;
	uint16_t sts, en, cnt;
	uint64_t seen_half; /* how often bit 31 of the timer had changed when TMR_STS was last brought up to date */
};

static uint64_t acpi_ticks(const struct acpi *d)
{
	return dev_scale(io_now(d->io), ACPI_TIMER_HZ, NS_PER_SEC);
}

/* TMR_STS is set whenever the highest bit of the counter changes. */
static void acpi_settle(struct acpi *d)
{
	uint64_t half = acpi_ticks(d) >> 31;

	if (half != d->seen_half)
		d->sts |= PM1_TMR;
	d->seen_half = half;
	io_irq_set(d->io, d->cfg.irq, d->sts & d->en & PM1_EVENTS);
	if ((d->en & PM1_TMR) && !(d->sts & PM1_TMR))
		io_timer_arm(d->io, &d->timer, dev_scale_up((half + 1) << 31, NS_PER_SEC, ACPI_TIMER_HZ));
	else
		io_timer_cancel(d->io, &d->timer);
}

static void acpi_expire(void *opaque, uint64_t now)
{
	(void)now;
	acpi_settle(opaque);
}

void acpi_power_button(void *dev)
{
	struct acpi *d = dev;

	d->sts |= PM1_PWRBTN;
	acpi_settle(d);
}

static void acpi_write_cnt(struct acpi *d, uint16_t val)
{
	d->cnt = (val & CNT_KEPT) | CNT_SCI_EN;
	/* The only sleep state besides S0 is S5; others are not described and so not entered. */
	if ((val & CNT_SLP_EN) && (val >> CNT_TYPE_SHIFT & 7) == ACPI_S5_TYPE)
		d->io->request(d->io->vm, IO_REQ_POWEROFF, 0);
}

/* The registers side by side, as bytes; the timer is sampled once an access. */
static uint64_t acpi_read(void *opaque, uint64_t off, unsigned size)
{
	struct acpi *d = opaque;
	uint64_t image[2], val = 0;

	acpi_settle(d);
	image[0] = d->sts | (uint64_t)d->en << 16 | (uint64_t)d->cnt << 32;
	image[1] = (uint32_t)acpi_ticks(d);
	for (unsigned i = 0; i < size && i < 8; i++)
		if (off + i < 16)
			val |= (image[(off + i) / 8] >> ((off + i) % 8 * 8) & 0xff) << (8 * i);
	return val;
}

/* `val` bits under `mask` are being written to the 16-bit register at `reg`. */
static void acpi_write_reg(struct acpi *d, unsigned reg, uint16_t val, uint16_t mask)
{
	switch (reg) {
	case OFF_STS: /* write one to clear */
		d->sts &= ~(val & mask & (PM1_EVENTS | PM1_WAK));
		break;
	case OFF_EN:
		/* All enable bits are kept, also those of events that never happen: Linux writes RTC_EN and reports an
		 * error if it does not read back. */
		d->en = (d->en & ~mask) | (val & mask);
		break;
	case OFF_CNT:
		acpi_write_cnt(d, (d->cnt & ~mask) | (val & mask));
		break;
	}
}

static void acpi_write(void *opaque, uint64_t off, unsigned size, uint64_t val)
{
	struct acpi *d = opaque;

	acpi_settle(d);
	for (unsigned reg = 0; reg < OFF_TMR; reg += 2) {
		uint16_t bits = 0, mask = 0;

		for (unsigned i = 0; i < size && i < 8; i++) {
			unsigned at = off + i;

			if ((at & ~1u) != reg)
				continue;
			bits |= (val >> (8 * i) & 0xff) << (8 * (at & 1));
			mask |= 0xff << (8 * (at & 1));
		}
		if (mask)
			acpi_write_reg(d, reg, bits, mask);
	}
	acpi_settle(d);
}

static const struct io_handler acpi_handler = {.read = acpi_read, .write = acpi_write};

static void acpi_reset(void *dev)
{
	struct acpi *d = dev;

	d->sts = d->en = 0;
	d->cnt = CNT_SCI_EN;
	d->seen_half = acpi_ticks(d) >> 31;
	acpi_settle(d);
}

static int acpi_create(struct io *io, const void *config, void **out)
{
	struct acpi *d = calloc(1, sizeof(*d));
	int r;

	if (!d)
		return -ENOMEM;
	d->io = io;
	d->cfg = *(const struct acpi_config *)config;
	r = io_register(io, IO_PIO, d->cfg.base, ACPI_PM_LEN, &acpi_handler, d);
	if (r) {
		free(d);
		return r;
	}
	d->timer = (struct io_timer){.deadline = UINT64_MAX, .expire = acpi_expire, .opaque = d};
	io_timer_register(io, &d->timer);
	acpi_reset(d);
	*out = d;
	return 0;
}

static void acpi_state(void *dev, struct io_state *s)
{
	struct acpi *d = dev;

	DEV_FIELD(s, d, sts);
	DEV_FIELD(s, d, en);
	DEV_FIELD(s, d, cnt);
	DEV_FIELD(s, d, seen_half);
	DEV_FIELD(s, d, timer.deadline);
}

static void acpi_destroy(void *dev)
{
	struct acpi *d = dev;

	io_timer_unregister(d->io, &d->timer);
	io_unregister(d->io, IO_PIO, d->cfg.base);
	free(d);
}

const struct device_class acpi_class = {
	.name = "acpi",
	.create = acpi_create,
	.reset = acpi_reset,
	.state = acpi_state,
	.destroy = acpi_destroy,
};
