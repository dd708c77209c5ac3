/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Taking signals over, to be read from a signalfd or asked for, as the conventions for programs have it.
 */
#ifndef HOST_SIGNALS_H
#define HOST_SIGNALS_H

#include <signal.h>
#include <stddef.h>

/*
 * Blocks the signals of `list` and sets *taken to them. Left out are those of the terminal and its session (SIGINT, SIGQUIT, SIGHUP, SIGTSTP)
 * that the program was started with ignored, as nohup(1) and a shell's `&` have it: they stay ignored. To be called before the program itself
 * ignores any of those.
 */
void signals_take(sigset_t *taken, const int *list, size_t n);

#endif
