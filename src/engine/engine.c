/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The slots through which several engines share one vCPU.
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
