/* SPDX-License-Identifier: Apache-2.0 */
/* A PV domain's traps, tick, sleep and console.
 *
 * Where the processor has an interrupt flag, Xen has evtchn_upcall_mask. It is set on every way
 * into the kernel; HYPERVISOR_iret clears it on the way to the program, and pv_wait() while it
 * waits.
 * The tick is a port of the kernel's own, older than the program's, and rings once: each tick sets
 * the next. What Xen keeps of a life before (ports, the tick) is used on. */

#include "hypercall.h"
#include "pv.h"

#include <xen/callback.h>
#include <xen/event_channel.h>
#include <xen/io/console.h>
#include <xen/sched.h>
#include <xen/vcpu.h>

#define TRAP_MASKS_EVENTS 4
#define BREAKPOINT 3
#define LOOKS 100 /* for room in the console's ring, each with a turn for others */

extern const uint64_t pv_stubs[EXCEPTIONS];
extern char kernel_stack_top[];
void pv_syscall_entry(void);
void pv_event_entry(void);
void pv_failsafe_entry(void);
NORETURN void pv_fail(void);

void pv_fail(void)
{
    crash_end(NULL, "Xen cannot return to the program");
}

/* ---- traps */

static void take(uint16_t type, void (*entry)(void))
{
    struct callback_register callback = {type, CALLBACKF_mask_events, (uint64_t)entry};
    if (hypercall(__HYPERVISOR_callback_op, CALLBACKOP_register, (uint64_t)&callback, 0))
        machine_off("Xen does not take a callback");
}

void pv_trap_init(void)
{
    struct trap_info traps[EXCEPTIONS + 1]; /* ends with zeros */
    memset(traps, 0, sizeof(traps));
    for (uint8_t vector = 0; vector < EXCEPTIONS; vector++)
        traps[vector] = (struct trap_info){
            vector, TRAP_MASKS_EVENTS | (vector == BREAKPOINT ? 3 : 0), SELECTOR_PV_CODE,
            pv_stubs[vector]};
    take(CALLBACKTYPE_event, pv_event_entry);
    take(CALLBACKTYPE_failsafe, pv_failsafe_entry);
    take(CALLBACKTYPE_syscall, pv_syscall_entry);
    if (hypercall(__HYPERVISOR_set_trap_table, (uint64_t)traps, 0, 0) ||
        hypercall(__HYPERVISOR_stack_switch, SELECTOR_PV_DATA, (uint64_t)kernel_stack_top, 0))
        machine_off("Xen does not take the trap table");
}

/* ---- time */

static uint64_t tick_next;

/* One that came late does not delay all others; those that were missed do not come at all. */
static void tick_set(void)
{
    uint64_t now = xen_time();
    tick_next = tick_next + PV_TICK_NS > now ? tick_next + PV_TICK_NS : now + PV_TICK_NS;
    hypercall(__HYPERVISOR_set_timer_op, tick_next, 0, 0);
}

void pv_tick_at(uint64_t ns)
{
    tick_next = xen_time() + ns;
    hypercall(__HYPERVISOR_set_timer_op, tick_next, 0, 0);
}

static uint64_t *word_of(xen_ulong_t *words) { return &words[keep.pv.tick_port / 64]; }

static uint64_t tick_bit(void) { return 1ull << keep.pv.tick_port % 64; }

/* Xen has a periodic tick, too, which does not end a sleep. */
void pv_tick_init(void)
{
    hypercall(__HYPERVISOR_vcpu_op, VCPUOP_stop_periodic_timer, 0, 0);
    __atomic_fetch_and(word_of(SHARED_INFO->evtchn_mask), ~tick_bit(), __ATOMIC_SEQ_CST);
    tick_set();
}

bool pv_tick(void)
{
    uint64_t before = __atomic_fetch_and(word_of(SHARED_INFO->evtchn_pending), ~tick_bit(),
                                         __ATOMIC_SEQ_CST);
    if (before & tick_bit())
        tick_set();
    return before & tick_bit();
}

/* Xen lets events in and sleeps in one step, unless one is there. It leaves them let in. */
void pv_wait(void)
{
    hypercall(__HYPERVISOR_sched_op, SCHEDOP_block, 0, 0);
    __atomic_store_n(&SHARED_INFO->vcpu_info[0].evtchn_upcall_mask, 1, __ATOMIC_SEQ_CST);
}

/* ---- the console: a ring that xenconsoled reads, or nobody */

/* Gives others some turns, once; a reader that does not read is asked once per piece then. */
static bool console_has_room(const struct xencons_interface *ring)
{
    static bool is_stuck;
    for (uint32_t looks = is_stuck ? 1 : LOOKS; looks > 0; looks--) {
        if (ring->out_prod - __atomic_load_n(&ring->out_cons, __ATOMIC_ACQUIRE) <
            sizeof(ring->out)) {
            is_stuck = false;
            return true;
        }
        hypercall(__HYPERVISOR_sched_op, SCHEDOP_yield, 0, 0);
    }
    is_stuck = true;
    return false;
}

void pv_console_write(const char *text, size_t size)
{
    if (!keep.pv.console_pa)
        return; /* too early */
    struct xencons_interface *ring = direct(keep.pv.console_pa);
    struct evtchn_send send = {keep.pv.console_port};
    for (size_t index = 0; index < size && console_has_room(ring); index++) {
        ring->out[MASK_XENCONS_IDX(ring->out_prod, ring->out)] = text[index];
        __atomic_store_n(&ring->out_prod, ring->out_prod + 1, __ATOMIC_RELEASE);
    }
    hypercall(__HYPERVISOR_event_channel_op, EVTCHNOP_send, (uint64_t)&send, 0);
}
