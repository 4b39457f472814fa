/* SPDX-License-Identifier: Apache-2.0 */
/* evtchn.c, grant.c, xenbus.c and privcmd.c on a hypervisor that is made up here, with the habits
 * that were measured: it ends a domain that maps over a frame; a handle that belongs to another
 * mapping of the same page is taken for the right one; a peer's port is unbound when ours is closed;
 * binding raises. Random calls of the devices, and restarts, beside a plain account of what should
 * be there. `xen_test SEED`; `xen_test SEED pv`: as a PV domain, where the page tables are made up,
 * too. */

#include <errno.h>

#include "device.h"
#include "hypercall.h"
#include "hypercall_page.h"
#include "machine.h"
#include "pv.h"

#include <xen/event_channel.h>
#include <xen/grant_table.h>
#include <xen/hvm/hvm_op.h>
#include <xen/hvm/params.h>

#define ROUNDS 40000
#define PORTS_MAX 128 /* so many has Xen room for just now */
#define OLD_PORTS (pv_is_on ? 3u : 2u) /* made by the tool before we run; a PV domain's tick */
#define DOMAINS 24
#define GREF 1
#define HANDLES 200000
#define VIRQ_DOM_EXC 3
#define LOST_SLOT 5   /* memory that was never there in our map is there in Xen's */
#define ENTRIES_MACHINE 0x5a000 /* of page table entries; grants are mapped by some of them */
#define NUMBER(letter, number, size) ((uint64_t)(size) << 16 | (uint64_t)(letter) << 8 | (number))
enum { POLL_IN = 1, POLL_OUT = 4 };

struct options options;

/* ---- Xen's side */

struct port { uint32_t status, domid, remote; };
struct mapping { bool is_active; uint64_t pa; uint32_t domid; };
static struct port ports[PORTS_MAX];
static struct mapping mappings[HANDLES];
static uint32_t handle_next, callback_vector;
static bool has_privilege = true;
static bool is_bound[DOMAINS];   /* a domain's end of the channel to us */
static uint32_t notified[DOMAINS];
static int64_t window[GRANT_SLOTS + 1]; /* frames: 0 hole, -1 memory, else domid + 1 */

static uint64_t bit_of(uint32_t port) { return 1ull << (port % 64); }

static void raise(uint32_t port)
{
    SHARED_INFO->evtchn_pending[port / 64] |= bit_of(port);
}

static int64_t new_port(struct port port)
{
    for (uint32_t index = 1; index < PORTS_MAX; index++)
        if (ports[index].status == EVTCHNSTAT_closed) {
            ports[index] = port;
            return index;
        }
    return -ENOSPC;
}

static int64_t xen_bind_interdomain(struct evtchn_bind_interdomain *bind)
{
    uint32_t domid = bind->remote_dom;
    if (domid >= DOMAINS || bind->remote_port != domid + 100 || is_bound[domid])
        return -EINVAL;
    int64_t port = new_port((struct port){EVTCHNSTAT_interdomain, domid, domid + 100});
    if (port < 0)
        return port;
    bind->local_port = (uint32_t)port;
    is_bound[domid] = true;
    raise(bind->local_port);
    return 0;
}

static int64_t xen_bind_virq(struct evtchn_bind_virq *bind)
{
    for (uint32_t index = 1; index < PORTS_MAX; index++)
        if (ports[index].status == EVTCHNSTAT_virq && ports[index].remote == bind->virq)
            return -EEXIST;
    int64_t port = new_port((struct port){EVTCHNSTAT_virq, 0, bind->virq});
    bind->port = (uint32_t)port;
    return port < 0 ? port : 0;
}

