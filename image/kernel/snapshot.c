/* SPDX-License-Identifier: Apache-2.0 */
/* A pristine interpreter, kept: /dev/snapshot.
 *
 * Reading takes the snapshot: a copy of every page of the program's own, and of what the kernel
 * knows of it (PROGRAM_STATE). It lies in pages that are mapped read-only from then on, listed by
 * index pages, under one checksum. At a restart snapshot_restore() copies it back and goes on as
 * if that read() had just returned.
 *   N1. Taken once, by a life that began from the ELF file. Without enough memory: not at all.
 *   N2. Believed only with its checksum, which is in `keep`; else the start is cold.
 *   N3. Pages full of zeros are listed, not copied.
 * Not in it: descriptors of anything but the console and this device would be stale, so none
 * may be open. */

#include "cpu.h"
#include "device.h"
#include "linux.h"
#include "snapshot.h"
#include "trap.h"

#define PAGES_LEFT 1024 /* for the program to live on: N1 */
#define FLAGS_MASK (PAGE_SIZE - 1ull)

extern char program_state_start[], program_state_end[];

PROGRAM_STATE static struct frame saved_frame;
PROGRAM_STATE static uint64_t answer_va, answer_size;

static int64_t answer(const char *text)
{
    size_t size = strlen(text) < answer_size ? strlen(text) : answer_size;
    memcpy((void *)answer_va, text, size);
    return (int64_t)size;
}

/* ---- walking it. Only snapshot_reserve() runs before it has been verified: snapshot_sum() checks
 * what it reads. */

static bool is_plausible(uint64_t pa)
{
    return pa && pa % PAGE_SIZE == 0 && page_is_ram(pa, PAGE_SIZE);
}

static uint64_t sum_page(uint64_t sum, uint64_t pa)
{
    return checksum_words(sum, direct(pa), PAGE_SIZE);
}

/* Over all index pages and copies. */
bool snapshot_sum(uint64_t *sum)
{
    *sum = SNAPSHOT_SEED;
    uint64_t left = page_total_count(); /* a loop in a damaged list ends */
    for (uint64_t pa = keep.snapshot_pa; pa;) {
        if (!is_plausible(pa) || left-- == 0)
            return false;
        const struct index *index = direct(pa);
        if (index->count > INDEX_ENTRIES)
            return false;
        *sum = sum_page(*sum, pa);
        for (uint64_t at = 0; at < index->count; at++) {
            if (!is_copy(&index->entries[at]))
                continue;
            if (!is_plausible(index->entries[at].pa))
                return false;
            *sum = sum_page(*sum, index->entries[at].pa);
        }
        pa = index->next_pa;
    }
    return true;
}

static void for_each_page(void (*visit)(uint64_t pa))
{
    for (uint64_t pa = keep.snapshot_pa; pa;) {
        const struct index *index = direct(pa);
        for (uint64_t at = 0; at < index->count; at++)
            if (is_copy(&index->entries[at]))
                visit(index->entries[at].pa);
        visit(pa);
        pa = index->next_pa;
    }
}

static void reserve_page(uint64_t pa) { page_reserve(pa, PAGE_SIZE); }

static void forget(void)
{
    carried_withdraw();
    keep.snapshot_pa = 0;
    keep_seal();
}

void snapshot_reserve(void)
{
    carried_adopt();
    if (keep.snapshot_pa == 0)
        return;
    uint64_t sum;
    if (!snapshot_sum(&sum) || sum != keep.snapshot_checksum) {
        log_error("the snapshot is damaged: this start is cold");
        forget();
    } else if (crash_wants_cold_start()) {
        log_info("too many starts have failed: this one is cold");
        forget();
    } else {
        for_each_page(reserve_page);
    }
}

/* ---- taking it */

static bool is_zero(const void *page)
{
    const uint64_t *words = page;
    for (uint32_t index = 0; index < PAGE_SIZE / 8; index++)
        if (words[index])
            return false;
    return true;
}

static struct index *last_index;
static uint64_t first_pa; /* in `keep` once it is whole */

static uint64_t page_for_snapshot(void)
{
    return page_free_count() > PAGES_LEFT ? page_alloc() : 0;
}

