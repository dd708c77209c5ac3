/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Fuzzes the debugger's stub: whatever a client sends, the stub neither crashes nor touches anything but the guest, answers in well-formed
 * packets, and leaves no breakpoint behind when the client has gone.
 *
 * As a program: fuzz_gdb RUNS [SEED]. A run is one client: a few packets from the grammar below, mutated or not, with right and wrong
 * checksums, in pieces of any size, while the machine behind the stub stops late, meets points and halts at random. With
 * -DLIBFUZZER it is a libFuzzer target whose input is the choices of this, or packets as they are, or what the client sends.
 */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "choices.h"
#include "gdb/private.h"

#define RAM (16ull << 20)
#define CPUS 3
#define WIRE 65536

struct fuzz {
	struct mem *mem;
	struct vcpu *vcpu[CPUS];
	struct evloop loop;
	struct gdb *g;
	bool held, late;
	struct choices choices;
};

static uint64_t next(struct fuzz *f) { return choices_next(&f->choices); }

static void fail(const char *what)
{
	fprintf(stderr, "fuzz_gdb: %s\n", what);
	abort();
}

/* --- a machine that pretends ------------------------------------------------------------------------------------------ */

static void stop(void *vm)
{
	struct fuzz *f = vm;

	f->held = true;
	f->late = next(f) & 1;
}

static bool stopped(void *vm)
{
	struct fuzz *f = vm;

	return f->held && !f->late;
}

static void resume(void *vm)
{
	struct fuzz *f = vm;

	if (!f->held)
		fail("resumed while running");
	f->held = false;
}

static int step(void *vm, unsigned cpu)
{
	struct fuzz *f = vm;

	if (cpu >= CPUS || !f->held)
		fail("step of a CPU that does not exist or runs");
	f->vcpu[cpu]->rip += 1 + next(f) % 15;
	return 0;
}

static enum gdb_cpu_state cpu_state(void *vm, unsigned cpu)
{
	(void)cpu;
	return (enum gdb_cpu_state)(next(vm) % 8 ? GDB_CPU_RUNS : 1 + next(vm) % 2);
}

static void nothing(void *vm)
{
	(void)vm;
}

static uint64_t cr8(void *vm, unsigned cpu, bool write, uint64_t val)
{
	(void)vm, (void)cpu, (void)write, (void)val;
	return 0;
}

static const struct gdb_ops ops = {
	.stop = stop, .stopped = stopped, .resume = resume, .step = step, .cpu_state = cpu_state, .reset = nothing, .kill = nothing,
};
static const struct vcpu_ops cpu_ops = {.cr8 = cr8};

/* Four-level tables: the first 2 MiB, and a page at the top, map to the first pages of RAM. */
static void paging(struct fuzz *f, struct vcpu *v)
{
	static const uint64_t entry[][2] = {
		{0x1000, 0x2003}, {0x1ff8, 0x2003}, {0x2000, 0x3003}, {0x2ff8, 0x3003}, {0x3000, 0x83}, {0x3ff8, 0x4003}, {0x4ff8, 0x5003},
	};
	struct mmu_regs r = {.cr0 = CR0_PE | CR0_PG | CR0_WP, .cr3 = 0x1000, .cr4 = CR4_PAE, .efer = EFER_LMA | EFER_LME};

	for (size_t i = 0; i < nitems(entry); i++)
		if (mem_write(f->mem, entry[i][0], &entry[i][1], 8))
			fail("no memory");
	v->efer = r.efer;
	mmu_set_regs(&v->mmu, &r, false);
}

static void setup(struct fuzz *f)
{
	struct gdb_config c = {.listen_fd = -1, .loop = &f->loop, .vcpu = f->vcpu, .ncpus = CPUS, .ops = &ops, .vm = f};

	signal(SIGPIPE, SIG_IGN); /* as in doppel-vm: writing to a client that has gone is an error like others */
	if (mem_create(&f->mem, RAM, RAM >> PAGE_SHIFT) || mem_add_ram(f->mem, 0, RAM))
		fail("no memory");
	for (unsigned i = 0; i < CPUS; i++) {
		struct vcpu_config vc = {.index = i, .count = CPUS, .tsc_khz = 1000000, .ops = &cpu_ops, .vm = f};

		if (vcpu_create(&f->vcpu[i], f->mem, &vc))
			fail("no vCPU");
	}
	c.mem = f->mem;
	evloop_init(&f->loop);
	if (gdb_create(&f->g, &c))
		fail("no stub");
}

