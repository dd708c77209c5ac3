/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Opening and asking about tap interfaces (Linux tuntap.rst, netdevice(7)). No state, no locks.
 */
#include "host/net/tap.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/if_tun.h>
#include <linux/virtio_net.h>
#include <net/if.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/types.h"

int net_tap_prepare(int fd, bool *vnet_hdr)
{
	int size = sizeof(struct virtio_net_hdr_v1), little = 1, flags;
	struct ifreq ifr = {.ifr_flags = 0};

	if (ioctl(fd, TUNGETIFF, &ifr) < 0 || !(ifr.ifr_flags & IFF_TAP))
		return -EINVAL;
	*vnet_hdr = ifr.ifr_flags & IFF_VNET_HDR;
	if (!(ifr.ifr_flags & IFF_NO_PI))
		return -EINVAL;
	if (*vnet_hdr && (ioctl(fd, TUNSETVNETHDRSZ, &size) < 0 || ioctl(fd, TUNSETVNETLE, &little) < 0))
		return -errno;
	flags = fcntl(fd, F_GETFL);
	return flags < 0 || fcntl(fd, F_SETFL, flags | O_NONBLOCK) < 0 ? -errno : 0;
}

static int open_queue(const char *ifname, short flags)
{
	struct ifreq ifr = {.ifr_flags = flags};
	int fd = open("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC), ret;
	bool vnet_hdr;

	if (fd < 0)
		return -errno;
	strncpy(ifr.ifr_name, ifname, IFNAMSIZ - 1);
	ret = ioctl(fd, TUNSETIFF, &ifr) < 0 ? -errno : net_tap_prepare(fd, &vnet_hdr);
	if (ret == 0)
		return fd;
	close(fd);
	return ret;
}

int net_tap_open(const char *ifname, unsigned queues, int *fds)
{
	short flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR;
	int ret = 0;

	if (strlen(ifname) >= IFNAMSIZ)
		return -ENAMETOOLONG;
	for (unsigned i = 0; i < queues; i++) {
		ret = open_queue(ifname, (short)(flags | (queues > 1 ? IFF_MULTI_QUEUE : 0)));
		/* An interface made for several queues takes no descriptor that does not say so. */
		if (ret == -EINVAL && queues == 1)
			ret = open_queue(ifname, (short)(flags | IFF_MULTI_QUEUE));
		if (ret < 0) {
			while (i--)
				close(fds[i]);
			return ret;
		}
		fds[i] = ret;
	}
	return 0;
}

int net_tap_mtu(const char *ifname)
{
	int sock = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0), ret;
	struct ifreq ifr = {.ifr_mtu = 0};

	if (sock < 0)
		return -errno;
	strncpy(ifr.ifr_name, ifname, IFNAMSIZ - 1);
	ret = ioctl(sock, SIOCGIFMTU, &ifr) < 0 ? -errno : ifr.ifr_mtu;
	close(sock);
	return ret;
}

int net_tap_name(int fd, char *name)
{
	struct ifreq ifr = {.ifr_flags = 0};

	if (ioctl(fd, TUNGETIFF, &ifr) < 0)
		return -errno;
	memcpy(name, ifr.ifr_name, IFNAMSIZ);
	name[IFNAMSIZ - 1] = 0;
	return 0;
}
