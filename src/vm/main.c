/* SPDX-License-Identifier: Apache-2.0 */
/*
 * doppel-vm: one machine, one process. Started by doppel with a channel to it as descriptor 3; `doppel-vm --probe` lists the
 * engines for `doppel check`.
 *
 * Order, which the isolation argument rests on (docs/design/isolation.md): receive the configuration and descriptors; build the
 * machine (the only time mappings become executable); leave the file system, drop rights; load the kernel; start the
 * vCPUs' threads, which wait; install the system call filter for all threads; let the vCPUs go.
 */
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "base/log.h"
#include "host/sandbox.h"
#include "host/spawn.h"
#include "host/tty.h"
#include "vm/vm.h"

/* For the signal handler only; written once, before the handler is installed. */
static struct vm *handler_vm;

/*
 * SIGTERM: doppel has died (PR_SET_PDEATHSIG), or somebody means us, or the whole process group. The channel tells: if doppel is
 * gone there is nothing to be done in order, and the main thread may be waiting for who knows what, so the terminal is
 * restored here. Otherwise the machine is stopped by the event loop; a second signal does not wait for that.
 */
static void on_term(int sig)
{
	struct vm *vm = handler_vm;
	struct pollfd p = {.fd = vm->channel};
	uint64_t one = 1;

	(void)sig;
	if (vm->terminated || (poll(&p, 1, 0) == 1 && (p.revents & POLLHUP))) {
		if (vm->console.tty)
			(void)tcsetattr(STDIN_FILENO, TCSANOW, &vm->console.saved);
		_exit(STATUS_STOPPED);
	}
	vm->terminated = true;
	(void)!write(vm->notify_fd, &one, sizeof(one));
}

/*
 * A fatal signal sent by a process. As the first process of a pid namespace we would not die of it: there the kernel ignores what
 * has no handler. A trap does it; faults of our own come back after the return.
 */
static void on_fatal(int sig, siginfo_t *si, void *ctx)
{
	(void)ctx;
	signal(sig, SIG_DFL);
	if (si->si_code <= 0)
		__builtin_trap();
}

static void fatal_init(void)
{
	static const int fatal[] = {SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGTRAP, SIGABRT, SIGSYS};
	const struct sigaction sa = {.sa_sigaction = on_fatal, .sa_flags = SA_SIGINFO};
	struct sigaction old;

	/* The engine has installed its own for those it understands. */
	for (size_t i = 0; i < nitems(fatal); i++)
		if (sigaction(fatal[i], NULL, &old) == 0 && !(old.sa_flags & SA_SIGINFO) && old.sa_handler == SIG_DFL)
			sigaction(fatal[i], &sa, NULL);
}

/* Signals from the keyboard go to the whole process group; only doppel acts on them and tells us. */
static void signals_init(struct vm *vm)
{
	static const int ignored[] = {SIGINT, SIGQUIT, SIGHUP, SIGTSTP, SIGTTIN, SIGTTOU, SIGPIPE};
	struct sigaction sa = {.sa_handler = on_term};

	for (size_t i = 0; i < nitems(ignored); i++)
		signal(ignored[i], SIG_IGN);
	fatal_init();
	handler_vm = vm;
	sigaction(SIGTERM, &sa, NULL);
	prctl(PR_SET_PDEATHSIG, SIGTERM, 0, 0, 0);
	/* Timers that fire 50 us late (the default) would make every guest tick late. */
	prctl(PR_SET_TIMERSLACK, 1, 0, 0, 0);
}

static int probe(void)
{
	char why[256];

	for (const struct engine_ops *const *e = engine_registry; *e; e++) {
		why[0] = 0;
		printf("%s\t%d\t", (*e)->name, (*e)->probe(why, sizeof(why)) ? 1 : 0);
		printf("%s\t%s\t%s\n", (*e)->slowdown, (*e)->what, why);
	}
	return 0;
}

/* The vCPUs' threads begin by waiting for the filter to be in place; the filter waits for the threads to have begun, since libc
 * makes calls of its own before the first line of ours. */
struct start {
	struct vm *vm;
	pthread_mutex_t lock;
	pthread_cond_t changed;
	unsigned begun;
	bool failed;
	bool go;
};

static void *vcpu_thread(void *arg)
{
	struct start *s = arg;
	struct vm_cpu *c;

	pthread_mutex_lock(&s->lock);
	c = &s->vm->cpu[s->begun++];
	s->failed |= vm_profile_thread(c) != 0;
	pthread_cond_broadcast(&s->changed);
	while (!s->go)
		pthread_cond_wait(&s->changed, &s->lock);
	pthread_mutex_unlock(&s->lock);
	return vm_vcpu_main(c);
}

