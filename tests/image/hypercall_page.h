/* SPDX-License-Identifier: Apache-2.0 */
/* A hypercall page that leads to made_up_xen(), which the test that includes this defines. One piece
 * of code per hypercall, as in the real page; the caller's stack may not be aligned. */

int64_t made_up_xen(uint64_t a, uint64_t b, uint64_t c, uint32_t number);

__asm__(".text\n"
        "xen_entry:\n\t"
        "push %rbp\n\tmov %rsp, %rbp\n\tand $-16, %rsp\n\t"
        "call made_up_xen\n\t"
        "leave\n\tret\n\t"
        ".balign 4096\n\t"
        ".globl hypercall_page\n"
        "hypercall_page:\n\t"
        ".set number, 0\n\t"
        ".rept 128\n\t"
        ".balign 32\n\t"
        "mov $number, %ecx\n\tjmp xen_entry\n\t"
        ".set number, number + 1\n\t"
        ".endr\n\t"
        ".balign 32\n");
