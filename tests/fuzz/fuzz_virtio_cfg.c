/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Fuzzes whole virtio devices from the guest's side: PCI configuration space, BARs being moved, MSI-X tables, common and device
 * configuration, MMIO registers, queues set up right and then spoiled, kicks, time passing, state saved and loaded. Devices: a disk
 * (its host side is a thread that touches every byte it is pointed at), a random number generator, a network interface, a console, a balloon (which has
 * memory of its own to give away beside that of the others: the model driver does not notice when its rings go).
 *
 * As a program: fuzz_virtio_cfg RUNS [SEED]. A run is one board reset and 200 steps. With -DLIBFUZZER a libFuzzer target: the input is
 * the transport and the choices of steps until it ends.
 */
#include <errno.h>
#include <pthread.h>
#include <stdio.h>

#include "choices.h"
#include "dev/board.h"
#include "dev/virtio/balloon.h"
#include "dev/virtio/blk.h"
#include "dev/virtio/console.h"
#include "dev/virtio/net.h"
#include "dev/virtio/rng.h"
#include "lib/vring.h"

#define STEPS 200
#define DEVICES 5
#define CONSOLE 3
#define BALLOON 4
#define QUEUES 5
#define PLAY (4ull << 20)       /* memory that the balloon takes: 2 MiB */
#define PCI_AT(slot) (0xc0000000ull + ((slot) - 1) * 0x8000ull) /* BAR 0; BAR 2 follows at 4000h */

/* --- the host's side of the disk ------------------------------------------------------------------------------------------- */

struct block {
	pthread_mutex_t lock;
	pthread_cond_t more;
	pthread_t thread;
	struct block_request *first, **last;
	uint64_t requests, tries, sum;
	bool stop;
	void (*batch)(void *opaque);
	void *opaque;
};

uint64_t block_size(const struct block *b) { return (void)b, 1ull << 40; }
bool block_read_only(const struct block *b) { return (void)b, false; }
void block_plug(struct block *b) { (void)b; }
void block_unplug(struct block *b) { (void)b; }

void block_on_batch(struct block *b, void (*fn)(void *opaque), void *opaque)
{
	b->batch = fn;
	b->opaque = opaque;
}

void block_submit(struct block *b, struct block_request *r)
{
	pthread_mutex_lock(&b->lock);
	r->next = NULL;
	*b->last = r;
	b->last = &r->next;
	pthread_cond_signal(&b->more);
	pthread_mutex_unlock(&b->lock);
}

static void perform(struct block *b, struct block_request *r);

int block_try_read(struct block *b, struct block_request *r)
{
	bool now;

	pthread_mutex_lock(&b->lock);
	now = ++b->tries % 3 == 0;
	if (now)
		perform(b, r);
	pthread_mutex_unlock(&b->lock);
	return now ? 0 : -EAGAIN;
}

/* Data is read and written in full, so that a piece outside the guest's memory does not go unnoticed. */
static void perform(struct block *b, struct block_request *r)
{
	uint64_t bytes = 0;

	for (unsigned i = 0; i < r->niov; i++) {
		volatile uint8_t *p = r->iov[i].iov_base;

		for (size_t k = 0; k < r->iov[i].iov_len; k += 61) {
			b->sum += p[k];
			if (r->op == BLOCK_READ)
				p[k] = (uint8_t)k;
		}
		bytes += r->iov[i].iov_len;
	}
	if ((r->op == BLOCK_READ || r->op == BLOCK_WRITE) && (bytes != r->bytes || !bytes || r->offset + r->bytes > block_size(b)))
		abort();
	if (r->op != BLOCK_FLUSH && r->offset + r->bytes > block_size(b))
		abort();
}

static void *block_main(void *arg)
{
	struct block *b = arg;
	bool more;

	pthread_mutex_lock(&b->lock);
	for (;;) {
		struct block_request *r = b->first;

		if (!r && b->stop)
			break;
		if (!r) {
			pthread_cond_wait(&b->more, &b->lock);
			continue;
		}
		b->first = r->next;
		if (!b->first)
			b->last = &b->first;
		b->requests++;
		pthread_mutex_unlock(&b->lock);
		perform(b, r);
		r->done(r, b->requests % 17 ? 0 : -EIO);
		more = b->requests % 5;
		pthread_mutex_lock(&b->lock);
		/* Several answers together now and then, and never one that is forgotten. */
		if (b->first && more)
			continue;
		pthread_mutex_unlock(&b->lock);
		b->batch(b->opaque);
		pthread_mutex_lock(&b->lock);
	}
	pthread_mutex_unlock(&b->lock);
	return NULL;
}

