/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What doppel and doppel-vm say to each other: datagrams over a SOCK_SEQPACKET pair, one message each.
 *
 *   doppel -> doppel-vm   CONFIG (first, once, with descriptors), PAUSE, RESUME, STOP, RESIZE
 *   doppel-vm -> doppel   RUNNING when the guest begins to run; otherwise it reports by its exit status, and the end of file tells
 *                         each that the other is gone
 *
 * Invariant: a message is taken only if magic, version, type and size are exactly as expected and every string in it is
 * terminated; the receiver works on its own copy. Both ends come from one build, so there is no negotiation: another
 * version is an error ("installed in parts").
 */
#ifndef PROTO_PROTO_H
#define PROTO_PROTO_H

#include <termios.h>

#include "base/types.h"

#define PROTO_MAGIC 0x4c504f44u /* "DOPL" */
#define PROTO_VERSION 1
#define PROTO_MAX_MODULES 16
#define PROTO_MAX_CPUS 16
#define PROTO_MAX_DISKS 16
#define PROTO_MAX_DISK_FILES 64   /* of all disks together */
#define PROTO_MAX_SHARES 8
#define PROTO_MAX_NETS 4
#define PROTO_MAX_NET_QUEUES 8    /* of one interface */
#define PROTO_MAX_NET_FDS 16      /* of all interfaces together */
#define PROTO_MAX_FDS (PROTO_MAX_MODULES + PROTO_MAX_DISK_FILES + PROTO_MAX_NET_FDS + PROTO_MAX_SHARES + 8)

enum proto_type { PROTO_CONFIG = 1, PROTO_PAUSE, PROTO_RESUME, PROTO_STOP, PROTO_SHARE_START, PROTO_RUNNING, PROTO_RESIZE };

struct proto_header {
	uint32_t magic;
	uint16_t version;
	uint16_t type;   /* enum proto_type */
	uint32_t size;   /* of the whole message */
	uint32_t zero;
};

enum proto_flag {
	PROTO_F_DEBUG_EXIT = 1,
	PROTO_F_NO_REBOOT = 2,
	PROTO_F_CHECK = 4,    /* load everything, run nothing */
	PROTO_F_TTY = 8,      /* standard input is a terminal in raw mode; `termios` is how to leave it */
	PROTO_F_VIRTIO_MMIO = 16, /* virtio devices on MMIO instead of PCI */
	PROTO_F_PROFILE = 64,    /* report where the time went: to PROTO_FD_PROFILE, or standard error */
	PROTO_F_GDB_WAIT = 32,   /* run nothing until a debugger says go; PROTO_FD_GDB is where it connects to */
	PROTO_F_NO_BALLOON = 64,
};

enum proto_serial { PROTO_SERIAL_STDIO, PROTO_SERIAL_NONE, PROTO_SERIAL_FILE };
/* The virtio console. If there is one it is the machine's console, and the serial port is not on stdio. */
enum proto_hvc { PROTO_HVC_ABSENT, PROTO_HVC_STDIO, PROTO_HVC_DETACHED };

/* What each descriptor passed along is, in order. Modules appear in the order of `module`, disk files in that of `disk_file`,
 * queues of network interfaces in that of `net`. */
enum proto_fd_role {
	PROTO_FD_KERNEL = 1, PROTO_FD_INITRD, PROTO_FD_MODULE, PROTO_FD_SERIAL, PROTO_FD_STATS, PROTO_FD_DISK,
	PROTO_FD_GDB, PROTO_FD_NET,
	PROTO_FD_CONTROL,    /* listening socket */
	PROTO_FD_LOCK,       /* to be kept open, no more: the name is taken while somebody has it */
	PROTO_FD_SHARE,  /* stream to the server of a shared folder (share.h), in the order of `share` */
	PROTO_FD_DIAL,   /* where connections for vsock come from (dial.h) */
	PROTO_FD_PROFILE,
	PROTO_FD_PERF_MAP,
	PROTO_FD_LAST = PROTO_FD_PERF_MAP,
};

