/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Re-encoding of vector and x87 instructions into stubs the host can run: memory operand -> [rcx], general register -> rAX.
 *
 * Each guest encoding gets one stub of at most 64 bytes:
 *
 *     [mov ah, [rdi+24]; sahf]          only if it reads arithmetic flags (FCMOVcc)
 *     mov rax,[rdi]; mov rcx,[rdi+8]; mov rdx,[rdi+16]
 *     <the instruction>
 *     mov [rdi],rax; mov [rdi+8],rcx; mov [rdi+16],rdx
 *     [pushfq; pop rax; mov [rdi+24],rax]   only if it writes flags
 *     ret
 *
 * Invariant (W^X): the pool is a memfd mapped twice, one mapping writable, the other executable, never both. Stubs are append-only;
 * when the pool is full everything is dropped at once and the processor serialised before a byte is executed again.
 *
 * Locking: none; the vCPU's thread. Spec: SDM vol. 2A 2.1-2.3, 2.7 (EVEX).
 */
#include <Zydis/Mnemonic.h>
#include <Zydis/SharedTypes.h>
#include <errno.h>
#include <sys/mman.h>
#include <unistd.h>

#include "engine/interp/operands.h"

#define NO_OP 0xff

/* --- re-encoding ------------------------------------------------------------------------------------------------ */

static bool legacy_prefix_kept(uint8_t b)
{
	return b == 0x66 || b == 0xf2 || b == 0xf3;
}

static bool legacy_prefix(uint8_t b)
{
	return legacy_prefix_kept(b) || b == 0x2e || b == 0x36 || b == 0x3e || b == 0x26 || b == 0x64 || b == 0x65 || b == 0x67 ||
	       b == 0xf0;
}

/* True if the general register is named by ModRM.reg, false if by ModRM.rm. Writers are in reg (CVTxx2SI, MOVMSKxx, PMOVMSKB,
 * PEXTRW 0F C5) except MOVD/MOVQ 0F 7E and the 0F 3A extracts; readers are in rm. */
static bool gpr_in_reg(const struct insn *in, const struct insn_operand *o)
{
	return o->write && in->map == ZYDIS_OPCODE_MAP_0F && in->opcode != 0x7e;
}

static unsigned put_modrm(const struct insn *in, uint8_t *out, bool mem, bool gpr, bool in_reg)
{
	uint8_t m = in->modrm;

	if (mem)
		m = (m & 0x38) | RCX;
	if (gpr && in_reg)
		m &= (uint8_t)~0x38;
	else if (gpr)
		m &= (uint8_t)~0x07;
	*out = m;
	return 1;
}

static bool stray_rex(const struct insn *in, unsigned i)
{
	return in->mode == INSN_MODE_64 && (in->bytes[i] & 0xf0) == 0x40 && i + in->has_rex < in->prefix_len;
}

/* Outside 64-bit mode VEX.W does not choose the width of a general register or of an integer in memory. */
static bool vex_w_ignored(const struct insn *in, const struct insn_operand *gpr)
{
	switch (in->mnemonic) {
	case ZYDIS_MNEMONIC_VCVTSI2SS: case ZYDIS_MNEMONIC_VCVTSI2SD: case ZYDIS_MNEMONIC_VMOVD: case ZYDIS_MNEMONIC_VPINSRD:
	case ZYDIS_MNEMONIC_VPEXTRD: case ZYDIS_MNEMONIC_VCVTUSI2SS: case ZYDIS_MNEMONIC_VCVTUSI2SD:
		return true;
	default:
		return gpr != NULL;
	}
}

