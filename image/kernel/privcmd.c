/* SPDX-License-Identifier: Apache-2.0 */
/* What the program may ask of the hypervisor itself: /dev/xen/privcmd, as Linux has it, for the two
 * questions of ring/linux.py: one domain, and a list of domains.
 *
 *   P1. Nothing else: the hypervisor would do all that it does for the kernel.
 *   P2. What Xen writes to lies in the program's own memory, as far as the two structures say
 *       where; an entry of the list is believed to be no longer than ENTRY_MAX.
 *   P3. Without the xenstore's privilege the answer is unprivileged.h's. */

#include "device.h"
#include "hypercall.h"
#include "linux.h"

#include <xen/event_channel.h>

#include "unprivileged.h"

#define ENTRY_MAX 256

struct hypercall_request { uint64_t number, arguments[5]; };

struct sysctl { /* how GETDOMAININFOLIST begins: xen/sysctl.h */
    uint32_t command, version;
    uint16_t first_domain;
    uint32_t max_domains;
    uint64_t buffer_va;
};
_Static_assert(offsetof(struct sysctl, buffer_va) == 16, "xen/sysctl.h");

static bool privcmd_exists(void) { return xen_leaf(); }

static int64_t check_domctl(uint64_t va)
{
    if (!user_can_write(va, OPERATION_MAX))
        return -EFAULT;
    return ((const struct domctl *)va)->command == GETDOMAININFO ? 0 : -EPERM;
}

static int64_t check_sysctl(uint64_t va)
{
    if (!user_can_write(va, OPERATION_MAX))
        return -EFAULT;
    const struct sysctl *list = (const struct sysctl *)va;
    if (list->command != GETDOMAININFOLIST)
        return -EPERM;
    uint64_t size = (uint64_t)list->max_domains * ENTRY_MAX;
    return user_can_write(list->buffer_va, size) ? 0 : -EFAULT;
}

static int64_t ask_port(struct evtchn_status *status)
{
    return hypercall(__HYPERVISOR_event_channel_op, EVTCHNOP_status, (uint64_t)status, 0);
}

static int64_t privcmd_ioctl(uint64_t request, void *argument)
{
    const struct hypercall_request *call = argument;
    if (request != IOCTL_PRIVCMD_HYPERCALL)
        return -ENOTTY;
    uint64_t va = call->arguments[0];
    int64_t result = call->number == __HYPERVISOR_domctl ? check_domctl(va)
                     : call->number == __HYPERVISOR_sysctl ? check_sysctl(va) : -EPERM;
    if (result)
        return result;
    result = hypercall((uint32_t)call->number, va, 0, 0);
    if (result == -EPERM && call->number == __HYPERVISOR_domctl) {
        answer_unprivileged((struct domctl *)va, keep.port_first, EVTCHN_2L_NR_CHANNELS, ask_port);
        result = 0;
    }
    return result;
}

const struct device privcmd_device = {
    .path = "/dev/xen/privcmd", .mode = S_IFCHR | 0600, .exists = privcmd_exists,
    .ioctl = privcmd_ioctl,
};
