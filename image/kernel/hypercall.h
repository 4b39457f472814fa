/* SPDX-License-Identifier: Apache-2.0 */
/* Calls of the hypervisor. Numbers and structures are those of Xen's public headers.
 * Pointers in them are virtual addresses, which Xen looks up in the current page tables. */

#ifndef HYPERCALL_H
#define HYPERCALL_H

#include "kernel.h"

#define __XEN_INTERFACE_VERSION__ __XEN_LATEST_INTERFACE_VERSION__
#include <xen/xen.h>

extern const char hypercall_page[PAGE_SIZE]; /* hypercall.S; Xen writes it */

#define ENTRY_SIZE 32

/* What Xen answers: 0 or more, or -errno, with Linux's numbers. */
static inline int64_t hypercall(uint32_t number, uint64_t a, uint64_t b, uint64_t c)
{
    int64_t result;
    const char *entry = hypercall_page + number * ENTRY_SIZE;
    __asm__ volatile("call *%[entry]"
                     : "=a"(result), "+D"(a), "+S"(b), "+d"(c)
                     : [entry] "r"(entry)
                     : "rcx", "r8", "r9", "r10", "r11", "memory", "cc");
    return result;
}

/* The same with a fourth argument. */
static inline int64_t hypercall4(uint32_t number, uint64_t a, uint64_t b, uint64_t c, uint64_t d)
{
    int64_t result;
    const char *entry = hypercall_page + number * ENTRY_SIZE;
    register uint64_t fourth __asm__("r10") = d;
    __asm__ volatile("call *%[entry]"
                     : "=a"(result), "+D"(a), "+S"(b), "+d"(c), "+r"(fourth)
                     : [entry] "r"(entry)
                     : "rcx", "r8", "r9", "r11", "memory", "cc");
    return result;
}

/* The page that Xen shares with us: xen.c maps it there. */
#define SHARED_INFO ((struct shared_info *)SHARED_INFO_VA)

/* ---- grant.c, for xenbus.c */
int64_t grant_map(uint32_t domid, uint32_t ref); /* the physical address of the page */

/* ---- grant.c, for paging.c in a PV domain */
bool grant_is_slot(uint64_t pa);
int grant_attach(uint64_t pa, uint64_t entry_machine, bool is_writable);
uint64_t grant_detach(uint64_t entry_machine); /* the physical address; 0: no grant is there */

#endif
