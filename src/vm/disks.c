/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The machine's disks: from the descriptors of the configuration to struct block, which the devices get.
 *
 * Invariant: everything the block layer needs (threads, ring, memory) is made in vm_disks_open(), before the process is sealed. Completions
 * come on the main thread, through its event loop. vm->disk[] does not change while the machine runs.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/log.h"
#include "vm/vm.h"

static void on_block(void *opaque, short revents)
{
	struct vm *vm = opaque;

	(void)revents;
	block_aio_poll(vm->aio);
}

/* file: the first of the disk's. */
static const char *open_disk(struct vm *vm, const struct proto_disk *d, const struct proto_disk_file *file, const int *fds)
{
	static char text[640];
	struct block_file chain[BLOCK_CHAIN_MAX];
	struct block_error err;

	if (d->nfiles > nitems(chain))
		return "a disk has too many backing files; commit some of them";
	for (unsigned i = 0; i < d->nfiles; i++) {
		if (file[i].format != BLOCK_RAW && file[i].format != BLOCK_QCOW2)
			return "a disk has an unknown format; doppel was installed in parts, install it again";
		chain[i] = (struct block_file){.fd = fds[i], .format = (enum block_format)file[i].format,
					       .probed = file[i].probed, .path = file[i].path};
	}
	if (block_open(&vm->disk[vm->ndisks], vm->aio, chain, d->nfiles, (d->flags & PROTO_DISK_RDONLY) ? BLOCK_RDONLY : 0,
		       &err) < 0) {
		snprintf(text, sizeof(text), "%s: %s", file->path, err.text);
		return text;
	}
	vm->ndisks++;
	return NULL;
}

const char *vm_disks_open(struct vm *vm, const int *fds)
{
	const struct proto_config *c = vm->config;
	const struct proto_disk_file *file = c->disk_file;
	int disk_fd[PROTO_MAX_DISK_FILES];
	const char *err = NULL;
	unsigned n = 0, next = 0;

	if (c->ndisks == 0)
		return NULL;
	for (unsigned i = 0; i < c->nfds; i++)
		if (c->role[i] == PROTO_FD_DISK && n < nitems(disk_fd))
			disk_fd[n++] = fds[i];
	if (block_aio_create(&vm->aio, 0) < 0)
		return "no memory for disk requests; free some and try again";
	for (unsigned i = 0; !err && i < c->ndisks; i++) {
		err = open_disk(vm, &c->disk[i], file + next, disk_fd + next);
		next += c->disk[i].nfiles;
	}
	if (err)
		return err;
	if (block_aio_start(vm->aio) < 0)
		return "no threads for disk requests; raise the limit on processes (ulimit -u)";
	vm->ev_block = (struct ev_source){.fd = block_aio_fd(vm->aio), .events = POLLIN, .ready = on_block, .opaque = vm};
	if (evloop_add(&vm->loop, &vm->ev_block) < 0)
		return "too many event sources; use fewer devices";
	log_info("%u disks through %s", vm->ndisks, block_aio_kind(vm->aio));
	return NULL;
}

void vm_disks_close(struct vm *vm)
{
	unsigned next = 0;

	for (unsigned i = 0; i < vm->ndisks; i++) {
		int ret = block_close(vm->disk[i]);

		if (ret < 0)
			log_error("%s: what the guest wrote last may be lost: %s; check the host's disk", vm->config->disk_file[next].path,
				  strerror(-ret));
		next += vm->config->disk[i].nfiles;
	}
	vm->ndisks = 0;
	evloop_del(&vm->loop, &vm->ev_block);
	block_aio_destroy(vm->aio);
	vm->aio = NULL;
}
