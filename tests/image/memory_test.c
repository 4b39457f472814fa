/* SPDX-License-Identifier: Apache-2.0 */
/* memory.c against a table of pages: random brk, mmap, munmap, mprotect and pages of devices, with
 * few pages, few areas, and page tables that cannot be had. Page tables and physical pages are the
 * tables below; the heap is real memory, because memory.c writes to it. `memory_test SEED`. */

#include <errno.h>

#include "machine.h"

/* Linux's; its headers and linux.h have names in common. */
enum { PROT_READ = 1, PROT_WRITE = 2, PROT_EXEC = 4 };
enum { MAP_PRIVATE = 2, MAP_FIXED = 0x10, MAP_ANONYMOUS = 0x20 };

#define ROUNDS 60000
#define HEAP_VA 0x300000000000
#define WINDOW 1024           /* pages from HEAP_VA, and from MMAP_BASE, that may ever be used */
#define PHYSICAL_PAGES 300
#define KERNEL_PAGES 64       /* memory.c */
#define AREA_PAGES 20         /* in one mmap(), at most */
#define DEVICE_PA 0xe0000000  /* and up: pages of devices */

struct page { uint64_t pa; uint32_t flags; };
static struct page pages[2 * WINDOW]; /* pa 0: not mapped */
static bool is_used[PHYSICAL_PAGES + 1];
static uint64_t used_count, mapped_count, shared_count;
static bool may_fail; /* paging_map() has no memory, now and then */
static bool has_failed;

static bool is_heap(uint64_t va) { return va < MMAP_BASE; }

static struct page *find(uint64_t va)
{
    uint64_t page = (va - (is_heap(va) ? HEAP_VA : MMAP_BASE)) / PAGE_SIZE;
    return page < WINDOW ? &pages[page + (is_heap(va) ? 0 : WINDOW)] : NULL;
}

/* -- what memory.c calls */

uint64_t page_alloc(void)
{
    for (uint64_t page = 1; page <= PHYSICAL_PAGES; page++)
        if (!is_used[page]) {
            is_used[page] = true;
            used_count++;
            return page * PAGE_SIZE;
        }
    return 0;
}

void page_free(uint64_t pa)
{
    CHECK(is_used[pa / PAGE_SIZE]);
    is_used[pa / PAGE_SIZE] = false;
    used_count--;
}

uint64_t page_free_count(void) { return PHYSICAL_PAGES - used_count; }

void paging_batch(bool is_on)
{
    (void)is_on; /* nothing is late here */
}

int paging_map(uint64_t va, uint64_t pa, uint32_t flags)
{
    struct page *page = find(va);
    CHECK(page != NULL && page->pa == 0 && flags & MAP_USER && va % PAGE_SIZE == 0, "0x%lx", va);
    if (may_fail && random_below(30) == 0) {
        has_failed = true;
        return -ENOMEM;
    }
    if (is_heap(va))
        memset((void *)va, 0, PAGE_SIZE);
    *page = (struct page){pa, flags};
    mapped_count++;
    CHECK(!(flags & MAP_SHARED) == (pa < DEVICE_PA));
    shared_count += pa >= DEVICE_PA;
    return 0;
}

uint64_t paging_unmap(uint64_t va, bool *is_shared)
{
    struct page *page = find(va);
    if (page == NULL || page->pa == 0)
        return 0;
    uint64_t pa = page->pa;
    *is_shared = pa >= DEVICE_PA;
    shared_count -= *is_shared;
    page->pa = 0;
    if (is_heap(va))
        memset((void *)va, 0xaa, PAGE_SIZE);
    mapped_count--;
    return pa;
}

bool paging_protect(uint64_t va, uint32_t flags)
{
    struct page *page = find(va);
    CHECK(page != NULL && page->pa != 0 && page->pa < DEVICE_PA);
    page->flags = flags;
    return true;
}

bool paging_find(uint64_t va, uint64_t *pa, uint32_t *flags)
{
    const struct page *page = va < HEAP_VA ? NULL : find(va);
    if (page == NULL || page->pa == 0)
        return false;
    *pa = page->pa;
    *flags = page->flags;
    return true;
}

/* -- what always holds */

static bool is_mapped(uint64_t va) { return find(va) != NULL && find(va)->pa != 0; }

static void check_areas(void)
{
    uint64_t in_areas = 0, behind = 0;
    CHECK(memory.area_count <= AREAS_MAX);
    for (uint32_t index = 0; index < memory.area_count; index++) {
        const struct area *area = &memory.areas[index];
        CHECK(area->va % PAGE_SIZE == 0 && area->end % PAGE_SIZE == 0 && area->va < area->end);
        CHECK(area->va > behind && area->va >= MMAP_BASE && area->end <= MMAP_END);
        behind = area->end;
        for (uint64_t va = area->va; va < area->end; va += PAGE_SIZE, in_areas++)
            CHECK(is_mapped(va), "area %u, 0x%lx", index, va);
    }
    uint64_t in_heap = (memory.brk - memory.brk_base + PAGE_SIZE - 1) / PAGE_SIZE;
    CHECK(in_areas + in_heap == mapped_count, "%lu and %lu, not %lu", in_areas, in_heap,
          mapped_count);
    CHECK(mapped_count == used_count + shared_count, "pages are lost");
    CHECK(used_count <= PHYSICAL_PAGES - KERNEL_PAGES);
}

