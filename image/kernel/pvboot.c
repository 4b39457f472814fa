/* SPDX-License-Identifier: Apache-2.0 */
/* What the builder of a PV domain says: memory, the initrd, the command line, and the places of
 * what Xen shares with us. Read once, at power-on, from the structure of Xen's public header xen.h;
 * a restart finds it in `keep`.
 *
 * It runs on the builder's page tables, and adds what the rest of the kernel needs: all memory at
 * DIRECT_BASE, writable but for page tables (V2). */

#include "hypercall.h"
#include "pv.h"

#define TABLE_FLAGS 0x67ull /* present, writable, user, accessed, dirty */
#define PAGE_FLAGS (1ull << 63 | 0x61) /* not executable; present, accessed, dirty */
#define PAGE_WRITABLE 2ull
#define POOL_SPARE 64 /* tables: the three upper levels, the kernel, the stack */

__attribute__((section(".keep"))) uint32_t pv_is_on;

static uint64_t pa_at_boot(uint64_t va) { return va - KERNEL_BASE; }

/* A table for each 2 MiB of memory in the direct map, in the region's window, and twice in the
 * program's half, where areas lie a gap apart. */
static void reserve_pool(uint64_t memory_size)
{
    struct keep_pv *pv = &keep.pv;
    pv->pool_count = (uint32_t)(memory_size / (PAGE_SIZE * 512) * 4 + POOL_SPARE);
    uint64_t size = pv->pool_count * PAGE_SIZE;
    if (memory_size < size || memory_size - size < pv->boot_pa + pv->boot_size)
        machine_off("not enough memory");
    pv->pool_pa = memory_size - size;
}

/* Entry `index` of one table becomes another one. */
static uint64_t add_table(uint64_t table_machine, uint64_t index)
{
    uint64_t machine = pv_machine(pv_table_alloc());
    pv_store(table_machine + index * 8, machine | TABLE_FLAGS);
    return machine;
}

static void map_direct(uint64_t memory_size, uint64_t top_machine)
{
    uint64_t third = add_table(top_machine, DIRECT_BASE >> 39 & 511), second = 0, first = 0;
    for (uint64_t pa = 0; pa < memory_size; pa += PAGE_SIZE) {
        if (pa % (1ull << 30) == 0)
            second = add_table(third, pa >> 30);
        if (pa % (1ull << 21) == 0)
            first = add_table(second, pa >> 21 & 511);
        uint64_t flags = PAGE_FLAGS | (pv_is_table(pa) ? 0 : PAGE_WRITABLE);
        pv_store(first + (pa >> 12 & 511) * 8, pv_machine(pa) | flags);
    }
    pv_flush();
}

void pv_read_start_info(uint64_t start_info_pa)
{
    memset(&keep, 0, sizeof(keep));
    const struct start_info *info = (const void *)(KERNEL_BASE + start_info_pa);
    uint64_t pages = info->nr_pages, most = PHYSICAL_MAX / PAGE_SIZE;
    uint64_t memory_size = (pages < most ? pages : most) * PAGE_SIZE;
    keep.ram[keep.ram_count++] = (struct range){0, memory_size};
    if (info->mod_len)
        keep.initrd = (struct range){pa_at_boot(info->mod_start), info->mod_len};
    memcpy(keep.command_line, info->cmd_line, strnlen((const char *)info->cmd_line,
                                                      sizeof(info->cmd_line) - 1));
    struct keep_pv *pv = &keep.pv;
    pv->tables_pa = pa_at_boot(info->pt_base);
    pv->tables_size = info->nr_pt_frames * PAGE_SIZE;
    pv->boot_pa = KERNEL_PA;
    pv->tree_pa = pv->tables_pa + pv->tables_size + PAGE_SIZE; /* behind a stack */
    pv->boot_size = pv->tree_pa + PV_TREE_PAGES * PAGE_SIZE - KERNEL_PA;
    pv->p2m_va = info->mfn_list;
    pv->shared_info_machine = info->shared_info;
    reserve_pool(memory_size);
    map_direct(memory_size, pv_machine(pv->tables_pa));
    pv->p2m_va = (uint64_t)direct(pa_at_boot(info->mfn_list));
    pv->console_pa = pv_physical(info->console.domU.mfn * PAGE_SIZE);
    pv->console_port = info->console.domU.evtchn;
    keep_seal();
}
