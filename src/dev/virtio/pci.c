/* SPDX-License-Identifier: Apache-2.0 */
/*
 * virtio over PCI, modern interface only (transitional devices are not offered).
 *
 *   BAR 0 (64-bit, 16 KiB)   0000 common configuration | 1000 ISR | 2000 device configuration | 3000 notification, 4 bytes a queue
 *   BAR 2 (4 KiB)            MSI-X table and pending bits; vectors: one per queue and one for configuration changes
 *   capabilities             MSI-X, then common, ISR, device, notify, and the window for guests that cannot map BARs (4.1.4.9)
 *
 * Invariant: every access of any size and offset is answered; fields are written only whole (64-bit ones also in halves), and a
 * queue's size and addresses only while it is not enabled.
 * Without bus mastering kicks are not obeyed and no message is sent; when it comes on, all queues are looked at.
 * Locking: io->lock. Spec: virtio 1.2, 4.1.
 */
#include "dev/virtio/pci.h"

#include <errno.h>
#include <linux/virtio_pci.h>
#include <stdlib.h>

#include "dev/platform/pci_dev.h"

enum { BAR_REGS = 0, BAR_MSIX = 2, REGS_SIZE = 0x4000, PART = 0x1000 };
enum { PART_COMMON, PART_ISR, PART_DEVICE, PART_NOTIFY };
enum { NOTIFY_STRIDE = 4, ISR_QUEUE = 1, ISR_CONFIG = 2, CAP_VENDOR = 0x09, REVISION = 1, PCI_VENDOR = 0x1af4 };
enum { CFG_BAR = 4, CFG_OFFSET = 8, CFG_LENGTH = 12, CFG_DATA = 16 };   /* struct virtio_pci_cfg_cap */

struct virtio_pci {
	struct pci_dev pci;
	struct virtio_dev *dev;
	unsigned window;            /* offset of the configuration access capability */
	uint32_t offered_select, accepted_select;
	uint16_t queue_select;
	uint16_t config_vector;
	uint16_t vector[VIRTIO_MAX_QUEUES];
	uint8_t isr;
};

/* --- interrupts ---------------------------------------------------------------------------------------------------------- */

static void interrupt(struct virtio_pci *t, uint16_t vector, uint8_t isr)
{
	if (t->pci.msix.enabled) {
		msix_trigger(&t->pci.msix, vector); /* VIRTIO_MSI_NO_VECTOR is a vector that does not exist */
		return;
	}
	t->isr |= isr;
	pci_dev_set_intx(&t->pci, true);
}

static void signal_queue(void *opaque, unsigned queue)
{
	struct virtio_pci *t = opaque;

	interrupt(t, t->vector[queue], ISR_QUEUE);
}

static void signal_config(void *opaque)
{
	struct virtio_pci *t = opaque;

	interrupt(t, t->config_vector, ISR_CONFIG);
}

static const struct virtio_transport_ops transport_ops = {.signal = signal_queue, .config_changed = signal_config};

/* 4.1.4.5: reading clears it and takes the interrupt line down. */
static uint8_t isr_read(struct virtio_pci *t)
{
	uint8_t isr = t->isr;

	t->isr = 0;
	pci_dev_set_intx(&t->pci, false);
	return isr;
}

static uint16_t valid_vector(const struct virtio_pci *t, uint64_t val)
{
	return val < t->pci.msix.vectors ? (uint16_t)val : VIRTIO_MSI_NO_VECTOR;
}

/* --- common configuration (4.1.4.3) -------------------------------------------------------------------------------------- */

static const struct field {
	uint8_t off, size;
} fields[] = {
	{VIRTIO_PCI_COMMON_DFSELECT, 4}, {VIRTIO_PCI_COMMON_DF, 4}, {VIRTIO_PCI_COMMON_GFSELECT, 4},
	{VIRTIO_PCI_COMMON_GF, 4}, {VIRTIO_PCI_COMMON_MSIX, 2}, {VIRTIO_PCI_COMMON_NUMQ, 2},
	{VIRTIO_PCI_COMMON_STATUS, 1}, {VIRTIO_PCI_COMMON_CFGGENERATION, 1}, {VIRTIO_PCI_COMMON_Q_SELECT, 2},
	{VIRTIO_PCI_COMMON_Q_SIZE, 2}, {VIRTIO_PCI_COMMON_Q_MSIX, 2}, {VIRTIO_PCI_COMMON_Q_ENABLE, 2},
	{VIRTIO_PCI_COMMON_Q_NOFF, 2}, {VIRTIO_PCI_COMMON_Q_DESCLO, 8}, {VIRTIO_PCI_COMMON_Q_AVAILLO, 8},
	{VIRTIO_PCI_COMMON_Q_USEDLO, 8},
};