static int64_t xen_evtchn(uint64_t operation, void *argument)
{
    uint32_t port = *(uint32_t *)argument; /* of those that begin with it */
    bool is_there = port < PORTS_MAX && ports[port].status != EVTCHNSTAT_closed;
    struct evtchn_status *status = argument;
    switch (operation) {
    case EVTCHNOP_bind_interdomain: return xen_bind_interdomain(argument);
    case EVTCHNOP_bind_virq: return xen_bind_virq(argument);
    case EVTCHNOP_status:
        if (status->dom != DOMID_SELF || status->port >= PORTS_MAX)
            return -EINVAL;
        status->status = ports[status->port].status;
        status->u.unbound.dom = (domid_t)ports[status->port].domid; /* of both kinds, there */
        return 0;
    case EVTCHNOP_close:
        if (!is_there)
            return -EINVAL;
        CHECK(port > OLD_PORTS, "the console's port was closed");
        if (ports[port].status == EVTCHNSTAT_interdomain)
            is_bound[ports[port].domid] = false;
        ports[port].status = EVTCHNSTAT_closed;
        SHARED_INFO->evtchn_pending[port / 64] &= ~bit_of(port);
        return 0;
    case EVTCHNOP_send:
        if (!is_there || ports[port].status != EVTCHNSTAT_interdomain)
            return -EINVAL;
        notified[ports[port].domid]++;
        return 0;
    default: return -ENOSYS;
    }
}

static uint64_t frame_of(uint64_t pa)
{
    if (pv_is_on) {
        CHECK(pa % 8 == 0 && pa > ENTRIES_MACHINE && pa <= ENTRIES_MACHINE + GRANT_SLOTS * 8);
        return (pa - ENTRIES_MACHINE) / 8;
    }
    CHECK(pa % PAGE_SIZE == 0 && pa > XEN_WINDOW_PA && pa < XEN_WINDOW_PA + XEN_WINDOW_SIZE);
    return (pa - XEN_WINDOW_PA) / PAGE_SIZE;
}

static int64_t xen_grant(uint64_t operation, void *argument, uint64_t count)
{
    struct gnttab_map_grant_ref *map = argument;
    struct gnttab_unmap_grant_ref *unmap = argument;
    CHECK(count == 1);
    if (operation == GNTTABOP_map_grant_ref) {
        uint64_t frame = frame_of(map->host_addr);
        CHECK(window[frame] == 0, "Xen has ended the domain");
        CHECK(map->flags & GNTMAP_host_map && handle_next < HANDLES);
        CHECK(!(map->flags & GNTMAP_contains_pte) == !pv_is_on);
        map->handle = handle_next++;
        map->status = map->dom < DOMAINS && map->ref == GREF ? GNTST_okay : GNTST_general_error;
        if (map->status == GNTST_okay) {
            window[frame] = map->dom + 1;
            mappings[map->handle] = (struct mapping){true, map->host_addr, map->dom};
        }
        return 0;
    }
    CHECK(operation == GNTTABOP_unmap_grant_ref);
    uint64_t frame = frame_of(unmap->host_addr);
    const struct mapping *mapping = &mappings[unmap->handle];
    unmap->status = GNTST_bad_handle;
    if (unmap->handle < HANDLES && mapping->is_active && window[frame] == mapping->domid + 1) {
        CHECK(mapping->pa == unmap->host_addr, "another mapping's handle");
        mappings[unmap->handle].is_active = false;
        window[frame] = 0;
        unmap->status = GNTST_okay;
    }
    return 0;
}

static int64_t xen_hvm(uint64_t operation, void *argument)
{
    CHECK(!pv_is_on);
    struct xen_hvm_get_mem_type *type = argument;
    const struct xen_hvm_param *param = argument;
    if (operation == HVMOP_get_mem_type) {
        bool is_hole = window[frame_of(type->pfn * PAGE_SIZE)] == 0;
        type->mem_type = is_hole ? HVMMEM_mmio_dm : HVMMEM_ram_rw;
        return 0;
    }
    CHECK(operation == HVMOP_set_param && param->index == HVM_PARAM_CALLBACK_IRQ);
    CHECK(param->value >> 56 == HVM_PARAM_CALLBACK_TYPE_VECTOR);
    callback_vector = (uint32_t)param->value;
    return 0;
}

