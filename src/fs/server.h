/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The threads of doppel-fs: frames from the machine, requests, frames back.
 */
#ifndef FS_SERVER_H
#define FS_SERVER_H

#include "fs/fs.h"

/* Requests that may be under way at once: a slow one (fsync) must not hold up the others. */
#define FS_THREADS 4

struct fs_server;

/* Threads are made, buffers are there; they wait until fs_server_run(). NULL: no memory or no threads. */
struct fs_server *fs_server_create(struct fs *fs, int sock);
/* Lets the threads go; returns when the machine has closed its end (0) or broken the protocol (-EPROTO). */
int fs_server_run(struct fs_server *s);

#endif
