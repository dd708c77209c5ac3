/* SPDX-License-Identifier: Apache-2.0 */
/*
 * virtio-net: a network interface in front of a host/net backend (virtio 1.2, 5.1).
 */
#ifndef DEV_VIRTIO_NET_H
#define DEV_VIRTIO_NET_H

#include "dev/virtio/virtio.h"
#include "host/evloop.h"
#include "host/net/net.h"

struct virtio_net_setup {
	const char *name;               /* of its statistics; lives as long as the device */
	struct net_backend *backend;    /* the device's from here on, also when creation fails */
	struct evloop *loop;            /* whose thread receives, and sends what did not go at once */
	uint8_t mac[NET_MAC_LEN];
	uint16_t mtu;                   /* told to the driver; 0: nothing is */
};

/* Since creation. */
struct virtio_net_stats {
	uint64_t rx_frames, rx_bytes;
	uint64_t rx_filtered;           /* not for this interface, by address or VLAN */
	uint64_t rx_dropped;            /* the guest's buffers cannot hold them */
	uint64_t tx_frames, tx_bytes;
	uint64_t tx_dropped;            /* wrong headers, or the backend could not */
};

/* 0 or -errno. */
int virtio_net_create(struct io *io, const struct virtio_net_setup *setup, struct virtio_dev **out);

/* io->lock held. */
void virtio_net_stats(const struct virtio_dev *v, struct virtio_net_stats *out);

#endif
