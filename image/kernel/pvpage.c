/* SPDX-License-Identifier: Apache-2.0 */
/* A PV domain's page tables: what they are to Xen, and how an entry is written (pv.h: V1 to V4).
 *
 * A table is an ordinary page to Xen until an entry of another one says what it is; when the last
 * one that does is gone, it is ordinary again. So a restart takes the program's half out of the top
 * tables, and all of its tables are the pool's. */

#include "hypercall.h"
#include "pv.h"

#define QUEUE_SIZE 512
#define PROGRAM_ENTRIES (USER_END >> 39) /* of a top table */
#define DIRECT_ENTRY (DIRECT_BASE >> 39 & 511)
#define MACHINE_TO_PHYSICAL ((const uint64_t *)MACHINE_TO_PHYSICAL_VA)
#define FRAME(machine) ((machine) / PAGE_SIZE)

static struct mmu_update queue[QUEUE_SIZE];
static uint32_t queued;
static uint32_t pool_used; /* tables */

uint64_t pv_machine(uint64_t pa)
{
    const uint64_t *machine_frames = (const uint64_t *)keep.pv.p2m_va;
    return machine_frames[pa / PAGE_SIZE] * PAGE_SIZE + pa % PAGE_SIZE;
}

uint64_t pv_physical(uint64_t machine)
{
    return MACHINE_TO_PHYSICAL[FRAME(machine)] * PAGE_SIZE + machine % PAGE_SIZE;
}

static int64_t extended(uint32_t command, uint64_t pa)
{
    struct mmuext_op operation = {.cmd = command};
    operation.arg1.mfn = FRAME(pv_machine(pa));
    return hypercall4(__HYPERVISOR_mmuext_op, (uint64_t)&operation, 1, 0, DOMID_SELF);
}

uint64_t pv_table_alloc(void)
{
    if (pool_used == keep.pv.pool_count)
        return 0;
    uint64_t pa = keep.pv.pool_pa + pool_used++ * (uint64_t)PAGE_SIZE;
    if (extended(MMUEXT_CLEAR_PAGE, pa))
        machine_off("Xen does not clear a page table");
    return pa;
}

static bool is_in(uint64_t pa, uint64_t from, uint64_t size)
{
    return pa >= from && pa < from + size;
}

bool pv_is_table(uint64_t pa)
{
    return is_in(pa, keep.pv.pool_pa, keep.pv.pool_count * (uint64_t)PAGE_SIZE) ||
           is_in(pa, keep.pv.tables_pa, keep.pv.tables_size);
}

/* ---- entries */

void pv_flush(void)
{
    if (queued && hypercall4(__HYPERVISOR_mmu_update, (uint64_t)queue, queued, 0, DOMID_SELF))
        machine_off("Xen refuses a page table entry");
    queued = 0;
}

void pv_store(uint64_t entry_machine, uint64_t value)
{
    queue[queued++] = (struct mmu_update){entry_machine | MMU_NORMAL_PT_UPDATE, value};
    if (queued == QUEUE_SIZE)
        pv_flush();
}

void pv_change(uint64_t va, uint64_t value)
{
    pv_flush();
    if (hypercall(__HYPERVISOR_update_va_mapping, va, value, UVMF_INVLPG | UVMF_LOCAL))
        machine_off("Xen refuses a page table entry");
}

/* ---- top tables */

static uint64_t new_top(void)
{
    uint64_t pa = pv_table_alloc();
    if (!pa || extended(MMUEXT_PIN_L4_TABLE, pa))
        machine_off("Xen does not take a page table");
    return pa;
}

void pv_share(uint64_t index, uint64_t value)
{
    pv_store(pv_machine(keep.pv.program_top_pa) + index * 8, value);
}

static void forget_program(void)
{
    const uint64_t *top = direct(keep.pv.top_pa);
    for (uint64_t index = 0; index < PROGRAM_ENTRIES; index++) {
        if (!top[index])
            continue;
        pv_store(pv_machine(keep.pv.top_pa) + index * 8, 0);
        pv_share(index, 0);
    }
    pv_flush();
    pool_used = keep.pv.pool_kernel;
}

/* True at power-on: then the kernel's half is to be built, but for the direct map. */
bool pv_begin_tables(void)
{
    if (keep.pv.pool_kernel) {
        forget_program();
        return false;
    }
    keep.pv.top_pa = new_top();
    keep.pv.program_top_pa = new_top();
    const uint64_t *boot_top = direct(keep.pv.tables_pa);
    pv_store(pv_machine(keep.pv.top_pa) + DIRECT_ENTRY * 8, boot_top[DIRECT_ENTRY]);
    pv_flush();
    keep_seal();
    return true;
}

void pv_use_tables(void)
{
    pv_flush();
    if (extended(MMUEXT_NEW_BASEPTR, keep.pv.top_pa) ||
        extended(MMUEXT_NEW_USER_BASEPTR, keep.pv.program_top_pa) ||
        extended(MMUEXT_TLB_FLUSH_LOCAL, keep.pv.top_pa)) /* the program's pages, too */
        machine_off("Xen does not take the page tables");
    if (!keep.pv.pool_kernel)
        keep.pv.pool_kernel = pool_used;
    keep_seal();
}
