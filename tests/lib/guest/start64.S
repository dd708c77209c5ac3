/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Entry of the long64 environment: multiboot 1 (32-bit, paging off) -> 64-bit mode -> boot64() in desc64.c.
 *
 * Invariant: the boot page tables map (all 2 MiB pages)
 *   0 .. 1 GiB    physical 0 .. 1 GiB, supervisor, read-write-execute
 *   1 .. 2 GiB    the same memory again, for user mode: USER(p) = p + 1 GiB
 *   2 .. 3 GiB    nothing: belongs to the test
 *   3 .. 4 GiB    physical 3 .. 4 GiB (APICs), supervisor
 * Spec: Multiboot 0.6.96 3.1-3.2, SDM vol. 3A 9.8.5 (switching to IA-32e mode).
 */
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
	mov	$0x80000000, %eax	/* no long mode: say so by the exit code 0x7f */
	cpuid
	cmp	$0x80000001, %eax
	jb	1f
	mov	$0x80000001, %eax
	cpuid
	bt	$29, %edx
	jc	2f
1:	mov	$0x7f, %eax
	out	%eax, $0xf4
	hlt
2:	mov	%cr4, %eax
	or	$0x6a0, %eax		/* PAE PGE OSFXSR OSXMMEXCPT */
	mov	%eax, %cr4
	mov	$boot_pml4, %eax
	mov	%eax, %cr3
	mov	$0xc0000080, %ecx
	rdmsr
	or	$0x901, %eax		/* SCE LME NXE */
	wrmsr
	mov	%cr0, %eax
	and	$0x9ffffffb, %eax	/* caches on, EM off */
	or	$0x80010022, %eax	/* PG WP NE MP */
	mov	%eax, %cr0
	lgdt	boot_gdtr
	ljmp	$0x08, $3f
	.code64
3:	mov	$0x10, %eax
	mov	%eax, %ds
	mov	%eax, %es
	mov	%eax, %ss
	xor	%eax, %eax
	mov	%eax, %fs
	mov	%eax, %gs
	mov	$boot_stack_top, %rsp
	call	boot64
	ud2

/* --- every vector pushes (error code,) vector and lands in trap_common ------------------------------------------- */
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

	.balign 16
trap_common:
	push	%r15
	push	%r14
	push	%r13
	push	%r12
	push	%r11
	push	%r10
	push	%r9
	push	%r8
	push	%rdi
	push	%rsi
	push	%rbp
	push	%rbx
	push	%rdx
	push	%rcx
	push	%rax
	cld
	mov	%rsp, %rdi
	mov	%rsp, %rbp
	and	$-16, %rsp
	call	trap_handle
	mov	%rbp, %rsp
	pop	%rax
	pop	%rcx
	pop	%rdx
	pop	%rbx
	pop	%rbp
	pop	%rsi
	pop	%rdi
	pop	%r8
	pop	%r9
	pop	%r10
	pop	%r11
	pop	%r12
	pop	%r13
	pop	%r14
	pop	%r15
	add	$16, %rsp
	iretq

/* SYSCALL/SYSENTER entry: builds a frame with a pseudo vector; RSP is still the caller's (SYSCALL), so it is parked first. */
	.globl syscall_entry, sysenter_entry, syscall32_entry
syscall_entry:
	mov	%rsp, sys_rsp(%rip)
	movq	$0x100, sys_vec(%rip)
	jmp	1f
syscall32_entry:
	mov	%rsp, sys_rsp(%rip)
	movq	$0x101, sys_vec(%rip)
	jmp	1f
sysenter_entry:
	mov	%rsp, sys_rsp(%rip)
	movq	$0x102, sys_vec(%rip)
1:	lea	trap_stack_top(%rip), %rsp
	push	$0
	mov	%ss, (%rsp)
	push	sys_rsp(%rip)
	pushf
	push	$0
	mov	%cs, (%rsp)
	push	$0			/* rip: unknown */
	push	$0
	push	sys_vec(%rip)
	jmp	trap_common

/* void run_enter(struct regs *r): loads everything from r and IRETs; comes back through run_leave(). */
	.globl run_enter, run_iret, run_leave
run_enter:
	push	%rbx
	push	%rbp
	push	%r12
	push	%r13
	push	%r14
	push	%r15
	mov	%rsp, run_rsp(%rip)
	push	168(%rdi)		/* ss */
	push	160(%rdi)		/* rsp */
	push	152(%rdi)		/* rflags */
	push	144(%rdi)		/* cs */
	push	136(%rdi)		/* rip */
	mov	0(%rdi), %rax
	mov	8(%rdi), %rcx
	mov	16(%rdi), %rdx
	mov	24(%rdi), %rbx
	mov	32(%rdi), %rbp
	mov	40(%rdi), %rsi
	mov	56(%rdi), %r8
	mov	64(%rdi), %r9
	mov	72(%rdi), %r10
	mov	80(%rdi), %r11
	mov	88(%rdi), %r12
	mov	96(%rdi), %r13
	mov	104(%rdi), %r14
	mov	112(%rdi), %r15
	mov	48(%rdi), %rdi
run_iret:
	iretq
run_leave:
	mov	run_rsp(%rip), %rsp
	mov	$0x10, %eax
	mov	%eax, %ss
	mov	%eax, %ds
	mov	%eax, %es
	pop	%r15
	pop	%r14
	pop	%r13
	pop	%r12
	pop	%rbp
	pop	%rbx
	ret

	.data
	.balign 8
boot_gdtr:
	.word	0x47
	.quad	gdt

	.balign 4096
	.globl boot_pml4, boot_pdpt
boot_pml4:
	.quad	boot_pdpt + 7
	.fill	511, 8, 0
boot_pdpt:
	.quad	boot_pd0 + 3, boot_pd1 + 7, 0, boot_pd3 + 3
	.fill	508, 8, 0
boot_pd0:
	.set	i, 0
	.rept	512
	.quad	i * 0x200000 + 0x83
	.set	i, i + 1
	.endr
boot_pd1:
	.set	i, 0
	.rept	512
	.quad	i * 0x200000 + 0x87
	.set	i, i + 1
	.endr
boot_pd3:
	.set	i, 0
	.rept	512
	.quad	0xc0000000 + i * 0x200000 + 0x9b
	.set	i, i + 1
	.endr

	.globl gdt
	.balign 16
gdt:	.quad	0
	.quad	0x00af9b000000ffff	/* 08 kernel code 64 */
	.quad	0x00cf93000000ffff	/* 10 kernel data */
	.quad	0x00cf9b000000ffff	/* 18 kernel code 32 */
	.quad	0x00cffb000000ffff	/* 20 user code 32 */
	.quad	0x00cff3000000ffff	/* 28 user data */
	.quad	0x00affb000000ffff	/* 30 user code 64 */
	.quad	0, 0			/* 38 TSS, filled by boot64 */
	.fill	23, 8, 0		/* 48 .. f8: the test's */

	.bss
	.balign 4096
	.globl boot_stack_top, trap_stack_top, ist_stack_top, run_stack_top, boot_info, run_rsp
	.skip	65536
boot_stack_top:
	.skip	16384
trap_stack_top:				/* TSS.RSP0 */
	.skip	7 * 8192
ist_stack_top:				/* IST n ends at ist_stack_top - (n - 1) * 8192 */
	.skip	16384
run_stack_top:				/* default stack of code started by run() */
run_rsp: .skip	8
sys_rsp: .skip	8
sys_vec: .skip	8
boot_info: .skip 8
	.section .note.GNU-stack, "", @progbits
