/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Block device over host/block.
 *
 *   a request:   readable: header (16) | data to write, or ranges        writable: data read, or the serial | status (1)
 *
 * Invariant: a request that has been popped occupies one of its queue's BLK_INFLIGHT places until it is pushed; all memory for them is
 * allocated at creation. The limits announced to the driver (segments, their size, ranges) make every request it may send fit
 * in BLK_PIECES host pieces and one iovec list.
 * A disk of the guest is written through if the driver does not flush, or asks for it (wce = 0): a write is answered after its flush.
 * Locking: io->lock; completions come on the main thread without it, are gathered, and take it once for all that came together.
 * Spec: virtio 1.2, 5.2.
 */
#include "dev/virtio/blk.h"

#include <errno.h>
#include <linux/virtio_blk.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"

enum { BLK_QUEUE_SIZE = 256, BLK_INFLIGHT = 64, BLK_PIECES = 1024, BLK_RANGES = 16, BLK_HEADER = 16 };
/* SEG_MAX segments of SIZE_MAX bytes, each on one page more than it needs, plus header (two pages) and status: 1011 pieces. */
enum { BLK_SEG_MAX = 126, BLK_SIZE_MAX = 7 * 4096 };
static_assert(BLK_SEG_MAX * (BLK_SIZE_MAX / 4096 + 1) + 3 <= BLK_PIECES, "every allowed request fits");
#define BLK_MAX_BYTES (BLK_SEG_MAX * (uint64_t)BLK_SIZE_MAX + BLK_HEADER + 1)
#define BLK_TRY_BYTES (256u << 10) /* read on the spot for one kick */
#define BLK_RANGE_SECTORS (1u << 22) /* 2 GiB per range of discard and write zeroes */

struct header {
	uint32_t type, ioprio;
	uint64_t sector;
};
static_assert(sizeof(struct header) == BLK_HEADER, "request header");

struct blk_queue;

struct blk_request {
	struct virtqueue_chain chain;
	struct block_request io;
	struct blk_queue *queue;
	struct blk_request *next;       /* free list, or finished list */
	struct io_dma data;             /* part of the chain */
	uint8_t *status;                /* the last writable byte */
	gpa_t status_gpa;
	uint32_t type;
	int result;                     /* of the host's step that has ended */
	unsigned range, nranges;        /* discard, write zeroes */
	struct virtio_blk_discard_write_zeroes ranges[BLK_RANGES];
};

struct blk_queue {
	struct blk *disk;
	unsigned index;
	uint64_t try_bytes;             /* that may still be read on the spot: io->lock is held meanwhile */
	struct blk_request *free;
	struct blk_request *finished;   /* the polling thread's alone: done, to be answered at the end of the batch */
	struct blk_request *request;    /* BLK_INFLIGHT */
	struct iovec *iov;              /* BLK_INFLIGHT * BLK_PIECES, touched as used */
	gpa_t *gpa;
};

struct blk {
	struct virtio_dev v;
	struct virtio_blk_config config;
	struct block *block;
	char serial[BLK_SERIAL_LEN];
	unsigned nqueues;
	struct blk_queue queue[BLK_MAX_QUEUES];
	struct virtio_blk_stats stats;
	bool complained;
};

static void serve(struct blk_queue *q);

/* --- completion ------------------------------------------------------------------------------------------------------------ */

static void count(struct virtio_blk_stats *n, const struct blk_request *r, uint8_t status)
{
	uint64_t bytes = status == VIRTIO_BLK_S_OK ? r->data.bytes : 0;

	switch (r->type) {
	case VIRTIO_BLK_T_IN:
		stats_add(&n->reads, 1);
		stats_add(&n->read_bytes, bytes);
		break;
	case VIRTIO_BLK_T_OUT:
		stats_add(&n->writes, 1);
		stats_add(&n->written_bytes, bytes);
		break;
	case VIRTIO_BLK_T_FLUSH:
		stats_add(&n->flushes, 1);
		break;
	case VIRTIO_BLK_T_DISCARD:
	case VIRTIO_BLK_T_WRITE_ZEROES:
		stats_add(&n->discards, 1);
		break;
	}
	stats_add(&n->errors, status == VIRTIO_BLK_S_IOERR);
}

