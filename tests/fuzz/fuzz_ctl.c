/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Fuzzes the control protocol's parsers: whatever the packet, they refuse it or yield parts that lie inside it and are as
 * proto/ctl.h promises, and read nothing outside.
 *
 * As a program: fuzz_ctl RUNS [SEED] mutates valid messages deterministically. Packets end right before an inaccessible page, so
 * that reading past the end is a crash even without a sanitizer. With -DLIBFUZZER it is a libFuzzer target.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "proto/ctl.h"

static bool inside(const uint8_t *packet, size_t size, const uint8_t *at, size_t len)
{
	return at >= packet && len <= size && at + len <= packet + size;
}

/* Number of parsers that took it. */
static unsigned parse(const uint8_t *packet, size_t size)
{
	struct ctl_request r;
	struct ctl_header h;
	const uint8_t *body;
	size_t len;
	unsigned taken = 0;

	if (ctl_parse_request(packet, size, &r) == 0) {
		taken++;
		if (r.type < CTL_INFO || r.type == CTL_OUTPUT || r.type == CTL_ENDED || r.type > CTL_RESIZE || !inside(packet, size, r.data, r.len) || r.len > CTL_INPUT_MAX)
			abort();
	}
	if (ctl_parse_answer(packet, size, &h, &body, &len) == 0) {
		taken++;
		if (h.size != size || h.status > 0 || !inside(packet, size, body, len))
			abort();
		if (h.type == CTL_ENDED && strlen((const char *)body + 4) >= sizeof(struct ctl_ended) - 4)
			abort();
	}
	return taken;
}

#ifdef LIBFUZZER
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	parse(data, size);
	return 0;
}
#else
#define PACKET_MAX 4096

static uint64_t next(uint64_t *seed)
{
	*seed ^= *seed << 13;
	*seed ^= *seed >> 7;
	*seed ^= *seed << 17;
	return *seed;
}

static size_t make(uint8_t *packet, uint64_t *seed)
{
	static const uint16_t type[] = {CTL_INFO, CTL_PAUSE, CTL_ATTACH, CTL_INPUT, CTL_OUTPUT, CTL_ENDED, CTL_INFO | CTL_REPLY,
					CTL_STOP | CTL_REPLY, CTL_MEMORY, CTL_MEMORY | CTL_REPLY, CTL_RESIZE};
	static const uint16_t body[] = {0, 0, 8, 100, 300, 64, 200, 0, 8, 90, 4};
	unsigned i = next(seed) % nitems(type);
	size_t size = sizeof(struct ctl_header) + body[i];

	memset(packet, 0, size);
	ctl_header_init((struct ctl_header *)packet, type[i], size, 0);
	return size;
}

static void mutate(uint8_t *packet, size_t *size, uint64_t *seed)
{
	for (unsigned n = (unsigned)(next(seed) % 4); n; n--) {
		uint64_t r = next(seed);

		if (r % 8 == 0)
			*size = (r >> 8) % PACKET_MAX;
		else if (r % 8 == 1) /* an honest size all the same */
			memcpy(packet + offsetof(struct ctl_header, size), &(uint32_t){(uint32_t)*size}, 4);
		else
			packet[(r >> 8) % (r % 8 < 5 ? sizeof(struct ctl_header) : *size + 1)] = (uint8_t)(r >> 32);
	}
}

int main(int argc, char **argv)
{
	unsigned long runs = argc > 1 ? strtoul(argv[1], NULL, 0) : 1000, taken = 0;
	uint64_t seed = argc > 2 ? strtoull(argv[2], NULL, 0) | 1 : 0x9e3779b97f4a7c15ull;
	uint8_t *area = mmap(NULL, 2 * PACKET_MAX, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	static uint8_t packet[PACKET_MAX] __attribute__((aligned(8)));

	if (area == MAP_FAILED || mprotect(area + PACKET_MAX, PACKET_MAX, PROT_NONE) < 0)
		return 1;
	for (unsigned long i = 0; i < runs; i++) {
		size_t size = make(packet, &seed);

		mutate(packet, &size, &seed);
		taken += parse(memcpy(area + PACKET_MAX - size, packet, size), size);
	}
	printf("%lu packets, %lu taken\n", runs, taken);
	return taken == 0 || taken == runs;
}
#endif