static int start_threads(struct vm *vm, struct start *s)
{
	sigset_t all, old;
	int ret = 0;

	/* Signals for the process are the main thread's; faults of translated code are synchronous and come regardless. */
	sigfillset(&all);
	sigdelset(&all, SIGSEGV);
	sigdelset(&all, SIGBUS);
	sigdelset(&all, SIGFPE);
	sigdelset(&all, SIGILL);
	sigdelset(&all, SIGTRAP);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	/* One after the other: each takes the next vm_cpu. */
	for (unsigned i = 0; i < vm->ncpus && ret == 0; i++) {
		ret = pthread_create(&vm->cpu[i].thread, NULL, vcpu_thread, s);
		pthread_mutex_lock(&s->lock);
		while (ret == 0 && s->begun == i)
			pthread_cond_wait(&s->changed, &s->lock);
		pthread_mutex_unlock(&s->lock);
	}
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	return ret;
}

static int run(struct vm *vm)
{
	struct sandbox_ioctl ioctls[PROTO_MAX_NETS];
	struct start s = {.vm = vm, .lock = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER};
	struct proto_header running;
	const char *err;
	int ret;

	if (start_threads(vm, &s) != 0) {
		log_error("cannot start a thread; raise the limit on processes");
		return STATUS_START;
	}
	if (s.failed)
		log_error("no timers for the profile: the limit on pending signals (ulimit -i) is too low");
	vm_stats_init(vm);
	ret = sandbox_seal(vm->console.tty ? STDIN_FILENO : -1, vm->dial_fd, ioctls, vm_nets_ioctls(vm, ioctls));
	if (ret < 0 && ret != -ENOSYS) {
		log_error("cannot install the system call filter: %s; a kernel with seccomp is needed", strerror(-ret));
		return STATUS_START;
	}
	if (ret == -ENOSYS)
		log_info("sanitizer build: running without the system call filter");
	else
		vm->sandbox |= SANDBOX_SECCOMP;
	/* Images are read behind the filter: they may be as hostile as the guest. */
	err = machine_boot(vm);
	if (err) {
		log_error("%s: %s", vm->config->kernel, err);
		return STATUS_START;
	}
	if (vm->config->flags & PROTO_F_CHECK)
		return STATUS_POWEROFF;
	pthread_mutex_lock(&s.lock);
	s.go = true;
	pthread_cond_broadcast(&s.changed);
	pthread_mutex_unlock(&s.lock);
	proto_header_init(&running, PROTO_RUNNING, sizeof(running));
	(void)!write(vm->channel, &running, sizeof(running)); /* if doppel is gone, the loop sees it */
	ret = vm_loop(vm);
	console_close(&vm->console);
	console_close(&vm->serial_file);
	vm_disks_close(vm);
	vm_stats_write(vm);
	vm_profile_write(vm);
	ctl_end(vm);
	return ret;
}

static int machine_main(struct vm *vm, struct proto_config *cfg)
{
	int fds[PROTO_MAX_FDS], ret;
	const char *err;

	vm->channel = SPAWN_CHANNEL_FD;
	ret = proto_recv_config(vm->channel, cfg, fds);
	if (ret < 0) {
		log_error("doppel-vm is started by doppel and by nothing else; use `doppel run`");
		return STATUS_USAGE;
	}
	err = machine_create(vm, cfg, fds);
	if (err) {
		log_error("%s", err);
		return STATUS_START;
	}
	vm->sandbox = sandbox_enter(cfg->namespaces);
	signals_init(vm);
	return run(vm);
}

int main(int argc, char **argv)
{
	struct proto_config *cfg;
	struct vm *vm;
	int ret;

	if (argc == 2 && !strcmp(argv[1], "--probe"))
		return probe();
	if (argc != 3 || strcmp(argv[1], "--channel") || strcmp(argv[2], "3")) {
		log_error("doppel-vm is started by doppel and by nothing else; use `doppel run`");
		return STATUS_USAGE;
	}
	vm = calloc(1, sizeof(*vm));
	cfg = calloc(1, sizeof(*cfg));
	if (!vm || !cfg) {
		log_error("out of memory; free some and try again");
		return STATUS_START;
	}
	ret = machine_main(vm, cfg);
	/* The process ends here and its memory with it; only the guest's pool is worth no tidying. */
	_exit(ret);
}
