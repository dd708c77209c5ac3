/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A guest that pokes at everything it should not: every class of physical address, every port in every size, MSR ranges, page tables
 * outside of memory, wild jumps, wild descriptor tables. The machine must survive and this code must go on in good order.
 *
 * Left alone: ports that end the machine by design (debug exit, PM1a, reset register, keyboard controller, port 92h).
 * Environments: long64
 */
#include "guest.h"

static u64 rng = 88172645463325252ull;
static u64 rnd(void)
{
	rng ^= rng << 13;
	rng ^= rng >> 7;
	rng ^= rng << 17;
	return rng;
}

static struct regs kernel(u64 rip)
{
	return (struct regs){ .rip = rip, .cs = KCS, .ss = KDS, .rsp = (u64)run_stack_top, .rflags = FL_1 };
}

SNIP(h_all, "mov (%rsi), %al; mov (%rsi), %ax; mov (%rsi), %eax; mov (%rsi), %rax; mov %al, (%rsi); mov %ax, (%rsi);"
	    "mov %eax, (%rsi); mov %rax, (%rsi); addl $1, (%rsi); lock orl $0, (%rsi); movdqu (%rsi), %xmm0; movdqu %xmm0, (%rsi);"
	    "mov $3, %ecx; mov %rsi, %rdi; rep stosq; mov $3, %ecx; mov %rdi, %rsi; rep movsb; xchg %rax, (%rsi); cmpxchg %rcx, (%rsi)");
SNIP(h_16, "lock cmpxchg16b (%rsi)");
SNIP(h_vec, "fxsave64 (%rsi); fxrstor64 (%rsi); fldt (%rsi); fstpt (%rsi)");
SNIP(h_pop, "mov %rsi, %rsp; pop %rax; push %rax; ret");

/* The stack at va, one instruction at a time: where RET leads is a device's word, and it may lead into all of memory. */
static void stack_there(u64 va)
{
	struct regs r = kernel((u64)h_pop);

	r.rsi = va;
	for (unsigned v = 0; v < 20; v++)
		idt_ist(v, 1);
	for (unsigned steps = 0; steps < 5; steps++) {
		r.rflags |= FL_TF;
		run(&r);
		CHECK(r.vec < 32);
		if (r.vec != DB)
			break;
	}
	for (unsigned v = 0; v < 20; v++)
		idt_ist(v, 0);
}

/* Physical classes: end of memory, holes, VGA, ROM, APICs, HPET area, PCI windows, near 4G, above memory, end of address space. */
static void test_physical(void)
{
	static const u64 pa[] = { 0, 0x1000, 0x9f000, 0xa0000, 0xb8000, 0xc0000, 0xf0000, 0xfffff000 & ~0xfffull, 0x1ffff000, 0x20000000,
		0x40000000, 0x7ffff000, 0x80000000, 0xbffff000, 0xc0000000, 0xe0000000, 0xf0000000, 0xfd000000, 0xfec01000, 0xfed00000,
		0xfed1f000, 0xfeda0000, 0xfee01000, 0xff000000, 0xffff0000, 0x100000000, 0x140000000, 0x7ffffff000, 0xfffffff000 };
	static const u16 off[] = { 0, 1, 8, 0x7fc, 0xff8, 0xffc, 0xfff };
	u8 saved[8192];

	for (unsigned i = 0; i < ARRAY_SIZE(pa); i++) {
		bool ram = pa[i] < 0xa0000;

		if (ram)
			memcpy(saved, (void *)pa[i], 4096);
		for (unsigned cache = 0; cache < 2; cache++) {
			map_page(TEST_VA, pa[i], PTE_P | PTE_W | (cache ? PTE_PCD : 0));
			map_page(TEST_VA + 4096, pa[i], PTE_P | PTE_W | (cache ? PTE_PCD : 0));
			for (unsigned o = 0; o < ARRAY_SIZE(off); o++) {
				u8 *code[] = { h_all, h_16, h_vec };
				for (unsigned c = 0; c < ARRAY_SIZE(code); c++) {
					struct regs r = kernel((u64)code[c]);
					r.rsi = TEST_VA + off[o];
					run(&r);
					CHECK(r.vec < 32 || r.vec == VEC_DONE);
				}
				stack_there(TEST_VA + off[o]);
			}
		}
		/* code there: whatever is fetched, it ends in an exception or a debug trap soon */
		if (!ram) {
			struct regs r = kernel(TEST_VA + 0x800);
			r.rflags |= FL_TF;
			for (unsigned v = 0; v < 20; v++)
				idt_ist(v, 1);
			run(&r);
			CHECK(r.vec < 32);
			for (unsigned v = 0; v < 20; v++)
				idt_ist(v, 0);
		} else {
			memcpy((void *)pa[i], saved, 4096);
		}
	}
	map_page(TEST_VA, 0, 0);
	map_page(TEST_VA + 4096, 0, 0);
	asm volatile("fninit");
}

