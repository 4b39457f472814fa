/* SPDX-License-Identifier: Apache-2.0 */
/* Pages of other domains: /dev/xen/gntdev, as Linux has it, but that one call maps one page.
 *
 *   G1. Each mapped grant has a slot of its own in the window of xen.c. Xen is asked whether the
 *       frame there is a hole before anything is mapped (X1); where it is not, nothing ever is.
 *   G2. The handle, which nobody else could tell us, is kept across restarts, with a check of its
 *       own. A new life unmaps them all. A slot whose entry is damaged is lost: guessing a handle
 *       could take away a page of another slot.
 *   G3. No grant is unmapped while the program has its page: that would end the domain.
 *   G4. A PV domain has no such window: a grant is mapped where the program sees it, by its page
 *       table entry, which is kept with the handle. Until then a slot knows only what is wanted.
 * Knows nothing of what the pages hold. */

#include "device.h"
#include "hypercall.h"
#include "linux.h"
#include "pv.h"

#include <xen/grant_table.h>
#include <xen/hvm/hvm_op.h>

#define SEED 0xa5d00000u /* with the highest bit: no check is 0, as a handle has few bits */

struct slot { uint32_t handle, check; uint64_t place; }; /* as Xen knows it; all 0: free */

__attribute__((section(".keep"), aligned(8))) static struct slot slots[GRANT_SLOTS];

static struct { uint32_t domid, ref; bool is_asked; } wanted[GRANT_SLOTS]; /* G4 */

static uint64_t pa_of(uint64_t slot) { return XEN_WINDOW_PA + (slot + 1) * PAGE_SIZE; }

static uint32_t check_of(uint64_t slot, uint32_t handle, uint64_t place)
{
    return SEED ^ handle ^ (uint32_t)slot << 16 ^ (uint32_t)(place / 8 % (1u << 28));
}

static bool is_free(uint64_t slot) { return slots[slot].handle == 0 && slots[slot].check == 0; }

static bool is_mapped(uint64_t slot)
{
    const struct slot *of = &slots[slot];
    return slot < GRANT_SLOTS && of->check == check_of(slot, of->handle, of->place);
}

static bool is_hole(uint64_t pa)
{
    struct xen_hvm_get_mem_type type = {.domid = DOMID_SELF, .pfn = pa / PAGE_SIZE};
    return hypercall(__HYPERVISOR_hvm_op, HVMOP_get_mem_type, (uint64_t)&type, 0) == 0 &&
           type.mem_type == HVMMEM_mmio_dm;
}

static int64_t unmap(uint64_t slot)
{
    struct gnttab_unmap_grant_ref grant = {.host_addr = slots[slot].place,
                                           .handle = slots[slot].handle};
    int64_t result = hypercall(__HYPERVISOR_grant_table_op, GNTTABOP_unmap_grant_ref,
                               (uint64_t)&grant, 1);
    if (result || grant.status != GNTST_okay) {
        log_error("grant: slot %lu cannot be unmapped, status -%u", slot, (uint32_t)-grant.status);
        return -EIO;
    }
    slots[slot] = (struct slot){0, 0, 0};
    return 0;
}

void grant_init(void)
{
    if (!xen_leaf())
        return;
    if (keep.restarts == 0)
        memset(slots, 0, sizeof(slots));
    uint32_t unmapped = 0, lost = 0, handle = 0;
    for (uint64_t slot = 0; slot < GRANT_SLOTS; slot++) {
        if (is_mapped(slot)) {
            handle = slots[slot].handle;
            unmapped += unmap(slot) == 0;
        }
        lost += !is_free(slot);
    }
    if (lost)
        log_error("grant: %u slots are lost", lost);
    if (keep.restarts)
        log_debug("grant: %u pages unmapped, the last one had handle %u", unmapped, handle);
}

static int64_t map(uint64_t slot, uint64_t place, uint32_t flags)
{
    struct gnttab_map_grant_ref grant = {.host_addr = place, .flags = flags,
                                         .ref = wanted[slot].ref,
                                         .dom = (domid_t)wanted[slot].domid};
    int64_t result = hypercall(__HYPERVISOR_grant_table_op, GNTTABOP_map_grant_ref,
                               (uint64_t)&grant, 1);
    if (result)
        return result;
    if (grant.status != GNTST_okay)
        return -EINVAL;
    slots[slot] = (struct slot){grant.handle, check_of(slot, grant.handle, place), place};
    return 0;
}