/* --- the host's side of the network ------------------------------------------------------------------------------------------ */

struct wire {
	struct net_backend b;
	uint8_t frame[2048];
	uint64_t sent, count;
};

static unsigned wire_send(struct net_backend *b, unsigned queue, struct net_frame *f, unsigned n)
{
	struct wire *w = container_of(b, struct wire, b);

	(void)queue;
	for (unsigned i = 0; i < n; i++) {
		size_t sum = 0;

		for (unsigned k = 0; k < f[i].niov; k++) {
			for (size_t at = 0; at < f[i].iov[k].iov_len; at += 61)
				w->sent += ((volatile uint8_t *)f[i].iov[k].iov_base)[at];
			sum += f[i].iov[k].iov_len;
		}
		if (f[i].len && (sum != f[i].len || f[i].len > NET_FRAME_MAX))
			abort();
	}
	return n;
}

static int wire_peek(struct net_backend *b, unsigned queue, struct net_rx *rx)
{
	struct wire *w = container_of(b, struct wire, b);

	(void)queue;
	if (w->count++ % 3 == 0)
		return 0;
	*rx = (struct net_rx){.head = w->frame, .len = 60 + w->count % 1900};
	return 1;
}

static void wire_take(struct net_backend *b, unsigned queue, const struct iovec *iov, unsigned niov)
{
	struct wire *w = container_of(b, struct wire, b);
	size_t left = 60 + w->count % 1900, at = 0;

	(void)queue;
	for (unsigned i = 0; i < niov && left; i++) {
		size_t n = iov[i].iov_len < left ? iov[i].iov_len : left;

		memcpy(iov[i].iov_base, w->frame + at, n);
		at += n;
		left -= n;
	}
	if (niov && left)
		abort();
}

static void wire_destroy(struct net_backend *b) { (void)b; }

static const struct net_backend_ops wire_ops = {
	.send = wire_send, .peek = wire_peek, .take = wire_take, .destroy = wire_destroy};

/* --- the machine ------------------------------------------------------------------------------------------------------------ */

struct fuzz {
	struct mem *mem;
	struct io io;
	struct board board;
	struct virtio_dev *dev[DEVICES];
	struct vdrv drv[DEVICES][QUEUES];
	struct block block;
	struct wire wire;
	struct evloop loop;
	enum board_transport transport;
	struct choices choices;
	uint64_t now, live, failed, messages, ballooned, shown, typed;
};

static void up_kick(void *vm, unsigned cpu) { (void)cpu, ((struct fuzz *)vm)->messages++; }
static void up_wake(void *vm, const struct io_timer *t) { (void)vm, (void)t; }
static void up_request(void *vm, enum io_request what, uint32_t arg) { (void)vm, (void)what, (void)arg; }
static uint64_t up_now(void *vm) { return ((struct fuzz *)vm)->now; }
static uint64_t up_tsc(void *vm, unsigned cpu) { return (void)cpu, ((struct fuzz *)vm)->now * 2; }

static uint64_t next(struct fuzz *f) { return choices_next(&f->choices); }

static void must(int err)
{
	if (err) {
		fprintf(stderr, "setting up failed: %d\n", err);
		abort();
	}
}

/* A terminal that takes what it likes of what it gets. */
static size_t term_put(void *opaque, const uint8_t *buf, size_t n)
{
	struct fuzz *f = opaque;
	size_t taken = next(f) % 3 ? n : next(f) % (n + 1);

	for (size_t i = 0; i < taken; i++)
		f->shown += ((const volatile uint8_t *)buf)[i] | 1;
	return taken;
}

