/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Output on COM1, checks and the verdict on port 0xf4.
 *
 * Invariant: never allocates, never enables interrupts; usable from the trap handler.
 */
#include "guest.h"

enum { COM1 = 0x3f8, DEBUG_EXIT = 0xf4, MAX_SHOWN = 60, MAX_PER_LINE = 3 };

bool on_qemu;
const char *check_context;
static unsigned checks, failures, deviations;

static void put(char c)
{
	if (c == '\n')
		put('\r');
	for (unsigned i = 0; i < 100000 && !(inb(COM1 + 5) & 0x20); i++)
		;
	outb(COM1, (u8)c);
}

static void put_num(u64 v, unsigned base, unsigned width, char pad)
{
	char buf[24];
	unsigned n = 0;

	if (base == 16) {
		do {
			buf[n++] = "0123456789abcdef"[v & 15];
			v >>= 4;
		} while (v);
	} else {
		/* 64-bit division would need libgcc in the 32-bit environments: decimal numbers are 32-bit there. */
		ul w = (ul)v;
		do {
			buf[n++] = (char)('0' + w % 10);
			w /= 10;
		} while (w);
	}
	while (width > n && width < 24) {
		put(pad);
		width--;
	}
	while (n)
		put(buf[--n]);
}

void printf(const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	for (; *fmt; fmt++) {
		unsigned width = 0, longs = 0;
		char pad = ' ';

		if (*fmt != '%') {
			put(*fmt);
			continue;
		}
		fmt++;
		if (*fmt == '0')
			pad = '0';
		while (*fmt >= '0' && *fmt <= '9')
			width = width * 10 + (unsigned)(*fmt++ - '0');
		while (*fmt == 'l') {
			longs++;
			fmt++;
		}
		if (*fmt == 's') {
			const char *s = va_arg(ap, const char *);
			while (s && *s)
				put(*s++);
		} else if (*fmt == 'c') {
			put((char)va_arg(ap, int));
		} else if (*fmt == 'd' && !longs) {
			int v = va_arg(ap, int);
			if (v < 0)
				put('-');
			put_num(v < 0 ? -(u64)v : (u64)v, 10, width, pad);
		} else if (*fmt == 'x' || *fmt == 'u' || *fmt == 'd') {
			u64 v = longs == 0 ? va_arg(ap, unsigned) : longs == 1 ? va_arg(ap, ul) : va_arg(ap, u64);
			put_num(v, *fmt == 'x' ? 16 : 10, width, pad);
		} else {
			put(*fmt);
			if (!*fmt)
				break;
		}
	}
	va_end(ap);
}

void guest_exit(u32 code)
{
	outl(DEBUG_EXIT, code);
	for (;;)
		asm volatile("cli; hlt");
}

/* Bounds the output: a table-driven check that fails in every row is shown a few times. */
static bool may_show(int line)
{
	static struct { int line; unsigned n; } seen[MAX_SHOWN];
	unsigned i;

	for (i = 0; i < MAX_SHOWN && seen[i].n && seen[i].line != line; i++)
		;
	if (i == MAX_SHOWN)
		return false;
	seen[i].line = line;
	return seen[i].n++ < MAX_PER_LINE;
}

static void show(const char *kind, const char *func, int line, const char *what)
{
	printf("%s %s:%d: %s%s%s%s", kind, func, line, what, check_context ? " [" : "", check_context ? check_context : "",
	       check_context ? "]" : "");
}

bool check_true(bool ok, const char *func, int line, const char *what)
{
	checks++;
	if (ok)
		return true;
	failures++;
	if (may_show(line)) {
		show("FAIL", func, line, what);
		put('\n');
	}
	return false;
}

bool check_same(u64 got, u64 want, bool manual, const char *func, int line, const char *what)
{
	bool note = manual && on_qemu;

	checks++;
	if (got == want)
		return true;
	if (note)
		deviations++;
	else
		failures++;
	if (may_show(line)) {
		show(note ? "note: QEMU differs from the manual:" : "FAIL", func, line, what);
		printf(": got %llx want %llx\n", got, want);
	}
	return false;
}

void *memcpy(void *d, const void *s, size_t n)
{
	void *r = d;
	asm volatile("rep movsb" : "+D"(d), "+S"(s), "+c"(n) : : "memory");
	return r;
}

void *memset(void *d, int c, size_t n)
{
	void *r = d;
	asm volatile("rep stosb" : "+D"(d), "+c"(n) : "a"(c) : "memory");
	return r;
}

int memcmp(const void *a, const void *b, size_t n)
{
	const u8 *p = a, *q = b;

	for (; n; n--, p++, q++)
		if (*p != *q)
			return *p - *q;
	return 0;
}

bool cpu_has(u32 leaf, unsigned reg, unsigned bit)
{
	u32 o[4];

	cpuid(leaf & 0x80000000, 0, o);
	if (o[0] < leaf)
		return false;
	cpuid(leaf, 0, o);
	return o[reg] >> bit & 1;
}

void guest_main(void);
void guest_main(void)
{
	u32 o[4];

	outb(COM1 + 1, 0);
	outb(COM1 + 3, 3);
	outb(COM1 + 2, 7);
	cpuid(0x40000000, 0, o);
	on_qemu = o[1] == 0x54474354;    /* "TCGT" */
	main();
	printf("%u checks, %u failed", checks, failures);
	if (deviations)
		printf(", %u deviations of QEMU from the manual", deviations);
	printf("\n%s\n", failures ? "FAILED" : "PASSED");
	guest_exit(failures ? 1 : 0);
}
