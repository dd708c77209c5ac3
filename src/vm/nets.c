/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The machine's network interfaces: from the descriptors of the configuration to struct net_backend, which the devices get.
 *
 * Invariant: everything is made in vm_nets_open(), before the process is sealed: tap descriptors are told there what the filter later
 * forbids to say, except for the offloads, which follow the guest (sandbox.c).
 */
#include <errno.h>
#include <linux/if_tun.h>
#include <sys/ioctl.h>

#include "vm/vm.h"

static const char *open_net(struct net_backend **out, const struct proto_net *n, const int *fds)
{
	int ret = n->kind == PROTO_NET_TAP ? net_tap_create(out, fds, n->queues) : net_passt_create(out, fds[0]);

	if (ret == -ENOMEM)
		return "no memory for a network interface; free some and try again";
	return ret < 0 ? "a descriptor given for a network interface is no tap; give --net tap,fd=N another" : NULL;
}

const char *vm_nets_open(struct vm *vm, const int *fds)
{
	const struct proto_config *c = vm->config;
	int net_fd[PROTO_MAX_NET_FDS];
	const char *err = NULL;
	unsigned n = 0, next = 0;

	for (unsigned i = 0; i < c->nfds; i++)
		if (c->role[i] == PROTO_FD_NET && n < nitems(net_fd))
			net_fd[n++] = fds[i];
	for (unsigned i = 0; !err && i < c->nnets; i++) {
		err = open_net(&vm->net[i], &c->net[i], net_fd + next);
		next += c->net[i].queues;
		if (!err)
			vm->nnets++;
	}
	return err;
}

unsigned vm_nets_ioctls(const struct vm *vm, struct sandbox_ioctl out[PROTO_MAX_NETS])
{
	unsigned n = 0;

	for (unsigned i = 0; i < vm->nnets; i++)
		if (vm->config->net[i].kind == PROTO_NET_TAP)
			out[n++] = (struct sandbox_ioctl){vm->net[i]->source[0].fd, TUNSETOFFLOAD};
	return n;
}
