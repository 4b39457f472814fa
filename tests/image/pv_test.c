/* SPDX-License-Identifier: Apache-2.0 */
/* pvboot.c, pvpage.c, pvdump.c and pvtrap.c on a hypervisor that is made up here: the start_info,
 * machine frames in another order than ours, page tables that only it writes to, a timer that rings
 * once, a console that somebody reads or nobody.
 *
 * Cannot show: what Xen refuses (tests/xen). */

#include "hypercall.h"
#include "hypercall_page.h"
#include "machine.h"
#include "pv.h"

#include <xen/callback.h>
#include <xen/event_channel.h>
#include <xen/io/console.h>
#include <xen/sched.h>
#include <xen/vcpu.h>

#define PAGES 4096u /* 16 MiB */
#define FRAME_OF(page) ((page) * 3 % PAGES + 0x100000) /* 3 and PAGES have no common factor */
#define INFO_PA 0x480000
#define LIST_PA 0x500000
#define TABLES_PA 0x600000 /* the builder's: a top table, and what is below it */
#define TABLES 4u
#define CONSOLE_PA 0x481000
#define CONSOLE_PORT 2
#define TICK_PORT 70
#define STORES 2000u
#define TOP(pa) ((uint64_t *)direct(pa))

const uint64_t pv_stubs[EXCEPTIONS] = {77};
char kernel_stack_top[8];
void pv_syscall_entry(void);
void pv_event_entry(void);
void pv_failsafe_entry(void);
void pv_syscall_entry(void) {}
void pv_event_entry(void) {}
void pv_failsafe_entry(void) {}
void crash_end(const struct frame *frame, const char *text, ...) { (void)frame, (void)text; abort(); }

/* ---- Xen's side */

static uint64_t now_ns = 1000, timer_ns; /* 0: the timer is not set */
static uint32_t callbacks, timers, sends, yields, flushes, reads_per_yield;
static uint64_t base_frame, user_base_frame, changed_value;
static bool is_pinned[PAGES];
static struct trap_info traps[EXCEPTIONS];

uint64_t xen_time(void) { return now_ns; }

static uint64_t page_of(uint64_t frame)
{
    for (uint64_t page = 0; page < PAGES; page++)
        if (FRAME_OF(page) == frame)
            return page;
    CHECK(false, "no frame of ours: 0x%lx", frame);
}

static int64_t extended(const struct mmuext_op *operation)
{
    uint64_t page = page_of(operation->arg1.mfn);
    switch (operation->cmd) {
    case MMUEXT_CLEAR_PAGE: memset(direct(page * PAGE_SIZE), 0, PAGE_SIZE); break;
    case MMUEXT_PIN_L4_TABLE: is_pinned[page] = true; break;
    case MMUEXT_NEW_BASEPTR: base_frame = operation->arg1.mfn; break;
    case MMUEXT_NEW_USER_BASEPTR: user_base_frame = operation->arg1.mfn; break;
    case MMUEXT_TLB_FLUSH_LOCAL: flushes++; break;
    default: return -1;
    }
    return 0;
}

static int64_t update(const struct mmu_update *entries, uint64_t count)
{
    for (uint64_t index = 0; index < count; index++) {
        uint64_t pa = page_of(entries[index].ptr / PAGE_SIZE) * PAGE_SIZE;
        CHECK(pv_is_table(pa), "0x%lx is written to", pa);
        *(uint64_t *)direct(pa + entries[index].ptr % PAGE_SIZE) = entries[index].val;
    }
    return 0;
}

static struct xencons_interface *console(void) { return direct(CONSOLE_PA); }

static int64_t sched(uint64_t operation)
{
    if (operation == SCHEDOP_yield) {
        yields++;
        console()->out_cons += reads_per_yield;
    } else {
        CHECK(operation == SCHEDOP_block);
        SHARED_INFO->vcpu_info[0].evtchn_upcall_mask = 0;
    }
    return 0;
}

static int64_t take_traps(const struct trap_info *table)
{
    uint32_t count = 0;
    for (; table[count].address; count++) {
        CHECK(count < EXCEPTIONS && (uint32_t)table[count].vector == count && table[count].flags & 4);
        traps[count] = table[count];
    }
    CHECK(count == 1 && traps[0].address == 77); /* the stubs' addresses here are 0 behind it */
    return 0;
}

