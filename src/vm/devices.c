/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The machine's virtio devices, in the order in which they get their places: disks first, so that the first disk is always in the same
 * slot whatever else there is.
 *
 * Invariant: everything a device needs is allocated here, before the process is sealed.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "dev/virtio/balloon.h"
#include "dev/virtio/blk.h"
#include "dev/virtio/console.h"
#include "dev/virtio/fs.h"
#include "dev/virtio/net.h"
#include "dev/virtio/rng.h"
#include "dev/virtio/vsock.h"
#include "vm/vm.h"

static const char *add(struct vm *vm, const char *name, int err, struct virtio_dev *dev)
{
	enum board_transport t = (vm->config->flags & PROTO_F_VIRTIO_MMIO) ? BOARD_VIRTIO_ON_MMIO : BOARD_VIRTIO_ON_PCI;

	if (!err)
		err = board_add_virtio(&vm->board, name, dev, t);
	if (err == -ENOSPC)
		return "more devices than there are places for; use fewer";
	return err ? "not enough host memory for the devices; free some" : NULL;
}

static const char *add_disk(struct vm *vm, unsigned i)
{
	struct virtio_blk_setup setup = {.disk = vm->disk[i],
					 .queues = vm->ncpus < BLK_MAX_QUEUES ? vm->ncpus : BLK_MAX_QUEUES};
	struct virtio_dev *dev = NULL;
	const char *text;
	int err;

	snprintf(setup.serial, sizeof(setup.serial), "%s", vm->config->disk[i].serial);
	snprintf(vm->disk_name[i], sizeof(vm->disk_name[i]), "disk%u", i);
	err = virtio_blk_create(&vm->io, &setup, &dev);
	text = add(vm, vm->disk_name[i], err, dev);
	if (text)
		return text;
	vm->disk_stats[i] = (struct stats_source){.section = vm->disk_name[i], .emit = virtio_blk_emit, .opaque = dev};
	stats_register(&vm->io.registry, &vm->disk_stats[i]);
	return NULL;
}

static const char *add_share(struct vm *vm, unsigned i)
{
	struct virtio_fs_options opt = {.sock = vm->share_fd[i], .loop = &vm->loop};
	struct virtio_dev *dev = NULL;
	int err;

	memcpy(opt.tag, vm->config->share[i], sizeof(opt.tag));
	snprintf(vm->share_name[i], sizeof(vm->share_name[i]), "share%u", i);
	err = virtio_fs_create(&vm->io, &opt, &dev);
	return add(vm, vm->share_name[i], err, dev);
}

static const char *add_vsock(struct vm *vm)
{
	const struct virtio_vsock_options opt = {.cid = vm->config->vsock_cid, .dial = vm->dial_fd, .loop = &vm->loop};
	struct virtio_dev *dev = NULL;
	int err;

	if (!opt.cid)
		return NULL;
	err = virtio_vsock_create(&vm->io, &opt, &dev);
	return add(vm, "vsock", err, dev);
}

static const char *add_net(struct vm *vm, unsigned i)
{
	const struct proto_net *n = &vm->config->net[i];
	struct virtio_net_setup setup = {.name = vm->net_name[i], .backend = vm->net[i], .loop = &vm->loop, .mtu = n->mtu};
	struct virtio_dev *dev = NULL;
	int err;

	memcpy(setup.mac, n->mac, sizeof(setup.mac));
	snprintf(vm->net_name[i], sizeof(vm->net_name[i]), "net%u", i);
	err = virtio_net_create(&vm->io, &setup, &dev);
	return add(vm, vm->net_name[i], err, dev);
}

static void balloon_news(void *vm)
{
	vm_notify(vm); /* a client of the control socket may wait for it */
}

static const char *add_balloon(struct vm *vm)
{
	const struct virtio_balloon_options opt = {.news = balloon_news, .opaque = vm};
	struct virtio_dev *dev = NULL;
	const char *text;
	int err;

	if (vm->config->flags & PROTO_F_NO_BALLOON)
		return NULL;
	err = virtio_balloon_create(&vm->io, &opt, &dev);
	text = add(vm, "balloon", err, dev);
	if (text)
		return text;
	vm->balloon = dev;
	vm->balloon_stats = (struct stats_source){.section = "balloon", .emit = virtio_balloon_emit, .opaque = dev};
	stats_register(&vm->io.registry, &vm->balloon_stats);
	return NULL;
}

static const char *add_console(struct vm *vm)
{
	static const struct console_port port = {
		.input = virtio_console_input, .drained = virtio_console_drained, .resize = virtio_console_resize};
	const struct virtio_console_options opt = {.put = console_put_some, .room = console_has_room, .opaque = &vm->console,
						   .cols = vm->config->cols, .rows = vm->config->rows};
	struct virtio_dev *dev = NULL;
	const char *text;
	int err;

	if (!vm->config->hvc)
		return NULL;
	err = virtio_console_create(&vm->io, &opt, &dev);
	text = add(vm, "console", err, dev);
	if (text)
		return text;
	vm->console.port = &port;
	vm->console.dev = dev;
	return NULL;
}

const char *vm_devices_create(struct vm *vm)
{
	struct virtio_dev *rng = NULL;
	const char *err = NULL;
	int ret;

	for (unsigned i = 0; !err && i < vm->ndisks; i++)
		err = add_disk(vm, i);
	for (unsigned i = 0; !err && i < vm->nnets; i++)
		err = add_net(vm, i);
	for (unsigned i = 0; !err && i < vm->nshares; i++)
		err = add_share(vm, i);
	if (!err)
		err = add_vsock(vm);
	if (err)
		return err;
	ret = virtio_rng_create(&vm->io, &rng);
	err = add(vm, "rng", ret, rng);
	if (!err)
		err = add_balloon(vm);
	return err ? err : add_console(vm);
}
