/* SPDX-License-Identifier: Apache-2.0 */
/* io/bus.c, irq.c: registration, dispatch, unclaimed accesses, interrupt lines. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>

#include "io/io.h"

struct dev {
	uint64_t off, val;
	unsigned size, reads, writes;
	unsigned gsi;
	bool level;
};

static uint64_t dev_read(void *opaque, uint64_t off, unsigned size)
{
	struct dev *d = opaque;

	d->reads++;
	d->off = off;
	d->size = size;
	return d->val;
}

static void dev_write(void *opaque, uint64_t off, unsigned size, uint64_t val)
{
	struct dev *d = opaque;

	d->writes++;
	d->off = off;
	d->size = size;
	d->val = val;
}

static const struct io_handler handler = { .read = dev_read, .write = dev_write };

static void registration(void **state)
{
	struct io io;

	(void)state;
	assert_int_equal(io_init(&io, NULL), 0);
	assert_int_equal(io_register(&io, IO_PIO, 0x3f8, 8, &handler, NULL), 0);
	assert_int_equal(io_register(&io, IO_PIO, 0x3ff, 1, &handler, NULL), -EEXIST);
	assert_int_equal(io_register(&io, IO_PIO, 0x3f0, 9, &handler, NULL), -EEXIST);
	assert_int_equal(io_register(&io, IO_PIO, 0x3f8, 8, &handler, NULL), -EEXIST);
	assert_int_equal(io_register(&io, IO_PIO, 0, 0x10000, &handler, NULL), -EEXIST);
	assert_int_equal(io_register(&io, IO_PIO, 0x3f0, 8, &handler, NULL), 0);
	assert_int_equal(io_register(&io, IO_PIO, 0x400, 1, &handler, NULL), 0);
	assert_int_equal(io_register(&io, IO_PIO, 0xffff, 2, &handler, NULL), -EINVAL);
	assert_int_equal(io_register(&io, IO_PIO, 0xffff, 1, &handler, NULL), 0);
	assert_int_equal(io_register(&io, IO_PIO, 0x10, 0, &handler, NULL), -EINVAL);
	assert_int_equal(io_register(&io, IO_MMIO, UINT64_MAX - 7, 9, &handler, NULL), -EINVAL);
	assert_int_equal(io_register(&io, IO_MMIO, UINT64_MAX - 7, 8, &handler, NULL), 0);
	io_unregister(&io, IO_PIO, 0x3f8);
	io_unregister(&io, IO_PIO, 0x3f9);
	assert_int_equal(io.nranges[IO_PIO], 3);
	assert_int_equal(io_register(&io, IO_PIO, 0x3f8, 8, &handler, NULL), 0);
	for (unsigned i = io.nranges[IO_PIO]; i < IO_MAX_RANGES; i++)
		assert_int_equal(io_register(&io, IO_PIO, 0x1000 + i * 4, 4, &handler, NULL), 0);
	assert_int_equal(io_register(&io, IO_PIO, 0x8000, 4, &handler, NULL), -ENOSPC);
	for (unsigned i = 1; i < io.nranges[IO_PIO]; i++)
		assert_true(io.range[IO_PIO][i - 1].base < io.range[IO_PIO][i].base);
	io_fini(&io);
}

static void dispatch(void **state)
{
	struct io io;
	struct dev d[3] = { { .val = 0x1122334455667788ull } };
	uint64_t v;

	(void)state;
	assert_int_equal(io_init(&io, NULL), 0);
	assert_int_equal(io_register(&io, IO_MMIO, 0xfee00000, 0x1000, &handler, &d[0]), 0);
	assert_int_equal(io_register(&io, IO_MMIO, 0xfec00000, 0x1000, &handler, &d[1]), 0);
	assert_int_equal(io_register(&io, IO_PIO, 0x60, 1, &handler, &d[2]), 0);
	assert_true(io_read(&io, IO_MMIO, 0xfee00020, 4, &v));
	assert_int_equal(v, 0x55667788);
	assert_int_equal(d[0].off, 0x20);
	assert_int_equal(d[0].size, 4);
	assert_true(io_write(&io, IO_MMIO, 0xfec00ff8, 8, UINT64_MAX));
	assert_int_equal(d[1].val, UINT64_MAX);
	assert_true(io_write(&io, IO_PIO, 0x60, 1, 0xabcd));
	assert_int_equal(d[2].val, 0xcd);
	/* Unclaimed and across an end: all ones, nothing happens. */
	assert_false(io_read(&io, IO_MMIO, 0xfee00ffc, 8, &v));
	assert_int_equal(v, UINT64_MAX);
	assert_false(io_read(&io, IO_MMIO, 0xfedffffe, 4, &v));
	assert_int_equal(v, UINT32_MAX);
	assert_false(io_read(&io, IO_PIO, 0x61, 1, &v));
	assert_int_equal(v, 0xff);
	assert_false(io_read(&io, IO_PIO, 0x60, 2, &v));
	assert_int_equal(v, 0xffff);
	assert_false(io_write(&io, IO_MMIO, 0, 8, 0));
	assert_false(io_write(&io, IO_MMIO, UINT64_MAX, 8, 0));
	assert_int_equal(d[0].reads, 1);
	assert_int_equal(io.stats.pio, 3);
	assert_int_equal(io.stats.mmio, 6);
	io_fini(&io);
}

static void set_line(void *opaque, unsigned gsi, bool level)
{
	struct dev *d = opaque;

	d->gsi = gsi;
	d->level = level;
	d->writes++;
}

static void lines(void **state)
{
	struct io io;
	struct dev d[2] = { 0 };

	(void)state;
	assert_int_equal(io_init(&io, NULL), 0);
	io_irq_set(&io, 4, true);
	for (unsigned i = 0; i < 2; i++)
		io.sink[io.nsinks++] = (struct io_irq_sink){ .set = set_line, .opaque = &d[i] };
	io_irq_set(&io, 4, true);
	io_irq_set(&io, 5, false);
	for (unsigned i = 0; i < 2; i++) {
		assert_int_equal(d[i].writes, 2);
		assert_int_equal(d[i].gsi, 5);
		assert_false(d[i].level);
	}
	io_fini(&io);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(registration), cmocka_unit_test(dispatch), cmocka_unit_test(lines),
	};

	return cmocka_run_group_tests_name("io/bus", tests, NULL, NULL);
}
