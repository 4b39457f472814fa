/* SPDX-License-Identifier: Apache-2.0 */
/* The persistent memory. The only file that writes to it; the crash slot is crash.c's alone.
 * Knows nothing of what it holds. */

#include "tardigrade.h"

#include <errno.h>
#include <string.h>

int region_read(uint64_t offset, void *to, size_t size)
{
    if (offset > REGION_SIZE || size > REGION_SIZE - offset)
        return -EINVAL;
    memcpy(to, apart.region + offset, size);
    return 0;
}

/* Dying inside leaves a prefix of it stored. */
int region_write(uint64_t offset, const void *data, size_t size)
{
    if (offset > REGION_SIZE || size > REGION_SIZE - offset)
        return -ENOSPC;
    memcpy(apart.region + offset, data, size);
    return 0;
}
