/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Inside of gdb/: the stub's state, and what its files offer each other.
 *
 *   packet.c     bytes <-> packets                        stub.c      connection, states, resuming, stop replies
 *   registers.c  the register file and its description    command.c   the packets
 *   target.c     memory, breakpoints, watches             monitor.c   `monitor` commands
 */
#ifndef GDB_PRIVATE_H
#define GDB_PRIVATE_H

#include "gdb/gdb.h"
#include "gdb/packet.h"

/* --- registers.c ---------------------------------------------------------------------------------------------------- */

#define GDB_REG_BYTES_MAX 16
unsigned gdb_reg_count(void);
unsigned gdb_reg_bytes(unsigned n);
/* Little-endian, gdb_reg_bytes(n) of them. */
void gdb_reg_read(struct vcpu *v, unsigned n, uint8_t *val);
/* False, with nothing changed, if the register cannot take the value (one that can only be read takes its own). */
bool gdb_reg_write(struct vcpu *v, unsigned n, const uint8_t *val);
/* The target description; returns its length, the terminator not counted. size: at least GDB_XML_MAX. */
#define GDB_XML_MAX 12288u
size_t gdb_reg_describe(char *xml, size_t size);

/* --- target.c: memory and points, while the machine stands still ------------------------------------------------------ */

#define GDB_WATCH_LEN_MAX (1u << 20)
/* Numbers of the Z and z packets. */
enum gdb_point { GDB_BREAK_SOFT, GDB_BREAK_HARD, GDB_WATCH_WRITE, GDB_WATCH_READ, GDB_WATCH_ACCESS, GDB_POINTS };

struct gdb_target {
	struct mem *mem;
	struct vcpu *const *vcpu;
	unsigned ncpus;
	bool physical;                         /* addresses are guest-physical */
	struct cpu_breaks breaks;              /* what the vCPUs look at; kind[] says which packets set addr[i] */
	uint8_t kind[CPU_MAX_BREAKS];          /* bits 1 << GDB_BREAK_ */
	struct mmu_watches watches;
	struct cpu_breaks any;                 /* stops a vCPU before its next instruction, wherever that is */
	bool changed;                          /* since gdb_target_apply() */
};

void gdb_target_init(struct gdb_target *t, const struct gdb_config *c);
/* Bytes read, up to the first that is not memory. */
size_t gdb_target_read(struct gdb_target *t, struct vcpu *v, uint64_t addr, void *buf, size_t len);
bool gdb_target_write(struct gdb_target *t, struct vcpu *v, uint64_t addr, const void *buf, size_t len);
/* False if there is no room or the range makes no sense. */
bool gdb_target_insert(struct gdb_target *t, enum gdb_point kind, uint64_t addr, uint64_t len);
bool gdb_target_remove(struct gdb_target *t, enum gdb_point kind, uint64_t addr, uint64_t len);
void gdb_target_clear(struct gdb_target *t);
/* Brings the vCPUs in line with the lists; before any of them runs. */
void gdb_target_apply(struct gdb_target *t);
/* How gdb knows the breakpoint at addr: "swbreak" or "hwbreak"; NULL if there is none. */
const char *gdb_target_break_name(const struct gdb_target *t, gva_t addr);
const char *gdb_target_watch_name(unsigned kinds);
bool gdb_target_watched(const struct gdb_target *t, gva_t addr);

/* --- the stub ---------------------------------------------------------------------------------------------------------- */

#define GDB_RX 4096

/*
 *            client says c, s                         stop() asked for
 *   STOPPED ------------------> RUNNING -------------------------------------> STOPPING
 *      ^                           ^  a vCPU met something: it asked for itself    |
 *      |                           +------ client gone: points removed -----------+
 *      +------------------------------------------- stopped(): stop reply ---------+
 *
 * Without a client the machine is RUNNING, or STOPPED if it waits for the first one.
 */
enum gdb_state { GDB_RUNNING, GDB_STOPPING, GDB_STOPPED };

struct gdb {
	struct gdb_config c;
	struct ev_source ev_listen, ev_client;   /* ev_client.fd is -1 without a client */
	enum gdb_state state;
	bool owes_reply;           /* the client waits for a stop reply */
	_Atomic bool attached;
	bool leaving;              /* the client is gone; the machine is stopped once more, to take its points away */
	bool interrupted;          /* it has asked for the stop */
	bool swbreak, hwbreak;     /* stop reasons the client understands */
	int stepped;               /* CPU that was to make a step by being woken, or -1 */
	unsigned cur_g, cur_c;     /* CPUs of Hg and Hc */
	struct gdb_target target;
	struct gdb_packets io;
	uint8_t rx[GDB_RX];        /* read and not yet fed */
	size_t rx_len, rx_pos;
	char reply[GDB_PACKET_MAX + 1];
	uint8_t scratch[GDB_PACKET_MAX];
	char xml[GDB_XML_MAX];
	size_t xml_len;
};

/* stub.c */
/* A client has connected; there must be none. */
void gdb_adopt(struct gdb *g, int fd);
void gdb_send(struct gdb *g, const char *payload);
void gdb_send_bytes(struct gdb *g, const void *payload, size_t len);
/* The client resumes everything. */
void gdb_continue(struct gdb *g);
/* ... or wants one instruction of one CPU. */
void gdb_step(struct gdb *g, unsigned cpu);
void gdb_send_stop(struct gdb *g);
/* The client leaves, orderly (reply sent) or not. */
void gdb_detach(struct gdb *g);

/* command.c: carries out the packet in g->io.in. */
void gdb_command(struct gdb *g);
const char *gdb_cpu_text(const struct gdb *g, unsigned n);

/* monitor.c: text is what the user typed; the answer goes to `out`, terminated. */
void gdb_monitor(struct gdb *g, const char *text, char *out, size_t size);

#endif
