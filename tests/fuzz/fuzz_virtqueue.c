/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Fuzzes the virtqueue code: a model driver builds rings that are right, then bytes of the rings, tables and addresses are changed at
 * random between and during the device's work. Whatever they hold, pop() ends, and every piece it hands out lies in guest memory,
 * within the device's limits.
 *
 * As a program: fuzz_virtqueue RUNS [SEED]. With -DLIBFUZZER a libFuzzer target: the input is the choices, or the ring memory.
 */
#include <stdio.h>

#include "choices.h"
#include "dev/virtio/queue.h"
#include "lib/vring.h"

#define PIECES 128
#define MAX_BYTES (256u << 10)
#define RING_AREA 0x40000 /* desc, driver and device areas and a few tables */

struct fuzz {
	struct mem *mem;
	struct virtqueue q;
	struct virtqueue_chain c;
	struct vdrv d;
	struct choices choices;
	uint64_t chains, broken;
};

static uint64_t next(struct fuzz *f) { return choices_next(&f->choices); }

static void die(const char *what)
{
	fprintf(stderr, "%s\n", what);
	abort();
}

static void check_list(const struct fuzz *f, const struct io_dma *d)
{
	uint64_t sum = 0;

	for (unsigned i = 0; i < d->n; i++) {
		const uint8_t *p = d->iov[i].iov_base;
		uint64_t len = d->iov[i].iov_len;

		if (!len || d->gpa[i] >= VRING_RAM || len > VRING_RAM - d->gpa[i])
			die("a piece outside guest memory");
		if (p != f->d.ram + d->gpa[i])
			die("a piece that is not where the guest address says");
		sum += len;
	}
	if (sum != d->bytes)
		die("pieces do not add up");
}

static void check_chain(const struct fuzz *f)
{
	if (f->c.r.n + f->c.w.n > PIECES || f->c.r.bytes + f->c.w.bytes > MAX_BYTES)
		die("a chain over the limits");
	if (f->c.w.n && f->c.w.iov != f->c.iov + f->c.r.n)
		die("writable pieces not behind the readable ones");
	check_list(f, &f->c.r);
	check_list(f, &f->c.w);
}

static void setup(struct fuzz *f)
{
	*f = (struct fuzz){.choices = choices_of_seed(NULL)};
	if (mem_create(&f->mem, 4 << 20, 4 << 8) < 0 || mem_add_ram(f->mem, 0, VRING_RAM) < 0 ||
	    virtqueue_chain_init(&f->c, PIECES) < 0)
		die("no memory");
	f->q = (struct virtqueue){.mem = f->mem, .size_max = 256, .max_bytes = MAX_BYTES};
}

static void begin(struct fuzz *f, unsigned how)
{
	uint16_t size = how & 1 && (how >> 8) % 3 == 0 ? 1 + (how >> 4) % 256 : 1u << ((how >> 4) % 9);

	vdrv_init(&f->d, f->mem, size, how & 1, how & 2, how & 4);
	virtqueue_reset(&f->q);
	f->q.size = size;
	f->q.packed = how & 1;
	f->q.event_idx = how & 2;
	f->q.indirect = how & 4;
	f->q.desc = f->d.desc;
	f->q.driver = f->d.driver;
	f->q.device = f->d.device;
	(void)virtqueue_enable(&f->q);
}

/* What a device does with its queue. `pushes`: bits of a choice per chain. */
static void device(struct fuzz *f, uint64_t pushes)
{
	virtqueue_kicks_off(&f->q);
	do {
		for (unsigned n = 0; n < 300 && virtqueue_pop(&f->q, &f->c) > 0; n++, pushes = pushes >> 1 | pushes << 63) {
			check_chain(f);
			f->chains++;
			if ((pushes & 7) == 7)
				virtqueue_unpop(&f->q, &f->c);
			else if (pushes & 1)
				(void)io_dma_write(f->mem, &f->c.w, pushes % 100, &pushes, sizeof(pushes));
			if ((pushes & 7) != 7)
				virtqueue_push(&f->q, &f->c, (uint32_t)f->c.w.bytes);
			else
				break;
		}
	} while (virtqueue_kicks_on(&f->q) && (pushes >>= 1) & 1);
	(void)virtqueue_should_signal(&f->q);
}