int64_t made_up_xen(uint64_t a, uint64_t b, uint64_t c, uint32_t number)
{
    switch (number) {
    case __HYPERVISOR_event_channel_op: return xen_evtchn(a, (void *)b);
    case __HYPERVISOR_grant_table_op: return xen_grant(a, (void *)b, c);
    case __HYPERVISOR_hvm_op: return xen_hvm(a, (void *)b);
    case __HYPERVISOR_domctl: case __HYPERVISOR_sysctl:
        return has_privilege ? 77 : -EPERM;
    default: CHECK(false, "hypercall %u", number);
    }
}

/* ---- what the kernel's files call beside it */

static uint64_t shared_pa[GRANT_SLOTS]; /* what the program has mapped; 0: nothing */
static uint64_t user_from, user_end;

uint32_t xen_leaf(void) { return 0x40000000; }
bool user_can_write(uint64_t va, uint64_t size) { return va >= user_from && va + size <= user_end; }

bool memory_shares(uint64_t pa)
{
    for (uint32_t index = 0; index < GRANT_SLOTS; index++)
        if (shared_pa[index] == pa)
            return true;
    return false;
}

#define SILENT(name) void name(const char *text, ...) { (void)text; }
SILENT(log_error)
SILENT(log_debug)

/* ---- the program's side: what it has, and what it should hear */

static uint32_t bound_to[DOMAINS];  /* the local port; 0: none */
static uint32_t virq_port;
static bool is_out[PORTS_MAX];      /* told, and not written back */
static uint64_t grant_index[GRANT_SLOTS];
static uint64_t grant_entry[GRANT_SLOTS]; /* where it is mapped, in a PV domain */
static uint32_t grant_count;

static int64_t evtchn(uint32_t number, uint32_t size, uint32_t first, uint32_t second)
{
    uint32_t words[2] = {first, second};
    return evtchn_device.ioctl(NUMBER('E', number, size), words);
}

static void do_bind(void)
{
    uint32_t domid = (uint32_t)random_below(DOMAINS);
    int64_t port = evtchn(1, 8, domid, domid + 100);
    CHECK((port > OLD_PORTS) == (bound_to[domid] == 0), "%ld", port);
    if (port > 0) {
        bound_to[domid] = (uint32_t)port;
        is_out[port] = false;
    } else {
        CHECK(port == -EINVAL);
    }
}

static void do_bind_virq(void)
{
    int64_t port = evtchn(0, 4, VIRQ_DOM_EXC, 0);
    CHECK(port == -EEXIST ? virq_port != 0 : port > OLD_PORTS && !virq_port);
    if (port > 0) {
        virq_port = (uint32_t)port;
        is_out[port] = false;
    }
}

static void do_unbind(void)
{
    uint32_t domid = (uint32_t)random_below(DOMAINS), port = bound_to[domid];
    CHECK(evtchn(3, 4, port, 0) == (port ? 0 : -EINVAL));
    CHECK(evtchn(3, 4, 1, 0) == -EINVAL && evtchn(3, 4, 1u << 31, 0) == -EINVAL);
    bound_to[domid] = 0;
}

static void do_notify(void)
{
    uint32_t domid = (uint32_t)random_below(DOMAINS), before = notified[domid];
    CHECK(evtchn(4, 4, bound_to[domid], 0) == (bound_to[domid] ? 0 : -EINVAL));
    CHECK(notified[domid] == before + (bound_to[domid] != 0));
}

static void do_raise(void)
{
    uint32_t domid = (uint32_t)random_below(DOMAINS);
    if (bound_to[domid])
        raise(bound_to[domid]);
    if (virq_port && random_below(4) == 0)
        raise(virq_port);
    raise(1); /* the console's: nobody may hear of it */
    if (pv_is_on)
        raise(keep.pv.tick_port); /* the kernel's */
}

static bool is_to_be_told(uint32_t port)
{
    return port > OLD_PORTS && ports[port].status != EVTCHNSTAT_closed && !is_out[port] &&
           SHARED_INFO->evtchn_pending[port / 64] & bit_of(port);
}

