/* SPDX-License-Identifier: Apache-2.0 */
/*
 * virtio-fs: FUSE messages from the guest's queues to the folder's server, replies back.
 *
 *   queue 0 (high priority), queue 1 (requests)  --request head, readable pieces-->  doppel-fs
 *   writable pieces                              <--reply head, bytes--------------
 *
 * The server never sees guest memory: bytes go through the socket straight from and into the pieces of a chain. The device
 * looks at nothing but lengths, so what a guest writes is judged in one place, the server.
 *
 * Invariant: at most one request is partly sent and one reply partly received; every other request in `slot` is wholly with the
 * server. Each holds the device (virtio_hold), so a reset waits for it. A server that dies or misbehaves is cut off: what it had
 * and what comes later fails with EIO.
 * Locking: io->lock. Sending happens on whichever thread finds work; receiving, and waiting for either, on the main thread.
 * Spec: virtio 1.2, 5.11.
 */
#include "dev/virtio/fs.h"

#include <errno.h>
#include <linux/fuse.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/log.h"
#include "proto/share.h"

enum { HIPRIO, REQUESTS, NQUEUES };
#define QUEUE_SIZE 1024
#define SLOTS 64
/* Pieces of one message: a page each for data in one direction, a few for headers; and slack for what is not aligned. */
#define PIECES (SHARE_MAX_MESSAGE / PAGE_SIZE + 32)
/* Replies taken in one go before other devices have their turn. */
#define REPLIES_PER_ROUND 64

struct slot {
	bool used;
	unsigned queue;
	uint64_t unique;             /* of the FUSE header, for a reply of our own */
	struct virtqueue_chain chain;
};

struct virtio_fs {
	struct virtio_dev v;
	struct virtio_fs_options cfg;
	struct ev_source ev_sock, ev_kick;
	int kick;                    /* eventfd: the socket is full, the main thread shall wait for it */
	bool dead;                   /* the server is gone */
	bool blocked;                /* the socket is full */
	struct slot slot[SLOTS];
	struct slot *sending;
	struct share_request out;
	size_t sent;                 /* of head and pieces */
	struct slot *receiving;      /* NULL: a head is being read */
	struct share_reply in;
	size_t got;                  /* of the head, or of the bytes */
	struct { char tag[VIRTIO_FS_TAG]; uint32_t num_request_queues; } __attribute__((packed)) space;
};

static struct virtio_fs *self(struct virtio_dev *v)
{
	return container_of(v, struct virtio_fs, v);
}

static void finish(struct virtio_fs *d, struct slot *s, uint32_t bytes)
{
	virtqueue_push(&d->v.queue[s->queue], &s->chain, bytes);
	s->used = false;
	virtio_release(&d->v);
	virtio_signal(&d->v, s->queue);
}

/* An answer of our own. FORGET and the like have no room for one. */
static void finish_error(struct virtio_fs *d, struct slot *s)
{
	struct fuse_out_header oh = {.len = sizeof(oh), .error = -EIO, .unique = s->unique};
	size_t n = 0;

	if (s->chain.w.bytes >= sizeof(oh))
		n = io_dma_write(d->v.io->mem, &s->chain.w, 0, &oh, sizeof(oh));
	finish(d, s, (uint32_t)n);
}

/* The server is gone or talks nonsense: everything it had fails. */
static void cut_off(struct virtio_fs *d, const char *why)
{
	if (d->dead)
		return;
	log_error("shared folder %s: %s; the guest gets I/O errors from it until the machine is started anew", d->cfg.tag, why);
	d->dead = true;
	d->sending = d->receiving = NULL;
	for (unsigned i = 0; i < SLOTS; i++)
		if (d->slot[i].used)
			finish_error(d, &d->slot[i]);
}

/* --- to the server ------------------------------------------------------------------------------------------------------ */

/* Head and pieces from byte `sent` on. */
static int gather(const struct virtio_fs *d, struct iovec *iov)
{
	size_t head = d->sent < sizeof(d->out) ? sizeof(d->out) - d->sent : 0;
	int n = 0;

	if (head)
		iov[n++] = (struct iovec){.iov_base = (uint8_t *)(uintptr_t)&d->out + d->sent, .iov_len = head};
	return n + (int)io_dma_slice(&d->sending->chain.r, d->sent + head - sizeof(d->out), d->out.in, iov + n, PIECES * 2);
}

