/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Life of a vCPU: its memory, reset state, events between threads, and the state dump.
 *
 * One mapping holds, from low to high addresses:
 *
 *   guard page | host stack, VCPU_STACK_SIZE | struct vcpu | the engine's, VCPU_ENGINE_SIZE
 *
 * so that translated code, with RSP at the struct, reaches state at positive displacements and pushes below it.
 *
 * Invariant: an event bit set by vcpu_post() is seen by the next look at v->event; a waiter never misses it (see vcpu_wait).
 * Locking: everything but vcpu_post() belongs to the vCPU's thread (or its creator before the thread runs).
 * Spec: SDM vol. 3A table 9-1 (reset state).
 */
#include <errno.h>
#include <linux/futex.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "base/log.h"
#include "cpu/private.h"

#define VCPU_MAP_SIZE (PAGE_SIZE + VCPU_STACK_SIZE + VCPU_ENGINE_OFFSET + VCPU_ENGINE_SIZE)
static_assert(offsetof(struct vcpu, hot) == 0, "translated code addresses hot[] at RSP");
static_assert(offsetof(struct vcpu, seg) <= 512, "hot architectural state within short displacements");

/* Raw, because libc's syscall() writes errno through FS, which may not be the host's while translated code runs. */
static long futex(uint32_t *word, int op, uint32_t val, const struct timespec *timeout)
{
	register const struct timespec *r10 __asm__("r10") = timeout;
	long ret;

	__asm__ volatile("syscall"
			 : "=a"(ret)
			 : "a"(SYS_futex), "D"(word), "S"(op), "d"(val), "r"(r10)
			 : "rcx", "r11", "memory");
	return ret;
}

/* --- creation --------------------------------------------------------------------------------------------------- */

static uint32_t host_mxcsr_mask(struct vcpu *v)
{
	uint32_t mask;

	__asm__ volatile("fxsave64 %0" : "=m"(v->bounce) : : "memory");
	__builtin_memcpy(&mask, v->bounce + 28, sizeof(mask));
	return mask ? mask : 0xffbf;
}

/* Somebody asks something of our tables or translations. */
static void kick(void *v)
{
	vcpu_post(v, VCPU_EV_CODE);
}

/* Each context reserves 1.5 TiB of the 128 that a process has. */
static unsigned contexts_for(unsigned count)
{
	return count <= 8 ? MMU_CONTEXTS : MMU_CONTEXTS / 2;
}

