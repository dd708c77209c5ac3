/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What happens to a vector: an interrupt handler of the test, the end of run(), a TRY fixup, or the end of the guest.
 *
 * Invariant: at most one run() and one TRY are active; a TRY may be active inside an interrupt handler only if none was outside.
 */
#include "guest.h"

struct exc exc;
ul exc_fixup, exc_insn, exc_next;
irq_fn *irq_handler[256];
static struct regs *run_regs;

void run_enter(struct regs *r);
void run_leave(void) __attribute__((noreturn));
void trap_handle(struct regs *f);

void run(struct regs *r)
{
	run_regs = r;
	run_enter(r);
}

#ifdef __x86_64__
#define F_IP f->rip
#define F_FLAGS f->rflags
#define F_SP f->rsp
#define F_SS f->ss
#else
#define F_IP f->eip
#define F_FLAGS f->eflags
#define F_SP (f->cs & 3 || f->eflags & FL_VM ? f->esp : (ul)&f->esp)
#define F_SS (f->cs & 3 || f->eflags & FL_VM ? f->ss : KDS)
#endif

static void record(const struct regs *f)
{
	exc.vec = f->vec;
	exc.err = f->err;
	exc.rip = F_IP;
	exc.cs = f->cs;
	exc.flags = F_FLAGS;
	exc.sp = F_SP;
	exc.ss = F_SS;
	exc.cr2 = read_cr2();
	exc.dr6 = read_dr6();
	exc.count++;
}

static void end_run(struct regs *f)
{
	struct regs *r = run_regs;

	run_regs = NULL;
	memcpy(r, f, offsetof(struct regs, cr2));
#ifndef __x86_64__
	if (!(f->cs & 3) && !(f->eflags & FL_VM)) {
		r->esp = (u32)&f->esp;
		r->ss = KDS;
	}
#endif
	r->cr2 = read_cr2();
	r->dr6 = read_dr6();
	run_leave();
}

void trap_handle(struct regs *f)
{
	if (f->vec < 256 && irq_handler[f->vec]) {
		irq_handler[f->vec](f);
	} else if (run_regs) {
		end_run(f);
	} else if (exc_fixup) {
		record(f);
		F_IP = exc_fixup;
		F_FLAGS &= ~(ul)FL_TF;
		exc_fixup = 0;
	} else {
		printf("unexpected vector %lx error %lx ip %lx cs %lx flags %lx sp %lx cr2 %lx\nFAILED\n", (ul)f->vec, (ul)f->err,
		       (ul)F_IP, (ul)f->cs, (ul)F_FLAGS, (ul)F_SP, read_cr2());
		guest_exit(2);
	}
}

bool expect_exc(unsigned vec, ul err, unsigned how, const char *func, int line)
{
	bool manual = how & EXPECT_IS_MANUAL, ok;

	if (!check_same(exc.vec, vec, manual, func, line, "vector"))
		return false;
	ok = check_same(exc.err, err, manual, func, line, "error code");
	return check_same(exc.rip, how & EXPECT_IS_TRAP ? exc_next : exc_insn, manual, func, line, "saved IP") && ok;
}
