/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The user's terminal: raw while a machine owns it, and back.
 */
#ifndef HOST_TTY_H
#define HOST_TTY_H

#include <stdbool.h>
#include <termios.h>

/* Reads the mode of fd. False if it is no terminal, or one we are in the background of (it is then not ours to change). */
bool tty_save(int fd, struct termios *saved);

/* No echo, no line editing, no signals from keys; output processing stays on, so that lines of ours end at the margin. */
int tty_raw(int fd, const struct termios *saved);

/* Puts the saved mode back, also from a background process group. Errors are ignored: there is nobody left to tell. */
void tty_restore(int fd, const struct termios *saved);

#endif