static void board_up(struct fuzz *f, enum board_transport transport)
{
	const struct board_config cfg = {.ncpus = 2, .ram_below_4g = VRING_RAM};
	const struct virtio_blk_setup blk = {.disk = &f->block, .queues = 2, .serial = "fuzz"};
	const struct virtio_net_setup net = {.backend = &f->wire.b, .loop = &f->loop, .mac = {2, 0, 0, 0, 0, 1}, .mtu = 1500};

	const struct virtio_balloon_options balloon = {0};
	const struct virtio_console_options console = {.put = term_put, .opaque = f};

	f->transport = transport;
	must(board_create(&f->io, &cfg, &f->board));
	must(virtio_blk_create(&f->io, &blk, &f->dev[0]));
	must(virtio_rng_create(&f->io, &f->dev[1]));
	must(virtio_net_create(&f->io, &net, &f->dev[2]));
	must(virtio_console_create(&f->io, &console, &f->dev[CONSOLE]));
	must(virtio_balloon_create(&f->io, &balloon, &f->dev[BALLOON]));
	for (unsigned i = 0; i < DEVICES; i++)
		must(board_add_virtio(&f->board, f->dev[i]->ops->name, f->dev[i], transport));
}

static void setup(struct fuzz *f)
{
	*f = (struct fuzz){.choices = choices_of_seed(NULL)};
	must(mem_create(&f->mem, 4 << 20, 8 << 8));
	must(mem_add_ram(f->mem, 0, VRING_RAM));
	must(mem_add_ram(f->mem, PLAY, 2 << 20));
	must(io_init(&f->io, f->mem));
	f->io.vm = f;
	f->io.kick = up_kick;
	f->io.wake_timers = up_wake;
	f->io.request = up_request;
	f->io.now = up_now;
	f->io.guest_tsc = up_tsc;
	f->io.guest_tsc_khz = 2000000;
	evloop_init(&f->loop);
	f->wire.b = (struct net_backend){.ops = &wire_ops, .name = "wire", .queues = 1, .source = {{.fd = -1}}};
	f->block.last = &f->block.first;
	pthread_mutex_init(&f->block.lock, NULL);
	pthread_cond_init(&f->block.more, NULL);
	must(pthread_create(&f->block.thread, NULL, block_main, &f->block));
}

/* --- the guest ---------------------------------------------------------------------------------------------------------------- */

static const uint64_t borders[] = {0, 1, 2, 3, 4, 7, 8, 0xf, 0x7f, 0x80, 0xff, 0x100, 0x3ff, 0x400, 0x7fff, 0x8000, 0xffff, 0x10000,
				   0x7fffffff, 0xc0000000, 0xfebff000, 0xfee00000, 0xffffffff, VRING_RAM - 1, VRING_RAM, UINT64_MAX};

static uint64_t value(struct fuzz *f) { return next(f) % 2 ? borders[next(f) % nitems(borders)] : next(f); }
static void put(struct fuzz *f, uint64_t at, unsigned size, uint64_t v) { (void)io_write(&f->io, IO_MMIO, at, size, v); }

static uint64_t get(struct fuzz *f, uint64_t at, unsigned size)
{
	uint64_t v;

	(void)io_read(&f->io, IO_MMIO, at, size, &v);
	return v;
}

static void config_put(struct fuzz *f, unsigned slot, unsigned reg, unsigned size, uint64_t v)
{
	(void)io_write(&f->io, IO_PIO, 0xcf8, 4, 0x80000000u | slot << 11 | (reg & 0xfc));
	(void)io_write(&f->io, IO_PIO, 0xcfc + (reg & 3), size, v);
}

/* A register of the device's common configuration, whichever transport. */
struct regs {
	uint64_t select, lo, hi, accept_select, accept, status, queue_select, size, enable, addr[3];
};
static const struct regs pci_regs = {.accept_select = 8, .accept = 12, .status = 20, .queue_select = 22, .size = 24, .enable = 28,
				     .addr = {32, 40, 48}};
static const struct regs mmio_regs = {.accept_select = 0x24, .accept = 0x20, .status = 0x70, .queue_select = 0x30, .size = 0x38,
				      .enable = 0x44, .addr = {0x80, 0x90, 0xa0}};

static uint64_t base(const struct fuzz *f, unsigned dev)
{
	return f->transport == BOARD_VIRTIO_ON_PCI ? PCI_AT(dev + 1) : BOARD_VIRTIO_MMIO(dev);
}

static uint64_t kick_at(const struct fuzz *f, unsigned dev, unsigned queue)
{
	return base(f, dev) + (f->transport == BOARD_VIRTIO_ON_PCI ? 0x3000 + 4 * queue : 0x50);
}

