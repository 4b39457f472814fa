/* SPDX-License-Identifier: Apache-2.0 */
/* Event channels: /dev/xen/evtchn, as Linux has it.
 *
 *   E1. A port is masked from the moment when it is read until it is written back. While it is
 *       unmasked and pending, the device is readable: no event is lost, whenever it comes.
 *   E2. Every port is masked unless the program has bound it. Those that were there before us (the
 *       console's) are never touched.
 *   E3. A new life begins without ports: those of the last one are closed. Their other ends are
 *       reserved for us then, and binding one raises it, since something may have been missed.
 * The interface of two levels: 4,096 ports, bits in shared_info. Closing a descriptor closes no
 * port, unlike Linux. Knows nothing of what ports are for. */

#include "device.h"
#include "hypercall.h"
#include "linux.h"
#include "pv.h"

#include <xen/event_channel.h>
#include <xen/hvm/hvm_op.h>
#include <xen/hvm/params.h>

#define PORTS EVTCHN_2L_NR_CHANNELS
#define WORD_BITS 64
#define WORDS (PORTS / WORD_BITS)
#define BY_VECTOR ((uint64_t)HVM_PARAM_CALLBACK_TYPE_VECTOR << 56)

static int64_t evtchn_call(uint32_t operation, void *argument)
{
    return hypercall(__HYPERVISOR_event_channel_op, operation, (uint64_t)argument, 0);
}

static uint64_t bit_of(uint64_t port) { return 1ull << (port % WORD_BITS); }

static void mask(uint64_t port)
{
    __atomic_fetch_or(&SHARED_INFO->evtchn_mask[port / WORD_BITS], bit_of(port), __ATOMIC_SEQ_CST);
}

static void unmask(uint64_t port)
{
    __atomic_fetch_and(&SHARED_INFO->evtchn_mask[port / WORD_BITS], ~bit_of(port),
                       __ATOMIC_SEQ_CST);
}

static bool is_ours(uint64_t port) { return port >= keep.port_first && port < PORTS; }

static uint64_t raised_in(uint32_t word)
{
    uint64_t raised = __atomic_load_n(&SHARED_INFO->evtchn_pending[word], __ATOMIC_ACQUIRE) &
                      ~SHARED_INFO->evtchn_mask[word];
    bool has_tick = keep.pv.tick_port && keep.pv.tick_port / WORD_BITS == word;
    return has_tick ? raised & ~bit_of(keep.pv.tick_port) : raised;
}

/* ---- start */

static int64_t evtchn_close(uint32_t port)
{
    struct evtchn_close close = {port};
    mask(port);
    return evtchn_call(EVTCHNOP_close, &close);
}

/* Power-on: which ports are not ours. A restart: close those that are (E3). */
static void take_stock(void)
{
    bool is_first = keep.port_first == 0;
    uint32_t closed = 0;
    if (is_first)
        keep.port_first = 1;
    for (uint32_t port = 1; port < PORTS; port++) {
        struct evtchn_status status = {.dom = DOMID_SELF, .port = port};
        if (evtchn_call(EVTCHNOP_status, &status))
            break; /* there are no such ports yet */
        if (status.status == EVTCHNSTAT_closed)
            continue;
        if (is_first)
            keep.port_first = port + 1;
        else if (is_ours(port))
            closed += evtchn_close(port) == 0;
    }
    keep_seal();
    if (!is_first)
        log_debug("evtchn: %u ports closed", closed);
}

/* A PV domain's tick: older than the ports that are ours, so that no restart closes it. */
static void bind_tick(void)
{
    struct evtchn_bind_virq bind = {.virq = VIRQ_TIMER, .vcpu = 0};
    if (evtchn_call(EVTCHNOP_bind_virq, &bind))
        machine_off("Xen gives no timer");
    keep.pv.tick_port = bind.port;
}

void evtchn_init(void)
{
    if (!xen_leaf())
        return;
    for (uint32_t word = 0; word < WORDS; word++)
        __atomic_store_n(&SHARED_INFO->evtchn_mask[word], ~0ull, __ATOMIC_SEQ_CST);
    if (pv_is_on && !keep.pv.tick_port)
        bind_tick();
    take_stock();
    if (pv_is_on)
        return;
    struct xen_hvm_param callback = {
        .domid = DOMID_SELF, .index = HVM_PARAM_CALLBACK_IRQ, .value = BY_VECTOR | VECTOR_XEN,
    };
    if (hypercall(__HYPERVISOR_hvm_op, HVMOP_set_param, (uint64_t)&callback, 0))
        machine_off("Xen does not take a vector for events");
}

