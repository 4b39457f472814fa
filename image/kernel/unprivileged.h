/* SPDX-License-Identifier: Apache-2.0 */
/* What is known of a domain without the xenstore's privilege. Xen tells us then only that there is
 * such a domain. That it dies shows in our channels with it: Xen has closed its ends. What is not
 * known is 0.
 *
 * For our own kernel and for Unikraft: whoever includes it has bool, the integer types, offsetof,
 * memset and xen/event_channel.h. */

#ifndef UNPRIVILEGED_H
#define UNPRIVILEGED_H

#define GETDOMAININFO 5
#define GETDOMAININFOLIST 6
#define OPERATION_MAX 1024 /* struct xen_domctl and xen_sysctl are smaller in every version */
#define FLAG_DYING 1 /* XEN_DOMINF_dying */

struct domctl { /* how GETDOMAININFO begins in every version so far: xen/domctl.h */
    uint32_t command, version;
    uint16_t domain, pad[3];
    uint16_t found_domain, found_pad;
    uint32_t flags;
};
_Static_assert(offsetof(struct domctl, found_domain) == 16, "xen/domctl.h");

/* Of our ports in [first, end), whose state `ask` gives, 0 on success. */
static inline bool is_dying(uint16_t domain, uint32_t first, uint32_t end,
                            int64_t (*ask)(struct evtchn_status *))
{
    bool has_left = false;
    for (uint32_t port = first; port < end; port++) {
        struct evtchn_status status = {.dom = DOMID_SELF, .port = port};
        if (ask(&status))
            break; /* there are no such ports yet */
        if (status.status == EVTCHNSTAT_interdomain && status.u.interdomain.dom == domain)
            return false;
        has_left |= status.status == EVTCHNSTAT_unbound && status.u.unbound.dom == domain;
    }
    return has_left;
}

static inline void answer_unprivileged(struct domctl *question, uint32_t first, uint32_t end,
                                       int64_t (*ask)(struct evtchn_status *))
{
    memset(&question->found_domain, 0, OPERATION_MAX - offsetof(struct domctl, found_domain));
    question->found_domain = question->domain;
    question->flags = is_dying(question->domain, first, end, ask) ? FLAG_DYING : 0;
}

#endif
