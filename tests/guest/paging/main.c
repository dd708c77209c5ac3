/* SPDX-License-Identifier: Apache-2.0 */
/*
 * 4-level paging: the rights matrix with exact error codes and accessed/dirty bits, page sizes, reserved bits, TLB rules.
 *
 * Environments: long64
 * Spec: SDM vol. 3A 4.5-4.7, 4.10.
 */
#include "guest.h"

#define VA TEST_VA
#define ADDR 0x000ffffffffff000ull

/* Operations at any privilege: the code sits in a page mapped for user (alias) and supervisor, the operand in the test page. */
SNIP(op_read, "mov (%rsi), %rax");
SNIP(op_write, "mov %rax, (%rsi)");
SNIP(op_rmw, "add %rax, (%rsi)");
SNIP(op_call, "call *%rsi");

static const u8 ret_code[] = { 0xc3 };

enum { OP_READ, OP_WRITE, OP_RMW, OP_FETCH, OPS };
static const char *const op_name[OPS] = { "read", "write", "rmw", "fetch" };
static u8 *const op_code[OPS] = { op_read, op_write, op_rmw, op_call };

static void do_op(struct regs *r, int op, bool user, u64 va)
{
	if (user)
		*r = (struct regs){ .rip = USER(op_code[op]), .cs = UCS, .ss = UDS, .rsp = USER(run_stack_top), .rflags = FL_1 };
	else
		*r = (struct regs){ .rip = (u64)op_code[op], .cs = KCS, .ss = KDS, .rsp = (u64)run_stack_top, .rflags = FL_1 };
	r->rsi = va;
	run(r);
}

/* What an access must do, from the effective rights. 0xffff = succeeds, otherwise the error code. */
static u32 expected(int op, bool user, bool p, bool w, bool u, bool nx, bool wp, bool smep)
{
	u32 err = (op == OP_WRITE || op == OP_RMW ? PF_W : 0) | (user ? PF_U : 0) | (op == OP_FETCH ? PF_I : 0);

	if (!p)
		return err;
	err |= PF_P;
	if (user && !u)
		return err;
	if ((op == OP_WRITE || op == OP_RMW) && !w && (user || wp))
		return err;
	if (op == OP_FETCH && (nx || (smep && !user && u)))
		return err;
	return 0xffff;
}

static char row[64];
static void name_row(int op, bool user, unsigned level, unsigned bits, bool wp, bool smep)
{
	static const char *const size[] = { "", "4K", "2M", "1G" };
	char *p = row;
	const char *parts[] = { op_name[op], user ? " user " : " sup ", size[level], wp ? " WP" : "", smep ? " SMEP" : "",
		bits & 1 ? " P" : "", bits & 2 ? " W" : "", bits & 4 ? " U" : "", bits & 8 ? " NX" : "" };

	for (unsigned i = 0; i < ARRAY_SIZE(parts); i++)
		for (const char *s = parts[i]; *s; s++)
			*p++ = *s;
	*p = 0;
	check_context = row;
}

static void check_op(volatile u64 *pte, u64 entry, u64 va, int op, bool user, u32 want, bool dirty_want)
{
	struct regs r;
	u64 after;

	*pte = entry;
	invlpg(va);
	do_op(&r, op, user, va);
	after = *pte;
	if (want == 0xffff) {
		CHECK_EQ(r.vec, VEC_DONE);
		CHECK_EQ(after & ~(u64)(PTE_A | PTE_D), entry);
		CHECK_EQ(after & PTE_A, PTE_A);
		CHECK_EQ(!!(after & PTE_D), dirty_want);
	} else {
		CHECK_EQ(r.vec, PF);
		if (op == OP_RMW)
			CHECK_MANUAL(r.err, want);       /* TCG reports the read half first */
		else
			CHECK_EQ(r.err, want);
		CHECK_EQ(r.cr2, va);
		CHECK_EQ(r.rip, op == OP_FETCH ? va : user ? USER(op_code[op]) : (u64)op_code[op]);
		/* Never D from an access that faults; A of a present leaf is the processor's choice. */
		CHECK_EQ(after & ~(u64)(entry & PTE_P ? PTE_A : 0), entry);
	}
}

