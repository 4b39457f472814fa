/* SPDX-License-Identifier: Apache-2.0 */
/* Event channels, and the one place where the server waits.
 *
 *   E1. A port that is raised is masked and noted; port_pending() unmasks it before it is told:
 *       what comes later raises it again. So no event is lost.
 *   E2. Ports older than the snapshot are Unikraft's own (the timer's) and the console's: never
 *       touched.
 *   E3. A new life begins without ports: those of the last one are closed. Their other ends are
 *       reserved for us then, and binding one raises it, since something may have been missed.
 *   E4. A wait blocks with upcalls off: Xen puts them on as it blocks, so nothing that comes in
 *       between is slept over. (ukplat_lcpu_halt_irq() puts them on before: docs/UNIKRAFT.md.)
 * Unikraft has 1,024 ports, where Xen has 4,096. Runs in interrupts, too: no floating point here.
 * Knows nothing of what ports are for. */

#include "tardigrade.h"

#include <errno.h>

#include <common/events.h>
#include <common/hypervisor.h>
#include <uk/event.h>
#include <uk/plat/lcpu.h>
#include <uk/plat/time.h>
#include <uk/prio.h>
#include <xen/event_channel.h>
#include <xen/sched.h>

#include "python.h"

#define WORD_BITS 64u

struct irq_event { struct __regs *regs; unsigned long port; }; /* as plat/xen/events.c has it */

static uint64_t raised[PORTS_MAX / WORD_BITS];
static uint32_t timer_port;
static uint64_t watchdog_ns, watchdog_left_ns, running_since;
static bool is_waiting;

static bool is_ours(uint64_t port)
{
    return keep.first_port && port >= keep.first_port && port < PORTS_MAX;
}

static int call(int operation, void *argument)
{
    return HYPERVISOR_event_channel_op(operation, argument);
}

/* ---- what is raised */

static void on_watchdog(struct __regs *regs)
{
    uint64_t ran = ukplat_monotonic_clock() - running_since;
    if (is_waiting || !watchdog_ns)
        return;
    if (ran < watchdog_left_ns) {
        HYPERVISOR_set_timer_op(running_since + watchdog_left_ns);
        return;
    }
    python_traceback("Stack of a program that makes no progress:");
    crash_end(regs, "watchdog: no progress in %lu ms", (unsigned long)(watchdog_ns / 1000000));
}

static int on_irq(void *data)
{
    const struct irq_event *event = data;
    if (timer_port && event->port == timer_port) {
        on_watchdog(event->regs);
        return UK_EVENT_HANDLED;
    }
    if (!is_ours(event->port))
        return UK_EVENT_NOT_HANDLED;
    mask_evtchn((evtchn_port_t)event->port);
    raised[event->port / WORD_BITS] |= 1ull << (event->port % WORD_BITS);
    return UK_EVENT_HANDLED;
}

UK_EVENT_HANDLER_PRIO(UKPLAT_EVENT_IRQ, on_irq, UK_PRIO_EARLIEST);

/* ---- the watchdog: running time, outside of waits */

static void start_running(void)
{
    running_since = ukplat_monotonic_clock();
    if (watchdog_ns)
        HYPERVISOR_set_timer_op(running_since + watchdog_left_ns);
}

void machine_watchdog(uint64_t ns)
{
    watchdog_ns = watchdog_left_ns = ns;
    start_running();
    if (!ns)
        HYPERVISOR_set_timer_op(0);
}

/* ---- waiting */

static bool has_raised(void)
{
    for (uint32_t word = 0; word < PORTS_MAX / WORD_BITS; word++)
        if (raised[word])
            return true;
    return false;
}

