/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Runtime of the guests in tests/guest: they assert inside and report through the debug-exit port.
 *
 * A guest is `int main(void)` or rather void main(void) full of CHECKs; returning ends the test. Passed: 0 is written to
 * port 0xf4 (exit status 1). Failed: 1 (status 3). Unexpected exception: 2 (status 5).
 *
 * The central tool is run(): it starts a piece of code with a complete register state at any privilege and mode, and whatever
 * vector comes first (exception, interrupt without a handler, INT n, SYSCALL) ends it and leaves the state in the same struct.
 * Invariant: the runtime uses no vector registers, no FS/GS and no SWAPGS, so a test owns them.
 * One CPU, no locks.
 */
#ifndef GUEST_H
#define GUEST_H

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef uint8_t u8;
typedef uint16_t u16;
typedef uint32_t u32;
typedef unsigned long long u64;
typedef unsigned long ul;

#define BIT(n) (1ull << (n))
#define ARRAY_SIZE(a) (sizeof(a) / sizeof((a)[0]))
#define noinline __attribute__((noinline))
#define barrier() asm volatile("" ::: "memory")

/* --- report.c ---------------------------------------------------------------------------------------------------- */
void printf(const char *fmt, ...) __attribute__((format(printf, 1, 2)));   /* %s %c %d %u %x %lx %llx, width and 0 */
void guest_exit(u32 code) __attribute__((noreturn));
bool check_true(bool ok, const char *func, int line, const char *what);
bool check_same(u64 got, u64 want, bool manual, const char *func, int line, const char *what);
void *memcpy(void *d, const void *s, size_t n);
void *memset(void *d, int c, size_t n);
int memcmp(const void *a, const void *b, size_t n);
extern bool on_qemu;     /* CPUID says TCG: deviations from the manual are only noted */
extern const char *check_context;     /* printed with a failure: which row of a table; NULL = none */
#define CHECK(c) check_true(c, __func__, __LINE__, #c)
#define CHECK_EQ(got, want) check_same((u64)(got), (u64)(want), false, __func__, __LINE__, #got " == " #want)
/* The manuals are clear and QEMU TCG is known to differ: a failure there is a note, everywhere else it counts. */
#define CHECK_MANUAL(got, want) check_same((u64)(got), (u64)(want), true, __func__, __LINE__, #got " == " #want)

/* --- trap.c: exceptions, run() ------------------------------------------------------------------------------------- */
enum { DE = 0, DB = 1, NMI = 2, BP = 3, OF = 4, BR = 5, UD = 6, NM = 7, DF = 8, TS = 10, NP = 11, SS_ = 12, GP = 13, PF = 14,
       MF = 16, AC = 17, MC = 18, XM = 19,
       VEC_DONE = 0xfe /* INT 0xfe, DPL 3: normal end of a snippet */,
       VEC_SYSCALL = 0x100, VEC_SYSCALL32 = 0x101, VEC_SYSENTER = 0x102, VEC_NONE = 0xffff };
enum { PF_P = 1, PF_W = 2, PF_U = 4, PF_RSVD = 8, PF_I = 16 };
enum { FL_CF = 1, FL_1 = 2, FL_PF = 4, FL_AF = 0x10, FL_ZF = 0x40, FL_SF = 0x80, FL_TF = 0x100, FL_IF = 0x200, FL_DF = 0x400,
       FL_OF = 0x800, FL_IOPL = 0x3000, FL_NT = 0x4000, FL_RF = 0x10000, FL_VM = 0x20000, FL_AC = 0x40000, FL_ID = 0x200000 };

#ifdef __x86_64__
struct regs {
	u64 rax, rcx, rdx, rbx, rbp, rsi, rdi, r8, r9, r10, r11, r12, r13, r14, r15;
	u64 vec, err, rip, cs, rflags, rsp, ss;
	u64 cr2, dr6;            /* sampled at the trap, not loaded */
};
#else
struct regs {
	u32 eax, ecx, edx, ebx, ebp, esi, edi;
	u32 gs, fs, es, ds;
	u32 vec, err, eip, cs, eflags, esp, ss;
	u32 vm_es, vm_ds, vm_fs, vm_gs;        /* loaded and stored with EFLAGS.VM only */
	u32 cr2, dr6;
};
#endif
void run(struct regs *r);
extern char run_iret[];         /* RIP reported if the IRET of run() itself faults */
typedef void irq_fn(struct regs *frame);
extern irq_fn *irq_handler[256];

