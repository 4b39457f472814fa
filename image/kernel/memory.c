/* SPDX-License-Identifier: Apache-2.0 */
/* The program's memory: brk, anonymous mmap areas, and whether an address is its own.
 *
 *   A1. Every page that the program may use is there: memory is given or refused when it is asked
 *       for, so that Python sees MemoryError, never a fault.
 *   A2. Areas are sorted, apart from each other, and a gap lies behind each new one.
 *   A3. KERNEL_PAGES stay for page tables and the snapshot's own needs.
 * Nothing of it is ever executable. Knows nothing of ELF. */

#include "linux.h"
#include "kernel.h"

#define KERNEL_PAGES 64

PROGRAM_STATE struct memory memory;

static uint64_t round_up(uint64_t value) { return (value + PAGE_SIZE - 1) & -PAGE_SIZE; }

static void free_pages(uint64_t va, uint64_t end)
{
    for (; va < end; va += PAGE_SIZE) {
        bool is_shared;
        uint64_t pa = paging_unmap(va, &is_shared);
        if (pa && !is_shared)
            page_free(pa);
    }
}

int memory_add(uint64_t va, uint64_t end, uint32_t flags)
{
    if (page_free_count() < (end - va) / PAGE_SIZE + KERNEL_PAGES)
        return -ENOMEM;
    uint64_t at = va;
    paging_batch(true);
    for (; at < end; at += PAGE_SIZE) {
        uint64_t pa = page_alloc();
        if (pa && paging_map(at, pa, flags | MAP_USER) == 0)
            continue;
        if (pa)
            page_free(pa);
        break;
    }
    paging_batch(false);
    if (at == end)
        return 0;
    free_pages(va, at);
    return -ENOMEM;
}

int64_t memory_brk(uint64_t wanted)
{
    if (wanted < memory.brk_base || wanted >= MMAP_BASE)
        return (int64_t)memory.brk;
    uint64_t old_end = round_up(memory.brk), new_end = round_up(wanted);
    if (new_end > old_end && memory_add(old_end, new_end, MAP_WRITE))
        return (int64_t)memory.brk;
    if (new_end < old_end)
        free_pages(new_end, old_end);
    memory.brk = wanted;
    return (int64_t)wanted;
}

/* ---- areas */

static bool area_insert(uint32_t index, struct area area)
{
    if (memory.area_count == AREAS_MAX)
        return false;
    memmove(&memory.areas[index + 1], &memory.areas[index],
            (memory.area_count - index) * sizeof(area));
    memory.areas[index] = area;
    memory.area_count++;
    return true;
}

static void area_remove(uint32_t index)
{
    memory.area_count--;
    memmove(&memory.areas[index], &memory.areas[index + 1],
            (memory.area_count - index) * sizeof(memory.areas[0]));
}

/* Where an area of whole pages has room; 0: nowhere. It becomes areas[*index]. */
static uint64_t area_place(uint64_t size, uint32_t *index)
{
    uint64_t va = MMAP_BASE;
    *index = 0;
    for (; *index < memory.area_count && memory.areas[*index].va - va < size + PAGE_SIZE; ++*index)
        va = memory.areas[*index].end + PAGE_SIZE;
    return va + size > MMAP_END || memory.area_count == AREAS_MAX ? 0 : va;
}

int64_t memory_mmap(uint64_t size, uint64_t prot, uint64_t flags)
{
    if (size == 0 || size > MMAP_END - MMAP_BASE || flags & MAP_FIXED)
        return -EINVAL;
    if (!(flags & MAP_ANONYMOUS))
        return -ENODEV;
    if (prot & PROT_EXEC)
        return -EACCES;
    size = round_up(size);
    uint32_t index, rights = prot & PROT_WRITE ? MAP_WRITE : 0;
    uint64_t va = area_place(size, &index);
    if (!va || memory_add(va, va + size, rights))
        return -ENOMEM;
    area_insert(index, (struct area){va, va + size, rights});
    return (int64_t)va;
}

