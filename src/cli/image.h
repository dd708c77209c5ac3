/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Inside `doppel image`: the subcommands, what they share.
 *
 * New images are made under no name, or a temporary one, and get theirs when they are whole; so whatever ends the program, there is no half
 * image. Each subcommand gets argv[0] = its name and returns an enum proto_status, or an enum image_status.
 */
#ifndef CLI_IMAGE_H
#define CLI_IMAGE_H

#include <signal.h>

#include "host/block/block.h"
#include "host/block/qcow2.h"

/* Of `doppel image check` alone; even like all others. */
enum image_status { IMAGE_CORRUPT = 4, IMAGE_LEAKS = 6 };

int image_create(int argc, char **argv);    /* image_create.c */
int image_info(int argc, char **argv);      /* image_info.c */
int image_convert(int argc, char **argv);   /* image_convert.c */
int image_commit(int argc, char **argv);
int image_check(int argc, char **argv);     /* image_info.c */

/* --- image_output.c -------------------------------------------------------------------------------------------------------- */

struct image_output {
	const char *path;
	char *temporary;      /* its name so far, or NULL: it has none */
	int fd;
	sigset_t signals;     /* that stop the work; blocked meanwhile */
};

/* 0 or an enum proto_status, the error printed. An existing file is refused unless `force`. */
int image_output_open(struct image_output *o, const char *path, bool force);
/* The image is whole: syncs it and gives it its name. 0 or an enum proto_status. */
int image_output_finish(struct image_output *o, bool force);
/* It is not: forgets it. */
void image_output_abandon(struct image_output *o);
/* Has SIGINT, SIGTERM and SIGHUP ask for a stop instead of ending the program. image_output_open() does it; alone for work on a file that is there. */
void image_output_take_signals(struct image_output *o);
/* True once the user wants to stop. */
bool image_output_stopped(const struct image_output *o);
/* On a terminal: how far it is. */
void image_progress(const char *what, uint64_t done, uint64_t all);

/* --- options: cmd_image.c ------------------------------------------------------------------------------------------------------ */

struct image_options {
	enum block_format format, output;      /* -f, -O; BLOCK_AUTO if not given */
	const char *backing;
	enum block_format backing_format;
	bool force, compress, json;
	unsigned cluster_bits;
	enum qcow2_compression compression;
	enum qcow2_repair repair;
	int nargs;
	char **args;                           /* what is left */
};

/* `allowed`: the letters of the options that the subcommand takes. 0 or STATUS_USAGE, the error printed. */
int image_parse(struct image_options *o, int argc, char **argv, const char *allowed, int min_args, int max_args);
/* A size with K, M, G or T; plain numbers are bytes. 0 or STATUS_USAGE. */
int image_size(const char *text, uint64_t *size);

#endif