/* Answers and frees the request; *u is for the used ring. `written`: bytes of data stored to guest memory. */
static void answer(struct blk_request *r, uint8_t status, uint32_t written, struct virtqueue_used *u)
{
	struct blk_queue *q = r->queue;
	struct blk *d = q->disk;

	*r->status = status;
	mem_written(d->v.io->mem, r->status_gpa, 1);
	count(&d->stats, r, status);
	*u = (struct virtqueue_used){.id = r->chain.id, .slots = r->chain.slots, .written = written + 1};
	r->next = q->free;
	q->free = r;
}

static void complain(struct blk *d, const struct blk_request *r, int err)
{
	if (!d->complained)
		log_error("disk %.*s: a request of the guest failed: %s; check the host's disk", BLK_SERIAL_LEN,
			  d->serial[0] ? d->serial : "without serial", strerror(-err));
	(void)r;
	d->complained = true;
}

static bool write_through(const struct blk *d)
{
	return !virtio_has(&d->v, VIRTIO_BLK_F_FLUSH) || (virtio_has(&d->v, VIRTIO_BLK_F_CONFIG_WCE) && !d->config.wce);
}

static void submit(struct blk_request *r, enum block_op op, uint64_t offset, uint64_t bytes)
{
	r->io.op = op;
	r->io.offset = offset;
	r->io.bytes = bytes;
	r->io.iov = r->data.iov;
	r->io.niov = op == BLOCK_READ || op == BLOCK_WRITE ? r->data.n : 0;
	block_submit(r->queue->disk->block, &r->io);
}

/* True if the data were in memory and are the guest's already. */
static bool try_read(struct blk *d, struct blk_request *r, uint64_t offset)
{
	r->io.op = BLOCK_READ;
	r->io.offset = offset;
	r->io.bytes = r->data.bytes;
	r->io.iov = r->data.iov;
	r->io.niov = r->data.n;
	if (r->io.bytes > r->queue->try_bytes || block_try_read(d->block, &r->io) < 0)
		return false;
	r->queue->try_bytes -= r->io.bytes;
	return true;
}

static void submit_range(struct blk_request *r)
{
	const struct virtio_blk_discard_write_zeroes *range = &r->ranges[r->range++];

	r->io.unmap = range->flags & VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP;
	submit(r, r->type == VIRTIO_BLK_T_DISCARD ? BLOCK_DISCARD : BLOCK_WRITE_ZEROES,
	       range->sector * BLOCK_SECTOR, (uint64_t)range->num_sectors * BLOCK_SECTOR);
}

/* True if the request needs another step on the host, which has been submitted. */
static bool continued(struct blk_request *r)
{
	if (r->range < r->nranges) {
		submit_range(r);
		return true;
	}
	if (r->io.op != BLOCK_WRITE && r->io.op != BLOCK_WRITE_ZEROES)
		return false;
	if (!write_through(r->queue->disk))
		return false;
	submit(r, BLOCK_FLUSH, 0, 0);
	return true;
}

static void done(struct block_request *io, int result)
{
	struct blk_request *r = io->opaque;

	r->result = result;
	r->next = r->queue->finished;
	r->queue->finished = r;
}

/* Answers what has finished on the queue; new requests take the places, and one signal tells of all. The number of holds to release. */
static unsigned finish_queue(struct blk_queue *q)
{
	struct blk_request *r = q->finished, *next;
	struct virtqueue_used used[BLK_INFLIGHT];
	struct blk *d = q->disk;
	unsigned n = 0;

	q->finished = NULL;
	for (; r; r = next) {
		uint32_t written = 0;

		next = r->next;
		if (r->result < 0)
			complain(d, r, r->result);
		else if (continued(r))
			continue;
		if (r->type == VIRTIO_BLK_T_IN && r->result == 0) {
			written = (uint32_t)r->data.bytes;
			io_dma_written(d->v.io->mem, &r->data, written);
		}
		answer(r, r->result < 0 ? VIRTIO_BLK_S_IOERR : VIRTIO_BLK_S_OK, written, &used[n++]);
	}
	if (n) {
		virtqueue_push_all(&d->v.queue[q->index], used, n);
		serve(q);
	}
	return n;
}

