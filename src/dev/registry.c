/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The table of the board's devices: what exists, where, in which order.
 *
 * Order matters: a row may refer to instances of earlier rows (the I/O APIC and the 8259s to the local APICs),
 * interrupt controllers come before interrupt sources, and reset and creation follow the table.
 * Locking: see board.h.
 */
#include "dev/board.h"

#include <errno.h>
#include <string.h>

#include "base/log.h"
#include "dev/platform/acpi.h"
#include "dev/platform/debugexit.h"
#include "dev/platform/i8042.h"
#include "dev/platform/ioapic.h"
#include "dev/platform/lapic.h"
#include "dev/platform/pci.h"
#include "dev/platform/pic.h"
#include "dev/platform/pit.h"
#include "dev/platform/rtc.h"
#include "dev/platform/serial.h"
#include "dev/virtio/mmio.h"
#include "dev/virtio/pci.h"

union device_config {
	struct lapic_config lapic;
	struct ioapic_config ioapic;
	struct pic_config pic;
	struct pit_config pit;
	struct rtc_config rtc;
	struct serial_config serial;
	struct acpi_config acpi;
	struct i8042_config i8042;
	struct debugexit_config debugexit;
};

/* Each fills in the device's own configuration; false = not on this board. */
typedef bool board_configure(const struct board *b, const struct board_config *cfg, union device_config *out);

static bool config_lapic(const struct board *b, const struct board_config *cfg, union device_config *out)
{
	(void)b;
	out->lapic = (struct lapic_config){.ncpus = cfg->ncpus, .cpus = cfg->cpus};
	return true;
}

static bool config_ioapic(const struct board *b, const struct board_config *cfg, union device_config *out)
{
	(void)cfg;
	out->ioapic = (struct ioapic_config){.base = IOAPIC_DEFAULT_BASE, .lapic = board_find(b, "lapic")};
	return true;
}

static bool config_pic(const struct board *b, const struct board_config *cfg, union device_config *out)
{
	(void)cfg;
	out->pic = (struct pic_config){
		.master = 0x20, .slave = 0xa0, .elcr = 0x4d0, .level = PCI_ISA_IRQS,
		.intr = lapic_lint0, .intr_opaque = board_find(b, "lapic")};
	return true;
}

static bool config_pit(const struct board *b, const struct board_config *cfg, union device_config *out)
{
	(void)b;
	(void)cfg;
	out->pit = (struct pit_config){.base = 0x40, .speaker = 0x61, .irq = 0};
	return true;
}

static bool config_rtc(const struct board *b, const struct board_config *cfg, union device_config *out)
{
	(void)b;
	out->rtc = (struct rtc_config){.base = BOARD_RTC_PORT, .irq = BOARD_RTC_IRQ, .ram_below_4g = cfg->ram_below_4g,
				       .ram_above_4g = cfg->ram_above_4g, .wall_ns = cfg->wall_ns};
	return true;
}

static bool config_serial0(const struct board *b, const struct board_config *cfg, union device_config *out)
{
	(void)b;
	out->serial = (struct serial_config){
		.base = BOARD_COM1_PORT, .irq = BOARD_COM1_IRQ, .chr = cfg->serial, .chr_opaque = cfg->serial_opaque};
	return true;
}

static bool config_acpi(const struct board *b, const struct board_config *cfg, union device_config *out)
{
	(void)b;
	(void)cfg;
	out->acpi = (struct acpi_config){.base = ACPI_PM_BASE, .irq = ACPI_SCI_IRQ};
	return true;
}

static bool config_i8042(const struct board *b, const struct board_config *cfg, union device_config *out)
{
	(void)b;
	(void)cfg;
	out->i8042 = (struct i8042_config){.data = 0x60, .command = 0x64, .port_a = 0x92};
	return true;
}

static bool config_debugexit(const struct board *b, const struct board_config *cfg, union device_config *out)
{
	(void)b;
	out->debugexit = (struct debugexit_config){.base = BOARD_DEBUG_EXIT_PORT};
	return cfg->debug_exit;
}

static const struct board_row {
	const char *name;
	const struct device_class *class;
	board_configure *configure; /* NULL: the class needs none */
} board_rows[] = {
	{"lapic", &lapic_class, config_lapic},             /* MMIO FEE00000 */
	{"ioapic", &ioapic_class, config_ioapic},          /* MMIO FEC00000 */
	{"pic", &pic_class, config_pic},                   /* 20, A0, 4D0 */
	{"pit", &pit_class, config_pit},                   /* 40, 61; IRQ 0 */
	{"rtc", &rtc_class, config_rtc},                   /* 70; IRQ 8 */
	{"serial0", &serial_class, config_serial0},        /* 3F8; IRQ 4 */
	{"acpi", &acpi_class, config_acpi},                /* 600; IRQ 9 */
	{"pci", &pci_class, NULL},                         /* CF8 */
	{"i8042", &i8042_class, config_i8042},             /* 60, 64, 92 */
	{"debugexit", &debugexit_class, config_debugexit}, /* F4, on request */
};
static_assert(nitems(board_rows) <= BOARD_MAX_DEVICES, "board table");

void *board_find(const struct board *b, const char *name)
{
	for (unsigned i = 0; i < b->ndevices; i++)
		if (!strcmp(b->device[i].name, name))
			return b->device[i].inst;
	return NULL;
}

int board_create(struct io *io, const struct board_config *cfg, struct board *out)
{
	*out = (struct board){.io = io};
	for (unsigned i = 0; i < nitems(board_rows); i++) {
		const struct board_row *row = &board_rows[i];
		struct device *dev = &out->device[out->ndevices];
		union device_config config;
		int r;

		memset(&config, 0, sizeof(config));
		if (row->configure && !row->configure(out, cfg, &config))
			continue;
		*dev = (struct device){.class = row->class, .name = row->name};
		r = row->class->create(io, &config, &dev->inst);
		if (r) {
			log_error("cannot create device %s: %s", row->name, strerror(-r));
			board_destroy(out);
			return r;
		}
		out->ndevices++;
	}
	return 0;
}

int board_add_virtio(struct board *b, const char *name, struct virtio_dev *dev, enum board_transport transport)
{
	const struct virtio_pci_config pci = {.dev = dev, .bus = board_find(b, "pci")};
	const struct virtio_mmio_config mmio = {.dev = dev, .bus = pci.bus, .place = b->virtio_mmio};
	struct device d = {.class = transport == BOARD_VIRTIO_ON_PCI ? &virtio_pci_class : &virtio_mmio_class, .name = name};
	int err = b->ndevices < BOARD_MAX_DEVICES ? 0 : -ENOSPC;

	if (!err)
		err = d.class->create(b->io, transport == BOARD_VIRTIO_ON_PCI ? (const void *)&pci : &mmio, &d.inst);
	if (err) {
		dev->ops->destroy(dev);
		return err;
	}
	b->device[b->ndevices++] = d;
	b->virtio_mmio += transport == BOARD_VIRTIO_ON_MMIO;
	return 0;
}

void board_reset(struct board *b)
{
	for (unsigned i = 0; i < b->ndevices; i++)
		b->device[i].class->reset(b->device[i].inst);
}

void board_destroy(struct board *b)
{
	while (b->ndevices) {
		struct device *dev = &b->device[--b->ndevices];

		dev->class->destroy(dev->inst);
	}
}

void board_state(struct board *b, struct io_state *s)
{
	for (unsigned i = 0; i < b->ndevices; i++)
		if (b->device[i].class->state)
			b->device[i].class->state(b->device[i].inst, s);
}
