/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Decoding, with Zydis inside. Pure: on one host the same bytes and mode always give the same struct insn.
 *
 * Invariant: what insn_decode() accepts is what the CPU model has (x86-64-v3 or -v4 and the system instructions of cpu/); anything
 * else is -EILSEQ, so neither engine can execute an instruction that CPUID hides.
 */
#include "x86/insn.h"

#include <Zydis/Zydis.h>
#include <errno.h>
#include <string.h>

/* Which instruction sets exist in the model, and who executes them: 0 = undefined here, else 1 + enum insn_kind. */
static const uint8_t isa_kind[ZYDIS_ISA_SET_MAX_VALUE + 1] = {
#define K_INT (1 + INSN_INT)
#define K_X87 (1 + INSN_X87)
#define K_VEC (1 + INSN_VEC)
	[ZYDIS_ISA_SET_I86] = K_INT, [ZYDIS_ISA_SET_I186] = K_INT, [ZYDIS_ISA_SET_I286PROTECTED] = K_INT,
	[ZYDIS_ISA_SET_I286REAL] = K_INT, [ZYDIS_ISA_SET_I386] = K_INT, [ZYDIS_ISA_SET_I486] = K_INT,
	[ZYDIS_ISA_SET_I486REAL] = K_INT, [ZYDIS_ISA_SET_PENTIUMREAL] = K_INT, [ZYDIS_ISA_SET_PPRO] = K_INT,
	[ZYDIS_ISA_SET_CMOV] = K_INT, [ZYDIS_ISA_SET_FAT_NOP] = K_INT, [ZYDIS_ISA_SET_PREFETCH_NOP] = K_INT,
	[ZYDIS_ISA_SET_LONGMODE] = K_INT, [ZYDIS_ISA_SET_AMD] = K_INT, [ZYDIS_ISA_SET_PAUSE] = K_INT,
	[ZYDIS_ISA_SET_CLFSH] = K_INT, [ZYDIS_ISA_SET_CLFLUSHOPT] = K_INT, [ZYDIS_ISA_SET_CLWB] = K_INT,
	[ZYDIS_ISA_SET_CMPXCHG16B] = K_INT, [ZYDIS_ISA_SET_LAHF] = K_INT, [ZYDIS_ISA_SET_RDPMC] = K_INT,
	[ZYDIS_ISA_SET_RDTSCP] = K_INT, [ZYDIS_ISA_SET_RDPID] = K_INT, [ZYDIS_ISA_SET_RDRAND] = K_INT,
	[ZYDIS_ISA_SET_RDSEED] = K_INT, [ZYDIS_ISA_SET_RDWRFSGS] = K_INT, [ZYDIS_ISA_SET_INVPCID] = K_INT,
	[ZYDIS_ISA_SET_MOVBE] = K_INT, [ZYDIS_ISA_SET_POPCNT] = K_INT, [ZYDIS_ISA_SET_LZCNT] = K_INT,
	[ZYDIS_ISA_SET_BMI1] = K_INT, [ZYDIS_ISA_SET_BMI2] = K_INT, [ZYDIS_ISA_SET_ADOX_ADCX] = K_INT,
	[ZYDIS_ISA_SET_SSE_PREFETCH] = K_INT, [ZYDIS_ISA_SET_FXSAVE] = K_INT, [ZYDIS_ISA_SET_FXSAVE64] = K_INT,
	[ZYDIS_ISA_SET_XSAVE] = K_INT, [ZYDIS_ISA_SET_XSAVEOPT] = K_INT, [ZYDIS_ISA_SET_XSAVEC] = K_INT,
	[ZYDIS_ISA_SET_X87] = K_X87, [ZYDIS_ISA_SET_FCMOV] = K_X87, [ZYDIS_ISA_SET_SSE3X87] = K_X87,
	[ZYDIS_ISA_SET_PENTIUMMMX] = K_X87, [ZYDIS_ISA_SET_SSE2MMX] = K_X87, [ZYDIS_ISA_SET_SSSE3MMX] = K_X87,
	[ZYDIS_ISA_SET_SSE] = K_VEC, [ZYDIS_ISA_SET_SSEMXCSR] = K_VEC, [ZYDIS_ISA_SET_SSE2] = K_VEC,
	[ZYDIS_ISA_SET_SSE3] = K_VEC, [ZYDIS_ISA_SET_SSSE3] = K_VEC, [ZYDIS_ISA_SET_SSE4] = K_VEC,
	[ZYDIS_ISA_SET_SSE42] = K_VEC, [ZYDIS_ISA_SET_AES] = K_VEC, [ZYDIS_ISA_SET_PCLMULQDQ] = K_VEC,
	[ZYDIS_ISA_SET_SHA] = K_VEC, [ZYDIS_ISA_SET_AVX] = K_VEC, [ZYDIS_ISA_SET_AVXAES] = K_VEC,
	[ZYDIS_ISA_SET_AVX2] = K_VEC, [ZYDIS_ISA_SET_AVX2GATHER] = K_VEC, [ZYDIS_ISA_SET_FMA] = K_VEC,
	[ZYDIS_ISA_SET_F16C] = K_VEC, [ZYDIS_ISA_SET_GFNI] = K_VEC, [ZYDIS_ISA_SET_AVX_GFNI] = K_VEC,
	[ZYDIS_ISA_SET_VAES] = K_VEC, [ZYDIS_ISA_SET_VPCLMULQDQ] = K_VEC,
#define K_512(ext) [ZYDIS_ISA_SET_AVX512##ext##_128] = K_VEC, [ZYDIS_ISA_SET_AVX512##ext##_256] = K_VEC, \
		   [ZYDIS_ISA_SET_AVX512##ext##_512] = K_VEC
	K_512(F), K_512(CD), K_512(BW), K_512(DQ), K_512(_IFMA), K_512(_VBMI), K_512(_VBMI2), K_512(_VNNI), K_512(_BITALG),
	K_512(_VPOPCNTDQ), K_512(_GFNI), K_512(_VAES), K_512(_VPCLMULQDQ),
	[ZYDIS_ISA_SET_AVX512F_128N] = K_VEC, [ZYDIS_ISA_SET_AVX512F_SCALAR] = K_VEC, [ZYDIS_ISA_SET_AVX512F_KOP] = K_VEC,
	[ZYDIS_ISA_SET_AVX512BW_128N] = K_VEC, [ZYDIS_ISA_SET_AVX512BW_KOP] = K_VEC,
	[ZYDIS_ISA_SET_AVX512DQ_128N] = K_VEC, [ZYDIS_ISA_SET_AVX512DQ_SCALAR] = K_VEC, [ZYDIS_ISA_SET_AVX512DQ_KOP] = K_VEC,
};

/* Members of vector instruction sets that only touch integer state or memory order. */
static bool int_exception(ZydisMnemonic m)
{
	switch (m) {
	case ZYDIS_MNEMONIC_SFENCE: case ZYDIS_MNEMONIC_LFENCE: case ZYDIS_MNEMONIC_MFENCE: case ZYDIS_MNEMONIC_MOVNTI:
	case ZYDIS_MNEMONIC_CRC32: case ZYDIS_MNEMONIC_POPCNT: case ZYDIS_MNEMONIC_PAUSE: case ZYDIS_MNEMONIC_CLFLUSH:
	case ZYDIS_MNEMONIC_PREFETCHNTA: case ZYDIS_MNEMONIC_PREFETCHT0: case ZYDIS_MNEMONIC_PREFETCHT1:
	case ZYDIS_MNEMONIC_PREFETCHT2: case ZYDIS_MNEMONIC_PREFETCHW: case ZYDIS_MNEMONIC_PREFETCH:
		return true;
	default:
		return false;
	}
}

bool insn_avx512(void)
{
#ifdef __SANITIZE_ADDRESS__
	/* The sanitizer's runtime calls libc's string functions in code that takes care not to (tools/check-nofpu), while the guest's registers
	 * are live; where libc finds AVX-512 those use ZMM16-31. */
	return false;
#endif
	return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512cd") && __builtin_cpu_supports("avx512bw") &&
	       __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
}

static bool is_avx512(const ZydisDecodedInstruction *z)
{
	return z->encoding == ZYDIS_INSTRUCTION_ENCODING_EVEX || z->meta.isa_set == ZYDIS_ISA_SET_AVX512F_KOP ||
	       z->meta.isa_set == ZYDIS_ISA_SET_AVX512BW_KOP || z->meta.isa_set == ZYDIS_ISA_SET_AVX512DQ_KOP;
}

/* Beyond x86-64-v3 the model has what the host has (cpu/cpuid.c shows the same): executed without, it would be the host's #UD. */
static bool host_has(const ZydisDecodedInstruction *z)
{
#define SETS_512(ext) \
	case ZYDIS_ISA_SET_AVX512_##ext##_128: case ZYDIS_ISA_SET_AVX512_##ext##_256: case ZYDIS_ISA_SET_AVX512_##ext##_512
	if (is_avx512(z) && !insn_avx512())
		return false;
	if (z->mnemonic == ZYDIS_MNEMONIC_VPCLMULQDQ && z->meta.isa_set != ZYDIS_ISA_SET_VPCLMULQDQ && !is_avx512(z))
		return __builtin_cpu_supports("pclmul");
	switch (z->meta.isa_set) {
	SETS_512(IFMA): return __builtin_cpu_supports("avx512ifma");
	SETS_512(VBMI): return __builtin_cpu_supports("avx512vbmi");
	SETS_512(VBMI2): return __builtin_cpu_supports("avx512vbmi2");
	SETS_512(VNNI): return __builtin_cpu_supports("avx512vnni");
	SETS_512(BITALG): return __builtin_cpu_supports("avx512bitalg");
	SETS_512(VPOPCNTDQ): return __builtin_cpu_supports("avx512vpopcntdq");
	SETS_512(GFNI): case ZYDIS_ISA_SET_GFNI: case ZYDIS_ISA_SET_AVX_GFNI: return __builtin_cpu_supports("gfni");
	SETS_512(VAES): case ZYDIS_ISA_SET_VAES: return __builtin_cpu_supports("vaes");
	SETS_512(VPCLMULQDQ): case ZYDIS_ISA_SET_VPCLMULQDQ: return __builtin_cpu_supports("vpclmulqdq");
	case ZYDIS_ISA_SET_AES: case ZYDIS_ISA_SET_AVXAES: return __builtin_cpu_supports("aes");
	case ZYDIS_ISA_SET_PCLMULQDQ: return __builtin_cpu_supports("pclmul");
	case ZYDIS_ISA_SET_SHA: return __builtin_cpu_supports("sha");
	case ZYDIS_ISA_SET_ADOX_ADCX: return __builtin_cpu_supports("adx");
	case ZYDIS_ISA_SET_RDRAND: return __builtin_cpu_supports("rdrnd");
	case ZYDIS_ISA_SET_RDSEED: return __builtin_cpu_supports("rdseed");
	case ZYDIS_ISA_SET_MOVBE: return __builtin_cpu_supports("movbe");
	case ZYDIS_ISA_SET_F16C: return __builtin_cpu_supports("f16c");
	case ZYDIS_ISA_SET_FMA: return __builtin_cpu_supports("fma");
	default: return true;
	}
}

static int kind_of(const ZydisDecodedInstruction *z)
{
	if (!host_has(z))
		return -1;
	if (z->encoding != ZYDIS_INSTRUCTION_ENCODING_LEGACY && z->encoding != ZYDIS_INSTRUCTION_ENCODING_VEX &&
	    z->encoding != ZYDIS_INSTRUCTION_ENCODING_EVEX)
		return z->mnemonic == ZYDIS_MNEMONIC_PREFETCHW || z->mnemonic == ZYDIS_MNEMONIC_PREFETCH ? INSN_INT : -1;
	/* Of Knights Corner, where it had a VEX encoding. */
	if (z->mnemonic == ZYDIS_MNEMONIC_POPCNT && z->encoding == ZYDIS_INSTRUCTION_ENCODING_VEX)
		return -1;
	/* Hypercalls are all that there is of VMX and SVM. */
	if (z->mnemonic == ZYDIS_MNEMONIC_VMCALL || z->mnemonic == ZYDIS_MNEMONIC_VMMCALL)
		return INSN_INT;
	if (int_exception(z->mnemonic))
		return INSN_INT;
	/* Zydis files FISTTP under SSE3 and FCOMI under PPRO; whatever the escape opcodes encode is x87 here. */
	if (z->opcode_map == ZYDIS_OPCODE_MAP_DEFAULT && z->opcode >= 0xd8 && z->opcode <= 0xdf)
		return INSN_X87;
	return (int)isa_kind[z->meta.isa_set] - 1;
}

static void set_reg(struct insn_operand *o, ZydisRegister r)
{
	ZydisRegisterClass cls = ZydisRegisterGetClass(r);
	int id = ZydisRegisterGetId(r);

	o->reg = (uint8_t)id;
	switch (cls) {
	case ZYDIS_REGCLASS_GPR8:
		o->kind = OPND_GPR;
		if (r >= ZYDIS_REGISTER_AH && r <= ZYDIS_REGISTER_BH) {
			o->high8 = true;
			o->reg = (uint8_t)(r - ZYDIS_REGISTER_AH);
		} else if (r >= ZYDIS_REGISTER_SPL) {
			o->reg = (uint8_t)(r - ZYDIS_REGISTER_SPL + RSP);
		} else {
			o->reg = (uint8_t)(r - ZYDIS_REGISTER_AL);
		}
		break;
	case ZYDIS_REGCLASS_GPR16: case ZYDIS_REGCLASS_GPR32: case ZYDIS_REGCLASS_GPR64:
		o->kind = OPND_GPR;
		break;
	case ZYDIS_REGCLASS_SEGMENT: o->kind = OPND_SEG; break;
	case ZYDIS_REGCLASS_CONTROL: o->kind = OPND_CR; break;
	case ZYDIS_REGCLASS_DEBUG: o->kind = OPND_DR; break;
	case ZYDIS_REGCLASS_MMX: o->kind = OPND_MMX; break;
	case ZYDIS_REGCLASS_X87: o->kind = OPND_X87; break;
	case ZYDIS_REGCLASS_XMM: case ZYDIS_REGCLASS_YMM: case ZYDIS_REGCLASS_ZMM: o->kind = OPND_VEC; break;
	case ZYDIS_REGCLASS_MASK: o->kind = OPND_MASK; break;
	default: o->kind = OPND_NONE; break;
	}
}

static uint8_t gpr_id(ZydisRegister r)
{
	return r == ZYDIS_REGISTER_NONE ? INSN_NO_REG : (uint8_t)ZydisRegisterGetId(r);
}

static void set_mem(struct insn *in, const ZydisDecodedOperandMem *m)
{
	in->mem.seg = (uint8_t)ZydisRegisterGetId(m->segment);
	in->mem.base = INSN_NO_REG;
	in->mem.index = gpr_id(m->index);
	in->mem.scale = m->index == ZYDIS_REGISTER_NONE ? 1 : m->scale;
	in->mem.disp = m->disp.has_displacement ? m->disp.value : 0;
	if (m->base == ZYDIS_REGISTER_RIP || m->base == ZYDIS_REGISTER_EIP)
		in->rip_relative = true;
	else
		in->mem.base = gpr_id(m->base);
	in->has_vsib = m->type == ZYDIS_MEMOP_TYPE_VSIB;
}

static uint8_t operand_enc(ZydisOperandEncoding e)
{
	switch (e) {
	case ZYDIS_OPERAND_ENCODING_MODRM_REG: return ENC_REG;
	case ZYDIS_OPERAND_ENCODING_MODRM_RM: return ENC_RM;
	case ZYDIS_OPERAND_ENCODING_OPCODE: return ENC_OPCODE;
	case ZYDIS_OPERAND_ENCODING_NDSNDD: return ENC_VVVV;
	case ZYDIS_OPERAND_ENCODING_IS4: return ENC_IS4;
	case ZYDIS_OPERAND_ENCODING_NONE: return ENC_NONE;
	default: return ENC_IMM;
	}
}

/* Zydis does not say that these move their pointers (SDM vol. 2A CMPS, INS; 2B OUTS, SCAS). */
static uint16_t moved_pointers(const ZydisDecodedInstruction *z)
{
	switch (z->mnemonic) {
	case ZYDIS_MNEMONIC_CMPSB: case ZYDIS_MNEMONIC_CMPSW: case ZYDIS_MNEMONIC_CMPSD: case ZYDIS_MNEMONIC_CMPSQ:
		/* CMPSD of SSE2 is in another map. */
		return z->opcode_map == ZYDIS_OPCODE_MAP_DEFAULT ? BIT(RSI) | BIT(RDI) : 0;
	case ZYDIS_MNEMONIC_SCASB: case ZYDIS_MNEMONIC_SCASW: case ZYDIS_MNEMONIC_SCASD: case ZYDIS_MNEMONIC_SCASQ:
	case ZYDIS_MNEMONIC_INSB: case ZYDIS_MNEMONIC_INSW: case ZYDIS_MNEMONIC_INSD:
		return BIT(RDI);
	case ZYDIS_MNEMONIC_OUTSB: case ZYDIS_MNEMONIC_OUTSW: case ZYDIS_MNEMONIC_OUTSD:
		return BIT(RSI);
	default:
		return 0;
	}
}

/* What Zydis 4.0 reads differently from the processor (found by tests/insn). */
static void fix_up(struct insn *in, const ZydisDecodedInstruction *z)
{
	/* SIB base 101b with mod 00b means no base and a 32-bit displacement, whatever REX.B says. */
	if ((z->attributes & ZYDIS_ATTRIB_HAS_SIB) && z->raw.modrm.mod == 0 && (z->raw.sib.base & 7) == 5) {
		in->mem.base = INSN_NO_REG;
		in->mem.disp = z->raw.disp.value;
	}
	/* VPTEST, VTESTPS, VTESTPD clear OF, SF, AF and PF as PTEST does. */
	if (z->mnemonic == ZYDIS_MNEMONIC_VPTEST || z->mnemonic == ZYDIS_MNEMONIC_VTESTPS || z->mnemonic == ZYDIS_MNEMONIC_VTESTPD)
		in->flags_write = FL_ARITH;
	in->gpr_write |= moved_pointers(z);
	/* F3 90 with REX.B is XCHG r8, rAX, not PAUSE. */
	if (z->mnemonic == ZYDIS_MNEMONIC_PAUSE && (in->rex & 1)) {
		const struct insn_operand rax = {
			.kind = OPND_GPR, .reg = RAX, .size = (uint8_t)(in->rex & 8 ? 8 : in->opsize), .read = true, .write = true,
		};

		in->mnemonic = ZYDIS_MNEMONIC_XCHG;
		in->opsize = rax.size;
		in->nops = 2;
		in->op[0] = in->op[1] = rax;
		in->op[0].reg = R8;
		in->op[0].enc = ENC_OPCODE;
		in->gpr_write = BIT(R8) | BIT(RAX);
	}
}

static void set_operands(struct insn *in, const ZydisDecodedInstruction *z, const ZydisDecodedOperand *ops)
{
	unsigned nimm = 0;

	for (unsigned i = z->operand_count_visible; i < z->operand_count; i++)
		in->hidden_mem |= ops[i].type == ZYDIS_OPERAND_TYPE_MEMORY;
	for (unsigned i = 0; i < z->operand_count_visible && in->nops < INSN_MAX_OPERANDS; i++) {
		struct insn_operand *o = &in->op[in->nops];
		unsigned bytes = ops[i].size / 8;

		if (ops[i].encoding == ZYDIS_OPERAND_ENCODING_MASK) {
			in->mask = (uint8_t)ZydisRegisterGetId(ops[i].reg.value);
			continue;
		}
		in->nops++;

		o->size = bytes > 255 ? 255 : (uint8_t)bytes;
		o->enc = operand_enc(ops[i].encoding);
		o->read = (ops[i].actions & ZYDIS_OPERAND_ACTION_MASK_READ) != 0;
		o->write = (ops[i].actions & ZYDIS_OPERAND_ACTION_MASK_WRITE) != 0;
		switch (ops[i].type) {
		case ZYDIS_OPERAND_TYPE_REGISTER:
			set_reg(o, ops[i].reg.value);
			break;
		case ZYDIS_OPERAND_TYPE_MEMORY:
			o->kind = OPND_MEM;
			set_mem(in, &ops[i].mem);
			break;
		case ZYDIS_OPERAND_TYPE_POINTER:
			o->kind = OPND_FAR;
			in->far_sel = ops[i].ptr.segment;
			in->imm[0] = ops[i].ptr.offset;
			break;
		case ZYDIS_OPERAND_TYPE_IMMEDIATE:
			o->kind = ops[i].imm.is_relative ? OPND_REL : OPND_IMM;
			o->reg = (uint8_t)(nimm < 2 ? nimm : 1);
			in->imm[o->reg] = ops[i].imm.value.u;
			nimm++;
			break;
		default:
			break;
		}
	}
}

/* Do elements that are not selected cause no fault (SDM vol. 2A 2.8, table 2-43 and those of the classes)? */
static bool suppresses_faults(const ZydisDecodedInstruction *z)
{
	switch (z->meta.exception_class) {
	case ZYDIS_EXCEPTION_CLASS_E1: case ZYDIS_EXCEPTION_CLASS_E2: case ZYDIS_EXCEPTION_CLASS_E3: case ZYDIS_EXCEPTION_CLASS_E4:
	case ZYDIS_EXCEPTION_CLASS_E5: case ZYDIS_EXCEPTION_CLASS_E6: case ZYDIS_EXCEPTION_CLASS_E10: case ZYDIS_EXCEPTION_CLASS_E11:
		return true;
	default:
		return false;
	}
}

/* An element of the result may need other elements of memory than its own: all are read. */
static bool reads_across(ZydisMnemonic m)
{
	return m == ZYDIS_MNEMONIC_VDBPSADBW || m == ZYDIS_MNEMONIC_VGF2P8AFFINEQB || m == ZYDIS_MNEMONIC_VGF2P8AFFINEINVQB;
}

/* Bit i of the mask stands for element i of the longest elements there are; a source of fewer elements is repeated (broadcast). */
static void set_selection(struct insn *in, const ZydisDecodedInstruction *z, const ZydisDecodedOperand *ops)
{
	const ZydisDecodedOperand *mem = NULL;
	unsigned longest = 1, bytes, n;
	bool write;

	for (unsigned i = 0; i < z->operand_count_visible; i++) {
		if (ops[i].type == ZYDIS_OPERAND_TYPE_MEMORY)
			mem = &ops[i];
		if ((ops[i].type == ZYDIS_OPERAND_TYPE_MEMORY ||
		     (ops[i].type == ZYDIS_OPERAND_TYPE_REGISTER && ops[i].encoding != ZYDIS_OPERAND_ENCODING_MASK)) &&
		    ops[i].element_size / 8 > longest && ops[i].element_size <= 64)
			longest = ops[i].element_size / 8;
	}
	if (!mem || !in->mask || reads_across(z->mnemonic))
		return;
	if (z->mnemonic == ZYDIS_MNEMONIC_VPSHUFBITQMB) /* bytes of memory choose bits of quadwords */
		longest = 1;
	/* What is not selected is not written, whatever the class. */
	write = mem->actions & ZYDIS_OPERAND_ACTION_MASK_WRITE;
	in->whole_faults = !suppresses_faults(z);
	if (!write && in->whole_faults)
		return;
	bytes = mem->size / 8;
	n = z->meta.isa_set == ZYDIS_ISA_SET_AVX512F_SCALAR || z->meta.isa_set == ZYDIS_ISA_SET_AVX512DQ_SCALAR ? 1 : in->vl / longest;
	if (write && mem->element_count < n)
		n = mem->element_count;
	in->selected = (uint8_t)n;
	in->element = (uint8_t)(longest == 1 ? 1 : bytes / (mem->element_count < n ? mem->element_count : n));
}

static bool packs(ZydisMnemonic m)
{
	switch (m) {
	case ZYDIS_MNEMONIC_VCOMPRESSPS: case ZYDIS_MNEMONIC_VCOMPRESSPD: case ZYDIS_MNEMONIC_VPCOMPRESSB: case ZYDIS_MNEMONIC_VPCOMPRESSW:
	case ZYDIS_MNEMONIC_VPCOMPRESSD: case ZYDIS_MNEMONIC_VPCOMPRESSQ: case ZYDIS_MNEMONIC_VEXPANDPS: case ZYDIS_MNEMONIC_VEXPANDPD:
	case ZYDIS_MNEMONIC_VPEXPANDB: case ZYDIS_MNEMONIC_VPEXPANDW: case ZYDIS_MNEMONIC_VPEXPANDD: case ZYDIS_MNEMONIC_VPEXPANDQ:
		return true;
	default:
		return false;
	}
}

/* Registers written by any operand, named or implied (MUL, CMPXCHG, strings, PUSH). */
static uint16_t gpr_written(const ZydisDecodedInstruction *z, const ZydisDecodedOperand *ops)
{
	uint16_t mask = 0;

	for (unsigned i = 0; i < z->operand_count; i++) {
		struct insn_operand o = {0};

		if (ops[i].type != ZYDIS_OPERAND_TYPE_REGISTER || !(ops[i].actions & ZYDIS_OPERAND_ACTION_MASK_WRITE))
			continue;
		set_reg(&o, ops[i].reg.value);
		if (o.kind == OPND_GPR)
			mask |= (uint16_t)BIT(o.reg);
	}
	return mask;
}

static uint8_t segment_override(ZydisInstructionAttributes a)
{
	if (a & ZYDIS_ATTRIB_HAS_SEGMENT_CS) return CS;
	if (a & ZYDIS_ATTRIB_HAS_SEGMENT_SS) return SS;
	if (a & ZYDIS_ATTRIB_HAS_SEGMENT_ES) return ES;
	if (a & ZYDIS_ATTRIB_HAS_SEGMENT_FS) return FS;
	if (a & ZYDIS_ATTRIB_HAS_SEGMENT_GS) return GS;
	return DS;
}

static void set_encoding(struct insn *in, const ZydisDecodedInstruction *z)
{
	in->has_modrm = (z->attributes & ZYDIS_ATTRIB_HAS_MODRM) != 0;
	if (in->has_modrm) {
		in->modrm_off = z->raw.modrm.offset;
		in->modrm = in->bytes[in->modrm_off];
	}
	in->imm_size = (uint8_t)((z->raw.imm[0].size + z->raw.imm[1].size) / 8);
	in->imm_off = z->raw.imm[0].size ? z->raw.imm[0].offset : 0;
	in->prefix_len = z->raw.prefix_count;
	in->has_rex = (z->attributes & ZYDIS_ATTRIB_HAS_REX) != 0;
	if (in->has_rex)
		in->rex = in->bytes[z->raw.rex.offset];
	in->lock = (z->attributes & ZYDIS_ATTRIB_HAS_LOCK) != 0;
	in->rep = (z->attributes & (ZYDIS_ATTRIB_HAS_REP | ZYDIS_ATTRIB_HAS_REPE)) != 0;
	in->repne = (z->attributes & ZYDIS_ATTRIB_HAS_REPNE) != 0;
}

static void set_flags(struct insn *in, const ZydisAccessedFlags *f)
{
	const uint32_t keep = FL_ARITH | FL_DF;

	if (!f)
		return;
	in->flags_read = (uint16_t)(f->tested & keep);
	in->flags_undef = (uint16_t)(f->undefined & keep);
	in->flags_write = (uint16_t)((f->modified | f->set_0 | f->set_1 | f->undefined) & keep);
}

/* Hidden features decode as the NOPs they are on a CPU without them: no MPX, CET, CLDEMOTE, WBNOINVD. The rest is as ZydisDecoderInit()
 * leaves it. */
#define DECODER(machine, width)                                                                                        \
	{                                                                                                              \
		.machine_mode = ZYDIS_MACHINE_MODE_##machine, .stack_width = ZYDIS_STACK_WIDTH_##width,                \
		.decoder_mode = {[ZYDIS_DECODER_MODE_LZCNT] = ZYAN_TRUE, [ZYDIS_DECODER_MODE_TZCNT] = ZYAN_TRUE},      \
	}
static const ZydisDecoder decoders[] = {
	[INSN_MODE_64] = DECODER(LONG_64, 64),
	[INSN_MODE_32] = DECODER(LEGACY_32, 32),
	[INSN_MODE_16] = DECODER(LEGACY_16, 16),
	[INSN_MODE_REAL] = DECODER(REAL_16, 16),
};

int insn_decode(struct insn *in, enum insn_mode mode, const uint8_t *code, size_t avail)
{
	ZydisDecodedInstruction z;
	ZydisDecodedOperand ops[ZYDIS_MAX_OPERAND_COUNT];
	ZyanStatus st;
	int kind;

	st = ZydisDecoderDecodeFull(&decoders[mode], code, avail, &z, ops);
	if (st == ZYDIS_STATUS_NO_MORE_DATA)
		return -ENODATA;
	if (st == ZYDIS_STATUS_INSTRUCTION_TOO_LONG)
		return -ENODATA;
	if (!ZYAN_SUCCESS(st))
		return -EILSEQ;
	kind = kind_of(&z);
	if (kind < 0)
		return -EILSEQ;

	memset(in, 0, sizeof(*in));
	memcpy(in->bytes, code, z.length);
	in->mnemonic = (uint16_t)z.mnemonic;
	in->len = z.length;
	in->mode = (uint8_t)mode;
	in->kind = (uint8_t)kind;
	in->opsize = (uint8_t)(z.operand_width / 8);
	in->addrsize = (uint8_t)(z.address_width / 8);
	in->stacksize = (uint8_t)(z.stack_width / 8);
	in->map = (uint8_t)z.opcode_map;
	in->opcode = z.opcode;
	in->encoding = (uint8_t)z.encoding;
	in->category = (uint8_t)z.meta.category;
	in->privileged = (z.attributes & ZYDIS_ATTRIB_IS_PRIVILEGED) != 0;
	in->mem.seg = segment_override(z.attributes);
	in->mem.base = in->mem.index = INSN_NO_REG;
	in->mem.scale = 1;
	set_encoding(in, &z);
	set_operands(in, &z, ops);
	if (z.encoding == ZYDIS_INSTRUCTION_ENCODING_VEX || z.encoding == ZYDIS_INSTRUCTION_ENCODING_EVEX)
		in->vl = (uint8_t)(z.avx.vector_length / 8);
	in->avx512 = is_avx512(&z);
	in->packed = packs(z.mnemonic);
	set_selection(in, &z, ops);
	in->gpr_write = gpr_written(&z, ops);
	set_flags(in, z.cpu_flags);
	fix_up(in, &z);
	return 0;
}

const char *insn_name(unsigned mnemonic)
{
	const char *name = mnemonic <= ZYDIS_MNEMONIC_MAX_VALUE ? ZydisMnemonicGetString((ZydisMnemonic)mnemonic) : NULL;

	return name ? name : "?";
}

const char *insn_format(const struct insn *in, gva_t rip, char *buf, size_t size)
{
	ZydisFormatter f;
	ZydisDecodedInstruction z;
	ZydisDecodedOperand ops[ZYDIS_MAX_OPERAND_COUNT];

	ZydisFormatterInit(&f, ZYDIS_FORMATTER_STYLE_INTEL);
	if (!ZYAN_SUCCESS(ZydisDecoderDecodeFull(&decoders[in->mode], in->bytes, in->len, &z, ops)) ||
	    !ZYAN_SUCCESS(ZydisFormatterFormatInstruction(&f, &z, ops, z.operand_count_visible, buf, size, rip,
							  ZYAN_NULL)))
		buf[0] = '\0';
	return buf;
}