/* The end of a batch of done() calls. */
static void finish(void *opaque)
{
	struct blk *d = opaque;
	unsigned n = 0;

	pthread_mutex_lock(&d->v.io->lock);
	for (unsigned i = 0; i < d->nqueues; i++)
		if (d->queue[i].finished)
			n += finish_queue(&d->queue[i]);
	while (n--)
		virtio_release(&d->v);
	pthread_mutex_unlock(&d->v.io->lock);
}

/* --- requests -------------------------------------------------------------------------------------------------------------- */

static bool range_ok(const struct blk *d, uint64_t sector, uint64_t sectors)
{
	return sector <= d->config.capacity && sectors <= d->config.capacity - sector;
}

/* Reads and writes: straight between the disk and guest memory. A short read of what is in the host's memory is over before the kick is:
 * two switches of threads would cost several times as much. */
static uint8_t start_data(struct blk *d, struct blk_request *r, uint64_t sector, uint32_t *written)
{
	uint64_t bytes = r->data.bytes;

	if (bytes % BLOCK_SECTOR || !range_ok(d, sector, bytes / BLOCK_SECTOR) || r->data.n > IOV_MAX)
		return VIRTIO_BLK_S_IOERR;
	if (r->type == VIRTIO_BLK_T_OUT && block_read_only(d->block))
		return VIRTIO_BLK_S_IOERR;
	if (!bytes)
		return VIRTIO_BLK_S_OK;
	if (r->type == VIRTIO_BLK_T_IN && try_read(d, r, sector * BLOCK_SECTOR)) {
		io_dma_written(d->v.io->mem, &r->data, bytes);
		*written = (uint32_t)bytes;
		return VIRTIO_BLK_S_OK;
	}
	virtio_hold(&d->v);
	submit(r, r->type == VIRTIO_BLK_T_IN ? BLOCK_READ : BLOCK_WRITE, sector * BLOCK_SECTOR, bytes);
	return UINT8_MAX;
}

static uint8_t start_ranges(struct blk *d, struct blk_request *r)
{
	uint32_t allowed = r->type == VIRTIO_BLK_T_WRITE_ZEROES ? VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP : 0;
	uint64_t bytes = r->data.bytes;

	if (block_read_only(d->block) || !bytes || bytes % sizeof(r->ranges[0]) || bytes > sizeof(r->ranges))
		return VIRTIO_BLK_S_IOERR;
	(void)io_dma_read(&r->data, 0, r->ranges, bytes);
	r->nranges = (unsigned)(bytes / sizeof(r->ranges[0]));
	for (unsigned i = 0; i < r->nranges; i++) {
		if (r->ranges[i].flags & ~allowed)
			return VIRTIO_BLK_S_UNSUPP;
		if (r->ranges[i].num_sectors > BLK_RANGE_SECTORS || !range_ok(d, r->ranges[i].sector, r->ranges[i].num_sectors))
			return VIRTIO_BLK_S_IOERR;
	}
	virtio_hold(&d->v);
	submit_range(r);
	return UINT8_MAX;
}

static uint8_t start_flush(struct blk *d, struct blk_request *r)
{
	virtio_hold(&d->v);
	submit(r, BLOCK_FLUSH, 0, 0);
	return UINT8_MAX;
}

/* Sets the request going; the status if it is over already, UINT8_MAX if not. *written: data stored so far. */
static uint8_t start(struct blk *d, struct blk_request *r, const struct header *h, uint32_t *written)
{
	switch (h->type) {
	case VIRTIO_BLK_T_IN:
	case VIRTIO_BLK_T_OUT:
		return start_data(d, r, h->sector, written);
	case VIRTIO_BLK_T_FLUSH:
		return start_flush(d, r);
	case VIRTIO_BLK_T_GET_ID:
		*written = (uint32_t)io_dma_write(d->v.io->mem, &r->data, 0, d->serial, sizeof(d->serial));
		return VIRTIO_BLK_S_OK;
	case VIRTIO_BLK_T_DISCARD:
	case VIRTIO_BLK_T_WRITE_ZEROES:
		return start_ranges(d, r);
	default:
		return VIRTIO_BLK_S_UNSUPP;
	}
}