/* Ends the machine or this test's output by design. */
static bool forbidden(unsigned port, unsigned size)
{
	static const struct { u16 first, last; } skip[] = {
		{ 0x60, 0x60 }, { 0x64, 0x64 }, { 0x92, 0x92 }, { 0xb2, 0xb3 }, { 0xf4, 0xf7 }, { 0x3f8, 0x3ff }, { 0x501, 0x503 },
		{ 0x510, 0x51b }, { 0x600, 0x67f }, { 0x700, 0x73f }, { 0xb000, 0xb03f }, { 0xcf8, 0xcff }, { 0xafe0, 0xafff },
	};

	for (unsigned i = 0; i < ARRAY_SIZE(skip); i++)
		if (port <= skip[i].last && port + size > skip[i].first)
			return true;
	return false;
}

static void test_ports(void)
{
	for (unsigned port = 0; port < 0x10000; port += port < 0x1000 ? 1 : 7) {
		for (unsigned size = 1; size <= 4; size *= 2) {
			if (forbidden(port, size))
				continue;
			u16 p = (u16)port;
			if (size == 1)
				outb(p, inb(p));
			else if (size == 2)
				outw(p, inw(p));
			else
				outl(p, inl(p));
		}
	}
	/* reads of everything, the excluded ones too */
	for (unsigned port = 0; port < 0x1000; port++) {
		(void)inb((u16)port);
		(void)inw((u16)port);
		(void)inl((u16)port);
	}
	for (unsigned i = 0; i < 2000; i++) {
		u16 p = (u16)rnd();
		if (forbidden(p, 4))
			continue;
		outl(p, (u32)rnd());
		outw(p, (u16)rnd());
		outb(p, (u8)rnd());
	}
	/* string I/O at a port nobody owns */
	u8 buf[512];
	void *d = buf;
	u64 n = 128;
	asm volatile("rep insl" : "+D"(d), "+c"(n) : "d"(0x6543) : "memory");
	CHECK_EQ(buf[0] & buf[511], 0xff);
	/* the timers and the interrupt controllers were scribbled over: bring them back */
	pic_init(0x20, 0x28);
	outb(0x3f8 + 1, 0);
	outb(0x3f8 + 3, 3);
	outb(0x61, 0);
}

static void test_pci(void)
{
	for (unsigned i = 0; i < 4096; i++) {
		outl(0xcf8, 0x80000000u | (u32)(rnd() & 0xfffffc));
		(void)inl(0xcfc);
		(void)inw(0xcfe);
		(void)inb(0xcff);
	}
	outl(0xcf8, 0xffffffff);
	(void)inl(0xcfc);
	outl(0xcfc, 0xffffffff);
	outb(0xcf8, 1);
	outl(0xcf8, 0);
}

