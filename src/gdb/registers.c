/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The register file as gdb sees it: one table, from which numbers, sizes, the target description and every access come.
 *
 * It is the 64-bit one whatever mode the processor is in, as with other system emulators: gdb cannot change its architecture between two
 * stops. Invariant: a value that would leave the vCPU in a state the architecture cannot reach (reserved MXCSR bits, a non-canonical
 * segment base, a selector without its descriptor) is refused; those that need more than a register to change can only be read.
 * Locking: the vCPU stands still. Spec: "Debugging with GDB" G (target descriptions, i386 features); SDM vol. 1 10.5.1, 13.4 (areas).
 */
#include "gdb/private.h"

#include <stdio.h>
#include <string.h>

#include "cpu/cpu.h"

/* Offsets in the XSAVE area, standard format. */
enum { XA_FCW = 0, XA_FSW = 2, XA_FTW = 4, XA_FOP = 6, XA_MXCSR = 24, XA_ST = 32, XA_XMM = 160, XA_BV = 512, XA_YMM = 576 };
enum { XF_X87 = 1, XF_SSE = 2, XF_AVX = 4 };

/* RFLAGS bits a debugger may change; VM, and what is reserved, are not among them. */
#define RFLAGS_WRITABLE \
	(FL_ARITH | FL_TF | FL_IF | FL_DF | FL_IOPL | FL_NT | FL_RF | FL_AC | FL_ID)

enum reg_kind { R_GPR, R_RIP, R_FLAGS, R_SEL, R_ST, R_X87, R_XMM, R_MXCSR, R_BASE, R_YMMH, R_CTL };
enum x87_word { X87_CW, X87_SW, X87_TW, X87_FISEG, X87_FIOFF, X87_FOSEG, X87_FOOFF, X87_FOP };
enum control { CTL_CR0, CTL_CR2, CTL_CR3, CTL_CR4, CTL_CR8, CTL_EFER, CTL_KERNEL_GS };

struct reg_row {
	const char *name, *type;
	uint16_t bits;
	uint8_t kind, index;
};

static const struct reg_row rows[] = {
	{"rax", "int64", 64, R_GPR, RAX}, {"rbx", "int64", 64, R_GPR, RBX}, {"rcx", "int64", 64, R_GPR, RCX},
	{"rdx", "int64", 64, R_GPR, RDX}, {"rsi", "int64", 64, R_GPR, RSI}, {"rdi", "int64", 64, R_GPR, RDI},
	{"rbp", "data_ptr", 64, R_GPR, RBP}, {"rsp", "data_ptr", 64, R_GPR, RSP}, {"r8", "int64", 64, R_GPR, R8},
	{"r9", "int64", 64, R_GPR, R9}, {"r10", "int64", 64, R_GPR, R10}, {"r11", "int64", 64, R_GPR, R11},
	{"r12", "int64", 64, R_GPR, R12}, {"r13", "int64", 64, R_GPR, R13}, {"r14", "int64", 64, R_GPR, R14},
	{"r15", "int64", 64, R_GPR, R15}, {"rip", "code_ptr", 64, R_RIP, 0}, {"eflags", "i386_eflags", 32, R_FLAGS, 0},
	{"cs", "int32", 32, R_SEL, CS}, {"ss", "int32", 32, R_SEL, SS}, {"ds", "int32", 32, R_SEL, DS},
	{"es", "int32", 32, R_SEL, ES}, {"fs", "int32", 32, R_SEL, FS}, {"gs", "int32", 32, R_SEL, GS},
	{"st0", "i387_ext", 80, R_ST, 0}, {"st1", "i387_ext", 80, R_ST, 1}, {"st2", "i387_ext", 80, R_ST, 2},
	{"st3", "i387_ext", 80, R_ST, 3}, {"st4", "i387_ext", 80, R_ST, 4}, {"st5", "i387_ext", 80, R_ST, 5},
	{"st6", "i387_ext", 80, R_ST, 6}, {"st7", "i387_ext", 80, R_ST, 7}, {"fctrl", "int", 32, R_X87, X87_CW},
	{"fstat", "int", 32, R_X87, X87_SW}, {"ftag", "int", 32, R_X87, X87_TW}, {"fiseg", "int", 32, R_X87, X87_FISEG},
	{"fioff", "int", 32, R_X87, X87_FIOFF}, {"foseg", "int", 32, R_X87, X87_FOSEG}, {"fooff", "int", 32, R_X87, X87_FOOFF},
	{"fop", "int", 32, R_X87, X87_FOP},
	{"xmm0", "vec128", 128, R_XMM, 0}, {"xmm1", "vec128", 128, R_XMM, 1}, {"xmm2", "vec128", 128, R_XMM, 2},
	{"xmm3", "vec128", 128, R_XMM, 3}, {"xmm4", "vec128", 128, R_XMM, 4}, {"xmm5", "vec128", 128, R_XMM, 5},
	{"xmm6", "vec128", 128, R_XMM, 6}, {"xmm7", "vec128", 128, R_XMM, 7}, {"xmm8", "vec128", 128, R_XMM, 8},
	{"xmm9", "vec128", 128, R_XMM, 9}, {"xmm10", "vec128", 128, R_XMM, 10}, {"xmm11", "vec128", 128, R_XMM, 11},
	{"xmm12", "vec128", 128, R_XMM, 12}, {"xmm13", "vec128", 128, R_XMM, 13}, {"xmm14", "vec128", 128, R_XMM, 14},
	{"xmm15", "vec128", 128, R_XMM, 15}, {"mxcsr", "int", 32, R_MXCSR, 0},
	{"fs_base", "int64", 64, R_BASE, FS}, {"gs_base", "int64", 64, R_BASE, GS},
	{"ymm0h", "uint128", 128, R_YMMH, 0}, {"ymm1h", "uint128", 128, R_YMMH, 1}, {"ymm2h", "uint128", 128, R_YMMH, 2},
	{"ymm3h", "uint128", 128, R_YMMH, 3}, {"ymm4h", "uint128", 128, R_YMMH, 4}, {"ymm5h", "uint128", 128, R_YMMH, 5},
	{"ymm6h", "uint128", 128, R_YMMH, 6}, {"ymm7h", "uint128", 128, R_YMMH, 7}, {"ymm8h", "uint128", 128, R_YMMH, 8},
	{"ymm9h", "uint128", 128, R_YMMH, 9}, {"ymm10h", "uint128", 128, R_YMMH, 10}, {"ymm11h", "uint128", 128, R_YMMH, 11},
	{"ymm12h", "uint128", 128, R_YMMH, 12}, {"ymm13h", "uint128", 128, R_YMMH, 13}, {"ymm14h", "uint128", 128, R_YMMH, 14},
	{"ymm15h", "uint128", 128, R_YMMH, 15},
	{"cr0", "int64", 64, R_CTL, CTL_CR0}, {"cr2", "int64", 64, R_CTL, CTL_CR2}, {"cr3", "int64", 64, R_CTL, CTL_CR3},
	{"cr4", "int64", 64, R_CTL, CTL_CR4}, {"cr8", "int64", 64, R_CTL, CTL_CR8}, {"efer", "int64", 64, R_CTL, CTL_EFER},
	{"k_gs_base", "int64", 64, R_CTL, CTL_KERNEL_GS},
};

