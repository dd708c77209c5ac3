/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A machine's memory: the pool of machine frames and p2m, the one map from guest frames to machine frames.
 *
 * Invariant: every access to guest memory goes through p2m, page by page; nothing assumes that the neighbour of a
 * guest frame is the neighbour of its machine frame. A frame is populated at first touch (extents of 2 MiB where the
 * guest range allows it, so that the host can use huge pages; single frames otherwise).
 *
 * Locking: p2m entries are read without a lock (one aligned 64-bit load) and changed under mem->lock (populate, state
 * changes). Taking a frame away is: change the entry, make every vCPU drop table entries that refer to it, reuse (mem_release).
 *
 * Everything the engines call on their hot path is free of vector instructions and of errno (see docs/design/cpu.md,
 * "vector state stays live").
 */
#ifndef MEM_MEM_H
#define MEM_MEM_H

#include "base/types.h"

struct mem;

/* p2m entry: bits 0-39 mfn, 40-43 state, 44-47 flags, 48-63 which MMUs' engines have translated code of the frame. */
enum p2m_state {
	P2M_NONE = 0,   /* no memory here: MMIO or nothing */
	P2M_ABSENT,     /* RAM, no frame yet: populated at first touch */
	P2M_OWNED,      /* RAM, frame owned by this machine */
	P2M_ROM,        /* frame owned; guest writes are dropped */
	P2M_SHARED,     /* read-only frame, copied on write (later) */
	P2M_BALLOONED,  /* given back by the guest; comes back like an absent one if it is touched all the same */
	P2M_SWAPPED,    /* contents elsewhere (later) */
};
#define P2M_F_DIRTY BIT(44)
#define P2M_F_SEALED BIT(45)  /* translations exist and no flat write entry, of any vCPU, reaches the frame (code.c) */
#define P2M_F_LOGGED BIT(46)
#define P2M_CODE(mmu) BIT(48 + (mmu))
#define P2M_CODE_ANY (0xffffull << 48)
#define MEM_MAX_MMUS 16

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
/* What the host really has for them, swapped out or not: less where frames were populated and not touched. */
uint64_t mem_resident(const struct mem *m);
uint64_t mem_ram_size(const struct mem *m);
gfn_t mem_max_gfn(const struct mem *m);

/* Returns the frames of all RAM to P2M_ABSENT (zero at next touch): machine reset. No vCPU may run. */
void mem_reset(struct mem *m);

/* --- taking frames away ------------------------------------------------------------------------------------------- */

struct mem_span {
	gfn_t gfn;
	uint64_t frames;
};

/*
 * Gives the frames of RAM in the spans back to the host; a later touch finds zeroes. `ballooned`: they count as given back by the guest
 * (mem_ballooned) until they are touched or mem_reclaim() is called. What is not RAM, or has no frame, is skipped. Waits until no vCPU can
 * reach the frames any more; translations made from them are dropped. Called with io.lock or none, never by a vCPU's thread inside
 * the engine (device callbacks are outside). DMA in flight to a frame that the guest gives away may end in another frame of
 * the same guest, as on hardware.
 */
void mem_release(struct mem *m, const struct mem_span *span, unsigned n, bool ballooned);
/* Ballooned frames of the spans are plain RAM again. */
void mem_reclaim(struct mem *m, const struct mem_span *span, unsigned n);
uint64_t mem_ballooned(const struct mem *m);    /* bytes */

/* --- code pages: self-modifying and cross-modifying code -------------------------------------------------------------
 *
 * Before an engine reads guest bytes to translate them, it marks the frame and then says which bytes it reads; both are full barriers. A
 * store to a marked frame finds no flat entry and comes to C, which calls mem_code_write() before the store and mem_code_wrote() after
 * it. docs/design/mem.md has the ordering argument. mmu is the caller's own, on its thread.
 */
struct mmu;
struct mem_code_ops {
	/* On the vCPU's thread: guest bytes [off, off+len) of the frame are about to change, or have changed. Drops what was derived
	 * from them; true if nothing of the frame is translated any more. */
	bool (*write)(void *opaque, gfn_t gfn, unsigned off, unsigned len);
	/* On the vCPU's thread: too much has changed to be told singly; drops all translations. */
	void (*drop)(void *opaque);
};

/* Marks `gfn` for mmu's engine and removes every flat write entry that reaches it, of all vCPUs. May have to wait for others: it
 * then serves requests to this vCPU (blocks may be dropped through mem_code_ops), so nothing derived from memory may be held. False: it
 * is no memory, or others store to it all the time; it is not marked. */
bool mem_code_mark(struct mmu *mmu, gfn_t gfn);
/* Bytes [off, off+len) of the marked frame are about to be read. */
void mem_code_read(struct mem *m, gfn_t gfn, unsigned off, unsigned len);
/* Does any engine have translations of the frame? */
bool mem_code_marked(const struct mem *m, gfn_t gfn);
/* Before a store of len bytes inside the frame: drops this vCPU's translations of them. */
void mem_code_write(struct mmu *mmu, gfn_t gfn, unsigned off, unsigned len);
/* After a store that was not made through a flat write entry: tells the other vCPUs (mmu NULL: all; a device) to drop theirs. */
void mem_code_wrote(struct mem *m, const struct mmu *mmu, gfn_t gfn, unsigned off, unsigned len);

#endif
