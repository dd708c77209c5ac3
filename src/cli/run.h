/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Inside `doppel run`: options, the machine they describe, and supervising its process.
 *
 * An option is one row of its family's table; the table serves the command line, the configuration file (doppel.conf.5: keys are the long
 * names) and the help alike. A family (run_boot.c, run_machine.c, ...) is a table and a finish() that runs when all options of all
 * families are known: it checks what belongs together, opens files and fills the configuration. To add an option, add a row;
 * to add a family, a file and a line in run_families[] (run_options.c).
 *
 * Invariant: set() only looks at text; nothing is opened before every option is known to be well formed.
 * Files are opened here, with the user's rights, before the machine's process exists: that process gets descriptors and never sees a
 * path.
 */
#ifndef CLI_RUN_H
#define CLI_RUN_H

#include "host/evloop.h"
#include "host/rundir.h"
#include "proto/proto.h"

struct run_option;

/* A value and where it was given, which is what an error about it names. */
struct run_arg {
	const char *text;                  /* NULL: not given. Lives as long as the request. */
	const char *file;                  /* configuration file; NULL: command line */
	unsigned line;
	const struct run_option *option;
};

/* The state of each family between set() and finish(). */
struct run_boot {
	struct run_arg kernel, initrd, append;
	struct run_arg module[PROTO_MAX_MODULES];
};
struct run_machine {
	struct run_arg stats, profile;
	bool perf_map;
};
struct run_console {
	struct run_arg serial, console;
};

struct run_disks {
	struct run_arg disk[PROTO_MAX_DISKS];
};

#define RUN_MAX_SSH_KEYS 16
struct run_cloud {
	struct run_arg seed;
	struct run_arg ssh_key[RUN_MAX_SSH_KEYS];
	unsigned nkeys;
};

struct run_nets {
	struct run_arg net[PROTO_MAX_NETS];
	bool none;
};

struct run_gdb {
	struct run_arg where;
	const char *path;                  /* socket file that we have made: removed at the end */
};

/* Its place among the user's machines. */
struct run_place {
	struct rundir dir;
	int lock;
	bool held;
};

/* A shared folder's server, and vsock's connections, live as long as the machine does. */
struct run_folder {
	int dir;
	char *path;                        /* without links */
	bool read_only;
};
struct run_shares {
	struct run_arg share[PROTO_MAX_SHARES];
	struct run_folder folder[PROTO_MAX_SHARES];
	unsigned opened;
	pid_t pid[PROTO_MAX_SHARES];
	unsigned started;
};
struct run_vsock {
	struct run_arg vsock;
	char path[108];                    /* of the listening socket; empty: there is none (yet) */
	struct ev_source listener, channel;
	int waiting;                       /* a connection the machine has no room for yet, or -1 */
};

/* The machine under construction and the files that go with it (fds[i] has role config.role[i]). */
struct run_request {
	struct proto_config config;
	int fds[PROTO_MAX_FDS];
	struct run_boot boot;
	struct run_disks disks;
	struct run_cloud cloud;
	struct run_nets nets;
	struct run_machine machine;
	struct run_console console;
	struct run_gdb gdb;
	struct run_shares shares;
	struct run_vsock vsock;
	bool detach;
	int detached_news;                 /* in a detached process: where to tell of its success, otherwise 0 */
	struct run_place place;
	struct run_text *texts;            /* what run_keep() has kept */
};

enum run_option_flag {
	RUN_REPEATS = 1,    /* several times: each adds one. Otherwise the last one counts, and a file may have it once. */
	RUN_EMPTY = 2,      /* an empty value means something */
	RUN_OPTIONAL = 8,   /* the value may be left out on the command line, which is an empty one */
	RUN_LINE_ONLY = 4,  /* about this run, not about the machine: not in files */
};

struct run_option {
	const char *name;
	const char *value;      /* the help's word for the value; NULL: a switch, whose set() gets "yes" or "no" */
	const char *help;       /* lines end with \n except the last */
	int (*set)(struct run_request *req, const struct run_arg *arg);    /* 0 or an enum proto_status, the error printed */
	unsigned flags;         /* enum run_option_flag */
	char letter;            /* short form on the command line, or 0 */
};