/* Leaf rights at every page size. The frame holds RET at its start for fetches. */
static void test_matrix(void)
{
	u8 *big = pages_alloc(1, 512);      /* 2 MiB aligned */
	u64 pa = (u64)big;

	for (unsigned level = 1; level <= 3; level++) {
		u64 va = level == 3 ? HIGH_VA + pa : HIGH_VA + (level == 2 ? 0x4000000000ull : 0x8000000000ull);
		volatile u64 *pte = pte_at(boot_pml4, va, level);
		u64 frame = level == 3 ? PTE_PS : level == 2 ? pa | PTE_PS : pa;

		for (unsigned mode = 0; mode < 4; mode++) {
			bool wp = mode & 1, smep = mode & 2;

			write_cr0(wp ? read_cr0() | BIT(16) : read_cr0() & ~BIT(16));
			write_cr4(smep ? read_cr4() | BIT(20) : read_cr4() & ~BIT(20));
			for (unsigned bits = 0; bits < 16; bits++) {
				u64 entry = frame | (bits & 7) | (bits & 8 ? PTE_NX : 0);

				for (int op = 0; op < OPS; op++) {
					for (int user = 0; user < 2; user++) {
						u32 want = expected(op, user, bits & 1, bits & 2, bits & 4, bits & 8, wp, smep);

						memcpy(big, ret_code, 1);
						name_row(op, user, level, bits, wp, smep);
						check_op(pte, entry, va, op, user, want, op == OP_WRITE || op == OP_RMW);
					}
				}
			}
		}
		*pte = 0;
		invlpg(va);
	}
	check_context = NULL;
	write_cr0(read_cr0() | BIT(16));
	write_cr4(read_cr4() & ~BIT(20));
}

/* The rights of upper levels combine: write and user are ANDed, NX ORed. Accessed is set on the way, dirty only in the leaf. */
static void test_upper_levels(void)
{
	u64 va = HIGH_VA + 0x10000000000ull, pa = (u64)page_alloc();

	for (unsigned level = 2; level <= 4; level++) {
		volatile u64 *leaf = pte_at(boot_pml4, va, 1), *upper = pte_at(boot_pml4, va, level);
		u64 table = *upper & ADDR;

		for (unsigned bits = 0; bits < 16; bits++) {
			u64 entry = table | (bits & 7) | (bits & 8 ? PTE_NX : 0);

			for (int op = 0; op < OPS; op++) {
				for (int user = 0; user < 2; user++) {
					u32 want = expected(op, user, bits & 1, bits & 2, bits & 4, bits & 8, true, false);
					struct regs r;

					*(u8 *)pa = 0xc3;
					*leaf = pa | 7;
					*upper = entry;
					write_cr3(read_cr3());
					do_op(&r, op, user, va);
					name_row(op, user, 1, bits, true, false);
					CHECK_EQ(r.vec, want == 0xffff ? VEC_DONE : PF);
					if (want != 0xffff) {
						if (op == OP_RMW)
							CHECK_MANUAL(r.err, want);
						else
							CHECK_EQ(r.err, want);
					} else {
						CHECK_EQ(*upper & ~(u64)PTE_A, entry);
						CHECK_EQ(*upper & PTE_A, PTE_A);
						CHECK_EQ(!!(*leaf & PTE_D), op == OP_WRITE || op == OP_RMW);
					}
				}
			}
		}
		*upper = table | 7;
		write_cr3(read_cr3());
	}
	check_context = NULL;
}

static void expect_rsvd(u64 va)
{
	struct regs r;

	do_op(&r, OP_READ, false, va);
	CHECK_EQ(r.vec, PF);
	CHECK_MANUAL(r.err, PF_P | PF_RSVD);
	CHECK_EQ(r.cr2, va);
	do_op(&r, OP_WRITE, true, va);
	CHECK_EQ(r.vec, PF);
	CHECK_MANUAL(r.err, PF_P | PF_RSVD | PF_W | PF_U);
	do_op(&r, OP_FETCH, true, va);
	CHECK_EQ(r.vec, PF);
	CHECK_MANUAL(r.err, PF_P | PF_RSVD | PF_I | PF_U);
}

