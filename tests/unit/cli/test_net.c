/* SPDX-License-Identifier: Apache-2.0 */
/* cli/run_net.c and passt.c: what --net means, and addresses that stay. Error texts are tests/golden's. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <string.h>

#include "cli/run_net.h"

static void test_user(void **state)
{
	struct run_net n;

	(void)state;
	assert_null(run_net_parse(&n, "user"));
	assert_int_equal(n.kind, PROTO_NET_PASST);
	assert_int_equal(n.passt.nforwards, 0);
	assert_false(n.passt.loopback);
	assert_null(run_net_parse(&n, "user,hostfwd=2222:22,loopback=on,hostfwd=0.0.0.0:53:5353/udp,hostfwd=[::1]:80:8080/tcp,mtu=1500"));
	assert_int_equal(n.passt.nforwards, 3);
	assert_string_equal(n.passt.forward[0].address, "127.0.0.1");
	assert_int_equal(n.passt.forward[0].host, 2222);
	assert_int_equal(n.passt.forward[0].guest, 22);
	assert_false(n.passt.forward[0].udp);
	assert_string_equal(n.passt.forward[1].address, "0.0.0.0");
	assert_int_equal(n.passt.forward[1].guest, 5353);
	assert_true(n.passt.forward[1].udp);
	assert_string_equal(n.passt.forward[2].address, "::1");
	assert_int_equal(n.passt.forward[2].host, 80);
	assert_true(n.passt.loopback);
	assert_int_equal(n.mtu, 1500);
	assert_null(run_net_parse(&n, "user,mac=52:54:00:12:34:Af"));
	assert_memory_equal(n.mac, "\x52\x54\0\x12\x34\xaf", 6);
}

static void test_tap(void **state)
{
	struct run_net n;

	(void)state;
	assert_null(run_net_parse(&n, "tap,ifname=tap0,queues=4"));
	assert_int_equal(n.kind, PROTO_NET_TAP);
	assert_string_equal(n.ifname, "tap0");
	assert_int_equal(n.queues, 4);
	assert_int_equal(n.fd, -1);
	assert_null(run_net_parse(&n, "tap,fd=7"));
	assert_int_equal(n.fd, 7);
}

static void test_wrong(void **state)
{
	static const char *const wrong[] = {
		"", "use", "userr", "user,", "user,,", "user,hostfwd", "user,hostfwd=", "user,hostfwd=22", "user,hostfwd=a:22",
		"user,hostfwd=22:", "user,hostfwd=:22", "user,hostfwd=0:22", "user,hostfwd=65536:22", "user,hostfwd=22:99999999999",
		"user,hostfwd=22:22/sctp", "user,hostfwd=22:22/", "user,hostfwd=1.2.3:22:22", "user,hostfwd=::1:22:22",
		"user,hostfwd=[1.2.3.4]:22:22", "user,hostfwd=-1:22", "user,hostfwd= 22:22", "user,loopback=yes", "user,mtu=1279",
		"user,mtu=65521", "user,mtu=0x500", "user,mac=1:2:3:4:5:6", "user,mac=01:00:00:00:00:00", "user,mac=00:00:00:00:00:00",
		"user,mac=52:54:00:12:34:56:78", "user,mac=52-54-00-12-34-56", "user,ifname=tap0", "user,queues=2", "tap", "tap,ifname=",
		"tap,ifname=a/b", "tap,ifname=sixteencharacter", "tap,fd=2", "tap,fd=x", "tap,fd=3,ifname=t", "tap,fd=3,queues=2",
		"tap,ifname=t,queues=0", "tap,ifname=t,queues=9", "tap,ifname=t,hostfwd=22:22",
	};
	struct run_net n;

	(void)state;
	for (size_t i = 0; i < nitems(wrong); i++)
		if (!run_net_parse(&n, wrong[i]))
			fail_msg("'%s' was accepted", wrong[i]);
}

/* The address is an interface's for ever: these may not change with a release. */
static void test_mac(void **state)
{
	uint8_t mac[6], other[6];

	(void)state;
	run_net_derive_mac("web", "", 0, mac);
	assert_memory_equal(mac, "\x82\x25\x81\x0b\x98\xef", 6);
	for (unsigned i = 0; i < 1000; i++) {
		run_net_derive_mac("web", "", i + 1, other);
		assert_int_equal(other[0] & 3, 2);
		assert_memory_not_equal(mac, other, 6);
	}
	run_net_derive_mac("web", "tap0", 0, other);
	assert_memory_not_equal(mac, other, 6);
	run_net_derive_mac("webt", "ap0", 0, mac);
	assert_memory_not_equal(mac, other, 6);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_user), cmocka_unit_test(test_tap), cmocka_unit_test(test_wrong), cmocka_unit_test(test_mac),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
