/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Entry of the prot32 environment: multiboot 1, flat 32-bit segments, paging off. Also the way into real mode and back.
 *
 * Invariant: same API as start64.S; the frame pushed here is struct regs of the 32-bit build. Real-mode code runs from a copy at
 * REAL_CODE below 64 KiB and ends through the interrupt vector table set up by real_run().
 * Spec: Multiboot 0.6.96 3.2, SDM vol. 3A 9.8, 9.9 (mode switching), 20.1 (real mode).
 */
	.set	REAL_BASE, 0x8000	/* copy of real_start .. real_end */
	.set	REAL_STATE, 0x7000	/* struct real_regs */

	.section .multiboot, "a"
	.balign 4
	.long 0x1badb002, 0, -0x1badb002

	.text
	.code32
	.globl _start
_start:
	cli
	cld
	mov	$boot_stack_top, %esp
	mov	%ebx, boot_info
	lgdt	boot_gdtr
	ljmp	$0x08, $1f
1:	mov	$0x10, %eax
	mov	%eax, %ds
	mov	%eax, %es
	mov	%eax, %ss
	xor	%eax, %eax
	mov	%eax, %fs
	mov	%eax, %gs
	mov	%cr4, %eax
	or	$0x600, %eax		/* OSFXSR OSXMMEXCPT */
	mov	%eax, %cr4
	mov	%cr0, %eax
	and	$0x1ffffffb, %eax	/* no EM, caches on, PG off */
	or	$0x22, %eax		/* MP NE */
	mov	%eax, %cr0
	call	boot32
	ud2

	.balign 16
	.globl trap_stubs
trap_stubs:
	.set	vec, 0
	.rept	256
	.balign	16
	.if	!((vec == 8) || (vec >= 10 && vec <= 14) || (vec == 17) || (vec == 21))
	push	$0
	.endif
	push	$vec
	jmp	trap_common
	.set	vec, vec + 1
	.endr

trap_common:
	push	%ds
	push	%es
	push	%fs
	push	%gs
	push	%edi
	push	%esi
	push	%ebp
	push	%ebx
	push	%edx
	push	%ecx
	push	%eax
	mov	$0x10, %eax
	mov	%eax, %ds
	mov	%eax, %es
	cld
	mov	%esp, %ebp
	and	$-16, %esp
	sub	$12, %esp
	push	%ebp
	call	trap_handle
	mov	%ebp, %esp
	pop	%eax
	pop	%ecx
	pop	%edx
	pop	%ebx
	pop	%ebp
	pop	%esi
	pop	%edi
	pop	%gs
	pop	%fs
	pop	%es
	pop	%ds
	add	$8, %esp
	iret

/* void run_enter(struct regs *r). Offsets: eax 0 ecx 4 edx 8 ebx 12 ebp 16 esi 20 edi 24 gs 28 fs 32 es 36 ds 40 vec 44 err 48
 * eip 52 cs 56 eflags 60 esp 64 ss 68 vm_es 72 vm_ds 76 vm_fs 80 vm_gs 84 */
	.globl run_enter, run_iret, run_leave
run_enter:
	mov	4(%esp), %eax
	push	%ebx
	push	%esi
	push	%edi
	push	%ebp
	mov	%esp, run_sp
	testl	$0x20000, 60(%eax)
	jz	1f
	push	84(%eax)
	push	80(%eax)
	push	76(%eax)
	push	72(%eax)
	jmp	2f
1:	testl	$3, 56(%eax)
	jnz	2f
	mov	64(%eax), %esp
	jmp	3f
2:	push	68(%eax)
	push	64(%eax)
3:	push	60(%eax)
	push	56(%eax)
	push	52(%eax)
	push	40(%eax)		/* ds, popped last */
	mov	28(%eax), %gs
	mov	32(%eax), %fs
	mov	36(%eax), %es
	mov	4(%eax), %ecx
	mov	8(%eax), %edx
	mov	12(%eax), %ebx
	mov	16(%eax), %ebp
	mov	20(%eax), %esi
	mov	24(%eax), %edi
	mov	0(%eax), %eax
	pop	%ds
run_iret:
	iret
run_leave:
	mov	$0x10, %eax
	mov	%eax, %ss
	mov	%eax, %ds
	mov	%eax, %es
	mov	run_sp, %esp
	xor	%eax, %eax
	mov	%eax, %fs
	mov	%eax, %gs
	pop	%ebp
	pop	%edi
	pop	%esi
	pop	%ebx
	ret

/* void real_enter(void): state at REAL_STATE (struct real_regs in guest.h), entry point in it. */
	.globl real_enter, real_start, real_end
real_enter:
	pusha
	mov	%esp, run_sp
	sidt	real_idt
	ljmp	$0x18, $REAL_BASE