/* Every queue and the configuration on vectors of their own; MSI-X is the first capability, at 40h. */
static void use_msix(struct fuzz *f, unsigned dev, uint64_t at)
{
	for (unsigned i = 0; i <= f->dev[dev]->nqueues; i++) {
		put(f, at + 0x4000 + 16 * i, 8, 0xfee00000);
		put(f, at + 0x4000 + 16 * i + 8, 8, 0x40 + i);
		if (i < f->dev[dev]->nqueues) {
			put(f, at + 22, 2, i);
			put(f, at + 26, 2, i);
		}
	}
	put(f, at + 16, 2, f->dev[dev]->nqueues);
	config_put(f, dev + 1, 0x42, 2, 0x8000);
}

/* The model driver's idea of memory, which ends when the balloon takes some of it, until the next run. */
static bool in_one_piece(struct fuzz *f)
{
	uint8_t *ram = mem_frame(f->mem, 0, true);

	for (gfn_t i = 1; i < VRING_RAM >> 12; i++)
		if (mem_frame(f->mem, i, true) != ram + (i << 12))
			return false;
	return true;
}

/* What a driver does to bring the device to life. */
static void bring_up(struct fuzz *f, unsigned dev)
{
	bool pci = f->transport == BOARD_VIRTIO_ON_PCI;
	const struct regs *r = pci ? &pci_regs : &mmio_regs;
	uint64_t at = base(f, dev), features = f->dev[dev]->offered & (next(f) | BIT(32));

	if (pci)
		config_put(f, dev + 1, 4, 2, 6);
	put(f, at + r->status, pci ? 1 : 4, 0);
	put(f, at + r->status, pci ? 1 : 4, 3);
	for (unsigned i = 0; i < 2; i++) {
		put(f, at + r->accept_select, 4, i);
		put(f, at + r->accept, 4, (uint32_t)(features >> 32 * i));
	}
	put(f, at + r->status, pci ? 1 : 4, 11);
	for (unsigned q = 0; q < QUEUES && q < f->dev[dev]->nqueues; q++) {
		struct vdrv *d = &f->drv[dev][q];
		uint16_t size = (uint16_t)(1u << (next(f) % 6));

		gpa_t ring = 0x10000 + 0x1000 * (dev * QUEUES + q);

		if (!in_one_piece(f))
			return;
		/* Rings of all queues have places of their own; tables and buffers are shared. */
		vdrv_init_at(d, f->mem, size, features & BIT(34), features & BIT(29), features & BIT(28), ring, ring + 0x400,
			     ring + 0x800);
		put(f, at + r->queue_select, pci ? 2 : 4, q);
		put(f, at + r->size, pci ? 2 : 4, size);
		for (unsigned i = 0; i < 3; i++)
			put(f, at + r->addr[i], 4, i == 0 ? d->desc : i == 1 ? d->driver : d->device);
		put(f, at + r->enable, pci ? 2 : 4, 1);
	}
	if (pci && next(f) % 2)
		use_msix(f, dev, at);
	put(f, at + r->status, pci ? 1 : 4, 15);
}

/* Frame numbers or stretches; what is no memory, or other devices', among them. */
static void add_balloon(struct fuzz *f, unsigned queue)
{
	struct vdrv *d = &f->drv[BALLOON][queue];
	unsigned n = 1 + (unsigned)(next(f) % 40);
	gpa_t at = 0x80000 + next(f) % 0x10000 / 4 * 4;
	struct vbuf b[3] = {{at, n * 4, false}};

	if (!d->ram || !d->size)
		return;
	for (unsigned i = 0; i < n; i++) {
		uint32_t frame = (uint32_t)(next(f) % 256 ? (PLAY >> 12) + next(f) % 512 : next(f) % 8 ? value(f) : next(f) % 512);

		memcpy(vat(d, at + 4 * i), &frame, 4);
	}
	if (queue >= 2 && next(f) % 2)
		for (n = 0; n < 3; n++)
			b[n] = (struct vbuf){next(f) % 32 ? PLAY + next(f) % (2 << 20) : value(f),
					     (uint32_t)(next(f) % 8 ? next(f) % 0x20000 : value(f)), true};
	else
		n = 1;
	(void)vdrv_add(d, b, n, d->indirect && (next(f) & 1));
}

