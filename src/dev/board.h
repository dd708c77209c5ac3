/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The board: all devices of a machine, created from one ordered table (registry.c).
 *
 * Locking: create and destroy while nothing runs; reset and find with io->lock held or while nothing runs.
 */
#ifndef DEV_BOARD_H
#define DEV_BOARD_H

#include "dev/device.h"

struct chr_ops;
struct lapic_cpu_ops;
struct virtio_dev;

/* Addresses other parts need to know: the ACPI tables, the memory map. */
#define BOARD_COM1_PORT 0x3f8
#define BOARD_COM1_IRQ 4
#define BOARD_RTC_PORT 0x70
#define BOARD_RTC_IRQ 8
#define BOARD_DEBUG_EXIT_PORT 0xf4
/* PCI memory window; RAM below 4 GiB ends at or before its base, and continues at 4 GiB. */
#define BOARD_PCI_BASE 0xc0000000u
#define BOARD_PCI_END 0xfec00000u
/* Places of the virtio-mmio transport: a page each, interrupt PCI_GSI(n). */
#define BOARD_VIRTIO_MMIO_SIZE 0x1000u
#define BOARD_VIRTIO_MMIO(n) (0xfec80000u + (n) * BOARD_VIRTIO_MMIO_SIZE)
#define BOARD_VIRTIO_MMIO_MAX 32

struct board_config {
	unsigned ncpus;
	uint64_t ram_below_4g, ram_above_4g;   /* bytes */
	const struct chr_ops *serial;          /* NULL: nothing connected */
	void *serial_opaque;
	const struct lapic_cpu_ops *cpus;      /* NMI, INIT, SIPI to CPUs; may be NULL */
	uint64_t (*wall_ns)(void *vm);         /* UTC for the RTC; NULL: the host's clock */
	bool debug_exit;
};

#define BOARD_MAX_DEVICES 64

struct board {
	struct io *io;
	unsigned ndevices;
	unsigned virtio_mmio;                  /* places of that transport in use */
	struct device device[BOARD_MAX_DEVICES];
};

/* Creates every device of the table in order; on failure those already created are destroyed and -errno returned. The
 * io is one whose up-calls (now, kick, request, ...) are set. */
int board_create(struct io *io, const struct board_config *cfg, struct board *out);
enum board_transport { BOARD_VIRTIO_ON_PCI, BOARD_VIRTIO_ON_MMIO };
/* Puts a virtio device into the next free PCI slot or virtio-mmio place: in the order of the calls, so the same configuration gives the
 * same addresses. `name` must outlive the board. The device is the board's from here on, destroyed on failure. 0, -ENOSPC, -ENOMEM. */
int board_add_virtio(struct board *b, const char *name, struct virtio_dev *dev, enum board_transport transport);
/* Machine reset: every device to power-on state. */
void board_reset(struct board *b);
/* In reverse order. The io may not be used any more except for io_fini(). */
void board_destroy(struct board *b);
/* Instance by name ("serial0", "acpi", "lapic", ...), NULL if there is none. */
void *board_find(const struct board *b, const char *name);
/* Walks the state of all devices. */
void board_state(struct board *b, struct io_state *s);

#endif