/* 62 P0 P1 P2 opcode (SDM vol. 2A 2.7.1): R, X, B, R', V' and vvvv are inverted, and outside 64-bit mode only registers 0-7 exist. */
static unsigned reencode_evex(const struct insn *in, bool mem, const struct insn_operand *gpr, uint8_t *out)
{
	const uint8_t *p = in->bytes + in->modrm_off - 4;
	bool m64 = in->mode == INSN_MODE_64, in_reg = gpr && gpr_in_reg(in, gpr);
	uint8_t p0 = p[0], p1 = p[1], p2 = p[2];
	unsigned n;

	if (!m64) {
		p0 |= 0xf0;
		p1 |= 0x40;
		p2 |= 0x08;
		if (vex_w_ignored(in, gpr))
			p1 &= 0x7f;
	}
	if (in_reg)
		p0 |= 0x90;
	if (mem || (gpr && !in_reg))
		p0 |= 0x60;
	out[0] = 0x62;
	out[1] = p0;
	out[2] = p1;
	out[3] = p2;
	out[4] = in->opcode;
	n = 5 + put_modrm(in, out + 5, mem, gpr != NULL, in_reg);
	for (unsigned k = 0; k < in->imm_size; k++)
		out[n++] = in->bytes[in->imm_off + k];
	return n;
}

/* Writes the instruction with replaced operands; returns its length. */
static unsigned reencode(const struct insn *in, bool mem, const struct insn_operand *gpr, uint8_t *out)
{
	bool vex = in->encoding == ZYDIS_INSTRUCTION_ENCODING_VEX, m64 = in->mode == INSN_MODE_64;
	bool in_reg = gpr && gpr_in_reg(in, gpr);
	bool clear_b = mem || (gpr && !in_reg), clear_r = gpr && in_reg;
	unsigned i = 0, n = 0, end = in->has_modrm ? in->modrm_off : in->len;

	if (in->encoding == ZYDIS_INSTRUCTION_ENCODING_EVEX)
		return reencode_evex(in, mem, gpr, out);
	/* A REX that is not the last prefix means nothing, but hides none of the prefixes behind it. */
	for (; i < end && (legacy_prefix(in->bytes[i]) || stray_rex(in, i)); i++)
		if (legacy_prefix_kept(in->bytes[i]) && !vex)
			out[n++] = in->bytes[i];
	if (vex) {
		uint8_t b0 = in->bytes[i++], b1 = in->bytes[i++];

		out[n++] = b0;
		if (!m64)
			b1 |= b0 == 0xc5 ? 0xc0 : 0xe0; /* registers 0-7 only */
		if (clear_r)
			b1 |= 0x80;
		if (b0 == 0xc4) {
			if (mem)
				b1 |= 0x60;
			else if (clear_b)
				b1 |= 0x20;
			out[n++] = b1;
			b1 = in->bytes[i++];
			if (!m64 && vex_w_ignored(in, gpr))
				b1 &= 0x7f;
			out[n++] = m64 ? b1 : b1 | 0x40;
		} else {
			out[n++] = m64 ? b1 : b1 | 0x40;
		}
	} else if (in->has_rex) {
		uint8_t rex = in->bytes[i++];

		if (mem)
			rex &= (uint8_t)~2;
		if (clear_b)
			rex &= (uint8_t)~1;
		if (clear_r)
			rex &= (uint8_t)~4;
		out[n++] = rex;
	}
	while (i < end)
		out[n++] = in->bytes[i++];
	if (!in->has_modrm)
		return n;
	n += put_modrm(in, out + n, mem, gpr != NULL, in_reg);
	for (unsigned k = 0; k < in->imm_size; k++)
		out[n++] = in->bytes[in->imm_off + k];
	/* The fourth register of VBLENDV and kin sits in the immediate; its top bit is ignored outside 64-bit mode. */
	if (!m64 && vex && in->map == ZYDIS_OPCODE_MAP_0F3A && in->nops == 4 && in->op[3].kind == OPND_VEC)
		out[n - 1] &= 0x7f;
	return n;
}

/* --- properties ---------------------------------------------------------------------------------------------------- */

/* Legacy SSE with a 16-byte memory operand faults on misalignment, except these; of the SHA group AMD processors execute any
 * alignment, which is also what translated code will see. */
