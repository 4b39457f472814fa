/* SPDX-License-Identifier: Apache-2.0 */
/* The page tables: four levels, pages of 4 KiB only (a PV domain has no others).
 *
 *   M1. A page is writable or executable, never both (assert in entry_of).
 *   M2. The kernel's half is built once, by paging_init(). After that device_map() adds to it, and
 *       paging_seal() takes rights away.
 *   M3. A table of the program's half is never freed, but reused, until the next restart.
 *   M4. In a PV domain Xen writes the entries, and a restart finds the kernel's half (pv.h, V3).
 * Bit names: Intel SDM volume 3, 4.5. */

#include "cpu.h"
#include "hypercall.h"
#include "pv.h"

#define PRESENT 0x1ull
#define WRITABLE 0x2ull
#define USER 0x4ull
#define UNCACHED 0x18ull
#define SHARED 0x200ull /* a bit left to software */
#define NO_EXECUTE (1ull << 63)
#define ADDRESS 0x000ffffffffff000ull

extern char kernel_start[], code_end[], constants_end[], boot_tables_end[], stacks_start[],
    stacks_end[], kernel_end[];

static uint64_t *top; /* PML4 */
static uint64_t device_next;
static bool is_batch;

static uint32_t index_of(uint64_t va, int level) { return va >> (12 + 9 * level) & 511; }

/* ---- what an entry is, and how it is written */

static uint64_t machine(uint64_t pa) { return pv_is_on ? pv_machine(pa) : pa; }

static uint64_t pa_in(uint64_t entry)
{
    return pv_is_on ? pv_physical(entry & ADDRESS) : entry & ADDRESS;
}

static uint64_t machine_of_entry(const uint64_t *entry)
{
    return machine((uint64_t)entry - DIRECT_BASE);
}

/* Of an entry that is not there, or whose page nobody has touched. */
static void store(uint64_t *entry, uint64_t value)
{
    if (!pv_is_on) {
        *entry = value;
        return;
    }
    pv_store(machine_of_entry(entry), value);
    if (!is_batch)
        pv_flush();
}

static void change(uint64_t *entry, uint64_t va, uint64_t value)
{
    if (pv_is_on) {
        pv_change(va, value);
    } else {
        *entry = value;
        invlpg(va);
    }
}

void paging_batch(bool is_on)
{
    is_batch = is_on;
    if (pv_is_on && !is_on)
        pv_flush();
}

static uint64_t entry_of(uint64_t pa, uint32_t flags)
{
    assert(!(flags & MAP_WRITE) || !(flags & MAP_EXECUTE));
    return machine(pa) | PRESENT | (flags & MAP_WRITE ? WRITABLE : 0) |
           (flags & MAP_USER ? USER : 0) | (flags & MAP_UNCACHED ? UNCACHED : 0) |
           (flags & MAP_SHARED ? SHARED : 0) | (flags & MAP_EXECUTE ? 0 : NO_EXECUTE);
}

/* The entry of `va` in the lowest table. Tables that are missing are made if `makes`; else, and
 * if there is no memory, NULL. */
static uint64_t *entry_at(uint64_t va, bool makes)
{
    uint64_t *table = top;
    for (int level = 3; level > 0; level--) {
        uint64_t *entry = &table[index_of(va, level)];
        if (!(*entry & PRESENT)) {
            uint64_t pa = !makes ? 0 : pv_is_on ? pv_table_alloc() : page_alloc();
            if (!pa)
                return NULL;
            uint64_t value = machine(pa) | PRESENT | WRITABLE | (va < USER_END ? USER : 0);
            store(entry, value);
            if (pv_is_on && level == 3 && va < USER_END)
                pv_share(index_of(va, level), value);
            if (pv_is_on)
                pv_flush(); /* the next look must find it */
        }
        table = direct(pa_in(*entry));
    }
    return &table[index_of(va, 0)];
}

int paging_map(uint64_t va, uint64_t pa, uint32_t flags)
{
    uint64_t *entry = entry_at(va, true);
    if (!entry)
        return -1;
    assert(!(*entry & PRESENT));
    if (pv_is_on && grant_is_slot(pa)) {
        if (grant_attach(pa, machine_of_entry(entry), flags & MAP_WRITE))
            return -1;
        change(entry, va, *entry | SHARED | NO_EXECUTE); /* Xen has made it without (M1) */
        return 0;
    }
    store(entry, entry_of(pa, flags));
    return 0;
}

uint64_t paging_unmap(uint64_t va, bool *is_shared)
{
    uint64_t *entry = entry_at(va, false);
    if (!entry || !(*entry & PRESENT))
        return 0;
    uint64_t old = *entry;
    *is_shared = old & SHARED;
    uint64_t grant_pa = pv_is_on && *is_shared ? grant_detach(machine_of_entry(entry)) : 0;
    if (grant_pa)
        return grant_pa;
    change(entry, va, 0);
    return pa_in(old);
}

bool paging_protect(uint64_t va, uint32_t flags)
{
    uint64_t *entry = entry_at(va, false);
    if (!entry || !(*entry & PRESENT))
        return false;
    change(entry, va, entry_of(pa_in(*entry), flags));
    return true;
}

bool paging_find(uint64_t va, uint64_t *pa, uint32_t *flags)
{
    const uint64_t *entry = entry_at(va, false);
    if (!entry || !(*entry & PRESENT))
        return false;
    *pa = pa_in(*entry); /* of another domain's page in a PV domain: nothing that is ours */
    *flags = (*entry & WRITABLE ? MAP_WRITE : 0) | (*entry & USER ? MAP_USER : 0) |
             (*entry & SHARED ? MAP_SHARED : 0) | (*entry & NO_EXECUTE ? 0 : MAP_EXECUTE);
    return true;
}

