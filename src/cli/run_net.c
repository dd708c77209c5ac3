/* SPDX-License-Identifier: Apache-2.0 */
/*
 * --net: parsing, starting passt, opening taps.
 *
 * Invariant and rules: run.h. Everything that takes rights is done here; the machine gets connected descriptors. passt is started last of
 * all families' work, so that a wrong option starts nothing.
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <net/if.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/log.h"
#include "cli/passt.h"
#include "cli/run.h"
#include "cli/run_net.h"
#include "host/net/tap.h"
#include "proto/status.h"

#define MTU_MIN 1280            /* IPv6 works from here on */
#define MTU_MAX PASST_MTU

static bool number(const char *text, unsigned long min, unsigned long max, unsigned long *out)
{
	char *end;

	errno = 0;
	*out = strtoul(text, &end, 10);
	return *text >= '0' && *text <= '9' && !*end && !errno && *out >= min && *out <= max;
}

bool run_net_parse_mac(const char *text, uint8_t mac[6])
{
	unsigned b[6];
	int used = 0;

	if (sscanf(text, "%2x:%2x:%2x:%2x:%2x:%2x%n", &b[0], &b[1], &b[2], &b[3], &b[4], &b[5], &used) != 6 || used != 17 || text[17])
		return false;
	for (unsigned i = 0; i < 6; i++)
		mac[i] = (uint8_t)b[i];
	return !(mac[0] & 1) && memcmp(mac, "\0\0\0\0\0\0", 6);
}

void run_net_derive_mac(const char *machine, const char *ifname, unsigned index, uint8_t mac[6])
{
	/* FNV-1a over name, 0, interface, 0, index, then a finish that spreads it over all bits (splitmix64). */
	uint64_t h = 0xcbf29ce484222325ull;
	const char *part[] = {machine, ifname};

	for (unsigned p = 0; p < 2; p++)
		for (const char *c = part[p];; c++) {
			h = (h ^ (uint8_t)*c) * 0x100000001b3ull;
			if (!*c)
				break;
		}
	h = (h ^ index) * 0x100000001b3ull;
	h = (h ^ h >> 30) * 0xbf58476d1ce4e5b9ull;
	h = (h ^ h >> 27) * 0x94d049bb133111ebull;
	h ^= h >> 31;
	for (unsigned i = 0; i < 6; i++)
		mac[i] = (uint8_t)(h >> (8 * i));
	mac[0] = (uint8_t)((mac[0] & 0xfc) | 2); /* locally administered, unicast */
}

static const char *user_option(struct run_net *n, const char *name, const char *val)
{
	struct passt_options *o = &n->passt;

	if (!strcmp(name, "hostfwd")) {
		if (o->nforwards == PASST_MAX_FORWARDS)
			return "more than 32 hostfwd; forward fewer";
		if (!passt_parse_forward(val, strlen(val), &o->forward[o->nforwards]))
			return "hostfwd is [ADDRESS:]HOSTPORT:GUESTPORT[/tcp|/udp]";
		o->nforwards++;
		return NULL;
	}
	if (!strcmp(name, "loopback")) {
		o->loopback = !strcmp(val, "on");
		return o->loopback || !strcmp(val, "off") ? NULL : "loopback is on or off";
	}
	return "the options of user are hostfwd, loopback, mac and mtu";
}

static const char *tap_option(struct run_net *n, const char *name, const char *val)
{
	unsigned long v;

	if (!strcmp(name, "ifname")) {
		if (!*val || strlen(val) >= IF_NAMESIZE || strchr(val, '/'))
			return "ifname is the name of a tap interface";
		strcpy(n->ifname, val);
		return NULL;
	}
	if (!strcmp(name, "fd")) {
		if (!number(val, 3, INT_MAX, &v))
			return "fd is the number of an open descriptor, 3 or more";
		n->fd = (int)v;
		return NULL;
	}
	if (!strcmp(name, "queues")) {
		if (!number(val, 1, PROTO_MAX_NET_QUEUES, &v))
			return "queues is 1 to 8";
		n->queues = (unsigned)v;
		return NULL;
	}
	return "the options of tap are ifname, fd, queues, mac and mtu";
}

