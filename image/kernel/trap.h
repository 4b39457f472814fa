/* SPDX-License-Identifier: Apache-2.0 */
/* The program's registers, in the order in which trapentry.S pushes them. Change with it. */

#ifndef TRAP_H
#define TRAP_H

#include "kernel.h"

struct frame {
    uint64_t r15, r14, r13, r12, rbp, rbx, r11, r10, r9, r8, rdi, rsi, rdx, rcx, rax;
    uint64_t vector, error; /* a system call: VECTOR_SYSCALL, its number */
    uint64_t rip, cs, rflags, rsp, ss;
};
_Static_assert(sizeof(struct frame) == 22 * 8, "trapentry.S pushes 22 words");

static inline bool frame_is_user(const struct frame *frame) { return (frame->cs & 3) == 3; }

#define RFLAGS_USER 0x202 /* interrupts on */

#endif
