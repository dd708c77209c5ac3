/* SPDX-License-Identifier: Apache-2.0 */
/* Entropy device: random bytes of the host's kernel. */
#ifndef DEV_VIRTIO_RNG_H
#define DEV_VIRTIO_RNG_H

#include "dev/virtio/virtio.h"

/* 0 or -ENOMEM. */
int virtio_rng_create(struct io *io, struct virtio_dev **out);

#endif