real_back:				/* 32-bit protected mode again */
	mov	$0x10, %eax
	mov	%eax, %ds
	mov	%eax, %es
	mov	%eax, %ss
	mov	run_sp, %esp
	push	$2			/* DF, NT, IF of the code under test must not reach C */
	popf
	xor	%eax, %eax
	mov	%eax, %fs
	mov	%eax, %gs
	lidt	real_idt
	popa
	ret

	.code16
real_start:
	mov	$0x30, %eax
	mov	%eax, %ds
	mov	%eax, %es
	mov	%eax, %fs
	mov	%eax, %gs
	mov	%eax, %ss
	mov	%cr0, %eax
	and	$~1, %eax
	mov	%eax, %cr0
	ljmp	$0, $(REAL_BASE + 1f - real_start)
1:	xor	%eax, %eax
	mov	%eax, %ds
	mov	%eax, %es
	mov	%eax, %fs
	mov	%eax, %gs
	mov	%eax, %ss
	mov	$0x6ff0, %esp
	lidtl	REAL_BASE + ivt - real_start
	mov	REAL_STATE + 4, %ecx
	mov	REAL_STATE + 8, %edx
	mov	REAL_STATE + 12, %ebx
	mov	REAL_STATE + 16, %ebp
	mov	REAL_STATE + 20, %esi
	mov	REAL_STATE + 24, %edi
	mov	REAL_STATE + 38, %es
	mov	REAL_STATE + 40, %ss
	mov	REAL_STATE + 32, %esp
	pushl	REAL_STATE + 28
	popfl
	mov	REAL_STATE + 0, %eax
	pushw	REAL_STATE + 36
	pop	%ds
	ljmp	*%cs:REAL_STATE + 52	/* ip, cs */

	.balign 8
real_stubs:
	.set	vec, 0
	.rept	256
	.balign	8
	pushw	$vec
	.byte	0xe9			/* jmp rel16: the stubs are 8 bytes each */
	.word	real_trap - . - 2
	.set	vec, vec + 1
	.endr
real_trap:				/* stack: vector, ip, cs, flags */
	mov	%eax, %cs:REAL_STATE + 0
	pop	%ax
	mov	%ax, %cs:REAL_STATE + 46
	pop	%ax
	mov	%ax, %cs:REAL_STATE + 44
	pop	%ax
	mov	%ax, %cs:REAL_STATE + 42
	xor	%eax, %eax
	pop	%ax
	mov	%eax, %cs:REAL_STATE + 28
	mov	%esp, %cs:REAL_STATE + 32
	mov	%ss, %cs:REAL_STATE + 40
	mov	%ds, %cs:REAL_STATE + 36
	mov	%es, %cs:REAL_STATE + 38
	xor	%ax, %ax
	mov	%ax, %ds
	mov	%ecx, REAL_STATE + 4
	mov	%edx, REAL_STATE + 8
	mov	%ebx, REAL_STATE + 12
	mov	%ebp, REAL_STATE + 16
	mov	%esi, REAL_STATE + 20
	mov	%edi, REAL_STATE + 24
	lgdtl	REAL_BASE + gdtr - real_start
	mov	%cr0, %eax
	or	$1, %eax
	mov	%eax, %cr0
	ljmpl	$0x08, $real_back
	.balign 4
ivt:	.word	0x3ff
	.long	0
gdtr:	.word	0xff
	.long	gdt
real_end:
	.code32
	.globl	real_stub_off
	.set	real_stub_off, REAL_BASE + real_stubs - real_start

	.data
	.balign 8
boot_gdtr:
	.word	0xff
	.long	gdt
	.globl gdt
	.balign 16
gdt:	.quad	0
	.quad	0x00cf9b000000ffff	/* 08 kernel code */
	.quad	0x00cf93000000ffff	/* 10 kernel data */
	.quad	0x00009b000000ffff	/* 18 kernel code 16, base 0 */
	.quad	0x00cffb000000ffff	/* 20 user code */
	.quad	0x00cff3000000ffff	/* 28 user data */
	.quad	0x000093000000ffff	/* 30 data 16 */
	.quad	0			/* 38 TSS */
	.fill	24, 8, 0		/* 40 TSS for #DF, 48 .. the test's */

	.bss
	.balign 4096
	.globl boot_stack_top, trap_stack_top, ist_stack_top, run_stack_top, boot_info
	.skip	65536
boot_stack_top:
	.skip	16384
trap_stack_top:
	.skip	8192
ist_stack_top:
	.skip	16384
run_stack_top:
run_sp:	.skip	4
real_idt: .skip	8
boot_info: .skip 4
	.section .note.GNU-stack, "", @progbits
