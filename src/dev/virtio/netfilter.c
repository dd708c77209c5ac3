/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The receive filter of virtio-net (netfilter.h). Pure arithmetic on a private state: no input makes it leave its arrays, and a command
 * that is not exactly as the specification says changes nothing.
 */
#include "dev/virtio/netfilter.h"

#include <string.h>

static bool is_set(const struct netfilter *f, unsigned vlan)
{
	return f->vlan[vlan / 64] >> (vlan % 64) & 1;
}

void netfilter_reset(struct netfilter *f, const uint8_t own[NET_MAC_LEN])
{
	*f = (struct netfilter){.promiscuous = true};
	memcpy(f->own, own, NET_MAC_LEN);
}

static bool listed(const struct netfilter_table *t, const uint8_t *mac)
{
	for (unsigned i = 0; i < t->n; i++)
		if (!memcmp(t->address[i], mac, NET_MAC_LEN))
			return true;
	return t->overflow;
}

static bool address_passes(const struct netfilter *f, const uint8_t *mac)
{
	static const uint8_t broadcast[NET_MAC_LEN] = {0xff, 0xff, 0xff, 0xff, 0xff, 0xff};

	if (!memcmp(mac, broadcast, NET_MAC_LEN))
		return !f->no_broadcast;
	if (mac[0] & 1)
		return !f->no_multicast && (f->all_multicast || listed(&f->multicast, mac));
	if (!memcmp(mac, f->own, NET_MAC_LEN))
		return true;
	return !f->no_unicast && (f->all_unicast || listed(&f->unicast, mac));
}

bool netfilter_accepts(const struct netfilter *f, const uint8_t *head, size_t len)
{
	if (f->vlans && len >= NET_ETH_HEADER + NET_VLAN_TAG && head[12] == 0x81 && head[13] == 0 &&
	    !is_set(f, (head[14] & 0x0fu) << 8 | head[15]))
		return false;
	return f->promiscuous || address_passes(f, head);
}

static bool rx_mode(struct netfilter *f, unsigned command, const uint8_t *data, size_t len)
{
	bool *const mode[] = {
		[VIRTIO_NET_CTRL_RX_PROMISC] = &f->promiscuous, [VIRTIO_NET_CTRL_RX_ALLMULTI] = &f->all_multicast,
		[VIRTIO_NET_CTRL_RX_ALLUNI] = &f->all_unicast, [VIRTIO_NET_CTRL_RX_NOMULTI] = &f->no_multicast,
		[VIRTIO_NET_CTRL_RX_NOUNI] = &f->no_unicast, [VIRTIO_NET_CTRL_RX_NOBCAST] = &f->no_broadcast,
	};

	if (command >= nitems(mode) || len != 1)
		return false;
	*mode[command] = data[0] != 0;
	return true;
}

/* One table of { le32 entries; macs } at the front of data. The bytes it takes, 0 if it does not fit. */
static size_t take_table(struct netfilter_table *t, const uint8_t *data, size_t len)
{
	uint32_t n;

	if (len < sizeof(n))
		return 0;
	memcpy(&n, data, sizeof(n));
	if (n > (len - sizeof(n)) / NET_MAC_LEN)
		return 0;
	t->overflow = n > NETFILTER_MAX_ADDRESSES;
	t->n = t->overflow ? 0 : n;
	memcpy(t->address, data + sizeof(n), (size_t)t->n * NET_MAC_LEN);
	return sizeof(n) + (size_t)n * NET_MAC_LEN;
}

static bool mac_command(struct netfilter *f, unsigned command, const uint8_t *data, size_t len)
{
	struct netfilter_table unicast = {0}, multicast = {0};
	size_t used;

	if (command == VIRTIO_NET_CTRL_MAC_ADDR_SET) {
		if (len != NET_MAC_LEN)
			return false;
		memcpy(f->own, data, NET_MAC_LEN);
		return true;
	}
	if (command != VIRTIO_NET_CTRL_MAC_TABLE_SET)
		return false;
	used = take_table(&unicast, data, len);
	if (!used || take_table(&multicast, data + used, len - used) != len - used)
		return false;
	f->unicast = unicast;
	f->multicast = multicast;
	return true;
}

static bool vlan_command(struct netfilter *f, unsigned command, const uint8_t *data, size_t len)
{
	unsigned vlan;

	if (len != 2 || command > VIRTIO_NET_CTRL_VLAN_DEL)
		return false;
	vlan = data[0] | (unsigned)data[1] << 8;
	if (vlan >= NETFILTER_VLANS)
		return false;
	if (command == VIRTIO_NET_CTRL_VLAN_ADD)
		f->vlan[vlan / 64] |= BIT(vlan % 64);
	else
		f->vlan[vlan / 64] &= ~BIT(vlan % 64);
	return true;
}

bool netfilter_command(struct netfilter *f, unsigned class, unsigned command, const uint8_t *data, size_t len)
{
	switch (class) {
	case VIRTIO_NET_CTRL_RX:
		return rx_mode(f, command, data, len);
	case VIRTIO_NET_CTRL_MAC:
		return mac_command(f, command, data, len);
	case VIRTIO_NET_CTRL_VLAN:
		return vlan_command(f, command, data, len);
	default:
		return false;
	}
}
