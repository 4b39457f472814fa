/* SPDX-License-Identifier: Apache-2.0 */
/* Where a life was when the snapshot was taken, and how another one goes on from there. Registers
 * that a function may change are not kept; FPU and SSE control words are those of the start. */

        .text

/* int context_save(struct context *): the caller's registers as they will be behind the call. */
        .globl context_save
        .type context_save, @function
context_save:
        movq    %rbx, 0(%rdi)
        movq    %rbp, 8(%rdi)
        movq    %r12, 16(%rdi)
        movq    %r13, 24(%rdi)
        movq    %r14, 32(%rdi)
        movq    %r15, 40(%rdi)
        leaq    8(%rsp), %rax
        movq    %rax, 48(%rdi)
        movq    (%rsp), %rax
        movq    %rax, 56(%rdi)
        xorl    %eax, %eax
        ret

/* void context_resume(const struct context *) */
        .globl context_resume
        .type context_resume, @function
context_resume:
        cld
        fninit
        ldmxcsr mxcsr(%rip)
        movq    0(%rdi), %rbx
        movq    8(%rdi), %rbp
        movq    16(%rdi), %r12
        movq    24(%rdi), %r13
        movq    32(%rdi), %r14
        movq    40(%rdi), %r15
        movq    48(%rdi), %rsp
        movl    $1, %eax
        jmpq    *56(%rdi)

/* void context_call_on(void *stack_top, void (*function)(void)) */
        .globl context_call_on
        .type context_call_on, @function
context_call_on:
        cld
        movq    %rdi, %rsp
        xorl    %ebp, %ebp
        call    *%rsi
        ud2

        .section .rodata
        .balign 4
mxcsr:  .long   0x1f80

        .section .note.GNU-stack, "", @progbits