static const char *net_option(struct run_net *n, char *option)
{
	char *val = strchr(option, '=');
	unsigned long v;

	if (!val)
		return "options are written NAME=VALUE";
	*val++ = 0;
	if (!strcmp(option, "mac")) {
		n->has_mac = true;
		return run_net_parse_mac(val, n->mac) ? NULL : "mac is a unicast address like 52:54:00:12:34:56";
	}
	if (!strcmp(option, "mtu")) {
		if (!number(val, MTU_MIN, MTU_MAX, &v))
			return "mtu is 1280 to 65520";
		n->mtu = (unsigned)v;
		return NULL;
	}
	return n->kind == PROTO_NET_PASST ? user_option(n, option, val) : tap_option(n, option, val);
}

const char *run_net_parse(struct run_net *n, const char *text)
{
	char copy[2048], *rest = copy, *kind, *option;
	const char *wrong = NULL;

	*n = (struct run_net){.fd = -1, .queues = 1};
	if (strlen(text) >= sizeof(copy))
		return "too long; shorten it";
	strcpy(copy, text);
	kind = strsep(&rest, ",");
	if (!strcmp(kind, "user"))
		n->kind = PROTO_NET_PASST;
	else if (!strcmp(kind, "tap"))
		n->kind = PROTO_NET_TAP;
	else
		return "the kinds are user, tap and none";
	while (!wrong && (option = strsep(&rest, ",")))
		wrong = net_option(n, option);
	if (wrong || n->kind != PROTO_NET_TAP)
		return wrong;
	if (!n->ifname[0] == (n->fd < 0))
		return "a tap has either ifname or fd";
	return n->fd >= 0 && n->queues > 1 ? "a tap with fd has one queue" : NULL;
}

static int set_net(struct run_request *req, const struct run_arg *arg)
{
	struct run_net n;
	const char *wrong;

	if (!strcmp(arg->text, "none")) {
		req->nets.none = true;
		req->config.nnets = 0;
		return 0;
	}
	req->nets.none = false;
	if (req->config.nnets == PROTO_MAX_NETS)
		return run_error(arg, STATUS_USAGE, "more than %d network interfaces; give fewer", PROTO_MAX_NETS);
	req->nets.net[req->config.nnets++] = *arg;
	wrong = run_net_parse(&n, arg->text);
	return wrong ? run_error(arg, STATUS_USAGE, "'%s': %s; see `doppel run --help`", arg->text, wrong) : 0;
}

static int pass_on(struct run_request *req, const struct run_arg *arg, const int *fds, unsigned n)
{
	for (unsigned i = 0; i < n; i++) {
		if (run_add_fd(req, fds[i], PROTO_FD_NET))
			continue;
		while (i < n)
			close(fds[i++]);
		return run_error(arg, STATUS_USAGE, "the machine has more than %d files; give it fewer", PROTO_MAX_FDS);
	}
	return 0;
}

/* A socket that leads nowhere: the machine is only checked, so nothing is to be started. */
static int no_passt(int *fd)
{
	int pair[2];

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0)
		return -errno;
	close(pair[1]);
	*fd = pair[0];
	return 0;
}

static int open_user(struct run_request *req, const struct run_arg *arg, struct run_net *n, unsigned index)
{
	bool asked = arg->text;
	char why[256] = "";
	int fd, ret;

	n->passt.index = index;
	n->passt.mtu = n->mtu = n->mtu ? n->mtu : PASST_MTU;
	if (req->config.flags & PROTO_F_CHECK) {
		ret = no_passt(&fd);
		snprintf(why, sizeof(why), "%s", strerror(-ret));
	} else {
		ret = passt_start(&n->passt, &fd, why, sizeof(why));
	}
	if (ret == 0)
		return pass_on(req, arg, &fd, 1);
	if (!asked) {
		log_warn("the machine has no network: %s; `--net none` says so without this line",
			 ret == -ENOENT ? "passt is not installed (as root: apt install passt)" : why);
		req->config.nnets = 0;
		return 0;
	}
	if (ret == -ENOENT)
		return run_error(arg, STATUS_START, "passt is not installed; as root: apt install passt");
	return run_error(arg, STATUS_START, "passt does not start: %s; %s", why,
			 strstr(why, "bind") ? "choose other host ports" : "see passt(1), or give --net none");
}