unsigned gdb_reg_count(void)
{
	return nitems(rows);
}

unsigned gdb_reg_bytes(unsigned n)
{
	return rows[n].bits / 8;
}

/* --- x87 tags ---------------------------------------------------------------------------------------------------------- */

static unsigned get16(const uint8_t *p)
{
	return p[0] | (unsigned)p[1] << 8;
}

/* SDM vol. 1 8.1.7: what a register that is not empty holds. */
static unsigned tag_of(const uint8_t *st)
{
	unsigned exp = get16(st + 8) & 0x7fff;
	uint64_t frac;

	memcpy(&frac, st, 8);
	if (exp == 0 && frac == 0)
		return 1;                                /* zero */
	return exp != 0 && exp != 0x7fff && frac >> 63 ? 0 : 2;  /* valid; special */
}

/* The area keeps a bit a register, empty or not; gdb wants the two of FNSTENV. Tags go by physical register, the area's values by ST(i). */
static unsigned tags_full(const uint8_t *area)
{
	unsigned top = get16(area + XA_FSW) >> 11 & 7, tags = 0;

	for (unsigned i = 0; i < 8; i++) {
		unsigned tag = area[XA_FTW] >> i & 1 ? tag_of(area + XA_ST + 16 * ((i - top) & 7)) : 3;

		tags |= tag << (2 * i);
	}
	return tags;
}

static uint8_t tags_short(unsigned tags)
{
	uint8_t bits = 0;

	for (unsigned i = 0; i < 8; i++)
		bits |= (uint8_t)((tags >> (2 * i) & 3) != 3) << i;
	return bits;
}

static uint64_t x87_read(const uint8_t *area, enum x87_word word)
{
	switch (word) {
	case X87_CW:
		return get16(area + XA_FCW);
	case X87_SW:
		return get16(area + XA_FSW);
	case X87_TW:
		return tags_full(area);
	default:
		return 0; /* the pointers in the area are the host's */
	}
}