enum proto_disk_flag { PROTO_DISK_RDONLY = 1 };

/* A disk is a chain of image files, top first: the next `nfiles` of disk_file. */
struct proto_disk {
	uint32_t flags;                       /* enum proto_disk_flag */
	uint32_t nfiles;                      /* at least 1 */
	char serial[24];                      /* what the guest sees, at most 20 characters; may be empty */
};

struct proto_disk_file {
	uint32_t format;                      /* enum block_format, not AUTO */
	uint32_t probed;                      /* 0 or 1: the format was found by looking at the content */
	char path[256];                       /* for messages only */
};

enum proto_net_kind { PROTO_NET_PASST = 1, PROTO_NET_TAP };

/* A network interface: the next `queues` descriptors of role NET. */
struct proto_net {
	uint8_t kind;                         /* enum proto_net_kind */
	uint8_t queues;                       /* at least 1 */
	uint8_t mac[6];                       /* a unicast address */
	uint16_t mtu;                         /* told to the guest; 0: nothing is */
	uint16_t zero;
};

struct proto_config {
	struct proto_header h;
	uint64_t memory;                      /* bytes, a multiple of 2 MiB */
	uint32_t cpus;
	uint32_t flags;                       /* enum proto_flag */
	uint32_t serial;                      /* enum proto_serial */
	uint32_t hvc;                         /* enum proto_hvc */
	uint16_t cols, rows;                  /* of the terminal; 0: unknown */
	uint32_t namespaces;                  /* CLONE_NEW* the process was started in */
	uint32_t nfds;
	uint32_t nmodules;
	uint32_t ndisks;
	uint32_t ndisk_files;
	uint32_t nshares;
	uint32_t vsock_cid;                   /* 0: no vsock */
	uint32_t nnets;
	uint8_t role[PROTO_MAX_FDS];          /* enum proto_fd_role */
	char engine[16];
	char name[64];
	char kernel[256];                     /* file names, for messages only */
	char initrd[256];
	char append[4096];
	char module[PROTO_MAX_MODULES][512];  /* "file args": the module's command line */
	struct proto_disk disk[PROTO_MAX_DISKS];
	struct proto_disk_file disk_file[PROTO_MAX_DISK_FILES];
	char share[PROTO_MAX_SHARES][40];     /* tags, 1 to 36 bytes */
	struct proto_net net[PROTO_MAX_NETS];
	struct termios termios;
};

/* The terminal's size has changed. */
struct proto_resize {
	struct proto_header h;
	uint16_t cols, rows;
	uint32_t zero;
};

void proto_header_init(struct proto_header *h, enum proto_type type, size_t size);

/* Sends one message with nfds descriptors. 0 or -errno. */
int proto_send(int sock, const struct proto_header *h, const int *fds, unsigned nfds);

/* The same for messages of other protocols between our own programs; flags as in sendmsg(2). */
int proto_send_fds(int sock, const void *buf, size_t size, const int *fds, unsigned nfds, int flags);

/* Receives one message of at most `size` bytes and its descriptors (close-on-exec; fds has PROTO_MAX_FDS places); flags as in
 * recvmsg(2). The number of bytes, -ENOTCONN at end of file, -EPROTO if it was longer, or -errno; on failure no descriptor
 * is left open. */
int proto_recv(int sock, void *buf, size_t size, int *fds, unsigned *nfds, int flags);
void proto_close(const int *fds, unsigned nfds);

/* Receives the configuration and its descriptors (close-on-exec; fds has PROTO_MAX_FDS places). 0, -ENOTCONN at end of
 * file, -EPROTO if anything about the message is not as it must be (every descriptor received is then closed). */
int proto_recv_config(int sock, struct proto_config *cfg, int *fds);

/* Receives a message without a body, or RESIZE. Its type, 0 at end of file, -EPROTO, or -errno. */
int proto_recv_command(int sock, struct proto_resize *m);

/* 0 or -EPROTO: see the invariant. Split from receiving so that it can be tested on bytes. */
int proto_config_check(const struct proto_config *cfg, size_t size, unsigned nfds);

#endif
