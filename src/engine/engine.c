/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What engines have in common: the slots through which several share one vCPU, and events at instruction boundaries.
 *
 * Invariant: v->engine is non-NULL exactly while at least one engine is attached. Locking: none; engines are attached and
 * detached while the vCPU does not run.
 */
#include "engine/engine.h"

#include <errno.h>
#include <stdlib.h>

int engine_attach(struct vcpu *v)
{
	if (!v->engine) {
		v->engine = calloc(1, sizeof(struct engine_slots));
		if (!v->engine)
			return -ENOMEM;
	}
	engine_slots(v)->users++;
	return 0;
}

void engine_detach(struct vcpu *v)
{
	if (--engine_slots(v)->users)
		return;
	free(v->engine);
	v->engine = NULL;
}

bool engine_events(struct vcpu *v, enum exit_reason *why)
{
	uint32_t ev = __atomic_load_n(&v->event, __ATOMIC_ACQUIRE);
	int r;

	if (ev & (VCPU_EV_STOP | VCPU_EV_INIT)) {
		*why = ev & VCPU_EV_STOP ? EXIT_STOP : EXIT_INIT;
		return true;
	}
	if (unlikely(ev & VCPU_EV_DEBUG)) {
		__atomic_fetch_and(&v->event, ~(uint32_t)VCPU_EV_DEBUG, __ATOMIC_ACQ_REL);
		*why = EXIT_DEBUG;
		return true;
	}
	if (ev & VCPU_EV_CODE) {
		__atomic_fetch_and(&v->event, ~(uint32_t)VCPU_EV_CODE, __ATOMIC_ACQ_REL);
		mmu_serve(&v->mmu);
	}
	if (unlikely(ev & VCPU_EV_KICK)) {
		__atomic_fetch_and(&v->event, ~(uint32_t)VCPU_EV_KICK, __ATOMIC_ACQ_REL);
		/* Who was not halted is about to be, and would not be kicked again. */
		v->pv_kicked = !v->halted;
		v->halted = false;
	}
	if (!(ev & (VCPU_EV_IRQ | VCPU_EV_NMI)) && !v->nmi_pending)
		return false;
	if (v->inhibit_irq || v->inhibit_db)
		return false; /* kept posted: looked at again after the next instruction */
	r = cpu_take_interrupt(v);
	if (r > 0)
		v->halted = false;
	*why = EXIT_SHUTDOWN;
	return r < 0;
}
