/* SPDX-License-Identifier: Apache-2.0 */
/* mem/p2m.c, pool.c, code.c: populating, ROM, copies, reset, code marks. */
#include "fixture.h"

#include <errno.h>

#define MIB (1ull << 20)

static struct mem *make(uint64_t bytes, gfn_t max_gfn)
{
	struct mem *m;

	assert_int_equal(mem_create(&m, bytes, max_gfn), 0);
	return m;
}

static void arguments(void **state)
{
	struct mem *m;

	(void)state;
	assert_int_equal(mem_create(&m, 0, 16), -EINVAL);
	assert_int_equal(mem_create(&m, MIB, 16), -EINVAL);
	assert_int_equal(mem_create(&m, 2 * MIB, 0), -EINVAL);
	assert_int_equal(mem_create(&m, 2 * MIB, UINT64_MAX), -EINVAL);
	m = make(4 * MIB, 2048);
	assert_int_equal(mem_add_ram(m, 0, 0), -EINVAL);
	assert_int_equal(mem_add_ram(m, 1, PAGE_SIZE), -EINVAL);
	assert_int_equal(mem_add_ram(m, 0, 100), -EINVAL);
	assert_int_equal(mem_add_ram(m, 8 * MIB, PAGE_SIZE), -EINVAL);
	assert_int_equal(mem_add_ram(m, 8 * MIB - PAGE_SIZE, 2 * PAGE_SIZE), -EINVAL);
	assert_int_equal(mem_add_ram(m, ~0ull & ~PAGE_MASK, PAGE_SIZE), -EINVAL);
	assert_int_equal(mem_add_ram(m, PAGE_SIZE, ~0ull & ~PAGE_MASK), -EINVAL);
	assert_int_equal(mem_add_ram(m, MIB, MIB), 0);
	assert_int_equal(mem_add_ram(m, 2 * MIB - PAGE_SIZE, 2 * PAGE_SIZE), -EEXIST);
	assert_int_equal(mem_state(m, 2 * MIB >> PAGE_SHIFT), P2M_NONE);
	assert_int_equal(mem_add_ram(m, 2 * MIB, 4 * MIB), -ENOMEM);
	assert_int_equal(mem_ram_size(m), MIB);
	assert_int_equal(mem_max_gfn(m), 2048);
	assert_int_equal(mem_state(m, 1 << 30), P2M_NONE);
	assert_int_equal(mem_state(m, UINT64_MAX), P2M_NONE);
	mem_destroy(m);
}

static void populate(void **state)
{
	struct mem *m = make(8 * MIB, 4096);
	uint8_t *a, *b;

	(void)state;
	/* A hole in the first 2 MiB: single frames there, extents elsewhere. */
	assert_int_equal(mem_add_ram(m, 0, 640 << 10), 0);
	assert_int_equal(mem_add_ram(m, MIB, 7 * MIB), 0);
	assert_int_equal(mem_populated(m), 0);
	assert_null(mem_frame(m, 0xa0, false));
	assert_null(mem_frame(m, 4096, false));
	a = mem_frame(m, 0, true);
	assert_non_null(a);
	assert_int_equal(a[0], 0);
	assert_int_equal(mem_populated(m), PAGE_SIZE);
	b = mem_frame(m, 513, true);
	assert_int_equal(mem_populated(m), PAGE_SIZE + 2 * MIB);
	assert_ptr_equal(mem_frame(m, 512, false), b - PAGE_SIZE);
	assert_int_equal((uintptr_t)(b - PAGE_SIZE) % (2 * MIB), 0);
	/* Everything declared can be populated, and no two guest frames share one. */
	for (gfn_t g = 0; g < 2048; g++) {
		uint64_t *p = mem_frame(m, g, true);

		if (g >= 0xa0 && g < 0x100) {
			assert_null(p);
			continue;
		}
		assert_non_null(p);
		assert_int_equal(*p, 0);
		*p = g + 1;
	}
	for (gfn_t g = 0; g < 2048; g++)
		if (g < 0xa0 || g >= 0x100)
			assert_int_equal(*(uint64_t *)mem_frame(m, g, false), g + 1);
	mem_reset(m);
	assert_int_equal(mem_populated(m), 0);
	assert_int_equal(mem_state(m, 0), P2M_ABSENT);
	for (gfn_t g = 0; g < 2048; g++)
		if (g < 0xa0 || g >= 0x100)
			assert_int_equal(*(uint64_t *)mem_frame(m, g, false), 0);
	mem_destroy(m);
}

static void rom(void **state)
{
	struct mem *m = make(4 * MIB, 1024);
	uint32_t v = 0x12345678;

	(void)state;
	assert_int_equal(mem_add_ram(m, 0, 4 * MIB), 0);
	assert_int_equal(mem_write(m, 0xf0000, &v, 4), 0);
	assert_int_equal(mem_set_rom(m, 0xf0000, 0x10000), 0);
	assert_int_equal(mem_set_rom(m, 0xf0001, 0x10000), -EINVAL);
	assert_int_equal(mem_state(m, 0xf0), P2M_ROM);
	assert_non_null(mem_frame(m, 0xf0, false));
	assert_null(mem_frame(m, 0xf0, true));
	/* A device's write is dropped, around it memory changes. */
	uint8_t buf[8] = { 1, 2, 3, 4, 5, 6, 7, 8 };
	assert_int_equal(mem_write(m, 0xeffff, buf, 8), 0);
	assert_int_equal(mem_read(m, 0xeffff, buf, 8), 0);
	assert_int_equal(buf[0], 1);
	assert_int_equal(buf[1], 0x78);
	mem_reset(m);
	assert_int_equal(mem_state(m, 0xf0), P2M_ROM);
	v = 0;
	assert_int_equal(mem_read(m, 0xf0000, &v, 4), 0);
	assert_int_equal(v, 0x12345678);
	/* What was taken for ROM is not handed out again. */
	for (gfn_t g = 0; g < 1024; g++)
		if (g < 0xf0 || g > 0xff)
			memset(mem_frame(m, g, true), 0xee, PAGE_SIZE);
	assert_int_equal(mem_read(m, 0xf0000, &v, 4), 0);
	assert_int_equal(v, 0x12345678);
	mem_destroy(m);
}

static void copies(void **state)
{
	struct mem *m = make(4 * MIB, 4096);
	uint8_t in[10000], out[10000];

	(void)state;
	assert_int_equal(mem_add_ram(m, 0, 2 * MIB), 0);
	for (unsigned i = 0; i < sizeof(in); i++)
		in[i] = (uint8_t)(i * 7 + 3);
	assert_int_equal(mem_write(m, 12345, in, sizeof(in)), 0);
	assert_int_equal(mem_read(m, 12345, out, sizeof(out)), 0);
	assert_memory_equal(in, out, sizeof(in));
	assert_int_equal(mem_write(m, 2 * MIB - 100, in, 200), -EFAULT);
	assert_int_equal(mem_read(m, 2 * MIB - 100, out, 200), -EFAULT);
	assert_memory_equal(in, out, 100);
	assert_int_equal(mem_read(m, UINT64_MAX - 3, out, 8), -EFAULT);
	assert_int_equal(mem_read(m, UINT64_MAX - 3, out, 0), 0);
	mem_destroy(m);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(arguments), cmocka_unit_test(populate), cmocka_unit_test(rom),
		cmocka_unit_test(copies),
	};

	return cmocka_run_group_tests_name("mem/p2m", tests, NULL, NULL);
}
