/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Big-endian numbers at any address.
 */
#ifndef HOST_BLOCK_BYTES_H
#define HOST_BLOCK_BYTES_H

#include <endian.h>
#include <string.h>

#include "base/types.h"

static inline uint32_t get_be32(const void *p)
{
	uint32_t v;

	memcpy(&v, p, sizeof(v));
	return be32toh(v);
}

static inline uint64_t get_be64(const void *p)
{
	uint64_t v;

	memcpy(&v, p, sizeof(v));
	return be64toh(v);
}

static inline void put_be32(void *p, uint32_t v)
{
	v = htobe32(v);
	memcpy(p, &v, sizeof(v));
}

static inline void put_be64(void *p, uint64_t v)
{
	v = htobe64(v);
	memcpy(p, &v, sizeof(v));
}

#endif