static const struct field *field_at(uint64_t off)
{
	for (size_t i = 0; i < nitems(fields); i++)
		if (off >= fields[i].off && off - fields[i].off < fields[i].size)
			return &fields[i];
	return NULL;
}

/* Registers of the selected queue; without one they read 0 (4.1.4.3.1: size 0 says it is not there). */
static uint64_t queue_field(struct virtio_pci *t, const struct virtqueue *q, unsigned field)
{
	if (!q)
		return field == VIRTIO_PCI_COMMON_Q_MSIX ? VIRTIO_MSI_NO_VECTOR : 0;
	switch (field) {
	case VIRTIO_PCI_COMMON_Q_SIZE:
		return q->size;
	case VIRTIO_PCI_COMMON_Q_MSIX:
		return t->vector[t->queue_select];
	case VIRTIO_PCI_COMMON_Q_ENABLE:
		return q->enabled;
	case VIRTIO_PCI_COMMON_Q_NOFF:
		return t->queue_select;
	case VIRTIO_PCI_COMMON_Q_DESCLO:
		return q->desc;
	case VIRTIO_PCI_COMMON_Q_AVAILLO:
		return q->driver;
	case VIRTIO_PCI_COMMON_Q_USEDLO:
		return q->device;
	default:
		return 0;
	}
}

static uint64_t common_field(struct virtio_pci *t, unsigned field)
{
	struct virtio_dev *v = t->dev;

	switch (field) {
	case VIRTIO_PCI_COMMON_DFSELECT:
		return t->offered_select;
	case VIRTIO_PCI_COMMON_DF:
		return virtio_offered(v, t->offered_select);
	case VIRTIO_PCI_COMMON_GFSELECT:
		return t->accepted_select;
	case VIRTIO_PCI_COMMON_GF:
		return virtio_accepted(v, t->accepted_select);
	case VIRTIO_PCI_COMMON_MSIX:
		return t->config_vector;
	case VIRTIO_PCI_COMMON_NUMQ:
		return v->nqueues;
	case VIRTIO_PCI_COMMON_STATUS:
		return v->status;
	case VIRTIO_PCI_COMMON_CFGGENERATION:
		return v->generation;
	case VIRTIO_PCI_COMMON_Q_SELECT:
		return t->queue_select;
	default:
		return queue_field(t, virtio_queue(v, t->queue_select), field);
	}
}

static uint64_t common_read(struct virtio_pci *t, uint64_t off)
{
	const struct field *f = field_at(off);

	return f ? common_field(t, f->off) >> 8 * (off - f->off) : 0;
}

/* A 64-bit field, whole or one half of it. */
static void put_addr(gpa_t *at, unsigned byte, unsigned size, uint64_t val)
{
	uint64_t mask = size == 8 ? UINT64_MAX : 0xffffffffull << 8 * byte;

	*at = (*at & ~mask) | (val << 8 * byte & mask);
}

static void queue_write(struct virtio_pci *t, const struct field *f, unsigned byte, unsigned size, uint64_t val)
{
	struct virtqueue *q = virtio_queue(t->dev, t->queue_select);

	if (!q)
		return;
	if (f->off == VIRTIO_PCI_COMMON_Q_MSIX)
		t->vector[t->queue_select] = valid_vector(t, val);
	else if (q->enabled || t->dev->resetting)
		return;
	else if (f->off == VIRTIO_PCI_COMMON_Q_SIZE)
		q->size = (uint16_t)val;
	else if (f->off == VIRTIO_PCI_COMMON_Q_DESCLO)
		put_addr(&q->desc, byte, size, val);
	else if (f->off == VIRTIO_PCI_COMMON_Q_AVAILLO)
		put_addr(&q->driver, byte, size, val);
	else if (f->off == VIRTIO_PCI_COMMON_Q_USEDLO)
		put_addr(&q->device, byte, size, val);
	else if (f->off == VIRTIO_PCI_COMMON_Q_ENABLE && val == 1)
		virtio_queue_enable(t->dev, t->queue_select);
}

