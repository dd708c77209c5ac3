/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Starting passt with the user's rights in the host's network namespace.
 *
 * Invariant: passt goes to the background by itself once it serves, in a session of its own, and lives exactly as long as somebody holds our
 * end of its socket: that is only the machine's process in the end, so passt ends with the machine however that ends.
 * What it prints until then is the reason if it fails.
 */
#include "cli/passt.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define PASST_FD 3
#define MAX_ARGS (32 + 2 * PASST_MAX_FORWARDS)
#define ARG_BYTES 80
#define START_TIMEOUT_MS 15000
#define EXEC_FAILED 127
/* Room for several of the longest frames; the system's limit applies (net.core.wmem_max). */
#define SOCKET_BYTES (4 << 20)

struct command {
	char text[MAX_ARGS][ARG_BYTES];
	char *argv[MAX_ARGS + 1];
	unsigned n;
};

__attribute__((format(printf, 2, 3))) static void add(struct command *c, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(c->text[c->n], ARG_BYTES, fmt, ap);
	va_end(ap);
	c->argv[c->n] = c->text[c->n];
	c->n++;
}

static bool port(const char *text, size_t len, uint16_t *out)
{
	unsigned v = 0;

	if (len == 0 || len > 5)
		return false;
	for (size_t i = 0; i < len; i++) {
		if (text[i] < '0' || text[i] > '9')
			return false;
		v = v * 10 + (unsigned)(text[i] - '0');
	}
	*out = (uint16_t)v;
	return v >= 1 && v <= 65535;
}

static bool address(const char *text, size_t len, char out[PASST_ADDRESS])
{
	bool v6 = len >= 2 && text[0] == '[' && text[len - 1] == ']';
	uint8_t raw[16];

	text += v6;
	len -= v6 ? 2 : 0;
	if (len >= PASST_ADDRESS)
		return false;
	memcpy(out, text, len);
	out[len] = 0;
	return inet_pton(v6 ? AF_INET6 : AF_INET, out, raw) == 1;
}

/* The last ':' in text[0, len), or NULL. */
static const char *last_colon(const char *text, size_t len)
{
	return memrchr(text, ':', len);
}

bool passt_parse_forward(const char *text, size_t len, struct passt_forward *f)
{
	const char *slash = memrchr(text, '/', len), *colon;

	*f = (struct passt_forward){.address = "127.0.0.1"};
	if (slash) {
		const char *proto = slash + 1;
		size_t n = len - (size_t)(proto - text);

		if (n != 3 || (memcmp(proto, "tcp", 3) && memcmp(proto, "udp", 3)))
			return false;
		f->udp = *proto == 'u';
		len = (size_t)(slash - text);
	}
	colon = last_colon(text, len);
	if (!colon || !port(colon + 1, len - (size_t)(colon + 1 - text), &f->guest))
		return false;
	len = (size_t)(colon - text);
	colon = last_colon(text, len);
	if (!colon)
		return port(text, len, &f->host);
	return port(colon + 1, len - (size_t)(colon + 1 - text), &f->host) &&
	       address(text, (size_t)(colon - text), f->address);
}

/* Whether a file like /etc/resolv.conf names a server that is not on the host's loopback; with `c`, such servers are passed on. */
static bool servers(const char *path, struct command *c)
{
	FILE *f = fopen(path, "re");
	char line[256], word[64];
	struct in_addr v4;
	struct in6_addr v6;
	bool found = false;

	while (f && fgets(line, sizeof(line), f)) {
		bool is4, is6;

		if (sscanf(line, "nameserver %63s", word) != 1)
			continue;
		is4 = inet_pton(AF_INET, word, &v4) == 1 && (ntohl(v4.s_addr) >> 24) != 127;
		is6 = inet_pton(AF_INET6, word, &v6) == 1 && !IN6_IS_ADDR_LOOPBACK(&v6);
		if (is4 || is6)
			found = true;
		/* At most as many as resolvers look at; passt takes no more either. */
		if (c && is4 && c->n < 24)
			add(c, "-D%s", word);
	}
	if (f)
		fclose(f);
	return found;
}

/*
 * passt tells the guest the servers of /etc/resolv.conf. A stub resolver of the host's (127.0.0.53) is out of the guest's reach; where
 * systemd-resolved runs, the servers behind it are known.
 */
static void name_servers(struct command *c)
{
	if (!servers("/etc/resolv.conf", NULL))
		(void)servers("/run/systemd/resolve/resolv.conf", c);
}

/* `offline`: the host has no route to anywhere, so passt has no interface to imitate. */
static void compose(struct command *c, const struct passt_options *o, bool offline)
{
	c->n = 0;
	add(c, "passt");
	add(c, "--fd=%d", PASST_FD);
	add(c, "--quiet");
	add(c, "--mtu=%u", o->mtu ? o->mtu : PASST_MTU);
	add(c, "--address=10.0.%u.15", 2 + o->index);
	add(c, "--netmask=255.255.255.0");
	add(c, "--gateway=10.0.%u.2", 2 + o->index);
	if (!o->loopback) {
		add(c, "--no-map-gw");
		name_servers(c);
	}
	if (offline) {
		add(c, "--ipv4-only");
		add(c, "--interface=lo");
		add(c, "--mac-addr=02:00:00:00:00:02");
	}
	for (unsigned i = 0; i < o->nforwards; i++) {
		const struct passt_forward *f = &o->forward[i];

		add(c, f->udp ? "-u" : "-t");
		add(c, "%s/%u:%u", f->address, f->host, f->guest);
	}
	c->argv[c->n] = NULL;
}