static void try_msrs(u32 from, u32 to)
{
	for (u32 m = from; m != to; m++) {
		u64 v;

		if (m == 0xc0000080 || m == 0x10 || m == 0x3b)      /* EFER and the clock: only read */
			rdmsr_safe(m, &v);
		else if (rdmsr_safe(m, &v) == VEC_NONE) {
			/* Wild values where this code does not depend on the register; then the old one back. */
			bool own = m == 0x1b || m == 0x277 || m == 0x2ff || (m >= 0x200 && m < 0x270) || (m >= 0x800 && m < 0x900);

			if (!own && !on_qemu) {
				wrmsr_safe(m, rnd());
				wrmsr_safe(m, ~0ull);
				wrmsr_safe(m, 0);
			}
			wrmsr_safe(m, v);
		} else if (!on_qemu) {
			CHECK_EQ(exc.vec, GP);
			wrmsr_safe(m, rnd());
		}
	}
}

static void test_msrs(void)
{
	try_msrs(0, 0x2000);
	try_msrs(0x40000000, 0x40000200);
	try_msrs(0x4b564d00, 0x4b564d10);
	try_msrs(0xc0000000, 0xc0002000);
	try_msrs(0xc0010000, 0xc0010200);
	try_msrs(0xfffffff0, 0);
	/* KVM clock pages anywhere */
	for (unsigned i = 0; i < 50 && !on_qemu; i++) {
		wrmsr_safe(0x4b564d01, rnd() | 1);
		wrmsr_safe(0x4b564d00, rnd());
		wrmsr_safe(0x4b564d01, 0x3fffffffffull);
		wrmsr_safe(0x12, rnd() | 1);
		wrmsr_safe(0x11, rnd());
	}
	wrmsr_safe(0x4b564d01, 0);
	wrmsr_safe(0x12, 0);
	for (unsigned i = 0; i < 500; i++) {
		u64 v;
		u32 m = (u32)rnd();
		rdmsr_safe(m, &v);
	}
}

/* CR3 pointing anywhere: the next instruction cannot be fetched, the exception handler cannot be reached: that would be a triple
 * fault, so the wild tables are hung below a good PML4. Every level, random contents, random accesses. */
static void test_wild_tables(void)
{
	u64 va = HIGH_VA + 0x30000000000ull;
	u64 *junk = page_alloc();

	for (unsigned round = 0; round < 150; round++) {
		for (unsigned i = 0; i < 512; i++) {
			u64 e = rnd();

			/* Anything but a writable mapping of the low 512 MiB, which this program lives in. */
			e |= 1;
			if ((e & 0xfffe0000000ull) == 0)
				e |= 0x4000000000ull;
			junk[i] = e & (round & 1 ? ~0ull : 0x7fffffffffull);
			if ((junk[i] & 0xfffe0000000ull) == 0)
				junk[i] &= ~2ull;
		}
		for (unsigned level = 2; level <= 4; level++) {
			u64 *e = pte_at(boot_pml4, va, level);
			u64 old = *e;

			*e = (u64)junk | 7;
			for (unsigned n = 0; n < 6; n++) {
				u64 a = va + (rnd() & ((1ull << (12 + 9 * (level - 1))) - 1));
				struct regs r = kernel(n & 1 ? (u64)h_16 : (u64)h_vec);

				invlpg(a);
				r.rsi = a;
				run(&r);
				CHECK(r.vec < 32 || r.vec == VEC_DONE);
			}
			*e = old;
			write_cr3(read_cr3());
		}
	}
	*pte_at(boot_pml4, va, 4) = 0;
	/* a table that is its own child at every level */
	u64 *self = page_alloc();
	for (unsigned i = 0; i < 512; i++)
		self[i] = (u64)self | 3;
	*pte_at(boot_pml4, va, 4) = (u64)self | 3;
	invlpg(va);
	CHECK_EQ(*(volatile u64 *)va & ~0x60ull, (u64)self | 3);
	*(volatile u64 *)(va + 8) = 0;                   /* edits itself */
	CHECK_EQ(self[1] & ~0x60ull, 0);
	*pte_at(boot_pml4, va, 4) = 0;
	write_cr3(read_cr3());
	asm volatile("fninit");
}

