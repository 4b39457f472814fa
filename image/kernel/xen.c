/* SPDX-License-Identifier: Apache-2.0 */
/* The domain that we are, if we are one: whether Xen is there, and what it says of memory and time.
 *
 *   X1. Nothing is ever mapped over a frame that is there: Xen ends the domain for that. What Xen
 *       shares with us, and pages of other domains, lie in a window that holds no memory.
 *   X2. A new life finds shared_info where it was; mapping it again at its place is allowed.
 * On any other machine xen_leaf() is 0, and nothing here does anything.
 * Sources: Xen's public headers; docs/misc/pvh.pandoc and xen-command-line.pandoc. */

#include "cpu.h"
#include "hypercall.h"
#include "pv.h"

#include <xen/arch-x86/cpuid.h>
#include <xen/memory.h>
#include <xen/sched.h>

#define CPUID_1_ECX_HYPERVISOR (1u << 31)
#define HYPERVISOR_FIRST 0x40000000u
#define HYPERVISOR_END 0x40010000u
#define HYPERVISOR_STEP 0x100u
#define LEAF_HYPERCALL_PAGE 2 /* behind the first */
#define E820_RAM 1
#define NS_PER_S 1000000000ull
#define SIGN_NS 500000000ull /* between two signs of life, at least */

struct e820_entry { uint64_t pa, size; uint32_t type; } __attribute__((packed));

static uint32_t leaf;
static uint32_t watchdog_id;
static uint64_t sign_next;

uint32_t xen_leaf(void) { return leaf; }

void xen_find(void)
{
    if (pv_is_on)
        leaf = HYPERVISOR_FIRST; /* CPUID may be the real one: nobody looks there */
    if (leaf || !(cpuid(1, 0).ecx & CPUID_1_ECX_HYPERVISOR))
        return;
    for (uint32_t at = HYPERVISOR_FIRST; !leaf && at < HYPERVISOR_END; at += HYPERVISOR_STEP) {
        struct cpuid first = cpuid(at, 0);
        if (first.ebx == XEN_CPUID_SIGNATURE_EBX && first.ecx == XEN_CPUID_SIGNATURE_ECX &&
            first.edx == XEN_CPUID_SIGNATURE_EDX && first.eax >= at + LEAF_HYPERCALL_PAGE)
            leaf = at;
    }
    if (leaf)
        wrmsr(cpuid(leaf + LEAF_HYPERCALL_PAGE, 0).ebx, (uint64_t)hypercall_page - KERNEL_BASE);
}

/* init-xenstore-domain leaves the memory map out of the start info. */
void xen_read_memory(void)
{
    static struct e820_entry entries[RAM_RANGES_MAX];
    if (!leaf || keep.ram_count)
        return;
    struct xen_memory_map map = {.nr_entries = COUNT(entries)};
    set_xen_guest_handle(map.buffer, entries);
    if (hypercall(__HYPERVISOR_memory_op, XENMEM_memory_map, (uint64_t)&map, 0))
        machine_off("Xen does not tell the memory map");
    for (uint32_t index = 0; index < map.nr_entries; index++)
        if (entries[index].type == E820_RAM)
            startinfo_add_ram(entries[index].pa, entries[index].size);
    keep_seal();
}

static void check_window(void)
{
    for (uint32_t index = 0; index < keep.ram_count; index++) {
        const struct range *ram = &keep.ram[index];
        if (ram->pa < XEN_WINDOW_PA + XEN_WINDOW_SIZE && XEN_WINDOW_PA < ram->pa + ram->size)
            machine_off("no room for Xen's pages: give the domain 3 GiB at most"); /* X1 */
    }
}

static void map_shared_info(void)
{
    struct xen_add_to_physmap add = {
        .domid = DOMID_SELF, .space = XENMAPSPACE_shared_info, .gpfn = XEN_WINDOW_PA / PAGE_SIZE,
    };
    if (hypercall(__HYPERVISOR_memory_op, XENMEM_add_to_physmap, (uint64_t)&add, 0) ||
        paging_map(SHARED_INFO_VA, XEN_WINDOW_PA, MAP_WRITE))
        machine_off("shared_info cannot be mapped");
}

void xen_init(void)
{
    if (!leaf)
        return;
    check_window();
    if (pv_is_on) /* paging.c has mapped it */
        pv_tell_frames();
    else
        map_shared_info();
}

/* ---- time */

/* A version that is odd, or another afterwards: it was being written to. */
uint64_t xen_time(void)
{
    const volatile struct vcpu_time_info *time = &SHARED_INFO->vcpu_info[0].time;
    for (;;) {
        uint32_t version = __atomic_load_n(&time->version, __ATOMIC_ACQUIRE);
        uint64_t ticks = rdtsc() - time->tsc_timestamp;
        ticks = time->tsc_shift < 0 ? ticks >> -time->tsc_shift : ticks << time->tsc_shift;
        uint64_t ns = (uint64_t)((unsigned __int128)ticks * time->tsc_to_system_mul >> 32);
        ns += time->system_time;
        __atomic_thread_fence(__ATOMIC_ACQUIRE);
        if (!(version & 1) && version == time->version)
            return ns;
    }
}

uint64_t xen_tsc_hz(void)
{
    const volatile struct vcpu_time_info *time = &SHARED_INFO->vcpu_info[0].time;
    uint64_t hz = (NS_PER_S << 32) / time->tsc_to_system_mul;
    return time->tsc_shift < 0 ? hz << -time->tsc_shift : hz >> time->tsc_shift;
}

uint64_t xen_wall_clock(void)
{
    const volatile struct shared_info *shared = SHARED_INFO;
    for (;;) {
        uint32_t version = __atomic_load_n(&shared->wc_version, __ATOMIC_ACQUIRE);
        uint64_t begun_s = (uint64_t)shared->wc_sec_hi << 32 | shared->wc_sec;
        uint64_t begun_ns = begun_s * NS_PER_S + shared->wc_nsec;
        __atomic_thread_fence(__ATOMIC_ACQUIRE);
        if (!(version & 1) && version == shared->wc_version)
            return begun_ns + xen_time();
    }
}

/* ---- the end */

void xen_shutdown(bool is_failure)
{
    struct sched_shutdown end = {is_failure ? SHUTDOWN_crash : SHUTDOWN_poweroff};
    if (leaf)
        hypercall(__HYPERVISOR_sched_op, SCHEDOP_shutdown, (uint64_t)&end, 0);
}

/* Xen ends the domain if no tick comes for so long. A life before may have started the watchdog:
 * it is the first one. */
void xen_tick(void)
{
    if (!leaf || !options.xen_watchdog_s || clock_now() < sign_next)
        return;
    sign_next = clock_now() + SIGN_NS;
    struct sched_watchdog watchdog = {watchdog_id ? watchdog_id : 1, options.xen_watchdog_s};
    int64_t result = hypercall(__HYPERVISOR_sched_op, SCHEDOP_watchdog, (uint64_t)&watchdog, 0);
    if (result < 0 && !watchdog_id) {
        watchdog.id = 0;
        result = hypercall(__HYPERVISOR_sched_op, SCHEDOP_watchdog, (uint64_t)&watchdog, 0);
    }
    if (result < 0)
        log_error("xen: the watchdog cannot be set, error %u", (uint32_t)-result);
    watchdog_id = result > 0 ? (uint32_t)result : 1;
}
