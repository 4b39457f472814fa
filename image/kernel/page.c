/* SPDX-License-Identifier: Apache-2.0 */
/* Physical memory, one page at a time: a bit per page of the first 4 GiB, set if it is not free.
 *
 * Free at the start is what the loader calls RAM, but for: the first MiB (firmware's), the kernel,
 * the initrd, the region, and the pages of the snapshot. Knows nothing of what pages are for. */

#include "kernel.h"
#include "pv.h"

extern char kernel_start[], kernel_end[]; /* kernel.lds */

#define PAGES (PHYSICAL_MAX / PAGE_SIZE)

static uint64_t taken[PAGES / 64]; /* 128 KiB */
static uint64_t next_word; /* where to look first */
static uint64_t free_count, total_count;

static bool is_taken(uint64_t page) { return taken[page / 64] >> (page % 64) & 1; }

static void page_release(uint64_t pa, uint64_t size)
{
    uint64_t end = (pa + size) / PAGE_SIZE;
    for (uint64_t page = (pa + PAGE_SIZE - 1) / PAGE_SIZE; page < end; page++) {
        free_count += is_taken(page);
        taken[page / 64] &= ~(1ull << (page % 64));
    }
}

void page_reserve(uint64_t pa, uint64_t size)
{
    uint64_t end = (pa + size + PAGE_SIZE - 1) / PAGE_SIZE;
    for (uint64_t page = pa / PAGE_SIZE; page < end && page < PAGES; page++) {
        free_count -= !is_taken(page);
        taken[page / 64] |= 1ull << (page % 64);
    }
}

void page_init(void)
{
    memset(taken, 0xff, sizeof(taken));
    for (uint32_t index = 0; index < keep.ram_count; index++)
        page_release(keep.ram[index].pa, keep.ram[index].size);
    total_count = free_count;
    page_reserve(0, FIRMWARE_SIZE);
    page_reserve(KERNEL_PA, (uint64_t)(kernel_end - kernel_start));
    page_reserve(keep.initrd.pa, keep.initrd.size);
    page_reserve(options.region_pa, options.region_size);
    if (pv_is_on) {
        page_reserve(keep.pv.boot_pa, keep.pv.boot_size);
        page_reserve(keep.pv.pool_pa, keep.pv.pool_count * (uint64_t)PAGE_SIZE);
    }
    snapshot_reserve();
}

bool page_is_ram(uint64_t pa, uint64_t size)
{
    for (uint32_t index = 0; index < keep.ram_count; index++) {
        const struct range *ram = &keep.ram[index];
        if (pa >= ram->pa && size <= ram->size && pa - ram->pa <= ram->size - size)
            return true;
    }
    return false;
}

uint64_t page_alloc(void)
{
    for (uint64_t count = 0; count < COUNT(taken); count++) {
        uint64_t word = (next_word + count) % COUNT(taken);
        if (taken[word] == ~0ull)
            continue;
        uint64_t page = word * 64 + (uint64_t)__builtin_ctzll(~taken[word]);
        taken[word] |= 1ull << (page % 64);
        next_word = word;
        free_count--;
        memset(direct(page * PAGE_SIZE), 0, PAGE_SIZE);
        return page * PAGE_SIZE;
    }
    return 0;
}

void page_free(uint64_t pa)
{
    assert(pa % PAGE_SIZE == 0 && pa < PHYSICAL_MAX);
    assert(is_taken(pa / PAGE_SIZE));
    taken[pa / PAGE_SIZE / 64] &= ~(1ull << (pa / PAGE_SIZE % 64));
    free_count++;
    if (pa / PAGE_SIZE / 64 < next_word)
        next_word = pa / PAGE_SIZE / 64;
}

bool page_is_free(uint64_t pa) { return !is_taken(pa / PAGE_SIZE); }

uint64_t page_free_count(void) { return free_count; }

uint64_t page_total_count(void) { return total_count; }
