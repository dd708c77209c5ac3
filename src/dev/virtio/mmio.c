/* SPDX-License-Identifier: Apache-2.0 */
/*
 * virtio over MMIO, version 2: a page of registers and a level-triggered interrupt.
 *
 * The DSDT announces the places in use as LNRO0005. A kernel without ACPI is told on its command line:
 * virtio_mmio.device=4K@0xfec80000:10 (places count up by a page; the interrupt is 10 for even ones, 11 for odd ones).
 *
 * Invariant: registers are 32 bits wide and answer only aligned 32-bit accesses; configuration space (100h) takes any size. A
 * queue's size and addresses change only while it is not ready.
 * Locking: io->lock. Spec: virtio 1.2, 4.2.
 */
#include "dev/virtio/mmio.h"

#include <errno.h>
#include <linux/virtio_mmio.h>
#include <stdlib.h>

#include "dev/board.h"
#include "dev/platform/pci.h"

#define MMIO_MAGIC 0x74726976u /* "virt" */
#define MMIO_VENDOR 0x4c504f44u /* "DOPL" */
#define MMIO_VERSION 2

struct virtio_mmio {
	struct io *io;
	struct virtio_dev *dev;
	void *bus;
	unsigned place;
	uint32_t offered_select, accepted_select, queue_select;
	uint32_t isr;
	bool line;
};

static void set_isr(struct virtio_mmio *t, uint32_t isr)
{
	t->isr = isr;
	if (t->line == !!isr)
		return;
	t->line = !!isr;
	pci_set_intx(t->bus, (uint8_t)(t->place << 3), t->line);
}

static void signal_queue(void *opaque, unsigned queue)
{
	struct virtio_mmio *t = opaque;

	(void)queue;
	set_isr(t, t->isr | VIRTIO_MMIO_INT_VRING);
}

static void signal_config(void *opaque)
{
	struct virtio_mmio *t = opaque;

	set_isr(t, t->isr | VIRTIO_MMIO_INT_CONFIG);
}

static const struct virtio_transport_ops transport_ops = {.signal = signal_queue, .config_changed = signal_config};

static uint32_t reg_read(struct virtio_mmio *t, unsigned reg)
{
	const struct virtqueue *q = virtio_queue(t->dev, t->queue_select);

	switch (reg) {
	case VIRTIO_MMIO_MAGIC_VALUE:
		return MMIO_MAGIC;
	case VIRTIO_MMIO_VERSION:
		return MMIO_VERSION;
	case VIRTIO_MMIO_DEVICE_ID:
		return t->dev->ops->id;
	case VIRTIO_MMIO_VENDOR_ID:
		return MMIO_VENDOR;
	case VIRTIO_MMIO_DEVICE_FEATURES:
		return virtio_offered(t->dev, t->offered_select);
	case VIRTIO_MMIO_QUEUE_NUM_MAX:
		return q ? q->size_max : 0;
	case VIRTIO_MMIO_QUEUE_READY:
		return q ? q->enabled : 0;
	case VIRTIO_MMIO_INTERRUPT_STATUS:
		return t->isr;
	case VIRTIO_MMIO_STATUS:
		return t->dev->status;
	case VIRTIO_MMIO_CONFIG_GENERATION:
		return t->dev->generation;
	case VIRTIO_MMIO_SHM_LEN_LOW:
	case VIRTIO_MMIO_SHM_LEN_HIGH:
	case VIRTIO_MMIO_SHM_BASE_LOW:
	case VIRTIO_MMIO_SHM_BASE_HIGH:
		return UINT32_MAX; /* 4.2.2: no such region */
	default:
		return 0;
	}
}

static uint64_t mmio_read(void *opaque, uint64_t off, unsigned size)
{
	struct virtio_mmio *t = opaque;

	if (off >= VIRTIO_MMIO_CONFIG)
		return virtio_config_read(t->dev, off - VIRTIO_MMIO_CONFIG, size);
	return (off & 3) || size != 4 ? 0 : reg_read(t, (unsigned)off);
}

static void put_half(gpa_t *at, bool high, uint32_t val)
{
	*at = high ? (*at & 0xffffffff) | (uint64_t)val << 32 : (*at & ~0xffffffffull) | val;
}

