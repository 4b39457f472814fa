/* SPDX-License-Identifier: Apache-2.0 */
/* All that can change, kept: a copy of every page of Unikraft's data and heap, taken when Python
 * has imported what the server needs, and copied back whenever a life has ended.
 *
 *   N1. It lies in chunks of the heap, which are not in it. Chunks are got before anything is
 *       copied, so the allocator in the copy knows that they are taken.
 *   N2. Believed only with its checksum, which is in `keep`. There is no colder start than this one
 *       (a PV domain's page tables cannot be made anew), so without it the domain ends.
 *   N3. Pages full of zeros are listed in runs, not copied; those among them that nobody has
 *       allocated are left out: nobody expects anything of them.
 *   N4. Restoring runs on a stack of its own, without interrupts, and calls nothing whose data it
 *       overwrites.
 * The first stack is part of the image on Xen, and memory of its own in QEMU. Page tables are not
 * in it: they lie before the heap, and nothing changes them but grant.c.
 * Knows nothing of Python. */

#include "tardigrade.h"

#include <errno.h>
#include <string.h>

#include <uk/alloc.h>
#include <uk/plat/bootstrap.h>
#include <uk/plat/common/sections.h>
#include <uk/plat/lcpu.h>
#include <uk/plat/memory.h>
#include <uk/plat/time.h>
#include <uk/plat/tls.h>

#define CHUNK_PAGES 256u
#define CHUNK_SIZE (CHUNK_PAGES * (size_t)__PAGE_SIZE)
#define ENTRIES 255u
#define CHUNKS_MAX 256u
#define FREE_MAX 256u
#define SEED 0x736e6170u

struct entry {
    uint64_t address;
    uint64_t zeros; /* how many pages of zeros; 0: a page whose copy is the chunk's next */
};
struct chunk {
    uint64_t next; /* 0: the last */
    uint64_t count;
    struct entry entries[ENTRIES];
    char copies[CHUNK_PAGES - 1][__PAGE_SIZE];
};
_Static_assert(offsetof(struct chunk, copies) == __PAGE_SIZE, "the entries are a page");
_Static_assert(sizeof(struct chunk) == CHUNK_SIZE, "whole pages");
_Static_assert(ENTRIES == CHUNK_PAGES - 1, "an entry for each copy");

struct range { uintptr_t from, to; };

static struct context context;
static __uptr tls;
static struct range chunks[CHUNKS_MAX], free_ranges[FREE_MAX];
static uint32_t chunk_count, free_count;

bool snapshot_exists(void) { return keep.snapshot != 0; }

/* ---- what there is to be kept */

static bool is_in(uintptr_t address, const struct range *ranges, uint32_t count)
{
    for (uint32_t index = 0; index < count; index++)
        if (address >= ranges[index].from && address < ranges[index].to)
            return true;
    return false;
}

static bool is_zero(uintptr_t page)
{
    const uint64_t *words = (const uint64_t *)page;
    for (size_t index = 0; index < __PAGE_SIZE / sizeof(*words); index++)
        if (words[index])
            return false;
    return true;
}

/* `visit` may refuse: then all of it ends. */
static bool for_each_page(bool (*visit)(uintptr_t page))
{
    struct range image[] = {
        {__DATA, (uintptr_t)&apart},
        {(uintptr_t)&apart + sizeof(apart), __END},
    };
    for (size_t index = 0; index < 2; index++)
        for (uintptr_t page = image[index].from; page < image[index].to; page += __PAGE_SIZE)
            if (!visit(page))
                return false;
    struct ukplat_memregion_desc *memory;
    ukplat_memregion_foreach(&memory, UKPLAT_MEMRT_FREE | UKPLAT_MEMRT_STACK, 0, 0) {
        uintptr_t end = memory->vbase + memory->len;
        for (uintptr_t page = memory->vbase; page < end; page += __PAGE_SIZE)
            if (!is_in(page, chunks, chunk_count) && !visit(page))
                return false;
    }
    return true;
}

/* ---- taking it */

static struct chunk *chunk_at(uint32_t index) { return (struct chunk *)chunks[index].from; }

static bool add_chunk(void)
{
    struct chunk *chunk = chunk_count < CHUNKS_MAX
                              ? uk_palloc(uk_alloc_get_default(), CHUNK_PAGES) : NULL;
    if (!chunk)
        return false;
    chunk->next = 0;
    chunk->count = 0;
    if (chunk_count)
        chunk_at(chunk_count - 1)->next = (uint64_t)chunk;
    uintptr_t from = (uintptr_t)chunk;
    chunks[chunk_count++] = (struct range){from, from + CHUNK_SIZE};
    return true;
}

static void drop_chunks(void)
{
    while (chunk_count)
        uk_pfree(uk_alloc_get_default(), chunk_at(--chunk_count), CHUNK_PAGES);
}