struct run_family {
	const char *title;                               /* heading in the help */
	const struct run_option *option;                 /* ends with a NULL name */
	int (*finish)(struct run_request *req);          /* may be NULL; as set() */
};
extern const struct run_family run_boot_family, run_disk_family, run_cloud_family, run_device_family, run_machine_family,
	run_console_family, run_gdb_family, run_net_family;

/* --- for the families ------------------------------------------------------------------------------------------------ */

/* Prints "--name: message" or "file:line: name: message" and returns status. The message names cause and remedy. */
__attribute__((format(printf, 3, 4))) int run_error(const struct run_arg *arg, int status, const char *fmt, ...);

/* A set() value for a switch: true for "yes". */
bool run_is_yes(const struct run_arg *arg);

/* Copies text into the configuration, or prints that it is too long. */
int run_copy(char *dst, size_t size, const char *text, const struct run_arg *arg);

/* Reads "512M", "2G", "4096K"; a plain number counts `plain` bytes. False if it is no size or does not fit. */
bool run_size(const char *text, uint64_t plain, uint64_t *bytes);

/* For values like "F,OPTIONS": copies F up to a comma that is not doubled. What follows the comma, or NULL if F does not fit. */
const char *run_split(char *path, size_t size, const char *spec);

/* Keeps a copy of len bytes as a string until the request is released. NULL: out of memory. */
char *run_keep(struct run_request *req, const char *text, size_t len);

/* The path in the first len bytes of text as this process can open it: relative ones in a configuration file count from the file's
 * folder. Kept like run_keep(). NULL: out of memory. */
const char *run_path(struct run_request *req, const struct run_arg *arg, const char *text, size_t len);

/* Opens a file and passes it to the machine as `role`. 0 or a status, the error printed. */
int run_open_input(struct run_request *req, const struct run_arg *arg, const char *path, enum proto_fd_role role);
int run_open_output(struct run_request *req, const struct run_arg *arg, const char *path, enum proto_fd_role role);

/* Passes a descriptor to the machine, which owns it from here on. False: there are too many (the caller prints and closes). */
bool run_add_fd(struct run_request *req, int fd, enum proto_fd_role role);

/* --- the parts of doppel run ----------------------------------------------------------------------------------------- */

/* run_options.c: fills *req (zeroed before) from the command line and the configuration files it names; run_open() then opens what
 * they name. 0 or an enum proto_status, the error printed. run_release() closes and frees, also after an error. argv must live as
 * long as the request. */
int run_parse(struct run_request *req, int argc, char **argv);
int run_open(struct run_request *req);
void run_release(struct run_request *req);
/* The option of that name, or NULL; its index counts over all families. */
const struct run_option *run_find(const char *name, size_t len, unsigned *index);
#define RUN_MAX_OPTIONS 96
/* Prints the options of all families for the help. */
void run_print_options(void);

/* run_gdb.c: removes the socket file. */
void run_gdb_release(struct run_request *req);

/* run_config.c: applies one configuration file to *req. */
int run_read_config(struct run_request *req, const struct run_arg *file);

/* run_share.c: --share, the servers. run_share_start() starts them, when standard error is where it is to stay; run_share_end() waits for
 * them, a while, after the machine's descriptors are closed. */
int run_share_set(struct run_request *req, const struct run_arg *arg);
int run_share_finish(struct run_request *req);
int run_share_start(struct run_request *req);
void run_share_end(struct run_request *req);

/* run_vsock.c: --vsock. Serving means: the machine's requests for connections and those to the listening socket, on the loop. */
int run_vsock_set(struct run_request *req, const struct run_arg *arg);
int run_vsock_finish(struct run_request *req);
int run_vsock_serve(struct run_request *req, struct evloop *loop);
void run_vsock_end(struct run_request *req);

/* run_place.c: claims the name and makes the control socket. 0 or a status, the error printed. */
int run_take_place(struct run_request *req);
void run_leave_place(struct run_request *req);
/* Goes on in a new process without a terminal; false there. True: we are the old one, the machine runs or not, *status says. */
bool run_detach(struct run_request *req, int *status);
/* In the new process: standard streams become the log. And: the guest runs, the old process may go. */
int run_start_log(struct run_request *req);
void run_is_running(struct run_request *req);

/* run_supervise.c: starts doppel-vm, hands it the request, minds terminal and signals, returns the exit status. */
int run_supervise(struct run_request *req);

#endif
