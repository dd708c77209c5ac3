/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Taking signals over. A signal that is ignored but blocked would still be queued (the kernel drops an ignored signal only when it is not
 * blocked), so leaving it out of the mask is what keeps it ignored. Conventions: POSIX, nohup(1) and "Signals and Error Handling" of sh.
 */
#include "host/signals.h"

#include <stdbool.h>

static bool left_alone(int sig)
{
	struct sigaction sa;

	switch (sig) {
	case SIGINT:
	case SIGQUIT:
	case SIGHUP:
	case SIGTSTP:
		return sigaction(sig, NULL, &sa) == 0 && sa.sa_handler == SIG_IGN;
	default:
		return false; /* SIGTERM is always meant for us; the others end nothing */
	}
}

void signals_take(sigset_t *taken, const int *list, size_t n)
{
	sigemptyset(taken);
	for (size_t i = 0; i < n; i++)
		if (!left_alone(list[i]))
			sigaddset(taken, list[i]);
	sigprocmask(SIG_BLOCK, taken, NULL);
}
