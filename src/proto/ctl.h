/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The control protocol: what a running machine answers on its socket (docs/abi/control.md is the specification).
 *
 *   SOCK_SEQPACKET, a message a packet:  | header (16 bytes) | body |
 *
 * A client sends requests, each is answered by one reply of type request | CTL_REPLY, in order. OUTPUT and ENDED come unasked to who has
 * attached or watches. Integers are little endian. The protocol is versioned as a whole: another version is refused.
 * Invariant: a message is taken only if its header and its body are exactly as its type demands; the receiver works on its own copy.
 */
#ifndef PROTO_CTL_H
#define PROTO_CTL_H

#include "base/types.h"

#define CTL_MAGIC 0x4c544344u /* "DCTL" */
#define CTL_VERSION 1
#define CTL_MAX 65536         /* largest message */
#define CTL_INPUT_MAX 1024    /* largest piece of console input */
#define CTL_REPLY 0x8000

enum ctl_type {
	CTL_INFO = 1,   /* reply: JSON object */
	CTL_STATS,      /* reply: JSON object */
	CTL_PAUSE,      /* replied to when the machine stands still */
	CTL_RESUME,
	CTL_RESET,
	CTL_POWER,      /* presses the power button */
	CTL_STOP,       /* ends the machine at once */
	CTL_WATCH,      /* ENDED will come */
	CTL_ATTACH,     /* body: struct ctl_attach; OUTPUT and ENDED will come */
	CTL_INPUT,      /* body: bytes typed; no reply */
	CTL_OUTPUT,     /* body: bytes the guest has put out; to the client only */
	CTL_ENDED,      /* body: struct ctl_ended; to the client only, the last message */
	CTL_MEMORY,     /* body: struct ctl_memory; reply: JSON object */
	CTL_RESIZE,     /* body: struct ctl_resize; no reply */
	CTL_TYPES,
};

struct ctl_header {
	uint32_t magic;
	uint16_t version;
	uint16_t type;      /* enum ctl_type, with CTL_REPLY in replies */
	uint32_t size;      /* of the whole message */
	int32_t status;     /* replies: 0 or -errno; otherwise 0 */
};

enum ctl_attach_flag {
	CTL_ATTACH_WRITE = 1,   /* to type as well; -EBUSY if somebody else does */
	CTL_ATTACH_STEAL = 2,   /* who types now may only read from here on */
};
struct ctl_attach {
	uint32_t flags;         /* enum ctl_attach_flag */
	uint32_t scrollback;    /* bytes of earlier output wanted */
};

struct ctl_memory {
	uint64_t bytes;         /* what the guest shall keep, the rest goes into its balloon; 0: only ask */
};

struct ctl_resize {
	uint16_t cols, rows;    /* of the terminal of who types */
};

struct ctl_ended {
	int32_t status;         /* enum proto_status, or of --debug-exit */
	char reason[60];
};

/* A request that has been checked. data points into the message. */
struct ctl_request {
	enum ctl_type type;
	struct ctl_attach attach;
	struct ctl_memory memory;
	struct ctl_resize resize;
	const uint8_t *data;
	size_t len;
};

void ctl_header_init(struct ctl_header *h, unsigned type, size_t size, int status);

/* Server: takes a packet of len bytes apart. 0; -EPROTONOSUPPORT for another version; -EPROTO. */
int ctl_parse_request(const void *packet, size_t len, struct ctl_request *out);

/* Client: checks a packet from the machine; *h is its header, *body what follows. 0, -EPROTONOSUPPORT or -EPROTO. */
int ctl_parse_answer(const void *packet, size_t len, struct ctl_header *h, const uint8_t **body, size_t *body_len);

#endif
