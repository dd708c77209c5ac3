/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Statistics: one JSON object for the file of --stats and for `doppel stats` (docs/abi/control.md lists the fields).
 *
 * Runs on the main thread, also while the machine runs: counters of other threads are read without locks (base/stats.h).
 * What is guest and what is monitor: a vCPU thread's processor time is the guest's but for what it spends in devices, in halting and in
 * waking. Translation and page walks are the price of running the guest and count as its own; engine_stats tells how often they happen.
 */
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include "base/log.h"
#include "dev/virtio/balloon.h"
#include "vm/json.h"
#include "vm/vm.h"

static uint64_t read_clock(clockid_t id)
{
	struct timespec ts;

	clock_gettime(id, &ts);
	return (uint64_t)ts.tv_sec * 1000000000ull + (uint64_t)ts.tv_nsec;
}

void vm_stats_init(struct vm *vm)
{
	for (unsigned i = 0; i < vm->ncpus; i++)
		if (pthread_getcpuclockid(vm->cpu[i].thread, &vm->cpu[i].clock) != 0)
			vm->cpu[i].clock = CLOCK_PROCESS_CPUTIME_ID; /* cannot be: the thread has begun */
}

uint64_t vm_cpu_ns(const struct vm_cpu *c)
{
	uint64_t ended = stats_read(&c->stats.end_cpu_ns);
	struct timespec ts;

	if (ended || clock_gettime(c->clock, &ts) != 0)
		return ended; /* the second: it ends right now */
	return (uint64_t)ts.tv_sec * 1000000000ull + (uint64_t)ts.tv_nsec;
}

/* The halt that goes on counts: an idle processor halts for seconds, one that is never started for ever. */
static uint64_t halted_ns(const struct vm_cpu *c)
{
	struct vm *vm = c->vm;
	uint64_t ns;

	pthread_mutex_lock(&vm->io.lock);
	ns = stats_read(&c->stats.halted_ns);
	if (c->halted)
		ns += vm_clock_now(&vm->clock) - c->halted_since;
	pthread_mutex_unlock(&vm->io.lock);
	return ns;
}

struct split { uint64_t cpu, guest, monitor, halted; };

static struct split split_of(const struct vm_cpu *c)
{
	/* Counters first: they are part of what the clock says afterwards. */
	uint64_t device = (uint64_t)((unsigned __int128)stats_read(&c->stats.device_tsc) * 1000000 / c->vm->io.guest_tsc_khz);
	struct split s = {.monitor = device + stats_read(&c->stats.exit_cpu_ns), .halted = halted_ns(c)};

	s.cpu = vm_cpu_ns(c);
	/* The TSC goes on while the host runs something else on our processor, the clock does not. */
	if (s.monitor > s.cpu)
		s.monitor = s.cpu;
	s.guest = s.cpu - s.monitor;
	return s;
}

static void emit_split(struct json *j, const struct split *s)
{
	json_number(j, "cpu_ns", s->cpu);
	json_number(j, "guest_ns", s->guest);
	json_number(j, "monitor_ns", s->monitor);
	json_number(j, "halted_ns", s->halted);
}

static void emit_cpu(struct json *j, const struct vm_cpu *c)
{
	static const char *const name[EXIT_COUNT] = {
		[EXIT_STOP] = "exit_stop", [EXIT_HLT] = "exit_hlt", [EXIT_INIT] = "exit_init", [EXIT_SHUTDOWN] = "exit_shutdown",
		[EXIT_DIVERGED] = "exit_diverged", [EXIT_DEBUG] = "exit_debug", [EXIT_ERROR] = "exit_error",
	};
	static_assert(EXIT_COUNT == 7, "each has a name here");
	struct split s = split_of(c);
	char section[16];

	snprintf(section, sizeof(section), "vcpu%u", c->index);
	json_open(j, section);
	emit_split(j, &s);
	for (unsigned i = 0; i < EXIT_COUNT; i++)
		json_number(j, name[i], stats_read(&c->stats.exits[i]));
	json_close(j);
}

/* What the guest has not said is left out. */
static void emit_known(struct json *j, const char *key, uint64_t val)
{
	if (val != UINT64_MAX)
		json_number(j, key, val);
}

static void emit_balloon(struct vm *vm, struct json *j)
{
	struct virtio_balloon_info b;

	pthread_mutex_lock(&vm->io.lock);
	virtio_balloon_info(vm->balloon, &b);
	pthread_mutex_unlock(&vm->io.lock);
	json_number(j, "balloon_driver", b.driver);
	json_number(j, "balloon_target_bytes", b.target);
	json_number(j, "balloon_actual_bytes", b.actual);
	if (!b.guest_time)
		return;
	json_number(j, "guest_age_ns", io_now(&vm->io) - b.guest_time);
	emit_known(j, "guest_total_bytes", b.guest.total);
	emit_known(j, "guest_free_bytes", b.guest.free);
	emit_known(j, "guest_available_bytes", b.guest.available);
	emit_known(j, "guest_cache_bytes", b.guest.caches);
}

/* Memory by state: what the guest was promised, what of it has frames, what the host really has for those, what the guest has given
 * back; then what the guest says. */
