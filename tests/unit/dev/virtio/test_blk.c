/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A virtio disk on both transports, driven through its registers by the model driver; the block layer is a fake whose requests finish
 * when the test says so.
 */
#include "../machine.h"

#include <errno.h>
#include <linux/virtio_blk.h>
#include <unistd.h>

#include "dev/virtio/blk.h"
#include "vring.h"

#define SECTORS 1000
#define HEADER 0x100000ull
#define DATA 0x102000ull
#define STATUS 0x101000ull
#define TABLE 0xc0004000ull
#define REGS 0xc0000000ull
#define MMIO BOARD_VIRTIO_MMIO(0)

/* --- the fake block layer -------------------------------------------------------------------------------------------------- */

struct block {
	struct block_request *pending[256];
	unsigned n, ops[5];
	uint64_t offset, bytes;
	bool read_only, unmap, cached;
	int plugs;
	void (*batch)(void *opaque);
	void *opaque;
};

uint64_t block_size(const struct block *b) { return (void)b, SECTORS * 512; }
bool block_read_only(const struct block *b) { return b->read_only; }

void block_submit(struct block *b, struct block_request *r)
{
	assert_true(b->plugs >= 0);
	b->pending[b->n++] = r;
	b->ops[r->op]++;
	b->offset = r->offset;
	b->bytes = r->bytes;
	b->unmap = r->unmap;
}

int block_try_read(struct block *b, struct block_request *r)
{
	assert_int_equal(r->op, BLOCK_READ);
	if (!b->cached)
		return -EAGAIN;
	b->offset = r->offset;
	for (unsigned i = 0; i < r->niov; i++)
		memset(r->iov[i].iov_base, 0xa5, r->iov[i].iov_len);
	return 0;
}

void block_plug(struct block *b) { b->plugs++; }
void block_unplug(struct block *b) { b->plugs--; }

void block_on_batch(struct block *b, void (*fn)(void *opaque), void *opaque)
{
	b->batch = fn;
	b->opaque = opaque;
}

/* Ends everything that is pending, in batches, as the real one does when it is polled. */
static void finish(struct block *b, int result)
{
	while (b->n) {
		while (b->n) {
			struct block_request *r = b->pending[--b->n];

			for (unsigned i = 0; r->op == BLOCK_READ && i < r->niov; i++)
				memset(r->iov[i].iov_base, 0x5a, r->iov[i].iov_len);
			r->done(r, result);
		}
		assert_int_equal(b->plugs, 0);
		b->batch(b->opaque);
	}
}

/* --- machine and driver ---------------------------------------------------------------------------------------------------- */

struct rig {
	struct machine *m;
	struct mem *mem;
	struct block block;
	struct virtio_dev *dev;
	struct vdrv d;
	bool pci;
};

static void rig_create(struct rig *r, bool pci, bool read_only)
{
	struct virtio_blk_setup setup = {.disk = &r->block, .queues = 2, .serial = "a serial of 20 chars"};

	*r = (struct rig){.m = m_create(1), .pci = pci, .block.read_only = read_only};
	assert_int_equal(mem_create(&r->mem, 4 << 20, 4 << 8), 0);
	assert_int_equal(mem_add_ram(r->mem, 0, VRING_RAM), 0);
	r->m->io.mem = r->mem;
	assert_int_equal(virtio_blk_create(&r->m->io, &setup, &r->dev), 0);
	assert_int_equal(board_add_virtio(&r->m->board, "disk0", r->dev, pci ? BOARD_VIRTIO_ON_PCI : BOARD_VIRTIO_ON_MMIO), 0);
}

static void rig_destroy(struct rig *r)
{
	m_destroy(r->m);
	mem_destroy(r->mem);
}

static void put(struct rig *r, uint64_t at, unsigned size, uint64_t v) { io_write(&r->m->io, IO_MMIO, at, size, v); }

static uint64_t get(struct rig *r, uint64_t at, unsigned size)
{
	uint64_t v;

	io_read(&r->m->io, IO_MMIO, at, size, &v);
	return v;
}

static void cfg_put(struct rig *r, unsigned reg, unsigned size, uint32_t v)
{
	outl(r->m, 0xcf8, 0x80000800u | (reg & 0xfc));
	io_write(&r->m->io, IO_PIO, 0xcfc + (reg & 3), size, v);
}

static uint32_t cfg_get(struct rig *r, unsigned reg)
{
	outl(r->m, 0xcf8, 0x80000800u | reg);
	return inl(r->m, 0xcfc);
}

