/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Machine time and TSC rate.
 *
 * The TSC's rate comes from measuring against CLOCK_MONOTONIC_RAW; CPUID (leaf 15h, or a hypervisor's 40000010h) gives it
 * exactly and is believed if the measurement agrees within 0.5 %, since migrated or emulating hosts are known to lie.
 */
#include "vm/clock.h"

#include <cpuid.h>
#include <time.h>

#define MEASURE_NS 5000000ull

static uint64_t clock_ns(clockid_t id)
{
	struct timespec ts;

	clock_gettime(id, &ts);
	return (uint64_t)ts.tv_sec * 1000000000ull + (uint64_t)ts.tv_nsec;
}

void vm_clock_init(struct vm_clock *c)
{
	uint64_t best = UINT64_MAX;

	*c = (struct vm_clock){.start = clock_ns(CLOCK_MONOTONIC)};
	/* As close together as a few tries get them. */
	for (int i = 0; i < 16; i++) {
		uint64_t before = __builtin_ia32_rdtsc(), now = vm_clock_now(c), after = __builtin_ia32_rdtsc();

		if (after - before < best) {
			best = after - before;
			c->pair_tsc = before + best / 2;
			c->pair_ns = now;
		}
	}
}

uint64_t vm_clock_now(const struct vm_clock *c)
{
	return c->paused ? c->paused_at : clock_ns(CLOCK_MONOTONIC) - c->start;
}

uint64_t vm_clock_host(const struct vm_clock *c, uint64_t t)
{
	return t > UINT64_MAX - c->start ? UINT64_MAX : t + c->start;
}

void vm_clock_pause(struct vm_clock *c)
{
	c->paused_at = vm_clock_now(c);
	c->paused_tsc = __builtin_ia32_rdtsc();
	c->paused = true;
}

uint64_t vm_clock_resume(struct vm_clock *c)
{
	uint64_t missed = __builtin_ia32_rdtsc() - c->paused_tsc;

	c->start = clock_ns(CLOCK_MONOTONIC) - c->paused_at;
	c->paused = false;
	c->pair_tsc += missed;
	return missed;
}

uint64_t vm_clock_wall_ns(void)
{
	return clock_ns(CLOCK_REALTIME);
}

/* One reading of both clocks, as close together as three tries get them. */
static uint64_t read_pair(uint64_t *ns)
{
	uint64_t best = UINT64_MAX, tsc = 0;

	for (int i = 0; i < 3; i++) {
		uint64_t before = __builtin_ia32_rdtsc(), t = clock_ns(CLOCK_MONOTONIC_RAW), after = __builtin_ia32_rdtsc();

		if (after - before < best) {
			best = after - before;
			tsc = before + best / 2;
			*ns = t;
		}
	}
	return tsc;
}

static uint64_t measure_khz(void)
{
	uint64_t ns0 = 0, ns1 = 0, tsc0 = read_pair(&ns0), tsc1;
	struct timespec wait = {.tv_nsec = MEASURE_NS};

	nanosleep(&wait, NULL);
	tsc1 = read_pair(&ns1);
	return ns1 > ns0 ? (uint64_t)((unsigned __int128)(tsc1 - tsc0) * 1000000 / (ns1 - ns0)) : 1000000;
}

/* What CPUID claims, or 0. */
static uint64_t claimed_khz(void)
{
	unsigned a, b, c, d;

	if (__get_cpuid(1, &a, &b, &c, &d) && (c & (1u << 31))) {
		__cpuid(0x40000000, a, b, c, d);
		if (a >= 0x40000010 && a < 0x40010000) {
			__cpuid(0x40000010, a, b, c, d);
			if (a)
				return a;
		}
	}
	if (__get_cpuid_max(0, NULL) >= 0x15) {
		__cpuid(0x15, a, b, c, d);
		if (a && b && c)
			return (uint64_t)c * b / a / 1000;
	}
	return 0;
}

uint64_t vm_clock_tsc_khz(void)
{
	uint64_t claim = claimed_khz(), real = measure_khz(), diff = claim > real ? claim - real : real - claim;

	return claim && diff < real / 200 ? claim : real;
}
