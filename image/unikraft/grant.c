/* SPDX-License-Identifier: Apache-2.0 */
/* Pages of other domains, each mapped in place of a page of the window in `apart`.
 *
 *   G1. Xen changes the page table entry itself (GNTMAP_host_map by address): no page table of ours
 *       is needed, and Unikraft, which cannot map foreign pages, is not asked.
 *   G2. The handle, which nobody else could tell us, is kept with a check of its own across
 *       restarts. A new life unmaps them all. A slot whose entry is damaged is lost: guessing a
 *       handle could take away a page of another slot.
 *   G3. Where a page was unmapped nothing is mapped: a stale use of it is a page fault.
 * Knows nothing of what the pages hold. */

#include "tardigrade.h"

#include <errno.h>

#include <common/hypervisor.h>
#include <xen/grant_table.h>

#define SEED 0xa5d00000u /* so that no check is 0 */

static uint32_t check_of(uint32_t slot, uint32_t handle) { return SEED ^ handle ^ slot << 8; }

static bool is_free(uint32_t slot)
{
    return keep.grants[slot].handle == 0 && keep.grants[slot].check == 0;
}

static bool is_mapped(uint32_t slot)
{
    return keep.grants[slot].check == check_of(slot, keep.grants[slot].handle);
}

void *grant_map(uint32_t domid, uint32_t ref, int *error)
{
    uint32_t slot = 0;
    while (slot < GRANT_SLOTS && !is_free(slot))
        slot++;
    *error = ENOSPC;
    if (slot == GRANT_SLOTS)
        return NULL;
    struct gnttab_map_grant_ref map = {.host_addr = (uint64_t)apart.window[slot],
                                       .flags = GNTMAP_host_map, .ref = ref,
                                       .dom = (domid_t)domid};
    int result = HYPERVISOR_grant_table_op(GNTTABOP_map_grant_ref, &map, 1);
    *error = result ? -result : EINVAL;
    if (result || map.status != GNTST_okay)
        return NULL;
    *error = 0;
    keep.grants[slot] = (struct grant){map.handle, check_of(slot, map.handle)};
    return apart.window[slot];
}

static int unmap(uint32_t slot)
{
    struct gnttab_unmap_grant_ref unmap = {.host_addr = (uint64_t)apart.window[slot],
                                           .handle = keep.grants[slot].handle};
    int result = HYPERVISOR_grant_table_op(GNTTABOP_unmap_grant_ref, &unmap, 1);
    if (result || unmap.status != GNTST_okay)
        return -EIO;
    keep.grants[slot] = (struct grant){0, 0};
    return 0;
}

int grant_unmap(void *page)
{
    size_t slot = (size_t)((char *)page - apart.window[0]) / __PAGE_SIZE;
    return slot < GRANT_SLOTS && is_mapped((uint32_t)slot) ? unmap((uint32_t)slot) : -EINVAL;
}

void grant_reset(void)
{
    for (uint32_t slot = 0; slot < GRANT_SLOTS; slot++)
        if (is_mapped(slot))
            unmap(slot);
}