static void set_status(struct rig *r, uint8_t v)
{
	if (r->pci)
		put(r, REGS + 20, 1, v);
	else
		put(r, MMIO + 0x70, 4, v);
}

static uint8_t status(struct rig *r) { return r->pci ? get(r, REGS + 20, 1) : get(r, MMIO + 0x70, 4); }

static void accept(struct rig *r, uint64_t features)
{
	for (unsigned i = 0; i < 2; i++) {
		put(r, r->pci ? REGS + 8 : MMIO + 0x24, 4, i);
		put(r, r->pci ? REGS + 12 : MMIO + 0x20, 4, (uint32_t)(features >> 32 * i));
	}
}

static void queue(struct rig *r, unsigned n, uint16_t size)
{
	const gpa_t addr[] = {r->d.desc, r->d.driver, r->d.device};

	put(r, r->pci ? REGS + 22 : MMIO + 0x30, r->pci ? 2 : 4, n);
	put(r, r->pci ? REGS + 24 : MMIO + 0x38, r->pci ? 2 : 4, size);
	for (unsigned i = 0; i < 3; i++) {
		if (r->pci) {
			put(r, REGS + 32 + 8 * i, 8, addr[i]);
		} else {
			put(r, MMIO + 0x80 + 0x10 * i, 4, (uint32_t)addr[i]);
			put(r, MMIO + 0x84 + 0x10 * i, 4, addr[i] >> 32);
		}
	}
	put(r, r->pci ? REGS + 28 : MMIO + 0x44, r->pci ? 2 : 4, 1);
}

static void start(struct rig *r, uint64_t features)
{
	features |= BIT(VIRTIO_F_VERSION_1);
	set_status(r, 0);
	if (r->pci)
		cfg_put(r, 4, 2, 6);
	set_status(r, 3);
	accept(r, features);
	set_status(r, 11);
	assert_int_equal(status(r), 11);
	vdrv_init(&r->d, r->mem, 128, features & BIT(34), features & BIT(29), true);
	queue(r, 0, 128);
	set_status(r, 15);
	assert_int_equal(status(r), 15);
}

static void kick(struct rig *r) { put(r, r->pci ? REGS + 0x3000 : MMIO + 0x50, 4, 0); }

/* One request with `len` bytes of data at DATA, up to and with the kick. */
static void request(struct rig *r, uint32_t type, uint64_t sector, uint32_t len, bool to_guest)
{
	struct vbuf b[3] = {{HEADER, 16, false}, {DATA, len, to_guest}, {STATUS, 1, true}};
	uint64_t header[2] = {type, sector};

	memcpy(vat(&r->d, HEADER), header, 16);
	*(uint8_t *)vat(&r->d, STATUS) = 0xee;
	if (!len)
		b[1] = b[2];
	assert_true(vdrv_add(&r->d, b, len ? 3 : 2, false) >= 0);
	kick(r);
}

/* The answer: its status byte, 0xff if there is none. *written as the used ring says. */
static uint8_t answer(struct rig *r, uint32_t *written)
{
	uint16_t id;

	if (!vdrv_take(&r->d, &id, written))
		return 0xff;
	vdrv_free(&r->d, id);
	return *(uint8_t *)vat(&r->d, STATUS);
}

