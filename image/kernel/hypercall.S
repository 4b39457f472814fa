/* SPDX-License-Identifier: Apache-2.0 */
/* The page that Xen fills with one piece of code for each hypercall. It is the kernel's code: we
 * can execute it, and not write to it. Without Xen nobody calls it. */

#include "layout.h"

        .section .text.hypercall, "ax"
        .balign PAGE_SIZE
        .globl  hypercall_page
hypercall_page:
        .skip   PAGE_SIZE, 0xcc

        .section .note.GNU-stack, "", @progbits