/* -- one call each */

static void check_brk(void)
{
    uint64_t old = memory.brk, wanted = HEAP_VA + random_below(AREA_PAGES * PAGE_SIZE);
    if (random_below(3) == 0)
        wanted &= -(uint64_t)PAGE_SIZE;
    uint64_t before = used_count;
    CHECK(memory_brk(0) == (int64_t)old && memory_brk(HEAP_VA - 1) == (int64_t)old);
    CHECK(memory_brk(MMAP_BASE) == (int64_t)old);
    int64_t got = memory_brk(wanted);
    CHECK((uint64_t)got == memory.brk);
    if ((uint64_t)got != wanted) {
        CHECK(memory.brk == old && used_count == before && wanted > old);
        return;
    }
    for (uint64_t va = (old + PAGE_SIZE - 1) & -(uint64_t)PAGE_SIZE; va < wanted; va++)
        CHECK(*(const char *)va == 0, "a new page of the heap is not zero");
    if (wanted > old)
        memset((void *)old, 'x', wanted - old);
    CHECK(wanted == HEAP_VA || user_can_write(HEAP_VA, wanted - HEAP_VA));
}

static void check_mmap(void)
{
    uint64_t size = 1 + random_below(AREA_PAGES * PAGE_SIZE);
    uint64_t count = (size + PAGE_SIZE - 1) / PAGE_SIZE, before = used_count;
    bool has_room = page_free_count() >= count + KERNEL_PAGES && memory.area_count < AREAS_MAX;
    bool is_writable = random_below(2);
    int64_t va = memory_mmap(size, PROT_READ | (is_writable ? PROT_WRITE : 0),
                             MAP_PRIVATE | MAP_ANONYMOUS);
    if (va < 0) {
        CHECK(va == -ENOMEM && used_count == before && (!has_room || has_failed));
        return;
    }
    CHECK(has_room && used_count == before + count);
    CHECK(user_can_read((uint64_t)va, size) && user_can_write((uint64_t)va, size) == is_writable);
    CHECK(!is_mapped((uint64_t)va + count * PAGE_SIZE), "no gap behind");
    CHECK((uint64_t)va == MMAP_BASE || !is_mapped((uint64_t)va - PAGE_SIZE), "no gap before");
}

/* Pages of a device: never given back to anybody, and known by their address. */
static void check_share(void)
{
    static uint64_t next_pa = DEVICE_PA;
    uint64_t count = 1 + random_below(3), before = used_count;
    bool has_room = memory.area_count < AREAS_MAX, is_writable = random_below(2);
    int64_t va = memory_share(next_pa, count * PAGE_SIZE,
                              PROT_READ | (is_writable ? PROT_WRITE : 0));
    CHECK(used_count == before && memory_shares(next_pa) == (va >= 0));
    if (va < 0) {
        CHECK(va == -ENOMEM && (!has_room || has_failed));
        return;
    }
    CHECK(has_room && find((uint64_t)va)->pa == next_pa);
    CHECK(user_can_write((uint64_t)va, count * PAGE_SIZE) == is_writable);
    CHECK(memory_shares(next_pa + (count - 1) * PAGE_SIZE));
    CHECK(!memory_shares(next_pa + count * PAGE_SIZE));
    if (random_below(2)) {
        CHECK(memory_munmap((uint64_t)va, PAGE_SIZE) == 0 && !memory_shares(next_pa));
        CHECK(!is_mapped((uint64_t)va));
    }
    next_pa += count * PAGE_SIZE;
}

/* A range of the window, often around what is mapped. */
static uint64_t random_range(uint64_t *size)
{
    uint64_t va = MMAP_BASE + random_below(WINDOW / 2) * PAGE_SIZE;
    if (memory.area_count > 0 && random_below(8) > 0) {
        const struct area *area = &memory.areas[random_below(memory.area_count)];
        va = area->va + random_below((area->end - area->va) / PAGE_SIZE) * PAGE_SIZE;
    }
    *size = 1 + random_below((random_below(4) ? 4 : 4 * AREA_PAGES) * PAGE_SIZE);
    return va;
}

static void check_munmap(void)
{
    static struct page before[COUNT(pages)];
    static struct memory memory_before;
    uint64_t size, va = random_range(&size);
    memcpy(before, pages, sizeof(pages));
    memory_before = memory;
    int64_t result = memory_munmap(va, size);
    if (result != 0) {
        CHECK(result == -ENOMEM && memory_before.area_count == AREAS_MAX);
        CHECK(memcmp(&memory_before, &memory, sizeof(memory)) == 0);
        size = 0;
    }
    for (uint64_t page = 0; page < WINDOW; page++) {
        uint64_t at = MMAP_BASE + page * PAGE_SIZE;
        bool is_inside = at >= va && at < va + size;
        CHECK(pages[WINDOW + page].pa == (is_inside ? 0 : before[WINDOW + page].pa));
    }
}