static bool x87_write(uint8_t *area, enum x87_word word, uint64_t val)
{
	if (word > X87_TW)
		return val == 0;
	if (val > UINT16_MAX)
		return false;
	if (word == X87_TW) {
		area[XA_FTW] = tags_short((unsigned)val);
	} else {
		/* Bit 6 of the control word is always set. */
		unsigned w = (unsigned)val | (word == X87_CW ? 0x40 : 0);

		area[word == X87_CW ? XA_FCW : XA_FSW] = (uint8_t)w;
		area[(word == X87_CW ? XA_FCW : XA_FSW) + 1] = (uint8_t)(w >> 8);
	}
	return true;
}

/* --- access -------------------------------------------------------------------------------------------------------------- */

static uint64_t control_read(struct vcpu *v, enum control ctl)
{
	switch (ctl) {
	case CTL_CR0:
		return v->cr0;
	case CTL_CR2:
		return v->cr2;
	case CTL_CR3:
		return v->cr3;
	case CTL_CR4:
		return v->cr4;
	case CTL_CR8:
		return v->ops->cr8(v->vm, v->index, false, 0);
	case CTL_EFER:
		return v->efer;
	case CTL_KERNEL_GS:
		return v->msr_kernel_gs_base;
	}
	return 0;
}

/* Registers of up to 64 bits. */
static uint64_t scalar_read(struct vcpu *v, const struct reg_row *r)
{
	uint32_t mxcsr;

	switch ((enum reg_kind)r->kind) {
	case R_GPR:
		return v->gpr[r->index];
	case R_RIP:
		return v->rip;
	case R_FLAGS:
		return v->rflags;
	case R_SEL:
		return v->seg[r->index].sel;
	case R_X87:
		return x87_read(v->fpu.area, (enum x87_word)r->index);
	case R_MXCSR:
		memcpy(&mxcsr, v->fpu.area + XA_MXCSR, 4);
		return mxcsr;
	case R_BASE:
		return v->seg[r->index].base;
	case R_CTL:
		return control_read(v, (enum control)r->index);
	default:
		return 0;
	}
}

/* Where a wide register lies, and the state component it belongs to. */
static uint8_t *wide(struct vcpu *v, const struct reg_row *r, unsigned *component)
{
	switch ((enum reg_kind)r->kind) {
	case R_ST:
		*component = XF_X87;
		return v->fpu.area + XA_ST + 16 * r->index;
	case R_XMM:
		*component = XF_SSE;
		return v->fpu.area + XA_XMM + 16 * r->index;
	case R_YMMH:
		*component = XF_AVX;
		return v->fpu.area + XA_YMM + 16 * r->index;
	default:
		return NULL;
	}
}

/* A component not in use holds its initial values in the area (cpu/fpu.c), so marking it is enough. */
static void mark_used(struct vcpu *v, unsigned component)
{
	v->fpu.area[XA_BV] |= (uint8_t)component;
}

void gdb_reg_read(struct vcpu *v, unsigned n, uint8_t *val)
{
	const struct reg_row *r = &rows[n];
	unsigned component;
	const uint8_t *p = wide(v, r, &component);
	uint64_t x;

	if (p) {
		memcpy(val, p, r->bits / 8);
		return;
	}
	x = scalar_read(v, r);
	memcpy(val, &x, r->bits / 8);
}

static bool flags_write(struct vcpu *v, uint64_t val)
{
	uint64_t old = v->rflags;

	if ((val ^ old) & ~(uint64_t)RFLAGS_WRITABLE & UINT32_MAX)
		return false;
	v->rflags = (old & ~(uint64_t)RFLAGS_WRITABLE) | (val & RFLAGS_WRITABLE);
	if ((v->rflags & FL_IF) && !(old & FL_IF))
		cpu_irq_window(v);
	return true;
}

static bool scalar_write(struct vcpu *v, const struct reg_row *r, uint64_t val)
{
	uint32_t mxcsr = (uint32_t)val;

	switch ((enum reg_kind)r->kind) {
	case R_GPR:
		v->gpr[r->index] = val;
		return true;
	case R_RIP:
		v->rip = val; /* if it makes no sense the fetch faults */
		return true;
	case R_FLAGS:
		return flags_write(v, val);
	case R_X87:
		if (!x87_write(v->fpu.area, (enum x87_word)r->index, val))
			return false;
		mark_used(v, XF_X87);
		return true;
	case R_MXCSR:
		if (mxcsr & ~v->mxcsr_mask)
			return false;
		memcpy(v->fpu.area + XA_MXCSR, &mxcsr, 4);
		mark_used(v, XF_SSE);
		return true;
	case R_BASE:
		if (v->efer & EFER_LMA ? !x86_canonical(val) : val > UINT32_MAX)
			return false;
		v->seg[r->index].base = val;
		return true;
	default:
		return false;
	}
}