/* What the transport itself forgets when the driver resets the device. */
static void forget(struct virtio_pci *t)
{
	t->offered_select = t->accepted_select = 0;
	t->queue_select = 0;
	t->config_vector = VIRTIO_MSI_NO_VECTOR;
	for (unsigned i = 0; i < VIRTIO_MAX_QUEUES; i++)
		t->vector[i] = VIRTIO_MSI_NO_VECTOR;
	(void)isr_read(t);
}

static void status_write(struct virtio_pci *t, uint8_t val)
{
	virtio_set_status(t->dev, val);
	if (!val && !t->dev->resetting)
		forget(t);
}

static void common_write(struct virtio_pci *t, uint64_t off, unsigned size, uint64_t val)
{
	const struct field *f = field_at(off);
	unsigned byte;

	if (!f)
		return;
	byte = (unsigned)(off - f->off);
	if (!(byte == 0 && size == f->size) && !(f->size == 8 && size == 4 && byte % 4 == 0))
		return;
	switch (f->off) {
	case VIRTIO_PCI_COMMON_DFSELECT:
		t->offered_select = (uint32_t)val;
		break;
	case VIRTIO_PCI_COMMON_GFSELECT:
		t->accepted_select = (uint32_t)val;
		break;
	case VIRTIO_PCI_COMMON_GF:
		virtio_accept(t->dev, t->accepted_select, (uint32_t)val);
		break;
	case VIRTIO_PCI_COMMON_MSIX:
		t->config_vector = valid_vector(t, val);
		break;
	case VIRTIO_PCI_COMMON_STATUS:
		status_write(t, (uint8_t)val);
		break;
	case VIRTIO_PCI_COMMON_Q_SELECT:
		t->queue_select = (uint16_t)val;
		break;
	default:
		queue_write(t, f, byte, size, val);
	}
}

/* --- BAR 0 --------------------------------------------------------------------------------------------------------------- */

static uint64_t regs_read(void *opaque, uint64_t off, unsigned size)
{
	struct virtio_pci *t = opaque;
	uint64_t in = off % PART;

	switch (off / PART) {
	case PART_COMMON:
		return common_read(t, in);
	case PART_ISR:
		return in ? 0 : isr_read(t);
	case PART_DEVICE:
		return virtio_config_read(t->dev, in, size);
	default:
		return 0;
	}
}

static void regs_write(void *opaque, uint64_t off, unsigned size, uint64_t val)
{
	struct virtio_pci *t = opaque;
	uint64_t in = off % PART;

	switch (off / PART) {
	case PART_COMMON:
		common_write(t, in, size, val);
		break;
	case PART_DEVICE:
		virtio_config_write(t->dev, in, size, val);
		break;
	case PART_NOTIFY:
		/* The place says which queue; the value, the same without VIRTIO_F_NOTIFICATION_DATA, is not needed. */
		if (pci_dev_is_master(&t->pci))
			virtio_notify(t->dev, (uint32_t)(in / NOTIFY_STRIDE));
		break;
	}
}

static const struct io_handler regs_handler = {.read = regs_read, .write = regs_write};

/* --- configuration space -------------------------------------------------------------------------------------------------- */

/* 4.1.4.9: an access to BAR 0 through the window; false if what it asks for is not one. */
static bool window_target(const struct virtio_pci *t, uint32_t *off, uint32_t *size)
{
	const uint8_t *cap = t->pci.config + t->window;

	*off = (uint32_t)pci_get(cap + CFG_OFFSET, 4);
	*size = (uint32_t)pci_get(cap + CFG_LENGTH, 4);
	return cap[CFG_BAR] == BAR_REGS && (*size == 1 || *size == 2 || *size == 4) && !(*off & (*size - 1)) && *off < REGS_SIZE;
}

static void before_read(void *opaque, unsigned reg, unsigned size)
{
	struct virtio_pci *t = opaque;
	uint32_t off, len;

	(void)size;
	if ((reg & ~3u) == t->window + CFG_DATA && window_target(t, &off, &len))
		pci_put(t->pci.config + t->window + CFG_DATA, len, regs_read(t, off, len));
}

static void after_write(void *opaque, unsigned reg, unsigned size)
{
	struct virtio_pci *t = opaque;
	uint32_t off, len;

	(void)size;
	if ((reg & ~3u) == t->window + CFG_DATA && window_target(t, &off, &len))
		regs_write(t, off, len, pci_get(t->pci.config + t->window + CFG_DATA, len));
	/* Kicks from before bus mastering were not obeyed. */
	if ((reg & ~3u) == 0x04 && pci_dev_is_master(&t->pci))
		for (unsigned i = 0; i < t->dev->nqueues; i++)
			virtio_notify(t->dev, i);
}