/* Sends on. False: the socket is full, or dead. */
static bool send_on(struct virtio_fs *d)
{
	struct iovec iov[PIECES * 2 + 1];

	while (d->sending) {
		ssize_t n = writev(d->cfg.sock, iov, gather(d, iov));

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && errno == EAGAIN)
			return false;
		if (n < 0) {
			cut_off(d, "its server has ended");
			return false;
		}
		d->sent += (size_t)n;
		if (d->sent == sizeof(d->out) + d->out.in)
			d->sending = NULL;
	}
	return true;
}

static struct slot *free_slot(struct virtio_fs *d)
{
	for (unsigned i = 0; i < SLOTS; i++)
		if (!d->slot[i].used)
			return &d->slot[i];
	return NULL;
}

/* Takes the next message, of the high-priority queue first. False: there is none, or no room for it. */
static bool take(struct virtio_fs *d)
{
	struct slot *s = free_slot(d);
	struct fuse_in_header h = {0};
	unsigned q = HIPRIO;

	while (s && q < NQUEUES && virtio_pop(&d->v, q, &s->chain) <= 0)
		q++;
	if (!s || q == NQUEUES)
		return false;
	if (s->chain.r.bytes > SHARE_MAX_MESSAGE || s->chain.w.bytes > SHARE_MAX_MESSAGE) {
		virtio_fail(&d->v, "a message longer than was negotiated");
		return false;
	}
	(void)io_dma_read(&s->chain.r, 0, &h, sizeof(h));
	s->used = true;
	s->queue = q;
	s->unique = h.unique;
	virtio_hold(&d->v);
	if (d->dead) {
		finish_error(d, s);
		return true;
	}
	d->out = (struct share_request){.magic = SHARE_MAGIC, .tag = (uint32_t)(s - d->slot), .in = (uint32_t)s->chain.r.bytes,
					.out = (uint32_t)s->chain.w.bytes};
	d->sent = 0;
	d->sending = s;
	return true;
}

/* Asks for kicks again; true: something has come meanwhile. */
static bool kicks_on(struct virtio_fs *d)
{
	bool more = false;

	for (unsigned q = 0; q < NQUEUES; q++)
		more |= virtqueue_kicks_on(&d->v.queue[q]);
	return more;
}

/* Sends as much as there is, and the socket takes. Without a server every message is answered here: hence the bound, and the main
 * thread goes on. A full socket and full slots need no kick: what makes room pumps. */
static void pump(struct virtio_fs *d)
{
	unsigned budget = 2 * QUEUE_SIZE;
	uint64_t one = 1;

	while (!d->blocked && virtio_live(&d->v)) {
		if (!send_on(d) && !d->dead)
			d->blocked = true;
		else if (budget-- && (take(d) || (free_slot(d) && kicks_on(d))))
			continue;
		else if (budget)
			return;
		(void)!write(d->kick, &one, sizeof(one));
		return;
	}
}

static void notify(struct virtio_dev *v, unsigned queue)
{
	(void)queue;
	pump(self(v));
}

/* --- from the server ------------------------------------------------------------------------------------------------------ */

/* Reads the rest of a head. 1: it is there and names `receiving`; 0: not yet; -1: cut off. */
static int read_head(struct virtio_fs *d)
{
	ssize_t n = read(d->cfg.sock, (uint8_t *)&d->in + d->got, sizeof(d->in) - d->got);
	struct slot *s;

	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return 0;
	if (n <= 0) {
		cut_off(d, "its server has ended");
		return -1;
	}
	d->got += (size_t)n;
	if (d->got < sizeof(d->in))
		return 0;
	s = d->in.tag < SLOTS ? &d->slot[d->in.tag] : NULL;
	if (d->in.magic != SHARE_MAGIC || !s || !s->used || s == d->sending || d->in.bytes > s->chain.w.bytes) {
		cut_off(d, "its server has sent a wrong reply");
		return -1;
	}
	d->receiving = s;
	d->got = 0;
	return 1;
}