/* TRY(insn): inline assembly that survives one exception: afterwards exc.vec is VEC_NONE or what was caught, execution goes on
 * behind it. exc_insn and exc_next are the addresses of the instruction and of what follows. */
struct exc { ul vec, err, rip, cs, flags, sp, ss, cr2, dr6, count; };
extern struct exc exc;
extern ul exc_fixup, exc_insn, exc_next;
#ifdef __x86_64__
#define TRY(insn) "movq $0xffff, exc\n\tmovq $9f, exc_fixup\n\tmovq $9f, exc_next\n\tmovq $8f, exc_insn\n8:\t" insn "\n9:\tmovq $0, exc_fixup\n\t"
#else
#define TRY(insn) "movl $0xffff, exc\n\tmovl $9f, exc_fixup\n\tmovl $9f, exc_next\n\tmovl $8f, exc_insn\n8:\t" insn "\n9:\tmovl $0, exc_fixup\n\t"
#endif
#define TRYV(insn, ...) asm volatile(TRY(insn) : : __VA_ARGS__ : "memory", "cc")
/* The exception TRY must have caught. FAULT: RIP is the instruction; TRAP: the next one. _MANUAL: see CHECK_MANUAL. */
enum { EXPECT_IS_TRAP = 1, EXPECT_IS_MANUAL = 2 };
bool expect_exc(unsigned vec, ul err, unsigned how, const char *func, int line);
#define EXPECT_NONE() CHECK_EQ(exc.vec, VEC_NONE)
#define EXPECT_FAULT(v, e) expect_exc(v, e, 0, __func__, __LINE__)
#define EXPECT_TRAP(v) expect_exc(v, 0, EXPECT_IS_TRAP, __func__, __LINE__)
#define EXPECT_FAULT_MANUAL(v, e) expect_exc(v, e, EXPECT_IS_MANUAL, __func__, __LINE__)
#define EXPECT_TRAP_MANUAL(v) expect_exc(v, 0, EXPECT_IS_MANUAL | EXPECT_IS_TRAP, __func__, __LINE__)

