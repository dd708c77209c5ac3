/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Talking to running machines: what the verbs that do so share. Functions that return a status have printed the error.
 */
#ifndef CLI_CONTROL_H
#define CLI_CONTROL_H

#include <jansson.h>

#include "base/types.h"
#include "proto/ctl.h"

/* How long a machine may take to answer before it counts as hung. */
#define CONTROL_PATIENCE_MS 5000

/* What the verbs' command lines have in common: NAME and --format. Further options are the verb's. */
struct control_args {
	const char *name;
	const char *more;      /* what follows NAME; NULL: nothing */
	bool json;
};

/* A verb's own option; value NULL: a switch. */
struct control_option {
	const char *name, *value;
	int (*set)(void *opaque, const char *arg);     /* 0 or STATUS_USAGE, the error printed */
};

/* Reads [--format text|json] [options] and the words a verb takes. 0 or STATUS_USAGE. */
enum control_words { CONTROL_NOTHING, CONTROL_NAME, CONTROL_NAME_AND_MORE };   /* the last: NAME [MORE] */
int control_parse(int argc, char **argv, const struct control_option *options, void *opaque, enum control_words words,
		  struct control_args *out);
/* A number of seconds in (0, 86400], for setters. */
bool control_seconds(const char *text, double *out);

/* Connects to the machine of that name. 0 and *fd, or a status. What a dead machine has left is removed. */
int control_connect(const char *name, int *fd);
/* The same without messages: -ENOENT there is none, -ESRCH it is dead (its traces are then removed), or another -errno. */
int control_try(const char *name, int *fd, pid_t *supervisor);

/* Sends a request. 0 or -errno. */
int control_send(int fd, enum ctl_type type, const void *body, size_t len);
/* Receives one message within timeout_ms (-1: for ever). buf has CTL_MAX bytes. 0, -ETIMEDOUT, -ENOTCONN, -EPROTO, ... */
int control_receive(int fd, int timeout_ms, uint8_t *buf, struct ctl_header *h, const uint8_t **body, size_t *len);
/* Request and reply; *json (may be NULL) is a new reference to a report. 0 or -errno, the machine's own included. */
int control_call(int fd, enum ctl_type type, json_t **json);
/* The same for requests with a body. */
int control_call_with(int fd, enum ctl_type type, const void *body, size_t len, json_t **json);
/* Prints why a call has failed; returns the status for that. */
int control_failed(const char *name, int error);
/* Both together: 0 or a status. */
int control_ask(int fd, const char *name, enum ctl_type type, json_t **json);

/* Prints one JSON value and a newline. */
void control_print(const json_t *json);
/* {"name": ..., KEY: VAL} for verbs that only say that it is done. */
void control_done(const struct control_args *a, const char *key, const char *val);

#endif
