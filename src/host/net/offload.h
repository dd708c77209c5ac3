/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Work that a guest leaves to its network interface, and the checks on what it says about it: checksums (RFC 1071), and TCP segments
 * longer than the MTU.
 *
 * Pure functions on a struct net_frame; nothing here trusts a field of hdr or a byte of the frame.
 */
#ifndef HOST_NET_OFFLOAD_H
#define HOST_NET_OFFLOAD_H

#include "host/net/net.h"

/*
 * Whether the frame is one that a well-behaved driver may send when `offloads` (enum net_offload) were negotiated: lengths, checksum
 * position inside head, and for TCP segmentation matching Ethernet, IP and TCP headers inside head. 0 or -EINVAL. Fields that do not apply
 * are cleared in f->hdr, so that what follows, a kernel included, sees nothing unchecked.
 */
int net_offload_check(struct net_frame *f, unsigned offloads);

/*
 * Finishes a checked frame for a carrier that takes Ethernet frames of any length and knows no offloads: one long TCP segment
 * gets the IP length and header checksum of its real length, and the checksum is completed. Changes head and clears hdr, so it may be called
 * again. 0, or -EMSGSIZE if the packet's length does not fit its IP header.
 */
int net_offload_finish(struct net_frame *f);

/* The sum of n bytes as 16-bit words in network order of a text that begins at an even position, not folded. */
uint64_t net_sum(const void *p, size_t n);
/* Folded to 16 bits, carries added in. */
uint16_t net_sum_fold(uint64_t sum);

#endif
