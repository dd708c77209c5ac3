/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Where application processors of the long64 environment start: real mode -> 64-bit mode -> ap_main() in smp.c.
 *
 * The first part is copied to a page below 1 MiB, which the start-up message names; it must not refer to its own address.
 * Spec: SDM vol. 3A 8.4.4 (start-up), 9.8.5 (switching to IA-32e mode).
 */
	.text
	.code16
	.globl ap_trampoline, ap_trampoline_end
ap_trampoline:
	cli
	cld
	mov	%cs, %ax
	mov	%ax, %ds
	lgdtl	ap_gdtr - ap_trampoline
	mov	%cr0, %eax
	or	$1, %eax
	mov	%eax, %cr0
	ljmpl	$0x18, $ap32
	.balign 8
ap_gdtr:
	.word	0x3f
	.long	gdt
ap_trampoline_end:

	.code32
ap32:	mov	$0x10, %eax
	mov	%eax, %ds
	mov	%eax, %es
	mov	%eax, %ss
	mov	$0x6a0, %eax		/* PAE PGE OSFXSR OSXMMEXCPT */
	mov	%eax, %cr4
	mov	$boot_pml4, %eax
	mov	%eax, %cr3
	mov	$0xc0000080, %ecx
	rdmsr
	or	$0x901, %eax		/* SCE LME NXE */
	wrmsr
	mov	%cr0, %eax
	and	$0x9ffffffb, %eax
	or	$0x80010022, %eax	/* PG WP NE MP */
	mov	%eax, %cr0
	ljmp	$0x08, $ap64
	.code64
ap64:	xor	%eax, %eax
	mov	%eax, %fs
	mov	%eax, %gs
	mov	$1, %edi
	lock xadd %edi, ap_started	/* a number of its own, and with it a stack */
	cmp	$16, %edi
	jae	1f
	mov	%edi, %eax
	inc	%eax
	shl	$14, %eax
	lea	ap_stacks(%rax), %rsp
	call	ap_main
1:	cli
	hlt
	jmp	1b

	.data
	.globl ap_started
	.balign 4
ap_started:
	.long	1			/* 0 is the boot processor */

	.bss
	.balign 4096
ap_stacks:
	.skip	16 * 16384
	.section .note.GNU-stack, "", @progbits