int vcpu_create(struct vcpu **out, struct mem *mem, const struct vcpu_config *config)
{
	struct vcpu *v;
	char *map;
	int err;

	if (!config->count || config->count > VCPU_MAX || config->index >= config->count)
		return -EINVAL;
	map = mmap(NULL, VCPU_MAP_SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (map == MAP_FAILED)
		return -errno;
	if (mprotect(map, PAGE_SIZE, PROT_NONE)) {
		err = -errno;
		goto unmap;
	}
	v = (struct vcpu *)(map + PAGE_SIZE + VCPU_STACK_SIZE);
	v->mem = mem;
	v->index = config->index;
	v->count = config->count;
	v->ops = config->ops;
	v->vm = config->vm;
	v->tsc_khz = config->tsc_khz;
	err = mmu_create(&v->mmu, mem, contexts_for(config->count));
	if (err)
		goto unmap;
	v->mmu.sync.kick = kick;
	v->mmu.sync.opaque = v;
	v->mxcsr_mask = host_mxcsr_mask(v);
	cpu_cpuid_init(v);
	vcpu_reset(v);
	*out = v;
	return 0;
unmap:
	munmap(map, VCPU_MAP_SIZE);
	return err;
}

void vcpu_destroy(struct vcpu *v)
{
	if (!v)
		return;
	mmu_destroy(&v->mmu);
	munmap((char *)v - VCPU_STACK_SIZE - PAGE_SIZE, VCPU_MAP_SIZE);
}

/* --- reset ------------------------------------------------------------------------------------------------------ */

static void reset_segments(struct vcpu *v)
{
	for (unsigned i = ES; i <= GS; i++)
		v->seg[i] = (struct vcpu_seg){ .attr = 0x0093, .limit = 0xffff };
	v->seg[CS] = (struct vcpu_seg){ .sel = 0xf000, .attr = 0x009b, .limit = 0xffff, .base = 0xffff0000 };
	v->seg[LDTR] = (struct vcpu_seg){ .attr = 0x0082, .limit = 0xffff };
	v->seg[TR] = (struct vcpu_seg){ .attr = 0x008b, .limit = 0xffff };
	v->gdt = (struct vcpu_table){ .limit = 0xffff };
	v->idt = (struct vcpu_table){ .limit = 0xffff };
}

/* MSRs that INIT leaves alone and power-on sets. */
static void reset_msrs(struct vcpu *v)
{
	v->msr_star = v->msr_lstar = v->msr_cstar = v->msr_fmask = v->msr_kernel_gs_base = 0;
	v->msr_sysenter_cs = v->msr_sysenter_esp = v->msr_sysenter_eip = 0;
	v->msr_pat = 0x0007040600070406ull;
	v->msr_tsc_aux = v->msr_spec_ctrl = v->msr_tsc_adjust = v->msr_debugctl = 0;
	v->msr_misc_enable = BIT(0) | BIT(11) | BIT(12);         /* fast strings; no BTS, no PEBS */
	/* No firmware runs before the guest, so the memory types are as firmware leaves them: write-back by default. */
	v->msr_mtrr_def = BIT(11) | 6;
	for (unsigned i = 0; i < nitems(v->msr_mtrr_fixed); i++)
		v->msr_mtrr_fixed[i] = 0;
	for (unsigned i = 0; i < nitems(v->msr_mtrr_var); i++)
		v->msr_mtrr_var[i] = 0;
	v->tsc_offset = -__builtin_ia32_rdtsc();
}

/* What power-on and INIT have in common. */
static void reset_common(struct vcpu *v, uint64_t cache_bits)
{
	uint32_t leaf1[4];

	for (unsigned i = 0; i < GPR_COUNT; i++)
		v->gpr[i] = 0;
	v->rip = 0xfff0;
	v->rflags = FL_FIXED;
	/* A request to stop, or to look at translated code, is the machine's and stays. */
	__atomic_fetch_and(&v->event, (uint32_t)(VCPU_EV_STOP | VCPU_EV_CODE), __ATOMIC_ACQ_REL);
	v->cpl = 0;
	v->inhibit_irq = v->inhibit_db = v->halted = v->irq_waiting = v->nmi_blocked = v->nmi_pending = false;
	v->exc = (struct vcpu_exc){ 0 };
	reset_segments(v);
	v->cr0 = CR0_ET | cache_bits;
	v->cr2 = v->cr3 = v->cr4 = 0;
	v->efer = 0;
	for (unsigned i = 0; i < nitems(v->dr); i++)
		v->dr[i] = 0;
	v->dr6 = DR6_FIXED;
	v->dr7 = DR7_FIXED;
	v->kvm_system_time = v->kvm_wall_clock = v->kvm_steal_time = 0;
	v->pv_kicked = false;
	cpu_cpuid(v, 1, 0, leaf1);
	v->gpr[RDX] = leaf1[0];                                  /* processor signature */
	cpu_update_mode(v);
	cpu_sync_mmu(v, false);
	mmu_flush_all(&v->mmu);
}

void vcpu_reset(struct vcpu *v)
{
	reset_common(v, CR0_CD | CR0_NW);
	reset_msrs(v);
	cpu_fpu_reset(v);
}

void vcpu_init(struct vcpu *v)
{
	reset_common(v, v->cr0 & (CR0_CD | CR0_NW));
}

void vcpu_start(struct vcpu *v, uint8_t vector)
{
	v->seg[CS].sel = (uint16_t)(vector << 8);
	v->seg[CS].base = (uint64_t)vector << 12;
	v->rip = 0;
}

/* --- events ----------------------------------------------------------------------------------------------------- */

void vcpu_post(struct vcpu *v, uint32_t bits)
{
	__atomic_fetch_or(&v->event, bits, __ATOMIC_SEQ_CST);
	if (__atomic_load_n(&v->waiting, __ATOMIC_SEQ_CST))
		futex(&v->event, FUTEX_WAKE_PRIVATE, 1, NULL);
}

void vcpu_wait(struct vcpu *v, uint64_t timeout_ns)
{
	struct timespec ts = { .tv_sec = (time_t)(timeout_ns / 1000000000), .tv_nsec = (long)(timeout_ns % 1000000000) };

	/* Pairs with vcpu_post(): either it sees `waiting`, or the futex sees a nonzero event and does not sleep. */
	__atomic_store_n(&v->waiting, 1, __ATOMIC_SEQ_CST);
	if (!__atomic_load_n(&v->event, __ATOMIC_SEQ_CST))
		futex(&v->event, FUTEX_WAIT_PRIVATE, 0, timeout_ns == UINT64_MAX ? NULL : &ts);
	__atomic_store_n(&v->waiting, 0, __ATOMIC_SEQ_CST);
}

/* --- dump ------------------------------------------------------------------------------------------------------- */

struct text {
	char *buf;
	size_t size, len;    /* len < size once anything was written */
};

static void put(struct text *t, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

static void put(struct text *t, const char *fmt, ...)
{
	va_list ap;
	int n;

	va_start(ap, fmt);
	n = vsnprintf(t->buf + t->len, t->size - t->len, fmt, ap);
	va_end(ap);
	if (n > 0)
		t->len = t->len + (size_t)n < t->size ? t->len + (size_t)n : t->size - 1;
}

static void put_segments(struct text *t, const struct vcpu *v)
{
	static const char *const name[SEG_COUNT] = { "es", "cs", "ss", "ds", "fs", "gs", "ldtr", "tr" };

	for (unsigned i = 0; i < SEG_COUNT; i++) {
		const struct vcpu_seg *s = &v->seg[i];

		put(t, "  %-4s %04x base %016llx limit %08x attr %04x%s\n", name[i], s->sel,
			(unsigned long long)s->base, s->limit, s->attr, s->unusable ? " (null)" : "");
	}
	put(t, "  gdt  base %016llx limit %04x   idt base %016llx limit %04x\n", (unsigned long long)v->gdt.base,
		v->gdt.limit, (unsigned long long)v->idt.base, v->idt.limit);
}

size_t vcpu_format(const struct vcpu *v, char *buf, size_t size)
{
	struct text t = { .buf = buf, .size = size };
	static const char *const gpr[GPR_COUNT] = { "rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi",
						    "r8 ", "r9 ", "r10", "r11", "r12", "r13", "r14", "r15" };
	static const char *const mode[] = { "64-bit", "32-bit", "16-bit", "real" };

	put(&t, "vcpu %u: %s cpl %u rip %016llx rflags %08llx%s%s\n", v->index, mode[v->mode & 3], v->cpl,
		(unsigned long long)v->rip, (unsigned long long)v->rflags, v->halted ? " halted" : "",
		v->inhibit_irq ? " irq-inhibited" : "");
	for (unsigned i = 0; i < GPR_COUNT; i++)
		put(&t, "%s%s %016llx%s", i % 4 ? " " : "  ", gpr[i], (unsigned long long)v->gpr[i], i % 4 == 3 ? "\n" : "");
	put_segments(&t, v);
	put(&t, "  cr0 %08llx cr2 %016llx cr3 %016llx cr4 %08llx efer %04llx xcr0 %llx\n", (unsigned long long)v->cr0,
		(unsigned long long)v->cr2, (unsigned long long)v->cr3, (unsigned long long)v->cr4,
		(unsigned long long)v->efer, (unsigned long long)v->fpu.xcr0);
	put(&t, "  dr0 %016llx dr1 %016llx dr2 %016llx dr3 %016llx dr6 %08llx dr7 %08llx\n",
		(unsigned long long)v->dr[0], (unsigned long long)v->dr[1], (unsigned long long)v->dr[2],
		(unsigned long long)v->dr[3], (unsigned long long)v->dr6, (unsigned long long)v->dr7);
	put(&t, "  event %x exc kind %u vector %u err %x  kernel_gs %016llx lstar %016llx\n", v->event, v->exc.kind,
		v->exc.vector, v->exc.err, (unsigned long long)v->msr_kernel_gs_base, (unsigned long long)v->msr_lstar);
	return t.len;
}

void vcpu_dump(const struct vcpu *v, int fd)
{
	char buf[VCPU_FORMAT_MAX];
	ssize_t n = write(fd, buf, vcpu_format(v, buf, sizeof(buf)));

	(void)n; /* there is nobody else to tell */
}
