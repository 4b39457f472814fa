/* SPDX-License-Identifier: Apache-2.0 */
/* The persistent memory: /dev/region. The only file that writes to it, through a window of its own
 * that nothing else knows; everywhere else it is mapped read-only (K3).
 *
 * Knows nothing of what it holds. Change with: persist/layout.py, for the crash slot's place. */

#include "device.h"
#include "linux.h"
#include "pv.h"

extern char kernel_start[], kernel_end[]; /* kernel.lds */

const void *region_at(uint64_t offset)
{
    return direct(options.region_pa + offset);
}

void region_write(uint64_t offset, const void *data, size_t size)
{
    assert(offset <= options.region_size && size <= options.region_size - offset);
    memcpy((char *)REGION_WINDOW + offset, data, size);
}

static bool region_overlaps(uint64_t pa, uint64_t size)
{
    return size && pa < options.region_pa + options.region_size && options.region_pa < pa + size;
}

void region_init(void)
{
    if (!page_is_ram(options.region_pa, options.region_size))
        machine_off("region=: there is no such memory; give the machine more, or another place");
    uint64_t kernel_size = (uint64_t)(kernel_end - kernel_start);
    if (region_overlaps(0, FIRMWARE_SIZE) || region_overlaps(KERNEL_PA, kernel_size))
        machine_off("region=: the kernel is there");
    if (region_overlaps(keep.pv.boot_pa, keep.pv.boot_size) ||
        region_overlaps(keep.pv.pool_pa, keep.pv.pool_count * (uint64_t)PAGE_SIZE))
        machine_off("region=: what Xen's builder has loaded, or the page tables, are there");
    if (!page_is_ram(keep.initrd.pa, keep.initrd.size))
        machine_off("the initrd is not in memory");
    if (region_overlaps(keep.initrd.pa, keep.initrd.size))
        machine_off("region=: the initrd is there; make the region smaller, or the memory larger");
    log_info("region: %lu KiB at 0x%lx", options.region_size / 1024, options.region_pa);
}

static uint64_t region_size(void) { return options.region_size; }

static int64_t region_device_read(struct file *file, void *to, uint64_t size, uint64_t offset)
{
    (void)file;
    if (offset >= options.region_size)
        return 0;
    uint64_t left = options.region_size - offset;
    uint64_t count = size < left ? size : left;
    memcpy(to, region_at(offset), count);
    return (int64_t)count;
}

/* Dying inside leaves a prefix of it stored. The crash slot is crash.c's alone. */
static int64_t region_device_write(struct file *file, const void *from, uint64_t size,
                                   uint64_t offset)
{
    (void)file;
    if (offset > options.region_size || size > options.region_size - offset)
        return -ENOSPC;
    if (offset < CRASH_SLOT_OFFSET + CRASH_SLOT_SIZE && offset + size > CRASH_SLOT_OFFSET)
        return -EACCES;
    region_write(offset, from, size);
    return (int64_t)size;
}

const struct device region_device = {
    .path = "/dev/region", .mode = S_IFCHR | 0600, .size = region_size,
    .read = region_device_read, .write = region_device_write,
};