int64_t made_up_xen(uint64_t a, uint64_t b, uint64_t c, uint32_t number)
{
    (void)c;
    switch (number) {
    case __HYPERVISOR_mmuext_op: return extended((const void *)a);
    case __HYPERVISOR_mmu_update: return update((const void *)a, b);
    case __HYPERVISOR_update_va_mapping: changed_value = *TOP(keep.pv.pool_pa); return 0;
    case __HYPERVISOR_set_timer_op:
        CHECK(a > now_ns, "the timer is set into the past");
        timer_ns = a;
        timers++;
        return 0;
    case __HYPERVISOR_vcpu_op: return 0;
    case __HYPERVISOR_callback_op: callbacks++; return 0;
    case __HYPERVISOR_set_trap_table: return take_traps((const void *)a);
    case __HYPERVISOR_stack_switch: return 0;
    case __HYPERVISOR_sched_op: return sched(a);
    case __HYPERVISOR_event_channel_op:
        CHECK(a == EVTCHNOP_send && ((struct evtchn_send *)b)->port == CONSOLE_PORT);
        sends++;
        return 0;
    default: return -1;
    }
}

/* ---- the start */

static void set_up(void)
{
    CHECK(machine_map(DIRECT_BASE, PHYSICAL_MAX) && machine_map(SHARED_INFO_VA, PAGE_SIZE) &&
          machine_map(KERNEL_BASE, PAGES * PAGE_SIZE) &&
          machine_map(MACHINE_TO_PHYSICAL_VA, 0x200000 * 8));
    uint64_t *to_physical = (uint64_t *)MACHINE_TO_PHYSICAL_VA;
    uint64_t *list = (uint64_t *)(KERNEL_BASE + LIST_PA);
    for (uint64_t page = 0; page < PAGES; page++) {
        list[page] = ((uint64_t *)direct(LIST_PA))[page] = FRAME_OF(page);
        to_physical[FRAME_OF(page)] = page;
    }
    struct start_info *info = (struct start_info *)(KERNEL_BASE + INFO_PA);
    *info = (struct start_info){
        .nr_pages = PAGES, .shared_info = 0x7000, .mod_start = KERNEL_BASE + 0x300000,
        .mod_len = 0x1234, .mfn_list = KERNEL_BASE + LIST_PA, .pt_base = KERNEL_BASE + TABLES_PA,
        .nr_pt_frames = TABLES,
    };
    memcpy(info->cmd_line, "--event 14", 11);
    info->console.domU.mfn = FRAME_OF(CONSOLE_PA / PAGE_SIZE);
    info->console.domU.evtchn = CONSOLE_PORT;
    memset(direct(0xe00000), 0xee, 0x200000); /* where the pool will be: never clean */
    pv_is_on = 1;
    pv_read_start_info(INFO_PA);
}

static uint64_t *table_of(uint64_t entry)
{
    CHECK(entry & 1);
    return direct(page_of(entry % (1ull << 52) / PAGE_SIZE) * PAGE_SIZE);
}

/* V2: all memory is in the direct map, each page at its place, and tables cannot be written to. */
static void check_direct_map(void)
{
    const uint64_t *third = table_of(TOP(TABLES_PA)[DIRECT_BASE >> 39 & 511]);
    for (uint64_t pa = 0; pa < PAGES * PAGE_SIZE; pa += PAGE_SIZE) {
        uint64_t entry = table_of(table_of(third[pa >> 30])[pa >> 21 & 511])[pa >> 12 & 511];
        CHECK(entry % (1ull << 52) / PAGE_SIZE == FRAME_OF(pa / PAGE_SIZE) && entry & 1);
        CHECK(entry >> 63 && !(entry & 2) == pv_is_table(pa), "0x%lx: 0x%lx", pa, entry);
    }
}

