/* SPDX-License-Identifier: Apache-2.0 */
/* For the tools of a PV domain's host: which machine frames its memory is in. `xl dump-core` asks
 * for it in shared_info, as a tree: a page with the frames of pages with the frames of the p2m
 * table. (shared_info has a second form, the table's virtual address and cr3. Xen 4.17's tools
 * understand it for tables at a multiple of 1 GiB only.)
 *
 * Nothing here believes it; tools/boot/frames.py does, when a dead domain's region is wanted. So it
 * lies in pages of its own, which no start clears: a new life writes the same into them again, and
 * there is no moment at which it says anything else. */

#include "hypercall.h"
#include "pv.h"

#define PER_PAGE (PAGE_SIZE / sizeof(uint64_t))
#define TABLE_PAGES_MAX (PHYSICAL_MAX / PAGE_SIZE / PER_PAGE) /* of the p2m table */
#define LISTS (PV_TREE_PAGES - 1)

_Static_assert(LISTS * PER_PAGE == TABLE_PAGES_MAX && LISTS <= PER_PAGE, "one page is at the top");

static uint64_t frame_at(uint64_t pa, uint64_t page)
{
    return pv_machine(pa + page * PAGE_SIZE) / PAGE_SIZE;
}

void pv_tell_frames(void)
{
    uint64_t *top = direct(keep.pv.tree_pa), *lists = top + PER_PAGE;
    uint64_t table_pa = keep.pv.p2m_va - DIRECT_BASE, count = keep.ram[0].size / PAGE_SIZE;
    for (uint64_t index = 0; index < TABLE_PAGES_MAX; index++)
        lists[index] = index * PER_PAGE < count ? frame_at(table_pa, index) : 0;
    for (uint64_t index = 0; index < PER_PAGE; index++)
        top[index] = index < LISTS ? frame_at(keep.pv.tree_pa, index + 1) : 0;
    SHARED_INFO->arch.pfn_to_mfn_frame_list_list = frame_at(keep.pv.tree_pa, 0);
    SHARED_INFO->arch.max_pfn = count;
}