static void requests(struct rig *r, uint64_t features)
{
	struct virtio_blk_discard_write_zeroes ranges[2] = {{.sector = 8, .num_sectors = 16}, {.sector = 990, .num_sectors = 10}};
	const struct virtio_blk_stats *stats = virtio_blk_stats(r->dev);
	uint32_t w;

	start(r, features | BIT(VIRTIO_BLK_F_FLUSH));
	request(r, VIRTIO_BLK_T_IN, 3, 4096, true);
	assert_int_equal(answer(r, &w), 0xff);
	assert_int_equal(r->block.offset, 3 * 512);
	assert_int_equal(r->block.bytes, 4096);
	finish(&r->block, 0);
	assert_int_equal(answer(r, &w), VIRTIO_BLK_S_OK);
	assert_int_equal(w, 4097);
	assert_int_equal(*(uint8_t *)vat(&r->d, DATA + 4095), 0x5a);
	request(r, VIRTIO_BLK_T_OUT, 999, 512, false);
	finish(&r->block, 0);
	assert_int_equal(answer(r, &w), VIRTIO_BLK_S_OK);
	assert_int_equal(w, 1);
	assert_int_equal(r->block.ops[BLOCK_FLUSH], 0);
	request(r, VIRTIO_BLK_T_FLUSH, 0, 0, false);
	finish(&r->block, 0);
	assert_int_equal(answer(r, &w), VIRTIO_BLK_S_OK);
	assert_int_equal(r->block.ops[BLOCK_FLUSH], 1);
	request(r, VIRTIO_BLK_T_GET_ID, 0, 20, true);
	assert_int_equal(answer(r, &w), VIRTIO_BLK_S_OK);
	assert_int_equal(w, 21);
	assert_memory_equal(vat(&r->d, DATA), "a serial of 20 chars", 20);
	request(r, VIRTIO_BLK_T_OUT, 0, 512, false);
	finish(&r->block, -EIO);
	assert_int_equal(answer(r, &w), VIRTIO_BLK_S_IOERR);
	memcpy(vat(&r->d, DATA), ranges, sizeof(ranges));
	request(r, VIRTIO_BLK_T_DISCARD, 0, sizeof(ranges), false);
	assert_int_equal(r->block.n, 1); /* one range after the other */
	finish(&r->block, 0);
	assert_int_equal(r->block.ops[BLOCK_DISCARD], 2);
	assert_int_equal(r->block.offset, 990 * 512);
	assert_int_equal(answer(r, &w), VIRTIO_BLK_S_OK);
	ranges[0].flags = 1;
	memcpy(vat(&r->d, DATA), ranges, sizeof(ranges));
	request(r, VIRTIO_BLK_T_WRITE_ZEROES, 0, 16, false);
	assert_true(r->block.unmap);
	finish(&r->block, 0);
	assert_int_equal(answer(r, &w), VIRTIO_BLK_S_OK);
	assert_true(stats->reads && stats->writes >= 2 && stats->flushes && stats->discards >= 2 && stats->errors);
	assert_int_equal(stats->read_bytes % 4096, 0);
}

static void wrong_requests(struct rig *r)
{
	struct virtio_blk_discard_write_zeroes bad = {.sector = 990, .num_sectors = 11};
	uint32_t w;

	start(r, 0);
	request(r, VIRTIO_BLK_T_IN, 999, 1024, true); /* past the end */
	assert_int_equal(answer(r, &w), VIRTIO_BLK_S_IOERR);
	request(r, VIRTIO_BLK_T_IN, UINT64_MAX, 512, true);
	assert_int_equal(answer(r, &w), VIRTIO_BLK_S_IOERR);
	request(r, VIRTIO_BLK_T_OUT, 0, 511, false);
	assert_int_equal(answer(r, &w), VIRTIO_BLK_S_IOERR);
	request(r, VIRTIO_BLK_T_IN, 0, 0, true);
	assert_int_equal(answer(r, &w), VIRTIO_BLK_S_OK);
	request(r, 77, 0, 512, false);
	assert_int_equal(answer(r, &w), VIRTIO_BLK_S_UNSUPP);
	memcpy(vat(&r->d, DATA), &bad, sizeof(bad));
	request(r, VIRTIO_BLK_T_DISCARD, 0, 16, false);
	assert_int_equal(answer(r, &w), VIRTIO_BLK_S_IOERR);
	request(r, VIRTIO_BLK_T_DISCARD, 0, 17, false);
	assert_int_equal(answer(r, &w), VIRTIO_BLK_S_IOERR);
	request(r, VIRTIO_BLK_T_DISCARD, 0, 16 * 17, false);
	assert_int_equal(answer(r, &w), VIRTIO_BLK_S_IOERR);
	bad = (struct virtio_blk_discard_write_zeroes){.num_sectors = 1, .flags = 1};
	memcpy(vat(&r->d, DATA), &bad, sizeof(bad));
	request(r, VIRTIO_BLK_T_DISCARD, 0, 16, false);
	assert_int_equal(answer(r, &w), VIRTIO_BLK_S_UNSUPP);
	assert_int_equal(r->block.n, 0);
	assert_int_equal(status(r), 15);
}

static void test_requests(void **state)
{
	static const uint64_t features[] = {0, BIT(34), BIT(29) | BIT(28), BIT(34) | BIT(29) | BIT(28)};

	(void)state;
	for (unsigned pci = 0; pci < 2; pci++) {
		struct rig r;

		rig_create(&r, pci, false);
		for (unsigned i = 0; i < nitems(features); i++) {
			requests(&r, features[i]);
			memset(r.block.ops, 0, sizeof(r.block.ops));
		}
		wrong_requests(&r);
		rig_destroy(&r);
	}
}