static void host_side(struct fuzz *f)
{
	struct virtio_balloon_info info;

	static const uint8_t typed[5000];

	pthread_mutex_lock(&f->io.lock);
	f->typed += virtio_console_input(f->dev[CONSOLE], typed, next(f) % sizeof(typed));
	virtio_console_drained(f->dev[CONSOLE]);
	virtio_console_resize(f->dev[CONSOLE], (uint16_t)value(f), (uint16_t)value(f));
	if (next(f) % 2)
		virtio_balloon_set(f->dev[BALLOON], value(f));
	else
		(void)virtio_balloon_poll(f->dev[BALLOON]);
	virtio_balloon_info(f->dev[BALLOON], &info);
	pthread_mutex_unlock(&f->io.lock);
	f->ballooned += mem_ballooned(f->mem) >> 12;
	if (mem_ballooned(f->mem) > mem_ram_size(f->mem) || mem_populated(f->mem) > mem_ram_size(f->mem))
		abort();
}

/* A chain as the device expects it, or nearly. */
static void add(struct fuzz *f, unsigned dev, unsigned queue)
{
	struct vdrv *d = &f->drv[dev][queue];
	static const uint32_t types[] = {0, 1, 4, 8, 11, 13, 2, 99};
	uint64_t header[2] = {types[next(f) % nitems(types)], next(f) % 4 ? next(f) % 1000 : value(f)};
	gpa_t at = 0x100000 + next(f) % 0xe0000;
	gpa_t data = next(f) % 4 ? 0x100000 : PLAY;
	struct vbuf b[3] = {{at, 16, false}, {data + next(f) % 0xc0000, (uint32_t)(next(f) % 40 * 512),
			     next(f) % 8 ? !(header[0] & 1) : next(f) & 1},
			    {0x80000 + next(f) % 0x1000, 1, true}};

	if (!d->ram || !d->size)
		return;
	memcpy(vat(d, at), header, sizeof(header));
	if (dev == 0 && next(f) % 8)
		(void)vdrv_add(d, b, 3, d->indirect && (next(f) & 1));
	else if (next(f) & 1)
		(void)vdrv_add(d, b + 1, 1 + next(f) % 2, d->indirect && (next(f) & 1));
	else
		(void)vdrv_add(d, b, 1 + next(f) % 3, d->indirect && (next(f) & 1));
}

static void poke(struct fuzz *f, unsigned dev)
{
	unsigned size = 1u << (next(f) % 4);
	uint64_t at = base(f, dev) + (next(f) % 8) * 0x1000 + next(f) % (next(f) % 4 ? 0x48 : 0x1000);

	if (f->transport == BOARD_VIRTIO_ON_MMIO)
		at = base(f, dev) + next(f) % (next(f) % 4 ? 0x140 : 0x1000);
	if (next(f) % 4)
		at &= ~(uint64_t)(size - 1);
	if (next(f) % 3)
		put(f, at, size, value(f));
	else
		(void)get(f, at, size);
}

static void poke_config(struct fuzz *f, unsigned dev)
{
	unsigned size = 1u << (next(f) % 3), reg = (unsigned)(next(f) % 256) & ~(size - 1);
	uint64_t v;

	if (next(f) % 16 == 0)
		config_put(f, dev + 1, 0x10 + 4 * (next(f) % 3), 4, PCI_AT(1 + next(f) % 5)); /* onto another, and back */
	else if (next(f) % 3)
		config_put(f, dev + 1, reg, size, value(f));
	else
		(void)io_read(&f->io, IO_PIO, 0xcfc + (reg & 3), size, &v);
}

static void spoil(struct fuzz *f, unsigned dev, unsigned queue)
{
	struct vdrv *d = &f->drv[dev][queue];
	uint64_t v = value(f);

	if (d->ram)
		memcpy(vat(d, (next(f) % 4 ? d->desc : d->tables) + next(f) % 0x1000), &v, 1u << (next(f) % 4));
}

/* State, saved to a tape or loaded from one with errors. */
struct tape {
	struct io_state s;
	struct fuzz *f;
	unsigned errors;
};

static void tape_field(struct io_state *s, const char *name, void *p, size_t size)
{
	struct tape *t = container_of(s, struct tape, s);

	(void)name;
	if (t->errors && next(t->f) % 64 == 0)
		((uint8_t *)p)[next(t->f) % size] ^= (uint8_t)(1u << (next(t->f) % 8));
}

static void walk_state(struct fuzz *f)
{
	struct tape t = {.s = {.field = tape_field}, .f = f, .errors = next(f) % 4 == 0};

	/* As for a snapshot: no request is under way. Only the virtio devices, the others have tests of their own. */
	pthread_mutex_lock(&f->io.lock);
	for (unsigned i = 0; i < DEVICES; i++) {
		struct device *d = &f->board.device[f->board.ndevices - DEVICES + i];

		while (f->dev[i]->holds)
			pthread_cond_wait(&f->dev[i]->idle, &f->io.lock);
		d->class->state(d->inst, &t.s);
	}
	pthread_mutex_unlock(&f->io.lock);
}