static void emit_memory(struct vm *vm, struct json *j)
{
	struct rusage ru;

	getrusage(RUSAGE_SELF, &ru);
	json_number(j, "ram_bytes", mem_ram_size(vm->mem));
	json_number(j, "populated_bytes", mem_populated(vm->mem));
	json_number(j, "resident_bytes", mem_resident(vm->mem));
	json_number(j, "ballooned_bytes", mem_ballooned(vm->mem));
	json_number(j, "max_rss_bytes", (uint64_t)ru.ru_maxrss << 10);
	if (vm->balloon)
		emit_balloon(vm, j);
}

void vm_memory_report(struct vm *vm, struct json *j)
{
	json_open(j, NULL);
	json_string(j, "name", vm->config->name);
	json_number(j, "memory_bytes", vm->config->memory);
	emit_memory(vm, j);
	json_close(j);
}

static void emit_machine(struct vm *vm, struct json *j)
{
	struct split sum = {0}, s;
	uint64_t process;

	for (unsigned i = 0; i < vm->ncpus; i++) {
		s = split_of(&vm->cpu[i]);
		sum = (struct split){sum.cpu + s.cpu, sum.guest + s.guest, sum.monitor + s.monitor, sum.halted + s.halted};
	}
	process = read_clock(CLOCK_PROCESS_CPUTIME_ID); /* after its parts, so that the sum of those is never more */
	json_open(j, "time");
	json_number(j, "host_ns", read_clock(CLOCK_MONOTONIC));
	json_number(j, "machine_ns", vm_clock_now(&vm->clock));
	json_number(j, "halted_ns", sum.halted);
	json_number(j, "cpu_ns", process);
	json_number(j, "vcpu_ns", sum.cpu);
	json_number(j, "guest_ns", sum.guest);
	json_number(j, "monitor_ns", sum.monitor);
	json_number(j, "tsc_khz", vm->io.guest_tsc_khz);
	json_close(j);
	json_open(j, "memory");
	emit_memory(vm, j);
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
	add(cpu, "insns_interp", stats_read(&v->stats.insns_interp));
	add(cpu, "exceptions", stats_read(&v->stats.exceptions));
	add(cpu, "interrupts", stats_read(&v->stats.interrupts));
	add(cpu, "pio", stats_read(&v->stats.pio));
	add(cpu, "mmio", stats_read(&v->stats.mmio));
	add(cpu, "hlt", stats_read(&v->stats.hlt));
	add(cpu, "slow_mem", stats_read(&v->stats.slow_mem));
	add(cpu, "msr_unknown", stats_read(&v->stats.msr_unknown));
	add(cpu, "hypercalls", stats_read(&v->stats.hypercalls));
	add(cpu, "pv_flushes", stats_read(&v->stats.pv_flushes));
	add(mmu, "walks", stats_read(&v->mmu.stats.walks));
	add(mmu, "fills", stats_read(&v->mmu.stats.fills));
	add(mmu, "flushes", stats_read(&v->mmu.stats.flushes));
	add(mmu, "region_flushes", stats_read(&v->mmu.stats.region_flushes));
	add(mmu, "evictions", stats_read(&v->mmu.stats.evictions));
	add(mmu, "sheds", stats_read(&v->mmu.stats.sheds));
	add(mmu, "sync_requests", stats_read(&v->mmu.sync.stats.requests));
	add(mmu, "sync_waits", stats_read(&v->mmu.sync.stats.waits));
	add(mmu, "sync_overflows", stats_read(&v->mmu.sync.stats.overflows));
	add(mmu, "sync_alone", stats_read(&v->mmu.sync.stats.exclusive));
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
	json_number(j, "pio", stats_read(&vm->io.stats.pio));
	json_number(j, "mmio", stats_read(&vm->io.stats.mmio));
	json_number(j, "irqs", stats_read(&vm->io.stats.irqs));
	json_number(j, "timers", stats_read(&vm->io.stats.timers));
	json_close(j);
}

static void emit_number(void *j, const char *name, uint64_t val)
{
	json_number(j, name, val);
}

void vm_stats_report(struct vm *vm, struct json *j)
{
	json_open(j, NULL);
	json_string(j, "name", vm->config->name);
	json_string(j, "engine", vm->engine->name);
	json_string(j, "end", vm->life.reason);
	json_number(j, "status", (uint64_t)vm->life.status);
	json_number(j, "resets", vm->life.resets);
	json_number(j, "sandbox", vm->sandbox);
	json_number(j, "cpus", vm->ncpus);
	emit_machine(vm, j);
	for (unsigned i = 0; i < vm->ncpus; i++)
		emit_cpu(j, &vm->cpu[i]);
	emit_vcpus(vm, j);
	emit_io(vm, j);
	for (struct stats_source *s = vm->io.registry.first; s; s = s->next) {
		json_open(j, s->section);
		s->emit(s->opaque, emit_number, j);
		json_close(j);
	}
	json_close(j);
}

void vm_stats_write(struct vm *vm)
{
	struct json j = {.first = true};

	if (vm->stats_fd < 0)
		return;
	vm_stats_report(vm, &j);
	if (j.overflow)
		log_error("the statistics did not fit; please report this defect");
	else if (write(vm->stats_fd, j.buf, j.len) != (ssize_t)j.len)
		log_error("cannot write the statistics: %s; make room or give --stats another file", strerror(errno));
}
