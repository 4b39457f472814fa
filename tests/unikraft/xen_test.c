/* SPDX-License-Identifier: Apache-2.0 */
/* evtchn.c, grant.c and privcmd.c on a hypervisor that is made up here: random calls, events at any moment, and
 * restarts, beside a plain account of what should be there. `xen_test SEED`.
 *
 * Cannot show: that Unikraft calls the handler as unikraft.h has it; the Xen lab boots it. */

#include "tardigrade.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "unikraft.h"

#define ROUNDS 200000
#define PORTS 64       /* so many has Xen room for */
#define OLD 4u         /* ports that were there before the program: 1 to 3 */
#define TIMER 2u
#define DOMAINS 20
#define HANDLES 64
#define CHECK(condition) \
    ((condition) ? (void)0 : (fprintf(stderr, "%d: %s\n", __LINE__, #condition), exit(9)))

static struct {
    bool is_bound, is_left, is_pending, is_masked, is_owed; /* is_left: by the other end */
    uint32_t domid;
} ports[PORTS];
static struct { bool is_mapped; uint64_t at; uint32_t domid; } mappings[HANDLES];
static bool irq_on = true;
static uint64_t state, timer_until, wait_end;
uint64_t made_up_now = 1;

static uint32_t below(uint32_t limit)
{
    state = state * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(state >> 33) % limit;
}

/* ---- Unikraft: what is pending and not masked is cleared and handled, if upcalls are on */

static void deliver(void)
{
    for (uint32_t port = 1; irq_on && port < PORTS; port++) {
        struct { struct __regs *regs; unsigned long port; } event = {NULL, port};
        if (!ports[port].is_pending || ports[port].is_masked)
            continue;
        ports[port].is_pending = false;
        int result = made_up_handler(&event);
        CHECK(result == (port == TIMER || port >= OLD ? UK_EVENT_HANDLED : UK_EVENT_NOT_HANDLED));
        CHECK(ports[port].is_masked == (port >= OLD)); /* it comes once, until it is told */
    }
}

void ukplat_lcpu_disable_irq(void) { irq_on = false; }
void ukplat_lcpu_enable_irq(void) { irq_on = true; deliver(); }
void mask_evtchn(evtchn_port_t port) { ports[port].is_masked = true; }
void unmask_evtchn(evtchn_port_t port) { ports[port].is_masked = false; deliver(); }
void clear_evtchn(evtchn_port_t port) { ports[port].is_pending = false; }

/* ---- Xen */

static void raise(uint32_t port)
{
    ports[port].is_pending = true;
    ports[port].is_owed = port >= OLD; /* it must be told */
    deliver();
}

static int new_port(uint32_t domid)
{
    for (uint32_t port = 1; port < PORTS; port++) {
        if (ports[port].is_bound)
            continue;
        ports[port].is_bound = ports[port].is_masked = true;
        ports[port].is_left = ports[port].is_pending = ports[port].is_owed = false;
        ports[port].domid = domid;
        return (int)port;
    }
    return -ENOSPC;
}

int HYPERVISOR_event_channel_op(int operation, void *argument)
{
    uint32_t number = *(uint32_t *)argument; /* of those that begin with it */
    struct evtchn_bind_interdomain *bind = argument;
    struct evtchn_status *status = argument;
    int port;
    switch (operation) {
    case EVTCHNOP_bind_interdomain:
        port = bind->remote_port == 100u + bind->remote_dom ? new_port(bind->remote_dom) : -EINVAL;
        bind->local_port = (evtchn_port_t)port;
        if (port > 0) {
            ports[port].is_pending = ports[port].is_owed = true; /* binding raises */
        }
        return port < 0 ? port : 0;
    case EVTCHNOP_status:
        if (status->port >= PORTS)
            return -EINVAL;
        status->status = !ports[status->port].is_bound ? EVTCHNSTAT_closed
                         : ports[status->port].is_left ? EVTCHNSTAT_unbound : EVTCHNSTAT_interdomain;
        status->u.interdomain.dom = (domid_t)ports[status->port].domid;
        if (ports[status->port].is_left)
            status->u.unbound.dom = (domid_t)ports[status->port].domid;
        if (status->port == TIMER) {
            status->status = EVTCHNSTAT_virq;
            status->u.virq = VIRQ_TIMER;
        }
        return 0;
    case EVTCHNOP_close:
        CHECK(number >= OLD);
        if (!ports[number].is_bound)
            return -EINVAL;
        ports[number].is_bound = ports[number].is_owed = false;
        return 0;
    case EVTCHNOP_send: return ports[number].is_bound ? 0 : -EINVAL;
    default: return -ENOSYS;
    }
}

int HYPERVISOR_grant_table_op(unsigned operation, void *argument, unsigned count)
{
    struct gnttab_map_grant_ref *map = argument;
    struct gnttab_unmap_grant_ref *unmap = argument;
    CHECK(count == 1);
    if (operation == GNTTABOP_map_grant_ref) {
        CHECK(map->host_addr % __PAGE_SIZE == 0 && map->flags == GNTMAP_host_map);
        map->status = map->ref == 1 && map->dom < DOMAINS ? GNTST_okay : GNTST_bad_gntref;
        if (map->status != GNTST_okay)
            return 0;
        for (uint32_t handle = HANDLES - 1; handle; handle--) {
            CHECK(!mappings[handle].is_mapped || mappings[handle].at != map->host_addr);
            map->handle = mappings[handle].is_mapped ? map->handle : handle;
        }
        mappings[map->handle].is_mapped = true;
        mappings[map->handle].at = map->host_addr;
        mappings[map->handle].domid = map->dom;
        return 0;
    }
    bool is_right = mappings[unmap->handle].is_mapped &&
                    mappings[unmap->handle].at == unmap->host_addr;
    CHECK(is_right);
    mappings[unmap->handle].is_mapped = false;
    unmap->status = GNTST_okay;
    return 0;
}

/* Domains are not ours to ask for, unless somebody allows it. */
static long permission = -EPERM;

int HYPERVISOR_multicall(void *list, int count)
{
    multicall_entry_t *call = list;
    CHECK(count == 1 && !call->args[1]);
    CHECK(call->op == __HYPERVISOR_domctl || call->op == __HYPERVISOR_sysctl);
    call->result = (xen_ulong_t)permission;
    return 0;
}

static bool is_any_owed(void)
{
    for (uint32_t port = OLD; port < PORTS; port++)
        if (ports[port].is_bound && ports[port].is_owed)
            return true;
    return false;
}

/* Nobody sleeps over an event. Upcalls go on as it blocks (E4); the timer or somebody else ends it. */
int HYPERVISOR_sched_op(int operation, void *argument)
{
    CHECK(operation == SCHEDOP_block && !argument && !irq_on && !is_any_owed());
    CHECK(timer_until == wait_end);
    irq_on = true;
    deliver();
    made_up_now = timer_until ? timer_until : made_up_now + 1;
    uint32_t port = OLD + below(PORTS - OLD);
    if (ports[port].is_bound)
        raise(port);
    return 0;
}

long HYPERVISOR_set_timer_op(uint64_t until) { timer_until = until; return 0; }

/* ---- what crash.c and module.c have */

void crash_has_served(void) {}
void python_traceback(const char *line) { (void)line; }
void crash_end(const struct __regs *regs, const char *text, ...) { (void)regs, (void)text; exit(8); }
void panic_at(const char *file, uint32_t line, const char *text, ...)
{
    fprintf(stderr, "%s:%u: %s\n", file, line, text);
    exit(7);
}

/* ---- the test */

static void take_pending(void)
{
    uint32_t told[PORTS], count = port_pending(told, 1 + below(PORTS));
    for (uint32_t index = 0; index < count; index++) {
        CHECK(ports[told[index]].is_bound);
        ports[told[index]].is_owed = false;
    }
}

static void nothing_is_lost(void)
{
    uint32_t told[PORTS];
    while (port_pending(told, 1))
        ports[told[0]].is_owed = false;
    for (uint32_t port = OLD; port < PORTS; port++)
        CHECK(!ports[port].is_owed && !(ports[port].is_bound && ports[port].is_masked));
}

static void bind_one(void)
{
    uint32_t domid = below(DOMAINS);
    int64_t port = port_bind(domid, 100 + domid + (below(10) == 0));
    CHECK(port == -ENOSPC || port == -EINVAL || (port >= OLD && ports[port].domid == domid));
}

static void unbind_one(uint32_t port)
{
    bool was_bound = ports[port].is_bound;
    CHECK(port_unbind(port) == (was_bound ? 0 : -EINVAL) && !ports[port].is_pending);
}

static void wait_a_while(void)
{
    uint32_t timeout_ns = below(1000);
    wait_end = made_up_now + timeout_ns;
    CHECK(machine_wait(timeout_ns) == is_any_owed());
}

static void *pages[GRANT_SLOTS];

static void map_or_unmap(void)
{
    uint32_t index = below(GRANT_SLOTS);
    int error;
    if (pages[index])
        CHECK(grant_unmap(pages[index]) == 0 && grant_unmap(pages[index]) == -EINVAL);
    pages[index] = pages[index] ? NULL : grant_map(below(DOMAINS + 2), 1, &error);
}

/* ---- domains */

#define GETDOMAININFO 5
#define GETDOMAININFOLIST 6

static union { uint32_t words[256]; struct { uint32_t command, version; uint16_t domain; }; } op;

static long ask(unsigned long number, uint32_t command, uint32_t domid)
{
    memset(&op, 0xa5, sizeof(op));
    op.command = command;
    op.domain = (uint16_t)domid;
    return xen_hypercall(number, (unsigned long[]){(unsigned long)&op, 0, 0, 0, 0});
}

static void ask_for_one(void)
{
    uint32_t domid = below(DOMAINS), connected = 0, left = 0;
    for (uint32_t port = OLD; port < PORTS; port++)
        if (ports[port].is_bound && ports[port].domid == domid)
            *(ports[port].is_left ? &left : &connected) += 1;
    CHECK(ask(__HYPERVISOR_domctl, GETDOMAININFO, domid) == 0);
    bool is_dying = left && !connected;
    CHECK(op.words[4] == domid && op.words[5] == is_dying && op.words[255] == 0);
}

static void a_domain_dies(void)
{
    uint32_t domid = below(DOMAINS);
    for (uint32_t port = OLD; port < PORTS; port++)
        if (ports[port].is_bound && ports[port].domid == domid)
            ports[port].is_left = true;
}

static void only_two_questions(void)
{
    CHECK(ask(__HYPERVISOR_domctl, GETDOMAININFO + 1, 1) == -EPERM && op.words[4] == 0xa5a5a5a5);
    CHECK(ask(__HYPERVISOR_sysctl, GETDOMAININFOLIST, 1) == -EPERM && op.words[4] == 0xa5a5a5a5);
    permission = 0; /* what Xen answers is what counts */
    CHECK(ask(__HYPERVISOR_domctl, GETDOMAININFO, 1) == 0 && op.words[4] == 0xa5a5a5a5);
    CHECK(ask(__HYPERVISOR_sysctl, GETDOMAININFOLIST, 1) == 0);
    CHECK(ask(__HYPERVISOR_sysctl, GETDOMAININFO, 1) == -EPERM);
    CHECK(ask(__HYPERVISOR_domctl, GETDOMAININFOLIST, 1) == -EPERM);
    CHECK(ask(__HYPERVISOR_memory_op, GETDOMAININFO, 1) == -EPERM);
    permission = -ESRCH;
    CHECK(ask(__HYPERVISOR_domctl, GETDOMAININFO, 1) == -ESRCH && op.words[4] == 0xa5a5a5a5);
}

static void restart(void)
{
    ports_reset();
    grant_reset();
    uint32_t told[PORTS]; /* the snapshot knows of none */
    while (port_pending(told, PORTS))
        ;
    memset(pages, 0, sizeof(pages));
    for (uint32_t port = 1; port < PORTS; port++)
        CHECK(ports[port].is_bound == (port < OLD));
    for (uint32_t handle = 0; handle < HANDLES; handle++)
        CHECK(!mappings[handle].is_mapped);
}

int main(int argc, char **argv)
{
    state = argc > 1 ? strtoull(argv[1], NULL, 10) : 1;
    for (uint32_t port = 1; port < OLD; port++)
        ports[port].is_bound = true;
    ports_init();
    ports_take_stock();
    CHECK(keep.first_port == OLD && keep_is_whole());
    for (uint32_t round = 0; round < ROUNDS; round++) {
        uint32_t port = OLD + below(PORTS - OLD);
        switch (below(10)) {
        case 0: bind_one(); break;
        case 1: unbind_one(port); break;
        case 2: if (ports[port].is_bound) raise(port); break;
        case 3: take_pending(); break;
        case 4: nothing_is_lost(); break;
        case 5: map_or_unmap(); break;
        case 6: wait_a_while(); break;
        case 7: if (below(200) == 0) restart(); break;
        case 8: ask_for_one(); break;
        case 9: if (below(10) == 0) a_domain_dies(); break;
        }
        CHECK(irq_on);
    }
    CHECK(port_unbind(1) == -EINVAL && port_notify(TIMER) == -EINVAL);
    restart();
    only_two_questions();
    printf("%u rounds\n", ROUNDS);
    return 0;
}
