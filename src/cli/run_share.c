/* SPDX-License-Identifier: Apache-2.0 */
/*
 * --share: parsing, and starting the servers of shared folders (doppel-fs).
 *
 * Invariant and rules: run.h. The server has the user's rights and nothing else; the machine gets one end of a socket pair. When the
 * last copy of that end is closed, however that comes about, the server ends. It says what it has to say on standard error, so that
 * of a detached machine is started only when the log has taken the place of the terminal: who waits for the end of the output of
 * `doppel run -d` must not wait for the server.
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "cli/cli.h"
#include "cli/run.h"
#include "host/spawn.h"
#include "proto/share.h"
#include "proto/status.h"

#define TAG_MAX 36

struct share_options {
	char path[PATH_MAX];
	char tag[TAG_MAX + 1];
	bool read_only;
};

static const char *set_option(struct share_options *s, char *option)
{
	char *val = strchr(option, '=');

	if (!val)
		return "options are written NAME=VALUE";
	*val++ = 0;
	if (!strcmp(option, "tag")) {
		if (!*val || strlen(val) > TAG_MAX)
			return "tag is 1 to 36 characters";
		strcpy(s->tag, val);
		return NULL;
	}
	if (!strcmp(option, "readonly")) {
		s->read_only = !strcmp(val, "on");
		return s->read_only || !strcmp(val, "off") ? NULL : "readonly is on or off";
	}
	return "the options are tag and readonly";
}

static int parse(struct share_options *s, const struct run_arg *arg)
{
	char options[128], *rest = options, *option;
	const char *wrong = NULL, *after;

	memset(s, 0, sizeof(*s));
	after = run_split(s->path, sizeof(s->path), arg->text);
	if (!after || strlen(after) >= sizeof(options))
		return run_error(arg, STATUS_USAGE, "'%.200s...' is too long; shorten it", arg->text);
	strcpy(options, after);
	while (!wrong && *options && (option = strsep(&rest, ",")))
		wrong = set_option(s, option);
	if (!wrong && (!s->path[0] || !s->tag[0]))
		wrong = "a folder and a tag are needed, write DIR,tag=T";
	return wrong ? run_error(arg, STATUS_USAGE, "'%s': %s; see `doppel run --help`", arg->text, wrong) : 0;
}

int run_share_set(struct run_request *req, const struct run_arg *arg)
{
	struct proto_config *c = &req->config;
	struct share_options s;
	int ret = parse(&s, arg);

	if (ret)
		return ret;
	if (c->nshares == PROTO_MAX_SHARES)
		return run_error(arg, STATUS_USAGE, "more than %d shared folders; share one that holds several", PROTO_MAX_SHARES);
	for (unsigned i = 0; i < c->nshares; i++)
		if (!strcmp(c->share[i], s.tag))
			return run_error(arg, STATUS_USAGE, "two folders have the tag '%s'; choose another", s.tag);
	strcpy(c->share[c->nshares], s.tag);
	req->shares.share[c->nshares++] = *arg;
	return 0;
}

static int find_server(char *buf, size_t size)
{
	static const char *const places[] = {"doppel-fs", "../libexec/doppel/doppel-fs", "../lib/doppel/doppel-fs", NULL};

	return cli_find(places, buf, size);
}

/* Starts the server of a folder and waits until it serves; *end is the machine's end of its socket. 0 or -errno. */
static int start_server(struct run_request *req, const char *program, struct share_start *start, int dir, int *end)
{
	char *argv[] = {"doppel-fs", "--channel", "3", NULL};
	struct run_shares *s = &req->shares;
	int pair[2], ret;

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0)
		return -errno;
	/* Root can give files to anybody, which a user namespace with one user in it would take away. */
	s->pid[s->started] = spawn_isolated(program, argv, pair[1], STATUS_START, geteuid() == 0 ? CLONE_NEWUSER : 0, &start->namespaces);
	close(pair[1]);
	ret = s->pid[s->started] < 0 ? (int)s->pid[s->started] : 0;
	if (!ret) {
		s->started++;
		ret = share_send_start(pair[0], start, dir);
	}
	if (!ret)
		ret = share_await_ready(pair[0]);
	if (!ret && fcntl(pair[0], F_SETFL, O_NONBLOCK) < 0)
		ret = -errno;
	if (ret)
		close(pair[0]);
	*end = pair[0];
	return ret;
}

/* Everything about a folder that can be wrong, while messages still go where the user sees them and relative names mean something. */
static int open_folder(struct run_request *req, const struct run_arg *arg, struct run_folder *f)
{
	struct share_options s;
	const char *path;
	int ret = parse(&s, arg);

	if (ret)
		return ret;
	path = run_path(req, arg, s.path, strlen(s.path));
	if (!path)
		return run_error(arg, STATUS_START, "out of memory; free some and try again");
	f->dir = open(path, O_PATH | O_DIRECTORY | O_CLOEXEC);
	f->path = f->dir < 0 ? NULL : realpath(path, NULL);
	if (!f->path || strlen(f->path) >= sizeof(((struct share_start *)0)->path))
		return run_error(arg, STATUS_START, "cannot open %s: %s; give a folder that you may enter", path,
				 strerror(f->path ? ENAMETOOLONG : errno));
	f->read_only = s.read_only;
	return 0;
}

int run_share_finish(struct run_request *req)
{
	int ret = 0;

	for (unsigned i = 0; ret == 0 && i < req->config.nshares; i++)
		ret = open_folder(req, &req->shares.share[i], &req->shares.folder[req->shares.opened++]);
	return ret;
}

static int start(struct run_request *req, const struct run_arg *arg, const struct run_folder *f)
{
	struct share_start start = {.uid = geteuid(), .gid = getegid(), .read_only = f->read_only};
	char program[PATH_MAX];
	int ret, end = -1;

	if (find_server(program, sizeof(program)) < 0)
		return run_error(arg, STATUS_START, "%s is missing; build or install doppel again (`make`)", program);
	strcpy(start.path, f->path); /* open_folder() has measured it */
	ret = start_server(req, program, &start, f->dir, &end);
	if (ret == -ENOTCONN)
		return STATUS_START; /* the server has said why */
	if (ret)
		return run_error(arg, STATUS_START, "cannot start the server of %s: %s; raise the limits on processes and open files",
				 f->path, strerror(-ret));
	if (run_add_fd(req, end, PROTO_FD_SHARE))
		return 0;
	close(end);
	return run_error(arg, STATUS_START, "too many files are passed to the machine; use fewer");
}

int run_share_start(struct run_request *req)
{
	int ret = 0;

	for (unsigned i = 0; ret == 0 && i < req->shares.opened; i++)
		ret = start(req, &req->shares.share[i], &req->shares.folder[i]);
	return ret;
}

void run_share_end(struct run_request *req)
{
	const struct timespec pause = {.tv_nsec = 10000000};

	for (unsigned i = 0; i < req->shares.opened; i++) {
		if (req->shares.folder[i].dir >= 0)
			close(req->shares.folder[i].dir);
		free(req->shares.folder[i].path);
	}
	req->shares.opened = 0;

	/* They end at once, unless the host's disk keeps one busy: that is no reason to wait for ever. */
	for (unsigned i = 0; i < req->shares.started; i++)
		for (unsigned n = 0; n < 300 && waitpid(req->shares.pid[i], NULL, WNOHANG) == 0; n++)
			nanosleep(&pause, NULL);
	req->shares.started = 0;
}
