/* SPDX-License-Identifier: Apache-2.0 */
/* For the tools of a PV domain's host: which machine frames its memory is in. `xl dump-core` asks
 * for it in shared_info, as a tree: a page with the frames of pages with the frames of the p2m
 * table. (shared_info has a second form, the table's virtual address and cr3. Xen 4.17's tools
 * understand it for tables at a multiple of 1 GiB only.)
 *
 * The tree says nothing that Xen does not know, so it is never believed by us; a new life writes it
 * anew. */

#include "hypercall.h"
#include "pv.h"

#define PER_PAGE (PAGE_SIZE / sizeof(uint64_t))
#define FRAMES_MAX (PHYSICAL_MAX / PAGE_SIZE)       /* entries of the p2m table */
#define TABLE_PAGES_MAX (FRAMES_MAX / PER_PAGE)
#define LISTS (TABLE_PAGES_MAX / PER_PAGE)

struct frame_list { uint64_t frames[PER_PAGE]; } __attribute__((aligned(PAGE_SIZE)));

static struct frame_list top;
static struct frame_list lists[LISTS];

_Static_assert(LISTS <= PER_PAGE, "one page is at the top");

static uint64_t frame_of(const void *va, uint64_t base)
{
    return pv_machine((uint64_t)va - base) / PAGE_SIZE;
}

void pv_tell_frames(void)
{
    const uint64_t *table = (const uint64_t *)keep.pv.p2m_va;
    uint64_t count = keep.ram[0].size / PAGE_SIZE;
    for (uint64_t index = 0; index * PER_PAGE < count; index++)
        lists[index / PER_PAGE].frames[index % PER_PAGE] =
            frame_of(table + index * PER_PAGE, DIRECT_BASE);
    for (uint64_t index = 0; index < LISTS; index++)
        top.frames[index] = frame_of(&lists[index], KERNEL_BASE);
    SHARED_INFO->arch.pfn_to_mfn_frame_list_list = frame_of(&top, KERNEL_BASE);
    SHARED_INFO->arch.max_pfn = count;
}