/* Reads the rest of a reply into the chain. As read_head(). */
static int read_bytes(struct virtio_fs *d)
{
	struct iovec iov[PIECES * 2];
	int niov = (int)io_dma_slice(&d->receiving->chain.w, d->got, d->in.bytes - d->got, iov, nitems(iov));
	ssize_t n;

	if (niov) {
		n = readv(d->cfg.sock, iov, niov);
		if (n < 0 && (errno == EAGAIN || errno == EINTR))
			return 0;
		if (n <= 0) {
			cut_off(d, "its server has ended");
			return -1;
		}
		d->got += (size_t)n;
	}
	return d->got == d->in.bytes;
}

static void on_sock(void *opaque, short revents)
{
	struct virtio_fs *d = opaque;
	int ret = 1;

	pthread_mutex_lock(&d->v.io->lock);
	if (revents & POLLOUT) {
		d->blocked = false;
		d->ev_sock.events = POLLIN;
	}
	for (unsigned i = 0; i < REPLIES_PER_ROUND && ret > 0 && !d->dead; i++) {
		ret = d->receiving ? 1 : read_head(d);
		if (ret > 0)
			ret = read_bytes(d);
		if (ret > 0) {
			struct slot *s = d->receiving;

			d->receiving = NULL;
			d->got = 0;
			io_dma_written(d->v.io->mem, &s->chain.w, d->in.bytes);
			finish(d, s, d->in.bytes);
		}
	}
	if (d->dead)
		d->ev_sock.events = 0;
	pump(d);
	pthread_mutex_unlock(&d->v.io->lock);
}

static void on_kick(void *opaque, short revents)
{
	struct virtio_fs *d = opaque;
	uint64_t count;

	(void)revents;
	(void)!read(d->kick, &count, sizeof(count));
	pthread_mutex_lock(&d->v.io->lock);
	if (d->blocked)
		d->ev_sock.events = POLLIN | POLLOUT;
	else
		pump(d);
	pthread_mutex_unlock(&d->v.io->lock);
}

static void destroy(struct virtio_dev *v)
{
	struct virtio_fs *d = self(v);

	evloop_del(d->cfg.loop, &d->ev_sock);
	evloop_del(d->cfg.loop, &d->ev_kick);
	for (unsigned i = 0; i < SLOTS; i++)
		virtqueue_chain_fini(&d->slot[i].chain);
	close(d->cfg.sock);
	if (d->kick >= 0)
		close(d->kick);
	virtio_fini(v);
	free(d);
}

static const struct virtio_ops fs_ops = {
	.name = "fs",
	.id = VIRTIO_ID_FS,
	.pci_class = 0x018000, /* mass storage controller, other */
	.notify = notify,
	.destroy = destroy,
};

int virtio_fs_create(struct io *io, const struct virtio_fs_options *cfg, struct virtio_dev **out)
{
	struct virtio_fs *d = calloc(1, sizeof(*d));
	struct virtio_setup setup = {
		.ops = &fs_ops, .nqueues = NQUEUES, .queue_size = QUEUE_SIZE, .max_bytes = 2ull * SHARE_MAX_MESSAGE};
	int err;

	if (!d)
		return -ENOMEM;
	setup.config = &d->space;
	setup.config_len = sizeof(d->space);
	err = virtio_init(&d->v, io, &setup);
	if (err) {
		free(d);
		return err;
	}
	d->cfg = *cfg;
	memcpy(d->space.tag, cfg->tag, sizeof(d->space.tag));
	d->space.num_request_queues = 1;
	d->kick = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	d->ev_sock = (struct ev_source){.fd = cfg->sock, .events = POLLIN, .ready = on_sock, .opaque = d};
	d->ev_kick = (struct ev_source){.fd = d->kick, .events = POLLIN, .ready = on_kick, .opaque = d};
	err = d->kick < 0 ? -errno : 0;
	for (unsigned i = 0; !err && i < SLOTS; i++)
		err = virtqueue_chain_init(&d->slot[i].chain, PIECES * 2);
	if (!err)
		err = evloop_add(cfg->loop, &d->ev_sock);
	if (!err)
		err = evloop_add(cfg->loop, &d->ev_kick);
	if (err) {
		destroy(&d->v);
		return err;
	}
	*out = &d->v;
	return 0;
}