/* All that are pending, each once; or some of them. */
static void do_read(void)
{
    uint32_t words[PORTS_MAX], expected = 0;
    for (uint32_t port = 0; port < PORTS_MAX; port++)
        expected += is_to_be_told(port);
    uint64_t most = 1 + random_below(random_below(2) ? 3 : PORTS_MAX);
    CHECK(evtchn_device.poll() == (expected ? POLL_IN | POLL_OUT : POLL_OUT));
    CHECK(evtchn_device.read(NULL, words, 3, 0) == -EINVAL);
    int64_t size = evtchn_device.read(NULL, words, most * 4 + random_below(4), 0);
    uint64_t count = expected < most ? expected : most;
    CHECK(size == (count ? (int64_t)count * 4 : -EAGAIN));
    for (uint64_t index = 0; index < count; index++) {
        CHECK(!is_out[words[index]] && words[index] < PORTS_MAX);
        is_out[words[index]] = true;
        CHECK(!(SHARED_INFO->evtchn_pending[words[index] / 64] & bit_of(words[index])));
    }
}

static void do_write(void)
{
    uint32_t words[PORTS_MAX + 2], count = 0;
    for (uint32_t port = 0; port < PORTS_MAX; port++)
        if (is_out[port] && ports[port].status != EVTCHNSTAT_closed && random_below(4)) {
            words[count++] = port;
            is_out[port] = false;
        }
    words[count] = 1; /* not ours */
    words[count + 1] = UINT32_MAX;
    CHECK(evtchn_device.write(NULL, words, (count + 2) * 4, 0) == (int64_t)(count + 2) * 4);
}

struct map_request { uint32_t count, pad; uint64_t index; uint32_t domid, ref; };
struct unmap_request { uint64_t index; uint32_t count, pad; };

static void do_map_pv(void)
{
    uint32_t domid = (uint32_t)random_below(DOMAINS + 2), ref = random_below(10) ? GREF : 2;
    struct map_request request = {1, 0, 0, domid, ref};
    int64_t result = gntdev_device.ioctl(NUMBER('G', 0, 24), &request);
    CHECK(result == (grant_count < GRANT_SLOTS ? 0 : -ENOSPC));
    if (result)
        return;
    uint64_t pa = (uint64_t)gntdev_device.mmap(PAGE_SIZE, request.index), frame = 1;
    CHECK(grant_is_slot(pa) && !grant_is_slot(pa - GRANT_SLOTS * PAGE_SIZE));
    while (window[frame])
        frame++;
    uint64_t entry = ENTRIES_MACHINE + frame * 8;
    bool is_there = domid < DOMAINS && ref == GREF, stays = random_below(2);
    CHECK(grant_attach(pa, entry, true) == (is_there ? 0 : -EINVAL));
    CHECK(window[frame] == (is_there ? domid + 1 : 0));
    if (is_there)
        CHECK(grant_attach(pa, entry + 8, true) == -EBUSY);
    if (is_there && !stays)
        CHECK(grant_detach(entry) == pa && window[frame] == 0);
    shared_pa[grant_count] = is_there && stays ? pa : 0;
    grant_entry[grant_count] = entry;
    grant_index[grant_count++] = request.index;
}

static void do_map(void)
{
    if (pv_is_on) {
        do_map_pv();
        return;
    }
    uint32_t domid = (uint32_t)random_below(DOMAINS + 2), ref = random_below(10) ? GREF : 2;
    struct map_request request = {1, 0, 0, domid, ref};
    int64_t result = gntdev_device.ioctl(NUMBER('G', 0, 24), &request);
    bool has_room = grant_count < GRANT_SLOTS - 1; /* LOST_SLOT */
    CHECK(result == (!has_room ? -ENOSPC : domid < DOMAINS && ref == GREF ? 0 : -EINVAL));
    if (result)
        return;
    int64_t pa = gntdev_device.mmap(PAGE_SIZE, request.index);
    CHECK(pa > 0 && window[frame_of((uint64_t)pa)] == domid + 1);
    CHECK(gntdev_device.mmap(2 * PAGE_SIZE, request.index) == -EINVAL);
    shared_pa[grant_count] = random_below(2) ? (uint64_t)pa : 0;
    grant_index[grant_count++] = request.index;
}

