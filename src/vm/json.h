/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Writing JSON (RFC 8259) into a buffer of fixed size: objects of numbers and strings, which is all statistics need.
 * Past the end of the buffer output is dropped and `overflow` set; the caller then writes nothing.
 */
#ifndef VM_JSON_H
#define VM_JSON_H

#include "base/types.h"

struct json {
	char buf[65000];     /* fits a message of the control protocol */
	size_t len;
	unsigned depth;
	bool first;
	bool overflow;
};

void json_open(struct json *j, const char *key);     /* {, or "key": { */
void json_close(struct json *j);
void json_number(struct json *j, const char *key, uint64_t val);
void json_string(struct json *j, const char *key, const char *val);

#endif