/* Without a driver that flushes, a write is answered after its own flush; with CONFIG_WCE the driver chooses. */
static void test_write_through(void **state)
{
	struct rig r;
	uint32_t w;

	(void)state;
	rig_create(&r, true, false);
	start(&r, 0);
	request(&r, VIRTIO_BLK_T_OUT, 0, 512, false);
	r.block.n = 0;
	r.block.pending[0]->done(r.block.pending[0], 0);
	r.block.batch(r.block.opaque);
	assert_int_equal(answer(&r, &w), 0xff);
	assert_int_equal(r.block.pending[0]->op, BLOCK_FLUSH);
	finish(&r.block, 0);
	assert_int_equal(answer(&r, &w), VIRTIO_BLK_S_OK);
	start(&r, BIT(VIRTIO_BLK_F_FLUSH) | BIT(VIRTIO_BLK_F_CONFIG_WCE));
	assert_int_equal(get(&r, REGS + 0x2000 + 32, 1), 1);
	put(&r, REGS + 0x2000 + 32, 1, 0);
	put(&r, REGS + 0x2000, 8, 0); /* capacity is read-only */
	assert_int_equal(get(&r, REGS + 0x2000, 8), SECTORS);
	r.block.ops[BLOCK_FLUSH] = 0;
	request(&r, VIRTIO_BLK_T_OUT, 0, 512, false);
	finish(&r.block, 0);
	assert_int_equal(r.block.ops[BLOCK_FLUSH], 1);
	assert_int_equal(answer(&r, &w), VIRTIO_BLK_S_OK);
	rig_destroy(&r);

	rig_create(&r, false, true); /* read-only */
	start(&r, BIT(VIRTIO_BLK_F_RO));
	request(&r, VIRTIO_BLK_T_OUT, 0, 512, false);
	assert_int_equal(answer(&r, &w), VIRTIO_BLK_S_IOERR);
	assert_int_equal(r.block.n, 0);
	rig_destroy(&r);
}

/* More requests than places: the rest waits in the ring and follows as places become free. */
static void test_places(void **state)
{
	struct rig r;
	uint32_t w;
	unsigned done = 0;

	(void)state;
	rig_create(&r, true, false);
	start(&r, BIT(VIRTIO_BLK_F_FLUSH));
	for (unsigned i = 0; i < 42; i++) {
		request(&r, VIRTIO_BLK_T_IN, i, 512, true);
		request(&r, VIRTIO_BLK_T_FLUSH, 0, 0, false);
		request(&r, VIRTIO_BLK_T_GET_ID, 0, 0, false);
		if (r.d.nfree < 8)
			break;
	}
	assert_in_range(r.block.n, 20, 64);
	while (r.block.n) {
		finish(&r.block, 0);
		while (answer(&r, &w) != 0xff)
			done++;
	}
	assert_int_equal(r.d.nfree, 128);
	assert_true(done > 40);
	rig_destroy(&r);
}

/* What finishes together is answered together: one signal tells of all. */
static void test_batch(void **state)
{
	uint64_t before;
	struct rig r;
	uint32_t w;

	(void)state;
	rig_create(&r, true, false);
	start(&r, BIT(VIRTIO_BLK_F_FLUSH));
	for (unsigned i = 0; i < 5; i++)
		request(&r, VIRTIO_BLK_T_IN, i, 512, true);
	before = r.dev->queue[0].signals;
	finish(&r.block, 0);
	assert_int_equal(r.dev->queue[0].signals, before + 1);
	for (unsigned i = 0; i < 5; i++)
		assert_int_equal(answer(&r, &w), VIRTIO_BLK_S_OK);
	assert_int_equal(answer(&r, &w), 0xff);
	rig_destroy(&r);
}

/* Reads of what is in memory are answered within the kick. */
static void test_cached(void **state)
{
	struct rig r;
	uint32_t w;

	(void)state;
	rig_create(&r, true, false);
	start(&r, BIT(VIRTIO_BLK_F_FLUSH));
	r.block.cached = true;
	request(&r, VIRTIO_BLK_T_IN, 7, 4096, true);
	assert_int_equal(r.block.n, 0);
	assert_int_equal(r.block.offset, 7 * 512);
	assert_int_equal(answer(&r, &w), VIRTIO_BLK_S_OK);
	assert_int_equal(w, 4097);
	assert_int_equal(*(uint8_t *)vat(&r.d, DATA + 4095), 0xa5);
	assert_int_equal(virtio_blk_stats(r.dev)->read_bytes, 4096);
	request(&r, VIRTIO_BLK_T_IN, 999, 1024, true); /* past the end */
	assert_int_equal(answer(&r, &w), VIRTIO_BLK_S_IOERR);
	request(&r, VIRTIO_BLK_T_OUT, 7, 512, false);
	assert_int_equal(r.block.n, 1);
	finish(&r.block, 0);
	assert_int_equal(answer(&r, &w), VIRTIO_BLK_S_OK);
	rig_destroy(&r);
}

