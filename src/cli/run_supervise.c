/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Minding the machine's process: start it, hand over the configuration, own the terminal's mode, forward signals, collect
 * the status.
 *
 * Invariant: whenever this process ends or stops in a way it can see, the terminal is in the mode it was found in; in the
 * one way it cannot see (SIGKILL) the machine's process notices the end of the channel and restores it.
 * Signals are blocked and read from a signalfd, so everything happens in one place, in order; those that we were started with ignored
 * stay so (host/signals.h).
 *
 *   SIGINT SIGTERM SIGHUP SIGQUIT -> STOP message (a second one: SIGKILL)     SIGTSTP -> PAUSE, restore, stop ourselves
 *   SIGCONT -> raw again, RESUME                SIGWINCH -> RESIZE           SIGCHLD -> the end
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/log.h"
#include "cli/cli.h"
#include "cli/run.h"
#include "host/signals.h"
#include "host/spawn.h"
#include "host/tty.h"
#include "proto/status.h"

struct supervisor {
	struct run_request *req;
	pid_t pid;
	int sock;
	int sigfd;
	bool tty;            /* standard input is a terminal we may set */
	bool stopping;
	struct termios saved;
	struct evloop loop;
	struct ev_source signals, channel;
};

static void command(struct supervisor *s, enum proto_type type)
{
	struct proto_header h;

	proto_header_init(&h, type, sizeof(h));
	(void)proto_send(s->sock, &h, NULL, 0); /* a dead receiver is about to be collected */
}

static int signals_init(struct supervisor *s)
{
	static const int list[] = {SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGTSTP, SIGCONT, SIGWINCH, SIGCHLD};
	sigset_t set;

	signals_take(&set, list, nitems(list));
	signal(SIGTTOU, SIG_IGN);
	signal(SIGPIPE, SIG_IGN);
	s->sigfd = signalfd(-1, &set, SFD_CLOEXEC);
	return s->sigfd < 0 ? -errno : 0;
}

static int start(struct supervisor *s)
{
	char path[PATH_MAX], *argv[] = {"doppel-vm", "--channel", "3", NULL};
	int pair[2];

	if (cli_find_vm(path, sizeof(path)) < 0) {
		log_error("%s is missing; build or install doppel again (`make`)", path);
		return STATUS_START;
	}
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0) {
		log_error("cannot make a socket pair: %s; raise the limit on open files", strerror(errno));
		return STATUS_START;
	}
	s->sock = pair[0];
	s->pid = spawn_isolated(path, argv, pair[1], STATUS_START, 0, &s->req->config.namespaces);
	close(pair[1]);
	if (s->pid < 0) {
		log_error("cannot start a process: %s; raise the limit on processes", strerror((int)-s->pid));
		return STATUS_START;
	}
	return 0;
}

/* Where perf looks for the names of generated code: by the process's id, hence not before there is one. Never through a link, nor into a
 * file that somebody else has put there. */
static void open_perf_map(struct supervisor *s)
{
	char path[64];
	int fd;

	snprintf(path, sizeof(path), "/tmp/perf-%d.map", (int)s->pid);
	(void)unlink(path); /* of an earlier process with this number */
	fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_APPEND | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (fd < 0)
		log_error("cannot create %s: %s; the run goes on without", path, strerror(errno));
	else if (run_add_fd(s->req, fd, PROTO_FD_PERF_MAP))
		fprintf(stderr, "doppel: %s names translated code\n", path);
	else
		close(fd);
}

static int hand_over(struct supervisor *s)
{
	struct proto_config *cfg = &s->req->config;
	int ret;

	if (s->req->machine.perf_map)
		open_perf_map(s);

	if (s->tty) {
		cfg->flags |= PROTO_F_TTY;
		cfg->termios = s->saved;
		tty_size(STDIN_FILENO, &cfg->cols, &cfg->rows);
	}
	proto_header_init(&cfg->h, PROTO_CONFIG, sizeof(*cfg));
	ret = proto_send(s->sock, &cfg->h, s->req->fds, cfg->nfds);
	/* Raw only after the other side has the saved mode: from here on either can restore it. */
	if (ret == 0 && s->tty)
		tty_raw(STDIN_FILENO, &s->saved);
	return ret;
}

static void stop_ourselves(struct supervisor *s)
{
	command(s, PROTO_PAUSE);
	if (s->tty)
		tty_restore(STDIN_FILENO, &s->saved);
	kill(getpid(), SIGSTOP);
	/* Continued. The mode may have been changed meanwhile by whoever had the terminal: save it anew, if it is ours again. */
	if (s->tty && tty_is_ours(STDIN_FILENO))
		tty_raw(STDIN_FILENO, &s->saved);
	command(s, PROTO_RESUME);
}

