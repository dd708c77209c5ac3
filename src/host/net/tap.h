/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Getting at a tap interface of the host. For whoever has the user's rights (the command line); what runs the machine gets descriptors
 * and uses net_tap_create() of net.h.
 */
#ifndef HOST_NET_TAP_H
#define HOST_NET_TAP_H

#include <stdbool.h>

/* Opens `queues` descriptors of the interface, close-on-exec, non-blocking, with offload fields where the kernel agrees. 0, or -errno with
 * nothing left open: -EPERM if the interface is neither the user's nor is the user root, -EBUSY if it is in use. */
int net_tap_open(const char *ifname, unsigned queues, int *fds);

/* Makes a descriptor ready for net_tap_create(), which calls this too: non-blocking, length and order of the offload fields. *vnet_hdr: whether
 * it has them. -EINVAL if it is no tap. */
int net_tap_prepare(int fd, bool *vnet_hdr);

/* The interface's MTU, or -errno. */
int net_tap_mtu(const char *ifname);

/* The name of the interface behind a descriptor (IF_NAMESIZE bytes). 0 or -errno. */
int net_tap_name(int fd, char *name);

#endif