static bool unaligned_legacy(const struct insn *in)
{
	switch (in->mnemonic) {
	case ZYDIS_MNEMONIC_MOVUPS: case ZYDIS_MNEMONIC_MOVUPD: case ZYDIS_MNEMONIC_MOVDQU: case ZYDIS_MNEMONIC_LDDQU:
	case ZYDIS_MNEMONIC_PCMPESTRI: case ZYDIS_MNEMONIC_PCMPESTRM: case ZYDIS_MNEMONIC_PCMPISTRI:
	case ZYDIS_MNEMONIC_PCMPISTRM:
	case ZYDIS_MNEMONIC_SHA1MSG1: case ZYDIS_MNEMONIC_SHA1MSG2: case ZYDIS_MNEMONIC_SHA1NEXTE: case ZYDIS_MNEMONIC_SHA1RNDS4:
	case ZYDIS_MNEMONIC_SHA256MSG1: case ZYDIS_MNEMONIC_SHA256MSG2: case ZYDIS_MNEMONIC_SHA256RNDS2:
		return true;
	default:
		return false;
	}
}

static bool aligned_vex(const struct insn *in)
{
	switch (in->mnemonic) {
	case ZYDIS_MNEMONIC_VMOVAPS: case ZYDIS_MNEMONIC_VMOVAPD: case ZYDIS_MNEMONIC_VMOVDQA: case ZYDIS_MNEMONIC_VMOVNTPS:
	case ZYDIS_MNEMONIC_VMOVNTPD: case ZYDIS_MNEMONIC_VMOVNTDQ: case ZYDIS_MNEMONIC_VMOVNTDQA:
	case ZYDIS_MNEMONIC_VMOVDQA32: case ZYDIS_MNEMONIC_VMOVDQA64:
		return true;
	default:
		return false;
	}
}

/* x87 instructions that do not check for pending exceptions. */
static bool no_wait(const struct insn *in)
{
	switch (in->mnemonic) {
	case ZYDIS_MNEMONIC_FNINIT: case ZYDIS_MNEMONIC_FNCLEX: case ZYDIS_MNEMONIC_FNSTSW: case ZYDIS_MNEMONIC_FNSTCW:
	case ZYDIS_MNEMONIC_FNSTENV: case ZYDIS_MNEMONIC_FNSAVE: case ZYDIS_MNEMONIC_FENI8087_NOP:
	case ZYDIS_MNEMONIC_FDISI8087_NOP: case ZYDIS_MNEMONIC_FSETPM287_NOP:
		return true;
	default:
		return false;
	}
}

static void classify(struct host_insn *h, const struct insn *in)
{
	h->mem_op = h->gpr_op = NO_OP;
	h->mmx = in->mnemonic == ZYDIS_MNEMONIC_EMMS;
	h->sse = in->kind == INSN_VEC;
	for (unsigned i = 0; i < in->nops; i++) {
		const struct insn_operand *o = &in->op[i];

		if (o->kind == OPND_MEM)
			h->mem_op = (uint8_t)i;
		else if (o->kind == OPND_GPR)
			h->gpr_op = (uint8_t)i;
		else if (o->kind == OPND_MMX)
			h->mmx = true;
		else if (o->kind == OPND_VEC)
			h->sse = true;
	}
	h->x87 = in->kind == INSN_X87 && !h->mmx;
	h->avx512 = in->avx512;
	h->avx = in->encoding == ZYDIS_INSTRUCTION_ENCODING_VEX || in->avx512;
	h->nowait = no_wait(in);
	h->align = 0;
	if (h->mem_op != NO_OP && h->sse) {
		unsigned size = in->op[h->mem_op].size;

		if (h->avx ? aligned_vex(in) : size == 16 && !unaligned_legacy(in))
			h->align = (uint8_t)size;
	}
	switch (in->mnemonic) {
	case ZYDIS_MNEMONIC_PCMPESTRI: case ZYDIS_MNEMONIC_PCMPISTRI: case ZYDIS_MNEMONIC_VPCMPESTRI:
	case ZYDIS_MNEMONIC_VPCMPISTRI:
		h->sets_rcx = true;
		break;
	case ZYDIS_MNEMONIC_LDMXCSR: case ZYDIS_MNEMONIC_STMXCSR: case ZYDIS_MNEMONIC_VLDMXCSR: case ZYDIS_MNEMONIC_VSTMXCSR:
		h->mxcsr = true;
		break;
	default:
		break;
	}
}

