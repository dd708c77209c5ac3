/* SPDX-License-Identifier: Apache-2.0 */
/* proto/proto.c: what is sent arrives; everything that is not exactly a message is refused and leaks no descriptor. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "proto/proto.h"
#include "proto/status.h"

static void good(struct proto_config *c)
{
	memset(c, 0, sizeof(*c));
	proto_header_init(&c->h, PROTO_CONFIG, sizeof(*c));
	c->memory = 4 << 20;
	c->cpus = 1;
	c->nfds = 1;
	c->role[0] = PROTO_FD_KERNEL;
	strcpy(c->engine, "interp");
}

static void test_check(void **state)
{
	static struct proto_config c;

	(void)state;
	good(&c);
	assert_int_equal(proto_config_check(&c, sizeof(c), 1), 0);
	assert_int_equal(proto_config_check(&c, sizeof(c) - 1, 1), -EPROTO);
	assert_int_equal(proto_config_check(&c, sizeof(c), 2), -EPROTO);
#define BAD(change)                                                                                                    \
	do {                                                                                                           \
		good(&c);                                                                                              \
		change;                                                                                                \
		assert_int_equal(proto_config_check(&c, sizeof(c), c.nfds), -EPROTO);                                  \
	} while (0)
	BAD(c.h.magic++);
	BAD(c.h.version++);
	BAD(c.h.type = PROTO_STOP);
	BAD(c.h.size--);
	BAD(c.memory = 0);
	BAD(c.memory++);
	BAD(c.cpus = 0);
	BAD(c.role[0] = 0);
	BAD(c.role[0] = PROTO_FD_LAST + 1);
	BAD(c.role[0] = PROTO_FD_INITRD);                        /* no kernel */
	BAD(c.nfds = 0);                                         /* nothing to boot from */
	BAD(c.nfds = 2; c.role[1] = PROTO_FD_KERNEL);            /* two */
	BAD(c.nfds = 2; c.role[1] = PROTO_FD_MODULE);            /* not announced */
	BAD(c.nmodules = 1);                                     /* announced, not there */
	BAD(c.nfds = 2; c.role[1] = PROTO_FD_SERIAL);            /* a file, but serial says stdio */
	BAD(c.serial = PROTO_SERIAL_FILE);
	BAD(c.serial = PROTO_SERIAL_FILE + 1);
	BAD(c.nfds = PROTO_MAX_FDS + 1);
	BAD(memset(c.engine, 'x', sizeof(c.engine)));
	BAD(memset(c.append, 'x', sizeof(c.append)));
	BAD(memset(c.module[PROTO_MAX_MODULES - 1], 'x', sizeof(c.module[0])));
}

static void good_disks(struct proto_config *c)
{
	good(c);
	c->nfds = 4;
	for (unsigned i = 1; i < 4; i++)
		c->role[i] = PROTO_FD_DISK;
	c->ndisks = 2;
	c->disk[0].nfiles = 2;
	c->disk[1].nfiles = 1;
	c->ndisk_files = 3;
}

static void test_disks(void **state)
{
	static struct proto_config c;

	(void)state;
	good_disks(&c);
	assert_int_equal(proto_config_check(&c, sizeof(c), 4), 0);
#define BAD_DISK(change)                                                                                               \
	do {                                                                                                           \
		good_disks(&c);                                                                                        \
		change;                                                                                                \
		assert_int_equal(proto_config_check(&c, sizeof(c), c.nfds), -EPROTO);                                  \
	} while (0)
	BAD_DISK(c.ndisks = 1);                                  /* a file that is no disk's */
	BAD_DISK(c.ndisks = 3);                                  /* a disk without files */
	BAD_DISK(c.ndisks = PROTO_MAX_DISKS + 1);
	BAD_DISK(c.disk[0].nfiles = 3);
	BAD_DISK(c.disk[0].nfiles = UINT32_MAX; c.disk[1].nfiles = 4);
	BAD_DISK(c.ndisk_files = 2);
	BAD_DISK(c.ndisk_files = PROTO_MAX_DISK_FILES + 1);
	BAD_DISK(c.role[3] = PROTO_FD_STATS);
	BAD_DISK(c.disk_file[1].probed = 2);
	BAD_DISK(memset(c.disk[1].serial, 'x', sizeof(c.disk[1].serial)));
	BAD_DISK(memset(c.disk_file[2].path, 'x', sizeof(c.disk_file[2].path)));
}