bool gdb_reg_write(struct vcpu *v, unsigned n, const uint8_t *val)
{
	const struct reg_row *r = &rows[n];
	unsigned component;
	uint8_t *p = wide(v, r, &component);
	uint8_t now[GDB_REG_BYTES_MAX];
	uint64_t x = 0;

	gdb_reg_read(v, n, now);
	if (!memcmp(now, val, r->bits / 8))
		return true;
	if (p) {
		memcpy(p, val, r->bits / 8);
		mark_used(v, component);
		return true;
	}
	memcpy(&x, val, r->bits / 8);
	return scalar_write(v, r, x);
}

/* --- description ----------------------------------------------------------------------------------------------------------- */

static const char types_core[] =
	"<flags id=\"i386_eflags\" size=\"4\">"
	"<field name=\"\" start=\"22\" end=\"31\"/><field name=\"ID\" start=\"21\" end=\"21\"/>"
	"<field name=\"VIP\" start=\"20\" end=\"20\"/><field name=\"VIF\" start=\"19\" end=\"19\"/>"
	"<field name=\"AC\" start=\"18\" end=\"18\"/><field name=\"VM\" start=\"17\" end=\"17\"/>"
	"<field name=\"RF\" start=\"16\" end=\"16\"/><field name=\"NT\" start=\"14\" end=\"14\"/>"
	"<field name=\"IOPL\" start=\"12\" end=\"13\"/><field name=\"OF\" start=\"11\" end=\"11\"/>"
	"<field name=\"DF\" start=\"10\" end=\"10\"/><field name=\"IF\" start=\"9\" end=\"9\"/>"
	"<field name=\"TF\" start=\"8\" end=\"8\"/><field name=\"SF\" start=\"7\" end=\"7\"/>"
	"<field name=\"ZF\" start=\"6\" end=\"6\"/><field name=\"AF\" start=\"4\" end=\"4\"/>"
	"<field name=\"PF\" start=\"2\" end=\"2\"/><field name=\"\" start=\"1\" end=\"1\"/>"
	"<field name=\"CF\" start=\"0\" end=\"0\"/></flags>";

static const char types_sse[] =
	"<vector id=\"v4f\" type=\"ieee_single\" count=\"4\"/><vector id=\"v2d\" type=\"ieee_double\" count=\"2\"/>"
	"<vector id=\"v16i8\" type=\"int8\" count=\"16\"/><vector id=\"v8i16\" type=\"int16\" count=\"8\"/>"
	"<vector id=\"v4i32\" type=\"int32\" count=\"4\"/><vector id=\"v2i64\" type=\"int64\" count=\"2\"/>"
	"<union id=\"vec128\"><field name=\"v4_float\" type=\"v4f\"/><field name=\"v2_double\" type=\"v2d\"/>"
	"<field name=\"v16_int8\" type=\"v16i8\"/><field name=\"v8_int16\" type=\"v8i16\"/>"
	"<field name=\"v4_int32\" type=\"v4i32\"/><field name=\"v2_int64\" type=\"v2i64\"/>"
	"<field name=\"uint128\" type=\"uint128\"/></union>";

/* Features in the order of the rows: each begins at the first row of its kind. */
static const struct {
	const char *name, *types;
	uint8_t first;
} features[] = {
	{"org.gnu.gdb.i386.core", types_core, R_GPR},
	{"org.gnu.gdb.i386.sse", types_sse, R_XMM},
	{"org.gnu.gdb.i386.segments", "", R_BASE},
	{"org.gnu.gdb.i386.avx", "", R_YMMH},
	{"org.doppel.control", "", R_CTL}, /* gdb shows what it does not know */
};

static void add(char *xml, size_t size, size_t *len, const char *text)
{
	size_t n = strlen(text);

	if (n < size - *len) {
		memcpy(xml + *len, text, n + 1);
		*len += n;
	}
}

size_t gdb_reg_describe(char *xml, size_t size)
{
	size_t len = 0, next = 0;
	char line[128];

	add(xml, size, &len,
	    "<?xml version=\"1.0\"?><!DOCTYPE target SYSTEM \"gdb-target.dtd\"><target version=\"1.0\">"
	    "<architecture>i386:x86-64</architecture>");
	for (size_t i = 0; i < nitems(rows); i++) {
		const struct reg_row *r = &rows[i];

		if (next < nitems(features) && r->kind == features[next].first) {
			snprintf(line, sizeof(line), "%s<feature name=\"%s\">", next ? "</feature>" : "", features[next].name);
			add(xml, size, &len, line);
			add(xml, size, &len, features[next].types);
			next++;
		}
		snprintf(line, sizeof(line), "<reg name=\"%s\" bitsize=\"%u\" type=\"%s\"/>", r->name, r->bits, r->type);
		add(xml, size, &len, line);
	}
	add(xml, size, &len, "</feature></target>");
	return len;
}
