/* SPDX-License-Identifier: Apache-2.0 */
/* Dom0's own ring: /dev/xen/xenbus_backend, as Linux's dom0 has it. There it is the kernel's page;
 * here a grant of dom0's, and the port is what init-xenstore-domain says: --event PORT. */

#include "device.h"
#include "hypercall.h"
#include "linux.h"

#include <xen/grant_table.h>

#define DOM0 0

static bool xenbus_exists(void) { return xen_leaf() && options.event_port; }

static int64_t xenbus_ioctl(uint64_t request, void *argument)
{
    (void)argument;
    return request == IOCTL_XENBUS_BACKEND_EVTCHN ? (int64_t)options.event_port : -ENOTTY;
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