static void queue_write(struct virtio_mmio *t, unsigned reg, uint32_t val)
{
	struct virtqueue *q = virtio_queue(t->dev, t->queue_select);

	if (!q || q->enabled || t->dev->resetting)
		return; /* taking a ready queue back (QUEUE_READY 0) needs VIRTIO_F_RING_RESET, which is not offered */
	switch (reg) {
	case VIRTIO_MMIO_QUEUE_NUM:
		q->size = val > UINT16_MAX ? 0 : (uint16_t)val;
		break;
	case VIRTIO_MMIO_QUEUE_READY:
		if (val == 1)
			virtio_queue_enable(t->dev, t->queue_select);
		break;
	case VIRTIO_MMIO_QUEUE_DESC_LOW:
	case VIRTIO_MMIO_QUEUE_DESC_HIGH:
		put_half(&q->desc, reg == VIRTIO_MMIO_QUEUE_DESC_HIGH, val);
		break;
	case VIRTIO_MMIO_QUEUE_AVAIL_LOW:
	case VIRTIO_MMIO_QUEUE_AVAIL_HIGH:
		put_half(&q->driver, reg == VIRTIO_MMIO_QUEUE_AVAIL_HIGH, val);
		break;
	case VIRTIO_MMIO_QUEUE_USED_LOW:
	case VIRTIO_MMIO_QUEUE_USED_HIGH:
		put_half(&q->device, reg == VIRTIO_MMIO_QUEUE_USED_HIGH, val);
		break;
	}
}

static void forget(struct virtio_mmio *t)
{
	t->offered_select = t->accepted_select = t->queue_select = 0;
	set_isr(t, 0);
}

static void status_write(struct virtio_mmio *t, uint8_t val)
{
	virtio_set_status(t->dev, val);
	if (!val && !t->dev->resetting)
		forget(t);
}

static void reg_write(struct virtio_mmio *t, unsigned reg, uint32_t val)
{
	switch (reg) {
	case VIRTIO_MMIO_DEVICE_FEATURES_SEL:
		t->offered_select = val;
		break;
	case VIRTIO_MMIO_DRIVER_FEATURES_SEL:
		t->accepted_select = val;
		break;
	case VIRTIO_MMIO_DRIVER_FEATURES:
		virtio_accept(t->dev, t->accepted_select, val);
		break;
	case VIRTIO_MMIO_QUEUE_SEL:
		t->queue_select = val;
		break;
	case VIRTIO_MMIO_QUEUE_NOTIFY:
		virtio_notify(t->dev, val);
		break;
	case VIRTIO_MMIO_INTERRUPT_ACK:
		set_isr(t, t->isr & ~val);
		break;
	case VIRTIO_MMIO_STATUS:
		status_write(t, (uint8_t)val);
		break;
	default:
		queue_write(t, reg, val);
	}
}

static void mmio_write(void *opaque, uint64_t off, unsigned size, uint64_t val)
{
	struct virtio_mmio *t = opaque;

	if (off >= VIRTIO_MMIO_CONFIG)
		virtio_config_write(t->dev, off - VIRTIO_MMIO_CONFIG, size, val);
	else if (!(off & 3) && size == 4)
		reg_write(t, (unsigned)off, (uint32_t)val);
}

static const struct io_handler mmio_handler = {.read = mmio_read, .write = mmio_write};

static int create(struct io *io, const void *config, void **out)
{
	const struct virtio_mmio_config *cfg = config;
	struct virtio_mmio *t;
	int err;

	if (cfg->place >= BOARD_VIRTIO_MMIO_MAX)
		return -ENOSPC;
	t = calloc(1, sizeof(*t));
	if (!t)
		return -ENOMEM;
	*t = (struct virtio_mmio){.io = io, .dev = cfg->dev, .bus = cfg->bus, .place = cfg->place};
	err = io_register(io, IO_MMIO, BOARD_VIRTIO_MMIO(t->place), BOARD_VIRTIO_MMIO_SIZE, &mmio_handler, t);
	if (err) {
		free(t);
		return err;
	}
	t->dev->transport = &transport_ops;
	t->dev->transport_opaque = t;
	*out = t;
	return 0;
}

static void reset(void *dev)
{
	struct virtio_mmio *t = dev;

	virtio_reset(t->dev);
	forget(t);
}

static void state(void *dev, struct io_state *s)
{
	struct virtio_mmio *t = dev;
	uint32_t isr;

	DEV_FIELD(s, t, offered_select);
	DEV_FIELD(s, t, accepted_select);
	DEV_FIELD(s, t, queue_select);
	DEV_FIELD(s, t, isr);
	isr = t->isr & (VIRTIO_MMIO_INT_VRING | VIRTIO_MMIO_INT_CONFIG);
	set_isr(t, isr); /* after a load the line follows */
	virtio_state(t->dev, s);
}

static void destroy(void *dev)
{
	struct virtio_mmio *t = dev;

	set_isr(t, 0);
	io_unregister(t->io, IO_MMIO, BOARD_VIRTIO_MMIO(t->place));
	t->dev->ops->destroy(t->dev);
	free(t);
}

const struct device_class virtio_mmio_class = {
	.name = "virtio-mmio",
	.create = create,
	.reset = reset,
	.state = state,
	.destroy = destroy,
};
