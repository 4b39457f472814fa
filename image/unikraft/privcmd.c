/* SPDX-License-Identifier: Apache-2.0 */
/* What the server asks of Xen itself: one domain, or a list of them (ring/linux.py).
 *
 *   P1. Nothing else: whatever has a number here and is not one of the two is refused.
 *   P2. Without the xenstore's privilege Xen tells us only that there is such a domain. That it
 *       dies shows in our channels with it: Xen has closed its ends. What is not known is 0.
 * Change with: image/kernel/privcmd.c; these are its rules. */

#include "tardigrade.h"

#include <errno.h>
#include <string.h>

#include <common/hypervisor.h>
#include <xen/event_channel.h>

#define GETDOMAININFO 5
#define GETDOMAININFOLIST 6
#define OPERATION_MAX 1024 /* ring/linux.py, OP_SIZE: what lies at an operation's address */
#define FLAG_DYING 1 /* XEN_DOMINF_dying */

struct domctl { /* how it begins in every version so far: xen/domctl.h */
    uint32_t command, version;
    uint16_t domain, pad[3];
    uint16_t found_domain, found_pad;
    uint32_t flags;
};
_Static_assert(offsetof(struct domctl, found_domain) == 16, "xen/domctl.h");

/* P2. */
static bool is_dying(uint16_t domain)
{
    bool has_left = false;
    for (uint32_t port = (uint32_t)keep.first_port; port < PORTS_MAX; port++) {
        struct evtchn_status status = {.dom = DOMID_SELF, .port = port};
        if (HYPERVISOR_event_channel_op(EVTCHNOP_status, &status))
            break; /* there are no such ports yet */
        if (status.status == EVTCHNSTAT_interdomain && status.u.interdomain.dom == domain)
            return false;
        has_left |= status.status == EVTCHNSTAT_unbound && status.u.unbound.dom == domain;
    }
    return has_left;
}

static void answer_without_privilege(struct domctl *question)
{
    memset(&question->found_domain, 0, OPERATION_MAX - offsetof(struct domctl, found_domain));
    question->found_domain = question->domain;
    question->flags = is_dying(question->domain) ? FLAG_DYING : 0;
}

int64_t xen_hypercall(unsigned long number, const unsigned long *arguments)
{
    const uint32_t *command = (const uint32_t *)arguments[0];
    bool is_domctl = number == __HYPERVISOR_domctl && *command == GETDOMAININFO;
    bool is_sysctl = number == __HYPERVISOR_sysctl && *command == GETDOMAININFOLIST;
    if (!is_domctl && !is_sysctl)
        return -EPERM;
    multicall_entry_t call = {.op = number, .args = {arguments[0]}};
    long result = HYPERVISOR_multicall(&call, 1);
    result = result ? result : (long)call.result;
    if (result != -EPERM || !is_domctl)
        return result;
    answer_without_privilege((struct domctl *)arguments[0]);
    return 0;
}