static void do_unmap(void)
{
    struct unmap_request request = {GRANT_SLOTS * PAGE_SIZE, 1, 0};
    CHECK(gntdev_device.ioctl(NUMBER('G', 1, 16), &request) == -EINVAL);
    if (grant_count == 0)
        return;
    uint32_t which = (uint32_t)random_below(grant_count);
    request.index = grant_index[which];
    if (shared_pa[which])
        CHECK(gntdev_device.ioctl(NUMBER('G', 1, 16), &request) == -EBUSY);
    if (pv_is_on && shared_pa[which])
        CHECK(grant_detach(grant_entry[which]) == shared_pa[which]);
    shared_pa[which] = 0;
    CHECK(gntdev_device.ioctl(NUMBER('G', 1, 16), &request) == 0);
    CHECK(gntdev_device.ioctl(NUMBER('G', 1, 16), &request) == -EINVAL);
    grant_count--;
    grant_index[which] = grant_index[grant_count];
    grant_entry[which] = grant_entry[grant_count];
    shared_pa[which] = shared_pa[grant_count];
    shared_pa[grant_count] = 0;
}

static void check_nothing_is_left(void)
{
    for (uint32_t port = OLD_PORTS + 1; port < PORTS_MAX; port++)
        CHECK(ports[port].status == EVTCHNSTAT_closed);
    for (uint32_t port = 1; port <= OLD_PORTS; port++)
        CHECK(ports[port].status != EVTCHNSTAT_closed);
    for (uint32_t handle = 0; handle < handle_next; handle++)
        CHECK(!mappings[handle].is_active);
    for (uint32_t frame = 1; frame <= GRANT_SLOTS; frame++)
        CHECK(window[frame] == (!pv_is_on && frame == LOST_SLOT + 1 ? -1 : 0));
}

/* What begin_again of bootentry.S does, and the tick's unmasking. */
static void begin(void)
{
    evtchn_init();
    grant_init();
    if (!pv_is_on)
        return;
    for (uint32_t index = 0; index < grant_count; index++) { /* .bss is not cleared here */
        struct unmap_request request = {grant_index[index], 1, 0};
        CHECK(gntdev_device.ioctl(NUMBER('G', 1, 16), &request) == 0);
    }
    SHARED_INFO->evtchn_mask[0] &= ~bit_of(keep.pv.tick_port);
}

static void restart(void)
{
    keep.restarts++;
    memset(bound_to, 0, sizeof(bound_to));
    memset(is_out, 0, sizeof(is_out));
    memset(shared_pa, 0, sizeof(shared_pa));
    begin();
    virq_port = grant_count = 0;
    CHECK(pv_is_on || callback_vector == VECTOR_XEN);
    check_nothing_is_left();
}

static void do_restart(void)
{
    if (random_below(20) == 0)
        restart();
}

static void check_upcall(void)
{
    struct vcpu_info *vcpu = &SHARED_INFO->vcpu_info[0];
    vcpu->evtchn_upcall_pending = 1;
    vcpu->evtchn_pending_sel = 5;
    evtchn_upcall();
    CHECK(!vcpu->evtchn_upcall_pending && !vcpu->evtchn_pending_sel);
}

static void check_xenbus(void)
{
    CHECK(!xenbus_device.exists());
    options.event_port = 14;
    CHECK(xenbus_device.exists() && xenbus_device.ioctl(NUMBER('B', 0, 0), NULL) == 14);
    options.event_port = EVENT_FIND;
    bool was_bound = is_bound[0];
    is_bound[0] = true;
    CHECK(xenbus_device.exists() && xenbus_device.ioctl(NUMBER('B', 0, 0), NULL) == -ENODEV);
    is_bound[0] = false;
    CHECK(xenbus_device.ioctl(NUMBER('B', 0, 0), NULL) == 100 && !is_bound[0]);
    is_bound[0] = was_bound;
    CHECK(xenbus_device.mmap(PAGE_SIZE, PAGE_SIZE) == -EINVAL);
    int64_t pa = xenbus_device.mmap(PAGE_SIZE, 0);
    CHECK(pa > 0 && (pv_is_on || window[frame_of((uint64_t)pa)] == 0 + 1));
}