static void test_reserved(void)
{
	u64 va = HIGH_VA + 0x18000000000ull;
	u64 good[5];
	u32 o[4];
	unsigned phys;

	cpuid(0x80000008, 0, o);
	phys = o[0] & 0xff;
	*pte_at(boot_pml4, va, 1) = (u64)page_alloc() | 7;
	for (unsigned l = 1; l <= 4; l++)
		good[l] = *pte_at(boot_pml4, va, l);
	for (unsigned l = 1; l <= 4; l++) {
		volatile u64 *e = pte_at(boot_pml4, va, l);

		for (unsigned bit = phys; bit < 52; bit++) {     /* address bits the CPU does not have */
			*e = good[l] | BIT(bit);
			invlpg(va);
			expect_rsvd(va);
		}
		*e = good[l];
		invlpg(va);
	}
	*pte_at(boot_pml4, va, 4) = good[4] | PTE_PS;            /* no such page size */
	invlpg(va);
	expect_rsvd(va);
	*pte_at(boot_pml4, va, 4) = good[4];
	*pte_at(boot_pml4, va, 3) = PTE_PS | 7 | BIT(13);         /* misaligned 1 GiB and 2 MiB pages */
	invlpg(va);
	expect_rsvd(va);
	*pte_at(boot_pml4, va, 3) = PTE_PS | 7 | BIT(29);
	invlpg(va);
	expect_rsvd(va);
	*pte_at(boot_pml4, va, 3) = good[3];
	*pte_at(boot_pml4, va, 2) = PTE_PS | 7 | BIT(13);
	invlpg(va);
	expect_rsvd(va);
	*pte_at(boot_pml4, va, 2) = PTE_PS | 7 | BIT(20);
	invlpg(va);
	expect_rsvd(va);
	*pte_at(boot_pml4, va, 2) = good[2];
	/* Not present wins over reserved bits. */
	*pte_at(boot_pml4, va, 1) = (good[1] & ~1ull) | BIT(51);
	invlpg(va);
	struct regs r;
	do_op(&r, OP_READ, false, va);
	CHECK_EQ(r.vec, PF);
	CHECK_EQ(r.err, 0);
	/* NX is reserved when EFER.NXE = 0, and fetches then do not set I unless SMEP. */
	*pte_at(boot_pml4, va, 1) = good[1] | PTE_NX;
	wrmsr(0xc0000080, rdmsr(0xc0000080) & ~BIT(11));
	invlpg(va);
	do_op(&r, OP_READ, false, va);
	CHECK_EQ(r.vec, PF);
	CHECK_MANUAL(r.err, PF_P | PF_RSVD);
	*pte_at(boot_pml4, va, 1) = 0;
	invlpg(va);
	do_op(&r, OP_FETCH, true, va);
	CHECK_EQ(r.err, PF_U);
	write_cr4(read_cr4() | BIT(20));
	do_op(&r, OP_FETCH, true, va);
	CHECK_MANUAL(r.err, PF_U | PF_I);
	write_cr4(read_cr4() & ~BIT(20));
	wrmsr(0xc0000080, rdmsr(0xc0000080) | BIT(11));
	/* Ignored bits are ignored. */
	*pte_at(boot_pml4, va, 1) = good[1] | 0xe00 | (0x7ffull << 52);
	invlpg(va);
	do_op(&r, OP_READ, true, va);
	CHECK_EQ(r.vec, VEC_DONE);
	*pte_at(boot_pml4, va, 1) = good[1];
	invlpg(va);
}

