/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Between a machine and the server of one of its shared folders (doppel-fs): a stream socket.
 *
 *   doppel    -> doppel-fs   START (once, first, with the directory's descriptor), on the end that doppel-vm gets afterwards
 *   doppel-fs -> doppel      READY: a reply head with tag SHARE_READY
 *   doppel-vm -> doppel-fs   a request head, then `in` bytes: one FUSE message as the guest wrote it
 *   doppel-fs -> doppel-vm   a reply head, then `bytes` bytes, in any order; every request gets one, bytes may be 0
 *
 * Invariant: each side reads into memory of its own and checks the head before it takes what follows. End of file tells each that
 * the other is gone.
 */
#ifndef PROTO_SHARE_H
#define PROTO_SHARE_H

#include "proto/proto.h"

/* The largest FUSE message: 1 MiB of data and its headers; whole pages, so that the data of a write lands aligned. */
#define SHARE_MAX_MESSAGE ((1u << 20) + 4096u)
#define SHARE_MAGIC 0x53464f44u /* "DOFS" */
#define SHARE_READY 0xffffffffu

struct share_request {
	uint32_t magic;
	uint32_t tag;        /* comes back */
	uint32_t in;         /* bytes that follow */
	uint32_t out;        /* room for the reply */
};

struct share_reply {
	uint32_t magic;
	uint32_t tag;
	uint32_t bytes;      /* that follow, at most `out` of the request */
	uint32_t zero;
};

struct share_start {
	struct proto_header h;
	uint32_t read_only;
	uint32_t namespaces;    /* CLONE_NEW* the server was started in */
	uint32_t uid, gid;      /* the user whose rights the server has, as the guest shall see it */
	char path[4096];        /* the directory of the descriptor */
};

/* 0 or -errno. */
int share_send_start(int sock, struct share_start *start, int dir);
/* doppel-fs: the folder is being served. doppel: waits for that, at most 20 s; -ENOTCONN if the server has given up (and said why). */
int share_send_ready(int sock);
int share_await_ready(int sock);
/* 0, -ENOTCONN at end of file, -EPROTO if anything is not as it must be (no descriptor is then left open). */
int share_recv_start(int sock, struct share_start *start, int *dir);

#endif
