/* SPDX-License-Identifier: Apache-2.0 */
/* A Xen PV domain: how the kernel begins, and how Xen comes into it.
 *
 * Power-on: 64 bits, the builder's page tables, which map the kernel (all of it writable and
 * executable), the initrd and what Xen says; %rsi = address of start_info. A restart: our own.
 * Both go on as bootentry.S does.
 *
 * Xen pushes what the processor would (trapentry.S), and below it r11 and rcx; bits 32.. of cs hold
 * the event mask of before. The way back is a hypercall: HYPERVISOR_iret. */

#include "layout.h"

#define HYPERCALL_ENTRY 32
#define HYPERCALL_IRET 23
#define EVENT_MASK_OFFSET 1              /* of evtchn_upcall_mask in shared_info */

        .macro  begin_note type
        .balign 4
        .long   4, 2f - 1f, \type        /* xen/elfnote.h */
        .asciz  "Xen"
1:
        .endm
        .macro  text_note type, text:vararg
        begin_note \type
        .asciz  \text
2:      .balign 4
        .endm
        .macro  word_note type, value
        begin_note \type
        .quad   \value
2:      .balign 4
        .endm

        .section .note.Xen.pv, "a", @note
        text_note 6, "tardigrade"        /* GUEST_OS */
        text_note 8, "generic"           /* LOADER */
        text_note 5, "xen-3.0"           /* XEN_VERSION */
        text_note 10, "!writable_page_tables|pae_pgdir_above_4gb" /* FEATURES */
        text_note 9, "yes"               /* PAE_MODE */
        word_note 3, KERNEL_BASE         /* VIRT_BASE */
        word_note 4, 0                   /* PADDR_OFFSET */
        word_note 1, pv_power_on         /* ENTRY */
        word_note 2, hypercall_page      /* HYPERCALL_PAGE */

        .section .text.boot, "ax"
pv_power_on:
        movl    $1, pv_is_on
        mov     $-KERNEL_BASE, %rdi
        add     %rsi, %rdi
        jmp     begin_again

        .globl  pv_restart
pv_restart:
        mov     $SHARED_INFO_VA, %rdi
        movb    $1, EVENT_MASK_OFFSET(%rdi)
        xor     %edi, %edi
        jmp     begin_again

        .text
        .globl  pv_syscall_entry
pv_syscall_entry:
        pop     %rcx
        pop     %r11
        movl    $0, 12(%rsp)
        push    %rax
        pushq   $VECTOR_SYSCALL
        jmp     syscall_common

        .globl  pv_event_entry
pv_event_entry:
        pop     %rcx
        pop     %r11
        movl    $0, 12(%rsp)
        pushq   $0
        pushq   $VECTOR_XEN
        jmp     trap_common

/* A selector of the program's that Xen could not load again: no way back. */
        .globl  pv_failsafe_entry
pv_failsafe_entry:
        mov     $kernel_stack_top, %rsp
        call    pv_fail

/* From trapentry.S: registers are restored, the stack is at rip. */
        .globl  pv_leave
pv_leave:
        pushq   $0                       /* flags: rcx and r11 count */
        jmp     hypercall_page + HYPERCALL_IRET * HYPERCALL_ENTRY

        .altmacro
        .macro  stub vector
pv_stub_\vector:
        pop     %rcx
        pop     %r11
        .if ((ERROR_CODES >> \vector) & 1) == 0
        movl    $0, 12(%rsp)
        pushq   $0
        .else
        movl    $0, 20(%rsp)
        .endif
        pushq   $\vector
        jmp     trap_common
        .endm
        .macro  stub_address vector
        .quad   pv_stub_\vector
        .endm

        .set    number, 0
        .rept   EXCEPTIONS
        stub    %number
        .set    number, number + 1
        .endr

        .section .rodata, "a"
        .balign 8
        .globl  pv_stubs
pv_stubs:
        .set    number, 0
        .rept   EXCEPTIONS
        stub_address %number
        .set    number, number + 1
        .endr

        .section .note.GNU-stack, "", @progbits