static bool add_entry(uint64_t va, uint64_t source_pa, uint32_t flags)
{
    if (!last_index || last_index->count == INDEX_ENTRIES) {
        uint64_t pa = page_for_snapshot();
        if (!pa)
            return false;
        if (last_index)
            last_index->next_pa = pa;
        else
            first_pa = pa;
        last_index = direct(pa);
    }
    uint64_t pa = source_pa;
    if (!(flags & MAP_SHARED)) {
        pa = is_zero(direct(source_pa)) ? 0 : page_for_snapshot();
        if (!pa && !is_zero(direct(source_pa)))
            return false;
        if (pa)
            memcpy(direct(pa), direct(source_pa), PAGE_SIZE);
    }
    last_index->entries[last_index->count++] = (struct entry){va | flags, pa};
    return true;
}

static bool take(void)
{
    uint64_t va = 0;
    for (; paging_next_user(&va); va += PAGE_SIZE) {
        uint64_t pa;
        uint32_t flags;
        bool is_mapped = paging_find(va, &pa, &flags);
        assert(is_mapped);
        if (!add_entry(va, pa, flags))
            return false;
    }
    for (char *at = program_state_start; at < program_state_end; at += PAGE_SIZE)
        if (!add_entry((uint64_t)at, (uint64_t)at - KERNEL_BASE, 0))
            return false;
    return true;
}

static int64_t snapshot_read(struct file *file, void *to, uint64_t size, uint64_t offset)
{
    (void)file, (void)offset;
    answer_va = (uint64_t)to;
    answer_size = size;
    if (!options.snapshot)
        return answer("off");
    if (keep.snapshot_pa)
        return -EEXIST;
    for (uint32_t fd = 0; fd < FILES_MAX; fd++)
        if (files[fd].device && files[fd].device != device_find("/dev/console") &&
            &files[fd] != file)
            return -EINVAL;
    saved_frame = *syscall_frame;
    bool is_taken = take();
    keep.snapshot_pa = first_pa;
    keep_seal();
    if (!is_taken) {
        last_index = NULL;
        for_each_page(page_free);
        forget();
        log_error("not enough memory for a snapshot: every start will be cold");
        return answer("off");
    }
    uint64_t sum, count = page_free_count();
    bool is_whole = snapshot_sum(&sum);
    assert(is_whole);
    keep.snapshot_checksum = sum;
    keep_seal();
    for_each_page(paging_seal);
    carried_publish();
    log_info("snapshot taken at %lu ms; %lu KiB are free", clock_now() / 1000000, count * 4);
    log_debug("snapshot: first index at 0x%lx", keep.snapshot_pa);
    return answer("taken");
}

const struct device snapshot_device = {
    .path = "/dev/snapshot", .mode = S_IFCHR | 0400, .read = snapshot_read,
};

/* ---- going on from it */

static void restore_page(uint64_t va, uint32_t flags, uint64_t source_pa)
{
    if (va >= KERNEL_BASE) {
        if (source_pa)
            memcpy((void *)va, direct(source_pa), PAGE_SIZE);
        else
            memset((void *)va, 0, PAGE_SIZE);
        return;
    }
    uint64_t pa = flags & MAP_SHARED ? source_pa : page_alloc();
    if (!pa || paging_map(va, pa, flags))
        panic("no memory for what was there before");
    if (!(flags & MAP_SHARED) && source_pa)
        memcpy(direct(pa), direct(source_pa), PAGE_SIZE);
}

void snapshot_restore(void)
{
    if (keep.snapshot_pa == 0)
        return;
    paging_batch(true);
    for (uint64_t index_pa = keep.snapshot_pa; index_pa;) {
        const struct index *index = direct(index_pa);
        for (uint64_t at = 0; at < index->count; at++) {
            uint64_t va_flags = index->entries[at].va_flags;
            restore_page(va_flags & ~FLAGS_MASK, (uint32_t)(va_flags & FLAGS_MASK),
                         index->entries[at].pa);
        }
        index_pa = index->next_pa;
    }
    paging_batch(false);
    for_each_page(paging_seal);
    program_set_fs_base(program_fs_base);
    saved_frame.rax = (uint64_t)answer("restored");
    log_info("start %lu: from the snapshot, at %lu ms", keep.restarts, clock_now() / 1000000);
    cpu_reset_fpu();
    trap_return(&saved_frame);
}
