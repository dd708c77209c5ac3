/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which engines exist, best first: "auto" takes the first whose probe succeeds and that runs as many vCPUs as asked for.
 */
#include "engine/engine.h"

#include <stdio.h>
#include <string.h>

const struct engine_ops *const engine_registry[] = {
	&engine_bt,
	&engine_interp,
	&engine_lockstep,
	NULL,
};

const struct engine_ops *engine_find(const char *name, unsigned cpus, char *why, size_t size)
{
	bool any = strcmp(name, "auto") == 0;

	for (size_t i = 0; engine_registry[i]; i++) {
		const struct engine_ops *e = engine_registry[i];

		if (!any && strcmp(e->name, name) != 0)
			continue;
		if (cpus > e->max_cpus)
			snprintf(why, size, "engine %s runs at most %u processors; give --cpus less, or another --engine", e->name, e->max_cpus);
		else if (e->probe(why, size))
			return e;
		if (!any)
			return NULL;
	}
	if (!any)
		snprintf(why, size, "unknown engine '%s'; `doppel check` lists them", name);
	return NULL;
}
