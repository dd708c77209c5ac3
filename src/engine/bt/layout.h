/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Offsets from RSP (= struct vcpu) that translated code and stubs.S use, checked against the C struct in run.c.
 *
 * The first 128 bytes are reached with 8-bit displacements, so what every memory access needs is there.
 */
#ifndef ENGINE_BT_LAYOUT_H
#define ENGINE_BT_LAYOUT_H

#define H_MASK   0x00 /* PEXT mask of the page number for data accesses: bits 12..46 (user) or 12..47 (supervisor) */
#define H_R13    0x08 /* guest R13, R14, R15: displaced by the scratch registers and by guest RSP (host R15) */
#define H_R14    0x10
#define H_R15    0x18
#define H_PB     0x20 /* guest-virtual base of the page being executed */
#define H_TMP0   0x28 /* saves RAX or RCX around a few instructions */
#define H_TMP1   0x30 /* a value carried across a lookup */
#define H_FL     0x38 /* flag slot: AL = OF, AH = SF ZF AF PF CF as SETO/LAHF leave them */
#define H_RIP    0x40 /* target of an indirect branch */
#define H_XB     0x48 /* x table of the current mode */
#define H_XMASK  0x50 /* PEXT mask: bits 12..47 */
#define H_JUMP   0x58 /* current jump table, as index: address / 8 (jump.c) */
#define H_RTAB   0x60 /* current read and write tables, as index: address / 8 */
#define H_WTAB   0x68
#define H_SITE   0x70 /* which site, link or block calls a stub */
#define H_CONT   0x80 /* where a stub continues */
#define H_A0     0x88 /* R13 at the call of a stub: the guest-virtual address of a slow access */
#define H_HFLAGS 0x90 /* host RFLAGS at the call of a stub, and, with H_FL, to load on return */
#define H_HOSTSP 0x98 /* RSP of bt_enter's caller */
#define H_NOIF   0xa0 /* PEXT/PDEP mask: every RFLAGS bit but IF */
#define H_ARITH  0xa8 /* ... the arithmetic flags and DF, which live in the host's RFLAGS */
#define H_VIRT   0xb0 /* ... the others that PUSHF shows, which live in v->rflags */

#define H_SPAN   0xb8 /* host addresses of spans (span.c), TR_SPANS of them */

#define H_LIMIT  0xd8 /* value of a loop's counting register at which its unchecked iterations end (loop.c) */
#define H_STREAM 0xe0 /* ... what its accesses add to guest addresses, TR_STREAMS of them */
#define H_TRIPS  0x78 /* iterations in the ordinary form before the unchecked one is entered; 32 bits */

#define H_REVIEW 0x7c /* site of a lookup whose hint has often been wrong, 0 = none (hint.c); 32 bits */

#define V_GPR    0x100
#define V_RIP    0x180
#define V_RFLAGS 0x188
#define V_EVENT  0x190

/* Why a stub calls bt_service(). */
#define BT_SVC_MISS       0 /* dispatch: no translation at H_RIP; flags in the slot */
#define BT_SVC_SLOW       1 /* data access: no table entry, or crosses a page */
#define BT_SVC_INTERP     2 /* execute the instruction of a site in the interpreter */
#define BT_SVC_LINK       3 /* direct branch not linked yet */
#define BT_SVC_EVENT_HOST 4 /* v->event was nonzero at a block's entry; flags in the host register / in the slot */
#define BT_SVC_EVENT_SLOT 5
#define BT_SVC_SYSCALL    6 /* SYSCALL, SYSRET or IRET of a site */
#define BT_SVC_STRAY      7 /* the indirect branch of a site leads to a non-canonical address */
#define BT_SVC_COUNT      8

#endif