static bool is_usable(uint64_t slot)
{
    return is_free(slot) && (pv_is_on ? !wanted[slot].is_asked : is_hole(pa_of(slot)));
}

int64_t grant_map(uint32_t domid, uint32_t ref)
{
    uint64_t slot = 0;
    while (slot < GRANT_SLOTS && !is_usable(slot))
        slot++;
    if (slot == GRANT_SLOTS)
        return -ENOSPC;
    wanted[slot].domid = domid;
    wanted[slot].ref = ref;
    wanted[slot].is_asked = true;
    int64_t result = pv_is_on ? 0 : map(slot, pa_of(slot), GNTMAP_host_map);
    wanted[slot].is_asked = pv_is_on;
    return result ? result : (int64_t)pa_of(slot);
}

/* ---- G4: called by paging.c */

bool grant_is_slot(uint64_t pa)
{
    return pa >= pa_of(0) && pa < pa_of(GRANT_SLOTS);
}

int grant_attach(uint64_t pa, uint64_t entry_machine, bool is_writable)
{
    uint64_t slot = (pa - pa_of(0)) / PAGE_SIZE;
    uint32_t flags = GNTMAP_host_map | GNTMAP_application_map | GNTMAP_contains_pte |
                     (is_writable ? 0 : GNTMAP_readonly);
    return (int)(is_free(slot) ? map(slot, entry_machine, flags) : -EBUSY);
}

uint64_t grant_detach(uint64_t entry_machine)
{
    for (uint64_t slot = 0; slot < GRANT_SLOTS; slot++)
        if (slots[slot].place == entry_machine && is_mapped(slot))
            return unmap(slot) == 0 ? pa_of(slot) : 0;
    return 0;
}

/* ---- the device. The index that Linux makes up for a grant is its place in the window. */

struct map_request { uint32_t count, pad; uint64_t index; uint32_t domid, ref; };
struct unmap_request { uint64_t index; uint32_t count, pad; };

static bool gntdev_exists(void) { return xen_leaf(); }

static bool is_known(uint64_t slot)
{
    return pv_is_on ? slot < GRANT_SLOTS && wanted[slot].is_asked : is_mapped(slot);
}

static int64_t gntdev_map_grant(struct map_request *request)
{
    if (request->count != 1 || request->domid > UINT16_MAX)
        return -EINVAL;
    int64_t pa = grant_map(request->domid, request->ref);
    if (pa < 0)
        return pa;
    request->index = (uint64_t)pa - pa_of(0);
    return 0;
}

static int64_t gntdev_unmap_grant(const struct unmap_request *request)
{
    uint64_t slot = request->index / PAGE_SIZE;
    if (request->count != 1 || !is_known(slot))
        return -EINVAL;
    if (pv_is_on) {
        wanted[slot].is_asked = !is_free(slot);
        return is_free(slot) ? 0 : -EBUSY;
    }
    return memory_shares(pa_of(slot)) ? -EBUSY : unmap(slot);
}

static int64_t gntdev_ioctl(uint64_t request, void *argument)
{
    switch (request) {
    case IOCTL_GNTDEV_MAP_GRANT_REF: return gntdev_map_grant(argument);
    case IOCTL_GNTDEV_UNMAP_GRANT_REF: return gntdev_unmap_grant(argument);
    default: return -ENOTTY;
    }
}

static int64_t gntdev_mmap(uint64_t size, uint64_t offset)
{
    uint64_t slot = offset / PAGE_SIZE;
    return size == PAGE_SIZE && is_known(slot) ? (int64_t)pa_of(slot) : -EINVAL;
}

const struct device gntdev_device = {
    .path = "/dev/xen/gntdev", .mode = S_IFCHR | 0600, .exists = gntdev_exists,
    .ioctl = gntdev_ioctl, .mmap = gntdev_mmap,
};
