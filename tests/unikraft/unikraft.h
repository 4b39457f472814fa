/* SPDX-License-Identifier: Apache-2.0 */
/* What image/unikraft takes from Unikraft's headers, made up for this host: every header of theirs
 * that it includes is this one (test_library.py). The memory that a snapshot is taken of is `image`
 * and `heap`; the time stands still unless the test moves it. */

#ifndef UNIKRAFT_H
#define UNIKRAFT_H

#include <errno.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define CONFIG_PLAT_XEN 1
#define CONFIG_LIBTARDIGRADE_REGION_MIB 1
#define CONFIG_LIBTARDIGRADE_GRANTS 12
#define __PAGE_SIZE 4096

typedef uint64_t __nsec;
typedef uintptr_t __uptr;
typedef long __ssz;
typedef size_t __sz;

struct __regs {
    unsigned long pad, r15, r14, r13, r12, rbp, rbx, r11, r10, r9, r8, rax, rcx, rdx, rsi, rdi;
    unsigned long orig_rax, rip, cs, eflags, rsp, ss;
};

/* ---- uk/alloc.h: a heap of whole pages */
struct uk_alloc;
static inline struct uk_alloc *uk_alloc_get_default(void) { return NULL; }
void *uk_palloc(struct uk_alloc *heap, unsigned long pages);
void uk_pfree(struct uk_alloc *heap, void *pages, unsigned long count);
long uk_alloc_pmaxalloc(struct uk_alloc *heap);

/* ---- uk/plat */
enum ukplat_gstate { UKPLAT_HALT, UKPLAT_RESTART, UKPLAT_CRASH = 3 };
struct ukplat_memregion_desc { uintptr_t vbase; size_t len; };
extern struct ukplat_memregion_desc made_up_heap;
#define UKPLAT_MEMRT_FREE 1
#define UKPLAT_MEMRT_STACK 16
#define ukplat_memregion_foreach(found, type, flags, mask) \
    for (*(found) = (type) ? &made_up_heap : NULL; *(found); *(found) = NULL)
extern uint64_t made_up_now;
static inline __nsec ukplat_monotonic_clock(void) { return made_up_now; }
static inline __nsec ukplat_wall_clock(void) { return made_up_now; }
static inline __uptr ukplat_tlsp_get(void) { return 0; }
static inline void ukplat_tlsp_set(__uptr pointer) { (void)pointer; }
void ukplat_lcpu_enable_irq(void);
void ukplat_lcpu_disable_irq(void);

/* ---- uk/plat/common/sections.h */
extern char made_up_image[];
#define __DATA ((uintptr_t)made_up_image)
#define __END ((uintptr_t)&apart + sizeof(apart)) /* nothing lies behind it */

/* ---- uk/console.h */
__ssz uk_console_out(const char *text, __sz size);

/* ---- uk/event.h */
#define UK_EVENT_NOT_HANDLED 0
#define UK_EVENT_HANDLED 1
#define UK_PRIO_EARLIEST 0
#define UK_EVENT_HANDLER_PRIO(event, handler, priority) \
    int (*made_up_handler)(void *) = handler

#ifdef MADE_UP_XEN /* ---- common/, with Xen's own headers */
#include <xen/xen.h>

#include <xen/event_channel.h>
#include <xen/grant_table.h>
#include <xen/sched.h>

int HYPERVISOR_event_channel_op(int operation, void *argument);
int HYPERVISOR_grant_table_op(unsigned operation, void *argument, unsigned count);
int HYPERVISOR_sched_op(int operation, void *argument);
long HYPERVISOR_set_timer_op(uint64_t until);
int HYPERVISOR_multicall(void *list, int count);
void mask_evtchn(evtchn_port_t port);
void unmask_evtchn(evtchn_port_t port);
void clear_evtchn(evtchn_port_t port);
extern int (*made_up_handler)(void *);
#endif

#endif
