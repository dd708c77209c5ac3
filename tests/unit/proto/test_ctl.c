/* SPDX-License-Identifier: Apache-2.0 */
/* proto/ctl.c: only messages that are exactly as their type demands are taken. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <errno.h>
#include <string.h>

#include "proto/ctl.h"

struct message {
	struct ctl_header h;
	uint8_t body[CTL_MAX];
};

static size_t make(struct message *m, unsigned type, size_t body, int status)
{
	memset(m, 0, sizeof(m->h) + body);
	ctl_header_init(&m->h, type, sizeof(m->h) + body, status);
	return sizeof(m->h) + body;
}

static int request(struct message *m, unsigned type, size_t body, struct ctl_request *r)
{
	return ctl_parse_request(m, make(m, type, body, 0), r);
}

static void test_requests(void **state)
{
	static struct message m;
	struct ctl_request r;

	(void)state;
	for (unsigned type = 0; type < 0x10000; type++) {
		bool plain = type >= CTL_INFO && type <= CTL_WATCH;

		assert_int_equal(request(&m, type, 0, &r), plain ? 0 : -EPROTO);
		if (plain)
			assert_int_equal(request(&m, type, 1, &r), -EPROTO);
	}
	for (size_t len = 0; len < 20; len++)
		assert_int_equal(request(&m, CTL_ATTACH, len, &r), len == sizeof(struct ctl_attach) ? 0 : -EPROTO);
	for (size_t len = 1; len <= CTL_INPUT_MAX; len++) {
		assert_int_equal(request(&m, CTL_INPUT, len, &r), 0);
		assert_int_equal(r.len, len);
		assert_ptr_equal(r.data, m.body);
	}
	assert_int_equal(request(&m, CTL_INPUT, CTL_INPUT_MAX + 1, &r), -EPROTO);
	for (size_t len = 0; len < 20; len++)
		assert_int_equal(request(&m, CTL_RESIZE, len, &r), len == sizeof(struct ctl_resize) ? 0 : -EPROTO);
	for (size_t len = 0; len < 20; len++)
		assert_int_equal(request(&m, CTL_MEMORY, len, &r), len == sizeof(struct ctl_memory) ? 0 : -EPROTO);
}

static void test_attach(void **state)
{
	static struct message m;
	struct ctl_attach a = {.flags = CTL_ATTACH_WRITE | CTL_ATTACH_STEAL, .scrollback = 77};
	struct ctl_request r;
	size_t len = make(&m, CTL_ATTACH, sizeof(a), 0);

	(void)state;
	memcpy(m.body, &a, sizeof(a));
	assert_int_equal(ctl_parse_request(&m, len, &r), 0);
	assert_int_equal(r.attach.flags, a.flags);
	assert_int_equal(r.attach.scrollback, 77);
	len = make(&m, CTL_MEMORY, sizeof(uint64_t), 0);
	memcpy(m.body, &(uint64_t){1ull << 40}, sizeof(uint64_t));
	assert_int_equal(ctl_parse_request(&m, len, &r), 0);
	assert_int_equal(r.memory.bytes, 1ull << 40);
	len = make(&m, CTL_ATTACH, sizeof(a), 0);
	a.flags = 4;
	memcpy(m.body, &a, sizeof(a));
	assert_int_equal(ctl_parse_request(&m, len, &r), -EPROTO);
}

static void test_header(void **state)
{
	static struct message m;
	struct ctl_request r;
	size_t len = make(&m, CTL_INFO, 0, 0);

	(void)state;
	for (size_t n = 0; n < len; n++)
		assert_int_equal(ctl_parse_request(&m, n, &r), -EPROTO);
	assert_int_equal(ctl_parse_request(&m, len + 1, &r), -EPROTO);
	assert_int_equal(ctl_parse_request(&m, CTL_MAX + 1, &r), -EPROTO);
	m.h.version = CTL_VERSION + 1;
	assert_int_equal(ctl_parse_request(&m, len, &r), -EPROTONOSUPPORT);
	make(&m, CTL_INFO, 0, 1);
	assert_int_equal(ctl_parse_request(&m, len, &r), -EPROTO);
	make(&m, CTL_INFO, 0, 0);
	m.h.magic ^= 1;
	assert_int_equal(ctl_parse_request(&m, len, &r), -EPROTO);
}

static int answer(struct message *m, unsigned type, size_t body, int status)
{
	struct ctl_header h;
	const uint8_t *at;
	size_t len;

	return ctl_parse_answer(m, make(m, type, body, status), &h, &at, &len);
}

static void test_answers(void **state)
{
	static struct message m;
	struct ctl_ended end = {.status = 8};
	struct ctl_header h;
	const uint8_t *body;
	size_t len, n;

	(void)state;
	assert_int_equal(answer(&m, CTL_INFO | CTL_REPLY, 2, 0), 0);
	assert_int_equal(answer(&m, CTL_INFO | CTL_REPLY, 0, 0), -EPROTO);
	assert_int_equal(answer(&m, CTL_STATS | CTL_REPLY, 0, -EMSGSIZE), 0);
	assert_int_equal(answer(&m, CTL_STATS | CTL_REPLY, 5, -EMSGSIZE), -EPROTO);
	assert_int_equal(answer(&m, CTL_MEMORY | CTL_REPLY, 2, 0), 0);
	assert_int_equal(answer(&m, CTL_MEMORY | CTL_REPLY, 0, 0), -EPROTO);
	assert_int_equal(answer(&m, CTL_MEMORY | CTL_REPLY, 0, -EINVAL), 0);
	assert_int_equal(answer(&m, CTL_MEMORY, 2, 0), -EPROTO);
	assert_int_equal(answer(&m, CTL_RESIZE | CTL_REPLY, 0, 0), -EPROTO);
	assert_int_equal(answer(&m, CTL_PAUSE | CTL_REPLY, 0, 0), 0);
	assert_int_equal(answer(&m, CTL_PAUSE | CTL_REPLY, 0, 5), -EPROTO);
	assert_int_equal(answer(&m, CTL_PAUSE | CTL_REPLY, 1, 0), -EPROTO);
	assert_int_equal(answer(&m, CTL_PAUSE, 0, 0), -EPROTO);
	assert_int_equal(answer(&m, CTL_INPUT | CTL_REPLY, 0, 0), -EPROTO);
	assert_int_equal(answer(&m, CTL_OUTPUT, 4096, 0), 0);
	assert_int_equal(answer(&m, CTL_ENDED, sizeof(end), 0), 0);
	assert_int_equal(answer(&m, CTL_ENDED, sizeof(end) - 1, 0), -EPROTO);
	/* A reason that is not terminated. */
	n = make(&m, CTL_ENDED, sizeof(end), 0);
	memset(end.reason, 'x', sizeof(end.reason));
	memcpy(m.body, &end, sizeof(end));
	assert_int_equal(ctl_parse_answer(&m, n, &h, &body, &len), -EPROTO);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_requests),
		cmocka_unit_test(test_attach),
		cmocka_unit_test(test_header),
		cmocka_unit_test(test_answers),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
