/* SPDX-License-Identifier: Apache-2.0 */
/*
 * virtio-balloon: inflating, deflating, statistics, free page reporting.
 *
 *   inflate      frame numbers the guest gives back
 *   deflate      frame numbers it takes again
 *   statistics   a buffer we hold until we want news
 *   reporting    stretches of memory that hold nothing
 *
 * The specification numbers the queues 0 to 4, with 3 for hints, which are not offered; Linux numbers only those it has. So reporting is looked
 * for at 4, at 3, and at 2 if there are no statistics: role_of().
 *
 * Neighbours are joined to spans, and a message costs one wait for the vCPUs, or few. A frame that was given back reads zeroes when touched,
 * whatever the guest promised. With page poisoning the guest expects its pattern in reported pages: those then stay as they are.
 *
 * Invariant: nothing but RAM is given back (mem_release() sees to it), and a guest that lies hurts its own memory only. What one kick costs is
 * bounded by CHAINS_PER_KICK, MAX_FRAMES and MAX_REPORT; what is left over waits for a timer.
 * Locking: io->lock; mem_release() waits for vCPUs, none of which needs io->lock to answer.
 * Spec: virtio 1.2, 5.5.
 */
#include "dev/virtio/balloon.h"

#include <errno.h>
#include <linux/virtio_balloon.h>
#include <stdlib.h>
#include <string.h>

enum { NQUEUES = 5, STATS_QUEUE = 2, QUEUE_SIZE = 128 };
enum role { NOTHING, INFLATE, DEFLATE, STATS, REPORTING };
#define MAX_FRAMES 1024u                     /* in one message; Linux sends 256 */
#define MAX_STRETCHES 1024u                  /* in one report; Linux sends 32 */
#define MAX_REPORT ((256ull << 20) >> PAGE_SHIFT)  /* frames of one report that are acted on; Linux sends 128 MiB. It is an offer. */
#define MAX_STATS 64u                        /* in one buffer; ten are known */
#define CHAINS_PER_KICK 16u
#define PAUSE_NS (NS_PER_SEC / 1000)         /* then others have the lock */
#define FEATURES                                                                                                               \
	(BIT(VIRTIO_BALLOON_F_STATS_VQ) | BIT(VIRTIO_BALLOON_F_DEFLATE_ON_OOM) | BIT(VIRTIO_BALLOON_F_PAGE_POISON) |             \
	 BIT(VIRTIO_BALLOON_F_REPORTING))

struct balloon {
	struct virtio_dev v;
	struct virtio_balloon_config space;
	struct virtio_balloon_options opt;
	struct virtqueue_chain held;         /* the statistics buffer: its number only */
	bool holding, asked;                 /* it is here; it has been sent for and has not come back */
	uint64_t guest_time, news;           /* when statistics came last, and how often */
	uint64_t stat[VIRTIO_BALLOON_S_NR];
	struct { uint64_t inflated, deflated, reported; } count;   /* bytes; base/stats.h */
	uint32_t frame[MAX_FRAMES];
	struct mem_span span[MAX_FRAMES];
};
static_assert(MAX_STRETCHES <= MAX_FRAMES, "spans are shared");

static struct balloon *self(const struct virtio_dev *v)
{
	return (struct balloon *)container_of(v, struct balloon, v);
}

static enum role role_of(const struct balloon *b, unsigned queue)
{
	if (queue < 2)
		return queue ? DEFLATE : INFLATE;
	if (queue == STATS_QUEUE && virtio_has(&b->v, VIRTIO_BALLOON_F_STATS_VQ))
		return STATS;
	return virtio_has(&b->v, VIRTIO_BALLOON_F_REPORTING) ? REPORTING : NOTHING;
}

/* The message's frames as spans; their number. Guests give neighbours one after the other, upwards or downwards. */
static unsigned take_spans(struct balloon *b, uint64_t *bytes)
{
	unsigned frames = (unsigned)(io_dma_read(&b->v.chain.r, 0, b->frame, sizeof(b->frame)) / sizeof(b->frame[0])), n = 0;

	for (unsigned i = 0; i < frames; i++) {
		struct mem_span *last = n ? &b->span[n - 1] : NULL;
		gfn_t gfn = b->frame[i];

		if (last && gfn == last->gfn + last->frames) {
			last->frames++;
		} else if (last && gfn + 1 == last->gfn) {
			last->gfn--;
			last->frames++;
		} else {
			b->span[n++] = (struct mem_span){.gfn = gfn, .frames = 1};
		}
	}
	stats_add(bytes, (uint64_t)frames << PAGE_SHIFT);
	return n;
}