/* --- negotiation, failure, interrupts --------------------------------------------------------------------------------------- */

static void test_negotiation(void **state)
{
	(void)state;
	for (unsigned pci = 0; pci < 2; pci++) {
		struct rig r;

		rig_create(&r, pci, false);
		set_status(&r, 3);
		accept(&r, 0); /* a driver of before 1.0 */
		set_status(&r, 11);
		assert_int_equal(status(&r), 3);
		accept(&r, BIT(32) | BIT(63)); /* what was not offered */
		set_status(&r, 11);
		assert_int_equal(status(&r), 3);
		set_status(&r, 7); /* DRIVER_OK without FEATURES_OK */
		assert_int_equal(status(&r), 3);
		accept(&r, BIT(32));
		set_status(&r, 11);
		set_status(&r, 8); /* bits are only gained */
		assert_int_equal(status(&r), 11);
		accept(&r, BIT(32) | BIT(34)); /* too late */
		set_status(&r, 15);
		assert_false(virtio_has(r.dev, 34));
		set_status(&r, 0);
		assert_int_equal(status(&r), 0);
		set_status(&r, 3);
		vdrv_init(&r.d, r.mem, 8, false, false, true);
		queue(&r, 0, 8); /* before FEATURES_OK */
		assert_int_equal(status(&r), 3 | VIRTIO_CONFIG_S_NEEDS_RESET);
		set_status(&r, 0);
		set_status(&r, 3);
		accept(&r, BIT(32));
		set_status(&r, 11);
		queue(&r, 0, 7); /* no power of two */
		assert_int_equal(status(&r), 11 | VIRTIO_CONFIG_S_NEEDS_RESET);
		rig_destroy(&r);
	}
}

static void spoil(struct rig *r)
{
	*v16(&r->d, r->d.driver + 2) += 500; /* the available index jumps */
	kick(r);
}

static void test_failure(void **state)
{
	struct vbuf b = {HEADER, 16, false};
	struct rig r;
	uint32_t w;

	(void)state;
	rig_create(&r, true, false);
	m_pic_init(r.m, 1);
	start(&r, 0);
	request(&r, VIRTIO_BLK_T_IN, 0, 512, true);
	spoil(&r);
	assert_int_equal(status(&r), 15 | VIRTIO_CONFIG_S_NEEDS_RESET);
	assert_true(m_pending(r.m, 0));             /* configuration interrupt on the pin */
	assert_int_equal(get(&r, REGS + 0x1000, 1), 2);
	assert_int_equal(get(&r, REGS + 0x1000, 1), 0);
	assert_false(m_pending(r.m, 0));
	finish(&r.block, 0);                        /* what was under way ends quietly */
	assert_int_equal(answer(&r, &w), 0xff);
	request(&r, VIRTIO_BLK_T_IN, 0, 512, true);
	assert_int_equal(r.block.n, 0);
	start(&r, 0);                               /* reset and everything works again */
	request(&r, VIRTIO_BLK_T_GET_ID, 0, 20, true);
	assert_int_equal(answer(&r, &w), VIRTIO_BLK_S_OK);
	assert_int_equal(get(&r, REGS + 0x1000, 1), 1);
	vdrv_add(&r.d, &b, 1, false);               /* a request without status */
	kick(&r);
	assert_int_equal(status(&r), 15 | VIRTIO_CONFIG_S_NEEDS_RESET);
	rig_destroy(&r);

	rig_create(&r, false, false);
	start(&r, 0);
	spoil(&r);
	assert_int_equal(get(&r, MMIO + 0x60, 4), 2);
	put(&r, MMIO + 0x64, 4, 2);
	assert_int_equal(get(&r, MMIO + 0x60, 4), 0);
	rig_destroy(&r);
}

