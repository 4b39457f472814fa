/* SPDX-License-Identifier: Apache-2.0 */
/* The kernel as a Xen PV domain: what is different there, behind few functions. pv_is_on is false
 * on any other machine, and then none of them is called.
 *
 *   V1. Physical addresses stay pseudo-physical, as on any machine. Machine frames are seen by
 *       what writes a page table entry (pv_machine) or reads one (pv_physical), and nobody else.
 *   V2. Page tables lie in a pool of their own, which is never mapped writable. Only Xen writes to
 *       them, and checks what it writes.
 *   V3. The kernel's half is built once, at power-on, and outlives restarts as Xen's own state
 *       does. The program's half goes with its life: pv_begin_tables().
 *   V4. The program runs on a top table of its own, without the kernel's half: on x86-64 a PV
 *       kernel runs in ring 3, too, and nothing else would keep the program out.
 * A double fault in the kernel, and so a kernel stack that runs over, ends the domain: Xen finds no
 * stack to tell us on. */

#ifndef PV_H
#define PV_H

#include "kernel.h"

extern uint32_t pv_is_on; /* in .keep; set by pventry.S */

/* ---- pvboot.c: what the domain's builder says, once, at power-on, into keep */
void pv_read_start_info(uint64_t start_info_pa);

/* ---- pvpage.c */
uint64_t pv_machine(uint64_t pa);     /* of a page */
uint64_t pv_physical(uint64_t machine);
uint64_t pv_table_alloc(void);        /* zeroed; 0 if there is none */
bool pv_is_table(uint64_t pa);
void pv_store(uint64_t entry_machine, uint64_t value); /* when pv_flush() comes, at the latest */
void pv_flush(void);
void pv_share(uint64_t index, uint64_t value); /* a top table's entry: the program's has it, too */
void pv_change(uint64_t va, uint64_t value); /* of a page that may be in the TLB; at once */
bool pv_begin_tables(void);           /* true: the kernel's half is to be built */
void pv_use_tables(void);

/* ---- pvdump.c */
#define PV_TREE_PAGES 5               /* one, and one for each GiB */
void pv_tell_frames(void);            /* in shared_info, for xl dump-core */

/* ---- pvtrap.c */
void pv_trap_init(void);
#define PV_TICK_NS 10000000ull
void pv_tick_init(void);
void pv_tick_at(uint64_t ns);         /* the next one, from now */
bool pv_tick(void);                   /* whether one was due */
void pv_wait(void);
void pv_console_write(const char *text, size_t size);

#endif