static void check_start(void)
{
    CHECK(keep.ram_count == 1 && keep.ram[0].pa == 0 && keep.ram[0].size == PAGES * PAGE_SIZE);
    CHECK(keep.initrd.pa == 0x300000 && keep.initrd.size == 0x1234);
    CHECK(strcmp(keep.command_line, "--event 14") == 0);
    CHECK(keep.pv.console_pa == CONSOLE_PA && keep.pv.console_port == CONSOLE_PORT);
    CHECK(keep.pv.shared_info_machine == 0x7000);
    CHECK(keep.pv.pool_pa + keep.pv.pool_count * PAGE_SIZE == PAGES * PAGE_SIZE);
    CHECK(keep.pv.boot_pa == KERNEL_PA &&
          keep.pv.boot_pa + keep.pv.boot_size > TABLES_PA + TABLES * PAGE_SIZE);
    keep_check();
    CHECK(pv_machine(0x5123) == FRAME_OF(5ull) * PAGE_SIZE + 0x123);
    CHECK(pv_physical(FRAME_OF(7ull) * PAGE_SIZE + 9) == 7 * PAGE_SIZE + 9);
}

/* ---- page tables */

static void check_tables(void)
{
    uint64_t end = keep.pv.pool_pa + keep.pv.pool_count * PAGE_SIZE;
    CHECK(!pv_is_table(keep.pv.pool_pa - 1) && pv_is_table(keep.pv.pool_pa));
    CHECK(pv_is_table(end - 1) && !pv_is_table(end));
    CHECK(!pv_is_table(TABLES_PA - 1) && pv_is_table(TABLES_PA));
    CHECK(!pv_is_table(TABLES_PA + TABLES * PAGE_SIZE));

    uint64_t pa = pv_table_alloc(), machine = pv_machine(pa);
    for (uint64_t index = 0; index < STORES; index++)
        pv_store(machine + index % 512 * 8, index);
    CHECK(TOP(pa)[(STORES - 1) % 512] != STORES - 1, "nothing is queued");
    pv_flush();
    for (uint64_t index = STORES - 512; index < STORES; index++)
        CHECK(TOP(pa)[index % 512] == index);

    pv_store(pv_machine(keep.pv.pool_pa), 0x1234560); /* what is changed at once comes behind it */
    pv_change(0x1000, 0);
    CHECK(changed_value == 0x1234560);
}

static void check_restart(void)
{
    CHECK(pv_begin_tables());
    uint64_t *top = TOP(keep.pv.top_pa), *program_top = TOP(keep.pv.program_top_pa);
    CHECK(is_pinned[keep.pv.top_pa / PAGE_SIZE] && is_pinned[keep.pv.program_top_pa / PAGE_SIZE]);
    CHECK(top[DIRECT_BASE >> 39] == TOP(TABLES_PA)[DIRECT_BASE >> 39] && top[DIRECT_BASE >> 39]);
    pv_store(pv_machine(keep.pv.top_pa) + 300 * 8, 0x5001);
    pv_use_tables();
    CHECK(base_frame == FRAME_OF(keep.pv.top_pa / PAGE_SIZE) && flushes == 1 &&
          user_base_frame == FRAME_OF(keep.pv.program_top_pa / PAGE_SIZE));
    uint32_t kernel_count = keep.pv.pool_kernel;
    uint64_t first = 0;
    for (uint32_t life = 0; life < 3; life++) {
        uint64_t pa = pv_table_alloc();
        CHECK(life == 0 || pa == first, "0x%lx instead of 0x%lx", pa, first);
        first = pa;
        for (uint64_t index = 0; index < 512; index++)
            CHECK(TOP(pa)[index] == 0, "entry %lu of a fresh table", index);
        pv_store(pv_machine(pa), 0x77001);
        pv_store(pv_machine(keep.pv.top_pa) + 8, 0x6001);
        pv_share(1, 0x6001);
        pv_flush();
        CHECK(top[1] == 0x6001 && program_top[1] == 0x6001 && program_top[300] == 0);
        while (pv_table_alloc()) {}
        CHECK(!pv_begin_tables());
        CHECK(top[1] == 0 && program_top[1] == 0, "the program's half is left");
        CHECK(top[300] == 0x5001 && top[DIRECT_BASE >> 39], "the kernel's half is gone");
        pv_use_tables();
        CHECK(keep.pv.pool_kernel == kernel_count);
    }
}

/* ---- the tree of frames, as Xen's tools read it */

static uint64_t *at_frame(uint64_t frame) { return direct(page_of(frame) * PAGE_SIZE); }