/* It has ended a wait, and that is all: whoever waited looks at the ports. Xen raises the vector
 * again for a port whose word's bit in evtchn_pending_sel is clear. */
void evtchn_upcall(void)
{
    struct vcpu_info *vcpu = &SHARED_INFO->vcpu_info[0];
    __atomic_store_n(&vcpu->evtchn_upcall_pending, 0, __ATOMIC_SEQ_CST);
    __atomic_store_n(&vcpu->evtchn_pending_sel, 0, __ATOMIC_SEQ_CST);
}

/* ---- the device */

static bool evtchn_exists(void) { return xen_leaf(); }

static uint32_t evtchn_poll(void)
{
    for (uint32_t word = 0; word < WORDS; word++)
        if (raised_in(word))
            return POLLIN | POLLOUT;
    return POLLOUT;
}

/* Ports, a word each. */
static int64_t evtchn_read(struct file *file, void *to, uint64_t size, uint64_t offset)
{
    (void)file, (void)offset;
    uint32_t *ports = to;
    uint64_t most = size / sizeof(*ports), count = 0;
    if (most == 0)
        return -EINVAL;
    for (uint32_t word = 0; word < WORDS; word++) {
        uint64_t raised = raised_in(word);
        for (; raised && count < most; raised &= raised - 1) {
            uint32_t port = word * WORD_BITS + (uint32_t)__builtin_ctzll(raised);
            mask(port);
            __atomic_fetch_and(&SHARED_INFO->evtchn_pending[word], ~bit_of(port),
                               __ATOMIC_SEQ_CST);
            ports[count++] = port;
        }
    }
    return count ? (int64_t)(count * sizeof(*ports)) : -EAGAIN;
}

static int64_t evtchn_write(struct file *file, const void *from, uint64_t size, uint64_t offset)
{
    (void)file, (void)offset;
    const uint32_t *ports = from;
    for (uint64_t index = 0; index < size / sizeof(*ports); index++)
        if (is_ours(ports[index]))
            unmask(ports[index]);
    return (int64_t)(size & -sizeof(*ports));
}

static int64_t bound(int64_t result, uint32_t port)
{
    if (result == 0 && !is_ours(port)) { /* beyond the bits, or before us */
        evtchn_close(port);
        result = -ENOSPC;
    }
    if (result)
        return result;
    unmask(port);
    return port;
}

static int64_t bind_virq(uint32_t virq)
{
    struct evtchn_bind_virq bind = {.virq = virq, .vcpu = 0};
    int64_t result = evtchn_call(EVTCHNOP_bind_virq, &bind);
    return bound(result, bind.port);
}

static int64_t bind_interdomain(const uint32_t *remote)
{
    struct evtchn_bind_interdomain bind = {.remote_dom = (domid_t)remote[0],
                                           .remote_port = remote[1]};
    int64_t result = evtchn_call(EVTCHNOP_bind_interdomain, &bind);
    return bound(result, bind.local_port);
}

static int64_t notify(uint32_t port)
{
    struct evtchn_send send = {port};
    return evtchn_call(EVTCHNOP_send, &send);
}

static int64_t evtchn_ioctl(uint64_t request, void *argument)
{
    const uint32_t *words = argument;
    switch (request) {
    case IOCTL_EVTCHN_BIND_VIRQ: return bind_virq(words[0]);
    case IOCTL_EVTCHN_BIND_INTERDOMAIN: return bind_interdomain(words);
    case IOCTL_EVTCHN_UNBIND: return is_ours(words[0]) ? evtchn_close(words[0]) : -EINVAL;
    case IOCTL_EVTCHN_NOTIFY: return is_ours(words[0]) ? notify(words[0]) : -EINVAL;
    case IOCTL_EVTCHN_RESET: return 0; /* Linux's queue may run over; here is none */
    default: return -ENOTTY;
    }
}

const struct device evtchn_device = {
    .path = "/dev/xen/evtchn", .mode = S_IFCHR | 0600, .exists = evtchn_exists,
    .read = evtchn_read, .write = evtchn_write, .poll = evtchn_poll, .ioctl = evtchn_ioctl,
};
