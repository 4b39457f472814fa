/* SPDX-License-Identifier: Apache-2.0 */
/* What the server asks of Xen itself: one domain, or a list of them (ring/linux.py).
 *
 *   P1. Nothing else: whatever has a number here and is not one of the two is refused.
 *   P2. Without the xenstore's privilege the answer is image/kernel/unprivileged.h's. */

#include "tardigrade.h"

#include <errno.h>
#include <string.h>

#include <common/hypervisor.h>
#include <xen/event_channel.h>

#include "../kernel/unprivileged.h"

static int64_t ask_port(struct evtchn_status *status)
{
    return HYPERVISOR_event_channel_op(EVTCHNOP_status, status);
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
    answer_unprivileged((struct domctl *)arguments[0], (uint32_t)keep.first_port, PORTS_MAX,
                        ask_port);
    return 0;
}