/* --- a client ------------------------------------------------------------------------------------------------------------ */

/* %x: a number, often a telling one; %h: hex digits; %c: any byte. */
static const char *const grammar[] = {
	"?", "g", "G%h", "p%x", "P%x=%h", "m%x,%x", "M%x,%x:%h", "X%x,%x:%c%c%c", "Z%x,%x,%x", "z%x,%x,%x", "Z0,%x,1", "Z2,%x,8",
	"Hg%x", "Hc%x", "Hc-1", "T%x", "c", "s", "c%x", "s%x", "vCont?", "vCont;c", "vCont;s:%x", "vCont;s:%x;c", "vCont;S%x:%x;C%x;t:%x",
	"qSupported:swbreak+;hwbreak+", "qXfer:features:read:target.xml:%x,%x", "qfThreadInfo", "qsThreadInfo", "qThreadExtraInfo,%x",
	"qC", "qAttached", "qRcmd,%h", "qRcmd,68656c70", "qRcmd,696e666f20726567697374657273", "qRcmd,78702030203430393630",
	"qRcmd,67766132677061203078%h", "Qqemu.PhyMemMode:1", "Qqemu.PhyMemMode:0", "QStartNoAckMode", "D", "k", "vKill;%x", "%c%c%c%c",
};

static size_t number(struct fuzz *f, char *dst)
{
	static const uint64_t telling[] = {0, 1, 2, 3, 4, 8, 0xfff, 0x1000, 0x1fff, 0x1fffff, RAM - 1, RAM, UINT64_MAX, UINT64_MAX - 7,
					   0xfffffffffffff000, 0x7fffffffffff, 0x800000000000, UINT32_MAX, 0x2000, 0x4000};
	uint64_t v = next(f) % 4 ? telling[next(f) % nitems(telling)] : next(f) >> (next(f) % 64);

	return (size_t)sprintf(dst, "%llx", (unsigned long long)v);
}

static size_t hex(struct fuzz *f, char *dst)
{
	size_t n = next(f) % 16 ? next(f) % 40 : next(f) % 4000;

	for (size_t i = 0; i < n; i++)
		dst[i] = "0123456789abcdefg"[next(f) % (next(f) % 64 ? 16 : 17)];
	return n;
}

static size_t payload(struct fuzz *f, char *dst)
{
	size_t len = 0;

	for (const char *s = grammar[next(f) % nitems(grammar)]; *s; s++) {
		if (*s != '%')
			dst[len++] = *s;
		else if (*++s == 'x')
			len += number(f, dst + len);
		else if (*s == 'h')
			len += hex(f, dst + len);
		else
			dst[len++] = (char)next(f);
	}
	if (next(f) % 8 == 0 && len)
		dst[next(f) % len] = (char)next(f);
	if (next(f) % 16 == 0)
		len = next(f) % (len + 1);
	return len;
}

/* Makes a packet of the `len` bytes behind dst[0]. Its length. */
static size_t wrap(char *dst, size_t len, bool right)
{
	uint8_t sum = right ? 0 : 1;

	dst[0] = '$';
	for (size_t i = 1; i <= len; i++)
		sum = (uint8_t)(sum + dst[i]);
	return 1 + len + (size_t)sprintf(dst + 1 + len, "#%02x", sum);
}

static size_t packet(struct fuzz *f, char *dst)
{
	size_t len = payload(f, dst + 1);

	return wrap(dst, len, next(f) % 32);
}

static size_t conversation(struct fuzz *f, char *wire)
{
	unsigned n = 1 + next(f) % 12;
	size_t len = 0;

	for (unsigned i = 0; i < n && len < WIRE / 2; i++) {
		switch (next(f) % 16) {
		case 0:
			wire[len++] = 3;
			break;
		case 1:
			wire[len++] = "+-$#}"[next(f) % 5];
			break;
		default:
			len += packet(f, wire + len);
			break;
		}
	}
	return len;
}

/* Everything that comes back is acknowledgements and well-formed packets; it may end in the middle of one. */
static void check_replies(int fd)
{
	static struct gdb_packets p;
	static uint8_t buf[WIRE];
	ssize_t n;

	gdb_packets_init(&p);
	while ((n = read(fd, buf, sizeof(buf))) > 0) {
		for (ssize_t i = 0; i < n; i++) {
			if (p.state == GDB_RX_IDLE && !strchr("+-$", buf[i]))
				fail("a byte between packets that means nothing");
			(void)gdb_packets_feed(&p, buf[i]);
			if (p.out_len && p.out[0] == '-')
				fail("a reply with a wrong checksum");
			p.out_len = 0;
		}
	}
}

