/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The threads of doppel-fs. Each takes a whole request off the socket, carries it out and writes the whole reply.
 *
 * Invariant: a frame is read, and a reply written, by one thread at a time, so neither is ever interleaved. Buffers hold the
 * largest message and are made before the first.
 * Locking: `reading` around taking a frame, `writing` around giving one; neither while a request is carried out.
 */
#include "fs/server.h"

#include <errno.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include "proto/share.h"

struct fs_worker {
	struct fs_server *server;
	pthread_t thread;
	uint8_t *in, *out;      /* SHARE_MAX_MESSAGE bytes each */
};

struct fs_server {
	struct fs *fs;
	int sock;
	pthread_mutex_t reading, writing;
	sem_t begun, go, ended;
	int result;             /* under `reading`: 0, or why no more frames are read */
	struct fs_worker worker[FS_THREADS];
};

/* 1, 0 at end of file, -errno. */
static int read_all(int sock, void *buf, size_t len)
{
	for (size_t done = 0; done < len;) {
		ssize_t n = read(sock, (uint8_t *)buf + done, len - done);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return n < 0 ? -errno : 0;
		done += (size_t)n;
	}
	return 1;
}

static int write_all(int sock, struct iovec *iov, int n)
{
	while (n) {
		ssize_t done = writev(sock, iov, n);

		if (done < 0 && errno == EINTR)
			continue;
		if (done < 0)
			return -errno;
		for (; n && (size_t)done >= iov->iov_len; n--, iov++)
			done -= (ssize_t)iov->iov_len;
		if (n) {
			iov->iov_base = (uint8_t *)iov->iov_base + done;
			iov->iov_len -= (size_t)done;
		}
	}
	return 0;
}

/* 1 with a request in w->in, or the server's result. */
static int take(struct fs_worker *w, struct share_request *q)
{
	int ret = read_all(w->server->sock, q, sizeof(*q));

	if (ret <= 0)
		return ret;
	if (q->magic != SHARE_MAGIC || q->in > SHARE_MAX_MESSAGE || q->out > SHARE_MAX_MESSAGE)
		return -EPROTO;
	ret = read_all(w->server->sock, w->in, q->in);
	return ret <= 0 && q->in ? ret : 1;
}

static int answer(struct fs_worker *w, const struct share_request *q, int bytes)
{
	struct share_reply head = {.magic = SHARE_MAGIC, .tag = q->tag, .bytes = bytes > 0 ? (uint32_t)bytes : 0};
	struct iovec iov[2] = {{.iov_base = &head, .iov_len = sizeof(head)}, {.iov_base = w->out, .iov_len = head.bytes}};
	int ret;

	pthread_mutex_lock(&w->server->writing);
	ret = write_all(w->server->sock, iov, 2);
	pthread_mutex_unlock(&w->server->writing);
	return ret;
}

static void wait_for(sem_t *sem)
{
	while (sem_wait(sem) < 0)
		; /* a signal */
}

static void *work(void *arg)
{
	struct fs_worker *w = arg;
	struct fs_server *s = w->server;
	struct share_request q;
	int ret;

	sem_post(&s->begun);
	wait_for(&s->go);
	for (;;) {
		pthread_mutex_lock(&s->reading);
		ret = take(w, &q);
		pthread_mutex_unlock(&s->reading);
		if (ret <= 0)
			break;
		/* A guest's nonsense is the guest's problem: it gets an empty reply, which its kernel takes for an error. */
		ret = answer(w, &q, fs_request(s->fs, w->in, q.in, w->out, q.out));
		if (ret < 0)
			break;
	}
	s->result = ret;
	sem_post(&s->ended);
	return NULL;
}

static uint8_t *buffer(void)
{
	void *p = mmap(NULL, SHARE_MAX_MESSAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	return p == MAP_FAILED ? NULL : p;
}

struct fs_server *fs_server_create(struct fs *fs, int sock)
{
	struct fs_server *s = calloc(1, sizeof(*s));

	if (!s)
		return NULL;
	s->fs = fs;
	s->sock = sock;
	pthread_mutex_init(&s->reading, NULL);
	pthread_mutex_init(&s->writing, NULL);
	sem_init(&s->begun, 0, 0);
	sem_init(&s->go, 0, 0);
	sem_init(&s->ended, 0, 0);
	for (unsigned i = 0; i < FS_THREADS; i++) {
		struct fs_worker *w = &s->worker[i];

		w->server = s;
		w->in = buffer();
		w->out = buffer();
		/* What has been made stays: the process ends on failure. */
		if (!w->in || !w->out || pthread_create(&w->thread, NULL, work, w))
			return NULL;
		/* libc makes calls of its own before the thread's first line, which the filter would not allow. */
		wait_for(&s->begun);
	}
	return s;
}

int fs_server_run(struct fs_server *s)
{
	for (unsigned i = 0; i < FS_THREADS; i++)
		sem_post(&s->go);
	wait_for(&s->ended);
	return s->result;
}