static const uint64_t borders[] = {0, 1, 2, 3, 4, 7, 0x7f, 0xff, 0x100, 0x7fff, 0x8000, 0xffff, 0x7fffffff, 0xffffffff, VRING_RAM,
				   VRING_RAM - 1, 0xfee00000, 0xfffffffffffff000, UINT64_MAX};

static void add(struct fuzz *f)
{
	unsigned n = 1 + (unsigned)(next(f) % 5), nread = (unsigned)(next(f) % (n + 1));
	struct vbuf b[5];

	for (unsigned i = 0; i < n; i++)
		b[i] = (struct vbuf){0x100000 + next(f) % 0xf0000, (uint32_t)(1 + next(f) % (next(f) % 8 ? 600 : 70000)), i >= nread};
	(void)vdrv_add(&f->d, b, n, f->d.indirect && (next(f) & 1));
}

/* Changes a field somewhere; most hits go where the ring is being worked on. */
static void mutate(struct fuzz *f)
{
	const gpa_t area[] = {f->d.desc, f->d.driver, f->d.device, f->d.tables};
	unsigned a = (unsigned)(next(f) % 4), width = 1u << (next(f) % 4);
	gpa_t at = area[a] + next(f) % (next(f) % 4 ? 64 : 16ull * f->d.size + 64);
	uint64_t val = next(f) % 2 ? borders[next(f) % nitems(borders)] : next(f);

	if (next(f) % 64 == 0) {
		gpa_t *const addr[] = {&f->q.desc, &f->q.driver, &f->q.device};

		*addr[next(f) % 3] = (borders[next(f) % nitems(borders)] + next(f) % 32 * 16) & ~15ull;
		return;
	}
	memcpy(vat(&f->d, at), &val, width);
}

static void run(struct fuzz *f)
{
	begin(f, (unsigned)next(f));
	for (unsigned round = 0; round < 4; round++) {
		uint16_t id;
		uint32_t len;

		for (uint64_t n = next(f) % 6; n; n--)
			add(f);
		for (uint64_t n = next(f) % 4; n; n--)
			mutate(f);
		device(f, next(f));
		for (unsigned n = 0; n < 300 && vdrv_take(&f->d, &id, &len); n++)
			if (!f->q.broken && id < f->d.size && f->d.nfree + f->d.slots[id] <= f->d.size)
				f->d.free[f->d.nfree++] = id;
	}
	f->broken += f->q.broken;
}

#ifdef LIBFUZZER
/* Memory that says anything: the input is laid over the three areas in turn, so that a short one reaches all of them. */
static void run_raw(struct fuzz *f, const uint8_t *data, size_t size)
{
	uint64_t pushes = 0;

	memcpy(&pushes, data, size < sizeof(pushes) ? size : sizeof(pushes));
	begin(f, (unsigned)pushes & 0xffff);
	for (size_t i = sizeof(pushes); i < size; i++)
		f->d.ram[(i % 3 + 1) * 0x10000 + i / 3 % 0x8000] = data[i];
	device(f, pushes);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct fuzz f;

	if (!f.mem)
		setup(&f);
	if (size < 1)
		return 0;
	f.choices = choices_of_input(data + 1, size - 1);
	if (data[0] & 1)
		run(&f);
	else
		run_raw(&f, data + 1, size - 1);
	return 0;
}
#else
int main(int argc, char **argv)
{
	unsigned long runs = argc > 1 ? strtoul(argv[1], NULL, 0) : 1000;
	struct fuzz f;

	setup(&f);
	f.choices = choices_of_seed(argc > 2 ? argv[2] : NULL);
	for (unsigned long i = 0; i < runs; i++)
		run(&f);
	virtqueue_chain_fini(&f.c);
	mem_destroy(f.mem);
	printf("%lu runs, %llu chains, %llu rings found broken\n", runs, (unsigned long long)f.chains, (unsigned long long)f.broken);
	return !f.chains || !f.broken || f.broken == runs;
}
#endif