__attribute__((noreturn)) static void child(struct command *c, int sock, int out)
{
	sigset_t none;
	int null = open("/dev/null", O_RDONLY | O_CLOEXEC);

	/* `sock` is above PASST_FD (see make_pair) and `out` has served when that is taken, so nothing needed is overwritten. */
	if (null < 0 || dup2(null, STDIN_FILENO) < 0 || dup2(out, STDOUT_FILENO) < 0 || dup2(out, STDERR_FILENO) < 0 ||
	    dup2(sock, PASST_FD) < 0)
		_exit(EXEC_FAILED);
	syscall(SYS_close_range, PASST_FD + 1, ~0u, 0);
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	execvp("passt", c->argv);
	_exit(errno == ENOENT ? EXEC_FAILED : EXEC_FAILED - 1);
}

/* Everything passt prints until it goes to the background or ends. -ETIMEDOUT if it does neither. */
static int listen_to(int fd, char *text, size_t size)
{
	struct pollfd p = {.fd = fd, .events = POLLIN};
	size_t have = 0;
	char spill[256];

	for (;;) {
		bool full = have + 1 >= size;
		ssize_t n;
		int ready = poll(&p, 1, START_TIMEOUT_MS);

		if (ready == 0)
			return -ETIMEDOUT;
		n = ready < 0 ? -1 : read(fd, full ? spill : text + have, full ? sizeof(spill) : size - 1 - have);
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			break;
		have += full ? 0 : (size_t)n;
	}
	text[have] = 0;
	return 0;
}

/* The last line that says something: not that there is no system log, and not what passt does as root. */
static void reason(char *text, char *why, size_t size)
{
	char *save = NULL;

	snprintf(why, size, "it gave no reason");
	for (char *line = strtok_r(text, "\n", &save); line; line = strtok_r(NULL, "\n", &save))
		if (strncmp(line, "Failed to send", 14) && strncmp(line, "Don't run as root", 17))
			snprintf(why, size, "%s", line);
}

static int run_once(struct command *c, int sock, char *why, size_t size)
{
	char text[4096];
	int out[2], status = 0, ret;
	pid_t pid;

	if (pipe2(out, O_CLOEXEC) < 0)
		return -errno;
	pid = fork();
	if (pid == 0)
		child(c, sock, out[1]);
	close(out[1]);
	if (pid < 0) {
		close(out[0]);
		return -errno;
	}
	ret = listen_to(out[0], text, sizeof(text));
	close(out[0]);
	if (ret < 0)
		kill(pid, SIGKILL);
	while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
		;
	if (ret < 0) {
		snprintf(why, size, "it did not start within %d seconds", START_TIMEOUT_MS / 1000);
		return ret;
	}
	if (WIFEXITED(status) && WEXITSTATUS(status) == 0)
		return 0;
	reason(text, why, size);
	return WIFEXITED(status) && WEXITSTATUS(status) == EXEC_FAILED ? -ENOENT : -EIO;
}

/* A stream socket pair with descriptors above PASST_FD and large buffers. */
static int make_pair(int pair[2])
{
	int size = SOCKET_BYTES, raw[2];

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, raw) < 0)
		return -errno;
	for (unsigned i = 0; i < 2; i++) {
		pair[i] = fcntl(raw[i], F_DUPFD_CLOEXEC, PASST_FD + 1);
		if (setsockopt(raw[i], SOL_SOCKET, SO_SNDBUFFORCE, &size, sizeof(size)) < 0)
			(void)setsockopt(raw[i], SOL_SOCKET, SO_SNDBUF, &size, sizeof(size));
		close(raw[i]);
	}
	if (pair[0] >= 0 && pair[1] >= 0)
		return 0;
	close(pair[0]);
	close(pair[1]);
	return -EMFILE;
}

int passt_start(const struct passt_options *o, int *fd, char *why, size_t size)
{
	struct command *c = malloc(sizeof(*c));
	int pair[2] = {-1, -1}, ret = c ? make_pair(pair) : -ENOMEM;

	if (ret < 0) {
		snprintf(why, size, "%s", strerror(-ret));
		free(c);
		return ret;
	}
	compose(c, o, false);
	ret = run_once(c, pair[1], why, size);
	if (ret == -EIO && !strcmp(why, "External interface not usable")) {
		compose(c, o, true);
		ret = run_once(c, pair[1], why, size);
	}
	close(pair[1]);
	if (ret < 0)
		close(pair[0]);
	else
		*fd = pair[0];
	free(c);
	return ret;
}