/* The status byte, the header and what is between. False: not a request (the device has failed). */
static bool take_apart(struct blk *d, struct blk_request *r, struct header *h)
{
	struct io_dma *rd = &r->chain.r, *wr = &r->chain.w;

	if (io_dma_read(rd, 0, h, sizeof(*h)) != sizeof(*h) || !wr->bytes) {
		virtio_fail(&d->v, "a disk request without header or status");
		return false;
	}
	r->status = (uint8_t *)wr->iov[wr->n - 1].iov_base + wr->iov[wr->n - 1].iov_len - 1;
	r->status_gpa = wr->gpa[wr->n - 1] + wr->iov[wr->n - 1].iov_len - 1;
	io_dma_trim_back(wr, 1);
	io_dma_trim_front(rd, sizeof(*h));
	r->data = h->type == VIRTIO_BLK_T_IN || h->type == VIRTIO_BLK_T_GET_ID ? *wr : *rd;
	r->type = h->type;
	r->range = r->nranges = 0;
	r->io = (struct block_request){.done = done, .opaque = r};
	return true;
}

/* Takes one chain into a free place. False: none of either. */
static bool take(struct blk_queue *q)
{
	struct blk_request *r = q->free;
	struct blk *d = q->disk;
	struct virtqueue_used used;
	uint32_t written = 0;
	struct header h;
	uint8_t status;

	if (!r || virtio_pop(&d->v, q->index, &r->chain) <= 0 || !take_apart(d, r, &h))
		return false;
	q->free = r->next;
	status = start(d, r, &h, &written);
	if (status != UINT8_MAX) {
		answer(r, status, written, &used);
		virtqueue_push_all(&d->v.queue[q->index], &used, 1);
	}
	return true;
}

/* Takes what waits, as far as there are places, and a lap of the ring at most; then signals what has been answered. */
static void serve(struct blk_queue *q)
{
	struct virtio_dev *v = &q->disk->v;
	struct virtqueue *vq = &v->queue[q->index];
	unsigned n = 0;

	virtqueue_kicks_off(vq);
	q->try_bytes = BLK_TRY_BYTES;
	block_plug(q->disk->block);
	do {
		while (n < vq->size_max && take(q))
			n++;
	} while (q->free && n < vq->size_max && virtio_live(v) && virtqueue_kicks_on(vq));
	block_unplug(q->disk->block);
	/* Without a free place the next completion comes back here. */
	if (q->free && n == vq->size_max)
		virtio_defer(v, q->index, io_now(v->io));
	virtio_signal(v, q->index);
}

static void notify(struct virtio_dev *v, unsigned queue)
{
	serve(&container_of(v, struct blk, v)->queue[queue]);
}

/* --- the device ------------------------------------------------------------------------------------------------------------- */

static void config_write(struct virtio_dev *v, unsigned off, unsigned size, uint64_t val)
{
	struct blk *d = container_of(v, struct blk, v);

	/* The only writable field: whether there is a write cache. */
	if (off == offsetof(struct virtio_blk_config, wce) && size == 1 && virtio_has(v, VIRTIO_BLK_F_CONFIG_WCE))
		d->config.wce = val & 1;
}

static void reset(struct virtio_dev *v)
{
	container_of(v, struct blk, v)->config.wce = 1;
}

static void state(struct virtio_dev *v, struct io_state *s)
{
	struct blk *d = container_of(v, struct blk, v);

	DEV_FIELD(s, d, config.wce);
	d->config.wce &= 1;
}

static void destroy(struct virtio_dev *v)
{
	struct blk *d = container_of(v, struct blk, v);

	for (unsigned i = 0; i < d->nqueues; i++) {
		free(d->queue[i].request);
		free(d->queue[i].iov);
		free(d->queue[i].gpa);
	}
	virtio_fini(v);
	free(d);
}

static const struct virtio_ops blk_ops = {
	.name = "blk",
	.id = VIRTIO_ID_BLOCK,
	.pci_class = 0x010000,
	.config_write = config_write,
	.notify = notify,
	.reset = reset,
	.state = state,
	.destroy = destroy,
};

