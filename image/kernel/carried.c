/* SPDX-License-Identifier: Apache-2.0 */
/* A snapshot that comes along from another domain. When the domain dies as a whole, xsboot builds
 * its successor, and puts beside its region the snapshot that the dead one, or one before it, had
 * taken. So the successor's first start is as fast as a restart.
 *
 *   D1. A snapshot says at NOTE_PA where it is, as long as it is there. Nobody here reads that.
 *   D2. What came along is believed only as a whole: a checksum over its pages, and one over all
 *       that it rests on, the kernel, the initrd and its place, and the server's arguments.
 *       Whatever is wrong costs the time of a cold start, and nothing else.
 *   D3. It lies behind the region: a note, then the pages in the order in which snapshot_sum()
 *       sees them. Each says where it was; here it is told where it is.
 * On any other machine than Xen's domains there is none. Change with: tools/boot/snapshot.py. */

#include "snapshot.h"

#define MAGIC "TARDSNAP"
#define IDENTITY_SEED 0x6964656e

struct note {
    char magic[8];
    uint64_t first_pa, page_count, sum; /* the first index; all pages of it */
    uint64_t identity;                  /* of what it rests on */
    uint64_t check;                     /* of all of the above */
};

extern char kernel_start[], constants_end[]; /* kernel.lds */

static uint64_t check_of(const struct note *note)
{
    return checksum_words(SNAPSHOT_SEED, note, offsetof(struct note, check));
}

static uint64_t identity(void)
{
    static char words[COMMAND_LINE_SIZE];
    uint64_t size = 0;
    for (uint32_t index = 0; index < options.argument_count; index++) {
        size_t length = strlen(options.arguments[index]) + 1;
        assert(length <= sizeof(words) - size);
        memcpy(words + size, options.arguments[index], length);
        size += length;
    }
    uint64_t sum = checksum_words(IDENTITY_SEED, kernel_start,
                                  (uint64_t)(constants_end - kernel_start));
    sum = checksum_words(sum, direct(keep.initrd.pa), keep.initrd.size & -8ull);
    sum = checksum_words(sum, &keep.initrd, sizeof(keep.initrd));
    return checksum_words(sum, words, sizeof(words));
}

/* ---- for others to take along */

static struct note *note_here(void)
{
    return xen_leaf() && page_is_ram(NOTE_PA, PAGE_SIZE) ? direct(NOTE_PA) : NULL;
}

static uint64_t pages_of(uint64_t first_pa)
{
    uint64_t count = 0;
    for (uint64_t pa = first_pa; pa; pa = ((const struct index *)direct(pa))->next_pa) {
        const struct index *index = direct(pa);
        for (uint64_t at = 0; at < index->count; at++)
            count += is_copy(&index->entries[at]);
        count++;
    }
    return count;
}

static void publish(uint64_t rests_on)
{
    struct note *note = note_here();
    if (!note)
        return;
    *note = (struct note){.first_pa = keep.snapshot_pa, .page_count = pages_of(keep.snapshot_pa),
                          .sum = keep.snapshot_checksum, .identity = rests_on};
    memcpy(note->magic, MAGIC, sizeof(note->magic));
    note->check = check_of(note);
}

void carried_publish(void)
{
    if (note_here())
        publish(identity());
}

void carried_withdraw(void)
{
    if (note_here())
        memset(note_here(), 0, sizeof(struct note));
}

/* ---- what has come along */

static bool is_free(uint64_t pa, uint64_t count)
{
    for (uint64_t index = 0; index < count; index++)
        if (!page_is_free(pa + index * PAGE_SIZE))
            return false;
    return true;
}

static uint64_t sum_of(uint64_t pages_pa, uint64_t count)
{
    uint64_t sum = SNAPSHOT_SEED;
    for (uint64_t index = 0; index < count; index++)
        sum = checksum_words(sum, direct(pages_pa + index * PAGE_SIZE), PAGE_SIZE);
    return sum;
}

static bool is_whole(const struct note *note, uint64_t pages_pa)
{
    uint64_t count = note->page_count;
    return note->check == check_of(note) && count > 0 && count < PHYSICAL_MAX / PAGE_SIZE &&
           page_is_ram(pages_pa, count * PAGE_SIZE) && is_free(pages_pa, count) &&
           sum_of(pages_pa, count) == note->sum && note->identity == identity();
}

/* D3. */
static void move_here(uint64_t pages_pa, uint64_t count)
{
    uint64_t next = pages_pa;
    for (bool is_last = false; !is_last;) {
        struct index *index = direct(next);
        next += PAGE_SIZE;
        for (uint64_t at = 0; at < index->count; at++)
            if (is_copy(&index->entries[at])) {
                index->entries[at].pa = next;
                next += PAGE_SIZE;
            }
        is_last = index->next_pa == 0;
        index->next_pa = is_last ? 0 : next;
    }
    assert(next == pages_pa + count * PAGE_SIZE);
}

void carried_adopt(void)
{
    uint64_t pa = options.region_pa + options.region_size;
    if (!xen_leaf() || keep.restarts || !options.snapshot || !page_is_ram(pa, PAGE_SIZE))
        return;
    const struct note *note = direct(pa);
    if (memcmp(note->magic, MAGIC, sizeof(note->magic)))
        return;
    if (!is_whole(note, pa + PAGE_SIZE)) {
        log_error("the snapshot that came along is another image's, or damaged: this start is "
                  "cold");
        return;
    }
    move_here(pa + PAGE_SIZE, note->page_count);
    keep.snapshot_pa = pa + PAGE_SIZE;
    bool is_readable = snapshot_sum(&keep.snapshot_checksum);
    assert(is_readable);
    keep_seal();
    publish(note->identity);
}