/* Accesses that cross from one page into one with other rights: the fault reports the failing page and changes nothing. */
static void test_crossing(void)
{
	u64 a = (u64)page_alloc(), b = (u64)page_alloc(), *pa = (u64 *)(a + 0xff8), *pb = (u64 *)b;
	struct regs r;

	for (int user = 0; user < 2; user++) {
		u64 uf = user ? PTE_U : 0;

		/* second page read-only */
		map_page(VA, a, PTE_P | PTE_W | uf);
		map_page(VA + 4096, b, PTE_P | uf);
		*pa = *pb = 0;
		do_op(&r, OP_WRITE, user, VA + 0xffd);
		CHECK_EQ(r.vec, PF);
		CHECK_EQ(r.err, PF_P | PF_W | (user ? PF_U : 0));
		CHECK_EQ(r.cr2, VA + 4096);
		CHECK_EQ(*pa | *pb, 0);
		do_op(&r, OP_READ, user, VA + 0xffd);
		CHECK_EQ(r.vec, VEC_DONE);
		/* first page read-only */
		map_page(VA, a, PTE_P | uf);
		map_page(VA + 4096, b, PTE_P | PTE_W | uf);
		do_op(&r, OP_WRITE, user, VA + 0xffd);
		CHECK_EQ(r.vec, PF);
		CHECK_EQ(r.err, PF_P | PF_W | (user ? PF_U : 0));
		CHECK_EQ(r.cr2, VA + 0xffd);
		CHECK_EQ(*pa | *pb, 0);
		/* both fine: bytes land in both frames, which are not neighbours the other way round */
		map_page(VA, b, PTE_P | PTE_W | uf);
		map_page(VA + 4096, a, PTE_P | PTE_W | uf);
		*(volatile u64 *)(VA + 0x5ffd - 0x5000) = 0x1122334455667788ull;
		CHECK_EQ(*(u64 *)(b + 0xff8) >> 40, 0x667788);
		CHECK_EQ(*(u64 *)a & 0xffffffffffull, 0x1122334455ull);
		CHECK_EQ(*(volatile u64 *)(VA + 0xffd), 0x1122334455667788ull);
		CHECK(*pte_at(boot_pml4, VA, 1) & PTE_D);
		CHECK(*pte_at(boot_pml4, VA + 4096, 1) & PTE_D);
		*(u64 *)a = *(u64 *)(b + 0xff8) = 0;
	}
	/* supervisor page behind a user page */
	map_page(VA, a, 7);
	map_page(VA + 4096, b, PTE_P | PTE_W);
	do_op(&r, OP_READ, true, VA + 0xff9);
	CHECK_EQ(r.vec, PF);
	CHECK_EQ(r.err, PF_P | PF_U);
	CHECK_EQ(r.cr2, VA + 4096);
	/* an instruction whose tail is in a page that cannot be executed: CR2 = the second page, RIP = the instruction */
	memcpy((void *)(a + 0xffd), "\xb8\x01\x02\x03\x04", 3);
	*(u16 *)b = 0x0403;
	*(u8 *)(b + 2) = 0xc3;
	map_page(VA + 4096, b, PTE_P | PTE_W | PTE_NX | PTE_U);
	do_op(&r, OP_FETCH, true, VA + 0xffd);
	CHECK_EQ(r.vec, PF);
	CHECK_EQ(r.err, PF_P | PF_U | PF_I);
	CHECK_EQ(r.cr2, VA + 4096);
	CHECK_EQ(r.rip, VA + 0xffd);
	map_page(VA + 4096, b, 7);
	do_op(&r, OP_FETCH, true, VA + 0xffd);
	CHECK_EQ(r.vec, VEC_DONE);
	CHECK_EQ(r.rax, 0x04030201);
	/* the same page in two places */
	map_page(VA + 4096, a, 7);
	*(volatile u32 *)(VA + 0x10) = 77;
	CHECK_EQ(*(volatile u32 *)(VA + 0x1010), 77);
	*(volatile u32 *)(VA + 0x1010) = 78;
	CHECK_EQ(*(volatile u32 *)(VA + 0x10), 78);
}

/* What needs no INVLPG: making a not-present entry present, adding rights (the retried access must see it). A and D written
 * by software: clearing D and flushing must set it again at the next write. */
