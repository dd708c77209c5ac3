/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Runs one instruction on the host: loads every register from host_in, jumps to the code page, and is entered again through host_exit0
 * (fell through) or host_exit1 (branched), which store every register to host_out. No register is free on the way out: all
 * addresses are RIP-relative.
 */
	.text
	.globl host_enter, host_exit0, host_exit1
	.type host_enter, @function
host_enter:
	push %rbx
	push %rbp
	push %r12
	push %r13
	push %r14
	push %r15
	mov %rsp, saved_rsp(%rip)
	mov host_components(%rip), %eax
	xor %edx, %edx
	xrstor64 host_in_x(%rip)
	pushq host_in_flags(%rip)
	popfq
	mov host_in_gpr+8*0(%rip), %rax
	mov host_in_gpr+8*1(%rip), %rcx
	mov host_in_gpr+8*2(%rip), %rdx
	mov host_in_gpr+8*3(%rip), %rbx
	mov host_in_gpr+8*5(%rip), %rbp
	mov host_in_gpr+8*6(%rip), %rsi
	mov host_in_gpr+8*7(%rip), %rdi
	mov host_in_gpr+8*8(%rip), %r8
	mov host_in_gpr+8*9(%rip), %r9
	mov host_in_gpr+8*10(%rip), %r10
	mov host_in_gpr+8*11(%rip), %r11
	mov host_in_gpr+8*12(%rip), %r12
	mov host_in_gpr+8*13(%rip), %r13
	mov host_in_gpr+8*14(%rip), %r14
	mov host_in_gpr+8*15(%rip), %r15
	mov host_in_gpr+8*4(%rip), %rsp
	jmp *host_code(%rip)

host_exit1:
	movb $1, host_taken(%rip)
	jmp 1f
host_exit0:
	movb $0, host_taken(%rip)
1:	mov %rax, host_out_gpr+8*0(%rip)
	mov %rcx, host_out_gpr+8*1(%rip)
	mov %rdx, host_out_gpr+8*2(%rip)
	mov %rbx, host_out_gpr+8*3(%rip)
	mov %rsp, host_out_gpr+8*4(%rip)
	mov %rbp, host_out_gpr+8*5(%rip)
	mov %rsi, host_out_gpr+8*6(%rip)
	mov %rdi, host_out_gpr+8*7(%rip)
	mov %r8, host_out_gpr+8*8(%rip)
	mov %r9, host_out_gpr+8*9(%rip)
	mov %r10, host_out_gpr+8*10(%rip)
	mov %r11, host_out_gpr+8*11(%rip)
	mov %r12, host_out_gpr+8*12(%rip)
	mov %r13, host_out_gpr+8*13(%rip)
	mov %r14, host_out_gpr+8*14(%rip)
	mov %r15, host_out_gpr+8*15(%rip)
	mov saved_rsp(%rip), %rsp
	pushfq
	popq host_out_flags(%rip)
	cld
	mov host_components(%rip), %eax
	xor %edx, %edx
	xsave64 host_out_x(%rip)
	fninit
	ldmxcsr mxcsr_default(%rip)
	vzeroupper
	pop %r15
	pop %r14
	pop %r13
	pop %r12
	pop %rbp
	pop %rbx
	ret

	.section .rodata
mxcsr_default:
	.long 0x1f80

	.bss
	.globl host_in_x, host_out_x, host_in_gpr, host_out_gpr, host_in_flags, host_out_flags, host_code, host_taken, host_components
	.balign 64
host_in_x:	.skip 2688
host_out_x:	.skip 2688
host_in_gpr:	.skip 128
host_out_gpr:	.skip 128
host_in_flags:	.skip 8
host_out_flags:	.skip 8
host_code:	.skip 8
saved_rsp:	.skip 8
host_components: .skip 4
host_taken:	.skip 8
	.section .note.GNU-stack, "", @progbits
