/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The guest code of the guard: small loops of the kinds that programs and kernels spend their time in.
 *
 * Each begins on a page of its own, so that one can be added without moving the others, and runs at CPL 0 until HLT with rdi = how often,
 * rsi = 64 KiB of data, rdx = another 64 KiB behind it, rsp = a stack. `user` ones run at CPL 3 from a single page, rsi and rdx
 * being the two pages of data behind it; their kernel is `kernel_entry`, which halts on system call 1. Table of cases at the end.
 */
#include "guard.h"

	.intel_syntax noprefix
	.section .rodata
	.balign 4096
	.globl corpus_begin
corpus_begin:

.macro case name
	.balign 4096, 0xcc
case_\name:
.endm

/* Insertion sort of rdi numbers: indexed loads and stores, data-dependent branches. */
case sort
	mov ecx, 1
1:	cmp rcx, rdi
	jae 4f
	mov eax, [rsi+rcx*4]
	mov rdx, rcx
2:	mov r8d, [rsi+rdx*4-4]
	cmp r8d, eax
	jbe 3f
	mov [rsi+rdx*4], r8d
	dec rdx
	jnz 2b
3:	mov [rsi+rdx*4], eax
	inc rcx
	jmp 1b
4:	hlt

/* Rounds of a hash: rotations and sums, spilled values on the stack, a table of constants. */
case hash
	sub rsp, 64
	mov dword ptr [rsp+8], 0x6a09e667
	mov dword ptr [rsp+16], 0xbb67ae85
	xor ecx, ecx
1:	mov eax, [rsi+rcx*4]
	mov r8d, [rsp+8]
	mov r9d, r8d
	ror r9d, 6
	mov r10d, r8d
	ror r10d, 11
	xor r9d, r10d
	add eax, r9d
	add eax, [rdx+rcx*4]
	mov r11d, [rsp+16]
	mov [rsp+24], r11d
	and r11d, r8d
	xor r11d, [rsp+24]
	add eax, r11d
	mov [rsp+16], r8d
	mov [rsp+8], eax
	inc ecx
	cmp ecx, edi
	jb 1b
	add rsp, 64
	hlt

/* Eight bytes at a time, four times. */
case copy
1:	mov rax, [rsi]
	mov rcx, [rsi+8]
	mov r8, [rsi+16]
	mov r9, [rsi+24]
	mov [rdx], rax
	mov [rdx+8], rcx
	mov [rdx+16], r8
	mov [rdx+24], r9
	add rsi, 32
	add rdx, 32
	dec rdi
	jnz 1b
	hlt

/* Recursion without frames: calls and returns. */
case recursion
	call 1f
	hlt
1:	cmp rdi, 2
	jb 2f
	push rbx
	push rdi
	dec rdi
	call 1b
	mov rbx, rax
	pop rdi
	sub rdi, 2
	call 1b
	add rax, rbx
	pop rbx
	ret
2:	mov rax, rdi
	ret

/* A function as compilers make them: all saved registers, locals, and the registers that live in slots. */
case frames
1:	call 2f
	dec rdi
	jnz 1b
	hlt
2:	push rbp
	mov rbp, rsp
	push r15
	push r14
	push r13
	push r12
	push rbx
	sub rsp, 40
	mov r12, rdi
	mov r13, rsi
	mov r14, [rsi+8]
	lea r15, [r13+r14*2]
	mov [rbp-56], r15
	mov rbx, [rbp-56]
	add r14, rbx
	mov [rsi+8], r12
	lea rax, [r14+r15]
	add rsp, 40
	pop rbx
	pop r12
	pop r13
	pop r14
	pop r15
	pop rbp
	ret

/* Scalar and packed floating point. */
case matrix
	xorpd xmm1, xmm1
	xor ecx, ecx
1:	movsd xmm0, [rsi+rcx*8]
	mulsd xmm0, [rdx+rcx*8]
	addsd xmm1, xmm0
	movups xmm2, [rsi+rcx*8]
	mulpd xmm2, xmm1
	movaps [rdx], xmm2
	inc rcx
	cmp rcx, rdi
	jb 1b
	hlt

/* An interpreter of byte codes: a jump through a table for each. */
case bytecode
	lea r9, [rip+5f]
	mov rcx, rdi
	xor ebx, ebx
1:	movzx eax, byte ptr [rsi]
	inc rsi
	and eax, 3
	jmp [r9+rax*8]
2:	inc rbx
	dec rcx
	jnz 1b
	hlt
3:	lea rbx, [rbx+rbx*2]
	dec rcx
	jnz 1b
	hlt
4:	xor rbx, rcx
	dec rcx
	jnz 1b
	hlt
	.balign 8
5:	.quad 2b - corpus_begin + GUARD_CODE, 3b - corpus_begin + GUARD_CODE
	.quad 4b - corpus_begin + GUARD_CODE, 2b - corpus_begin + GUARD_CODE

/* Bytes: no alignment to test. */
case bytes
	xor ecx, ecx
1:	movzx eax, byte ptr [rsi+rcx]
	xor al, byte ptr [rdx+rcx]
	mov byte ptr [rdx+rcx], al
	inc rcx
	cmp rcx, rdi
	jb 1b
	hlt

/* Flags that live across memory accesses. */
case carry
	xor ecx, ecx
	clc
1:	mov rax, [rsi+rcx*8]
	adc rax, [rdx+rcx*8]
	mov [rdx+rcx*8], rax
	lea rcx, [rcx+1]
	dec rdi
	jnz 1b
	hlt

