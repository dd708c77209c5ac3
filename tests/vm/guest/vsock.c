/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The guest's end of tests/vm/sockets.py: services on vsock ports, a thread for each connection, until one on PORT_END.
 *
 * What is streamed are 32-bit numbers that count up, so that a lost, repeated or swapped byte shows.
 */
#include <pthread.h>
#include <sys/socket.h>

#include <linux/vm_sockets.h>

#include "vmtest.h"

enum { PORT_ECHO = 7000, PORT_SINK, PORT_SOURCE, PORT_HALF, PORT_DEAF, PORT_CALL, PORT_END };
#define CALL_BYTES (4u << 20)

static bool send_all(int fd, const void *buf, size_t n)
{
	for (const char *p = buf; n;) {
		ssize_t put = send(fd, p, n, MSG_NOSIGNAL);

		if (put <= 0)
			return false;
		p += put;
		n -= (size_t)put;
	}
	return true;
}

/* The line without its end; false if the other side closes first. */
static bool recv_line(int fd, char *buf, size_t size)
{
	size_t n = 0;

	while (n + 1 < size && recv(fd, buf + n, 1, 0) == 1 && buf[n] != '\n')
		n++;
	buf[n + 1 < size ? n : size - 1] = 0;
	return n > 0;
}

static bool send_numbers(int fd, size_t bytes)
{
	static __thread uint32_t chunk[8192];
	uint32_t next = 0;

	while (bytes) {
		size_t n = bytes < sizeof(chunk) ? bytes : sizeof(chunk);

		for (size_t i = 0; i < nitems(chunk); i++)
			chunk[i] = next++;
		if (!send_all(fd, chunk, n))
			return false;
		bytes -= n;
	}
	return true;
}

/* Until the other side closes; how many bytes there were, or 0 if one was not what comes next. */
static size_t recv_numbers(int fd)
{
	static __thread unsigned char buf[40000];
	size_t total = 0;
	ssize_t n;

	while ((n = recv(fd, buf, sizeof(buf), 0)) > 0)
		for (ssize_t i = 0; i < n; i++, total++)
			if (buf[i] != (unsigned char)(total / 4 >> 8 * (total % 4)))
				return 0;
	return total;
}

static void echo(int fd, unsigned peer)
{
	char buf[10000];
	ssize_t n;

	(void)peer;
	while ((n = recv(fd, buf, sizeof(buf), 0)) > 0 && send_all(fd, buf, (size_t)n))
		;
}

static void sink(int fd, unsigned peer)
{
	char answer[64];
	int n = snprintf(answer, sizeof(answer), "%zu from %u\n", recv_numbers(fd), peer);

	send_all(fd, answer, (size_t)n);
}

static void source(int fd, unsigned peer)
{
	char line[32];

	(void)peer;
	if (recv_line(fd, line, sizeof(line)))
		send_numbers(fd, strtoul(line, NULL, 10));
}

/* Says all it has to say at once, and still listens. */
static void half(int fd, unsigned peer)
{
	send_all(fd, "bye\n", 4);
	shutdown(fd, SHUT_WR);
	printf("half closed: heard %zu from %u\n", recv_numbers(fd), peer);
	fflush(stdout);
}

static void deaf(int fd, unsigned peer)
{
	(void)fd;
	(void)peer;
	pause();
}

/* Calls the host's port that the line names; the answer, or the error, goes back. */
static void call(int fd, unsigned peer)
{
	struct sockaddr_vm sa = {.svm_family = AF_VSOCK, .svm_cid = VMADDR_CID_HOST};
	char line[128];
	int s = socket(AF_VSOCK, SOCK_STREAM, 0);

	(void)peer;
	if (recv_line(fd, line, sizeof(line))) {
		sa.svm_port = (unsigned)strtoul(line, NULL, 10);
		if (connect(s, (struct sockaddr *)&sa, sizeof(sa)) < 0)
			snprintf(line, sizeof(line), "error %d", errno);
		else if (!send_numbers(s, CALL_BYTES) || shutdown(s, SHUT_WR) < 0 || !recv_line(s, line, sizeof(line)))
			strcpy(line, "no answer");
		send_all(fd, line, strlen(line));
	}
	close(s);
}

static void (*const service[])(int fd, unsigned peer) = {echo, sink, source, half, deaf, call};

struct caller { int fd, port; unsigned peer; };

static void *serve_one(void *arg)
{
	struct caller c = *(struct caller *)arg;

	free(arg);
	service[c.port - PORT_ECHO](c.fd, c.peer);
	close(c.fd);
	return NULL;
}

static int listen_at(int port)
{
	struct sockaddr_vm sa = {.svm_family = AF_VSOCK, .svm_cid = VMADDR_CID_ANY, .svm_port = (unsigned)port};
	int fd = socket(AF_VSOCK, SOCK_STREAM, 0);

	if (fd < 0 || bind(fd, (struct sockaddr *)&sa, sizeof(sa)) < 0 || listen(fd, 64) < 0) {
		perror("vsock");
		exit(1);
	}
	return fd;
}

static void *serve_port(void *arg)
{
	int port = (int)(intptr_t)arg, fd = listen_at(port);

	for (;;) {
		struct caller *c = malloc(sizeof(*c));
		struct sockaddr_vm sa = {0};
		socklen_t len = sizeof(sa);
		pthread_t t;

		*c = (struct caller){.fd = accept(fd, (struct sockaddr *)&sa, &len), .port = port, .peer = sa.svm_cid};
		if (c->fd < 0 || pthread_create(&t, NULL, serve_one, c) != 0)
			exit(1);
		pthread_detach(t);
	}
	return NULL;
}

int vsock_services(void)
{
	int end = listen_at(PORT_END);
	pthread_t t;

	for (size_t i = 0; i < nitems(service); i++)
		if (pthread_create(&t, NULL, serve_port, (void *)(intptr_t)(PORT_ECHO + i)) != 0)
			return 1;
	sleep(1); /* they listen by then */
	puts("vsock services");
	fflush(stdout);
	return accept(end, NULL, NULL) < 0;
}
