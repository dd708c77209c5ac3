/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The statistics file: one JSON object, written when the machine has ended (doppel.1 lists the fields).
 *
 * Called by the main thread after the vCPU thread has been joined, so everything is read without locks.
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

static void emit(void *o, const char *name, uint64_t val)
{
	json_number(o, name, val);
}

static void emit_machine(struct vm *vm, struct json *j)
{
	struct rusage ru;

	getrusage(RUSAGE_SELF, &ru);
	json_open(j, "time");
	json_number(j, "machine_ns", vm_clock_now(&vm->clock));
	json_number(j, "halted_ns", vm->halted_ns);
	json_number(j, "cpu_ns", cpu_ns());
	json_number(j, "tsc_khz", vm->v->tsc_khz);
	json_close(j);
	json_open(j, "memory");
	json_number(j, "ram_bytes", mem_ram_size(vm->mem));
	json_number(j, "populated_bytes", mem_populated(vm->mem));
	json_number(j, "max_rss_bytes", (uint64_t)ru.ru_maxrss << 10);
	json_close(j);
}

static void emit_vcpu(struct vm *vm, struct json *j)
{
	const struct vcpu *v = vm->v;

	json_open(j, "vcpu");
	json_number(j, "insns_interp", v->stats.insns_interp);
	json_number(j, "exceptions", v->stats.exceptions);
	json_number(j, "interrupts", v->stats.interrupts);
	json_number(j, "pio", v->stats.pio);
	json_number(j, "mmio", v->stats.mmio);
	json_number(j, "hlt", v->stats.hlt);
	json_number(j, "slow_mem", v->stats.slow_mem);
	json_number(j, "msr_unknown", v->stats.msr_unknown);
	json_close(j);
	json_open(j, "mmu");
	json_number(j, "walks", v->mmu.stats.walks);
	json_number(j, "fills", v->mmu.stats.fills);
	json_number(j, "flushes", v->mmu.stats.flushes);
	json_number(j, "region_flushes", v->mmu.stats.region_flushes);
	json_number(j, "evictions", v->mmu.stats.evictions);
	json_number(j, "sheds", v->mmu.stats.sheds);
	json_close(j);
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
	emit_machine(vm, &j);
	emit_vcpu(vm, &j);
	if (vm->engine->stats) {
		json_open(&j, "engine_stats");
		vm->engine->stats(vm->v, emit, &j);
		json_close(&j);
	}
	json_close(&j);
	if (j.overflow)
		log_error("the statistics did not fit; please report this defect");
	else if (write(vm->stats_fd, j.buf, j.len) != (ssize_t)j.len)
		log_error("cannot write the statistics: %s; make room or give --stats another file", strerror(errno));
}
