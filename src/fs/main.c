/* SPDX-License-Identifier: Apache-2.0 */
/*
 * doppel-fs: the server of one shared folder, one process. Started by doppel with a socket as descriptor 3 whose other end the
 * machine gets; ends when that end is closed, however the machine ended.
 *
 * Order, which the isolation argument rests on (docs/design/isolation.md): receive the folder; confine to it; make the threads, which
 * wait; install the system call filter; let them go.
 */
#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "base/log.h"
#include "fs/confine.h"
#include "fs/server.h"
#include "host/spawn.h"
#include "proto/status.h"

/* Descriptors not used for the guest's files: the socket, standard ones, root, /proc, one for each thread in passing. */
#define FDS_OWN 64
#define FDS_MAX 65536

static int serve(const struct share_start *start, int dir)
{
	struct fs_config cfg = {.read_only = start->read_only, .uid = start->uid, .gid = start->gid};
	struct fs_server *server;
	struct rlimit lim;
	struct fs *fs;
	int ret = confine_enter(start, dir, &cfg.root, &cfg.proc, &cfg.whole_ids);

	if (ret < 0) {
		log_error("%s: cannot be shared: %s; check that it is still there", start->path, strerror(-ret));
		return STATUS_START;
	}
	if (getrlimit(RLIMIT_NOFILE, &lim) < 0 || lim.rlim_cur < 2 * FDS_OWN) {
		log_error("%s: too few descriptors to share a folder; raise the limit on open files", start->path);
		return STATUS_START;
	}
	cfg.max_fds = (unsigned)(lim.rlim_cur < FDS_MAX ? lim.rlim_cur : FDS_MAX) - FDS_OWN;
	ret = fs_create(&cfg, &fs);
	server = ret < 0 ? NULL : fs_server_create(fs, SPAWN_CHANNEL_FD);
	if (!server) {
		log_error("%s: cannot be shared: %s; check its permissions and free some memory", start->path,
			  strerror(ret < 0 ? -ret : ENOMEM));
		return STATUS_START;
	}
	ret = confine_seal();
	if (ret < 0 && ret != -ENOSYS) {
		log_error("cannot install the system call filter: %s; a kernel with seccomp is needed", strerror(-ret));
		return STATUS_START;
	}
	if (share_send_ready(SPAWN_CHANNEL_FD) < 0)
		return STATUS_MONITOR;
	return fs_server_run(server) < 0 ? STATUS_MONITOR : STATUS_POWEROFF;
}

int main(int argc, char **argv)
{
	/* Keys typed at the terminal are doppel's; our end is the end of the machine. */
	static const int ignored[] = {SIGINT, SIGQUIT, SIGHUP, SIGTERM, SIGTSTP, SIGTTIN, SIGTTOU, SIGPIPE};
	struct share_start start;
	int dir;

	if (argc != 3 || strcmp(argv[1], "--channel") || strcmp(argv[2], "3") || share_recv_start(SPAWN_CHANNEL_FD, &start, &dir) < 0) {
		log_error("doppel-fs is started by doppel and by nothing else; use `doppel run --share`");
		return STATUS_USAGE;
	}
	for (size_t i = 0; i < nitems(ignored); i++)
		signal(ignored[i], SIG_IGN);
	/* Threads may be in the middle of a request: no tidying. */
	_exit(serve(&start, dir));
}