bool paging_next_user(uint64_t *va)
{
    while (*va < USER_END) {
        const uint64_t *table = top;
        int level = 3;
        for (; level >= 0; level--) {
            uint64_t entry = table[index_of(*va, level)];
            if (!(entry & PRESENT))
                break;
            table = direct(pa_in(entry));
        }
        if (level < 0)
            return true;
        uint64_t size = 1ull << (12 + 9 * level); /* skip all that the missing entry stands for */
        *va = (*va / size + 1) * size;
    }
    return false;
}

void paging_seal(uint64_t pa)
{
    uint64_t va = (uint64_t)direct(pa);
    uint64_t *entry = entry_at(va, false);
    assert(entry && *entry & PRESENT);
    if (*entry & WRITABLE)
        change(entry, va, *entry & ~WRITABLE);
}

static void map_all(uint64_t va, uint64_t pa, uint64_t size, uint32_t flags)
{
    for (uint64_t offset = 0; offset < size; offset += PAGE_SIZE)
        if (paging_map(va + offset, pa + offset, flags))
            machine_off("not enough memory for page tables");
}

/* Whether the kernel may write to a page of RAM through its direct address. */
static bool is_constant(uint64_t pa)
{
    static uint64_t code_pa, boot_tables_pa;
    code_pa = (uint64_t)kernel_start - KERNEL_BASE;
    boot_tables_pa = (uint64_t)boot_tables_end - KERNEL_BASE;
    return (pa >= code_pa && pa < boot_tables_pa) ||
           (pa + PAGE_SIZE > keep.initrd.pa && pa < keep.initrd.pa + keep.initrd.size) ||
           (pa >= options.region_pa && pa < options.region_pa + options.region_size);
}

/* A PV domain has them already; those that cannot be written to, but could be now, are of a
 * snapshot that was given up, or constant. */
static void map_direct_page(uint64_t pa)
{
    uint64_t va = (uint64_t)direct(pa);
    if (!pv_is_on) {
        map_all(va, pa, PAGE_SIZE, is_constant(pa) ? 0 : MAP_WRITE);
        return;
    }
    uint64_t *entry = entry_at(va, false);
    assert(entry && *entry & PRESENT);
    if (is_constant(pa) && *entry & WRITABLE)
        store(entry, *entry & ~WRITABLE);
    else if (page_is_free(pa) && !(*entry & WRITABLE))
        store(entry, *entry | WRITABLE);
}

static void map_direct(void)
{
    for (uint32_t index = 0; index < keep.ram_count; index++) {
        uint64_t pa = (keep.ram[index].pa + PAGE_SIZE - 1) & -PAGE_SIZE;
        uint64_t end = (keep.ram[index].pa + keep.ram[index].size) & -PAGE_SIZE;
        for (; pa < end; pa += PAGE_SIZE)
            map_direct_page(pa);
    }
}

/* Each stack has a page in front of it that is not there: running over ends in a double fault. */
static void map_stacks(void)
{
    for (char *at = stacks_start; at < stacks_end; at += PAGE_SIZE + KERNEL_STACK_SIZE)
        map_all((uint64_t)at + PAGE_SIZE, (uint64_t)at + PAGE_SIZE - KERNEL_BASE,
                KERNEL_STACK_SIZE, MAP_WRITE);
}

static void map_kernel(char *from, char *to, uint32_t flags)
{
    map_all((uint64_t)from, (uint64_t)from - KERNEL_BASE, (uint64_t)(to - from), flags);
}

static void map_rest(void)
{
    map_kernel(kernel_start, code_end, MAP_EXECUTE);
    map_kernel(code_end, boot_tables_end, 0);
    map_kernel(boot_tables_end, stacks_start, MAP_WRITE);
    map_stacks();
    map_kernel(stacks_end, kernel_end, MAP_WRITE);
    map_all(REGION_WINDOW, options.region_pa, options.region_size, MAP_WRITE);
}

/* After a restart the kernel's half is there; the direct map may have to let writes in again. */
static void paging_init_pv(void)
{
    bool is_first = pv_begin_tables();
    top = direct(keep.pv.top_pa);
    paging_batch(true);
    map_direct();
    if (is_first) {
        map_rest();
        store(entry_at(SHARED_INFO_VA, true),
              keep.pv.shared_info_machine | PRESENT | WRITABLE | NO_EXECUTE);
    }
    paging_batch(false);
    pv_use_tables();
}

void paging_init(void)
{
    if (pv_is_on) {
        paging_init_pv();
        return;
    }
    uint64_t top_pa = page_alloc();
    assert(top_pa);
    top = direct(top_pa);
    map_direct();
    map_rest();
    write_cr3(top_pa);
    bool has_smep = cpuid(0, 0).eax >= 7 && cpuid(7, 0).ebx & 1u << 7;
    write_cr4(read_cr4() | (has_smep ? 1u << 20 : 0));
}

void *device_map(uint64_t pa, uint64_t size)
{
    uint64_t va = DEVICE_BASE + device_next, offset = pa % PAGE_SIZE;
    uint64_t pages = (offset + size + PAGE_SIZE - 1) / PAGE_SIZE;
    map_all(va, pa - offset, pages * PAGE_SIZE, MAP_WRITE | MAP_UNCACHED);
    device_next += pages * PAGE_SIZE;
    return (void *)(va + offset);
}
