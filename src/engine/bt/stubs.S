/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Between C and translated code.
 *
 * Translated code runs with RSP = struct vcpu (its stack grows below), guest registers in place (layout.h,
 * docs/design/bt.md). The guest's vector state is in the host registers throughout; the C code called here does not touch
 * it. FS and GS stay the C library's. DF is clear in C.
 */
#include "engine/bt/layout.h"

#define FL_DF 0x400

	.text

/* void bt_enter(struct vcpu *v /rdi/, uintptr_t code /rsi/) */
	.globl bt_enter
	.type bt_enter, @function
bt_enter:
	push %rbx
	push %rbp
	push %r12
	push %r13
	push %r14
	push %r15
	mov %rsp, H_HOSTSP(%rdi)
	mov %rsi, H_CONT(%rdi)
	mov %rdi, %rsp
	jmp bt_resume
	.size bt_enter, . - bt_enter

/* Loads the guest's registers from the vcpu at RSP and continues at H_CONT. */
	.type bt_resume, @function
bt_resume:
	mov V_GPR+13*8(%rsp), %rax
	mov %rax, H_R13(%rsp)
	mov V_GPR+14*8(%rsp), %rax
	mov %rax, H_R14(%rsp)
	mov V_GPR+15*8(%rsp), %rax
	mov %rax, H_R15(%rsp)
	testl $FL_DF, H_HFLAGS(%rsp)
	jnz 1f
	/* POPFQ takes as long as all the rest; DF, the one flag beside the arithmetic ones, is clear in C. */
	mov H_FL(%rsp), %eax
	add $0x7f, %al
	sahf
2:	mov V_GPR+0*8(%rsp), %rax
	mov V_GPR+1*8(%rsp), %rcx
	mov V_GPR+2*8(%rsp), %rdx
	mov V_GPR+3*8(%rsp), %rbx
	mov V_GPR+4*8(%rsp), %r15
	mov V_GPR+5*8(%rsp), %rbp
	mov V_GPR+6*8(%rsp), %rsi
	mov V_GPR+7*8(%rsp), %rdi
	mov V_GPR+8*8(%rsp), %r8
	mov V_GPR+9*8(%rsp), %r9
	mov V_GPR+10*8(%rsp), %r10
	mov V_GPR+11*8(%rsp), %r11
	mov V_GPR+12*8(%rsp), %r12
	mov H_RIP(%rsp), %r13           /* what blocks entered by dispatch expect; scratch to all others */
	jmp *H_CONT(%rsp)
1:	push H_HFLAGS(%rsp)
	popfq
	jmp 2b
	.size bt_resume, . - bt_resume

/* One entry per reason: stores the guest's registers, calls bt_service(v, reason), resumes where it says or leaves. */
.macro service name, reason
	.globl \name
	.type \name, @function
\name:
	mov %rsi, V_GPR+6*8(%rsp)
	mov $\reason, %esi
	jmp service_common
	.size \name, . - \name
.endm

	service bt_stub_miss, BT_SVC_MISS
	service bt_stub_slow, BT_SVC_SLOW
	service bt_stub_interp, BT_SVC_INTERP
	service bt_stub_link, BT_SVC_LINK
	service bt_stub_event_host, BT_SVC_EVENT_HOST
	service bt_stub_event_slot, BT_SVC_EVENT_SLOT
	service bt_stub_syscall, BT_SVC_SYSCALL
	service bt_stub_stray, BT_SVC_STRAY

	.type service_common, @function
service_common:
	mov %rax, V_GPR+0*8(%rsp)
	mov %rcx, V_GPR+1*8(%rsp)
	mov %rdx, V_GPR+2*8(%rsp)
	mov %rbx, V_GPR+3*8(%rsp)
	mov %r15, V_GPR+4*8(%rsp)
	mov %rbp, V_GPR+5*8(%rsp)
	mov %rdi, V_GPR+7*8(%rsp)
	mov %r8, V_GPR+8*8(%rsp)
	mov %r9, V_GPR+9*8(%rsp)
	mov %r10, V_GPR+10*8(%rsp)
	mov %r11, V_GPR+11*8(%rsp)
	mov %r12, V_GPR+12*8(%rsp)
	pushfq
	pop H_HFLAGS(%rsp)
	mov %r13, H_A0(%rsp)
	mov H_R13(%rsp), %rax
	mov %rax, V_GPR+13*8(%rsp)
	mov H_R14(%rsp), %rax
	mov %rax, V_GPR+14*8(%rsp)
	mov H_R15(%rsp), %rax
	mov %rax, V_GPR+15*8(%rsp)
	cld
	mov %rsp, %rdi
	call bt_service
	mov %rax, H_CONT(%rsp)
	test %rax, %rax
	jnz bt_resume
	mov H_HOSTSP(%rsp), %rsp
	pop %r15
	pop %r14
	pop %r13
	pop %r12
	pop %rbp
	pop %rbx
	ret
	.size service_common, . - service_common
	.globl bt_stubs_end
bt_stubs_end:
	.section .note.GNU-stack, "", @progbits