static void resize(struct supervisor *s)
{
	struct proto_resize m = {0};

	if (!s->tty)
		return;
	proto_header_init(&m.h, PROTO_RESIZE, sizeof(m));
	tty_size(STDIN_FILENO, &m.cols, &m.rows);
	(void)proto_send(s->sock, &m.h, NULL, 0);
}

static void on_signal(struct supervisor *s, int sig)
{
	switch (sig) {
	case SIGWINCH:
		resize(s);
		break;
	case SIGTSTP:
		stop_ourselves(s);
		break;
	case SIGCONT:
		if (s->tty && tty_is_ours(STDIN_FILENO))
			tty_raw(STDIN_FILENO, &s->saved);
		break;
	case SIGINT:
	case SIGTERM:
	case SIGHUP:
	case SIGQUIT:
		if (s->stopping)
			kill(s->pid, SIGKILL);
		s->stopping = true;
		command(s, PROTO_STOP);
		break;
	default:
		break; /* SIGCHLD: waitpid tells */
	}
}

/* The machine says that it runs, or has ended, in which case SIGCHLD follows. */
static void on_channel(void *opaque, short revents)
{
	struct supervisor *s = opaque;
	struct proto_resize m;

	(void)revents;
	if (proto_recv_command(s->sock, &m) == PROTO_RUNNING)
		run_is_running(s->req);
	else
		s->channel.events = 0;
}

static void on_signals(void *opaque, short revents)
{
	struct supervisor *s = opaque;
	struct signalfd_siginfo si;

	(void)revents;
	if (read(s->sigfd, &si, sizeof(si)) == sizeof(si))
		on_signal(s, (int)si.ssi_signo);
}

static int watch(struct supervisor *s)
{
	int ret;

	s->signals = (struct ev_source){.fd = s->sigfd, .events = POLLIN, .ready = on_signals, .opaque = s};
	s->channel = (struct ev_source){.fd = s->sock, .events = POLLIN, .ready = on_channel, .opaque = s};
	evloop_init(&s->loop);
	ret = evloop_add(&s->loop, &s->signals);
	if (ret == 0)
		ret = evloop_add(&s->loop, &s->channel);
	return ret ? ret : run_vsock_serve(s->req, &s->loop);
}

/* Runs until the process has ended; its wait status. */
static int mind(struct supervisor *s)
{
	int status;
	pid_t pid;

	for (;;) {
		pid = waitpid(s->pid, &status, WNOHANG);
		if (pid == s->pid)
			return status;
		if (pid < 0 && errno != EINTR)
			return STATUS_MONITOR << 8;
		if (evloop_wait(&s->loop, -1) < 0)
			return STATUS_MONITOR << 8;
	}
}

static int exit_status(struct supervisor *s, int status)
{
	int sig;

	if (WIFEXITED(status))
		return WEXITSTATUS(status);
	sig = WTERMSIG(status);
	if (s->stopping)
		return STATUS_STOPPED;
	if (sig == SIGKILL)
		log_error("the machine's process was killed; if nobody did, the host ran out of memory: give --memory less");
	else if (sig == SIGSYS)
		log_error("the machine's process made a forbidden system call and was ended; please report this defect");
	else
		log_error("the machine's process died of signal %d (%s); please report this defect", sig, strsignal(sig));
	return STATUS_CRASH;
}

/* What depends on this being the process that minds the machine. */
static int settle(struct run_request *req)
{
	int ret = 0;

	if (!(req->config.flags & PROTO_F_CHECK))
		ret = run_take_place(req);
	if (ret == 0 && req->detached_news)
		ret = run_start_log(req);
	return ret ? ret : run_share_start(req);
}

int run_supervise(struct run_request *req)
{
	struct supervisor s = {.req = req, .sock = -1, .sigfd = -1};
	int ret, status;

	req->place.dir.fd = -1;
	if (signals_init(&s) < 0) {
		log_error("cannot make a signal descriptor: %s; raise the limit on open files", strerror(errno));
		return STATUS_START;
	}
	s.tty = (req->config.serial == PROTO_SERIAL_STDIO || req->config.hvc == PROTO_HVC_STDIO) && !(req->config.flags & PROTO_F_CHECK) &&
		tty_save(STDIN_FILENO, &s.saved);
	ret = settle(req);
	if (ret == 0)
		ret = start(&s);
	if (ret == 0) {
		/* Failing to hand over means that the process has ended, which mind() is about to see. */
		(void)hand_over(&s);
		status = watch(&s) == 0 ? mind(&s) : STATUS_MONITOR << 8;
		if (s.tty)
			tty_restore(STDIN_FILENO, &s.saved);
		ret = exit_status(&s, status);
		close(s.sock);
	}
	run_leave_place(req);
	close(s.sigfd);
	return ret;
}
