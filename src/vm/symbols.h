/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Names for addresses of this process's own code: functions of the program, and each shared library as a whole.
 *
 * Read from the program's file and the dynamic linker before the sandbox closes; constant afterwards.
 */
#ifndef VM_SYMBOLS_H
#define VM_SYMBOLS_H

#include "base/types.h"

struct symbols {
	unsigned n;
	struct symbol { uintptr_t addr; const char *name; } *e;   /* by address; each reaches to the next. NULL: nothing known */
};

/* 0, or -errno: there is then nothing but what could be found. */
int symbols_load(struct symbols *s);
/* Index of the entry that holds addr; s->n if none does. Async-signal-safe. */
unsigned symbols_find(const struct symbols *s, uintptr_t addr);

#endif