static void test_upgrade(void)
{
	volatile u64 *pte = pte_at(boot_pml4, VA + 0x8000, 1);
	u64 a = (u64)page_alloc(), b = (u64)page_alloc();
	struct regs r;

	map_page(VA + 0x8000, 0, 0);
	do_op(&r, OP_READ, false, VA + 0x8000);
	CHECK_EQ(r.vec, PF);
	*pte = a | PTE_P;
	do_op(&r, OP_READ, false, VA + 0x8000);            /* not-present is never cached */
	CHECK_EQ(r.vec, VEC_DONE);
	do_op(&r, OP_WRITE, false, VA + 0x8000);
	CHECK_EQ(r.vec, PF);
	*pte |= PTE_W;
	do_op(&r, OP_WRITE, false, VA + 0x8000);           /* the fault above dropped the stale entry */
	CHECK_EQ(r.vec, VEC_DONE);
	do_op(&r, OP_READ, true, VA + 0x8000);
	CHECK_EQ(r.vec, PF);
	*pte |= PTE_U;
	do_op(&r, OP_READ, true, VA + 0x8000);
	CHECK_EQ(r.vec, VEC_DONE);
	*pte |= PTE_NX;
	invlpg(VA + 0x8000);
	do_op(&r, OP_FETCH, true, VA + 0x8000);
	CHECK_EQ(r.vec, PF);
	*(u8 *)a = 0xc3;
	*pte &= ~PTE_NX;
	do_op(&r, OP_FETCH, true, VA + 0x8000);
	CHECK_EQ(r.vec, VEC_DONE);
	/* downgrade with INVLPG */
	*pte &= ~(u64)PTE_W;
	invlpg(VA + 0x8000);
	do_op(&r, OP_WRITE, true, VA + 0x8000);
	CHECK_EQ(r.vec, PF);
	CHECK_EQ(r.err, PF_P | PF_W | PF_U);
	/* other frame */
	*(u64 *)a = 1;
	*(u64 *)b = 2;
	*pte = b | 7;
	invlpg(VA + 0x8fff);                                 /* any address in the page */
	CHECK_EQ(*(volatile u64 *)(VA + 0x8000), 2);
	CHECK_EQ(*pte & PTE_D, 0);
	*(volatile u64 *)(VA + 0x8000) = 3;
	CHECK_EQ(*pte & PTE_D, PTE_D);
	*pte &= ~(u64)(PTE_D | PTE_A);
	invlpg(VA + 0x8000);
	(void)*(volatile u64 *)(VA + 0x8000);
	CHECK_EQ(*pte & (PTE_D | PTE_A), PTE_A);
	*(volatile u64 *)(VA + 0x8000) = 4;
	CHECK_EQ(*pte & (PTE_D | PTE_A), PTE_A | PTE_D);
	/* the same through a CR3 write */
	*pte = a | PTE_P | PTE_W;
	write_cr3(read_cr3());
	CHECK_EQ(*(volatile u64 *)(VA + 0x8000), 1);
	/* and through an upper level: INVLPG drops paging-structure caches too */
	u64 *table2 = page_alloc();
	volatile u64 *pde = pte_at(boot_pml4, VA + 0x8000, 2);
	u64 old = *pde;
	table2[8] = b | 7;
	*pde = (u64)table2 | 7;
	invlpg(VA + 0x8000);
	CHECK_EQ(*(volatile u64 *)(VA + 0x8000), 4);
	*pde = old;
	invlpg(VA + 0x8000);
	CHECK_EQ(*(volatile u64 *)(VA + 0x8000), 1);
	/* a 2 MiB page in place of the table and back */
	u64 big = (u64)pages_alloc(512, 512);
	*(u64 *)(big + 0x8000) = 0x2222;
	*(u64 *)(big + 0x100000) = 0x3333;
	*pde = big | PTE_PS | 7;
	write_cr3(read_cr3());
	CHECK_EQ(*(volatile u64 *)(VA + 0x8000), 0x2222);
	CHECK_EQ(*(volatile u64 *)(VA + 0x100000), 0x3333);
	*pde = 0;
	invlpg(VA);                                          /* one INVLPG drops the whole large page */
	do_op(&r, OP_READ, false, VA + 0x100000);
	CHECK_EQ(r.vec, PF);
	do_op(&r, OP_READ, false, VA + 0x8000);
	CHECK_EQ(r.vec, PF);
	*pde = old;
	invlpg(VA);
	CHECK_EQ(*(volatile u64 *)(VA + 0x8000), 1);
	/* CR0.WP changes act at once */
	*pte = a | PTE_P;
	invlpg(VA + 0x8000);
	write_cr0(read_cr0() & ~BIT(16));
	do_op(&r, OP_WRITE, false, VA + 0x8000);
	CHECK_EQ(r.vec, VEC_DONE);
	write_cr0(read_cr0() | BIT(16));
	do_op(&r, OP_WRITE, false, VA + 0x8000);
	CHECK_EQ(r.vec, PF);
	CHECK_EQ(r.err, PF_P | PF_W);
	/* CR4.SMEP too */
	*(u8 *)a = 0xc3;
	*pte = a | 7;
	invlpg(VA + 0x8000);
	do_op(&r, OP_FETCH, false, VA + 0x8000);
	CHECK_EQ(r.vec, VEC_DONE);
	write_cr4(read_cr4() | BIT(20));
	do_op(&r, OP_FETCH, false, VA + 0x8000);
	CHECK_EQ(r.vec, PF);
	CHECK_EQ(r.err, PF_P | PF_I);
	write_cr4(read_cr4() & ~BIT(20));
	do_op(&r, OP_FETCH, false, VA + 0x8000);
	CHECK_EQ(r.vec, VEC_DONE);
}

static void invpcid(u64 type, u64 pcid, u64 va)
{
	struct { u64 a, b; } d = { pcid, va };
	asm volatile("invpcid %0, %1" : : "m"(d), "r"(type) : "memory");
}

