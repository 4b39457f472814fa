/* SPDX-License-Identifier: Apache-2.0 */
/* From ring 3 into the kernel, and back. Every way in saves a struct frame (trap.h) on the kernel
 * stack, which is empty then; interrupts are off until the way out.
 *
 * A trap: the processor has pushed ss, rsp, rflags, cs, rip, and for some vectors an error code.
 * A system call: rcx = rip, r11 = rflags, rsp still the program's; number in rax, arguments in rdi,
 * rsi, rdx, r10, r8, r9 (System V ABI, AMD64 supplement, A.2.1). */

#include "layout.h"

        .macro save_registers
        push    %rax
        push    %rcx
        push    %rdx
        push    %rsi
        push    %rdi
        push    %r8
        push    %r9
        push    %r10
        push    %r11
        push    %rbx
        push    %rbp
        push    %r12
        push    %r13
        push    %r14
        push    %r15
        .endm

        .macro restore_registers
        pop     %r15
        pop     %r14
        pop     %r13
        pop     %r12
        pop     %rbp
        pop     %rbx
        pop     %r11
        pop     %r10
        pop     %r9
        pop     %r8
        pop     %rdi
        pop     %rsi
        pop     %rdx
        pop     %rcx
        pop     %rax
        .endm

        .text
        .globl syscall_entry
syscall_entry:
        mov     %rsp, user_rsp(%rip)
        mov     $kernel_stack_top, %rsp
        pushq   $SELECTOR_USER_DATA
        pushq   user_rsp(%rip)
        push    %r11
        pushq   $SELECTOR_USER_CODE
        push    %rcx
        push    %rax                     /* "error": the number, since rax becomes the result */
        pushq   $VECTOR_SYSCALL
        .globl  syscall_common
syscall_common:
        save_registers
        cld
        mov     %rsp, %rdi
        call    syscall_dispatch
        cmpl    $0, pv_is_on
        jne     leave
        restore_registers
        mov     16(%rsp), %rcx           /* rip */
        mov     32(%rsp), %r11           /* rflags */
        mov     40(%rsp), %rsp
        sysretq

/* trap_return(frame): into ring 3 with exactly these registers. */
        .globl trap_return
trap_return:
        mov     %rdi, %rsp
leave:
        restore_registers
        add     $16, %rsp
        cmpl    $0, pv_is_on
        jne     pv_leave
        iretq

        .globl  trap_common
trap_common:
        save_registers
        cld
        mov     %rsp, %rdi
        call    trap_dispatch
        jmp     leave

        .altmacro
        .macro  stub vector
trap_stub_\vector:
        .if ((ERROR_CODES >> \vector) & 1) == 0
        pushq   $0
        .endif
        pushq   $\vector
        jmp     trap_common
        .endm

        .macro  stub_address vector
        .quad   trap_stub_\vector
        .endm

        .set    number, 0
        .rept   VECTORS
        stub    %number
        .set    number, number + 1
        .endr

        .section .rodata, "a"
        .align  8
        .globl  trap_stubs
trap_stubs:
        .set    number, 0
        .rept   VECTORS
        stub_address %number
        .set    number, number + 1
        .endr

        .bss
        .align  8
user_rsp:
        .skip   8

        .section .note.GNU-stack, "", @progbits
