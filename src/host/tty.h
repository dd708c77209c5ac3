/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The user's terminal: raw while a machine owns it, and back.
 */
#ifndef HOST_TTY_H
#define HOST_TTY_H

#include <stdbool.h>
#include <stdint.h>
#include <termios.h>

/* False for a terminal that we are in the background of: its mode is then another program's. */
bool tty_is_ours(int fd);

/* Reads the mode of fd. False if it is no terminal, or not ours to change. */
bool tty_save(int fd, struct termios *saved);

/* No echo, no line editing, no signals from keys; output processing stays on, so that lines of ours end at the margin. */
int tty_raw(int fd, const struct termios *saved);

/* The window's size in characters, or 0. */
void tty_size(int fd, uint16_t *cols, uint16_t *rows);

/* Puts the saved mode back, also from a background process group. Errors are ignored: there is nobody left to tell. */
void tty_restore(int fd, const struct termios *saved);

#endif
