/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The place of a machine among the user's others: its name and control socket in the runtime directory (host/rundir.h), and leaving the
 * terminal (--detach).
 *
 * Invariant: whoever started a detached machine learns whether it runs: the parent waits until the guest runs or the attempt has ended,
 * and passes on messages and status of the latter.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/log.h"
#include "cli/run.h"
#include "proto/status.h"

/* What the child tells its parent through the pipe, besides the end of file. */
enum { NEWS_LOG = 'L', NEWS_RUNS = 'R' };

static int claim(struct run_request *req)
{
	const char *name = req->config.name;
	pid_t pid;
	int ret = rundir_claim(&req->place.dir, name, &req->place.lock);

	if (ret == 0)
		return 0;
	if (ret == -EBUSY && rundir_alive(&req->place.dir, name, &pid) > 0)
		log_error("a machine called '%s' is running (pid %d); give --name another, or `doppel stop %s`", name, (int)pid, name);
	else
		log_error("cannot lock %s/%s.lock: %s; remove it, or give --name another", req->place.dir.path, name, strerror(-ret));
	return STATUS_START;
}

int run_take_place(struct run_request *req)
{
	struct run_place *p = &req->place;
	char why[256];
	int fd, ret;

	p->lock = p->dir.fd = -1;
	if (rundir_open(&p->dir, why, sizeof(why)) < 0) {
		if (!req->detach) {
			log_warn("%s; the other verbs will not find this machine", why);
			return 0;
		}
		log_error("%s", why);
		return STATUS_START;
	}
	ret = claim(req);
	if (ret)
		return ret;
	p->held = true;
	if (!run_add_fd(req, p->lock, PROTO_FD_LOCK)) {
		log_error("the machine has more than %d files; give it fewer", PROTO_MAX_FDS);
		return STATUS_START;
	}
	ret = rundir_listen(&p->dir, req->config.name, &fd);
	if (ret == 0 && run_add_fd(req, fd, PROTO_FD_CONTROL))
		return 0;
	log_error("cannot make the control socket in %s: %s; make room there, or set XDG_RUNTIME_DIR", p->dir.path,
		  ret < 0 ? strerror(-ret) : "too many files");
	return STATUS_START;
}

void run_leave_place(struct run_request *req)
{
	if (req->place.held)
		rundir_release(&req->place.dir, req->config.name);
	req->place.held = false;
	rundir_close(&req->place.dir);
}

/* --- detaching ------------------------------------------------------------------------------------------------------ */

static void show_log(const struct run_request *req)
{
	struct rundir d;
	char file[RUNDIR_NAME_MAX + 8], buf[4096], why[256];
	ssize_t n;
	int fd;

	if (rundir_open(&d, why, sizeof(why)) < 0)
		return;
	snprintf(file, sizeof(file), "%s.log", req->config.name);
	fd = openat(d.fd, file, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
	while (fd >= 0 && (n = read(fd, buf, sizeof(buf))) > 0)
		if (write(STDERR_FILENO, buf, (size_t)n) < 0)
			break;
	if (fd >= 0)
		close(fd);
	rundir_close(&d);
}

/* The parent's part: 0 once the guest runs, or the status of the failed attempt. */
static int wait_for_news(const struct run_request *req, int news, pid_t child)
{
	bool logs = false;
	char byte;
	ssize_t n;
	int status;

	while ((n = read(news, &byte, 1)) != 0) {
		if (n < 0 && errno != EINTR)
			break;
		if (n == 1 && byte == NEWS_RUNS) {
			printf("%s\n", req->config.name);
			return STATUS_POWEROFF;
		}
		logs |= n == 1 && byte == NEWS_LOG;
	}
	while (waitpid(child, &status, 0) < 0 && errno == EINTR)
		;
	if (logs)
		show_log(req);
	return WIFEXITED(status) ? WEXITSTATUS(status) : STATUS_CRASH;
}

bool run_detach(struct run_request *req, int *status)
{
	int news[2];
	pid_t pid;

	if (pipe2(news, O_CLOEXEC) < 0 || (pid = fork()) < 0) {
		log_error("cannot start a process: %s; raise the limit on processes", strerror(errno));
		*status = STATUS_START;
		return true;
	}
	if (pid > 0) {
		close(news[1]);
		*status = wait_for_news(req, news[0], pid);
		close(news[0]);
		return true;
	}
	close(news[0]);
	setsid();
	req->detached_news = news[1];
	return false;
}

static void tell(struct run_request *req, char byte)
{
	if (req->detached_news > 0)
		(void)!write(req->detached_news, &byte, 1);
}

int run_start_log(struct run_request *req)
{
	int log = rundir_log(&req->place.dir, req->config.name), null = open("/dev/null", O_RDWR | O_CLOEXEC);

	if (log < 0 || null < 0) {
		log_error("cannot open %s/%s.log: %s; remove it", req->place.dir.path, req->config.name, strerror(log < 0 ? -log : errno));
		return STATUS_START;
	}
	dup2(null, STDIN_FILENO);
	dup2(log, STDOUT_FILENO);
	dup2(log, STDERR_FILENO);
	if (log > STDERR_FILENO)
		close(log);
	if (null > STDERR_FILENO)
		close(null);
	(void)!chdir("/"); /* hold no file system busy; every file is open */
	tell(req, NEWS_LOG);
	return 0;
}

void run_is_running(struct run_request *req)
{
	tell(req, NEWS_RUNS);
	if (req->detached_news > 0)
		close(req->detached_news);
	req->detached_news = 0;
}
