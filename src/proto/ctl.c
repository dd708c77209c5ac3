/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Checks of the control protocol's messages (ctl.h). Pure: no descriptors, no state.
 */
#include "proto/ctl.h"

#include <errno.h>
#include <string.h>

static_assert(sizeof(struct ctl_header) == 16 && sizeof(struct ctl_attach) == 8 && sizeof(struct ctl_ended) == 64 &&
		      sizeof(struct ctl_memory) == 8 && sizeof(struct ctl_resize) == 4,
	      "the layout is the protocol");

static bool is_request(unsigned type)
{
	return (type >= CTL_INFO && type <= CTL_INPUT) || type == CTL_MEMORY || type == CTL_RESIZE;
}

/* Those that report carry a body, if they succeed. */
static bool reports(unsigned type)
{
	return type == CTL_INFO || type == CTL_STATS || type == CTL_MEMORY;
}

void ctl_header_init(struct ctl_header *h, unsigned type, size_t size, int status)
{
	*h = (struct ctl_header){
		.magic = CTL_MAGIC, .version = CTL_VERSION, .type = (uint16_t)type, .size = (uint32_t)size, .status = status};
}

static int take_header(const void *packet, size_t len, struct ctl_header *h)
{
	if (len < sizeof(*h) || len > CTL_MAX)
		return -EPROTO;
	memcpy(h, packet, sizeof(*h));
	if (h->magic != CTL_MAGIC)
		return -EPROTO;
	if (h->version != CTL_VERSION)
		return -EPROTONOSUPPORT;
	return h->size == len ? 0 : -EPROTO;
}

int ctl_parse_request(const void *packet, size_t len, struct ctl_request *out)
{
	struct ctl_header h;
	int ret = take_header(packet, len, &h);

	if (ret)
		return ret;
	if (!is_request(h.type) || h.status != 0)
		return -EPROTO;
	*out = (struct ctl_request){
		.type = h.type, .data = (const uint8_t *)packet + sizeof(h), .len = len - sizeof(h)};
	switch (out->type) {
	case CTL_ATTACH:
		if (out->len != sizeof(out->attach))
			return -EPROTO;
		memcpy(&out->attach, out->data, sizeof(out->attach));
		return out->attach.flags & ~(uint32_t)(CTL_ATTACH_WRITE | CTL_ATTACH_STEAL) ? -EPROTO : 0;
	case CTL_MEMORY:
		if (out->len != sizeof(out->memory))
			return -EPROTO;
		memcpy(&out->memory, out->data, sizeof(out->memory));
		return 0;
	case CTL_RESIZE:
		if (out->len != sizeof(out->resize))
			return -EPROTO;
		memcpy(&out->resize, out->data, sizeof(out->resize));
		return 0;
	case CTL_INPUT:
		return out->len >= 1 && out->len <= CTL_INPUT_MAX ? 0 : -EPROTO;
	default:
		return out->len == 0 ? 0 : -EPROTO;
	}
}

int ctl_parse_answer(const void *packet, size_t len, struct ctl_header *h, const uint8_t **body, size_t *body_len)
{
	unsigned type;
	int ret = take_header(packet, len, h);

	if (ret)
		return ret;
	*body = (const uint8_t *)packet + sizeof(*h);
	*body_len = len - sizeof(*h);
	if (h->type == CTL_OUTPUT)
		return h->status == 0 ? 0 : -EPROTO;
	if (h->type == CTL_ENDED)
		return h->status == 0 && *body_len == sizeof(struct ctl_ended) &&
			       memchr(*body + offsetof(struct ctl_ended, reason), 0, sizeof(((struct ctl_ended *)0)->reason)) ? 0 : -EPROTO;
	type = h->type & ~(unsigned)CTL_REPLY;
	if (!(h->type & CTL_REPLY) || !is_request(type) || type == CTL_INPUT || type == CTL_RESIZE || h->status > 0)
		return -EPROTO;
	if (reports(type) && h->status == 0)
		return *body_len ? 0 : -EPROTO;
	return *body_len == 0 ? 0 : -EPROTO;
}