static void test_transfer(void **state)
{
	static struct proto_config c, got;
	int pair[2], fds[PROTO_MAX_FDS], pipefd[2];
	char b;

	(void)state;
	good(&c);
	assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, pair), 0);
	assert_int_equal(pipe(pipefd), 0);
	assert_int_equal(proto_send(pair[0], &c.h, &pipefd[0], 1), 0);
	assert_int_equal(proto_recv_config(pair[1], &got, fds), 0);
	assert_memory_equal(&c, &got, sizeof(c));
	assert_int_equal(write(pipefd[1], "x", 1), 1);
	assert_int_equal(read(fds[0], &b, 1), 1);
	close(fds[0]);

	/* One descriptor too few, and a short message: refused, and the descriptor that came is closed. */
	c.nfds = 2;
	c.role[1] = PROTO_FD_INITRD;
	close(pipefd[0]);
	assert_int_equal(proto_send(pair[0], &c.h, &pipefd[1], 1), 0);
	assert_int_equal(proto_recv_config(pair[1], &got, fds), -EPROTO);
	assert_int_equal(write(fds[0], "x", 1), -1);
	assert_int_equal(errno, EBADF);
	close(pipefd[1]);
	assert_int_equal(write(pair[0], "hello", 5), 5);
	assert_int_equal(proto_recv_config(pair[1], &got, fds), -EPROTO);
	close(pair[0]);
	assert_int_equal(proto_recv_config(pair[1], &got, fds), -ENOTCONN);
	close(pair[1]);
}

static void test_command(void **state)
{
	struct proto_header h;
	struct proto_resize m, size = {.cols = 132, .rows = 50};
	int pair[2];

	(void)state;
	assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, pair), 0);
	proto_header_init(&size.h, PROTO_RESIZE, sizeof(size));
	assert_int_equal(proto_send(pair[0], &size.h, NULL, 0), 0);
	assert_int_equal(proto_recv_command(pair[1], &m), PROTO_RESIZE);
	assert_int_equal(m.cols, 132);
	assert_int_equal(m.rows, 50);
	proto_header_init(&h, PROTO_RESIZE, sizeof(h)); /* without its body */
	assert_int_equal(proto_send(pair[0], &h, NULL, 0), 0);
	assert_int_equal(proto_recv_command(pair[1], &m), -EPROTO);
	size.h.type = PROTO_PAUSE; /* with one */
	assert_int_equal(proto_send(pair[0], &size.h, NULL, 0), 0);
	assert_int_equal(proto_recv_command(pair[1], &m), -EPROTO);
	proto_header_init(&h, PROTO_PAUSE, sizeof(h));
	assert_int_equal(proto_send(pair[0], &h, NULL, 0), 0);
	assert_int_equal(proto_recv_command(pair[1], &m), PROTO_PAUSE);
	h.type = PROTO_CONFIG;
	assert_int_equal(proto_send(pair[0], &h, NULL, 0), 0);
	assert_int_equal(proto_recv_command(pair[1], &m), -EPROTO);
	close(pair[0]);
	assert_int_equal(proto_recv_command(pair[1], &m), 0);
	close(pair[1]);
}

/* The promise of status.h. */
static void test_status(void **state)
{
	static const int all[] = {STATUS_POWEROFF, STATUS_USAGE, STATUS_TRIPLE, STATUS_RESET,
				  STATUS_STOPPED, STATUS_START, STATUS_MONITOR, STATUS_CRASH};

	(void)state;
	for (size_t i = 0; i < nitems(all); i++)
		assert_int_equal(all[i] & 1, 0);
	for (unsigned v = 0; v < 512; v++)
		assert_int_equal(status_debug_exit(v) & 1, 1);
	assert_int_equal(status_debug_exit(3), 7);
	assert_in_range(status_debug_exit(0xffffffff), 0, 255);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_check), cmocka_unit_test(test_disks), cmocka_unit_test(test_transfer), cmocka_unit_test(test_command),
		cmocka_unit_test(test_status),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
