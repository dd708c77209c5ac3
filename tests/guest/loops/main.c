/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Loops over memory, made at random: pointers that walk forward, backward or stand still, indices, side exits, flags carried from one
 * instruction to the next, pages that are absent or read-only in the way. Each program runs twice from one state: at full speed and
 * one instruction at a time (EFLAGS.TF, which a translator leaves to its interpreter). Both must end at the same instruction with the same
 * registers and memory. What a translator derives once and relies on for many instructions is what this looks at.
 * Environments: long64
 */
#include "guest.h"

#define PAGES 16
#define VA (TEST_VA + 0x10000)
#define MAX_STEPS 6000

static u64 rng;
static u64 rnd(void)
{
	rng ^= rng << 13;
	rng ^= rng >> 7;
	rng ^= rng << 17;
	return rng;
}
static unsigned pick(unsigned n) { return (unsigned)((rnd() >> 20) % n); }

enum { RAX, RCX, RDX, RBX, RSP, RBP, RSI, RDI, R8, R9, R10, R11, R12, R13, R14, R15 };
static const u8 bases[] = { RBX, RBP, RSI, RDI, R12, R13, R14, R15 };
static const u8 values[] = { RAX, RDX, R8, R9, R10 };
static u8 base(void) { return bases[pick(ARRAY_SIZE(bases))]; }
static u8 value(void) { return values[pick(ARRAY_SIZE(values))]; }

static u8 *frame[PAGES], *code, *at, *to_exit[32];
static unsigned nexits;
static u8 before[PAGES][4096], after[PAGES][4096];

static void byte(unsigned b) { *at++ = (u8)b; }
static void imm32(u32 v)
{
	for (unsigned i = 0; i < 4; i++)
		byte(v >> (8 * i));
}

/* [prefix] REX opcode ModRM with a register */
static void op_reg(unsigned op, unsigned size, unsigned reg, unsigned rm)
{
	if (size == 2)
		byte(0x66);
	byte(0x40 | (size == 8) << 3 | (reg >> 3) << 2 | rm >> 3);
	if (op > 0xff)
		byte(op >> 8);
	byte(op);
	byte(0xc0 | (reg & 7) << 3 | (rm & 7));
}

/* ... with memory: base + disp, or base + rcx * scale + disp. Few bases and small distances, so that accesses meet. */
static void op_mem(unsigned op, unsigned size, unsigned reg, unsigned b, bool index)
{
	int disp = (int)pick(96) - 32;

	if (pick(4) == 0)
		disp &= ~15;
	if (size == 2)
		byte(0x66);
	byte(0x40 | (size == 8) << 3 | (reg >> 3) << 2 | b >> 3);
	if (op > 0xff)
		byte(op >> 8);
	byte(op);
	if (index || (b & 7) == RSP) {
		byte(0x84 | (reg & 7) << 3);
		byte((index ? pick(4) << 6 | RCX << 3 : RSP << 3) | (b & 7));
	} else {
		byte(0x80 | (reg & 7) << 3 | (b & 7));
	}
	imm32((u32)disp);
}

static void side_exit(void)
{
	if (nexits == ARRAY_SIZE(to_exit))
		return;
	op_reg(0x81, 4, 7, value()); /* cmp v, imm */
	imm32((u32)rnd() & (pick(2) ? 0xffffffff : 0xff));
	byte(0x0f);
	byte(pick(4) ? 0x84 : 0x8c); /* je, jl */
	to_exit[nexits++] = at;
	imm32(0);
}

static void move_pointer(unsigned b)
{
	static const int step[] = { 1, -1, 2, 4, -4, 8, 8, -8, 16, 32, 24, 40, -48, 256, 4096, 1000 };
	int s = step[pick(ARRAY_SIZE(step))];

	switch (pick(4)) {
	case 0: op_reg(0x81, 8, 0, b), imm32((u32)s); break;   /* add */
	case 1: op_reg(0x81, 8, 5, b), imm32((u32)-s); break;  /* sub */
	case 2: op_reg(0xff, 8, s < 0, b); break;              /* inc, dec */
	default:                                               /* lea b, [b+s] */
		byte(0x48 | (b >> 3) << 2 | b >> 3);
		byte(0x8d);
		byte(0x80 | (b & 7) << 3 | (b & 7));
		if ((b & 7) == RSP)
			byte(0x24);
		imm32((u32)s);
	}
}