/* --- stubs ------------------------------------------------------------------------------------------------------------- */

struct emit {
	uint8_t *p;
};

static void put(struct emit *e, const uint8_t *b, unsigned n)
{
	for (unsigned i = 0; i < n; i++)
		*e->p++ = b[i];
}
#define PUT(e, ...) put(e, (const uint8_t[]){__VA_ARGS__}, sizeof((const uint8_t[]){__VA_ARGS__}))

static void emit_stub(uint8_t *at, const uint8_t *code, unsigned len, bool flags_in, bool flags_out)
{
	struct emit e = {at};

	if (flags_in)
		PUT(&e, 0x8a, 0x67, 0x18, 0x9e);       /* mov ah, [rdi+24]; sahf */
	PUT(&e, 0x48, 0x8b, 0x07);                     /* mov rax, [rdi] */
	PUT(&e, 0x48, 0x8b, 0x4f, 0x08);               /* mov rcx, [rdi+8] */
	PUT(&e, 0x48, 0x8b, 0x57, 0x10);               /* mov rdx, [rdi+16] */
	put(&e, code, len);
	PUT(&e, 0x48, 0x89, 0x07);
	PUT(&e, 0x48, 0x89, 0x4f, 0x08);
	PUT(&e, 0x48, 0x89, 0x57, 0x10);
	if (flags_out)
		PUT(&e, 0x9c, 0x58, 0x48, 0x89, 0x47, 0x18); /* pushfq; pop rax; mov [rdi+24], rax */
	PUT(&e, 0xc3);
}

/* vmovdqu64 [rcx], zmmN; vmovdqu64 zmmN, [rcx]; kmovq [rcx], kN; kmovq kN, [rcx]. */
static void emit_fixed512(struct interp *ip)
{
	for (unsigned r = 0; r < 32; r++) {
		uint8_t p0 = (uint8_t)(0x61 | (r & 8 ? 0 : 0x80) | (r & 16 ? 0 : 0x10)), modrm = (uint8_t)((r & 7) << 3 | RCX);
		const uint8_t rd[] = {0x62, p0, 0xfe, 0x48, 0x7f, modrm}, wr[] = {0x62, p0, 0xfe, 0x48, 0x6f, modrm};

		emit_stub(ip->stub_rw + (STUB_ZMM_READ + r) * HOST_STUB_SIZE, rd, sizeof(rd), false, false);
		emit_stub(ip->stub_rw + (STUB_ZMM_WRITE + r) * HOST_STUB_SIZE, wr, sizeof(wr), false, false);
		if (r < 8) {
			const uint8_t krd[] = {0xc4, 0xe1, 0xf8, 0x91, modrm}, kwr[] = {0xc4, 0xe1, 0xf8, 0x90, modrm};

			emit_stub(ip->stub_rw + (STUB_MASK_READ + r) * HOST_STUB_SIZE, krd, sizeof(krd), false, false);
			emit_stub(ip->stub_rw + (STUB_MASK_WRITE + r) * HOST_STUB_SIZE, kwr, sizeof(kwr), false, false);
		}
	}
}

/* The fixed stubs: vmovdqu [rcx], ymmN; vmovdqu xmmN, [rcx]; vmovdqu ymmN, [rcx]; movq [rcx], mmN. */
static void emit_fixed(struct interp *ip)
{
	for (unsigned r = 0; r < 16; r++) {
		uint8_t rbit = r < 8 ? 0x80 : 0, modrm = (uint8_t)(((r & 7) << 3) | RCX);
		const uint8_t rd[] = {0xc5, (uint8_t)(rbit | 0x7e), 0x7f, modrm};
		const uint8_t w16[] = {0xc5, (uint8_t)(rbit | 0x7a), 0x6f, modrm};
		const uint8_t w32[] = {0xc5, (uint8_t)(rbit | 0x7e), 0x6f, modrm};

		emit_stub(ip->stub_rw + (STUB_VEC_READ + r) * HOST_STUB_SIZE, rd, 4, false, false);
		emit_stub(ip->stub_rw + (STUB_VEC_WRITE16 + r) * HOST_STUB_SIZE, w16, 4, false, false);
		emit_stub(ip->stub_rw + (STUB_VEC_WRITE32 + r) * HOST_STUB_SIZE, w32, 4, false, false);
		if (r < 8) {
			const uint8_t mm[] = {0x0f, 0x7f, modrm};

			emit_stub(ip->stub_rw + (STUB_MMX_READ + r) * HOST_STUB_SIZE, mm, 3, false, false);
		}
	}
	emit_fixed512(ip);
	ip->stub_next = STUB_FIXED;
}

