/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One --net option, taken apart.
 */
#ifndef CLI_RUN_NET_H
#define CLI_RUN_NET_H

#include <net/if.h>

#include "cli/passt.h"
#include "proto/proto.h"

struct run_net {
	enum proto_net_kind kind;
	struct passt_options passt;
	char ifname[IF_NAMESIZE];      /* tap; empty: fd */
	int fd;                        /* tap; -1: ifname */
	unsigned queues, mtu;          /* mtu 0: not given */
	bool has_mac;
	uint8_t mac[6];
};

/* "user,hostfwd=2222:22", "tap,ifname=t0", ... NULL, or what is wrong with it. */
const char *run_net_parse(struct run_net *n, const char *text);

/* A unicast address in the usual form. */
bool run_net_parse_mac(const char *text, uint8_t mac[6]);

/* The address of a machine's interface number `index`, always the same: locally administered, from the machine's name and, for
 * taps, the name of the tap (machines without a name may share a bridge). */
void run_net_derive_mac(const char *machine, const char *ifname, unsigned index, uint8_t mac[6]);

#endif