static void random_insn(unsigned b)
{
	static const u8 sizes[] = { 1, 2, 4, 4, 8, 8, 8 };
	unsigned size = sizes[pick(ARRAY_SIZE(sizes))], w = size > 1, v = value();
	bool index = pick(3) == 0;

	switch (pick(19)) {
	case 0: case 1: op_mem(0x8a | w, size, v, b, index); break;          /* mov v, m */
	case 2: case 3: op_mem(0x88 | w, size, v, b, index); break;          /* mov m, v */
	case 4: op_mem(0x02 | w, size, v, b, index); break;                  /* add v, m */
	case 5: op_mem(0x00 | w, size, v, b, index); break;                  /* add m, v */
	case 6: op_mem(0x12 | w, size, v, b, index); break;                  /* adc v, m */
	case 7: op_mem(0x10 | w, size, v, b, index); break;                  /* adc m, v */
	case 8: op_mem(0x0fb6 | w, 4, v, b, index); break;                   /* movzx */
	case 9: op_mem(0x0f10, 4, pick(4), b, index); break;                 /* movups x, m */
	case 10: op_mem(0x0f11, 4, pick(4), b, index); break;                /* movups m, x */
	case 11: op_mem(pick(2) ? 0x0f28 : 0x0f29, 4, pick(4), b, index); break; /* movaps */
	case 12: op_reg(0x01, 8, v, value()); break;                         /* add v, v */
	case 13: op_reg(0x31, 4, v, value()); break;                         /* xor v, v */
	case 14: op_mem(0x38 | w, size, v, b, index); break;                 /* cmp m, v */
	case 15: op_reg(0x0f90 | pick(16), 1, 0, value()); break;            /* setcc v */
	case 16: op_reg(0x0f40 | pick(16), 8, v, value()); break;            /* cmovcc v, v */
	case 17: op_mem(0x8a | w, size, pick(3) ? v : R13, b, index); break; /* a pointer from memory, now and then */
	default:
		byte(0x40 | v >> 3), byte(0x50 | (v & 7));                   /* push v; pop v' */
		v = value();
		byte(0x40 | v >> 3), byte(0x58 | (v & 7));
	}
}

static void make_program(void)
{
	unsigned n = 2 + pick(9), b1 = base(), b2 = base();
	u8 *head;

	at = code;
	nexits = 0;
	if (pick(3) == 0)
		random_insn(b1);
	head = at;
	for (unsigned i = 0; i < n; i++) {
		random_insn(pick(2) ? b1 : pick(3) ? b2 : base());
		if (pick(10) == 0)
			side_exit();
		if (pick(12) == 0)
			op_reg(0x89, 8, b1, b2 == b1 ? R12 : b2); /* mov b2, b1 */
	}
	if (pick(4))
		move_pointer(b1);
	if (pick(3))
		move_pointer(pick(4) ? b2 : RCX);
	op_reg(0x81, 8, 5, R11), imm32(1); /* sub r11, 1 */
	if (pick(4)) {
		byte(0x0f), byte(0x85);
		imm32((u32)(head - at - 4));
	} else {
		byte(0x0f), byte(0x84);
		to_exit[nexits++] = at;
		imm32(0);
		byte(0xe9);
		imm32((u32)(head - at - 4));
	}
	if (pick(2))
		random_insn(b2);
	for (unsigned i = 0; i < nexits; i++) {
		u32 rel = (u32)(at - to_exit[i] - 4);

		memcpy(to_exit[i], &rel, 4);
	}
	byte(0xcd), byte(0xfe); /* int 0xfe */
}

static void load_memory(void)
{
	static const u64 x[2] = { 0x0123456789abcdef, 0xfedcba9876543210 };

	for (unsigned i = 0; i < PAGES; i++)
		memcpy(frame[i], before[i], 4096);
	asm volatile("movups %0, %%xmm0; movups %0, %%xmm1; movups %0, %%xmm2; movups %0, %%xmm3" : : "m"(x));
}

/* One instruction after the other until something else than a debug trap comes; false if that takes too long. */
static bool run_stepping(struct regs *r)
{
	for (unsigned i = 0; i < MAX_STEPS; i++) {
		r->rflags |= FL_TF;
		run(r);
		if (r->vec != DB)
			return true;
	}
	return false;
}

static void compare(const struct regs *fast, const struct regs *slow, unsigned n)
{
	const u64 *f = &fast->rax, *s = &slow->rax;
	bool same = true;

	for (unsigned i = 0; i < 15; i++)
		same &= f[i] == s[i];
	same &= fast->vec == slow->vec && fast->rip == slow->rip && fast->rsp == slow->rsp;
	if (fast->vec == PF)
		same &= fast->cr2 == slow->cr2 && fast->err == slow->err;
	if (fast->vec == VEC_DONE)
		same &= !((fast->rflags ^ slow->rflags) & (FL_CF | FL_PF | FL_ZF | FL_SF | FL_OF));
	for (unsigned i = 0; i < PAGES; i++)
		same &= !memcmp(frame[i], after[i], 4096);
	if (CHECK(same))
		return;
	printf("program %u: vector %lld at +%llx, stepping %lld at +%llx\n", n, fast->vec, fast->rip - (u64)code, slow->vec, slow->rip - (u64)code);
	for (unsigned i = 0; i < 15; i++)
		printf(" %llx/%llx", f[i], s[i]);
	printf("\nflags %llx/%llx cr2 %llx/%llx code", fast->rflags, slow->rflags, fast->cr2, slow->cr2);
	for (u8 *p = code; p < at; p++)
		printf(" %02x", *p);
	for (unsigned i = 0; i < PAGES; i++)
		for (unsigned k = 0; k < 4096; k++)
			if (frame[i][k] != after[i][k]) {
				printf("\nmemory differs at %x: %02x/%02x", i * 4096 + k, after[i][k], frame[i][k]);
				break;
			}
	printf("\n");
}

