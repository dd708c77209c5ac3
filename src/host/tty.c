/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Terminal modes (termios(3)).
 *
 * Invariant: whoever calls tty_raw() has published `saved` to the other process first, so that either can restore.
 * No state, no locks.
 */
#include "host/tty.h"

#include <errno.h>
#include <sys/ioctl.h>
#include <unistd.h>

bool tty_is_ours(int fd)
{
	pid_t pgrp = tcgetpgrp(fd);

	/* A terminal that is not our controlling one knows no foreground for us, and nobody there to disturb. */
	return pgrp < 0 ? errno == ENOTTY && isatty(fd) : pgrp == getpgrp();
}

bool tty_save(int fd, struct termios *saved)
{
	return tcgetattr(fd, saved) == 0 && tty_is_ours(fd);
}

static int set_mode(int fd, const struct termios *t)
{
	int ret;

	do
		ret = tcsetattr(fd, TCSADRAIN, t);
	while (ret < 0 && errno == EINTR);
	return ret < 0 ? -errno : 0;
}

int tty_raw(int fd, const struct termios *saved)
{
	struct termios t = *saved;

	t.c_iflag &= ~(tcflag_t)(IGNBRK | BRKINT | PARMRK | ISTRIP | INLCR | IGNCR | ICRNL | IXON);
	t.c_lflag &= ~(tcflag_t)(ECHO | ECHONL | ICANON | ISIG | IEXTEN);
	t.c_cflag &= ~(tcflag_t)(CSIZE | PARENB);
	t.c_cflag |= CS8;
	t.c_cc[VMIN] = 1;
	t.c_cc[VTIME] = 0;
	return set_mode(fd, &t);
}

void tty_size(int fd, uint16_t *cols, uint16_t *rows)
{
	struct winsize w = {0};

	(void)ioctl(fd, TIOCGWINSZ, &w);
	*cols = w.ws_col;
	*rows = w.ws_row;
}

void tty_restore(int fd, const struct termios *saved)
{
	/* The caller has SIGTTOU ignored or blocked: from the background the mode is then set all the same. */
	(void)set_mode(fd, saved);
}
