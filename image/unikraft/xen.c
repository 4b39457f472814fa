/* SPDX-License-Identifier: Apache-2.0 */
/* The domain that we are: what machine_*() means on Xen.
 *
 *   X1. Unikraft's interrupt stack pointer lies beyond its interrupt stack as soon as stacks are
 *       larger than that one (docs/UNIKRAFT.md, report 1). It is set right at the start, before
 *       the first event can come in.
 *   X2. The watchdog is Xen's one-shot timer, while nobody waits: evtchn.c hears of it. */

#include "tardigrade.h"

#include <common/events.h>
#include <common/hypervisor.h>
#include <uk/boot/earlytab.h>
#include <uk/plat/config.h>
#include <uk/plat/time.h>
#include <uk/prio.h>
#include <xen/sched.h>

extern char irqstack[]; /* plat/xen/x86/arch_events.c; CPU_EXCEPT_STACK_SIZE bytes */

struct pda { int count; char *stack; }; /* what %gs points to: entry64.S */

/* X1. The only way to it is %gs, whose base PV domains may ask the processor for or not: its second
 * word is written through the segment. */
static int fix_irqstack(struct ukplat_bootinfo *info)
{
    (void)info;
    char *top = irqstack + CPU_EXCEPT_STACK_SIZE;
    __asm__ volatile("movq %0, %%gs:%c1" : : "r"(top), "i"(offsetof(struct pda, stack)) : "memory");
    return 0;
}

UK_BOOT_EARLYTAB_ENTRY(fix_irqstack, UK_PRIO_EARLIEST);

void machine_init(void)
{
    ports_init();
}

void machine_before_snapshot(void)
{
    ports_take_stock();
}

void machine_reset(void)
{
    HYPERVISOR_set_timer_op(0);
    ports_reset();
    grant_reset();
}

void machine_delay(uint64_t ns)
{
    uint64_t end = ukplat_monotonic_clock() + ns;
    struct sched_poll poll = {.nr_ports = 0, .timeout = end};
    set_xen_guest_handle(poll.ports, NULL);
    while (ukplat_monotonic_clock() < end)
        HYPERVISOR_sched_op(SCHEDOP_poll, &poll);
}