static struct regs start(bool user)
{
	struct regs r = { .rip = user ? USER(code) : (u64)code, .cs = user ? UCS : KCS, .ss = user ? UDS : KDS, .rflags = FL_1 };
	u64 *g = &r.rax;

	for (unsigned i = 0; i < 15; i++)
		g[i] = rnd();
	r.rcx = pick(64);
	r.r11 = 1 + pick(pick(4) ? 40 : 300);
	r.rsp = VA + (PAGES - 1) * 4096 + 64 + pick(64) * 8;
	r.rbx = VA + 4096 + pick(14 * 4096);
	r.rbp = VA + 4096 + pick(14 * 4096);
	r.rsi = VA + 4096 + (pick(14 * 4096) & ~7u);
	r.rdi = VA + 4096 + (pick(14 * 4096) & ~15u);
	r.r12 = r.rbx;
	r.r13 = VA + 4096 + (pick(14 * 4096) & ~15u);
	r.r14 = VA + 4096 + (pick(14 * 4096) & ~7u);
	r.r15 = r.rsi + 8;
	return r;
}

static void test_program(unsigned n)
{
	bool user = pick(2);
	unsigned hole = pick(3) ? PAGES : 1 + pick(PAGES - 2);
	u64 hole_flags = pick(2) ? 0 : PTE_P | PTE_U;
	struct regs fast, slow;

	make_program();
	for (unsigned i = 0; i < PAGES; i++)
		map_page(VA + i * 4096, (u64)frame[i], i == hole ? hole_flags : PTE_P | PTE_W | PTE_U);
	for (unsigned i = 0; i < PAGES; i++)
		for (unsigned k = 0; k < 4096; k += 8)
			*(u64 *)(before[i] + k) = pick(8) ? rnd() : VA + pick(PAGES * 4096);
	slow = fast = start(user);
	load_memory();
	if (!run_stepping(&slow))
		return;
	for (unsigned i = 0; i < PAGES; i++)
		memcpy(after[i], frame[i], 4096);
	/* Twice: translated code is made and linked in the first run, and fills the tables. */
	for (unsigned round = 0; round < 2; round++) {
		struct regs r = fast;

		load_memory();
		run(&r);
		compare(&r, &slow, n);
	}
}

/* What is read now and written later is not dirty before it is written. */
SNIP(l_early, "mov (%rsi), %rax; cmp %rax, %rdx; jne 1f; mov %rdx, 8(%rsi); 1: nop");
static void test_dirty(void)
{
	u64 *pte = pte_at(boot_pml4, VA, 1);

	for (unsigned round = 0; round < 3; round++) {
		struct regs r = { .rip = (u64)l_early, .cs = KCS, .ss = KDS, .rsp = (u64)run_stack_top, .rflags = FL_1, .rsi = VA, .rdx = 1 };

		map_page(VA, (u64)frame[0], PTE_P | PTE_W | PTE_U);
		*(u64 *)frame[0] = round == 2;
		run(&r);
		CHECK_EQ(r.vec, VEC_DONE);
		CHECK_EQ(*pte & (PTE_A | PTE_D), round == 2 ? PTE_A | PTE_D : PTE_A);
	}
}

/* The programs' stacks are where they write to. */
static void set_stack(unsigned ist)
{
	for (unsigned v = 0; v < 20; v++)
		idt_ist(v, ist);
	idt_ist(VEC_DONE, ist);
}

int main(void)
{
	code = pages_alloc(1, 1);
	for (unsigned i = 0; i < PAGES; i++)
		frame[(i * 7) % PAGES] = page_alloc();
	asm volatile("fninit");
	set_stack(1);
	/* Hostile builds of the translator (tests/README.md) need a second a program; the first hundred are for them as well. */
	u64 end = rdtsc() + 40000000000ull;
	for (unsigned n = 0; n < 1200 && (n < 100 || rdtsc() < end); n++) {
		rng = 88172645463325252ull + n * 0x9e3779b97f4a7c15ull;
		test_program(n);
	}
	set_stack(0);
	test_dirty();
	return 0;
}