/* SNIP(name, code): a piece of assembly named `name` .. `name_end`; position independent, so USER(name) runs too. */
#define SNIP(name, code) \
	extern u8 name[], name##_end[]; \
	asm(".pushsection .text.snip, \"ax\"\n\t.balign 16\n\t.globl " #name ", " #name "_end\n" #name ":\n\t" code "\n" #name "_end:\n\tint $0xfe\n\t.popsection")

/* --- descriptors ---------------------------------------------------------------------------------------------------- */
enum { KCS = 0x08, KDS = 0x10, KCS32 = 0x18, UCS32 = 0x23, UDS = 0x2b, UCS = sizeof(ul) == 8 ? 0x33 : UCS32, TSS_SEL = 0x38, FREE_SEL = 0x48 };
extern u64 gdt[32];
void gdt_set(unsigned sel, u64 desc);
/* flat 4 GiB descriptor with access byte (P DPL S type) and flags nibble (G D L AVL). */
u64 seg_desc(u32 base, u32 limit20, u8 access, u8 flags);
void idt_gate(unsigned vec, void *handler, unsigned sel, unsigned type_attr, unsigned ist);   /* raw gate */
void idt_default(unsigned vec);
void idt_dpl(unsigned vec, unsigned dpl);
void idt_ist(unsigned vec, unsigned ist);
void idt_present(unsigned vec, bool present);
void idt_load(u16 limit);
#define IDT_FULL_LIMIT (sizeof(ul) == 8 ? 0xfff : 0x7ff)
extern u8 trap_stubs[];
#ifdef __x86_64__
struct tss { u32 r0; u64 rsp[3]; u64 r1; u64 ist[7]; u64 r2; u16 r3, iomap; u8 bitmap[8193]; } __attribute__((packed));
enum { TRAP_STUB_SIZE = 16 };
#else
struct tss { u16 link, p0; u32 esp0; u16 ss0, p1; u32 esp1; u16 ss1, p2; u32 esp2; u16 ss2, p3; u32 cr3, eip, eflags, eax, ecx, edx, ebx,
	esp, ebp, esi, edi; u16 es, p4, cs, p5, ss, p6, ds, p7, fs, p8, gs, p9, ldt, p10, trap, iomap; u8 bitmap[8193]; } __attribute__((packed));
enum { TRAP_STUB_SIZE = 16 };
#endif
extern struct tss tss;
extern u8 boot_stack_top[], trap_stack_top[], ist_stack_top[], run_stack_top[], image_end[];
extern u8 syscall_entry[], syscall32_entry[], sysenter_entry[];
extern u32 boot_info[];

#ifndef __x86_64__
/* Real mode: runs `len` bytes of 16-bit code copied to 0000:a000 (or what cs:ip says if ip is not 0) until the first interrupt or
 * exception; VEC_DONE = ran to the end. flags and ip are what was pushed. */
struct real_regs {
	u32 eax, ecx, edx, ebx, ebp, esi, edi, eflags, esp;
	u16 ds, es, ss, cs, ip, vec;
	u16 pad[2], entry_ip, entry_cs;
} __attribute__((packed));
_Static_assert(offsetof(struct real_regs, entry_ip) == 52, "start32.S knows the layout");
void real_run(struct real_regs *r, const void *code, size_t len);
#define SNIP16(name, code) \
	extern u8 name[], name##_end[]; \
	asm(".pushsection .text.snip, \"ax\"\n\t.code16\n\t.globl " #name ", " #name "_end\n" #name ":\n\t" code "\n" #name "_end:\n\t.code32\n\t.popsection")
#endif

/* --- paging.c -------------------------------------------------------------------------------------------------------- */
enum { PTE_P = 1, PTE_W = 2, PTE_U = 4, PTE_PWT = 8, PTE_PCD = 16, PTE_A = 32, PTE_D = 64, PTE_PS = 128, PTE_G = 256 };
#define PTE_NX BIT(63)
void *page_alloc(void);                   /* zeroed 4 KiB; never freed */
void *pages_alloc(unsigned n, unsigned align_pages);
#ifdef __x86_64__
#define USER_OFF 0x40000000ull
#define USER(p) ((u64)(p) + USER_OFF)
#define TEST_VA 0x80000000ull             /* 1 GiB that nothing uses */
#define HIGH_VA 0xffff900000000000ull     /* nothing here either */
extern u64 boot_pml4[512];
/* Pointer to the entry that maps va at `level` (1 = 4K, 2 = 2M, 3 = 1G, 4 = PML4E), creating tables with P|W|U above it. */
u64 *pte_at(u64 *pml4, u64 va, unsigned level);
void map_page(u64 va, u64 pa, u64 flags);     /* 4 KiB in boot_pml4, with INVLPG */
#endif

/* --- platform.c: PIC, PIT, LAPIC -------------------------------------------------------------------------------------- */
void pic_init(u8 base0, u8 base1);            /* ICW1-4, everything masked */
void pic_mask(u16 mask);
void pic_eoi(unsigned irq);
void pit_set(unsigned channel, unsigned mode, u16 count);
u16 pit_read(unsigned channel);
enum { APIC_ID = 0x20, APIC_VER = 0x30, APIC_TPR = 0x80, APIC_PPR = 0xa0, APIC_EOI = 0xb0, APIC_LDR = 0xd0, APIC_DFR = 0xe0,
       APIC_SVR = 0xf0, APIC_ISR = 0x100, APIC_TMR = 0x180, APIC_IRR = 0x200, APIC_ESR = 0x280, APIC_ICR = 0x300, APIC_ICR2 = 0x310,
       APIC_LVTT = 0x320, APIC_LVT0 = 0x350, APIC_LVT1 = 0x360, APIC_LVTERR = 0x370, APIC_TMICT = 0x380, APIC_TMCCT = 0x390, APIC_TDCR = 0x3e0 };
#define APIC_BASE_VA 0xfee00000u
static inline u32 apic_read(unsigned reg) { return *(volatile u32 *)(ul)(APIC_BASE_VA + reg); }
static inline void apic_write(unsigned reg, u32 v) { *(volatile u32 *)(ul)(APIC_BASE_VA + reg) = v; }
void apic_enable(u8 spurious);
u64 tsc_hz(void);                             /* calibrated against PIT channel 2 once */

/* --- instructions ------------------------------------------------------------------------------------------------------ */
static inline void outb(u16 p, u8 v) { asm volatile("outb %0, %1" : : "a"(v), "Nd"(p)); }
static inline void outw(u16 p, u16 v) { asm volatile("outw %0, %1" : : "a"(v), "Nd"(p)); }
static inline void outl(u16 p, u32 v) { asm volatile("outl %0, %1" : : "a"(v), "Nd"(p)); }
static inline u8 inb(u16 p) { u8 v; asm volatile("inb %1, %0" : "=a"(v) : "Nd"(p)); return v; }
static inline u16 inw(u16 p) { u16 v; asm volatile("inw %1, %0" : "=a"(v) : "Nd"(p)); return v; }
static inline u32 inl(u16 p) { u32 v; asm volatile("inl %1, %0" : "=a"(v) : "Nd"(p)); return v; }
static inline u64 rdmsr(u32 m) { u32 a, d; asm volatile("rdmsr" : "=a"(a), "=d"(d) : "c"(m)); return a | (u64)d << 32; }
static inline void wrmsr(u32 m, u64 v) { asm volatile("wrmsr" : : "a"((u32)v), "d"((u32)(v >> 32)), "c"(m) : "memory"); }
/* Vector caught, or VEC_NONE. */
static inline unsigned rdmsr_safe(u32 m, u64 *v)
{
	u32 a = 0, d = 0;
	asm volatile(TRY("rdmsr") : "+a"(a), "+d"(d) : "c"(m) : "memory");
	*v = a | (u64)d << 32;
	return exc.vec;
}
static inline unsigned wrmsr_safe(u32 m, u64 v)
{
	asm volatile(TRY("wrmsr") : : "a"((u32)v), "d"((u32)(v >> 32)), "c"(m) : "memory");
	return exc.vec;
}
static inline u64 rdtsc(void) { u32 a, d; asm volatile("rdtsc" : "=a"(a), "=d"(d)); return a | (u64)d << 32; }
static inline void cpuid(u32 leaf, u32 sub, u32 o[4])
{
	asm volatile("cpuid" : "=a"(o[0]), "=b"(o[1]), "=c"(o[2]), "=d"(o[3]) : "a"(leaf), "c"(sub));
}
#define RW_CR(n) \
	static inline ul read_cr##n(void) { ul v; asm volatile("mov %%cr" #n ", %0" : "=r"(v)); return v; } \
	static inline void write_cr##n(ul v) { asm volatile("mov %0, %%cr" #n : : "r"(v) : "memory"); }
RW_CR(0)
RW_CR(2)
RW_CR(3)
RW_CR(4)
#define RW_DR(n) \
	static inline ul read_dr##n(void) { ul v; asm volatile("mov %%dr" #n ", %0" : "=r"(v)); return v; } \
	static inline void write_dr##n(ul v) { asm volatile("mov %0, %%dr" #n : : "r"(v) : "memory"); }
RW_DR(0)
RW_DR(1)
RW_DR(2)
RW_DR(3)
RW_DR(6)
RW_DR(7)
static inline void invlpg(ul va) { asm volatile("invlpg (%0)" : : "r"(va) : "memory"); }
static inline void cli(void) { asm volatile("cli" ::: "memory"); }
static inline void sti(void) { asm volatile("sti" ::: "memory"); }
static inline void pause(void) { asm volatile("pause" ::: "memory"); }
#ifdef __x86_64__
static inline ul read_flags(void) { ul v; asm volatile("pushfq; popq %0" : "=r"(v)); return v; }
static inline void write_flags(ul v) { asm volatile("pushq %0; popfq" : : "r"(v) : "cc", "memory"); }
#else
static inline ul read_flags(void) { ul v; asm volatile("pushfl; popl %0" : "=r"(v)); return v; }
static inline void write_flags(ul v) { asm volatile("pushl %0; popfl" : : "r"(v) : "cc", "memory"); }
#endif
bool cpu_has(u32 leaf, unsigned reg /* 0 a 1 b 2 c 3 d */, unsigned bit);

int main(void);

#endif