/* Whoever asks for all that there is knows what was free. */
static void find_free(void)
{
    struct uk_alloc *heap = uk_alloc_get_default();
    free_count = 0;
    for (unsigned long pages = 1ul << 18; pages; pages /= 2) {
        while (free_count < FREE_MAX) {
            long most = uk_alloc_pmaxalloc(heap);
            if (most < 0 || (unsigned long)most < pages)
                break;
            uintptr_t from = (uintptr_t)uk_palloc(heap, pages);
            if (!from)
                break;
            free_ranges[free_count++] = (struct range){from, from + pages * __PAGE_SIZE};
        }
    }
    for (uint32_t index = free_count; index--;) {
        const struct range *range = &free_ranges[index];
        uk_pfree(heap, (void *)range->from, (range->to - range->from) / __PAGE_SIZE);
    }
}

static unsigned long kept, cleared; /* pages, for the log */
static uint32_t filling; /* the chunk that takes entries */
static uint32_t copies;  /* that it holds */

static struct entry *last_entry(void)
{
    struct chunk *chunk = chunk_at(filling);
    return chunk->count ? &chunk->entries[chunk->count - 1] : NULL;
}

static bool add_page(uintptr_t page)
{
    bool zero = is_zero(page);
    struct entry *last = last_entry();
    if (zero && is_in(page, free_ranges, free_count))
        return true;
    *(zero ? &cleared : &kept) += 1;
    if (zero && last && last->zeros && last->address + last->zeros * __PAGE_SIZE == page) {
        last->zeros++;
        return true;
    }
    struct chunk *chunk = chunk_at(filling);
    if (chunk->count == ENTRIES) {
        if (++filling == chunk_count)
            return false;
        copies = 0;
        chunk = chunk_at(filling);
    }
    chunk->entries[chunk->count++] = (struct entry){page, zero};
    if (!zero)
        memcpy(chunk->copies[copies++], (const void *)page, __PAGE_SIZE);
    return true;
}

static uint32_t needed;

static bool count_page(uintptr_t page)
{
    needed += !is_zero(page);
    return true;
}

/* What is counted changes while chunks are got; a quarter more leaves room for runs of zeros. */
static bool get_chunks(void)
{
    needed = 0;
    for_each_page(count_page);
    uint32_t most = (needed + needed / 4) / ENTRIES + 2;
    while (chunk_count < most)
        if (!add_chunk())
            return false;
    return true;
}

static uint64_t sum(void)
{
    uint64_t total = SEED;
    for (uint64_t at = keep.snapshot; at; at = ((const struct chunk *)at)->next) {
        const struct chunk *chunk = (const struct chunk *)at;
        total = checksum_words(total, chunk, __PAGE_SIZE);
        uint32_t used = 0;
        for (uint64_t index = 0; index < chunk->count && index < ENTRIES; index++)
            used += chunk->entries[index].zeros == 0;
        total = checksum_words(total, chunk->copies, used * (size_t)__PAGE_SIZE);
    }
    return total;
}

const char *snapshot_take(void)
{
    if (keep.snapshot)
        return "off";
    machine_before_snapshot();
    if (!get_chunks()) {
        drop_chunks();
        say("not enough memory for a snapshot: no life will follow this one");
        return "off";
    }
    find_free();
    tls = ukplat_tlsp_get();
    filling = copies = 0;
    kept = cleared = 0;
    if (context_save(&context))
        return "restored";
    if (!for_each_page(add_page)) {
        drop_chunks();
        say("the snapshot does not fit its chunks: no life will follow this one");
        return "off";
    }
    keep.snapshot = chunks[0].from;
    keep.snapshot_checksum = sum();
    keep_seal();
    say("snapshot taken at %lu ms: %lu pages, %lu of zeros to be cleared",
        (unsigned long)(ukplat_monotonic_clock() / 1000000), kept, cleared);
    return "taken";
}

/* ---- going on from it */

static void copy_back(void)
{
    for (uint64_t at = keep.snapshot; at; at = ((const struct chunk *)at)->next) {
        const struct chunk *chunk = (const struct chunk *)at;
        const char *copy = chunk->copies[0];
        for (uint64_t index = 0; index < chunk->count; index++) {
            void *page = (void *)chunk->entries[index].address;
            uint64_t zeros = chunk->entries[index].zeros;
            if (zeros) {
                memset(page, 0, zeros * __PAGE_SIZE);
            } else {
                memcpy(page, copy, __PAGE_SIZE);
                copy += __PAGE_SIZE;
            }
        }
    }
}

static void restore(void)
{
    copy_back();
    ukplat_tlsp_set(tls);
    keep.is_ending = false;
    keep_seal();
    crash_begin();
    say("start %lu: from the snapshot, after %lu us", (unsigned long)keep.restarts,
        (unsigned long)((ukplat_monotonic_clock() - keep.ended_ns) / 1000));
    ukplat_lcpu_enable_irq();
    context_resume(&context);
}

void snapshot_restore(void)
{
    ukplat_lcpu_disable_irq();
    if (!keep_is_whole() || sum() != keep.snapshot_checksum)
        panic_at(__FILE__, __LINE__, "the snapshot is damaged");
    machine_reset();
    context_call_on(apart.stack + sizeof(apart.stack), restore);
}