#define TRY_INVPCID(type, pcid, va) do { \
	u64 d_[2] = { pcid, va }; \
	asm volatile(TRY("invpcid %0, %1") : : "m"(d_), "r"((u64)(type)) : "memory"); \
} while (0)

/* Reads one word at VA in address space `cr3`. */
static u64 read_in(u64 cr3)
{
	u64 old = read_cr3(), v;

	write_cr3(cr3);
	v = *(volatile u64 *)VA;
	write_cr3(old | BIT(63));
	return v;
}

/* Two address spaces under two PCIDs: translations must be exact after every kind of invalidation the manual demands. */
static void test_pcid(void)
{
	u64 *pml4[2], frame[4], spare, cr3[2];
	volatile u64 *pte[2];

	if (!cpu_has(1, 2, 17)) {
		printf("no PCID\n");
		return;
	}
	for (unsigned i = 0; i < 4; i++) {
		frame[i] = (u64)page_alloc();
		*(u64 *)frame[i] = 100 + i;
	}
	spare = (u64)page_alloc();
	*(u64 *)spare = 999;
	for (unsigned i = 0; i < 2; i++) {
		pml4[i] = page_alloc();
		memcpy(pml4[i], boot_pml4, 4096);
		u64 *pdpt = page_alloc();
		memcpy(pdpt, (void *)(boot_pml4[0] & ADDR), 4096);
		pdpt[2] = 0;                             /* TEST_VA's own tables */
		pml4[i][0] = (u64)pdpt | 7;
		pte[i] = pte_at(pml4[i], VA, 1);
		*pte[i] = frame[i] | 3;
	}
	TRYV("mov %0, %%cr4", "r"(read_cr4() | BIT(17)));
	EXPECT_NONE();
	cr3[0] = (u64)pml4[0] | 5;
	cr3[1] = (u64)pml4[1] | 6;
	for (unsigned n = 0; n < 3; n++) {
		CHECK_EQ(read_in(cr3[0]), 100);
		CHECK_EQ(read_in(cr3[1]), 101);
		CHECK_EQ(read_in(cr3[0] | BIT(63)), 100);
		CHECK_EQ(read_in(cr3[1] | BIT(63)), 101);
	}
	CHECK_EQ(read_cr3() & BIT(63), 0);               /* reads as 0 */
	/* Change PTEs; load CR3 without bit 63: that PCID is flushed. */
	*pte[0] = frame[2] | 3;
	*pte[1] = frame[3] | 3;
	CHECK_EQ(read_in(cr3[0]), 102);
	CHECK_EQ(read_in(cr3[1]), 103);
	/* INVPCID by address */
	if (cpu_has(7, 1, 10)) {
		*pte[0] = frame[0] | 3;
		*pte[1] = frame[1] | 3;
		invpcid(0, 5, VA);
		CHECK_EQ(read_in(cr3[0] | BIT(63)), 100);
		invpcid(0, 6, VA);
		CHECK_EQ(read_in(cr3[1] | BIT(63)), 101);
		/* single context */
		*pte[0] = frame[2] | 3;
		*pte[1] = frame[3] | 3;
		invpcid(1, 5, 0);
		invpcid(1, 6, 0);
		CHECK_EQ(read_in(cr3[0] | BIT(63)), 102);
		CHECK_EQ(read_in(cr3[1] | BIT(63)), 103);
		/* all, with globals */
		*pte[0] = spare | 3 | PTE_G;
		invpcid(2, 0, 0);
		CHECK_EQ(read_in(cr3[0] | BIT(63)), 999);
		*pte[0] = frame[0] | 3 | PTE_G;
		invpcid(2, 0, 0);
		CHECK_EQ(read_in(cr3[0] | BIT(63)), 100);
		/* all but globals */
		*pte[0] = frame[2] | 3;
		*pte[1] = frame[1] | 3;
		invpcid(2, 0, 0);
		CHECK_EQ(read_in(cr3[0] | BIT(63)), 102);
		*pte[0] = frame[0] | 3;
		invpcid(3, 0, 0);
		CHECK_EQ(read_in(cr3[0] | BIT(63)), 100);
		CHECK_EQ(read_in(cr3[1] | BIT(63)), 101);
		/* errors */
		TRY_INVPCID(4, 0, 0);
		EXPECT_FAULT(GP, 0);
		TRY_INVPCID(0, 0x1000, 0);
		EXPECT_FAULT(GP, 0);
		TRY_INVPCID(0, 5, 0x8000000000000000ull);
		EXPECT_FAULT_MANUAL(GP, 0);
		TRY_INVPCID(1, 0x1000, 0);
		EXPECT_FAULT(GP, 0);
	}
	/* INVLPG works on the current PCID. */
	u64 old = read_cr3();
	write_cr3(cr3[0] | BIT(63));
	*pte[0] = frame[3] | 3;
	invlpg(VA);
	CHECK_EQ(*(volatile u64 *)VA, 103);
	write_cr3(old);
	/* PCIDE cannot be cleared... it can, and flushes; setting it with CR3[11:0] != 0 is #GP. CR0.PG cannot be cleared with it set. */
	write_cr3((u64)boot_pml4 | 7);
	TRYV("mov %0, %%cr4", "r"(read_cr4() & ~BIT(17)));
	EXPECT_NONE();
	TRYV("mov %0, %%cr4", "r"(read_cr4() | BIT(17)));
	if (!CHECK_MANUAL(exc.vec, GP))
		write_cr4(read_cr4() & ~BIT(17));
	write_cr3((u64)boot_pml4);
	TRYV("mov %0, %%cr3", "r"((u64)boot_pml4 | 0x18));     /* PCD, PWT without PCIDE: just bits */
	EXPECT_NONE();
	CHECK_EQ(read_cr3(), (u64)boot_pml4 | 0x18);
	write_cr3((u64)boot_pml4);
	if (!on_qemu) {
		TRYV("mov %0, %%cr3", "r"((u64)boot_pml4 | BIT(63)));  /* reserved without PCIDE */
		EXPECT_FAULT(GP, 0);
	}
}