static void test_wild_jumps(void)
{
	static const u64 where[] = { 0x8000000000000000ull, 0x800000000000ull, 0xffff7fffffffffffull, 0x7fffffffffffull, ~0ull, TEST_VA,
		HIGH_VA, 0xfee00000, 0xfec00000, 0xffffffff };

	for (unsigned v = 0; v < 20; v++)
		idt_ist(v, 1);
	for (unsigned i = 0; i < ARRAY_SIZE(where); i++) {
		struct regs r = kernel(where[i]);
		r.rflags |= FL_TF;
		run(&r);
		CHECK(r.vec < 32);
		r = (struct regs){ .rip = where[i], .cs = UCS, .ss = UDS, .rsp = where[i], .rflags = FL_1 | FL_TF };
		run(&r);
		CHECK(r.vec < 32);
		/* through RET and JMP and CALL */
		r = kernel((u64)h_pop);
		r.rsi = (u64)run_stack_top - 64;
		((u64 *)run_stack_top)[-8] = where[i];
		r.rflags |= FL_TF;
		run(&r);
		CHECK(r.vec < 32);
	}
	for (unsigned v = 0; v < 20; v++)
		idt_ist(v, 0);
}

/* Random bytes as code, stepped one instruction at a time at CPL 3 on a scratch stack. */
static void test_random_code(void)
{
	u8 *page = pages_alloc(2, 1);
	unsigned ended[32] = { 0 };

	for (unsigned v = 0; v < 20; v++)
		idt_ist(v, 1);
	for (unsigned n = 0; n < 1500; n++) {
		for (unsigned i = 0; i < 64; i += 8)
			*(u64 *)(page + i) = rnd();
		for (unsigned i = 64; i < 128; i++)
			page[i] = 0xcc;
		struct regs r = { .rip = USER(page), .cs = n & 1 ? UCS : UCS32, .ss = UDS, .rsp = USER(page + 4096), .rflags = FL_1 | FL_TF };
		u64 *g = &r.rax;
		for (unsigned i = 0; i < 15; i++)
			g[i] = i & 1 ? rnd() : USER(page + 4096) + i * 64;
		for (unsigned steps = 0; steps < 8; steps++) {
			r.rflags |= FL_TF;
			r.rflags &= ~(u64)(FL_IOPL | FL_VM | FL_NT);
			run(&r);
			if (r.vec != DB)
				break;
			CHECK_EQ(r.cs & 3, 3);
		}
		if (r.vec < 32)
			ended[r.vec]++;
		else
			CHECK(r.vec >= VEC_SYSCALL || r.vec == VEC_DONE);
	}
	CHECK(ended[UD] + ended[PF] + ended[GP] > 100);
	for (unsigned v = 0; v < 20; v++)
		idt_ist(v, 0);
	asm volatile("mov %w0, %%ds; mov %w0, %%es; fninit" : : "r"(KDS));
	asm volatile("mov %w0, %%fs; mov %w0, %%gs" : : "r"(0));
}

/* Device registers of the APICs with random offsets, sizes and values, masked at the end. */
static void test_apic_noise(void)
{
	apic_enable(0xff);
	for (unsigned i = 0; i < 3000; i++) {
		u64 a = 0xfec00000 + (rnd() & 0xffc);

		switch (rnd() % 6) {
		case 0: (void)*(volatile u8 *)a; break;
		case 1: (void)*(volatile u16 *)a; break;
		case 2: (void)*(volatile u32 *)a; break;
		case 3: *(volatile u32 *)a = (u32)rnd() | 0x10000; break;
		case 4: (void)*(volatile u32 *)(0xfee00000 + (rnd() & 0xff0)); break;
		default: (void)*(volatile u64 *)(0xfee00000 + (rnd() & 0xff8)); break;
		}
	}
	for (unsigned i = 0; i < 24; i++) {
		*(volatile u32 *)0xfec00000 = 0x10 + i * 2;
		*(volatile u32 *)0xfec00010 = 0x10000;
	}
}

