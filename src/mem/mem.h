/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A machine's memory: the pool of machine frames and p2m, the one map from guest frames to machine frames.
 *
 * Invariant: every access to guest memory goes through p2m, page by page; nothing assumes that the neighbour of a
 * guest frame is the neighbour of its machine frame. A frame is populated at first touch (extents of 2 MiB where the
 * guest range allows it, so that the host can use huge pages; single frames otherwise).
 *
 * Locking: p2m entries are read without a lock (one aligned 64-bit load) and changed under mem->lock (populate, state
 * changes). Taking a frame away is: change the entry, make every vCPU drop table entries that refer to it, reuse.
 *
 * Everything the engines call on their hot path is free of vector instructions and of errno (see docs/design/cpu.md,
 * "vector state stays live").
 */
#ifndef MEM_MEM_H
#define MEM_MEM_H

#include "base/types.h"

struct mem;

/* p2m entry: bits 0-39 mfn, 40-43 state, 44-47 flags. */
enum p2m_state {
	P2M_NONE = 0,   /* no memory here: MMIO or nothing */
	P2M_ABSENT,     /* RAM, no frame yet: populated at first touch */
	P2M_OWNED,      /* RAM, frame owned by this machine */
	P2M_ROM,        /* frame owned; guest writes are dropped */
	P2M_SHARED,     /* read-only frame, copied on write (later) */
	P2M_BALLOONED,  /* given back by the guest (later) */
	P2M_SWAPPED,    /* contents elsewhere (later) */
};
#define P2M_F_DIRTY BIT(44)
#define P2M_F_CODE BIT(45)    /* translations exist: no write entry may exist (enforced by mem_code_*) */
#define P2M_F_LOGGED BIT(46)

/* Creates memory able to hold guest frames [0, max_gfn) backed by a pool of at most `bytes` bytes (multiple of 2 MiB).
 * 0 or -errno. */
int mem_create(struct mem **out, uint64_t bytes, gfn_t max_gfn);
void mem_destroy(struct mem *m);

/* Declares [gpa, gpa+len) (page aligned) as RAM, not yet populated. -EEXIST if any page is taken, -EINVAL on range, -ENOMEM
 * if the pool could not back it. */
int mem_add_ram(struct mem *m, gpa_t gpa, uint64_t len);

/* Turns [gpa, gpa+len), declared as RAM and already written by its loader, into ROM. -EINVAL on range, -EFAULT if not RAM. */
int mem_set_rom(struct mem *m, gpa_t gpa, uint64_t len);

/* State of one guest frame; P2M_NONE outside max_gfn. */
enum p2m_state mem_state(const struct mem *m, gfn_t gfn);

/* Host pointer to the guest frame, populating it if absent; NULL if it is not RAM/ROM (or if `write` and it is ROM, or
 * the pool is exhausted). Does not look at P2M_F_CODE: engines use mem_code_write() for that. Thread-safe. */
void *mem_frame(struct mem *m, gfn_t gfn, bool write);

/* Copies to/from guest-physical memory, page by page; devices and loaders use it. Returns 0, or -EFAULT if any page of
 * the range is not memory (pages before it have been copied). Writes drop translations as guest stores do, by posting to the
 * code observers' cross-thread path. Thread-safe. */
int mem_read(struct mem *m, gpa_t gpa, void *buf, size_t len);
int mem_write(struct mem *m, gpa_t gpa, const void *buf, size_t len);

/* To be called after bytes of [gpa, gpa+len) were stored through pointers from mem_frame(.., true) by a device: marks the frames
 * dirty and drops translations, as mem_write() does. A full barrier between those stores and what follows. Thread-safe. */
void mem_written(struct mem *m, gpa_t gpa, uint64_t len);

/* Bytes of frames populated so far, and declared RAM, for statistics and for finding guest RAM ranges. */
uint64_t mem_populated(const struct mem *m);
uint64_t mem_ram_size(const struct mem *m);
gfn_t mem_max_gfn(const struct mem *m);

/* Returns the frames of all RAM to P2M_ABSENT (zero at next touch): machine reset. No vCPU may run. */
void mem_reset(struct mem *m);

/* --- code pages: self-modifying code -------------------------------------------------------------------------- */

/* An engine that keeps translations registers one observer. `write` is called on the vCPU thread before (and, for a
 * store, on the page that the store is about to change) guest bytes [off, off+len) of frame `gfn` are overwritten; it drops
 * what it derived from them and returns true if nothing of the frame is translated any more. */
struct mem_code_ops {
	bool (*write)(void *opaque, gfn_t gfn, unsigned off, unsigned len);
	/* Another thread (device, loader) has written to marked frames through mem_write(): called on that thread, after the
	 * write; posts VCPU_EV_CODE so that the vCPU drops all translations. May be NULL. */
	void (*foreign)(void *opaque);
};
int mem_set_code_ops(struct mem *m, const struct mem_code_ops *ops, void *opaque);

/* Marks `gfn` as holding translated code and removes every flat write entry that reaches it (see mmu.h). */
void mem_code_mark(struct mem *m, gfn_t gfn);
bool mem_code_marked(const struct mem *m, gfn_t gfn);
/* To be called before a store of len bytes to a marked frame; clears the mark if the observer says so. */
void mem_code_write(struct mem *m, gfn_t gfn, unsigned off, unsigned len);

#endif