static void check_tree(void)
{
    uint64_t first = keep.pv.tree_pa / PAGE_SIZE, end = first + PV_TREE_PAGES;
    CHECK(keep.pv.tree_pa >= TABLES_PA + (TABLES + 1) * PAGE_SIZE);
    CHECK(end * PAGE_SIZE == keep.pv.boot_pa + keep.pv.boot_size);
    memset(direct(keep.pv.tree_pa), 0xee, PV_TREE_PAGES * PAGE_SIZE);
    pv_tell_frames();
    CHECK(SHARED_INFO->arch.max_pfn == PAGES);
    const uint64_t *top = at_frame(SHARED_INFO->arch.pfn_to_mfn_frame_list_list);
    CHECK(top == direct(keep.pv.tree_pa));
    for (uint64_t page = 0; page < PAGES; page++) {
        const uint64_t *list = at_frame(top[page / (512 * 512)]);
        CHECK(page_of(top[page / (512 * 512)]) > first && page_of(top[page / (512 * 512)]) < end);
        CHECK(at_frame(list[page / 512 % 512])[page % 512] == FRAME_OF(page), "page %lu", page);
    }
    for (uint64_t index = 0; index < 512; index++) { /* all of 4 GiB has a list; no more is told */
        CHECK(index < PV_TREE_PAGES - 1 ? page_of(top[index]) == first + 1 + index : !top[index]);
        CHECK(index < (PAGES + 511) / 512 || !at_frame(top[0])[index]);
    }
}

/* ---- traps, time, console */

static uint64_t tick_bit(void) { return 1ull << TICK_PORT % 64; }

static void ring_timer(void)
{
    now_ns = timer_ns + 1;
    SHARED_INFO->evtchn_pending[TICK_PORT / 64] |= tick_bit();
}

static void check_ticks(void)
{
    keep.pv.tick_port = TICK_PORT;
    SHARED_INFO->evtchn_mask[TICK_PORT / 64] = ~0ull;
    pv_tick_init();
    CHECK(SHARED_INFO->evtchn_mask[TICK_PORT / 64] == ~tick_bit() && timers == 1);
    CHECK(!pv_tick() && timers == 1, "a tick that was not due");
    for (uint32_t index = 0; index < 10; index++) {
        uint64_t before = timer_ns;
        ring_timer();
        CHECK(pv_tick() && timer_ns == before + PV_TICK_NS);
        CHECK(!(SHARED_INFO->evtchn_pending[TICK_PORT / 64] & tick_bit()) && !pv_tick());
    }
    ring_timer();
    now_ns += 100 * PV_TICK_NS; /* it came late */
    CHECK(pv_tick() && timer_ns == now_ns + PV_TICK_NS);
    pv_tick_at(25 * PV_TICK_NS);
    CHECK(timer_ns == now_ns + 25 * PV_TICK_NS);
    SHARED_INFO->vcpu_info[0].evtchn_upcall_mask = 1;
    pv_wait();
    CHECK(SHARED_INFO->vcpu_info[0].evtchn_upcall_mask == 1, "events are let in behind a wait");
}

static void check_console(void)
{
    char text[5000];
    for (size_t index = 0; index < sizeof(text); index++)
        text[index] = (char)('a' + index % 26);
    console()->out_prod = console()->out_cons = UINT32_MAX - 100; /* the indexes turn over */
    pv_console_write(text, sizeof(text));
    uint32_t used = console()->out_prod - console()->out_cons;
    CHECK(used == sizeof(console()->out) && sends == 1 && yields > 1 && yields < 1000);
    for (uint32_t index = 0; index < used; index++)
        CHECK(console()->out[MASK_XENCONS_IDX(console()->out_cons + index, console()->out)] ==
              text[index]);
    uint32_t before = yields;
    pv_console_write(text, 300); /* nobody reads: it is not waited for again */
    CHECK(yields == before + 1 && console()->out_prod - console()->out_cons == used);
    console()->out_cons = console()->out_prod;
    uint32_t begun = console()->out_prod;
    reads_per_yield = 10; /* slowly */
    pv_console_write(text, sizeof(text));
    CHECK(console()->out_prod - begun == sizeof(text));
}

int main(void)
{
    set_up();
    check_start();
    check_direct_map();
    check_tree();
    check_tables();
    check_restart();
    pv_trap_init();
    CHECK(callbacks == 3);
    check_ticks();
    check_console();
    return 0;
}
