/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Fuzzes the server of shared folders: whatever the messages, it answers within the room it has, a file beside the folder stays as
 * it was, and what it holds open stays within its budget.
 *
 * As a program: fuzz_fs RUNS [SEED] makes up messages: mostly well-formed headers, arguments of random and border values, names
 * that exist, that try to get out, or that are noise. With -DLIBFUZZER it is a libFuzzer target (a sequence of messages, each with
 * two bytes of length before it).
 */
#include "base/types.h"
#include "fuse_client.h"

static uint64_t next(uint64_t *s)
{
	*s ^= *s << 13;
	*s ^= *s >> 7;
	*s ^= *s << 17;
	return *s;
}

/* Half of the names are ones that exist, so that requests get somewhere. */
static const char *const names[] = {"a", "b", "c", "d", "link", "up", "sub", "..", ".", "", "a/b", "../outside", "/etc/passwd",
				    "sub/../../outside", "user.x", "security.selinux", "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"};
static const uint64_t borders[] = {0, 1, 2, 3, 4, 5, 7, 8, 100, 4095, 4096, 65536, 0x7fffffff, 0x80000000, 0xffffffff, 1ull << 32,
				   0x7fffffffffffffff, 0x8000000000000000, 0xffffffffffffffff};

static void populate(struct client *c)
{
	char path[256];

	client_file(c->share, "a", "contents of a");
	client_file(c->share, "b", "");
	client_path(c, path, "link");
	(void)!symlink("../outside", path);
	client_path(c, path, "up");
	(void)!symlink("..", path);
	client_path(c, path, "sub");
	(void)!mkdir(path, 0755);
}

#define MAX_FDS 64

static unsigned open_fds(void)
{
	unsigned n = 0;

	for (int fd = 0; fd < 1024; fd++)
		n += fcntl(fd, F_GETFD) >= 0;
	return n;
}

static void check(struct client *c, unsigned fds_before)
{
	char path[256], text[16] = "";
	FILE *f;

	snprintf(path, sizeof(path), "%s/outside", c->top);
	f = fopen(path, "r");
	if (!f || !fgets(text, sizeof(text), f) || strcmp(text, "secret")) {
		fprintf(stderr, "the file beside the folder was reached\n");
		abort();
	}
	fclose(f);
	if (open_fds() > fds_before + MAX_FDS) {
		fprintf(stderr, "more descriptors than the budget allows\n");
		abort();
	}
}

static void answer(struct client *c, size_t room)
{
	int n = fs_request(c->fs, c->in, c->len, c->out, room);

	if (n > 0 && (size_t)n > room) {
		fprintf(stderr, "a reply of %d bytes where there is room for %zu\n", n, room);
		abort();
	}
}

#ifdef LIBFUZZER
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct client c;
	static unsigned fds;

	if (!c.fs) {
		client_start(&c, false, MAX_FDS);
		fds = open_fds();
		populate(&c);
	}
	fs_reset(c.fs);
	while (size >= 2) {
		size_t n = data[0] | (size_t)data[1] << 8;

		data += 2;
		size -= 2;
		n = n < size ? n : size;
		memcpy(c.in, data, n);
		c.len = n;
		if (n >= 4)
			memcpy(c.in, &(uint32_t){(uint32_t)n}, 4);
		answer(&c, 65536);
		data += n;
		size -= n;
	}
	check(&c, fds);
	return 0;
}
#else

static void message(struct client *c, uint64_t *s)
{
	unsigned words = (unsigned)(next(s) % 14);
	uint32_t len;

	client_begin(c, (uint32_t)(next(s) % 52), next(s) % 4 ? 1 + next(s) % 12 : borders[next(s) % nitems(borders)]);
	while (words--) {
		uint64_t v = next(s) % 2 ? next(s) % 8 : borders[next(s) % nitems(borders)];

		client_add(c, &v, next(s) % 8 ? 8 : 4);
	}
	for (unsigned n = (unsigned)(next(s) % 3); n; n--)
		client_name(c, names[next(s) % 2 ? next(s) % 7 : next(s) % nitems(names)]);
	if (next(s) % 8 == 0)
		c->len -= next(s) % (c->len - 30);
	len = (uint32_t)(next(s) % 50 ? c->len : next(s));
	memcpy(c->in, &len, sizeof(len));
	answer(c, next(s) % 8 ? 1 << 16 : next(s) % 200);
}

int main(int argc, char **argv)
{
	unsigned long runs = argc > 1 ? strtoul(argv[1], NULL, 0) : 1000;
	uint64_t seed = argc > 2 ? strtoull(argv[2], NULL, 0) | 1 : 0x9e3779b97f4a7c15ull;
	struct client c;
	unsigned fds;

	/* What the messages make must not fill the host: files of terabytes are sparse, but not everywhere. */
	client_start(&c, false, MAX_FDS);
	fds = open_fds();
	for (unsigned long i = 0; i < runs; i++) {
		if (i % 500 == 0) {
			populate(&c);
			check(&c, fds);
		}
		message(&c, &seed);
	}
	check(&c, fds);
	client_stop(&c);
	printf("%lu messages\n", runs);
	return 0;
}
#endif