bool machine_wait(int64_t timeout_ns)
{
    crash_has_served();
    uint64_t now = ukplat_monotonic_clock();
    uint64_t end = timeout_ns < 0 ? 0 : now + (uint64_t)timeout_ns;
    if (watchdog_ns) {
        uint64_t ran = now - running_since;
        watchdog_left_ns = ran < watchdog_left_ns ? watchdog_left_ns - ran : 1;
    }
    ukplat_lcpu_disable_irq();
    is_waiting = true;
    while (!has_raised() && (timeout_ns < 0 || ukplat_monotonic_clock() < end)) {
        HYPERVISOR_set_timer_op(end);
        HYPERVISOR_sched_op(SCHEDOP_block, NULL);
        ukplat_lcpu_disable_irq();
    }
    is_waiting = false;
    bool found = has_raised();
    ukplat_lcpu_enable_irq();
    start_running();
    return found;
}

uint32_t port_pending(uint32_t *ports, uint32_t most)
{
    uint32_t count = 0;
    for (uint32_t word = 0; word < PORTS_MAX / WORD_BITS && count < most; word++) {
        while (count < most) {
            ukplat_lcpu_disable_irq();
            uint64_t bits = raised[word];
            raised[word] &= bits - 1;
            ukplat_lcpu_enable_irq();
            if (!bits)
                break;
            uint32_t port = word * WORD_BITS + (uint32_t)__builtin_ctzll(bits);
            unmask_evtchn(port);
            ports[count++] = port;
        }
    }
    return count;
}

/* ---- binding */

static int64_t bound(int result, evtchn_port_t port)
{
    if (result)
        return result;
    if (!is_ours(port)) {
        struct evtchn_close close = {.port = port};
        call(EVTCHNOP_close, &close);
        return -ENOSPC;
    }
    unmask_evtchn(port);
    return port;
}

int64_t port_bind_virq(uint32_t virq)
{
    struct evtchn_bind_virq bind = {.virq = virq, .vcpu = 0};
    int result = call(EVTCHNOP_bind_virq, &bind);
    return bound(result, bind.port);
}

int64_t port_bind(uint32_t domid, uint32_t port)
{
    struct evtchn_bind_interdomain bind = {.remote_dom = (domid_t)domid, .remote_port = port};
    int result = call(EVTCHNOP_bind_interdomain, &bind);
    return bound(result, bind.local_port);
}

static int close_port(uint32_t port)
{
    struct evtchn_close close = {.port = port};
    mask_evtchn(port);
    int result = call(EVTCHNOP_close, &close);
    clear_evtchn(port);
    return result;
}

int port_unbind(uint32_t port)
{
    if (!is_ours(port))
        return -EINVAL;
    int result = close_port(port);
    raised[port / WORD_BITS] &= ~(1ull << (port % WORD_BITS));
    return result;
}

int port_notify(uint32_t port)
{
    struct evtchn_send send = {.port = port};
    return is_ours(port) ? call(EVTCHNOP_send, &send) : -EINVAL;
}

/* ---- lives */

void ports_init(void)
{
    for (uint32_t port = 1; port < PORTS_MAX; port++) {
        struct evtchn_status status = {.dom = DOMID_SELF, .port = port};
        if (call(EVTCHNOP_status, &status))
            break; /* there are no such ports yet */
        if (status.status == EVTCHNSTAT_virq && status.u.virq == VIRQ_TIMER)
            timer_port = port;
    }
}

void ports_take_stock(void)
{
    keep.first_port = 1;
    for (uint32_t port = 1; port < PORTS_MAX; port++) {
        struct evtchn_status status = {.dom = DOMID_SELF, .port = port};
        if (call(EVTCHNOP_status, &status))
            break;
        if (status.status != EVTCHNSTAT_closed)
            keep.first_port = port + 1;
    }
    keep_seal();
}

void ports_reset(void)
{
    for (uint32_t port = (uint32_t)keep.first_port; port < PORTS_MAX; port++) {
        struct evtchn_status status = {.dom = DOMID_SELF, .port = port};
        if (call(EVTCHNOP_status, &status))
            break;
        if (status.status != EVTCHNSTAT_closed)
            close_port(port);
    }
}