/* Code was overwritten through another linear address: serialise (SDM vol. 3A 8.1.3). */
static void serialise(void)
{
	uint32_t a = 0, b, c = 0, d;

	asm volatile("cpuid" : "+a"(a), "=b"(b), "+c"(c), "=d"(d) : : "memory");
}

static uint8_t *stub_alloc(struct interp *ip)
{
	if ((ip->stub_next + 1) * HOST_STUB_SIZE > HOST_STUB_BYTES) {
		for (unsigned i = 0; i < HOST_INSNS; i++)
			ip->host[i].valid = false;
		ip->stub_next = STUB_FIXED;
		ip->stub_generation++;
		serialise();
	}
	return ip->stub_rw + ip->stub_next++ * HOST_STUB_SIZE;
}

static struct host_insn *stub_build(struct interp *ip, struct host_insn *h, const struct insn *in, uint64_t lo, uint64_t hi)
{
	uint8_t code[16 + INSN_MAX_LEN], *at = stub_alloc(ip);
	unsigned len;

	__builtin_memset(h, 0, sizeof(*h));
	h->lo = lo;
	h->hi = hi;
	h->mode = in->mode;
	classify(h, in);
	len = reencode(in, h->mem_op != NO_OP, h->gpr_op != NO_OP ? &in->op[h->gpr_op] : NULL, code);
	emit_stub(at, code, len, (in->flags_read & FL_ARITH) != 0, in->flags_write != 0);
	if (ip->stub_generation)
		serialise();
	h->stub = (host_stub)(uintptr_t)(ip->stub_rx + (at - ip->stub_rw));
	h->valid = true;
	ip->stats.stubs++;
	return h;
}

struct host_insn *host_stub_get(struct interp *ip, const struct insn *in)
{
	struct host_insn *h;
	uint64_t lo, hi, hash;

	__builtin_memcpy(&lo, in->bytes, 8);
	__builtin_memcpy(&hi, in->bytes + 8, 8);
	hash = (lo ^ hi * 0x9e3779b97f4a7c15ull) * 0x9e3779b97f4a7c15ull;
	h = &ip->host[(hash >> 48) % HOST_INSNS];
	if (likely(h->valid && h->lo == lo && h->hi == hi && h->mode == in->mode))
		return h;
	return stub_build(ip, h, in, lo, hi);
}

int host_stubs_init(struct interp *ip)
{
	int fd = memfd_create("doppel-interp-stubs", MFD_CLOEXEC);
	void *rw, *rx;

	if (fd < 0)
		return -errno;
	if (ftruncate(fd, HOST_STUB_BYTES)) {
		close(fd);
		return -ENOMEM;
	}
	rw = mmap(NULL, HOST_STUB_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	rx = mmap(NULL, HOST_STUB_BYTES, PROT_READ | PROT_EXEC, MAP_SHARED, fd, 0);
	close(fd);
	if (rw == MAP_FAILED || rx == MAP_FAILED) {
		if (rw != MAP_FAILED)
			munmap(rw, HOST_STUB_BYTES);
		if (rx != MAP_FAILED)
			munmap(rx, HOST_STUB_BYTES);
		return -ENOMEM;
	}
	ip->stub_rw = rw;
	ip->stub_rx = rx;
	emit_fixed(ip);
	return 0;
}

void host_stubs_fini(struct interp *ip)
{
	munmap(ip->stub_rw, HOST_STUB_BYTES);
	munmap(ip->stub_rx, HOST_STUB_BYTES);
}
