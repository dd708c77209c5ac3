/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How a sealed machine gets connections to programs on the host (vsock): doppel, which has the user's rights, makes them and passes the
 * descriptors. Datagrams over a SOCK_SEQPACKET pair, one struct dial_message each.
 *
 *   doppel-vm -> doppel   DIAL id port          connect to the socket PATH_port of the configured path, and to nothing else
 *   doppel -> doppel-vm   DIALED id error       with the connection if error (an errno) is 0
 *                         ACCEPTED              with a connection that a program has made to the socket PATH
 *
 * Invariant: each side checks magic, size and type on its own copy. doppel answers every DIAL, never blocks for one, and sends
 * nothing the machine has no room for: connections then wait in the listening socket's queue.
 */
#ifndef PROTO_DIAL_H
#define PROTO_DIAL_H

#include "proto/proto.h"

#define DIAL_MAGIC 0x4c414944u /* "DIAL" */

enum dial_type { DIAL_DIAL = 1, DIAL_DIALED, DIAL_ACCEPTED };

struct dial_message {
	uint32_t magic;
	uint32_t type;   /* enum dial_type */
	uint32_t id;     /* the machine's, comes back */
	uint32_t arg;    /* port, or errno */
};

/* Sends one message, with a descriptor unless fd < 0. 0, -EAGAIN if there is no room, or -errno. The sockets do not block. */
int dial_send(int sock, enum dial_type type, uint32_t id, uint32_t arg, int fd);
/* Receives one if there is one. 0, -EAGAIN, -ENOTCONN, -EPROTO (no descriptor is then left open). *fd: -1 if none came. */
int dial_recv(int sock, struct dial_message *m, int *fd);

#endif