static void step(struct fuzz *f)
{
	unsigned dev = (unsigned)(next(f) % DEVICES), queue = (unsigned)(next(f) % QUEUES), what = (unsigned)(next(f) % 64);

	if (queue >= f->dev[dev]->nqueues)
		queue = 0;
	if (what < 3)
		bring_up(f, dev);
	else if (what < 23 && dev == BALLOON && next(f) % 8)
		add_balloon(f, queue);
	else if (what < 23)
		add(f, dev, queue);
	else if (what < 35)
		put(f, kick_at(f, dev, queue), 4, queue);
	else if (what < 37)
		spoil(f, dev, queue);
	else if (what < 52)
		poke(f, dev);
	else if (what < 56 && f->transport == BOARD_VIRTIO_ON_PCI)
		poke_config(f, dev);
	else if (what < 63)
		f->now += next(f) % 20000000, (void)io_timers_run(&f->io);
	else if (next(f) % 2 == 0)
		walk_state(f);
	if (what % 16 == 0)
		host_side(f);
	f->live += virtio_live(f->dev[dev]);
	f->failed += f->dev[dev]->status & VIRTIO_CONFIG_S_NEEDS_RESET ? 1 : 0;
}

/* Waits for requests too. */
static void reset(struct fuzz *f)
{
	pthread_mutex_lock(&f->io.lock);
	board_reset(&f->board);
	pthread_mutex_unlock(&f->io.lock);
	mem_reset(f->mem); /* what the balloon took of the rings' memory would stay in pieces */
	memset(f->drv, 0, sizeof(f->drv));
}

#ifdef LIBFUZZER
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct fuzz pci, mmio;
	struct fuzz *f = size && data[0] & 1 ? &mmio : &pci;

	if (!size)
		return 0;
	if (!f->mem) {
		setup(f);
		board_up(f, f == &mmio ? BOARD_VIRTIO_ON_MMIO : BOARD_VIRTIO_ON_PCI);
	}
	reset(f);
	f->choices = choices_of_input(data + 1, size - 1);
	for (unsigned i = 0; i < 2 * STEPS && choices_left(&f->choices); i++)
		step(f);
	reset(f);
	return 0;
}
#else
static void run(struct fuzz *f)
{
	reset(f);
	for (unsigned i = 0; i < STEPS; i++)
		step(f);
}

int main(int argc, char **argv)
{
	unsigned long runs = argc > 1 ? strtoul(argv[1], NULL, 0) : 1000;
	struct fuzz f;

	setup(&f);
	f.choices = choices_of_seed(argc > 2 ? argv[2] : NULL);
	/* A run is hundreds of steps: the count asked for is in units of ten steps. */
	runs = (runs + STEPS / 10 - 1) / (STEPS / 10);
	for (unsigned t = 0; t < 2; t++) {
		board_up(&f, t ? BOARD_VIRTIO_ON_MMIO : BOARD_VIRTIO_ON_PCI);
		for (unsigned long i = 0; i < (runs + 1) / 2; i++)
			run(&f);
		pthread_mutex_lock(&f.io.lock);
		board_reset(&f.board); /* waits for requests */
		pthread_mutex_unlock(&f.io.lock);
		board_destroy(&f.board);
	}
	pthread_mutex_lock(&f.block.lock);
	f.block.stop = true;
	pthread_cond_signal(&f.block.more);
	pthread_mutex_unlock(&f.block.lock);
	pthread_join(f.block.thread, NULL);
	printf("%lu runs of %d steps, %llu on live devices, %llu on failed ones; %llu disk requests, %llu messages, %llu ballooned, "
	       "%llu typed\n", runs, STEPS,
	       (unsigned long long)f.live, (unsigned long long)f.failed, (unsigned long long)f.block.requests,
	       (unsigned long long)f.messages, (unsigned long long)f.ballooned, (unsigned long long)f.typed);
	io_fini(&f.io);
	mem_destroy(f.mem);
	return !f.live || !f.failed || !f.block.requests || !f.ballooned || !f.shown || !f.typed;
}
#endif