/* A push whose source crosses a page, then one whose slot does: the translator must not take the second's alignment for granted. */
SNIP(h_push, "mov %rax, (%rdi); push (%rsi); push %rax");
/* Fifteen bytes already; a translation with a longer encoding must drop the redundant prefixes. */
SNIP(h_prefix, ".fill 13, 1, 0x66; .byte 0x01, 0xc4; .fill 6, 1, 0x66; .fill 7, 1, 0x2e; .byte 0x03, 0x26");

/* A REX that is ignored because a segment override follows: neither may reach the host's own FS or GS. */
SNIP(h_rex, ".byte 0x48, 0x64, 0xd9, 0x02; .byte 0x48, 0x64, 0xd9, 0x1a; .byte 0x4f, 0x65, 0xd9, 0x02; .byte 0x41, 0x65, 0xd9, 0x1a;"
	    ".byte 0x48, 0x64, 0x0f, 0x58, 0x02");

static void test_translation_limits(void)
{
	u8 *f = pages_alloc(3, 1);
	u64 first = 0;
	struct regs r;

	map_page(TEST_VA, (u64)f, PTE_P | PTE_W | PTE_U);
	map_page(TEST_VA + 4096, (u64)f + 8192, PTE_P | PTE_W | PTE_U);
	for (unsigned i = 0; i < 3; i++) {
		r = (struct regs){ .rip = USER(h_push), .cs = UCS, .ss = UDS, .rsp = TEST_VA + 4096 + 12, .rflags = FL_1,
				   .rax = 0x1122334455667788, .rsi = TEST_VA + 4096 - 4, .rdi = TEST_VA + 0x800 };
		run(&r);
		CHECK_EQ(r.vec, VEC_DONE);
		memcpy(&first, f + 4096, 8);
		CHECK_EQ(first, 0);              /* the neighbour in memory, not mapped here */
		CHECK_EQ(*(u32 *)(f + 4092), 0x55667788);
		CHECK_EQ(*(u32 *)(f + 8192), 0x11223344);
		memset(f, 0, 3 * 4096);
	}
	r = (struct regs){ .rip = USER(h_prefix), .cs = UCS, .ss = UDS, .rsp = 0x10000, .rflags = FL_1, .rax = 5, .rsi = TEST_VA };
	run(&r);
	CHECK_EQ(r.vec, VEC_DONE);
	CHECK_EQ(r.rsp, 0x10005);
	r = kernel((u64)h_rex);
	r.rdx = TEST_VA;
	run(&r);
	CHECK_EQ(r.vec, VEC_DONE);
	map_page(TEST_VA, 0, 0);
	map_page(TEST_VA + 4096, 0, 0);
}

/* One access in each of 2^17 GiB: what the host spends on its shadow of them has to stay bounded (tests/guest/run cannot see that,
 * but a limit on memory around it can), and every one must still find its page. */
static void test_strewn(void)
{
	u64 *pdpt = page_alloc(), *pd = page_alloc(), *pt = page_alloc(), *data = page_alloc(), sum = 0;

	for (unsigned i = 0; i < 512; i++) {
		pdpt[i] = (u64)pd | 7;
		pd[i] = (u64)pt | 7;
		pt[i] = (u64)data | 7;
	}
	*data = 1;
	for (unsigned i = 4; i < 256; i++)
		boot_pml4[i] = (u64)pdpt | 7;
	for (u64 a = 4ull << 39; a < 256ull << 39; a += BIT(30)) {
		*(volatile u64 *)(a + 8) = a;
		sum += *(volatile u64 *)a;
	}
	CHECK_EQ(sum, 252 * 512);
	for (unsigned i = 4; i < 256; i++)
		boot_pml4[i] = 0;
	write_cr3(read_cr3());
}

int main(void)
{
	test_strewn();
	test_translation_limits();
	test_physical();
	test_pci();
	test_ports();
	test_msrs();
	test_wild_tables();
	test_wild_jumps();
	test_random_code();
	test_apic_noise();
	return 0;
}
