/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The statistics file: one JSON object, written when the machine has ended (doppel.1 lists the fields).
 *
 * Called by the main thread after the vCPU threads have been joined, so everything is read without locks.
 */
#include <errno.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include "base/log.h"
#include "vm/json.h"
#include "vm/vm.h"

static uint64_t cpu_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &ts);
	return (uint64_t)ts.tv_sec * 1000000000ull + (uint64_t)ts.tv_nsec;
}

static void emit_machine(struct vm *vm, struct json *j)
{
	uint64_t halted = 0;
	struct rusage ru;

	getrusage(RUSAGE_SELF, &ru);
	for (unsigned i = 0; i < vm->ncpus; i++)
		halted += vm->cpu[i].halted_ns;
	json_open(j, "time");
	json_number(j, "machine_ns", vm_clock_now(&vm->clock));
	json_number(j, "halted_ns", halted);
	json_number(j, "cpu_ns", cpu_ns());
	json_number(j, "tsc_khz", vm->io.guest_tsc_khz);
	json_close(j);
	json_open(j, "memory");
	json_number(j, "ram_bytes", mem_ram_size(vm->mem));
	json_number(j, "populated_bytes", mem_populated(vm->mem));
	json_number(j, "max_rss_bytes", (uint64_t)ru.ru_maxrss << 10);
	json_close(j);
}

/* Counters of all vCPUs together. The order of names is that of the first vCPU. */
#define MAX_COUNTERS 48
struct sums {
	unsigned n;
	struct { const char *name; uint64_t val; } e[MAX_COUNTERS];
};

static void add(void *o, const char *name, uint64_t val)
{
	struct sums *s = o;
	unsigned i = 0;

	while (i < s->n && strcmp(s->e[i].name, name))
		i++;
	if (i == MAX_COUNTERS)
		return;
	if (i == s->n) {
		s->e[i].name = name;
		s->e[i].val = 0;
		s->n++;
	}
	s->e[i].val += val;
}

static void emit_sums(struct json *j, const char *name, const struct sums *s)
{
	json_open(j, name);
	for (unsigned i = 0; i < s->n; i++)
		json_number(j, s->e[i].name, s->e[i].val);
	json_close(j);
}

static void add_vcpu(const struct vcpu *v, struct sums *cpu, struct sums *mmu)
{
	add(cpu, "insns_interp", v->stats.insns_interp);
	add(cpu, "exceptions", v->stats.exceptions);
	add(cpu, "interrupts", v->stats.interrupts);
	add(cpu, "pio", v->stats.pio);
	add(cpu, "mmio", v->stats.mmio);
	add(cpu, "hlt", v->stats.hlt);
	add(cpu, "slow_mem", v->stats.slow_mem);
	add(cpu, "msr_unknown", v->stats.msr_unknown);
	add(mmu, "walks", v->mmu.stats.walks);
	add(mmu, "fills", v->mmu.stats.fills);
	add(mmu, "flushes", v->mmu.stats.flushes);
	add(mmu, "region_flushes", v->mmu.stats.region_flushes);
	add(mmu, "evictions", v->mmu.stats.evictions);
	add(mmu, "sheds", v->mmu.stats.sheds);
}

static void emit_vcpus(struct vm *vm, struct json *j)
{
	struct sums cpu = {0}, mmu = {0}, engine = {0};

	for (unsigned i = 0; i < vm->ncpus; i++) {
		add_vcpu(vm->vcpu[i], &cpu, &mmu);
		if (vm->engine->stats)
			vm->engine->stats(vm->vcpu[i], add, &engine);
	}
	emit_sums(j, "vcpu", &cpu);
	emit_sums(j, "mmu", &mmu);
	if (engine.n)
		emit_sums(j, "engine_stats", &engine);
}

static void emit_io(struct vm *vm, struct json *j)
{
	json_open(j, "io");
	json_number(j, "pio", vm->io.stats.pio);
	json_number(j, "mmio", vm->io.stats.mmio);
	json_number(j, "irqs", vm->io.stats.irqs);
	json_number(j, "timers", vm->io.stats.timers);
	json_close(j);
}

void vm_stats_write(struct vm *vm)
{
	struct json j = {.first = true};

	if (vm->stats_fd < 0)
		return;
	json_open(&j, NULL);
	json_string(&j, "name", vm->config->name);
	json_string(&j, "engine", vm->engine->name);
	json_string(&j, "end", vm->life.reason);
	json_number(&j, "status", (uint64_t)vm->life.status);
	json_number(&j, "resets", vm->life.resets);
	json_number(&j, "sandbox", vm->sandbox);
	json_number(&j, "cpus", vm->ncpus);
	emit_machine(vm, &j);
	emit_vcpus(vm, &j);
	emit_io(vm, &j);
	json_close(&j);
	if (j.overflow)
		log_error("the statistics did not fit; please report this defect");
	else if (write(vm->stats_fd, j.buf, j.len) != (ssize_t)j.len)
		log_error("cannot write the statistics: %s; make room or give --stats another file", strerror(errno));
}
