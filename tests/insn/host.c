/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The host's processor as the reference. Faults arrive as signals on an alternate stack; the handler takes all state from the signal
 * frame and jumps back out. Memory is the two pages at DATA_VA; nothing is mapped near them.
 */
#include <errno.h>
#include <setjmp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <ucontext.h>

#include "insn_test.h"

/* stub.S */
extern uint8_t host_in_x[VCPU_XSAVE_MAX], host_out_x[VCPU_XSAVE_MAX], host_taken;
extern uint32_t host_components;
extern uint64_t host_in_gpr[GPR_COUNT], host_out_gpr[GPR_COUNT], host_in_flags, host_out_flags, host_code;
void host_enter(void);
void host_exit0(void);
void host_exit1(void);

static sigjmp_buf escape;
static struct outcome *current;

/* Greg numbers of the general registers in encoding order. */
static const int greg[GPR_COUNT] = {REG_RAX, REG_RCX, REG_RDX, REG_RBX, REG_RSP, REG_RBP, REG_RSI, REG_RDI,
				    REG_R8, REG_R9, REG_R10, REG_R11, REG_R12, REG_R13, REG_R14, REG_R15};

/* Components the frame leaves out are in their initial state. */
static void normalise(uint8_t *x)
{
	uint64_t bv;
	uint32_t mxcsr;

	memcpy(&bv, x + 512, 8);
	memcpy(&mxcsr, x + 24, 4);
	if (!(bv & 1)) {
		memset(x, 0, 24);
		memset(x + 32, 0, 128);
		x[0] = 0x7f;
		x[1] = 3;
	}
	if (!(bv & 2))
		memset(x + 160, 0, 256);
	for (unsigned i = 0; i < 32; i++)
		for (unsigned byte = 16; byte < 64; byte += 16) {
			unsigned component = i >= 16 ? VCPU_XS_HI16_ZMM : byte >= 32 ? VCPU_XS_ZMM_HI256 : VCPU_XS_AVX;

			if ((x_components() & BIT(component)) && !(bv & BIT(component)))
				memset(x_vec(x, i, byte == 16 && i >= 16 ? 0 : byte), 0, byte == 16 && i >= 16 ? 32 : 16);
		}
	for (unsigned i = 0; i < 8 && insn_avx512(); i++)
		if (!(bv & BIT(VCPU_XS_OPMASK)))
			memset(x_mask(x, i), 0, 8);
}

static void on_signal(int sig, siginfo_t *info, void *uc_)
{
	const ucontext_t *uc = uc_;
	const greg_t *g = uc->uc_mcontext.gregs;
	struct outcome *o = current;

	(void)info;
	if (!o || (uint64_t)g[REG_RIP] >> 12 != CODE_VA >> 12) {
		fprintf(stderr, "tests/insn: signal %d at %llx while running", sig, (unsigned long long)g[REG_RIP]);
		for (unsigned i = 0; i < 15; i++)
			fprintf(stderr, " %02x", ((const uint8_t *)INSN_VA)[i]);
		fprintf(stderr, "; at rip:");
		for (int i = -16; i < 16; i++)
			fprintf(stderr, " %02x", ((const uint8_t *)g[REG_RIP])[i]);
		fprintf(stderr, "\n");
		signal(sig, SIG_DFL);
		return;
	}
	o->vector = (int)g[REG_TRAPNO];
	o->err = (uint32_t)g[REG_ERR];
	o->cr2 = (uint64_t)g[REG_CR2];
	for (unsigned i = 0; i < GPR_COUNT; i++)
		o->s.gpr[i] = (uint64_t)g[greg[i]];
	o->s.rflags = (uint64_t)g[REG_EFL];
	o->s.rip = (uint64_t)g[REG_RIP];
	memcpy(o->s.x, uc->uc_mcontext.fpregs, x_size());
	siglongjmp(escape, 1);
}

static const int sigs[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP};

/* An engine has handlers of its own, so ours are in place only while the host runs the instruction. */
static void handlers_swap(bool ours)
{
	static struct sigaction theirs[nitems(sigs)];
	const struct sigaction sa = {.sa_sigaction = on_signal, .sa_flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER};

	for (size_t i = 0; i < nitems(sigs); i++)
		if (sigaction(sigs[i], ours ? &sa : &theirs[i], ours ? &theirs[i] : NULL))
			abort();
}

int host_init(void)
{
	static uint8_t stack[128 * 1024];
	stack_t ss = {.ss_sp = stack, .ss_size = sizeof(stack)};

	if (mmap((void *)DATA_VA, DATA_SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0) !=
		    (void *)DATA_VA ||
	    mmap((void *)CODE_VA, PAGE_SIZE, PROT_READ | PROT_WRITE | PROT_EXEC,
		 MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0) != (void *)CODE_VA)
		return -errno;
	if (sigaltstack(&ss, NULL))
		return -errno;
	return 0;
}

/* jmp [rip+0]; .quad target */
static void put_jump(uint64_t at, void (*target)(void))
{
	uint8_t *p = (uint8_t *)at;
	static const uint8_t jmp[] = {0xff, 0x25, 0, 0, 0, 0};
	uint64_t addr = (uint64_t)(uintptr_t)target;

	memcpy(p, jmp, sizeof(jmp));
	memcpy(p + sizeof(jmp), &addr, 8);
}

void host_run(const struct test *t, struct outcome *o)
{
	static const uint32_t mxcsr = 0x1f80;

	memcpy((void *)DATA_VA, t->s.mem, DATA_SIZE);
	memset((void *)CODE_VA, 0xcc, PAGE_SIZE);
	memcpy((void *)INSN_VA, t->code, t->in.len);
	put_jump(INSN_VA + t->in.len, host_exit0);
	put_jump(TARGET_VA, host_exit1);
	memset(host_in_x, 0, sizeof(host_in_x));
	memcpy(host_in_x, t->s.x, x_size());
	memset(host_out_x, 0, sizeof(host_out_x));
	host_components = (uint32_t)x_components();
	memcpy(host_in_gpr, t->s.gpr, sizeof(t->s.gpr));
	host_in_flags = t->s.rflags;
	host_code = INSN_VA;
	current = o;
	handlers_swap(true);
	if (sigsetjmp(escape, 0) == 0) {
		host_enter();
		o->vector = -1;
		o->err = 0;
		o->cr2 = 0;
		memcpy(o->s.gpr, host_out_gpr, sizeof(o->s.gpr));
		o->s.rflags = host_out_flags;
		o->s.rip = host_taken ? TARGET_VA : INSN_VA + t->in.len;
		memcpy(o->s.x, host_out_x, x_size());
	} else {
		__asm__ volatile("cld; fninit; ldmxcsr %0; vzeroupper" : : "m"(mxcsr));
	}
	handlers_swap(false);
	current = NULL;
	normalise(o->s.x);
	memcpy(o->s.mem, (void *)DATA_VA, DATA_SIZE);
}