int64_t memory_share(uint64_t pa, uint64_t size, uint64_t prot)
{
    if (prot & PROT_EXEC)
        return -EACCES;
    uint32_t index, rights = MAP_USER | MAP_SHARED | (prot & PROT_WRITE ? MAP_WRITE : 0);
    uint64_t va = area_place(size, &index);
    if (!va)
        return -ENOMEM;
    for (uint64_t offset = 0; offset < size; offset += PAGE_SIZE)
        if (paging_map(va + offset, pa + offset, rights)) {
            free_pages(va, va + offset);
            return -ENOMEM;
        }
    area_insert(index, (struct area){va, va + size, rights});
    return (int64_t)va;
}

bool memory_shares(uint64_t pa)
{
    for (uint32_t index = 0; index < memory.area_count; index++) {
        const struct area *area = &memory.areas[index];
        for (uint64_t va = area->va; area->flags & MAP_SHARED && va < area->end; va += PAGE_SIZE) {
            uint64_t there;
            uint32_t flags;
            if (paging_find(va, &there, &flags) && there == pa)
                return true;
        }
    }
    return false;
}

int64_t memory_munmap(uint64_t va, uint64_t size)
{
    if (va % PAGE_SIZE || size == 0 || va >= USER_END || size > USER_END - va)
        return -EINVAL;
    uint64_t end = va + round_up(size);
    for (uint32_t index = 0; index < memory.area_count;) {
        struct area *area = &memory.areas[index];
        uint64_t from = va > area->va ? va : area->va, to = end < area->end ? end : area->end;
        if (from >= to) {
            index++;
            continue;
        }
        if (from > area->va && to < area->end) { /* a hole: two are left */
            if (!area_insert(index + 1, (struct area){to, area->end, area->flags}))
                return -ENOMEM;
            area->end = from;
        } else if (from > area->va) {
            area->end = from;
        } else if (to < area->end) {
            area->va = to;
        } else {
            area_remove(index);
        }
        free_pages(from, to);
    }
    return 0;
}

int64_t memory_mprotect(uint64_t va, uint64_t size, uint64_t prot)
{
    if (va % PAGE_SIZE || va >= USER_END || size > USER_END - va)
        return -EINVAL;
    if (prot & PROT_EXEC)
        return -EACCES;
    for (uint64_t at = va; at < va + round_up(size); at += PAGE_SIZE) {
        uint64_t pa;
        uint32_t flags;
        if (!paging_find(at, &pa, &flags) || !(flags & MAP_USER))
            return -ENOMEM;
        if (flags & (MAP_SHARED | MAP_EXECUTE))
            return -EACCES;
        paging_protect(at, MAP_USER | (prot & PROT_WRITE ? MAP_WRITE : 0));
    }
    return 0;
}

/* ---- what the program may touch */

static bool user_has(uint64_t va, uint64_t size, uint32_t rights)
{
    if (va >= USER_END || size > USER_END - va)
        return false;
    for (uint64_t at = va & -PAGE_SIZE; at < va + size; at += PAGE_SIZE) {
        uint64_t pa;
        uint32_t flags;
        if (!paging_find(at, &pa, &flags) || (flags & rights) != rights)
            return false;
    }
    return true;
}

bool user_can_read(uint64_t va, uint64_t size) { return user_has(va, size, MAP_USER); }

bool user_can_write(uint64_t va, uint64_t size)
{
    return user_has(va, size, MAP_USER | MAP_WRITE);
}

bool user_string(uint64_t va, char *to, size_t size)
{
    for (size_t index = 0; index < size; index++) {
        if ((index == 0 || (va + index) % PAGE_SIZE == 0) && !user_can_read(va + index, 1))
            return false;
        to[index] = ((const char *)va)[index];
        if (!to[index])
            return true;
    }
    return false;
}