/* The machine's side of the time that passes: CPUs meet points, late standstills come about. */
static void live(struct fuzz *f)
{
	struct vcpu *v = f->vcpu[next(f) % CPUS];

	f->late = false;
	if (!f->held && next(f) % 2) {
		v->debug.hit = (uint8_t)(1 + next(f) % 4);
		v->debug.addr = next(f) % 2 ? 0x1000 : next(f);
		v->debug.kinds = (uint8_t)(1 + next(f) % 3);
		f->held = true;
	}
}

static void turn(struct fuzz *f)
{
	for (unsigned i = 0; i < 1000; i++) {
		gdb_poll(f->g);
		if (evloop_wait(&f->loop, 0) <= 0 && !f->late)
			return;
		f->late = false;
	}
	fail("the stub does not come to rest");
}

static void one_client(struct fuzz *f, const char *wire, size_t len)
{
	int pair[2];

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, pair) < 0)
		fail("no socket pair");
	gdb_adopt(f->g, pair[0]);
	for (size_t at = 0; at < len;) {
		size_t n = next(f) % 4 ? len - at : 1 + next(f) % (len - at);
		ssize_t put = send(pair[1], wire + at, n, MSG_NOSIGNAL);

		turn(f);
		check_replies(pair[1]);
		if (put <= 0)
			break; /* it has left (D) */
		at += (size_t)put;
		live(f);
		turn(f);
	}
	check_replies(pair[1]);
	close(pair[1]);
	turn(f);
	live(f);
	turn(f);
	/* A wait also ends when the process has been stopped and continued; what is stuck stays so however often one looks. */
	for (unsigned i = 0; i < 10 && (gdb_attached(f->g) || f->held); i++)
		turn(f);
	if (gdb_attached(f->g) || f->held) {
		fprintf(stderr, "state %d fd %d events %#x rx %zu/%zu out %zu leaving %d held %d late %d\n", f->g->state,
			f->g->ev_client.fd, (unsigned)f->g->ev_client.events, f->g->rx_pos, f->g->rx_len, f->g->io.out_len, f->g->leaving,
			f->held, f->late);
		fail("the machine still stands after the client has gone");
	}
	for (unsigned i = 0; i < CPUS; i++)
		if (f->vcpu[i]->debug.breaks || f->vcpu[i]->mmu.watches)
			fail("points are left behind");
}

static void prepare(struct fuzz *f)
{
	/* Clients overwrite page tables and registers. */
	for (unsigned i = 0; i < CPUS; i++)
		paging(f, f->vcpu[i]);
}

#ifdef LIBFUZZER
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static char wire[2 * WIRE];
	static struct fuzz f;
	size_t len = 0;

	if (!f.g)
		setup(&f);
	if (!size || size > WIRE / 4)
		return 0;
	prepare(&f);
	if (data[0] % 4 < 2) {
		f.choices = choices_of_input(data + 1, size - 1);
		one_client(&f, wire, conversation(&f, wire));
		return 0;
	}
	/* The machine's choices have to come from somewhere: the length decides. */
	f.choices = (struct choices){.state = CHOICES_SEED + 2 * size};
	if (data[0] % 4 == 3) {
		one_client(&f, (const char *)data, size);
		return 0;
	}
	for (size_t i = 1, n; i < size; i += n + 1) {
		const uint8_t *end = memchr(data + i, '\n', size - i);

		n = end ? (size_t)(end - data) - i : size - i;
		memcpy(wire + len + 1, data + i, n);
		len += wrap(wire + len, n, true);
	}
	one_client(&f, wire, len);
	return 0;
}
#else
int main(int argc, char **argv)
{
	static struct fuzz f;
	static char wire[2 * WIRE];
	unsigned long runs = argc > 1 ? strtoul(argv[1], NULL, 10) : 20000;

	f.choices = choices_of_seed(argc > 2 ? argv[2] : NULL);
	setup(&f);
	for (unsigned long i = 0; i < runs; i++) {
		prepare(&f);
		one_client(&f, wire, conversation(&f, wire));
	}
	printf("%lu clients\n", runs);
	return 0;
}
#endif