/* Misaligned accesses, now and then across a page. */
case misaligned
	lea rsi, [rsi+1]
1:	mov rax, [rsi]
	add eax, [rsi+11]
	add rsi, 37
	dec rdi
	jnz 1b
	hlt

/* A call into another page and back. */
case farther
1:	call 2f
	dec rdi
	jnz 1b
	hlt
	.balign 4096, 0xcc
2:	lea rax, [rdi+1]
	ret

/* An instruction on two pages. */
case straddle
	jmp 1f
	.org case_straddle + 4096 - 6
1:	lea rax, [rax+rdi]
	add rax, 0x12345678
	dec rdi
	jnz 1b
	hlt

/* Small fills and copies by string instructions. */
case string
	mov r8, rsi
	mov r9, rdx
	mov rbx, rdi
	cld
1:	mov rsi, r8
	mov rdi, r9
	mov ecx, 64
	rep movsb
	xor eax, eax
	mov ecx, 16
	rep stosq
	add r8, 64
	add r9, 192
	dec rbx
	jnz 1b
	hlt

/* Comparisons, searches and loads by string instructions. */
case search
	mov r8, rdi
	mov r9, rsi
	cld
1:	mov rsi, r9
	mov rdi, r9
	mov ecx, 64
	repe cmpsb
	jne 2f
	lea rdi, [r9+64]
	mov eax, 0x12345678
	mov ecx, 16
	repne scasd
	je 2f
	mov rsi, r9
	lodsq
	add rbx, rax
	dec r8
	jnz 1b
2:	hlt

/* What kernels do: variables behind GS, interrupts off and on, flags saved. */
case percpu
1:	pushf
	cli
	mov rax, gs:[16]
	inc qword ptr gs:[24]
	lock xadd [rsi], eax
	popf
	sti
	nop
	dec rdi
	jnz 1b
	hlt

/* Multiplication of long numbers as cryptography has it: products to registers that live in slots, loops that keep the flags. */
case bignum
	mov r8, rdx
	mov rbx, rdi
1:	mov rdx, [r8]
	mov ecx, 4
	xor eax, eax
2:	mulx r14, r13, [rsi+rcx*8]
	adcx r9, r13
	adcx r10, r14
	mulx r15, r13, r14
	lea rcx, [rcx-1]
	jrcxz 3f
	jmp 2b
3:	mov ecx, 4
4:	adox r11, [rsi+rcx*8]
	loop 4b
	dec rbx
	jnz 1b
	hlt

/* The second byte of a register to memory, as big-endian formats want it. */
case high8
1:	mov [rsi+rdi], ah
	add bh, [rsi+rdi+1]
	lea rax, [rax+rdi]
	dec rdi
	jnz 1b
	hlt

/* What a kernel does when it switches tasks or takes a page fault: system registers read and bases written. */
case registers
1:	mov rax, cr2
	mov r13, cr3
	mov rbx, cr4
	mov ax, ds
	mov [rsi], es
	rdfsbase r14
	wrfsbase r14
	swapgs
	rdgsbase rcx
	wrgsbase rcx
	swapgs
	rdpid r15
	rdtscp
	xor eax, eax
	xor edx, edx
	push rsp
	pop rsp
	dec rdi
	jnz 1b
	hlt

/* Back from an exception, in the same ring. */
case iret
1:	mov rax, rsp
	mov ecx, ss
	push rcx
	push rax
	pushf
	mov ecx, cs
	push rcx
	lea rcx, [rip+2f]
	push rcx
	iretq
2:	dec rdi
	jnz 1b
	hlt

/* A program's stack across a page boundary: the two accesses share a hint at first, which is wrong for one of them each time. */
case boundary
	lea rsp, [rsi+4096]
1:	mov [rsp+16], rdi
	jmp 2f
2:	mov [rsp-16], rdi
	sub rdi, 1
	jnz 1b
	mov eax, 1
	syscall

/* System calls: the user's side ... */
case syscall
	xor ebx, ebx
1:	xor eax, eax
	syscall
	inc rbx
	cmp rbx, rdi
	jb 1b
	mov eax, 1
	syscall

/* ... and a kernel's. */
	.balign 4096, 0xcc
	.globl kernel_entry
kernel_entry:
	swapgs
	mov gs:[8], rsp
	mov rsp, gs:[0]
	push rcx
	push r11
	push rdi
	cmp eax, 1
	je 1f
	inc qword ptr gs:[32]
	pop rdi
	pop r11
	pop rcx
	mov rsp, gs:[8]
	swapgs
	sysretq
1:	hlt

	.balign 4096, 0xcc
	.globl corpus_end
corpus_end:

/* struct guard_case of main.c: name, code, times, user */
.macro row name, times, user=0
	.section .rodata.str, "a"
1:	.asciz "\name"
	.section .data.rel.ro, "aw"
	.quad 1b, case_\name, \times, \user
.endm
	.section .data.rel.ro, "aw"
	.balign 8
	.globl guard_cases
guard_cases:
	row sort, 48
	row hash, 100
	row copy, 150
	row recursion, 10
	row frames, 60
	row matrix, 200
	row bytecode, 250
	row bytes, 300
	row carry, 250
	row misaligned, 300
	row farther, 200
	row straddle, 100
	row string, 20
	row search, 20
	row percpu, 100
	row bignum, 50
	row high8, 200
	row registers, 60
	row iret, 60
	row boundary, 600, 1
	row syscall, 100, 1
	.quad 0, 0, 0, 0
	.section .note.GNU-stack, "", @progbits
