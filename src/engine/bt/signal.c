/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Host faults in translated code become guest exceptions: non-canonical and forbidden addresses (SIGSEGV), divide errors and
 * unmasked SIMD or x87 exceptions (SIGFPE), misaligned vector operands (SIGSEGV).
 *
 * The handler decides nothing about the guest: it sends the thread to the stub that interprets the faulting instruction, whose
 * registers are still as before it, and the interpreter raises what the manual says.
 *
 * Nothing but translated code executes between BT_CODE_FROM and BT_CODE_TO (cache.c), and there RSP is the vcpu. Any other fault is ours:
 * default action.
 */
#include <errno.h>
#include <signal.h>
#include <ucontext.h>

#include "engine/bt/bt.h"

static bool redirect(greg_t *regs)
{
	uintptr_t pc = (uintptr_t)regs[REG_RIP];
	struct vcpu *v;
	struct bt *bt;
	uint32_t site;

	if (pc < BT_CODE_FROM || pc >= BT_CODE_TO)
		return false;
	v = (struct vcpu *)regs[REG_RSP];
	bt = bt_of(v);
	if (pc < bt->code_x || pc >= bt->code_x + bt->code_size)
		return false;
	bt->stats.signals++;
	if (v->prof)
		v->prof->host_fault = true;
	site = bt_site_find(bt, (uint32_t)(pc - bt->code_x));
	if (!site)
		return false;
	v->hot[H_SITE / 8] = site;
	regs[REG_RIP] = (greg_t)(bt->code_x + bt->stub[BT_SVC_INTERP]);
	return true;
}

static void on_fault(int sig, siginfo_t *si, void *ctx)
{
	ucontext_t *uc = ctx;

	if (si->si_code <= 0) { /* sent by a process, no fault of ours: die of it, which returning to nowhere does */
		static const struct sigaction dfl = {.sa_handler = SIG_DFL};

		sigaction(SIGSEGV, &dfl, NULL);
		uc->uc_mcontext.gregs[REG_RIP] = 0;
		return;
	}
	if (!redirect(uc->uc_mcontext.gregs)) {
		static const struct sigaction dfl = {.sa_handler = SIG_DFL};

		sigaction(sig, &dfl, NULL); /* the instruction faults again, fatally */
	}
}

int bt_signal_setup(void)
{
	static const int sigs[] = {SIGSEGV, SIGFPE, SIGBUS};
	struct sigaction sa = {.sa_sigaction = on_fault, .sa_flags = SA_SIGINFO | SA_NODEFER};

	for (unsigned i = 0; i < nitems(sigs); i++)
		if (sigaction(sigs[i], &sa, NULL) < 0)
			return -errno;
	return 0;
}
