/* SPDX-License-Identifier: Apache-2.0 */
/*
 * virtio-fs: a shared folder. The device carries FUSE messages to the folder's server (doppel-fs) and its replies back.
 */
#ifndef DEV_VIRTIO_FS_H
#define DEV_VIRTIO_FS_H

#include "dev/virtio/virtio.h"
#include "host/evloop.h"

#define VIRTIO_FS_TAG 36

struct virtio_fs_options {
	char tag[VIRTIO_FS_TAG + 1];
	int sock;                /* stream socket to the server, not blocking; the device takes it over */
	struct evloop *loop;
};

/* 0 or -errno. */
int virtio_fs_create(struct io *io, const struct virtio_fs_options *cfg, struct virtio_dev **out);

#endif
