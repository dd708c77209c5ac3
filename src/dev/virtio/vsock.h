/* SPDX-License-Identifier: Apache-2.0 */
/*
 * virtio-vsock: stream connections between programs in the guest and unix sockets of the host.
 *
 *   host -> guest   a program connects to the socket PATH and sends "CONNECT port\n"; it gets "OK port\n", then the stream
 *   guest -> host   a program connects to CID 2, port N; it reaches whoever listens at PATH_N
 */
#ifndef DEV_VIRTIO_VSOCK_H
#define DEV_VIRTIO_VSOCK_H

#include "dev/virtio/virtio.h"
#include "host/evloop.h"

struct virtio_vsock_options {
	uint64_t cid;            /* the guest's, 3 to 2^32 - 2 */
	int dial;                /* to doppel (proto/dial.h); the device takes it over */
	struct evloop *loop;
};

/* 0 or -errno. */
int virtio_vsock_create(struct io *io, const struct virtio_vsock_options *opt, struct virtio_dev **out);

#endif