static struct { uint32_t command, version; uint16_t first; uint32_t most; uint64_t buffer_va;
                char rest[1000]; } operation;

static int64_t ask(uint64_t number, uint32_t command, uint32_t most, uint64_t buffer_va)
{
    operation.command = command;
    operation.first = 5;
    operation.most = most;
    operation.buffer_va = buffer_va;
    user_from = (uint64_t)&operation;
    user_end = user_from + sizeof(operation);
    uint64_t call[6] = {number, (uint64_t)&operation};
    int64_t result = privcmd_device.ioctl(NUMBER('P', 0, 48), call);
    call[1] += 8; /* it ends outside of the program's memory */
    CHECK(result == -EPERM || privcmd_device.ioctl(NUMBER('P', 0, 48), call) == -EFAULT);
    return result;
}

static void check_privcmd(void)
{
    CHECK(ask(__HYPERVISOR_domctl, 5, 0, 0) == 77);
    CHECK(ask(__HYPERVISOR_domctl, 2, 0, 0) == -EPERM);
    CHECK(ask(__HYPERVISOR_sysctl, 5, 0, 0) == -EPERM);
    CHECK(ask(__HYPERVISOR_sysctl, 6, 1, 0) == -EFAULT);
    CHECK(ask(__HYPERVISOR_sysctl, 6, 3, user_from + 16) == 77);
    CHECK(ask(__HYPERVISOR_sysctl, 6, 4, user_from + 16) == -EFAULT);
    CHECK(ask(__HYPERVISOR_sysctl, 6, UINT32_MAX, user_from) == -EFAULT);
    CHECK(ask(__HYPERVISOR_memory_op, 5, 0, 0) == -EPERM);
}

/* A domain of which Xen says nothing, by our channels with it. */
static void check_without_privilege(void)
{
    struct { uint16_t domain, pad; uint32_t flags; } *found = (void *)((char *)&operation + 16);
    has_privilege = false;
    restart(); /* no channels */
    CHECK(ask(__HYPERVISOR_domctl, 5, 0, ~0ull) == 0 && found->domain == 5 && found->flags == 0);
    int64_t port = evtchn(1, 8, 5, 105);
    CHECK(port > 0, "%ld", port);
    CHECK(ask(__HYPERVISOR_domctl, 5, 0, 0) == 0 && found->flags == 0);
    ports[port].status = EVTCHNSTAT_unbound; /* Xen has closed its end */
    CHECK(ask(__HYPERVISOR_domctl, 5, 0, 0) == 0 && found->domain == 5 && found->flags == 1);
    CHECK(ask(__HYPERVISOR_sysctl, 6, 3, user_from + 16) == -EPERM);
}

int main(int argc, char **argv)
{
    static void (*const calls[])(void) = {
        do_bind, do_bind, do_bind_virq, do_unbind, do_notify, do_raise, do_raise, do_read, do_read,
        do_write, do_map, do_map, do_unmap, do_restart};
    CHECK(argc == 2 || argc == 3);
    pv_is_on = argc == 3;
    random_state = strtoull(argv[1], NULL, 0);
    CHECK(machine_map(SHARED_INFO_VA, PAGE_SIZE));
    ports[1] = ports[2] = (struct port){EVTCHNSTAT_unbound, 0, 0};
    window[LOST_SLOT + 1] = pv_is_on ? 0 : -1;
    begin();
    check_nothing_is_left();
    check_upcall();
    uint32_t most_grants = 0;
    for (int round = 0; round < ROUNDS; round++) {
        calls[random_below(COUNT(calls))]();
        most_grants = grant_count > most_grants ? grant_count : most_grants;
    }
    CHECK(most_grants == GRANT_SLOTS - !pv_is_on && keep.restarts > 100,
          "the hard cases were not met");
    do_unmap(); /* room for dom0's */
    check_xenbus();
    check_privcmd();
    check_without_privilege();
    return 0;
}