static int init_queue(struct blk *d, unsigned index)
{
	struct blk_queue *q = &d->queue[index];

	q->disk = d;
	q->index = index;
	q->request = calloc(BLK_INFLIGHT, sizeof(*q->request));
	q->iov = calloc((size_t)BLK_INFLIGHT * BLK_PIECES, sizeof(*q->iov));
	q->gpa = calloc((size_t)BLK_INFLIGHT * BLK_PIECES, sizeof(*q->gpa));
	if (!q->request || !q->iov || !q->gpa)
		return -ENOMEM;
	for (unsigned i = 0; i < BLK_INFLIGHT; i++) {
		struct blk_request *r = &q->request[i];

		r->queue = q;
		r->chain = (struct virtqueue_chain){
			.iov = q->iov + i * BLK_PIECES, .gpa = q->gpa + i * BLK_PIECES, .max = BLK_PIECES};
		r->next = q->free;
		q->free = r;
	}
	return 0;
}

static uint64_t init_config(struct blk *d)
{
	uint64_t features = BIT(VIRTIO_BLK_F_SIZE_MAX) | BIT(VIRTIO_BLK_F_SEG_MAX) | BIT(VIRTIO_BLK_F_BLK_SIZE) |
			    BIT(VIRTIO_BLK_F_FLUSH) | BIT(VIRTIO_BLK_F_TOPOLOGY) | BIT(VIRTIO_BLK_F_CONFIG_WCE);

	d->config = (struct virtio_blk_config){
		.capacity = block_size(d->block) / BLOCK_SECTOR,
		.size_max = BLK_SIZE_MAX,
		.seg_max = BLK_SEG_MAX,
		.blk_size = BLOCK_SECTOR,
		.physical_block_exp = 3, /* the host's pages: smaller writes cost a read */
		.min_io_size = 4096 / BLOCK_SECTOR,
		.wce = 1,
		.num_queues = (uint16_t)d->nqueues,
		.max_discard_sectors = BLK_RANGE_SECTORS,
		.max_discard_seg = BLK_RANGES,
		.discard_sector_alignment = 4096 / BLOCK_SECTOR,
		.max_write_zeroes_sectors = BLK_RANGE_SECTORS,
		.max_write_zeroes_seg = BLK_RANGES,
		.write_zeroes_may_unmap = 1,
	};
	if (d->nqueues > 1)
		features |= BIT(VIRTIO_BLK_F_MQ);
	if (block_read_only(d->block))
		features |= BIT(VIRTIO_BLK_F_RO);
	else
		features |= BIT(VIRTIO_BLK_F_DISCARD) | BIT(VIRTIO_BLK_F_WRITE_ZEROES);
	return features;
}

int virtio_blk_create(struct io *io, const struct virtio_blk_setup *setup, struct virtio_dev **out)
{
	struct virtio_setup vs = {.ops = &blk_ops, .queue_size = BLK_QUEUE_SIZE, .max_bytes = BLK_MAX_BYTES};
	struct blk *d = calloc(1, sizeof(*d));
	int err;

	BUG_ON(!setup->queues || setup->queues > BLK_MAX_QUEUES);
	if (!d)
		return -ENOMEM;
	d->block = setup->disk;
	d->nqueues = setup->queues;
	memcpy(d->serial, setup->serial, strnlen(setup->serial, sizeof(d->serial)));
	vs.features = init_config(d);
	vs.nqueues = d->nqueues;
	vs.config = &d->config;
	vs.config_len = offsetof(struct virtio_blk_config, max_secure_erase_sectors);
	err = virtio_init(&d->v, io, &vs);
	if (err) {
		free(d);
		return err;
	}
	block_on_batch(d->block, finish, d);
	for (unsigned i = 0; !err && i < d->nqueues; i++)
		err = init_queue(d, i);
	if (err) {
		destroy(&d->v);
		return err;
	}
	*out = &d->v;
	return 0;
}

const struct virtio_blk_stats *virtio_blk_stats(const struct virtio_dev *v)
{
	return &container_of(v, const struct blk, v)->stats;
}

void virtio_blk_emit(void *dev, stats_emit_fn *emit, void *o)
{
	const struct virtio_blk_stats *n = virtio_blk_stats(dev);

	emit(o, "read_ops", stats_read(&n->reads));
	emit(o, "read_bytes", stats_read(&n->read_bytes));
	emit(o, "write_ops", stats_read(&n->writes));
	emit(o, "write_bytes", stats_read(&n->written_bytes));
	emit(o, "flush_ops", stats_read(&n->flushes));
	emit(o, "discard_ops", stats_read(&n->discards));
	emit(o, "errors", stats_read(&n->errors));
}
