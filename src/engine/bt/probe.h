/* SPDX-License-Identifier: Apache-2.0 */
/* What the translator needs of the host. */
#ifndef ENGINE_BT_PROBE_H
#define ENGINE_BT_PROBE_H

#include <stdbool.h>
#include <stddef.h>

/* True if the translator can run here; why = one line either way. */
bool bt_probe(char *why, size_t size);

#endif