/* Global entries: CR4.PGE toggling and INVLPG must drop them; a CR3 write may keep them. */
static void test_global(void)
{
	u64 a = (u64)page_alloc(), b = (u64)page_alloc();
	volatile u64 *pte;

	*(u64 *)a = 1;
	*(u64 *)b = 2;
	map_page(VA + 0x9000, a, PTE_P | PTE_W | PTE_G);
	pte = pte_at(boot_pml4, VA + 0x9000, 1);
	CHECK_EQ(*(volatile u64 *)(VA + 0x9000), 1);
	*pte = b | PTE_P | PTE_W | PTE_G;
	write_cr3(read_cr3());
	u64 v = *(volatile u64 *)(VA + 0x9000);
	CHECK(v == 1 || v == 2);
	write_cr4(read_cr4() & ~BIT(7));
	write_cr4(read_cr4() | BIT(7));
	CHECK_EQ(*(volatile u64 *)(VA + 0x9000), 2);
	*pte = a | PTE_P | PTE_W | PTE_G;
	invlpg(VA + 0x9000);
	CHECK_EQ(*(volatile u64 *)(VA + 0x9000), 1);
	map_page(VA + 0x9000, 0, 0);
}

/* Tables and pages outside of memory: reads of absent memory give ones, writes vanish; a table there must not hurt. */
static void test_outside(void)
{
	static const u64 where[] = { 0x3f00000000ull, 0xff00000000ull - 0x1000, 0x80000000ull, 0xe0000000ull, 0xfffffff000ull };
	u64 va = HIGH_VA + 0x20000000000ull;
	struct regs r;

	for (unsigned i = 0; i < ARRAY_SIZE(where); i++) {
		for (unsigned level = 1; level <= 4; level++) {
			volatile u64 *e = pte_at(boot_pml4, va, level);
			u64 old = *e;

			*e = where[i] | 7;
			invlpg(va);
			do_op(&r, OP_READ, false, va);
			CHECK(r.vec == VEC_DONE || r.vec == PF);
			do_op(&r, OP_WRITE, true, va);
			CHECK(r.vec == VEC_DONE || r.vec == PF);
			if (level > 1) {
				do_op(&r, OP_FETCH, true, va);
				CHECK(r.vec != VEC_DONE);
			}
			*e = old;
			invlpg(va);
		}
	}
}

int main(void)
{
	write_cr0(read_cr0() | BIT(16));
	test_matrix();
	test_upper_levels();
	test_reserved();
	test_crossing();
	test_upgrade();
	test_global();
	test_pcid();
	test_outside();
	return 0;
}
