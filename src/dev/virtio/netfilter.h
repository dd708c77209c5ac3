/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which received frames a network interface passes to its driver: by destination address and VLAN, as the driver has set through the
 * control queue (virtio 1.2, 5.1.6.5.1 to 5.1.6.5.3).
 *
 * Locking: the device's (io->lock).
 */
#ifndef DEV_VIRTIO_NETFILTER_H
#define DEV_VIRTIO_NETFILTER_H

#include "host/net/net.h"

#define NETFILTER_MAX_ADDRESSES 64
#define NETFILTER_VLANS 4096

/* Addresses of one kind; too many of them: all are let through. */
struct netfilter_table {
	unsigned n;
	bool overflow;
	uint8_t address[NETFILTER_MAX_ADDRESSES][NET_MAC_LEN];
};

struct netfilter {
	uint8_t own[NET_MAC_LEN];
	bool promiscuous, all_multicast, all_unicast, no_multicast, no_unicast, no_broadcast;
	struct netfilter_table unicast, multicast;
	bool vlans;                                   /* negotiated: tagged frames are looked at */
	uint64_t vlan[NETFILTER_VLANS / 64];
};

/* Power-on state: everything passes until the driver says what it wants. */
void netfilter_reset(struct netfilter *f, const uint8_t own[NET_MAC_LEN]);

/* `head` holds the first bytes of a frame of `len` bytes, NET_ETH_HEADER at least. */
bool netfilter_accepts(const struct netfilter *f, const uint8_t *head, size_t len);

/* A command of the driver's: class, command and `len` bytes of data (a private copy). True if the filter understands and obeys it. */
bool netfilter_command(struct netfilter *f, unsigned class, unsigned command, const uint8_t *data, size_t len);

/* After a load: whatever the stream said, indices are in range, and what is true or false is one of them. */
static inline void netfilter_sanitize(struct netfilter *f)
{
	bool *const flags[] = {&f->promiscuous, &f->all_multicast, &f->all_unicast, &f->no_multicast, &f->no_unicast,
			       &f->no_broadcast, &f->vlans, &f->unicast.overflow, &f->multicast.overflow};

	for (unsigned i = 0; i < sizeof(flags) / sizeof(flags[0]); i++)
		*(uint8_t *)flags[i] &= 1;
	f->unicast.n = f->unicast.n > NETFILTER_MAX_ADDRESSES ? 0 : f->unicast.n;
	f->multicast.n = f->multicast.n > NETFILTER_MAX_ADDRESSES ? 0 : f->multicast.n;
}

#endif