/* Whole pages of the stretches the driver offers, MAX_REPORT at most. */
static unsigned take_stretches(struct balloon *b)
{
	uint64_t left = MAX_REPORT;
	unsigned n = 0;

	for (unsigned i = 0; i < b->v.chain.w.n && left; i++) {
		gpa_t from = b->v.chain.w.gpa[i], len = b->v.chain.w.iov[i].iov_len;
		gfn_t first = (from >> PAGE_SHIFT) + !!(from & PAGE_MASK), end = (from + len) >> PAGE_SHIFT;
		uint64_t frames;

		if (from + len < from || end > mem_max_gfn(b->v.io->mem) || first >= end)
			continue;
		frames = end - first < left ? end - first : left;
		b->span[n++] = (struct mem_span){.gfn = first, .frames = frames};
		left -= frames;
	}
	stats_add(&b->count.reported, (MAX_REPORT - left) << PAGE_SHIFT);
	return n;
}

static void take_stats(struct balloon *b)
{
	/* The specification has these ten bytes. */
	struct { uint16_t tag; uint64_t val; } __attribute__((packed)) s;
	uint64_t stat[VIRTIO_BALLOON_S_NR];

	memset(stat, 0xff, sizeof(stat));
	for (unsigned i = 0; i < MAX_STATS && io_dma_read(&b->v.chain.r, i * sizeof(s), &s, sizeof(s)) == sizeof(s); i++)
		if (s.tag < VIRTIO_BALLOON_S_NR)
			stat[s.tag] = s.val;
	for (unsigned i = 0; i < VIRTIO_BALLOON_S_NR; i++)
		__atomic_store_n(&b->stat[i], stat[i], __ATOMIC_RELAXED);
	b->guest_time = io_now(b->v.io);
	b->news++;
	b->held = b->v.chain;
	b->holding = true;
	b->asked = false;
	if (b->opt.news)
		b->opt.news(b->opt.opaque);
}

/* True: the buffer goes back at once. */
static bool serve(struct balloon *b, enum role role)
{
	struct mem *m = b->v.io->mem;

	switch (role) {
	case INFLATE:
		mem_release(m, b->span, take_spans(b, &b->count.inflated), true);
		break;
	case DEFLATE:
		mem_reclaim(m, b->span, take_spans(b, &b->count.deflated));
		break;
	case REPORTING:
		/* 5.5.6.7: reported pages must keep the pattern, and a page that is gone comes back as zeroes. */
		if (!virtio_has(&b->v, VIRTIO_BALLOON_F_PAGE_POISON) || !b->space.poison_val)
			mem_release(m, b->span, take_stretches(b), false);
		break;
	case STATS:
		/* The driver has one buffer. One that offers more gets the older ones back. */
		if (b->holding)
			virtqueue_push(&b->v.queue[STATS_QUEUE], &b->held, 0);
		take_stats(b);
		return false;
	case NOTHING:
		break;
	}
	return true;
}

static void notify(struct virtio_dev *v, unsigned queue)
{
	struct balloon *b = self(v);
	struct virtqueue *q = &v->queue[queue];

	virtqueue_kicks_off(q);
	for (unsigned n = 0; n < CHAINS_PER_KICK && virtio_pop(v, queue, &b->v.chain) > 0; n++)
		if (serve(b, role_of(b, queue)))
			virtqueue_push(q, &b->v.chain, 0);
	if (virtqueue_kicks_on(q) && virtio_live(v)) {
		/* Drivers wait for each message before they send the next; this one does not. */
		virtqueue_kicks_off(q);
		virtio_defer(v, queue, io_now(v->io) + PAUSE_NS);
	}
	virtio_signal(v, queue);
}
/* Reported memory is not read or written, so it is not looked up either: that would populate it. */
static void driver_ok(struct virtio_dev *v)
{
	for (unsigned i = 0; i < NQUEUES; i++)
		v->queue[i].unmapped = role_of(self(v), i) == REPORTING;
}

/* The driver writes what it has reached, and its poison. */
static void config_write(struct virtio_dev *v, unsigned off, unsigned size, uint64_t val)
{
	struct balloon *b = self(v);

	if (size != sizeof(uint32_t))
		return;
	if (off == offsetof(struct virtio_balloon_config, actual))
		b->space.actual = (uint32_t)val;
	else if (off == offsetof(struct virtio_balloon_config, poison_val))
		b->space.poison_val = (uint32_t)val;
}

static void reset(struct virtio_dev *v)
{
	struct balloon *b = self(v);

	/* The target stays: the next driver is to reach it. What this one gave back stays given back until it is touched. */
	b->space.actual = 0;
	b->space.poison_val = 0;
	b->holding = b->asked = false;
	b->guest_time = 0;
	memset(b->stat, 0xff, sizeof(b->stat));
}