/* As far as the first page that is missing, or a device's. */
static void check_mprotect(void)
{
    uint64_t size, va = random_range(&size), at = va;
    bool is_writable = random_below(2);
    int64_t result = memory_mprotect(va, size, PROT_READ | (is_writable ? PROT_WRITE : 0));
    for (; at < va + size && is_mapped(at) && find(at)->pa < DEVICE_PA; at += PAGE_SIZE)
        CHECK(user_can_read(at, 1) && user_can_write(at, 1) == is_writable);
    CHECK(result == (at >= va + size ? 0 : is_mapped(at) ? -EACCES : -ENOMEM));
}

static void check_rights(void)
{
    uint64_t size, va = random_range(&size) + random_below(PAGE_SIZE);
    bool can_read = true, can_write = true;
    for (uint64_t at = va & -(uint64_t)PAGE_SIZE; at < va + size; at += PAGE_SIZE) {
        can_read = can_read && is_mapped(at);
        can_write = can_write && is_mapped(at) && find(at)->flags & MAP_WRITE;
    }
    CHECK(user_can_read(va, size) == can_read && user_can_write(va, size) == can_write);
}

static void check_refusals(void)
{
    const uint64_t anonymous = MAP_PRIVATE | MAP_ANONYMOUS;
    CHECK(memory_mmap(0, PROT_READ, anonymous) == -EINVAL);
    CHECK(memory_mmap(UINT64_MAX, PROT_READ, anonymous) == -EINVAL);
    CHECK(memory_mmap(MMAP_END - MMAP_BASE, PROT_READ, anonymous) == -ENOMEM);
    CHECK(memory_mmap(1, PROT_READ, anonymous | MAP_FIXED) == -EINVAL);
    CHECK(memory_mmap(1, PROT_READ, MAP_PRIVATE) == -ENODEV);
    CHECK(memory_mmap(1, PROT_READ | PROT_EXEC, anonymous) == -EACCES);
    CHECK(memory_share(DEVICE_PA, PAGE_SIZE, PROT_READ | PROT_EXEC) == -EACCES);
    CHECK(memory_munmap(MMAP_BASE + 1, 1) == -EINVAL && memory_munmap(MMAP_BASE, 0) == -EINVAL);
    CHECK(memory_munmap(MMAP_BASE, UINT64_MAX) == -EINVAL);
    CHECK(memory_munmap(USER_END, 1) == -EINVAL && memory_munmap(UINT64_MAX, 1) == -EINVAL);
    CHECK(memory_mprotect(MMAP_BASE, UINT64_MAX, PROT_READ) == -EINVAL);
    CHECK(memory_mprotect(MMAP_BASE, 1, PROT_EXEC) == -EACCES);
    CHECK(!user_can_read(USER_END, 1) && !user_can_read(USER_END - 1, 2));
    CHECK(!user_can_read(UINT64_MAX, 1) && !user_can_read(HEAP_VA, UINT64_MAX));
    CHECK(!user_can_write(DIRECT_BASE, 1));
}

/* A text that ends with the heap's last byte is one; without its NUL it is none. */
static void check_string(void)
{
    char text[16];
    CHECK(memory_brk(HEAP_VA + 2 * PAGE_SIZE) == HEAP_VA + 2 * PAGE_SIZE);
    char *end = (char *)HEAP_VA + 2 * PAGE_SIZE;
    memcpy(end - 5, "text", 5);
    CHECK(user_string((uint64_t)end - 5, text, sizeof(text)) && strcmp(text, "text") == 0);
    CHECK(user_string((uint64_t)end - 5, text, 5) && !user_string((uint64_t)end - 5, text, 4));
    end[-1] = 'x';
    CHECK(!user_string((uint64_t)end - 5, text, sizeof(text)));
    memcpy((char *)HEAP_VA + PAGE_SIZE - 2, "text", 5);
    CHECK(user_string(HEAP_VA + PAGE_SIZE - 2, text, sizeof(text)) && strcmp(text, "text") == 0);
    CHECK(!user_string(0, text, sizeof(text)) && !user_string(UINT64_MAX, text, sizeof(text)));
}

int main(int argc, char **argv)
{
    static void (*const calls[])(void) = {check_brk, check_mmap, check_mmap, check_munmap,
                                          check_mprotect, check_rights, check_share,
                                          check_munmap};
    CHECK(argc == 2);
    random_state = strtoull(argv[1], NULL, 0);
    CHECK(machine_map(HEAP_VA, WINDOW * PAGE_SIZE));
    memory.brk_base = memory.brk = HEAP_VA;
    check_string();
    check_refusals();
    uint32_t most_areas = 0, failures = 0;
    for (int round = 0; round < ROUNDS; round++) {
        may_fail = round / 5000 % 2;
        has_failed = false;
        calls[random_below(COUNT(calls))]();
        check_areas();
        most_areas = memory.area_count > most_areas ? memory.area_count : most_areas;
        failures += has_failed;
    }
    CHECK(most_areas == AREAS_MAX && failures > 0, "the hard cases were not met");
    check_refusals();
    return 0;
}
