/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Starting passt, which gives a machine a network without privileges (passt(1), docs/design/net.md).
 */
#ifndef CLI_PASST_H
#define CLI_PASST_H

#include "base/types.h"

#define PASST_MAX_FORWARDS 32
#define PASST_ADDRESS 46            /* INET6_ADDRSTRLEN */
#define PASST_MTU 65520             /* what passt offers if nothing else is asked for */

/* A port of the host that leads into the guest. */
struct passt_forward {
	char address[PASST_ADDRESS];   /* of the host */
	uint16_t host, guest;
	bool udp;
};

struct passt_options {
	unsigned index;                /* of the interface: chooses the guest's addresses, 10.0.(2 + index).15 and so on */
	unsigned mtu;
	bool loopback;                 /* the gateway's address leads to the host's loopback interface */
	unsigned nforwards;
	struct passt_forward forward[PASST_MAX_FORWARDS];
};

/* "[ADDRESS:]HOST:GUEST[/tcp|/udp]"; ADDRESS is IPv4 or [IPv6], 127.0.0.1 if left out. False if it is none. */
bool passt_parse_forward(const char *text, size_t len, struct passt_forward *f);

/*
 * Starts passt and waits until it serves; *fd is our end of its socket (close-on-exec), whose closing ends it. 0, -ENOENT if passt is not
 * installed, or another -errno; `why` then says what passt or the host complained about.
 */
int passt_start(const struct passt_options *o, int *fd, char *why, size_t size);

#endif