static const char *tap_remedy(int error)
{
	switch (error) {
	case EPERM:
		return "as root: ip tuntap add dev NAME mode tap user USER";
	case EACCES:
	case ENOENT:
		return "/dev/net/tun must exist and be open to the user";
	case EBUSY:
		return "another program has it";
	case EINVAL:
		return "it must be a tap, made with multi_queue for several queues";
	default:
		return "see docs/design/net.md";
	}
}

static int open_tap(struct run_request *req, const struct run_arg *arg, struct run_net *n)
{
	int fds[PROTO_MAX_NET_QUEUES], ret;
	bool vnet_hdr;

	if (n->fd >= 0) {
		fds[0] = fcntl(n->fd, F_DUPFD_CLOEXEC, 3);
		ret = fds[0] < 0 ? -errno : net_tap_prepare(fds[0], &vnet_hdr);
		if (ret == 0)
			ret = net_tap_name(fds[0], n->ifname);
		if (ret < 0) {
			if (fds[0] >= 0)
				close(fds[0]);
			return run_error(arg, STATUS_START, "descriptor %d is not an open tap (%s); pass one made with IFF_TAP and IFF_NO_PI",
					 n->fd, strerror(-ret));
		}
	} else {
		ret = net_tap_open(n->ifname, n->queues, fds);
		if (ret < 0)
			return run_error(arg, STATUS_START, "cannot open tap %s: %s; %s", n->ifname, strerror(-ret), tap_remedy(-ret));
	}
	/* A guest that sent longer frames than the bridge passes would wonder. */
	ret = net_tap_mtu(n->ifname);
	if (!n->mtu && ret >= MTU_MIN && ret <= MTU_MAX && ret != 1500)
		n->mtu = (unsigned)ret;
	return pass_on(req, arg, fds, n->queues);
}

static int open_net(struct run_request *req, const struct run_arg *arg, unsigned index)
{
	struct proto_net *p = &req->config.net[index];
	struct run_net n;
	int ret;

	(void)run_net_parse(&n, arg->text ? arg->text : "user"); /* set_net() has seen that it is right */
	ret = n.kind == PROTO_NET_PASST ? open_user(req, arg, &n, index) : open_tap(req, arg, &n);
	if (!n.has_mac)
		run_net_derive_mac(req->config.name, n.ifname, index, n.mac);
	*p = (struct proto_net){.kind = (uint8_t)n.kind, .queues = (uint8_t)n.queues, .mtu = (uint16_t)n.mtu};
	memcpy(p->mac, n.mac, sizeof(p->mac));
	return ret;
}

/* A machine with a disk is a whole system and gets user networking unless something else is said. */
static int finish(struct run_request *req)
{
	int ret = 0;

	if (req->config.nnets == 0 && !req->nets.none && req->config.ndisks) {
		req->nets.net[0] = (struct run_arg){.text = NULL};
		req->config.nnets = 1;
	}
	for (unsigned i = 0; ret == 0 && i < req->config.nnets; i++)
		ret = open_net(req, &req->nets.net[i], i);
	return ret;
}

static const struct run_option options[] = {
	{.name = "net", .value = "KIND[,OPTS]", .set = set_net, .flags = RUN_REPEATS,
	 .help = "a network interface; repeatable. KIND and its options:\n"
		 "user: through passt, no rights needed (default with --disk);\n"
		 "  hostfwd=[ADDR:]HOST:GUEST[/udp] (repeatable), loopback=on\n"
		 "tap: ifname=NAME or fd=N, queues=N;   none: no interface\n"
		 "both: mac=M, mtu=N"},
	{0},
};

const struct run_family run_net_family = {"Network", options, finish};