static void test_pci(void **state)
{
	struct rig r;
	uint32_t w;

	(void)state;
	rig_create(&r, true, false);
	assert_int_equal(cfg_get(&r, 0), 0x10421af4);
	start(&r, 0);
	assert_int_equal(get(&r, REGS + 18, 2), 2);
	assert_int_equal(get(&r, REGS + 16, 2), 0xffff);
	put(&r, REGS + 16, 2, 3); /* there are vectors 0 to 2 */
	assert_int_equal(get(&r, REGS + 16, 2), 0xffff);
	put(&r, REGS + 22, 2, 9);
	assert_int_equal(get(&r, REGS + 24, 2), 0); /* no such queue */
	put(&r, REGS + 22, 2, 0);
	put(&r, REGS + 32, 8, 0); /* in use: addresses stay */
	assert_int_equal(get(&r, REGS + 32, 8), r.d.desc);
	put(&r, REGS + 26, 2, 1);
	put(&r, TABLE + 16, 8, 0xfee00000);
	put(&r, TABLE + 24, 8, 0x61);
	cfg_put(&r, 0x42, 2, 0x8000);
	request(&r, VIRTIO_BLK_T_GET_ID, 0, 20, true);
	assert_int_equal(answer(&r, &w), VIRTIO_BLK_S_OK);
	assert_int_equal(m_ack(r.m, 0), 0x61);
	assert_int_equal(get(&r, REGS + 0x1000, 1), 0);
	cfg_put(&r, 4, 2, 2); /* no bus mastering: the kick waits for it */
	request(&r, VIRTIO_BLK_T_GET_ID, 0, 20, true);
	assert_int_equal(answer(&r, &w), 0xff);
	cfg_put(&r, 4, 2, 6);
	assert_int_equal(answer(&r, &w), VIRTIO_BLK_S_OK);
	rig_destroy(&r);
}

/* The window in configuration space, for guests that cannot map BARs. */
static void test_window(void **state)
{
	unsigned at = 0x34, cap = 0;
	struct rig r;

	(void)state;
	rig_create(&r, true, false);
	for (unsigned n = 0; n < 10; n++) {
		at = cfg_get(&r, at & 0xfc) >> (at & 3) * 8 & 0xff;
		if (!at)
			break;
		if ((cfg_get(&r, at) & 0xff) == 9 && cfg_get(&r, at) >> 24 == 5)
			cap = at;
		at++;
	}
	assert_true(cap >= 0x40);
	cfg_put(&r, cap + 4, 1, 0);
	cfg_put(&r, cap + 8, 4, 0x2000);
	cfg_put(&r, cap + 12, 4, 4);
	assert_int_equal(cfg_get(&r, cap + 16), SECTORS);
	cfg_put(&r, cap + 8, 4, 20);
	cfg_put(&r, cap + 12, 4, 1);
	cfg_put(&r, cap + 16, 1, 3);
	assert_int_equal(status(&r), 3);
	cfg_put(&r, cap + 8, 4, 0x4000); /* past the end */
	(void)cfg_get(&r, cap + 16);
	cfg_put(&r, cap + 4, 1, 2); /* another BAR */
	cfg_put(&r, cap + 8, 4, 20);
	cfg_put(&r, cap + 16, 1, 0);
	assert_int_equal(status(&r), 3);
	rig_destroy(&r);
}

static void *finish_later(void *arg)
{
	usleep(20000);
	finish(arg, 0);
	return NULL;
}

/* A reset waits for what the host still writes to. */
static void test_reset_waits(void **state)
{
	struct rig r;
	pthread_t t;

	(void)state;
	for (unsigned pci = 0; pci < 2; pci++) {
		rig_create(&r, pci, false);
		start(&r, 0);
		request(&r, VIRTIO_BLK_T_IN, 0, 512, true);
		assert_int_equal(r.block.n, 1);
		assert_int_equal(pthread_create(&t, NULL, finish_later, &r.block), 0);
		set_status(&r, 0);
		assert_int_equal(r.block.n, 0);
		assert_int_equal(*(uint8_t *)vat(&r.d, DATA + 511), 0x5a);
		assert_int_equal(status(&r), 0);
		pthread_join(t, NULL);
		rig_destroy(&r);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_requests), cmocka_unit_test(test_write_through), cmocka_unit_test(test_places), cmocka_unit_test(test_batch),
		cmocka_unit_test(test_cached),
		cmocka_unit_test(test_negotiation), cmocka_unit_test(test_failure), cmocka_unit_test(test_pci),
		cmocka_unit_test(test_window), cmocka_unit_test(test_reset_waits),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
