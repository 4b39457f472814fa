/* SPDX-License-Identifier: Apache-2.0 */
/* Dom0's own ring: /dev/xen/xenbus_backend, as Linux's dom0 has it. There it is the kernel's page;
 * here a grant of dom0's, and the port is what init-xenstore-domain says: --event PORT. Who starts
 * us otherwise does not know it yet: with --event find it is the one that dom0 has made for us, the
 * only one of its ports that Xen lets us bind. */

#include "device.h"
#include "hypercall.h"
#include "linux.h"

#include <xen/event_channel.h>
#include <xen/grant_table.h>

#define DOM0 0
#define PORTS_TRIED 4096

static bool xenbus_exists(void) { return xen_leaf() && options.event_port; }

/* It is closed again: the program is going to bind it. That raises it, so nothing is missed. */
static int64_t find_port(void)
{
    for (uint32_t port = 1; port < PORTS_TRIED; port++) {
        struct evtchn_bind_interdomain bind = {.remote_dom = DOM0, .remote_port = port};
        if (hypercall(__HYPERVISOR_event_channel_op, EVTCHNOP_bind_interdomain, (uint64_t)&bind, 0))
            continue;
        struct evtchn_close close = {bind.local_port};
        hypercall(__HYPERVISOR_event_channel_op, EVTCHNOP_close, (uint64_t)&close, 0);
        return port;
    }
    return -ENODEV;
}

static int64_t xenbus_ioctl(uint64_t request, void *argument)
{
    (void)argument;
    if (request != IOCTL_XENBUS_BACKEND_EVTCHN)
        return -ENOTTY;
    return options.event_port == EVENT_FIND ? find_port() : (int64_t)options.event_port;
}

/* Mapped until the end of this life. */
static int64_t xenbus_mmap(uint64_t size, uint64_t offset)
{
    if (size != PAGE_SIZE || offset)
        return -EINVAL;
    return grant_map(DOM0, GNTTAB_RESERVED_XENSTORE);
}

const struct device xenbus_device = {
    .path = "/dev/xen/xenbus_backend", .mode = S_IFCHR | 0600, .exists = xenbus_exists,
    .ioctl = xenbus_ioctl, .mmap = xenbus_mmap,
};