static void state(struct virtio_dev *v, struct io_state *s)
{
	struct balloon *b = self(v);

	DEV_FIELD(s, b, space);
	DEV_FIELD(s, b, count);
	DEV_FIELD(s, b, stat);
	DEV_BOOL(s, b, holding);
	DEV_BOOL(s, b, asked);
	DEV_FIELD(s, b, held.id);
	DEV_FIELD(s, b, held.slots);
	driver_ok(v);
}

static void destroy(struct virtio_dev *v)
{
	struct balloon *b = self(v);

	virtio_fini(v);
	free(b);
}

static const struct virtio_ops balloon_ops = {
	.name = "balloon",
	.id = VIRTIO_ID_BALLOON,
	.pci_class = 0x00ff00, /* of no class */
	.config_write = config_write,
	.notify = notify,
	.driver_ok = driver_ok,
	.reset = reset,
	.state = state,
	.destroy = destroy,
};

int virtio_balloon_create(struct io *io, const struct virtio_balloon_options *opt, struct virtio_dev **out)
{
	struct balloon *b = calloc(1, sizeof(*b));
	struct virtio_setup setup = {.ops = &balloon_ops, .features = FEATURES, .nqueues = NQUEUES, .queue_size = QUEUE_SIZE,
				     .max_bytes = MAX_FRAMES * sizeof(uint32_t), .pieces = MAX_STRETCHES};
	int err;

	if (!b)
		return -ENOMEM;
	b->opt = *opt;
	setup.config = &b->space;
	setup.config_len = sizeof(b->space);
	err = virtio_init(&b->v, io, &setup);
	if (err) {
		free(b);
		return err;
	}
	/* Any stretch of memory can be reported. */
	for (unsigned i = STATS_QUEUE; i < NQUEUES; i++)
		b->v.queue[i].max_bytes = mem_max_gfn(io->mem) << PAGE_SHIFT;
	reset(&b->v);
	*out = &b->v;
	return 0;
}

void virtio_balloon_set(struct virtio_dev *v, uint64_t bytes)
{
	struct balloon *b = self(v);
	uint64_t ram = mem_ram_size(v->io->mem);
	uint32_t pages = (uint32_t)((bytes < ram ? bytes : ram) >> VIRTIO_BALLOON_PFN_SHIFT);

	if (b->space.num_pages == pages)
		return;
	b->space.num_pages = pages;
	virtio_config_changed(v);
}

bool virtio_balloon_poll(struct virtio_dev *v)
{
	struct balloon *b = self(v);

	if (!virtio_live(v))
		return false;
	if (b->holding) {
		b->holding = false;
		b->asked = true;
		virtqueue_push(&v->queue[STATS_QUEUE], &b->held, 0);
		virtio_signal(v, STATS_QUEUE);
	}
	return b->asked;
}

void virtio_balloon_info(const struct virtio_dev *v, struct virtio_balloon_info *info)
{
	const struct balloon *b = self(v);

	*info = (struct virtio_balloon_info){
		.target = (uint64_t)b->space.num_pages << VIRTIO_BALLOON_PFN_SHIFT,
		.actual = (uint64_t)b->space.actual << VIRTIO_BALLOON_PFN_SHIFT,
		.driver = virtio_live(v),
		.news = b->news,
		.guest_time = b->guest_time,
		.guest = {
			.free = b->stat[VIRTIO_BALLOON_S_MEMFREE], .total = b->stat[VIRTIO_BALLOON_S_MEMTOT],
			.available = b->stat[VIRTIO_BALLOON_S_AVAIL], .caches = b->stat[VIRTIO_BALLOON_S_CACHES],
		},
	};
}

void virtio_balloon_emit(void *dev, stats_emit_fn *emit, void *o)
{
	static const struct { unsigned tag; const char *name; } guest[] = {
		{VIRTIO_BALLOON_S_SWAP_IN, "guest_swap_in_bytes"}, {VIRTIO_BALLOON_S_SWAP_OUT, "guest_swap_out_bytes"},
		{VIRTIO_BALLOON_S_MAJFLT, "guest_major_faults"}, {VIRTIO_BALLOON_S_MINFLT, "guest_minor_faults"},
	};
	const struct balloon *b = self(dev);

	emit(o, "inflated_bytes", stats_read(&b->count.inflated));
	emit(o, "deflated_bytes", stats_read(&b->count.deflated));
	emit(o, "reported_bytes", stats_read(&b->count.reported));
	for (unsigned i = 0; i < nitems(guest); i++) {
		uint64_t val = stats_read(&b->stat[guest[i].tag]);

		if (val != UINT64_MAX)
			emit(o, guest[i].name, val);
	}
}