static const struct pci_dev_ops pci_ops = {.before_read = before_read, .after_write = after_write};

/* struct virtio_pci_cap: where a structure lies. Returns the capability's offset. */
static unsigned add_cap(struct virtio_pci *t, uint8_t type, unsigned len, unsigned part, unsigned length)
{
	unsigned at = pci_dev_capability(&t->pci, CAP_VENDOR, len);
	uint8_t *cap = t->pci.initial + at;

	cap[2] = (uint8_t)len;
	cap[3] = type;
	cap[4] = BAR_REGS;
	pci_put(cap + 8, 4, part * PART);
	pci_put(cap + 12, 4, length);
	return at;
}

static void add_capabilities(struct virtio_pci *t)
{
	unsigned at;

	pci_dev_msix(&t->pci, BAR_MSIX, t->dev->nqueues + 1);
	(void)add_cap(t, VIRTIO_PCI_CAP_COMMON_CFG, 16, PART_COMMON, sizeof(struct virtio_pci_common_cfg));
	(void)add_cap(t, VIRTIO_PCI_CAP_ISR_CFG, 16, PART_ISR, 1);
	if (t->dev->config_len)
		(void)add_cap(t, VIRTIO_PCI_CAP_DEVICE_CFG, 16, PART_DEVICE, t->dev->config_len);
	at = add_cap(t, VIRTIO_PCI_CAP_NOTIFY_CFG, 20, PART_NOTIFY, NOTIFY_STRIDE * t->dev->nqueues);
	pci_put(t->pci.initial + at + 16, 4, NOTIFY_STRIDE);
	t->window = add_cap(t, VIRTIO_PCI_CAP_PCI_CFG, 20, 0, 0);
	t->pci.writable[t->window + CFG_BAR] = 0xff;
	pci_put(t->pci.writable + t->window + CFG_OFFSET, 8, UINT64_MAX);
	pci_put(t->pci.writable + t->window + CFG_DATA, 4, UINT64_MAX);
}

/* --- the class ------------------------------------------------------------------------------------------------------------ */

static int create(struct io *io, const void *config, void **out)
{
	const struct virtio_pci_config *cfg = config;
	const struct virtio_ops *ops = cfg->dev->ops;
	const struct pci_dev_setup setup = {
		.vendor = PCI_VENDOR, .device = 0x1040 + ops->id, .subvendor = PCI_VENDOR, .subdevice = 0x1040 + ops->id,
		.class = ops->pci_class, .revision = REVISION};
	struct virtio_pci *t = calloc(1, sizeof(*t));
	int err;

	if (!t)
		return -ENOMEM;
	t->dev = cfg->dev;
	pci_dev_init(&t->pci, io, cfg->bus, &setup);
	t->pci.ops = &pci_ops;
	t->pci.opaque = t;
	pci_dev_bar(&t->pci, BAR_REGS, REGS_SIZE, true, &regs_handler, t);
	add_capabilities(t);
	err = pci_dev_attach(&t->pci);
	if (err) {
		free(t);
		return err;
	}
	forget(t);
	t->dev->transport = &transport_ops;
	t->dev->transport_opaque = t;
	*out = t;
	return 0;
}

static void reset(void *dev)
{
	struct virtio_pci *t = dev;

	virtio_reset(t->dev);
	forget(t);
	pci_dev_reset(&t->pci);
}

static void state(void *dev, struct io_state *s)
{
	struct virtio_pci *t = dev;

	DEV_FIELD(s, t, offered_select);
	DEV_FIELD(s, t, accepted_select);
	DEV_FIELD(s, t, queue_select);
	DEV_FIELD(s, t, config_vector);
	DEV_FIELD(s, t, vector);
	DEV_FIELD(s, t, isr);
	virtio_state(t->dev, s);
	pci_dev_state(&t->pci, s);
}

static void destroy(void *dev)
{
	struct virtio_pci *t = dev;

	pci_dev_detach(&t->pci);
	t->dev->ops->destroy(t->dev);
	free(t);
}

const struct device_class virtio_pci_class = {
	.name = "virtio-pci",
	.create = create,
	.reset = reset,
	.state = state,
	.destroy = destroy,
};
